#include "channel/channel.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/planted.h"
#include "store/probe.h"

enum {
    CLOSE_GRACE_MS = 1000,
    DIAL_MS = 15000,
    BLOCKED_RETRY_MS = 60000,
    BREACHES = 3, /* in a row: it is not one wrong byte on the way */
    AWAITS_MAX = 5,
};

struct tandem_channel {
    td_channel_config config;
    tandem_mailbox *inbox, *outbox;
    td_session *session;
    td_link *link;
    bool link_open;
    bool link_closing;
    td_carrier *carrier; /* NULL: accepted */
    char *url;
    bool wanted; /* a dialing channel that is not stopped */
    td_retry retry;
    uint64_t retry_at_ms;
    uint64_t retry_floor_ms;
    uint64_t dialed_ms;
    bool settled;           /* HELLO was exchanged on this link … */
    uint64_t settled_ms;    /* … then, … */
    uint32_t attempts;      /* … after so many failures */
    uint64_t over_since_ms; /* the session has failed, its ERROR may still have to go out */
    uint32_t breaches;      /* links that ended with TANDEM_E_PROTOCOL, in a row */

    /* Of a link that works by exchanges: */
    td_scheduler scheduler;
    uint64_t pause_ms;   /* so long may pass between two; 0: long poll, or no exchanges */
    uint32_t under_way;  /* exchanges */
    bool polled;         /* one was asked for, and has not begun */
    uint32_t awaits;     /* exchanges in a row that ended before what was sent was acknowledged */
    uint64_t received_operations; /* of the session, up to the last exchange */
};

/* ---- The session's wishes ---- */

static const char *user_feature(void *context)
{
    tandem_channel *channel = context;

    return channel->config.user->feature ? channel->config.user->feature(channel->config.context)
                                         : NULL;
}

static void user_hello(void *context, td_wire_hello *out)
{
    tandem_channel *channel = context;

    channel->config.user->hello(channel->config.context, out);
}

static bool user_may_greet(void *context)
{
    tandem_channel *channel = context;

    return !channel->config.user->may_greet ||
           channel->config.user->may_greet(channel->config.context);
}

static tandem_err user_peer_hello(void *context, const td_wire_hello *hello)
{
    tandem_channel *channel = context;

    return channel->config.user->peer_hello(channel->config.context, hello);
}

static tandem_err user_peer_have(void *context, const td_wire_have *have)
{
    tandem_channel *channel = context;

    return channel->config.user->peer_have(channel->config.context, have);
}

static tandem_err user_peer_pull(void *context, const td_wire_pull *pull)
{
    tandem_channel *channel = context;

    return channel->config.user->peer_pull(channel->config.context, pull);
}

static tandem_err user_peer_cover(void *context, const td_wire_cover *cover)
{
    tandem_channel *channel = context;

    if (!channel->config.user->peer_cover)
        return TANDEM_OK;
    return channel->config.user->peer_cover(channel->config.context, cover);
}

static tandem_err user_announce(void *context, uint64_t number, tandem_writer *out)
{
    tandem_channel *channel = context;

    return channel->config.user->announce(channel->config.context, number, out);
}

static void user_heartbeat(void *context, uint64_t number, tandem_writer *out)
{
    tandem_channel *channel = context;

    channel->config.user->heartbeat(channel->config.context, number, out);
}

static void user_deliver(void *context, td_delivery *delivery)
{
    tandem_channel *channel = context;

    channel->config.user->deliver(channel->config.context, delivery);
}

static bool user_stays(void *context, tandem_job_handle *handle)
{
    tandem_channel *channel = context;

    return channel->config.user->stays &&
           channel->config.user->stays(channel->config.context, handle);
}

static void user_finished(void *context, tandem_job_handle *handle, uint64_t detail)
{
    tandem_channel *channel = context;

    channel->config.user->finished(channel->config.context, handle, detail);
}

static void user_peer_error(void *context, const td_wire_error *error)
{
    tandem_channel *channel = context;

    channel->config.user->peer_error(channel->config.context, error);
}

static void wake(void *context)
{
    tandem_channel *channel = context;

    if (channel->link && channel->link_open && !channel->link_closing)
        channel->link->carrier->ops->want_write(channel->link);
}

