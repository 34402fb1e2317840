/*
 * What a reactor refuses for good, by its public face: the rest of the chain flows past, nobody offers
 * it again, others get it from whoever holds it, and it comes when the refusal is withdrawn.
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

static void write_kv(tandem_harness *harness, const char *name, const char *document,
                     const char *json)
{
    tandem_input input = {.type = "kv.SET", .json = json};
    tandem_job job = {
        .collection = "notes", .document = document, .operations = &input, .count = 1};
    char why[TANDEM_WHY_BYTES];

    assert_int_equal(TANDEM_OK,
                     tandem_execute(tandem_harness_reactor(harness, name), &job, NULL, why));
}

/* Documents "n0" to "n<count - 1>", the middle one "poison". */
static void write_with_poison(tandem_harness *harness, const char *name, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char document[24];

        snprintf(document, sizeof(document), "n%u", i);
        write_kv(harness, name, i == count / 2 ? "poison" : document, "{\"x\":1}");
    }
}

static bool holds(tandem_harness *harness, const char *name, const char *document)
{
    tandem_document *read;
    tandem_err err = tandem_document_read(tandem_harness_reactor(harness, name), "notes", document,
                                          NULL, NULL, 10000, &read, NULL);

    if (err == TANDEM_E_NOT_FOUND)
        return false;
    assert_int_equal(TANDEM_OK, err);
    tandem_document_free(read);
    return true;
}

struct rule {
    bool off;
    unsigned refused;
};

static bool no_poison(void *context, const tandem_operation *operation)
{
    struct rule *rule = context;

    if (rule->off || !tandem_slice_equal(operation->document, tandem_slice_text("poison")))
        return true;
    rule->refused++;
    return false;
}

/* "a", "b" and so on, one of which refuses. */
static tandem_harness *open_refusing(uint64_t seed, size_t count, const char *name, struct rule *rule)
{
    tandem_harness *harness = bed_open(seed, (const char *[]){"a", "b", "c"}, count);

    assert_int_equal(TANDEM_OK, tandem_harness_set_admission(harness, name, no_poison, rule));
    return harness;
}

static void what_is_refused_stops_nothing_else(void **state)
{
    tandem_harness *harness = bed_open(1, (const char *[]){"a", "b"}, 2);
    struct rule rule = {.off = false};
    struct bed_remote seen;

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_set_admission(harness, "b", no_poison, &rule));
    write_with_poison(harness, "a", 101);
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    tandem_harness_run(harness, 10000);
    for (unsigned i = 0; i < 101; i++) {
        char document[24];

        snprintf(document, sizeof(document), "n%u", i);
        assert_int_equal(i != 50, holds(harness, "b", document));
    }
    assert_false(holds(harness, "b", "poison"));
    assert_int_equal(1, rule.refused);
    seen = bed_status(harness, "a", "b");
    assert_int_equal(TANDEM_REMOTE_BLOCKED, seen.status.state);
    assert_non_null(strstr(seen.reason, "TANDEM_E_REFUSED"));
    assert_int_equal(2, seen.status.lag_operations); /* its CREATE and its SET */
    assert_int_equal(TANDEM_E_REFUSED,
                     tandem_wait_covered(tandem_harness_sync(harness, "a"), "b", 10000));
    write_kv(harness, "a", "later", "{}");
    tandem_harness_run(harness, 5000);
    assert_true(holds(harness, "b", "later"));
    assert_sound(harness, "b");

    /* Nobody offers it again, in this session or another. */
    tandem_harness_half_open(harness, "a", "b");
    tandem_harness_run(harness, 120000);
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    tandem_harness_run(harness, 60000);
    assert_int_equal(1, rule.refused);
    assert_int_equal(TANDEM_REMOTE_BLOCKED, bed_status(harness, "a", "b").status.state);
    tandem_harness_free(harness);
}

