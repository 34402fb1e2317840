/*
 * The store on LMDB, with its default, safe flags.
 *
 * The map. LMDB's map is fixed while a transaction of this process is alive, so growing it needs a
 * gate: readers hold it shared for as long as their transaction lives, whoever resizes or reopens
 * holds it alone. begin_write grows ahead of need, when the map is half full, so that a transaction
 * of bounded size never meets its end; it only tries the gate then and waits for readers no sooner
 * than the reserve itself is touched. A transaction that still meets the end fails as
 * TANDEM_E_STORE_FULL, and recover() makes the map large enough for it to be repeated.
 *
 * The gate prefers its writer, or busy readers could keep it out for ever. Therefore a thread that
 * reads must not begin a second transaction on the same store: it would wait for the writer, which
 * waits for the thread.
 *
 * Readers. A slot in LMDB's reader table belongs to the transaction, not to the thread (MDB_NOTLS).
 * Ended ones are reset and pooled, so that beginning one costs a mutex and no search for a slot.
 *
 * LMDB has two meta pages and writes them in turn. A beginning reader notes the newest transaction,
 * then copies its meta page; if it is held up in between for as long as two commits take, it copies
 * the second one's page instead, perhaps half written or not flushed yet, and its next transaction
 * may see less than this one did. read_begin() finds that out and begins again.
 *
 * Damage. LMDB trusts the file: see lmdb_check.h for what is looked at before the map is used.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "store/lmdb_check.h"
#include "store/lmdb_folder.h"
#include "store/probe.h"
#include "store/store.h"

enum {
    MAP_BYTES_INITIAL = 64 << 20,
    /* What a transaction may rely on before the previous one's size is known. */
    RESERVE_BYTES = 16 << 20,
    /* Less free space than this explains a short write. */
    FULL_SLACK_BYTES = 1 << 20,
    /* A transaction's meta page is written over two commits later: no reader is as slow as that. */
    CHECK_TRIES_MAX = 100,
};

struct lmdb_txn {
    td_txn base;
    MDB_txn *mdb;
    bool writing;
    tandem_err err;        /* of a failed put: all that is left is to abort */
    uint64_t bytes;        /* put so far, roughly with what LMDB adds */
    uint64_t changes;      /* counts puts and deletes, see lmdb_next() */
    bool among[TD_STORE_TABLES_MAX]; /* the table was put to elsewhere than at its end */
    /* Stays where its table was used last: what is near needs no search from the root. Only of a writing
     * one, and of a table that is used several times in a row. */
    MDB_cursor *own;
    unsigned own_table, last_table;
    struct lmdb_txn *next; /* in the pool */
};

struct lmdb_cursor {
    td_cursor base;
    MDB_cursor *mdb;
    bool placed;
    uint64_t changes; /* of the transaction, when it was placed */
};

struct lmdb_store {
    td_store base;
    tandem_env *env;
    char *folder;
    const char *const *names;
    unsigned count;

    pthread_rwlock_t gate;
    /* Under the gate; the writer's thread alone changes them. */
    MDB_env *mdb;    /* NULL if reopening failed */
    tandem_err down; /* why mdb is NULL */
    MDB_dbi tables[TD_STORE_TABLES_MAX];

    _Atomic uint64_t bytes;    /* in use after the last commit: told without asking LMDB */
    _Atomic size_t committing; /* LMDB's number of the last transaction that went to commit */

    pthread_mutex_t pool_lock;
    struct lmdb_txn *pool; /* reset reading transactions */
    unsigned reading;      /* transactions that are not in the pool */

    /* The writer's thread only. */
    struct lmdb_txn writer; /* open if its mdb is set */
    uint64_t map_bytes;
    uint64_t last_txn_bytes; /* of the last commit, or of what met the end of the map */
    bool recover_due; /* what the file holds durably is not known */
};

static struct lmdb_store *store_of(td_store *store)
{
    return (struct lmdb_store *)store;
}

static struct lmdb_txn *txn_of(td_txn *txn)
{
    return (struct lmdb_txn *)txn;
}

static MDB_val val_of(tandem_slice slice)
{
    MDB_val val = {slice.size, (void *)slice.bytes};
    return val;
}

static tandem_slice slice_of(MDB_val val)
{
    return tandem_slice_of(val.mv_data, val.mv_size);
}

