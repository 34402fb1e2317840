/*
 * open: from tandem_open() until a document could be read, on folders of 10 thousand, 100 thousand, a
 * million and ten million operations that were closed as usual. What opens them is a new process.
 *
 * The variants are the sizes. The ceiling is what the smallest takes in the same run.
 */
#include "tools/bench/bench.h"
#include "tools/bench/fill.h"
#include "tools/bench/process.h"
#include "tools/bench/scratch.h"
#include "tools/bench/worker.h"

enum { SMALLEST = 10000, OPERATIONS_A_DOCUMENT = 100 };

struct opening {
    const bench_scratch *small, *folder;
};

static tandem_err open_work(void *context, void *shared)
{
    tandem_options options = TANDEM_OPTIONS_INIT;
    double *seconds = shared;
    uint64_t begun_us = bench_now_us();
    tandem_reactor *reactor;
    tandem_err err;

    options.path = context;
    options.must_exist = true;
    if ((err = tandem_open(&options, &reactor)) == TANDEM_OK) {
        err = tandem_document_head(reactor, "c0", "d0", UINT64_MAX, NULL, NULL, NULL);
        *seconds = (double)(bench_now_us() - begun_us) / 1e6;
        tandem_close(reactor);
    }
    if (err != TANDEM_OK)
        cli_fail(err, NULL, "the bench's reactor could not be opened");
    return err;
}

static tandem_err open_folder(const bench_scratch *folder, bench_sample *out)
{
    double seconds = 0;
    tandem_err err = bench_worker_run(open_work, (void *)folder->path, &seconds, sizeof(seconds),
                                      &out->rss_anon_bytes);

    out->values[0] = seconds * 1000;
    return err;
}

static tandem_err open_large(void *context, bench_sample *out)
{
    const struct opening *opening = context;

    return open_folder(opening->folder, out);
}

static tandem_err open_small(void *context, const bench_sample *subject, bench_sample *out)
{
    const struct opening *opening = context;

    return open_folder(opening->small, out);
}

static tandem_err fill(bench_run *run, bench_scratch *folder, uint64_t operations)
{
    bench_spread_over over = {operations / OPERATIONS_A_DOCUMENT, 1};
    bench_filled filled;
    tandem_err err = bench_scratch_open(folder);

    bench_progress(run, "filling", 0, 1);
    return err == TANDEM_OK ? bench_fill_folder(folder->path, &over, operations, &filled) : err;
}

static tandem_err measure(bench_run *run, const bench_scratch *small, uint64_t operations)
{
    bench_scratch folder = {""};
    struct opening opening = {small, &folder};
    bench_pairs pairs;
    tandem_err err;

    if ((err = fill(run, &folder, operations)) == TANDEM_OK &&
        (err = bench_pairs_run(run, open_large, open_small, &opening, &pairs)) == TANDEM_OK)
        bench_print_pairs(run, &pairs, 0, "time", "ms");
    bench_scratch_release(&folder);
    return err;
}

int bench_open(bench_run *run)
{
    static const struct {
        const char *variant;
        uint64_t operations;
    } sizes[] = {
        {"10000", SMALLEST}, {"100000", 100000}, {"1000000", 1000000}, {"10000000", 10000000}};
    bench_scratch small = {""};
    tandem_err err = TANDEM_OK;

    for (size_t i = 0; err == TANDEM_OK && i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (sizes[i].operations > run->size.operations || !bench_variant(run, sizes[i].variant))
            continue;
        if (!small.path[0])
            err = fill(run, &small, SMALLEST);
        if (err == TANDEM_OK)
            err = measure(run, &small, sizes[i].operations);
    }
    bench_scratch_release(&small);
    return err == TANDEM_OK ? 0 : cli_exit_code(err);
}
