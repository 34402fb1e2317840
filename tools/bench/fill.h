/*
 * What benches write: operations kv.SET {"v": text}, with a payload of 128 bytes, over documents and
 * collections in turn; and data folders that are full of them.
 */
#ifndef TANDEM_TOOLS_BENCH_FILL_H
#define TANDEM_TOOLS_BENCH_FILL_H

#include "reactor/reactor.h"

enum {
    BENCH_PAYLOAD_BYTES = 128,
    BENCH_RECORD_BYTES = 232, /* what such an operation has in canonical bytes */
    BENCH_NAME_BYTES = 24,
    BENCH_FILL_GROUP = 1000,
};

/* The number'th payload: text as random as base64 is. */
void bench_payload(uint64_t number, uint8_t out[BENCH_PAYLOAD_BYTES]);

/* Have a number stand in the text of such a payload, in place of its beginning; and read it there:
 * false if there is none. */
void bench_payload_mark(uint8_t payload[BENCH_PAYLOAD_BYTES], uint64_t number);
bool bench_payload_marked(tandem_slice payload, uint64_t *number);

/* What the number'th operation is of, "c<n>" and "d<n>". */
typedef struct bench_spread_over {
    uint64_t documents; /* in all */
    uint64_t collections;
} bench_spread_over;

/* One job of one operation, and what it borrows. It may be moved only before it is made. */
typedef struct bench_job {
    char collection[BENCH_NAME_BYTES], document[BENCH_NAME_BYTES];
    uint8_t payload[BENCH_PAYLOAD_BYTES];
    tandem_input input;
    tandem_job job;
} bench_job;

void bench_job_make(bench_job *job, const bench_spread_over *over, uint64_t number);

typedef struct bench_filled {
    uint64_t operations;      /* exactly as many as were asked for, what creates documents included */
    uint64_t canonical_bytes; /* of all of them */
} bench_filled;

/* Write so many operations to a reactor, in groups of group (1 to 1,000) jobs, one behind the other. An
 * error has been reported. */
tandem_err bench_fill_reactor(tandem_reactor *reactor, const bench_spread_over *over,
                              uint64_t operations, size_t group);
/* Make a data folder of so many, in a process of its own, closed and with its index current. An error
 * has been reported. */
tandem_err bench_fill_folder(const char *folder, const bench_spread_over *over,
                             uint64_t operations, bench_filled *out);

/* The mean of the canonical bytes of the operations in the first collection. */
tandem_err bench_canonical_bytes(tandem_reactor *reactor, uint64_t *out);

#endif
