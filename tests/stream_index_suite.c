/*
 * The stream index on each backend (argv[1]: lmdb, memory): what it says depends on the operations
 * held, not on the order in which they came; it can be lost and built again.
 */
#include "tests/operation_maker.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/stream_block.h"
#include "tests/folder.h"

static void random_bytes(tandem_env *env, void *out, size_t size)
{
    static uint8_t next;

    for (size_t i = 0; i < size; i++)
        ((uint8_t *)out)[i] = next++;
}

static uint64_t no_time(tandem_env *env)
{
    return 0;
}

static const struct tandem_env_ops env_ops = {no_time, no_time, random_bytes};
static tandem_env env = {.ops = &env_ops};

static bool on_lmdb;

/* An operations store in memory, and an index on the backend under test. */
struct bed {
    char folder[FOLDER_BYTES];
    td_memory_disk *disk;
    td_op_store *ops;
    td_store *store; /* the index's */
    td_stream_index *index;
};

static td_op_store *ops_open(void)
{
    td_store *store;
    td_op_store *ops;

    assert_int_equal(TANDEM_OK, td_memory_store_open(&env, NULL, td_op_store_tables,
                                                     td_op_store_table_count, &store));
    assert_int_equal(TANDEM_OK, td_op_store_open(&env, store, &ops));
    return ops;
}

static tandem_err try_index(struct bed *bed)
{
    if (on_lmdb)
        assert_int_equal(TANDEM_OK,
                         td_lmdb_store_open(&env, bed->folder, td_stream_index_tables,
                                            td_stream_index_table_count, &bed->store));
    else
        assert_int_equal(TANDEM_OK,
                         td_memory_store_open(&env, bed->disk, td_stream_index_tables,
                                              td_stream_index_table_count, &bed->store));
    return td_stream_index_open(&env, bed->store, bed->ops, &bed->index);
}

/* What a rebuild does: all that was there is gone. */
static void index_drop(struct bed *bed)
{
    td_stream_index_free(bed->index);
    bed->index = NULL;
    if (on_lmdb) {
        folder_empty(bed->folder);
    } else {
        td_memory_disk_free(bed->disk);
        assert_int_equal(TANDEM_OK, td_memory_disk_open(&bed->disk));
    }
    assert_int_equal(TANDEM_OK, try_index(bed));
}

static struct bed *bed_open(void)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_non_null(bed);
    folder_make(bed->folder, "index", false);
    assert_int_equal(TANDEM_OK, td_memory_disk_open(&bed->disk));
    bed->ops = ops_open();
    assert_int_equal(TANDEM_OK, try_index(bed));
    return bed;
}

static void bed_free(struct bed *bed)
{
    td_stream_index_free(bed->index);
    td_op_store_free(bed->ops);
    td_memory_disk_free(bed->disk);
    folder_remove(bed->folder);
    free(bed);
}

static int setup(void **state)
{
    *state = bed_open();
    return 0;
}

static int teardown(void **state)
{
    bed_free(*state);
    return 0;
}

static uint64_t index_all(struct bed *bed)
{
    uint64_t position = 0;
    bool current = false;

    while (!current)
        assert_int_equal(TANDEM_OK,
                         td_stream_index_advance(bed->index, 7, &position, &current));
    return position;
}

static uint64_t waiting_of(struct bed *bed)
{
    td_stream_index_stat stat;

    td_stream_index_stat_get(bed->index, &stat);
    return stat.waiting;
}

static tandem_slice s(const char *text)
{
    return tandem_slice_text(text);
}

static td_document_info info_of(struct bed *bed, const char *document)
{
    td_document_info info;

    assert_int_equal(TANDEM_OK, td_stream_index_document(bed->index, s("c"), s(document), &info));
    return info;
}

static uint64_t count_of(struct bed *bed, const char *document, const char *branch,
                         const char *scope)
{
    uint64_t count;

    assert_int_equal(TANDEM_OK, td_stream_index_count(bed->index, s("c"), s(document), s(branch),
                                                      s(scope), &count));
    return count;
}

struct listing {
    uint64_t hlc[600];
    uint64_t ordinal[600];
    size_t count, max;
};

static tandem_err list_entry(void *context, const td_place *place, uint64_t ordinal)
{
    struct listing *listing = context;

    assert_true(listing->count < 600);
    listing->hlc[listing->count] = td_get_u64(place->bytes);
    listing->ordinal[listing->count++] = ordinal;
    return listing->count == listing->max ? TANDEM_END : TANDEM_OK;
}

static struct listing entries_after(struct bed *bed, const char *document, const char *branch,
                                    const char *scope, const td_place *after)
{
    struct listing listing = {.max = SIZE_MAX};

    assert_int_equal(TANDEM_OK,
                     td_stream_index_entries(bed->index, s("c"), s(document), s(branch), s(scope),
                                             after, list_entry, &listing));
    return listing;
}

static td_place place_at(uint64_t hlc)
{
    td_place place = {{0}};

    td_put_u64(place.bytes, hlc);
    return place;
}

static tandem_err verify(struct bed *bed, const char *collection, uint32_t max,
                         char why[TD_INDEX_WHY_BYTES])
{
    char last[TANDEM_NAME_BYTES_MAX + 1] = "";
    bool more = false;
    tandem_err err = td_stream_index_verify(bed->index, s(""), s(""), 1, last, &more, why);

    assert_false(more);
    do {
        if (err == TANDEM_OK)
            err = td_stream_index_verify(bed->index, s(collection), s(last), max, last, &more, why);
    } while (err == TANDEM_OK && more);
    return err;
}

/* So that what comes meets both what waits and what is in the tables. */
static void settle_sometimes(struct bed *bed, uint64_t turn)
{
    if (turn % 3 == 0)
        assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
}

/* ---- Kinds of records ---- */

/* What a test means by a table: of the table of documents only those of one kind. */
enum { DOCUMENTS = TD_INDEX_DOCUMENTS, STREAMS = TD_INDEX_TABLE_COUNT, BLOCKS, KINDS };

static unsigned table_of(unsigned kind)
{
    return kind < TD_INDEX_TABLE_COUNT ? kind : TD_INDEX_DOCUMENTS;
}

static bool is_of_kind(unsigned kind, tandem_slice key)
{
    td_index_names names;

    if (table_of(kind) != TD_INDEX_DOCUMENTS)
        return true;
    assert_true(td_index_key_parse(key, &names));
    return kind == (names.is_block ? BLOCKS : names.stream_key.size ? STREAMS : DOCUMENTS);
}

/* ---- Order ---- */

static void entries_stand_in_total_order_however_they_came(void **state)
{
    enum { COUNT = 100 };
    struct made made[COUNT];
    size_t order[COUNT];

    for (uint32_t i = 0; i < COUNT; i++)
        make_single("c", i + 1, 1000 + i / 3, "d", "main", "global", "log.APPEND", &made[i]);
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct bed *bed = bed_open();
        td_place zero = {{0}};
        struct listing listing;

        shuffle(order, COUNT, seed);
        for (size_t i = 0; i < COUNT; i += 10) {
            arrive(bed->ops, made, order + i, 10);
            index_all(bed);
            settle_sometimes(bed, seed + i / 10);
        }
        listing = entries_after(bed, "d", "main", "global", &zero);
        assert_int_equal(COUNT, listing.count);
        /* Places rise with the number of the origin, so order[] inverted is what is expected. */
        for (size_t i = 0; i < COUNT; i++) {
            assert_int_equal(1000 + i / 3, listing.hlc[i]);
            assert_int_equal(i, order[listing.ordinal[i] - 1]);
        }
        bed_free(bed);
    }
    made_release(made, COUNT);
}

/* Branches of forks, at one moment: only their hashes tell their order, and a place among them. */
static void ties_stand_in_the_order_of_their_hashes_however_they_came(void **state)
{
    enum { FORKS = 5, SIDES = 4, COUNT = FORKS * SIDES };
    static const char *const branches[] = {"main", "main", "main", "other"};
    struct made made[COUNT];
    size_t order[COUNT];

    for (uint32_t i = 0; i < COUNT; i++) {
        uint8_t payload = (uint8_t)i;
        struct maker maker;

        maker_init(&maker, "c", 1 + i / SIDES);
        make(&maker, 1000, "d", branches[i % SIDES], "global", "log.APPEND",
             tandem_slice_of(&payload, 1), &made[i]);
    }
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct bed *bed = bed_open();
        const uint8_t *last_hash = NULL;
        char why[TD_INDEX_WHY_BYTES];
        td_place zero = {{0}};
        struct listing listing;

        shuffle(order, COUNT, seed);
        for (size_t i = 0; i < COUNT; i += 2) {
            arrive(bed->ops, made, order + i, 2);
            index_all(bed);
            settle_sometimes(bed, seed + i / 2);
        }
        listing = entries_after(bed, "d", "main", "global", &zero);
        assert_int_equal(FORKS * (SIDES - 1), listing.count);
        for (size_t i = 0; i < listing.count; i++) {
            const td_operation *operation = &made[order[listing.ordinal[i] - 1]].operation;
            td_place place = place_at(1000);
            uint64_t rank;

            assert_int_equal(1 + i / (SIDES - 1), td_get_u32(operation->origin));
            assert_true(i % (SIDES - 1) == 0 || memcmp(last_hash, operation->hash, 16) < 0);
            last_hash = operation->hash;
            memcpy(place.bytes + 8, operation->origin, TANDEM_ORIGIN_BYTES);
            td_put_u64(place.bytes + 24, operation->seq);
            memcpy(place.bytes + TD_PLACE_HASH_AT, operation->hash, 16);
            assert_int_equal(listing.count - i - 1,
                             entries_after(bed, "d", "main", "global", &place).count);
            assert_int_equal(TANDEM_OK, td_stream_index_rank(bed->index, s("c"), s("d"), s("main"),
                                                             s("global"), &place, &rank));
            assert_int_equal(i + 1, rank);
        }
        /* The fourth sides are alone in their stream: the operation tells where they stand. */
        for (size_t i = 0; i < COUNT; i++) {
            td_place place = place_at(1000);
            uint64_t rank, others = 0;

            memcpy(place.bytes + 8, made[i].operation.origin, TANDEM_ORIGIN_BYTES);
            td_put_u64(place.bytes + 24, 1);
            memcpy(place.bytes + TD_PLACE_HASH_AT, made[i].operation.hash, 16);
            for (size_t j = SIDES - 1; j < COUNT; j += SIDES) {
                size_t fork = i / SIDES, its = j / SIDES;

                others += its < fork || (its == fork && memcmp(made[j].operation.hash,
                                                               made[i].operation.hash, 16) <= 0);
            }
            assert_int_equal(TANDEM_OK, td_stream_index_rank(bed->index, s("c"), s("d"),
                                                             s("other"), s("global"), &place,
                                                             &rank));
            assert_int_equal(others, rank);
        }
        assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
        assert_int_equal(TANDEM_OK, verify(bed, "c", 100, why));
        bed_free(bed);
    }
    made_release(made, COUNT);
}

