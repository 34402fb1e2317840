/*
 * The simulation runtime: one thread, a virtual clock, and one seed that decides which actor has
 * its turn.
 *
 * What the threads runtime leaves open, the generator decides: which of the actors with work comes
 * next, and how many messages an actor handles between two drained calls. Nothing else may: no
 * address, no real clock, no hash order, so that a seed can be replayed.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "reactor/message.h"
#include "reactor/runtime.h"

/* 2026-01-01T00:00:00Z */
#define WALL_START_MS UINT64_C(1767225600000)
/* The longest that a wait for ever takes, see runtime.h. */
#define WAIT_MS_MAX (UINT64_C(30) * 24 * 3600 * 1000)

enum {
    UNDRAINED_MAX = 1024,      /* as in the threads runtime */
    MONOTONIC_START_S = 86400, /* a monotonic clock starts within its first day */
    MOMENT_US = 1000000,       /* in it there are no more than so many turns … */
    TURNS_RESTLESS_MAX = 10000, /* … and then, until a question is given up, so many */
};

/* The number of a message that was timed and waits in a mailbox: still to be cancelled. */
#define NUMBER_IN_MAILBOX UINT64_MAX
#define NOT_READY SIZE_MAX

struct generator {
    uint64_t state[4];
};

struct simulated_actor;

struct td_simulation {
    uint64_t now_us;
    uint64_t trace;
    uint64_t seed;
    struct generator schedule;
    struct generator scenario;
    td_timers timers;
    struct simulated_actor **ready; /* room for all actors, so that a post cannot fail */
    size_t ready_count, ready_room;
    size_t actors, runtimes;
    uint64_t runtimes_opened;
    struct simulated_actor *running;
    uint64_t moment_us; /* when the turns began to be counted */
    uint64_t turns;
    const char *restless; /* whose turn it was when there were too many */
    uint64_t probes[TD_PROBE_COUNT];
    uint64_t deaths;
    tandem_log_fn log;
    void *log_context;
    tandem_log_level log_level;
};

struct simulated_runtime {
    td_runtime base;
    tandem_env env;
    td_simulation *simulation;
    struct generator random;
    uint64_t name_hash;
    uint64_t monotonic_start_us;
    int64_t skew_ms;
    size_t hosts;
    /* It dies when `dies_in` passings of `dies_at` are over; 0: it lives on. */
    td_probe_kind dies_at;
    uint64_t dies_in;
    bool dead;
    td_disk_call disk_call;
    tandem_err disk_err;
    uint64_t disk_failures; /* left */
};

struct simulated_host {
    td_host base;
    td_simulation *simulation;
    struct simulated_actor *first, *last; /* in order of opening */
    bool stopped;
};

struct simulated_actor {
    td_actor base;
    const td_actor_ops *ops;
    void *self;
    uint64_t name_hash;
    td_message_list mailbox;
    size_t ready_index;
    uint32_t undrained; /* messages handled since its last drained call */
    struct simulated_actor *next, *prev;
};

struct simulated_reply {
    td_reply base;
    unsigned owners;
    bool set;
    tandem_err err;
};

