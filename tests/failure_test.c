/*
 * Failure loops: in each scenario the nth allocation fails, or the nth call of the store's
 * contract, or the nth write or flush of a file, for every n, once or with all that follow
 * (tests/faults.h); a commit or a write that fails has happened or not. Then the faults stop,
 * everything is opened again, and:
 *
 *   what failed said so with an error of its kind, and nothing crashed, hung or leaked;
 *   what was reported durable is there, what was reported as failed is not, and only where not even
 *   a second look was possible may an outcome stay unknown;
 *   all that is there verifies, and works again.
 *
 * usage: failure_test [--every K]      every Kth n, by default every 17th
 *        failure_test SCENARIO allocation|store|disk N once|ever|happened   one, again
 */
#include "tests/job_maker.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "reactor/reactor_parts.h"
#include "store/sync_store.h"
#include "sync/backup.h"
#include "sync/coverage.h"
#include "sync/plan.h"
#include "tests/faults.h"
#include "tests/folder.h"
#include "transport/wire.h"

enum {
    GROUPS = 6,
    STEPS = 10, /* of a chain that gets gaps */
    GROUP_JOBS_MAX = 3,
    REMOTES = 4,
    ADDS = 600, /* operations of the long document: more than one snapshot's worth */
    WHY_BYTES = 200,
    STEP = 17,
    MINUTE_US = 60 * 1000 * 1000,
};

typedef enum outcome { UNTRIED, DURABLE, ABSENT, UNKNOWN } outcome;

struct world;

struct scenario {
    const char *name;
    bool on_disk; /* LMDB; else in memory */
    void (*prepare)(struct world *world); /* without faults */
    void (*act)(struct world *world);
    void (*check)(struct world *world); /* without faults, on what is left */
};

struct world {
    const struct scenario *scenario;
    struct fault fault;
    char why[WHY_BYTES]; /* what is wrong; empty: nothing */
    char folder[FOLDER_BYTES];
    td_memory_disk *disk;
    td_reactor_disks disks;
    td_simulation *simulation;
    td_runtime *runtime;
    unsigned lives; /* of the runtime */
    tandem_harness *harness;
    outcome outcomes[GROUPS > STEPS ? GROUPS : STEPS];
    uint64_t durable, unknown; /* jobs executed locally */
    bool whole; /* nothing is refused (any more) */
};

__attribute__((format(printf, 2, 3))) static void wrong(struct world *w, const char *format, ...)
{
    va_list args;

    if (w->why[0])
        return;
    va_start(args, format);
    vsnprintf(w->why, sizeof(w->why), format, args);
    va_end(args);
}

static void must(bool true_here, const char *what)
{
    if (true_here)
        return;
    fprintf(stderr, "failure_test: %s\n", what);
    abort();
}

#define OK(call) must((call) == TANDEM_OK, #call)

/* Is this an error that such a fault may end in? Nothing fails where nothing was made to. */
static void expect(struct world *w, tandem_err err, const char *what)
{
    bool fits = w->fault.kind == FAULT_ALLOCATION
                    ? err == TANDEM_E_NOMEM
                    : err == TANDEM_E_IO || err == TANDEM_E_STORE_FULL;

    if (err == TANDEM_E_OUTCOME_UNKNOWN) /* after a single failure a look tells */
        fits = w->fault.for_ever;
    if (err >= 0)
        return;
    if (!fault_hit())
        wrong(w, "%s fails without a fault: %s", what, tandem_err_name(err));
    else if (!fits)
        wrong(w, "%s: the wrong error: %s", what, tandem_err_name(err));
}

/* Nothing may fail any more. */
static bool works(struct world *w, tandem_err err, const char *what)
{
    if (err < 0)
        wrong(w, "%s, without faults: %s", what, tandem_err_name(err));
    return err >= 0;
}

static void report(void *context, const char *text)
{
    wrong(context, "verify: %s", text);
}

/* ---- What is written: groups of jobs, with forks, in two collections ---- */

static struct batch batch;

static struct {
    unsigned count;
    struct {
        size_t first, count;
    } jobs[GROUP_JOBS_MAX];
} groups[GROUPS];

static void group_add(unsigned group, struct chain *chain, size_t count, size_t payload_bytes)
{
    size_t first = batch.count;

    batch_job(&batch, chain, count, payload_bytes);
    groups[group].jobs[groups[group].count].first = first;
    groups[group].jobs[groups[group].count++].count = count;
}

static void groups_make(void)
{
    struct chain a, b, fork;

    chain_init(&a, "notes", 1);
    chain_init(&b, "tasks", 2);
    group_add(0, &a, 1, 10);
    group_add(1, &a, 3, 100);
    group_add(1, &b, 1, 5000);
    fork = a;
    group_add(2, &a, 4, 30);
    group_add(3, &fork, 2, 31);
    group_add(3, &b, 1, 20);
    group_add(3, &a, 1, 20);
    group_add(4, &fork, 1, 32);
    groups[4].jobs[groups[4].count++] = groups[1].jobs[0]; /* once more */
    group_add(5, &b, 3, 9000);
}

static const td_operation *last_of(unsigned group)
{
    return &batch.operations[groups[group].jobs[0].first + groups[group].jobs[0].count - 1];
}

/* Does the store hold what it should of every group? */
static void groups_check(struct world *w, td_op_store *ops)
{
    for (unsigned i = 0; i < GROUPS; i++) {
        const td_operation *last = last_of(i);
        bool held = false;

        if (!works(w, td_op_store_holds(ops, last->collection, last->origin, last->seq, last->hash,
                                        &held),
                   "looking for a group"))
            return;
        if ((w->outcomes[i] == DURABLE && !held) ||
            ((w->outcomes[i] == ABSENT || w->outcomes[i] == UNTRIED) && held))
            wrong(w, "group %u is %s, and was %s", i, held ? "there" : "not there",
                  w->outcomes[i] == DURABLE  ? "durable"
                  : w->outcomes[i] == ABSENT ? "reported as failed"
                                             : "never tried");
    }
    if (td_op_store_verify(ops, report, w) != TANDEM_OK)
        wrong(w, "it does not verify");
}

/* ---- Scenarios: the operations store ---- */