/* One origin writes in order, and others come late, among many blocks. */
static void late_entries_find_room_in_full_blocks(void **state)
{
    enum { OWN = 500, LATE = 90 };
    struct made *made = calloc(OWN + LATE, sizeof(*made));
    struct bed *bed = *state;
    char why[TD_INDEX_WHY_BYTES];
    td_place zero = {{0}};
    struct maker own;
    struct listing listing;

    maker_init(&own, "c", 1);
    for (uint32_t i = 0; i < OWN; i++)
        make(&own, 1000 + 100000 * i, "d", "main", "global", "log.APPEND", s("x"), &made[i]);
    for (uint32_t i = 0; i < LATE; i++)
        make_single("c", 2 + i, 500 + 100000 * (i * 37 % 400), "d", "main", "global", "log.APPEND",
                    &made[OWN + i]);
    arrive(bed->ops, made, NULL, OWN);
    index_all(bed);
    for (uint32_t i = 0; i < LATE; i++) {
        arrive(bed->ops, &made[OWN + i], NULL, 1);
        if (i % 4 == 0)
            index_all(bed);
    }
    index_all(bed);
    listing = entries_after(bed, "d", "main", "global", &zero);
    assert_int_equal(OWN + LATE, listing.count);
    for (size_t i = 1; i < listing.count; i++)
        assert_true(listing.hlc[i - 1] <= listing.hlc[i]);
    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    assert_int_equal(TANDEM_OK, verify(bed, "c", 100, why));
    made_release(made, OWN + LATE);
    free(made);
}

static void entries_go_on_after_a_place_and_stop_when_told(void **state)
{
    struct bed *bed = *state;
    struct made made[5];
    struct listing listing = {.max = 2};
    td_place after;

    for (uint32_t i = 0; i < 5; i++)
        make_single("c", i + 1, 10 + i, "d", "main", "global", "log.APPEND", &made[i]);
    arrive(bed->ops, made, NULL, 5);
    index_all(bed);
    td_put_u64(after.bytes, 11);
    memcpy(after.bytes + 8, made[1].operation.origin, TANDEM_ORIGIN_BYTES);
    td_put_u64(after.bytes + 24, 1);
    memcpy(after.bytes + 32, made[1].operation.hash, 16);
    assert_int_equal(TANDEM_OK,
                     td_stream_index_entries(bed->index, s("c"), s("d"), s("main"), s("global"),
                                             &after, list_entry, &listing));
    assert_int_equal(2, listing.count);
    assert_int_equal(12, listing.hlc[0]);
    assert_int_equal(13, listing.hlc[1]);
    assert_int_equal(0, count_of(bed, "d", "main", "other"));
    assert_int_equal(0, entries_after(bed, "e", "main", "global", &after).count);
    made_release(made, 5);
}

static void the_newest_arrival_is_the_documents_position(void **state)
{
    struct bed *bed = *state;
    struct made made[3];

    make_single("c", 7, 500, "d", "main", "global", "kv.SET", &made[0]);
    make_single("c", 8, 900, "d", "other", "side", "kv.SET", &made[1]);
    make_single("c", 9, 100, "d", "main", "global", "kv.SET", &made[2]);
    arrive(bed->ops, made, NULL, 3);
    assert_int_equal(3, index_all(bed));
    assert_true(info_of(bed, "d").known);
    assert_int_equal(3, info_of(bed, "d").operations);
    assert_int_equal(3, info_of(bed, "d").last_ordinal);
    assert_int_equal(1, info_of(bed, "d").last_seq);
    assert_memory_equal(made[2].operation.origin, info_of(bed, "d").last_origin,
                        TANDEM_ORIGIN_BYTES);
    assert_false(info_of(bed, "nothing").known);
    made_release(made, 3);
}

/* ---- Lifecycle ---- */

/* What a document is must be the same after every order of arrival. */
static td_document_info info_after_any_order(const struct made *made, size_t count)
{
    td_document_info first = {0};
    size_t order[16];

    assert_true(count <= 16);
    for (uint64_t seed = 0; seed < 24; seed++) {
        struct bed *bed = bed_open();
        td_document_info info;

        shuffle(order, count, seed);
        /* In batches of several sizes. */
        for (size_t at = 0; at < count;) {
            size_t size = 1 + seed % 4 < count - at ? 1 + seed % 4 : count - at;

            arrive(bed->ops, made, order + at, size);
            index_all(bed);
            at += size;
        }
        info = info_of(bed, "d");
        info.last_ordinal = 0;
        info.last_seq = 0;
        memset(info.last_origin, 0, sizeof(info.last_origin));
        if (seed == 0)
            first = info;
        assert_int_equal(first.created, info.created);
        assert_int_equal(first.deleted, info.deleted);
        assert_int_equal(first.conflict, info.conflict);
        assert_int_equal(first.operations, info.operations);
        assert_string_equal(first.model, info.model);
        assert_memory_equal(first.epoch.bytes, info.epoch.bytes, sizeof(info.epoch.bytes));
        bed_free(bed);
    }
    return first;
}

struct life {
    uint64_t hlc;
    const char *type;
};

/* expected: the hlc of the epoch, 0 if never created. */
static void check_life(const struct life *lives, size_t count, const char *model, uint64_t epoch,
                       bool deleted, bool conflict)
{
    struct made made[16];
    td_document_info info;

    for (size_t i = 0; i < count; i++) {
        bool lifecycle = strstr(lives[i].type, "CREATE") || strstr(lives[i].type, "DELETE");

        make_single("c", (uint32_t)i + 1, lives[i].hlc, "d", i % 2 ? "main" : "side",
                    lifecycle ? "document" : "global", lives[i].type, &made[i]);
    }
    info = info_after_any_order(made, count);
    assert_true(info.known);
    assert_int_equal(epoch != 0, info.created);
    assert_int_equal(deleted, info.deleted);
    assert_int_equal(conflict, info.conflict);
    assert_string_equal(model, info.model);
    assert_int_equal(epoch, td_get_u64(info.epoch.bytes));
    made_release(made, count);
}

#define LIFE(model, epoch, deleted, conflict, ...)                                                 \
    do {                                                                                           \
        static const struct life lives[] = {__VA_ARGS__};                                          \
        check_life(lives, sizeof(lives) / sizeof(lives[0]), model, epoch, deleted, conflict);      \
    } while (0)

static void a_document_without_create_is_known_but_not_created(void **state)
{
    LIFE("", 0, false, false, {5, "kv.SET"}, {6, "kv.SET"});
    LIFE("", 0, false, false, {5, "kv.SET"}, {6, "kv.DELETE"});
}

static void a_create_begins_the_life_and_another_while_live_changes_nothing(void **state)
{
    LIFE("kv", 5, false, false, {5, "kv.CREATE"});
    LIFE("kv", 5, false, false, {5, "kv.CREATE"}, {7, "kv.CREATE"}, {9, "kv.SET"});
}

static void the_last_create_or_delete_decides(void **state)
{
    LIFE("kv", 5, true, false, {5, "kv.CREATE"}, {6, "kv.SET"}, {7, "kv.DELETE"});
    LIFE("kv", 8, false, false, {5, "kv.CREATE"}, {7, "kv.DELETE"}, {8, "kv.CREATE"},
         {9, "kv.CREATE"});
    LIFE("kv", 8, true, false, {5, "kv.CREATE"}, {7, "kv.DELETE"}, {8, "kv.CREATE"},
         {9, "kv.DELETE"}, {10, "kv.DELETE"});
    LIFE("kv", 5, false, false, {3, "kv.DELETE"}, {5, "kv.CREATE"});
}

static void of_two_models_the_first_create_wins_and_the_other_is_a_conflict(void **state)
{
    LIFE("log", 5, false, true, {5, "log.CREATE"}, {6, "kv.CREATE"});
    LIFE("log", 5, false, true, {5, "log.CREATE"}, {6, "kv.CREATE"}, {7, "kv.DELETE"});
    LIFE("log", 5, true, true, {5, "log.CREATE"}, {6, "log.DELETE"}, {7, "kv.CREATE"});
    LIFE("log", 5, false, true, {5, "log.CREATE"}, {7, "kv.SET"});
    LIFE("log", 5, false, true, {5, "log.CREATE"}, {7, "a.B"}, {8, "z.Y"});
}

/* ---- Snapshots ---- */

static tandem_err put_snapshot(struct bed *bed, uint64_t hlc, uint64_t folded, const char *bytes)
{
    td_snapshot snapshot = {place_at(hlc), folded, 3, s(bytes)};

    return td_stream_index_put_snapshot(bed->index, s("c"), s("d"), s("main"), s("global"),
                                        &snapshot);
}

static tandem_err get_snapshot(struct bed *bed, uint32_t version, td_snapshot *out)
{
    return td_stream_index_snapshot(bed->index, s("c"), s("d"), s("main"), s("global"), version,
                                    out);
}

/* A live document with entries at 10, 20 … and an origin number each. */
static void live_document(struct bed *bed, unsigned entries)
{
    struct made made;

    make_single("c", 1, 1, "d", "main", "document", "log.CREATE", &made);
    arrive(bed->ops, &made, NULL, 1);
    made_release(&made, 1);
    for (uint32_t i = 1; i <= entries; i++) {
        make_single("c", i + 1, i * 10, "d", "main", "global", "log.APPEND", &made);
        arrive(bed->ops, &made, NULL, 1);
        made_release(&made, 1);
    }
    index_all(bed);
}

static void one_more(struct bed *bed, uint32_t number, uint64_t hlc, const char *scope,
                     const char *type)
{
    struct made made;

    make_single("c", number, hlc, "d", "main", scope, type, &made);
    arrive(bed->ops, &made, NULL, 1);
    made_release(&made, 1);
    index_all(bed);
}

