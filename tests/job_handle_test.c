/* Job handles. DESIGN.md, section 7: "Handle: id, document id, scopes, branch, operations, status,
 * error, `on(status change)`. Pull handle: `started`, `transported`, `executed`, `failed`." */
#include "job_maker.h"

typedef tandem_err (*transition_fn)(tandem_job_handle *handle);

static tandem_err fail_with_io(tandem_job_handle *handle)
{
    return tandem_job_handle_failed(handle, TANDEM_E_IO);
}

enum { STARTED, TRANSPORTED, EXECUTED, FAILED, TRANSITIONS };

static const transition_fn transitions[TRANSITIONS] = {
    [STARTED] = tandem_job_handle_started,
    [TRANSPORTED] = tandem_job_handle_transported,
    [EXECUTED] = tandem_job_handle_executed,
    [FAILED] = fail_with_io,
};

static tandem_job_handle *handle_in(tandem_job_state status)
{
    struct chain chain;
    tandem_job_handle *handle;

    chain_init(&chain, "notes", 1);
    handle = make_job(&chain, 1, 1);
    assert_int_equal(TANDEM_JOB_UNKNOWN, handle->status);
    if (status == TANDEM_JOB_ERROR) {
        assert_int_equal(TANDEM_OK, fail_with_io(handle));
        return handle;
    }
    for (int i = 0; i <= (int)status; i++)
        assert_int_equal(TANDEM_OK, transitions[i](handle));
    assert_int_equal(status, handle->status);
    return handle;
}

/*
 * "`failed` is legal from any state but Applied; Applied and Error are final; repeating a call does
 * nothing; any other transition is `TANDEM_E_STATE`": the whole table.
 */
static void every_transition_of_every_state(void **state)
{
    enum { STAYS = -2, ILLEGAL = -3 };
    static const struct {
        tandem_job_state from;
        int to[TRANSITIONS];
    } table[] = {
        {TANDEM_JOB_UNKNOWN,
         {TANDEM_JOB_TRANSPORT_PENDING, ILLEGAL, ILLEGAL, TANDEM_JOB_ERROR}},
        {TANDEM_JOB_TRANSPORT_PENDING,
         {STAYS, TANDEM_JOB_EXECUTION_PENDING, ILLEGAL, TANDEM_JOB_ERROR}},
        {TANDEM_JOB_EXECUTION_PENDING, {STAYS, STAYS, TANDEM_JOB_APPLIED, TANDEM_JOB_ERROR}},
        {TANDEM_JOB_APPLIED, {STAYS, STAYS, STAYS, ILLEGAL}},
        {TANDEM_JOB_ERROR, {ILLEGAL, ILLEGAL, ILLEGAL, STAYS}},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        for (int t = 0; t < TRANSITIONS; t++) {
            tandem_job_handle *handle = handle_in(table[i].from);
            tandem_err error = handle->error;
            int to = table[i].to[t];

            assert_int_equal(to == ILLEGAL ? TANDEM_E_STATE : TANDEM_OK, transitions[t](handle));
            assert_int_equal(to < TANDEM_JOB_UNKNOWN ? table[i].from : (tandem_job_state)to,
                             handle->status);
            if (to < TANDEM_JOB_UNKNOWN)
                assert_int_equal(error, handle->error);
            tandem_job_handle_free(handle);
        }
    }
}

struct changes {
    unsigned count;
    tandem_job_state from[8], to[8];
    tandem_job_handle *handle;
};

static void on_change(void *context, tandem_job_handle *handle, tandem_job_state from,
                      tandem_job_state to)
{
    struct changes *changes = context;

    assert_int_equal(to, handle->status);
    changes->handle = handle;
    changes->from[changes->count] = from;
    changes->to[changes->count++] = to;
}

