/*
 * A backup's bytes: what the reader makes of the test vectors and of all that may happen to them, and
 * that the writer makes the same bytes again of what the reader hands out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <sodium.h>
#include <xxhash.h>

#include "store/backup_stream.h"

#ifndef TANDEM_VECTORS_DIR
#define TANDEM_VECTORS_DIR "tests/vectors"
#endif

static json_t *vectors;
static const json_t *vector; /* one of them … */
static uint8_t stream[64 * 1024]; /* … and its stream */
static size_t stream_size;

static size_t bytes_of(const json_t *object, const char *key, uint8_t *out, size_t room)
{
    const char *hex = json_string_value(json_object_get(object, key));
    size_t size;

    assert_non_null(hex);
    assert_int_equal(0, sodium_hex2bin(out, room, hex, strlen(hex), NULL, &size, NULL));
    return size;
}

/* The first one is without lacks; the member "lacks" is another, with some. */
static void use(const char *member)
{
    vector = member ? json_object_get(vectors, member) : vectors;
    stream_size = bytes_of(vector, "stream", stream, sizeof(stream) - 1);
}

/* ---- A sink that writes what it is handed ---- */

struct echo {
    tandem_writer out;
    td_backup_writer *writer;
    bool in_collection;
    td_backup_header header;
    unsigned jobs, branches, held, lacks, refused, collections, remotes;
    tandem_err fail_job; /* what the next job is answered with */
};

static tandem_err echo_bytes(void *context, tandem_slice bytes)
{
    tandem_write_raw(&((struct echo *)context)->out, bytes);
    return TANDEM_OK;
}

static tandem_err echo_header(void *context, const td_backup_header *header)
{
    struct echo *echo = context;

    echo->header = *header;
    return td_backup_put_header(echo->writer, header);
}

static void echo_begin(struct echo *echo, tandem_slice collection)
{
    if (!echo->in_collection)
        assert_int_equal(TANDEM_OK, td_backup_put_collection(echo->writer, collection));
    echo->in_collection = true;
}

static tandem_err echo_lack(void *context, tandem_slice collection, const uint8_t *origin,
                            const td_lack *lack)
{
    struct echo *echo = context;

    echo_begin(echo, collection);
    echo->lacks++;
    echo->refused += lack->reason == TANDEM_E_REFUSED;
    return td_backup_put_lack(echo->writer, origin, lack);
}

static tandem_err echo_job(void *context, const td_backup_job *job)
{
    struct echo *echo = context;
    tandem_reader bins = tandem_reader_of(job->operations);
    td_link link;

    if (echo->fail_job != TANDEM_OK)
        return echo->fail_job;
    for (uint32_t i = 0; i < job->count; i++) {
        td_operation operation;
        tandem_slice canonical;

        assert_int_equal(TANDEM_OK, tandem_read_binary(&bins, &canonical));
        assert_int_equal(TANDEM_OK, td_operation_parse(canonical, &operation));
        td_operation_hash(&operation);
        if (i == 0)
            td_link_begin(&link, &operation);
        else
            td_link_extend(&link, &operation);
        echo_begin(echo, operation.collection);
    }
    assert_int_equal(0, tandem_reader_left(&bins));
    assert_int_equal(!job->branch, td_backup_follows(echo->writer, &link));
    echo->jobs++;
    echo->branches += job->branch;
    echo->held += job->held;
    return td_backup_put_job(echo->writer, job, &link);
}

static tandem_err echo_collection(void *context, const td_backup_collection *collection)
{
    struct echo *echo = context;
    td_backup_collection put;

    assert_int_equal(TANDEM_OK, td_backup_put_collection_end(echo->writer,
                                                             collection->last_ordinal, &put));
    assert_int_equal(collection->operations, put.operations);
    assert_memory_equal(collection->vector_digest, put.vector_digest, TANDEM_HASH_BYTES);
    echo->in_collection = false;
    echo->collections++;
    return TANDEM_OK;
}