static void the_newest_snapshot_of_the_right_version_is_found(void **state)
{
    struct bed *bed = *state;
    td_snapshot found;

    live_document(bed, 5);
    assert_int_equal(TANDEM_E_NOT_FOUND, get_snapshot(bed, 3, &found));
    assert_int_equal(TANDEM_OK, put_snapshot(bed, 21, 2, "two"));
    assert_int_equal(TANDEM_OK, put_snapshot(bed, 41, 4, "four"));
    assert_int_equal(TANDEM_OK, get_snapshot(bed, 3, &found));
    assert_true(tandem_slice_equal(s("four"), found.bytes));
    assert_int_equal(4, found.folded);
    assert_int_equal(41, td_get_u64(found.place.bytes));
    assert_int_equal(TANDEM_E_NOT_FOUND, get_snapshot(bed, 4, &found));
    assert_int_equal(TANDEM_E_NOT_FOUND,
                     td_stream_index_snapshot(bed->index, s("c"), s("d"), s("main"), s("other"), 3,
                                              &found));
}

static void a_late_entry_drops_the_snapshots_after_it_and_no_other(void **state)
{
    struct bed *bed = *state;
    td_snapshot found;

    live_document(bed, 5);
    assert_int_equal(TANDEM_OK, put_snapshot(bed, 21, 2, "two"));
    assert_int_equal(TANDEM_OK, put_snapshot(bed, 31, 3, "three"));
    assert_int_equal(TANDEM_OK, put_snapshot(bed, 51, 5, "five"));
    one_more(bed, 100, 60, "global", "log.APPEND");
    assert_int_equal(TANDEM_OK, get_snapshot(bed, 3, &found));
    assert_int_equal(5, found.folded);
    one_more(bed, 101, 25, "other", "log.APPEND"); /* another stream */
    assert_int_equal(TANDEM_OK, get_snapshot(bed, 3, &found));
    assert_int_equal(5, found.folded);
    one_more(bed, 102, 25, "global", "log.APPEND");
    assert_int_equal(TANDEM_OK, get_snapshot(bed, 3, &found));
    assert_true(tandem_slice_equal(s("two"), found.bytes));
    one_more(bed, 103, 5, "global", "log.APPEND");
    assert_int_equal(TANDEM_E_NOT_FOUND, get_snapshot(bed, 3, &found));
}

static void a_new_epoch_drops_all_snapshots_of_the_document(void **state)
{
    struct bed *bed = *state;
    td_snapshot found;

    live_document(bed, 5);
    assert_int_equal(TANDEM_OK, put_snapshot(bed, 21, 2, "two"));
    one_more(bed, 100, 60, "document", "log.CREATE"); /* while live */
    one_more(bed, 101, 70, "document", "log.DELETE");
    assert_int_equal(TANDEM_OK, get_snapshot(bed, 3, &found));
    one_more(bed, 102, 80, "document", "log.CREATE");
    assert_int_equal(TANDEM_E_NOT_FOUND, get_snapshot(bed, 3, &found));
}

static void snapshots_thin_out_with_age(void **state)
{
    enum { COUNT = 200 };
    struct bed *bed = *state;
    td_snapshot found;
    uint64_t folded[TD_SNAPSHOTS_MAX + 1];
    unsigned left = 0;

    live_document(bed, COUNT);
    for (uint64_t i = 1; i <= COUNT; i++) {
        assert_int_equal(TANDEM_OK, put_snapshot(bed, i * 10 + 1, i, "state"));
        assert_int_equal(TANDEM_OK, get_snapshot(bed, 3, &found));
        assert_int_equal(i, found.folded);
    }
    /* Late entries, later and later, show what is left. */
    for (uint32_t number = 1000; get_snapshot(bed, 3, &found) == TANDEM_OK; number++) {
        assert_true(left < TD_SNAPSHOTS_MAX);
        folded[left++] = found.folded;
        one_more(bed, number, td_get_u64(found.place.bytes) - 1, "global", "log.APPEND");
    }
    assert_int_equal(TD_SNAPSHOTS_MAX, left);
    assert_int_equal(COUNT, folded[0]);
    /* Near ones stand close, and none is so far back that most would be folded again. */
    assert_true(folded[1] >= COUNT - 20);
    for (unsigned i = 0; i + 1 < left; i++)
        assert_true(COUNT - folded[i + 1] <= 4 * (COUNT - folded[i]) + 20);
}

static void a_torn_snapshot_is_passed_over(void **state)
{
    struct bed *bed = *state;
    tandem_slice key, value;
    uint8_t kept_key[TD_STORE_KEY_BYTES_MAX], damaged[64];
    size_t key_size, size;
    td_snapshot found;
    td_cursor *cursor;
    td_txn *txn;

    live_document(bed, 5);
    assert_int_equal(TANDEM_OK, put_snapshot(bed, 21, 2, "two"));
    assert_int_equal(TANDEM_OK, put_snapshot(bed, 41, 4, "four"));
    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, TD_INDEX_SNAPSHOTS, &cursor));
    assert_int_equal(TANDEM_OK, td_cursor_seek_before(cursor, s(""), &key, &value));
    memcpy(kept_key, key.bytes, key_size = key.size);
    memcpy(damaged, value.bytes, size = value.size);
    damaged[size - 1] ^= 1;
    td_cursor_free(cursor);
    assert_int_equal(TANDEM_OK, td_txn_put(txn, TD_INDEX_SNAPSHOTS,
                                           tandem_slice_of(kept_key, key_size),
                                           tandem_slice_of(damaged, size)));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
    assert_int_equal(TANDEM_OK, get_snapshot(bed, 3, &found));
    assert_int_equal(2, found.folded);
    assert_int_equal(TANDEM_OK, put_snapshot(bed, 51, 5, "five"));
    assert_int_equal(TANDEM_OK, get_snapshot(bed, 3, &found));
    assert_int_equal(5, found.folded);
}

/* Two streams of the document, whose numbers follow each other. */
static tandem_err put_snapshot_in(struct bed *bed, const char *scope, uint64_t hlc, uint64_t folded,
                                  uint32_t version)
{
    td_snapshot snapshot = {place_at(hlc), folded, version, s(scope)};

    return td_stream_index_put_snapshot(bed->index, s("c"), s("d"), s("main"), s(scope), &snapshot);
}

static tandem_err get_snapshot_in(struct bed *bed, const char *scope, td_snapshot *out)
{
    return td_stream_index_snapshot(bed->index, s("c"), s("d"), s("main"), s(scope), 3, out);
}

static bool is_marked(struct bed *bed, const char *scope)
{
    const char *const names[] = {"d", "main", scope};
    td_stream_record record;
    tandem_slice value;
    td_index_key key;
    td_txn *txn;

    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    assert_int_equal(TANDEM_OK, td_store_begin_read(bed->store, &txn));
    td_index_key_stream(&key, 1, s(names[0]), s(names[1]), s(names[2]));
    assert_int_equal(TANDEM_OK,
                     td_txn_get(txn, TD_INDEX_DOCUMENTS, td_index_key_slice(&key), &value));
    assert_int_equal(TANDEM_OK,
                     td_index_unwrap(TD_INDEX_DOCUMENTS, td_index_key_slice(&key), &value));
    assert_int_equal(TANDEM_OK, td_stream_decode(value, &record));
    td_txn_abort(txn);
    return record.marked;
}

static void snapshots_of_one_stream_are_not_anothers(void **state)
{
    struct bed *bed = *state;
    td_snapshot found;

    one_more(bed, 1, 1, "document", "log.CREATE");
    one_more(bed, 2, 10, "first", "log.APPEND");
    one_more(bed, 3, 10, "next", "log.APPEND");
    /* Looked for: the next one's, which has none of that version, is not the first one's. */
    assert_int_equal(TANDEM_OK, put_snapshot_in(bed, "first", 20, 1, 3));
    assert_int_equal(TANDEM_OK, put_snapshot_in(bed, "next", 20, 1, 4));
    assert_int_equal(TANDEM_E_NOT_FOUND, get_snapshot_in(bed, "next", &found));
    /* Thinned out: each has its own number of them. */
    for (uint32_t i = 1; i <= TD_SNAPSHOTS_MAX; i++) {
        assert_int_equal(TANDEM_OK, put_snapshot_in(bed, "next", 20 + i, 1, 3));
        assert_int_equal(TANDEM_OK, put_snapshot_in(bed, "first", 20 + i, 1, 3));
    }
    /* Dropped: a late entry of the first leaves the next one's alone. */
    one_more(bed, 4, 5, "first", "log.APPEND");
    assert_int_equal(TANDEM_E_NOT_FOUND, get_snapshot_in(bed, "first", &found));
    assert_false(is_marked(bed, "first"));
    assert_int_equal(TANDEM_OK, get_snapshot_in(bed, "next", &found));
    assert_true(tandem_slice_equal(s("next"), found.bytes));
    assert_int_equal(20 + TD_SNAPSHOTS_MAX, td_get_u64(found.place.bytes));
    /* And where the next one's all go, what is left of the first is not its mark. */
    assert_int_equal(TANDEM_OK, put_snapshot_in(bed, "first", 20, 2, 3));
    assert_true(is_marked(bed, "next"));
    one_more(bed, 5, 5, "next", "log.APPEND");
    assert_int_equal(TANDEM_E_NOT_FOUND, get_snapshot_in(bed, "next", &found));
    assert_false(is_marked(bed, "next"));
    assert_int_equal(TANDEM_OK, get_snapshot_in(bed, "first", &found));
}

/* ---- Listings ---- */

struct names {
    char text[400];
    size_t count, max;
};

static tandem_err note_document(void *context, tandem_slice document, const td_document_info *info)
{
    struct names *names = context;

    snprintf(names->text + strlen(names->text), sizeof(names->text) - strlen(names->text),
             "%.*s:%d ", (int)document.size, (const char *)document.bytes, (int)info->operations);
    return ++names->count == names->max ? TANDEM_END : TANDEM_OK;
}

static tandem_err note_stream(void *context, tandem_slice branch, tandem_slice scope,
                              uint64_t operations)
{
    struct names *names = context;

    snprintf(names->text + strlen(names->text), sizeof(names->text) - strlen(names->text),
             "%.*s/%.*s:%d ", (int)branch.size, (const char *)branch.bytes, (int)scope.size,
             (const char *)scope.bytes, (int)operations);
    return TANDEM_OK;
}

