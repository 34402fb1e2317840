/*
 * The document view on both runtimes: on the simulation with an index in memory, on threads with
 * one in LMDB. Everything is asked through requests, as the executor and the reactor ask.
 */
#include "tests/operation_maker.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "reactor/document_view.h"
#include "reactor/fold.h"
#include "store/stream_block.h"
#include "reactor/runtime.h"
#include "tests/folder.h"

static bool on_threads;

/* ---- A model that looks at the state and counts what it is asked ---- */

static atomic_int probe_applied;

static tandem_err probe_open(void **state_out)
{
    *state_out = calloc(1, sizeof(uint64_t));
    return *state_out ? TANDEM_OK : TANDEM_E_NOMEM;
}

/* Takes ADD of a number other than what the state is; the payload says what the state was. */
static tandem_err probe_prepare(const void *state, const tandem_intent *intent,
                                tandem_writer *payload, char why[128])
{
    const uint64_t *sum = state;
    tandem_reader reader = tandem_reader_of(intent->input);
    uint64_t value;

    if (!sum || tandem_read_uint(&reader, &value) != TANDEM_OK || value == *sum)
        return TANDEM_E_INPUT; /* without a word of its own */
    tandem_write_array(payload, 2);
    tandem_write_uint(payload, *sum);
    tandem_write_uint(payload, value);
    return TANDEM_OK;
}

static tandem_err probe_apply(void *state, const tandem_change *change)
{
    uint64_t *sum = state;

    atomic_fetch_add(&probe_applied, 1);
    *sum = *sum * 31 + change->hlc;
    return TANDEM_OK;
}

static tandem_err probe_save(const void *state, tandem_writer *out)
{
    tandem_write_uint(out, *(const uint64_t *)state);
    return TANDEM_OK;
}

static tandem_err probe_restore(tandem_slice snapshot, void **state_out)
{
    tandem_reader reader = tandem_reader_of(snapshot);
    uint64_t sum;

    if (tandem_read_uint(&reader, &sum) != TANDEM_OK)
        return TANDEM_E_CORRUPT;
    if (probe_open(state_out) != TANDEM_OK)
        return TANDEM_E_NOMEM;
    *(uint64_t *)*state_out = sum;
    return TANDEM_OK;
}

/* The simulation's: so many snapshots to come find no room. */
static td_runtime *snapshots_refused_on;
static unsigned snapshots_refused_left;

static tandem_err probe_keep(const void *state, tandem_writer *out)
{
    if (snapshots_refused_left) {
        snapshots_refused_left--;
        td_simulation_disk(snapshots_refused_on, TD_DISK_PUT, TANDEM_E_STORE_FULL, 1);
    }
    return probe_save(state, out);
}

static const tandem_model probe = {
    .size = sizeof(tandem_model),
    .name = "probe",
    .version = 1,
    .prepare_reads_state = true,
    .state_open = probe_open,
    .state_free = free,
    .prepare = probe_prepare,
    .apply = probe_apply,
    .show = probe_save,
    .save = probe_keep,
    .restore = probe_restore,
};

/* Takes any verb and makes its input one level deeper. */
static tandem_err wrap_prepare(const void *state, const tandem_intent *intent,
                               tandem_writer *payload, char why[128])
{
    tandem_write_array(payload, 1);
    tandem_write_raw(payload, intent->input);
    return TANDEM_OK;
}

static const tandem_model wrap = {
    .size = sizeof(tandem_model),
    .name = "wrap",
    .version = 1,
    .state_open = probe_open,
    .state_free = free,
    .prepare = wrap_prepare,
    .apply = probe_apply,
    .show = probe_save,
    .save = probe_save,
    .restore = probe_restore,
};

/* ---- The bed ---- */

struct bed {
    td_simulation *simulation;
    td_runtime *runtime;
    td_host *host;
    td_op_store *ops;
    td_model_registry *registry;
    td_document_view *view;
    td_memory_disk *disk;
    char folder[FOLDER_BYTES];
    td_store *store; /* the index's, while the view has it */
    atomic_int opened, dropped;
    _Atomic tandem_err open_err; /* what opening an index fails with */
    _Atomic uint64_t indexed;
};

static tandem_err open_index(void *context, bool drop, td_store **out)
{
    struct bed *bed = context;
    tandem_err err = bed->open_err;

    if (err)
        return err;
    bed->opened++;
    bed->dropped += drop;
    if (drop && on_threads) {
        folder_empty(bed->folder);
    } else if (drop) {
        td_memory_disk_free(bed->disk);
        bed->disk = NULL;
        if ((err = td_memory_disk_open(&bed->disk)) != TANDEM_OK)
            return err;
    }
    err = on_threads
              ? td_lmdb_store_open(bed->runtime->env, bed->folder, td_stream_index_tables,
                                   td_stream_index_table_count, out)
              : td_memory_store_open(bed->runtime->env, bed->disk, td_stream_index_tables,
                                     td_stream_index_table_count, out);
    bed->store = err ? NULL : *out;
    return err;
}

static void note_indexed(void *context, uint64_t position)
{
    struct bed *bed = context;

    assert_true(position > bed->indexed);
    bed->indexed = position;
}

static void view_start(struct bed *bed)
{
    assert_int_equal(TANDEM_OK,
                     td_host_open(bed->runtime, TD_HOST_WORKER, "view", &bed->host));
    bed->indexed = 0;
    assert_int_equal(TANDEM_OK,
                     td_document_view_open(bed->host, bed->ops, bed->registry, open_index, bed,
                                           note_indexed, bed, &bed->view));
}

static void view_stop(struct bed *bed)
{
    td_document_view_close(bed->view);
    td_host_stop(bed->host);
    td_document_view_free(bed->view);
    td_host_free(bed->host);
    bed->view = NULL;
    bed->host = NULL;
}

static struct bed *bed_open(void)
{
    struct bed *bed = calloc(1, sizeof(*bed));
    td_store *store;

    assert_non_null(bed);
    folder_make(bed->folder, "view", false);
    assert_int_equal(TANDEM_OK, td_memory_disk_open(&bed->disk));
    if (on_threads) {
        assert_int_equal(TANDEM_OK,
                         td_threads_open(false, NULL, NULL, TANDEM_LOG_ERROR, &bed->runtime));
    } else {
        assert_int_equal(TANDEM_OK, td_simulation_open(7, &bed->simulation));
        assert_int_equal(TANDEM_OK,
                         td_simulation_runtime(bed->simulation, "a", 0, &bed->runtime));
    }
    assert_int_equal(TANDEM_OK,
                     td_memory_store_open(bed->runtime->env, NULL, td_op_store_tables,
                                          td_op_store_table_count, &store));
    assert_int_equal(TANDEM_OK, td_op_store_open(bed->runtime->env, store, &bed->ops));
    assert_int_equal(TANDEM_OK, td_model_registry_open(&bed->registry));
    assert_int_equal(TANDEM_OK, td_model_registry_add(bed->registry, &probe));
    assert_int_equal(TANDEM_OK, td_model_registry_add(bed->registry, &wrap));
    view_start(bed);
    return bed;
}

static void bed_free(struct bed *bed)
{
    view_stop(bed);
    td_model_registry_free(bed->registry);
    td_op_store_free(bed->ops);
    td_runtime_free(bed->runtime);
    td_simulation_free(bed->simulation);
    td_memory_disk_free(bed->disk);
    folder_remove(bed->folder);
    free(bed);
}

static int setup(void **state)
{
    *state = bed_open();
    return 0;
}

static int teardown(void **state)
{
    bed_free(*state);
    return 0;
}

static tandem_slice s(const char *text)
{
    return tandem_slice_text(text);
}

static uint64_t last(struct bed *bed)
{
    uint64_t ordinal;

    assert_int_equal(TANDEM_OK, td_op_store_last_ordinal(bed->ops, &ordinal));
    return ordinal;
}

static void committed(struct bed *bed)
{
    td_document_view_committed(bed->view, last(bed));
}

/* ---- Asking ---- */

struct question {
    td_view_request request;
    td_reply *reply;
};

static void answered(td_view_request *request)
{
    td_reply_set(request->context, request->err);
}

static void ask_begin(struct bed *bed, struct question *q)
{
    assert_int_equal(TANDEM_OK, td_reply_open(bed->runtime, &q->reply));
    q->request.done = answered;
    q->request.context = q->reply;
    td_document_view_post(bed->view, &q->request);
}

static tandem_err ask_end(struct question *q)
{
    tandem_err err = td_reply_wait(q->reply, UINT64_MAX);

    td_reply_free(q->reply);
    return err;
}

/* After everything that is committed. The caller releases q->request.out. */
static tandem_err ask(struct bed *bed, struct question *q)
{
    q->request.position = last(bed);
    ask_begin(bed, q);
    return ask_end(q);
}

static tandem_err ask_about(struct bed *bed, td_view_kind kind, const char *document,
                            struct question *q)
{
    memset(q, 0, sizeof(*q));
    q->request.kind = kind;
    q->request.collection = s("c");
    q->request.document = s(document);
    return ask(bed, q);
}

/* The state of a document's main/global as bytes the caller releases. */
static tandem_writer state_of(struct bed *bed, const char *document)
{
    struct question q;

    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_READ, document, &q));
    return q.request.out;
}

static void expect_not_read(struct bed *bed, const char *document, tandem_err expected,
                            const char *why)
{
    struct question q;

    assert_int_equal(expected, ask_about(bed, TD_VIEW_READ, document, &q));
    assert_int_equal(expected, q.request.err);
    assert_non_null(strstr(q.request.why, why));
    tandem_writer_release(&q.request.out);
}

