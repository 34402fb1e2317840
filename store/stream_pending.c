#include "store/stream_pending.h"

#include <assert.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "store/planted.h"
#include "store/stream_state.h"

enum {
    CHUNK_BYTES = 64 * 1024,
    HASH_BYTES = sizeof(td_place) - TD_PLACE_HASH_AT,
    BUCKET_BYTES = 16, /* what a table takes for each that it holds */

    BYTES_MAX = 24 * 1024 * 1024,
    /* Each time is a flush, which takes as long as some thousand operations. */
    OPERATIONS_WORTH_IT = 32768,
    OPERATIONS_A_DOCUMENT = 64,
    /* A document is written at once: some 250 bytes for each of its entries. */
    OPERATIONS_OF_ONE = 32768,
};

typedef struct td_pending_chunk {
    struct td_pending_chunk *next;
    size_t used;
    alignas(void *) uint8_t bytes[CHUNK_BYTES];
} chunk;

/* ---- Memory ---- */

static void *take(td_pending *pending, size_t size)
{
    chunk *at = pending->chunks;
    void *out;

    size = (size + alignof(void *) - 1) & ~(alignof(void *) - 1); /* nothing in it wants more */
    assert(size <= CHUNK_BYTES);
    if (!at || CHUNK_BYTES - at->used < size) {
        if (!(at = malloc(sizeof(*at))))
            return NULL;
        at->next = pending->chunks;
        at->used = 0;
        pending->chunks = at;
    }
    out = at->bytes + at->used;
    at->used += size;
    pending->bytes += size;
    return out;
}

bool td_pending_is_full(const td_pending *pending)
{
    uint64_t documents = td_hash_table_count(&pending->documents);

    return pending->bytes >= BYTES_MAX || pending->most >= OPERATIONS_OF_ONE ||
           (pending->operations >= OPERATIONS_WORTH_IT &&
            pending->operations >= OPERATIONS_A_DOCUMENT * documents);
}

static void forget(void *owner)
{
    (void)owner; /* its chunk goes */
}

void td_pending_clear(td_pending *pending)
{
    td_hash_table_clear(&pending->documents, forget);
    td_hash_table_clear(&pending->streams, forget);
    td_hash_table_clear(&pending->kinds, forget);
    free(pending->kind);
    free(pending->order);
    while (pending->chunks) {
        chunk *first = pending->chunks;

        pending->chunks = first->next;
        free(first);
    }
    memset(pending, 0, sizeof(*pending));
}

/* Put what was taken into a table: NULL if there is no memory. */
static void *add(td_pending *pending, td_hash_table *table, td_hash_entry *entry, tandem_slice key,
                 void *owner)
{
    if (td_hash_table_add(table, entry, key, owner) != TANDEM_OK)
        return NULL;
    pending->bytes += BUCKET_BYTES;
    return owner;
}

/* ---- Adding ---- */

static const td_pending_stream *stream_of(td_pending *pending, const td_operation *operation)
{
    td_index_key key;
    td_pending_stream *stream;
    tandem_slice behind;

    td_index_key_stream(&key, 0, tandem_slice_of(NULL, 0), operation->branch, operation->scope);
    behind = tandem_slice_of(key.bytes + 4, key.size - 4);
    if ((stream = td_hash_table_find(&pending->streams, behind)) ||
        !(stream = take(pending, sizeof(*stream) + behind.size)))
        return stream;
    stream->lifecycle = td_scope_is_lifecycle(operation->scope);
    stream->number = td_hash_table_count(&pending->streams);
    stream->size = behind.size;
    memcpy(stream->key, behind.bytes, behind.size);
    return add(pending, &pending->streams, &stream->hash_entry,
               tandem_slice_of(stream->key, stream->size), stream);
}

enum { KIND_KEY_BYTES_MAX = TANDEM_ORIGIN_BYTES + 3 * (TANDEM_NAME_BYTES_MAX + 1) };

static size_t kind_key(const td_operation *operation, uint8_t out[KIND_KEY_BYTES_MAX])
{
    const tandem_slice names[] = {operation->branch, operation->scope, operation->type};
    size_t size = TANDEM_ORIGIN_BYTES;

    memcpy(out, operation->origin, TANDEM_ORIGIN_BYTES);
    for (unsigned i = 0; i < 3; i++) {
        memcpy(out + size, names[i].bytes, names[i].size);
        size += names[i].size;
        out[size++] = 0;
    }
    return size;
}

static bool kinds_make_room(td_pending *pending)
{
    uint32_t max = pending->kinds_max ? 2 * pending->kinds_max : 64;
    const td_pending_kind **more;

    if (td_hash_table_count(&pending->kinds) < pending->kinds_max)
        return true;
    if (!(more = realloc(pending->kind, max * sizeof(*more))))
        return false;
    pending->kind = more;
    pending->kinds_max = max;
    return true;
}

