/*
 * Damage to LMDB's files (store/lmdb_check.h): what is found, and that what is not found does not
 * end the process. Each damaged file that passes is read and written by a child, which must come to
 * its end, in whatever words.
 *
 *   lmdb_check_test [FLIPS [SEED]]   random flips, over all kinds of pages
 */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/lmdb_check.h"
#include "tests/draw.h"
#include "tests/folder.h"

enum { PAGE = 4096, TABLES = 2, ENTRIES = 3000, BIG_BYTES = 20000 };
/* What LMDB uses of a meta page on 64 bits; the size of the mark of a closed store. */
enum { META_BITS = 8 * 152, MARK_BYTES = 32 };
/* What stands in front of a page's entries; where in a meta page its two trees are described. */
enum { HEAD = 16, FREE_TREE = 40, MAIN_TREE = 88 };

static const char *const names[] = {"small", "big"};
static tandem_env env; /* no log, and a store asks for neither time nor randomness */
static unsigned flips = 200;
static uint64_t seed = 1;

struct bed {
    char folder[FOLDER_BYTES];
    char file[300], mark[300];
    uint8_t *whole; /* the bytes of a file that is whole */
    size_t size;
    uint32_t used[1024]; /* its pages that are neither free nor of a meta page */
    unsigned used_count;
};

static tandem_err open_store(const struct bed *bed, td_store **out)
{
    return td_lmdb_store_open(&env, bed->folder, names, TABLES, out);
}

static tandem_err check(const struct bed *bed, char why[TD_STORE_WHY_BYTES])
{
    return td_lmdb_check(bed->folder, TD_LMDB_NEWEST, true, why);
}

static void put(td_txn *txn, unsigned table, uint32_t number, size_t size)
{
    static const uint8_t zeros[BIG_BYTES];
    uint8_t key[40] = {0};

    td_put_u32(key, number * 2654435761u);
    td_put_u32(key + 4, number);
    assert_int_equal(TANDEM_OK, td_txn_put(txn, table, tandem_slice_of(key, 8 + number % 32),
                                           tandem_slice_of(zeros, size)));
}

/* Trees of several levels, values of several pages, and free pages. */
static void fill(td_store *store)
{
    tandem_slice key, value;
    td_cursor *cursor;
    td_txn *txn;

    for (unsigned round = 0; round < 6; round++) {
        assert_int_equal(TANDEM_OK, td_store_begin_write(store, &txn));
        for (uint32_t i = 0; i < ENTRIES / 6; i++)
            put(txn, 0, round * (ENTRIES / 6) + i, 40 + i % 100);
        for (uint32_t i = 0; i < 4; i++)
            put(txn, 1, round * 4 + i, BIG_BYTES - 3000 * (size_t)i);
        put(txn, 1, round * 4, BIG_BYTES / 2); /* over a longer value of the same transaction */
        assert_int_equal(TANDEM_OK, td_txn_commit(txn));
    }
    assert_int_equal(TANDEM_OK, td_store_begin_write(store, &txn));
    for (unsigned i = 0; i < ENTRIES / 3; i++) {
        assert_int_equal(TANDEM_OK, td_txn_cursor(txn, 0, &cursor));
        assert_int_equal(TANDEM_OK,
                         td_cursor_seek(cursor, tandem_slice_text("7"), &key, &value));
        assert_int_equal(TANDEM_OK, td_txn_del(txn, 0, tandem_slice_of(memcpy((uint8_t[64]){0},
                                                   key.bytes, key.size), key.size)));
        td_cursor_free(cursor);
    }
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
}

static void write_file(const struct bed *bed, const uint8_t *bytes, size_t size)
{
    FILE *file = fopen(bed->file, "w");

    assert_non_null(file);
    assert_int_equal(size, fwrite(bytes, 1, size, file));
    fclose(file);
}

