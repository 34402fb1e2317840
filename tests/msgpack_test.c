/* The bounded msgpack reader, the writer and the canonical form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/msgpack.h"

/* Bytes of a literal that may hold zeros. */
#define B(literal) tandem_slice_of(literal, sizeof(literal) - 1)

static void assert_bytes(tandem_slice expected, tandem_slice actual)
{
    assert_int_equal(expected.size, actual.size);
    if (expected.size)
        assert_memory_equal(expected.bytes, actual.bytes, expected.size);
}

/* ---- Reader ---- */

static void every_form_is_read(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        tandem_kind kind;
        uint64_t uint;
        int64_t sint;
    } numbers[] = {
        {"\x00", 1, TANDEM_UINT, 0, 0},
        {"\x7f", 1, TANDEM_UINT, 127, 0},
        {"\xcc\x05", 2, TANDEM_UINT, 5, 0},
        {"\xcd\x01\x00", 3, TANDEM_UINT, 256, 0},
        {"\xce\x00\x01\x00\x00", 5, TANDEM_UINT, 65536, 0},
        {"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9, TANDEM_UINT, UINT64_MAX, 0},
        {"\xd0\x05", 2, TANDEM_UINT, 5, 0},
        {"\xd1\x00\x05", 3, TANDEM_UINT, 5, 0},
        {"\xd3\x7f\xff\xff\xff\xff\xff\xff\xff", 9, TANDEM_UINT, INT64_MAX, 0},
        {"\xff", 1, TANDEM_INT, 0, -1},
        {"\xe0", 1, TANDEM_INT, 0, -32},
        {"\xd0\x80", 2, TANDEM_INT, 0, -128},
        {"\xd1\x80\x00", 3, TANDEM_INT, 0, -32768},
        {"\xd2\x80\x00\x00\x00", 5, TANDEM_INT, 0, INT32_MIN},
        {"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", 9, TANDEM_INT, 0, INT64_MIN},
    };
    static const struct {
        const char *bytes;
        size_t size;
        tandem_kind kind;
        size_t body;
    } bodies[] = {
        {"\xa2hi", 3, TANDEM_STRING, 2},
        {"\xd9\x02hi", 4, TANDEM_STRING, 2},
        {"\xda\x00\x02hi", 5, TANDEM_STRING, 2},
        {"\xdb\x00\x00\x00\x02hi", 7, TANDEM_STRING, 2},
        {"\xc4\x02hi", 4, TANDEM_BINARY, 2},
        {"\xc5\x00\x02hi", 5, TANDEM_BINARY, 2},
        {"\xc6\x00\x00\x00\x02hi", 7, TANDEM_BINARY, 2},
        {"\xc7\x02\x09hi", 5, TANDEM_EXTENSION, 2},
        {"\xc8\x00\x02\x09hi", 6, TANDEM_EXTENSION, 2},
        {"\xc9\x00\x00\x00\x02\x09hi", 8, TANDEM_EXTENSION, 2},
        {"\xd4\x09h", 3, TANDEM_EXTENSION, 1},
        {"\xd5\x09hi", 4, TANDEM_EXTENSION, 2},
        {"\xd6\x09hihi", 6, TANDEM_EXTENSION, 4},
        {"\xd7\x09hihihihi", 10, TANDEM_EXTENSION, 8},
        {"\xd8\x09hihihihihihihihi", 18, TANDEM_EXTENSION, 16},
    };
    tandem_item item;

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        tandem_reader reader = tandem_reader_of(tandem_slice_of(numbers[i].bytes, numbers[i].size));

        assert_int_equal(TANDEM_OK, tandem_read(&reader, &item));
        assert_int_equal(numbers[i].kind, item.kind);
        assert_true(item.uint == numbers[i].uint);
        assert_true(item.sint == numbers[i].sint);
        assert_int_equal(0, tandem_reader_left(&reader));
    }
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        tandem_reader reader = tandem_reader_of(tandem_slice_of(bodies[i].bytes, bodies[i].size));

        assert_int_equal(TANDEM_OK, tandem_read(&reader, &item));
        assert_int_equal(bodies[i].kind, item.kind);
        assert_int_equal(bodies[i].body, item.bytes.size);
        assert_ptr_equal(bodies[i].bytes + bodies[i].size - bodies[i].body, item.bytes.bytes);
        if (item.kind == TANDEM_EXTENSION)
            assert_int_equal(9, item.extension);
        assert_int_equal(0, tandem_reader_left(&reader));
    }
}

