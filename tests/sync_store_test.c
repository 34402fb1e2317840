/* What the sync manager keeps, on the memory store: remotes and dead letters survive, and damage is
 * told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

#include "store/msgpack.h"
#include "store/sync_store.h"

static tandem_env env; /* no log, and a store asks for neither time nor randomness */

enum { REMOTES, META, DEAD };

struct bed {
    td_memory_disk *disk;
    td_store *store; /* owned by sync */
    td_sync_store *sync;
};

static tandem_err sync_open(struct bed *bed)
{
    assert_int_equal(TANDEM_OK,
                     td_memory_store_open(&env, bed->disk, td_sync_store_tables,
                                          td_sync_store_table_count, &bed->store));
    bed->sync = NULL;
    return td_sync_store_open(&env, bed->store, &bed->sync);
}

static int bed_make(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_int_equal(TANDEM_OK, td_memory_disk_open(&bed->disk));
    assert_int_equal(TANDEM_OK, sync_open(bed));
    *state = bed;
    return 0;
}

static int bed_unmake(void **state)
{
    struct bed *bed = *state;

    td_sync_store_free(bed->sync);
    td_memory_disk_free(bed->disk);
    free(bed);
    return 0;
}

static void reopen(struct bed *bed)
{
    td_sync_store_free(bed->sync);
    assert_int_equal(TANDEM_OK, sync_open(bed));
}

static tandem_err put(struct bed *bed, const char *name, const char *url, bool paused)
{
    td_remote_record record = {.paused = paused};

    snprintf(record.name, sizeof(record.name), "%s", name);
    snprintf(record.url, sizeof(record.url), "%s", url);
    return td_sync_store_put_remote(bed->sync, &record);
}

/* Everything, as one text. */
static tandem_err collect(void *context, const td_remote_record *record)
{
    char *all = context;

    sprintf(all + strlen(all), "%s %s%s\n", record->name, record->url,
            record->paused ? " paused" : "");
    return TANDEM_OK;
}

static void assert_remotes(struct bed *bed, const char *expected)
{
    char all[4096] = "";

    assert_int_equal(TANDEM_OK, td_sync_store_remotes(bed->sync, collect, all));
    assert_string_equal(expected, all);
}

/* Put bytes under the store's feet. */
static void put_raw(struct bed *bed, unsigned table, const char *key, tandem_slice value)
{
    td_txn *txn;

    assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_put(txn, table, tandem_slice_text(key), value));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
}

/* Any bytes under a good checksum. */
static void put_body(struct bed *bed, const char *name, tandem_slice body)
{
    tandem_writer all;
    uint8_t sum[8];

    tandem_writer_init(&all);
    td_put_u64(sum, XXH3_64bits_withSeed(body.bytes, body.size, XXH3_64bits(name, strlen(name))));
    tandem_write_raw(&all, tandem_slice_of(sum, sizeof(sum)));
    tandem_write_raw(&all, body);
    put_raw(bed, REMOTES, name, tandem_writer_slice(&all));
    tandem_writer_release(&all);
}

/* A record with a good checksum, of a version and with trailing items of the caller's choice. */
static void put_record(struct bed *bed, const char *name, uint64_t version, unsigned trailing)
{
    tandem_writer body;

    tandem_writer_init(&body);
    tandem_write_array(&body, 4 + trailing);
    tandem_write_uint(&body, version);
    tandem_write_text(&body, "mem:future");
    tandem_write_bool(&body, true);
    tandem_write_uint(&body, 7);
    for (unsigned i = 0; i < trailing; i++) {
        if (i == 0) { /* the retry policy, which has grown, too */
            tandem_write_array(&body, 7);
            for (unsigned k = 1; k <= 7; k++)
                tandem_write_uint(&body, k);
            continue;
        }
        if (i == 1) { /* what is shared, and something else */
            tandem_write_array(&body, 3);
            tandem_write_uint(&body, 2);
            tandem_write_raw(&body, tandem_slice_of("\x92\x91\xa1t\xc0", 5));
            tandem_write_nil(&body);
            continue;
        }
        if (i == 2) { /* how it is polled, and something else */
            tandem_write_array(&body, 3);
            for (unsigned k = 1; k <= 3; k++)
                tandem_write_uint(&body, k);
            continue;
        }
        tandem_write_map(&body, 1);
        tandem_write_text(&body, "a field");
        tandem_write_array(&body, 0);
    }
    put_body(bed, name, tandem_writer_slice(&body));
    tandem_writer_release(&body);
}

