/* Retries: how long to wait. DESIGN.md, section 7: "exponential backoff with full jitter, base,
 * factor, cap and attempts from a retry policy". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "channel/retry.h"
#include "tests/draw.h"

/* An env whose randomness is a seeded generator, or always the largest. */
struct dice {
    tandem_env env;
    uint64_t state;
};

static void dice_bytes(tandem_env *env, void *out, size_t size)
{
    struct dice *dice = (struct dice *)env;
    uint8_t *at = out;

    while (size > 0) {
        uint64_t drawn = draw(&dice->state);
        size_t now = size < sizeof(drawn) ? size : sizeof(drawn);

        memcpy(at, &drawn, now);
        at += now;
        size -= now;
    }
}

static const struct tandem_env_ops dice_ops = {.random_bytes = dice_bytes};

static struct dice dice_of(uint64_t seed)
{
    return (struct dice){.env.ops = &dice_ops, .state = seed};
}

static td_retry retry_of(td_retry_policy policy)
{
    td_retry retry;

    td_retry_init(&retry, &policy);
    return retry;
}

static td_retry_policy usual(void)
{
    return (td_retry_policy){
        .base_ms = 100, .factor = 2, .cap_ms = 30000, .attempts_max = 20, .rest_ms = 60000};
}

/* The ceiling after n failures: min(cap, base * factor^(n-1)). */
static uint64_t ceiling_of(const td_retry_policy *policy, unsigned failures)
{
    uint64_t ms = policy->base_ms;

    for (unsigned i = 1; i < failures; i++)
        ms *= policy->factor;
    return ms < policy->cap_ms ? ms : policy->cap_ms;
}

static void each_delay_is_between_zero_and_its_ceiling(void **state)
{
    struct dice dice = dice_of(1);
    td_retry_policy policy = usual();

    for (unsigned round = 0; round < 2000; round++) {
        td_retry retry = retry_of(policy);

        for (unsigned failures = 1; failures < policy.attempts_max; failures++)
            assert_in_range(td_retry_failed(&retry, &dice.env, 0, 0), 0,
                            ceiling_of(&policy, failures));
    }
}

/* Full jitter: evenly spread from 0 to the ceiling, not around it, nor above a floor of its own. */
static void the_jitter_is_full(void **state)
{
    enum { BUCKETS = 8, DRAWS = 16000 };
    struct dice dice = dice_of(2);
    td_retry_policy policy = usual();

    for (unsigned failures = 1; failures < 12; failures++) {
        uint64_t ceiling = ceiling_of(&policy, failures), smallest = UINT64_MAX, largest = 0;
        unsigned seen[BUCKETS] = {0};

        for (unsigned i = 0; i < DRAWS; i++) {
            td_retry retry = retry_of(policy);
            uint64_t delay;

            retry.attempts = failures - 1;
            delay = td_retry_failed(&retry, &dice.env, 0, 0);
            seen[delay * BUCKETS / (ceiling + 1)]++;
            smallest = delay < smallest ? delay : smallest;
            largest = delay > largest ? delay : largest;
        }
        assert_in_range(smallest, 0, ceiling / 100);
        assert_in_range(largest, ceiling - ceiling / 100, ceiling);
        /* Six standard deviations; the seed is fixed. */
        for (unsigned k = 0; k < BUCKETS; k++)
            assert_in_range(seen[k], DRAWS / BUCKETS - 300, DRAWS / BUCKETS + 300);
    }
}

static void the_policy_is_spent_after_so_many_failures(void **state)
{
    struct dice dice = dice_of(3);
    td_retry retry = retry_of(usual());

    for (unsigned i = 0; i < 20; i++) {
        assert_false(td_retry_spent(&retry));
        td_retry_failed(&retry, &dice.env, 0, 0);
    }
    assert_true(td_retry_spent(&retry));
    td_retry_failed(&retry, &dice.env, 0, 0);
    assert_true(td_retry_spent(&retry));
}

/* "the remote then rests until […] its rest time passes: never forgotten" */
static void a_spent_policy_probes_once_a_rest_time(void **state)
{
    struct dice dice = dice_of(4);
    td_retry_policy policy = usual();
    td_retry retry = retry_of(policy);
    uint64_t smallest = UINT64_MAX, largest = 0;

    retry.attempts = policy.attempts_max;
    for (unsigned i = 0; i < 5000; i++) {
        uint64_t delay = td_retry_failed(&retry, &dice.env, 0, 0);

        smallest = delay < smallest ? delay : smallest;
        largest = delay > largest ? delay : largest;
    }
    assert_in_range(smallest, policy.rest_ms / 2, policy.rest_ms / 2 + 300);
    assert_in_range(largest, policy.rest_ms - 300, policy.rest_ms);
    assert_true(td_retry_spent(&retry));
}

