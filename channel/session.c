#include "channel/session.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/planted.h"
#include "store/probe.h"

enum {
    ACK_EXCEPTIONS_MAX = 4096,
    SENT_CAPACITY = 64, /* at first, of the ring of jobs that were sent */
    /* Messages that are not packed after one that saved little, or less than a fast link is worth. */
    AFTER_LITTLE = 15,
    AFTER_NO_GAIN = 127,
    FAST_LOOK_MS = 50,
    FAST_BYTES_PER_MS = 20 * 1000,
};

/* A job that was sent. What it takes of the peer's window it takes until the peer says that it is
 * finished, even if its owner has taken the handle out of the outbox before. */
struct sent_job {
    tandem_job_handle *handle; /* NULL: taken out */
    uint64_t bytes;
};

struct td_session {
    tandem_env *env;
    tandem_mailbox *inbox, *outbox;
    td_pool *pool;
    const td_job_source *source;
    const td_session_user *user;
    void *context;

    uint64_t sent_number, received_number;
    bool hello_sent, hello_received;
    bool accepted; /* the peer's HELLO was */
    bool sums, peer_sums; /* this side's messages, the peer's, end with a sum */
    bool offers_packing, packs; /* this side does; both do */
    unsigned left_unpacked;     /* so many messages more */
    uint64_t taken_bytes, taken_since_ms; /* of messages of jobs that the link has taken */
    bool fast;
    bool announce_pending, heartbeat_pending;
    uint64_t sent_ms, heard_ms;
    uint64_t pause_ms; /* between two exchanges of the link, at most */
    bool asks;         /* and this side begins them */

    /* Sending jobs: the window is sent[first .. next), by number modulo its capacity, which grows with
     * what is in flight: of a thousand peers few are behind. */
    uint64_t peer_window_bytes, peer_window_jobs, peer_message_bytes;
    struct sent_job *sent;
    uint32_t sent_capacity;
    uint64_t sent_first, sent_next;
    uint64_t inflight_bytes;
    tandem_job_handle *unsent; /* the first of the outbox that this session has not sent */

    /* Receiving jobs. */
    uint64_t next_job; /* the number that the next job must have */
    td_delivery *deliveries, **deliveries_end;
    uint64_t deliveries_bytes; /* of operations */
    uint64_t finished_bytes;   /* of operations that are finished, and not told so */
    bool gave_room;            /* an ACK was written for which the peer may have waited */
    uint64_t done;   /* finished up to here */
    uint64_t acked;  /* and told so */
    bool ack_pending;
    td_wire_exception *exceptions;
    uint32_t exception_count, exception_capacity;
    bool held;

    tandem_err err;
    char text[TD_WIRE_TEXT_BYTES_MAX];
    bool error_pending;
    td_session_stat stat;
};

/* ---- The outbox's changes ---- */

static tandem_job_handle *first_unsent(tandem_job_handle *from)
{
    while (from && from->number)
        from = from->next;
    return from;
}

static void outbox_added(void *context, tandem_job_handle *handle)
{
    td_session *session = context;

    handle->number = 0;
    if (!session->unsent)
        session->unsent = handle;
    session->user->wake(session->context);
}

static void outbox_removed(void *context, tandem_job_handle *handle)
{
    td_session *session = context;

    if (handle->number >= session->sent_first)
        session->sent[handle->number % session->sent_capacity].handle = NULL;
    if (session->unsent == handle)
        session->unsent = first_unsent(tandem_mailbox_first(session->outbox));
}

/* ---- Opening, ending ---- */

tandem_err td_session_open(tandem_env *env, tandem_mailbox *inbox, tandem_mailbox *outbox,
                           td_pool *pool, const td_job_source *source, bool packs,
                           const td_session_user *user, void *context, td_session **out)
{
    td_session *session = calloc(1, sizeof(*session));
    tandem_err err = TANDEM_E_NOMEM;

    if (!session)
        return TANDEM_E_NOMEM;
    *session = (td_session){
        .env = env,
        .inbox = inbox,
        .outbox = outbox,
        .pool = pool,
        .source = source,
        .offers_packing = packs && pool->packer,
        .user = user,
        .context = context,
        .sent_first = 1,
        .sent_next = 1,
        .next_job = 1,
        .sent_capacity = SENT_CAPACITY,
    };
    session->deliveries_end = &session->deliveries;
    session->sent_ms = session->heard_ms = session->taken_since_ms = td_env_monotonic_ms(env);
    if (!(session->sent = calloc(session->sent_capacity, sizeof(session->sent[0]))))
        goto fail;
    if ((err = tandem_mailbox_subscribe(outbox, outbox_added, outbox_removed, session)) !=
        TANDEM_OK)
        goto fail;
    for (tandem_job_handle *h = tandem_mailbox_first(outbox); h; h = h->next)
        h->number = 0;
    session->unsent = tandem_mailbox_first(outbox);
    *out = session;
    return TANDEM_OK;

fail:
    free(session->sent);
    free(session);
    return err;
}

void td_session_free(td_session *session)
{
    if (!session)
        return;
    tandem_mailbox_unsubscribe(session->outbox, session);
    for (td_delivery *d = session->deliveries, *next; d; d = next) {
        next = d->next;
        d->session = NULL;
        /* A finished one waited only for its turn to be acknowledged. */
        if (d->finished)
            td_session_delivered(d);
    }
    free(session->sent);
    free(session->exceptions);
    free(session);
}