static tandem_err echo_remote(void *context, tandem_slice name, tandem_slice url,
                              const td_kept_share *share)
{
    struct echo *echo = context;

    echo->remotes++;
    return td_backup_put_remote(echo->writer, name, url, share);
}

static td_backup_reader *echo_open(struct echo *echo)
{
    td_backup_sink sink = {.context = echo,
                           .header = echo_header,
                           .job = echo_job,
                           .lack = echo_lack,
                           .collection = echo_collection,
                           .remote = echo_remote};
    td_backup_reader *reader;

    memset(echo, 0, sizeof(*echo));
    tandem_writer_init(&echo->out);
    assert_int_equal(TANDEM_OK, td_backup_writer_open(echo_bytes, echo, &echo->writer));
    assert_int_equal(TANDEM_OK, td_backup_reader_open(&sink, &reader));
    return reader;
}

static void echo_release(struct echo *echo, td_backup_reader *reader)
{
    td_backup_reader_free(reader);
    td_backup_writer_free(echo->writer);
    tandem_writer_release(&echo->out);
}

/* Read bytes in pieces to their end; returns what it came to. */
static tandem_err read_all(const uint8_t *bytes, size_t size, size_t piece, char *why)
{
    const td_backup_sink none = {.context = NULL};
    td_backup_reader *reader;
    tandem_err err = TANDEM_OK;

    why[0] = 0;
    assert_int_equal(TANDEM_OK, td_backup_reader_open(&none, &reader));
    for (size_t at = 0; at < size && err == TANDEM_OK; at += piece)
        err = td_backup_reader_feed(
            reader, tandem_slice_of(bytes + at, size - at < piece ? size - at : piece), why);
    if (err == TANDEM_OK)
        err = td_backup_reader_finish(reader, why);
    else
        assert_int_equal(err, td_backup_reader_finish(reader, why));
    if (err != TANDEM_OK)
        assert_true(why[0]);
    td_backup_reader_free(reader);
    return err;
}

/* Of the vector: the record that begins a fork; the other collection's. */
enum { FORK = 3, OTHER = 7, OTHER_END = 9 };

/* ---- Making streams that are wrong in themselves ---- */

/* Records of the vector with right checksums again; each may be left out or repeated. */
static size_t assemble(const unsigned *order, size_t count, uint8_t *out)
{
    const json_t *records = json_object_get(vector, "records");
    uint64_t checksum = 0;
    size_t at = sizeof(td_backup_magic);

    memcpy(out, td_backup_magic, at);
    for (size_t i = 0; i < count; i++) {
        const json_t *record = json_array_get(records, order[i]);
        size_t body = bytes_of(record, "body", out + at + TD_BACKUP_HEAD_BYTES, 16 * 1024);

        out[at] = (uint8_t)json_integer_value(json_object_get(record, "kind"));
        td_put_u32(out + at + 1, (uint32_t)body);
        checksum = XXH3_64bits_withSeed(out + at, TD_BACKUP_HEAD_BYTES + body, checksum);
        td_put_u64(out + at + TD_BACKUP_HEAD_BYTES + body, checksum);
        at += TD_BACKUP_HEAD_BYTES + body + TD_BACKUP_CHECKSUM_BYTES;
    }
    return at;
}

/* ---- Tests ---- */

/* Have the stream echoed, byte by byte the same. */
static td_backup_reader *echo_all(struct echo *echo, size_t piece)
{
    td_backup_reader *reader = echo_open(echo);
    char why[TD_BACKUP_WHY_BYTES] = "";

    for (size_t at = 0; at < stream_size; at += piece)
        assert_int_equal(TANDEM_OK, td_backup_reader_feed(
            reader, tandem_slice_of(stream + at, stream_size - at < piece ? stream_size - at
                                                                          : piece), why));
    assert_int_equal(TANDEM_OK, td_backup_reader_finish(reader, why));
    assert_int_equal(TANDEM_OK, td_backup_put_end(echo->writer));
    assert_int_equal(stream_size, echo->out.size);
    assert_memory_equal(stream, echo->out.bytes, stream_size);
    return reader;
}