static void floats_bools_nil_and_containers_are_read(void **state)
{
    tandem_reader reader =
        tandem_reader_of(B("\xca\x3f\x80\x00\x00\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00"
                           "\xc0\xc2\xc3\x92\x01\x02\xdc\x00\x01\x03\x81\x04\x05"
                           "\xde\x00\x01\x06\x07\xdf\x00\x00\x00\x00\xdd\x00\x00\x00\x00"));
    tandem_item item;
    uint32_t count;
    uint64_t uint;
    bool boolean;

    assert_int_equal(TANDEM_OK, tandem_read(&reader, &item));
    assert_true(item.kind == TANDEM_FLOAT && item.real == 1.0);
    assert_int_equal(TANDEM_OK, tandem_read(&reader, &item));
    assert_true(item.kind == TANDEM_FLOAT && item.real == 1.5);
    assert_int_equal(TANDEM_OK, tandem_read(&reader, &item));
    assert_int_equal(TANDEM_NIL, item.kind);
    assert_int_equal(TANDEM_OK, tandem_read_bool(&reader, &boolean));
    assert_false(boolean);
    assert_int_equal(TANDEM_OK, tandem_read_bool(&reader, &boolean));
    assert_true(boolean);
    assert_int_equal(TANDEM_OK, tandem_read_array(&reader, &count));
    assert_int_equal(2, count);
    assert_int_equal(TANDEM_OK, tandem_read_uint(&reader, &uint));
    assert_int_equal(TANDEM_OK, tandem_read_uint(&reader, &uint));
    assert_int_equal(TANDEM_OK, tandem_read_array(&reader, &count));
    assert_int_equal(1, count);
    assert_int_equal(TANDEM_OK, tandem_read_uint(&reader, &uint));
    assert_int_equal(TANDEM_OK, tandem_read_map(&reader, &count));
    assert_int_equal(1, count);
    assert_int_equal(TANDEM_OK, tandem_read_skip(&reader, NULL));
    assert_int_equal(TANDEM_OK, tandem_read_skip(&reader, NULL));
    assert_int_equal(TANDEM_OK, tandem_read_map(&reader, &count));
    assert_int_equal(TANDEM_OK, tandem_read_skip(&reader, NULL));
    assert_int_equal(TANDEM_OK, tandem_read_skip(&reader, NULL));
    assert_int_equal(TANDEM_OK, tandem_read_map(&reader, &count));
    assert_int_equal(0, count);
    assert_int_equal(TANDEM_OK, tandem_read_array(&reader, &count));
    assert_int_equal(0, count);
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_read(&reader, &item));
}

static void another_kind_leaves_the_reader_where_it_stood(void **state)
{
    tandem_reader reader = tandem_reader_of(B("\xa1x"));
    tandem_slice slice;
    uint32_t count;
    uint64_t uint;
    int64_t sint;
    bool boolean;

    assert_int_equal(TANDEM_E_PAYLOAD, tandem_read_array(&reader, &count));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_read_map(&reader, &count));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_read_uint(&reader, &uint));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_read_int(&reader, &sint));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_read_bool(&reader, &boolean));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_read_binary(&reader, &slice));
    assert_int_equal(2, tandem_reader_left(&reader));
    assert_int_equal(TANDEM_OK, tandem_read_string(&reader, &slice));
    assert_bytes(B("x"), slice);
}

static void signed_reads_take_what_fits(void **state)
{
    tandem_reader reader = tandem_reader_of(B("\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"
                                              "\xd3\x80\x00\x00\x00\x00\x00\x00\x00"
                                              "\xcf\x80\x00\x00\x00\x00\x00\x00\x00"));
    int64_t value;
    uint64_t uint;

    assert_int_equal(TANDEM_OK, tandem_read_int(&reader, &value));
    assert_true(value == INT64_MAX);
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_read_uint(&reader, &uint)); /* it is negative */
    assert_int_equal(TANDEM_OK, tandem_read_int(&reader, &value));
    assert_true(value == INT64_MIN);
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_read_int(&reader, &value));
    assert_int_equal(9, tandem_reader_left(&reader));
}

