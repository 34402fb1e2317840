/*
 * Settling: what was gathered is written to the tables, one document after the other in key order, with
 * its streams, all that stands together at once; and the lifecycle as a fold.
 *
 * A document's record names the newest ordinal that the tables have of it, and all that waits of a
 * document is written at once. So what is gathered a second time, after a crash or because another
 * document's turn had not come, is told by its ordinal and left out.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "store/planted.h"
#include "store/probe.h"
#include "store/stream_state.h"

/* A document that is being settled. */
struct settling {
    td_stream_index *index;
    tandem_slice collection; /* its name */
    tandem_slice key;        /* the document's */
    td_document_record record;
    td_pending_entry *entries; /* that are new to the tables: by stream, then by place */
    td_block_entry *stream;    /* room for as many: those of one stream */
    size_t count;
    bool refold; /* what is late changes the lifecycle from its beginning */
};

/* ---- What is known of a document ---- */

enum td_life td_index_life(const td_operation *operation)
{
    tandem_slice verb = td_type_verb(operation->type);

    if (tandem_slice_equal(verb, tandem_slice_text("CREATE")))
        return TD_LIFE_CREATE;
    if (tandem_slice_equal(verb, tandem_slice_text("DELETE")))
        return TD_LIFE_DELETE;
    return TD_LIFE_NOTHING;
}

static void models_note(td_document_record *record, tandem_slice model)
{
    if (!record->info.known || tandem_slice_compare(model, td_model_name_slice(&record->least)) < 0)
        td_model_name_set(&record->least, model);
    if (!record->info.known ||
        tandem_slice_compare(model, td_model_name_slice(&record->greatest)) > 0)
        td_model_name_set(&record->greatest, model);
    record->info.known = true;
}

void td_index_document_note(td_document_record *record, const td_operation *operation,
                            uint64_t ordinal)
{
    models_note(record, td_type_model(operation->type));
    record->info.operations++;
    if (ordinal <= record->info.last_ordinal)
        return;
    record->info.last_ordinal = ordinal;
    memcpy(record->info.last_origin, operation->origin, TANDEM_ORIGIN_BYTES);
    record->info.last_seq = operation->seq;
}

/* ---- The lifecycle ---- */

/* The lifecycle as a fold, one operation in total order. */
static void lifecycle_step(td_document_info *info, enum td_life life, tandem_slice model,
                           const td_place *place)
{
    if (life == TD_LIFE_NOTHING)
        return;
    if (!info->created) {
        if (life != TD_LIFE_CREATE)
            return;
        info->created = true;
        info->deleted = false;
        info->epoch = *place;
        memcpy(info->model, model.bytes, model.size);
        info->model[model.size] = '\0';
        return;
    }
    if (!tandem_slice_equal(model, tandem_slice_text(info->model)))
        return;
    if (life == TD_LIFE_DELETE) {
        info->deleted = true;
    } else if (info->deleted) {
        info->deleted = false;
        info->epoch = *place;
    }
}

static tandem_err lifecycle_next(void *context, const td_block_entry *entry)
{
    if (entry->life > TD_LIFE_DELETE)
        return TANDEM_E_CORRUPT;
    lifecycle_step(context, (enum td_life)entry->life, entry->model, &entry->place);
    return TANDEM_OK;
}

tandem_err td_index_lifecycle_fold(td_stream_index *index, tandem_slice collection,
                                   tandem_slice stream_key, td_document_info *info)
{
    tandem_err err, said;

    info->created = info->deleted = false;
    info->model[0] = '\0';
    info->epoch = td_place_zero;
    err = td_index_entries_each(index, collection, stream_key, true, &td_place_zero,
                                lifecycle_next, info, &said);
    return err ? err : said;
}

/* ---- Streams ---- */

static int entry_order(const void *a, const void *b)
{
    const td_pending_entry *x = a, *y = b;
    int order;

    if (x->kind->stream != y->kind->stream)
        return x->kind->stream->number < y->kind->stream->number ? -1 : 1;
    order = td_place_compare(&x->place, &y->place);
    /* Ties: their hashes will tell. Until then the order is one that does not depend on the machine. */
    return order ? order : x->ordinal < y->ordinal ? -1 : 1;
}

/* Where the newest stands, and what the lifecycle operations do. */
static void lifecycle_note(struct settling *s, td_stream_record *record, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const td_block_entry *entry = &s->stream[i];

        if (record->marked && td_place_compare(&entry->place, &record->mark) <= 0) {
            s->refold = true;
            continue;
        }
        record->marked = true;
        record->mark = entry->place;
        lifecycle_step(&s->record.info, (enum td_life)entry->life, entry->model, &entry->place);
    }
}