static tandem_err err_of(int rc)
{
    switch (rc) {
    case MDB_SUCCESS:
        return TANDEM_OK;
    case MDB_NOTFOUND:
        return TANDEM_E_NOT_FOUND;
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return TANDEM_E_STORE_FULL;
    case MDB_VERSION_MISMATCH:
    case MDB_INVALID:
    case MDB_INCOMPATIBLE:
        return TANDEM_E_FORMAT;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_PAGE_FULL:
    case MDB_CURSOR_FULL:
        return TANDEM_E_CORRUPT;
    case MDB_TXN_FULL:
        return TANDEM_E_LIMIT;
    case ENOMEM:
    case MDB_READERS_FULL: /* passes, as memory does */
        return TANDEM_E_NOMEM;
    case EACCES:
    case EPERM:
    case EROFS:
        return TANDEM_E_PERMISSION;
    default:
        return TANDEM_E_IO;
    }
}

/* LMDB reports a short write as EIO, whatever cut it short. */
static bool disk_is_full(struct lmdb_store *s)
{
    struct statvfs disk;
    struct rlimit limit;
    struct stat file;
    mdb_filehandle_t fd;

    if (statvfs(s->folder, &disk) == 0 &&
        (uint64_t)disk.f_bavail * disk.f_frsize < s->writer.bytes + FULL_SLACK_BYTES)
        return true;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || !s->mdb)
        return false;
    return mdb_env_get_fd(s->mdb, &fd) == 0 && fstat(fd, &file) == 0 &&
           (uint64_t)file.st_size + (uint64_t)file.st_blksize > limit.rlim_cur;
}

/* The same for what the writer's thread met. */
static tandem_err writer_err_of(struct lmdb_store *s, int rc)
{
    return rc == EIO && disk_is_full(s) ? TANDEM_E_STORE_FULL : err_of(rc);
}

static void log_failure(struct lmdb_store *s, const char *what, int rc)
{
    td_log(s->env, TANDEM_LOG_ERROR, "store", "%s: %s (%s)", what, mdb_strerror(rc), s->folder);
}

/* ---- The map ---- */

static uint64_t used_bytes(MDB_env *mdb)
{
    MDB_envinfo info;
    MDB_stat stat;

    if (mdb_env_info(mdb, &info) != 0 || mdb_env_stat(mdb, &stat) != 0)
        return 0;
    return (uint64_t)(info.me_last_pgno + 1) * stat.ms_psize;
}

/* Free room without which no transaction begins. */
static uint64_t reserve_bytes(const struct lmdb_store *s)
{
    return RESERVE_BYTES + 2 * s->last_txn_bytes;
}

static uint64_t map_bytes_for(const struct lmdb_store *s, uint64_t used)
{
    uint64_t map = s->map_bytes;

    while ((used > map / 2 || map - used < reserve_bytes(s)) && map <= SIZE_MAX / 2)
        map *= 2;
    return map;
}

/* The gate is held alone, so whatever reads is in the pool. */
static void pool_drain(struct lmdb_store *s)
{
    struct lmdb_txn *txn;

    while ((txn = s->pool)) {
        s->pool = txn->next;
        mdb_txn_abort(txn->mdb);
        free(txn);
    }
}

static void map_close(struct lmdb_store *s)
{
    pool_drain(s);
    if (s->mdb)
        mdb_env_close(s->mdb);
    s->mdb = NULL;
}

static int tables_open(struct lmdb_store *s)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->mdb, NULL, 0, &txn);

    if (rc)
        return rc;
    for (unsigned i = 0; i < s->count; i++) {
        if ((rc = mdb_dbi_open(txn, s->names[i], MDB_CREATE, &s->tables[i])) != 0) {
            mdb_txn_abort(txn);
            return rc;
        }
    }
    return mdb_txn_commit(txn); /* writes nothing if all tables were there */
}

/* ---- The map, opened ---- */

