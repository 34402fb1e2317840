/*
 * Executing jobs: public jobs become local requests of the executor, and their answers receipts.
 */
#include "reactor/execute.h"

#include <stdio.h>
#include <stdlib.h>

#include "reactor/reactor_parts.h"

/* A public job as a request. All strings are copied into one block, so that it may outlive the
 * call. */
typedef struct execution {
    td_local_request request;
    tandem_reactor *reactor;
    td_reply *reply;         /* of a call that waits */
    tandem_executed_fn done; /* of one that does not */
    void *done_context;
    td_bus_call call;
    td_local_operation *operations;
    tandem_writer inputs; /* JSON inputs as msgpack */
    char *text;
} execution;

static void execution_free(execution *e)
{
    if (!e)
        return;
    tandem_writer_release(&e->request.group.payloads);
    tandem_writer_release(&e->inputs);
    td_reply_free(e->reply);
    free(e->request.group.jobs);
    free(e->operations);
    free(e->text);
    free(e);
}

static void set_why(char *why, const char *text)
{
    if (why)
        snprintf(why, TANDEM_WHY_BYTES, "%s", text);
}

/* Copies strings one behind the other. */
struct copier {
    char *at;
};

static tandem_slice copy_text(struct copier *copier, const char *text)
{
    size_t size = strlen(text);
    tandem_slice copy = tandem_slice_of(copier->at, size);

    memcpy(copier->at, text, size);
    copier->at += size;
    return copy;
}

static tandem_slice copy_bytes(struct copier *copier, tandem_slice bytes)
{
    tandem_slice copy = tandem_slice_of(copier->at, bytes.size);

    if (bytes.size)
        memcpy(copier->at, bytes.bytes, bytes.size);
    copier->at += bytes.size;
    return copy;
}

static const char *or_default(const char *text, const char *fallback)
{
    return text ? text : fallback;
}

static size_t job_text_bytes(const tandem_job *job)
{
    size_t size = strlen(job->collection) + strlen(job->document) +
                  strlen(or_default(job->branch, "main")) + strlen(or_default(job->model, ""));

    for (size_t i = 0; i < job->count; i++)
        size += strlen(or_default(job->operations[i].scope, "global")) +
                strlen(job->operations[i].type) +
                (job->operations[i].json ? 0 : job->operations[i].input.size);
    return size;
}

static bool job_is_wellformed(const tandem_job *job, bool is_delete)
{
    if (!job->collection || !job->document || (job->count && !job->operations))
        return false;
    if (is_delete ? job->count != 0 : job->count == 0)
        return false;
    for (size_t i = 0; i < job->count; i++)
        if (!job->operations[i].type)
            return false;
    return true;
}

static tandem_err copy_operation(execution *e, struct copier *copier,
                                 const tandem_input *input, td_local_operation *out, char *why)
{
    tandem_err err;

    out->scope = copy_text(copier, or_default(input->scope, "global"));
    out->type = copy_text(copier, input->type);
    if (!input->json) {
        out->input = copy_bytes(copier, input->input);
        return TANDEM_OK;
    }
    /* The writer still moves: keep place and size until all inputs are in. */
    out->payload_at = e->inputs.size;
    if ((err = tandem_json_read(tandem_slice_text(input->json), &e->inputs, why)) !=
        TANDEM_OK)
        return err;
    out->payload_size = e->inputs.size - out->payload_at;
    return TANDEM_OK;
}

static void copy_job(struct copier *copier, const tandem_job *job, bool is_delete,
                     td_local_job *out)
{
    *out = (td_local_job){
        .collection = copy_text(copier, job->collection),
        .document = copy_text(copier, job->document),
        .branch = copy_text(copier, or_default(job->branch, "main")),
        .model = copy_text(copier, or_default(job->model, "")),
        .count = job->count,
        .is_delete = is_delete,
        .has_expect = job->has_expect,
        .expect_position = job->expect_position,
    };
}

