/*
 * The document view: an actor that keeps the stream index current and folds documents when asked.
 *
 * Folding is lazy: nothing is folded on the way of an operation into the store. A fold starts at
 * the newest snapshot before what changed, applies the entries after it in total order, and leaves
 * a snapshot behind when it was long. Operations of another model than the document's, operations
 * outside its lifetime, and payloads that fail the bounded reader are no-ops.
 *
 * The view indexes on demand (a request names the position that it must see) and otherwise in
 * batches behind the executor, TD_VIEW_PAUSE_MS after a commit, with all that came meanwhile: who
 * commits one by one need not wake it each time. While somebody waits there is no pause. What is indexed
 * is settled (store/stream_index.h) TD_VIEW_COMMIT_MS after the first of it, or once it is much, in
 * slices between which requests get in. An index that cannot be opened or written is dropped and
 * rebuilt.
 *
 * Requests: the caller fills one, posts it with td_document_view_post() and gets done() exactly
 * once, on the view's thread (err TANDEM_E_CLOSED if the view is closed or freed first); done may
 * free it. All slices in a request are the caller's and stay valid until done. Posting resets the
 * answer: to post a request again, release its out before.
 *
 * Threads: td_document_view_post() and _committed() from any thread.
 */
#ifndef TANDEM_REACTOR_DOCUMENT_VIEW_H
#define TANDEM_REACTOR_DOCUMENT_VIEW_H

#include "reactor/actor.h"
#include "reactor/local_job.h"
#include "reactor/model_registry.h"
#include "store/stream_index.h"

enum {
    TD_VIEW_BATCH = 2048, /* operations between which requests get in */
    /*
     * A document that many operations change is written once each time: fewer times, less writing. What
     * was not is indexed again after a crash.
     */
    TD_VIEW_COMMIT_MS = 1000,
    TD_VIEW_PAUSE_MS = 10,
    TD_VIEW_STATES_MAX = 64,
};

typedef struct td_document_view td_document_view;

/* How the view gets an index: opens one, after dropping what is there if drop is true. */
typedef tandem_err (*td_index_open_fn)(void *context, bool drop, td_store **out);

/*
 * Open the view on a host; it indexes what is not indexed yet.
 *
 * ops, registry   borrowed, outlive it
 * indexed         called on the view's thread after each batch: everything up to position is
 *                 indexed (the executor's brake, waiting reads); may be NULL
 */
tandem_err td_document_view_open(td_host *host, td_op_store *ops,
                                 const td_model_registry *registry, td_index_open_fn index_open,
                                 void *index_context, void (*indexed)(void *, uint64_t position),
                                 void *indexed_context, td_document_view **out);
/*
 * Before its host is stopped: on the view's own thread, commit the index and let go of it, and wait
 * for that. From then on requests are answered with TANDEM_E_CLOSED. LMDB wants a transaction ended
 * by the thread that began it. Not from within the host; in the simulation not from a handler.
 */
void td_document_view_close(td_document_view *view);
/*
 * Only once its host has stopped: answers what waits with TANDEM_E_CLOSED. Without a close before,
 * it is as if the process had ended: what was indexed since the last commit is indexed again next
 * time. NULL is fine.
 */
void td_document_view_free(td_document_view *view);

/* Tell it that everything up to position is committed; newer replaces older. */
void td_document_view_committed(td_document_view *view, uint64_t position);

typedef enum td_view_kind {
    TD_VIEW_PREPARE,   /* check and prepare a local group */
    TD_VIEW_READ,      /* fold one document */
    TD_VIEW_DOCUMENTS, /* a page of documents */
    TD_VIEW_STREAM,    /* a page of one stream's operations in total order; empty if not known */
    TD_VIEW_STREAMS,   /* all streams of a document, its lifecycle stream (branch "") first; none if
                        * it is not known */
    TD_VIEW_HEAD,      /* info of a document, live or not; TANDEM_OK if it is not known either */
    TD_VIEW_STATES,    /* a digest over the states of a collection; it lets other requests in
                        * between, so operations that are indexed meanwhile may or may not count */
    TD_VIEW_WAIT,      /* nothing: done when position is indexed */
    TD_VIEW_STAT,      /* index position and sizes */
    TD_VIEW_VERIFY,    /* a page of td_stream_index_verify(); on TANDEM_E_CORRUPT the index is dropped
                        * and built anew */
} td_view_kind;

typedef struct td_view_request td_view_request;
struct td_view_request {
    td_message message; /* the view's */
    bool retried;       /* the view's */
    td_view_kind kind;
    uint64_t position; /* what must be indexed first; waits until it is committed */
    void (*done)(td_view_request *request);
    void *context; /* the caller's */

    tandem_slice collection;
    tandem_slice document;
    tandem_slice branch; /* READ: "main" if empty */
    tandem_slice scope;  /* READ: "global" if empty */
    tandem_slice after;  /* DOCUMENTS, VERIFY: name of the last one seen */
    bool has_after_place; /* STREAM: go on after this place */
    td_place after_place;
    uint32_t limit;        /* DOCUMENTS, STREAM, VERIFY: entries of this page, 1 to 1,000 */

    /* PREPARE; its payloads, jobs' answers, err and why are filled, the latter as the request's. */
    td_local_group *group;
    bool again; /* PREPARE: what was found before did not hold; it goes before others that wait */

    /* The answer: */
    tandem_err err;
    char why[TD_WHY_BYTES];
    td_document_info info; /* READ (even if it fails), HEAD, STREAMS */
    uint64_t operations;   /* READ: lifecycle and stream entries that the state is the fold of */
    uint64_t documents;    /* STATES: live documents */
    uint64_t next_index; /* STREAM: in: index of the first entry (1: the first page); out: next */
    uint8_t digest[TANDEM_HASH_BYTES]; /* STATES */
    td_stream_index_stat stat; /* STAT */
    uint64_t folded;           /* STAT: entries applied to states since the view was opened */
    /* READ: the state in canonical msgpack. DOCUMENTS: an array per document [name, model,
     * operations, deleted], one after the other. STREAM: an array per operation [index, ordinal,
     * canonical bytes (bin), hash (bin)]. STREAMS: an array per stream [branch, scope, operations].
     * To be released by whoever made the request. */
    tandem_writer out;
    bool rebuilt; /* VERIFY: the index was damaged when it was opened or read, and was built anew:
                   * told once */
    bool damaged; /* VERIFY, TANDEM_E_CORRUPT: it is the index, not the operations store */
    bool more; /* DOCUMENTS, STREAM, VERIFY: another page may follow; after or after_place is set
                * for it */
    uint64_t corrupt; /* STREAM, TANDEM_E_CORRUPT: the ordinal of the page's first record, which is;
                       * the next page goes on behind it. 0: something else is */
    char after_name[TANDEM_NAME_BYTES_MAX + 1]; /* DOCUMENTS, VERIFY: the last name of the page */
};

void td_document_view_post(td_document_view *view, td_view_request *request);

#endif
