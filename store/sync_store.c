#include "store/sync_store.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "store/msgpack.h"
#include "store/operation.h"
#include "store/probe.h"

enum {
    TABLE_REMOTES,
    TABLE_META,
    TABLE_DEAD,
    SYNC_FORMAT_VERSION = 1,
    REMOTE_VERSION = 1,
    REMOTE_ITEMS = 7,
    REMOTE_ITEMS_SHARE = 6, /* without how it is polled */
    REMOTE_ITEMS_RETRY = 5, /* with the retry policy, and without what is behind it */
    REMOTE_ITEMS_MIN = 3, /* without held, and what is behind it */
    RETRY_ITEMS = 6,
    DEAD_VERSION = 1,
    DEAD_ITEMS = 18,
    POLL_ITEMS = 2,
    CHECKSUM_BYTES = 8,
    /* What a record of a later version may grow to before it is no record of ours. */
    RECORD_DEPTH_MAX = 16,
    RECORD_ITEMS_MAX = 65536,
};

const char *const td_sync_store_tables[] = {"remotes", "meta", "dead"};
const unsigned td_sync_store_table_count = 3;

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

/* Into sync->writer: first room for the checksum, last the checksum of what was written behind it. */
static tandem_writer *encode_begin(td_sync_store *sync)
{
    static const uint8_t room[CHECKSUM_BYTES];

    tandem_writer_clear(&sync->writer);
    tandem_write_raw(&sync->writer, tandem_slice_of(room, sizeof(room)));
    return &sync->writer;
}

static tandem_err encode_end(td_sync_store *sync, tandem_slice key)
{
    tandem_slice all;

    if (tandem_writer_err(&sync->writer) != TANDEM_OK)
        return tandem_writer_err(&sync->writer);
    all = tandem_writer_slice(&sync->writer);
    td_put_u64(sync->writer.bytes, checksum(key, tandem_slice_of(all.bytes + CHECKSUM_BYTES,
                                                                 all.size - CHECKSUM_BYTES)));
    return TANDEM_OK;
}

static tandem_err encode(td_sync_store *sync, tandem_slice name, const td_remote_record *record)
{
    tandem_writer *writer = encode_begin(sync);

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
    td_kept_share_write(&record->share, writer);
    tandem_write_array(writer, POLL_ITEMS);
    tandem_write_uint(writer, record->poll.mode);
    tandem_write_uint(writer, record->poll.mean_ms);
    return encode_end(sync, name);
}

/* An array of which the first items are known; reader stands behind it, whatever it has more. */
static bool enter(tandem_reader *reader, uint32_t items, tandem_reader *out)
{
    tandem_slice whole;
    uint32_t count;

    if (tandem_read_skip(reader, &whole) != TANDEM_OK)
        return false;
    *out = tandem_reader_of(whole);
    return tandem_read_array(out, &count) == TANDEM_OK && count >= items;
}

static bool read_retry(tandem_reader *record, td_kept_retry *out)
{
    tandem_reader reader;

    return enter(record, RETRY_ITEMS, &reader) &&
           tandem_read_uint(&reader, &out->base_ms) == TANDEM_OK &&
           tandem_read_uint(&reader, &out->factor) == TANDEM_OK &&
           tandem_read_uint(&reader, &out->cap_ms) == TANDEM_OK &&
           tandem_read_uint(&reader, &out->attempts) == TANDEM_OK &&
           tandem_read_uint(&reader, &out->rest_ms) == TANDEM_OK &&
           tandem_read_uint(&reader, &out->budget) == TANDEM_OK;
}

static bool read_share(tandem_reader *record, td_kept_share *out)
{
    tandem_slice value;

    return tandem_read_skip(record, &value) == TANDEM_OK && td_kept_share_read(value, out);
}

static bool read_poll(tandem_reader *record, td_kept_poll *out)
{
    tandem_reader reader;

    return enter(record, POLL_ITEMS, &reader) &&
           tandem_read_uint(&reader, &out->mode) == TANDEM_OK &&
           tandem_read_uint(&reader, &out->mean_ms) == TANDEM_OK;
}

