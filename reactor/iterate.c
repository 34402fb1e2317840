/*
 * Iterators: documents of a collection; operations of a collection in order of arrival, or of one
 * document in total order. All fetch pages, so that no reading transaction outlives a call; a page
 * is bounded in bytes, and one of the iterators holds one page (of a document: one page a stream).
 */
#include <stdlib.h>

#include "reactor/ask.h"
#include "store/own_page.h"

enum { PAGE_ENTRIES = 256, PAGE_BYTES = 256 * 1024 };

/* ---- Documents ---- */

struct tandem_documents {
    tandem_reactor *reactor;
    char *collection;
    td_ask *page;
    tandem_reader reader;
    bool last_page;
    char after[TANDEM_NAME_BYTES_MAX + 1];
    char document[TANDEM_NAME_BYTES_MAX + 1];
    char model[TANDEM_NAME_BYTES_MAX + 1];
};

tandem_err tandem_documents_open(tandem_reactor *reactor, const char *collection,
                                 tandem_documents **out)
{
    tandem_documents *documents;

    if (!reactor || !collection || !out)
        return TANDEM_E_INVALID;
    if (!(documents = calloc(1, sizeof(*documents))))
        return TANDEM_E_NOMEM;
    documents->reactor = reactor;
    if (!(documents->collection = strdup(collection))) {
        tandem_documents_free(documents);
        return TANDEM_E_NOMEM;
    }
    *out = documents;
    return TANDEM_OK;
}

static tandem_err documents_fetch(tandem_documents *documents)
{
    td_view_request *request;
    tandem_err err;

    td_ask_free(documents->page);
    documents->page = NULL;
    if ((err = td_ask_open(documents->reactor, TD_VIEW_DOCUMENTS, documents->collection, NULL, NULL,
                           NULL, &documents->page)) != TANDEM_OK)
        return err;
    request = td_ask_request(documents->page);
    request->after = tandem_slice_text(documents->after);
    request->limit = PAGE_ENTRIES;
    if ((err = td_ask_wait(documents->page, UINT64_MAX)) != TANDEM_OK)
        return err;
    documents->reader = tandem_reader_of(tandem_writer_slice(&request->out));
    documents->last_page = !request->more;
    memcpy(documents->after, request->after_name, sizeof(documents->after));
    return TANDEM_OK;
}

static void keep_name(char out[TANDEM_NAME_BYTES_MAX + 1], tandem_slice name)
{
    size_t size = name.size < TANDEM_NAME_BYTES_MAX ? name.size : TANDEM_NAME_BYTES_MAX;

    if (size)
        memcpy(out, name.bytes, size);
    out[size] = 0;
}

tandem_err tandem_documents_next(tandem_documents *documents, tandem_document_entry *entry)
{
    tandem_err err;

    if (!documents || !entry)
        return TANDEM_E_INVALID;
    while (!documents->page || tandem_reader_left(&documents->reader) == 0) {
        if (documents->page && documents->last_page)
            return TANDEM_END;
        if ((err = documents_fetch(documents)) != TANDEM_OK)
            return err;
    }
    td_own_array(&documents->reader);
    keep_name(documents->document, td_own_string(&documents->reader));
    keep_name(documents->model, td_own_string(&documents->reader));
    entry->operations = td_own_uint(&documents->reader);
    entry->deleted = td_own_bool(&documents->reader);
    entry->document = documents->document;
    entry->model = documents->model;
    return TANDEM_OK;
}

void tandem_documents_free(tandem_documents *documents)
{
    if (!documents)
        return;
    td_ask_free(documents->page);
    free(documents->collection);
    free(documents);
}

/* ---- Operations ---- */

/* One stream of a document, a page of it, and the next operation in that page. */
struct stream {
    char branch[TANDEM_NAME_BYTES_MAX + 1];
    char scope[TANDEM_NAME_BYTES_MAX + 1];
    td_ask *page;
    tandem_reader reader;
    bool more;
    bool started;
    td_place after_place;
    uint64_t next_index;
    bool ready; /* the fields below are the stream's next operation */
    tandem_operation operation;
    td_place place;
};

struct tandem_operations {
    tandem_reactor *reactor;
    char *collection;
    char *document; /* NULL: the whole collection */
    uint64_t after;
    uint64_t corrupt; /* ordinal of a corrupt record to be reported; 0: none */
    /* Of a collection: copies of a page, as [ordinal, hash, canonical bytes]. */
    tandem_writer page;
    tandem_reader reader;
    td_operation parsed;
    /* Of a document: */
    struct stream *streams;
    uint32_t stream_count;
    struct stream *given; /* the stream of the last operation handed out */
    td_document_info info;
};