static void an_observer_is_told_each_change_once(void **state)
{
    tandem_job_handle *handle = handle_in(TANDEM_JOB_UNKNOWN);
    struct changes changes = {.count = 0};

    tandem_job_handle_on(handle, on_change, &changes);
    for (int twice = 0; twice < 2; twice++)
        tandem_job_handle_started(handle);
    assert_int_equal(TANDEM_E_STATE, tandem_job_handle_executed(handle));
    for (int twice = 0; twice < 2; twice++)
        tandem_job_handle_transported(handle);
    for (int twice = 0; twice < 2; twice++)
        tandem_job_handle_executed(handle);
    tandem_job_handle_failed(handle, TANDEM_E_IO);
    assert_int_equal(3, changes.count);
    assert_ptr_equal(handle, changes.handle);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(i - 1, changes.from[i]);
        assert_int_equal(i, changes.to[i]);
    }
    tandem_job_handle_free(handle);

    handle = handle_in(TANDEM_JOB_TRANSPORT_PENDING);
    tandem_job_handle_on(handle, on_change, &changes);
    tandem_job_handle_failed(handle, TANDEM_E_CHAIN);
    tandem_job_handle_failed(handle, TANDEM_E_IO); /* the first reason stays */
    assert_int_equal(4, changes.count);
    assert_int_equal(TANDEM_JOB_ERROR, changes.to[3]);
    assert_int_equal(TANDEM_E_CHAIN, handle->error);
    tandem_job_handle_free(handle);

    handle = handle_in(TANDEM_JOB_UNKNOWN);
    tandem_job_handle_on(handle, on_change, &changes);
    tandem_job_handle_on(handle, NULL, NULL);
    tandem_job_handle_started(handle);
    assert_int_equal(4, changes.count);
    tandem_job_handle_free(handle);
    tandem_job_handle_free(NULL);
}

static void states_have_names(void **state)
{
    assert_string_equal("unknown", tandem_job_state_name(TANDEM_JOB_UNKNOWN));
    assert_string_equal("transport_pending", tandem_job_state_name(TANDEM_JOB_TRANSPORT_PENDING));
    assert_string_equal("execution_pending", tandem_job_state_name(TANDEM_JOB_EXECUTION_PENDING));
    assert_string_equal("applied", tandem_job_state_name(TANDEM_JOB_APPLIED));
    assert_string_equal("error", tandem_job_state_name(TANDEM_JOB_ERROR));
    assert_string_equal("unknown", tandem_job_state_name((tandem_job_state)99));
}

/* ---- What it is of ---- */

struct fixture {
    struct batch batch;
    struct chain chain;
};

static int fixture_open(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    chain_init(&f->chain, "notes", 7);
    *state = f;
    return 0;
}

static int fixture_free(void **state)
{
    struct fixture *f = *state;

    batch_release(&f->batch);
    free(f);
    return 0;
}

static void a_handle_says_what_its_job_is_of(void **state)
{
    static const char scopes[] = "global\0left\0right";
    struct fixture *f = *state;
    tandem_job_handle *handle;
    uint64_t bytes = 0;

    f->chain.seq = 40;
    batch_add(&f->batch, &f->chain, "doc", "draft", "global", 10, true);
    batch_add(&f->batch, &f->chain, "doc", "draft", "left", 20, true);
    batch_add(&f->batch, &f->chain, "doc", "draft", "global", 30, true);
    batch_add(&f->batch, &f->chain, "doc", "draft", "right", 0, false);
    assert_int_equal(TANDEM_OK, td_job_handle_open(&f->batch.operations[0], 12, false, &handle));
    for (size_t i = 1; i < 4; i++)
        assert_int_equal(TANDEM_OK, td_job_handle_add(handle, &f->batch.operations[i]));
    for (size_t i = 0; i < 4; i++)
        bytes += f->batch.bytes[i].size;
    batch_release(&f->batch); /* names are copies */

    assert_true(tandem_slice_equal(tandem_slice_text("notes"), handle->collection));
    assert_true(tandem_slice_equal(tandem_slice_text("doc"), handle->document));
    assert_true(tandem_slice_equal(tandem_slice_text("draft"), handle->branch));
    assert_int_equal(sizeof(scopes), handle->scopes.size);
    assert_memory_equal(scopes, handle->scopes.bytes, sizeof(scopes));
    assert_memory_equal(f->chain.origin, handle->origin, TANDEM_ORIGIN_BYTES);
    assert_int_equal(41, handle->first_seq);
    assert_int_equal(44, handle->last_seq);
    assert_int_equal(12, handle->first_ordinal);
    assert_int_equal(4, handle->operations);
    assert_int_equal(bytes, handle->bytes);
    assert_int_equal(TANDEM_OK, handle->error);
    tandem_job_handle_free(handle);
}