/* On failure map_close() is due. */
static int map_open(struct lmdb_store *s, uint64_t map_bytes, bool grow)
{
    MDB_envinfo info;
    int dead, rc;

    if ((rc = mdb_env_create(&s->mdb)) != 0) {
        s->mdb = NULL;
        return rc;
    }
    if ((rc = mdb_env_set_maxreaders(s->mdb, TD_LMDB_READERS_MAX)) != 0 ||
        (rc = mdb_env_set_maxdbs(s->mdb, s->count)) != 0 ||
        (rc = mdb_env_set_mapsize(s->mdb, (size_t)map_bytes)) != 0 ||
        (rc = td_lmdb_lock_reserve(s->folder)) != 0 ||
        (rc = mdb_env_open(s->mdb, s->folder, MDB_NOTLS, 0600)) != 0 ||
        (rc = mdb_env_info(s->mdb, &info)) != 0)
        return rc;
    if (info.me_last_txnid == 0 && (rc = mdb_env_sync(s->mdb, 1)) != 0)
        return rc; /* see td_lmdb_creation_mend() */
    /* LMDB takes the file's size if that is larger: no room then even for a new table's name. */
    s->map_bytes = info.me_mapsize;
    map_bytes = map_bytes_for(s, used_bytes(s->mdb));
    if (grow && map_bytes > s->map_bytes) {
        if ((rc = mdb_env_set_mapsize(s->mdb, (size_t)map_bytes)) != 0)
            return rc;
        s->map_bytes = map_bytes;
    }
    /* The file's name, and that the mark of a closed store is gone. */
    if ((rc = td_lmdb_folder_sync(s->folder)) != 0 || (rc = tables_open(s)) != 0)
        return rc;
    atomic_store(&s->bytes, used_bytes(s->mdb));
    mdb_reader_check(s->mdb, &dead);
    return 0;
}

/* Is the file one that the map can be used of? */
static tandem_err file_check(struct lmdb_store *s, bool walk)
{
    char why[TD_STORE_WHY_BYTES] = "";
    int rc = td_lmdb_creation_mend(s->folder);
    tandem_err err =
        rc ? err_of(rc) : td_lmdb_check(s->folder, TD_LMDB_NEWEST, walk, why);

    if (err)
        td_log(s->env, TANDEM_LOG_ERROR, "store", "%s/data.mdb cannot be used: %s", s->folder,
               why[0] ? why : tandem_err_text(err));
    return err;
}

/*
 * Close and open again; the gate is held alone, or nobody else knows the store yet. Where the
 * address space has no room, a smaller map still lets everybody read.
 */
static tandem_err map_reopen(struct lmdb_store *s, bool grow)
{
    const struct {
        uint64_t map_bytes;
        bool grow;
    } tries[] = {{s->map_bytes, grow}, {s->map_bytes, false}, {MAP_BYTES_INITIAL, false}};
    int rc = ENOMEM;

    map_close(s);
    if ((s->down = file_check(s, false)) != TANDEM_OK)
        return s->down;
    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]) && rc == ENOMEM; i++) {
        map_close(s);
        rc = map_open(s, tries[i].map_bytes, tries[i].grow);
    }
    s->down = writer_err_of(s, rc);
    if (rc) {
        log_failure(s, "cannot open the store", rc);
        map_close(s);
    }
    return s->down;
}

/* The gate is held alone. Where the address space has no room, the map stays as it was. */
static tandem_err map_resize(struct lmdb_store *s, uint64_t map_bytes)
{
    int rc;

    if (map_bytes == s->map_bytes)
        return TANDEM_OK;
    pool_drain(s);
    rc = mdb_env_set_mapsize(s->mdb, (size_t)map_bytes);
    if (rc == 0) {
        s->map_bytes = map_bytes;
        return TANDEM_OK;
    }
    /* LMDB has unmapped the old map by now. */
    log_failure(s, "cannot grow the map", rc);
    if (map_reopen(s, false) != TANDEM_OK)
        s->recover_due = true;
    return s->down;
}

static tandem_err grow_ahead(struct lmdb_store *s)
{
    uint64_t used = used_bytes(s->mdb);
    uint64_t room = s->map_bytes > used ? s->map_bytes - used : 0;
    tandem_err err;

    if (room >= s->map_bytes / 2 && room >= reserve_bytes(s))
        return TANDEM_OK;
    if (pthread_rwlock_trywrlock(&s->gate) != 0) {
        if (room >= reserve_bytes(s))
            return TANDEM_OK; /* readers are at work: the next transaction may have more luck */
        pthread_rwlock_wrlock(&s->gate);
    }
    err = map_resize(s, map_bytes_for(s, used));
    pthread_rwlock_unlock(&s->gate);
    return err;
}

/* ---- Transactions ---- */

