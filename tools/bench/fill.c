#include "tools/bench/fill.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/worker.h"
#include "tools/tandem/command.h"

enum { CREATED_AND_SET = 2, HEAD = 5, DIGITS = 16 };

/* A step of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). */
static uint64_t scramble(uint64_t value)
{
    value += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

void bench_payload(uint64_t number, uint8_t out[BENCH_PAYLOAD_BYTES])
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    enum { PER_WORD = 10, BITS = 6 };
    const uint8_t head[HEAD] = {0x81, 0xa1, 'v', 0xd9, BENCH_PAYLOAD_BYTES - HEAD};
    uint64_t word = 0;

    memcpy(out, head, HEAD);
    for (unsigned i = 0; i < BENCH_PAYLOAD_BYTES - HEAD; i++) {
        if (i % PER_WORD == 0)
            word = scramble(number << 8 | i);
        out[HEAD + i] = (uint8_t)letters[word % (1 << BITS)];
        word >>= BITS;
    }
}

void bench_payload_mark(uint8_t payload[BENCH_PAYLOAD_BYTES], uint64_t number)
{
    char digits[DIGITS + 1];

    snprintf(digits, sizeof(digits), "%016" PRIx64, number);
    memcpy(payload + HEAD, digits, DIGITS);
}

bool bench_payload_marked(tandem_slice payload, uint64_t *number)
{
    char digits[DIGITS + 1] = "", *end;

    if (payload.size != BENCH_PAYLOAD_BYTES)
        return false;
    memcpy(digits, payload.bytes + HEAD, DIGITS);
    *number = strtoull(digits, &end, 16);
    return end == digits + DIGITS;
}

void bench_job_make(bench_job *job, const bench_spread_over *over, uint64_t number)
{
    uint64_t document = number % over->documents;

    snprintf(job->collection, sizeof(job->collection), "c%" PRIu64, document % over->collections);
    snprintf(job->document, sizeof(job->document), "d%" PRIu64, document);
    bench_payload(number, job->payload);
    job->input = (tandem_input){.type = "kv.SET", .input = {job->payload, sizeof(job->payload)}};
    job->job = (tandem_job){.collection = job->collection,
                            .document = job->document,
                            .operations = &job->input,
                            .count = 1};
}

/* Operations that a group became: whether a document had come from elsewhere, nobody knew before. */
static uint64_t written_by(const tandem_receipt *receipts, size_t count)
{
    uint64_t written = 0;

    for (size_t i = 0; i < count; i++)
        written += receipts[i].seq - receipts[i].first_seq + 1;
    return written;
}

tandem_err bench_fill_reactor(tandem_reactor *reactor, const bench_spread_over *over,
                              uint64_t operations, size_t group)
{
    bench_job *made = calloc(group, sizeof(*made));
    tandem_job *jobs = calloc(group, sizeof(*jobs));
    tandem_receipt *receipts = calloc(group, sizeof(*receipts));
    char why[TANDEM_WHY_BYTES] = "";
    tandem_err err = made && jobs && receipts ? TANDEM_OK : TANDEM_E_NOMEM;
    uint64_t number = 0, held = 0;

    while (err == TANDEM_OK && held < operations) {
        uint64_t at_most = held;
        size_t count = 0;

        while (count < group && at_most < operations) {
            /* The first of a document creates it. An odd number of operations may be left over. */
            uint64_t takes = number < over->documents ? CREATED_AND_SET : 1;

            if (at_most + takes > operations) {
                number = over->documents;
                continue;
            }
            bench_job_make(&made[count], over, number++);
            jobs[count] = made[count].job;
            at_most += takes;
            count++;
        }
        err = tandem_execute_group(reactor, jobs, count, receipts, NULL, why);
        if (err == TANDEM_OK)
            held += written_by(receipts, count);
    }
    free(made);
    free(jobs);
    free(receipts);
    if (err != TANDEM_OK)
        cli_fail(err, why, "the bench's operations could not be written");
    return err;
}

tandem_err bench_canonical_bytes(tandem_reactor *reactor, uint64_t *out)
{
    tandem_operations *operations = NULL;
    tandem_operation operation;
    uint64_t count = 0, bytes = 0;
    tandem_err err = tandem_operations_open(reactor, "c0", NULL, 0, &operations);

    while (err == TANDEM_OK &&
           (err = tandem_operations_next(operations, &operation)) == TANDEM_OK) {
        count++;
        bytes += operation.canonical.size;
    }
    tandem_operations_free(operations);
    *out = count ? bytes / count : 0;
    return err == TANDEM_END ? TANDEM_OK : err;
}

/* ---- In a process of its own ---- */

struct fill {
    const char *folder;
    const bench_spread_over *over;
    uint64_t operations;
};

static tandem_err fill(void *context, void *shared)
{
    const struct fill *fill = context;
    tandem_options options = TANDEM_OPTIONS_INIT;
    bench_filled *filled = shared;
    tandem_reactor *reactor;
    uint64_t canonical = 0;
    tandem_err err;

    options.path = fill->folder;
    if ((err = tandem_open(&options, &reactor)) != TANDEM_OK) {
        cli_fail(err, NULL, "the bench's reactor could not be opened");
        return err;
    }
    if ((err = bench_fill_reactor(reactor, fill->over, fill->operations,
                                  BENCH_FILL_GROUP)) == TANDEM_OK &&
        (err = bench_canonical_bytes(reactor, &canonical)) == TANDEM_OK &&
        /* Until it is indexed. */
        (err = tandem_document_head(reactor, "c0", "d0", UINT64_MAX, NULL, NULL, NULL)) != TANDEM_OK)
        cli_fail(err, NULL, "the bench's reactor could not be filled");
    filled->operations = fill->operations;
    filled->canonical_bytes = canonical * fill->operations;
    tandem_close(reactor);
    return err;
}

tandem_err bench_fill_folder(const char *folder, const bench_spread_over *over,
                             uint64_t operations, bench_filled *out)
{
    struct fill context = {folder, over, operations};

    return bench_worker_run(fill, &context, out, sizeof(*out), NULL);
}
