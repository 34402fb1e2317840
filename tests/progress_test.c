/* Progress of a peer, looked at by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sync/progress.h"

static void nothing_to_do_is_no_way(void **state)
{
    td_progress progress = {0};

    (void)state;
    td_progress_look(&progress, 1000, 500, 9000, 0);
    assert_int_equal(0, progress.total);
    assert_int_equal(0, td_progress_left_ms(&progress));
}

static void a_way_ends_at_exactly_all_of_it(void **state)
{
    td_progress progress = {0};

    (void)state;
    /* 500 were exchanged before; 1,000 are to go, at 100 a second. */
    td_progress_look(&progress, 1000, 500, 9000, 0);
    for (uint64_t i = 0; i <= 10; i++) {
        td_progress_look(&progress, 1000 + i * 1000, 500 + i * 100, 9000 + i * 800, 1000 - i * 100);
        assert_int_equal(1000, progress.total);
        assert_int_equal(i * 100, progress.applied);
        assert_int_equal(i * 800, progress.bytes);
        if (i > 0) {
            assert_true(progress.rate > 99.9 && progress.rate < 100.1);
            assert_in_range(td_progress_left_ms(&progress), (10 - i) * 1000 - (i < 10),
                            (10 - i) * 1000);
        }
    }
    assert_false(progress.active);
    /* It stays to be looked at, and the next one begins anew. */
    td_progress_look(&progress, 99000, 1500, 17000, 0);
    assert_int_equal(1000, progress.total);
    td_progress_look(&progress, 100000, 1503, 17000, 7); /* three were quicker than the look */
    assert_int_equal(10, progress.total);
    assert_int_equal(3, progress.applied);
    assert_int_equal(7 * 1000 / 3, td_progress_left_ms(&progress));
    td_progress_look(&progress, 100000, 1510, 17000, 0);
    td_progress_look(&progress, 100001, 1510, 17000, 5);
    assert_true(td_progress_left_ms(&progress) == UINT64_MAX);
}

static void what_others_deliver_is_no_longer_to_do(void **state)
{
    td_progress progress = {0};

    (void)state;
    td_progress_look(&progress, 0, 0, 0, 100);
    td_progress_look(&progress, 1000, 10, 80, 40); /* 50 came from somebody else */
    assert_int_equal(50, progress.total);
    td_progress_look(&progress, 2000, 20, 160, 60); /* 30 were written meanwhile */
    assert_int_equal(80, progress.total);
    td_progress_look(&progress, 3000, 80, 640, 0);
    assert_int_equal(80, progress.total);
    assert_int_equal(80, progress.applied);
}

static void the_rate_follows_and_a_look_too_soon_does_not_shake_it(void **state)
{
    td_progress progress = {0};
    uint64_t now_ms = 0, applied = 0;
    double before;

    (void)state;
    td_progress_look(&progress, now_ms, 0, 0, 100000);
    for (unsigned i = 0; i < 10; i++) {
        applied += 1000;
        td_progress_look(&progress, now_ms += 1000, applied, 0, 100000 - applied);
    }
    before = progress.rate;
    assert_true(before > 999 && before < 1001);
    td_progress_look(&progress, now_ms + 1, applied + 500, 0, 100000 - applied - 500);
    assert_true(progress.rate == before);
    for (unsigned i = 0; i < 10; i++) /* it has come to a stand */
        td_progress_look(&progress, now_ms += 1000, applied + 500, 0, 100000 - applied - 500);
    assert_true(progress.rate < 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_to_do_is_no_way),
        cmocka_unit_test(a_way_ends_at_exactly_all_of_it),
        cmocka_unit_test(what_others_deliver_is_no_longer_to_do),
        cmocka_unit_test(the_rate_follows_and_a_look_too_soon_does_not_shake_it),
    };

    return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}