static const td_pending_kind *kind_of(td_pending *pending, const td_operation *operation)
{
    uint8_t bytes[KIND_KEY_BYTES_MAX];
    tandem_slice key = tandem_slice_of(bytes, kind_key(operation, bytes)), model;
    const td_pending_stream *stream;
    td_pending_kind *kind;

    if (pending->last_kind &&
        tandem_slice_equal(key, tandem_slice_of(pending->last_kind->key, pending->last_kind->size)))
        return pending->last_kind;
    kind = td_hash_table_find(&pending->kinds, key);
    if (!kind) {
        if (!(stream = stream_of(pending, operation)) ||
            !(kind = take(pending, sizeof(*kind) + key.size)))
            return NULL;
        model = td_type_model(operation->type);
        kind->stream = stream;
        memcpy(kind->origin, operation->origin, TANDEM_ORIGIN_BYTES);
        kind->life = (uint8_t)td_index_life(operation);
        kind->number = td_hash_table_count(&pending->kinds);
        kind->size = key.size;
        memcpy(kind->key, key.bytes, key.size);
        kind->model = tandem_slice_of(kind->key + key.size - 1 - operation->type.size, model.size);
        if (!kinds_make_room(pending) ||
            !add(pending, &pending->kinds, &kind->hash_entry,
                 tandem_slice_of(kind->key, kind->size), kind))
            return NULL;
        pending->kind[kind->number] = kind;
    }
    return pending->last_kind = kind;
}

static td_pending_document *document_of(td_pending *pending,
                                        struct td_index_collection *collection, tandem_slice name)
{
    td_pending_document *document;
    td_index_key key;

    td_index_key_document(&key, collection->id, name);
    document = td_pending_find(pending, td_index_key_slice(&key));
    if (document || !(document = take(pending, sizeof(*document) + key.size)))
        return document;
    document->collection = collection;
    document->first = document->last = NULL;
    document->count = 0;
    document->size = (uint16_t)key.size;
    document->lifecycle = false;
    memcpy(document->key, key.bytes, key.size);
    return add(pending, &pending->documents, &document->hash_entry,
               tandem_slice_of(document->key, document->size), document);
}

/* ---- Entries ---- */

/*
 * Entry after entry:
 *
 *   varint   the kind's number
 *   varint   hlc, less the base: zigzag
 *   varint   seq
 *   varint   ordinal, less the base: zigzag (collections are gathered one after the other)
 *   16       of the hash, if it is of the lifecycle
 */
struct td_pending_piece {
    struct td_pending_piece *next;
    uint16_t used, size;
    uint8_t bytes[];
};

enum {
    ENTRY_BYTES_MAX = 4 * TD_VARINT_BYTES_MAX + HASH_BYTES,
    PIECE_BYTES_MIN = 20, /* an entry or two; the next piece is twice as large … */
    PIECE_BYTES_MAX = 500, /* … but no larger than this */
};

static size_t entry_encode(const td_pending *pending, const td_pending_kind *kind,
                           const td_operation *operation, uint64_t ordinal,
                           uint8_t out[ENTRY_BYTES_MAX])
{
    uint64_t hlc = td_planted(TD_PLANTED_FOLDED_AS_IT_CAME) ? ordinal : operation->hlc;
    uint8_t *at = out;

    at += td_varint_put(at, kind->number);
    at += td_varint_put(at, td_zigzag(hlc - pending->base_hlc));
    at += td_varint_put(at, operation->seq);
    at += td_varint_put(at, td_zigzag(ordinal - pending->base_ordinal));
    if (kind->stream->lifecycle) {
        memcpy(at, operation->hash, HASH_BYTES);
        at += HASH_BYTES;
    }
    return (size_t)(at - out);
}

/* What this process wrote itself a moment ago. */
static uint64_t number(tandem_slice *rest)
{
    uint64_t value = 0;
    bool is_one = td_varint_get(rest, &value);

    assert(is_one);
    return value;
}

static void entry_decode(const td_pending *pending, tandem_slice *rest, td_pending_entry *out)
{
    uint64_t kind = number(rest);

    assert(kind < td_hash_table_count(&pending->kinds));
    out->kind = pending->kind[kind];
    out->place = td_place_zero;
    td_put_u64(out->place.bytes, pending->base_hlc + td_unzigzag(number(rest)));
    memcpy(out->place.bytes + 8, out->kind->origin, TANDEM_ORIGIN_BYTES);
    out->seq = number(rest);
    td_put_u64(out->place.bytes + 8 + TANDEM_ORIGIN_BYTES, out->seq);
    out->ordinal = pending->base_ordinal + td_unzigzag(number(rest));
    if (out->kind->stream->lifecycle) {
        assert(rest->size >= HASH_BYTES);
        memcpy(out->place.bytes + TD_PLACE_HASH_AT, rest->bytes, HASH_BYTES);
        rest->bytes += HASH_BYTES;
        rest->size -= HASH_BYTES;
    }
}