static void what_is_cut_short_is_refused(void **state)
{
    static const uint8_t whole[] = {
        0x9b, 0xcd, 1,    2,    0xd9, 1,    'a', 0xc4, 1,    'b', 0xc7, 1,    7,    'c', 0xca,
        0,    0,    0,    0,    0xd5, 1,    2,   3,    0x81, 1,   2,    0xce, 0,    0,   0,
        1,    0xd3, 0,    0,    0,    0,    0,   0,    0,    1,   0xde, 0,    1,    1,   1,
        0x93, 1,    0xc0, 0xc2,
    };

    assert_int_equal(TANDEM_OK,
                     tandem_msgpack_validate(tandem_slice_of(whole, sizeof(whole)), 2, 100));
    for (size_t size = 0; size < sizeof(whole); size++) {
        uint8_t *cut = malloc(size ? size : 1); /* its own block: reading past it is caught */
        tandem_reader reader;

        assert_non_null(cut);
        memcpy(cut, whole, size);
        assert_int_equal(TANDEM_E_PAYLOAD,
                         tandem_msgpack_validate(tandem_slice_of(cut, size), 2, 100));
        reader = tandem_reader_of(tandem_slice_of(cut, size));
        assert_int_equal(TANDEM_E_PAYLOAD, tandem_read_skip(&reader, NULL));
        assert_int_equal(size, tandem_reader_left(&reader));
        free(cut);
    }
}

static void promises_beyond_the_bytes_left_are_refused_at_once(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        {"\xdd\xff\xff\xff\xff", 5},     {"\xdf\xff\xff\xff\xff", 5}, {"\xdc\xff\xff", 3},
        {"\xde\x80\x00\x00", 4},         {"\xdb\xff\xff\xff\xff", 5}, {"\xc6\xff\xff\xff\xff", 5},
        {"\xc9\xff\xff\xff\xff\x01", 6}, {"\x82\x01\x02\x03", 4},     {"\x92\x01", 2},
        {"\xa2x", 2},
    };
    tandem_item item;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tandem_slice bytes = tandem_slice_of(cases[i].bytes, cases[i].size);
        tandem_reader reader = tandem_reader_of(bytes);

        assert_int_equal(TANDEM_E_PAYLOAD, tandem_read(&reader, &item));
        assert_int_equal(cases[i].size, tandem_reader_left(&reader));
        assert_int_equal(TANDEM_E_PAYLOAD, tandem_msgpack_validate(bytes, 16, 65536));
    }
    /* Each header alone could be true, all together cannot. */
    assert_int_equal(TANDEM_E_PAYLOAD,
                     tandem_msgpack_validate(B("\x93\x93\x93\x01\x01\x01"), 16, 65536));
}

static void the_unused_byte_is_refused(void **state)
{
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_msgpack_validate(B("\xc1"), 16, 100));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_msgpack_validate(B("\x91\xc1"), 16, 100));
}

static void depth_is_bounded_exactly(void **state)
{
    uint8_t nested[65];

    assert_int_equal(TANDEM_OK, tandem_msgpack_validate(B("\x01"), 0, 10));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_msgpack_validate(B("\x90"), 0, 10));
    assert_int_equal(TANDEM_OK, tandem_msgpack_validate(B("\x90"), 1, 10));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_msgpack_validate(B("\x91\x90"), 1, 10));
    assert_int_equal(TANDEM_OK, tandem_msgpack_validate(B("\x91\x90"), 2, 10));
    /* Siblings do not add up. */
    assert_int_equal(TANDEM_OK, tandem_msgpack_validate(B("\x93\x90\x80\x91\x01"), 2, 10));
    memset(nested, 0x91, sizeof(nested));
    for (unsigned depth = 1; depth <= 64; depth++) {
        nested[depth - 1] = 0x90;
        assert_int_equal(TANDEM_OK,
                         tandem_msgpack_validate(tandem_slice_of(nested, depth), depth, 100));
        assert_int_equal(TANDEM_E_PAYLOAD,
                         tandem_msgpack_validate(tandem_slice_of(nested, depth), depth - 1, 100));
        nested[depth - 1] = 0x91;
    }
}

static void items_are_bounded_exactly(void **state)
{
    assert_int_equal(TANDEM_OK, tandem_msgpack_validate(B("\x92\x01\x81\x02\x03"), 2, 5));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_msgpack_validate(B("\x92\x01\x81\x02\x03"), 2, 4));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_msgpack_validate(B("\x01"), 2, 0));
}

