/*
 * Real sessions that are polled: two reactors of the harness on virtual time, one of which writes as
 * tests/traffic.h says while the other has it as its remote over exchanges, as over HTTP. First what
 * a user sees, then the table of scheduler_test.c, which has days of it, for some hours.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sync/harness.h"
#include "traffic.h"

/* "reader" polls "writer". */
struct pair {
    tandem_harness *harness;
    tandem_subscription *subscription;
    uint64_t first;    /* operations that the reader holds from the beginning */
    double *written;   /* when, from then on */
    uint64_t count, capacity;
    uint64_t arrived;
    double staleness_ms; /* of those that have, the sum */
};

static void write_one(struct pair *pair, const char *name)
{
    tandem_input input = {.type = "kv.SET", .json = "{\"a\":1}"};
    tandem_job job = {
        .collection = "notes", .document = "d", .operations = &input, .count = 1};

    assert_int_equal(TANDEM_OK, tandem_execute(tandem_harness_reactor(pair->harness, name), &job,
                                               NULL, NULL));
}

static double now_ms(const struct pair *pair)
{
    return (double)tandem_harness_now_ms(pair->harness);
}

static void on_arrival(void *context, uint64_t position)
{
    struct pair *pair = context;

    for (; pair->first + pair->arrived < position && pair->arrived < pair->count; pair->arrived++)
        pair->staleness_ms += now_ms(pair) - pair->written[pair->arrived];
}

static uint64_t position_of(struct pair *pair, const char *name)
{
    uint64_t position;

    assert_int_equal(TANDEM_OK,
                     tandem_position(tandem_harness_reactor(pair->harness, name), &position));
    return position;
}

static struct pair *pair_open(tandem_poll_mode mode, uint64_t mean_ms, uint32_t trip_ms)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    tandem_harness_faults faults = {.latency_ms_min = trip_ms / 2, .latency_ms_max = trip_ms / 2};
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    char why[256];

    options.seed = 3;
    assert_int_equal(TANDEM_OK, tandem_harness_open(&options, &pair->harness));
    assert_int_equal(TANDEM_OK, tandem_harness_add(pair->harness, "writer", 0));
    assert_int_equal(TANDEM_OK, tandem_harness_add(pair->harness, "reader", 0));
    tandem_harness_set_faults(pair->harness, &faults);
    write_one(pair, "writer");
    assert_int_equal(TANDEM_OK, tandem_harness_connect_http(pair->harness, "reader", "writer"));
    assert_int_equal(TANDEM_OK,
                     tandem_remote_set_poll(tandem_harness_sync(pair->harness, "reader"), "writer",
                                            mode, mean_ms));
    assert_int_equal(TANDEM_OK,
                     tandem_harness_run_until_converged(pair->harness, 120000, why));
    pair->first = position_of(pair, "reader");
    assert_int_equal(TANDEM_OK,
                     tandem_subscribe(tandem_harness_reactor(pair->harness, "reader"), on_arrival,
                                      pair, &pair->subscription));
    return pair;
}

static void pair_free(struct pair *pair)
{
    tandem_unsubscribe(pair->subscription);
    tandem_harness_free(pair->harness);
    free(pair->written);
    free(pair);
}

static void run_until(struct pair *pair, double at_ms)
{
    if (at_ms > now_ms(pair))
        tandem_harness_run(pair->harness, (uint64_t)(at_ms - now_ms(pair)));
}

static void write_and_note(struct pair *pair)
{
    if (pair->count == pair->capacity) {
        pair->capacity = pair->capacity ? 2 * pair->capacity : 1024;
        pair->written = realloc(pair->written, pair->capacity * sizeof(*pair->written));
        assert_non_null(pair->written);
    }
    pair->written[pair->count++] = now_ms(pair);
    write_one(pair, "writer");
}

