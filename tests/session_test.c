/*
 * The session, without any I/O: two of them joined by hand, or one against what a peer should not
 * say. DESIGN.md, section 7: "the protocol conversation as a plain state machine without I/O.
 * Messages go in, messages and mailbox changes come out; it owns no socket, thread or clock."
 */
#include "channel/session.h"
#include "job_maker.h"

enum { DELIVERIES_MAX = 1024, ENDS_MAX = 8192, WINDOW_JOBS = 64, WINDOW_BYTES = 1 << 20 };

/* A clock that stands until it is moved. */
struct clock_env {
    tandem_env env;
    uint64_t now_ms;
};

static uint64_t clock_monotonic_us(tandem_env *env)
{
    return ((struct clock_env *)env)->now_ms * 1000;
}

static const struct tandem_env_ops clock_ops = {.monotonic_us = clock_monotonic_us};

struct end {
    uint64_t first_seq;
    tandem_job_state status;
    tandem_err error;
    uint64_t detail;
};

struct side {
    struct clock_env *clock;
    tandem_mailbox *inbox, *outbox;
    td_pool own_pool, *pool;
    bool packs;
    td_job_source source;
    td_session_user user;
    td_session *session;
    /* To do. */
    tandem_err refuse_hello, refuse_have, refuse_pull, refuse_cover, announce_err;
    unsigned to_announce;    /* HAVEs */
    bool sums;               /* HELLO names an instance, and so messages end with sums */
    bool shares;             /* HELLO says what it gives and takes; with sums */
    bool no_covers;          /* knows nothing of COVER */
    tandem_err keeps;        /* what is answered so stays in the outbox */
    bool waits_for_hello;    /* says its own when the peer's has come */
    bool settles;            /* a HAVE tells that what waits is lacking */
    bool answers_at_once;    /* deliveries come back from within deliver */
    /* Seen. */
    unsigned wakes, hellos, haves, pulls, covers, heartbeats, holds, peer_errors;
    td_wire_hello peer_hello;
    bool held;
    td_delivery *deliveries[DELIVERIES_MAX];
    unsigned delivered; /* of them given back */
    unsigned delivery_count;
    struct end ends[ENDS_MAX];
    unsigned end_count;
    tandem_err peer_err;
    uint64_t retry_after_ms;
};

struct fixture {
    struct clock_env clock;
    struct side a, b;
    struct chain chain; /* of what a sends */
    struct chain other; /* of what b sends */
    uint64_t number;    /* of the next message that is said by hand */
    tandem_writer out;
};

/* ---- The fake user ---- */

static bool user_may_greet(void *context)
{
    const struct side *side = context;

    return !side->waits_for_hello || side->hellos;
}

static void user_hello(void *context, td_wire_hello *out)
{
    struct side *side = context;

    memset(out->reactor, side->pool == &side->own_pool ? 1 : 2, sizeof(out->reactor));
    if (side->sums)
        memset(out->instance, 3, sizeof(out->instance));
    out->has_shares = side->shares;
    out->gives = tandem_slice_text("\x92\x90\xc0");
    out->takes = tandem_slice_text("\xc0");
    out->clock = 5;
    out->agent = tandem_slice_text("test");
}

static tandem_err user_peer_hello(void *context, const td_wire_hello *hello)
{
    struct side *side = context;

    side->hellos++;
    side->peer_hello = *hello;
    return side->refuse_hello;
}

static tandem_err user_peer_have(void *context, const td_wire_have *have)
{
    struct side *side = context;

    side->haves++;
    for (tandem_job_handle *h = tandem_mailbox_first(side->outbox); h && side->settles; h = h->next)
        h->waiting = false;
    return side->refuse_have;
}

static tandem_err user_peer_pull(void *context, const td_wire_pull *pull)
{
    struct side *side = context;

    side->pulls++;
    return side->refuse_pull;
}

static tandem_err user_peer_cover(void *context, const td_wire_cover *cover)
{
    struct side *side = context;

    side->covers++;
    return side->refuse_cover;
}

static tandem_err user_announce(void *context, uint64_t number, tandem_writer *out)
{
    struct side *side = context;

    if (side->announce_err != TANDEM_OK)
        return side->announce_err;
    if (side->to_announce == 0)
        return TANDEM_END;
    side->to_announce--;
    td_wire_patch_count(out, td_wire_begin_have(out, number, 1, 1, TD_HAVE_DIGESTS, NULL), 0);
    return TANDEM_OK;
}

static void user_heartbeat(void *context, uint64_t number, tandem_writer *out)
{
    struct side *side = context;

    side->heartbeats++;
    td_wire_patch_count(out, td_wire_begin_have(out, number, 1, 1, TD_HAVE_VECTORS, NULL), 0);
}

static void user_deliver(void *context, td_delivery *delivery)
{
    struct side *side = context;

    if (side->answers_at_once) {
        td_session_delivered(delivery);
        return;
    }
    assert_true(side->delivery_count < DELIVERIES_MAX);
    side->deliveries[side->delivery_count++] = delivery;
}

static bool user_stays(void *context, tandem_job_handle *handle)
{
    struct side *side = context;

    assert_int_equal(TANDEM_JOB_ERROR, handle->status);
    assert_ptr_equal(handle, tandem_mailbox_get(side->outbox, handle->id));
    return handle->error == side->keeps;
}

static void user_finished(void *context, tandem_job_handle *handle, uint64_t detail)
{
    struct side *side = context;

    assert_null(tandem_mailbox_get(side->outbox, handle->id));
    assert_true(side->end_count < ENDS_MAX);
    side->ends[side->end_count++] =
        (struct end){handle->first_seq, handle->status, handle->error, detail};
}

static void user_peer_error(void *context, const td_wire_error *error)
{
    struct side *side = context;

    side->peer_errors++;
    side->peer_err = (tandem_err)error->err;
    side->retry_after_ms = error->retry_after_ms;
}

static void user_wake(void *context)
{
    ((struct side *)context)->wakes++;
}

static void user_hold(void *context, bool hold)
{
    struct side *side = context;

    assert_true(side->held != hold);
    side->held = hold;
    side->holds += hold;
}

static const td_session_user user = {
    .may_greet = user_may_greet,
    .hello = user_hello,
    .peer_hello = user_peer_hello,
    .peer_have = user_peer_have,
    .peer_pull = user_peer_pull,
    .peer_cover = user_peer_cover,
    .announce = user_announce,
    .heartbeat = user_heartbeat,
    .deliver = user_deliver,
    .stays = user_stays,
    .finished = user_finished,
    .peer_error = user_peer_error,
    .wake = user_wake,
    .hold = user_hold,
};

/* ---- Sides ---- */

static void side_begin(struct side *side)
{
    assert_null(side->session);
    side->user = user;
    if (side->no_covers)
        side->user.peer_cover = NULL;
    assert_int_equal(TANDEM_OK,
                     td_session_open(&side->clock->env, side->inbox, side->outbox, side->pool,
                                     &side->source, side->packs, &side->user, side,
                                     &side->session));
}

static void side_end(struct side *side)
{
    td_session_free(side->session);
    side->session = NULL;
}

static void side_open_with(struct side *side, struct clock_env *clock, uint32_t jobs,
                           uint64_t bytes)
{
    side->clock = clock;
    side->own_pool.limit_bytes = UINT64_MAX;
    side->pool = &side->own_pool;
    assert_int_equal(TANDEM_OK, tandem_mailbox_open(jobs, bytes, &side->inbox));
    assert_int_equal(TANDEM_OK, tandem_mailbox_open(jobs, bytes, &side->outbox));
}

/* Give a delivery back: job i of it with errs[i] (NULL: all applied). */
static void give_back(struct side *side, unsigned which, const tandem_err *errs)
{
    td_delivery *delivery = side->deliveries[which];

    assert_non_null(delivery);
    for (uint32_t i = 0; i < delivery->count; i++)
        delivery->jobs[i].err = errs ? errs[i] : TANDEM_OK;
    side->deliveries[which] = NULL;
    side->delivered++;
    td_session_delivered(delivery);
}

static void give_all_back(struct side *side)
{
    for (unsigned i = 0; i < side->delivery_count; i++)
        if (side->deliveries[i])
            give_back(side, i, NULL);
}

static void side_release(struct side *side)
{
    side_end(side);
    give_all_back(side);
    assert_int_equal(0, tandem_mailbox_jobs(side->inbox));
    assert_int_equal(0, side->pool->used_bytes);
    tandem_mailbox_free(side->inbox);
    tandem_mailbox_free(side->outbox);
}

static int fixture_open(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->clock = (struct clock_env){.env.ops = &clock_ops, .now_ms = 1000};
    side_open_with(&f->a, &f->clock, WINDOW_JOBS, WINDOW_BYTES);
    side_open_with(&f->b, &f->clock, WINDOW_JOBS, WINDOW_BYTES);
    side_begin(&f->a);
    side_begin(&f->b);
    chain_init(&f->chain, "notes", 1);
    chain_init(&f->other, "notes", 2);
    tandem_writer_init(&f->out);
    f->number = 1;
    *state = f;
    return 0;
}

static int fixture_free(void **state)
{
    struct fixture *f = *state;

    side_release(&f->a);
    side_release(&f->b);
    tandem_writer_release(&f->out);
    free(f);
    return 0;
}

/* Another window for b's mailboxes: what it tells a in HELLO. */
static void narrow(struct side *side, uint32_t jobs, uint64_t bytes)
{
    side_end(side);
    tandem_mailbox_free(side->inbox);
    assert_int_equal(TANDEM_OK, tandem_mailbox_open(jobs, bytes, &side->inbox));
    side_begin(side);
}

/* ---- Conversation ---- */

/* Everything that one has to say now, to the other (NULL: into the void). Returns how much. */
static unsigned relay(struct fixture *f, struct side *from, struct side *to)
{
    unsigned count = 0;

    for (;;) {
        tandem_writer_clear(&f->out);
        if (td_session_next(from->session, &f->out) != TANDEM_OK) {
            assert_int_equal(0, f->out.size);
            return count;
        }
        assert_in_range(f->out.size, 1, TD_MESSAGE_BYTES_MAX);
        count++;
        if (to)
            td_session_receive(to->session, tandem_writer_slice(&f->out));
    }
}

static void pump(struct fixture *f)
{
    while (relay(f, &f->a, &f->b) + relay(f, &f->b, &f->a) > 0)
        ;
}

static void shake_hands(struct fixture *f)
{
    pump(f);
    assert_true(td_session_is_open(f->a.session));
    assert_true(td_session_is_open(f->b.session));
}

static tandem_job_handle *push_from(struct side *side, struct chain *chain, size_t operations,
                                    size_t payload)
{
    tandem_job_handle *handle = make_job(chain, operations, payload);

    assert_true(tandem_mailbox_fits(side->outbox, handle->bytes));
    assert_int_equal(TANDEM_OK, tandem_job_handle_started(handle));
    tandem_mailbox_push(side->outbox, handle);
    return handle;
}

static tandem_job_handle *push(struct fixture *f, size_t operations, size_t payload)
{
    return push_from(&f->a, &f->chain, operations, payload);
}

/* The next message of a side, read. */
static td_wire_message next_of(struct fixture *f, struct side *side)
{
    td_wire_message message;

    tandem_writer_clear(&f->out);
    assert_int_equal(TANDEM_OK, td_session_next(side->session, &f->out));
    assert_int_equal(TANDEM_OK, td_wire_read(tandem_writer_slice(&f->out), &message));
    return message;
}

static void assert_silent(struct fixture *f, struct side *side)
{
    tandem_writer_clear(&f->out);
    assert_int_equal(TANDEM_END, td_session_next(side->session, &f->out));
}

