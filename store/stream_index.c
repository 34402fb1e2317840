/*
 * Keys. A collection gets a local number, a stream another one, so that no key is longer than LMDB
 * takes and entries of one stream stand together in total order:
 *
 *   progress   collection -> number u32, last indexed ordinal u64, corrupt records u64, first u64
 *   documents  number, document -> info
 *   streams    number, document, 0, branch, 0, scope -> stream u64, count u64, mark
 *   entries    stream u64, place -> ordinal u64 (lifecycle: and what it does to which model)
 *   snapshots  stream u64, place -> folded u64, model version u32, XXH3 u64, bytes
 *
 * Names hold no zero byte, so key order is byte order of (document, branch, scope). The lifecycle
 * stream has an empty branch, which no name is.
 *
 * The mark of a stream is a place after which none of its snapshots lies, and of the lifecycle
 * stream its last place: what arrives late is told by one comparison, without a look at the tables.
 *
 * A batch is gathered while the operations are scanned, in memory alone, then loaded, sorted and
 * written: each document and stream once, entries in key order.
 */
#include "store/stream_index.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "store/hash_table.h"

enum { META, PROGRESS, DOCUMENTS, STREAMS, ENTRIES, SNAPSHOTS, TABLES };

const char *const td_stream_index_tables[] = {"meta",    "progress", "documents",
                                              "streams", "entries",  "snapshots"};
const unsigned td_stream_index_table_count = TABLES;

enum {
    INDEX_VERSION = 1,
    TARGETS_MAX = 64, /* collections that one batch looks at */
    ENTRY_KEY_BYTES = 8 + (int)sizeof(td_place),
    SNAPSHOT_HEADER_BYTES = 8 + 4 + 8,
    STREAM_BYTES_MAX = 8 + 8 + 1 + (int)sizeof(td_place),
    MODEL_BYTES_MAX = 1 + TANDEM_NAME_BYTES_MAX,
    DOCUMENT_FIXED_BYTES = 1 + 8 + 8 + 8 + TANDEM_ORIGIN_BYTES + (int)sizeof(td_place),
    DOCUMENT_BYTES_MAX = DOCUMENT_FIXED_BYTES + 3 * MODEL_BYTES_MAX,
};

_Static_assert(4 + 3 * TANDEM_NAME_BYTES_MAX + 2 <= TD_STORE_KEY_BYTES_MAX, "names fit a key");

static const td_place place_zero;

/* What a lifecycle operation does. */
enum life { LIFE_NOTHING, LIFE_CREATE, LIFE_DELETE };

struct key {
    size_t size;
    uint8_t bytes[TD_STORE_KEY_BYTES_MAX];
};

struct model_name {
    uint8_t size;
    uint8_t bytes[TANDEM_NAME_BYTES_MAX];
};

struct document_record {
    td_document_info info;
    /* The least and the greatest model name of its operations: they tell, whatever came first,
     * whether any is another than the document's. */
    struct model_name least, greatest;
};

struct stream_record {
    uint64_t id;
    uint64_t count;
    bool marked;
    td_place mark;
};

/* A collection that the index knows; all of them are in memory. */
struct collection {
    UT_hash_handle hh;
    uint32_t id;
    uint64_t progress;
    uint64_t corrupt;
    uint64_t corrupt_first;
    size_t size;
    char name[];
};

struct td_stream_index {
    tandem_env *env;
    td_store *store;
    td_op_store *ops;
    td_txn *txn;
    bool changed; /* something was put in txn */
    uint32_t dirty;
    tandem_err failed;
    struct collection *collections;
    uint32_t next_collection;
    uint64_t next_stream;
    uint64_t position;
    uint64_t indexed;
    uint64_t corrupt;
};

/* ---- Keys and records ---- */

static bool name_fits(tandem_slice name)
{
    return name.size <= TANDEM_NAME_BYTES_MAX &&
           (name.size == 0 || !memchr(name.bytes, 0, name.size));
}

static void key_add(struct key *key, const void *bytes, size_t size)
{
    assert(key->size + size <= sizeof(key->bytes));
    if (size)
        memcpy(key->bytes + key->size, bytes, size);
    key->size += size;
}

static tandem_slice key_slice(const struct key *key)
{
    return tandem_slice_of(key->bytes, key->size);
}

static void key_document(struct key *key, uint32_t id, tandem_slice document)
{
    td_put_u32(key->bytes, id);
    key->size = 4;
    key_add(key, document.bytes, document.size);
}

static bool is_lifecycle(tandem_slice scope)
{
    return tandem_slice_equal(scope, tandem_slice_text(TD_SCOPE_DOCUMENT));
}

static void key_stream(struct key *key, uint32_t id, tandem_slice document, tandem_slice branch,
                       tandem_slice scope)
{
    key_document(key, id, document);
    key_add(key, "", 1);
    if (!is_lifecycle(scope))
        key_add(key, branch.bytes, branch.size);
    key_add(key, "", 1);
    key_add(key, scope.bytes, scope.size);
}

static void key_place(struct key *key, uint64_t stream, const td_place *place)
{
    td_put_u64(key->bytes, stream);
    key->size = 8;
    key_add(key, place->bytes, sizeof(place->bytes));
}

static bool starts_with(tandem_slice bytes, tandem_slice prefix)
{
    return bytes.size >= prefix.size && memcmp(bytes.bytes, prefix.bytes, prefix.size) == 0;
}

