/*
 * The reactor: an embedded database of documents. Open it, execute jobs on it, read what the
 * operations fold to. Syncing with others is sync/sync.h.
 *
 * Threads. The library runs threads of its own: one commits, one folds, one carries the network and
 * every callback. The one that folds steps back where processors are short: its nice value is 10 more
 * than that of the thread that opened the reactor. An embedder may instead drive the last of these (options.drive): then callbacks
 * run inside tandem_poll() only, called whenever tandem_fd() is readable or tandem_timeout_ms() has
 * passed, from one thread. Calls may be made from any thread, but not from inside a model. One that
 * executes while the thread that commits has nothing to do may do the commit itself, its signals
 * blocked: it needs a stack of 64 KiB.
 *
 * Strings are UTF-8 and NUL-terminated. A name (collection, document, branch, scope, type) is 1 to
 * 128 bytes without control characters; a collection's does not begin with '_'. What goes in is
 * borrowed for the call; what comes out says whose it is.
 *
 * A position is an ordinal: "everything committed here up to it". It is local to this store.
 */
#ifndef TANDEM_REACTOR_REACTOR_H
#define TANDEM_REACTOR_REACTOR_H

#include "../store/bytes.h"
#include "../store/log.h"
#include "../store/error.h"
#include "event.h"
#include "json.h"
#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tandem_reactor tandem_reactor;

/* Names are not NUL-terminated here. */
typedef struct tandem_operation {
    uint64_t ordinal;
    uint64_t index; /* from 1, in its stream; 0 when iterating a whole collection */
    uint64_t seq;
    uint64_t hlc;
    const uint8_t *origin;
    const uint8_t *hash;
    tandem_slice collection, document, branch, scope, type;
    tandem_slice payload; /* msgpack */
    tandem_slice canonical;
    bool counts; /* of a document: it is of the document's present life and model */
} tandem_operation;

/*
 * Is an operation that a peer has sent to be taken? false: its whole job is refused for good, by
 * TANDEM_E_REFUSED. It is recorded as lacking, what comes behind it goes on, and the peer keeps it as a
 * dead letter. What this reactor executes itself is not asked about, nor what it holds already.
 *
 * operation  borrowed for the call; ordinal and index are 0, counts is false
 * Called on the thread that commits: be quick, and call nothing of this library but what reads bytes.
 */
typedef bool (*tandem_admit_fn)(void *context, const tandem_operation *operation);

typedef struct tandem_options {
    size_t size;      /* sizeof(tandem_options): lets the struct grow */
    const char *path; /* the data folder; NULL: in memory, gone at close */
    bool must_exist;  /* do not create the folder */
    bool drive;       /* the embedder drives the loop, see above */
    tandem_log_fn log; /* NULL: silent; called from any of the library's threads */
    void *log_context;
    tandem_log_level log_level;
    const tandem_model *const *models; /* of one's own, beside the built-in ones */
    size_t model_count;                /* borrowed until close */
    uint64_t max_clock_skew_ms;        /* 0: five minutes */
    bool check; /* look at all of the folder's files before they are used: what is damaged there is
                 * an error instead of the end of the process; takes as long as reading them */
    tandem_admit_fn admit; /* NULL: everything is taken */
    void *admit_context;
} tandem_options;

#define TANDEM_OPTIONS_INIT                                                                        \
    {                                                                                              \
        .size = sizeof(tandem_options), .log_level = TANDEM_LOG_WARNING                            \
    }

/*
 * Open a reactor, creating its folder if need be.
 *
 * options  NULL: in memory, all defaults
 * Errors:  TANDEM_E_LOCKED (another process has it), TANDEM_E_NOT_FOUND (must_exist),
 *          TANDEM_E_FORMAT, TANDEM_E_FORMAT_NEWER, TANDEM_E_CORRUPT, TANDEM_E_PERMISSION,
 *          TANDEM_E_STORE_FULL, TANDEM_E_IO, TANDEM_E_INVALID (a model, options.size), TANDEM_E_NOMEM.
 */
