/*
 * write: operations of 128 bytes of payload on 100 documents, each durable before its caller goes on:
 * for so many seconds, or --operations, whichever is over first.
 *
 *   one        one caller in process waits for each. Ceiling: LMDB, a transaction for each record
 *   callers64  64 threads wait for each of theirs. Ceiling: one
 *   batch100   one caller waits for groups of 100. Ceiling: LMDB, 100 records in a transaction
 *   import     `tandem import` of a file of JSON lines. Ceiling: jansson parsing the same lines
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench/bench.h"
#include "tools/bench/fill.h"
#include "tools/bench/floor.h"
#include "tools/bench/process.h"
#include "tools/bench/scratch.h"
#include "tools/bench/worker.h"

enum { CALLERS = 64, BATCH = 100, DOCUMENTS = 100 };

static const bench_spread_over over = {DOCUMENTS, 1};

struct write {
    bench_run *run;
    unsigned callers;
    uint64_t group;
    const char *folder; /* of this turn */
    char lines[BENCH_PATH_BYTES + 32]; /* the file to import */
};

/* What a turn has done. */
struct written {
    uint64_t operations, canonical_bytes;
    double seconds;
};

/* ---- Callers ---- */

struct calling {
    tandem_reactor *reactor;
    uint64_t group, end, end_us;
    _Atomic uint64_t number;   /* the next operation's */
    _Atomic uint64_t executed; /* operations */
    _Atomic int err;
};

/* So many operations, or for so long, whichever is over first. */
static void *call_until_the_end(void *context)
{
    struct calling *calling = context;
    bench_job *made = calloc(calling->group, sizeof(*made));
    tandem_job *jobs = calloc(calling->group, sizeof(*jobs));
    char why[TANDEM_WHY_BYTES] = "";
    tandem_err err = made && jobs ? TANDEM_OK : TANDEM_E_NOMEM;

    while (err == TANDEM_OK && bench_now_us() < calling->end_us) {
        uint64_t number = atomic_fetch_add(&calling->number, calling->group);

        if (number >= calling->end)
            break;
        for (uint64_t i = 0; i < calling->group; i++) {
            bench_job_make(&made[i], &over, number + i);
            jobs[i] = made[i].job;
        }
        err = calling->group == 1 ? tandem_execute(calling->reactor, jobs, NULL, why)
                                  : tandem_execute_group(calling->reactor, jobs, calling->group,
                                                         NULL, NULL, why);
        atomic_fetch_add(&calling->executed, calling->group);
    }
    if (err != TANDEM_OK)
        atomic_store(&calling->err, err);
    free(made);
    free(jobs);
    return NULL;
}

static tandem_err call_all(struct calling *calling, unsigned callers)
{
    pthread_t threads[CALLERS];
    unsigned started = 0;

    while (started < callers &&
           pthread_create(&threads[started], NULL, call_until_the_end, calling) == 0)
        started++;
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    if (started < callers)
        return TANDEM_E_NOMEM;
    return (tandem_err)atomic_load(&calling->err);
}

static tandem_err write_work(void *context, void *shared)
{
    const struct write *write = context;
    tandem_options options = TANDEM_OPTIONS_INIT;
    struct written *out = shared;
    struct calling calling = {.group = write->group};
    uint64_t begun_us, first = 2 * DOCUMENTS;
    tandem_err err;

    options.path = write->folder;
    if ((err = tandem_open(&options, &calling.reactor)) == TANDEM_OK &&
        (err = bench_fill_reactor(calling.reactor, &over, first, BENCH_FILL_GROUP)) == TANDEM_OK) {
        atomic_store(&calling.number, first);
        begun_us = bench_now_us();
        calling.end = first + write->run->size.operations;
        calling.end_us = begun_us + write->run->size.seconds * 1000000;
        err = call_all(&calling, write->callers);
        out->seconds = (double)(bench_now_us() - begun_us) / 1e6;
        out->operations = atomic_load(&calling.executed);
    }
    if (err == TANDEM_OK)
        err = bench_canonical_bytes(calling.reactor, &out->canonical_bytes);
    tandem_close(calling.reactor);
    if (err != TANDEM_OK)
        cli_fail(err, NULL, "the callers could not write");
    return err;
}

static tandem_err take_turn(const struct write *write, bench_work_fn work, bench_sample *out)
{
    struct write turn = *write;
    struct written written = {0};
    bench_scratch folder;
    tandem_err err = bench_scratch_open(&folder);

    if (err != TANDEM_OK)
        return err;
    turn.folder = folder.path;
    err = bench_worker_run(work, &turn, &written, sizeof(written), &out->rss_anon_bytes);
    if (err == TANDEM_OK) {
        out->values[0] = (double)written.operations / written.seconds;
        out->batch = (double)write->group;
        out->disk_bytes_per_operation =
            (double)bench_data_folder_bytes(folder.path) / (double)written.operations;
    }
    bench_scratch_release(&folder);
    return err;
}

static tandem_err callers_write(void *context, bench_sample *out)
{
    return take_turn(context, write_work, out);
}

/* ---- Their ceilings ---- */

static tandem_err raw_write(void *context, const bench_sample *subject, bench_sample *out)
{
    const struct write *write = context;
    bench_floor floor = {.records = write->run->size.operations,
                         .record_bytes = BENCH_RECORD_BYTES,
                         .batch = write->group,
                         .seconds_max = write->run->size.seconds};
    bench_floor_result result = {0};
    tandem_err err = bench_floor_write(&floor, &result);

    if (err == TANDEM_OK)
        out->values[0] = (double)result.records / result.seconds;
    return err;
}

