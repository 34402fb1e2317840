/* bench_floor_replicate(): batches from LMDB to LMDB over TCP. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench/floor.h"
#include "tools/bench/process.h"
#include "tools/bench/raw.h"
#include "tools/bench/scratch.h"
#include "tools/bench/worker.h"

enum { PROCESSES_MAX = 16 };

/* The two ends of what a writer sends another process on; -1: none. */
struct way {
    int sends, receives;
};

struct replication {
    bench_floor floor; /* records: what each writer writes */
    unsigned processes, writers;
    bench_scratch folders[PROCESSES_MAX];
    struct way ways[PROCESSES_MAX][PROCESSES_MAX]; /* from, to */
    bench_worker *workers[PROCESSES_MAX];
};

/* What a process leaves to the bench. */
struct done {
    uint64_t records, begun_us, ended_us;
};

/* One of the processes. */
struct node {
    struct replication *replication;
    unsigned index;
    bench_raw_store store;
};

/* ---- Receiving ---- */

struct receiver {
    struct node *node;
    int socket;
    pthread_t thread;
};

/* Until the sender hangs up. A batch is its number of records, 8 bytes, and the records. */
static void *receive(void *context)
{
    const struct receiver *receiver = context;
    const bench_floor *floor = &receiver->node->replication->floor;
    uint8_t *records = bench_raw_batch(floor);
    uint64_t count;
    tandem_err err = records ? TANDEM_OK : TANDEM_E_NOMEM;

    while (err == TANDEM_OK && bench_raw_receive(receiver->socket, &count, sizeof(count))) {
        if (!bench_raw_receive(receiver->socket, records, count * floor->record_bytes))
            err = bench_raw_fail_socket();
        else if ((err = bench_raw_commit(&receiver->node->store, records, count,
                                         floor->record_bytes)) == TANDEM_OK &&
                 !bench_raw_send(receiver->socket, &count, sizeof(count)))
            err = bench_raw_fail_socket();
    }
    free(records);
    if (err != TANDEM_OK)
        _exit(1); /* the sender would wait */
    return NULL;
}

/* ---- Sending ---- */

/* What a writer has under way: batches by number, those before acknowledged are done. */
struct flight {
    const struct node *node;
    uint64_t sent, acknowledged;
    uint64_t *started_us; /* of the last in_flight batches */
};

/* Of the oldest batch, by everybody. */
static tandem_err take_acknowledgements(struct flight *flight)
{
    const struct replication *replication = flight->node->replication;
    const bench_floor *floor = &replication->floor;
    uint64_t count, number = flight->acknowledged;

    for (unsigned to = 0; to < replication->processes; to++) {
        int socket = replication->ways[flight->node->index][to].sends;

        if (socket >= 0 && !bench_raw_receive(socket, &count, sizeof(count)))
            return bench_raw_fail_socket();
    }
    bench_raw_latency(floor, number, flight->started_us[number % floor->in_flight]);
    flight->acknowledged++;
    return TANDEM_OK;
}

static tandem_err send_to_all(const struct node *node, const uint8_t *records, uint64_t count)
{
    const struct replication *replication = node->replication;

    for (unsigned to = 0; to < replication->processes; to++) {
        int socket = replication->ways[node->index][to].sends;

        if (socket >= 0 &&
            (!bench_raw_send(socket, &count, sizeof(count)) ||
             !bench_raw_send(socket, records, count * replication->floor.record_bytes)))
            return bench_raw_fail_socket();
    }
    return TANDEM_OK;
}

static tandem_err send_batches(struct node *node, struct flight *flight, struct done *out)
{
    const bench_floor *floor = &node->replication->floor;
    uint8_t *records = bench_raw_batch(floor);
    tandem_err err = records ? TANDEM_OK : TANDEM_E_NOMEM;

    while (err == TANDEM_OK && bench_raw_goes_on(floor, out->begun_us, out->records)) {
        uint64_t count = bench_raw_batch_at(floor, out->records);
        uint64_t number = flight->sent;

        if (flight->sent - flight->acknowledged == floor->in_flight &&
            (err = take_acknowledgements(flight)) != TANDEM_OK)
            break;
        flight->started_us[number % floor->in_flight] =
            bench_raw_start(floor, out->begun_us, number);
        flight->sent++;
        if ((err = bench_raw_commit(&node->store, records, count, floor->record_bytes)) ==
            TANDEM_OK)
            err = send_to_all(node, records, count);
        out->records += count;
        /* At a rate nothing else would take it in time. */
        while (err == TANDEM_OK && floor->rate && flight->acknowledged < flight->sent)
            err = take_acknowledgements(flight);
    }
    while (err == TANDEM_OK && flight->acknowledged < flight->sent)
        err = take_acknowledgements(flight);
    out->ended_us = bench_now_us();
    free(records);
    return err;
}

