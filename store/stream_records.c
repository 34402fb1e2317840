#include "store/stream_records.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

const char *const td_stream_index_tables[] = {"meta", "progress", "documents", "snapshots"};
const unsigned td_stream_index_table_count = TD_INDEX_TABLE_COUNT;

_Static_assert(sizeof(td_stream_index_tables) / sizeof(td_stream_index_tables[0]) ==
                   TD_INDEX_TABLE_COUNT,
               "every table has a name");
_Static_assert(4 + 3 * (TANDEM_NAME_BYTES_MAX + 1) + sizeof(td_place) <= TD_STORE_KEY_BYTES_MAX,
               "names and a place fit a key");

/* ---- Keys ---- */

bool td_index_name_fits(tandem_slice name)
{
    return name.size <= TANDEM_NAME_BYTES_MAX &&
           (name.size == 0 || !memchr(name.bytes, 0, name.size));
}

bool td_scope_is_lifecycle(tandem_slice scope)
{
    return tandem_slice_equal(scope, tandem_slice_text(TD_SCOPE_DOCUMENT));
}

static void key_add(td_index_key *key, const void *bytes, size_t size)
{
    assert(key->size + size <= sizeof(key->bytes));
    if (size)
        memcpy(key->bytes + key->size, bytes, size);
    key->size += size;
}

void td_index_key_copy(td_index_key *key, tandem_slice bytes)
{
    key->size = 0;
    key_add(key, bytes.bytes, bytes.size);
}

void td_index_key_document(td_index_key *key, uint32_t collection, tandem_slice document)
{
    td_put_u32(key->bytes, collection);
    key->size = 4;
    key_add(key, document.bytes, document.size);
}

void td_index_key_end_name(td_index_key *key)
{
    key_add(key, "", 1);
}

void td_index_key_stream(td_index_key *key, uint32_t collection, tandem_slice document,
                         tandem_slice branch, tandem_slice scope)
{
    td_index_key_document(key, collection, document);
    td_index_key_end_name(key);
    if (!td_scope_is_lifecycle(scope))
        key_add(key, branch.bytes, branch.size);
    td_index_key_end_name(key);
    key_add(key, scope.bytes, scope.size);
}

void td_index_key_place(td_index_key *key, tandem_slice stream_key, const td_place *place)
{
    td_index_key_copy(key, stream_key);
    td_index_key_end_name(key);
    key_add(key, place->bytes, sizeof(place->bytes));
}

void td_index_key_pass(td_index_key *key, tandem_slice passed)
{
    td_index_key_copy(key, passed);
    key_add(key, "\1", 1);
}

/* Up to a zero, which is passed, or to the end; true if there was one. */
static bool name_take(tandem_slice *rest, tandem_slice *out)
{
    const uint8_t *zero = rest->size ? memchr(rest->bytes, 0, rest->size) : NULL;

    *out = tandem_slice_of(rest->bytes, zero ? (size_t)(zero - rest->bytes) : rest->size);
    rest->bytes += out->size + (zero != NULL);
    rest->size -= out->size + (zero != NULL);
    return zero != NULL;
}

bool td_index_key_parse(tandem_slice key, td_index_names *out)
{
    tandem_slice rest, name;

    memset(out, 0, sizeof(*out));
    if (key.size < 4)
        return false;
    rest = tandem_slice_of(key.bytes + 4, key.size - 4);
    if (!name_take(&rest, &name)) {
        out->document_key = key;
        return name.size <= TANDEM_NAME_BYTES_MAX;
    }
    out->document_key = tandem_slice_of(key.bytes, 4 + name.size);
    if (name.size > TANDEM_NAME_BYTES_MAX || !name_take(&rest, &out->branch))
        return false;
    out->is_block = name_take(&rest, &out->scope);
    out->stream_key =
        tandem_slice_of(key.bytes, (size_t)(out->scope.bytes + out->scope.size - key.bytes));
    return !out->is_block || rest.size == TD_PLACE_HASH_AT;
}

bool td_index_key_starts_with(tandem_slice key, tandem_slice prefix)
{
    return key.size >= prefix.size && memcmp(key.bytes, prefix.bytes, prefix.size) == 0;
}

/* ---- Checksums ---- */

void td_index_checksum(unsigned table, tandem_slice key, tandem_slice value,
                       uint8_t out[TD_INDEX_CHECKSUM_BYTES])
{
    uint64_t seed = XXH3_64bits_withSeed(key.bytes, key.size, table);

    td_put_u32(out, (uint32_t)XXH3_64bits_withSeed(value.bytes, value.size, seed));
}