static void the_vector_is_read_and_written_again(void **state)
{
    (void)state;
    for (size_t piece = 1; piece <= stream_size; piece = piece * 3 + 1) {
        struct echo echo;
        td_backup_reader *reader = echo_all(&echo, piece);
        uint8_t wanted[TANDEM_ORIGIN_BYTES];

        assert_memory_equal(td_backup_read(reader), td_backup_written(echo.writer),
                            sizeof(td_backup_totals));
        assert_int_equal(stream_size, td_backup_read(reader)->bytes);
        bytes_of(vector, "reactor", wanted, sizeof(wanted));
        assert_memory_equal(wanted, echo.header.reactor, sizeof(wanted));
        bytes_of(vector, "origin", wanted, sizeof(wanted));
        assert_memory_equal(wanted, echo.header.origin, sizeof(wanted));
        assert_int_equal(10, echo.header.ordinal);
        assert_int_equal(1700000123456, echo.header.taken_ms);
        assert_int_equal(9, echo.jobs);
        assert_int_equal(2, echo.branches);
        assert_int_equal(1, echo.held);
        assert_int_equal(2, echo.collections);
        assert_int_equal(1, echo.remotes);
        assert_int_equal(0, echo.lacks);
        assert_false(echo.header.has_lacks);
        echo_release(&echo, reader);
    }
}

static void a_vector_with_lacks_is_read_and_written_again(void **state)
{
    struct echo echo;
    td_backup_reader *reader;

    (void)state;
    reader = echo_all(&echo, 100);
    assert_true(echo.header.has_lacks);
    assert_int_equal(4, echo.jobs);
    assert_int_equal(0, echo.branches);
    assert_int_equal(5, echo.lacks);
    assert_int_equal(3, echo.refused);
    assert_int_equal(2, echo.collections);
    echo_release(&echo, reader);
}

static void cut_off_anywhere_it_is_refused(void **state)
{
    char why[TD_BACKUP_WHY_BYTES];

    (void)state;
    for (size_t size = 0; size < stream_size; size++)
        assert_int_equal(size < TD_BACKUP_MAGIC_BYTES ? TANDEM_E_FORMAT : TANDEM_E_CORRUPT,
                         read_all(stream, size, 1000, why));
}

