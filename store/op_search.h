/*
 * The search for operations in the tables, through the runs of their origin. Private to the operations
 * store, as op_tables.h is.
 *
 * Without a fork or gaps one run is looked at; else each that spans the seq, so a search grows with
 * the runs of the origin.
 *
 * Threads: pure functions over a transaction, which stays on its thread.
 */
#ifndef TANDEM_STORE_OP_SEARCH_H
#define TANDEM_STORE_OP_SEARCH_H

#include "store/op_tables.h"

/* The first run of an origin behind *run in the order of (first, ordinal). TANDEM_END. */
tandem_err td_run_next(td_txn *txn, uint32_t id, const uint8_t *origin, td_run *run);
/* Its first and its last operation; borrowed from txn. TANDEM_E_CORRUPT. */
tandem_err td_run_ends(td_txn *txn, uint32_t id, const uint8_t *origin, const td_run *run,
                       td_operation *first_out, td_operation *last_out);

typedef struct td_found {
    uint64_t ordinal;
    uint64_t flags;
    bool loose; /* it is behind no head, and so is all of the run that it stands in */
    uint8_t place[TANDEM_HASH_BYTES]; /* hash of document and branch, see td_operation_place() */
} td_found;

/*
 * Find an operation of origin at seq.
 *
 * hash     which one; NULL: of all that are held at seq the one with the smallest ordinal
 * forked   the origin has more than one head, or gaps and branches: then several runs may hold seq, and all of
 *          those that begin at or before it are looked through; else the last of them is the only one
 * open     open_count runs that the groups table does not have yet
 *
 * Errors: TANDEM_E_NOT_FOUND; TANDEM_E_CORRUPT (records stand in the way that cannot be read).
 */
tandem_err td_op_find(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t seq,
                      const uint8_t *hash, bool forked, const td_run *open, unsigned open_count,
                      td_found *out);

typedef struct td_held_part {
    size_t count; /* so many of a job's operations are held … */
    size_t end;   /* … all before this one; as many as count if they are its first */
    bool loose;   /* the last of them is */
} td_held_part;

/*
 * Which of a job's operations are held? One pass over the runs that may span them.
 *
 * job, count         operations that follow each other, with their hashes
 * forked, open, open_count   as above
 *
 * Errors: TANDEM_E_CORRUPT: not all, as far as can be read, and some cannot.
 */
tandem_err td_op_held_part(td_txn *txn, uint32_t id, const uint8_t *origin, const td_operation *job,
                           size_t count, bool forked, const td_run *open, unsigned open_count,
                           td_held_part *out);

/* Does any operation of origin, which has neither a fork nor branches, stand at one of these seqs? */
tandem_err td_op_overlaps(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t first,
                          uint64_t last, const td_run *open, unsigned open_count, bool *out);
/*
 * The smallest ordinal of an operation of origin, which has gaps, with a seq >= seq. Errors as above.
 */
tandem_err td_op_find_from(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t seq,
                           uint64_t *ordinal_out);
/* The smallest seq of an operation of origin that was committed behind ordinal. TANDEM_E_NOT_FOUND:
 * there is none. */
tandem_err td_op_find_later(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t ordinal,
                            uint64_t *seq_out);

#endif
