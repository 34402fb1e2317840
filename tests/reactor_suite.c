/*
 * The public face of the reactor, run on what its argument says: `folder` (LMDB, the library's own
 * loop), `memory` (the same without a folder), `driven` (in memory, this program turns the loop).
 */
#include "tests/operation_maker.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "reactor/reactor_parts.h"
#include "store/op_tables.h"
#include "store/stream_records.h"
#include "tests/folder.h"
#include "tests/tally_model.h"

static bool in_folder, driven;

/* ---- The bed ---- */

struct bed {
    tandem_reactor *reactor;
    tandem_options options;
    char root[FOLDER_BYTES];
    char path[256]; /* root/data */
};

static tandem_err bed_try(struct bed *bed, tandem_reactor **out)
{
    return tandem_open(&bed->options, out);
}

static void bed_reopen(struct bed *bed)
{
    assert_int_equal(TANDEM_OK, bed_try(bed, &bed->reactor));
}

static int bed_open(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_non_null(bed);
    folder_make(bed->root, "reactor", false);
    snprintf(bed->path, sizeof(bed->path), "%s/data", bed->root);
    bed->options = (tandem_options)TANDEM_OPTIONS_INIT;
    bed->options.path = in_folder ? bed->path : NULL;
    bed->options.drive = driven;
    bed->options.models = tally_models;
    bed->options.model_count = 1;
    bed_reopen(bed);
    *state = bed;
    return 0;
}

static void report(void *context, const char *text)
{
    fprintf(stderr, "verify: %s\n", text);
    if (context)
        ++*(unsigned *)context;
}

static int bed_free(void **state)
{
    struct bed *bed = *state;

    if (bed->reactor)
        assert_int_equal(TANDEM_OK, tandem_verify(bed->reactor, report, NULL));
    tandem_close(bed->reactor);
    folder_remove(bed->root);
    free(bed);
    return 0;
}

/* ---- Waiting for callbacks ---- */

static void turn(struct bed *bed)
{
    struct pollfd fd = {.fd = tandem_fd(bed->reactor), .events = POLLIN};

    assert_true(fd.fd >= 0);
    poll(&fd, 1, tandem_timeout_ms(bed->reactor));
    assert_int_equal(TANDEM_OK, tandem_poll(bed->reactor));
}

/* Counts what callbacks tell; a test waits for a count or a position. */
struct signal {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    unsigned count, ok;
    uint64_t position;
    tandem_err err;
    tandem_subscription *subscription; /* ended by the first call, if set */
    tandem_subscription **ends;
    tandem_receipt receipt;
    bool in_poll; /* driven: callbacks are expected now */
};

static void signal_init(struct signal *signal)
{
    memset(signal, 0, sizeof(*signal));
    pthread_mutex_init(&signal->lock, NULL);
    pthread_cond_init(&signal->moved, NULL);
    signal->in_poll = true;
}

static void signal_release(struct signal *signal)
{
    pthread_cond_destroy(&signal->moved);
    pthread_mutex_destroy(&signal->lock);
}

static void signal_wait(struct bed *bed, struct signal *signal, unsigned count, uint64_t position)
{
    pthread_mutex_lock(&signal->lock);
    while (signal->count < count || signal->position < position) {
        if (driven) {
            pthread_mutex_unlock(&signal->lock);
            turn(bed);
            pthread_mutex_lock(&signal->lock);
        } else {
            pthread_cond_wait(&signal->moved, &signal->lock);
        }
    }
    pthread_mutex_unlock(&signal->lock);
}

static void on_executed(void *context, tandem_err err, const tandem_receipt *receipt,
                        const char *why)
{
    struct signal *signal = context;

    pthread_mutex_lock(&signal->lock);
    signal->count++;
    signal->err = err;
    if (err == TANDEM_OK) {
        signal->ok++;
        signal->receipt = *receipt;
    }
    if (!signal->in_poll)
        abort();
    pthread_cond_signal(&signal->moved);
    pthread_mutex_unlock(&signal->lock);
}

static void on_committed(void *context, uint64_t position)
{
    struct signal *signal = context;

    pthread_mutex_lock(&signal->lock);
    if (position <= signal->position || !signal->in_poll)
        abort(); /* another thread's assertion would go nowhere */
    signal->position = position;
    signal->count++;
    if (signal->ends) {
        tandem_unsubscribe(*signal->ends);
        signal->ends = NULL;
    }
    pthread_cond_signal(&signal->moved);
    pthread_mutex_unlock(&signal->lock);
}

/* ---- Jobs ---- */

static tandem_err run_in(struct bed *bed, const char *collection, const char *document,
                         const char *type, const char *json, tandem_receipt *receipt)
{
    tandem_input input = {.type = type, .json = json};
    tandem_job job = {.collection = collection, .document = document, .operations = &input,
                      .count = 1};

    return tandem_execute(bed->reactor, &job, receipt, NULL);
}

static tandem_err run(struct bed *bed, const char *document, const char *type, const char *json,
                      tandem_receipt *receipt)
{
    return run_in(bed, "c", document, type, json, receipt);
}

static void add(struct bed *bed, const char *document, tandem_receipt *receipt)
{
    assert_int_equal(TANDEM_OK, run(bed, document, "counter.ADD", "1", receipt));
}

static void expect_read(struct bed *bed, const char *document, const char *branch,
                        const char *scope, const char *json)
{
    char why[TANDEM_WHY_BYTES];
    tandem_document *read;
    tandem_err err = tandem_document_read(bed->reactor, "c", document, branch, scope, UINT64_MAX,
                                          &read, why);

    if (!json) {
        assert_int_equal(TANDEM_E_NOT_FOUND, err);
        assert_true(why[0]);
        return;
    }
    assert_int_equal(TANDEM_OK, err);
    assert_string_equal(json, tandem_document_json(read));
    assert_string_equal(json, tandem_document_json(read));
    tandem_document_free(read);
}

static uint64_t position_of(struct bed *bed)
{
    uint64_t position;

    assert_int_equal(TANDEM_OK, tandem_position(bed->reactor, &position));
    return position;
}

/* ---- Opening ---- */

static void options_are_checked(void **state)
{
    static const tandem_model nameless = {.size = sizeof(tandem_model), .name = ""};
    static const tandem_model *const bad[] = {&nameless};
    tandem_options options = TANDEM_OPTIONS_INIT;
    tandem_reactor *reactor = NULL;

    assert_int_equal(TANDEM_E_INVALID, tandem_open(&options, NULL));
    options.size = sizeof(options) - 1;
    assert_int_equal(TANDEM_E_INVALID, tandem_open(&options, &reactor));
    options.size = sizeof(options);
    options.model_count = 1;
    assert_int_equal(TANDEM_E_INVALID, tandem_open(&options, &reactor));
    options.models = bad;
    assert_int_equal(TANDEM_E_INVALID, tandem_open(&options, &reactor));
    assert_null(reactor);
    assert_int_equal(TANDEM_OK, tandem_open(NULL, &reactor));
    tandem_close(reactor);
    tandem_close(NULL);
    assert_non_null(strchr(tandem_version(), '.'));
}

static int shown_at; /* which nice value; written before the read returns */

static tandem_err show_nice(const void *state, tandem_writer *out)
{
    shown_at = getpriority(PRIO_PROCESS, 0);
    return tally_save(state, out);
}

static void the_thread_that_folds_steps_back(void **state)
{
    tandem_model model = tally_model;
    const tandem_model *models[] = {&model};
    tandem_options options = TANDEM_OPTIONS_INIT;
    tandem_input input = {.type = "nice.TICK", .json = "null"};
    tandem_job job = {.collection = "c", .document = "d", .operations = &input, .count = 1};
    tandem_reactor *reactor;
    tandem_document *document;
    int here = getpriority(PRIO_PROCESS, 0);

    model.name = "nice";
    model.show = show_nice;
    options.models = models;
    options.model_count = 1;
    assert_int_equal(TANDEM_OK, tandem_open(&options, &reactor));
    assert_int_equal(TANDEM_OK, tandem_execute(reactor, &job, NULL, NULL));
    assert_int_equal(TANDEM_OK, tandem_document_read(reactor, "c", "d", NULL, NULL, 60000,
                                                     &document, NULL));
    assert_int_equal(here < 9 ? here + 10 : 19, shown_at);
    tandem_document_free(document);
    tandem_close(reactor);
}

static void reactors_are_told_apart(void **state)
{
    struct bed *bed = *state;
    tandem_reactor *other;

    assert_int_equal(TANDEM_OK, tandem_open(NULL, &other));
    assert_memory_not_equal(tandem_reactor_id(bed->reactor), tandem_reactor_id(other),
                            TANDEM_ORIGIN_BYTES);
    assert_memory_not_equal(tandem_reactor_origin(bed->reactor), tandem_reactor_origin(other),
                            TANDEM_ORIGIN_BYTES);
    tandem_close(other);
}

static void a_folder_is_opened_once(void **state)
{
    struct bed *bed = *state;
    tandem_reactor *second = NULL;

    if (!in_folder)
        return;
    assert_int_equal(TANDEM_E_LOCKED, bed_try(bed, &second));
    assert_null(second);
    tandem_close(bed->reactor);
    bed_reopen(bed);
}

static void a_folder_that_must_exist_is_not_made(void **state)
{
    struct bed *bed = *state;
    tandem_options options = bed->options;
    tandem_reactor *reactor;
    char path[300];

    if (!in_folder)
        return;
    snprintf(path, sizeof(path), "%s/none", bed->root);
    options.path = path;
    options.must_exist = true;
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_open(&options, &reactor));
    assert_int_equal(-1, access(path, F_OK));
    tandem_close(bed->reactor);
    bed->options.must_exist = true;
    bed_reopen(bed);
}

