#include "store/op_read.h"

#include <sodium.h>

#include "store/op_pairs.h"

static tandem_err position_read(td_op_store *ops, td_position *out)
{
    td_txn *txn;
    tandem_err err;

    if ((err = td_store_begin_read(td_op_store_backend(ops), &txn)) != TANDEM_OK)
        return err;
    err = td_position_get(txn, out);
    td_txn_abort(txn);
    return err;
}

tandem_err td_op_store_last_ordinal(td_op_store *ops, uint64_t *out)
{
    td_position position;
    tandem_err err = position_read(ops, &position);

    if (err == TANDEM_OK)
        *out = position.ordinal;
    return err;
}

tandem_err td_op_store_clock(td_op_store *ops, uint64_t *hlc_out)
{
    td_position position;
    tandem_err err = position_read(ops, &position);

    if (err == TANDEM_OK)
        *hlc_out = position.hlc;
    return err;
}

/* What a loop of visits ended with, as the call's answer: running out of entries is no news. */
static tandem_err visited(tandem_err err, bool stopped)
{
    return err == TANDEM_END && !stopped ? TANDEM_OK : err;
}

tandem_err td_op_store_collections(td_op_store *ops, tandem_slice after, td_visit_collection visit,
                                   void *context)
{
    bool stopped = false;
    td_cursor *cursor = NULL;
    tandem_slice key, value;
    td_txn *txn;
    tandem_err err;

    if (after.size > TD_STORE_KEY_BYTES_MAX)
        return TANDEM_E_INVALID;
    if ((err = td_store_begin_read(td_op_store_backend(ops), &txn)) != TANDEM_OK)
        return err;
    if ((err = td_txn_cursor(txn, TD_TABLE_COLLECTIONS, &cursor)) != TANDEM_OK)
        goto out;
    err = td_cursor_seek(cursor, after, &key, &value);
    for (; err == TANDEM_OK; err = td_cursor_next(cursor, &key, &value)) {
        td_collection_info info = {.name = key};
        td_collection_record record;

        if (tandem_slice_equal(key, after))
            continue;
        if ((err = td_collection_decode(key, value, &record)) != TANDEM_OK)
            break;
        info.operations = record.operations;
        info.last_ordinal = record.last_ordinal;
        info.bytes = record.bytes;
        if ((err = visit(context, &info)) != TANDEM_OK) {
            stopped = true;
            break;
        }
    }
    err = visited(err, stopped);

out:
    td_cursor_free(cursor);
    td_txn_abort(txn);
    return err;
}

/* Begin a transaction and find a collection in it. TANDEM_E_NOT_FOUND: there is none, and no
 * transaction is left open. */
static tandem_err collection_begin(td_op_store *ops, tandem_slice name, td_txn **txn_out,
                                   td_collection_record *out)
{
    tandem_err err;

    if ((err = td_store_begin_read(td_op_store_backend(ops), txn_out)) != TANDEM_OK)
        return err;
    if ((err = td_collection_get(*txn_out, name, out)) != TANDEM_OK)
        td_txn_abort(*txn_out);
    return err;
}

tandem_err td_op_store_collection(td_op_store *ops, tandem_slice collection,
                                  td_collection_info *info)
{
    td_collection_record record;
    td_txn *txn;
    tandem_err err;

    *info = (td_collection_info){.name = collection};
    err = collection_begin(ops, collection, &txn, &record);
    if (err == TANDEM_E_NOT_FOUND)
        return TANDEM_OK;
    if (err != TANDEM_OK)
        return err;
    td_txn_abort(txn);
    info->operations = record.operations;
    info->last_ordinal = record.last_ordinal;
    info->bytes = record.bytes;
    return TANDEM_OK;
}

tandem_err td_op_store_heads(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                             td_head *heads, unsigned *count_out)
{
    td_collection_record record;
    td_vector_record vector = {.count = 0};
    td_txn *txn;
    tandem_err err = collection_begin(ops, collection, &txn, &record);

    if (err == TANDEM_OK) {
        err = td_vector_get(txn, record.id, origin, &vector);
        td_txn_abort(txn);
    }
    if (err != TANDEM_OK && err != TANDEM_E_NOT_FOUND)
        return err;
    memcpy(heads, vector.heads, vector.count * sizeof(heads[0]));
    *count_out = vector.count;
    return TANDEM_OK;
}

