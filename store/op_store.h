/*
 * The operations store: operations by (collection, ordinal), the heads of every origin, and the few
 * entries that make any (origin, seq) findable. It enforces what everything else leans on, in the
 * transaction that writes: chain, idempotence, jobs whole, forks lose nothing.
 *
 * Tables (store/FORMAT.md has the bytes):
 *   collections  name -> local id, operations, last ordinal, bytes
 *   operations   (id, ordinal) -> checksum, hash, canonical bytes
 *   vectors      (id, origin) -> floor, heads, room for a head signature
 *   groups       (id, origin, first seq, ordinal) -> last seq of a run appended together
 *   lacks        (id, origin, last, hash) -> first, reason, followed, predecessor
 *   pairs        (id, filter) -> filter; (id, filter, origin) -> heads
 *   meta         format version, identity, HLC high water, last ordinal
 *
 * It stands on any td_store. One thread writes (the executor); all may read. Each reading call runs
 * in a short transaction of its own; what it hands to a visitor is borrowed for that call, and the
 * visitor neither waits nor does I/O.
 */
#ifndef TANDEM_STORE_OP_STORE_H
#define TANDEM_STORE_OP_STORE_H

#include "store/incarnation.h"
#include "store/operation.h"
#include "store/store.h"

enum {
    TD_FORMAT_VERSION = 1,
    TD_LACKS_MAX = 1024, /* in a store */
    TD_PAIRS_MAX = 16,   /* in a collection */
};

typedef struct td_op_store td_op_store;

/* Who writes here. The seed is the secret half of the origin's key pair: never log it. */
typedef struct td_identity {
    uint8_t reactor[TANDEM_ORIGIN_BYTES];
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint8_t seed[32];
    uint32_t incarnation; /* origins that this store has had, this one included */
    tandem_incarnation_reason reason; /* why it was taken … */
    uint64_t since_ms;                /* … and when, by the wall clock */
} td_identity;

typedef struct td_head {
    uint64_t seq;
    uint8_t hash[TANDEM_HASH_BYTES];
} td_head;

/* Their order everywhere: by seq, then by hash. For qsort(). */
int td_head_compare(const void *a, const void *b);

/*
 * A piece of an origin's chain that this store knows it does not hold, though heads may stand behind
 * it: refused for good, or wanted. What names its last operation as predecessor is taken; what belongs
 * into it is taken from its front, and with its last operation it is gone.
 */
typedef struct td_lack {
    uint64_t first, last;
    uint8_t predecessor[TANDEM_HASH_BYTES]; /* of the first operation; the chain's root for seq 1 */
    uint8_t hash[TANDEM_HASH_BYTES];        /* of the last */
    tandem_err reason; /* why it was refused; TANDEM_OK: it is wanted */
    bool followed;     /* something that is held follows it */
} td_lack;

/* The names of the tables, for whoever opens the td_store that goes into td_op_store_open(). */
extern const char *const td_op_store_tables[];
extern const unsigned td_op_store_table_count;

/*
 * Open the operations store on a td_store, which it then owns (also on failure). A fresh store gets
 * a reactor id and an origin from env's randomness.
 *
 * Errors: TANDEM_E_FORMAT, TANDEM_E_FORMAT_NEWER, TANDEM_E_CORRUPT, and those of the td_store.
 */
tandem_err td_op_store_open(tandem_env *env, td_store *store, td_op_store **out);
/* The same, but of a fresh store that is there for that reason: CREATED, RESTORED, CLONED. */
tandem_err td_op_store_open_for(tandem_env *env, td_store *store, tandem_incarnation_reason reason,
                                td_op_store **out);
void td_op_store_free(td_op_store *ops); /* NULL is fine */

/* As of the last commit. What is returned stays as it is until the store is freed, though another
 * identity may follow it. Any thread. */
const td_identity *td_op_store_identity(const td_op_store *ops);
/* The backend, for its bytes and its reader check. */
td_store *td_op_store_backend(td_op_store *ops);

/* ---- Writing: the executor's thread only ---- */

typedef struct td_append_result {
    uint64_t first_ordinal; /* of what was appended; 0 if all was held already */
    uint64_t last_ordinal;
    uint32_t appended;
    uint32_t duplicates; /* already held, by hash */
    bool loose;          /* it is behind no head, now or still */
    bool forked;         /* the origin has several heads, and more than before … */
    unsigned heads_before, heads; /* … so many, and now so many */
} td_append_result;

