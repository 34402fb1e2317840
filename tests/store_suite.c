/*
 * The conformance suite of the td_store contract (store/store.h): one program, run once per backend
 * with the backend's name as its argument. What all backends promise stands in one list that none
 * may opt out of; what is one backend's own (files, modes) follows in a list of its own.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/lmdb_check.h"
#include "store/store.h"
#include "tests/draw.h"
#include "tests/folder.h"

static const char *const names[] = {"first", "second", "third"};
enum { TABLES = 3 };

static tandem_env env; /* no log, and a store asks for neither time nor randomness */

/* What a store stands on: it outlives the store, as a disk does. */
struct bed {
    char folder[FOLDER_BYTES];
    td_memory_disk *disk;
    td_store *store;
    struct rlimit file_limit;
    bool damaged; /* its file, on purpose */
};

struct backend {
    const char *name;
    tandem_err (*open)(struct bed *bed, const char *const *tables, unsigned count);
    /* From now on commits fail as they do on a full disk, until mended. */
    void (*fill_disk)(struct bed *bed, size_t bytes_left);
    void (*mend_disk)(struct bed *bed);
};

static const struct backend *backend;

/* ---- The backends ---- */

static tandem_err lmdb_bed_open(struct bed *bed, const char *const *tables, unsigned count)
{
    return td_lmdb_store_open(&env, bed->folder, tables, count, &bed->store);
}

static void lmdb_bed_fill(struct bed *bed, size_t bytes_left)
{
    struct rlimit limit = bed->file_limit;
    char path[300];
    struct stat file;

    snprintf(path, sizeof(path), "%s/data.mdb", bed->folder);
    assert_int_equal(0, stat(path, &file));
    limit.rlim_cur = (rlim_t)file.st_size + bytes_left;
    assert_int_equal(0, setrlimit(RLIMIT_FSIZE, &limit));
}

static void lmdb_bed_mend(struct bed *bed)
{
    assert_int_equal(0, setrlimit(RLIMIT_FSIZE, &bed->file_limit));
}

static tandem_err memory_bed_open(struct bed *bed, const char *const *tables, unsigned count)
{
    return td_memory_store_open(&env, bed->disk, tables, count, &bed->store);
}

static void memory_bed_fill(struct bed *bed, size_t bytes_left)
{
    td_memory_store_fail(bed->store, TANDEM_E_STORE_FULL, true);
}

static void memory_bed_mend(struct bed *bed)
{
    td_memory_store_fail(bed->store, TANDEM_OK, true);
}

static const struct backend backends[] = {
    {"lmdb", lmdb_bed_open, lmdb_bed_fill, lmdb_bed_mend},
    {"memory", memory_bed_open, memory_bed_fill, memory_bed_mend},
};

static int bed_make(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    folder_make(bed->folder, "store", false);
    assert_int_equal(TANDEM_OK, td_memory_disk_open(&bed->disk));
    assert_int_equal(0, getrlimit(RLIMIT_FSIZE, &bed->file_limit));
    assert_int_equal(TANDEM_OK, backend->open(bed, names, TABLES));
    *state = bed;
    return 0;
}

static int bed_unmake(void **state)
{
    struct bed *bed = *state;

    char why[TD_STORE_WHY_BYTES];

    setrlimit(RLIMIT_FSIZE, &bed->file_limit);
    td_store_free(bed->store);
    td_memory_disk_free(bed->disk);
    /* Whatever a test did through the contract, LMDB's pages are in order. */
    if (!bed->damaged && td_lmdb_check(bed->folder, TD_LMDB_NEWEST, true, why) != TANDEM_OK)
        fail_msg("the file is not whole: %s", why);
    folder_remove(bed->folder);
    free(bed);
    return 0;
}

static void reopen(struct bed *bed)
{
    td_store_free(bed->store);
    bed->store = NULL;
    assert_int_equal(TANDEM_OK, backend->open(bed, names, TABLES));
}

/* ---- Short forms ---- */

static tandem_slice text(const char *words)
{
    return tandem_slice_text(words);
}

static td_txn *writing(struct bed *bed)
{
    td_txn *txn = NULL;

    assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &txn));
    return txn;
}

static td_txn *reading(struct bed *bed)
{
    td_txn *txn = NULL;

    assert_int_equal(TANDEM_OK, td_store_begin_read(bed->store, &txn));
    return txn;
}

static void put(td_txn *txn, unsigned table, const char *key, const char *value)
{
    assert_int_equal(TANDEM_OK, td_txn_put(txn, table, text(key), text(value)));
}

static void commit(td_txn *txn)
{
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
}

static void assert_slice(tandem_slice expected, tandem_slice actual)
{
    assert_int_equal(expected.size, actual.size);
    if (expected.size)
        assert_memory_equal(expected.bytes, actual.bytes, expected.size);
}

static void assert_value(td_txn *txn, unsigned table, const char *key, const char *expected)
{
    tandem_slice value;

    assert_int_equal(TANDEM_OK, td_txn_get(txn, table, text(key), &value));
    assert_slice(text(expected), value);
}

static void assert_absent(td_txn *txn, unsigned table, const char *key)
{
    tandem_slice value;

    assert_int_equal(TANDEM_E_NOT_FOUND, td_txn_get(txn, table, text(key), &value));
}

static td_cursor *cursor_on(td_txn *txn, unsigned table)
{
    td_cursor *cursor = NULL;

    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, table, &cursor));
    return cursor;
}

/* An entry, or NULL for the end. */
static void assert_lands(const char *expected, tandem_err err, tandem_slice key)
{
    assert_int_equal(expected ? TANDEM_OK : TANDEM_END, err);
    if (expected)
        assert_slice(text(expected), key);
}

static void assert_seek(td_cursor *cursor, const char *key, const char *expected)
{
    tandem_slice k, v;

    assert_lands(expected, td_cursor_seek(cursor, text(key), &k, &v), k);
}

