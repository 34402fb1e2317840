/*
 * A store: named tables of ordered keys, changed in transactions. The contract under the operations
 * store, the stream index and the sync store; LMDB (lmdb_store.c) and memory (memory_store.c)
 * fulfil it, and one conformance suite (tests/store_suite.c) runs on both. The rules of operations
 * stand above it, once (op_store.c), so the two can never disagree about them.
 *
 * Keys are 1 to 511 bytes in byte order, values 0 bytes to 4 GiB. Tables are numbered by the caller
 * from 0; each store is opened with their names.
 *
 * Transactions. One writer at a time: begin_write waits for no other writer, the caller sees to it
 * that a store has one writing thread. Any number of readers, each seeing the store as of its
 * begin_read. A reading transaction is short and never spans I/O or a wait: an old one keeps dead
 * pages alive and the file grows. While a thread has one open, it begins no other transaction on
 * the same store and does not recover it: growing the map waits for readers, and those that begin
 * meanwhile wait for it. (A writing one may be open when the reading one begins.)
 *
 * Slices handed out are valid until the transaction ends; in a writing transaction, until its next
 * put or delete. They are not given to put or del of the same transaction.
 *
 * Durable: commit returns TANDEM_OK only when the transaction is on disk. A commit that fails has
 * an unknown outcome: call recover(), then look.
 *
 * Threads: begin_read and what follows from any thread, a transaction staying on its own;
 * begin_write, commit, abort and recover from the writer's.
 */
#ifndef TANDEM_STORE_STORE_H
#define TANDEM_STORE_STORE_H

#include "store/bytes.h"
#include "store/env.h"
#include "store/error.h"

enum { TD_STORE_KEY_BYTES_MAX = 511, TD_STORE_TABLES_MAX = 16, TD_STORE_WHY_BYTES = 160 };

typedef struct td_store td_store;
typedef struct td_txn td_txn;
typedef struct td_cursor td_cursor;

/* What a backend must offer. No slot may be NULL; td_store_check() asserts that at open. */
struct td_store_ops {
    const char *name; /* "lmdb", "memory" */

    /* TANDEM_E_STATE: a put or commit failed and recover() is due. */
    tandem_err (*begin_write)(td_store *store, td_txn **out);
    tandem_err (*begin_read)(td_store *store, td_txn **out);

    /* Ends a writing transaction; txn is gone whatever is returned. TANDEM_E_STORE_FULL,
     * TANDEM_E_IO: outcome unknown, recover() before anything else. */
    tandem_err (*commit)(td_txn *txn);
    /* Ends a transaction without effect: a writing one is undone. NULL is fine. */
    void (*abort)(td_txn *txn);

    /* TANDEM_E_NOT_FOUND if the key is absent. */
    tandem_err (*get)(td_txn *txn, unsigned table, tandem_slice key, tandem_slice *value_out);
    /* Inserts or replaces. TANDEM_E_STORE_FULL, TANDEM_E_IO, TANDEM_E_NOMEM: abort the
     * transaction, recover(), and begin anew; until then every call on it returns that error. */
    tandem_err (*put)(td_txn *txn, unsigned table, tandem_slice key, tandem_slice value);
    /* As put, of a value of so many bytes, which the caller writes to *room_out before its next call on
     * the transaction. Cheap where one key after another goes behind the last of the table. */
    tandem_err (*reserve)(td_txn *txn, unsigned table, tandem_slice key, size_t size,
                          uint8_t **room_out);
    /* TANDEM_E_NOT_FOUND if the key is absent: nothing changed. Other errors are those of put. */
    tandem_err (*del)(td_txn *txn, unsigned table, tandem_slice key);

    /* A cursor over one table; freed before its transaction ends. Puts and deletes of the same
     * transaction are legal while it is open, but then seek again before moving. */
    tandem_err (*cursor_open)(td_txn *txn, unsigned table, td_cursor **out);
    /* To the first entry with a key >= key (an empty key: the first of all). TANDEM_END if none. */
    tandem_err (*seek)(td_cursor *cursor, tandem_slice key, tandem_slice *key_out,
                       tandem_slice *value_out);
    /* To the last entry with a key < key (an empty key: the last of all). TANDEM_END if none. */
    tandem_err (*seek_before)(td_cursor *cursor, tandem_slice key, tandem_slice *key_out,
                              tandem_slice *value_out);
    /* To the next entry after a successful seek, seek_before or next. TANDEM_END if none, and again
     * until the next successful seek. */
    tandem_err (*next)(td_cursor *cursor, tandem_slice *key_out, tandem_slice *value_out);
    void (*cursor_free)(td_cursor *cursor);

    /* After a failed put or commit, with no writing transaction open: closes, reopens and makes
     * the store usable again; what it then shows is what happened. May be called repeatedly. */
    tandem_err (*recover)(td_store *store);

    /* Reads all that the store is made of beneath its tables (LMDB: its pages, store/lmdb_check.h),
     * as a reading transaction does, for as long as that takes. TANDEM_E_CORRUPT: it is not whole,
     * why says what was found first, and reading its tables may end the process. */
    tandem_err (*check)(td_store *store, char why[TD_STORE_WHY_BYTES]);
    /* Bytes that the store occupies on disk or in memory. */
    uint64_t (*bytes)(td_store *store);
    /* Frees what crashed readers hold; call at open and every 30 s. */
    void (*reader_check)(td_store *store);
    /* NULL is fine. A writing transaction still open (a crash, to the simulator) is undone and
     * gone; its cursors, and all reading transactions, have ended before. */
    void (*free)(td_store *store);
};