void td_session_fail(td_session *session, tandem_err err, const char *text)
{
    assert(err != TANDEM_OK);
    if (session->err != TANDEM_OK)
        return;
    session->err = err;
    snprintf(session->text, sizeof(session->text), "%s", text);
    session->error_pending = true;
    session->user->wake(session->context);
}

static tandem_err protocol(td_session *session, const char *text)
{
    td_probe(session->env, TD_PROBE_PEER_BROKE_RULES);
    td_session_fail(session, TANDEM_E_PROTOCOL, text);
    return TANDEM_E_PROTOCOL;
}

bool td_session_is_over(const td_session *session)
{
    return session->err != TANDEM_OK && !session->error_pending;
}

tandem_err td_session_err(const td_session *session, const char **text)
{
    if (text)
        *text = session->text;
    return session->err;
}

bool td_session_heard(const td_session *session)
{
    return session->hello_received;
}

bool td_session_knows(const td_session *session)
{
    return session->accepted;
}

bool td_session_is_open(const td_session *session)
{
    return session->hello_sent && session->hello_received && session->err == TANDEM_OK;
}

uint64_t td_session_pool_bytes(const td_session *session)
{
    uint64_t bytes = 0;

    for (const td_delivery *d = session->deliveries; d; d = d->next)
        bytes += d->size;
    return bytes;
}

bool td_session_is_held(const td_session *session)
{
    return session->held;
}

uint64_t td_session_heard_ms(const td_session *session)
{
    return session->heard_ms;
}

const td_session_stat *td_session_stat_of(const td_session *session)
{
    return &session->stat;
}

void td_session_announce(td_session *session)
{
    session->announce_pending = true;
    session->user->wake(session->context);
}

void td_session_pace(td_session *session, uint64_t pause_ms, bool asks)
{
    session->pause_ms = pause_ms;
    session->asks = asks && pause_ms;
}

bool td_session_expects(const td_session *session)
{
    return !session->hello_received || session->sent_first < session->sent_next ||
           session->gave_room;
}

/* ---- Sending ---- */

/* For one more job, of so many bytes, behind others that are not counted yet. */
static bool has_credit_behind(const td_session *session, uint64_t jobs, uint64_t jobs_bytes,
                              uint64_t bytes)
{
    jobs += session->sent_next - session->sent_first;
    if (jobs == 0)
        return true;
    return jobs < tandem_mailbox_window_jobs(session->outbox) && jobs < session->peer_window_jobs &&
           session->inflight_bytes + jobs_bytes + bytes <= session->peer_window_bytes;
}

bool td_session_has_credit(const td_session *session, uint64_t bytes)
{
    return has_credit_behind(session, 0, 0, bytes);
}

uint64_t td_session_inflight_bytes(const td_session *session)
{
    return session->inflight_bytes;
}

/* Take a handle to its end: Applied if err is TANDEM_OK, else Error; or Error, if its owner said so
 * first. */
static void finish(td_session *session, tandem_job_handle *handle, tandem_err err, uint64_t detail)
{
    tandem_err moved = err == TANDEM_OK ? tandem_job_handle_executed(handle)
                                        : tandem_job_handle_failed(handle, err);

    assert(moved == TANDEM_OK || handle->status == TANDEM_JOB_ERROR);
    (void)moved;
    handle->detail = detail;
    if (err != TANDEM_OK && handle->number && session->user->stays &&
        session->user->stays(session->context, handle))
        return;
    if (td_planted(TD_PLANTED_HANDLE_LEFT)) {
        session->user->finished(session->context, handle, detail);
        return;
    }
    tandem_mailbox_remove(session->outbox, handle);
    session->user->finished(session->context, handle, detail);
    tandem_job_handle_free(handle);
}

/* Have room for so many more in flight. Where there is no memory for it, what is in flight goes first. */
static bool reserve_sent(td_session *session, uint64_t jobs)
{
    uint32_t capacity = session->sent_capacity * 2;
    struct sent_job *grown;

    if (session->sent_next - session->sent_first + jobs <= session->sent_capacity)
        return true;
    if (!(grown = calloc(capacity, sizeof(*grown))))
        return false;
    for (uint64_t number = session->sent_first; number < session->sent_next; number++)
        grown[number % capacity] = session->sent[number % session->sent_capacity];
    free(session->sent);
    session->sent = grown;
    session->sent_capacity = capacity;
    return true;
}

static void mark_sent(td_session *session, tandem_job_handle *handle)
{
    tandem_err err = tandem_job_handle_transported(handle);

    assert(err == TANDEM_OK);
    (void)err;
    handle->number = session->sent_next++;
    session->sent[handle->number % session->sent_capacity] =
        (struct sent_job){handle, handle->bytes};
    session->inflight_bytes += handle->bytes;
    session->stat.sent_operations += handle->operations;
}

/*
 * A JOBS message that is being written. Its jobs are read from the store together, as far as they stand
 * together there; meanwhile the mailbox does not change, and who looks at it is told nothing: a reading
 * transaction is open. So the handles are marked as sent afterwards.
 */
struct frame {
    td_session *session;
    tandem_writer *out;
    size_t start;              /* of the message */
    uint32_t jobs;             /* in it */
    tandem_job_handle *handle; /* the job that is being written; NULL: the last one is whole */
    size_t handle_at;          /* where it begins */
    uint32_t operations;       /* of it, so far */
    /* Whole, and not marked: so many of those that are sent from first on. */
    tandem_job_handle *first;
    uint32_t whole;
    uint64_t whole_bytes;
};

