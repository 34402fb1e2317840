/*
 * One peer's session: HELLO, what becomes of what it is sent, its end. What it says is in announced.c, what
 * it delivers in deliveries.c.
 */
#include <assert.h>
#include <stdio.h>

#include "store/planted.h"
#include "sync/sync_manager.h"

/* ---- HELLO ---- */

static bool may_greet(void *context)
{
    return td_peer_may_say_shares(context);
}

static const char *feature(void *context)
{
    (void)context;
    return TD_RANGES_FEATURE;
}

static void say_hello(void *context, td_wire_hello *out)
{
    td_peer *peer = context;
    const td_identity *identity = td_op_store_identity(peer->sync->ops);

    memcpy(out->reactor, identity->reactor, TANDEM_ORIGIN_BYTES);
    memcpy(out->origin, identity->origin, TANDEM_ORIGIN_BYTES);
    memcpy(out->instance, peer->sync->instance, sizeof(out->instance));
    peer->identity = identity;
    td_peer_say_shares(peer, out);
    out->clock = peer->hello_clock = td_executor_clock(peer->sync->executor);
    out->agent = tandem_slice_text(peer->sync->agent);
}

/* Which reactor dialed the peer's session: ours or the peer's. */
static const uint8_t *dialer_of(const td_peer *peer)
{
    return td_channel_is_dialed(peer->channel) ? td_op_store_identity(peer->sync->ops)->reactor
                                               : peer->reactor;
}

/* Its HELLO was taken, and it goes on; ours may still be on its way to it. */
static bool is_taken(const td_peer *peer)
{
    const td_session *session = td_channel_session(peer->channel);

    return session && peer->said_hello && td_session_err(session, NULL) == TANDEM_OK;
}

/*
 * Of two sessions with one reactor one carries data: the one that the reactor with the smaller id
 * dialed; of two dialed by the same, the newer. Both sides come to the same answer. One of an
 * earlier life of the reactor gives way.
 */
static tandem_err resolve_duplicate(td_peer *peer)
{
    for (td_peer *other = peer->sync->peers; other; other = other->next) {
        tandem_err err;
        int order;

        if (other == peer || !is_taken(other) ||
            memcmp(other->reactor, peer->reactor, TANDEM_ORIGIN_BYTES) != 0)
            continue;
        err = td_copies_resolve(peer, other);
        if (err == TANDEM_OK)
            continue;
        if (err != TANDEM_END)
            return err;
        order = memcmp(dialer_of(peer), dialer_of(other), TANDEM_ORIGIN_BYTES);
        if (order > 0)
            return TANDEM_E_DUPLICATE_SESSION;
        td_probe(peer->sync->env, TD_PROBE_SESSION_DOUBLED);
        td_session_fail(td_channel_session(other->channel), TANDEM_E_DUPLICATE_SESSION,
                        "another session with this reactor carries the data");
    }
    return TANDEM_OK;
}

/* Is it a reactor that a paused remote of ours stands for? */
static bool is_paused(const td_peer *peer)
{
    for (const td_peer *other = peer->sync->peers; other; other = other->next)
        if (other->is_remote && !other->removed && other->record.paused &&
            !memcmp(other->reactor, peer->reactor, TANDEM_ORIGIN_BYTES))
            return true;
    return false;
}

void td_peer_take_clock(td_peer *peer, uint64_t hlc)
{
    peer->peer_clock_ms = td_hlc_ms(hlc);
    peer->peer_clock_at_ms = td_sync_now_ms(peer->sync);
    td_executor_peer_clock(peer->sync->executor, hlc);
}

