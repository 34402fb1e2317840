/*
 * The data folder of a reactor: DIR (mode 0700) with
 *
 *   lock     held with flock while the folder is open, by one process at a time
 *   store/   the operations store (LMDB)
 *   index/   the stream index and snapshots: disposable
 *   sync/    what the sync manager keeps
 *
 * Folders get 0700, files 0600; a folder that others may read or write is refused.
 * Threads: any, one folder object by one thread.
 */
#ifndef TANDEM_STORE_DATA_FOLDER_H
#define TANDEM_STORE_DATA_FOLDER_H

#include "store/error.h"

typedef struct td_data_folder td_data_folder;

/*
 * Create what is missing, parents included, and take the lock, without waiting.
 *
 * create       false: a folder that does not exist, or was never opened with true, is
 *              TANDEM_E_NOT_FOUND and is left as it is
 * TANDEM_E_CORRUPT: the store is empty or gone, and the index or the sync manager's part is not.
 * Both are made after the store is on disk, so this is a reactor that lost its operations, and not a
 * new one. Nothing is made.
 * Errors: TANDEM_E_LOCKED, TANDEM_E_PERMISSION (not ours, or open to others), TANDEM_E_IO,
 * TANDEM_E_STORE_FULL, TANDEM_E_INVALID (path too long, or not to a folder), TANDEM_E_NOMEM.
 */
tandem_err td_data_folder_open(const char *path, bool create, td_data_folder **out);
/* Gives the lock back. NULL is fine. */
void td_data_folder_free(td_data_folder *folder);

/* Paths of the parts, valid as long as the folder object. */
const char *td_data_folder_store(const td_data_folder *folder);
const char *td_data_folder_index(const td_data_folder *folder);
const char *td_data_folder_sync(const td_data_folder *folder);

/*
 * ---- Making one elsewhere first ----
 *
 * What must be whole or not be there (a restored backup) is made as a folder beside its place, closed,
 * and moved there.
 */

/* May a data folder be moved to path? TANDEM_OK if nothing is there, or an empty folder;
 * TANDEM_E_EXISTS if anything else is; TANDEM_E_UNSUPPORTED: a mount point, which nothing can take
 * the place of. */
tandem_err td_data_folder_vacant(const char *path);
/* Remove the data folder at path, if there is one. TANDEM_E_LOCKED: somebody has it open;
 * TANDEM_E_EXISTS: there is something in it that is not of a data folder, and stays. */
tandem_err td_data_folder_remove(const char *path);
/* Move the data folder at from, which nobody has open, to a vacant path; durable on return, with all
 * that is in it. TANDEM_E_LOCKED, TANDEM_E_EXISTS. */
tandem_err td_data_folder_move(const char *from, const char *to);

/* Remove what the index folder holds, for a rebuild; nothing may have it open. */
tandem_err td_data_folder_drop_index(td_data_folder *folder);

#endif
