/*
 * The threads runtime: its table, real clock and randomness, replies, and worker hosts.
 */
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "reactor/thread_host.h"
#include "store/hash_table.h"

struct threads_runtime {
    td_runtime base;
    tandem_env env;
    bool drive;
    atomic_size_t hosts;
};

struct worker {
    td_thread_host base;
    pthread_cond_t wake; /* on CLOCK_MONOTONIC, with the host's lock */
    pthread_t thread;
    bool is_background;
};

struct thread_reply {
    td_reply base;
    pthread_mutex_t lock;
    pthread_cond_t set_cond; /* on CLOCK_MONOTONIC */
    atomic_uint owners;
    bool set;
    tandem_err err;
};

/* A deadline may be later than timespec can say. */
static struct timespec timespec_of(uint64_t us)
{
    const uint64_t latest_s = INT32_MAX;
    uint64_t s = us / 1000000;

    return (struct timespec){.tv_sec = (time_t)(s < latest_s ? s : latest_s),
                             .tv_nsec = (long)(us % 1000000) * 1000};
}

static bool cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    bool done;

    if (pthread_condattr_init(&attributes))
        return false;
    /* The wall clock may jump, and a deadline must not. */
    done = !pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) &&
           !pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
    return done;
}

/* ---- Environment ---- */

static uint64_t env_wall_ms(tandem_env *env)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t env_monotonic_us(tandem_env *env)
{
    return td_thread_monotonic_us();
}

static void env_random_bytes(tandem_env *env, void *out, size_t size)
{
    randombytes_buf(out, size);
}

static const struct tandem_env_ops threads_env_ops = {
    .wall_ms = env_wall_ms,
    .monotonic_us = env_monotonic_us,
    .random_bytes = env_random_bytes,
};

/* ---- Worker hosts ---- */

static void worker_wake(td_thread_host *host)
{
    pthread_cond_signal(&((struct worker *)host)->wake);
}

/* The worker looks at its timers each time before it sleeps. */
static void worker_rearm(td_thread_host *host)
{
}

static void worker_sleep(struct worker *worker)
{
    td_thread_host *host = &worker->base;
    td_message *timer = td_timers_first(&host->timers);

    host->awake = false;
    host->sleeps_until_us = timer ? timer->due_us : UINT64_MAX;
    if (timer) {
        struct timespec due = timespec_of(timer->due_us);

        pthread_cond_timedwait(&worker->wake, &host->lock, &due);
    } else {
        pthread_cond_wait(&worker->wake, &host->lock);
    }
    while (host->lent) {
        host->sleeps_until_us = UINT64_MAX; /* for whatever timer there is then */
        pthread_cond_wait(&worker->wake, &host->lock);
    }
    host->awake = true;
}

/*
 * The calling thread's share becomes a ninth of what others get where there is not enough for all; elsewhere
 * nothing changes. Linux keeps a nice value for each thread. One that is refused is no error: it is a wish.
 */
static void step_back(void)
{
    enum { STEPS = 10 };
    int nice_now = getpriority(PRIO_PROCESS, 0);

    setpriority(PRIO_PROCESS, 0, nice_now + STEPS);
}

static void *worker_main(void *self)
{
    struct worker *worker = self;
    td_thread_host *host = &worker->base;

    if (worker->is_background)
        step_back();
    atomic_store(&host->runner, td_thread_self());
    pthread_mutex_lock(&host->lock);
    while (td_thread_host_is_running(host)) {
        if (!host->queue.first && !host->taken.first)
            worker_sleep(worker);
        pthread_mutex_unlock(&host->lock);
        td_thread_host_turn(host);
        pthread_mutex_lock(&host->lock);
    }
    pthread_mutex_unlock(&host->lock);
    return NULL;
}

static void worker_stop(td_thread_host *host)
{
    struct worker *worker = (struct worker *)host;

    /* Under the lock, or the signal falls between the worker's look at the state and its sleep. */
    pthread_mutex_lock(&host->lock);
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&host->lock);
    pthread_join(worker->thread, NULL);
}

static void worker_free(td_thread_host *host)
{
    struct worker *worker = (struct worker *)host;

    pthread_cond_destroy(&worker->wake);
    td_thread_host_release(host);
    free(worker);
}

static const struct td_thread_host_ops worker_ops = {
    .wake = worker_wake,
    .rearm = worker_rearm,
    .stop = worker_stop,
    .free = worker_free,
};

static tandem_err worker_open(td_runtime *runtime, const char *name, bool is_background,
                              td_thread_host **out)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    tandem_err err;

    if (!worker)
        return TANDEM_E_NOMEM;
    if ((err = td_thread_host_init(&worker->base, &worker_ops, runtime)) != TANDEM_OK)
        goto fail_init;
    worker->is_background = is_background;
    worker->base.awake = true; /* the thread looks at the queue first */
    worker->base.lends = true;
    err = TANDEM_E_NOMEM;
    if (!cond_init(&worker->wake))
        goto fail_cond;
    if ((err = td_thread_start(&worker->thread, name, worker_main, worker)) != TANDEM_OK)
        goto fail_thread;
    *out = &worker->base;
    return TANDEM_OK;

fail_thread:
    pthread_cond_destroy(&worker->wake);
fail_cond:
    td_thread_host_release(&worker->base);
fail_init:
    free(worker);
    return err;
}

/* ---- Hosts ---- */