/* The origins > after_origin (NULL: all) of a collection, or those of them that have gaps. */
static tandem_err vectors_each(td_op_store *ops, tandem_slice collection,
                               const uint8_t *after_origin, bool gapped, td_visit_vector visit,
                               void *context)
{
    static const uint8_t lowest[TANDEM_ORIGIN_BYTES];
    uint8_t start[TD_VECTOR_KEY_BYTES];
    bool stopped = false;
    td_collection_record record;
    td_cursor *cursor = NULL;
    tandem_slice key, value;
    td_txn *txn;
    tandem_err err;

    if ((err = collection_begin(ops, collection, &txn, &record)) != TANDEM_OK)
        return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
    if ((err = td_txn_cursor(txn, TD_TABLE_VECTORS, &cursor)) != TANDEM_OK)
        goto out;
    td_vector_key(start, record.id, after_origin ? after_origin : lowest);
    err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    for (; err == TANDEM_OK; err = td_cursor_next(cursor, &key, &value)) {
        td_vector_record vector;
        const uint8_t *origin = key.bytes + TD_ID_BYTES;

        if (!td_key_has_id(key, record.id))
            break;
        if ((err = td_vector_decode(key, value, &vector)) != TANDEM_OK)
            break;
        if ((gapped && !vector.gaps) ||
            (after_origin && memcmp(origin, after_origin, TANDEM_ORIGIN_BYTES) == 0))
            continue;
        if ((err = visit(context, origin, vector.heads, vector.count)) != TANDEM_OK) {
            stopped = true;
            break;
        }
    }
    err = visited(err, stopped);

out:
    td_cursor_free(cursor);
    td_txn_abort(txn);
    return err;
}

tandem_err td_op_store_vector(td_op_store *ops, tandem_slice collection,
                              const uint8_t *after_origin, td_visit_vector visit, void *context)
{
    return vectors_each(ops, collection, after_origin, false, visit, context);
}

tandem_err td_op_store_gapped(td_op_store *ops, tandem_slice collection, td_visit_vector visit,
                              void *context)
{
    return vectors_each(ops, collection, NULL, true, visit, context);
}

tandem_err td_op_store_next_run(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                                td_run *run)
{
    td_collection_record record;
    td_txn *txn;
    tandem_err err;

    if ((err = collection_begin(ops, collection, &txn, &record)) != TANDEM_OK)
        return err == TANDEM_E_NOT_FOUND ? TANDEM_END : err;
    err = td_run_next(txn, record.id, origin, run);
    td_txn_abort(txn);
    return err;
}

/* ---- Pairs ---- */

tandem_err td_op_store_pairs(td_op_store *ops, tandem_slice collection,
                             tandem_err (*visit)(void *context, tandem_slice filter,
                                                 uint64_t ordinal),
                             void *context)
{
    td_collection_record record;
    td_txn *txn;
    tandem_err err;

    if ((err = collection_begin(ops, collection, &txn, &record)) != TANDEM_OK)
        return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
    err = td_pairs_each(txn, record.id, visit, context);
    td_txn_abort(txn);
    return err;
}

static tandem_err note_pair(void *context, tandem_slice filter, uint64_t ordinal)
{
    (void)filter;
    (void)ordinal;
    *(bool *)context = true;
    return TANDEM_END;
}

tandem_err td_op_store_in_part(td_op_store *ops, tandem_slice collection, bool *out)
{
    tandem_err err;

    *out = false;
    err = td_op_store_pairs(ops, collection, note_pair, out);
    return err == TANDEM_END ? TANDEM_OK : err;
}

tandem_err td_op_store_pair_heads(td_op_store *ops, tandem_slice collection, tandem_slice filter,
                                  const uint8_t *origin, td_head *heads, unsigned *count_out)
{
    td_collection_record record;
    td_txn *txn;
    tandem_err err;

    *count_out = 0;
    if ((err = collection_begin(ops, collection, &txn, &record)) != TANDEM_OK)
        return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
    err = td_pair_get(txn, record.id, filter, origin, heads, count_out);
    td_txn_abort(txn);
    return err;
}

tandem_err td_op_store_pair_vector(td_op_store *ops, tandem_slice collection, tandem_slice filter,
                                   const uint8_t *after_origin, td_visit_vector visit,
                                   void *context)
{
    td_collection_record record;
    td_txn *txn;
    tandem_err err;

    if ((err = collection_begin(ops, collection, &txn, &record)) != TANDEM_OK)
        return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
    err = td_pair_vector(txn, record.id, filter, after_origin, visit, context);
    td_txn_abort(txn);
    return err;
}

