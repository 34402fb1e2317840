/*
 * `tandem trace replay`: a recorded editing session, over reactors that sync while it goes on. Each
 * author writes on a reactor of its own; the others only read. All of them must come to show the
 * text that was recorded. trace_typing.h types, into one of the worlds of trace_world.h; here is
 * the command, and what came of it.
 */
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "reactor/reactor.h"
#include "tools/tandem/command.h"
#include "tools/tandem/interrupt.h"
#include "tools/tandem/recording.h"
#include "tools/tandem/trace_typing.h"
#include "tools/tandem/trace_world.h"

struct replay {
    const cli_call *call;
    const cli_world_ops *via;
    cli_recording recording;
    cli_world *world;
    char folder[256]; /* "": none */
    unsigned reactors;
    cli_typed typed;
    char why[256];
};

static tandem_reactor *reactor_of(struct replay *replay, unsigned reactor)
{
    return replay->via->reactor(replay->world, reactor);
}

/* ---- What came of it ---- */

static tandem_err check_text(struct replay *replay, unsigned reactor, bool *equal_out)
{
    tandem_document *found = NULL;
    tandem_reader reader;
    tandem_slice text;
    tandem_err err = tandem_document_read(reactor_of(replay, reactor), CLI_TRACE_COLLECTION,
                                          CLI_TRACE_DOCUMENT, NULL, NULL, UINT64_MAX, &found,
                                          replay->why);

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

/* Of an operation on the mean, as it is stored and sent. */
static double mean_bytes(struct replay *replay)
{
    tandem_operations *operations = NULL;
    tandem_operation operation;
    uint64_t bytes = 0, count = 0;

    if (tandem_operations_open(reactor_of(replay, 0), CLI_TRACE_COLLECTION, NULL, 0,
                               &operations) != TANDEM_OK)
        return 0;
    for (; tandem_operations_next(operations, &operation) == TANDEM_OK; count++)
        bytes += operation.canonical.size;
    tandem_operations_free(operations);
    return count ? (double)bytes / (double)count : 0;
}

static tandem_err add_received(void *context, const tandem_remote_status *status)
{
    *(uint64_t *)context += status->received_operations;
    return TANDEM_OK;
}

/* Of all operations that came and were taken, without what carries them. */
static tandem_err wire_bytes(struct replay *replay, uint64_t *out)
{
    uint64_t received = 0;
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; i < replay->reactors && err == TANDEM_OK; i++)
        err = tandem_remotes(replay->via->sync(replay->world, i), add_received, &received);
    *out = (uint64_t)((double)received * mean_bytes(replay));
    return err;
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
    out->rss_anon = own_memory("RssAnon");
    return wire_bytes(replay, &out->wire);
}

static void tell(const struct replay *replay, const struct outcome *outcome)
{
    double rate = outcome->seconds > 0 ? (double)replay->typed.edits / outcome->seconds : 0;

    if (replay->call->json) {
        printf("{\"edits\": %" PRIu64 ", \"jobs\": %" PRIu64 ", \"reactors\": %u, \"authors\": %u, "
               "\"seconds\": %.3f, \"edits_per_second\": %.0f, \"rss_anon_bytes\": %" PRIu64
               ", \"disk_bytes\": %" PRIu64 ", \"wire_bytes\": %" PRIu64 ", \"equal\": %s}\n",
               replay->typed.edits, replay->typed.jobs, replay->reactors, replay->recording.authors,
               outcome->seconds, rate, outcome->rss_anon, outcome->disk, outcome->wire,
               outcome->all_equal ? "true" : "false");
        return;
    }
    printf("%" PRIu64 " edits by %u author%s in %" PRIu64 " jobs, on %u reactor%s: "
           "%.1f s, %.0f edits/s\n",
           replay->typed.edits, replay->recording.authors,
           replay->recording.authors == 1 ? "" : "s", replay->typed.jobs, replay->reactors,
           replay->reactors == 1 ? "" : "s", outcome->seconds, rate);
    printf("RssAnon %.1f MiB; on disk %.1f bytes an edit and reactor; "
           "on the wire %.1f bytes an edit\n",
           (double)outcome->rss_anon / 1048576,
           (double)outcome->disk / (double)replay->typed.edits / replay->reactors,
           (double)outcome->wire / (double)replay->typed.edits);
    for (unsigned i = 0; i < replay->reactors; i++)
        printf("r%u shows %s\n", i,
               outcome->equal[i] ? "the recorded text" : "ANOTHER TEXT than was recorded");
}