tandem_err tandem_operations_open(tandem_reactor *reactor, const char *collection,
                                  const char *document, uint64_t after, tandem_operations **out)
{
    tandem_operations *operations;

    if (!reactor || !collection || !out)
        return TANDEM_E_INVALID;
    if (!(operations = calloc(1, sizeof(*operations))))
        return TANDEM_E_NOMEM;
    operations->reactor = reactor;
    operations->after = after;
    tandem_writer_init(&operations->page);
    if (!(operations->collection = strdup(collection)) ||
        (document && !(operations->document = strdup(document)))) {
        tandem_operations_free(operations);
        return TANDEM_E_NOMEM;
    }
    *out = operations;
    return TANDEM_OK;
}

void tandem_operations_free(tandem_operations *operations)
{
    if (!operations)
        return;
    for (uint32_t i = 0; i < operations->stream_count; i++)
        td_ask_free(operations->streams[i].page);
    free(operations->streams);
    tandem_writer_release(&operations->page);
    free(operations->collection);
    free(operations->document);
    free(operations);
}

static void fill(tandem_operation *out, uint64_t ordinal, const td_operation *parsed,
                 const uint8_t *hash)
{
    *out = (tandem_operation){
        .ordinal = ordinal,
        .seq = parsed->seq,
        .hlc = parsed->hlc,
        .origin = parsed->origin,
        .hash = hash,
        .collection = parsed->collection,
        .document = parsed->document,
        .branch = parsed->branch,
        .scope = parsed->scope,
        .type = parsed->type,
        .payload = parsed->payload,
        .canonical = parsed->canonical,
    };
}

static tandem_err copy_operation(void *context, tandem_err err, uint64_t ordinal,
                                 const td_operation *operation)
{
    tandem_operations *operations = context;

    if (err != TANDEM_OK) {
        operations->corrupt = ordinal;
        return TANDEM_END;
    }
    tandem_write_uint(&operations->page, ordinal);
    tandem_write_binary(&operations->page, tandem_slice_of(operation->hash, TANDEM_HASH_BYTES));
    tandem_write_binary(&operations->page, operation->canonical);
    operations->after = ordinal;
    return operations->page.size >= PAGE_BYTES ? TANDEM_END : TANDEM_OK;
}

static tandem_err next_of_collection(tandem_operations *operations, tandem_operation *out)
{
    tandem_slice hash;
    uint64_t ordinal;
    tandem_err err;

    if (tandem_reader_left(&operations->reader) == 0) {
        if (operations->corrupt) {
            out->ordinal = operations->after = operations->corrupt;
            operations->corrupt = 0;
            return TANDEM_E_CORRUPT;
        }
        tandem_writer_clear(&operations->page);
        err = td_op_store_scan(td_reactor_ops(operations->reactor),
                               tandem_slice_text(operations->collection), operations->after,
                               copy_operation, operations);
        if (err != TANDEM_OK && err != TANDEM_END)
            return err;
        if ((err = tandem_writer_err(&operations->page)) != TANDEM_OK)
            return err;
        operations->reader = tandem_reader_of(tandem_writer_slice(&operations->page));
        if (tandem_reader_left(&operations->reader) == 0)
            return operations->corrupt ? next_of_collection(operations, out) : TANDEM_END;
    }
    ordinal = td_own_uint(&operations->reader);
    hash = td_own_binary(&operations->reader);
    td_own_operation(&operations->reader, &operations->parsed);
    fill(out, ordinal, &operations->parsed, hash.bytes);
    return TANDEM_OK;
}

/* The streams of the document, and what is known of it. */
static tandem_err streams_fetch(tandem_operations *operations)
{
    td_view_request *request;
    tandem_reader reader;
    uint32_t count = 0;
    td_ask *ask;
    tandem_err err;

    if ((err = td_ask_open(operations->reactor, TD_VIEW_STREAMS, operations->collection,
                           operations->document, NULL, NULL, &ask)) != TANDEM_OK)
        return err;
    if ((err = td_ask_wait(ask, UINT64_MAX)) != TANDEM_OK)
        goto out;
    request = td_ask_request(ask);
    operations->info = request->info;
    reader = tandem_reader_of(tandem_writer_slice(&request->out));
    for (; tandem_reader_left(&reader); count++)
        tandem_read_skip(&reader, NULL);
    if (!(operations->streams = calloc((size_t)count + 1, sizeof(*operations->streams)))) {
        err = TANDEM_E_NOMEM;
        goto out;
    }
    reader = tandem_reader_of(tandem_writer_slice(&request->out));
    for (; operations->stream_count < count; operations->stream_count++) {
        struct stream *stream = &operations->streams[operations->stream_count];

        td_own_array(&reader);
        keep_name(stream->branch, td_own_string(&reader));
        keep_name(stream->scope, td_own_string(&reader));
        td_own_uint(&reader); /* how many operations it has */
        stream->more = true;
        stream->next_index = 1;
    }
out:
    td_ask_free(ask);
    return err;
}

