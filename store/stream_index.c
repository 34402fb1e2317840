#include "store/stream_state.h"

#include <stdlib.h>
#include <string.h>

#include "store/planted.h"
#include "store/probe.h"

enum { INDEX_VERSION = 5, PROGRESS_BYTES = 4 + 4 * 8 };

/* ---- Transactions ---- */

tandem_err td_index_begin(td_stream_index *index)
{
    if (index->failed)
        return index->failed;
    return index->txn ? TANDEM_OK : td_store_begin_write(index->store, &index->txn);
}

tandem_err td_index_get(td_stream_index *index, unsigned table, tandem_slice key,
                        tandem_slice *value_out)
{
    tandem_err err = td_txn_get(index->txn, table, key, value_out);

    return err ? err : td_index_unwrap(table, key, value_out);
}

tandem_err td_index_put(td_stream_index *index, unsigned table, tandem_slice key,
                        tandem_slice value)
{
    uint8_t checksum[TD_INDEX_CHECKSUM_BYTES];
    tandem_err err;

    td_index_checksum(table, key, value, checksum);
    tandem_writer_clear(&index->record);
    tandem_write_raw(&index->record, tandem_slice_of(checksum, sizeof(checksum)));
    tandem_write_raw(&index->record, value);
    if ((err = tandem_writer_err(&index->record)) != TANDEM_OK)
        return err;
    index->changed = true;
    return td_txn_put(index->txn, table, key, tandem_writer_slice(&index->record));
}

tandem_err td_index_del(td_stream_index *index, unsigned table, tandem_slice key)
{
    index->changed = true;
    return td_txn_del(index->txn, table, key);
}

/* ---- Meta ---- */

static tandem_err meta_get(td_stream_index *index, const char *name, uint64_t *out)
{
    tandem_slice value;
    tandem_err err = td_index_get(index, TD_INDEX_META, tandem_slice_text(name), &value);

    if (err)
        return err;
    if (value.size != 8)
        return TANDEM_E_CORRUPT;
    *out = td_get_u64(value.bytes);
    return TANDEM_OK;
}

static tandem_err meta_put(td_stream_index *index, const char *name, uint64_t value)
{
    uint8_t bytes[8];

    td_put_u64(bytes, value);
    return td_index_put(index, TD_INDEX_META, tandem_slice_text(name),
                        tandem_slice_of(bytes, sizeof(bytes)));
}

/* ---- Collections and progress ---- */

td_index_collection *td_index_collection_find(const td_stream_index *index, tandem_slice name)
{
    if (!td_index_name_fits(name) || name.size == 0)
        return NULL;
    return td_hash_table_find(&index->collections, name);
}

tandem_err td_index_collection_add(td_stream_index *index, tandem_slice name, uint32_t id,
                                   td_index_collection **out)
{
    td_index_collection *c = calloc(1, sizeof(*c) + name.size);
    tandem_err err;

    if (!c)
        return TANDEM_E_NOMEM;
    c->id = id;
    c->size = name.size;
    memcpy(c->name, name.bytes, name.size);
    err = td_hash_table_add(&index->collections, &c->hash_entry,
                            tandem_slice_of(c->name, c->size), c);
    if (err != TANDEM_OK) {
        free(c);
        return err;
    }
    *out = c;
    return TANDEM_OK;
}

static tandem_err progress_load(td_stream_index *index)
{
    tandem_slice key, value;
    td_index_collection *c;
    td_cursor *cursor;
    tandem_err err = td_txn_cursor(index->txn, TD_INDEX_PROGRESS, &cursor);

    if (err)
        return err;
    for (err = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value); !err;
         err = td_cursor_next(cursor, &key, &value)) {
        err = td_index_unwrap(TD_INDEX_PROGRESS, key, &value);
        if (err == TANDEM_OK && (value.size != PROGRESS_BYTES || !td_index_name_fits(key)))
            err = TANDEM_E_CORRUPT;
        if (err == TANDEM_OK)
            err = td_index_collection_add(index, key, td_get_u32(value.bytes), &c);
        if (err)
            break;
        c->numbered = true;
        c->progress = td_get_u64(value.bytes + 4);
        c->entries = td_get_u64(value.bytes + 12);
        c->corrupt = td_get_u64(value.bytes + 20);
        c->corrupt_first = td_get_u64(value.bytes + 28);
    }
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}

