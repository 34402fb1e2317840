/*
 * The keys and records of the stream index's tables, and the order of places in them: pure
 * functions. Private to the files of the index.
 *
 * A collection gets a local number:
 *
 *   meta       name -> u64 (version, position, next_collection), or the reactor's id
 *   progress   collection -> number u32, last indexed ordinal u64, entries u64, corrupt records
 *              u64, first u64
 *   documents  number, document -> info: without what another part of it says already
 *              number, document, 0, branch, 0, scope -> count, mark if there is one
 *              number, document, 0, branch, 0, scope, 0, hlc, origin, seq -> a block of the stream's
 *              entries (stream_block.h), in total order
 *   snapshots  number, document, 0, branch, 0, scope, 0, place -> folded u64, model version u32,
 *              bytes
 *
 * All that changes with a document stands together, on one page as long as it is short: operations
 * on many documents, in no order, change a page each and not three.
 *
 * In front of each value stands a checksum: the lower 32 bits of XXH3 of the value, seeded with
 * XXH3 of the key, seeded with the number of the table. So a record that was changed, or stands at
 * another key, is noticed when it is read, and the index is built again.
 *
 * Names hold no zero byte and no byte 1, so key order is byte order of (document, branch, scope), and
 * a name with a 1 behind it stands behind all that belongs to the name. The lifecycle stream has an
 * empty branch, which no name is.
 *
 * The mark of a stream is a place after which none of its snapshots lies, and of the lifecycle
 * stream its last place: what arrives late is told by one comparison, without a look at the tables.
 *
 * Documents and streams are encoded and decoded here, blocks in stream_block.c. The rest stands where
 * it is put: meta and progress in stream_index.c, snapshots in stream_snapshots.c.
 *
 * Ownership: what is decoded is a copy; a slice of a key or of a name borrows it.
 * Errors: TANDEM_E_CORRUPT for bytes that are no such record.
 * Threads: any.
 */
#ifndef TANDEM_STORE_STREAM_RECORDS_H
#define TANDEM_STORE_STREAM_RECORDS_H

#include "store/stream_index.h"

/* In the order of td_stream_index_tables. */
enum {
    TD_INDEX_META,
    TD_INDEX_PROGRESS,
    TD_INDEX_DOCUMENTS,
    TD_INDEX_SNAPSHOTS,
    TD_INDEX_TABLE_COUNT,
};

enum {
    TD_VARINT_BYTES_MAX = 10,
    TD_STREAM_RECORD_BYTES_MAX = 1 + TD_VARINT_BYTES_MAX + (int)sizeof(td_place),
    TD_DOCUMENT_RECORD_BYTES_MAX = 1 + 3 * TD_VARINT_BYTES_MAX + TANDEM_ORIGIN_BYTES +
                                   (int)sizeof(td_place) + 3 * (1 + TANDEM_NAME_BYTES_MAX),
};

/* ---- Numbers ---- */

/* LEB128: seven bits a byte, the lowest first. Returns the size. */
size_t td_varint_put(uint8_t out[TD_VARINT_BYTES_MAX], uint64_t value);
/* Takes it from rest; false if there is none in its shortest form. */
bool td_varint_get(tandem_slice *rest, uint64_t *out);

/* Differences of 64 bits, the small ones of either sign to small numbers; and back. */
static inline uint64_t td_zigzag(uint64_t difference)
{
    return difference << 1 ^ (difference >> 63 ? UINT64_MAX : 0);
}

static inline uint64_t td_unzigzag(uint64_t value)
{
    return value >> 1 ^ (value & 1 ? UINT64_MAX : 0);
}

/* ---- Checksums ---- */

enum { TD_INDEX_CHECKSUM_BYTES = 4 };

void td_index_checksum(unsigned table, tandem_slice key, tandem_slice value,
                       uint8_t out[TD_INDEX_CHECKSUM_BYTES]);
/* Check what a table holds at key, and take the checksum off: TANDEM_E_CORRUPT. */
tandem_err td_index_unwrap(unsigned table, tandem_slice key, tandem_slice *value);

/* ---- Keys ---- */

typedef struct td_index_key {
    size_t size;
    uint8_t bytes[TD_STORE_KEY_BYTES_MAX];
} td_index_key;

static inline tandem_slice td_index_key_slice(const td_index_key *key)
{
    return tandem_slice_of(key->bytes, key->size);
}

/* Can it be in a key? The empty name can. Asked before a caller's names are made a key. */
bool td_index_name_fits(tandem_slice name);
/* The operations whose scope this is make the lifecycle stream. */
bool td_scope_is_lifecycle(tandem_slice scope);

/* Each sets key; names must fit. For the lifecycle's scope the branch is ignored. */
void td_index_key_copy(td_index_key *key, tandem_slice bytes);
void td_index_key_document(td_index_key *key, uint32_t collection, tandem_slice document);
void td_index_key_stream(td_index_key *key, uint32_t collection, tandem_slice document,
                         tandem_slice branch, tandem_slice scope);
/* Of a snapshot. */
void td_index_key_place(td_index_key *key, tandem_slice stream_key, const td_place *place);

/* Make a document's key what the keys of its streams begin with, a stream's what those of its blocks
 * do. */
void td_index_key_end_name(td_index_key *key);
/* Behind all that belongs to a document or a stream, in front of all else. */
void td_index_key_pass(td_index_key *key, tandem_slice passed);

/* What a key of the table of documents names. */
typedef struct td_index_names {
    tandem_slice document_key; /* number, document */
    tandem_slice stream_key;   /* all up to the scope; empty in a document's own key */
    tandem_slice branch, scope;
    bool is_block;
} td_index_names;

/* false: it is none. out borrows the key. */
bool td_index_key_parse(tandem_slice key, td_index_names *out);

bool td_index_key_starts_with(tandem_slice key, tandem_slice prefix);

/* ---- Places ---- */

extern const td_place td_place_zero; /* before everything */

/* Less than, equal to, greater than zero. */
int td_place_compare(const td_place *a, const td_place *b);
td_place td_place_of(const td_operation *operation);
/* Is its hash all zeros, as in places of entries? */
bool td_place_lacks_hash(const td_place *place);
/* Of a snapshot, by its key. */
td_place td_place_of_key(tandem_slice key);

/* ---- Records ---- */

typedef struct td_model_name {
    uint8_t size;
    uint8_t bytes[TANDEM_NAME_BYTES_MAX];
} td_model_name;

void td_model_name_set(td_model_name *name, tandem_slice model);
static inline tandem_slice td_model_name_slice(const td_model_name *name)
{
    return tandem_slice_of(name->bytes, name->size);
}

typedef struct td_document_record {
    td_document_info info;
    /* The least and the greatest model name of its operations: they tell, whatever came first,
     * whether any is another than the document's. */
    td_model_name least, greatest;
} td_document_record;

typedef struct td_stream_record {
    uint64_t count;
    bool marked;
    td_place mark;
} td_stream_record;

/* What follows from the rest of it: info.conflict. */
void td_document_derive(td_document_record *record);
/* Return the size of what was written to out. info.known and info.conflict are derived. */
size_t td_document_encode(const td_document_record *record,
                          uint8_t out[TD_DOCUMENT_RECORD_BYTES_MAX]);
tandem_err td_document_decode(tandem_slice value, td_document_record *record);
size_t td_stream_encode(const td_stream_record *record, uint8_t out[TD_STREAM_RECORD_BYTES_MAX]);
tandem_err td_stream_decode(tandem_slice value, td_stream_record *record);

#endif