TANDEM_API tandem_err tandem_open(const tandem_options *options, tandem_reactor **out);

/*
 * Close: what was accepted is committed or answered, then everything stops. After it returns no
 * callback runs; where the embedder drives, callbacks that are still due run inside it. Subscriptions
 * end with it. Its sync (sync/sync.h) and iterators must be closed before. NULL is fine. Not from
 * inside a callback.
 */
TANDEM_API void tandem_close(tandem_reactor *reactor);

/* The version of the library, "0.1.0". Static. */
TANDEM_API const char *tandem_version(void);

/* 16 bytes each: who this reactor is, and under which origin it writes, now: a reactor may take
 * another one (store/incarnation.h). What is returned stays as it is until close. */
TANDEM_API const uint8_t *tandem_reactor_id(const tandem_reactor *reactor);
TANDEM_API const uint8_t *tandem_reactor_origin(const tandem_reactor *reactor);

/*
 * Withdraw all refusals: what was refused is asked for again, of whoever holds it, and options.admit
 * is asked once more. TANDEM_OK once that is durable; the errors of the disk; TANDEM_E_OUTCOME_UNKNOWN:
 * the disk does not tell, it may be withdrawn.
 */
TANDEM_API tandem_err tandem_withdraw_refusals(tandem_reactor *reactor);

/* ---- Writing ---- */

/* One operation to execute. */
typedef struct tandem_input {
    const char *scope;  /* NULL: "global" */
    const char *type;   /* "SET" or "kv.SET" */
    tandem_slice input; /* one msgpack value; or */
    const char *json;   /* the same as JSON text, used if not NULL */
} tandem_input;

/* One job: operations on one document and branch, all or none. */
typedef struct tandem_job {
    const char *collection;
    const char *document;
    const char *branch; /* NULL: "main" */
    const char *model;  /* for a document that is new; may be NULL if a type names it */
    const tandem_input *operations;
    size_t count; /* 1 to 999 */
    /* Only if the document is still at this position: the ordinal of its newest operation, as
     * tandem_document_read() and receipts give it; 0 for one that is not known yet. */
    bool has_expect;
    uint64_t expect_position;
} tandem_job;

/* What a job became: its last operation. */
typedef struct tandem_receipt {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint8_t hash[TANDEM_HASH_BYTES];
    uint64_t first_seq; /* of its first operation (a CREATE, if the document was new) */
    uint64_t seq;
    uint64_t ordinal; /* the position to wait for elsewhere in this process */
    uint64_t hlc;
} tandem_receipt;

enum { TANDEM_WHY_BYTES = 128 };

/*
 * Execute a job and wait until it is on disk.
 *
 * receipt  may be NULL
 * why      room for a sentence of TANDEM_WHY_BYTES that says what is wrong; may be NULL
 * Errors:  TANDEM_E_INVALID (a name is missing, or is none), TANDEM_E_CONFLICT (expect),
 *          TANDEM_E_INPUT, TANDEM_E_PAYLOAD, TANDEM_E_LIMIT, TANDEM_E_MODEL_UNKNOWN,
 *          TANDEM_E_MODEL_MISMATCH, TANDEM_E_UNSUPPORTED (a reserved name), TANDEM_E_STORE_FULL,
 *          TANDEM_E_IO, TANDEM_E_CLOSED, TANDEM_E_NOMEM: with all of these nothing was written.
 *          TANDEM_E_OUTCOME_UNKNOWN: the disk failed at the commit, and for 10 s (or until the
 *          reactor was closed) so that it could not be looked at: the job is there whole, or not at
 *          all. Read the document before you execute it again.
 */
TANDEM_API tandem_err tandem_execute(tandem_reactor *reactor, const tandem_job *job,
                                     tandem_receipt *receipt, char why[TANDEM_WHY_BYTES]);

/*
 * Execute count (1 to 1,000) jobs as one group: one commit, all or none.
 *
 * receipts     count of them, or NULL
 * failed       receives the index of the job that the error is about; may be NULL
 * Errors as tandem_execute(); TANDEM_E_INVALID also for a count out of range, TANDEM_E_LIMIT for more
 * than 1,000 scopes of documents whose model looks at their state, as text does.
 */
