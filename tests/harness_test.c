/* The harness itself, by its public header: what an embedder relies on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "sync/harness.h"

static void write_kv(tandem_harness *harness, const char *name, const char *document,
                     const char *json)
{
    tandem_input input = {.type = "kv.SET", .json = json};
    tandem_job job = {
        .collection = "notes", .document = document, .operations = &input, .count = 1};
    char why[TANDEM_WHY_BYTES];
    tandem_err err = tandem_execute(tandem_harness_reactor(harness, name), &job, NULL, why);

    if (err != TANDEM_OK)
        print_message("%s: %s\n", tandem_err_name(err), why);
    assert_int_equal(TANDEM_OK, err);
}

static char *state_of(tandem_harness *harness, const char *name, const char *document)
{
    static char text[512];
    tandem_document *read;

    if (tandem_document_read(tandem_harness_reactor(harness, name), "notes", document, NULL, NULL,
                             UINT64_MAX, &read, NULL) != TANDEM_OK)
        return "none";
    snprintf(text, sizeof(text), "%s", tandem_document_json(read));
    tandem_document_free(read);
    return text;
}

static tandem_harness *open_with(uint64_t seed, const char *const *names, size_t count)
{
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    tandem_harness *harness;

    options.seed = seed;
    assert_int_equal(TANDEM_OK, tandem_harness_open(&options, &harness));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(TANDEM_OK, tandem_harness_add(harness, names[i], 0));
    return harness;
}

static void assert_converges(tandem_harness *harness)
{
    char why[256];
    tandem_err err = tandem_harness_run_until_converged(harness, 120000, why);

    if (err != TANDEM_OK)
        print_message("seed not converged: %s\n", why);
    assert_int_equal(TANDEM_OK, err);
}

static void two_reactors_keep_in_step(void **state)
{
    tandem_harness *harness = open_with(7, (const char *[]){"a", "b"}, 2);

    (void)state;
    write_kv(harness, "a", "n1", "{\"title\":\"from a\"}");
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    assert_converges(harness);
    assert_string_equal("{\"title\":\"from a\"}", state_of(harness, "b", "n1"));
    write_kv(harness, "b", "n1", "{\"by\":\"b\"}");
    assert_converges(harness);
    assert_string_equal("{\"by\":\"b\",\"title\":\"from a\"}", state_of(harness, "a", "n1"));
    assert_int_equal(TANDEM_OK,
                     tandem_wait_in_step(tandem_harness_sync(harness, "a"), "b", 10000));
    assert_int_equal(TANDEM_OK, tandem_wait_covered(tandem_harness_sync(harness, "a"), "b", 10000));
    tandem_harness_free(harness);
}

static void a_cut_link_heals(void **state)
{
    tandem_harness *harness = open_with(8, (const char *[]){"a", "b"}, 2);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    write_kv(harness, "a", "n1", "{\"x\":1}");
    assert_converges(harness);
    tandem_harness_cut(harness, "a", "b");
    write_kv(harness, "a", "n1", "{\"x\":2}");
    write_kv(harness, "b", "n1", "{\"y\":3}");
    tandem_harness_run(harness, 60000);
    assert_string_equal("{\"x\":1,\"y\":3}", state_of(harness, "b", "n1"));
    assert_int_equal(TANDEM_E_TIMEOUT,
                     tandem_wait_covered(tandem_harness_sync(harness, "a"), "b", 1000));
    tandem_harness_heal(harness, "a", "b");
    assert_converges(harness);
    assert_string_equal("{\"x\":2,\"y\":3}", state_of(harness, "b", "n1"));
    tandem_harness_free(harness);
}

static void a_crashed_reactor_comes_back_with_what_was_committed(void **state)
{
    tandem_harness *harness = open_with(9, (const char *[]){"a", "b"}, 2);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "b", "a"));
    write_kv(harness, "a", "n1", "{\"x\":1}");
    assert_converges(harness);
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "b"));
    assert_null(tandem_harness_reactor(harness, "b"));
    assert_int_equal(TANDEM_E_STATE, tandem_harness_crash(harness, "b"));
    write_kv(harness, "a", "n1", "{\"x\":2}");
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "b"));
    assert_string_equal("{\"x\":1}", state_of(harness, "b", "n1"));
    assert_converges(harness); /* the remote was persisted */
    assert_string_equal("{\"x\":2}", state_of(harness, "b", "n1"));
    tandem_harness_free(harness);
}

static void a_line_relays_both_ways(void **state)
{
    tandem_harness *harness = open_with(10, (const char *[]){"a", "b", "c"}, 3);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "b"));
    write_kv(harness, "a", "n1", "{\"a\":1}");
    write_kv(harness, "c", "n1", "{\"c\":3}");
    assert_converges(harness);
    assert_string_equal("{\"a\":1,\"c\":3}", state_of(harness, "c", "n1"));
    tandem_harness_free(harness);
}

static uint64_t run_scenario(uint64_t seed)
{
    tandem_harness *harness = open_with(seed, (const char *[]){"a", "b", "c"}, 3);
    uint64_t trace;

    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "b", "c"));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "a"));
    for (int i = 0; i < 20; i++)
        write_kv(harness, (const char *[]){"a", "b", "c"}[tandem_harness_random(harness, 3)], "n1",
                 "{\"k\":1}");
    assert_converges(harness);
    trace = tandem_harness_trace(harness);
    tandem_harness_free(harness);
    return trace;
}

static void the_same_seed_is_the_same_run(void **state)
{
    (void)state;
    assert_true(run_scenario(3) == run_scenario(3));
    assert_true(run_scenario(3) != run_scenario(4));
}

static void idle_means_that_nothing_moves(void **state)
{
    tandem_harness *harness = open_with(11, (const char *[]){"a", "b"}, 2);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    write_kv(harness, "a", "n1", "{\"x\":1}");
    assert_int_equal(TANDEM_OK, tandem_harness_run_until_idle(harness, 60000));
    assert_string_equal("{\"x\":1}", state_of(harness, "b", "n1"));
    tandem_harness_free(harness);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_reactors_keep_in_step),
        cmocka_unit_test(a_cut_link_heals),
        cmocka_unit_test(a_crashed_reactor_comes_back_with_what_was_committed),
        cmocka_unit_test(a_line_relays_both_ways),
        cmocka_unit_test(the_same_seed_is_the_same_run),
        cmocka_unit_test(idle_means_that_nothing_moves),
    };

    return cmocka_run_group_tests_name("harness", tests, NULL, NULL);
}