static tandem_err first_retry(void *context, const td_remote_record *record)
{
    *(td_kept_retry *)context = record->retry;
    return TANDEM_END;
}

static void a_retry_policy_is_kept_with_its_remote(void **state)
{
    struct bed *bed = *state;
    td_remote_record record = {.name = "b", .url = "ws://b", .retry = {1, 2, 3, 4, 5, 6}};
    td_kept_retry kept = {.base_ms = 99};

    assert_int_equal(TANDEM_OK, td_sync_store_put_remote(bed->sync, &record));
    reopen(bed);
    assert_int_equal(TANDEM_END, td_sync_store_remotes(bed->sync, first_retry, &kept));
    assert_memory_equal(&record.retry, &kept, sizeof(kept));
    put_record(bed, "a", 1, 0); /* of a version that kept none */
    assert_int_equal(TANDEM_END, td_sync_store_remotes(bed->sync, first_retry, &kept));
    assert_memory_equal(&(td_kept_retry){0}, &kept, sizeof(kept));
    put_record(bed, "a", 1, 2); /* of one that keeps more */
    assert_int_equal(TANDEM_END, td_sync_store_remotes(bed->sync, first_retry, &kept));
    assert_memory_equal(&record.retry, &kept, sizeof(kept));
}

/* The direction, and the bytes as hex, behind each other. */
static tandem_err collect_share(void *context, const td_remote_record *record)
{
    char *all = context;

    sprintf(all + strlen(all), "%s %u ", record->name, (unsigned)record->share.direction);
    for (size_t i = 0; i < record->share.bytes.size; i++)
        sprintf(all + strlen(all), "%02x", record->share.bytes.bytes[i]);
    strcat(all, "\n");
    return TANDEM_OK;
}

static void what_is_shared_is_kept_with_its_remote(void **state)
{
    struct bed *bed = *state;
    td_remote_record record = {.name = "a", .url = "ws://a", .share = {.direction = 1}};
    char all[256] = "";

    assert_int_equal(TANDEM_OK, td_sync_store_put_remote(bed->sync, &record));
    strcpy(record.name, "b");
    record.share.direction = 0;
    record.share.bytes = tandem_slice_of("\x92\xc0\x93\xc0\xc0\x91\xa1m", 8);
    assert_int_equal(TANDEM_OK, td_sync_store_put_remote(bed->sync, &record));
    put_record(bed, "c", 1, 1); /* of a version that kept none */
    put_record(bed, "d", 1, 4); /* of one that keeps more */
    reopen(bed);
    assert_int_equal(TANDEM_OK, td_sync_store_remotes(bed->sync, collect_share, all));
    assert_string_equal("a 1 \nb 0 92c093c0c091a16d\nc 0 \nd 2 9291a174c0\n", all);

    record.share.bytes = tandem_slice_of("\x92\xc0\xc0", 3);
    assert_int_equal(TANDEM_E_INVALID, td_sync_store_put_remote(bed->sync, &record));
    record.share = (td_kept_share){.direction = TD_DIRECTIONS};
    assert_int_equal(TANDEM_E_INVALID, td_sync_store_put_remote(bed->sync, &record));
}

static tandem_err first_poll(void *context, const td_remote_record *record)
{
    *(td_kept_poll *)context = record->poll;
    return TANDEM_END;
}

static void how_it_is_polled_is_kept_with_a_remote(void **state)
{
    struct bed *bed = *state;
    td_remote_record record = {.name = "b", .url = "http://b", .poll = {1, 2}};
    td_kept_poll kept = {.mode = 99};

    assert_int_equal(TANDEM_OK, td_sync_store_put_remote(bed->sync, &record));
    reopen(bed);
    assert_int_equal(TANDEM_END, td_sync_store_remotes(bed->sync, first_poll, &kept));
    assert_memory_equal(&record.poll, &kept, sizeof(kept));
    put_record(bed, "a", 1, 1); /* of a version that kept none */
    assert_int_equal(TANDEM_END, td_sync_store_remotes(bed->sync, first_poll, &kept));
    assert_memory_equal(&(td_kept_poll){0}, &kept, sizeof(kept));
    put_record(bed, "a", 1, 4); /* of one that keeps more, everywhere */
    assert_int_equal(TANDEM_END, td_sync_store_remotes(bed->sync, first_poll, &kept));
    assert_memory_equal(&record.poll, &kept, sizeof(kept));
}