/* The entries of one stream, from the first one on; returns how many. */
static size_t stream_take(struct settling *s, const td_pending_entry *entries, size_t left)
{
    const td_pending_stream *stream = entries[0].kind->stream;
    size_t count = 0;

    for (; count < left && entries[count].kind->stream == stream; count++) {
        const td_pending_entry *from = &entries[count];
        td_block_entry *entry = &s->stream[count];

        memset(entry, 0, sizeof(*entry));
        entry->place = from->place;
        entry->ordinal = from->ordinal;
        entry->hashed = stream->lifecycle;
        if (stream->lifecycle) {
            entry->life = from->kind->life;
            entry->model = from->kind->model;
        }
    }
    return count;
}

static tandem_err stream_load(td_stream_index *index, tandem_slice key, td_stream_record *out)
{
    tandem_slice value;
    tandem_err err = td_index_get(index, TD_INDEX_DOCUMENTS, key, &value);

    memset(out, 0, sizeof(*out));
    if (err == TANDEM_OK)
        err = td_stream_decode(value, out);
    return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
}

static tandem_err stream_settle(struct settling *s, const td_pending_stream *stream, size_t count)
{
    td_stream_index *index = s->index;
    const td_place *first = &s->stream[0].place;
    td_stream_record record;
    tandem_slice key;
    td_index_key at;
    tandem_err err;

    td_index_key_copy(&at, s->key);
    memcpy(at.bytes + at.size, stream->key, stream->size);
    at.size += stream->size;
    key = td_index_key_slice(&at);
    if ((err = stream_load(index, key, &record)) != TANDEM_OK)
        return err;
    if (stream->lifecycle) {
        lifecycle_note(s, &record, count);
    } else if (record.marked && td_place_compare(first, &record.mark) <= 0 &&
               !td_planted(TD_PLANTED_SNAPSHOT_OUTLIVED)) {
        if ((err = td_index_snapshots_drop(index, key, &record, first)) != TANDEM_OK)
            return err;
    }
    err = td_index_entries_put(index, s->collection, key, stream->lifecycle, record.count == 0,
                               s->stream, count);
    if (err)
        return err;
    record.count += count;
    err = td_index_stream_put(index, key, &record);
    if (err == TANDEM_OK && s->refold && stream->lifecycle)
        err = td_index_lifecycle_fold(index, s->collection, key, &s->record.info);
    return err;
}

/* A new epoch: all scopes start from empty elsewhere. */
static tandem_err epoch_changed(td_stream_index *index, tandem_slice document_key)
{
    td_stream_record record;
    td_index_names names;
    td_index_key at;
    tandem_err err;

    td_probe(index->env, TD_PROBE_EPOCH_CHANGED);
    td_index_streams_begin(&at, document_key);
    while ((err = td_index_stream_next(index, &at, &names, &record)) == TANDEM_OK) {
        if (!record.marked || names.branch.size == 0)
            continue;
        err = td_index_snapshots_drop(index, names.stream_key, &record, &td_place_zero);
        if (err != TANDEM_OK ||
            (err = td_index_stream_put(index, names.stream_key, &record)) != TANDEM_OK)
            return err;
    }
    return err == TANDEM_END ? TANDEM_OK : err;
}

/* ---- Documents ---- */

/* The entries that are new to the tables go into the record, and to new_out, which may be NULL. Returns
 * how many they are. */
static size_t document_note(const td_pending *pending, const td_pending_document *document,
                            td_document_record *record, td_pending_entry *new_out)
{
    td_pending_cursor cursor = td_pending_entries(pending, document);
    td_document_info *info = &record->info;
    uint64_t held = info->last_ordinal;
    size_t count = 0;

    for (uint32_t i = 0; i < document->count; i++) {
        td_pending_entry entry = td_pending_next(&cursor);

        if (entry.ordinal <= held)
            continue;
        models_note(record, entry.kind->model);
        info->operations++;
        info->last_ordinal = entry.ordinal;
        memcpy(info->last_origin, entry.kind->origin, TANDEM_ORIGIN_BYTES);
        info->last_seq = entry.seq;
        if (new_out)
            new_out[count] = entry;
        count++;
    }
    return count;
}

static tandem_err document_take(struct settling *s, const td_pending_document *document)
{
    s->entries = malloc(document->count * sizeof(s->entries[0]));
    s->stream = malloc(document->count * sizeof(s->stream[0]));
    if (!s->entries || !s->stream)
        return TANDEM_E_NOMEM;
    s->count = document_note(&s->index->pending, document, &s->record, s->entries);
    return TANDEM_OK;
}

static void entries_sort(struct settling *s)
{
    for (size_t i = 1; i < s->count; i++)
        if (entry_order(&s->entries[i - 1], &s->entries[i]) > 0) {
            qsort(s->entries, s->count, sizeof(s->entries[0]), entry_order);
            return;
        }
}