TANDEM_API tandem_err tandem_execute_group(tandem_reactor *reactor, const tandem_job *jobs,
                                           size_t count, tandem_receipt *receipts, size_t *failed,
                                           char why[TANDEM_WHY_BYTES]);

/* Called once, on the loop; receipt and why are borrowed for the call. */
typedef void (*tandem_executed_fn)(void *context, tandem_err err, const tandem_receipt *receipt,
                                   const char *why);

/* Execute without waiting. On an error from the call itself, done is not called. Jobs that are under
 * way together are each committed whole, those on one document in the order of the calls, others in any
 * order. */
TANDEM_API tandem_err tandem_execute_async(tandem_reactor *reactor, const tandem_job *job,
                                           tandem_executed_fn done, void *context);

/* Delete a document: its scopes start from empty if it is created again. TANDEM_E_NOT_FOUND, and as
 * tandem_execute(). */
TANDEM_API tandem_err tandem_delete(tandem_reactor *reactor, const char *collection,
                                    const char *document, tandem_receipt *receipt,
                                    char why[TANDEM_WHY_BYTES]);

/* ---- Reading ---- */

typedef struct tandem_document tandem_document;

/*
 * Read a document's state as of everything committed when the call began.
 *
 * branch, scope   NULL: "main", "global"
 * timeout_ms      how long the index may take to catch up; UINT64_MAX: for ever
 * Errors: TANDEM_E_NOT_FOUND (unknown, deleted), TANDEM_E_MODEL_UNKNOWN, TANDEM_E_CORRUPT,
 *         TANDEM_E_TIMEOUT, TANDEM_E_CLOSED, TANDEM_E_NOMEM.
 */
TANDEM_API tandem_err tandem_document_read(tandem_reactor *reactor, const char *collection,
                                           const char *document, const char *branch,
                                           const char *scope, uint64_t timeout_ms,
                                           tandem_document **out, char why[TANDEM_WHY_BYTES]);

/* Borrowed from the document, which is freed with tandem_document_free() (NULL is fine). */
TANDEM_API const char *tandem_document_model(const tandem_document *document);
TANDEM_API tandem_slice tandem_document_state(const tandem_document *document); /* msgpack */
TANDEM_API const char *tandem_document_json(const tandem_document *document); /* NULL: no memory */
/* How many operations the state is the fold of: those of the scope and the document's lifecycle. */
TANDEM_API uint64_t tandem_document_operations(const tandem_document *document);
/* The ordinal of the document's newest operation on any branch: what expect_position compares. Its
 * origin and seq: the same operation. */
TANDEM_API uint64_t tandem_document_position(const tandem_document *document);
TANDEM_API uint64_t tandem_document_seq(const tandem_document *document);
TANDEM_API const uint8_t *tandem_document_origin(const tandem_document *document);
TANDEM_API void tandem_document_free(tandem_document *document);

/*
 * The newest operation held of a document, on any branch, whether the document is live or not: its
 * ordinal, seq and origin. All zero (and TANDEM_OK) for a document that is not known. Each out may be
 * NULL. Waits for the index as tandem_document_read() does.
 */
TANDEM_API tandem_err tandem_document_head(tandem_reactor *reactor, const char *collection,
                                           const char *document, uint64_t timeout_ms,
                                           uint64_t *ordinal_out, uint64_t *seq_out,
                                           uint8_t origin_out[TANDEM_ORIGIN_BYTES]);

typedef struct tandem_documents tandem_documents;

typedef struct tandem_document_entry {
    const char *document;
    const char *model; /* "" if its CREATE is not held */
    uint64_t operations;
    bool deleted;
} tandem_document_entry;

/* Iterate the documents of a collection in byte order; fetched in pages, so what is written
 * meanwhile may or may not appear. One thread at a time. */
TANDEM_API tandem_err tandem_documents_open(tandem_reactor *reactor, const char *collection,
                                            tandem_documents **out);
