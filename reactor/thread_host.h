/*
 * What the hosts of the threads runtime share: the queue that posts go into, the actors' turns, the
 * timers. threads.c makes worker hosts of it (a thread that waits on a condition), loop.c loop
 * hosts (a libuv loop).
 *
 * One queue per host, not per actor: the consumer takes the whole of it under one lock, and a post
 * costs a wake-up only if the consumer would otherwise sleep.
 *
 * Private to the threads runtime.
 */
#ifndef TANDEM_REACTOR_THREAD_HOST_H
#define TANDEM_REACTOR_THREAD_HOST_H

#include <pthread.h>
#include <stdatomic.h>

#include "reactor/message.h"
#include "reactor/runtime.h"

typedef struct td_thread_host td_thread_host;
typedef struct td_thread_actor td_thread_actor;

struct td_thread_host_ops {
    /* Have a turn begin soon. Called with the lock held, from any thread. */
    void (*wake)(td_thread_host *host);
    /* The first timer became another, on the host's thread. */
    void (*rearm)(td_thread_host *host);
    /* Have the thread, if there is one, return; join it. The state is STOPPING. */
    void (*stop)(td_thread_host *host);
    /* Stopped, and without actors. */
    void (*free)(td_thread_host *host);
};

enum { TD_THREAD_HOST_RUNNING, TD_THREAD_HOST_STOPPING, TD_THREAD_HOST_STOPPED };

struct td_thread_host {
    td_host base;
    const struct td_thread_host_ops *ops;
    struct uv_loop_s *loop; /* NULL for a worker */
    bool driven;            /* without a thread: the embedder polls */
    pthread_mutex_t lock;   /* queue, awake, lent */
    td_message_list queue;
    bool awake; /* the consumer will look at the queue before it sleeps */
    bool lent; /* to a caller that stands in for its thread, which stays asleep meanwhile */
    bool lends; /* a worker: its thread waits for nothing but the queue and the timers */
    uint64_t sleeps_until_us; /* the thread, of its own accord; under the lock */
    atomic_int state;
    _Atomic(const void *) runner; /* td_thread_self() of the thread that it runs on */
    atomic_size_t actors;
    /* The host's thread's; once stopped, the caller's. */
    td_message_list taken;
    td_timers timers;
    td_thread_actor *undrained_first, *undrained_last;
    td_thread_actor *running;
};

/* The caller's thread: a number that no other living thread has. */
const void *td_thread_self(void);
uint64_t td_thread_monotonic_us(void);
/* A thread with this name and with all signals blocked. TANDEM_E_NOMEM. */
tandem_err td_thread_start(pthread_t *thread, const char *name, void *(*main)(void *), void *self);

tandem_err td_thread_host_init(td_thread_host *host, const struct td_thread_host_ops *ops,
                               td_runtime *runtime);
void td_thread_host_release(td_thread_host *host);

bool td_thread_host_is_running(td_thread_host *host);
/* One turn on the host's thread: messages, due timers, drained calls, each bounded together. */
void td_thread_host_turn(td_thread_host *host);

/* Slots of the runtime's table. */
void td_thread_host_stop(td_host *host);
bool td_thread_host_is_current(const td_host *host);
tandem_err td_thread_actor_open(td_host *host, const td_actor_ops *ops, void *self,
                                td_actor **out);
void td_thread_actor_free(td_actor *actor);
void td_thread_actor_post(td_actor *actor, td_message *message);
void td_thread_actor_post_and_help(td_actor *actor, td_message *message);
void td_thread_actor_post_after(td_actor *actor, td_message *message, uint64_t delay_ms);
bool td_thread_actor_cancel(td_actor *actor, td_message *message);

/* loop.c */
tandem_err td_loop_host_open(td_runtime *runtime, const char *name, bool drive,
                             td_thread_host **out);
struct uv_loop_s *td_loop_host_loop(td_host *host);
int td_loop_host_fd(td_host *host);
int td_loop_host_timeout_ms(td_host *host);
tandem_err td_loop_host_poll(td_host *host);

#endif
