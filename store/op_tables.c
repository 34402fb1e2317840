#include "store/op_tables.h"

#include <assert.h>
#include <sodium.h>
#include <xxhash.h>

enum {
    VECTOR_VERSION = 1,
    VECTOR_FIXED_BYTES = 1 + 8 + 1 + 2, /* version, floor, count, length of the signature */
    VECTOR_BYTES_MAX = VECTOR_FIXED_BYTES + TANDEM_HEADS_MAX * TD_HEAD_BYTES,
    VECTOR_GAPS = 0x80, /* beside the count */
    VECTOR_BRANCHED = 0x40,
    VECTOR_LOOSE = 0x20,
    RUN_BYTES_MAX = 8 + 1, /* the last seq; and RUN_LOOSE, if it is */
    RUN_LOOSE = 1,
    LACK_BYTES = 8 + 4 + 1 + TANDEM_HASH_BYTES, /* first, reason, followed, predecessor */
    COLLECTION_BYTES = TD_ID_BYTES + 8 + 8 + 8,
    POSITION_BYTES = 8 + 4 + 8,
    INCARNATION_AT = 2 * TANDEM_ORIGIN_BYTES + 32,
    IDENTITY_BYTES = INCARNATION_AT + 4 + 1 + 8,
    FORMAT_BYTES = 4,
};

const char *const td_op_store_tables[] = {"collections", "operations", "vectors",
                                          "groups",      "lacks",      "meta",
                                          "pairs"};
const unsigned td_op_store_table_count = TD_TABLE_COUNT;

_Static_assert(sizeof(td_op_store_tables) / sizeof(td_op_store_tables[0]) == TD_TABLE_COUNT,
               "every table has a name");

const char td_meta_format[] = "format";
const char td_meta_identity[] = "identity";
const char td_meta_position[] = "position";

/* ---- Records ---- */

static uint64_t checksum(unsigned table, tandem_slice key, tandem_slice body)
{
    uint64_t seed = XXH3_64bits_withSeed(key.bytes, key.size, table);

    return XXH3_64bits_withSeed(body.bytes, body.size, seed);
}

tandem_err td_record_open(unsigned table, tandem_slice key, tandem_slice value,
                          tandem_slice *body_out)
{
    tandem_slice body;

    if (value.size < TD_CHECKSUM_BYTES)
        return TANDEM_E_CORRUPT;
    body = tandem_slice_of(value.bytes + TD_CHECKSUM_BYTES, value.size - TD_CHECKSUM_BYTES);
    if (td_get_u64(value.bytes) != checksum(table, key, body))
        return TANDEM_E_CORRUPT;
    *body_out = body;
    return TANDEM_OK;
}

tandem_err td_record_get(td_txn *txn, unsigned table, tandem_slice key, tandem_slice *body_out)
{
    tandem_slice value;
    tandem_err err = td_txn_get(txn, table, key, &value);

    return err == TANDEM_OK ? td_record_open(table, key, value, body_out) : err;
}

/* What scratch holds behind eight spare bytes is the body. */
tandem_err td_record_seal(td_txn *txn, unsigned table, tandem_slice key, tandem_writer *scratch)
{
    tandem_slice body;

    if (scratch->err != TANDEM_OK)
        return scratch->err;
    body = tandem_slice_of(scratch->bytes + TD_CHECKSUM_BYTES, scratch->size - TD_CHECKSUM_BYTES);
    td_put_u64(scratch->bytes, checksum(table, key, body));
    return td_txn_put(txn, table, key, tandem_writer_slice(scratch));
}

void td_record_begin(tandem_writer *scratch)
{
    static const uint8_t spare[TD_CHECKSUM_BYTES];

    tandem_writer_clear(scratch);
    tandem_write_raw(scratch, tandem_slice_of(spare, sizeof(spare)));
}

tandem_err td_record_put(td_txn *txn, unsigned table, tandem_slice key, tandem_slice body,
                         tandem_writer *scratch)
{
    td_record_begin(scratch);
    tandem_write_raw(scratch, body);
    return td_record_seal(txn, table, key, scratch);
}