/* Check a record and read its version: how many items it has, and a reader behind the first. */
static tandem_err decode_begin(tandem_slice key, tandem_slice value, uint64_t version_max,
                               tandem_reader *reader, uint32_t *items)
{
    tandem_slice body;
    uint64_t version;

    if (value.size < CHECKSUM_BYTES)
        return TANDEM_E_CORRUPT;
    body = tandem_slice_of(value.bytes + CHECKSUM_BYTES, value.size - CHECKSUM_BYTES);
    if (td_get_u64(value.bytes) != checksum(key, body) ||
        tandem_msgpack_validate(body, RECORD_DEPTH_MAX, RECORD_ITEMS_MAX) != TANDEM_OK)
        return TANDEM_E_CORRUPT;
    *reader = tandem_reader_of(body);
    if (tandem_read_array(reader, items) != TANDEM_OK || *items < 1 ||
        tandem_read_uint(reader, &version) != TANDEM_OK)
        return TANDEM_E_CORRUPT;
    return version > version_max ? TANDEM_E_FORMAT_NEWER : TANDEM_OK;
}

static tandem_err decode(tandem_slice name, tandem_slice value, td_remote_record *record)
{
    tandem_slice url;
    tandem_reader reader;
    uint32_t items;
    tandem_err err;

    if (name.size > TANDEM_NAME_BYTES_MAX)
        return TANDEM_E_CORRUPT;
    if ((err = decode_begin(name, value, REMOTE_VERSION, &reader, &items)) != TANDEM_OK)
        return err;
    memset(record, 0, sizeof(*record));
    if (items < REMOTE_ITEMS_MIN || tandem_read_string(&reader, &url) != TANDEM_OK ||
        tandem_read_bool(&reader, &record->paused) != TANDEM_OK ||
        (items > REMOTE_ITEMS_MIN && tandem_read_uint(&reader, &record->held) != TANDEM_OK) ||
        (items >= REMOTE_ITEMS_RETRY && !read_retry(&reader, &record->retry)) ||
        (items >= REMOTE_ITEMS_SHARE && !read_share(&reader, &record->share)) ||
        (items >= REMOTE_ITEMS && !read_poll(&reader, &record->poll)) ||
        url.size >= sizeof(record->url))
        return TANDEM_E_CORRUPT;
    memcpy(record->name, name.bytes, name.size);
    memcpy(record->url, url.bytes, url.size);
    return TANDEM_OK;
}

/* ---- Records of dead letters ---- */

static tandem_err encode_dead(td_sync_store *sync, tandem_slice key, const td_dead_letter *letter)
{
    tandem_writer *writer = encode_begin(sync);

    tandem_write_array(writer, DEAD_ITEMS);
    tandem_write_uint(writer, DEAD_VERSION);
    tandem_write_text(writer, letter->remote);
    tandem_write_binary(writer, tandem_slice_of(letter->reactor, sizeof(letter->reactor)));
    tandem_write_text(writer, letter->collection);
    tandem_write_text(writer, letter->document);
    tandem_write_text(writer, letter->branch);
    tandem_write_binary(writer, tandem_slice_of(letter->origin, sizeof(letter->origin)));
    tandem_write_uint(writer, letter->first_seq);
    tandem_write_uint(writer, letter->last_seq);
    tandem_write_uint(writer, letter->operations);
    tandem_write_uint(writer, letter->bytes);
    tandem_write_uint(writer, letter->first_ordinal);
    tandem_write_binary(writer, tandem_slice_of(letter->hash, sizeof(letter->hash)));
    tandem_write_int(writer, letter->error);
    tandem_write_uint(writer, letter->detail);
    tandem_write_uint(writer, letter->time_ms);
    tandem_write_uint(writer, letter->offered);
    tandem_write_bool(writer, letter->retry);
    return encode_end(sync, key);
}

static bool read_name(tandem_reader *reader, char out[TANDEM_NAME_BYTES_MAX + 1])
{
    tandem_slice name;

    if (tandem_read_string(reader, &name) != TANDEM_OK || name.size > TANDEM_NAME_BYTES_MAX)
        return false;
    memcpy(out, name.bytes, name.size);
    out[name.size] = 0;
    return true;
}

static bool read_fixed(tandem_reader *reader, uint8_t *out, size_t size)
{
    tandem_slice bytes;

    if (tandem_read_binary(reader, &bytes) != TANDEM_OK || bytes.size != size)
        return false;
    memcpy(out, bytes.bytes, size);
    return true;
}

