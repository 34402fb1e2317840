#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>

#include "store/backup_stream.h"

/* Not text, and damaged by whatever takes it for text: a byte above 127, CR LF, ^Z, LF. */
const uint8_t td_backup_magic[TD_BACKUP_MAGIC_BYTES] = {0x89, 'T', 'D', 'B', '\r', '\n', 0x1a, '\n'};

struct td_backup_writer {
    tandem_err (*write)(void *context, tandem_slice bytes);
    void *context;
    tandem_writer record; /* kind, size, and the body so far; empty: no record is begun */
    uint64_t checksum;    /* of the record before */
    td_heads *heads;
    uint64_t operations; /* of the collection */
    td_backup_totals totals;
};

tandem_err td_backup_writer_open(tandem_err (*write)(void *context, tandem_slice bytes),
                                 void *context, td_backup_writer **out)
{
    td_backup_writer *writer = calloc(1, sizeof(*writer));

    if (!writer)
        return TANDEM_E_NOMEM;
    writer->write = write;
    writer->context = context;
    tandem_writer_init(&writer->record);
    if (td_heads_open(&writer->heads) != TANDEM_OK) {
        td_backup_writer_free(writer);
        return TANDEM_E_NOMEM;
    }
    *out = writer;
    return TANDEM_OK;
}

void td_backup_writer_free(td_backup_writer *writer)
{
    if (!writer)
        return;
    tandem_writer_release(&writer->record);
    td_heads_free(writer->heads);
    free(writer);
}

static void record_begin(td_backup_writer *writer, uint8_t kind)
{
    uint8_t head[TD_BACKUP_HEAD_BYTES] = {kind};

    assert(writer->record.size == 0);
    tandem_write_raw(&writer->record, tandem_slice_of(head, sizeof(head)));
}

static tandem_err put(td_backup_writer *writer, tandem_slice bytes)
{
    writer->totals.bytes += bytes.size;
    return writer->write(writer->context, bytes);
}

static tandem_err record_end(td_backup_writer *writer)
{
    tandem_writer *record = &writer->record;
    uint8_t sum[TD_BACKUP_CHECKSUM_BYTES];
    tandem_err err = tandem_writer_err(record);

    if (err == TANDEM_OK) {
        size_t body = record->size - TD_BACKUP_HEAD_BYTES;

        assert(body <= TD_BACKUP_BODY_BYTES_MAX);
        td_put_u32(record->bytes + 1, (uint32_t)body);
        writer->checksum = XXH3_64bits_withSeed(record->bytes, record->size, writer->checksum);
        td_put_u64(sum, writer->checksum);
        tandem_write_raw(record, tandem_slice_of(sum, sizeof(sum)));
        err = tandem_writer_err(record);
    }
    if (err == TANDEM_OK)
        err = put(writer, tandem_writer_slice(record));
    tandem_writer_clear(record);
    return err;
}

/* End a record of operations, if one is begun. */
static tandem_err flush(td_backup_writer *writer)
{
    return writer->record.size ? record_end(writer) : TANDEM_OK;
}

tandem_err td_backup_put_header(td_backup_writer *writer, const td_backup_header *header)
{
    tandem_err err = put(writer, tandem_slice_of(td_backup_magic, sizeof(td_backup_magic)));

    if (err != TANDEM_OK)
        return err;
    record_begin(writer, TD_BACKUP_HEADER);
    tandem_write_array(&writer->record, 5);
    tandem_write_uint(&writer->record, header->has_lacks ? 2 : 1);
    tandem_write_binary(&writer->record, tandem_slice_of(header->reactor, sizeof(header->reactor)));
    tandem_write_binary(&writer->record, tandem_slice_of(header->origin, sizeof(header->origin)));
    tandem_write_uint(&writer->record, header->ordinal);
    tandem_write_uint(&writer->record, header->taken_ms);
    return record_end(writer);
}

tandem_err td_backup_put_collection(td_backup_writer *writer, tandem_slice name)
{
    td_heads_clear(writer->heads);
    writer->operations = 0;
    record_begin(writer, TD_BACKUP_COLLECTION);
    tandem_write_array(&writer->record, 1);
    tandem_write_string(&writer->record, name);
    return record_end(writer);
}