/* Note what a call on a transaction returned; what breaks a writing one sticks. */
static tandem_err txn_result(struct lmdb_txn *txn, int rc)
{
    struct lmdb_store *s = store_of(txn->base.store);

    if (rc == 0 || rc == MDB_NOTFOUND || !txn->writing)
        return err_of(rc);
    if (rc == MDB_MAP_FULL)
        s->last_txn_bytes = 2 * txn->bytes; /* it had more to come */
    if (txn->err == TANDEM_OK)
        txn->err = writer_err_of(s, rc);
    s->recover_due = true;
    return txn->err;
}

/* What the simulation says that a call on the writing transaction fails with sticks, too. */
static tandem_err txn_fault(struct lmdb_txn *txn, td_disk_call call)
{
    struct lmdb_store *s = store_of(txn->base.store);
    tandem_err err = td_disk_fault(s->env, call);

    if (err != TANDEM_OK) {
        txn->err = err;
        s->recover_due = true;
    }
    return err;
}

static tandem_err lmdb_begin_write(td_store *store, td_txn **out)
{
    struct lmdb_store *s = store_of(store);
    struct lmdb_txn *txn = &s->writer;
    tandem_err err;
    int rc;

    assert(!txn->mdb);
    if (s->recover_due)
        return TANDEM_E_STATE;
    if ((err = td_disk_fault(s->env, TD_DISK_BEGIN)) != TANDEM_OK ||
        (err = grow_ahead(s)) != TANDEM_OK)
        return err;
    memset(txn, 0, sizeof(*txn));
    txn->base.store = store;
    txn->writing = true;
    rc = mdb_txn_begin(s->mdb, NULL, 0, &txn->mdb);
    if (rc) {
        txn->mdb = NULL;
        log_failure(s, "cannot begin to write", rc);
        return writer_err_of(s, rc);
    }
    *out = &txn->base;
    return TANDEM_OK;
}

/* A pooled transaction, or NULL. */
static struct lmdb_txn *pool_take(struct lmdb_store *s)
{
    struct lmdb_txn *txn;

    pthread_mutex_lock(&s->pool_lock);
    txn = s->pool;
    if (txn)
        s->pool = txn->next;
    pthread_mutex_unlock(&s->pool_lock);
    return txn;
}

static int read_begin(struct lmdb_store *s, struct lmdb_txn *txn)
{
    int rc = txn->mdb ? mdb_txn_renew(txn->mdb)
                      : mdb_txn_begin(s->mdb, NULL, MDB_RDONLY, &txn->mdb);

    if (rc && txn->mdb)
        mdb_txn_abort(txn->mdb);
    if (rc)
        txn->mdb = NULL;
    /*
     * Transaction n + 2 writes over the meta page of n, and goes to commit only after n + 1 is
     * done: beginning again gets at least that. The read-modify-write keeps the copying before it.
     */
    while (rc == 0 && mdb_txn_id(txn->mdb) + 1 <
                          atomic_fetch_add_explicit(&s->committing, 0, memory_order_acq_rel)) {
        mdb_txn_reset(txn->mdb);
        rc = mdb_txn_renew(txn->mdb);
    }
    return rc;
}

static tandem_err lmdb_begin_read(td_store *store, td_txn **out)
{
    struct lmdb_store *s = store_of(store);
    struct lmdb_txn *txn = NULL;
    tandem_err err;
    int rc;

    pthread_rwlock_rdlock(&s->gate);
    if (!s->mdb) {
        err = s->down;
        goto fail;
    }
    txn = pool_take(s);
    if (!txn)
        txn = calloc(1, sizeof(*txn));
    rc = txn ? read_begin(s, txn) : ENOMEM;
    if (rc) {
        err = err_of(rc);
        goto fail;
    }
    txn->base.store = store;
    pthread_mutex_lock(&s->pool_lock);
    s->reading++;
    pthread_mutex_unlock(&s->pool_lock);
    *out = &txn->base;
    return TANDEM_OK;

fail:
    if (txn && txn->mdb)
        mdb_txn_abort(txn->mdb);
    free(txn);
    pthread_rwlock_unlock(&s->gate);
    return err;
}