tandem_err td_index_progress_put(td_stream_index *index, const td_index_collection *c)
{
    uint8_t value[PROGRESS_BYTES];

    td_put_u32(value, c->id);
    td_put_u64(value + 4, c->progress);
    td_put_u64(value + 12, c->entries);
    td_put_u64(value + 20, c->corrupt);
    td_put_u64(value + 28, c->corrupt_first);
    return td_index_put(index, TD_INDEX_PROGRESS, tandem_slice_of(c->name, c->size),
                        tandem_slice_of(value, sizeof(value)));
}

tandem_err td_index_number_put(td_stream_index *index, td_index_collection *c)
{
    uint8_t value[PROGRESS_BYTES] = {0};
    tandem_err err;

    if (c->numbered)
        return TANDEM_OK;
    td_put_u32(value, c->id);
    err = td_index_put(index, TD_INDEX_PROGRESS, tandem_slice_of(c->name, c->size),
                       tandem_slice_of(value, sizeof(value)));
    if (err == TANDEM_OK)
        err = meta_put(index, "next_collection", index->next_collection);
    c->numbered = err == TANDEM_OK;
    return err;
}

/* ---- Documents and streams ---- */

tandem_err td_index_document_get(td_stream_index *index, tandem_slice key, td_document_record *out)
{
    tandem_slice value;
    tandem_err err = td_index_get(index, TD_INDEX_DOCUMENTS, key, &value);

    memset(out, 0, sizeof(*out));
    if (err == TANDEM_OK)
        err = td_document_decode(value, out);
    return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
}

void td_index_documents_begin(td_index_key *from, uint32_t collection, tandem_slice after)
{
    td_index_key key;

    td_index_key_document(&key, collection, after);
    if (after.size)
        td_index_key_pass(from, td_index_key_slice(&key));
    else
        *from = key;
}

tandem_err td_index_document_next(td_cursor *cursor, td_index_key *from, tandem_slice *key_out,
                                  td_document_record *out)
{
    tandem_slice value;
    td_index_names names;
    tandem_err err = td_cursor_seek(cursor, td_index_key_slice(from), key_out, &value);

    if (err || !td_index_key_starts_with(*key_out, tandem_slice_of(from->bytes, 4)))
        return err ? err : TANDEM_END;
    if (!td_index_key_parse(*key_out, &names) || names.stream_key.size)
        return TANDEM_E_CORRUPT; /* what belongs to a document stands behind its record */
    td_index_key_pass(from, *key_out);
    err = td_index_unwrap(TD_INDEX_DOCUMENTS, *key_out, &value);
    return err ? err : td_document_decode(value, out);
}


tandem_err td_index_stream_get(td_stream_index *index, tandem_slice collection,
                               tandem_slice document, tandem_slice branch, tandem_slice scope,
                               td_index_key *key_out, td_stream_record *out)
{
    const td_index_collection *c = td_index_collection_find(index, collection);
    tandem_slice value;
    tandem_err err;

    if ((err = td_index_begin(index)) != TANDEM_OK)
        return err;
    if (!c || !td_index_name_fits(document) || !td_index_name_fits(branch) ||
        !td_index_name_fits(scope))
        return TANDEM_E_NOT_FOUND;
    if ((err = td_index_settle_document(index, c, document)) != TANDEM_OK)
        return err;
    td_index_key_stream(key_out, c->id, document, branch, scope);
    err = td_index_get(index, TD_INDEX_DOCUMENTS, td_index_key_slice(key_out), &value);
    return err ? err : td_stream_decode(value, out);
}

tandem_err td_index_stream_put(td_stream_index *index, tandem_slice key,
                               const td_stream_record *record)
{
    uint8_t value[TD_STREAM_RECORD_BYTES_MAX];
    size_t size = td_stream_encode(record, value);

    return td_index_put(index, TD_INDEX_DOCUMENTS, key, tandem_slice_of(value, size));
}

void td_index_streams_begin(td_index_key *at, tandem_slice document_key)
{
    td_index_key_copy(at, document_key);
    td_index_key_end_name(at);
}