/* ---- Meta ---- */

/* A missing record of a store that has a format is damage. */
static tandem_err meta_get(td_txn *txn, const char *key, size_t size, tandem_slice *body_out)
{
    tandem_err err = td_record_get(txn, TD_TABLE_META, tandem_slice_text(key), body_out);

    if (err == TANDEM_E_NOT_FOUND || (err == TANDEM_OK && body_out->size != size))
        return TANDEM_E_CORRUPT;
    return err;
}

tandem_err td_format_check(td_txn *txn)
{
    tandem_slice body;
    tandem_err err;
    uint32_t version;

    err = td_record_get(txn, TD_TABLE_META, tandem_slice_text(td_meta_format), &body);
    if (err != TANDEM_OK)
        return err;
    if (body.size < FORMAT_BYTES)
        return TANDEM_E_CORRUPT;
    /* The one record that no version may lay out anew: newer ones may only make it longer. */
    version = td_get_u32(body.bytes);
    if (version > TD_FORMAT_VERSION)
        return TANDEM_E_FORMAT_NEWER;
    return version == TD_FORMAT_VERSION ? TANDEM_OK : TANDEM_E_FORMAT;
}

tandem_err td_format_put(td_txn *txn, uint32_t version, tandem_writer *scratch)
{
    uint8_t body[FORMAT_BYTES];

    td_put_u32(body, version);
    return td_record_put(txn, TD_TABLE_META, tandem_slice_text(td_meta_format),
                         tandem_slice_of(body, sizeof(body)), scratch);
}

tandem_err td_identity_get(td_txn *txn, td_identity *out)
{
    tandem_slice body;
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    tandem_err err = meta_get(txn, td_meta_identity, IDENTITY_BYTES, &body);

    if (err != TANDEM_OK)
        return err;
    memcpy(out->reactor, body.bytes, TANDEM_ORIGIN_BYTES);
    memcpy(out->origin, body.bytes + TANDEM_ORIGIN_BYTES, TANDEM_ORIGIN_BYTES);
    memcpy(out->seed, body.bytes + 2 * TANDEM_ORIGIN_BYTES, sizeof(out->seed));
    out->incarnation = td_get_u32(body.bytes + INCARNATION_AT);
    out->reason = (tandem_incarnation_reason)body.bytes[INCARNATION_AT + 4];
    out->since_ms = td_get_u64(body.bytes + INCARNATION_AT + 5);
    td_origin_of_seed(out->seed, origin);
    return memcmp(origin, out->origin, sizeof(origin)) ? TANDEM_E_CORRUPT : TANDEM_OK;
}

tandem_err td_identity_put(td_txn *txn, const td_identity *identity, tandem_writer *scratch)
{
    uint8_t body[IDENTITY_BYTES];
    tandem_err err;

    memcpy(body, identity->reactor, TANDEM_ORIGIN_BYTES);
    memcpy(body + TANDEM_ORIGIN_BYTES, identity->origin, TANDEM_ORIGIN_BYTES);
    memcpy(body + 2 * TANDEM_ORIGIN_BYTES, identity->seed, sizeof(identity->seed));
    td_put_u32(body + INCARNATION_AT, identity->incarnation);
    body[INCARNATION_AT + 4] = (uint8_t)identity->reason;
    td_put_u64(body + INCARNATION_AT + 5, identity->since_ms);
    err = td_record_put(txn, TD_TABLE_META, tandem_slice_text(td_meta_identity),
                        tandem_slice_of(body, sizeof(body)), scratch);
    sodium_memzero(body, sizeof(body));
    sodium_memzero(scratch->bytes, scratch->size);
    return err;
}

