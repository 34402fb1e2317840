/*
 * The executor, inside a reactor on the simulation with its operations store in memory: there every
 * commit can be counted, made to fail, or made to have happened although it failed.
 *
 * Each seed is another order of what the actors do; tests that race run over several.
 */
#include "tests/operation_maker.h"

#include <stdio.h>

#include "reactor/reactor_parts.h"
#include "tests/tally_model.h"

enum { SEEDS = 12, MS = 1000 };

/* ---- The store, watched ---- */

enum fate {
    FATE_WELL,
    FATE_LOST,     /* fails, and has not happened */
    FATE_HAPPENED, /* fails, and has happened */
};

/* There is one watched store at a time, and one thread that writes to it. */
static struct watch {
    td_store *store;
    const struct td_store_ops *real;
    struct td_store_ops ops;
    td_op_store *op_store;
    enum fate fate;
    unsigned fates; /* so many commits have it */
    bool recover_fails;
    size_t too_many; /* a value of so many bytes is refused with too_many_err; 0: none is */
    tandem_err too_many_err;
    unsigned commits, reader_checks;
    uint64_t group_max; /* operations in one commit */
    void (*on_commit)(void *context);
    void *context;
} watch;

static tandem_err watched_commit(td_txn *txn)
{
    uint64_t before, after;
    tandem_err err;

    watch.commits++;
    if (watch.on_commit)
        watch.on_commit(watch.context);
    if (watch.fates && watch.fate != FATE_WELL) {
        watch.fates--;
        if (watch.fate == FATE_LOST)
            watch.real->abort(txn);
        else
            assert_int_equal(TANDEM_OK, watch.real->commit(txn));
        return TANDEM_E_IO;
    }
    assert_int_equal(TANDEM_OK, td_op_store_last_ordinal(watch.op_store, &before));
    if ((err = watch.real->commit(txn)) != TANDEM_OK)
        return err;
    assert_int_equal(TANDEM_OK, td_op_store_last_ordinal(watch.op_store, &after));
    if (after - before > watch.group_max)
        watch.group_max = after - before;
    return TANDEM_OK;
}

static tandem_err watched_recover(td_store *store)
{
    return watch.recover_fails ? TANDEM_E_IO : watch.real->recover(store);
}

static tandem_err watched_reserve(td_txn *txn, unsigned table, tandem_slice key, size_t size,
                                  uint8_t **room_out)
{
    if (watch.too_many && size >= watch.too_many)
        return watch.too_many_err;
    return watch.real->reserve(txn, table, key, size, room_out);
}

static void watched_reader_check(td_store *store)
{
    watch.reader_checks++;
    watch.real->reader_check(store);
}

static void watch_store(td_op_store *ops)
{
    td_store *store = td_op_store_backend(ops);

    memset(&watch, 0, sizeof(watch));
    watch.store = store;
    watch.op_store = ops;
    watch.real = store->ops;
    watch.ops = *store->ops;
    watch.ops.commit = watched_commit;
    watch.ops.recover = watched_recover;
    watch.ops.reserve = watched_reserve;
    watch.ops.reader_check = watched_reader_check;
    store->ops = &watch.ops;
}

/* The memory store's own way to fail. */
static void store_fails(tandem_err err, bool at_commit)
{
    watch.store->ops = watch.real;
    td_memory_store_fail(watch.store, err, at_commit);
    watch.store->ops = &watch.ops;
}

/* ---- The bed: a reactor on the simulation, or, where only that will do, on threads ---- */

struct bed {
    td_simulation *simulation;
    td_runtime *runtime;
    tandem_reactor *reactor;
    td_executor *executor;
    td_op_store *ops;
};

/* disks: NULL: its own, which go with it. */
static void bed_init_on_disks(struct bed *bed, td_reactor_disks *disks)
{
    tandem_options options = TANDEM_OPTIONS_INIT;
    tandem_input input = {.type = "NOTHING", .json = "1"};
    tandem_job job = {.collection = "c", .document = "d", .operations = &input, .count = 1};

    options.models = tally_models;
    options.model_count = 1;
    assert_int_equal(TANDEM_OK, td_reactor_open(bed->runtime, &options, disks, &bed->reactor));
    bed->executor = td_reactor_executor(bed->reactor);
    bed->ops = td_reactor_ops(bed->reactor);
    if (disks)
        return;
    /* A job that comes to nothing: once it is answered, no thread is at the store. */
    assert_int_equal(TANDEM_E_MODEL_UNKNOWN, tandem_execute(bed->reactor, &job, NULL, NULL));
    watch_store(bed->ops);
}

static void bed_init_on_runtime(struct bed *bed)
{
    bed_init_on_disks(bed, NULL);
}

static void bed_init(struct bed *bed, uint64_t seed)
{
    assert_int_equal(TANDEM_OK, td_simulation_open(seed, &bed->simulation));
    assert_int_equal(TANDEM_OK, td_simulation_runtime(bed->simulation, "a", 0, &bed->runtime));
    bed_init_on_runtime(bed);
}

static void report(void *context, const char *text)
{
    fprintf(stderr, "verify: %s\n", text);
}

static void bed_release(struct bed *bed)
{
    if (bed->reactor)
        assert_int_equal(TANDEM_OK, tandem_verify(bed->reactor, report, NULL));
    tandem_close(bed->reactor);
    td_runtime_free(bed->runtime);
    td_simulation_free(bed->simulation);
}

static int bed_open(void **state)
{
    *state = calloc(1, sizeof(struct bed));
    assert_non_null(*state);
    bed_init(*state, 3);
    return 0;
}

static int bed_free(void **state)
{
    bed_release(*state);
    free(*state);
    return 0;
}

static void settle(struct bed *bed)
{
    td_simulation_run(bed->simulation, MS);
}

static uint64_t durable(struct bed *bed)
{
    uint64_t ordinal;

    assert_int_equal(TANDEM_OK, td_op_store_last_ordinal(bed->ops, &ordinal));
    return ordinal;
}

static tandem_stat stat_of(struct bed *bed)
{
    tandem_stat stat;

    assert_int_equal(TANDEM_OK, tandem_stat_get(bed->reactor, &stat));
    return stat;
}

static uint64_t wall_hlc(struct bed *bed)
{
    return td_hlc_of_ms(td_env_wall_ms(bed->runtime->env));
}

/* ---- Local jobs ---- */

/* A local request as the executor sees it, of up to three jobs with one operation each. */
struct local {
    struct bed *bed;
    td_local_request request;
    td_local_job jobs[3];
    td_local_operation operations[3];
    tandem_writer inputs[3];
    char documents[3][32];
    unsigned answered;
    tandem_err err;
    uint64_t durable; /* when it was answered */
};

static void local_done(td_local_request *request)
{
    struct local *local = request->context;

    local->answered++;
    local->err = request->group.err;
    local->durable = durable(local->bed);
    if (local->err == TANDEM_OK)
        for (size_t i = 0; i < request->group.count; i++)
            assert_true(local->jobs[i].ordinal > 0 && local->jobs[i].ordinal <= local->durable);
}

static void local_init(struct local *local, struct bed *bed)
{
    memset(local, 0, sizeof(*local));
    local->bed = bed;
    local->request.done = local_done;
    local->request.context = local;
    local->request.group.jobs = local->jobs;
    tandem_writer_init(&local->request.group.payloads);
}

/* One more job: the input is JSON. */
static void local_add(struct local *local, const char *document, const char *type,
                      const char *json)
{
    size_t at = local->request.group.count++;
    td_local_operation *operation = &local->operations[at];
    char why[128];

    assert_true(at < 3);
    snprintf(local->documents[at], sizeof(local->documents[at]), "%s", document);
    tandem_writer_init(&local->inputs[at]);
    assert_int_equal(TANDEM_OK,
                     tandem_json_read(tandem_slice_text(json), &local->inputs[at], why));
    *operation = (td_local_operation){.scope = tandem_slice_text("global"),
                                      .type = tandem_slice_text(type),
                                      .input = tandem_writer_slice(&local->inputs[at])};
    local->jobs[at] = (td_local_job){.collection = tandem_slice_text("c"),
                                     .document = tandem_slice_text(local->documents[at]),
                                     .branch = tandem_slice_text("main"),
                                     .operations = operation,
                                     .count = 1};
}

static void local_post(struct local *local)
{
    td_executor_local(local->bed->executor, &local->request);
}

static void local_release(struct local *local)
{
    assert_int_equal(1, local->answered);
    for (size_t i = 0; i < local->request.group.count; i++)
        tandem_writer_release(&local->inputs[i]);
    tandem_writer_release(&local->request.group.payloads);
}

static tandem_err add_one(struct bed *bed, const char *document, tandem_receipt *receipt)
{
    tandem_input input = {.type = "counter.ADD", .json = "1"};
    tandem_job job = {.collection = "c", .document = document, .operations = &input, .count = 1};

    return tandem_execute(bed->reactor, &job, receipt, NULL);
}

