#include "store/sync_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "store/msgpack.h"
#include "store/operation.h"
#include "store/probe.h"

enum {
    TABLE_REMOTES,
    TABLE_META,
    SYNC_FORMAT_VERSION = 1,
    REMOTE_VERSION = 1,
    REMOTE_ITEMS = 5,
    REMOTE_ITEMS_MIN = 3, /* without held, and what is behind it */
    RETRY_ITEMS = 6,
    CHECKSUM_BYTES = 8,
    /* What a record of a later version may grow to before it is no record of ours. */
    RECORD_DEPTH_MAX = 16,
    RECORD_ITEMS_MAX = 65536,
};

const char *const td_sync_store_tables[] = {"remotes", "meta"};
const unsigned td_sync_store_table_count = 2;

struct td_sync_store {
    tandem_env *env;
    td_store *store;
    bool recover_due;
    tandem_writer writer;
};

/* ---- Records ---- */

static uint64_t checksum(tandem_slice name, tandem_slice body)
{
    uint64_t seed = XXH3_64bits(name.bytes, name.size);

    return XXH3_64bits_withSeed(body.bytes, body.size, seed);
}

static bool url_valid(tandem_slice url)
{
    size_t scheme = 0;

    for (size_t i = 0; i < url.size; i++)
        if (url.bytes[i] <= 0x20 || url.bytes[i] == 0x7f)
            return false;
    while (scheme < url.size && url.bytes[scheme] != ':')
        scheme++;
    return scheme >= 1 && scheme + 1 < url.size;
}

/* Into sync->writer. */
static tandem_err encode(td_sync_store *sync, tandem_slice name, const td_remote_record *record)
{
    tandem_writer *writer = &sync->writer;
    tandem_slice all;
    uint8_t sum[CHECKSUM_BYTES] = {0};

    tandem_writer_clear(writer);
    tandem_write_raw(writer, tandem_slice_of(sum, sizeof(sum)));
    tandem_write_array(writer, REMOTE_ITEMS);
    tandem_write_uint(writer, REMOTE_VERSION);
    tandem_write_text(writer, record->url);
    tandem_write_bool(writer, record->paused);
    tandem_write_uint(writer, record->held);
    tandem_write_array(writer, RETRY_ITEMS);
    tandem_write_uint(writer, record->retry.base_ms);
    tandem_write_uint(writer, record->retry.factor);
    tandem_write_uint(writer, record->retry.cap_ms);
    tandem_write_uint(writer, record->retry.attempts);
    tandem_write_uint(writer, record->retry.rest_ms);
    tandem_write_uint(writer, record->retry.budget);
    if (tandem_writer_err(writer) != TANDEM_OK)
        return tandem_writer_err(writer);
    all = tandem_writer_slice(writer);
    td_put_u64(writer->bytes, checksum(name, tandem_slice_of(all.bytes + CHECKSUM_BYTES,
                                                             all.size - CHECKSUM_BYTES)));
    return TANDEM_OK;
}

static bool read_retry(tandem_reader *reader, td_kept_retry *out)
{
    uint32_t items;

    return tandem_read_array(reader, &items) == TANDEM_OK && items >= RETRY_ITEMS &&
           tandem_read_uint(reader, &out->base_ms) == TANDEM_OK &&
           tandem_read_uint(reader, &out->factor) == TANDEM_OK &&
           tandem_read_uint(reader, &out->cap_ms) == TANDEM_OK &&
           tandem_read_uint(reader, &out->attempts) == TANDEM_OK &&
           tandem_read_uint(reader, &out->rest_ms) == TANDEM_OK &&
           tandem_read_uint(reader, &out->budget) == TANDEM_OK;
}

