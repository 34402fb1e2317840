#include "store/operation.h"

#include <assert.h>
#include <sodium.h>

#include "store/utf8.h"

enum { SYNC_ID_BYTES = 16, CONTROL_DELETE = 0x7f };

_Static_assert(crypto_generichash_BYTES == TANDEM_HASH_BYTES, "BLAKE2b-256 is sodium's default");

/* ---- Names ---- */

/* The length of the character at the start of bytes; 0 if it is no UTF-8, or a control character. */
static size_t character_size(const uint8_t *bytes, size_t left)
{
    if (bytes[0] < 0x20 || bytes[0] == CONTROL_DELETE)
        return 0;
    if (bytes[0] == 0xc2 && left > 1 && bytes[1] < 0xa0)
        return 0; /* U+0080 to U+009F */
    return td_utf8_size(bytes, left);
}

bool td_name_valid(tandem_slice name)
{
    size_t at = 0;

    if (name.size < 1 || name.size > TANDEM_NAME_BYTES_MAX)
        return false;
    while (at < name.size) {
        size_t length = character_size(name.bytes + at, name.size - at);

        if (!length)
            return false;
        at += length;
    }
    return true;
}

bool td_collection_name_valid(tandem_slice name)
{
    return td_name_valid(name) && name.bytes[0] != '_';
}

/* The place of the last dot; the size of type if there is none. */
static size_t last_dot(tandem_slice type)
{
    for (size_t at = type.size; at > 0; at--)
        if (type.bytes[at - 1] == '.')
            return at - 1;
    return type.size;
}

tandem_slice td_type_model(tandem_slice type)
{
    size_t dot = last_dot(type);

    return tandem_slice_of(type.bytes, dot == type.size ? 0 : dot);
}

tandem_slice td_type_verb(tandem_slice type)
{
    size_t dot = last_dot(type);

    if (dot == type.size)
        return type;
    return tandem_slice_of(type.bytes + dot + 1, type.size - dot - 1);
}

static bool type_valid(tandem_slice type)
{
    size_t dot = last_dot(type);

    return td_name_valid(type) && dot > 0 && dot + 1 < type.size;
}

/* ---- Parsing ---- */

/* Bytes of the shortest header (or whole number) that encodes item. */
static size_t shortest_header(const tandem_item *item)
{
    uint64_t n;

    switch (item->kind) {
    case TANDEM_UINT:
        n = item->uint;
        return n < 0x80 ? 1 : n <= UINT8_MAX ? 2 : n <= UINT16_MAX ? 3 : n <= UINT32_MAX ? 5 : 9;
    case TANDEM_STRING:
        n = item->bytes.size;
        return n < 32 ? 1 : n <= UINT8_MAX ? 2 : n <= UINT16_MAX ? 3 : 5;
    case TANDEM_BINARY:
        n = item->bytes.size;
        return n <= UINT8_MAX ? 2 : n <= UINT16_MAX ? 3 : 5;
    default:
        assert(item->kind == TANDEM_ARRAY);
        return item->count < 16 ? 1 : item->count <= UINT16_MAX ? 3 : 5;
    }
}

/*
 * Read one item in its shortest form. Were longer forms taken, one change could have many hashes,
 * and stores that are stricter than others would stop at it for ever.
 */
static tandem_err read_strict(tandem_reader *reader, tandem_kind kind, tandem_item *out)
{
    const uint8_t *start = reader->at;
    tandem_err err = tandem_read(reader, out);
    size_t header;

    if (err != TANDEM_OK)
        return err;
    if (out->kind != kind)
        return TANDEM_E_PAYLOAD;
    header = (size_t)(reader->at - start) - out->bytes.size;
    if (header != shortest_header(out))
        return TANDEM_E_PAYLOAD;
    /* int 16, 32 and 64 are as long as their unsigned twins. */
    if (kind == TANDEM_UINT && *start >= 0xd0 && *start <= 0xd3)
        return TANDEM_E_PAYLOAD;
    return TANDEM_OK;
}

