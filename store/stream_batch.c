/*
 * Indexing. A batch is gathered while the operations are scanned, in memory alone, then written: one
 * document after the other in key order, with its streams, all that stands together at once. The
 * entries of a stream are chained as they come, which mostly is the order of their places.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "store/planted.h"
#include "store/probe.h"
#include "store/stream_state.h"

enum { TARGETS_MAX = 64 }; /* collections that one batch looks at */

struct document_node {
    td_hash_entry hash_entry;
    const td_index_collection *collection;
    td_document_record record;
    td_document_record news; /* of the batch alone */
    struct stream_node *streams;
    const struct stream_node *refold; /* its lifecycle stream, if that is to be folded anew */
    size_t size;
    uint8_t key[];
};

struct stream_node {
    td_hash_entry hash_entry;
    struct document_node *document;
    struct stream_node *next; /* of the document */
    td_stream_record record;
    bool lifecycle;
    struct entry *first, *last; /* chained as they came */
    size_t size;
    uint8_t key[];
};

struct entry {
    struct entry *next; /* of its stream */
    td_place place;
    uint64_t ordinal;
    uint8_t life;
    uint8_t model_size; /* of the lifecycle; its name stands in models */
    uint32_t model_at;
};

/* A collection that lags. What the batch makes of it counts once the batch is written. */
struct target {
    td_index_collection *collection;
    uint64_t last;
    uint64_t progress; /* the last ordinal looked at */
    uint64_t entries;
    uint64_t corrupt;
    uint64_t corrupt_first;
};

struct batch {
    td_stream_index *index;
    struct target targets[TARGETS_MAX];
    unsigned target_count;
    uint64_t beyond; /* the least progress of those that found no room in targets */

    struct target *target; /* that is being scanned */
    struct entry *entries;
    td_block_entry *sorted; /* as many: those of one stream that are written */
    uint32_t count, passed, max;
    tandem_writer models;
    td_hash_table documents;
    td_hash_table streams;
};

/* ---- Gather ---- */

/* Keep the collections that lag most, in order of their progress: nearly the order of ordinals. */
static tandem_err survey(void *context, const td_collection_info *info)
{
    struct batch *batch = context;
    td_index_collection *c = td_index_collection_find(batch->index, info->name);
    tandem_err err;
    unsigned at;

    if (!c) {
        err = td_index_collection_add(batch->index, info->name, batch->index->next_collection, &c);
        if (err)
            return err;
        batch->index->next_collection++;
    }
    if (info->last_ordinal <= c->progress)
        return TANDEM_OK;
    for (at = batch->target_count; at > 0; at--)
        if (batch->targets[at - 1].collection->progress <= c->progress)
            break;
    if (batch->target_count == TARGETS_MAX) {
        const td_index_collection *out =
            at == TARGETS_MAX ? c : batch->targets[TARGETS_MAX - 1].collection;

        if (out->progress < batch->beyond)
            batch->beyond = out->progress;
        if (out == c)
            return TANDEM_OK;
        batch->target_count--;
    }
    memmove(&batch->targets[at + 1], &batch->targets[at],
            (batch->target_count - at) * sizeof(batch->targets[0]));
    batch->targets[at] = (struct target){.collection = c,
                                         .last = info->last_ordinal,
                                         .progress = c->progress,
                                         .entries = c->entries,
                                         .corrupt = c->corrupt,
                                         .corrupt_first = c->corrupt_first};
    batch->target_count++;
    return TANDEM_OK;
}

static struct document_node *document_node(struct batch *batch, const td_operation *operation)
{
    struct document_node *node;
    td_index_key key;

    td_index_key_document(&key, batch->target->collection->id, operation->document);
    node = td_hash_table_find(&batch->documents, td_index_key_slice(&key));
    if (node || !(node = calloc(1, sizeof(*node) + key.size)))
        return node;
    node->collection = batch->target->collection;
    node->size = key.size;
    memcpy(node->key, key.bytes, key.size);
    if (td_hash_table_add(&batch->documents, &node->hash_entry,
                          tandem_slice_of(node->key, node->size), node) == TANDEM_OK)
        return node;
    free(node);
    return NULL;
}

static struct stream_node *stream_node(struct batch *batch, const td_operation *operation)
{
    struct document_node *document;
    struct stream_node *node;
    td_index_key key;

