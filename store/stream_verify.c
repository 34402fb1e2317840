/*
 * The index against the operations store, a page of documents at a call. The first thing that is
 * wrong ends it: the whole index is built anew then, so a list of faults would be of no use.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "store/stream_state.h"

struct verify {
    td_stream_index *index;
    tandem_slice collection, document;
    char *why;
    td_document_record derived;
    bool store_failed; /* an error is of the operations store */
    bool unread; /* some operation cannot be read: what it would tell is not known */

    /* The stream and the entry that are looked at. */
    tandem_slice branch, scope;
    bool lifecycle;
    td_block_entry entry;
    td_place place; /* of the entry, whole if the operation could be read */
    bool found;

    td_block_entry before; /* the entry before it, if there is one */
    bool follows;
    bool tied; /* these two: they differ in their hashes alone */
};

static tandem_err say(struct verify *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* One sentence, with the document and the collection behind it: names may be cut off. */
static tandem_err say(struct verify *v, const char *format, ...)
{
    va_list args;
    size_t used;

    va_start(args, format);
    vsnprintf(v->why, TD_INDEX_WHY_BYTES, format, args);
    va_end(args);
    used = strlen(v->why);
    if (v->document.size)
        used += (size_t)snprintf(v->why + used, TD_INDEX_WHY_BYTES - used, ", document %.*s",
                                 (int)v->document.size, (const char *)v->document.bytes);
    snprintf(v->why + used, TD_INDEX_WHY_BYTES - used, ", collection %.*s", (int)v->collection.size,
             (const char *)v->collection.bytes);
    return TANDEM_E_CORRUPT;
}

/* ---- Entries ---- */

static bool entry_fits(struct verify *v, const td_operation *operation)
{
    tandem_slice model = td_type_model(operation->type);
    td_place place = td_place_of(operation);

    if (td_block_entry_compare(&v->entry, &place) != 0 ||
        !tandem_slice_equal(operation->document, v->document) ||
        !tandem_slice_equal(operation->scope, v->scope))
        return false;
    v->place = place;
    if (!v->lifecycle)
        return tandem_slice_equal(operation->branch, v->branch);
    return v->entry.life == td_index_life(operation) && tandem_slice_equal(model, v->entry.model);
}

/* The first operation from the entry's ordinal on. */
static tandem_err operation_check(void *context, tandem_err err, uint64_t ordinal,
                                  const td_operation *operation)
{
    struct verify *v = context;

    if (ordinal != v->entry.ordinal)
        return TANDEM_END;
    v->found = true;
    if (err) {
        v->unread = true;
        return TANDEM_END;
    }
    if (!entry_fits(v, operation))
        return say(v, "the entry of ordinal %" PRIu64 " does not fit the operation", ordinal);
    td_index_document_note(&v->derived, operation, ordinal);
    return TANDEM_END;
}

/* A hash is kept where it is needed; is the one of the entry before? */
static tandem_err hash_check(struct verify *v, bool tied_before, bool tied_behind)
{
    bool needed = v->lifecycle || tied_before || tied_behind;

    return v->before.hashed == needed ? TANDEM_OK
                                      : say(v, "an entry has a hash too much or too little");
}

static tandem_err order_check(struct verify *v)
{
    bool tied_before = v->follows && v->tied;
    tandem_err err;

    v->tied = v->follows && td_place_prefix_compare(&v->before.place, &v->entry.place) == 0;
    if (v->follows) {
        if (td_place_compare(&v->before.place, &v->entry.place) >= 0)
            return say(v, "the entries of a stream are out of order");
        if ((err = hash_check(v, tied_before, v->tied)) != TANDEM_OK)
            return err;
    }
    v->before = v->entry;
    v->follows = true;
    return TANDEM_OK;
}

static tandem_err entry_check(struct verify *v)
{
    tandem_err err;

    v->place = v->entry.place;
    v->found = false;
    if (v->entry.ordinal == 0)
        return say(v, "an entry has no ordinal");
    err = td_op_store_scan(v->index->ops, v->collection, v->entry.ordinal - 1, operation_check, v);
    if (err < TANDEM_OK) {
        v->store_failed = !v->why[0];
        return err;
    }
    return v->found ? order_check(v)
                    : say(v, "there is no operation at ordinal %" PRIu64, v->entry.ordinal);
}

/* ---- Streams ---- */

/* A snapshot stands behind as many entries as it says. */
static tandem_err snapshots_check(struct verify *v, const td_index_snapshot *snapshots,
                                  unsigned count, unsigned *at, const td_place *before,
                                  uint64_t entries)
{
    for (; *at < count; (*at)++) {
        const td_index_snapshot *snapshot = &snapshots[*at];

        if (before && td_place_compare(&snapshot->place, before) >= 0)
            return TANDEM_OK;
        if (!snapshot->torn && snapshot->folded != entries)
            return say(v, "a snapshot of %" PRIu64 " operations stands behind %" PRIu64,
                       snapshot->folded, entries);
    }
    return TANDEM_OK;
}

static tandem_err mark_check(struct verify *v, const td_stream_record *record,
                             const td_index_snapshot *snapshots, unsigned count)
{
    if (v->lifecycle ? !record->marked || td_place_compare(&record->mark, &v->place) != 0
                     : count && (!record->marked ||
                                 td_place_compare(&snapshots[count - 1].place, &record->mark) > 0))
        return say(v, "the mark of a stream is wrong");
    return TANDEM_OK;
}

struct stream {
    tandem_slice key;
    td_index_snapshot snapshots[TD_SNAPSHOTS_MAX + 1];
    unsigned snapshot_count, at;
    uint64_t entries;
};

/* Each entry of a block, and that it stands there in the one way that it can be written. */
static tandem_err block_check(struct verify *v, struct stream *stream, tandem_slice key,
                              tandem_slice value)
{
    uint8_t bytes[TD_BLOCK_ENTRY_BYTES_MAX];
    td_block_state reading, writing;
    tandem_slice rest;
    tandem_err err;

    if (!td_block_is_of(key, stream->key) ||
        td_index_unwrap(TD_INDEX_DOCUMENTS, key, &value) != TANDEM_OK)
        return say(v, "a block of entries does not match its checksum");
    td_block_begin(&reading, key, v->lifecycle);
    td_block_begin(&writing, key, v->lifecycle);
    rest = value;
    for (; (err = td_block_next(&reading, &rest, &v->entry)) == TANDEM_OK; value = rest) {
        if (!tandem_slice_equal(
                tandem_slice_of(bytes, td_block_add(&writing, &v->entry, bytes)),
                tandem_slice_of(value.bytes, value.size - rest.size)))
            return say(v, "an entry is written in another way than it should be");
        if ((err = entry_check(v)) != TANDEM_OK ||
            (err = snapshots_check(v, stream->snapshots, stream->snapshot_count, &stream->at,
                                   &v->place, stream->entries)) != TANDEM_OK)
            return err;
        stream->entries++;
    }
    return err == TANDEM_END ? TANDEM_OK : say(v, "a block of entries cannot be read");
}

static tandem_err blocks_check(struct verify *v, struct stream *stream)
{
    tandem_slice key, value;
    td_cursor *cursor;
    td_index_key prefix;
    tandem_err err = td_txn_cursor(v->index->txn, TD_INDEX_DOCUMENTS, &cursor);

    if (err)
        return err;
    v->follows = false;
    td_index_key_copy(&prefix, stream->key);
    td_index_key_end_name(&prefix);
    for (err = td_cursor_seek(cursor, td_index_key_slice(&prefix), &key, &value);
         !err && td_index_key_starts_with(key, td_index_key_slice(&prefix));
         err = td_cursor_next(cursor, &key, &value))
        if ((err = block_check(v, stream, key, value)) != TANDEM_OK)
            break;
    td_cursor_free(cursor);
    if (err >= TANDEM_OK && v->follows)
        err = hash_check(v, v->tied, false);
    return err < TANDEM_OK ? err : TANDEM_OK;
}

static tandem_err stream_check(struct verify *v, tandem_slice key, const td_stream_record *record)
{
    struct stream stream = {.key = key};
    tandem_err err =
        td_index_snapshots_list(v->index, key, stream.snapshots, &stream.snapshot_count);

    if (err || (err = blocks_check(v, &stream)) != TANDEM_OK ||
        (err = snapshots_check(v, stream.snapshots, stream.snapshot_count, &stream.at, NULL,
                               stream.entries)) != TANDEM_OK)
        return err;
    if (stream.entries != record->count)
        return say(v, "%" PRIu64 " entries of a stream are counted, %" PRIu64 " are there",
                   record->count, stream.entries);
    if ((err = mark_check(v, record, stream.snapshots, stream.snapshot_count)) != TANDEM_OK)
        return err;
    return v->lifecycle ? td_index_lifecycle_fold(v->index, v->collection, key, &v->derived.info)
                        : TANDEM_OK;
}

/* ---- Documents ---- */

static bool names_equal(const td_model_name *a, const td_model_name *b)
{
    return tandem_slice_equal(td_model_name_slice(a), td_model_name_slice(b));
}

static bool document_fits(const td_document_record *a, const td_document_record *b)
{
    const td_document_info *x = &a->info, *y = &b->info;

    return x->operations == y->operations && x->last_ordinal == y->last_ordinal &&
           x->last_seq == y->last_seq && x->created == y->created && x->deleted == y->deleted &&
           memcmp(x->last_origin, y->last_origin, sizeof(x->last_origin)) == 0 &&
           strcmp(x->model, y->model) == 0 && td_place_compare(&x->epoch, &y->epoch) == 0 &&
           names_equal(&a->least, &b->least) && names_equal(&a->greatest, &b->greatest);
}

static tandem_err document_check(struct verify *v, tandem_slice document_key,
                                 const td_document_record *record)
{
    td_stream_record stream;
    td_index_names names;
    td_index_key at;
    tandem_err err;

    memset(&v->derived, 0, sizeof(v->derived));
    v->unread = false;
    td_index_streams_begin(&at, document_key);
    while ((err = td_index_stream_next(v->index, &at, &names, &stream)) == TANDEM_OK) {
        v->branch = names.branch;
        v->scope = names.scope;
        v->lifecycle = names.branch.size == 0;
        if ((err = stream_check(v, names.stream_key, &stream)) != TANDEM_OK)
            return err;
    }
    if (err == TANDEM_E_CORRUPT)
        return say(v, "the record of a stream does not match its checksum");
    if (err < TANDEM_OK)
        return err;
    return v->unread || document_fits(record, &v->derived)
               ? TANDEM_OK
               : say(v, "what is known of it is not what its operations say");
}

/* A page of documents; or, with last_out NULL, all of them, only to add up their operations. */
static tandem_err documents_each(struct verify *v, uint32_t collection, tandem_slice after,
                                 uint32_t documents_max, char *last_out, bool *more_out,
                                 uint64_t *operations_out)
{
    td_document_record record;
    tandem_slice key;
    uint32_t left = documents_max;
    td_cursor *cursor;
    td_index_key from;
    tandem_err err = td_txn_cursor(v->index->txn, TD_INDEX_DOCUMENTS, &cursor);

    if (err)
        return err;
    td_index_documents_begin(&from, collection, after);
    while ((err = td_index_document_next(cursor, &from, &key, &record)) == TANDEM_OK) {
        if (last_out && left-- == 0) {
            *more_out = true;
            break;
        }
        v->document = tandem_slice_of(key.bytes + 4, key.size - 4);
        if (operations_out)
            *operations_out += record.info.operations;
        if (!last_out)
            continue;
        if ((err = document_check(v, key, &record)) != TANDEM_OK)
            break;
        memcpy(last_out, v->document.bytes, v->document.size);
        last_out[v->document.size] = '\0';
        v->document.size = 0;
    }
    if (err == TANDEM_E_CORRUPT && !v->why[0])
        say(v, "the record of a document does not match its checksum");
    td_cursor_free(cursor);
    v->document.size = 0;
    return err < TANDEM_OK ? err : TANDEM_OK;
}

/* Each operation is in one document, and all that the store counts are in the index. */
static tandem_err totals_check(struct verify *v, const td_index_collection *c)
{
    td_collection_info info;
    uint64_t operations = 0;
    tandem_err err = documents_each(v, c->id, tandem_slice_of(NULL, 0), 0, NULL, NULL, &operations);

    if (err)
        return err;
    if ((err = td_op_store_collection(v->index->ops, v->collection, &info)) != TANDEM_OK) {
        v->store_failed = true;
        return err;
    }
    if (operations != c->entries)
        return say(v, "%" PRIu64 " operations are indexed, documents have %" PRIu64, c->entries,
                   operations);
    if (info.last_ordinal == c->progress && info.operations != c->entries + c->corrupt)
        return say(v, "%" PRIu64 " operations are indexed of %" PRIu64, c->entries,
                   info.operations);
    return TANDEM_OK;
}

tandem_err td_stream_index_verify(td_stream_index *index, tandem_slice collection,
                                  tandem_slice after, uint32_t documents_max,
                                  char last_out[TANDEM_NAME_BYTES_MAX + 1], bool *more_out,
                                  char why[TD_INDEX_WHY_BYTES])
{
    struct verify v = {.index = index, .collection = collection, .why = why};
    const td_index_collection *c = td_index_collection_find(index, collection);
    tandem_err err;

    why[0] = '\0';
    *more_out = false;
    /* The look at the pages has a transaction of its own: no other is open meanwhile. */
    err = collection.size == 0 ? td_stream_index_commit(index) : td_index_settle_all(index);
    if (err == TANDEM_OK && collection.size)
        err = td_index_outcome(index, td_index_begin(index));
    if (err != TANDEM_OK)
        return err;
    if (collection.size == 0)
        err = td_store_pages_check(index->store, why);
    else if (!c)
        err = say(&v, "it is not indexed");
    else if (td_index_name_fits(after) &&
             (err = documents_each(&v, c->id, after, documents_max, last_out, more_out, NULL)) ==
                 TANDEM_OK && !*more_out)
        err = totals_check(&v, c);
    if (err == TANDEM_E_CORRUPT && !v.store_failed)
        td_stream_index_distrust(index);
    return err;
}
