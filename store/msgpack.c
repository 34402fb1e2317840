#include "store/msgpack.h"

#include <assert.h>
#include <math.h>
#include <msgpack/pack.h>
#include <stdlib.h>

enum {
    /* The deepest nesting that anybody may ask the validator for: its stack is on the stack. */
    DEPTH_MAX = 64,
    /* States nest payloads inside structures of their own. */
    CANONICAL_DEPTH_MAX = TANDEM_PAYLOAD_DEPTH_MAX + 16,
    WRITER_BYTES_MIN = 256,
};

_Static_assert(CANONICAL_DEPTH_MAX <= DEPTH_MAX, "canonical values can be validated");

/* ---- Reading ---- */

static uint64_t big_endian(const uint8_t *in, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value = value << 8 | in[i];
    return value;
}

static void take_uint(tandem_item *out, uint64_t value)
{
    out->kind = TANDEM_UINT;
    out->uint = value;
}

/* An integer in a signed form: its sign decides the kind, not the form. */
static void take_int(tandem_item *out, int64_t value)
{
    if (value >= 0) {
        take_uint(out, (uint64_t)value);
        return;
    }
    out->kind = TANDEM_INT;
    out->sint = value;
}

static int64_t sign_extend(uint64_t value, unsigned size)
{
    switch (size) {
    case 1:
        return (int8_t)value;
    case 2:
        return (int16_t)value;
    case 4:
        return (int32_t)value;
    default:
        return (int64_t)value;
    }
}

static double take_float(uint64_t bits, unsigned size)
{
    double real;

    if (size == 4) {
        uint32_t bits32 = (uint32_t)bits;
        float single;

        memcpy(&single, &bits32, sizeof(single));
        return (double)single;
    }
    memcpy(&real, &bits, sizeof(real));
    return real;
}

/* A cursor of one header: commits to the reader only when all of it is there. */
struct header {
    const uint8_t *at;
    const uint8_t *end;
};

static bool header_number(struct header *h, unsigned size, uint64_t *out)
{
    if ((size_t)(h->end - h->at) < size)
        return false;
    *out = big_endian(h->at, size);
    h->at += size;
    return true;
}

static bool header_body(struct header *h, tandem_kind kind, uint64_t size, tandem_item *out)
{
    if ((uint64_t)(h->end - h->at) < size)
        return false;
    out->kind = kind;
    out->bytes = tandem_slice_of(h->at, (size_t)size);
    h->at += size;
    return true;
}

/* Each promised item takes a byte at least: what promises more than is left is refused here. */
static bool header_count(struct header *h, tandem_kind kind, uint64_t count, tandem_item *out)
{
    uint64_t values = kind == TANDEM_MAP ? 2 * count : count;

    if ((uint64_t)(h->end - h->at) < values)
        return false;
    out->kind = kind;
    out->count = (uint32_t)count;
    return true;
}

static bool header_extension(struct header *h, uint64_t size, tandem_item *out)
{
    uint64_t type;

    if (!header_number(h, 1, &type))
        return false;
    out->extension = (int8_t)type;
    return header_body(h, TANDEM_EXTENSION, size, out);
}

