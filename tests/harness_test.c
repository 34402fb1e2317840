/* The harness itself, by its public header: what an embedder relies on; and a liar. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sync/harness.h"
#include "sync/liar.h"
#include "tests/folder.h"
#include "tests/harness_bed.h"

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

static void two_reactors_keep_in_step(void **state)
{
    tandem_harness *harness = bed_open(7, (const char *[]){"a", "b"}, 2);

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
    tandem_harness *harness = bed_open(8, (const char *[]){"a", "b"}, 2);

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
    tandem_harness *harness = bed_open(9, (const char *[]){"a", "b"}, 2);

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

static tandem_err take_lag(void *context, const tandem_remote_status *status)
{
    *(uint64_t *)context = status->lag_operations;
    return TANDEM_OK;
}

static uint64_t lag_of_only_remote(tandem_harness *harness, const char *name)
{
    uint64_t lag = UINT64_MAX;

    assert_int_equal(TANDEM_OK, tandem_remotes(tandem_harness_sync(harness, name), take_lag, &lag));
    return lag;
}

static void what_a_remote_lacks_is_told_while_it_is_away(void **state)
{
    tandem_harness *harness = bed_open(31, (const char *[]){"a", "b"}, 2);

    (void)state;
    write_kv(harness, "a", "n1", "{\"n\":1}");
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    assert_converges(harness);
    assert_int_equal(0, lag_of_only_remote(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_remote_pause(tandem_harness_sync(harness, "a"), "b"));
    tandem_harness_run(harness, 5000);
    write_kv(harness, "a", "n1", "{\"n\":2}");
    write_kv(harness, "a", "n1", "{\"n\":3}");
    assert_int_equal(2, lag_of_only_remote(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    assert_int_equal(2, lag_of_only_remote(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_remote_resume(tandem_harness_sync(harness, "a"), "b"));
    assert_converges(harness);
    assert_int_equal(0, lag_of_only_remote(harness, "a"));
    tandem_harness_free(harness);
}

static void a_line_relays_both_ways(void **state)
{
    tandem_harness *harness = bed_open(10, (const char *[]){"a", "b", "c"}, 3);

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
    tandem_harness *harness = bed_open(seed, (const char *[]){"a", "b", "c"}, 3);
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
    tandem_harness *harness = bed_open(11, (const char *[]){"a", "b"}, 2);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    write_kv(harness, "a", "n1", "{\"x\":1}");
    assert_int_equal(TANDEM_OK, tandem_harness_run_until_idle(harness, 60000));
    assert_string_equal("{\"x\":1}", state_of(harness, "b", "n1"));
    tandem_harness_free(harness);
}

static tandem_err try_kv(tandem_harness *harness, const char *name, const char *document,
                         const char *json)
{
    tandem_input input = {.type = "kv.SET", .json = json};
    tandem_job job = {
        .collection = "notes", .document = document, .operations = &input, .count = 1};

    return tandem_execute(tandem_harness_reactor(harness, name), &job, NULL, NULL);
}

static tandem_harness *open_pair(uint64_t seed)
{
    tandem_harness *harness = bed_open(seed, (const char *[]){"a", "b"}, 2);

    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    write_kv(harness, "a", "n1", "{\"x\":1}");
    assert_converges(harness);
    return harness;
}

static void a_one_way_cut_stops_one_way(void **state)
{
    tandem_harness *harness = open_pair(12);

    (void)state;
    tandem_harness_cut_one_way(harness, "a", "b");
    write_kv(harness, "a", "n1", "{\"x\":2}");
    write_kv(harness, "b", "n1", "{\"y\":3}");
    tandem_harness_run(harness, 5000);
    assert_string_equal("{\"x\":2,\"y\":3}", state_of(harness, "a", "n1"));
    assert_string_equal("{\"x\":1,\"y\":3}", state_of(harness, "b", "n1"));
    tandem_harness_heal(harness, "a", "b");
    assert_converges(harness);
    tandem_harness_free(harness);
}

static void a_clogged_way_loses_nothing(void **state)
{
    tandem_harness *harness = open_pair(13);

    (void)state;
    tandem_harness_clog(harness, "a", "b", true);
    write_kv(harness, "a", "n1", "{\"x\":2}");
    write_kv(harness, "a", "n1", "{\"x\":3}");
    tandem_harness_run(harness, 5000);
    assert_string_equal("{\"x\":1}", state_of(harness, "b", "n1"));
    tandem_harness_clog(harness, "a", "b", false);
    tandem_harness_run(harness, 500);
    assert_string_equal("{\"x\":3}", state_of(harness, "b", "n1"));
    tandem_harness_free(harness);
}

static void a_half_open_link_is_given_up_and_made_anew(void **state)
{
    tandem_harness *harness = open_pair(14);

    (void)state;
    tandem_harness_half_open(harness, "a", "b"); /* a dialed, and does not know */
    write_kv(harness, "a", "n1", "{\"x\":2}");
    tandem_harness_run(harness, 1000);
    assert_string_equal("{\"x\":1}", state_of(harness, "b", "n1"));
    assert_converges(harness);
    assert_string_equal("{\"x\":2}", state_of(harness, "b", "n1"));
    tandem_harness_free(harness);
}

