/* Operations: names, parsing, encoding and hashes, against tests/vectors/operations.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/operation.h"

#ifndef TANDEM_VECTORS_DIR
#define TANDEM_VECTORS_DIR "tests/vectors"
#endif

#define B(literal) tandem_slice_of(literal, sizeof(literal) - 1)

static json_t *vectors;

/* ---- The vectors ---- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    assert_non_null(text);
    return text;
}

static uint64_t number_of(const json_t *object, const char *key)
{
    return strtoull(text_of(object, key), NULL, 10);
}

/* The caller frees bytes. Its own block, so that a read past the end is caught. */
static tandem_slice hex_of(const char *hex)
{
    size_t size = strlen(hex) / 2, written;
    uint8_t *bytes = malloc(size ? size : 1);

    assert_non_null(bytes);
    assert_int_equal(0, sodium_hex2bin(bytes, size, hex, strlen(hex), NULL, &written, NULL));
    assert_int_equal(size, written);
    return tandem_slice_of(bytes, size);
}

static void free_slice(tandem_slice slice)
{
    free((void *)(uintptr_t)slice.bytes);
}

static void assert_hex(const char *hex, tandem_slice actual)
{
    tandem_slice expected = hex_of(hex);

    assert_int_equal(expected.size, actual.size);
    if (expected.size)
        assert_memory_equal(expected.bytes, actual.bytes, expected.size);
    free_slice(expected);
}

static void assert_text(const char *text, tandem_slice actual)
{
    assert_int_equal(strlen(text), actual.size);
    assert_memory_equal(text, actual.bytes, actual.size);
}

static void valid_vectors_parse_to_their_fields(void **state)
{
    json_t *list = json_object_get(vectors, "operations"), *vector;
    size_t i;

    assert_true(json_array_size(list) >= 8);
    json_array_foreach(list, i, vector) {
        const json_t *fields = json_object_get(vector, "fields");
        tandem_slice bytes = hex_of(text_of(vector, "canonical"));
        td_operation op;

        assert_int_equal(TANDEM_OK, td_operation_parse(bytes, &op));
        assert_ptr_equal(bytes.bytes, op.canonical.bytes);
        assert_int_equal(bytes.size, op.canonical.size);
        assert_true(number_of(fields, "version") == op.version);
        assert_true(number_of(fields, "flags") == op.flags);
        assert_true(number_of(fields, "seq") == op.seq);
        assert_true(number_of(fields, "hlc") == op.hlc);
        assert_text(text_of(fields, "collection"), op.collection);
        assert_text(text_of(fields, "document"), op.document);
        assert_text(text_of(fields, "branch"), op.branch);
        assert_text(text_of(fields, "scope"), op.scope);
        assert_text(text_of(fields, "type"), op.type);
        assert_hex(text_of(fields, "origin"), tandem_slice_of(op.origin, TANDEM_ORIGIN_BYTES));
        assert_hex(text_of(fields, "predecessor"),
                   tandem_slice_of(op.predecessor, TANDEM_HASH_BYTES));
        assert_hex(text_of(fields, "payload"), op.payload);
        td_operation_hash(&op);
        assert_hex(text_of(vector, "hash"), tandem_slice_of(op.hash, TANDEM_HASH_BYTES));
        free_slice(bytes);
    }
}

static void valid_vectors_encode_to_their_bytes(void **state)
{
    json_t *list = json_object_get(vectors, "operations"), *vector;
    size_t i, encoded = 0;

    json_array_foreach(list, i, vector) {
        const json_t *fields = json_object_get(vector, "fields");
        tandem_slice origin = hex_of(text_of(fields, "origin"));
        tandem_slice predecessor = hex_of(text_of(fields, "predecessor"));
        td_operation op = {
            .version = number_of(fields, "version"),
            .flags = number_of(fields, "flags"),
            .seq = number_of(fields, "seq"),
            .hlc = number_of(fields, "hlc"),
            .origin = origin.bytes,
            .predecessor = predecessor.bytes,
            .collection = tandem_slice_text(text_of(fields, "collection")),
            .document = tandem_slice_text(text_of(fields, "document")),
            .branch = tandem_slice_text(text_of(fields, "branch")),
            .scope = tandem_slice_text(text_of(fields, "scope")),
            .type = tandem_slice_text(text_of(fields, "type")),
            .payload = hex_of(text_of(fields, "payload")),
        };
        tandem_writer writer;

        tandem_writer_init(&writer);
        if (json_array_size(json_object_get(vector, "trailing")) == 0) {
            tandem_write_nil(&writer); /* what stands before is left alone */
            assert_int_equal(TANDEM_OK, td_operation_encode(&op, &writer));
            assert_hex(text_of(vector, "canonical"),
                       tandem_slice_of(writer.bytes + 1, writer.size - 1));
            encoded++;
        }
        tandem_writer_release(&writer);
        free_slice(origin);
        free_slice(predecessor);
        free_slice(op.payload);
    }
    assert_true(encoded >= 7);
}