/* Begin a group. Errors: those of the td_store. */
tandem_err td_op_store_begin(td_op_store *ops);

/*
 * Append one whole job to the open group: all of it or none.
 *
 * job          count (1 to TANDEM_JOB_OPERATIONS_MAX) parsed and hashed operations of one origin,
 *              collection, document and branch; consecutive, each naming the one before; all but
 *              the last flagged TD_FLAG_CONTINUES
 *
 * An operation held already is skipped and counted. One that differs from what is held at its
 * (origin, seq) and whose predecessor is held is kept: that origin has two heads from then on.
 *
 * A job of which the first part is held and the rest is not makes a fork inside that job; and so does
 * the rest alone: together with what is held it is whole.
 *
 * A job that is lacking is taken whatever the reason was.
 *
 * Errors, nothing changed and the group still open: TANDEM_E_CHAIN (not such a job, or one that
 * goes on with another on another document or branch, or at seq 1 not at the chain's root; or one of
 * which something is held behind what is not: a peer cut it),
 * TANDEM_E_LIMIT, TANDEM_E_PREDECESSOR (the first one's predecessor is neither held nor lacking),
 * TANDEM_E_QUARANTINED (it would be the origin's ninth head), TANDEM_E_UNSUPPORTED (a reserved
 * collection), TANDEM_E_CORRUPT (a record that must be looked at cannot be read).
 * Errors after which the group must be aborted and the store recovered: TANDEM_E_STORE_FULL,
 * TANDEM_E_IO, TANDEM_E_NOMEM.
 */
tandem_err td_op_store_append(td_op_store *ops, const td_operation *job, size_t count,
                              td_append_result *result);
/*
 * The same of a job that came through a filter (store/filter.h): its predecessor need not be held. It is
 * loose then: found, and behind no head until all before it is held.
 */
tandem_err td_op_store_append_part(td_op_store *ops, const td_operation *job, size_t count,
                                   td_append_result *result);

/*
 * Record in the open group that a job, which td_op_store_append() would take, was refused for good:
 * from now on it is lacking for that reason, which comes back. TANDEM_OK: it is held already, and stays.
 *
 * Errors: those of td_op_store_append() but TANDEM_E_QUARANTINED; TANDEM_E_LIMIT: the store has
 * TD_LACKS_MAX lacks.
 */
tandem_err td_op_store_refuse(td_op_store *ops, const td_operation *job, size_t count,
                              tandem_err reason);
/*
 * Record in the open group that a range is lacking: wanted, because who has what follows it does not
 * hold it either, or (with a reason) refused, because the store that this one is restored from has
 * refused it. One that is known, or held, stays as it is; lack->followed is not looked at.
 *
 * Errors: TANDEM_E_INVALID, TANDEM_E_PREDECESSOR (lack->predecessor is neither held nor lacking),
 * TANDEM_E_LIMIT, and those of the td_store.
 */
tandem_err td_op_store_want(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                            const td_lack *lack);
/*
 * Record in the open group that all operations of origin that match a filter are held up to these
 * heads: the pair of this filter covers them. One that covers more already stays as it is.
 *
 * filter   canonical bytes, not nil
 * Errors: TANDEM_E_INVALID, and those of the td_store.
 */
tandem_err td_op_store_cover(td_op_store *ops, tandem_slice collection, tandem_slice filter,
                             const uint8_t *origin, const td_head *heads, unsigned count);
/* Want all that was refused. Errors: those of the td_store. */
tandem_err td_op_store_withdraw(td_op_store *ops);

/* The head that the next operation of origin follows, as of the open group or, without one, of the
 * last commit: of several the one with the highest seq, then hash. seq 0 and the chain root if
 * there is none. TANDEM_E_INVALID: no such collection can be. */
tandem_err td_op_store_tip(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                           td_head *out);

/* Note the HLC's high water in the open group; a lower one than is known changes nothing. */
tandem_err td_op_store_put_clock(td_op_store *ops, uint64_t hlc);

/*
 * Take a new origin in the open group, which has nothing else; the next group writes under it.
 *
 * with_reactor     and a new reactor id
 * hlc              the high water from now on, even if that is lower; 0: as it was
 */
tandem_err td_op_store_reincarnate(td_op_store *ops, tandem_incarnation_reason reason,
                                   bool with_reactor, uint64_t hlc);

