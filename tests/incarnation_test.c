/*
 * Incarnations, by the public harness: whoever writes under an origin that somebody else writes
 * under, too, takes a new one, and nothing is lost or counted twice. A counter tells: every one of
 * its operations adds one, so what it shows is how many are held.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sync/harness.h"
#include "sync/sync_manager.h"
#include "tests/harness_bed.h"

enum { CONVERGE_MS = 120000 };
static const int64_t year_ms = 365ll * 24 * 3600 * 1000;

static tandem_err count_up(tandem_harness *harness, const char *name)
{
    tandem_input input = {.type = "counter.ADD", .json = "1"};
    tandem_job job = {
        .collection = "shop", .document = "visits", .operations = &input, .count = 1};
    char why[TANDEM_WHY_BYTES];

    return tandem_execute(tandem_harness_reactor(harness, name), &job, NULL, why);
}

static void count_to(tandem_harness *harness, const char *name, int times)
{
    for (int i = 0; i < times; i++)
        assert_int_equal(TANDEM_OK, count_up(harness, name));
}

static int shown(tandem_harness *harness, const char *name)
{
    tandem_document *read;
    int value;

    if (tandem_document_read(tandem_harness_reactor(harness, name), "shop", "visits", NULL, NULL,
                             UINT64_MAX, &read, NULL) != TANDEM_OK)
        return -1;
    value = atoi(tandem_document_json(read));
    tandem_document_free(read);
    return value;
}

static tandem_stat stat_of(tandem_harness *harness, const char *name)
{
    tandem_stat stat;

    assert_int_equal(TANDEM_OK, tandem_stat_get(tandem_harness_reactor(harness, name), &stat));
    return stat;
}

/* Reactors of these names, not connected; "a" has counted to 3. */
static tandem_harness *open_shop(uint64_t seed, const char *const *names, size_t count)
{
    tandem_harness *harness = bed_open(seed, names, count);

    count_to(harness, "a", 3);
    return harness;
}

static void connect_to(tandem_harness *harness, const char *a, const char *b)
{
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, a, b));
}

static void assert_all_show(tandem_harness *harness, const char *const *names, size_t count,
                            int expected)
{
    char why[256];
    tandem_err err = tandem_harness_run_until_converged(harness, CONVERGE_MS, why);

    if (err != TANDEM_OK)
        print_message("not converged: %s\n", why);
    assert_int_equal(TANDEM_OK, err);
    for (size_t i = 0; i < count; i++) {
        int value = shown(harness, names[i]);

        if (value != expected)
            fail_msg("%s shows %d, not %d", names[i], value, expected);
        assert_int_equal(0, stat_of(harness, names[i]).events[TANDEM_EVENT_QUARANTINE]);
    }
}

#define NAMES(...)                                                                                 \
    (const char *const[]){__VA_ARGS__}, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)

static void a_restored_backup_that_writes_first_keeps_both_branches(void **state)
{
    tandem_harness *harness = open_shop(1, NAMES("a", "b"));
    uint8_t origin[TANDEM_ORIGIN_BYTES];

    (void)state;
    connect_to(harness, "a", "b");
    assert_all_show(harness, NAMES("a", "b"), 3);
    assert_int_equal(TANDEM_OK, tandem_harness_backup(harness, "a"));
    count_to(harness, "a", 2);
    assert_all_show(harness, NAMES("a", "b"), 5);
    assert_int_equal(TANDEM_OK, tandem_harness_go_back(harness, "a"));
    tandem_harness_cut(harness, "a", "b");
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    assert_int_equal(3, shown(harness, "a"));
    count_to(harness, "a", 4); /* under numbers that are taken */
    memcpy(origin, tandem_reactor_origin(tandem_harness_reactor(harness, "a")), sizeof(origin));
    tandem_harness_heal(harness, "a", "b");
    assert_all_show(harness, NAMES("a", "b"), 9);
    assert_int_equal(TANDEM_INCARNATION_CONTINUED, stat_of(harness, "a").incarnation_reason);
    assert_int_equal(2, stat_of(harness, "a").incarnation);
    assert_int_equal(1, stat_of(harness, "a").events[TANDEM_EVENT_INCARNATION]);
    assert_int_equal(1, stat_of(harness, "b").forks);
    assert_memory_not_equal(
        origin, tandem_reactor_origin(tandem_harness_reactor(harness, "a")), sizeof(origin));
    count_to(harness, "a", 1);
    assert_all_show(harness, NAMES("a", "b"), 10);
    assert_int_equal(1, stat_of(harness, "b").forks);
    tandem_harness_free(harness);
}

