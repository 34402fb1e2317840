/*
 * The scheduler: its rules one by one, and against fixed intervals on virtual days of traffic.
 *
 * staleness   of an operation, from when the peer had it to when it came; the mean over all
 * fixed       the interval that is the scheduler's budget, over the same link: it never makes fewer
 *             exchanges
 *
 * Links and traffic are simulated arrivals here, for days of them are wanted at ten exchanges a second;
 * tests/polling_test.c has real sessions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "channel/scheduler.h"
#include "traffic.h"

struct shape {
    const char *name;
    void (*next)(struct traffic *traffic);
    double trip_ms;      /* there and back, half and half … */
    double jitter_ms;    /* … and up to so much more */
    double operation_ms; /* for each operation, in the answer */
    unsigned days;
    double ratio_max;
};

static const struct shape shapes[] = {
    {"steady", steadily, 20, 10, 0, 1, 1.05},
    {"bursts", in_bursts, 20, 10, 0, 2, 0.8},
    {"idle nights", by_day, 20, 10, 0, 4, 0.8},
    {"slow link", steadily, 1500, 1500, 250, 1, 1.05},
    {"rare", rarely, 20, 10, 0, 2, 1.05},
};

struct outcome {
    uint64_t exchanges;
    uint64_t operations;
    double staleness_ms;
};

struct link {
    const struct shape *shape;
    struct traffic traffic, trips;
    struct outcome outcome;
};

static struct link link_of(const struct shape *shape)
{
    struct link link = {.shape = shape, .traffic = {.random = 7, .day_ms = DAY}, .trips = {.random = 9}};

    shape->next(&link.traffic);
    return link;
}

/* An exchange that begins then; returns when it ends, and how many operations it has brought. */
static double exchange(struct link *link, double begin_ms, uint64_t *operations_out)
{
    double trip_ms = link->shape->trip_ms + uniform(&link->trips, 0, link->shape->jitter_ms);
    double there_ms = begin_ms + trip_ms / 2, end_ms = begin_ms + trip_ms, written_ms = 0;
    uint64_t count = 0;

    while (link->traffic.at_ms <= there_ms) {
        written_ms += link->traffic.at_ms;
        count++;
        link->shape->next(&link->traffic);
    }
    end_ms += (double)count * link->shape->operation_ms;
    link->outcome.exchanges++;
    link->outcome.operations += count;
    link->outcome.staleness_ms += (double)count * end_ms - written_ms;
    *operations_out = count;
    return end_ms;
}

static struct outcome by_scheduler(const struct shape *shape, uint64_t mean_ms)
{
    td_poll_policy policy = {TD_POLL_ADAPTIVE, mean_ms};
    struct link link = link_of(shape);
    td_scheduler scheduler;
    td_poll_decision decision;
    uint64_t now_ms = 0;

    td_scheduler_init(&scheduler, &policy, 0);
    for (;;) {
        td_poll_news news = {.bytes = 0};
        double end_ms;

        td_scheduler_decide(&scheduler, 0, &decision);
        now_ms = decision.next_ms > now_ms ? decision.next_ms : now_ms;
        if (now_ms >= shape->days * (uint64_t)DAY)
            break;
        td_scheduler_began(&scheduler, now_ms);
        end_ms = exchange(&link, (double)now_ms, &news.operations);
        news.took_ms = (uint64_t)ceil(end_ms) - now_ms;
        news.bytes = news.operations * 200;
        now_ms += news.took_ms;
        td_scheduler_ended(&scheduler, now_ms, &news);
    }
    link.outcome.staleness_ms /= (double)link.outcome.operations;
    return link.outcome;
}

static struct outcome by_interval(const struct shape *shape, double interval_ms)
{
    struct link link = link_of(shape);
    double now_ms = 0, end_ms = 0;
    uint64_t operations;

    for (;;) {
        now_ms = now_ms + interval_ms > end_ms ? now_ms + interval_ms : end_ms;
        if (now_ms >= shape->days * (double)DAY)
            break;
        end_ms = exchange(&link, now_ms, &operations);
    }
    link.outcome.staleness_ms /= (double)link.outcome.operations;
    return link.outcome;
}

