/*
 * What a job becomes in the open transaction: operations of ours, dated and chained; those of a peer,
 * parsed, dated not too far ahead, taken or refused; and what is known to be lacking.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/executor_state.h"
#include "reactor/runtime.h"
#include "store/planted.h"
#include "store/probe.h"

/* Operations: a few MiB. */
enum { PARSED_AHEAD_MAX = 16384 };

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
        if (td_recent_note(&executor->recent, &job[i]))
            td_known_forget(&executor->known, job[i].collection, job[i].document);
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

/* Parse a remote job, and hash it; parsed has room for all of it. */
static tandem_err parse_operations(const td_remote_job *job, td_operation *parsed)
{
    tandem_reader reader = tandem_reader_of(job->operations);

    if (job->count == 0)
        return TANDEM_E_CHAIN;
    if (job->count > TANDEM_JOB_OPERATIONS_MAX)
        return TANDEM_E_LIMIT;
    for (uint32_t i = 0; i < job->count; i++) {
        tandem_slice bytes;
        tandem_err err;

        if ((err = tandem_read_binary(&reader, &bytes)) != TANDEM_OK ||
            (err = td_operation_parse(bytes, &parsed[i])) != TANDEM_OK)
            return err;
        td_operation_hash(&parsed[i]);
    }
    return TANDEM_OK;
}

static void hash_given(td_remote_job *job)
{
    for (uint32_t i = 0; i < job->count && !job->hashed; i++)
        td_operation_hash(&job->given[i]);
    job->hashed = true;
    job->parsed = job->given;
    job->parse_err = TANDEM_OK;
}

/* What is wrong with its bytes is kept apart from its answer: it may be appended several times. */
static void parse_remote_job(td_remote_job *job, td_operation *parsed)
{
    if (job->given) {
        hash_given(job);
        return;
    }
    job->parsed = parsed;
    job->parse_err = job->wanted || job->covered ? TANDEM_OK : parse_operations(job, parsed);
}

void td_parse_remote(td_executor *executor, td_remote_request *request)
{
    uint64_t operations = 0, bytes = 0, parsed = 0;

    for (uint32_t i = 0; i < request->count; i++) {
        if (request->jobs[i].given)
            hash_given(&request->jobs[i]);
        if (request->jobs[i].given || request->jobs[i].count > TANDEM_JOB_OPERATIONS_MAX)
            continue;
        operations += request->jobs[i].count;
        bytes += request->jobs[i].operations.size;
    }
    /* A peer may claim more than there can be: then the executor says so. */
    if (!operations || operations > bytes / TD_OPERATION_BYTES_MIN ||
        atomic_load(&executor->parsed_ahead) + operations > PARSED_AHEAD_MAX ||
        !(request->parsed = malloc(operations * sizeof(*request->parsed))))
        return;
    request->parsed_count = operations;
    atomic_fetch_add(&executor->parsed_ahead, operations);
    for (uint32_t i = 0; i < request->count; i++) {
        td_remote_job *job = &request->jobs[i];

        if (job->given)
            continue;
        parse_remote_job(job, request->parsed + parsed);
        if (job->parse_err == TANDEM_OK)
            parsed += job->count;
    }
}

static uint64_t newest_of(const td_operation *operations, uint32_t count)
{
    uint64_t newest = 0;

    for (uint32_t i = 0; i < count; i++)
        if (operations[i].hlc > newest)
            newest = operations[i].hlc;
    return newest;
}

/* Append one remote job that was parsed, dated ahead_max at most; what is wrong with it is its answer.
 * Fatal errors come back. */