static void remotes_are_kept_in_order_of_their_names(void **state)
{
    struct bed *bed = *state;

    assert_remotes(bed, "");
    assert_int_equal(TANDEM_OK, put(bed, "paris", "ws://paris.example:7400/tandem", false));
    assert_int_equal(TANDEM_OK, put(bed, "b\xc3\xa9ziers", "http://127.0.0.1:1", true));
    assert_int_equal(TANDEM_OK, put(bed, "a", "mem:a", false));
    reopen(bed);
    assert_remotes(bed, "a mem:a\n"
                        "b\xc3\xa9ziers http://127.0.0.1:1 paused\n"
                        "paris ws://paris.example:7400/tandem\n");
}

static void a_remote_is_replaced_by_name(void **state)
{
    struct bed *bed = *state;

    assert_int_equal(TANDEM_OK, put(bed, "a", "mem:first", false));
    assert_int_equal(TANDEM_OK, put(bed, "a", "mem:second", true));
    assert_remotes(bed, "a mem:second paused\n");
}

static void a_deleted_remote_is_gone(void **state)
{
    struct bed *bed = *state;

    assert_int_equal(TANDEM_OK, put(bed, "a", "mem:a", false));
    assert_int_equal(TANDEM_OK, put(bed, "b", "mem:b", false));
    assert_int_equal(TANDEM_OK, td_sync_store_delete_remote(bed->sync, "a"));
    assert_int_equal(TANDEM_E_NOT_FOUND, td_sync_store_delete_remote(bed->sync, "a"));
    assert_int_equal(TANDEM_E_NOT_FOUND, td_sync_store_delete_remote(bed->sync, ""));
    reopen(bed);
    assert_remotes(bed, "b mem:b\n");
}

static void names_and_urls_reach_their_bounds(void **state)
{
    struct bed *bed = *state;
    td_remote_record record = {.paused = false};
    char expected[1024];

    memset(record.name, 'n', TANDEM_NAME_BYTES_MAX);
    memset(record.url, 'u', sizeof(record.url) - 1);
    record.url[3] = ':';
    assert_int_equal(TANDEM_OK, td_sync_store_put_remote(bed->sync, &record));
    snprintf(expected, sizeof(expected), "%s %s\n", record.name, record.url);
    assert_remotes(bed, expected);

    record.url[sizeof(record.url) - 1] = 'u'; /* never ends */
    assert_int_equal(TANDEM_E_INVALID, td_sync_store_put_remote(bed->sync, &record));
    record.url[sizeof(record.url) - 1] = '\0';
    record.name[TANDEM_NAME_BYTES_MAX] = 'n';
    assert_int_equal(TANDEM_E_INVALID, td_sync_store_put_remote(bed->sync, &record));
    assert_remotes(bed, expected);
}

static void what_is_no_name_or_url_is_refused(void **state)
{
    static const char *const urls[] = {"", "mem", "mem:", ":a", "mem:a b", "mem:a\n", "mem:\x7f"};
    static const char *const no_names[] = {"", "a\nb", "\xff", "\x1b[2J"};
    struct bed *bed = *state;

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
        assert_int_equal(TANDEM_E_INVALID, put(bed, "a", urls[i], false));
    for (size_t i = 0; i < sizeof(no_names) / sizeof(no_names[0]); i++)
        assert_int_equal(TANDEM_E_INVALID, put(bed, no_names[i], "mem:a", false));
    assert_remotes(bed, "");
}

static tandem_err stop_at_b(void *context, const td_remote_record *record)
{
    ++*(int *)context;
    return strcmp(record->name, "b") == 0 ? TANDEM_END : TANDEM_OK;
}