static void a_slow_reactor_gets_there(void **state)
{
    tandem_harness *harness = open_pair(15);

    (void)state;
    tandem_harness_slow(harness, "b", 2000);
    for (int i = 0; i < 5; i++) {
        write_kv(harness, "a", "n1", "{\"x\":2}");
        tandem_harness_run(harness, 100);
    }
    tandem_harness_run(harness, 500);
    assert_string_equal("{\"x\":1}", state_of(harness, "b", "n1"));
    assert_converges(harness);
    tandem_harness_free(harness);
}

static void a_corrupted_byte_stops_nothing(void **state)
{
    tandem_harness_faults faults = {.corrupt_permille = 300};
    static const tandem_harness_faults none;
    tandem_harness *harness = open_pair(16);

    (void)state;
    tandem_harness_set_faults(harness, &faults);
    for (int i = 0; i < 10; i++) {
        write_kv(harness, "a", "n1", "{\"x\":2}");
        tandem_harness_run(harness, 1000);
    }
    tandem_harness_set_faults(harness, &none);
    tandem_harness_half_open(harness, "a", "b");
    tandem_harness_half_open(harness, "b", "a");
    tandem_harness_run(harness, 60000);
    write_kv(harness, "a", "n1", "{\"x\":3}");
    tandem_harness_run(harness, 5000);
    /* An operation that came with a wrong bit is another operation: it may stand beside. */
    assert_non_null(strstr(state_of(harness, "b", "n1"), "\"x\":3"));
    tandem_harness_free(harness);
}

static void a_full_disk_refuses_and_heals(void **state)
{
    tandem_harness *harness = open_pair(17);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_fail_disk(harness, "a", TANDEM_HARNESS_PUT,
                                                         TANDEM_E_STORE_FULL, UINT64_MAX));
    assert_int_equal(TANDEM_E_STORE_FULL, try_kv(harness, "a", "n1", "{\"x\":2}"));
    assert_int_equal(TANDEM_OK, tandem_harness_fail_disk(harness, "a", TANDEM_HARNESS_PUT,
                                                         TANDEM_OK, 0));
    tandem_harness_run(harness, 5000);
    write_kv(harness, "a", "n1", "{\"x\":3}");
    assert_converges(harness);
    assert_int_equal(TANDEM_E_INVALID, tandem_harness_fail_disk(harness, "a", TANDEM_HARNESS_PUT,
                                                                TANDEM_OK, 1));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_fail_disk(harness, "z", TANDEM_HARNESS_PUT,
                                                                  TANDEM_E_IO, 1));
    tandem_harness_free(harness);
}

static void a_commit_that_was_reported_as_failed_counts(void **state)
{
    tandem_harness *harness = open_pair(18);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_fail_disk(harness, "a", TANDEM_HARNESS_COMMITTED,
                                                         TANDEM_E_IO, 1));
    write_kv(harness, "a", "n2", "{\"x\":2}");
    assert_converges(harness);
    assert_string_equal("{\"x\":2}", state_of(harness, "b", "n2"));
    tandem_harness_free(harness);
}

static void note_event(void *context, const tandem_event *event)
{
    ((tandem_event *)context)[event->kind] = *event;
}

static tandem_err note_fork(void *context, const tandem_fork *fork)
{
    *(unsigned *)context += fork->is_quarantined;
    return TANDEM_OK;
}

static void note_forged(void *context, const uint8_t hash[TANDEM_HASH_BYTES])
{
    (void)context;
    (void)hash;
}