static int place_compare(const td_place *a, const td_place *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

static td_place place_of(const td_operation *operation)
{
    td_place place;

    td_put_u64(place.bytes, operation->hlc);
    memcpy(place.bytes + 8, operation->origin, TANDEM_ORIGIN_BYTES);
    td_put_u64(place.bytes + 8 + TANDEM_ORIGIN_BYTES, operation->seq);
    memcpy(place.bytes + 16 + TANDEM_ORIGIN_BYTES, operation->hash, 16);
    return place;
}

static tandem_slice model_slice(const struct model_name *name)
{
    return tandem_slice_of(name->bytes, name->size);
}

static void model_set(struct model_name *name, tandem_slice model)
{
    assert(model.size <= TANDEM_NAME_BYTES_MAX);
    name->size = (uint8_t)model.size;
    if (model.size)
        memcpy(name->bytes, model.bytes, model.size);
}

static size_t model_encode(uint8_t *out, tandem_slice model)
{
    out[0] = (uint8_t)model.size;
    if (model.size)
        memcpy(out + 1, model.bytes, model.size);
    return 1 + model.size;
}

static bool model_decode(tandem_slice *value, struct model_name *out)
{
    if (value->size < 1 || value->bytes[0] > TANDEM_NAME_BYTES_MAX ||
        value->size < 1 + (size_t)value->bytes[0])
        return false;
    model_set(out, tandem_slice_of(value->bytes + 1, value->bytes[0]));
    value->bytes += 1 + out->size;
    value->size -= 1 + (size_t)out->size;
    return true;
}

static size_t document_encode(const struct document_record *record, uint8_t *out)
{
    const td_document_info *info = &record->info;
    uint8_t *at = out;

    *at++ = (uint8_t)(info->created | info->deleted << 1);
    td_put_u64(at, info->operations);
    td_put_u64(at + 8, info->last_ordinal);
    td_put_u64(at + 16, info->last_seq);
    memcpy(at + 24, info->last_origin, TANDEM_ORIGIN_BYTES);
    at += 24 + TANDEM_ORIGIN_BYTES;
    memcpy(at, info->epoch.bytes, sizeof(info->epoch.bytes));
    at += sizeof(info->epoch.bytes);
    at += model_encode(at, tandem_slice_text(info->model));
    at += model_encode(at, model_slice(&record->least));
    at += model_encode(at, model_slice(&record->greatest));
    return (size_t)(at - out);
}

static tandem_err document_decode(tandem_slice value, struct document_record *record)
{
    td_document_info *info = &record->info;
    const uint8_t *at = value.bytes;
    struct model_name model;

    memset(record, 0, sizeof(*record));
    if (value.size < DOCUMENT_FIXED_BYTES || at[0] > 3)
        return TANDEM_E_CORRUPT;
    info->known = true;
    info->created = at[0] & 1;
    info->deleted = at[0] & 2;
    info->operations = td_get_u64(at + 1);
    info->last_ordinal = td_get_u64(at + 9);
    info->last_seq = td_get_u64(at + 17);
    memcpy(info->last_origin, at + 25, TANDEM_ORIGIN_BYTES);
    memcpy(info->epoch.bytes, at + 25 + TANDEM_ORIGIN_BYTES, sizeof(info->epoch.bytes));
    value.bytes += DOCUMENT_FIXED_BYTES;
    value.size -= DOCUMENT_FIXED_BYTES;
    if (!model_decode(&value, &model) || !model_decode(&value, &record->least) ||
        !model_decode(&value, &record->greatest) || value.size)
        return TANDEM_E_CORRUPT;
    memcpy(info->model, model.bytes, model.size);
    info->model[model.size] = '\0';
    info->conflict = info->created &&
                     (!tandem_slice_equal(model_slice(&model), model_slice(&record->least)) ||
                      !tandem_slice_equal(model_slice(&model), model_slice(&record->greatest)));
    return TANDEM_OK;
}

static size_t stream_encode(const struct stream_record *record, uint8_t *out)
{
    td_put_u64(out, record->id);
    td_put_u64(out + 8, record->count);
    out[16] = record->marked;
    if (!record->marked)
        return 17;
    memcpy(out + 17, record->mark.bytes, sizeof(record->mark.bytes));
    return STREAM_BYTES_MAX;
}

static tandem_err stream_decode(tandem_slice value, struct stream_record *record)
{
    memset(record, 0, sizeof(*record));
    if (value.size < 17 || value.bytes[16] > 1 ||
        value.size != (value.bytes[16] ? (size_t)STREAM_BYTES_MAX : 17))
        return TANDEM_E_CORRUPT;
    record->id = td_get_u64(value.bytes);
    record->count = td_get_u64(value.bytes + 8);
    record->marked = value.bytes[16];
    if (record->marked)
        memcpy(record->mark.bytes, value.bytes + 17, sizeof(record->mark.bytes));
    return TANDEM_OK;
}

/* ---- Transactions and failure ---- */

static tandem_err begin(td_stream_index *index)
{
    if (index->failed)
        return index->failed;
    return index->txn ? TANDEM_OK : td_store_begin_write(index->store, &index->txn);
}

static tandem_err put(td_stream_index *index, unsigned table, tandem_slice key, tandem_slice value)
{
    index->changed = true;
    return td_txn_put(index->txn, table, key, value);
}

static tandem_err del(td_stream_index *index, unsigned table, tandem_slice key)
{
    index->changed = true;
    return td_txn_del(index->txn, table, key);
}

static void collections_free(td_stream_index *index)
{
    struct collection *c, *next;

    HASH_ITER(hh, index->collections, c, next) {
        HASH_DEL(index->collections, c);
        free(c);
    }
}

static struct collection *collection_find(const td_stream_index *index, tandem_slice name)
{
    struct collection *c;

    if (!name_fits(name) || name.size == 0)
        return NULL;
    HASH_FIND(hh, index->collections, name.bytes, name.size, c);
    return c;
}

static tandem_err collection_add(td_stream_index *index, tandem_slice name, uint32_t id,
                                 struct collection **out)
{
    struct collection *c = calloc(1, sizeof(*c) + name.size);

    if (!c)
        return TANDEM_E_NOMEM;
    c->id = id;
    c->size = name.size;
    memcpy(c->name, name.bytes, name.size);
    HASH_ADD_KEYPTR(hh, index->collections, c->name, c->size, c);
    if (!c->hh.tbl) {
        free(c);
        return TANDEM_E_NOMEM;
    }
    *out = c;
    return TANDEM_OK;
}

static tandem_err meta_get(td_stream_index *index, const char *name, uint64_t *out)
{
    tandem_slice value;
    tandem_err err = td_txn_get(index->txn, META, tandem_slice_text(name), &value);

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
    return put(index, META, tandem_slice_text(name), tandem_slice_of(bytes, sizeof(bytes)));
}

static tandem_err meta_put_all(td_stream_index *index)
{
    tandem_err err;

    if ((err = meta_put(index, "position", index->position)) != TANDEM_OK ||
        (err = meta_put(index, "next_stream", index->next_stream)) != TANDEM_OK)
        return err;
    return meta_put(index, "next_collection", index->next_collection);
}

static tandem_err progress_load(td_stream_index *index)
{
    tandem_slice key, value;
    struct collection *c;
    td_cursor *cursor;
    tandem_err err = td_txn_cursor(index->txn, PROGRESS, &cursor);

    if (err)
        return err;
    for (err = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value); !err;
         err = td_cursor_next(cursor, &key, &value)) {
        if (value.size != 28 || !name_fits(key))
            err = TANDEM_E_CORRUPT;
        else
            err = collection_add(index, key, td_get_u32(value.bytes), &c);
        if (err)
            break;
        c->progress = td_get_u64(value.bytes + 4);
        c->corrupt = td_get_u64(value.bytes + 12);
        c->corrupt_first = td_get_u64(value.bytes + 20);
    }
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}

