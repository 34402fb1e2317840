/*
 * `tandem trace replay`: a recorded editing session, over reactors that sync while it goes on. Each author
 * writes on a reactor of its own; the others only read. All of them must come to show the text that
 * was recorded.
 *
 * Causality. A transaction's positions are those of the text as its author saw it, so its reactor must
 * hold then what the author had seen, and nothing else. So each author pushes to a *publisher*, a reactor
 * of its own, from which the others pull: what comes from there is kept on its way
 * (tandem_harness_clog), one job in flight at a time, and let through job by job until all that was seen
 * is there. A job ends where somebody else saw the text.
 *
 * Over memory: reactors of a harness, on real stores in a folder that goes with it.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "reactor/reactor.h"
#include "sync/harness.h"
#include "tools/tandem/command.h"
#include "tools/tandem/progress.h"
#include "tools/tandem/recording.h"

enum {
    JOB_PATCHES = 400,      /* of a job: what follows is another one */
    JOB_TEXT_BYTES = 65536, /* that it inserts */
    LET_THROUGH_MS = 120000, /* of virtual time, for one job to come */
    CONVERGE_MS = 600000,
};

static const char collection[] = "trace", document[] = "text";

struct replay {
    const cli_call *call;
    cli_recording recording;
    tandem_harness *harness;
    char folder[256];
    unsigned reactors;
    uint32_t done[CLI_AUTHORS_MAX];                      /* transactions of each */
    uint64_t seqs[CLI_AUTHORS_MAX];                      /* operations of each, so far */
    uint64_t *seq_after[CLI_AUTHORS_MAX];                /* … when it had so many transactions */
    uint64_t held[CLI_AUTHORS_MAX][CLI_AUTHORS_MAX];     /* by whom, of whom: seqs */
    uint64_t edits, jobs;
    char why[256];
};

static const char *name_of(unsigned reactor)
{
    static char names[CLI_AUTHORS_MAX][16];

    snprintf(names[reactor], sizeof(names[reactor]), "r%u", reactor);
    return names[reactor];
}

static const char *publisher_of(unsigned author)
{
    static char names[CLI_AUTHORS_MAX][16];

    snprintf(names[author], sizeof(names[author]), "p%u", author);
    return names[author];
}

static tandem_reactor *reactor_of(struct replay *replay, unsigned reactor)
{
    return tandem_harness_reactor(replay->harness, name_of(reactor));
}

/* ---- The world ---- */

/* Keep what an author's publisher sends to another one. */
static void hold(struct replay *replay, unsigned from, unsigned to, bool held)
{
    tandem_harness_clog(replay->harness, publisher_of(from), name_of(to), held);
}

static void hold_all(struct replay *replay, bool held)
{
    for (unsigned i = 0; i < replay->recording.authors; i++)
        for (unsigned k = 0; k < replay->recording.authors; k++)
            if (i != k)
                hold(replay, i, k, held);
}

static tandem_err connect_one_way(struct replay *replay, unsigned author, const char *publisher,
                                  tandem_direction direction)
{
    tandem_share share = TANDEM_SHARE_INIT;
    tandem_err err = tandem_harness_connect(replay->harness, name_of(author), publisher);

    share.direction = direction;
    return err == TANDEM_OK
               ? tandem_remote_set_share(tandem_harness_sync(replay->harness, name_of(author)),
                                         publisher, &share)
               : err;
}

static tandem_err add_publishers(struct replay *replay)
{
    unsigned authors = replay->recording.authors;
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; i < authors && authors > 1 && err == TANDEM_OK; i++) {
        if ((err = tandem_harness_add(replay->harness, publisher_of(i), 0)) != TANDEM_OK)
            break;
        for (unsigned k = 0; k < authors && err == TANDEM_OK; k++)
            err = connect_one_way(replay, k, publisher_of(i),
                                  k == i ? TANDEM_DIRECTION_PUSH : TANDEM_DIRECTION_PULL);
    }
    return err;
}