static tandem_err read_number(tandem_reader *reader, uint64_t *out)
{
    tandem_item item;
    tandem_err err = read_strict(reader, TANDEM_UINT, &item);

    if (err == TANDEM_OK)
        *out = item.uint;
    return err;
}

static tandem_err read_name(tandem_reader *reader, tandem_slice *out)
{
    tandem_item item;
    tandem_err err = read_strict(reader, TANDEM_STRING, &item);

    if (err != TANDEM_OK)
        return err;
    if (item.bytes.size > TANDEM_NAME_BYTES_MAX)
        return TANDEM_E_LIMIT;
    if (!td_name_valid(item.bytes))
        return TANDEM_E_PAYLOAD;
    *out = item.bytes;
    return TANDEM_OK;
}

static tandem_err read_fixed(tandem_reader *reader, size_t size, const uint8_t **out)
{
    tandem_item item;
    tandem_err err = read_strict(reader, TANDEM_BINARY, &item);

    if (err != TANDEM_OK)
        return err;
    if (item.bytes.size != size)
        return TANDEM_E_PAYLOAD;
    *out = item.bytes.bytes;
    return TANDEM_OK;
}

/* Items that a later minor format has added: kept and hashed, so only checked to be items. */
static tandem_err read_trailing(tandem_reader *reader, uint32_t count)
{
    while (count--) {
        tandem_slice value;
        tandem_err err;

        if ((err = tandem_read_skip(reader, &value)) != TANDEM_OK)
            return err;
        err = tandem_msgpack_validate(value, TANDEM_PAYLOAD_DEPTH_MAX, TANDEM_PAYLOAD_ITEMS_MAX);
        if (err != TANDEM_OK)
            return err;
    }
    return tandem_reader_left(reader) ? TANDEM_E_PAYLOAD : TANDEM_OK;
}

tandem_err td_operation_parse(tandem_slice bytes, td_operation *out)
{
    tandem_reader reader = tandem_reader_of(bytes);
    tandem_item item;
    tandem_err err;
    uint32_t count;

    if (bytes.size > TANDEM_OPERATION_BYTES_MAX)
        return TANDEM_E_LIMIT;
    out->canonical = bytes;
    if ((err = read_strict(&reader, TANDEM_ARRAY, &item)) != TANDEM_OK)
        return err;
    count = item.count;
    if (count < TD_OPERATION_ITEMS)
        return TANDEM_E_PAYLOAD;
    if ((err = read_number(&reader, &out->version)) != TANDEM_OK ||
        (err = read_number(&reader, &out->flags)) != TANDEM_OK ||
        (err = read_name(&reader, &out->collection)) != TANDEM_OK ||
        (err = read_fixed(&reader, TANDEM_ORIGIN_BYTES, &out->origin)) != TANDEM_OK ||
        (err = read_number(&reader, &out->seq)) != TANDEM_OK ||
        (err = read_fixed(&reader, TANDEM_HASH_BYTES, &out->predecessor)) != TANDEM_OK ||
        (err = read_number(&reader, &out->hlc)) != TANDEM_OK ||
        (err = read_name(&reader, &out->document)) != TANDEM_OK ||
        (err = read_name(&reader, &out->branch)) != TANDEM_OK ||
        (err = read_name(&reader, &out->scope)) != TANDEM_OK ||
        (err = read_name(&reader, &out->type)) != TANDEM_OK ||
        (err = read_strict(&reader, TANDEM_BINARY, &item)) != TANDEM_OK)
        return err;
    out->payload = item.bytes;
    if (out->version < 1 || out->seq < 1 || !type_valid(out->type))
        return TANDEM_E_PAYLOAD;
    return read_trailing(&reader, count - TD_OPERATION_ITEMS);
}

/* ---- Encoding ---- */

static tandem_err names_check(const td_operation *operation)
{
    const tandem_slice names[] = {operation->collection, operation->document, operation->branch,
                                  operation->scope, operation->type};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].size > TANDEM_NAME_BYTES_MAX)
            return TANDEM_E_LIMIT;
        if (!td_name_valid(names[i]))
            return TANDEM_E_INPUT;
    }
    return type_valid(operation->type) ? TANDEM_OK : TANDEM_E_INPUT;
}

