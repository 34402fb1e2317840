/*
 * The stream index: which operations make up a document, in total order, and snapshots of folds. It
 * is derived from the operations store and disposable: missing, torn or of another version, it is
 * built again. It lives in a td_store of its own, so that its random keys never slow the hot path.
 *
 * Total order of a stream: (hlc, origin, seq, hash), of the hash the first 16 bytes: a tie in all
 * before it exists only between the branches of a fork.
 *
 * Lifecycle operations (scope `document`) of all branches of a document form one stream, because a
 * document is created and deleted as a whole. From it the index derives the document's model (that
 * of its first CREATE), whether it is live, and its epoch: the place of the CREATE from which every
 * scope starts empty.
 *
 * Tables: meta (version, the store's reactor id, how far it is), progress (the same of each
 * collection), documents (with their streams and entries), snapshots.
 *
 * Indexing has two steps. Operations are gathered from the operations store into memory
 * (td_stream_index_advance), and later settled: written to the tables, a document at a time in key
 * order (td_stream_index_settle). Reading sees both, for it settles the documents that it looks at.
 *
 * Transactions: all calls work in one writing transaction, begun when needed and made durable by
 * td_stream_index_settle() or _commit(); reads see what was indexed before, committed or not. Visitors
 * may call what reads the documents that are being visited, nothing that changes the index.
 *
 * A change that fails for want of space or memory, be it one that a reading call began, undoes all
 * since the last commit and all that waits: the position goes back, and it is indexed again. After any
 * other failure of the store the index answers everything with that error (td_stream_index_failure):
 * drop it and open anew.
 *
 * Threads: one thread at a time, the document view's.
 */
#ifndef TANDEM_STORE_STREAM_INDEX_H
#define TANDEM_STORE_STREAM_INDEX_H

#include "store/bytes.h"
#include "store/op_store.h"

typedef struct td_stream_index td_stream_index;

extern const char *const td_stream_index_tables[];
extern const unsigned td_stream_index_table_count;

#define TD_SCOPE_DOCUMENT "document"

enum { TD_PLACE_HASH_AT = 8 + TANDEM_ORIGIN_BYTES + 8 };

/* A place in the total order; compares with memcmp. All zero: before everything. */
typedef struct td_place {
    uint8_t bytes[TD_PLACE_HASH_AT + 16]; /* hlc, origin, seq, hash: big endian */
} td_place;

/*
 * The index does not keep all of it: the hash of an entry's place is zeros, unless another operation
 * of the stream has the same hlc, origin and seq. The operation completes it.
 */
static inline td_place td_place_with_hash(const td_place *place, const td_operation *operation)
{
    td_place whole = *place;

    memcpy(whole.bytes + TD_PLACE_HASH_AT, operation->hash, sizeof(whole.bytes) - TD_PLACE_HASH_AT);
    return whole;
}

/* Do origin and seq, and the hash if it is there, name this operation? */
bool td_place_names(const td_place *place, const td_operation *operation);

static inline uint64_t td_place_hlc(const td_place *place)
{
    return td_get_u64(place->bytes);
}

/* What is known of a document. */
typedef struct td_document_info {
    bool known;   /* some operation of it is held */
    bool created; /* a CREATE of it is held */
    bool deleted; /* its last CREATE or DELETE is a DELETE */
    bool conflict; /* it has a model, and operations of another one are held, which are no-ops */
    char model[TANDEM_NAME_BYTES_MAX + 1]; /* "" until created */
    uint64_t operations;   /* of all branches and scopes */
    uint64_t last_ordinal; /* of the newest arrival: the document's position */
    uint64_t last_seq;     /* and of that operation */
    uint8_t last_origin[TANDEM_ORIGIN_BYTES];
    td_place epoch; /* of the CREATE that counts; zero until created */
} td_document_info;

/*
 * Open on a td_store, which it then owns (also on failure). ops is borrowed and outlives it.
 *
 * Errors: TANDEM_E_CORRUPT if it is damaged, TANDEM_E_FORMAT if it is of another version or of
 * another reactor's store, or ahead of ops: then drop its folder and open anew.
 */
tandem_err td_stream_index_open(tandem_env *env, td_store *store, td_op_store *ops,
                                td_stream_index **out);
/* What was not committed is indexed again next time. NULL is fine. */
void td_stream_index_free(td_stream_index *index);

/*
 * Index up to operations_max further operations, in arrival order of each collection: from now on what
 * reads the index sees them. They wait in memory until they are settled, or their document is read.
 * Corrupt records are passed over and counted. Not while a settling is under way.
 *
 * position_out   every operation with an ordinal up to here is indexed
 * current_out    all that was committed to the operations store when the call began is indexed
 */
tandem_err td_stream_index_advance(td_stream_index *index, uint32_t operations_max,
                                   uint64_t *position_out, bool *current_out);
/* Are the operations that wait so many that they should be settled? */
bool td_stream_index_full(const td_stream_index *index);
/* Is there anything to settle, or a transaction open? Even a reading call opens one. */
bool td_stream_index_busy(const td_stream_index *index);
/*
 * Write documents for which operations wait to the tables, and commit. more_out: others are left, and
 * only once they are written, too, will it stand in the index how far it is. Where nothing waits and
 * nothing was changed it only ends the transaction.
 *
 * documents_max   at least 1; a page or two of memory each, and of time
 */
enum { TD_INDEX_SLICE = 2048 };
tandem_err td_stream_index_settle(td_stream_index *index, uint32_t documents_max, bool *more_out);
/* Settle all. */
tandem_err td_stream_index_commit(td_stream_index *index);
tandem_env *td_stream_index_env(const td_stream_index *index);
/* TANDEM_OK, or the error that made the index unusable. */
tandem_err td_stream_index_failure(const td_stream_index *index);