/* One liar after the other, until everything has been tried; and what stays is shown in the next
 * life, too. */
static void what_a_liar_does_is_told_and_shown(void **state)
{
    tandem_harness *harness = open_pair(44);
    tandem_event seen[TANDEM_EVENT_KINDS + 1] = {{0}};
    tandem_reactor *reactor = tandem_harness_reactor(harness, "a");
    tandem_subscription *watch;
    tandem_stat before, after;
    td_liar_orders orders = {.branches = 2, .forged = note_forged};
    td_liar *liar;
    unsigned full = 0;

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_watch(reactor, note_event, seen, &watch));
    for (uint64_t random = 1; random <= 100; random++) {
        assert_int_equal(TANDEM_OK, td_liar_open(harness, "liar", "a", random, &orders,
                                                  &liar));
        tandem_harness_run(harness, 30000);
        td_liar_free(liar);
        if (seen[TANDEM_EVENT_FORK].count && seen[TANDEM_EVENT_QUARANTINE].count &&
            seen[TANDEM_EVENT_CLOCK].count && seen[TANDEM_EVENT_CLAIM].count)
            break;
    }
    for (tandem_event_kind kind = TANDEM_EVENT_FORK; kind <= TANDEM_EVENT_CLAIM; kind++) {
        assert_true(seen[kind].count > 0);
        assert_string_equal("c0", seen[kind].collection);
        assert_true(seen[kind].seq > 0);
    }
    tandem_unsubscribe(watch);
    assert_int_equal(TANDEM_OK, tandem_stat_get(reactor, &before));
    assert_true(before.forks > 0 && before.quarantined_origins > 0);
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    reactor = tandem_harness_reactor(harness, "a");
    assert_int_equal(TANDEM_OK, tandem_stat_get(reactor, &after));
    assert_int_equal(before.forks, after.forks);
    assert_int_equal(before.quarantined_origins, after.quarantined_origins);
    assert_int_equal(0, after.events[TANDEM_EVENT_QUARANTINE]);
    assert_int_equal(TANDEM_OK, tandem_forks(reactor, SIZE_MAX, note_fork, &full));
    assert_int_equal(after.quarantined_origins, full);
    tandem_harness_free(harness);
}

/* The disk goes on failing: nobody is told that the job failed, for it is there. */
static void what_may_have_happened_is_never_reported_as_failed(void **state)
{
    tandem_harness *harness = open_pair(43);
    uint64_t begin_ms = tandem_harness_now_ms(harness);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_fail_disk(harness, "a", TANDEM_HARNESS_COMMITTED,
                                                         TANDEM_E_IO, UINT64_MAX));
    assert_int_equal(TANDEM_E_OUTCOME_UNKNOWN, try_kv(harness, "a", "n2", "{\"x\":2}"));
    assert_true(tandem_harness_now_ms(harness) >= begin_ms + 10000);
    /* What comes now is refused, and is nowhere. */
    assert_int_equal(TANDEM_E_IO, try_kv(harness, "a", "n3", "{\"x\":3}"));
    assert_int_equal(TANDEM_OK, tandem_harness_fail_disk(harness, "a", TANDEM_HARNESS_COMMITTED,
                                                         TANDEM_OK, 0));
    assert_converges(harness);
    assert_string_equal("{\"x\":2}", state_of(harness, "b", "n2"));
    assert_string_equal("none", state_of(harness, "a", "n3"));
    /* At the receiver's: it is taken once. */
    assert_int_equal(TANDEM_OK, tandem_harness_fail_disk(harness, "b", TANDEM_HARNESS_COMMITTED,
                                                         TANDEM_E_IO, UINT64_MAX));
    write_kv(harness, "a", "n4", "{\"x\":4}");
    tandem_harness_run(harness, 30000);
    assert_int_equal(TANDEM_OK, tandem_harness_fail_disk(harness, "b", TANDEM_HARNESS_COMMITTED,
                                                         TANDEM_OK, 0));
    assert_converges(harness);
    assert_string_equal("{\"x\":4}", state_of(harness, "b", "n4"));
    tandem_harness_free(harness);
}

static void a_clock_that_steps_far_ahead_makes_its_operations_wait(void **state)
{
    tandem_harness *harness = open_pair(19);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, "a", 6 * 60 * 1000));
    write_kv(harness, "a", "n1", "{\"x\":2}");
    tandem_harness_run(harness, 10000);
    assert_string_equal("{\"x\":1}", state_of(harness, "b", "n1"));
    tandem_harness_run(harness, 120000);
    assert_string_equal("{\"x\":2}", state_of(harness, "b", "n1"));
    tandem_harness_free(harness);
}

