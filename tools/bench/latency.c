/*
 * latency: from an append on A to its being visible on B. Two processes, a reactor on a folder in each,
 * joined by WebSocket. A is written to at a rate, by one thread that waits for nothing: each operation
 * has a time at which it is due, from which is counted, however late its writer is. It is visible when
 * B's reactor tells of its commit, and it can be read there. Operations of 128 bytes of payload on 100
 * documents, for so many seconds, or --operations, whichever is over first.
 *
 *   200    a second. Ceiling: the floor's round trip of one record, at the same rate: A commits it and
 *          sends it, B commits it and acknowledges
 *   20000  a second. Ceiling: the floor at the same rate, 100 records in a batch, 200 batches a second.
 *          A batch's time is counted from when all of it is due, so it tells nothing of how long a
 *          record waited for the others of its batch, up to 5 ms
 */
#include <stdlib.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/bench/fill.h"
#include "tools/bench/floor.h"
#include "tools/bench/member.h"
#include "tools/bench/process.h"
#include "tools/bench/scratch.h"
#include "tools/bench/worker.h"

enum { DOCUMENTS = 100, FIRST = 2 * DOCUMENTS, JOIN_MS_MAX = 60 * 1000 };
enum { P50, P99, P999 };

static const bench_spread_over over = {DOCUMENTS, 1};

struct variant {
    const char *name;
    uint64_t rate;
    uint64_t batch; /* of the floor */
};

static const struct variant variants[] = {{"200", 200, 1}, {"20000", 20000, 100}};
enum { VARIANTS = sizeof(variants) / sizeof(variants[0]) };

/* What the processes share. */
struct field {
    _Atomic uint32_t listening, joined, complete;
    uint64_t begun_us;
    char url[BENCH_URL_BYTES];
    uint64_t latencies_us[];
};

struct latency {
    const struct variant *variant;
    uint64_t count; /* of operations with a time */
    struct field *field;
    bench_scratch folders[2];
};

/* ---- A ---- */

static uint64_t due_us(const struct latency *latency, uint64_t number)
{
    return latency->field->begun_us + number * 1000000 / latency->variant->rate;
}

struct writer {
    struct field *field;
    bench_member member;
    _Atomic bool failed;
};

/* On the loop, and until the member is closed. */
static void executed(void *context, tandem_err err, const tandem_receipt *receipt, const char *why)
{
    struct writer *writer = context;

    if (err == TANDEM_OK)
        return;
    atomic_store(&writer->failed, true);
    atomic_store(&writer->field->complete, 1); /* as far as it gets */
}

/* One after the other, each when it is due. Its number is in the payload, in front of the rest. */
static tandem_err write_at_rate(const struct latency *latency, struct writer *writer)
{
    tandem_err err = TANDEM_OK;

    latency->field->begun_us = bench_now_us();
    for (uint64_t i = 0; err == TANDEM_OK && i < latency->count; i++) {
        bench_job job;

        bench_job_make(&job, &over, i);
        bench_payload_mark(job.payload, i);
        if (due_us(latency, i) > bench_now_us())
            bench_sleep_until_us(due_us(latency, i));
        err = tandem_execute_async(writer->member.reactor, &job.job, executed, writer);
    }
    if (err == TANDEM_OK)
        err = bench_shared_wait(&latency->field->complete, 1);
    return atomic_load(&writer->failed) ? TANDEM_E_IO : err;
}

static tandem_err write_work(void *context, void *shared)
{
    const struct latency *latency = context;
    struct field *field = latency->field;
    struct writer writer = {.field = field};
    bench_member *member = &writer.member;
    tandem_err err;

    if ((err = bench_member_open(member, latency->folders[0].path)) == TANDEM_OK &&
        (err = bench_fill_reactor(member->reactor, &over, FIRST, BENCH_FILL_GROUP)) == TANDEM_OK &&
        (err = bench_member_listen(member, field->url)) == TANDEM_OK) {
        atomic_store(&field->listening, 1);
        if ((err = bench_shared_wait(&field->joined, 1)) == TANDEM_OK)
            err = write_at_rate(latency, &writer);
    }
    bench_member_close(member);
    if (err != TANDEM_OK)
        cli_fail(err, NULL, "the operations could not be written");
    return err;
}

/* ---- B ---- */

struct watcher {
    const struct latency *latency;
    bench_member member;
    tandem_operations *operations;
    tandem_subscription *subscription;
    uint64_t seen;
    tandem_err err;
};

/* What was committed here is visible: on the reactor's own loop. */
static void committed(void *context, uint64_t position)
{
    struct watcher *watcher = context;
    const struct latency *latency = watcher->latency;
    uint64_t now_us = bench_now_us(), number;
    tandem_operation operation;
    tandem_err err;

    while ((err = tandem_operations_next(watcher->operations, &operation)) == TANDEM_OK)
        if (bench_payload_marked(operation.payload, &number) && number < latency->count) {
            latency->field->latencies_us[number] = now_us - due_us(latency, number);
            watcher->seen++;
        }
    watcher->err = err == TANDEM_END ? TANDEM_OK : err;
    if (watcher->seen == latency->count || watcher->err != TANDEM_OK)
        atomic_store(&latency->field->complete, 1);
}

