/*
 * What was gathered from the operations store and is in no table of the stream index yet: a small entry
 * for each operation, chained by document. Private to the files of the index.
 *
 * Why it exists: a document that changes costs a look-up, a page and a put or two, whether it changes by
 * one operation or by a thousand, and documents in key order share their pages. So operations wait here
 * until they are many (or it is time), and are written a document at a time. A document that is read
 * is written at once. What a crash takes from here is gathered again.
 *
 * The idea is that of the memory component of a log-structured merge tree (O'Neil, Cheng, Gawlick,
 * O'Neil 1996); the component on disk is LMDB's tree.
 *
 * An operation takes some 16 bytes, a document a hundred: so entries are packed, in pieces that grow with
 * their document, and what operations have in common (origin, stream and type) is kept once.
 *
 * Ownership: all memory is the pending's, and goes at once; td_pending_document and what hangs on it are
 *            valid until td_pending_clear(). Collections are borrowed.
 * Errors:    TANDEM_E_NOMEM: nothing was added.
 * Threads:   one at a time.
 */
#ifndef TANDEM_STORE_STREAM_PENDING_H
#define TANDEM_STORE_STREAM_PENDING_H

#include "store/hash_table.h"
#include "store/stream_records.h"

/* A stream as all documents have it: what stands in its keys behind that of the document. */
typedef struct td_pending_stream {
    td_hash_entry hash_entry;
    bool lifecycle;
    uint32_t number; /* from 0, in the order in which they came */
    size_t size;
    uint8_t key[]; /* 0, branch, 0, scope */
} td_pending_stream;

/* What many operations have in common. */
typedef struct td_pending_kind {
    td_hash_entry hash_entry;
    const td_pending_stream *stream;
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    tandem_slice model;
    uint8_t life;    /* an enum td_life */
    uint32_t number; /* from 0 */
    size_t size;
    uint8_t key[];
} td_pending_kind;

typedef struct td_pending_document {
    td_hash_entry hash_entry;
    struct td_index_collection *collection;
    struct td_pending_piece *first, *last;
    uint32_t count; /* entries that wait: none once they were written */
    uint16_t size;
    bool lifecycle; /* one of them is of the lifecycle */
    uint8_t key[]; /* in the table of documents */
} td_pending_document;

/* An operation that waits. */
typedef struct td_pending_entry {
    const td_pending_kind *kind;
    uint64_t ordinal, seq;
    td_place place; /* its hash is zeros, but of the lifecycle stream, where it is there */
} td_pending_entry;

typedef struct td_pending {
    struct td_pending_chunk *chunks;
    size_t bytes; /* that are in use */
    uint32_t operations;
    uint64_t last_ordinal; /* the greatest */
    td_hash_table documents, streams;
    td_hash_table kinds;
    const td_pending_kind **kind; /* by their numbers */
    uint32_t kinds_max;
    const td_pending_kind *last_kind; /* the one that most operations have */
    uint64_t base_hlc, base_ordinal;  /* of the first one: the others are near */

    uint32_t most; /* entries of one document */

    td_pending_document **order; /* while documents are taken */
    uint32_t ordered, taken;
} td_pending;

/*
 * Is there enough for what it saves, or too much for the memory that it takes, here or where a document
 * is written? Documents that have many entries each gain nothing by having more, and chains that the
 * processor's cache cannot hold are slow.
 */
bool td_pending_is_full(const td_pending *pending);
/* All zeros: empty. */
void td_pending_clear(td_pending *pending);

/* An operation with an ordinal above all others of its document; not while documents are taken. */
tandem_err td_pending_add(td_pending *pending, struct td_index_collection *collection,
                          const td_operation *operation, uint64_t ordinal);

/* NULL: nothing of it waits. */
td_pending_document *td_pending_find(const td_pending *pending, tandem_slice document_key);

/* Begin to take documents, in the order of their keys. */
tandem_err td_pending_order(td_pending *pending);
/* The next one of which something waits; NULL: there is none. */
td_pending_document *td_pending_take(td_pending *pending);

/* What waits of a document, in the order of ordinals: its count is how often there is a next one. */
typedef struct td_pending_cursor {
    const td_pending *pending;
    const struct td_pending_piece *piece;
    tandem_slice rest;
} td_pending_cursor;
td_pending_cursor td_pending_entries(const td_pending *pending, const td_pending_document *document);
td_pending_entry td_pending_next(td_pending_cursor *cursor);

/* It was written. */
void td_pending_done(td_pending_document *document);

#endif
