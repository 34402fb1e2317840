/*
 * What the files of the stream index share: the index itself, its one transaction, what happens
 * when that fails, and the single records that more than one of them gets and puts. Private to
 * stream_index.c (open, commit, failure), stream_gather.c and stream_settle.c (indexing),
 * stream_entries.c, stream_read.c (reading) and stream_snapshots.c.
 *
 * A public call works like this: td_index_begin(), then gets and puts; a reading call answers
 * through td_index_outcome(), a changing one that fails half way through td_index_undo(). What reads
 * a document has td_index_settle_document() first, what reads several td_index_settle_all(); both
 * have undone everything when they fail.
 *
 * Ownership: the index owns everything here but env and ops; a collection lives until the index is
 * freed or a change is undone, when all of them are read again.
 * Errors: those of store/store.h, and TANDEM_E_CORRUPT for records that cannot be read.
 * Threads: one thread at a time, as with the public calls.
 */
#ifndef TANDEM_STORE_STREAM_STATE_H
#define TANDEM_STORE_STREAM_STATE_H

#include "store/hash_table.h"
#include "store/stream_block.h"
#include "store/stream_pending.h"

/* A collection that the index knows; all of them are in memory, as far as it was gathered. */
typedef struct td_index_collection {
    td_hash_entry hash_entry;
    uint32_t id;
    bool numbered;     /* it has a record, so the number is its own for good */
    bool unsaved;      /* the record says less */
    uint64_t progress; /* its last indexed ordinal */
    uint64_t entries;  /* that it has in the index */
    uint64_t corrupt;  /* records passed over, and the ordinal of the first */
    uint64_t corrupt_first;
    size_t size;
    char name[];
} td_index_collection;

struct td_stream_index {
    tandem_env *env;
    td_store *store;
    td_op_store *ops;
    td_txn *txn;
    bool changed; /* something was put in txn */
    tandem_writer record; /* that is being put */
    tandem_writer block_old, block_new; /* that are being merged */
    tandem_err failed;
    td_hash_table collections;
    uint32_t next_collection;
    td_pending pending;
    bool unsaved;      /* something was gathered and is not settled */
    uint64_t position; /* of what was gathered */
    /* The greatest ordinal that a document was settled with, and what the record of it says: this is
     * how far the tables may be ahead of the position that they tell. */
    uint64_t reached, reached_saved;
    uint64_t indexed;
    uint64_t corrupt;
};

/* ---- The transaction ---- */

/* Have one open, or the error that made the index unusable. */
tandem_err td_index_begin(td_stream_index *index);
/* Make what was put durable, and end it. */
tandem_err td_index_commit(td_stream_index *index);
/* Within it. Each record is put with its checksum, and got without. */
tandem_err td_index_get(td_stream_index *index, unsigned table, tandem_slice key,
                        tandem_slice *value_out);
tandem_err td_index_put(td_stream_index *index, unsigned table, tandem_slice key,
                        tandem_slice value);
tandem_err td_index_del(td_stream_index *index, unsigned table, tandem_slice key);
/* A change failed half way: go back to the last commit. Returns err. */
tandem_err td_index_undo(td_stream_index *index, tandem_err err);
/* The outcome of a reading call: what cannot be read makes the index unusable. Returns err. */
tandem_err td_index_outcome(td_stream_index *index, tandem_err err);

/* ---- Settling ---- */

/* Write what waits of a document; nothing is committed. An error has undone all. */
tandem_err td_index_settle_document(td_stream_index *index, const td_index_collection *c,
                                    tandem_slice name);
/* Write all that waits. What is more than a slice is committed on the way, for it would need much memory
 * and map at once; so nothing that was read before is valid. An error has undone all. */
tandem_err td_index_settle_all(td_stream_index *index);
/* Add what waits of a document to what its record says (zeros: there is none), and write nothing. false:
 * what waits may change its life, so it must be settled. */
bool td_index_document_overlay(const td_stream_index *index, tandem_slice document_key,
                               td_document_record *record);

/* ---- Collections and positions ---- */

/* NULL if the index does not know it; name may be anything. */
td_index_collection *td_index_collection_find(const td_stream_index *index, tandem_slice name);
/* In memory only: td_index_progress_put() writes it. TANDEM_E_NOMEM. */
tandem_err td_index_collection_add(td_stream_index *index, tandem_slice name, uint32_t id,
                                   td_index_collection **out);
