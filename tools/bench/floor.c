#include "tools/bench/floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <lmdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench/fill.h"
#include "tools/bench/process.h"
#include "tools/bench/scratch.h"
#include "tools/bench/worker.h"
#include "tools/tandem/command.h"

/* ---- One LMDB ---- */

typedef struct raw_store {
    MDB_env *env;
    MDB_dbi table;
    uint64_t next; /* key */
} raw_store;

static tandem_err fail_lmdb(int result)
{
    cli_fail(TANDEM_E_IO, mdb_strerror(result), "the floor could not be measured");
    return TANDEM_E_IO;
}

static tandem_err raw_open(raw_store *out, const char *folder)
{
    const size_t map_bytes = (size_t)64 << 30;
    MDB_txn *txn = NULL;
    int result;

    memset(out, 0, sizeof(*out));
    if ((result = mdb_env_create(&out->env)) || (result = mdb_env_set_mapsize(out->env, map_bytes)) ||
        (result = mdb_env_open(out->env, folder, 0, 0600)) ||
        (result = mdb_txn_begin(out->env, NULL, 0, &txn)) ||
        (result = mdb_dbi_open(txn, NULL, MDB_INTEGERKEY | MDB_CREATE, &out->table)) ||
        (result = mdb_txn_commit(txn)))
        return fail_lmdb(result);
    return TANDEM_OK;
}

static void raw_close(raw_store *raw)
{
    if (raw->env)
        mdb_env_close(raw->env);
}

/* One transaction of count records, each of size bytes. */
static tandem_err raw_commit(raw_store *raw, const uint8_t *records, uint64_t count, size_t size)
{
    MDB_txn *txn;
    int result = mdb_txn_begin(raw->env, NULL, 0, &txn);

    if (result)
        return fail_lmdb(result);
    for (uint64_t i = 0; !result && i < count; i++) {
        MDB_val key = {sizeof(raw->next), &raw->next};
        MDB_val value = {size, (void *)(records + i * size)};

        result = mdb_put(txn, raw->table, &key, &value, MDB_APPEND);
        raw->next++;
    }
    if (result) {
        mdb_txn_abort(txn);
        return fail_lmdb(result);
    }
    result = mdb_txn_commit(txn);
    return result ? fail_lmdb(result) : TANDEM_OK;
}

/* ---- Batches ---- */

/* The records of one batch, the same each time but for what LMDB does not look at. */
static uint8_t *batch_new(const bench_floor *floor)
{
    uint8_t payload[BENCH_PAYLOAD_BYTES], *records = calloc(floor->batch, floor->record_bytes);
    size_t taken =
        floor->record_bytes < sizeof(payload) ? floor->record_bytes : sizeof(payload);

    for (uint64_t i = 0; records && i < floor->batch; i++) {
        bench_payload(i, payload);
        memcpy(records + i * floor->record_bytes, payload, taken);
    }
    return records;
}

/* When the number'th batch is due, or now. */
static uint64_t due_us(const bench_floor *floor, uint64_t begun_us, uint64_t number)
{
    return floor->rate ? begun_us + number * floor->batch * 1000000 / floor->rate : bench_now_us();
}

static bool goes_on(const bench_floor *floor, uint64_t begun_us, uint64_t done)
{
    if (done >= floor->records)
        return false;
    return !floor->seconds_max || bench_now_us() - begun_us < floor->seconds_max * 1000000;
}

static uint64_t batch_at(const bench_floor *floor, uint64_t done)
{
    return floor->records - done < floor->batch ? floor->records - done : floor->batch;
}

static void latency(const bench_floor *floor, uint64_t number, uint64_t due)
{
    if (floor->latencies_us)
        floor->latencies_us[number] = bench_now_us() - due;
}

/* ---- Writing ---- */