static void lmdb_abort(td_txn *base)
{
    struct lmdb_txn *txn = txn_of(base);
    struct lmdb_store *s;

    if (!txn)
        return;
    s = store_of(base->store);
    if (txn->writing) {
        assert(txn == &s->writer && txn->mdb);
        mdb_txn_abort(txn->mdb);
        txn->mdb = NULL;
        return;
    }
    mdb_txn_reset(txn->mdb);
    pthread_mutex_lock(&s->pool_lock);
    txn->next = s->pool;
    s->pool = txn;
    s->reading--;
    pthread_mutex_unlock(&s->pool_lock);
    pthread_rwlock_unlock(&s->gate);
}

static tandem_err lmdb_commit(td_txn *base)
{
    struct lmdb_txn *txn = txn_of(base);
    struct lmdb_store *s = store_of(base->store);
    int rc;

    assert(txn == &s->writer && txn->mdb);
    if (txn->err != TANDEM_OK || txn_fault(txn, TD_DISK_COMMIT) != TANDEM_OK) {
        lmdb_abort(base);
        return txn->err;
    }
    atomic_store(&s->committing, mdb_txn_id(txn->mdb));
    rc = mdb_txn_commit(txn->mdb); /* frees it on failure, too */
    txn->mdb = NULL;
    if (rc) {
        log_failure(s, "cannot commit", rc);
        return txn_result(txn, rc);
    }
    s->last_txn_bytes = txn->bytes;
    atomic_store(&s->bytes, used_bytes(s->mdb));
    return txn_fault(txn, TD_DISK_COMMITTED);
}

static MDB_dbi table_of(struct lmdb_txn *txn, unsigned table)
{
    struct lmdb_store *s = store_of(txn->base.store);

    assert(table < s->count);
    return s->tables[table];
}

static void check_key(tandem_slice key)
{
    assert(key.size >= 1 && key.size <= TD_STORE_KEY_BYTES_MAX);
}

/* Have the transaction's own cursor at a table. It ends with the transaction. */
static int own_cursor(struct lmdb_txn *txn, unsigned table)
{
    int rc;

    if (txn->own && txn->own_table == table)
        return 0;
    if (txn->own)
        mdb_cursor_close(txn->own);
    rc = mdb_cursor_open(txn->mdb, table_of(txn, table), &txn->own);
    if (rc)
        txn->own = NULL;
    txn->own_table = table;
    return rc;
}

/* Is it worth having there? Then it is. cursor_out: NULL if not. */
static int own_cursor_if_apt(struct lmdb_txn *txn, unsigned table, MDB_cursor **cursor_out)
{
    bool again = txn->writing && txn->last_table == table;
    int rc = 0;

    txn->last_table = table;
    if (again)
        rc = own_cursor(txn, table);
    *cursor_out = again ? txn->own : NULL;
    return rc;
}

static tandem_err lmdb_get(td_txn *base, unsigned table, tandem_slice key, tandem_slice *value_out)
{
    struct lmdb_txn *txn = txn_of(base);
    MDB_val k = val_of(key), v;
    MDB_cursor *cursor;
    int rc;

    check_key(key);
    if (txn->err != TANDEM_OK)
        return txn->err;
    if ((rc = own_cursor_if_apt(txn, table, &cursor)) == 0)
        rc = cursor ? mdb_cursor_get(cursor, &k, &v, MDB_SET)
                    : mdb_get(txn->mdb, table_of(txn, table), &k, &v);
    if (rc == 0)
        *value_out = slice_of(v);
    return txn_result(txn, rc);
}

/* What is to be done before a put. */
static tandem_err begin_put(struct lmdb_txn *txn, tandem_slice key, size_t size)
{
    check_key(key);
    assert(txn->writing && size <= UINT32_MAX);
    if (txn->err != TANDEM_OK)
        return txn->err;
    txn->changes++;
    if (txn_fault(txn, TD_DISK_PUT) != TANDEM_OK)
        return txn->err;
    txn->bytes += key.size + size + 16;
    return TANDEM_OK;
}

/* Put with a cursor, or without (NULL). */
static int put_with(struct lmdb_txn *txn, MDB_cursor *cursor, unsigned table, MDB_val *k,
                    MDB_val *v, unsigned flags)
{
    return cursor ? mdb_cursor_put(cursor, k, v, flags)
                  : mdb_put(txn->mdb, table_of(txn, table), k, v, flags);
}

/*
 * Tables that grow at their end are told to LMDB as such: it then fills a page before it goes to the
 * next one, where it would otherwise take the last record along. That is one of 14, or of 24. It
 * refuses what does not belong at the end, and the table is not asked again in this transaction.
 */
