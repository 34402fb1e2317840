/*
 * fold: a kv document of a million operations, read for the first time and after an operation came that
 * belongs before the last hundred; and recorded sessions of typing.
 *
 *   kv    cold_rate: the first read. Ceiling: a cursor over as many records of LMDB
 *         late: the read after the late operation. Ceiling: the first read of the same turn
 *         late_folded: operations that were folded for it. Ceiling: all
 *   text  `tandem trace replay` of tests/data/automerge-paper.json.gz on one reactor, if that is there.
 *         Ceiling: LMDB with a record for each edit and as many in a commit
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench/bench.h"
#include "tools/bench/fill.h"
#include "tools/bench/floor.h"
#include "tools/bench/member.h"
#include "tools/bench/process.h"
#include "tools/bench/scratch.h"
#include "tools/bench/worker.h"

enum {
    BEHIND = 100,
    LATE_MS_MAX = 60000,
    RECORD_BYTES = 232,
    EDIT_BYTES = 113,
    EDIT_BATCH = 999,
    GROUP = 1000,
};
enum { COLD_RATE, COLD_US, LATE_US, LATE_FOLDED };

#define SESSION "tests/data/automerge-paper.json.gz"

static const bench_spread_over over = {1, 1};

struct fold {
    bench_run *run;
    const char *folder;
};

struct folded {
    double cold_us, late_us;
    uint64_t cold_folded, late_folded;
};

/* ---- A turn, in a process of its own ---- */

/* Read the document; the index is current. */
static tandem_err read_document(tandem_reactor *reactor, double *us, uint64_t *folded)
{
    char why[TANDEM_WHY_BYTES] = "";
    tandem_stat before, after;
    tandem_document *document;
    uint64_t begun_us;
    tandem_err err;

    if ((err = tandem_document_head(reactor, "c0", "d0", UINT64_MAX, NULL, NULL, NULL)) !=
            TANDEM_OK ||
        (err = tandem_stat_get(reactor, &before)) != TANDEM_OK)
        return err;
    begun_us = bench_now_us();
    err = tandem_document_read(reactor, "c0", "d0", NULL, NULL, UINT64_MAX, &document, why);
    if (err != TANDEM_OK)
        return err;
    *us = (double)(bench_now_us() - begun_us);
    tandem_document_free(document);
    err = tandem_stat_get(reactor, &after);
    *folded = after.folded - before.folded;
    return err;
}

static tandem_err wait_for_late(tandem_reactor *reactor, uint64_t position)
{
    uint64_t begun_us = bench_now_us(), reached = 0;
    tandem_err err;

    while ((err = tandem_position(reactor, &reached)) == TANDEM_OK && reached < position) {
        if (bench_now_us() - begun_us > LATE_MS_MAX * UINT64_C(1000))
            return TANDEM_E_TIMEOUT;
        bench_sleep_until_us(bench_now_us() + 1000);
    }
    return err;
}

/* The other reactor writes its operation when all but the last of the document are there, and brings it
 * when all are. */
static tandem_err fold_with(bench_member *peer, bench_member *other, uint64_t operations,
                            struct folded *out)
{
    char url[128];
    uint64_t position;
    tandem_err err;

    if ((err = bench_fill_reactor(peer->reactor, &over, operations - BEHIND, GROUP)) != TANDEM_OK ||
        (err = bench_fill_reactor(other->reactor, &over, 2, GROUP)) != TANDEM_OK)
        return err;
    bench_sleep_until_us(bench_now_us() + 10 * 1000); /* what follows has a later millisecond */
    if ((err = bench_fill_reactor(peer->reactor, &over, BEHIND, GROUP)) != TANDEM_OK ||
        (err = read_document(peer->reactor, &out->cold_us, &out->cold_folded)) != TANDEM_OK ||
        (err = tandem_position(peer->reactor, &position)) != TANDEM_OK ||
        (err = tandem_listen(peer->sync, "", 0, false, url)) != TANDEM_OK ||
        (err = tandem_remote_add(other->sync, "peer", "mem://peer")) != TANDEM_OK ||
        (err = wait_for_late(peer->reactor, position + 2)) != TANDEM_OK)
        return err;
    return read_document(peer->reactor, &out->late_us, &out->late_folded);
}

static tandem_err fold_work(void *context, void *shared)
{
    const struct fold *fold = context;
    bench_member peer = {0}, other = {0};
    td_memory_network *network;
    tandem_err err;

    if ((err = td_memory_network_open(&network)) != TANDEM_OK)
        return err;
    if ((err = bench_member_open_in(&peer, fold->folder, network, "peer")) == TANDEM_OK &&
        (err = bench_member_open_in(&other, NULL, network, "other")) == TANDEM_OK)
        err = fold_with(&peer, &other, fold->run->size.operations, shared);
    bench_member_close(&other);
    bench_member_close(&peer);
    td_memory_network_free(network);
    if (err != TANDEM_OK)
        cli_fail(err, NULL, "the document could not be folded");
    return err;
}

