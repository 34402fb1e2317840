/*
 * What floors are made of: a table of LMDB with default flags, and TCP on loopback, nothing around
 * them. An error has been reported.
 *
 * Threads: of one store, several may commit.
 */
#ifndef TANDEM_TOOLS_BENCH_RAW_H
#define TANDEM_TOOLS_BENCH_RAW_H

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/bench/floor.h"

typedef struct bench_raw_store {
    MDB_env *env;
    MDB_dbi table;
    uint64_t next; /* key: the writing transaction's to look at */
} bench_raw_store;

/* On an error, too, it is to be closed. */
tandem_err bench_raw_open(bench_raw_store *out, const char *folder);
void bench_raw_close(bench_raw_store *store); /* One of zeros is fine. */
/* One transaction of count records, each of size bytes. */
tandem_err bench_raw_commit(bench_raw_store *store, const uint8_t *records, uint64_t count,
                            size_t size);
/* Report what LMDB has returned: TANDEM_E_IO. */
tandem_err bench_raw_fail(int result);

/* The records of one batch, the same each time but for what LMDB does not look at. The caller's to
 * free. */
uint8_t *bench_raw_batch(const bench_floor *floor);
/* Wait until the number'th batch is due, unless that is over. Returns when its time begins. */
uint64_t bench_raw_start(const bench_floor *floor, uint64_t begun_us, uint64_t number);
/* Is there more to do? */
bool bench_raw_goes_on(const bench_floor *floor, uint64_t begun_us, uint64_t done);
/* Records of the batch that comes behind so many. */
uint64_t bench_raw_batch_at(const bench_floor *floor, uint64_t done);
/* The number'th batch, whose time began then, is done now. */
void bench_raw_latency(const bench_floor *floor, uint64_t number, uint64_t started_us);

/* Two ends of one TCP connection that delays nothing. */
tandem_err bench_raw_connect(int ends[2]);
bool bench_raw_send(int socket, const void *bytes, size_t size);
/* All of it, or false. */
bool bench_raw_receive(int socket, void *bytes, size_t size);
/* Report what errno says of a socket: TANDEM_E_IO. */
tandem_err bench_raw_fail_socket(void);

#endif