static tandem_err one_caller_writes(void *context, const bench_sample *subject, bench_sample *out)
{
    struct write one = *(const struct write *)context;

    one.callers = 1;
    return take_turn(&one, write_work, out);
}

/* ---- Import ---- */

static tandem_err make_lines(const struct write *write)
{
    FILE *file = fopen(write->lines, "we");
    bool written = file != NULL;

    for (uint64_t i = 0; written && i < write->run->size.operations; i++) {
        bench_job job;

        bench_job_make(&job, &over, i);
        /* Of the payload the text, which begins behind {"v": and how long it is. */
        written = fprintf(file,
                          "{\"document\":\"%s\",\"type\":\"kv.SET\",\"input\":{\"v\":\"%.*s\"}}\n",
                          job.document, (int)(BENCH_PAYLOAD_BYTES - 5),
                          (const char *)job.payload + 5) > 0;
    }
    if (file && fclose(file))
        written = false;
    if (!written)
        cli_fail(TANDEM_E_IO, strerror(errno), "the lines to import could not be written");
    return written ? TANDEM_OK : TANDEM_E_IO;
}

/* Becomes `tandem import`. What it opens first must not be its stdout. */
static tandem_err import_work(void *context, void *shared)
{
    const struct write *write = context;
    char *argv[] = {"tandem", "--data", (char *)write->folder, "-q",
                    "import", "c0",     (char *)write->lines,  NULL};

    if (freopen("/dev/null", "w", stdout))
        execv("/proc/self/exe", argv);
    return TANDEM_E_IO;
}

static tandem_err import(void *context, bench_sample *out)
{
    struct write turn = *(const struct write *)context;
    double operations = (double)turn.run->size.operations;
    bench_worker *worker = NULL;
    uint64_t begun_us = bench_now_us();
    bench_scratch folder;
    tandem_err err = bench_scratch_open(&folder);

    if (err != TANDEM_OK)
        return err;
    turn.folder = folder.path;
    if ((err = bench_worker_start(import_work, &turn, 1, &worker)) == TANDEM_OK)
        err = bench_worker_ended(worker, &out->rss_anon_bytes);
    bench_worker_free(worker);
    out->values[0] = operations * 1e6 / (double)(bench_now_us() - begun_us);
    out->disk_bytes_per_operation = (double)bench_data_folder_bytes(folder.path) / operations;
    bench_scratch_release(&folder);
    if (err != TANDEM_OK)
        cli_fail(err, NULL, "the lines were not imported");
    return err;
}

/* Read the lines and parse each, no more. */
static tandem_err parse_work(void *context, void *shared)
{
    const struct write *write = context;
    FILE *file = fopen(write->lines, "re");
    struct written *out = shared;
    uint64_t begun_us = bench_now_us();
    char *line = NULL;
    size_t room = 0;
    ssize_t size;

    while (file && (size = getline(&line, &room, file)) > 0) {
        json_t *parsed = json_loadb(line, (size_t)size, 0, NULL);

        out->operations += parsed != NULL;
        json_decref(parsed);
    }
    free(line);
    if (file)
        fclose(file);
    out->seconds = (double)(bench_now_us() - begun_us) / 1e6;
    return out->operations == write->run->size.operations ? TANDEM_OK : TANDEM_E_IO;
}

static tandem_err parse(void *context, const bench_sample *subject, bench_sample *out)
{
    struct written parsed = {0};
    tandem_err err = bench_worker_run(parse_work, context, &parsed, sizeof(parsed), NULL);

    if (err == TANDEM_OK)
        out->values[0] = (double)parsed.operations / parsed.seconds;
    return err;
}

/* ---- Variants ---- */

static tandem_err measure(struct write *write, bench_turn_fn subject, bench_ceiling_fn ceiling)
{
    bench_pairs pairs;
    tandem_err err = bench_pairs_run(write->run, subject, ceiling, write, &pairs);

    if (err == TANDEM_OK)
        bench_print_pairs(write->run, &pairs, 0, "rate", "operations/s");
    return err;
}

static tandem_err measure_import(struct write *write)
{
    bench_scratch folder;
    tandem_err err = bench_scratch_open(&folder);

    if (err != TANDEM_OK)
        return err;
    snprintf(write->lines, sizeof(write->lines), "%s/lines", folder.path);
    if ((err = make_lines(write)) == TANDEM_OK)
        err = measure(write, import, parse);
    bench_scratch_release(&folder);
    return err;
}

int bench_write(bench_run *run)
{
    struct write write = {.run = run, .callers = 1, .group = 1};
    tandem_err err = TANDEM_OK;

    if (bench_variant(run, "one"))
        err = measure(&write, callers_write, raw_write);
    write.callers = CALLERS;
    if (err == TANDEM_OK && bench_variant(run, "callers64"))
        err = measure(&write, callers_write, one_caller_writes);
    write.callers = 1;
    write.group = BATCH;
    if (err == TANDEM_OK && bench_variant(run, "batch100"))
        err = measure(&write, callers_write, raw_write);
    if (err == TANDEM_OK && bench_variant(run, "import"))
        err = measure_import(&write);
    return err == TANDEM_OK ? 0 : cli_exit_code(err);
}
