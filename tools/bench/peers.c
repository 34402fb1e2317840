/*
 * peers: one node with many peers, half of them by WebSocket, half over HTTP. All come into step; then
 * operations are written at a rate. What a peer sees is held against what one that is alone with the
 * node sees, in the same run.
 *
 *   all   every operation goes to all peers
 *   own   each peer shares one collection, that nobody else does; they are written to in turn
 */
#include <stdio.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/bench/bench_node.h"
#include "tools/bench/herd.h"
#include "tools/bench/process.h"
#include "tools/tandem/interrupt.h"

enum {
    RSS_MAX = 256 * 1024 * 1024, /* what the node may take */
    CONNECT_S = 120,             /* to get all into step */
    CATCH_UP_S = 60,             /* after the last write */
    ALONE_S_MAX = 3,
    OWN_RATE = 1000,
    LOOK_US = 50 * 1000,
};

#define COLLECTION "bench"

/* What was seen while it was written. */
struct observed {
    uint64_t rss_anon_max, behind_max;
    double elapsed_s, catch_up_s; /* from the first write to the last peer; of it, after the last */
    double cpu_s, waited_s, herd_cpu_s;
};

struct peers {
    bench_run *run;
    bench_node *node;
    bool own;
    uint64_t written; /* operations, of the variant's own */
    uint64_t each;    /* that every peer of the herd is to have by now */
};

static void print(bench_run *run, const char *name, double value, const char *unit, double ceiling)
{
    bench_figure figure = {.name = name, .value = value, .unit = unit, .ceiling = ceiling};

    bench_print(run, &figure);
}

/* ---- Waiting ---- */

/* How many inbound sessions the node takes for in step. -1: it does not say. */
static int in_step(bench_node *node)
{
    json_t *status = bench_node_status(node);
    const json_t *remote;
    int count = 0;
    size_t i;

    if (!status)
        return -1;
    json_array_foreach(json_object_get(status, "remotes"), i, remote) {
        const char *state = json_string_value(json_object_get(remote, "state"));

        count += state && !strcmp(state, "in_step");
    }
    json_decref(status);
    return count;
}

/* Wait until all of a herd have all that was written and are in step. Returns how many were. */
static int wait_in_step(struct peers *peers, bench_herd *herd, unsigned seconds)
{
    uint64_t end_us = bench_now_us() + seconds * UINT64_C(1000000);
    int count = 0;

    do {
        bench_sleep_until_us(bench_now_us() + 4 * LOOK_US);
        if (bench_herd_having(herd, peers->each) < bench_herd_count(herd))
            continue;
        count = in_step(peers->node);
    } while (count >= 0 && count < (int)bench_herd_count(herd) && bench_now_us() < end_us &&
             !cli_interrupt());
    return count;
}

/* ---- Writing ---- */

static void look(struct peers *peers, bench_herd *herd, struct observed *seen)
{
    uint64_t rss_anon = bench_node_rss_anon(peers->node), fewest = bench_herd_fewest(herd);

    if (rss_anon > seen->rss_anon_max)
        seen->rss_anon_max = rss_anon;
    if (peers->each > fewest && peers->each - fewest > seen->behind_max)
        seen->behind_max = peers->each - fewest;
}

/* To everybody, or to the next one's own collection. */
static tandem_err write_one(struct peers *peers, const bench_herd *herd, uint64_t due_us)
{
    char own[BENCH_COLLECTION_BYTES];
    uint64_t count = bench_herd_count(herd), number = peers->written++;

    if (!peers->own) {
        peers->each++;
        return bench_node_write(peers->node, COLLECTION, (unsigned)(number % BENCH_DOCUMENTS),
                                due_us);
    }
    bench_herd_collection((unsigned)(number % count), own);
    if (number % count == count - 1)
        peers->each++; /* a round is through */
    return bench_node_write(peers->node, own, 0, due_us);
}

/* Write for so long at the rate, to all peers the same number, then wait until they have it. */
static tandem_err write_and_wait(struct peers *peers, bench_herd *herd, uint64_t seconds,
                                 struct observed *seen)
{
    uint64_t rate = peers->run->size.rate, count = seconds * rate, next_look_us = 0;
    uint64_t rest = peers->own ? count % bench_herd_count(herd) : 0;
    uint64_t begin_us = bench_now_us(), last_us = 0, now_us;
    double cpu_s = bench_node_cpu_s(peers->node), herd_s = bench_herd_cpu_s(herd);
    double waited_s = bench_node_waited_s(peers->node);
    tandem_err err = TANDEM_OK;

