#include "reactor/json.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/utf8.h"

enum {
    WHY_BYTES = 128,
    /* States nest payloads inside structures of their own, as in tandem_write_canonical(). */
    OUT_DEPTH_MAX = TANDEM_PAYLOAD_DEPTH_MAX + 16,
};

#define DEPTH_SENTENCE "nested deeper than 16 levels"
#define ITEMS_SENTENCE "more than 65536 values, keys and containers counted"
_Static_assert(TANDEM_PAYLOAD_DEPTH_MAX == 16, "DEPTH_SENTENCE says so");
_Static_assert(TANDEM_PAYLOAD_ITEMS_MAX == 65536, "ITEMS_SENTENCE says so");

/* ---- JSON to msgpack ---- */

struct conversion {
    tandem_writer *out;
    uint64_t items;
    const char *why; /* static; of the last TANDEM_E_INPUT */
};

static tandem_err refuse(struct conversion *c, const char *why)
{
    c->why = why;
    return TANDEM_E_INPUT;
}

/* Counted before anything is written, so that a count always fits its header. */
static bool items_fit(struct conversion *c, uint64_t more)
{
    c->items += more;
    return c->items <= TANDEM_PAYLOAD_ITEMS_MAX;
}

static tandem_err put_value(struct conversion *c, const json_t *json, unsigned depth);

static tandem_err put_array(struct conversion *c, const json_t *json, unsigned depth)
{
    size_t count = json_array_size(json);
    tandem_err err;

    if (depth == TANDEM_PAYLOAD_DEPTH_MAX)
        return refuse(c, DEPTH_SENTENCE);
    if (!items_fit(c, count))
        return refuse(c, ITEMS_SENTENCE);
    tandem_write_array(c->out, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        if ((err = put_value(c, json_array_get(json, i), depth + 1)) != TANDEM_OK)
            return err;
    return TANDEM_OK;
}

static tandem_err put_object(struct conversion *c, const json_t *json, unsigned depth)
{
    json_t *object = (json_t *)json; /* jansson's iterators want it so; nothing is changed */
    size_t count = json_object_size(json);
    tandem_err err;

    if (depth == TANDEM_PAYLOAD_DEPTH_MAX)
        return refuse(c, DEPTH_SENTENCE);
    if (!items_fit(c, 2 * (uint64_t)count))
        return refuse(c, ITEMS_SENTENCE);
    tandem_write_map(c->out, (uint32_t)count);
    for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at)) {
        tandem_write_string(c->out, tandem_slice_of(json_object_iter_key(at),
                                                    json_object_iter_key_len(at)));
        if ((err = put_value(c, json_object_iter_value(at), depth + 1)) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

static tandem_err put_value(struct conversion *c, const json_t *json, unsigned depth)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return put_object(c, json, depth);
    case JSON_ARRAY:
        return put_array(c, json, depth);
    case JSON_STRING:
        tandem_write_string(c->out,
                            tandem_slice_of(json_string_value(json), json_string_length(json)));
        break;
    case JSON_INTEGER:
        tandem_write_int(c->out, json_integer_value(json));
        break;
    case JSON_REAL:
        tandem_write_float(c->out, json_real_value(json));
        break;
    case JSON_TRUE:
        tandem_write_bool(c->out, true);
        break;
    case JSON_FALSE:
        tandem_write_bool(c->out, false);
        break;
    case JSON_NULL:
        tandem_write_nil(c->out);
        break;
    }
    return TANDEM_OK;
}

tandem_err tandem_json_convert(const json_t *json, tandem_writer *out, char why[WHY_BYTES])
{
    struct conversion c = {.out = out, .items = 1};
    size_t start = out->size;
    tandem_err err = tandem_writer_err(out);

    if (err != TANDEM_OK)
        return err;
    err = put_value(&c, json, 0);
    if (err == TANDEM_OK)
        err = tandem_writer_err(out);
    if (err != TANDEM_OK)
        out->size = start;
    if (err == TANDEM_E_INPUT)
        snprintf(why, WHY_BYTES, "%s", c.why);
    return err;
}

/* The parser quotes what it stumbled over (a few bytes of it): that must not move the cursor of a
 * terminal. */