static void documents_and_streams_are_listed_in_byte_order(void **state)
{
    static const struct {
        const char *document, *branch, *scope;
    } rows[] = {{"b", "main", "global"},    {"a", "main", "global"},  {"ab", "main", "global"},
                {"a", "main", "document"},  {"a", "side", "x"},       {"a", "main", "glob"},
                {"a", "ma", "global"},      {"a", "other", "document"}, {"a", "main", "global"}};
    enum { ROWS = sizeof(rows) / sizeof(rows[0]) };
    struct bed *bed = *state;
    struct names names = {.max = SIZE_MAX};
    struct made made[ROWS];

    for (uint32_t i = 0; i < ROWS; i++)
        make_single("c", i + 1, 100 - i, rows[i].document, rows[i].branch, rows[i].scope, "kv.X",
                    &made[i]);
    arrive(bed->ops, made, NULL, ROWS);
    made_release(made, ROWS);
    make_single("b", 1, 1, "elsewhere", "main", "global", "kv.X", &made[0]);
    arrive(bed->ops, made, NULL, 1);
    made_release(made, 1);
    assert_int_equal(ROWS + 1, index_all(bed));

    assert_int_equal(TANDEM_OK, td_stream_index_documents(bed->index, s("c"), s(""), note_document,
                                                          &names));
    assert_string_equal("a:7 ab:1 b:1 ", names.text);
    names = (struct names){.max = 1};
    assert_int_equal(TANDEM_OK, td_stream_index_documents(bed->index, s("c"), s("a"),
                                                          note_document, &names));
    assert_string_equal("ab:1 ", names.text);
    names = (struct names){.max = SIZE_MAX};
    assert_int_equal(TANDEM_OK, td_stream_index_streams(bed->index, s("c"), s("a"), note_stream,
                                                        &names));
    assert_string_equal("ma/global:1 main/glob:1 main/global:2 side/x:1 ", names.text);
    assert_int_equal(2, count_of(bed, "a", "", "document"));
    assert_int_equal(2, count_of(bed, "a", "any", "document"));
}

static tandem_err refuse_document(void *context, tandem_slice document,
                                  const td_document_info *info)
{
    return *(tandem_err *)context;
}

static tandem_err refuse_stream(void *context, tandem_slice branch, tandem_slice scope,
                                uint64_t operations)
{
    return *(tandem_err *)context;
}

static tandem_err refuse_entry(void *context, const td_place *place, uint64_t ordinal)
{
    return *(tandem_err *)context;
}

static void a_visitors_error_is_handed_on_and_harms_nothing(void **state)
{
    static const tandem_err says[] = {TANDEM_E_INPUT, TANDEM_E_CORRUPT, TANDEM_E_NOMEM, TANDEM_END};
    td_place zero = {{0}};
    struct bed *bed = *state;

    live_document(bed, 3);
    for (unsigned i = 0; i < sizeof(says) / sizeof(says[0]); i++) {
        tandem_err say = says[i], expected = say < TANDEM_OK ? say : TANDEM_OK;

        assert_int_equal(expected, td_stream_index_documents(bed->index, s("c"), s(""),
                                                             refuse_document, &say));
        assert_int_equal(expected, td_stream_index_streams(bed->index, s("c"), s("d"),
                                                           refuse_stream, &say));
        assert_int_equal(expected,
                         td_stream_index_entries(bed->index, s("c"), s("d"), s("main"),
                                                 s("global"), &zero, refuse_entry, &say));
        assert_int_equal(TANDEM_OK, td_stream_index_failure(bed->index));
    }
}

/* ---- Batches, positions, durability ---- */

static void a_batch_takes_no_more_than_it_may(void **state)
{
    struct bed *bed = *state;
    struct made made[10];
    uint64_t position = 0, before = 0;
    unsigned batches = 0;
    bool current = false;

    for (uint32_t i = 0; i < 10; i++)
        make_single(i % 3 == 0 ? "c" : "b", i + 1, i + 1, "d", "main", "global", "kv.SET",
                    &made[i]);
    arrive(bed->ops, made, NULL, 10);
    made_release(made, 10);
    while (!current) {
        uint64_t waiting = waiting_of(bed);

        assert_int_equal(TANDEM_OK,
                         td_stream_index_advance(bed->index, 3, &position, &current));
        assert_in_range(waiting_of(bed) - waiting, 0, 3);
        assert_true(position >= before);
        before = position;
        batches++;
    }
    assert_int_equal(10, position);
    assert_in_range(batches, 4, 6);
    assert_int_equal(10, waiting_of(bed));
    assert_int_equal(4, count_of(bed, "d", "main", "global"));
}

static void many_lagging_collections_are_all_indexed(void **state)
{
    enum { COUNT = 150 };
    struct bed *bed = *state;
    struct made made[COUNT];
    char names[COUNT][16];
    td_document_info info;
    uint64_t position = 0;
    bool current = false;

    for (uint32_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof(names[i]), "c%u", i * 7 % COUNT);
        make_single(names[i], i + 1, i + 1, "d", "main", "global", "kv.SET", &made[i]);
    }
    arrive(bed->ops, made, NULL, COUNT);
    made_release(made, COUNT);
    while (!current) {
        assert_int_equal(TANDEM_OK,
                         td_stream_index_advance(bed->index, 70, &position, &current));
        /* What the position covers is there. */
        for (uint64_t i = 0; i < position; i++) {
            assert_int_equal(TANDEM_OK,
                             td_stream_index_document(bed->index, s(names[i]), s("d"), &info));
            assert_int_equal(i + 1, info.last_ordinal);
        }
    }
    assert_int_equal(COUNT, position);
}

static void what_is_committed_stays_and_the_rest_is_indexed_again(void **state)
{
    struct bed *bed = *state;
    td_stream_index_stat stat;

    live_document(bed, 3);
    assert_true(td_stream_index_busy(bed->index));
    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    assert_false(td_stream_index_busy(bed->index));
    assert_int_equal(0, waiting_of(bed));
    one_more(bed, 50, 40, "global", "log.APPEND");
    td_stream_index_free(bed->index);
    bed->index = NULL;
    assert_int_equal(TANDEM_OK, try_index(bed));
    td_stream_index_stat_get(bed->index, &stat);
    assert_int_equal(4, stat.position);
    assert_int_equal(3, count_of(bed, "d", "main", "global"));
    assert_int_equal(5, index_all(bed));
    assert_int_equal(4, count_of(bed, "d", "main", "global"));
    td_stream_index_stat_get(bed->index, &stat);
    assert_int_equal(1, stat.indexed);
}

enum { SLICED = 10, SLICED_EACH = 3 };

/* Documents d0 to d9, each created and then changed twice, in turn. */
static void arrive_in_turn(struct bed *bed, struct made made[SLICED * SLICED_EACH])
{
    for (uint32_t i = 0; i < SLICED * SLICED_EACH; i++) {
        char document[] = {'d', (char)('0' + i % SLICED), '\0'};

        make_single("c", i + 1, 100 + i, document, "main", i < SLICED ? "document" : "global",
                    i < SLICED ? "log.CREATE" : "log.APPEND", &made[i]);
    }
    arrive(bed->ops, made, NULL, SLICED * SLICED_EACH);
}

static void expect_in_turn(struct bed *bed)
{
    char why[TD_INDEX_WHY_BYTES];

    for (unsigned i = 0; i < SLICED; i++) {
        char document[] = {'d', (char)('0' + i), '\0'};

        assert_int_equal(SLICED_EACH, info_of(bed, document).operations);
        assert_true(info_of(bed, document).created);
        assert_int_equal(2, count_of(bed, document, "main", "global"));
    }
    assert_int_equal(TANDEM_OK, verify(bed, "c", 100, why));
}

/* A crash behind each of the slices: what is in the tables already is gathered again, and told. */
static void a_crash_between_two_slices_does_no_harm(void **state)
{
    for (unsigned slices = 0; slices <= SLICED / 3; slices++) {
        struct made made[SLICED * SLICED_EACH];
        struct bed *bed = bed_open();
        td_stream_index_stat stat;
        bool more = false;

        arrive_in_turn(bed, made);
        index_all(bed);
        assert_int_equal(SLICED * SLICED_EACH, waiting_of(bed));
        for (unsigned i = 0; i < slices; i++) {
            assert_int_equal(TANDEM_OK, td_stream_index_settle(bed->index, 3, &more));
            assert_true(more);
            assert_true(td_stream_index_busy(bed->index));
        }
        td_stream_index_free(bed->index);
        bed->index = NULL;
        assert_int_equal(TANDEM_OK, try_index(bed));
        td_stream_index_stat_get(bed->index, &stat);
        assert_int_equal(0, stat.position);
        one_more(bed, 99, 5, "global", "log.APPEND"); /* of another document */
        expect_in_turn(bed);
        assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
        assert_false(td_stream_index_busy(bed->index));
        index_drop(bed);
        index_all(bed);
        expect_in_turn(bed);
        made_release(made, SLICED * SLICED_EACH);
        bed_free(bed);
    }
}

static uint64_t meta_of(struct bed *bed, const char *name)
{
    tandem_slice value;
    uint64_t number;
    td_txn *txn;

    assert_int_equal(TANDEM_OK, td_store_begin_read(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_get(txn, TD_INDEX_META, s(name), &value));
    number = td_get_u64(value.bytes + TD_INDEX_CHECKSUM_BYTES);
    td_txn_abort(txn);
    return number;
}

/* Collections that came in another order than their names have: each keeps its number. */
static void collections_are_not_mixed_up_by_a_crash_between_slices(void **state)
{
    static const char *const names[] = {"b", "c", "a"};

    for (unsigned slices = 1; slices <= 3; slices++) {
        struct bed *bed = bed_open();
        char why[TD_INDEX_WHY_BYTES];
        td_document_info info;
        struct made made;
        bool more;

        for (uint32_t i = 0; i < 2; i++) {
            make_single(names[i], i + 1, i + 1, "d", "main", "document", "log.CREATE", &made);
            arrive(bed->ops, &made, NULL, 1);
            made_release(&made, 1);
            index_all(bed);
        }
        for (unsigned i = 0; i < slices; i++)
            assert_int_equal(TANDEM_OK, td_stream_index_settle(bed->index, 1, &more));
        td_stream_index_free(bed->index);
        bed->index = NULL;
        make_single(names[2], 3, 3, "d", "main", "global", "kv.SET", &made);
        arrive(bed->ops, &made, NULL, 1);
        made_release(&made, 1);
        assert_int_equal(TANDEM_OK, try_index(bed));
        index_all(bed);
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(TANDEM_OK,
                             td_stream_index_document(bed->index, s(names[i]), s("d"), &info));
            assert_int_equal(1, info.operations);
            assert_int_equal(i + 1, info.last_ordinal);
            assert_int_equal(i < 2, info.created);
            assert_int_equal(TANDEM_OK, verify(bed, names[i], 100, why));
        }
        bed_free(bed);
    }
}