/* Change the operations store behind the back of the closed reactor. */
static td_txn *store_edit(struct bed *bed, td_runtime **runtime, td_store **store)
{
    char folder[300];
    td_txn *txn;

    tandem_close(bed->reactor);
    bed->reactor = NULL;
    snprintf(folder, sizeof(folder), "%s/store", bed->path);
    assert_int_equal(TANDEM_OK, td_threads_open(false, NULL, NULL, TANDEM_LOG_ERROR, runtime));
    assert_int_equal(TANDEM_OK,
                     td_lmdb_store_open((*runtime)->env, folder, td_op_store_tables,
                                        td_op_store_table_count, store));
    assert_int_equal(TANDEM_OK, td_store_begin_write(*store, &txn));
    return txn;
}

static void store_edited(td_txn *txn, td_runtime *runtime, td_store *store)
{
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
    td_store_free(store);
    td_runtime_free(runtime);
}

static void a_newer_format_is_left_alone(void **state)
{
    struct bed *bed = *state;
    tandem_writer scratch;
    td_runtime *runtime;
    td_store *store;
    td_txn *txn;

    if (!in_folder)
        return;
    add(bed, "d", NULL);
    tandem_writer_init(&scratch);
    txn = store_edit(bed, &runtime, &store);
    assert_int_equal(TANDEM_OK, td_format_put(txn, TD_FORMAT_VERSION + 1, &scratch));
    store_edited(txn, runtime, store);
    assert_int_equal(TANDEM_E_FORMAT_NEWER, bed_try(bed, &bed->reactor));
    assert_null(bed->reactor);
    bed->reactor = NULL;
    tandem_writer_release(&scratch);
}

static void a_folder_keeps_everything(void **state)
{
    struct bed *bed = *state;
    uint8_t id[TANDEM_ORIGIN_BYTES], origin[TANDEM_ORIGIN_BYTES];
    tandem_receipt before, after;
    tandem_stat stat;

    if (!in_folder)
        return;
    memcpy(id, tandem_reactor_id(bed->reactor), sizeof(id));
    memcpy(origin, tandem_reactor_origin(bed->reactor), sizeof(origin));
    for (unsigned round = 1; round <= 3; round++) {
        char json[8];

        for (unsigned i = 0; i < 10; i++)
            add(bed, "d", &before);
        tandem_close(bed->reactor);
        bed_reopen(bed);
        snprintf(json, sizeof(json), "%u", round * 11 - 1);
        expect_read(bed, "d", NULL, NULL, json);
        add(bed, "d", &after);
        assert_int_equal(before.seq + 1, after.seq);
        assert_int_equal(before.ordinal + 1, after.ordinal);
        assert_true(after.hlc > before.hlc);
    }
    assert_memory_equal(id, tandem_reactor_id(bed->reactor), sizeof(id));
    assert_memory_equal(origin, tandem_reactor_origin(bed->reactor), sizeof(origin));
    assert_int_equal(TANDEM_OK, tandem_stat_get(bed->reactor, &stat));
    assert_int_equal(34, stat.operations);
}

static void an_index_that_is_gone_or_garbage_is_built_anew(void **state)
{
    struct bed *bed = *state;
    char data[300], lock[300];
    FILE *file;

    if (!in_folder)
        return;
    for (unsigned i = 0; i < 300; i++)
        add(bed, i % 2 ? "odd" : "even", NULL);
    snprintf(data, sizeof(data), "%s/index/data.mdb", bed->path);
    snprintf(lock, sizeof(lock), "%s/index/lock.mdb", bed->path);
    tandem_close(bed->reactor);
    assert_int_equal(0, unlink(data));
    unlink(lock);
    bed_reopen(bed);
    expect_read(bed, "odd", NULL, NULL, "150");
    tandem_close(bed->reactor);
    file = fopen(data, "w");
    assert_non_null(file);
    for (unsigned i = 0; i < 5000; i++)
        fputs("garbage ", file);
    assert_int_equal(0, fclose(file));
    bed_reopen(bed);
    expect_read(bed, "even", NULL, NULL, "150");
    add(bed, "even", NULL);
    expect_read(bed, "even", NULL, NULL, "151");
}

/* ---- Executing ---- */

static void a_job_gets_its_receipt(void **state)
{
    struct bed *bed = *state;
    tandem_input inputs[] = {{.type = "SET", .json = "{\"a\":1}"},
                             {.type = "kv.SET", .json = "{\"b\":[true,null]}"},
                             {.type = "UNSET", .json = "[\"a\"]"}};
    tandem_job job = {.collection = "c", .document = "d", .model = "kv", .operations = inputs,
                      .count = 3};
    tandem_receipt first, second;
    char why[TANDEM_WHY_BYTES] = "old";

    assert_int_equal(TANDEM_OK, tandem_execute(bed->reactor, &job, &first, why));
    assert_string_equal("", why);
    assert_memory_equal(tandem_reactor_origin(bed->reactor), first.origin, sizeof(first.origin));
    assert_int_equal(1, first.first_seq); /* the CREATE */
    assert_int_equal(4, first.seq);
    assert_int_equal(4, first.ordinal);
    assert_int_equal(4, position_of(bed));
    assert_int_equal(TANDEM_OK, tandem_execute(bed->reactor, &job, &second, NULL));
    assert_int_equal(5, second.first_seq);
    assert_int_equal(7, second.seq);
    assert_true(second.hlc > first.hlc);
    assert_memory_not_equal(first.hash, second.hash, sizeof(first.hash));
    expect_read(bed, "d", NULL, NULL, "{\"b\":[true,null]}");
}

static void what_is_wrong_with_a_job_is_told(void **state)
{
    static const struct {
        const char *document, *model, *type, *json;
        tandem_err err;
    } cases[] = {
        {"new", NULL, "SET", "{}", TANDEM_E_MODEL_UNKNOWN},
        {"new", NULL, "nothing.SET", "{}", TANDEM_E_MODEL_UNKNOWN},
        {"new", NULL, "kv.SET", "7", TANDEM_E_INPUT},
        {"new", NULL, "kv.SET", "{", TANDEM_E_INPUT},
        {"new", NULL, "kv.CREATE", "{}", TANDEM_E_INPUT},
        {"", NULL, "kv.SET", "{}", TANDEM_E_INPUT},
        {"line\nfeed", NULL, "kv.SET", "{}", TANDEM_E_INPUT},
        {"d", NULL, "kv.SET", "{}", TANDEM_E_MODEL_MISMATCH},
        {"d", "log", "ADD", "1", TANDEM_E_MODEL_MISMATCH},
    };
    struct bed *bed = *state;
    tandem_input input = {.type = "counter.ADD", .json = "1"};
    tandem_job job = {.collection = "_own", .document = "d", .operations = &input, .count = 1};
    char why[TANDEM_WHY_BYTES];

    add(bed, "d", NULL);
    assert_int_equal(TANDEM_E_UNSUPPORTED, tandem_execute(bed->reactor, &job, NULL, why));
    assert_true(why[0]);
    job.collection = "c";
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        input = (tandem_input){.type = cases[i].type, .json = cases[i].json};
        job.document = cases[i].document;
        job.model = cases[i].model;
        why[0] = 0;
        assert_int_equal(cases[i].err, tandem_execute(bed->reactor, &job, NULL, why));
        assert_true(why[0]);
    }
    job = (tandem_job){.collection = "c", .document = "d", .operations = &input, .count = 0};
    assert_int_equal(TANDEM_E_INVALID, tandem_execute(bed->reactor, &job, NULL, why));
    job.count = 1;
    input.type = NULL;
    assert_int_equal(TANDEM_E_INVALID, tandem_execute(bed->reactor, &job, NULL, why));
    job.document = NULL;
    assert_int_equal(TANDEM_E_INVALID, tandem_execute(bed->reactor, &job, NULL, why));
    assert_int_equal(TANDEM_E_INVALID, tandem_execute(bed->reactor, NULL, NULL, why));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_delete(bed->reactor, "c", "new", NULL, why));
    assert_true(why[0]);
    assert_int_equal(2, position_of(bed));
}

