#include "reactor/executor.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "reactor/recent.h"
#include "reactor/runtime.h"
#include "store/planted.h"
#include "store/probe.h"

enum {
    LOCAL = 1,
    PREPARED,
    REMOTE,
    INDEXED,
    MEND,
    READER_CHECK,
    REINCARNATE,
    REINCARNATE_LATER,
    GIVE_UP,
};
enum { MEND_MS = 1000, READER_CHECK_MS = 30000 };

/* A request that takes part in the open group, in order: either kind. */
struct member {
    td_local_request *local;
    td_remote_request *remote;
};

struct td_executor {
    td_actor *actor;
    td_op_store *ops;
    td_event_bus *bus;
    td_document_view *view;
    tandem_env *env;
    uint64_t max_clock_skew_ms;
    td_admission admission;
    td_clock clock;
    td_recent recent;
    bool open; /* a group is */
    uint64_t group_base; /* the last ordinal before it */
    uint32_t group_operations;
    uint64_t group_bytes;
    uint64_t group_forks;     /* origins of which it makes a fork */
    uint64_t group_quarantined;      /* origins that can have no further head after it */
    tandem_event group_event; /* its last fork; kind 0: none */
    bool group_has_own;       /* it holds operations of our origin that others wrote */
    struct member *members;
    size_t member_count, member_capacity;
    /* The last group's commit failed, and whether it happened could not be looked up yet: nothing is
     * appended before that. The members are its own, until it is told that nobody knows. */
    bool is_unsettled;
    uint64_t unsettled_ordinal; /* that it would have reached */
    tandem_err unsettled_err;   /* what the commit failed with … */
    uint64_t unsettled_ms;      /* … and when */
    td_remote_request *held, **held_end; /* wait for the index */
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
    /* The reasons for which a new origin is to be taken, REASON() of each; when the last ones were. */
    atomic_uint reincarnation;
    uint64_t reincarnated_ms[TANDEM_INCARNATION_CLOCK + 1]; /* by reason */
    uint32_t incarnation; /* in which the clock runs */
    uint32_t tried_from; /* the incarnation that a commit of unknown outcome was to end; 0: none */
    tandem_incarnation_reason tried_for;
    atomic_bool reincarnate_posted;
    td_message reincarnate_message;
    bool reincarnate_timed;
    td_message reincarnate_later;
    _Atomic uint64_t forks, quarantined_origins, withdrawals;
    _Atomic uint64_t position;
    _Atomic int store_err;
};

/* ---- Answers ---- */

static void answer_local(td_local_request *request, tandem_err err)
{
    if (request->group.err == TANDEM_OK)
        request->group.err = err;
    request->done(request);
}

static void answer_remote(td_remote_request *request, tandem_err err)
{
    if (err != TANDEM_OK)
        for (uint32_t i = 0; i < request->count; i++) {
            request->jobs[i].err = err;
            request->jobs[i].detail = 0;
        }
    request->err = err;
    request->done(request);
}

/* An error may not be the last word on what stands on disk: they may be withdrawn all the same. */
static void tell_withdrawn(td_executor *executor)
{
    tandem_event event = {.kind = TANDEM_EVENT_WITHDRAWAL};

    atomic_fetch_add(&executor->withdrawals, 1);
    td_event_bus_tell(executor->bus, &event);
}

static void answer_member(td_executor *executor, const struct member *member, tandem_err err)
{
    if (member->remote && member->remote->withdraw)
        tell_withdrawn(executor);
    if (member->local)
        answer_local(member->local, err);
    else
        answer_remote(member->remote, err);
}

static void answer_members(td_executor *executor, tandem_err err)
{
    size_t count = executor->member_count;

    executor->member_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (err == TANDEM_OK)
            td_probe(executor->env, executor->members[i].local ? TD_PROBE_LOCAL_BEFORE_ANSWER
                                                               : TD_PROBE_REMOTE_BEFORE_ANSWER);
        answer_member(executor, &executor->members[i], err);
    }
}

/* ---- Appending ---- */

/* Errors after which the open group must be aborted and the store recovered. */
static bool is_fatal(tandem_err err)
{
    return err == TANDEM_E_STORE_FULL || err == TANDEM_E_IO || err == TANDEM_E_NOMEM;
}

static tandem_err settle(td_executor *executor);

/* Where another origin was taken for the clock's sake it begins anew with it, though the commit that
 * made the origin was reported as failed. */
static void follow_identity(td_executor *executor)
{
    const td_identity *identity = td_op_store_identity(executor->ops);

    if (identity->incarnation == executor->incarnation)
        return;
    executor->incarnation = identity->incarnation;
    if (identity->reason == TANDEM_INCARNATION_CLOCK)
        td_clock_reset(&executor->clock);
}

static tandem_err group_begin(td_executor *executor)
{
    tandem_err err;

    if (executor->open)
        return TANDEM_OK;
    if ((err = settle(executor)) != TANDEM_OK)
        return err;
    err = td_op_store_begin(executor->ops);
    /* An earlier recovery failed: nothing works before one succeeds. */
    if (err == TANDEM_E_STATE && (err = td_op_store_recover(executor->ops)) == TANDEM_OK)
        err = td_op_store_begin(executor->ops);
    if (err != TANDEM_OK)
        return err;
    executor->open = true;
    follow_identity(executor);
    executor->group_base = td_op_store_group_ordinal(executor->ops);
    /* Somebody else's commit, or the new identity's: what it touched is unknown. */
    if (executor->group_base != executor->recent.last)
        td_recent_reset(&executor->recent, executor->group_base);
    executor->group_operations = 0;
    executor->group_bytes = 0;
    executor->group_forks = executor->group_quarantined = 0;
    executor->group_event.kind = 0;
    executor->group_has_own = false;
    return TANDEM_OK;
}

