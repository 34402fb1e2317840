#include "transport/wire.h"

#include <assert.h>
#include <string.h>

#include <xxhash.h>

#include "store/bytes.h"

enum {
    /* msgpack headers, where a place is reserved and filled in later. */
    FORM_ARRAY32 = 0xdd,
    ARRAY32_BYTES = 5,
    FORM_NIL = 0xc0,
    FORM_FALSE = 0xc2,
    FORM_TRUE = 0xc3,
    FORM_UINT64 = 0xcf,
    FORM_FIXARRAY = 0x90, /* up to 15 items in the lower half */
    FIXARRAY_ITEMS_MAX = 15,
    SUM_BYTES = 9,
    /* Items that this version knows of each array; more are skipped, fewer are an error. */
    HELLO_ITEMS = 10, /* the instance behind them may be missing, and the shares behind that */
    HELLO_ITEMS_WITH_SHARES = 13, /* a sum ends it: of twelve, the last one is no share */
    HELLO_ITEMS_ANY_MAJOR = 4,
    LIMIT_ITEMS = 3,
    SHARES_ITEMS = 2,
    HAVE_ITEMS = 7,
    HAVE_ALL_ITEMS = 2,
    DIGEST_ITEMS = 2, /* the number of origins behind them may be missing */
    DIGEST_ITEMS_WITH_ORIGINS = 3,
    RANGES_ITEMS = 3,
    VECTOR_ITEMS = 6,
    ORIGIN_ITEMS = 2,
    HEAD_ITEMS = 2,
    REFUSED_ITEMS = 6,
    JOBS_ITEMS = 4,
    ACK_ITEMS = 4,
    EXCEPTION_ITEMS = 3,
    PULL_ITEMS = 3,
    PULL_COLLECTION_ITEMS = 2,
    RANGE_ITEMS = 3,
    ERROR_ITEMS = 5,
    COVER_ITEMS = 3,
    PACKED_ITEMS = 4,
    COVER_COLLECTION_ITEMS = 2,
};

/* ---- Reading ---- */

/*
 * Enter the next array of list: out reads its items, list stands behind it. So whatever a later
 * minor version appends to an array is skipped without being looked at.
 */
static bool array_enter(tandem_reader *list, uint32_t *count_out, tandem_reader *out)
{
    tandem_slice whole;

    if (tandem_read_skip(list, &whole) != TANDEM_OK)
        return false;
    *out = tandem_reader_of(whole);
    return tandem_read_array(out, count_out) == TANDEM_OK;
}

/* The same for an array of fixed positions, of which this version knows items. */
static bool tuple_enter(tandem_reader *list, uint32_t items, tandem_reader *out)
{
    uint32_t count;

    return array_enter(list, &count, out) && count >= items;
}

static bool read_uint(tandem_reader *reader, uint64_t *out)
{
    return tandem_read_uint(reader, out) == TANDEM_OK;
}

static bool read_fixed(tandem_reader *reader, size_t size, const uint8_t **out)
{
    tandem_slice bytes;

    if (tandem_read_binary(reader, &bytes) != TANDEM_OK || bytes.size != size)
        return false;
    *out = bytes.bytes;
    return true;
}

static bool read_fixed_copy(tandem_reader *reader, size_t size, uint8_t *out)
{
    const uint8_t *bytes;

    if (!read_fixed(reader, size, &bytes))
        return false;
    memcpy(out, bytes, size);
    return true;
}

static bool read_name(tandem_reader *reader, tandem_slice *out)
{
    return tandem_read_string(reader, out) == TANDEM_OK && td_name_valid(*out);
}

static bool read_text(tandem_reader *reader, tandem_slice *out)
{
    return tandem_read_string(reader, out) == TANDEM_OK && out->size <= TD_WIRE_TEXT_BYTES_MAX;
}

/* An error is a negative number; which ones there are is not for this version alone to say. */
static bool read_error(tandem_reader *reader, int64_t *out)
{
    return tandem_read_int(reader, out) == TANDEM_OK && *out < 0;
}

/* The reason of a lack is an error, or 0. */
static bool read_reason(tandem_reader *reader, int64_t *out)
{
    return tandem_read_int(reader, out) == TANDEM_OK && *out <= 0;
}

