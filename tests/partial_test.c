/*
 * Partial replicas, by the public face: what is in the way comes, nothing else, and nothing twice; what
 * is held in part is not passed on; and who grows to hold the whole ends whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "sync/harness.h"
#include "tests/harness_bed.h"

static void write_at(tandem_harness *harness, const char *name, const char *collection,
                     const char *document, const char *branch, const char *scope, const char *json)
{
    tandem_input input = {.type = "kv.SET", .json = json, .scope = scope};
    tandem_job job = {.collection = collection,
                      .document = document,
                      .branch = branch,
                      .model = "kv",
                      .operations = &input,
                      .count = 1};
    char why[TANDEM_WHY_BYTES];

    assert_int_equal(TANDEM_OK,
                     tandem_execute(tandem_harness_reactor(harness, name), &job, NULL, why));
}

static void write_kv(tandem_harness *harness, const char *name, const char *collection,
                     const char *document)
{
    write_at(harness, name, collection, document, NULL, NULL, "{\"x\":1}");
}

static bool holds(tandem_harness *harness, const char *name, const char *collection,
                  const char *document)
{
    tandem_document *read;
    tandem_err err = tandem_document_read(tandem_harness_reactor(harness, name), collection,
                                          document, NULL, NULL, 10000, &read, NULL);

    if (err == TANDEM_E_NOT_FOUND)
        return false;
    assert_int_equal(TANDEM_OK, err);
    tandem_document_free(read);
    return true;
}

/* Operations that a reactor holds. */
static uint64_t operations(tandem_harness *harness, const char *name)
{
    tandem_stat stat;

    assert_int_equal(TANDEM_OK,
                     tandem_stat_get(tandem_harness_reactor(harness, name), &stat));
    return stat.operations;
}

static void share(tandem_harness *harness, const char *name, const char *remote,
                  const tandem_share *share)
{
    assert_int_equal(TANDEM_OK,
                     tandem_remote_set_share(tandem_harness_sync(harness, name), remote, share));
}

static void share_documents(tandem_harness *harness, const char *name, const char *remote,
                            const char *glob)
{
    tandem_share documents = TANDEM_SHARE_INIT;

    documents.direction = TANDEM_DIRECTION_PULL;
    documents.documents = &glob;
    documents.document_count = 1;
    share(harness, name, remote, &documents);
}

/* b has a as its remote. */
static tandem_harness *open_pair(uint64_t seed)
{
    tandem_harness *harness = bed_open(seed, (const char *[]){"a", "b"}, 2);

    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "b", "a"));
    return harness;
}

static void assert_in_step(tandem_harness *harness, const char *name, const char *remote)
{
    tandem_err err;

    tandem_harness_run(harness, 1000); /* till it has heard of what was written */
    err = tandem_wait_in_step(tandem_harness_sync(harness, name), remote, 30000);

    if (err != TANDEM_OK) {
        struct bed_remote seen = bed_status(harness, name, remote);

        print_message("%s at %s: %s, %s\n", remote, name,
                      tandem_remote_state_name(seen.status.state), seen.reason);
    }
    assert_int_equal(TANDEM_OK, err);
}

static void by_collection(void **state)
{
    tandem_harness *harness = open_pair(1);
    const char *names[] = {"tasks"};
    tandem_share tasks = TANDEM_SHARE_INIT;

    (void)state;
    tasks.collections = names;
    tasks.collection_count = 1;
    share(harness, "b", "a", &tasks);
    for (unsigned i = 0; i < 10; i++) {
        char document[16];

        snprintf(document, sizeof(document), "d%u", i);
        write_kv(harness, "a", "tasks", document);
        write_kv(harness, "a", "notes", document);
        write_kv(harness, "b", "tasks", document);
        write_kv(harness, "b", "own", document);
    }
    assert_in_step(harness, "b", "a");
    assert_int_equal(20 + 20 + 20, operations(harness, "b")); /* each with its CREATE */
    assert_int_equal(20 + 20 + 20, operations(harness, "a"));
    assert_true(holds(harness, "b", "tasks", "d9") && !holds(harness, "b", "notes", "d9"));
    assert_false(holds(harness, "a", "own", "d9"));
    assert_sound(harness, "b");
    share(harness, "b", "a", NULL);
    assert_in_step(harness, "b", "a");
    assert_true(holds(harness, "b", "notes", "d9") && holds(harness, "a", "own", "d9"));
    assert_int_equal(0, bed_status(harness, "b", "a").status.duplicate_operations);
    tandem_harness_free(harness);
}

