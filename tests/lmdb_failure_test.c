/*
 * What store/lmdb_store.c makes of LMDB's errors: the program is linked with --wrap, so that any of
 * LMDB's calls can be made to fail with any of its errors, also those that no file and no disk of a
 * test brings about. Each failure is told by an error of its kind, breaks no more than the contract
 * lets it (store/store.h), and after it the store is usable again.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <lmdb.h>

#include "store/store.h"
#include "tests/folder.h"

/* ---- LMDB, failing on request ---- */

typedef enum call {
    NONE,
    ENV_CREATE,
    ENV_SET_MAXREADERS,
    ENV_SET_MAXDBS,
    ENV_SET_MAPSIZE,
    ENV_OPEN,
    ENV_INFO,
    ENV_SYNC,
    TXN_BEGIN,
    TXN_RENEW,
    TXN_COMMIT,
    DBI_OPEN,
    GET,
    PUT,
    DEL,
    CURSOR_OPEN,
    CURSOR_GET,
} call;

static struct {
    call call;
    unsigned times; /* so many from the next one on */
    int rc;
} armed;

static void fail_next(call which, unsigned times, int rc)
{
    armed.call = which;
    armed.times = times;
    armed.rc = rc;
}

/* The error of this call, 0: it is made. */
static int failure_of(call which)
{
    if (armed.call != which || armed.times == 0)
        return 0;
    armed.times--;
    return armed.rc;
}

#define WRAP(name, which, parameters, arguments)                                                   \
    int __real_##name parameters;                                                                  \
    int __wrap_##name parameters;                                                                  \
    int __wrap_##name parameters                                                                   \
    {                                                                                              \
        int rc = failure_of(which);                                                                \
                                                                                                   \
        return rc ? rc : __real_##name arguments;                                                  \
    }

WRAP(mdb_env_create, ENV_CREATE, (MDB_env **env), (env))
WRAP(mdb_env_set_maxreaders, ENV_SET_MAXREADERS, (MDB_env *env, unsigned count), (env, count))
WRAP(mdb_env_set_maxdbs, ENV_SET_MAXDBS, (MDB_env *env, MDB_dbi count), (env, count))
WRAP(mdb_env_set_mapsize, ENV_SET_MAPSIZE, (MDB_env *env, size_t size), (env, size))
WRAP(mdb_env_open, ENV_OPEN, (MDB_env *env, const char *path, unsigned flags, mdb_mode_t mode),
     (env, path, flags, mode))
WRAP(mdb_env_info, ENV_INFO, (MDB_env *env, MDB_envinfo *info), (env, info))
WRAP(mdb_env_sync, ENV_SYNC, (MDB_env *env, int force), (env, force))
WRAP(mdb_txn_begin, TXN_BEGIN, (MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **txn),
     (env, parent, flags, txn))
WRAP(mdb_txn_renew, TXN_RENEW, (MDB_txn *txn), (txn))
WRAP(mdb_dbi_open, DBI_OPEN, (MDB_txn *txn, const char *name, unsigned flags, MDB_dbi *dbi),
     (txn, name, flags, dbi))
WRAP(mdb_get, GET, (MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *value),
     (txn, dbi, key, value))
WRAP(mdb_put, PUT, (MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *value, unsigned flags),
     (txn, dbi, key, value, flags))
WRAP(mdb_del, DEL, (MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *value),
     (txn, dbi, key, value))
WRAP(mdb_cursor_open, CURSOR_OPEN, (MDB_txn *txn, MDB_dbi dbi, MDB_cursor **cursor),
     (txn, dbi, cursor))
WRAP(mdb_cursor_get, CURSOR_GET,
     (MDB_cursor *cursor, MDB_val *key, MDB_val *value, MDB_cursor_op op),
     (cursor, key, value, op))

/* It frees the transaction on failure, too. */
int __real_mdb_txn_commit(MDB_txn *txn);
int __wrap_mdb_txn_commit(MDB_txn *txn);
int __wrap_mdb_txn_commit(MDB_txn *txn)
{
    int rc = failure_of(TXN_COMMIT);

    if (rc)
        mdb_txn_abort(txn);
    return rc ? rc : __real_mdb_txn_commit(txn);
}