static void assert_seek_before(td_cursor *cursor, const char *key, const char *expected)
{
    tandem_slice k, v;

    assert_lands(expected, td_cursor_seek_before(cursor, text(key), &k, &v), k);
}

static void assert_next(td_cursor *cursor, const char *expected)
{
    tandem_slice k, v;

    assert_lands(expected, td_cursor_next(cursor, &k, &v), k);
}

/* ---- Keys and values ---- */

static void a_fresh_store_is_empty(void **state)
{
    struct bed *bed = *state;
    td_txn *txn = reading(bed);

    for (unsigned table = 0; table < TABLES; table++) {
        td_cursor *cursor = cursor_on(txn, table);

        assert_absent(txn, table, "a");
        assert_seek(cursor, "", NULL);
        assert_seek(cursor, "a", NULL);
        assert_seek_before(cursor, "", NULL);
        assert_seek_before(cursor, "a", NULL);
        assert_next(cursor, NULL);
        td_cursor_free(cursor);
    }
    td_txn_abort(txn);
    assert_string_equal(backend->name, bed->store->ops->name);
}

static void put_inserts_and_replaces_and_del_deletes(void **state)
{
    struct bed *bed = *state;
    td_txn *txn = writing(bed);

    put(txn, 0, "a", "1");
    assert_value(txn, 0, "a", "1");
    put(txn, 0, "a", "a longer value");
    assert_value(txn, 0, "a", "a longer value");
    put(txn, 0, "b", "2");
    commit(txn);

    txn = writing(bed);
    assert_value(txn, 0, "a", "a longer value");
    assert_int_equal(TANDEM_OK, td_txn_del(txn, 0, text("a")));
    assert_absent(txn, 0, "a");
    assert_int_equal(TANDEM_E_NOT_FOUND, td_txn_del(txn, 0, text("a")));
    assert_int_equal(TANDEM_E_NOT_FOUND, td_txn_del(txn, 0, text("c")));
    put(txn, 0, "b", "");
    commit(txn);

    txn = reading(bed);
    assert_absent(txn, 0, "a");
    assert_value(txn, 0, "b", "");
    td_txn_abort(txn);
}

/* One behind the other, in two tables in turn, before one that is there, and in its place. */
static void room_is_reserved_for_a_value(void **state)
{
    enum { COUNT = 2000, VALUE_BYTES = 300 };
    struct bed *bed = *state;
    td_txn *txn = writing(bed);
    uint8_t *room;
    char key[16];

    put(txn, 0, "z", "behind all");
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(key, sizeof(key), "%06u", i);
        assert_int_equal(TANDEM_OK, td_txn_reserve(txn, i % 7 == 0, text(key), VALUE_BYTES, &room));
        memset(room, 'a' + (int)(i % 26), VALUE_BYTES);
        if (i % 5 == 0)
            assert_int_equal(TANDEM_OK, td_txn_del(txn, i % 7 == 0, text(key)));
    }
    assert_int_equal(TANDEM_OK, td_txn_reserve(txn, 0, text("z"), 3, &room));
    memcpy(room, "new", 3);
    assert_int_equal(TANDEM_OK, td_txn_reserve(txn, 0, text("zz"), 0, &room));
    commit(txn);
    txn = reading(bed);
    for (unsigned i = 0; i < COUNT; i++) {
        char value[VALUE_BYTES + 1] = "";

        snprintf(key, sizeof(key), "%06u", i);
        memset(value, 'a' + (int)(i % 26), VALUE_BYTES);
        if (i % 5 == 0)
            assert_absent(txn, i % 7 == 0, key);
        else
            assert_value(txn, i % 7 == 0, key, value);
        assert_absent(txn, i % 7 != 0, key);
    }
    assert_value(txn, 0, "z", "new");
    assert_value(txn, 0, "zz", "");
    td_txn_abort(txn);
    txn = writing(bed);
    assert_int_equal(TANDEM_OK, td_txn_reserve(txn, 0, text("zzz"), 3, &room));
    memcpy(room, "one", 3);
    td_txn_abort(txn);
    txn = reading(bed);
    assert_absent(txn, 0, "zzz");
    td_txn_abort(txn);
}

static void tables_do_not_see_each_other(void **state)
{
    struct bed *bed = *state;
    td_txn *txn = writing(bed);

    put(txn, 0, "a", "1");
    put(txn, 2, "a", "3");
    assert_absent(txn, 1, "a");
    commit(txn);
    txn = writing(bed);
    assert_int_equal(TANDEM_OK, td_txn_del(txn, 0, text("a")));
    assert_value(txn, 2, "a", "3");
    commit(txn);
}

static void keys_and_values_reach_their_bounds(void **state)
{
    static uint8_t key[TD_STORE_KEY_BYTES_MAX], value[3 << 20];
    struct bed *bed = *state;
    td_txn *txn = writing(bed);
    tandem_slice got;

    memset(key, 0xff, sizeof(key));
    for (size_t i = 0; i < sizeof(value); i++)
        value[i] = (uint8_t)(i * 7);
    assert_int_equal(TANDEM_OK, td_txn_put(txn, 0, tandem_slice_of(key, sizeof(key)),
                                           tandem_slice_of(value, sizeof(value))));
    assert_int_equal(TANDEM_OK, td_txn_put(txn, 0, tandem_slice_of("\0", 1),
                                           tandem_slice_of(NULL, 0)));
    commit(txn);
    txn = reading(bed);
    assert_int_equal(TANDEM_OK, td_txn_get(txn, 0, tandem_slice_of(key, sizeof(key)), &got));
    assert_slice(tandem_slice_of(value, sizeof(value)), got);
    assert_int_equal(TANDEM_OK, td_txn_get(txn, 0, tandem_slice_of("\0", 1), &got));
    assert_int_equal(0, got.size);
    td_txn_abort(txn);
}

