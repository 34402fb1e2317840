#include "reactor/executor.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/executor_state.h"
#include "reactor/prepare.h"
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
enum { READER_CHECK_MS = 30000 };
enum { LOOKS_MAX = 1 << 20 }; /* at recent entries, for one request: half a millisecond */

/* ---- Local requests ---- */

static void prepared(td_view_request *view_request)
{
    td_local_request *request = view_request->context;

    request->message.kind = PREPARED;
    td_actor_post(request->executor->actor, &request->message);
}

/* The first count jobs are back from the view. */
static void known_drop(td_executor *executor, const td_local_group *group, size_t count)
{
    for (size_t i = 0; i < count; i++)
        td_known_answer(&executor->known, group->jobs[i].collection, group->jobs[i].document, NULL,
                        0);
}

/* They are back with what the view found, and that is still true. */
static void known_learn(td_executor *executor, const td_local_group *group)
{
    for (size_t i = 0; i < group->count; i++) {
        const td_local_job *job = &group->jobs[i];
        const tandem_model *model = NULL;

        if (job->created_hlc && !job->is_delete)
            model = td_model_registry_find(executor->models, tandem_slice_text(job->model_found));
        if (model && model->prepare_reads_state)
            model = NULL;
        td_known_answer(&executor->known, job->collection, job->document, model, job->created_hlc);
    }
}

static uint64_t index_lag(const td_executor *executor)
{
    uint64_t indexed = atomic_load(&executor->indexed);

    /* The view can be ahead: of a commit whose outcome is not known here yet. */
    return executor->recent.last > indexed ? executor->recent.last - indexed : 0;
}

/*
 * How far must the view have come to prepare it? As far as it has told, for it may begin anew, and to where
 * its documents were touched last: what it finds is held against what is touched later. The second time
 * to where all is, and where that is not looked up quickly.
 */
static uint64_t position_to_prepare(const td_executor *executor, const td_local_request *request)
{
    const td_local_group *group = &request->group;
    uint64_t position = atomic_load(&executor->position);
    uint64_t indexed = atomic_load(&executor->indexed), needed = indexed;
    uint64_t lag = index_lag(executor);

    if (!group->count || request->attempts || lag > TD_INDEX_LAG_MAX ||
        lag > LOOKS_MAX / group->count)
        return position;
    for (size_t i = 0; i < group->count; i++) {
        const td_local_job *job = &group->jobs[i];
        uint64_t touched = td_recent_newest(&executor->recent, indexed,
                                            td_recent_hash(job->collection, job->document));

        needed = touched > needed ? touched : needed;
    }
    return needed < position ? needed : position;
}

/* Have the view prepare it. */
static void prepare(td_executor *executor, td_local_request *request)
{
    td_local_group *group = &request->group;

    group->err = TANDEM_OK; /* what was found on the spot is no answer */
    group->why[0] = '\0';
    for (size_t i = 0; i < group->count; i++) {
        if (td_known_ask(&executor->known, group->jobs[i].collection, group->jobs[i].document) ==
            TANDEM_OK)
            continue;
        known_drop(executor, group, i);
        td_answer_local(request, TANDEM_E_NOMEM);
        return;
    }
    tandem_writer_clear(&request->group.payloads);
    memset(&request->prepare, 0, sizeof(request->prepare));
    request->prepare.kind = request->group.count ? TD_VIEW_PREPARE : TD_VIEW_WAIT;
    request->prepare.group = &request->group;
    request->prepare.again = request->attempts > 0;
    request->prepare.position = position_to_prepare(executor, request);
    request->prepare.done = prepared;
    request->prepare.context = request;
    td_document_view_post(executor->view, &request->prepare);
}