static void waits_less_than_a_fixed_interval_of_the_same_count(void **state)
{
    static const uint64_t means_ms[] = {100, 1000, 5000, 15000, 60000};
    unsigned failed = 0;

    (void)state;
    printf("%-12s %9s %11s %11s %13s %13s %6s\n", "traffic", "mean ms", "exchanges", "fixed's",
           "staleness ms", "fixed's ms", "ratio");
    for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (unsigned k = 0; k < sizeof(means_ms) / sizeof(means_ms[0]); k++) {
            const struct shape *shape = &shapes[i];
            struct outcome ours = by_scheduler(shape, means_ms[k]);
            struct outcome fixed = by_interval(shape, (double)means_ms[k]);
            double ratio = ours.staleness_ms / fixed.staleness_ms;
            bool good = ratio <= shape->ratio_max && ours.exchanges <= fixed.exchanges + 1;

            printf("%-12s %9" PRIu64 " %11" PRIu64 " %11" PRIu64 " %13.0f %13.0f %6.3f%s\n",
                   shape->name, means_ms[k], ours.exchanges, fixed.exchanges, ours.staleness_ms,
                   fixed.staleness_ms, ratio, good ? "" : "  !");
            failed += !good;
        }
    assert_int_equal(0, failed);
}

/* ---- Rules ---- */

static td_scheduler scheduler_of(td_poll_mode mode, uint64_t mean_ms)
{
    td_poll_policy policy = {mode, mean_ms};
    td_scheduler scheduler;

    td_scheduler_init(&scheduler, &policy, 0);
    return scheduler;
}

static td_poll_decision decision_of(const td_scheduler *scheduler, uint32_t load_permille)
{
    td_poll_decision decision;

    td_scheduler_decide(scheduler, load_permille, &decision);
    return decision;
}

/* One exchange when it is due, or later; it takes 20 ms. Returns when it has ended. */
static uint64_t poll(td_scheduler *scheduler, uint64_t from_ms, uint64_t operations)
{
    td_poll_news news = {.operations = operations, .bytes = operations * 200, .took_ms = 20};
    uint64_t at_ms = decision_of(scheduler, 0).next_ms;

    at_ms = at_ms > from_ms ? at_ms : from_ms;
    td_scheduler_began(scheduler, at_ms);
    td_scheduler_ended(scheduler, at_ms + 20, &news);
    return at_ms + 20;
}

/* So many bursts of sixty exchanges, with half an hour between two. */
static uint64_t live_with_bursts(td_scheduler *scheduler, uint64_t now_ms, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t until_ms = now_ms + 30 * MINUTE;

        for (unsigned k = 0; k < 60; k++)
            now_ms = poll(scheduler, now_ms, 20);
        while (now_ms < until_ms)
            now_ms = poll(scheduler, now_ms, 0);
    }
    return now_ms;
}

static void long_poll_decides_nothing(void **state)
{
    td_scheduler scheduler = scheduler_of(TD_POLL_LONG, 0);

    (void)state;
    assert_true(decision_of(&scheduler, 0).next_ms == UINT64_MAX);
}

static void a_fixed_interval_is_fixed(void **state)
{
    td_scheduler scheduler = scheduler_of(TD_POLL_FIXED, 3000);
    uint64_t now_ms = 0;

    (void)state;
    for (unsigned i = 1; i < 100; i++) {
        now_ms = poll(&scheduler, now_ms, i % 7 ? 0 : 100);
        assert_int_equal(3000 * i + 20, now_ms);
        td_scheduler_failed(&scheduler);
    }
    assert_int_equal(3000 * 100, decision_of(&scheduler, 900).next_ms);
    assert_int_equal(TD_POLL_BY_INTERVAL, decision_of(&scheduler, 900).reason);
}

static void even_traffic_is_polled_evenly(void **state)
{
    td_scheduler scheduler = scheduler_of(TD_POLL_ADAPTIVE, 3000);
    uint64_t now_ms = 0;

    (void)state;
    for (unsigned i = 1; i < 1000; i++) {
        now_ms = poll(&scheduler, now_ms, 5);
        assert_in_range(decision_of(&scheduler, 0).interval_ms, 2900, 3100);
    }
    assert_int_equal(TD_POLL_BY_EVEN, decision_of(&scheduler, 0).reason);
}