/* What is written at once is bounded, also where somebody lists. */
static void a_listing_settles_in_slices(void **state)
{
    enum { COUNT = TD_INDEX_SLICE + 10 };
    struct made *made = calloc(COUNT, sizeof(*made));
    struct bed *bed = *state;
    struct names names = {.max = 1};
    char document[16];

    assert_non_null(made);
    for (uint32_t i = 0; i < COUNT; i++) {
        snprintf(document, sizeof(document), "d%u", i);
        make_single("c", i + 1, i + 1, document, "main", "global", "kv.SET", &made[i]);
    }
    arrive(bed->ops, made, NULL, COUNT);
    made_release(made, COUNT);
    free(made);
    index_all(bed);
    assert_int_equal(0, meta_of(bed, "reached"));
    assert_int_equal(TANDEM_OK, td_stream_index_documents(bed->index, s("c"), s(""), note_document,
                                                          &names));
    assert_in_range(meta_of(bed, "reached"), TD_INDEX_SLICE, COUNT);
    assert_int_equal(0, meta_of(bed, "position"));
    assert_int_equal(0, waiting_of(bed));
}

static void what_is_read_between_slices_is_all_there(void **state)
{
    struct made made[SLICED * SLICED_EACH];
    struct bed *bed = *state;
    bool more = true;

    arrive_in_turn(bed, made);
    index_all(bed);
    assert_int_equal(SLICED_EACH, info_of(bed, "d7").operations);
    while (more) {
        assert_int_equal(TANDEM_OK, td_stream_index_settle(bed->index, 3, &more));
        assert_int_equal(2, count_of(bed, "d2", "main", "global"));
        assert_int_equal(2, count_of(bed, "d5", "main", "global"));
    }
    assert_int_equal(0, waiting_of(bed));
    expect_in_turn(bed);
    made_release(made, SLICED * SLICED_EACH);
}

/* A look at a document writes nothing, unless its life may have changed. */
static void what_is_known_of_a_document_counts_what_waits(void **state)
{
    struct bed *bed = *state;
    td_document_info waiting, settled;

    live_document(bed, 3);
    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    for (uint32_t i = 0; i < 4; i++) {
        one_more(bed, 50 + i, i == 1 ? 5 : 200, i == 3 ? "document" : "global",
                 i == 2 ? "kv.SET" : i == 3 ? "log.DELETE" : "log.APPEND");
        waiting = info_of(bed, "d");
        assert_int_equal(5 + i, waiting.operations);
        assert_int_equal(5 + i, waiting.last_ordinal);
        assert_int_equal(i >= 2, waiting.conflict);
        assert_int_equal(i == 3, waiting.deleted);
    }
    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    settled = info_of(bed, "d");
    assert_memory_equal(&waiting, &settled, sizeof(waiting));
}

/* A document was read, and what made it that was committed, though its position was not. */
static void a_document_that_is_ahead_of_the_position_is_not_indexed_twice(void **state)
{
    struct made made[SLICED * SLICED_EACH];
    struct bed *bed = *state;
    bool more;

    arrive_in_turn(bed, made);
    index_all(bed);
    assert_int_equal(2, count_of(bed, "d9", "main", "global"));
    assert_int_equal(TANDEM_OK, td_stream_index_settle(bed->index, 1, &more));
    /* A store that was put back to what it was before is told by this. */
    assert_int_equal(0, meta_of(bed, "position"));
    assert_int_equal(SLICED * SLICED_EACH, meta_of(bed, "reached"));
    td_stream_index_free(bed->index);
    bed->index = NULL;
    assert_int_equal(TANDEM_OK, try_index(bed));
    index_all(bed);
    expect_in_turn(bed);
    made_release(made, SLICED * SLICED_EACH);
}

static void a_dropped_index_is_built_again_and_says_the_same(void **state)
{
    struct bed *bed = *state;
    td_document_info before, after;

    live_document(bed, 20);
    one_more(bed, 50, 300, "document", "log.DELETE");
    one_more(bed, 51, 400, "document", "log.CREATE");
    before = info_of(bed, "d");
    index_drop(bed);
    assert_false(info_of(bed, "d").known);
    assert_int_equal(23, index_all(bed));
    after = info_of(bed, "d");
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(20, count_of(bed, "d", "main", "global"));
}

static void an_index_of_another_store_is_refused(void **state)
{
    struct bed *bed = *state;
    td_op_store *own = bed->ops;

    live_document(bed, 3);
    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    td_stream_index_free(bed->index);
    bed->index = NULL;
    bed->ops = ops_open(); /* another reactor id, and nothing in it */
    assert_int_equal(TANDEM_E_FORMAT, try_index(bed));
    td_op_store_free(bed->ops);
    bed->ops = own;
    bed->index = NULL;
    assert_int_equal(TANDEM_OK, try_index(bed));
}

static void corrupt_records_are_passed_over_and_counted(void **state)
{
    struct bed *bed = *state;
    td_store *store = td_op_store_backend(bed->ops);
    uint8_t key_bytes[64], damaged[512];
    tandem_slice key, value;
    td_stream_index_stat stat;
    uint64_t count, first;
    size_t key_size, size;
    struct made made[3];
    td_cursor *cursor;
    unsigned table = 0;
    td_txn *txn;

    while (strcmp(td_op_store_tables[table], "operations") != 0)
        table++;
    for (uint32_t i = 0; i < 3; i++)
        make_single("c", i + 1, i + 1, "d", "main", "global", "kv.SET", &made[i]);
    arrive(bed->ops, made, NULL, 3);
    made_release(made, 3);
    assert_int_equal(TANDEM_OK, td_store_begin_write(store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, table, &cursor));
    assert_int_equal(TANDEM_OK, td_cursor_seek(cursor, s(""), &key, &value));
    assert_int_equal(TANDEM_OK, td_cursor_next(cursor, &key, &value));
    memcpy(key_bytes, key.bytes, key_size = key.size);
    memcpy(damaged, value.bytes, size = value.size);
    damaged[size - 1] ^= 1;
    td_cursor_free(cursor);
    assert_int_equal(TANDEM_OK, td_txn_put(txn, table, tandem_slice_of(key_bytes, key_size),
                                           tandem_slice_of(damaged, size)));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));

    assert_int_equal(3, index_all(bed));
    assert_int_equal(2, count_of(bed, "d", "main", "global"));
    td_stream_index_stat_get(bed->index, &stat);
    assert_int_equal(1, stat.corrupt);
    assert_int_equal(2, stat.indexed);
    assert_int_equal(TANDEM_OK, td_stream_index_corrupt(bed->index, s("c"), &count, &first));
    assert_int_equal(1, count);
    assert_int_equal(2, first);
    assert_int_equal(TANDEM_OK, td_stream_index_corrupt(bed->index, s("b"), &count, &first));
    assert_int_equal(0, count);
}

/* ---- Damage ---- */

/* Read everything, from opening on; the first error. The index is left as it is then. */
static tandem_err read_everything(struct bed *bed)
{
    struct names names = {.max = SIZE_MAX};
    struct listing listing = {.max = SIZE_MAX};
    td_place zero = {{0}};
    tandem_err err;

    td_stream_index_free(bed->index);
    bed->index = NULL;
    if ((err = try_index(bed)) != TANDEM_OK ||
        (err = td_stream_index_documents(bed->index, s("c"), s(""), note_document, &names)) ||
        (err = td_stream_index_streams(bed->index, s("c"), s("d"), note_stream, &names)))
        return err;
    return td_stream_index_entries(bed->index, s("c"), s("d"), s("main"), s("global"), &zero,
                                   list_entry, &listing);
}

/* In the last record of a table, or in the last that is of a kind. */
static void flip_in(td_store *store, unsigned table, unsigned kind, size_t at)
{
    uint8_t key_bytes[256], damaged[512];
    size_t key_size = 0, size = 0;
    tandem_slice key, value;
    td_cursor *cursor;
    td_txn *txn;

    assert_int_equal(TANDEM_OK, td_store_begin_write(store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, table, &cursor));
    for (tandem_err err = td_cursor_seek(cursor, s(""), &key, &value); err == TANDEM_OK;
         err = td_cursor_next(cursor, &key, &value)) {
        if (kind < KINDS && !is_of_kind(kind, key))
            continue;
        memcpy(key_bytes, key.bytes, key_size = key.size);
        memcpy(damaged, value.bytes, size = value.size);
    }
    damaged[at < size ? at : size - 1] ^= 4;
    td_cursor_free(cursor);
    assert_int_equal(TANDEM_OK, td_txn_put(txn, table, tandem_slice_of(key_bytes, key_size),
                                           tandem_slice_of(damaged, size)));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
}

static void a_changed_record_of_any_table_is_noticed(void **state)
{
    static const size_t places[] = {0, SIZE_MAX};
    struct bed *bed = *state;

    live_document(bed, 3);
    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    assert_int_equal(TANDEM_OK, read_everything(bed));
    for (unsigned kind = 0; kind < KINDS; kind++) {
        if (kind == TD_INDEX_SNAPSHOTS)
            continue; /* they are passed over */
        for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
            assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
            flip_in(bed->store, table_of(kind), kind, places[i]);
            assert_int_equal(TANDEM_E_CORRUPT, read_everything(bed));
            if (bed->index)
                assert_int_equal(TANDEM_E_CORRUPT, td_stream_index_failure(bed->index));
            index_drop(bed);
            index_all(bed);
            assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
            assert_int_equal(TANDEM_OK, read_everything(bed));
        }
    }
}

static void op_record_delete(struct bed *bed, uint64_t ordinal)
{
    td_store *store = td_op_store_backend(bed->ops);
    uint8_t key_bytes[64];
    tandem_slice key, value;
    td_cursor *cursor;
    unsigned table = 0;
    size_t key_size;
    td_txn *txn;

    while (strcmp(td_op_store_tables[table], "operations") != 0)
        table++;
    assert_int_equal(TANDEM_OK, td_store_begin_write(store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, table, &cursor));
    assert_int_equal(TANDEM_OK, td_cursor_seek(cursor, s(""), &key, &value));
    while (td_get_u64(key.bytes + key.size - 8) != ordinal)
        assert_int_equal(TANDEM_OK, td_cursor_next(cursor, &key, &value));
    memcpy(key_bytes, key.bytes, key_size = key.size);
    td_cursor_free(cursor);
    assert_int_equal(TANDEM_OK, td_txn_del(txn, table, tandem_slice_of(key_bytes, key_size)));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
}

/* ---- Verifying ---- */

/* All pages, of max documents each, of one collection and of what lies beneath the tables. */
/* ---- Ordinals of their own: changes of what is lacking ---- */

enum { GAPPED = 6 };

