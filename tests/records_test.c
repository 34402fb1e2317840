/*
 * What a store keeps, record by record: under a checksum that is right, whatever is no such record
 * is corrupt, and nothing of it is believed. Of the operations store and of the stream index; the
 * records of remotes have theirs in sync_store_test.c.
 */
#include "tests/operation_maker.h"

#include "store/op_tables.h"
#include "store/stream_block.h"

static tandem_env env; /* a store asks for neither time nor randomness */

struct bed {
    td_store *store;
    td_txn *txn;
    tandem_writer scratch;
};

static int bed_make(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_non_null(bed);
    tandem_writer_init(&bed->scratch);
    assert_int_equal(TANDEM_OK,
                     td_memory_store_open(&env, NULL, td_op_store_tables, td_op_store_table_count,
                                          &bed->store));
    assert_int_equal(TANDEM_OK, td_store_begin_write(bed->store, &bed->txn));
    *state = bed;
    return 0;
}

static int bed_unmake(void **state)
{
    struct bed *bed = *state;

    td_txn_abort(bed->txn);
    td_store_free(bed->store);
    tandem_writer_release(&bed->scratch);
    free(bed);
    return 0;
}

/* Put body under a right checksum; returns the whole value. */
static tandem_slice put(struct bed *bed, unsigned table, tandem_slice key, const void *body,
                        size_t size)
{
    tandem_slice value;

    assert_int_equal(TANDEM_OK, td_record_put(bed->txn, table, key, tandem_slice_of(body, size),
                                              &bed->scratch));
    assert_int_equal(TANDEM_OK, td_txn_get(bed->txn, table, key, &value));
    return value;
}

/* What a record has in the table: its body is copied to out. */
static size_t body_of(struct bed *bed, unsigned table, tandem_slice key, uint8_t *out)
{
    tandem_slice body;

    assert_int_equal(TANDEM_OK, td_record_get(bed->txn, table, key, &body));
    memcpy(out, body.bytes, body.size);
    return body.size;
}

static void what_is_shorter_than_a_checksum_is_corrupt(void **state)
{
    static const uint8_t bytes[TD_CHECKSUM_BYTES];
    tandem_slice body;

    for (size_t size = 0; size < sizeof(bytes); size++)
        assert_int_equal(TANDEM_E_CORRUPT,
                         td_record_open(TD_TABLE_META, tandem_slice_text("k"),
                                        tandem_slice_of(bytes, size), &body));
}

static void a_format_may_only_grow(void **state)
{
    static const uint8_t body[6] = {0, 0, 0, TD_FORMAT_VERSION, 7, 7};
    tandem_slice key = tandem_slice_text(td_meta_format);
    struct bed *bed = *state;

    assert_int_equal(TANDEM_E_NOT_FOUND, td_format_check(bed->txn));
    for (size_t size = 0; size <= sizeof(body); size++) {
        put(bed, TD_TABLE_META, key, body, size);
        assert_int_equal(size < 4 ? TANDEM_E_CORRUPT : TANDEM_OK, td_format_check(bed->txn));
    }
    td_format_put(bed->txn, TD_FORMAT_VERSION + 1, &bed->scratch);
    assert_int_equal(TANDEM_E_FORMAT_NEWER, td_format_check(bed->txn));
    td_format_put(bed->txn, TD_FORMAT_VERSION - 1, &bed->scratch);
    assert_int_equal(TANDEM_E_FORMAT, td_format_check(bed->txn));
}