static bool read_sequence_range(tandem_reader *reader, const uint8_t **origin, uint64_t *first,
                                uint64_t *last)
{
    return read_fixed(reader, TANDEM_ORIGIN_BYTES, origin) && read_uint(reader, first) &&
           read_uint(reader, last) && *first >= 1 && *first <= *last;
}

static bool read_features(tandem_reader *message, td_wire_hello *out)
{
    tandem_reader each;
    tandem_slice feature;

    if (!array_enter(message, &out->feature_count, &out->features))
        return false;
    each = out->features;
    for (uint32_t i = 0; i < out->feature_count; i++)
        if (!read_text(&each, &feature))
            return false;
    return true;
}

static bool read_limits(tandem_reader *message, td_wire_hello *out)
{
    tandem_reader limits;

    return tuple_enter(message, LIMIT_ITEMS, &limits) && read_uint(&limits, &out->message_bytes) &&
           read_uint(&limits, &out->window_bytes) && read_uint(&limits, &out->window_jobs) &&
           out->message_bytes >= TD_MESSAGE_BYTES_MIN;
}

/* nil, as if there was nothing: it does not say. */
static bool read_shares(tandem_reader *message, td_wire_hello *out)
{
    tandem_reader shares;

    out->has_shares = *message->at != FORM_NIL;
    if (!out->has_shares)
        return tandem_read_skip(message, NULL) == TANDEM_OK;
    return tuple_enter(message, SHARES_ITEMS, &shares) &&
           tandem_read_skip(&shares, &out->gives) == TANDEM_OK &&
           tandem_read_skip(&shares, &out->takes) == TANDEM_OK &&
           td_share_check(out->gives) == TANDEM_OK && td_share_check(out->takes) == TANDEM_OK;
}

static bool read_hello(tandem_reader *message, uint32_t count, td_wire_hello *out)
{
    *out = (td_wire_hello){.major = 0};
    if (count < HELLO_ITEMS_ANY_MAJOR || !read_uint(message, &out->major) ||
        !read_uint(message, &out->minor))
        return false;
    /* What another major version says after this is not known; that it is another must be. */
    if (out->major != TD_WIRE_MAJOR)
        return true;
    out->sums = count > HELLO_ITEMS + 1;
    return count >= HELLO_ITEMS && read_fixed_copy(message, TANDEM_ORIGIN_BYTES, out->reactor) &&
           read_fixed_copy(message, TANDEM_ORIGIN_BYTES, out->origin) &&
           read_uint(message, &out->clock) && read_features(message, out) &&
           read_limits(message, out) && read_text(message, &out->agent) &&
           (count == HELLO_ITEMS ||
            read_fixed_copy(message, TD_WIRE_INSTANCE_BYTES, out->instance)) &&
           (count < HELLO_ITEMS_WITH_SHARES || read_shares(message, out));
}

static bool read_have(tandem_reader *message, uint32_t count, td_wire_have *out)
{
    tandem_reader all;
    uint64_t level;

    *out = (td_wire_have){.level = TD_HAVE_ALL};
    if (count < HAVE_ITEMS || !read_uint(message, &out->clock) ||
        !read_uint(message, &out->promise) || !read_uint(message, &level) ||
        level > TD_HAVE_RANGES || tandem_read_bool(message, &out->more) != TANDEM_OK)
        return false;
    out->level = (td_have_level)level;
    if (out->level != TD_HAVE_ALL)
        return array_enter(message, &out->entry_count, &out->entries);
    return tuple_enter(message, HAVE_ALL_ITEMS, &all) && read_uint(&all, &out->collections) &&
           read_fixed_copy(&all, TANDEM_HASH_BYTES, out->digest);
}

/* They are most of all bytes: where they end is not looked for, nobody reads what follows them. */
static bool read_jobs(tandem_reader *message, uint32_t count, td_wire_jobs *out)
{
    if (count < JOBS_ITEMS || !read_uint(message, &out->first_job) || out->first_job < 1 ||
        tandem_read_array(message, &out->job_count) != TANDEM_OK)
        return false;
    out->jobs = *message;
    return true;
}