tandem_err td_operation_encode(const td_operation *operation, tandem_writer *out)
{
    size_t start = out->size;
    tandem_err err;

    assert(operation->version >= 1 && operation->seq >= 1);
    if ((err = names_check(operation)) != TANDEM_OK)
        return err;
    if (operation->payload.size > TANDEM_OPERATION_BYTES_MAX)
        return TANDEM_E_LIMIT;
    tandem_write_array(out, TD_OPERATION_ITEMS);
    tandem_write_uint(out, operation->version);
    tandem_write_uint(out, operation->flags);
    tandem_write_string(out, operation->collection);
    tandem_write_binary(out, tandem_slice_of(operation->origin, TANDEM_ORIGIN_BYTES));
    tandem_write_uint(out, operation->seq);
    tandem_write_binary(out, tandem_slice_of(operation->predecessor, TANDEM_HASH_BYTES));
    tandem_write_uint(out, operation->hlc);
    tandem_write_string(out, operation->document);
    tandem_write_string(out, operation->branch);
    tandem_write_string(out, operation->scope);
    tandem_write_string(out, operation->type);
    tandem_write_binary(out, operation->payload);
    err = tandem_writer_err(out);
    if (err == TANDEM_OK && out->size - start > TANDEM_OPERATION_BYTES_MAX)
        err = TANDEM_E_LIMIT;
    if (err != TANDEM_OK)
        out->size = start;
    return err;
}

/* ---- Hashes ---- */

void td_hash(uint8_t out[TANDEM_HASH_BYTES], const tandem_slice *parts, size_t count)
{
    crypto_generichash_state state;

    crypto_generichash_init(&state, NULL, 0, TANDEM_HASH_BYTES);
    for (size_t i = 0; i < count; i++)
        if (parts[i].size)
            crypto_generichash_update(&state, parts[i].bytes, parts[i].size);
    crypto_generichash_final(&state, out, TANDEM_HASH_BYTES);
}

void td_operation_hash(td_operation *operation)
{
    const uint8_t *start = operation->canonical.bytes;
    const uint8_t *end = start + operation->canonical.size;
    const uint8_t *body = operation->payload.bytes;
    const uint8_t *body_end = body + operation->payload.size;
    const tandem_slice around[] = {
        tandem_slice_of(start, (size_t)(body - start)),
        tandem_slice_of(body_end, (size_t)(end - body_end)),
    };
    uint8_t both[2 * TANDEM_HASH_BYTES];
    const tandem_slice whole = tandem_slice_of(both, sizeof(both));

    assert(body >= start && body_end <= end);
    td_hash(both, around, 2);
    td_hash(both + TANDEM_HASH_BYTES, &operation->payload, 1);
    td_hash(operation->hash, &whole, 1);
}

void td_chain_root(tandem_slice collection, uint8_t out[TANDEM_HASH_BYTES])
{
    static const uint8_t no_sync_id[SYNC_ID_BYTES];
    const tandem_slice parts[] = {collection, tandem_slice_of(no_sync_id, SYNC_ID_BYTES)};

    td_hash(out, parts, 2);
}

void td_origin_of_seed(const uint8_t seed[32], uint8_t out[TANDEM_ORIGIN_BYTES])
{
    uint8_t public_key[crypto_sign_PUBLICKEYBYTES];
    uint8_t secret_key[crypto_sign_SECRETKEYBYTES];
    uint8_t hash[TANDEM_HASH_BYTES];
    const tandem_slice key = tandem_slice_of(public_key, sizeof(public_key));

    _Static_assert(crypto_sign_SEEDBYTES == 32, "a seed is 32 bytes");
    crypto_sign_seed_keypair(public_key, secret_key, seed);
    td_hash(hash, &key, 1);
    memcpy(out, hash, TANDEM_ORIGIN_BYTES);
    sodium_memzero(secret_key, sizeof(secret_key));
}
