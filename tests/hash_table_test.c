/* Hash tables: found by key, met in order of insertion, unchanged where memory runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store/hash_table.h"

enum { MANY = 5000 };

struct item {
    uint32_t number, rank;
    td_hash_entry by_number, by_rank;
};

/* In place of the C library's, for all that the linker is told of (--wrap). Compilers make one call
 * to calloc() of one to malloc() and zeros. */
static uint32_t allocations_left = UINT32_MAX;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);

void *__wrap_malloc(size_t size)
{
    return allocations_left && allocations_left-- ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
    return allocations_left && allocations_left-- ? __real_calloc(count, size) : NULL;
}

static tandem_slice slice_of(const uint32_t *number)
{
    return tandem_slice_of(number, sizeof(*number));
}

static tandem_err add(td_hash_table *table, struct item *item)
{
    return td_hash_table_add(table, &item->by_number, slice_of(&item->number), item);
}

static struct item *find(const td_hash_table *table, uint32_t number)
{
    return td_hash_table_find(table, slice_of(&number));
}

/* Numbered from 0, the ranks the other way round, each twice. */
static struct item *items_of(uint32_t count)
{
    struct item *items = calloc(count, sizeof(*items));

    assert_non_null(items);
    for (uint32_t i = 0; i < count; i++)
        items[i] = (struct item){.number = i, .rank = (count - 1 - i) / 2};
    return items;
}

static void add_all(td_hash_table *table, struct item *items, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(TANDEM_OK, add(table, &items[i]));
}

static void leave(void *owner)
{
}

static void an_empty_table_finds_nothing(void **state)
{
    td_hash_table table = {0};

    assert_null(find(&table, 1));
    assert_null(td_hash_table_first(&table));
    assert_int_equal(0, td_hash_table_count(&table));
    td_hash_table_sort(&table, NULL);
    td_hash_table_clear(&table, NULL);
}

static void what_was_added_is_found_and_comes_in_order(void **state)
{
    struct item *items = items_of(MANY), *item;
    td_hash_table table = {0};
    uint32_t at = 0;

    add_all(&table, items, MANY);
    assert_int_equal(MANY, td_hash_table_count(&table));
    for (uint32_t i = 0; i < MANY; i++)
        assert_ptr_equal(&items[i], find(&table, i));
    assert_null(find(&table, MANY));
    for (item = td_hash_table_first(&table); item; item = td_hash_table_next(&item->by_number))
        assert_ptr_equal(&items[at++], item);
    assert_int_equal(MANY, at);
    td_hash_table_clear(&table, leave);
    free(items);
}

/* First, last, and all between them; what is added again comes last. */
static void what_was_removed_is_gone_and_the_others_stay(void **state)
{
    struct item *items = items_of(MANY), *item, *next;
    td_hash_table table = {0};
    uint32_t at = 1;

    add_all(&table, items, MANY);
    for (item = td_hash_table_first(&table); item; item = next) {
        next = td_hash_table_next(&item->by_number);
        if (item->number % 2 == 0 || item->number == MANY - 1)
            td_hash_table_remove(&table, &item->by_number);
    }
    assert_int_equal(MANY / 2 - 1, td_hash_table_count(&table));
    assert_null(find(&table, 0));
    assert_null(find(&table, MANY - 1));
    assert_int_equal(TANDEM_OK, add(&table, &items[0]));
    for (item = td_hash_table_first(&table); item->number; at += 2) {
        assert_ptr_equal(&items[at], item);
        assert_ptr_equal(item, find(&table, at));
        item = td_hash_table_next(&item->by_number);
    }
    assert_null(td_hash_table_next(&item->by_number));
    while ((item = td_hash_table_first(&table)))
        td_hash_table_remove(&table, &item->by_number);
    assert_int_equal(0, td_hash_table_count(&table));
    assert_int_equal(TANDEM_OK, add(&table, &items[1]));
    assert_ptr_equal(&items[1], find(&table, 1));
    td_hash_table_clear(&table, leave);
    free(items);
}

