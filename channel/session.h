/*
 * The session: the conversation of two reactors over one connection, as a state machine without I/O.
 * Messages go in, messages and mailbox changes come out; it owns no socket, thread or clock. What it
 * says is transport/PROTOCOL.md.
 *
 * It does what needs no knowledge of the store: numbering, HELLO, windows, JOBS out of the outbox and
 * into the inbox, ACK both ways, liveness, ERROR. What is announced and asked for is its user's
 * business (the sync manager): the session asks the user for the next announcement when there is
 * room to send one, so nothing queues anywhere.
 *
 * Memory is bounded: the outbox and the inbox are windows; a message that arrives is copied once and
 * lives until its jobs are executed.
 *
 * Lifetimes: a delivery may outlive its session. Threads: one, that of its channel.
 */
#ifndef TANDEM_CHANNEL_SESSION_H
#define TANDEM_CHANNEL_SESSION_H

#include "channel/mailbox.h"
#include "channel/packer.h"
#include "reactor/executor.h"
#include "transport/wire.h"

enum {
    TD_SESSION_HEARTBEAT_MS = 10000, /* say something at least so often */
    TD_SESSION_SILENCE_MS = 30000,   /* hear nothing for so long: closed */
    TD_SESSION_FRAME_BYTES = 48 * 1024, /* JOBS are filled up to about this size */
    TD_POOL_PARSED_MAX = 16384,         /* 3 MiB; others are parsed twice */
};

typedef struct td_session td_session;

/* What all sessions of a reactor share: what they may hold of messages that are not executed yet. */
typedef struct td_pool {
    uint64_t limit_bytes;
    uint64_t used_bytes;
    uint64_t parsed; /* operations for whose parsed form there is room, TD_POOL_PARSED_MAX at most */
    td_packer *packer; /* NULL: nothing is packed */
} td_pool;

/*
 * The jobs of one message on their way through the executor. The user posts request, and when it is
 * done gives the delivery back with td_session_delivered(), on the channel's thread.
 */
typedef struct td_delivery td_delivery;
struct td_delivery {
    td_remote_request request; /* first: done's argument leads here */
    td_session *session;       /* NULL once the session is gone */
    td_delivery *next;
    uint64_t first_job;
    bool finished;
    tandem_mailbox *inbox;
    td_pool *pool;
    void *user;          /* the user's */
    td_message returned; /* the user's, to bring it back to the channel's thread */
    uint8_t *bytes;      /* the message, unpacked */
    size_t size;
    uint64_t operation_bytes; /* of its operations */
    uint32_t count;
    td_remote_job *jobs;
    tandem_job_handle **handles;
    td_operation *operations; /* in their parsed form, some of them … */
    uint32_t parsed, room;    /* … so many, and there is room for */
};

/* What the session asks and tells its user. None may free the session. */
typedef struct td_session_user {
    /* May HELLO be said now? Asked again when the peer's has come. NULL: at once. */
    bool (*may_greet)(void *context);
    /* The feature that it offers in HELLO; NULL: none. May be NULL itself. */
    const char *(*feature)(void *context);
    /* Fill in what this side says of itself. */
    void (*hello)(void *context, td_wire_hello *out);
    /* The peer's HELLO. An error refuses it and ends the session. */
    tandem_err (*peer_hello)(void *context, const td_wire_hello *hello);
    tandem_err (*peer_have)(void *context, const td_wire_have *have);
    tandem_err (*peer_pull)(void *context, const td_wire_pull *pull);
    /* NULL: a COVER is passed over. */
    tandem_err (*peer_cover)(void *context, const td_wire_cover *cover);
    /* Append one HAVE, PULL or COVER with this number, or TANDEM_END. */
    tandem_err (*announce)(void *context, uint64_t number, tandem_writer *out);
    /* A heartbeat: append an empty HAVE. */
    void (*heartbeat)(void *context, uint64_t number, tandem_writer *out);
    /* Jobs have arrived and stand in the inbox: execute delivery->request. */
    void (*deliver)(void *context, td_delivery *delivery);
    /* The peer has said that it does not take a handle of the outbox, which is in Error now. True:
     * it stays there, and its user takes it out and frees it; finished() is not called. NULL: none
     * does. */
    bool (*stays)(void *context, tandem_job_handle *handle);
    /* A handle of the outbox came to its end (Applied or Error) and was taken out: detail as in ACK.
     * It is freed after the call. */
    void (*finished)(void *context, tandem_job_handle *handle, uint64_t detail);
    /* The peer ended the session with this error. */
    void (*peer_error)(void *context, const td_wire_error *error);
    /* There is something to send. */
    void (*wake)(void *context);
    /* Stop or resume receiving. */
    void (*hold)(void *context, bool hold);
} td_session_user;