static void tell_parse_error(const json_error_t *error, char why[WHY_BYTES])
{
    snprintf(why, WHY_BYTES, "line %d, column %d: %.88s", error->line, error->column,
             error->text);
    for (char *c = why; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

tandem_err tandem_json_read(tandem_slice text, tandem_writer *out, char why[128])
{
    const size_t flags = JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    json_error_t error;
    tandem_err err;
    json_t *json;

    /* jansson recurses, but has a limit of its own, 2048 levels, which any stack holds. */
    json = json_loadb(text.size ? (const char *)text.bytes : "", text.size, flags, &error);
    if (!json) {
        /* Where an allocation fails, jansson often has nothing to say. */
        if (!error.text[0] || json_error_code(&error) == json_error_out_of_memory)
            return TANDEM_E_NOMEM;
        tell_parse_error(&error, why);
        return TANDEM_E_INPUT;
    }
    err = tandem_json_convert(json, out, why);
    json_decref(json);
    return err;
}

/* ---- msgpack to JSON ---- */

/* Append text, each byte that is not UTF-8 replaced. */
static void append_utf8(tandem_writer *out, tandem_slice text)
{
    size_t start = 0, at = 0;

    while (at < text.size) {
        size_t size = td_utf8_size(text.bytes + at, text.size - at);

        if (size) {
            at += size;
            continue;
        }
        tandem_write_raw(out, tandem_slice_of(text.bytes + start, at - start));
        tandem_write_raw(out, tandem_slice_text("\xef\xbf\xbd"));
        start = ++at;
    }
    tandem_write_raw(out, tandem_slice_of(text.bytes + start, at - start));
}

static json_t *string_of(tandem_slice text)
{
    tandem_writer clean;
    json_t *json = NULL;

    tandem_writer_init(&clean);
    append_utf8(&clean, text);
    if (tandem_writer_err(&clean) == TANDEM_OK)
        json = json_stringn_nocheck(clean.size ? (const char *)clean.bytes : "", clean.size);
    tandem_writer_release(&clean);
    return json;
}

static json_t *base64_of(tandem_slice bytes)
{
    size_t size = sodium_base64_encoded_len(bytes.size, sodium_base64_VARIANT_ORIGINAL);
    json_t *json = NULL;
    char *text = malloc(size); /* with its NUL */

    if (!text)
        return NULL;
    sodium_bin2base64(text, size, bytes.bytes, bytes.size, sodium_base64_VARIANT_ORIGINAL);
    json = json_stringn_nocheck(text, size - 1);
    free(text);
    return json;
}

/* Takes value, which may be NULL: then memory ran out, and does so here too. */
static json_t *object_of_one(const char *key, json_t *value)
{
    json_t *object = json_object();

    if (!object) {
        json_decref(value);
        return NULL;
    }
    if (json_object_set_new_nocheck(object, key, value) != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *extension_of(const tandem_item *item)
{
    json_t *pair = json_array();

    if (!pair)
        return NULL;
    if (json_array_append_new(pair, json_integer(item->extension)) != 0 ||
        json_array_append_new(pair, base64_of(item->bytes)) != 0) {
        json_decref(pair);
        return NULL;
    }
    return object_of_one("$extension", pair);
}

static int dump_append(const char *bytes, size_t size, void *data)
{
    tandem_writer *out = data;

    tandem_write_raw(out, tandem_slice_of(bytes, size));
    return tandem_writer_err(out) == TANDEM_OK ? 0 : -1;
}

static size_t digits_of(double real)
{
    char text[32];
    size_t digits = 15;

    for (; digits < 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", (int)digits, real);
        if (strtod(text, NULL) == real)
            break;
    }
    return digits;
}

/* Depth is bounded by what was read: TANDEM_PAYLOAD_DEPTH_MAX and what a state adds. */
size_t tandem_json_digits(const json_t *json)
{
    size_t most = 15, i;
    const char *key;
    json_t *value;

    if (json_is_real(json))
        return digits_of(json_real_value(json));
    json_array_foreach((json_t *)json, i, value)
    {
        size_t digits = tandem_json_digits(value);

        most = digits > most ? digits : most;
    }
    json_object_foreach((json_t *)json, key, value)
    {
        size_t digits = tandem_json_digits(value);

        most = digits > most ? digits : most;
    }
    return most;
}

static tandem_err append_text(tandem_writer *out, const json_t *json)
{
    const size_t flags =
        JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(tandem_json_digits(json));

    /* We made the tree: it is UTF-8, finite and without circles, so only memory can fail. */
    return json_dump_callback(json, dump_append, out, flags) == 0 ? TANDEM_OK : TANDEM_E_NOMEM;
}

static json_t *value_of(tandem_reader *reader);

static json_t *array_of(tandem_reader *reader, uint32_t count)
{
    json_t *array = json_array();

    for (uint32_t i = 0; array && i < count; i++) {
        if (json_array_append_new(array, value_of(reader)) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

/*
 * Read a key and write its text; false if memory ran out. A key that is a container must not become
 * JSON text: keys of keys would have their quotes escaped again at every level, and a payload of
 * thirty bytes would become megabytes.
 */
static bool key_of(tandem_reader *reader, tandem_writer *text)
{
    tandem_item item = {.kind = TANDEM_NIL};
    tandem_reader ahead = *reader;
    tandem_slice whole = {0};
    tandem_err err = tandem_read(&ahead, &item);
    json_t *json;

    assert(err == TANDEM_OK);
    tandem_writer_clear(text);
    if (item.kind == TANDEM_STRING) {
        *reader = ahead;
        append_utf8(text, item.bytes);
        return tandem_writer_err(text) == TANDEM_OK;
    }
    if (item.kind == TANDEM_NIL || item.kind == TANDEM_BOOL || item.kind == TANDEM_UINT ||
        item.kind == TANDEM_INT || item.kind == TANDEM_FLOAT) {
        json = value_of(reader);
        err = json ? append_text(text, json) : TANDEM_E_NOMEM;
    } else {
        err = tandem_read_skip(reader, &whole);
        assert(err == TANDEM_OK);
        json = base64_of(whole);
        err = json ? TANDEM_OK : TANDEM_E_NOMEM;
        if (json) {
            tandem_write_raw(text, tandem_slice_text("$msgpack:"));
            tandem_write_raw(text, tandem_slice_text(json_string_value(json)));
            err = tandem_writer_err(text);
        }
    }
    json_decref(json);
    return err == TANDEM_OK;
}

static json_t *object_of(tandem_reader *reader, uint32_t pairs)
{
    json_t *object = json_object();
    tandem_writer key;

    tandem_writer_init(&key);
    for (uint32_t i = 0; object && i < pairs; i++) {
        if (!key_of(reader, &key) ||
            json_object_setn_new_nocheck(object, key.size ? (const char *)key.bytes : "", key.size,
                                         value_of(reader)) != 0) {
            json_decref(object);
            object = NULL;
        }
    }
    tandem_writer_release(&key);
    return object;
}

/* NULL if memory ran out: the bytes, and with them the depth of the recursion, are validated. */
static json_t *value_of(tandem_reader *reader)
{
    tandem_item item = {.kind = TANDEM_NIL};
    tandem_err err = tandem_read(reader, &item);

    assert(err == TANDEM_OK);
    switch (item.kind) {
    case TANDEM_NIL:
        break;
    case TANDEM_BOOL:
        return json_boolean(item.boolean);
    case TANDEM_UINT:
        if (item.uint > INT64_MAX)
            return json_real((double)item.uint);
        return json_integer((json_int_t)item.uint);
    case TANDEM_INT:
        return json_integer(item.sint);
    case TANDEM_FLOAT:
        return isfinite(item.real) ? json_real(item.real) : json_null();
    case TANDEM_STRING:
        return string_of(item.bytes);
    case TANDEM_BINARY:
        return object_of_one("$binary", base64_of(item.bytes));
    case TANDEM_ARRAY:
        return array_of(reader, item.count);
    case TANDEM_MAP:
        return object_of(reader, item.count);
    case TANDEM_EXTENSION:
        return extension_of(&item);
    }
    return json_null();
}

static tandem_err json_of_msgpack(tandem_slice value, json_t **out)
{
    tandem_reader reader = tandem_reader_of(value);
    tandem_err err = tandem_msgpack_validate(value, OUT_DEPTH_MAX, UINT32_MAX);
    json_t *json;

    if (err != TANDEM_OK)
        return err;
    json = value_of(&reader);
    if (!json)
        return TANDEM_E_NOMEM;
    *out = json;
    return TANDEM_OK;
}

tandem_err tandem_json_write(tandem_slice value, char **text_out)
{
    tandem_writer text;
    json_t *json = NULL;
    tandem_err err = json_of_msgpack(value, &json);

    if (err != TANDEM_OK)
        return err;
    /* Through a writer, since its memory is free()'s, whatever allocator jansson was given. */
    tandem_writer_init(&text);
    err = append_text(&text, json);
    if (err == TANDEM_OK) {
        tandem_write_raw(&text, tandem_slice_of("", 1));
        err = tandem_writer_err(&text);
    }
    json_decref(json);
    if (err == TANDEM_OK)
        *text_out = (char *)text.bytes;
    else
        tandem_writer_release(&text);
    return err;
}