static bool read_ack(tandem_reader *message, uint32_t count, td_wire_ack *out)
{
    return count >= ACK_ITEMS && read_uint(message, &out->done) &&
           array_enter(message, &out->exception_count, &out->exceptions);
}

static bool read_pull(tandem_reader *message, uint32_t count, td_wire_pull *out)
{
    return count >= PULL_ITEMS &&
           array_enter(message, &out->collection_count, &out->collections);
}

static bool read_cover(tandem_reader *message, uint32_t count, td_wire_cover *out)
{
    return count >= COVER_ITEMS &&
           array_enter(message, &out->collection_count, &out->collections);
}

static bool read_packed(tandem_reader *message, uint32_t count, td_wire_packed *out)
{
    return count >= PACKED_ITEMS && read_uint(message, &out->bytes) && out->bytes >= 1 &&
           out->bytes <= TD_MESSAGE_BYTES_MAX &&
           tandem_read_binary(message, &out->frame) == TANDEM_OK;
}

static bool read_error_message(tandem_reader *message, uint32_t count, td_wire_error *out)
{
    return count >= ERROR_ITEMS && read_error(message, &out->err) &&
           read_text(message, &out->text) && read_uint(message, &out->retry_after_ms);
}

static bool read_body(tandem_reader *message, uint32_t count, td_wire_message *out)
{
    switch (out->type) {
    case TD_WIRE_HELLO:
        return read_hello(message, count, &out->as.hello);
    case TD_WIRE_HAVE:
        return read_have(message, count, &out->as.have);
    case TD_WIRE_JOBS:
        return read_jobs(message, count, &out->as.jobs);
    case TD_WIRE_ACK:
        return read_ack(message, count, &out->as.ack);
    case TD_WIRE_PULL:
        return read_pull(message, count, &out->as.pull);
    case TD_WIRE_ERROR:
        return read_error_message(message, count, &out->as.error);
    case TD_WIRE_COVER:
        return read_cover(message, count, &out->as.cover);
    case TD_WIRE_PACKED:
        return read_packed(message, count, &out->as.packed);
    default:
        return true;
    }
}

tandem_err td_wire_read(tandem_slice bytes, td_wire_message *out)
{
    tandem_reader reader = tandem_reader_of(bytes);
    td_wire_message message = {.type = 0};
    tandem_err err = td_wire_validate(bytes);
    uint32_t count;

    if (err != TANDEM_OK)
        return err;
    if (tandem_read_array(&reader, &count) != TANDEM_OK || !read_uint(&reader, &message.type) ||
        !read_uint(&reader, &message.number) || !read_body(&reader, count, &message))
        return TANDEM_E_PROTOCOL;
    *out = message;
    return TANDEM_OK;
}

tandem_err td_wire_read_digest(tandem_reader *entries, td_wire_digest *out)
{
    tandem_reader ahead = *entries;
    tandem_reader entry;
    td_wire_digest found = {.has_digest = false};

    if (!tuple_enter(&ahead, DIGEST_ITEMS, &entry) || !read_name(&entry, &found.name))
        return TANDEM_E_PROTOCOL;
    /* The entry is whole and has a second item: there is a byte to look at. */
    found.has_digest = *entry.at != FORM_NIL;
    if (!(found.has_digest ? read_fixed_copy(&entry, TANDEM_HASH_BYTES, found.digest)
                           : tandem_read_skip(&entry, NULL) == TANDEM_OK) ||
        (tandem_reader_left(&entry) && !read_uint(&entry, &found.origins)))
        return TANDEM_E_PROTOCOL;
    *out = found;
    *entries = ahead;
    return TANDEM_OK;
}