static void a_visitor_may_stop(void **state)
{
    struct bed *bed = *state;
    int seen = 0;

    assert_int_equal(TANDEM_OK, put(bed, "a", "mem:a", false));
    assert_int_equal(TANDEM_OK, put(bed, "b", "mem:b", false));
    assert_int_equal(TANDEM_OK, put(bed, "c", "mem:c", false));
    assert_int_equal(TANDEM_END, td_sync_store_remotes(bed->sync, stop_at_b, &seen));
    assert_int_equal(2, seen);
}

static void fields_of_a_later_version_are_skipped(void **state)
{
    struct bed *bed = *state;

    put_record(bed, "a", 1, 0);
    put_record(bed, "b", 1, 2);
    assert_remotes(bed, "a mem:future paused\nb mem:future paused\n");
}

static void a_record_of_a_newer_kind_is_told_apart_from_damage(void **state)
{
    struct bed *bed = *state;
    char all[4096] = "";

    put_record(bed, "a", 2, 0);
    assert_int_equal(TANDEM_E_FORMAT_NEWER, td_sync_store_remotes(bed->sync, collect, all));
}

static void note_problem(void *context, const char *text)
{
    snprintf(context, 200, "%s", text);
}

static void what_is_kept_is_verified(void **state)
{
    struct bed *bed = *state;
    uint8_t bad[20] = {1};
    char said[200] = "";

    assert_int_equal(TANDEM_OK, td_sync_store_verify(bed->sync, note_problem, said));
    assert_int_equal(TANDEM_OK, put(bed, "a", "mem:a", false));
    put_record(bed, "b", 2, 0); /* of a newer kind */
    assert_int_equal(TANDEM_OK, td_sync_store_verify(bed->sync, note_problem, said));
    put_raw(bed, REMOTES, "c", tandem_slice_of(bad, sizeof(bad)));
    assert_int_equal(TANDEM_E_CORRUPT, td_sync_store_verify(bed->sync, note_problem, said));
    assert_string_equal("remote c: what is kept of it is damaged", said);
}

/* Whatever byte is flipped, and wherever it is cut. */
static void a_damaged_record_is_corrupt(void **state)
{
    struct bed *bed = *state;
    char all[4096] = "";
    tandem_slice value;
    uint8_t good[64], bad[64];
    size_t size;
    td_txn *txn;

    assert_int_equal(TANDEM_OK, put(bed, "a", "mem:a", false));
    assert_int_equal(TANDEM_OK, td_store_begin_read(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_get(txn, REMOTES, tandem_slice_text("a"), &value));
    size = value.size;
    assert_true(size <= sizeof(good));
    memcpy(good, value.bytes, size);
    td_txn_abort(txn);

    for (size_t i = 0; i < size; i++) {
        memcpy(bad, good, size);
        bad[i] ^= 0x01;
        put_raw(bed, REMOTES, "a", tandem_slice_of(bad, size));
        assert_int_equal(TANDEM_E_CORRUPT, td_sync_store_remotes(bed->sync, collect, all));
        put_raw(bed, REMOTES, "a", tandem_slice_of(good, i));
        assert_int_equal(TANDEM_E_CORRUPT, td_sync_store_remotes(bed->sync, collect, all));
    }
    put_raw(bed, REMOTES, "a", tandem_slice_of(good, size));
    put_raw(bed, REMOTES, "b", tandem_slice_of(good, size)); /* of another name */
    assert_int_equal(TANDEM_E_CORRUPT, td_sync_store_remotes(bed->sync, collect, all));
    assert_string_equal("a mem:a\n", all);
}

static void a_record_with_other_fields_is_corrupt(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        tandem_err err;
    } bodies[] = {
        {"\x93\x01\xa1u\xc2", 5, TANDEM_OK}, /* as it was before there was a fourth field */
        {"\x94\x01\xa1u\xc2\x07", 6, TANDEM_OK},
        {"", 0, TANDEM_E_CORRUPT},
        {"\x94\x01\xa1u\xc2", 5, TANDEM_E_CORRUPT},
        {"\x94\x01\xa1u\xc2\x07\x07", 7, TANDEM_E_CORRUPT},
        {"\x07", 1, TANDEM_E_CORRUPT},
        {"\x90", 1, TANDEM_E_CORRUPT},
        {"\x94\xc0\xa1u\xc2\x07", 6, TANDEM_E_CORRUPT},
        {"\x92\x01\xa1u", 4, TANDEM_E_CORRUPT},
        {"\x94\x01\xc0\xc2\x07", 5, TANDEM_E_CORRUPT},
        {"\x94\x01\xa1u\x01\x07", 6, TANDEM_E_CORRUPT},
        {"\x94\x01\xa1u\xc2\xc0", 6, TANDEM_E_CORRUPT},
    };
    struct bed *bed = *state;
    tandem_writer body;
    char all[4096];

    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        all[0] = 0;
        put_body(bed, "a", tandem_slice_of(bodies[i].bytes, bodies[i].size));
        assert_int_equal(bodies[i].err, td_sync_store_remotes(bed->sync, collect, all));
        assert_string_equal(bodies[i].err ? "" : "a u\n", all);
    }
    tandem_writer_init(&body);
    tandem_write_array(&body, 3);
    tandem_write_uint(&body, 1);
    memset(all, 'u', sizeof(all));
    tandem_write_string(&body, tandem_slice_of(all, sizeof(((td_remote_record *)0)->url)));
    tandem_write_bool(&body, false);
    put_body(bed, "a", tandem_writer_slice(&body));
    all[0] = 0;
    assert_int_equal(TANDEM_E_CORRUPT, td_sync_store_remotes(bed->sync, collect, all));
    tandem_writer_release(&body);
}