static void who_writes_and_how_far_must_be_there_whole(void **state)
{
    struct bed *bed = *state;
    tandem_slice who = tandem_slice_text(td_meta_identity);
    tandem_slice far = tandem_slice_text(td_meta_position);
    td_identity identity = {.incarnation = 3}, found;
    td_position position = {7, 2, 9}, at;
    uint8_t body[256];
    size_t size;

    assert_int_equal(TANDEM_E_CORRUPT, td_identity_get(bed->txn, &found));
    assert_int_equal(TANDEM_E_CORRUPT, td_position_get(bed->txn, &at));
    td_origin_of_seed(identity.seed, identity.origin);
    assert_int_equal(TANDEM_OK, td_identity_put(bed->txn, &identity, &bed->scratch));
    assert_int_equal(TANDEM_OK, td_position_put(bed->txn, &position, &bed->scratch));
    assert_int_equal(TANDEM_OK, td_identity_get(bed->txn, &found));
    assert_int_equal(3, found.incarnation);
    assert_int_equal(TANDEM_OK, td_position_get(bed->txn, &at));
    assert_true(at.ordinal == 7 && at.collections == 2 && at.hlc == 9);

    size = body_of(bed, TD_TABLE_META, far, body);
    for (size_t other = 0; other <= size + 1; other++) {
        put(bed, TD_TABLE_META, far, body, other);
        assert_int_equal(other == size ? TANDEM_OK : TANDEM_E_CORRUPT,
                         td_position_get(bed->txn, &at));
    }
    size = body_of(bed, TD_TABLE_META, who, body);
    for (size_t other = 0; other <= size + 1; other++) {
        put(bed, TD_TABLE_META, who, body, other);
        assert_int_equal(other == size ? TANDEM_OK : TANDEM_E_CORRUPT,
                         td_identity_get(bed->txn, &found));
    }
    body[TANDEM_ORIGIN_BYTES] ^= 1; /* not the origin of this seed */
    put(bed, TD_TABLE_META, who, body, size);
    assert_int_equal(TANDEM_E_CORRUPT, td_identity_get(bed->txn, &found));
}

static void a_collection_is_of_one_size(void **state)
{
    static const char long_name[TANDEM_NAME_BYTES_MAX + 1];
    td_collection_record record = {1, 2, 3, 4}, found;
    tandem_slice name = tandem_slice_text("notes"), value;
    struct bed *bed = *state;
    uint8_t body[64] = {0};
    size_t size;

    assert_int_equal(TANDEM_E_NOT_FOUND, td_collection_get(bed->txn, name, &found));
    assert_int_equal(TANDEM_E_NOT_FOUND,
                     td_collection_get(bed->txn, tandem_slice_text(""), &found));
    assert_int_equal(TANDEM_E_NOT_FOUND,
                     td_collection_get(bed->txn, tandem_slice_of(long_name, sizeof(long_name)),
                                       &found));
    assert_int_equal(TANDEM_OK, td_collection_put(bed->txn, name, &record, &bed->scratch));
    assert_int_equal(TANDEM_OK, td_collection_get(bed->txn, name, &found));
    assert_memory_equal(&record, &found, sizeof(found));
    size = body_of(bed, TD_TABLE_COLLECTIONS, name, body);
    for (size_t other = 0; other <= size + 1; other++) {
        tandem_err expected = other == size ? TANDEM_OK : TANDEM_E_CORRUPT;

        value = put(bed, TD_TABLE_COLLECTIONS, name, body, other);
        assert_int_equal(expected, td_collection_decode(name, value, &found));
        assert_int_equal(expected, td_collection_get(bed->txn, name, &found));
    }
    assert_int_equal(TANDEM_E_CORRUPT,
                     td_collection_decode(tandem_slice_text("other"), value, &found));
}

static void a_vector_has_one_to_eight_heads_and_no_signature(void **state)
{
    static const uint8_t origin[TANDEM_ORIGIN_BYTES] = {1};
    struct bed *bed = *state;
    td_vector_record record = {.count = 2, .heads = {{5, {1}}, {6, {2}}}}, found;
    uint8_t key_bytes[TD_VECTOR_KEY_BYTES + 1] = {0}, body[512] = {0}, wrong[512];
    tandem_slice key = tandem_slice_of(key_bytes, TD_VECTOR_KEY_BYTES), value;
    size_t size;

    td_vector_key(key_bytes, 1, origin);
    assert_int_equal(TANDEM_OK, td_vector_get(bed->txn, 1, origin, &found));
    assert_int_equal(0, found.count);
    assert_int_equal(TANDEM_OK, td_vector_put(bed->txn, 1, origin, &record, &bed->scratch));
    size = body_of(bed, TD_TABLE_VECTORS, key, body);
    for (size_t other = 0; other <= size + 1; other++) {
        value = put(bed, TD_TABLE_VECTORS, key, body, other);
        assert_int_equal(other == size ? TANDEM_OK : TANDEM_E_CORRUPT,
                         td_vector_decode(key, value, &found));
    }
    for (unsigned i = 0; i < 5; i++) {
        static const struct {
            int at; /* below zero: from the end */
            uint8_t byte;
        } changes[] = {{0, 2}, {9, 0}, {9, TANDEM_HEADS_MAX + 1}, {-1, 1}, {-2, 1}};
        int at = changes[i].at;

        memcpy(wrong, body, size);
        wrong[at < 0 ? size - (size_t)-at : (size_t)at] = changes[i].byte;
        value = put(bed, TD_TABLE_VECTORS, key, wrong, size);
        assert_int_equal(TANDEM_E_CORRUPT, td_vector_decode(key, value, &found));
        assert_int_equal(TANDEM_E_CORRUPT, td_vector_get(bed->txn, 1, origin, &found));
    }
    /* As long as they claim. */
    for (unsigned count = 0; count <= TANDEM_HEADS_MAX + 1; count++) {
        memset(wrong, 0, sizeof(wrong));
        wrong[0] = body[0];
        wrong[9] = (uint8_t)count;
        value = put(bed, TD_TABLE_VECTORS, key, wrong, 12 + count * (8 + TANDEM_HASH_BYTES));
        assert_int_equal(count >= 1 && count <= TANDEM_HEADS_MAX ? TANDEM_OK : TANDEM_E_CORRUPT,
                         td_vector_decode(key, value, &found));
    }
    key = tandem_slice_of(key_bytes, sizeof(key_bytes));
    value = put(bed, TD_TABLE_VECTORS, key, body, size);
    assert_int_equal(TANDEM_E_CORRUPT, td_vector_decode(key, value, &found));
}