static void a_burst_speeds_it_up_and_quiet_slows_it_down(void **state)
{
    td_scheduler scheduler = scheduler_of(TD_POLL_ADAPTIVE, 10000);
    uint64_t now_ms = live_with_bursts(&scheduler, 0, 40);

    (void)state;
    assert_true(decision_of(&scheduler, 0).interval_ms > 10500);
    assert_int_equal(TD_POLL_BY_QUIET, decision_of(&scheduler, 0).reason);
    now_ms = poll(&scheduler, now_ms, 20);
    assert_int_equal(TD_POLL_BY_BURST, decision_of(&scheduler, 0).reason);
    assert_true(decision_of(&scheduler, 0).interval_ms < 5000);
    /* And with nothing more, slower again. */
    for (unsigned i = 0; i < 60; i++)
        now_ms = poll(&scheduler, now_ms, 0);
    assert_true(decision_of(&scheduler, 0).interval_ms > 10500);
}

static void nothing_is_spent_that_was_not_saved(void **state)
{
    td_scheduler scheduler = scheduler_of(TD_POLL_ADAPTIVE, 10000);
    uint64_t now_ms = live_with_bursts(&scheduler, 0, 20);
    uint64_t began_ms = now_ms;

    (void)state;
    assert_true(scheduler.exchanges <= now_ms / 10000);
    /* A burst without end: at first fast, and then at the pace of the budget. */
    while (scheduler.exchanges < 40000) {
        now_ms = poll(&scheduler, now_ms, 20);
        assert_true(scheduler.exchanges <= now_ms / 10000);
    }
    assert_true((now_ms - began_ms) / 10000 >= 39000 - began_ms / 10000);
    assert_in_range(decision_of(&scheduler, 0).interval_ms, 9500, 10500);
}

static void what_is_sent_makes_no_debt(void **state)
{
    td_scheduler scheduler = scheduler_of(TD_POLL_ADAPTIVE, 10000);
    td_poll_news news = {.operations = 0};
    uint64_t now_ms = 0;

    (void)state;
    for (; now_ms < 100000; now_ms += 100) {
        td_scheduler_began(&scheduler, now_ms);
        td_scheduler_ended(&scheduler, now_ms + 20, &news);
    }
    assert_true(decision_of(&scheduler, 0).next_ms <= now_ms + 12000);
}

static void a_full_answer_is_followed_at_once(void **state)
{
    td_scheduler scheduler = scheduler_of(TD_POLL_ADAPTIVE, 10000);
    td_poll_news full = {.operations = 1000, .bytes = 300000, .took_ms = 20, .more = true};
    uint64_t now_ms = poll(&scheduler, 0, 0);

    (void)state;
    for (unsigned i = 0; i < 1000; i++, now_ms += 30) {
        td_scheduler_began(&scheduler, now_ms);
        td_scheduler_ended(&scheduler, now_ms + 20, &full);
        assert_int_equal(now_ms + 20, decision_of(&scheduler, 0).next_ms);
        assert_int_equal(TD_POLL_BY_MORE, decision_of(&scheduler, 0).reason);
        /* But not into an inbox without room. */
        assert_true(decision_of(&scheduler, 1000).next_ms > now_ms + 20);
    }
}

/* A million at once out of the quiet: the quiet is to be no richer than the bursts by that. */
static void one_flood_does_not_stand_for_what_usually_comes(void **state)
{
    td_scheduler scheduler = scheduler_of(TD_POLL_ADAPTIVE, 10000);
    uint64_t now_ms = live_with_bursts(&scheduler, 0, 40);

    (void)state;
    now_ms = poll(&scheduler, now_ms, 1000000);
    now_ms = live_with_bursts(&scheduler, now_ms, 2);
    assert_true(decision_of(&scheduler, 0).interval_ms > 10500);
    now_ms = poll(&scheduler, now_ms, 20);
    assert_true(decision_of(&scheduler, 0).interval_ms < 5000);
}

