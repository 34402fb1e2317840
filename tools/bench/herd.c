#include "tools/bench/herd.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reactor/reactor.h"
#include "sync/sync.h"
#include "tools/bench/light.h"
#include "tools/bench/process.h"
#include "tools/tandem/command.h"

enum {
    PROCESSES_MAX = 4, /* of whole ones; the light ones share another */
    STEPS = 32,              /* of a histogram, from one power of two to the next */
    BUCKETS = STEPS * 40,    /* up to 2^40 us */
    READERS_MAX = 100, /* of more whole ones only some look at what they have: one of … */
    READS_EACH = 9,
};

typedef struct histogram {
    _Atomic uint64_t buckets[BUCKETS];
} histogram;

/* What the processes share. */
struct field {
    histogram latency[2];
    _Atomic bool failed;
    _Atomic uint64_t operations[]; /* of each peer */
};

struct bench_herd {
    unsigned count, websockets, whole;
    struct field *field;
    size_t field_bytes;
    pid_t processes[PROCESSES_MAX + 1];
    unsigned process_count;
    char urls[2][160];
    const char *collection; /* NULL: each has its own */
};

/* A peer, in its own process. */
struct peer {
    bench_herd *herd;
    unsigned index;
    char collection[BENCH_COLLECTION_BYTES];
    tandem_reactor *reactor;
    tandem_sync *sync;
    tandem_operations *operations; /* NULL until the collection is known here */
    tandem_subscription *subscription;
};

/* ---- Latencies ---- */