static int put(struct lmdb_txn *txn, MDB_cursor *cursor, unsigned table, MDB_val *k, MDB_val *v,
               unsigned flags)
{
    int rc = MDB_KEYEXIST;

    if (!txn->among[table])
        rc = put_with(txn, cursor, table, k, v, flags | MDB_APPEND);
    if (rc != MDB_KEYEXIST)
        return rc;
    txn->among[table] = true;
    return put_with(txn, cursor, table, k, v, flags);
}

static tandem_err lmdb_put(td_txn *base, unsigned table, tandem_slice key, tandem_slice value)
{
    struct lmdb_txn *txn = txn_of(base);
    MDB_val k = val_of(key), v = val_of(value);
    tandem_err err = begin_put(txn, key, value.size);
    MDB_cursor *cursor;
    int rc;

    if (err != TANDEM_OK)
        return err;
    if ((rc = own_cursor_if_apt(txn, table, &cursor)) == 0)
        rc = put(txn, cursor, table, &k, &v, 0);
    return txn_result(txn, rc);
}

static tandem_err lmdb_reserve(td_txn *base, unsigned table, tandem_slice key, size_t size,
                               uint8_t **room_out)
{
    struct lmdb_txn *txn = txn_of(base);
    MDB_val k = val_of(key), v = {size, NULL};
    tandem_err err = begin_put(txn, key, size);
    int rc;

    if (err != TANDEM_OK)
        return err;
    txn->last_table = table;
    if ((rc = own_cursor(txn, table)) == 0 &&
        (rc = put(txn, txn->own, table, &k, &v, MDB_RESERVE)) == 0)
        *room_out = v.mv_data;
    return txn_result(txn, rc);
}

static tandem_err lmdb_del(td_txn *base, unsigned table, tandem_slice key)
{
    struct lmdb_txn *txn = txn_of(base);
    MDB_val k = val_of(key);

    check_key(key);
    assert(txn->writing);
    if (txn->err != TANDEM_OK)
        return txn->err;
    txn->changes++;
    if (txn_fault(txn, TD_DISK_PUT) != TANDEM_OK)
        return txn->err;
    /* A delete copies pages, too, and its page goes onto the free list. */
    txn->bytes += key.size + 16;
    return txn_result(txn, mdb_del(txn->mdb, table_of(txn, table), &k, NULL));
}

/* ---- Cursors ---- */

static tandem_err lmdb_cursor_open(td_txn *base, unsigned table, td_cursor **out)
{
    struct lmdb_txn *txn = txn_of(base);
    struct lmdb_cursor *cursor;
    int rc;

    if (txn->err != TANDEM_OK)
        return txn->err;
    cursor = calloc(1, sizeof(*cursor));
    if (!cursor)
        return TANDEM_E_NOMEM;
    rc = mdb_cursor_open(txn->mdb, table_of(txn, table), &cursor->mdb);
    if (rc) {
        free(cursor);
        return txn_result(txn, rc);
    }
    cursor->base.txn = base;
    *out = &cursor->base;
    return TANDEM_OK;
}

/* One step of LMDB's cursor; k and v are filled where it lands. */
static int step(struct lmdb_cursor *cursor, MDB_val *k, MDB_val *v, MDB_cursor_op op)
{
    return mdb_cursor_get(cursor->mdb, k, v, op);
}

static tandem_err land(struct lmdb_cursor *cursor, int rc, MDB_val k, MDB_val v,
                       tandem_slice *key_out, tandem_slice *value_out)
{
    struct lmdb_txn *txn = txn_of(cursor->base.txn);

    cursor->placed = rc == 0;
    cursor->changes = txn->changes;
    if (rc == MDB_NOTFOUND)
        return TANDEM_END;
    if (rc == 0) {
        *key_out = slice_of(k);
        *value_out = slice_of(v);
    }
    return txn_result(txn, rc);
}

static tandem_err lmdb_seek(td_cursor *base, tandem_slice key, tandem_slice *key_out,
                            tandem_slice *value_out)
{
    struct lmdb_cursor *cursor = (struct lmdb_cursor *)base;
    MDB_val k = val_of(key), v = {0, NULL};
    int rc;

    assert(key.size <= TD_STORE_KEY_BYTES_MAX);
    if (txn_of(base->txn)->err != TANDEM_OK)
        return txn_of(base->txn)->err;
    rc = step(cursor, &k, &v, key.size ? MDB_SET_RANGE : MDB_FIRST);
    return land(cursor, rc, k, v, key_out, value_out);
}