/* The forms 0xc0 to 0xdf, whose first byte says how wide the number after it is. */
static bool read_wide(struct header *h, uint8_t first, tandem_item *out)
{
    uint64_t number;
    unsigned size;

    switch (first) {
    case 0xc0:
        out->kind = TANDEM_NIL;
        return true;
    case 0xc2:
    case 0xc3:
        out->kind = TANDEM_BOOL;
        out->boolean = first == 0xc3;
        return true;
    case 0xc4: /* bin 8, 16, 32 */
    case 0xc5:
    case 0xc6:
        return header_number(h, 1u << (first - 0xc4), &number) &&
               header_body(h, TANDEM_BINARY, number, out);
    case 0xc7: /* ext 8, 16, 32 */
    case 0xc8:
    case 0xc9:
        return header_number(h, 1u << (first - 0xc7), &number) && header_extension(h, number, out);
    case 0xca: /* float 32, 64 */
    case 0xcb:
        size = 4u << (first - 0xca);
        if (!header_number(h, size, &number))
            return false;
        out->kind = TANDEM_FLOAT;
        out->real = take_float(number, size);
        return true;
    case 0xcc: /* uint 8, 16, 32, 64 */
    case 0xcd:
    case 0xce:
    case 0xcf:
        if (!header_number(h, 1u << (first - 0xcc), &number))
            return false;
        take_uint(out, number);
        return true;
    case 0xd0: /* int 8, 16, 32, 64 */
    case 0xd1:
    case 0xd2:
    case 0xd3:
        size = 1u << (first - 0xd0);
        if (!header_number(h, size, &number))
            return false;
        take_int(out, sign_extend(number, size));
        return true;
    case 0xd4: /* fixext 1, 2, 4, 8, 16 */
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        return header_extension(h, 1u << (first - 0xd4), out);
    case 0xd9: /* str 8, 16, 32 */
    case 0xda:
    case 0xdb:
        return header_number(h, 1u << (first - 0xd9), &number) &&
               header_body(h, TANDEM_STRING, number, out);
    case 0xdc: /* array 16, 32 */
    case 0xdd:
        return header_number(h, 2u << (first - 0xdc), &number) &&
               header_count(h, TANDEM_ARRAY, number, out);
    case 0xde: /* map 16, 32 */
    case 0xdf:
        return header_number(h, 2u << (first - 0xde), &number) &&
               header_count(h, TANDEM_MAP, number, out);
    default: /* 0xc1 is never used */
        return false;
    }
}

static bool read_item(struct header *h, tandem_item *out)
{
    uint8_t first;

    if (h->at == h->end)
        return false;
    first = *h->at++;
    if (first < 0x80) {
        take_uint(out, first);
        return true;
    }
    if (first < 0x90)
        return header_count(h, TANDEM_MAP, first & 0x0f, out);
    if (first < 0xa0)
        return header_count(h, TANDEM_ARRAY, first & 0x0f, out);
    if (first < 0xc0)
        return header_body(h, TANDEM_STRING, first & 0x1f, out);
    if (first >= 0xe0) {
        take_int(out, (int8_t)first);
        return true;
    }
    return read_wide(h, first, out);
}

tandem_reader tandem_reader_of(tandem_slice bytes)
{
    /* Never NULL, so that two ends of nothing may be subtracted. */
    static const uint8_t nothing;
    const uint8_t *at = bytes.bytes ? bytes.bytes : &nothing;
    tandem_reader reader = {at, at + bytes.size};

    assert(bytes.bytes || bytes.size == 0);
    return reader;
}

