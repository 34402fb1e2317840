/*
 * Coverage: what one peer is known to hold, collection by collection and origin by origin, as far as
 * this session was told; and beside each origin, where sending to the peer and asking it stand.
 *
 * A collection whose digests were equal needs no table: the peer holds all that we hold there up to
 * base_ordinal; where they were equal in some ranges of its origins, so much of these. Entries exist for
 * origins that differ, or changed since.
 *
 *   lag      operations of ours that the peer is not known to hold; of a branch of a fork, one. What is
 *            lacking there counts only where all goes: else the peer asks for what is in the way
 *   refused  those of them that it will not have; refused_here: of its own, those that we will not
 *   lacking  the peer announced a head that we do not hold, or holds what we want (store/op_store.h,
 *            lacks)
 *
 * Ownership: a coverage belongs to a session's peer and is forgotten with the session: what is
 * announced is authoritative over anything remembered. Threads: the loop's.
 */
#ifndef TANDEM_SYNC_COVERAGE_H
#define TANDEM_SYNC_COVERAGE_H

#include "store/hash_table.h"
#include "store/op_store.h"
#include "store/share.h"
#include "sync/pair_cover.h"
#include "sync/ranges.h"

enum {
    TD_COLLECTIONS_MAX = 100000, /* that one peer may announce */
    TD_ORIGINS_MAX = 10000,      /* in one of them */
    TD_COVERS_MAX = 500000,      /* origins in all of them together */
};

typedef struct td_origin_cover td_origin_cover;
typedef struct td_collection_cover td_collection_cover;

/* A run of operations that goes to the peer. */
typedef struct td_send_range {
    bool active;
    bool asked; /* and not answered yet: counted in the peer's asked_ranges */
    uint64_t first, last;  /* seqs; last UINT64_MAX: whatever comes */
    uint64_t sent_ordinal; /* everything of it up to here is on its way, or held there */
    uint64_t next_seq;     /* above all that was sent; 0: not known yet */
    tandem_err blocked;    /* it cannot go on: TANDEM_E_CORRUPT, or what the peer said */
    uint64_t retry_at_ms;  /* not before; 0: at once */
    tandem_err retry_err;  /* why not */
    uint64_t clock_hlc;    /* retry_at_ms is for the peer's clock to reach this; 0: it is not */
    uint32_t attempts;
    uint64_t failed_seq; /* of what was asked for: the first that the peer could not take, or that was
                          * not held here then; 0: none */
    bool gaps;           /* ordinals of it may not grow with seqs: it is sent in the order of these … */
    bool forked;         /* … as far as there is one; and what is asked for by runs … */
    td_run run;          /* … of which this one is the last that was begun … */
    uint64_t run_seq;    /* … and goes on with this seq; 0: the next one begins */
    bool whole;          /* it was asked for again: what the peer's pairs cover goes, too */
    uint64_t again_seq;  /* … by scans of which the last one began with this next_seq; 0: it is the first */
    uint64_t repeat_last; /* up to here it was asked for though the peer was taken to hold it; 0: not. Of a
                           * fork the seq says nothing */
} td_send_range;

struct td_origin_cover {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    td_collection_cover *collection;
    unsigned head_count; /* 0: the peer holds nothing of it */
    td_head *heads;      /* in (seq, hash) order */
    uint64_t peer_seq;   /* of the last head, or of what was acknowledged since */
    uint64_t passed_seq; /* of what it refused last: nothing up to there is to be sent; 0: nothing */
    td_head *passed;     /* through a filter the peer was given all up to these … */
    unsigned passed_count;
    td_head *paired;     /* … and its pair names these now, and may end before those */
    unsigned paired_count;
    bool parted; /* through a filter it has another branch: all of ours goes */
    td_head claimed; /* through a filter it has all up to here, which lies beyond ours; seq 0: nothing */
    uint64_t asked_first; /* where what it asked for last begins; 0: nothing */
    bool asked_failed; /* it could not take some of that, for another reason than what stands before it */
    td_head *asked;       /* of a fork: our heads, when it asked for all of it … */
    unsigned asked_count;
    bool asked_sent;     /* … and all of it was sent */
    td_head sought;      /* the end of a lack of its that it asked for through a filter; seq 0: of none … */
    bool sought_held;    /* … which was held here then … */
    bool sought_sent;    /* … and what of that is in the way was sent */
    uint64_t our_seq;    /* of our newest head, as far as it was looked at */
    unsigned unmet;      /* of a fork: our heads that the peer has not announced, and that were not passed */
    bool vague; /* it announced heads that we do not hold, nor need to: what is behind those is not known */
    uint64_t lag;        /* our_seq - peer_seq (passed_seq), or 0, and what lacks there; at least unmet */
    td_lack *lacks;      /* the peer's, in (last, hash) order; none is known of what we refuse. One is
                          * followed if we hold it */
    unsigned lack_count;
    td_lack *lacks_before; /* while an announcement is read: as they were */
    unsigned lacks_before_count;
    uint64_t refused;    /* operations of ours in those that it refused */
    uint64_t refused_here; /* of its own, that we refused */
    td_lack *our_lacks;  /* as far as they were looked at */
    unsigned our_lack_count;
    uint64_t want_first, want_last; /* a lack of ours that the peer holds; 0: none */
    td_head *told; /* there: by COVER of this session it is held up to these; a pair may keep others */
    unsigned told_count;
    td_head *void_lacks; /* the ends of lacks of ours of which nothing more is in the way from the peer */
    unsigned void_count;
    bool refused_in_part; /* of what came through a filter in this session: our pair stays where it is */
    uint64_t in_seq; /* where the way from the peer has a filter: all that is in it is held up to here */
    uint64_t sent_seq;   /* the highest that was sent in this session */
    uint64_t announced_seq; /* the highest that the peer was told */
    bool dirty;             /* to be announced; in the collection's dirty list */
    td_origin_cover *next_dirty;
    bool lacking; /* in the peer's lacking list */
    uint64_t lacking_seq; /* the highest of its heads that is not held here */
    td_origin_cover *next_lacking, *prev_lacking;
    uint64_t lacking_since_ms;
    bool is_claim; /* it was asked for that, and nothing came */
    uint64_t failed_seq; /* the lowest that came from it and could not be kept, for another reason than
                          * its date; 0: none */
    uint64_t back; /* how far below the announced head to ask: a fork's search, 0: from ours on */
    td_send_range range;
    td_hash_entry hash_entry;
};

