#include "reactor/local_job.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "store/stream_index.h"

/* What the operations of a job have in common, and where the next one is put. */
struct encoding {
    const td_local_job *job;
    const uint8_t *origin;
    td_clock *clock;
    td_head tip; /* the operation before it */
    tandem_writer *encoded;
};

static tandem_err encode(struct encoding *e, tandem_slice scope, tandem_slice type,
                         tandem_slice payload, bool continues, td_operation *out)
{
    size_t at = e->encoded->size;
    tandem_err err;

    *out = (td_operation){
        .version = TD_OPERATION_VERSION,
        .flags = continues ? TD_FLAG_CONTINUES : 0,
        .seq = e->tip.seq + 1,
        .hlc = td_clock_tick(e->clock),
        .origin = e->origin,
        .predecessor = e->tip.hash,
        .collection = e->job->collection,
        .document = e->job->document,
        .branch = e->job->branch,
        .scope = scope,
        .type = type,
        .payload = payload,
    };
    if ((err = td_operation_encode(out, e->encoded)) != TANDEM_OK)
        return err;
    /* The hash is needed now; the views are good for as long as the writer does not move. */
    if ((err = td_operation_parse(
             tandem_slice_of(e->encoded->bytes + at, e->encoded->size - at), out)) != TANDEM_OK)
        return err;
    td_operation_hash(out);
    e->tip.seq = out->seq;
    memcpy(e->tip.hash, out->hash, sizeof(e->tip.hash));
    return TANDEM_OK;
}

/* The buffer may have moved while it grew: take those views anew, the hashes stay. */
static void view_again(const tandem_writer *encoded, size_t at, td_operation *operations,
                       size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t hash[TANDEM_HASH_BYTES];
        size_t size = operations[i].canonical.size;
        tandem_err err;

        if (operations[i].canonical.bytes == encoded->bytes + at) {
            at += size;
            continue;
        }
        memcpy(hash, operations[i].hash, sizeof(hash));
        err = td_operation_parse(tandem_slice_of(encoded->bytes + at, size), &operations[i]);
        assert(err == TANDEM_OK);
        memcpy(operations[i].hash, hash, sizeof(hash));
        at += size;
    }
}

tandem_err td_local_job_encode(const td_local_group *group, const td_local_job *job,
                               const uint8_t origin[TANDEM_ORIGIN_BYTES], td_head tip,
                               td_clock *clock, tandem_writer *encoded, td_operation *out,
                               size_t *count_out)
{
    static const uint8_t nil[1] = {0xc0};
    bool lifecycle = job->create || job->is_delete;
    size_t total = job->count + lifecycle, at = encoded->size, n = 0;
    struct encoding e = {job, origin, clock, tip, encoded};
    char type[TANDEM_NAME_BYTES_MAX + 16];
    tandem_err err;

    assert(total >= 1 && total <= TANDEM_JOB_OPERATIONS_MAX);
    if (lifecycle) {
        snprintf(type, sizeof(type), "%s.%s", job->model_found,
                 job->is_delete ? "DELETE" : "CREATE");
        err = encode(&e, tandem_slice_text(TD_SCOPE_DOCUMENT), tandem_slice_text(type),
                     tandem_slice_of(nil, sizeof(nil)), total > 1, &out[n++]);
        if (err != TANDEM_OK)
            return err;
    }
    for (size_t i = 0; i < job->count; i++) {
        const td_local_operation *operation = &job->operations[i];
        tandem_slice payload = tandem_slice_of(group->payloads.bytes + operation->payload_at,
                                               operation->payload_size);

        snprintf(type, sizeof(type), "%s.%.*s", job->model_found, (int)operation->verb.size,
                 (const char *)operation->verb.bytes);
        err = encode(&e, operation->scope, tandem_slice_text(type), payload, i + 1 < job->count,
                     &out[n++]);
        if (err != TANDEM_OK)
            return err;
    }
    view_again(encoded, at, out, n);
    *count_out = n;
    return TANDEM_OK;
}

void td_why(char why[TD_WHY_BYTES], const char *format, ...)
{
    char whole[TD_WHY_BYTES + 1]; /* one more, to see where the cut is */
    size_t end;
    va_list args;

    va_start(args, format);
    vsnprintf(whole, sizeof(whole), format, args);
    va_end(args);
    end = strlen(whole);
    if (end == TD_WHY_BYTES)
        do
            end--;
        while (end > 0 && ((unsigned char)whole[end] & 0xc0) == 0x80);
    memcpy(why, whole, end);
    why[end] = '\0';
}