tandem_err td_wire_read_ranges(tandem_reader *entries, td_wire_ranges *out)
{
    tandem_reader ahead = *entries;
    tandem_reader entry;
    td_wire_ranges found = {.has_name = false};
    tandem_slice bytes;
    uint64_t bits;

    if (!tuple_enter(&ahead, RANGES_ITEMS, &entry))
        return TANDEM_E_PROTOCOL;
    found.has_name = *entry.at != FORM_NIL;
    if (!(found.has_name ? read_name(&entry, &found.name)
                         : tandem_read_skip(&entry, NULL) == TANDEM_OK) ||
        !read_uint(&entry, &bits) || bits < TD_RANGE_BITS_MIN || bits > TD_RANGE_BITS_MAX ||
        tandem_read_binary(&entry, &bytes) != TANDEM_OK)
        return TANDEM_E_PROTOCOL;
    found.bits = (unsigned)bits;
    found.is_answer = bytes.size == td_range_bitmap_bytes(found.bits);
    if (!found.is_answer && bytes.size != td_range_digests_bytes(found.bits))
        return TANDEM_E_PROTOCOL;
    found.bytes = bytes.bytes;
    *out = found;
    *entries = ahead;
    return TANDEM_OK;
}

tandem_err td_wire_read_vector(tandem_reader *entries, td_wire_vector *out)
{
    tandem_reader ahead = *entries;
    tandem_reader entry;
    td_wire_vector found = {.has_filter = false};

    if (!tuple_enter(&ahead, VECTOR_ITEMS, &entry) || !read_name(&entry, &found.name) ||
        tandem_read_skip(&entry, &found.filter) != TANDEM_OK ||
        tandem_read_bool(&entry, &found.begin) != TANDEM_OK ||
        tandem_read_bool(&entry, &found.end) != TANDEM_OK ||
        !array_enter(&entry, &found.origin_count, &found.origins) ||
        !array_enter(&entry, &found.refused_count, &found.refused))
        return TANDEM_E_PROTOCOL;
    found.has_filter = found.filter.bytes[0] != FORM_NIL;
    if (td_filter_check(found.filter) != TANDEM_OK)
        return TANDEM_E_PROTOCOL;
    *out = found;
    *entries = ahead;
    return TANDEM_OK;
}

static bool read_head(tandem_reader *heads, td_head *out)
{
    tandem_reader head;

    return tuple_enter(heads, HEAD_ITEMS, &head) && read_uint(&head, &out->seq) && out->seq >= 1 &&
           read_fixed_copy(&head, TANDEM_HASH_BYTES, out->hash);
}

static bool head_before(const td_head *a, const td_head *b)
{
    return a->seq < b->seq ||
           (a->seq == b->seq && memcmp(a->hash, b->hash, TANDEM_HASH_BYTES) < 0);
}

tandem_err td_wire_read_origin(tandem_reader *origins, td_wire_origin *out)
{
    tandem_reader ahead = *origins;
    tandem_reader entry, heads;
    td_wire_origin found;
    uint32_t count;

    if (!tuple_enter(&ahead, ORIGIN_ITEMS, &entry) ||
        !read_fixed(&entry, TANDEM_ORIGIN_BYTES, &found.origin) ||
        !array_enter(&entry, &count, &heads) || count > TANDEM_HEADS_MAX)
        return TANDEM_E_PROTOCOL;
    found.head_count = count;
    for (uint32_t i = 0; i < count; i++)
        if (!read_head(&heads, &found.heads[i]) ||
            (i && !head_before(&found.heads[i - 1], &found.heads[i])))
            return TANDEM_E_PROTOCOL;
    out->origin = found.origin;
    out->head_count = found.head_count;
    memcpy(out->heads, found.heads, count * sizeof(found.heads[0]));
    *origins = ahead;
    return TANDEM_OK;
}

tandem_err td_wire_read_refused(tandem_reader *refused, td_wire_refused *out)
{
    tandem_reader ahead = *refused;
    tandem_reader entry;
    td_wire_refused found;

    if (!tuple_enter(&ahead, REFUSED_ITEMS, &entry) ||
        !read_sequence_range(&entry, &found.origin, &found.first, &found.last) ||
        !read_fixed(&entry, TANDEM_HASH_BYTES, &found.hash) ||
        !read_reason(&entry, &found.reason) ||
        !read_fixed(&entry, TANDEM_HASH_BYTES, &found.predecessor))
        return TANDEM_E_PROTOCOL;
    *out = found;
    *refused = ahead;
    return TANDEM_OK;
}