struct td_collection_cover {
    tandem_slice name; /* in text */
    td_pair_cover *pairs; /* if the peer holds it in part */
    bool stays;        /* nothing of it goes to the peer */
    bool known;        /* what the peer holds here is known */
    bool listed;       /* named in the peer's list of digests */
    bool receiving;    /* a listing of it has begun and not ended */
    bool received;     /* a listing of it has begun */
    uint64_t base_ordinal;
    bool base_in_part; /* … of the ranges of origins that were equal alone */
    td_ranges ranges;  /* of its origins */
    bool comparing;    /* in the peer's list of those of which these are to be told */
    td_collection_cover *next_comparing;
    td_hash_table origins; /* td_origin_cover */
    td_origin_cover *dirty;
    /* Our own listing to the peer: */
    bool listing_sent;    /* begun, or finished */
    bool listing_pending; /* in the peer's list of listings to send */
    bool listing_begun;
    uint8_t listing_after[TANDEM_ORIGIN_BYTES]; /* the last origin sent */
    td_collection_cover *next_listing;
    bool sending; /* has a range that may have something to send */
    td_collection_cover *next_sending;
    td_hash_entry hash_entry;
    uint8_t text[];
};

typedef struct td_coverage {
    const td_share *gives; /* what goes to the peer; NULL: everything */
    td_hash_table collections; /* td_collection_cover */
    td_origin_cover *lacking; /* utlist */
    uint64_t lag;
    uint64_t refused, refused_here;
    uint32_t lacking_count;
    uint32_t origin_count;
    size_t pair_origins; /* in the pairs of all collections */
    uint32_t unknown; /* collections that are not known */
} td_coverage;

void td_coverage_release(td_coverage *coverage); /* empty again, for the next session */

td_collection_cover *td_coverage_find(td_coverage *coverage, tandem_slice name);
/* Find or make. TANDEM_E_LIMIT, TANDEM_E_NOMEM. A new one is unknown, and counted so. */
tandem_err td_coverage_collection(td_coverage *coverage, tandem_slice name,
                                  td_collection_cover **out);
void td_coverage_set_known(td_coverage *coverage, td_collection_cover *collection, bool known);

/* Up to which ordinal of ours the peer holds all of an origin because digests were equal; 0: it is not
 * known so. */
uint64_t td_coverage_base(const td_collection_cover *collection, const uint8_t *origin);

td_origin_cover *td_coverage_find_origin(td_collection_cover *collection, const uint8_t *origin);
/* Find or make. TANDEM_E_LIMIT, TANDEM_E_NOMEM. */
tandem_err td_coverage_origin(td_coverage *coverage, td_collection_cover *collection,
                              const uint8_t *origin, td_origin_cover **out);

/* The peer holds these heads (count may be 0). Does not look at lacking. */
tandem_err td_coverage_set_heads(td_coverage *coverage, td_origin_cover *origin,
                                 const td_head *heads, unsigned count);
/* We hold what one of its lacks ends with. */
void td_coverage_hold_lack(td_coverage *coverage, td_origin_cover *origin, td_lack *lack);
/* None is known; those that were are kept until td_coverage_lacks_gone(). */
void td_coverage_begin_lacks(td_coverage *coverage, td_origin_cover *origin);
/* Does it hold some of those that it had? Once. */
bool td_coverage_lacks_gone(td_origin_cover *origin);
/* One more. TANDEM_E_NOMEM. */
tandem_err td_coverage_add_lack(td_coverage *coverage, td_origin_cover *origin,
                                const td_lack *lack);