    td_index_key_stream(&key, batch->target->collection->id, operation->document, operation->branch,
                        operation->scope);
    node = td_hash_table_find(&batch->streams, td_index_key_slice(&key));
    if (node || !(document = document_node(batch, operation)) ||
        !(node = calloc(1, sizeof(*node) + key.size)))
        return node;
    node->document = document;
    node->lifecycle = td_scope_is_lifecycle(operation->scope);
    node->size = key.size;
    memcpy(node->key, key.bytes, key.size);
    if (td_hash_table_add(&batch->streams, &node->hash_entry,
                          tandem_slice_of(node->key, node->size), node) != TANDEM_OK) {
        free(node);
        return NULL;
    }
    node->next = document->streams;
    document->streams = node;
    return node;
}

enum td_life td_index_life(const td_operation *operation)
{
    tandem_slice verb = td_type_verb(operation->type);

    if (tandem_slice_equal(verb, tandem_slice_text("CREATE")))
        return TD_LIFE_CREATE;
    if (tandem_slice_equal(verb, tandem_slice_text("DELETE")))
        return TD_LIFE_DELETE;
    return TD_LIFE_NOTHING;
}

static void pass_over(struct target *target, uint64_t ordinal, uint64_t records)
{
    if (target->corrupt == 0)
        target->corrupt_first = ordinal;
    target->corrupt += records;
}

static tandem_err gather(void *context, tandem_err err, uint64_t ordinal,
                         const td_operation *operation)
{
    struct batch *batch = context;
    struct target *target = batch->target;
    struct entry *entry = &batch->entries[batch->count];
    struct stream_node *stream;

    if (batch->count + batch->passed == batch->max)
        return TANDEM_END;
    if (err) {
        pass_over(target, ordinal, 1);
        batch->passed++;
        target->progress = ordinal;
        return TANDEM_OK;
    }
    if (!(stream = stream_node(batch, operation)))
        return TANDEM_E_NOMEM;
    *entry = (struct entry){.place = td_place_of(operation), .ordinal = ordinal};
    if (td_planted(TD_PLANTED_FOLDED_AS_IT_CAME))
        td_put_u64(entry->place.bytes, ordinal);
    if (stream->lifecycle) {
        tandem_slice model = td_type_model(operation->type);

        entry->life = (uint8_t)td_index_life(operation);
        entry->model_at = (uint32_t)batch->models.size;
        entry->model_size = (uint8_t)model.size;
        tandem_write_raw(&batch->models, model);
    }
    if (stream->last)
        stream->last->next = entry;
    else
        stream->first = entry;
    stream->last = entry;
    td_index_document_note(&stream->document->news, operation, ordinal);
    batch->count++;
    target->entries++;
    target->progress = ordinal;
    return tandem_writer_err(&batch->models);
}

/*
 * The scan came to the collection's end. Are records gone that the collection counts? verify tells
 * which. What arrived meanwhile leaves the question to the next batch.
 */
static tandem_err count_gone(struct batch *batch, struct target *target)
{
    const td_index_collection *c = target->collection;
    td_collection_info info;
    uint64_t known = target->entries + target->corrupt;
    tandem_err err = td_op_store_collection(batch->index->ops, tandem_slice_of(c->name, c->size),
                                            &info);

    if (err)
        return err;
    if (target->progress < target->last)
        target->progress = target->last;
    if (info.last_ordinal == target->progress && info.operations > known)
        pass_over(target, c->progress + 1, info.operations - known);
    return TANDEM_OK;
}

/* Scan until the budget is spent. lowest_out: everything up to there is in the batch or indexed. */
static tandem_err gather_all(struct batch *batch, uint64_t *lowest_out)
{
    uint64_t lowest = batch->beyond;

    for (unsigned i = 0; i < batch->target_count; i++) {
        struct target *target = &batch->targets[i];
        const td_index_collection *c = target->collection;
        tandem_err err;

        batch->target = target;
        err = td_op_store_scan(batch->index->ops, tandem_slice_of(c->name, c->size), c->progress,
                               gather, batch);
        if (err < TANDEM_OK)
            return err;
        if (err == TANDEM_OK && (err = count_gone(batch, target)) != TANDEM_OK)
            return err;
        if (err == TANDEM_END && target->progress < lowest)
            lowest = target->progress;
    }
    *lowest_out = lowest;
    return TANDEM_OK;
}

/* ---- Write ---- */