tandem_err td_wire_read_job(tandem_reader *jobs, uint32_t *operations_out)
{
    tandem_reader ahead = *jobs;
    uint32_t count;

    if (tandem_read_array(&ahead, &count) != TANDEM_OK || count < 1 ||
        count > TANDEM_JOB_OPERATIONS_MAX)
        return TANDEM_E_PROTOCOL;
    *operations_out = count;
    *jobs = ahead;
    return TANDEM_OK;
}

tandem_err td_wire_read_operation(tandem_reader *jobs, tandem_slice *canonical_out)
{
    if (tandem_read_binary(jobs, canonical_out) != TANDEM_OK)
        return TANDEM_E_PROTOCOL;
    return TANDEM_OK;
}

tandem_err td_wire_read_exception(tandem_reader *exceptions, td_wire_exception *out)
{
    tandem_reader ahead = *exceptions;
    tandem_reader entry;
    td_wire_exception found;

    if (!tuple_enter(&ahead, EXCEPTION_ITEMS, &entry) || !read_uint(&entry, &found.job) ||
        found.job < 1 || !read_error(&entry, &found.err) || !read_uint(&entry, &found.detail))
        return TANDEM_E_PROTOCOL;
    *out = found;
    *exceptions = ahead;
    return TANDEM_OK;
}

tandem_err td_wire_read_pull_collection(tandem_reader *collections, td_wire_pull_collection *out)
{
    tandem_reader ahead = *collections;
    tandem_reader entry;
    td_wire_pull_collection found;

    if (!tuple_enter(&ahead, PULL_COLLECTION_ITEMS, &entry) || !read_name(&entry, &found.name) ||
        !array_enter(&entry, &found.range_count, &found.ranges))
        return TANDEM_E_PROTOCOL;
    *out = found;
    *collections = ahead;
    return TANDEM_OK;
}

tandem_err td_wire_read_range(tandem_reader *ranges, td_wire_range *out)
{
    tandem_reader ahead = *ranges;
    tandem_reader entry;
    td_wire_range found;

    if (!tuple_enter(&ahead, RANGE_ITEMS, &entry) ||
        !read_sequence_range(&entry, &found.origin, &found.first, &found.last))
        return TANDEM_E_PROTOCOL;
    *out = found;
    *ranges = ahead;
    return TANDEM_OK;
}

/* What is covered is covered up to something. */
static bool all_have_heads(tandem_reader origins, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        td_wire_origin origin;

        if (td_wire_read_origin(&origins, &origin) != TANDEM_OK || !origin.head_count)
            return false;
    }
    return true;
}

tandem_err td_wire_read_cover_collection(tandem_reader *collections,
                                         td_wire_cover_collection *out)
{
    tandem_reader ahead = *collections;
    tandem_reader entry;
    td_wire_cover_collection found;

    if (!tuple_enter(&ahead, COVER_COLLECTION_ITEMS, &entry) ||
        !read_name(&entry, &found.name) ||
        !array_enter(&entry, &found.origin_count, &found.origins) ||
        !all_have_heads(found.origins, found.origin_count))
        return TANDEM_E_PROTOCOL;
    *out = found;
    *collections = ahead;
    return TANDEM_OK;
}

bool td_wire_offers(const td_wire_hello *hello, const char *feature)
{
    tandem_reader each = hello->features;
    tandem_slice name;

    for (uint32_t i = 0; i < hello->feature_count; i++)
        if (tandem_read_string(&each, &name) == TANDEM_OK &&
            tandem_slice_equal(name, tandem_slice_text(feature)))
            return true;
    return false;
}

/* ---- Writing ---- */

static void write_head(tandem_writer *out, uint32_t items, td_wire_type type, uint64_t number)
{
    assert(number >= 1);
    tandem_write_array(out, items);
    tandem_write_uint(out, type);
    tandem_write_uint(out, number);
}

/* The header of an array whose count is not known yet: always the widest form, so that it can be
 * filled in without moving what follows. */
static size_t reserve_count(tandem_writer *out)
{
    static const uint8_t header[ARRAY32_BYTES] = {FORM_ARRAY32};
    size_t at = out->size;

    tandem_write_raw(out, tandem_slice_of(header, sizeof(header)));
    return at;
}

static size_t reserve_bool(tandem_writer *out)
{
    size_t at = out->size;

    tandem_write_bool(out, false);
    return at;
}

