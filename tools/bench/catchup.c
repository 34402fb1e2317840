/*
 * catchup: a fresh peer fetches all that a node holds, until it is durable there. Operations of 128
 * bytes of payload, each a job of its own.
 *
 *   websocket    100 documents, from `tandem serve` by WebSocket
 *   http         the same over HTTP
 *   memory       the same, both reactors in one process, on disk as the others are
 *   documents    100,000 documents, by WebSocket
 *   collections  1,000 collections, by WebSocket
 *   slow_link    100 documents, by WebSocket over a line of 50 Mbit/s that takes 10 ms each way: 20 ms
 *                there and back
 *
 * The ceiling is the floor with as many operations in a commit as the peer had, and 16 batches under
 * way; of memory, a copy from LMDB to LMDB; of slow_link, what the line carries uncompressed.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "channel/carrier.h"
#include "reactor/reactor_parts.h"
#include "sync/sync_manager.h"
#include "tools/bench/bench.h"
#include "tools/bench/bench_node.h"
#include "tools/bench/fill.h"
#include "tools/bench/floor.h"
#include "tools/bench/process.h"
#include "tools/bench/scratch.h"
#include "tools/bench/slow_link.h"
#include "tools/bench/worker.h"

enum {
    IN_FLIGHT = 16,
    LOOK_US = 500,
    FETCH_S_MAX = 600,
    SLOW_OPERATIONS_MAX = 100000,
    SLOW_DELAY_MS = 10,
    SLOW_BYTES_PER_SECOND = 50 * 1000 * 1000 / 8,
};

enum { RATE, RATE_INDEXED };

struct variant {
    const char *name;
    bench_spread_over over;
    bool http, memory, slow;
};

static const struct variant variants[] = {
    {"websocket", {100, 1}, false, false, false},   {"http", {100, 1}, true, false, false},
    {"memory", {100, 1}, false, true, false},       {"documents", {100000, 1}, false, false, false},
    {"collections", {1000, 1000}, false, false, false}, {"slow_link", {100, 1}, false, false, true},
};
enum { VARIANTS = sizeof(variants) / sizeof(variants[0]) };

struct catchup {
    bench_run *run;
    const struct variant *variant;
    bench_scratch source;
    bench_filled filled;
    bench_node *node;
    bench_slow_link *link;
};

/* ---- The peer ---- */

struct fetch {
    const struct catchup *catchup;
    const char *folder, *url;
};

struct fetched {
    double seconds, seconds_indexed;
    uint64_t commits;
};

/* Two reactors of one process, and one of them in any other. */
struct peer {
    tandem_reactor *reactor;
    tandem_sync *sync;
};

struct arrival {
    uint64_t wanted;
    _Atomic uint64_t at_us; /* when all was there; 0: not yet */
};

static void committed(void *context, uint64_t position)
{
    struct arrival *arrival = context;

    if (position >= arrival->wanted && !atomic_load(&arrival->at_us))
        atomic_store(&arrival->at_us, bench_now_us());
}

static tandem_err peer_open(struct peer *peer, const char *folder, td_memory_network *network,
                            const char *name)
{
    tandem_options options = TANDEM_OPTIONS_INIT;
    td_carrier *carrier = NULL;
    tandem_err err;

    options.path = folder;
    if ((err = tandem_open(&options, &peer->reactor)) != TANDEM_OK)
        return err;
    if (network && (err = td_memory_carrier_open(network, td_reactor_loop(peer->reactor), name,
                                                 &carrier)) != TANDEM_OK)
        return err;
    return td_sync_open_on(peer->reactor, NULL, carrier, &peer->sync);
}

static void peer_close(struct peer *peer)
{
    tandem_sync_close(peer->sync);
    tandem_close(peer->reactor);
}

static tandem_err wait_for_all(struct peer *peer, struct arrival *arrival, uint64_t begun_us,
                               struct fetched *out)
{
    tandem_stat stat;
    tandem_err err;

