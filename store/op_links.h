/*
 * The chain of an origin with gaps, linked anew from what is held: every operation that was met, in
 * whatever order, and the lacks. For op_verify.c: where operations came out of order, nothing less
 * tells which are heads and whether something is missing that no lack accounts for.
 *
 * Memory: 96 bytes an operation, 96 a lack. Threads: one.
 */
#ifndef TANDEM_STORE_OP_LINKS_H
#define TANDEM_STORE_OP_LINKS_H

#include "store/op_tables.h"

typedef struct td_op_link {
    uint64_t seq;
    uint64_t ordinal;
    uint8_t hash[TANDEM_HASH_BYTES];
    uint8_t predecessor[TANDEM_HASH_BYTES];
    uint64_t place; /* a hash of document and branch */
    bool continues; /* the next one belongs to its job */
    bool followed;
    bool anchored; /* the chain's root is behind it, through what is held and what is lacking */
} td_op_link;

/* All zero is an empty one. */
typedef struct td_links {
    td_op_link *links;
    size_t count, capacity;
    td_lack *lacks;
    size_t lack_count, lack_capacity;
} td_links;

void td_links_release(td_links *links);

tandem_err td_links_add(td_links *links, const td_operation *operation, uint64_t ordinal);
tandem_err td_links_add_lack(td_links *links, const td_lack *lack);

/*
 * Link them, once all are added.
 *
 * loose      operations may be loose: they came through a filter, and make no head
 * report     called for each thing that is wrong
 * heads_out  in (seq, hash) order; room for TANDEM_HEADS_MAX, *count_out may be more
 */
void td_links_check(td_links *links, tandem_slice collection, bool loose,
                    void (*report)(void *context, const td_op_link *link, const char *what),
                    void *context, td_head *heads_out, unsigned *count_out);

/* After that: is (seq, hash) held, and the chain's root behind it? */
bool td_links_are_anchored(const td_links *links, uint64_t seq, const uint8_t *hash);

#endif