/* ---- The command ---- */

static int take_options(struct replay *replay)
{
    static const cli_world_ops *const worlds[] = {&cli_memory_world, &cli_ws_world};
    const char *via = cli_value(replay->call, CLI_VIA);
    uint64_t agents;

    for (size_t i = 0; i < sizeof(worlds) / sizeof(worlds[0]) && !replay->via; i++)
        if (!via || !strcmp(via, worlds[i]->via))
            replay->via = worlds[i];
    if (!replay->via)
        return cli_fail(TANDEM_E_INVALID, "it is memory or ws", "there is no channel %s", via);
    if (!cli_number(replay->call, CLI_AGENTS, replay->recording.authors, &agents))
        return cli_exit_code(TANDEM_E_USAGE);
    if (agents < replay->recording.authors || agents > CLI_AUTHORS_MAX)
        return cli_fail(TANDEM_E_INVALID, "each author needs a reactor; at most 64 are possible",
                        "%" PRIu64 " reactors cannot replay %u author%s", agents,
                        replay->recording.authors, replay->recording.authors == 1 ? "" : "s");
    replay->reactors = (unsigned)agents;
    return 0;
}

/* From then on a signal ends it where the folder can be removed. */
static tandem_err open_world(struct replay *replay)
{
    const char *root = getenv("TMPDIR");

    cli_interrupt_begin();
    snprintf(replay->folder, sizeof(replay->folder), "%s/tandem-trace-XXXXXX",
             root ? root : "/tmp");
    if (!mkdtemp(replay->folder)) {
        replay->folder[0] = '\0';
        snprintf(replay->why, sizeof(replay->why), "no folder could be made: %s", strerror(errno));
        return TANDEM_E_IO;
    }
    return replay->via->open(replay->folder, replay->recording.authors, replay->reactors,
                             &replay->world, replay->why);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    (void)status;
    (void)kind;
    (void)at;
    return remove(path);
}

static int close_world(struct replay *replay)
{
    if (replay->via)
        replay->via->free(replay->world);
    if (replay->folder[0] && nftw(replay->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS))
        return cli_fail(TANDEM_E_IO, strerror(errno), "%s could not be removed", replay->folder);
    return 0;
}

static int run(struct replay *replay)
{
    struct outcome outcome = {0};
    double begun;
    tandem_err err;

    if ((err = open_world(replay)) == TANDEM_OK) {
        begun = seconds();
        err = cli_type(replay->call, &replay->recording, replay->world, &replay->typed,
                       replay->why);
        if (err == TANDEM_OK)
            err = replay->via->converge(replay->world, replay->typed.operations, replay->why);
        outcome.seconds = seconds() - begun;
        if (err == TANDEM_OK)
            err = look(replay, &outcome);
    }
    if (cli_interrupt())
        return 128 + cli_interrupt();
    if (err != TANDEM_OK)
        return cli_fail(err, replay->why, "the session was not replayed");
    tell(replay, &outcome);
    return outcome.all_equal ? 0 : 1;
}

int cli_trace_replay(const cli_call *call)
{
    struct replay replay = {.call = call};
    tandem_err err = cli_recording_read(call->args[0], &replay.recording, replay.why);
    int exit_code, closed;

    if (err != TANDEM_OK)
        return cli_fail(err, replay.why, "%s cannot be replayed", call->args[0]);
    malloc_trim(0); /* what parsing took is not the reactors' */
    if ((exit_code = take_options(&replay)) == 0)
        exit_code = run(&replay);
    closed = close_world(&replay);
    cli_recording_release(&replay.recording);
    return exit_code ? exit_code : closed;
}