    while (!atomic_load(&arrival->at_us)) {
        if (bench_now_us() - begun_us > FETCH_S_MAX * UINT64_C(1000000))
            return TANDEM_E_TIMEOUT;
        bench_sleep_until_us(bench_now_us() + LOOK_US);
    }
    out->seconds = (double)(arrival->at_us - begun_us) / 1e6;
    /* Answered when the index has come so far. */
    if ((err = tandem_document_head(peer->reactor, "c0", "d0", UINT64_MAX, NULL, NULL, NULL)) !=
        TANDEM_OK)
        return err;
    out->seconds_indexed = (double)(bench_now_us() - begun_us) / 1e6;
    err = tandem_stat_get(peer->reactor, &stat);
    out->commits = stat.commits;
    return err;
}

static tandem_err fetch_from(const struct fetch *fetch, td_memory_network *network,
                             struct fetched *out)
{
    struct arrival arrival = {.wanted = fetch->catchup->filled.operations};
    struct peer peer = {NULL, NULL};
    tandem_subscription *subscription;
    uint64_t begun_us = 0;
    tandem_err err;

    if ((err = peer_open(&peer, fetch->folder, network, "peer")) == TANDEM_OK &&
        (err = tandem_subscribe(peer.reactor, committed, &arrival, &subscription)) == TANDEM_OK) {
        begun_us = bench_now_us();
        err = tandem_remote_add(peer.sync, "source", fetch->url);
    }
    if (err == TANDEM_OK)
        err = wait_for_all(&peer, &arrival, begun_us, out);
    peer_close(&peer);
    return err;
}

static tandem_err fetch_within(const struct fetch *fetch, struct fetched *out)
{
    td_memory_network *network;
    struct peer source = {NULL, NULL};
    char url[128];
    tandem_err err;

    if ((err = td_memory_network_open(&network)) != TANDEM_OK)
        return err;
    if ((err = peer_open(&source, fetch->catchup->source.path, network, "source")) == TANDEM_OK &&
        (err = tandem_listen(source.sync, "", 0, false, url)) == TANDEM_OK)
        err = fetch_from(fetch, network, out);
    peer_close(&source);
    td_memory_network_free(network);
    return err;
}

static tandem_err fetch_work(void *context, void *shared)
{
    const struct fetch *fetch = context;
    tandem_err err = fetch->catchup->variant->memory ? fetch_within(fetch, shared)
                                                     : fetch_from(fetch, NULL, shared);

    if (err != TANDEM_OK)
        cli_fail(err, NULL, "the peer did not get all");
    return err;
}

/* ---- Turns ---- */

static uint64_t wire_bytes(const struct catchup *catchup)
{
    return catchup->link ? bench_slow_link_bytes(catchup->link) : bench_loopback_bytes();
}

static tandem_err catch_up(void *context, bench_sample *out)
{
    const struct catchup *catchup = context;
    double operations = (double)catchup->filled.operations;
    uint64_t wire = wire_bytes(catchup);
    bench_scratch folder;
    struct fetch fetch = {catchup, folder.path, "mem://source"};
    struct fetched fetched = {0};
    bench_worker *worker = NULL;
    tandem_err err = bench_scratch_open(&folder);

    if (err != TANDEM_OK)
        return err;
    if (catchup->node)
        fetch.url = bench_node_url(catchup->node, catchup->variant->http);
    if (catchup->link)
        fetch.url = bench_slow_link_url(catchup->link);
    if ((err = bench_worker_start(fetch_work, &fetch, sizeof(fetched), &worker)) == TANDEM_OK) {
        err = bench_worker_wait(worker, catchup->node ? bench_node_pid(catchup->node) : 0,
                                &out->rss_anon_bytes);
        memcpy(&fetched, bench_worker_shared(worker), sizeof(fetched));
    }
    bench_worker_free(worker);
    if (err == TANDEM_OK) {
        out->values[RATE] = operations / fetched.seconds;
        out->values[RATE_INDEXED] = operations / fetched.seconds_indexed;
        out->batch = operations / (double)(fetched.commits ? fetched.commits : 1);
        out->disk_bytes_per_operation = (double)bench_data_folder_bytes(folder.path) / operations;
        if (!catchup->variant->memory)
            out->wire_bytes_per_operation = (double)(wire_bytes(catchup) - wire) / operations;
    }
    bench_scratch_release(&folder);
    return err;
}