/* ---- The bed ---- */

static const char *const names[] = {"first", "second"};
static tandem_env env; /* no log, and a store asks for neither time nor randomness */

struct bed {
    char folder[FOLDER_BYTES];
    td_store *store;
};

static tandem_err open_store(struct bed *bed)
{
    bed->store = NULL;
    return td_lmdb_store_open(&env, bed->folder, names, 2, &bed->store);
}

static tandem_slice key_of(const char *text)
{
    return tandem_slice_text(text);
}

/* It takes a value, and shows it. */
static void assert_works(struct bed *bed)
{
    static unsigned number;
    char text[16];
    tandem_slice value;
    td_txn *txn;

    snprintf(text, sizeof(text), "%u", ++number);
    assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_put(txn, 0, key_of("key"), key_of(text)));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
    assert_int_equal(TANDEM_OK, td_store_begin_read(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_get(txn, 0, key_of("key"), &value));
    assert_true(tandem_slice_equal(key_of(text), value));
    td_txn_abort(txn);
}

static int bed_make(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_non_null(bed);
    folder_make(bed->folder, "lmdb-failure", true);
    assert_int_equal(TANDEM_OK, open_store(bed));
    assert_works(bed);
    *state = bed;
    return 0;
}

static int bed_unmake(void **state)
{
    struct bed *bed = *state;

    td_store_free(bed->store);
    folder_remove(bed->folder);
    free(bed);
    return 0;
}

static const struct kind {
    int rc;
    tandem_err err;
} kinds[] = {
    {MDB_VERSION_MISMATCH, TANDEM_E_FORMAT},
    {MDB_INVALID, TANDEM_E_FORMAT},
    {MDB_INCOMPATIBLE, TANDEM_E_FORMAT},
    {MDB_CORRUPTED, TANDEM_E_CORRUPT},
    {MDB_PAGE_NOTFOUND, TANDEM_E_CORRUPT},
    {MDB_PAGE_FULL, TANDEM_E_CORRUPT},
    {MDB_CURSOR_FULL, TANDEM_E_CORRUPT},
    {MDB_TXN_FULL, TANDEM_E_LIMIT},
    {MDB_READERS_FULL, TANDEM_E_NOMEM},
    {MDB_MAP_FULL, TANDEM_E_STORE_FULL},
    {ENOSPC, TANDEM_E_STORE_FULL},
    {EDQUOT, TANDEM_E_STORE_FULL},
    {EFBIG, TANDEM_E_STORE_FULL},
    {ENOMEM, TANDEM_E_NOMEM},
    {EACCES, TANDEM_E_PERMISSION},
    {EPERM, TANDEM_E_PERMISSION},
    {EROFS, TANDEM_E_PERMISSION},
    {EIO, TANDEM_E_IO},
    {EINVAL, TANDEM_E_IO},
};

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]), ALWAYS = 1000 };

/* ---- Tests ---- */

static void what_fails_while_opening_is_told(void **state)
{
    static const call calls[] = {ENV_CREATE, ENV_SET_MAXREADERS, ENV_SET_MAXDBS, ENV_SET_MAPSIZE,
                                 ENV_OPEN, ENV_INFO, ENV_SYNC, TXN_BEGIN, DBI_OPEN, TXN_COMMIT};
    struct bed *bed = *state;

    td_store_free(bed->store);
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        for (unsigned kind = 0; kind < KINDS; kind++) {
            fail_next(calls[i], ALWAYS, kinds[kind].rc);
            if (open_store(bed) != kinds[kind].err)
                fail_msg("call %u, error %d: told otherwise", calls[i], kinds[kind].rc);
            assert_null(bed->store);
        }
        fail_next(NONE, 0, 0);
        assert_int_equal(TANDEM_OK, open_store(bed));
        assert_works(bed);
        td_store_free(bed->store);
    }
    /* For want of address space a smaller map will do. */
    for (unsigned times = 1; times < 3; times++) {
        fail_next(ENV_OPEN, times, ENOMEM);
        assert_int_equal(TANDEM_OK, open_store(bed));
        assert_works(bed);
        td_store_free(bed->store);
    }
    bed->store = NULL;
}