static void exactly_one_value_is_demanded(void **state)
{
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_msgpack_validate(B(""), 2, 10));
    assert_int_equal(TANDEM_E_PAYLOAD,
                     tandem_msgpack_validate((tandem_slice){.bytes = NULL}, 2, 10));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_msgpack_validate(B("\x01\x01"), 2, 10));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_msgpack_validate(B("\x91\x01\x01"), 2, 10));
}

static void skip_steps_over_any_depth(void **state)
{
    enum { DEPTH = 100000 };
    uint8_t *bytes = malloc(DEPTH + 2);
    tandem_reader reader;
    tandem_slice value;

    assert_non_null(bytes);
    memset(bytes, 0x91, DEPTH);
    bytes[DEPTH] = 0xc0;
    bytes[DEPTH + 1] = 0x07;
    reader = tandem_reader_of(tandem_slice_of(bytes, DEPTH + 2));
    assert_int_equal(TANDEM_OK, tandem_read_skip(&reader, &value));
    assert_ptr_equal(bytes, value.bytes);
    assert_int_equal(DEPTH + 1, value.size);
    assert_int_equal(1, tandem_reader_left(&reader));
    assert_int_equal(TANDEM_E_PAYLOAD,
                     tandem_msgpack_validate(tandem_slice_of(bytes, DEPTH + 1), 16, UINT32_MAX));
    free(bytes);
}

/* Whatever the bytes are, the validator and the reader come to the same opinion. */
static void reader_and_validator_agree_on_noise(void **state)
{
    uint64_t seed = 0x9e3779b97f4a7c15u;

    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[24];
        size_t size;
        tandem_reader reader;
        bool skipped, valid;

        for (size_t i = 0; i < sizeof(bytes); i++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            /* Mostly headers: they are where the mistakes would be. */
            bytes[i] = (uint8_t)(seed & 1 ? 0x80 | (seed >> 8) : seed >> 8);
        }
        size = seed % sizeof(bytes);
        reader = tandem_reader_of(tandem_slice_of(bytes, size));
        skipped = tandem_read_skip(&reader, NULL) == TANDEM_OK && !tandem_reader_left(&reader);
        valid = tandem_msgpack_validate(tandem_slice_of(bytes, size), 24, 1000) == TANDEM_OK;
        assert_int_equal(skipped, valid);
    }
}

/* ---- Writer ---- */

static void integers_take_the_shortest_form(void **state)
{
    static const struct {
        bool negative;
        uint64_t value;
        const char *bytes;
        size_t size;
    } cases[] = {
        {false, 0, "\x00", 1},
        {false, 127, "\x7f", 1},
        {false, 128, "\xcc\x80", 2},
        {false, 255, "\xcc\xff", 2},
        {false, 256, "\xcd\x01\x00", 3},
        {false, 65535, "\xcd\xff\xff", 3},
        {false, 65536, "\xce\x00\x01\x00\x00", 5},
        {false, UINT32_MAX, "\xce\xff\xff\xff\xff", 5},
        {false, (uint64_t)UINT32_MAX + 1, "\xcf\x00\x00\x00\x01\x00\x00\x00\x00", 9},
        {false, UINT64_MAX, "\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9},
        {true, 1, "\xff", 1},
        {true, 32, "\xe0", 1},
        {true, 33, "\xd0\xdf", 2},
        {true, 128, "\xd0\x80", 2},
        {true, 129, "\xd1\xff\x7f", 3},
        {true, 32768, "\xd1\x80\x00", 3},
        {true, 32769, "\xd2\xff\xff\x7f\xff", 5},
        {true, 2147483648u, "\xd2\x80\x00\x00\x00", 5},
        {true, 2147483649u, "\xd3\xff\xff\xff\xff\x7f\xff\xff\xff", 9},
    };
    tandem_writer writer;

    tandem_writer_init(&writer);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tandem_slice expected = tandem_slice_of(cases[i].bytes, cases[i].size);

        tandem_writer_clear(&writer);
        if (cases[i].negative)
            tandem_write_int(&writer, -(int64_t)cases[i].value);
        else
            tandem_write_uint(&writer, cases[i].value);
        assert_bytes(expected, tandem_writer_slice(&writer));
        if (!cases[i].negative && cases[i].value <= INT64_MAX) {
            tandem_writer_clear(&writer);
            tandem_write_int(&writer, (int64_t)cases[i].value);
            assert_bytes(expected, tandem_writer_slice(&writer));
        }
    }
    tandem_writer_release(&writer);
}