static void a_newer_or_damaged_store_is_not_opened(void **state)
{
    struct bed *bed = *state;

    put_raw(bed, META, "format", tandem_slice_of("\x02", 1));
    td_sync_store_free(bed->sync);
    assert_int_equal(TANDEM_E_FORMAT_NEWER, sync_open(bed));

    assert_int_equal(TANDEM_OK,
                     td_memory_store_open(&env, bed->disk, td_sync_store_tables,
                                          td_sync_store_table_count, &bed->store));
    put_raw(bed, META, "format", tandem_slice_of("\xc0", 1));
    td_store_free(bed->store);
    assert_int_equal(TANDEM_E_CORRUPT, sync_open(bed));
    assert_null(bed->sync);
}

static void a_remote_without_a_format_is_corrupt(void **state)
{
    struct bed *bed = *state;
    td_txn *txn;

    assert_int_equal(TANDEM_OK, put(bed, "a", "mem:a", false));
    assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_del(txn, META, tandem_slice_text("format")));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
    td_sync_store_free(bed->sync);
    assert_int_equal(TANDEM_E_CORRUPT, sync_open(bed));
}

static void a_full_disk_keeps_what_was_there_and_heals(void **state)
{
    struct bed *bed = *state;

    assert_int_equal(TANDEM_OK, put(bed, "a", "mem:a", false));
    for (int at_commit = 0; at_commit <= 1; at_commit++) {
        td_memory_store_fail(bed->store, TANDEM_E_STORE_FULL, at_commit);
        assert_int_equal(TANDEM_E_STORE_FULL, put(bed, "b", "mem:b", false));
        assert_int_equal(TANDEM_E_STORE_FULL, put(bed, "b", "mem:b", false));
        assert_remotes(bed, "a mem:a\n");
    }
    assert_int_equal(TANDEM_E_STORE_FULL, td_sync_store_delete_remote(bed->sync, "a"));
    td_memory_store_fail(bed->store, TANDEM_OK, true);
    assert_int_equal(TANDEM_OK, put(bed, "b", "mem:b", false));
    assert_int_equal(TANDEM_OK, td_sync_store_delete_remote(bed->sync, "a"));
    reopen(bed);
    assert_remotes(bed, "b mem:b\n");
}

/* ---- Dead letters ---- */

static td_dead_letter letter_of(uint64_t id, const char *remote)
{
    td_dead_letter letter = {
        .id = id,
        .collection = "notes",
        .document = "n1",
        .branch = "main",
        .first_seq = 5,
        .last_seq = 7,
        .operations = 3,
        .bytes = 300,
        .first_ordinal = 90,
        .error = TANDEM_E_REFUSED,
        .detail = UINT64_MAX,
        .time_ms = 1700000000000,
        .offered = 2,
        .retry = true,
    };

    snprintf(letter.remote, sizeof(letter.remote), "%s", remote);
    memset(letter.reactor, 'r', sizeof(letter.reactor));
    memset(letter.origin, 'o', sizeof(letter.origin));
    memset(letter.hash, 'h', sizeof(letter.hash));
    return letter;
}

