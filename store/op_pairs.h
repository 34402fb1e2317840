/*
 * The bytes of the pairs table: filters of a collection that is held in part, and up to which heads of each
 * origin they cover (store/FORMAT.md). Private to the operations store, as op_tables.h is.
 *
 * Threads: pure functions over a transaction, which stays on its thread.
 */
#ifndef TANDEM_STORE_OP_PAIRS_H
#define TANDEM_STORE_OP_PAIRS_H

#include "store/op_tables.h"

/* A filter's short name in keys. */
void td_pair_id(tandem_slice filter, uint8_t out[TD_PAIR_ID_BYTES]);
/* The record of a pair: its filter, and at which ordinal it was changed last. */
tandem_err td_pair_put(td_txn *txn, uint32_t id, tandem_slice filter, uint64_t ordinal,
                       tandem_writer *scratch);
/* Call visit for each pair of a collection; it neither puts nor deletes. */
tandem_err td_pairs_each(td_txn *txn, uint32_t id,
                         tandem_err (*visit)(void *context, tandem_slice filter, uint64_t ordinal),
                         void *context);
/* How far it covers an origin; *count_out 0: not at all. heads has room for TANDEM_HEADS_MAX. */
tandem_err td_pair_get(td_txn *txn, uint32_t id, tandem_slice filter, const uint8_t *origin,
                       td_head *heads, unsigned *count_out);
tandem_err td_pair_put_heads(td_txn *txn, uint32_t id, tandem_slice filter, const uint8_t *origin,
                             const td_head *heads, unsigned count, tandem_writer *scratch);
/* All origins > after (NULL: all) that it covers. */
tandem_err td_pair_vector(td_txn *txn, uint32_t id, tandem_slice filter, const uint8_t *after,
                          td_visit_vector visit, void *context);
/* All of it. */
tandem_err td_pair_del(td_txn *txn, uint32_t id, tandem_slice filter);

#endif
