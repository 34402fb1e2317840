/*
 * What the sync manager keeps: the configured remotes, in a small store of its own, so that the
 * executor stays the only writer of the operations store.
 *
 * Tables:
 *   remotes  name -> checksum (XXH3 of name and array, 64 bits, big endian), array
 *   meta     "format" -> version of the tables, a msgpack integer
 *
 * The array is msgpack: version of the record, URL, paused, held, [base, factor, cap, attempts, rest,
 * budget] of the retry policy. The last two may be missing, items after these are skipped, so that a field is added without a new version; a new version means that
 * this one cannot be understood.
 *
 * Threads: one thread, the sync manager's.
 */
#ifndef TANDEM_STORE_SYNC_STORE_H
#define TANDEM_STORE_SYNC_STORE_H

#include "store/store.h"

typedef struct td_sync_store td_sync_store;

/* How a remote is to be retried; 0: as the reactor does by default. */
typedef struct td_kept_retry {
    uint64_t base_ms, factor, cap_ms, attempts, rest_ms, budget;
} td_kept_retry;

/* A remote as it is kept. */
typedef struct td_remote_record {
    char name[TANDEM_NAME_BYTES_MAX + 1];
    char url[512];
    bool paused;
    uint64_t held; /* the newest ordinal of ours up to which it was known to hold everything */
    td_kept_retry retry;
} td_remote_record;

extern const char *const td_sync_store_tables[];
extern const unsigned td_sync_store_table_count;

/* Owns store, also on failure. Errors: TANDEM_E_FORMAT_NEWER, TANDEM_E_CORRUPT, the td_store's. */
tandem_err td_sync_store_open(tandem_env *env, td_store *store, td_sync_store **out);
void td_sync_store_free(td_sync_store *sync); /* NULL is fine */

/*
 * Insert or replace by name; durable on return. TANDEM_E_INVALID: no such name (td_name_valid()) or
 * URL (a scheme, a colon, more; no blanks) can be. After any other error the outcome is unknown;
 * repeating the call settles it.
 */
tandem_err td_sync_store_put_remote(td_sync_store *sync, const td_remote_record *record);
/* Durable on return. TANDEM_E_NOT_FOUND. */
tandem_err td_sync_store_delete_remote(td_sync_store *sync, const char *name);
/* All remotes in byte order of their names; visitor as in op_store.h. A damaged record ends it with
 * TANDEM_E_CORRUPT. */
tandem_err td_sync_store_remotes(td_sync_store *sync,
                                 tandem_err (*visit)(void *context, const td_remote_record *record),
                                 void *context);

/*
 * Read everything again. report is called for each thing found wrong, with a sentence borrowed for
 * the call. TANDEM_E_CORRUPT if it was called.
 */
tandem_err td_sync_store_verify(td_sync_store *sync,
                                void (*report)(void *context, const char *text), void *context);

#endif