/* What fails in a transaction that writes breaks it, and recovering is due. */
static void what_fails_while_writing_sticks(void **state)
{
    static const call calls[] = {GET, PUT, DEL, CURSOR_OPEN, CURSOR_GET};
    struct bed *bed = *state;
    tandem_slice key, value;
    td_cursor *cursor, *other;
    td_txn *txn;

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        for (unsigned kind = 0; kind < KINDS; kind++) {
            tandem_err expected = kinds[kind].err, err;

            assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &txn));
            assert_int_equal(TANDEM_OK, td_txn_put(txn, 1, key_of("lost"), key_of("value")));
            assert_int_equal(TANDEM_OK, td_txn_cursor(txn, 1, &cursor));
            fail_next(calls[i], 1, kinds[kind].rc);
            err = calls[i] == GET           ? td_txn_get(txn, 0, key_of("key"), &value)
                  : calls[i] == PUT         ? td_txn_put(txn, 0, key_of("key"), key_of("x"))
                  : calls[i] == DEL         ? td_txn_del(txn, 0, key_of("key"))
                  : calls[i] == CURSOR_OPEN ? td_txn_cursor(txn, 0, &other)
                                            : td_cursor_seek(cursor, key_of("k"), &key, &value);
            assert_int_equal(expected, err);
            assert_int_equal(expected, td_txn_get(txn, 0, key_of("key"), &value));
            assert_int_equal(expected, td_txn_put(txn, 0, key_of("key"), key_of("x")));
            assert_int_equal(expected, td_txn_del(txn, 0, key_of("key")));
            assert_int_equal(expected, td_txn_cursor(txn, 0, &other));
            assert_int_equal(expected, td_cursor_seek(cursor, key_of("k"), &key, &value));
            assert_int_equal(expected, td_cursor_seek_before(cursor, key_of("k"), &key, &value));
            assert_int_equal(expected, td_cursor_next(cursor, &key, &value));
            td_cursor_free(cursor);
            assert_int_equal(expected, td_txn_commit(txn));
            assert_int_equal(TANDEM_E_STATE, td_store_begin_write(bed->store, &txn));
            assert_int_equal(TANDEM_OK, td_store_recover(bed->store));
            assert_works(bed);
        }
    }
    assert_int_equal(TANDEM_OK, td_store_begin_read(bed->store, &txn));
    assert_int_equal(TANDEM_E_NOT_FOUND, td_txn_get(txn, 1, key_of("lost"), &value));
    td_txn_abort(txn);
}

/* What fails while reading breaks nothing: the next call may do better. */
static void what_fails_while_reading_does_not_stick(void **state)
{
    struct bed *bed = *state;
    tandem_slice key, value;
    td_cursor *cursor;
    td_txn *txn;

    for (unsigned kind = 0; kind < KINDS; kind++) {
        tandem_err expected = kinds[kind].err;
        int rc = kinds[kind].rc;

        fail_next(TXN_RENEW, 1, rc); /* of a transaction that is kept for the next reader */
        assert_int_equal(expected, td_store_begin_read(bed->store, &txn));
        fail_next(TXN_BEGIN, 1, rc); /* that one is gone now */
        assert_int_equal(expected, td_store_begin_read(bed->store, &txn));
        assert_int_equal(TANDEM_OK, td_store_begin_read(bed->store, &txn));
        fail_next(CURSOR_OPEN, 1, rc);
        assert_int_equal(expected, td_txn_cursor(txn, 0, &cursor));
        assert_int_equal(TANDEM_OK, td_txn_cursor(txn, 0, &cursor));
        fail_next(CURSOR_GET, 1, rc);
        assert_int_equal(expected, td_cursor_seek(cursor, key_of("k"), &key, &value));
        fail_next(CURSOR_GET, 1, rc);
        assert_int_equal(expected, td_cursor_seek_before(cursor, key_of("z"), &key, &value));
        assert_int_equal(TANDEM_OK, td_cursor_seek(cursor, key_of("k"), &key, &value));
        fail_next(CURSOR_GET, 1, rc);
        assert_int_equal(expected, td_cursor_next(cursor, &key, &value));
        assert_int_equal(TANDEM_END, td_cursor_next(cursor, &key, &value)); /* it is nowhere */
        fail_next(GET, 1, rc);
        assert_int_equal(expected, td_txn_get(txn, 0, key_of("key"), &value));
        assert_int_equal(TANDEM_OK, td_txn_get(txn, 0, key_of("key"), &value));
        td_cursor_free(cursor);
        td_txn_abort(txn);
        assert_works(bed);
    }
}

