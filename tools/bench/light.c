#include "tools/bench/light.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "channel/channel.h"
#include "reactor/clock.h"
#include "reactor/runtime.h"
#include "store/share.h"

enum { LOOK_MS = 100, POOL_BYTES = 64 * 1024 * 1024, WINDOW_BYTES = 8 * 1024 * 1024 };

struct light {
    struct light *next;
    bench_lights *lights;
    tandem_channel *channel;
    _Atomic uint64_t *operations;
    uint8_t reactor[TANDEM_ORIGIN_BYTES], origin[TANDEM_ORIGIN_BYTES];
    uint8_t instance[TD_WIRE_INSTANCE_BYTES];
    tandem_writer share; /* what it gives and takes */
    bool said_nothing; /* that it holds nothing, in this session */
};

struct bench_lights {
    td_runtime *runtime;
    td_host *loop;
    td_carrier *websocket, *http;
    td_pool pool;
    struct light *first;
};

/* ---- What the session asks and tells ---- */

static uint64_t clock_of(const struct light *light)
{
    return td_hlc_of_ms(td_env_wall_ms(light->lights->runtime->env));
}

static void say_hello(void *context, td_wire_hello *out)
{
    struct light *light = context;

    memcpy(out->reactor, light->reactor, sizeof(out->reactor));
    memcpy(out->origin, light->origin, sizeof(out->origin));
    memcpy(out->instance, light->instance, sizeof(out->instance));
    out->clock = clock_of(light);
    out->has_shares = true;
    out->gives = out->takes = tandem_writer_slice(&light->share);
    out->agent = tandem_slice_text("a light peer");
}

static tandem_err take_hello(void *context, const td_wire_hello *hello)
{
    return TANDEM_OK;
}

static tandem_err take_have(void *context, const td_wire_have *have)
{
    return TANDEM_OK;
}

static tandem_err take_pull(void *context, const td_wire_pull *pull)
{
    return TANDEM_OK;
}

/* A HAVE without entries: of digests it says that nothing is held, of vectors that nothing is new. */
static void write_nothing(struct light *light, uint64_t number, td_have_level level,
                          tandem_writer *out)
{
    size_t more_at;

    td_wire_patch_count(
        out, td_wire_begin_have(out, number, clock_of(light), 0, level, &more_at), 0);
}

static tandem_err announce(void *context, uint64_t number, tandem_writer *out)
{
    struct light *light = context;

    if (light->said_nothing)
        return TANDEM_END;
    light->said_nothing = true;
    write_nothing(light, number, TD_HAVE_DIGESTS, out);
    return TANDEM_OK;
}

static void heartbeat(void *context, uint64_t number, tandem_writer *out)
{
    write_nothing(context, number, TD_HAVE_VECTORS, out);
}

static void deliver(void *context, td_delivery *delivery)
{
    struct light *light = context;
    uint64_t count = 0;

    for (uint32_t i = 0; i < delivery->count; i++) {
        delivery->jobs[i].err = TANDEM_OK;
        count += delivery->jobs[i].count;
    }
    atomic_fetch_add(light->operations, count);
    td_session_delivered(delivery);
}

static void finished(void *context, tandem_job_handle *handle, uint64_t detail)
{
}

static void take_error(void *context, const td_wire_error *error)
{
}

static const td_session_user user = {
    .hello = say_hello,
    .peer_hello = take_hello,
    .peer_have = take_have,
    .peer_pull = take_pull,
    .announce = announce,
    .heartbeat = heartbeat,
    .deliver = deliver,
    .finished = finished,
    .peer_error = take_error,
};

static void closed(void *context, tandem_err err, const char *text)
{
    struct light *light = context;

    light->said_nothing = false;
    atomic_store(light->operations, 0);
}

/* ---- Many of them ---- */

tandem_err bench_lights_open(bench_lights **out)
{
    bench_lights *lights = calloc(1, sizeof(*lights));
    tandem_err err;

    if (!lights)
        return TANDEM_E_NOMEM;
    lights->pool.limit_bytes = POOL_BYTES;
    if ((err = td_threads_open(true, NULL, NULL, TANDEM_LOG_ERROR, &lights->runtime)) !=
            TANDEM_OK ||
        (err = td_host_open(lights->runtime, TD_HOST_LOOP, "light", &lights->loop)) != TANDEM_OK ||
        (err = td_websocket_carrier_open(lights->loop, &lights->websocket)) != TANDEM_OK ||
        (err = td_http_carrier_open(lights->loop, &lights->http)) != TANDEM_OK)
        return err; /* and the process ends */
    *out = lights;
    return TANDEM_OK;
}

static tandem_err write_share(struct light *light, const char *collection)
{
    const td_filter all = TD_FILTER_ALL;
    tandem_slice name = tandem_slice_text(collection ? collection : "");
    td_share share = TD_SHARE_ALL;
    tandem_err err = td_share_make((td_names){&name, collection ? 1 : 0}, &all, &share);

    if (err != TANDEM_OK)
        return err;
    td_share_write(&share, &light->share);
    td_share_release(&share);
    return tandem_writer_err(&light->share);
}

tandem_err bench_lights_add(bench_lights *lights, const char *url, const char *collection,
                            _Atomic uint64_t *operations)
{
    static const td_job_source no_source;
    tandem_env *env = lights->runtime->env;
    struct light *light = calloc(1, sizeof(*light));
    td_channel_config config = {
        .env = env,
        .window_jobs = 1024,
        .window_bytes = WINDOW_BYTES,
        .retry = TD_RETRY_POLICY_DEFAULT,
        .pool = &lights->pool,
        .source = &no_source,
        .user = &user,
        .closed = closed,
        .context = light,
    };
    tandem_err err;

    if (!light)
        return TANDEM_E_NOMEM;
    light->lights = lights;
    light->operations = operations;
    td_env_random_bytes(env, light->reactor, sizeof(light->reactor));
    td_env_random_bytes(env, light->origin, sizeof(light->origin));
    td_env_random_bytes(env, light->instance, sizeof(light->instance));
    tandem_writer_init(&light->share);
    if ((err = write_share(light, collection)) != TANDEM_OK ||
        (err = td_channel_open(&config, &light->channel)) != TANDEM_OK ||
        (err = td_channel_start(light->channel,
                                strncmp(url, "http:", 5) ? lights->websocket : lights->http,
                                url)) != TANDEM_OK)
        return err;
    light->next = lights->first;
    lights->first = light;
    return TANDEM_OK;
}

void bench_lights_live(bench_lights *lights)
{
    tandem_env *env = lights->runtime->env;
    uint64_t look_ms = 0;

    for (;;) {
        struct pollfd poller = {.fd = td_host_fd(lights->loop), .events = POLLIN};
        int wait_ms = td_host_timeout_ms(lights->loop);
        uint64_t now_ms = td_env_monotonic_ms(env);

        if (now_ms >= look_ms) {
            for (struct light *light = lights->first; light; light = light->next)
                td_channel_tick(light->channel, now_ms);
            look_ms = now_ms + LOOK_MS;
        }
        poll(&poller, 1, wait_ms < 0 || wait_ms > LOOK_MS ? LOOK_MS : wait_ms);
        td_host_poll(lights->loop);
    }
}