/* Each reader with one of the authors. */
static tandem_err connect_all(struct replay *replay)
{
    unsigned authors = replay->recording.authors;
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; i < replay->reactors && err == TANDEM_OK; i++)
        err = tandem_harness_add(replay->harness, name_of(i), 0);
    for (unsigned i = authors; i < replay->reactors && err == TANDEM_OK; i++)
        err = tandem_harness_connect(replay->harness, name_of(i), name_of(i % authors));
    if (err == TANDEM_OK)
        err = add_publishers(replay);
    if (err == TANDEM_OK)
        err = tandem_harness_run_until_idle(replay->harness, LET_THROUGH_MS);
    hold_all(replay, true);
    return err;
}

static tandem_err open_world(struct replay *replay)
{
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    const char *root = getenv("TMPDIR");
    tandem_err err;

    snprintf(replay->folder, sizeof(replay->folder), "%s/tandem-trace-XXXXXX", root ? root : "/tmp");
    if (!mkdtemp(replay->folder)) {
        replay->folder[0] = '\0';
        snprintf(replay->why, sizeof(replay->why), "no folder could be made: %s", strerror(errno));
        return TANDEM_E_IO;
    }
    options.folder = replay->folder;
    options.sync = (tandem_sync_options)TANDEM_SYNC_OPTIONS_INIT;
    if (replay->recording.authors > 1)
        options.sync.window_jobs = 1;
    if ((err = tandem_harness_open(&options, &replay->harness)) != TANDEM_OK)
        return err;
    return connect_all(replay);
}

/* ---- Editing ---- */

static tandem_err position_of(struct replay *replay, unsigned reactor, uint64_t *out)
{
    return tandem_position(reactor_of(replay, reactor), out);
}

/* Let what one author has written through to another one, up to a seq. */
static tandem_err let_through(struct replay *replay, unsigned from, unsigned to, uint64_t seq)
{
    uint64_t *held = &replay->held[to][from], before, now;
    uint64_t end_ms = tandem_harness_now_ms(replay->harness) + LET_THROUGH_MS;
    tandem_err err = position_of(replay, to, &before);

    if (err != TANDEM_OK || *held >= seq)
        return err;
    hold(replay, from, to, false);
    do {
        tandem_harness_step(replay->harness);
        err = position_of(replay, to, &now);
    } while (err == TANDEM_OK && now - before < seq - *held &&
             tandem_harness_now_ms(replay->harness) < end_ms);
    hold(replay, from, to, true);
    if (err == TANDEM_OK && now - before != seq - *held) {
        snprintf(replay->why, sizeof(replay->why),
                 "author %u should hold %" PRIu64 " operations more of author %u, and holds %" PRIu64,
                 to, seq - *held, from, now - before);
        return TANDEM_E_STATE;
    }
    *held = seq;
    return err;
}

/* What its author had seen is to be there. */
static tandem_err catch_up(struct replay *replay, const cli_transaction *transaction)
{
    tandem_err err = TANDEM_OK;

    for (uint32_t a = 0; a < replay->recording.authors && err == TANDEM_OK; a++)
        if (a != transaction->author && transaction->seen[a])
            err = let_through(replay, a, transaction->author,
                              replay->seq_after[a][transaction->seen[a]]);
    return err;
}

static bool is_nothing(const cli_patch *patch)
{
    return !patch->deleted && !patch->inserted[0];
}

static void write_input(tandem_writer *out, const cli_patch *patch)
{
    tandem_write_map(out, 1 + (patch->deleted > 0) + (patch->inserted[0] != '\0'));
    tandem_write_text(out, "at");
    tandem_write_uint(out, patch->at);
    if (patch->deleted) {
        tandem_write_text(out, "delete");
        tandem_write_uint(out, patch->deleted);
    }
    if (patch->inserted[0]) {
        tandem_write_text(out, "insert");
        tandem_write_text(out, patch->inserted);
    }
}