tandem_err td_position_get(td_txn *txn, td_position *out)
{
    tandem_slice body;
    tandem_err err = meta_get(txn, td_meta_position, POSITION_BYTES, &body);

    if (err != TANDEM_OK)
        return err;
    out->ordinal = td_get_u64(body.bytes);
    out->collections = td_get_u32(body.bytes + 8);
    out->hlc = td_get_u64(body.bytes + 12);
    return TANDEM_OK;
}

tandem_err td_position_put(td_txn *txn, const td_position *position, tandem_writer *scratch)
{
    uint8_t body[POSITION_BYTES];

    td_put_u64(body, position->ordinal);
    td_put_u32(body + 8, position->collections);
    td_put_u64(body + 12, position->hlc);
    return td_record_put(txn, TD_TABLE_META, tandem_slice_text(td_meta_position),
                         tandem_slice_of(body, sizeof(body)), scratch);
}

/* ---- Collections ---- */

static tandem_err collection_body(tandem_slice body, td_collection_record *out)
{
    if (body.size != COLLECTION_BYTES)
        return TANDEM_E_CORRUPT;
    out->id = td_get_u32(body.bytes);
    out->operations = td_get_u64(body.bytes + 4);
    out->last_ordinal = td_get_u64(body.bytes + 12);
    out->bytes = td_get_u64(body.bytes + 20);
    return TANDEM_OK;
}

tandem_err td_collection_decode(tandem_slice key, tandem_slice value, td_collection_record *out)
{
    tandem_slice body;
    tandem_err err = td_record_open(TD_TABLE_COLLECTIONS, key, value, &body);

    return err == TANDEM_OK ? collection_body(body, out) : err;
}

tandem_err td_collection_get(td_txn *txn, tandem_slice name, td_collection_record *out)
{
    tandem_slice body;
    tandem_err err;

    if (name.size < 1 || name.size > TANDEM_NAME_BYTES_MAX)
        return TANDEM_E_NOT_FOUND;
    err = td_record_get(txn, TD_TABLE_COLLECTIONS, name, &body);
    return err == TANDEM_OK ? collection_body(body, out) : err;
}

tandem_err td_collection_put(td_txn *txn, tandem_slice name, const td_collection_record *record,
                             tandem_writer *scratch)
{
    uint8_t body[COLLECTION_BYTES];

    td_put_u32(body, record->id);
    td_put_u64(body + 4, record->operations);
    td_put_u64(body + 12, record->last_ordinal);
    td_put_u64(body + 20, record->bytes);
    return td_record_put(txn, TD_TABLE_COLLECTIONS, name, tandem_slice_of(body, sizeof(body)),
                         scratch);
}

/* ---- Vectors ---- */

void td_vector_key(uint8_t out[TD_VECTOR_KEY_BYTES], uint32_t id, const uint8_t *origin)
{
    td_put_u32(out, id);
    memcpy(out + TD_ID_BYTES, origin, TANDEM_ORIGIN_BYTES);
}

static tandem_err vector_body(tandem_slice body, td_vector_record *out)
{
    const uint8_t *at = body.bytes;

    if (body.size < VECTOR_FIXED_BYTES || at[0] != VECTOR_VERSION)
        return TANDEM_E_CORRUPT;
    out->floor = td_get_u64(at + 1);
    out->gaps = at[9] & VECTOR_GAPS;
    out->branched = at[9] & VECTOR_BRANCHED;
    out->loose = at[9] & VECTOR_LOOSE;
    out->count = at[9] & ~(VECTOR_GAPS | VECTOR_BRANCHED | VECTOR_LOOSE);
    if ((out->count < 1 && !out->gaps) || out->count > TANDEM_HEADS_MAX ||
        body.size != VECTOR_FIXED_BYTES + out->count * (size_t)TD_HEAD_BYTES)
        return TANDEM_E_CORRUPT;
    at += 10;
    for (unsigned i = 0; i < out->count; i++, at += TD_HEAD_BYTES) {
        out->heads[i].seq = td_get_u64(at);
        memcpy(out->heads[i].hash, at + 8, TANDEM_HASH_BYTES);
    }
    return at[0] || at[1] ? TANDEM_E_CORRUPT : TANDEM_OK;
}

