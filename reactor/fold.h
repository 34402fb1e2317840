/*
 * Folding: the state of one stream, from a cached state, the newest snapshot or nothing, and the
 * entries after it in total order.
 *
 * A cached state is right as long as no entry got in before its place: it remembers how many
 * entries it is the fold of, and those plus the ones after its place must be all that the stream
 * has. So nobody needs to tell the cache what arrived late.
 *
 * No-ops of every fold: operations of another model, CREATE and DELETE outside the scope
 * `document`, sealed payloads, payloads that fail the bounded reader, and what the model refuses.
 *
 * Threads: the document view's.
 */
#ifndef TANDEM_REACTOR_FOLD_H
#define TANDEM_REACTOR_FOLD_H

#include "reactor/local_job.h"
#include "reactor/model_registry.h"
#include "store/stream_index.h"

/*
 * A snapshot is left after this many entries, and after as many as make up for its size. So all that are
 * kept of a stream take less than 64 bytes an operation, which has four times as many on disk: a fifth
 * of it at most. A late operation folds what it is behind, up to four times as much where it is late by
 * far, and one such distance (tests/late_operation_test.c). Of a log whose entries are longer than 64
 * bytes there is none: whoever reads it is given all of them anyhow.
 */
enum { TD_SNAPSHOT_ENTRIES_MIN = 256, TD_SNAPSHOT_BYTES_PER_ENTRY = 64 };

typedef struct td_folder td_folder;

/* What a fold found. */
typedef struct td_fold {
    const tandem_model *model;
    const void *state; /* valid until the next call on the folder, or while that is held */
    uint64_t entries;  /* in the stream, those that are no-ops included */
    td_place place;    /* of the last one, or of the epoch, if that is behind it */
} td_fold;

/* states_max: how many states stay in memory, the longest unused going first. */
tandem_err td_folder_open(td_op_store *ops, const td_model_registry *registry, unsigned states_max,
                          td_folder **out);
void td_folder_free(td_folder *folder); /* NULL is fine */
/* From here on until it is released, no state is forgotten to make room: what folds have given stays
 * valid, as long as no stream is folded twice. */
void td_folder_hold(td_folder *folder);
void td_folder_release(td_folder *folder);
/* Forget all states. Not while it is held. */
void td_folder_clear(td_folder *folder);
/* How many entries were applied to states so far, no-ops included: the work that folding was. */
uint64_t td_folder_folded(const td_folder *folder);

/*
 * Fold a stream up to what the index holds.
 *
 * info   of the document, which is created
 * keep   cache the state; false for a walk over many documents
 * why    filled on failure
 *
 * A stream without entries has the empty state. Snapshots are left in the index.
 * Errors: TANDEM_E_MODEL_UNKNOWN, TANDEM_E_CORRUPT (a record of the stream), TANDEM_E_NOMEM, and
 * those of the index.
 */
tandem_err td_folder_fold(td_folder *folder, td_stream_index *index, tandem_slice collection,
                          tandem_slice document, const td_document_info *info, tandem_slice branch,
                          tandem_slice scope, bool keep, td_fold *out, char why[TD_WHY_BYTES]);

/* Apply one operation of a stream to a state. TANDEM_E_INPUT: it is a no-op, by the rules above or
 * because the model refuses it; or what else the model answers. */
tandem_err td_fold_apply(const tandem_model *model, void *state, const td_operation *operation);

typedef struct td_entry {
    td_place place;
    uint64_t ordinal;
} td_entry;

/* A visitor returns TANDEM_OK to go on, TANDEM_END to stop well, or an error. */
typedef tandem_err (*td_visit_entry_operation)(void *context, const td_entry *entry,
                                               const td_operation *operation);

/*
 * Read the operations of entries, in their order. A record that is corrupt is TANDEM_E_CORRUPT with
 * why naming its ordinal; one that is not there, or is another operation than the entry says, makes
 * the index distrusted besides.
 */
tandem_err td_entries_read(td_op_store *ops, td_stream_index *index, tandem_slice collection,
                           const td_entry *entries, size_t count, td_visit_entry_operation visit,
                           void *context, char why[TD_WHY_BYTES]);

#endif