static void any_flipped_bit_is_found(void **state)
{
    char why[TD_BACKUP_WHY_BYTES];
    uint8_t *copy = malloc(sizeof(stream));

    (void)state;
    assert_non_null(copy);
    memcpy(copy, stream, stream_size);
    for (size_t bit = 0; bit < stream_size * 8; bit++) {
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(bit / 8 < TD_BACKUP_MAGIC_BYTES ? TANDEM_E_FORMAT : TANDEM_E_CORRUPT,
                         read_all(copy, stream_size, stream_size, why));
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(copy);
}

static void nothing_may_follow_the_end(void **state)
{
    char why[TD_BACKUP_WHY_BYTES];

    (void)state;
    stream[stream_size] = 0;
    assert_int_equal(TANDEM_E_CORRUPT, read_all(stream, stream_size + 1, 1, why));
    assert_int_equal(TANDEM_E_CORRUPT, read_all(stream, stream_size + 1, stream_size + 1, why));
}

/* With checksums that are right: the rules of the stream themselves. */
static void records_out_of_place_are_refused(void **state)
{
    size_t count = json_array_size(json_object_get(vector, "records"));
    uint8_t *bytes = malloc(2 * sizeof(stream));
    char why[TD_BACKUP_WHY_BYTES];
    unsigned order[32] = {0};
    size_t size;

    (void)state;
    assert_non_null(bytes);
    for (unsigned i = 0; i < count; i++)
        order[i] = i;
    size = assemble(order, count, bytes);
    assert_int_equal(stream_size, size);
    assert_memory_equal(stream, bytes, size);
    for (unsigned without = 0; without < count; without++) {
        for (unsigned i = 0, at = 0; i < count; i++)
            if (i != without)
                order[at++] = i;
        size = assemble(order, count - 1, bytes);
        assert_int_equal(TANDEM_E_CORRUPT, read_all(bytes, size, 500, why));
    }
    /* A whole collection is missing. */
    for (unsigned i = 0, at = 0; i < count; i++)
        if (i < OTHER || i > OTHER_END)
            order[at++] = i;
    size = assemble(order, count - (OTHER_END - OTHER + 1), bytes);
    assert_int_equal(TANDEM_E_CORRUPT, read_all(bytes, size, 500, why));
    for (unsigned twice = 0; twice < count; twice++) {
        for (unsigned i = 0; i <= count; i++)
            order[i] = i <= twice ? i : i - 1;
        size = assemble(order, count + 1, bytes);
        assert_int_equal(TANDEM_E_CORRUPT, read_all(bytes, size, 500, why));
    }
    for (unsigned swapped = 0; swapped + 1 < count; swapped++) {
        for (unsigned i = 0; i < count; i++)
            order[i] = i == swapped ? i + 1 : i == swapped + 1 ? i - 1 : i;
        size = assemble(order, count, bytes);
        /* The fork and what comes next have nothing to do with each other. */
        assert_int_equal(swapped == FORK ? TANDEM_OK : TANDEM_E_CORRUPT,
                         read_all(bytes, size, 500, why));
    }
    free(bytes);
}

/* Of the vector with lacks: one by one left out, repeated, exchanged with the next. */
static void lacks_out_of_place_are_refused(void **state)
{
    const json_t *records = json_object_get(vector, "records");
    size_t count = json_array_size(records), size;
    uint8_t *bytes = malloc(2 * sizeof(stream));
    char why[TD_BACKUP_WHY_BYTES];
    unsigned order[32] = {0};

    (void)state;
    assert_non_null(bytes);
    for (unsigned lack = 0; lack < count; lack++) {
        if (json_integer_value(json_object_get(json_array_get(records, lack), "kind")) !=
            TD_BACKUP_LACK)
            continue;
        for (unsigned i = 0, at = 0; i < count; i++)
            if (i != lack)
                order[at++] = i;
        size = assemble(order, count - 1, bytes);
        assert_int_equal(TANDEM_E_CORRUPT, read_all(bytes, size, 500, why));
        for (unsigned i = 0; i <= count; i++)
            order[i] = i <= lack ? i : i - 1;
        size = assemble(order, count + 1, bytes);
        assert_int_equal(TANDEM_E_CORRUPT, read_all(bytes, size, 500, why));
        for (unsigned i = 0; i < count; i++)
            order[i] = i < count - 2 ? i + (i >= lack) : i == count - 2 ? lack : i;
        size = assemble(order, count, bytes); /* it stands between the collections */
        assert_int_equal(TANDEM_E_CORRUPT, read_all(bytes, size, 500, why));
    }
    free(bytes);
}

/* Bodies that are wrong under checksums that are right: refused or read, and nothing worse. */
static void no_mutation_does_harm(void **state)
{
    size_t count = json_array_size(json_object_get(vector, "records")), size;
    uint8_t *bytes = malloc(sizeof(stream));
    uint64_t dice = 88172645463325252;
    char why[TD_BACKUP_WHY_BYTES];
    unsigned order[32] = {0};

    (void)state;
    assert_non_null(bytes);
    for (unsigned i = 0; i < count; i++)
        order[i] = i;
    size = assemble(order, count, bytes);
    for (unsigned round = 0; round < 3000; round++) {
        size_t at = sizeof(td_backup_magic);
        uint64_t checksum = 0;
        tandem_err err;

        memcpy(bytes, stream, size);
        for (unsigned record = 0; at < size; record++) {
            size_t all = TD_BACKUP_HEAD_BYTES + td_get_u32(bytes + at + 1);

            dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
            if (record == round % count)
                bytes[at + TD_BACKUP_HEAD_BYTES + dice % (all - TD_BACKUP_HEAD_BYTES)] ^=
                    (uint8_t)(1 << (dice >> 40) % 8);
            checksum = XXH3_64bits_withSeed(bytes + at, all, checksum);
            td_put_u64(bytes + at + all, checksum);
            at += all + TD_BACKUP_CHECKSUM_BYTES;
        }
        err = read_all(bytes, size, size, why);
        assert_true(err == TANDEM_OK || err == TANDEM_E_CORRUPT || err == TANDEM_E_FORMAT_NEWER);
    }
    free(bytes);
}

/* The vector's stream with another body, or another kind, in the place of one record's. */
static tandem_err read_with_why(size_t changed, int kind, const tandem_writer *other, char *why)
{
    const json_t *records = json_object_get(vector, "records");
    static uint8_t bytes[sizeof(stream)], body[16 * 1024];
    size_t at = sizeof(td_backup_magic);
    uint64_t checksum = 0;

    memcpy(bytes, td_backup_magic, at);
    for (size_t i = 0; i < json_array_size(records); i++) {
        const json_t *record = json_array_get(records, i);
        size_t size = bytes_of(record, "body", body, sizeof(body));
        const uint8_t *from = body;

        if (i == changed && other) {
            from = other->bytes;
            size = other->size;
        }
        bytes[at] = (uint8_t)json_integer_value(json_object_get(record, "kind"));
        if (i == changed && kind)
            bytes[at] = (uint8_t)kind;
        td_put_u32(bytes + at + 1, (uint32_t)size);
        if (size)
            memcpy(bytes + at + TD_BACKUP_HEAD_BYTES, from, size);
        checksum = XXH3_64bits_withSeed(bytes + at, TD_BACKUP_HEAD_BYTES + size, checksum);
        td_put_u64(bytes + at + TD_BACKUP_HEAD_BYTES + size, checksum);
        at += TD_BACKUP_HEAD_BYTES + size + TD_BACKUP_CHECKSUM_BYTES;
    }
    return read_all(bytes, at, at, why);
}

static tandem_err read_with(size_t changed, int kind, const tandem_writer *other)
{
    char why[TD_BACKUP_WHY_BYTES];

    return read_with_why(changed, kind, other, why);
}

/* The items in body, an array's or a row of bins, with the one at position at replaced. True if
 * there was one. */
static bool replace_item(tandem_slice body, size_t at, tandem_slice by, tandem_writer *out)
{
    tandem_reader reader = tandem_reader_of(body);
    tandem_slice item;
    uint32_t count;
    bool replaced = false;

    tandem_writer_clear(out);
    if (tandem_read_array(&reader, &count) == TANDEM_OK)
        tandem_write_array(out, count);
    for (size_t i = 0; tandem_reader_left(&reader); i++) {
        assert_int_equal(TANDEM_OK, tandem_read_skip(&reader, &item));
        tandem_write_raw(out, i == at ? by : item);
        replaced |= i == at;
    }
    return replaced;
}

/* Each field of each record is missed, wherever the checksums say that all is well. */
static void a_record_with_other_fields_is_refused(void **state)
{
    const json_t *records = json_object_get(vector, "records");
    const tandem_slice strangers[] = {tandem_slice_text("\xc0"), tandem_slice_text("\xc4\x03xyz"),
                                      tandem_slice_text("\x91\x01"), tandem_slice_of(NULL, 0)};
    static uint8_t bytes[16 * 1024];
    tandem_writer other;

    (void)state;
    tandem_writer_init(&other);
    for (size_t i = 0; i < json_array_size(records); i++) {
        tandem_slice body = tandem_slice_of(bytes, bytes_of(json_array_get(records, i), "body",
                                                            bytes, sizeof(bytes)));

        for (size_t k = 0; k < sizeof(strangers) / sizeof(strangers[0]); k++)
            for (size_t at = 0; replace_item(body, at, strangers[k], &other); at++)
                assert_int_equal(TANDEM_E_CORRUPT, read_with(i, 0, &other));
        tandem_writer_clear(&other);
        assert_int_equal(TANDEM_E_CORRUPT, read_with(i, 0, &other));
        tandem_write_raw(&other, body);
        assert_int_equal(TANDEM_OK, read_with(i, 0, &other));
        tandem_write_raw(&other, strangers[0]);
        assert_int_equal(TANDEM_E_CORRUPT, read_with(i, 0, &other));
        assert_int_equal(TANDEM_E_CORRUPT, read_with(i, 99, NULL));
    }
    tandem_writer_release(&other);
}

/* Of the vector with lacks: the header; its first lack, behind seq 2; the job behind that; one more lack
 * and, two records later, a job. */
enum { HEADER = 0, LACK = 3, BEHIND_LACK = 4, LATER_LACK = 5, LATER_JOB = 7 };

static void put_lack(tandem_writer *out, uint64_t first, uint64_t last, const uint8_t *hash,
                     uint64_t reason)
{
    uint8_t zeros[TANDEM_HASH_BYTES] = {0}, origin[TANDEM_ORIGIN_BYTES];

    bytes_of(vector, "origin", origin, sizeof(origin));
    tandem_writer_clear(out);
    tandem_write_array(out, 6);
    tandem_write_binary(out, tandem_slice_of(origin, sizeof(origin)));
    tandem_write_uint(out, first);
    tandem_write_uint(out, last);
    tandem_write_binary(out, tandem_slice_of(zeros, sizeof(zeros)));
    tandem_write_binary(out, tandem_slice_of(hash, TANDEM_HASH_BYTES));
    tandem_write_uint(out, reason);
}

static void expect_refused_in(size_t record, tandem_writer *other, const char *sentence)
{
    char why[TD_BACKUP_WHY_BYTES];

    assert_int_equal(TANDEM_E_CORRUPT, read_with_why(record, 0, other, why));
    if (!strstr(why, sentence))
        fail_msg("`%s` is not in `%s`", sentence, why);
}

/* The last operation of a record of them, hashed; valid until the next call. */
static td_operation last_of(size_t record)
{
    static uint8_t body[16 * 1024];
    size_t size = bytes_of(json_array_get(json_object_get(vector, "records"), record), "body", body,
                           sizeof(body));
    tandem_reader bins = tandem_reader_of(tandem_slice_of(body, size));
    tandem_slice canonical;
    td_operation operation;

    while (tandem_reader_left(&bins))
        assert_int_equal(TANDEM_OK, tandem_read_binary(&bins, &canonical));
    assert_int_equal(TANDEM_OK, td_operation_parse(canonical, &operation));
    td_operation_hash(&operation);
    return operation;
}

static void what_cannot_be_lacking_is_refused(void **state)
{
    uint8_t body[256];
    td_operation second = last_of(LACK - 1), fifth, eighth;
    tandem_writer other;
    size_t size;

    (void)state;
    tandem_writer_init(&other);
    put_lack(&other, 2, 2, second.hash, 0); /* a head */
    expect_refused_in(LACK, &other, "cannot be");
    put_lack(&other, 4, 3, second.hash, 0);
    expect_refused_in(LACK, &other, "cannot be");
    put_lack(&other, 0, 4, second.hash, 0);
    expect_refused_in(LACK, &other, "cannot be");
    put_lack(&other, 3, 4, second.hash, UINT64_C(1) << 31);
    expect_refused_in(LACK, &other, "no lack");
    fifth = last_of(BEHIND_LACK);
    put_lack(&other, 3, 4, fifth.predecessor, 32); /* known already */
    expect_refused_in(LATER_LACK, &other, "cannot be");
    eighth = last_of(LATER_JOB);
    put_lack(&other, 8, 8, eighth.hash, 32); /* it comes */
    expect_refused_in(LATER_LACK, &other, "is said to be lacking");
    /* Version 1 has none. */
    size = bytes_of(json_array_get(json_object_get(vector, "records"), HEADER), "body", body,
                    sizeof(body));
    tandem_writer_clear(&other);
    assert_int_equal(2, body[1]);
    body[1] = 1;
    tandem_write_raw(&other, tandem_slice_of(body, size));
    assert_int_equal(TANDEM_E_CORRUPT, read_with(HEADER, 0, &other));
    tandem_writer_release(&other);
}

/* One record with a right checksum behind the magic. */
static tandem_err read_one(uint8_t kind, const void *body, size_t size, char *why)
{
    uint8_t bytes[256];
    size_t at = sizeof(td_backup_magic);

    memcpy(bytes, td_backup_magic, at);
    bytes[at] = kind;
    td_put_u32(bytes + at + 1, (uint32_t)size);
    memcpy(bytes + at + TD_BACKUP_HEAD_BYTES, body, size);
    td_put_u64(bytes + at + TD_BACKUP_HEAD_BYTES + size,
               XXH3_64bits_withSeed(bytes + at, TD_BACKUP_HEAD_BYTES + size, 0));
    return read_all(bytes, at + TD_BACKUP_HEAD_BYTES + size + TD_BACKUP_CHECKSUM_BYTES, 7, why);
}

static void a_newer_version_is_told(void **state)
{
    char why[TD_BACKUP_WHY_BYTES];

    (void)state;
    assert_int_equal(TANDEM_E_FORMAT_NEWER, read_one(TD_BACKUP_HEADER, "\x91\x03", 2, why));
    assert_non_null(strstr(why, "newer"));
    assert_int_equal(TANDEM_E_CORRUPT, read_one(TD_BACKUP_HEADER, "\x91\x01", 2, why));
    assert_int_equal(TANDEM_E_CORRUPT, read_one(TD_BACKUP_HEADER, "\x90", 1, why));
    assert_int_equal(TANDEM_E_CORRUPT, read_one(TD_BACKUP_HEADER, "", 0, why));
    assert_int_equal(TANDEM_E_CORRUPT, read_one(99, "\x90", 1, why));
}

/* Before anything is allocated for it. */
static void a_record_that_claims_to_be_huge_is_refused(void **state)
{
    uint8_t bytes[TD_BACKUP_MAGIC_BYTES + TD_BACKUP_HEAD_BYTES];
    char why[TD_BACKUP_WHY_BYTES];

    (void)state;
    memcpy(bytes, td_backup_magic, sizeof(td_backup_magic));
    bytes[TD_BACKUP_MAGIC_BYTES] = TD_BACKUP_HEADER;
    td_put_u32(bytes + TD_BACKUP_MAGIC_BYTES + 1, TD_BACKUP_BODY_BYTES_MAX + 1);
    assert_int_equal(TANDEM_E_CORRUPT, read_all(bytes, sizeof(bytes), 1, why));
    assert_non_null(strstr(why, "too large"));
}

static void an_error_of_the_sink_sticks(void **state)
{
    char why[TD_BACKUP_WHY_BYTES] = "untouched";
    struct echo echo;
    td_backup_reader *reader = echo_open(&echo);

    (void)state;
    echo.fail_job = TANDEM_E_STORE_FULL;
    assert_int_equal(TANDEM_E_STORE_FULL,
                     td_backup_reader_feed(reader, tandem_slice_of(stream, stream_size), why));
    echo.fail_job = TANDEM_OK;
    assert_int_equal(TANDEM_E_STORE_FULL,
                     td_backup_reader_feed(reader, tandem_slice_of(stream, 1), why));
    assert_int_equal(TANDEM_E_STORE_FULL, td_backup_reader_finish(reader, why));
    assert_string_equal("untouched", why);
    echo_release(&echo, reader);
}

static tandem_err refuse_bytes(void *context, tandem_slice bytes)
{
    size_t *room = context;

    if (bytes.size > *room)
        return TANDEM_E_IO;
    *room -= bytes.size;
    return TANDEM_OK;
}

static void no_backup_lacks_more_than_a_store_can(void **state)
{
    const td_backup_header header = {.ordinal = 1, .has_lacks = true};
    const uint8_t origin[TANDEM_ORIGIN_BYTES] = {1};
    td_lack lack = {.first = 1, .last = 1};
    td_backup_collection put;
    char why[TD_BACKUP_WHY_BYTES];
    struct echo echo;
    td_backup_reader *reader = echo_open(&echo);

    (void)state;
    assert_int_equal(TANDEM_OK, td_backup_put_header(echo.writer, &header));
    for (uint32_t i = 0; i <= TD_LACKS_MAX; i++) {
        if (i % TD_LACKS_MAX == 0) /* the last one is of another collection */
            assert_int_equal(TANDEM_OK, td_backup_put_collection(echo.writer, tandem_slice_text(
                                                                                  i ? "z" : "a")));
        td_put_u32(lack.hash, i);
        assert_int_equal(TANDEM_OK, td_backup_put_lack(echo.writer, origin, &lack));
        if (i == TD_LACKS_MAX - 1) {
            td_put_u32(lack.hash, i + 1);
            assert_int_equal(TANDEM_E_CORRUPT, td_backup_put_lack(echo.writer, origin, &lack));
        }
        if (i >= TD_LACKS_MAX - 1)
            assert_int_equal(TANDEM_OK, td_backup_put_collection_end(echo.writer, 0, &put));
    }
    assert_int_equal(TANDEM_OK, td_backup_put_end(echo.writer));
    assert_int_equal(TANDEM_E_CORRUPT,
                     read_all(echo.out.bytes, echo.out.size, echo.out.size, why));
    assert_non_null(strstr(why, "lacking that cannot be"));
    echo_release(&echo, reader);
}

static void an_error_of_the_writer_s_target_comes_back(void **state)
{
    const td_backup_header header = {.ordinal = 1};

    (void)state;
    for (size_t room = 0; room < 60; room += 20) {
        td_backup_writer *writer;
        size_t left = room;

        assert_int_equal(TANDEM_OK, td_backup_writer_open(refuse_bytes, &left, &writer));
        assert_int_equal(TANDEM_E_IO, td_backup_put_header(writer, &header));
        td_backup_writer_free(writer);
    }
    td_backup_writer_free(NULL);
    td_backup_reader_free(NULL);
    td_heads_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vector_is_read_and_written_again),
        cmocka_unit_test(cut_off_anywhere_it_is_refused),
        cmocka_unit_test(any_flipped_bit_is_found),
        cmocka_unit_test(nothing_may_follow_the_end),
        cmocka_unit_test(records_out_of_place_are_refused),
        cmocka_unit_test(no_mutation_does_harm),
        cmocka_unit_test(a_record_with_other_fields_is_refused),
        cmocka_unit_test(a_newer_version_is_told),
        cmocka_unit_test(a_record_that_claims_to_be_huge_is_refused),
        cmocka_unit_test(an_error_of_the_sink_sticks),
        cmocka_unit_test(an_error_of_the_writer_s_target_comes_back),
    };
    const struct CMUnitTest with_lacks[] = {
        cmocka_unit_test(a_vector_with_lacks_is_read_and_written_again),
        cmocka_unit_test(cut_off_anywhere_it_is_refused),
        cmocka_unit_test(any_flipped_bit_is_found),
        cmocka_unit_test(nothing_may_follow_the_end),
        cmocka_unit_test(lacks_out_of_place_are_refused),
        cmocka_unit_test(what_cannot_be_lacking_is_refused),
        cmocka_unit_test(no_backup_lacks_more_than_a_store_can),
        cmocka_unit_test(no_mutation_does_harm),
        cmocka_unit_test(a_record_with_other_fields_is_refused),
    };
    const char *path = TANDEM_VECTORS_DIR "/backup.json";
    json_error_t error;
    int failed;

    if (sodium_init() < 0)
        return 1;
    vectors = json_load_file(path, 0, &error);
    if (!vectors) {
        fprintf(stderr, "%s: %s\n", path, error.text);
        return 1;
    }
    use(NULL);
    failed = cmocka_run_group_tests_name("backup_stream", tests, NULL, NULL);
    use("lacks");
    failed += cmocka_run_group_tests_name("backup_stream with lacks", with_lacks, NULL, NULL);
    json_decref(vectors);
    return failed;
}