static void hold(void *context, bool hold)
{
    tandem_channel *channel = context;

    if (channel->link && !channel->link_closing)
        channel->link->carrier->ops->hold(channel->link, hold);
}

static const td_session_user session_user = {
    .may_greet = user_may_greet,
    .feature = user_feature,
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
    .wake = wake,
    .hold = hold,
};

/* ---- Links ---- */

static void close_link(tandem_channel *channel, tandem_err err, const char *text)
{
    if (!channel->link || channel->link_closing)
        return;
    channel->link_closing = true;
    channel->link->carrier->ops->close(channel->link, err, text);
}

static void link_opened(void *context)
{
    tandem_channel *channel = context;
    tandem_err err;

    channel->link_open = true;
    channel->settled = false;
    channel->received_operations = 0;
    channel->over_since_ms = 0;
    err = td_session_open(channel->config.env, channel->inbox, channel->outbox,
                          channel->config.pool, channel->config.source,
                          channel->link->carrier->ops->packs, &session_user, channel,
                          &channel->session);
    if (err != TANDEM_OK) {
        close_link(channel, err, tandem_err_text(err));
        return;
    }
    td_session_pace(channel->session, channel->pause_ms, channel->carrier != NULL);
    wake(channel);
}

/* HELLO was exchanged, by what came or by what was said: attempts are counted anew. */
static void settle(tandem_channel *channel)
{
    if (channel->settled || !td_session_is_open(channel->session))
        return;
    channel->settled = true;
    channel->settled_ms = td_env_monotonic_ms(channel->config.env);
    channel->attempts = channel->retry.attempts;
    if (channel->attempts)
        td_probe(channel->config.env, TD_PROBE_RETRY_WORKED);
    td_retry_succeeded(&channel->retry);
}

static void link_message(void *context, tandem_slice bytes)
{
    tandem_channel *channel = context;

    if (!channel->session || channel->link_closing)
        return;
    td_session_receive(channel->session, bytes);
    if (td_session_is_over(channel->session)) {
        const char *text;
        tandem_err err = td_session_err(channel->session, &text);

        close_link(channel, err, text);
    } else {
        settle(channel);
    }
}

static tandem_err link_writable(void *context, tandem_writer *out)
{
    tandem_channel *channel = context;
    tandem_err err;

    if (!channel->session || channel->link_closing)
        return TANDEM_END;
    if ((err = td_session_next(channel->session, out)) == TANDEM_OK) {
        settle(channel);
        return TANDEM_OK;
    }
    if (td_session_is_over(channel->session)) {
        const char *text;

        err = td_session_err(channel->session, &text);
        close_link(channel, err, text);
    }
    return TANDEM_END;
}

/* Is it something that only a change on one of the two sides can end? */
static bool is_final(tandem_err err)
{
    return err < 0 && !tandem_err_is_transient(err) && err != TANDEM_E_PROTOCOL &&
           err != TANDEM_E_CLOSED;
}

bool td_channel_is_final(const tandem_channel *channel, tandem_err err)
{
    return is_final(err) || (err == TANDEM_E_PROTOCOL && channel->breaches >= BREACHES &&
                             td_retry_spent(&channel->retry));
}

/* Is it the network that failed, and not what is on the other side of it? */
static bool is_network(tandem_err err)
{
    return err == TANDEM_E_UNREACHABLE || err == TANDEM_E_TIMEOUT ||
           err == TANDEM_E_CHANNEL_NETWORK;
}

/* Was this session no success, though HELLO was exchanged? A peer that ends each one as soon as it
 * has begun, whatever it says of it, would else be dialed again and again without backoff. */
static bool was_cut_short(const tandem_channel *channel, uint64_t now_ms)
{
    return channel->settled && now_ms < channel->settled_ms + TD_SESSION_HEARTBEAT_MS;
}