/*
 * inbox, outbox, pool, source and user are borrowed and outlive the session.
 * source       reads the operations of handles that keep none
 * packs        jobs are packed if the peer offers that, too, and the pool has a packer
 */
tandem_err td_session_open(tandem_env *env, tandem_mailbox *inbox, tandem_mailbox *outbox,
                           td_pool *pool, const td_job_source *source, bool packs,
                           const td_session_user *user, void *context, td_session **out);
/* Its deliveries go on without it. Handles in the outbox stay, to be sent again. NULL is fine. */
void td_session_free(td_session *session);

/*
 * A message has come in. bytes are borrowed.
 * An error ends the session: td_session_next() still gives the ERROR to send, then TANDEM_END.
 */
tandem_err td_session_receive(td_session *session, tandem_slice bytes);

/* Append the next message to send to out, or return TANDEM_END. */
tandem_err td_session_next(td_session *session, tandem_writer *out);

/* End it with an error that the peer is told. */
void td_session_fail(td_session *session, tandem_err err, const char *text);
/* Has it failed, and was the ERROR given to td_session_next()? */
bool td_session_is_over(const td_session *session);
/* Why it ended: TANDEM_OK while it goes on; text is valid until it is freed. */
tandem_err td_session_err(const td_session *session, const char **text);
/* Has the peer said HELLO? */
bool td_session_heard(const td_session *session);
/* Was that accepted? Whatever came then. */
bool td_session_knows(const td_session *session);
/* Was HELLO exchanged? */
bool td_session_is_open(const td_session *session);

/*
 * The link carries messages in exchanges that are up to pause_ms apart, so silence of that length
 * says nothing; 0: at any time, as at first.
 *
 * asks     this side begins the exchanges. What can wait for the next one, a heartbeat or an ACK that
 *          nobody waits for, does not wake the link then.
 */
void td_session_pace(td_session *session, uint64_t pause_ms, bool asks);
/* Is something on its way to us, as far as is known: HELLO, an ACK, jobs that waited for ours? */
bool td_session_expects(const td_session *session);

/* May the outbox take more? The smaller of both sides' windows. */
bool td_session_has_credit(const td_session *session, uint64_t bytes);
/* Of operations that were sent and not acknowledged. */
uint64_t td_session_inflight_bytes(const td_session *session);

/* A delivery came back. It is freed here, whether its session lives or not. */
void td_session_delivered(td_delivery *delivery);

/* Time passes: heartbeat and silence. Returns when to call again (monotonic ms). */
uint64_t td_session_tick(td_session *session, uint64_t now_ms);
/* Bytes of the messages whose jobs are not executed yet: its share of the pool. */
uint64_t td_session_pool_bytes(const td_session *session);
/* Does it receive nothing until it has given them back? */
bool td_session_is_held(const td_session *session);
/* When the last message came, monotonic ms. */
uint64_t td_session_heard_ms(const td_session *session);

/* The user has something to announce. */
void td_session_announce(td_session *session);

/* Operations and bytes of messages, each way, in this session. */
typedef struct td_session_stat {
    uint64_t sent_operations, sent_bytes, received_operations, received_bytes;
} td_session_stat;
const td_session_stat *td_session_stat_of(const td_session *session);

#endif
