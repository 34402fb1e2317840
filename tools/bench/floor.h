/*
 * The floor: what this machine does with LMDB and TCP alone, on the same disk, with records as large
 * as what is measured stores, as many in one commit, and as durable: default flags, a flush for each
 * commit. Tandem does more than this; how much that costs is what the ratios tell.
 *
 * Each makes its stores in scratch folders and its processes, and ends them.
 *
 * Threads: the bench's one.
 */
#ifndef TANDEM_TOOLS_BENCH_FLOOR_H
#define TANDEM_TOOLS_BENCH_FLOOR_H

#include <stddef.h>
#include <stdint.h>

#include "store/error.h"

typedef struct bench_floor {
    uint64_t records;
    size_t record_bytes;
    uint64_t batch;       /* records of one commit */
    unsigned in_flight;   /* batches sent and not acknowledged yet */
    uint64_t rate;        /* records a second, each batch when it is due, and one at a time; 0: as fast
                             as can be */
    uint64_t seconds_max; /* stop after so long; 0: when all is done */
    unsigned processes; /* that replicate; 0: 2 */
    unsigned writers;   /* of them; 0: 1 */
    uint64_t *latencies_us; /* room for one of each batch: from its being due, or from when those before
                               are done, if that is later, to its being acknowledged: where the machine
                               does not keep up with the rate, it stays a round trip; NULL: not
                               wanted. In memory that processes share */
} bench_floor;

typedef struct bench_floor_result {
    uint64_t records; /* done */
    double seconds;
} bench_floor_result;

/*
 * A writes a batch to LMDB and sends it over TCP; B writes it to its LMDB and acknowledges. Of more
 * processes each writer writes its part of the records so, and sends it to all others, each over a
 * connection of its own; its batch is acknowledged when all have done so. A process that gets batches
 * from several commits each of them by itself.
 *
 * An error has been reported, here and below.
 */
tandem_err bench_floor_replicate(const bench_floor *floor, bench_floor_result *out);
/* One process writes to LMDB. */
tandem_err bench_floor_write(const bench_floor *floor, bench_floor_result *out);
/* One process reads them with a cursor, and adds up their bytes. What is read is filled before. */
tandem_err bench_floor_read(const bench_floor *floor, bench_floor_result *out);
/* One process reads them from one LMDB and writes them to another. What is read is filled before. */
tandem_err bench_floor_copy(const bench_floor *floor, bench_floor_result *out);

#endif