static void schedule_retry(tandem_channel *channel, tandem_err err)
{
    uint64_t now_ms = td_env_monotonic_ms(channel->config.env);
    uint64_t floor_ms = channel->retry_floor_ms;

    if (was_cut_short(channel, now_ms)) {
        td_probe(channel->config.env, TD_PROBE_SESSION_CUT_SHORT);
        channel->retry.attempts = channel->attempts;
    }
    channel->settled = false;
    if (is_final(err) && floor_ms < BLOCKED_RETRY_MS)
        floor_ms = BLOCKED_RETRY_MS;
    channel->retry_floor_ms = 0;
    channel->retry_at_ms =
        now_ms + td_retry_failed(&channel->retry, channel->config.env, now_ms, floor_ms);
    td_probe(channel->config.env, td_retry_spent(&channel->retry) ? TD_PROBE_RETRY_SPENT
                                                                  : TD_PROBE_RETRY_SCHEDULED);
    if (channel->retry_at_ms == 0)
        channel->retry_at_ms = 1;
}

/* Tell the user why there is no link. What the network did is news once the policy is spent. */
static void tell_closed(tandem_channel *channel, tandem_err err, const char *text)
{
    if (channel->wanted && is_network(err) && td_retry_spent(&channel->retry))
        err = TANDEM_E_CHANNEL_NETWORK;
    channel->config.closed(channel->config.context, err, text);
}

static void link_closed(void *context, tandem_err err, const char *text)
{
    tandem_channel *channel = context;
    char why[TD_WIRE_TEXT_BYTES_MAX];

    snprintf(why, sizeof(why), "%s", text ? text : "");
    if (channel->session) {
        const char *session_text;
        tandem_err session_err = td_session_err(channel->session, &session_text);

        if (session_err != TANDEM_OK) {
            err = session_err;
            snprintf(why, sizeof(why), "%s", session_text);
        }
    }
    td_probe(channel->config.env, TD_PROBE_LINK_LOST);
    td_session_free(channel->session);
    channel->session = NULL;
    channel->link = NULL;
    channel->link_open = channel->link_closing = false;
    for (tandem_job_handle *h = tandem_mailbox_first(channel->outbox); h; h = h->next) {
        h->number = 0;
        h->waiting = true;
        if (td_planted(TD_PLANTED_STATUS_WENT_BACK))
            h->status = TANDEM_JOB_TRANSPORT_PENDING;
    }
    channel->breaches = err == TANDEM_E_PROTOCOL ? channel->breaches + 1 : 0;
    if (err != TANDEM_OK)
        td_scheduler_failed(&channel->scheduler);
    channel->under_way = channel->awaits = 0;
    channel->polled = false;
    channel->pause_ms = 0;
    if (channel->wanted)
        schedule_retry(channel, err);
    tell_closed(channel, err, why);
}

static void link_retry_after(void *context, uint64_t delay_ms)
{
    td_channel_retry_floor(context, delay_ms);
}

static void link_paced(void *context, uint64_t pause_ms)
{
    tandem_channel *channel = context;

    td_probe(channel->config.env, pause_ms ? TD_PROBE_PEER_POLLS : TD_PROBE_PEER_POLLS_LONG);
    channel->pause_ms = pause_ms;
    if (channel->session)
        td_session_pace(channel->session, pause_ms, false);
}

/* ---- Exchanges ---- */

static void link_exchange_began(void *context)
{
    tandem_channel *channel = context;

    channel->under_way++;
    channel->polled = false;
    td_scheduler_began(&channel->scheduler, td_env_monotonic_ms(channel->config.env));
}

static void link_exchange_ended(void *context, uint64_t took_ms, uint64_t bytes, bool more)
{
    tandem_channel *channel = context;
    td_poll_news news = {.bytes = bytes, .took_ms = took_ms, .more = more};

    if (channel->under_way)
        channel->under_way--;
    if (channel->session) {
        uint64_t received = td_session_stat_of(channel->session)->received_operations;

        news.operations = received - channel->received_operations;
        channel->received_operations = received;
    }
    td_scheduler_ended(&channel->scheduler, td_env_monotonic_ms(channel->config.env), &news);
    if (channel->session && td_session_inflight_bytes(channel->session))
        channel->awaits++;
    else
        channel->awaits = 0;
    if (channel->pause_ms)
        channel->config.due(channel->config.context, 0);
}

static bool link_expects(void *context)
{
    tandem_channel *channel = context;

    return channel->session && td_session_expects(channel->session);
}

static bool link_knows(void *context)
{
    tandem_channel *channel = context;

    return channel->session && td_session_knows(channel->session);
}

