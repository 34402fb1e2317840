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

/* Most are. */
static bool is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte < CONTROL_DELETE;
}

bool td_name_valid(tandem_slice name)
{
    size_t at = 0, length;

    if (name.size < 1 || name.size > TANDEM_NAME_BYTES_MAX)
        return false;
    for (;;) {
        while (at < name.size && is_plain(name.bytes[at]))
            at++;
        if (at == name.size)
            return true;
        if (!(length = character_size(name.bytes + at, name.size - at)))
            return false;
        at += length;
    }
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

/* Has this name a model before its last dot, and something behind it? */
static bool names_model(tandem_slice type)
{
    size_t dot = last_dot(type);

    return dot > 0 && dot + 1 < type.size;
}

/* ---- Parsing ---- */

/*
 * Items are read in their shortest form. Were longer forms taken, one change could have many hashes,
 * and stores that are stricter than others would stop at it for ever. Every operation is read by this
 * a few times on its way, so each kind has its own reader, which knows no other.
 */

static inline size_t left(const tandem_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

/* The number of so many bytes that follows a header; what is below least has a shorter form. */
static inline bool read_wide(tandem_reader *reader, size_t size, uint64_t least, uint64_t *out)
{
    const uint8_t *at = reader->at;
    uint64_t number = 0;

    if (left(reader) < size)
        return false;
    for (size_t i = 0; i < size; i++)
        number = number << 8 | at[i];
    reader->at = at + size;
    *out = number;
    return number >= least;
}

static bool read_wide_number(tandem_reader *reader, uint64_t *out)
{
    switch (*reader->at++) {
    case 0xcc:
        return read_wide(reader, 1, 0x80, out);
    case 0xcd:
        return read_wide(reader, 2, UINT8_MAX + 1, out);
    case 0xce:
        return read_wide(reader, 4, UINT16_MAX + 1, out);
    case 0xcf:
        return read_wide(reader, 8, (uint64_t)UINT32_MAX + 1, out);
    default: /* int 8, 16, 32 and 64 are as long as their unsigned twins */
        return false;
    }
}

static inline bool read_number(tandem_reader *reader, uint64_t *out)
{
    if (reader->at == reader->end)
        return false;
    if (*reader->at >= 0x80)
        return read_wide_number(reader, out);
    *out = *reader->at++;
    return true;
}

static bool read_body(tandem_reader *reader, uint64_t size, tandem_slice *out)
{
    if (left(reader) < size)
        return false;
    *out = tandem_slice_of(reader->at, (size_t)size);
    reader->at += size;
    return true;
}

static bool read_string(tandem_reader *reader, tandem_slice *out)
{
    uint64_t size;
    bool read;

    if (reader->at == reader->end)
        return false;
    size = *reader->at++;
    switch (size) {
    case 0xd9:
        read = read_wide(reader, 1, 32, &size);
        break;
    case 0xda:
        read = read_wide(reader, 2, UINT8_MAX + 1, &size);
        break;
    case 0xdb:
        read = read_wide(reader, 4, UINT16_MAX + 1, &size);
        break;
    default:
        read = (size & 0xe0) == 0xa0;
        size &= 0x1f;
    }
    return read && read_body(reader, size, out);
}

static bool read_binary(tandem_reader *reader, tandem_slice *out)
{
    uint64_t size;
    bool read;

    if (reader->at == reader->end)
        return false;
    switch (*reader->at++) {
    case 0xc4:
        read = read_wide(reader, 1, 0, &size);
        break;
    case 0xc5:
        read = read_wide(reader, 2, UINT8_MAX + 1, &size);
        break;
    case 0xc6:
        read = read_wide(reader, 4, UINT16_MAX + 1, &size);
        break;
    default:
        return false;
    }
    return read && read_body(reader, size, out);
}

/* Each promised item takes a byte at least. */
static bool read_array(tandem_reader *reader, uint64_t *count_out)
{
    bool read;

    if (reader->at == reader->end)
        return false;
    *count_out = *reader->at++;
    switch (*count_out) {
    case 0xdc:
        read = read_wide(reader, 2, 16, count_out);
        break;
    case 0xdd:
        read = read_wide(reader, 4, UINT16_MAX + 1, count_out);
        break;
    default:
        read = (*count_out & 0xf0) == 0x90;
        *count_out &= 0x0f;
    }
    return read && *count_out <= left(reader);
}

static tandem_err read_name(tandem_reader *reader, tandem_slice *out)
{
    if (!read_string(reader, out))
        return TANDEM_E_PAYLOAD;
    if (out->size > TANDEM_NAME_BYTES_MAX)
        return TANDEM_E_LIMIT;
    return td_name_valid(*out) ? TANDEM_OK : TANDEM_E_PAYLOAD;
}

static bool read_fixed(tandem_reader *reader, size_t size, const uint8_t **out)
{
    tandem_slice bytes;

    if (!read_binary(reader, &bytes) || bytes.size != size)
        return false;
    *out = bytes.bytes;
    return true;
}

/* Items that a later minor format has added: kept and hashed, so only checked to be items. */
static tandem_err read_trailing(tandem_reader *reader, uint64_t count)
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
    return left(reader) ? TANDEM_E_PAYLOAD : TANDEM_OK;
}

tandem_err td_operation_parse(tandem_slice bytes, td_operation *out)
{
    tandem_reader reader = tandem_reader_of(bytes);
    tandem_err err;
    uint64_t count;

    if (bytes.size > TANDEM_OPERATION_BYTES_MAX)
        return TANDEM_E_LIMIT;
    out->canonical = bytes;
    if (!read_array(&reader, &count) || count < TD_OPERATION_ITEMS ||
        !read_number(&reader, &out->version) || !read_number(&reader, &out->flags))
        return TANDEM_E_PAYLOAD;
    if ((err = read_name(&reader, &out->collection)) != TANDEM_OK)
        return err;
    if (!read_fixed(&reader, TANDEM_ORIGIN_BYTES, &out->origin) ||
        !read_number(&reader, &out->seq) ||
        !read_fixed(&reader, TANDEM_HASH_BYTES, &out->predecessor) ||
        !read_number(&reader, &out->hlc))
        return TANDEM_E_PAYLOAD;
    if ((err = read_name(&reader, &out->document)) != TANDEM_OK ||
        (err = read_name(&reader, &out->branch)) != TANDEM_OK ||
        (err = read_name(&reader, &out->scope)) != TANDEM_OK ||
        (err = read_name(&reader, &out->type)) != TANDEM_OK)
        return err;
    if (!read_binary(&reader, &out->payload) || out->version < 1 || out->seq < 1 ||
        !names_model(out->type))
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
    return names_model(operation->type) ? TANDEM_OK : TANDEM_E_INPUT;
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
