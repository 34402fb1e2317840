#include "store/op_pairs.h"

#include <assert.h>

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
    td_record_begin(scratch);
    tandem_write_raw(scratch, tandem_slice_of(at, sizeof(at)));
    tandem_write_raw(scratch, filter);
    return td_record_seal(txn, TD_TABLE_PAIRS, tandem_slice_of(key, TD_PAIR_KEY_BYTES), scratch);
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

    if (count < 1 || count > TANDEM_HEADS_MAX || body.size != 1 + count * (size_t)TD_HEAD_BYTES)
        return TANDEM_E_CORRUPT;
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *at = body.bytes + 1 + i * (size_t)TD_HEAD_BYTES;

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
    uint8_t body[1 + TANDEM_HEADS_MAX * TD_HEAD_BYTES];

    assert(count >= 1 && count <= TANDEM_HEADS_MAX);
    pair_key(key, id, filter, origin);
    body[0] = (uint8_t)count;
    for (unsigned i = 0; i < count; i++) {
        uint8_t *at = body + 1 + i * (size_t)TD_HEAD_BYTES;

        td_put_u64(at, heads[i].seq);
        memcpy(at + 8, heads[i].hash, TANDEM_HASH_BYTES);
    }
    return td_record_put(txn, TD_TABLE_PAIRS, tandem_slice_of(key, sizeof(key)),
                         tandem_slice_of(body, 1 + count * (size_t)TD_HEAD_BYTES), scratch);
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