static void write_origin(tandem_writer *out, const uint8_t *origin)
{
    tandem_write_binary(out, tandem_slice_of(origin, TANDEM_ORIGIN_BYTES));
}

static void write_hash(tandem_writer *out, const uint8_t *hash)
{
    tandem_write_binary(out, tandem_slice_of(hash, TANDEM_HASH_BYTES));
}

/* A text cut to what the wire carries, before a character rather than within one. */
static tandem_slice text_fitting(const char *text)
{
    tandem_slice slice = tandem_slice_text(text);

    if (slice.size <= TD_WIRE_TEXT_BYTES_MAX)
        return slice;
    slice.size = TD_WIRE_TEXT_BYTES_MAX;
    while (slice.size && (slice.bytes[slice.size] & 0xc0) == 0x80)
        slice.size--;
    return slice;
}

/* ---- The sum ---- */

void td_wire_seal(tandem_writer *out, size_t start)
{
    uint8_t item[SUM_BYTES] = {FORM_UINT64};

    if (tandem_writer_err(out) != TANDEM_OK)
        return;
    assert((out->bytes[start] & 0xf0) == FORM_FIXARRAY &&
           (out->bytes[start] & 0x0f) < FIXARRAY_ITEMS_MAX);
    out->bytes[start]++;
    td_put_u64(item + 1, XXH3_64bits(out->bytes + start, out->size - start));
    tandem_write_raw(out, tandem_slice_of(item, sizeof(item)));
}

bool td_wire_has_seal(tandem_slice message)
{
    return message.size > SUM_BYTES && message.bytes[message.size - SUM_BYTES] == FORM_UINT64;
}

bool td_wire_is_sealed(tandem_slice message)
{
    size_t size = message.size - SUM_BYTES;

    return td_wire_has_seal(message) &&
           td_get_u64(message.bytes + size + 1) == XXH3_64bits(message.bytes, size);
}

/* ---- Messages ---- */

void td_wire_write_hello(tandem_writer *out, uint64_t number, const td_wire_hello *hello,
                         const char *const *features, uint32_t feature_count)
{
    static const uint8_t none[TD_WIRE_INSTANCE_BYTES];
    bool has_instance = memcmp(hello->instance, none, sizeof(none)) != 0;

    assert(hello->agent.size <= TD_WIRE_TEXT_BYTES_MAX);
    assert(hello->message_bytes >= TD_MESSAGE_BYTES_MIN);
    assert(has_instance || !hello->has_shares);
    write_head(out, HELLO_ITEMS + has_instance + hello->has_shares, TD_WIRE_HELLO, number);
    tandem_write_uint(out, hello->major);
    tandem_write_uint(out, hello->minor);
    write_origin(out, hello->reactor);
    write_origin(out, hello->origin);
    tandem_write_uint(out, hello->clock);
    tandem_write_array(out, feature_count);
    for (uint32_t i = 0; i < feature_count; i++) {
        assert(strlen(features[i]) <= TD_WIRE_TEXT_BYTES_MAX);
        tandem_write_text(out, features[i]);
    }
    tandem_write_array(out, LIMIT_ITEMS);
    tandem_write_uint(out, hello->message_bytes);
    tandem_write_uint(out, hello->window_bytes);
    tandem_write_uint(out, hello->window_jobs);
    tandem_write_string(out, hello->agent);
    if (has_instance)
        tandem_write_binary(out, tandem_slice_of(hello->instance, sizeof(hello->instance)));
    if (hello->has_shares) {
        tandem_write_array(out, SHARES_ITEMS);
        tandem_write_raw(out, hello->gives);
        tandem_write_raw(out, hello->takes);
    }
}

void td_wire_write_ack(tandem_writer *out, uint64_t number, uint64_t done,
                       const td_wire_exception *exceptions, uint32_t count)
{
    write_head(out, ACK_ITEMS, TD_WIRE_ACK, number);
    tandem_write_uint(out, done);
    tandem_write_array(out, count);
    for (uint32_t i = 0; i < count; i++) {
        assert(exceptions[i].job >= 1 && exceptions[i].job <= done && exceptions[i].err < 0);
        tandem_write_array(out, EXCEPTION_ITEMS);
        tandem_write_uint(out, exceptions[i].job);
        tandem_write_int(out, exceptions[i].err);
        tandem_write_uint(out, exceptions[i].detail);
    }
}