/* ---- Random numbers ----
 *
 * xoshiro256** by David Blackman and Sebastiano Vigna, seeded by splitmix64 as they advise
 * (https://prng.di.unimi.it/, public domain): small, fast, and fit for streams side by side.
 */

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t rotated(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

static void generator_init(struct generator *generator, uint64_t seed)
{
    for (size_t i = 0; i < 4; i++)
        generator->state[i] = splitmix64(&seed);
}

static uint64_t generator_next(struct generator *generator)
{
    uint64_t *s = generator->state;
    uint64_t result = rotated(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotated(s[3], 45);
    return result;
}

/* Below limit. Its lean towards some of them is one in 2^32 for a few thousand actors. */
static size_t generator_below(struct generator *generator, size_t limit)
{
    return (size_t)((generator_next(generator) >> 32) * limit >> 32);
}

static uint64_t name_hash_of(const char *name)
{
    return XXH3_64bits(name, strlen(name));
}

/* ---- Environment ---- */

static struct simulated_runtime *runtime_of_env(tandem_env *env)
{
    return (struct simulated_runtime *)((char *)env - offsetof(struct simulated_runtime, env));
}

static uint64_t env_wall_ms(tandem_env *env)
{
    struct simulated_runtime *runtime = runtime_of_env(env);
    int64_t ms = (int64_t)(WALL_START_MS + runtime->simulation->now_us / 1000);

    return __builtin_add_overflow(ms, runtime->skew_ms, &ms) || ms < 0 ? 0 : (uint64_t)ms;
}

static uint64_t env_monotonic_us(tandem_env *env)
{
    struct simulated_runtime *runtime = runtime_of_env(env);

    return runtime->monotonic_start_us + runtime->simulation->now_us;
}

static void env_random_bytes(tandem_env *env, void *out, size_t size)
{
    struct generator *random = &runtime_of_env(env)->random;
    uint8_t *to = out;

    while (size > 0) {
        uint64_t value = generator_next(random);

        for (size_t i = 0; i < sizeof(value) && size > 0; i++, size--, value >>= 8)
            *to++ = (uint8_t)value;
    }
}

static const struct tandem_env_ops simulated_env_ops = {
    .wall_ms = env_wall_ms,
    .monotonic_us = env_monotonic_us,
    .random_bytes = env_random_bytes,
};

/* What a frozen reactor still does is no event. */
static void hook_probe(tandem_env *env, td_probe_kind probe)
{
    struct simulated_runtime *runtime = runtime_of_env(env);

    if (runtime->dead)
        return;
    runtime->simulation->probes[probe]++;
    if (!runtime->dies_in || runtime->dies_at != probe || --runtime->dies_in)
        return;
    runtime->dead = true;
    runtime->simulation->deaths++;
    td_log(env, TANDEM_LOG_WARNING, "simulation", "dies at %s", td_probe_name(probe));
}

static tandem_err hook_disk(tandem_env *env, td_disk_call call)
{
    struct simulated_runtime *runtime = runtime_of_env(env);

    if (runtime->dead)
        return call == TD_DISK_COMMITTED ? TANDEM_OK : TANDEM_E_IO;
    if (!runtime->disk_failures || runtime->disk_call != call)
        return TANDEM_OK;
    runtime->disk_failures--;
    if (call == TD_DISK_PUT)
        hook_probe(env, TD_PROBE_DISK_PUT_FAILED);
    else if (call == TD_DISK_COMMIT)
        hook_probe(env, TD_PROBE_DISK_COMMIT_FAILED);
    else if (call == TD_DISK_COMMITTED)
        hook_probe(env, TD_PROBE_DISK_COMMIT_UNKNOWN);
    return runtime->disk_err;
}

static bool hook_is_dead(tandem_env *env)
{
    return runtime_of_env(env)->dead;
}

static const struct td_hooks simulated_hooks = {
    .probe = hook_probe,
    .disk = hook_disk,
    .is_dead = hook_is_dead,
};

/* ---- The scheduler ---- */

static struct simulated_host *host_of(const struct simulated_actor *actor)
{
    return (struct simulated_host *)actor->base.host;
}

static td_simulation *simulation_of(const struct simulated_actor *actor)
{
    return host_of(actor)->simulation;
}

/* Enter the actor among the ready ones or take it out, as its state is now. */
static void update_ready(struct simulated_actor *actor)
{
    td_simulation *simulation = simulation_of(actor);
    bool ready = !host_of(actor)->stopped && (actor->mailbox.first || actor->undrained);

    if (ready && actor->ready_index == NOT_READY) {
        actor->ready_index = simulation->ready_count;
        simulation->ready[simulation->ready_count++] = actor;
    } else if (!ready && actor->ready_index != NOT_READY) {
        struct simulated_actor *last = simulation->ready[--simulation->ready_count];

        simulation->ready[actor->ready_index] = last;
        last->ready_index = actor->ready_index;
        actor->ready_index = NOT_READY;
    }
}

static void mailbox_push(struct simulated_actor *actor, td_message *message)
{
    td_message_list_push(&actor->mailbox, message);
    update_ready(actor);
}

static void trace(const struct simulated_actor *actor, uint32_t kind, bool drained)
{
    td_simulation *simulation = simulation_of(actor);
    const struct simulated_runtime *runtime =
        (const struct simulated_runtime *)actor->base.host->runtime;
    const uint64_t step[] = {simulation->now_us, runtime->name_hash, actor->name_hash,
                             (uint64_t)kind << 1 | drained};

    simulation->trace = XXH3_64bits_withSeed(step, sizeof(step), simulation->trace);
}

static void run_drained(struct simulated_actor *actor)
{
    td_simulation *simulation = simulation_of(actor);
    struct simulated_actor *before = simulation->running;

    actor->undrained = 0;
    trace(actor, 0, true);
    simulation->running = actor;
    actor->ops->drained(actor->self);
    simulation->running = before;
}

static void run_message(struct simulated_actor *actor)
{
    td_simulation *simulation = simulation_of(actor);
    td_message *message = td_message_list_pop(&actor->mailbox);

    message->to = NULL;
    message->number = 0;
    if (actor->ops->drained)
        actor->undrained++;
    trace(actor, message->kind, false);
    simulation->running = actor;
    actor->ops->handle(actor->self, message);
    simulation->running = NULL;
}

static void run_one(td_simulation *simulation)
{
    struct simulated_actor *actor =
        simulation->ready[generator_below(&simulation->schedule, simulation->ready_count)];
    bool drained = actor->undrained > 0;

    if (simulation->now_us - simulation->moment_us >= MOMENT_US) {
        simulation->moment_us = simulation->now_us;
        simulation->turns = 0;
    }
    if (++simulation->turns == TD_SIMULATION_TURNS_MAX && !simulation->restless)
        simulation->restless = actor->ops->name;
    if (drained && actor->mailbox.first && actor->undrained < UNDRAINED_MAX)
        drained = generator_next(&simulation->schedule) >> 63;
    if (drained)
        run_drained(actor);
    else
        run_message(actor);
    update_ready(actor);
}

static bool step(td_simulation *simulation, uint64_t until_us)
{
    td_message *timer = td_timers_first(&simulation->timers);

    assert(!simulation->running);
    if (simulation->ready_count > 0) {
        run_one(simulation);
        return true;
    }
    if (!timer || timer->due_us > until_us)
        return false;
    if (timer->due_us > simulation->now_us)
        simulation->now_us = timer->due_us;
    while ((timer = td_timers_first(&simulation->timers)) &&
           timer->due_us <= simulation->now_us) {
        td_timers_remove(&simulation->timers, timer);
        timer->number = NUMBER_IN_MAILBOX;
        mailbox_push((struct simulated_actor *)timer->to, timer);
    }
    return true;
}

bool td_simulation_step(td_simulation *simulation, uint64_t until_us)
{
    return !simulation->restless && step(simulation, until_us);
}

void td_simulation_run(td_simulation *simulation, uint64_t duration_us)
{
    uint64_t until_us;

    if (__builtin_add_overflow(simulation->now_us, duration_us, &until_us))
        until_us = UINT64_MAX;
    while (td_simulation_step(simulation, until_us))
        ;
    simulation->now_us = until_us;
}

/* ---- Actors ---- */

/* May the caller touch what is the host's own? As strict as with threads. */
static bool may_touch(const struct simulated_host *host)
{
    return host->stopped || td_host_is_current(&host->base);
}

static tandem_err simulated_actor_open(td_host *base, const td_actor_ops *ops, void *self,
                                       td_actor **out)
{
    struct simulated_host *host = (struct simulated_host *)base;
    td_simulation *simulation = host->simulation;
    struct simulated_actor *actor;

    if (simulation->actors == simulation->ready_room) {
        size_t room = simulation->ready_room ? simulation->ready_room * 2 : 16;
        struct simulated_actor **ready =
            realloc(simulation->ready, room * sizeof(*simulation->ready));

        if (!ready)
            return TANDEM_E_NOMEM;
        simulation->ready = ready;
        simulation->ready_room = room;
    }
    actor = calloc(1, sizeof(*actor));
    if (!actor)
        return TANDEM_E_NOMEM;
    actor->base.host = base;
    actor->ops = ops;
    actor->self = self;
    actor->name_hash = name_hash_of(ops->name);
    actor->ready_index = NOT_READY;
    actor->prev = host->last;
    if (host->last)
        host->last->next = actor;
    else
        host->first = actor;
    host->last = actor;
    simulation->actors++;
    *out = &actor->base;
    return TANDEM_OK;
}

static void simulated_actor_free(td_actor *base)
{
    struct simulated_actor *actor = (struct simulated_actor *)base;
    struct simulated_host *host = host_of(actor);
    td_message_list dropped = {0};

    assert(may_touch(host) && host->simulation->running != actor);
    td_message_list_append(&dropped, &actor->mailbox);
    td_timers_remove_to(&host->simulation->timers, base, &dropped);
    actor->undrained = 0;
    update_ready(actor);
    td_message_list_drop(&dropped);
    if (actor->prev)
        actor->prev->next = actor->next;
    else
        host->first = actor->next;
    if (actor->next)
        actor->next->prev = actor->prev;
    else
        host->last = actor->prev;
    host->simulation->actors--;
    free(actor);
}

static void simulated_post(td_actor *actor, td_message *message)
{
    message->to = actor;
    message->number = 0;
    mailbox_push((struct simulated_actor *)actor, message);
}

static void simulated_post_after(td_actor *base, td_message *message, uint64_t delay_ms)
{
    struct simulated_actor *actor = (struct simulated_actor *)base;
    struct simulated_host *host = host_of(actor);

    assert(may_touch(host));
    message->to = base;
    message->due_us = td_due_us(host->simulation->now_us, delay_ms);
    if (host->stopped) {
        /* Never due, so not among the timers that move the clock. */
        message->number = NUMBER_IN_MAILBOX;
        mailbox_push(actor, message);
    } else {
        td_timers_add(&host->simulation->timers, message);
    }
}

static bool simulated_cancel(td_actor *base, td_message *message)
{
    struct simulated_actor *actor = (struct simulated_actor *)base;

    assert(may_touch(host_of(actor)));
    if (message->to != base || !message->number)
        return false;
    if (message->number == NUMBER_IN_MAILBOX) {
        td_message_list_remove(&actor->mailbox, message);
        update_ready(actor);
    } else {
        td_timers_remove(&simulation_of(actor)->timers, message);
    }
    message->number = 0;
    message->to = NULL;
    return true;
}

/* ---- Hosts ---- */

static tandem_err simulated_host_open(td_runtime *base, td_host_kind kind, const char *name,
                                      td_host **out)
{
    struct simulated_runtime *runtime = (struct simulated_runtime *)base;
    struct simulated_host *host = calloc(1, sizeof(*host));

    if (!host)
        return TANDEM_E_NOMEM;
    host->base.runtime = base;
    host->simulation = runtime->simulation;
    runtime->hosts++;
    *out = &host->base;
    return TANDEM_OK;
}

static bool simulated_host_is_current(const td_host *base)
{
    const struct simulated_host *host = (const struct simulated_host *)base;
    const struct simulated_actor *running = host->simulation->running;

    /* Only one thread exists, so it is the one that stopped the host. */
    return running ? running->base.host == base || host->stopped : host->stopped;
}

static void simulated_host_stop(td_host *base)
{
    struct simulated_host *host = (struct simulated_host *)base;

    if (host->stopped)
        return;
    assert(!td_host_is_current(base));
    host->stopped = true;
    for (struct simulated_actor *actor = host->first; actor; actor = actor->next) {
        td_message_list timed = {0};

        update_ready(actor);
        td_timers_remove_to(&host->simulation->timers, &actor->base, &timed);
        for (td_message *message = timed.first; message; message = message->next)
            message->number = NUMBER_IN_MAILBOX;
        td_message_list_append(&actor->mailbox, &timed);
    }
    for (struct simulated_actor *actor = host->first; actor; actor = actor->next)
        if (actor->undrained)
            run_drained(actor);
}

static void simulated_host_free(td_host *base)
{
    struct simulated_host *host = (struct simulated_host *)base;

    simulated_host_stop(base);
    assert(!host->first);
    ((struct simulated_runtime *)base->runtime)->hosts--;
    free(host);
}

static struct uv_loop_s *simulated_loop(td_host *host)
{
    return NULL;
}

static int simulated_loop_fd(td_host *host)
{
    return -1;
}

static int simulated_loop_timeout_ms(td_host *host)
{
    return -1;
}

static tandem_err simulated_loop_poll(td_host *host)
{
    return TANDEM_E_STATE;
}

/* ---- Replies ---- */

static tandem_err simulated_reply_open(td_runtime *runtime, td_reply **out)
{
    struct simulated_reply *reply = calloc(1, sizeof(*reply));

    if (!reply)
        return TANDEM_E_NOMEM;
    reply->base.runtime = runtime;
    reply->owners = 1;
    *out = &reply->base;
    return TANDEM_OK;
}

static void simulated_reply_set(td_reply *base, tandem_err err)
{
    struct simulated_reply *reply = (struct simulated_reply *)base;

    assert(!reply->set);
    reply->set = true;
    reply->err = err;
}

static tandem_err simulated_reply_wait(td_reply *base, uint64_t timeout_ms)
{
    struct simulated_reply *reply = (struct simulated_reply *)base;
    td_simulation *simulation = ((struct simulated_runtime *)base->runtime)->simulation;
    bool for_ever = timeout_ms == UINT64_MAX;
    uint64_t until_us = td_due_us(simulation->now_us, for_ever ? WAIT_MS_MAX : timeout_ms);

    assert(!simulation->running); /* whoever is to answer could never run */
    /* Also where nothing comes to rest: who asks may have lent the question until it is answered. */
    for (uint64_t i = 0; !reply->set && i < TURNS_RESTLESS_MAX; i += simulation->restless != NULL)
        if (!step(simulation, until_us))
            break;
    if (reply->set)
        return reply->err;
    if (!for_ever)
        simulation->now_us = until_us;
    return TANDEM_E_TIMEOUT;
}

static void simulated_reply_keep(td_reply *base)
{
    ((struct simulated_reply *)base)->owners++;
}

static void simulated_reply_free(td_reply *base)
{
    struct simulated_reply *reply = (struct simulated_reply *)base;

    if (--reply->owners == 0)
        free(reply);
}

/* ---- Runtimes ---- */

static void simulated_runtime_free(td_runtime *base)
{
    struct simulated_runtime *runtime = (struct simulated_runtime *)base;

    assert(runtime->hosts == 0);
    runtime->simulation->runtimes--;
    free(runtime);
}

static const struct td_runtime_ops simulated_ops = {
    .name = "simulation",
    .host_open = simulated_host_open,
    .host_stop = simulated_host_stop,
    .host_free = simulated_host_free,
    .host_is_current = simulated_host_is_current,
    .actor_open = simulated_actor_open,
    .actor_free = simulated_actor_free,
    .post = simulated_post,
    .post_and_help = simulated_post,
    .post_after = simulated_post_after,
    .cancel = simulated_cancel,
    .reply_open = simulated_reply_open,
    .reply_set = simulated_reply_set,
    .reply_wait = simulated_reply_wait,
    .reply_keep = simulated_reply_keep,
    .reply_free = simulated_reply_free,
    .loop = simulated_loop,
    .loop_fd = simulated_loop_fd,
    .loop_timeout_ms = simulated_loop_timeout_ms,
    .loop_poll = simulated_loop_poll,
    .free = simulated_runtime_free,
};

tandem_err td_simulation_runtime(td_simulation *simulation, const char *name,
                                 int64_t clock_skew_ms, td_runtime **out)
{
    struct simulated_runtime *runtime = calloc(1, sizeof(*runtime));
    uint64_t seed[3];

    if (!runtime)
        return TANDEM_E_NOMEM;
    runtime->simulation = simulation;
    runtime->name_hash = name_hash_of(name);
    runtime->skew_ms = clock_skew_ms;
    /* Counted, or a reactor opened again would draw the same identities again. */
    seed[0] = simulation->seed;
    seed[1] = runtime->name_hash;
    seed[2] = simulation->runtimes_opened++;
    generator_init(&runtime->random, XXH3_64bits(seed, sizeof(seed)));
    runtime->monotonic_start_us =
        (1 + generator_below(&runtime->random, MONOTONIC_START_S)) * UINT64_C(1000000);
    runtime->env = (tandem_env){.ops = &simulated_env_ops, .hooks = &simulated_hooks,
                                .log = simulation->log,
                                .log_context = simulation->log_context,
                                .log_level = simulation->log_level};
    runtime->base = (td_runtime){.ops = &simulated_ops, .env = &runtime->env};
    simulation->runtimes++;
    *out = &runtime->base;
    return TANDEM_OK;
}

void td_simulation_skew(td_runtime *runtime, int64_t clock_skew_ms)
{
    ((struct simulated_runtime *)runtime)->skew_ms = clock_skew_ms;
}

void td_simulation_arm(td_runtime *base, td_probe_kind probe, uint64_t nth)
{
    struct simulated_runtime *runtime = (struct simulated_runtime *)base;

    runtime->dies_at = probe;
    runtime->dies_in = nth;
}

bool td_simulation_is_dead(const td_runtime *runtime)
{
    return ((const struct simulated_runtime *)runtime)->dead;
}

void td_simulation_disk(td_runtime *base, td_disk_call call, tandem_err err, uint64_t count)
{
    struct simulated_runtime *runtime = (struct simulated_runtime *)base;

    runtime->disk_call = call;
    runtime->disk_err = err;
    runtime->disk_failures = count;
}

/* ---- The simulation ---- */

tandem_err td_simulation_open(uint64_t seed, td_simulation **out)
{
    td_simulation *simulation = calloc(1, sizeof(*simulation));
    uint64_t streams = seed;

    if (!simulation)
        return TANDEM_E_NOMEM;
    simulation->seed = seed;
    /* Streams of their own: a scenario that draws once more must not change the schedule. */
    generator_init(&simulation->schedule, splitmix64(&streams));
    generator_init(&simulation->scenario, splitmix64(&streams));
    *out = simulation;
    return TANDEM_OK;
}

void td_simulation_free(td_simulation *simulation)
{
    if (!simulation)
        return;
    assert(simulation->runtimes == 0);
    free(simulation->ready);
    free(simulation);
}

void td_simulation_log(td_simulation *simulation, tandem_log_fn log, void *context,
                       tandem_log_level level)
{
    simulation->log = log;
    simulation->log_context = context;
    simulation->log_level = level;
}

const char *td_simulation_restless(const td_simulation *simulation)
{
    return simulation->restless;
}

uint64_t td_simulation_now_us(const td_simulation *simulation)
{
    return simulation->now_us;
}

uint64_t td_simulation_random(td_simulation *simulation)
{
    return generator_next(&simulation->scenario);
}

uint64_t td_simulation_trace(const td_simulation *simulation)
{
    return simulation->trace;
}

uint64_t td_simulation_deaths(const td_simulation *simulation)
{
    return simulation->deaths;
}

bool td_simulation_is_turning(const td_simulation *simulation)
{
    return simulation->running != NULL;
}

const uint64_t *td_simulation_probes(const td_simulation *simulation)
{
    return simulation->probes;
}