/* What is not of the same origin, collection, document, branch, and next in seq, is another job. */
static void what_does_not_continue_a_job_is_refused(void **state)
{
    struct fixture *f = *state;
    struct chain other_origin, other_collection, gap;
    tandem_job_handle *handle;

    batch_job(&f->batch, &f->chain, 1, 1);
    assert_int_equal(TANDEM_OK, td_job_handle_open(&f->batch.operations[0], 0, true, &handle));
    chain_init(&other_origin, "notes", 8);
    chain_init(&other_collection, "tasks", 7);
    gap = f->chain;
    other_origin.seq = other_collection.seq = 1;
    gap.seq++;
    batch_job(&f->batch, &other_origin, 1, 1);
    batch_job(&f->batch, &other_collection, 1, 1);
    batch_job(&f->batch, &gap, 1, 1);
    gap = f->chain;
    batch_add(&f->batch, &gap, "another", "main", "global", 1, false);
    gap = f->chain;
    batch_add(&f->batch, &gap, "document", "draft", "global", 1, false);
    for (size_t i = 0; i < 6; i++) /* the first: itself again */
        assert_int_equal(TANDEM_E_CHAIN, td_job_handle_add(handle, &f->batch.operations[i]));
    assert_int_equal(1, handle->operations);
    assert_int_equal(1, handle->last_seq);
    batch_job(&f->batch, &f->chain, 1, 1);
    assert_int_equal(TANDEM_OK, td_job_handle_add(handle, &f->batch.operations[6]));
    tandem_job_handle_free(handle);
}

static void a_job_is_no_larger_than_the_format_allows(void **state)
{
    struct fixture *f = *state;
    tandem_job_handle *handle;
    size_t i;

    batch_job(&f->batch, &f->chain, TANDEM_JOB_OPERATIONS_MAX + 1, 0);
    assert_int_equal(TANDEM_OK, td_job_handle_open(&f->batch.operations[0], 0, false, &handle));
    for (i = 1; i < TANDEM_JOB_OPERATIONS_MAX; i++)
        assert_int_equal(TANDEM_OK, td_job_handle_add(handle, &f->batch.operations[i]));
    assert_int_equal(TANDEM_E_LIMIT, td_job_handle_add(handle, &f->batch.operations[i]));
    assert_int_equal(TANDEM_JOB_OPERATIONS_MAX, handle->operations);
    tandem_job_handle_free(handle);
    batch_release(&f->batch);

    batch_job(&f->batch, &f->chain, 3, TANDEM_JOB_BYTES_MAX / 3);
    assert_int_equal(TANDEM_OK, td_job_handle_open(&f->batch.operations[0], 0, false, &handle));
    assert_int_equal(TANDEM_OK, td_job_handle_add(handle, &f->batch.operations[1]));
    assert_int_equal(TANDEM_E_LIMIT, td_job_handle_add(handle, &f->batch.operations[2]));
    tandem_job_handle_free(handle);
}

