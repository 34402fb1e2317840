/*
 * Reading what is held. The calls are those of op_store.h; what they share with the rules
 * (op_store.c) is declared here: the search for an operation of which the heads are known.
 *
 * Nothing here knows the open group. A reading call sees the last commit in a transaction of its
 * own on td_op_store_backend(), which it ends on every way out, so any thread may call; whoever has
 * a group open brings what the tables lack of it.
 */
#ifndef TANDEM_STORE_OP_READ_H
#define TANDEM_STORE_OP_READ_H

#include "store/op_search.h"

/*
 * td_op_find() for an origin of which the vector is known: its heads tell whether the origin is
 * forked, and that nothing is held above the last of them, without a look at the tables.
 *
 * Ownership: all is borrowed for the call.
 * Errors: those of td_op_find().
 * Threads: the one of txn.
 */
tandem_err td_op_find_held(td_txn *txn, uint32_t id, const uint8_t *origin,
                           const td_vector_record *vector, uint64_t seq, const uint8_t *hash,
                           const td_run *open, unsigned open_count, td_found *out);

#endif
