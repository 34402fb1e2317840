/*
 * A local job on its way: what the application asked for, what the document view found out and
 * prepared, and what became of it. It travels caller -> executor -> document view -> executor ->
 * caller; whoever has it may touch it, nobody else.
 *
 * A group is one request: its jobs are committed together, all or none.
 */
#ifndef TANDEM_REACTOR_LOCAL_JOB_H
#define TANDEM_REACTOR_LOCAL_JOB_H

#include "reactor/clock.h"
#include "reactor/model.h"
#include "store/op_store.h"

enum {
    TD_GROUP_JOBS_MAX = 1000,
    /* States that are kept while a group is prepared, of models that look at them. */
    TD_GROUP_STATES_MAX = 1000,
    TD_WHY_BYTES = 128,
};

typedef struct td_local_operation {
    tandem_slice scope;
    tandem_slice type;  /* "SET" or "kv.SET", as the caller wrote it */
    tandem_slice input; /* one msgpack value, not validated yet */
    /* The view's: */
    tandem_slice verb;
    size_t payload_at; /* in the group's payloads */
    size_t payload_size;
} td_local_operation;

typedef struct td_local_job {
    tandem_slice collection;
    tandem_slice document;
    tandem_slice branch;
    tandem_slice model; /* what to create it with; empty: not named */
    td_local_operation *operations;
    size_t count; /* of operations; 0 if is_delete */
    bool is_delete;
    bool has_expect;
    uint64_t expect_position; /* ordinal of the document's newest operation; 0: unknown document */
    /* The view's: */
    char model_found[TANDEM_NAME_BYTES_MAX + 1];
    bool create; /* a CREATE goes before the operations */
    bool state_read; /* the payload depends on the folded state */
    uint64_t created_hlc; /* of the CREATE that it counts on: it must be dated after that; or 0 */
    /* The executor's: the job's last operation, once durable. */
    uint64_t seq;
    uint64_t first_seq;
    uint64_t ordinal;
    uint64_t hlc;
    uint8_t hash[TANDEM_HASH_BYTES];
} td_local_job;

typedef struct td_local_group {
    td_local_job *jobs;
    size_t count;
    uint64_t clock; /* the executor's: documents that are created later are of the future */
    tandem_writer payloads; /* the view's: prepared payloads, one after the other */
    uint64_t looked_at;     /* the view's: it had indexed up to this ordinal … */
    const uint8_t *origin;  /* … and these were to be written under this origin: the store's */
    /* The outcome: */
    tandem_err err;
    size_t failed_job; /* which job err is about */
    char why[TD_WHY_BYTES];
} td_local_group;

/*
 * Give a job that the view has prepared its operations, after `tip`: seq, HLC, chain and canonical
 * bytes, which are appended to encoded. out has room for TANDEM_JOB_OPERATIONS_MAX operations, which
 * are views into encoded.
 *
 * Threads: the executor's. Errors: TANDEM_E_LIMIT, TANDEM_E_NOMEM; then encoded has a part of it.
 */
tandem_err td_local_job_encode(const td_local_group *group, const td_local_job *job,
                               const uint8_t origin[TANDEM_ORIGIN_BYTES], td_head tip,
                               td_clock *clock, tandem_writer *encoded, td_operation *out,
                               size_t *count_out);

/* Format a sentence. Where names make it longer than its room, no character is cut in two. */
void td_why(char why[TD_WHY_BYTES], const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