tandem_err td_index_unwrap(unsigned table, tandem_slice key, tandem_slice *value)
{
    uint8_t checksum[TD_INDEX_CHECKSUM_BYTES];
    tandem_slice inner;

    if (value->size < sizeof(checksum))
        return TANDEM_E_CORRUPT;
    inner = tandem_slice_of(value->bytes + sizeof(checksum), value->size - sizeof(checksum));
    td_index_checksum(table, key, inner, checksum);
    if (memcmp(checksum, value->bytes, sizeof(checksum)) != 0)
        return TANDEM_E_CORRUPT;
    *value = inner;
    return TANDEM_OK;
}

/* ---- Places ---- */

const td_place td_place_zero;

int td_place_compare(const td_place *a, const td_place *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

td_place td_place_of(const td_operation *operation)
{
    td_place place;

    td_put_u64(place.bytes, operation->hlc);
    memcpy(place.bytes + 8, operation->origin, TANDEM_ORIGIN_BYTES);
    td_put_u64(place.bytes + 8 + TANDEM_ORIGIN_BYTES, operation->seq);
    memcpy(place.bytes + 16 + TANDEM_ORIGIN_BYTES, operation->hash, 16);
    return place;
}

bool td_place_lacks_hash(const td_place *place)
{
    return memcmp(place->bytes + TD_PLACE_HASH_AT, td_place_zero.bytes + TD_PLACE_HASH_AT,
                  sizeof(place->bytes) - TD_PLACE_HASH_AT) == 0;
}

bool td_place_names(const td_place *place, const td_operation *operation)
{
    td_place whole = td_place_of(operation);
    size_t origin = 8, hash = TD_PLACE_HASH_AT;

    return memcmp(place->bytes + origin, whole.bytes + origin, hash - origin) == 0 &&
           (td_place_lacks_hash(place) ||
            memcmp(place->bytes + hash, whole.bytes + hash, sizeof(place->bytes) - hash) == 0);
}

td_place td_place_of_key(tandem_slice key)
{
    td_place place;

    assert(key.size >= sizeof(place.bytes));
    memcpy(place.bytes, key.bytes + key.size - sizeof(place.bytes), sizeof(place.bytes));
    return place;
}

/* ---- Numbers ---- */

size_t td_varint_put(uint8_t out[TD_VARINT_BYTES_MAX], uint64_t value)
{
    size_t size = 0;

    for (; value >= 0x80; value >>= 7)
        out[size++] = (uint8_t)(value | 0x80);
    out[size++] = (uint8_t)value;
    return size;
}

bool td_varint_get(tandem_slice *rest, uint64_t *out)
{
    uint64_t value = 0;

    for (size_t i = 0; i < rest->size && i < TD_VARINT_BYTES_MAX; i++) {
        uint8_t byte = rest->bytes[i];

        if (i == TD_VARINT_BYTES_MAX - 1 && byte > 1)
            return false;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte & 0x80)
            continue;
        if (byte == 0 && i > 0)
            return false;
        *out = value;
        rest->bytes += i + 1;
        rest->size -= i + 1;
        return true;
    }
    return false;
}

/* ---- Records ---- */

void td_model_name_set(td_model_name *name, tandem_slice model)
{
    assert(model.size <= TANDEM_NAME_BYTES_MAX);
    name->size = (uint8_t)model.size;
    if (model.size)
        memcpy(name->bytes, model.bytes, model.size);
}

static size_t model_encode(uint8_t *out, tandem_slice model)
{
    out[0] = (uint8_t)model.size;
    if (model.size)
        memcpy(out + 1, model.bytes, model.size);
    return 1 + model.size;
}

static bool model_decode(tandem_slice *value, td_model_name *out)
{
    if (value->size < 1 || value->bytes[0] > TANDEM_NAME_BYTES_MAX ||
        value->size < 1 + (size_t)value->bytes[0])
        return false;
    td_model_name_set(out, tandem_slice_of(value->bytes + 1, value->bytes[0]));
    value->bytes += 1 + out->size;
    value->size -= 1 + (size_t)out->size;
    return true;
}

enum { CREATED = 1, DELETED = 2, ORIGIN_OF_EPOCH = 4, ONE_MODEL = 8, FLAGS = 15 };

static const uint8_t *epoch_origin(const td_document_info *info)
{
    return info->epoch.bytes + 8;
}

static bool is_of_one_model(const td_document_record *record, tandem_slice model)
{
    return tandem_slice_equal(model, td_model_name_slice(&record->least)) &&
           tandem_slice_equal(model, td_model_name_slice(&record->greatest));
}

