/* JSON and msgpack, both ways: what is kept, what is replaced, what is refused, in which words. */
#include "reactor/json.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void reads(const char *text, size_t text_size, const char *bytes, size_t size)
{
    tandem_writer out;
    char why[128] = "untouched";

    tandem_writer_init(&out);
    assert_int_equal(TANDEM_OK, tandem_json_read(tandem_slice_of(text, text_size), &out, why));
    assert_int_equal(size, out.size);
    assert_memory_equal(bytes, out.bytes, size);
    assert_string_equal("untouched", why);
    tandem_writer_release(&out);
}
#define READS(text, bytes) reads(text, sizeof(text) - 1, bytes, sizeof(bytes) - 1)

/* The sentence begins so. */
static void refuses(const char *text, size_t size, const char *sentence)
{
    tandem_writer out;
    char why[128] = "";

    tandem_writer_init(&out);
    tandem_write_nil(&out);
    assert_int_equal(TANDEM_E_INPUT, tandem_json_read(tandem_slice_of(text, size), &out, why));
    assert_int_equal(1, out.size);
    assert_int_equal(TANDEM_OK, tandem_writer_err(&out));
    if (strncmp(sentence, why, strlen(sentence)) != 0)
        assert_string_equal(sentence, why);
    for (const char *c = why; *c; c++)
        assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
    tandem_writer_release(&out);
}
#define REFUSES(text, sentence) refuses(text, sizeof(text) - 1, sentence)

static void writes(const char *bytes, size_t size, const char *text)
{
    char *out = NULL;

    assert_int_equal(TANDEM_OK, tandem_json_write(tandem_slice_of(bytes, size), &out));
    assert_string_equal(text, out);
    free(out);
}
#define WRITES(bytes, text) writes(bytes, sizeof(bytes) - 1, text)

static void scalars_are_read(void **state)
{
    READS("null", "\xc0");
    READS(" true ", "\xc3");
    READS("false", "\xc2");
    READS("0", "\x00");
    READS("-33", "\xd0\xdf");
    READS("9223372036854775807", "\xcf\x7f\xff\xff\xff\xff\xff\xff\xff");
    READS("-9223372036854775808", "\xd3\x80\x00\x00\x00\x00\x00\x00\x00");
    READS("\"\"", "\xa0");
    READS("\"\xc3\xa4\\u00e4\"", "\xa4\xc3\xa4\xc3\xa4");
}

static void a_real_without_fraction_stays_a_real(void **state)
{
    READS("1.0", "\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00");
    READS("1e0", "\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00");
    WRITES("\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00", "1.0");
}

static void objects_keep_the_order_of_their_keys(void **state)
{
    READS("{\"z\":1,\"a\":[{},[]]}", "\x82\xa1z\x01\xa1" "a\x92\x80\x90");
    WRITES("\x82\xa1z\x01\xa1" "a\x92\x80\x90", "{\"z\":1,\"a\":[{},[]]}");
}

static void nul_in_a_string_is_kept(void **state)
{
    READS("\"a\\u0000b\"", "\xa3" "a\0b");
    WRITES("\xa3" "a\0b", "\"a\\u0000b\"");
    /* And in a key, where jansson reads none. */
    WRITES("\x81\xa3" "a\0b\x01", "{\"a\\u0000b\":1}");
    REFUSES("{\"a\\u0000b\":1}", "line 1, column ");
}

static void what_is_no_json_is_refused_with_its_place(void **state)
{
    REFUSES("", "line 1, column 0: ");
    REFUSES("{\"a\":1,\n \"b\"}", "line 2, column 5: ");
    REFUSES("[1] 2", "line 1, column 5: end of file expected");
    REFUSES("NaN", "line 1, column ");
    REFUSES("\"\xff\"", "line 1, column ");
    REFUSES("\x1b[2J", "line 1, column ");
    REFUSES("1e400", "line 1, column 5: real number overflow");
    refuses(NULL, 0, "line 1, column 0: ");
}

static void duplicate_keys_are_refused(void **state)
{
    REFUSES("{\"a\":1,\"a\":2}", "line 1, column 10: duplicate object key");
    REFUSES("[{\"a\":1,\"\\u0061\":2}]", "line 1, column ");
}

static void integers_beyond_64_bits_are_refused(void **state)
{
    REFUSES("9223372036854775808", "line 1, column 19: too big integer");
    REFUSES("-9223372036854775809", "line 1, column 20: too big negative integer");
}

/* For the length of why: a quotation is short, however long what it is taken from. */
static void a_long_text_is_not_quoted_in_full(void **state)
{
    char key[200], text[500], why[128];
    tandem_writer out;
    int size;

    memset(key, 'k', sizeof(key) - 1);
    key[sizeof(key) - 1] = '\0';
    size = snprintf(text, sizeof(text), "{\"%s\":1,\"%s\":2}", key, key);
    tandem_writer_init(&out);
    assert_int_equal(TANDEM_E_INPUT,
                     tandem_json_read(tandem_slice_of(text, (size_t)size), &out, why));
    assert_non_null(strstr(why, "duplicate object key"));
    assert_true(strlen(why) < sizeof(why) - 1);
    tandem_writer_release(&out);
}