/* Documents a0, b0, a1, b1 … */
static void write_both(tandem_harness *harness, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        char document[16];

        snprintf(document, sizeof(document), "a%u", i);
        write_kv(harness, "a", "notes", document);
        snprintf(document, sizeof(document), "b%u", i);
        write_kv(harness, "a", "notes", document);
    }
}

static uint64_t received(tandem_harness *harness)
{
    return bed_status(harness, "b", "a").status.received_operations;
}

static void by_document_widened_and_narrowed(void **state)
{
    tandem_harness *harness = open_pair(2);

    (void)state;
    share_documents(harness, "b", "a", "a*");
    write_both(harness, 0, 10);
    assert_in_step(harness, "b", "a");
    assert_int_equal(20, operations(harness, "b"));
    assert_int_equal(20, received(harness));
    assert_true(holds(harness, "b", "notes", "a9") && !holds(harness, "b", "notes", "b9"));
    assert_sound(harness, "b");
    write_both(harness, 10, 12);
    assert_in_step(harness, "b", "a");
    assert_int_equal(24, received(harness));

    /* Another one: what both have does not come twice. */
    share_documents(harness, "b", "a", "[ab]1*");
    assert_in_step(harness, "b", "a");
    assert_int_equal(24 + 6, received(harness)); /* b1, b10, b11 */
    write_both(harness, 12, 13);
    assert_in_step(harness, "b", "a");
    assert_int_equal(24 + 6 + 4, received(harness));

    /* Back to the first: what came meanwhile is there. */
    share_documents(harness, "b", "a", "a*");
    assert_in_step(harness, "b", "a");
    assert_int_equal(34, received(harness));

    /* All of it: the rest, and nothing else. */
    share(harness, "b", "a", NULL);
    assert_in_step(harness, "b", "a");
    assert_int_equal(52, received(harness));
    assert_int_equal(52, operations(harness, "b"));
    assert_int_equal(0, bed_status(harness, "b", "a").status.duplicate_operations);
    assert_sound(harness, "b");
    {
        char why[256];

        assert_int_equal(TANDEM_OK, tandem_harness_run_until_converged(harness, 60000, why));
    }
    /* And narrow again: nothing goes away, and what comes is in the way. */
    share_documents(harness, "b", "a", "b*");
    write_both(harness, 13, 14);
    assert_in_step(harness, "b", "a");
    assert_int_equal(54, received(harness));
    tandem_harness_free(harness);
}

static void by_scope_and_branch(void **state)
{
    tandem_harness *harness = open_pair(3);
    const char *draft[] = {"draft"}, *mine[] = {"mine"};
    tandem_share part = TANDEM_SHARE_INIT;

    (void)state;
    part.branches = draft;
    part.branch_count = 1;
    share(harness, "b", "a", &part);
    for (unsigned i = 0; i < 5; i++) {
        write_at(harness, "a", "notes", "n1", "main", NULL, "{\"x\":1}");
        write_at(harness, "a", "notes", "n1", "draft", NULL, "{\"x\":2}");
        write_at(harness, "a", "notes", "n1", "main", "mine", "{\"y\":2}");
    }
    assert_in_step(harness, "b", "a");
    /* The first job has the CREATE, and goes whole. */
    assert_int_equal(2 + 5, received(harness));
    part = (tandem_share)TANDEM_SHARE_INIT;
    part.scopes = mine;
    part.scope_count = 1;
    share(harness, "b", "a", &part);
    assert_in_step(harness, "b", "a");
    assert_int_equal(2 + 5 + 5, received(harness));
    /* Both: nothing is new. */
    part.branches = draft;
    part.branch_count = 1;
    share(harness, "b", "a", &part);
    assert_in_step(harness, "b", "a");
    assert_int_equal(2 + 5 + 5, received(harness));
    share(harness, "b", "a", NULL);
    assert_in_step(harness, "b", "a");
    assert_int_equal(16, received(harness));
    assert_int_equal(0, bed_status(harness, "b", "a").status.duplicate_operations);
    assert_sound(harness, "b");
    tandem_harness_free(harness);
}

