/*
 * Is a file of LMDB whole? LMDB has no checksums on its pages and believes what they say: a file
 * that was cut short, or a page whose bytes changed, ends the process (SIGBUS, SIGSEGV, abort) at
 * the first read that goes astray. So the file is looked at with read() before its map is used.
 *
 * Two depths:
 *
 *   meta pages   both can be read, the one that LMDB will use describes a file that this one can
 *                be, and the file is as long as it says. Costs two reads, at every opening.
 *   walk         also every page that is reachable from it: its number, kind, bounds, that no page
 *                is used twice or both used and free, the order of keys, depth, counts of entries,
 *                chains of overflow pages, the list of free pages. What passes can be read and
 *                written by LMDB without going astray. Costs one read of the whole file.
 *
 * What it does not tell: whether values are what was written. For that records have checksums.
 *
 * Written for the format of LMDB 0.9 (data version 1) with tables that allow no duplicates, in the
 * machine's own byte order and word size, as LMDB writes it. After a power cut the newest meta page
 * wins, as with LMDB; there is no falling back to the other one, which would undo a commit.
 *
 * Threads: any; nothing is shared.
 */
#ifndef TANDEM_STORE_LMDB_CHECK_H
#define TANDEM_STORE_LMDB_CHECK_H

#include <stdint.h>

#include "store/store.h"

#define TD_LMDB_NEWEST UINT64_MAX

/*
 * Look at a file.
 *
 * folder   that data.mdb is in; none, or one without a byte, is whole: LMDB makes a new one
 * txn      what a transaction of this number sees: one that reads and so holds its pages, or
 *          TD_LMDB_NEWEST where nobody writes
 * why      a sentence about the first thing that is wrong
 *
 * Errors: TANDEM_E_CORRUPT; TANDEM_E_FORMAT (no file of LMDB 0.9); TANDEM_E_STATE (the meta page of
 * txn is written over by now: begin a newer one); TANDEM_E_IO, TANDEM_E_PERMISSION, TANDEM_E_NOMEM.
 */
tandem_err td_lmdb_check(const char *folder, uint64_t txn, bool walk, char why[TD_STORE_WHY_BYTES]);

#endif
