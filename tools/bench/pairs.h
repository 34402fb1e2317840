/*
 * Measuring two things by turns, A B A B: what is measured and its ceiling, so that what the machine
 * does beside them happens to both. The ratio is the median of the ratios within the pairs.
 *
 * Threads: one at a time.
 */
#ifndef TANDEM_TOOLS_BENCH_PAIRS_H
#define TANDEM_TOOLS_BENCH_PAIRS_H

#include <stdbool.h>
#include <stdint.h>

#include "store/error.h"

struct bench_run;

enum { BENCH_VALUES = 6, BENCH_PAIRS_MAX = 64 };

/* What one turn gave. */
typedef struct bench_sample {
    double values[BENCH_VALUES]; /* a bench says which is what; 0: not measured */
    double batch;                /* operations of one commit, for the ceiling to do the same */
    uint64_t rss_anon_bytes;     /* at most, of any process */
    double disk_bytes_per_operation;
    double wire_bytes_per_operation;
} bench_sample;

typedef struct bench_spread {
    double low, median, high;
} bench_spread;

typedef struct bench_pairs {
    unsigned count;
    bool has_ceiling;
    bench_sample subject[BENCH_PAIRS_MAX], ceiling[BENCH_PAIRS_MAX];
} bench_pairs;

/* One turn. An error has been reported. */
typedef tandem_err (*bench_turn_fn)(void *context, bench_sample *out);
/* One turn of the ceiling, after what was its subject's. */
typedef tandem_err (*bench_ceiling_fn)(void *context, const bench_sample *subject,
                                       bench_sample *out);

/* So many turns of each as the run asks for. ceiling NULL: there is none. TANDEM_E_TIMEOUT: it was
 * interrupted. */
tandem_err bench_pairs_run(struct bench_run *run, bench_turn_fn subject, bench_ceiling_fn ceiling,
                           void *context, bench_pairs *out);

/* The least, the middle and the largest of count values, at least one, which are put in order. */
bench_spread bench_spread_of(double *values, unsigned count);

#endif