/* What a wider pair covers does not come twice. */
static void narrowed_at_once(void **state)
{
    tandem_harness *harness = open_pair(7);
    const char *globs[] = {"a*", "b*"};
    tandem_share both = TANDEM_SHARE_INIT;

    (void)state;
    both.documents = globs;
    both.document_count = 2;
    share(harness, "b", "a", &both);
    write_both(harness, 0, 10);
    assert_in_step(harness, "b", "a");
    assert_int_equal(40, received(harness));
    share_documents(harness, "b", "a", "a*");
    assert_in_step(harness, "b", "a");
    write_both(harness, 10, 11);
    assert_in_step(harness, "b", "a");
    assert_int_equal(42, received(harness));
    share(harness, "b", "a", &both);
    assert_in_step(harness, "b", "a");
    assert_int_equal(44, received(harness));
    assert_int_equal(0, bed_status(harness, "b", "a").status.duplicate_operations);
    assert_sound(harness, "b");
    tandem_harness_free(harness);
}

static void one_way(void **state)
{
    tandem_harness *harness = open_pair(4);
    tandem_share way = TANDEM_SHARE_INIT;

    (void)state;
    way.direction = TANDEM_DIRECTION_PUSH;
    share(harness, "b", "a", &way);
    write_kv(harness, "a", "notes", "of a");
    write_kv(harness, "b", "notes", "of b");
    assert_in_step(harness, "b", "a");
    tandem_harness_run(harness, 20000);
    assert_true(holds(harness, "a", "notes", "of b") && !holds(harness, "b", "notes", "of a"));
    way.direction = TANDEM_DIRECTION_PULL;
    share(harness, "b", "a", &way);
    write_kv(harness, "b", "notes", "late");
    assert_in_step(harness, "b", "a");
    tandem_harness_run(harness, 20000);
    assert_true(holds(harness, "b", "notes", "of a") && !holds(harness, "a", "notes", "late"));
    tandem_harness_free(harness);
}

/* c syncs with a whole and a partial replica, and ends whole; nothing is relayed in part. */
static void a_third_ends_whole(void **state)
{
    tandem_harness *harness = bed_open(5, (const char *[]){"a", "b", "c"}, 3);
    tandem_share from_b = TANDEM_SHARE_INIT;

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "b", "a"));
    share_documents(harness, "b", "a", "a*");
    write_both(harness, 0, 10);
    assert_in_step(harness, "b", "a");
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "b"));
    from_b.direction = TANDEM_DIRECTION_PULL; /* else b would take all from c */
    share(harness, "c", "b", &from_b);
    write_kv(harness, "b", "notes", "of b");
    assert_in_step(harness, "c", "b");
    assert_true(holds(harness, "c", "notes", "of b"));
    assert_false(holds(harness, "c", "notes", "a1"));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "a"));
    assert_in_step(harness, "c", "a");
    tandem_harness_run(harness, 20000);
    assert_true(holds(harness, "c", "notes", "a1") && holds(harness, "c", "notes", "b1"));
    assert_int_equal(42, operations(harness, "c"));
    assert_int_equal(0, bed_status(harness, "c", "a").status.duplicate_operations);
    write_both(harness, 10, 11);
    tandem_harness_run(harness, 20000);
    assert_true(holds(harness, "c", "notes", "b10") && !holds(harness, "b", "notes", "b10"));
    assert_true(holds(harness, "b", "notes", "a10"));
    assert_in_step(harness, "c", "b");
    assert_sound(harness, "b");
    assert_sound(harness, "c");
    tandem_harness_free(harness);
}