static void expect_state(struct bed *bed, const char *document, const char *json)
{
    tandem_document *read;

    assert_int_equal(TANDEM_OK, tandem_document_read(bed->reactor, "c", document, NULL, NULL,
                                                     UINT64_MAX, &read, NULL));
    assert_string_equal(json, tandem_document_json(read));
    tandem_document_free(read);
}

/* ---- Remote jobs ---- */

enum { REMOTE_JOBS_MAX = 96 };

struct remote {
    struct bed *bed;
    td_remote_request request;
    td_remote_job jobs[REMOTE_JOBS_MAX];
    tandem_writer bytes[REMOTE_JOBS_MAX];
    td_operation *given[REMOTE_JOBS_MAX];
    unsigned answered;
    uint64_t durable;
    unsigned commits; /* when it was answered */
};

static void remote_done(td_remote_request *request)
{
    struct remote *remote = request->context;

    remote->answered++;
    remote->durable = durable(remote->bed);
    remote->commits = watch.commits;
    for (uint32_t i = 0; i < request->count; i++)
        if (request->jobs[i].err == TANDEM_OK)
            assert_true(request->jobs[i].result.last_ordinal <= remote->durable);
}

static void remote_init(struct remote *remote, struct bed *bed)
{
    memset(remote, 0, sizeof(*remote));
    remote->bed = bed;
    remote->request.jobs = remote->jobs;
    remote->request.done = remote_done;
    remote->request.context = remote;
}

static td_remote_job *remote_add_bytes(struct remote *remote, const tandem_writer *bytes,
                                       uint32_t count)
{
    uint32_t at = remote->request.count++;

    assert_true(at < REMOTE_JOBS_MAX);
    assert_int_equal(TANDEM_OK, tandem_writer_err(bytes));
    remote->bytes[at] = *bytes;
    remote->jobs[at] =
        (td_remote_job){.operations = tandem_writer_slice(bytes), .count = count, .err = 77};
    return &remote->jobs[at];
}

/* One more job of an invented origin: count operations on a counter, each adding one; or, of any
 * type, without meaning and with payloads of so many bytes. */
static td_remote_job *remote_add(struct remote *remote, struct maker *maker, uint64_t hlc,
                                 const char *document, const char *type, uint32_t count,
                                 size_t payload_bytes)
{
    static uint8_t payload[200 * 1024] = {1};
    tandem_writer bytes, one;

    tandem_writer_init(&bytes);
    tandem_writer_init(&one);
    for (uint32_t i = 0; i < count; i++) {
        td_operation operation = {
            .version = TD_OPERATION_VERSION,
            .flags = i + 1 < count ? TD_FLAG_CONTINUES : 0,
            .seq = maker->tip.seq + 1,
            .hlc = hlc + i,
            .origin = maker->origin,
            .predecessor = maker->tip.hash,
            .collection = tandem_slice_text(maker->collection),
            .document = tandem_slice_text(document),
            .branch = tandem_slice_text("main"),
            .scope = tandem_slice_text(strstr(type, "CREATE") ? "document" : "global"),
            .type = tandem_slice_text(type),
            .payload = tandem_slice_of(payload, payload_bytes ? payload_bytes : 1),
        };

        tandem_writer_clear(&one);
        assert_int_equal(TANDEM_OK, td_operation_encode(&operation, &one));
        assert_int_equal(TANDEM_OK, td_operation_parse(tandem_writer_slice(&one), &operation));
        td_operation_hash(&operation);
        maker->tip.seq++;
        memcpy(maker->tip.hash, operation.hash, TANDEM_HASH_BYTES);
        tandem_write_binary(&bytes, tandem_writer_slice(&one));
    }
    tandem_writer_release(&one);
    return remote_add_bytes(remote, &bytes, count);
}

/* The same bytes once more, in another request. */
static td_remote_job *remote_add_again(struct remote *remote, const td_remote_job *job)
{
    tandem_writer bytes;

    tandem_writer_init(&bytes);
    tandem_write_raw(&bytes, job->operations);
    return remote_add_bytes(remote, &bytes, job->count);
}

static bool gives; /* jobs that parse are parsed by whoever posts them … */
static bool hashes; /* … and of the next request it is seen that they are hashed, too */

/* NULL: it does not parse. */
static td_operation *parse_job(const td_remote_job *job)
{
    td_operation *operations = calloc(job->count, sizeof(*operations));
    tandem_reader reader = tandem_reader_of(job->operations);
    tandem_slice canonical;

    for (uint32_t i = 0; i < job->count; i++) {
        if (tandem_read_binary(&reader, &canonical) == TANDEM_OK &&
            td_operation_parse(canonical, &operations[i]) == TANDEM_OK)
            continue;
        free(operations);
        return NULL;
    }
    return operations;
}

static void remote_post(struct remote *remote)
{
    for (uint32_t i = 0; gives && i < remote->request.count; i++) {
        td_remote_job *job = &remote->jobs[i];

        if (!job->given && job->count >= 1 && job->count <= TANDEM_JOB_OPERATIONS_MAX)
            remote->given[i] = job->given = parse_job(job);
    }
    td_executor_remote(remote->bed->executor, &remote->request);
    for (uint32_t i = 0; hashes && i < remote->request.count; i++)
        assert_true(!remote->jobs[i].given || remote->jobs[i].hashed);
    hashes = false;
}

static void remote_release(struct remote *remote)
{
    assert_int_equal(1, remote->answered);
    for (uint32_t i = 0; i < remote->request.count; i++) {
        tandem_writer_release(&remote->bytes[i]);
        free(remote->given[i]);
    }
}

/* ---- Groups ---- */

/*
 * On threads: the first commit takes as long as the test says, so that everything posted meanwhile
 * is queued when it ends; later ones take until the view has answered all that it was asked.
 */
struct gate {
    struct bed *bed;
    td_reply *reached, *open;
    bool passed;
    struct local local; /* whose commit it is */
};

static void view_answered(td_view_request *request)
{
    td_reply_set(request->context, TANDEM_OK);
}

static void gate_commit(void *context)
{
    struct gate *gate = context;
    td_view_request request = {.kind = TD_VIEW_WAIT, .done = view_answered};
    td_reply *reply;

    if (!gate->passed) {
        gate->passed = true;
        td_reply_set(gate->reached, TANDEM_OK);
        td_reply_wait(gate->open, UINT64_MAX);
        return;
    }
    assert_int_equal(TANDEM_OK, td_reply_open(gate->bed->runtime, &reply));
    request.context = reply;
    td_document_view_post(td_reactor_view(gate->bed->reactor), &request);
    td_reply_wait(reply, UINT64_MAX);
    td_reply_free(reply);
}

static void gate_close(struct gate *gate, struct bed *bed)
{
    memset(bed, 0, sizeof(*bed));
    assert_int_equal(TANDEM_OK,
                     td_threads_open(false, NULL, NULL, TANDEM_LOG_ERROR, &bed->runtime));
    bed_init_on_runtime(bed);
    memset(gate, 0, sizeof(*gate));
    gate->bed = bed;
    assert_int_equal(TANDEM_OK, td_reply_open(bed->runtime, &gate->reached));
    assert_int_equal(TANDEM_OK, td_reply_open(bed->runtime, &gate->open));
    watch.on_commit = gate_commit;
    watch.context = gate;
    local_init(&gate->local, bed);
    local_add(&gate->local, "gate", "counter.ADD", "1"); /* two operations */
    local_post(&gate->local);
    td_reply_wait(gate->reached, UINT64_MAX);
}

/* Until a position is committed, and answered: that comes after it. */
static void gate_open(struct gate *gate, uint64_t position)
{
    struct bed *bed = gate->bed;
    uint64_t reached;

    td_reply_set(gate->open, TANDEM_OK);
    assert_int_equal(TANDEM_OK, tandem_wait(bed->reactor, position, UINT64_MAX));
    assert_int_equal(TANDEM_OK, tandem_position(bed->reactor, &reached));
    assert_int_equal(position, reached);
    tandem_close(bed->reactor);
    bed->reactor = NULL;
}

static void gate_release(struct gate *gate)
{
    assert_int_equal(TANDEM_OK, gate->local.err);
    local_release(&gate->local);
    td_reply_free(gate->reached);
    td_reply_free(gate->open);
    bed_release(gate->bed);
}