static int place_order(const void *a, const void *b)
{
    const td_block_entry *x = a, *y = b;

    return td_place_compare(&x->place, &y->place);
}

static int document_order(const void *a, const void *b)
{
    const struct document_node *x = a, *y = b;

    return tandem_slice_compare(tandem_slice_of(x->key, x->size), tandem_slice_of(y->key, y->size));
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

/* What the batch knows of a document is newer than its record. */
static void document_merge(td_document_record *record, const td_document_record *news)
{
    models_note(record, td_model_name_slice(&news->least));
    models_note(record, td_model_name_slice(&news->greatest));
    record->info.operations += news->info.operations;
    record->info.last_ordinal = news->info.last_ordinal;
    memcpy(record->info.last_origin, news->info.last_origin, TANDEM_ORIGIN_BYTES);
    record->info.last_seq = news->info.last_seq;
}

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

/* The entries of a stream, in order, in batch->sorted; returns how many. */
static size_t entries_sort(struct batch *batch, const struct stream_node *stream)
{
    bool in_order = true;
    size_t count = 0;

    for (const struct entry *e = stream->first; e; e = e->next, count++) {
        batch->sorted[count] = (td_block_entry){
            .place = e->place,
            .ordinal = e->ordinal,
            .life = e->life,
            .model = tandem_slice_of(batch->models.bytes + e->model_at, e->model_size)};
        if (count > 0 &&
            td_place_compare(&batch->sorted[count - 1].place, &batch->sorted[count].place) > 0)
            in_order = false;
    }
    if (!in_order)
        qsort(batch->sorted, count, sizeof(batch->sorted[0]), place_order);
    return count;
}

/* Where the newest stands, and what the lifecycle operations do. */
static void lifecycle_note(struct stream_node *stream, const td_block_entry *entries, size_t count)
{
    td_stream_record *record = &stream->record;
    struct document_node *document = stream->document;

    for (size_t i = 0; i < count; i++) {
        if (record->marked && td_place_compare(&entries[i].place, &record->mark) <= 0) {
            document->refold = stream;
            continue;
        }
        record->marked = true;
        record->mark = entries[i].place;
        lifecycle_step(&document->record.info, (enum td_life)entries[i].life, entries[i].model,
                       &entries[i].place);
    }
}

static tandem_err stream_load(td_stream_index *index, struct stream_node *stream)
{
    tandem_slice value;
    tandem_err err = td_index_get(index, TD_INDEX_DOCUMENTS,
                                  tandem_slice_of(stream->key, stream->size), &value);

    if (err == TANDEM_OK)
        err = td_stream_decode(value, &stream->record);
    return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
}

static tandem_err stream_write(struct batch *batch, struct stream_node *stream)
{
    const td_index_collection *c = stream->document->collection;
    tandem_slice key = tandem_slice_of(stream->key, stream->size);
    const td_place *first = &batch->sorted[0].place;
    td_stream_record *record = &stream->record;
    size_t count = entries_sort(batch, stream);
    tandem_err err = stream_load(batch->index, stream);

    if (err)
        return err;
    if (stream->lifecycle) {
        lifecycle_note(stream, batch->sorted, count);
    } else if (record->marked && td_place_compare(first, &record->mark) <= 0 &&
               !td_planted(TD_PLANTED_SNAPSHOT_OUTLIVED)) {
        if ((err = td_index_snapshots_drop(batch->index, key, record, first)) != TANDEM_OK)
            return err;
    }
    err = td_index_entries_put(batch->index, tandem_slice_of(c->name, c->size), key,
                               stream->lifecycle, record->count == 0, batch->sorted, count);
    if (err)
        return err;
    record->count += count;
    return td_index_stream_put(batch->index, key, record);
}

/* A new epoch: all scopes start from empty elsewhere. The streams of the batch are written. */
static tandem_err epoch_changed(td_stream_index *index, const struct document_node *document)
{
    td_stream_record record;
    td_index_names names;
    td_index_key at;
    tandem_err err;

    td_probe(index->env, TD_PROBE_EPOCH_CHANGED);
    td_index_streams_begin(&at, tandem_slice_of(document->key, document->size));
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

static tandem_err document_write(struct batch *batch, struct document_node *d)
{
    const td_index_collection *c = d->collection;
    tandem_slice key = tandem_slice_of(d->key, d->size), value;
    uint8_t bytes[TD_DOCUMENT_RECORD_BYTES_MAX];
    td_stream_index *index = batch->index;
    td_place epoch;
    bool was_created;
    size_t size;
    tandem_err err = td_index_get(index, TD_INDEX_DOCUMENTS, key, &value);

    if (err == TANDEM_OK)
        err = td_document_decode(value, &d->record);
    if (err && err != TANDEM_E_NOT_FOUND)
        return err;
    document_merge(&d->record, &d->news);
    was_created = d->record.info.created;
    epoch = d->record.info.epoch;
    for (struct stream_node *s = d->streams; s; s = s->next)
        if ((err = stream_write(batch, s)) != TANDEM_OK)
            return err;
    if (d->refold) {
        err = td_index_lifecycle_fold(index, tandem_slice_of(c->name, c->size),
                                      tandem_slice_of(d->refold->key, d->refold->size),
                                      &d->record.info);
        if (err != TANDEM_OK)
            return err;
    }
    size = td_document_encode(&d->record, bytes);
    err = td_index_put(index, TD_INDEX_DOCUMENTS, key, tandem_slice_of(bytes, size));
    /* What was never created was never folded. */
    if (err == TANDEM_OK && was_created && td_place_compare(&epoch, &d->record.info.epoch) != 0)
        err = epoch_changed(index, d);
    return err;
}

static tandem_err batch_write(struct batch *batch, uint64_t position)
{
    td_stream_index *index = batch->index;
    tandem_err err;

    if ((err = td_index_begin(index)) != TANDEM_OK)
        return err;
    td_hash_table_sort(&batch->documents, document_order);
    for (struct document_node *d = td_hash_table_first(&batch->documents); d;
         d = td_hash_table_next(&d->hash_entry))
        if ((err = document_write(batch, d)) != TANDEM_OK)
            return err;
    for (unsigned i = 0; i < batch->target_count; i++) {
        const struct target *target = &batch->targets[i];
        td_index_collection *c = target->collection;

        index->corrupt += target->corrupt - c->corrupt;
        c->progress = target->progress;
        c->entries = target->entries;
        c->corrupt = target->corrupt;
        c->corrupt_first = target->corrupt_first;
        if ((err = td_index_progress_put(index, c)) != TANDEM_OK)
            return err;
    }
    index->position = position;
    if ((err = td_index_meta_put(index)) != TANDEM_OK)
        return err;
    index->dirty += batch->count + batch->passed;
    index->dirty_documents += td_hash_table_count(&batch->documents);
    index->indexed += batch->count;
    return TANDEM_OK;
}

static void batch_release(struct batch *batch)
{
    td_hash_table_clear(&batch->streams, free);
    td_hash_table_clear(&batch->documents, free);
    tandem_writer_release(&batch->models);
    free(batch->entries);
    free(batch->sorted);
}

tandem_err td_stream_index_advance(td_stream_index *index, uint32_t operations_max,
                                   uint64_t *position_out, bool *current_out)
{
    struct batch batch = {.index = index, .beyond = UINT64_MAX, .max = operations_max};
    uint64_t last, position, lowest = UINT64_MAX;
    tandem_err err;

    assert(operations_max >= 1);
    if (index->failed)
        return index->failed;
    tandem_writer_init(&batch.models);
    /* First: what is committed from here on may or may not get into the batch. */
    if ((err = td_op_store_last_ordinal(index->ops, &last)) != TANDEM_OK ||
        (err = td_op_store_collections(index->ops, tandem_slice_of(NULL, 0), survey, &batch)) !=
            TANDEM_OK)
        goto out;
    if (batch.target_count) {
        batch.entries = malloc(operations_max * sizeof(batch.entries[0]));
        batch.sorted = malloc(operations_max * sizeof(batch.sorted[0]));
        if (!batch.entries || !batch.sorted) {
            err = TANDEM_E_NOMEM;
            goto out;
        }
        if ((err = gather_all(&batch, &lowest)) != TANDEM_OK)
            goto out;
    }
    position = lowest < last ? lowest : last;
    if (position < index->position)
        position = index->position;
    if (batch.target_count && (err = batch_write(&batch, position)) != TANDEM_OK) {
        td_index_undo(index, err);
        goto out;
    }
    index->position = position;
    *position_out = position;
    *current_out = lowest == UINT64_MAX;

out:
    batch_release(&batch);
    return err;
}
