/*
 * Fifty clients of one reactor that is away for ten minutes, on the virtual clock: how often they
 * try, and what comes down on it when it is back. Counted over many seeds, as fifty alone are few.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "sync/harness.h"

enum {
    CLIENTS = 50,
    SEEDS = 12,
    WINDOW_MS = 10000,
    OUTAGE_WINDOWS = 60,    /* ten minutes */
    SETTLED_WINDOW = 12,    /* from then on in the outage every policy is spent */
    RECOVERY_WINDOWS = 9,
    REST_MS = 60000,        /* half of it jittered: a probe every 45 s on average */
};

struct herd {
    tandem_harness *harness;
    uint64_t dialed; /* so far */
    uint64_t outage[OUTAGE_WINDOWS], recovery[RECOVERY_WINDOWS]; /* attempts, over all seeds */
};

static void note_dialed(void *context, const char *name, const char *sentence, uint64_t count)
{
    (void)sentence;
    if (!strcmp(name, "DIALED"))
        *(uint64_t *)context = count;
}

/* Attempts to connect in the next window. */
static uint64_t attempts_in_window(struct herd *herd)
{
    uint64_t before = herd->dialed;

    tandem_harness_run(herd->harness, WINDOW_MS);
    tandem_harness_events(herd->harness, note_dialed, &herd->dialed);
    return herd->dialed - before;
}

static void name_of(unsigned client, char name[16])
{
    snprintf(name, 16, "client%u", client);
}

static void run_seed(struct herd *herd, uint64_t seed)
{
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    char name[16], why[256];

    options.seed = seed;
    herd->dialed = 0;
    assert_int_equal(TANDEM_OK, tandem_harness_open(&options, &herd->harness));
    assert_int_equal(TANDEM_OK, tandem_harness_add(herd->harness, "hub", 0));
    for (unsigned i = 0; i < CLIENTS; i++) {
        name_of(i, name);
        assert_int_equal(TANDEM_OK, tandem_harness_add(herd->harness, name, 0));
        assert_int_equal(TANDEM_OK, tandem_harness_connect(herd->harness, name, "hub"));
    }
    assert_int_equal(TANDEM_OK,
                     tandem_harness_run_until_converged(herd->harness, 60000, why));
    tandem_harness_events(herd->harness, note_dialed, &herd->dialed);

    assert_int_equal(TANDEM_OK, tandem_harness_crash(herd->harness, "hub"));
    for (unsigned i = 0; i < OUTAGE_WINDOWS; i++)
        herd->outage[i] += attempts_in_window(herd);
    assert_int_equal(TANDEM_OK, tandem_harness_restart(herd->harness, "hub"));
    for (unsigned i = 0; i < RECOVERY_WINDOWS; i++)
        herd->recovery[i] += attempts_in_window(herd);
    for (unsigned i = 0; i < CLIENTS; i++) {
        name_of(i, name);
        assert_int_equal(TANDEM_OK,
                         tandem_wait_in_step(tandem_harness_sync(herd->harness, name), "hub", 0));
    }
    tandem_harness_free(herd->harness);
}

static void a_herd_does_not_thunder(void **state)
{
    double mean = 0, expected = (double)CLIENTS * SEEDS * WINDOW_MS / (REST_MS * 3 / 4);
    uint64_t all = 0, peak = 0, came = 0;
    struct herd herd = {0};

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        run_seed(&herd, seed);
    for (unsigned i = 0; i < OUTAGE_WINDOWS; i++) {
        all += herd.outage[i];
        mean += (double)herd.outage[i] / OUTAGE_WINDOWS;
        /* Spent policies probe evenly: six standard deviations. */
        if (i >= SETTLED_WINDOW)
            assert_true((double)herd.outage[i] > expected * 0.55 &&
                        (double)herd.outage[i] < expected * 1.45);
    }
    for (unsigned i = 0; i < RECOVERY_WINDOWS; i++) {
        came += herd.recovery[i];
        peak = herd.recovery[i] > peak ? herd.recovery[i] : peak;
    }
    print_message("attempts per client in ten minutes %.1f, per 10 s %.1f on average, "
                  "%.1f at most after recovery\n",
                  (double)all / (CLIENTS * SEEDS), mean / SEEDS, (double)peak / SEEDS);
    assert_int_equal(CLIENTS * SEEDS, came); /* one each: it worked */
    assert_true((double)peak <= 1.3 * mean);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_herd_does_not_thunder),
    };

    return cmocka_run_group_tests_name("herd", tests, NULL, NULL);
}