static void nesting_is_bounded(void **state)
{
    char text[64];

    memset(text, '[', 16);
    memset(text + 16, ']', 16);
    reads(text, 32, "\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x90", 16);
    memset(text, '[', 17);
    memset(text + 17, ']', 17);
    refuses(text, 34, "nested deeper than 16 levels");
    REFUSES("[[[[[[[[[[[[[[[[{}]]]]]]]]]]]]]]]]", "nested deeper than 16 levels");
}

static void absurd_nesting_is_survived(void **state)
{
    enum { LEVELS = 100000 };
    char *text = malloc(LEVELS);

    assert_non_null(text);
    memset(text, '[', LEVELS);
    refuses(text, LEVELS, "line 1, column ");
    free(text);
}

static void the_number_of_values_is_bounded(void **state)
{
    static char text[2 * TANDEM_PAYLOAD_ITEMS_MAX + 2];
    tandem_writer out;
    char why[128];
    size_t size = 0;

    /* The array itself counts: 65,535 items fit. */
    text[size++] = '[';
    for (int i = 0; i < TANDEM_PAYLOAD_ITEMS_MAX - 1; i++) {
        text[size++] = '0';
        text[size++] = ',';
    }
    text[size - 1] = ']';
    tandem_writer_init(&out);
    assert_int_equal(TANDEM_OK, tandem_json_read(tandem_slice_of(text, size), &out, why));
    assert_int_equal(TANDEM_OK,
                     tandem_msgpack_validate(tandem_writer_slice(&out), 1,
                                             TANDEM_PAYLOAD_ITEMS_MAX));
    tandem_writer_release(&out);
    memcpy(text + size - 1, ",0]", 3);
    refuses(text, size + 2, "more than 65536 values");
}

/* A key counts, and a value. */
static void the_number_of_members_is_bounded(void **state)
{
    enum { MEMBERS = TANDEM_PAYLOAD_ITEMS_MAX / 2 };
    char *text = malloc(16 * MEMBERS + 2);
    size_t size = 0;

    assert_non_null(text);
    text[size++] = '{';
    for (int i = 0; i < MEMBERS; i++)
        size += (size_t)sprintf(text + size, "\"%d\":0,", i);
    text[size - 1] = '}';
    refuses(text, size, "more than 65536 values");
    free(text);
}

static void what_json_has_no_word_for_is_replaced(void **state)
{
    WRITES("\xc4\x02\x00\xff", "{\"$binary\":\"AP8=\"}");
    WRITES("\xc4\x00", "{\"$binary\":\"\"}");
    WRITES("\xd4\xfe\x01", "{\"$extension\":[-2,\"AQ==\"]}");
    WRITES("\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", "null");
    WRITES("\xcb\xff\xf0\x00\x00\x00\x00\x00\x00", "null");
    WRITES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "1.8446744073709552e19");
    WRITES("\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", "9223372036854775807");
    WRITES("\xd3\x80\x00\x00\x00\x00\x00\x00\x00", "-9223372036854775808");
}

static void keys_that_are_no_strings_become_text(void **state)
{
    WRITES("\x84\x01\x01\xc0\x02\xc3\x03\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\x04",
           "{\"1\":1,\"null\":2,\"true\":3,\"1.5\":4}");
    WRITES("\x82\x91\x01\x01\xc4\x01\x02\x02",
           "{\"$msgpack:kQE=\":1,\"$msgpack:xAEC\":2}");
    WRITES("\x82\x01\x01\xa1" "1\x02", "{\"1\":2}");
    WRITES("\x83\xff\x01\xc2\xc2\xa0\xc3", "{\"-1\":1,\"false\":false,\"\":true}");
}

/* Each level would escape the quotes of the one within: 2^30 of them. */
static void keys_of_keys_do_not_explode(void **state)
{
    uint8_t bytes[2 * 30 + 1];
    char *text = NULL;

    memset(bytes, 0x81, 30);
    memset(bytes + 30, 0xc0, 31);
    assert_int_equal(TANDEM_OK, tandem_json_write(tandem_slice_of(bytes, sizeof(bytes)), &text));
    assert_true(strlen(text) < 200);
    free(text);
}