/* In whatever order they are freed: nothing stays. */
static void many_handles_stand_on_a_shelf(void **state)
{
    enum { COUNT = 100 };
    struct fixture *f = *state;
    td_handle_shelf shelf = {.block = NULL};
    tandem_job_handle *handles[COUNT];

    for (unsigned i = 0; i < COUNT; i++) {
        f->chain.seq = i;
        batch_add(&f->batch, &f->chain, i % 2 ? "another document" : "doc", "main", "global", 1,
                  i % 3 == 0);
        assert_int_equal(TANDEM_OK, td_job_handle_open_on(&shelf, &f->batch.operations[i], i + 1,
                                                          &handles[i]));
        assert_int_equal(TANDEM_OK, tandem_job_handle_started(handles[i]));
    }
    for (unsigned i = 0; i < COUNT; i++) {
        const tandem_job_handle *handle = handles[i];

        assert_int_equal(i + 1, handle->first_seq);
        assert_int_equal(i + 1, handle->first_ordinal);
        assert_int_equal(TANDEM_JOB_TRANSPORT_PENDING, handle->status);
        assert_true(tandem_slice_equal(f->batch.operations[i].document, handle->document));
        assert_true(tandem_slice_equal(tandem_slice_of("global", 7), handle->scopes));
    }
    assert_non_null(shelf.block);
    for (unsigned i = 0; i < COUNT; i++) {
        tandem_job_handle_free(handles[i * 37 % COUNT]);
        assert_true(shelf.spare_bytes <= shelf.bytes);
    }
    assert_null(shelf.block);
    assert_null(shelf.spare);
    assert_int_equal(0, shelf.bytes);
}

/* Things that come and go stand where others stood; only so many blocks are spared for them. */
static void some_blocks_are_spared(void **state)
{
    enum { COUNT = 8192, SIZE = 300 };
    static td_shelf_block *blocks[COUNT];
    size_t all = 0, most;
    td_handle_shelf shelf = {.all_bytes = &all};

    for (unsigned i = 0; i < COUNT; i++)
        assert_non_null(td_handle_shelf_take(&shelf, SIZE, &blocks[i]));
    most = shelf.bytes;
    assert_int_equal(0, shelf.spare_bytes);
    assert_int_equal(most, all);
    for (unsigned round = 0; round < 3 * COUNT; round++) {
        td_handle_shelf_clear(blocks[round % COUNT]);
        assert_non_null(td_handle_shelf_take(&shelf, SIZE, &blocks[round % COUNT]));
        assert_true(shelf.bytes + shelf.spare_bytes <= most + TD_SHELF_LARGE_BYTES);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        td_handle_shelf_clear(blocks[i]);
        assert_true(shelf.spare_bytes <= shelf.bytes);
        assert_true(shelf.spare_bytes <= TD_SHELF_SPARE_BYTES_MAX);
        assert_int_equal(shelf.bytes, all);
        if (i == COUNT / 2)
            assert_int_equal(TD_SHELF_SPARE_BYTES_MAX, shelf.spare_bytes);
    }
    assert_null(shelf.spare);
    assert_int_equal(0, all);
}

/* However many they are, and whatever sizes their blocks have: together they end where they are to. */
static void shelves_share_so_many_bytes(void **state)
{
    enum { SHELVES = 40, THINGS_MAX = 2000, SIZE = 900, MOST = 256 * 1024 };
    static td_shelf_block *blocks[SHELVES * THINGS_MAX];
    td_handle_shelf shelves[SHELVES] = {{.block = NULL}};
    size_t all = 0, things = 0;

    for (unsigned i = 0; i < SHELVES; i++) {
        shelves[i].all_bytes = &all;
        while (td_handle_shelf_has_room(&shelves[i], MOST)) {
            assert_true(things < SHELVES * THINGS_MAX);
            assert_non_null(td_handle_shelf_take(&shelves[i], SIZE, &blocks[things++]));
        }
        assert_true(all < MOST + TD_SHELF_LARGE_BYTES);
        if (i == 0)
            assert_true(all >= MOST / 2 && all <= MOST / 2 + TD_SHELF_LARGE_BYTES);
    }
    assert_true(all >= MOST - 2 * TD_SHELF_SMALL_BYTES);
    while (things)
        td_handle_shelf_clear(blocks[--things]);
    assert_int_equal(0, all);
}