static void keys_stand_in_byte_order(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
    } sorted[] = {{"\0", 1},   {"\0\0", 2}, {"\0a", 2}, {"A", 1},     {"a", 1},
                  {"a\0", 2},  {"aa", 2},   {"ab", 2},  {"b", 1},     {"\x7f", 1},
                  {"\x80", 1}, {"\xc3", 1}, {"\xff", 1}, {"\xff\0", 2}, {"\xff\xff", 2}};
    enum { COUNT = sizeof(sorted) / sizeof(sorted[0]) };
    struct bed *bed = *state;
    td_txn *txn = writing(bed);
    td_cursor *cursor;
    tandem_slice k, v;

    for (size_t i = 0; i < COUNT; i++) { /* 7 and 15 share no factor: all, out of order */
        size_t at = i * 7 % COUNT;

        assert_int_equal(TANDEM_OK,
                         td_txn_put(txn, 0, tandem_slice_of(sorted[at].bytes, sorted[at].size),
                                    text("v")));
    }
    commit(txn);
    txn = reading(bed);
    cursor = cursor_on(txn, 0);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(TANDEM_OK, i ? td_cursor_next(cursor, &k, &v)
                                      : td_cursor_seek(cursor, text(""), &k, &v));
        assert_slice(tandem_slice_of(sorted[i].bytes, sorted[i].size), k);
    }
    assert_next(cursor, NULL);
    td_cursor_free(cursor);
    td_txn_abort(txn);
}

static void a_cursor_finds_its_neighbours(void **state)
{
    struct bed *bed = *state;
    td_txn *txn = writing(bed);
    td_cursor *cursor;

    put(txn, 1, "b", "1");
    put(txn, 1, "d", "2");
    put(txn, 1, "f", "3");
    commit(txn);

    txn = reading(bed);
    cursor = cursor_on(txn, 1);
    assert_seek(cursor, "a", "b");
    assert_seek(cursor, "b", "b");
    assert_seek(cursor, "c", "d");
    assert_next(cursor, "f");
    assert_next(cursor, NULL);
    assert_next(cursor, NULL);
    assert_seek(cursor, "g", NULL);
    assert_next(cursor, NULL);
    assert_seek_before(cursor, "b", NULL);
    assert_next(cursor, NULL);
    assert_seek_before(cursor, "c", "b");
    assert_next(cursor, "d");
    assert_seek_before(cursor, "d", "b");
    assert_seek_before(cursor, "g", "f");
    assert_next(cursor, NULL);
    assert_seek_before(cursor, "", "f");
    assert_seek(cursor, "", "b");
    td_cursor_free(cursor);
    td_txn_abort(txn);
}

static void a_writer_sees_its_changes_through_cursors(void **state)
{
    struct bed *bed = *state;
    td_txn *txn = writing(bed);
    td_cursor *cursor;

    for (char c = 'a'; c <= 'z'; c++)
        put(txn, 0, (char[]){c, 0}, "old");
    commit(txn);
    txn = writing(bed);
    cursor = cursor_on(txn, 0);
    assert_seek(cursor, "c", "c");
    for (char c = 'b'; c <= 'y'; c++) {
        assert_int_equal(TANDEM_OK, td_txn_del(txn, 0, text((char[]){c, 0})));
        assert_seek(cursor, "b", c == 'y' ? "z" : (char[]){(char)(c + 1), 0});
        assert_seek_before(cursor, (char[]){c, 0}, "a");
    }
    put(txn, 0, "m", "new");
    assert_seek(cursor, "", "a");
    assert_next(cursor, "m");
    assert_next(cursor, "z");
    assert_next(cursor, NULL);
    td_cursor_free(cursor);
    td_txn_abort(txn);

    txn = reading(bed);
    cursor = cursor_on(txn, 0);
    assert_seek(cursor, "c", "c");
    assert_next(cursor, "d");
    td_cursor_free(cursor);
    td_txn_abort(txn);
}

/* ---- Against a model ---- */

enum { MODEL_KEYS = 400, MODEL_TXNS = 60, MODEL_STEPS = 400 };

/* The naive store: every key that can be, with the length and fill of its value; -1 is absent. */
struct model {
    uint8_t keys[MODEL_KEYS][TD_STORE_KEY_BYTES_MAX];
    size_t sizes[MODEL_KEYS];
    int32_t committed[TABLES][MODEL_KEYS];
    int32_t values[TABLES][MODEL_KEYS];
};

static tandem_slice model_key(const struct model *model, size_t at)
{
    return tandem_slice_of(model->keys[at], model->sizes[at]);
}

static int by_key(const void *a, const void *b)
{
    const tandem_slice *x = a, *y = b;

    return tandem_slice_compare(*x, *y);
}

/* Different keys, sorted, many with shared beginnings and some as long as can be. */
static void model_fill(struct model *model, uint64_t *seed)
{
    static uint8_t drawn[MODEL_KEYS][TD_STORE_KEY_BYTES_MAX];
    tandem_slice sorted[MODEL_KEYS];
    size_t count = 0;

    while (count < MODEL_KEYS) {
        size_t size = 1 + draw(seed) % (draw(seed) % 16 ? 6 : TD_STORE_KEY_BYTES_MAX), i;

        for (i = 0; i < size; i++)
            drawn[count][i] = (uint8_t)(draw(seed) % 4 * 85);
        sorted[count] = tandem_slice_of(drawn[count], size);
        for (i = 0; i < count && !tandem_slice_equal(sorted[i], sorted[count]); i++)
            ;
        count += i == count;
    }
    qsort(sorted, MODEL_KEYS, sizeof(sorted[0]), by_key);
    for (size_t i = 0; i < MODEL_KEYS; i++) {
        memcpy(model->keys[i], sorted[i].bytes, sorted[i].size);
        model->sizes[i] = sorted[i].size;
    }
    memset(model->committed, 0xff, sizeof(model->committed));
    memset(model->values, 0xff, sizeof(model->values));
}