static tandem_err write_in(const bench_floor *floor, const char *folder, bench_floor_result *out)
{
    uint8_t *records = batch_new(floor);
    uint64_t begun_us, number = 0;
    raw_store store;
    tandem_err err = records ? raw_open(&store, folder) : TANDEM_E_NOMEM;

    begun_us = bench_now_us();
    while (err == TANDEM_OK && goes_on(floor, begun_us, out->records)) {
        uint64_t count = batch_at(floor, out->records), due = due_us(floor, begun_us, number);

        bench_sleep_until_us(due);
        err = raw_commit(&store, records, count, floor->record_bytes);
        out->records += count;
        latency(floor, number++, due);
    }
    out->seconds = (double)(bench_now_us() - begun_us) / 1e6;
    if (records)
        raw_close(&store);
    free(records);
    return err;
}

struct at {
    const bench_floor *floor;
    const char *folder, *other;
    int socket;  /* its end of the connection, and … */
    int not_its; /* … the other end, if that came along at fork() */
};

static tandem_err write_work(void *context, void *shared)
{
    const struct at *at = context;

    return write_in(at->floor, at->folder, shared);
}

/* Run some work with two scratch folders. */
static tandem_err run_in_folders(bench_work_fn work, const bench_floor *floor,
                                 bench_floor_result *out)
{
    bench_scratch first, second = {""};
    struct at at = {floor, first.path, second.path, -1, -1};
    tandem_err err = bench_scratch_open(&first);

    if (err == TANDEM_OK && (err = bench_scratch_open(&second)) == TANDEM_OK)
        err = bench_worker_run(work, &at, out, sizeof(*out), NULL);
    bench_scratch_release(&first);
    bench_scratch_release(&second);
    return err;
}

tandem_err bench_floor_write(const bench_floor *floor, bench_floor_result *out)
{
    return run_in_folders(write_work, floor, out);
}

/* ---- Copying ---- */