/* Crashes and cuts: the pair goes on where it stood, and little comes twice. */
static void it_goes_on_after_crashes(void **state)
{
    tandem_harness *harness = open_pair(6);

    (void)state;
    share_documents(harness, "b", "a", "a*");
    write_both(harness, 0, 10);
    assert_in_step(harness, "b", "a");
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "b"));
    write_both(harness, 10, 20);
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "b"));
    assert_in_step(harness, "b", "a");
    assert_int_equal(20, received(harness)); /* of its second life */
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    write_both(harness, 20, 21);
    tandem_harness_run(harness, 60000);
    assert_in_step(harness, "b", "a");
    assert_int_equal(22, received(harness));
    assert_int_equal(42, operations(harness, "b"));
    assert_sound(harness, "b");
    tandem_harness_free(harness);
}

/* ---- Copies ---- */

/* A document in the way, with one before it that is not. */
static void write_pair(tandem_harness *harness, const char *name, const char *document)
{
    write_kv(harness, name, "notes", "x");
    write_kv(harness, name, "notes", document);
}

/* c has a, and b, which was copied from it; both write under one origin before they meet. */
static tandem_harness *open_copies(uint64_t seed, bool gaps)
{
    tandem_harness *harness = bed_open(seed, (const char *[]){"c", "a"}, 2);

    write_kv(harness, "a", "notes", "a0");
    assert_int_equal(TANDEM_OK, tandem_harness_copy(harness, "a", "b"));
    if (gaps)
        write_kv(harness, "a", "notes", "x");
    write_kv(harness, "a", "notes", "a1");
    if (gaps)
        write_kv(harness, "b", "notes", "x");
    write_kv(harness, "b", "notes", "a2");
    return harness;
}

static void connect_copies(tandem_harness *harness)
{
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "a"));
    share_documents(harness, "c", "a", "a*");
    tandem_harness_run(harness, 5000);
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "b"));
    share_documents(harness, "c", "b", "a*");
    assert_in_step(harness, "c", "b");
}

static void assert_nothing_more_comes(tandem_harness *harness, const char *name,
                                      const char *remote)
{
    uint64_t before;

    tandem_harness_run(harness, 60000);
    before = bed_status(harness, name, remote).status.received_operations;
    tandem_harness_run(harness, 60000);
    assert_int_equal(before, bed_status(harness, name, remote).status.received_operations);
}

static void of_another_branch_all_comes(void **state)
{
    tandem_harness *harness = open_copies(7, false);

    (void)state;
    write_kv(harness, "b", "notes", "a3"); /* further on than what c holds of the other one */
    connect_copies(harness);
    assert_true(holds(harness, "c", "notes", "a1") && holds(harness, "c", "notes", "a2"));
    assert_true(holds(harness, "c", "notes", "a3"));
    assert_sound(harness, "c");
    tandem_harness_free(harness);
}

/* Branches that end at one seq: a pair keeps one of them. */
static void of_another_branch_all_comes_once(void **state)
{
    tandem_harness *harness = open_copies(7, true);

    (void)state;
    connect_copies(harness);
    assert_in_step(harness, "c", "a");
    assert_true(holds(harness, "c", "notes", "a1") && holds(harness, "c", "notes", "a2"));
    assert_nothing_more_comes(harness, "c", "a");
    assert_nothing_more_comes(harness, "c", "b");
    assert_in_step(harness, "c", "a");
    assert_in_step(harness, "c", "b");
    tandem_harness_free(harness);
}