static void a_reactor_dies_where_it_was_told_to(void **state)
{
    tandem_harness *harness = open_pair(20);

    (void)state;
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_crash_at(harness, "b", "NO_SUCH", 1));
    assert_int_equal(TANDEM_OK, tandem_harness_crash_at(harness, "b", "COMMIT_AFTER", 1));
    write_kv(harness, "a", "n1", "{\"x\":2}");
    tandem_harness_run(harness, 5000);
    assert_null(tandem_harness_reactor(harness, "b"));
    /* On disk, and nobody was told. */
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "b"));
    assert_string_equal("{\"x\":2}", state_of(harness, "b", "n1"));
    assert_int_equal(TANDEM_OK, tandem_harness_crash_at(harness, "b", "COMMIT_BEFORE", 1));
    assert_int_equal(TANDEM_E_OUTCOME_UNKNOWN, try_kv(harness, "b", "n1", "{\"x\":3}"));
    assert_null(tandem_harness_reactor(harness, "b"));
    /* In its next life, right at its beginning. */
    assert_int_equal(TANDEM_OK, tandem_harness_crash_at(harness, "b", "STORE_OPENED", 1));
    assert_int_equal(TANDEM_E_IO, tandem_harness_restart(harness, "b"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "b"));
    assert_string_equal("{\"x\":2}", state_of(harness, "b", "n1"));
    assert_converges(harness);
    tandem_harness_free(harness);
}

static void goes_back_to_its_backup(tandem_harness *harness)
{
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_go_back(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_backup(harness, "a"));
    write_kv(harness, "a", "n2", "{\"y\":2}");
    assert_converges(harness);
    assert_int_equal(TANDEM_OK, tandem_harness_go_back(harness, "a"));
    assert_null(tandem_harness_reactor(harness, "a"));
    tandem_harness_cut(harness, "a", "b");
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    assert_string_equal("none", state_of(harness, "a", "n2"));
    write_kv(harness, "a", "n1", "{\"z\":3}"); /* a fork */
    tandem_harness_heal(harness, "a", "b");
    assert_converges(harness);
    assert_string_equal("{\"y\":2}", state_of(harness, "a", "n2"));
    assert_string_equal("{\"x\":1,\"z\":3}", state_of(harness, "b", "n1"));
}

static void a_restored_backup_loses_nothing_that_others_hold(void **state)
{
    tandem_harness *harness = open_pair(21);

    (void)state;
    goes_back_to_its_backup(harness);
    tandem_harness_free(harness);
}

static void a_copied_folder_is_another_reactor(void **state)
{
    tandem_harness *harness = open_pair(22);

    (void)state;
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_copy(harness, "z", "c"));
    assert_int_equal(TANDEM_E_EXISTS, tandem_harness_copy(harness, "a", "b"));
    assert_int_equal(TANDEM_OK, tandem_harness_copy(harness, "a", "c"));
    assert_string_equal("{\"x\":1}", state_of(harness, "c", "n1"));
    write_kv(harness, "c", "n1", "{\"x\":7}");
    assert_string_equal("{\"x\":1}", state_of(harness, "a", "n1"));
    tandem_harness_free(harness);
}