/* It ends for err, tells the peer so as the last thing it says, and does nothing more. */
static void assert_ends(struct fixture *f, struct side *side, tandem_err err)
{
    td_wire_message message;
    uint64_t last = 0;

    assert_int_equal(err, td_session_err(side->session, NULL));
    assert_false(td_session_is_open(side->session));
    assert_false(td_session_is_over(side->session));
    do {
        message = next_of(f, side);
        assert_true(last == 0 || message.number == last + 1);
        last = message.number;
    } while (message.type == TD_WIRE_HELLO);
    assert_int_equal(TD_WIRE_ERROR, message.type);
    assert_int_equal(err, message.as.error.err);
    assert_silent(f, side);
    assert_true(td_session_is_over(side->session));
    assert_int_equal(UINT64_MAX, td_session_tick(side->session, f->clock.now_ms));
}

/* Say what stands in f->out. */
static tandem_err said(struct fixture *f, struct side *side)
{
    tandem_slice bytes = tandem_writer_slice(&f->out);
    uint8_t *copy = malloc(bytes.size + 1); /* of its exact size: an overrun is seen */
    tandem_err err;

    memcpy(copy, bytes.bytes, bytes.size);
    err = td_session_receive(side->session, tandem_slice_of(copy, bytes.size));
    free(copy);
    return err;
}

static void write_hello(struct fixture *f, uint64_t number, uint64_t major, uint64_t window_jobs,
                        uint64_t window_bytes)
{
    td_wire_hello hello = {.major = major,
                           .message_bytes = TD_MESSAGE_BYTES_MAX,
                           .window_bytes = window_bytes,
                           .window_jobs = window_jobs,
                           .agent = tandem_slice_text("by hand")};

    tandem_writer_clear(&f->out);
    td_wire_write_hello(&f->out, number, &hello, NULL, 0);
}

/* a, against a peer that is played by hand. */
static struct side *alone(struct fixture *f)
{
    write_hello(f, f->number++, TD_WIRE_MAJOR, 1000, WINDOW_BYTES);
    assert_int_equal(TANDEM_OK, said(f, &f->a));
    relay(f, &f->a, NULL);
    assert_true(td_session_is_open(f->a.session));
    return &f->a;
}

static tandem_err say_have(struct fixture *f, struct side *side, uint64_t number)
{
    tandem_writer_clear(&f->out);
    td_wire_patch_count(&f->out,
                        td_wire_begin_have(&f->out, number, 1, 1, TD_HAVE_DIGESTS, NULL), 0);
    return said(f, side);
}

static tandem_err say_ack(struct fixture *f, struct side *side, uint64_t done,
                          const td_wire_exception *exceptions, uint32_t count)
{
    /* Not by the wire's writer, which refuses to write nonsense. */
    tandem_writer_clear(&f->out);
    tandem_write_array(&f->out, 4);
    tandem_write_uint(&f->out, TD_WIRE_ACK);
    tandem_write_uint(&f->out, f->number++);
    tandem_write_uint(&f->out, done);
    tandem_write_array(&f->out, count);
    for (uint32_t i = 0; i < count; i++) {
        tandem_write_array(&f->out, 3);
        tandem_write_uint(&f->out, exceptions[i].job);
        tandem_write_int(&f->out, exceptions[i].err);
        tandem_write_uint(&f->out, exceptions[i].detail);
    }
    return said(f, side);
}

/* JOBS with count jobs of one operation each: these bytes, or the chain's next ones. */
static tandem_err say_jobs(struct fixture *f, struct side *side, uint64_t first_job, uint32_t count,
                           size_t payload, tandem_slice garbage)
{
    struct batch *batch = calloc(1, sizeof(*batch));
    size_t at;
    tandem_err err;

    tandem_writer_clear(&f->out);
    at = td_wire_begin_jobs(&f->out, f->number++, first_job);
    for (uint32_t i = 0; i < count; i++) {
        td_wire_write_job(&f->out, 1);
        if (!garbage.bytes)
            batch_job(batch, &f->other, 1, payload);
        td_wire_write_operation(&f->out,
                                garbage.bytes ? garbage : batch->operations[i].canonical);
    }
    td_wire_patch_count(&f->out, at, count);
    err = said(f, side);
    batch_release(batch);
    free(batch);
    return err;
}

static const tandem_slice no_garbage = {NULL, 0};

/* ---- Opening ---- */

static void both_sides_say_hello_first_and_at_once(void **state)
{
    struct fixture *f = *state;
    td_wire_message message;

    assert_false(td_session_is_open(f->a.session));
    message = next_of(f, &f->a);
    assert_int_equal(TD_WIRE_HELLO, message.type);
    assert_int_equal(1, message.number);
    assert_int_equal(TD_WIRE_MAJOR, message.as.hello.major);
    assert_int_equal(WINDOW_JOBS, message.as.hello.window_jobs);
    assert_int_equal(WINDOW_BYTES, message.as.hello.window_bytes);
    assert_int_equal(TANDEM_OK, said(f, &f->b));
    assert_silent(f, &f->a); /* the rest waits for the peer's */
    shake_hands(f);
    assert_int_equal(1, f->a.hellos);
    assert_int_equal(1, f->b.hellos);
    td_session_free(NULL);
}

static void one_side_may_wait_for_the_others_hello(void **state)
{
    struct fixture *f = *state;

    f->a.waits_for_hello = true;
    assert_silent(f, &f->a);
    shake_hands(f);
    assert_true(td_session_is_open(f->a.session));

    side_end(&f->a); /* against one that says nothing */
    side_begin(&f->a);
    f->a.hellos = 0;
    assert_silent(f, &f->a);
    td_session_fail(f->a.session, TANDEM_E_TIMEOUT, "nothing was heard");
    assert_int_equal(TD_WIRE_HELLO, next_of(f, &f->a).type);
    assert_int_equal(TD_WIRE_ERROR, next_of(f, &f->a).type);
    assert_true(td_session_is_over(f->a.session));
}

/* b hears HELLO and the message behind it, with one bit of one of them wrong. */
static tandem_err hear_with_wrong_bit(struct fixture *f, const tandem_writer said[2], size_t bit)
{
    size_t hello_bits = said[0].size * 8;
    bool in_hello = bit < hello_bits;
    size_t at = in_hello ? bit : bit - hello_bits;
    tandem_err err = TANDEM_OK;

    side_end(&f->b);
    side_begin(&f->b);
    relay(f, &f->b, NULL);
    for (unsigned i = 0; i < 2 && err == TANDEM_OK; i++) {
        tandem_writer_clear(&f->out);
        tandem_write_raw(&f->out, tandem_writer_slice(&said[i]));
        if (in_hello == (i == 0))
            f->out.bytes[at / 8] ^= (uint8_t)(1 << at % 8);
        err = td_session_receive(f->b.session, tandem_writer_slice(&f->out));
    }
    return err;
}

/* A payload with a wrong bit is a well-formed operation that its writer never made. */
static void what_was_changed_on_the_way_is_never_taken(void **state)
{
    struct fixture *f = *state;
    tandem_writer said[2];
    size_t bits = 0;

    f->a.sums = true;
    relay(f, &f->b, &f->a);
    push(f, 2, 10);
    for (unsigned i = 0; i < 2; i++) {
        tandem_writer_init(&said[i]);
        assert_int_equal(TANDEM_OK, td_session_next(f->a.session, &said[i]));
        assert_true(td_wire_is_sealed(tandem_writer_slice(&said[i])));
        bits += said[i].size * 8;
    }
    for (size_t bit = 0; bit < bits; bit++) {
        tandem_err err = hear_with_wrong_bit(f, said, bit);

        if (bit >= said[0].size * 8)
            assert_int_equal(TANDEM_E_CHANNEL_NETWORK, err);
        else if (err != TANDEM_E_CHANNEL_NETWORK && err != TANDEM_E_PROTOCOL)
            fail_msg("bit %zu of HELLO: %s", bit, tandem_err_name(err));
        assert_int_equal(0, f->b.delivery_count);
    }
    for (unsigned i = 0; i < 2; i++)
        tandem_writer_release(&said[i]);
}

static void who_writes_no_sums_is_heard_without(void **state)
{
    struct fixture *f = *state;

    f->a.sums = true;
    shake_hands(f);
    push_from(&f->b, &f->other, 1, 10);
    push(f, 1, 10);
    pump(f);
    assert_int_equal(1, f->a.delivery_count);
    assert_int_equal(1, f->b.delivery_count);
}

static void nothing_goes_out_before_the_peers_hello(void **state)
{
    struct fixture *f = *state;

    push(f, 1, 10);
    f->a.to_announce = 1;
    td_session_announce(f->a.session);
    assert_int_equal(TD_WIRE_HELLO, next_of(f, &f->a).type);
    assert_silent(f, &f->a);
    relay(f, &f->b, &f->a);
    assert_int_equal(TD_WIRE_HAVE, next_of(f, &f->a).type);
    assert_int_equal(TD_WIRE_JOBS, next_of(f, &f->a).type);
}

static void anything_before_hello_ends_the_session(void **state)
{
    struct fixture *f = *state;

    for (int kind = 0; kind < 4; kind++) {
        tandem_writer_clear(&f->out);
        if (kind == 0)
            td_wire_write_ack(&f->out, 1, 0, NULL, 0);
        else if (kind == 1)
            td_wire_write_error(&f->out, 1, TANDEM_E_IO, "first", 0);
        else if (kind == 2)
            td_wire_patch_count(&f->out, td_wire_begin_jobs(&f->out, 1, 1), 0);
        else
            tandem_write_raw(&f->out, tandem_slice_of("\x92\x63\x01", 3)); /* of type 99 */
        assert_int_equal(TANDEM_E_PROTOCOL, said(f, &f->a));
        assert_ends(f, &f->a, TANDEM_E_PROTOCOL);
        assert_int_equal(0, f->a.peer_errors);
        side_end(&f->a);
        side_begin(&f->a);
    }
}

/* A HELLO that is well formed, and larger than what is taken of a peer that is not known. */
static void a_hello_that_is_too_large_ends_the_session(void **state)
{
    enum { FIT = TD_OPENING_BYTES_MAX / (TD_WIRE_TEXT_BYTES_MAX + 3) };
    char feature[TD_WIRE_TEXT_BYTES_MAX + 1] = "";
    const char *features[FIT + 1];
    struct fixture *f = *state;

    memset(feature, 'x', TD_WIRE_TEXT_BYTES_MAX);
    for (int i = 0; i < FIT + 1; i++)
        features[i] = feature;
    for (int more = 0; more < 2; more++) {
        td_wire_hello hello = {.major = TD_WIRE_MAJOR, .message_bytes = TD_MESSAGE_BYTES_MAX,
                               .agent = tandem_slice_text("talker")};

        assert_false(td_session_knows(f->a.session));
        tandem_writer_clear(&f->out);
        td_wire_write_hello(&f->out, 1, &hello, features, (uint32_t)(FIT - 1 + 2 * more));
        assert_true(more == (f->out.size > TD_OPENING_BYTES_MAX));
        assert_int_equal(more ? TANDEM_E_PROTOCOL : TANDEM_OK, said(f, &f->a));
        assert_true(more != td_session_knows(f->a.session));
        if (more)
            assert_ends(f, &f->a, TANDEM_E_PROTOCOL);
        side_end(&f->a);
        side_begin(&f->a);
    }
}

static void a_second_hello_ends_the_session(void **state)
{
    struct fixture *f = *state;
    struct side *side = alone(f);

    write_hello(f, f->number, TD_WIRE_MAJOR, 10, 10);
    assert_int_equal(TANDEM_E_PROTOCOL, said(f, side));
    assert_ends(f, side, TANDEM_E_PROTOCOL);
    assert_int_equal(1, side->hellos);
}