static tandem_err decode(tandem_slice name, tandem_slice value, td_remote_record *record)
{
    tandem_slice body, url;
    tandem_reader reader;
    uint64_t version;
    uint32_t items;

    if (value.size < CHECKSUM_BYTES || name.size > TANDEM_NAME_BYTES_MAX)
        return TANDEM_E_CORRUPT;
    body = tandem_slice_of(value.bytes + CHECKSUM_BYTES, value.size - CHECKSUM_BYTES);
    if (td_get_u64(value.bytes) != checksum(name, body) ||
        tandem_msgpack_validate(body, RECORD_DEPTH_MAX, RECORD_ITEMS_MAX) != TANDEM_OK)
        return TANDEM_E_CORRUPT;
    reader = tandem_reader_of(body);
    if (tandem_read_array(&reader, &items) != TANDEM_OK || items < 1 ||
        tandem_read_uint(&reader, &version) != TANDEM_OK)
        return TANDEM_E_CORRUPT;
    if (version > REMOTE_VERSION)
        return TANDEM_E_FORMAT_NEWER;
    memset(record, 0, sizeof(*record));
    if (items < REMOTE_ITEMS_MIN || tandem_read_string(&reader, &url) != TANDEM_OK ||
        tandem_read_bool(&reader, &record->paused) != TANDEM_OK ||
        (items > REMOTE_ITEMS_MIN && tandem_read_uint(&reader, &record->held) != TANDEM_OK) ||
        (items >= REMOTE_ITEMS && !read_retry(&reader, &record->retry)) ||
        url.size >= sizeof(record->url))
        return TANDEM_E_CORRUPT;
    memcpy(record->name, name.bytes, name.size);
    memcpy(record->url, url.bytes, url.size);
    return TANDEM_OK;
}

/* ---- Transactions ---- */

static tandem_err begin(td_sync_store *sync, td_txn **out)
{
    tandem_err err;

    if (sync->recover_due && (err = td_store_recover(sync->store)) != TANDEM_OK)
        return err;
    sync->recover_due = false;
    return td_store_begin_write(sync->store, out);
}

/* Commit if err is TANDEM_OK, else abort; where that fails, recovery is due and tried at once. */
static tandem_err end(td_sync_store *sync, td_txn *txn, tandem_err err)
{
    if (err == TANDEM_OK)
        err = td_txn_commit(txn);
    else
        td_txn_abort(txn);
    if (err == TANDEM_OK)
        td_probe(sync->env, TD_PROBE_REMOTE_KEPT);
    if (err == TANDEM_OK || err == TANDEM_E_NOT_FOUND)
        return err;
    td_log(sync->env, TANDEM_LOG_ERROR, "sync", "cannot write: %s", tandem_err_text(err));
    sync->recover_due = td_store_recover(sync->store) != TANDEM_OK;
    return err;
}

static tandem_err format_write(td_sync_store *sync)
{
    td_txn *txn;
    tandem_err err;

    tandem_writer_clear(&sync->writer);
    tandem_write_uint(&sync->writer, SYNC_FORMAT_VERSION);
    if ((err = tandem_writer_err(&sync->writer)) != TANDEM_OK)
        return err;
    if ((err = begin(sync, &txn)) != TANDEM_OK)
        return err;
    err = td_txn_put(txn, TABLE_META, tandem_slice_text("format"),
                     tandem_writer_slice(&sync->writer));
    return end(sync, txn, err);
}

/* TANDEM_E_NOT_FOUND: a fresh store. */
static tandem_err format_check(td_sync_store *sync)
{
    tandem_slice key, value;
    tandem_reader reader;
    td_cursor *cursor = NULL;
    uint64_t version;
    td_txn *txn;
    tandem_err err = td_store_begin_read(sync->store, &txn);

    if (err != TANDEM_OK)
        return err;
    err = td_txn_get(txn, TABLE_META, tandem_slice_text("format"), &value);
    if (err == TANDEM_OK) {
        reader = tandem_reader_of(value);
        if (tandem_read_uint(&reader, &version) != TANDEM_OK || version == 0)
            err = TANDEM_E_CORRUPT;
        else if (version > SYNC_FORMAT_VERSION)
            err = TANDEM_E_FORMAT_NEWER;
    } else if (err == TANDEM_E_NOT_FOUND &&
               (err = td_txn_cursor(txn, TABLE_REMOTES, &cursor)) == TANDEM_OK) {
        /* The version is written before any remote: without it there can be none. */
        err = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value);
        if (err == TANDEM_OK || err == TANDEM_END)
            err = err == TANDEM_OK ? TANDEM_E_CORRUPT : TANDEM_E_NOT_FOUND;
        td_cursor_free(cursor);
    }
    td_txn_abort(txn);
    return err;
}

/* ---- The store ---- */

tandem_err td_sync_store_open(tandem_env *env, td_store *store, td_sync_store **out)
{
    td_sync_store *sync = calloc(1, sizeof(*sync));
    tandem_err err;

    if (!sync) {
        td_store_free(store);
        return TANDEM_E_NOMEM;
    }
    sync->env = env;
    sync->store = store;
    tandem_writer_init(&sync->writer);
    err = format_check(sync);
    if (err == TANDEM_E_NOT_FOUND)
        err = format_write(sync);
    if (err != TANDEM_OK) {
        td_sync_store_free(sync);
        return err;
    }
    *out = sync;
    return TANDEM_OK;
}

