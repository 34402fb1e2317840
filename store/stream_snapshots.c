/*
 * Snapshots of a stream: the newest that is whole, what is kept of many, what an operation before
 * them drops. A torn one is no failure of the index: it is passed over, and folded anew.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "store/probe.h"
#include "store/stream_state.h"

enum { SNAPSHOT_HEADER_BYTES = 8 + 4 };

/* Is this the key of a snapshot of the stream? */
static bool is_of(tandem_slice key, tandem_slice stream_key)
{
    return key.size == stream_key.size + 1 + sizeof(td_place) &&
           td_index_key_starts_with(key, stream_key) && key.bytes[stream_key.size] == 0;
}

static bool snapshot_decode(tandem_slice key, tandem_slice value, td_snapshot *out)
{
    if (td_index_unwrap(TD_INDEX_SNAPSHOTS, key, &value) != TANDEM_OK ||
        value.size < SNAPSHOT_HEADER_BYTES)
        return false;
    out->place = td_place_of_key(key);
    out->folded = td_get_u64(value.bytes);
    out->model_version = td_get_u32(value.bytes + 8);
    out->bytes = tandem_slice_of(value.bytes + SNAPSHOT_HEADER_BYTES,
                                 value.size - SNAPSHOT_HEADER_BYTES);
    return true;
}

tandem_err td_stream_index_snapshot(td_stream_index *index, tandem_slice collection,
                                    tandem_slice document, tandem_slice branch,
                                    tandem_slice scope, uint32_t model_version, td_snapshot *out)
{
    td_stream_record record;
    tandem_slice key, value;
    td_cursor *cursor;
    td_index_key stream, before;
    tandem_err err;

    err = td_index_stream_get(index, collection, document, branch, scope, &stream, &record);
    if (err)
        return td_index_outcome(index, err);
    if (!record.marked || td_scope_is_lifecycle(scope))
        return TANDEM_E_NOT_FOUND;
    if ((err = td_txn_cursor(index->txn, TD_INDEX_SNAPSHOTS, &cursor)) != TANDEM_OK)
        return td_index_outcome(index, err);
    td_index_key_pass(&before, td_index_key_slice(&stream));
    /* Torn ones and those of another version are passed over; put_snapshot clears them away. */
    for (;;) {
        err = td_cursor_seek_before(cursor, td_index_key_slice(&before), &key, &value);
        if (err == TANDEM_OK && !is_of(key, td_index_key_slice(&stream)))
            err = TANDEM_END;
        if (err)
            break;
        if (snapshot_decode(key, value, out) && out->model_version == model_version)
            break;
        td_index_key_copy(&before, key);
    }
    td_cursor_free(cursor);
    if (err == TANDEM_OK)
        td_probe(index->env, TD_PROBE_SNAPSHOT_USED);
    return td_index_outcome(index, err == TANDEM_END ? TANDEM_E_NOT_FOUND : err);
}

tandem_err td_index_snapshots_list(td_stream_index *index, tandem_slice stream_key,
                                   td_index_snapshot out[TD_SNAPSHOTS_MAX + 1],
                                   unsigned *count_out)
{
    tandem_slice key, value;
    td_cursor *cursor;
    td_index_key from;
    unsigned count = 0;
    tandem_err err = td_txn_cursor(index->txn, TD_INDEX_SNAPSHOTS, &cursor);

    if (err)
        return err;
    td_index_key_place(&from, stream_key, &td_place_zero);
    for (err = td_cursor_seek(cursor, td_index_key_slice(&from), &key, &value);
         !err && is_of(key, stream_key); err = td_cursor_next(cursor, &key, &value)) {
        td_snapshot snapshot = {0};

        if (count > TD_SNAPSHOTS_MAX) {
            err = TANDEM_E_CORRUPT;
            break;
        }
        out[count].torn = !snapshot_decode(key, value, &snapshot);
        out[count].place = td_place_of_key(key);
        out[count].folded = snapshot.folded;
        out[count].model_version = snapshot.model_version;
        count++;
    }
    td_cursor_free(cursor);
    *count_out = count;
    return err < TANDEM_OK ? err : TANDEM_OK;
}

/*
 * Which of too many snapshots goes: the one whose absence leaves the smallest gap for its age, so
 * that distances grow with age and a late operation never refolds much more than it must.
 */
static unsigned snapshot_to_drop(const td_index_snapshot *kept, unsigned count)
{
    double best = 0;
    unsigned drop = 0;

    for (unsigned i = 0; i + 1 < count; i++) {
        uint64_t before = i ? kept[i - 1].folded : 0;
        double gap = (double)(kept[i + 1].folded - before);
        double age = (double)(kept[count - 1].folded - kept[i].folded) + 1;

        if (i == 0 || gap / age < best) {
            best = gap / age;
            drop = i;
        }
    }
    return drop;
}