tandem_err td_index_progress_put(td_stream_index *index, const td_index_collection *c);
/* Keep its number, and no progress: before anything is put under the number. */
tandem_err td_index_number_put(td_stream_index *index, td_index_collection *c);
/* Write position and the next free number. */
tandem_err td_index_meta_put(td_stream_index *index);

/* ---- Streams ---- */

/* Begins, and settles the document. TANDEM_E_NOT_FOUND if there is no such stream. key_out receives its
 * key. */
tandem_err td_index_stream_get(td_stream_index *index, tandem_slice collection,
                               tandem_slice document, tandem_slice branch, tandem_slice scope,
                               td_index_key *key_out, td_stream_record *out);
tandem_err td_index_stream_put(td_stream_index *index, tandem_slice key,
                               const td_stream_record *record);
/*
 * The next stream of a document.
 *
 * at         at first td_index_streams_begin() of the document's key; receives the stream's key
 * names_out  of it; borrows at
 *
 * TANDEM_END if there is none, TANDEM_E_CORRUPT for what is no stream of a document. What is changed
 * between two calls is their caller's affair.
 */
void td_index_streams_begin(td_index_key *at, tandem_slice document_key);
tandem_err td_index_stream_next(td_stream_index *index, td_index_key *at,
                                td_index_names *names_out, td_stream_record *out);

/* ---- Entries ---- */

/*
 * Put entries, sorted by their places, into a stream; is_new if it has none. The caller puts the
 * stream's record. Of the lifecycle all are hashed, of other streams none: those that need it to be told
 * from one another get their hash here, and are sorted by it.
 */
tandem_err td_index_entries_put(td_stream_index *index, tandem_slice collection,
                                tandem_slice stream_key, bool lifecycle, bool is_new,
                                td_block_entry *entries, size_t count);

/* TANDEM_OK to go on. It may read the index. */
typedef tandem_err (*td_visit_block_entry)(void *context, const td_block_entry *entry);
/* Those of a stream after a place. said_out: what ended the visits. */
tandem_err td_index_entries_each(td_stream_index *index, tandem_slice collection,
                                 tandem_slice stream_key, bool lifecycle, const td_place *after,
                                 td_visit_block_entry visit, void *context, tandem_err *said_out);
/* How many of a stream are not after a place. */
tandem_err td_index_entries_rank(td_stream_index *index, tandem_slice collection,
                                 tandem_slice stream_key, const td_place *place, uint64_t *out);

/* ---- Snapshots ---- */

/* Drop a stream's snapshots at place and after it, and set its mark anew, in record alone. */
tandem_err td_index_snapshots_drop(td_stream_index *index, tandem_slice stream_key,
                                   td_stream_record *record, const td_place *place);

/* The newest last; room for one more than TD_SNAPSHOTS_MAX, which is as many as there can be. */
typedef struct td_index_snapshot {
    td_place place;
    uint64_t folded;
    uint32_t model_version;
    bool torn; /* nothing but its place can be told */
} td_index_snapshot;

tandem_err td_index_snapshots_list(td_stream_index *index, tandem_slice stream_key,
                                   td_index_snapshot out[TD_SNAPSHOTS_MAX + 1],
                                   unsigned *count_out);

/* ---- Documents ---- */

/* The record of a document; zeros if there is none. Within a transaction. */
tandem_err td_index_document_get(td_stream_index *index, tandem_slice key, td_document_record *out);

/*
 * The next document of a collection, by a cursor of the table.
 *
 * from     at first td_index_documents_begin(); receives where to go on
 * key_out  the document's: valid as the cursor's are
 *
 * TANDEM_END if there is none.
 */
void td_index_documents_begin(td_index_key *from, uint32_t collection, tandem_slice after);
tandem_err td_index_document_next(td_cursor *cursor, td_index_key *from, tandem_slice *key_out,
                                  td_document_record *out);

/* What a lifecycle operation does. */
enum td_life { TD_LIFE_NOTHING, TD_LIFE_CREATE, TD_LIFE_DELETE };

enum td_life td_index_life(const td_operation *operation);
/* Fold a collection's lifecycle stream into info: whether it lives, its model, its epoch. */
tandem_err td_index_lifecycle_fold(td_stream_index *index, tandem_slice collection,
                                   tandem_slice stream_key, td_document_info *info);
/* Count an operation into what is known of its document; in whatever order they come. */
void td_index_document_note(td_document_record *record, const td_operation *operation,
                            uint64_t ordinal);

#endif