static void gapped_make(struct made made[GAPPED])
{
    struct maker maker;

    maker_init(&maker, "c", 1);
    for (uint8_t i = 0; i < GAPPED; i++)
        make(&maker, i + 1, i % 2 ? "d" : "e", "main", "global", "kv.SET",
             tandem_slice_of(&i, 1), &made[i]);
}

static void refuse_one(struct bed *bed, const struct made *made)
{
    assert_int_equal(TANDEM_OK, td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_REFUSED,
                     td_op_store_refuse(bed->ops, &made->operation, 1, TANDEM_E_REFUSED));
    assert_int_equal(TANDEM_OK, td_op_store_commit(bed->ops));
}

static void expect_none_missed(struct bed *bed)
{
    uint64_t count, first;

    assert_int_equal(TANDEM_OK, td_stream_index_corrupt(bed->index, s("c"), &count, &first));
    assert_int_equal(0, count);
}

static void where_nothing_stands_the_index_goes_on(void **state)
{
    struct bed *bed = *state;
    char why[TD_INDEX_WHY_BYTES];
    struct made made[GAPPED];
    td_document_info before, after;
    td_stream_index_stat stat;
    uint64_t position = 0;
    bool current = false;

    gapped_make(made);
    refuse_one(bed, &made[0]); /* a collection that only lacks */
    assert_int_equal(1, index_all(bed));
    expect_none_missed(bed);
    assert_int_equal(TANDEM_OK, verify(bed, "c", 3, why));
    arrive(bed->ops, &made[1], NULL, 1);
    refuse_one(bed, &made[2]);
    arrive(bed->ops, &made[3], NULL, 1);
    assert_int_equal(4, index_all(bed));
    refuse_one(bed, &made[4]); /* nothing but that is new */
    assert_int_equal(5, index_all(bed));
    assert_int_equal(TANDEM_OK, td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_OK, td_op_store_withdraw(bed->ops));
    assert_int_equal(TANDEM_OK, td_op_store_commit(bed->ops));
    assert_int_equal(8, index_all(bed));
    expect_none_missed(bed);
    assert_int_equal(2, count_of(bed, "d", "main", "global"));
    assert_int_equal(0, count_of(bed, "e", "main", "global"));
    assert_int_equal(TANDEM_OK, verify(bed, "c", 3, why));

    /* It is not indexed again, and not ahead of its store. */
    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    td_stream_index_free(bed->index);
    bed->index = NULL;
    assert_int_equal(TANDEM_OK, try_index(bed));
    td_stream_index_stat_get(bed->index, &stat);
    assert_int_equal(8, stat.position);

    /* What fills the gaps comes last, and first in the total order. */
    arrive(bed->ops, &made[2], NULL, 1);
    arrive(bed->ops, &made[0], NULL, 1);
    refuse_one(bed, &made[5]);
    assert_int_equal(11, index_all(bed));
    assert_int_equal(10, info_of(bed, "e").last_ordinal);
    assert_int_equal(1, info_of(bed, "e").last_seq);
    assert_int_equal(1, entries_after(bed, "e", "main", "global", &(td_place){{0}}).hlc[0]);
    expect_none_missed(bed);
    assert_int_equal(TANDEM_OK, verify(bed, "c", 3, why));
    before = info_of(bed, "e");
    index_drop(bed);
    for (uint64_t last = 0; !current; last = position) {
        assert_int_equal(TANDEM_OK, td_stream_index_advance(bed->index, 1, &position, &current));
        assert_true(position >= last);
    }
    assert_int_equal(11, position);
    after = info_of(bed, "e");
    assert_memory_equal(&before, &after, sizeof(before));
    expect_none_missed(bed);
    made_release(made, GAPPED);
}

/* A change of lacks behind it hides no record that has gone. */
static void what_has_gone_before_a_lack_is_counted(void **state)
{
    struct bed *bed = *state;
    struct made made[GAPPED];
    uint64_t count, first;

    gapped_make(made);
    arrive(bed->ops, made, NULL, 2);
    refuse_one(bed, &made[2]);
    op_record_delete(bed, 2);
    assert_int_equal(3, index_all(bed));
    assert_int_equal(TANDEM_OK, td_stream_index_corrupt(bed->index, s("c"), &count, &first));
    assert_int_equal(1, count);
    made_release(made, GAPPED);
}

/* Documents of two models, a deleted one, branches, scopes, late arrivals, snapshots. */
static void eventful_history(struct bed *bed)
{
    live_document(bed, 9);
    assert_int_equal(TANDEM_OK, put_snapshot(bed, 21, 2, "two"));
    assert_int_equal(TANDEM_OK, put_snapshot(bed, 41, 4, "four"));
    assert_int_equal(TANDEM_OK, put_snapshot(bed, 81, 8, "eight"));
    one_more(bed, 100, 65, "global", "log.APPEND"); /* late: drops one of them */
    one_more(bed, 101, 66, "other", "kv.SET");
    one_more(bed, 102, 300, "document", "log.DELETE");
    one_more(bed, 103, 200, "document", "kv.CREATE");
    for (uint32_t i = 0; i < 20; i++) {
        struct made made;
        char name[8];

        snprintf(name, sizeof(name), "e%u", i % 5);
        make_single("c", 200 + i, 1000 - i, name, i % 2 ? "main" : "side", i % 7 ? "x" : "document",
                    i % 7 ? "kv.SET" : "kv.CREATE", &made);
        arrive(bed->ops, &made, NULL, 1);
        made_release(&made, 1);
    }
    index_all(bed);
    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
}

static void an_index_that_fits_its_store_is_verified(void **state)
{
    struct bed *bed = *state;
    char why[TD_INDEX_WHY_BYTES];

    eventful_history(bed);
    for (uint32_t max = 1; max < 9; max += 3)
        assert_int_equal(TANDEM_OK, verify(bed, "c", max, why));
    assert_string_equal("", why);
    assert_int_equal(TANDEM_OK, td_stream_index_failure(bed->index));
}

enum { HELD_MAX = 200 };
enum { GONE = 1 << 20, MOVED }; /* the record is deleted, or put at another key */

struct wrong {
    unsigned table;
    size_t at; /* in the value, behind the checksum; or: */
    const char *said;
};

/* Change the first record of a table, with a checksum that fits. */
static void rewrite(struct bed *bed, const struct wrong *wrong)
{
    uint8_t key_bytes[300], bytes[600];
    tandem_slice key, value;
    td_cursor *cursor;
    size_t size;
    td_txn *txn;

    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, table_of(wrong->table), &cursor));
    assert_int_equal(TANDEM_OK, td_cursor_seek(cursor, s(""), &key, &value));
    while (!is_of_kind(wrong->table, key))
        assert_int_equal(TANDEM_OK, td_cursor_next(cursor, &key, &value));
    memcpy(key_bytes, key.bytes, key.size);
    memcpy(bytes, value.bytes, size = value.size);
    key = tandem_slice_of(key_bytes, key.size);
    td_cursor_free(cursor);
    if (wrong->at >= GONE) {
        assert_int_equal(TANDEM_OK, td_txn_del(txn, table_of(wrong->table), key));
        if (wrong->at == MOVED)
            key_bytes[key.size - TD_PLACE_HASH_AT + 1] ^= 1; /* of a block: its hlc */
    }
    if (wrong->at != GONE) {
        bytes[TD_INDEX_CHECKSUM_BYTES + wrong->at % GONE] ^= wrong->at < GONE;
        td_index_checksum(table_of(wrong->table), key,
                          tandem_slice_of(bytes + TD_INDEX_CHECKSUM_BYTES,
                                          size - TD_INDEX_CHECKSUM_BYTES), bytes);
        assert_int_equal(TANDEM_OK,
                         td_txn_put(txn, table_of(wrong->table), key,
                                    tandem_slice_of(bytes, size)));
    }
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
}

static void an_index_that_does_not_fit_is_told(void **state)
{
    static const struct wrong wrongs[] = {
        {DOCUMENTS, 0, "the record of a document"}, /* not created, and with an epoch */
        {DOCUMENTS, 1, "what is known of it"},      /* operations */
        {DOCUMENTS, 2, "what is known of it"},      /* the last ordinal */
        {DOCUMENTS, 30, "what is known of it"},     /* the epoch */
        {DOCUMENTS, GONE, "the record of a document"},
        {STREAMS, 1, "entries of a stream are counted"},
        {STREAMS, 12, "the mark of a stream"}, /* the lifecycle's */
        {STREAMS, GONE, "the record of a stream"},
        /* The lifecycle's first: tag, hlc, seq, ordinal; 16 bytes of hash, what it does. */
        {BLOCKS, 0, "cannot be read"},
        {BLOCKS, 1, "cannot be read"}, /* it is not where the key says */
        {BLOCKS, 2, "cannot be read"},
        {BLOCKS, 3, "no operation at ordinal"},
        {BLOCKS, 4, "does not fit the operation"},
        {BLOCKS, 20, "does not fit the operation"},
        {BLOCKS, GONE, "entries of a stream are counted"},
        {BLOCKS, MOVED, "does not fit the operation"},
        {TD_INDEX_SNAPSHOTS, 7, "a snapshot of"},
        {TD_INDEX_PROGRESS, 19, "operations are indexed"},
    };
    char why[TD_INDEX_WHY_BYTES];
    struct bed *bed = *state;

    eventful_history(bed);
    for (unsigned i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        rewrite(bed, &wrongs[i]);
        td_stream_index_free(bed->index);
        bed->index = NULL;
        assert_int_equal(TANDEM_OK, try_index(bed));
        assert_int_equal(TANDEM_E_CORRUPT, verify(bed, "c", 2, why));
        if (!strstr(why, wrongs[i].said) || !strstr(why, "collection c"))
            fail_msg("%u: `%s` is not in `%s`", i, wrongs[i].said, why);
        assert_int_equal(TANDEM_E_CORRUPT, td_stream_index_failure(bed->index));
        index_drop(bed);
        index_all(bed);
        assert_int_equal(TANDEM_OK, put_snapshot(bed, 21, 2, "two"));
        assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
        assert_int_equal(TANDEM_OK, verify(bed, "c", 2, why));
    }
    assert_int_equal(TANDEM_E_CORRUPT, verify(bed, "unknown", 2, why));
}

/* ---- Every record, changed in every way ---- */

struct held {
    unsigned table;
    size_t key_size, size;
    uint8_t key[TD_STORE_KEY_BYTES_MAX], value[600];
};