void td_wire_write_packed(tandem_writer *out, uint64_t number, uint64_t bytes, tandem_slice frame)
{
    assert(bytes >= 1 && bytes <= TD_MESSAGE_BYTES_MAX);
    write_head(out, PACKED_ITEMS, TD_WIRE_PACKED, number);
    tandem_write_uint(out, bytes);
    tandem_write_binary(out, frame);
}

void td_wire_write_error(tandem_writer *out, uint64_t number, tandem_err err, const char *text,
                         uint64_t retry_after_ms)
{
    assert(err < 0);
    write_head(out, ERROR_ITEMS, TD_WIRE_ERROR, number);
    tandem_write_int(out, err);
    tandem_write_string(out, text_fitting(text));
    tandem_write_uint(out, retry_after_ms);
}

static size_t write_have_head(tandem_writer *out, uint64_t number, uint64_t clock, uint64_t promise,
                              td_have_level level)
{
    write_head(out, HAVE_ITEMS, TD_WIRE_HAVE, number);
    tandem_write_uint(out, clock);
    tandem_write_uint(out, promise);
    tandem_write_uint(out, level);
    return reserve_bool(out);
}

void td_wire_write_have_all(tandem_writer *out, uint64_t number, uint64_t clock, uint64_t promise,
                            uint64_t collections, const uint8_t digest[TANDEM_HASH_BYTES])
{
    write_have_head(out, number, clock, promise, TD_HAVE_ALL);
    tandem_write_array(out, HAVE_ALL_ITEMS);
    tandem_write_uint(out, collections);
    write_hash(out, digest);
}

size_t td_wire_begin_have(tandem_writer *out, uint64_t number, uint64_t clock, uint64_t promise,
                          td_have_level level, size_t *more_at_out)
{
    size_t more_at;

    assert(level == TD_HAVE_DIGESTS || level == TD_HAVE_VECTORS || level == TD_HAVE_RANGES);
    more_at = write_have_head(out, number, clock, promise, level);
    if (more_at_out)
        *more_at_out = more_at;
    return reserve_count(out);
}

void td_wire_write_digest(tandem_writer *out, tandem_slice name,
                          const uint8_t digest[TANDEM_HASH_BYTES], uint64_t origins)
{
    tandem_write_array(out, origins ? DIGEST_ITEMS_WITH_ORIGINS : DIGEST_ITEMS);
    tandem_write_string(out, name);
    if (digest)
        write_hash(out, digest);
    else
        tandem_write_nil(out);
    if (origins)
        tandem_write_uint(out, origins);
}

void td_wire_write_ranges(tandem_writer *out, const td_wire_ranges *ranges)
{
    assert(ranges->bits >= TD_RANGE_BITS_MIN && ranges->bits <= TD_RANGE_BITS_MAX);
    tandem_write_array(out, RANGES_ITEMS);
    if (ranges->has_name)
        tandem_write_string(out, ranges->name);
    else
        tandem_write_nil(out);
    tandem_write_uint(out, ranges->bits);
    tandem_write_binary(out, tandem_slice_of(ranges->bytes,
                                             ranges->is_answer
                                                 ? td_range_bitmap_bytes(ranges->bits)
                                                 : td_range_digests_bytes(ranges->bits)));
}

static const uint8_t no_filter[] = {FORM_NIL};

static size_t begin_entry(tandem_writer *out, tandem_slice name, tandem_slice filter, bool begin,
                          size_t *end_at_out)
{
    size_t end_at;

    tandem_write_array(out, VECTOR_ITEMS);
    tandem_write_string(out, name);
    tandem_write_raw(out, filter);
    tandem_write_bool(out, begin);
    end_at = reserve_bool(out);
    if (end_at_out)
        *end_at_out = end_at;
    return reserve_count(out);
}

size_t td_wire_begin_vector(tandem_writer *out, tandem_slice name, bool begin, size_t *end_at_out)
{
    return begin_entry(out, name, tandem_slice_of(no_filter, sizeof(no_filter)), begin,
                       end_at_out);
}