static void a_run_begins_at_one_or_later_and_ends_behind_that(void **state)
{
    static const struct {
        uint64_t first, last;
        size_t key_size, size;
        tandem_err err;
        uint8_t loose;
    } cases[] = {
        {1, 1, TD_RUN_KEY_BYTES, 8, TANDEM_OK, 0},
        {3, 9, TD_RUN_KEY_BYTES, 8, TANDEM_OK, 0},
        {0, 9, TD_RUN_KEY_BYTES, 8, TANDEM_E_CORRUPT, 0},
        {3, 2, TD_RUN_KEY_BYTES, 8, TANDEM_E_CORRUPT, 0},
        {3, 9, TD_RUN_KEY_BYTES - 1, 8, TANDEM_E_CORRUPT, 0},
        {3, 9, TD_RUN_KEY_BYTES, 7, TANDEM_E_CORRUPT, 0},
        {3, 9, TD_RUN_KEY_BYTES, 9, TANDEM_OK, 1},
        {3, 9, TD_RUN_KEY_BYTES, 9, TANDEM_E_CORRUPT, 0},
        {3, 9, TD_RUN_KEY_BYTES, 9, TANDEM_E_CORRUPT, 2},
        {3, 9, TD_RUN_KEY_BYTES, 10, TANDEM_E_CORRUPT, 1},
    };
    static const uint8_t origin[TANDEM_ORIGIN_BYTES] = {1};
    struct bed *bed = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t key_bytes[TD_RUN_KEY_BYTES], body[10] = {0};
        tandem_slice key = tandem_slice_of(key_bytes, cases[i].key_size), value;
        td_run run;

        td_run_key(key_bytes, 1, origin, cases[i].first, 77);
        td_put_u64(body, cases[i].last);
        body[8] = cases[i].loose;
        value = put(bed, TD_TABLE_GROUPS, key, body, cases[i].size);
        assert_int_equal(cases[i].err, td_run_decode(key, value, &run));
        if (cases[i].err == TANDEM_OK)
            assert_true(run.first == cases[i].first && run.last == cases[i].last &&
                        run.ordinal == 77 && run.loose == cases[i].loose);
    }
}

static void an_operation_stands_whole_behind_its_hash(void **state)
{
    uint8_t key_bytes[TD_OPERATION_KEY_BYTES + 1] = {0}, body[1024] = {0};
    struct bed *bed = *state;
    tandem_slice key = tandem_slice_of(key_bytes, TD_OPERATION_KEY_BYTES), value;
    td_operation found;
    struct made made;
    size_t size;

    make_single("c", 1, 1, "d", "main", "global", "log.APPEND", &made);
    td_operation_key(key_bytes, 1, 5);
    assert_int_equal(TANDEM_OK,
                     td_operation_put(bed->txn, 1, 5, &made.operation));
    size = body_of(bed, TD_TABLE_OPERATIONS, key, body);
    assert_true(size < sizeof(body));
    for (size_t other = 0; other <= size + 1; other++) {
        value = put(bed, TD_TABLE_OPERATIONS, key, body, other);
        assert_int_equal(other == size ? TANDEM_OK : TANDEM_E_CORRUPT,
                         td_operation_decode(key, value, &found));
    }
    key = tandem_slice_of(key_bytes, sizeof(key_bytes));
    value = put(bed, TD_TABLE_OPERATIONS, key, body, size);
    assert_int_equal(TANDEM_E_CORRUPT, td_operation_decode(key, value, &found));
    made_release(&made, 1);
}

