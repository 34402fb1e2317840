/*
 * The bytes of the operations store's tables. Private to op_store.c (the rules), op_read.c (reading) and
 * op_verify.c (the proof that the rules were kept), so that the layout that store/FORMAT.md describes is
 * written down in C once: here, and for pairs in op_pairs.c. op_search.h finds operations by it.
 *
 * Every value begins with a checksum over what follows, seeded with the record's table and key: a
 * record that was moved or copied to another key does not pass for the one that belongs there. What
 * fails is TANDEM_E_CORRUPT.
 *
 * Threads: pure functions over a transaction, which stays on its thread.
 */
#ifndef TANDEM_STORE_OP_TABLES_H
#define TANDEM_STORE_OP_TABLES_H

#include "store/op_store.h"

/* In the order of td_op_store_tables. */
enum {
    TD_TABLE_COLLECTIONS,
    TD_TABLE_OPERATIONS,
    TD_TABLE_VECTORS,
    TD_TABLE_GROUPS,
    TD_TABLE_LACKS,
    TD_TABLE_META,
    TD_TABLE_PAIRS,
    TD_TABLE_COUNT,
};

enum {
    TD_CHECKSUM_BYTES = 8,
    TD_HEAD_BYTES = 8 + TANDEM_HASH_BYTES,
    TD_ID_BYTES = 4,
    TD_OPERATION_KEY_BYTES = TD_ID_BYTES + 8,
    TD_VECTOR_KEY_BYTES = TD_ID_BYTES + TANDEM_ORIGIN_BYTES,
    TD_RUN_KEY_BYTES = TD_VECTOR_KEY_BYTES + 8 + 8,
    TD_LACK_KEY_BYTES = TD_VECTOR_KEY_BYTES + 8 + TANDEM_HASH_BYTES,
    TD_PAIR_ID_BYTES = 16,
    TD_PAIR_KEY_BYTES = TD_ID_BYTES + TD_PAIR_ID_BYTES,
    TD_PAIR_VECTOR_KEY_BYTES = TD_PAIR_KEY_BYTES + TANDEM_ORIGIN_BYTES,
    /* In front of the canonical bytes. */
    TD_OPERATION_RECORD_BYTES = TD_CHECKSUM_BYTES + TANDEM_HASH_BYTES,
};

extern const char td_meta_format[];   /* the keys of the meta table */
extern const char td_meta_identity[];
extern const char td_meta_position[];

typedef struct td_position {
    uint64_t ordinal;     /* the last one given */
    uint32_t collections; /* the last id given; ids start at 1 */
    uint64_t hlc;
} td_position;

typedef struct td_collection_record {
    uint32_t id;
    uint64_t operations;
    uint64_t last_ordinal;
    uint64_t bytes;
} td_collection_record;

typedef struct td_vector_record {
    uint64_t floor; /* operations up to here were truncated: always 0 in this version */
    bool gaps;      /* something is lacking, or was: runs leave seqs out and are in no order */
    bool branched;  /* with gaps: several operations may stand at one seq */
    bool loose;     /* with gaps: there are loose runs, or were */
    unsigned count; /* 0 only with gaps */
    td_head heads[TANDEM_HEADS_MAX]; /* in (seq, hash) order */
} td_vector_record;

/* ---- Records ---- */

/* Check value's checksum; body_out receives what follows it. */
tandem_err td_record_open(unsigned table, tandem_slice key, tandem_slice value,
                          tandem_slice *body_out);
/* The same for a key that is looked up; TANDEM_E_NOT_FOUND. */
tandem_err td_record_get(td_txn *txn, unsigned table, tandem_slice key, tandem_slice *body_out);
/* Put checksum || body. scratch is cleared and used. */
tandem_err td_record_put(td_txn *txn, unsigned table, tandem_slice key, tandem_slice body,
                         tandem_writer *scratch);
