/*
 * Recently touched documents: what was committed and may not be indexed yet. One entry an ordinal, a
 * hash of the document's name whose lowest bit says whether the operation was a CREATE or DELETE. A
 * false match costs one more look, never a wrong answer.
 *
 * Threads: the executor's.
 */
#ifndef TANDEM_REACTOR_RECENT_H
#define TANDEM_REACTOR_RECENT_H

#include "store/operation.h"

typedef struct td_recent {
    uint64_t *entries; /* ring of capacity (a power of two) */
    uint64_t capacity;
    uint64_t base; /* ordinals up to here are forgotten */
    uint64_t last; /* the newest ordinal in it */
} td_recent;

void td_recent_release(td_recent *recent);
/* Begin anew behind an ordinal. */
void td_recent_reset(td_recent *recent, uint64_t ordinal);

uint64_t td_recent_hash(tandem_slice collection, tandem_slice document);
/* Room for count more ordinals: before they are appended, so that noting them cannot fail.
 * TANDEM_E_NOMEM. */
tandem_err td_recent_reserve(td_recent *recent, size_t count);
/* True: it is a CREATE or DELETE. */
bool td_recent_note(td_recent *recent, const td_operation *operation);
/* An ordinal at which no operation stands. */
void td_recent_skip(td_recent *recent);
/* Was the document touched after an ordinal? lifecycle_only: by a CREATE or DELETE. True, too, if that
 * is forgotten. */
bool td_recent_touched(const td_recent *recent, uint64_t after, uint64_t hash, bool lifecycle_only);
/* The newest ordinal after another at which the document was touched; 0: it was not. The newest of all, if
 * that is forgotten. */
uint64_t td_recent_newest(const td_recent *recent, uint64_t after, uint64_t hash);
/* Everything up to position is indexed. */
void td_recent_forget(td_recent *recent, uint64_t position);

#endif