/* The first one from here on that can be sent, or has failed. */
static tandem_job_handle *first_ready(tandem_job_handle *from)
{
    while (from && (from->number || from->waiting))
        from = from->next;
    return from;
}

static bool has_room(const struct frame *frame, const tandem_job_handle *handle)
{
    td_session *session = frame->session;
    size_t used = frame->out->size - frame->start;

    if (!has_credit_behind(session, frame->whole, frame->whole_bytes, handle->bytes) ||
        !reserve_sent(session, frame->whole + 1)) {
        td_probe(session->env, TD_PROBE_WINDOW_FULL);
        return false;
    }
    if (frame->jobs && (used >= TD_SESSION_FRAME_BYTES ||
                        used + handle->bytes + 8 * (uint64_t)handle->operations + 64 >
                            session->peer_message_bytes)) {
        td_probe(session->env, TD_PROBE_FRAME_FULL);
        return false;
    }
    return true;
}

static void begin_job(struct frame *frame, tandem_job_handle *handle)
{
    frame->handle = handle;
    frame->handle_at = frame->out->size;
    frame->operations = 0;
    td_wire_write_job(frame->out, handle->operations);
}

static tandem_err write_operation(void *context, tandem_slice canonical)
{
    struct frame *frame = context;

    td_wire_write_operation(frame->out, canonical);
    frame->operations++;
    return tandem_writer_err(frame->out);
}

/* All of a job was read: is it whole? */
static tandem_err end_job(struct frame *frame)
{
    if (frame->operations != frame->handle->operations)
        return TANDEM_E_CORRUPT;
    frame->whole++;
    frame->whole_bytes += frame->handle->bytes;
    frame->jobs++;
    frame->handle = NULL;
    return TANDEM_OK;
}

static const tandem_job_handle *next_job(void *context)
{
    struct frame *frame = context;
    tandem_job_handle *next = first_ready(frame->handle->next);

    if (end_job(frame) != TANDEM_OK || !next || next->status == TANDEM_JOB_ERROR ||
        td_job_handle_has_bytes(next) || !has_room(frame, next))
        return NULL;
    begin_job(frame, next);
    return next;
}

/* Returns the one behind them. */
static tandem_job_handle *mark_whole(struct frame *frame)
{
    tandem_job_handle *handle = frame->first;

    for (; frame->whole; frame->whole--, handle = first_ready(handle->next))
        mark_sent(frame->session, handle);
    frame->whole_bytes = 0;
    return handle;
}

/* Append jobs from this one on, as far as one reading goes; *next_out: the first that is not there.
 * On an error nothing stays of the job that it is about, which is *next_out. */
static tandem_err write_jobs(struct frame *frame, tandem_job_handle *first,
                             tandem_job_handle **next_out)
{
    td_job_visitor visitor = {.visit = write_operation, .next = next_job, .context = frame};
    tandem_err err;

    frame->first = first;
    begin_job(frame, first);
    err = tandem_job_handle_read(first, frame->session->source, &visitor);
    if (frame->handle && err == TANDEM_OK)
        err = end_job(frame);
    if (frame->handle)
        frame->out->size = frame->handle_at;
    *next_out = mark_whole(frame);
    return err;
}

/* Does the link take so much that there is no time to win on it, only the processors'? */
static bool is_fast(td_session *session, size_t bytes)
{
    uint64_t now_ms = td_env_monotonic_ms(session->env), passed_ms = now_ms - session->taken_since_ms;

    session->taken_bytes += bytes;
    if (passed_ms >= FAST_LOOK_MS) {
        session->fast = session->taken_bytes / passed_ms >= FAST_BYTES_PER_MS;
        session->taken_bytes = 0;
        session->taken_since_ms = now_ms;
    }
    return session->fast;
}

/* Whether it is worth it is seen by doing it, and what was not is not done again for a while: packing
 * takes longer than a fast link does, unless much less is left. */
static void pack(td_session *session, tandem_writer *out, size_t start)
{
    size_t bytes = out->size - start, saved;
    bool fast;

    if (!session->packs || bytes < TD_PACKED_FROM_BYTES)
        return;
    fast = is_fast(session, bytes);
    if (session->left_unpacked) {
        session->left_unpacked--;
        return;
    }
    saved = td_packer_pack(session->pool->packer, out, start, session->sent_number);
    if (saved < bytes / 8)
        session->left_unpacked = AFTER_LITTLE;
    else if (fast && saved < bytes / 2)
        session->left_unpacked = AFTER_NO_GAIN;
}

/* Fill one JOBS message as far as credit and its size go. */
static tandem_err next_jobs(td_session *session, tandem_writer *out)
{
    struct frame frame = {.session = session, .out = out, .start = out->size};
    tandem_job_handle *handle = first_ready(session->unsent), *next;
    size_t count_at;
    tandem_err err = TANDEM_OK;

    if (!session->unsent)
        return TANDEM_END;
    count_at = td_wire_begin_jobs(out, session->sent_number + 1, session->sent_next);
    for (; handle; handle = first_ready(next)) {
        next = handle->next;
        if (handle->status == TANDEM_JOB_ERROR) {
            finish(session, handle, handle->error, 0);
            continue;
        }
        if (!has_room(&frame, handle))
            break;
        if ((err = write_jobs(&frame, handle, &next)) == TANDEM_E_NOMEM)
            break;
        if (err != TANDEM_OK) {
            handle = next;
            next = handle->next;
            finish(session, handle, err, 0);
        }
    }
    session->unsent = first_unsent(session->unsent);
    if (frame.jobs == 0) {
        out->size = frame.start;
        return err == TANDEM_E_NOMEM ? err : TANDEM_END;
    }
    td_wire_patch_count(out, count_at, frame.jobs);
    session->sent_number++;
    pack(session, out, frame.start);
    td_probe(session->env, TD_PROBE_JOBS_SENT);
    return TANDEM_OK;
}