static uint64_t number_of(struct bed *bed, const char *document)
{
    tandem_writer state = state_of(bed, document);
    tandem_reader reader = tandem_reader_of(tandem_writer_slice(&state));
    uint64_t number;

    assert_int_equal(TANDEM_OK, tandem_read_uint(&reader, &number));
    tandem_writer_release(&state);
    return number;
}

static struct question digest_of(struct bed *bed)
{
    struct question q;

    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_STATES, "", &q));
    return q;
}

static void one_in(struct bed *bed, const char *collection, uint32_t number)
{
    struct made made;

    make_single(collection, number, number, "d", "main", "global", "probe.X", &made);
    arrive(bed->ops, &made, NULL, 1);
    made_release(&made, 1);
    committed(bed);
}

static void one(struct bed *bed, uint32_t number, uint64_t hlc, const char *document,
                const char *scope, const char *type)
{
    struct made made;

    make_single("c", number, hlc, document, "main", scope, type, &made);
    arrive(bed->ops, &made, NULL, 1);
    made_release(&made, 1);
    committed(bed);
}

/* ---- Folds ---- */

static void a_fold_is_the_same_after_any_order_of_arrival(void **state)
{
    enum { COUNT = 900 };
    static struct made made[COUNT];
    static size_t order[COUNT];
    tandem_writer first = {0};

    make_single("c", 1, 1, "d", "main", "document", "log.CREATE", &made[0]);
    for (uint32_t i = 1; i < COUNT; i++)
        make_single("c", i + 1, 100 + i / 2, "d", "main", "global", "log.APPEND", &made[i]);
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct bed *bed = bed_open();
        tandem_writer found;

        shuffle(order, COUNT, seed);
        for (size_t at = 0, size; at < COUNT; at += size) {
            struct question q;

            size = seed % 2 ? 450 : 100;
            arrive(bed->ops, made, order + at, size < COUNT - at ? size : COUNT - at);
            committed(bed);
            /* Folds on the way leave states and snapshots that must not be trusted too long. */
            ask_about(bed, TD_VIEW_READ, "d", &q);
            tandem_writer_release(&q.request.out);
        }
        found = state_of(bed, "d");
        if (seed == 1)
            first = found;
        assert_true(tandem_slice_equal(tandem_writer_slice(&first), tandem_writer_slice(&found)));
        if (seed > 1)
            tandem_writer_release(&found);
        bed_free(bed);
    }
    {
        tandem_reader reader = tandem_reader_of(tandem_writer_slice(&first));
        uint64_t number;
        uint32_t count;

        assert_int_equal(TANDEM_OK, tandem_read_array(&reader, &count));
        assert_int_equal(COUNT - 1, count);
        for (uint32_t i = 1; i < COUNT; i++) {
            assert_int_equal(TANDEM_OK, tandem_read_uint(&reader, &number));
            assert_int_equal(i + 1, number);
        }
    }
    tandem_writer_release(&first);
    made_release(made, COUNT);
}

static void a_state_in_memory_is_gone_on_from(void **state)
{
    struct bed *bed = *state;

    one(bed, 1, 1, "d", "document", "probe.CREATE");
    for (uint32_t i = 0; i < 50; i++)
        one(bed, 10 + i, 100 + i, "d", "global", "probe.ADD");
    number_of(bed, "d");
    probe_applied = 0;
    number_of(bed, "d");
    assert_int_equal(0, probe_applied);
    one(bed, 100, 1000, "d", "global", "probe.ADD");
    number_of(bed, "d");
    assert_int_equal(1, probe_applied);
    one(bed, 101, 50, "d", "global", "probe.ADD"); /* late */
    number_of(bed, "d");
    assert_int_equal(1 + 52, probe_applied);
}

static void a_long_fold_leaves_snapshots(void **state)
{
    enum { COUNT = 2000 };
    static struct made made[COUNT];
    struct bed *bed = *state;
    uint64_t before;

    one(bed, 1, 1, "d", "document", "probe.CREATE");
    for (uint32_t i = 0; i < COUNT; i++)
        make_single("c", 10 + i, 100 + i, "d", "main", "global", "probe.ADD", &made[i]);
    arrive(bed->ops, made, NULL, COUNT);
    made_release(made, COUNT);
    committed(bed);
    before = number_of(bed, "d");
    view_stop(bed);
    view_start(bed);
    probe_applied = 0;
    assert_true(before == number_of(bed, "d"));
    assert_in_range(probe_applied, 0, TD_VIEW_BATCH / 8);
    probe_applied = 0;
    one(bed, 9000, 100 + COUNT - 300, "d", "global", "probe.ADD"); /* late, behind the newest */
    before = number_of(bed, "d");
    assert_in_range(probe_applied, 300, 900);
    view_stop(bed);
    assert_int_equal(TANDEM_OK, open_index(bed, true, &bed->store));
    td_store_free(bed->store);
    view_start(bed);
    assert_true(before == number_of(bed, "d"));
}

/* What is kept of a stream, however often it is read and however much of it there is. */
static void snapshots_cost_a_share_of_the_disk(void **state)
{
    enum { COUNT = 8000, READ_EVERY = 300 };
    static struct made made[COUNT];
    static const uint8_t payload[32] = {0xc4, 30};
    struct bed *bed = *state;
    tandem_slice key, value;
    struct maker maker;
    td_cursor *cursor;
    unsigned count = 0;
    size_t bytes = 0;
    td_txn *txn;

    one(bed, 1, 1, "d", "document", "log.CREATE");
    maker_init(&maker, "c", 2);
    for (uint32_t i = 0; i < COUNT; i++)
        make(&maker, 100 + i, "d", "main", "global", "log.APPEND",
             tandem_slice_of(payload, sizeof(payload)), &made[i]);
    for (size_t at = 0; at < COUNT; at += READ_EVERY) {
        tandem_writer found;

        arrive(bed->ops, made + at, NULL, COUNT - at < READ_EVERY ? COUNT - at : READ_EVERY);
        committed(bed);
        found = state_of(bed, "d");
        tandem_writer_release(&found);
    }
    made_release(made, COUNT);
    view_stop(bed);
    assert_int_equal(TANDEM_OK, open_index(bed, false, &bed->store));
    assert_int_equal(TANDEM_OK, td_store_begin_read(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, TD_INDEX_SNAPSHOTS, &cursor));
    for (tandem_err err = td_cursor_seek(cursor, tandem_slice_of("", 1), &key, &value);
         err == TANDEM_OK; err = td_cursor_next(cursor, &key, &value)) {
        count++;
        bytes += key.size + value.size;
    }
    td_cursor_free(cursor);
    td_txn_abort(txn);
    td_store_free(bed->store);
    view_start(bed);
    assert_in_range(count, 3, TD_SNAPSHOTS_MAX);
    assert_in_range(bytes, COUNT, COUNT * TD_SNAPSHOT_BYTES_PER_ENTRY);
}

static void effects_may_come_before_their_cause(void **state)
{
    struct bed *bed = *state;
    struct question q;

    expect_not_read(bed, "d", TANDEM_E_NOT_FOUND, "no such document");
    one(bed, 2, 20, "d", "global", "log.APPEND");
    expect_not_read(bed, "d", TANDEM_E_NOT_FOUND, "has not arrived yet");
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_HEAD, "d", &q));
    assert_int_equal(1, q.request.info.last_ordinal);
    one(bed, 1, 10, "d", "document", "log.CREATE");
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_READ, "d", &q));
    assert_int_equal(2, q.request.operations);
    assert_string_equal("log", q.request.info.model);
    assert_int_equal(0, memcmp("\x91\x02", q.request.out.bytes, 2));
    tandem_writer_release(&q.request.out);
}

static void a_life_begins_empty(void **state)
{
    struct bed *bed = *state;
    tandem_writer found;

    one(bed, 1, 10, "d", "document", "log.CREATE");
    one(bed, 2, 20, "d", "global", "log.APPEND");
    one(bed, 3, 30, "d", "document", "log.DELETE");
    expect_not_read(bed, "d", TANDEM_E_NOT_FOUND, "the document is deleted");
    one(bed, 4, 40, "d", "document", "log.CREATE");
    found = state_of(bed, "d");
    assert_int_equal(0, memcmp("\x90", found.bytes, 1));
    tandem_writer_release(&found);
    one(bed, 5, 35, "d", "global", "log.APPEND"); /* between the lives */
    one(bed, 6, 45, "d", "global", "log.APPEND");
    found = state_of(bed, "d");
    assert_int_equal(2, found.size);
    assert_int_equal(0, memcmp("\x91\x06", found.bytes, 2));
    tandem_writer_release(&found);
}

static void of_two_models_the_first_created_is_folded(void **state)
{
    struct bed *bed = *state;
    struct question q;

    one(bed, 1, 20, "d", "document", "counter.CREATE");
    one(bed, 2, 30, "d", "global", "counter.ADD");
    one(bed, 3, 40, "d", "global", "log.APPEND");
    assert_int_equal(2, number_of(bed, "d"));
    one(bed, 4, 10, "d", "document", "log.CREATE");
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_READ, "d", &q));
    assert_string_equal("log", q.request.info.model);
    assert_true(q.request.info.conflict);
    assert_int_equal(2, q.request.out.size);
    assert_int_equal(0, memcmp("\x91\x03", q.request.out.bytes, 2));
    tandem_writer_release(&q.request.out);
}