/* ---- The stream index ---- */

static void a_document_is_read_back_or_corrupt(void **state)
{
    td_document_record record = {.info = {.created = true, .operations = 3}}, found;
    uint8_t bytes[TD_DOCUMENT_RECORD_BYTES_MAX + 1] = {0};
    size_t size;

    strcpy(record.info.model, "log");
    td_model_name_set(&record.least, tandem_slice_text("kv"));
    td_model_name_set(&record.greatest, tandem_slice_text("log"));
    size = td_document_encode(&record, bytes);
    for (size_t other = 0; other <= size + 1; other++)
        assert_int_equal(other == size ? TANDEM_OK : TANDEM_E_CORRUPT,
                         td_document_decode(tandem_slice_of(bytes, other), &found));
    assert_int_equal(TANDEM_OK, td_document_decode(tandem_slice_of(bytes, size), &found));
    assert_string_equal("log", found.info.model);
    assert_true(found.info.conflict && found.info.created && !found.info.deleted);
    bytes[0] |= 16; /* a flag that there is not */
    assert_int_equal(TANDEM_E_CORRUPT, td_document_decode(tandem_slice_of(bytes, size), &found));
    bytes[0] &= (uint8_t)~16;
    bytes[size - 4] = TANDEM_NAME_BYTES_MAX + 1; /* the size of `log` */
    assert_int_equal(TANDEM_E_CORRUPT,
                     td_document_decode(tandem_slice_of(bytes, sizeof(bytes)), &found));
}

/* What another part of a record says is not repeated in it. */
static void a_document_is_the_same_however_short_its_record(void **state)
{
    enum { LAST_BY_ANOTHER = 1, OF_TWO_MODELS = 2, NOT_CREATED = 4, ALL = 8 };
    size_t sizes[ALL];

    for (unsigned with = 0; with < ALL; with++) {
        td_document_record record = {.info = {.known = true,
                                              .operations = 300,
                                              .last_ordinal = UINT64_MAX,
                                              .last_seq = 1}}, found;
        uint8_t bytes[TD_DOCUMENT_RECORD_BYTES_MAX];

        memset(record.info.last_origin, 7, sizeof(record.info.last_origin));
        if (!(with & NOT_CREATED)) {
            record.info.created = true;
            memset(record.info.epoch.bytes, with & LAST_BY_ANOTHER ? 8 : 7,
                   sizeof(record.info.epoch.bytes));
            strcpy(record.info.model, "log");
        }
        td_model_name_set(&record.least, tandem_slice_text(with & OF_TWO_MODELS ? "kv" : "log"));
        td_model_name_set(&record.greatest, tandem_slice_text("log"));
        record.info.conflict = (with & OF_TWO_MODELS) && record.info.created;
        sizes[with] = td_document_encode(&record, bytes);
        assert_int_equal(TANDEM_OK, td_document_decode(tandem_slice_of(bytes, sizes[with]), &found));
        assert_memory_equal(&record.info, &found.info, sizeof(found.info));
        assert_memory_equal(&record.least, &found.least, 1 + (size_t)record.least.size);
        assert_memory_equal(&record.greatest, &found.greatest, 1 + (size_t)record.greatest.size);
    }
    assert_int_equal(sizes[0] + TANDEM_ORIGIN_BYTES, sizes[LAST_BY_ANOTHER]);
    assert_int_equal(sizes[0] + sizeof("kv") + sizeof("log"), sizes[OF_TWO_MODELS]);
}