static tandem_err find_writer(void *context, const tandem_remote_status *status)
{
    if (!status->name)
        return TANDEM_OK;
    *(tandem_remote_status *)context = *status;
    return TANDEM_END;
}

static tandem_remote_status status_of(struct pair *pair)
{
    tandem_remote_status status;

    memset(&status, 0, sizeof(status));
    assert_int_equal(TANDEM_OK, tandem_remotes(tandem_harness_sync(pair->harness, "reader"),
                                               find_writer, &status));
    return status;
}

/* ---- What a user sees ---- */

static void what_comes_waits_for_the_next_request(void **state)
{
    struct pair *pair = pair_open(TANDEM_POLL_INTERVAL, 5000, 20);
    uint64_t next_at_ms, before = status_of(pair).poll.exchanges;

    (void)state;
    assert_int_equal(5000, status_of(pair).poll.interval_ms);
    assert_string_equal("interval", status_of(pair).poll.reason);
    for (unsigned i = 0; i < 20; i++) {
        run_until(pair, now_ms(pair) + 1700);
        write_and_note(pair);
    }
    run_until(pair, now_ms(pair) + 5100);
    assert_int_equal(pair->count, pair->arrived);
    assert_in_range((uint64_t)pair->staleness_ms / pair->count, 1500, 3500);
    assert_in_range(status_of(pair).poll.exchanges - before, 6, 9);
    next_at_ms = status_of(pair).poll.next_at_ms;
    run_until(pair, now_ms(pair) + 5000);
    assert_int_equal(next_at_ms + 5000, status_of(pair).poll.next_at_ms);
    assert_int_equal(TANDEM_REMOTE_IN_STEP, status_of(pair).state);
    pair_free(pair);
}

static void what_is_written_here_goes_at_once(void **state)
{
    struct pair *pair = pair_open(TANDEM_POLL_INTERVAL, 60000, 20);

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        uint64_t exchanges = status_of(pair).poll.exchanges;

        run_until(pair, now_ms(pair) + 2000);
        write_one(pair, "reader");
        run_until(pair, now_ms(pair) + 200);
        assert_int_equal(position_of(pair, "reader"), position_of(pair, "writer"));
        /* And so does the answer: nothing is in flight until the next request. */
        assert_int_equal(0, status_of(pair).outbox);
        assert_true(status_of(pair).poll.exchanges - exchanges <= 2);
    }
    pair_free(pair);
}

/* Also if the answer that was to bring it had something else to bring. */
static void what_was_sent_is_acknowledged_soon(void **state)
{
    struct pair *pair = pair_open(TANDEM_POLL_INTERVAL, 600000, 20);

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        run_until(pair, now_ms(pair) + 2000);
        write_and_note(pair);
        write_one(pair, "reader");
        run_until(pair, now_ms(pair) + 500);
        assert_int_equal(position_of(pair, "reader"), position_of(pair, "writer"));
        assert_int_equal(0, status_of(pair).outbox);
        assert_int_equal(TANDEM_REMOTE_IN_STEP, status_of(pair).state);
    }
    pair_free(pair);
}

static void a_poke_asks_now(void **state)
{
    struct pair *pair = pair_open(TANDEM_POLL_INTERVAL, 600000, 20);

    (void)state;
    run_until(pair, now_ms(pair) + 60000);
    write_and_note(pair);
    run_until(pair, now_ms(pair) + 60000);
    assert_int_equal(0, pair->arrived);
    assert_int_equal(TANDEM_OK,
                     tandem_remote_poke(tandem_harness_sync(pair->harness, "reader"), "writer"));
    run_until(pair, now_ms(pair) + 200);
    assert_int_equal(1, pair->arrived);
    pair_free(pair);
}

