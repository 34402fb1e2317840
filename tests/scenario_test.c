/*
 * Seeded scenarios: a topology, writers on every reactor, and faults drawn from the seed; then the
 * faults stop, and all must converge within 120 virtual seconds, hold every operation that was
 * reported durable, and verify.
 *
 * usage: scenario_test [FIRST_SEED [COUNT [log]]]
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sync/harness.h"

enum { NODES_MAX = 5, ROUNDS = 40, COUNTERS = 3 };

struct scenario {
    uint64_t seed;
    tandem_harness *harness;
    unsigned nodes;
    bool linked[NODES_MAX][NODES_MAX];
    bool cut[NODES_MAX][NODES_MAX];
    bool down[NODES_MAX];
    int64_t added[COUNTERS]; /* what was reported durable */
    uint64_t sets;
};

static const char *const names[NODES_MAX] = {"a", "b", "c", "d", "e"};

static int fail(const struct scenario *s, const char *what, const char *why)
{
    printf("seed %llu: %s: %s\n", (unsigned long long)s->seed, what, why);
    printf("replay: scenario_test %llu 1\n", (unsigned long long)s->seed);
    return 1;
}

static void link_nodes(struct scenario *s, unsigned a, unsigned b)
{
    if (a == b || s->linked[a][b])
        return;
    if (tandem_harness_connect(s->harness, names[a], names[b]) == TANDEM_OK)
        s->linked[a][b] = true;
}

static void arrange(struct scenario *s)
{
    uint64_t shape = tandem_harness_random(s->harness, 4);
    bool both = tandem_harness_random(s->harness, 2);

    for (unsigned i = 0; i < s->nodes; i++) {
        for (unsigned k = 0; k < s->nodes; k++) {
            bool joined = shape == 0   ? k == i + 1                     /* line */
                          : shape == 1 ? k == 0                         /* star */
                          : shape == 2 ? k == (i + 1) % s->nodes        /* ring */
                                       : k > i;                         /* mesh */

            if (!joined)
                continue;
            link_nodes(s, i, k);
            if (both)
                link_nodes(s, k, i);
        }
    }
}

static void write_something(struct scenario *s)
{
    unsigned node = (unsigned)tandem_harness_random(s->harness, s->nodes);
    unsigned which = (unsigned)tandem_harness_random(s->harness, COUNTERS);
    unsigned count = 1 + (unsigned)tandem_harness_random(s->harness, 5);
    char document[32], collection[32], json[64], why[TANDEM_WHY_BYTES];
    tandem_reactor *reactor = tandem_harness_reactor(s->harness, names[node]);
    tandem_input inputs[6];
    tandem_job job = {.collection = collection, .document = document, .operations = inputs};

    if (!reactor)
        return;
    snprintf(collection, sizeof(collection), "c%u", which);
    snprintf(document, sizeof(document), "counter");
    for (unsigned i = 0; i < count; i++)
        inputs[i] = (tandem_input){.type = "counter.ADD", .json = "1"};
    job.count = count;
    if (tandem_execute(reactor, &job, NULL, why) == TANDEM_OK)
        s->added[which] += count;
    snprintf(document, sizeof(document), "d%llu",
             (unsigned long long)tandem_harness_random(s->harness, 4));
    snprintf(json, sizeof(json), "{\"k%llu\":%llu}",
             (unsigned long long)tandem_harness_random(s->harness, 5),
             (unsigned long long)++s->sets);
    inputs[0] = (tandem_input){.type = "kv.SET", .json = json};
    job.count = 1;
    tandem_execute(reactor, &job, NULL, why);
    if (tandem_harness_random(s->harness, 12) == 0)
        tandem_delete(reactor, collection, document, NULL, why);
}

static void trouble(struct scenario *s, unsigned kinds)
{
    unsigned a = (unsigned)tandem_harness_random(s->harness, s->nodes);
    unsigned b = (unsigned)tandem_harness_random(s->harness, s->nodes);

    if ((kinds & 1) && tandem_harness_random(s->harness, 3) == 0 && a != b) {
        if (s->cut[a][b])
            tandem_harness_heal(s->harness, names[a], names[b]);
        else
            tandem_harness_cut(s->harness, names[a], names[b]);
        s->cut[a][b] = s->cut[b][a] = !s->cut[a][b];
    }
    if ((kinds & 2) && tandem_harness_random(s->harness, 6) == 0) {
        if (s->down[a])
            tandem_harness_restart(s->harness, names[a]);
        else
            tandem_harness_crash(s->harness, names[a]);
        s->down[a] = !s->down[a];
    }
}

static void end_trouble(struct scenario *s)
{
    static const tandem_harness_faults none;

    tandem_harness_set_faults(s->harness, &none);
    for (unsigned i = 0; i < s->nodes; i++) {
        if (s->down[i])
            tandem_harness_restart(s->harness, names[i]);
        for (unsigned k = 0; k < s->nodes; k++)
            tandem_harness_heal(s->harness, names[i], names[k]);
    }
}

static tandem_harness *logging; /* whose clock dates the log */

