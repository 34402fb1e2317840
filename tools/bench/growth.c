/*
 * growth: what an operation costs at 100 thousand, a million and ten million of them, over a hundredth
 * as many documents.
 *
 *   write    further ones, in groups of 100, on documents in turn, until the index has them
 *   catchup  all of them, for a fresh peer by WebSocket, until the index has them
 *
 * The ceiling is what one costs at the smallest size. Figures are named by the size.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/bench/bench.h"
#include "tools/bench/bench_node.h"
#include "tools/bench/fetch.h"
#include "tools/bench/fill.h"
#include "tools/bench/process.h"
#include "tools/bench/scratch.h"
#include "tools/bench/worker.h"

enum {
    SMALLEST_QUICK = 1000,
    SMALLEST = 100000,
    STEP = 10,
    SIZES_MAX = 3,
    OPERATIONS_A_DOCUMENT = 100,
    GROUP = 100,
    WRITTEN_AT_A_TURN = 20, /* of what is there a twentieth, … */
    WRITTEN_MAX = 50000,    /* … and no more than this */
};

struct store {
    uint64_t operations;
    bench_spread_over over;
    bench_scratch folder;
    bench_filled filled;
};

struct growth {
    bench_run *run;
    struct store stores[SIZES_MAX];
    unsigned count;
    const struct store *subject;
};

/* ---- Write ---- */

struct written {
    double seconds;
    uint64_t operations;
};

static uint64_t to_write(const struct store *store)
{
    uint64_t count = store->operations / WRITTEN_AT_A_TURN;

    count = count < WRITTEN_MAX ? count : WRITTEN_MAX;
    return count < GROUP ? GROUP : count / GROUP * GROUP;
}

static tandem_err write_group(tandem_reactor *reactor, const struct store *store, uint64_t first)
{
    bench_job *made = calloc(GROUP, sizeof(*made));
    tandem_job jobs[GROUP];
    tandem_err err = TANDEM_E_NOMEM;

    for (uint64_t i = 0; made && i < GROUP; i++) {
        bench_job_make(&made[i], &store->over, first + i);
        jobs[i] = made[i].job;
    }
    if (made)
        err = tandem_execute_group(reactor, jobs, GROUP, NULL, NULL, NULL);
    free(made);
    return err;
}

static tandem_err write_work(void *context, void *shared)
{
    const struct store *store = context;
    tandem_options options = TANDEM_OPTIONS_INIT;
    struct written *out = shared;
    tandem_reactor *reactor;
    uint64_t begun_us;
    tandem_err err;

    options.path = store->folder.path;
    if ((err = tandem_open(&options, &reactor)) == TANDEM_OK) {
        begun_us = bench_now_us();
        for (uint64_t i = 0; err == TANDEM_OK && i < to_write(store); i += GROUP)
            err = write_group(reactor, store, i);
        if (err == TANDEM_OK)
            err = tandem_document_head(reactor, "c0", "d0", UINT64_MAX, NULL, NULL, NULL);
        out->seconds = (double)(bench_now_us() - begun_us) / 1e6;
        out->operations = to_write(store);
        tandem_close(reactor);
    }
    if (err != TANDEM_OK)
        cli_fail(err, NULL, "the bench's operations could not be written");
    return err;
}

static tandem_err write_to(const struct store *store, bench_sample *out)
{
    struct written written = {0};
    tandem_err err = bench_worker_run(write_work, (void *)store, &written, sizeof(written),
                                      &out->rss_anon_bytes);

    if (err == TANDEM_OK)
        out->values[0] = written.seconds * 1e6 / (double)written.operations;
    return err;
}

static tandem_err write_subject(void *context, bench_sample *out)
{
    const struct growth *growth = context;

    return write_to(growth->subject, out);
}

static tandem_err write_smallest(void *context, const bench_sample *subject, bench_sample *out)
{
    const struct growth *growth = context;

    return write_to(&growth->stores[0], out);
}

/* ---- Catching up ---- */

static tandem_err fetch_from(const struct store *store, bench_sample *out)
{
    double operations = (double)store->operations;
    bench_fetch fetch = {.operations = store->operations};
    bench_fetched fetched = {0};
    bench_node *node;
    tandem_err err = bench_node_open(store->folder.path, &node);

    if (err != TANDEM_OK)
        return err;
    fetch.url = bench_node_url(node, false);
    fetch.beside = bench_node_pid(node);
    if ((err = bench_fetch_all(&fetch, &fetched)) == TANDEM_OK) {
        out->values[0] = fetched.seconds_indexed * 1e6 / operations;
        out->rss_anon_bytes = fetched.rss_anon_bytes;
        out->disk_bytes_per_operation = (double)fetched.disk_bytes / operations;
    }
    bench_node_free(node);
    return err;
}

static tandem_err fetch_subject(void *context, bench_sample *out)
{
    const struct growth *growth = context;

    return fetch_from(growth->subject, out);
}

static tandem_err fetch_smallest(void *context, const bench_sample *subject, bench_sample *out)
{
    const struct growth *growth = context;

    return fetch_from(&growth->stores[0], out);
}

/* ---- Sizes ---- */

static tandem_err fill_all(struct growth *growth)
{
    bench_run *run = growth->run;
    uint64_t operations = run->quick ? SMALLEST_QUICK : SMALLEST;
    tandem_err err = TANDEM_OK;

    while (err == TANDEM_OK && growth->count < SIZES_MAX && operations <= run->size.operations) {
        struct store *store = &growth->stores[growth->count];

        store->operations = operations;
        store->over = (bench_spread_over){operations / OPERATIONS_A_DOCUMENT, 1};
        bench_progress(run, "filling", growth->count++, SIZES_MAX);
        if ((err = bench_scratch_open(&store->folder)) == TANDEM_OK)
            err = bench_fill_folder(store->folder.path, &store->over, operations, &store->filled);
        operations *= STEP;
    }
    return err;
}

static tandem_err measure(struct growth *growth, bench_turn_fn subject, bench_ceiling_fn smallest)
{
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; err == TANDEM_OK && i < growth->count; i++) {
        bench_pairs pairs;
        char name[32];

        growth->subject = &growth->stores[i];
        snprintf(name, sizeof(name), "cost_%" PRIu64, growth->subject->operations);
        if ((err = bench_pairs_run(growth->run, subject, smallest, growth, &pairs)) == TANDEM_OK)
            bench_print_pairs(growth->run, &pairs, 0, name, "us/operation");
    }
    return err;
}

int bench_growth(bench_run *run)
{
    struct growth growth = {.run = run};
    tandem_err err = fill_all(&growth);

    /* Before anything is written to them. */
    if (err == TANDEM_OK && bench_variant(run, "catchup"))
        err = measure(&growth, fetch_subject, fetch_smallest);
    if (err == TANDEM_OK && bench_variant(run, "write"))
        err = measure(&growth, write_subject, write_smallest);
    for (unsigned i = 0; i < growth.count; i++)
        bench_scratch_release(&growth.stores[i].folder);
    return err == TANDEM_OK ? 0 : cli_exit_code(err);
}
