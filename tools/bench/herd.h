/*
 * A herd: many peers of one node, in a few processes of their own. Some are whole: Tandem reactors
 * with a store in memory and three threads each, of which nothing is shared but the machine. On a small
 * one so many of those cost more than the node that is measured, so the others are light (light.h):
 * sessions like any other to the node, with no reactor behind them.
 *
 * What they see is counted in memory that is shared with the bench: how many operations each has;
 * and, by whole ones, how long after its time (member "t" of its input, monotonic microseconds) each
 * was visible. Of more than a hundred every ninth looks: looking costs a third of what receiving does.
 */
#ifndef TANDEM_TOOLS_BENCH_HERD_H
#define TANDEM_TOOLS_BENCH_HERD_H

#include <stdbool.h>
#include <stdint.h>

#include "store/error.h"

typedef struct bench_herd bench_herd;

/* Which peers of a herd. */
typedef enum bench_herd_part { BENCH_HERD_WEBSOCKET, BENCH_HERD_HTTP, BENCH_HERD_ALL } bench_herd_part;

/*
 * Start one: websockets peers dial url[0], https others url[1].
 *
 * whole        so many of all are whole, of both kinds alike, at least one of each
 * collection   that they watch; NULL: each shares nothing but one of its own, of which
 *              bench_herd_collection() is the name
 * On an error it has been reported.
 */
tandem_err bench_herd_open(const char *const urls[2], unsigned websockets, unsigned https,
                           unsigned whole, const char *collection, bench_herd **out);
/* They are gone at once, as if killed. NULL is fine. */
void bench_herd_free(bench_herd *herd);

enum { BENCH_COLLECTION_BYTES = 32 };
void bench_herd_collection(unsigned peer, char out[BENCH_COLLECTION_BYTES]);

unsigned bench_herd_count(const bench_herd *herd);
/* How many have at least so many operations, counting those that create documents. */
unsigned bench_herd_having(const bench_herd *herd, uint64_t operations);
/* Of the one that has fewest. */
uint64_t bench_herd_fewest(const bench_herd *herd);
/* Of the one that has most. */
uint64_t bench_herd_most(const bench_herd *herd);
/* Of all together. */
uint64_t bench_herd_operations(const bench_herd *herd);
double bench_herd_cpu_s(const bench_herd *herd);

/* Forget the latencies so far. */
void bench_herd_forget(bench_herd *herd);
/* The latency in ms that a share (0.5, 0.99) of what was seen did not exceed; 0 if nothing was. */
double bench_herd_latency_ms(const bench_herd *herd, bench_herd_part part, double share);

#endif