static void invalid_vectors_are_refused_with_their_error(void **state)
{
    json_t *list = json_object_get(vectors, "invalid"), *vector;
    size_t i;

    assert_true(json_array_size(list) >= 40);
    json_array_foreach(list, i, vector) {
        tandem_slice bytes = hex_of(text_of(vector, "canonical"));
        td_operation op;
        tandem_err err = td_operation_parse(bytes, &op);

        if (strcmp(text_of(vector, "error"), tandem_err_name(err)) != 0)
            fail_msg("%s: %s", text_of(vector, "name"), tandem_err_name(err));
        free_slice(bytes);
    }
}

static void chain_roots_and_origins_are_derived(void **state)
{
    json_t *list = json_object_get(vectors, "chain_roots"), *vector;
    size_t i;

    assert_int_equal(3, json_array_size(list));
    json_array_foreach(list, i, vector) {
        uint8_t root[TANDEM_HASH_BYTES];

        td_chain_root(tandem_slice_text(text_of(vector, "collection")), root);
        assert_hex(text_of(vector, "root"), tandem_slice_of(root, sizeof(root)));
    }
    list = json_object_get(vectors, "origins");
    assert_int_equal(2, json_array_size(list));
    json_array_foreach(list, i, vector) {
        tandem_slice seed = hex_of(text_of(vector, "seed"));
        uint8_t origin[TANDEM_ORIGIN_BYTES];

        td_origin_of_seed(seed.bytes, origin);
        assert_hex(text_of(vector, "origin"), tandem_slice_of(origin, sizeof(origin)));
        free_slice(seed);
    }
}

static void every_cut_and_every_changed_byte_is_safe(void **state)
{
    json_t *list = json_object_get(vectors, "operations"), *vector;
    size_t i;

    json_array_foreach(list, i, vector) {
        tandem_slice whole = hex_of(text_of(vector, "canonical"));

        for (size_t size = 0; size < whole.size; size++) {
            uint8_t *bytes = malloc(size ? size : 1);
            td_operation op;

            assert_non_null(bytes);
            memcpy(bytes, whole.bytes, size);
            assert_int_not_equal(TANDEM_OK, td_operation_parse(tandem_slice_of(bytes, size), &op));
            free(bytes);
        }
        for (size_t at = 0; at < whole.size; at++) {
            uint8_t *bytes = (uint8_t *)(uintptr_t)whole.bytes;
            uint8_t kept = bytes[at];

            for (unsigned bit = 0; bit < 8; bit++) {
                td_operation op;

                bytes[at] = (uint8_t)(kept ^ 1u << bit);
                if (td_operation_parse(whole, &op) == TANDEM_OK) {
                    td_operation_hash(&op);
                    /* Whatever still parses is another operation. */
                    tandem_slice hash = hex_of(text_of(vector, "hash"));
                    assert_memory_not_equal(hash.bytes, op.hash, TANDEM_HASH_BYTES);
                    free_slice(hash);
                }
            }
            bytes[at] = kept;
        }
        free_slice(whole);
    }
}

/* ---- Limits ---- */

static const uint8_t some_origin[TANDEM_ORIGIN_BYTES] = {1};
static const uint8_t some_hash[TANDEM_HASH_BYTES] = {2};

static td_operation sample(void)
{
    return (td_operation){
        .version = 1,
        .seq = 1,
        .hlc = 5,
        .origin = some_origin,
        .predecessor = some_hash,
        .collection = B("notes"),
        .document = B("a"),
        .branch = B("main"),
        .scope = B("global"),
        .type = B("kv.SET"),
        .payload = B("\x80"),
    };
}