tandem_err td_op_store_has_gaps(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                                bool *out)
{
    td_collection_record record;
    td_vector_record vector = {.gaps = false};
    td_txn *txn;
    tandem_err err = collection_begin(ops, collection, &txn, &record);

    if (err == TANDEM_OK) {
        err = td_vector_get(txn, record.id, origin, &vector);
        td_txn_abort(txn);
    }
    *out = vector.gaps;
    return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
}

struct digesting {
    crypto_generichash_state *state;
    uint64_t origins;
};

static tandem_err digest_origin(void *context, const uint8_t *origin, const td_head *heads,
                                unsigned count)
{
    struct digesting *digesting = context;
    crypto_generichash_state *state = digesting->state;

    digesting->origins++;
    for (unsigned i = 0; i < count; i++) {
        uint8_t seq[8];

        td_put_u64(seq, heads[i].seq);
        crypto_generichash_update(state, origin, TANDEM_ORIGIN_BYTES);
        crypto_generichash_update(state, seq, sizeof(seq));
        crypto_generichash_update(state, heads[i].hash, TANDEM_HASH_BYTES);
    }
    return TANDEM_OK;
}

static tandem_err digest_lack(void *context, const uint8_t *origin, const td_lack *lack)
{
    struct digesting *digesting = context;
    crypto_generichash_state *state = digesting->state;
    uint8_t range[16];

    td_put_u64(range, lack->first);
    td_put_u64(range + 8, lack->last);
    crypto_generichash_update(state, origin, TANDEM_ORIGIN_BYTES);
    crypto_generichash_update(state, range, sizeof(range));
    crypto_generichash_update(state, lack->hash, TANDEM_HASH_BYTES);
    return TANDEM_OK;
}

tandem_err td_op_store_lacks(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                             td_visit_lack visit, void *context)
{
    td_collection_record record;
    td_txn *txn;
    tandem_err err;

    if (!td_op_store_lack_count(ops))
        return TANDEM_OK;
    if ((err = collection_begin(ops, collection, &txn, &record)) != TANDEM_OK)
        return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
    err = td_lacks_each(txn, record.id, origin, 0, visit, context);
    td_txn_abort(txn);
    return err;
}

struct lacks_of {
    tandem_slice collection;
    td_visit_lack_of visit;
    void *context;
};

static tandem_err visit_lack_of(void *context, const uint8_t *origin, const td_lack *lack)
{
    const struct lacks_of *of = context;

    return of->visit(of->context, of->collection, origin, lack);
}

tandem_err td_op_store_all_lacks(td_op_store *ops, uint64_t *ordinal_out, td_visit_lack_of visit,
                                 void *context)
{
    struct lacks_of of = {.visit = visit, .context = context};
    tandem_slice value;
    td_cursor *cursor = NULL;
    td_position position;
    td_txn *txn;
    tandem_err err;

    if ((err = td_store_begin_read(td_op_store_backend(ops), &txn)) != TANDEM_OK)
        return err;
    if ((err = td_position_get(txn, &position)) != TANDEM_OK ||
        (err = td_txn_cursor(txn, TD_TABLE_COLLECTIONS, &cursor)) != TANDEM_OK)
        goto out;
    *ordinal_out = position.ordinal;
    err = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &of.collection, &value);
    for (; err == TANDEM_OK; err = td_cursor_next(cursor, &of.collection, &value)) {
        td_collection_record record;

        if ((err = td_collection_decode(of.collection, value, &record)) != TANDEM_OK ||
            (err = td_lacks_each(txn, record.id, NULL, 0, visit_lack_of, &of)) != TANDEM_OK)
            goto out;
    }
    err = err == TANDEM_END ? TANDEM_OK : err;

out:
    td_cursor_free(cursor);
    td_txn_abort(txn);
    return err;
}

tandem_err td_op_store_vector_summary(td_op_store *ops, tandem_slice collection,
                                      uint8_t digest_out[TANDEM_HASH_BYTES], uint64_t *origins_out)
{
    crypto_generichash_state state;
    struct digesting digesting = {&state, 0};
    tandem_err err;

    crypto_generichash_init(&state, NULL, 0, TANDEM_HASH_BYTES);
    err = td_op_store_vector(ops, collection, NULL, digest_origin, &digesting);
    if (err == TANDEM_OK)
        err = td_op_store_lacks(ops, collection, NULL, digest_lack, &digesting);
    if (err != TANDEM_OK)
        return err;
    crypto_generichash_final(&state, digest_out, TANDEM_HASH_BYTES);
    *origins_out = digesting.origins;
    return TANDEM_OK;
}

