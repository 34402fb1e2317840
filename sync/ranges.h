/*
 * Ranges: finding what differs of much without listing all of it. What two sides compare, their
 * collections or the origins of one, falls into 2^bits ranges by the first bits of a hash. One side
 * offers the digests of its ranges, the other answers which of them differ, and only those are listed.
 *
 * This is range-based set reconciliation (A. Meyer, "Range-Based Set Reconciliation", SRDS 2023) of one
 * round: its ranges are given by a hash, so that they need no bounds and are alike in size, and there are
 * so many at once that a round trip is not paid for another. A digest is the sum of its elements' hashes,
 * as in negentropy (D. Hoyte): it takes no order, and two ranges beside each other are one by another
 * sum. It is short, and salted by the session, so that nobody can make two that are equal, and a chance
 * that hides a difference (one in 2^64) is another one in the next session. transport/PROTOCOL.md,
 * section 6, has the rules.
 *
 *   none -> offer -> offered -> settled    ours was offered, and answered, or met the peer's
 *   none (or offer) -> settled             the peer's was answered
 *   any of these three -> plain            one of the sides lists everything, and so does the other
 *
 * Ownership: it owns its bytes. Threads: the loop's.
 */
#ifndef TANDEM_SYNC_RANGES_H
#define TANDEM_SYNC_RANGES_H

#include "transport/wire.h"

#define TD_RANGES_FEATURE "ranges"

enum {
    TD_RANGES_LEAST = 65, /* of fewer than that all are listed: that costs less than a round trip */
    TD_RANGES_EACH = 4,   /* as many are in a range, about */
};

typedef enum td_ranges_state {
    TD_RANGES_NONE,
    TD_RANGES_OFFER, /* to be sent */
    TD_RANGES_OFFERED,
    TD_RANGES_SETTLED,
    TD_RANGES_PLAIN,
} td_ranges_state;

/* Zeros: none. */
typedef struct td_ranges {
    td_ranges_state state;
    bool answers;      /* the answer is to be sent */
    unsigned bits;
    uint64_t position; /* an ordinal up to which our digests certainly hold, when they were compared */
    uint8_t *digests;  /* ours, while they are offered */
    uint8_t *differ;   /* settled: a bit a range, the highest of a byte first */
} td_ranges;

void td_ranges_release(td_ranges *ranges); /* none again */

/* By how many bits are so many to be compared, of which the peer has so many? 0: not at all. */
unsigned td_ranges_bits(uint64_t least, uint64_t ours, uint64_t theirs);

/* What a side has said in HELLO. */
typedef struct td_greeting {
    const uint8_t *reactor;
    uint64_t clock;
} td_greeting;

/* Digests of ranges while they are made. */
typedef struct td_ranges_sum {
    unsigned bits;
    uint8_t *digests; /* the caller's to free */
    uint8_t salt[2 * (TANDEM_ORIGIN_BYTES + 8)];
} td_ranges_sum;

/* Of nothing yet, for the session of two sides, in any order. TANDEM_E_NOMEM. */
tandem_err td_ranges_begin_sum(td_ranges_sum *sum, unsigned bits, const td_greeting *one,
                               const td_greeting *other);
/* Add an element to the digest of its range. digest: of the collection, or what stands for it. */
void td_ranges_add_collection(td_ranges_sum *sum, tandem_slice name,
                              const uint8_t digest[TANDEM_HASH_BYTES]);
void td_ranges_add_head(td_ranges_sum *sum, const uint8_t *origin, const td_head *head);
void td_ranges_add_lack(td_ranges_sum *sum, const uint8_t *origin, const td_lack *lack);

/* Ours are offered; takes digests. */
void td_ranges_offer(td_ranges *ranges, uint64_t position, uint8_t *digests);
/* Compare the peer's digests with ours: those that were offered, or (none were) these, which have the
 * same bits. Settled. TANDEM_E_NOMEM. */
tandem_err td_ranges_meet(td_ranges *ranges, const uint8_t *digests, unsigned bits);
/* The peer has answered. Settled. TANDEM_E_NOMEM. */
tandem_err td_ranges_settle(td_ranges *ranges, const uint8_t *differ);
/* One of the sides lists everything. */
void td_ranges_give_up(td_ranges *ranges);

/* Is it settled that what the key is of was equal? */
bool td_ranges_equal(const td_ranges *ranges, const uint8_t *key);

#endif
