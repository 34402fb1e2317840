/*
 * Preparing a local group: whether its jobs are right is decided against what is indexed, before
 * any operation exists. Jobs are looked at in order, each as if the ones before it were committed:
 * a document that one creates is there for the next. Only its position is not, so that an expected
 * position always means the one before the group.
 *
 * Threads: the document view's, with its index; the executor's, for documents that it knows by itself
 * (known.h).
 */
#ifndef TANDEM_REACTOR_PREPARE_H
#define TANDEM_REACTOR_PREPARE_H

#include "reactor/fold.h"
#include "reactor/local_job.h"

typedef struct td_preparer {
    /* What there is to know of a document before the group; asked once for each in a group. Any error
     * ends the preparing and is the group's. */
    tandem_err (*look)(void *context, tandem_slice collection, tandem_slice document,
                       td_document_info *out);
    void *look_context;
    /* To fold states with. Both NULL: look() finds no document whose model reads its state. */
    td_stream_index *index;
    td_folder *folder;
    const td_model_registry *registry;
} td_preparer;

/*
 * Check and prepare a group, which may have been prepared before. Its payloads, its jobs' answers,
 * err, failed_job and why are filled; looked_at is the caller's to set. Returns group->err.
 *
 * Errors: TANDEM_E_INPUT (a name, a verb, what the model refuses), TANDEM_E_UNSUPPORTED (a reserved
 * collection; two jobs on one document, or operations on one scope, of a model that looks at the state
 * and cannot pretend), TANDEM_E_CONFLICT, TANDEM_E_MODEL_UNKNOWN, TANDEM_E_MODEL_MISMATCH, TANDEM_E_NOT_FOUND
 * (nothing to delete), TANDEM_E_PAYLOAD, TANDEM_E_LIMIT, TANDEM_E_NOMEM, and those of a fold.
 */
tandem_err td_prepare(const td_preparer *preparer, td_local_group *group);

#endif