static int rank_compare(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static void sorting_changes_the_order_alone(void **state)
{
    struct item *items = items_of(MANY), *item;
    struct item late = {.number = MANY};
    td_hash_table table = {0};

    add_all(&table, items, MANY);
    td_hash_table_sort(&table, rank_compare);
    item = td_hash_table_first(&table);
    for (uint32_t i = 0; i < MANY; i++) {
        /* Of one rank, the first comes first. */
        assert_int_equal(MANY - 2 - i / 2 * 2 + i % 2, item->number);
        assert_ptr_equal(&items[i], find(&table, i));
        if (i < MANY - 1)
            item = td_hash_table_next(&item->by_number);
    }
    assert_int_equal(TANDEM_OK, add(&table, &late));
    assert_ptr_equal(&late, td_hash_table_next(&item->by_number));
    td_hash_table_clear(&table, leave);
    free(items);
}

static void keys_are_told_apart_by_size_and_bytes(void **state)
{
    const tandem_slice keys[] = {tandem_slice_text("a"), tandem_slice_text(""),
                                 tandem_slice_text("ab"), tandem_slice_of("a", 2)};
    td_hash_table table = {0};
    struct item items[4];

    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(TANDEM_OK,
                         td_hash_table_add(&table, &items[i].by_number, keys[i], &items[i]));
    for (unsigned i = 0; i < 4; i++)
        assert_ptr_equal(&items[i], td_hash_table_find(&table, keys[i]));
    assert_ptr_equal(&items[1], td_hash_table_find(&table, tandem_slice_of(NULL, 0)));
    assert_null(td_hash_table_find(&table, tandem_slice_text("b")));
    td_hash_table_clear(&table, leave);
}

static void one_owner_is_in_several_tables(void **state)
{
    struct item item = {.number = 1, .rank = 2};
    td_hash_table by_number = {0}, by_rank = {0};

    assert_int_equal(TANDEM_OK, add(&by_number, &item));
    assert_int_equal(TANDEM_OK,
                     td_hash_table_add(&by_rank, &item.by_rank, slice_of(&item.rank), &item));
    assert_ptr_equal(&item, find(&by_number, 1));
    assert_ptr_equal(&item, find(&by_rank, 2));
    td_hash_table_remove(&by_number, &item.by_number);
    assert_ptr_equal(&item, td_hash_table_first(&by_rank));
    td_hash_table_clear(&by_rank, leave);
}

static uint32_t released;

static void release_in_order(void *owner)
{
    struct item *item = owner;

    assert_int_equal(released++, item->number);
    free(item);
}

static void clearing_releases_each_in_order(void **state)
{
    td_hash_table table = {0};

    for (uint32_t i = 0; i < MANY; i++) {
        struct item *item = calloc(1, sizeof(*item));

        assert_non_null(item);
        item->number = i;
        assert_int_equal(TANDEM_OK, add(&table, item));
    }
    released = 0;
    td_hash_table_clear(&table, release_in_order);
    assert_int_equal(MANY, released);
    assert_int_equal(0, td_hash_table_count(&table));
}

/* A table asks for memory twice with its first entry, and wherever it has to grow. */
static void where_memory_runs_out_nothing_has_changed(void **state)
{
    struct item *items = items_of(MANY), *item;
    td_hash_table table = {0};
    uint32_t failed = 0, at = 0;

    for (uint32_t i = 0; i < MANY; i++)
        for (uint32_t left = 0, added = 0; !added; left++) {
            tandem_err err;

            allocations_left = left;
            err = add(&table, &items[i]);
            allocations_left = UINT32_MAX;
            added = err == TANDEM_OK;
            if (added)
                continue;
            failed++;
            assert_int_equal(TANDEM_E_NOMEM, err);
            assert_int_equal(i, td_hash_table_count(&table));
            assert_null(find(&table, i));
        }
    assert_true(failed > 2);
    for (item = td_hash_table_first(&table); item; item = td_hash_table_next(&item->by_number)) {
        assert_ptr_equal(&items[at++], item);
        assert_ptr_equal(item, find(&table, item->number));
    }
    assert_int_equal(MANY, at);
    td_hash_table_clear(&table, leave);
    free(items);
}

/* The first to hash has settled it, or the first to propose. */
static void the_key_stays(void **state)
{
    struct item item = {.number = 1};
    td_hash_table table = {0};

    td_hash_propose_key(0);
    assert_int_equal(TANDEM_OK, add(&table, &item));
    td_hash_propose_key(12345);
    assert_ptr_equal(&item, find(&table, 1));
    td_hash_table_clear(&table, leave);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_table_finds_nothing),
        cmocka_unit_test(what_was_added_is_found_and_comes_in_order),
        cmocka_unit_test(what_was_removed_is_gone_and_the_others_stay),
        cmocka_unit_test(sorting_changes_the_order_alone),
        cmocka_unit_test(keys_are_told_apart_by_size_and_bytes),
        cmocka_unit_test(one_owner_is_in_several_tables),
        cmocka_unit_test(clearing_releases_each_in_order),
        cmocka_unit_test(where_memory_runs_out_nothing_has_changed),
        cmocka_unit_test(the_key_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