static void bodies_and_containers_take_the_shortest_header(void **state)
{
    static const size_t sizes[] = {0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536};
    uint8_t *body = calloc(1, 65536);
    tandem_writer writer;

    assert_non_null(body);
    tandem_writer_init(&writer);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t size = sizes[i];
        tandem_item item;
        tandem_reader reader;
        size_t header = size < 32 ? 1 : size < 256 ? 2 : size < 65536 ? 3 : 5;

        tandem_writer_clear(&writer);
        tandem_write_string(&writer, tandem_slice_of(body, size));
        assert_int_equal(header + size, tandem_writer_slice(&writer).size);
        reader = tandem_reader_of(tandem_writer_slice(&writer));
        assert_int_equal(TANDEM_OK, tandem_read(&reader, &item));
        assert_int_equal(TANDEM_STRING, item.kind);
        assert_int_equal(size, item.bytes.size);

        header = size < 256 ? 2 : size < 65536 ? 3 : 5;
        tandem_writer_clear(&writer);
        tandem_write_binary(&writer, tandem_slice_of(body, size));
        assert_int_equal(header + size, tandem_writer_slice(&writer).size);
        tandem_writer_clear(&writer);
        tandem_write_binary_header(&writer, (uint32_t)size);
        assert_int_equal(header, tandem_writer_slice(&writer).size);
        tandem_write_raw(&writer, tandem_slice_of(body, size));
        reader = tandem_reader_of(tandem_writer_slice(&writer));
        assert_int_equal(TANDEM_OK, tandem_read(&reader, &item));
        assert_int_equal(TANDEM_BINARY, item.kind);
        assert_int_equal(size, item.bytes.size);

        header = size < 16 ? 1 : size < 65536 ? 3 : 5;
        tandem_writer_clear(&writer);
        tandem_write_array(&writer, (uint32_t)size);
        assert_int_equal(header, tandem_writer_slice(&writer).size);
        tandem_writer_clear(&writer);
        tandem_write_map(&writer, (uint32_t)size);
        assert_int_equal(header, tandem_writer_slice(&writer).size);
    }
    tandem_writer_release(&writer);
    free(body);
}

static void scalars_are_written(void **state)
{
    tandem_writer writer;

    tandem_writer_init(&writer);
    tandem_write_nil(&writer);
    tandem_write_bool(&writer, true);
    tandem_write_bool(&writer, false);
    tandem_write_float(&writer, 1.5);
    tandem_write_float(&writer, -nan(""));
    tandem_write_text(&writer, "hi");
    assert_int_equal(TANDEM_OK, tandem_writer_err(&writer));
    assert_bytes(B("\xc0\xc3\xc2\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00"
                   "\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\xa2hi"),
                 tandem_writer_slice(&writer));
    tandem_writer_release(&writer);
    assert_int_equal(0, tandem_writer_slice(&writer).size);
}

static void a_writer_error_sticks_until_cleared(void **state)
{
    tandem_writer writer;

    tandem_writer_init(&writer);
    tandem_write_uint(&writer, 1);
    /* No such memory: the claim is refused before it is touched. */
    tandem_write_raw(&writer, tandem_slice_of(&writer, SIZE_MAX));
    assert_int_equal(TANDEM_E_NOMEM, tandem_writer_err(&writer));
    tandem_write_uint(&writer, 2);
    assert_int_equal(1, tandem_writer_slice(&writer).size);
    assert_int_equal(TANDEM_E_NOMEM, tandem_write_canonical(&writer, B("\x01")));
    tandem_writer_clear(&writer);
    assert_int_equal(TANDEM_OK, tandem_writer_err(&writer));
    tandem_write_string(&writer, tandem_slice_of(&writer, (size_t)UINT32_MAX + 1));
    assert_int_equal(TANDEM_E_LIMIT, tandem_writer_err(&writer));
    assert_int_equal(0, tandem_writer_slice(&writer).size);
    tandem_writer_release(&writer);
}