static void event_fill(tandem_event *event, tandem_event_kind kind, const td_operation *operation)
{
    *event = (tandem_event){.kind = kind, .seq = operation->seq, .hlc = operation->hlc};
    memcpy(event->origin, operation->origin, sizeof(event->origin));
    memcpy(event->collection, operation->collection.bytes, operation->collection.size);
}

static void tell_of(td_executor *executor, tandem_event_kind kind, const td_operation *operation)
{
    tandem_event event;

    event_fill(&event, kind, operation);
    td_event_bus_tell(executor->bus, &event);
}

static tandem_err append(td_executor *executor, const td_operation *job, size_t count, bool part,
                         td_append_result *result)
{
    tandem_err err;

    if ((err = td_recent_reserve(&executor->recent, count)) != TANDEM_OK)
        return err;
    err = part ? td_op_store_append_part(executor->ops, job, count, result)
               : td_op_store_append(executor->ops, job, count, result);
    if (err != TANDEM_OK)
        return err;
    for (size_t i = count - result->appended; i < count; i++) {
        td_recent_note(&executor->recent, &job[i]);
        executor->group_bytes += job[i].canonical.size;
    }
    executor->group_operations += result->appended;
    if (result->forked) {
        executor->group_quarantined += result->heads == TANDEM_HEADS_MAX;
        event_fill(&executor->group_event, TANDEM_EVENT_FORK, &job[count - 1]);
    }
    return TANDEM_OK;
}

/* A change of lacks takes an ordinal. */
static tandem_err note_lacks(td_executor *executor)
{
    tandem_err err;

    while (executor->recent.last < td_op_store_group_ordinal(executor->ops)) {
        if ((err = td_recent_reserve(&executor->recent, 1)) != TANDEM_OK)
            return err;
        td_recent_skip(&executor->recent);
    }
    return TANDEM_OK;
}

/* Of what came through a filter nothing is recorded where what it follows is not held. */
static tandem_err refuse(td_executor *executor, const td_operation *job, size_t count, bool part)
{
    tandem_err err = td_op_store_refuse(executor->ops, job, count, TANDEM_E_REFUSED), noted;

    if (part && err == TANDEM_E_PREDECESSOR)
        err = TANDEM_E_REFUSED;
    if (err != TANDEM_E_REFUSED)
        return err;
    tell_of(executor, TANDEM_EVENT_REFUSAL, &job[count - 1]);
    noted = note_lacks(executor);
    return noted == TANDEM_OK ? err : noted;
}

/* It comes from who has what is behind it. */
static tandem_err want(td_executor *executor, const td_wanted *wanted)
{
    tandem_err err = td_op_store_want(executor->ops, wanted->collection, wanted->origin,
                                      &wanted->lack);

    return err == TANDEM_OK ? note_lacks(executor) : err;
}

static tandem_err cover(td_executor *executor, const td_covered *covered)
{
    tandem_err err = td_op_store_cover(executor->ops, covered->collection, covered->filter,
                                       covered->origin, covered->heads, covered->count);

    return err == TANDEM_OK ? note_lacks(executor) : err;
}

static tandem_err withdraw(td_executor *executor)
{
    tandem_err err = td_op_store_withdraw(executor->ops);

    return err == TANDEM_OK ? note_lacks(executor) : err;
}

static bool is_own(const td_executor *executor, const td_operation *operation)
{
    return !memcmp(operation->origin, td_op_store_identity(executor->ops)->origin,
                   TANDEM_ORIGIN_BYTES);
}

/* Parse a remote job into executor->parsed; *newest_out is its highest HLC. */
static tandem_err parse_remote_job(td_executor *executor, const td_remote_job *job,
                                   uint64_t *newest_out)
{
    tandem_reader reader = tandem_reader_of(job->operations);

    *newest_out = 0;
    if (job->count == 0)
        return TANDEM_E_CHAIN;
    if (job->count > TANDEM_JOB_OPERATIONS_MAX)
        return TANDEM_E_LIMIT;
    for (uint32_t i = 0; i < job->count; i++) {
        td_operation *operation = &executor->parsed[i];
        tandem_slice bytes;
        tandem_err err;

        if ((err = tandem_read_binary(&reader, &bytes)) != TANDEM_OK ||
            (err = td_operation_parse(bytes, operation)) != TANDEM_OK)
            return err;
        td_operation_hash(operation);
        if (operation->hlc > *newest_out)
            *newest_out = operation->hlc;
    }
    return TANDEM_OK;
}