static tandem_err lmdb_seek_before(td_cursor *base, tandem_slice key, tandem_slice *key_out,
                                   tandem_slice *value_out)
{
    struct lmdb_cursor *cursor = (struct lmdb_cursor *)base;
    MDB_val k = val_of(key), v = {0, NULL};
    int rc = MDB_NOTFOUND;

    assert(key.size <= TD_STORE_KEY_BYTES_MAX);
    if (txn_of(base->txn)->err != TANDEM_OK)
        return txn_of(base->txn)->err;
    if (key.size)
        rc = step(cursor, &k, &v, MDB_SET_RANGE);
    if (rc == 0)
        rc = step(cursor, &k, &v, MDB_PREV);
    else if (rc == MDB_NOTFOUND)
        rc = step(cursor, &k, &v, MDB_LAST);
    return land(cursor, rc, k, v, key_out, value_out);
}

static tandem_err lmdb_next(td_cursor *base, tandem_slice *key_out, tandem_slice *value_out)
{
    struct lmdb_cursor *cursor = (struct lmdb_cursor *)base;
    struct lmdb_txn *txn = txn_of(base->txn);
    MDB_val k = {0, NULL}, v = {0, NULL};
    int rc;

    if (txn->err != TANDEM_OK)
        return txn->err;
    if (!cursor->placed)
        return TANDEM_END;
    assert(cursor->changes == txn->changes); /* else seek again first */
    rc = step(cursor, &k, &v, MDB_NEXT);
    return land(cursor, rc, k, v, key_out, value_out);
}

static void lmdb_cursor_free(td_cursor *base)
{
    struct lmdb_cursor *cursor = (struct lmdb_cursor *)base;

    if (!cursor)
        return;
    mdb_cursor_close(cursor->mdb);
    free(cursor);
}

/* ---- The store ---- */

/*
 * Open the map with room for what failed: last_txn_bytes tells. The last commit may show without
 * having reached the disk, if it failed at its very end or its program died there. What is shown is
 * told to peers, so it is flushed first.
 */
static tandem_err proven_open(struct lmdb_store *s)
{
    tandem_err err = map_reopen(s, true);
    int rc;

    if (err == TANDEM_OK && (rc = mdb_env_sync(s->mdb, 1)) != 0) {
        log_failure(s, "cannot flush what was found", rc);
        err = writer_err_of(s, rc);
    }
    return err;
}

static tandem_err lmdb_recover(td_store *store)
{
    struct lmdb_store *s = store_of(store);
    tandem_err err;

    assert(!s->writer.mdb);
    if ((err = td_disk_fault(s->env, TD_DISK_BEGIN)) != TANDEM_OK) {
        s->recover_due = true;
        return err;
    }
    pthread_rwlock_wrlock(&s->gate);
    err = proven_open(s);
    pthread_rwlock_unlock(&s->gate);
    s->recover_due = err != TANDEM_OK;
    return err;
}

static tandem_err lmdb_check(td_store *store, char why[TD_STORE_WHY_BYTES])
{
    struct lmdb_store *s = store_of(store);
    tandem_err err = TANDEM_E_STATE;

    why[0] = '\0';
    for (unsigned i = 0; i < CHECK_TRIES_MAX && err == TANDEM_E_STATE; i++) {
        td_txn *txn;

        if ((err = lmdb_begin_read(store, &txn)) != TANDEM_OK)
            return err;
        err = td_lmdb_check(s->folder, mdb_txn_id(txn_of(txn)->mdb), true, why);
        lmdb_abort(txn);
    }
    return err == TANDEM_E_STATE ? TANDEM_E_TIMEOUT : err;
}

static uint64_t lmdb_bytes(td_store *store)
{
    return atomic_load(&store_of(store)->bytes);
}

static void lmdb_reader_check(td_store *store)
{
    struct lmdb_store *s = store_of(store);
    int dead = 0;

    pthread_rwlock_rdlock(&s->gate);
    if (s->mdb)
        mdb_reader_check(s->mdb, &dead);
    pthread_rwlock_unlock(&s->gate);
    if (dead)
        td_log(s->env, TANDEM_LOG_WARNING, "store", "freed %d slots of crashed readers", dead);
}