static tandem_err put_letter(struct bed *bed, uint64_t id, const char *remote)
{
    td_dead_letter letter = letter_of(id, remote);
    const td_dead_letter *letters[] = {&letter};

    return td_sync_store_put_dead(bed->sync, letters, 1);
}

static tandem_err collect_dead(void *context, const td_dead_letter *letter)
{
    char *all = context;

    sprintf(all + strlen(all), "%llu %s\n", (unsigned long long)letter->id, letter->remote);
    return TANDEM_OK;
}

static void assert_letters(struct bed *bed, const char *expected)
{
    char all[4096] = "";

    assert_int_equal(TANDEM_OK, td_sync_store_dead(bed->sync, collect_dead, all));
    assert_string_equal(expected, all);
}

static tandem_err first_dead(void *context, const td_dead_letter *letter)
{
    *(td_dead_letter *)context = *letter;
    return TANDEM_END;
}

static uint64_t job_ids(struct bed *bed)
{
    uint64_t last = UINT64_MAX;

    assert_int_equal(TANDEM_OK, td_sync_store_job_ids(bed->sync, &last));
    return last;
}

static void a_dead_letter_is_kept_as_it_was(void **state)
{
    struct bed *bed = *state;
    td_dead_letter letter = letter_of(UINT64_C(1) << 40, ""), kept;
    const td_dead_letter *letters[] = {&letter};

    memset(letter.remote, 'n', TANDEM_NAME_BYTES_MAX);
    memset(letter.collection, 'c', TANDEM_NAME_BYTES_MAX);
    memset(letter.document, 'd', TANDEM_NAME_BYTES_MAX);
    memset(letter.branch, 'b', TANDEM_NAME_BYTES_MAX);
    assert_int_equal(TANDEM_OK, td_sync_store_put_dead(bed->sync, letters, 1));
    reopen(bed);
    assert_int_equal(TANDEM_END, td_sync_store_dead(bed->sync, first_dead, &kept));
    assert_memory_equal(&letter, &kept, sizeof(kept));
    letter.retry = false;
    letter.offered = 3;
    letter.error = TANDEM_E_CHAIN;
    assert_int_equal(TANDEM_OK, td_sync_store_put_dead(bed->sync, letters, 1));
    assert_int_equal(TANDEM_END, td_sync_store_dead(bed->sync, first_dead, &kept));
    assert_memory_equal(&letter, &kept, sizeof(kept));
}

static void dead_letters_come_in_order_of_their_ids(void **state)
{
    struct bed *bed = *state;
    td_dead_letter a = letter_of(300, "a"), b = letter_of(2, "b"), c = letter_of(255, "");
    const td_dead_letter *letters[] = {&a, &b, &c};
    uint64_t gone[] = {300, 299, 2};

    assert_letters(bed, "");
    assert_int_equal(TANDEM_OK, td_sync_store_put_dead(bed->sync, letters, 3));
    reopen(bed);
    assert_letters(bed, "2 b\n255 \n300 a\n");
    assert_int_equal(TANDEM_OK, td_sync_store_delete_dead(bed->sync, gone, 3));
    reopen(bed);
    assert_letters(bed, "255 \n");
}

static void dead_letters_go_with_their_remote(void **state)
{
    struct bed *bed = *state;
    td_dead_letter a = letter_of(1, "a"), b = letter_of(2, "b"), c = letter_of(3, "a"),
                   d = letter_of(4, "");
    const td_dead_letter *letters[] = {&a, &b, &c, &d};

    assert_int_equal(TANDEM_OK, put(bed, "a", "mem:a", false));
    assert_int_equal(TANDEM_OK, td_sync_store_put_dead(bed->sync, letters, 4));
    assert_int_equal(TANDEM_E_NOT_FOUND, td_sync_store_delete_remote(bed->sync, "b"));
    assert_letters(bed, "1 a\n2 b\n3 a\n4 \n");
    assert_int_equal(TANDEM_OK, td_sync_store_delete_remote(bed->sync, "a"));
    reopen(bed);
    assert_letters(bed, "2 b\n4 \n");
}