static void a_group_is_executed_whole_or_not_at_all(void **state)
{
    struct bed *bed = *state;
    tandem_input one = {.type = "counter.ADD", .json = "1"}, text = {.type = "log.APPEND",
                                                                     .json = "\"x\""};
    tandem_job jobs[4] = {
        {.collection = "c", .document = "a", .operations = &one, .count = 1},
        {.collection = "c", .document = "a", .operations = &one, .count = 1},
        {.collection = "other", .document = "b", .operations = &text, .count = 1},
        {.collection = "c", .document = "a", .operations = &text, .count = 1},
    };
    tandem_receipt receipts[4];
    char why[TANDEM_WHY_BYTES];
    size_t failed = 9;

    assert_int_equal(TANDEM_E_MODEL_MISMATCH,
                     tandem_execute_group(bed->reactor, jobs, 4, receipts, &failed, why));
    assert_int_equal(3, failed);
    assert_true(why[0]);
    assert_int_equal(0, position_of(bed));
    expect_read(bed, "a", NULL, NULL, NULL);

    text.json = "{";
    assert_int_equal(TANDEM_E_INPUT,
                     tandem_execute_group(bed->reactor, jobs, 3, receipts, &failed, why));
    assert_int_equal(2, failed);
    text.json = "\"x\"";
    assert_int_equal(TANDEM_OK,
                     tandem_execute_group(bed->reactor, jobs, 3, receipts, &failed, why));
    assert_int_equal(2, receipts[0].seq);
    assert_int_equal(3, receipts[1].first_seq); /* of a document that the group made */
    assert_int_equal(3, receipts[1].seq);
    assert_int_equal(1, receipts[2].first_seq); /* each collection has its chain */
    assert_int_equal(5, receipts[2].ordinal);
    expect_read(bed, "a", NULL, NULL, "2");
    assert_int_equal(TANDEM_E_INVALID,
                     tandem_execute_group(bed->reactor, jobs, 0, NULL, NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID,
                     tandem_execute_group(bed->reactor, jobs, 1001, NULL, NULL, NULL));
}

static void an_async_job_calls_back_once(void **state)
{
    struct bed *bed = *state;
    tandem_input input = {.type = "counter.ADD", .json = "1"};
    tandem_job job = {.collection = "c", .document = "d", .operations = &input, .count = 1};
    struct signal signal;

    signal_init(&signal);
    signal.in_poll = !driven;
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(TANDEM_OK,
                         tandem_execute_async(bed->reactor, &job, on_executed, &signal));
    if (driven) {
        /* All are committed, nobody has been called: that is for the turn of the loop. */
        assert_int_equal(TANDEM_OK, tandem_wait(bed->reactor, 101, UINT64_MAX));
        signal.in_poll = true;
    }
    signal_wait(bed, &signal, 100, 0);
    assert_int_equal(100, signal.ok);
    assert_int_equal(101, signal.receipt.seq);
    input.type = "kv.SET";
    assert_int_equal(TANDEM_OK, tandem_execute_async(bed->reactor, &job, on_executed, &signal));
    signal_wait(bed, &signal, 101, 0);
    assert_int_equal(TANDEM_E_MODEL_MISMATCH, signal.err);
    /* What fails at once does not call back. */
    job.count = 0;
    assert_int_equal(TANDEM_E_INVALID,
                     tandem_execute_async(bed->reactor, &job, on_executed, &signal));
    assert_int_equal(TANDEM_E_INVALID, tandem_execute_async(bed->reactor, &job, NULL, NULL));
    add(bed, "d", NULL);
    assert_int_equal(101, signal.count);
    signal_release(&signal);
}

static void closing_calls_back_what_was_accepted(void **state)
{
    struct bed *bed = *state;
    tandem_input input = {.type = "tally.TICK", .json = "null"};
    tandem_job job = {.collection = "c", .document = "d", .operations = &input, .count = 1};
    struct signal signal;

    signal_init(&signal);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(TANDEM_OK,
                         tandem_execute_async(bed->reactor, &job, on_executed, &signal));
    tandem_close(bed->reactor);
    bed->reactor = NULL;
    assert_int_equal(50, signal.count);
    assert_int_equal(50, signal.ok);
    signal_release(&signal);
    if (!in_folder)
        return;
    bed_reopen(bed);
    expect_read(bed, "d", NULL, NULL, "50");
}

/* ---- Documents ---- */

/* What a plain string makes of the same edits. */
static void plain_edit(char *text, size_t at, size_t deleted, char inserted)
{
    size_t size = strlen(text);

    memmove(text + at + 1, text + at + deleted, size - at - deleted + 1);
    text[at] = inserted;
}

/* Each job of a group is prepared on the state that those before it leave: of more documents than stay in
 * memory, beside jobs in another collection. */
static void jobs_of_a_group_see_each_other(void **state)
{
    enum { JOBS = 1000, DOCUMENTS = 100, GROUPS = 3 };
    static char names[DOCUMENTS][8], texts[DOCUMENTS][JOBS], json[JOBS][80];
    static tandem_input inputs[JOBS];
    static tandem_job jobs[JOBS];
    static const tandem_input count = {.type = "ADD", .json = "1"};
    struct bed *bed = *state;
    uint64_t dice = 7;

    for (unsigned d = 0; d < DOCUMENTS; d++)
        snprintf(names[d], sizeof(names[d]), "t%u", d);
    for (unsigned group = 0; group < GROUPS; group++) {
        char why[TANDEM_WHY_BYTES] = "";
        size_t failed;

        for (unsigned i = 0; i < JOBS; i++) {
            unsigned d = (unsigned)(dice >> 33) % DOCUMENTS;
            size_t size = strlen(texts[d]), at = (size_t)(dice >> 40) % (size + 1);
            size_t deleted = at < size && (dice >> 50) % 3 == 0 ? 1 : 0;
            char letter = (char)('a' + i % 26);

            dice = dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            if (i % 7 == 0) {
                jobs[i] = (tandem_job){.collection = i % 2 ? "c" : "other", .document = "count",
                                       .model = "counter", .operations = &count, .count = 1};
                continue;
            }
            snprintf(json[i], sizeof(json[i]), "{\"at\": %zu, \"delete\": %zu, \"insert\": \"%c\"}",
                     at, deleted, letter);
            inputs[i] = (tandem_input){.type = "EDIT", .json = json[i]};
            jobs[i] = (tandem_job){.collection = "c", .document = names[d], .model = "text",
                                   .operations = &inputs[i], .count = 1};
            plain_edit(texts[d], at, deleted, letter);
        }
        if (tandem_execute_group(bed->reactor, jobs, JOBS, NULL, &failed, why) != TANDEM_OK)
            fail_msg("job %zu: %s", failed, why);
        for (unsigned d = 0; d < DOCUMENTS; d++) {
            char expected[JOBS + 3];

            snprintf(expected, sizeof(expected), "\"%.*s\"", JOBS - 1, texts[d]);
            expect_read(bed, names[d], NULL, NULL, texts[d][0] ? expected : NULL);
        }
    }
}

static void a_group_has_a_limit_of_states(void **state)
{
    enum { SCOPES = 501 };
    static char names[2 * SCOPES][16];
    static tandem_input inputs[2 * SCOPES];
    struct bed *bed = *state;
    tandem_job jobs[2];
    char why[TANDEM_WHY_BYTES] = "";
    size_t failed = 0;

    for (unsigned i = 0; i < 2 * SCOPES; i++) {
        snprintf(names[i], sizeof(names[i]), "s%u", i);
        inputs[i] = (tandem_input){.type = "EDIT", .scope = names[i],
                                   .json = "{\"at\": 0, \"insert\": \"x\"}"};
    }
    for (unsigned i = 0; i < 2; i++)
        jobs[i] = (tandem_job){.collection = "c", .document = "many", .model = "text",
                               .operations = &inputs[i * SCOPES], .count = SCOPES};
    assert_int_equal(TANDEM_E_LIMIT,
                     tandem_execute_group(bed->reactor, jobs, 2, NULL, &failed, why));
    assert_int_equal(1, failed);
    assert_non_null(strstr(why, "1000 scopes"));
    jobs[1].count = SCOPES - 2;
    assert_int_equal(TANDEM_OK, tandem_execute_group(bed->reactor, jobs, 2, NULL, NULL, why));
}

/* What is named may stand many operations back in the group. */
static void a_group_edits_what_it_typed_long_before(void **state)
{
    enum { JOBS_MAX = 200, EDITS = 400 };
    static const unsigned distances[] = {998, 999, 1000, 1001, 1002, 5000, 70000};
    static char json[EDITS][64];
    static tandem_input inputs[JOBS_MAX][EDITS];
    static tandem_job jobs[JOBS_MAX];
    struct bed *bed = *state;

    for (unsigned n = 0; n < sizeof(distances) / sizeof(distances[0]); n++) {
        const tandem_input late = {.type = "EDIT",
                                   .json = "{\"at\": 0, \"delete\": 1, \"insert\": \"LATE\"}"};
        unsigned typed = 0, count = 0, size;
        char document[16], why[TANDEM_WHY_BYTES] = "";
        tandem_document *read;
        tandem_reader reader;
        tandem_slice text;

        snprintf(document, sizeof(document), "far%u", n);
        for (; typed < distances[n]; typed += size, count++) {
            size = distances[n] - typed < EDITS ? distances[n] - typed : EDITS;
            for (unsigned i = 0; i < size; i++) {
                snprintf(json[i], sizeof(json[i]), "{\"at\": 0, \"insert\": \"x\"}");
                inputs[count][i] = (tandem_input){.type = "EDIT", .json = json[i]};
            }
            jobs[count] = (tandem_job){.collection = "c", .document = document, .model = "text",
                                       .operations = inputs[count], .count = size};
        }
        /* The first that was typed is the last one now. */
        for (unsigned i = 0; i < 2; i++) {
            static char at_end[64];
            static tandem_input at;

            snprintf(at_end, sizeof(at_end), "{\"at\": %u, \"delete\": 1, \"insert\": \"E\"}", typed - 1);
            at = (tandem_input){.type = "EDIT", .json = at_end};
            jobs[count++] = (tandem_job){.collection = "c", .document = document, .model = "text",
                                         .operations = i ? &late : &at, .count = 1};
        }
        if (tandem_execute_group(bed->reactor, jobs, count, NULL, NULL, why) != TANDEM_OK)
            fail_msg("%u: %s", distances[n], why);
        assert_int_equal(TANDEM_OK, tandem_document_read(bed->reactor, "c", document, NULL, NULL,
                                                         UINT64_MAX, &read, why));
        reader = tandem_reader_of(tandem_document_state(read));
        assert_int_equal(TANDEM_OK, tandem_read_string(&reader, &text));
        assert_int_equal(distances[n] + 3, text.size);
        assert_memory_equal("LATExx", text.bytes, 6);
        assert_int_equal('E', text.bytes[text.size - 1]);
        tandem_document_free(read);
    }
}

static void a_document_is_deleted_and_made_again(void **state)
{
    struct bed *bed = *state;
    tandem_receipt receipt;
    tandem_documents *documents;
    tandem_document_entry entry;
    char why[TANDEM_WHY_BYTES];
    uint64_t ordinal;

    add(bed, "d", NULL);
    add(bed, "d", NULL);
    assert_int_equal(TANDEM_OK, tandem_delete(bed->reactor, "c", "d", &receipt, why));
    assert_int_equal(4, receipt.seq);
    expect_read(bed, "d", NULL, NULL, NULL);
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_delete(bed->reactor, "c", "d", NULL, why));
    assert_int_equal(TANDEM_E_MODEL_MISMATCH, run(bed, "d", "kv.SET", "{}", NULL));
    assert_int_equal(TANDEM_OK, tandem_documents_open(bed->reactor, "c", &documents));
    assert_int_equal(TANDEM_OK, tandem_documents_next(documents, &entry));
    assert_true(entry.deleted);
    assert_string_equal("counter", entry.model);
    assert_int_equal(TANDEM_END, tandem_documents_next(documents, &entry));
    tandem_documents_free(documents);
    assert_int_equal(TANDEM_OK, tandem_document_head(bed->reactor, "c", "d", UINT64_MAX, &ordinal,
                                                     NULL, NULL));
    assert_int_equal(4, ordinal);
    add(bed, "d", &receipt);
    assert_int_equal(5, receipt.first_seq); /* a CREATE again */
    assert_int_equal(6, receipt.seq);
    expect_read(bed, "d", NULL, NULL, "1");
}