static tandem_err document_write(struct settling *s, const td_pending_document *document)
{
    uint8_t bytes[TD_DOCUMENT_RECORD_BYTES_MAX];
    td_place epoch;
    bool was_created;
    size_t size;
    tandem_err err = td_index_document_get(s->index, s->key, &s->record);

    was_created = s->record.info.created;
    epoch = s->record.info.epoch;
    if (err || (err = document_take(s, document)) != TANDEM_OK || s->count == 0)
        return err;
    entries_sort(s);
    for (size_t i = 0, count; i < s->count; i += count) {
        count = stream_take(s, s->entries + i, s->count - i);
        if ((err = stream_settle(s, s->entries[i].kind->stream, count)) != TANDEM_OK)
            return err;
    }
    if (s->record.info.last_ordinal > s->index->reached)
        s->index->reached = s->record.info.last_ordinal;
    size = td_document_encode(&s->record, bytes);
    err = td_index_put(s->index, TD_INDEX_DOCUMENTS, s->key, tandem_slice_of(bytes, size));
    /* What was never created was never folded. */
    if (err == TANDEM_OK && was_created && td_place_compare(&epoch, &s->record.info.epoch) != 0)
        err = epoch_changed(s->index, s->key);
    return err;
}

static tandem_err document_settle(td_stream_index *index, td_pending_document *document)
{
    td_index_collection *c = document->collection;
    struct settling s = {.index = index,
                         .collection = tandem_slice_of(c->name, c->size),
                         .key = tandem_slice_of(document->key, document->size)};
    tandem_err err = td_index_number_put(index, c);

    if (err == TANDEM_OK)
        err = document_write(&s, document);
    free(s.entries);
    free(s.stream);
    td_pending_done(document);
    return err;
}

/* ---- All of them ---- */

/* Nothing waits any more: the tables are as far as what was gathered. */
static tandem_err progress_put(td_stream_index *index)
{
    tandem_err err;

    for (td_index_collection *c = td_hash_table_first(&index->collections); c;
         c = td_hash_table_next(&c->hash_entry)) {
        if (!c->unsaved)
            continue;
        if ((err = td_index_progress_put(index, c)) != TANDEM_OK)
            return err;
        c->numbered = true;
        c->unsaved = false;
    }
    if ((err = td_index_meta_put(index)) != TANDEM_OK)
        return err;
    index->unsaved = false;
    return TANDEM_OK;
}

/* At most so many documents. */
static tandem_err settle(td_stream_index *index, uint32_t documents_max, bool *more_out)
{
    td_pending *pending = &index->pending;
    td_pending_document *document;
    tandem_err err;

    *more_out = false;
    if ((err = td_index_begin(index)) != TANDEM_OK ||
        (!pending->order && (err = td_pending_order(pending)) != TANDEM_OK))
        return err;
    for (uint32_t i = 0; i < documents_max; i++) {
        if (!(document = td_pending_take(pending))) {
            td_pending_clear(pending);
            return progress_put(index);
        }
        if ((err = document_settle(index, document)) != TANDEM_OK)
            return err;
    }
    *more_out = true;
    return TANDEM_OK;
}

/* NULL: nothing of it waits. */
static td_pending_document *waiting(const td_stream_index *index, tandem_slice document_key)
{
    td_pending_document *document = NULL;

    if (index->pending.operations && !td_planted(TD_PLANTED_READ_UNSETTLED))
        document = td_pending_find(&index->pending, document_key);
    return document && document->count ? document : NULL;
}

bool td_index_document_overlay(const td_stream_index *index, tandem_slice document_key,
                               td_document_record *record)
{
    const td_pending_document *document = waiting(index, document_key);

    if (document && document->lifecycle)
        return false;
    if (document)
        document_note(&index->pending, document, record, NULL);
    return true;
}

tandem_err td_index_settle_document(td_stream_index *index, const td_index_collection *c,
                                    tandem_slice name)
{
    td_pending_document *document;
    td_index_key key;
    tandem_err err;

    td_index_key_document(&key, c->id, name);
    if (!(document = waiting(index, td_index_key_slice(&key))))
        return TANDEM_OK;
    err = document_settle(index, document);
    return err ? td_index_undo(index, err) : TANDEM_OK;
}

tandem_err td_index_settle_all(td_stream_index *index)
{
    bool more = index->unsaved;
    tandem_err err;

    while (more) {
        if ((err = settle(index, TD_INDEX_SLICE, &more)) != TANDEM_OK)
            return td_index_undo(index, err);
        if (more && (err = td_index_commit(index)) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

tandem_err td_stream_index_settle(td_stream_index *index, uint32_t documents_max, bool *more_out)
{
    tandem_err err;

    *more_out = false;
    if (index->failed)
        return index->failed;
    if (index->unsaved && (err = settle(index, documents_max, more_out)) != TANDEM_OK) {
        *more_out = false;
        return td_index_undo(index, err);
    }
    if ((err = td_index_commit(index)) != TANDEM_OK)
        *more_out = false;
    return err;
}

tandem_err td_stream_index_commit(td_stream_index *index)
{
    bool more = true;
    tandem_err err = TANDEM_OK;

    while (err == TANDEM_OK && more)
        err = td_stream_index_settle(index, TD_INDEX_SLICE, &more);
    return err;
}