/* "an incompatible major version is refused with a clear error on both sides" */
static void another_major_version_is_refused_and_both_sides_say_so(void **state)
{
    struct fixture *f = *state;
    const char *text;

    write_hello(f, 1, TD_WIRE_MAJOR + 1, 10, 10);
    assert_int_equal(TANDEM_E_VERSION, said(f, &f->a));
    assert_int_equal(TANDEM_E_VERSION, td_session_err(f->a.session, &text));
    assert_non_null(strstr(text, "2.0"));
    assert_int_equal(0, f->a.hellos);
    assert_false(td_session_is_over(f->a.session));
    relay(f, &f->b, NULL);
    relay(f, &f->a, &f->b); /* HELLO, ERROR */
    assert_int_equal(TANDEM_E_VERSION, f->b.peer_err);
    assert_int_equal(TANDEM_E_VERSION, td_session_err(f->b.session, NULL));
    assert_true(td_session_is_over(f->a.session));
    assert_true(td_session_is_over(f->b.session));
}

static void the_user_may_refuse_the_peer(void **state)
{
    struct fixture *f = *state;

    f->b.refuse_hello = TANDEM_E_SELF;
    pump(f);
    assert_true(td_session_is_over(f->b.session));
    assert_int_equal(TANDEM_E_SELF, f->a.peer_err);
    assert_true(td_session_is_over(f->a.session));
}

/* ---- Numbers ---- */

static void a_gap_in_the_numbers_ends_the_session(void **state)
{
    struct fixture *f = *state;
    struct side *side = alone(f);

    assert_int_equal(TANDEM_OK, say_have(f, side, 2));
    assert_int_equal(TANDEM_E_CHANNEL_NETWORK, say_have(f, side, 4));
    assert_int_equal(1, side->haves);
    assert_ends(f, side, TANDEM_E_CHANNEL_NETWORK);
    /* And whatever still comes changes nothing. */
    assert_int_equal(TANDEM_E_CHANNEL_NETWORK, say_have(f, side, 3));
    assert_int_equal(1, side->haves);
}

static void a_message_that_comes_again_is_ignored(void **state)
{
    struct fixture *f = *state;
    struct side *side = alone(f);

    assert_int_equal(TANDEM_OK, say_have(f, side, 2));
    assert_int_equal(TANDEM_OK, say_have(f, side, 2));
    assert_int_equal(TANDEM_OK, say_have(f, side, 1));
    write_hello(f, 1, TD_WIRE_MAJOR, 1, 1);
    assert_int_equal(TANDEM_OK, said(f, side));
    assert_int_equal(1, side->haves);
    assert_int_equal(TANDEM_OK, say_have(f, side, 3));
    assert_int_equal(2, side->haves);
    assert_int_equal(TANDEM_OK, td_session_err(side->session, NULL));
}

/* "unknown message types and trailing fields are skipped" */
static void what_a_later_version_says_is_skipped_and_counted(void **state)
{
    struct fixture *f = *state;
    struct side *side = alone(f);
    uint8_t later[] = {0x93, 99, 2, 0xc0}, command[] = {0x92, 6, 3};
    /* An ACK with two more items. */
    uint8_t longer[] = {0x96, 4, 4, 0, 0x90, 0xa1, 'x', 0x80};

    assert_int_equal(TANDEM_OK, td_session_receive(side->session, tandem_slice_of(later, 4)));
    assert_int_equal(TANDEM_OK, td_session_receive(side->session, tandem_slice_of(command, 3)));
    assert_int_equal(TANDEM_OK, td_session_receive(side->session, tandem_slice_of(longer, 8)));
    assert_int_equal(TANDEM_OK, say_have(f, side, 5));
    assert_int_equal(1, side->haves);
}

static bool woken(struct side *side)
{
    bool was = side->wakes > 0;

    side->wakes = 0;
    return was;
}

/* A transport asks for messages only after it was woken. */
static void whatever_is_to_be_said_wakes_the_transport(void **state)
{
    struct fixture *f = *state;

    narrow(&f->b, 1, UINT64_MAX);
    f->a.wakes = 0;
    relay(f, &f->b, &f->a);
    assert_true(woken(&f->a)); /* after the peer's HELLO: announcements */
    shake_hands(f);
    f->a.wakes = f->b.wakes = 0;
    push(f, 1, 10);
    assert_true(woken(&f->a));
    push(f, 1, 10);
    relay(f, &f->a, &f->b);
    f->a.wakes = f->b.wakes = 0;
    give_all_back(&f->b);
    assert_true(woken(&f->b)); /* an ACK */
    assert_false(woken(&f->a));
    relay(f, &f->b, &f->a);
    assert_true(woken(&f->a)); /* credit for the other job */
    relay(f, &f->a, &f->b);
    f->a.wakes = 0;
    td_session_announce(f->a.session);
    assert_true(woken(&f->a));
    relay(f, &f->a, &f->b);
    f->clock.now_ms += TD_SESSION_HEARTBEAT_MS;
    td_session_tick(f->a.session, f->clock.now_ms);
    assert_true(woken(&f->a));
    td_session_fail(f->a.session, TANDEM_E_IO, "over");
    assert_true(woken(&f->a));
}

/* Where this side begins the exchanges of its link, what nobody waits for goes with the next one. */
static void who_begins_exchanges_is_not_woken_by_what_can_wait(void **state)
{
    struct fixture *f = *state;

    narrow(&f->b, 4, UINT64_MAX);
    shake_hands(f);
    td_session_pace(f->a.session, 60000, false);
    td_session_pace(f->b.session, 60000, true);
    assert_false(td_session_expects(f->a.session));
    assert_false(td_session_expects(f->b.session));
    push(f, 1, 10);
    relay(f, &f->a, &f->b);
    assert_true(td_session_expects(f->a.session));
    f->b.wakes = 0;
    give_all_back(&f->b);
    assert_false(woken(&f->b));
    f->clock.now_ms += TD_SESSION_HEARTBEAT_MS;
    td_session_tick(f->b.session, f->clock.now_ms);
    assert_false(woken(&f->b));
    assert_int_equal(1, relay(f, &f->b, &f->a)); /* but it is said when somebody asks */
    assert_int_equal(0, f->b.heartbeats);
    assert_false(td_session_expects(f->a.session));
    assert_false(td_session_expects(f->b.session));
    /* Half a window: the peer may wait for it, and this side for what comes then. */
    push(f, 1, 10);
    push(f, 1, 10);
    relay(f, &f->a, &f->b);
    f->b.wakes = 0;
    give_all_back(&f->b);
    assert_true(woken(&f->b));
    assert_int_equal(1, relay(f, &f->b, &f->a));
    assert_true(td_session_expects(f->b.session));
    push(f, 1, 10);
    relay(f, &f->a, &f->b);
    assert_false(td_session_expects(f->b.session));
    /* What is its own goes at once, and so does what it answers on a link without a pace. */
    f->b.wakes = 0;
    push_from(&f->b, &f->other, 1, 10);
    assert_true(woken(&f->b));
    td_session_pace(f->b.session, 0, true);
    give_all_back(&f->b);
    assert_true(woken(&f->b));
}

static void half_a_window_of_bytes_is_acknowledged_at_once_too(void **state)
{
    struct fixture *f = *state;

    narrow(&f->b, WINDOW_JOBS, 1000);
    shake_hands(f);
    td_session_pace(f->b.session, 60000, true);
    for (unsigned i = 0; i < 2; i++) {
        push(f, 1, 200);
        relay(f, &f->a, &f->b);
        f->b.wakes = 0;
        give_all_back(&f->b);
        assert_true(woken(&f->b) == (i == 1));
    }
}

/* ---- Jobs ---- */

/*
 * "A handle leaves the outbox only when the remote has it *durably*": not when it was sent, nor
 * when it was received, but when what executes it there has given it back.
 */
static void a_handle_leaves_the_outbox_when_the_remote_has_it_durably(void **state)
{
    struct fixture *f = *state;
    tandem_job_handle *handle, *arrived;
    uint64_t id;

    shake_hands(f);
    handle = push(f, 3, 100);
    id = handle->id;
    assert_int_equal(TANDEM_JOB_TRANSPORT_PENDING, handle->status);
    pump(f);
    assert_int_equal(TANDEM_JOB_EXECUTION_PENDING, handle->status);
    assert_int_equal(1, tandem_mailbox_jobs(f->a.outbox));

    /* `inbox`: "pull job handles: operations to be applied here". */
    assert_int_equal(1, f->b.delivery_count);
    arrived = tandem_mailbox_first(f->b.inbox);
    assert_ptr_equal(arrived, f->b.deliveries[0]->handles[0]);
    assert_int_equal(TANDEM_JOB_EXECUTION_PENDING, arrived->status);
    assert_int_equal(3, arrived->operations);
    assert_int_equal(handle->bytes, arrived->bytes);
    assert_int_equal(1, arrived->first_seq);
    assert_true(tandem_slice_equal(handle->document, arrived->document));
    assert_int_equal(1, f->b.deliveries[0]->request.count);
    assert_int_equal(3, f->b.deliveries[0]->request.jobs[0].count);
    assert_int_equal(0, f->a.end_count);

    give_back(&f->b, 0, NULL);
    assert_int_equal(0, tandem_mailbox_jobs(f->b.inbox));
    assert_non_null(tandem_mailbox_get(f->a.outbox, id));
    pump(f);
    assert_null(tandem_mailbox_get(f->a.outbox, id));
    assert_int_equal(1, f->a.end_count);
    assert_int_equal(TANDEM_JOB_APPLIED, f->a.ends[0].status);
    assert_int_equal(3, td_session_stat_of(f->a.session)->sent_operations);
}

static void a_delivery_may_come_back_from_within_deliver(void **state)
{
    struct fixture *f = *state;

    f->b.answers_at_once = true;
    f->b.own_pool.limit_bytes = 10;
    shake_hands(f);
    for (int i = 0; i < 20; i++)
        push(f, 1, 10000);
    pump(f);
    assert_int_equal(20, f->a.end_count);
    assert_int_equal(0, f->b.pool->used_bytes);
    assert_false(f->b.held);
}

static void operations_arrive_byte_for_byte(void **state)
{
    struct fixture *f = *state;
    tandem_job_handle *handle;
    tandem_slice operations;

    shake_hands(f);
    handle = push(f, 5, 1000);
    pump(f);
    operations = f->b.deliveries[0]->jobs[0].operations;
    assert_true(tandem_slice_equal(tandem_writer_slice(&handle->more->canonical), operations));
    assert_true(tandem_slice_equal(operations, f->b.deliveries[0]->handles[0]->elsewhere));
}

/* They are parsed for their handles: the executor needs not do it again. What has no room is not given. */
static void operations_are_handed_on_parsed(void **state)
{
    struct fixture *f = *state;
    const td_remote_job *jobs;

    shake_hands(f);
    for (int i = 0; i < 3; i++)
        push(f, 1, 100);
    pump(f);
    jobs = f->b.deliveries[0]->jobs;
    assert_int_equal(3, f->b.deliveries[0]->count);
    assert_int_equal(3, f->b.pool->parsed);
    for (unsigned i = 0; i < 3; i++) {
        assert_non_null(jobs[i].given);
        assert_int_equal(i + 1, jobs[i].given->seq);
        assert_in_range((uintptr_t)jobs[i].given->canonical.bytes,
                        (uintptr_t)jobs[i].operations.bytes,
                        (uintptr_t)jobs[i].operations.bytes + jobs[i].operations.size);
    }
    f->b.pool->parsed = TD_POOL_PARSED_MAX;
    push(f, 1, 100);
    pump(f);
    assert_null(f->b.deliveries[1]->jobs[0].given);
    f->b.pool->parsed = 3;
    give_back(&f->b, 0, NULL);
    give_back(&f->b, 1, NULL);
    assert_int_equal(0, f->b.pool->parsed);
}