/* It dies when its chain was continued, and before it could take a new origin: opening it does. */
static void a_crash_before_a_new_origin_is_made_up_for(void **state)
{
    tandem_harness *harness = open_shop(17, NAMES("a", "b"));
    uint8_t origin[TANDEM_ORIGIN_BYTES];

    (void)state;
    connect_to(harness, "b", "a");
    assert_all_show(harness, NAMES("a", "b"), 3);
    assert_int_equal(TANDEM_OK, tandem_harness_backup(harness, "a"));
    count_to(harness, "a", 2);
    assert_all_show(harness, NAMES("a", "b"), 5);
    assert_int_equal(TANDEM_OK, tandem_harness_go_back(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    memcpy(origin, tandem_reactor_origin(tandem_harness_reactor(harness, "a")), sizeof(origin));
    count_to(harness, "a", 1);
    assert_int_equal(TANDEM_OK, tandem_harness_crash_at(harness, "a", "COMMIT_AFTER", 1));
    tandem_harness_run(harness, CONVERGE_MS);
    assert_null(tandem_harness_reactor(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    tandem_harness_run(harness, 1);
    assert_memory_not_equal(origin, tandem_reactor_origin(tandem_harness_reactor(harness, "a")),
                            sizeof(origin));
    count_to(harness, "a", 1);
    assert_all_show(harness, NAMES("a", "b"), 7);
    tandem_harness_free(harness);
}

static void of_two_copies_that_meet_the_younger_takes_a_new_origin(void **state)
{
    tandem_harness *harness = open_shop(2, NAMES("a"));
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    const tandem_reactor *a, *copy;

    (void)state;
    tandem_harness_run(harness, 1000);
    assert_int_equal(TANDEM_OK, tandem_harness_copy(harness, "a", "copy"));
    count_to(harness, "a", 2);
    count_to(harness, "copy", 4);
    connect_to(harness, "copy", "a");
    assert_all_show(harness, NAMES("a", "copy"), 9);
    a = tandem_harness_reactor(harness, "a");
    copy = tandem_harness_reactor(harness, "copy");
    assert_int_equal(TANDEM_INCARNATION_COPIED, stat_of(harness, "copy").incarnation_reason);
    assert_memory_not_equal(tandem_reactor_id(a), tandem_reactor_id(copy), TANDEM_ORIGIN_BYTES);
    /* It is kept. */
    memcpy(origin, tandem_reactor_origin(copy), sizeof(origin));
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "copy"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "copy"));
    copy = tandem_harness_reactor(harness, "copy");
    assert_memory_equal(origin, tandem_reactor_origin(copy), sizeof(origin));
    assert_int_equal(2, stat_of(harness, "copy").incarnation);
    tandem_harness_free(harness);
}

/* It shares less than everything with somebody: who dials it has to say HELLO first. */
static void share_less(tandem_harness *harness, const char *name, const char *with)
{
    const char *const documents[] = {"x*"};
    tandem_share share = TANDEM_SHARE_INIT;

    share.documents = documents;
    share.document_count = 1;
    tandem_harness_cut(harness, name, with);
    connect_to(harness, name, with);
    assert_int_equal(TANDEM_OK, tandem_remote_set_share(tandem_harness_sync(harness, name), with,
                                                        &share));
}

static void a_copy_that_was_told_nothing_yet_takes_a_new_origin(void **state)
{
    tandem_harness *harness = open_shop(18, NAMES("a", "b"));

    (void)state;
    tandem_harness_run(harness, 1000);
    assert_int_equal(TANDEM_OK, tandem_harness_copy(harness, "a", "copy"));
    share_less(harness, "copy", "b");
    count_to(harness, "a", 2);
    count_to(harness, "copy", 4);
    connect_to(harness, "a", "copy");
    tandem_harness_run(harness, CONVERGE_MS);
    assert_int_equal(TANDEM_INCARNATION_COPIED, stat_of(harness, "copy").incarnation_reason);
    assert_int_equal(2, stat_of(harness, "copy").incarnation);
    assert_memory_not_equal(tandem_reactor_id(tandem_harness_reactor(harness, "a")),
                            tandem_reactor_id(tandem_harness_reactor(harness, "copy")),
                            TANDEM_ORIGIN_BYTES);
    assert_int_equal(9, shown(harness, "a"));
    assert_int_equal(9, shown(harness, "copy"));
    tandem_harness_free(harness);
}

/* At once, however the two HELLOs cross: the younger reads the other's before it says its own, or after. */
static void copies_part_whoever_says_hello_first(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 120; seed++) {
        tandem_harness *harness = open_shop(seed, NAMES("a"));
        const char *dials = seed % 2 ? "a" : "copy";

        tandem_harness_run(harness, 1000);
        assert_int_equal(TANDEM_OK, tandem_harness_copy(harness, "a", "copy"));
        connect_to(harness, dials, seed % 2 ? "copy" : "a");
        tandem_harness_run(harness, 50); /* no time to dial again */
        assert_int_equal(2, stat_of(harness, "copy").incarnation);
        assert_int_equal(1, stat_of(harness, "a").incarnation);
        tandem_harness_free(harness);
    }
}

struct watched {
    unsigned calls;
    tandem_event last;
};

static void note_event(void *context, const tandem_event *event)
{
    struct watched *watched = context;

    if (event->kind != TANDEM_EVENT_INCARNATION)
        return;
    watched->calls++;
    watched->last = *event;
}

static void go_back_and_fork(tandem_harness *harness)
{
    assert_int_equal(TANDEM_OK, tandem_harness_go_back(harness, "a"));
    tandem_harness_cut(harness, "a", "b");
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    count_to(harness, "a", 1);
    tandem_harness_heal(harness, "a", "b");
}

static void a_new_origin_is_told(void **state)
{
    tandem_harness *harness = open_shop(7, NAMES("a", "b"));
    struct watched watched = {0};
    tandem_subscription *watch;

    (void)state;
    connect_to(harness, "a", "b");
    assert_all_show(harness, NAMES("a", "b"), 3);
    assert_int_equal(TANDEM_OK, tandem_harness_backup(harness, "a"));
    count_to(harness, "a", 1);
    assert_all_show(harness, NAMES("a", "b"), 4);
    go_back_and_fork(harness);
    assert_int_equal(TANDEM_OK, tandem_watch(tandem_harness_reactor(harness, "a"), note_event,
                                             &watched, &watch));
    assert_all_show(harness, NAMES("a", "b"), 5);
    assert_int_equal(1, watched.calls);
    assert_int_equal(1, watched.last.count);
    assert_int_equal(TANDEM_INCARNATION_CONTINUED, watched.last.reason);
    assert_memory_equal(watched.last.origin,
                        tandem_reactor_origin(tandem_harness_reactor(harness, "a")),
                        TANDEM_ORIGIN_BYTES);
    tandem_unsubscribe(watch);
    tandem_harness_free(harness);
}

static void copies_behind_one_hub_part(void **state)
{
    tandem_harness *harness = open_shop(3, NAMES("a", "hub"));

    (void)state;
    connect_to(harness, "a", "hub");
    assert_all_show(harness, NAMES("a", "hub"), 3);
    assert_int_equal(TANDEM_OK, tandem_harness_copy(harness, "a", "copy"));
    for (int i = 0; i < 5; i++) {
        count_to(harness, "a", 1);
        count_to(harness, "copy", 1);
        tandem_harness_run(harness, 700);
    }
    assert_all_show(harness, NAMES("a", "copy", "hub"), 13);
    assert_memory_not_equal(tandem_reactor_id(tandem_harness_reactor(harness, "a")),
                            tandem_reactor_id(tandem_harness_reactor(harness, "copy")),
                            TANDEM_ORIGIN_BYTES);
    count_to(harness, "a", 1);
    count_to(harness, "copy", 1);
    assert_all_show(harness, NAMES("a", "copy", "hub"), 15);
    tandem_harness_free(harness);
}

/* The hub hears both before it has said a word to either. */
static void copies_that_come_to_a_hub_at_once_part(void **state)
{
    (void)state;
    for (uint64_t seed = 200; seed < 220; seed++) {
        tandem_harness *harness = open_shop(seed, NAMES("a", "hub", "b"));

        share_less(harness, "hub", "b");
        tandem_harness_run(harness, 1000);
        assert_int_equal(TANDEM_OK, tandem_harness_copy(harness, "a", "copy"));
        connect_to(harness, "a", "hub");
        connect_to(harness, "copy", "hub");
        tandem_harness_run(harness, 10000);
        assert_int_equal(2, stat_of(harness, "copy").incarnation);
        assert_int_equal(1, stat_of(harness, "a").incarnation);
        tandem_harness_free(harness);
    }
}

static void copies_behind_two_hubs_part(void **state)
{
    tandem_harness *harness = open_shop(4, NAMES("a", "hub", "far"));

    (void)state;
    connect_to(harness, "hub", "far");
    assert_int_equal(TANDEM_OK, tandem_harness_copy(harness, "a", "copy"));
    connect_to(harness, "a", "hub");
    connect_to(harness, "copy", "far");
    for (int i = 0; i < 5; i++) {
        count_to(harness, "a", 1);
        count_to(harness, "copy", 1);
        tandem_harness_run(harness, 700);
    }
    assert_all_show(harness, NAMES("a", "copy", "hub", "far"), 13);
    count_to(harness, "a", 1);
    count_to(harness, "copy", 1);
    assert_all_show(harness, NAMES("a", "copy", "hub", "far"), 15);
    assert_true(stat_of(harness, "hub").forks <= 1);
    tandem_harness_free(harness);
}

static void a_reactor_that_was_started_again_is_no_copy(void **state)
{
    tandem_harness *harness = open_shop(5, NAMES("a", "hub"));

    (void)state;
    connect_to(harness, "a", "hub");
    for (int i = 0; i < 5; i++) {
        count_to(harness, "a", 1);
        tandem_harness_half_open(harness, "a", "hub"); /* the hub does not see it go */
        assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "a"));
        assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
        tandem_harness_run(harness, 3000);
    }
    assert_all_show(harness, NAMES("a", "hub"), 8);
    assert_int_equal(1, stat_of(harness, "a").incarnation);
    tandem_harness_free(harness);
}