/* How many origins the open group has made forks. */
unsigned td_op_store_group_forks(const td_op_store *ops);
/* The last ordinal as of the open group. */
uint64_t td_op_store_group_ordinal(const td_op_store *ops);

/*
 * Make the group durable: TANDEM_OK means that all it appended, and all that it found held already,
 * is on disk. On any error the group is over and its outcome unknown: call
 * td_op_store_recover(), then compare td_op_store_last_ordinal() with what the group would have
 * reached.
 */
tandem_err td_op_store_commit(td_op_store *ops);
void td_op_store_abort(td_op_store *ops); /* without an open group: nothing */
tandem_err td_op_store_recover(td_op_store *ops);

/* ---- Reading: any thread ---- */

/* As of the last commit. */
tandem_err td_op_store_last_ordinal(td_op_store *ops, uint64_t *out);
tandem_err td_op_store_clock(td_op_store *ops, uint64_t *hlc_out);

typedef struct td_collection_info {
    tandem_slice name;
    uint64_t operations;
    uint64_t last_ordinal; /* of its last operation, or change of its lacks */
    uint64_t bytes; /* of canonical bytes */
} td_collection_info;

/* A visitor returns TANDEM_OK to go on, TANDEM_END to stop well, or an error, which the call then
 * returns. A call that visited everything returns TANDEM_OK, a stopped one TANDEM_END. */
typedef tandem_err (*td_visit_collection)(void *context, const td_collection_info *info);
typedef tandem_err (*td_visit_vector)(void *context, const uint8_t *origin, const td_head *heads,
                                      unsigned count);
typedef tandem_err (*td_visit_lack)(void *context, const uint8_t *origin, const td_lack *lack);
/*
 * err          TANDEM_OK, or TANDEM_E_CORRUPT: checksum or hash do not match; then operation is
 *              NULL and nothing of the record may be used
 * operation    parsed, hash filled from the record
 */
typedef tandem_err (*td_visit_operation)(void *context, tandem_err err, uint64_t ordinal,
                                         const td_operation *operation);

/* Collections with a name > after (empty: all), in byte order. */
tandem_err td_op_store_collections(td_op_store *ops, tandem_slice after, td_visit_collection visit,
                                   void *context);
/* One collection; all zero (and TANDEM_OK) if it has no operations. info->name is collection. */
tandem_err td_op_store_collection(td_op_store *ops, tandem_slice collection,
                                  td_collection_info *info);

/* The heads of one origin, in (seq, hash) order; heads has room for TANDEM_HEADS_MAX. */
tandem_err td_op_store_heads(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                             td_head *heads, unsigned *count_out);
/* All origins > after_origin (NULL: all) of a collection, in byte order. One of which only lacks are
 * known has no heads. */
tandem_err td_op_store_vector(td_op_store *ops, tandem_slice collection,
                              const uint8_t *after_origin, td_visit_vector visit, void *context);

/* The lacks of an origin (NULL: of all) in a collection, in the order of (origin, last, hash). */
tandem_err td_op_store_lacks(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                             td_visit_lack visit, void *context);
/* How many there are in all collections. */
unsigned td_op_store_lack_count(const td_op_store *ops);
/* How many groups have changed any since the store was opened, as far as it is known. */
unsigned td_op_store_lack_changes(const td_op_store *ops);
typedef tandem_err (*td_visit_lack_of)(void *context, tandem_slice collection,
                                       const uint8_t *origin, const td_lack *lack);
/* Those of all collections, in the order of (collection, origin, last, hash), and the last ordinal, all
 * as of one commit. */
tandem_err td_op_store_all_lacks(td_op_store *ops, uint64_t *ordinal_out, td_visit_lack_of visit,
                                 void *context);
/*
 * Pairs of a collection that is held in part: all that matches filter is held up to the heads of the
 * pair's vector. ordinal: of its last change. TD_PAIRS_MAX at most: the one that was changed first goes.
 * Where what stands without gaps comes to hold all that a pair covers, that goes.
 */
tandem_err td_op_store_pairs(td_op_store *ops, tandem_slice collection,
                             tandem_err (*visit)(void *context, tandem_slice filter,
                                                 uint64_t ordinal),
                             void *context);
/* Has it any? */
tandem_err td_op_store_in_part(td_op_store *ops, tandem_slice collection, bool *out);
/* How far one covers an origin; *count_out 0: not at all. heads has room for TANDEM_HEADS_MAX. */
tandem_err td_op_store_pair_heads(td_op_store *ops, tandem_slice collection, tandem_slice filter,
                                  const uint8_t *origin, td_head *heads, unsigned *count_out);
