#include "reactor/event_bus.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { COMMITTED = 1, CALL };

struct tandem_subscription {
    td_event_bus *bus;
    td_subscription *next;
    td_subscriber to;
    bool gone; /* unsubscribed from within a dispatch: freed at its end */
};

struct td_event_bus {
    td_actor *actor;
    _Atomic uint64_t position;
    atomic_bool posted;
    td_message message;
    uint64_t told; /* the loop's */
    pthread_mutex_t event_lock; /* held for a copy only: tellers do not wait for callbacks */
    tandem_event events[TANDEM_EVENT_KINDS + 1];
    uint64_t events_told[TANDEM_EVENT_KINDS + 1]; /* the loop's */
    /* Held during a dispatch, so that unsubscribing elsewhere waits for the callback's end. */
    pthread_mutex_t lock;
    bool dispatching;
    td_subscription *subscriptions;
    atomic_uint subscribers; /* without any, nobody need be woken for a commit */
};

static void subscription_free(td_subscription *subscription)
{
    if (subscription->to.released)
        subscription->to.released(subscription->to.context);
    free(subscription);
}

static void sweep(td_event_bus *bus)
{
    for (td_subscription **at = &bus->subscriptions; *at;) {
        td_subscription *subscription = *at;

        if (!subscription->gone) {
            at = &subscription->next;
            continue;
        }
        *at = subscription->next;
        atomic_fetch_sub(&bus->subscribers, 1);
        subscription_free(subscription);
    }
}

static void dispatch_position(td_event_bus *bus)
{
    uint64_t position = atomic_load(&bus->position);

    if (position == bus->told)
        return;
    bus->told = position;
    for (td_subscription *s = bus->subscriptions; s; s = s->next)
        if (!s->gone && s->to.committed)
            s->to.committed(s->to.context, position);
}

static void dispatch_event(td_event_bus *bus, unsigned kind)
{
    tandem_event event;

    pthread_mutex_lock(&bus->event_lock);
    event = bus->events[kind];
    pthread_mutex_unlock(&bus->event_lock);
    if (event.count == bus->events_told[kind])
        return;
    bus->events_told[kind] = event.count;
    for (td_subscription *s = bus->subscriptions; s; s = s->next)
        if (!s->gone && s->to.happened)
            s->to.happened(s->to.context, &event);
}

static void dispatch_rousing(td_event_bus *bus)
{
    for (td_subscription *s = bus->subscriptions; s; s = s->next)
        if (!s->gone && s->to.roused)
            s->to.roused(s->to.context);
}

static void dispatch(td_event_bus *bus)
{
    /* Before the looks: what comes now posts again, and is seen either way. */
    atomic_store(&bus->posted, false);
    pthread_mutex_lock(&bus->lock);
    bus->dispatching = true;
    dispatch_position(bus);
    for (unsigned kind = 1; kind <= TANDEM_EVENT_KINDS; kind++)
        dispatch_event(bus, kind);
    dispatch_rousing(bus);
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
    pthread_mutex_init(&bus->event_lock, NULL);
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

        subscription_free(bus->subscriptions);
        bus->subscriptions = next;
    }
    pthread_mutex_destroy(&bus->lock);
    pthread_mutex_destroy(&bus->event_lock);
    free(bus);
}

static void post(td_event_bus *bus)
{
    if (!atomic_exchange(&bus->posted, true))
        td_actor_post(bus->actor, &bus->message);
}

void td_event_bus_committed(td_event_bus *bus, uint64_t position)
{
    atomic_store(&bus->position, position);
    if (atomic_load(&bus->subscribers))
        post(bus);
}

void td_event_bus_tell(td_event_bus *bus, const tandem_event *event)
{
    tandem_event *slot = &bus->events[event->kind];
    uint64_t count;

    pthread_mutex_lock(&bus->event_lock);
    count = slot->count + 1;
    *slot = *event;
    slot->count = count;
    pthread_mutex_unlock(&bus->event_lock);
    post(bus);
}

uint64_t td_event_bus_count(td_event_bus *bus, tandem_event_kind kind)
{
    uint64_t count;

    pthread_mutex_lock(&bus->event_lock);
    count = bus->events[kind].count;
    pthread_mutex_unlock(&bus->event_lock);
    return count;
}

void td_event_bus_rouse(td_event_bus *bus)
{
    post(bus);
}

tandem_err td_event_bus_subscribe(td_event_bus *bus, const td_subscriber *subscriber,
                                  td_subscription **out)
{
    td_subscription *subscription = calloc(1, sizeof(*subscription));
    bool inside = td_host_is_current(td_actor_host(bus->actor)) && bus->dispatching;

    if (!subscription)
        return TANDEM_E_NOMEM;
    *subscription = (td_subscription){.bus = bus, .to = *subscriber};
    if (!inside)
        pthread_mutex_lock(&bus->lock);
    subscription->next = bus->subscriptions;
    bus->subscriptions = subscription;
    atomic_fetch_add(&bus->subscribers, 1);
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