static void a_clock_that_jumped_a_year_heals_by_itself(void **state)
{
    tandem_harness *harness = open_shop(6, NAMES("a", "b"));
    tandem_stat stat;

    (void)state;
    connect_to(harness, "a", "b");
    assert_all_show(harness, NAMES("a", "b"), 3);
    assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, "a", year_ms));
    count_to(harness, "a", 1); /* waits a year for b */
    tandem_harness_run(harness, 20000);
    assert_int_equal(3, shown(harness, "b"));
    assert_int_equal(1, stat_of(harness, "a").incarnation);
    assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, "a", 0));
    tandem_harness_run(harness, 90000);
    stat = stat_of(harness, "a");
    assert_int_equal(TANDEM_INCARNATION_CLOCK, stat.incarnation_reason);
    count_to(harness, "a", 2);
    count_to(harness, "b", 1);
    tandem_harness_run(harness, 20000);
    assert_int_equal(6, shown(harness, "b"));
    assert_int_equal(7, shown(harness, "a"));
    tandem_harness_free(harness);
}

struct seen {
    tandem_remote_state state;
    uint64_t sent, retry_at_ms;
};

static tandem_err note_remote(void *context, const tandem_remote_status *status)
{
    *(struct seen *)context =
        (struct seen){status->state, status->sent_operations, status->retry_at_ms};
    return TANDEM_OK;
}

