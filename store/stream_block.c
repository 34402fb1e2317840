#include "store/stream_block.h"

#include <assert.h>
#include <string.h>

enum {
    ORIGIN_AT = 8,
    SEQ_AT = ORIGIN_AT + TANDEM_ORIGIN_BYTES,
    HASH_BYTES = 16,
};

enum { HASHED = 1, EXPECTED = 2, ORIGIN_SHIFT = 2 };

_Static_assert(SEQ_AT + 8 == TD_PLACE_HASH_AT &&
                   TD_PLACE_HASH_AT + HASH_BYTES == sizeof(td_place),
               "hlc, origin, seq, a part of the hash");

void td_block_key(td_index_key *key, tandem_slice stream_key, const td_place *place)
{
    td_index_key_copy(key, stream_key);
    td_index_key_end_name(key);
    memcpy(key->bytes + key->size, place->bytes, TD_PLACE_HASH_AT);
    key->size += TD_PLACE_HASH_AT;
}

bool td_block_is_of(tandem_slice key, tandem_slice stream_key)
{
    return key.size == stream_key.size + 1 + TD_PLACE_HASH_AT &&
           td_index_key_starts_with(key, stream_key) && key.bytes[stream_key.size] == 0;
}

void td_block_begin(td_block_state *state, tandem_slice key, bool lifecycle)
{
    const uint8_t *place = key.bytes + key.size - TD_PLACE_HASH_AT;

    assert(key.size > TD_PLACE_HASH_AT);
    state->lifecycle = lifecycle;
    state->first = true;
    state->hlc = td_get_u64(place);
    state->ordinal = 0;
    state->origins = 1;
    memcpy(state->origin[0].bytes, place + ORIGIN_AT, TANDEM_ORIGIN_BYTES);
    state->origin[0].seq = td_get_u64(place + SEQ_AT);
}

/* ---- Decoding ---- */

static bool bytes_get(tandem_slice *rest, size_t size, const uint8_t **out)
{
    if (rest->size < size)
        return false;
    *out = rest->bytes;
    rest->bytes += size;
    rest->size -= size;
    return true;
}

static bool origin_get(td_block_state *state, tandem_slice *rest, uint64_t number)
{
    const uint8_t *bytes;

    if (number < state->origins)
        return true;
    if (number > state->origins || number == TD_BLOCK_ORIGINS_MAX ||
        !bytes_get(rest, TANDEM_ORIGIN_BYTES, &bytes))
        return false;
    memcpy(state->origin[number].bytes, bytes, TANDEM_ORIGIN_BYTES);
    state->origin[number].seq = 0;
    state->origins++;
    return true;
}

static bool life_get(tandem_slice *rest, td_block_entry *out)
{
    const uint8_t *head, *model;

    if (!bytes_get(rest, 2, &head) || head[1] > TANDEM_NAME_BYTES_MAX ||
        !bytes_get(rest, head[1], &model))
        return false;
    out->life = head[0];
    out->model = tandem_slice_of(model, head[1]);
    return true;
}

tandem_err td_block_next(td_block_state *state, tandem_slice *rest, td_block_entry *out)
{
    uint64_t tag, hlc, step, off = 0, origin;
    const uint8_t *hash = NULL;

    if (rest->size == 0)
        return state->first ? TANDEM_E_CORRUPT : TANDEM_END;
    if (!td_varint_get(rest, &tag) || !origin_get(state, rest, origin = tag >> ORIGIN_SHIFT) ||
        !td_varint_get(rest, &hlc) || !td_varint_get(rest, &step) ||
        (!(tag & EXPECTED) && !td_varint_get(rest, &off)) ||
        ((tag & HASHED) && !bytes_get(rest, HASH_BYTES, &hash)))
        return TANDEM_E_CORRUPT;
    if (state->first && (origin || hlc || step))
        return TANDEM_E_CORRUPT; /* the first one stands where the key says */
    out->life = 0;
    out->model = tandem_slice_of(NULL, 0);
    if (state->lifecycle && !life_get(rest, out))
        return TANDEM_E_CORRUPT;
    step = td_unzigzag(step);
    state->hlc += hlc;
    state->origin[origin].seq += step;
    state->ordinal += step + td_unzigzag(off);
    state->first = false;
    td_put_u64(out->place.bytes, state->hlc);
    memcpy(out->place.bytes + ORIGIN_AT, state->origin[origin].bytes, TANDEM_ORIGIN_BYTES);
    td_put_u64(out->place.bytes + SEQ_AT, state->origin[origin].seq);
    if (hash)
        memcpy(out->place.bytes + TD_PLACE_HASH_AT, hash, HASH_BYTES);
    else
        memset(out->place.bytes + TD_PLACE_HASH_AT, 0, HASH_BYTES);
    out->hashed = hash != NULL;
    out->ordinal = state->ordinal;
    return TANDEM_OK;
}

/* ---- Encoding ---- */

/* The number of an origin in the block; TD_BLOCK_ORIGINS_MAX if there is no room for it. */
static unsigned origin_find(const td_block_state *state, const uint8_t *bytes)
{
    unsigned number = 0;

    while (number < state->origins &&
           memcmp(state->origin[number].bytes, bytes, TANDEM_ORIGIN_BYTES) != 0)
        number++;
    return number;
}

size_t td_block_add(td_block_state *state, const td_block_entry *entry,
                    uint8_t out[TD_BLOCK_ENTRY_BYTES_MAX])
{
    const uint8_t *place = entry->place.bytes;
    uint64_t hlc = td_get_u64(place), seq = td_get_u64(place + SEQ_AT), step, off;
    unsigned origin = origin_find(state, place + ORIGIN_AT);
    size_t size;

    if (origin == TD_BLOCK_ORIGINS_MAX)
        return 0;
    if (origin == state->origins)
        state->origin[origin].seq = 0;
    step = seq - state->origin[origin].seq;
    off = entry->ordinal - (state->ordinal + step);
    size = td_varint_put(out, (uint64_t)origin << ORIGIN_SHIFT | (off ? 0 : EXPECTED) |
                               (entry->hashed ? HASHED : 0));
    if (origin == state->origins) {
        memcpy(state->origin[origin].bytes, place + ORIGIN_AT, TANDEM_ORIGIN_BYTES);
        memcpy(out + size, place + ORIGIN_AT, TANDEM_ORIGIN_BYTES);
        size += TANDEM_ORIGIN_BYTES;
        state->origins++;
    }
    size += td_varint_put(out + size, hlc - state->hlc);
    size += td_varint_put(out + size, td_zigzag(step));
    if (off)
        size += td_varint_put(out + size, td_zigzag(off));
    if (entry->hashed) {
        memcpy(out + size, place + TD_PLACE_HASH_AT, HASH_BYTES);
        size += HASH_BYTES;
    }
    if (state->lifecycle) {
        assert(entry->model.size <= TANDEM_NAME_BYTES_MAX);
        out[size++] = entry->life;
        out[size++] = (uint8_t)entry->model.size;
        if (entry->model.size)
            memcpy(out + size, entry->model.bytes, entry->model.size);
        size += entry->model.size;
    }
    state->hlc = hlc;
    state->ordinal = entry->ordinal;
    state->origin[origin].seq = seq;
    state->first = false;
    return size;
}