static tandem_err execute(struct replay *replay, unsigned author, const cli_patch *patches,
                          uint32_t count)
{
    tandem_input operations[JOB_PATCHES];
    size_t ends[JOB_PATCHES];
    tandem_job job = {.collection = collection, .document = document, .model = "text",
                      .operations = operations};
    tandem_receipt receipt;
    tandem_writer inputs;
    char why[TANDEM_WHY_BYTES] = "";
    tandem_err err;

    tandem_writer_init(&inputs);
    for (uint32_t i = 0; i < count; i++) {
        if (is_nothing(&patches[i]))
            continue;
        write_input(&inputs, &patches[i]);
        ends[job.count++] = inputs.size;
    }
    for (size_t i = 0; i < job.count; i++) {
        size_t begin = i ? ends[i - 1] : 0;

        operations[i] = (tandem_input){
            .type = "EDIT", .input = tandem_slice_of(inputs.bytes + begin, ends[i] - begin)};
    }
    err = tandem_writer_err(&inputs);
    if (err == TANDEM_OK && job.count) {
        err = tandem_execute(reactor_of(replay, author), &job, &receipt, why);
        replay->edits += job.count;
        replay->jobs++;
    }
    if (err == TANDEM_OK && job.count)
        replay->seqs[author] = receipt.seq;
    if (err != TANDEM_OK)
        snprintf(replay->why, sizeof(replay->why), "the edit of author %u failed: %s", author, why);
    tandem_writer_release(&inputs);
    return err;
}

/* How many transactions from this one on are one job. */
static uint32_t job_size(const cli_recording *recording, uint32_t first)
{
    const cli_transaction *begin = &recording->transactions[first], *last = begin;
    uint32_t count = 1, patches = begin->patch_count;
    size_t bytes = 0;

    for (; first + count < recording->transaction_count && !last->ends_part; count++) {
        const cli_transaction *next = &recording->transactions[first + count];

        for (uint32_t i = 0; i < next->patch_count; i++)
            bytes += strlen(recording->patches[next->first_patch + i].inserted);
        if (next->author != begin->author || patches + next->patch_count > JOB_PATCHES ||
            bytes > JOB_TEXT_BYTES)
            break;
        for (uint32_t a = 0; a < recording->authors; a++)
            if (a != begin->author && next->seen[a] != begin->seen[a])
                return count;
        patches += next->patch_count;
        last = next;
    }
    return count;
}

/* A transaction of more patches than a job takes is several. */
static tandem_err execute_all(struct replay *replay, unsigned author, const cli_patch *patches,
                              uint32_t count)
{
    tandem_err err = TANDEM_OK;

    for (uint32_t at = 0; at < count && err == TANDEM_OK; at += JOB_PATCHES)
        err = execute(replay, author, patches + at,
                      count - at < JOB_PATCHES ? count - at : JOB_PATCHES);
    return err;
}

static tandem_err begin_text(struct replay *replay)
{
    const cli_patch patch = {.inserted = replay->recording.start};
    tandem_err err;

    if (!patch.inserted[0])
        return TANDEM_OK;
    if ((err = execute(replay, 0, &patch, 1)) != TANDEM_OK)
        return err;
    for (uint32_t a = 1; a < replay->recording.authors && err == TANDEM_OK; a++)
        err = let_through(replay, 0, a, replay->seqs[0]);
    return err;
}

static tandem_err edit_all(struct replay *replay)
{
    const cli_recording *recording = &replay->recording;
    cli_progress progress;
    tandem_err err = begin_text(replay);

    cli_progress_begin(&progress, replay->call, 0, "edits");
    for (uint32_t i = 0, count; i < recording->transaction_count && err == TANDEM_OK; i += count) {
        const cli_transaction *begin = &recording->transactions[i];
        uint32_t author = begin->author, patches = 0;

        count = job_size(recording, i);
        for (uint32_t k = 0; k < count; k++)
            patches += recording->transactions[i + k].patch_count;
        if ((err = catch_up(replay, begin)) == TANDEM_OK)
            err = execute_all(replay, author, &recording->patches[begin->first_patch], patches);
        for (uint32_t k = 0; k < count; k++)
            replay->seq_after[author][++replay->done[author]] = replay->seqs[author];
        cli_progress_at(&progress, 0, replay->edits);
    }
    cli_progress_end(&progress);
    return err;
}