static void what_is_wanted_again_comes(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(2, 2, "b", &rule);

    (void)state;
    write_with_poison(harness, "a", 21);
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    tandem_harness_run(harness, 10000);
    assert_int_equal(1, rule.refused);
    /* Withdrawn too early: refused once more. */
    assert_int_equal(TANDEM_OK, tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
    tandem_harness_run(harness, 20000);
    assert_int_equal(2, rule.refused);
    assert_false(holds(harness, "b", "poison"));
    rule.off = true;
    assert_int_equal(TANDEM_OK, tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
    assert_converges(harness);
    assert_true(holds(harness, "b", "poison"));
    assert_int_equal(TANDEM_OK,
                     tandem_wait_in_step(tandem_harness_sync(harness, "a"), "b", 20000));
    assert_sound(harness, "b");
    tandem_harness_free(harness);
}

/* a writes, b refuses, c hangs on b alone: it gets what b has, and the rest from a when it meets it. */
static void a_third_gets_it_from_whoever_holds_it(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(3, 3, "b", &rule);

    (void)state;
    write_with_poison(harness, "a", 41);
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    tandem_harness_run(harness, 10000);
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "b"));
    tandem_harness_run(harness, 20000);
    assert_true(holds(harness, "c", "n40"));
    assert_true(holds(harness, "c", "n0"));
    assert_false(holds(harness, "c", "poison"));
    assert_int_equal(1, rule.refused);
    write_kv(harness, "a", "later", "{}");
    tandem_harness_run(harness, 20000);
    assert_true(holds(harness, "c", "later"));
    assert_sound(harness, "c");

    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "a"));
    tandem_harness_run(harness, 20000);
    assert_true(holds(harness, "c", "poison"));
    assert_sound(harness, "c");
    assert_int_equal(1, rule.refused); /* nor does c offer it to b */

    /* a is gone: b takes it from c when it wants it. */
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "a"));
    rule.off = true;
    assert_int_equal(TANDEM_OK, tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
    tandem_harness_run(harness, 30000);
    assert_true(holds(harness, "b", "poison"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    assert_converges(harness);
    assert_sound(harness, "b");
    tandem_harness_free(harness);
}

/* What came late stands behind what follows it: it is sent in order all the same. */
static void a_gap_that_was_filled_late_is_sent_in_order(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(4, 3, "b", &rule);

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        write_with_poison(harness, "a", 21);
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    tandem_harness_run(harness, 10000);
    assert_int_equal(5, rule.refused);
    rule.off = true;
    assert_int_equal(TANDEM_OK, tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
    tandem_harness_run(harness, 20000);
    assert_true(holds(harness, "b", "poison"));
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "b"));
    tandem_harness_run(harness, 20000);
    assert_true(holds(harness, "c", "poison"));
    assert_true(holds(harness, "c", "n20"));
    assert_int_equal(0, bed_status(harness, "c", "b").status.duplicate_operations);
    assert_int_equal(TANDEM_OK,
                     tandem_wait_in_step(tandem_harness_sync(harness, "c"), "b", 20000));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    assert_converges(harness);
    tandem_harness_free(harness);
}

static void the_newest_and_the_first_of_all_may_be_refused(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(5, 2, "b", &rule);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    write_kv(harness, "a", "poison", "{\"x\":1}");
    tandem_harness_run(harness, 20000);
    assert_int_equal(1, rule.refused);
    assert_int_equal(TANDEM_REMOTE_BLOCKED, bed_status(harness, "a", "b").status.state);
    write_kv(harness, "a", "poison", "{\"x\":2}");
    tandem_harness_run(harness, 20000);
    assert_int_equal(2, rule.refused);
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "b"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "b"));
    tandem_harness_run(harness, 60000);
    assert_int_equal(2, rule.refused);
    write_kv(harness, "a", "good", "{\"x\":2}");
    tandem_harness_run(harness, 20000);
    assert_true(holds(harness, "b", "good"));
    assert_sound(harness, "b");
    rule.off = true;
    assert_int_equal(TANDEM_OK, tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
    assert_converges(harness);
    tandem_harness_free(harness);
}