/* The document's last piece, with room for so many bytes. */
static struct td_pending_piece *piece_for(td_pending *pending, td_pending_document *document,
                                          size_t size)
{
    struct td_pending_piece *last = document->last, *piece;
    size_t room = last ? 2 * (size_t)last->size : PIECE_BYTES_MIN;

    if (last && (size_t)(last->size - last->used) >= size)
        return last;
    if (room > PIECE_BYTES_MAX)
        room = PIECE_BYTES_MAX;
    if (room < size)
        room = size;
    if (!(piece = take(pending, offsetof(struct td_pending_piece, bytes) + room)))
        return NULL;
    piece->next = NULL;
    piece->used = 0;
    piece->size = (uint16_t)room;
    if (last)
        last->next = piece;
    else
        document->first = piece;
    return document->last = piece;
}

tandem_err td_pending_add(td_pending *pending, struct td_index_collection *collection,
                          const td_operation *operation, uint64_t ordinal)
{
    const td_pending_kind *kind = kind_of(pending, operation);
    uint8_t bytes[ENTRY_BYTES_MAX];
    td_pending_document *document;
    struct td_pending_piece *piece;
    size_t size;

    assert(!pending->order);
    if (!kind || !(document = document_of(pending, collection, operation->document)))
        return TANDEM_E_NOMEM;
    if (pending->operations == 0) {
        pending->base_hlc = operation->hlc;
        pending->base_ordinal = ordinal;
    }
    size = entry_encode(pending, kind, operation, ordinal, bytes);
    if (!(piece = piece_for(pending, document, size)))
        return TANDEM_E_NOMEM;
    memcpy(piece->bytes + piece->used, bytes, size);
    piece->used = (uint16_t)(piece->used + size);
    if (++document->count > pending->most)
        pending->most = document->count;
    document->lifecycle |= kind->stream->lifecycle;
    pending->operations++;
    if (ordinal > pending->last_ordinal)
        pending->last_ordinal = ordinal;
    return TANDEM_OK;
}

static void go_to(td_pending_cursor *cursor, const struct td_pending_piece *piece)
{
    cursor->piece = piece;
    cursor->rest = piece ? tandem_slice_of(piece->bytes, piece->used) : tandem_slice_of(NULL, 0);
}

td_pending_cursor td_pending_entries(const td_pending *pending, const td_pending_document *document)
{
    td_pending_cursor cursor = {.pending = pending};

    go_to(&cursor, document->first);
    return cursor;
}

td_pending_entry td_pending_next(td_pending_cursor *cursor)
{
    td_pending_entry entry;

    if (cursor->rest.size == 0) {
        assert(cursor->piece);
        go_to(cursor, cursor->piece->next);
    }
    entry_decode(cursor->pending, &cursor->rest, &entry);
    return entry;
}

void td_pending_done(td_pending_document *document)
{
    document->first = document->last = NULL;
    document->count = 0;
    document->lifecycle = false;
}

td_pending_document *td_pending_find(const td_pending *pending, tandem_slice document_key)
{
    return td_hash_table_find(&pending->documents, document_key);
}

/* ---- Taking ---- */

static int key_order(const void *a, const void *b)
{
    const td_pending_document *x = *(td_pending_document *const *)a;
    const td_pending_document *y = *(td_pending_document *const *)b;

    return tandem_slice_compare(tandem_slice_of(x->key, x->size), tandem_slice_of(y->key, y->size));
}

tandem_err td_pending_order(td_pending *pending)
{
    uint32_t count = td_hash_table_count(&pending->documents);

    assert(!pending->order);
    if (!(pending->order = malloc((count + 1) * sizeof(*pending->order))))
        return TANDEM_E_NOMEM;
    for (td_pending_document *d = td_hash_table_first(&pending->documents); d;
         d = td_hash_table_next(&d->hash_entry))
        pending->order[pending->ordered++] = d;
    qsort(pending->order, count, sizeof(*pending->order), key_order);
    return TANDEM_OK;
}

td_pending_document *td_pending_take(td_pending *pending)
{
    while (pending->taken < pending->ordered) {
        td_pending_document *next = pending->order[pending->taken++];

        if (next->count)
            return next;
    }
    return NULL;
}