static void size_is_bounded_exactly(void **state)
{
    td_operation op = sample(), parsed;
    uint8_t *payload = calloc(1, TANDEM_OPERATION_BYTES_MAX + 1);
    tandem_writer writer;
    size_t overhead;

    assert_non_null(payload);
    tandem_writer_init(&writer);
    op.payload = tandem_slice_of(payload, 70000);
    assert_int_equal(TANDEM_OK, td_operation_encode(&op, &writer));
    overhead = writer.size - 70000;

    tandem_writer_clear(&writer);
    op.payload.size = TANDEM_OPERATION_BYTES_MAX - overhead;
    assert_int_equal(TANDEM_OK, td_operation_encode(&op, &writer));
    assert_int_equal(TANDEM_OPERATION_BYTES_MAX, writer.size);
    assert_int_equal(TANDEM_OK, td_operation_parse(tandem_writer_slice(&writer), &parsed));
    /* One more byte, well formed: a trailing item. */
    writer.bytes[0] = 0x9d;
    tandem_write_nil(&writer);
    assert_int_equal(TANDEM_E_LIMIT, td_operation_parse(tandem_writer_slice(&writer), &parsed));

    tandem_writer_clear(&writer);
    op.payload.size++;
    assert_int_equal(TANDEM_E_LIMIT, td_operation_encode(&op, &writer));
    assert_int_equal(0, writer.size);
    op.payload.size = TANDEM_OPERATION_BYTES_MAX + 1;
    assert_int_equal(TANDEM_E_LIMIT, td_operation_encode(&op, &writer));
    tandem_writer_release(&writer);
    free(payload);
}

static void trailing_items_are_bounded(void **state)
{
    tandem_writer writer, item;
    td_operation op = sample(), parsed;

    tandem_writer_init(&writer);
    tandem_writer_init(&item);
    assert_int_equal(TANDEM_OK, td_operation_encode(&op, &writer));
    writer.bytes[0] = 0x9d;
    tandem_write_array(&writer, TANDEM_PAYLOAD_ITEMS_MAX - 1);
    for (unsigned i = 0; i + 1 < TANDEM_PAYLOAD_ITEMS_MAX; i++)
        tandem_write_nil(&writer);
    assert_int_equal(TANDEM_OK, td_operation_parse(tandem_writer_slice(&writer), &parsed));

    tandem_writer_clear(&writer);
    assert_int_equal(TANDEM_OK, td_operation_encode(&op, &writer));
    writer.bytes[0] = 0x9d;
    tandem_write_array(&writer, TANDEM_PAYLOAD_ITEMS_MAX);
    for (unsigned i = 0; i < TANDEM_PAYLOAD_ITEMS_MAX; i++)
        tandem_write_nil(&writer);
    assert_int_equal(TANDEM_E_PAYLOAD, td_operation_parse(tandem_writer_slice(&writer), &parsed));

    /* Many of them: the array's header grows, in its shortest form. */
    tandem_writer_clear(&writer);
    assert_int_equal(TANDEM_OK, td_operation_encode(&op, &writer));
    tandem_write_array(&item, 12 + 40);
    tandem_write_raw(&item, tandem_slice_of(writer.bytes + 1, writer.size - 1));
    for (unsigned i = 0; i < 40; i++)
        tandem_write_uint(&item, i);
    assert_int_equal(TANDEM_OK, td_operation_parse(tandem_writer_slice(&item), &parsed));
    tandem_writer_release(&writer);
    tandem_writer_release(&item);
}

static void encode_refuses_what_is_no_name(void **state)
{
    char longest[TANDEM_NAME_BYTES_MAX + 1];
    tandem_writer writer;
    td_operation op;
    tandem_slice *names[] = {&op.collection, &op.document, &op.branch, &op.scope};

    memset(longest, 'x', sizeof(longest));
    tandem_writer_init(&writer);
    for (size_t i = 0; i < 4; i++) {
        op = sample();
        *names[i] = tandem_slice_of(longest, TANDEM_NAME_BYTES_MAX);
        assert_int_equal(TANDEM_OK, td_operation_encode(&op, &writer));
        tandem_writer_clear(&writer);
        *names[i] = tandem_slice_of(longest, sizeof(longest));
        assert_int_equal(TANDEM_E_LIMIT, td_operation_encode(&op, &writer));
        *names[i] = B("");
        assert_int_equal(TANDEM_E_INPUT, td_operation_encode(&op, &writer));
        *names[i] = B("a\tb");
        assert_int_equal(TANDEM_E_INPUT, td_operation_encode(&op, &writer));
        assert_int_equal(0, writer.size);
    }
    op = sample();
    op.type = B("SET");
    assert_int_equal(TANDEM_E_INPUT, td_operation_encode(&op, &writer));
    assert_int_equal(0, writer.size);
    tandem_writer_release(&writer);
}

