/*
 * Benchmarks: what `tandem bench` runs. One file per bench, one row per bench in bench.c.
 *
 * A bench measures whole nodes, and prints figures: each with the ceiling that it is held against (a
 * bound, or what the same machine did in the same run without what is measured) and the ratio to it.
 * Times alone say more about the machine than about us.
 *
 * A bench is one thread until it has made its processes: they are forked.
 */
#ifndef TANDEM_TOOLS_BENCH_H
#define TANDEM_TOOLS_BENCH_H

#include "tools/tandem/print.h"

/* One run, with what its figures have in common. */
typedef struct bench_run {
    const cli_call *call;
    const char *name;
    const char *variant;
    cli_table *table; /* NULL: JSON */
    uint64_t peers, reactors, rate, seconds; /* as asked for, or the bench's defaults */
} bench_run;

typedef struct bench_figure {
    const char *name;
    double value;
    const char *unit;
    double ceiling; /* 0: there is none */
    uint64_t rss_anon_bytes; /* of the process that is measured; 0, here and below: does not apply */
    double disk_bytes_per_operation;
    double wire_bytes_per_operation;
} bench_figure;

typedef struct bench {
    const char *name;
    const char *help;
    uint64_t peers, reactors, rate, seconds; /* defaults; 0: it has no such number */
    /* Returns the exit code; what is wrong has been reported. */
    int (*run)(bench_run *run);
} bench;

/* Print one figure, at once. */
void bench_print(bench_run *run, const bench_figure *figure);

/* The benches, each in its file. */
int bench_peers(bench_run *run);
int bench_slow_receiver(bench_run *run);

#endif