void td_document_derive(td_document_record *record)
{
    td_document_info *info = &record->info;

    info->conflict = info->created && !is_of_one_model(record, tandem_slice_text(info->model));
}

size_t td_document_encode(const td_document_record *record,
                          uint8_t out[TD_DOCUMENT_RECORD_BYTES_MAX])
{
    const td_document_info *info = &record->info;
    bool same_origin = info->created &&
                       memcmp(info->last_origin, epoch_origin(info), TANDEM_ORIGIN_BYTES) == 0;
    bool one_model = is_of_one_model(record, tandem_slice_text(info->model));
    uint8_t *at = out;

    *at++ = (uint8_t)((info->created ? CREATED : 0) | (info->deleted ? DELETED : 0) |
                      (same_origin ? ORIGIN_OF_EPOCH : 0) | (one_model ? ONE_MODEL : 0));
    at += td_varint_put(at, info->operations);
    at += td_varint_put(at, info->last_ordinal);
    at += td_varint_put(at, info->last_seq);
    if (!same_origin) {
        memcpy(at, info->last_origin, TANDEM_ORIGIN_BYTES);
        at += TANDEM_ORIGIN_BYTES;
    }
    if (info->created) {
        memcpy(at, info->epoch.bytes, sizeof(info->epoch.bytes));
        at += sizeof(info->epoch.bytes);
    }
    at += model_encode(at, tandem_slice_text(info->model));
    if (!one_model) {
        at += model_encode(at, td_model_name_slice(&record->least));
        at += model_encode(at, td_model_name_slice(&record->greatest));
    }
    return (size_t)(at - out);
}

static bool bytes_decode(tandem_slice *value, uint8_t *out, size_t size)
{
    if (value->size < size)
        return false;
    memcpy(out, value->bytes, size);
    value->bytes += size;
    value->size -= size;
    return true;
}

static bool models_decode(tandem_slice *value, bool one, td_document_record *record)
{
    td_model_name model;

    if (!model_decode(value, &model))
        return false;
    memcpy(record->info.model, model.bytes, model.size);
    record->info.model[model.size] = '\0';
    if (!one)
        return model_decode(value, &record->least) && model_decode(value, &record->greatest);
    td_model_name_set(&record->least, td_model_name_slice(&model));
    td_model_name_set(&record->greatest, td_model_name_slice(&model));
    return true;
}

tandem_err td_document_decode(tandem_slice value, td_document_record *record)
{
    td_document_info *info = &record->info;
    uint8_t flags;

    memset(record, 0, sizeof(*record));
    if (!bytes_decode(&value, &flags, 1) || flags > FLAGS ||
        ((flags & ORIGIN_OF_EPOCH) && !(flags & CREATED)))
        return TANDEM_E_CORRUPT;
    info->known = true;
    info->created = flags & CREATED;
    info->deleted = flags & DELETED;
    if (!td_varint_get(&value, &info->operations) || !td_varint_get(&value, &info->last_ordinal) ||
        !td_varint_get(&value, &info->last_seq) ||
        (!(flags & ORIGIN_OF_EPOCH) &&
         !bytes_decode(&value, info->last_origin, sizeof(info->last_origin))) ||
        (info->created && !bytes_decode(&value, info->epoch.bytes, sizeof(info->epoch.bytes))) ||
        !models_decode(&value, flags & ONE_MODEL, record) || value.size)
        return TANDEM_E_CORRUPT;
    if (flags & ORIGIN_OF_EPOCH)
        memcpy(info->last_origin, epoch_origin(info), sizeof(info->last_origin));
    td_document_derive(record);
    return TANDEM_OK;
}

size_t td_stream_encode(const td_stream_record *record, uint8_t out[TD_STREAM_RECORD_BYTES_MAX])
{
    uint8_t *at = out;

    *at++ = record->marked;
    at += td_varint_put(at, record->count);
    if (record->marked) {
        memcpy(at, record->mark.bytes, sizeof(record->mark.bytes));
        at += sizeof(record->mark.bytes);
    }
    return (size_t)(at - out);
}

tandem_err td_stream_decode(tandem_slice value, td_stream_record *record)
{
    uint8_t marked;

    memset(record, 0, sizeof(*record));
    if (!bytes_decode(&value, &marked, 1) || marked > 1 || !td_varint_get(&value, &record->count) ||
        (marked && !bytes_decode(&value, record->mark.bytes, sizeof(record->mark.bytes))) ||
        value.size)
        return TANDEM_E_CORRUPT;
    record->marked = marked;
    return TANDEM_OK;
}
