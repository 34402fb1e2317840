/*
 * The bytes of a backup (store/BACKUP.md is normative): a stream of checked records, written and read
 * without knowing where it goes or comes from. The writer is given what a store holds, collection by
 * collection, job by job; the reader takes bytes as they come, in pieces of any size, and hands out
 * only what it has proved as far as a stream can be: checksums chained from record to record, hashes,
 * chains, jobs whole, counts, and each collection's vector digest.
 *
 * Memory: one record and one job, and the heads of one collection (store/heads.h).
 * Threads: one.
 */
#ifndef TANDEM_STORE_BACKUP_STREAM_H
#define TANDEM_STORE_BACKUP_STREAM_H

#include "store/heads.h"
#include "store/share.h"

enum {
    TD_BACKUP_VERSION = 2, /* the last one; without lacks 1 is written */
    TD_BACKUP_MAGIC_BYTES = 8,
    TD_BACKUP_BODY_BYTES_MAX = 1024 * 1024,
    /* A record of operations ends with the job that fills it so far. */
    TD_BACKUP_OPERATIONS_BYTES = 128 * 1024,
    TD_BACKUP_WHY_BYTES = 128,
};

/* Kinds of records. */
enum {
    TD_BACKUP_HEADER = 1,
    TD_BACKUP_COLLECTION = 2,
    TD_BACKUP_OPERATIONS = 3,
    TD_BACKUP_BRANCH = 4,
    TD_BACKUP_COLLECTION_END = 5,
    TD_BACKUP_REMOTE = 6,
    TD_BACKUP_END = 7,
    TD_BACKUP_LACK = 8,
    /* In front of a record's body its kind and size, behind it the checksum. */
    TD_BACKUP_HEAD_BYTES = 1 + 4,
    TD_BACKUP_CHECKSUM_BYTES = 8,
};

extern const uint8_t td_backup_magic[TD_BACKUP_MAGIC_BYTES];

/* What it is a backup of. */
typedef struct td_backup_header {
    uint8_t reactor[TANDEM_ORIGIN_BYTES];
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t ordinal;  /* it holds what was committed up to here */
    uint64_t taken_ms; /* wall clock */
    bool has_lacks;    /* there may be some in it */
} td_backup_header;

typedef struct td_backup_totals {
    uint64_t collections;
    uint64_t operations;
    uint64_t remotes;
    uint64_t bytes; /* of the stream so far */
} td_backup_totals;

/* One job. operations: count bins, one behind the other, each canonical bytes. */
typedef struct td_backup_job {
    tandem_slice operations;
    uint32_t count;
    bool branch;   /* it follows no head and no lack: a fork begins with it */
    uint32_t held; /* of a branch: so many of its first operations were in a job before it */
} td_backup_job;

typedef struct td_backup_collection {
    tandem_slice name;
    uint64_t last_ordinal; /* of its operations; 0: it has only lacks */
    uint64_t operations;
    uint8_t vector_digest[TANDEM_HASH_BYTES];
} td_backup_collection;

/* ---- Writing ---- */

typedef struct td_backup_writer td_backup_writer;

/* write: takes the next bytes, borrowed for the call; its error ends the call that caused it. */
tandem_err td_backup_writer_open(tandem_err (*write)(void *context, tandem_slice bytes),
                                 void *context, td_backup_writer **out);
void td_backup_writer_free(td_backup_writer *writer); /* NULL is fine */

/*
 * In this order: the header; of each collection, in byte order of names, its begin, its jobs and lacks,
 * each behind what it follows, its end; the remotes; the end.
 *
 * Errors: those of write, TANDEM_E_NOMEM. put_job: TANDEM_E_CORRUPT (not a branch, but it follows no
 * head and no lack; a ninth head; it is said to be lacking). put_lack: TANDEM_E_CORRUPT (those of
 * td_heads_add_lack()). After an error the stream is of no use.
 */
tandem_err td_backup_put_header(td_backup_writer *writer, const td_backup_header *header);
tandem_err td_backup_put_collection(td_backup_writer *writer, tandem_slice name);
/* Does a job follow what was put of its collection? If not, it is to be put as a branch. */
bool td_backup_follows(const td_backup_writer *writer, const td_link *job);
tandem_err td_backup_put_job(td_backup_writer *writer, const td_backup_job *job,
                             const td_link *link);
/* The header has announced that there are some. lack->followed is not looked at. */
tandem_err td_backup_put_lack(td_backup_writer *writer, const uint8_t *origin, const td_lack *lack);
/* out: what was put of the collection; its name is not filled. */
tandem_err td_backup_put_collection_end(td_backup_writer *writer, uint64_t last_ordinal,
                                        td_backup_collection *out);
tandem_err td_backup_put_remote(td_backup_writer *writer, tandem_slice name, tandem_slice url,
                                const td_kept_share *share);
tandem_err td_backup_put_end(td_backup_writer *writer);
/* What was put so far. */
const td_backup_totals *td_backup_written(const td_backup_writer *writer);

/* ---- Reading ---- */

/* Receives what was read, in the order of writing; all of it borrowed for the call. An error ends the
 * reading with it. A slot that is NULL is not called. */
typedef struct td_backup_sink {
    void *context;
    tandem_err (*header)(void *context, const td_backup_header *header);
    tandem_err (*job)(void *context, const td_backup_job *job);
    tandem_err (*lack)(void *context, tandem_slice collection, const uint8_t *origin,
                       const td_lack *lack);
    /* Once all jobs and lacks of the collection were handed out. */
    tandem_err (*collection)(void *context, const td_backup_collection *collection);
    tandem_err (*remote)(void *context, tandem_slice name, tandem_slice url,
                         const td_kept_share *share);
} td_backup_sink;

typedef struct td_backup_reader td_backup_reader;

tandem_err td_backup_reader_open(const td_backup_sink *sink, td_backup_reader **out);
void td_backup_reader_free(td_backup_reader *reader); /* NULL is fine */

/*
 * Take the next bytes of the stream.
 *
 * why      says what is wrong with the stream; untouched where an error is the sink's
 * Errors: TANDEM_E_FORMAT (no backup), TANDEM_E_FORMAT_NEWER, TANDEM_E_CORRUPT (damaged, or bytes
 * behind its end), TANDEM_E_NOMEM, those of the sink. After an error each call returns that error.
 */
tandem_err td_backup_reader_feed(td_backup_reader *reader, tandem_slice bytes,
                                 char why[TD_BACKUP_WHY_BYTES]);
/* The bytes have ended. TANDEM_OK: all of the backup was there, and is as it was written.
 * TANDEM_E_CORRUPT: it was cut off; TANDEM_E_FORMAT: it was not even a beginning. */
tandem_err td_backup_reader_finish(td_backup_reader *reader, char why[TD_BACKUP_WHY_BYTES]);
/* What was read so far. */
const td_backup_totals *td_backup_read(const td_backup_reader *reader);

#endif