static uint64_t no_clock(tandem_env *env)
{
    return 0;
}

static void fixed_random(tandem_env *env, void *out, size_t size)
{
    memset(out, 7, size);
}

static const struct tandem_env_ops env_ops = {no_clock, no_clock, fixed_random};
static tandem_env env = {.ops = &env_ops};

static tandem_err store_open(struct world *w, const char *const *names, unsigned count,
                             td_store **out)
{
    return w->scenario->on_disk ? td_lmdb_store_open(&env, w->folder, names, count, out)
                                : td_memory_store_open(&env, w->disk, names, count, out);
}

static tandem_err ops_open(struct world *w, td_op_store **out)
{
    td_store *store;
    tandem_err err = store_open(w, td_op_store_tables, td_op_store_table_count, &store);

    return err ? err : td_op_store_open(&env, store, out);
}

/* Append what a number stands for to the open group. */
typedef tandem_err (*append_fn)(td_op_store *ops, unsigned number);

static tandem_err group_append(td_op_store *ops, unsigned group)
{
    tandem_err err = TANDEM_OK;
    td_append_result result;

    for (unsigned i = 0; i < groups[group].count && err == TANDEM_OK; i++)
        err = td_op_store_append(ops, &batch.operations[groups[group].jobs[i].first],
                                 groups[group].jobs[i].count, &result);
    return err ? err : td_op_store_put_clock(ops, (uint64_t)group << 20);
}

/* Write one group as the executor does; false: it failed. */
static bool write_one(struct world *w, td_op_store *ops, unsigned group, append_fn append)
{
    uint64_t would_be = 0, last;
    bool committed = false;
    tandem_err err = td_op_store_begin(ops);

    w->outcomes[group] = ABSENT;
    if (err == TANDEM_OK) {
        if ((err = append(ops, group)) == TANDEM_OK) {
            would_be = td_op_store_group_ordinal(ops);
            committed = true;
            err = td_op_store_commit(ops);
        }
        if (err == TANDEM_OK) {
            w->outcomes[group] = DURABLE;
            return true;
        }
        td_op_store_abort(ops);
        if (committed && (td_op_store_recover(ops) != TANDEM_OK ||
                          td_op_store_last_ordinal(ops, &last) != TANDEM_OK))
            w->outcomes[group] = UNKNOWN;
        else if (committed)
            w->outcomes[group] = last == would_be ? DURABLE : ABSENT;
    }
    expect(w, err, "a group");
    return false;
}

static void write_all(struct world *w, unsigned first, unsigned end, append_fn append)
{
    td_op_store *ops;
    tandem_err err = ops_open(w, &ops);

    expect(w, err, "opening");
    if (err != TANDEM_OK)
        return;
    for (unsigned i = first; i < end && write_one(w, ops, i, append); i++) {
    }
    td_op_store_free(ops);
}

static void write_groups(struct world *w, unsigned first, unsigned end)
{
    write_all(w, first, end, group_append);
}

static void append_act(struct world *w)
{
    write_groups(w, 0, 3);
}

static void reopen_prepare(struct world *w)
{
    write_groups(w, 0, 2);
}

static void reopen_act(struct world *w)
{
    write_groups(w, 2, GROUPS);
}

static void groups_reopen_check(struct world *w)
{
    td_op_store *ops;

    if (!works(w, ops_open(w, &ops), "opening"))
        return;
    groups_check(w, ops);
    for (unsigned i = 0; i < GROUPS && !w->why[0]; i++)
        if (w->outcomes[i] != DURABLE)
            works(w, write_one(w, ops, i, group_append) ? TANDEM_OK : TANDEM_E_INTERNAL,
                  "writing again");
    td_op_store_free(ops);
}

/* ---- Scenarios: a chain that gets gaps, which are filled ---- */

static struct batch gapped; /* six jobs, of one to two operations */

/* What each step does, and to which jobs. */
static const struct {
    enum { TAKE, REFUSE, WANT, WITHDRAW } act;
    unsigned job, end;
} steps[STEPS] = {{TAKE, 0, 1},   {REFUSE, 1, 2}, {TAKE, 2, 3},     {WANT, 3, 5}, {TAKE, 5, 6},
                  {TAKE, 3, 4},   {TAKE, 1, 2},   {REFUSE, 6, 7}, {WITHDRAW, 0, 0}, {TAKE, 4, 5}};

static size_t gapped_at(unsigned job)
{
    return job + job / 2; /* each other one has two operations */
}

static void gapped_make(void)
{
    struct chain chain;

    chain_init(&chain, "notes", 9);
    for (unsigned i = 0; i < 7; i++)
        batch_job(&gapped, &chain, 1 + i % 2, 40);
}

static tandem_err step_append(td_op_store *ops, unsigned step)
{
    const td_operation *job = &gapped.operations[gapped_at(steps[step].job)];
    size_t count = gapped_at(steps[step].end) - gapped_at(steps[step].job);
    td_lack lack = {.first = job[0].seq};
    td_append_result result;
    tandem_err err;

    switch (steps[step].act) {
    case TAKE:
        return td_op_store_append(ops, job, count, &result);
    case REFUSE:
        err = td_op_store_refuse(ops, job, count, TANDEM_E_REFUSED);
        return err == TANDEM_E_REFUSED ? TANDEM_OK : err;
    case WANT:
        lack.last = job[count - 1].seq;
        memcpy(lack.predecessor, job[0].predecessor, sizeof(lack.predecessor));
        memcpy(lack.hash, job[count - 1].hash, sizeof(lack.hash));
        return td_op_store_want(ops, job[0].collection, job[0].origin, &lack);
    default:
        return td_op_store_withdraw(ops);
    }
}

static tandem_err sum_lack(void *context, tandem_slice collection, const uint8_t *origin,
                           const td_lack *lack)
{
    *(uint64_t *)context += lack->last * (lack->followed ? 1000 : 1) - (uint64_t)lack->reason;
    return TANDEM_OK;
}

/* What there is, as one number. */
static uint64_t gapped_state(struct world *w, td_op_store *ops)
{
    uint8_t digest[TANDEM_HASH_BYTES] = {0};
    uint64_t sum = 0, ordinal;

    works(w, td_op_store_vector_digest(ops, tandem_slice_text("notes"), digest), "the digest");
    works(w, td_op_store_all_lacks(ops, &ordinal, sum_lack, &sum), "what is lacking");
    return td_get_u64(digest) + sum;
}