/* What is queued when a commit ends goes into the next. */
static void queued_jobs_share_commits(void **state)
{
    enum { QUEUED = 64 };
    static struct local locals[QUEUED];
    static struct remote remotes[QUEUED];
    struct maker maker;
    struct gate gate;
    struct bed bed;

    gate_close(&gate, &bed);
    maker_init(&maker, "c", 1);
    for (unsigned i = 0; i < QUEUED; i++) {
        char document[16];

        snprintf(document, sizeof(document), "d%u", i);
        local_init(&locals[i], &bed);
        local_add(&locals[i], document, "counter.ADD", "1");
        local_post(&locals[i]);
        remote_init(&remotes[i], &bed);
        remote_add(&remotes[i], &maker, wall_hlc(&bed), "r", "counter.ADD", 1, 0);
        remote_post(&remotes[i]);
    }
    gate_open(&gate, 2 + 3 * QUEUED);
    /* The gate's own; the remote jobs at once; then what the view had answered until their commit
     * began, and what it answered during it. */
    assert_true(watch.commits <= 4);
    for (unsigned i = 0; i < QUEUED; i++) {
        assert_int_equal(TANDEM_OK, locals[i].err);
        assert_int_equal(TANDEM_OK, remotes[i].jobs[0].err);
        local_release(&locals[i]);
        remote_release(&remotes[i]);
    }
    gate_release(&gate);
}

static void jobs_one_after_the_other_are_committed_each(void **state)
{
    struct bed *bed = *state;

    for (unsigned i = 1; i <= 100; i++) {
        assert_int_equal(TANDEM_OK, add_one(bed, "d", NULL));
        assert_int_equal(i, watch.commits);
    }
    expect_state(bed, "d", "100");
}

/* 30 jobs at once, of so many operations each: at most `most` operations in a commit, and not
 * much less. */
static void group_has_limit(uint32_t operations, size_t bytes, uint64_t most)
{
    enum { QUEUED = 30 };
    static struct remote remotes[QUEUED];
    struct maker maker;
    struct gate gate;
    struct bed bed;

    gate_close(&gate, &bed);
    maker_init(&maker, "other", 1);
    for (unsigned i = 0; i < QUEUED; i++) {
        remote_init(&remotes[i], &bed);
        remote_add(&remotes[i], &maker, wall_hlc(&bed), "d", "blob.PUT", operations, bytes);
        remote_post(&remotes[i]);
    }
    gate_open(&gate, 2 + QUEUED * operations);
    assert_int_equal(most, watch.group_max);
    assert_int_equal(1 + (QUEUED * operations + most - 1) / most, watch.commits);
    for (unsigned i = 0; i < QUEUED; i++) {
        assert_int_equal(TANDEM_OK, remotes[i].jobs[0].err);
        remote_release(&remotes[i]);
    }
    gate_release(&gate);
}

static void a_group_is_limited_in_operations(void **state)
{
    group_has_limit(1000, 0, (TD_GROUP_OPERATIONS_MAX + 999) / 1000 * 1000);
}

static void a_group_is_limited_in_bytes(void **state)
{
    const size_t bytes = 200 * 1024;

    group_has_limit(2, bytes, (TD_GROUP_BYTES_MAX / 2 / bytes + 1) * 2);
}

static void duplicates_are_answered_after_the_commit_of_what_they_repeat(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct remote remotes[5];
        struct maker maker;
        struct bed bed;

        bed_init(&bed, seed);
        maker_init(&maker, "c", 1);
        for (unsigned i = 0; i < 5; i++) {
            remote_init(&remotes[i], &bed);
            if (i == 0)
                remote_add(&remotes[0], &maker, wall_hlc(&bed), "d", "counter.ADD", 10, 0);
            else
                remote_add_again(&remotes[i], &remotes[0].jobs[0]);
            remote_post(&remotes[i]);
        }
        settle(&bed);
        assert_int_equal(1, watch.commits);
        assert_int_equal(10, remotes[0].jobs[0].result.appended);
        for (unsigned i = 0; i < 5; i++) {
            assert_int_equal(TANDEM_OK, remotes[i].jobs[0].err);
            assert_int_equal(i ? 10 : 0, remotes[i].jobs[0].result.duplicates);
            assert_int_equal(10, remotes[i].durable);
            remote_release(&remotes[i]);
        }
        bed_release(&bed);
    }
}

static void a_local_group_is_written_whole_or_not_at_all(void **state)
{
    struct bed *bed = *state;
    struct local good, bad, whole;
    char *huge = malloc(300 * 1024);

    assert_non_null(huge);
    memset(huge, 'x', 300 * 1024 - 1);
    huge[300 * 1024 - 1] = 0;
    memcpy(huge, "[\"", 2);
    memcpy(huge + 300 * 1024 - 3, "\"]", 2);
    local_init(&good, bed);
    local_add(&good, "good", "counter.ADD", "1");
    local_init(&bad, bed);
    local_add(&bad, "bad1", "counter.ADD", "1");
    local_add(&bad, "bad2", "log.APPEND", huge);
    local_add(&bad, "bad3", "counter.ADD", "1");
    local_init(&whole, bed);
    local_add(&whole, "whole1", "counter.ADD", "1");
    local_add(&whole, "whole2", "counter.ADD", "2");
    local_post(&good);
    local_post(&bad);
    local_post(&whole);
    settle(bed);
    assert_int_equal(TANDEM_OK, good.err);
    assert_int_equal(TANDEM_E_LIMIT, bad.err);
    assert_int_equal(1, bad.request.group.failed_job);
    assert_non_null(strstr(bad.request.group.why, "bytes"));
    assert_int_equal(TANDEM_OK, whole.err);
    assert_int_equal(6, durable(bed));
    expect_state(bed, "whole2", "2");

    /* An expectation that does not hold takes the rest of its group along. */
    local_release(&bad);
    local_init(&bad, bed);
    local_add(&bad, "bad1", "counter.ADD", "1");
    local_add(&bad, "whole1", "counter.ADD", "1");
    bad.jobs[1].has_expect = true;
    bad.jobs[1].expect_position = whole.jobs[0].ordinal + 1;
    local_post(&bad);
    settle(bed);
    assert_int_equal(TANDEM_E_CONFLICT, bad.err);
    assert_int_equal(1, bad.request.group.failed_job);
    assert_int_equal(6, durable(bed));
    local_release(&good);
    local_release(&bad);
    local_release(&whole);
    free(huge);
}

/* What the view cannot foresee: the second job of a group cannot be appended, the first stands in
 * the transaction already, together with the requests of others. */
static void a_group_that_fails_in_the_transaction_leaves_the_others_in_it_unharmed(void **state)
{
    char large[2000];

    memset(large, 'x', sizeof(large));
    large[0] = large[sizeof(large) - 2] = '"';
    large[sizeof(large) - 1] = '\0';
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct local before, bad, after;
        struct remote remote;
        struct maker maker;
        struct bed bed;

        bed_init(&bed, seed);
        maker_init(&maker, "c", 1);
        local_init(&before, &bed);
        local_add(&before, "before", "counter.ADD", "1");
        local_init(&bad, &bed);
        local_add(&bad, "bad1", "counter.ADD", "1");
        local_add(&bad, "bad2", "log.APPEND", large);
        local_init(&after, &bed);
        local_add(&after, "after", "counter.ADD", "1");
        remote_init(&remote, &bed);
        remote_add(&remote, &maker, wall_hlc(&bed), "r", "counter.ADD", 3, 0);
        watch.too_many = sizeof(large);
        watch.too_many_err = TANDEM_E_LIMIT;
        local_post(&before);
        remote_post(&remote);
        local_post(&bad);
        local_post(&after);
        settle(&bed);
        assert_int_equal(TANDEM_OK, before.err);
        assert_int_equal(TANDEM_E_LIMIT, bad.err);
        assert_int_equal(1, bad.request.group.failed_job);
        assert_int_equal(TANDEM_OK, after.err);
        assert_int_equal(TANDEM_OK, remote.jobs[0].err);
        assert_int_equal(3, remote.jobs[0].result.appended);
        assert_int_equal(TANDEM_OK, stat_of(&bed).store_err);
        assert_int_equal(2 + 3 + 2, durable(&bed));
        expect_state(&bed, "before", "1");
        expect_state(&bed, "after", "1");
        local_release(&before);
        local_release(&bad);
        local_release(&after);
        remote_release(&remote);
        bed_release(&bed);
    }
}

/* ---- Races between callers ---- */

static unsigned count_verb(struct bed *bed, const char *document, const char *verb)
{
    tandem_operations *operations;
    tandem_operation operation;
    unsigned count = 0;

    assert_int_equal(TANDEM_OK,
                     tandem_operations_open(bed->reactor, "c", document, 0, &operations));
    while (tandem_operations_next(operations, &operation) == TANDEM_OK)
        count += tandem_slice_equal(td_type_verb(operation.type), tandem_slice_text(verb));
    tandem_operations_free(operations);
    return count;
}

