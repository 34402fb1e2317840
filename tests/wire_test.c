/*
 * The wire codec against its test vectors, both ways (bytes to fields, fields to bytes), and every
 * invalid message refused at the earliest stage that can tell.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/glob.h"
#include "transport/wire.h"

#ifndef TANDEM_VECTORS_DIR
#define TANDEM_VECTORS_DIR "tests/vectors"
#endif

enum { HEX_BYTES_MAX = 16 * 1024 };

#define JSON_EXACT_MAX ((uint64_t)1 << 53) /* from here on numbers are strings */

/* ---- Bytes and numbers in JSON ---- */

static json_t *member(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);

    if (!value)
        fail_msg("a vector has no %s", key);
    return value;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(member(object, key));

    if (!text)
        fail_msg("%s of a vector is no string", key);
    return text;
}

static uint64_t number_of(const json_t *object, const char *key)
{
    const json_t *value = member(object, key);

    if (json_is_string(value))
        return strtoull(json_string_value(value), NULL, 10);
    assert_true(json_is_integer(value));
    return (uint64_t)json_integer_value(value);
}

static bool bool_of(const json_t *object, const char *key)
{
    return json_is_true(member(object, key));
}

static unsigned nibble(char digit)
{
    const char *digits = "0123456789abcdef";
    const char *at = strchr(digits, digit);

    assert_true(at && *at);
    return (unsigned)(at - digits);
}

/* Bytes of hex, in memory of exactly their size, so that a sanitizer sees the first byte too far.
 * The caller frees them. */
static uint8_t *unhex(const char *hex, size_t *size_out)
{
    size_t size = strlen(hex) / 2;
    uint8_t *bytes = malloc(size ? size : 1);

    assert_non_null(bytes);
    assert_int_equal(strlen(hex) % 2, 0);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
    *size_out = size;
    return bytes;
}

static void unhex_into(const char *hex, uint8_t *out, size_t size)
{
    size_t actual;
    uint8_t *bytes = unhex(hex, &actual);

    assert_int_equal(size, actual);
    memcpy(out, bytes, size);
    free(bytes);
}

static void fixed_of(const json_t *object, const char *key, uint8_t *out, size_t size)
{
    unhex_into(text_of(object, key), out, size);
}

static json_t *hex_json(const uint8_t *bytes, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    char text[2 * HEX_BYTES_MAX];

    assert_true(size <= HEX_BYTES_MAX);
    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    return json_stringn(text, 2 * size);
}

static json_t *number_json(uint64_t value)
{
    char text[24];

    if (value < JSON_EXACT_MAX)
        return json_integer((json_int_t)value);
    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    return json_string(text);
}

static json_t *string_json(tandem_slice text)
{
    json_t *json = json_stringn((const char *)text.bytes, text.size);

    assert_non_null(json);
    return json;
}

static void put(json_t *object, const char *key, json_t *value)
{
    assert_int_equal(0, json_object_set_new(object, key, value));
}

static json_t *put_array(json_t *object, const char *key)
{
    json_t *array = json_array();

    put(object, key, array);
    return array;
}

static json_t *append_object(json_t *array)
{
    json_t *object = json_object();

    assert_int_equal(0, json_array_append_new(array, object));
    return object;
}

static json_t *vectors(const json_t **section_out, const char *section)
{
    json_error_t why;
    json_t *all = json_load_file(TANDEM_VECTORS_DIR "/wire.json", JSON_REJECT_DUPLICATES, &why);

    if (!all)
        fail_msg("%s:%d: %s", why.source, why.line, why.text);
    *section_out = member(all, section);
    assert_true(json_array_size(*section_out) > 0);
    return all;
}

/* ---- A message as JSON ---- */

static void hello_json(const td_wire_hello *hello, json_t *out)
{
    static const uint8_t none[TD_WIRE_INSTANCE_BYTES];
    tandem_reader each = hello->features;
    json_t *features, *limits;
    tandem_slice feature;

    put(out, "major", number_json(hello->major));
    put(out, "minor", number_json(hello->minor));
    if (hello->major != TD_WIRE_MAJOR)
        return;
    put(out, "reactor", hex_json(hello->reactor, sizeof(hello->reactor)));
    put(out, "origin", hex_json(hello->origin, sizeof(hello->origin)));
    put(out, "clock", number_json(hello->clock));
    features = put_array(out, "features");
    for (uint32_t i = 0; i < hello->feature_count; i++) {
        assert_int_equal(TANDEM_OK, tandem_read_string(&each, &feature));
        json_array_append_new(features, string_json(feature));
    }
    limits = json_object();
    put(out, "limits", limits);
    put(limits, "message_bytes", number_json(hello->message_bytes));
    put(limits, "window_bytes", number_json(hello->window_bytes));
    put(limits, "window_jobs", number_json(hello->window_jobs));
    put(out, "agent", string_json(hello->agent));
    if (memcmp(hello->instance, none, sizeof(none)) != 0)
        put(out, "instance", hex_json(hello->instance, sizeof(hello->instance)));
    if (hello->has_shares) {
        put(out, "gives", hex_json(hello->gives.bytes, hello->gives.size));
        put(out, "takes", hex_json(hello->takes.bytes, hello->takes.size));
    }
}

static tandem_err digests_json(const td_wire_have *have, json_t *entries)
{
    tandem_reader each = have->entries;
    td_wire_digest digest;
    tandem_err err;

    for (uint32_t i = 0; i < have->entry_count; i++) {
        json_t *entry;

        if ((err = td_wire_read_digest(&each, &digest)) != TANDEM_OK)
            return err;
        entry = append_object(entries);
        put(entry, "name", string_json(digest.name));
        put(entry, "digest",
            digest.has_digest ? hex_json(digest.digest, sizeof(digest.digest)) : json_null());
        if (digest.origins)
            put(entry, "origins", number_json(digest.origins));
    }
    return TANDEM_OK;
}

