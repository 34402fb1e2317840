/*
 * fanout: one writes, in groups of 100 operations, and eight others get it, each from the writer by
 * WebSocket: nine processes. The rate is that of what is written, until all have it.
 *
 * The ceiling is the floor with eight receivers: a raw writer commits batches of 100 and sends each of
 * them to eight raw receivers over eight connections, of which each commits it to an LMDB of its own
 * and acknowledges. That is what the flushes of nine stores cost this machine for each batch; the floor
 * of one receiver, divided by something, would not tell. Tandem's receivers may put several groups into
 * one commit, which the floor's do not: `operations_per_commit` says how many operations they had, and
 * where that is much more than 100, the ratio may be above 1.
 */
#include "tools/bench/party.h"

int bench_fanout(bench_run *run)
{
    enum { READERS = 8, GROUP = 100 };
    const bench_party party = {.members = 1 + READERS,
                               .writers = 1,
                               .operations = run->size.operations,
                               .group = GROUP};

    return bench_variant(run, "readers8") ? bench_party_measure(run, &party) : 0;
}