static uint64_t gapped_states[STEPS + 1]; /* before each step, and in the end */

static void gapped_prepare(struct world *w)
{
    td_memory_disk *disk;
    td_store *store;
    td_op_store *ops;

    OK(td_memory_disk_open(&disk));
    OK(td_memory_store_open(&env, disk, td_op_store_tables, td_op_store_table_count, &store));
    OK(td_op_store_open(&env, store, &ops));
    for (unsigned i = 0; i < STEPS; i++) {
        gapped_states[i] = gapped_state(w, ops);
        OK(td_op_store_begin(ops));
        OK(step_append(ops, i));
        OK(td_op_store_commit(ops));
    }
    gapped_states[STEPS] = gapped_state(w, ops);
    td_op_store_free(ops);
    td_memory_disk_free(disk);
}

static void gapped_act(struct world *w)
{
    write_all(w, 0, STEPS, step_append);
}

static void gapped_check(struct world *w)
{
    unsigned done = 0;
    td_op_store *ops;
    uint64_t state;

    if (!works(w, ops_open(w, &ops), "opening"))
        return;
    while (done < STEPS && w->outcomes[done] == DURABLE)
        done++;
    state = gapped_state(w, ops);
    if (done < STEPS && w->outcomes[done] == UNKNOWN && state == gapped_states[done + 1])
        done++;
    if (state != gapped_states[done])
        wrong(w, "what is there is not what step %u left", done);
    if (td_op_store_verify(ops, report, w) != TANDEM_OK)
        wrong(w, "it does not verify");
    for (; done < STEPS && !w->why[0]; done++)
        works(w, write_one(w, ops, done, step_append) ? TANDEM_OK : TANDEM_E_INTERNAL,
              "writing again");
    if (gapped_state(w, ops) != gapped_states[STEPS])
        wrong(w, "it ends otherwise than without faults");
    td_op_store_free(ops);
}

/* ---- Scenarios: a reactor ---- */

static tandem_err reactor_open_with(struct world *w, tandem_admit_fn admit, tandem_reactor **out)
{
    tandem_options options = TANDEM_OPTIONS_INIT;
    char name[16];
    tandem_err err;

    snprintf(name, sizeof(name), "r%u", ++w->lives);
    if ((err = td_simulation_runtime(w->simulation, name, 0, &w->runtime)) != TANDEM_OK)
        return err;
    options.path = w->scenario->on_disk ? w->folder : NULL;
    options.admit = admit;
    err = td_reactor_open(w->runtime, &options, w->scenario->on_disk ? NULL : &w->disks, out);
    if (err != TANDEM_OK) {
        td_runtime_free(w->runtime);
        w->runtime = NULL;
    }
    return err;
}

static tandem_err reactor_open(struct world *w, tandem_reactor **out)
{
    return reactor_open_with(w, NULL, out);
}

static void reactor_close(struct world *w, tandem_reactor *reactor)
{
    tandem_close(reactor);
    td_runtime_free(w->runtime);
    w->runtime = NULL;
}

static void received(td_remote_request *request)
{
    *(bool *)request->context = true;
}

/* Have the executor do it. */
static void remote_await(struct world *w, tandem_reactor *reactor, td_remote_request *request)
{
    bool answered = false;

    request->done = received;
    request->context = &answered;
    td_executor_remote(td_reactor_executor(reactor), request);
    for (unsigned i = 0; i < 20 && !answered; i++)
        td_simulation_run(w->simulation, MINUTE_US);
    if (answered)
        return;
    if (!w->fault.for_ever) /* the disk does not come back: only closing ends that */
        wrong(w, "a request is not answered");
    td_executor_give_up(td_reactor_executor(reactor));
    td_simulation_run(w->simulation, MINUTE_US);
    must(answered, "a request is never answered");
}

/* Let a group's jobs arrive from elsewhere; false: one failed. */
static bool group_receive(struct world *w, tandem_reactor *reactor, unsigned group)
{
    static uint8_t bytes[GROUP_JOBS_MAX][64 * 1024]; /* made beforehand, without allocations */
    td_remote_job jobs[GROUP_JOBS_MAX] = {0};
    bool well = true;
    td_remote_request request = {.jobs = jobs, .count = groups[group].count};

    for (unsigned i = 0; i < groups[group].count; i++) {
        size_t size = 0;

        for (size_t j = 0; j < groups[group].jobs[i].count; j++) {
            tandem_slice one = batch.operations[groups[group].jobs[i].first + j].canonical;

            bytes[i][size] = 0xc5; /* bin 16 */
            bytes[i][size + 1] = (uint8_t)(one.size >> 8);
            bytes[i][size + 2] = (uint8_t)one.size;
            memcpy(&bytes[i][size + 3], one.bytes, one.size);
            size += 3 + one.size;
        }
        must(size <= sizeof(bytes[i]), "a job is too large");
        jobs[i].operations = tandem_slice_of(bytes[i], size);
        jobs[i].count = (uint32_t)groups[group].jobs[i].count;
    }
    remote_await(w, reactor, &request);
    for (unsigned i = 0; i < groups[group].count; i++) {
        if (jobs[i].err == TANDEM_E_REFUSED && !w->whole)
            continue;
        /* What follows a job that failed for a while may lack its predecessor. */
        if (jobs[i].err != TANDEM_E_PREDECESSOR || !fault_hit())
            expect(w, jobs[i].err, "receiving");
        well &= jobs[i].err == TANDEM_OK;
    }
    w->outcomes[group] = jobs[0].err == TANDEM_OK                  ? DURABLE
                         : jobs[0].err == TANDEM_E_OUTCOME_UNKNOWN ? UNKNOWN
                                                                   : ABSENT;
    return well;
}

static void receive_act(struct world *w)
{
    tandem_reactor *reactor;
    tandem_err err = reactor_open(w, &reactor);

    expect(w, err, "opening");
    if (err != TANDEM_OK)
        return;
    for (unsigned i = 0; i < GROUPS && group_receive(w, reactor, i); i++) {
    }
    reactor_close(w, reactor);
}

