#include "reactor/event_bus.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { COMMITTED = 1, CALL };

struct tandem_subscription {
    td_event_bus *bus;
    td_subscription *next;
    void (*committed)(void *, uint64_t position);
    void *context;
    bool gone; /* unsubscribed from within a dispatch: freed at its end */
};

struct td_event_bus {
    td_actor *actor;
    _Atomic uint64_t position;
    atomic_bool posted;
    td_message message;
    uint64_t told; /* the loop's */
    /* Held during a dispatch, so that unsubscribing elsewhere waits for the callback's end. */
    pthread_mutex_t lock;
    bool dispatching;
    td_subscription *subscriptions;
};

static void sweep(td_event_bus *bus)
{
    for (td_subscription **at = &bus->subscriptions; *at;) {
        td_subscription *subscription = *at;

        if (!subscription->gone) {
            at = &subscription->next;
            continue;
        }
        *at = subscription->next;
        free(subscription);
    }
}

static void dispatch(td_event_bus *bus)
{
    uint64_t position;

    /* Before the load: a commit that comes now posts again, and is seen either way. */
    atomic_store(&bus->posted, false);
    position = atomic_load(&bus->position);
    if (position == bus->told)
        return;
    bus->told = position;
    pthread_mutex_lock(&bus->lock);
    bus->dispatching = true;
    for (td_subscription *s = bus->subscriptions; s; s = s->next)
        if (!s->gone)
            s->committed(s->context, position);
    bus->dispatching = false;
    sweep(bus);
    pthread_mutex_unlock(&bus->lock);
}

static void handle(void *self, td_message *message)
{
    td_event_bus *bus = self;

    if (message->kind == COMMITTED)
        dispatch(bus);
    else
        ((td_bus_call *)message)->run((td_bus_call *)message);
}

static void drop_nothing(td_message *message)
{
    (void)message; /* it is part of the bus */
}

static const td_actor_ops bus_ops = {.name = "event_bus", .handle = handle};

tandem_err td_event_bus_open(td_host *loop, td_event_bus **out)
{
    td_event_bus *bus = calloc(1, sizeof(*bus));
    tandem_err err;

    if (!bus)
        return TANDEM_E_NOMEM;
    pthread_mutex_init(&bus->lock, NULL);
    bus->message.kind = COMMITTED;
    bus->message.drop = drop_nothing;
    if ((err = td_actor_open(loop, &bus_ops, bus, &bus->actor)) != TANDEM_OK) {
        td_event_bus_free(bus);
        return err;
    }
    *out = bus;
    return TANDEM_OK;
}

void td_event_bus_free(td_event_bus *bus)
{
    if (!bus)
        return;
    td_actor_free(bus->actor);
    while (bus->subscriptions) {
        td_subscription *next = bus->subscriptions->next;

        free(bus->subscriptions);
        bus->subscriptions = next;
    }
    pthread_mutex_destroy(&bus->lock);
    free(bus);
}

void td_event_bus_committed(td_event_bus *bus, uint64_t position)
{
    atomic_store(&bus->position, position);
    if (!atomic_exchange(&bus->posted, true))
        td_actor_post(bus->actor, &bus->message);
}

tandem_err td_event_bus_subscribe(td_event_bus *bus, void (*committed)(void *, uint64_t position),
                                  void *context, td_subscription **out)
{
    td_subscription *subscription = calloc(1, sizeof(*subscription));
    bool inside = td_host_is_current(td_actor_host(bus->actor)) && bus->dispatching;

    if (!subscription)
        return TANDEM_E_NOMEM;
    subscription->bus = bus;
    subscription->committed = committed;
    subscription->context = context;
    if (!inside)
        pthread_mutex_lock(&bus->lock);
    subscription->next = bus->subscriptions;
    bus->subscriptions = subscription;
    if (!inside)
        pthread_mutex_unlock(&bus->lock);
    *out = subscription;
    return TANDEM_OK;
}

void td_event_bus_unsubscribe(td_subscription *subscription)
{
    td_event_bus *bus;

    if (!subscription)
        return;
    bus = subscription->bus;
    if (td_host_is_current(td_actor_host(bus->actor)) && bus->dispatching) {
        subscription->gone = true;
        return;
    }
    pthread_mutex_lock(&bus->lock);
    subscription->gone = true;
    sweep(bus);
    pthread_mutex_unlock(&bus->lock);
}

void td_event_bus_run(td_event_bus *bus, td_bus_call *call)
{
    assert(call->message.drop);
    call->message.kind = CALL;
    td_actor_post(bus->actor, &call->message);
}