static void print_line(void *context, tandem_log_level level, const char *component,
                       const char *text)
{
    (void)context;
    printf("%10llu %d %s: %s\n",
           (unsigned long long)(logging ? tandem_harness_now_ms(logging) : 0), (int)level,
           component, text);
}

static tandem_err print_remote(void *context, const tandem_remote_status *status)
{
    printf("  %s -> %s: %s (%s), lag %llu, outbox %llu, inbox %llu\n", (const char *)context,
           status->name ? status->name : "inbound", tandem_remote_state_name(status->state),
           status->reason, (unsigned long long)status->lag_operations,
           (unsigned long long)status->outbox, (unsigned long long)status->inbox);
    return TANDEM_OK;
}

struct counts {
    uint64_t received, duplicates, echoed;
};

static tandem_err add_counts(void *context, const tandem_remote_status *status)
{
    struct counts *counts = context;

    counts->received += status->received_operations;
    counts->duplicates += status->duplicate_operations;
    counts->echoed += status->echoed_operations;
    return TANDEM_OK;
}

static void note_damage(void *context, const char *text)
{
    snprintf(context, 256, "%s", text);
}

static int check_node(struct scenario *s, unsigned node, bool quiet)
{
    tandem_reactor *reactor = tandem_harness_reactor(s->harness, names[node]);
    struct counts counts = {0};
    char damage[256] = "";

    if (tandem_verify(reactor, note_damage, damage) != TANDEM_OK)
        return fail(s, "verify", damage);
    if (quiet) {
        tandem_remotes(tandem_harness_sync(s->harness, names[node]), add_counts, &counts);
        if (counts.echoed)
            return fail(s, "echo", names[node]);
        if (counts.duplicates > counts.received - counts.duplicates)
            return fail(s, "more than one duplicate an operation", names[node]);
    }
    for (unsigned i = 0; i < COUNTERS; i++) {
        char collection[32], expected[32], why[TANDEM_WHY_BYTES];
        tandem_document *document;

        if (!s->added[i])
            continue;
        snprintf(collection, sizeof(collection), "c%u", i);
        snprintf(expected, sizeof(expected), "%lld", (long long)s->added[i]);
        if (tandem_document_read(reactor, collection, "counter", NULL, NULL, UINT64_MAX, &document,
                                 why) != TANDEM_OK)
            return fail(s, "a counter is gone", why);
        if (strcmp(tandem_document_json(document), expected) != 0) {
            printf("%s counts %s, expected %s\n", collection, tandem_document_json(document),
                   expected);
            tandem_document_free(document);
            return fail(s, "an operation reported durable is lost, or counted twice", collection);
        }
        tandem_document_free(document);
    }
    return 0;
}

static int run(uint64_t seed, bool log)
{
    struct scenario s = {.seed = seed};
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    tandem_harness_faults faults = {0};
    unsigned kinds;
    char why[256];
    int failed = 0;

    options.seed = seed;
    if (log) {
        options.log = print_line;
        options.log_level = TANDEM_LOG_DEBUG;
    }
    if (tandem_harness_open(&options, &s.harness) != TANDEM_OK)
        return fail(&s, "open", "no memory");
    logging = s.harness;
    s.nodes = 2 + (unsigned)tandem_harness_random(s.harness, NODES_MAX - 1);
    for (unsigned i = 0; i < s.nodes; i++)
        if (tandem_harness_add(s.harness, names[i],
                               (int64_t)tandem_harness_random(s.harness, 4000) - 2000) != TANDEM_OK)
            return fail(&s, "add", names[i]);
    /* Each kind of fault is left out of half of the seeds. */
    kinds = (unsigned)tandem_harness_random(s.harness, 16);
    if (kinds & 4)
        faults = (tandem_harness_faults){.latency_ms_min = 1, .latency_ms_max = 120};
    if (kinds & 8) {
        faults.lose_permille = 20;
        faults.duplicate_permille = 20;
        faults.reorder_permille = 20;
    }
    tandem_harness_set_faults(s.harness, &faults);
    arrange(&s);
    for (unsigned i = 0; i < ROUNDS; i++) {
        write_something(&s);
        trouble(&s, kinds);
        tandem_harness_run(s.harness, tandem_harness_random(s.harness, 400));
    }
    end_trouble(&s);
    if (tandem_harness_run_until_converged(s.harness, 120000, why) != TANDEM_OK)
        failed = fail(&s, "not converged 120 s after the faults stopped", why);
    for (unsigned i = 0; i < s.nodes && failed; i++)
        tandem_remotes(tandem_harness_sync(s.harness, names[i]), print_remote, (void *)names[i]);
    for (unsigned i = 0; i < s.nodes && !failed; i++)
        failed = check_node(&s, i, (kinds & ~4u) == 0);
    tandem_harness_free(s.harness);
    return failed;
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 100;
    unsigned failed = 0;

    for (uint64_t seed = first; seed < first + count && failed < 5; seed++)
        failed += (unsigned)run(seed, argc > 3);
    printf("%llu scenarios from seed %llu, %u failed\n", (unsigned long long)count,
           (unsigned long long)first, failed);
    return failed ? 1 : 0;
}