/* Where a page's number is changed and that is noticed, the page is in use. */
static void used_find(struct bed *bed)
{
    char why[TD_STORE_WHY_BYTES];
    int fd = open(bed->file, O_WRONLY);

    assert_true(fd >= 0);
    for (size_t at = 2 * PAGE; at < bed->size; at += PAGE) {
        uint8_t byte = (uint8_t)~bed->whole[at];

        assert_int_equal(1, pwrite(fd, &byte, 1, (off_t)at));
        if (check(bed, why) != TANDEM_OK && bed->used_count < 1024)
            bed->used[bed->used_count++] = (uint32_t)(at / PAGE);
        assert_int_equal(1, pwrite(fd, &bed->whole[at], 1, (off_t)at));
    }
    close(fd);
    assert_true(bed->used_count > 100);
}

static int bed_make(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));
    struct stat info;
    td_store *store;
    FILE *file;

    folder_make(bed->folder, "check", false);
    snprintf(bed->file, sizeof(bed->file), "%s/data.mdb", bed->folder);
    snprintf(bed->mark, sizeof(bed->mark), "%s/closed", bed->folder);
    assert_int_equal(TANDEM_OK, open_store(bed, &store));
    fill(store);
    td_store_free(store);
    assert_int_equal(0, stat(bed->file, &info));
    bed->size = (size_t)info.st_size;
    bed->whole = malloc(bed->size);
    assert_non_null(file = fopen(bed->file, "r"));
    assert_int_equal(bed->size, fread(bed->whole, 1, bed->size, file));
    fclose(file);
    used_find(bed);
    *state = bed;
    return 0;
}

/* One bed for all tests; each begins with the whole file. */
static int bed_reset(void **state)
{
    struct bed *bed = *state;

    write_file(bed, bed->whole, bed->size);
    unlink(bed->mark);
    return 0;
}

static int bed_unmake(void **state)
{
    struct bed *bed = *state;

    folder_remove(bed->folder);
    free(bed->whole);
    free(bed);
    return 0;
}

/* Read all, and change something; errors are welcome, an end of the process is not. */
static void use(const struct bed *bed, bool writing)
{
    tandem_slice key, value;
    td_cursor *cursor;
    uint64_t sum = 0;
    td_store *store;
    td_txn *txn;

    if (open_store(bed, &store) != TANDEM_OK)
        return;
    for (unsigned table = 0; table < TABLES; table++) {
        if (td_store_begin_read(store, &txn) != TANDEM_OK)
            continue;
        if (td_txn_cursor(txn, table, &cursor) == TANDEM_OK) {
            tandem_err err = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value);

            for (; err == TANDEM_OK; err = td_cursor_next(cursor, &key, &value))
                for (size_t i = 0; i < value.size; i++)
                    sum += value.bytes[i];
            td_cursor_free(cursor);
        }
        td_txn_abort(txn);
    }
    for (uint32_t i = 0; writing && i < 200; i++) {
        uint8_t number[40] = {0};

        if (i % 100 == 0 && td_store_begin_write(store, &txn) != TANDEM_OK)
            break;
        td_put_u32(number, i * 2654435761u);
        td_put_u32(number + 4, i);
        key = tandem_slice_of(number, 8 + i % 32);
        if (i % 2)
            td_txn_put(txn, i % 3 == 0, key, tandem_slice_of(bed->whole, 100 * (size_t)i));
        else
            td_txn_del(txn, i % 3 == 0, key);
        if (i % 100 == 99 && td_txn_commit(txn) != TANDEM_OK)
            break;
    }
    td_store_free(store);
    _exit(sum == 1); /* the sum is used */
}

static void assert_usable(const struct bed *bed, const char *what, bool writing)
{
    pid_t child = fork();
    int status = 0;

    assert_true(child >= 0);
    if (child == 0) {
        use(bed, writing);
        _exit(0);
    }
    assert_int_equal(child, waitpid(child, &status, 0));
    unlink(bed->mark);
    if (!WIFEXITED(status))
        fail_msg("%s: it passed, and its use ended with signal %d", what, WTERMSIG(status));
}

/* ---- Tests ---- */