/* A value is known by one number: most are small, some fill pages of their own. */
static tandem_slice model_value(int32_t number)
{
    static uint8_t bytes[9000];
    size_t size = (uint32_t)number % 10 == 0 ? (uint32_t)number % sizeof(bytes)
                                             : (uint32_t)number % 60;

    memset(bytes, number & 0xff, size);
    return tandem_slice_of(bytes, size);
}

/* The model's first entry at or after at, or last before it. MODEL_KEYS if there is none. */
static size_t model_from(const int32_t *values, size_t at)
{
    while (at < MODEL_KEYS && values[at] < 0)
        at++;
    return at;
}

static size_t model_before(const int32_t *values, size_t at)
{
    while (at > 0)
        if (values[--at] >= 0)
            return at;
    return MODEL_KEYS;
}

static void assert_model(const struct model *model, const int32_t *values, size_t at,
                         tandem_err err, tandem_slice key, tandem_slice value)
{
    assert_int_equal(at == MODEL_KEYS ? TANDEM_END : TANDEM_OK, err);
    if (at == MODEL_KEYS)
        return;
    assert_slice(model_key(model, at), key);
    assert_slice(model_value(values[at]), value);
}

/* All of a table, forwards. */
static void assert_table(td_txn *txn, unsigned table, const struct model *model,
                         const int32_t *values)
{
    td_cursor *cursor = cursor_on(txn, table);
    tandem_slice k, v;
    tandem_err err = td_cursor_seek(cursor, text(""), &k, &v);
    size_t at = model_from(values, 0);

    for (; at < MODEL_KEYS; at = model_from(values, at + 1)) {
        assert_model(model, values, at, err, k, v);
        err = td_cursor_next(cursor, &k, &v);
    }
    assert_int_equal(TANDEM_END, err);
    td_cursor_free(cursor);
}

/* One random call, on the store and on the model. */
static void model_step(td_txn *txn, td_cursor **cursors, struct model *model, uint64_t *seed)
{
    unsigned table = (unsigned)(draw(seed) % TABLES);
    size_t at = draw(seed) % MODEL_KEYS;
    int32_t *values = model->values[table];
    tandem_slice key = model_key(model, at), k, v;
    tandem_err err;

    switch (draw(seed) % 8) {
    case 0:
    case 1:
    case 2:
        values[at] = (int32_t)(draw(seed) % 1000000);
        assert_int_equal(TANDEM_OK, td_txn_put(txn, table, key, model_value(values[at])));
        break;
    case 3:
    case 4:
        assert_int_equal(values[at] < 0 ? TANDEM_E_NOT_FOUND : TANDEM_OK,
                         td_txn_del(txn, table, key));
        values[at] = -1;
        break;
    case 5:
        err = td_txn_get(txn, table, key, &v);
        assert_int_equal(values[at] < 0 ? TANDEM_E_NOT_FOUND : TANDEM_OK, err);
        if (values[at] >= 0)
            assert_slice(model_value(values[at]), v);
        break;
    case 6:
        err = td_cursor_seek(cursors[table], key, &k, &v);
        at = model_from(values, at);
        assert_model(model, values, at, err, k, v);
        for (int i = 0; i < 3 && at < MODEL_KEYS; i++) {
            at = model_from(values, at + 1);
            err = td_cursor_next(cursors[table], &k, &v);
            assert_model(model, values, at, err, k, v);
        }
        break;
    default:
        err = td_cursor_seek_before(cursors[table], key, &k, &v);
        at = model_before(values, at);
        assert_model(model, values, at, err, k, v);
        if (at < MODEL_KEYS) {
            at = model_from(values, at + 1);
            err = td_cursor_next(cursors[table], &k, &v);
            assert_model(model, values, at, err, k, v);
        }
    }
}

static void random_transactions(struct bed *bed, uint64_t seed)
{
    struct model *model = calloc(1, sizeof(*model));

    model_fill(model, &seed);
    for (int round = 0; round < MODEL_TXNS; round++) {
        td_txn *txn = writing(bed), *reader;
        td_cursor *cursors[TABLES];
        uint64_t fate;

        for (unsigned i = 0; i < TABLES; i++)
            cursors[i] = cursor_on(txn, i);
        for (int step = 0; step < MODEL_STEPS; step++)
            model_step(txn, cursors, model, &seed);
        /* Every third transaction nearly empties a table, so that pages and nodes merge, too. */
        for (size_t at = 0; round % 3 == 2 && at < MODEL_KEYS; at++) {
            if (draw(&seed) % 10 == 0 || model->values[0][at] < 0)
                continue;
            assert_int_equal(TANDEM_OK, td_txn_del(txn, 0, model_key(model, at)));
            model->values[0][at] = -1;
        }
        reader = reading(bed);
        for (unsigned i = 0; i < TABLES; i++) {
            assert_table(txn, i, model, model->values[i]);
            assert_table(reader, i, model, model->committed[i]);
            td_cursor_free(cursors[i]);
        }
        td_txn_abort(reader);

        fate = draw(&seed) % 8;
        if (fate >= 2) {
            commit(txn);
            memcpy(model->committed, model->values, sizeof(model->values));
        } else {
            if (fate == 1)
                td_txn_abort(txn);
            memcpy(model->values, model->committed, sizeof(model->values));
        }
        if (fate == 0 || fate == 7) /* with the transaction open, or after its commit */
            reopen(bed);
        reader = reading(bed);
        for (unsigned i = 0; i < TABLES; i++)
            assert_table(reader, i, model, model->committed[i]);
        td_txn_abort(reader);
    }
    free(model);
}

static void random_calls_do_what_a_naive_model_does(void **state)
{
    for (uint64_t seed = 1; seed <= 4; seed++) {
        print_message("seed %u\n", (unsigned)seed);
        random_transactions(*state, seed);
        if (seed < 4) {
            bed_unmake(state);
            bed_make(state);
        }
    }
}