/* ---- Canonical form ---- */

static void canonical_is(tandem_slice value, tandem_slice expected)
{
    tandem_writer writer;
    tandem_slice once;

    tandem_writer_init(&writer);
    assert_int_equal(TANDEM_OK, tandem_write_canonical(&writer, value));
    assert_bytes(expected, tandem_writer_slice(&writer));
    /* And it is its own canonical form. */
    assert_int_equal(TANDEM_OK, tandem_write_canonical(&writer, expected));
    once = tandem_writer_slice(&writer);
    assert_bytes(expected, tandem_slice_of(once.bytes + expected.size, once.size - expected.size));
    tandem_writer_release(&writer);
}

static void equal_values_have_one_form(void **state)
{
    canonical_is(B("\xcc\x05"), B("\x05"));
    canonical_is(B("\xd0\x05"), B("\x05"));
    canonical_is(B("\xd3\x00\x00\x00\x00\x00\x00\x00\x80"), B("\xcc\x80"));
    canonical_is(B("\xd1\xff\xff"), B("\xff"));
    canonical_is(B("\xca\x3f\x80\x00\x00"), B("\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"));
    canonical_is(B("\xca\xff\xc0\x00\x01"), B("\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"));
    canonical_is(B("\xcb\xff\xf0\x00\x00\x00\x00\x00\x01"),
                 B("\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"));
    canonical_is(B("\xcb\x80\x00\x00\x00\x00\x00\x00\x00"),
                 B("\xcb\x80\x00\x00\x00\x00\x00\x00\x00"));
    canonical_is(B("\xdb\x00\x00\x00\x01x"), B("\xa1x"));
    canonical_is(B("\xc6\x00\x00\x00\x01x"), B("\xc4\x01x"));
    canonical_is(B("\xdd\x00\x00\x00\x01\xcc\x05"), B("\x91\x05"));
    canonical_is(B("\xdf\x00\x00\x00\x00"), B("\x80"));
    canonical_is(B("\xc9\x00\x00\x00\x01\x09x"), B("\xd4\x09x"));
    canonical_is(B("\xc7\x03\xffxyz"), B("\xc7\x03\xffxyz"));
    canonical_is(B("\xc7\x00\x09"), B("\xc7\x00\x09"));
    canonical_is(B("\x93\xc0\xc2\xc3"), B("\x93\xc0\xc2\xc3"));
}

static void maps_are_sorted(void **state)
{
    /* Strings by their bytes, whatever their header; a prefix first. */
    canonical_is(B("\x84\xa2zz\x01\xa1z\x02\xd9\x01"
                   "a\x03\xa0\x04"),
                 B("\x84\xa0\x04\xa1"
                   "a\x03\xa1z\x02\xa2zz\x01"));
    /* Strings before all else; the others by their encoding. */
    canonical_is(B("\x86\xff\x01\x05\x02\xc0\x03\xa1x\x04\xc4\x01x\x05\xcd\x00\x04\x06"),
                 B("\x86\xa1x\x04\x04\x06\x05\x02\xc0\x03\xc4\x01x\x05\xff\x01"));
    /* At every level, in keys and in values. */
    canonical_is(B("\x81\x91\x82\x02\x01\x01\x02\x91\x82\xa1"
                   "b\x01\xa1"
                   "a\x02"),
                 B("\x81\x91\x82\x01\x02\x02\x01\x91\x82\xa1"
                   "a\x02\xa1"
                   "b\x01"));
}

static void of_equal_keys_the_last_wins(void **state)
{
    canonical_is(B("\x83\xa1x\x01\xa1y\x02\xd9\x01x\x03"), B("\x82\xa1x\x03\xa1y\x02"));
    canonical_is(B("\x82\xa1x\x01\xd9\x01x\x03"), B("\x81\xa1x\x03"));
    canonical_is(B("\x83\x05\x01\xcc\x05\x02\xd0\x05\x03"), B("\x81\x05\x03"));
    canonical_is(B("\x82\xca\x3f\x80\x00\x00\x01\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\x02"),
                 B("\x81\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\x02"));
    /* 1 and 1.0 are two keys; so are a string and a binary of the same bytes. */
    canonical_is(B("\x82\x01\x01\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\x02"),
                 B("\x82\x01\x01\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\x02"));
    canonical_is(B("\x82\xc4\x01x\x01\xa1x\x02"), B("\x82\xa1x\x02\xc4\x01x\x01"));
    canonical_is(B("\x82\xc4\x01w\x01\xa1x\x02"), B("\x82\xa1x\x02\xc4\x01w\x01"));
    /* In order itself, and what is in it is not. */
    canonical_is(B("\x82\xd9\x01x\x82\xa1z\x01\xa1y\x02\xa1y\xcc\x05"),
                 B("\x82\xa1x\x82\xa1y\x02\xa1z\x01\xa1y\x05"));
    /* Two maps that are equal once sorted are one key. */
    canonical_is(B("\x82\x82\x01\x01\x02\x02\x05\x82\x02\x02\x01\x01\x06"),
                 B("\x81\x82\x01\x01\x02\x02\x06"));
}