/* Append one remote job; what is wrong with it is its answer. Fatal errors come back. */
static tandem_err append_remote_job(td_executor *executor, const td_remote_request *request,
                                    td_remote_job *job)
{
    bool restored = request->restored;
    uint64_t ahead_max =
        td_hlc_of_ms(td_env_wall_ms(executor->env) + executor->max_clock_skew_ms);
    uint64_t newest;

    job->detail = 0;
    memset(&job->result, 0, sizeof(job->result));
    if (job->wanted || job->covered) {
        job->err = job->wanted ? want(executor, job->wanted) : cover(executor, job->covered);
        return is_fatal(job->err) ? job->err : TANDEM_OK;
    }
    job->err = parse_remote_job(executor, job, &newest);
    if (job->err == TANDEM_OK && newest > ahead_max && !restored &&
        !td_planted(TD_PLANTED_SKEW_UNCHECKED)) {
        job->err = TANDEM_E_CLOCK;
        job->detail = newest - td_hlc_of_ms(executor->max_clock_skew_ms);
        td_probe(executor->env, TD_PROBE_CLOCK_WAIT);
        tell_of(executor, TANDEM_EVENT_CLOCK, &executor->parsed[job->count - 1]);
    }
    if (job->err == TANDEM_OK && !restored &&
        !td_admission_takes(&executor->admission, executor->parsed, job->count)) {
        job->err = refuse(executor, executor->parsed, job->count, request->part);
        if (job->err == TANDEM_E_REFUSED && td_planted(TD_PLANTED_REFUSAL_AS_TAKEN))
            job->err = TANDEM_OK;
        job->result.duplicates = job->err == TANDEM_OK ? job->count : 0;
    } else if (job->err == TANDEM_OK) {
        job->err = append(executor, executor->parsed, job->count, request->part, &job->result);
    }
    if (job->err == TANDEM_E_PREDECESSOR && td_planted(TD_PLANTED_REFUSAL_DROPPED))
        job->err = TANDEM_OK;
    if (job->err == TANDEM_E_QUARANTINED)
        tell_of(executor, TANDEM_EVENT_QUARANTINE, &executor->parsed[job->count - 1]);
    if (job->err == TANDEM_OK) {
        if (newest <= ahead_max && !td_planted(TD_PLANTED_CLOCK_NOT_OBSERVED))
            td_clock_observe(&executor->clock, newest);
        if (job->result.appended && is_own(executor, executor->parsed)) {
            executor->group_has_own = true;
            td_probe(executor->env, TD_PROBE_OWN_CONTINUED);
        }
    }
    return is_fatal(job->err) ? job->err : TANDEM_OK;
}

static tandem_err append_remote(td_executor *executor, td_remote_request *request)
{
    tandem_err err;

    request->withdrawals = atomic_load(&executor->withdrawals);
    if (request->withdraw)
        return withdraw(executor);
    for (uint32_t i = 0; i < request->count; i++) {
        td_remote_job *job = &request->jobs[i];

        if (i && job[-1].err == TANDEM_E_CLOCK && td_planted(TD_PLANTED_CLOCK_STOPS_ALL)) {
            job->err = job[-1].err;
            job->detail = job[-1].detail;
        } else if ((err = append_remote_job(executor, request, job)) != TANDEM_OK) {
            return err;
        }
    }
    return TANDEM_OK;
}

/* Has the clock begun again since the document was created, so that it is one of the future now? */
static bool is_of_future(td_executor *executor, const td_local_job *job)
{
    return job->created_hlc > td_clock_read(&executor->clock);
}

/* A payload that was made from a state may say who wrote it. */
static bool is_other_origin(const td_executor *executor, const td_local_group *group)
{
    return memcmp(group->origin, td_op_store_identity(executor->ops)->origin,
                  TANDEM_ORIGIN_BYTES) != 0;
}

/* Has a document changed since the view looked, in a way that matters to this job? */
static bool is_stale(td_executor *executor, const td_local_group *group, const td_local_job *job)
{
    uint64_t hash = td_recent_hash(job->collection, job->document);
    bool any_matters = job->create || job->has_expect || job->state_read;

    return is_of_future(executor, job) || (job->state_read && is_other_origin(executor, group)) ||
           td_recent_touched(&executor->recent, group->looked_at, hash, !any_matters);
}

static tandem_err append_local_job(td_executor *executor, const td_local_group *group,
                                   td_local_job *job)
{
    td_append_result result;
    td_operation *last;
    td_head tip;
    size_t count = 0;
    tandem_err err;

    if ((err = td_op_store_tip(executor->ops, job->collection,
                               td_op_store_identity(executor->ops)->origin, &tip)) != TANDEM_OK)
        return err;
    tandem_writer_clear(&executor->encoded);
    err = td_local_job_encode(group, job, td_op_store_identity(executor->ops)->origin, tip,
                              &executor->clock, &executor->encoded, executor->parsed, &count);
    if (err != TANDEM_OK)
        return err;
    if ((err = append(executor, executor->parsed, count, false, &result)) != TANDEM_OK)
        return err;
    assert(result.appended == count);
    last = &executor->parsed[count - 1];
    job->first_seq = tip.seq + 1;
    job->seq = last->seq;
    job->ordinal = result.last_ordinal;
    job->hlc = last->hlc;
    memcpy(job->hash, last->hash, sizeof(job->hash));
    return TANDEM_OK;
}

/*
 * Append a local group. After the view's checks hardly anything but memory and the disk can fail. If
 * something does, jobs before it stand in the transaction: the whole open group is undone, and
 * repeated without this one (see group_add).
 */
static tandem_err append_local(td_executor *executor, td_local_request *request)
{
    td_local_group *group = &request->group;
    tandem_err err;

    for (size_t i = 0; i < group->count; i++) {
        if ((err = append_local_job(executor, group, &group->jobs[i])) != TANDEM_OK) {
            group->failed_job = i;
            return err;
        }
    }
    return TANDEM_OK;
}

/* ---- Groups ---- */

static void group_abort(td_executor *executor)
{
    td_op_store_abort(executor->ops);
    executor->open = false;
    executor->recent.last = executor->group_base;
}