static void take_prepared(td_executor *executor, td_local_request *request)
{
    td_local_group *group = &request->group;
    tandem_err err;

    if (request->prepare.err != TANDEM_OK || group->err != TANDEM_OK) {
        known_drop(executor, group, group->count);
        td_answer_local(request, request->prepare.err);
        return;
    }
    /* First: what touched a document may not have happened, and cannot be looked at either; and with
     * an origin that is found by a recovery the clock begins again. */
    if ((err = td_group_begin(executor)) != TANDEM_OK) {
        known_drop(executor, group, group->count);
        td_store_failed(executor, err);
        td_answer_local(request, err);
        return;
    }
    for (size_t i = 0; i < group->count; i++) {
        if (!td_is_stale(executor, group, &group->jobs[i]))
            continue;
        td_probe(executor->env, TD_PROBE_JOB_STALE);
        known_drop(executor, group, group->count);
        if (++request->attempts > TD_PREPARE_ATTEMPTS_MAX) {
            snprintf(group->why, sizeof(group->why), "the document changes too fast");
            td_answer_local(request, TANDEM_E_CONFLICT);
            return;
        }
        /* Only now: what others have created since the view was asked is dated behind that time. */
        if (td_is_of_future(executor, &group->jobs[i]))
            group->clock = td_clock_read(&executor->clock);
        /* What made it stale may stand in the open group: the view sees it after the commit. */
        if (executor->open)
            td_group_commit(executor);
        prepare(executor, request);
        return;
    }
    known_learn(executor, group);
    td_group_add(executor, (td_member){.local = request});
}

static tandem_err look_known(void *context, tandem_slice collection, tandem_slice document,
                             td_document_info *out)
{
    td_executor *executor = context;
    uint64_t created_hlc;
    const tandem_model *model =
        td_known_find(&executor->known, collection, document, &created_hlc);

    if (!model || created_hlc > td_clock_read(&executor->clock))
        return TANDEM_E_NOT_FOUND;
    *out = (td_document_info){.known = true, .created = true};
    td_put_u64(out->epoch.bytes, created_hlc);
    snprintf(out->model, sizeof(out->model), "%s", model->name);
    return TANDEM_OK;
}

/* Does nothing of it depend on more than that its documents live, and are those of this moment? Else
 * the view has to look; and past the lag waiting for it is what slows the writers down. */
static bool may_be_known(td_executor *executor, const td_local_group *group)
{
    uint64_t created_hlc;

    if (!group->count || index_lag(executor) > TD_INDEX_LAG_MAX)
        return false;
    for (size_t i = 0; i < group->count; i++)
        if (group->jobs[i].is_delete || group->jobs[i].has_expect)
            return false;
    return td_known_find(&executor->known, group->jobs[0].collection, group->jobs[0].document,
                         &created_hlc);
}

/* Prepare it on the spot, if all its documents are known, and append it. */
static void take_local(td_executor *executor, td_local_request *request)
{
    const td_preparer preparer = {
        .look = look_known, .look_context = executor, .registry = executor->models};
    td_local_group *group = &request->group;
    tandem_err err;

    group->clock = UINT64_MAX;
    if (!may_be_known(executor, group)) {
        prepare(executor, request);
        return;
    }
    if ((err = td_group_begin(executor)) != TANDEM_OK) { /* first, as in take_prepared() */
        td_store_failed(executor, err);
        td_answer_local(request, err);
        return;
    }
    group->origin = td_op_store_identity(executor->ops)->origin;
    err = td_prepare(&preparer, group);
    if (err == TANDEM_E_NOT_FOUND)
        prepare(executor, request);
    else if (err != TANDEM_OK)
        td_answer_local(request, err);
    else
        td_group_add(executor, (td_member){.local = request});
}

/* ---- Remote requests ---- */

static void take_remote(td_executor *executor, td_remote_request *request)
{
    if (!executor->held && index_lag(executor) <= TD_INDEX_LAG_MAX) {
        td_group_add(executor, (td_member){.remote = request});
        return;
    }
    request->next = NULL;
    *executor->held_end = request;
    executor->held_end = &request->next;
    /* The index may have come so far between the look and this, and nobody told. */
    if (!atomic_exchange(&executor->holds, true) && index_lag(executor) <= TD_INDEX_LAG_MAX / 2)
        td_executor_indexed(executor, atomic_load(&executor->indexed));
}