static void a_transaction_that_cannot_begin_leaves_all_as_it_was(void **state)
{
    struct bed *bed = *state;
    td_txn *txn;

    for (unsigned kind = 0; kind < KINDS; kind++) {
        fail_next(TXN_BEGIN, 1, kinds[kind].rc);
        assert_int_equal(kinds[kind].err, td_store_begin_write(bed->store, &txn));
        assert_works(bed);
    }
}

static void a_commit_or_a_recovery_that_fails_is_tried_again(void **state)
{
    struct bed *bed = *state;
    td_txn *txn;

    for (unsigned kind = 0; kind < KINDS; kind++) {
        assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &txn));
        assert_int_equal(TANDEM_OK, td_txn_put(txn, 0, key_of("key"), key_of("lost")));
        fail_next(TXN_COMMIT, 1, kinds[kind].rc);
        assert_int_equal(kinds[kind].err, td_txn_commit(txn));
        fail_next(ENV_SYNC, 1, kinds[kind].rc);
        assert_int_equal(kinds[kind].err, td_store_recover(bed->store));
        assert_int_equal(TANDEM_E_STATE, td_store_begin_write(bed->store, &txn));
        fail_next(ENV_CREATE, ALWAYS, kinds[kind].rc);
        assert_int_equal(kinds[kind].err, td_store_recover(bed->store));
        assert_int_equal(kinds[kind].err, td_store_begin_read(bed->store, &txn)); /* it is down */
        bed->store->ops->reader_check(bed->store);
        fail_next(NONE, 0, 0);
        assert_int_equal(TANDEM_OK, td_store_recover(bed->store));
        assert_works(bed);
    }
}

/* LMDB has let go of the old map when it cannot have a larger one: then the old one is made anew. */
static void a_map_that_cannot_grow_stays_as_it_was(void **state)
{
    static const uint8_t bytes[256 * 1024];
    struct bed *bed = *state;
    unsigned refused = 0;
    td_txn *txn;

    for (uint32_t i = 0; i < 200; i++) {
        uint8_t key[4];
        tandem_err err;

        td_put_u32(key, i);
        fail_next(ENV_SET_MAPSIZE, i % 2 ? 1 : ALWAYS, ENOMEM);
        err = td_store_begin_write(bed->store, &txn);
        if (err != TANDEM_OK) {
            assert_int_equal(TANDEM_E_NOMEM, err);
            assert_int_equal(TANDEM_E_STATE, td_store_begin_write(bed->store, &txn));
            refused++;
            fail_next(NONE, 0, 0);
            assert_int_equal(TANDEM_OK, td_store_recover(bed->store));
            continue;
        }
        fail_next(NONE, 0, 0);
        assert_int_equal(TANDEM_OK, td_txn_put(txn, 1, tandem_slice_of(key, sizeof(key)),
                                               tandem_slice_of(bytes, sizeof(bytes))));
        assert_int_equal(TANDEM_OK, td_txn_commit(txn));
    }
    assert_true(refused > 0);
    assert_works(bed);
}

#define ON_BED(test) cmocka_unit_test_setup_teardown(test, bed_make, bed_unmake)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        ON_BED(what_fails_while_opening_is_told),
        ON_BED(what_fails_while_writing_sticks),
        ON_BED(what_fails_while_reading_does_not_stick),
        ON_BED(a_transaction_that_cannot_begin_leaves_all_as_it_was),
        ON_BED(a_commit_or_a_recovery_that_fails_is_tried_again),
        ON_BED(a_map_that_cannot_grow_stays_as_it_was),
    };

    return cmocka_run_group_tests_name("lmdb failures", tests, NULL, NULL);
}
