#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "store/backup_stream.h"

enum { BODY_DEPTH_MAX = 16, BODY_ITEMS_MAX = 65536 };

/* What may come next. */
enum place { AT_MAGIC, AT_HEADER, BETWEEN, IN_COLLECTION, IN_REMOTES, AT_END };

struct td_backup_reader {
    td_backup_sink sink;
    enum place place;
    tandem_err err;      /* sticks */
    tandem_writer bytes; /* of the next record, as far as they have come */
    uint64_t records;
    uint64_t checksum; /* of the record before */
    char name[TANDEM_NAME_BYTES_MAX];
    size_t name_size; /* of the collection, or the last one; 0: none yet */
    td_heads *heads;
    uint64_t operations; /* of the collection */
    unsigned lacks;        /* so far … */
    unsigned lacks_before; /* … and before the collection */
    uint64_t version;
    td_backup_totals totals;
    char *why; /* of the call that runs */
};

tandem_err td_backup_reader_open(const td_backup_sink *sink, td_backup_reader **out)
{
    td_backup_reader *reader = calloc(1, sizeof(*reader));

    if (!reader)
        return TANDEM_E_NOMEM;
    reader->sink = *sink;
    tandem_writer_init(&reader->bytes);
    if (td_heads_open(&reader->heads) != TANDEM_OK) {
        td_backup_reader_free(reader);
        return TANDEM_E_NOMEM;
    }
    *out = reader;
    return TANDEM_OK;
}

void td_backup_reader_free(td_backup_reader *reader)
{
    if (!reader)
        return;
    tandem_writer_release(&reader->bytes);
    td_heads_free(reader->heads);
    free(reader);
}