static const td_connection_events link_events = {
    .opened = link_opened,
    .message = link_message,
    .writable = link_writable,
    .retry_after = link_retry_after,
    .paced = link_paced,
    .exchange_began = link_exchange_began,
    .exchange_ended = link_exchange_ended,
    .expects = link_expects,
    .knows = link_knows,
    .closed = link_closed,
};

/* ---- Opening and dialing ---- */

tandem_err td_channel_open(const td_channel_config *config, tandem_channel **out)
{
    tandem_channel *channel = calloc(1, sizeof(*channel));
    tandem_err err;

    if (!channel)
        return TANDEM_E_NOMEM;
    channel->config = *config;
    td_retry_init(&channel->retry, &config->retry);
    td_scheduler_init(&channel->scheduler, &config->poll, td_env_monotonic_ms(config->env));
    if ((err = tandem_mailbox_open(config->window_jobs, config->window_bytes, &channel->inbox)) !=
            TANDEM_OK ||
        (err = tandem_mailbox_open(config->window_jobs, config->window_bytes,
                                   &channel->outbox)) != TANDEM_OK) {
        td_channel_free(channel);
        return err;
    }
    if (config->job_ids) {
        tandem_mailbox_share_ids(channel->inbox, config->job_ids);
        tandem_mailbox_share_ids(channel->outbox, config->job_ids);
    }
    if (config->outboxes)
        tandem_mailbox_join(channel->outbox, config->outboxes);
    *out = channel;
    return TANDEM_OK;
}

void td_channel_free(tandem_channel *channel)
{
    if (!channel)
        return;
    assert(!channel->link);
    tandem_mailbox_free(channel->inbox);
    tandem_mailbox_free(channel->outbox);
    free(channel->url);
    free(channel);
}

/* Tell the link how it is polled. */
static void pace(tandem_channel *channel)
{
    const td_poll_policy *policy = &channel->scheduler.policy;

    channel->pause_ms = policy->mode == TD_POLL_LONG ? 0 : td_poll_interval_ms_max(policy);
    if (!channel->link->carrier->ops->pace(channel->link, channel->pause_ms))
        channel->pause_ms = 0;
    if (channel->session)
        td_session_pace(channel->session, channel->pause_ms, true);
}

static void dial(tandem_channel *channel)
{
    tandem_err err;

    channel->retry_at_ms = 0;
    channel->dialed_ms = td_env_monotonic_ms(channel->config.env);
    td_retry_attempted(&channel->retry, channel->dialed_ms);
    td_probe(channel->config.env, TD_PROBE_DIALED);
    err = channel->carrier->ops->dial(channel->carrier, channel->url, &link_events, channel,
                                      &channel->link);
    if (err != TANDEM_OK) {
        channel->link = NULL;
        schedule_retry(channel, err);
        tell_closed(channel, err, tandem_err_text(err));
        return;
    }
    pace(channel);
}

tandem_err td_channel_start(tandem_channel *channel, td_carrier *carrier, const char *url)
{
    tandem_err err;
    char *copy;

    if ((err = carrier->ops->check(url)) != TANDEM_OK)
        return err;
    if (!(copy = strdup(url)))
        return TANDEM_E_NOMEM;
    free(channel->url);
    channel->url = copy;
    channel->carrier = carrier;
    channel->wanted = true;
    td_retry_succeeded(&channel->retry);
    channel->retry_at_ms = 1; /* with the next tick */
    return TANDEM_OK;
}

void td_channel_stop(tandem_channel *channel, tandem_err err, const char *text)
{
    channel->wanted = false;
    channel->retry_at_ms = 0;
    if (channel->session && err != TANDEM_OK)
        td_session_fail(channel->session, err, text);
    else
        close_link(channel, err, text);
}

tandem_err td_channel_accept(tandem_channel *channel, td_link *link,
                             const td_connection_events **events_out, void **context_out)
{
    assert(!channel->link && !channel->carrier);
    td_probe(channel->config.env, TD_PROBE_LINK_ACCEPTED);
    channel->link = link;
    *events_out = &link_events;
    *context_out = channel;
    return TANDEM_OK;
}