static tandem_err stream_fetch(tandem_operations *operations, struct stream *stream)
{
    td_view_request *request;
    tandem_err err;

    td_ask_free(stream->page);
    stream->page = NULL;
    if ((err = td_ask_open(operations->reactor, TD_VIEW_STREAM, operations->collection,
                           operations->document, stream->branch, stream->scope, &stream->page)) !=
        TANDEM_OK)
        return err;
    request = td_ask_request(stream->page);
    request->has_after_place = stream->started;
    request->after_place = stream->after_place;
    request->next_index = stream->next_index;
    request->limit = PAGE_ENTRIES;
    err = td_ask_wait(stream->page, UINT64_MAX);
    if (err != TANDEM_OK && (err != TANDEM_E_CORRUPT || !request->corrupt))
        return err;
    operations->corrupt = request->corrupt;
    stream->started = true;
    stream->more = request->more;
    stream->after_place = request->after_place;
    stream->next_index = request->next_index;
    stream->reader = tandem_reader_of(tandem_writer_slice(&request->out));
    return err;
}

static void place_of(const tandem_operation *operation, td_place *out)
{
    td_put_u64(out->bytes, operation->hlc);
    memcpy(out->bytes + 8, operation->origin, TANDEM_ORIGIN_BYTES);
    td_put_u64(out->bytes + 24, operation->seq);
    memcpy(out->bytes + 32, operation->hash, 16);
}

/* Is the operation part of what the document is now? */
static bool counts(const td_document_info *info, const tandem_operation *operation,
                   const td_place *place)
{
    return info->created && !info->deleted &&
           memcmp(place->bytes, info->epoch.bytes, sizeof(place->bytes)) >= 0 &&
           tandem_slice_equal(td_type_model(operation->type), tandem_slice_text(info->model));
}

/* Make the stream's next operation ready, if there is one. */
static tandem_err stream_ready(tandem_operations *operations, struct stream *stream)
{
    td_operation parsed;
    uint64_t index, ordinal;
    tandem_err err;

    if (stream->ready)
        return TANDEM_OK;
    if (!stream->page || tandem_reader_left(&stream->reader) == 0) {
        if (!stream->more)
            return TANDEM_OK;
        if ((err = stream_fetch(operations, stream)) != TANDEM_OK)
            return err;
        if (tandem_reader_left(&stream->reader) == 0)
            return TANDEM_OK;
    }
    td_own_array(&stream->reader);
    index = td_own_uint(&stream->reader);
    ordinal = td_own_uint(&stream->reader);
    td_own_operation(&stream->reader, &parsed);
    fill(&stream->operation, ordinal, &parsed, td_own_binary(&stream->reader).bytes);
    stream->operation.index = index;
    place_of(&stream->operation, &stream->place);
    stream->operation.counts = counts(&operations->info, &stream->operation, &stream->place);
    stream->ready = true;
    return TANDEM_OK;
}

static tandem_err next_of_document(tandem_operations *operations, tandem_operation *out)
{
    tandem_err err;

    if (!operations->streams && (err = streams_fetch(operations)) != TANDEM_OK)
        return err;
    for (;;) {
        struct stream *first = NULL;

        if (operations->given)
            operations->given->ready = false;
        operations->given = NULL;
        for (uint32_t i = 0; i < operations->stream_count; i++) {
            struct stream *stream = &operations->streams[i];

            if ((err = stream_ready(operations, stream)) != TANDEM_OK) {
                out->ordinal = operations->corrupt;
                operations->corrupt = 0;
                return err;
            }
            if (stream->ready && (!first || memcmp(stream->place.bytes, first->place.bytes,
                                                   sizeof(first->place.bytes)) < 0))
                first = stream;
        }
        if (!first)
            return TANDEM_END;
        operations->given = first;
        if (first->operation.ordinal <= operations->after)
            continue;
        *out = first->operation;
        return TANDEM_OK;
    }
}

tandem_err tandem_operations_next(tandem_operations *operations, tandem_operation *operation)
{
    if (!operations || !operation)
        return TANDEM_E_INVALID;
    memset(operation, 0, sizeof(*operation));
    return operations->document ? next_of_document(operations, operation)
                                : next_of_collection(operations, operation);
}