static tandem_err fold_turn(void *context, bench_sample *out)
{
    struct fold turn = *(const struct fold *)context;
    double operations = (double)turn.run->size.operations;
    struct folded folded = {0};
    bench_scratch folder;
    tandem_err err = bench_scratch_open(&folder);

    if (err != TANDEM_OK)
        return err;
    turn.folder = folder.path;
    err = bench_worker_run(fold_work, &turn, &folded, sizeof(folded), &out->rss_anon_bytes);
    if (err == TANDEM_OK) {
        out->values[COLD_RATE] = (double)folded.cold_folded * 1e6 / folded.cold_us;
        out->values[COLD_US] = folded.cold_us;
        out->values[LATE_US] = folded.late_us;
        out->values[LATE_FOLDED] = (double)folded.late_folded;
        out->disk_bytes_per_operation = (double)bench_data_folder_bytes(folder.path) / operations;
    }
    bench_scratch_release(&folder);
    return err;
}

static tandem_err fold_ceiling(void *context, const bench_sample *subject, bench_sample *out)
{
    const struct fold *fold = context;
    bench_floor floor = {
        .records = fold->run->size.operations, .record_bytes = RECORD_BYTES, .batch = 1000};
    bench_floor_result result = {0};
    tandem_err err = bench_floor_read(&floor, &result);

    if (err != TANDEM_OK)
        return err;
    out->values[COLD_RATE] = (double)result.records / result.seconds;
    out->values[COLD_US] = result.seconds * 1e6;
    out->values[LATE_US] = subject->values[COLD_US];
    out->values[LATE_FOLDED] = (double)fold->run->size.operations;
    return TANDEM_OK;
}

/* ---- Typing ---- */

/* Becomes `tandem trace replay`, whose only line goes to a file. */
static tandem_err replay_work(void *context, void *shared)
{
    char *argv[] = {"tandem", "--json", "-q", "trace", "replay", SESSION, "--agents", "1", NULL};

    if (freopen(context, "w", stdout))
        execv("/proc/self/exe", argv);
    return TANDEM_E_IO;
}

/* What it says; NULL: it failed. */
static json_t *replay_session(void)
{
    char said_path[BENCH_PATH_BYTES + 8];
    bench_worker *worker = NULL;
    json_t *said = NULL;
    bench_scratch folder;

    if (bench_scratch_open(&folder) != TANDEM_OK)
        return NULL;
    snprintf(said_path, sizeof(said_path), "%s/said", folder.path);
    if (bench_worker_start(replay_work, said_path, 1, &worker) == TANDEM_OK &&
        bench_worker_ended(worker, NULL) == TANDEM_OK)
        said = json_load_file(said_path, 0, NULL);
    bench_worker_free(worker);
    bench_scratch_release(&folder);
    return said;
}

static double number_of(const json_t *said, const char *name)
{
    return json_number_value(json_object_get(said, name));
}

static tandem_err replay_turn(void *context, bench_sample *out)
{
    json_t *said = replay_session();

    if (!said) {
        cli_fail(TANDEM_E_IO, NULL, "the session could not be replayed");
        return TANDEM_E_IO;
    }
    out->values[0] = number_of(said, "edits_per_second");
    out->rss_anon_bytes = (uint64_t)number_of(said, "rss_anon_bytes");
    out->disk_bytes_per_operation = number_of(said, "disk_bytes") / number_of(said, "edits");
    json_decref(said);
    return TANDEM_OK;
}

static tandem_err replay_ceiling(void *context, const bench_sample *subject, bench_sample *out)
{
    enum { EDITS = 260000 };
    bench_floor floor = {.records = EDITS, .record_bytes = EDIT_BYTES, .batch = EDIT_BATCH};
    bench_floor_result result = {0};
    tandem_err err = bench_floor_write(&floor, &result);

    if (err == TANDEM_OK)
        out->values[0] = (double)result.records / result.seconds;
    return err;
}

/* ---- Variants ---- */

static tandem_err measure_document(struct fold *fold)
{
    bench_run *run = fold->run;
    bench_pairs pairs;
    tandem_err err = bench_pairs_run(run, fold_turn, fold_ceiling, fold, &pairs);

    if (err != TANDEM_OK)
        return err;
    bench_print_pairs(run, &pairs, COLD_RATE, "cold_rate", "operations/s");
    bench_print_pairs(run, &pairs, LATE_US, "late", "us");
    bench_print_pairs(run, &pairs, LATE_FOLDED, "late_folded", "operations");
    return TANDEM_OK;
}

int bench_fold(bench_run *run)
{
    struct fold fold = {.run = run};
    bench_pairs pairs;
    tandem_err err = TANDEM_OK;

    if (bench_variant(run, "kv"))
        err = measure_document(&fold);
    if (err == TANDEM_OK && bench_variant(run, "text")) {
        if (access(SESSION, R_OK)) {
            if (run->only)
                err = TANDEM_E_NOT_FOUND;
            if (run->only)
                cli_fail(err, "run it where Tandem was cloned to", "there is no " SESSION " here");
        } else if ((err = bench_pairs_run(run, replay_turn, replay_ceiling, &fold, &pairs)) ==
                   TANDEM_OK) {
            bench_print_pairs(run, &pairs, 0, "rate", "edits/s");
        }
    }
    return err == TANDEM_OK ? 0 : cli_exit_code(err);
}