/* These are ours. first_gone_out: where the first begins that we had and hold now; UINT64_MAX: none.
 * TANDEM_E_NOMEM. */
tandem_err td_coverage_set_our_lacks(td_coverage *coverage, td_origin_cover *origin,
                                     const td_lack *lacks, unsigned count,
                                     uint64_t *first_gone_out);
/* So many operations that the peer holds were refused here. */
void td_coverage_set_refused_here(td_coverage *coverage, td_origin_cover *origin, uint64_t count);
/* The lack that holds seq, or NULL. */
const td_lack *td_coverage_lack_at(const td_lack *lacks, unsigned count, uint64_t seq);
/* The seq before which, from seq on, everything is lacking: seq itself if it is not. */
uint64_t td_coverage_behind_lacks(const td_lack *lacks, unsigned count, uint64_t seq);
/* Does the list have the lack that ends with (last, hash)? */
bool td_coverage_has_lack(const td_lack *lacks, unsigned count, uint64_t last,
                          const uint8_t *hash);

/* The peer has acknowledged everything of a chain up to seq. */
void td_coverage_acknowledge(td_coverage *coverage, td_origin_cover *origin, uint64_t seq);
/* The peer has refused what ends there, for good: what follows goes on. */
void td_coverage_pass(td_coverage *coverage, td_origin_cover *origin, uint64_t seq);
/* What was passed behind this seq was not all that there is now. */
void td_coverage_pass_back(td_coverage *coverage, td_origin_cover *origin, uint64_t seq);
/* Through a filter the peer was given all up to these heads. TANDEM_E_NOMEM. */
tandem_err td_coverage_pass_heads(td_origin_cover *origin, const td_head *heads, unsigned count);
/* A pair of the peer's names these heads now. TANDEM_E_NOMEM. */
tandem_err td_coverage_pair_heads(td_origin_cover *origin, const td_head *heads, unsigned count);
/* Through a filter the peer has another branch than ours: nothing was passed. */
void td_coverage_part(td_coverage *coverage, td_origin_cover *origin);
/* The peer asked for all of an origin of which these are our heads, or of something else (count 0).
 * TANDEM_E_NOMEM. */
tandem_err td_coverage_set_asked(td_origin_cover *origin, const td_head *heads, unsigned count);
/* Is it one of the heads that the peer has announced? */
bool td_coverage_is_announced(const td_origin_cover *origin, const td_head *head);
/* The peer has told by COVER that all that is in the way from it is held up to these heads.
 * TANDEM_E_NOMEM. */
tandem_err td_coverage_set_told(td_origin_cover *origin, const td_head *heads, unsigned count);
bool td_coverage_is_told(const td_origin_cover *origin, const td_head *head);
/* Of the lack of ours that ends there nothing more comes from the peer. TANDEM_E_NOMEM. */
tandem_err td_coverage_add_void(td_origin_cover *origin, const td_head *last);
bool td_coverage_is_void(const td_origin_cover *origin, const td_lack *lack);
/* It announces these heads now: there may be more of those lacks if another branch has come there, or one has
 * gone on that ended before the lack does. */
void td_coverage_look_at_void(td_origin_cover *origin, const td_head *heads, unsigned count);
/* Is anything lacking there that we hold up to seq, as far as it counts in the lag? */
bool td_coverage_lacks_some(const td_coverage *coverage, const td_origin_cover *origin,
                            uint64_t seq);
/* Has the peer announced that it lacks any of these? */
bool td_coverage_refuses(const td_origin_cover *origin, uint64_t first, uint64_t last);
/* Nothing up to this seq is to be sent any more. What it announced of another branch says nothing. */
static inline uint64_t td_coverage_reached(const td_origin_cover *origin)
{
    return origin->parted || origin->passed_seq > origin->peer_seq ? origin->passed_seq
                                                                   : origin->peer_seq;
}
/* The peer holds all that we hold of it. */
void td_coverage_acknowledge_all(td_coverage *coverage, td_origin_cover *origin);
/* We hold everything of a chain up to seq. */
void td_coverage_set_ours(td_coverage *coverage, td_origin_cover *origin, uint64_t seq);
/* We hold these heads (at least one). */
void td_coverage_set_our_heads(td_coverage *coverage, td_origin_cover *origin,
                               const td_head *heads, unsigned count);
/* Of a fork: does the peer announce a head that is not in the way to us? */
void td_coverage_set_vague(td_coverage *coverage, td_origin_cover *origin, bool vague);
void td_coverage_set_lacking(td_coverage *coverage, td_origin_cover *origin, bool lacking,
                             uint64_t now_ms);
/* Operations that the peer announced and that are not held here; of a branch of a fork, one. */
uint64_t td_coverage_lacking(const td_coverage *coverage);
void td_coverage_mark_dirty(td_origin_cover *origin);

#endif
