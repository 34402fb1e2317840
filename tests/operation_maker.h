/*
 * Makes operations of invented origins and puts them into an operations store: each is a job of its
 * own. An origin that makes only one operation lets it arrive at any time.
 */
#ifndef TANDEM_TESTS_OPERATION_MAKER_H
#define TANDEM_TESTS_OPERATION_MAKER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/op_store.h"

struct maker {
    const char *collection;
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    td_head tip;
};

struct made {
    tandem_writer bytes;
    td_operation operation;
};

static inline void maker_init(struct maker *maker, const char *collection, uint32_t number)
{
    memset(maker, 0, sizeof(*maker));
    maker->collection = collection;
    td_put_u32(maker->origin, number);
    td_chain_root(tandem_slice_text(collection), maker->tip.hash);
}

static inline void make_flagged(struct maker *maker, uint64_t flags, uint64_t hlc,
                                const char *document, const char *branch, const char *scope,
                                const char *type, tandem_slice payload, struct made *out)
{
    td_operation fields = {
        .version = TD_OPERATION_VERSION,
        .flags = flags,
        .seq = maker->tip.seq + 1,
        .hlc = hlc,
        .origin = maker->origin,
        .predecessor = maker->tip.hash,
        .collection = tandem_slice_text(maker->collection),
        .document = tandem_slice_text(document),
        .branch = tandem_slice_text(branch),
        .scope = tandem_slice_text(scope),
        .type = tandem_slice_text(type),
        .payload = payload,
    };

    tandem_writer_init(&out->bytes);
    assert_int_equal(TANDEM_OK, td_operation_encode(&fields, &out->bytes));
    assert_int_equal(TANDEM_OK,
                     td_operation_parse(tandem_writer_slice(&out->bytes), &out->operation));
    td_operation_hash(&out->operation);
    maker->tip.seq++;
    memcpy(maker->tip.hash, out->operation.hash, TANDEM_HASH_BYTES);
}

static inline void make(struct maker *maker, uint64_t hlc, const char *document,
                        const char *branch, const char *scope, const char *type,
                        tandem_slice payload, struct made *out)
{
    make_flagged(maker, 0, hlc, document, branch, scope, type, payload, out);
}

/* An operation of an origin that makes nothing else. Its payload is the number. */
static inline void make_single(const char *collection, uint32_t number, uint64_t hlc,
                               const char *document, const char *branch, const char *scope,
                               const char *type, struct made *out)
{
    struct maker maker;
    uint8_t payload[5] = {0xce};

    maker_init(&maker, collection, number);
    td_put_u32(payload + 1, number);
    make(&maker, hlc, document, branch, scope, type, tandem_slice_of(payload, sizeof(payload)),
         out);
}

static inline void made_release(struct made *made, size_t count)
{
    for (size_t i = 0; i < count; i++)
        tandem_writer_release(&made[i].bytes);
}

/* In one commit, in the order given (NULL: as they stand). */
static inline void arrive(td_op_store *ops, const struct made *made, const size_t *order,
                          size_t count)
{
    td_append_result result;

    assert_int_equal(TANDEM_OK, td_op_store_begin(ops));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(TANDEM_OK,
                         td_op_store_append(ops, &made[order ? order[i] : i].operation, 1,
                                            &result));
    assert_int_equal(TANDEM_OK, td_op_store_commit(ops));
}

/* A seeded permutation of 0 … count - 1 (xorshift). */
static inline void shuffle(size_t *order, size_t count, uint64_t seed)
{
    uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t i = count; i > 1; i--) {
        size_t j, kept = order[i - 1];

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        j = (size_t)(x % i);
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

#endif
