/*
 * Where a job belongs: which of it is held, what it follows, and which heads and lacks change when it
 * is taken. The rules of the chain, without the writing: op_store.c writes what is found here.
 *
 * Of an origin without gaps the answer is mostly in its vector record. A lack is a piece of the
 * chain that is not held, from behind its predecessor to its last operation. A job that follows a lack
 * belongs to the head before it, if nothing else has followed the lack yet. What is lacking comes from the
 * front; the lack goes when its last operation comes, and where something follows that, the heads stay as
 * they were. (A lack of several jobs looks like a fork until then.)
 *
 * In part (store/filter.h) operations are held loose: something before them is missing, so they are behind
 * no head. Each run says of itself whether it is. When what a loose run follows is there, the run is
 * placed like a job that comes just then, and so is what follows it.
 *
 * Threads: pure functions over a transaction, which stays on its thread.
 */
#ifndef TANDEM_STORE_OP_PLACE_H
#define TANDEM_STORE_OP_PLACE_H

#include "store/op_search.h"

/* An origin as the open group has it; all borrowed. */
typedef struct td_chain {
    td_txn *txn;
    uint32_t id; /* 0: the collection is not there yet */
    const uint8_t *origin;
    const td_vector_record *vector;
    const td_run *open; /* runs that the tables do not have yet */
    unsigned open_count;
    bool part; /* of a partial replica: what comes need not follow anything */
} td_chain;

typedef struct td_place {
    size_t held;    /* so many of its first operations are held already */
    int head;       /* the head that the rest follows, and so replaces; -1: none. Where it follows a lack,
                     * td_place_head() tells */
    bool is_inside; /* what follows the rest is held: it makes no head */
    bool is_loose;  /* what it follows is neither held nor lacking, or loose itself: it makes no head.
                     * Of what is held already: it is */
    bool follows;   /* it follows a lack … */
    td_lack before; /* … this one */
    bool fills;     /* it brings the end of a lack … */
    td_lack filled; /* … this one */
} td_place;

/* Is this one whole job, by itself? TANDEM_E_CHAIN, TANDEM_E_LIMIT, TANDEM_E_UNSUPPORTED. */
tandem_err td_job_check(const td_operation *job, size_t count);

/* The index of a head, or -1. */
int td_head_find(const td_vector_record *vector, uint64_t seq, const uint8_t *hash);

/* The lack of this origin that ends with (seq, hash). TANDEM_E_NOT_FOUND. */
tandem_err td_lack_find(const td_chain *chain, uint64_t seq, const uint8_t *hash, td_lack *out);

/* Is the operation of this hash held at seq? TANDEM_E_NOT_FOUND. */
tandem_err td_chain_holds(const td_chain *chain, uint64_t seq, const uint8_t *hash);
/* Is (seq, hash) the root of a chain, held behind a head, or the end of a lack? TANDEM_E_PREDECESSOR:
 * none of them. */
tandem_err td_chain_reaches(const td_chain *chain, uint64_t seq, const uint8_t *hash,
                            tandem_slice collection);

/* Find where a job belongs; it has passed td_job_check(). TANDEM_E_PREDECESSOR, TANDEM_E_CHAIN,
 * TANDEM_E_CORRUPT. */
tandem_err td_job_place(const td_chain *chain, const td_operation *job, size_t count,
                        td_place *out);
/* The same for a loose run, by its first operation: may it stay loose? TANDEM_E_CORRUPT. */
tandem_err td_run_place(const td_chain *chain, const td_operation *first, td_place *out);
/* What is not held is to be appended: settle place->head. TANDEM_E_QUARANTINED, TANDEM_E_CORRUPT. */
tandem_err td_place_head(const td_chain *chain, td_place *place);

#endif