static void branches_and_scopes_have_states_of_their_own(void **state)
{
    struct bed *bed = *state;
    tandem_input inputs[] = {{.type = "ADD", .json = "1"},
                             {.type = "ADD", .scope = "side", .json = "10"},
                             {.type = "ADD", .scope = "side", .json = "10"}};
    tandem_job job = {.collection = "c", .document = "d", .model = "counter",
                      .operations = inputs, .count = 3};
    tandem_document *read;
    tandem_receipt receipt;

    assert_int_equal(TANDEM_OK, tandem_execute(bed->reactor, &job, NULL, NULL));
    job.branch = "draft";
    inputs[0].json = "500";
    job.count = 1;
    assert_int_equal(TANDEM_OK, tandem_execute(bed->reactor, &job, &receipt, NULL));
    expect_read(bed, "d", NULL, NULL, "1");
    expect_read(bed, "d", "main", "global", "1");
    expect_read(bed, "d", NULL, "side", "20");
    expect_read(bed, "d", "draft", NULL, "500");
    expect_read(bed, "d", "draft", "side", NULL);
    expect_read(bed, "d", "none", NULL, NULL);
    expect_read(bed, "none", NULL, NULL, NULL);
    assert_int_equal(TANDEM_OK, tandem_document_read(bed->reactor, "c", "d", NULL, "side",
                                                     UINT64_MAX, &read, NULL));
    assert_string_equal("counter", tandem_document_model(read));
    assert_int_equal(3, tandem_document_operations(read)); /* CREATE, and two of the scope */
    assert_int_equal(1, tandem_document_state(read).size);
    assert_int_equal(20, tandem_document_state(read).bytes[0]);
    /* The document's position is that of all its branches. */
    assert_int_equal(receipt.ordinal, tandem_document_position(read));
    assert_int_equal(receipt.seq, tandem_document_seq(read));
    assert_memory_equal(receipt.origin, tandem_document_origin(read), TANDEM_ORIGIN_BYTES);
    tandem_document_free(read);
    tandem_document_free(NULL);
}

/* More than the view indexes in one go. */
static void a_read_sees_everything_committed_before_it(void **state)
{
    enum { JOBS = 5, OPERATIONS = TANDEM_JOB_OPERATIONS_MAX - 1 };
    struct bed *bed = *state;
    static tandem_input inputs[OPERATIONS];
    tandem_job jobs[JOBS];
    uint64_t ordinal;
    char json[16];

    for (unsigned i = 0; i < OPERATIONS; i++)
        inputs[i] = (tandem_input){.type = "counter.ADD", .json = "1"};
    for (unsigned i = 0; i < JOBS; i++)
        jobs[i] = (tandem_job){.collection = "c", .document = "d", .operations = inputs,
                               .count = OPERATIONS};
    assert_int_equal(TANDEM_OK, tandem_execute_group(bed->reactor, jobs, JOBS, NULL, NULL, NULL));
    snprintf(json, sizeof(json), "%u", JOBS * OPERATIONS);
    expect_read(bed, "d", NULL, NULL, json);
    assert_int_equal(TANDEM_OK, tandem_execute_group(bed->reactor, jobs, JOBS, NULL, NULL, NULL));
    assert_int_equal(TANDEM_OK, tandem_document_head(bed->reactor, "c", "d", UINT64_MAX, &ordinal,
                                                     NULL, NULL));
    assert_int_equal(1 + 2 * JOBS * OPERATIONS, ordinal);
}

static void the_head_of_a_document(void **state)
{
    struct bed *bed = *state;
    uint8_t origin[TANDEM_ORIGIN_BYTES], zero[TANDEM_ORIGIN_BYTES] = {0};
    uint64_t ordinal = 9, seq = 9;
    tandem_receipt receipt;

    assert_int_equal(TANDEM_OK, tandem_document_head(bed->reactor, "c", "d", UINT64_MAX, &ordinal,
                                                     &seq, origin));
    assert_int_equal(0, ordinal);
    assert_int_equal(0, seq);
    assert_memory_equal(zero, origin, sizeof(origin));
    add(bed, "other", NULL);
    add(bed, "d", &receipt);
    assert_int_equal(TANDEM_OK, tandem_document_head(bed->reactor, "c", "d", UINT64_MAX, &ordinal,
                                                     &seq, origin));
    assert_int_equal(receipt.ordinal, ordinal);
    assert_int_equal(receipt.seq, seq);
    assert_memory_equal(receipt.origin, origin, sizeof(origin));
    assert_int_equal(TANDEM_OK, tandem_document_head(bed->reactor, "c", "d", UINT64_MAX, NULL,
                                                     NULL, NULL));
}

static void documents_come_in_pages(void **state)
{
    enum { DOCUMENTS = 600, GROUP = 100 };
    struct bed *bed = *state;
    static char names[DOCUMENTS][16];
    tandem_input input = {.type = "counter.ADD", .json = "1"};
    static tandem_job jobs[DOCUMENTS];
    tandem_documents *documents;
    tandem_document_entry entry;

    for (unsigned i = 0; i < DOCUMENTS; i++) {
        unsigned shuffled = i * 7 % DOCUMENTS;

        snprintf(names[i], sizeof(names[i]), "d%03u", shuffled);
        jobs[i] = (tandem_job){.collection = "c", .document = names[i], .operations = &input,
                               .count = 1};
    }
    for (unsigned i = 0; i < DOCUMENTS; i += GROUP)
        assert_int_equal(TANDEM_OK, tandem_execute_group(bed->reactor, &jobs[i], GROUP, NULL, NULL,
                                                         NULL));
    assert_int_equal(TANDEM_OK, tandem_documents_open(bed->reactor, "c", &documents));
    for (unsigned i = 0; i < DOCUMENTS; i++) {
        char name[16];

        snprintf(name, sizeof(name), "d%03u", i);
        assert_int_equal(TANDEM_OK, tandem_documents_next(documents, &entry));
        assert_string_equal(name, entry.document);
        assert_string_equal("counter", entry.model);
        assert_int_equal(2, entry.operations);
        assert_false(entry.deleted);
    }
    assert_int_equal(TANDEM_END, tandem_documents_next(documents, &entry));
    assert_int_equal(TANDEM_END, tandem_documents_next(documents, &entry));
    tandem_documents_free(documents);
    assert_int_equal(TANDEM_OK, tandem_documents_open(bed->reactor, "unknown", &documents));
    assert_int_equal(TANDEM_END, tandem_documents_next(documents, &entry));
    tandem_documents_free(documents);
    tandem_documents_free(NULL);
}

/* ---- Operations ---- */

static void operations_of_a_collection_come_in_order_of_arrival(void **state)
{
    enum { OPERATIONS = 400, BYTES = 3000 };
    struct bed *bed = *state;
    tandem_operations *operations;
    tandem_operation operation;
    char json[BYTES + 3];

    memset(json, 'x', sizeof(json));
    json[0] = json[BYTES + 1] = '"';
    json[BYTES + 2] = 0;
    for (unsigned i = 0; i < OPERATIONS; i++)
        assert_int_equal(TANDEM_OK, run(bed, i % 2 ? "a" : "b", "log.APPEND", json, NULL));
    assert_int_equal(TANDEM_OK,
                     tandem_operations_open(bed->reactor, "c", NULL, 0, &operations));
    for (uint64_t i = 1; i <= OPERATIONS + 2; i++) {
        uint8_t hash[TANDEM_HASH_BYTES];
        td_operation parsed;

        assert_int_equal(TANDEM_OK, tandem_operations_next(operations, &operation));
        assert_int_equal(i, operation.ordinal);
        assert_int_equal(i, operation.seq);
        assert_int_equal(0, operation.index);
        assert_int_equal(TANDEM_OK, td_operation_parse(operation.canonical, &parsed));
        memcpy(hash, operation.hash, sizeof(hash));
        td_operation_hash(&parsed);
        assert_memory_equal(parsed.hash, hash, sizeof(hash));
        assert_true(tandem_slice_equal(operation.collection, tandem_slice_text("c")));
    }
    assert_int_equal(TANDEM_END, tandem_operations_next(operations, &operation));
    /* It goes on when there is more. */
    assert_int_equal(TANDEM_OK, run(bed, "a", "APPEND", "1", NULL));
    assert_int_equal(TANDEM_OK, tandem_operations_next(operations, &operation));
    assert_int_equal(OPERATIONS + 3, operation.ordinal);
    assert_int_equal(TANDEM_END, tandem_operations_next(operations, &operation));
    tandem_operations_free(operations);

    assert_int_equal(TANDEM_OK,
                     tandem_operations_open(bed->reactor, "c", NULL, OPERATIONS, &operations));
    assert_int_equal(TANDEM_OK, tandem_operations_next(operations, &operation));
    assert_int_equal(OPERATIONS + 1, operation.ordinal);
    tandem_operations_free(operations);
    assert_int_equal(TANDEM_OK,
                     tandem_operations_open(bed->reactor, "unknown", NULL, 0, &operations));
    assert_int_equal(TANDEM_END, tandem_operations_next(operations, &operation));
    tandem_operations_free(operations);
    tandem_operations_free(NULL);
}