static void take_indexed(td_executor *executor)
{
    td_remote_request *held = executor->held;

    atomic_store(&executor->indexed_posted, false);
    if (!held || index_lag(executor) > TD_INDEX_LAG_MAX / 2)
        return;
    atomic_store(&executor->holds, false);
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
        td_group_commit(executor);
        return;
    }
    if (executor->is_unsettled)
        err = td_group_settle(executor);
    else /* after a recovery a commit is never skipped for having nothing new */
        err = td_op_store_recover(executor->ops);
    if (err != TANDEM_OK || (err = td_group_begin(executor)) != TANDEM_OK)
        td_store_failed(executor, err);
    else
        td_group_commit(executor);
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
        take_local(executor, (td_local_request *)message);
        break;
    case PREPARED:
        take_prepared(executor, (td_local_request *)message);
        break;
    case REMOTE:
        atomic_fetch_sub(&executor->waiting_jobs, ((td_remote_request *)message)->count);
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
        td_reincarnate(executor);
        break;
    case REINCARNATE_LATER:
        executor->reincarnate_timed = false;
        td_reincarnate(executor);
        break;
    case GIVE_UP:
        atomic_store(&executor->give_up_posted, false);
        if (td_group_settle(executor) != TANDEM_OK)
            td_group_give_up(executor, true);
        break;
    default:
        assert(false && "a message of the executor's");
    }
}

static void drained(void *self)
{
    td_executor *executor = self;

    if (executor->open)
        td_group_commit(executor);
}

static const td_actor_ops executor_ops = {
    .name = "executor", .handle = handle, .drained = drained};

static void drop_nothing(td_message *message)
{
    (void)message; /* it is part of the executor */
}

static void drop_local(td_message *message)
{
    td_answer_local((td_local_request *)message, TANDEM_E_CLOSED);
}

static void drop_remote(td_message *message)
{
    td_answer_remote((td_remote_request *)message, TANDEM_E_CLOSED);
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
        atomic_fetch_or(&executor->reincarnation, TD_REASON(TANDEM_INCARNATION_CONTINUED));
    return TANDEM_OK;
}

static tandem_err count_forks_of(void *context, const td_collection_info *info)
{
    return td_op_store_vector(((td_executor *)context)->ops, info->name, NULL, count_fork, context);
}

tandem_err td_executor_open(td_host *host, td_op_store *ops, const td_model_registry *models,
                            td_event_bus *bus, uint64_t max_clock_skew_ms, td_executor **out)
{
    td_executor *executor = calloc(1, sizeof(*executor));
    uint64_t position, high_water;
    tandem_err err;

    if (!executor)
        return TANDEM_E_NOMEM;
    executor->ops = ops;
    executor->models = models;
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
        td_group_abort(executor);
    td_answer_members(executor, executor->is_unsettled ? TANDEM_E_OUTCOME_UNKNOWN : TANDEM_E_CLOSED);
    while (executor->held) {
        td_remote_request *next = executor->held->next;

        td_answer_remote(executor->held, TANDEM_E_CLOSED);
        executor->held = next;
    }
    td_actor_free(executor->actor);
    tandem_writer_release(&executor->encoded);
    td_recent_release(&executor->recent);
    td_known_release(&executor->known);
    free(executor->members);
    free(executor->parsed);
    free(executor);
}

static td_message *local_message(td_executor *executor, td_local_request *request)
{
    request->executor = executor;
    request->attempts = 0;
    request->group.err = TANDEM_OK;
    request->message.kind = LOCAL;
    request->message.drop = drop_local;
    return &request->message;
}

void td_executor_local(td_executor *executor, td_local_request *request)
{
    td_actor_post(executor->actor, local_message(executor, request));
}

tandem_err td_executor_local_ask(td_executor *executor, td_local_request *request, td_reply *reply)
{
    return td_actor_ask(executor->actor, local_message(executor, request), reply);
}

void td_executor_remote(td_executor *executor, td_remote_request *request)
{
    request->message.kind = REMOTE;
    request->message.drop = drop_remote;
    request->executor = executor;
    request->parsed = NULL;
    request->parsed_count = 0;
    /* More than its next group waits for it, so it is the executor that others wait for, and whoever
     * brings still more has the time. */
    if (atomic_fetch_add(&executor->waiting_jobs, request->count) >= TD_GROUP_OPERATIONS_MAX)
        td_parse_remote(executor, request);
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
    if (atomic_load(&executor->holds) && !atomic_exchange(&executor->indexed_posted, true))
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

uint64_t td_executor_commits(td_executor *executor)
{
    return atomic_load(&executor->commits);
}

tandem_err td_executor_store_err(td_executor *executor)
{
    return (tandem_err)atomic_load(&executor->store_err);
}