/* Nothing may stand before HELLO, not even an ERROR: who has failed greets first. */
static bool may_greet(const td_session *session)
{
    return session->err != TANDEM_OK || !session->user->may_greet ||
           session->user->may_greet(session->context);
}

static void next_hello(td_session *session, tandem_writer *out)
{
    static const uint8_t no_instance[TD_WIRE_INSTANCE_BYTES];
    const char *features[2], *feature;
    uint32_t feature_count = 0;
    td_wire_hello hello;

    if (session->offers_packing)
        features[feature_count++] = TD_PACKER_FEATURE;
    if (session->user->feature && (feature = session->user->feature(session->context)))
        features[feature_count++] = feature;

    memset(&hello, 0, sizeof(hello));
    hello.major = TD_WIRE_MAJOR;
    hello.minor = TD_WIRE_MINOR;
    hello.message_bytes = TD_MESSAGE_BYTES_MAX;
    hello.window_bytes = tandem_mailbox_window_bytes(session->inbox);
    hello.window_jobs = tandem_mailbox_window_jobs(session->inbox);
    session->user->hello(session->context, &hello);
    /* In a HELLO the sum stands behind the instance, and what may follow that. */
    session->sums = memcmp(hello.instance, no_instance, sizeof(no_instance)) != 0;
    td_wire_write_hello(out, ++session->sent_number, &hello, features, feature_count);
    session->hello_sent = true;
    td_probe(session->env, TD_PROBE_HELLO_SENT);
}

/* May the peer wait for it? Where half of the window is used, it may have no credit for what is next. */
static bool is_ack_urgent(const td_session *session)
{
    return (session->done - session->acked) * 2 >= tandem_mailbox_window_jobs(session->inbox) ||
           session->finished_bytes * 2 >= tandem_mailbox_window_bytes(session->inbox);
}

/* What does not fit under the limits of a message is said in the next one. */
static void next_ack(td_session *session, tandem_writer *out)
{
    bool all = session->exception_count <= ACK_EXCEPTIONS_MAX;
    uint32_t count = all ? session->exception_count : ACK_EXCEPTIONS_MAX;
    uint64_t done = all ? session->done : session->exceptions[count].job - 1;

    td_wire_write_ack(out, ++session->sent_number, done, session->exceptions, count);
    session->exception_count -= count;
    if (session->exception_count)
        memmove(session->exceptions, session->exceptions + count,
                session->exception_count * sizeof(*session->exceptions));
    session->gave_room = is_ack_urgent(session);
    session->acked = done;
    session->finished_bytes = 0;
    session->ack_pending = !all;
    td_probe(session->env, TD_PROBE_ACK_SENT);
}

static tandem_err next_message(td_session *session, tandem_writer *out)
{
    tandem_err err;

    if (!session->hello_sent) {
        if (!may_greet(session))
            return TANDEM_END;
        next_hello(session, out);
        return TANDEM_OK;
    }
    if (session->error_pending) {
        td_wire_write_error(out, ++session->sent_number, session->err, session->text, 0);
        session->error_pending = false;
        return TANDEM_OK;
    }
    if (session->err != TANDEM_OK || !session->hello_received)
        return TANDEM_END;
    if (session->ack_pending) {
        next_ack(session, out);
        return TANDEM_OK;
    }
    if (session->announce_pending) {
        err = session->user->announce(session->context, session->sent_number + 1, out);
        if (err == TANDEM_OK)
            session->sent_number++;
        else if (err == TANDEM_END)
            session->announce_pending = false;
        if (err != TANDEM_END)
            return err;
    }
    if ((err = next_jobs(session, out)) != TANDEM_END)
        return err;
    if (session->heartbeat_pending) {
        td_probe(session->env, TD_PROBE_HEARTBEAT_SENT);
        session->user->heartbeat(session->context, ++session->sent_number, out);
        session->heartbeat_pending = false;
        return TANDEM_OK;
    }
    return TANDEM_END;
}

tandem_err td_session_next(td_session *session, tandem_writer *out)
{
    size_t start = out->size;
    tandem_err err = next_message(session, out);

    if (err == TANDEM_OK && session->sums)
        td_wire_seal(out, start);
    if (err == TANDEM_OK)
        err = tandem_writer_err(out);
    if (err != TANDEM_OK)
        out->size = start;
    if (err == TANDEM_END)
        return TANDEM_END;
    if (err != TANDEM_OK) {
        /* What could not be written leaves a hole in the numbers: the session cannot go on. */
        session->err = err;
        session->error_pending = false;
        snprintf(session->text, sizeof(session->text), "a message could not be written: %s",
                 tandem_err_text(err));
        return TANDEM_END;
    }
    assert(out->size - start <= TD_MESSAGE_BYTES_MAX);
    session->sent_ms = td_env_monotonic_ms(session->env);
    session->stat.sent_bytes += out->size - start;
    session->heartbeat_pending = false;
    return TANDEM_OK;
}

/* ---- Receiving ---- */