static tandem_err take_hello(void *context, const td_wire_hello *hello)
{
    td_peer *peer = context;
    const td_identity *identity = td_op_store_identity(peer->sync->ops);
    tandem_err err;

    memcpy(peer->reactor, hello->reactor, TANDEM_ORIGIN_BYTES);
    memcpy(peer->origin, hello->origin, TANDEM_ORIGIN_BYTES);
    memcpy(peer->instance, hello->instance, sizeof(peer->instance));
    td_peer_take_clock(peer, hello->clock);
    if (!memcmp(hello->reactor, identity->reactor, TANDEM_ORIGIN_BYTES) ||
        !memcmp(hello->origin, identity->origin, TANDEM_ORIGIN_BYTES)) {
        peer->identity = identity; /* it goes by it, too, whether it was told ours yet or not */
        return td_copies_meet(peer);
    }
    if (is_paused(peer)) {
        td_probe(peer->sync->env, TD_PROBE_PAUSED_REFUSED);
        td_session_fail(td_channel_session(peer->channel), TANDEM_E_UNREACHABLE,
                        "paused by command there");
        return TANDEM_E_UNREACHABLE;
    }
    if (td_peer_end_stale_shares(peer))
        return TANDEM_E_UNREACHABLE;
    if ((err = resolve_duplicate(peer)) != TANDEM_OK ||
        (err = td_peer_take_shares(peer, hello)) != TANDEM_OK)
        return err;
    peer->peer_hello_clock = hello->clock;
    peer->knows_ranges = td_wire_offers(hello, TD_RANGES_FEATURE);
    peer->said_hello = true;
    peer->coverage.gives = td_peer_gives(peer);
    td_dead_letters_opened(peer);
    td_sender_settle_unshared(peer);
    peer->last_err = TANDEM_OK;
    peer->last_text[0] = 0;
    td_log(peer->sync->env, TANDEM_LOG_INFO, "sync", "session with %s open",
           peer->is_remote ? peer->record.name : "an inbound peer");
    td_peer_refresh(peer);
    return TANDEM_OK;
}

/* ---- Jobs ---- */

static void finished(void *context, tandem_job_handle *handle, uint64_t detail)
{
    td_peer *peer = context;

    if (handle->status == TANDEM_JOB_APPLIED) {
        peer->sent_operations += handle->operations;
        peer->exchanged_bytes += handle->bytes;
    }
    td_sender_finished(peer, handle, detail);
    td_peer_tick_at(peer, 0);
}

/* What is refused for good stays until it is kept. What follows from that does not wait for it. */
static bool stays(void *context, tandem_job_handle *handle)
{
    if (!td_dead_letters_take(context, handle))
        return false;
    finished(context, handle, handle->detail);
    return true;
}

static void take_error(void *context, const td_wire_error *error)
{
    td_peer *peer = context;

    td_log(peer->sync->env, TANDEM_LOG_WARNING, "sync", "the peer ended the session: %.*s",
           (int)error->text.size, (const char *)error->text.bytes);
    if (error->err == TANDEM_E_COPY)
        td_copies_told(peer);
    if (error->retry_after_ms)
        td_channel_retry_floor(peer->channel,
                               error->retry_after_ms < 3600000 ? error->retry_after_ms : 3600000);
}

const td_session_user td_peer_user = {
    .may_greet = may_greet,
    .feature = feature,
    .hello = say_hello,
    .peer_hello = take_hello,
    .peer_have = td_announced_have,
    .peer_pull = td_announced_pull,
    .peer_cover = td_announced_cover,
    .announce = td_announcer_next,
    .heartbeat = td_announcer_heartbeat,
    .deliver = td_deliveries_take,
    .stays = stays,
    .finished = finished,
    .peer_error = take_error,
};

/* ---- The end ---- */

/* The session is over: what was known of the peer is told again next time. */
void td_peer_closed(void *context, tandem_err err, const char *text)
{
    td_peer *peer = context;

    td_remote_keep_held(peer);
    td_dead_letters_closed(peer);
    td_puller_forget(peer);
    td_comparing_forget(peer);
    if (!td_planted(TD_PLANTED_COVERAGE_KEPT))
        td_coverage_release(&peer->coverage);
    peer->said_hello = false;
    td_peer_forget_shares(peer);
    peer->identity = NULL;
    peer->all_sent = peer->digests_wanted = peer->digests_sent = false;
    peer->digests_after[0] = 0;
    peer->peer_all_known = peer->peer_listed = false;
    peer->all_ordinal = 0;
    peer->listings = peer->sending = NULL;
    peer->announce_at_ms = 0;
    peer->covers_due = peer->refused_in_part = false;
    peer->asked_ranges = peer->refused_ranges = 0;
    peer->troubled = false;
    peer->last_err = err;
    snprintf(peer->last_text, sizeof(peer->last_text), "%s", text);
    assert(!peer->asks && !peer->ask_queue);
    /* One that broke the rules; trouble of the network and duplicate sessions are nobody's fault. */
    if (!peer->is_remote && err < 0 && !tandem_err_is_transient(err) && err != TANDEM_E_CLOSED)
        peer->sync->rejected++;
    if (err != TANDEM_OK && err != TANDEM_E_DUPLICATE_SESSION)
        td_log(peer->sync->env, TANDEM_LOG_INFO, "sync", "session with %s over: %s (%s)",
               peer->is_remote ? peer->record.name : "an inbound peer", text,
               tandem_err_name(err));
    if (peer->redial)
        td_channel_poke(peer->channel);
    peer->redial = false;
    td_peer_tick_at(peer, 0);
}