static tandem_err append_member(td_executor *executor, const struct member *member)
{
    return member->local ? append_local(executor, member->local)
                         : append_remote(executor, member->remote);
}

/* Append all members to a new group; the one before is aborted. */
static tandem_err group_repeat(td_executor *executor)
{
    tandem_err err;

    if ((err = group_begin(executor)) != TANDEM_OK)
        return err;
    td_probe(executor->env, TD_PROBE_GROUP_REPEATED);
    for (size_t i = 0; i < executor->member_count; i++)
        if ((err = append_member(executor, &executor->members[i])) != TANDEM_OK)
            return err;
    return TANDEM_OK;
}

static void store_failed(td_executor *executor, tandem_err err)
{
    if (atomic_exchange(&executor->store_err, (int)err) == TANDEM_OK) {
        td_probe(executor->env, TD_PROBE_WRITING_STOPPED);
        td_log(executor->env, TANDEM_LOG_ERROR, "executor", "writing has stopped: %s (%s)",
               tandem_err_text(err), tandem_err_name(err));
    }
    /* It may still be timed from an earlier failure that a commit has healed since. */
    if (executor->mend_timed)
        return;
    executor->mend_timed = true;
    td_actor_post_after(executor->actor, &executor->mend_message, MEND_MS);
}

static void store_works(td_executor *executor)
{
    if (atomic_exchange(&executor->store_err, TANDEM_OK) != TANDEM_OK) {
        td_probe(executor->env, TD_PROBE_WRITING_MENDED);
        td_log(executor->env, TANDEM_LOG_INFO, "executor", "writing works again");
    }
}

/* Give up on the open group: everything in it failed with err and nothing of it is held. */
static void group_fail(td_executor *executor, tandem_err err)
{
    tandem_err mended;

    if (executor->open)
        group_abort(executor);
    td_probe(executor->env, TD_PROBE_GROUP_FAILED);
    mended = td_op_store_recover(executor->ops);
    if (mended != TANDEM_OK)
        td_log(executor->env, TANDEM_LOG_ERROR, "executor", "the store cannot be reopened: %s",
               tandem_err_name(mended));
    store_failed(executor, err);
    answer_members(executor, err);
}

/* Somebody else writes under our origin, if the group said so: leave it. */
static void forget_own(td_executor *executor)
{
    if (executor->group_has_own && !td_planted(TD_PLANTED_OWN_GOES_ON)) {
        td_probe(executor->env, TD_PROBE_OWN_COMMITTED);
        td_executor_reincarnate(executor, TANDEM_INCARNATION_CONTINUED);
    }
    executor->group_has_own = false;
}

/* The group is on disk, up to reached. */
static void group_done(td_executor *executor, uint64_t reached, tandem_err answer)
{
    store_works(executor);
    if (executor->member_count > 1)
        td_probe(executor->env, TD_PROBE_GROUP_SHARED);
    if (reached > atomic_load(&executor->position)) {
        atomic_store(&executor->position, reached);
        td_document_view_committed(executor->view, reached);
        td_event_bus_committed(executor->bus, reached);
    }
    atomic_fetch_add(&executor->forks, executor->group_forks);
    atomic_fetch_add(&executor->quarantined_origins, executor->group_quarantined);
    if (executor->group_event.kind)
        td_event_bus_tell(executor->bus, &executor->group_event);
    answer_members(executor, answer);
    forget_own(executor);
}

/* What somebody waits for does not wait any longer for what the failed commit has come to, nor do the
 * jobs of peers if all are meant. It is looked for all the same. */
static void give_up(td_executor *executor, bool all)
{
    size_t count = executor->member_count, kept = 0;

    if (!executor->is_unsettled)
        return;
    for (size_t i = 0; i < count; i++) {
        struct member member = executor->members[i];

        if (member.remote && !member.remote->withdraw && !all) {
            executor->members[kept++] = member;
            continue;
        }
        td_probe(executor->env, TD_PROBE_OUTCOME_NOT_KNOWN);
        answer_member(executor, &member, TANDEM_E_OUTCOME_UNKNOWN);
    }
    executor->member_count = kept;
    if (kept < count)
        td_log(executor->env, TANDEM_LOG_ERROR, "executor",
               "whether %zu requests were written cannot be told: %s", count - kept,
               tandem_err_name(executor->unsettled_err));
}

/* Whether a commit that failed has happened: what the store holds decides. The group is there whole
 * or not at all, so its last ordinal tells. */
static tandem_err look_up_commit(td_executor *executor, bool *happened)
{
    uint64_t held;
    tandem_err err;

    if ((err = td_op_store_recover(executor->ops)) != TANDEM_OK ||
        (err = td_op_store_last_ordinal(executor->ops, &held)) != TANDEM_OK)
        return err;
    *happened = held >= executor->unsettled_ordinal;
    if (!*happened)
        return TANDEM_OK;
    /* What is there is not necessarily on disk: only another commit proves that. */
    if ((err = td_op_store_begin(executor->ops)) != TANDEM_OK)
        return err;
    return td_op_store_commit(executor->ops);
}

/* Find out what a failed commit has come to, if one is open, and answer it. While that cannot be
 * told, the error says why, and nothing may be appended. */