static void many_entries_in_random_order_come_out_sorted(void **state)
{
    enum { COUNT = 100000, PER_TXN = 20000 };
    struct bed *bed = *state;
    uint64_t last = 0, empty_bytes = bed->store->ops->bytes(bed->store);
    uint32_t seen = 0;
    td_cursor *cursor;
    td_txn *txn = NULL;
    tandem_slice k, v;
    tandem_err err;

    for (uint64_t i = 0; i < COUNT; i++) {
        uint64_t seed = i;
        uint8_t key[8];

        if (i % PER_TXN == 0)
            txn = writing(bed);
        td_put_u64(key, draw(&seed));
        assert_int_equal(TANDEM_OK, td_txn_put(txn, 0, tandem_slice_of(key, 8),
                                               tandem_slice_of(key, 8)));
        if (i % PER_TXN == PER_TXN - 1)
            commit(txn);
    }
    assert_true(bed->store->ops->bytes(bed->store) > empty_bytes + COUNT * 16);
    bed->store->ops->reader_check(bed->store);

    txn = reading(bed);
    cursor = cursor_on(txn, 0);
    for (err = td_cursor_seek(cursor, text(""), &k, &v); err == TANDEM_OK;
         err = td_cursor_next(cursor, &k, &v)) {
        assert_true(seen++ == 0 || td_get_u64(k.bytes) > last);
        last = td_get_u64(k.bytes);
        assert_slice(k, v);
    }
    assert_int_equal(TANDEM_END, err);
    assert_int_equal(COUNT, seen);
    td_cursor_free(cursor);
    td_txn_abort(txn);
}

/* ---- Transactions ---- */

static void an_abort_undoes_everything(void **state)
{
    struct bed *bed = *state;
    td_txn *txn = writing(bed);

    put(txn, 0, "kept", "1");
    commit(txn);
    txn = writing(bed);
    put(txn, 0, "kept", "2");
    put(txn, 1, "new", "2");
    td_txn_abort(txn);
    txn = reading(bed);
    assert_value(txn, 0, "kept", "1");
    assert_absent(txn, 1, "new");
    td_txn_abort(txn);
    td_txn_abort(NULL);
}

static void a_crash_keeps_what_was_committed(void **state)
{
    struct bed *bed = *state;
    td_txn *txn = writing(bed);

    put(txn, 0, "kept", "1");
    commit(txn);
    txn = writing(bed);
    put(txn, 0, "kept", "2");
    put(txn, 0, "lost", "2");
    reopen(bed); /* with the transaction open */
    txn = writing(bed);
    assert_value(txn, 0, "kept", "1");
    assert_absent(txn, 0, "lost");
    td_txn_abort(txn);
}

static void tables_are_known_by_name(void **state)
{
    static const char *const others[] = {"fourth", "third", "first"};
    struct bed *bed = *state;
    td_txn *txn = writing(bed);

    put(txn, 0, "a", "of first");
    put(txn, 2, "a", "of third");
    commit(txn);
    td_store_free(bed->store);
    bed->store = NULL;
    assert_int_equal(TANDEM_OK, backend->open(bed, others, 3));
    txn = writing(bed);
    assert_absent(txn, 0, "a");
    assert_value(txn, 1, "a", "of third");
    assert_value(txn, 2, "a", "of first");
    put(txn, 0, "a", "of fourth");
    commit(txn);
}

struct snapshot_reader {
    struct bed *bed;
    pthread_barrier_t *turn;
};

static void *read_a_snapshot(void *context)
{
    struct snapshot_reader *self = context;
    td_txn *txn = reading(self->bed);
    td_cursor *cursor;

    pthread_barrier_wait(self->turn); /* begun */
    pthread_barrier_wait(self->turn); /* the writer has committed */
    assert_value(txn, 0, "a", "1");
    assert_value(txn, 0, "b", "1");
    assert_absent(txn, 0, "c");
    cursor = cursor_on(txn, 0);
    assert_seek(cursor, "", "a");
    assert_next(cursor, "b");
    assert_next(cursor, NULL);
    td_cursor_free(cursor);
    td_txn_abort(txn);

    txn = reading(self->bed);
    assert_value(txn, 0, "a", "2");
    assert_absent(txn, 0, "b");
    assert_value(txn, 0, "c", "2");
    td_txn_abort(txn);
    return NULL;
}

static void a_reader_sees_the_store_as_of_its_begin(void **state)
{
    struct bed *bed = *state;
    pthread_barrier_t turn;
    struct snapshot_reader reader = {bed, &turn};
    pthread_t thread;
    td_txn *txn = writing(bed);

    put(txn, 0, "a", "1");
    put(txn, 0, "b", "1");
    commit(txn);
    pthread_barrier_init(&turn, NULL, 2);
    assert_int_equal(0, pthread_create(&thread, NULL, read_a_snapshot, &reader));
    pthread_barrier_wait(&turn);
    txn = writing(bed);
    put(txn, 0, "a", "2");
    put(txn, 0, "c", "2");
    assert_int_equal(TANDEM_OK, td_txn_del(txn, 0, text("b")));
    commit(txn);
    pthread_barrier_wait(&turn);
    assert_int_equal(0, pthread_join(thread, NULL));
    pthread_barrier_destroy(&turn);
}

static void the_writer_may_read_what_is_committed_meanwhile(void **state)
{
    struct bed *bed = *state;
    td_txn *txn = writing(bed), *reader;

    put(txn, 0, "a", "1");
    reader = reading(bed);
    assert_absent(reader, 0, "a");
    td_txn_abort(reader);
    commit(txn);
}

struct busy_reader {
    struct bed *bed;
    pthread_barrier_t *start;
    bool torn;
};

enum { BUSY_ROUNDS = 120, BUSY_READERS = 3, BUSY_BYTES = 1 << 20 };

