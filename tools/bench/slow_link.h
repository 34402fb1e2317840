/*
 * A slow link: a process that passes on what comes to a port of loopback, with a delay and no faster
 * than a line would carry it, or at once; and counts it.
 *
 * Threads: the bench's one.
 */
#ifndef TANDEM_TOOLS_BENCH_SLOW_LINK_H
#define TANDEM_TOOLS_BENCH_SLOW_LINK_H

#include <stdint.h>

#include "store/error.h"

typedef struct bench_slow_link bench_slow_link;

/*
 * url              where to: "ws://127.0.0.1:PORT/…"
 * delay_ms         of each way
 * bytes_per_second of each way; 0: no end of them
 * An error has been reported.
 */
tandem_err bench_slow_link_open(const char *url, uint32_t delay_ms, uint64_t bytes_per_second,
                                bench_slow_link **out);
/* Where to dial instead. */
const char *bench_slow_link_url(const bench_slow_link *link);
/* What it has passed on so far, of all connections together. */
typedef struct bench_slow_link_counts {
    uint64_t bytes;      /* payload, both ways */
    uint64_t head_bytes; /* of these: to the blank line that ends the first head of each way. By
                            WebSocket that is how a connection is set up */
    uint64_t opened_us;  /* when the newest connection came (bench_now_us) */
} bench_slow_link_counts;

/* Of processes that were started after it, too. */
bench_slow_link_counts bench_slow_link_count(bench_slow_link *link);
void bench_slow_link_free(bench_slow_link *link); /* NULL is fine */

#endif