static void a_whole_file_passes(void **state)
{
    struct bed *bed = *state;
    char why[TD_STORE_WHY_BYTES];

    assert_int_equal(TANDEM_OK, check(bed, why));
    assert_string_equal("", why);
    assert_usable(bed, "a whole file", true);
    assert_int_equal(TANDEM_OK, check(bed, why));
}

static void no_file_and_an_empty_one_pass(void **state)
{
    struct bed *bed = *state;
    char why[TD_STORE_WHY_BYTES];

    write_file(bed, bed->whole, 0);
    assert_int_equal(TANDEM_OK, check(bed, why));
    assert_int_equal(0, unlink(bed->file));
    assert_int_equal(TANDEM_OK, check(bed, why));
}

static void a_file_that_was_cut_is_refused_at_every_length(void **state)
{
    struct bed *bed = *state;
    char why[TD_STORE_WHY_BYTES];
    td_store *store;

    for (size_t size = 1; size < bed->size; size += size < 2 * PAGE ? 511 : PAGE / 2 * 7) {
        write_file(bed, bed->whole, size);
        if (td_lmdb_check(bed->folder, TD_LMDB_NEWEST, false, why) == TANDEM_OK)
            fail_msg("%zu bytes of %zu pass", size, bed->size);
        assert_true(why[0]);
        assert_true(open_store(bed, &store) < TANDEM_OK);
    }
}

static void one_bit_anywhere_is_found_or_does_no_harm(void **state)
{
    struct bed *bed = *state;
    uint8_t *bytes = malloc(bed->size);
    char why[TD_STORE_WHY_BYTES], what[100];
    unsigned found = 0;
    uint64_t random = seed;

    for (unsigned i = 0; i < flips; i++) {
        size_t page = bed->used[draw(&random) % bed->used_count], at;
        unsigned bit = (unsigned)(draw(&random) % 8);

        /* Half of them where LMDB keeps its own numbers, a third of them on the meta pages. */
        if (i % 3 == 0)
            page = draw(&random) % 2;
        at = page * PAGE + draw(&random) % (i % 2 ? 160 : PAGE);
        memcpy(bytes, bed->whole, bed->size);
        bytes[at] ^= (uint8_t)(1u << bit);
        snprintf(what, sizeof(what), "seed %llu: bit %u of byte %zu of page %zu",
                 (unsigned long long)seed, bit, at % PAGE, page);
        write_file(bed, bytes, bed->size);
        if (check(bed, why) != TANDEM_OK)
            found++;
        else
            assert_usable(bed, what, i % 8 == 0 || flips > 200);
    }
    print_message("%u of %u flips were found in LMDB's own structure\n", found, flips);
    assert_true(found > flips / 10);
    free(bytes);
}

/* Set number of size bytes and check what is said. */
static void expect(struct bed *bed, size_t at, uint64_t number, size_t size, const char *said)
{
    uint8_t *bytes = malloc(bed->size);
    char why[TD_STORE_WHY_BYTES];

    memcpy(bytes, bed->whole, bed->size);
    memcpy(bytes + at, &number, size);
    write_file(bed, bytes, bed->size);
    if (check(bed, why) == TANDEM_OK || !strstr(why, said))
        fail_msg("`%s` is not in `%s`", said, why);
    free(bytes);
}

static uint64_t number_at(const struct bed *bed, size_t at, size_t size)
{
    uint64_t number = 0;

    memcpy(&number, bed->whole + at, size);
    return number;
}

/* The offset of the newest meta page, and of the first page of a kind that is in use. */
static size_t meta_of(const struct bed *bed)
{
    return memcmp(bed->whole + 144, bed->whole + PAGE + 144, 1) > 0 ? 0 : PAGE;
}

static size_t page_of(const struct bed *bed, unsigned kind)
{
    for (unsigned i = 0; i < bed->used_count; i++)
        if (bed->whole[(size_t)bed->used[i] * PAGE + 10] == kind)
            return (size_t)bed->used[i] * PAGE;
    fail_msg("no page of kind %u is in use", kind);
    return 0;
}