static void receive_check(struct world *w)
{
    tandem_reactor *reactor;

    w->whole = true;
    if (!works(w, reactor_open(w, &reactor), "opening"))
        return;
    groups_check(w, td_reactor_ops(reactor));
    for (unsigned i = 0; i < GROUPS && !w->why[0]; i++)
        group_receive(w, reactor, i);
    reactor_close(w, reactor);
}

static tandem_err take_bytes(void *context, tandem_slice bytes)
{
    tandem_write_raw(context, bytes);
    return tandem_writer_err(context);
}

/* A backup is taken, and looked at. */
static void back_up(struct world *w, tandem_reactor *reactor)
{
    tandem_restored restored;
    tandem_restore *restore;
    tandem_writer bytes;
    tandem_err err;

    tandem_writer_init(&bytes);
    err = tandem_backup(reactor, NULL, take_bytes, &bytes, NULL, NULL);
    expect(w, err, "a backup");
    if (err == TANDEM_OK) {
        err = tandem_restore_open(NULL, &restore, NULL);
        expect(w, err, "a restore");
    }
    if (err == TANDEM_OK) {
        err = tandem_restore_feed(restore, tandem_writer_slice(&bytes), NULL);
        expect(w, err, "feeding it");
        if (err == TANDEM_OK)
            expect(w, tandem_restore_finish(restore, &restored, NULL), "finishing it");
        tandem_restore_free(restore);
    }
    tandem_writer_release(&bytes);
}

/* The first job of the second group, which others stand behind, is not wanted. */
static bool admits(void *context, const tandem_operation *operation)
{
    return operation->seq != batch.operations[groups[1].jobs[0].first].seq ||
           memcmp(operation->origin, batch.operations[0].origin, TANDEM_ORIGIN_BYTES) != 0;
}

static void withdraw(struct world *w, tandem_reactor *reactor)
{
    td_remote_request request = {.withdraw = true};

    remote_await(w, reactor, &request);
    expect(w, request.err, "withdrawing");
}

/* All that comes is taken but that; then it is backed up, and the refusal is withdrawn. */
static void refuse_act(struct world *w)
{
    tandem_reactor *reactor;
    tandem_err err = reactor_open_with(w, admits, &reactor);

    expect(w, err, "opening");
    if (err != TANDEM_OK)
        return;
    for (unsigned i = 0; i < GROUPS && group_receive(w, reactor, i); i++) {
    }
    back_up(w, reactor);
    withdraw(w, reactor);
    reactor_close(w, reactor);
}

static void refuse_check(struct world *w)
{
    tandem_reactor *reactor;

    w->whole = true;
    if (!works(w, reactor_open(w, &reactor), "opening"))
        return;
    groups_check(w, td_reactor_ops(reactor));
    withdraw(w, reactor);
    for (unsigned i = 0; i < GROUPS && !w->why[0]; i++)
        group_receive(w, reactor, i);
    groups_check(w, td_reactor_ops(reactor));
    if (td_op_store_lack_count(td_reactor_ops(reactor)))
        wrong(w, "something is lacking in the end");
    reactor_close(w, reactor);
}

/* ---- Scenarios: documents ---- */

static tandem_err add(struct world *w, tandem_reactor *reactor, const char *document, size_t count)
{
    static tandem_input inputs[ADDS];
    tandem_job job = {
        .collection = "sums", .document = document, .operations = inputs, .count = count};
    tandem_err err;

    for (size_t i = 0; i < count; i++)
        inputs[i] = (tandem_input){.type = "counter.ADD", .input = tandem_slice_of("\x01", 1)};
    err = tandem_execute(reactor, &job, NULL, NULL);
    if (err == TANDEM_OK)
        w->durable++;
    else if (err == TANDEM_E_OUTCOME_UNKNOWN && w->fault.for_ever && fault_hit())
        w->unknown++;
    return err;
}

/* Read what was counted; -1: it cannot be read, which is said. */
static int64_t sum_read(struct world *w, tandem_reactor *reactor, const char *document,
                        tandem_err *err_out)
{
    tandem_document *read;
    tandem_reader reader;
    int64_t sum = -1;

    *err_out = tandem_document_read(reactor, "sums", document, NULL, NULL, UINT64_MAX, &read, NULL);
    if (*err_out != TANDEM_OK)
        return -1;
    reader = tandem_reader_of(tandem_document_state(read));
    if (tandem_read_int(&reader, &sum) != TANDEM_OK)
        wrong(w, "the state is no number");
    tandem_document_free(read);
    return sum;
}

static void documents_prepare(struct world *w)
{
    tandem_reactor *reactor;

    OK(reactor_open(w, &reactor));
    OK(add(w, reactor, "long", ADDS));
    OK(add(w, reactor, "short", 1));
    reactor_close(w, reactor);
    w->durable = 0;
}

/* All documents, and the operations of the short one: every page is asked for anew. */
static void list_all(struct world *w, tandem_reactor *reactor)
{
    tandem_documents *documents;
    tandem_document_entry entry;
    tandem_operations *operations;
    tandem_operation one;
    unsigned listed = 0, iterated = 0;
    tandem_err err = tandem_documents_open(reactor, "sums", &documents);

    expect(w, err, "listing");
    if (err == TANDEM_OK) {
        while ((err = tandem_documents_next(documents, &entry)) == TANDEM_OK)
            listed++;
        expect(w, err, "listing");
        if (err == TANDEM_END && listed != 2)
            wrong(w, "%u documents are listed", listed);
        tandem_documents_free(documents);
    }
    err = tandem_operations_open(reactor, "sums", "short", 0, &operations);
    expect(w, err, "iterating");
    if (err == TANDEM_OK) {
        while ((err = tandem_operations_next(operations, &one)) == TANDEM_OK)
            iterated++;
        expect(w, err, "iterating");
        if (err == TANDEM_END && iterated != 2) /* with its CREATE */
            wrong(w, "%u operations are iterated", iterated);
        tandem_operations_free(operations);
    }
}