static tandem_err receive_hello(td_session *session, const td_wire_hello *hello)
{
    tandem_err err;

    if (session->hello_received)
        return protocol(session, "a second HELLO");
    if (hello->major != TD_WIRE_MAJOR) {
        char text[128];

        snprintf(text, sizeof(text), "protocol %llu.%llu is spoken there, %d.%d here",
                 (unsigned long long)hello->major, (unsigned long long)hello->minor, TD_WIRE_MAJOR,
                 TD_WIRE_MINOR);
        td_session_fail(session, TANDEM_E_VERSION, text);
        return TANDEM_E_VERSION;
    }
    session->peer_message_bytes = hello->message_bytes < TD_MESSAGE_BYTES_MAX
                                      ? hello->message_bytes
                                      : TD_MESSAGE_BYTES_MAX;
    session->peer_window_bytes = hello->window_bytes;
    session->peer_window_jobs = hello->window_jobs;
    session->hello_received = true;
    session->peer_sums = hello->sums;
    session->packs = session->offers_packing && td_wire_offers(hello, TD_PACKER_FEATURE);
    if ((err = session->user->peer_hello(session->context, hello)) != TANDEM_OK) {
        td_session_fail(session, err, tandem_err_text(err));
        return err;
    }
    session->accepted = true;
    td_probe(session->env, TD_PROBE_HELLO_TAKEN);
    session->announce_pending = true;
    session->user->wake(session->context);
    return TANDEM_OK;
}

/* Read the exceptions' order once before anything is changed. */
static bool exceptions_are_sound(const td_session *session, const td_wire_ack *ack)
{
    tandem_reader reader = ack->exceptions;
    uint64_t last = session->sent_first - 1;

    for (uint32_t i = 0; i < ack->exception_count; i++) {
        td_wire_exception exception;

        if (td_wire_read_exception(&reader, &exception) != TANDEM_OK || exception.job <= last ||
            exception.job > ack->done || exception.err >= 0)
            return false;
        last = exception.job;
    }
    return true;
}

static tandem_err receive_ack(td_session *session, const td_wire_ack *ack)
{
    tandem_reader reader = ack->exceptions;
    td_wire_exception exception = {.job = 0};
    uint32_t left = ack->exception_count;

    if (ack->done + 1 < session->sent_first || ack->done >= session->sent_next)
        return protocol(session, "an ACK of jobs that were not sent");
    if (!exceptions_are_sound(session, ack))
        return protocol(session, "an ACK whose exceptions are out of order");
    td_probe(session->env, ack->exception_count ? TD_PROBE_JOB_REFUSED : TD_PROBE_ACK_TAKEN);
    while (session->sent_first <= ack->done) {
        uint64_t number = session->sent_first;
        struct sent_job job = session->sent[number % session->sent_capacity];
        tandem_err err = TANDEM_OK;
        uint64_t detail = 0;

        if (left && exception.job < number) {
            tandem_err read = td_wire_read_exception(&reader, &exception);

            assert(read == TANDEM_OK);
            (void)read;
            left--;
        }
        if (exception.job == number) {
            err = tandem_err_info((tandem_err)exception.err) ? (tandem_err)exception.err
                                                             : TANDEM_E_REFUSED;
            detail = exception.detail;
        }
        session->sent_first++;
        if (!td_planted(TD_PLANTED_WINDOW_NOT_GIVEN_BACK))
            session->inflight_bytes -= job.bytes;
        if (job.handle)
            finish(session, job.handle, err, detail);
    }
    if (session->unsent)
        session->user->wake(session->context);
    return TANDEM_OK;
}

static void delivery_free(td_delivery *delivery)
{
    for (uint32_t i = 0; i < delivery->count; i++) {
        if (!delivery->handles[i])
            continue;
        tandem_mailbox_remove(delivery->inbox, delivery->handles[i]);
        tandem_job_handle_free(delivery->handles[i]);
    }
    if (!td_planted(TD_PLANTED_POOL_NOT_GIVEN_BACK))
        delivery->pool->used_bytes -= delivery->size;
    delivery->pool->parsed -= delivery->room;
    free(delivery->operations);
    free(delivery->bytes);
    free(delivery->jobs);
    free(delivery->handles);
    free(delivery);
}

/* Have room for what is parsed of a message of jobs, most of which have one operation. A peer may claim more
 * jobs than there can be, and without room they are parsed twice. */
static void make_room(td_delivery *delivery, uint32_t jobs)
{
    td_pool *pool = delivery->pool;

    if (jobs > delivery->size / TD_OPERATION_BYTES_MIN || pool->parsed + jobs > TD_POOL_PARSED_MAX ||
        !(delivery->operations = malloc(jobs * sizeof(*delivery->operations))))
        return;
    delivery->room = jobs;
    pool->parsed += jobs;
}

/* Read one operation of a job that arrives, and make it part of the job's handle: it opens the first one's.
 * One that does not parse leaves the job without a handle: the executor will say what is wrong. */
static tandem_err read_operation(tandem_reader *reader, td_delivery *delivery,
                                 tandem_job_handle **handle, bool *is_sound)
{
    td_operation passing, *operation = &passing;
    tandem_slice canonical;
    tandem_err err;

    if ((err = td_wire_read_operation(reader, &canonical)) != TANDEM_OK)
        return err;
    delivery->operation_bytes += canonical.size;
    if (!*is_sound)
        return TANDEM_OK;
    if (delivery->parsed < delivery->room)
        operation = &delivery->operations[delivery->parsed++];
    if ((err = td_operation_parse(canonical, operation)) == TANDEM_OK)
        err = *handle ? td_job_handle_add(*handle, operation)
                      : td_job_handle_open_on(tandem_mailbox_shelf(delivery->inbox), operation, 0,
                                              handle);
    *is_sound = err == TANDEM_OK;
    return err == TANDEM_E_NOMEM ? err : TANDEM_OK;
}

