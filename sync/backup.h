/*
 * Backups: all that a reactor holds as one stream of bytes (store/BACKUP.md), and data folders made of
 * one.
 *
 * A backup is taken of an open reactor, which goes on working: it holds everything that was committed
 * up to one position and nothing later. It holds the operations of every collection (all branches of
 * forks, types and models that nobody here knows), what is lacking of them and why, and the remotes'
 * names and URLs. It holds no secret:
 * not the origin's key, so that nobody can go on writing as the reactor that was backed up.
 *
 * What is restored is therefore a reactor of its own, with a reactor id and an origin that are new. It
 * may meet the one it was made of, and other copies, as it meets anybody: they exchange what the other
 * lacks. Its remotes are paused: whoever restores an old state, to look at it or as a drill, does not
 * want it to talk to the living before he says so (tandem_remote_resume()).
 *
 * A clone is a restore that is fed what a backup writes; it is begun with tandem_clone_open().
 *
 * What goes in is borrowed for the call. why: room for a sentence that says what is wrong, "" if the
 * error's text says it all; may be NULL.
 */
#ifndef TANDEM_SYNC_BACKUP_H
#define TANDEM_SYNC_BACKUP_H

#include "sync.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tandem_backup_info {
    uint8_t reactor[TANDEM_ORIGIN_BYTES]; /* whose backup it is, and the origin that it wrote under */
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t taken_ms; /* wall clock, since 1970 */
    uint64_t position; /* everything that was committed there up to it */
    uint64_t collections;
    uint64_t operations;
    uint64_t remotes;
    uint64_t bytes; /* of the stream */
} tandem_backup_info;

/* Takes the next bytes of a backup, borrowed for the call. An error ends the backup with that error;
 * it may block for as long as it likes. */
typedef tandem_err (*tandem_backup_write_fn)(void *context, tandem_slice bytes);

/*
 * Write a backup.
 *
 * sync     the reactor's, for its remotes; NULL: without them
 * write    called from this call only; no transaction is open meanwhile, so a slow one holds up
 *          nobody. What it has got when the call fails is no backup: throw it away.
 * info_out may be NULL
 *
 * Memory: a few MiB whatever the size of the store, and 170 bytes an origin of a collection.
 * Threads: any; where the embedder drives and sync is not NULL, the driving one.
 * Errors:  TANDEM_E_CORRUPT (a record cannot be read, or is missing: why says which; a backup is whole
 *          or it is none), TANDEM_E_UNSUPPORTED (a collection is held in part, see tandem_digest: why
 *          names it; mostly before anything is written), TANDEM_E_IO, TANDEM_E_CLOSED,
 *          TANDEM_E_NOMEM, those of write.
 */
TANDEM_API tandem_err tandem_backup(tandem_reactor *reactor, tandem_sync *sync,
                                    tandem_backup_write_fn write, void *context,
                                    tandem_backup_info *info_out, char why[TANDEM_WHY_BYTES]);

/* A backup that is being read. One thread at a time. */
typedef struct tandem_restore tandem_restore;

/*
 * Begin to restore.
 *
 * options  of the reactor that restores: path is the data folder to be made, log and models serve
 *          while it is; drive is to be false. NULL: look at the backup only, and make nothing.
 *
 * The folder is made beside its place, as path.restoring, and moved there when it is whole: whatever
 * happens, there is a whole store at path or none. What a process that was killed has left at
 * path.restoring is removed here.
 *
 * Errors: TANDEM_E_EXISTS (something is at path, other than an empty folder), TANDEM_E_LOCKED (another
 *         restore makes it), TANDEM_E_UNSUPPORTED (path is a mount point), TANDEM_E_INVALID
 *         (options), and those of tandem_open().
 */
TANDEM_API tandem_err tandem_restore_open(const tandem_options *options, tandem_restore **out,
                                          char why[TANDEM_WHY_BYTES]);

/* The same, of the backup that a living reactor is writing: only what the new reactor shows as the
 * reason of its incarnation is another. */
TANDEM_API tandem_err tandem_clone_open(const tandem_options *options, tandem_restore **out,
                                        char why[TANDEM_WHY_BYTES]);

/*
 * Take the next bytes of the backup, in pieces of any size.
 *
 * Errors: TANDEM_E_FORMAT (it is no backup), TANDEM_E_FORMAT_NEWER, TANDEM_E_CORRUPT (it is damaged),
 *         TANDEM_E_STORE_FULL, TANDEM_E_IO, TANDEM_E_NOMEM. After an error there is nothing left but
 *         tandem_restore_free().
 */
TANDEM_API tandem_err tandem_restore_feed(tandem_restore *restore, tandem_slice bytes,
                                          char why[TANDEM_WHY_BYTES]);

/* What was made, and of what. */
typedef struct tandem_restored {
    tandem_backup_info backup;
    uint8_t reactor[TANDEM_ORIGIN_BYTES]; /* zeros if nothing was made */
    uint8_t origin[TANDEM_ORIGIN_BYTES];
} tandem_restored;

/*
 * The bytes have ended: prove that nothing is missing, and put the folder in its place.
 *
 * TANDEM_OK means: every checksum, hash, count and vector digest was right, and the folder is on disk
 * at path, closed. restored_out may be NULL.
 * Errors: TANDEM_E_CORRUPT (it was cut off), TANDEM_E_EXISTS (somebody else has made something at
 *         path meanwhile), and those of tandem_restore_feed().
 */
TANDEM_API tandem_err tandem_restore_finish(tandem_restore *restore, tandem_restored *restored_out,
                                            char why[TANDEM_WHY_BYTES]);

/* If it was not finished, all of it is removed. NULL is fine. */
TANDEM_API void tandem_restore_free(tandem_restore *restore);

#ifdef __cplusplus
}
#endif

#endif
