/*
 * A reactor of a bench with its sync, as a program has them that embeds the library. Several of one
 * process may be joined by a memory network.
 *
 * Threads: as the library's.
 */
#ifndef TANDEM_TOOLS_BENCH_PEER_H
#define TANDEM_TOOLS_BENCH_PEER_H

#include "channel/carrier.h"
#include "sync/sync.h"

typedef struct bench_peer {
    tandem_reactor *reactor; /* NULL, and so is … */
    tandem_sync *sync;       /* … what could not be opened */
} bench_peer;

/*
 * folder   NULL: in memory
 * network  NULL: none. It outlives the peer
 * name     that others of the network dial as mem://NAME once it listens (tandem_listen())
 */
tandem_err bench_peer_open(bench_peer *peer, const char *folder, td_memory_network *network,
                           const char *name);
/* What was opened of it. */
void bench_peer_close(bench_peer *peer);

#endif