    *seen = (struct observed){0};
    bench_herd_forget(herd);
    count += rest ? bench_herd_count(herd) - rest : 0;
    for (uint64_t i = 0; err == TANDEM_OK && i < count && !cli_interrupt(); i++) {
        last_us = begin_us + i * 1000000 / rate;
        bench_sleep_until_us(last_us);
        err = write_one(peers, herd, last_us);
        if ((now_us = bench_now_us()) < next_look_us)
            continue;
        look(peers, herd, seen);
        next_look_us = now_us + LOOK_US;
    }
    if (err == TANDEM_OK)
        err = bench_node_flush(peers->node);
    do {
        bench_sleep_until_us(bench_now_us() + 1000);
        look(peers, herd, seen);
        now_us = bench_now_us();
    } while (err == TANDEM_OK && bench_herd_fewest(herd) < peers->each &&
             now_us < last_us + CATCH_UP_S * UINT64_C(1000000) && !cli_interrupt());
    seen->elapsed_s = (double)(now_us - begin_us) / 1e6;
    seen->catch_up_s = (double)(now_us - last_us) / 1e6;
    seen->cpu_s = bench_node_cpu_s(peers->node) - cpu_s;
    seen->waited_s = bench_node_waited_s(peers->node) - waited_s;
    seen->herd_cpu_s = bench_herd_cpu_s(herd) - herd_s;
    return err;
}

/* ---- The phases ---- */

/* One peer alone with the node: the ceiling of the latencies. */
static tandem_err measure_alone(struct peers *peers, double out_ms[2])
{
    const char *const urls[] = {bench_node_url(peers->node, false),
                                bench_node_url(peers->node, true)};
    uint64_t seconds = peers->run->size.seconds;
    struct observed seen;
    bench_herd *alone;
    tandem_err err;

    if (!(peers->each = bench_node_operations(peers->node)))
        return TANDEM_E_UNREACHABLE;
    if ((err = bench_herd_open(urls, 1, 0, 1, COLLECTION, &alone)) != TANDEM_OK)
        return err;
    if (wait_in_step(peers, alone, CONNECT_S) == 1)
        err = write_and_wait(peers, alone, seconds < ALONE_S_MAX ? seconds : ALONE_S_MAX, &seen);
    out_ms[0] = bench_herd_latency_ms(alone, BENCH_HERD_ALL, 0.5);
    out_ms[1] = bench_herd_latency_ms(alone, BENCH_HERD_ALL, 0.99);
    bench_herd_free(alone);
    return err;
}

/* Something in each peer's own collection. */
static tandem_err begin_own(struct peers *peers)
{
    char own[BENCH_COLLECTION_BYTES];
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; err == TANDEM_OK && i < peers->run->size.peers; i++) {
        bench_herd_collection(i, own);
        err = bench_node_write(peers->node, own, 0, 0);
    }
    peers->own = true;
    peers->written = 0;
    peers->each = 2; /* one that created the document, too */
    return err == TANDEM_OK ? bench_node_flush(peers->node) : err;
}

static void print_latencies(bench_run *run, bench_herd *herd, const double alone_ms[2])
{
    static const char *const names[][2] = {
        {"p50", "p99"}, {"p50_websocket", "p99_websocket"}, {"p50_http", "p99_http"}};
    static const bench_herd_part parts[] = {BENCH_HERD_ALL, BENCH_HERD_WEBSOCKET, BENCH_HERD_HTTP};

    for (unsigned i = 0; i < 3; i++) {
        print(run, names[i][0], bench_herd_latency_ms(herd, parts[i], 0.5), "ms", alone_ms[0]);
        print(run, names[i][1], bench_herd_latency_ms(herd, parts[i], 0.99), "ms", alone_ms[1]);
    }
}