/* Both tables always hold the same number, and never an older one than before. */
static void *read_until_done(void *context)
{
    struct busy_reader *self = context;
    uint64_t last = 0;

    pthread_barrier_wait(self->start);
    while (last < BUSY_ROUNDS) {
        tandem_slice a, b, k, v;
        td_cursor *cursor = NULL;
        td_txn *txn = NULL;

        if (td_store_begin_read(self->bed->store, &txn) != TANDEM_OK ||
            td_txn_get(txn, 0, text("n"), &a) != TANDEM_OK ||
            td_txn_cursor(txn, 1, &cursor) != TANDEM_OK ||
            td_cursor_seek_before(cursor, text(""), &k, &v) != TANDEM_OK) {
            self->torn = true;
            return NULL;
        }
        b = v;
        self->torn |= td_get_u64(a.bytes) != td_get_u64(b.bytes) || td_get_u64(a.bytes) < last;
        last = td_get_u64(a.bytes);
        td_cursor_free(cursor);
        td_txn_abort(txn);
    }
    return NULL;
}

static void put_round(td_txn *txn, uint64_t round)
{
    static uint8_t filler[BUSY_BYTES];
    uint8_t number[8];

    td_put_u64(number, round);
    assert_int_equal(TANDEM_OK, td_txn_put(txn, 0, text("n"), tandem_slice_of(number, 8)));
    assert_int_equal(TANDEM_OK, td_txn_put(txn, 1, text("z"), tandem_slice_of(number, 8)));
    assert_int_equal(TANDEM_OK, td_txn_put(txn, 2, tandem_slice_of(number, 8),
                                           tandem_slice_of(filler, sizeof(filler))));
}

/* Enough bytes for the map to grow more than once under the readers, and some recoveries. */
static void readers_are_never_torn_by_commits_growth_and_recovery(void **state)
{
    struct bed *bed = *state;
    pthread_barrier_t start;
    struct busy_reader readers[BUSY_READERS];
    pthread_t threads[BUSY_READERS];
    td_txn *txn = writing(bed);

    put_round(txn, 0);
    commit(txn);
    pthread_barrier_init(&start, NULL, BUSY_READERS + 1);
    for (int i = 0; i < BUSY_READERS; i++) {
        readers[i] = (struct busy_reader){bed, &start, false};
        assert_int_equal(0, pthread_create(&threads[i], NULL, read_until_done, &readers[i]));
    }
    pthread_barrier_wait(&start);
    for (uint64_t round = 1; round <= BUSY_ROUNDS; round++) {
        txn = writing(bed);
        put_round(txn, round);
        if (round % 10 == 0) {
            td_txn_abort(txn);
            assert_int_equal(TANDEM_OK, td_store_recover(bed->store));
            txn = writing(bed);
            put_round(txn, round);
        }
        commit(txn);
        bed->store->ops->reader_check(bed->store);
    }
    for (int i = 0; i < BUSY_READERS; i++) {
        assert_int_equal(0, pthread_join(threads[i], NULL));
        assert_false(readers[i].torn);
    }
    pthread_barrier_destroy(&start);
}

/* ---- Growth and failure ---- */

/* Put count values of bytes each; the first error, with the transaction still open. */
static tandem_err put_many(td_txn *txn, uint64_t first, uint64_t count, size_t bytes)
{
    uint8_t *value = calloc(1, bytes), key[8];
    tandem_err err = TANDEM_OK;

    for (uint64_t i = first; i < first + count && err == TANDEM_OK; i++) {
        td_put_u64(key, i);
        memset(value, (int)i, bytes);
        err = td_txn_put(txn, 0, tandem_slice_of(key, 8), tandem_slice_of(value, bytes));
    }
    free(value);
    return err;
}

static void assert_many(struct bed *bed, uint64_t count, size_t bytes)
{
    td_txn *txn = reading(bed);
    uint8_t key[8];
    tandem_slice value;

    for (uint64_t i = 0; i < count; i++) {
        td_put_u64(key, i);
        assert_int_equal(TANDEM_OK, td_txn_get(txn, 0, tandem_slice_of(key, 8), &value));
        assert_int_equal(bytes, value.size);
        assert_int_equal((uint8_t)i, value.bytes[0]);
        assert_int_equal((uint8_t)i, value.bytes[bytes - 1]);
    }
    td_txn_abort(txn);
}

static void bounded_transactions_never_meet_a_full_map(void **state)
{
    struct bed *bed = *state;

    for (uint64_t i = 0; i < 20; i++) {
        td_txn *txn = writing(bed);

        assert_int_equal(TANDEM_OK, put_many(txn, i * 7, 7, 1 << 20));
        commit(txn);
    }
    assert_many(bed, 140, 1 << 20);
    reopen(bed);
    assert_many(bed, 140, 1 << 20);
    assert_true(bed->store->ops->bytes(bed->store) >= 140 << 20);
}

static void a_transaction_larger_than_the_map_succeeds_when_repeated(void **state)
{
    struct bed *bed = *state;
    tandem_err err = TANDEM_E_STORE_FULL;

    for (int attempt = 0; attempt < 4 && err != TANDEM_OK; attempt++) {
        td_txn *txn = writing(bed);

        err = put_many(txn, 0, 100, 1 << 20);
        if (err == TANDEM_OK) {
            err = td_txn_commit(txn);
        } else {
            tandem_slice value;

            assert_int_equal(TANDEM_E_STORE_FULL, td_txn_put(txn, 1, text("a"), text("b")));
            assert_int_equal(TANDEM_E_STORE_FULL, td_txn_get(txn, 1, text("a"), &value));
            td_txn_abort(txn);
        }
        if (err != TANDEM_OK) {
            assert_int_equal(TANDEM_E_STORE_FULL, err);
            assert_int_equal(TANDEM_OK, td_store_recover(bed->store));
        }
    }
    assert_int_equal(TANDEM_OK, err);
    assert_many(bed, 100, 1 << 20);
}