/* The lower branch of a fork, of which a pair covers both, goes on. */
static void the_lower_branch_may_go_on(void **state)
{
    tandem_harness *harness = bed_open(9, (const char *[]){"c", "h", "a"}, 3);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "h"));
    share_documents(harness, "c", "h", "a*");
    write_kv(harness, "a", "notes", "a0");
    assert_int_equal(TANDEM_OK, tandem_harness_copy(harness, "a", "b"));
    for (unsigned i = 0; i < 5; i++)
        write_pair(harness, "a", (const char *[]){"a1", "a2", "a3", "a4", "a5"}[i]);
    write_pair(harness, "b", "a6");
    assert_int_equal(TANDEM_OK, tandem_harness_copy(harness, "b", "later"));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "h"));
    tandem_harness_run(harness, 20000);
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "b", "h"));
    tandem_harness_run(harness, 60000);
    assert_in_step(harness, "c", "h");
    write_pair(harness, "later", "a7");
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "later", "h"));
    tandem_harness_run(harness, 60000);
    assert_nothing_more_comes(harness, "c", "h");
    assert_in_step(harness, "c", "h");
    assert_true(holds(harness, "c", "notes", "a5") && holds(harness, "c", "notes", "a6"));
    assert_true(holds(harness, "c", "notes", "a7"));
    tandem_harness_free(harness);
}

/* h holds an origin whole, and beside that some of another branch, which came through a filter. */
static void pass_on(const char *filter)
{
    tandem_harness *harness = bed_open(11, (const char *[]){"c", "h", "a"}, 3);

    write_kv(harness, "a", "notes", "a0");
    assert_int_equal(TANDEM_OK, tandem_harness_copy(harness, "a", "b"));
    write_kv(harness, "a", "notes", "x");
    write_kv(harness, "b", "notes", "y");
    write_kv(harness, "b", "notes", "a2");
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "h", "a"));
    tandem_harness_run(harness, 5000);
    assert_int_equal(TANDEM_OK, tandem_harness_disconnect(harness, "h", "a"));
    tandem_harness_run(harness, 5000);
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "h", "b"));
    share_documents(harness, "h", "b", "a*");
    assert_in_step(harness, "h", "b");
    tandem_harness_run(harness, 30000);
    assert_true(holds(harness, "h", "notes", "a2"));
    assert_int_equal(TANDEM_OK, tandem_harness_disconnect(harness, "h", "b"));
    write_kv(harness, "a", "notes", "a1");
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "h", "a"));
    assert_in_step(harness, "h", "a");
    assert_true(holds(harness, "h", "notes", "a1"));
    assert_int_equal(TANDEM_OK, tandem_harness_disconnect(harness, "h", "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "h"));
    if (filter)
        share_documents(harness, "c", "h", filter);
    tandem_harness_run(harness, 60000);
    assert_in_step(harness, "c", "h");
    assert_true(holds(harness, "c", "notes", "a1"));
    assert_false(holds(harness, "c", "notes", "a2"));
    assert_sound(harness, "c");
    tandem_harness_free(harness);
}

static void what_is_loose_is_not_passed_on(void **state)
{
    (void)state;
    pass_on(NULL);
}

static void what_is_loose_is_not_told_to_be_covered(void **state)
{
    (void)state;
    pass_on("a*");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_collection),
        cmocka_unit_test(by_document_widened_and_narrowed),
        cmocka_unit_test(by_scope_and_branch),
        cmocka_unit_test(narrowed_at_once),
        cmocka_unit_test(one_way),
        cmocka_unit_test(a_third_ends_whole),
        cmocka_unit_test(it_goes_on_after_crashes),
        cmocka_unit_test(of_another_branch_all_comes),
        cmocka_unit_test(of_another_branch_all_comes_once),
        cmocka_unit_test(the_lower_branch_may_go_on),
        cmocka_unit_test(what_is_loose_is_not_passed_on),
        cmocka_unit_test(what_is_loose_is_not_told_to_be_covered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
