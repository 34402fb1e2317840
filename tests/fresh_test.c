/* What was committed last, kept for all peers: it shows what the store does, or says that it cannot. */
#include "tests/operation_maker.h"

#include <stdio.h>

#include "sync/fresh.h"
#include "store/op_tables.h"

enum { ROUNDS = 400, EACH = 4, SEEN_MAX = 2 * ROUNDS * EACH };

static void random_bytes(tandem_env *env, void *out, size_t size)
{
    memset(out, 7, size);
}

static uint64_t no_time(tandem_env *env)
{
    return 0;
}

static const struct tandem_env_ops env_ops = {no_time, no_time, random_bytes};
static tandem_env env = {.ops = &env_ops};

struct bed {
    td_op_store *ops;
    struct maker makers[2]; /* of collections a and b */
    uint64_t position;
    td_fresh fresh;
};

static int bed_open(void **state)
{
    static struct bed bed;
    td_store *store;

    memset(&bed, 0, sizeof(bed));
    maker_init(&bed.makers[0], "a", 1);
    maker_init(&bed.makers[1], "b", 2);
    assert_int_equal(TANDEM_OK, td_memory_store_open(&env, NULL, td_op_store_tables,
                                                     td_op_store_table_count, &store));
    assert_int_equal(TANDEM_OK, td_op_store_open(&env, store, &bed.ops));
    *state = &bed;
    return 0;
}

static int bed_close(void **state)
{
    struct bed *bed = *state;

    td_fresh_release(&bed->fresh);
    td_op_store_free(bed->ops);
    return 0;
}

/* Commit one operation of a collection, with so many bytes. */
static void write_one(struct bed *bed, unsigned collection, size_t size)
{
    static const uint8_t payload[64 * 1024];
    td_append_result result;
    struct made made;

    make(&bed->makers[collection], 1, "d", "main", "global", "log.APPEND",
         tandem_slice_of(payload, size), &made);
    assert_int_equal(TANDEM_OK, td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_OK, td_op_store_append(bed->ops, &made.operation, 1, &result));
    assert_int_equal(TANDEM_OK, td_op_store_commit(bed->ops));
    tandem_writer_release(&made.bytes);
    bed->position++;
}

static void keep(struct bed *bed, uint64_t seen)
{
    td_fresh_begin(&bed->fresh, seen, bed->position);
    td_fresh_add(&bed->fresh, bed->ops, tandem_slice_text("a"));
    td_fresh_add(&bed->fresh, bed->ops, tandem_slice_text("b"));
    td_fresh_end(&bed->fresh);
}

struct seen {
    uint64_t ordinals[SEEN_MAX];
    uint8_t hashes[SEEN_MAX][TANDEM_HASH_BYTES];
    size_t sizes[SEEN_MAX];
    size_t count;
};

static tandem_err see(void *context, tandem_err err, uint64_t ordinal,
                      const td_operation *operation)
{
    struct seen *seen = context;

    assert_int_equal(TANDEM_OK, err);
    assert_true(seen->count < SEEN_MAX);
    seen->ordinals[seen->count] = ordinal;
    seen->sizes[seen->count] = operation->canonical.size;
    memcpy(seen->hashes[seen->count++], operation->hash, TANDEM_HASH_BYTES);
    return TANDEM_OK;
}

/* Does it show what the store does? False: it has not all of it. */
static bool is_the_same(struct bed *bed, const char *collection, uint64_t after)
{
    static struct seen fresh, stored;
    tandem_err err;

    fresh.count = stored.count = 0;
    if (!td_fresh_scan(&bed->fresh, tandem_slice_text(collection), after, see, &fresh, &err)) {
        assert_int_equal(0, fresh.count);
        return false;
    }
    assert_int_equal(TANDEM_OK, err);
    assert_int_equal(TANDEM_OK, td_op_store_scan(bed->ops, tandem_slice_text(collection), after,
                                                 see, &stored));
    assert_int_equal(stored.count, fresh.count);
    assert_memory_equal(stored.ordinals, fresh.ordinals, stored.count * sizeof(uint64_t));
    assert_memory_equal(stored.hashes, fresh.hashes, stored.count * TANDEM_HASH_BYTES);
    assert_memory_equal(stored.sizes, fresh.sizes, stored.count * sizeof(size_t));
    return true;
}

static void what_is_kept_is_what_the_store_has(void **state)
{
    struct bed *bed = *state;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t seen = bed->position;

        for (unsigned i = 0; i < EACH; i++)
            write_one(bed, (round + i / 3) % 2, 1 + i);
        keep(bed, seen);
        for (uint64_t after = seen; after < bed->position; after++)
            assert_true(is_the_same(bed, "a", after) && is_the_same(bed, "b", after));
        assert_false(is_the_same(bed, "a", bed->position)); /* there may be more by now */
        assert_true(bed->fresh.count <= TD_FRESH_OPERATIONS_MAX);
    }
    assert_true(is_the_same(bed, "b", 0) == (ROUNDS * EACH <= TD_FRESH_OPERATIONS_MAX));
}

static void what_is_kept_is_bounded(void **state)
{
    struct bed *bed = *state;

    for (unsigned round = 0; round < 30; round++) {
        uint64_t seen = bed->position;

        write_one(bed, 0, 60 * 1024);
        keep(bed, seen);
        assert_true(bed->fresh.bytes <= TD_FRESH_BYTES_MAX);
        assert_true(is_the_same(bed, "a", seen));
    }
    assert_false(is_the_same(bed, "a", 0));
    for (unsigned i = 0; i <= TD_FRESH_OPERATIONS_MAX; i++)
        write_one(bed, 1, 1);
    keep(bed, 30); /* more than it keeps came at once */
    assert_int_equal(0, bed->fresh.count);
    assert_false(is_the_same(bed, "a", 29) || is_the_same(bed, "b", bed->position - 1));
}

static void after_a_gap_it_begins_anew(void **state)
{
    struct bed *bed = *state;

    write_one(bed, 0, 1);
    keep(bed, 0);
    write_one(bed, 0, 1);
    write_one(bed, 1, 1);
    keep(bed, 2);
    assert_false(is_the_same(bed, "a", 0) || is_the_same(bed, "a", 1));
    assert_true(is_the_same(bed, "b", 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_kept_is_what_the_store_has, bed_open, bed_close),
        cmocka_unit_test_setup_teardown(what_is_kept_is_bounded, bed_open, bed_close),
        cmocka_unit_test_setup_teardown(after_a_gap_it_begins_anew, bed_open, bed_close),
    };

    return cmocka_run_group_tests_name("fresh", tests, NULL, NULL);
}
