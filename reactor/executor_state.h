/*
 * What the parts of the executor share: `executor.c`, the actor and its requests; `append.c`, what a job
 * becomes in the open transaction; `group_commit.c`, one commit for many requests, and what a failed one
 * has come to; `reincarnation.c`, new origins.
 *
 * Threads: the executor's, but for what is atomic.
 */
#ifndef TANDEM_REACTOR_EXECUTOR_STATE_H
#define TANDEM_REACTOR_EXECUTOR_STATE_H

#include "reactor/executor.h"
#include "reactor/known.h"
#include "reactor/recent.h"

enum { TD_MEND_MS = 1000 }; /* after a failure writing is tried again */

/* A request that takes part in the open group, in order: either kind. */
typedef struct td_member {
    td_local_request *local;
    td_remote_request *remote;
} td_member;

struct td_executor {
    td_actor *actor;
    td_op_store *ops;
    td_event_bus *bus;
    td_document_view *view;
    const td_model_registry *models;
    tandem_env *env;
    uint64_t max_clock_skew_ms;
    td_admission admission;
    td_clock clock;
    td_recent recent;
    td_known known;
    bool open; /* a group is */
    uint64_t group_base; /* the last ordinal before it */
    uint32_t group_operations;
    uint64_t group_bytes;
    uint64_t group_forks;     /* origins of which it makes a fork */
    uint64_t group_quarantined;      /* origins that can have no further head after it */
    tandem_event group_event; /* its last fork; kind 0: none */
    bool group_has_own;       /* it holds operations of our origin that others wrote */
    td_member *members;
    size_t member_count, member_capacity;
    /* The last group's commit failed, and whether it happened could not be looked up yet: nothing is
     * appended before that. The members are its own, until it is told that nobody knows. */
    bool is_unsettled;
    uint64_t unsettled_ordinal; /* that it would have reached */
    tandem_err unsettled_err;   /* what the commit failed with … */
    uint64_t unsettled_ms;      /* … and when */
    td_remote_request *held, **held_end; /* wait for the index */
    atomic_bool holds; /* some are: then it is told how far the index is */
    _Atomic uint64_t waiting_jobs; /* of requests of peers that are posted and not taken yet */
    _Atomic uint64_t parsed_ahead; /* operations that their senders parsed, and that are not answered */
    td_operation *parsed;                /* room for one job */
    tandem_writer encoded;               /* one local job's canonical bytes */
    _Atomic uint64_t indexed;
    atomic_bool indexed_posted;
    td_message indexed_message;
    td_message mend_message;
    bool mend_timed;
    td_message check_message;
    atomic_bool give_up_posted;
    td_message give_up_message;
    /* The reasons for which a new origin is to be taken, TD_REASON() of each; when the last ones were. */
    atomic_uint reincarnation;
    uint64_t reincarnated_ms[TANDEM_INCARNATION_CLOCK + 1]; /* by reason */
    uint32_t incarnation; /* in which the clock runs */
    uint32_t tried_from; /* the incarnation that a commit of unknown outcome was to end; 0: none */
    tandem_incarnation_reason tried_for;
    atomic_bool reincarnate_posted;
    td_message reincarnate_message;
    bool reincarnate_timed;
    td_message reincarnate_later;
    _Atomic uint64_t forks, quarantined_origins, withdrawals, commits;
    _Atomic uint64_t position;
    _Atomic int store_err;
};

/* ---- Groups (group_commit.c) ---- */

/* Open a group, if none is: for that, what a failed commit has come to must be known. */
tandem_err td_group_begin(td_executor *executor);
void td_group_add(td_executor *executor, td_member member);
void td_group_commit(td_executor *executor);
void td_group_abort(td_executor *executor);
tandem_err td_group_settle(td_executor *executor);
void td_group_give_up(td_executor *executor, bool all);
/* Writing does not work; it is tried again after TD_MEND_MS. */
void td_store_failed(td_executor *executor, tandem_err err);

void td_answer_local(td_local_request *request, tandem_err err);
void td_answer_remote(td_remote_request *request, tandem_err err);
void td_answer_members(td_executor *executor, tandem_err err);

/* ---- Appending (append.c) ---- */

/* Errors after which the open group must be aborted and the store recovered. */
static inline bool td_is_fatal(tandem_err err)
{
    return err == TANDEM_E_STORE_FULL || err == TANDEM_E_IO || err == TANDEM_E_NOMEM;
}

tandem_err td_append_local(td_executor *executor, td_local_request *request);
/* Parse and hash all of a request that is not posted yet, on its sender's thread. What is not, because
 * much is already, for want of memory, or because its jobs are not as they say, the executor parses by
 * itself. */
void td_parse_remote(td_executor *executor, td_remote_request *request);
tandem_err td_append_remote(td_executor *executor, td_remote_request *request);
/* Has a document changed since the view looked, in a way that matters to this job? */
bool td_is_stale(td_executor *executor, const td_local_group *group, const td_local_job *job);
/* Has the clock begun again since the document was created, so that it is one of the future now? */
bool td_is_of_future(td_executor *executor, const td_local_job *job);

/* ---- Incarnations (reincarnation.c) ---- */

#define TD_REASON(reason) (1u << (reason))

/* Where another origin was taken for the clock's sake it begins anew with it, though the commit that
 * made the origin was reported as failed. */
void td_follow_identity(td_executor *executor);
/* Take the origins for which there is a reason and of which it is time; come back for the others. */
void td_reincarnate(td_executor *executor);

#endif