static void print_observed(bench_run *run, const struct observed *seen, uint64_t operations,
                           uint64_t delivered)
{
    bench_figure memory = {.name = "rss_anon",
                           .value = (double)seen->rss_anon_max / (1024 * 1024),
                           .unit = "MiB",
                           .ceiling = RSS_MAX / (1024 * 1024),
                           .rss_anon_bytes = seen->rss_anon_max};

    bench_print(run, &memory);
    print(run, "rate", (double)operations / seen->elapsed_s, "operations/s", (double)run->size.rate);
    print(run, "delivered", (double)delivered / seen->elapsed_s, "operations/s", 0);
    print(run, "behind_max", (double)seen->behind_max, "operations", 0);
    print(run, "catch_up", seen->catch_up_s * 1000, "ms", 0);
    print(run, "cpu_node", seen->cpu_s, "s", seen->elapsed_s);
    print(run, "waited_node", seen->waited_s, "s", seen->elapsed_s);
    print(run, "cpu_peers", seen->herd_cpu_s, "s", seen->elapsed_s);
}

/* All are in step: write, and print what was seen. */
static tandem_err measure_herd(struct peers *peers, bench_herd *herd, const double alone_ms[2])
{
    uint64_t written = peers->written, held = bench_herd_operations(herd);
    struct observed seen;
    tandem_err err;
    int stepped;

    if ((err = write_and_wait(peers, herd, peers->run->size.seconds, &seen)) != TANDEM_OK)
        return err;
    stepped = wait_in_step(peers, herd, CATCH_UP_S);
    print(peers->run, "in_step", stepped, "peers", bench_herd_count(herd));
    print_latencies(peers->run, herd, alone_ms);
    print_observed(peers->run, &seen, peers->written - written,
                   bench_herd_operations(herd) - held);
    return stepped == (int)bench_herd_count(herd) ? TANDEM_OK : TANDEM_E_TIMEOUT;
}

static tandem_err measure(struct peers *peers, bool own)
{
    const char *const urls[] = {bench_node_url(peers->node, false),
                                bench_node_url(peers->node, true)};
    unsigned count = (unsigned)peers->run->size.peers, https = count / 2;
    uint64_t begin_us;
    double alone_ms[2];
    bench_herd *herd;
    tandem_err err;
    int stepped;

    if ((err = bench_node_write_group(peers->node, COLLECTION, 0, BENCH_DOCUMENTS)) != TANDEM_OK ||
        (err = bench_node_flush(peers->node)) != TANDEM_OK ||
        (err = measure_alone(peers, alone_ms)) != TANDEM_OK ||
        (own && (err = begin_own(peers)) != TANDEM_OK))
        return err;
    begin_us = bench_now_us();
    if ((err = bench_herd_open(urls, count - https, https, (unsigned)peers->run->size.reactors,
                               own ? NULL : COLLECTION, &herd)) != TANDEM_OK)
        return err;
    stepped = wait_in_step(peers, herd, CONNECT_S);
    print(peers->run, "connected", (double)(bench_now_us() - begin_us) / 1e6, "s", 0);
    print(peers->run, "in_step_before", stepped, "peers", count);
    if (stepped < (int)count)
        err = TANDEM_E_TIMEOUT;
    else if (bench_herd_most(herd) > peers->each)
        err = TANDEM_E_CONFLICT; /* somebody has what he does not share */
    else
        err = measure_herd(peers, herd, alone_ms);
    bench_herd_free(herd);
    return err;
}

int bench_peers(bench_run *run)
{
    const char *variant = cli_value(run->call, CLI_VARIANT);
    struct peers peers = {.run = run};
    bool own = variant && !strcmp(variant, "own");
    tandem_err err;

    if (variant && !own && strcmp(variant, "all") != 0)
        return cli_fail(TANDEM_E_USAGE, "there are all and own", "there is no variant `%.64s`",
                        variant);
    run->variant = own ? "own" : "all";
    if (own && !run->call->given[CLI_RATE])
        run->size.rate = OWN_RATE;
    if ((err = bench_node_open(NULL, &peers.node)) != TANDEM_OK)
        return cli_exit_code(err);
    err = measure(&peers, own);
    bench_node_free(peers.node);
    if (err == TANDEM_E_CONFLICT)
        return cli_fail(err, "sync held too little back", "a peer got what it does not share");
    return err == TANDEM_OK ? 0 : cli_fail(err, NULL, "not all peers are in step");
}