/* Batches of what a cursor finds; what LMDB gives is copied once, by the other LMDB. */
static tandem_err copy_all(const bench_floor *floor, raw_store *from, raw_store *to, uint64_t *done)
{
    MDB_txn *reading, *writing;
    MDB_cursor *cursor;
    MDB_val key, value;
    int result;

    if ((result = mdb_txn_begin(from->env, NULL, MDB_RDONLY, &reading)))
        return fail_lmdb(result);
    if (!(result = mdb_cursor_open(reading, from->table, &cursor))) {
        while (!result && !(result = mdb_txn_begin(to->env, NULL, 0, &writing))) {
            for (uint64_t i = 0; !result && i < floor->batch; i++)
                if (!(result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) &&
                    !(result = mdb_put(writing, to->table, &key, &value, MDB_APPEND)))
                    ++*done;
            if (!result || result == MDB_NOTFOUND) {
                int committed = mdb_txn_commit(writing);

                result = committed ? committed : result;
            } else {
                mdb_txn_abort(writing);
            }
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(reading);
    return result == MDB_NOTFOUND ? TANDEM_OK : fail_lmdb(result);
}

static tandem_err copy_work(void *context, void *shared)
{
    const struct at *at = context;
    bench_floor_result *out = shared, filled = {0};
    bench_floor bulk = *at->floor;
    uint64_t begun_us;
    raw_store from = {0}, to = {0};
    tandem_err err;

    bulk.batch = 10000;
    bulk.latencies_us = NULL;
    if ((err = write_in(&bulk, at->folder, &filled)) == TANDEM_OK &&
        (err = raw_open(&from, at->folder)) == TANDEM_OK &&
        (err = raw_open(&to, at->other)) == TANDEM_OK) {
        begun_us = bench_now_us();
        err = copy_all(at->floor, &from, &to, &out->records);
        out->seconds = (double)(bench_now_us() - begun_us) / 1e6;
    }
    raw_close(&from);
    raw_close(&to);
    return err;
}

tandem_err bench_floor_copy(const bench_floor *floor, bench_floor_result *out)
{
    return run_in_folders(copy_work, floor, out);
}

/* ---- Reading ---- */

static tandem_err read_all(raw_store *from, uint64_t *records)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    uint64_t sum = 0;
    int result;

    if ((result = mdb_txn_begin(from->env, NULL, MDB_RDONLY, &txn)))
        return fail_lmdb(result);
    if (!(result = mdb_cursor_open(txn, from->table, &cursor))) {
        while (!(result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) {
            for (size_t i = 0; i < value.mv_size; i++)
                sum += ((const uint8_t *)value.mv_data)[i];
            *records += sum != 0;
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return result == MDB_NOTFOUND ? TANDEM_OK : fail_lmdb(result);
}

static tandem_err read_work(void *context, void *shared)
{
    const struct at *at = context;
    bench_floor_result *out = shared, filled = {0};
    uint64_t begun_us;
    raw_store store = {0};
    tandem_err err;

    if ((err = write_in(at->floor, at->folder, &filled)) == TANDEM_OK &&
        (err = raw_open(&store, at->folder)) == TANDEM_OK) {
        begun_us = bench_now_us();
        err = read_all(&store, &out->records);
        out->seconds = (double)(bench_now_us() - begun_us) / 1e6;
    }
    raw_close(&store);
    return err;
}

tandem_err bench_floor_read(const bench_floor *floor, bench_floor_result *out)
{
    return run_in_folders(read_work, floor, out);
}

/* ---- Replicating ---- */

static tandem_err fail_socket(void)
{
    cli_fail(TANDEM_E_IO, strerror(errno), "the floor could not be measured");
    return TANDEM_E_IO;
}

static bool send_all(int socket, const void *bytes, size_t size)
{
    const uint8_t *from = bytes;

    while (size) {
        ssize_t sent = send(socket, from, size, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        from += sent;
        size -= (size_t)sent;
    }
    return true;
}

static bool receive_all(int socket, void *bytes, size_t size)
{
    uint8_t *to = bytes;

    while (size) {
        ssize_t got = recv(socket, to, size, MSG_WAITALL);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        to += got;
        size -= (size_t)got;
    }
    return true;
}

static void no_delay(int socket)
{
    int on = 1;

    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* B: until A hangs up. A batch is its number of records, 8 bytes, and the records. */
static tandem_err receive_work(void *context, void *shared)
{
    const struct at *at = context;
    const bench_floor *floor = at->floor;
    uint8_t *records = batch_new(floor);
    uint64_t count;
    raw_store store = {0};
    tandem_err err = records ? raw_open(&store, at->other) : TANDEM_E_NOMEM;

    while (err == TANDEM_OK && receive_all(at->socket, &count, sizeof(count))) {
        if (!receive_all(at->socket, records, count * floor->record_bytes))
            err = fail_socket();
        else if ((err = raw_commit(&store, records, count, floor->record_bytes)) == TANDEM_OK &&
                 !send_all(at->socket, &count, sizeof(count)))
            err = fail_socket();
    }
    raw_close(&store);
    free(records);
    return err;
}

/* What A has under way: batches by number, those before acknowledged are done. */
struct flight {
    const struct at *at;
    uint64_t sent, acknowledged;
    uint64_t *due; /* of the last in_flight batches */
};

static tandem_err take_acknowledgement(struct flight *flight)
{
    const bench_floor *floor = flight->at->floor;
    uint64_t count, number = flight->acknowledged;

    if (!receive_all(flight->at->socket, &count, sizeof(count)))
        return fail_socket();
    latency(floor, number, flight->due[number % floor->in_flight]);
    flight->acknowledged++;
    return TANDEM_OK;
}

static tandem_err send_batches(struct flight *flight, bench_floor_result *out)
{
    const bench_floor *floor = flight->at->floor;
    uint8_t *records = batch_new(floor);
    uint64_t begun_us;
    raw_store store = {0};
    tandem_err err = records ? raw_open(&store, flight->at->folder) : TANDEM_E_NOMEM;

    begun_us = bench_now_us();
    while (err == TANDEM_OK && goes_on(floor, begun_us, out->records)) {
        uint64_t count = batch_at(floor, out->records), due = due_us(floor, begun_us, flight->sent);

        if (flight->sent - flight->acknowledged == floor->in_flight &&
            (err = take_acknowledgement(flight)) != TANDEM_OK)
            break;
        bench_sleep_until_us(due);
        flight->due[flight->sent++ % floor->in_flight] = due;
        if ((err = raw_commit(&store, records, count, floor->record_bytes)) == TANDEM_OK &&
            (!send_all(flight->at->socket, &count, sizeof(count)) ||
             !send_all(flight->at->socket, records, count * floor->record_bytes)))
            err = fail_socket();
        out->records += count;
        /* At a rate nothing else would take it in time. */
        while (err == TANDEM_OK && floor->rate && flight->acknowledged < flight->sent)
            err = take_acknowledgement(flight);
    }
    while (err == TANDEM_OK && flight->acknowledged < flight->sent)
        err = take_acknowledgement(flight);
    out->seconds = (double)(bench_now_us() - begun_us) / 1e6;
    raw_close(&store);
    free(records);
    return err;
}

static tandem_err send_work(void *context, void *shared)
{
    const struct at *at = context;
    struct flight flight = {.at = at, .due = calloc(at->floor->in_flight, sizeof(uint64_t))};
    tandem_err err;

    close(at->not_its);
    err = flight.due ? send_batches(&flight, shared) : TANDEM_E_NOMEM;
    free(flight.due);
    return err;
}

/* Two ends of one TCP connection on loopback. */
static tandem_err connect_ends(int ends[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    tandem_err err = TANDEM_OK;

    ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ends[1] = -1;
    if (listener < 0 || ends[0] < 0 || bind(listener, (struct sockaddr *)&address, size) ||
        getsockname(listener, (struct sockaddr *)&address, &size) || listen(listener, 1) ||
        connect(ends[0], (struct sockaddr *)&address, size) ||
        (ends[1] = accept(listener, NULL, NULL)) < 0) {
        err = fail_socket();
    } else {
        no_delay(ends[0]);
        no_delay(ends[1]);
    }
    if (listener >= 0)
        close(listener);
    return err;
}

static void close_end(int *end)
{
    if (*end >= 0)
        close(*end);
    *end = -1;
}

static tandem_err replicate(const struct at *folders, int ends[2], bench_floor_result *out)
{
    struct at receiving = *folders, sending = *folders;
    bench_worker *receiver = NULL, *sender = NULL;
    tandem_err err, received = TANDEM_OK;

    sending.socket = ends[0];
    sending.not_its = ends[1];
    receiving.socket = ends[1];
    /* The sender first: each end is held by one process, so that it ends with it. */
    if ((err = bench_worker_start(send_work, &sending, sizeof(*out), &sender)) == TANDEM_OK) {
        close_end(&ends[0]);
        err = bench_worker_start(receive_work, &receiving, 1, &receiver);
        close_end(&ends[1]);
    }
    if (err == TANDEM_OK) {
        err = bench_worker_wait(sender, 0, NULL);
        memcpy(out, bench_worker_shared(sender), sizeof(*out));
        received = bench_worker_wait(receiver, 0, NULL);
    }
    bench_worker_free(sender);
    bench_worker_free(receiver);
    return err != TANDEM_OK ? err : received;
}

tandem_err bench_floor_replicate(const bench_floor *floor, bench_floor_result *out)
{
    bench_scratch first, second = {""};
    struct at folders = {floor, first.path, second.path, -1, -1};
    int ends[2] = {-1, -1};
    tandem_err err = bench_scratch_open(&first);

    if (err == TANDEM_OK && (err = bench_scratch_open(&second)) == TANDEM_OK &&
        (err = connect_ends(ends)) == TANDEM_OK)
        err = replicate(&folders, ends, out);
    close_end(&ends[0]);
    close_end(&ends[1]);
    bench_scratch_release(&first);
    bench_scratch_release(&second);
    return err;
}
