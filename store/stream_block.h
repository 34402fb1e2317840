/*
 * The bytes of a block: entries of one stream that follow each other in total order, packed, so that
 * an operation costs the index some eight bytes and a stream is read in long steps. Private to the
 * files of the stream index; pure functions.
 *
 * A block stands in the table of documents, behind the record of its stream. Its key ends with hlc,
 * origin and seq of its first entry; its value, entry after entry:
 *
 *   varint   origin × 4 + ordinal as expected × 2 + hash follows
 *            origin: which of those that the block has named so far, or the one after them: a new one
 *   16       the origin, if it is new; the first entry's is in the key
 *   varint   hlc, less the one of the entry before (of the key: 0)
 *   varint   seq, less the last one of that origin in this block (the key's; of a new one: 0): zigzag
 *   varint   ordinal, less the expected one: zigzag; only if it is not as expected
 *   16       of the hash, if it follows
 *   1, 1, …  of the lifecycle stream: what it does, size and bytes of the name of its model
 *
 * The expected ordinal is as far from the one before as the seq is from that of its origin: what one
 * origin writes gets ordinals in step with its seqs.
 *
 * A hash is kept only where it is needed to tell the order: of all entries that share hlc, origin and
 * seq with another one of their stream (branches of a fork), which therefore stand in one block, and
 * in the lifecycle stream. Elsewhere the operations store knows it, which whoever wants to know more
 * than an ordinal looks into anyway.
 *
 * There is one encoding of the same entries: td_stream_index_verify() compares bytes.
 *
 * Errors: TANDEM_E_CORRUPT for bytes that are no block.
 */
#ifndef TANDEM_STORE_STREAM_BLOCK_H
#define TANDEM_STORE_STREAM_BLOCK_H

#include "store/stream_records.h"

enum {
    /*
     * Four blocks with their keys, checksums and what LMDB adds to each fill a page. A block of ties
     * may be larger.
     */
    TD_BLOCK_BYTES = 960,
    TD_BLOCK_ORIGINS_MAX = 32,
    TD_BLOCK_ENTRY_BYTES_MAX = 4 * 10 + TANDEM_ORIGIN_BYTES + 16 + 2 + TANDEM_NAME_BYTES_MAX,
};

/* One operation of a stream. */
typedef struct td_block_entry {
    td_place place; /* decoded: its hash is zeros unless it is hashed */
    uint64_t ordinal;
    bool hashed;
    uint8_t life; /* of the lifecycle stream: an enum td_life, and the model; else 0 and empty */
    tandem_slice model;
} td_block_entry;

/* What the coding of the next entry depends on. */
typedef struct td_block_state {
    bool lifecycle;
    bool first; /* nothing is coded yet */
    uint64_t hlc, ordinal;
    unsigned origins;
    struct {
        uint8_t bytes[TANDEM_ORIGIN_BYTES];
        uint64_t seq;
    } origin[TD_BLOCK_ORIGINS_MAX];
} td_block_state;

/* The key of a block that begins with place, of the stream that has stream_key. */
void td_block_key(td_index_key *key, tandem_slice stream_key, const td_place *place);
/* Is this the key of a block of that stream? */
bool td_block_is_of(tandem_slice key, tandem_slice stream_key);
/* Begin to code the block with this key. */
void td_block_begin(td_block_state *state, tandem_slice key, bool lifecycle);
/* Decode the next entry; rest goes behind it. TANDEM_END, TANDEM_E_CORRUPT. */
tandem_err td_block_next(td_block_state *state, tandem_slice *rest, td_block_entry *out);
/* Encode an entry that is not before the last one; returns its size, or 0 if the block can name no
 * further origin. */
size_t td_block_add(td_block_state *state, const td_block_entry *entry,
                    uint8_t out[TD_BLOCK_ENTRY_BYTES_MAX]);

/* By hlc, origin and seq alone: zero for a tie. */
static inline int td_place_prefix_compare(const td_place *a, const td_place *b)
{
    return memcmp(a->bytes, b->bytes, TD_PLACE_HASH_AT);
}

/* The order of an entry and a whole place: an entry without a hash has no tie, and is the one with
 * this hlc, origin and seq. */
static inline int td_block_entry_compare(const td_block_entry *entry, const td_place *place)
{
    return entry->hashed ? td_place_compare(&entry->place, place)
                         : td_place_prefix_compare(&entry->place, place);
}

#endif