/* What the line carries of canonical bytes alone. */
static void line_ceiling(const struct catchup *catchup, bench_sample *out)
{
    out->values[RATE] = (double)SLOW_BYTES_PER_SECOND * (double)catchup->filled.operations /
                        (double)catchup->filled.canonical_bytes;
}

static tandem_err ceiling(void *context, const bench_sample *subject, bench_sample *out)
{
    const struct catchup *catchup = context;
    bench_floor floor = {
        .records = catchup->filled.operations,
        .record_bytes = catchup->filled.canonical_bytes / catchup->filled.operations,
        .batch = (uint64_t)subject->batch,
        .in_flight = IN_FLIGHT,
    };
    bench_floor_result result = {0};
    tandem_err err = TANDEM_OK;

    if (catchup->variant->slow)
        line_ceiling(catchup, out);
    else if ((err = catchup->variant->memory ? bench_floor_copy(&floor, &result)
                                             : bench_floor_replicate(&floor, &result)) == TANDEM_OK)
        out->values[RATE] = (double)result.records / result.seconds;
    out->values[RATE_INDEXED] = out->values[RATE];
    return err;
}

/* ---- Variants ---- */

static void print_batch(bench_run *run, const bench_pairs *pairs)
{
    double batches[BENCH_PAIRS_MAX];
    bench_figure figure = {.name = "operations_per_commit", .unit = "operations"};

    for (unsigned i = 0; i < pairs->count; i++)
        batches[i] = pairs->subject[i].batch;
    figure.spread = bench_spread_of(batches, pairs->count);
    figure.value = figure.spread.median;
    bench_print(run, &figure);
}

static tandem_err measure(struct catchup *catchup)
{
    bench_run *run = catchup->run;
    uint64_t operations = run->size.operations;
    bench_pairs pairs;
    tandem_err err;

    if (catchup->variant->slow && operations > SLOW_OPERATIONS_MAX)
        operations = SLOW_OPERATIONS_MAX;
    bench_progress(run, "filling", 0, 1);
    if ((err = bench_fill_folder(catchup->source.path, &catchup->variant->over, operations,
                                 &catchup->filled)) != TANDEM_OK ||
        (!catchup->variant->memory &&
         (err = bench_node_open(catchup->source.path, &catchup->node)) != TANDEM_OK) ||
        (catchup->variant->slow &&
         (err = bench_slow_link_open(bench_node_url(catchup->node, false), SLOW_DELAY_MS,
                                     SLOW_BYTES_PER_SECOND, &catchup->link)) != TANDEM_OK) ||
        (err = bench_pairs_run(run, catch_up, ceiling, catchup, &pairs)) != TANDEM_OK)
        return err;
    bench_print_pairs(run, &pairs, RATE, "rate", "operations/s");
    bench_print_pairs(run, &pairs, RATE_INDEXED, "rate_indexed", "operations/s");
    print_batch(run, &pairs);
    bench_print(run, &(bench_figure){.name = "disk_over_canonical",
                                     .value = pairs.subject[0].disk_bytes_per_operation,
                                     .unit = "bytes/operation",
                                     .ceiling = (double)catchup->filled.canonical_bytes /
                                                (double)operations});
    return TANDEM_OK;
}

int bench_catchup(bench_run *run)
{
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; err == TANDEM_OK && i < VARIANTS; i++) {
        struct catchup catchup = {.run = run, .variant = &variants[i]};

        if (!bench_variant(run, variants[i].name))
            continue;
        if ((err = bench_scratch_open(&catchup.source)) == TANDEM_OK)
            err = measure(&catchup);
        bench_slow_link_free(catchup.link);
        bench_node_free(catchup.node);
        bench_scratch_release(&catchup.source);
    }
    return err == TANDEM_OK ? 0 : cli_exit_code(err);
}