/* ---- Packing ---- */

/* Let a side offer packing, from the beginning. */
static void let_pack(struct side *side)
{
    side_end(side);
    assert_int_equal(TANDEM_OK, td_packer_open(&side->own_pool.packer));
    side->packs = true;
    side_begin(side);
}

static void end_packing(struct side *side)
{
    side_end(side);
    td_packer_free(side->own_pool.packer);
}

static void packed_jobs_arrive_byte_for_byte(void **state)
{
    struct fixture *f = *state;
    tandem_job_handle *handle;
    td_wire_message message;

    let_pack(&f->a);
    let_pack(&f->b);
    shake_hands(f);
    handle = push(f, 5, 1000);
    message = next_of(f, &f->a);
    assert_int_equal(TD_WIRE_PACKED, message.type);
    assert_true(f->out.size < handle->bytes / 2);
    assert_int_equal(TANDEM_OK, said(f, &f->b));
    assert_true(tandem_slice_equal(tandem_writer_slice(&handle->more->canonical),
                                   f->b.deliveries[0]->jobs[0].operations));
    assert_int_equal(message.as.packed.bytes, f->b.pool->used_bytes);
    give_all_back(&f->b);
    pump(f);
    assert_int_equal(1, f->a.end_count);
    end_packing(&f->a);
    end_packing(&f->b);
}

/* "Sent only where both HELLOs offer zstd", "what is shorter than 1,024 bytes". */
static void only_what_is_worth_it_is_packed_and_only_for_who_offers_it(void **state)
{
    struct fixture *f = *state;

    let_pack(&f->a);
    shake_hands(f);
    push(f, 5, 1000);
    assert_int_equal(TD_WIRE_JOBS, next_of(f, &f->a).type);
    let_pack(&f->b);
    side_end(&f->a);
    side_begin(&f->a);
    while (tandem_mailbox_first(f->a.outbox)) {
        tandem_job_handle *handle = tandem_mailbox_first(f->a.outbox);

        tandem_mailbox_remove(f->a.outbox, handle);
        tandem_job_handle_free(handle);
    }
    shake_hands(f);
    push(f, 1, 100);
    assert_int_equal(TD_WIRE_JOBS, next_of(f, &f->a).type);
    push(f, 5, 1000);
    assert_int_equal(TD_WIRE_PACKED, next_of(f, &f->a).type);
    end_packing(&f->a);
    end_packing(&f->b);
}

enum {
    NOT_OFFERED,
    NO_FRAME,
    TOO_SHORT,
    TWO_FRAMES,
    NOT_JOBS,
    OTHER_NUMBER,
    OTHER_JOB,
    NO_MESSAGE,
    BREACHES
};

/* Packs a message that stands in f->out, one way or another. */
static tandem_err say_packed(struct fixture *f, struct side *side, uint64_t number, unsigned breach)
{
    static const uint8_t to_skip[] = {0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0}; /* RFC 8878, 3.1.2 */
    td_packer *packer;
    td_wire_message message;
    tandem_err err;
    uint8_t frame[512];
    size_t size;

    assert_int_equal(TANDEM_OK, td_packer_open(&packer));
    assert_true(td_packer_pack(packer, &f->out, 0, number) > 0);
    assert_int_equal(TANDEM_OK, td_wire_read(tandem_writer_slice(&f->out), &message));
    size = message.as.packed.frame.size;
    assert_true(size + sizeof(to_skip) <= sizeof(frame));
    memcpy(frame, message.as.packed.frame.bytes, size);
    if (breach == TWO_FRAMES) {
        memcpy(frame + size, to_skip, sizeof(to_skip));
        size += sizeof(to_skip);
    }
    tandem_writer_clear(&f->out);
    td_wire_write_packed(&f->out, number, message.as.packed.bytes + (breach == TOO_SHORT),
                         tandem_slice_of(frame, size));
    err = said(f, side);
    td_packer_free(packer);
    return err;
}

/* A JOBS, or a HAVE, that is longer than it needs to be. */
static void write_long(struct fixture *f, bool jobs, uint64_t number, uint64_t first_job)
{
    static const uint8_t zeros[2000];

    tandem_writer_clear(&f->out);
    tandem_write_array(&f->out, jobs ? 4 : 8);
    tandem_write_uint(&f->out, jobs ? TD_WIRE_JOBS : TD_WIRE_HAVE);
    tandem_write_uint(&f->out, number);
    if (!jobs) {
        for (unsigned i = 0; i < 3; i++)
            tandem_write_uint(&f->out, i == 2 ? TD_HAVE_DIGESTS : 1);
        tandem_write_bool(&f->out, false);
        tandem_write_array(&f->out, 0);
        tandem_write_binary(&f->out, tandem_slice_of(zeros, sizeof(zeros)));
        return;
    }
    tandem_write_uint(&f->out, first_job);
    tandem_write_array(&f->out, first_job != 0);
    if (first_job) {
        tandem_write_array(&f->out, 1);
        tandem_write_binary(&f->out, tandem_slice_of(zeros, sizeof(zeros)));
    }
}

static void say_breach(struct fixture *f, struct side *side, unsigned breach)
{
    uint64_t number = f->number++;

    write_long(f, breach != NOT_JOBS, breach == OTHER_NUMBER ? number + 1 : number,
               breach == OTHER_JOB ? 2 : 1);
    if (breach == NO_MESSAGE)
        f->out.bytes[0] = 0xc0;
    if (breach == NO_FRAME) {
        tandem_writer_clear(&f->out);
        td_wire_write_packed(&f->out, number, 5, tandem_slice_of("frame", 5));
        assert_int_equal(TANDEM_E_PROTOCOL, said(f, side));
        return;
    }
    assert_int_equal(TANDEM_E_PROTOCOL, say_packed(f, side, number, breach));
}

static void what_is_packed_wrongly_ends_the_session(void **state)
{
    static const char *const offered[] = {TD_PACKER_FEATURE};
    struct fixture *f = *state;
    struct side *side = &f->a;

    let_pack(side);
    for (unsigned breach = 0; breach < BREACHES; breach++) {
        td_wire_hello hello = {.major = TD_WIRE_MAJOR,
                               .message_bytes = TD_MESSAGE_BYTES_MAX,
                               .window_bytes = WINDOW_BYTES,
                               .window_jobs = 1000,
                               .agent = tandem_slice_text("by hand")};

        f->number = 1;
        tandem_writer_clear(&f->out);
        td_wire_write_hello(&f->out, f->number++, &hello, offered, breach != NOT_OFFERED);
        assert_int_equal(TANDEM_OK, said(f, side));
        relay(f, side, NULL);
        say_breach(f, side, breach);
        assert_ends(f, side, TANDEM_E_PROTOCOL);
        assert_int_equal(0, side->pool->used_bytes);
        side_end(side);
        side_begin(side);
    }
    end_packing(side);
}

/* "Acknowledged from the front": what is finished behind something that is not, waits. */
static void an_ack_covers_what_is_finished_from_the_front(void **state)
{
    struct fixture *f = *state;

    shake_hands(f);
    for (int i = 0; i < 3; i++)
        push(f, 1, TD_SESSION_FRAME_BYTES); /* each a message of its own */
    pump(f);
    assert_int_equal(3, f->b.delivery_count);
    give_back(&f->b, 2, NULL);
    give_back(&f->b, 1, NULL);
    pump(f);
    assert_int_equal(0, f->a.end_count);
    assert_int_equal(3, tandem_mailbox_jobs(f->b.inbox));
    assert_int_equal(TANDEM_JOB_APPLIED, tandem_mailbox_first(f->b.inbox)->next->status);
    give_back(&f->b, 0, NULL);
    pump(f);
    assert_int_equal(3, f->a.end_count);
    assert_int_equal(0, tandem_mailbox_jobs(f->b.inbox));
}

struct tally {
    unsigned applied, failed;
    tandem_err last_error;
};

static void on_removed(void *context, tandem_job_handle *handle)
{
    struct tally *tally = context;

    tally->applied += handle->status == TANDEM_JOB_APPLIED;
    tally->failed += handle->status == TANDEM_JOB_ERROR;
    if (handle->error != TANDEM_OK)
        tally->last_error = handle->error;
}

/* "what is put back leaves the window with its origin, the rest flows" */
static void what_was_not_stored_fails_and_the_rest_is_applied(void **state)
{
    static const tandem_err errs[] = {TANDEM_OK,         TANDEM_E_PREDECESSOR, TANDEM_OK,
                                      (tandem_err)-9999, TANDEM_E_CLOCK,       TANDEM_OK};
    struct fixture *f = *state;
    struct tally inbox = {.applied = 0};

    shake_hands(f);
    assert_int_equal(TANDEM_OK,
                     tandem_mailbox_subscribe(f->b.inbox, NULL, on_removed, &inbox));
    for (int i = 0; i < 6; i++)
        push(f, 1, 10);
    pump(f);
    assert_int_equal(1, f->b.delivery_count);
    f->b.deliveries[0]->jobs[4].detail = UINT64_C(12345) << 16;
    give_back(&f->b, 0, errs);
    assert_int_equal(3, inbox.applied);
    assert_int_equal(3, inbox.failed);
    assert_int_equal(TANDEM_E_CLOCK, inbox.last_error);
    pump(f);
    assert_int_equal(6, f->a.end_count);
    assert_int_equal(0, tandem_mailbox_jobs(f->a.outbox));
    for (int i = 0; i < 6; i++) {
        assert_int_equal(i + 1, f->a.ends[i].first_seq);
        assert_int_equal(errs[i] == TANDEM_OK ? TANDEM_JOB_APPLIED : TANDEM_JOB_ERROR,
                         f->a.ends[i].status);
        /* An error that this version does not know is a refusal. */
        assert_int_equal(errs[i] == (tandem_err)-9999 ? TANDEM_E_REFUSED : errs[i],
                         f->a.ends[i].error);
        assert_int_equal(i == 4 ? UINT64_C(12345) << 16 : 0, f->a.ends[i].detail);
    }
    push(f, 1, 10);
    pump(f);
    give_all_back(&f->b);
    pump(f);
    assert_int_equal(7, f->a.end_count);
}

static void bytes_that_are_no_operation_are_the_executors_to_refuse(void **state)
{
    static const uint8_t junk[2 * TD_OPERATION_BYTES_MIN] = {0xc1, 1, 2, 3};
    static const tandem_err errs[] = {TANDEM_E_PAYLOAD, TANDEM_OK};
    struct fixture *f = *state;
    struct side *side = alone(f);
    td_wire_message message;
    td_wire_exception exception;

    assert_int_equal(TANDEM_OK, say_jobs(f, side, 1, 1, 0, tandem_slice_of(junk, sizeof(junk))));
    assert_int_equal(TANDEM_OK, say_jobs(f, side, 2, 1, 10, no_garbage));
    assert_int_equal(2, side->delivery_count);
    assert_int_equal(1, tandem_mailbox_jobs(side->inbox));
    assert_int_equal(1, side->deliveries[0]->room);
    assert_null(side->deliveries[0]->jobs[0].given);
    give_back(side, 0, errs);
    give_back(side, 1, NULL);
    message = next_of(f, side);
    assert_int_equal(TD_WIRE_ACK, message.type);
    assert_int_equal(2, message.as.ack.done);
    assert_int_equal(1, message.as.ack.exception_count);
    assert_int_equal(TANDEM_OK, td_wire_read_exception(&message.as.ack.exceptions, &exception));
    assert_int_equal(1, exception.job);
    assert_int_equal(TANDEM_E_PAYLOAD, exception.err);
}