tandem_err td_index_stream_next(td_stream_index *index, td_index_key *at,
                                td_index_names *names_out, td_stream_record *out)
{
    tandem_slice key, value, document;
    td_index_key from = *at;
    td_index_names last;
    td_cursor *cursor;
    tandem_err err;

    if (td_index_key_parse(td_index_key_slice(at), &last) && last.stream_key.size) {
        document = last.document_key;
        td_index_key_pass(&from, last.stream_key);
    } else {
        document = tandem_slice_of(at->bytes, at->size - 1);
    }
    if ((err = td_txn_cursor(index->txn, TD_INDEX_DOCUMENTS, &cursor)) != TANDEM_OK)
        return err;
    err = td_cursor_seek(cursor, td_index_key_slice(&from), &key, &value);
    if (err == TANDEM_OK &&
        (!td_index_key_starts_with(key, document) || key.bytes[document.size] != 0))
        err = TANDEM_END;
    if (err == TANDEM_OK && (!td_index_key_parse(key, names_out) || names_out->is_block))
        err = TANDEM_E_CORRUPT;
    if (err == TANDEM_OK && (err = td_index_unwrap(TD_INDEX_DOCUMENTS, key, &value)) == TANDEM_OK)
        err = td_stream_decode(value, out);
    if (err == TANDEM_OK) {
        td_index_key_copy(at, key);
        td_index_key_parse(td_index_key_slice(at), names_out);
    }
    td_cursor_free(cursor);
    return err;
}

/* ---- What is kept in memory ---- */

tandem_err td_index_meta_put(td_stream_index *index)
{
    tandem_err err;

    if ((err = meta_put(index, "position", index->position)) != TANDEM_OK)
        return err;
    return meta_put(index, "next_collection", index->next_collection);
}

/* Read what is kept in memory as of the last commit. */
static tandem_err load(td_stream_index *index)
{
    uint64_t next_collection = 0;
    tandem_err err;

    td_pending_clear(&index->pending);
    td_hash_table_clear(&index->collections, free);
    index->changed = index->unsaved = false;
    if ((err = td_index_begin(index)) != TANDEM_OK ||
        (err = meta_get(index, "position", &index->position)) != TANDEM_OK ||
        (err = meta_get(index, "reached", &index->reached)) != TANDEM_OK ||
        (err = meta_get(index, "next_collection", &next_collection)) != TANDEM_OK)
        return err;
    index->next_collection = (uint32_t)next_collection;
    index->reached_saved = index->reached;
    return progress_load(index);
}

/* ---- Failure ---- */

tandem_err td_index_undo(td_stream_index *index, tandem_err err)
{
    td_txn_abort(index->txn);
    index->txn = NULL;
    if (err != TANDEM_E_STORE_FULL && err != TANDEM_E_NOMEM)
        index->failed = err;
    else if ((index->failed = td_store_recover(index->store)) == TANDEM_OK &&
             (td_planted(TD_PLANTED_INDEX_NOT_UNDONE) ||
              (index->failed = load(index)) == TANDEM_OK))
        td_probe(index->env, TD_PROBE_INDEX_UNDONE);
    if (index->failed)
        td_log(index->env, TANDEM_LOG_ERROR, "index", "the stream index is unusable: %s",
               tandem_err_name(index->failed));
    return err;
}

tandem_err td_index_outcome(td_stream_index *index, tandem_err err)
{
    if (err < TANDEM_OK && err != TANDEM_E_NOMEM && err != TANDEM_E_STORE_FULL &&
        err != TANDEM_E_NOT_FOUND && !index->failed)
        index->failed = err;
    return err;
}

/* ---- Open ---- */

static tandem_err identity_put(td_stream_index *index)
{
    const td_identity *identity = td_op_store_identity(index->ops);
    tandem_err err;

    index->next_collection = 1;
    if ((err = td_index_meta_put(index)) != TANDEM_OK ||
        (err = td_index_put(index, TD_INDEX_META, tandem_slice_text("reactor"),
                            tandem_slice_of(identity->reactor, sizeof(identity->reactor)))) !=
            TANDEM_OK ||
        (err = meta_put(index, "reached", 0)) != TANDEM_OK)
        return err;
    td_probe(index->env, TD_PROBE_INDEX_CREATED);
    return meta_put(index, "version", INDEX_VERSION);
}

static tandem_err identity_check(td_stream_index *index)
{
    const td_identity *identity = td_op_store_identity(index->ops);
    tandem_slice value;
    uint64_t version;
    tandem_err err;

    err = td_txn_get(index->txn, TD_INDEX_META, tandem_slice_text("version"), &value);
    if (err)
        return err;
    if (value.size == 8) /* version 1 had no checksums */
        return TANDEM_E_FORMAT;
    if ((err = meta_get(index, "version", &version)) != TANDEM_OK)
        return err;
    err = td_index_get(index, TD_INDEX_META, tandem_slice_text("reactor"), &value);
    if (err)
        return err == TANDEM_E_NOT_FOUND ? TANDEM_E_CORRUPT : err;
    if (version != INDEX_VERSION || value.size != sizeof(identity->reactor) ||
        memcmp(value.bytes, identity->reactor, value.size) != 0)
        return TANDEM_E_FORMAT;
    return TANDEM_OK;
}