static void bytes_that_are_not_utf8_are_replaced_one_by_one(void **state)
{
#define BAD "\xef\xbf\xbd"
    WRITES("\xa3" "a\xff" "b", "\"a" BAD "b\"");
    WRITES("\xa2\xc0\x80", "\"" BAD BAD "\"");                 /* overlong */
    WRITES("\xa3\xed\xa0\x80", "\"" BAD BAD BAD "\"");         /* a surrogate */
    WRITES("\xa4\xf4\x90\x80\x80", "\"" BAD BAD BAD BAD "\""); /* above Unicode */
    WRITES("\xa2\xe2\x82", "\"" BAD BAD "\"");                 /* cut short */
    WRITES("\xa3\xe0\x9f\xbf", "\"" BAD BAD BAD "\"");         /* overlong, of three */
    WRITES("\xa3\xe0\xa0\x80", "\"\xe0\xa0\x80\"");
    WRITES("\xa3\xe2\x82(", "\"" BAD BAD "(\"");              /* no third byte */
    WRITES("\xa4\xf0\x9f\x98(", "\"" BAD BAD BAD "(\"");      /* no fourth */
    WRITES("\xa2\xc3(", "\"" BAD "(\"");
    WRITES("\xa4\xf0\x9f\x98\x80", "\"\xf0\x9f\x98\x80\"");
    WRITES("\xa3\xe2\x82\xac", "\"\xe2\x82\xac\"");
    WRITES("\x81\xa1\xfe\x01", "{\"" BAD "\":1}");
#undef BAD
}

static void what_is_not_one_value_is_not_written(void **state)
{
    char *text = NULL;

    assert_int_equal(TANDEM_E_PAYLOAD, tandem_json_write(tandem_slice_of("", 0), &text));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_json_write(tandem_slice_of("\xc0\xc0", 2), &text));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_json_write(tandem_slice_of("\x92\xc0", 2), &text));
    assert_int_equal(TANDEM_E_PAYLOAD, tandem_json_write(tandem_slice_of("\xc1", 1), &text));
    assert_null(text);
}

static long allocations_left;
static long allocations_live;

static void *failing_malloc(size_t size)
{
    void *memory = allocations_left-- > 0 ? malloc(size) : NULL;

    allocations_live += memory != NULL;
    return memory;
}

static void counting_free(void *memory)
{
    allocations_live -= memory != NULL;
    free(memory);
}

/* jansson's memory; that of writers is tested where they are. */
static void running_out_of_memory_is_told_and_leaks_nothing(void **state)
{
    static const char text[] = "{\"a\":[1,2.5,\"x\",{\"b\":null}],\"c\":{}}";
    static const char bytes[] = "\x85\xa1" "a\x93\xc4\x01x\xd4\x01\x02\xa1\xff\x91\x01\x01\xc0\x02"
                                "\x01\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xc3\x80";
    bool done = false;

    json_set_alloc_funcs(failing_malloc, counting_free);
    for (long failing = 0; !done; failing++) {
        tandem_err read, written;
        char why[128], *json = NULL;
        tandem_writer out;

        tandem_writer_init(&out);
        allocations_left = failing;
        read = tandem_json_read(tandem_slice_text(text), &out, why);
        if (read == TANDEM_OK)
            assert_memory_equal("\x82\xa1" "a\x94\x01\xcb", out.bytes, 6);
        else /* what jansson's scanner has no memory for, it calls an invalid token */
            assert_true((read == TANDEM_E_NOMEM || read == TANDEM_E_INPUT) && out.size == 0);
        assert_int_equal(0, allocations_live);
        tandem_writer_release(&out);

        allocations_left = failing;
        written = tandem_json_write(tandem_slice_of(bytes, sizeof(bytes) - 1), &json);
        assert_true(written == TANDEM_OK || (written == TANDEM_E_NOMEM && !json));
        assert_int_equal(0, allocations_live);
        free(json);
        done = read == TANDEM_OK && written == TANDEM_OK;
    }
    json_set_alloc_funcs(malloc, free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_are_read),
        cmocka_unit_test(a_real_without_fraction_stays_a_real),
        cmocka_unit_test(objects_keep_the_order_of_their_keys),
        cmocka_unit_test(nul_in_a_string_is_kept),
        cmocka_unit_test(what_is_no_json_is_refused_with_its_place),
        cmocka_unit_test(duplicate_keys_are_refused),
        cmocka_unit_test(integers_beyond_64_bits_are_refused),
        cmocka_unit_test(a_long_text_is_not_quoted_in_full),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(absurd_nesting_is_survived),
        cmocka_unit_test(the_number_of_values_is_bounded),
        cmocka_unit_test(the_number_of_members_is_bounded),
        cmocka_unit_test(what_json_has_no_word_for_is_replaced),
        cmocka_unit_test(keys_that_are_no_strings_become_text),
        cmocka_unit_test(keys_of_keys_do_not_explode),
        cmocka_unit_test(bytes_that_are_not_utf8_are_replaced_one_by_one),
        cmocka_unit_test(what_is_not_one_value_is_not_written),
        cmocka_unit_test(running_out_of_memory_is_told_and_leaks_nothing),
    };

    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