static tandem_err threads_host_open(td_runtime *base, td_host_kind kind, const char *name,
                                    td_host **out)
{
    struct threads_runtime *runtime = (struct threads_runtime *)base;
    td_thread_host *host = NULL;
    tandem_err err = kind == TD_HOST_LOOP
                         ? td_loop_host_open(base, name, runtime->drive, &host)
                         : worker_open(base, name, kind == TD_HOST_BACKGROUND, &host);

    if (err != TANDEM_OK)
        return err;
    atomic_fetch_add(&runtime->hosts, 1);
    *out = &host->base;
    return TANDEM_OK;
}

static void threads_host_free(td_host *base)
{
    struct threads_runtime *runtime = (struct threads_runtime *)base->runtime;
    td_thread_host *host = (td_thread_host *)base;

    td_thread_host_stop(base);
    assert(atomic_load(&host->actors) == 0);
    host->ops->free(host);
    atomic_fetch_sub(&runtime->hosts, 1);
}

/* ---- Replies ---- */

static tandem_err thread_reply_open(td_runtime *runtime, td_reply **out)
{
    struct thread_reply *reply = calloc(1, sizeof(*reply));

    if (!reply)
        return TANDEM_E_NOMEM;
    if (pthread_mutex_init(&reply->lock, NULL))
        goto fail_lock;
    if (!cond_init(&reply->set_cond))
        goto fail_cond;
    reply->base.runtime = runtime;
    atomic_init(&reply->owners, 1);
    *out = &reply->base;
    return TANDEM_OK;

fail_cond:
    pthread_mutex_destroy(&reply->lock);
fail_lock:
    free(reply);
    return TANDEM_E_NOMEM;
}

static void thread_reply_keep(td_reply *base)
{
    atomic_fetch_add(&((struct thread_reply *)base)->owners, 1);
}

static void thread_reply_free(td_reply *base)
{
    struct thread_reply *reply = (struct thread_reply *)base;

    if (atomic_fetch_sub(&reply->owners, 1) > 1)
        return;
    pthread_cond_destroy(&reply->set_cond);
    pthread_mutex_destroy(&reply->lock);
    free(reply);
}

static void thread_reply_set(td_reply *base, tandem_err err)
{
    struct thread_reply *reply = (struct thread_reply *)base;

    /* The waiter may free it as soon as it is set; and signalled under the lock it would wake up only
     * to wait for that. */
    thread_reply_keep(base);
    pthread_mutex_lock(&reply->lock);
    assert(!reply->set);
    reply->set = true;
    reply->err = err;
    pthread_mutex_unlock(&reply->lock);
    pthread_cond_broadcast(&reply->set_cond);
    thread_reply_free(base);
}

static tandem_err thread_reply_wait(td_reply *base, uint64_t timeout_ms)
{
    struct thread_reply *reply = (struct thread_reply *)base;
    struct timespec deadline = timespec_of(td_due_us(td_thread_monotonic_us(), timeout_ms));
    int waited = 0;
    tandem_err err;

    pthread_mutex_lock(&reply->lock);
    while (!reply->set && waited != ETIMEDOUT)
        waited = timeout_ms == UINT64_MAX
                     ? pthread_cond_wait(&reply->set_cond, &reply->lock)
                     : pthread_cond_timedwait(&reply->set_cond, &reply->lock, &deadline);
    err = reply->set ? reply->err : TANDEM_E_TIMEOUT;
    pthread_mutex_unlock(&reply->lock);
    return err;
}

/* ---- The runtime ---- */

static void threads_free(td_runtime *base)
{
    struct threads_runtime *runtime = (struct threads_runtime *)base;

    assert(atomic_load(&runtime->hosts) == 0);
    free(runtime);
}

static const struct td_runtime_ops threads_ops = {
    .name = "threads",
    .host_open = threads_host_open,
    .host_stop = td_thread_host_stop,
    .host_free = threads_host_free,
    .host_is_current = td_thread_host_is_current,
    .actor_open = td_thread_actor_open,
    .actor_free = td_thread_actor_free,
    .post = td_thread_actor_post,
    .post_and_help = td_thread_actor_post_and_help,
    .post_after = td_thread_actor_post_after,
    .cancel = td_thread_actor_cancel,
    .reply_open = thread_reply_open,
    .reply_set = thread_reply_set,
    .reply_wait = thread_reply_wait,
    .reply_keep = thread_reply_keep,
    .reply_free = thread_reply_free,
    .loop = td_loop_host_loop,
    .loop_fd = td_loop_host_fd,
    .loop_timeout_ms = td_loop_host_timeout_ms,
    .loop_poll = td_loop_host_poll,
    .free = threads_free,
};

tandem_err td_threads_open(bool drive, tandem_log_fn log, void *log_context,
                           tandem_log_level level, td_runtime **out)
{
    struct threads_runtime *runtime;
    uint64_t key;

    if (sodium_init() < 0)
        return TANDEM_E_IO;
    randombytes_buf(&key, sizeof(key));
    td_hash_propose_key(key);
    runtime = calloc(1, sizeof(*runtime));
    if (!runtime)
        return TANDEM_E_NOMEM;
    runtime->env = (tandem_env){.ops = &threads_env_ops, .log = log, .log_context = log_context,
                                .log_level = level};
    runtime->base = (td_runtime){.ops = &threads_ops, .env = &runtime->env};
    runtime->drive = drive;
    *out = &runtime->base;
    return TANDEM_OK;
}