static struct seen remote_of(tandem_harness *harness, const char *name)
{
    struct seen seen = {0};

    assert_int_equal(TANDEM_OK,
                     tandem_remotes(tandem_harness_sync(harness, name), note_remote, &seen));
    return seen;
}

/* What was written under the origin before is asked for, not pushed: that waits as well. */
static void what_is_dated_ahead_waits_in_sight_and_comes_when_it_is_time(void **state)
{
    tandem_harness *harness = open_shop(8, NAMES("a", "b"));

    (void)state;
    connect_to(harness, "a", "b");
    assert_all_show(harness, NAMES("a", "b"), 3);
    assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, "a", 30 * 60 * 1000));
    count_to(harness, "a", 2);
    tandem_harness_run(harness, 20000);
    assert_int_equal(TANDEM_REMOTE_WAITING_FOR_CLOCK, remote_of(harness, "a").state);
    assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, "a", 0));
    tandem_harness_run(harness, 60000);
    assert_int_equal(2, stat_of(harness, "a").incarnation);
    count_to(harness, "a", 4);
    tandem_harness_run(harness, 5000);
    assert_int_equal(7, shown(harness, "b"));
    for (int minute = 0; minute < 20; minute++) {
        tandem_harness_run(harness, 60000);
        assert_int_equal(TANDEM_REMOTE_WAITING_FOR_CLOCK, remote_of(harness, "a").state);
        assert_int_equal(TANDEM_REMOTE_WAITING_FOR_CLOCK, remote_of(harness, "b").state);
        assert_true(remote_of(harness, "a").retry_at_ms > 0);
        assert_int_equal(7, shown(harness, "b"));
    }
    assert_true(stat_of(harness, "b").events[TANDEM_EVENT_CLOCK] < 5); /* not again and again */
    tandem_harness_run(harness, 5 * 60000);
    assert_all_show(harness, NAMES("a", "b"), 9);
    assert_int_equal(TANDEM_REMOTE_IN_STEP, remote_of(harness, "a").state);
    tandem_harness_free(harness);
}