/* Nothing stands behind it that would tell of it, and who wrote it announces it to nobody else. */
static void the_newest_comes_when_it_is_wanted(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(7, 2, "b", &rule);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    tandem_harness_run(harness, 1000);
    write_kv(harness, "a", "poison", "{\"x\":1}");
    tandem_harness_run(harness, 1000);
    assert_int_equal(1, rule.refused);
    assert_int_equal(TANDEM_REMOTE_BLOCKED, bed_status(harness, "a", "b").status.state);
    rule.off = true;
    assert_int_equal(TANDEM_OK, tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
    assert_converges(harness);
    tandem_harness_run(harness, 1000);
    assert_int_equal(TANDEM_REMOTE_IN_STEP, bed_status(harness, "a", "b").status.state);
    assert_int_equal(0, bed_status(harness, "a", "b").status.dead_letters);
    tandem_harness_free(harness);
}

/* Withdrawn too early, and again as soon as that was refused: it does not wait for what had been asked. */
static void what_was_wanted_too_early_comes_at_once(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(16, 2, "b", &rule);
    uint64_t begun_ms;

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    write_kv(harness, "a", "poison", "{\"x\":1}");
    tandem_harness_run(harness, 5000);
    assert_int_equal(1, rule.refused);
    for (unsigned i = 2; i < 20; i++) {
        assert_int_equal(TANDEM_OK, tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
        begun_ms = tandem_harness_now_ms(harness);
        while (rule.refused < i && tandem_harness_now_ms(harness) < begun_ms + 2000)
            tandem_harness_step(harness);
        assert_int_equal(i, rule.refused);
    }
    rule.off = true;
    assert_int_equal(TANDEM_OK, tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
    tandem_harness_run(harness, 2000);
    assert_true(holds(harness, "b", "poison"));
    assert_sound(harness, "b");
    tandem_harness_free(harness);
}

/* It is wanted before whose it is has told of it, and then that need not be told any more: it is behind
 * what came since. */
static void what_is_followed_since_it_is_wanted_comes(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(17, 2, "b", &rule);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    write_kv(harness, "a", "first", "{\"x\":1}");
    tandem_harness_run(harness, 1000);
    write_kv(harness, "a", "poison", "{\"x\":1}");
    while (!rule.refused)
        tandem_harness_step(harness);
    rule.off = true;
    assert_int_equal(TANDEM_OK, tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
    write_kv(harness, "a", "good", "{\"x\":1}");
    tandem_harness_run(harness, 2000);
    assert_true(holds(harness, "b", "good"));
    assert_true(holds(harness, "b", "poison"));
    assert_int_equal(TANDEM_REMOTE_IN_STEP, bed_status(harness, "a", "b").status.state);
    assert_sound(harness, "b");
    tandem_harness_free(harness);
}

/* Both are sent before either is answered for, so no head behind them is announced. It is refused, wanted and
 * followed in the store, maybe before what came is back with who is to ask: each seed is another order. */
static void what_is_wanted_and_followed_at_once_comes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rule rule = {.off = false};
        tandem_harness *harness = open_refusing(seed, 2, "b", &rule);

        assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
        write_kv(harness, "a", "first", "{\"x\":1}");
        tandem_harness_run(harness, 1000);
        tandem_harness_clog(harness, "a", "b", true);
        write_kv(harness, "a", "poison", "{\"x\":1}");
        write_kv(harness, "a", "good", "{\"x\":1}");
        tandem_harness_clog(harness, "a", "b", false);
        while (!rule.refused)
            tandem_harness_step(harness);
        rule.off = true;
        assert_int_equal(TANDEM_OK, tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
        tandem_harness_run(harness, 2000);
        assert_true(holds(harness, "b", "good"));
        assert_true(holds(harness, "b", "poison"));
        assert_sound(harness, "b");
        tandem_harness_free(harness);
    }
}

/* Whose it is pushes none of it: one job after the other is asked for, and none waits for patience. */
static void much_that_is_wanted_again_comes_at_once(void **state)
{
    tandem_harness *harness = bed_open(6, (const char *[]){"a", "b"}, 2);
    struct rule rule = {.off = false};
    uint64_t begun_ms;

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_set_admission(harness, "b", no_poison, &rule));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    for (unsigned i = 0; i < 50; i++)
        write_with_poison(harness, "a", 3);
    tandem_harness_run(harness, 10000);
    assert_int_equal(50, rule.refused);
    rule.off = true;
    assert_int_equal(TANDEM_OK, tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
    begun_ms = tandem_harness_now_ms(harness);
    assert_converges(harness);
    assert_true(tandem_harness_now_ms(harness) - begun_ms < 10000);
    tandem_harness_free(harness);
}

static tandem_err note_last(void *context, const tandem_collection_entry *entry)
{
    *(uint64_t *)context = entry->last_ordinal;
    return TANDEM_OK;
}

/* A refusal has an ordinal, at which nothing stands: who follows ordinals is not held up by it. */
static void positions_go_on_where_something_was_refused(void **state)
{
    tandem_harness *harness = bed_open(6, (const char *[]){"a", "b"}, 2);
    struct rule rule = {.off = false};
    tandem_operations *operations;
    tandem_operation operation;
    uint64_t position, again, last = 0;
    tandem_reactor *b;
    tandem_stat stat;

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_set_admission(harness, "b", no_poison, &rule));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    write_kv(harness, "a", "good", "{\"x\":1}");
    tandem_harness_run(harness, 10000);
    b = tandem_harness_reactor(harness, "b");
    assert_int_equal(TANDEM_OK, tandem_position(b, &position));
    write_kv(harness, "a", "poison", "{\"x\":1}"); /* the refusal is the last thing that happens */
    tandem_harness_run(harness, 20000);
    assert_int_equal(1, rule.refused);
    assert_int_equal(TANDEM_OK, tandem_position(b, &again));
    assert_int_equal(position + 1, again);
    assert_int_equal(TANDEM_OK, tandem_wait(b, again, 10000));
    assert_int_equal(TANDEM_OK, tandem_stat_get(b, &stat));
    assert_int_equal(again, stat.position);
    assert_int_equal(0, stat.index_lag);
    assert_int_equal(TANDEM_OK, tandem_collections(b, note_last, &last));
    assert_int_equal(again, last);
    assert_int_equal(TANDEM_OK, tandem_operations_open(b, "notes", NULL, again, &operations));
    assert_int_equal(TANDEM_END, tandem_operations_next(operations, &operation));

    /* What comes next is iterated behind it, and so is what fills the gap. */
    write_kv(harness, "a", "good", "{\"x\":2}");
    tandem_harness_run(harness, 10000);
    assert_int_equal(TANDEM_OK, tandem_operations_next(operations, &operation));
    assert_int_equal(again + 1, operation.ordinal);
    rule.off = true;
    assert_int_equal(TANDEM_OK, tandem_withdraw_refusals(b));
    assert_converges(harness);
    assert_int_equal(TANDEM_OK, tandem_operations_next(operations, &operation));
    assert_true(tandem_slice_equal(operation.document, tandem_slice_text("poison")));
    assert_int_equal(again + 3, operation.ordinal); /* its withdrawal has one, too */
    tandem_operations_free(operations);
    assert_int_equal(TANDEM_OK, tandem_operations_open(b, "notes", "poison", again, &operations));
    assert_int_equal(TANDEM_OK, tandem_operations_next(operations, &operation));
    tandem_operations_free(operations);
    assert_int_equal(TANDEM_OK, tandem_position(b, &position));
    assert_int_equal(TANDEM_OK, tandem_wait(b, position, 10000));
    assert_int_equal(TANDEM_OK, tandem_stat_get(b, &stat));
    assert_int_equal(0, stat.index_lag);
    assert_sound(harness, "b");
    tandem_harness_free(harness);
}

/* The disk goes on failing: whoever asked is told so, and does not wait for ever. */
static void a_withdrawal_of_unknown_outcome_is_told(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(9, 2, "b", &rule);

    (void)state;
    write_with_poison(harness, "a", 3);
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    tandem_harness_run(harness, 5000);
    assert_int_equal(1, rule.refused);
    rule.off = true;
    assert_int_equal(TANDEM_OK, tandem_harness_fail_disk(harness, "b", TANDEM_HARNESS_COMMITTED,
                                                         TANDEM_E_IO, UINT64_MAX));
    assert_int_equal(TANDEM_E_OUTCOME_UNKNOWN,
                     tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
    assert_int_equal(TANDEM_OK, tandem_harness_fail_disk(harness, "b", TANDEM_HARNESS_COMMITTED,
                                                         TANDEM_OK, 0));
    tandem_harness_run(harness, 20000);
    assert_true(holds(harness, "b", "poison"));
    tandem_harness_free(harness);
}

/* From a remote that it has now: two of the documents, of which one is refused here or there. */
static void pull_two(tandem_harness *harness, const char *name, const char *remote)
{
    static const char *const documents[] = {"poison", "n15"};
    tandem_share share = TANDEM_SHARE_INIT;

    share.direction = TANDEM_DIRECTION_PULL;
    share.documents = documents;
    share.document_count = 2;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, name, remote));
    assert_int_equal(TANDEM_OK, tandem_remote_set_share(tandem_harness_sync(harness, name), remote,
                                                        &share));
    tandem_harness_run(harness, 10000);
    assert_true(holds(harness, name, "n15") && !holds(harness, name, "n3"));
}

static void what_was_refused_through_a_filter_comes_later(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(10, 2, "b", &rule);

    (void)state;
    write_with_poison(harness, "a", 21);
    pull_two(harness, "b", "a");
    assert_true(rule.refused > 0 && !holds(harness, "b", "poison"));
    rule.off = true;
    assert_int_equal(TANDEM_OK, tandem_harness_disconnect(harness, "b", "a"));
    pull_two(harness, "b", "a"); /* its pair does not cover what was refused */
    assert_true(holds(harness, "b", "poison"));
    assert_sound(harness, "b");
    tandem_harness_free(harness);
}

static void who_refuses_does_not_cover_it_for_others(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(11, 3, "a", &rule);

    (void)state;
    write_with_poison(harness, "c", 21);
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "c"));
    tandem_harness_run(harness, 10000);
    assert_int_equal(1, rule.refused);
    pull_two(harness, "b", "a");
    assert_false(holds(harness, "b", "poison"));
    pull_two(harness, "b", "c");
    assert_true(holds(harness, "b", "poison"));
    assert_sound(harness, "b");
    tandem_harness_free(harness);
}