static void no_id_of_a_job_is_given_twice(void **state)
{
    struct bed *bed = *state;
    uint64_t gone = 200;

    assert_int_equal(0, job_ids(bed));
    assert_int_equal(TANDEM_OK, td_sync_store_reserve_job_ids(bed->sync, 100));
    assert_int_equal(TANDEM_OK, put_letter(bed, 50, "a"));
    assert_int_equal(100, job_ids(bed));
    assert_int_equal(TANDEM_OK, put_letter(bed, 200, "a"));
    assert_int_equal(TANDEM_OK, td_sync_store_reserve_job_ids(bed->sync, 150));
    assert_int_equal(TANDEM_OK, td_sync_store_delete_dead(bed->sync, &gone, 1));
    reopen(bed);
    assert_int_equal(200, job_ids(bed));
    put_raw(bed, META, "jobs", tandem_slice_of("\xc0", 1));
    assert_int_equal(TANDEM_E_CORRUPT, td_sync_store_job_ids(bed->sync, &gone));
    assert_int_equal(TANDEM_E_CORRUPT, put_letter(bed, 7, "a"));
    assert_letters(bed, "50 a\n");
}

static void dead_letters_are_kept_all_or_none(void **state)
{
    struct bed *bed = *state;
    td_dead_letter a = letter_of(1, "a"), b = letter_of(2, "b");
    const td_dead_letter *letters[] = {&a, &b};
    uint64_t gone = 1;

    for (int at_commit = 0; at_commit <= 1; at_commit++) {
        td_memory_store_fail(bed->store, TANDEM_E_STORE_FULL, at_commit);
        assert_int_equal(TANDEM_E_STORE_FULL, td_sync_store_put_dead(bed->sync, letters, 2));
        assert_letters(bed, "");
    }
    td_memory_store_fail(bed->store, TANDEM_OK, true);
    assert_int_equal(TANDEM_OK, td_sync_store_put_dead(bed->sync, letters, 2));
    td_memory_store_fail(bed->store, TANDEM_E_IO, true);
    assert_int_equal(TANDEM_E_IO, td_sync_store_delete_dead(bed->sync, &gone, 1));
    td_memory_store_fail(bed->store, TANDEM_OK, true);
    assert_letters(bed, "1 a\n2 b\n");
}

/* Puts the array of a letter back under its id, with more or fewer items and a good checksum. */
static void put_array(struct bed *bed, tandem_slice good, uint64_t version, unsigned items,
                      bool more)
{
    tandem_reader reader = tandem_reader_of(tandem_slice_of(good.bytes + 8, good.size - 8));
    uint8_t key[9] = {0, 0, 0, 0, 0, 0, 0, 9, 0}, sum[8];
    tandem_writer all;
    uint32_t count;
    uint64_t old;
    td_txn *txn;

    assert_int_equal(TANDEM_OK, tandem_read_array(&reader, &count));
    assert_int_equal(TANDEM_OK, tandem_read_uint(&reader, &old));
    tandem_writer_init(&all);
    tandem_write_raw(&all, tandem_slice_of(sum, sizeof(sum)));
    tandem_write_array(&all, items + more);
    tandem_write_uint(&all, version);
    for (unsigned i = 1; i < items; i++) {
        tandem_slice item;

        assert_int_equal(TANDEM_OK, tandem_read_skip(&reader, &item));
        tandem_write_raw(&all, item);
    }
    if (more)
        tandem_write_text(&all, "more");
    td_put_u64(all.bytes, XXH3_64bits_withSeed(all.bytes + 8, all.size - 8, XXH3_64bits(key, 8)));
    assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_put(txn, DEAD, tandem_slice_of(key, 8),
                                           tandem_writer_slice(&all)));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
    tandem_writer_release(&all);
}