void td_channel_set_retry(tandem_channel *channel, const td_retry_policy *policy)
{
    td_retry_change(&channel->retry, policy);
}

void td_channel_set_poll(tandem_channel *channel, const td_poll_policy *policy)
{
    assert(channel->config.due || policy->mode == TD_POLL_LONG);
    td_scheduler_change(&channel->scheduler, policy, td_env_monotonic_ms(channel->config.env));
    if (channel->link && channel->carrier && !channel->link_closing)
        pace(channel);
}

static void poll_link(tandem_channel *channel)
{
    if (!channel->link || !channel->link_open || channel->link_closing)
        return;
    channel->polled = true;
    channel->link->carrier->ops->poll(channel->link);
}

void td_channel_poke(tandem_channel *channel)
{
    if (channel->pause_ms && channel->carrier)
        poll_link(channel);
    if (!channel->wanted || channel->link)
        return;
    td_retry_succeeded(&channel->retry);
    channel->retry_at_ms = 1;
}

void td_channel_retry_floor(tandem_channel *channel, uint64_t delay_ms)
{
    channel->retry_floor_ms = delay_ms;
}

/* ---- What it is ---- */

tandem_mailbox *td_channel_inbox(tandem_channel *channel)
{
    return channel->inbox;
}

tandem_mailbox *td_channel_outbox(tandem_channel *channel)
{
    return channel->outbox;
}

td_session *td_channel_session(tandem_channel *channel)
{
    return channel->session;
}

td_channel_state td_channel_state_of(const tandem_channel *channel)
{
    if (channel->link)
        return channel->session && td_session_is_open(channel->session) ? TD_CHANNEL_OPEN
                                                                        : TD_CHANNEL_CONNECTING;
    return channel->wanted ? TD_CHANNEL_WAITING : TD_CHANNEL_IDLE;
}

bool td_channel_is_linked(const tandem_channel *channel)
{
    return channel->link != NULL;
}

bool td_channel_is_dialed(const tandem_channel *channel)
{
    return channel->carrier != NULL;
}

uint32_t td_channel_attempts(const tandem_channel *channel)
{
    return channel->retry.attempts;
}

bool td_channel_is_spent(const tandem_channel *channel)
{
    return td_retry_spent(&channel->retry);
}

uint64_t td_channel_retry_at_ms(const tandem_channel *channel)
{
    return channel->retry_at_ms;
}

const td_scheduler *td_channel_scheduler(const tandem_channel *channel)
{
    return &channel->scheduler;
}

/* How much of what may wait to be executed does: of its own window, or of what all share. */
uint32_t td_channel_load_permille(const tandem_channel *channel)
{
    const td_pool *pool = channel->config.pool;
    uint64_t jobs = tandem_mailbox_jobs(channel->inbox) * UINT64_C(1000) /
                    tandem_mailbox_window_jobs(channel->inbox);
    uint64_t bytes = pool->used_bytes * 1000 / (pool->limit_bytes ? pool->limit_bytes : 1);
    uint64_t load = jobs > bytes ? jobs : bytes;

    return load < 1000 ? (uint32_t)load : 1000;
}

bool td_channel_is_polled(const tandem_channel *channel)
{
    return channel->session && channel->carrier && channel->pause_ms && !channel->link_closing;
}

void td_channel_poll_decision(const tandem_channel *channel, td_poll_decision *out)
{
    td_scheduler_decide(&channel->scheduler, td_channel_load_permille(channel), out);
    /* Its answer had something else to say, or the peer takes its time: it is asked for, not for
     * ever. */
    if (channel->awaits && channel->awaits <= AWAITS_MAX && channel->pause_ms)
        *out = (td_poll_decision){.next_ms = channel->scheduler.seen_ms,
                                  .reason = TD_POLL_BY_AWAIT};
    if (!td_channel_is_polled(channel) || channel->under_way || channel->polled)
        out->next_ms = UINT64_MAX;
}

/* ---- Pushing ---- */

bool td_channel_fits(tandem_channel *channel, uint64_t bytes)
{
    return tandem_mailbox_fits(channel->outbox, bytes);
}