static tandem_err watch(struct watcher *watcher)
{
    struct field *field = watcher->latency->field;
    tandem_err err;

    if ((err = bench_shared_wait(&field->listening, 1)) != TANDEM_OK ||
        (err = tandem_remote_add(watcher->member.sync, "a", field->url)) != TANDEM_OK ||
        (err = tandem_wait_in_step(watcher->member.sync, "a", JOIN_MS_MAX)) != TANDEM_OK ||
        (err = tandem_operations_open(watcher->member.reactor, "c0", NULL, FIRST,
                                      &watcher->operations)) != TANDEM_OK ||
        (err = tandem_subscribe(watcher->member.reactor, committed, watcher,
                                &watcher->subscription)) != TANDEM_OK)
        return err;
    atomic_store(&field->joined, 1);
    return bench_shared_wait(&field->complete, 1);
}

static tandem_err watch_work(void *context, void *shared)
{
    struct watcher watcher = {.latency = context};
    tandem_err err = bench_member_open(&watcher.member, watcher.latency->folders[1].path);

    if (err == TANDEM_OK)
        err = watch(&watcher);
    tandem_unsubscribe(watcher.subscription);
    if (err == TANDEM_OK)
        err = watcher.err;
    tandem_operations_free(watcher.operations);
    bench_member_close(&watcher.member);
    if (err != TANDEM_OK)
        cli_fail(err, NULL, "not all operations became visible");
    return err;
}

/* ---- Turns ---- */

/* The least that a share of them does not exceed. */
static double quantile(const uint64_t *sorted, uint64_t count, double share)
{
    uint64_t before = (uint64_t)((double)count * share);

    return (double)sorted[before < count ? before : count - 1];
}

static int ascending(const void *a, const void *b)
{
    uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;

    return first < second ? -1 : first > second;
}

static void take_quantiles(uint64_t *latencies_us, uint64_t count, bench_sample *out)
{
    qsort(latencies_us, count, sizeof(latencies_us[0]), ascending);
    out->values[P50] = quantile(latencies_us, count, 0.5);
    out->values[P99] = quantile(latencies_us, count, 0.99);
    out->values[P999] = quantile(latencies_us, count, 0.999);
}

static tandem_err replicate(struct latency *latency, bench_sample *out)
{
    static const bench_work_fn works[2] = {write_work, watch_work};
    bench_worker *workers[2] = {NULL, NULL};
    uint64_t wire_bytes = bench_loopback_bytes();
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; err == TANDEM_OK && i < 2; i++)
        err = bench_scratch_open(&latency->folders[i]);
    for (unsigned i = 0; err == TANDEM_OK && i < 2; i++)
        err = bench_worker_start(works[i], latency, 1, &workers[i]);
    if (err == TANDEM_OK)
        err = bench_worker_wait_all(workers, 2, &out->rss_anon_bytes);
    if (err == TANDEM_OK) {
        double operations = (double)(FIRST + latency->count);

        take_quantiles(latency->field->latencies_us, latency->count, out);
        out->wire_bytes_per_operation = (double)(bench_loopback_bytes() - wire_bytes) / operations;
        out->disk_bytes_per_operation =
            (double)bench_data_folder_bytes(latency->folders[1].path) / operations;
    }
    for (unsigned i = 0; i < 2; i++) {
        bench_worker_free(workers[i]);
        bench_scratch_release(&latency->folders[i]);
    }
    return err;
}

static size_t field_bytes(const struct latency *latency)
{
    return sizeof(*latency->field) + latency->count * sizeof(latency->field->latencies_us[0]);
}

static tandem_err turn(void *context, bench_sample *out)
{
    struct latency latency = *(const struct latency *)context;
    tandem_err err = bench_shared_open(field_bytes(&latency), (void **)&latency.field);

    if (err != TANDEM_OK)
        return err;
    err = replicate(&latency, out);
    bench_shared_free(latency.field, field_bytes(&latency));
    return err;
}

static tandem_err ceiling(void *context, const bench_sample *subject, bench_sample *out)
{
    const struct latency *latency = context;
    uint64_t batches = (latency->count + latency->variant->batch - 1) / latency->variant->batch;
    size_t bytes = batches * sizeof(uint64_t);
    bench_floor floor = {.records = batches * latency->variant->batch,
                         .record_bytes = BENCH_RECORD_BYTES,
                         .batch = latency->variant->batch,
                         .in_flight = 1,
                         .rate = latency->variant->rate};
    bench_floor_result result = {0};
    tandem_err err = bench_shared_open(bytes, (void **)&floor.latencies_us);

    if (err != TANDEM_OK)
        return err;
    if ((err = bench_floor_replicate(&floor, &result)) == TANDEM_OK)
        take_quantiles(floor.latencies_us, batches, out);
    bench_shared_free(floor.latencies_us, bytes);
    return err;
}

int bench_latency(bench_run *run)
{
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; err == TANDEM_OK && i < VARIANTS; i++) {
        uint64_t count = variants[i].rate * run->size.seconds;
        struct latency latency = {.variant = &variants[i]};
        bench_pairs pairs;

        latency.count = count < run->size.operations ? count : run->size.operations;
        if (!bench_variant(run, variants[i].name) ||
            (err = bench_pairs_run(run, turn, ceiling, &latency, &pairs)) != TANDEM_OK)
            continue;
        bench_print_pairs(run, &pairs, P50, "p50", "us");
        bench_print_pairs(run, &pairs, P99, "p99", "us");
        bench_print_pairs(run, &pairs, P999, "p999", "us");
    }
    return err == TANDEM_OK ? 0 : cli_exit_code(err);
}
