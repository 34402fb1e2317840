/*
 * Bytes that belong to somebody else, the fixed sizes of the format, and big-endian numbers.
 *
 * A slice borrows: whoever hands one out says for how long it is valid.
 */
#ifndef TANDEM_STORE_BYTES_H
#define TANDEM_STORE_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct tandem_slice {
    const uint8_t *bytes; /* may be NULL if size is 0 */
    size_t size;
} tandem_slice;

/* Limits belong to the format (store/FORMAT.md): no pair of stores may disagree on them. */
enum {
    TANDEM_HASH_BYTES = 32,   /* BLAKE2b-256 */
    TANDEM_ORIGIN_BYTES = 16, /* also a reactor id */
    TANDEM_NAME_BYTES_MAX = 128,
    TANDEM_OPERATION_BYTES_MAX = 256 * 1024,
    TANDEM_JOB_OPERATIONS_MAX = 1000,
    TANDEM_JOB_BYTES_MAX = 512 * 1024,
    TANDEM_PAYLOAD_DEPTH_MAX = 16,
    TANDEM_PAYLOAD_ITEMS_MAX = 65536,
    TANDEM_HEADS_MAX = 8, /* of one origin in one collection */
};

static inline tandem_slice tandem_slice_of(const void *bytes, size_t size)
{
    tandem_slice slice = {(const uint8_t *)bytes, size};
    return slice;
}

static inline tandem_slice tandem_slice_text(const char *text)
{
    return tandem_slice_of(text, strlen(text));
}

static inline int tandem_slice_equal(tandem_slice a, tandem_slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.bytes, b.bytes, a.size) == 0);
}

/* Byte order, a prefix before what it is a prefix of: less than, equal to, greater than zero. */
static inline int tandem_slice_compare(tandem_slice a, tandem_slice b)
{
    size_t shared = a.size < b.size ? a.size : b.size;
    int order = shared ? memcmp(a.bytes, b.bytes, shared) : 0;

    if (order)
        return order;
    return a.size < b.size ? -1 : a.size > b.size;
}

static inline void td_put_u64(uint8_t *out, uint64_t value)
{
    for (int i = 7; i >= 0; i--, value >>= 8)
        out[i] = (uint8_t)value;
}

static inline uint64_t td_get_u64(const uint8_t *in)
{
    uint64_t value = 0;

    for (int i = 0; i < 8; i++)
        value = value << 8 | in[i];
    return value;
}

static inline void td_put_u32(uint8_t *out, uint32_t value)
{
    for (int i = 3; i >= 0; i--, value >>= 8)
        out[i] = (uint8_t)value;
}

static inline uint32_t td_get_u32(const uint8_t *in)
{
    return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

#endif