tandem_err td_channel_push(tandem_channel *channel, tandem_job_handle *handle)
{
    tandem_err err;

    if (!td_channel_fits(channel, handle->bytes))
        return TANDEM_E_LIMIT;
    if ((err = tandem_job_handle_started(handle)) != TANDEM_OK)
        return err;
    tandem_mailbox_push(channel->outbox, handle);
    return TANDEM_OK;
}

/* The job that begins at operations[0]: how many operations it has, and a handle for it. */
static tandem_err job_of(const td_operation *operations, size_t count, size_t *size_out,
                         tandem_job_handle **out)
{
    tandem_job_handle *handle;
    tandem_err err;
    size_t size = 1;

    if ((err = td_job_handle_open(&operations[0], 0, true, &handle)) != TANDEM_OK)
        return err;
    while (operations[size - 1].flags & TD_FLAG_CONTINUES) {
        err = size < count ? td_job_handle_add(handle, &operations[size]) : TANDEM_E_CHAIN;
        if (err != TANDEM_OK) {
            tandem_job_handle_free(handle);
            return err;
        }
        size++;
    }
    *size_out = size;
    *out = handle;
    return TANDEM_OK;
}

tandem_err td_channel_send(tandem_channel *channel, const td_operation *operations, size_t count,
                           size_t *taken_out)
{
    *taken_out = 0;
    while (*taken_out < count) {
        tandem_job_handle *handle;
        size_t size;
        tandem_err err;

        if ((err = job_of(operations + *taken_out, count - *taken_out, &size, &handle)) !=
            TANDEM_OK)
            return err;
        if ((err = td_channel_push(channel, handle)) != TANDEM_OK) {
            tandem_job_handle_free(handle);
            return err;
        }
        *taken_out += size;
    }
    return TANDEM_OK;
}

/* ---- Time ---- */

/* Begin the next exchange if it is time. Returns when it is. */
static uint64_t tick_poll(tandem_channel *channel, uint64_t now_ms)
{
    td_poll_decision decision;

    td_channel_poll_decision(channel, &decision);
    if (td_planted(TD_PLANTED_POLL_FORGOTTEN))
        return UINT64_MAX;
    if (now_ms < decision.next_ms)
        return decision.next_ms; /* or when the one that is under way has ended */
    td_probe(channel->config.env, TD_PROBE_POLLED);
    poll_link(channel);
    return UINT64_MAX;
}

static uint64_t tick_session(tandem_channel *channel, uint64_t now_ms)
{
    uint64_t poll_ms = tick_poll(channel, now_ms);
    uint64_t due_ms = td_session_tick(channel->session, now_ms);
    const char *text;
    tandem_err err = td_session_err(channel->session, &text);

    if (err == TANDEM_OK)
        return due_ms < poll_ms ? due_ms : poll_ms;
    /* Its ERROR gets a moment to go out; a link that is stuck is closed without. */
    if (!channel->over_since_ms)
        channel->over_since_ms = now_ms;
    if (td_session_is_over(channel->session) || now_ms >= channel->over_since_ms + CLOSE_GRACE_MS)
        close_link(channel, err, text);
    return channel->over_since_ms + CLOSE_GRACE_MS;
}

uint64_t td_channel_tick(tandem_channel *channel, uint64_t now_ms)
{
    if (channel->link_closing)
        return UINT64_MAX;
    if (channel->session)
        return tick_session(channel, now_ms);
    if (channel->link && channel->carrier) {
        /* Carriers have deadlines of their own; an answer that got lost has none. */
        if (now_ms >= channel->dialed_ms + DIAL_MS) {
            td_probe(channel->config.env, TD_PROBE_DIAL_UNANSWERED);
            close_link(channel, TANDEM_E_TIMEOUT, "there was no answer");
        }
        return channel->dialed_ms + DIAL_MS;
    }
    if (channel->link)
        return UINT64_MAX;
    if (!channel->wanted || !channel->retry_at_ms)
        return UINT64_MAX;
    if (now_ms < channel->retry_at_ms)
        return channel->retry_at_ms;
    /* What the last session delivered must be through: its jobs count against the inbox. */
    if (tandem_mailbox_jobs(channel->inbox) > 0)
        return now_ms + 10;
    dial(channel);
    return channel->link ? now_ms + DIAL_MS : channel->retry_at_ms;
}
