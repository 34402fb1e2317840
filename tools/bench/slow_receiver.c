/*
 * slow_receiver: a peer that reads nothing, though it lives: its heartbeats come on time. What does
 * that cost the node in memory, and how much slower do the others get what is written?
 *
 * The slow one speaks WebSocket by itself (mute.h), because a whole reactor would hang up after 30 s
 * of hearing nothing. The others are a herd.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tools/bench/bench.h"
#include "tools/bench/bench_node.h"
#include "tools/bench/herd.h"
#include "tools/bench/mute.h"
#include "tools/bench/process.h"
#include "tools/tandem/interrupt.h"

enum {
    WINDOW = 8 * 1024 * 1024, /* what may be in flight to one peer: sync.h */
    PAIRS = 7,
    GROUP = 200,          /* operations of one write */
    LEG_GROUPS_MAX = 150, /* writes of one leg of a pair; of a short run fewer */
    LEG_GROUPS_EACH_S = 10,
    MEMORY_GROUPS = 30, /* written every now and then while memory is looked at */
    WARM_LEGS = 3,
    LEG_S_MAX = 60,
    CONNECT_S = 30,
};

#define COLLECTION "bench"

struct slow {
    bench_run *run;
    bench_node *node;
    bench_herd *herd;
    bench_mute *mute; /* NULL: nobody is slow */
    unsigned leg_groups;
    uint64_t rss_anon_max;
};

static void print(bench_run *run, const char *name, double value, const char *unit, double ceiling)
{
    bench_figure figure = {.name = name, .value = value, .unit = unit, .ceiling = ceiling};

    bench_print(run, &figure);
}

static void look(struct slow *slow)
{
    uint64_t rss_anon = bench_node_rss_anon(slow->node);

    if (rss_anon > slow->rss_anon_max)
        slow->rss_anon_max = rss_anon;
    if (slow->mute)
        bench_mute_live(slow->mute);
}

/* Wait until all others have so many operations. False: they do not get them. */
static bool wait_for(struct slow *slow, uint64_t operations, uint64_t seconds)
{
    uint64_t end_us = bench_now_us() + seconds * 1000000;

    while (bench_herd_fewest(slow->herd) < operations) {
        if (bench_now_us() >= end_us || cli_interrupt())
            return false;
        bench_sleep_until_us(bench_now_us() + 1000);
        look(slow);
    }
    return true;
}

/* Write so much, as fast as it is taken. Returns the rate at which all others got it; 0: they did
 * not. */
static double leg(struct slow *slow, unsigned groups)
{
    uint64_t held = bench_node_operations(slow->node), begin_us = bench_now_us(), end_us;
    uint64_t count = (uint64_t)groups * GROUP;

    for (unsigned i = 0; i < groups && held; i++) {
        if (bench_node_write_group(slow->node, COLLECTION, 0, GROUP) != TANDEM_OK)
            return 0;
        look(slow);
    }
    if (!held || bench_node_flush(slow->node) != TANDEM_OK ||
        !wait_for(slow, held + count, LEG_S_MAX))
        return 0;
    end_us = bench_now_us();
    return (double)count * 1e6 / (double)(end_us - begin_us);
}

/* ---- Memory ---- */

/* It says hello, and then reads nothing for so long, while what would go to it is written. */
static tandem_err measure_memory(struct slow *slow)
{
    uint64_t seconds = slow->run->size.seconds, end_us, before, rounds = 0;

    for (unsigned i = 0; i < WARM_LEGS; i++)
        if (leg(slow, slow->leg_groups) == 0)
            return TANDEM_E_TIMEOUT;
    before = slow->rss_anon_max;
    if (!(slow->mute = bench_mute_open(bench_node_url(slow->node, false))))
        return TANDEM_E_UNREACHABLE;
    end_us = bench_now_us() + seconds * 1000000;
    while (bench_now_us() < end_us && !cli_interrupt()) {
        if (leg(slow, MEMORY_GROUPS) == 0)
            return TANDEM_E_TIMEOUT;
        rounds++;
        bench_sleep_until_us(bench_now_us() + 100 * 1000);
    }
    if (!bench_mute_is_served(slow->mute))
        return TANDEM_E_UNREACHABLE;
    bench_mute_free(slow->mute);
    slow->mute = NULL;
    print(slow->run, "written", (double)(rounds * MEMORY_GROUPS * GROUP), "operations", 0);
    bench_print(slow->run, &(bench_figure){
                               .name = "growth",
                               .value = (double)(slow->rss_anon_max - before) / (1024 * 1024),
                               .unit = "MiB",
                               .ceiling = WINDOW / (1024 * 1024),
                               .rss_anon_bytes = slow->rss_anon_max,
                           });
    return TANDEM_OK;
}

/* ---- The others ---- */

static double median(double *values)
{
    return bench_spread_of(values, PAIRS).median;
}

static tandem_err measure_others(struct slow *slow)
{
    double without[PAIRS], with[PAIRS], ratios[PAIRS];

    for (unsigned i = 0; i < PAIRS; i++) {
        if ((without[i] = leg(slow, slow->leg_groups)) == 0)
            return TANDEM_E_TIMEOUT;
        if (!(slow->mute = bench_mute_open(bench_node_url(slow->node, false))))
            return TANDEM_E_UNREACHABLE;
        if ((with[i] = leg(slow, slow->leg_groups)) == 0)
            return TANDEM_E_TIMEOUT;
        bench_mute_free(slow->mute);
        slow->mute = NULL;
        ratios[i] = with[i] / without[i];
    }
    print(slow->run, "rate_without", median(without), "operations/s", 0);
    print(slow->run, "rate", median(with), "operations/s", median(without));
    print(slow->run, "rate_ratio", median(ratios), "of the others alone", 1);
    return TANDEM_OK;
}

static tandem_err measure(struct slow *slow)
{
    const char *const urls[] = {bench_node_url(slow->node, false),
                                bench_node_url(slow->node, true)};
    unsigned count = (unsigned)slow->run->size.peers;
    uint64_t held;
    tandem_err err;

    if ((err = bench_node_write_group(slow->node, COLLECTION, 0, BENCH_DOCUMENTS)) != TANDEM_OK ||
        (err = bench_node_flush(slow->node)) != TANDEM_OK ||
        (err = bench_herd_open(urls, count - count / 2, count / 2, count, COLLECTION,
                               &slow->herd)) !=
            TANDEM_OK)
        return err;
    held = bench_node_operations(slow->node);
    if (!held || !wait_for(slow, held, CONNECT_S))
        return TANDEM_E_TIMEOUT;
    if ((err = measure_memory(slow)) != TANDEM_OK)
        return err;
    return measure_others(slow);
}

int bench_slow_receiver(bench_run *run)
{
    struct slow slow = {.run = run};
    tandem_err err;

    run->variant = "websocket";
    slow.leg_groups = run->size.seconds < LEG_GROUPS_MAX / LEG_GROUPS_EACH_S
                          ? (unsigned)run->size.seconds * LEG_GROUPS_EACH_S
                          : LEG_GROUPS_MAX;
    if ((err = bench_node_open(NULL, &slow.node)) != TANDEM_OK)
        return cli_exit_code(err);
    err = measure(&slow);
    bench_mute_free(slow.mute);
    bench_herd_free(slow.herd);
    bench_node_free(slow.node);
    return err == TANDEM_OK ? 0 : cli_fail(err, NULL, "the others did not get all");
}