tandem_err td_vector_decode(tandem_slice key, tandem_slice value, td_vector_record *out)
{
    tandem_slice body;
    tandem_err err = td_record_open(TD_TABLE_VECTORS, key, value, &body);

    if (err == TANDEM_OK && key.size != TD_VECTOR_KEY_BYTES)
        return TANDEM_E_CORRUPT;
    return err == TANDEM_OK ? vector_body(body, out) : err;
}

tandem_err td_vector_get(td_txn *txn, uint32_t id, const uint8_t *origin, td_vector_record *out)
{
    uint8_t key[TD_VECTOR_KEY_BYTES];
    tandem_slice body;
    tandem_err err;

    td_vector_key(key, id, origin);
    err = td_record_get(txn, TD_TABLE_VECTORS, tandem_slice_of(key, sizeof(key)), &body);
    if (err == TANDEM_E_NOT_FOUND) {
        *out = (td_vector_record){.count = 0};
        return TANDEM_OK;
    }
    return err == TANDEM_OK ? vector_body(body, out) : err;
}

tandem_err td_vector_put(td_txn *txn, uint32_t id, const uint8_t *origin,
                         const td_vector_record *record, tandem_writer *scratch)
{
    uint8_t key[TD_VECTOR_KEY_BYTES];
    uint8_t body[VECTOR_BYTES_MAX];
    uint8_t *at = body;

    assert((record->count >= 1 || record->gaps) && record->count <= TANDEM_HEADS_MAX);
    td_vector_key(key, id, origin);
    *at++ = VECTOR_VERSION;
    td_put_u64(at, record->floor);
    at += 8;
    *at++ = (uint8_t)(record->count | (record->gaps ? VECTOR_GAPS : 0) |
                      (record->branched ? VECTOR_BRANCHED : 0) |
                      (record->loose ? VECTOR_LOOSE : 0));
    for (unsigned i = 0; i < record->count; i++) {
        td_put_u64(at, record->heads[i].seq);
        memcpy(at + 8, record->heads[i].hash, TANDEM_HASH_BYTES);
        at += TD_HEAD_BYTES;
    }
    *at++ = 0; /* no head signature yet */
    *at++ = 0;
    return td_record_put(txn, TD_TABLE_VECTORS, tandem_slice_of(key, sizeof(key)),
                         tandem_slice_of(body, (size_t)(at - body)), scratch);
}

/* ---- Groups ---- */

void td_run_key(uint8_t out[TD_RUN_KEY_BYTES], uint32_t id, const uint8_t *origin, uint64_t first,
                uint64_t ordinal)
{
    td_vector_key(out, id, origin);
    td_put_u64(out + TD_VECTOR_KEY_BYTES, first);
    td_put_u64(out + TD_VECTOR_KEY_BYTES + 8, ordinal);
}

tandem_err td_run_decode(tandem_slice key, tandem_slice value, td_run *out)
{
    tandem_slice body;
    tandem_err err = td_record_open(TD_TABLE_GROUPS, key, value, &body);

    if (err != TANDEM_OK)
        return err;
    if (key.size != TD_RUN_KEY_BYTES || body.size < 8 || body.size > RUN_BYTES_MAX ||
        (body.size == RUN_BYTES_MAX && body.bytes[8] != RUN_LOOSE))
        return TANDEM_E_CORRUPT;
    out->first = td_get_u64(key.bytes + TD_VECTOR_KEY_BYTES);
    out->ordinal = td_get_u64(key.bytes + TD_VECTOR_KEY_BYTES + 8);
    out->last = td_get_u64(body.bytes);
    out->loose = body.size == RUN_BYTES_MAX;
    return out->first >= 1 && out->last >= out->first ? TANDEM_OK : TANDEM_E_CORRUPT;
}

