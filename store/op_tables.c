#include "store/op_tables.h"

#include <assert.h>
#include <sodium.h>
#include <xxhash.h>

enum {
    VECTOR_VERSION = 1,
    HEAD_BYTES = 8 + TANDEM_HASH_BYTES,
    VECTOR_FIXED_BYTES = 1 + 8 + 1 + 2, /* version, floor, count, length of the signature */
    VECTOR_BYTES_MAX = VECTOR_FIXED_BYTES + TANDEM_HEADS_MAX * HEAD_BYTES,
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
static tandem_err put_sealed(td_txn *txn, unsigned table, tandem_slice key, tandem_writer *scratch)
{
    tandem_slice body;

    if (scratch->err != TANDEM_OK)
        return scratch->err;
    body = tandem_slice_of(scratch->bytes + TD_CHECKSUM_BYTES, scratch->size - TD_CHECKSUM_BYTES);
    td_put_u64(scratch->bytes, checksum(table, key, body));
    return td_txn_put(txn, table, key, tandem_writer_slice(scratch));
}

static void begin_record(tandem_writer *scratch)
{
    static const uint8_t spare[TD_CHECKSUM_BYTES];

    tandem_writer_clear(scratch);
    tandem_write_raw(scratch, tandem_slice_of(spare, sizeof(spare)));
}

tandem_err td_record_put(td_txn *txn, unsigned table, tandem_slice key, tandem_slice body,
                         tandem_writer *scratch)
{
    begin_record(scratch);
    tandem_write_raw(scratch, body);
    return put_sealed(txn, table, key, scratch);
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
        body.size != VECTOR_FIXED_BYTES + out->count * (size_t)HEAD_BYTES)
        return TANDEM_E_CORRUPT;
    at += 10;
    for (unsigned i = 0; i < out->count; i++, at += HEAD_BYTES) {
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
        at += HEAD_BYTES;
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

tandem_err td_operation_decode(tandem_slice key, tandem_slice value, td_operation *out)
{
    tandem_slice body;
    tandem_err err = td_record_open(TD_TABLE_OPERATIONS, key, value, &body);

    if (err != TANDEM_OK)
        return err;
    if (key.size != TD_OPERATION_KEY_BYTES || body.size < TANDEM_HASH_BYTES)
        return TANDEM_E_CORRUPT;
    memcpy(out->hash, body.bytes, TANDEM_HASH_BYTES);
    body = tandem_slice_of(body.bytes + TANDEM_HASH_BYTES, body.size - TANDEM_HASH_BYTES);
    return td_operation_parse(body, out) == TANDEM_OK ? TANDEM_OK : TANDEM_E_CORRUPT;
}

tandem_err td_operation_put(td_txn *txn, uint32_t id, uint64_t ordinal,
                            const td_operation *operation, tandem_writer *scratch)
{
    uint8_t key[TD_OPERATION_KEY_BYTES];

    td_operation_key(key, id, ordinal);
    begin_record(scratch);
    tandem_write_raw(scratch, tandem_slice_of(operation->hash, TANDEM_HASH_BYTES));
    tandem_write_raw(scratch, operation->canonical);
    return put_sealed(txn, TD_TABLE_OPERATIONS, tandem_slice_of(key, sizeof(key)), scratch);
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

/* ---- Search ---- */

/*
 * Look through one run for its operation at seq.
 *
 * The run's operations are told from a fork's, which may stand between them, by following the
 * chain. A record that cannot be read may have been one of them: then the next one of the origin is
 * taken to go on with the run, and if that lies beyond seq, the one sought is the damaged one.
 */
static tandem_err find_in_run(td_txn *txn, uint32_t id, const uint8_t *origin, const td_run *run,
                              uint64_t seq, const uint8_t *hash, td_found *out)
{
    uint8_t start[TD_OPERATION_KEY_BYTES];
    uint8_t reached_hash[TANDEM_HASH_BYTES];
    uint64_t reached = run->first - 1;
    bool lost = true; /* the first one's predecessor is not known here */
    td_cursor *cursor;
    tandem_slice key, value;
    tandem_err err;

    if ((err = td_txn_cursor(txn, TD_TABLE_OPERATIONS, &cursor)) != TANDEM_OK)
        return err;
    td_operation_key(start, id, run->ordinal);
    err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    for (; err == TANDEM_OK; err = td_cursor_next(cursor, &key, &value)) {
        td_operation op;

        if (!td_key_has_id(key, id))
            break;
        if (td_operation_decode(key, value, &op) != TANDEM_OK) {
            lost = true;
            continue;
        }
        if (memcmp(op.origin, origin, TANDEM_ORIGIN_BYTES) || op.seq <= reached ||
            op.seq > run->last)
            continue;
        if (!lost && (op.seq != reached + 1 ||
                      memcmp(op.predecessor, reached_hash, TANDEM_HASH_BYTES)))
            continue;
        if (op.seq > seq)
            break;
        lost = false;
        reached = op.seq;
        memcpy(reached_hash, op.hash, TANDEM_HASH_BYTES);
        if (reached < seq)
            continue;
        err = TANDEM_E_NOT_FOUND;
        if (!hash || memcmp(hash, op.hash, TANDEM_HASH_BYTES) == 0) {
            out->ordinal = td_get_u64(key.bytes + TD_ID_BYTES);
            out->flags = op.flags;
            out->loose = run->loose;
            td_operation_place(&op, out->place);
            err = TANDEM_OK;
        }
        td_cursor_free(cursor);
        return err;
    }
    td_cursor_free(cursor);
    return err == TANDEM_OK || err == TANDEM_END ? TANDEM_E_CORRUPT : err;
}

struct search {
    td_txn *txn;
    uint32_t id;
    const uint8_t *origin;
    uint64_t seq;
    const uint8_t *hash;
    td_found *best;
    bool found;
    bool corrupt;
};

/* TANDEM_END once nothing better can come. */
static tandem_err search_run(struct search *s, const td_run *run)
{
    td_found found;
    tandem_err err;

    if (run->first > s->seq || run->last < s->seq)
        return TANDEM_OK;
    err = find_in_run(s->txn, s->id, s->origin, run, s->seq, s->hash, &found);
    if (err == TANDEM_OK) {
        if (!s->found || found.ordinal < s->best->ordinal)
            *s->best = found;
        s->found = true;
        return s->hash ? TANDEM_END : TANDEM_OK;
    }
    if (err == TANDEM_E_CORRUPT)
        s->corrupt = true;
    return err == TANDEM_E_CORRUPT || err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
}

static bool run_of(tandem_slice key, uint32_t id, const uint8_t *origin)
{
    return key.size == TD_RUN_KEY_BYTES && td_key_has_id(key, id) &&
           memcmp(key.bytes + TD_ID_BYTES, origin, TANDEM_ORIGIN_BYTES) == 0;
}

/* Runs that the groups table holds: the last that begins at or before seq, or all of those. */
static tandem_err search_table(struct search *s, bool forked)
{
    uint8_t start[TD_RUN_KEY_BYTES];
    tandem_slice key, value;
    td_cursor *cursor;
    td_run run;
    tandem_err err;

    if ((err = td_txn_cursor(s->txn, TD_TABLE_GROUPS, &cursor)) != TANDEM_OK)
        return err;
    /* No ordinal is as large as that: the key lies behind all that begin at seq. */
    td_run_key(start, s->id, s->origin, forked ? 0 : s->seq, forked ? 0 : UINT64_MAX);
    err = forked ? td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value)
                 : td_cursor_seek_before(cursor, tandem_slice_of(start, sizeof(start)), &key,
                                         &value);
    while (err == TANDEM_OK && run_of(key, s->id, s->origin)) {
        if (td_run_decode(key, value, &run) != TANDEM_OK) {
            s->corrupt = true;
        } else {
            if (run.first > s->seq)
                break;
            if ((err = search_run(s, &run)) != TANDEM_OK)
                break;
        }
        if (!forked)
            break;
        err = td_cursor_next(cursor, &key, &value);
    }
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}

tandem_err td_op_find(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t seq,
                      const uint8_t *hash, bool forked, const td_run *open, unsigned open_count,
                      td_found *out)
{
    struct search s = {
        .txn = txn, .id = id, .origin = origin, .seq = seq, .hash = hash, .best = out};
    tandem_err err;

    if ((err = search_table(&s, forked)) != TANDEM_OK)
        return err;
    for (unsigned i = 0; i < open_count; i++) {
        err = search_run(&s, &open[i]);
        if (err != TANDEM_OK && err != TANDEM_END)
            return err;
    }
    if (s.found)
        return TANDEM_OK;
    return s.corrupt ? TANDEM_E_CORRUPT : TANDEM_E_NOT_FOUND;
}

tandem_err td_run_next(td_txn *txn, uint32_t id, const uint8_t *origin, td_run *run)
{
    uint8_t start[TD_RUN_KEY_BYTES];
    tandem_slice key, value;
    td_cursor *cursor;
    tandem_err err;

    if ((err = td_txn_cursor(txn, TD_TABLE_GROUPS, &cursor)) != TANDEM_OK)
        return err;
    td_run_key(start, id, origin, run->first, run->ordinal + 1);
    err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    if (err == TANDEM_OK)
        err = run_of(key, id, origin) ? td_run_decode(key, value, run) : TANDEM_END;
    td_cursor_free(cursor);
    return err;
}

static tandem_err operation_at(td_txn *txn, uint32_t id, uint64_t ordinal, td_operation *out)
{
    uint8_t key[TD_OPERATION_KEY_BYTES];
    tandem_slice value;
    tandem_err err;

    td_operation_key(key, id, ordinal);
    err = td_txn_get(txn, TD_TABLE_OPERATIONS, tandem_slice_of(key, sizeof(key)), &value);
    if (err == TANDEM_OK)
        err = td_operation_decode(tandem_slice_of(key, sizeof(key)), value, out);
    return err == TANDEM_E_NOT_FOUND ? TANDEM_E_CORRUPT : err;
}

tandem_err td_run_ends(td_txn *txn, uint32_t id, const uint8_t *origin, const td_run *run,
                       td_operation *first_out, td_operation *last_out)
{
    td_found found;
    tandem_err err;

    if ((err = operation_at(txn, id, run->ordinal, first_out)) == TANDEM_OK &&
        (err = find_in_run(txn, id, origin, run, run->last, NULL, &found)) == TANDEM_OK)
        err = operation_at(txn, id, found.ordinal, last_out);
    return err;
}

/* Call visit for all runs of an origin, in order of their first seqs. */
static tandem_err runs_each(td_txn *txn, uint32_t id, const uint8_t *origin,
                            tandem_err (*visit)(void *context, const td_run *run), void *context)
{
    uint8_t start[TD_RUN_KEY_BYTES];
    tandem_slice key, value;
    td_cursor *cursor;
    td_run run;
    tandem_err err;

    if ((err = td_txn_cursor(txn, TD_TABLE_GROUPS, &cursor)) != TANDEM_OK)
        return err;
    td_run_key(start, id, origin, 0, 0);
    err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    while (err == TANDEM_OK && run_of(key, id, origin)) {
        if ((err = td_run_decode(key, value, &run)) == TANDEM_OK &&
            (err = visit(context, &run)) == TANDEM_OK)
            err = td_cursor_next(cursor, &key, &value);
    }
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}

struct from_search {
    td_txn *txn;
    uint32_t id;
    const uint8_t *origin;
    uint64_t seq;
    uint64_t best; /* 0: none */
};

static tandem_err search_from(void *context, const td_run *run)
{
    struct from_search *s = context;
    td_found found = {.ordinal = run->ordinal};
    tandem_err err;

    if (run->last < s->seq)
        return TANDEM_OK;
    if (run->first < s->seq && (err = find_in_run(s->txn, s->id, s->origin, run, s->seq, NULL,
                                                  &found)) != TANDEM_OK)
        return err;
    if (!s->best || found.ordinal < s->best)
        s->best = found.ordinal;
    return TANDEM_OK;
}

tandem_err td_op_find_from(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t seq,
                           uint64_t *ordinal_out)
{
    struct from_search s = {txn, id, origin, seq, 0};
    tandem_err err = runs_each(txn, id, origin, search_from, &s);

    *ordinal_out = s.best;
    return err == TANDEM_OK && !s.best ? TANDEM_E_NOT_FOUND : err;
}

struct later_search {
    uint64_t ordinal;
    uint64_t seq; /* 0: none */
};

/* What a run names was committed at once, so it lies behind an ordinal whole or not at all. */
static tandem_err search_later(void *context, const td_run *run)
{
    struct later_search *s = context;

    if (run->ordinal > s->ordinal && (!s->seq || run->first < s->seq))
        s->seq = run->first;
    return TANDEM_OK;
}

tandem_err td_op_find_later(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t ordinal,
                            uint64_t *seq_out)
{
    struct later_search s = {ordinal, 0};
    tandem_err err = runs_each(txn, id, origin, search_later, &s);

    *seq_out = s.seq;
    return err == TANDEM_OK && !s.seq ? TANDEM_E_NOT_FOUND : err;
}

tandem_err td_op_overlaps(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t first,
                          uint64_t last, const td_run *open, unsigned open_count, bool *out)
{
    uint8_t end[TD_RUN_KEY_BYTES];
    tandem_slice key, value;
    td_cursor *cursor;
    td_run run;
    tandem_err err;

    *out = false;
    for (unsigned i = 0; i < open_count; i++)
        if (open[i].first <= last && open[i].last >= first)
            *out = true;
    if (*out)
        return TANDEM_OK;
    if ((err = td_txn_cursor(txn, TD_TABLE_GROUPS, &cursor)) != TANDEM_OK)
        return err;
    td_run_key(end, id, origin, last, UINT64_MAX);
    err = td_cursor_seek_before(cursor, tandem_slice_of(end, sizeof(end)), &key, &value);
    if (err == TANDEM_OK && run_of(key, id, origin) &&
        (err = td_run_decode(key, value, &run)) == TANDEM_OK)
        *out = run.last >= first;
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}

/* ---- Pairs ---- */

void td_pair_id(tandem_slice filter, uint8_t out[TD_PAIR_ID_BYTES])
{
    uint8_t hash[TANDEM_HASH_BYTES];

    td_hash(hash, &filter, 1);
    memcpy(out, hash, TD_PAIR_ID_BYTES);
}

static void pair_key(uint8_t out[TD_PAIR_VECTOR_KEY_BYTES], uint32_t id, tandem_slice filter,
                     const uint8_t *origin)
{
    td_put_u32(out, id);
    td_pair_id(filter, out + TD_ID_BYTES);
    if (origin)
        memcpy(out + TD_PAIR_KEY_BYTES, origin, TANDEM_ORIGIN_BYTES);
}

tandem_err td_pair_put(td_txn *txn, uint32_t id, tandem_slice filter, uint64_t ordinal,
                       tandem_writer *scratch)
{
    uint8_t key[TD_PAIR_VECTOR_KEY_BYTES];
    uint8_t at[8];

    pair_key(key, id, filter, NULL);
    td_put_u64(at, ordinal);
    begin_record(scratch);
    tandem_write_raw(scratch, tandem_slice_of(at, sizeof(at)));
    tandem_write_raw(scratch, filter);
    return put_sealed(txn, TD_TABLE_PAIRS, tandem_slice_of(key, TD_PAIR_KEY_BYTES), scratch);
}

tandem_err td_pairs_each(td_txn *txn, uint32_t id,
                         tandem_err (*visit)(void *context, tandem_slice filter, uint64_t ordinal),
                         void *context)
{
    uint8_t start[TD_ID_BYTES];
    tandem_slice key, value, body;
    td_cursor *cursor;
    tandem_err err;

    if ((err = td_txn_cursor(txn, TD_TABLE_PAIRS, &cursor)) != TANDEM_OK)
        return err;
    td_put_u32(start, id);
    err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    for (; err == TANDEM_OK && td_key_has_id(key, id); err = td_cursor_next(cursor, &key, &value)) {
        if (key.size != TD_PAIR_KEY_BYTES)
            continue;
        if ((err = td_record_open(TD_TABLE_PAIRS, key, value, &body)) != TANDEM_OK)
            goto out;
        if (body.size <= 8) {
            err = TANDEM_E_CORRUPT;
            goto out;
        }
        if ((err = visit(context, tandem_slice_of(body.bytes + 8, body.size - 8),
                         td_get_u64(body.bytes))) != TANDEM_OK)
            goto out;
    }
    if (err == TANDEM_END)
        err = TANDEM_OK;

out:
    td_cursor_free(cursor);
    return err;
}

static tandem_err pair_heads(tandem_slice body, td_head *heads, unsigned *count_out)
{
    unsigned count = body.size ? body.bytes[0] : 0;

    if (count < 1 || count > TANDEM_HEADS_MAX || body.size != 1 + count * (size_t)HEAD_BYTES)
        return TANDEM_E_CORRUPT;
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *at = body.bytes + 1 + i * (size_t)HEAD_BYTES;

        heads[i].seq = td_get_u64(at);
        memcpy(heads[i].hash, at + 8, TANDEM_HASH_BYTES);
    }
    *count_out = count;
    return TANDEM_OK;
}

tandem_err td_pair_get(td_txn *txn, uint32_t id, tandem_slice filter, const uint8_t *origin,
                       td_head *heads, unsigned *count_out)
{
    uint8_t key[TD_PAIR_VECTOR_KEY_BYTES];
    tandem_slice body;
    tandem_err err;

    *count_out = 0;
    pair_key(key, id, filter, origin);
    err = td_record_get(txn, TD_TABLE_PAIRS, tandem_slice_of(key, sizeof(key)), &body);
    if (err == TANDEM_E_NOT_FOUND)
        return TANDEM_OK;
    return err == TANDEM_OK ? pair_heads(body, heads, count_out) : err;
}

tandem_err td_pair_put_heads(td_txn *txn, uint32_t id, tandem_slice filter, const uint8_t *origin,
                             const td_head *heads, unsigned count, tandem_writer *scratch)
{
    uint8_t key[TD_PAIR_VECTOR_KEY_BYTES];
    uint8_t body[1 + TANDEM_HEADS_MAX * HEAD_BYTES];

    assert(count >= 1 && count <= TANDEM_HEADS_MAX);
    pair_key(key, id, filter, origin);
    body[0] = (uint8_t)count;
    for (unsigned i = 0; i < count; i++) {
        uint8_t *at = body + 1 + i * (size_t)HEAD_BYTES;

        td_put_u64(at, heads[i].seq);
        memcpy(at + 8, heads[i].hash, TANDEM_HASH_BYTES);
    }
    return td_record_put(txn, TD_TABLE_PAIRS, tandem_slice_of(key, sizeof(key)),
                         tandem_slice_of(body, 1 + count * (size_t)HEAD_BYTES), scratch);
}

tandem_err td_pair_vector(td_txn *txn, uint32_t id, tandem_slice filter, const uint8_t *after,
                          td_visit_vector visit, void *context)
{
    static const uint8_t lowest[TANDEM_ORIGIN_BYTES];
    uint8_t start[TD_PAIR_VECTOR_KEY_BYTES];
    tandem_slice key, value, body;
    td_head heads[TANDEM_HEADS_MAX];
    td_cursor *cursor;
    unsigned count;
    tandem_err err;

    if ((err = td_txn_cursor(txn, TD_TABLE_PAIRS, &cursor)) != TANDEM_OK)
        return err;
    pair_key(start, id, filter, after ? after : lowest);
    err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    for (; err == TANDEM_OK && key.size == TD_PAIR_VECTOR_KEY_BYTES &&
           !memcmp(key.bytes, start, TD_PAIR_KEY_BYTES);
         err = td_cursor_next(cursor, &key, &value)) {
        const uint8_t *origin = key.bytes + TD_PAIR_KEY_BYTES;

        if (after && !memcmp(origin, after, TANDEM_ORIGIN_BYTES))
            continue;
        if ((err = td_record_open(TD_TABLE_PAIRS, key, value, &body)) != TANDEM_OK ||
            (err = pair_heads(body, heads, &count)) != TANDEM_OK ||
            (err = visit(context, origin, heads, count)) != TANDEM_OK)
            goto out;
    }
    if (err == TANDEM_END)
        err = TANDEM_OK;

out:
    td_cursor_free(cursor);
    return err;
}

tandem_err td_pair_del(td_txn *txn, uint32_t id, tandem_slice filter)
{
    uint8_t start[TD_PAIR_VECTOR_KEY_BYTES], found[TD_PAIR_VECTOR_KEY_BYTES];
    tandem_slice key, value;
    td_cursor *cursor;
    tandem_err err;

    pair_key(start, id, filter, NULL);
    if ((err = td_txn_cursor(txn, TD_TABLE_PAIRS, &cursor)) != TANDEM_OK)
        return err;
    for (;;) { /* a delete, and the cursor has to seek again */
        size_t size;

        err = td_cursor_seek(cursor, tandem_slice_of(start, TD_PAIR_KEY_BYTES), &key, &value);
        if (err != TANDEM_OK || key.size > sizeof(found) || key.size < TD_PAIR_KEY_BYTES ||
            memcmp(key.bytes, start, TD_PAIR_KEY_BYTES) != 0)
            break;
        size = key.size;
        memcpy(found, key.bytes, size);
        if ((err = td_txn_del(txn, TD_TABLE_PAIRS, tandem_slice_of(found, size))) != TANDEM_OK)
            break;
    }
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}
