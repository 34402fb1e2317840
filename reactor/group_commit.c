/*
 * Group commit: all requests that wait are one transaction and one commit. One that cannot be appended
 * undoes the open group, which is repeated without it. A commit that fails may have happened: the store
 * is looked at before anything else is appended, and the requests are answered when that is known.
 */
#include <stdlib.h>

#include "reactor/executor_state.h"
#include "reactor/runtime.h"
#include "store/planted.h"
#include "store/probe.h"

/* ---- Answers ---- */

void td_answer_local(td_local_request *request, tandem_err err)
{
    if (request->group.err == TANDEM_OK)
        request->group.err = err;
    request->done(request);
}

void td_answer_remote(td_remote_request *request, tandem_err err)
{
    if (err != TANDEM_OK)
        for (uint32_t i = 0; i < request->count; i++) {
            request->jobs[i].err = err;
            request->jobs[i].detail = 0;
        }
    request->err = err;
    free(request->parsed);
    atomic_fetch_sub(&request->executor->parsed_ahead, request->parsed_count);
    request->done(request);
}

/* An error may not be the last word on what stands on disk: they may be withdrawn all the same. */
static void tell_withdrawn(td_executor *executor)
{
    tandem_event event = {.kind = TANDEM_EVENT_WITHDRAWAL};

    atomic_fetch_add(&executor->withdrawals, 1);
    td_event_bus_tell(executor->bus, &event);
}

static void answer_member(td_executor *executor, const td_member *member, tandem_err err)
{
    if (member->remote && member->remote->withdraw)
        tell_withdrawn(executor);
    if (member->local)
        td_answer_local(member->local, err);
    else
        td_answer_remote(member->remote, err);
}

void td_answer_members(td_executor *executor, tandem_err err)
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

/* ---- Groups ---- */

tandem_err td_group_begin(td_executor *executor)
{
    tandem_err err;

    if (executor->open)
        return TANDEM_OK;
    if ((err = td_group_settle(executor)) != TANDEM_OK)
        return err;
    err = td_op_store_begin(executor->ops);
    /* An earlier recovery failed: nothing works before one succeeds. */
    if (err == TANDEM_E_STATE && (err = td_op_store_recover(executor->ops)) == TANDEM_OK)
        err = td_op_store_begin(executor->ops);
    if (err != TANDEM_OK)
        return err;
    executor->open = true;
    td_follow_identity(executor);
    executor->group_base = td_op_store_group_ordinal(executor->ops);
    td_recent_forget(&executor->recent, atomic_load(&executor->indexed));
    /* Somebody else's commit, or the new identity's: what it touched is unknown. */
    if (executor->group_base != executor->recent.last) {
        td_recent_reset(&executor->recent, executor->group_base);
        td_known_forget_all(&executor->known);
    }
    executor->group_operations = 0;
    executor->group_bytes = 0;
    executor->group_forks = executor->group_quarantined = 0;
    executor->group_event.kind = 0;
    executor->group_has_own = false;
    return TANDEM_OK;
}

void td_group_abort(td_executor *executor)
{
    td_op_store_abort(executor->ops);
    executor->open = false;
    executor->recent.last = executor->group_base;
}

static tandem_err append_member(td_executor *executor, const td_member *member)
{
    return member->local ? td_append_local(executor, member->local)
                         : td_append_remote(executor, member->remote);
}

/* Append all members to a new group; the one before is aborted. */
static tandem_err group_repeat(td_executor *executor)
{
    tandem_err err;

    if ((err = td_group_begin(executor)) != TANDEM_OK)
        return err;
    td_probe(executor->env, TD_PROBE_GROUP_REPEATED);
    for (size_t i = 0; i < executor->member_count; i++)
        if ((err = append_member(executor, &executor->members[i])) != TANDEM_OK)
            return err;
    return TANDEM_OK;
}