static bool read_error(tandem_reader *reader, tandem_err *out)
{
    int64_t number;

    if (tandem_read_int(reader, &number) != TANDEM_OK || number >= 0 || number < INT32_MIN)
        return false;
    *out = (tandem_err)number;
    return true;
}

static tandem_err decode_dead(tandem_slice key, tandem_slice value, td_dead_letter *letter)
{
    tandem_reader reader;
    uint32_t items;
    tandem_err err;

    if (key.size != sizeof(letter->id))
        return TANDEM_E_CORRUPT;
    if ((err = decode_begin(key, value, DEAD_VERSION, &reader, &items)) != TANDEM_OK)
        return err;
    memset(letter, 0, sizeof(*letter));
    letter->id = td_get_u64(key.bytes);
    if (letter->id == 0 || items < DEAD_ITEMS || !read_name(&reader, letter->remote) ||
        !read_fixed(&reader, letter->reactor, sizeof(letter->reactor)) ||
        !read_name(&reader, letter->collection) || !read_name(&reader, letter->document) ||
        !read_name(&reader, letter->branch) ||
        !read_fixed(&reader, letter->origin, sizeof(letter->origin)) ||
        tandem_read_uint(&reader, &letter->first_seq) != TANDEM_OK ||
        tandem_read_uint(&reader, &letter->last_seq) != TANDEM_OK ||
        tandem_read_uint(&reader, &letter->operations) != TANDEM_OK ||
        tandem_read_uint(&reader, &letter->bytes) != TANDEM_OK ||
        tandem_read_uint(&reader, &letter->first_ordinal) != TANDEM_OK ||
        !read_fixed(&reader, letter->hash, sizeof(letter->hash)) ||
        !read_error(&reader, &letter->error) ||
        tandem_read_uint(&reader, &letter->detail) != TANDEM_OK ||
        tandem_read_uint(&reader, &letter->time_ms) != TANDEM_OK ||
        tandem_read_uint(&reader, &letter->offered) != TANDEM_OK ||
        tandem_read_bool(&reader, &letter->retry) != TANDEM_OK)
        return TANDEM_E_CORRUPT;
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

static tandem_err put_number(td_sync_store *sync, td_txn *txn, const char *key, uint64_t number)
{
    tandem_err err;

    tandem_writer_clear(&sync->writer);
    tandem_write_uint(&sync->writer, number);
    if ((err = tandem_writer_err(&sync->writer)) != TANDEM_OK)
        return err;
    return td_txn_put(txn, TABLE_META, tandem_slice_text(key), tandem_writer_slice(&sync->writer));
}

/* TANDEM_E_NOT_FOUND, TANDEM_E_CORRUPT. */
static tandem_err get_number(td_txn *txn, const char *key, uint64_t *out)
{
    tandem_slice value;
    tandem_reader reader;
    tandem_err err = td_txn_get(txn, TABLE_META, tandem_slice_text(key), &value);

    if (err != TANDEM_OK)
        return err;
    reader = tandem_reader_of(value);
    return tandem_read_uint(&reader, out) == TANDEM_OK && *out ? TANDEM_OK : TANDEM_E_CORRUPT;
}

static tandem_err format_write(td_sync_store *sync)
{
    td_txn *txn;
    tandem_err err = begin(sync, &txn);

    if (err != TANDEM_OK)
        return err;
    return end(sync, txn, put_number(sync, txn, "format", SYNC_FORMAT_VERSION));
}

/* TANDEM_E_NOT_FOUND: a fresh store. */
static tandem_err format_check(td_sync_store *sync)
{
    tandem_slice key, value;
    td_cursor *cursor = NULL;
    uint64_t version;
    td_txn *txn;
    tandem_err err = td_store_begin_read(sync->store, &txn);

    if (err != TANDEM_OK)
        return err;
    err = get_number(txn, "format", &version);
    if (err == TANDEM_OK) {
        if (version > SYNC_FORMAT_VERSION)
            err = TANDEM_E_FORMAT_NEWER;
    } else if (err == TANDEM_E_NOT_FOUND &&
               (err = td_txn_cursor(txn, TABLE_REMOTES, &cursor)) == TANDEM_OK) {
        /* The version is written before anything else: without it there can be no remote. */
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

    if (!td_name_valid(name) || url.size == sizeof(record->url) || !url_valid(url) ||
        !td_kept_share_valid(&record->share))
        return TANDEM_E_INVALID;
    if ((err = encode(sync, name, record)) != TANDEM_OK)
        return err;
    if ((err = begin(sync, &txn)) != TANDEM_OK)
        return err;
    err = td_txn_put(txn, TABLE_REMOTES, name, tandem_writer_slice(&sync->writer));
    return end(sync, txn, err);
}

/* The dead letters of a remote; what cannot be read is nobody's. */
static tandem_err delete_dead_of(td_txn *txn, const char *name)
{
    uint8_t after[sizeof(((td_dead_letter *)0)->id) + 1];
    td_dead_letter letter;
    tandem_slice key, value, from = tandem_slice_of(NULL, 0);
    td_cursor *cursor;
    tandem_err err, found = TANDEM_OK;

    if ((err = td_txn_cursor(txn, TABLE_DEAD, &cursor)) != TANDEM_OK)
        return err;
    while (err == TANDEM_OK &&
           (found = td_cursor_seek(cursor, from, &key, &value)) == TANDEM_OK) {
        bool its = decode_dead(key, value, &letter) == TANDEM_OK && !strcmp(letter.remote, name);

        if (key.size >= sizeof(after))
            break; /* none of ours is so long, nor stands behind it */
        memset(after, 0, sizeof(after));
        memcpy(after, key.bytes, key.size);
        from = tandem_slice_of(after, key.size + 1);
        if (its)
            err = td_txn_del(txn, TABLE_DEAD, tandem_slice_of(after, key.size));
    }
    td_cursor_free(cursor);
    return err == TANDEM_OK && found != TANDEM_END ? found : err;
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
    if ((err = td_txn_del(txn, TABLE_REMOTES, key)) == TANDEM_OK)
        err = delete_dead_of(txn, name);
    return end(sync, txn, err);
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

/* ---- Dead letters ---- */

static tandem_slice key_of(uint64_t id, uint8_t key[sizeof(id)])
{
    td_put_u64(key, id);
    return tandem_slice_of(key, sizeof(id));
}

/* Ids up to this one were given. */
static tandem_err raise_job_ids(td_sync_store *sync, td_txn *txn, uint64_t id)
{
    uint64_t last = 0;
    tandem_err err = get_number(txn, "jobs", &last);

    if (err != TANDEM_OK && err != TANDEM_E_NOT_FOUND)
        return err;
    return last < id ? put_number(sync, txn, "jobs", id) : TANDEM_OK;
}

tandem_err td_sync_store_put_dead(td_sync_store *sync, const td_dead_letter *const *letters,
                                  size_t count)
{
    uint8_t bytes[sizeof(letters[0]->id)];
    td_txn *txn;
    tandem_err err;

    if ((err = begin(sync, &txn)) != TANDEM_OK)
        return err;
    for (size_t i = 0; err == TANDEM_OK && i < count; i++) {
        tandem_slice key = key_of(letters[i]->id, bytes);

        if ((err = encode_dead(sync, key, letters[i])) == TANDEM_OK &&
            (err = td_txn_put(txn, TABLE_DEAD, key, tandem_writer_slice(&sync->writer))) ==
                TANDEM_OK)
            err = raise_job_ids(sync, txn, letters[i]->id);
    }
    return end(sync, txn, err);
}

tandem_err td_sync_store_delete_dead(td_sync_store *sync, const uint64_t *ids, size_t count)
{
    uint8_t bytes[sizeof(*ids)];
    td_txn *txn;
    tandem_err err;

    if ((err = begin(sync, &txn)) != TANDEM_OK)
        return err;
    for (size_t i = 0; err == TANDEM_OK && i < count; i++) {
        err = td_txn_del(txn, TABLE_DEAD, key_of(ids[i], bytes));
        if (err == TANDEM_E_NOT_FOUND)
            err = TANDEM_OK;
    }
    return end(sync, txn, err);
}

tandem_err td_sync_store_dead(td_sync_store *sync,
                              tandem_err (*visit)(void *context, const td_dead_letter *letter),
                              void *context)
{
    td_dead_letter letter;
    tandem_slice key, value;
    td_cursor *cursor = NULL;
    td_txn *txn;
    tandem_err err = td_store_begin_read(sync->store, &txn), found;

    if (err != TANDEM_OK)
        return err;
    if ((err = td_txn_cursor(txn, TABLE_DEAD, &cursor)) != TANDEM_OK)
        goto out;
    found = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value);
    while (found == TANDEM_OK && err == TANDEM_OK) {
        if ((err = decode_dead(key, value, &letter)) == TANDEM_OK)
            err = visit(context, &letter);
        if (err == TANDEM_OK)
            found = td_cursor_next(cursor, &key, &value);
    }
    if (err == TANDEM_OK && found != TANDEM_END)
        err = found;

out:
    td_cursor_free(cursor);
    td_txn_abort(txn);
    return err;
}

tandem_err td_sync_store_job_ids(td_sync_store *sync, uint64_t *out)
{
    td_txn *txn;
    tandem_err err = td_store_begin_read(sync->store, &txn);

    if (err != TANDEM_OK)
        return err;
    *out = 0;
    err = get_number(txn, "jobs", out);
    td_txn_abort(txn);
    return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
}

tandem_err td_sync_store_reserve_job_ids(td_sync_store *sync, uint64_t last)
{
    td_txn *txn;
    tandem_err err = begin(sync, &txn);

    if (err != TANDEM_OK)
        return err;
    return end(sync, txn, raise_job_ids(sync, txn, last));
}

/* ---- Verifying ---- */

struct verifying {
    void (*report)(void *context, const char *text);
    void *context;
    bool wrong;
};

static void say(struct verifying *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct verifying *v, const char *format, ...)
{
    char text[TANDEM_NAME_BYTES_MAX + TD_STORE_WHY_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    v->report(v->context, text);
    v->wrong = true;
}

static void verify_remote(struct verifying *v, tandem_slice name, tandem_slice value)
{
    td_remote_record record;

    if (decode(name, value, &record) == TANDEM_E_CORRUPT)
        say(v, "remote %.*s: what is kept of it is damaged",
            name.size < TANDEM_NAME_BYTES_MAX ? (int)name.size : TANDEM_NAME_BYTES_MAX,
            (const char *)name.bytes);
}

static void verify_dead(struct verifying *v, tandem_slice key, tandem_slice value, uint64_t last)
{
    unsigned long long id = key.size == sizeof(uint64_t) ? td_get_u64(key.bytes) : 0;
    td_dead_letter letter;

    if (decode_dead(key, value, &letter) == TANDEM_E_CORRUPT)
        say(v, "dead letter %llu: what is kept of it is damaged", id);
    else if (id > last)
        say(v, "dead letter %llu: no job was given this number yet", id);
}

static tandem_err verify_table(struct verifying *v, td_txn *txn, unsigned table, uint64_t last)
{
    tandem_slice key, value;
    td_cursor *cursor;
    tandem_err err;

    if ((err = td_txn_cursor(txn, table, &cursor)) != TANDEM_OK)
        return err;
    for (err = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value); err == TANDEM_OK;
         err = td_cursor_next(cursor, &key, &value)) {
        if (table == TABLE_REMOTES)
            verify_remote(v, key, value);
        else
            verify_dead(v, key, value, last);
    }
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}

tandem_err td_sync_store_verify(td_sync_store *sync,
                                void (*report)(void *context, const char *text), void *context)
{
    struct verifying v = {.report = report, .context = context};
    char why[TD_STORE_WHY_BYTES];
    uint64_t last = 0;
    td_txn *txn;
    tandem_err err;

    if ((err = td_store_pages_check(sync->store, why)) == TANDEM_E_CORRUPT)
        say(&v, "the file of the remotes is damaged: %s", why);
    if (err || (err = td_store_begin_read(sync->store, &txn)) != TANDEM_OK)
        return err;
    err = get_number(txn, "jobs", &last);
    if (err == TANDEM_E_CORRUPT)
        say(&v, "the number of the last job is damaged");
    if (err == TANDEM_OK || err == TANDEM_E_NOT_FOUND || err == TANDEM_E_CORRUPT)
        err = verify_table(&v, txn, TABLE_REMOTES, last);
    if (err == TANDEM_OK)
        err = verify_table(&v, txn, TABLE_DEAD, last);
    td_txn_abort(txn);
    return err == TANDEM_OK && v.wrong ? TANDEM_E_CORRUPT : err;
}