static tandem_err converge(struct replay *replay)
{
    hold_all(replay, false);
    return tandem_harness_run_until_converged(replay->harness, CONVERGE_MS, replay->why);
}

/* ---- What came of it ---- */

static tandem_err check_text(struct replay *replay, unsigned reactor, bool *equal_out)
{
    tandem_document *found = NULL;
    tandem_reader reader;
    tandem_slice text;
    tandem_err err = tandem_document_read(reactor_of(replay, reactor), collection, document, NULL,
                                          NULL, UINT64_MAX, &found, replay->why);

    if (err != TANDEM_OK)
        return err;
    reader = tandem_reader_of(tandem_document_state(found));
    *equal_out = tandem_read_string(&reader, &text) == TANDEM_OK &&
                 tandem_slice_equal(text, tandem_slice_text(replay->recording.end));
    tandem_document_free(found);
    return TANDEM_OK;
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A line of /proc/self/status, in bytes. */
static uint64_t own_memory(const char *name)
{
    FILE *file = fopen("/proc/self/status", "r");
    unsigned long long kib = 0;
    char line[128];

    while (file && fgets(line, sizeof(line), file))
        if (!strncmp(line, name, strlen(name)))
            sscanf(line + strlen(name), ": %llu", &kib);
    if (file)
        fclose(file);
    return kib * 1024;
}

static tandem_err add_received(void *context, const tandem_remote_status *status)
{
    *(uint64_t *)context += status->received_operations;
    return TANDEM_OK;
}

/* Of an operation on the mean, as it is stored and sent. */
static double mean_bytes(struct replay *replay)
{
    tandem_operations *operations = NULL;
    tandem_operation operation;
    uint64_t bytes = 0, count = 0;

    if (tandem_operations_open(reactor_of(replay, 0), collection, NULL, 0, &operations) != TANDEM_OK)
        return 0;
    for (; tandem_operations_next(operations, &operation) == TANDEM_OK; count++)
        bytes += operation.canonical.size;
    tandem_operations_free(operations);
    return count ? (double)bytes / (double)count : 0;
}

/* Of all operations that were received, by publishers, too, without what carries them. */
static uint64_t wire_bytes(struct replay *replay)
{
    uint64_t received = 0;

    for (unsigned i = 0; i < replay->reactors; i++)
        tandem_remotes(tandem_harness_sync(replay->harness, name_of(i)), add_received, &received);
    for (unsigned i = 0; i < replay->recording.authors && replay->recording.authors > 1; i++)
        tandem_remotes(tandem_harness_sync(replay->harness, publisher_of(i)), add_received,
                       &received);
    return (uint64_t)((double)received * mean_bytes(replay));
}

struct outcome {
    double seconds;
    uint64_t rss_anon, disk, wire, operations;
    bool equal[CLI_AUTHORS_MAX];
    bool all_equal;
};

static tandem_err look(struct replay *replay, struct outcome *out)
{
    tandem_err err = TANDEM_OK;

    out->all_equal = true;
    for (unsigned i = 0; i < replay->reactors && err == TANDEM_OK; i++) {
        tandem_stat stat;

        if ((err = check_text(replay, i, &out->equal[i])) != TANDEM_OK ||
            (err = tandem_stat_get(reactor_of(replay, i), &stat)) != TANDEM_OK)
            return err;
        out->all_equal = out->all_equal && out->equal[i];
        out->disk += stat.bytes + stat.index_bytes;
        out->operations = stat.operations;
    }
    out->wire = wire_bytes(replay);
    out->rss_anon = own_memory("RssAnon");
    return err;
}

static void tell(const struct replay *replay, const struct outcome *outcome)
{
    double rate = outcome->seconds > 0 ? (double)replay->edits / outcome->seconds : 0;

    if (replay->call->json) {
        printf("{\"edits\": %" PRIu64 ", \"jobs\": %" PRIu64 ", \"reactors\": %u, \"authors\": %u, "
               "\"seconds\": %.3f, \"edits_per_second\": %.0f, \"rss_anon_bytes\": %" PRIu64
               ", \"disk_bytes\": %" PRIu64 ", \"wire_bytes\": %" PRIu64 ", \"equal\": %s}\n",
               replay->edits, replay->jobs, replay->reactors, replay->recording.authors,
               outcome->seconds, rate, outcome->rss_anon, outcome->disk, outcome->wire,
               outcome->all_equal ? "true" : "false");
        return;
    }
    printf("%" PRIu64 " edits by %u author%s in %" PRIu64 " jobs, on %u reactor%s: %.1f s, %.0f edits/s\n",
           replay->edits, replay->recording.authors, replay->recording.authors == 1 ? "" : "s",
           replay->jobs, replay->reactors, replay->reactors == 1 ? "" : "s", outcome->seconds, rate);
    printf("RssAnon %.1f MiB; on disk %.1f bytes an edit and reactor; on the wire %.1f bytes an edit\n",
           (double)outcome->rss_anon / 1048576,
           (double)outcome->disk / (double)replay->edits / replay->reactors,
           (double)outcome->wire / (double)replay->edits);
    for (unsigned i = 0; i < replay->reactors; i++)
        printf("%s shows %s\n", name_of(i),
               outcome->equal[i] ? "the recorded text" : "ANOTHER TEXT than was recorded");
}

/* ---- The command ---- */

static int take_options(struct replay *replay)
{
    const char *via = cli_value(replay->call, CLI_VIA);
    uint64_t agents;

    if (via && !strcmp(via, "ws"))
        return cli_fail(TANDEM_E_UNSUPPORTED, "only --via memory is there so far",
                        "the session cannot be replayed");
    if (via && strcmp(via, "memory") != 0)
        return cli_fail(TANDEM_E_INVALID, "it is memory or ws", "there is no channel %s", via);
    if (!cli_number(replay->call, CLI_AGENTS, replay->recording.authors, &agents))
        return cli_exit_code(TANDEM_E_USAGE);
    if (agents < replay->recording.authors || agents > CLI_AUTHORS_MAX)
        return cli_fail(TANDEM_E_INVALID, "each author needs a reactor; at most 64 are possible",
                        "%" PRIu64 " reactors cannot replay %u author%s", agents,
                        replay->recording.authors, replay->recording.authors == 1 ? "" : "s");
    replay->reactors = (unsigned)agents;
    for (uint32_t a = 0; a < replay->recording.authors; a++)
        if (!(replay->seq_after[a] =
                  calloc(replay->recording.transaction_count + 1, sizeof(uint64_t))))
            return cli_fail(TANDEM_E_NOMEM, NULL, "the session cannot be replayed");
    return 0;
}

static int run(struct replay *replay)
{
    struct outcome outcome = {0};
    double begun;
    tandem_err err;

    if ((err = open_world(replay)) == TANDEM_OK) {
        begun = seconds();
        if ((err = edit_all(replay)) == TANDEM_OK && (err = converge(replay)) == TANDEM_OK) {
            outcome.seconds = seconds() - begun;
            err = look(replay, &outcome);
        }
    }
    if (err != TANDEM_OK)
        return cli_fail(err, replay->why, "the session was not replayed");
    tell(replay, &outcome);
    return outcome.all_equal ? 0 : 1;
}

int cli_trace_replay(const cli_call *call)
{
    struct replay replay = {.call = call};
    tandem_err err = cli_recording_read(call->args[0], &replay.recording, replay.why);
    int exit_code;

    if (err != TANDEM_OK)
        return cli_fail(err, replay.why, "%s cannot be replayed", call->args[0]);
    malloc_trim(0); /* what parsing took is not the reactors' */
    if ((exit_code = take_options(&replay)) == 0)
        exit_code = run(&replay);
    tandem_harness_free(replay.harness);
    if (replay.folder[0])
        rmdir(replay.folder);
    for (uint32_t a = 0; a < CLI_AUTHORS_MAX; a++)
        free(replay.seq_after[a]);
    cli_recording_release(&replay.recording);
    return exit_code;
}