/* TANDEM_OK and an entry that is valid until the next call; TANDEM_END; errors as tandem_document_read(). */
TANDEM_API tandem_err tandem_documents_next(tandem_documents *documents,
                                            tandem_document_entry *entry);
TANDEM_API void tandem_documents_free(tandem_documents *documents); /* NULL is fine */

typedef struct tandem_operations tandem_operations;

/*
 * Iterate operations: of a whole collection in order of arrival, or of one document (document not
 * NULL) in total order, all its branches and scopes together.
 *
 * after    only operations with an ordinal above it (a filter, where a document is named)
 */
TANDEM_API tandem_err tandem_operations_open(tandem_reactor *reactor, const char *collection,
                                             const char *document, uint64_t after,
                                             tandem_operations **out);
/* TANDEM_OK and an operation that is valid until the next call; TANDEM_END when there is none now (a
 * later call may give more, where no document is named); TANDEM_E_CORRUPT for a record that does not
 * verify, ordinal being filled; the next call goes on behind it. */
TANDEM_API tandem_err tandem_operations_next(tandem_operations *operations,
                                             tandem_operation *operation);
TANDEM_API void tandem_operations_free(tandem_operations *operations); /* NULL is fine */

typedef struct tandem_collection_entry {
    const char *name; /* borrowed for the call */
    uint64_t operations;
    uint64_t last_ordinal;
} tandem_collection_entry;

/* Visit the collections in byte order; a visitor returns TANDEM_OK to go on, TANDEM_END to stop, an
 * error to have it returned. Else TANDEM_E_IO, TANDEM_E_CORRUPT, TANDEM_E_NOMEM. */
TANDEM_API tandem_err tandem_collections(tandem_reactor *reactor,
                                         tandem_err (*visit)(void *context,
                                                             const tandem_collection_entry *entry),
                                         void *context);

/* ---- Positions and events ---- */

/* The position of the newest commit. TANDEM_E_INVALID: an argument is NULL. */
TANDEM_API tandem_err tandem_position(tandem_reactor *reactor, uint64_t *out);

/* Wait until a position is committed and readable everywhere in this reactor. TANDEM_E_TIMEOUT. */
TANDEM_API tandem_err tandem_wait(tandem_reactor *reactor, uint64_t position, uint64_t timeout_ms);

typedef struct tandem_subscription tandem_subscription;

/*
 * Be told of commits: "everything up to position is committed". Newer positions replace older ones,
 * so a slow subscriber sees fewer calls and never a queue. On the loop.
 */
TANDEM_API tandem_err tandem_subscribe(tandem_reactor *reactor,
                                       void (*committed)(void *context, uint64_t position),
                                       void *context, tandem_subscription **out);
/*
 * Be told that a document has changed: that operations of it arrived, in any scope of any branch,
 * since the subscription was made, and can be read. position is that of the newest one, as
 * tandem_document_position() gives it, or 0 if the index could not be asked: reading tells why, and
 * it is asked again after the next commit.
 *
 * Changes are no queue: those that come while a subscriber is busy are one call, after the last of
 * them. The document need not exist. On the loop: a callback may read, and holds up the network as
 * long as it does. TANDEM_E_INVALID: an argument is NULL or no name. TANDEM_E_NOMEM.
 */
TANDEM_API tandem_err tandem_subscribe_document(tandem_reactor *reactor, const char *collection,
                                                const char *document,
                                                void (*changed)(void *context, uint64_t position),
                                                void *context, tandem_subscription **out);
/* Be told of what else happens (event.h). On the loop; event is borrowed for the call.
 * TANDEM_E_NOMEM. */
TANDEM_API tandem_err tandem_watch(tandem_reactor *reactor,
                                   void (*happened)(void *context, const tandem_event *event),
                                   void *context, tandem_subscription **out);
/* Of any kind. After it returns the callback does not run. NULL is fine. */
TANDEM_API void tandem_unsubscribe(tandem_subscription *subscription);

/* ---- Care ---- */