static tandem_err ranges_json(const td_wire_have *have, json_t *entries)
{
    tandem_reader each = have->entries;
    td_wire_ranges ranges;
    tandem_err err;

    for (uint32_t i = 0; i < have->entry_count; i++) {
        json_t *entry;

        if ((err = td_wire_read_ranges(&each, &ranges)) != TANDEM_OK)
            return err;
        entry = append_object(entries);
        put(entry, "name", ranges.has_name ? string_json(ranges.name) : json_null());
        put(entry, "bits", number_json(ranges.bits));
        put(entry, ranges.is_answer ? "differ" : "digests",
            hex_json(ranges.bytes, ranges.is_answer ? td_range_bitmap_bytes(ranges.bits)
                                                    : td_range_digests_bytes(ranges.bits)));
    }
    return TANDEM_OK;
}

static tandem_err origins_json(tandem_reader each, uint32_t count, json_t *origins)
{
    td_wire_origin origin;
    tandem_err err;

    for (uint32_t i = 0; i < count; i++) {
        json_t *entry, *heads;

        if ((err = td_wire_read_origin(&each, &origin)) != TANDEM_OK)
            return err;
        entry = append_object(origins);
        put(entry, "origin", hex_json(origin.origin, TANDEM_ORIGIN_BYTES));
        heads = put_array(entry, "heads");
        for (unsigned k = 0; k < origin.head_count; k++) {
            json_t *head = append_object(heads);

            put(head, "seq", number_json(origin.heads[k].seq));
            put(head, "hash", hex_json(origin.heads[k].hash, TANDEM_HASH_BYTES));
        }
    }
    return TANDEM_OK;
}

static tandem_err refused_json(const td_wire_vector *vector, json_t *list)
{
    tandem_reader each = vector->refused;
    td_wire_refused refused;
    tandem_err err;

    for (uint32_t i = 0; i < vector->refused_count; i++) {
        json_t *entry;

        if ((err = td_wire_read_refused(&each, &refused)) != TANDEM_OK)
            return err;
        entry = append_object(list);
        put(entry, "origin", hex_json(refused.origin, TANDEM_ORIGIN_BYTES));
        put(entry, "first", number_json(refused.first));
        put(entry, "last", number_json(refused.last));
        put(entry, "hash", hex_json(refused.hash, TANDEM_HASH_BYTES));
        put(entry, "reason", json_integer(refused.reason));
        put(entry, "predecessor", hex_json(refused.predecessor, TANDEM_HASH_BYTES));
    }
    return TANDEM_OK;
}

