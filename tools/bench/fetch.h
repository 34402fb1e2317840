/*
 * A fresh peer, in a process of its own and on a folder of its own, that fetches all that a reactor
 * holds.
 *
 * Threads: the bench's one.
 */
#ifndef TANDEM_TOOLS_BENCH_FETCH_H
#define TANDEM_TOOLS_BENCH_FETCH_H

#include <stdint.h>
#include <sys/types.h>

#include "store/error.h"

typedef struct bench_fetch {
    const char *url;    /* where to dial to; or NULL: … */
    const char *source; /* the data folder of a second reactor in the peer's process */
    uint64_t operations; /* that are there */
    pid_t beside;        /* the process that they come from; 0: the peer's */
} bench_fetch;

typedef struct bench_fetched {
    double seconds;         /* from dialing until all was durable, and … */
    double seconds_indexed; /* … until it could be read */
    uint64_t commits;
    uint64_t rss_anon_bytes; /* at most, of either process */
    uint64_t disk_bytes;     /* of the peer's folder at the end */
} bench_fetched;

/* An error has been reported. */
tandem_err bench_fetch_all(const bench_fetch *fetch, bench_fetched *out);

#endif