/* Put a job's handle into the inbox; TANDEM_E_PROTOCOL if it overruns the window. */
static tandem_err show(td_session *session, td_delivery *delivery, tandem_job_handle *handle)
{
    tandem_err err;

    handle->elsewhere = delivery->jobs[delivery->count - 1].operations;
    if (!tandem_mailbox_fits(session->inbox, handle->bytes))
        err = TANDEM_E_PROTOCOL;
    else
        err = tandem_job_handle_started(handle);
    if (err != TANDEM_OK) {
        tandem_job_handle_free(handle);
        return err;
    }
    tandem_mailbox_push(session->inbox, handle);
    delivery->handles[delivery->count - 1] = handle;
    if (td_planted(TD_PLANTED_STATUS_SKIPPED))
        return TANDEM_OK;
    return tandem_job_handle_transported(handle);
}

/*
 * Does the delivery so far respect the window? By what came, not by the inbox: what is no operation
 * has no handle there, and takes memory all the same. And until it was acknowledged, not until it was
 * executed: what a peer that does not read has to be told would grow without end.
 */
static bool fits_window(const td_session *session, const td_delivery *delivery)
{
    uint64_t jobs = session->next_job - 1 - session->acked + delivery->count;

    return jobs <= 1 || (jobs <= tandem_mailbox_window_jobs(session->inbox) &&
                         session->deliveries_bytes + delivery->operation_bytes <=
                             tandem_mailbox_window_bytes(session->inbox));
}

/* Read the delivery's next job. */
static tandem_err open_job(td_session *session, td_delivery *delivery, tandem_reader *reader)
{
    td_remote_job *job = &delivery->jobs[delivery->count];
    tandem_job_handle *handle = NULL;
    uint32_t parsed = delivery->parsed;
    bool is_sound = true;
    const uint8_t *start;
    tandem_err err = td_wire_read_job(reader, &job->count);

    start = reader->at;
    for (uint32_t i = 0; i < job->count && err == TANDEM_OK; i++)
        err = read_operation(reader, delivery, &handle, &is_sound);
    job->operations = tandem_slice_of(start, (size_t)(reader->at - start));
    if (is_sound && delivery->parsed - parsed == job->count)
        job->given = delivery->operations + parsed;
    else
        delivery->parsed = parsed;
    delivery->count++;
    if (err == TANDEM_OK && !fits_window(session, delivery))
        err = TANDEM_E_PROTOCOL;
    if (err == TANDEM_OK && is_sound)
        return show(session, delivery, handle);
    tandem_job_handle_free(handle);
    return err;
}

/* bytes: the delivery's from now on, be there an error */
static tandem_err open_delivery(td_session *session, uint8_t *bytes, size_t size,
                                const td_wire_jobs *jobs, td_delivery **out)
{
    td_delivery *delivery = calloc(1, sizeof(*delivery));
    tandem_reader reader;
    tandem_err err = TANDEM_E_NOMEM;

    if (!delivery) {
        free(bytes);
        return TANDEM_E_NOMEM;
    }
    delivery->session = session;
    delivery->inbox = session->inbox;
    delivery->pool = session->pool;
    delivery->first_job = jobs->first_job;
    delivery->bytes = bytes;
    delivery->size = size;
    delivery->pool->used_bytes += size;
    /* A job is at least three bytes of the message: the count was checked against its size. */
    if (!(delivery->jobs = calloc((size_t)jobs->job_count + 1, sizeof(*delivery->jobs))) ||
        !(delivery->handles = calloc((size_t)jobs->job_count + 1, sizeof(*delivery->handles))))
        goto fail;
    make_room(delivery, jobs->job_count);
    reader = tandem_reader_of(tandem_slice_of(jobs->jobs.at, (size_t)(bytes + size - jobs->jobs.at)));
    while (delivery->count < jobs->job_count)
        if ((err = open_job(session, delivery, &reader)) != TANDEM_OK)
            goto fail;
    delivery->request.jobs = delivery->jobs;
    delivery->request.count = delivery->count;
    *out = delivery;
    return TANDEM_OK;

fail:
    delivery_free(delivery);
    return err;
}

/* bytes: the message, the session's from now on. */
static tandem_err take_jobs(td_session *session, uint8_t *bytes, size_t size,
                            const td_wire_jobs *jobs)
{
    td_delivery *delivery;
    tandem_err err = open_delivery(session, bytes, size, jobs, &delivery);

    if (err == TANDEM_E_PROTOCOL)
        return protocol(session, "more in flight than the window allows, or a job cut short");
    if (err != TANDEM_OK) {
        td_session_fail(session, err, tandem_err_text(err));
        return err;
    }
    session->next_job += jobs->job_count;
    if (td_planted(TD_PLANTED_ACKED_EARLY)) {
        session->done = session->next_job - 1;
        session->ack_pending = true;
    }
    session->deliveries_bytes += delivery->operation_bytes;
    for (uint32_t i = 0; i < delivery->count; i++)
        session->stat.received_operations += delivery->jobs[i].count;
    *session->deliveries_end = delivery;
    session->deliveries_end = &delivery->next;
    if (!session->held && session->pool->used_bytes > session->pool->limit_bytes &&
        !td_planted(TD_PLANTED_POOL_WITHOUT_END)) {
        session->held = true;
        td_probe(session->env, TD_PROBE_POOL_HELD);
        session->user->hold(session->context, true);
    }
    td_probe(session->env, TD_PROBE_JOBS_TAKEN);
    session->user->deliver(session->context, delivery);
    return TANDEM_OK;
}