static tandem_err write_all(struct node *node, struct done *out)
{
    struct flight flight = {.node = node,
                            .started_us =
                                calloc(node->replication->floor.in_flight, sizeof(uint64_t))};
    tandem_err err;

    out->begun_us = bench_now_us();
    err = flight.started_us ? send_batches(node, &flight, out) : TANDEM_E_NOMEM;
    free(flight.started_us);
    return err;
}

/* ---- A process ---- */

static void close_end(int *end)
{
    if (*end >= 0)
        close(*end);
    *end = -1;
}

/* Keep its own ends alone: a connection ends with the process that has the other one. */
static void keep_own_ends(struct node *node)
{
    struct replication *replication = node->replication;

    for (unsigned from = 0; from < replication->processes; from++)
        for (unsigned to = 0; to < replication->processes; to++) {
            if (from != node->index)
                close_end(&replication->ways[from][to].sends);
            if (to != node->index)
                close_end(&replication->ways[from][to].receives);
        }
}

static void hang_up(struct node *node)
{
    for (unsigned to = 0; to < node->replication->processes; to++)
        close_end(&node->replication->ways[node->index][to].sends);
}

static tandem_err live(struct node *node, struct done *out)
{
    struct replication *replication = node->replication;
    struct receiver receivers[PROCESSES_MAX];
    unsigned count = 0;
    tandem_err err = TANDEM_OK;

    for (unsigned from = 0; err == TANDEM_OK && from < replication->processes; from++) {
        int socket = replication->ways[from][node->index].receives;

        if (socket < 0)
            continue;
        receivers[count] = (struct receiver){.node = node, .socket = socket};
        if (pthread_create(&receivers[count].thread, NULL, receive, &receivers[count]))
            return TANDEM_E_NOMEM;
        count++;
    }
    if (err == TANDEM_OK && node->index < replication->writers)
        err = write_all(node, out);
    hang_up(node);
    for (unsigned i = 0; i < count && err == TANDEM_OK; i++)
        pthread_join(receivers[i].thread, NULL);
    return err;
}

static tandem_err node_work(void *context, void *shared)
{
    struct node *node = context;
    tandem_err err;

    keep_own_ends(node);
    if ((err = bench_raw_open(&node->store, node->replication->folders[node->index].path)) ==
        TANDEM_OK)
        err = live(node, shared);
    if (err == TANDEM_OK)
        bench_raw_close(&node->store);
    return err;
}

/* ---- All of them ---- */

static tandem_err prepare(struct replication *replication)
{
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; err == TANDEM_OK && i < replication->processes; i++)
        err = bench_scratch_open(&replication->folders[i]);
    for (unsigned from = 0; from < replication->processes; from++)
        for (unsigned to = 0; to < replication->processes; to++) {
            struct way *way = &replication->ways[from][to];
            int ends[2] = {-1, -1};

            if (err == TANDEM_OK && from < replication->writers && from != to)
                err = bench_raw_connect(ends);
            way->sends = ends[0];
            way->receives = ends[1];
        }
    return err;
}

static tandem_err replicate(struct replication *replication)
{
    struct node none = {.replication = replication, .index = replication->processes};
    tandem_err err = prepare(replication);

    for (unsigned i = 0; err == TANDEM_OK && i < replication->processes; i++) {
        struct node node = {.replication = replication, .index = i};

        err = bench_worker_start(node_work, &node, sizeof(struct done), &replication->workers[i]);
    }
    keep_own_ends(&none);
    if (err == TANDEM_OK)
        err = bench_worker_wait_all(replication->workers, replication->processes, NULL);
    return err;
}

tandem_err bench_floor_replicate(const bench_floor *floor, bench_floor_result *out)
{
    struct replication replication = {.floor = *floor,
                                      .processes = floor->processes ? floor->processes : 2,
                                      .writers = floor->writers ? floor->writers : 1};
    uint64_t begun_us = UINT64_MAX, ended_us = 0;
    tandem_err err;

    replication.floor.records /= replication.writers;
    err = replicate(&replication);
    for (unsigned i = 0; err == TANDEM_OK && i < replication.writers; i++) {
        const struct done *done = bench_worker_shared(replication.workers[i]);

        out->records += done->records;
        begun_us = done->begun_us < begun_us ? done->begun_us : begun_us;
        ended_us = done->ended_us > ended_us ? done->ended_us : ended_us;
    }
    if (err == TANDEM_OK)
        out->seconds = (double)(ended_us - begun_us) / 1e6;
    for (unsigned i = 0; i < replication.processes; i++)
        bench_worker_free(replication.workers[i]);
    for (unsigned i = 0; i < replication.processes; i++)
        bench_scratch_release(&replication.folders[i]);
    return err;
}
