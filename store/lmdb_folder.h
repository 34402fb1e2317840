/*
 * The folder of an LMDB store: what LMDB leaves to its user. Its files are data.mdb, lock.mdb, and
 * `unclean` while a store is open on it, or was when its program died.
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

/* Mark it as open; durable with the folder. EEXIST: it was marked. */
int td_lmdb_mark_make(const char *folder);
void td_lmdb_mark_remove(const char *folder);

#endif