static void what_is_wrong_is_said(void **state)
{
    struct bed *bed = *state;
    size_t meta = meta_of(bed), leaf = page_of(bed, 2), branch = page_of(bed, 1);
    size_t overflow = page_of(bed, 4);

    expect(bed, meta + 16, 1, 4, "no meta page");
    expect(bed, meta + 40, 8192, 4, meta ? "does not describe" : "meta page");
    expect(bed, meta + 44, 4, 2, "does not describe");
    expect(bed, meta + 92, 4, 2, "does not describe");
    expect(bed, meta + 46, 33, 2, "pages deep");
    expect(bed, meta + 128, UINT64_MAX, 8, "pages deep");
    expect(bed, meta + 136, 1, 8, "no such page");
    expect(bed, meta + 136, UINT64_MAX / 2, 8, "should have");
    expect(bed, meta + 72, 12345, 8, "entries of the list of free pages are counted");
    expect(bed, leaf, 1, 8, "another page's number");
    expect(bed, leaf + 10, 4, 2, "another kind");
    expect(bed, leaf + 12, 5000, 2, "bounds");
    expect(bed, leaf + 12, 16, 2, "too few");
    expect(bed, leaf + 16, 4094, 2, "does not lie on it");
    expect(bed, branch + 16, 0, 2, "does not lie on it");
    expect(bed, overflow + 10, 2, 2, "does not begin a value");
    expect(bed, overflow + 12, 1, 4, "does not begin a value");
}

/* The root of a tree, whose description stands so far behind the meta page's begin. */
static size_t root_of(const struct bed *bed, size_t tree)
{
    return (size_t)number_at(bed, meta_of(bed) + tree + 40, 8) * PAGE;
}

/* Where entry i of a page stands. */
static size_t entry_of(const struct bed *bed, size_t page, unsigned i)
{
    return page + number_at(bed, page + HEAD + 2 * i, 2);
}

/* How many entries a page has, and which of them stands first on it: behind that is room. */
static unsigned count_of(const struct bed *bed, size_t page)
{
    return ((unsigned)number_at(bed, page + 12, 2) - HEAD) / 2;
}

static size_t first_entry_of(const struct bed *bed, size_t page)
{
    return page + number_at(bed, page + 14, 2);
}

/* What LMDB has of an entry: the size of its value or a page's number (4), flags (2), the key's size
 * (2), the key, the value; and of a page: its number (8), kind (4 with padding), bounds (2 and 2). */