tandem_err td_run_put(td_txn *txn, uint32_t id, const uint8_t *origin, const td_run *run,
                      tandem_writer *scratch)
{
    uint8_t key[TD_RUN_KEY_BYTES];
    uint8_t body[RUN_BYTES_MAX];

    td_run_key(key, id, origin, run->first, run->ordinal);
    td_put_u64(body, run->last);
    body[8] = RUN_LOOSE;
    return td_record_put(txn, TD_TABLE_GROUPS, tandem_slice_of(key, sizeof(key)),
                         tandem_slice_of(body, run->loose ? RUN_BYTES_MAX : 8), scratch);
}

/* ---- Lacks ---- */

void td_lack_key(uint8_t out[TD_LACK_KEY_BYTES], uint32_t id, const uint8_t *origin,
                 const td_lack *lack)
{
    td_vector_key(out, id, origin);
    td_put_u64(out + TD_VECTOR_KEY_BYTES, lack->last);
    memcpy(out + TD_VECTOR_KEY_BYTES + 8, lack->hash, TANDEM_HASH_BYTES);
}

static tandem_err lack_body(tandem_slice key, tandem_slice body, td_lack *out)
{
    if (key.size != TD_LACK_KEY_BYTES || body.size != LACK_BYTES)
        return TANDEM_E_CORRUPT;
    out->last = td_get_u64(key.bytes + TD_VECTOR_KEY_BYTES);
    memcpy(out->hash, key.bytes + TD_VECTOR_KEY_BYTES + 8, TANDEM_HASH_BYTES);
    out->first = td_get_u64(body.bytes);
    out->reason = (tandem_err)(int32_t)td_get_u32(body.bytes + 8);
    out->followed = body.bytes[12];
    memcpy(out->predecessor, body.bytes + 13, TANDEM_HASH_BYTES);
    return out->first >= 1 && out->last >= out->first ? TANDEM_OK : TANDEM_E_CORRUPT;
}

tandem_err td_lack_decode(tandem_slice key, tandem_slice value, td_lack *out)
{
    tandem_slice body;
    tandem_err err = td_record_open(TD_TABLE_LACKS, key, value, &body);

    return err == TANDEM_OK ? lack_body(key, body, out) : err;
}

tandem_err td_lack_get(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t last,
                       const uint8_t *hash, td_lack *out)
{
    uint8_t key[TD_LACK_KEY_BYTES];
    tandem_slice body;
    tandem_err err;

    out->last = last;
    memcpy(out->hash, hash, TANDEM_HASH_BYTES);
    td_lack_key(key, id, origin, out);
    err = td_record_get(txn, TD_TABLE_LACKS, tandem_slice_of(key, sizeof(key)), &body);
    return err == TANDEM_OK ? lack_body(tandem_slice_of(key, sizeof(key)), body, out) : err;
}

tandem_err td_lack_put(td_txn *txn, uint32_t id, const uint8_t *origin, const td_lack *lack,
                       tandem_writer *scratch)
{
    uint8_t key[TD_LACK_KEY_BYTES];
    uint8_t body[LACK_BYTES];

    td_lack_key(key, id, origin, lack);
    td_put_u64(body, lack->first);
    td_put_u32(body + 8, (uint32_t)lack->reason);
    body[12] = lack->followed;
    memcpy(body + 13, lack->predecessor, TANDEM_HASH_BYTES);
    return td_record_put(txn, TD_TABLE_LACKS, tandem_slice_of(key, sizeof(key)),
                         tandem_slice_of(body, sizeof(body)), scratch);
}

tandem_err td_lack_del(td_txn *txn, uint32_t id, const uint8_t *origin, const td_lack *lack)
{
    uint8_t key[TD_LACK_KEY_BYTES];

    td_lack_key(key, id, origin, lack);
    return td_txn_del(txn, TD_TABLE_LACKS, tandem_slice_of(key, sizeof(key)));
}