static void a_remote_can_be_taken_away(void **state)
{
    tandem_harness *harness = open_pair(23);

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_disconnect(harness, "a", "b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_disconnect(harness, "a", "b"));
    write_kv(harness, "a", "n1", "{\"x\":2}");
    tandem_harness_run(harness, 5000);
    assert_string_equal("{\"x\":1}", state_of(harness, "b", "n1"));
    tandem_harness_free(harness);
}

static void real_stores_do_the_same(void **state)
{
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    tandem_harness *harness;
    char folder[FOLDER_BYTES];

    (void)state;
    folder_make(folder, "harness", false);
    options.folder = folder;
    assert_int_equal(TANDEM_OK, tandem_harness_open(&options, &harness));
    assert_int_equal(TANDEM_OK, tandem_harness_add(harness, "a", 0));
    assert_int_equal(TANDEM_OK, tandem_harness_add(harness, "b", 0));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    write_kv(harness, "a", "n1", "{\"x\":1}");
    assert_converges(harness);
    goes_back_to_its_backup(harness);
    assert_int_equal(TANDEM_OK, tandem_harness_crash_at(harness, "b", "COMMIT_BEFORE", 1));
    assert_int_equal(TANDEM_E_OUTCOME_UNKNOWN, try_kv(harness, "b", "n1", "{\"x\":3}"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "b"));
    assert_converges(harness);
    assert_int_equal(TANDEM_OK, tandem_harness_copy(harness, "a", "c"));
    assert_string_equal("{\"y\":2}", state_of(harness, "c", "n2"));
    tandem_harness_free(harness);
    assert_int_equal(0, rmdir(folder)); /* nothing is left behind */
}

struct event_look {
    unsigned kinds;
    uint64_t commits;
};

static void look_at_event(void *context, const char *name, const char *sentence, uint64_t count)
{
    struct event_look *look = context;

    assert_true(sentence[0]);
    look->kinds++;
    if (!strcmp(name, "COMMIT_AFTER"))
        look->commits = count;
}

static void events_are_counted(void **state)
{
    tandem_harness *harness = open_pair(24);
    struct event_look look = {0};

    (void)state;
    tandem_harness_events(harness, look_at_event, &look);
    assert_true(look.kinds >= 60);
    assert_true(look.commits >= 2); /* where it was written, and where it came */
    tandem_harness_free(harness);
}

/* ---- Calls that cannot be ---- */

static tandem_err visit_no_remote(void *context, const tandem_remote_status *status)
{
    return TANDEM_END;
}

static tandem_err visit_no_job(void *context, const tandem_job_status *status)
{
    return TANDEM_END;
}

static void hear_nothing(void *context, const char *text)
{
}

/* Every call of sync.h, with each thing that it cannot do without missing. */
static void a_call_of_a_sync_that_lacks_something_is_refused(void **state)
{
    tandem_harness *harness = bed_open(40, (const char *[]){"a"}, 1);
    tandem_reactor *reactor = tandem_harness_reactor(harness, "a");
    tandem_sync *sync = tandem_harness_sync(harness, "a"), *other;
    tandem_sync_options options = TANDEM_SYNC_OPTIONS_INIT;
    tandem_barrier *barrier;
    tandem_sync_stat stat;
    char url[128];

    options.size--;
    assert_int_equal(TANDEM_E_INVALID, tandem_sync_open(NULL, NULL, &other));
    assert_int_equal(TANDEM_E_INVALID, tandem_sync_open(reactor, NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_sync_open(reactor, &options, &other));
    assert_int_equal(TANDEM_E_INVALID, tandem_listen(NULL, "b", 0, false, url));
    assert_int_equal(TANDEM_E_INVALID, tandem_listen(sync, NULL, 0, false, url));
    assert_int_equal(TANDEM_E_INVALID, tandem_listen(sync, "b", 0, false, NULL));
    assert_int_equal(TANDEM_E_STATE, tandem_listen(sync, "b", 0, false, url));
    for (unsigned i = 0; i < 3; i++) {
        tandem_sync *at = i == 0 ? NULL : sync;
        const char *name = i == 1 ? NULL : "b", *to = i == 2 ? NULL : "mem://b";

        assert_int_equal(TANDEM_E_INVALID, tandem_remote_add(at, name, to));
        assert_int_equal(TANDEM_E_INVALID, tandem_remote_set(at, name, to));
        assert_int_equal(TANDEM_E_INVALID, tandem_barrier_open(at, name, to ? &barrier : NULL));
        name = to ? name : NULL;
        assert_int_equal(TANDEM_E_INVALID, tandem_remote_remove(at, name));
        assert_int_equal(TANDEM_E_INVALID, tandem_remote_pause(at, name));
        assert_int_equal(TANDEM_E_INVALID, tandem_remote_resume(at, name));
        assert_int_equal(TANDEM_E_INVALID, tandem_wait_covered(at, name, 0));
        assert_int_equal(TANDEM_E_INVALID, tandem_remotes(at, at ? NULL : visit_no_remote, NULL));
        assert_int_equal(TANDEM_E_INVALID, tandem_job_handles(at, at ? NULL : visit_no_job, NULL));
        assert_int_equal(TANDEM_E_INVALID, tandem_sync_verify(at, at ? NULL : hear_nothing, NULL));
        assert_int_equal(TANDEM_E_INVALID, tandem_sync_stat_get(at, at ? NULL : &stat));
    }
    assert_int_equal(TANDEM_E_INVALID, tandem_remote_poke(NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_wait_in_step(NULL, NULL, 0));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_remote_set(sync, "b", "mem://b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_remote_pause(sync, "b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_remote_poke(sync, "b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_remote_remove(sync, "b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_wait_covered(sync, "b", 1));
    assert_int_equal(TANDEM_OK, tandem_remote_poke(sync, NULL));
    assert_int_equal(TANDEM_OK, tandem_remotes(sync, visit_no_remote, NULL));
    tandem_barrier_free(NULL);
    tandem_sync_close(NULL);
    tandem_harness_free(harness);
}

static void a_call_of_the_harness_that_cannot_be_is_refused(void **state)
{
    char long_name[200], why[256];
    tandem_harness_options wrong = TANDEM_HARNESS_OPTIONS_INIT;
    tandem_sync_options sync_options = TANDEM_SYNC_OPTIONS_INIT;
    const char *const bad_names[] = {NULL, "", "a/b", long_name, "a"};
    tandem_harness *h;

    memset(long_name, 'n', sizeof(long_name));
    long_name[sizeof(long_name) - 1] = 0;
    assert_int_equal(TANDEM_E_INVALID, tandem_harness_open(NULL, NULL));
    wrong.size--;
    assert_int_equal(TANDEM_E_INVALID, tandem_harness_open(&wrong, &h));
    assert_int_equal(TANDEM_OK, tandem_harness_open(NULL, &h));
    assert_int_equal(TANDEM_OK, tandem_harness_converged(h, why));
    assert_int_equal(TANDEM_OK, tandem_harness_add(h, "a", 0));
    for (unsigned i = 0; i < 5; i++) {
        tandem_err expected = i < 4 ? TANDEM_E_INVALID : TANDEM_E_EXISTS;

        assert_int_equal(expected, tandem_harness_add(h, bad_names[i], 0));
        assert_int_equal(expected, tandem_harness_copy(h, "a", bad_names[i]));
    }
    assert_int_equal(TANDEM_E_INVALID, tandem_harness_set_sync_options(h, NULL));
    sync_options.size--;
    assert_int_equal(TANDEM_E_INVALID, tandem_harness_set_sync_options(h, &sync_options));

    /* Nobody of that name. */
    assert_null(tandem_harness_reactor(h, "b"));
    assert_null(tandem_harness_sync(h, "b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_connect(h, "b", "a"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_connect(h, "a", "b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_disconnect(h, "b", "a"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_disconnect(h, "a", "b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_crash(h, "b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_crash_at(h, "b", "store_created", 1));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_crash_at(h, "a", "no_such_place", 1));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_restart(h, "b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_backup(h, "b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_go_back(h, "b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_go_back(h, "a")); /* to what? */
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_copy(h, "b", "c"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_set_clock(h, "b", 1));
    assert_int_equal(TANDEM_E_NOT_FOUND,
                     tandem_harness_fail_disk(h, "b", TANDEM_HARNESS_PUT, TANDEM_E_IO, 1));
    assert_int_equal(TANDEM_E_INVALID, tandem_harness_fail_disk(h, "a", TANDEM_HARNESS_PUT - 1,
                                                                TANDEM_E_IO, 1));
    assert_int_equal(TANDEM_E_INVALID, tandem_harness_fail_disk(h, "a", TANDEM_HARNESS_COMMITTED + 1,
                                                                TANDEM_E_IO, 1));
    assert_int_equal(TANDEM_E_INVALID,
                     tandem_harness_fail_disk(h, "a", TANDEM_HARNESS_PUT, TANDEM_OK, 1));
    assert_int_equal(TANDEM_E_STATE, tandem_harness_restart(h, "a"));

    /* Not while it is crashed. */
    assert_int_equal(TANDEM_OK, tandem_harness_backup(h, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_crash(h, "a"));
    assert_int_equal(TANDEM_E_STATE, tandem_harness_crash(h, "a"));
    assert_null(tandem_harness_reactor(h, "a"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_connect(h, "a", "a"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_harness_disconnect(h, "a", "a"));
    assert_int_equal(TANDEM_E_STATE,
                     tandem_harness_fail_disk(h, "a", TANDEM_HARNESS_PUT, TANDEM_E_IO, 1));
    assert_int_equal(TANDEM_OK, tandem_harness_set_clock(h, "a", 1000));
    assert_int_equal(TANDEM_OK, tandem_harness_go_back(h, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_converged(h, why)); /* nobody runs */
    assert_int_equal(TANDEM_OK, tandem_harness_run_until_idle(h, 5000));
    assert_int_equal(TANDEM_OK, tandem_harness_add(h, "b", 0));
    assert_int_equal(TANDEM_OK, tandem_harness_converged(h, why)); /* one does */
    assert_int_equal(TANDEM_OK, tandem_harness_restart(h, "a"));
    assert_int_equal(0, tandem_harness_random(h, 0));
    assert_int_equal(0, tandem_harness_random(h, 1));
    assert_int_equal(TANDEM_E_TIMEOUT, tandem_harness_run_until_idle(h, 1));
    assert_true(tandem_harness_step(h));
    tandem_harness_free(h);
    tandem_harness_free(NULL);
}

/* ---- Jobs on their way ---- */

struct jobs_seen {
    unsigned count, outbox;
    uint64_t operations;
    tandem_err answer; /* to the visitor's caller */
};

static tandem_err look_at_job(void *context, const tandem_job_status *status)
{
    struct jobs_seen *seen = context;

    assert_true(tandem_slice_equal(tandem_slice_text("notes"), status->collection));
    assert_true(tandem_slice_equal(tandem_slice_text("n1"), status->document));
    assert_true(status->first_seq && status->last_seq >= status->first_seq && status->bytes);
    seen->count++;
    seen->outbox += strcmp(status->box, "outbox") == 0 && status->remote &&
                    strcmp(status->remote, "b") == 0 &&
                    strcmp(status->status, "execution_pending") == 0;
    seen->operations += status->operations;
    return seen->answer;
}

static struct jobs_seen jobs_of(tandem_harness *harness, const char *name, tandem_err answer,
                                tandem_err expected)
{
    struct jobs_seen seen = {.answer = answer};

    assert_int_equal(expected, tandem_job_handles(tandem_harness_sync(harness, name), look_at_job,
                                                  &seen));
    return seen;
}

static void jobs_are_listed_until_they_have_arrived(void **state)
{
    tandem_harness *harness = open_pair(42);
    struct jobs_seen seen;

    assert_int_equal(0, jobs_of(harness, "a", TANDEM_OK, TANDEM_OK).count);
    tandem_harness_clog(harness, "a", "b", true);
    write_kv(harness, "a", "n1", "{\"x\":2}");
    tandem_harness_run(harness, 100); /* a handle is made of what is there, and sent */
    write_kv(harness, "a", "n1", "{\"x\":3}");
    tandem_harness_run(harness, 1000);
    seen = jobs_of(harness, "a", TANDEM_OK, TANDEM_OK);
    assert_int_equal(2, seen.count);
    assert_int_equal(2, seen.outbox);
    assert_int_equal(2, seen.operations);
    assert_int_equal(1, jobs_of(harness, "a", TANDEM_END, TANDEM_OK).count);
    assert_int_equal(1, jobs_of(harness, "a", TANDEM_E_IO, TANDEM_E_IO).count);
    assert_int_equal(0, jobs_of(harness, "b", TANDEM_OK, TANDEM_OK).count);
    tandem_harness_clog(harness, "a", "b", false);
    assert_converges(harness);
    assert_int_equal(0, jobs_of(harness, "a", TANDEM_OK, TANDEM_OK).count);
    tandem_harness_free(harness);
}

/* ---- Barriers ---- */

static void a_barrier_is_over_when_the_remote_holds_what_there_was(void **state)
{
    tandem_harness *harness = bed_open(41, (const char *[]){"a", "b", "c"}, 3);
    tandem_sync *sync = tandem_harness_sync(harness, "a");
    tandem_barrier *first, *second, *third;

    write_kv(harness, "a", "n1", "{\"title\":\"one\"}");
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "c"));
    assert_converges(harness);
    assert_int_equal(TANDEM_OK, tandem_wait_in_step(sync, NULL, 10000)); /* with everyone */
    tandem_harness_cut(harness, "a", "b");
    write_kv(harness, "a", "n1", "{\"title\":\"two\"}");
    assert_int_equal(TANDEM_OK, tandem_barrier_open(sync, "b", &first));
    assert_int_equal(TANDEM_OK, tandem_barrier_open(sync, "b", &second));
    assert_int_equal(TANDEM_OK, tandem_barrier_open(sync, "b", &third));
    assert_int_equal(TANDEM_E_TIMEOUT, tandem_barrier_wait(first, 20000));
    assert_int_equal(TANDEM_E_TIMEOUT, tandem_wait_in_step(sync, NULL, 20000));
    assert_int_equal(TANDEM_OK, tandem_remote_pause(sync, "b"));
    assert_int_equal(TANDEM_OK, tandem_wait_in_step(sync, NULL, 20000)); /* one rests */
    assert_int_equal(TANDEM_E_REFUSED, tandem_barrier_wait(first, 20000)); /* until somebody acts */
    tandem_barrier_free(first);
    tandem_barrier_free(second);
    tandem_barrier_free(third);
    assert_int_equal(TANDEM_E_REFUSED, tandem_wait_covered(sync, "b", UINT64_MAX));
    assert_int_equal(TANDEM_OK, tandem_remote_resume(sync, "b"));
    assert_int_equal(TANDEM_OK, tandem_barrier_open(sync, "b", &first));
    assert_int_equal(TANDEM_OK, tandem_barrier_open(sync, "b", &second));
    assert_int_equal(TANDEM_OK, tandem_barrier_open(sync, "b", &third));
    tandem_barrier_free(second); /* in the middle, and not over yet */
    tandem_harness_heal(harness, "a", "b");
    assert_int_equal(TANDEM_OK, tandem_barrier_wait(first, 120000));
    assert_int_equal(TANDEM_OK, tandem_barrier_wait(third, 120000));
    assert_int_equal(TANDEM_OK, tandem_barrier_wait(third, 0)); /* and stays so */
    assert_string_equal("{\"title\":\"two\"}", state_of(harness, "b", "n1"));
    tandem_barrier_free(first);
    tandem_barrier_free(third);

    tandem_harness_cut(harness, "a", "b");
    write_kv(harness, "a", "n2", "{}");
    assert_int_equal(TANDEM_OK, tandem_barrier_open(sync, "b", &first));
    assert_int_equal(TANDEM_OK, tandem_harness_disconnect(harness, "a", "b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_barrier_wait(first, 20000));
    tandem_barrier_free(first);
    tandem_harness_free(harness);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_reactors_keep_in_step),
        cmocka_unit_test(a_cut_link_heals),
        cmocka_unit_test(a_crashed_reactor_comes_back_with_what_was_committed),
        cmocka_unit_test(what_a_remote_lacks_is_told_while_it_is_away),
        cmocka_unit_test(a_line_relays_both_ways),
        cmocka_unit_test(the_same_seed_is_the_same_run),
        cmocka_unit_test(idle_means_that_nothing_moves),
        cmocka_unit_test(a_one_way_cut_stops_one_way),
        cmocka_unit_test(a_clogged_way_loses_nothing),
        cmocka_unit_test(a_half_open_link_is_given_up_and_made_anew),
        cmocka_unit_test(a_slow_reactor_gets_there),
        cmocka_unit_test(a_corrupted_byte_stops_nothing),
        cmocka_unit_test(a_full_disk_refuses_and_heals),
        cmocka_unit_test(a_commit_that_was_reported_as_failed_counts),
        cmocka_unit_test(what_a_liar_does_is_told_and_shown),
        cmocka_unit_test(what_may_have_happened_is_never_reported_as_failed),
        cmocka_unit_test(a_clock_that_steps_far_ahead_makes_its_operations_wait),
        cmocka_unit_test(a_reactor_dies_where_it_was_told_to),
        cmocka_unit_test(a_restored_backup_loses_nothing_that_others_hold),
        cmocka_unit_test(a_copied_folder_is_another_reactor),
        cmocka_unit_test(a_remote_can_be_taken_away),
        cmocka_unit_test(real_stores_do_the_same),
        cmocka_unit_test(events_are_counted),
        cmocka_unit_test(a_call_of_a_sync_that_lacks_something_is_refused),
        cmocka_unit_test(a_call_of_the_harness_that_cannot_be_is_refused),
        cmocka_unit_test(jobs_are_listed_until_they_have_arrived),
        cmocka_unit_test(a_barrier_is_over_when_the_remote_holds_what_there_was),
    };

    return cmocka_run_group_tests_name("harness", tests, NULL, NULL);
}
