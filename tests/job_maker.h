/*
 * Makes jobs: consecutive operations of an invented origin on one document, as a batch that keeps
 * their bytes. For what stands between two stores and looks into neither.
 */
#ifndef TANDEM_TESTS_JOB_MAKER_H
#define TANDEM_TESTS_JOB_MAKER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "channel/job_handle.h"

enum { BATCH_OPERATIONS_MAX = 2048 };

struct chain {
    const char *collection;
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t seq;
    uint8_t hash[TANDEM_HASH_BYTES];
};

struct batch {
    tandem_writer bytes[BATCH_OPERATIONS_MAX];
    td_operation operations[BATCH_OPERATIONS_MAX];
    size_t count;
};

static inline void chain_init(struct chain *chain, const char *collection, uint32_t number)
{
    memset(chain, 0, sizeof(*chain));
    chain->collection = collection;
    td_put_u32(chain->origin, number);
    td_chain_root(tandem_slice_text(collection), chain->hash);
}

/* The next operation of a chain, at the end of a batch. */
static inline void batch_add(struct batch *batch, struct chain *chain, const char *document,
                             const char *branch, const char *scope, size_t payload_bytes,
                             bool continues)
{
    static const uint8_t payload[TANDEM_OPERATION_BYTES_MAX];
    tandem_writer *bytes = &batch->bytes[batch->count];
    td_operation *operation = &batch->operations[batch->count];
    td_operation fields = {
        .version = TD_OPERATION_VERSION,
        .flags = continues ? TD_FLAG_CONTINUES : 0,
        .seq = chain->seq + 1,
        .hlc = (chain->seq + 1) << 16,
        .origin = chain->origin,
        .predecessor = chain->hash,
        .collection = tandem_slice_text(chain->collection),
        .document = tandem_slice_text(document),
        .branch = tandem_slice_text(branch),
        .scope = tandem_slice_text(scope),
        .type = tandem_slice_text("kv.SET"),
        .payload = tandem_slice_of(payload, payload_bytes),
    };

    assert_true(batch->count < BATCH_OPERATIONS_MAX);
    tandem_writer_init(bytes);
    assert_int_equal(TANDEM_OK, td_operation_encode(&fields, bytes));
    assert_int_equal(TANDEM_OK, td_operation_parse(tandem_writer_slice(bytes), operation));
    td_operation_hash(operation);
    memcpy(chain->hash, operation->hash, sizeof(chain->hash));
    chain->seq++;
    batch->count++;
}

/* The next job of a chain: count operations with payloads of so many bytes. */
static inline void batch_job(struct batch *batch, struct chain *chain, size_t count,
                             size_t payload_bytes)
{
    for (size_t i = 0; i < count; i++)
        batch_add(batch, chain, "document", "main", "global", payload_bytes, i + 1 < count);
}

static inline void batch_release(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        tandem_writer_release(&batch->bytes[i]);
    batch->count = 0;
}

/* A handle that keeps the next job of a chain. */
static inline tandem_job_handle *make_job(struct chain *chain, size_t count, size_t payload_bytes)
{
    struct batch *batch = calloc(1, sizeof(*batch));
    tandem_job_handle *handle;

    assert_non_null(batch);
    batch_job(batch, chain, count, payload_bytes);
    assert_int_equal(TANDEM_OK, td_job_handle_open(&batch->operations[0], 0, true, &handle));
    for (size_t i = 1; i < count; i++)
        assert_int_equal(TANDEM_OK, td_job_handle_add(handle, &batch->operations[i]));
    batch_release(batch);
    free(batch);
    return handle;
}

#endif