static void operations_of_a_document_come_in_total_order(void **state)
{
    enum { JOBS = 300 };
    struct bed *bed = *state;
    tandem_input inputs[] = {{.type = "ADD", .json = "1"},
                             {.type = "ADD", .scope = "side", .json = "1"}};
    tandem_job job = {.collection = "c", .document = "d", .model = "counter",
                      .operations = inputs, .count = 2};
    uint64_t hlc = 0, indexes[5] = {0}, total = 0, counted = 0, boundary = 0;
    tandem_operations *operations;
    tandem_operation operation;
    tandem_receipt deleted;

    for (unsigned i = 0; i < JOBS; i++) {
        job.branch = i % 10 ? "main" : "draft";
        if (i == JOBS / 3)
            assert_int_equal(TANDEM_OK, tandem_delete(bed->reactor, "c", "d", &deleted, NULL));
        assert_int_equal(TANDEM_OK, tandem_execute(bed->reactor, &job, NULL, NULL));
        add(bed, "foreign", NULL);
    }
    assert_int_equal(TANDEM_OK, tandem_operations_open(bed->reactor, "c", "d", 0, &operations));
    while (tandem_operations_next(operations, &operation) == TANDEM_OK) {
        bool draft = tandem_slice_equal(operation.branch, tandem_slice_text("draft"));
        bool side = tandem_slice_equal(operation.scope, tandem_slice_text("side"));
        bool lifecycle = tandem_slice_equal(operation.scope, tandem_slice_text("document"));
        unsigned stream = lifecycle ? 4 : side + 2 * draft;

        assert_true(tandem_slice_equal(operation.document, tandem_slice_text("d")));
        assert_true(operation.hlc > hlc); /* one origin: its order is that of its clock */
        hlc = operation.hlc;
        assert_int_equal(++indexes[stream], operation.index);
        assert_int_equal(operation.ordinal > deleted.ordinal, operation.counts);
        total++;
        counted += operation.counts;
        if (total == 500)
            boundary = operation.ordinal;
    }
    tandem_operations_free(operations);
    assert_int_equal(2 * JOBS + 3, total);
    assert_int_equal(2 * (JOBS - JOBS / 3) + 1, counted);
    assert_int_equal(3, indexes[4]);

    assert_int_equal(TANDEM_OK,
                     tandem_operations_open(bed->reactor, "c", "d", boundary, &operations));
    for (total = 500; tandem_operations_next(operations, &operation) == TANDEM_OK; total++)
        assert_true(operation.ordinal > boundary && operation.index > 0);
    assert_int_equal(2 * JOBS + 3, total);
    tandem_operations_free(operations);

    /* Of a deleted document nothing counts. */
    assert_int_equal(TANDEM_OK, tandem_delete(bed->reactor, "c", "foreign", NULL, NULL));
    assert_int_equal(TANDEM_OK,
                     tandem_operations_open(bed->reactor, "c", "foreign", 0, &operations));
    for (total = 0; tandem_operations_next(operations, &operation) == TANDEM_OK; total++)
        assert_false(operation.counts);
    assert_int_equal(JOBS + 2, total);
    tandem_operations_free(operations);
    assert_int_equal(TANDEM_OK,
                     tandem_operations_open(bed->reactor, "c", "unknown", 0, &operations));
    assert_int_equal(TANDEM_END, tandem_operations_next(operations, &operation));
    tandem_operations_free(operations);
}

/* Iterate, and expect one record to be corrupt and all others to be there. */
static void expect_passed_over(struct bed *bed, const char *document, uint64_t corrupt,
                               unsigned others)
{
    tandem_operations *operations;
    tandem_operation operation;
    unsigned found = 0, damaged = 0;
    tandem_err err;

    assert_int_equal(TANDEM_OK,
                     tandem_operations_open(bed->reactor, "c", document, 0, &operations));
    while ((err = tandem_operations_next(operations, &operation)) != TANDEM_END) {
        assert_true(found + damaged <= others);
        if (err == TANDEM_OK) {
            found++;
            continue;
        }
        assert_int_equal(TANDEM_E_CORRUPT, err);
        assert_int_equal(corrupt, operation.ordinal);
        damaged++;
    }
    assert_int_equal(1, damaged);
    assert_int_equal(others, found);
    tandem_operations_free(operations);
}

static void a_corrupt_record_is_named_and_passed_over(void **state)
{
    struct bed *bed = *state;
    static const uint64_t at[] = {3, 301}; /* within a page; first of the second page */
    unsigned reported = 0;

    if (!in_folder)
        return;
    for (unsigned i = 0; i < 400; i++)
        add(bed, "d", NULL);
    expect_read(bed, "d", NULL, NULL, "400"); /* all is indexed, and stays */
    for (unsigned i = 0; i < 2; i++) {
        char why[TANDEM_WHY_BYTES];
        tandem_slice key, value;
        td_cursor *cursor;
        unsigned table = 0;
        tandem_writer changed;
        tandem_document *read;
        td_runtime *runtime;
        uint8_t kept[64];
        size_t kept_size;
        td_store *store;
        td_txn *txn = store_edit(bed, &runtime, &store);

        while (strcmp(td_op_store_tables[table], "operations") != 0)
            table++;
        assert_int_equal(TANDEM_OK, td_txn_cursor(txn, table, &cursor));
        assert_int_equal(TANDEM_OK,
                         td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value));
        for (uint64_t n = 1; n < at[i]; n++)
            assert_int_equal(TANDEM_OK, td_cursor_next(cursor, &key, &value));
        kept_size = key.size;
        assert_true(kept_size <= sizeof(kept));
        memcpy(kept, key.bytes, kept_size);
        tandem_writer_init(&changed);
        tandem_write_raw(&changed, value);
        td_cursor_free(cursor);
        changed.bytes[changed.size - 1] ^= 1;
        assert_int_equal(TANDEM_OK, td_txn_put(txn, table, tandem_slice_of(kept, kept_size),
                                               tandem_writer_slice(&changed)));
        store_edited(txn, runtime, store);
        bed_reopen(bed);
        expect_passed_over(bed, NULL, at[i], 400);
        expect_passed_over(bed, "d", at[i], 400);
        if (i == 0) {
            expect_read(bed, "d", NULL, NULL, "400"); /* a snapshot stands behind it */
        } else {
            assert_int_equal(TANDEM_E_CORRUPT,
                             tandem_document_read(bed->reactor, "c", "d", NULL, NULL, UINT64_MAX,
                                                  &read, why));
            assert_non_null(strstr(why, "301"));
        }
        assert_int_equal(TANDEM_E_CORRUPT, tandem_verify(bed->reactor, report, &reported));
        assert_true(reported > i);
        /* Mend it. */
        txn = store_edit(bed, &runtime, &store);
        changed.bytes[changed.size - 1] ^= 1;
        assert_int_equal(TANDEM_OK, td_txn_put(txn, table, tandem_slice_of(kept, kept_size),
                                               tandem_writer_slice(&changed)));
        store_edited(txn, runtime, store);
        tandem_writer_release(&changed);
        bed_reopen(bed);
    }
    expect_read(bed, "d", NULL, NULL, "400");
}

struct told {
    unsigned count;
    char text[400];
};

static void keep_told(void *context, const char *text)
{
    struct told *told = context;

    told->count++;
    snprintf(told->text, sizeof(told->text), "%s", text);
}

/* Put a document's record, which is whole, at a key where no document is. */
static void index_edit(struct bed *bed)
{
    uint8_t key_bytes[TD_STORE_KEY_BYTES_MAX], bytes[600];
    char folder[300];
    tandem_slice key, value;
    td_runtime *runtime;
    td_cursor *cursor;
    td_store *store;
    td_txn *txn;

    tandem_close(bed->reactor);
    bed->reactor = NULL;
    snprintf(folder, sizeof(folder), "%s/index", bed->path);
    assert_int_equal(TANDEM_OK, td_threads_open(false, NULL, NULL, TANDEM_LOG_ERROR, &runtime));
    assert_int_equal(TANDEM_OK, td_lmdb_store_open(runtime->env, folder, td_stream_index_tables,
                                                   td_stream_index_table_count, &store));
    assert_int_equal(TANDEM_OK, td_store_begin_write(store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, TD_INDEX_DOCUMENTS, &cursor));
    assert_int_equal(TANDEM_OK, td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value));
    assert_true(value.size <= sizeof(bytes));
    memcpy(key_bytes, key.bytes, key.size);
    memcpy(bytes, value.bytes, value.size);
    td_cursor_free(cursor);
    key = tandem_slice_of(key_bytes, key.size + 1);
    key_bytes[key.size - 1] = 'x';
    td_index_checksum(TD_INDEX_DOCUMENTS, key,
                      tandem_slice_of(bytes + TD_INDEX_CHECKSUM_BYTES,
                                      value.size - TD_INDEX_CHECKSUM_BYTES), bytes);
    assert_int_equal(TANDEM_OK, td_txn_put(txn, TD_INDEX_DOCUMENTS, key,
                                           tandem_slice_of(bytes, value.size)));
    store_edited(txn, runtime, store);
    bed_reopen(bed);
}

static void an_index_that_does_not_fit_is_told_and_built_anew(void **state)
{
    struct bed *bed = *state;
    struct told told = {.count = 0};

    if (!in_folder)
        return;
    add(bed, "d", NULL);
    add(bed, "e", NULL);
    assert_int_equal(TANDEM_OK, tandem_verify(bed->reactor, keep_told, &told));
    index_edit(bed);
    assert_int_equal(TANDEM_E_CORRUPT, tandem_verify(bed->reactor, keep_told, &told));
    assert_int_equal(1, told.count);
    assert_non_null(strstr(told.text, "the index is damaged, and is built anew: "));
    assert_non_null(strstr(told.text, "document dx, collection c"));
    assert_int_equal(TANDEM_OK, tandem_verify(bed->reactor, keep_told, &told));
    assert_int_equal(1, told.count);
    expect_read(bed, "d", NULL, NULL, "1");
}

