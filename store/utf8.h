/*
 * UTF-8, as strictly as Unicode defines it: overlong forms, surrogates and what lies above U+10FFFF are
 * none. Format: RFC 3629.
 */
#ifndef TANDEM_STORE_UTF8_H
#define TANDEM_STORE_UTF8_H

#include <stdbool.h>

#include "store/bytes.h"

/* How many bytes the code point at the front of left bytes takes, at least one; 0 if it is none. */
static inline size_t td_utf8_size(const uint8_t *bytes, size_t left)
{
    uint8_t low = 0x80, high = 0xbf; /* what the second byte may be */
    uint8_t first = bytes[0];
    size_t size;

    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (first == 0xe0)
        low = 0xa0; /* below are overlong forms */
    if (first == 0xed)
        high = 0x9f; /* above are surrogates */
    if (first == 0xf0)
        low = 0x90;
    if (first == 0xf4)
        high = 0x8f; /* above is nothing in Unicode */
    if (left < size || bytes[1] < low || bytes[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++)
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    return size;
}

/* How many code points text has. False if it is not well-formed. */
static inline bool td_utf8_count(tandem_slice text, uint64_t *count_out)
{
    size_t at = 0, size;

    for (*count_out = 0; at < text.size; at += size, ++*count_out)
        if (!(size = td_utf8_size(text.bytes + at, text.size - at)))
            return false;
    return true;
}

/* Where the code point with this number begins, in well-formed bytes that have as many. */
static inline size_t td_utf8_offset(const uint8_t *bytes, uint64_t number)
{
    size_t at = 0;

    while (number--)
        at += bytes[at] < 0x80 ? 1 : bytes[at] < 0xe0 ? 2 : bytes[at] < 0xf0 ? 3 : 4;
    return at;
}

#endif
