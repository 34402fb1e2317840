/*
 * What the simulator writes by default: counters that are only ever added 1 to, so that their value
 * tells whether an operation was lost or applied twice; maps that several reactors write at once,
 * delete and create again; and logs, whose order tells about the order of the fold.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sync/plan.h"

/* Rarely a job is so long that its fold leaves a snapshot, or so large that it fills a message. */
enum { COUNTERS = 3, MAPS = 3, ADDS_MAX = 6, ADDS_LONG = 300, BLOB_BYTES = 150 * 1024 };

struct written {
    uint16_t counter; /* COUNTERS: another job */
    uint16_t adds;
    bool failed;
};

struct workload {
    struct written *jobs; /* by number */
    size_t capacity;
    uint64_t durable[COUNTERS], unknown[COUNTERS], lost[COUNTERS];
    /* The job that is being written: */
    char collection[16], document[16], json[BLOB_BYTES + 64];
    tandem_input inputs[ADDS_LONG];
};

static tandem_err workload_open(void **out)
{
    struct workload *workload = calloc(1, sizeof(*workload));

    *out = workload;
    return workload ? TANDEM_OK : TANDEM_E_NOMEM;
}

static bool remember(struct workload *workload, uint64_t number, struct written written)
{
    if (number >= workload->capacity) {
        size_t capacity = workload->capacity ? workload->capacity * 2 : 256;
        struct written *jobs;

        while (capacity <= number)
            capacity *= 2;
        if (!(jobs = realloc(workload->jobs, capacity * sizeof(*jobs))))
            return false;
        for (size_t i = workload->capacity; i < capacity; i++)
            jobs[i] = (struct written){.counter = COUNTERS};
        workload->jobs = jobs;
        workload->capacity = capacity;
    }
    workload->jobs[number] = written;
    return true;
}

static void write_counter(struct workload *workload, unsigned which, unsigned adds,
                          tandem_job *job)
{
    snprintf(workload->document, sizeof(workload->document), "counter");
    snprintf(workload->collection, sizeof(workload->collection), "c%u", which);
    for (unsigned i = 0; i < adds; i++)
        workload->inputs[i] = (tandem_input){.type = "counter.ADD", .json = "1"};
    job->count = adds;
}

static void write_map(struct workload *workload, uint64_t number, uint64_t *state,
                      tandem_job *job)
{
    uint64_t key = td_plan_draw_below(state, 5);

    snprintf(workload->document, sizeof(workload->document), "map%u",
             (unsigned)td_plan_draw_below(state, MAPS));
    if (td_plan_draw_below(state, 12) == 0) {
        job->count = 0; /* deleted */
        return;
    }
    job->count = 1;
    if (td_plan_draw_below(state, 8) == 0) {
        snprintf(workload->json, sizeof(workload->json), "[\"k%" PRIu64 "\"]", key);
        workload->inputs[0] = (tandem_input){.type = "kv.UNSET", .json = workload->json};
        job->model = "kv";
    } else {
        snprintf(workload->json, sizeof(workload->json), "{\"k%" PRIu64 "\":%" PRIu64 "}", key,
                 number);
        workload->inputs[0] = (tandem_input){.type = "kv.SET", .json = workload->json};
    }
    if (td_plan_draw_below(state, 6) == 0)
        workload->inputs[0].scope = "notes";
    if (td_plan_draw_below(state, 6) == 0)
        job->branch = "draft";
}

static void write_blob(struct workload *workload, uint64_t number, tandem_job *job)
{
    int at = snprintf(workload->json, sizeof(workload->json), "{\"%" PRIu64 "\":\"", number % 4);

    snprintf(workload->document, sizeof(workload->document), "blobs");
    memset(workload->json + at, 'x', BLOB_BYTES);
    strcpy(workload->json + at + BLOB_BYTES, "\"}");
    workload->inputs[0] = (tandem_input){.type = "kv.SET", .json = workload->json};
    job->count = 1;
}

static void workload_job(void *context, tandem_reactor *reactor, uint64_t number, uint64_t random,
                         tandem_job *job)
{
    struct workload *workload = context;
    uint64_t state = random;
    unsigned which = (unsigned)td_plan_draw_below(&state, COUNTERS);
    struct written written = {.counter = COUNTERS};

    (void)reactor;
    snprintf(workload->collection, sizeof(workload->collection), "c%u", which);
    *job = (tandem_job){.collection = workload->collection,
                        .document = workload->document,
                        .operations = workload->inputs};
    switch (td_plan_draw_below(&state, 5)) {
    case 0:
    case 1:
        written.counter = (uint16_t)which;
        written.adds = (uint16_t)(1 + td_plan_draw_below(&state, ADDS_MAX));
        if (td_plan_draw_below(&state, 250) == 0)
            written.adds = ADDS_LONG;
        if (!remember(workload, number, written)) {
            write_map(workload, number, &state, job);
        } else {
            write_counter(workload, which, written.adds, job);
        }
        break;
    case 2:
        snprintf(workload->document, sizeof(workload->document), "log");
        remember(workload, number, written);
        snprintf(workload->json, sizeof(workload->json), "%" PRIu64, number);
        workload->inputs[0] = (tandem_input){.type = "log.APPEND", .json = workload->json};
        job->count = 1;
        break;
    default:
        if (td_plan_draw_below(&state, 50) == 0)
            write_blob(workload, number, job);
        else
            write_map(workload, number, &state, job);
        break;
    }
}