/* Beneath the records: then these are not read at all, and nothing is told of them. */
static void a_damaged_file_is_told_before_its_records_are_read(void **state)
{
    struct bed *bed = *state;
    struct told told = {.count = 0};
    enum { PAGE = 4096 };
    char file[300];
    struct stat info;
    int fd;

    if (!in_folder)
        return;
    add(bed, "d", NULL);
    snprintf(file, sizeof(file), "%s/store/data.mdb", bed->path);
    assert_true((fd = open(file, O_RDWR | O_CLOEXEC)) >= 0);
    assert_int_equal(0, fstat(fd, &info));
    for (off_t at = 2 * PAGE; at < info.st_size; at += PAGE) {
        uint8_t was, other;

        assert_int_equal(1, pread(fd, &was, 1, at)); /* of the page's number */
        other = was ^ 0x80;
        assert_int_equal(1, pwrite(fd, &other, 1, at));
        if (tandem_verify(bed->reactor, keep_told, &told) != TANDEM_OK) /* it is in use */
            assert_non_null(strstr(told.text, "the store's file is damaged, and its records were "
                                              "not read: page"));
        assert_int_equal(1, pwrite(fd, &was, 1, at));
    }
    close(fd);
    assert_true(told.count >= 3);
    assert_int_equal(TANDEM_OK, tandem_verify(bed->reactor, keep_told, &told));
}

struct visit {
    unsigned count, stop_at;
    char names[4][16];
    uint64_t operations[4], last[4];
};

static tandem_err visit_collection(void *context, const tandem_collection_entry *entry)
{
    struct visit *visit = context;
    unsigned at = visit->count++;

    snprintf(visit->names[at], sizeof(visit->names[at]), "%s", entry->name);
    visit->operations[at] = entry->operations;
    visit->last[at] = entry->last_ordinal;
    return visit->count == visit->stop_at ? TANDEM_END : TANDEM_OK;
}

static void collections_are_visited_in_order(void **state)
{
    static const char *const names[] = {"pear", "apple", "fig"};
    struct bed *bed = *state;
    tandem_input input = {.type = "counter.ADD", .json = "1"};
    tandem_job job = {.document = "d", .operations = &input, .count = 1};
    struct visit visit = {0};

    for (unsigned i = 0; i < 3; i++) {
        job.collection = names[i];
        assert_int_equal(TANDEM_OK, tandem_execute(bed->reactor, &job, NULL, NULL));
    }
    assert_int_equal(TANDEM_OK, tandem_collections(bed->reactor, visit_collection, &visit));
    assert_int_equal(3, visit.count);
    assert_string_equal("apple", visit.names[0]);
    assert_string_equal("fig", visit.names[1]);
    assert_string_equal("pear", visit.names[2]);
    assert_int_equal(2, visit.operations[2]);
    assert_int_equal(2, visit.last[2]);
    assert_int_equal(4, visit.last[0]);
    visit = (struct visit){.stop_at = 2};
    assert_int_equal(TANDEM_OK, tandem_collections(bed->reactor, visit_collection, &visit));
    assert_int_equal(2, visit.count);
}

/* ---- Positions and events ---- */

static void a_subscriber_hears_of_commits(void **state)
{
    struct bed *bed = *state;
    struct signal lasting, once, outside;
    tandem_subscription *subscriptions[3];
    unsigned count;

    signal_init(&lasting);
    signal_init(&once);
    signal_init(&outside);
    assert_int_equal(TANDEM_OK, tandem_subscribe(bed->reactor, on_committed, &once,
                                                 &subscriptions[1]));
    once.ends = &subscriptions[1];
    assert_int_equal(TANDEM_OK, tandem_subscribe(bed->reactor, on_committed, &outside,
                                                 &subscriptions[2]));
    assert_int_equal(TANDEM_OK, tandem_subscribe(bed->reactor, on_committed, &lasting,
                                                 &subscriptions[0]));
    for (unsigned i = 0; i < 50; i++)
        add(bed, "d", NULL);
    signal_wait(bed, &lasting, 1, 51);
    assert_true(lasting.count <= 50);
    if (driven) {
        assert_int_equal(1, lasting.count); /* a slow subscriber sees one call, not a queue */
        assert_int_equal(1, once.count);
    }
    /* All of a dispatch, however late in it: lasting is told before the others. */
    signal_wait(bed, &outside, 1, 51);
    tandem_unsubscribe(subscriptions[2]);
    count = outside.count;
    assert_int_equal(1, once.count);
    add(bed, "d", NULL);
    signal_wait(bed, &lasting, 1, 52);
    tandem_unsubscribe(subscriptions[0]);
    tandem_unsubscribe(NULL);
    assert_int_equal(count, outside.count);
    assert_int_equal(1, once.count);
    signal_release(&lasting);
    signal_release(&once);
    signal_release(&outside);
}

static void a_subscriber_hears_of_one_document(void **state)
{
    struct bed *bed = *state;
    struct signal any, one;
    tandem_subscription *subscriptions[2];
    tandem_receipt receipt;
    uint64_t before;

    signal_init(&any);
    signal_init(&one);
    assert_int_equal(TANDEM_OK, tandem_subscribe_document(bed->reactor, "c", "late", on_committed, &one,
                                                          &subscriptions[0]));
    assert_int_equal(TANDEM_OK, tandem_subscribe(bed->reactor, on_committed, &any,
                                                 &subscriptions[1]));
    /* Of others nothing, nor of what has its name elsewhere. */
    for (unsigned i = 0; i < 10; i++)
        add(bed, "d", &receipt);
    assert_int_equal(TANDEM_OK, run_in(bed, "other", "late", "counter.ADD", "1", &receipt));
    signal_wait(bed, &any, 1, receipt.ordinal);
    /* It comes to be. */
    add(bed, "late", &receipt);
    signal_wait(bed, &one, 1, receipt.ordinal);
    assert_int_equal(1, one.count);
    assert_int_equal(receipt.ordinal, one.position);
    /* It changes: the last call is after the last change, and changes are no queue. */
    for (unsigned i = 0; i < 50; i++) {
        add(bed, "late", &receipt);
        add(bed, "d", NULL);
    }
    signal_wait(bed, &one, 2, receipt.ordinal);
    assert_int_equal(receipt.ordinal, one.position);
    assert_true(one.count <= 51);
    if (driven)
        assert_int_equal(2, one.count);
    /* It is deleted. */
    before = one.count;
    assert_int_equal(TANDEM_OK, tandem_delete(bed->reactor, "c", "late", &receipt, NULL));
    signal_wait(bed, &one, (unsigned)before + 1, receipt.ordinal);
    /* Nothing more is told. */
    tandem_unsubscribe(subscriptions[0]);
    before = one.count;
    add(bed, "late", &receipt);
    signal_wait(bed, &any, 1, receipt.ordinal);
    assert_int_equal(before, one.count);
    tandem_unsubscribe(subscriptions[1]);
    assert_int_equal(TANDEM_E_INVALID, tandem_subscribe_document(bed->reactor, "c", "", on_committed,
                                                                 &one, &subscriptions[0]));
    signal_release(&any);
    signal_release(&one);
}

static void count_change(void *context, uint64_t position)
{
    struct signal *signal = context;

    pthread_mutex_lock(&signal->lock);
    signal->count += position > 0;
    pthread_mutex_unlock(&signal->lock);
}

/* A watch whose question is with the view when the reactor is closed, or it is given up. */
static void a_document_is_watched_to_the_end(void **state)
{
    for (unsigned i = 0; i < 40; i++) {
        struct bed *bed = *state;
        tandem_subscription *subscriptions[2];
        struct signal *signal = malloc(sizeof(*signal));

        assert_non_null(signal);
        signal_init(signal);
        for (unsigned k = 0; k < 2; k++)
            assert_int_equal(TANDEM_OK, tandem_subscribe_document(bed->reactor, "c", "d", count_change,
                                                                  signal, &subscriptions[k]));
        add(bed, "d", NULL);
        if (driven && i % 4 < 2)
            turn(bed);
        tandem_unsubscribe(subscriptions[0]);
        if (i % 2)
            tandem_unsubscribe(subscriptions[1]);
        tandem_close(bed->reactor);
        signal_release(signal);
        memset(signal, 0xee, sizeof(*signal));
        free(signal);
        bed_reopen(bed);
    }
}

static void after_closing_nobody_is_called(void **state)
{
    for (unsigned i = 0; i < 20; i++) {
        struct bed *bed = *state;
        tandem_subscription *subscription;
        struct signal *signal = malloc(sizeof(*signal));

        assert_non_null(signal);
        signal_init(signal);
        assert_int_equal(TANDEM_OK, tandem_subscribe(bed->reactor, on_committed, signal,
                                                     &subscription));
        add(bed, "d", NULL);
        tandem_close(bed->reactor);
        signal_release(signal);
        memset(signal, 0xee, sizeof(*signal));
        free(signal);
        bed_reopen(bed);
    }
}

struct waiter {
    struct bed *bed;
    uint64_t position;
    tandem_err err;
};

static void *wait_in_thread(void *context)
{
    struct waiter *waiter = context;

    waiter->err = tandem_wait(waiter->bed->reactor, waiter->position, UINT64_MAX);
    return NULL;
}

static void waiting_for_a_position(void **state)
{
    struct bed *bed = *state;
    struct waiter waiter = {.bed = bed, .position = 12};
    tandem_receipt receipt;
    pthread_t thread;

    assert_int_equal(TANDEM_OK, tandem_wait(bed->reactor, 0, 0x7fffffff));
    add(bed, "d", &receipt);
    assert_int_equal(TANDEM_OK, tandem_wait(bed->reactor, receipt.ordinal, UINT64_MAX));
    assert_int_equal(TANDEM_OK, tandem_wait(bed->reactor, 1, UINT64_MAX));
    assert_int_equal(TANDEM_E_TIMEOUT, tandem_wait(bed->reactor, 1000, 1));
    assert_int_equal(TANDEM_E_TIMEOUT, tandem_wait(bed->reactor, UINT64_MAX, 0));
    assert_int_equal(0, pthread_create(&thread, NULL, wait_in_thread, &waiter));
    for (unsigned i = 0; i < 10; i++)
        add(bed, "d", NULL);
    pthread_join(thread, NULL);
    assert_int_equal(TANDEM_OK, waiter.err);
    assert_int_equal(TANDEM_E_INVALID, tandem_wait(NULL, 1, 1));
}

