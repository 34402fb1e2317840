#include "tools/bench/floor.h"

#include <lmdb.h>
#include <stdlib.h>

#include "tools/bench/process.h"
#include "tools/bench/raw.h"
#include "tools/bench/scratch.h"
#include "tools/bench/worker.h"

/* ---- Writing ---- */

static tandem_err write_in(const bench_floor *floor, const char *folder, bench_floor_result *out)
{
    uint8_t *records = bench_raw_batch(floor);
    uint64_t begun_us, number = 0;
    bench_raw_store store = {0};
    tandem_err err = records ? bench_raw_open(&store, folder) : TANDEM_E_NOMEM;

    begun_us = bench_now_us();
    while (err == TANDEM_OK && bench_raw_goes_on(floor, begun_us, out->records)) {
        uint64_t count = bench_raw_batch_at(floor, out->records);
        uint64_t started_us = bench_raw_start(floor, begun_us, number);

        err = bench_raw_commit(&store, records, count, floor->record_bytes);
        out->records += count;
        bench_raw_latency(floor, number++, started_us);
    }
    out->seconds = (double)(bench_now_us() - begun_us) / 1e6;
    bench_raw_close(&store);
    free(records);
    return err;
}

struct at {
    const bench_floor *floor;
    const char *folder, *other;
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
    struct at at = {floor, first.path, second.path};
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
static tandem_err copy_all(const bench_floor *floor, bench_raw_store *from, bench_raw_store *to,
                           uint64_t *done)
{
    MDB_txn *reading, *writing;
    MDB_cursor *cursor;
    MDB_val key, value;
    int result;

    if ((result = mdb_txn_begin(from->env, NULL, MDB_RDONLY, &reading)))
        return bench_raw_fail(result);
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
    return result == MDB_NOTFOUND ? TANDEM_OK : bench_raw_fail(result);
}

static tandem_err copy_work(void *context, void *shared)
{
    const struct at *at = context;
    bench_floor_result *out = shared, filled = {0};
    bench_floor bulk = *at->floor;
    uint64_t begun_us;
    bench_raw_store from = {0}, to = {0};
    tandem_err err;

    bulk.batch = 10000;
    bulk.latencies_us = NULL;
    if ((err = write_in(&bulk, at->folder, &filled)) == TANDEM_OK &&
        (err = bench_raw_open(&from, at->folder)) == TANDEM_OK &&
        (err = bench_raw_open(&to, at->other)) == TANDEM_OK) {
        begun_us = bench_now_us();
        err = copy_all(at->floor, &from, &to, &out->records);
        out->seconds = (double)(bench_now_us() - begun_us) / 1e6;
    }
    bench_raw_close(&from);
    bench_raw_close(&to);
    return err;
}

tandem_err bench_floor_copy(const bench_floor *floor, bench_floor_result *out)
{
    return run_in_folders(copy_work, floor, out);
}

/* ---- Reading ---- */

static tandem_err read_all(bench_raw_store *from, uint64_t *records)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    uint64_t sum = 0;
    int result;

    if ((result = mdb_txn_begin(from->env, NULL, MDB_RDONLY, &txn)))
        return bench_raw_fail(result);
    if (!(result = mdb_cursor_open(txn, from->table, &cursor))) {
        while (!(result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) {
            for (size_t i = 0; i < value.mv_size; i++)
                sum += ((const uint8_t *)value.mv_data)[i];
            *records += sum != 0;
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return result == MDB_NOTFOUND ? TANDEM_OK : bench_raw_fail(result);
}

static tandem_err read_work(void *context, void *shared)
{
    const struct at *at = context;
    bench_floor_result *out = shared, filled = {0};
    uint64_t begun_us;
    bench_raw_store store = {0};
    tandem_err err;

    if ((err = write_in(at->floor, at->folder, &filled)) == TANDEM_OK &&
        (err = bench_raw_open(&store, at->folder)) == TANDEM_OK) {
        begun_us = bench_now_us();
        err = read_all(&store, &out->records);
        out->seconds = (double)(bench_now_us() - begun_us) / 1e6;
    }
    bench_raw_close(&store);
    return err;
}

tandem_err bench_floor_read(const bench_floor *floor, bench_floor_result *out)
{
    return run_in_folders(read_work, floor, out);
}