/* What was announced while it waited at its writer is asked for: who asks must be answered, or it asks
 * on and on, shows that it pulls, and tells nobody its clock. */
static void who_is_asked_for_what_waits_says_until_when(void **state)
{
    static const char *const documents[] = {"counter", "log"};
    tandem_input inputs[] = {{.type = "counter.ADD", .json = "1"},
                             {.type = "log.APPEND", .json = "1"}};
    tandem_harness *harness = open_shop(9, NAMES("a", "b"));
    char why[TANDEM_WHY_BYTES];

    (void)state;
    connect_to(harness, "a", "b");
    tandem_harness_run(harness, 2635);
    assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, "a", year_ms));
    for (int i = 0; i < 2; i++) {
        tandem_job job = {.collection = "new", .document = documents[i], .operations = &inputs[i],
                          .count = 1};

        assert_int_equal(TANDEM_OK,
                         tandem_execute(tandem_harness_reactor(harness, "a"), &job, NULL, why));
        tandem_harness_run(harness, 1000);
    }
    tandem_harness_run(harness, 20000);
    assert_int_equal(TANDEM_REMOTE_WAITING_FOR_CLOCK, remote_of(harness, "a").state);
    assert_int_equal(TANDEM_REMOTE_WAITING_FOR_CLOCK, remote_of(harness, "b").state);
    assert_true(remote_of(harness, "b").retry_at_ms > 0);
    assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, "a", 0));
    tandem_harness_run(harness, 90000);
    assert_int_equal(TANDEM_INCARNATION_CLOCK, stat_of(harness, "a").incarnation_reason);
    tandem_harness_free(harness);
}

