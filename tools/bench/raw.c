#include "tools/bench/raw.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/bench/fill.h"
#include "tools/bench/process.h"
#include "tools/tandem/command.h"

/* ---- One LMDB ---- */

tandem_err bench_raw_fail(int result)
{
    cli_fail(TANDEM_E_IO, mdb_strerror(result), "the floor could not be measured");
    return TANDEM_E_IO;
}

tandem_err bench_raw_open(bench_raw_store *out, const char *folder)
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
        return bench_raw_fail(result);
    return TANDEM_OK;
}

void bench_raw_close(bench_raw_store *store)
{
    if (store->env)
        mdb_env_close(store->env);
}

tandem_err bench_raw_commit(bench_raw_store *store, const uint8_t *records, uint64_t count,
                            size_t size)
{
    MDB_txn *txn;
    int result = mdb_txn_begin(store->env, NULL, 0, &txn);

    if (result)
        return bench_raw_fail(result);
    for (uint64_t i = 0; !result && i < count; i++) {
        MDB_val key = {sizeof(store->next), &store->next};
        MDB_val value = {size, (void *)(records + i * size)};

        result = mdb_put(txn, store->table, &key, &value, MDB_APPEND);
        store->next++;
    }
    if (result) {
        mdb_txn_abort(txn);
        return bench_raw_fail(result);
    }
    result = mdb_txn_commit(txn);
    return result ? bench_raw_fail(result) : TANDEM_OK;
}

/* ---- Batches ---- */

uint8_t *bench_raw_batch(const bench_floor *floor)
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

uint64_t bench_raw_start(const bench_floor *floor, uint64_t begun_us, uint64_t number)
{
    uint64_t now_us = bench_now_us();
    uint64_t due_us = begun_us + (floor->rate ? number * floor->batch * 1000000 / floor->rate : 0);

    if (due_us <= now_us)
        return now_us;
    bench_sleep_until_us(due_us);
    return due_us;
}

bool bench_raw_goes_on(const bench_floor *floor, uint64_t begun_us, uint64_t done)
{
    if (done >= floor->records)
        return false;
    return !floor->seconds_max || bench_now_us() - begun_us < floor->seconds_max * 1000000;
}

uint64_t bench_raw_batch_at(const bench_floor *floor, uint64_t done)
{
    return floor->records - done < floor->batch ? floor->records - done : floor->batch;
}

void bench_raw_latency(const bench_floor *floor, uint64_t number, uint64_t started_us)
{
    if (floor->latencies_us)
        floor->latencies_us[number] = bench_now_us() - started_us;
}

/* ---- TCP ---- */

tandem_err bench_raw_fail_socket(void)
{
    cli_fail(TANDEM_E_IO, strerror(errno), "the floor could not be measured");
    return TANDEM_E_IO;
}

bool bench_raw_send(int socket, const void *bytes, size_t size)
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

bool bench_raw_receive(int socket, void *bytes, size_t size)
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

tandem_err bench_raw_connect(int ends[2])
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
        err = bench_raw_fail_socket();
    } else {
        no_delay(ends[0]);
        no_delay(ends[1]);
    }
    if (listener >= 0)
        close(listener);
    return err;
}