/* Read what is kept in memory as of the last commit. */
static tandem_err load(td_stream_index *index)
{
    uint64_t next_collection = 0;
    tandem_err err;

    collections_free(index);
    index->dirty = 0;
    index->changed = false;
    if ((err = begin(index)) != TANDEM_OK ||
        (err = meta_get(index, "position", &index->position)) != TANDEM_OK ||
        (err = meta_get(index, "next_stream", &index->next_stream)) != TANDEM_OK ||
        (err = meta_get(index, "next_collection", &next_collection)) != TANDEM_OK)
        return err;
    index->next_collection = (uint32_t)next_collection;
    return progress_load(index);
}

/* A change failed half way: go back to the last commit. Returns err. */
static tandem_err undo(td_stream_index *index, tandem_err err)
{
    td_txn_abort(index->txn);
    index->txn = NULL;
    if (err != TANDEM_E_STORE_FULL && err != TANDEM_E_NOMEM)
        index->failed = err;
    else if ((index->failed = td_store_recover(index->store)) == TANDEM_OK)
        index->failed = load(index);
    if (index->failed)
        td_log(index->env, TANDEM_LOG_ERROR, "index", "the stream index is unusable: %s",
               tandem_err_name(index->failed));
    return err;
}

/* The outcome of a reading call: what cannot be read makes the index unusable. */
static tandem_err outcome(td_stream_index *index, tandem_err err)
{
    if (err < TANDEM_OK && err != TANDEM_E_NOMEM && err != TANDEM_E_NOT_FOUND && !index->failed)
        index->failed = err;
    return err;
}

/* ---- Open ---- */

static tandem_err identity_put(td_stream_index *index)
{
    const td_identity *identity = td_op_store_identity(index->ops);
    tandem_err err;

    index->next_stream = 1;
    index->next_collection = 1;
    if ((err = meta_put_all(index)) != TANDEM_OK ||
        (err = put(index, META, tandem_slice_text("reactor"),
                   tandem_slice_of(identity->reactor, sizeof(identity->reactor)))) != TANDEM_OK)
        return err;
    return meta_put(index, "version", INDEX_VERSION);
}

static tandem_err identity_check(td_stream_index *index)
{
    const td_identity *identity = td_op_store_identity(index->ops);
    tandem_slice reactor;
    uint64_t version;
    tandem_err err;

    if ((err = meta_get(index, "version", &version)) != TANDEM_OK)
        return err;
    err = td_txn_get(index->txn, META, tandem_slice_text("reactor"), &reactor);
    if (err)
        return err == TANDEM_E_NOT_FOUND ? TANDEM_E_CORRUPT : err;
    if (version != INDEX_VERSION || reactor.size != sizeof(identity->reactor) ||
        memcmp(reactor.bytes, identity->reactor, reactor.size) != 0)
        return TANDEM_E_CORRUPT;
    return TANDEM_OK;
}