static void jobs_without_jobs_mean_nothing(void **state)
{
    struct fixture *f = *state;
    struct side *side = alone(f);

    assert_int_equal(TANDEM_OK, say_jobs(f, side, 1, 0, 0, no_garbage));
    assert_int_equal(TANDEM_OK, say_jobs(f, side, 1, 1, 10, no_garbage));
    assert_int_equal(1, side->delivery_count);
}

/* "Frames of 16 to 64 KiB carry many operations", and "Jobs stay whole". */
static void small_jobs_share_a_message_and_a_large_one_has_its_own(void **state)
{
    struct fixture *f = *state;
    td_wire_message message;
    tandem_job_handle *large;

    narrow(&f->b, 1000, UINT64_MAX);
    shake_hands(f);
    for (int i = 0; i < 60; i++)
        push(f, 1, 2000);
    for (unsigned sent = 0; sent < 60; sent += message.as.jobs.job_count) {
        message = next_of(f, &f->a);
        assert_int_equal(TD_WIRE_JOBS, message.type);
        assert_int_equal(sent + 1, message.as.jobs.first_job);
        assert_in_range(message.as.jobs.job_count, 10, 40);
        assert_in_range(f->out.size, 16 * 1024, 64 * 1024);
        assert_int_equal(TANDEM_OK, said(f, &f->b));
    }
    give_all_back(&f->b);
    pump(f);
    assert_int_equal(60, f->a.end_count);

    large = push(f, 3, 170 * 1024);
    assert_true(large->bytes > 510 * 1024);
    push(f, 1, 10);
    message = next_of(f, &f->a);
    assert_int_equal(1, message.as.jobs.job_count);
    assert_int_equal(TANDEM_OK, said(f, &f->b));
    assert_int_equal(large->bytes, tandem_mailbox_first(f->b.inbox)->bytes);
}

/* "jobs of one (collection, origin) are sent in ascending seq", and arrive so. */
static void jobs_arrive_in_the_order_of_the_outbox(void **state)
{
    struct fixture *f = *state;
    uint64_t next = 1;

    shake_hands(f);
    for (int i = 0; i < 50; i++)
        push(f, 1 + (size_t)i % 3, 4000);
    for (int round = 0; round < 50 && f->a.end_count < 50; round++) {
        pump(f);
        give_all_back(&f->b);
    }
    assert_int_equal(50, f->a.end_count);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(next, f->a.ends[i].first_seq);
        next += 1 + i % 3;
    }
}

/* ---- Windows ---- */

/* "the inbox window being the credit that the sender has": the peer's, where it is smaller. */
static void the_peers_window_bounds_what_is_in_flight_in_jobs(void **state)
{
    struct fixture *f = *state;

    narrow(&f->b, 5, UINT64_MAX);
    shake_hands(f);
    for (int i = 0; i < 20; i++)
        push(f, 1, 10);
    pump(f);
    assert_int_equal(5, tandem_mailbox_jobs(f->b.inbox));
    assert_int_equal(20, tandem_mailbox_jobs(f->a.outbox));
    assert_false(td_session_has_credit(f->a.session, 1));
    while (f->a.end_count < 20) {
        give_all_back(&f->b);
        pump(f);
        assert_true(tandem_mailbox_jobs(f->b.inbox) <= 5);
    }
    assert_true(td_session_has_credit(f->a.session, 1));
}

static void the_peers_window_bounds_what_is_in_flight_in_bytes(void **state)
{
    struct fixture *f = *state;

    narrow(&f->b, 1000, 10000);
    shake_hands(f);
    for (int i = 0; i < 40; i++)
        push(f, 1, 1000);
    pump(f);
    assert_in_range(tandem_mailbox_jobs(f->b.inbox), 7, 9);
    while (f->a.end_count < 40) {
        give_all_back(&f->b);
        pump(f);
        assert_true(tandem_mailbox_bytes(f->b.inbox) <= 10000);
    }
}

/* "a single job may always be sent when nothing is in flight" */
static void a_job_larger_than_the_window_travels_alone(void **state)
{
    struct fixture *f = *state;

    narrow(&f->b, 1, 100);
    shake_hands(f);
    push(f, 2, 60000);
    push(f, 1, 60000);
    for (unsigned i = 1; i <= 2; i++) {
        pump(f);
        assert_int_equal(1, tandem_mailbox_jobs(f->b.inbox));
        assert_int_equal(i, f->b.delivery_count);
        give_all_back(&f->b);
    }
    pump(f);
    assert_int_equal(2, f->a.end_count);
}

/* Zeros in HELLO are no division by zero, and no standstill. */
static void a_peer_without_a_window_gets_one_job_at_a_time(void **state)
{
    struct fixture *f = *state;

    write_hello(f, f->number++, TD_WIRE_MAJOR, 0, 0);
    assert_int_equal(TANDEM_OK, said(f, &f->a));
    relay(f, &f->a, NULL);
    for (int i = 0; i < 3; i++)
        push(f, 1, 10);
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(1, relay(f, &f->a, NULL));
        assert_int_equal(TANDEM_OK, say_ack(f, &f->a, i, NULL, 0));
    }
    assert_int_equal(3, f->a.end_count);
}

/* "Acknowledgements, announcements, errors and pings need no credit." */
static void acks_announcements_errors_and_heartbeats_need_no_credit(void **state)
{
    struct fixture *f = *state;

    narrow(&f->b, 1, 100);
    shake_hands(f);
    push(f, 1, 1000);
    push(f, 1, 1000);
    push_from(&f->b, &f->other, 1, 10);
    pump(f);
    assert_false(td_session_has_credit(f->a.session, 1));

    f->a.to_announce = 3;
    td_session_announce(f->a.session);
    pump(f);
    assert_int_equal(3, f->b.haves);

    give_all_back(&f->a);
    pump(f);
    assert_int_equal(1, f->b.end_count);

    f->clock.now_ms += TD_SESSION_HEARTBEAT_MS;
    td_session_tick(f->a.session, f->clock.now_ms);
    relay(f, &f->a, &f->b);
    assert_int_equal(4, f->b.haves);

    td_session_fail(f->a.session, TANDEM_E_CLOSED, "going");
    relay(f, &f->a, &f->b);
    assert_int_equal(TANDEM_E_CLOSED, f->b.peer_err);
    assert_int_equal(2, tandem_mailbox_jobs(f->a.outbox));
}

static void a_handle_that_waits_is_not_sent_until_it_may(void **state)
{
    struct fixture *f = *state;
    tandem_job_handle *waits;
    unsigned wakes;

    waits = push(f, 1, 10);
    waits->waiting = true;
    shake_hands(f);
    push(f, 1, 10);
    pump(f);
    assert_int_equal(1, f->b.delivery_count);
    assert_int_equal(2, tandem_mailbox_first(f->b.inbox)->first_seq);
    /* The peer's announcement tells that it lacks it: nobody need wake the session for it. */
    f->a.settles = true;
    f->b.to_announce = 1;
    td_session_announce(f->b.session);
    wakes = f->a.wakes;
    relay(f, &f->b, &f->a);
    assert_true(f->a.wakes > wakes);
    pump(f);
    assert_int_equal(2, f->b.delivery_count);
}

/* ---- What a hostile peer may try ---- */

static void an_ack_of_what_was_not_sent_ends_the_session(void **state)
{
    struct fixture *f = *state;
    static const uint64_t done[] = {3, 4, UINT64_MAX};

    for (int i = 0; i < 3; i++) {
        struct side *side = alone(f);

        push(f, 1, 10);
        push(f, 1, 10);
        relay(f, side, NULL);
        assert_int_equal(TANDEM_E_PROTOCOL, say_ack(f, side, done[i], NULL, 0));
        assert_ends(f, side, TANDEM_E_PROTOCOL);
        assert_int_equal(0, side->end_count);
        side_end(side);
        while (tandem_mailbox_first(side->outbox)) {
            tandem_job_handle *handle = tandem_mailbox_first(side->outbox);

            assert_int_equal(TANDEM_JOB_EXECUTION_PENDING, handle->status);
            tandem_mailbox_remove(side->outbox, handle);
            tandem_job_handle_free(handle);
        }
        side_begin(side);
        f->number = 1;
    }
}

static void an_ack_of_fewer_than_before_ends_the_session(void **state)
{
    struct fixture *f = *state;
    struct side *side = alone(f);

    for (int i = 0; i < 3; i++)
        push(f, 1, 10);
    relay(f, side, NULL);
    assert_int_equal(TANDEM_OK, say_ack(f, side, 0, NULL, 0));
    assert_int_equal(TANDEM_OK, say_ack(f, side, 2, NULL, 0));
    assert_int_equal(TANDEM_OK, say_ack(f, side, 2, NULL, 0)); /* again is nothing new */
    assert_int_equal(2, side->end_count);
    assert_int_equal(TANDEM_E_PROTOCOL, say_ack(f, side, 1, NULL, 0));
    assert_ends(f, side, TANDEM_E_PROTOCOL);
    assert_int_equal(2, side->end_count);
    assert_int_equal(1, tandem_mailbox_jobs(side->outbox));
}

static void exceptions_must_be_of_this_ack_and_ascend(void **state)
{
    static const struct {
        td_wire_exception exceptions[2];
        uint32_t count;
    } bad[] = {
        {{{.job = 1, .err = -9}}, 1},                        /* covered by an earlier one */
        {{{.job = 4, .err = -9}}, 1},                        /* not covered yet */
        {{{.job = 3, .err = -9}, {.job = 2, .err = -9}}, 2}, /* descending */
        {{{.job = 2, .err = -9}, {.job = 2, .err = -9}}, 2}, /* twice */
        {{{.job = 2, .err = 0}}, 1},                         /* no error */
        {{{.job = 2, .err = 1}}, 1},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct side *side = alone(f);

        while (tandem_mailbox_jobs(side->outbox) < 4)
            push(f, 1, 10);
        relay(f, side, NULL);
        side->end_count = 0;
        assert_int_equal(TANDEM_OK, say_ack(f, side, 1, NULL, 0));
        assert_int_equal(TANDEM_E_PROTOCOL,
                         say_ack(f, side, 3, bad[i].exceptions, bad[i].count));
        assert_int_equal(1, side->end_count); /* nothing of it was done */
        assert_ends(f, side, TANDEM_E_PROTOCOL);
        side_end(side);
        side_begin(side);
        f->number = 1;
    }
}

static void job_numbers_with_a_gap_end_the_session(void **state)
{
    static const uint64_t firsts[] = {1, 3, UINT64_MAX};
    struct fixture *f = *state;

    for (int i = 0; i < 3; i++) {
        struct side *side = alone(f);

        assert_int_equal(TANDEM_OK, say_jobs(f, side, 1, 1, 10, no_garbage));
        assert_int_equal(TANDEM_E_PROTOCOL, say_jobs(f, side, firsts[i], 1, 10, no_garbage));
        assert_ends(f, side, TANDEM_E_PROTOCOL);
        assert_int_equal(1, tandem_mailbox_jobs(side->inbox));
        side_end(side);
        give_all_back(side);
        side_begin(side);
        f->number = 1;
    }
}

