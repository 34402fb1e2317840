/*
 * A member: a reactor on a folder, as any application has it, with its sync. A process of a bench has
 * one.
 *
 * Threads: one at a time.
 */
#ifndef TANDEM_TOOLS_BENCH_MEMBER_H
#define TANDEM_TOOLS_BENCH_MEMBER_H

#include <stdatomic.h>

#include "reactor/reactor.h"
#include "sync/sync.h"

enum { BENCH_URL_BYTES = 128 };

typedef struct bench_member {
    tandem_reactor *reactor;
    tandem_sync *sync;
    uint64_t wanted;
    _Atomic uint64_t complete_us; /* when everything up to that position was there; 0: not yet */
} bench_member;

/* Open it with all defaults, zeros before. It is to be closed, on an error, too. */
tandem_err bench_member_open(bench_member *member, const char *folder);
/* Listen on loopback, at any port. */
tandem_err bench_member_listen(bench_member *member, char url_out[BENCH_URL_BYTES]);
void bench_member_close(bench_member *member);

/* Have it looked for when so many operations are committed, in all. Once. */
tandem_err bench_member_want(bench_member *member, uint64_t operations);
/* Wait for that. TANDEM_E_TIMEOUT after ten minutes. */
tandem_err bench_member_wait(bench_member *member);

#endif