static void race_to_create(struct bed *bed, const char *document)
{
    enum { CREATORS = 40 };
    static struct local locals[CREATORS];

    for (unsigned i = 0; i < CREATORS; i++) {
        local_init(&locals[i], bed);
        local_add(&locals[i], document, "counter.ADD", "1");
        local_post(&locals[i]);
        if (i % 8 == 0)
            td_simulation_step(bed->simulation, UINT64_MAX);
    }
    settle(bed);
    for (unsigned i = 0; i < CREATORS; i++) {
        assert_int_equal(TANDEM_OK, locals[i].err);
        local_release(&locals[i]);
    }
    assert_int_equal(1, count_verb(bed, document, "CREATE"));
    assert_int_equal(CREATORS, count_verb(bed, document, "ADD"));
    expect_state(bed, document, "40");
}

static void of_many_creators_one_creates(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct bed bed;

        bed_init(&bed, seed);
        race_to_create(&bed, "d");
        bed_release(&bed);
    }
}

static void of_many_that_compare_and_set_one_wins_each_round(void **state)
{
    enum { CALLERS = 10, ROUNDS = 5 };
    static struct local locals[CALLERS];

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint64_t expected = 0; /* a document that is not known */
        struct bed bed;

        bed_init(&bed, seed);
        for (unsigned round = 0; round < ROUNDS; round++) {
            unsigned won = 0;

            for (unsigned i = 0; i < CALLERS; i++) {
                local_init(&locals[i], &bed);
                local_add(&locals[i], "d", "counter.ADD", "1");
                locals[i].jobs[0].has_expect = true;
                locals[i].jobs[0].expect_position = expected;
                local_post(&locals[i]);
                td_simulation_step(bed.simulation, UINT64_MAX);
            }
            settle(&bed);
            for (unsigned i = 0; i < CALLERS; i++) {
                if (locals[i].err == TANDEM_OK) {
                    won++;
                    expected = locals[i].jobs[0].ordinal;
                } else {
                    assert_int_equal(TANDEM_E_CONFLICT, locals[i].err);
                    assert_non_null(strstr(locals[i].request.group.why, "position"));
                }
                local_release(&locals[i]);
            }
            assert_int_equal(1, won);
        }
        expect_state(&bed, "d", "5");
        bed_release(&bed);
    }
}

/* What a model saw when it prepared is what its operation follows. */
static void a_payload_that_depends_on_the_state_is_prepared_against_the_latest(void **state)
{
    enum { CALLERS = 30 };
    static struct local locals[CALLERS];

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        tandem_operations *operations;
        tandem_operation operation;
        uint64_t ticks = 0;
        struct bed bed;

        bed_init(&bed, seed);
        for (unsigned i = 0; i < CALLERS; i++) {
            local_init(&locals[i], &bed);
            local_add(&locals[i], "d", "tally.TICK", "null");
            local_post(&locals[i]);
            td_simulation_step(bed.simulation, UINT64_MAX);
        }
        settle(&bed);
        for (unsigned i = 0; i < CALLERS; i++) {
            assert_int_equal(TANDEM_OK, locals[i].err);
            local_release(&locals[i]);
        }
        assert_int_equal(TANDEM_OK,
                         tandem_operations_open(bed.reactor, "c", NULL, 0, &operations));
        while (tandem_operations_next(operations, &operation) == TANDEM_OK) {
            tandem_reader reader = tandem_reader_of(operation.payload);
            uint64_t saw;

            if (!tandem_slice_equal(operation.type, tandem_slice_text("tally.TICK")))
                continue;
            assert_int_equal(TANDEM_OK, tandem_read_uint(&reader, &saw));
            assert_int_equal(ticks++, saw);
        }
        assert_int_equal(CALLERS, ticks);
        tandem_operations_free(operations);
        bed_release(&bed);
    }
}

/* Remote operations move the document under local ones all the time. */
static void local_and_remote_jobs_on_one_document(void **state)
{
    enum { EACH = 40 };
    static struct local locals[EACH];
    static struct remote remotes[EACH];

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct maker maker;
        struct bed bed;

        bed_init(&bed, seed);
        maker_init(&maker, "c", 1);
        for (unsigned i = 0; i < EACH; i++) {
            local_init(&locals[i], &bed);
            local_add(&locals[i], "d", "tally.TICK", "null");
            local_post(&locals[i]);
            remote_init(&remotes[i], &bed);
            remote_add(&remotes[i], &maker, wall_hlc(&bed) + i, "d",
                       i ? "tally.TICK" : "tally.CREATE", 1, 0);
            remote_post(&remotes[i]);
            for (uint64_t n = td_simulation_random(bed.simulation) % 6; n > 0; n--)
                td_simulation_step(bed.simulation, UINT64_MAX);
        }
        settle(&bed);
        for (unsigned i = 0; i < EACH; i++) {
            assert_int_equal(TANDEM_OK, locals[i].err);
            assert_int_equal(TANDEM_OK, remotes[i].jobs[0].err);
            local_release(&locals[i]);
            remote_release(&remotes[i]);
        }
        assert_true(count_verb(&bed, "d", "CREATE") <= 2);
        bed_release(&bed);
    }
}

/* ---- Answers to remote jobs ---- */

static void look_at_the_answers_of_each_job(struct bed *bed)
{
    struct maker a, b, gap, broken, reserved;
    struct remote remote, second;
    tandem_writer bytes;
    td_remote_job *job;
    uint64_t ordinal;

    maker_init(&a, "c", 1);
    maker_init(&b, "c", 2);
    maker_init(&gap, "c", 3);
    maker_init(&broken, "c", 4);
    maker_init(&reserved, "_reserved", 5);
    remote_init(&remote, bed);
    remote_add(&remote, &a, wall_hlc(bed), "d", "counter.ADD", 2, 0);
    /* Its predecessor is not there: the job before it is left out. */
    remote_init(&second, bed);
    remote_add(&second, &gap, wall_hlc(bed), "d", "counter.ADD", 2, 0);
    remote_add(&remote, &gap, wall_hlc(bed), "d", "counter.ADD", 2, 0);
    /* Bytes that are no operation, too few of them, none at all. */
    tandem_writer_init(&bytes);
    tandem_write_binary(&bytes, tandem_slice_text("nonsense"));
    remote_add_bytes(&remote, &bytes, 1);
    job = remote_add_again(&remote, &remote.jobs[0]);
    job->count = 3;
    job = remote_add_again(&remote, &remote.jobs[0]);
    job->count = 0;
    /* Half a job: the last operation says that it goes on. */
    remote_add(&remote, &broken, wall_hlc(bed), "d", "counter.ADD", 2, 0)->count = 1;
    remote_add(&remote, &reserved, wall_hlc(bed), "d", "counter.ADD", 1, 0);
    remote_add_again(&remote, &remote.jobs[0]);
    remote_add(&remote, &b, wall_hlc(bed), "d", "counter.ADD", 1, 0);
    job = remote_add_again(&remote, &remote.jobs[0]);
    job->count = TANDEM_JOB_OPERATIONS_MAX + 1;
    remote_post(&remote);
    settle(bed);
    assert_int_equal(TANDEM_OK, remote.jobs[0].err);
    assert_int_equal(2, remote.jobs[0].result.appended);
    assert_int_equal(TANDEM_E_PREDECESSOR, remote.jobs[1].err);
    assert_int_equal(TANDEM_E_PAYLOAD, remote.jobs[2].err);
    assert_int_equal(TANDEM_E_PAYLOAD, remote.jobs[3].err);
    assert_int_equal(TANDEM_E_CHAIN, remote.jobs[4].err);
    assert_int_equal(TANDEM_E_CHAIN, remote.jobs[5].err);
    assert_int_equal(TANDEM_E_UNSUPPORTED, remote.jobs[6].err);
    assert_int_equal(TANDEM_OK, remote.jobs[7].err);
    assert_int_equal(2, remote.jobs[7].result.duplicates);
    assert_int_equal(TANDEM_OK, remote.jobs[8].err);
    assert_int_equal(TANDEM_E_LIMIT, remote.jobs[9].err);
    ordinal = durable(bed);
    assert_int_equal(3, ordinal);
    assert_int_equal(1, watch.commits);
    assert_int_equal(TANDEM_OK, stat_of(bed).store_err);

    /* Once the predecessor came the rest fits. */
    remote_add_again(&second, &remote.jobs[1]);
    remote_post(&second);
    settle(bed);
    assert_int_equal(TANDEM_OK, second.jobs[0].err);
    assert_int_equal(TANDEM_OK, second.jobs[1].err);
    assert_int_equal(ordinal + 4, durable(bed));
    remote_release(&remote);
    remote_release(&second);
}

static void each_remote_job_of_a_request_has_its_own_answer(void **state)
{
    look_at_the_answers_of_each_job(*state);
}

static void what_is_given_parsed_is_answered_the_same(void **state)
{
    gives = true;
    look_at_the_answers_of_each_job(*state);
    gives = false;
}