struct td_store {
    const struct td_store_ops *ops;
};

struct td_txn {
    td_store *store;
};

struct td_cursor {
    td_txn *txn;
};

/*
 * Open a store of tables, creating what is missing.
 *
 * folder       existing folder of mode 0700 that is this store's own; its files get 0600
 * names        count (<= TD_STORE_TABLES_MAX) table names, static
 *
 * Flags are LMDB's default, safe ones. The map grows by itself.
 *
 * A file that is shorter than it should be is refused, whenever it is opened, and one whose meta
 * pages changed since it was closed (what tells it, `closed`, stands beside it until it is opened).
 * One that was not closed, or is suspected, has all its pages looked at first, which takes as long
 * as reading it: a process that damaged pages have ended does not end at them again.
 * Errors: TANDEM_E_CORRUPT, TANDEM_E_FORMAT, TANDEM_E_IO, TANDEM_E_STORE_FULL, TANDEM_E_PERMISSION,
 * TANDEM_E_NOMEM; what is damaged is logged.
 */
tandem_err td_lmdb_store_open(tandem_env *env, const char *folder, const char *const *names,
                              unsigned count, td_store **out);
/* Have all pages looked at when the folder is opened next; it is not open. TANDEM_E_IO,
 * TANDEM_E_STORE_FULL, TANDEM_E_PERMISSION. */
tandem_err td_lmdb_store_suspect(const char *folder);

/*
 * The same in memory. It models a disk: what was committed survives td_memory_disk users being
 * freed and opened again on the same disk, what was not is gone.
 *
 * disk         where the tables live, so that a reactor can crash and restart; one store at a time
 *              is open on it. NULL: a private one, gone with the store
 *
 * Errors: TANDEM_E_NOMEM, TANDEM_E_LIMIT (the disk would have more than TD_STORE_TABLES_MAX
 * tables).
 */
typedef struct td_memory_disk td_memory_disk;

tandem_err td_memory_disk_open(td_memory_disk **out);
void td_memory_disk_free(td_memory_disk *disk); /* NULL is fine; no store may be open on it */
/* Another disk with what is committed on this one, be it in use or not. */
tandem_err td_memory_disk_copy(td_memory_disk *disk, td_memory_disk **out);

tandem_err td_memory_store_open(tandem_env *env, td_memory_disk *disk, const char *const *names,
                                unsigned count, td_store **out);

/* Every following put (or commit, if at_commit) fails with err until err is TANDEM_OK again. For
 * tests and the simulator. Threads: the writer's. */
void td_memory_store_fail(td_store *store, tandem_err err, bool at_commit);

/* Asserts that no slot of the table is missing. */
void td_store_check(const struct td_store_ops *ops);

/* Short names for the slots. */
static inline tandem_err td_store_begin_write(td_store *store, td_txn **out)
{
    return store->ops->begin_write(store, out);
}
static inline tandem_err td_store_begin_read(td_store *store, td_txn **out)
{
    return store->ops->begin_read(store, out);
}
static inline tandem_err td_txn_commit(td_txn *txn)
{
    return txn->store->ops->commit(txn);
}
static inline void td_txn_abort(td_txn *txn)
{
    if (txn)
        txn->store->ops->abort(txn);
}
static inline tandem_err td_txn_get(td_txn *txn, unsigned table, tandem_slice key,
                                    tandem_slice *value_out)
{
    return txn->store->ops->get(txn, table, key, value_out);
}
static inline tandem_err td_txn_put(td_txn *txn, unsigned table, tandem_slice key,
                                    tandem_slice value)
{
    return txn->store->ops->put(txn, table, key, value);
}
static inline tandem_err td_txn_reserve(td_txn *txn, unsigned table, tandem_slice key, size_t size,
                                        uint8_t **room_out)
{
    return txn->store->ops->reserve(txn, table, key, size, room_out);
}
static inline tandem_err td_txn_del(td_txn *txn, unsigned table, tandem_slice key)
{
    return txn->store->ops->del(txn, table, key);
}
static inline tandem_err td_txn_cursor(td_txn *txn, unsigned table, td_cursor **out)
{
    return txn->store->ops->cursor_open(txn, table, out);
}
static inline tandem_err td_cursor_seek(td_cursor *cursor, tandem_slice key, tandem_slice *key_out,
                                        tandem_slice *value_out)
{
    return cursor->txn->store->ops->seek(cursor, key, key_out, value_out);
}
static inline tandem_err td_cursor_seek_before(td_cursor *cursor, tandem_slice key,
                                               tandem_slice *key_out, tandem_slice *value_out)
{
    return cursor->txn->store->ops->seek_before(cursor, key, key_out, value_out);
}
static inline tandem_err td_cursor_next(td_cursor *cursor, tandem_slice *key_out,
                                        tandem_slice *value_out)
{
    return cursor->txn->store->ops->next(cursor, key_out, value_out);
}
static inline void td_cursor_free(td_cursor *cursor)
{
    if (cursor)
        cursor->txn->store->ops->cursor_free(cursor);
}
static inline tandem_err td_store_recover(td_store *store)
{
    return store->ops->recover(store);
}
static inline tandem_err td_store_pages_check(td_store *store, char why[TD_STORE_WHY_BYTES])
{
    return store->ops->check(store, why);
}
static inline void td_store_free(td_store *store)
{
    if (store)
        store->ops->free(store);
}

#endif