/* ---- Driving ---- */

static void a_commit_makes_the_descriptor_readable(void **state)
{
    struct bed *bed = *state;
    tandem_subscription *subscription;
    struct signal signal;
    struct pollfd fd;

    if (!driven) {
        assert_int_equal(-1, tandem_fd(bed->reactor));
        assert_int_equal(-1, tandem_timeout_ms(bed->reactor));
        assert_int_equal(TANDEM_E_STATE, tandem_poll(bed->reactor));
        return;
    }
    signal_init(&signal);
    signal.in_poll = false;
    assert_int_equal(TANDEM_OK, tandem_subscribe(bed->reactor, on_committed, &signal,
                                                 &subscription));
    fd = (struct pollfd){.fd = tandem_fd(bed->reactor), .events = POLLIN};
    for (uint64_t i = 1; i <= 20; i++) {
        add(bed, "d", NULL); /* does not need the loop */
        assert_int_equal(i - 1, signal.count);
        assert_int_equal(1, poll(&fd, 1, 60000));
        signal.in_poll = true;
        while (signal.position < i + 1)
            assert_int_equal(TANDEM_OK, tandem_poll(bed->reactor));
        signal.in_poll = false;
        assert_int_equal(i, signal.count);
        /* Nothing is left: it does not stay readable. */
        signal.in_poll = true;
        while (poll(&fd, 1, 0))
            assert_int_equal(TANDEM_OK, tandem_poll(bed->reactor));
        signal.in_poll = false;
    }
    tandem_unsubscribe(subscription);
    signal_release(&signal);
}

/* ---- Care ---- */

static void fed(td_remote_request *request)
{
    td_reply_set(request->context, TANDEM_OK);
}

/* Operations as they come from a peer: each bin a job of its own. */
static void feed(tandem_reactor *reactor, const struct made *made, const size_t *order,
                 size_t count)
{
    td_remote_request request = {.done = fed, .count = (uint32_t)count};
    tandem_writer *bytes = calloc(count, sizeof(*bytes));
    td_reply *reply;

    assert_int_equal(TANDEM_OK, td_reply_open(td_reactor_runtime(reactor), &reply));
    request.context = reply;
    request.jobs = calloc(count, sizeof(*request.jobs));
    assert_non_null(request.jobs);
    assert_non_null(bytes);
    for (size_t i = 0; i < count; i++) {
        tandem_writer_init(&bytes[i]);
        tandem_write_binary(&bytes[i], made[order[i]].operation.canonical);
        request.jobs[i].operations = tandem_writer_slice(&bytes[i]);
        request.jobs[i].count = 1;
    }
    td_executor_remote(td_reactor_executor(reactor), &request);
    assert_int_equal(TANDEM_OK, td_reply_wait(reply, UINT64_MAX));
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(TANDEM_OK, request.jobs[i].err);
        tandem_writer_release(&bytes[i]);
    }
    td_reply_free(reply);
    free(request.jobs);
    free(bytes);
}

static void equal_operations_have_equal_digests(void **state)
{
    enum { DOCUMENTS = 20, EACH = 15, TOTAL = DOCUMENTS * EACH };
    struct bed *bed = *state;
    static struct made made[TOTAL];
    static size_t order[TOTAL];
    tandem_digest a, b;
    char why[TANDEM_WHY_BYTES];
    tandem_reactor *other;

    assert_int_equal(TANDEM_OK, tandem_open(NULL, &other));
    assert_int_equal(TANDEM_OK,
                     tandem_digest_collection(bed->reactor, "c", UINT64_MAX, &a, why));
    assert_int_equal(0, a.operations);
    for (uint32_t i = 0; i < TOTAL; i++) {
        char document[16];
        bool create = i % EACH == 0, remove = i % EACH == EACH - 1 && i / EACH % 4 == 0;

        snprintf(document, sizeof(document), "d%u", i / EACH);
        make_single("c", i + 1, 1000000 + i, document, "main", create || remove ? "document"
                                                                               : "global",
                    create   ? "counter.CREATE"
                    : remove ? "counter.DELETE"
                             : "counter.ADD",
                    &made[i]);
    }
    shuffle(order, TOTAL, 1);
    feed(bed->reactor, made, order, TOTAL);
    shuffle(order, TOTAL, 2);
    for (size_t at = 0; at < TOTAL; at += 50) {
        feed(other, made, order + at, 50);
        /* A look in between must not spoil what comes late. */
        assert_int_equal(TANDEM_OK, tandem_digest_collection(other, "c", UINT64_MAX, &b, why));
        assert_int_equal(at + 50, b.operations);
    }
    assert_int_equal(TANDEM_OK,
                     tandem_digest_collection(bed->reactor, "c", UINT64_MAX, &a, why));
    assert_int_equal(TOTAL, a.operations);
    assert_int_equal(DOCUMENTS - DOCUMENTS / 4, a.documents);
    assert_int_equal(a.operations, b.operations);
    assert_int_equal(a.documents, b.documents);
    assert_memory_equal(a.state_digest, b.state_digest, sizeof(a.state_digest));
    assert_memory_equal(a.vector_digest, b.vector_digest, sizeof(a.vector_digest));
    add(bed, "d1", NULL);
    assert_int_equal(TANDEM_OK,
                     tandem_digest_collection(bed->reactor, "c", UINT64_MAX, &a, why));
    assert_memory_not_equal(a.state_digest, b.state_digest, sizeof(a.state_digest));
    assert_memory_not_equal(a.vector_digest, b.vector_digest, sizeof(a.vector_digest));
    tandem_close(other);
    made_release(made, TOTAL);
}