static void lmdb_free(td_store *store)
{
    struct lmdb_store *s = store_of(store);
    bool known;

    if (!s)
        return;
    assert(s->reading == 0);
    if (s->writer.mdb)
        mdb_txn_abort(s->writer.mdb);
    known = s->mdb && !s->recover_due;
    map_close(s);
    if (known)
        td_lmdb_mark_make(s->folder); /* without it all pages are looked at next time */
    pthread_mutex_destroy(&s->pool_lock);
    pthread_rwlock_destroy(&s->gate);
    free(s->folder);
    free(s);
}

static const struct td_store_ops lmdb_store_ops = {
    .name = "lmdb",
    .begin_write = lmdb_begin_write,
    .begin_read = lmdb_begin_read,
    .commit = lmdb_commit,
    .abort = lmdb_abort,
    .get = lmdb_get,
    .put = lmdb_put,
    .reserve = lmdb_reserve,
    .del = lmdb_del,
    .cursor_open = lmdb_cursor_open,
    .seek = lmdb_seek,
    .seek_before = lmdb_seek_before,
    .next = lmdb_next,
    .cursor_free = lmdb_cursor_free,
    .recover = lmdb_recover,
    .check = lmdb_check,
    .bytes = lmdb_bytes,
    .reader_check = lmdb_reader_check,
    .free = lmdb_free,
};

static int gate_init(pthread_rwlock_t *gate)
{
    pthread_rwlockattr_t attr;
    int rc;

    pthread_rwlockattr_init(&attr);
#ifdef __GLIBC__
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    rc = pthread_rwlock_init(gate, &attr);
    pthread_rwlockattr_destroy(&attr);
    return rc;
}

tandem_err td_lmdb_store_suspect(const char *folder)
{
    td_lmdb_mark mark;
    int rc = td_lmdb_mark_read(folder, &mark);

    /* A mark of other meta pages tells what no look at the pages finds. */
    return err_of(rc == 0 && mark == TD_LMDB_CLOSED ? td_lmdb_mark_remove(folder) : rc);
}

/* A mark of other meta pages stays: it is as wrong next time. */
static tandem_err unmarked_open(struct lmdb_store *s)
{
    td_lmdb_mark mark;
    tandem_err err;
    int rc;

    if ((rc = td_lmdb_mark_read(s->folder, &mark)) != 0)
        return err_of(rc);
    if (mark == TD_LMDB_CHANGED) {
        if ((err = file_check(s, false)) != TANDEM_OK)
            return err;
        td_log(s->env, TANDEM_LOG_ERROR, "store",
               "%s/data.mdb cannot be used: its meta pages are not those that it was closed with; if "
               "another program wrote to it, and it is whole, remove the file `closed` beside it",
               s->folder);
        return TANDEM_E_CORRUPT;
    }
    if (mark == TD_LMDB_NOT_CLOSED && (err = file_check(s, true)) != TANDEM_OK)
        return err;
    if ((rc = td_lmdb_mark_remove(s->folder)) != 0)
        return err_of(rc);
    if ((err = proven_open(s)) == TANDEM_OK)
        s->recover_due = false;
    return err;
}

tandem_err td_lmdb_store_open(tandem_env *env, const char *folder, const char *const *names,
                              unsigned count, td_store **out)
{
    struct lmdb_store *s = calloc(1, sizeof(*s));
    tandem_err err;

    assert(count >= 1 && count <= TD_STORE_TABLES_MAX);
    td_store_check(&lmdb_store_ops);
    if (!s)
        return TANDEM_E_NOMEM;
    if (gate_init(&s->gate) != 0) {
        free(s);
        return TANDEM_E_NOMEM;
    }
    pthread_mutex_init(&s->pool_lock, NULL);
    s->base.ops = &lmdb_store_ops;
    s->env = env;
    s->names = names;
    s->count = count;
    s->map_bytes = MAP_BYTES_INITIAL;
    s->recover_due = true;
    s->folder = strdup(folder);
    err = s->folder ? unmarked_open(s) : TANDEM_E_NOMEM;
    if (err != TANDEM_OK) {
        lmdb_free(&s->base);
        return err;
    }
    *out = &s->base;
    return TANDEM_OK;
}
