/*
 * mesh: five write, in groups of 100 operations, and each is joined to all others by WebSocket: five
 * processes, ten sessions. The rate is that of all of them together, until all five hold all.
 *
 * The ceiling is the floor with five raw writers exchanging all with all: each commits batches of 100,
 * sends them to the four others, commits each batch that comes, and acknowledges it. As in fanout
 * Tandem may put several groups into one commit, which the floor does not.
 */
#include "tools/bench/party.h"

int bench_mesh(bench_run *run)
{
    enum { WRITERS = 5, GROUP = 100 };
    const bench_party party = {.members = WRITERS,
                               .writers = WRITERS,
                               .operations = run->size.operations,
                               .group = GROUP};

    return bench_variant(run, "writers5") ? bench_party_measure(run, &party) : 0;
}
