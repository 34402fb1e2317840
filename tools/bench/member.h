/*
 * A member: a reactor with its sync, as a program has them that embeds the library. A process of a
 * bench has one, or several that are joined by a memory network.
 *
 * Threads: one at a time.
 */
#ifndef TANDEM_TOOLS_BENCH_MEMBER_H
#define TANDEM_TOOLS_BENCH_MEMBER_H

#include <semaphore.h>
#include <stdatomic.h>

#include "channel/carrier.h"
#include "sync/sync.h"

enum { BENCH_URL_BYTES = 128 };

typedef struct bench_member {
    tandem_reactor *reactor; /* NULL, and so is … */
    tandem_sync *sync;       /* … what could not be opened */
    uint64_t wanted; /* this and what follows is the member's */
    _Atomic uint64_t complete_us; /* when that was there; 0: not yet */
    sem_t complete;
} bench_member;

/* Open it with all defaults, zeros before; in memory if folder is NULL. It is to be closed, on an error,
 * too. */
tandem_err bench_member_open(bench_member *member, const char *folder);
/* The same in a memory network (NULL: in none) that outlives it. Others of the network dial it by its
 * name, as mem://NAME, once it listens. */
tandem_err bench_member_open_in(bench_member *member, const char *folder,
                                td_memory_network *network, const char *name);
/* Listen on loopback, at any port. */
tandem_err bench_member_listen(bench_member *member, char url_out[BENCH_URL_BYTES]);
void bench_member_close(bench_member *member);

/* Have it looked for when so many operations are committed, in all. Once. */
tandem_err bench_member_want(bench_member *member, uint64_t operations);
/* Wait for that. when_us_out: when it was, may be NULL. TANDEM_E_TIMEOUT after ten minutes. */
tandem_err bench_member_wait(bench_member *member, uint64_t *when_us_out);

#endif
