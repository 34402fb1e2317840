/*
 * Reading the index: documents, their streams, the entries of a stream.
 */
#include <assert.h>
#include <string.h>

#include "store/stream_state.h"

tandem_err td_stream_index_corrupt(td_stream_index *index, tandem_slice collection,
                                   uint64_t *count_out, uint64_t *first_out)
{
    const td_index_collection *c = td_index_collection_find(index, collection);

    *count_out = c ? c->corrupt : 0;
    *first_out = c ? c->corrupt_first : 0;
    return index->failed;
}

tandem_err td_stream_index_document(td_stream_index *index, tandem_slice collection,
                                    tandem_slice document, td_document_info *out)
{
    const td_index_collection *c = td_index_collection_find(index, collection);
    td_document_record record;
    td_index_key key;
    tandem_err err;

    memset(out, 0, sizeof(*out));
    if ((err = td_index_begin(index)) != TANDEM_OK)
        return td_index_outcome(index, err);
    if (!c || !td_index_name_fits(document) || document.size == 0)
        return TANDEM_OK;
    td_index_key_document(&key, c->id, document);
    if ((err = td_index_document_get(index, td_index_key_slice(&key), &record)) != TANDEM_OK)
        return td_index_outcome(index, err);
    if (!td_index_document_overlay(index, td_index_key_slice(&key), &record)) {
        if ((err = td_index_settle_document(index, c, document)) != TANDEM_OK)
            return err;
        if ((err = td_index_document_get(index, td_index_key_slice(&key), &record)) != TANDEM_OK)
            return td_index_outcome(index, err);
    }
    td_document_derive(&record);
    *out = record.info;
    return TANDEM_OK;
}

/* The end of a call that visits: err is the table's last word, said the visitor's. */
static tandem_err visited(td_stream_index *index, td_cursor *cursor, tandem_err err,
                          tandem_err said)
{
    td_cursor_free(cursor);
    if (err < TANDEM_OK)
        return td_index_outcome(index, err);
    return said < TANDEM_OK ? said : TANDEM_OK;
}

tandem_err td_stream_index_documents(td_stream_index *index, tandem_slice collection,
                                     tandem_slice after, td_visit_document visit, void *context)
{
    const td_index_collection *c = td_index_collection_find(index, collection);
    td_document_record record;
    tandem_slice key;
    tandem_err err, said = TANDEM_OK;
    td_cursor *cursor;
    td_index_key from;

    if ((err = td_index_begin(index)) != TANDEM_OK)
        return td_index_outcome(index, err);
    if (!c)
        return TANDEM_OK;
    if (!td_index_name_fits(after))
        return TANDEM_E_INVALID;
    if ((err = td_index_settle_all(index)) != TANDEM_OK)
        return err;
    if ((err = td_txn_cursor(index->txn, TD_INDEX_DOCUMENTS, &cursor)) != TANDEM_OK)
        return td_index_outcome(index, err);
    td_index_documents_begin(&from, c->id, after);
    while ((err = td_index_document_next(cursor, &from, &key, &record)) == TANDEM_OK) {
        said = visit(context, tandem_slice_of(key.bytes + 4, key.size - 4), &record.info);
        if (said)
            break;
    }
    return visited(index, cursor, err, said);
}

tandem_err td_stream_index_streams(td_stream_index *index, tandem_slice collection,
                                   tandem_slice document, td_visit_stream visit, void *context)
{
    const td_index_collection *c = td_index_collection_find(index, collection);
    td_stream_record record;
    tandem_err err, said = TANDEM_OK;
    td_index_names names;
    td_index_key key, at;

    if ((err = td_index_begin(index)) != TANDEM_OK)
        return td_index_outcome(index, err);
    if (!c || !td_index_name_fits(document))
        return TANDEM_OK;
    if ((err = td_index_settle_document(index, c, document)) != TANDEM_OK)
        return err;
    td_index_key_document(&key, c->id, document);
    td_index_streams_begin(&at, td_index_key_slice(&key));
    while (!said && (err = td_index_stream_next(index, &at, &names, &record)) == TANDEM_OK)
        if (names.branch.size)
            said = visit(context, names.branch, names.scope, record.count);
    return visited(index, NULL, err, said);
}

tandem_err td_stream_index_count(td_stream_index *index, tandem_slice collection,
                                 tandem_slice document, tandem_slice branch, tandem_slice scope,
                                 uint64_t *out)
{
    td_stream_record record;
    td_index_key key;
    tandem_err err = td_index_stream_get(index, collection, document, branch, scope, &key, &record);

    if (err && err != TANDEM_E_NOT_FOUND)
        return td_index_outcome(index, err);
    *out = err ? 0 : record.count;
    return TANDEM_OK;
}

struct entries {
    td_visit_entry visit;
    void *context;
};

static tandem_err visit_entry(void *context, const td_block_entry *entry)
{
    const struct entries *entries = context;

    return entries->visit(entries->context, &entry->place, entry->ordinal);
}

tandem_err td_stream_index_entries(td_stream_index *index, tandem_slice collection,
                                   tandem_slice document, tandem_slice branch, tandem_slice scope,
                                   const td_place *after, td_visit_entry visit, void *context)
{
    struct entries entries = {visit, context};
    td_stream_record record;
    td_index_key key;
    tandem_err err, said;

    err = td_index_stream_get(index, collection, document, branch, scope, &key, &record);
    if (err == TANDEM_E_NOT_FOUND)
        return TANDEM_OK;
    if (err == TANDEM_OK)
        err = td_index_entries_each(index, collection, td_index_key_slice(&key),
                                    td_scope_is_lifecycle(scope), after, visit_entry, &entries,
                                    &said);
    if (err)
        return td_index_outcome(index, err);
    return said < TANDEM_OK ? said : TANDEM_OK;
}

tandem_err td_stream_index_rank(td_stream_index *index, tandem_slice collection,
                                tandem_slice document, tandem_slice branch, tandem_slice scope,
                                const td_place *place, uint64_t *out)
{
    td_stream_record record;
    td_index_key key;
    tandem_err err;

    assert(!td_scope_is_lifecycle(scope));
    *out = 0;
    err = td_index_stream_get(index, collection, document, branch, scope, &key, &record);
    if (err == TANDEM_OK)
        err = td_index_entries_rank(index, collection, td_index_key_slice(&key), place, out);
    return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : td_index_outcome(index, err);
}