/* Where so many jobs wait, whoever brings more of them parses those. */
static void look_at_the_answers_behind_a_crowd(struct bed *bed)
{
    enum { WAITING = TD_GROUP_OPERATIONS_MAX };
    static td_remote_job jobs[WAITING];
    struct remote crowd;

    memset(jobs, 0, sizeof(jobs));
    remote_init(&crowd, bed);
    crowd.request.jobs = jobs;
    crowd.request.count = WAITING;
    td_executor_remote(bed->executor, &crowd.request);
    look_at_the_answers_of_each_job(bed);
    assert_int_equal(1, crowd.answered);
    for (unsigned i = 0; i < WAITING; i++)
        assert_int_equal(TANDEM_E_CHAIN, jobs[i].err);
}

static void what_its_sender_has_parsed_is_answered_the_same(void **state)
{
    look_at_the_answers_behind_a_crowd(*state);
}

static void what_is_given_parsed_is_hashed_by_its_sender(void **state)
{
    gives = hashes = true;
    look_at_the_answers_behind_a_crowd(*state);
    gives = false;
}

static void an_operation_from_the_future_waits_and_does_not_move_the_clock(void **state)
{
    struct bed *bed = *state;
    const uint64_t skew_ms = TD_CLOCK_SKEW_MS_MAX_DEFAULT;
    uint64_t now_ms = td_env_wall_ms(bed->runtime->env);
    struct maker far, near;
    struct remote remote;
    uint64_t wait_hlc;

    maker_init(&far, "c", 1);
    maker_init(&near, "c", 2);
    remote_init(&remote, bed);
    remote_add(&remote, &far, td_hlc_of_ms(now_ms + skew_ms + 60000), "d", "counter.ADD", 1, 0);
    remote_post(&remote);
    settle(bed);
    assert_int_equal(TANDEM_E_CLOCK, remote.jobs[0].err);
    wait_hlc = remote.jobs[0].detail;
    assert_int_equal(td_hlc_of_ms(now_ms + 60000), wait_hlc);
    assert_int_equal(0, durable(bed));
    assert_true(td_executor_clock(bed->executor) < td_hlc_of_ms(now_ms + 10));

    /* Its day comes. */
    td_simulation_run(bed->simulation, (uint64_t)59000 * MS);
    remote.answered = 0;
    remote_post(&remote);
    settle(bed);
    assert_int_equal(TANDEM_E_CLOCK, remote.jobs[0].err);
    td_simulation_run(bed->simulation, (uint64_t)1000 * MS);
    assert_true(wall_hlc(bed) >= wait_hlc);
    remote.answered = 0;
    remote_post(&remote);
    settle(bed);
    assert_int_equal(TANDEM_OK, remote.jobs[0].err);
    /* What is taken moves the clock: an effect is dated after its cause. */
    assert_int_equal(td_hlc_of_ms(now_ms + skew_ms + 60000), td_executor_clock(bed->executor));
    remote_release(&remote);
}

/* A record that cannot be read is the trouble of the job that needs it, not of its neighbours. */
static void a_corrupt_record_stops_only_the_job_that_needs_it(void **state)
{
    struct bed *bed = *state;
    struct remote remote, bad;
    struct maker maker, fork;
    struct local local;
    tandem_slice key, value;
    td_cursor *cursor;
    tandem_writer damaged;
    uint8_t kept[64];
    size_t kept_size;
    unsigned table = 0;
    td_txn *txn;

    maker_init(&maker, "c", 1);
    remote_init(&remote, bed);
    for (unsigned i = 0; i < 4; i++) {
        remote_add(&remote, &maker, wall_hlc(bed) + i, "d", "counter.ADD", 1, 0);
        if (i == 1)
            fork = maker;
    }
    remote_post(&remote);
    settle(bed);

    /* Damage the second operation. */
    while (strcmp(td_op_store_tables[table], "operations") != 0)
        table++;
    tandem_writer_init(&damaged);
    assert_int_equal(TANDEM_OK, td_store_begin_write(watch.store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, table, &cursor));
    assert_int_equal(TANDEM_OK,
                     td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value));
    assert_int_equal(TANDEM_OK, td_cursor_next(cursor, &key, &value));
    assert_true(key.size <= sizeof(kept));
    kept_size = key.size;
    memcpy(kept, key.bytes, key.size);
    tandem_write_raw(&damaged, value);
    td_cursor_free(cursor);
    damaged.bytes[damaged.size - 1] ^= 1;
    assert_int_equal(TANDEM_OK, td_txn_put(txn, table, tandem_slice_of(kept, kept_size),
                                           tandem_writer_slice(&damaged)));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));

    /* Another third operation must be compared with what is held there. */
    remote_init(&bad, bed);
    remote_add(&bad, &fork, wall_hlc(bed) + 99, "d", "counter.ADD", 1, 0);
    remote_add(&bad, &maker, wall_hlc(bed) + 100, "d", "counter.ADD", 1, 0);
    local_init(&local, bed);
    local_add(&local, "l", "counter.ADD", "1");
    remote_post(&bad);
    local_post(&local);
    settle(bed);
    assert_int_equal(TANDEM_E_CORRUPT, bad.jobs[0].err);
    assert_int_equal(TANDEM_OK, bad.jobs[1].err);
    assert_int_equal(TANDEM_OK, local.err);
    assert_int_equal(TANDEM_OK, stat_of(bed).store_err);
    assert_int_equal(4 + 1 + 2, durable(bed));

    /* And it is found. */
    assert_int_equal(TANDEM_E_CORRUPT, tandem_verify(bed->reactor, report, NULL));
    tandem_writer_clear(&damaged);
    remote_release(&remote);
    remote_release(&bad);
    local_release(&local);
    tandem_writer_release(&damaged);
    tandem_close(bed->reactor);
    bed->reactor = NULL;
}

/* ---- Failures of the store ---- */

static void expect_works(struct bed *bed, uint64_t operations)
{
    assert_int_equal(TANDEM_OK, stat_of(bed).store_err);
    assert_int_equal(operations, durable(bed));
    assert_int_equal(operations, stat_of(bed).position);
}

/* The ways in which nothing was written. */
static void nothing_written(struct bed *bed, tandem_err err, bool at_commit)
{
    struct remote remote;
    struct local local;
    struct maker maker;

    maker_init(&maker, "c", 1);
    assert_int_equal(TANDEM_OK, add_one(bed, "d", NULL));
    store_fails(err, at_commit);
    remote_init(&remote, bed);
    remote_add(&remote, &maker, wall_hlc(bed), "r", "counter.ADD", 2, 0);
    local_init(&local, bed);
    local_add(&local, "d", "counter.ADD", "1");
    local_post(&local);
    remote_post(&remote);
    settle(bed);
    assert_int_equal(err, local.err);
    assert_int_equal(err, remote.jobs[0].err);
    assert_int_equal(err, stat_of(bed).store_err);
    assert_int_equal(2, durable(bed));
    assert_int_equal(2, stat_of(bed).position);
    expect_state(bed, "d", "1"); /* reading goes on */
    local_release(&local);
    remote_release(&remote);

    /* It tries by itself, as long as it takes. */
    td_simulation_run(bed->simulation, (uint64_t)10000 * MS);
    assert_int_equal(err, stat_of(bed).store_err);
    store_fails(TANDEM_OK, false);
    td_simulation_run(bed->simulation, (uint64_t)1100 * MS);
    expect_works(bed, 2);
    assert_int_equal(TANDEM_OK, add_one(bed, "d", NULL));
    expect_state(bed, "d", "2");
    remote_init(&remote, bed);
    maker_init(&maker, "c", 1);
    remote_add(&remote, &maker, wall_hlc(bed), "r", "counter.ADD", 2, 0);
    remote_post(&remote);
    settle(bed);
    assert_int_equal(TANDEM_OK, remote.jobs[0].err);
    remote_release(&remote);
    expect_works(bed, 5);
}

static void a_full_disk_loses_nothing_and_heals(void **state)
{
    nothing_written(*state, TANDEM_E_STORE_FULL, false);
}

static void a_disk_full_at_commit_loses_nothing_and_heals(void **state)
{
    nothing_written(*state, TANDEM_E_STORE_FULL, true);
}

static void a_disk_that_fails_at_commit_heals(void **state)
{
    nothing_written(*state, TANDEM_E_IO, true);
}

/* A job heals the store before the timer does, and it fails again before the timer has come. */
static void it_fails_again_while_the_timer_still_runs(void **state)
{
    struct bed *bed = *state;

    for (unsigned i = 0; i < 3; i++) {
        store_fails(TANDEM_E_STORE_FULL, i % 2);
        assert_int_equal(TANDEM_E_STORE_FULL, add_one(bed, "d", NULL));
        store_fails(TANDEM_OK, false);
        assert_int_equal(TANDEM_OK, add_one(bed, "d", NULL));
        assert_int_equal(TANDEM_OK, stat_of(bed).store_err);
    }
    store_fails(TANDEM_E_IO, true);
    assert_int_equal(TANDEM_E_IO, add_one(bed, "d", NULL));
    store_fails(TANDEM_OK, false);
    td_simulation_run(bed->simulation, (uint64_t)1100 * MS);
    expect_works(bed, 4);
}