size_t tandem_reader_left(const tandem_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

tandem_err tandem_read(tandem_reader *reader, tandem_item *out)
{
    struct header h = {reader->at, reader->end};
    tandem_item item = {.kind = TANDEM_NIL};

    if (!read_item(&h, &item))
        return TANDEM_E_PAYLOAD;
    *out = item;
    reader->at = h.at;
    return TANDEM_OK;
}

static tandem_err read_kind(tandem_reader *reader, tandem_kind kind, tandem_item *out)
{
    tandem_reader ahead = *reader;

    if (tandem_read(&ahead, out) != TANDEM_OK || out->kind != kind)
        return TANDEM_E_PAYLOAD;
    *reader = ahead;
    return TANDEM_OK;
}

/* Arrays and bins have readers that know no other kind: messages are full of them. */
tandem_err tandem_read_array(tandem_reader *reader, uint32_t *count_out)
{
    struct header h = {reader->at, reader->end};
    tandem_item item;
    uint64_t count;

    if (h.at == h.end)
        return TANDEM_E_PAYLOAD;
    count = *h.at++;
    if (count >= 0x90 && count < 0xa0)
        count &= 0x0f;
    else if ((count != 0xdc && count != 0xdd) || /* array 16, 32 */
             !header_number(&h, 2u << (count - 0xdc), &count))
        return TANDEM_E_PAYLOAD;
    if (!header_count(&h, TANDEM_ARRAY, count, &item))
        return TANDEM_E_PAYLOAD;
    *count_out = item.count;
    reader->at = h.at;
    return TANDEM_OK;
}

tandem_err tandem_read_map(tandem_reader *reader, uint32_t *pairs_out)
{
    tandem_item item;
    tandem_err err = read_kind(reader, TANDEM_MAP, &item);

    if (err == TANDEM_OK)
        *pairs_out = item.count;
    return err;
}

tandem_err tandem_read_uint(tandem_reader *reader, uint64_t *out)
{
    tandem_item item;
    tandem_err err = read_kind(reader, TANDEM_UINT, &item);

    if (err == TANDEM_OK)
        *out = item.uint;
    return err;
}

tandem_err tandem_read_int(tandem_reader *reader, int64_t *out)
{
    tandem_reader ahead = *reader;
    tandem_item item;

    if (tandem_read(&ahead, &item) != TANDEM_OK)
        return TANDEM_E_PAYLOAD;
    if (item.kind == TANDEM_INT)
        *out = item.sint;
    else if (item.kind == TANDEM_UINT && item.uint <= INT64_MAX)
        *out = (int64_t)item.uint;
    else
        return TANDEM_E_PAYLOAD;
    *reader = ahead;
    return TANDEM_OK;
}

tandem_err tandem_read_bool(tandem_reader *reader, bool *out)
{
    tandem_item item;
    tandem_err err = read_kind(reader, TANDEM_BOOL, &item);

    if (err == TANDEM_OK)
        *out = item.boolean;
    return err;
}

tandem_err tandem_read_string(tandem_reader *reader, tandem_slice *out)
{
    tandem_item item;
    tandem_err err = read_kind(reader, TANDEM_STRING, &item);

    if (err == TANDEM_OK)
        *out = item.bytes;
    return err;
}

tandem_err tandem_read_binary(tandem_reader *reader, tandem_slice *out)
{
    struct header h = {reader->at, reader->end};
    tandem_item item;
    uint64_t size;
    uint8_t first;

    if (h.at == h.end)
        return TANDEM_E_PAYLOAD;
    first = *h.at++;
    if (first < 0xc4 || first > 0xc6 || /* bin 8, 16, 32 */
        !header_number(&h, 1u << (first - 0xc4), &size) ||
        !header_body(&h, TANDEM_BINARY, size, &item))
        return TANDEM_E_PAYLOAD;
    *out = item.bytes;
    reader->at = h.at;
    return TANDEM_OK;
}

/* How many values follow an item as its own. */
static uint64_t item_children(const tandem_item *item)
{
    if (item->kind == TANDEM_ARRAY)
        return item->count;
    if (item->kind == TANDEM_MAP)
        return 2 * (uint64_t)item->count;
    return 0;
}

tandem_err tandem_read_skip(tandem_reader *reader, tandem_slice *out)
{
    tandem_reader ahead = *reader;
    uint64_t pending = 1; /* values still to come: nesting needs no stack to be stepped over */
    tandem_item item;

    while (pending) {
        if (tandem_read(&ahead, &item) != TANDEM_OK)
            return TANDEM_E_PAYLOAD;
        pending += item_children(&item) - 1;
        if (pending > tandem_reader_left(&ahead))
            return TANDEM_E_PAYLOAD;
    }
    if (out)
        *out = tandem_slice_of(reader->at, (size_t)(ahead.at - reader->at));
    *reader = ahead;
    return TANDEM_OK;
}

tandem_err tandem_msgpack_validate(tandem_slice bytes, unsigned depth_max, uint32_t items_max)
{
    uint64_t left[DEPTH_MAX]; /* values still to come at each open level */
    tandem_reader reader = tandem_reader_of(bytes);
    uint64_t pending = 1; /* at all levels together */
    uint64_t items = 0;
    unsigned depth = 0;
    tandem_item item;

    assert(depth_max <= DEPTH_MAX);
    while (pending) {
        uint64_t children;

        if (tandem_read(&reader, &item) != TANDEM_OK)
            return TANDEM_E_PAYLOAD;
        items++;
        children = item_children(&item);
        pending += children - 1;
        if (pending > tandem_reader_left(&reader) || items + pending > items_max)
            return TANDEM_E_PAYLOAD;
        if (depth)
            left[depth - 1]--;
        if (item.kind == TANDEM_ARRAY || item.kind == TANDEM_MAP) {
            if (depth == depth_max)
                return TANDEM_E_PAYLOAD;
            left[depth++] = children;
        }
        while (depth && left[depth - 1] == 0)
            depth--;
    }
    return tandem_reader_left(&reader) ? TANDEM_E_PAYLOAD : TANDEM_OK;
}

/* ---- Writing ---- */

void tandem_writer_init(tandem_writer *writer)
{
    *writer = (tandem_writer){.err = TANDEM_OK};
}

void tandem_writer_release(tandem_writer *writer)
{
    free(writer->bytes);
    tandem_writer_init(writer);
}

void tandem_writer_clear(tandem_writer *writer)
{
    writer->size = 0;
    writer->err = TANDEM_OK;
}

tandem_err tandem_writer_err(const tandem_writer *writer)
{
    return writer->err;
}

tandem_slice tandem_writer_slice(const tandem_writer *writer)
{
    return tandem_slice_of(writer->bytes, writer->size);
}

static bool writer_reserve(tandem_writer *writer, size_t more)
{
    size_t capacity = writer->capacity ? writer->capacity : WRITER_BYTES_MIN;
    uint8_t *bytes;

    if (writer->err != TANDEM_OK)
        return false;
    if (more <= writer->capacity - writer->size)
        return true;
    if (more > SIZE_MAX / 2 - writer->size) {
        writer->err = TANDEM_E_NOMEM;
        return false;
    }
    while (capacity < writer->size + more)
        capacity *= 2;
    bytes = realloc(writer->bytes, capacity);
    if (!bytes) {
        writer->err = TANDEM_E_NOMEM;
        return false;
    }
    writer->bytes = bytes;
    writer->capacity = capacity;
    return true;
}

static void append(tandem_writer *writer, const void *bytes, size_t size)
{
    if (size == 0 || !writer_reserve(writer, size))
        return;
    memcpy(writer->bytes + writer->size, bytes, size);
    writer->size += size;
}

/* What msgpack-c's packer calls; the error sticks in the writer, so its answer says nothing. */
static int pack_append(void *data, const char *bytes, size_t size)
{
    append(data, bytes, size);
    return 0;
}

static msgpack_packer packer_of(tandem_writer *writer)
{
    msgpack_packer packer;

    msgpack_packer_init(&packer, writer, pack_append);
    return packer;
}

/* msgpack counts bytes in 32 bits; a longer body would be cut short without a word. */
static bool body_fits(tandem_writer *writer, size_t size)
{
    if (size <= UINT32_MAX)
        return true;
    if (writer->err == TANDEM_OK)
        writer->err = TANDEM_E_LIMIT;
    return false;
}

void tandem_write_nil(tandem_writer *writer)
{
    msgpack_packer packer = packer_of(writer);

    msgpack_pack_nil(&packer);
}

void tandem_write_bool(tandem_writer *writer, bool value)
{
    msgpack_packer packer = packer_of(writer);

    if (value)
        msgpack_pack_true(&packer);
    else
        msgpack_pack_false(&packer);
}

void tandem_write_uint(tandem_writer *writer, uint64_t value)
{
    msgpack_packer packer = packer_of(writer);

    msgpack_pack_uint64(&packer, value);
}

void tandem_write_int(tandem_writer *writer, int64_t value)
{
    msgpack_packer packer = packer_of(writer);

    if (value >= 0)
        msgpack_pack_uint64(&packer, (uint64_t)value);
    else
        msgpack_pack_int64(&packer, value);
}

void tandem_write_float(tandem_writer *writer, double value)
{
    static const uint8_t nan_bytes[] = {0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0};
    msgpack_packer packer = packer_of(writer);

    /* The bits of a NaN depend on the machine that made it: only one goes out. */
    if (isnan(value))
        append(writer, nan_bytes, sizeof(nan_bytes));
    else
        msgpack_pack_double(&packer, value);
}

void tandem_write_string(tandem_writer *writer, tandem_slice text)
{
    msgpack_packer packer = packer_of(writer);

    if (!body_fits(writer, text.size))
        return;
    msgpack_pack_str(&packer, text.size);
    append(writer, text.bytes, text.size);
}

void tandem_write_text(tandem_writer *writer, const char *text)
{
    tandem_write_string(writer, tandem_slice_text(text));
}

void tandem_write_binary(tandem_writer *writer, tandem_slice bytes)
{
    if (!body_fits(writer, bytes.size))
        return;
    tandem_write_binary_header(writer, (uint32_t)bytes.size);
    append(writer, bytes.bytes, bytes.size);
}

void tandem_write_binary_header(tandem_writer *writer, uint32_t size)
{
    msgpack_packer packer = packer_of(writer);

    msgpack_pack_bin(&packer, size);
}

void tandem_write_array(tandem_writer *writer, uint32_t count)
{
    msgpack_packer packer = packer_of(writer);

    msgpack_pack_array(&packer, count);
}

void tandem_write_map(tandem_writer *writer, uint32_t pairs)
{
    msgpack_packer packer = packer_of(writer);

    msgpack_pack_map(&packer, pairs);
}

void tandem_write_raw(tandem_writer *writer, tandem_slice bytes)
{
    append(writer, bytes.bytes, bytes.size);
}

/* ---- Canonical form ---- */

struct pair {
    bool string;        /* the key is a string */
    size_t key_at;      /* where its canonical encoding stands in the scratch writer */
    size_t compare_at;  /* of a string, where its text starts; else key_at */
    size_t key_end;
    tandem_slice key;   /* what is compared */
    tandem_slice value; /* as it was encoded */
    size_t index;       /* place in the map: of equal keys the last wins */
};

static int pair_compare_keys(const struct pair *a, const struct pair *b)
{
    if (a->string != b->string)
        return a->string ? -1 : 1;
    return tandem_slice_compare(a->key, b->key);
}

static int pair_compare(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    int order = pair_compare_keys(x, y);

    if (order)
        return order;
    return x->index < y->index ? -1 : x->index > y->index;
}

static tandem_err canonical_value(tandem_writer *writer, tandem_reader *reader);

/* Read count pairs: the keys go to scratch in canonical form, the values are only stepped over. */
static tandem_err pairs_read(tandem_reader *reader, uint32_t count, tandem_writer *scratch,
                             struct pair *pairs)
{
    for (uint32_t i = 0; i < count; i++) {
        tandem_reader key = *reader;
        tandem_item item;
        tandem_err err;

        if ((err = tandem_read(&key, &item)) != TANDEM_OK)
            return err;
        pairs[i].index = i;
        pairs[i].string = item.kind == TANDEM_STRING;
        pairs[i].key_at = scratch->size;
        if ((err = canonical_value(scratch, reader)) != TANDEM_OK)
            return err;
        pairs[i].key_end = scratch->size;
        pairs[i].compare_at =
            pairs[i].string ? pairs[i].key_end - item.bytes.size : pairs[i].key_at;
        if ((err = tandem_read_skip(reader, &pairs[i].value)) != TANDEM_OK)
            return err;
    }
    if (scratch->err != TANDEM_OK)
        return scratch->err;
    /* Only now does the scratch memory stay where it is. */
    for (uint32_t i = 0; i < count; i++)
        pairs[i].key = tandem_slice_of(scratch->bytes + pairs[i].compare_at,
                                       pairs[i].key_end - pairs[i].compare_at);
    return TANDEM_OK;
}

/* Are the keys strings, in order already, none twice? Such a map is most of what comes. */
static bool keys_ascend(tandem_reader reader, uint32_t count)
{
    tandem_slice before = {NULL, 0};

    for (uint32_t i = 0; i < count; i++) {
        tandem_item key;

        if (tandem_read(&reader, &key) != TANDEM_OK || key.kind != TANDEM_STRING ||
            (i > 0 && tandem_slice_compare(before, key.bytes) >= 0) ||
            tandem_read_skip(&reader, NULL) != TANDEM_OK)
            return false;
        before = key.bytes;
    }
    return true;
}

static tandem_err ascending_map(tandem_writer *writer, tandem_reader *reader, uint32_t count)
{
    tandem_err err = TANDEM_OK;

    tandem_write_map(writer, count);
    for (uint64_t i = 0; i < 2 * (uint64_t)count && err == TANDEM_OK; i++)
        err = canonical_value(writer, reader);
    return err;
}

static tandem_err canonical_map(tandem_writer *writer, tandem_reader *reader, uint32_t count)
{
    tandem_err err;
    uint32_t kept = 0;
    tandem_writer scratch;
    struct pair *pairs;

    if (keys_ascend(*reader, count))
        return ascending_map(writer, reader, count);
    pairs = calloc(count, sizeof(*pairs));
    if (!pairs)
        return TANDEM_E_NOMEM;
    tandem_writer_init(&scratch);
    if ((err = pairs_read(reader, count, &scratch, pairs)) != TANDEM_OK)
        goto out;
    qsort(pairs, count, sizeof(*pairs), pair_compare);
    for (uint32_t i = 0; i < count; i++)
        if (i + 1 == count || pair_compare_keys(&pairs[i], &pairs[i + 1]) != 0)
            pairs[kept++] = pairs[i];
    tandem_write_map(writer, kept);
    for (uint32_t i = 0; i < kept; i++) {
        tandem_reader value = tandem_reader_of(pairs[i].value);

        append(writer, scratch.bytes + pairs[i].key_at, pairs[i].key_end - pairs[i].key_at);
        if ((err = canonical_value(writer, &value)) != TANDEM_OK)
            goto out;
    }

out:
    tandem_writer_release(&scratch);
    free(pairs);
    return err;
}

/* Recursion is bounded: tandem_write_canonical() has validated the depth. */
static tandem_err canonical_value(tandem_writer *writer, tandem_reader *reader)
{
    msgpack_packer packer = packer_of(writer);
    tandem_item item;
    tandem_err err = tandem_read(reader, &item);

    if (err != TANDEM_OK)
        return err;
    switch (item.kind) {
    case TANDEM_NIL:
        tandem_write_nil(writer);
        break;
    case TANDEM_BOOL:
        tandem_write_bool(writer, item.boolean);
        break;
    case TANDEM_UINT:
        tandem_write_uint(writer, item.uint);
        break;
    case TANDEM_INT:
        tandem_write_int(writer, item.sint);
        break;
    case TANDEM_FLOAT:
        tandem_write_float(writer, item.real);
        break;
    case TANDEM_STRING:
        tandem_write_string(writer, item.bytes);
        break;
    case TANDEM_BINARY:
        tandem_write_binary(writer, item.bytes);
        break;
    case TANDEM_EXTENSION:
        msgpack_pack_ext(&packer, item.bytes.size, item.extension);
        append(writer, item.bytes.bytes, item.bytes.size);
        break;
    case TANDEM_ARRAY:
        tandem_write_array(writer, item.count);
        for (uint32_t i = 0; i < item.count; i++)
            if ((err = canonical_value(writer, reader)) != TANDEM_OK)
                return err;
        break;
    case TANDEM_MAP:
        return canonical_map(writer, reader, item.count);
    }
    return TANDEM_OK;
}

tandem_err tandem_write_canonical(tandem_writer *writer, tandem_slice value)
{
    size_t start = writer->size;
    tandem_reader reader;
    tandem_err err;

    if (writer->err != TANDEM_OK)
        return writer->err;
    err = tandem_msgpack_validate(value, CANONICAL_DEPTH_MAX, UINT32_MAX);
    if (err != TANDEM_OK)
        return err;
    reader = tandem_reader_of(value);
    err = canonical_value(writer, &reader);
    if (err == TANDEM_OK)
        err = writer->err;
    if (err != TANDEM_OK)
        writer->size = start;
    return err;
}
