/*
 * A filter: which operations of a collection are meant, by document, scope and branch. It is a
 * value, and its canonical bytes are what two sides compare: filters that were made of the same
 * names are equal byte for byte. tests/vectors and transport/PROTOCOL.md ("Filters") have the
 * bytes:
 *
 *   nil                            everything
 *   [documents, scopes, branches]  documents nil, or 1 to 4 lists of 1 to 64 globs each; scopes and
 *                                  branches nil, or 0 to 64 names each; not all three are nil.
 *
 * Each list is strictly ascending in byte order, and so are the lists of globs, by their encodings;
 * all headers are in their shortest form; 4,096 bytes at most.
 *
 * An operation matches if
 *
 *   - its document matches a glob of every list, and
 *   - it is a lifecycle operation (its scope is `document`), or both its scope and its branch are
 *     listed.
 *
 * Lifecycle operations match on every branch because those of all branches of a document form one
 * stream (store/stream_index.h): whether a document exists, of which model it is and from where on
 * it is folded follows from all of them together. A replica of one branch that lacked a CREATE of
 * another one would fold the document from another place than whole replicas do, and might take it
 * for one that does not exist. They are few and small.
 *
 * A job is whole or nothing, so it goes where one of its operations matches: test each.
 *
 * The conjunction of two filters is a filter again: both sides' lists of globs, the scopes and the
 * branches that both list. No scope may be left, or no branch; then only lifecycle operations
 * match, as they matched before. There is no filter that matches nothing: a share (store/share.h)
 * can say that.
 *
 * Memory: the bytes; everything has none.
 * Threads: pure functions over the caller's memory.
 */
#ifndef TANDEM_STORE_FILTER_H
#define TANDEM_STORE_FILTER_H

#include "store/operation.h"

enum {
    TD_FILTER_BYTES_MAX = 4096,
    TD_FILTER_ENTRIES_MAX = 64, /* of a list */
    TD_FILTER_LISTS_MAX = 4,    /* of globs */
};

typedef struct td_filter {
    uint8_t *bytes; /* canonical; NULL: everything */
    size_t size;
} td_filter;

#define TD_FILTER_ALL ((td_filter){NULL, 0})

/* Names or globs that a user lists, in any order; count 0: all. */
typedef struct td_names {
    const tandem_slice *names;
    uint32_t count;
} td_names;

/*
 * Make a filter of names; out holds none before, and is untouched on failure.
 *
 * Errors: TANDEM_E_INVALID (a name is no name, a glob no glob), TANDEM_E_LIMIT (more than 64 of a
 * kind, or too large together), TANDEM_E_NOMEM.
 */
tandem_err td_filter_make(td_names documents, td_names scopes, td_names branches, td_filter *out);
void td_filter_release(td_filter *filter); /* it is everything then */

/* Are these the canonical bytes of a filter? Errors: TANDEM_E_PAYLOAD; TANDEM_E_LIMIT (too large,
 * too many of something). Allocates nothing. */
tandem_err td_filter_check(tandem_slice bytes);
/* Check and copy; out as with td_filter_make(). Also TANDEM_E_NOMEM. */
tandem_err td_filter_decode(tandem_slice bytes, td_filter *out);
/* The canonical bytes, borrowed from filter. */
tandem_slice td_filter_bytes(const td_filter *filter);

/* out as with td_filter_make(). TANDEM_E_NOMEM. */
tandem_err td_filter_copy(const td_filter *filter, td_filter *out);
/* What both match; out as with td_filter_make(). TANDEM_E_LIMIT, TANDEM_E_NOMEM. */
tandem_err td_filter_and(const td_filter *a, const td_filter *b, td_filter *out);

bool td_filter_is_all(const td_filter *filter);
bool td_filter_equal(const td_filter *a, const td_filter *b);
/* Does filter match all that other matches, as can be seen from their names? False where it cannot:
 * one glob is not compared with another but for being the same. */
bool td_filter_includes(const td_filter *filter, const td_filter *other);
bool td_filter_matches(const td_filter *filter, const td_operation *operation);

/* Where a name of a filter, or of a share, stands. */
typedef enum td_filter_part {
    TD_FILTER_COLLECTIONS, /* of a share only */
    TD_FILTER_DOCUMENTS,
    TD_FILTER_SCOPES,
    TD_FILTER_BRANCHES,
} td_filter_part;

typedef void (*td_visit_filter_name)(void *context, td_filter_part part, tandem_slice name);

/* Visit all names, part by part, each list in its order; nothing of a part that is everything. */
void td_filter_each(const td_filter *filter, td_visit_filter_name visit, void *context);

#endif