/* "at most `window_bytes`/`window_jobs` in flight": a peer that sends more broke the protocol. */
static void more_in_flight_than_the_window_ends_the_session(void **state)
{
    struct fixture *f = *state;
    struct side *side = alone(f);

    assert_int_equal(TANDEM_OK, say_jobs(f, side, 1, WINDOW_JOBS, 10, no_garbage));
    assert_int_equal(TANDEM_E_PROTOCOL, say_jobs(f, side, WINDOW_JOBS + 1, 1, 10, no_garbage));
    assert_ends(f, side, TANDEM_E_PROTOCOL);
    assert_int_equal(WINDOW_JOBS, tandem_mailbox_jobs(side->inbox));
    side_end(side);
    give_all_back(side);
    side_begin(side);
    f->number = 1;

    alone(f);
    for (uint64_t i = 1; i <= 5; i++)
        assert_int_equal(TANDEM_OK, say_jobs(f, side, i, 1, 200 * 1024, no_garbage));
    assert_int_equal(TANDEM_E_PROTOCOL, say_jobs(f, side, 6, 1, 200 * 1024, no_garbage));
    assert_ends(f, side, TANDEM_E_PROTOCOL);
    assert_true(tandem_mailbox_bytes(side->inbox) <= WINDOW_BYTES);
}

/* What is no operation has no handle, and takes memory all the same. */
static void garbage_counts_against_the_window(void **state)
{
    static uint8_t junk[200 * 1024];
    struct fixture *f = *state;
    struct side *side = alone(f);

    assert_int_equal(TANDEM_E_PROTOCOL,
                     say_jobs(f, side, 1, 20000, 0, tandem_slice_of(junk, 1)));
    assert_ends(f, side, TANDEM_E_PROTOCOL);
    assert_int_equal(0, side->delivery_count);
    assert_int_equal(0, side->pool->used_bytes);
    side_end(side);
    side_begin(side);
    f->number = 1;

    alone(f);
    for (uint64_t i = 1; i <= WINDOW_JOBS; i++)
        assert_int_equal(TANDEM_OK, say_jobs(f, side, i, 1, 0, tandem_slice_of(junk, 0)));
    give_back(side, 0, NULL);
    assert_int_equal(TD_WIRE_ACK, next_of(f, side).type);
    assert_int_equal(TANDEM_OK,
                     say_jobs(f, side, WINDOW_JOBS + 1, 1, 0, tandem_slice_of(junk, 1)));
    assert_int_equal(TANDEM_E_PROTOCOL,
                     say_jobs(f, side, WINDOW_JOBS + 2, 1, 0, tandem_slice_of(junk, 1)));
    side_end(side);
    give_all_back(side);
    side_begin(side);
    f->number = 1;

    alone(f);
    for (uint64_t i = 1; i <= 5; i++)
        assert_int_equal(TANDEM_OK,
                         say_jobs(f, side, i, 1, 0, tandem_slice_of(junk, sizeof(junk))));
    assert_int_equal(TANDEM_E_PROTOCOL,
                     say_jobs(f, side, 6, 1, 0, tandem_slice_of(junk, sizeof(junk))));
}

static void a_job_cut_short_ends_the_session(void **state)
{
    struct fixture *f = *state;
    struct side *side = alone(f);
    size_t at;

    /* A job that announces two operations, of which the second is none. */
    tandem_writer_clear(&f->out);
    at = td_wire_begin_jobs(&f->out, f->number++, 1);
    tandem_write_array(&f->out, 2);
    tandem_write_binary(&f->out, tandem_slice_text("one"));
    tandem_write_nil(&f->out);
    td_wire_patch_count(&f->out, at, 1);
    assert_int_equal(TANDEM_E_PROTOCOL, said(f, side));
    assert_ends(f, side, TANDEM_E_PROTOCOL);
    assert_int_equal(0, side->delivery_count);
}

static void a_message_cut_short_ends_the_session(void **state)
{
    struct fixture *f = *state;
    uint8_t *copy;
    size_t whole;

    write_hello(f, 1, TD_WIRE_MAJOR, 10, 10);
    whole = f->out.size;
    copy = malloc(whole + 1);
    for (size_t size = 0; size <= whole + 1; size++) {
        tandem_err expected = size == whole ? TANDEM_OK : TANDEM_E_PROTOCOL;
        uint8_t *exact = malloc(size ? size : 1);

        memset(copy, 0, whole + 1);
        memcpy(copy, f->out.bytes, whole);
        memcpy(exact, copy, size);
        assert_int_equal(expected, td_session_receive(f->a.session, tandem_slice_of(exact, size)));
        free(exact);
        side_end(&f->a);
        side_begin(&f->a);
    }
    free(copy);
}

/* A session among others may be told anything: it ends, or goes on; nothing else happens. */
static void garbage_does_no_harm(void **state)
{
    enum { ROUNDS = 3000 };
    struct fixture *f = *state;
    uint64_t x = 88172645463325252u;

    for (int round = 0; round < ROUNDS; round++) {
        struct side *side = &f->a;
        tandem_err err = TANDEM_OK;

        side->answers_at_once = round & 1;
        push(f, 1, 10);
        write_hello(f, 1, TD_WIRE_MAJOR, 10, 1000);
        f->number = 2;
        for (int message = 0; message < 6 && err == TANDEM_OK; message++) {
            if (message > 0 && message < 3)
                err = say_jobs(f, side, (uint64_t)message, 2, 5, no_garbage);
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            /* What was said last, broken in one place, or its end torn off. */
            if (x & 3)
                f->out.bytes[(x >> 8) % f->out.size] = (uint8_t)(x >> 40);
            if ((x & 12) == 0)
                f->out.size = (x >> 16) % (f->out.size + 1);
            if (message != 0 && err == TANDEM_OK && f->out.size > 2 && (x & 16))
                f->out.bytes[2] = (uint8_t)f->number; /* a number that is looked at */
            if (err == TANDEM_OK)
                err = said(f, side);
            relay(f, side, NULL);
            write_hello(f, 1, TD_WIRE_MAJOR, 10, 1000);
        }
        side_end(side);
        give_all_back(side);
        side->delivery_count = side->end_count = 0;
        side->held = false;
        assert_int_equal(0, tandem_mailbox_jobs(side->inbox));
        assert_int_equal(0, side->pool->used_bytes);
        while (tandem_mailbox_first(side->outbox)) {
            tandem_job_handle *handle = tandem_mailbox_first(side->outbox);

            tandem_mailbox_remove(side->outbox, handle);
            tandem_job_handle_free(handle);
        }
        side_begin(side);
    }
    f->a.answers_at_once = false;
}

/* ---- Errors ---- */

static void an_error_ends_the_session_on_both_sides(void **state)
{
    struct fixture *f = *state;
    const char *text;
    tandem_err err;

    shake_hands(f);
    push_from(&f->b, &f->other, 1, 10);
    td_session_fail(f->a.session, TANDEM_E_STORE_FULL, "the disk is full");
    td_session_fail(f->a.session, TANDEM_E_IO, "the first reason counts");
    assert_false(td_session_is_over(f->a.session));
    assert_int_equal(1, relay(f, &f->a, &f->b));
    assert_true(td_session_is_over(f->a.session));
    assert_int_equal(1, f->b.peer_errors);
    err = td_session_err(f->b.session, &text);
    assert_int_equal(TANDEM_E_STORE_FULL, err);
    assert_string_equal("the disk is full", text);
    assert_true(td_session_is_over(f->b.session));
    /* "An ERROR is never answered"; nor are jobs sent any more. */
    assert_int_equal(0, relay(f, &f->b, &f->a));
    assert_int_equal(0, relay(f, &f->a, &f->b));
    assert_int_equal(1, tandem_mailbox_jobs(f->b.outbox));
}

static void an_unknown_error_and_its_floor_reach_the_user(void **state)
{
    struct fixture *f = *state;
    struct side *side = alone(f);

    tandem_writer_clear(&f->out);
    td_wire_write_error(&f->out, f->number, (tandem_err)-4242, "from the future", 1500);
    assert_int_equal(TANDEM_E_REFUSED, said(f, side));
    assert_int_equal(-4242, side->peer_err);
    assert_int_equal(1500, side->retry_after_ms);
    assert_true(td_session_is_over(side->session));
}

static void what_the_user_refuses_ends_the_session(void **state)
{
    struct fixture *f = *state;
    struct side *side = alone(f);

    side->refuse_have = TANDEM_E_LIMIT;
    assert_int_equal(TANDEM_E_LIMIT, say_have(f, side, f->number++));
    assert_ends(f, side, TANDEM_E_LIMIT);
    side_end(side);
    side_begin(side);
    f->number = 1;
    side->refuse_have = TANDEM_OK;

    alone(f);
    side->refuse_pull = TANDEM_E_IO;
    tandem_writer_clear(&f->out);
    td_wire_patch_count(&f->out, td_wire_begin_pull(&f->out, f->number), 0);
    assert_int_equal(TANDEM_E_IO, said(f, side));
    assert_int_equal(1, side->pulls);
    assert_ends(f, side, TANDEM_E_IO);
}

static void a_cover_is_for_who_knows_it(void **state)
{
    struct fixture *f = *state;
    struct side *side = &f->a;

    for (int round = 0; round < 3; round++) {
        side->no_covers = round == 1;
        side->refuse_cover = round == 2 ? TANDEM_E_IO : TANDEM_OK;
        side_end(side);
        side_begin(side);
        f->number = 1;
        alone(f);
        tandem_writer_clear(&f->out);
        td_wire_patch_count(&f->out, td_wire_begin_cover(&f->out, f->number++), 0);
        assert_int_equal(side->refuse_cover, said(f, side));
        assert_int_equal(round == 2 ? 2 : 1, side->covers);
    }
    assert_ends(f, side, TANDEM_E_IO);
}

static void shares_are_said_before_the_sum(void **state)
{
    struct fixture *f = *state;

    f->a.sums = f->a.shares = true;
    shake_hands(f);
    assert_true(f->b.peer_hello.has_shares);
    assert_false(f->a.peer_hello.has_shares);
    f->a.to_announce = 1;
    td_session_announce(f->a.session);
    relay(f, &f->a, &f->b);
    assert_int_equal(1, f->b.haves);
}

static void an_announcement_that_cannot_be_made_ends_the_session(void **state)
{
    struct fixture *f = *state;

    shake_hands(f);
    f->a.announce_err = TANDEM_E_NOMEM;
    td_session_announce(f->a.session);
    assert_int_equal(0, relay(f, &f->a, &f->b));
    assert_true(td_session_is_over(f->a.session));
    assert_int_equal(TANDEM_E_NOMEM, td_session_err(f->a.session, NULL));
}

/* ---- Time ---- */

static void a_heartbeat_is_said_after_ten_seconds_of_silence(void **state)
{
    struct fixture *f = *state;
    uint64_t due_ms;

    shake_hands(f);
    due_ms = td_session_tick(f->a.session, f->clock.now_ms);
    assert_int_equal(f->clock.now_ms + TD_SESSION_HEARTBEAT_MS, due_ms);
    f->clock.now_ms = due_ms - 1;
    td_session_tick(f->a.session, f->clock.now_ms);
    assert_int_equal(0, relay(f, &f->a, &f->b));
    f->clock.now_ms = due_ms;
    td_session_tick(f->a.session, f->clock.now_ms);
    td_session_tick(f->a.session, f->clock.now_ms);
    assert_int_equal(1, relay(f, &f->a, &f->b));
    assert_int_equal(1, f->a.heartbeats);
    assert_int_equal(due_ms, td_session_heard_ms(f->b.session));
    /* Whatever else is said, is a sign of life, too. */
    f->clock.now_ms += TD_SESSION_HEARTBEAT_MS;
    push(f, 1, 10);
    td_session_tick(f->a.session, f->clock.now_ms);
    assert_int_equal(1, relay(f, &f->a, &f->b));
    assert_int_equal(1, f->a.heartbeats);
}