typedef struct tandem_digest {
    uint64_t operations;
    uint64_t documents; /* live ones */
    uint8_t vector_digest[TANDEM_HASH_BYTES];
    uint8_t state_digest[TANDEM_HASH_BYTES];
    bool partial; /* it is held in part: some of it came through a filter (tandem_share), and the rest
                     is not here */
} tandem_digest;

/* Reactors that hold the same print the same. Waits for the index to be current. TANDEM_E_NOT_FOUND,
 * TANDEM_E_TIMEOUT, TANDEM_E_CORRUPT, TANDEM_E_CLOSED, TANDEM_E_NOMEM. */
TANDEM_API tandem_err tandem_digest_collection(tandem_reactor *reactor, const char *collection,
                                               uint64_t timeout_ms, tandem_digest *out,
                                               char why[TANDEM_WHY_BYTES]);

/*
 * Re-read the operations and the index. TANDEM_E_CORRUPT if anything is wrong: then report was
 * called for each thing, with a sentence borrowed for the call. A damaged index is told and built
 * anew. Where the store's file is damaged beneath its records, they are not read. Open with
 * options.check to have that found before anything reads there. What sync keeps:
 * tandem_sync_verify().
 */
TANDEM_API tandem_err tandem_verify(tandem_reactor *reactor,
                                    void (*report)(void *context, const char *text), void *context);

typedef struct tandem_stat {
    uint64_t operations;
    uint64_t bytes;       /* of the operations store on disk or in memory */
    uint64_t index_bytes;
    uint64_t position;
    uint64_t index_lag;   /* operations committed and not indexed yet */
    uint64_t quarantined; /* records found corrupt and never sent or folded, since open */
    tandem_err store_err; /* why writing does not work at present; TANDEM_OK: it does */
    uint32_t incarnation; /* which origin this is since the store was created: 1, 2, … */
    tandem_incarnation_reason incarnation_reason;
    uint64_t incarnation_since_ms; /* wall clock, since 1970 */
    uint64_t forks; /* origins that have more than one head, counted in each collection */
    uint64_t quarantined_origins; /* those of them with as many as can be: a further one is refused */
    uint64_t events[TANDEM_EVENT_KINDS + 1]; /* by kind, since open */
    uint64_t lacks;   /* ranges of chains that are lacking here and wanted … */
    uint64_t refused; /* … and those that were refused: options.admit */
    uint64_t partial_collections; /* held in part: see tandem_digest */
    uint64_t commits; /* groups of operations committed since open: how many shared a flush */
    uint64_t folded; /* operations applied to states since open: the work that showing documents was */
} tandem_stat;

/* TANDEM_E_INVALID: an argument is NULL. Figures of different moments may not add up. */
TANDEM_API tandem_err tandem_stat_get(tandem_reactor *reactor, tandem_stat *out);

/* An origin that has more than one head in a collection. */
typedef struct tandem_fork {
    const char *collection; /* borrowed for the call */
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint32_t heads;
    bool is_quarantined; /* as many as can be: operations that would make one more are refused */
} tandem_fork;

/* The first max origins that have forked, as of the last commit. The visitor may not call back into
 * the reactor; what it returns but TANDEM_OK ends the call, which then returns that. */
TANDEM_API tandem_err tandem_forks(tandem_reactor *reactor, size_t max,
                                   tandem_err (*visit)(void *context, const tandem_fork *fork),
                                   void *context);

/* ---- Driving the loop (options.drive) ---- */

/* A descriptor that is readable when there is work, valid until close; -1 if the library drives. */
TANDEM_API int tandem_fd(tandem_reactor *reactor);
/* Milliseconds until tandem_poll() is due even if nothing is readable; -1: no timer. */
TANDEM_API int tandem_timeout_ms(tandem_reactor *reactor);
/* Do what is due, without waiting; callbacks run inside. TANDEM_E_STATE if the library drives. */
TANDEM_API tandem_err tandem_poll(tandem_reactor *reactor);

#ifdef __cplusplus
}
#endif

#endif
