/*
 * What was committed last, read from the store once for all peers. Each of a thousand peers is sent
 * the same operations within a moment: finding them for its outbox, and reading them for its message,
 * would read and check each of them two thousand times.
 *
 * It holds all operations of all collections with an ordinal in (after, through], or nothing: what is
 * not in it is read from the store, as ever. So it may forget at any time, and does when more comes
 * at once than it keeps, when a record does not verify, and when memory runs out.
 *
 * Threads: the loop's.
 */
#ifndef TANDEM_SYNC_FRESH_H
#define TANDEM_SYNC_FRESH_H

#include "store/op_store.h"

enum {
    TD_FRESH_OPERATIONS_MAX = 2048,
    TD_FRESH_BYTES_MAX = 1024 * 1024, /* of canonical bytes */
};

typedef struct td_fresh_operation td_fresh_operation;

typedef struct td_fresh {
    td_fresh_operation *operations; /* in order of ordinals */
    size_t count, capacity, bytes;
    uint64_t after, through;
    uint64_t seen; /* of what is being kept, see td_fresh_begin() */
} td_fresh;

void td_fresh_release(td_fresh *fresh); /* empty again */

/* What is committed from seen (excluded) to position (included) is to be kept: first this, then each
 * collection that has grown since, then the end. */
void td_fresh_begin(td_fresh *fresh, uint64_t seen, uint64_t position);
void td_fresh_add(td_fresh *fresh, td_op_store *ops, tandem_slice collection);
void td_fresh_end(td_fresh *fresh);

/* As td_op_store_scan(), up to through. False, and nothing was visited: it does not have all that
 * comes after. */
bool td_fresh_scan(const td_fresh *fresh, tandem_slice collection, uint64_t after,
                    td_visit_operation visit, void *context, tandem_err *err_out);

#endif