static void what_cannot_be_applied_is_a_no_op(void **state)
{
    static const uint8_t five[] = {5}, text[] = {0xa1, 'x'}, torn[] = {0x92, 1};
    struct bed *bed = *state;
    struct maker maker;
    struct made made[6];

    one(bed, 1, 1, "d", "document", "counter.CREATE");
    maker_init(&maker, "c", 2);
    make(&maker, 10, "d", "main", "global", "counter.ADD", tandem_slice_of(five, 1), &made[0]);
    make(&maker, 11, "d", "main", "global", "counter.ADD", tandem_slice_of(text, 2), &made[1]);
    make(&maker, 12, "d", "main", "global", "counter.ADD", tandem_slice_of(torn, 2), &made[2]);
    make(&maker, 13, "d", "main", "global", "counter.DELETE", tandem_slice_of(five, 1), &made[3]);
    make(&maker, 14, "d", "main", "global", "kv.ADD", tandem_slice_of(five, 1), &made[4]);
    make(&maker, 15, "d", "main", "global", "counter.ADD", tandem_slice_of(five, 1), &made[5]);
    arrive(bed->ops, made, NULL, 6);
    made_release(made, 6);
    committed(bed);
    assert_int_equal(10, number_of(bed, "d"));

    /* Sealed: the same bytes mean something else. */
    make_flagged(&maker, TD_FLAG_SEALED, 20, "d", "main", "global", "counter.ADD",
                 tandem_slice_of(five, 1), &made[0]);
    arrive(bed->ops, made, NULL, 1);
    made_release(made, 1);
    committed(bed);
    assert_int_equal(10, number_of(bed, "d"));
}

static void reads_say_what_there_is_not(void **state)
{
    struct bed *bed = *state;
    struct question q;
    char name[300];

    one(bed, 1, 1, "d", "document", "kv.CREATE");
    one(bed, 2, 2, "u", "document", "unheard.CREATE");
    one(bed, 3, 3, "u", "global", "unheard.OF");
    expect_not_read(bed, "u", TANDEM_E_MODEL_UNKNOWN, "no model unheard is registered");

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    expect_not_read(bed, name, TANDEM_E_NOT_FOUND, "no such document");
    for (int i = 0; i < 3; i++) {
        static const char *const scopes[] = {"document", "other", "global"};
        static const char *const branches[] = {"main", "main", "other"};

        memset(&q, 0, sizeof(q));
        q.request.kind = TD_VIEW_READ;
        q.request.collection = s("c");
        q.request.document = s("d");
        q.request.scope = s(scopes[i]);
        q.request.branch = s(branches[i]);
        assert_int_equal(TANDEM_E_NOT_FOUND, ask(bed, &q));
        assert_true(q.request.why[0] != '\0');
        q.request.scope = s(name);
        assert_int_equal(TANDEM_E_NOT_FOUND, ask(bed, &q));
    }
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_READ, "d", &q));
    assert_int_equal(1, q.request.out.size); /* an empty map */
    assert_int_equal(0x80, q.request.out.bytes[0]);
    tandem_writer_release(&q.request.out);
}

/* Damage the record of an ordinal, or delete it. */
static void harm(struct bed *bed, uint64_t ordinal, bool del)
{
    td_store *store = td_op_store_backend(bed->ops);
    uint8_t key_bytes[64], damaged[512];
    tandem_slice key, value;
    size_t key_size, size;
    td_cursor *cursor;
    unsigned table = 0;
    td_txn *txn;

    while (strcmp(td_op_store_tables[table], "operations") != 0)
        table++;
    assert_int_equal(TANDEM_OK, td_store_begin_write(store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, table, &cursor));
    assert_int_equal(TANDEM_OK, td_cursor_seek(cursor, s(""), &key, &value));
    while (td_get_u64(key.bytes + key.size - 8) != ordinal)
        assert_int_equal(TANDEM_OK, td_cursor_next(cursor, &key, &value));
    memcpy(key_bytes, key.bytes, key_size = key.size);
    memcpy(damaged, value.bytes, size = value.size);
    damaged[size - 1] ^= 1;
    td_cursor_free(cursor);
    key = tandem_slice_of(key_bytes, key_size);
    assert_int_equal(TANDEM_OK, del ? td_txn_del(txn, table, key)
                                    : td_txn_put(txn, table, key, tandem_slice_of(damaged, size)));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
}

static void damage(struct bed *bed, uint64_t ordinal)
{
    harm(bed, ordinal, false);
}

static void a_corrupt_record_fails_what_needs_it(void **state)
{
    struct bed *bed = *state;
    struct question q;

    one(bed, 1, 1, "d", "document", "log.CREATE");
    one(bed, 2, 2, "d", "global", "log.APPEND");
    one(bed, 3, 3, "d", "global", "log.APPEND");
    one(bed, 4, 4, "e", "document", "log.CREATE");
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_WAIT, "", &q));
    damage(bed, 2);
    expect_not_read(bed, "d", TANDEM_E_CORRUPT, "ordinal 2 is corrupt");
    assert_int_equal(TANDEM_E_CORRUPT, ask_about(bed, TD_VIEW_STATES, "", &q));
    assert_non_null(strstr(q.request.why, "ordinal 2"));
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_READ, "e", &q));
    tandem_writer_release(&q.request.out);
    assert_int_equal(0, bed->dropped);
    /* An index that was built after the damage lacks the record, and the digest says so. */
    view_stop(bed);
    assert_int_equal(TANDEM_OK, open_index(bed, true, &bed->store));
    td_store_free(bed->store);
    view_start(bed);
    assert_int_equal(TANDEM_E_CORRUPT, ask_about(bed, TD_VIEW_STATES, "", &q));
    assert_non_null(strstr(q.request.why, "ordinal 2"));
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_STAT, "", &q));
    assert_int_equal(1, q.request.stat.corrupt);
    assert_int_equal(4, q.request.stat.position);
    assert_true(q.request.stat.bytes > 0);
}

/*
 * A block of entries, written anew behind room for a checksum, but what had an ordinal has another; 0
 * if nothing had. Those of the lifecycle keep their hashes, and are passed over.
 */
static size_t block_move(tandem_slice key, tandem_slice rest, uint64_t ordinal, uint64_t to,
                         uint8_t out[1000])
{
    td_block_state reading, writing;
    size_t size = TD_INDEX_CHECKSUM_BYTES;
    td_block_entry entry;
    td_index_names names;
    bool found = false;

    if (!td_index_key_parse(key, &names) || !names.is_block)
        return 0;
    td_block_begin(&reading, key, false);
    td_block_begin(&writing, key, false);
    while (td_block_next(&reading, &rest, &entry) == TANDEM_OK && !entry.hashed) {
        found |= entry.ordinal == ordinal;
        if (entry.ordinal == ordinal)
            entry.ordinal = to;
        size += td_block_add(&writing, &entry, out + size);
    }
    td_index_checksum(TD_INDEX_DOCUMENTS, key,
                      tandem_slice_of(out + TD_INDEX_CHECKSUM_BYTES,
                                      size - TD_INDEX_CHECKSUM_BYTES), out);
    return found ? size : 0;
}

/* Make the index's entry of an ordinal name another one, with the checksum that belongs to it. */
static void entry_move(struct bed *bed, uint64_t ordinal, uint64_t to)
{
    uint8_t bytes[1000];
    tandem_slice key, value;
    td_index_key copy;
    td_store *store;
    td_cursor *cursor;
    td_txn *txn;
    size_t size;

    view_stop(bed);
    assert_int_equal(TANDEM_OK, open_index(bed, false, &store));
    assert_int_equal(TANDEM_OK, td_store_begin_write(store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, TD_INDEX_DOCUMENTS, &cursor));
    assert_int_equal(TANDEM_OK, td_cursor_seek(cursor, s(""), &key, &value));
    while (!(size = block_move(key, tandem_slice_of(value.bytes + TD_INDEX_CHECKSUM_BYTES,
                                                    value.size - TD_INDEX_CHECKSUM_BYTES),
                               ordinal, to, bytes)))
        assert_int_equal(TANDEM_OK, td_cursor_next(cursor, &key, &value));
    td_index_key_copy(&copy, key);
    td_cursor_free(cursor);
    assert_int_equal(TANDEM_OK, td_txn_put(txn, TD_INDEX_DOCUMENTS, td_index_key_slice(&copy),
                                           tandem_slice_of(bytes, size)));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
    td_store_free(store);
    view_start(bed);
}

static void an_entry_that_points_at_nothing_costs_the_index_alone(void **state)
{
    static const uint64_t nowhere[] = {4, 999};
    struct bed *bed = *state;
    struct question q;
    uint64_t number;

    one(bed, 1, 1, "d", "document", "probe.CREATE");
    one(bed, 2, 2, "d", "global", "probe.X");
    one(bed, 3, 3, "d", "global", "probe.X");
    one_in(bed, "other", 4); /* its ordinal, 4, is none of collection c */
    one(bed, 5, 5, "d", "global", "probe.X");
    number = number_of(bed, "d");
    for (unsigned i = 0; i < 2; i++) {
        entry_move(bed, 3, nowhere[i]);
        assert_int_equal(number, number_of(bed, "d"));
        assert_int_equal(i + 1, bed->dropped);
        assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_STATES, "", &q));
    }
    /* The store itself has lost a record: the new index counts it, and is not built for ever. */
    view_stop(bed); /* it has the state in memory */
    harm(bed, 3, true);
    view_start(bed);
    assert_int_equal(TANDEM_E_CORRUPT, ask_about(bed, TD_VIEW_STATES, "", &q));
    assert_non_null(strstr(q.request.why, "1 records are corrupt"));
    assert_int_equal(3, bed->dropped);
    assert_true(number_of(bed, "d") != number);
    assert_int_equal(3, bed->dropped);
}