/* Below STEPS each has a bucket of its own; above, each power of two has STEPS. */
static unsigned bucket_of(uint64_t us)
{
    unsigned power = 0, bucket;

    while (us >> power >= 2 * STEPS)
        power++;
    bucket = power * STEPS + (unsigned)(us >> power);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The largest value that falls into it. */
static double bucket_us(unsigned bucket)
{
    unsigned power = bucket < 2 * STEPS ? 0 : bucket / STEPS - 1;

    return (double)(((uint64_t)(bucket - power * STEPS) + 1) << power) - 1;
}

void bench_herd_forget(bench_herd *herd)
{
    for (unsigned part = 0; part < 2; part++)
        for (unsigned i = 0; i < BUCKETS; i++)
            atomic_store(&herd->field->latency[part].buckets[i], 0);
}

static uint64_t seen_in(const bench_herd *herd, bench_herd_part part, unsigned bucket)
{
    const histogram *latency = herd->field->latency;
    uint64_t seen = 0;

    for (unsigned i = 0; i < 2; i++)
        if (part == BENCH_HERD_ALL || (unsigned)part == i)
            seen += atomic_load(&latency[i].buckets[bucket]);
    return seen;
}

double bench_herd_latency_ms(const bench_herd *herd, bench_herd_part part, double share)
{
    uint64_t total = 0, passed = 0;

    for (unsigned i = 0; i < BUCKETS; i++)
        total += seen_in(herd, part, i);
    for (unsigned i = 0; i < BUCKETS && total; i++) {
        passed += seen_in(herd, part, i);
        if ((double)passed >= share * (double)total)
            return bucket_us(i) / 1000;
    }
    return 0;
}

/* ---- A peer ---- */

/* The first ones of each kind are whole. */
static bool is_whole(const bench_herd *herd, unsigned index)
{
    bool http = index >= herd->websockets;
    unsigned of_kind = http ? herd->count - herd->websockets : herd->websockets;
    unsigned number = http ? index - herd->websockets : index;

    return (uint64_t)number * herd->count < (uint64_t)herd->whole * of_kind;
}

static const char *url_of(const bench_herd *herd, unsigned index)
{
    return herd->urls[index >= herd->websockets];
}

/* {"t": us} */
static bool read_due(tandem_slice payload, uint64_t *out)
{
    tandem_reader reader = tandem_reader_of(payload);
    tandem_slice key;
    uint32_t pairs;

    return tandem_read_map(&reader, &pairs) == TANDEM_OK && pairs == 1 &&
           tandem_read_string(&reader, &key) == TANDEM_OK &&
           tandem_read_uint(&reader, out) == TANDEM_OK;
}

static void see(struct peer *peer, const tandem_operation *operation, uint64_t now_us)
{
    struct field *field = peer->herd->field;
    bool http = peer->index >= peer->herd->websockets;
    uint64_t due_us;

    if (!read_due(operation->payload, &due_us))
        return; /* the document's CREATE */
    if (due_us)
        atomic_fetch_add(
            &field->latency[http].buckets[bucket_of(now_us > due_us ? now_us - due_us : 0)], 1);
}

/* What was committed here is visible: on the reactor's own loop. */
static void committed(void *context, uint64_t position)
{
    struct peer *peer = context;
    uint64_t now_us = bench_now_us();
    tandem_operation operation;
    tandem_err err;

    atomic_store(&peer->herd->field->operations[peer->index], position);
    if (peer->herd->whole > READERS_MAX && peer->index % READS_EACH)
        return;
    if (!peer->operations && tandem_operations_open(peer->reactor, peer->collection, NULL, 0,
                                                    &peer->operations) != TANDEM_OK)
        return;
    while ((err = tandem_operations_next(peer->operations, &operation)) == TANDEM_OK)
        see(peer, &operation, now_us);
    if (err != TANDEM_END)
        atomic_store(&peer->herd->field->failed, true);
}

void bench_herd_collection(unsigned peer, char out[BENCH_COLLECTION_BYTES])
{
    snprintf(out, BENCH_COLLECTION_BYTES, "own-%u", peer);
}

static tandem_err peer_open(struct peer *peer)
{
    const bench_herd *herd = peer->herd;
    const char *const collections[] = {peer->collection};
    tandem_share share = TANDEM_SHARE_INIT;
    tandem_err err;

    if (herd->collection) {
        snprintf(peer->collection, sizeof(peer->collection), "%s", herd->collection);
    } else {
        bench_herd_collection(peer->index, peer->collection);
        share.collections = collections;
        share.collection_count = 1;
    }
    if ((err = tandem_open(NULL, &peer->reactor)) != TANDEM_OK ||
        (err = tandem_subscribe(peer->reactor, committed, peer, &peer->subscription)) !=
            TANDEM_OK ||
        (err = tandem_sync_open(peer->reactor, NULL, &peer->sync)) != TANDEM_OK)
        return err;
    return tandem_remote_add_sharing(peer->sync, "node", url_of(herd, peer->index), &share);
}

/* ---- The processes ---- */

static void process_begin(void)
{
    struct rlimit files;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGINT, SIG_IGN); /* the bench decides */
    signal(SIGTERM, SIG_DFL);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static void give_up(bench_herd *herd, tandem_err err)
{
    cli_fail(err, NULL, "a peer of the herd could not be started");
    atomic_store(&herd->field->failed, true);
    _exit(1);
}

/* Every step'th whole one from first on, until the bench ends it. */
static void live_whole(bench_herd *herd, unsigned first, unsigned step)
{
    process_begin();
    for (unsigned i = first; i < herd->count; i += step) {
        struct peer *peer;
        tandem_err err = TANDEM_E_NOMEM;

        if (!is_whole(herd, i))
            continue;
        if ((peer = calloc(1, sizeof(*peer)))) {
            peer->herd = herd;
            peer->index = i;
            err = peer_open(peer);
        }
        if (err != TANDEM_OK)
            give_up(herd, err);
    }
    for (;;)
        pause();
}

static void live_light(bench_herd *herd)
{
    bench_lights *lights;
    tandem_err err;

    process_begin();
    if ((err = bench_lights_open(&lights)) != TANDEM_OK)
        give_up(herd, err);
    for (unsigned i = 0; i < herd->count; i++) {
        char own[BENCH_COLLECTION_BYTES];

        if (is_whole(herd, i))
            continue;
        bench_herd_collection(i, own);
        if ((err = bench_lights_add(lights, url_of(herd, i), herd->collection ? NULL : own,
                                    &herd->field->operations[i])) != TANDEM_OK)
            give_up(herd, err);
    }
    bench_lights_live(lights);
}

/* ---- The herd ---- */

/* One process more. */
static tandem_err start(bench_herd *herd, bool light, unsigned first)
{
    pid_t pid = fork();

    if (pid < 0)
        return TANDEM_E_IO;
    if (pid == 0 && light)
        live_light(herd);
    if (pid == 0)
        live_whole(herd, first, PROCESSES_MAX);
    herd->processes[herd->process_count++] = pid;
    return TANDEM_OK;
}

tandem_err bench_herd_open(const char *const urls[2], unsigned websockets, unsigned https,
                           unsigned whole, const char *collection, bench_herd **out)
{
    unsigned count = websockets + https;
    bench_herd *herd = calloc(1, sizeof(*herd));
    tandem_err err = TANDEM_OK;

    if (!herd)
        return TANDEM_E_NOMEM;
    herd->count = count;
    herd->websockets = websockets;
    herd->whole = whole < count ? whole : count;
    for (unsigned i = 0; i < 2; i++)
        snprintf(herd->urls[i], sizeof(herd->urls[i]), "%s", urls[i]);
    herd->collection = collection;
    herd->field_bytes = sizeof(*herd->field) + count * sizeof(herd->field->operations[0]);
    herd->field = mmap(NULL, herd->field_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                       -1, 0);
    if (herd->field == MAP_FAILED) {
        free(herd);
        return TANDEM_E_NOMEM;
    }
    fflush(stdout);
    for (unsigned i = 0; err == TANDEM_OK && i < PROCESSES_MAX; i++)
        err = start(herd, false, i);
    if (err == TANDEM_OK && herd->whole < count)
        err = start(herd, true, 0);
    if (err != TANDEM_OK) {
        cli_fail(err, strerror(errno), "the herd could not be started");
        bench_herd_free(herd);
        return err;
    }
    *out = herd;
    return TANDEM_OK;
}

void bench_herd_free(bench_herd *herd)
{
    if (!herd)
        return;
    for (unsigned i = 0; i < herd->process_count; i++)
        kill(herd->processes[i], SIGKILL);
    for (unsigned i = 0; i < herd->process_count; i++)
        while (waitpid(herd->processes[i], NULL, 0) < 0 && errno == EINTR)
            ;
    munmap(herd->field, herd->field_bytes);
    free(herd);
}

unsigned bench_herd_count(const bench_herd *herd)
{
    return herd->count;
}

unsigned bench_herd_having(const bench_herd *herd, uint64_t operations)
{
    unsigned having = 0;

    for (unsigned i = 0; i < herd->count; i++)
        having += atomic_load(&herd->field->operations[i]) >= operations;
    return having;
}

uint64_t bench_herd_fewest(const bench_herd *herd)
{
    uint64_t fewest = UINT64_MAX;

    for (unsigned i = 0; i < herd->count; i++) {
        uint64_t has = atomic_load(&herd->field->operations[i]);

        fewest = has < fewest ? has : fewest;
    }
    return fewest;
}

uint64_t bench_herd_most(const bench_herd *herd)
{
    uint64_t most = 0;

    for (unsigned i = 0; i < herd->count; i++) {
        uint64_t has = atomic_load(&herd->field->operations[i]);

        most = has > most ? has : most;
    }
    return most;
}

uint64_t bench_herd_operations(const bench_herd *herd)
{
    uint64_t operations = 0;

    for (unsigned i = 0; i < herd->count; i++)
        operations += atomic_load(&herd->field->operations[i]);
    return operations;
}

double bench_herd_cpu_s(const bench_herd *herd)
{
    double seconds = 0;

    for (unsigned i = 0; i < herd->process_count; i++)
        seconds += bench_process_cpu_s(herd->processes[i]);
    return seconds;
}