static void a_stream_is_read_back_or_corrupt(void **state)
{
    td_stream_record record = {.count = 9, .mark = {{1}}}, found;
    uint8_t bytes[TD_STREAM_RECORD_BYTES_MAX + 1] = {0};

    for (int marked = 0; marked < 2; marked++) {
        size_t size;

        record.marked = marked;
        size = td_stream_encode(&record, bytes);
        for (size_t other = 0; other <= sizeof(bytes); other++)
            assert_int_equal(other == size ? TANDEM_OK : TANDEM_E_CORRUPT,
                             td_stream_decode(tandem_slice_of(bytes, other), &found));
        assert_int_equal(TANDEM_OK, td_stream_decode(tandem_slice_of(bytes, size), &found));
        assert_true(found.count == 9 && found.marked == marked);
        assert_int_equal(marked, found.mark.bytes[0]);
    }
    bytes[0] = 2;
    assert_int_equal(TANDEM_E_CORRUPT,
                     td_stream_decode(tandem_slice_of(bytes, 2 + sizeof(td_place)), &found));
}

static void only_names_go_into_keys(void **state)
{
    static const uint8_t name[TANDEM_NAME_BYTES_MAX + 1] = {'a'};
    td_index_key key;

    assert_true(td_index_name_fits(tandem_slice_of(NULL, 0)));
    assert_true(td_index_name_fits(tandem_slice_of(name, 1)));
    assert_false(td_index_name_fits(tandem_slice_of(name, 2))); /* it has a zero */
    assert_false(td_index_name_fits(tandem_slice_of(name, sizeof(name))));
    td_index_key_document(&key, 258, tandem_slice_text("d"));
    assert_true(td_index_key_starts_with(td_index_key_slice(&key), td_index_key_slice(&key)));
    assert_false(td_index_key_starts_with(tandem_slice_of(key.bytes, 3), td_index_key_slice(&key)));
    assert_false(td_index_key_starts_with(tandem_slice_of("\x01" "aaaaaaaaa", 10),
                                          td_index_key_slice(&key)));
}

/* Those of a document, of its lifecycle, of a stream and of a block, and what is none of them. */
static void a_key_tells_what_it_names(void **state)
{
    tandem_slice document = tandem_slice_text("d"), branch = tandem_slice_text("main");
    static const td_place place = {{0}};
    td_index_key key, stream, passed;
    td_index_names names;

    td_index_key_document(&key, 7, document);
    assert_true(td_index_key_parse(td_index_key_slice(&key), &names));
    assert_true(names.document_key.size == key.size && names.stream_key.size == 0);
    td_index_key_stream(&stream, 7, document, branch, tandem_slice_text(TD_SCOPE_DOCUMENT));
    assert_true(td_index_key_parse(td_index_key_slice(&stream), &names));
    assert_true(names.branch.size == 0 && names.stream_key.size == stream.size);
    td_index_key_stream(&stream, 7, document, branch, tandem_slice_text("s"));
    td_block_key(&key, td_index_key_slice(&stream), &place);
    assert_true(td_index_key_parse(td_index_key_slice(&key), &names));
    assert_true(names.is_block && names.stream_key.size == stream.size);
    assert_true(tandem_slice_equal(names.branch, branch) && names.scope.size == 1);
    td_index_key_pass(&passed, td_index_key_slice(&stream));
    assert_true(tandem_slice_compare(td_index_key_slice(&key), td_index_key_slice(&passed)) < 0);
    for (size_t size = stream.size + 1; size < key.size; size++)
        assert_false(td_index_key_parse(tandem_slice_of(key.bytes, size), &names));
    for (size_t size = 4 + document.size + 1; size <= 4 + document.size + 1 + branch.size; size++)
        assert_false(td_index_key_parse(tandem_slice_of(key.bytes, size), &names));
    assert_false(td_index_key_parse(tandem_slice_of(key.bytes, 3), &names));
}

#define ON_BED(test) cmocka_unit_test_setup_teardown(test, bed_make, bed_unmake)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_shorter_than_a_checksum_is_corrupt),
        ON_BED(a_format_may_only_grow),
        ON_BED(who_writes_and_how_far_must_be_there_whole),
        ON_BED(a_collection_is_of_one_size),
        ON_BED(a_vector_has_one_to_eight_heads_and_no_signature),
        ON_BED(a_run_begins_at_one_or_later_and_ends_behind_that),
        ON_BED(an_operation_stands_whole_behind_its_hash),
        cmocka_unit_test(a_document_is_read_back_or_corrupt),
        cmocka_unit_test(a_document_is_the_same_however_short_its_record),
        cmocka_unit_test(a_stream_is_read_back_or_corrupt),
        cmocka_unit_test(only_names_go_into_keys),
        cmocka_unit_test(a_key_tells_what_it_names),
    };

    return cmocka_run_group_tests_name("records", tests, NULL, NULL);
}