static tandem_err settle(td_executor *executor)
{
    bool happened;
    tandem_err err;

    if (!executor->is_unsettled)
        return TANDEM_OK;
    if ((err = look_up_commit(executor, &happened)) != TANDEM_OK) {
        store_failed(executor, executor->unsettled_err);
        if (td_env_is_dead(executor->env) ||
            td_env_monotonic_ms(executor->env) >= executor->unsettled_ms + TD_OUTCOME_MS)
            give_up(executor, td_env_is_dead(executor->env));
        return err;
    }
    executor->is_unsettled = false;
    if (happened) {
        td_probe(executor->env, TD_PROBE_COMMIT_HAD_HAPPENED);
        group_done(executor, executor->unsettled_ordinal,
                   td_planted(TD_PLANTED_FOUND_AND_FAILED) ? executor->unsettled_err : TANDEM_OK);
        return TANDEM_OK;
    }
    td_probe(executor->env, TD_PROBE_COMMIT_WAS_LOST);
    executor->recent.last = executor->group_base;
    executor->group_has_own = false;
    store_failed(executor, executor->unsettled_err);
    answer_members(executor, executor->unsettled_err);
    return TANDEM_OK;
}

static void commit_failed(td_executor *executor, uint64_t reached, tandem_err err)
{
    /* Nothing of it can have happened: it only refused jobs, or repeated what had been told before. */
    if (reached == executor->group_base) {
        group_fail(executor, err);
        return;
    }
    executor->is_unsettled = true;
    executor->unsettled_ordinal = reached;
    executor->unsettled_err = err;
    executor->unsettled_ms = td_env_monotonic_ms(executor->env);
    if (settle(executor) != TANDEM_OK && executor->member_count)
        td_probe(executor->env, TD_PROBE_OUTCOME_OPEN);
}

/*
 * Commit. A group that appended nothing confirms duplicates: what they repeat was committed before,
 * and the store knows whether that is proven.
 */
static void group_commit(td_executor *executor)
{
    uint64_t reached = td_op_store_group_ordinal(executor->ops);
    tandem_err err;

    executor->group_forks = td_op_store_group_forks(executor->ops);
    if (td_planted(TD_PLANTED_ANSWERED_EARLY))
        answer_members(executor, TANDEM_OK);
    if (td_planted(TD_PLANTED_COMMITTED_EARLY)) {
        atomic_store(&executor->position, reached);
        td_document_view_committed(executor->view, reached);
        td_event_bus_committed(executor->bus, reached);
    }
    if (reached != executor->group_base &&
        (err = td_op_store_put_clock(executor->ops, td_clock_read(&executor->clock))) !=
            TANDEM_OK) {
        group_fail(executor, err);
        return;
    }
    err = td_op_store_commit(executor->ops);
    executor->open = false;
    if (err != TANDEM_OK && td_planted(TD_PLANTED_COMMIT_REPEATED) &&
        td_op_store_recover(executor->ops) == TANDEM_OK && group_repeat(executor) == TANDEM_OK) {
        reached = td_op_store_group_ordinal(executor->ops);
        executor->open = false;
        err = td_op_store_commit(executor->ops);
    }
    if (err == TANDEM_OK)
        group_done(executor, reached, TANDEM_OK);
    else
        commit_failed(executor, reached, err);
}

static tandem_err members_reserve(td_executor *executor)
{
    size_t capacity = executor->member_capacity ? executor->member_capacity * 2 : 64;
    struct member *members;

    if (executor->member_count < executor->member_capacity)
        return TANDEM_OK;
    if (!(members = realloc(executor->members, capacity * sizeof(*members))))
        return TANDEM_E_NOMEM;
    executor->members = members;
    executor->member_capacity = capacity;
    return TANDEM_OK;
}

/*
 * Let a request take part in the open group. It is answered at the group's end; if it alone cannot
 * be appended, at once.
 */
static void group_add(td_executor *executor, struct member member)
{
    tandem_err err;

    if ((err = members_reserve(executor)) != TANDEM_OK) {
        answer_member(executor, &member, err);
        return;
    }
    if ((err = group_begin(executor)) != TANDEM_OK) {
        store_failed(executor, err);
        answer_member(executor, &member, err);
        return;
    }
    err = append_member(executor, &member);
    if (err == TANDEM_OK || is_fatal(err))
        executor->members[executor->member_count++] = member;
    if (err != TANDEM_OK) {
        group_abort(executor);
        if (!is_fatal(err))
            answer_member(executor, &member, err);
        else if ((err = td_op_store_recover(executor->ops)) != TANDEM_OK)
            goto fail;
        if (executor->member_count && (err = group_repeat(executor)) != TANDEM_OK)
            goto fail;
    }
    if (executor->open && (executor->group_operations >= TD_GROUP_OPERATIONS_MAX ||
                           executor->group_bytes >= TD_GROUP_BYTES_MAX ||
                           executor->group_has_own))
        group_commit(executor); /* with operations of ours nothing more of ours: a new origin is due */
    return;

fail:
    group_fail(executor, err);
}

/* ---- Local requests ---- */

static void prepared(td_view_request *view_request)
{
    td_local_request *request = view_request->context;

    request->message.kind = PREPARED;
    td_actor_post(request->executor->actor, &request->message);
}

static void prepare(td_executor *executor, td_local_request *request)
{
    tandem_writer_clear(&request->group.payloads);
    memset(&request->prepare, 0, sizeof(request->prepare));
    request->prepare.kind = request->group.count ? TD_VIEW_PREPARE : TD_VIEW_WAIT;
    request->prepare.group = &request->group;
    request->prepare.position = atomic_load(&executor->position);
    request->prepare.done = prepared;
    request->prepare.context = request;
    td_document_view_post(executor->view, &request->prepare);
}