/* All origins > after_origin (NULL: all) that one covers. */
tandem_err td_op_store_pair_vector(td_op_store *ops, tandem_slice collection, tandem_slice filter,
                                   const uint8_t *after_origin, td_visit_vector visit,
                                   void *context);
/* Has the origin lacks in a collection, or loose operations, or had it, or does a pair cover some of it?
 * Then its ordinals need not grow with seqs. */
tandem_err td_op_store_has_gaps(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                                bool *out);
/* All such origins of a collection, in byte order. */
tandem_err td_op_store_gapped(td_op_store *ops, tandem_slice collection, td_visit_vector visit,
                              void *context);

/*
 * The digest of a collection's vector: over its origins in byte order, their heads in (seq, hash)
 * order: origin || seq (64 bits, big endian) || hash; then over its lacks in the order of (origin,
 * last, hash): origin || first || last || hash. A collection without operations has the digest of the
 * empty string.
 */
tandem_err td_op_store_vector_digest(td_op_store *ops, tandem_slice collection,
                                     uint8_t out[TANDEM_HASH_BYTES]);
/* The same, and of how many origins something is held, or known to be lacking. */
tandem_err td_op_store_vector_summary(td_op_store *ops, tandem_slice collection,
                                      uint8_t digest_out[TANDEM_HASH_BYTES], uint64_t *origins_out);

/* Operations of a collection with an ordinal > after, in order of ordinals. */
tandem_err td_op_store_scan(td_op_store *ops, tandem_slice collection, uint64_t after,
                            td_visit_operation visit, void *context);
/* The same for who only passes them on: of each the canonical bytes and the hash, and nothing else. */
tandem_err td_op_store_scan_bytes(td_op_store *ops, tandem_slice collection, uint64_t after,
                                  td_visit_operation visit, void *context);

/* Operations of one origin that follow each other in one chain and were committed together. The first
 * stands at ordinal; between them stand operations of others. */
typedef struct td_run {
    uint64_t first;
    uint64_t last;
    uint64_t ordinal;
    bool loose; /* something before them is neither held nor lacking */
} td_run;

/*
 * The run of origin behind *run in the order of (first seq, ordinal), in which each run stands behind
 * what its first operation follows; of all zeros the first one. TANDEM_END: there is none.
 */
tandem_err td_op_store_next_run(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                                td_run *run);

/*
 * The highest seq such that all of origin that is held up to it has an ordinal <= ordinal: what was
 * committed later lies beyond, but where lacks were filled. It is held, or 0.
 */
tandem_err td_op_store_reached(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                               uint64_t ordinal, uint64_t *seq_out);

/*
 * The ordinal of the first operation of origin with a seq >= seq: no operation of that origin with
 * such a seq, of whatever branch of a fork, has a smaller one. TANDEM_E_NOT_FOUND if there is none;
 * TANDEM_E_CORRUPT if it cannot be told because of records that cannot be read.
 */
tandem_err td_op_store_locate(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                              uint64_t seq, uint64_t *ordinal_out);
/* The smallest ordinal of an operation of origin with this seq. Errors as above. */
tandem_err td_op_store_at(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                          uint64_t seq, uint64_t *ordinal_out);
/* The ordinal of the operation of this hash at (origin, seq), on any branch. Errors as above. */
tandem_err td_op_store_find(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                            uint64_t seq, const uint8_t hash[TANDEM_HASH_BYTES],
                            uint64_t *ordinal_out);
/* Is the operation of this hash held at (origin, seq), on any branch? TANDEM_E_CORRUPT as above. */
tandem_err td_op_store_holds(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                             uint64_t seq, const uint8_t hash[TANDEM_HASH_BYTES], bool *out);
/* The same, and is it not loose, so that a head vouches for it? */
tandem_err td_op_store_reaches(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                               uint64_t seq, const uint8_t hash[TANDEM_HASH_BYTES], bool *out);

/*
 * Re-read everything: checksums, hashes recomputed, chains, jobs whole, vectors, groups, counts.
 *
 * report       called for each thing found wrong with a sentence that names collection, ordinal,
 *              and, where they can be told, origin and seq; borrowed for the call
 * Returns TANDEM_OK, or TANDEM_E_CORRUPT if anything was reported.
 */
tandem_err td_op_store_verify(td_op_store *ops, void (*report)(void *context, const char *text),
                              void *context);

#endif
