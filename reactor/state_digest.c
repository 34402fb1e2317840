#include "reactor/state_digest.h"

#include <assert.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { SLICE = 256 }; /* documents */

struct td_state_digest {
    crypto_generichash_state state;
    tandem_slice collection;
    uint64_t documents; /* live ones, so far */
    /* Up to `after` all is hashed. */
    struct td_name {
        uint8_t size;
        uint8_t bytes[TANDEM_NAME_BYTES_MAX];
    } after, slice[SLICE];
    unsigned visited, count; /* in this slice: documents, live ones */
    tandem_writer streams;
    tandem_writer item;
};

tandem_err td_state_digest_open(td_state_digest **out)
{
    /* libsodium's state wants more than malloc's alignment. */
    size_t unit = _Alignof(td_state_digest);
    td_state_digest *digest = aligned_alloc(unit, (sizeof(*digest) + unit - 1) / unit * unit);

    if (!digest)
        return TANDEM_E_NOMEM;
    memset(digest, 0, sizeof(*digest));
    tandem_writer_init(&digest->streams);
    tandem_writer_init(&digest->item);
    *out = digest;
    return TANDEM_OK;
}

void td_state_digest_free(td_state_digest *digest)
{
    if (!digest)
        return;
    tandem_writer_release(&digest->streams);
    tandem_writer_release(&digest->item);
    free(digest);
}

tandem_err td_state_digest_start(td_state_digest *digest, td_stream_index *index,
                                 tandem_slice collection, char why[TD_WHY_BYTES])
{
    uint64_t corrupt, first;
    tandem_err err = td_stream_index_corrupt(index, collection, &corrupt, &first);

    if (err == TANDEM_OK && corrupt) {
        td_why(why, "%" PRIu64 " records are corrupt, the first at ordinal %" PRIu64, corrupt,
               first);
        err = TANDEM_E_CORRUPT;
    }
    crypto_generichash_init(&digest->state, NULL, 0, TANDEM_HASH_BYTES);
    digest->collection = collection;
    digest->after.size = 0;
    digest->documents = 0;
    return err;
}

static tandem_slice name_slice(const struct td_name *name)
{
    return tandem_slice_of(name->bytes, name->size);
}

static void name_set(struct td_name *name, tandem_slice bytes)
{
    name->size = (uint8_t)bytes.size;
    memcpy(name->bytes, bytes.bytes, bytes.size);
}

static tandem_err visit_document(void *context, tandem_slice document,
                                 const td_document_info *info)
{
    td_state_digest *digest = context;

    if (info->created && !info->deleted)
        name_set(&digest->slice[digest->count++], document);
    name_set(&digest->after, document);
    return ++digest->visited == SLICE ? TANDEM_END : TANDEM_OK;
}

static tandem_err visit_stream(void *context, tandem_slice branch, tandem_slice scope,
                               uint64_t operations)
{
    td_state_digest *digest = context;

    tandem_write_string(&digest->streams, branch);
    tandem_write_string(&digest->streams, scope);
    return tandem_writer_err(&digest->streams);
}

static tandem_err hash_stream(td_state_digest *digest, td_stream_index *index, td_folder *folder,
                              tandem_slice document, const td_document_info *info,
                              tandem_slice branch, tandem_slice scope, char why[TD_WHY_BYTES])
{
    tandem_writer *item = &digest->item;
    td_fold fold;
    tandem_err err = td_folder_fold(folder, index, digest->collection, document, info, branch,
                                    scope, false, &fold, why);

    if (err && err != TANDEM_E_MODEL_UNKNOWN)
        return err;
    tandem_writer_clear(item);
    tandem_write_array(item, 5);
    tandem_write_string(item, document);
    tandem_write_string(item, branch);
    tandem_write_string(item, scope);
    tandem_write_text(item, info->model);
    if (err) {
        why[0] = '\0';
        tandem_write_nil(item);
    } else if ((err = fold.model->show(fold.state, item)) != TANDEM_OK) {
        return err;
    }
    if ((err = tandem_writer_err(item)) == TANDEM_OK)
        crypto_generichash_update(&digest->state, item->bytes, item->size);
    return err;
}

static tandem_err hash_document(td_state_digest *digest, td_stream_index *index, td_folder *folder,
                                tandem_slice document, char why[TD_WHY_BYTES])
{
    tandem_slice branch, scope;
    td_document_info info;
    tandem_reader reader;
    tandem_err err;

    tandem_writer_clear(&digest->streams);
    if ((err = td_stream_index_document(index, digest->collection, document, &info)) ||
        (err = td_stream_index_streams(index, digest->collection, document, visit_stream, digest)))
        return err;
    digest->documents++;
    reader = tandem_reader_of(tandem_writer_slice(&digest->streams));
    while (tandem_reader_left(&reader)) {
        err = tandem_read_string(&reader, &branch);
        if (err == TANDEM_OK)
            err = tandem_read_string(&reader, &scope);
        assert(err == TANDEM_OK);
        err = hash_stream(digest, index, folder, document, &info, branch, scope, why);
        if (err != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

tandem_err td_state_digest_step(td_state_digest *digest, td_stream_index *index, td_folder *folder,
                                char why[TD_WHY_BYTES])
{
    tandem_err err;

    digest->visited = digest->count = 0;
    err = td_stream_index_documents(index, digest->collection, name_slice(&digest->after),
                                    visit_document, digest);
    for (unsigned i = 0; i < digest->count && err == TANDEM_OK; i++)
        err = hash_document(digest, index, folder, name_slice(&digest->slice[i]), why);
    return err == TANDEM_OK && digest->visited < SLICE ? TANDEM_END : err;
}

void td_state_digest_end(td_state_digest *digest, uint8_t out[TANDEM_HASH_BYTES],
                         uint64_t *documents_out)
{
    crypto_generichash_final(&digest->state, out, TANDEM_HASH_BYTES);
    *documents_out = digest->documents;
}
