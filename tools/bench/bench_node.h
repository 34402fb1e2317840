/*
 * The node that a bench measures: `tandem serve`, this very program in a process of its own, so that
 * its memory and its processor time are its own; its data folder is on disk and goes with it.
 *
 * Threads: one at a time.
 */
#ifndef TANDEM_TOOLS_BENCH_NODE_H
#define TANDEM_TOOLS_BENCH_NODE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "store/error.h"

enum { BENCH_DOCUMENTS = 100 }; /* that operations are spread over */

typedef struct bench_node bench_node;

/* Start one, and wait until it is ready. On an error it has been reported.
 * folder  its data folder, which stays; NULL: an empty one of its own */
tandem_err bench_node_open(const char *folder, bench_node **out);
/* Stop it and remove its own folder. NULL is fine. */
void bench_node_free(bench_node *node);

/* Where peers dial to: "ws://…" or "http://…". */
const char *bench_node_url(const bench_node *node, bool http);
/* Bytes of its own memory (RssAnon) now; 0 if it is gone. */
uint64_t bench_node_rss_anon(const bench_node *node);
/* Processor time that it has used so far. */
double bench_node_cpu_s(const bench_node *node);
/* For how long its threads have waited for a processor. */
double bench_node_waited_s(const bench_node *node);
pid_t bench_node_pid(const bench_node *node);

/* Operations that it holds. 0, reported, if it does not answer. */
uint64_t bench_node_operations(bench_node *node);
/* Ask it for its status. The caller's to release; NULL, reported, if it does not answer. */
json_t *bench_node_status(bench_node *node);

/*
 * Writing. Operations are handed over without waiting for those before them, so that a node that is
 * slow to commit is written to at the same rate. The node answers later.
 */

/* One operation on document "d<number>", kv.SET {"t": due_us}, and one before it if that creates the
 * document. Waits only if as many as can be are under way. */
tandem_err bench_node_write(bench_node *node, const char *collection, unsigned number,
                            uint64_t due_us);
/* One atomic group of count such operations, on documents 0 to BENCH_DOCUMENTS - 1 in turn. */
tandem_err bench_node_write_group(bench_node *node, const char *collection, uint64_t due_us,
                                  unsigned count);
/* Wait until all are durable. */
tandem_err bench_node_flush(bench_node *node);

#endif
