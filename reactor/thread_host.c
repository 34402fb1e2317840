#include "reactor/thread_host.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* The bounds of a turn; their sum bounds the messages between two drained calls. Timers have a
 * share of their own, so that a flood of messages cannot starve them. */
enum { TURN_MESSAGES_MAX = 960, TURN_TIMERS_MAX = 64 };

enum { THREAD_NAME_BYTES = 16 }; /* what the kernel keeps, with its NUL */

struct td_thread_actor {
    td_actor base;
    const td_actor_ops *ops;
    void *self;
    bool undrained; /* in the host's list */
    td_thread_actor *undrained_next;
};

const void *td_thread_self(void)
{
    static _Thread_local char self;

    return &self;
}

uint64_t td_thread_monotonic_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

tandem_err td_thread_start(pthread_t *thread, const char *name, void *(*main)(void *), void *self)
{
    char short_name[THREAD_NAME_BYTES];
    sigset_t all, before;
    int failed;

    /* Blocked before the thread exists: the embedder's signals are the embedder's threads'. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(thread, NULL, main, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return TANDEM_E_NOMEM;
    snprintf(short_name, sizeof(short_name), "%.*s", THREAD_NAME_BYTES - 1, name);
    pthread_setname_np(*thread, short_name);
    return TANDEM_OK;
}

tandem_err td_thread_host_init(td_thread_host *host, const struct td_thread_host_ops *ops,
                               td_runtime *runtime)
{
    *host = (td_thread_host){.base.runtime = runtime, .ops = ops};
    return pthread_mutex_init(&host->lock, NULL) ? TANDEM_E_NOMEM : TANDEM_OK;
}

void td_thread_host_release(td_thread_host *host)
{
    pthread_mutex_destroy(&host->lock);
}

bool td_thread_host_is_running(td_thread_host *host)
{
    return atomic_load(&host->state) == TD_THREAD_HOST_RUNNING;
}

bool td_thread_host_is_current(const td_host *base)
{
    const td_thread_host *host = (const td_thread_host *)base;

    return atomic_load(&host->runner) == td_thread_self();
}

/* ---- Turns ---- */

static void run_message(td_thread_host *host, td_message *message)
{
    td_thread_actor *actor = (td_thread_actor *)message->to;

    if (actor->ops->drained && !actor->undrained) {
        actor->undrained = true;
        actor->undrained_next = NULL;
        if (host->undrained_last)
            host->undrained_last->undrained_next = actor;
        else
            host->undrained_first = actor;
        host->undrained_last = actor;
    }
    message->to = NULL;
    host->running = actor;
    actor->ops->handle(actor->self, message);
    host->running = NULL;
}

static void undrained_remove(td_thread_host *host, td_thread_actor *actor)
{
    td_thread_actor *previous = NULL;

    for (td_thread_actor *a = host->undrained_first; a != actor; a = a->undrained_next)
        previous = a;
    if (previous)
        previous->undrained_next = actor->undrained_next;
    else
        host->undrained_first = actor->undrained_next;
    if (host->undrained_last == actor)
        host->undrained_last = previous;
    actor->undrained = false;
}

/* Read anew after every call: a handler may free other actors, and their messages with them. */
void td_thread_host_turn(td_thread_host *host)
{
    td_message *message;
    td_thread_actor *actor;
    uint64_t now_us;

    pthread_mutex_lock(&host->lock);
    td_message_list_append(&host->taken, &host->queue);
    pthread_mutex_unlock(&host->lock);

    for (size_t i = 0; i < TURN_MESSAGES_MAX && td_thread_host_is_running(host); i++) {
        if (!(message = td_message_list_pop(&host->taken)))
            break;
        run_message(host, message);
    }
    now_us = td_timers_first(&host->timers) ? td_thread_monotonic_us() : 0;
    for (size_t i = 0; i < TURN_TIMERS_MAX && td_thread_host_is_running(host); i++) {
        message = td_timers_first(&host->timers);
        if (!message || message->due_us > now_us)
            break;
        td_timers_remove(&host->timers, message);
        run_message(host, message);
    }
    /* Also when stopping: what was handled is owed its drained call. */
    while ((actor = host->undrained_first)) {
        undrained_remove(host, actor);
        host->running = actor;
        actor->ops->drained(actor->self);
        host->running = NULL;
    }
}

void td_thread_host_stop(td_host *base)
{
    td_thread_host *host = (td_thread_host *)base;

    if (!td_thread_host_is_running(host))
        return;
    assert(!td_thread_host_is_current(base));
    atomic_store(&host->state, TD_THREAD_HOST_STOPPING);
    host->ops->stop(host);
    /* Nobody needs to be woken any more. */
    pthread_mutex_lock(&host->lock);
    host->awake = true;
    pthread_mutex_unlock(&host->lock);
    atomic_store(&host->runner, td_thread_self());
    atomic_store(&host->state, TD_THREAD_HOST_STOPPED);
}

/* ---- Actors ---- */

static td_thread_host *host_of(const td_actor *actor)
{
    return (td_thread_host *)actor->host;
}

/* May the caller touch what is the host's thread's? */
static bool may_touch(td_thread_host *host)
{
    return atomic_load(&host->state) == TD_THREAD_HOST_STOPPED ||
           td_thread_host_is_current(&host->base);
}

tandem_err td_thread_actor_open(td_host *host, const td_actor_ops *ops, void *self,
                                td_actor **out)
{
    td_thread_actor *actor = calloc(1, sizeof(*actor));

    if (!actor)
        return TANDEM_E_NOMEM;
    *actor = (td_thread_actor){.base.host = host, .ops = ops, .self = self};
    atomic_fetch_add(&host_of(&actor->base)->actors, 1);
    *out = &actor->base;
    return TANDEM_OK;
}

void td_thread_actor_free(td_actor *base)
{
    td_thread_host *host = host_of(base);
    td_thread_actor *actor = (td_thread_actor *)base;
    td_message_list dropped = {0};

    assert(may_touch(host) && host->running != actor);
    if (actor->undrained)
        undrained_remove(host, actor);
    td_timers_remove_to(&host->timers, base, &dropped);
    td_message_list_remove_to(&host->taken, base, &dropped);
    pthread_mutex_lock(&host->lock);
    td_message_list_remove_to(&host->queue, base, &dropped);
    pthread_mutex_unlock(&host->lock);
    td_message_list_drop(&dropped);
    atomic_fetch_sub(&host->actors, 1);
    free(actor);
}

void td_thread_actor_post(td_actor *actor, td_message *message)
{
    td_thread_host *host = host_of(actor);

    message->to = actor;
    message->number = 0;
    /* Wake under the lock: once the message can be handled, the host may be gone. */
    pthread_mutex_lock(&host->lock);
    td_message_list_push(&host->queue, message);
    if (!host->awake) {
        host->awake = true;
        host->ops->wake(host);
    }
    pthread_mutex_unlock(&host->lock);
}

/* ---- Standing in ---- */

/* The signals that are meant for the caller come when it is itself again. What it did in between may
 * have written past a file's limit: the library reports that as an error. */
static void quiet_begin(sigset_t *before)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, before);
}

