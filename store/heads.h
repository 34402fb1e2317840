/*
 * The vector of one collection, derived from its jobs as they pass by in the order of appending: what
 * a backup's writer and reader know of what they have seen. It keeps heads only, so it cannot tell a
 * fork's point from a chain with a hole: td_heads_follows() says where one or the other is, and
 * whoever has the operations looks. What it is told to be lacking, it knows.
 *
 * Memory: about 150 bytes an origin, 120 a lack.
 * Threads: one.
 */
#ifndef TANDEM_STORE_HEADS_H
#define TANDEM_STORE_HEADS_H

#include "store/op_store.h"

typedef struct td_heads td_heads;

tandem_err td_heads_open(td_heads **out);
void td_heads_free(td_heads *heads); /* NULL is fine */
/* Forget everything: another collection begins. */
void td_heads_clear(td_heads *heads);

/* Where a job stands in its origin's chain; all of it copied. */
typedef struct td_link {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t first_seq;
    uint8_t predecessor[TANDEM_HASH_BYTES]; /* of its first operation */
    uint64_t last_seq;
    uint8_t last_hash[TANDEM_HASH_BYTES];
} td_link;

/* Begin a link with a job's first operation, and lengthen it by each other one, in order. */
void td_link_begin(td_link *link, const td_operation *first);
void td_link_extend(td_link *link, const td_operation *next);
/* Is this operation the next one of the link's chain? */
bool td_link_continues(const td_link *link, const td_operation *next);

/* Does a job follow a head or a lack, or begin its origin's chain? If not, it begins a branch, or
 * something before it is missing. */
bool td_heads_follows(const td_heads *heads, const td_link *job);

/*
 * Take a job: its last operation replaces the head that its first one follows, or is a head of its
 * own. What follows a lack follows the head before that, unless something has done so already.
 *
 * Errors: TANDEM_E_QUARANTINED (it would be the origin's ninth head), TANDEM_E_NOMEM,
 * TANDEM_E_INVALID (it brings the end of a lack).
 */
tandem_err td_heads_add(td_heads *heads, const td_link *job);

/*
 * Something is lacking, and no job that was taken follows it yet; lack->followed is not looked at.
 *
 * Errors: TANDEM_E_INVALID (it is no range, known already, or a head), TANDEM_E_LIMIT (TD_LACKS_MAX),
 * TANDEM_E_NOMEM.
 */
tandem_err td_heads_add_lack(td_heads *heads, const uint8_t *origin, const td_lack *lack);

/* The digest of the vector, as td_op_store_vector_digest() gives it. */
void td_heads_digest(td_heads *heads, uint8_t out[TANDEM_HASH_BYTES]);

#endif