static void documents_act(struct world *w)
{
    tandem_reactor *reactor;
    tandem_digest digest;
    int64_t sum;
    tandem_err err = reactor_open(w, &reactor);

    expect(w, err, "opening");
    if (err != TANDEM_OK)
        return;
    for (unsigned i = 0; i < 3; i++) {
        sum = sum_read(w, reactor, "long", &err);
        expect(w, err, "reading");
        if (err == TANDEM_OK && (sum < ADDS + (int64_t)w->durable ||
                                 sum > ADDS + (int64_t)(w->durable + w->unknown)))
            wrong(w, "a read says %lld after %llu and perhaps %llu more", (long long)sum,
                  (unsigned long long)w->durable, (unsigned long long)w->unknown);
        expect(w, add(w, reactor, "long", 1), "adding");
    }
    err = tandem_digest_collection(reactor, "sums", UINT64_MAX, &digest, NULL);
    expect(w, err, "the digest");
    if (err == TANDEM_OK && digest.documents != 2)
        wrong(w, "the digest is over %llu documents", (unsigned long long)digest.documents);
    list_all(w, reactor);
    reactor_close(w, reactor);
}

static void documents_check(struct world *w)
{
    tandem_reactor *reactor;
    tandem_err err;
    int64_t sum;

    if (!works(w, reactor_open(w, &reactor), "opening"))
        return;
    sum = sum_read(w, reactor, "long", &err);
    works(w, err, "reading");
    if (err == TANDEM_OK && (sum < ADDS + (int64_t)w->durable ||
                             sum > ADDS + (int64_t)(w->durable + w->unknown)))
        wrong(w, "%lld after %llu and perhaps %llu more", (long long)sum,
              (unsigned long long)w->durable, (unsigned long long)w->unknown);
    if (tandem_verify(reactor, report, w) != TANDEM_OK)
        wrong(w, "it does not verify");
    works(w, add(w, reactor, "long", 1), "adding");
    reactor_close(w, reactor);
}

static tandem_err count_collection(void *context, const tandem_collection_entry *entry)
{
    *(uint64_t *)context += entry->operations;
    return TANDEM_OK;
}

static void nothing_reported(void *context, const char *text)
{
    wrong(context, "verify reports without a fault in the data: %s", text);
}

/* Everything is read, as for a backup, and once more by one. */
static void backup_act(struct world *w)
{
    tandem_reactor *reactor;
    tandem_operations *operations;
    tandem_operation one;
    uint64_t counted = 0, iterated = 0;
    tandem_err err = reactor_open(w, &reactor);

    expect(w, err, "opening");
    if (err != TANDEM_OK)
        return;
    err = tandem_collections(reactor, count_collection, &counted);
    expect(w, err, "the collections");
    if (err == TANDEM_OK && counted != ADDS + 3) /* with two CREATEs */
        wrong(w, "%llu operations are counted", (unsigned long long)counted);
    err = tandem_operations_open(reactor, "sums", NULL, 0, &operations);
    expect(w, err, "iterating");
    if (err == TANDEM_OK) {
        while ((err = tandem_operations_next(operations, &one)) == TANDEM_OK)
            iterated++;
        expect(w, err, "iterating");
        if (err == TANDEM_END && iterated != ADDS + 3)
            wrong(w, "%llu operations are iterated", (unsigned long long)iterated);
        tandem_operations_free(operations);
    }
    expect(w, tandem_verify(reactor, nothing_reported, w), "verify");
    back_up(w, reactor);
    reactor_close(w, reactor);
}

/* ---- Scenarios: two reactors ---- */

static void harness_act(struct world *w)
{
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    tandem_err err = tandem_harness_open(&options, &w->harness);
    const char *const names[] = {"a", "b"};
    char why[256];

    expect(w, err, "a harness");
    for (unsigned i = 0; i < 2 && err == TANDEM_OK; i++) {
        err = tandem_harness_add(w->harness, names[i], 0);
        expect(w, err, "a reactor");
    }
    if (err != TANDEM_OK)
        return;
    err = tandem_harness_connect(w->harness, "a", "b");
    expect(w, err, "connecting");
    for (unsigned i = 0; i < 4; i++) {
        expect(w, add(w, tandem_harness_reactor(w->harness, names[i % 2]), i < 2 ? "x" : "y", 3),
               "adding");
        tandem_harness_run(w->harness, 300);
    }
    tandem_harness_run_until_converged(w->harness, 20000, why);
}

/* Faults have stopped while all went on: both must come to hold the same. */
static void harness_check(struct world *w)
{
    tandem_reactor *a, *b;
    uint64_t counted = 0;
    char why[256] = "";
    tandem_err err;

    if (!w->harness)
        return;
    a = tandem_harness_reactor(w->harness, "a");
    b = tandem_harness_reactor(w->harness, "b");
    if (a && b) {
        err = tandem_harness_connect(w->harness, "a", "b");
        if (err != TANDEM_E_EXISTS)
            works(w, err, "connecting");
        works(w, tandem_execute(a, &(tandem_job){.collection = "sums",
                                                 .document = "z",
                                                 .operations = &(tandem_input){
                                                     .type = "counter.ADD", .json = "1"},
                                                 .count = 1},
                                NULL, NULL),
              "adding");
        if (tandem_harness_run_until_converged(w->harness, 30 * 60000, why) != TANDEM_OK)
            wrong(w, "not in step: %s", why);
        works(w, tandem_collections(b, count_collection, &counted), "counting");
        if (counted < 3 * w->durable + 1)
            wrong(w, "%llu operations of %llu jobs", (unsigned long long)counted,
                  (unsigned long long)w->durable);
        if (tandem_verify(a, report, w) != TANDEM_OK || tandem_verify(b, report, w) != TANDEM_OK)
            wrong(w, "it does not verify");
    }
    tandem_harness_free(w->harness);
    w->harness = NULL;
}

/* ---- Scenarios: what the sync manager keeps; what it reads from the wire ---- */

static tandem_err remotes_open(struct world *w, td_sync_store **out)
{
    td_store *store;
    tandem_err err = store_open(w, td_sync_store_tables, td_sync_store_table_count, &store);

    return err ? err : td_sync_store_open(&env, store, out);
}

static tandem_err remote_put(td_sync_store *sync, unsigned number)
{
    td_remote_record record = {.paused = number % 2};

    snprintf(record.name, sizeof(record.name), "peer%u", number);
    snprintf(record.url, sizeof(record.url), "mem://peer%u", number);
    return td_sync_store_put_remote(sync, &record);
}