static tandem_err receive_jobs(td_session *session, tandem_slice bytes, const td_wire_jobs *jobs)
{
    td_wire_jobs kept = *jobs;
    uint8_t *copy;

    if (jobs->first_job != session->next_job)
        return protocol(session, "job numbers with a gap");
    if (jobs->job_count == 0)
        return TANDEM_OK;
    if (!(copy = malloc(bytes.size))) {
        td_session_fail(session, TANDEM_E_NOMEM, tandem_err_text(TANDEM_E_NOMEM));
        return TANDEM_E_NOMEM;
    }
    memcpy(copy, bytes.bytes, bytes.size);
    kept.jobs.at = copy + (jobs->jobs.at - bytes.bytes);
    kept.jobs.end = copy + (jobs->jobs.end - bytes.bytes);
    return take_jobs(session, copy, bytes.size, &kept);
}

/* What is packed is a JOBS of the same number, and as much to be checked as any message. */
static tandem_err receive_packed(td_session *session, uint64_t number, const td_wire_packed *packed)
{
    td_wire_message message;
    uint8_t *bytes;
    tandem_err err;

    if (!session->packs)
        return protocol(session, "a packed message, which was not offered");
    err = td_packer_unpack(session->pool->packer, packed, &bytes);
    if (err == TANDEM_E_PROTOCOL)
        return protocol(session, "a packed message that cannot be unpacked");
    if (err != TANDEM_OK) {
        td_session_fail(session, err, tandem_err_text(err));
        return err;
    }
    if (td_wire_read(tandem_slice_of(bytes, packed->bytes), &message) != TANDEM_OK ||
        message.type != TD_WIRE_JOBS || message.number != number ||
        message.as.jobs.first_job != session->next_job || !message.as.jobs.job_count) {
        free(bytes);
        return protocol(session, "a packed message that is no JOBS that was due");
    }
    td_probe(session->env, TD_PROBE_PACKED_TAKEN);
    return take_jobs(session, bytes, packed->bytes, &message.as.jobs);
}

static tandem_err receive_error(td_session *session, const td_wire_error *error)
{
    tandem_err err = error->err < 0 && tandem_err_info((tandem_err)error->err)
                         ? (tandem_err)error->err
                         : TANDEM_E_REFUSED;

    td_probe(session->env, TD_PROBE_ERROR_TOLD);
    session->err = err;
    snprintf(session->text, sizeof(session->text), "%.*s", (int)error->text.size,
             (const char *)error->text.bytes);
    session->user->peer_error(session->context, error);
    return err;
}

static tandem_err receive(td_session *session, tandem_slice bytes, const td_wire_message *message)
{
    tandem_err err = TANDEM_OK;

    switch (message->type) {
    case TD_WIRE_HELLO:
        return receive_hello(session, &message->as.hello);
    case TD_WIRE_HAVE:
        err = session->user->peer_have(session->context, &message->as.have);
        break;
    case TD_WIRE_JOBS:
        return receive_jobs(session, bytes, &message->as.jobs);
    case TD_WIRE_PACKED:
        return receive_packed(session, message->number, &message->as.packed);
    case TD_WIRE_ACK:
        return receive_ack(session, &message->as.ack);
    case TD_WIRE_PULL:
        err = session->user->peer_pull(session->context, &message->as.pull);
        break;
    case TD_WIRE_COVER:
        if (session->user->peer_cover)
            err = session->user->peer_cover(session->context, &message->as.cover);
        break;
    case TD_WIRE_ERROR:
        return receive_error(session, &message->as.error);
    default:
        break; /* of a later version */
    }
    if (err != TANDEM_OK)
        td_session_fail(session, err, tandem_err_text(err));
    else if (session->unsent)
        session->user->wake(session->context); /* what waited may have learned that it can go */
    return err;
}

/* The peer broke no rule, and a new session mends it. */
static tandem_err changed_on_the_way(td_session *session)
{
    td_probe(session->env, TD_PROBE_MESSAGE_CHANGED);
    td_session_fail(session, TANDEM_E_CHANNEL_NETWORK, "a message was changed on the way");
    return TANDEM_E_CHANNEL_NETWORK;
}

static bool hello_was_changed(const td_wire_hello *hello, tandem_slice bytes)
{
    bool sums = hello->major == TD_WIRE_MAJOR ? hello->sums : td_wire_has_seal(bytes);

    return sums && !td_wire_is_sealed(bytes);
}