static void workload_outcome(void *context, uint64_t number, tandem_outcome outcome)
{
    struct workload *workload = context;
    struct written written;

    if (number >= workload->capacity)
        return;
    workload->jobs[number].failed = outcome == TANDEM_OUTCOME_FAILED;
    written = workload->jobs[number];
    if (written.counter == COUNTERS)
        return;
    switch (outcome) {
    case TANDEM_OUTCOME_DURABLE:
        workload->durable[written.counter] += written.adds;
        break;
    case TANDEM_OUTCOME_FAILED:
        break;
    case TANDEM_OUTCOME_UNKNOWN:
        workload->unknown[written.counter] += written.adds;
        break;
    case TANDEM_OUTCOME_STRANDED:
        workload->unknown[written.counter] += written.adds;
        __attribute__((fallthrough));
    case TANDEM_OUTCOME_LOST:
        workload->durable[written.counter] -= written.adds;
        workload->lost[written.counter] += written.adds;
        break;
    }
}

static tandem_err check_counter(struct workload *workload, tandem_reactor *reactor, unsigned which,
                                char why[256])
{
    uint64_t least = workload->durable[which], most = least + workload->unknown[which], value;
    char collection[16], text[TANDEM_WHY_BYTES];
    tandem_document *document;
    const char *json;
    tandem_err err;

    snprintf(collection, sizeof(collection), "c%u", which);
    err = tandem_document_read(reactor, collection, "counter", NULL, NULL, UINT64_MAX, &document,
                               text);
    /* The job that created it may be one of those that nobody holds any more. */
    if (err == TANDEM_E_NOT_FOUND && (least == 0 || workload->lost[which]))
        return TANDEM_OK;
    if (err != TANDEM_OK) {
        snprintf(why, 256, "the counter of %s cannot be read: %s", collection, text);
        return TANDEM_E_STATE;
    }
    json = tandem_document_json(document);
    value = json ? strtoull(json, NULL, 10) : 0;
    tandem_document_free(document);
    if (!json) {
        snprintf(why, 256, "the counter of %s cannot be shown: no memory", collection);
        return TANDEM_E_NOMEM;
    }
    if (value >= least && value <= most)
        return TANDEM_OK;
    snprintf(why, 256, "the counter of %s shows %" PRIu64 "; %" PRIu64 " to %" PRIu64
             " were added: an operation is lost or counted twice", collection, value, least, most);
    return TANDEM_E_STATE;
}

/* A log holds the numbers of the jobs that wrote it: none of one that failed, and none twice. */
static tandem_err check_log(struct workload *workload, tandem_reactor *reactor, unsigned which,
                            char why[256])
{
    char collection[16], text[TANDEM_WHY_BYTES];
    uint64_t number;
    uint32_t items;
    tandem_document *document;
    tandem_reader reader;
    uint8_t *seen;
    tandem_err err;

    snprintf(collection, sizeof(collection), "c%u", which);
    err = tandem_document_read(reactor, collection, "log", NULL, NULL, UINT64_MAX, &document, text);
    if (err == TANDEM_E_NOT_FOUND)
        return TANDEM_OK;
    if (err != TANDEM_OK) {
        snprintf(why, 256, "the log of %s cannot be read: %s", collection, text);
        return TANDEM_E_STATE;
    }
    if (!(seen = calloc(1, workload->capacity + 1))) {
        tandem_document_free(document);
        return TANDEM_E_NOMEM;
    }
    reader = tandem_reader_of(tandem_document_state(document));
    err = tandem_read_array(&reader, &items);
    while (err == TANDEM_OK && items--) {
        if ((err = tandem_read_uint(&reader, &number)) != TANDEM_OK || number >= workload->capacity)
            continue;
        if (workload->jobs[number].failed || seen[number]++) {
            snprintf(why, 256, "the log of %s shows job %" PRIu64 ", which %s", collection, number,
                     workload->jobs[number].failed ? "was reported as failed" : "stands there twice");
            err = TANDEM_E_STATE;
        }
    }
    free(seen);
    tandem_document_free(document);
    return err;
}

static tandem_err workload_check(void *context, tandem_reactor *reactor, char why[256])
{
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; i < COUNTERS && err == TANDEM_OK; i++)
        if ((err = check_counter(context, reactor, i, why)) == TANDEM_OK)
            err = check_log(context, reactor, i, why);
    return err;
}

static void workload_free(void *context)
{
    struct workload *workload = context;

    if (workload)
        free(workload->jobs);
    free(workload);
}

const tandem_workload *tandem_default_workload(void)
{
    /* Few, so that one is often in several shares. */
    static const char *const documents[] = {"map*", "map0", "map[12]", "counter",
                                            "log",  "[cl]*", NULL};
    static const tandem_workload workload = {
        .open = workload_open,
        .job = workload_job,
        .outcome = workload_outcome,
        .check = workload_check,
        .free = workload_free,
        .name = "mixed",
        .documents = documents,
    };

    return &workload;
}

const tandem_workload *tandem_find_workload(const char *name)
{
    const tandem_workload *const all[] = {tandem_default_workload(), tandem_text_workload()};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (!strcmp(all[i]->name, name))
            return all[i];
    return NULL;
}