static tandem_err verify(struct bed *bed, const char *collection, struct question *q)
{
    memset(q, 0, sizeof(*q));
    q->request.kind = TD_VIEW_VERIFY;
    q->request.collection = s(collection);
    q->request.limit = 2;
    return ask(bed, q);
}

static void a_damaged_index_is_told_once_and_built_anew(void **state)
{
    struct bed *bed = *state;
    struct question q;
    unsigned pages = 1;

    one(bed, 1, 1, "d", "document", "probe.CREATE");
    one(bed, 2, 2, "e", "global", "probe.X");
    one(bed, 3, 3, "f", "global", "probe.X");
    assert_int_equal(TANDEM_OK, verify(bed, "", &q));
    assert_int_equal(TANDEM_OK, verify(bed, "c", &q));
    for (; q.request.more; pages++) {
        assert_string_equal("e", q.request.after_name);
        assert_int_equal(TANDEM_OK, ask(bed, &q));
    }
    assert_int_equal(2, pages);
    /* Found by verifying: */
    entry_move(bed, 3, 2);
    memset(&q, 0, sizeof(q));
    assert_int_equal(TANDEM_OK, verify(bed, "c", &q));
    assert_true(q.request.more);
    assert_int_equal(TANDEM_E_CORRUPT, ask(bed, &q));
    assert_true(q.request.damaged && !q.request.rebuilt);
    assert_non_null(strstr(q.request.why, "document f"));
    assert_int_equal(TANDEM_OK, verify(bed, "", &q));
    assert_false(q.request.rebuilt);
    assert_int_equal(1, bed->dropped);
    /* Found by reading: */
    entry_move(bed, 2, 999);
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_STREAMS, "e", &q));
    tandem_writer_release(&q.request.out);
    memset(&q, 0, sizeof(q));
    q.request.kind = TD_VIEW_STREAM;
    q.request.collection = s("c");
    q.request.document = s("e");
    q.request.branch = s("main");
    q.request.scope = s("global");
    q.request.limit = 10;
    q.request.next_index = 1;
    assert_int_equal(TANDEM_OK, ask(bed, &q));
    tandem_writer_release(&q.request.out);
    assert_int_equal(2, bed->dropped);
    assert_int_equal(TANDEM_OK, verify(bed, "", &q));
    assert_true(q.request.rebuilt);
    assert_int_equal(TANDEM_OK, verify(bed, "", &q));
    assert_false(q.request.rebuilt);
}

/* ---- Digests ---- */

static void equal_operations_have_equal_digests(void **state)
{
    enum { DOCUMENTS = 600, COUNT = DOCUMENTS * 3 };
    static struct made made[COUNT];
    static size_t order[COUNT];
    struct question first = {0};
    struct bed *bed;

    for (uint32_t i = 0; i < DOCUMENTS; i++) {
        const char *model = i % 50 == 7 ? "unheard" : "log";
        char name[16], create[32], append[32];

        snprintf(name, sizeof(name), "d%u", i);
        snprintf(create, sizeof(create), "%s.CREATE", model);
        snprintf(append, sizeof(append), i % 10 == 3 ? "%s.DELETE" : "%s.APPEND", model);
        make_single("c", 3 * i + 1, 10, name, "main", "document", create, &made[3 * i]);
        make_single("c", 3 * i + 2, 20, name, "main", "global", append, &made[3 * i + 1]);
        make_single("c", 3 * i + 3, 30, name, i % 2 ? "side" : "main",
                    i % 10 == 3 ? "document" : "global", append, &made[3 * i + 2]);
    }
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct question q;

        bed = bed_open();
        shuffle(order, COUNT, seed);
        arrive(bed->ops, made, order, COUNT);
        committed(bed);
        q = digest_of(bed);
        if (seed == 1)
            first = q;
        assert_int_equal(DOCUMENTS * 9 / 10, q.request.documents);
        assert_memory_equal(first.request.digest, q.request.digest, TANDEM_HASH_BYTES);
        if (seed == 3) {
            one(bed, 99999, 40, "d0", "global", "log.APPEND");
            q = digest_of(bed);
            assert_memory_not_equal(first.request.digest, q.request.digest, TANDEM_HASH_BYTES);
        }
        bed_free(bed);
    }
    made_release(made, COUNT);
}

static void a_digest_is_over_arrays_of_document_branch_scope_model_state(void **state)
{
    struct bed *bed = *state;
    uint8_t expected[TANDEM_HASH_BYTES];
    tandem_slice part;
    tandem_writer item;
    struct question q = digest_of(bed);

    td_hash(expected, NULL, 0);
    assert_memory_equal(expected, q.request.digest, TANDEM_HASH_BYTES);
    assert_int_equal(0, q.request.documents);

    one(bed, 1, 1, "d", "document", "log.CREATE");
    one(bed, 2, 2, "d", "global", "log.APPEND");
    one(bed, 3, 1, "e", "document", "unheard.CREATE");
    one(bed, 4, 2, "e", "x", "unheard.OF");
    tandem_writer_init(&item);
    for (int i = 0; i < 2; i++) {
        tandem_write_array(&item, 5);
        tandem_write_text(&item, i ? "e" : "d");
        tandem_write_text(&item, "main");
        tandem_write_text(&item, i ? "x" : "global");
        tandem_write_text(&item, i ? "unheard" : "log");
        if (i) {
            tandem_write_nil(&item);
        } else {
            tandem_write_array(&item, 1);
            tandem_write_uint(&item, 2);
        }
    }
    part = tandem_writer_slice(&item);
    td_hash(expected, &part, 1);
    q = digest_of(bed);
    assert_memory_equal(expected, q.request.digest, TANDEM_HASH_BYTES);
    assert_int_equal(2, q.request.documents);
    tandem_writer_release(&item);
}

/* ---- Preparing ---- */

struct job_of {
    const char *collection, *document, *branch, *model, *scope, *type;
    uint64_t input;
};

static void job_fill(td_local_job *job, td_local_operation *operation, const struct job_of *of,
                     tandem_slice input)
{
    memset(job, 0, sizeof(*job));
    memset(operation, 0, sizeof(*operation));
    job->collection = s(of->collection);
    job->document = s(of->document);
    job->branch = s(of->branch);
    job->model = s(of->model);
    job->operations = operation;
    job->count = 1;
    operation->scope = s(of->scope);
    operation->type = s(of->type);
    operation->input = input;
}

static tandem_err prepare(struct bed *bed, td_local_group *group)
{
    struct question q = {0};

    q.request.kind = TD_VIEW_PREPARE;
    q.request.group = group;
    return ask(bed, &q);
}

/* One job with one operation; returns what it is refused with. */
static tandem_err prepare_one(struct bed *bed, const struct job_of *of, tandem_slice input,
                              const char *why)
{
    td_local_operation operation;
    td_local_job job;
    td_local_group group = {.jobs = &job, .count = 1, .clock = UINT64_MAX, .failed_job = 77};
    tandem_err err;

    tandem_writer_init(&group.payloads);
    job_fill(&job, &operation, of, input);
    err = prepare(bed, &group);
    assert_int_equal(err, group.err);
    assert_int_equal(0, group.failed_job);
    if (!strstr(group.why, why))
        fail_msg("\"%s\" does not say \"%s\"", group.why, why);
    assert_int_equal(err == TANDEM_OK, group.why[0] == '\0');
    tandem_writer_release(&group.payloads);
    return err;
}

struct in_turn {
    struct question question;
    td_local_operation operation;
    td_local_job job;
    td_local_group group;
    unsigned *answered; /* so far, in all */
    unsigned place;     /* 1: the first that was answered */
};

static void answered_in_turn(td_view_request *request)
{
    struct in_turn *one = request->context;

    one->place = ++*one->answered;
    td_reply_set(one->question.reply, request->err);
}

/* A job that comes again loses to nobody who comes for the first time. */
static void what_is_prepared_again_goes_first(void **state)
{
    static const struct job_of of = {"c", "new", "main", "kv", "global", "SET", 0};
    static const uint8_t input[] = {0x81, 0xa1, 'k', 0x01};
    static const bool again[] = {false, true, false, true};
    static const unsigned places[] = {3, 1, 4, 2};
    enum { COUNT = sizeof(again) / sizeof(again[0]) };
    struct in_turn turns[COUNT] = {0};
    struct bed *bed = *state;
    struct question behind;
    unsigned all = 0;

    for (unsigned i = 0; i < COUNT; i++) {
        struct in_turn *turn = &turns[i];

        turn->answered = &all;
        job_fill(&turn->job, &turn->operation, &of, tandem_slice_of(input, sizeof(input)));
        turn->group = (td_local_group){.jobs = &turn->job, .count = 1, .clock = UINT64_MAX};
        tandem_writer_init(&turn->group.payloads);
        turn->question.request = (td_view_request){.kind = TD_VIEW_PREPARE,
                                                   .group = &turn->group,
                                                   .again = again[i],
                                                   .position = last(bed) + 1,
                                                   .done = answered_in_turn,
                                                   .context = turn};
        assert_int_equal(TANDEM_OK, td_reply_open(bed->runtime, &turn->question.reply));
        td_document_view_post(bed->view, &turn->question.request);
    }
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_WAIT, "", &behind)); /* now all of them wait */
    one(bed, 1, 1, "d", "global", "kv.SET"); /* what they wait for */
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(TANDEM_OK, ask_end(&turns[i].question));
        assert_int_equal(places[i], turns[i].place);
        tandem_writer_release(&turns[i].group.payloads);
    }
}