static void thirty_seconds_without_a_word_end_the_session(void **state)
{
    struct fixture *f = *state;

    shake_hands(f);
    f->clock.now_ms += TD_SESSION_SILENCE_MS - 1;
    assert_true(td_session_tick(f->a.session, f->clock.now_ms) <= f->clock.now_ms + 1);
    assert_int_equal(TANDEM_OK, td_session_err(f->a.session, NULL));
    f->clock.now_ms++;
    td_session_tick(f->a.session, f->clock.now_ms);
    assert_ends(f, &f->a, TANDEM_E_TIMEOUT);
    /* "the first HELLO included" */
    side_end(&f->a);
    side_begin(&f->a);
    f->clock.now_ms += TD_SESSION_SILENCE_MS;
    td_session_tick(f->a.session, f->clock.now_ms);
    assert_ends(f, &f->a, TANDEM_E_TIMEOUT);
}

static void silence_between_two_exchanges_says_nothing(void **state)
{
    struct fixture *f = *state;

    shake_hands(f);
    td_session_pace(f->a.session, 60000, false);
    td_session_pace(f->b.session, 60000, true);
    f->clock.now_ms += 60000 + TD_SESSION_SILENCE_MS - 1;
    td_session_tick(f->a.session, f->clock.now_ms);
    td_session_tick(f->b.session, f->clock.now_ms);
    assert_int_equal(TANDEM_OK, td_session_err(f->a.session, NULL));
    assert_int_equal(TANDEM_OK, td_session_err(f->b.session, NULL));
    f->clock.now_ms++;
    td_session_tick(f->a.session, f->clock.now_ms);
    assert_ends(f, &f->a, TANDEM_E_TIMEOUT);
    td_session_tick(f->b.session, f->clock.now_ms);
    assert_ends(f, &f->b, TANDEM_E_TIMEOUT);
}

static void two_that_have_nothing_to_say_stay_together(void **state)
{
    struct fixture *f = *state;

    shake_hands(f);
    for (int i = 0; i < 100; i++) {
        uint64_t a_ms = td_session_tick(f->a.session, f->clock.now_ms);
        uint64_t b_ms = td_session_tick(f->b.session, f->clock.now_ms);

        pump(f);
        assert_true(a_ms > f->clock.now_ms && b_ms > f->clock.now_ms);
        f->clock.now_ms = a_ms < b_ms ? a_ms : b_ms;
    }
    assert_true(td_session_is_open(f->a.session));
    assert_true(td_session_is_open(f->b.session));
    assert_in_range(f->a.heartbeats, 10, 110);
}

/* ---- The pool ---- */

/* "All connections draw on one pool, each may always hold one message." */
static void connections_share_a_pool_and_each_may_hold_one_message(void **state)
{
    struct fixture *f = *state;
    struct side first = {.clock = NULL}, second = {.clock = NULL};
    struct side *receivers[] = {&first, &second};
    struct side *senders[] = {&f->a, &f->b};
    struct chain *chains[] = {&f->chain, &f->other};
    td_pool pool = {.limit_bytes = 100};

    for (int i = 0; i < 2; i++) {
        side_open_with(receivers[i], &f->clock, WINDOW_JOBS, WINDOW_BYTES);
        receivers[i]->pool = &pool;
        side_begin(receivers[i]);
        relay(f, receivers[i], senders[i]);
        relay(f, senders[i], receivers[i]);
        relay(f, receivers[i], senders[i]);
        for (int k = 0; k < 5; k++)
            push_from(senders[i], chains[i], 1, TD_SESSION_FRAME_BYTES);
    }
    /* As a transport does: nothing is taken in while held. */
    for (int message = 1; message <= 5; message++) {
        for (int i = 0; i < 2; i++) {
            assert_false(receivers[i]->held);
            next_of(f, senders[i]);
            assert_int_equal(TANDEM_OK, said(f, receivers[i]));
            assert_true(receivers[i]->held);
            assert_int_equal(message, receivers[i]->delivery_count);
        }
        assert_true(pool.used_bytes > 2 * TD_SESSION_FRAME_BYTES);
        for (int i = 0; i < 2; i++) {
            give_all_back(receivers[i]);
            assert_false(receivers[i]->held);
            relay(f, receivers[i], senders[i]);
        }
        assert_int_equal(0, pool.used_bytes);
    }
    assert_int_equal(5, f->a.end_count);
    assert_int_equal(5, f->b.end_count);
    side_release(&first);
    side_release(&second);
}

static void a_pool_with_room_holds_nobody(void **state)
{
    struct fixture *f = *state;

    f->b.own_pool.limit_bytes = 200 * 1024;
    shake_hands(f);
    for (int i = 0; i < 5; i++)
        push(f, 1, TD_SESSION_FRAME_BYTES);
    for (int i = 0; i < 4; i++) {
        next_of(f, &f->a);
        assert_int_equal(TANDEM_OK, said(f, &f->b));
        assert_false(f->b.held);
    }
    next_of(f, &f->a);
    assert_int_equal(TANDEM_OK, said(f, &f->b));
    assert_true(f->b.held);
    assert_int_equal(1, f->b.holds);
}

/* A slow disk on this side is no silence of the other. */
static void while_held_the_peers_silence_does_not_count(void **state)
{
    struct fixture *f = *state;

    f->b.own_pool.limit_bytes = 1;
    shake_hands(f);
    push(f, 1, 10);
    pump(f);
    assert_true(f->b.held);
    for (int i = 0; i < 5; i++) {
        f->clock.now_ms += TD_SESSION_SILENCE_MS;
        assert_true(td_session_tick(f->b.session, f->clock.now_ms) > f->clock.now_ms);
        relay(f, &f->b, &f->a); /* heartbeats go out meanwhile */
    }
    assert_int_equal(TANDEM_OK, td_session_err(f->b.session, NULL));
    give_all_back(&f->b);
    td_session_tick(f->b.session, f->clock.now_ms);
    assert_int_equal(TANDEM_OK, td_session_err(f->b.session, NULL));
    f->clock.now_ms += TD_SESSION_SILENCE_MS;
    td_session_tick(f->b.session, f->clock.now_ms);
    assert_int_equal(TANDEM_E_TIMEOUT, td_session_err(f->b.session, NULL));
}

/* ---- Sessions end, handles stay ---- */

static void a_delivery_may_outlive_its_session(void **state)
{
    struct fixture *f = *state;

    shake_hands(f);
    for (int i = 0; i < 3; i++)
        push(f, 1, TD_SESSION_FRAME_BYTES);
    pump(f);
    assert_int_equal(3, f->b.delivery_count);
    give_back(&f->b, 1, NULL); /* finished, and waits for its turn */
    side_end(&f->b);
    assert_null(f->b.deliveries[0]->session);
    assert_int_equal(2, tandem_mailbox_jobs(f->b.inbox));
    give_all_back(&f->b);
    assert_int_equal(0, tandem_mailbox_jobs(f->b.inbox));
    assert_int_equal(0, f->b.pool->used_bytes);
}

/* "What is sent again after a reconnect keeps its handle and status." */
static void handles_outlive_their_session_and_are_sent_again(void **state)
{
    struct fixture *f = *state;
    tandem_job_handle *second, *third;
    uint64_t second_id;

    shake_hands(f);
    push(f, 1, 10);
    pump(f);
    give_all_back(&f->b);
    second = push(f, 1, 10);
    second_id = second->id;
    pump(f); /* the ack of the first, and the second */
    third = push(f, 1, 10);
    assert_int_equal(1, f->a.end_count);

    side_end(&f->a);
    side_end(&f->b);
    assert_int_equal(2, tandem_mailbox_jobs(f->a.outbox));
    assert_int_equal(TANDEM_JOB_EXECUTION_PENDING, second->status);
    assert_int_equal(TANDEM_JOB_TRANSPORT_PENDING, third->status);
    give_all_back(&f->b); /* too late to be acknowledged */

    side_begin(&f->a);
    side_begin(&f->b);
    assert_int_equal(TANDEM_JOB_EXECUTION_PENDING, second->status);
    pump(f);
    assert_ptr_equal(second, tandem_mailbox_get(f->a.outbox, second_id));
    assert_int_equal(TANDEM_JOB_EXECUTION_PENDING, second->status);
    assert_int_equal(TANDEM_JOB_EXECUTION_PENDING, third->status);
    assert_int_equal(1, f->b.deliveries[f->b.delivery_count - 1]->first_job);
    assert_int_equal(2, f->b.deliveries[f->b.delivery_count - 1]->count);
    give_all_back(&f->b);
    pump(f);
    assert_int_equal(3, f->a.end_count);
    assert_null(tandem_mailbox_get(f->a.outbox, second_id));
}

/* ---- Handles that come to nothing ---- */

struct faulty_source {
    struct batch *batch;
    uint64_t bad_seq;
    tandem_err err;
    uint32_t read_before; /* operations read before it fails */
    bool ends_early;
    bool goes_on; /* it asks which one is next */
};

static tandem_err read_faulty(void *context, const tandem_job_handle *handle,
                              const td_job_visitor *visitor)
{
    struct faulty_source *source = context;
    tandem_err err;

    do {
        bool bad = handle->first_seq <= source->bad_seq && source->bad_seq <= handle->last_seq;

        for (uint64_t seq = handle->first_seq; seq <= handle->last_seq; seq++) {
            if (bad && seq == handle->first_seq + source->read_before)
                return source->ends_early ? TANDEM_OK : source->err;
            if ((err = visitor->visit(visitor->context,
                                      source->batch->operations[seq - 1].canonical)) != TANDEM_OK)
                return err;
        }
        handle = source->goes_on ? visitor->next(visitor->context) : NULL;
    } while (handle);
    return TANDEM_OK;
}

/* Five jobs of two operations that are kept elsewhere, the third of which cannot be read. */
static void push_faulty(struct fixture *f, struct faulty_source *source)
{
    source->batch = calloc(1, sizeof(*source->batch));
    source->bad_seq = 5;
    batch_job(source->batch, &f->chain, 10, 50);
    f->a.source = (td_job_source){.read = read_faulty, .context = source};
    for (size_t i = 0; i < 10; i += 2) {
        tandem_job_handle *handle;

        assert_int_equal(TANDEM_OK, td_job_handle_open(&source->batch->operations[i], i + 1,
                                                       false, &handle));
        assert_int_equal(TANDEM_OK, td_job_handle_add(handle, &source->batch->operations[i + 1]));
        assert_int_equal(TANDEM_OK, tandem_job_handle_started(handle));
        tandem_mailbox_push(f->a.outbox, handle);
    }
}

static void a_job_that_cannot_be_read_fails_and_the_rest_of_the_frame_is_sent(void **state)
{
    struct fixture *f = *state;

    for (uint32_t way = 0; way < 6; way++) {
        struct faulty_source source = {.err = TANDEM_E_CORRUPT,
                                       .read_before = way & 1,
                                       .ends_early = way % 3 == 2,
                                       .goes_on = way >= 3};

        shake_hands(f);
        push_faulty(f, &source);
        pump(f);
        assert_int_equal(1, f->a.end_count);
        assert_int_equal(TANDEM_JOB_ERROR, f->a.ends[0].status);
        assert_int_equal(TANDEM_E_CORRUPT, f->a.ends[0].error);
        assert_int_equal(5, f->a.ends[0].first_seq);
        assert_int_equal(1, f->b.delivery_count);
        assert_int_equal(4, f->b.deliveries[0]->count);
        for (uint32_t i = 0; i < 4; i++)
            assert_int_equal(2, f->b.deliveries[0]->handles[i]->operations);
        give_all_back(&f->b);
        pump(f);
        assert_int_equal(5, f->a.end_count);
        batch_release(source.batch);
        free(source.batch);
        side_end(&f->a);
        side_end(&f->b);
        f->a.end_count = f->b.delivery_count = 0;
        chain_init(&f->chain, "notes", 1);
        side_begin(&f->a);
        side_begin(&f->b);
    }
}