static tandem_err remote_note(void *context, const td_remote_record *record)
{
    *(unsigned *)context |= 1u << (record->name[4] - '0');
    return TANDEM_OK;
}

static void remotes_act(struct world *w)
{
    td_sync_store *sync;
    unsigned seen = 0;
    tandem_err err = remotes_open(w, &sync);

    expect(w, err, "opening");
    if (err != TANDEM_OK)
        return;
    for (unsigned i = 0; i < REMOTES; i++) {
        err = remote_put(sync, i);
        expect(w, err, "keeping");
        w->outcomes[i] = err == TANDEM_OK ? DURABLE : UNKNOWN;
    }
    err = td_sync_store_delete_remote(sync, "peer0");
    if (err != TANDEM_E_NOT_FOUND || w->outcomes[0] == DURABLE)
        expect(w, err, "deleting");
    if (err == TANDEM_OK || err == TANDEM_E_NOT_FOUND)
        w->outcomes[0] = ABSENT;
    else
        w->outcomes[0] = UNKNOWN;
    err = td_sync_store_remotes(sync, remote_note, &seen);
    expect(w, err, "listing");
    for (unsigned i = 0; i < REMOTES && err == TANDEM_OK; i++)
        if ((w->outcomes[i] == DURABLE && !(seen & 1u << i)) ||
            (w->outcomes[i] == ABSENT && (seen & 1u << i)))
            wrong(w, "remote %u is not listed right", i);
    td_sync_store_free(sync);
}

static void remotes_check(struct world *w)
{
    td_sync_store *sync;
    unsigned seen = 0;

    if (!works(w, remotes_open(w, &sync), "opening"))
        return;
    works(w, td_sync_store_remotes(sync, remote_note, &seen), "listing");
    for (unsigned i = 0; i < REMOTES; i++)
        if ((w->outcomes[i] == DURABLE && !(seen & 1u << i)) ||
            ((w->outcomes[i] == ABSENT || w->outcomes[i] == UNTRIED) && (seen & 1u << i)))
            wrong(w, "remote %u is %s", i, seen & 1u << i ? "there" : "not there");
    works(w, remote_put(sync, 1), "keeping");
    td_sync_store_free(sync);
}

static tandem_err dead_put(td_sync_store *sync, unsigned number)
{
    td_dead_letter letter = {.id = number + 1, .remote = "peer1", .collection = "notes",
                             .document = "n", .branch = "main", .error = TANDEM_E_REFUSED};
    const td_dead_letter *letters[] = {&letter};

    return td_sync_store_put_dead(sync, letters, 1);
}

static tandem_err dead_note(void *context, const td_dead_letter *letter)
{
    *(unsigned *)context |= 1u << (letter->id - 1);
    return TANDEM_OK;
}

/* Each for itself; then the first is discarded. */
static void dead_act(struct world *w)
{
    td_sync_store *sync;
    tandem_err err = remotes_open(w, &sync);

    expect(w, err, "opening");
    if (err != TANDEM_OK)
        return;
    for (unsigned i = 0; i < REMOTES; i++) {
        err = dead_put(sync, i);
        expect(w, err, "keeping");
        w->outcomes[i] = err == TANDEM_OK ? DURABLE : UNKNOWN;
    }
    err = td_sync_store_delete_dead(sync, &(uint64_t){1}, 1);
    expect(w, err, "discarding");
    w->outcomes[0] = err == TANDEM_OK ? ABSENT : UNKNOWN;
    td_sync_store_free(sync);
}

static void dead_check(struct world *w)
{
    uint64_t last = 0;
    td_sync_store *sync;
    unsigned seen = 0;

    if (!works(w, remotes_open(w, &sync), "opening"))
        return;
    works(w, td_sync_store_dead(sync, dead_note, &seen), "listing");
    works(w, td_sync_store_job_ids(sync, &last), "looking at the numbers");
    for (unsigned i = 0; i < REMOTES; i++)
        if ((w->outcomes[i] == DURABLE && (!(seen & 1u << i) || last < i + 1)) ||
            ((w->outcomes[i] == ABSENT || w->outcomes[i] == UNTRIED) && (seen & 1u << i)))
            wrong(w, "dead letter %u is %s", i + 1, seen & 1u << i ? "there" : "not there");
    works(w, td_sync_store_verify(sync, report, w), "verifying");
    works(w, dead_put(sync, 1), "keeping");
    td_sync_store_free(sync);
}

/* Vectors as bytes; false: the writer has failed. */
static bool vectors_write(tandem_writer *out)
{
    size_t entries = td_wire_begin_have(out, 1, 77, 76, TD_HAVE_VECTORS, NULL), origins;

    for (unsigned i = 0; i < 3; i++) {
        td_head heads[2] = {{.seq = 5 + i}, {.seq = 9 + i}};
        uint8_t origin[TANDEM_ORIGIN_BYTES] = {0};
        char name[8];

        snprintf(name, sizeof(name), "c%u", i);
        origins = td_wire_begin_vector(out, tandem_slice_text(name), true, NULL);
        for (uint8_t j = 0; j < 10; j++) {
            origin[0] = j;
            td_wire_write_origin(out, origin, heads, 1 + j % 2);
        }
        td_wire_patch_count(out, origins, 10);
        td_wire_end_vector(out);
    }
    td_wire_patch_count(out, entries, 3);
    return out->err == TANDEM_OK;
}

/* Vectors into a coverage, as a peer's announcement is. */
static tandem_err vectors_take(tandem_slice bytes, td_coverage *coverage)
{
    td_wire_message message;
    tandem_err err = td_wire_read(bytes, &message);

    for (uint32_t i = 0; err == TANDEM_OK && i < message.as.have.entry_count; i++) {
        td_collection_cover *collection;
        td_wire_vector vector;

        if ((err = td_wire_read_vector(&message.as.have.entries, &vector)) == TANDEM_OK)
            err = td_coverage_collection(coverage, vector.name, &collection);
        for (uint32_t j = 0; err == TANDEM_OK && j < vector.origin_count; j++) {
            td_wire_origin from;
            td_origin_cover *cover;

            if ((err = td_wire_read_origin(&vector.origins, &from)) == TANDEM_OK &&
                (err = td_coverage_origin(coverage, collection, from.origin, &cover)) == TANDEM_OK)
                err = td_coverage_set_heads(coverage, cover, from.heads, from.head_count);
        }
    }
    return err;
}