tandem_err td_op_store_vector_digest(td_op_store *ops, tandem_slice collection,
                                     uint8_t out[TANDEM_HASH_BYTES])
{
    uint64_t origins;

    return td_op_store_vector_summary(ops, collection, out, &origins);
}

static tandem_err decode(tandem_slice collection, tandem_slice key, tandem_slice value,
                         td_operation *out)
{
    tandem_err err = td_operation_decode(key, value, out);

    return err == TANDEM_OK && !tandem_slice_equal(out->collection, collection) ? TANDEM_E_CORRUPT
                                                                                : err;
}

/* parsed: not only canonical bytes and hashes. */
static tandem_err scan(td_op_store *ops, tandem_slice collection, uint64_t after, bool parsed,
                       td_visit_operation visit, void *context)
{
    uint8_t start[TD_OPERATION_KEY_BYTES];
    bool stopped = false;
    td_collection_record record;
    td_cursor *cursor = NULL;
    tandem_slice key, value;
    td_txn *txn;
    tandem_err err;

    if (after == UINT64_MAX)
        return TANDEM_OK;
    if ((err = collection_begin(ops, collection, &txn, &record)) != TANDEM_OK)
        return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
    if ((err = td_txn_cursor(txn, TD_TABLE_OPERATIONS, &cursor)) != TANDEM_OK)
        goto out;
    td_operation_key(start, record.id, after + 1);
    err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    for (; err == TANDEM_OK; err = td_cursor_next(cursor, &key, &value)) {
        td_operation operation;
        uint64_t ordinal;

        if (!td_key_has_id(key, record.id))
            break;
        ordinal = key.size == TD_OPERATION_KEY_BYTES ? td_get_u64(key.bytes + TD_ID_BYTES) : 0;
        err = parsed ? decode(collection, key, value, &operation)
                     : td_operation_open(key, value, &operation);
        err = visit(context, err, ordinal, err == TANDEM_OK ? &operation : NULL);
        if (err != TANDEM_OK) {
            stopped = true;
            break;
        }
    }
    err = visited(err, stopped);

out:
    td_cursor_free(cursor);
    td_txn_abort(txn);
    return err;
}

tandem_err td_op_store_scan(td_op_store *ops, tandem_slice collection, uint64_t after,
                            td_visit_operation visit, void *context)
{
    return scan(ops, collection, after, true, visit, context);
}

tandem_err td_op_store_scan_bytes(td_op_store *ops, tandem_slice collection, uint64_t after,
                                  td_visit_operation visit, void *context)
{
    return scan(ops, collection, after, false, visit, context);
}

tandem_err td_op_find_held(td_txn *txn, uint32_t id, const uint8_t *origin,
                           const td_vector_record *vector, uint64_t seq, const uint8_t *hash,
                           const td_run *open, unsigned open_count, td_found *out)
{
    if (seq < 1 || (!vector->gaps && (vector->count == 0 ||
                                      seq > vector->heads[vector->count - 1].seq)))
        return TANDEM_E_NOT_FOUND;
    return td_op_find(txn, id, origin, seq, hash, vector->count > 1 || vector->branched, open,
                      open_count, out);
}

/* Look for an operation among what is committed; TANDEM_E_NOT_FOUND. */
static tandem_err find_committed(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                                 uint64_t seq, const uint8_t *hash, td_found *out)
{
    td_collection_record record;
    td_vector_record vector;
    td_txn *txn;
    tandem_err err;

    if ((err = collection_begin(ops, collection, &txn, &record)) != TANDEM_OK)
        return err;
    err = td_vector_get(txn, record.id, origin, &vector);
    if (err == TANDEM_OK)
        err = td_op_find_held(txn, record.id, origin, &vector, seq, hash, NULL, 0, out);
    td_txn_abort(txn);
    return err;
}

/* Chains without gaps: the first with a seq >= seq is one that has it. */
static tandem_err locate(td_txn *txn, uint32_t id, const uint8_t *origin,
                         const td_vector_record *vector, uint64_t seq, uint64_t *ordinal_out)
{
    td_found found;
    tandem_err err;

    if (vector->gaps)
        return td_op_find_from(txn, id, origin, seq, ordinal_out);
    err = td_op_find_held(txn, id, origin, vector, seq, NULL, NULL, 0, &found);
    if (err == TANDEM_OK)
        *ordinal_out = found.ordinal;
    return err;
}

