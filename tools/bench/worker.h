/*
 * A process of a bench: it does one thing and leaves its results in memory that it shares with the
 * bench. What it takes is its own, and what the library's threads do ends with it.
 *
 * Threads: the bench has one, and the worker begins with one.
 */
#ifndef TANDEM_TOOLS_BENCH_WORKER_H
#define TANDEM_TOOLS_BENCH_WORKER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "store/error.h"

typedef struct bench_worker bench_worker;

/* What it does. context is what the bench had at fork(); shared begins as zeros. What goes wrong it
 * reports (cli_fail) and returns. */
typedef tandem_err (*bench_work_fn)(void *context, void *shared);

/* On an error it has been reported. */
tandem_err bench_worker_start(bench_work_fn work, void *context, size_t shared_bytes,
                              bench_worker **out);
void *bench_worker_shared(bench_worker *worker);
pid_t bench_worker_pid(const bench_worker *worker);
/*
 * Wait until it has ended, which an interrupt hastens. Returns what work did.
 *
 * beside   another process to look at; 0: none
 * rss_max  receives the most memory (RssAnon) that either took while this waited; may be NULL
 */
tandem_err bench_worker_wait(bench_worker *worker, pid_t beside, uint64_t *rss_max);
/* The same of one whose work became another program: TANDEM_OK if that ended with exit code 0. */
tandem_err bench_worker_ended(bench_worker *worker, uint64_t *rss_max);
/* End it, if it has not, and forget it. NULL is fine. */
void bench_worker_free(bench_worker *worker);

/* Start, wait, copy the shared bytes out, free. */
tandem_err bench_worker_run(bench_work_fn work, void *context, void *shared_out,
                            size_t shared_bytes, uint64_t *rss_max);

#endif