static void vectors_act(struct world *w)
{
    td_coverage coverage = {0};
    tandem_writer out;
    tandem_err err;

    tandem_writer_init(&out);
    err = vectors_write(&out) ? TANDEM_OK : TANDEM_E_NOMEM;
    expect(w, err, "writing");
    if (err == TANDEM_OK) {
        err = vectors_take(tandem_writer_slice(&out), &coverage);
        expect(w, err, "taking");
        if (err == TANDEM_OK && coverage.origin_count != 30)
            wrong(w, "%u origins of 30", coverage.origin_count);
        /* What was taken in part is told again: it must fit. */
        fault_disarm();
        works(w, vectors_take(tandem_writer_slice(&out), &coverage), "taking again");
        if (coverage.origin_count != 30)
            wrong(w, "%u origins of 30, in the end", coverage.origin_count);
    }
    td_coverage_release(&coverage);
    tandem_writer_release(&out);
}

static void nothing(struct world *w)
{
}

/* ---- The simulator, whose own memory fails, too ---- */

/* Two reactors, each of which is written to, cut off, and crashes. */
static const char plan_text[] = "plan 1\nseed 7\nreactors 2\nshape line\nboth 0\nwindow_jobs 0\n"
                                "window_bytes 0\npool_bytes 4096\nheal_ms 300\n"
                                "fault cut\nfault crash\nfault restore\nfault copy\n"
                                "step 10 00000000000000a1 write a\n"
                                "step 20 00000000000000a2 backup b\n"
                                "step 30 00000000000000a3 cut a b\n"
                                "step 40 00000000000000a4 write b\n"
                                "step 60 00000000000000a5 heal a b\n"
                                "step 80 00000000000000a6 crash a\n"
                                "step 90 00000000000000a7 go_back b\n";

static void plans_act(struct world *w)
{
    tandem_plan *drawn = NULL, *read = NULL, *copy = NULL;
    char *text = NULL, why[256];
    tandem_err err;

    if ((err = tandem_plan_draw(11, NULL, &drawn)) == TANDEM_OK &&
        (err = tandem_plan_write(drawn, &text)) == TANDEM_OK &&
        (err = tandem_plan_read(text, &read, why)) == TANDEM_OK &&
        (err = td_plan_copy(read, &copy)) == TANDEM_OK &&
        tandem_plan_steps(copy) != tandem_plan_steps(drawn))
        wrong(w, "the copy has other steps");
    expect(w, err, "drawing, writing, reading, copying");
    free(text);
    tandem_plan_free(drawn);
    tandem_plan_free(read);
    tandem_plan_free(copy);
}

/* What runs without memory may find anything wrong, but it comes to its end. */
static void simulate_act(struct world *w)
{
    tandem_simulator_result result;
    tandem_plan *plan;
    char why[256];
    tandem_err err = tandem_plan_read(plan_text, &plan, why);

    expect(w, err, "reading");
    if (err != TANDEM_OK)
        return;
    err = tandem_simulate(plan, NULL, &result);
    expect(w, err, "simulating");
    if (err == TANDEM_OK && !result.ok && !fault_hit())
        wrong(w, "without faults, %s", result.why);
    tandem_plan_free(plan);
}

/* A workload that is never content: so each plan fails, and what shrinks it is kept busy. */
static tandem_err discontent(void *context, tandem_reactor *reactor, char why[256])
{
    snprintf(why, 256, "nothing is ever right");
    return TANDEM_E_STATE;
}

static void shrink_act(struct world *w)
{
    static const char small[] = "plan 1\nseed 7\nreactors 2\nshape line\nboth 0\nwindow_jobs 4\n"
                                "window_bytes 0\npool_bytes 0\nheal_ms 50\nfault slow\n"
                                "step 10 00000000000000a1 slow a\n"
                                "step 20 00000000000000a2 write a\n";
    enum { RUNS_MAX = 5 };
    tandem_workload workload = *tandem_default_workload();
    tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;
    tandem_simulator_result result;
    tandem_plan *plan, *shrunk;
    char why[256];
    tandem_err err = tandem_plan_read(small, &plan, why);

    expect(w, err, "reading");
    if (err != TANDEM_OK)
        return;
    workload.check = discontent;
    options.workload = &workload;
    err = tandem_plan_shrink(plan, &options, RUNS_MAX, &shrunk, &result);
    expect(w, err, "shrinking");
    if (err == TANDEM_OK) {
        if (result.ok || tandem_plan_steps(shrunk) > tandem_plan_steps(plan))
            wrong(w, "what is left does not fail, or has grown");
        tandem_plan_free(shrunk);
    }
    tandem_plan_free(plan);
}

static const struct scenario scenarios[] = {
    {"append-disk", true, nothing, append_act, groups_reopen_check},
    {"append-memory", false, nothing, append_act, groups_reopen_check},
    {"reopen-disk", true, reopen_prepare, reopen_act, groups_reopen_check},
    {"reopen-memory", false, reopen_prepare, reopen_act, groups_reopen_check},
    {"gaps-disk", true, gapped_prepare, gapped_act, gapped_check},
    {"gaps-memory", false, gapped_prepare, gapped_act, gapped_check},
    {"receive-disk", true, nothing, receive_act, receive_check},
    {"receive-memory", false, nothing, receive_act, receive_check},
    {"refuse-disk", true, nothing, refuse_act, refuse_check},
    {"refuse-memory", false, nothing, refuse_act, refuse_check},
    {"documents-disk", true, documents_prepare, documents_act, documents_check},
    {"documents-memory", false, documents_prepare, documents_act, documents_check},
    {"backup", true, documents_prepare, backup_act, documents_check},
    {"two-reactors", false, nothing, harness_act, harness_check},
    {"remotes-disk", true, nothing, remotes_act, remotes_check},
    {"remotes-memory", false, nothing, remotes_act, remotes_check},
    {"dead-disk", true, nothing, dead_act, dead_check},
    {"dead-memory", false, nothing, dead_act, dead_check},
    {"vectors", false, nothing, vectors_act, nothing},
    {"plans", false, nothing, plans_act, nothing},
    {"simulator", false, nothing, simulate_act, nothing},
    {"shrinking", false, nothing, shrink_act, nothing},
};