static void it_is_slower_in_trouble_and_under_load(void **state)
{
    td_scheduler scheduler = scheduler_of(TD_POLL_ADAPTIVE, 10000);
    uint64_t now_ms = 0;

    (void)state;
    for (unsigned i = 0; i < 100; i++)
        now_ms = poll(&scheduler, now_ms, 1);
    assert_in_range(decision_of(&scheduler, 500).interval_ms, 18000, 22000);
    assert_int_equal(TD_POLL_BY_LOAD, decision_of(&scheduler, 500).reason);
    assert_int_equal(80000, decision_of(&scheduler, 1000).interval_ms);
    td_scheduler_failed(&scheduler);
    td_scheduler_failed(&scheduler);
    assert_in_range(decision_of(&scheduler, 0).interval_ms, 36000, 44000);
    assert_int_equal(TD_POLL_BY_TROUBLE, decision_of(&scheduler, 0).reason);
    now_ms = poll(&scheduler, now_ms, 1);
    now_ms = poll(&scheduler, now_ms, 1);
    assert_in_range(decision_of(&scheduler, 0).interval_ms, 7000, 11000);
}

static void it_stays_within_its_bounds(void **state)
{
    static const uint64_t means_ms[] = {TD_POLL_MEAN_MS_MIN, 3000, 60000, TD_POLL_MEAN_MS_MAX};
    uint64_t random = 5;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        td_scheduler scheduler = scheduler_of(TD_POLL_ADAPTIVE, means_ms[i]);
        uint64_t low_ms = means_ms[i] / 8 < 10 ? 10 : means_ms[i] / 8, now_ms = 0;

        for (unsigned k = 0; k < 5000; k++) {
            uint32_t load = draw(&random) % 5 ? 0 : (uint32_t)(draw(&random) % 1001);
            td_poll_decision decision = decision_of(&scheduler, load);

            assert_true(decision.interval_ms >= low_ms);
            assert_true(decision.interval_ms <= td_poll_interval_ms_max(&scheduler.policy));
            if (draw(&random) % 50 == 0)
                td_scheduler_failed(&scheduler);
            now_ms = poll(&scheduler, now_ms, k / 100 % 2 ? 0 : draw(&random) % 1000);
        }
    }
}

static void another_policy_begins_without_savings(void **state)
{
    td_scheduler scheduler = scheduler_of(TD_POLL_ADAPTIVE, 10000);
    td_poll_policy policy = {TD_POLL_ADAPTIVE, 20000};
    uint64_t now_ms = live_with_bursts(&scheduler, 0, 40);

    (void)state;
    td_scheduler_change(&scheduler, &policy, now_ms);
    assert_true(decision_of(&scheduler, 0).next_ms >= now_ms + 19000);
    now_ms = poll(&scheduler, now_ms, 20);
    assert_int_equal(TD_POLL_BY_BUDGET, decision_of(&scheduler, 0).reason); /* it is known: a burst */
}

static void every_reason_has_words(void **state)
{
    (void)state;
    for (unsigned i = 0; i < TD_POLL_REASONS; i++) {
        assert_non_null(td_poll_reason_name((td_poll_reason)i));
        assert_non_null(td_poll_reason_text((td_poll_reason)i));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_poll_decides_nothing),
        cmocka_unit_test(a_fixed_interval_is_fixed),
        cmocka_unit_test(even_traffic_is_polled_evenly),
        cmocka_unit_test(a_burst_speeds_it_up_and_quiet_slows_it_down),
        cmocka_unit_test(nothing_is_spent_that_was_not_saved),
        cmocka_unit_test(what_is_sent_makes_no_debt),
        cmocka_unit_test(a_full_answer_is_followed_at_once),
        cmocka_unit_test(one_flood_does_not_stand_for_what_usually_comes),
        cmocka_unit_test(it_is_slower_in_trouble_and_under_load),
        cmocka_unit_test(it_stays_within_its_bounds),
        cmocka_unit_test(another_policy_begins_without_savings),
        cmocka_unit_test(every_reason_has_words),
        cmocka_unit_test(waits_less_than_a_fixed_interval_of_the_same_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