tandem_err td_lacks_each(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t last,
                         td_visit_lack visit, void *context)
{
    static const uint8_t lowest[TANDEM_ORIGIN_BYTES];
    uint8_t start[TD_VECTOR_KEY_BYTES + 8];
    size_t prefix = origin ? TD_VECTOR_KEY_BYTES : TD_ID_BYTES;
    tandem_slice key, value;
    td_cursor *cursor;
    tandem_err err;

    if ((err = td_txn_cursor(txn, TD_TABLE_LACKS, &cursor)) != TANDEM_OK)
        return err;
    td_vector_key(start, id, origin ? origin : lowest);
    td_put_u64(start + TD_VECTOR_KEY_BYTES, origin ? last : 0);
    err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    while (err == TANDEM_OK && key.size >= prefix && !memcmp(key.bytes, start, prefix)) {
        td_lack lack;

        if ((err = td_lack_decode(key, value, &lack)) != TANDEM_OK ||
            (err = visit(context, key.bytes + TD_ID_BYTES, &lack)) != TANDEM_OK)
            goto out;
        err = td_cursor_next(cursor, &key, &value);
    }
    if (err == TANDEM_END)
        err = TANDEM_OK;

out:
    td_cursor_free(cursor);
    return err;
}

/* ---- Operations ---- */

void td_operation_key(uint8_t out[TD_OPERATION_KEY_BYTES], uint32_t id, uint64_t ordinal)
{
    td_put_u32(out, id);
    td_put_u64(out + TD_ID_BYTES, ordinal);
}

tandem_err td_operation_open(tandem_slice key, tandem_slice value, td_operation *out)
{
    tandem_slice body;
    tandem_err err = td_record_open(TD_TABLE_OPERATIONS, key, value, &body);

    if (err != TANDEM_OK)
        return err;
    if (key.size != TD_OPERATION_KEY_BYTES || body.size < TANDEM_HASH_BYTES)
        return TANDEM_E_CORRUPT;
    memcpy(out->hash, body.bytes, TANDEM_HASH_BYTES);
    out->canonical =
        tandem_slice_of(body.bytes + TANDEM_HASH_BYTES, body.size - TANDEM_HASH_BYTES);
    return TANDEM_OK;
}

tandem_err td_operation_decode(tandem_slice key, tandem_slice value, td_operation *out)
{
    tandem_err err = td_operation_open(key, value, out);

    if (err != TANDEM_OK)
        return err;
    return td_operation_parse(out->canonical, out) == TANDEM_OK ? TANDEM_OK : TANDEM_E_CORRUPT;
}

tandem_err td_operation_put(td_txn *txn, uint32_t id, uint64_t ordinal,
                            const td_operation *operation)
{
    tandem_slice canonical = operation->canonical, key;
    uint8_t key_bytes[TD_OPERATION_KEY_BYTES], *record, *body;
    tandem_err err;

    td_operation_key(key_bytes, id, ordinal);
    key = tandem_slice_of(key_bytes, sizeof(key_bytes));
    err = td_txn_reserve(txn, TD_TABLE_OPERATIONS, key, TD_OPERATION_RECORD_BYTES + canonical.size,
                         &record);
    if (err != TANDEM_OK)
        return err;
    body = record + TD_CHECKSUM_BYTES;
    memcpy(body, operation->hash, TANDEM_HASH_BYTES);
    memcpy(body + TANDEM_HASH_BYTES, canonical.bytes, canonical.size);
    td_put_u64(record, checksum(TD_TABLE_OPERATIONS, key,
                                tandem_slice_of(body, TANDEM_HASH_BYTES + canonical.size)));
    return TANDEM_OK;
}

bool td_key_has_id(tandem_slice key, uint32_t id)
{
    return key.size >= TD_ID_BYTES && td_get_u32(key.bytes) == id;
}

void td_operation_place(const td_operation *operation, uint8_t out[TANDEM_HASH_BYTES])
{
    uint8_t size[8];
    const tandem_slice parts[] = {tandem_slice_of(size, sizeof(size)), operation->document,
                                  operation->branch};

    td_put_u64(size, operation->document.size);
    td_hash(out, parts, 3);
}
