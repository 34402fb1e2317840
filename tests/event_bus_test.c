/* The event bus: positions replace each other, unsubscribing is final, calls run in order. */
#include "reactor/event_bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reactor/runtime.h"

/* ---- On the simulation: what is told, and when ---- */

struct bed {
    td_simulation *simulation;
    td_runtime *runtime;
    td_host *loop;
    td_event_bus *bus;
};

static int bed_open(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_non_null(bed);
    assert_int_equal(TANDEM_OK, td_simulation_open(1, &bed->simulation));
    assert_int_equal(TANDEM_OK, td_simulation_runtime(bed->simulation, "a", 0, &bed->runtime));
    assert_int_equal(TANDEM_OK, td_host_open(bed->runtime, TD_HOST_LOOP, "loop", &bed->loop));
    assert_int_equal(TANDEM_OK, td_event_bus_open(bed->loop, &bed->bus));
    *state = bed;
    return 0;
}

static int bed_free(void **state)
{
    struct bed *bed = *state;

    td_host_stop(bed->loop);
    td_event_bus_free(bed->bus);
    td_host_free(bed->loop);
    td_runtime_free(bed->runtime);
    td_simulation_free(bed->simulation);
    free(bed);
    return 0;
}

struct listener {
    td_event_bus *bus;
    td_subscription *own, *other;
    struct listener *late;
    unsigned told;
    uint64_t position;
    bool once;
};

static void listen(struct listener *listener, td_event_bus *bus);

static void told(void *context, uint64_t position)
{
    struct listener *listener = context;

    assert_true(position > listener->position);
    listener->position = position;
    listener->told++;
    if (listener->once) {
        td_event_bus_unsubscribe(listener->own);
        td_event_bus_unsubscribe(listener->other);
        listener->other = NULL;
    }
    if (listener->late) {
        listen(listener->late, listener->bus);
        listener->late = NULL;
    }
}

static void listen(struct listener *listener, td_event_bus *bus)
{
    td_subscriber to = {.committed = told, .context = listener};

    listener->bus = bus;
    assert_int_equal(TANDEM_OK, td_event_bus_subscribe(bus, &to, &listener->own));
}

static void commit(struct bed *bed, uint64_t position)
{
    td_event_bus_committed(bed->bus, position);
}

static void settle(struct bed *bed)
{
    td_simulation_run(bed->simulation, 1000);
}

static void newer_positions_replace_older_ones(void **state)
{
    struct bed *bed = *state;
    struct listener a = {0}, b = {0};

    listen(&a, bed->bus);
    listen(&b, bed->bus);
    for (uint64_t position = 1; position <= 1000; position++)
        commit(bed, position);
    assert_int_equal(0, a.told); /* not in the committer's call */
    settle(bed);
    assert_int_equal(1, a.told);
    assert_int_equal(1000, a.position);
    assert_int_equal(1, b.told);
    commit(bed, 1001);
    settle(bed);
    assert_int_equal(2, a.told);
    assert_int_equal(1001, b.position);
    commit(bed, 1001); /* no news */
    settle(bed);
    assert_int_equal(2, a.told);
    td_event_bus_unsubscribe(a.own);
    commit(bed, 1002);
    settle(bed);
    assert_int_equal(2, a.told);
    assert_int_equal(3, b.told);
}

static void unsubscribing_from_inside_ends_at_once(void **state)
{
    struct bed *bed = *state;
    /* The newest is told first; the one that leaves takes one with it whose turn is to come, and
     * one that was told already. */
    struct listener told_after = {0}, leaver = {.once = true}, told_before = {0};

    listen(&told_after, bed->bus);
    listen(&leaver, bed->bus);
    listen(&told_before, bed->bus);
    leaver.other = told_after.own;
    commit(bed, 5);
    settle(bed);
    assert_int_equal(1, leaver.told);
    assert_int_equal(0, told_after.told);
    assert_int_equal(1, told_before.told);
    commit(bed, 6);
    settle(bed);
    assert_int_equal(1, leaver.told);
    assert_int_equal(0, told_after.told);
    assert_int_equal(2, told_before.told);
}

static void subscribing_from_inside_hears_the_next(void **state)
{
    struct bed *bed = *state;
    struct listener late = {0}, first = {.late = &late};

    listen(&first, bed->bus);
    commit(bed, 5);
    settle(bed);
    assert_int_equal(0, late.told);
    commit(bed, 6);
    settle(bed);
    assert_int_equal(1, late.told);
    assert_int_equal(2, first.told);
}

struct sleeper {
    td_subscription *own;
    unsigned roused, released;
    bool leaves;
};

static void roused(void *context)
{
    struct sleeper *sleeper = context;

    sleeper->roused++;
    if (sleeper->leaves)
        td_event_bus_unsubscribe(sleeper->own);
    assert_int_equal(0, sleeper->released); /* not while it is called */
}

static void released(void *context)
{
    ((struct sleeper *)context)->released++;
}