static tandem_err execution_open(tandem_reactor *reactor, const tandem_job *jobs, size_t count,
                                 bool is_delete, size_t *failed, char *why, execution **out)
{
    execution *e = calloc(1, sizeof(*e));
    td_local_group *group;
    size_t operations = 0, size = 0, at = 0;
    struct copier copier;
    char reason[TANDEM_WHY_BYTES] = "";
    tandem_err err = TANDEM_E_NOMEM;

    if (!e)
        return TANDEM_E_NOMEM;
    e->reactor = reactor;
    tandem_writer_init(&e->inputs);
    group = &e->request.group;
    tandem_writer_init(&group->payloads);
    for (size_t i = 0; i < count; i++) {
        if (!job_is_wellformed(&jobs[i], is_delete)) {
            err = TANDEM_E_INVALID;
            goto fail;
        }
        operations += jobs[i].count;
        size += job_text_bytes(&jobs[i]);
    }
    if (!(group->jobs = calloc(count, sizeof(*group->jobs))) ||
        !(e->operations = calloc(operations + 1, sizeof(*e->operations))) ||
        !(e->text = malloc(size + 1)))
        goto fail;
    copier.at = e->text;
    group->count = count;
    for (size_t i = 0; i < count; i++) {
        copy_job(&copier, &jobs[i], is_delete, &group->jobs[i]);
        group->jobs[i].operations = &e->operations[at];
        for (size_t k = 0; k < jobs[i].count; k++) {
            err = copy_operation(e, &copier, &jobs[i].operations[k],
                                 &e->operations[at++], reason);
            if (err != TANDEM_OK) {
                if (failed)
                    *failed = i;
                set_why(why, reason);
                goto fail;
            }
        }
    }
    for (size_t i = 0; i < at; i++) {
        td_local_operation *operation = &e->operations[i];

        if (operation->payload_size)
            operation->input = tandem_slice_of(e->inputs.bytes + operation->payload_at,
                                               operation->payload_size);
    }
    *out = e;
    return TANDEM_OK;

fail:
    execution_free(e);
    return err;
}

static void fill_receipt(const tandem_reactor *reactor, const td_local_job *job,
                         tandem_receipt *receipt)
{
    memcpy(receipt->origin, tandem_reactor_origin(reactor), sizeof(receipt->origin));
    memcpy(receipt->hash, job->hash, sizeof(receipt->hash));
    receipt->first_seq = job->first_seq;
    receipt->seq = job->seq;
    receipt->ordinal = job->ordinal;
    receipt->hlc = job->hlc;
}

static void executed(td_local_request *request)
{
    execution *e = request->context;

    td_reactor_executing(e->reactor, -1);
    td_reply_set(e->reply, request->group.err);
}

static tandem_err execute(tandem_reactor *reactor, const tandem_job *jobs, size_t count,
                          bool is_delete, tandem_receipt *receipts, size_t *failed, char *why)
{
    execution *e;
    tandem_err err;

    if (!reactor || !jobs || count < 1 || count > TD_GROUP_JOBS_MAX)
        return TANDEM_E_INVALID;
    if (td_reactor_is_closing(reactor))
        return TANDEM_E_CLOSED;
    if ((err = execution_open(reactor, jobs, count, is_delete, failed, why, &e)) !=
        TANDEM_OK)
        return err;
    if ((err = td_reply_open(td_reactor_runtime(reactor), &e->reply)) != TANDEM_OK) {
        execution_free(e);
        return err;
    }
    e->request.done = executed;
    e->request.context = e;
    td_reactor_executing(reactor, 1);
    err = td_executor_local_ask(td_reactor_executor(reactor), &e->request, e->reply);
    if (err == TANDEM_OK && receipts)
        for (size_t i = 0; i < count; i++)
            fill_receipt(reactor, &e->request.group.jobs[i], &receipts[i]);
    if (err != TANDEM_OK) {
        if (failed)
            *failed = e->request.group.failed_job;
        set_why(why, e->request.group.why);
    }
    execution_free(e);
    return err;
}

tandem_err tandem_execute(tandem_reactor *reactor, const tandem_job *job, tandem_receipt *receipt,
                          char why[TANDEM_WHY_BYTES])
{
    set_why(why, "");
    return execute(reactor, job, 1, false, receipt, NULL, why);
}

tandem_err tandem_execute_group(tandem_reactor *reactor, const tandem_job *jobs, size_t count,
                                tandem_receipt *receipts, size_t *failed,
                                char why[TANDEM_WHY_BYTES])
{
    set_why(why, "");
    return execute(reactor, jobs, count, false, receipts, failed, why);
}

tandem_err tandem_delete(tandem_reactor *reactor, const char *collection, const char *document,
                         tandem_receipt *receipt, char why[TANDEM_WHY_BYTES])
{
    tandem_job job = {.collection = collection, .document = document};

    set_why(why, "");
    return execute(reactor, &job, 1, true, receipt, NULL, why);
}

static execution *execution_of(td_bus_call *call)
{
    return (execution *)((char *)call - offsetof(execution, call));
}

static void async_run(td_bus_call *call)
{
    execution *e = execution_of(call);
    td_local_group *group = &e->request.group;
    tandem_receipt receipt;

    memset(&receipt, 0, sizeof(receipt));
    if (group->err == TANDEM_OK)
        fill_receipt(e->reactor, &group->jobs[0], &receipt);
    e->done(e->done_context, group->err, &receipt, group->why);
    td_reactor_executing(e->reactor, -1); /* only now: closing waits for the callback */
    execution_free(e);
}