/* An index ahead of its operations was left behind by a store that is gone. */
static tandem_err ahead_check(td_stream_index *index)
{
    td_collection_info info;
    td_index_collection *c;
    uint64_t last;
    tandem_err err = td_op_store_last_ordinal(index->ops, &last);

    if (err)
        return err;
    if (index->position > last || index->reached > last)
        return TANDEM_E_FORMAT;
    for (c = td_hash_table_first(&index->collections); c;
         c = td_hash_table_next(&c->hash_entry)) {
        err = td_op_store_collection(index->ops, tandem_slice_of(c->name, c->size), &info);
        if (err)
            return err;
        if (c->progress > info.last_ordinal)
            return TANDEM_E_FORMAT;
    }
    return TANDEM_OK;
}

tandem_err td_stream_index_open(tandem_env *env, td_store *store, td_op_store *ops,
                                td_stream_index **out)
{
    td_stream_index *index = calloc(1, sizeof(*index));
    tandem_err err;

    if (!index) {
        td_store_free(store);
        return TANDEM_E_NOMEM;
    }
    index->env = env;
    index->store = store;
    index->ops = ops;
    tandem_writer_init(&index->record);
    tandem_writer_init(&index->block_old);
    tandem_writer_init(&index->block_new);
    if ((err = td_index_begin(index)) != TANDEM_OK)
        goto fail;
    err = identity_check(index);
    if (err == TANDEM_E_NOT_FOUND)
        err = identity_put(index);
    if (err || (err = td_index_commit(index)) != TANDEM_OK ||
        (err = load(index)) != TANDEM_OK || (err = ahead_check(index)) != TANDEM_OK ||
        (err = td_index_commit(index)) != TANDEM_OK)
        goto fail;
    *out = index;
    return TANDEM_OK;

fail:
    td_stream_index_free(index);
    /* A missing record of a table that must have it. */
    return err == TANDEM_E_NOT_FOUND ? TANDEM_E_CORRUPT : err;
}

void td_stream_index_free(td_stream_index *index)
{
    if (!index)
        return;
    td_txn_abort(index->txn);
    td_pending_clear(&index->pending);
    td_hash_table_clear(&index->collections, free);
    tandem_writer_release(&index->record);
    tandem_writer_release(&index->block_old);
    tandem_writer_release(&index->block_new);
    td_store_free(index->store);
    free(index);
}

/* ---- Commit and state ---- */

tandem_err td_index_commit(td_stream_index *index)
{
    td_txn *txn = index->txn;
    tandem_err err = TANDEM_OK;

    if (index->failed)
        return index->failed;
    if (!txn)
        return TANDEM_OK;
    if (index->changed && index->reached > index->reached_saved &&
        (err = meta_put(index, "reached", index->reached)) != TANDEM_OK)
        return td_index_undo(index, err);
    index->txn = NULL;
    if (!index->changed) {
        td_txn_abort(txn);
        return TANDEM_OK;
    }
    td_probe(index->env, TD_PROBE_INDEX_COMMIT_BEFORE);
    err = td_txn_commit(txn);
    if (err)
        return td_index_undo(index, err);
    td_probe(index->env, TD_PROBE_INDEX_COMMIT_AFTER);
    index->changed = false;
    index->reached_saved = index->reached;
    return TANDEM_OK;
}

bool td_stream_index_full(const td_stream_index *index)
{
    return td_pending_is_full(&index->pending);
}

bool td_stream_index_busy(const td_stream_index *index)
{
    return index->txn != NULL || index->unsaved;
}

tandem_env *td_stream_index_env(const td_stream_index *index)
{
    return index->env;
}

tandem_err td_stream_index_failure(const td_stream_index *index)
{
    return index->failed;
}

void td_stream_index_distrust(td_stream_index *index)
{
    if (!index->failed)
        index->failed = TANDEM_E_CORRUPT;
}

uint64_t td_stream_index_position(const td_stream_index *index)
{
    return index->position;
}

void td_stream_index_stat_get(td_stream_index *index, td_stream_index_stat *out)
{
    out->position = index->position;
    out->indexed = index->indexed;
    out->waiting = index->pending.operations;
    out->corrupt = index->corrupt;
    out->bytes = index->store->ops->bytes(index->store);
}