static void what_is_wrong_in_a_tree_is_said(void **state)
{
    struct bed *bed = *state;
    size_t meta = meta_of(bed), names_page = root_of(bed, MAIN_TREE), free_page, leaf, branch = 0;
    size_t table = first_entry_of(bed, names_page), entry, list;
    uint64_t key_bytes, number;

    expect(bed, table + 4, 0, 2, "something else than tables");
    expect(bed, table, 40, 2, "something else than tables");
    expect(bed, table + 6, 32, 2, "none of ours");
    key_bytes = number_at(bed, table + 6, 2);
    expect(bed, table + 8 + key_bytes + 4, 4, 2, "not ours");
    expect(bed, table + 8 + key_bytes + 6, 0, 2, "cannot be 0 pages deep");
    expect(bed, table + 8 + key_bytes + 40, 1, 8, "no such page");

    for (leaf = page_of(bed, 1); bed->whole[leaf + 10] == 1;) {
        branch = leaf;
        leaf = (size_t)number_at(bed, entry_of(bed, branch, 0), 4) * PAGE;
    }
    expect(bed, entry_of(bed, branch, 1), leaf / PAGE, 4, "in use twice");
    expect(bed, leaf + 12, 14, 2, "bounds");
    expect(bed, leaf + 12, 41, 2, "bounds");
    expect(bed, leaf + 14, 20, 2, "bounds");
    expect(bed, leaf + 14, PAGE + 2, 2, "bounds");
    entry = entry_of(bed, leaf, 1);
    expect(bed, entry + 4, 4, 2, "another kind");
    expect(bed, entry + 4, 2, 2, "another kind");
    expect(bed, entry + 6, 0, 2, "a key cannot be");
    expect(bed, entry_of(bed, leaf, 0) + 8, UINT64_MAX, 8, "not in order");
    expect(bed, first_entry_of(bed, leaf) + 6, TD_STORE_KEY_BYTES_MAX + 1, 2, "a key cannot be");
    expect(bed, entry_of(bed, leaf, count_of(bed, leaf) - 1) + 8, UINT64_MAX, 8, "not in order");
    expect(bed, leaf + HEAD + 2, 17, 2, "does not lie on it");

    free_page = root_of(bed, FREE_TREE);
    assert_int_equal(2, bed->whole[free_page + 10]);
    entry = first_entry_of(bed, free_page);
    list = entry + 16; /* behind a key of 8 bytes */
    number = number_at(bed, list, 8);
    assert_true(number >= 2);
    expect(bed, entry, 4, 2, "cut short");
    expect(bed, list, number + 1, 8, "cut short");
    expect(bed, list, UINT64_MAX, 8, "cut short");
    expect(bed, list + 16, number_at(bed, list + 8, 8), 8, "list of free pages is not in order");
    expect(bed, list + 8 * number, 1, 8, "no such page");
    expect(bed, list + 8, UINT64_MAX - 1, 8, "no such page");
    expect(bed, list + 8, UINT64_MAX, 8, "list of free pages is not in order");
    expect(bed, entry + 6, 4, 2, "a key cannot be");
    for (unsigned i = 0; i < bed->used_count; i++) /* a page in use that fits the order */
        if (number >= 2 && bed->used[i] < number_at(bed, list + 8 * (number - 1), 8)) {
            expect(bed, list + 8 * number, bed->used[i], 8, "it is free, and in use");
            number = 0;
        }
    expect(bed, meta + 136, 0, 8, "should have");
    expect(bed, 40, 100, 4, "pages cannot have");
    expect(bed, 40, 5000, 4, "pages cannot have");
    expect(bed, 40, 1 << 20, 4, "pages cannot have");
}

static void a_file_that_cannot_be_read_is_no_damaged_one(void **state)
{
    struct bed *bed = *state;
    char why[TD_STORE_WHY_BYTES], *endless = calloc(1, PATH_MAX + 1);

    memset(endless, 'n', PATH_MAX);
    assert_int_equal(TANDEM_E_INVALID, td_lmdb_check(endless, TD_LMDB_NEWEST, true, why));
    free(endless);
    assert_int_equal(TANDEM_E_STATE, td_lmdb_check(bed->folder, 1, true, why));
    assert_int_equal(0, unlink(bed->file));
    assert_int_equal(0, mkdir(bed->file, 0700));
    assert_int_equal(TANDEM_E_IO, check(bed, why));
    assert_non_null(strstr(why, "cannot be read"));
    assert_int_equal(0, rmdir(bed->file));
    assert_int_equal(0, symlink(bed->file, bed->file)); /* round and round */
    assert_int_equal(TANDEM_E_IO, check(bed, why));
    assert_int_equal(0, unlink(bed->file));
}

static void a_file_that_was_not_closed_is_walked_when_it_is_opened(void **state)
{
    struct bed *bed = *state;
    size_t leaf = page_of(bed, 2);
    uint8_t *bytes = malloc(bed->size);
    td_store *store;

    memcpy(bytes, bed->whole, bed->size);
    bytes[leaf + 12] ^= 1;
    write_file(bed, bytes, bed->size);
    free(bytes);
    assert_int_equal(0, access(bed->file, F_OK));
    assert_int_equal(TANDEM_OK, td_lmdb_store_suspect(bed->folder));
    assert_int_equal(TANDEM_OK, td_lmdb_store_suspect(bed->folder));
    assert_int_equal(TANDEM_E_CORRUPT, open_store(bed, &store));
    assert_int_equal(TANDEM_E_CORRUPT, open_store(bed, &store)); /* and every time */
    write_file(bed, bed->whole, bed->size);
    assert_int_equal(TANDEM_OK, open_store(bed, &store));
    assert_int_equal(-1, access(bed->mark, F_OK));
    td_store_free(store);
    assert_int_equal(0, access(bed->mark, F_OK));
}