/* ---- Reading its operations ---- */

struct reading {
    const struct batch *batch;
    size_t at;
    tandem_err stop; /* what to return for the second operation */
};

static tandem_err on_read(void *visitor, tandem_slice canonical)
{
    struct reading *reading = visitor;

    assert_true(
        tandem_slice_equal(reading->batch->operations[reading->at].canonical, canonical));
    return ++reading->at == 2 ? reading->stop : TANDEM_OK;
}

static tandem_err read_from_batch(void *context, const tandem_job_handle *handle,
                                  const td_job_visitor *visitor)
{
    const struct batch *batch = context;
    tandem_err err = TANDEM_OK;

    for (uint64_t i = handle->first_ordinal; i <= handle->operations && err == TANDEM_OK; i++)
        err = visitor->visit(visitor->context, batch->operations[i - 1].canonical);
    return err;
}

static void operations_are_read_from_where_they_are(void **state)
{
    struct fixture *f = *state;
    const td_job_source source = {.read = read_from_batch, .context = &f->batch};
    tandem_job_handle *kept, *named, *elsewhere;
    tandem_job_handle **all[] = {&kept, &named, &elsewhere};
    tandem_writer message;

    batch_job(&f->batch, &f->chain, 5, 100);
    assert_int_equal(TANDEM_OK, td_job_handle_open(&f->batch.operations[0], 0, true, &kept));
    assert_int_equal(TANDEM_OK, td_job_handle_open(&f->batch.operations[0], 1, false, &named));
    assert_int_equal(TANDEM_OK, td_job_handle_open(&f->batch.operations[0], 0, false, &elsewhere));
    tandem_writer_init(&message);
    tandem_write_binary(&message, f->batch.operations[0].canonical);
    for (size_t i = 1; i < 5; i++) {
        for (size_t k = 0; k < 3; k++)
            assert_int_equal(TANDEM_OK, td_job_handle_add(*all[k], &f->batch.operations[i]));
        tandem_write_binary(&message, f->batch.operations[i].canonical);
    }
    elsewhere->elsewhere = tandem_writer_slice(&message);

    for (size_t k = 0; k < 3; k++) {
        const td_job_source *from = *all[k] == named ? &source : NULL;
        struct reading reading = {.batch = &f->batch, .stop = TANDEM_OK};
        const td_job_visitor visitor = {.visit = on_read, .context = &reading};

        assert_int_equal(TANDEM_OK, tandem_job_handle_read(*all[k], from, &visitor));
        assert_int_equal(5, reading.at);
        reading = (struct reading){.batch = &f->batch, .stop = TANDEM_E_NOMEM};
        assert_int_equal(TANDEM_E_NOMEM, tandem_job_handle_read(*all[k], from, &visitor));
        assert_int_equal(2, reading.at);
        tandem_job_handle_free(*all[k]);
    }
    tandem_writer_release(&message);
}