static void canonical_refuses_without_appending(void **state)
{
    uint8_t nested[34];
    tandem_writer writer;

    tandem_writer_init(&writer);
    tandem_write_uint(&writer, 7);
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_write_canonical(&writer, B("\x92\x01")));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_write_canonical(&writer, B("\x01\x01")));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_write_canonical(&writer, B("")));
    memset(nested, 0x91, sizeof(nested));
    nested[32] = 0x90;
    assert_int_equal(TANDEM_E_PAYLOAD,
                     tandem_write_canonical(&writer, tandem_slice_of(nested, 33)));
    assert_int_equal(1, tandem_writer_slice(&writer).size);
    nested[31] = 0x90;
    assert_int_equal(TANDEM_OK, tandem_write_canonical(&writer, tandem_slice_of(nested, 32)));
    assert_int_equal(33, tandem_writer_slice(&writer).size);
    tandem_writer_release(&writer);
}

static void a_large_map_is_sorted(void **state)
{
    enum { PAIRS = 20000 };
    tandem_writer shuffled, canonical, expected;

    tandem_writer_init(&shuffled);
    tandem_writer_init(&canonical);
    tandem_writer_init(&expected);
    tandem_write_map(&shuffled, PAIRS);
    tandem_write_map(&expected, PAIRS);
    for (uint32_t i = 0; i < PAIRS; i++) {
        char text[16];

        snprintf(text, sizeof(text), "k%05u", i * 7919 % PAIRS);
        tandem_write_text(&shuffled, text);
        tandem_write_uint(&shuffled, i * 7919 % PAIRS);
        snprintf(text, sizeof(text), "k%05u", i);
        tandem_write_text(&expected, text);
        tandem_write_uint(&expected, i);
    }
    assert_int_equal(TANDEM_OK,
                     tandem_write_canonical(&canonical, tandem_writer_slice(&shuffled)));
    assert_bytes(tandem_writer_slice(&expected), tandem_writer_slice(&canonical));
    tandem_writer_release(&shuffled);
    tandem_writer_release(&canonical);
    tandem_writer_release(&expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_is_read),
        cmocka_unit_test(floats_bools_nil_and_containers_are_read),
        cmocka_unit_test(another_kind_leaves_the_reader_where_it_stood),
        cmocka_unit_test(signed_reads_take_what_fits),
        cmocka_unit_test(what_is_cut_short_is_refused),
        cmocka_unit_test(promises_beyond_the_bytes_left_are_refused_at_once),
        cmocka_unit_test(the_unused_byte_is_refused),
        cmocka_unit_test(depth_is_bounded_exactly),
        cmocka_unit_test(items_are_bounded_exactly),
        cmocka_unit_test(exactly_one_value_is_demanded),
        cmocka_unit_test(skip_steps_over_any_depth),
        cmocka_unit_test(reader_and_validator_agree_on_noise),
        cmocka_unit_test(integers_take_the_shortest_form),
        cmocka_unit_test(bodies_and_containers_take_the_shortest_header),
        cmocka_unit_test(scalars_are_written),
        cmocka_unit_test(a_writer_error_sticks_until_cleared),
        cmocka_unit_test(equal_values_have_one_form),
        cmocka_unit_test(maps_are_sorted),
        cmocka_unit_test(of_equal_keys_the_last_wins),
        cmocka_unit_test(canonical_refuses_without_appending),
        cmocka_unit_test(a_large_map_is_sorted),
    };

    return cmocka_run_group_tests_name("msgpack", tests, NULL, NULL);
}