void td_store_failed(td_executor *executor, tandem_err err)
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
    td_actor_post_after(executor->actor, &executor->mend_message, TD_MEND_MS);
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
        td_group_abort(executor);
    td_known_forget_all(&executor->known);
    td_probe(executor->env, TD_PROBE_GROUP_FAILED);
    mended = td_op_store_recover(executor->ops);
    if (mended != TANDEM_OK)
        td_log(executor->env, TANDEM_LOG_ERROR, "executor", "the store cannot be reopened: %s",
               tandem_err_name(mended));
    td_store_failed(executor, err);
    td_answer_members(executor, err);
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
        atomic_fetch_add(&executor->commits, 1);
        atomic_store(&executor->position, reached);
        td_document_view_committed(executor->view, reached);
        td_event_bus_committed(executor->bus, reached);
    }
    atomic_fetch_add(&executor->forks, executor->group_forks);
    atomic_fetch_add(&executor->quarantined_origins, executor->group_quarantined);
    if (executor->group_event.kind)
        td_event_bus_tell(executor->bus, &executor->group_event);
    td_answer_members(executor, answer);
    forget_own(executor);
}

/* What somebody waits for does not wait any longer for what the failed commit has come to, nor do the
 * jobs of peers if all are meant. It is looked for all the same. */
void td_group_give_up(td_executor *executor, bool all)
{
    size_t count = executor->member_count, kept = 0;

    if (!executor->is_unsettled)
        return;
    for (size_t i = 0; i < count; i++) {
        td_member member = executor->members[i];

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
tandem_err td_group_settle(td_executor *executor)
{
    bool happened;
    tandem_err err;

    if (!executor->is_unsettled)
        return TANDEM_OK;
    if ((err = look_up_commit(executor, &happened)) != TANDEM_OK) {
        td_store_failed(executor, executor->unsettled_err);
        if (td_env_is_dead(executor->env) ||
            td_env_monotonic_ms(executor->env) >= executor->unsettled_ms + TD_OUTCOME_MS)
            td_group_give_up(executor, td_env_is_dead(executor->env));
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
    td_store_failed(executor, executor->unsettled_err);
    td_answer_members(executor, executor->unsettled_err);
    return TANDEM_OK;
}

static void commit_failed(td_executor *executor, uint64_t reached, tandem_err err)
{
    /* Nothing of it can have happened: it only refused jobs, or repeated what had been told before. */
    if (reached == executor->group_base) {
        group_fail(executor, err);
        return;
    }
    td_known_forget_all(&executor->known); /* until it is settled nobody knows anything */
    executor->is_unsettled = true;
    executor->unsettled_ordinal = reached;
    executor->unsettled_err = err;
    executor->unsettled_ms = td_env_monotonic_ms(executor->env);
    if (td_group_settle(executor) != TANDEM_OK && executor->member_count)
        td_probe(executor->env, TD_PROBE_OUTCOME_OPEN);
}

/*
 * Commit. A group that appended nothing confirms duplicates: what they repeat was committed before,
 * and the store knows whether that is proven.
 */
void td_group_commit(td_executor *executor)
{
    uint64_t reached = td_op_store_group_ordinal(executor->ops);
    tandem_err err;

    executor->group_forks = td_op_store_group_forks(executor->ops);
    if (td_planted(TD_PLANTED_ANSWERED_EARLY))
        td_answer_members(executor, TANDEM_OK);
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
    td_member *members;

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
void td_group_add(td_executor *executor, td_member member)
{
    tandem_err err;

    if ((err = members_reserve(executor)) != TANDEM_OK) {
        answer_member(executor, &member, err);
        return;
    }
    if ((err = td_group_begin(executor)) != TANDEM_OK) {
        td_store_failed(executor, err);
        answer_member(executor, &member, err);
        return;
    }
    err = append_member(executor, &member);
    if (err == TANDEM_OK || td_is_fatal(err))
        executor->members[executor->member_count++] = member;
    if (err != TANDEM_OK) {
        td_group_abort(executor);
        if (!td_is_fatal(err))
            answer_member(executor, &member, err);
        else if ((err = td_op_store_recover(executor->ops)) != TANDEM_OK)
            goto fail;
        if (executor->member_count && (err = group_repeat(executor)) != TANDEM_OK)
            goto fail;
    }
    if (executor->open && (executor->group_operations >= TD_GROUP_OPERATIONS_MAX ||
                           executor->group_bytes >= TD_GROUP_BYTES_MAX ||
                           executor->group_has_own))
        td_group_commit(executor); /* with operations of ours nothing more of ours: a new origin is due */
    return;

fail:
    group_fail(executor, err);
}