static tandem_err append_remote_job(td_executor *executor, const td_remote_request *request,
                                    td_remote_job *job, uint64_t ahead_max)
{
    const td_operation *parsed = job->parsed;
    bool restored = request->restored;
    uint64_t newest;

    job->detail = 0;
    memset(&job->result, 0, sizeof(job->result));
    if (job->wanted || job->covered) {
        job->err = job->wanted ? want(executor, job->wanted) : cover(executor, job->covered);
        return td_is_fatal(job->err) ? job->err : TANDEM_OK;
    }
    if ((job->err = job->parse_err) != TANDEM_OK)
        return TANDEM_OK;
    newest = newest_of(parsed, job->count);
    if (newest > ahead_max && !restored && !td_planted(TD_PLANTED_SKEW_UNCHECKED)) {
        job->err = TANDEM_E_CLOCK;
        job->detail = newest - td_hlc_of_ms(executor->max_clock_skew_ms);
        td_probe(executor->env, TD_PROBE_CLOCK_WAIT);
        tell_of(executor, TANDEM_EVENT_CLOCK, &parsed[job->count - 1]);
    }
    if (job->err == TANDEM_OK && !restored &&
        !td_admission_takes(&executor->admission, parsed, job->count)) {
        job->err = refuse(executor, parsed, job->count, request->part);
        if (job->err == TANDEM_E_REFUSED && td_planted(TD_PLANTED_REFUSAL_AS_TAKEN))
            job->err = TANDEM_OK;
        job->result.duplicates = job->err == TANDEM_OK ? job->count : 0;
    } else if (job->err == TANDEM_OK) {
        job->err = append(executor, parsed, job->count, request->part, &job->result);
    }
    if (job->err == TANDEM_E_PREDECESSOR && td_planted(TD_PLANTED_REFUSAL_DROPPED))
        job->err = TANDEM_OK;
    if (job->err == TANDEM_E_QUARANTINED)
        tell_of(executor, TANDEM_EVENT_QUARANTINE, &parsed[job->count - 1]);
    if (job->err == TANDEM_OK) {
        if (newest <= ahead_max && !td_planted(TD_PLANTED_CLOCK_NOT_OBSERVED))
            td_clock_observe(&executor->clock, newest);
        if (job->result.appended && is_own(executor, parsed)) {
            executor->group_has_own = true;
            td_probe(executor->env, TD_PROBE_OWN_CONTINUED);
        }
    }
    return td_is_fatal(job->err) ? job->err : TANDEM_OK;
}

tandem_err td_append_remote(td_executor *executor, td_remote_request *request)
{
    uint64_t ahead_max =
        td_hlc_of_ms(td_env_wall_ms(executor->env) + executor->max_clock_skew_ms);
    tandem_err err;

    request->withdrawals = atomic_load(&executor->withdrawals);
    if (request->withdraw)
        return withdraw(executor);
    for (uint32_t i = 0; i < request->count; i++) {
        td_remote_job *job = &request->jobs[i];

        if (!request->parsed)
            parse_remote_job(job, executor->parsed);
        if (i && job[-1].err == TANDEM_E_CLOCK && td_planted(TD_PLANTED_CLOCK_STOPS_ALL)) {
            job->err = job[-1].err;
            job->detail = job[-1].detail;
        } else if ((err = append_remote_job(executor, request, job, ahead_max)) !=
                   TANDEM_OK) {
            return err;
        }
    }
    return TANDEM_OK;
}

bool td_is_of_future(td_executor *executor, const td_local_job *job)
{
    return job->created_hlc > td_clock_read(&executor->clock);
}

/* A payload that was made from a state may say who wrote it. */
static bool is_other_origin(const td_executor *executor, const td_local_group *group)
{
    return memcmp(group->origin, td_op_store_identity(executor->ops)->origin,
                  TANDEM_ORIGIN_BYTES) != 0;
}

bool td_is_stale(td_executor *executor, const td_local_group *group, const td_local_job *job)
{
    uint64_t hash = td_recent_hash(job->collection, job->document);
    bool any_matters = job->create || job->has_expect || job->state_read;

    return td_is_of_future(executor, job) || (job->state_read && is_other_origin(executor, group)) ||
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
 * repeated without this one (see td_group_add).
 */
tandem_err td_append_local(td_executor *executor, td_local_request *request)
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