/* An index ahead of its operations was left behind by a store that is gone. */
static tandem_err ahead_check(td_stream_index *index)
{
    td_collection_info info;
    struct collection *c;
    uint64_t last;
    tandem_err err = td_op_store_last_ordinal(index->ops, &last);

    if (err)
        return err;
    if (index->position > last)
        return TANDEM_E_CORRUPT;
    for (c = index->collections; c; c = c->hh.next) {
        err = td_op_store_collection(index->ops, tandem_slice_of(c->name, c->size), &info);
        if (err)
            return err;
        if (c->progress > info.last_ordinal)
            return TANDEM_E_CORRUPT;
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
    if ((err = begin(index)) != TANDEM_OK)
        goto fail;
    err = identity_check(index);
    if (err == TANDEM_E_NOT_FOUND)
        err = identity_put(index);
    if (err || (err = td_stream_index_commit(index)) != TANDEM_OK ||
        (err = load(index)) != TANDEM_OK || (err = ahead_check(index)) != TANDEM_OK ||
        (err = td_stream_index_commit(index)) != TANDEM_OK)
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
    collections_free(index);
    td_store_free(index->store);
    free(index);
}

tandem_err td_stream_index_commit(td_stream_index *index)
{
    td_txn *txn = index->txn;
    tandem_err err;

    if (index->failed)
        return index->failed;
    if (!txn)
        return TANDEM_OK;
    if (!index->changed) {
        index->txn = NULL;
        td_txn_abort(txn);
        return TANDEM_OK;
    }
    index->txn = NULL;
    err = td_txn_commit(txn);
    if (err)
        return undo(index, err);
    index->changed = false;
    index->dirty = 0;
    return TANDEM_OK;
}

/* ---- Indexing: gather ---- */

struct stream_node;

struct document_node {
    UT_hash_handle hh;
    struct document_record record;
    bool was_created;
    td_place epoch_before;
    bool lifecycle_late; /* fold the lifecycle stream anew */
    struct stream_node *lifecycle;
    size_t size;
    uint8_t key[];
};

struct stream_node {
    UT_hash_handle hh;
    struct document_node *document;
    struct stream_record record;
    bool lifecycle;
    size_t size;
    uint8_t key[];
};

struct entry {
    struct stream_node *stream;
    td_place place;
    uint64_t ordinal;
    enum life life;
    uint32_t model_at;
    uint8_t model_size;
};

/* A collection that lags. What the batch makes of it counts once the batch is written. */
struct target {
    struct collection *collection;
    uint64_t last;
    uint64_t progress; /* the last ordinal looked at */
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
    uint32_t count, passed, max;
    tandem_writer models;
    struct document_node *documents;
    struct stream_node *streams;
};

/* Keep the collections that lag most, in order of their progress: nearly the order of ordinals. */
static tandem_err survey(void *context, const td_collection_info *info)
{
    struct batch *batch = context;
    struct collection *c = collection_find(batch->index, info->name);
    tandem_err err;
    unsigned at;

    if (!c) {
        err = collection_add(batch->index, info->name, batch->index->next_collection, &c);
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
        const struct collection *out =
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
                                         .corrupt = c->corrupt,
                                         .corrupt_first = c->corrupt_first};
    batch->target_count++;
    return TANDEM_OK;
}

static struct document_node *document_node(struct batch *batch, const td_operation *operation)
{
    struct document_node *node;
    struct key key;

    key_document(&key, batch->target->collection->id, operation->document);
    HASH_FIND(hh, batch->documents, key.bytes, key.size, node);
    if (node || !(node = calloc(1, sizeof(*node) + key.size)))
        return node;
    node->size = key.size;
    memcpy(node->key, key.bytes, key.size);
    HASH_ADD_KEYPTR(hh, batch->documents, node->key, node->size, node);
    if (!node->hh.tbl) {
        free(node);
        return NULL;
    }
    return node;
}

static struct stream_node *stream_node(struct batch *batch, const td_operation *operation)
{
    struct document_node *document;
    struct stream_node *node;
    struct key key;

    key_stream(&key, batch->target->collection->id, operation->document, operation->branch,
               operation->scope);
    HASH_FIND(hh, batch->streams, key.bytes, key.size, node);
    if (node || !(document = document_node(batch, operation)) ||
        !(node = calloc(1, sizeof(*node) + key.size)))
        return node;
    node->document = document;
    node->lifecycle = is_lifecycle(operation->scope);
    node->size = key.size;
    memcpy(node->key, key.bytes, key.size);
    HASH_ADD_KEYPTR(hh, batch->streams, node->key, node->size, node);
    if (!node->hh.tbl) {
        free(node);
        return NULL;
    }
    if (node->lifecycle)
        document->lifecycle = node;
    return node;
}

static enum life life_of(const td_operation *operation)
{
    tandem_slice verb = td_type_verb(operation->type);

    if (tandem_slice_equal(verb, tandem_slice_text("CREATE")))
        return LIFE_CREATE;
    if (tandem_slice_equal(verb, tandem_slice_text("DELETE")))
        return LIFE_DELETE;
    return LIFE_NOTHING;
}

static void pass_over(struct target *target, uint64_t ordinal)
{
    if (target->corrupt++ == 0)
        target->corrupt_first = ordinal;
}

static tandem_err gather(void *context, tandem_err err, uint64_t ordinal,
                         const td_operation *operation)
{
    struct batch *batch = context;
    struct target *target = batch->target;
    struct entry *entry = &batch->entries[batch->count];
    tandem_slice model;

    if (batch->count + batch->passed == batch->max)
        return TANDEM_END;
    if (err) {
        pass_over(target, ordinal);
        batch->passed++;
        target->progress = ordinal;
        return TANDEM_OK;
    }
    memset(entry, 0, sizeof(*entry));
    if (!(entry->stream = stream_node(batch, operation)))
        return TANDEM_E_NOMEM;
    entry->place = place_of(operation);
    entry->ordinal = ordinal;
    entry->life = entry->stream->lifecycle ? life_of(operation) : LIFE_NOTHING;
    model = td_type_model(operation->type);
    entry->model_at = (uint32_t)batch->models.size;
    entry->model_size = (uint8_t)model.size;
    tandem_write_raw(&batch->models, model);
    batch->count++;
    target->progress = ordinal;
    return tandem_writer_err(&batch->models);
}

/* Scan until the budget is spent. lowest_out: everything up to there is in the batch or indexed. */
static tandem_err gather_all(struct batch *batch, uint64_t *lowest_out)
{
    uint64_t lowest = batch->beyond;

    for (unsigned i = 0; i < batch->target_count; i++) {
        struct target *target = &batch->targets[i];
        const struct collection *c = target->collection;
        tandem_err err;

        batch->target = target;
        err = td_op_store_scan(batch->index->ops, tandem_slice_of(c->name, c->size), c->progress,
                               gather, batch);
        if (err < TANDEM_OK)
            return err;
        if (err == TANDEM_OK && target->progress < target->last) {
            /* Records are gone that the collection counts: verify tells which. */
            pass_over(target, target->progress + 1);
            target->progress = target->last;
        }
        if (err == TANDEM_END && target->progress < lowest)
            lowest = target->progress;
    }
    *lowest_out = lowest;
    return TANDEM_OK;
}

/* ---- Indexing: write ---- */

static tandem_slice entry_model(const struct batch *batch, const struct entry *entry)
{
    return tandem_slice_of(batch->models.bytes + entry->model_at, entry->model_size);
}

static int entry_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->stream->record.id != y->stream->record.id)
        return x->stream->record.id < y->stream->record.id ? -1 : 1;
    return place_compare(&x->place, &y->place);
}

static int document_order(const struct document_node *a, const struct document_node *b)
{
    return tandem_slice_compare(tandem_slice_of(a->key, a->size), tandem_slice_of(b->key, b->size));
}

static int stream_order(const struct stream_node *a, const struct stream_node *b)
{
    return tandem_slice_compare(tandem_slice_of(a->key, a->size), tandem_slice_of(b->key, b->size));
}

static tandem_err batch_load(struct batch *batch)
{
    td_stream_index *index = batch->index;
    tandem_slice value;
    tandem_err err;

    HASH_SORT(batch->documents, document_order);
    HASH_SORT(batch->streams, stream_order);
    for (struct document_node *d = batch->documents; d; d = d->hh.next) {
        err = td_txn_get(index->txn, DOCUMENTS, tandem_slice_of(d->key, d->size), &value);
        if (err == TANDEM_OK)
            err = document_decode(value, &d->record);
        if (err && err != TANDEM_E_NOT_FOUND)
            return err;
        d->was_created = d->record.info.created;
        d->epoch_before = d->record.info.epoch;
    }
    for (struct stream_node *s = batch->streams; s; s = s->hh.next) {
        err = td_txn_get(index->txn, STREAMS, tandem_slice_of(s->key, s->size), &value);
        if (err == TANDEM_OK)
            err = stream_decode(value, &s->record);
        else if (err == TANDEM_E_NOT_FOUND) {
            s->record.id = index->next_stream++;
            err = TANDEM_OK;
        }
        if (err)
            return err;
    }
    return TANDEM_OK;
}