/* Ten minutes apart, and the same session all day: silence is counted from the end of a pause. */
static void a_long_pause_is_not_taken_for_death(void **state)
{
    struct pair *pair = pair_open(TANDEM_POLL_INTERVAL, 600000, 20);
    uint64_t since_ms = status_of(pair).since_ms;

    (void)state;
    run_until(pair, now_ms(pair) + (double)DAY);
    assert_int_equal(TANDEM_REMOTE_IN_STEP, status_of(pair).state);
    assert_int_equal(since_ms, status_of(pair).since_ms);
    pair_free(pair);
}

static void long_poll_and_back(void **state)
{
    struct pair *pair = pair_open(TANDEM_POLL_LONG, 0, 20);
    tandem_sync *sync = tandem_harness_sync(pair->harness, "reader");

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        uint64_t arrived = pair->arrived;

        /* The last long poll is answered once more, after twenty seconds at most. */
        run_until(pair, now_ms(pair) + 21000);
        for (uint64_t exchanges = status_of(pair).poll.exchanges;
             i % 2 && status_of(pair).poll.exchanges == exchanges;) /* right behind a request */
            run_until(pair, now_ms(pair) + 100);
        write_and_note(pair);
        run_until(pair, now_ms(pair) + 100);
        assert_int_equal(arrived + (i % 2 ? 0 : 1), pair->arrived);
        run_until(pair, now_ms(pair) + 20000);
        assert_int_equal(arrived + 1, pair->arrived);
        assert_int_equal(i % 2 ? 15000 : 0, status_of(pair).poll.interval_ms);
        assert_int_equal(TANDEM_OK,
                         tandem_remote_set_poll(sync, "writer", i % 2 ? TANDEM_POLL_LONG
                                                                      : TANDEM_POLL_INTERVAL,
                                                15000));
    }
    pair_free(pair);
}