/* What waits has been answered: it is none of the ranges of which a peer may ask for so many at once. */
static void any_number_of_ranges_may_wait_for_a_clock(void **state)
{
    enum { COLLECTIONS = TD_ASKED_RANGES_MAX + 100 };
    static const char *const ahead[] = {"a", "hub"};
    tandem_input input = {.type = "counter.ADD", .json = "1"};
    tandem_harness *harness = open_shop(11, NAMES("a", "hub", "b"));
    char why[TANDEM_WHY_BYTES], name[16];

    (void)state;
    connect_to(harness, "a", "hub");
    for (int i = 0; i < 2; i++)
        assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, ahead[i], 30 * 60 * 1000));
    for (int i = 0; i < COLLECTIONS; i++) {
        tandem_job job = {.collection = name, .document = "d", .model = "counter",
                          .operations = &input, .count = 1};

        snprintf(name, sizeof(name), "many%d", i);
        assert_int_equal(TANDEM_OK,
                         tandem_execute(tandem_harness_reactor(harness, "a"), &job, NULL, why));
    }
    tandem_harness_run(harness, 20000);
    assert_int_equal(TANDEM_REMOTE_IN_STEP, remote_of(harness, "a").state);
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "a"));
    connect_to(harness, "b", "hub");
    for (int i = 0; i < 20; i++) {
        tandem_harness_run(harness, 10000);
        assert_int_not_equal(TANDEM_REMOTE_BLOCKED, remote_of(harness, "b").state);
    }
    assert_int_equal(TANDEM_REMOTE_WAITING_FOR_CLOCK, remote_of(harness, "b").state);
    tandem_harness_run(harness, 40 * 60 * 1000);
    assert_int_equal(TANDEM_REMOTE_IN_STEP, remote_of(harness, "b").state);
    tandem_harness_free(harness);
}

/* Each tells the other of the date that both have taken; the refusal tells of the time that it is. */
static void clocks_that_jumped_together_heal_by_themselves(void **state)
{
    static const char *const names[] = {"a", "b"};
    tandem_harness *harness = open_shop(10, names, 2);

    (void)state;
    connect_to(harness, "a", "b");
    assert_all_show(harness, names, 2, 3);
    for (int i = 0; i < 2; i++)
        assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, names[i], year_ms));
    count_to(harness, "a", 1);
    count_to(harness, "b", 1);
    assert_all_show(harness, names, 2, 5);
    for (int i = 0; i < 2; i++)
        assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, names[i], 0));
    count_to(harness, "a", 1); /* these wait a year */
    count_to(harness, "b", 1);
    tandem_harness_run(harness, 90000);
    for (int i = 0; i < 2; i++)
        assert_int_equal(TANDEM_INCARNATION_CLOCK, stat_of(harness, names[i]).incarnation_reason);
    count_to(harness, "a", 2);
    count_to(harness, "b", 1);
    tandem_harness_run(harness, 20000);
    assert_int_equal(9, shown(harness, "a")); /* 5, one that waits, and 3 */
    assert_int_equal(9, shown(harness, "b"));
    tandem_harness_free(harness);
}

static tandem_err count_new(tandem_harness *harness, const char *name, char why[TANDEM_WHY_BYTES])
{
    tandem_input input = {.type = "counter.ADD", .json = "1"};
    tandem_job job = {.collection = "shop", .document = "new", .operations = &input, .count = 1};

    return tandem_execute(tandem_harness_reactor(harness, name), &job, NULL, why);
}

static void assert_shows_new(tandem_harness *harness, const char *name, const char *expected)
{
    tandem_document *read;

    assert_int_equal(TANDEM_OK,
                     tandem_document_read(tandem_harness_reactor(harness, name), "shop", "new",
                                          NULL, NULL, UINT64_MAX, &read, NULL));
    assert_string_equal(expected, tandem_document_json(read));
    tandem_document_free(read);
}

