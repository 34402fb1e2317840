#include "sync/ranges.h"

#include <assert.h>
#include <stdlib.h>

#include "store/bytes.h"
#include "store/operation.h"

void td_ranges_release(td_ranges *ranges)
{
    free(ranges->digests);
    free(ranges->differ);
    memset(ranges, 0, sizeof(*ranges));
}

unsigned td_ranges_bits(uint64_t least, uint64_t ours, uint64_t theirs)
{
    uint64_t count = ours < theirs ? ours : theirs;
    unsigned bits = TD_RANGE_BITS_MIN;

    if (count < least)
        return 0;
    while (bits < TD_RANGE_BITS_MAX && (UINT64_C(1) << bits) * TD_RANGES_EACH < count)
        bits++;
    return bits;
}

static size_t range_of(const uint8_t *key, unsigned bits)
{
    return (size_t)(key[0] << 8 | key[1]) >> (16 - bits);
}

static void add(uint8_t *digest, const uint8_t *hash)
{
    for (unsigned i = 0; i < TD_RANGE_DIGEST_BYTES; i++)
        digest[i] ^= hash[i];
}

tandem_err td_ranges_begin_sum(td_ranges_sum *sum, unsigned bits, const td_greeting *one,
                               const td_greeting *other)
{
    bool in_order = memcmp(one->reactor, other->reactor, TANDEM_ORIGIN_BYTES) < 0;
    const td_greeting *greetings[] = {in_order ? one : other, in_order ? other : one};
    uint8_t *at = sum->salt;

    for (unsigned i = 0; i < 2; i++) {
        memcpy(at, greetings[i]->reactor, TANDEM_ORIGIN_BYTES);
        td_put_u64(at + TANDEM_ORIGIN_BYTES, greetings[i]->clock);
        at += TANDEM_ORIGIN_BYTES + 8;
    }
    sum->bits = bits;
    sum->digests = calloc((size_t)1 << bits, TD_RANGE_DIGEST_BYTES);
    return sum->digests ? TANDEM_OK : TANDEM_E_NOMEM;
}

/* key: its first bits name the range. */
static void add_element(td_ranges_sum *sum, const uint8_t *key, const uint8_t *element, size_t size)
{
    tandem_slice parts[] = {tandem_slice_of(sum->salt, sizeof(sum->salt)),
                            tandem_slice_of(element, size)};
    uint8_t hash[TANDEM_HASH_BYTES];

    td_hash(hash, parts, 2);
    add(sum->digests + range_of(key, sum->bits) * TD_RANGE_DIGEST_BYTES, hash);
}

void td_ranges_add_collection(td_ranges_sum *sum, tandem_slice name,
                              const uint8_t digest[TANDEM_HASH_BYTES])
{
    uint8_t element[TANDEM_HASH_BYTES + TANDEM_HASH_BYTES];

    td_hash(element, &name, 1);
    memcpy(element + TANDEM_HASH_BYTES, digest, TANDEM_HASH_BYTES);
    add_element(sum, element, element, sizeof(element));
}

void td_ranges_add_head(td_ranges_sum *sum, const uint8_t *origin, const td_head *head)
{
    uint8_t element[TANDEM_ORIGIN_BYTES + 8 + TANDEM_HASH_BYTES];

    memcpy(element, origin, TANDEM_ORIGIN_BYTES);
    td_put_u64(element + TANDEM_ORIGIN_BYTES, head->seq);
    memcpy(element + TANDEM_ORIGIN_BYTES + 8, head->hash, TANDEM_HASH_BYTES);
    add_element(sum, origin, element, sizeof(element));
}

void td_ranges_add_lack(td_ranges_sum *sum, const uint8_t *origin, const td_lack *lack)
{
    uint8_t element[TANDEM_ORIGIN_BYTES + 8 + 8 + TANDEM_HASH_BYTES];

    memcpy(element, origin, TANDEM_ORIGIN_BYTES);
    td_put_u64(element + TANDEM_ORIGIN_BYTES, lack->first);
    td_put_u64(element + TANDEM_ORIGIN_BYTES + 8, lack->last);
    memcpy(element + TANDEM_ORIGIN_BYTES + 16, lack->hash, TANDEM_HASH_BYTES);
    add_element(sum, origin, element, sizeof(element));
}

void td_ranges_offer(td_ranges *ranges, uint64_t position, uint8_t *digests)
{
    assert(ranges->state == TD_RANGES_OFFER);
    ranges->state = TD_RANGES_OFFERED;
    ranges->position = position;
    ranges->digests = digests;
}

/* The digest of a range by bits, of digests of narrower ones. */
static void read_digest(uint8_t *out, const uint8_t *digests, unsigned narrower, size_t range)
{
    memset(out, 0, TD_RANGE_DIGEST_BYTES);
    for (size_t i = range << narrower; i < (range + 1) << narrower; i++)
        add(out, digests + i * TD_RANGE_DIGEST_BYTES);
}

tandem_err td_ranges_meet(td_ranges *ranges, const uint8_t *digests, unsigned bits)
{
    unsigned least = bits < ranges->bits ? bits : ranges->bits;
    uint8_t *differ = calloc(1, td_range_bitmap_bytes(least));

    if (!differ)
        return TANDEM_E_NOMEM;
    for (size_t i = 0; i < (size_t)1 << least; i++) {
        uint8_t ours[TD_RANGE_DIGEST_BYTES], theirs[TD_RANGE_DIGEST_BYTES];

        read_digest(ours, ranges->digests, ranges->bits - least, i);
        read_digest(theirs, digests, bits - least, i);
        if (memcmp(ours, theirs, sizeof(ours)) != 0)
            differ[i / 8] |= (uint8_t)(0x80 >> i % 8);
    }
    free(ranges->digests);
    ranges->digests = NULL;
    ranges->differ = differ;
    ranges->bits = least;
    ranges->state = TD_RANGES_SETTLED;
    return TANDEM_OK;
}

tandem_err td_ranges_settle(td_ranges *ranges, const uint8_t *differ)
{
    size_t size = td_range_bitmap_bytes(ranges->bits);

    assert(ranges->state == TD_RANGES_OFFERED);
    if (!(ranges->differ = malloc(size)))
        return TANDEM_E_NOMEM;
    memcpy(ranges->differ, differ, size);
    free(ranges->digests);
    ranges->digests = NULL;
    ranges->state = TD_RANGES_SETTLED;
    return TANDEM_OK;
}

void td_ranges_give_up(td_ranges *ranges)
{
    if (ranges->state == TD_RANGES_SETTLED)
        return;
    free(ranges->digests);
    ranges->digests = NULL;
    ranges->state = TD_RANGES_PLAIN;
}

bool td_ranges_equal(const td_ranges *ranges, const uint8_t *key)
{
    size_t range;

    if (ranges->state != TD_RANGES_SETTLED)
        return false;
    range = range_of(key, ranges->bits);
    return !(ranges->differ[range / 8] & 0x80 >> range % 8);
}