/* counter "live", log "gone" (deleted), kv "early" without a CREATE, probe "state". */
static void prepare_documents(struct bed *bed)
{
    one(bed, 1, 1, "live", "document", "counter.CREATE");
    one(bed, 2, 2, "gone", "document", "log.CREATE");
    one(bed, 3, 3, "gone", "document", "log.DELETE");
    one(bed, 4, 4, "early", "global", "kv.SET");
    one(bed, 5, 5, "state", "document", "probe.CREATE");
    one(bed, 6, 6, "state", "global", "probe.ADD");
    one(bed, 7, 7, "odd", "document", "unheard.CREATE");
}

static void a_wrong_job_is_refused_with_a_reason(void **state)
{
    static const uint8_t one_byte[] = {1}, text[] = {0xa1, 'x'}, torn[] = {0x92, 1};
    static const struct {
        struct job_of of;
        tandem_err err;
        const char *why;
    } rows[] = {
        {{"c", "live", "main", "", "global", "ADD", 1}, TANDEM_OK, ""},
        {{"c", "live", "main", "counter", "global", "counter.ADD", 1}, TANDEM_OK, ""},
        {{"", "live", "main", "", "global", "ADD", 1}, TANDEM_E_INPUT, "collection"},
        {{"_tandem", "x", "main", "kv", "global", "SET", 1}, TANDEM_E_UNSUPPORTED, "reserved"},
        {{"c", "", "main", "kv", "global", "SET", 1}, TANDEM_E_INPUT, "document"},
        {{"c", "a\x01z", "main", "kv", "global", "SET", 1}, TANDEM_E_INPUT, "document"},
        {{"c", "live", "\xff", "", "global", "ADD", 1}, TANDEM_E_INPUT, "branch"},
        {{"c", "live", "main", "", "", "ADD", 1}, TANDEM_E_INPUT, "scope"},
        {{"c", "live", "main", "", "document", "ADD", 1}, TANDEM_E_INPUT, "library's own"},
        {{"c", "live", "main", "", "global", "", 1}, TANDEM_E_INPUT, "type"},
        {{"c", "live", "main", "", "global", ".ADD", 1}, TANDEM_E_INPUT, "no type"},
        {{"c", "live", "main", "", "global", "counter.", 1}, TANDEM_E_INPUT, "no type"},
        {{"c", "live", "main", "", "global", "CREATE", 1}, TANDEM_E_INPUT, "library's own"},
        {{"c", "live", "main", "", "global", "counter.DELETE", 1}, TANDEM_E_INPUT, "library"},
        {{"c", "live", "main", "kv", "global", "SET", 1}, TANDEM_E_MODEL_MISMATCH,
         "model is counter, not kv"},
        {{"c", "live", "main", "", "global", "kv.SET", 1}, TANDEM_E_MODEL_MISMATCH,
         "model is counter, not kv"},
        {{"c", "live", "main", "counter", "global", "kv.SET", 1}, TANDEM_E_MODEL_MISMATCH,
         "model is counter, not kv"},
        {{"c", "new", "main", "kv", "global", "log.APPEND", 1}, TANDEM_E_MODEL_MISMATCH,
         "model is kv, not log"},
        {{"c", "new", "main", "", "global", "ADD", 1}, TANDEM_E_MODEL_UNKNOWN,
         "the document is new: name its model"},
        {{"c", "new", "main", "unheard", "global", "ADD", 1}, TANDEM_E_MODEL_UNKNOWN,
         "no model unheard"},
        {{"c", "new", "main", "a\x02", "global", "ADD", 1}, TANDEM_E_INPUT, "model"},
        {{"c", "odd", "main", "", "global", "ADD", 1}, TANDEM_E_MODEL_UNKNOWN, "no model unheard"},
        {{"c", "new", "main", "counter", "global", "ADD", 1}, TANDEM_OK, ""},
        {{"c", "new", "main", "", "global", "counter.ADD", 1}, TANDEM_OK, ""},
        {{"c", "early", "main", "", "global", "counter.ADD", 1}, TANDEM_OK, ""},
        {{"c", "gone", "main", "", "global", "APPEND", 1}, TANDEM_E_MODEL_UNKNOWN,
         "name its model to create it again"},
        {{"c", "gone", "main", "kv", "global", "SET", 1}, TANDEM_E_MODEL_MISMATCH,
         "model is log, not kv"},
        {{"c", "gone", "main", "log", "global", "APPEND", 1}, TANDEM_OK, ""},
        {{"c", "live", "main", "", "global", "FROB", 1}, TANDEM_E_INPUT, ""},
        {{"c", "state", "main", "", "global", "ADD", 1}, TANDEM_OK, ""},
    };
    struct bed *bed = *state;
    const struct job_of live = rows[0].of;
    uint8_t *large;

    prepare_documents(bed);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(rows[i].err,
                         prepare_one(bed, &rows[i].of, tandem_slice_of(one_byte, 1), rows[i].why));
    assert_int_equal(TANDEM_E_INPUT, prepare_one(bed, &live, tandem_slice_of(text, 2), ""));
    assert_int_equal(TANDEM_E_PAYLOAD,
                     prepare_one(bed, &live, tandem_slice_of(torn, 2), "not one msgpack value"));
    assert_int_equal(TANDEM_E_PAYLOAD, prepare_one(bed, &live, tandem_slice_of(NULL, 0), ""));
    large = calloc(1, TANDEM_OPERATION_BYTES_MAX);
    assert_non_null(large);
    assert_int_equal(TANDEM_E_LIMIT,
                     prepare_one(bed, &live, tandem_slice_of(large, TANDEM_OPERATION_BYTES_MAX),
                                 "262144 bytes"));
    free(large);
}

static void expected_positions_are_compared(void **state)
{
    static const struct {
        const char *document;
        uint64_t position;
        tandem_err err;
    } rows[] = {{"live", 1, TANDEM_OK},          {"live", 2, TANDEM_E_CONFLICT},
                {"live", 0, TANDEM_E_CONFLICT},  {"new", 0, TANDEM_OK},
                {"new", 1, TANDEM_E_CONFLICT},   {"gone", 3, TANDEM_OK},
                {"gone", 0, TANDEM_E_CONFLICT}};
    static const uint8_t one_byte[] = {1};
    struct bed *bed = *state;

    prepare_documents(bed);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct job_of of = {"c", rows[i].document, "main", i < 5 ? "counter" : "log", "global",
                            i < 5 ? "ADD" : "APPEND", 1};
        td_local_operation operation;
        td_local_job job;
        td_local_group group = {.jobs = &job, .count = 1, .clock = UINT64_MAX};

        tandem_writer_init(&group.payloads);
        job_fill(&job, &operation, &of, tandem_slice_of(one_byte, 1));
        job.has_expect = true;
        job.expect_position = rows[i].position;
        assert_int_equal(rows[i].err, prepare(bed, &group));
        if (rows[i].err)
            assert_non_null(strstr(group.why, "the document is at position"));
        tandem_writer_release(&group.payloads);
    }
}

static void a_group_sees_what_its_own_jobs_do(void **state)
{
    static const uint8_t nine[] = {9};
    static const struct job_of of[] = {
        {"c", "live", "main", "", "global", "ADD", 9},
        {"c", "new", "main", "log", "global", "APPEND", 9},
        {"c", "new", "side", "", "x", "APPEND", 9},
        {"c", "new", "main", "", "", "", 0}, /* deletes */
        {"c", "new", "main", "", "global", "log.APPEND", 9},
        {"c", "live", "main", "", "", "", 0}, /* deletes */
    };
    enum { JOBS = sizeof(of) / sizeof(of[0]) };
    struct bed *bed = *state;
    td_local_operation operations[JOBS];
    td_local_job jobs[JOBS + 1];
    td_local_group group = {.jobs = jobs, .count = JOBS, .clock = UINT64_MAX};

    prepare_documents(bed);
    tandem_writer_init(&group.payloads);
    for (int i = 0; i < JOBS; i++) {
        job_fill(&jobs[i], &operations[i], &of[i], tandem_slice_of(nine, 1));
        if (!of[i].type[0]) {
            jobs[i].is_delete = true;
            jobs[i].count = 0;
        }
    }
    assert_int_equal(TANDEM_OK, prepare(bed, &group));
    assert_int_equal(7, group.looked_at);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(i == 1 || i == 4, jobs[i].create);
        assert_false(jobs[i].state_read);
        assert_string_equal(i == 0 || i == 5 ? "counter" : "log", jobs[i].model_found);
        if (jobs[i].is_delete)
            continue;
        assert_int_equal(1, operations[i].payload_size);
        assert_int_equal(9, group.payloads.bytes[operations[i].payload_at]);
        assert_true(tandem_slice_equal(i ? s("APPEND") : s("ADD"), operations[i].verb));
    }
    /* What it deleted cannot be deleted twice; prepared again, the answers are fresh. */
    jobs[JOBS] = jobs[JOBS - 1];
    group.count = JOBS + 1;
    assert_int_equal(TANDEM_E_NOT_FOUND, prepare(bed, &group));
    assert_int_equal(JOBS, group.failed_job);
    assert_string_equal("the document is deleted already", group.why);
    group.count = JOBS;
    assert_int_equal(TANDEM_OK, prepare(bed, &group));
    assert_string_equal("", group.why);
    jobs[3].document = s("nothing");
    assert_int_equal(TANDEM_E_NOT_FOUND, prepare(bed, &group));
    assert_int_equal(3, group.failed_job);
    assert_string_equal("there is no such document", group.why);
    jobs[3].is_delete = false;
    assert_int_equal(TANDEM_E_INPUT, prepare(bed, &group));
    tandem_writer_release(&group.payloads);
}