static void a_commit_that_failed_and_happened_is_a_success(void **state)
{
    struct bed *bed = *state;
    tandem_receipt receipt;

    watch.fate = FATE_HAPPENED;
    watch.fates = 1;
    assert_int_equal(TANDEM_OK, add_one(bed, "d", &receipt));
    /* What a recovery finds is proven by a commit of its own. */
    assert_int_equal(2, watch.commits);
    assert_int_equal(2, receipt.ordinal);
    expect_works(bed, 2);
    expect_state(bed, "d", "1");
    watch.fate = FATE_LOST;
    watch.fates = 1;
    assert_int_equal(TANDEM_E_IO, add_one(bed, "d", &receipt));
    assert_int_equal(2, durable(bed));
    assert_int_equal(TANDEM_OK, add_one(bed, "d", &receipt));
    assert_int_equal(3, receipt.seq);
    expect_works(bed, 3);
}

/* The store cannot even be reopened: the outcome shows later. Nobody is told anything until then,
 * and nothing is appended before. */
static void a_commit_whose_outcome_shows_late(void **state)
{
    for (unsigned happened = 0; happened < 2; happened++) {
        struct remote remote, again, refused;
        struct local late;
        tandem_receipt receipt;
        struct maker maker, other;
        struct bed bed;

        bed_init(&bed, 5 + happened);
        maker_init(&maker, "c", 1);
        maker_init(&other, "c", 2);
        assert_int_equal(TANDEM_OK, add_one(&bed, "d", NULL));
        watch.fate = happened ? FATE_HAPPENED : FATE_LOST;
        watch.fates = 1;
        watch.recover_fails = true;
        remote_init(&remote, &bed);
        remote_add(&remote, &maker, wall_hlc(&bed), "r", "counter.ADD", 10, 0);
        remote_post(&remote);
        settle(&bed);
        assert_int_equal(2, stat_of(&bed).position);
        assert_int_equal(TANDEM_E_IO, stat_of(&bed).store_err);

        /* What comes meanwhile is refused, be it on the same document or not. */
        remote_init(&refused, &bed);
        remote_add(&refused, &other, wall_hlc(&bed), "r", "counter.ADD", 1, 0);
        remote_post(&refused);
        local_init(&late, &bed);
        local_add(&late, happened ? "r" : "d", "counter.ADD", "100");
        local_post(&late);
        td_simulation_run(bed.simulation, (uint64_t)5000 * MS);
        assert_int_equal(TANDEM_E_IO, refused.jobs[0].err);
        assert_int_equal(TANDEM_E_IO, late.err);
        assert_int_equal(0, remote.answered);
        assert_int_equal(TANDEM_E_IO, stat_of(&bed).store_err);
        watch.recover_fails = false;
        td_simulation_run(bed.simulation, (uint64_t)1100 * MS);
        expect_works(&bed, happened ? 12 : 2);
        assert_int_equal(happened ? TANDEM_OK : TANDEM_E_IO, remote.jobs[0].err);

        /* The same job again, and local ones beside it. */
        remote_init(&again, &bed);
        remote_add_again(&again, &remote.jobs[0]);
        remote_post(&again);
        settle(&bed);
        assert_int_equal(TANDEM_OK, again.jobs[0].err);
        assert_int_equal(happened ? 10 : 0, again.jobs[0].result.duplicates);
        assert_int_equal(TANDEM_OK, add_one(&bed, "d", &receipt));
        assert_int_equal(3, receipt.seq);
        assert_int_equal(13, receipt.ordinal);
        expect_state(&bed, "d", "2");
        expect_works(&bed, 13);
        race_to_create(&bed, "new"); /* it knows again what was touched */
        remote_release(&remote);
        remote_release(&again);
        remote_release(&refused);
        local_release(&late);
        bed_release(&bed);
    }
}

/* The commit that is to prove what was found fails, too, and the one after it. */
static void a_commit_that_failed_again_and_again_and_happened_is_a_success(void **state)
{
    struct bed *bed = *state;
    tandem_receipt receipt;

    for (unsigned fates = 2; fates <= 5; fates++) {
        unsigned before = watch.commits;

        watch.fate = FATE_HAPPENED;
        watch.fates = fates;
        assert_int_equal(TANDEM_OK, add_one(bed, "d", &receipt));
        assert_true(watch.commits > before + fates);
        assert_int_equal(fates, receipt.seq);
        expect_works(bed, fates);
    }
    expect_state(bed, "d", "4");
}

/* But a job that came from a peer does, as in any queue: its handle is not told that it failed. */
static void nobody_waits_for_ever_for_an_outcome(void **state)
{
    struct bed *bed = *state;
    struct remote remote;
    struct maker maker;
    uint64_t begin_ms;

    assert_int_equal(TANDEM_OK, add_one(bed, "d", NULL));
    maker_init(&maker, "c", 1);
    remote_init(&remote, bed);
    remote_add(&remote, &maker, wall_hlc(bed), "r", "counter.ADD", 10, 0);
    watch.fate = FATE_HAPPENED;
    watch.fates = 1;
    watch.recover_fails = true;
    begin_ms = td_env_monotonic_ms(bed->runtime->env);
    assert_int_equal(TANDEM_E_OUTCOME_UNKNOWN, add_one(bed, "d", NULL));
    assert_true(td_env_monotonic_ms(bed->runtime->env) >= begin_ms + TD_OUTCOME_MS);
    assert_true(td_env_monotonic_ms(bed->runtime->env) <= begin_ms + TD_OUTCOME_MS + 2000);
    assert_int_equal(TANDEM_E_IO, add_one(bed, "d", NULL)); /* and that one is nowhere */
    assert_int_equal(2, stat_of(bed).position);
    watch.recover_fails = false;
    td_simulation_run(bed->simulation, (uint64_t)1100 * MS);
    expect_works(bed, 3); /* it is told of all the same */
    assert_int_equal(TANDEM_OK, add_one(bed, "d", NULL));
    expect_state(bed, "d", "3");

    watch.fates = 1;
    watch.recover_fails = true;
    remote_post(&remote);
    td_simulation_run(bed->simulation, (uint64_t)60000 * MS);
    assert_int_equal(0, remote.answered);
    watch.recover_fails = false;
    td_simulation_run(bed->simulation, (uint64_t)1100 * MS);
    assert_int_equal(TANDEM_OK, remote.jobs[0].err);
    expect_works(bed, 14);
    remote_release(&remote);
}

static void while_the_store_cannot_be_reopened_the_answer_says_why(void **state)
{
    struct bed *bed = *state;

    store_fails(TANDEM_E_STORE_FULL, true);
    watch.recover_fails = true;
    assert_int_equal(TANDEM_E_OUTCOME_UNKNOWN, add_one(bed, "d", NULL));
    assert_int_equal(TANDEM_E_IO, add_one(bed, "d", NULL));
    store_fails(TANDEM_OK, false);
    assert_int_equal(TANDEM_E_IO, add_one(bed, "d", NULL));
    watch.recover_fails = false;
    assert_int_equal(TANDEM_OK, add_one(bed, "d", NULL)); /* before the timer */
    expect_works(bed, 2);
}

static void note_answer(void *context, tandem_err err, const tandem_receipt *receipt,
                        const char *why)
{
    (void)receipt;
    (void)why;
    *(tandem_err *)context = err;
}

/* It looks once more; what it finds is the answer. */
static void closing_does_not_wait_for_an_outcome(void **state)
{
    (void)state;
    for (unsigned shows = 0; shows < 2; shows++) {
        tandem_input input = {.type = "counter.ADD", .json = "1"};
        tandem_job job = {
            .collection = "c", .document = "d", .operations = &input, .count = 1};
        tandem_err answer = TANDEM_END;
        uint64_t begin_ms;
        struct bed bed;

        bed_init(&bed, 9);
        watch.fate = FATE_HAPPENED;
        watch.fates = 1;
        watch.recover_fails = true;
        assert_int_equal(TANDEM_OK, tandem_execute_async(bed.reactor, &job, note_answer, &answer));
        settle(&bed);
        assert_int_equal(TANDEM_END, answer);
        begin_ms = td_env_monotonic_ms(bed.runtime->env);
        watch.recover_fails = !shows;
        tandem_close(bed.reactor);
        assert_int_equal(shows ? TANDEM_OK : TANDEM_E_OUTCOME_UNKNOWN, answer);
        assert_true(td_env_monotonic_ms(bed.runtime->env) < begin_ms + 1000);
        bed.reactor = NULL;
        bed_release(&bed);
    }
}