static void a_success_begins_anew(void **state)
{
    struct dice dice = dice_of(5);
    td_retry retry = retry_of(usual());

    for (unsigned i = 0; i < 30; i++)
        td_retry_failed(&retry, &dice.env, 0, 0);
    td_retry_succeeded(&retry);
    assert_false(td_retry_spent(&retry));
    assert_in_range(td_retry_failed(&retry, &dice.env, 0, 0), 0, 100);
}

/* "`Retry-After` is a floor" */
static void what_the_peer_asked_for_is_a_floor(void **state)
{
    struct dice dice = dice_of(6);
    td_retry_policy policy = usual();
    td_retry retry = retry_of(policy);

    assert_int_equal(5000, td_retry_failed(&retry, &dice.env, 0, 5000));
    retry.attempts = policy.attempts_max;
    assert_int_equal(3600000, td_retry_failed(&retry, &dice.env, 0, 3600000));
    assert_in_range(td_retry_failed(&retry, &dice.env, 0, 1), policy.rest_ms / 2, policy.rest_ms);
}

/* "base, factor, cap, attempts, retry budget": a connection that is made and lost again and again. */
static void the_budget_bounds_attempts_that_succeed(void **state)
{
    struct dice dice = dice_of(8);
    td_retry_policy policy = usual();
    uint64_t now_ms = 1000000, begun_ms = now_ms;
    unsigned attempts = 0;
    td_retry retry;

    policy.budget = 30;
    retry = retry_of(policy);
    for (; now_ms < begun_ms + 10 * 60000; attempts++) {
        uint64_t delay;

        td_retry_attempted(&retry, now_ms);
        td_retry_succeeded(&retry);
        delay = td_retry_failed(&retry, &dice.env, now_ms, 0);
        if (attempts < policy.budget - 1)
            assert_in_range(delay, 0, policy.base_ms); /* all of a minute's may come at once */
        now_ms += delay;
    }
    assert_in_range(attempts, 300, 331);
    /* After a quiet minute there is all of it again. */
    now_ms += 60000;
    td_retry_attempted(&retry, now_ms);
    td_retry_succeeded(&retry);
    assert_in_range(td_retry_failed(&retry, &dice.env, now_ms, 0), 0, policy.base_ms);
}

static void a_policy_is_changed_under_way(void **state)
{
    struct dice dice = dice_of(9);
    td_retry_policy policy = usual();
    td_retry retry = retry_of(policy);

    td_retry_failed(&retry, &dice.env, 0, 0);
    td_retry_failed(&retry, &dice.env, 0, 0);
    policy.attempts_max = 2;
    td_retry_change(&retry, &policy);
    assert_true(td_retry_spent(&retry));
    policy.attempts_max = 3;
    td_retry_change(&retry, &policy);
    assert_false(td_retry_spent(&retry));
}

static void extreme_policies_neither_overflow_nor_spin(void **state)
{
    struct dice dice = dice_of(7);
    td_retry_policy steep = {.base_ms = UINT64_MAX / 4, .factor = UINT64_MAX / 2,
                             .cap_ms = UINT64_MAX / 2, .attempts_max = UINT32_MAX};
    td_retry_policy flat = {
        .base_ms = 10, .factor = 1, .cap_ms = 1000, .attempts_max = UINT32_MAX};
    td_retry_policy none = {.base_ms = 0, .factor = 2, .cap_ms = 1000, .attempts_max = UINT32_MAX};
    td_retry retry = retry_of(steep);
    uint64_t largest = 0;

    retry.attempts = 1;
    for (unsigned i = 0; i < 200; i++) {
        uint64_t delay = td_retry_failed(&retry, &dice.env, 0, 0);

        assert_true(delay <= steep.cap_ms);
        largest = delay > largest ? delay : largest;
    }
    assert_true(largest > steep.cap_ms / 10 * 9);
    retry = retry_of(flat);
    retry.attempts = UINT32_MAX - 5;
    assert_in_range(td_retry_failed(&retry, &dice.env, 0, 0), 0, 10);
    retry = retry_of(none);
    retry.attempts = UINT32_MAX - 5;
    assert_int_equal(0, td_retry_failed(&retry, &dice.env, 0, 0));
    /* The count stops at its end; it does not begin anew. */
    retry.attempts = UINT32_MAX;
    td_retry_failed(&retry, &dice.env, 0, 0);
    assert_true(td_retry_spent(&retry));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_delay_is_between_zero_and_its_ceiling),
        cmocka_unit_test(the_jitter_is_full),
        cmocka_unit_test(the_policy_is_spent_after_so_many_failures),
        cmocka_unit_test(a_spent_policy_probes_once_a_rest_time),
        cmocka_unit_test(a_success_begins_anew),
        cmocka_unit_test(what_the_peer_asked_for_is_a_floor),
        cmocka_unit_test(the_budget_bounds_attempts_that_succeed),
        cmocka_unit_test(a_policy_is_changed_under_way),
        cmocka_unit_test(extreme_policies_neither_overflow_nor_spin),
    };

    return cmocka_run_group_tests_name("retry", tests, NULL, NULL);
}