static void a_model_may_look_at_the_state(void **state)
{
    static const uint8_t six[] = {6}, three[] = {3};
    static const struct job_of of = {"c", "state", "main", "", "global", "ADD", 1};
    static const struct job_of of_new = {"c", "new", "main", "probe", "global", "ADD", 1};
    struct bed *bed = *state;
    td_local_operation operations[2];
    td_local_job jobs[2];
    td_local_group group = {.jobs = jobs, .count = 1, .clock = UINT64_MAX};

    prepare_documents(bed);
    tandem_writer_init(&group.payloads);
    job_fill(&jobs[0], &operations[0], &of, tandem_slice_of(three, 1));
    assert_int_equal(TANDEM_OK, prepare(bed, &group));
    assert_true(jobs[0].state_read);
    assert_int_equal(3, operations[0].payload_size);
    assert_int_equal(0, memcmp("\x92\x06\x03", group.payloads.bytes, 3));
    job_fill(&jobs[0], &operations[0], &of, tandem_slice_of(six, 1)); /* what the state is */
    assert_int_equal(TANDEM_E_INPUT, prepare(bed, &group));
    assert_true(group.why[0] != '\0');
    job_fill(&jobs[0], &operations[0], &of_new, tandem_slice_of(three, 1));
    assert_int_equal(TANDEM_OK, prepare(bed, &group));
    assert_int_equal(0, memcmp("\x92\x00\x03", group.payloads.bytes, 3));

    group.count = 2;
    job_fill(&jobs[1], &operations[1], &of_new, tandem_slice_of(three, 1));
    assert_int_equal(TANDEM_E_UNSUPPORTED, prepare(bed, &group));
    assert_int_equal(1, group.failed_job);
    group.count = 1;
    job_fill(&jobs[0], &operations[0], &of, tandem_slice_of(three, 1));
    operations[1] = operations[0];
    jobs[0].count = 2;
    assert_int_equal(TANDEM_E_UNSUPPORTED, prepare(bed, &group));
    operations[1].scope = s("other");
    assert_int_equal(TANDEM_OK, prepare(bed, &group));
    tandem_writer_release(&group.payloads);
}

static void a_job_has_its_limits(void **state)
{
    enum { MANY = TANDEM_JOB_OPERATIONS_MAX, BODY = 200 * 1024 };
    static td_local_operation operations[MANY];
    static uint8_t body[BODY];
    static const uint8_t one_byte[] = {1};
    static const struct job_of of = {"c", "new", "main", "log", "global", "APPEND", 1};
    struct bed *bed = *state;
    td_local_job job;
    td_local_group group = {.jobs = &job, .count = 1, .clock = UINT64_MAX};

    prepare_documents(bed);
    tandem_writer_init(&group.payloads);
    job_fill(&job, &operations[0], &of, tandem_slice_of(one_byte, 1));
    for (int i = 1; i < MANY; i++)
        operations[i] = operations[0];
    job.count = MANY;
    assert_int_equal(TANDEM_E_LIMIT, prepare(bed, &group));
    assert_non_null(strstr(group.why, "at most 999"));
    job.count = MANY - 1;
    assert_int_equal(TANDEM_OK, prepare(bed, &group));
    body[0] = 0xc6; /* bin */
    td_put_u32(body + 1, BODY - 5);
    job.count = 3;
    for (int i = 0; i < 3; i++)
        operations[i].input = tandem_slice_of(body, BODY);
    assert_int_equal(TANDEM_E_LIMIT, prepare(bed, &group));
    assert_non_null(strstr(group.why, "524288"));
    job.count = 2;
    assert_int_equal(TANDEM_OK, prepare(bed, &group));
    tandem_writer_release(&group.payloads);
}

/* What goes in may be within the limits, and what comes out of a model not. */
static void what_a_model_prepares_has_its_limits(void **state)
{
    enum { LARGEST = TANDEM_OPERATION_BYTES_MAX - 1024 };
    static uint8_t large[LARGEST], deep[TANDEM_PAYLOAD_DEPTH_MAX + 1];
    struct job_of of = {"c", "new", "main", "wrap", "global", "ADD", 1};
    char verb[TANDEM_NAME_BYTES_MAX + 1];
    struct bed *bed = *state;

    large[0] = 0xc6; /* bin */
    td_put_u32(large + 1, LARGEST - 5);
    assert_int_equal(TANDEM_E_LIMIT, prepare_one(bed, &of, tandem_slice_of(large, LARGEST),
                                                 "the payload has 261121 bytes"));
    td_put_u32(large + 1, LARGEST - 6);
    assert_int_equal(TANDEM_OK, prepare_one(bed, &of, tandem_slice_of(large, LARGEST - 1), ""));

    memset(deep, 0x91, sizeof(deep) - 2);
    deep[sizeof(deep) - 2] = 0xc0;
    assert_int_equal(TANDEM_OK,
                     prepare_one(bed, &of, tandem_slice_of(deep, sizeof(deep) - 1), ""));
    deep[sizeof(deep) - 2] = 0x91;
    deep[sizeof(deep) - 1] = 0xc0;
    assert_int_equal(TANDEM_E_PAYLOAD,
                     prepare_one(bed, &of, tandem_slice_of(deep, sizeof(deep)), "nests deeper"));

    memset(verb, 'A', sizeof(verb));
    verb[TANDEM_NAME_BYTES_MAX - strlen("wrap.")] = '\0';
    of.type = verb;
    assert_int_equal(TANDEM_OK, prepare_one(bed, &of, tandem_slice_of("\x01", 1), ""));
    verb[TANDEM_NAME_BYTES_MAX - strlen("wrap.")] = 'A';
    verb[TANDEM_NAME_BYTES_MAX - strlen("wrap.") + 1] = '\0';
    assert_int_equal(TANDEM_E_LIMIT,
                     prepare_one(bed, &of, tandem_slice_of("\x01", 1), "is longer than 128 bytes"));
}

/* ---- Pages ---- */

static void documents_come_in_pages(void **state)
{
    struct bed *bed = *state;
    struct question q = {0};
    unsigned pages = 0, seen = 0;
    char name[TANDEM_NAME_BYTES_MAX + 1] = "";

    for (uint32_t i = 0; i < 10; i++) {
        char document[8];

        snprintf(document, sizeof(document), "d%u", i);
        one(bed, 2 * i + 1, 1, document, "document", "log.CREATE");
        if (i == 4)
            one(bed, 2 * i + 2, 2, document, "document", "log.DELETE");
    }
    do {
        tandem_reader reader;

        memset(&q, 0, sizeof(q));
        q.request.kind = TD_VIEW_DOCUMENTS;
        q.request.collection = s("c");
        q.request.after = s(name);
        q.request.limit = 3;
        assert_int_equal(TANDEM_OK, ask(bed, &q));
        reader = tandem_reader_of(tandem_writer_slice(&q.request.out));
        while (tandem_reader_left(&reader)) {
            tandem_slice document, model;
            uint64_t operations;
            uint32_t items;
            bool deleted;
            char expected[8];

            assert_int_equal(TANDEM_OK, tandem_read_array(&reader, &items));
            assert_int_equal(4, items);
            assert_int_equal(TANDEM_OK, tandem_read_string(&reader, &document));
            assert_int_equal(TANDEM_OK, tandem_read_string(&reader, &model));
            assert_int_equal(TANDEM_OK, tandem_read_uint(&reader, &operations));
            assert_int_equal(TANDEM_OK, tandem_read_bool(&reader, &deleted));
            snprintf(expected, sizeof(expected), "d%u", seen);
            assert_true(tandem_slice_equal(s(expected), document));
            assert_true(tandem_slice_equal(s("log"), model));
            assert_int_equal(seen == 4, deleted);
            assert_int_equal(seen == 4 ? 2 : 1, operations);
            seen++;
        }
        pages++;
        assert_int_equal(pages < 4, q.request.more);
        memcpy(name, q.request.after_name, sizeof(name));
        tandem_writer_release(&q.request.out);
    } while (q.request.more);
    assert_int_equal(10, seen);
    assert_int_equal(4, pages);
}

