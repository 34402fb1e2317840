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
#include "tools/bench/bench.h"
#include "tools/bench/bench_node.h"
#include "tools/bench/fetch.h"
#include "tools/bench/fill.h"
#include "tools/bench/floor.h"
#include "tools/bench/process.h"
#include "tools/bench/scratch.h"
#include "tools/bench/slow_link.h"

enum {
    IN_FLIGHT = 16,
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

/* ---- Turns ---- */

static uint64_t wire_bytes(const struct catchup *catchup)
{
    return catchup->link ? bench_slow_link_count(catchup->link).bytes : bench_loopback_bytes();
}

static tandem_err catch_up(void *context, bench_sample *out)
{
    const struct catchup *catchup = context;
    double operations = (double)catchup->filled.operations;
    uint64_t wire = wire_bytes(catchup);
    bench_fetch fetch = {.source = catchup->source.path,
                         .operations = catchup->filled.operations};
    bench_fetched fetched = {0};
    tandem_err err;

    if (catchup->node) {
        fetch.url = catchup->link ? bench_slow_link_url(catchup->link)
                                  : bench_node_url(catchup->node, catchup->variant->http);
        fetch.beside = bench_node_pid(catchup->node);
    }
    if ((err = bench_fetch_all(&fetch, &fetched)) != TANDEM_OK)
        return err;
    out->values[RATE] = operations / fetched.seconds;
    out->values[RATE_INDEXED] = operations / fetched.seconds_indexed;
    out->batch = operations / (double)fetched.commits;
    out->rss_anon_bytes = fetched.rss_anon_bytes;
    out->disk_bytes_per_operation = (double)fetched.disk_bytes / operations;
    if (catchup->node)
        out->wire_bytes_per_operation = (double)(wire_bytes(catchup) - wire) / operations;
    return TANDEM_OK;
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
    bench_print_batch(run, &pairs);
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