/* Its entries do not fit the operations store: it fails with TANDEM_E_CORRUPT from now on. */
void td_stream_index_distrust(td_stream_index *index);

/* How many corrupt records of a collection were passed over, those counted in it that the
 * store lacks, and the ordinal of the first (or, of one that is lacking, one before it): what is
 * folded of this collection may lack them. first_out is 0 if there are none. */
tandem_err td_stream_index_corrupt(td_stream_index *index, tandem_slice collection,
                                   uint64_t *count_out, uint64_t *first_out);

/* What is known of one document; known is false if nothing. */
tandem_err td_stream_index_document(td_stream_index *index, tandem_slice collection,
                                    tandem_slice document, td_document_info *out);

/* A visitor returns TANDEM_OK to go on, TANDEM_END to stop well, or an error. */
typedef tandem_err (*td_visit_document)(void *context, tandem_slice document,
                                        const td_document_info *info);
/* Documents > after (empty: all) of a collection, in byte order. */
tandem_err td_stream_index_documents(td_stream_index *index, tandem_slice collection,
                                     tandem_slice after, td_visit_document visit, void *context);

typedef tandem_err (*td_visit_stream)(void *context, tandem_slice branch, tandem_slice scope,
                                      uint64_t operations);
/* The streams of a document in byte order of (branch, scope), without its lifecycle stream. */
tandem_err td_stream_index_streams(td_stream_index *index, tandem_slice collection,
                                   tandem_slice document, td_visit_stream visit, void *context);

/* The number of operations in a stream (0 if it does not exist). For scope `document` the branch is
 * ignored. */
tandem_err td_stream_index_count(td_stream_index *index, tandem_slice collection,
                                 tandem_slice document, tandem_slice branch, tandem_slice scope,
                                 uint64_t *out);

typedef tandem_err (*td_visit_entry)(void *context, const td_place *place, uint64_t ordinal);
/* Entries of a stream after a place, in total order; their hashes as td_place_with_hash() says, and the
 * place's, too. For scope `document` the branch is ignored. */
tandem_err td_stream_index_entries(td_stream_index *index, tandem_slice collection,
                                   tandem_slice document, tandem_slice branch, tandem_slice scope,
                                   const td_place *after, td_visit_entry visit, void *context);

/* How many entries of a stream are not after a place; it looks at each of them. Not for scope
 * `document`. */
tandem_err td_stream_index_rank(td_stream_index *index, tandem_slice collection,
                                tandem_slice document, tandem_slice branch, tandem_slice scope,
                                const td_place *place, uint64_t *out);

/*
 * Snapshots: the fold of a stream up to and including a place. Indexing an operation before that
 * place, or a change of the epoch, drops it, so what is found is always right.
 */
typedef struct td_snapshot {
    td_place place;         /* with its hash */
    uint64_t folded;        /* entries of the stream up to place */
    uint32_t model_version;
    tandem_slice bytes; /* valid until the next call on the index */
} td_snapshot;

/* The newest snapshot of a stream; TANDEM_E_NOT_FOUND if none (or of another model version). */
tandem_err td_stream_index_snapshot(td_stream_index *index, tandem_slice collection,
                                    tandem_slice document, tandem_slice branch,
                                    tandem_slice scope, uint32_t model_version, td_snapshot *out);
/* Keep a snapshot of a stream that exists. At most TD_SNAPSHOTS_MAX of a stream stay: they thin out
 * with age. TANDEM_E_NOT_FOUND if there is no such stream. */
enum { TD_SNAPSHOTS_MAX = 8 };
tandem_err td_stream_index_put_snapshot(td_stream_index *index, tandem_slice collection,
                                        tandem_slice document, tandem_slice branch,
                                        tandem_slice scope, const td_snapshot *snapshot);

/*
 * Does the index fit the operations store? Everything that it says of a document is derived again
 * from the operations: entries and their order, counts, position, life, epoch, models; and where
 * its snapshots stand. What a call looks at is one page, so that others get in between; the index is
 * current when the first call is made.
 *
 * collection   empty: what the index is made of beneath its tables (td_store_ops.check)
 * after        documents > after, documents_max of them
 * last_out     the page's last document, room for a name and a zero; more_out: go on after it
 * why          a sentence
 *
 * Errors: TANDEM_E_CORRUPT: it does not, as why says, and is unusable from now on; as when a record
 * of it cannot be read. Records of the operations store that cannot be read are passed over.
 */
enum { TD_INDEX_WHY_BYTES = 2 * TANDEM_NAME_BYTES_MAX + TD_STORE_WHY_BYTES };
tandem_err td_stream_index_verify(td_stream_index *index, tandem_slice collection,
                                  tandem_slice after, uint32_t documents_max,
                                  char last_out[TANDEM_NAME_BYTES_MAX + 1], bool *more_out,
                                  char why[TD_INDEX_WHY_BYTES]);

/* Counters for status and tests. */
typedef struct td_stream_index_stat {
    uint64_t position;         /* as advance gives it */
    uint64_t indexed;          /* operations since open */
    uint64_t waiting;          /* of them: to be settled */
    uint64_t corrupt;          /* records passed over since open */
    uint64_t bytes;
} td_stream_index_stat;
void td_stream_index_stat_get(td_stream_index *index, td_stream_index_stat *out);
/* Up to where it is indexed. It goes back where a write fails: what was not committed is undone then,
 * also by a snapshot for which there was no room. */
uint64_t td_stream_index_position(const td_stream_index *index);

#endif