static void operations_come_in_pages_in_total_order(void **state)
{
    struct bed *bed = *state;
    struct question q = {0};
    uint64_t expected = 1;
    unsigned pages = 0;

    one(bed, 1, 1, "d", "document", "log.CREATE");
    for (uint32_t i = 7; i > 0; i--) /* arrives backwards */
        one(bed, 10 + i, 100 + i, "d", "global", "log.APPEND");
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_STREAMS, "d", &q));
    assert_int_equal(8, q.request.info.operations);
    assert_int_equal(0, memcmp("\x93\xa0\xa8"
                               "document\x01\x93\xa4main\xa6global\x07",
                               q.request.out.bytes, q.request.out.size));
    tandem_writer_release(&q.request.out);

    memset(&q, 0, sizeof(q));
    q.request.kind = TD_VIEW_STREAM;
    q.request.collection = s("c");
    q.request.document = s("d");
    q.request.branch = s("main");
    q.request.scope = s("global");
    q.request.limit = 3;
    q.request.next_index = 1;
    do {
        tandem_reader reader;

        assert_int_equal(TANDEM_OK, ask(bed, &q));
        reader = tandem_reader_of(tandem_writer_slice(&q.request.out));
        while (tandem_reader_left(&reader)) {
            tandem_slice canonical, hash;
            uint64_t index, ordinal;
            td_operation parsed;
            uint32_t items;

            assert_int_equal(TANDEM_OK, tandem_read_array(&reader, &items));
            assert_int_equal(TANDEM_OK, tandem_read_uint(&reader, &index));
            assert_int_equal(TANDEM_OK, tandem_read_uint(&reader, &ordinal));
            assert_int_equal(TANDEM_OK, tandem_read_binary(&reader, &canonical));
            assert_int_equal(TANDEM_OK, tandem_read_binary(&reader, &hash));
            assert_int_equal(TANDEM_OK, td_operation_parse(canonical, &parsed));
            assert_int_equal(expected, index);
            assert_int_equal(100 + expected, parsed.hlc);
            assert_int_equal(1 + 8 - expected, ordinal);
            td_operation_hash(&parsed);
            assert_true(tandem_slice_equal(hash, tandem_slice_of(parsed.hash, 32)));
            expected++;
        }
        pages++;
        tandem_writer_release(&q.request.out);
    } while (q.request.more);
    assert_int_equal(8, expected);
    assert_int_equal(3, pages);
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_STREAMS, "nothing", &q));
    assert_false(q.request.info.known);
    assert_int_equal(0, q.request.out.size);
}

/* ---- Waiting, and an index that fails ---- */

static void a_request_waits_for_its_position(void **state)
{
    struct bed *bed = *state;
    struct question wait = {.request = {.kind = TD_VIEW_WAIT, .position = 3}};
    struct question read = {.request = {.kind = TD_VIEW_READ, .position = 2}};

    read.request.collection = s("c");
    read.request.document = s("d");
    ask_begin(bed, &wait);
    ask_begin(bed, &read);
    assert_int_equal(TANDEM_E_TIMEOUT, td_reply_wait(wait.reply, on_threads ? 0 : 5000));
    one(bed, 1, 1, "d", "document", "log.CREATE");
    assert_int_equal(TANDEM_E_TIMEOUT, td_reply_wait(read.reply, on_threads ? 0 : 5000));
    one(bed, 2, 2, "d", "global", "log.APPEND");
    assert_int_equal(TANDEM_OK, ask_end(&read));
    assert_int_equal(2, read.request.out.size);
    tandem_writer_release(&read.request.out);
    assert_int_equal(TANDEM_E_TIMEOUT, td_reply_wait(wait.reply, on_threads ? 0 : 5000));
    one(bed, 3, 3, "d", "global", "log.APPEND");
    assert_int_equal(TANDEM_OK, ask_end(&wait));
    assert_true(bed->indexed >= 3);
}

/* What is not indexed yet begins a pause, unless somebody waits for it. */
static void expect_no_pause(struct bed *bed, uint32_t number, const char *scope, const char *type)
{
    struct question wait = {.request = {.kind = TD_VIEW_WAIT, .position = number}};
    uint64_t begun_us;

    ask_begin(bed, &wait);
    assert_int_equal(TANDEM_E_TIMEOUT, td_reply_wait(wait.reply, 1));
    begun_us = td_simulation_now_us(bed->simulation);
    one(bed, number, number, "d", scope, type);
    assert_int_equal(TANDEM_OK, ask_end(&wait));
    assert_in_range(td_simulation_now_us(bed->simulation) - begun_us, 0, 1000);
}

static void who_waits_for_what_is_to_come_waits_for_no_pause(void **state)
{
    struct bed *bed = *state;

    if (on_threads)
        skip();
    td_simulation_run(bed->simulation, 1000 * 1000);
    expect_no_pause(bed, 1, "document", "log.CREATE");
    td_simulation_run(bed->simulation, 1000 * 1000);
    one(bed, 2, 2, "d", "global", "log.APPEND"); /* begins one */
    expect_no_pause(bed, 3, "global", "log.APPEND");
    expect_no_pause(bed, 4, "global", "log.APPEND");
}

static void what_waits_is_closed_with_the_view(void **state)
{
    struct bed *bed = *state;
    struct question parked = {.request = {.kind = TD_VIEW_WAIT, .position = 1000}};
    struct question q;

    ask_begin(bed, &parked);
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_WAIT, "", &q));
    td_document_view_close(bed->view);
    assert_int_equal(TANDEM_E_CLOSED, ask_end(&parked));
    assert_int_equal(TANDEM_E_CLOSED, parked.request.err);
    assert_int_equal(TANDEM_E_CLOSED, ask_about(bed, TD_VIEW_WAIT, "", &q));
    view_stop(bed);
    view_start(bed);
}

static void an_index_that_cannot_be_opened_is_tried_again(void **state)
{
    struct bed *bed = *state;
    td_local_operation operation;
    td_local_job job;
    td_local_group group = {.jobs = &job, .count = 1, .clock = UINT64_MAX};
    static const uint8_t one_byte[] = {1};
    static const struct job_of of = {"c", "d", "main", "log", "global", "APPEND", 1};
    struct question q;

    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_WAIT, "", &q));
    view_stop(bed);
    bed->open_err = TANDEM_E_IO;
    view_start(bed);
    one(bed, 1, 1, "d", "document", "log.CREATE");
    expect_not_read(bed, "d", TANDEM_E_IO, tandem_err_text(TANDEM_E_IO));
    tandem_writer_init(&group.payloads);
    job_fill(&job, &operation, &of, tandem_slice_of(one_byte, 1));
    assert_int_equal(TANDEM_E_IO, prepare(bed, &group));
    assert_int_equal(TANDEM_E_IO, group.err);
    tandem_writer_release(&group.payloads);
    bed->open_err = TANDEM_OK;
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_READ, "d", &q));
    tandem_writer_release(&q.request.out);
}

static void an_index_of_another_store_is_dropped_and_built_anew(void **state)
{
    struct bed *bed = *state;
    td_op_store *own = bed->ops;
    td_store *store;

    one(bed, 1, 1, "d", "document", "log.CREATE");
    one(bed, 2, 2, "d", "global", "log.APPEND");
    tandem_writer found = state_of(bed, "d");

    tandem_writer_release(&found);
    view_stop(bed);
    assert_int_equal(TANDEM_OK, td_memory_store_open(bed->runtime->env, NULL, td_op_store_tables,
                                                     td_op_store_table_count, &store));
    assert_int_equal(TANDEM_OK, td_op_store_open(bed->runtime->env, store, &bed->ops));
    td_op_store_free(own);
    view_start(bed);
    expect_not_read(bed, "d", TANDEM_E_NOT_FOUND, "no such document");
    assert_int_equal(1, bed->dropped);
}

/* ---- The simulation's own: the clock, and failures on request ---- */