static tandem_err snapshots_thin(td_stream_index *index, tandem_slice stream_key,
                                 uint32_t model_version)
{
    td_index_snapshot kept[TD_SNAPSHOTS_MAX + 1];
    unsigned count = 0, left;
    td_index_key key;
    tandem_err err = td_index_snapshots_list(index, stream_key, kept, &count);

    if (err)
        return err;
    left = 0;
    for (unsigned i = 0; i < count; i++) {
        if (!kept[i].torn && kept[i].model_version == model_version) {
            kept[left++] = kept[i];
            continue;
        }
        td_index_key_place(&key, stream_key, &kept[i].place);
        if ((err = td_index_del(index, TD_INDEX_SNAPSHOTS, td_index_key_slice(&key))) != TANDEM_OK)
            return err;
    }
    if (left <= TD_SNAPSHOTS_MAX)
        return TANDEM_OK;
    td_index_key_place(&key, stream_key, &kept[snapshot_to_drop(kept, left)].place);
    return td_index_del(index, TD_INDEX_SNAPSHOTS, td_index_key_slice(&key));
}

static tandem_err snapshot_put(td_stream_index *index, tandem_slice stream_key,
                               const td_snapshot *snapshot)
{
    size_t size = SNAPSHOT_HEADER_BYTES + snapshot->bytes.size;
    uint8_t *value = malloc(size);
    td_index_key key;
    tandem_err err;

    if (!value)
        return TANDEM_E_NOMEM;
    td_put_u64(value, snapshot->folded);
    td_put_u32(value + 8, snapshot->model_version);
    if (snapshot->bytes.size)
        memcpy(value + SNAPSHOT_HEADER_BYTES, snapshot->bytes.bytes, snapshot->bytes.size);
    td_index_key_place(&key, stream_key, &snapshot->place);
    err = td_index_put(index, TD_INDEX_SNAPSHOTS, td_index_key_slice(&key),
                       tandem_slice_of(value, size));
    free(value);
    return err;
}

tandem_err td_stream_index_put_snapshot(td_stream_index *index, tandem_slice collection,
                                        tandem_slice document, tandem_slice branch,
                                        tandem_slice scope, const td_snapshot *snapshot)
{
    td_stream_record record;
    td_index_key key;
    tandem_err err;

    assert(!td_scope_is_lifecycle(scope));
    err = td_index_stream_get(index, collection, document, branch, scope, &key, &record);
    if (err)
        return td_index_outcome(index, err);
    if ((err = snapshot_put(index, td_index_key_slice(&key), snapshot)) != TANDEM_OK ||
        (err = snapshots_thin(index, td_index_key_slice(&key), snapshot->model_version)) != TANDEM_OK)
        return td_index_undo(index, err);
    td_probe(index->env, TD_PROBE_SNAPSHOT_KEPT);
    if (record.marked && td_place_compare(&snapshot->place, &record.mark) <= 0)
        return TANDEM_OK;
    record.marked = true;
    record.mark = snapshot->place;
    err = td_index_stream_put(index, td_index_key_slice(&key), &record);
    return err ? td_index_undo(index, err) : TANDEM_OK;
}

tandem_err td_index_snapshots_drop(td_stream_index *index, tandem_slice stream_key,
                                   td_stream_record *record, const td_place *place)
{
    tandem_slice found, value;
    td_cursor *cursor;
    td_index_key from, key;
    tandem_err err = td_txn_cursor(index->txn, TD_INDEX_SNAPSHOTS, &cursor);

    if (err)
        return err;
    td_index_key_place(&from, stream_key, place);
    for (;;) {
        err = td_cursor_seek(cursor, td_index_key_slice(&from), &found, &value);
        if (err || !is_of(found, stream_key))
            break;
        td_index_key_copy(&key, found);
        if ((err = td_index_del(index, TD_INDEX_SNAPSHOTS, td_index_key_slice(&key))) != TANDEM_OK)
            break;
        td_probe(index->env, TD_PROBE_SNAPSHOT_DROPPED);
    }
    if (err >= TANDEM_OK)
        err = td_cursor_seek_before(cursor, td_index_key_slice(&from), &found, &value);
    record->marked = err == TANDEM_OK && is_of(found, stream_key);
    if (record->marked)
        record->mark = td_place_of_key(found);
    td_cursor_free(cursor);
    return err < TANDEM_OK ? err : TANDEM_OK;
}