static void names_are_text_without_controls(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        bool valid;
    } cases[] = {
        {"a", 1, true},
        {" ", 1, true},
        {"~", 1, true},
        {"\xc2\xa0", 2, true},
        {"\xdf\xbf", 2, true},
        {"\xe0\xa0\x80", 3, true},
        {"\xed\x9f\xbf", 3, true},
        {"\xee\x80\x80", 3, true},
        {"\xef\xbf\xbf", 3, true},
        {"\xf0\x90\x80\x80", 4, true},
        {"\xf4\x8f\xbf\xbf", 4, true},
        {"", 0, false},
        {"\x1f", 1, false},
        {"\x7f", 1, false},
        {"\xc2\x80", 2, false},
        {"\xc2\x9f", 2, false},
        {"\xc1\xbf", 2, false},
        {"\xe0\x9f\xbf", 3, false},
        {"\xed\xbf\xbf", 3, false},
        {"\xf0\x8f\xbf\xbf", 4, false},
        {"\xf4\x90\x80\x80", 4, false},
        {"\xf5\x80\x80\x80", 4, false},
        {"\xc2", 1, false},
        {"\xe1\x80", 2, false},
        {"\xf1\x80\x80", 3, false},
        {"\xc2"
         "a",
         2, false},
        {"\xe1\x80"
         "a",
         3, false},
        {"\xf1\x80\x80"
         "a",
         4, false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(cases[i].valid,
                         td_name_valid(tandem_slice_of(cases[i].bytes, cases[i].size)));
    assert_true(td_name_valid(B("_tandem")));
    assert_false(td_collection_name_valid(B("_tandem")));
    assert_true(td_collection_name_valid(B("notes_")));
    assert_false(td_collection_name_valid(B("")));
}

static void types_split_at_their_last_dot(void **state)
{
    assert_text("kv", td_type_model(B("kv.SET")));
    assert_text("SET", td_type_verb(B("kv.SET")));
    assert_text("a.b", td_type_model(B("a.b.c")));
    assert_text("c", td_type_verb(B("a.b.c")));
    assert_int_equal(0, td_type_model(B("SET")).size);
    assert_text("SET", td_type_verb(B("SET")));
    assert_int_equal(0, td_type_verb(B("kv.")).size);
}

static void a_withheld_payload_leaves_the_hash_provable(void **state)
{
    /* hash = B(B(around the body) || B(body)): the body's hash is enough to go on. */
    td_operation op = sample(), parsed;
    tandem_writer writer;
    uint8_t around[TANDEM_HASH_BYTES], body[TANDEM_HASH_BYTES], whole[TANDEM_HASH_BYTES];
    tandem_slice halves[] = {tandem_slice_of(around, 32), tandem_slice_of(body, 32)};
    tandem_slice before;

    tandem_writer_init(&writer);
    assert_int_equal(TANDEM_OK, td_operation_encode(&op, &writer));
    assert_int_equal(TANDEM_OK, td_operation_parse(tandem_writer_slice(&writer), &parsed));
    td_operation_hash(&parsed);
    before = tandem_slice_of(writer.bytes, writer.size - 1);
    td_hash(around, &before, 1);
    td_hash(body, &op.payload, 1);
    td_hash(whole, halves, 2);
    assert_memory_equal(whole, parsed.hash, TANDEM_HASH_BYTES);
    tandem_writer_release(&writer);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_vectors_parse_to_their_fields),
        cmocka_unit_test(valid_vectors_encode_to_their_bytes),
        cmocka_unit_test(invalid_vectors_are_refused_with_their_error),
        cmocka_unit_test(chain_roots_and_origins_are_derived),
        cmocka_unit_test(every_cut_and_every_changed_byte_is_safe),
        cmocka_unit_test(size_is_bounded_exactly),
        cmocka_unit_test(trailing_items_are_bounded),
        cmocka_unit_test(encode_refuses_what_is_no_name),
        cmocka_unit_test(names_are_text_without_controls),
        cmocka_unit_test(types_split_at_their_last_dot),
        cmocka_unit_test(a_withheld_payload_leaves_the_hash_provable),
    };
    const char *path = argc > 1 ? argv[1] : TANDEM_VECTORS_DIR "/operations.json";
    json_error_t error;
    int failed;

    if (sodium_init() < 0)
        return 1;
    vectors = json_load_file(path, 0, &error);
    if (!vectors) {
        fprintf(stderr, "%s: %s\n", path, error.text);
        return 1;
    }
    failed = cmocka_run_group_tests_name("operation", tests, NULL, NULL);
    json_decref(vectors);
    return failed;
}