static void the_index_is_committed_soon_after_it_changed(void **state)
{
    struct bed *bed = *state;
    tandem_slice value;
    td_txn *txn;

    one(bed, 1, 1, "d", "document", "log.CREATE");
    td_simulation_run(bed->simulation, (TD_VIEW_COMMIT_MS - 1) * 1000);
    assert_int_equal(TANDEM_OK, td_store_begin_read(bed->store, &txn));
    assert_int_equal(TANDEM_E_NOT_FOUND, td_txn_get(txn, 1, s("c"), &value));
    td_txn_abort(txn);
    td_simulation_run(bed->simulation, 2 * 1000);
    assert_int_equal(TANDEM_OK, td_store_begin_read(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_get(txn, 1, s("c"), &value));
    td_txn_abort(txn);
    /* And then it is idle: no timer keeps the simulation busy. */
    td_simulation_run(bed->simulation, 1000 * 1000);
    assert_false(td_simulation_step(bed->simulation,
                                    td_simulation_now_us(bed->simulation) + 3600000000u));
}

/* A crash: nothing is closed. */
static void a_view_that_ended_without_a_close_begins_where_it_had_committed(void **state)
{
    struct bed *bed = *state;
    struct question parked = {.request = {.kind = TD_VIEW_WAIT, .position = 1000}};
    tandem_writer found;

    one(bed, 1, 1, "d", "document", "log.CREATE");
    td_simulation_run(bed->simulation, 1000 * 1000);
    one(bed, 2, 2, "d", "global", "log.APPEND");
    td_simulation_run(bed->simulation, 1000);
    ask_begin(bed, &parked);
    td_host_stop(bed->host);
    td_document_view_free(bed->view);
    td_host_free(bed->host);
    assert_int_equal(TANDEM_E_CLOSED, ask_end(&parked));
    view_start(bed);
    found = state_of(bed, "d");
    assert_int_equal(0, memcmp("\x91\x02", found.bytes, 2));
    tandem_writer_release(&found);
    assert_int_equal(0, bed->dropped);
}

static void all_is_indexed_though_nobody_asks(void **state)
{
    enum { COUNT = 3 * TD_VIEW_BATCH };
    static struct made made[COUNT];
    struct bed *bed = *state;

    for (uint32_t i = 0; i < COUNT; i++)
        make_single("c", i + 1, i + 1, "d", "main", "global", "log.APPEND", &made[i]);
    arrive(bed->ops, made, NULL, COUNT);
    made_release(made, COUNT);
    committed(bed);
    td_simulation_run(bed->simulation, 1000);
    assert_int_equal(COUNT, bed->indexed);
}

static void a_digest_outlives_the_index_that_it_began_on(void **state)
{
    enum { COUNT = 3 * TD_VIEW_BATCH };
    static struct made made[COUNT];
    struct bed *bed = *state;
    struct question before, q = {0}, newer = {0};

    for (uint32_t i = 0; i < COUNT; i++) {
        char name[16];

        snprintf(name, sizeof(name), "d%u", i);
        make_single("c", i + 1, i + 1, name, "main", i % 2 ? "global" : "document", "log.CREATE",
                    &made[i]);
    }
    arrive(bed->ops, made, NULL, COUNT);
    made_release(made, COUNT);
    committed(bed);
    before = digest_of(bed);
    assert_int_equal(COUNT / 2, before.request.documents);
    q.request.kind = TD_VIEW_STATES;
    q.request.collection = s("c");
    q.request.position = last(bed);
    ask_begin(bed, &q);
    for (int i = 0; i < 8; i++) /* some slices */
        td_simulation_step(bed->simulation, td_simulation_now_us(bed->simulation));
    td_memory_store_fail(bed->store, TANDEM_E_IO, false);
    one(bed, COUNT + 1, 1, "another", "global", "log.APPEND");
    newer.request.kind = TD_VIEW_WAIT; /* has it indexed now */
    newer.request.position = last(bed);
    ask_begin(bed, &newer);
    assert_int_equal(TANDEM_OK, ask_end(&q));
    assert_int_equal(TANDEM_OK, ask_end(&newer));
    assert_int_equal(1, bed->dropped);
    assert_int_equal(COUNT / 2, q.request.documents);
    assert_memory_equal(before.request.digest, q.request.digest, TANDEM_HASH_BYTES);
}

/* A document so long that its fold leaves a snapshot; indexed, and not committed. */
static void index_one_that_is_long(struct bed *bed)
{
    enum { COUNT = 300 };
    static struct made made[COUNT];
    struct question q;

    make_single("c", 1, 1, "d", "main", "document", "probe.CREATE", &made[0]);
    for (uint32_t i = 1; i < COUNT; i++)
        make_single("c", i + 1, i + 1, "d", "main", "global", "probe.ADD", &made[i]);
    arrive(bed->ops, made, NULL, COUNT);
    made_release(made, COUNT);
    committed(bed);
    assert_int_equal(TANDEM_OK, ask_about(bed, TD_VIEW_WAIT, "", &q));
}

static void no_room_for_snapshots(struct bed *bed, unsigned count)
{
    snapshots_refused_on = bed->runtime;
    snapshots_refused_left = count;
}

static void a_digest_is_refused_where_the_index_went_back_and_finds_no_room(void **state)
{
    struct bed *bed = *state;
    struct question q = {.request = {.kind = TD_VIEW_STATES, .collection = s("c")}};

    index_one_that_is_long(bed);
    td_simulation_disk(bed->runtime, TD_DISK_PUT, TANDEM_E_STORE_FULL, UINT64_MAX);
    q.request.position = last(bed);
    ask_begin(bed, &q);
    assert_int_equal(TANDEM_E_STORE_FULL, td_reply_wait(q.reply, 5000));
    td_reply_free(q.reply);
    assert_non_null(strstr(q.request.why, "full"));
    td_simulation_disk(bed->runtime, TD_DISK_PUT, TANDEM_OK, 0);
    q = digest_of(bed);
    assert_int_equal(1, q.request.documents);
}

static void a_digest_rests_until_the_index_is_tried_again(void **state)
{
    struct bed *bed = *state;
    struct question q;

    index_one_that_is_long(bed);
    one(bed, 1000, 1000, "d", "global", "probe.ADD");
    td_simulation_disk(bed->runtime, TD_DISK_PUT, TANDEM_E_STORE_FULL, 1);
    /* It is to be settled now; from then on a timer runs, and it is a snapshot that finds no room. */
    td_simulation_run(bed->simulation, TD_VIEW_COMMIT_MS * 1000);
    no_room_for_snapshots(bed, 1);
    q = digest_of(bed);
    assert_int_equal(1, q.request.documents);
    assert_int_equal(0, snapshots_refused_left);
    assert_null(td_simulation_restless(bed->simulation));
}

static void a_digest_begins_anew_once(void **state)
{
    enum { COUNT = 10 };
    struct bed *bed = *state;
    struct question q;

    index_one_that_is_long(bed);
    no_room_for_snapshots(bed, COUNT);
    assert_int_equal(TANDEM_E_STORE_FULL, ask_about(bed, TD_VIEW_STATES, "", &q));
    assert_int_equal(COUNT - 2, snapshots_refused_left);
    no_room_for_snapshots(bed, 1);
    q = digest_of(bed);
    assert_int_equal(0, snapshots_refused_left);
    assert_int_equal(1, q.request.documents);
    assert_string_equal("", q.request.why);
}

static void a_failing_commit_has_the_index_built_anew(void **state)
{
    struct bed *bed = *state;
    tandem_writer found;

    one(bed, 1, 1, "d", "document", "log.CREATE");
    one(bed, 2, 2, "d", "global", "log.APPEND");
    td_simulation_run(bed->simulation, 1000);
    td_memory_store_fail(bed->store, TANDEM_E_IO, true);
    td_simulation_run(bed->simulation, 5 * 1000 * 1000);
    assert_int_equal(1, bed->dropped);
    found = state_of(bed, "d");
    assert_int_equal(0, memcmp("\x91\x02", found.bytes, 2));
    tandem_writer_release(&found);
    assert_int_equal(1, bed->dropped);
}

static void a_full_disk_refuses_and_heals(void **state)
{
    struct bed *bed = *state;
    tandem_writer found;

    one(bed, 1, 1, "d", "document", "log.CREATE");
    td_simulation_run(bed->simulation, 1000 * 1000);
    td_memory_store_fail(bed->store, TANDEM_E_STORE_FULL, false);
    one(bed, 2, 2, "d", "global", "log.APPEND");
    expect_not_read(bed, "d", TANDEM_E_STORE_FULL, "full");
    td_simulation_run(bed->simulation, 5 * 1000 * 1000);
    td_memory_store_fail(bed->store, TANDEM_OK, false);
    td_simulation_run(bed->simulation, 2 * 1000 * 1000);
    assert_int_equal(2, bed->indexed);
    found = state_of(bed, "d");
    assert_int_equal(0, memcmp("\x91\x02", found.bytes, 2));
    tandem_writer_release(&found);
    assert_int_equal(0, bed->dropped);
}

#define ON_A_BED(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_A_BED(a_fold_is_the_same_after_any_order_of_arrival),
        ON_A_BED(a_state_in_memory_is_gone_on_from),
        ON_A_BED(a_long_fold_leaves_snapshots),
        ON_A_BED(snapshots_cost_a_share_of_the_disk),
        ON_A_BED(effects_may_come_before_their_cause),
        ON_A_BED(a_life_begins_empty),
        ON_A_BED(of_two_models_the_first_created_is_folded),
        ON_A_BED(what_cannot_be_applied_is_a_no_op),
        ON_A_BED(reads_say_what_there_is_not),
        ON_A_BED(a_corrupt_record_fails_what_needs_it),
        ON_A_BED(an_entry_that_points_at_nothing_costs_the_index_alone),
        ON_A_BED(a_damaged_index_is_told_once_and_built_anew),
        ON_A_BED(equal_operations_have_equal_digests),
        ON_A_BED(a_digest_is_over_arrays_of_document_branch_scope_model_state),
        ON_A_BED(what_is_prepared_again_goes_first),
        ON_A_BED(a_wrong_job_is_refused_with_a_reason),
        ON_A_BED(expected_positions_are_compared),
        ON_A_BED(a_group_sees_what_its_own_jobs_do),
        ON_A_BED(a_model_may_look_at_the_state),
        ON_A_BED(a_job_has_its_limits),
        ON_A_BED(what_a_model_prepares_has_its_limits),
        ON_A_BED(documents_come_in_pages),
        ON_A_BED(operations_come_in_pages_in_total_order),
        ON_A_BED(a_request_waits_for_its_position),
        ON_A_BED(who_waits_for_what_is_to_come_waits_for_no_pause),
        ON_A_BED(what_waits_is_closed_with_the_view),
        ON_A_BED(an_index_that_cannot_be_opened_is_tried_again),
        ON_A_BED(an_index_of_another_store_is_dropped_and_built_anew),
    };
    const struct CMUnitTest simulation_tests[] = {
        ON_A_BED(the_index_is_committed_soon_after_it_changed),
        ON_A_BED(a_view_that_ended_without_a_close_begins_where_it_had_committed),
        ON_A_BED(all_is_indexed_though_nobody_asks),
        ON_A_BED(a_digest_outlives_the_index_that_it_began_on),
        ON_A_BED(a_digest_is_refused_where_the_index_went_back_and_finds_no_room),
        ON_A_BED(a_digest_rests_until_the_index_is_tried_again),
        ON_A_BED(a_digest_begins_anew_once),
        ON_A_BED(a_failing_commit_has_the_index_built_anew),
        ON_A_BED(a_full_disk_refuses_and_heals),
    };
    int failed = cmocka_run_group_tests_name("simulation", tests, NULL, NULL);

    failed += cmocka_run_group_tests_name("simulation only", simulation_tests, NULL, NULL);
    on_threads = true;
    failed += cmocka_run_group_tests_name("threads", tests, NULL, NULL);
    return failed;
}
