/*
 * Job handles: the travel of one job between two reactors.
 *
 *   Unknown -> TransportPending -> ExecutionPending -> Applied
 *       \______________\__________________\__________-> Error
 *
 * In an outbox a handle stands for a job that the remote applies: started when it is put there,
 * transported when its operations went to the transport, executed when the remote holds them
 * durably. In an inbox (a pull job handle) it stands for a job applied here: started and transported
 * when it has arrived whole, executed when it is durable.
 *
 * Applied and Error are final. failed is legal from any state but Applied. Repeating a call that
 * took effect does nothing; any other transition is TANDEM_E_STATE and changes nothing.
 *
 * A handle names its operations; it holds their bytes only if they are in no store of ours.
 *
 * Ownership: whoever opened it, until a mailbox takes it; a mailbox gives it back on removal.
 * Threads:   one thread, that of the channel.
 */
#ifndef TANDEM_CHANNEL_JOB_HANDLE_H
#define TANDEM_CHANNEL_JOB_HANDLE_H

#include "channel/handle_shelf.h"
#include "store/operation.h"

typedef enum tandem_job_state {
    TANDEM_JOB_UNKNOWN = -1,
    TANDEM_JOB_TRANSPORT_PENDING = 0,
    TANDEM_JOB_EXECUTION_PENDING = 1,
    TANDEM_JOB_APPLIED = 2,
    TANDEM_JOB_ERROR = 3,
} tandem_job_state;

/* "unknown", "transport_pending", "execution_pending", "applied", "error". Static. */
const char *tandem_job_state_name(tandem_job_state state);

typedef struct tandem_job_handle tandem_job_handle;

/* Told after each change of status; handle is valid for the call. */
typedef void (*tandem_job_changed_fn)(void *context, tandem_job_handle *handle,
                                      tandem_job_state from, tandem_job_state to);

/* Who reads operations of handles. Whatever visit returns ends the reading, if it is not TANDEM_OK. */
typedef struct td_job_visitor {
    tandem_err (*visit)(void *context, tandem_slice canonical);
    /* All of a handle was visited: which one is to be read now? NULL: none. It keeps no operations.
     * The slot may be NULL, and whoever reads need not ask. */
    const tandem_job_handle *(*next)(void *context);
    void *context;
} td_job_visitor;

/* Reads a handle's operations, in order, out of where they are kept, and those of the handles that the
 * visitor asks for next: what stands side by side is found once. An error is about the last of them. */
typedef struct td_job_source {
    tandem_err (*read)(void *context, const tandem_job_handle *handle,
                       const td_job_visitor *visitor);
    void *context;
} td_job_source;

/* What few handles have. */
typedef struct td_handle_more {
    tandem_writer scopes;    /* of several: all of them */
    tandem_writer canonical; /* bins, one after the other, if it keeps its operations */
} td_handle_more;

struct tandem_job_handle {
    uint64_t id; /* unique in its mailbox, and in all that share their ids with it */
    tandem_job_state status;
    tandem_err error;
    uint64_t detail; /* of the error, as in ACK */
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t first_seq, last_seq;
    uint64_t first_ordinal; /* here; 0: in no store of ours */
    bool keeps;             /* a copy of its operations */
    uint32_t operations;
    uint64_t bytes; /* of canonical bytes */
    tandem_slice collection, document, branch; /* in names */
    /* Distinct scopes, in order of appearance, each terminated by NUL: a single one is in names. */
    tandem_slice scopes;
    td_handle_more *more; /* NULL: there is one scope, and it keeps nothing */
    tandem_slice elsewhere;  /* the same, in a message that is being delivered */
    const uint8_t *copy; /* of its one operation, until it is transported; NULL: there is none */
    td_shelf_block *copy_block; /* on which that stands */
    tandem_job_changed_fn changed;
    void *changed_context;
    /* The mailbox's and the session's: */
    tandem_job_changed_fn told; /* after changed */
    void *told_context;
    struct tandem_job_handle *prev, *next;
    uint64_t number; /* of the job in the session that sent it; 0: not sent in this session */
    bool waiting;    /* not to be sent until it is known what the peer holds */
    /* The sync manager's: */
    bool refused;         /* in the outbox until it is kept as a dead letter */
    uint64_t dead_letter; /* the dead letter that is offered again by it; 0: none */
    td_shelf_block *block; /* on which it stands; NULL: it has memory of its own */
    char names[];
};

/*
 * Begin a handle with its first operation, in status Unknown; td_job_handle_add() the others.
 *
 * ordinal  where the store has it, or 0
 * keep     keep a copy of the bytes
 */
tandem_err td_job_handle_open(const td_operation *first, uint64_t ordinal, bool keep,
                              tandem_job_handle **out);
/* The same on a shelf, which outlives it; for handles that keep nothing. */
tandem_err td_job_handle_open_on(td_handle_shelf *shelf, const td_operation *first,
                                 uint64_t ordinal, tandem_job_handle **out);
/* Have a handle of a single operation, which was just read, hold a copy of it until it is transported: so
 * it is not read again then. One that is large is not copied, nor where there is no memory. The shelf
 * outlives the handle. */
void td_job_handle_copy(tandem_job_handle *handle, td_handle_shelf *shelf, tandem_slice canonical);
/* TANDEM_E_CHAIN if it does not continue the job, TANDEM_E_LIMIT, TANDEM_E_NOMEM. */
tandem_err td_job_handle_add(tandem_job_handle *handle, const td_operation *next);
/* NULL is fine; it must be in no mailbox. */
void tandem_job_handle_free(tandem_job_handle *handle);

/* on(status change): one observer; NULL takes it away. */
void tandem_job_handle_on(tandem_job_handle *handle, tandem_job_changed_fn changed, void *context);

tandem_err tandem_job_handle_started(tandem_job_handle *handle);
tandem_err tandem_job_handle_transported(tandem_job_handle *handle);
tandem_err tandem_job_handle_executed(tandem_job_handle *handle);
tandem_err tandem_job_handle_failed(tandem_job_handle *handle, tandem_err error);

/* Does it hold or know its operations itself, so that no source is needed to read them? */
bool td_job_handle_has_bytes(const tandem_job_handle *handle);
/* Visit the canonical bytes of its operations, in order. source may be NULL if the handle has them;
 * only a source asks for what is next. Whatever the visitor or the source returns ends it, if it is
 * not TANDEM_OK. */
tandem_err tandem_job_handle_read(const tandem_job_handle *handle, const td_job_source *source,
                                  const td_job_visitor *visitor);

#endif