void td_sync_store_free(td_sync_store *sync)
{
    if (!sync)
        return;
    td_store_free(sync->store);
    tandem_writer_release(&sync->writer);
    free(sync);
}

tandem_err td_sync_store_put_remote(td_sync_store *sync, const td_remote_record *record)
{
    tandem_slice name = tandem_slice_of(record->name, strnlen(record->name, sizeof(record->name)));
    tandem_slice url = tandem_slice_of(record->url, strnlen(record->url, sizeof(record->url)));
    td_txn *txn;
    tandem_err err;

    if (!td_name_valid(name) || url.size == sizeof(record->url) || !url_valid(url))
        return TANDEM_E_INVALID;
    if ((err = encode(sync, name, record)) != TANDEM_OK)
        return err;
    if ((err = begin(sync, &txn)) != TANDEM_OK)
        return err;
    err = td_txn_put(txn, TABLE_REMOTES, name, tandem_writer_slice(&sync->writer));
    return end(sync, txn, err);
}

tandem_err td_sync_store_delete_remote(td_sync_store *sync, const char *name)
{
    tandem_slice key = tandem_slice_text(name);
    td_txn *txn;
    tandem_err err;

    if (!td_name_valid(key))
        return TANDEM_E_NOT_FOUND;
    if ((err = begin(sync, &txn)) != TANDEM_OK)
        return err;
    return end(sync, txn, td_txn_del(txn, TABLE_REMOTES, key));
}

tandem_err td_sync_store_remotes(td_sync_store *sync,
                                 tandem_err (*visit)(void *context, const td_remote_record *record),
                                 void *context)
{
    td_remote_record record;
    tandem_slice name, value;
    td_cursor *cursor = NULL;
    td_txn *txn;
    tandem_err err = td_store_begin_read(sync->store, &txn), found;

    if (err != TANDEM_OK)
        return err;
    if ((err = td_txn_cursor(txn, TABLE_REMOTES, &cursor)) != TANDEM_OK)
        goto out;
    found = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &name, &value);
    while (found == TANDEM_OK && err == TANDEM_OK) {
        if ((err = decode(name, value, &record)) == TANDEM_OK)
            err = visit(context, &record);
        if (err == TANDEM_OK)
            found = td_cursor_next(cursor, &name, &value);
    }
    if (err == TANDEM_OK && found != TANDEM_END)
        err = found;

out:
    td_cursor_free(cursor);
    td_txn_abort(txn);
    return err;
}

tandem_err td_sync_store_verify(td_sync_store *sync,
                                void (*report)(void *context, const char *text), void *context)
{
    char why[TD_STORE_WHY_BYTES], text[TD_STORE_WHY_BYTES + TANDEM_NAME_BYTES_MAX];
    td_remote_record record;
    tandem_slice name, value;
    td_cursor *cursor = NULL;
    bool wrong = false;
    td_txn *txn;
    tandem_err err;

    if ((err = td_store_pages_check(sync->store, why)) == TANDEM_E_CORRUPT) {
        snprintf(text, sizeof(text), "the file of the remotes is damaged: %s", why);
        report(context, text);
    }
    if (err || (err = td_store_begin_read(sync->store, &txn)) != TANDEM_OK)
        return err;
    if ((err = td_txn_cursor(txn, TABLE_REMOTES, &cursor)) != TANDEM_OK)
        goto out;
    for (err = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &name, &value); err == TANDEM_OK;
         err = td_cursor_next(cursor, &name, &value)) {
        if (decode(name, value, &record) != TANDEM_E_CORRUPT)
            continue;
        snprintf(text, sizeof(text), "remote %.*s: what is kept of it is damaged",
                 name.size < TANDEM_NAME_BYTES_MAX ? (int)name.size : TANDEM_NAME_BYTES_MAX,
                 (const char *)name.bytes);
        report(context, text);
        wrong = true;
    }
    if (err == TANDEM_END)
        err = wrong ? TANDEM_E_CORRUPT : TANDEM_OK;

out:
    td_cursor_free(cursor);
    td_txn_abort(txn);
    return err;
}
