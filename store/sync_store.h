/*
 * What the sync manager keeps: the configured remotes, and the dead letters (jobs that a remote has
 * refused for good), in a small store of its own, so that the executor stays the only writer of the
 * operations store.
 *
 * Tables:
 *   remotes  name -> checksum (XXH3 of name and array, 64 bits, big endian), array
 *   dead     id of a job (64 bits, big endian) -> checksum (of id and array), array
 *   meta     "format" -> version of the tables, "jobs" -> the highest id that a job may have been
 *            given; msgpack integers
 *
 * The arrays are msgpack. Of a remote: version of the record, URL, paused, held, [base, factor, cap,
 * attempts, rest, budget] of the retry policy, [direction, share] (store/share.h), [mode, mean] of
 * polling; the last four may be missing. Of a dead letter: version of the record, name of the remote
 * (empty: none stood for the reactor), reactor, collection, document, branch, origin, first seq, last
 * seq, operations, bytes, ordinal of the first, hash of the last, error, detail, time, times offered,
 * to be offered again. Items after these are skipped, so that a field is added without a new version;
 * a new version means that this one cannot be understood.
 *
 * One number space serves job handles in flight and dead letters, so that an id never means two of
 * them: "jobs" is moved ahead of the ids that are given, and beyond that of every dead letter.
 *
 * Threads: one thread, the sync manager's.
 */
#ifndef TANDEM_STORE_SYNC_STORE_H
#define TANDEM_STORE_SYNC_STORE_H

#include "store/share.h"
#include "store/store.h"

typedef struct td_sync_store td_sync_store;

/* How a remote is to be retried; 0: as the reactor does by default. */
typedef struct td_kept_retry {
    uint64_t base_ms, factor, cap_ms, attempts, rest_ms, budget;
} td_kept_retry;

/* How it is to be polled, if it works by exchanges: a td_poll_mode, and the mean interval. */
typedef struct td_kept_poll {
    uint64_t mode, mean_ms;
} td_kept_poll;

/* A remote as it is kept. */
typedef struct td_remote_record {
    char name[TANDEM_NAME_BYTES_MAX + 1];
    char url[512];
    bool paused;
    uint64_t held; /* the newest ordinal of ours up to which it was known to hold everything */
    td_kept_retry retry;
    td_kept_share share; /* its bytes: the caller's in a put, the store's during a visit */
    td_kept_poll poll;
} td_remote_record;

/* A job that a remote has refused for good. */
typedef struct td_dead_letter {
    uint64_t id; /* of the handle that was refused; at least 1 */
    char remote[TANDEM_NAME_BYTES_MAX + 1]; /* "": none stood for the reactor */
    uint8_t reactor[TANDEM_ORIGIN_BYTES];   /* that refused it */
    char collection[TANDEM_NAME_BYTES_MAX + 1];
    char document[TANDEM_NAME_BYTES_MAX + 1];
    char branch[TANDEM_NAME_BYTES_MAX + 1];
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t first_seq, last_seq;
    uint64_t operations, bytes;
    uint64_t first_ordinal; /* here */
    uint8_t hash[TANDEM_HASH_BYTES]; /* of the last operation */
    tandem_err error;
    uint64_t detail;  /* as in ACK */
    uint64_t time_ms; /* of the last refusal, wall clock */
    uint64_t offered; /* so often, and refused every time */
    bool retry;       /* to be offered again, whatever the remote announces */
} td_dead_letter;

extern const char *const td_sync_store_tables[];
extern const unsigned td_sync_store_table_count;

/* Owns store, also on failure. Errors: TANDEM_E_FORMAT_NEWER, TANDEM_E_CORRUPT, the td_store's. */
tandem_err td_sync_store_open(tandem_env *env, td_store *store, td_sync_store **out);
void td_sync_store_free(td_sync_store *sync); /* NULL is fine */

/*
 * Insert or replace by name; durable on return. TANDEM_E_INVALID: no such name (td_name_valid()), URL
 * (a scheme, a colon, more; no blanks) or share can be. After any other error the outcome is unknown;
 * repeating the call settles it.
 */
tandem_err td_sync_store_put_remote(td_sync_store *sync, const td_remote_record *record);
/* With its dead letters; durable on return. TANDEM_E_NOT_FOUND. */
tandem_err td_sync_store_delete_remote(td_sync_store *sync, const char *name);
/* All remotes in byte order of their names; visitor as in op_store.h. A damaged record ends it with
 * TANDEM_E_CORRUPT. */
tandem_err td_sync_store_remotes(td_sync_store *sync,
                                 tandem_err (*visit)(void *context, const td_remote_record *record),
                                 void *context);

/* Insert or replace by id, all of them or none; durable on return. After an error as with a remote. */
tandem_err td_sync_store_put_dead(td_sync_store *sync, const td_dead_letter *const *letters,
                                  size_t count);
/* All of them or none, those that are not there passed over; durable on return. */
tandem_err td_sync_store_delete_dead(td_sync_store *sync, const uint64_t *ids, size_t count);
/* All dead letters in order of their ids; as td_sync_store_remotes(). */
tandem_err td_sync_store_dead(td_sync_store *sync,
                              tandem_err (*visit)(void *context, const td_dead_letter *letter),
                              void *context);

/* The highest id that a job may have been given; 0: none was. TANDEM_E_CORRUPT. */
tandem_err td_sync_store_job_ids(td_sync_store *sync, uint64_t *out);
/* Ids up to this one may be given from now on; durable on return. */
tandem_err td_sync_store_reserve_job_ids(td_sync_store *sync, uint64_t last);

/*
 * Read everything again. report is called for each thing found wrong, with a sentence borrowed for
 * the call. TANDEM_E_CORRUPT if it was called.
 */
tandem_err td_sync_store_verify(td_sync_store *sync,
                                void (*report)(void *context, const char *text), void *context);

#endif