static void take_prepared(td_executor *executor, td_local_request *request)
{
    td_local_group *group = &request->group;
    tandem_err err;

    if (request->prepare.err != TANDEM_OK || group->err != TANDEM_OK) {
        answer_local(request, request->prepare.err);
        return;
    }
    /* First: what touched a document may not have happened, and cannot be looked at either; and with
     * an origin that is found by a recovery the clock begins again. */
    if ((err = group_begin(executor)) != TANDEM_OK) {
        store_failed(executor, err);
        answer_local(request, err);
        return;
    }
    for (size_t i = 0; i < group->count; i++) {
        if (!is_stale(executor, group, &group->jobs[i]))
            continue;
        td_probe(executor->env, TD_PROBE_JOB_STALE);
        if (++request->attempts > TD_PREPARE_ATTEMPTS_MAX) {
            snprintf(group->why, sizeof(group->why), "the document changes too fast");
            answer_local(request, TANDEM_E_CONFLICT);
            return;
        }
        /* Only now: what others have created since the view was asked is dated behind that time. */
        if (is_of_future(executor, &group->jobs[i]))
            group->clock = td_clock_read(&executor->clock);
        /* What made it stale may stand in the open group: the view sees it after the commit. */
        if (executor->open)
            group_commit(executor);
        prepare(executor, request);
        return;
    }
    group_add(executor, (struct member){.local = request});
}

/* ---- Remote requests ---- */

static uint64_t index_lag(const td_executor *executor)
{
    uint64_t indexed = atomic_load(&executor->indexed);

    /* The view can be ahead: of a commit whose outcome is not known here yet. */
    return executor->recent.last > indexed ? executor->recent.last - indexed : 0;
}

static void take_remote(td_executor *executor, td_remote_request *request)
{
    if (executor->held || index_lag(executor) > TD_INDEX_LAG_MAX) {
        request->next = NULL;
        *executor->held_end = request;
        executor->held_end = &request->next;
        return;
    }
    group_add(executor, (struct member){.remote = request});
}

static void take_indexed(td_executor *executor)
{
    td_remote_request *held = executor->held;

    atomic_store(&executor->indexed_posted, false);
    td_recent_forget(&executor->recent, atomic_load(&executor->indexed));
    if (!held || index_lag(executor) > TD_INDEX_LAG_MAX / 2)
        return;
    executor->held = NULL;
    executor->held_end = &executor->held;
    while (held) {
        td_remote_request *next = held->next;

        take_remote(executor, held);
        held = next;
    }
}

/* ---- The actor ---- */

/* Writing failed a while ago: a commit of nothing but what is held tells whether it works again. */
static void mend(td_executor *executor)
{
    tandem_err err;

    executor->mend_timed = false;
    if (atomic_load(&executor->store_err) == TANDEM_OK)
        return;
    if (executor->open) {
        group_commit(executor);
        return;
    }
    if (executor->is_unsettled)
        err = settle(executor);
    else /* after a recovery a commit is never skipped for having nothing new */
        err = td_op_store_recover(executor->ops);
    if (err != TANDEM_OK || (err = group_begin(executor)) != TANDEM_OK)
        store_failed(executor, err);
    else
        group_commit(executor);
}

/* ---- Incarnations ---- */

#define REASON(reason) (1u << (reason))

static bool is_clock_ahead(td_executor *executor)
{
    return td_clock_read(&executor->clock) >
           td_hlc_of_ms(td_env_wall_ms(executor->env) + executor->max_clock_skew_ms);
}

/* A group of its own, with nothing but the new identity. */
static tandem_err identity_commit(td_executor *executor, tandem_incarnation_reason reason)
{
    uint64_t hlc = reason == TANDEM_INCARNATION_CLOCK
                       ? td_hlc_of_ms(td_env_wall_ms(executor->env))
                       : 0;
    uint32_t before = executor->tried_from;
    tandem_err err;

    if (!before || executor->tried_for != reason)
        before = td_op_store_identity(executor->ops)->incarnation;
    if ((err = group_begin(executor)) != TANDEM_OK)
        return err;
    executor->open = false;
    /* What a commit that failed was to make may be there: then it is only to be proven. */
    if (td_op_store_identity(executor->ops)->incarnation == before)
        err = td_op_store_reincarnate(executor->ops, reason, reason == TANDEM_INCARNATION_COPIED,
                                      hlc);
    if (err == TANDEM_OK)
        err = td_op_store_commit(executor->ops);
    if (err != TANDEM_OK && td_op_store_recover(executor->ops) == TANDEM_OK &&
        td_op_store_identity(executor->ops)->incarnation != before &&
        td_op_store_begin(executor->ops) == TANDEM_OK)
        err = td_op_store_commit(executor->ops);
    executor->tried_from = err == TANDEM_OK ? 0 : before;
    executor->tried_for = reason;
    return err;
}

static void reincarnate_after(td_executor *executor, uint64_t delay_ms)
{
    if (executor->reincarnate_timed)
        td_actor_cancel(executor->actor, &executor->reincarnate_later);
    executor->reincarnate_timed = true;
    td_actor_post_after(executor->actor, &executor->reincarnate_later, delay_ms);
}