static tandem_err vectors_json(const td_wire_have *have, json_t *entries)
{
    tandem_reader each = have->entries;
    td_wire_vector vector;
    tandem_err err;

    for (uint32_t i = 0; i < have->entry_count; i++) {
        json_t *entry;

        if ((err = td_wire_read_vector(&each, &vector)) != TANDEM_OK)
            return err;
        entry = append_object(entries);
        put(entry, "name", string_json(vector.name));
        put(entry, "filter",
            vector.has_filter ? hex_json(vector.filter.bytes, vector.filter.size) : json_null());
        put(entry, "begin", json_boolean(vector.begin));
        put(entry, "end", json_boolean(vector.end));
        if ((err = origins_json(vector.origins, vector.origin_count,
                                put_array(entry, "origins"))) != TANDEM_OK ||
            (err = refused_json(&vector, put_array(entry, "refused"))) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

static tandem_err have_json(const td_wire_have *have, json_t *out)
{
    put(out, "clock", number_json(have->clock));
    put(out, "promise", number_json(have->promise));
    put(out, "level", number_json(have->level));
    put(out, "more", json_boolean(have->more));
    if (have->level == TD_HAVE_DIGESTS)
        return digests_json(have, put_array(out, "entries"));
    if (have->level == TD_HAVE_VECTORS)
        return vectors_json(have, put_array(out, "entries"));
    if (have->level == TD_HAVE_RANGES)
        return ranges_json(have, put_array(out, "entries"));
    put(out, "collections", number_json(have->collections));
    put(out, "digest", hex_json(have->digest, sizeof(have->digest)));
    return TANDEM_OK;
}

static tandem_err jobs_json(const td_wire_jobs *jobs, json_t *out)
{
    tandem_reader each = jobs->jobs;
    json_t *list = put_array(out, "jobs");
    tandem_slice operation;
    uint32_t count;
    tandem_err err;

    put(out, "first_job", number_json(jobs->first_job));
    for (uint32_t i = 0; i < jobs->job_count; i++) {
        json_t *job = json_array();

        json_array_append_new(list, job);
        if ((err = td_wire_read_job(&each, &count)) != TANDEM_OK)
            return err;
        for (uint32_t k = 0; k < count; k++) {
            if ((err = td_wire_read_operation(&each, &operation)) != TANDEM_OK)
                return err;
            json_array_append_new(job, hex_json(operation.bytes, operation.size));
        }
    }
    return TANDEM_OK;
}

static tandem_err ack_json(const td_wire_ack *ack, json_t *out)
{
    tandem_reader each = ack->exceptions;
    json_t *list = put_array(out, "exceptions");
    td_wire_exception exception;
    tandem_err err;

    put(out, "done", number_json(ack->done));
    for (uint32_t i = 0; i < ack->exception_count; i++) {
        json_t *entry;

        if ((err = td_wire_read_exception(&each, &exception)) != TANDEM_OK)
            return err;
        entry = append_object(list);
        put(entry, "job", number_json(exception.job));
        put(entry, "error", json_integer(exception.err));
        put(entry, "detail", number_json(exception.detail));
    }
    return TANDEM_OK;
}

static tandem_err pull_json(const td_wire_pull *pull, json_t *out)
{
    tandem_reader each = pull->collections;
    json_t *list = put_array(out, "collections");
    td_wire_pull_collection collection;
    td_wire_range range;
    tandem_err err;

    for (uint32_t i = 0; i < pull->collection_count; i++) {
        json_t *entry, *ranges;

        if ((err = td_wire_read_pull_collection(&each, &collection)) != TANDEM_OK)
            return err;
        entry = append_object(list);
        put(entry, "name", string_json(collection.name));
        ranges = put_array(entry, "ranges");
        for (uint32_t k = 0; k < collection.range_count; k++) {
            json_t *one;

            if ((err = td_wire_read_range(&collection.ranges, &range)) != TANDEM_OK)
                return err;
            one = append_object(ranges);
            put(one, "origin", hex_json(range.origin, TANDEM_ORIGIN_BYTES));
            put(one, "first", number_json(range.first));
            put(one, "last", number_json(range.last));
        }
    }
    return TANDEM_OK;
}

static tandem_err cover_json(const td_wire_cover *cover, json_t *out)
{
    tandem_reader each = cover->collections;
    json_t *list = put_array(out, "collections");
    td_wire_cover_collection collection;
    tandem_err err;

    for (uint32_t i = 0; i < cover->collection_count; i++) {
        json_t *entry;

        if ((err = td_wire_read_cover_collection(&each, &collection)) != TANDEM_OK)
            return err;
        entry = append_object(list);
        put(entry, "name", string_json(collection.name));
        if ((err = origins_json(collection.origins, collection.origin_count,
                                put_array(entry, "origins"))) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

static const char *const type_names[] = {NULL, "HELLO", "HAVE", "JOBS", "ACK", "PULL", "COMMAND",
                                         "ERROR", "COVER", "PACKED"};

/* Walk everything in a message and fill out with it. */
static tandem_err message_json(const td_wire_message *message, json_t *out)
{
    if (message->type >= TD_WIRE_HELLO && message->type <= TD_WIRE_PACKED)
        put(out, "type", json_string(type_names[message->type]));
    else
        put(out, "type", number_json(message->type));
    put(out, "number", number_json(message->number));
    switch (message->type) {
    case TD_WIRE_HELLO:
        hello_json(&message->as.hello, out);
        return TANDEM_OK;
    case TD_WIRE_HAVE:
        return have_json(&message->as.have, out);
    case TD_WIRE_JOBS:
        return jobs_json(&message->as.jobs, out);
    case TD_WIRE_ACK:
        return ack_json(&message->as.ack, out);
    case TD_WIRE_PULL:
        return pull_json(&message->as.pull, out);
    case TD_WIRE_ERROR:
        put(out, "error", json_integer(message->as.error.err));
        put(out, "text", string_json(message->as.error.text));
        put(out, "retry_after_ms", number_json(message->as.error.retry_after_ms));
        return TANDEM_OK;
    case TD_WIRE_COVER:
        return cover_json(&message->as.cover, out);
    case TD_WIRE_PACKED:
        put(out, "bytes", number_json(message->as.packed.bytes));
        put(out, "frame", hex_json(message->as.packed.frame.bytes, message->as.packed.frame.size));
        return TANDEM_OK;
    default:
        return TANDEM_OK;
    }
}

/* ---- A message of JSON ---- */

/* Bytes of hex, if there is such a member; the caller frees them. */
static bool may_have_bytes(const json_t *json, const char *key, tandem_slice *out)
{
    const char *hex = json_string_value(json_object_get(json, key));

    *out = (tandem_slice){NULL, 0};
    if (hex)
        out->bytes = unhex(hex, &out->size);
    return hex;
}

static void hello_write(const json_t *json, tandem_writer *out)
{
    const json_t *limits = member(json, "limits"), *names = member(json, "features");
    const char *features[4];
    td_wire_hello hello = {
        .major = number_of(json, "major"),
        .minor = number_of(json, "minor"),
        .clock = number_of(json, "clock"),
        .message_bytes = number_of(limits, "message_bytes"),
        .window_bytes = number_of(limits, "window_bytes"),
        .window_jobs = number_of(limits, "window_jobs"),
        .agent = tandem_slice_text(text_of(json, "agent")),
    };

    fixed_of(json, "reactor", hello.reactor, sizeof(hello.reactor));
    fixed_of(json, "origin", hello.origin, sizeof(hello.origin));
    if (json_object_get(json, "instance"))
        fixed_of(json, "instance", hello.instance, sizeof(hello.instance));
    hello.has_shares = may_have_bytes(json, "gives", &hello.gives) &&
                       may_have_bytes(json, "takes", &hello.takes);
    assert_true(json_array_size(names) <= 4);
    for (size_t i = 0; i < json_array_size(names); i++)
        features[i] = json_string_value(json_array_get(names, i));
    td_wire_write_hello(out, number_of(json, "number"), &hello, features,
                        (uint32_t)json_array_size(names));
    if (hello.has_shares)
        td_wire_seal(out, 0);
    free((void *)hello.gives.bytes);
    free((void *)hello.takes.bytes);
}

static void origins_write(const json_t *origins, tandem_writer *out)
{
    json_t *each;
    size_t i, k;

    json_array_foreach(origins, i, each) {
        uint8_t origin[TANDEM_ORIGIN_BYTES];
        td_head heads[TANDEM_HEADS_MAX];
        const json_t *list = member(each, "heads");
        json_t *head;

        fixed_of(each, "origin", origin, sizeof(origin));
        assert_true(json_array_size(list) <= TANDEM_HEADS_MAX);
        json_array_foreach(list, k, head) {
            heads[k].seq = number_of(head, "seq");
            fixed_of(head, "hash", heads[k].hash, TANDEM_HASH_BYTES);
        }
        td_wire_write_origin(out, origin, heads, (unsigned)json_array_size(list));
    }
}

static void refused_write(const json_t *list, tandem_writer *out)
{
    uint8_t origin[TANDEM_ORIGIN_BYTES], hash[TANDEM_HASH_BYTES], predecessor[TANDEM_HASH_BYTES];
    size_t at = td_wire_begin_refused(out), i;
    json_t *each;

    json_array_foreach(list, i, each) {
        td_wire_refused refused = {
            .origin = origin,
            .first = number_of(each, "first"),
            .last = number_of(each, "last"),
            .hash = hash,
            .reason = json_integer_value(member(each, "reason")),
            .predecessor = predecessor,
        };

        fixed_of(each, "origin", origin, sizeof(origin));
        fixed_of(each, "hash", hash, sizeof(hash));
        fixed_of(each, "predecessor", predecessor, sizeof(predecessor));
        td_wire_write_refused(out, &refused);
    }
    td_wire_patch_count(out, at, (uint32_t)json_array_size(list));
}

static void vector_write(const json_t *json, tandem_writer *out)
{
    const json_t *origins = member(json, "origins"), *refused = member(json, "refused");
    tandem_slice name = tandem_slice_text(text_of(json, "name")), filter;
    size_t count_at, end_at;

    if (may_have_bytes(json, "filter", &filter))
        count_at = td_wire_begin_pair(out, name, filter);
    else
        count_at = td_wire_begin_vector(out, name, bool_of(json, "begin"), &end_at);
    origins_write(origins, out);
    td_wire_patch_count(out, count_at, (uint32_t)json_array_size(origins));
    if (!filter.bytes)
        td_wire_patch_bool(out, end_at, bool_of(json, "end"));
    if (json_array_size(refused))
        refused_write(refused, out);
    else
        td_wire_end_vector(out);
    free((void *)filter.bytes);
}

static void digest_write(const json_t *entry, tandem_writer *out)
{
    const json_t *origins = json_object_get(entry, "origins");
    bool known = !json_is_null(member(entry, "digest"));
    uint8_t digest[TANDEM_HASH_BYTES];

    if (known)
        fixed_of(entry, "digest", digest, sizeof(digest));
    td_wire_write_digest(out, tandem_slice_text(text_of(entry, "name")), known ? digest : NULL,
                         origins ? number_of(entry, "origins") : 0);
}

static void ranges_write(const json_t *entry, tandem_writer *out)
{
    const char *digests = json_string_value(json_object_get(entry, "digests"));
    td_wire_ranges ranges = {
        .has_name = !json_is_null(member(entry, "name")),
        .bits = (unsigned)number_of(entry, "bits"),
        .is_answer = !digests,
    };
    size_t size;
    uint8_t *bytes = unhex(digests ? digests : text_of(entry, "differ"), &size);

    if (ranges.has_name)
        ranges.name = tandem_slice_text(text_of(entry, "name"));
    ranges.bytes = bytes;
    td_wire_write_ranges(out, &ranges);
    free(bytes);
}

static void have_write(const json_t *json, tandem_writer *out)
{
    uint64_t number = number_of(json, "number"), level = number_of(json, "level");
    uint64_t clock = number_of(json, "clock"), promise = number_of(json, "promise");
    uint8_t digest[TANDEM_HASH_BYTES];
    size_t count_at, more_at, i;
    const json_t *entries;
    json_t *entry;

    if (level == TD_HAVE_ALL) {
        fixed_of(json, "digest", digest, sizeof(digest));
        td_wire_write_have_all(out, number, clock, promise, number_of(json, "collections"), digest);
        return;
    }
    entries = member(json, "entries");
    count_at = td_wire_begin_have(out, number, clock, promise, (td_have_level)level, &more_at);
    json_array_foreach(entries, i, entry) {
        if (level == TD_HAVE_DIGESTS)
            digest_write(entry, out);
        else if (level == TD_HAVE_RANGES)
            ranges_write(entry, out);
        else
            vector_write(entry, out);
    }
    td_wire_patch_count(out, count_at, (uint32_t)json_array_size(entries));
    td_wire_patch_bool(out, more_at, bool_of(json, "more"));
}

static void jobs_write(const json_t *json, tandem_writer *out)
{
    const json_t *jobs = member(json, "jobs");
    size_t i, k, at, size;
    json_t *job, *operation;

    at = td_wire_begin_jobs(out, number_of(json, "number"), number_of(json, "first_job"));
    json_array_foreach(jobs, i, job) {
        td_wire_write_job(out, (uint32_t)json_array_size(job));
        json_array_foreach(job, k, operation) {
            uint8_t *canonical = unhex(json_string_value(operation), &size);

            td_wire_write_operation(out, tandem_slice_of(canonical, size));
            free(canonical);
        }
    }
    td_wire_patch_count(out, at, (uint32_t)json_array_size(jobs));
}

static void ack_write(const json_t *json, tandem_writer *out)
{
    const json_t *list = member(json, "exceptions");
    td_wire_exception exceptions[8];
    json_t *each;
    size_t i;

    assert_true(json_array_size(list) <= 8);
    json_array_foreach(list, i, each) {
        exceptions[i].job = number_of(each, "job");
        exceptions[i].err = json_integer_value(member(each, "error"));
        exceptions[i].detail = number_of(each, "detail");
    }
    td_wire_write_ack(out, number_of(json, "number"), number_of(json, "done"), exceptions,
                      (uint32_t)json_array_size(list));
}

static void pull_write(const json_t *json, tandem_writer *out)
{
    const json_t *collections = member(json, "collections");
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    size_t i, k, at, ranges_at;
    json_t *each, *range;

    at = td_wire_begin_pull(out, number_of(json, "number"));
    json_array_foreach(collections, i, each) {
        const json_t *ranges = member(each, "ranges");

        ranges_at = td_wire_begin_pull_collection(out, tandem_slice_text(text_of(each, "name")));
        json_array_foreach(ranges, k, range) {
            fixed_of(range, "origin", origin, sizeof(origin));
            td_wire_write_range(out, origin, number_of(range, "first"), number_of(range, "last"));
        }
        td_wire_patch_count(out, ranges_at, (uint32_t)json_array_size(ranges));
    }
    td_wire_patch_count(out, at, (uint32_t)json_array_size(collections));
}

static void cover_write(const json_t *json, tandem_writer *out)
{
    const json_t *collections = member(json, "collections");
    size_t i, at = td_wire_begin_cover(out, number_of(json, "number"));
    json_t *each;

    json_array_foreach(collections, i, each) {
        const json_t *origins = member(each, "origins");
        size_t origins_at =
            td_wire_begin_cover_collection(out, tandem_slice_text(text_of(each, "name")));

        origins_write(origins, out);
        td_wire_patch_count(out, origins_at, (uint32_t)json_array_size(origins));
    }
    td_wire_patch_count(out, at, (uint32_t)json_array_size(collections));
}

static void packed_write(const json_t *json, tandem_writer *out)
{
    size_t size;
    uint8_t *frame = unhex(text_of(json, "frame"), &size);

    td_wire_write_packed(out, number_of(json, "number"), number_of(json, "bytes"),
                         tandem_slice_of(frame, size));
    free(frame);
}

static void message_write(const json_t *json, tandem_writer *out)
{
    const char *type = text_of(json, "type");

    if (strcmp(type, "HELLO") == 0)
        hello_write(json, out);
    else if (strcmp(type, "HAVE") == 0)
        have_write(json, out);
    else if (strcmp(type, "JOBS") == 0)
        jobs_write(json, out);
    else if (strcmp(type, "ACK") == 0)
        ack_write(json, out);
    else if (strcmp(type, "PULL") == 0)
        pull_write(json, out);
    else if (strcmp(type, "COVER") == 0)
        cover_write(json, out);
    else if (strcmp(type, "PACKED") == 0)
        packed_write(json, out);
    else if (strcmp(type, "ERROR") == 0)
        td_wire_write_error(out, number_of(json, "number"),
                            (tandem_err)json_integer_value(member(json, "error")),
                            text_of(json, "text"), number_of(json, "retry_after_ms"));
    else
        fail_msg("nobody writes a %s", type);
}

/* ---- The vectors ---- */

static void every_message_is_read_as_its_fields(void **state)
{
    const json_t *messages;
    json_t *all = vectors(&messages, "messages"), *vector;
    size_t i, size;

    json_array_foreach(messages, i, vector) {
        uint8_t *bytes = unhex(text_of(vector, "hex"), &size);
        json_t *actual = json_object();
        td_wire_message message;

        if (td_wire_read(tandem_slice_of(bytes, size), &message) != TANDEM_OK ||
            message_json(&message, actual) != TANDEM_OK)
            fail_msg("%s: refused", text_of(vector, "name"));
        if (!json_equal(member(vector, "message"), actual))
            fail_msg("%s: read as %s", text_of(vector, "name"),
                     json_dumps(actual, JSON_COMPACT | JSON_SORT_KEYS));
        json_decref(actual);
        free(bytes);
    }
    json_decref(all);
}

static void every_message_is_written_as_its_bytes(void **state)
{
    const json_t *messages;
    json_t *all = vectors(&messages, "messages"), *vector;
    unsigned written = 0;
    tandem_writer writer;
    size_t i;

    tandem_writer_init(&writer);
    json_array_foreach(messages, i, vector) {
        json_t *actual;

        if (!bool_of(vector, "written"))
            continue;
        written++;
        tandem_writer_clear(&writer);
        message_write(member(vector, "message"), &writer);
        assert_int_equal(TANDEM_OK, tandem_writer_err(&writer));
        actual = hex_json(writer.bytes, writer.size);
        if (strcmp(text_of(vector, "hex"), json_string_value(actual)) != 0)
            fail_msg("%s: written as %s", text_of(vector, "name"), json_string_value(actual));
        json_decref(actual);
    }
    assert_true(written > 20);
    tandem_writer_release(&writer);
    json_decref(all);
}

static void every_invalid_message_is_refused_as_early_as_can_be(void **state)
{
    const json_t *invalid;
    json_t *all = vectors(&invalid, "invalid"), *vector;
    size_t i, size;

    json_array_foreach(invalid, i, vector) {
        uint8_t *bytes = unhex(text_of(vector, "hex"), &size);
        tandem_slice slice = tandem_slice_of(bytes, size);
        json_t *fields = json_object();
        const char *stage = "nowhere";
        td_wire_message message;
        tandem_err err;

        if ((err = td_wire_validate(slice)) != TANDEM_OK) {
            stage = "validator";
            assert_int_equal(err, td_wire_read(slice, &message));
        } else if ((err = td_wire_read(slice, &message)) != TANDEM_OK) {
            stage = "head";
        } else if ((err = message_json(&message, fields)) != TANDEM_OK) {
            stage = "entries";
        }
        if (strcmp(stage, text_of(vector, "found_by")) != 0 ||
            strcmp(tandem_err_name(err), text_of(vector, "error")) != 0)
            fail_msg("%s: %s, found by %s", text_of(vector, "name"), tandem_err_name(err), stage);
        json_decref(fields);
        free(bytes);
    }
    json_decref(all);
}

static void no_part_of_a_message_is_a_message(void **state)
{
    const json_t *messages;
    json_t *all = vectors(&messages, "messages"), *vector;
    size_t i, size;

    json_array_foreach(messages, i, vector) {
        uint8_t *bytes = unhex(text_of(vector, "hex"), &size);
        uint8_t *longer = malloc(size + 1);

        for (size_t part = 0; part < size; part++) {
            /* At the end of the memory, so that a read beyond the part is one beyond the block. */
            uint8_t *exact = malloc(part ? part : 1);

            memcpy(exact, bytes, part);
            if (td_wire_validate(tandem_slice_of(exact, part)) != TANDEM_E_PROTOCOL)
                fail_msg("%s: %zu bytes of it pass", text_of(vector, "name"), part);
            free(exact);
        }
        memcpy(longer, bytes, size);
        longer[size] = 0;
        assert_int_equal(TANDEM_E_PROTOCOL, td_wire_validate(tandem_slice_of(longer, size + 1)));
        free(longer);
        free(bytes);
    }
    json_decref(all);
}

/* ---- Filters of the vectors ---- */

static void globs_match_as_documented(void **state)
{
    const json_t *globs;
    json_t *all = vectors(&globs, "globs"), *vector;
    size_t i;

    json_array_foreach(globs, i, vector) {
        tandem_slice glob = tandem_slice_text(text_of(vector, "glob"));

        assert_true(tandem_glob_valid(glob));
        if (tandem_glob_matches(glob, tandem_slice_text(text_of(vector, "name"))) !=
            bool_of(vector, "matches"))
            fail_msg("%s, %s", text_of(vector, "glob"), text_of(vector, "name"));
    }
    json_decref(all);
}

static td_names names_json(const json_t *list, tandem_slice names[TD_FILTER_ENTRIES_MAX])
{
    td_names found = {names, (uint32_t)json_array_size(list)};

    for (uint32_t i = 0; i < found.count; i++)
        names[i] = tandem_slice_text(json_string_value(json_array_get(list, i)));
    return found;
}

/* Each list of globs makes a filter with the scopes and branches; all of them together are it. */
static void filter_of_json(const json_t *vector, td_filter *out)
{
    const json_t *lists = member(vector, "documents");
    tandem_slice documents[TD_FILTER_ENTRIES_MAX], scopes[TD_FILTER_ENTRIES_MAX];
    tandem_slice branches[TD_FILTER_ENTRIES_MAX];
    size_t count = json_array_size(lists) ? json_array_size(lists) : 1;

    *out = TD_FILTER_ALL;
    for (size_t i = 0; i < count; i++) {
        td_filter part, both;

        assert_int_equal(TANDEM_OK,
                         td_filter_make(names_json(json_array_get(lists, i), documents),
                                        names_json(member(vector, "scopes"), scopes),
                                        names_json(member(vector, "branches"), branches), &part));
        assert_int_equal(TANDEM_OK, td_filter_and(out, &part, &both));
        td_filter_release(&part);
        td_filter_release(out);
        *out = both;
    }
}

static void filters_are_encoded_and_match_as_documented(void **state)
{
    const json_t *filters;
    json_t *all = vectors(&filters, "filters"), *vector, *each;
    size_t i, k, size;

    json_array_foreach(filters, i, vector) {
        uint8_t *bytes = unhex(text_of(vector, "hex"), &size);
        td_filter filter, made;

        assert_int_equal(TANDEM_OK, td_filter_decode(tandem_slice_of(bytes, size), &filter));
        /* An empty list is nothing that can be asked for. */
        if (!json_is_array(member(vector, "scopes")) || json_array_size(member(vector, "scopes"))) {
            filter_of_json(vector, &made);
            assert_true(td_filter_equal(&filter, &made));
            td_filter_release(&made);
        }
        json_array_foreach(member(vector, "operations"), k, each) {
            td_operation operation = {
                .document = tandem_slice_text(text_of(each, "document")),
                .branch = tandem_slice_text(text_of(each, "branch")),
                .scope = tandem_slice_text(text_of(each, "scope")),
            };

            if (td_filter_matches(&filter, &operation) != bool_of(each, "matches"))
                fail_msg("filter %zu, operation %zu", i, k);
        }
        td_filter_release(&filter);
        free(bytes);
    }
    json_decref(all);
}

/* ---- Operations and digests of the vectors ---- */

static void operations_hash_as_documented(void **state)
{
    const json_t *operations;
    json_t *all = vectors(&operations, "operations"), *vector;
    size_t i, size;

    json_array_foreach(operations, i, vector) {
        uint8_t *bytes = unhex(text_of(vector, "canonical"), &size);
        const json_t *fields = member(vector, "fields");
        uint8_t root[TANDEM_HASH_BYTES], expected[TANDEM_HASH_BYTES];
        td_operation operation;

        assert_int_equal(TANDEM_OK, td_operation_parse(tandem_slice_of(bytes, size), &operation));
        td_operation_hash(&operation);
        fixed_of(vector, "hash", expected, sizeof(expected));
        assert_memory_equal(expected, operation.hash, sizeof(expected));
        fixed_of(fields, "predecessor", expected, sizeof(expected));
        assert_memory_equal(expected, operation.predecessor, sizeof(expected));
        assert_true(operation.seq == number_of(fields, "seq"));
        assert_true(operation.hlc == number_of(fields, "hlc"));
        td_chain_root(operation.collection, root);
        assert_int_equal(operation.seq == 1, memcmp(root, expected, sizeof(root)) == 0);
        free(bytes);
    }
    json_decref(all);
}

static void collection_digest(const json_t *collection, uint8_t out[TANDEM_HASH_BYTES])
{
    const json_t *origins = member(collection, "origins");
    json_t *each, *head;
    tandem_writer record;
    tandem_slice slice;
    size_t i, k;

    tandem_writer_init(&record);
    json_array_foreach(origins, i, each) {
        json_array_foreach(member(each, "heads"), k, head) {
            uint8_t bytes[TANDEM_ORIGIN_BYTES + 8 + TANDEM_HASH_BYTES];

            fixed_of(each, "origin", bytes, TANDEM_ORIGIN_BYTES);
            td_put_u64(bytes + TANDEM_ORIGIN_BYTES, number_of(head, "seq"));
            fixed_of(head, "hash", bytes + TANDEM_ORIGIN_BYTES + 8, TANDEM_HASH_BYTES);
            tandem_write_raw(&record, tandem_slice_of(bytes, sizeof(bytes)));
        }
    }
    slice = tandem_writer_slice(&record);
    td_hash(out, &slice, 1);
    tandem_writer_release(&record);
}

static void digests_are_as_documented(void **state)
{
    const json_t *digests;
    json_t *all = vectors(&digests, "digests"), *vector, *collection;
    size_t i, k;

    json_array_foreach(digests, i, vector) {
        uint8_t expected[TANDEM_HASH_BYTES], actual[TANDEM_HASH_BYTES];
        tandem_slice slice;
        tandem_writer whole;

        tandem_writer_init(&whole);
        json_array_foreach(member(vector, "collections"), k, collection) {
            const tandem_slice name = tandem_slice_text(text_of(collection, "name"));

            td_hash(actual, &name, 1);
            tandem_write_raw(&whole, tandem_slice_of(actual, sizeof(actual)));
            collection_digest(collection, actual);
            fixed_of(collection, "digest", expected, sizeof(expected));
            assert_memory_equal(expected, actual, sizeof(expected));
            tandem_write_raw(&whole, tandem_slice_of(actual, sizeof(actual)));
        }
        slice = tandem_writer_slice(&whole);
        td_hash(actual, &slice, 1);
        fixed_of(vector, "digest", expected, sizeof(expected));
        assert_memory_equal(expected, actual, sizeof(expected));
        tandem_writer_release(&whole);
    }
    json_decref(all);
}

/* ---- The page ---- */

/*
 * Take the bytes of one line of an example, "    HEX" or "    HEX  what it is", onto the end of
 * hex. False if the line is something else.
 */
static bool example_line(const char *line, tandem_writer *hex)
{
    size_t length;

    if (strncmp(line, "    ", 4) != 0)
        return false;
    line += 4;
    length = strspn(line, "0123456789abcdef");
    if (length == 0 || length % 2 || (line[length] != '\n' && strncmp(line + length, "  ", 2) != 0))
        return false;
    tandem_write_raw(hex, tandem_slice_of(line, length));
    return true;
}

static bool is_among(const json_t *vectors, const char *key, tandem_slice hex)
{
    json_t *vector;
    size_t i;

    json_array_foreach(vectors, i, vector)
        if (tandem_slice_equal(tandem_slice_text(text_of(vector, key)), hex))
            return true;
    return false;
}

static void every_example_of_the_page_is_a_vector(void **state)
{
    const char *path = TANDEM_VECTORS_DIR "/../../transport/PROTOCOL.md";
    const json_t *messages;
    json_t *all = vectors(&messages, "messages");
    FILE *page = fopen(path, "r");
    unsigned examples = 0;
    bool example = true; /* all lines of this block so far */
    tandem_writer hex;
    char line[4096];

    if (!page)
        fail_msg("%s cannot be opened", path);
    tandem_writer_init(&hex);
    while (fgets(line, sizeof(line), page)) {
        if (line[0] != '\n') {
            example = example_line(line, &hex) && example;
            continue;
        }
        if (example && hex.size) {
            examples++;
            if (!is_among(messages, "hex", tandem_writer_slice(&hex)) &&
                !is_among(member(all, "filters"), "hex", tandem_writer_slice(&hex)) &&
                !is_among(member(all, "operations"), "canonical", tandem_writer_slice(&hex)))
                fail_msg("%.*s is no vector", (int)hex.size, (const char *)hex.bytes);
        }
        tandem_writer_clear(&hex);
        example = true;
    }
    assert_true(examples > 20);
    tandem_writer_release(&hex);
    fclose(page);
    json_decref(all);
}

/* ---- Limits ---- */

/* Of an unknown type, so that nothing but the validator judges it. */
static void message_head(tandem_writer *writer, uint32_t items)
{
    tandem_writer_clear(writer);
    tandem_write_array(writer, items);
    tandem_write_uint(writer, 99);
    tandem_write_uint(writer, 1);
}

static void a_message_of_the_largest_size_passes_and_no_larger(void **state)
{
    static const uint8_t body[TD_MESSAGE_BYTES_MAX];
    const uint32_t head = 3 + 5; /* array, type, number, bin 32 */
    tandem_writer writer;

    tandem_writer_init(&writer);
    for (uint32_t more = 0; more < 2; more++) {
        message_head(&writer, 3);
        tandem_write_binary(&writer, tandem_slice_of(body, TD_MESSAGE_BYTES_MAX - head + more));
        assert_int_equal(TD_MESSAGE_BYTES_MAX + more, writer.size);
        assert_int_equal(more ? TANDEM_E_PROTOCOL : TANDEM_OK,
                         td_wire_validate(tandem_writer_slice(&writer)));
    }
    tandem_writer_release(&writer);
}

static void a_message_of_the_most_items_passes_and_no_more(void **state)
{
    const uint32_t head = 4; /* both arrays, type, number */
    tandem_writer writer;

    tandem_writer_init(&writer);
    for (uint32_t more = 0; more < 2; more++) {
        message_head(&writer, 3);
        tandem_write_array(&writer, TD_MESSAGE_ITEMS_MAX - head + more);
        for (uint32_t i = 0; i < TD_MESSAGE_ITEMS_MAX - head + more; i++)
            tandem_write_nil(&writer);
        assert_int_equal(more ? TANDEM_E_PROTOCOL : TANDEM_OK,
                         td_wire_validate(tandem_writer_slice(&writer)));
    }
    tandem_writer_release(&writer);
}

static void the_largest_job_fits_into_the_smallest_limit(void **state)
{
    static const uint8_t body[TANDEM_JOB_BYTES_MAX];
    const uint32_t size = TANDEM_JOB_BYTES_MAX / TANDEM_JOB_OPERATIONS_MAX;
    td_wire_message message;
    tandem_writer writer;
    uint32_t count;
    size_t at;

    tandem_writer_init(&writer);
    at = td_wire_begin_jobs(&writer, UINT64_MAX, UINT64_MAX);
    td_wire_write_job(&writer, TANDEM_JOB_OPERATIONS_MAX);
    for (uint32_t i = 0; i < TANDEM_JOB_OPERATIONS_MAX; i++)
        td_wire_write_operation(
            &writer, tandem_slice_of(body, i ? size : TANDEM_JOB_BYTES_MAX -
                                                          (TANDEM_JOB_OPERATIONS_MAX - 1) * size));
    td_wire_patch_count(&writer, at, 1);
    assert_true(writer.size <= TD_MESSAGE_BYTES_MIN);
    assert_int_equal(TANDEM_OK, td_wire_read(tandem_writer_slice(&writer), &message));
    assert_int_equal(TANDEM_OK, td_wire_read_job(&message.as.jobs.jobs, &count));
    assert_int_equal(TANDEM_JOB_OPERATIONS_MAX, count);
    tandem_writer_release(&writer);
}

/*
 * The pages that come closest to the limit of items: as many entries of the shortest kind as a page
 * may have, then origins of the most items a byte up to its size.
 */
static void the_fullest_page_is_valid(void **state)
{
    uint8_t origin[TANDEM_ORIGIN_BYTES] = {0};
    const td_head head = {.seq = 1};
    tandem_writer writer;
    size_t at, origins_at;
    uint32_t origins = 0;

    tandem_writer_init(&writer);
    at = td_wire_begin_have(&writer, 1, 0, 0, TD_HAVE_VECTORS, NULL);
    for (unsigned i = 1; i <= TD_HAVE_PAGE_ENTRIES_MAX; i++) {
        origins_at = td_wire_begin_vector(&writer, tandem_slice_text("a"), true, NULL);
        while (i == TD_HAVE_PAGE_ENTRIES_MAX && writer.size < TD_HAVE_PAGE_BYTES_MAX) {
            td_wire_write_origin(&writer, origin, &head, 1);
            origins++;
        }
        td_wire_patch_count(&writer, origins_at, i == TD_HAVE_PAGE_ENTRIES_MAX ? origins : 0);
        td_wire_end_vector(&writer);
    }
    td_wire_patch_count(&writer, at, TD_HAVE_PAGE_ENTRIES_MAX);
    assert_true(origins > 1000);
    assert_int_equal(TANDEM_OK, td_wire_validate(tandem_writer_slice(&writer)));

    tandem_writer_clear(&writer);
    at = td_wire_begin_have(&writer, 1, 0, 0, TD_HAVE_DIGESTS, NULL);
    for (unsigned i = 0; i < TD_HAVE_PAGE_ENTRIES_MAX; i++)
        td_wire_write_digest(&writer, tandem_slice_text("a"), NULL, 0);
    td_wire_patch_count(&writer, at, TD_HAVE_PAGE_ENTRIES_MAX);
    assert_int_equal(TANDEM_OK, td_wire_validate(tandem_writer_slice(&writer)));
    tandem_writer_release(&writer);
}

/* ---- Corners of the calls ---- */

static void a_long_text_is_cut_before_a_character(void **state)
{
    char text[TD_WIRE_TEXT_BYTES_MAX + 8];
    td_wire_message message;
    tandem_writer writer;

    tandem_writer_init(&writer);
    /* A euro sign of three bytes ends one byte within, at, and one byte beyond the limit. */
    for (unsigned before = TD_WIRE_TEXT_BYTES_MAX - 4; before < TD_WIRE_TEXT_BYTES_MAX; before++) {
        bool fits = before + 3 <= TD_WIRE_TEXT_BYTES_MAX;

        memset(text, 'x', sizeof(text));
        memcpy(text + before, "\xe2\x82\xac", 3);
        text[TD_WIRE_TEXT_BYTES_MAX + 7] = '\0';
        tandem_writer_clear(&writer);
        td_wire_write_error(&writer, 1, TANDEM_E_PROTOCOL, text, 0);
        assert_int_equal(TANDEM_OK, td_wire_read(tandem_writer_slice(&writer), &message));
        assert_int_equal(fits ? TD_WIRE_TEXT_BYTES_MAX : before, message.as.error.text.size);
        assert_memory_equal(text, message.as.error.text.bytes, message.as.error.text.size);
    }
    tandem_writer_release(&writer);
}

static void a_failed_writer_is_not_patched(void **state)
{
    tandem_writer writer;
    size_t at, more_at;
    uint8_t before[64];

    tandem_writer_init(&writer);
    at = td_wire_begin_have(&writer, 1, 0, 0, TD_HAVE_VECTORS, &more_at);
    assert_true(writer.size <= sizeof(before));
    memcpy(before, writer.bytes, writer.size);
    writer.err = TANDEM_E_NOMEM;
    td_wire_patch_count(&writer, at, 3);
    td_wire_patch_bool(&writer, more_at, true);
    /* Where a failed writer says a place is, nothing may be. */
    td_wire_patch_count(&writer, writer.size + 1000, 3);
    assert_memory_equal(before, writer.bytes, writer.size);
    tandem_writer_release(&writer);
}

static void a_failed_read_leaves_reader_and_result_alone(void **state)
{
    static const uint8_t entries[] = {0x91, 0xa1, 'a'}; /* [["a"]]: of no kind a whole entry */
    const tandem_slice slice = tandem_slice_of(entries, sizeof(entries));
    tandem_reader reader = tandem_reader_of(slice);
    union {
        td_wire_message message;
        td_wire_digest digest;
        td_wire_vector vector;
        td_wire_origin origin;
        td_wire_refused refused;
        td_wire_exception exception;
        td_wire_pull_collection collection;
        td_wire_range range;
        tandem_slice operation;
        uint32_t count;
    } out, before;

    memset(&out, 0x5a, sizeof(out));
    memcpy(&before, &out, sizeof(out));
    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read(slice, &out.message));
    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read_digest(&reader, &out.digest));
    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read_vector(&reader, &out.vector));
    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read_origin(&reader, &out.origin));
    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read_refused(&reader, &out.refused));
    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read_exception(&reader, &out.exception));
    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read_pull_collection(&reader, &out.collection));
    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read_range(&reader, &out.range));
    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read_operation(&reader, &out.operation));
    assert_ptr_equal(entries, reader.at);
    reader.at++; /* a string */
    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read_job(&reader, &out.count));
    assert_ptr_equal(entries + 1, reader.at);
    assert_memory_equal(&before, &out, sizeof(out));
}

