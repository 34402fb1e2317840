/*
 * The folder of an LMDB store: what LMDB leaves to its user. Its files are data.mdb, lock.mdb, and
 * `closed` while no store is open on it and the last one was closed in order.
 *
 * All return 0 or an errno.
 */
#ifndef TANDEM_STORE_LMDB_FOLDER_H
#define TANDEM_STORE_LMDB_FOLDER_H

enum { TD_LMDB_READERS_MAX = 510 };

/* LMDB flushes its file, but nobody flushes the folder that the file was made in. */
int td_lmdb_folder_sync(const char *folder);

/*
 * LMDB makes its reader table with ftruncate() and writes to it through a mapping: on a full disk
 * that is a SIGBUS. So its blocks are reserved first, which fails like any other call.
 */
int td_lmdb_lock_reserve(const char *folder);

/*
 * LMDB makes its file by writing two meta pages, and flushes them with the first commit: until then
 * a power cut may leave any part of them, which LMDB refuses to open. Where they are flushed before
 * anything else is written, such a file never held anything: it is begun anew.
 */
int td_lmdb_creation_mend(const char *folder);

/*
 * The mark of a closed store. LMDB has no checksum on its meta pages: a bit that changed in one can
 * make the commit before the last the newest, which is whole and so says nothing. Therefore the mark
 * holds a hash of both: 16 bytes of it, and 16 of the hash of these, so that a mark which was itself
 * damaged, or not written whole before a power cut, is none.
 */
typedef enum {
    TD_LMDB_CLOSED,     /* and the meta pages are those that it was closed with */
    TD_LMDB_NOT_CLOSED, /* there is no mark: open now, ended without closing, or copied without it */
    TD_LMDB_CHANGED,    /* the meta pages are others */
} td_lmdb_mark;

/* Not durable: a mark that is lost costs a look at all pages. After the last commit has succeeded,
 * and nobody has the file open. */
int td_lmdb_mark_make(const char *folder);
int td_lmdb_mark_read(const char *folder, td_lmdb_mark *out);
/* Before anything is written; durable with the folder. No mark is fine. */
int td_lmdb_mark_remove(const char *folder);

#endif
