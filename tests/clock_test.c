/* The hybrid logical clock: it never goes back, whatever the wall clock does. */
#include "reactor/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

struct wall {
    tandem_env env;
    uint64_t random;
    _Atomic uint64_t ms;
};

static uint64_t wall_ms(tandem_env *env)
{
    return atomic_load(&((struct wall *)env)->ms);
}

static uint64_t monotonic_us(tandem_env *env)
{
    return 0;
}

static void random_bytes(tandem_env *env, void *out, size_t size)
{
    memcpy(out, &((struct wall *)env)->random, size);
}

static const struct tandem_env_ops wall_ops = {wall_ms, monotonic_us, random_bytes};

static void wall_init(struct wall *wall, uint64_t ms)
{
    *wall = (struct wall){.env.ops = &wall_ops};
    atomic_store(&wall->ms, ms);
}

static void ticks_follow_the_wall_clock_and_count_within_a_millisecond(void **state)
{
    struct wall wall;
    td_clock clock;

    wall_init(&wall, 1000);
    td_clock_init(&clock, &wall.env, 0);
    assert_int_equal(td_hlc_of_ms(1000) + 1, td_clock_tick(&clock));
    assert_int_equal(td_hlc_of_ms(1000) + 2, td_clock_tick(&clock));
    wall.ms = 1001;
    assert_int_equal(td_hlc_of_ms(1001) + 1, td_clock_tick(&clock));
    assert_int_equal(1001, td_hlc_ms(td_clock_read(&clock)));
}

static void a_full_counter_carries_into_the_milliseconds(void **state)
{
    const uint64_t counters = UINT64_C(1) << TD_HLC_COUNTER_BITS;
    struct wall wall;
    td_clock clock;
    uint64_t before = 0;

    wall_init(&wall, 1000);
    td_clock_init(&clock, &wall.env, 0);
    for (uint64_t i = 1; i < counters; i++) {
        uint64_t hlc = td_clock_tick(&clock);

        assert_true(hlc > before);
        before = hlc;
    }
    assert_int_equal(1000, td_hlc_ms(before));
    assert_int_equal(td_hlc_of_ms(1001), td_clock_tick(&clock));
    assert_int_equal(td_hlc_of_ms(1001) + 1, td_clock_tick(&clock));
}

static void it_moves_past_what_it_observes(void **state)
{
    struct wall wall;
    td_clock clock;

    wall_init(&wall, 1000);
    td_clock_init(&clock, &wall.env, 0);
    td_clock_observe(&clock, td_hlc_of_ms(5000) + 7);
    assert_int_equal(td_hlc_of_ms(5000) + 7, td_clock_read(&clock));
    assert_int_equal(td_hlc_of_ms(5000) + 8, td_clock_tick(&clock));
    td_clock_observe(&clock, td_hlc_of_ms(3000)); /* the past moves nothing */
    assert_int_equal(td_hlc_of_ms(5000) + 9, td_clock_tick(&clock));
    wall.ms = 6000;
    assert_int_equal(td_hlc_of_ms(6000) + 1, td_clock_tick(&clock));
}

static void it_begins_behind_its_high_water(void **state)
{
    struct wall wall;
    td_clock clock;

    wall_init(&wall, 1000);
    td_clock_init(&clock, &wall.env, td_hlc_of_ms(9000));
    assert_int_equal(td_hlc_of_ms(9000) + 1, td_clock_tick(&clock));
}

static void a_wall_clock_that_steps_back_does_not_take_it_along(void **state)
{
    struct wall wall;
    td_clock clock;
    uint64_t ticked, promised;

    wall_init(&wall, 10000);
    td_clock_init(&clock, &wall.env, 0);
    ticked = td_clock_tick(&clock);
    wall.ms = 4000;
    assert_int_equal(ticked, td_clock_read(&clock));
    assert_int_equal(ticked + 1, td_clock_tick(&clock));
    /* What was read is a promise to peers: "nothing from me at or below that". */
    wall.ms = 20000;
    promised = td_clock_read(&clock);
    assert_int_equal(td_hlc_of_ms(20000), promised);
    wall.ms = 4000;
    assert_int_equal(promised, td_clock_read(&clock));
    assert_true(td_clock_tick(&clock) > promised);
}

static void lives_that_begin_alike_differ_in_their_first_number(void **state)
{
    const uint64_t high_water = td_hlc_of_ms(9000);
    struct wall wall, copy;
    td_clock a, b;

    wall_init(&wall, 1000);
    wall_init(&copy, 1000);
    copy.random = 77;
    td_clock_init(&a, &wall.env, high_water);
    td_clock_init(&b, &copy.env, high_water);
    assert_int_equal(high_water + 1, td_clock_tick(&a));
    assert_int_equal(high_water + 78, td_clock_tick(&b));
    assert_int_equal(high_water + 79, td_clock_tick(&b)); /* once */
    wall.ms = copy.ms = 20000;
    td_clock_init(&b, &copy.env, high_water);
    assert_int_equal(td_hlc_of_ms(20000) + 1, td_clock_tick(&a));
    assert_int_equal(td_hlc_of_ms(20000) + 78, td_clock_tick(&b));
}

enum { RACE_TICKS = 20000 };

struct race {
    struct wall wall;
    td_clock clock;
    atomic_bool over;
};

/* What peers are promised by another thread while the executor ticks and the wall clock jumps. */
static void *race_reader(void *context)
{
    struct race *race = context;
    uint64_t before = 0;

    while (!atomic_load(&race->over)) {
        uint64_t now = td_clock_read(&race->clock);

        if (now < before)
            return race;
        before = now;
    }
    return NULL;
}

static void reading_races_with_ticking(void **state)
{
    static struct race race;
    uint64_t before = 0;
    pthread_t reader;
    void *failed;

    wall_init(&race.wall, 1000);
    td_clock_init(&race.clock, &race.wall.env, 0);
    assert_int_equal(0, pthread_create(&reader, NULL, race_reader, &race));
    for (uint64_t i = 0; i < RACE_TICKS; i++) {
        uint64_t hlc, read;

        atomic_store(&race.wall.ms, i % 3 == 0 ? 500 : 1000 + i);
        read = td_clock_read(&race.clock);
        hlc = td_clock_tick(&race.clock);
        assert_true(hlc > before && hlc > read);
        before = hlc;
    }
    atomic_store(&race.over, true);
    pthread_join(reader, &failed);
    assert_null(failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ticks_follow_the_wall_clock_and_count_within_a_millisecond),
        cmocka_unit_test(a_full_counter_carries_into_the_milliseconds),
        cmocka_unit_test(it_moves_past_what_it_observes),
        cmocka_unit_test(lives_that_begin_alike_differ_in_their_first_number),
        cmocka_unit_test(it_begins_behind_its_high_water),
        cmocka_unit_test(a_wall_clock_that_steps_back_does_not_take_it_along),
        cmocka_unit_test(reading_races_with_ticking),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