static void how_it_is_polled_outlives_a_restart(void **state)
{
    struct pair *pair = pair_open(TANDEM_POLL_ADAPTIVE, 7000, 20);
    tandem_sync *sync = tandem_harness_sync(pair->harness, "reader");

    (void)state;
    assert_int_equal(TANDEM_E_INVALID,
                     tandem_remote_set_poll(sync, "writer", TANDEM_POLL_INTERVAL, 99));
    assert_int_equal(TANDEM_E_INVALID,
                     tandem_remote_set_poll(sync, "writer", TANDEM_POLL_ADAPTIVE, 600001));
    assert_int_equal(TANDEM_E_INVALID,
                     tandem_remote_set_poll(sync, "writer", (tandem_poll_mode)3, 0));
    assert_int_equal(TANDEM_E_NOT_FOUND,
                     tandem_remote_set_poll(sync, "nobody", TANDEM_POLL_INTERVAL, 0));
    tandem_unsubscribe(pair->subscription);
    pair->subscription = NULL;
    assert_int_equal(TANDEM_OK, tandem_harness_crash(pair->harness, "reader"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(pair->harness, "reader"));
    run_until(pair, now_ms(pair) + 1000);
    assert_int_equal(TANDEM_POLL_ADAPTIVE, status_of(pair).poll.mode);
    assert_int_equal(7000, status_of(pair).poll.mean_ms);
    assert_string_equal("adaptive", tandem_poll_mode_name(TANDEM_POLL_ADAPTIVE));
    pair_free(pair);
}

/* A backlog is not fetched at one answer an interval. */
static void a_backlog_is_fetched_at_once(void **state)
{
    struct pair *pair = pair_open(TANDEM_POLL_INTERVAL, 60000, 20);
    static char json[20000];
    tandem_input input = {.type = "kv.SET", .json = json};
    tandem_job job = {
        .collection = "notes", .document = "d", .operations = &input, .count = 1};

    (void)state;
    snprintf(json, sizeof(json), "{\"a\":\"%0*d\"}", 19000, 7);
    run_until(pair, now_ms(pair) + 1000);
    for (unsigned i = 0; i < 1000; i++) /* 19 MB: more than a window */
        assert_int_equal(TANDEM_OK, tandem_execute(tandem_harness_reactor(pair->harness, "writer"),
                                                   &job, NULL, NULL));
    run_until(pair, now_ms(pair) + 60000 + 20000);
    assert_int_equal(position_of(pair, "writer"), position_of(pair, "reader"));
    pair_free(pair);
}

/* ---- The table ---- */

struct shape {
    const char *name;
    void (*next)(struct traffic *traffic);
    uint32_t trip_ms;
    double hours[2]; /* at each budget */
    double ratio_max;
};

static const struct shape shapes[] = {
    {"steady", steadily, 20, {1, 5}, 1.05},
    {"bursts", in_bursts, 20, {1, 5}, 0.8},
    {"idle nights", by_day, 20, {6, 12}, 0.8}, /* four short days and nights */
    {"slow link", steadily, 2400, {1, 5}, 1.05},
};

static const uint64_t budgets_ms[2] = {500, 10000};

struct outcome {
    uint64_t exchanges, operations;
    double staleness_ms;
};

static struct outcome live(const struct shape *shape, tandem_poll_mode mode, uint64_t mean_ms,
                           double duration_ms)
{
    struct pair *pair = pair_open(mode, mean_ms, shape->trip_ms);
    struct traffic traffic = {.random = 7, .day_ms = duration_ms / 4};
    uint64_t before = status_of(pair).poll.exchanges;
    double begin_ms = now_ms(pair);
    struct outcome outcome;

    for (shape->next(&traffic); traffic.at_ms < duration_ms; shape->next(&traffic)) {
        run_until(pair, begin_ms + traffic.at_ms);
        write_and_note(pair);
    }
    run_until(pair, begin_ms + duration_ms);
    outcome = (struct outcome){
        .exchanges = status_of(pair).poll.exchanges - before,
        .operations = pair->arrived,
        .staleness_ms = pair->staleness_ms / (double)pair->arrived,
    };
    assert_true(pair->arrived + 1000 > pair->count);
    pair_free(pair);
    return outcome;
}

static void waits_less_than_a_fixed_interval_of_the_same_count(void **state)
{
    unsigned failed = 0;

    (void)state;
    printf("%-12s %9s %11s %11s %13s %13s %6s\n", "traffic", "mean ms", "exchanges", "fixed's",
           "staleness ms", "fixed's ms", "ratio");
    for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (unsigned k = 0; k < 2; k++) {
            double duration_ms = shapes[i].hours[k] * HOUR;
            struct outcome ours = live(&shapes[i], TANDEM_POLL_ADAPTIVE, budgets_ms[k],
                                       duration_ms);
            struct outcome fixed = live(&shapes[i], TANDEM_POLL_INTERVAL, budgets_ms[k],
                                        duration_ms);
            double ratio = ours.staleness_ms / fixed.staleness_ms;
            bool good = ratio <= shapes[i].ratio_max && ours.exchanges <= fixed.exchanges + 1;

            printf("%-12s %9" PRIu64 " %11" PRIu64 " %11" PRIu64 " %13.0f %13.0f %6.3f%s\n",
                   shapes[i].name, budgets_ms[k], ours.exchanges, fixed.exchanges,
                   ours.staleness_ms, fixed.staleness_ms, ratio, good ? "" : "  !");
            failed += !good;
        }
    assert_int_equal(0, failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_waits_for_the_next_request),
        cmocka_unit_test(what_is_written_here_goes_at_once),
        cmocka_unit_test(what_was_sent_is_acknowledged_soon),
        cmocka_unit_test(a_poke_asks_now),
        cmocka_unit_test(a_long_pause_is_not_taken_for_death),
        cmocka_unit_test(long_poll_and_back),
        cmocka_unit_test(how_it_is_polled_outlives_a_restart),
        cmocka_unit_test(a_backlog_is_fetched_at_once),
        cmocka_unit_test(waits_less_than_a_fixed_interval_of_the_same_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