static void a_damaged_dead_letter_is_corrupt(void **state)
{
    struct bed *bed = *state;
    uint8_t key[8] = {0, 0, 0, 0, 0, 0, 0, 9}, good[256], bad[256];
    char all[4096] = "", said[200] = "";
    tandem_slice value;
    td_txn *txn;
    size_t size;

    assert_int_equal(TANDEM_OK, put_letter(bed, 9, "a"));
    assert_int_equal(TANDEM_OK, td_store_begin_read(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_get(txn, DEAD, tandem_slice_of(key, 8), &value));
    size = value.size;
    assert_true(size <= sizeof(good));
    memcpy(good, value.bytes, size);
    td_txn_abort(txn);
    for (size_t i = 0; i < size; i++) {
        memcpy(bad, good, size);
        bad[i] ^= 0x10;
        assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &txn));
        assert_int_equal(TANDEM_OK, td_txn_put(txn, DEAD, tandem_slice_of(key, 8),
                                               tandem_slice_of(bad, size)));
        assert_int_equal(TANDEM_OK, td_txn_commit(txn));
        assert_int_equal(TANDEM_E_CORRUPT, td_sync_store_dead(bed->sync, collect_dead, all));
        assert_int_equal(TANDEM_E_CORRUPT, td_sync_store_verify(bed->sync, note_problem, said));
        assert_string_equal("dead letter 9: what is kept of it is damaged", said);
    }
    value = tandem_slice_of(good, size);
    put_array(bed, value, 1, 17, false);
    assert_int_equal(TANDEM_E_CORRUPT, td_sync_store_dead(bed->sync, collect_dead, all));
    put_array(bed, value, 2, 18, false);
    assert_int_equal(TANDEM_E_FORMAT_NEWER, td_sync_store_dead(bed->sync, collect_dead, all));
    assert_int_equal(TANDEM_OK, td_sync_store_verify(bed->sync, note_problem, said));
    put_array(bed, value, 1, 18, true); /* of a version that keeps more */
    assert_letters(bed, "9 a\n");
}

static void a_dead_letter_ahead_of_the_numbers_is_told(void **state)
{
    struct bed *bed = *state;
    char said[200] = "";

    assert_int_equal(TANDEM_OK, put_letter(bed, 9, "a"));
    assert_int_equal(TANDEM_OK, td_sync_store_verify(bed->sync, note_problem, said));
    put_raw(bed, META, "jobs", tandem_slice_of("\x08", 1));
    assert_int_equal(TANDEM_E_CORRUPT, td_sync_store_verify(bed->sync, note_problem, said));
    assert_string_equal("dead letter 9: no job was given this number yet", said);
}

#define ON_BED(test) cmocka_unit_test_setup_teardown(test, bed_make, bed_unmake)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        ON_BED(remotes_are_kept_in_order_of_their_names),
        ON_BED(a_retry_policy_is_kept_with_its_remote),
        ON_BED(what_is_shared_is_kept_with_its_remote),
        ON_BED(how_it_is_polled_is_kept_with_a_remote),
        ON_BED(a_remote_is_replaced_by_name),
        ON_BED(a_deleted_remote_is_gone),
        ON_BED(names_and_urls_reach_their_bounds),
        ON_BED(what_is_no_name_or_url_is_refused),
        ON_BED(a_visitor_may_stop),
        ON_BED(fields_of_a_later_version_are_skipped),
        ON_BED(a_record_of_a_newer_kind_is_told_apart_from_damage),
        ON_BED(what_is_kept_is_verified),
        ON_BED(a_damaged_record_is_corrupt),
        ON_BED(a_record_with_other_fields_is_corrupt),
        ON_BED(a_newer_or_damaged_store_is_not_opened),
        ON_BED(a_remote_without_a_format_is_corrupt),
        ON_BED(a_full_disk_keeps_what_was_there_and_heals),
        ON_BED(a_dead_letter_is_kept_as_it_was),
        ON_BED(dead_letters_come_in_order_of_their_ids),
        ON_BED(dead_letters_go_with_their_remote),
        ON_BED(no_id_of_a_job_is_given_twice),
        ON_BED(dead_letters_are_kept_all_or_none),
        ON_BED(a_damaged_dead_letter_is_corrupt),
        ON_BED(a_dead_letter_ahead_of_the_numbers_is_told),
    };

    return cmocka_run_group_tests_name("sync store", tests, NULL, NULL);
}