static void who_is_roused_is_released_once(void **state)
{
    struct bed *bed = *state;
    struct sleeper sleepers[2] = {{0}};

    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(TANDEM_OK, td_event_bus_subscribe(
                                        bed->bus,
                                        &(td_subscriber){.roused = roused, .released = released,
                                                         .context = &sleepers[i]},
                                        &sleepers[i].own));
    for (unsigned i = 0; i < 10; i++)
        td_event_bus_rouse(bed->bus);
    settle(bed);
    assert_int_equal(1, sleepers[0].roused); /* ten of them have become one */
    commit(bed, 5);
    settle(bed);
    assert_int_equal(2, sleepers[0].roused);
    sleepers[1].leaves = true;
    td_event_bus_rouse(bed->bus);
    settle(bed);
    assert_int_equal(3, sleepers[1].roused);
    assert_int_equal(1, sleepers[1].released);
    td_event_bus_unsubscribe(sleepers[0].own);
    assert_int_equal(1, sleepers[0].released);
    td_event_bus_rouse(bed->bus);
    settle(bed);
    assert_int_equal(3, sleepers[0].roused);
    assert_int_equal(3, sleepers[1].roused);
}

struct counted_call {
    td_bus_call call;
    unsigned *order;
    unsigned ran, dropped;
};

static void call_run(td_bus_call *call)
{
    struct counted_call *counted = (struct counted_call *)call;

    counted->ran = ++*counted->order;
}

static void call_drop(td_message *message)
{
    struct counted_call *counted = (struct counted_call *)message;

    counted->dropped = ++*counted->order;
}

static void calls_run_in_order_or_are_dropped(void **state)
{
    struct bed *bed = *state;
    struct counted_call calls[4];
    unsigned order = 0;

    memset(calls, 0, sizeof(calls));
    for (unsigned i = 0; i < 4; i++) {
        calls[i].call.run = call_run;
        calls[i].call.message.drop = call_drop;
        calls[i].order = &order;
    }
    td_event_bus_run(bed->bus, &calls[0].call);
    td_event_bus_run(bed->bus, &calls[1].call);
    assert_int_equal(0, order);
    settle(bed);
    assert_int_equal(1, calls[0].ran);
    assert_int_equal(2, calls[1].ran);
    td_event_bus_run(bed->bus, &calls[2].call);
    td_host_stop(bed->loop);
    td_event_bus_run(bed->bus, &calls[3].call);
    td_event_bus_free(bed->bus);
    bed->bus = NULL;
    assert_int_equal(0, calls[2].ran + calls[3].ran);
    assert_int_equal(3, calls[2].dropped);
    assert_int_equal(4, calls[3].dropped);
}

/* ---- On threads: unsubscribing waits for the callback ---- */

struct slow {
    atomic_uint inside, told;
    atomic_bool gone;
};

static void told_slowly(void *context, uint64_t position)
{
    struct slow *slow = context;

    atomic_fetch_add(&slow->inside, 1);
    for (volatile unsigned i = 0; i < 2000; i++)
        assert_false(atomic_load(&slow->gone));
    atomic_fetch_sub(&slow->inside, 1);
    atomic_fetch_add(&slow->told, 1);
}

static void after_unsubscribing_the_callback_does_not_run(void **state)
{
    td_runtime *runtime;
    td_event_bus *bus;
    td_host *loop;

    assert_int_equal(TANDEM_OK, td_threads_open(false, NULL, NULL, TANDEM_LOG_ERROR, &runtime));
    assert_int_equal(TANDEM_OK, td_host_open(runtime, TD_HOST_LOOP, "loop", &loop));
    assert_int_equal(TANDEM_OK, td_event_bus_open(loop, &bus));
    for (uint64_t round = 1; round <= 200; round++) {
        struct slow *slow = calloc(1, sizeof(*slow));
        td_subscription *subscription;

        assert_non_null(slow);
        assert_int_equal(TANDEM_OK,
                         td_event_bus_subscribe(bus, &(td_subscriber){.committed = told_slowly,
                                                                      .context = slow},
                                                &subscription));
        td_event_bus_committed(bus, round * 2);
        if (round % 2)
            while (atomic_load(&slow->told) == 0 && atomic_load(&slow->inside) == 0)
                ;
        td_event_bus_committed(bus, round * 2 + 1);
        td_event_bus_unsubscribe(subscription);
        assert_int_equal(0, atomic_load(&slow->inside));
        atomic_store(&slow->gone, true);
        free(slow); /* the sanitizers see whoever comes late */
    }
    td_host_stop(loop);
    td_event_bus_free(bus);
    td_host_free(loop);
    td_runtime_free(runtime);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(newer_positions_replace_older_ones, bed_open, bed_free),
        cmocka_unit_test_setup_teardown(unsubscribing_from_inside_ends_at_once, bed_open,
                                        bed_free),
        cmocka_unit_test_setup_teardown(subscribing_from_inside_hears_the_next, bed_open,
                                        bed_free),
        cmocka_unit_test_setup_teardown(who_is_roused_is_released_once, bed_open, bed_free),
        cmocka_unit_test_setup_teardown(calls_run_in_order_or_are_dropped, bed_open, bed_free),
        cmocka_unit_test(after_unsubscribing_the_callback_does_not_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
