/*
 * A channel: the way to one other reactor. Two mailboxes, and behind them a session over whatever
 * link the carrier gives; links come and go, the mailboxes stay.
 *
 *   inbox    pull job handles: operations to be applied here
 *   outbox   job handles: operations that the remote is to apply
 *
 * Retries belong to the channel: a dialing one connects again by its retry policy, with backoff and
 * full jitter, and what is in the outbox keeps its handle and status. When the policy is spent
 * closed() says TANDEM_E_CHANNEL_NETWORK for what the network did wrong (its text tells what), and
 * the channel probes slowly: never forgotten. A channel that was accepted lives as long as its link.
 *
 * Where the link works by exchanges and long poll is off, the channel begins them, when its scheduler
 * says so.
 *
 * Threads: the loop host's.
 */
#ifndef TANDEM_CHANNEL_CHANNEL_H
#define TANDEM_CHANNEL_CHANNEL_H

#include "channel/carrier.h"
#include "channel/retry.h"
#include "channel/scheduler.h"
#include "channel/session.h"

typedef struct tandem_channel tandem_channel;

typedef enum td_channel_state {
    TD_CHANNEL_IDLE,       /* not asked to connect */
    TD_CHANNEL_CONNECTING, /* until HELLO was exchanged */
    TD_CHANNEL_OPEN,
    TD_CHANNEL_WAITING,    /* until retry_at */
} td_channel_state;

typedef struct td_channel_config {
    tandem_env *env;
    uint32_t window_jobs;
    uint64_t window_bytes;
    td_retry_policy retry;
    uint64_t *job_ids; /* for tandem_mailbox_share_ids(); NULL: each mailbox counts for itself */
    td_poll_policy poll; /* for links that work by exchanges */
    td_pool *pool;                      /* borrowed */
    td_mailbox_share *outboxes;         /* what its outbox shares with others; NULL: nothing; borrowed */
    const td_job_source *source;        /* borrowed */
    /* wake and hold are the channel's own and are ignored here; the others are called with context.
     * Borrowed. */
    const td_session_user *user;
    /* The link is gone, and with it the session, or dialing failed at once; the handles in the
     * outbox are marked waiting: the user clears that, in peer_have or before td_session_announce(),
     * when it knows that the peer lacks them. Of an accepted channel this is the end: free it later,
     * not in here. */
    void (*closed)(void *context, tandem_err err, const char *text);
    /* Call td_channel_tick() at this time (monotonic ms), if not sooner. NULL: poll is always long. */
    void (*due)(void *context, uint64_t at_ms);
    void *context;
} td_channel_config;

/* A channel without a link. */
tandem_err td_channel_open(const td_channel_config *config, tandem_channel **out);
/* Not from within one of its callbacks, and only without a link (see td_channel_is_linked()). Its
 * inbox must be empty. NULL is fine. */
void td_channel_free(tandem_channel *channel);

/* Dial url over carrier from now on, and again whenever the link is lost, until td_channel_stop().
 * Errors: as td_carrier_ops.check. */
tandem_err td_channel_start(tandem_channel *channel, td_carrier *carrier, const char *url);
/* Stop connecting; a link that is open is closed with err and text. */
void td_channel_stop(tandem_channel *channel, tandem_err err, const char *text);
/* Take a link that came in: what td_link_accept_fn hands back. */
tandem_err td_channel_accept(tandem_channel *channel, td_link *link,
                             const td_connection_events **events_out, void **context_out);
/* Retry by another policy from now on. */
void td_channel_set_retry(tandem_channel *channel, const td_retry_policy *policy);
/* Poll by another policy from now on. */
void td_channel_set_poll(tandem_channel *channel, const td_poll_policy *policy);
/* What its scheduler knows, and what that makes of it now: next_ms is UINT64_MAX without a link, and
 * while an exchange is under way. */
const td_scheduler *td_channel_scheduler(const tandem_channel *channel);
void td_channel_poll_decision(const tandem_channel *channel, td_poll_decision *out);
/* How much of what may wait to be executed does. */
uint32_t td_channel_load_permille(const tandem_channel *channel);
/* Is there a link that it polls? */
bool td_channel_is_polled(const tandem_channel *channel);
/* The network may be back: retry now; or, if there is a link that is polled, poll it now. */
void td_channel_poke(tandem_channel *channel);
/* Let the next retry wait at least so long: what the peer asked for. */
void td_channel_retry_floor(tandem_channel *channel, uint64_t delay_ms);

tandem_mailbox *td_channel_inbox(tandem_channel *channel);
tandem_mailbox *td_channel_outbox(tandem_channel *channel);
/* NULL without a link. */
td_session *td_channel_session(tandem_channel *channel);
td_channel_state td_channel_state_of(const tandem_channel *channel);
bool td_channel_is_linked(const tandem_channel *channel);
bool td_channel_is_dialed(const tandem_channel *channel);
/* Is this, of closed(), something that only a change on one of the two sides can end? What breaks
 * the protocol may be something on the way, until it is the only thing that happens and the retry policy
 * is spent. */
bool td_channel_is_final(const tandem_channel *channel, tandem_err err);
/* Attempts to connect that failed in a row. */
uint32_t td_channel_attempts(const tandem_channel *channel);
/* Is the retry policy spent? */
bool td_channel_is_spent(const tandem_channel *channel);
/* Monotonic ms of the next attempt; 0: none is due. */
uint64_t td_channel_retry_at_ms(const tandem_channel *channel);

/* May another job of so many bytes be pushed? */
bool td_channel_fits(tandem_channel *channel, uint64_t bytes);
/* Put a job into the outbox. On TANDEM_OK the channel has the handle, on an error it is still the
 * caller's. TANDEM_E_LIMIT: it does not fit now. */
tandem_err td_channel_push(tandem_channel *channel, tandem_job_handle *handle);
/* Group operations (parsed, consecutive, jobs whole) into jobs and put their handles into the outbox;
 * they keep copies. Stops at the first job that does not fit: taken_out operations were taken. */
tandem_err td_channel_send(tandem_channel *channel, const td_operation *operations, size_t count,
                           size_t *taken_out);

/* Time passes. Returns when to call again, monotonic ms; UINT64_MAX: not before something happens. */
uint64_t td_channel_tick(tandem_channel *channel, uint64_t now_ms);

#endif