/* bytes_left decides whether the disk refuses at once or cuts a write short. */
static void fill_fail_and_heal(struct bed *bed, size_t bytes_left)
{
    static const uint8_t first_key[8];
    td_txn *txn = writing(bed);
    tandem_slice value;
    tandem_err err;

    put(txn, 1, "acknowledged", "1");
    commit(txn);

    backend->fill_disk(bed, bytes_left);
    for (int attempt = 0; attempt < 3; attempt++) {
        txn = writing(bed);
        put(txn, 1, "acknowledged", "2");
        assert_int_equal(TANDEM_OK, put_many(txn, 0, 4, 1 << 20));
        err = td_txn_commit(txn);
        assert_int_equal(TANDEM_E_STORE_FULL, err);
        assert_int_equal(TANDEM_E_STATE, td_store_begin_write(bed->store, &txn));
        assert_int_equal(TANDEM_OK, td_store_recover(bed->store));
        txn = reading(bed);
        assert_value(txn, 1, "acknowledged", "1");
        assert_int_equal(TANDEM_E_NOT_FOUND,
                         td_txn_get(txn, 0, tandem_slice_of(first_key, sizeof(first_key)), &value));
        td_txn_abort(txn);
    }

    backend->mend_disk(bed);
    txn = writing(bed);
    assert_int_equal(TANDEM_OK, put_many(txn, 0, 4, 1 << 20));
    commit(txn);
    assert_many(bed, 4, 1 << 20);
    reopen(bed);
    assert_many(bed, 4, 1 << 20);
}

static void a_full_disk_loses_nothing_and_heals(void **state)
{
    fill_fail_and_heal(*state, 0);
}

static void a_write_cut_short_loses_nothing_and_heals(void **state)
{
    fill_fail_and_heal(*state, 300 * 1024 + 77);
}

static void what_it_is_made_of_is_checked_while_it_is_open(void **state)
{
    struct bed *bed = *state;
    char why[TD_STORE_WHY_BYTES];
    td_txn *txn;

    assert_int_equal(TANDEM_OK, td_store_pages_check(bed->store, why));
    for (int i = 0; i < 3; i++) {
        txn = writing(bed);
        put(txn, 0, "a", i ? "2" : "1");
        commit(txn);
        txn = writing(bed);
        put(txn, 0, "b", "not committed");
        assert_int_equal(TANDEM_OK, td_store_pages_check(bed->store, why));
        assert_string_equal("", why);
        td_txn_abort(txn);
    }
}

static void recover_may_be_called_at_any_time(void **state)
{
    struct bed *bed = *state;
    td_txn *txn = writing(bed);

    put(txn, 0, "a", "1");
    commit(txn);
    for (int i = 0; i < 3; i++)
        assert_int_equal(TANDEM_OK, td_store_recover(bed->store));
    txn = writing(bed);
    assert_value(txn, 0, "a", "1");
    td_txn_abort(txn);
}

/* ---- LMDB's own ---- */

static void files_are_the_owners_alone(void **state)
{
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    struct bed *bed = *state;

    for (size_t i = 0; i < 2; i++) {
        char path[300];
        struct stat file;

        snprintf(path, sizeof(path), "%s/%s", bed->folder, files[i]);
        assert_int_equal(0, stat(path, &file));
        assert_int_equal(0600, file.st_mode & 07777);
    }
}

static void a_foreign_file_is_no_store(void **state)
{
    struct bed *bed = *state;
    char path[300];
    FILE *file;

    td_store_free(bed->store);
    bed->store = NULL;
    snprintf(path, sizeof(path), "%s/data.mdb", bed->folder);
    file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 4096; i++)
        fputs("no store", file);
    fclose(file);
    bed->damaged = true;
    assert_int_equal(TANDEM_E_FORMAT, backend->open(bed, names, TABLES));
    assert_null(bed->store);
}

/* Put a file of two pages where the store's is: the magic of LMDB at some places, one more byte. */
static void put_file(struct bed *bed, size_t size, bool first, bool second, size_t at)
{
    static const uint32_t magic = 0xbeefc0de;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *bytes = calloc(2, page);
    char path[300];
    FILE *file;

    assert_non_null(bytes);
    if (first)
        memcpy(bytes + 16, &magic, sizeof(magic));
    if (second)
        memcpy(bytes + page + 16, &magic, sizeof(magic));
    if (at)
        bytes[at] = 1;
    td_store_free(bed->store);
    bed->store = NULL;
    folder_empty(bed->folder);
    snprintf(path, sizeof(path), "%s/data.mdb", bed->folder);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(1, fwrite(bytes, size ? size : 2 * page, 1, file));
    fclose(file);
    free(bytes);
}

static void a_creation_cut_short_is_begun_anew(void **state)
{
    struct bed *bed = *state;
    td_txn *txn;

    for (unsigned i = 0; i < 5; i++) {
        put_file(bed, i == 0 ? 512 : 0, i == 1, i == 2, i == 3 ? 400 : 0);
        assert_int_equal(i == 3 ? TANDEM_E_FORMAT : TANDEM_OK, backend->open(bed, names, TABLES));
        if (i == 3) /* there is something in it: it may be a stranger's */
            continue;
        txn = writing(bed);
        put(txn, 0, "key", "value");
        commit(txn);
        reopen(bed);
        txn = reading(bed);
        assert_value(txn, 0, "key", "value");
        td_txn_abort(txn);
    }
}

static void a_missing_folder_is_an_error(void **state)
{
    struct bed other = {.folder = "/proc/tandem-no-such-folder"};

    assert_int_equal(TANDEM_E_IO, backend->open(&other, names, TABLES));
    assert_null(other.store);
}

/* ---- Memory's own ---- */