enum { SCENARIOS = sizeof(scenarios) / sizeof(scenarios[0]) };

/* ---- Runs ---- */

static const char *const kinds[] = {"allocation", "store", "disk"};

static char folder[FOLDER_BYTES];
static char now[160]; /* for the last words of a crash */

static void last_words(int signal_number)
{
    static const char head[] = "failure_test: a crash; again with: ";

    if (write(2, head, sizeof(head) - 1) > 0 && write(2, now, strlen(now)) > 0 &&
        write(2, "\n", 1) > 0) {
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static unsigned open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count;
}

/* How many allocations or calls there were; what went wrong is in why. */
static uint64_t run(const struct scenario *scenario, const struct fault *fault, bool *unsure_out,
                    char why[WHY_BYTES])
{
    struct world w = {.scenario = scenario, .fault = *fault};
    int64_t allocations = fault_allocations();
    unsigned files = open_files();
    uint64_t count;

    snprintf(now, sizeof(now), "%s %s %llu %s", scenario->name,
             kinds[fault->kind], (unsigned long long)fault->at,
             fault->for_ever ? "ever" : fault->happened ? "happened" : "once");
    folder_empty(folder);
    snprintf(w.folder, sizeof(w.folder), "%s", folder);
    OK(td_memory_disk_open(&w.disk));
    OK(td_memory_disk_open(&w.disks.ops));
    OK(td_memory_disk_open(&w.disks.index));
    OK(td_memory_disk_open(&w.disks.sync));
    OK(td_simulation_open(1, &w.simulation));
    scenario->prepare(&w);

    fault_arm(fault);
    scenario->act(&w);
    fault_disarm();
    count = fault_count();
    *unsure_out = fault_may_have_happened();
    if (fault->at && !fault_hit())
        wrong(&w, "it came to no fault"); /* the same up to there: it was counted before */
    scenario->check(&w);

    td_simulation_free(w.simulation);
    td_memory_disk_free(w.disk);
    td_memory_disk_free(w.disks.ops);
    td_memory_disk_free(w.disks.index);
    td_memory_disk_free(w.disks.sync);
    if (fault_allocations() != allocations)
        wrong(&w, "%lld allocations are not given back",
              (long long)(fault_allocations() - allocations));
    if (open_files() != files)
        wrong(&w, "files stay open");
    memcpy(why, w.why, WHY_BYTES);
    return count;
}

static struct {
    uint64_t runs, failed;
} sum;

static bool run_and_tell(const struct scenario *scenario, const struct fault *fault)
{
    char why[WHY_BYTES];
    bool commit;

    run(scenario, fault, &commit, why);
    sum.runs++;
    if (!why[0])
        return commit;
    sum.failed++;
    printf("%s: %s\n", now, why);
    return commit;
}

static void loop(const struct scenario *scenario, fault_kind kind, uint64_t step)
{
    struct fault fault = {.kind = kind};
    char why[WHY_BYTES];
    uint64_t count;
    bool commit;

    count = run(scenario, &fault, &commit, why); /* once to warm up what stays for good, … */
    count = run(scenario, &fault, &commit, why);
    if (why[0]) {
        printf("%s: %s\n", now, why);
        sum.failed++;
        return;
    }
    /* … and from then on n, begun anywhere in a step, so that scenarios differ. */
    for (fault.at = 1 + (uint64_t)(scenario - scenarios) % step; fault.at <= count;
         fault.at += step) {
        fault.err = fault.at % 2 ? TANDEM_E_IO : TANDEM_E_STORE_FULL;
        fault.for_ever = fault.happened = false;
        if (run_and_tell(scenario, &fault)) {
            fault.happened = true;
            run_and_tell(scenario, &fault);
            fault.happened = false;
        }
        fault.for_ever = true;
        run_and_tell(scenario, &fault);
    }
    printf("%s: %llu of %s\n", scenario->name, (unsigned long long)count, kinds[kind]);
}

static bool run_one(char **argv)
{
    char why[WHY_BYTES];
    uint64_t count;
    bool commit;

    for (unsigned i = 0; i < SCENARIOS; i++) {
        struct fault fault = {.kind = !strcmp(argv[2], "disk")    ? FAULT_DISK
                                      : !strcmp(argv[2], "store") ? FAULT_STORE
                                                                  : FAULT_ALLOCATION,
                       .at = strtoull(argv[3], NULL, 10),
                       .for_ever = strcmp(argv[4], "ever") == 0,
                       .happened = strcmp(argv[4], "happened") == 0};

        fault.err = fault.at % 2 ? TANDEM_E_IO : TANDEM_E_STORE_FULL;
        if (strcmp(argv[1], scenarios[i].name) != 0)
            continue;
        count = run(&scenarios[i], &(struct fault){.kind = fault.kind}, &commit, why); /* warm up */
        printf("%s: %llu\n", now, (unsigned long long)count);
        run_and_tell(&scenarios[i], &fault);
        return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    uint64_t step = argc == 3 && !strcmp(argv[1], "--every") ? strtoull(argv[2], NULL, 10) : STEP;
    bool known = step > 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    folder_make(folder, "failure", true);
    signal(SIGSEGV, last_words);
    signal(SIGABRT, last_words);
    groups_make();
    gapped_make();
    if (argc == 5)
        known = run_one(argv);
    for (unsigned i = 0; argc != 5 && known && i < SCENARIOS; i++)
        for (fault_kind kind = FAULT_ALLOCATION; kind <= FAULT_DISK; kind++)
            if (kind != FAULT_DISK || scenarios[i].on_disk)
                loop(&scenarios[i], kind, kind == FAULT_DISK ? (step + 3) / 4 : step);
    printf("%llu runs, %llu failed\n", (unsigned long long)sum.runs,
           (unsigned long long)sum.failed);
    folder_remove(folder);
    batch_release(&batch);
    batch_release(&gapped);
    return known && !sum.failed ? 0 : 1;
}