static void the_figures(void **state)
{
    struct bed *bed = *state;
    tandem_receipt receipt;
    tandem_stat stat;

    assert_int_equal(TANDEM_OK, tandem_stat_get(bed->reactor, &stat));
    assert_int_equal(0, stat.operations);
    assert_int_equal(0, stat.position);
    for (unsigned i = 0; i < 20; i++)
        add(bed, "d", &receipt);
    assert_int_equal(TANDEM_OK, tandem_wait(bed->reactor, receipt.ordinal, UINT64_MAX));
    assert_int_equal(TANDEM_OK, tandem_stat_get(bed->reactor, &stat));
    assert_int_equal(21, stat.operations);
    assert_int_equal(21, stat.position);
    assert_int_equal(0, stat.index_lag);
    assert_int_equal(0, stat.quarantined);
    assert_int_equal(TANDEM_OK, stat.store_err);
    assert_true(stat.bytes > 0 && stat.index_bytes > 0);
    assert_int_equal(TANDEM_OK, tandem_verify(bed->reactor, report, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_stat_get(bed->reactor, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_verify(bed->reactor, NULL, NULL));
}

static tandem_err visit_nothing(void *context, const tandem_collection_entry *entry)
{
    return TANDEM_END;
}

static void on_event(void *context, const tandem_event *event)
{
}

/* Every call, with each thing that it cannot do without missing. */
static void a_call_that_lacks_something_is_refused(void **state)
{
    struct bed *bed = *state;
    tandem_reactor *r = bed->reactor;
    tandem_input input = {.type = "counter.ADD", .json = "1"};
    tandem_job job = {.collection = "c", .document = "d", .operations = &input, .count = 1};
    tandem_job lacking[] = {job, job, job};
    tandem_subscription *subscription;
    tandem_operations *operations;
    tandem_documents *documents;
    tandem_document *document;
    tandem_operation operation;
    tandem_document_entry entry;
    uint64_t position;
    tandem_digest digest;
    tandem_stat stat;

    lacking[0].collection = NULL;
    lacking[1].document = NULL;
    lacking[2].operations = NULL;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(TANDEM_E_INVALID, tandem_execute(r, &lacking[i], NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_execute_group(NULL, &job, 1, NULL, NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_execute_group(r, NULL, 1, NULL, NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_execute_group(r, &job, 0, NULL, NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_execute_async(NULL, &job, on_executed, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_execute_async(r, NULL, on_executed, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_execute_async(r, &job, NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_delete(NULL, "c", "d", NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_delete(r, NULL, "d", NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_delete(r, "c", NULL, NULL, NULL));

    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(TANDEM_E_INVALID,
                         tandem_document_read(i == 0 ? NULL : r, i == 1 ? NULL : "c",
                                              i == 2 ? NULL : "d", NULL, NULL, UINT64_MAX,
                                              i == 3 ? NULL : &document, NULL));
    for (unsigned i = 0; i < 3; i++) {
        tandem_reactor *reactor = i == 0 ? NULL : r;
        const char *collection = i == 1 ? NULL : "c";
        bool out = i != 2;

        assert_int_equal(TANDEM_E_INVALID,
                         tandem_document_head(reactor, collection, out ? "d" : NULL, UINT64_MAX,
                                              NULL, NULL, NULL));
        assert_int_equal(TANDEM_E_INVALID,
                         tandem_documents_open(reactor, collection, out ? &documents : NULL));
        assert_int_equal(TANDEM_E_INVALID, tandem_operations_open(reactor, collection, NULL, 0,
                                                                  out ? &operations : NULL));
        assert_int_equal(TANDEM_E_INVALID, tandem_digest_collection(reactor, collection, UINT64_MAX,
                                                                    out ? &digest : NULL, NULL));
        assert_int_equal(TANDEM_E_INVALID,
                         tandem_subscribe(reactor, collection ? on_committed : NULL, NULL,
                                          out ? &subscription : NULL));
        assert_int_equal(TANDEM_E_INVALID, tandem_watch(reactor, collection ? on_event : NULL, NULL,
                                                        out ? &subscription : NULL));
    }
    assert_int_equal(TANDEM_E_INVALID, tandem_documents_next(NULL, &entry));
    assert_int_equal(TANDEM_E_INVALID, tandem_operations_next(NULL, &operation));
    assert_int_equal(TANDEM_OK, tandem_operations_open(r, "c", NULL, 0, &operations));
    assert_int_equal(TANDEM_E_INVALID, tandem_operations_next(operations, NULL));
    tandem_operations_free(operations);
    assert_int_equal(TANDEM_OK, tandem_documents_open(r, "c", &documents));
    assert_int_equal(TANDEM_E_INVALID, tandem_documents_next(documents, NULL));
    tandem_documents_free(documents);
    assert_int_equal(TANDEM_E_INVALID, tandem_position(NULL, &position));
    assert_int_equal(TANDEM_E_INVALID, tandem_position(r, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_wait(NULL, 0, UINT64_MAX));
    assert_int_equal(TANDEM_E_INVALID, tandem_collections(NULL, visit_nothing, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_collections(r, NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_verify(NULL, report, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_verify(r, NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_stat_get(NULL, &stat));
    assert_int_equal(TANDEM_E_INVALID, tandem_stat_get(r, NULL));
    assert_int_equal(0, position_of(bed));
}

static void the_list_of_errors_is_sound(void **state)
{
    size_t count;
    const tandem_error_info *list = tandem_err_list(&count);

    assert_true(count > 30);
    for (size_t i = 0; i < count; i++) {
        assert_true(strncmp(list[i].name, "TANDEM_", 7) == 0);
        assert_true(list[i].when[0] && list[i].cure[0]);
        assert_string_equal(list[i].name, tandem_err_name(list[i].err));
        assert_string_equal(list[i].when, tandem_err_text(list[i].err));
        assert_int_equal(list[i].transient, tandem_err_is_transient(list[i].err));
        assert_ptr_equal(&list[i], tandem_err_info(list[i].err));
        assert_true(list[i].err >= TANDEM_OK || list[i].exit_code > 0);
        for (size_t k = 0; k < i; k++) {
            assert_int_not_equal(list[i].err, list[k].err);
            assert_string_not_equal(list[i].name, list[k].name);
        }
    }
    assert_string_equal("TANDEM_E_UNKNOWN", tandem_err_name((tandem_err)-999));
    assert_null(tandem_err_info((tandem_err)-999));
    assert_non_null(tandem_err_text((tandem_err)-999));
}

/* ---- Many threads ---- */

enum { THREADS = 6, ROUNDS = 25 };

struct worker {
    struct bed *bed;
    pthread_t thread;
    tandem_err err;
};

static void together(struct bed *bed, void *(*work)(void *))
{
    struct worker workers[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.bed = bed};
        assert_int_equal(0, pthread_create(&workers[i].thread, NULL, work, &workers[i]));
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(TANDEM_OK, workers[i].err);
    }
}

static void *tick(void *context)
{
    struct worker *worker = context;

    for (unsigned i = 0; i < ROUNDS && worker->err == TANDEM_OK; i++)
        worker->err = run(worker->bed, "d", "tally.TICK", "null", NULL);
    return NULL;
}

/* A model of one's own that reads the state, and creators that race: one CREATE, and every tick
 * has seen all before it. */
static void an_own_model_sees_the_latest_state(void **state)
{
    struct bed *bed = *state;
    tandem_operations *operations;
    tandem_operation operation;
    uint64_t ticks = 0, saw;

    together(bed, tick);
    assert_int_equal(TANDEM_OK,
                     tandem_operations_open(bed->reactor, "c", NULL, 0, &operations));
    assert_int_equal(TANDEM_OK, tandem_operations_next(operations, &operation));
    assert_true(tandem_slice_equal(operation.type, tandem_slice_text("tally.CREATE")));
    while (tandem_operations_next(operations, &operation) == TANDEM_OK) {
        tandem_reader reader = tandem_reader_of(operation.payload);

        assert_true(tandem_slice_equal(operation.type, tandem_slice_text("tally.TICK")));
        assert_int_equal(TANDEM_OK, tandem_read_uint(&reader, &saw));
        assert_int_equal(ticks++, saw);
    }
    tandem_operations_free(operations);
    assert_int_equal(THREADS * ROUNDS, ticks);
    assert_int_equal(TANDEM_E_INPUT, run(bed, "d", "tally.OTHER", "null", NULL));
}

/* Read, decide, write if nobody was faster. */
static void *compare_and_set(void *context)
{
    struct worker *worker = context;

    for (unsigned i = 0; i < ROUNDS && worker->err == TANDEM_OK; i++) {
        do {
            tandem_input input = {.type = "kv.SET"};
            tandem_job job = {.collection = "c", .document = "d", .operations = &input,
                              .count = 1, .has_expect = true};
            unsigned long value = 0;
            char json[64];
            tandem_document *read;
            tandem_err err = tandem_document_read(worker->bed->reactor, "c", "d", NULL, NULL,
                                                  UINT64_MAX, &read, NULL);

            if (err == TANDEM_OK) {
                value = strtoul(tandem_document_json(read) + strlen("{\"n\":"), NULL, 10);
                job.expect_position = tandem_document_position(read);
                tandem_document_free(read);
            }
            snprintf(json, sizeof(json), "{\"n\":%lu}", value + 1);
            input.json = json;
            worker->err = tandem_execute(worker->bed->reactor, &job, NULL, NULL);
        } while (worker->err == TANDEM_E_CONFLICT);
    }
    return NULL;
}

static void nobody_overwrites_what_he_has_not_seen(void **state)
{
    struct bed *bed = *state;
    char json[32];

    together(bed, compare_and_set);
    snprintf(json, sizeof(json), "{\"n\":%d}", THREADS * ROUNDS);
    expect_read(bed, "d", NULL, NULL, json);
}

/* Writers and readers of all kinds at once: nothing but the sanitizers judges the reads. */
static void *read_everything(void *context)
{
    struct worker *worker = context;
    tandem_reactor *reactor = worker->bed->reactor;

    for (unsigned i = 0; i < ROUNDS && worker->err == TANDEM_OK; i++) {
        tandem_operations *operations;
        tandem_operation operation;
        tandem_documents *documents;
        tandem_document_entry entry;
        tandem_digest digest;
        tandem_stat stat;
        struct visit visit = {0};

        worker->err = run(worker->bed, i % 2 ? "a" : "b", "counter.ADD", "1", NULL);
        if (tandem_stat_get(reactor, &stat) ||
            tandem_collections(reactor, visit_collection, &visit) ||
            tandem_digest_collection(reactor, "c", UINT64_MAX, &digest, NULL) ||
            tandem_operations_open(reactor, "c", i % 3 ? "a" : NULL, 0, &operations))
            worker->err = TANDEM_E_INTERNAL;
        if (worker->err)
            break;
        while (tandem_operations_next(operations, &operation) == TANDEM_OK)
            ;
        tandem_operations_free(operations);
        if (tandem_documents_open(reactor, "c", &documents))
            break;
        while (tandem_documents_next(documents, &entry) == TANDEM_OK)
            ;
        tandem_documents_free(documents);
    }
    return NULL;
}

static void readers_and_writers_do_not_disturb_each_other(void **state)
{
    struct bed *bed = *state;
    tandem_digest digest;

    together(bed, read_everything);
    assert_int_equal(TANDEM_OK,
                     tandem_digest_collection(bed->reactor, "c", UINT64_MAX, &digest, NULL));
    assert_int_equal(THREADS * ROUNDS + 2, digest.operations);
}

#define ON_BED(name) cmocka_unit_test_setup_teardown(name, bed_open, bed_free)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(the_thread_that_folds_steps_back),
        ON_BED(reactors_are_told_apart),
        ON_BED(a_folder_is_opened_once),
        ON_BED(a_folder_that_must_exist_is_not_made),
        ON_BED(a_newer_format_is_left_alone),
        ON_BED(a_folder_keeps_everything),
        ON_BED(an_index_that_is_gone_or_garbage_is_built_anew),
        ON_BED(a_job_gets_its_receipt),
        ON_BED(what_is_wrong_with_a_job_is_told),
        ON_BED(a_group_is_executed_whole_or_not_at_all),
        ON_BED(an_async_job_calls_back_once),
        ON_BED(closing_calls_back_what_was_accepted),
        ON_BED(jobs_of_a_group_see_each_other),
        ON_BED(a_group_has_a_limit_of_states),
        ON_BED(a_group_edits_what_it_typed_long_before),
        ON_BED(a_document_is_deleted_and_made_again),
        ON_BED(branches_and_scopes_have_states_of_their_own),
        ON_BED(a_read_sees_everything_committed_before_it),
        ON_BED(the_head_of_a_document),
        ON_BED(documents_come_in_pages),
        ON_BED(operations_of_a_collection_come_in_order_of_arrival),
        ON_BED(operations_of_a_document_come_in_total_order),
        ON_BED(a_corrupt_record_is_named_and_passed_over),
        ON_BED(an_index_that_does_not_fit_is_told_and_built_anew),
        ON_BED(a_damaged_file_is_told_before_its_records_are_read),
        ON_BED(collections_are_visited_in_order),
        ON_BED(a_subscriber_hears_of_commits),
        ON_BED(a_subscriber_hears_of_one_document),
        ON_BED(a_document_is_watched_to_the_end),
        ON_BED(after_closing_nobody_is_called),
        ON_BED(waiting_for_a_position),
        ON_BED(a_commit_makes_the_descriptor_readable),
        ON_BED(equal_operations_have_equal_digests),
        ON_BED(the_figures),
        ON_BED(a_call_that_lacks_something_is_refused),
        cmocka_unit_test(the_list_of_errors_is_sound),
        ON_BED(an_own_model_sees_the_latest_state),
        ON_BED(nobody_overwrites_what_he_has_not_seen),
        ON_BED(readers_and_writers_do_not_disturb_each_other),
    };

    if (argc != 2 || (strcmp(argv[1], "folder") && strcmp(argv[1], "memory") &&
                      strcmp(argv[1], "driven"))) {
        fprintf(stderr, "usage: reactor_suite folder|memory|driven\n");
        return 2;
    }
    in_folder = strcmp(argv[1], "folder") == 0;
    driven = strcmp(argv[1], "driven") == 0;
    return cmocka_run_group_tests_name(argv[1], tests, NULL, NULL);
}