static tandem_err take_origin(td_executor *executor, tandem_incarnation_reason reason)
{
    tandem_event event = {.kind = TANDEM_EVENT_INCARNATION};
    const td_identity *identity;
    tandem_err err;

    if ((err = identity_commit(executor, reason)) != TANDEM_OK) {
        store_failed(executor, err);
        return err;
    }
    follow_identity(executor);
    executor->reincarnated_ms[reason] = td_env_monotonic_ms(executor->env);
    identity = td_op_store_identity(executor->ops);
    if (reason == TANDEM_INCARNATION_CONTINUED)
        td_probe(executor->env, TD_PROBE_INCARNATION_CONTINUED);
    td_log(executor->env, TANDEM_LOG_WARNING, "executor",
           "this reactor writes under a new origin, its %u: %s", identity->incarnation,
           tandem_incarnation_reason_name(identity->reason));
    memcpy(event.origin, identity->origin, sizeof(event.origin));
    event.reason = identity->reason;
    td_event_bus_tell(executor->bus, &event);
    return TANDEM_OK;
}

static void reincarnate(td_executor *executor)
{
    static const struct {
        tandem_incarnation_reason reason;
        unsigned settles; /* these reasons with it */
    } order[] = {
        {TANDEM_INCARNATION_COPIED,
         REASON(TANDEM_INCARNATION_COPIED) | REASON(TANDEM_INCARNATION_CONTINUED)},
        {TANDEM_INCARNATION_CONTINUED, REASON(TANDEM_INCARNATION_CONTINUED)},
        {TANDEM_INCARNATION_CLOCK, REASON(TANDEM_INCARNATION_CLOCK)},
    };
    uint64_t now_ms = td_env_monotonic_ms(executor->env), wait_ms = UINT64_MAX;

    if (executor->open)
        group_commit(executor);
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        tandem_incarnation_reason reason = order[i].reason;
        uint64_t last_ms = executor->reincarnated_ms[reason];
        bool is_settled;

        if (!(atomic_load(&executor->reincarnation) & REASON(reason)))
            continue;
        if (last_ms && now_ms < last_ms + TD_INCARNATION_MS &&
            !td_planted(TD_PLANTED_ORIGINS_WITHOUT_END)) {
            if (last_ms + TD_INCARNATION_MS - now_ms < wait_ms)
                wait_ms = last_ms + TD_INCARNATION_MS - now_ms;
            continue;
        }
        is_settled = reason == TANDEM_INCARNATION_CLOCK && !executor->tried_from &&
                     !is_clock_ahead(executor);
        if (!is_settled && take_origin(executor, reason) != TANDEM_OK) {
            wait_ms = MEND_MS;
            break;
        }
        atomic_fetch_and(&executor->reincarnation, ~order[i].settles);
    }
    if (wait_ms != UINT64_MAX)
        reincarnate_after(executor, wait_ms);
}

void td_executor_reincarnate(td_executor *executor, tandem_incarnation_reason reason)
{
    atomic_fetch_or(&executor->reincarnation, REASON(reason));
    if (!atomic_exchange(&executor->reincarnate_posted, true))
        td_actor_post(executor->actor, &executor->reincarnate_message);
}

void td_executor_peer_clock(td_executor *executor, uint64_t hlc)
{
    uint64_t peer_ms = td_hlc_ms(hlc), own_ms = td_hlc_ms(td_clock_read(&executor->clock));

    if (own_ms > peer_ms && own_ms - peer_ms > executor->max_clock_skew_ms &&
        is_clock_ahead(executor))
        td_executor_reincarnate(executor, TANDEM_INCARNATION_CLOCK);
}

static void reader_check(td_executor *executor)
{
    td_store *backend = td_op_store_backend(executor->ops);

    backend->ops->reader_check(backend);
    td_actor_post_after(executor->actor, &executor->check_message, READER_CHECK_MS);
}

static void handle(void *self, td_message *message)
{
    td_executor *executor = self;

    switch (message->kind) {
    case LOCAL:
        ((td_local_request *)message)->group.clock = UINT64_MAX;
        prepare(executor, (td_local_request *)message);
        break;
    case PREPARED:
        take_prepared(executor, (td_local_request *)message);
        break;
    case REMOTE:
        take_remote(executor, (td_remote_request *)message);
        break;
    case INDEXED:
        take_indexed(executor);
        break;
    case MEND:
        mend(executor);
        break;
    case READER_CHECK:
        reader_check(executor);
        break;
    case REINCARNATE:
        atomic_store(&executor->reincarnate_posted, false);
        reincarnate(executor);
        break;
    case REINCARNATE_LATER:
        executor->reincarnate_timed = false;
        reincarnate(executor);
        break;
    case GIVE_UP:
        atomic_store(&executor->give_up_posted, false);
        if (settle(executor) != TANDEM_OK)
            give_up(executor, true);
        break;
    default:
        assert(false && "a message of the executor's");
    }
}

static void drained(void *self)
{
    td_executor *executor = self;

    if (executor->open)
        group_commit(executor);
}

static const td_actor_ops executor_ops = {
    .name = "executor", .handle = handle, .drained = drained};

static void drop_nothing(td_message *message)
{
    (void)message; /* it is part of the executor */
}

static void drop_local(td_message *message)
{
    answer_local((td_local_request *)message, TANDEM_E_CLOSED);
}

static void drop_remote(td_message *message)
{
    answer_remote((td_remote_request *)message, TANDEM_E_CLOSED);
}

static tandem_err count_fork(void *context, const uint8_t *origin, const td_head *heads,
                             unsigned count)
{
    td_executor *executor = context;

    (void)heads;
    atomic_fetch_add(&executor->forks, count > 1);
    atomic_fetch_add(&executor->quarantined_origins, count == TANDEM_HEADS_MAX);
    /* It crashed before it could take another. */
    if (count > 1 && !td_planted(TD_PLANTED_OWN_FORK_FORGOTTEN) &&
        !memcmp(origin, td_op_store_identity(executor->ops)->origin, TANDEM_ORIGIN_BYTES))
        atomic_fetch_or(&executor->reincarnation, REASON(TANDEM_INCARNATION_CONTINUED));
    return TANDEM_OK;
}