/* The same for a body that is written into scratch between these two. */
void td_record_begin(tandem_writer *scratch);
tandem_err td_record_seal(td_txn *txn, unsigned table, tandem_slice key, tandem_writer *scratch);

/* TANDEM_E_FORMAT_NEWER, TANDEM_E_FORMAT, TANDEM_E_CORRUPT; TANDEM_E_NOT_FOUND. */
tandem_err td_format_check(td_txn *txn);
tandem_err td_format_put(td_txn *txn, uint32_t version, tandem_writer *scratch);
tandem_err td_identity_get(td_txn *txn, td_identity *out);
tandem_err td_identity_put(td_txn *txn, const td_identity *identity, tandem_writer *scratch);
tandem_err td_position_get(td_txn *txn, td_position *out);
tandem_err td_position_put(td_txn *txn, const td_position *position, tandem_writer *scratch);

tandem_err td_collection_decode(tandem_slice key, tandem_slice value, td_collection_record *out);
/* TANDEM_E_NOT_FOUND, also for what can be no name. */
tandem_err td_collection_get(td_txn *txn, tandem_slice name, td_collection_record *out);
tandem_err td_collection_put(td_txn *txn, tandem_slice name, const td_collection_record *record,
                             tandem_writer *scratch);

void td_vector_key(uint8_t out[TD_VECTOR_KEY_BYTES], uint32_t id, const uint8_t *origin);
tandem_err td_vector_decode(tandem_slice key, tandem_slice value, td_vector_record *out);
/* A record without heads if the origin has none. */
tandem_err td_vector_get(td_txn *txn, uint32_t id, const uint8_t *origin, td_vector_record *out);
tandem_err td_vector_put(td_txn *txn, uint32_t id, const uint8_t *origin,
                         const td_vector_record *record, tandem_writer *scratch);

void td_run_key(uint8_t out[TD_RUN_KEY_BYTES], uint32_t id, const uint8_t *origin, uint64_t first,
                uint64_t ordinal);
tandem_err td_run_decode(tandem_slice key, tandem_slice value, td_run *out);
tandem_err td_run_put(td_txn *txn, uint32_t id, const uint8_t *origin, const td_run *run,
                      tandem_writer *scratch);

void td_lack_key(uint8_t out[TD_LACK_KEY_BYTES], uint32_t id, const uint8_t *origin,
                 const td_lack *lack);
tandem_err td_lack_decode(tandem_slice key, tandem_slice value, td_lack *out);
tandem_err td_lack_put(td_txn *txn, uint32_t id, const uint8_t *origin, const td_lack *lack,
                       tandem_writer *scratch);
tandem_err td_lack_del(td_txn *txn, uint32_t id, const uint8_t *origin, const td_lack *lack);
/* The one that ends with (last, hash). TANDEM_E_NOT_FOUND. */
tandem_err td_lack_get(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t last,
                       const uint8_t *hash, td_lack *out);
/* Those of an origin that end at last or behind it (NULL: of all origins), in the order of (origin,
 * last, hash). A visitor neither puts nor deletes. */
tandem_err td_lacks_each(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t last,
                         td_visit_lack visit, void *context);

void td_operation_key(uint8_t out[TD_OPERATION_KEY_BYTES], uint32_t id, uint64_t ordinal);
/* Checksum; out's canonical bytes and hash, and nothing else of it. */
tandem_err td_operation_open(tandem_slice key, tandem_slice value, td_operation *out);
/* Checksum, then the format's rules; out's hash is the record's, not computed again. */
tandem_err td_operation_decode(tandem_slice key, tandem_slice value, td_operation *out);
tandem_err td_operation_put(td_txn *txn, uint32_t id, uint64_t ordinal,
                            const td_operation *operation);

/* One value for the place of an operation: those of one job share it. */
void td_operation_place(const td_operation *operation, uint8_t out[TANDEM_HASH_BYTES]);

/* Does key belong to the collection with this id? */
bool td_key_has_id(tandem_slice key, uint32_t id);

#endif
