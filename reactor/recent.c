#include "reactor/recent.h"

#include <stdlib.h>

#include <xxhash.h>

#include "store/stream_index.h"

enum {
    /* Indexed ordinals that are remembered all the same: a group that was prepared just before the
     * view went on need not be prepared again. */
    KEPT = 32768,
};

uint64_t td_recent_hash(tandem_slice collection, tandem_slice document)
{
    uint64_t hash = XXH3_64bits_withSeed(document.bytes, document.size,
                                         XXH3_64bits(collection.bytes, collection.size));

    return hash & ~(uint64_t)1;
}

static tandem_err grow(td_recent *recent)
{
    uint64_t capacity = recent->capacity ? recent->capacity * 2 : 1024;
    uint64_t *entries = malloc(capacity * sizeof(*entries));

    if (!entries)
        return TANDEM_E_NOMEM;
    for (uint64_t o = recent->base + 1; o <= recent->last; o++)
        entries[o & (capacity - 1)] = recent->entries[o & (recent->capacity - 1)];
    free(recent->entries);
    recent->entries = entries;
    recent->capacity = capacity;
    return TANDEM_OK;
}

tandem_err td_recent_reserve(td_recent *recent, size_t count)
{
    tandem_err err;

    while (recent->last - recent->base + count >= recent->capacity)
        if ((err = grow(recent)) != TANDEM_OK)
            return err;
    return TANDEM_OK;
}

bool td_recent_note(td_recent *recent, const td_operation *operation)
{
    bool lifecycle =
        tandem_slice_equal(operation->scope, tandem_slice_text(TD_SCOPE_DOCUMENT));

    recent->last++;
    recent->entries[recent->last & (recent->capacity - 1)] =
        td_recent_hash(operation->collection, operation->document) | lifecycle;
    return lifecycle;
}

void td_recent_skip(td_recent *recent)
{
    recent->last++;
    recent->entries[recent->last & (recent->capacity - 1)] = 0;
}

bool td_recent_touched(const td_recent *recent, uint64_t after, uint64_t hash,
                       bool lifecycle_only)
{
    if (after < recent->base)
        return true; /* forgotten: look again */
    for (uint64_t o = after + 1; o <= recent->last; o++) {
        uint64_t entry = recent->entries[o & (recent->capacity - 1)];

        if ((entry & ~(uint64_t)1) == hash && (!lifecycle_only || (entry & 1)))
            return true;
    }
    return false;
}

uint64_t td_recent_newest(const td_recent *recent, uint64_t after, uint64_t hash)
{
    if (after < recent->base)
        return recent->last;
    for (uint64_t o = recent->last; o > after; o--)
        if ((recent->entries[o & (recent->capacity - 1)] & ~(uint64_t)1) == hash)
            return o;
    return 0;
}

void td_recent_forget(td_recent *recent, uint64_t position)
{
    uint64_t known = position < recent->last ? position : recent->last;

    if (known > recent->base + KEPT)
        recent->base = known - KEPT;
}

void td_recent_reset(td_recent *recent, uint64_t ordinal)
{
    recent->base = recent->last = ordinal;
}

void td_recent_release(td_recent *recent)
{
    free(recent->entries);
    recent->entries = NULL;
}