static tandem_err count_forks_of(void *context, const td_collection_info *info)
{
    return td_op_store_vector(((td_executor *)context)->ops, info->name, NULL, count_fork, context);
}

tandem_err td_executor_open(td_host *host, td_op_store *ops, td_event_bus *bus,
                            uint64_t max_clock_skew_ms, td_executor **out)
{
    td_executor *executor = calloc(1, sizeof(*executor));
    uint64_t position, high_water;
    tandem_err err;

    if (!executor)
        return TANDEM_E_NOMEM;
    executor->ops = ops;
    executor->bus = bus;
    executor->env = host->runtime->env;
    executor->max_clock_skew_ms = max_clock_skew_ms;
    executor->held_end = &executor->held;
    tandem_writer_init(&executor->encoded);
    executor->indexed_message = (td_message){.kind = INDEXED, .drop = drop_nothing};
    executor->mend_message = (td_message){.kind = MEND, .drop = drop_nothing};
    executor->give_up_message = (td_message){.kind = GIVE_UP, .drop = drop_nothing};
    executor->check_message = (td_message){.kind = READER_CHECK, .drop = drop_nothing};
    executor->reincarnate_message = (td_message){.kind = REINCARNATE, .drop = drop_nothing};
    executor->reincarnate_later = (td_message){.kind = REINCARNATE_LATER, .drop = drop_nothing};
    err = TANDEM_E_NOMEM;
    if (!(executor->parsed = calloc(TANDEM_JOB_OPERATIONS_MAX, sizeof(*executor->parsed))))
        goto fail;
    if ((err = td_op_store_last_ordinal(ops, &position)) != TANDEM_OK ||
        (err = td_op_store_clock(ops, &high_water)) != TANDEM_OK ||
        (err = td_op_store_collections(ops, tandem_slice_of(NULL, 0), count_forks_of, executor)) !=
            TANDEM_OK)
        goto fail;
    td_clock_init(&executor->clock, executor->env, high_water);
    executor->incarnation = td_op_store_identity(ops)->incarnation;
    atomic_init(&executor->position, position);
    /* What is not indexed yet was not noted here: the view's first look says where to begin. */
    td_recent_reset(&executor->recent, position);
    atomic_init(&executor->indexed, position);
    if ((err = td_actor_open(host, &executor_ops, executor, &executor->actor)) != TANDEM_OK)
        goto fail;
    td_actor_post(executor->actor, &executor->check_message);
    if (atomic_load(&executor->reincarnation))
        td_executor_reincarnate(executor, TANDEM_INCARNATION_CONTINUED);
    *out = executor;
    return TANDEM_OK;

fail:
    td_executor_free(executor);
    return err;
}

void td_executor_set_view(td_executor *executor, td_document_view *view)
{
    executor->view = view;
}

void td_executor_set_admission(td_executor *executor, const td_admission *admission)
{
    executor->admission = *admission;
}

void td_executor_free(td_executor *executor)
{
    if (!executor)
        return;
    if (executor->open)
        group_abort(executor);
    answer_members(executor, executor->is_unsettled ? TANDEM_E_OUTCOME_UNKNOWN : TANDEM_E_CLOSED);
    while (executor->held) {
        td_remote_request *next = executor->held->next;

        answer_remote(executor->held, TANDEM_E_CLOSED);
        executor->held = next;
    }
    td_actor_free(executor->actor);
    tandem_writer_release(&executor->encoded);
    td_recent_release(&executor->recent);
    free(executor->members);
    free(executor->parsed);
    free(executor);
}

void td_executor_local(td_executor *executor, td_local_request *request)
{
    request->executor = executor;
    request->attempts = 0;
    request->group.err = TANDEM_OK;
    request->message.kind = LOCAL;
    request->message.drop = drop_local;
    td_actor_post(executor->actor, &request->message);
}

void td_executor_remote(td_executor *executor, td_remote_request *request)
{
    request->message.kind = REMOTE;
    request->message.drop = drop_remote;
    td_actor_post(executor->actor, &request->message);
}

void td_executor_give_up(td_executor *executor)
{
    if (!atomic_exchange(&executor->give_up_posted, true))
        td_actor_post(executor->actor, &executor->give_up_message);
}

void td_executor_indexed(td_executor *executor, uint64_t position)
{
    atomic_store(&executor->indexed, position);
    if (!atomic_exchange(&executor->indexed_posted, true))
        td_actor_post(executor->actor, &executor->indexed_message);
}

uint64_t td_executor_position(td_executor *executor)
{
    return atomic_load(&executor->position);
}

uint64_t td_executor_clock(td_executor *executor)
{
    return td_clock_read(&executor->clock);
}

uint64_t td_executor_forks(td_executor *executor)
{
    return atomic_load(&executor->forks);
}

uint64_t td_executor_withdrawals(td_executor *executor)
{
    return atomic_load(&executor->withdrawals);
}

uint64_t td_executor_quarantined_origins(td_executor *executor)
{
    return atomic_load(&executor->quarantined_origins);
}

tandem_err td_executor_store_err(td_executor *executor)
{
    return (tandem_err)atomic_load(&executor->store_err);
}
