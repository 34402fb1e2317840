#include "tools/bench/pairs.h"

#include <stdlib.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/tandem/interrupt.h"

tandem_err bench_pairs_run(bench_run *run, bench_turn_fn subject, bench_ceiling_fn ceiling,
                           void *context, bench_pairs *out)
{
    unsigned pairs = run->size.pairs < BENCH_PAIRS_MAX ? (unsigned)run->size.pairs : BENCH_PAIRS_MAX;
    tandem_err err;

    memset(out, 0, sizeof(*out));
    out->has_ceiling = ceiling != NULL;
    for (unsigned i = 0; i < pairs; i++) {
        bench_progress(run, ceiling ? "pair" : "turn", i, pairs);
        if ((err = subject(context, &out->subject[i])) != TANDEM_OK)
            return err;
        if (ceiling &&
            (err = ceiling(context, &out->subject[i], &out->ceiling[i])) != TANDEM_OK)
            return err;
        if (cli_interrupt())
            return TANDEM_E_TIMEOUT;
        out->count++;
    }
    return TANDEM_OK;
}

static int ascending(const void *a, const void *b)
{
    double first = *(const double *)a, second = *(const double *)b;

    return first < second ? -1 : first > second;
}

bench_spread bench_spread_of(double *values, unsigned count)
{
    qsort(values, count, sizeof(values[0]), ascending);
    return (bench_spread){
        .low = values[0],
        .median = count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2,
        .high = values[count - 1],
    };
}

void bench_print_pairs(bench_run *run, const bench_pairs *pairs, unsigned number, const char *name,
                       const char *unit)
{
    double subject[BENCH_PAIRS_MAX], ceiling[BENCH_PAIRS_MAX], ratio[BENCH_PAIRS_MAX];
    double disk[BENCH_PAIRS_MAX], wire[BENCH_PAIRS_MAX];
    bench_figure figure = {.name = name, .unit = unit};

    for (unsigned i = 0; i < pairs->count; i++) {
        const bench_sample *sample = &pairs->subject[i];

        subject[i] = sample->values[number];
        ceiling[i] = pairs->ceiling[i].values[number];
        ratio[i] = ceiling[i] != 0 ? subject[i] / ceiling[i] : 0;
        disk[i] = sample->disk_bytes_per_operation;
        wire[i] = sample->wire_bytes_per_operation;
        if (sample->rss_anon_bytes > figure.rss_anon_bytes)
            figure.rss_anon_bytes = sample->rss_anon_bytes;
    }
    if (!pairs->count)
        return;
    figure.spread = bench_spread_of(subject, pairs->count);
    figure.value = figure.spread.median;
    figure.disk_bytes_per_operation = bench_spread_of(disk, pairs->count).median;
    figure.wire_bytes_per_operation = bench_spread_of(wire, pairs->count).median;
    if (pairs->has_ceiling) {
        figure.ceiling = bench_spread_of(ceiling, pairs->count).median;
        figure.ratio_spread = bench_spread_of(ratio, pairs->count);
        figure.ratio = figure.ratio_spread.median;
    }
    bench_print(run, &figure);
}

void bench_print_batch(bench_run *run, const bench_pairs *pairs)
{
    double batches[BENCH_PAIRS_MAX];
    bench_figure figure = {.name = "operations_per_commit", .unit = "operations"};

    for (unsigned i = 0; i < pairs->count; i++)
        batches[i] = pairs->subject[i].batch;
    figure.spread = bench_spread_of(batches, pairs->count);
    figure.value = figure.spread.median;
    bench_print(run, &figure);
}