tandem_err td_session_receive(td_session *session, tandem_slice bytes)
{
    td_wire_message message;

    if (session->err != TANDEM_OK)
        return session->err;
    if (!session->accepted && bytes.size > TD_OPENING_BYTES_MAX)
        return protocol(session, "more than 64 KiB before a HELLO that was accepted");
    if (session->peer_sums && !td_wire_is_sealed(bytes))
        return changed_on_the_way(session);
    if (td_wire_read(bytes, &message) != TANDEM_OK)
        return protocol(session, "a message that is not one of this protocol");
    if (message.type == TD_WIRE_HELLO && hello_was_changed(&message.as.hello, bytes))
        return changed_on_the_way(session);
    session->heard_ms = td_env_monotonic_ms(session->env);
    session->stat.received_bytes += bytes.size;
    if (message.number <= session->received_number && !td_planted(TD_PLANTED_REPEAT_TAKEN)) {
        td_probe(session->env, TD_PROBE_MESSAGE_REPEATED); /* on the way */
        return TANDEM_OK;
    }
    if (message.number > session->received_number + 1 && !td_planted(TD_PLANTED_GAP_PASSED_OVER)) {
        td_probe(session->env, TD_PROBE_MESSAGE_MISSING);
        /* Lost on the way: the peer broke no rule, and a new session mends it. */
        td_session_fail(session, TANDEM_E_CHANNEL_NETWORK, "a message was lost on the way");
        return TANDEM_E_CHANNEL_NETWORK;
    }
    if (!session->hello_received && message.type != TD_WIRE_HELLO)
        return protocol(session, "a message before HELLO");
    session->received_number = message.number;
    session->gave_room = false;
    return receive(session, bytes, &message);
}

/* ---- Deliveries coming back ---- */

static void finish_handles(td_delivery *delivery)
{
    for (uint32_t i = 0; i < delivery->count; i++) {
        const td_remote_job *job = &delivery->jobs[i];
        tandem_job_handle *handle = delivery->handles[i];

        if (!handle)
            continue;
        if (job->err == TANDEM_OK)
            tandem_job_handle_executed(handle);
        if (job->err != TANDEM_OK || td_planted(TD_PLANTED_APPLIED_FAILS))
            tandem_job_handle_failed(handle, job->err);
    }
}

static bool note_exception(td_session *session, uint64_t number, const td_remote_job *job)
{
    if (session->exception_count == session->exception_capacity) {
        uint32_t capacity = session->exception_capacity ? session->exception_capacity * 2 : 16;
        td_wire_exception *grown =
            realloc(session->exceptions, capacity * sizeof(*session->exceptions));

        if (!grown)
            return false;
        session->exceptions = grown;
        session->exception_capacity = capacity;
    }
    session->exceptions[session->exception_count++] =
        (td_wire_exception){.job = number, .err = job->err, .detail = job->detail};
    return true;
}

/* Acknowledge what is finished from the front. */
static void advance_done(td_session *session)
{
    while (session->deliveries && session->deliveries->finished) {
        td_delivery *delivery = session->deliveries;

        for (uint32_t i = 0; i < delivery->count; i++)
            if (delivery->jobs[i].err != TANDEM_OK &&
                !note_exception(session,
                                td_planted(TD_PLANTED_ANSWERS_MIXED_UP)
                                    ? delivery->first_job + delivery->count - 1
                                    : delivery->first_job + i,
                                &delivery->jobs[i]))
                td_session_fail(session, TANDEM_E_NOMEM, "no memory for an acknowledgement");
        session->done = delivery->first_job + delivery->count - 1;
        session->ack_pending = true;
        if (!td_planted(TD_PLANTED_CREDIT_NOT_GIVEN_BACK))
            session->deliveries_bytes -= delivery->operation_bytes;
        session->finished_bytes += delivery->operation_bytes;
        session->deliveries = delivery->next;
        if (!session->deliveries)
            session->deliveries_end = &session->deliveries;
        delivery_free(delivery);
    }
}

void td_session_delivered(td_delivery *delivery)
{
    td_session *session = delivery->session;

    if (!delivery->finished)
        finish_handles(delivery);
    delivery->finished = true;
    if (!session) {
        delivery_free(delivery);
        return;
    }
    advance_done(session);
    td_probe(session->env, TD_PROBE_ACK_BEFORE);
    if (session->held && !session->deliveries && !td_planted(TD_PLANTED_HELD_FOR_EVER)) {
        session->held = false;
        td_probe(session->env, TD_PROBE_POOL_RELEASED);
        session->heard_ms = td_env_monotonic_ms(session->env); /* it was we who did not listen */
        session->user->hold(session->context, false);
    }
    if (session->ack_pending && (!session->asks || is_ack_urgent(session)))
        session->user->wake(session->context);
}

/* ---- Time ---- */

uint64_t td_session_tick(td_session *session, uint64_t now_ms)
{
    uint64_t silence_ms = session->heard_ms + TD_SESSION_SILENCE_MS + session->pause_ms;
    uint64_t heartbeat_ms = session->sent_ms + TD_SESSION_HEARTBEAT_MS;
    char text[64];

    if (session->err != TANDEM_OK)
        return UINT64_MAX;
    if (now_ms >= silence_ms && !session->held && !td_planted(TD_PLANTED_SILENCE_SUFFERED)) {
        td_probe(session->env, TD_PROBE_PEER_SILENT);
        snprintf(text, sizeof(text), "nothing was heard for %u s",
                 (unsigned)((TD_SESSION_SILENCE_MS + session->pause_ms) / 1000));
        td_session_fail(session, TANDEM_E_TIMEOUT, text);
        return UINT64_MAX;
    }
    if (now_ms >= heartbeat_ms) {
        if (session->hello_received && !session->heartbeat_pending) {
            session->heartbeat_pending = true;
            if (!session->asks)
                session->user->wake(session->context);
        }
        heartbeat_ms = now_ms + 1000;
    }
    if (now_ms >= silence_ms)
        silence_ms = now_ms + 1000;
    return heartbeat_ms < silence_ms ? heartbeat_ms : silence_ms;
}