/* A commit that is taken for older than it is leaves a file in which nothing is wrong. */
static void any_bit_of_a_closed_files_meta_pages_counts(void **state)
{
    struct bed *bed = *state;
    tandem_err err;
    td_store *store;
    int fd;

    assert_int_equal(TANDEM_OK, open_store(bed, &store));
    td_store_free(store);
    assert_true((fd = open(bed->file, O_WRONLY)) >= 0);
    for (size_t bit = 0; bit < 2 * (size_t)META_BITS; bit++) {
        size_t at = bit / META_BITS * PAGE + bit % META_BITS / 8;
        uint8_t byte = bed->whole[at] ^ (uint8_t)(1 << bit % 8);

        assert_int_equal(1, pwrite(fd, &byte, 1, (off_t)at));
        err = open_store(bed, &store);
        if (err == TANDEM_OK)
            fail_msg("bit %zu of byte %zu passed", bit % 8, at);
        assert_true(err == TANDEM_E_CORRUPT || err == TANDEM_E_FORMAT);
        assert_int_equal(TANDEM_OK, td_lmdb_store_suspect(bed->folder));
        assert_int_equal(err, open_store(bed, &store)); /* and every time */
        assert_int_equal(1, pwrite(fd, &bed->whole[at], 1, (off_t)at));
    }
    close(fd);
    assert_int_equal(TANDEM_OK, open_store(bed, &store));
    td_store_free(store);
}

static void a_damaged_mark_is_none(void **state)
{
    struct bed *bed = *state;
    td_store *store;

    for (unsigned byte = 0; byte <= MARK_BYTES; byte++) {
        assert_int_equal(TANDEM_OK, open_store(bed, &store));
        td_store_free(store);
        if (byte == MARK_BYTES) {
            assert_int_equal(0, truncate(bed->mark, MARK_BYTES - 1));
        } else {
            uint8_t was;
            int fd = open(bed->mark, O_RDWR);

            assert_true(fd >= 0);
            assert_int_equal(1, pread(fd, &was, 1, byte));
            was ^= 4;
            assert_int_equal(1, pwrite(fd, &was, 1, byte));
            close(fd);
        }
        assert_int_equal(TANDEM_OK, open_store(bed, &store));
        td_store_free(store);
    }
}

static void an_open_store_is_checked_as_its_readers_see_it(void **state)
{
    struct bed *bed = *state;
    char why[TD_STORE_WHY_BYTES];
    size_t leaf = page_of(bed, 2);
    td_store *store;
    int fd;

    assert_int_equal(TANDEM_OK, open_store(bed, &store));
    assert_int_equal(TANDEM_OK, td_store_pages_check(store, why));
    assert_true((fd = open(bed->file, O_WRONLY)) >= 0);
    assert_int_equal(1, pwrite(fd, "\x11", 1, (off_t)leaf + 12));
    close(fd);
    assert_int_equal(TANDEM_E_CORRUPT, td_store_pages_check(store, why));
    assert_true(why[0]);
    td_store_free(store);
}

#define ON_BED(test) cmocka_unit_test_setup(test, bed_reset)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        ON_BED(a_whole_file_passes),
        ON_BED(no_file_and_an_empty_one_pass),
        ON_BED(a_file_that_was_cut_is_refused_at_every_length),
        ON_BED(one_bit_anywhere_is_found_or_does_no_harm),
        ON_BED(what_is_wrong_is_said),
        ON_BED(what_is_wrong_in_a_tree_is_said),
        ON_BED(a_file_that_cannot_be_read_is_no_damaged_one),
        ON_BED(a_file_that_was_not_closed_is_walked_when_it_is_opened),
        ON_BED(any_bit_of_a_closed_files_meta_pages_counts),
        ON_BED(a_damaged_mark_is_none),
        ON_BED(an_open_store_is_checked_as_its_readers_see_it),
    };

    if (argc > 1)
        flips = (unsigned)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        seed = strtoull(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, bed_make, bed_unmake);
}
