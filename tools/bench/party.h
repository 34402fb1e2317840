/*
 * A party: reactors that are joined by WebSocket, each in a process of its own and on a folder of its
 * own, some of which write to one collection until all hold all.
 *
 * Threads: the bench's one.
 */
#ifndef TANDEM_TOOLS_BENCH_PARTY_H
#define TANDEM_TOOLS_BENCH_PARTY_H

#include "tools/bench/bench.h"

enum { BENCH_PARTY_MAX = 16 };

typedef struct bench_party {
    unsigned members;
    unsigned writers;    /* the first of them: joined to each other, and each other member to them */
    uint64_t operations; /* of all writers together, in equal parts */
    size_t group;        /* jobs of one commit: a writer waits for each */
} bench_party;

/*
 * Measure one beside its ceiling, and print the rate: operations a second, from when all were joined
 * until the last member had the last of them; and what a commit had, of the member with the fewest.
 * Disk is the mean of the members, wire of all together. The ceiling is the floor
 * (bench_floor_replicate) with as many processes, writers, records and groups, and 16 groups of each
 * writer under way. Returns the exit code.
 */
int bench_party_measure(bench_run *run, const bench_party *party);

#endif