static void quiet_end(const sigset_t *before)
{
    static const struct timespec at_once;
    sigset_t past_limit;

    sigemptyset(&past_limit);
    sigaddset(&past_limit, SIGXFSZ);
    if (!sigismember(before, SIGXFSZ))
        sigtimedwait(&past_limit, NULL, &at_once);
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* The host is the thread's again: has it anything to do, sooner than it thinks? */
static void give_back(td_thread_host *host, const void *owner)
{
    const td_message *timer = td_timers_first(&host->timers);

    atomic_store(&host->runner, owner);
    pthread_mutex_lock(&host->lock);
    host->lent = false;
    host->awake = host->queue.first || host->taken.first ||
                  (timer && timer->due_us < host->sleeps_until_us) ||
                  !td_thread_host_is_running(host);
    if (host->awake)
        host->ops->wake(host);
    pthread_mutex_unlock(&host->lock);
}

void td_thread_actor_post_and_help(td_actor *actor, td_message *message)
{
    td_thread_host *host = host_of(actor);
    const void *owner;
    sigset_t before;

    pthread_mutex_lock(&host->lock);
    if (host->awake || !host->lends || !td_thread_host_is_running(host)) {
        pthread_mutex_unlock(&host->lock);
        td_thread_actor_post(actor, message);
        return;
    }
    message->to = actor;
    message->number = 0;
    td_message_list_push(&host->queue, message);
    host->awake = host->lent = true;
    pthread_mutex_unlock(&host->lock);
    quiet_begin(&before);
    owner = atomic_exchange(&host->runner, td_thread_self());
    td_thread_host_turn(host);
    give_back(host, owner);
    quiet_end(&before);
}

void td_thread_actor_post_after(td_actor *actor, td_message *message, uint64_t delay_ms)
{
    td_thread_host *host = host_of(actor);

    assert(may_touch(host));
    message->to = actor;
    message->due_us = td_due_us(td_thread_monotonic_us(), delay_ms);
    td_timers_add(&host->timers, message);
    if (td_timers_first(&host->timers) == message && td_thread_host_is_running(host))
        host->ops->rearm(host);
}

bool td_thread_actor_cancel(td_actor *actor, td_message *message)
{
    td_thread_host *host = host_of(actor);

    assert(may_touch(host));
    if (message->to != actor || !message->number)
        return false;
    td_timers_remove(&host->timers, message);
    message->to = NULL;
    return true;
}