static void async_drop(td_message *message)
{
    execution_free(execution_of((td_bus_call *)message));
}

static void async_executed(td_local_request *request)
{
    execution *e = request->context;

    e->call.run = async_run;
    e->call.message.drop = async_drop;
    td_event_bus_run(td_reactor_bus(e->reactor), &e->call);
}

tandem_err tandem_execute_async(tandem_reactor *reactor, const tandem_job *job,
                                tandem_executed_fn done, void *context)
{
    execution *e;
    char why[TANDEM_WHY_BYTES];
    tandem_err err;

    if (!reactor || !job || !done)
        return TANDEM_E_INVALID;
    if (td_reactor_is_closing(reactor))
        return TANDEM_E_CLOSED;
    if ((err = execution_open(reactor, job, 1, false, NULL, why, &e)) != TANDEM_OK)
        return err;
    e->done = done;
    e->done_context = context;
    e->request.done = async_executed;
    e->request.context = e;
    td_reactor_executing(reactor, 1);
    td_executor_local(td_reactor_executor(reactor), &e->request);
    return TANDEM_OK;
}

/* ---- Refusals ---- */

static void withdrawn(td_remote_request *request)
{
    td_reply_set(request->context, request->err);
}

tandem_err tandem_withdraw_refusals(tandem_reactor *reactor)
{
    td_remote_request request = {.withdraw = true, .done = withdrawn};
    td_reply *reply;
    tandem_err err;

    if (!reactor)
        return TANDEM_E_INVALID;
    if (td_reactor_is_closing(reactor))
        return TANDEM_E_CLOSED;
    if ((err = td_reply_open(td_reactor_runtime(reactor), &reply)) != TANDEM_OK)
        return err;
    request.context = reply;
    td_reactor_executing(reactor, 1);
    td_executor_remote(td_reactor_executor(reactor), &request);
    err = td_reply_wait(reply, UINT64_MAX);
    td_reply_free(reply);
    td_reactor_executing(reactor, -1);
    return err;
}

/* ---- Flushing ---- */

/* Something that comes behind all that was posted before it: first in the executor, then on the
 * loop. */
struct flush {
    td_local_request request;
    td_bus_call call;
    td_reply *reply;
};

static void flushed_request(td_local_request *request)
{
    td_reply_set(((struct flush *)request->context)->reply, TANDEM_OK);
}

static struct flush *flush_of(td_message *message)
{
    return (struct flush *)((char *)message - offsetof(struct flush, call.message));
}

static void flushed_call(td_bus_call *call)
{
    td_reply_set(flush_of(&call->message)->reply, TANDEM_OK);
}

static void flush_dropped(td_message *message)
{
    td_reply_set(flush_of(message)->reply, TANDEM_E_CLOSED);
}

static tandem_err flush_executor(tandem_reactor *reactor)
{
    struct flush flush = {.request.done = flushed_request};
    tandem_err err = td_reply_open(td_reactor_runtime(reactor), &flush.reply);

    if (err != TANDEM_OK)
        return err;
    flush.request.context = &flush;
    tandem_writer_init(&flush.request.group.payloads);
    td_executor_local(td_reactor_executor(reactor), &flush.request);
    err = td_reply_wait(flush.reply, UINT64_MAX);
    td_reply_free(flush.reply);
    tandem_writer_release(&flush.request.group.payloads);
    return err;
}

static tandem_err flush_loop(tandem_reactor *reactor)
{
    struct flush flush = {.call = {.run = flushed_call, .message.drop = flush_dropped}};
    tandem_err err = td_reply_open(td_reactor_runtime(reactor), &flush.reply);

    if (err != TANDEM_OK)
        return err;
    td_event_bus_run(td_reactor_bus(reactor), &flush.call);
    /* An embedder who drives the loop is inside tandem_close() now: nobody else would turn it. */
    while (td_host_poll(td_reactor_loop(reactor)) == TANDEM_OK &&
           td_reply_wait(flush.reply, 0) == TANDEM_E_TIMEOUT)
        ;
    err = td_reply_wait(flush.reply, UINT64_MAX);
    td_reply_free(flush.reply);
    return err;
}

void td_execute_flush(tandem_reactor *reactor)
{
    while (td_reactor_executing_count(reactor) > 0) {
        td_executor_give_up(td_reactor_executor(reactor));
        if (flush_executor(reactor) != TANDEM_OK || flush_loop(reactor) != TANDEM_OK)
            return;
    }
}