/* All records of a table, behind those in all; returns how many there are then. */
static unsigned hold_table(struct bed *bed, unsigned table, struct held *all, unsigned count)
{
    tandem_slice key, value;
    td_cursor *cursor;
    td_txn *txn;

    assert_int_equal(TANDEM_OK, td_store_begin_read(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, table_of(table), &cursor));
    for (tandem_err err = td_cursor_seek(cursor, s(""), &key, &value); err == TANDEM_OK;
         err = td_cursor_next(cursor, &key, &value)) {
        struct held *held = &all[count];

        if (!is_of_kind(table, key))
            continue;
        count++;
        assert_true(count <= HELD_MAX && value.size < sizeof(held->value));
        held->table = table;
        memcpy(held->key, key.bytes, held->key_size = key.size);
        memcpy(held->value, value.bytes, held->size = value.size);
    }
    td_cursor_free(cursor);
    td_txn_abort(txn);
    return count;
}

/* Put value at key, with a checksum that fits or without; with size 0, nothing at all. */
static void put_held(struct bed *bed, unsigned table, tandem_slice key, uint8_t *value,
                     size_t size, bool fits)
{
    td_txn *txn;

    if (fits)
        td_index_checksum(table_of(table), key,
                          tandem_slice_of(value + TD_INDEX_CHECKSUM_BYTES,
                                          size - TD_INDEX_CHECKSUM_BYTES), value);
    assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &txn));
    assert_int_equal(TANDEM_OK, size ? td_txn_put(txn, table_of(table), key,
                                                  tandem_slice_of(value, size))
                                     : td_txn_del(txn, table_of(table), key));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
}

static void index_reopen(struct bed *bed)
{
    td_stream_index_free(bed->index);
    bed->index = NULL;
    assert_int_equal(TANDEM_OK, try_index(bed));
}

/* The index with held changed to value does not verify; it is put back. */
static void assert_told(struct bed *bed, const struct held *held, const uint8_t *value,
                        size_t size, bool fits, const char *how, size_t at)
{
    tandem_slice key = tandem_slice_of(held->key, held->key_size);
    uint8_t copy[sizeof(held->value)];
    char why[TD_INDEX_WHY_BYTES];

    memcpy(copy, value, size);
    put_held(bed, held->table, key, copy, size, fits);
    if (verify(bed, "c", 100, why) != TANDEM_E_CORRUPT || !why[0])
        fail_msg("table %s, a record of %zu bytes, %s at %zu: nothing is said",
                 td_stream_index_tables[table_of(held->table)], held->size, how, at);
    index_reopen(bed);
    memcpy(copy, held->value, held->size);
    put_held(bed, held->table, key, copy, held->size, false);
}

/*
 * How much of a value operations and other records tell. A snapshot's bytes are a model's; a mark may
 * lie anywhere behind the snapshots, but for the lifecycle's, whose key has an empty branch.
 */
static size_t known_bytes(const struct held *held)
{
    static const uint8_t empty_branch[2];

    if (held->table == TD_INDEX_SNAPSHOTS)
        return TD_INDEX_CHECKSUM_BYTES + 8;
    if (held->table == STREAMS &&
        !memmem(held->key + 4, held->key_size - 4, empty_branch, sizeof(empty_branch)))
        return TD_INDEX_CHECKSUM_BYTES + 2; /* is there one, and a small count */
    return held->size;
}

static void whatever_is_changed_in_an_index_is_told(void **state)
{
    static const unsigned tables[] = {DOCUMENTS, STREAMS, BLOCKS,
                                      TD_INDEX_SNAPSHOTS};
    struct held *all = calloc(HELD_MAX, sizeof(*all));
    uint8_t value[sizeof(all->value)];
    char why[TD_INDEX_WHY_BYTES];
    struct bed *bed = *state;
    unsigned count = 0;

    eventful_history(bed);
    for (unsigned i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
        count = hold_table(bed, tables[i], all, count);
    for (unsigned i = 0; i < count; i++) {
        const struct held *held = &all[i];

        for (size_t at = TD_INDEX_CHECKSUM_BYTES; at < known_bytes(held); at++) {
            memcpy(value, held->value, held->size);
            value[at] ^= (uint8_t)(1u << at % 3);
            assert_told(bed, held, value, held->size, true, "changed", at);
        }
        if (held->table == TD_INDEX_SNAPSHOTS)
            continue; /* one that is torn is passed over, and one that is gone was never needed */
        memcpy(value, held->value, held->size);
        value[held->size] = 1;
        assert_told(bed, held, value, held->size + 1, true, "lengthened", held->size);
        assert_told(bed, held, value, held->size - 1, true, "shortened", held->size - 1);
        assert_told(bed, held, value, 3, false, "cut", 3);
        assert_told(bed, held, value, 0, false, "removed", 0);
        value[held->size - 1] ^= 1;
        assert_told(bed, held, value, held->size, false, "damaged", held->size - 1);
    }
    assert_int_equal(TANDEM_OK, verify(bed, "c", 100, why));
    free(all);
}

/* A record like the first of a table, at a key that no record of that table has. */
static void a_key_that_belongs_to_no_record_is_told(void **state)
{
    enum { BLOCK_KEY = 4 + 1 + 2 + 8 + 1 + TD_PLACE_HASH_AT };
    static const struct {
        unsigned table;
        size_t kept, size; /* of the first record's key, then so many bytes of `n` */
        const char *said;
    } keys[] = {
        {DOCUMENTS, 4, TANDEM_NAME_BYTES_MAX + 1, "the record of a document"},
        {STREAMS, 6, 0, "the record of a stream"},
        {STREAMS, 6, 3, "the record of a stream"},
        /* number, `d`, 0, 0, `document`, 0, place */
        {BLOCKS, BLOCK_KEY, 1, "a block of entries does not match"},
        {BLOCKS, BLOCK_KEY - 1, 0, "a block of entries does not match"},
    };
    struct held *all = calloc(HELD_MAX, sizeof(*all));
    char why[TD_INDEX_WHY_BYTES];
    struct bed *bed = *state;
    tandem_slice key;

    eventful_history(bed);
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        hold_table(bed, keys[i].table, all, 0);
        memset(all[0].key + keys[i].kept, 'n', keys[i].size);
        key = tandem_slice_of(all[0].key, keys[i].kept + keys[i].size);
        put_held(bed, keys[i].table, key, all[0].value, all[0].size, true);
        assert_int_equal(TANDEM_E_CORRUPT, verify(bed, "c", 100, why));
        if (!strstr(why, keys[i].said))
            fail_msg("%u: `%s` is not in `%s`", i, keys[i].said, why);
        index_reopen(bed);
        put_held(bed, keys[i].table, key, NULL, 0, false);
        assert_int_equal(TANDEM_OK, verify(bed, "c", 100, why));
        assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index)); /* what was begun */
    }
    free(all);
}

/* Under checksums that fit: what is read is a record of this index and of this store, or refused. */
static void what_is_no_record_is_not_read(void **state)
{
    enum { CUT = 1 << 20 };
    static const struct {
        unsigned table;
        const char *key; /* NULL: the table's last record */
        size_t kept;     /* of its key, if not all; then the record is put a second time */
        const char *more; /* behind that */
        size_t at;        /* in the value: a byte that changes, or all from CUT on is cut off */
        tandem_err err;
    } cases[] = {
        {DOCUMENTS, NULL, 0, "", CUT + 20, TANDEM_E_CORRUPT},
        {STREAMS, NULL, 0, "", CUT + 8, TANDEM_E_CORRUPT},
        {STREAMS, NULL, 6, "x", 0, TANDEM_E_CORRUPT}, /* a branch and no scope */
        {STREAMS, NULL, 6, "", 0, TANDEM_E_CORRUPT},
        {BLOCKS, NULL, 0, "", CUT, TANDEM_E_CORRUPT},
        {BLOCKS, NULL, 0, "", CUT + 3, TANDEM_E_CORRUPT},
        {TD_INDEX_PROGRESS, NULL, 0, "", CUT + 8, TANDEM_E_CORRUPT},
        {TD_INDEX_PROGRESS, NULL, 0, "", 4, TANDEM_E_FORMAT}, /* far ahead of the store */
        {TD_INDEX_META, "version", 0, "", 0, TANDEM_E_FORMAT},
        {TD_INDEX_META, "version", 0, "", CUT + 7, TANDEM_E_CORRUPT},
        {TD_INDEX_META, "reactor", 0, "", 0, TANDEM_E_FORMAT},
        {TD_INDEX_META, "reactor", 0, "", CUT + 15, TANDEM_E_FORMAT},
        {TD_INDEX_META, "position", 0, "", 0, TANDEM_E_FORMAT},
        {TD_INDEX_META, "position", 0, "", CUT + 7, TANDEM_E_CORRUPT},
        {TD_INDEX_META, "reached", 0, "", 0, TANDEM_E_FORMAT}, /* far ahead of the store */
        {TD_INDEX_META, "reached", 0, "", CUT + 7, TANDEM_E_CORRUPT},
    };
    struct held *all = calloc(HELD_MAX, sizeof(*all));
    struct bed *bed = *state;

    live_document(bed, 3);
    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t value[sizeof(all->value)], key_bytes[TD_STORE_KEY_BYTES_MAX];
        struct held *held;
        tandem_slice key;
        size_t size;
        unsigned count;
        tandem_err err;

        index_reopen(bed);
        count = hold_table(bed, cases[i].table, all, 0);
        for (held = &all[count - 1]; cases[i].key; held--)
            if (tandem_slice_equal(tandem_slice_of(held->key, held->key_size), s(cases[i].key)))
                break;
        size = cases[i].at >= CUT ? TD_INDEX_CHECKSUM_BYTES + cases[i].at - CUT : held->size;
        memcpy(value, held->value, held->size);
        if (cases[i].at < CUT)
            value[TD_INDEX_CHECKSUM_BYTES + cases[i].at] ^= 0x40;
        memcpy(key_bytes, held->key, held->key_size);
        key = tandem_slice_of(key_bytes, cases[i].kept ? cases[i].kept : held->key_size);
        memcpy(key_bytes + key.size, cases[i].more, strlen(cases[i].more));
        key.size += strlen(cases[i].more);
        put_held(bed, cases[i].table, key, value, size, true);
        err = read_everything(bed);
        if (err != cases[i].err)
            fail_msg("%u: %s", i, tandem_err_name(err));
        index_drop(bed);
        index_all(bed);
        assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
        assert_int_equal(TANDEM_OK, read_everything(bed));
    }
    free(all);
}