/* A hub whose clock is ahead, too, holds what waits and what does not, and sends it in one message. */
static void what_is_dated_ahead_keeps_nobody_else_waiting(void **state)
{
    tandem_harness *harness = open_shop(12, NAMES("a", "b", "c", "hub"));

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, "a", year_ms));
    assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, "hub", year_ms));
    count_to(harness, "a", 2);
    connect_to(harness, "a", "hub");
    tandem_harness_run(harness, 5000);
    assert_int_equal(5, shown(harness, "hub"));
    count_to(harness, "b", 4);
    connect_to(harness, "b", "hub");
    tandem_harness_run(harness, 5000);
    assert_int_equal(9, shown(harness, "hub"));
    tandem_harness_cut(harness, "a", "hub");
    tandem_harness_cut(harness, "b", "hub");
    connect_to(harness, "c", "hub");
    tandem_harness_run(harness, 1000);
    assert_int_equal(7, shown(harness, "c"));
    assert_int_equal(2, stat_of(harness, "c").events[TANDEM_EVENT_CLOCK]);
    tandem_harness_free(harness);
}

/* It has a CREATE that is dated behind all that is written now, which would be a no-op for ever. */
static void a_document_of_the_future_is_created_again(void **state)
{
    tandem_harness *harness = open_shop(11, NAMES("a", "b"));
    char why[TANDEM_WHY_BYTES];

    (void)state;
    connect_to(harness, "a", "b");
    assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, "a", year_ms));
    assert_int_equal(TANDEM_OK, count_new(harness, "a", why));
    assert_int_equal(TANDEM_OK, tandem_harness_set_clock(harness, "a", 0));
    tandem_harness_run(harness, 90000);
    assert_int_equal(TANDEM_INCARNATION_CLOCK, stat_of(harness, "a").incarnation_reason);
    assert_int_equal(TANDEM_E_NOT_FOUND,
                     tandem_delete(tandem_harness_reactor(harness, "a"), "shop", "new", NULL, why));
    assert_non_null(strstr(why, "a clock that ran ahead"));
    assert_int_equal(TANDEM_OK, count_new(harness, "a", why));
    assert_int_equal(TANDEM_OK, count_new(harness, "a", why));
    tandem_harness_run(harness, 20000);
    assert_shows_new(harness, "a", "3");
    assert_shows_new(harness, "b", "2");
    tandem_harness_free(harness);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restored_backup_that_writes_first_keeps_both_branches),
        cmocka_unit_test(a_crash_before_a_new_origin_is_made_up_for),
        cmocka_unit_test(of_two_copies_that_meet_the_younger_takes_a_new_origin),
        cmocka_unit_test(a_copy_that_was_told_nothing_yet_takes_a_new_origin),
        cmocka_unit_test(copies_part_whoever_says_hello_first),
        cmocka_unit_test(a_new_origin_is_told),
        cmocka_unit_test(copies_behind_one_hub_part),
        cmocka_unit_test(copies_that_come_to_a_hub_at_once_part),
        cmocka_unit_test(copies_behind_two_hubs_part),
        cmocka_unit_test(a_reactor_that_was_started_again_is_no_copy),
        cmocka_unit_test(a_clock_that_jumped_a_year_heals_by_itself),
        cmocka_unit_test(what_is_dated_ahead_waits_in_sight_and_comes_when_it_is_time),
        cmocka_unit_test(who_is_asked_for_what_waits_says_until_when),
        cmocka_unit_test(any_number_of_ranges_may_wait_for_a_clock),
        cmocka_unit_test(clocks_that_jumped_together_heal_by_themselves),
        cmocka_unit_test(what_is_dated_ahead_keeps_nobody_else_waiting),
        cmocka_unit_test(a_document_of_the_future_is_created_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