size_t td_wire_begin_pair(tandem_writer *out, tandem_slice name, tandem_slice filter)
{
    assert(filter.bytes[0] != FORM_NIL);
    return begin_entry(out, name, filter, false, NULL);
}

void td_wire_write_origin(tandem_writer *out, const uint8_t *origin, const td_head *heads,
                          unsigned count)
{
    assert(count <= TANDEM_HEADS_MAX);
    tandem_write_array(out, ORIGIN_ITEMS);
    write_origin(out, origin);
    tandem_write_array(out, count);
    for (unsigned i = 0; i < count; i++) {
        assert(heads[i].seq >= 1 && (i == 0 || head_before(&heads[i - 1], &heads[i])));
        tandem_write_array(out, HEAD_ITEMS);
        tandem_write_uint(out, heads[i].seq);
        write_hash(out, heads[i].hash);
    }
}

void td_wire_end_vector(tandem_writer *out)
{
    tandem_write_array(out, 0);
}

size_t td_wire_begin_refused(tandem_writer *out)
{
    return reserve_count(out);
}

void td_wire_write_refused(tandem_writer *out, const td_wire_refused *refused)
{
    assert(refused->first >= 1 && refused->first <= refused->last && refused->reason <= 0);
    tandem_write_array(out, REFUSED_ITEMS);
    write_origin(out, refused->origin);
    tandem_write_uint(out, refused->first);
    tandem_write_uint(out, refused->last);
    write_hash(out, refused->hash);
    tandem_write_int(out, refused->reason);
    write_hash(out, refused->predecessor);
}

size_t td_wire_begin_jobs(tandem_writer *out, uint64_t number, uint64_t first_job)
{
    assert(first_job >= 1);
    write_head(out, JOBS_ITEMS, TD_WIRE_JOBS, number);
    tandem_write_uint(out, first_job);
    return reserve_count(out);
}

void td_wire_write_job(tandem_writer *out, uint32_t operations)
{
    assert(operations >= 1 && operations <= TANDEM_JOB_OPERATIONS_MAX);
    tandem_write_array(out, operations);
}

void td_wire_write_operation(tandem_writer *out, tandem_slice canonical)
{
    tandem_write_binary(out, canonical);
}

size_t td_wire_begin_pull(tandem_writer *out, uint64_t number)
{
    write_head(out, PULL_ITEMS, TD_WIRE_PULL, number);
    return reserve_count(out);
}

size_t td_wire_begin_pull_collection(tandem_writer *out, tandem_slice name)
{
    tandem_write_array(out, PULL_COLLECTION_ITEMS);
    tandem_write_string(out, name);
    return reserve_count(out);
}

void td_wire_write_range(tandem_writer *out, const uint8_t *origin, uint64_t first, uint64_t last)
{
    assert(first >= 1 && first <= last);
    tandem_write_array(out, RANGE_ITEMS);
    write_origin(out, origin);
    tandem_write_uint(out, first);
    tandem_write_uint(out, last);
}

size_t td_wire_begin_cover(tandem_writer *out, uint64_t number)
{
    write_head(out, COVER_ITEMS, TD_WIRE_COVER, number);
    return reserve_count(out);
}

size_t td_wire_begin_cover_collection(tandem_writer *out, tandem_slice name)
{
    tandem_write_array(out, COVER_COLLECTION_ITEMS);
    tandem_write_string(out, name);
    return reserve_count(out);
}

void td_wire_patch_count(tandem_writer *out, size_t at, uint32_t count)
{
    if (tandem_writer_err(out) != TANDEM_OK)
        return;
    assert(at + ARRAY32_BYTES <= out->size && out->bytes[at] == FORM_ARRAY32);
    td_put_u32(out->bytes + at + 1, count);
}

void td_wire_patch_bool(tandem_writer *out, size_t at, bool value)
{
    if (tandem_writer_err(out) != TANDEM_OK)
        return;
    assert(at < out->size && (out->bytes[at] == FORM_FALSE || out->bytes[at] == FORM_TRUE));
    out->bytes[at] = value ? FORM_TRUE : FORM_FALSE;
}