/* Held, but only as a recovery found it: that may not be on disk. */
static void a_duplicate_of_what_is_unproven_is_answered_after_a_commit(void **state)
{
    struct bed *bed = *state;
    struct remote remote, again;
    struct maker maker;
    unsigned before;

    maker_init(&maker, "c", 1);
    remote_init(&remote, bed);
    remote_add(&remote, &maker, wall_hlc(bed), "r", "counter.ADD", 10, 0);
    watch.fate = FATE_HAPPENED;
    watch.fates = 2; /* the commit, and the one that was to prove it */
    remote_post(&remote);
    settle(bed);
    assert_int_equal(0, remote.answered);
    assert_int_equal(10, durable(bed));
    before = watch.commits;
    remote_init(&again, bed);
    remote_add_again(&again, &remote.jobs[0]);
    remote_post(&again);
    settle(bed);
    assert_int_equal(TANDEM_OK, remote.jobs[0].err);
    assert_int_equal(before + 1, remote.commits);
    assert_int_equal(TANDEM_OK, again.jobs[0].err);
    assert_int_equal(10, again.jobs[0].result.duplicates);
    assert_int_equal(before + 1, again.commits); /* what it repeats is proven by now */
    expect_works(bed, 10);
    remote_release(&remote);
    remote_release(&again);
}

/* ---- Events ---- */

static void note_event(void *context, const tandem_event *event)
{
    ((tandem_event *)context)[event->kind] = *event;
}

static tandem_err count_full(void *context, const tandem_fork *fork)
{
    assert_string_equal("c", fork->collection);
    assert_int_equal(TANDEM_HEADS_MAX, fork->heads);
    *(unsigned *)context += fork->is_quarantined;
    return TANDEM_OK;
}

static tandem_err receive_one(struct bed *bed, struct maker *maker, uint64_t hlc)
{
    struct remote remote;

    remote_init(&remote, bed);
    remote_add(&remote, maker, hlc, "r", "counter.ADD", 1, 0);
    remote_post(&remote);
    settle(bed);
    remote_release(&remote);
    return remote.jobs[0].err;
}

/* The branches were held loose, and had no heads before what they follow came. */
static void a_fork_that_was_loose_is_told(void **state)
{
    tandem_event seen[TANDEM_EVENT_KINDS + 1] = {{0}};
    struct bed *bed = *state;
    tandem_subscription *subscription;
    struct remote first, loose;
    struct maker maker, branch;

    assert_int_equal(TANDEM_OK, tandem_watch(bed->reactor, note_event, seen, &subscription));
    maker_init(&maker, "c", 1);
    remote_init(&first, bed);
    remote_init(&loose, bed);
    remote_add(&first, &maker, wall_hlc(bed), "r", "counter.ADD", 1, 0);
    for (unsigned i = 1; i <= 2; i++) {
        branch = maker;
        remote_add(&loose, &branch, wall_hlc(bed) + i, "r", "counter.ADD", 1, 0);
    }
    loose.request.part = true;
    remote_post(&loose);
    settle(bed);
    assert_true(loose.jobs[0].result.loose && loose.jobs[1].result.loose);
    assert_int_equal(0, stat_of(bed).forks);
    remote_post(&first);
    settle(bed);
    assert_int_equal(TANDEM_OK, first.jobs[0].err);
    assert_int_equal(1, stat_of(bed).forks);
    assert_int_equal(1, seen[TANDEM_EVENT_FORK].count);
    tandem_unsubscribe(subscription);
    remote_release(&loose);
    remote_release(&first);
}

static void what_comes_and_should_not_is_told(void **state)
{
    tandem_event seen[TANDEM_EVENT_KINDS + 1] = {{0}};
    struct bed *bed = *state;
    struct maker maker, branch;
    tandem_subscription *subscription;
    unsigned full = 0;

    maker_init(&maker, "c", 1);
    assert_int_equal(TANDEM_OK, tandem_watch(bed->reactor, note_event, seen, &subscription));
    assert_int_equal(TANDEM_OK, receive_one(bed, &maker, wall_hlc(bed)));
    for (unsigned i = 1; i <= TANDEM_HEADS_MAX; i++) {
        branch = maker;
        assert_int_equal(TANDEM_OK, receive_one(bed, &branch, wall_hlc(bed) + i));
        assert_int_equal(i - 1, seen[TANDEM_EVENT_FORK].count);
        assert_int_equal(i > 1, stat_of(bed).forks);
        assert_int_equal(i == TANDEM_HEADS_MAX, stat_of(bed).quarantined_origins);
    }
    assert_int_equal(2, seen[TANDEM_EVENT_FORK].seq);
    assert_memory_equal(maker.origin, seen[TANDEM_EVENT_FORK].origin, TANDEM_ORIGIN_BYTES);
    assert_string_equal("c", seen[TANDEM_EVENT_FORK].collection);
    assert_int_equal(0, seen[TANDEM_EVENT_QUARANTINE].count);
    for (unsigned i = 1; i <= 2; i++) {
        branch = maker;
        assert_int_equal(TANDEM_E_QUARANTINED, receive_one(bed, &branch, wall_hlc(bed) + 100 + i));
        assert_int_equal(i, seen[TANDEM_EVENT_QUARANTINE].count);
    }
    assert_int_equal(2, seen[TANDEM_EVENT_QUARANTINE].seq);
    assert_memory_equal(maker.origin, seen[TANDEM_EVENT_QUARANTINE].origin, TANDEM_ORIGIN_BYTES);
    assert_int_equal(1, stat_of(bed).quarantined_origins);
    assert_int_equal(TANDEM_OK, tandem_forks(bed->reactor, 8, count_full, &full));
    assert_int_equal(1, full);

    assert_int_equal(0, seen[TANDEM_EVENT_CLOCK].count);
    maker_init(&maker, "c", 2);
    assert_int_equal(TANDEM_E_CLOCK,
                     receive_one(bed, &maker, wall_hlc(bed) + td_hlc_of_ms(3600 * 1000)));
    assert_int_equal(1, seen[TANDEM_EVENT_CLOCK].count);
    assert_int_equal(1, seen[TANDEM_EVENT_CLOCK].seq);
    assert_true(seen[TANDEM_EVENT_CLOCK].hlc > wall_hlc(bed));
    assert_memory_equal(maker.origin, seen[TANDEM_EVENT_CLOCK].origin, TANDEM_ORIGIN_BYTES);
    for (unsigned kind = 1; kind <= TANDEM_EVENT_KINDS; kind++)
        assert_int_equal(seen[kind].count, stat_of(bed).events[kind]);
    tandem_unsubscribe(subscription);
}

/* ---- The rest of its life ---- */

/* Faster than the view can index: remote jobs wait, and are let go on when it has caught up. */
static void remote_jobs_wait_for_an_index_that_lags(void **state)
{
    enum { REQUESTS = 8, JOBS = 20, OPERATIONS = 1000 };
    static struct remote remotes[REQUESTS];
    struct bed *bed = *state;
    unsigned steps[REQUESTS + 1] = {0}, answered = 0, step = 0;
    struct maker maker;

    maker_init(&maker, "c", 1);
    for (unsigned i = 0; i < REQUESTS; i++) {
        remote_init(&remotes[i], bed);
        for (unsigned k = 0; k < JOBS; k++)
            remote_add(&remotes[i], &maker, wall_hlc(bed), "d", "counter.ADD", OPERATIONS, 0);
        remote_post(&remotes[i]);
    }
    while (answered < REQUESTS && td_simulation_step(bed->simulation, UINT64_MAX)) {
        step++;
        if (remotes[answered].answered)
            steps[answered++] = step;
    }
    assert_int_equal(REQUESTS, answered);
    /* When the lag had passed the maximum, the view was given the time to index half of that. */
    assert_true(steps[6] - steps[5] > TD_INDEX_LAG_MAX / 2 / TD_VIEW_BATCH - 6);
    assert_true(steps[5] < TD_INDEX_LAG_MAX / TD_VIEW_BATCH);
    for (unsigned i = 0; i < REQUESTS; i++) {
        for (unsigned k = 0; k < JOBS; k++)
            assert_int_equal(TANDEM_OK, remotes[i].jobs[k].err);
        remote_release(&remotes[i]);
    }
    assert_int_equal(REQUESTS * JOBS * OPERATIONS, durable(bed));
}

static unsigned steps_to_answer(struct local *local)
{
    unsigned steps = 0;

    local_post(local);
    while (!local->answered && td_simulation_step(local->bed->simulation, UINT64_MAX))
        steps++;
    return steps;
}

/* Behind the index is what touched other documents: a writer to this one, which has to be looked at,
 * need not wait for them. For what touched this one it does. */
