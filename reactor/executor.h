/*
 * The executor: the one writer of the operations store. An actor that drains its queue and commits
 * groups: one transaction, one flush for many jobs, jobs whole. Whatever is queued when a commit ends
 * goes into the next, within TD_GROUP_OPERATIONS_MAX and TD_GROUP_BYTES_MAX.
 *
 * Local jobs are first checked and prepared by the document view, then given seq, predecessor, HLC
 * and hash inside the transaction. Those on documents that the executor knows by itself it prepares on
 * the spot, which saves two wake-ups (known.h). Between the two the document may have changed: the executor
 * remembers which documents the operations touched that the view had not indexed, and has a group
 * prepared again where that matters (a CREATE, an expected position, a payload that depends on the
 * state). Remote jobs carry canonical bytes and go straight in; where many wait, those that come are parsed
 * and hashed by their sender.
 *
 * A request is answered only after its commit is on disk. A commit that fails has an unknown
 * outcome: the store is closed and reopened, and what it then holds decides the answers. Where that
 * does not work either, the group's requests wait until it does: it is tried again every second, and
 * nothing else is appended before. What comes meanwhile is refused with the disk's error, and is
 * nowhere. After TD_OUTCOME_MS local ones are answered TANDEM_E_OUTCOME_UNKNOWN, and when somebody
 * closes all are; any other error means that nothing of the request was written.
 *
 * Threads: td_executor_local(), _remote(), _indexed() and the getters from any thread; done runs on
 * the executor's.
 */
#ifndef TANDEM_REACTOR_EXECUTOR_H
#define TANDEM_REACTOR_EXECUTOR_H

#include "reactor/admission.h"
#include "reactor/clock.h"
#include "reactor/document_view.h"
#include "reactor/event_bus.h"

enum {
    /* Of a flush more would save little, and who waits for the group behind it would wait longer. */
    TD_GROUP_OPERATIONS_MAX = 1024,
    TD_GROUP_BYTES_MAX = 4 * 1024 * 1024,
    TD_INDEX_LAG_MAX = 100000, /* operations; past it remote jobs wait for the index */
    TD_PREPARE_ATTEMPTS_MAX = 100,
    TD_INCARNATION_MS = 60000,
    TD_OUTCOME_MS = 10000, /* so long a local request waits to learn what a failed commit has come to */
};

typedef struct td_executor td_executor;

/* A local group on its way; see local_job.h. */
typedef struct td_local_request td_local_request;
struct td_local_request {
    td_message message;      /* the executor's */
    td_view_request prepare; /* the executor's */
    td_executor *executor;   /* the executor's */
    td_local_request *next;  /* the executor's */
    uint32_t attempts;       /* the executor's */
    /* Without jobs it changes nothing: it is answered after what was posted before it and is not
     * prepared again meanwhile. */
    td_local_group group;
    /* Exactly once; group.err tells. May free the request. */
    void (*done)(td_local_request *request);
    void *context;
};

/* A range to be recorded as lacking: nobody who was asked holds it, or it was refused by the store that
 * this one is restored from (lack.reason). All borrowed. */
typedef struct td_wanted {
    tandem_slice collection;
    const uint8_t *origin;
    td_lack lack;
} td_wanted;

/* Up to where all of an origin that matches a filter is held. All borrowed. */
typedef struct td_covered {
    tandem_slice collection, filter;
    const uint8_t *origin;
    const td_head *heads;
    unsigned count;
} td_covered;

/* A remote job: operations as they came. */
typedef struct td_remote_job {
    tandem_slice operations; /* count bins, one after the other, each canonical bytes */
    uint32_t count;
    const td_wanted *wanted; /* not NULL: there are no operations, this is to be recorded … */
    const td_covered *covered; /* … or this */
    td_operation *given; /* all of them, by whoever has parsed them already, in the request's memory; or NULL */
    bool hashed;         /* the executor's: those are; as what follows */
    const td_operation *parsed;
    tandem_err parse_err;
    /* The answer: */
    tandem_err err;
    uint64_t detail; /* TANDEM_E_CLOCK: the HLC to wait for */
    td_append_result result;
} td_remote_job;