static void an_exhausted_reader_has_no_entries(void **state)
{
    tandem_reader reader = tandem_reader_of(tandem_slice_of(NULL, 0));
    td_wire_digest digest;
    tandem_slice operation;
    uint32_t count;

    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read_digest(&reader, &digest));
    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read_job(&reader, &count));
    assert_int_equal(TANDEM_E_PROTOCOL, td_wire_read_operation(&reader, &operation));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_is_read_as_its_fields),
        cmocka_unit_test(every_message_is_written_as_its_bytes),
        cmocka_unit_test(every_invalid_message_is_refused_as_early_as_can_be),
        cmocka_unit_test(no_part_of_a_message_is_a_message),
        cmocka_unit_test(globs_match_as_documented),
        cmocka_unit_test(filters_are_encoded_and_match_as_documented),
        cmocka_unit_test(operations_hash_as_documented),
        cmocka_unit_test(digests_are_as_documented),
        cmocka_unit_test(every_example_of_the_page_is_a_vector),
        cmocka_unit_test(a_message_of_the_largest_size_passes_and_no_larger),
        cmocka_unit_test(a_message_of_the_most_items_passes_and_no_more),
        cmocka_unit_test(the_largest_job_fits_into_the_smallest_limit),
        cmocka_unit_test(the_fullest_page_is_valid),
        cmocka_unit_test(a_long_text_is_cut_before_a_character),
        cmocka_unit_test(a_failed_writer_is_not_patched),
        cmocka_unit_test(a_failed_read_leaves_reader_and_result_alone),
        cmocka_unit_test(an_exhausted_reader_has_no_entries),
    };

    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