static void what_can_be_no_name_names_nothing(void **state)
{
    static const char zeros[TANDEM_NAME_BYTES_MAX + 1];
    const tandem_slice bad[] = {tandem_slice_of(zeros, sizeof(zeros)), tandem_slice_of(zeros, 1)};
    struct listing listing = {.max = SIZE_MAX};
    struct names names = {.max = SIZE_MAX};
    struct bed *bed = *state;
    td_place zero = {{0}};

    live_document(bed, 3);
    for (unsigned i = 0; i < 2; i++) {
        td_document_info info;

        assert_int_equal(TANDEM_OK, td_stream_index_document(bed->index, s("c"), bad[i], &info));
        assert_false(info.known);
        assert_int_equal(TANDEM_OK, td_stream_index_document(bed->index, bad[i], s("d"), &info));
        assert_false(info.known);
        assert_int_equal(TANDEM_E_INVALID, td_stream_index_documents(bed->index, s("c"), bad[i],
                                                                     note_document, &names));
        assert_int_equal(TANDEM_OK, td_stream_index_documents(bed->index, bad[i], s(""),
                                                              note_document, &names));
        assert_int_equal(TANDEM_OK, td_stream_index_streams(bed->index, s("c"), bad[i],
                                                            note_stream, &names));
        assert_int_equal(TANDEM_OK, td_stream_index_streams(bed->index, bad[i], s("d"),
                                                            note_stream, &names));
        for (unsigned at = 0; at < 4; at++)
            assert_int_equal(TANDEM_OK, td_stream_index_entries(
                bed->index, at == 0 ? bad[i] : s("c"), at == 1 ? bad[i] : s("d"),
                at == 2 ? bad[i] : s("main"), at == 3 ? bad[i] : s("global"), &zero, list_entry,
                &listing));
    }
    assert_int_equal(TANDEM_OK,
                     td_stream_index_documents(bed->index, s("none"), bad[0], note_document, &names));
    assert_int_equal(0, names.count);
    assert_int_equal(0, listing.count);
}

static void records_that_cannot_be_read_are_not_the_indexs_fault(void **state)
{
    struct bed *bed = *state;
    char why[TD_INDEX_WHY_BYTES];
    unsigned table = 0;

    while (strcmp(td_op_store_tables[table], "operations") != 0)
        table++;
    eventful_history(bed);
    flip_in(td_op_store_backend(bed->ops), table, KINDS, SIZE_MAX);
    assert_int_equal(TANDEM_OK, verify(bed, "c", 2, why));
    op_record_delete(bed, 3);
    assert_int_equal(TANDEM_E_CORRUPT, verify(bed, "c", 2, why));
    index_drop(bed);
    index_all(bed);
    assert_int_equal(TANDEM_OK, verify(bed, "c", 2, why));
}

static void an_index_without_checksums_is_of_another_version(void **state)
{
    struct bed *bed = *state;
    uint8_t one[8] = {0, 0, 0, 0, 0, 0, 0, 1};
    td_txn *txn;

    live_document(bed, 3);
    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_put(txn, 0, s("version"), tandem_slice_of(one, 8)));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
    assert_int_equal(TANDEM_E_FORMAT, read_everything(bed));
}

static void records_that_the_store_lacks_are_counted(void **state)
{
    struct bed *bed = *state;
    uint64_t count, first;

    live_document(bed, 6);
    op_record_delete(bed, 3);
    op_record_delete(bed, 5);
    index_drop(bed);
    assert_int_equal(7, index_all(bed));
    assert_int_equal(4, count_of(bed, "d", "main", "global"));
    assert_int_equal(TANDEM_OK, td_stream_index_corrupt(bed->index, s("c"), &count, &first));
    assert_int_equal(2, count);
    assert_in_range(first, 1, 3);
    op_record_delete(bed, 7); /* the last one */
    index_drop(bed);
    assert_int_equal(7, index_all(bed));
    assert_int_equal(TANDEM_OK, td_stream_index_corrupt(bed->index, s("c"), &count, &first));
    assert_int_equal(3, count);
    one_more(bed, 50, 40, "global", "log.APPEND");
    assert_int_equal(TANDEM_OK, td_stream_index_corrupt(bed->index, s("c"), &count, &first));
    assert_int_equal(3, count);
}

static void a_distrusted_index_answers_nothing_more(void **state)
{
    struct bed *bed = *state;
    td_document_info info;

    live_document(bed, 1);
    td_stream_index_distrust(bed->index);
    assert_int_equal(TANDEM_E_CORRUPT, td_stream_index_failure(bed->index));
    assert_int_equal(TANDEM_E_CORRUPT,
                     td_stream_index_document(bed->index, s("c"), s("d"), &info));
    assert_int_equal(TANDEM_E_CORRUPT, td_stream_index_commit(bed->index));
}

/* ---- The memory backend's own: failures on request ---- */

static void a_full_disk_undoes_what_was_not_committed(void **state)
{
    enum { AT_READ, AT_PUT, AT_COMMIT };
    struct bed *bed = *state;
    uint64_t count;
    struct made made;

    live_document(bed, 3);
    assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    for (int at = AT_READ; at <= AT_COMMIT; at++) {
        make_single("c", 60 + (uint32_t)at, 70, "d", "main", "global", "log.APPEND", &made);
        arrive(bed->ops, &made, NULL, 1);
        made_release(&made, 1);
        assert_int_equal(5 + at, index_all(bed));
        td_memory_store_fail(bed->store, TANDEM_E_STORE_FULL, at == AT_COMMIT);
        assert_int_equal(TANDEM_E_STORE_FULL,
                         at == AT_READ
                             ? td_stream_index_count(bed->index, s("c"), s("d"), s("main"),
                                                     s("global"), &count)
                             : td_stream_index_commit(bed->index));
        td_memory_store_fail(bed->store, TANDEM_OK, at == AT_COMMIT);
        assert_int_equal(TANDEM_OK, td_stream_index_failure(bed->index));
        assert_int_equal(4 + at, td_stream_index_position(bed->index));
        assert_int_equal(0, waiting_of(bed));
        assert_int_equal(3 + at, count_of(bed, "d", "main", "global"));
        assert_int_equal(5 + at, index_all(bed));
        assert_int_equal(4 + at, count_of(bed, "d", "main", "global"));
        assert_int_equal(TANDEM_OK, td_stream_index_commit(bed->index));
    }
}

static void another_failure_makes_it_unusable(void **state)
{
    struct bed *bed = *state;
    uint64_t position;
    bool current;

    live_document(bed, 3);
    td_memory_store_fail(bed->store, TANDEM_E_IO, true);
    assert_int_equal(TANDEM_E_IO, td_stream_index_commit(bed->index));
    assert_int_equal(TANDEM_E_IO, td_stream_index_failure(bed->index));
    assert_int_equal(TANDEM_E_IO,
                     td_stream_index_advance(bed->index, 100, &position, &current));
}

#define ON_A_BED(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        ON_A_BED(entries_stand_in_total_order_however_they_came),
        ON_A_BED(ties_stand_in_the_order_of_their_hashes_however_they_came),
        ON_A_BED(late_entries_find_room_in_full_blocks),
        ON_A_BED(entries_go_on_after_a_place_and_stop_when_told),
        ON_A_BED(the_newest_arrival_is_the_documents_position),
        ON_A_BED(a_document_without_create_is_known_but_not_created),
        ON_A_BED(a_create_begins_the_life_and_another_while_live_changes_nothing),
        ON_A_BED(the_last_create_or_delete_decides),
        ON_A_BED(of_two_models_the_first_create_wins_and_the_other_is_a_conflict),
        ON_A_BED(the_newest_snapshot_of_the_right_version_is_found),
        ON_A_BED(a_late_entry_drops_the_snapshots_after_it_and_no_other),
        ON_A_BED(a_new_epoch_drops_all_snapshots_of_the_document),
        ON_A_BED(snapshots_thin_out_with_age),
        ON_A_BED(a_torn_snapshot_is_passed_over),
        ON_A_BED(snapshots_of_one_stream_are_not_anothers),
        ON_A_BED(documents_and_streams_are_listed_in_byte_order),
        ON_A_BED(a_visitors_error_is_handed_on_and_harms_nothing),
        ON_A_BED(a_batch_takes_no_more_than_it_may),
        ON_A_BED(many_lagging_collections_are_all_indexed),
        ON_A_BED(what_is_committed_stays_and_the_rest_is_indexed_again),
        ON_A_BED(a_crash_between_two_slices_does_no_harm),
        ON_A_BED(collections_are_not_mixed_up_by_a_crash_between_slices),
        ON_A_BED(a_listing_settles_in_slices),
        ON_A_BED(what_is_read_between_slices_is_all_there),
        ON_A_BED(a_document_that_is_ahead_of_the_position_is_not_indexed_twice),
        ON_A_BED(what_is_known_of_a_document_counts_what_waits),
        ON_A_BED(a_dropped_index_is_built_again_and_says_the_same),
        ON_A_BED(an_index_of_another_store_is_refused),
        ON_A_BED(corrupt_records_are_passed_over_and_counted),
        ON_A_BED(a_changed_record_of_any_table_is_noticed),
        ON_A_BED(an_index_without_checksums_is_of_another_version),
        ON_A_BED(an_index_that_fits_its_store_is_verified),
        ON_A_BED(records_that_cannot_be_read_are_not_the_indexs_fault),
        ON_A_BED(records_that_the_store_lacks_are_counted),
        ON_A_BED(where_nothing_stands_the_index_goes_on),
        ON_A_BED(what_has_gone_before_a_lack_is_counted),
        ON_A_BED(what_can_be_no_name_names_nothing),
        ON_A_BED(a_distrusted_index_answers_nothing_more),
    };
    const struct CMUnitTest memory_tests[] = {
        ON_A_BED(an_index_that_does_not_fit_is_told), /* above the backend, and rebuilds much */
        ON_A_BED(whatever_is_changed_in_an_index_is_told),
        ON_A_BED(a_key_that_belongs_to_no_record_is_told),
        ON_A_BED(what_is_no_record_is_not_read),
        ON_A_BED(a_full_disk_undoes_what_was_not_committed),
        ON_A_BED(another_failure_makes_it_unusable),
    };
    int failed;

    if (argc != 2 || (strcmp(argv[1], "lmdb") != 0 && strcmp(argv[1], "memory") != 0)) {
        fprintf(stderr, "usage: %s lmdb|memory\n", argv[0]);
        return 2;
    }
    on_lmdb = strcmp(argv[1], "lmdb") == 0;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (!on_lmdb)
        failed += cmocka_run_group_tests(memory_tests, NULL, NULL);
    return failed;
}