static void a_job_waits_for_the_index_of_its_own_document_only(void **state)
{
    enum { JOBS = REMOTE_JOBS_MAX, OPERATIONS = 1000 };
    struct bed *bed = *state;
    struct remote here, others;
    struct local local, last;
    struct maker maker;

    maker_init(&maker, "c", 1);
    remote_init(&here, bed);
    remote_add(&here, &maker, wall_hlc(bed), "here", "counter.CREATE", 1, 0);
    remote_post(&here);
    settle(bed);
    remote_init(&others, bed);
    for (unsigned i = 0; i < JOBS; i++)
        remote_add(&others, &maker, wall_hlc(bed), "there", i ? "counter.ADD" : "counter.CREATE",
                   i ? OPERATIONS : 1, 0);
    remote_post(&others);
    while (!others.answered)
        assert_true(td_simulation_step(bed->simulation, UINT64_MAX));
    local_init(&local, bed);
    local_add(&local, "here", "counter.ADD", "1");
    assert_in_range(steps_to_answer(&local), 1, JOBS * OPERATIONS / TD_VIEW_BATCH / 2);
    assert_int_equal(TANDEM_OK, local.err);
    local_init(&last, bed);
    local_add(&last, "there", "counter.ADD", "1");
    assert_in_range(steps_to_answer(&last), JOBS * OPERATIONS / TD_VIEW_BATCH / 2, 1000);
    assert_int_equal(TANDEM_OK, last.err);
    local_release(&local);
    local_release(&last);
    remote_release(&here);
    remote_release(&others);
}

/* An index that is made anew says of documents that it does not know them yet: nothing is refused for
 * that, though none of them was touched lately. */
static void a_job_waits_for_an_index_that_is_made_anew(void **state)
{
    enum { OPERATIONS = 20 * 1000 };

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        td_reactor_disks disks = {0};
        struct bed bed = {0};
        struct remote remote;
        struct local local;
        struct maker maker;

        assert_int_equal(TANDEM_OK, td_simulation_open(seed, &bed.simulation));
        assert_int_equal(TANDEM_OK, td_simulation_runtime(bed.simulation, "a", 0, &bed.runtime));
        assert_int_equal(TANDEM_OK, td_memory_disk_open(&disks.ops));
        assert_int_equal(TANDEM_OK, td_memory_disk_open(&disks.sync));
        for (unsigned life = 0; life < 2; life++) {
            assert_int_equal(TANDEM_OK, td_memory_disk_open(&disks.index));
            bed_init_on_disks(&bed, &disks);
            maker_init(&maker, "c", 1);
            remote_init(&remote, &bed);
            remote_add(&remote, &maker, wall_hlc(&bed), "there", "counter.CREATE", 1, 0);
            for (unsigned done = 0; done < OPERATIONS; done += 1000)
                remote_add(&remote, &maker, wall_hlc(&bed), "there", "counter.ADD", 1000, 0);
            remote_add(&remote, &maker, wall_hlc(&bed), "here", "counter.CREATE", 1, 0);
            local_init(&local, &bed);
            local_add(&local, "here", "ADD", "1"); /* of whatever model the document is */
            if (life == 0)
                remote_post(&remote);
            else
                local_post(&local);
            settle(&bed);
            assert_int_equal(TANDEM_OK, life == 0 ? remote.jobs[0].err : local.err);
            remote.answered = local.answered = 1;
            remote_release(&remote);
            local_release(&local);
            tandem_close(bed.reactor);
            td_memory_disk_free(disks.index);
        }
        td_runtime_free(bed.runtime);
        td_simulation_free(bed.simulation);
        td_memory_disk_free(disks.ops);
        td_memory_disk_free(disks.sync);
    }
}

struct calls {
    unsigned ok, closed;
};

static void executed(void *context, tandem_err err, const tandem_receipt *receipt, const char *why)
{
    struct calls *calls = context;

    if (err == TANDEM_OK) {
        assert_true(receipt->seq > 0);
        calls->ok++;
    } else {
        assert_int_equal(TANDEM_E_CLOSED, err);
        calls->closed++;
    }
}

static void closing_finishes_what_was_accepted(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        tandem_input input = {.type = "tally.TICK", .json = "null"};
        tandem_job job = {
            .collection = "c", .document = "d", .operations = &input, .count = 1};
        struct calls calls = {0};
        struct bed bed;

        bed_init(&bed, seed);
        for (unsigned i = 0; i < 20; i++) {
            assert_int_equal(TANDEM_OK,
                             tandem_execute_async(bed.reactor, &job, executed, &calls));
            for (uint64_t n = td_simulation_random(bed.simulation) % 4; n > 0; n--)
                td_simulation_step(bed.simulation, UINT64_MAX);
        }
        tandem_close(bed.reactor);
        bed.reactor = NULL;
        assert_int_equal(20, calls.ok);
        assert_int_equal(0, calls.closed);
        bed_release(&bed);
    }
}

static void a_crash_answers_what_waits_in_the_executor(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct local locals[4];
        struct remote remotes[4];
        struct maker maker;
        struct bed bed;

        bed_init(&bed, seed);
        maker_init(&maker, "c", 1);
        for (unsigned i = 0; i < 4; i++) {
            char document[16];

            snprintf(document, sizeof(document), "d%u", i);
            local_init(&locals[i], &bed);
            local_add(&locals[i], document, "counter.ADD", "1");
            local_post(&locals[i]);
            remote_init(&remotes[i], &bed);
            remote_add(&remotes[i], &maker, wall_hlc(&bed), "r", "counter.ADD", 1, 0);
            remote_post(&remotes[i]);
            for (uint64_t n = td_simulation_random(bed.simulation) % 4; n > 0; n--)
                td_simulation_step(bed.simulation, UINT64_MAX);
        }
        td_reactor_crash(bed.reactor);
        bed.reactor = NULL;
        for (unsigned i = 0; i < 4; i++) {
            assert_true(locals[i].err == TANDEM_OK || locals[i].err == TANDEM_E_CLOSED);
            assert_true(remotes[i].jobs[0].err == TANDEM_OK ||
                        remotes[i].jobs[0].err == TANDEM_E_CLOSED);
            local_release(&locals[i]);
            remote_release(&remotes[i]);
        }
        bed_release(&bed);
    }
}

static void crashed_readers_are_looked_for_now_and_then(void **state)
{
    struct bed *bed = *state;

    td_simulation_run(bed->simulation, (uint64_t)61000 * MS);
    assert_int_equal(2, watch.reader_checks); /* the one at once came before */
}

#define ON_BED(name) cmocka_unit_test_setup_teardown(name, bed_open, bed_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queued_jobs_share_commits),
        ON_BED(jobs_one_after_the_other_are_committed_each),
        cmocka_unit_test(a_group_is_limited_in_operations),
        cmocka_unit_test(a_group_is_limited_in_bytes),
        cmocka_unit_test(duplicates_are_answered_after_the_commit_of_what_they_repeat),
        ON_BED(a_local_group_is_written_whole_or_not_at_all),
        cmocka_unit_test(a_group_that_fails_in_the_transaction_leaves_the_others_in_it_unharmed),
        cmocka_unit_test(of_many_creators_one_creates),
        cmocka_unit_test(of_many_that_compare_and_set_one_wins_each_round),
        cmocka_unit_test(a_payload_that_depends_on_the_state_is_prepared_against_the_latest),
        cmocka_unit_test(local_and_remote_jobs_on_one_document),
        ON_BED(each_remote_job_of_a_request_has_its_own_answer),
        ON_BED(what_its_sender_has_parsed_is_answered_the_same),
        ON_BED(what_is_given_parsed_is_answered_the_same),
        ON_BED(what_is_given_parsed_is_hashed_by_its_sender),
        ON_BED(an_operation_from_the_future_waits_and_does_not_move_the_clock),
        ON_BED(a_corrupt_record_stops_only_the_job_that_needs_it),
        ON_BED(a_full_disk_loses_nothing_and_heals),
        ON_BED(a_disk_full_at_commit_loses_nothing_and_heals),
        ON_BED(a_disk_that_fails_at_commit_heals),
        ON_BED(it_fails_again_while_the_timer_still_runs),
        ON_BED(a_commit_that_failed_and_happened_is_a_success),
        cmocka_unit_test(a_commit_whose_outcome_shows_late),
        ON_BED(a_fork_that_was_loose_is_told),
        ON_BED(what_comes_and_should_not_is_told),
        ON_BED(a_commit_that_failed_again_and_again_and_happened_is_a_success),
        ON_BED(nobody_waits_for_ever_for_an_outcome),
        ON_BED(while_the_store_cannot_be_reopened_the_answer_says_why),
        cmocka_unit_test(closing_does_not_wait_for_an_outcome),
        ON_BED(a_duplicate_of_what_is_unproven_is_answered_after_a_commit),
        ON_BED(remote_jobs_wait_for_an_index_that_lags),
        ON_BED(a_job_waits_for_the_index_of_its_own_document_only),
        cmocka_unit_test(a_job_waits_for_an_index_that_is_made_anew),
        cmocka_unit_test(closing_finishes_what_was_accepted),
        cmocka_unit_test(a_crash_answers_what_waits_in_the_executor),
        ON_BED(crashed_readers_are_looked_for_now_and_then),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