/* Entries still stand in their order of arrival. */
static void documents_note(struct batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct entry *entry = &batch->entries[i];
        struct document_record *record = &entry->stream->document->record;
        tandem_slice model = entry_model(batch, entry);

        if (!record->info.known || tandem_slice_compare(model, model_slice(&record->least)) < 0)
            model_set(&record->least, model);
        if (!record->info.known || tandem_slice_compare(model, model_slice(&record->greatest)) > 0)
            model_set(&record->greatest, model);
        record->info.known = true;
        record->info.operations++;
        if (entry->ordinal <= record->info.last_ordinal)
            continue;
        record->info.last_ordinal = entry->ordinal;
        memcpy(record->info.last_origin, entry->place.bytes + 8, TANDEM_ORIGIN_BYTES);
        record->info.last_seq = td_get_u64(entry->place.bytes + 8 + TANDEM_ORIGIN_BYTES);
    }
}

/* The lifecycle as a fold, one operation in total order. */
static void lifecycle_step(td_document_info *info, enum life life, tandem_slice model,
                           const td_place *place)
{
    if (life == LIFE_NOTHING)
        return;
    if (!info->created) {
        if (life != LIFE_CREATE)
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
    if (life == LIFE_DELETE) {
        info->deleted = true;
    } else if (info->deleted) {
        info->deleted = false;
        info->epoch = *place;
    }
}

static tandem_err lifecycle_refold(td_stream_index *index, struct document_node *document)
{
    td_document_info *info = &document->record.info;
    tandem_slice key, value;
    td_cursor *cursor;
    struct key prefix;
    tandem_err err = td_txn_cursor(index->txn, ENTRIES, &cursor);

    if (err)
        return err;
    info->created = info->deleted = false;
    info->model[0] = '\0';
    info->epoch = place_zero;
    td_put_u64(prefix.bytes, document->lifecycle->record.id);
    prefix.size = 8;
    for (err = td_cursor_seek(cursor, key_slice(&prefix), &key, &value);
         !err && starts_with(key, key_slice(&prefix)); err = td_cursor_next(cursor, &key, &value)) {
        td_place place;

        if (key.size != ENTRY_KEY_BYTES || value.size < 9 || value.bytes[8] > LIFE_DELETE ||
            value.size - 9 > TANDEM_NAME_BYTES_MAX) {
            err = TANDEM_E_CORRUPT;
            break;
        }
        memcpy(place.bytes, key.bytes + 8, sizeof(place.bytes));
        lifecycle_step(info, (enum life)value.bytes[8],
                       tandem_slice_of(value.bytes + 9, value.size - 9), &place);
    }
    td_cursor_free(cursor);
    return err < TANDEM_OK ? err : TANDEM_OK;
}

/* Drop a stream's snapshots at place and after it, and set its mark anew. */
static tandem_err snapshots_drop(td_stream_index *index, struct stream_record *record,
                                 const td_place *place)
{
    tandem_slice found, value;
    td_cursor *cursor;
    struct key from, key;
    tandem_err err = td_txn_cursor(index->txn, SNAPSHOTS, &cursor);

    if (err)
        return err;
    key_place(&from, record->id, place);
    for (;;) {
        err = td_cursor_seek(cursor, key_slice(&from), &found, &value);
        if (err || found.size != from.size || memcmp(found.bytes, from.bytes, 8) != 0)
            break;
        key.size = 0;
        key_add(&key, found.bytes, found.size);
        if ((err = del(index, SNAPSHOTS, key_slice(&key))) != TANDEM_OK)
            break;
    }
    if (err >= TANDEM_OK)
        err = td_cursor_seek_before(cursor, key_slice(&from), &found, &value);
    record->marked = err == TANDEM_OK && found.size == from.size &&
                     memcmp(found.bytes, from.bytes, 8) == 0;
    if (record->marked)
        memcpy(record->mark.bytes, found.bytes + 8, sizeof(record->mark.bytes));
    td_cursor_free(cursor);
    return err < TANDEM_OK ? err : TANDEM_OK;
}

static tandem_err entry_put(struct batch *batch, const struct entry *entry)
{
    struct stream_node *stream = entry->stream;
    struct stream_record *record = &stream->record;
    tandem_slice model = entry_model(batch, entry);
    uint8_t value[8 + 1 + TANDEM_NAME_BYTES_MAX];
    size_t size = 8;
    struct key key;

    td_put_u64(value, entry->ordinal);
    if (stream->lifecycle) {
        value[size++] = (uint8_t)entry->life;
        memcpy(value + size, model.bytes, model.size);
        size += model.size;
    }
    record->count++;
    if (stream->lifecycle) {
        if (record->marked && place_compare(&entry->place, &record->mark) <= 0) {
            stream->document->lifecycle_late = true;
        } else {
            record->marked = true;
            record->mark = entry->place;
            lifecycle_step(&stream->document->record.info, entry->life, model, &entry->place);
        }
    } else if (record->marked && place_compare(&entry->place, &record->mark) <= 0) {
        tandem_err err = snapshots_drop(batch->index, record, &entry->place);

        if (err)
            return err;
    }
    key_place(&key, record->id, &entry->place);
    return put(batch->index, ENTRIES, key_slice(&key), tandem_slice_of(value, size));
}

static tandem_err stream_put(td_stream_index *index, tandem_slice key,
                             const struct stream_record *record)
{
    uint8_t value[STREAM_BYTES_MAX];
    size_t size = stream_encode(record, value);

    return put(index, STREAMS, key, tandem_slice_of(value, size));
}

/* A new epoch: all scopes start from empty elsewhere. The streams of the batch are written. */
static tandem_err epoch_changed(td_stream_index *index, const struct document_node *document)
{
    struct stream_record record;
    struct key prefix = {0}, at;
    tandem_slice key, value;
    td_cursor *cursor;
    tandem_err err;

    key_add(&prefix, document->key, document->size);
    key_add(&prefix, "", 1);
    at = prefix;
    for (;;) {
        bool found = false;

        if ((err = td_txn_cursor(index->txn, STREAMS, &cursor)) != TANDEM_OK)
            return err;
        for (err = td_cursor_seek(cursor, key_slice(&at), &key, &value);
             !err && starts_with(key, key_slice(&prefix));
             err = td_cursor_next(cursor, &key, &value)) {
            err = stream_decode(value, &record);
            found = !err && record.marked && key.bytes[prefix.size] != 0;
            if (err || found)
                break;
        }
        if (found) {
            at.size = 0;
            key_add(&at, key.bytes, key.size);
        }
        td_cursor_free(cursor);
        if (err < TANDEM_OK || !found)
            return err < TANDEM_OK ? err : TANDEM_OK;
        if ((err = snapshots_drop(index, &record, &place_zero)) != TANDEM_OK ||
            (err = stream_put(index, key_slice(&at), &record)) != TANDEM_OK)
            return err;
    }
}

static tandem_err progress_put(td_stream_index *index, const struct collection *c)
{
    uint8_t value[28];

    td_put_u32(value, c->id);
    td_put_u64(value + 4, c->progress);
    td_put_u64(value + 12, c->corrupt);
    td_put_u64(value + 20, c->corrupt_first);
    return put(index, PROGRESS, tandem_slice_of(c->name, c->size),
               tandem_slice_of(value, sizeof(value)));
}

static tandem_err documents_put(struct batch *batch)
{
    td_stream_index *index = batch->index;
    uint8_t value[DOCUMENT_BYTES_MAX];
    tandem_err err;

    for (struct document_node *d = batch->documents; d; d = d->hh.next) {
        size_t size;

        if (d->lifecycle_late && (err = lifecycle_refold(index, d)) != TANDEM_OK)
            return err;
        size = document_encode(&d->record, value);
        err = put(index, DOCUMENTS, tandem_slice_of(d->key, d->size), tandem_slice_of(value, size));
        if (err)
            return err;
        /* What was never created was never folded. */
        if (d->was_created && place_compare(&d->epoch_before, &d->record.info.epoch) != 0 &&
            (err = epoch_changed(index, d)) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

static tandem_err batch_write(struct batch *batch, uint64_t position)
{
    td_stream_index *index = batch->index;
    tandem_err err;

    if ((err = begin(index)) != TANDEM_OK || (err = batch_load(batch)) != TANDEM_OK)
        return err;
    documents_note(batch);
    if (batch->count > 1)
        qsort(batch->entries, batch->count, sizeof(batch->entries[0]), entry_order);
    for (uint32_t i = 0; i < batch->count; i++)
        if ((err = entry_put(batch, &batch->entries[i])) != TANDEM_OK)
            return err;
    for (struct stream_node *s = batch->streams; s; s = s->hh.next)
        if ((err = stream_put(index, tandem_slice_of(s->key, s->size), &s->record)) != TANDEM_OK)
            return err;
    if ((err = documents_put(batch)) != TANDEM_OK)
        return err;
    for (unsigned i = 0; i < batch->target_count; i++) {
        const struct target *target = &batch->targets[i];
        struct collection *c = target->collection;

        index->corrupt += target->corrupt - c->corrupt;
        c->progress = target->progress;
        c->corrupt = target->corrupt;
        c->corrupt_first = target->corrupt_first;
        if ((err = progress_put(index, c)) != TANDEM_OK)
            return err;
    }
    index->position = position;
    if ((err = meta_put_all(index)) != TANDEM_OK)
        return err;
    index->dirty += batch->count + batch->passed;
    index->indexed += batch->count;
    return TANDEM_OK;
}

static void batch_release(struct batch *batch)
{
    struct document_node *d, *next_document;
    struct stream_node *s, *next_stream;

    HASH_ITER(hh, batch->streams, s, next_stream) {
        HASH_DEL(batch->streams, s);
        free(s);
    }
    HASH_ITER(hh, batch->documents, d, next_document) {
        HASH_DEL(batch->documents, d);
        free(d);
    }
    tandem_writer_release(&batch->models);
    free(batch->entries);
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
        /* One more than the budget: a visit looks at its entry before it sees that none is left. */
        batch.entries = malloc(((size_t)operations_max + 1) * sizeof(batch.entries[0]));
        if (!batch.entries) {
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
        undo(index, err);
        goto out;
    }
    index->position = position;
    *position_out = position;
    *current_out = lowest == UINT64_MAX;

out:
    batch_release(&batch);
    return err;
}

uint32_t td_stream_index_dirty(const td_stream_index *index)
{
    return index->dirty;
}

bool td_stream_index_busy(const td_stream_index *index)
{
    return index->txn != NULL;
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

/* ---- Reading ---- */

tandem_err td_stream_index_corrupt(td_stream_index *index, tandem_slice collection,
                                   uint64_t *count_out, uint64_t *first_out)
{
    const struct collection *c = collection_find(index, collection);

    *count_out = c ? c->corrupt : 0;
    *first_out = c ? c->corrupt_first : 0;
    return index->failed;
}

tandem_err td_stream_index_document(td_stream_index *index, tandem_slice collection,
                                    tandem_slice document, td_document_info *out)
{
    const struct collection *c = collection_find(index, collection);
    struct document_record record;
    tandem_slice value;
    struct key key;
    tandem_err err;

    memset(out, 0, sizeof(*out));
    if ((err = begin(index)) != TANDEM_OK)
        return outcome(index, err);
    if (!c || !name_fits(document) || document.size == 0)
        return TANDEM_OK;
    key_document(&key, c->id, document);
    err = td_txn_get(index->txn, DOCUMENTS, key_slice(&key), &value);
    if (err == TANDEM_E_NOT_FOUND)
        return TANDEM_OK;
    if (err || (err = document_decode(value, &record)) != TANDEM_OK)
        return outcome(index, err);
    *out = record.info;
    return TANDEM_OK;
}

tandem_err td_stream_index_documents(td_stream_index *index, tandem_slice collection,
                                     tandem_slice after, td_visit_document visit, void *context)
{
    const struct collection *c = collection_find(index, collection);
    struct document_record record;
    tandem_slice key, value;
    tandem_err err, said = TANDEM_OK;
    td_cursor *cursor;
    struct key from;

    if ((err = begin(index)) != TANDEM_OK)
        return outcome(index, err);
    if (!c)
        return TANDEM_OK;
    if (!name_fits(after))
        return TANDEM_E_INVALID;
    if ((err = td_txn_cursor(index->txn, DOCUMENTS, &cursor)) != TANDEM_OK)
        return outcome(index, err);
    key_document(&from, c->id, after);
    for (err = td_cursor_seek(cursor, key_slice(&from), &key, &value);
         !err && starts_with(key, tandem_slice_of(from.bytes, 4));
         err = td_cursor_next(cursor, &key, &value)) {
        if (tandem_slice_equal(key, key_slice(&from)))
            continue;
        if ((err = document_decode(value, &record)) != TANDEM_OK)
            break;
        said = visit(context, tandem_slice_of(key.bytes + 4, key.size - 4), &record.info);
        if (said)
            break;
    }
    td_cursor_free(cursor);
    if (err < TANDEM_OK)
        return outcome(index, err);
    return said < TANDEM_OK ? said : TANDEM_OK;
}

tandem_err td_stream_index_streams(td_stream_index *index, tandem_slice collection,
                                   tandem_slice document, td_visit_stream visit, void *context)
{
    const struct collection *c = collection_find(index, collection);
    struct stream_record record;
    tandem_slice key, value;
    tandem_err err, said = TANDEM_OK;
    td_cursor *cursor;
    struct key prefix;

    if ((err = begin(index)) != TANDEM_OK)
        return outcome(index, err);
    if (!c || !name_fits(document))
        return TANDEM_OK;
    if ((err = td_txn_cursor(index->txn, STREAMS, &cursor)) != TANDEM_OK)
        return outcome(index, err);
    key_document(&prefix, c->id, document);
    key_add(&prefix, "", 1);
    for (err = td_cursor_seek(cursor, key_slice(&prefix), &key, &value);
         !err && starts_with(key, key_slice(&prefix)); err = td_cursor_next(cursor, &key, &value)) {
        const uint8_t *branch = key.bytes + prefix.size, *end = key.bytes + key.size;
        const uint8_t *zero = branch < end ? memchr(branch, 0, (size_t)(end - branch)) : NULL;

        if (!zero) {
            err = TANDEM_E_CORRUPT;
            break;
        }
        if (zero == branch)
            continue;
        if ((err = stream_decode(value, &record)) != TANDEM_OK)
            break;
        said = visit(context, tandem_slice_of(branch, (size_t)(zero - branch)),
                     tandem_slice_of(zero + 1, (size_t)(end - zero - 1)), record.count);
        if (said)
            break;
    }
    td_cursor_free(cursor);
    if (err < TANDEM_OK)
        return outcome(index, err);
    return said < TANDEM_OK ? said : TANDEM_OK;
}

/* TANDEM_E_NOT_FOUND if there is no such stream. key_out receives its key. */
static tandem_err stream_get(td_stream_index *index, tandem_slice collection, tandem_slice document,
                             tandem_slice branch, tandem_slice scope, struct key *key_out,
                             struct stream_record *out)
{
    const struct collection *c = collection_find(index, collection);
    tandem_slice value;
    tandem_err err;

    if ((err = begin(index)) != TANDEM_OK)
        return err;
    if (!c || !name_fits(document) || !name_fits(branch) || !name_fits(scope))
        return TANDEM_E_NOT_FOUND;
    key_stream(key_out, c->id, document, branch, scope);
    err = td_txn_get(index->txn, STREAMS, key_slice(key_out), &value);
    return err ? err : stream_decode(value, out);
}

tandem_err td_stream_index_count(td_stream_index *index, tandem_slice collection,
                                 tandem_slice document, tandem_slice branch, tandem_slice scope,
                                 uint64_t *out)
{
    struct stream_record record;
    struct key key;
    tandem_err err = stream_get(index, collection, document, branch, scope, &key, &record);

    if (err && err != TANDEM_E_NOT_FOUND)
        return outcome(index, err);
    *out = err ? 0 : record.count;
    return TANDEM_OK;
}

tandem_err td_stream_index_entries(td_stream_index *index, tandem_slice collection,
                                   tandem_slice document, tandem_slice branch, tandem_slice scope,
                                   const td_place *after, td_visit_entry visit, void *context)
{
    tandem_err err, said = TANDEM_OK;
    struct stream_record record;
    tandem_slice key, value;
    td_cursor *cursor;
    struct key from;

    err = stream_get(index, collection, document, branch, scope, &from, &record);
    if (err == TANDEM_E_NOT_FOUND)
        return TANDEM_OK;
    if (err || (err = td_txn_cursor(index->txn, ENTRIES, &cursor)) != TANDEM_OK)
        return outcome(index, err);
    key_place(&from, record.id, after);
    for (err = td_cursor_seek(cursor, key_slice(&from), &key, &value);
         !err && starts_with(key, tandem_slice_of(from.bytes, 8));
         err = td_cursor_next(cursor, &key, &value)) {
        td_place place;

        if (tandem_slice_equal(key, key_slice(&from)))
            continue;
        if (key.size != ENTRY_KEY_BYTES || value.size < 8) {
            err = TANDEM_E_CORRUPT;
            break;
        }
        memcpy(place.bytes, key.bytes + 8, sizeof(place.bytes));
        said = visit(context, &place, td_get_u64(value.bytes));
        if (said)
            break;
    }
    td_cursor_free(cursor);
    if (err < TANDEM_OK)
        return outcome(index, err);
    return said < TANDEM_OK ? said : TANDEM_OK;
}

/* ---- Snapshots ---- */

static bool snapshot_decode(tandem_slice key, tandem_slice value, td_snapshot *out)
{
    if (value.size < SNAPSHOT_HEADER_BYTES)
        return false;
    memcpy(out->place.bytes, key.bytes + 8, sizeof(out->place.bytes));
    out->folded = td_get_u64(value.bytes);
    out->model_version = td_get_u32(value.bytes + 8);
    out->bytes = tandem_slice_of(value.bytes + SNAPSHOT_HEADER_BYTES,
                                 value.size - SNAPSHOT_HEADER_BYTES);
    return XXH3_64bits(out->bytes.bytes, out->bytes.size) == td_get_u64(value.bytes + 12);
}

tandem_err td_stream_index_snapshot(td_stream_index *index, tandem_slice collection,
                                    tandem_slice document, tandem_slice branch,
                                    tandem_slice scope, uint32_t model_version, td_snapshot *out)
{
    struct stream_record record;
    tandem_slice key, value;
    td_cursor *cursor;
    struct key before;
    tandem_err err;

    err = stream_get(index, collection, document, branch, scope, &before, &record);
    if (err)
        return outcome(index, err);
    if (!record.marked || is_lifecycle(scope))
        return TANDEM_E_NOT_FOUND;
    if ((err = td_txn_cursor(index->txn, SNAPSHOTS, &cursor)) != TANDEM_OK)
        return outcome(index, err);
    td_put_u64(before.bytes, record.id + 1);
    before.size = 8;
    /* Torn ones and those of another version are passed over; put_snapshot clears them away. */
    for (;;) {
        err = td_cursor_seek_before(cursor, key_slice(&before), &key, &value);
        if (err == TANDEM_OK &&
            (key.size != ENTRY_KEY_BYTES || td_get_u64(key.bytes) != record.id))
            err = TANDEM_END;
        if (err)
            break;
        if (snapshot_decode(key, value, out) && out->model_version == model_version)
            break;
        before.size = 0;
        key_add(&before, key.bytes, key.size);
    }
    td_cursor_free(cursor);
    return outcome(index, err == TANDEM_END ? TANDEM_E_NOT_FOUND : err);
}

/* What is left of a snapshot when it is to be decided which one goes. */
struct kept {
    td_place place;
    uint64_t folded;
    bool stale; /* torn or of another version */
};

static tandem_err snapshots_list(td_stream_index *index, uint64_t stream, uint32_t model_version,
                                 struct kept *kept, unsigned *count_out)
{
    tandem_slice key, value;
    td_cursor *cursor;
    struct key from;
    unsigned count = 0;
    tandem_err err = td_txn_cursor(index->txn, SNAPSHOTS, &cursor);

    if (err)
        return err;
    key_place(&from, stream, &place_zero);
    for (err = td_cursor_seek(cursor, key_slice(&from), &key, &value);
         !err && key.size == from.size && memcmp(key.bytes, from.bytes, 8) == 0;
         err = td_cursor_next(cursor, &key, &value)) {
        td_snapshot snapshot = {0};

        if (count > TD_SNAPSHOTS_MAX) {
            err = TANDEM_E_CORRUPT;
            break;
        }
        kept[count].stale = !snapshot_decode(key, value, &snapshot) ||
                            snapshot.model_version != model_version;
        memcpy(kept[count].place.bytes, key.bytes + 8, sizeof(kept[count].place.bytes));
        kept[count].folded = snapshot.folded;
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
static unsigned snapshot_to_drop(const struct kept *kept, unsigned count)
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

static tandem_err snapshots_thin(td_stream_index *index, uint64_t stream, uint32_t model_version)
{
    struct kept kept[TD_SNAPSHOTS_MAX + 1];
    unsigned count = 0, left;
    struct key key;
    tandem_err err = snapshots_list(index, stream, model_version, kept, &count);

    if (err)
        return err;
    left = 0;
    for (unsigned i = 0; i < count; i++) {
        if (!kept[i].stale) {
            kept[left++] = kept[i];
            continue;
        }
        key_place(&key, stream, &kept[i].place);
        if ((err = del(index, SNAPSHOTS, key_slice(&key))) != TANDEM_OK)
            return err;
    }
    if (left <= TD_SNAPSHOTS_MAX)
        return TANDEM_OK;
    key_place(&key, stream, &kept[snapshot_to_drop(kept, left)].place);
    return del(index, SNAPSHOTS, key_slice(&key));
}

static tandem_err snapshot_put(td_stream_index *index, uint64_t stream, const td_snapshot *snapshot)
{
    size_t size = SNAPSHOT_HEADER_BYTES + snapshot->bytes.size;
    uint8_t *value = malloc(size);
    struct key key;
    tandem_err err;

    if (!value)
        return TANDEM_E_NOMEM;
    td_put_u64(value, snapshot->folded);
    td_put_u32(value + 8, snapshot->model_version);
    td_put_u64(value + 12, XXH3_64bits(snapshot->bytes.bytes, snapshot->bytes.size));
    if (snapshot->bytes.size)
        memcpy(value + SNAPSHOT_HEADER_BYTES, snapshot->bytes.bytes, snapshot->bytes.size);
    key_place(&key, stream, &snapshot->place);
    err = put(index, SNAPSHOTS, key_slice(&key), tandem_slice_of(value, size));
    free(value);
    return err;
}

tandem_err td_stream_index_put_snapshot(td_stream_index *index, tandem_slice collection,
                                        tandem_slice document, tandem_slice branch,
                                        tandem_slice scope, const td_snapshot *snapshot)
{
    struct stream_record record;
    struct key key;
    tandem_err err;

    assert(!is_lifecycle(scope));
    err = stream_get(index, collection, document, branch, scope, &key, &record);
    if (err)
        return outcome(index, err);
    if ((err = snapshot_put(index, record.id, snapshot)) != TANDEM_OK ||
        (err = snapshots_thin(index, record.id, snapshot->model_version)) != TANDEM_OK)
        return undo(index, err);
    if (record.marked && place_compare(&snapshot->place, &record.mark) <= 0)
        return TANDEM_OK;
    record.marked = true;
    record.mark = snapshot->place;
    err = stream_put(index, key_slice(&key), &record);
    return err ? undo(index, err) : TANDEM_OK;
}

void td_stream_index_stat_get(td_stream_index *index, td_stream_index_stat *out)
{
    out->position = index->position;
    out->indexed = index->indexed;
    out->corrupt = index->corrupt;
    out->bytes = index->store->ops->bytes(index->store);
}
