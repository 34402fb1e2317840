/*
 * A share: what goes one way between two reactors, by collection and by filter. What a side gives
 * and what it takes are shares of its own; what goes from it to the other is what the one gives and
 * the other takes, their conjunction.
 *
 * Its canonical bytes (transport/PROTOCOL.md, "Filters"): nil is everything, else [collections,
 * filter]; collections nil, or 0 to 64 names, strictly ascending in byte order; the filter as in
 * store/filter.h. They are not both nil. No collections means nothing, and then the filter is nil.
 *
 * So that the conjunction of what one side gives and the other takes always fits, the filter of a
 * share that is read or made here takes half of what a filter may: 2,048 bytes and 2 lists of
 * globs.
 *
 * Threads: pure functions over the caller's memory.
 */
#ifndef TANDEM_STORE_SHARE_H
#define TANDEM_STORE_SHARE_H

#include "store/filter.h"

enum {
    TD_SHARE_COLLECTIONS_MAX = 64,
    TD_SHARE_FILTER_BYTES_MAX = TD_FILTER_BYTES_MAX / 2,
    TD_SHARE_LISTS_MAX = TD_FILTER_LISTS_MAX / 2,
};

typedef struct td_share {
    uint8_t *collections; /* a msgpack array of names; NULL: all of them, or nothing */
    size_t collections_size;
    bool nothing;
    td_filter filter;
} td_share;

#define TD_SHARE_ALL ((td_share){NULL, 0, false, {NULL, 0}})
#define TD_SHARE_NOTHING ((td_share){NULL, 0, true, {NULL, 0}})

/*
 * Make a share of collections (count 0: all) and a filter, which is copied; out holds none before,
 * and is untouched on failure.
 *
 * Errors: TANDEM_E_INVALID (a name is no name), TANDEM_E_LIMIT (more than 64, or the filter is too
 * large for a share), TANDEM_E_NOMEM.
 */
tandem_err td_share_make(td_names collections, const td_filter *filter, td_share *out);
void td_share_release(td_share *share); /* it is everything then */

/* As td_filter_check() and td_filter_decode(). */
tandem_err td_share_check(tandem_slice bytes);
tandem_err td_share_decode(tandem_slice bytes, td_share *out);
/* Append the canonical bytes. */
void td_share_write(const td_share *share, tandem_writer *out);

/* out as with td_share_make(). TANDEM_E_NOMEM. */
tandem_err td_share_copy(const td_share *share, td_share *out);
/* What is in both; out as with td_share_make(). TANDEM_E_NOMEM; TANDEM_E_LIMIT, but not of two that
 * were read or made here. */
tandem_err td_share_and(const td_share *a, const td_share *b, td_share *out);

bool td_share_is_all(const td_share *share);
bool td_share_is_nothing(const td_share *share);
bool td_share_equal(const td_share *a, const td_share *b);
/* Is a collection in it, or some of it? */
bool td_share_has(const td_share *share, tandem_slice collection);
/* Is an operation in it? As to jobs, see store/filter.h. */
bool td_share_matches(const td_share *share, const td_operation *operation);

/* ---- As it is kept with a remote ---- */

enum { TD_DIRECTIONS = 3 };

/* Which way operations go (a tandem_direction, below TD_DIRECTIONS), and which of them: the
 * canonical bytes of a share, borrowed; empty: everything. */
typedef struct td_kept_share {
    uint64_t direction;
    tandem_slice bytes;
} td_kept_share;

bool td_kept_share_valid(const td_kept_share *share);
/* As an array [direction, share]: append it; read it, whatever it has behind these. */
void td_kept_share_write(const td_kept_share *share, tandem_writer *out);
bool td_kept_share_read(tandem_slice value, td_kept_share *out);

/* ---- Looking ---- */

/* Visit all names, as td_filter_each() does, the collections first. */
void td_share_each(const td_share *share, td_visit_filter_name visit, void *context);

#endif