static void share_documents(tandem_harness *harness, const char *name, const char *remote,
                            const char *glob)
{
    tandem_share share = TANDEM_SHARE_INIT;

    share.documents = &glob;
    share.document_count = 1;
    assert_int_equal(TANDEM_OK, tandem_remote_set_share(tandem_harness_sync(harness, name), remote,
                                                        &share));
}

/* Withdrawn while the session goes on: nothing but a new one can bring it. */
static void a_withdrawal_brings_what_was_refused_through_a_filter(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(12, 2, "b", &rule);

    (void)state;
    write_with_poison(harness, "a", 21);
    pull_two(harness, "b", "a");
    assert_true(rule.refused > 0 && !holds(harness, "b", "poison"));
    rule.off = true;
    assert_int_equal(TANDEM_OK,
                     tandem_withdraw_refusals(tandem_harness_reactor(harness, "b")));
    tandem_harness_run(harness, 10000);
    assert_true(holds(harness, "b", "poison"));
    assert_int_equal(TANDEM_REMOTE_IN_STEP, bed_status(harness, "b", "a").status.state);
    assert_sound(harness, "b");
    tandem_harness_free(harness);
}

/* The barrier ends where something was refused, through a filter, too. */
static void nobody_waits_for_what_was_refused_through_a_filter(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(13, 2, "b", &rule);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    share_documents(harness, "a", "b", "[np]*");
    write_kv(harness, "a", "n1", "{\"x\": 1}");
    write_kv(harness, "a", "poison", "{\"x\": 1}");
    tandem_harness_run(harness, 10000);
    write_kv(harness, "a", "n2", "{\"x\": 1}");
    assert_int_equal(TANDEM_E_REFUSED,
                     tandem_wait_covered(tandem_harness_sync(harness, "a"), "b", 60000));
    assert_true(holds(harness, "b", "n2"));
    tandem_harness_free(harness);
}