typedef struct td_remote_request td_remote_request;
struct td_remote_request {
    td_message message;      /* the executor's */
    td_remote_request *next; /* the executor's */
    struct td_executor *executor; /* the executor's, as what follows: operations parsed ahead */
    td_operation *parsed;
    uint64_t parsed_count;
    td_remote_job *jobs;
    uint32_t count;
    /* They come from a backup: taken whatever their date, but the clock does not follow one that is
     * too far ahead. */
    bool restored;
    bool part; /* they came through a filter: their predecessors need not be held */
    bool withdraw; /* there are no jobs: want all that was refused; err is the answer */
    tandem_err err;
    uint64_t withdrawals; /* td_executor_withdrawals() when its jobs were looked at */
    /* Exactly once. Each job's err tells; may free the request. */
    void (*done)(td_remote_request *request);
    void *context;
};

/*
 * host     a worker of its own
 * ops      borrowed, as are models, view and bus; the view is set before the first request
 */
tandem_err td_executor_open(td_host *host, td_op_store *ops, const td_model_registry *models,
                            td_event_bus *bus, uint64_t max_clock_skew_ms, td_executor **out);
void td_executor_set_view(td_executor *executor, td_document_view *view);
/* Before the first request, too. What is not admitted is refused for good. */
void td_executor_set_admission(td_executor *executor, const td_admission *admission);
/* Once its host and the view's have stopped and the view is freed: what waits gets
 * TANDEM_E_CLOSED, or TANDEM_E_OUTCOME_UNKNOWN if its commit has failed. NULL is fine. */
void td_executor_free(td_executor *executor);

void td_executor_local(td_executor *executor, td_local_request *request);
/* The same for somebody who waits for a reply that done sets: td_actor_ask(). */
tandem_err td_executor_local_ask(td_executor *executor, td_local_request *request, td_reply *reply);
void td_executor_remote(td_executor *executor, td_remote_request *request);

/*
 * Take a new origin: soon, but none sooner than TD_INCARNATION_MS after the last one for that reason,
 * so that a hostile peer cannot have a reactor shed origins. Reasons do not wait for each other: a
 * copy often hears its chain continued just before it is told that it is one, and only then gets a
 * reactor id that it can sync with. Jobs go on meanwhile. COPIED brings a new reactor id, too; CLOCK
 * sets the clock back to the wall clock, and is forgotten if it is not ahead any more.
 *
 * By itself the executor does so when operations come under its origin that it did not write.
 */
void td_executor_reincarnate(td_executor *executor, tandem_incarnation_reason reason);

/* A peer has told its HLC. If ours is further ahead of it, and of our own time, than operations may
 * be, then no peer takes what we write: TANDEM_INCARNATION_CLOCK. From any thread. */
void td_executor_peer_clock(td_executor *executor, uint64_t hlc);

/* Somebody closes: what waits to learn what a failed commit has come to is answered after one more
 * look. */
void td_executor_give_up(td_executor *executor);

/* The view has indexed everything up to position. */
void td_executor_indexed(td_executor *executor, uint64_t position);

/* The last committed ordinal. */
uint64_t td_executor_position(td_executor *executor);
/* The HLC now, and the smallest HLC that a future operation of this reactor can have. */
uint64_t td_executor_clock(td_executor *executor);
/* Origins that have more than one head, counted in each collection. */
uint64_t td_executor_forks(td_executor *executor);
/* How often refusals were, or may have been, withdrawn since it was opened: TANDEM_EVENT_WITHDRAWAL tells
 * of each afterwards. From any thread. */
uint64_t td_executor_withdrawals(td_executor *executor);
/* Those of them that have as many as can be: a further one is refused. */
uint64_t td_executor_quarantined_origins(td_executor *executor);
/* Groups that were committed and had operations in them, since it was opened. From any thread. */
uint64_t td_executor_commits(td_executor *executor);
/* Why writing does not work at present; TANDEM_OK: it does. */
tandem_err td_executor_store_err(td_executor *executor);

#endif
