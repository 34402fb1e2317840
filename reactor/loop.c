/*
 * Loop hosts of the threads runtime: a libuv loop, on a thread or driven by the embedder.
 *
 * Posts arrive through one uv_async_t, timers through one uv_timer_t set for the first of the
 * host's own timers. Others attach handles of theirs to the loop (libwebsockets does), and may call
 * uv_stop() on it: the thread therefore runs the loop again until it is told to stop.
 */
#include <assert.h>
#include <stdlib.h>
#include <uv.h>

#include "reactor/thread_host.h"

struct loop_host {
    td_thread_host base;
    pthread_t thread; /* unless driven */
    uv_loop_t loop;
    uv_async_t wake;
    uv_timer_t timer;
    unsigned open_handles;
};

static void loop_turn(struct loop_host *host);

static void on_timer(uv_timer_t *timer)
{
    loop_turn(timer->data);
}

static void loop_wake(td_thread_host *base)
{
    uv_async_send(&((struct loop_host *)base)->wake);
}

static void loop_rearm(td_thread_host *base)
{
    struct loop_host *host = (struct loop_host *)base;
    td_message *first = td_timers_first(&base->timers);
    uint64_t now_us;

    if (!first) {
        uv_timer_stop(&host->timer);
        return;
    }
    now_us = td_thread_monotonic_us();
    if (first->due_us <= now_us) {
        /* A timer of 0 ms would fire again and again before any socket has its turn. */
        uv_timer_stop(&host->timer);
        uv_async_send(&host->wake);
        return;
    }
    /* Rounded up, or the loop spins through the last millisecond. The loop's time is that of the
     * start of its turn. */
    uv_update_time(&host->loop);
    uv_timer_start(&host->timer, on_timer, (first->due_us - now_us - 1) / 1000 + 1, 0);
}

static void loop_turn(struct loop_host *host)
{
    td_thread_host *base = &host->base;

    if (!td_thread_host_is_running(base))
        return;
    td_thread_host_turn(base);
    loop_rearm(base);
    /* What is left goes through another turn of the loop: sockets want theirs too. */
    pthread_mutex_lock(&base->lock);
    base->awake = base->queue.first || base->taken.first;
    if (base->awake)
        uv_async_send(&host->wake);
    pthread_mutex_unlock(&base->lock);
}

static void on_wake(uv_async_t *wake)
{
    struct loop_host *host = wake->data;

    /* Once stopped the loop is the caller's, and a wake-up left over must not end his uv_run(). */
    if (atomic_load(&host->base.state) == TD_THREAD_HOST_STOPPING)
        uv_stop(&host->loop);
    else
        loop_turn(host);
}

static void *loop_main(void *self)
{
    struct loop_host *host = self;

    atomic_store(&host->base.runner, td_thread_self());
    while (td_thread_host_is_running(&host->base))
        uv_run(&host->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void loop_stop(td_thread_host *base)
{
    struct loop_host *host = (struct loop_host *)base;

    if (!base->driven) {
        uv_async_send(&host->wake);
        pthread_join(host->thread, NULL);
    }
    /* Whoever cleans up may run the loop until nothing of his is left on it. */
    uv_timer_stop(&host->timer);
    uv_unref((uv_handle_t *)&host->wake);
}

static void on_close(uv_handle_t *handle)
{
    struct loop_host *host = handle->data;

    host->open_handles--;
}

/* For the log of a bug: who attached it to the loop and did not take it away? */
static void tell_left(uv_handle_t *handle, void *context)
{
    const struct loop_host *host = context;

    td_log(host->base.base.runtime->env, TANDEM_LOG_ERROR, "loop", "left on the loop: %s%s",
           uv_handle_type_name(handle->type), uv_is_closing(handle) ? ", closing" : "");
}

static void loop_free(td_thread_host *base)
{
    struct loop_host *host = (struct loop_host *)base;

    uv_close((uv_handle_t *)&host->wake, on_close);
    uv_close((uv_handle_t *)&host->timer, on_close);
    while (host->open_handles)
        uv_run(&host->loop, UV_RUN_NOWAIT);
    /* What was attached to the loop is to be closed before its host is freed. If something is left
     * all the same, losing its memory harms nobody, and pulling it from under it might. */
    if (uv_loop_close(&host->loop) != 0) {
        uv_walk(&host->loop, tell_left, host);
        return;
    }
    td_thread_host_release(base);
    free(host);
}

static const struct td_thread_host_ops loop_ops = {
    .wake = loop_wake,
    .rearm = loop_rearm,
    .stop = loop_stop,
    .free = loop_free,
};

tandem_err td_loop_host_open(td_runtime *runtime, const char *name, bool drive,
                             td_thread_host **out)
{
    struct loop_host *host = calloc(1, sizeof(*host));
    tandem_err err;
    int failed;

    if (!host)
        return TANDEM_E_NOMEM;
    if ((err = td_thread_host_init(&host->base, &loop_ops, runtime)) != TANDEM_OK)
        goto fail_init;
    host->base.loop = &host->loop;
    host->base.driven = drive;
    if ((failed = uv_loop_init(&host->loop)) != 0) {
        err = failed == UV_ENOMEM ? TANDEM_E_NOMEM : TANDEM_E_IO;
        goto fail_loop;
    }
    if (uv_async_init(&host->loop, &host->wake, on_wake) != 0) {
        uv_loop_close(&host->loop);
        err = TANDEM_E_IO;
        goto fail_loop;
    }
    uv_timer_init(&host->loop, &host->timer);
    host->wake.data = host->timer.data = host;
    host->open_handles = 2;
    if (drive) {
        /* The first turn tells the kernel about the wake handle: the descriptor works from now. */
        uv_run(&host->loop, UV_RUN_NOWAIT);
    } else if ((err = td_thread_start(&host->thread, name, loop_main, host)) != TANDEM_OK) {
        loop_free(&host->base);
        return err;
    }
    *out = &host->base;
    return TANDEM_OK;

fail_loop:
    td_thread_host_release(&host->base);
fail_init:
    free(host);
    return err;
}

/* ---- Driving ---- */

static bool is_drivable(td_host *host)
{
    td_thread_host *base = (td_thread_host *)host;

    return base->driven && td_thread_host_is_running(base) && !td_thread_host_is_current(host);
}

struct uv_loop_s *td_loop_host_loop(td_host *host)
{
    return ((td_thread_host *)host)->loop;
}

int td_loop_host_fd(td_host *host)
{
    return is_drivable(host) ? uv_backend_fd(td_loop_host_loop(host)) : -1;
}

int td_loop_host_timeout_ms(td_host *host)
{
    if (!is_drivable(host))
        return -1;
    /* Reckoned from the loop's idea of now, which is as old as the last turn. */
    uv_update_time(td_loop_host_loop(host));
    return uv_backend_timeout(td_loop_host_loop(host));
}

tandem_err td_loop_host_poll(td_host *base)
{
    struct loop_host *host = (struct loop_host *)base;

    if (!is_drivable(base))
        return TANDEM_E_STATE;
    atomic_store(&host->base.runner, td_thread_self());
    uv_run(&host->loop, UV_RUN_NOWAIT);
    loop_turn(host); /* the wake-up may come only with the next turn */
    atomic_store(&host->base.runner, NULL);
    return TANDEM_OK;
}
