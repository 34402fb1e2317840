/*
 * What a peer that holds a collection in part has announced of it: of what matches a filter, up to which
 * seq of each origin it holds all. A list of them belongs to a collection of a coverage.
 *
 * Threads: the loop's.
 */
#ifndef TANDEM_SYNC_PAIR_COVER_H
#define TANDEM_SYNC_PAIR_COVER_H

#include "store/filter.h"
#include "store/hash_table.h"

typedef struct td_pair_cover td_pair_cover;
struct td_pair_cover {
    td_filter filter;
    td_hash_table origins;
    td_pair_cover *next;
};

/* Find the one of a filter, by its canonical bytes, or make it. TANDEM_E_LIMIT (TD_PAIRS_MAX are there),
 * TANDEM_E_PAYLOAD, TANDEM_E_NOMEM. */
tandem_err td_pair_cover_of(td_pair_cover **list, tandem_slice filter, td_pair_cover **out);
void td_pair_covers_free(td_pair_cover **list);

/* It covers an origin up to a seq; never less than before. TANDEM_E_LIMIT, TANDEM_E_NOMEM. */
tandem_err td_pair_cover_set(td_pair_cover *pair, const uint8_t *origin, uint64_t seq);
/* 0: not at all. */
uint64_t td_pair_cover_seq(const td_pair_cover *pair, const uint8_t *origin);

#endif
