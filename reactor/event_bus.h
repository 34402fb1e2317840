/*
 * The event bus: tells whoever subscribed how far the store is committed and what else happened, and
 * runs what other actors want done on the loop.
 *
 * A commit is a position, the newer replacing the older, and so are the events of each kind: one of
 * each is pending at most, however fast the executor is and however slow a subscriber.
 *
 * Threads: callbacks run on the loop host; all calls from any thread. After td_event_bus_unsubscribe
 * returns the callback does not run.
 */
#ifndef TANDEM_REACTOR_EVENT_BUS_H
#define TANDEM_REACTOR_EVENT_BUS_H

#include "reactor/actor.h"
#include "reactor/event.h"

typedef struct td_event_bus td_event_bus;
typedef struct tandem_subscription td_subscription;

tandem_err td_event_bus_open(td_host *loop, td_event_bus **out);
/* Once its host has stopped. Calls that did not run are dropped. NULL is fine. */
void td_event_bus_free(td_event_bus *bus);

void td_event_bus_committed(td_event_bus *bus, uint64_t position);
/* The bus counts it: event->count is not looked at. */
void td_event_bus_tell(td_event_bus *bus, const tandem_event *event);
/* How many of a kind there were. */
uint64_t td_event_bus_count(td_event_bus *bus, tandem_event_kind kind);
/* Have every subscriber that wants it roused; several of these may become one. */
void td_event_bus_rouse(td_event_bus *bus);

/* Each may be NULL. */
typedef struct td_subscriber {
    void (*committed)(void *context, uint64_t position);
    void (*happened)(void *context, const tandem_event *event);
    void (*roused)(void *context);   /* whenever the bus has told something, and when it is asked to */
    void (*released)(void *context); /* nothing of it is called any more; may run on any thread */
    void *context;
} td_subscriber;

/* subscriber is copied. TANDEM_E_NOMEM; then released is not called. */
tandem_err td_event_bus_subscribe(td_event_bus *bus, const td_subscriber *subscriber,
                                  td_subscription **out);
void td_event_bus_unsubscribe(td_subscription *subscription); /* NULL is fine */

/* Have run(call) called on the loop; call->message.drop must be set. */
typedef struct td_bus_call td_bus_call;
struct td_bus_call {
    td_message message;
    void (*run)(td_bus_call *call);
};
void td_event_bus_run(td_event_bus *bus, td_bus_call *call);

#endif