tandem_err td_op_store_locate(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                              uint64_t seq, uint64_t *ordinal_out)
{
    td_collection_record record;
    td_vector_record vector;
    td_txn *txn;
    tandem_err err;

    if ((err = collection_begin(ops, collection, &txn, &record)) != TANDEM_OK)
        return err;
    if ((err = td_vector_get(txn, record.id, origin, &vector)) == TANDEM_OK)
        err = locate(txn, record.id, origin, &vector, seq ? seq : 1, ordinal_out);
    td_txn_abort(txn);
    return err;
}

struct before_lacks {
    uint64_t seq;
    bool moved;
};

static tandem_err go_before(void *context, const uint8_t *origin, const td_lack *lack)
{
    struct before_lacks *before = context;

    (void)origin;
    if (lack->first > before->seq || before->seq > lack->last)
        return TANDEM_OK;
    before->seq = lack->first - 1;
    before->moved = true;
    return TANDEM_OK;
}

/* The last seq up to this one that is not lacking. */
static tandem_err held_up_to(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t *seq)
{
    struct before_lacks before = {.seq = *seq, .moved = true};
    tandem_err err = TANDEM_OK;

    while (err == TANDEM_OK && before.moved) {
        before.moved = false;
        err = td_lacks_each(txn, id, origin, 0, go_before, &before);
    }
    *seq = before.seq;
    return err;
}

/* Ordinals grow with seqs, but where lacks were filled: what lies behind is found by halving. */
static tandem_err reached(td_txn *txn, uint32_t id, const uint8_t *origin,
                          const td_vector_record *vector, uint64_t ordinal, uint64_t *seq_out)
{
    uint64_t low = 1, high = vector->count ? vector->heads[vector->count - 1].seq + 1 : 1, found;
    tandem_err err;

    if (vector->gaps) {
        err = td_op_find_later(txn, id, origin, ordinal, &found);
        if (err != TANDEM_OK && err != TANDEM_E_NOT_FOUND)
            return err;
        if (err == TANDEM_E_NOT_FOUND || found > high)
            found = high; /* what is loose lies behind no head */
        *seq_out = found - 1;
        return held_up_to(txn, id, origin, seq_out);
    }
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if ((err = locate(txn, id, origin, vector, middle, &found)) != TANDEM_OK)
            return err;
        if (found > ordinal)
            high = middle;
        else
            low = middle + 1;
    }
    *seq_out = low - 1;
    return TANDEM_OK;
}

tandem_err td_op_store_reached(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                               uint64_t ordinal, uint64_t *seq_out)
{
    td_collection_record record;
    td_vector_record vector;
    td_txn *txn;
    tandem_err err;

    *seq_out = 0;
    if ((err = collection_begin(ops, collection, &txn, &record)) != TANDEM_OK)
        return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
    if ((err = td_vector_get(txn, record.id, origin, &vector)) == TANDEM_OK && vector.count)
        err = reached(txn, record.id, origin, &vector, ordinal, seq_out);
    td_txn_abort(txn);
    return err;
}

tandem_err td_op_store_at(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                          uint64_t seq, uint64_t *ordinal_out)
{
    td_found found;
    tandem_err err = find_committed(ops, collection, origin, seq, NULL, &found);

    if (err == TANDEM_OK)
        *ordinal_out = found.ordinal;
    return err;
}

tandem_err td_op_store_find(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                            uint64_t seq, const uint8_t hash[TANDEM_HASH_BYTES],
                            uint64_t *ordinal_out)
{
    td_found found;
    tandem_err err = find_committed(ops, collection, origin, seq, hash, &found);

    if (err == TANDEM_OK)
        *ordinal_out = found.ordinal;
    return err;
}

tandem_err td_op_store_holds(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                             uint64_t seq, const uint8_t hash[TANDEM_HASH_BYTES], bool *out)
{
    td_found found;
    tandem_err err = find_committed(ops, collection, origin, seq, hash, &found);

    *out = err == TANDEM_OK;
    return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
}

tandem_err td_op_store_reaches(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                               uint64_t seq, const uint8_t hash[TANDEM_HASH_BYTES], bool *out)
{
    td_found found;
    tandem_err err = find_committed(ops, collection, origin, seq, hash, &found);

    *out = err == TANDEM_OK && !found.loose;
    return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
}
