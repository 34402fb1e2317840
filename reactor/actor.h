/*
 * Actors: everything with a life of its own is a struct, a handle function and a mailbox of
 * messages (many producers, one consumer). Outside code never touches the struct: it posts
 * messages, and where an answer is wanted it gets exactly one reply.
 *
 * A host is where actors run: a thread of its own, the event loop, or the simulation. Messages of
 * one actor are handled one at a time, in the order in which they were posted. All actors of a host
 * share its thread, so they may call each other directly. While that thread sleeps another may stand
 * in for it, one at a time, that is going to wait for an answer anyhow: td_actor_ask().
 *
 * Messages are intrusive and belong to the sender until posted, to the runtime until handled, then
 * to the handler. Posting never fails and never waits: whoever makes messages without bound is the
 * one to bound them (mailbox windows, a reply before the next request).
 *
 * Threads: post from any thread. Timers and td_actor_free from the actor's own host only, or from
 * anywhere once its host has stopped.
 */
#ifndef TANDEM_REACTOR_ACTOR_H
#define TANDEM_REACTOR_ACTOR_H

#include "store/env.h"

typedef struct td_host td_host;
typedef struct td_actor td_actor;
typedef struct td_message td_message;

struct td_message {
    /* The runtime's while posted or timed; `to` is NULL while nobody but the owner has it, so a
     * new message is zeroed. */
    td_actor *to;
    td_message *next, *prev, *child;
    uint64_t due_us;
    uint64_t number;
    /* The sender's. */
    uint32_t kind; /* the actor's own numbering */
    /* Frees what will never be handled, because the actor is freed first; a request answers its
     * reply with TANDEM_E_CLOSED here. Never NULL. */
    void (*drop)(td_message *message);
};

typedef struct td_actor_ops {
    const char *name; /* for the log and the simulator's trace */
    /* Takes the message. */
    void (*handle)(void *self, td_message *message);
    /* Called after handle when the mailbox has been emptied, or after a bounded number of messages
     * if it never is: the place for work worth doing once for many messages (a group commit).
     * What was handled before the host is stopped still gets its call. NULL: nothing. */
    void (*drained)(void *self);
} td_actor_ops;

/* The actor may get messages at once. Errors: TANDEM_E_NOMEM. */
tandem_err td_actor_open(td_host *host, const td_actor_ops *ops, void *self, td_actor **out);
/* Drops what is queued and what is timed. NULL is fine. Not from within the actor's own functions;
 * from those of another actor of its host is fine. */
void td_actor_free(td_actor *actor);

void td_actor_post(td_actor *actor, td_message *message);

/* Have the message handled once, delay_ms from now. It must not be posted or timed already. */
void td_actor_post_after(td_actor *actor, td_message *message, uint64_t delay_ms);
/* Take a timed message back: true, and it is the caller's again; false if it is not timed. A due
 * message is timed until it is handled, so a cancelled one never comes. */
bool td_actor_cancel(td_actor *actor, td_message *message);

td_host *td_actor_host(const td_actor *actor);

/*
 * Post a request and wait for its reply, for ever: as td_actor_post() and td_reply_wait(). Where the
 * actor's host has a thread that sleeps, the caller's stands in for it for a turn, its signals blocked
 * meanwhile: two wake-ups less, which are a fifth of a commit. So no actor of such a host may keep what
 * belongs to a thread from one turn to the next. Not from within a handler.
 */
typedef struct td_reply td_reply;
tandem_err td_actor_ask(td_actor *actor, td_message *message, td_reply *reply);

/* Is the caller running on this host's thread (or in its step of the simulation)? Once the host has
 * stopped, the thread that stopped it stands in for its own. */
bool td_host_is_current(const td_host *host);

/*
 * A reply that somebody outside the actors waits for. Set exactly once.
 *
 * In the simulation waiting runs the simulation; there it must not happen inside a handler
 * (asserted).
 */
typedef struct td_runtime td_runtime;

tandem_err td_reply_open(td_runtime *runtime, td_reply **out);
/* From any thread. */
void td_reply_set(td_reply *reply, tandem_err err);
/* timeout_ms UINT64_MAX waits for ever. Returns what was set, or TANDEM_E_TIMEOUT; after a timeout
 * the reply may still be set later, so whoever may give up keeps it alive (td_reply_keep). */
tandem_err td_reply_wait(td_reply *reply, uint64_t timeout_ms);
/* Count one more owner; each frees once. */
void td_reply_keep(td_reply *reply);
void td_reply_free(td_reply *reply); /* NULL is fine */

#endif
