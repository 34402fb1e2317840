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
/*
 * Wait until all have ended, or one of them with an error, which is returned: the others are for the
 * caller to end. An interrupt ends them all.
 *
 * rss_max  receives the most memory that any took while this waited; may be NULL
 */
tandem_err bench_worker_wait_all(bench_worker *const *workers, unsigned count, uint64_t *rss_max);
/* As bench_worker_wait(), of one whose work became another program: TANDEM_OK if that ended with exit
 * code 0. */
tandem_err bench_worker_ended(bench_worker *worker, uint64_t *rss_max);
/* End it, if it has not, and forget it. NULL is fine. */
void bench_worker_free(bench_worker *worker);

/* Memory that the bench shares with all processes that begin later, zeros. An error has been reported. */
tandem_err bench_shared_open(size_t bytes, void **out);
void bench_shared_free(void *shared, size_t bytes); /* NULL is fine */

/* How processes wait for each other: until a number in such memory is at least so large. TANDEM_E_TIMEOUT
 * after ten minutes, or at an interrupt. */
tandem_err bench_shared_wait(const _Atomic uint32_t *number, uint32_t least);

/* Start, wait, copy the shared bytes out, free. */
tandem_err bench_worker_run(bench_work_fn work, void *context, void *shared_out,
                            size_t shared_bytes, uint64_t *rss_max);

#endif