static void a_source_without_memory_ends_the_session_and_fails_no_job(void **state)
{
    struct faulty_source source = {.err = TANDEM_E_NOMEM, .read_before = 1};
    struct fixture *f = *state;

    shake_hands(f);
    push_faulty(f, &source);
    pump(f); /* the two jobs before it go out, then nothing does */
    assert_int_equal(0, f->a.end_count);
    assert_int_equal(5, tandem_mailbox_jobs(f->a.outbox));
    assert_true(td_session_is_over(f->a.session));
    assert_int_equal(TANDEM_E_NOMEM, td_session_err(f->a.session, NULL));
    batch_release(source.batch);
    free(source.batch);
}

/* "A handle leaves the outbox only when the remote has it durably, or when it becomes a dead letter." */
static void a_refused_handle_stays_while_its_user_keeps_it(void **state)
{
    static const tandem_err errs[] = {TANDEM_OK, TANDEM_E_REFUSED, TANDEM_E_CLOCK};
    struct fixture *f = *state;
    tandem_job_handle *refused;

    f->a.keeps = TANDEM_E_REFUSED;
    shake_hands(f);
    push(f, 1, 10);
    refused = push(f, 1, 10);
    push(f, 1, 10);
    pump(f);
    f->b.deliveries[0]->jobs[1].detail = 77;
    give_back(&f->b, 0, errs);
    pump(f);
    assert_int_equal(2, f->a.end_count);
    assert_int_equal(3, f->a.ends[1].first_seq);
    assert_ptr_equal(refused, tandem_mailbox_first(f->a.outbox));
    assert_int_equal(TANDEM_E_REFUSED, refused->error);
    assert_int_equal(77, refused->detail);
    /* It stands in nobody's way, and is not sent again. */
    push(f, 1, 10);
    pump(f);
    assert_int_equal(2, f->b.delivery_count);
    give_all_back(&f->b);
    pump(f);
    assert_int_equal(3, f->a.end_count);
    assert_int_equal(1, tandem_mailbox_jobs(f->a.outbox));
    assert_int_equal(0, td_session_inflight_bytes(f->a.session));
    tandem_mailbox_remove(f->a.outbox, refused);
    tandem_job_handle_free(refused);
    assert_int_equal(3, f->a.end_count);
}

/* "`failed` is legal from any state but Applied": also for whoever has the handle in an outbox. */
static void a_handle_that_its_owner_failed_is_not_sent_and_no_ack_revives_it(void **state)
{
    struct fixture *f = *state;
    tandem_job_handle *sent, *unsent;

    shake_hands(f);
    sent = push(f, 1, 10);
    pump(f);
    unsent = push(f, 1, 10);
    push(f, 1, 10);
    assert_int_equal(TANDEM_OK, tandem_job_handle_failed(sent, TANDEM_E_CLOSED));
    assert_int_equal(TANDEM_OK, tandem_job_handle_failed(unsent, TANDEM_E_REFUSED));
    pump(f);
    assert_int_equal(1, f->a.end_count);
    assert_int_equal(TANDEM_E_REFUSED, f->a.ends[0].error);
    assert_int_equal(2, f->b.delivery_count);
    give_all_back(&f->b);
    pump(f);
    assert_int_equal(3, f->a.end_count);
    assert_int_equal(TANDEM_JOB_ERROR, f->a.ends[1].status);
    assert_int_equal(TANDEM_E_CLOSED, f->a.ends[1].error);
    assert_int_equal(TANDEM_JOB_APPLIED, f->a.ends[2].status);
}

/* Mailbox: "remove". The job is on its way and takes its place in the window until it is
 * acknowledged. */
static void a_handle_that_was_taken_out_in_flight_is_not_missed(void **state)
{
    struct fixture *f = *state;
    tandem_job_handle *handle;

    narrow(&f->b, 2, UINT64_MAX);
    shake_hands(f);
    handle = push(f, 1, 10);
    push(f, 1, 10);
    pump(f);
    tandem_mailbox_remove(f->a.outbox, handle);
    assert_false(td_session_has_credit(f->a.session, 1));
    give_all_back(&f->b);
    pump(f);
    assert_int_equal(1, f->a.end_count);
    assert_int_equal(2, f->a.ends[0].first_seq);
    /* And may be put back. */
    tandem_mailbox_push(f->a.outbox, handle);
    pump(f);
    give_all_back(&f->b);
    pump(f);
    assert_int_equal(2, f->a.end_count);
    assert_int_equal(1, f->a.ends[1].first_seq);
}

/* An ACK is a message, and has its limits: 4 values an exception. */
static void many_exceptions_are_said_in_more_than_one_ack(void **state)
{
    enum { JOBS = 6000 };
    struct fixture *f = *state;
    static tandem_err errs[JOBS];

    side_end(&f->a);
    tandem_mailbox_free(f->a.outbox);
    assert_int_equal(TANDEM_OK, tandem_mailbox_open(JOBS, UINT64_MAX, &f->a.outbox));
    side_begin(&f->a);
    narrow(&f->b, JOBS, UINT64_MAX);
    shake_hands(f);
    for (int i = 0; i < JOBS; i++) {
        push(f, 1, 1);
        errs[i] = TANDEM_E_PREDECESSOR;
    }
    pump(f);
    while (f->b.delivered < f->b.delivery_count)
        give_back(&f->b, f->b.delivered, errs);
    assert_int_equal(2, relay(f, &f->b, &f->a));
    assert_int_equal(JOBS, f->a.end_count);
    for (int i = 0; i < JOBS; i++)
        assert_int_equal(TANDEM_E_PREDECESSOR, f->a.ends[i].error);
    assert_true(td_session_is_open(f->a.session));
}

/* A peer that does not read could else have ever more refusals kept for it. */
static void a_job_takes_of_the_window_until_its_ack_is_out(void **state)
{
    static const tandem_err errs[WINDOW_JOBS] = {[0] = TANDEM_E_PREDECESSOR};
    struct fixture *f = *state;
    struct side *side = alone(f);

    assert_int_equal(TANDEM_OK, say_jobs(f, side, 1, WINDOW_JOBS, 10, no_garbage));
    give_back(side, 0, errs);
    assert_int_equal(0, tandem_mailbox_jobs(side->inbox));
    assert_int_equal(TANDEM_E_PROTOCOL, say_jobs(f, side, WINDOW_JOBS + 1, 1, 10, no_garbage));
    side_end(side);
    give_all_back(side);
    side_begin(side);
    f->number = 1;

    alone(f);
    assert_int_equal(TANDEM_OK, say_jobs(f, side, 1, WINDOW_JOBS, 10, no_garbage));
    give_back(side, side->delivered, errs);
    assert_int_equal(TD_WIRE_ACK, next_of(f, side).type);
    assert_int_equal(TANDEM_OK,
                     say_jobs(f, side, WINDOW_JOBS + 1, WINDOW_JOBS, 10, no_garbage));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open, fixture_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(both_sides_say_hello_first_and_at_once),
        TEST(one_side_may_wait_for_the_others_hello),
        TEST(nothing_goes_out_before_the_peers_hello),
        TEST(what_was_changed_on_the_way_is_never_taken),
        TEST(who_writes_no_sums_is_heard_without),
        TEST(anything_before_hello_ends_the_session),
        TEST(a_hello_that_is_too_large_ends_the_session),
        TEST(a_second_hello_ends_the_session),
        TEST(another_major_version_is_refused_and_both_sides_say_so),
        TEST(the_user_may_refuse_the_peer),
        TEST(a_gap_in_the_numbers_ends_the_session),
        TEST(a_message_that_comes_again_is_ignored),
        TEST(what_a_later_version_says_is_skipped_and_counted),
        TEST(whatever_is_to_be_said_wakes_the_transport),
        TEST(who_begins_exchanges_is_not_woken_by_what_can_wait),
        TEST(half_a_window_of_bytes_is_acknowledged_at_once_too),
        TEST(a_handle_leaves_the_outbox_when_the_remote_has_it_durably),
        TEST(a_delivery_may_come_back_from_within_deliver),
        TEST(operations_arrive_byte_for_byte),
        TEST(operations_are_handed_on_parsed),
        TEST(packed_jobs_arrive_byte_for_byte),
        TEST(only_what_is_worth_it_is_packed_and_only_for_who_offers_it),
        TEST(what_is_packed_wrongly_ends_the_session),
        TEST(an_ack_covers_what_is_finished_from_the_front),
        TEST(what_was_not_stored_fails_and_the_rest_is_applied),
        TEST(a_refused_handle_stays_while_its_user_keeps_it),
        TEST(bytes_that_are_no_operation_are_the_executors_to_refuse),
        TEST(jobs_without_jobs_mean_nothing),
        TEST(small_jobs_share_a_message_and_a_large_one_has_its_own),
        TEST(jobs_arrive_in_the_order_of_the_outbox),
        TEST(the_peers_window_bounds_what_is_in_flight_in_jobs),
        TEST(the_peers_window_bounds_what_is_in_flight_in_bytes),
        TEST(a_job_larger_than_the_window_travels_alone),
        TEST(a_peer_without_a_window_gets_one_job_at_a_time),
        TEST(acks_announcements_errors_and_heartbeats_need_no_credit),
        TEST(a_handle_that_waits_is_not_sent_until_it_may),
        TEST(an_ack_of_what_was_not_sent_ends_the_session),
        TEST(an_ack_of_fewer_than_before_ends_the_session),
        TEST(exceptions_must_be_of_this_ack_and_ascend),
        TEST(job_numbers_with_a_gap_end_the_session),
        TEST(more_in_flight_than_the_window_ends_the_session),
        TEST(garbage_counts_against_the_window),
        TEST(a_job_cut_short_ends_the_session),
        TEST(a_message_cut_short_ends_the_session),
        TEST(garbage_does_no_harm),
        TEST(an_error_ends_the_session_on_both_sides),
        TEST(an_unknown_error_and_its_floor_reach_the_user),
        TEST(what_the_user_refuses_ends_the_session),
        TEST(a_cover_is_for_who_knows_it),
        TEST(shares_are_said_before_the_sum),
        TEST(an_announcement_that_cannot_be_made_ends_the_session),
        TEST(a_heartbeat_is_said_after_ten_seconds_of_silence),
        TEST(thirty_seconds_without_a_word_end_the_session),
        TEST(silence_between_two_exchanges_says_nothing),
        TEST(two_that_have_nothing_to_say_stay_together),
        TEST(connections_share_a_pool_and_each_may_hold_one_message),
        TEST(a_pool_with_room_holds_nobody),
        TEST(while_held_the_peers_silence_does_not_count),
        TEST(a_delivery_may_outlive_its_session),
        TEST(handles_outlive_their_session_and_are_sent_again),
        TEST(a_job_that_cannot_be_read_fails_and_the_rest_of_the_frame_is_sent),
        TEST(a_source_without_memory_ends_the_session_and_fails_no_job),
        TEST(a_handle_that_its_owner_failed_is_not_sent_and_no_ack_revives_it),
        TEST(a_handle_that_was_taken_out_in_flight_is_not_missed),
        TEST(many_exceptions_are_said_in_more_than_one_ack),
        TEST(a_job_takes_of_the_window_until_its_ack_is_out),
    };

    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