static void a_copy_is_held_until_it_is_transported(void **state)
{
    struct fixture *f = *state;
    td_handle_shelf handles = {.block = NULL}, copies = {.block = NULL};
    tandem_job_handle *sent, *left, *large;
    struct reading reading = {.batch = &f->batch};
    const td_job_visitor visitor = {.visit = on_read, .context = &reading};
    const td_job_source source = {.read = read_from_batch, .context = &f->batch};
    const td_operation *operations;

    batch_add(&f->batch, &f->chain, "doc", "main", "global", 100, false);
    batch_add(&f->batch, &f->chain, "doc", "main", "global", 2000, false);
    operations = f->batch.operations;
    assert_int_equal(TANDEM_OK, td_job_handle_open_on(&handles, &operations[0], 1, &sent));
    assert_int_equal(TANDEM_OK, td_job_handle_open_on(&handles, &operations[0], 1, &left));
    assert_int_equal(TANDEM_OK, td_job_handle_open_on(&handles, &operations[1], 2, &large));
    td_job_handle_copy(sent, &copies, operations[0].canonical);
    td_job_handle_copy(left, &copies, operations[0].canonical);
    assert_int_equal(TD_SHELF_SMALL_BYTES, copies.bytes);
    td_job_handle_copy(large, &copies, operations[1].canonical);
    assert_false(td_job_handle_has_bytes(large));

    assert_true(td_job_handle_has_bytes(sent));
    assert_int_equal(TANDEM_OK, tandem_job_handle_read(sent, NULL, &visitor));
    assert_int_equal(1, reading.at);
    assert_int_equal(TANDEM_OK, tandem_job_handle_started(sent));
    assert_true(td_job_handle_has_bytes(sent));
    assert_int_equal(TANDEM_OK, tandem_job_handle_transported(sent));
    assert_false(td_job_handle_has_bytes(sent));
    reading.at = 0;
    assert_int_equal(TANDEM_OK, tandem_job_handle_read(sent, &source, &visitor));
    assert_int_equal(1, reading.at);
    tandem_job_handle_free(left);
    assert_int_equal(0, copies.bytes);
    tandem_job_handle_free(sent);
    tandem_job_handle_free(large);
    assert_int_equal(0, handles.bytes);
}

/* A writer's error sticks: as if there had been no memory for one operation more. */
static void an_operation_that_finds_no_memory_is_not_counted(void **state)
{
    struct fixture *f = *state;
    tandem_job_handle *handle;
    size_t bytes;

    batch_job(&f->batch, &f->chain, 2, 100);
    assert_int_equal(TANDEM_OK, td_job_handle_open(&f->batch.operations[0], 0, true, &handle));
    bytes = handle->bytes;
    handle->more->canonical.err = TANDEM_E_NOMEM;
    assert_int_equal(TANDEM_E_NOMEM, td_job_handle_add(handle, &f->batch.operations[1]));
    assert_int_equal(1, handle->operations);
    assert_int_equal(bytes, handle->bytes);
    assert_int_equal(f->batch.operations[0].seq, handle->last_seq);
    tandem_job_handle_free(handle);
}

static void bytes_that_are_no_operations_are_not_handed_on(void **state)
{
    static const uint8_t torn[] = {0xc4, 9, 'x'};
    struct fixture *f = *state;
    struct reading reading = {.batch = &f->batch, .stop = TANDEM_OK};
    const td_job_visitor visitor = {.visit = on_read, .context = &reading};
    tandem_job_handle *handle;

    batch_job(&f->batch, &f->chain, 1, 100);
    assert_int_equal(TANDEM_OK, td_job_handle_open(&f->batch.operations[0], 0, false, &handle));
    handle->elsewhere = tandem_slice_of(torn, sizeof(torn));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_job_handle_read(handle, NULL, &visitor));
    assert_int_equal(0, reading.at);
    tandem_job_handle_free(handle);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, fixture_open, fixture_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_transition_of_every_state),
        cmocka_unit_test(an_observer_is_told_each_change_once),
        cmocka_unit_test(states_have_names),
        WITH_FIXTURE(a_handle_says_what_its_job_is_of),
        WITH_FIXTURE(what_does_not_continue_a_job_is_refused),
        WITH_FIXTURE(a_job_is_no_larger_than_the_format_allows),
        WITH_FIXTURE(many_handles_stand_on_a_shelf),
        cmocka_unit_test(some_blocks_are_spared),
        cmocka_unit_test(shelves_share_so_many_bytes),
        WITH_FIXTURE(operations_are_read_from_where_they_are),
        WITH_FIXTURE(a_copy_is_held_until_it_is_transported),
        WITH_FIXTURE(an_operation_that_finds_no_memory_is_not_counted),
        WITH_FIXTURE(bytes_that_are_no_operations_are_not_handed_on),
    };

    return cmocka_run_group_tests_name("job_handle", tests, NULL, NULL);
}