bool td_backup_follows(const td_backup_writer *writer, const td_link *job)
{
    return td_heads_follows(writer->heads, job);
}

tandem_err td_backup_put_job(td_backup_writer *writer, const td_backup_job *job,
                             const td_link *link)
{
    tandem_err err;

    assert(job->branch || job->held == 0);
    if (!job->branch && !td_heads_follows(writer->heads, link))
        return TANDEM_E_CORRUPT;
    err = td_heads_add(writer->heads, link);
    if (err != TANDEM_OK)
        return err == TANDEM_E_QUARANTINED || err == TANDEM_E_INVALID ? TANDEM_E_CORRUPT : err;
    if (job->branch && (err = flush(writer)) != TANDEM_OK)
        return err;
    if (writer->record.size == 0)
        record_begin(writer, job->branch ? TD_BACKUP_BRANCH : TD_BACKUP_OPERATIONS);
    if (job->branch)
        tandem_write_uint(&writer->record, job->held);
    tandem_write_raw(&writer->record, job->operations);
    writer->operations += job->count - job->held;
    if (job->branch || writer->record.size >= TD_BACKUP_OPERATIONS_BYTES)
        return record_end(writer);
    return tandem_writer_err(&writer->record);
}

tandem_err td_backup_put_lack(td_backup_writer *writer, const uint8_t *origin, const td_lack *lack)
{
    tandem_err err = td_heads_add_lack(writer->heads, origin, lack);

    if (err != TANDEM_OK)
        return err == TANDEM_E_INVALID || err == TANDEM_E_LIMIT ? TANDEM_E_CORRUPT : err;
    if ((err = flush(writer)) != TANDEM_OK)
        return err;
    record_begin(writer, TD_BACKUP_LACK);
    tandem_write_array(&writer->record, 6);
    tandem_write_binary(&writer->record, tandem_slice_of(origin, TANDEM_ORIGIN_BYTES));
    tandem_write_uint(&writer->record, lack->first);
    tandem_write_uint(&writer->record, lack->last);
    tandem_write_binary(&writer->record,
                        tandem_slice_of(lack->predecessor, sizeof(lack->predecessor)));
    tandem_write_binary(&writer->record, tandem_slice_of(lack->hash, sizeof(lack->hash)));
    tandem_write_uint(&writer->record, (uint64_t)-(int64_t)lack->reason);
    return record_end(writer);
}

tandem_err td_backup_put_collection_end(td_backup_writer *writer, uint64_t last_ordinal,
                                        td_backup_collection *out)
{
    tandem_err err = flush(writer);

    if (err != TANDEM_OK)
        return err;
    *out = (td_backup_collection){.last_ordinal = last_ordinal, .operations = writer->operations};
    td_heads_digest(writer->heads, out->vector_digest);
    writer->totals.collections++;
    writer->totals.operations += writer->operations;
    record_begin(writer, TD_BACKUP_COLLECTION_END);
    tandem_write_array(&writer->record, 3);
    tandem_write_uint(&writer->record, out->last_ordinal);
    tandem_write_uint(&writer->record, out->operations);
    tandem_write_binary(&writer->record,
                        tandem_slice_of(out->vector_digest, sizeof(out->vector_digest)));
    return record_end(writer);
}

tandem_err td_backup_put_remote(td_backup_writer *writer, tandem_slice name, tandem_slice url,
                                const td_kept_share *share)
{
    bool everything = share->direction == 0 && !share->bytes.size;

    writer->totals.remotes++;
    record_begin(writer, TD_BACKUP_REMOTE);
    tandem_write_array(&writer->record, everything ? 2 : 3);
    tandem_write_string(&writer->record, name);
    tandem_write_string(&writer->record, url);
    if (!everything)
        td_kept_share_write(share, &writer->record);
    return record_end(writer);
}

tandem_err td_backup_put_end(td_backup_writer *writer)
{
    record_begin(writer, TD_BACKUP_END);
    tandem_write_array(&writer->record, 3);
    tandem_write_uint(&writer->record, writer->totals.collections);
    tandem_write_uint(&writer->record, writer->totals.operations);
    tandem_write_uint(&writer->record, writer->totals.remotes);
    return record_end(writer);
}

const td_backup_totals *td_backup_written(const td_backup_writer *writer)
{
    return &writer->totals;
}