static tandem_err refuse(td_backup_reader *reader, tandem_err err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static tandem_err refuse(td_backup_reader *reader, tandem_err err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(reader->why, TD_BACKUP_WHY_BYTES, format, args);
    va_end(args);
    return err;
}

static tandem_err damaged(td_backup_reader *reader, const char *what)
{
    return refuse(reader, TANDEM_E_CORRUPT, "the backup is damaged: record %llu, at byte %llu, %s",
                  (unsigned long long)reader->records, (unsigned long long)reader->totals.bytes,
                  what);
}

static tandem_err misplaced(td_backup_reader *reader)
{
    return damaged(reader, "does not belong there");
}

/* ---- Records of fields ---- */

/* Enter an array of at least count items; those behind them are of later versions. */
static bool enter(tandem_slice body, uint32_t count, tandem_reader *out)
{
    uint32_t items;

    *out = tandem_reader_of(body);
    return tandem_msgpack_validate(body, BODY_DEPTH_MAX, BODY_ITEMS_MAX) == TANDEM_OK &&
           tandem_read_array(out, &items) == TANDEM_OK && items >= count;
}

static bool read_fixed(tandem_reader *reader, uint8_t *out, size_t size)
{
    tandem_slice bytes;

    if (tandem_read_binary(reader, &bytes) != TANDEM_OK || bytes.size != size)
        return false;
    memcpy(out, bytes.bytes, size);
    return true;
}

static tandem_err take_header(td_backup_reader *reader, tandem_slice body)
{
    td_backup_header header;
    tandem_reader fields;

    if (reader->place != AT_HEADER)
        return misplaced(reader);
    if (!enter(body, 1, &fields) || tandem_read_uint(&fields, &reader->version) != TANDEM_OK)
        return damaged(reader, "is no header");
    if (reader->version > TD_BACKUP_VERSION)
        return refuse(reader, TANDEM_E_FORMAT_NEWER, "a backup of a newer version, %llu",
                      (unsigned long long)reader->version);
    if (!enter(body, 5, &fields) || tandem_read_uint(&fields, &reader->version) != TANDEM_OK ||
        !read_fixed(&fields, header.reactor, sizeof(header.reactor)) ||
        !read_fixed(&fields, header.origin, sizeof(header.origin)) ||
        tandem_read_uint(&fields, &header.ordinal) != TANDEM_OK ||
        tandem_read_uint(&fields, &header.taken_ms) != TANDEM_OK)
        return damaged(reader, "is no header");
    header.has_lacks = reader->version > 1;
    reader->place = BETWEEN;
    return reader->sink.header ? reader->sink.header(reader->sink.context, &header) : TANDEM_OK;
}

static tandem_err take_collection(td_backup_reader *reader, tandem_slice body)
{
    tandem_reader fields;
    tandem_slice name;

    if (reader->place != BETWEEN)
        return misplaced(reader);
    if (!enter(body, 1, &fields) || tandem_read_string(&fields, &name) != TANDEM_OK ||
        !td_name_valid(name))
        return damaged(reader, "names no collection");
    if (tandem_slice_compare(tandem_slice_of(reader->name, reader->name_size), name) >= 0)
        return misplaced(reader);
    memcpy(reader->name, name.bytes, name.size);
    reader->name_size = name.size;
    td_heads_clear(reader->heads);
    reader->operations = 0;
    reader->lacks_before = reader->lacks;
    reader->place = IN_COLLECTION;
    return TANDEM_OK;
}

static tandem_err take_collection_end(td_backup_reader *reader, tandem_slice body)
{
    td_backup_collection end = {.name = tandem_slice_of(reader->name, reader->name_size)};
    uint8_t digest[TANDEM_HASH_BYTES];
    tandem_reader fields;

    if (reader->place != IN_COLLECTION || (reader->operations == 0 && reader->lacks == reader->lacks_before))
        return misplaced(reader);
    if (!enter(body, 3, &fields) || tandem_read_uint(&fields, &end.last_ordinal) != TANDEM_OK ||
        tandem_read_uint(&fields, &end.operations) != TANDEM_OK ||
        !read_fixed(&fields, end.vector_digest, sizeof(end.vector_digest)))
        return damaged(reader, "is no end of a collection");
    td_heads_digest(reader->heads, digest);
    if (end.operations != reader->operations ||
        memcmp(end.vector_digest, digest, sizeof(digest)))
        return damaged(reader, "counts other operations than came");
    reader->totals.collections++;
    reader->totals.operations += end.operations;
    reader->place = BETWEEN;
    return reader->sink.collection ? reader->sink.collection(reader->sink.context, &end)
                                   : TANDEM_OK;
}

static tandem_err take_lack(td_backup_reader *reader, tandem_slice body)
{
    tandem_slice name = tandem_slice_of(reader->name, reader->name_size);
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    tandem_reader fields;
    uint64_t reason;
    td_lack lack;
    tandem_err err;

    if (reader->version < 2)
        return damaged(reader, "is of a kind that version 1 does not have");
    if (reader->place != IN_COLLECTION)
        return misplaced(reader);
    if (!enter(body, 6, &fields) || !read_fixed(&fields, origin, sizeof(origin)) ||
        tandem_read_uint(&fields, &lack.first) != TANDEM_OK ||
        tandem_read_uint(&fields, &lack.last) != TANDEM_OK ||
        !read_fixed(&fields, lack.predecessor, sizeof(lack.predecessor)) ||
        !read_fixed(&fields, lack.hash, sizeof(lack.hash)) ||
        tandem_read_uint(&fields, &reason) != TANDEM_OK || reason > INT32_MAX)
        return damaged(reader, "is no lack");
    lack.reason = (tandem_err) - (int32_t)reason;
    lack.followed = false;
    err = td_heads_add_lack(reader->heads, origin, &lack);
    if (err == TANDEM_OK && reader->lacks++ == TD_LACKS_MAX)
        err = TANDEM_E_LIMIT;
    if (err != TANDEM_OK)
        return err == TANDEM_E_NOMEM
                   ? err
                   : damaged(reader, "says that something is lacking that cannot be");
    return reader->sink.lack ? reader->sink.lack(reader->sink.context, name, origin, &lack)
                             : TANDEM_OK;
}

static tandem_err take_remote(td_backup_reader *reader, tandem_slice body)
{
    td_kept_share share = {.direction = 0};
    tandem_slice name, url, value;
    tandem_reader fields;

    if (reader->place != BETWEEN && reader->place != IN_REMOTES)
        return misplaced(reader);
    if (!enter(body, 2, &fields) || tandem_read_string(&fields, &name) != TANDEM_OK ||
        tandem_read_string(&fields, &url) != TANDEM_OK || !td_name_valid(name))
        return damaged(reader, "is no remote");
    if (tandem_reader_left(&fields) && (tandem_read_skip(&fields, &value) != TANDEM_OK ||
                                        !td_kept_share_read(value, &share)))
        return damaged(reader, "is no remote");
    reader->totals.remotes++;
    reader->place = IN_REMOTES;
    return reader->sink.remote ? reader->sink.remote(reader->sink.context, name, url, &share)
                               : TANDEM_OK;
}

static tandem_err take_end(td_backup_reader *reader, tandem_slice body)
{
    uint64_t collections, operations, remotes;
    tandem_reader fields;

    if (reader->place != BETWEEN && reader->place != IN_REMOTES)
        return misplaced(reader);
    if (!enter(body, 3, &fields) || tandem_read_uint(&fields, &collections) != TANDEM_OK ||
        tandem_read_uint(&fields, &operations) != TANDEM_OK ||
        tandem_read_uint(&fields, &remotes) != TANDEM_OK)
        return damaged(reader, "is no end");
    if (collections != reader->totals.collections || operations != reader->totals.operations ||
        remotes != reader->totals.remotes)
        return damaged(reader, "counts other things than came");
    reader->place = AT_END;
    return TANDEM_OK;
}

/* ---- Records of operations ---- */

/* Step over one job and prove what can be proved of it alone. False: it is none. */
static bool job_read(td_backup_reader *reader, tandem_reader *bins, td_backup_job *job,
                     td_link *link)
{
    const uint8_t *begin = bins->at;
    td_operation operation;
    tandem_slice bytes;

    job->count = 0;
    do {
        if (job->count == TANDEM_JOB_OPERATIONS_MAX ||
            tandem_read_binary(bins, &bytes) != TANDEM_OK ||
            td_operation_parse(bytes, &operation) != TANDEM_OK ||
            !tandem_slice_equal(operation.collection,
                                tandem_slice_of(reader->name, reader->name_size)))
            return false;
        td_operation_hash(&operation);
        if (job->count == 0)
            td_link_begin(link, &operation);
        else if (td_link_continues(link, &operation))
            td_link_extend(link, &operation);
        else
            return false;
        job->count++;
    } while (operation.flags & TD_FLAG_CONTINUES);
    job->operations = tandem_slice_of(begin, (size_t)(bins->at - begin));
    return true;
}

static tandem_err take_job(td_backup_reader *reader, const td_backup_job *job, const td_link *link)
{
    tandem_err err;

    if (td_heads_follows(reader->heads, link) == job->branch)
        return damaged(reader, "does not follow what came before it");
    err = td_heads_add(reader->heads, link);
    if (err != TANDEM_OK)
        return err == TANDEM_E_QUARANTINED ? damaged(reader, "is a ninth branch")
               : err == TANDEM_E_INVALID   ? damaged(reader, "holds what is said to be lacking")
                                           : err;
    reader->operations += job->count - job->held;
    return reader->sink.job ? reader->sink.job(reader->sink.context, job) : TANDEM_OK;
}

static tandem_err take_jobs(td_backup_reader *reader, tandem_slice body, bool branch)
{
    tandem_reader bins = tandem_reader_of(body);
    td_backup_job job = {.branch = branch};
    uint64_t held = 0;
    td_link link;
    tandem_err err;

    if (reader->place != IN_COLLECTION)
        return misplaced(reader);
    if (branch && tandem_read_uint(&bins, &held) != TANDEM_OK)
        return damaged(reader, "is no branch");
    do {
        if (!job_read(reader, &bins, &job, &link) || held >= job.count)
            return damaged(reader, "holds what is no job");
        job.held = (uint32_t)held;
        if ((err = take_job(reader, &job, &link)) != TANDEM_OK)
            return err;
    } while (!branch && tandem_reader_left(&bins));
    return tandem_reader_left(&bins) ? damaged(reader, "holds more than a job") : TANDEM_OK;
}

/* ---- The stream ---- */

static tandem_err take_record(td_backup_reader *reader)
{
    const uint8_t *bytes = reader->bytes.bytes;
    size_t body = td_get_u32(bytes + 1), all = TD_BACKUP_HEAD_BYTES + body;
    tandem_slice content = tandem_slice_of(bytes + TD_BACKUP_HEAD_BYTES, body);
    uint64_t checksum = XXH3_64bits_withSeed(bytes, all, reader->checksum);

    reader->records++;
    if (checksum != td_get_u64(bytes + all))
        return damaged(reader, "does not match its checksum");
    reader->checksum = checksum;
    if (reader->place == AT_HEADER && bytes[0] != TD_BACKUP_HEADER)
        return misplaced(reader);
    switch (bytes[0]) {
    case TD_BACKUP_HEADER:
        return take_header(reader, content);
    case TD_BACKUP_COLLECTION:
        return take_collection(reader, content);
    case TD_BACKUP_OPERATIONS:
        return take_jobs(reader, content, false);
    case TD_BACKUP_BRANCH:
        return take_jobs(reader, content, true);
    case TD_BACKUP_COLLECTION_END:
        return take_collection_end(reader, content);
    case TD_BACKUP_REMOTE:
        return take_remote(reader, content);
    case TD_BACKUP_END:
        return take_end(reader, content);
    case TD_BACKUP_LACK:
        return take_lack(reader, content);
    default:
        return damaged(reader, "is of a kind that this version does not have");
    }
}

/* How many bytes make up what comes next, as far as is known. */
static tandem_err next_size(td_backup_reader *reader, size_t *out)
{
    size_t body;

    *out = TD_BACKUP_MAGIC_BYTES;
    if (reader->place == AT_MAGIC)
        return TANDEM_OK;
    *out = TD_BACKUP_HEAD_BYTES;
    if (reader->bytes.size < TD_BACKUP_HEAD_BYTES)
        return TANDEM_OK;
    body = td_get_u32(reader->bytes.bytes + 1);
    if (body > TD_BACKUP_BODY_BYTES_MAX) {
        reader->records++;
        return damaged(reader, "is too large");
    }
    *out += body + TD_BACKUP_CHECKSUM_BYTES;
    return TANDEM_OK;
}

/* All bytes of what comes next are there. */
static tandem_err take(td_backup_reader *reader)
{
    size_t size = reader->bytes.size;
    tandem_err err;

    if (reader->place == AT_MAGIC) {
        if (memcmp(reader->bytes.bytes, td_backup_magic, sizeof(td_backup_magic)))
            return refuse(reader, TANDEM_E_FORMAT, "it is no backup");
        reader->place = AT_HEADER;
    } else if ((err = take_record(reader)) != TANDEM_OK) {
        return err;
    }
    reader->totals.bytes += size;
    tandem_writer_clear(&reader->bytes);
    return TANDEM_OK;
}

static tandem_err feed(td_backup_reader *reader, tandem_slice bytes)
{
    size_t wanted, missing;
    tandem_err err;

    while (bytes.size) {
        if (reader->place == AT_END)
            return refuse(reader, TANDEM_E_CORRUPT, "the backup is damaged: it goes on behind its end");
        if ((err = next_size(reader, &wanted)) != TANDEM_OK)
            return err;
        missing = wanted - reader->bytes.size;
        if (missing > bytes.size)
            missing = bytes.size;
        tandem_write_raw(&reader->bytes, tandem_slice_of(bytes.bytes, missing));
        if ((err = tandem_writer_err(&reader->bytes)) != TANDEM_OK)
            return err;
        bytes = tandem_slice_of(bytes.bytes + missing, bytes.size - missing);
        /* The head tells how much more there is. */
        if ((err = next_size(reader, &wanted)) != TANDEM_OK)
            return err;
        if (reader->bytes.size == wanted && (err = take(reader)) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

tandem_err td_backup_reader_feed(td_backup_reader *reader, tandem_slice bytes,
                                 char why[TD_BACKUP_WHY_BYTES])
{
    reader->why = why;
    if (reader->err == TANDEM_OK)
        reader->err = feed(reader, bytes);
    return reader->err;
}

tandem_err td_backup_reader_finish(td_backup_reader *reader, char why[TD_BACKUP_WHY_BYTES])
{
    reader->why = why;
    if (reader->err != TANDEM_OK || reader->place == AT_END)
        return reader->err;
    if (reader->place == AT_MAGIC)
        reader->err = refuse(reader, TANDEM_E_FORMAT, "it is no backup: it ends too soon");
    else
        reader->err = refuse(reader, TANDEM_E_CORRUPT,
                             "the backup was cut off: it ends at byte %llu, in record %llu",
                             (unsigned long long)(reader->totals.bytes + reader->bytes.size),
                             (unsigned long long)reader->records + 1);
    return reader->err;
}

const td_backup_totals *td_backup_read(const td_backup_reader *reader)
{
    return &reader->totals;
}