/* What was refused of one peer does not block what has nothing of it in its way. */
static void what_was_refused_blocks_no_other_way(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(14, 3, "b", &rule);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "b", "c"));
    write_kv(harness, "a", "n1", "{\"x\": 1}");
    write_kv(harness, "a", "poison", "{\"x\": 1}");
    tandem_harness_run(harness, 20000);
    assert_int_equal(TANDEM_REMOTE_BLOCKED, bed_status(harness, "b", "c").status.state);
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "b", "a"));
    share_documents(harness, "b", "a", "n*");
    tandem_harness_run(harness, 30000);
    assert_int_equal(TANDEM_REMOTE_IN_STEP, bed_status(harness, "b", "a").status.state);
    tandem_harness_free(harness);
}

/* A backup takes back what was refused: what is written in its place is another branch. */
static void what_was_refused_and_is_gone_keeps_nothing_back(void **state)
{
    struct rule rule = {.off = false};
    tandem_harness *harness = open_refusing(15, 2, "b", &rule);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    write_kv(harness, "a", "n1", "{\"x\": 1}");
    tandem_harness_run(harness, 20000);
    assert_int_equal(TANDEM_OK, tandem_harness_backup(harness, "a"));
    write_kv(harness, "a", "poison", "{\"x\": 1}");
    tandem_harness_run(harness, 20000);
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_go_back(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    write_kv(harness, "a", "n2", "{\"x\": 1}");
    write_kv(harness, "a", "n3", "{\"x\": 1}");
    tandem_harness_run(harness, 120000);
    assert_true(holds(harness, "b", "n2") && holds(harness, "b", "n3"));
    assert_int_equal(TANDEM_REMOTE_IN_STEP, bed_status(harness, "a", "b").status.state);
    tandem_harness_free(harness);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_refused_stops_nothing_else),
        cmocka_unit_test(what_is_wanted_again_comes),
        cmocka_unit_test(a_third_gets_it_from_whoever_holds_it),
        cmocka_unit_test(a_gap_that_was_filled_late_is_sent_in_order),
        cmocka_unit_test(the_newest_and_the_first_of_all_may_be_refused),
        cmocka_unit_test(the_newest_comes_when_it_is_wanted),
        cmocka_unit_test(what_was_wanted_too_early_comes_at_once),
        cmocka_unit_test(what_is_followed_since_it_is_wanted_comes),
        cmocka_unit_test(what_is_wanted_and_followed_at_once_comes),
        cmocka_unit_test(much_that_is_wanted_again_comes_at_once),
        cmocka_unit_test(a_withdrawal_of_unknown_outcome_is_told),
        cmocka_unit_test(what_was_refused_through_a_filter_comes_later),
        cmocka_unit_test(who_refuses_does_not_cover_it_for_others),
        cmocka_unit_test(a_withdrawal_brings_what_was_refused_through_a_filter),
        cmocka_unit_test(nobody_waits_for_what_was_refused_through_a_filter),
        cmocka_unit_test(what_was_refused_blocks_no_other_way),
        cmocka_unit_test(what_was_refused_and_is_gone_keeps_nothing_back),
        cmocka_unit_test(positions_go_on_where_something_was_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
