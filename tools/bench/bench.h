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

#include "tools/bench/pairs.h"
#include "tools/tandem/print.h"

/* How much is measured. 0: a bench has no such number. */
typedef struct bench_size {
    uint64_t peers, reactors, rate, seconds;
    uint64_t operations;
    uint64_t pairs; /* of the subject and its ceiling, one after the other */
} bench_size;

/* One run, with what its figures have in common. */
typedef struct bench_run {
    const cli_call *call;
    const char *name;
    const char *variant; /* as it is printed: a bench sets it */
    const char *only;    /* the variant that was asked for; NULL: all, or the first */
    cli_table *table;    /* NULL: JSON */
    bench_size size;
    bool quick;
    uint64_t begun_ms;
} bench_run;

typedef struct bench_figure {
    const char *name;
    double value;
    const char *unit;
    double ceiling; /* 0: there is none */
    double ratio;   /* to it; 0: value over ceiling */
    bench_spread spread, ratio_spread; /* of what was repeated; all 0: it was not */
    uint64_t rss_anon_bytes; /* of the largest process that is measured; 0, here and below: does not
                                apply */
    double disk_bytes_per_operation;
    double wire_bytes_per_operation;
} bench_figure;

typedef struct bench {
    const char *name;
    const char *help;
    const char *variants; /* for --help; NULL: one */
    bench_size usual, quick;
    bool apart; /* only by its name: it takes long, and is no figure of speed */
    /* Returns the exit code; what is wrong has been reported. */
    int (*run)(bench_run *run);
} bench;

/* Begin a variant, unless others were asked for only: false. */
bool bench_variant(bench_run *run, const char *variant);

/* Print one figure, at once. */
void bench_print(bench_run *run, const bench_figure *figure);
/* Print the number'th value of some pairs, its median and spread. */
void bench_print_pairs(bench_run *run, const bench_pairs *pairs, unsigned number, const char *name,
                       const char *unit);
/* Print how many operations a commit of the subject had. */
void bench_print_batch(bench_run *run, const bench_pairs *pairs);

/* Tell on stderr how far it is: "catchup websocket: pair 3 of 9". Not where that is silenced. */
void bench_progress(bench_run *run, const char *what, uint64_t done, uint64_t total);
void bench_progress_end(bench_run *run);

/* The benches, each in its file. */
int bench_catchup(bench_run *run);
int bench_fanout(bench_run *run);
int bench_fold(bench_run *run);
int bench_growth(bench_run *run);
int bench_handshake(bench_run *run);
int bench_latency(bench_run *run);
int bench_mesh(bench_run *run);
int bench_open(bench_run *run);
int bench_peers(bench_run *run);
int bench_slow_receiver(bench_run *run);
int bench_write(bench_run *run);

#endif