static void failures_come_when_asked_for(void **state)
{
    struct bed *bed = *state;
    td_txn *txn = writing(bed);

    put(txn, 0, "a", "1");
    commit(txn);
    td_memory_store_fail(bed->store, TANDEM_E_IO, false);
    txn = writing(bed);
    assert_int_equal(TANDEM_E_IO, td_txn_put(txn, 0, text("a"), text("2")));
    assert_int_equal(TANDEM_E_IO, td_txn_commit(txn));
    assert_int_equal(TANDEM_E_STATE, td_store_begin_write(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_store_recover(bed->store));
    td_memory_store_fail(bed->store, TANDEM_OK, false);
    txn = writing(bed);
    assert_value(txn, 0, "a", "1");
    put(txn, 0, "a", "2");
    commit(txn);
}

static void a_failed_put_breaks_its_transaction_for_every_call(void **state)
{
    struct bed *bed = *state;
    tandem_slice key, value;
    td_cursor *cursor, *other;
    td_txn *txn = writing(bed);

    put(txn, 0, "a", "1");
    cursor = cursor_on(txn, 0);
    td_memory_store_fail(bed->store, TANDEM_E_STORE_FULL, false);
    assert_int_equal(TANDEM_E_STORE_FULL, td_txn_put(txn, 0, text("b"), text("2")));
    td_memory_store_fail(bed->store, TANDEM_OK, false);
    assert_int_equal(TANDEM_E_STORE_FULL, td_txn_get(txn, 0, text("a"), &value));
    assert_int_equal(TANDEM_E_STORE_FULL, td_txn_put(txn, 0, text("a"), text("2")));
    assert_int_equal(TANDEM_E_STORE_FULL, td_txn_del(txn, 0, text("a")));
    assert_int_equal(TANDEM_E_STORE_FULL, td_txn_cursor(txn, 0, &other));
    assert_int_equal(TANDEM_E_STORE_FULL, td_cursor_seek(cursor, text("a"), &key, &value));
    assert_int_equal(TANDEM_E_STORE_FULL, td_cursor_seek_before(cursor, text("b"), &key, &value));
    assert_int_equal(TANDEM_E_STORE_FULL, td_cursor_next(cursor, &key, &value));
    td_cursor_free(cursor);
    assert_int_equal(TANDEM_E_STORE_FULL, td_txn_commit(txn));
    assert_int_equal(TANDEM_OK, td_store_recover(bed->store));
    txn = writing(bed);
    assert_absent(txn, 0, "a");
    td_txn_abort(txn);
}

static void a_private_disk_goes_with_its_store(void **state)
{
    td_store *store;
    td_txn *txn;

    assert_int_equal(TANDEM_OK, td_memory_store_open(&env, NULL, names, TABLES, &store));
    assert_int_equal(TANDEM_OK, td_store_begin_write(store, &txn));
    put(txn, 0, "a", "1");
    commit(txn);
    td_store_free(store);
}

static void a_disk_has_only_so_many_tables(void **state)
{
    static const char *const many[TD_STORE_TABLES_MAX] = {"a", "b", "c", "d", "e", "f", "g", "h",
                                                          "i", "j", "k", "l", "m", "n", "o", "p"};
    struct bed *bed = *state;

    td_store_free(bed->store);
    bed->store = NULL;
    assert_int_equal(TANDEM_E_LIMIT, backend->open(bed, many, TD_STORE_TABLES_MAX));
    assert_null(bed->store);
}

#define ON_BED(test) cmocka_unit_test_setup_teardown(test, bed_make, bed_unmake)

int main(int argc, char **argv)
{
    static const struct CMUnitTest contract[] = {
        ON_BED(a_fresh_store_is_empty),
        ON_BED(put_inserts_and_replaces_and_del_deletes),
        ON_BED(room_is_reserved_for_a_value),
        ON_BED(tables_do_not_see_each_other),
        ON_BED(keys_and_values_reach_their_bounds),
        ON_BED(keys_stand_in_byte_order),
        ON_BED(a_cursor_finds_its_neighbours),
        ON_BED(a_writer_sees_its_changes_through_cursors),
        ON_BED(random_calls_do_what_a_naive_model_does),
        ON_BED(many_entries_in_random_order_come_out_sorted),
        ON_BED(an_abort_undoes_everything),
        ON_BED(a_crash_keeps_what_was_committed),
        ON_BED(tables_are_known_by_name),
        ON_BED(a_reader_sees_the_store_as_of_its_begin),
        ON_BED(the_writer_may_read_what_is_committed_meanwhile),
        ON_BED(readers_are_never_torn_by_commits_growth_and_recovery),
        ON_BED(bounded_transactions_never_meet_a_full_map),
        ON_BED(a_transaction_larger_than_the_map_succeeds_when_repeated),
        ON_BED(a_full_disk_loses_nothing_and_heals),
        ON_BED(a_write_cut_short_loses_nothing_and_heals),
        ON_BED(recover_may_be_called_at_any_time),
        ON_BED(what_it_is_made_of_is_checked_while_it_is_open),
    };
    static const struct CMUnitTest lmdb_only[] = {
        ON_BED(files_are_the_owners_alone),
        ON_BED(a_foreign_file_is_no_store),
        ON_BED(a_creation_cut_short_is_begun_anew),
        ON_BED(a_missing_folder_is_an_error),
    };
    static const struct CMUnitTest memory_only[] = {
        ON_BED(failures_come_when_asked_for),
        ON_BED(a_failed_put_breaks_its_transaction_for_every_call),
        ON_BED(a_private_disk_goes_with_its_store),
        ON_BED(a_disk_has_only_so_many_tables),
    };
    char group[64];
    int failed;

    for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
        if (argc == 2 && strcmp(argv[1], backends[i].name) == 0)
            backend = &backends[i];
    if (!backend) {
        fprintf(stderr, "usage: %s lmdb|memory\n", argv[0]);
        return 2;
    }
    signal(SIGXFSZ, SIG_IGN); /* a full disk is made of a file size limit */
    snprintf(group, sizeof(group), "store %s", backend->name);
    failed = cmocka_run_group_tests_name(group, contract, NULL, NULL);
    snprintf(group, sizeof(group), "store %s only", backend->name);
    if (backend == &backends[0])
        failed += cmocka_run_group_tests_name(group, lmdb_only, NULL, NULL);
    else
        failed += cmocka_run_group_tests_name(group, memory_only, NULL, NULL);
    return failed;
}
