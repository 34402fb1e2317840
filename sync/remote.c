/*
 * Remotes as users see them: the public calls that change them, and what state each is in.
 */
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "sync/sync_manager.h"

enum {
    RETRY_MS_MAX = 60 * 60 * 1000,
    RETRY_FACTOR_MAX = 100,
    RETRY_ATTEMPTS_MAX = 1000000,
    RETRY_BUDGET_MAX = 60000,
};

td_peer *td_sync_find_remote(tandem_sync *sync, const char *name)
{
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        if (peer->is_remote && !peer->removed && !strcmp(peer->record.name, name))
            return peer;
    return NULL;
}

td_peer *td_peer_serving(td_peer *peer)
{
    return peer->served_by ? peer->served_by : peer;
}

/* ---- State ---- */

const char *tandem_remote_state_name(tandem_remote_state state)
{
    static const char *const names[] = {
        [TANDEM_REMOTE_CONNECTING] = "connecting",
        [TANDEM_REMOTE_IN_STEP] = "in_step",
        [TANDEM_REMOTE_PUSHING] = "pushing",
        [TANDEM_REMOTE_PULLING] = "pulling",
        [TANDEM_REMOTE_BACKING_OFF] = "backing_off",
        [TANDEM_REMOTE_WAITING_FOR_CLOCK] = "waiting_for_clock",
        [TANDEM_REMOTE_BLOCKED] = "blocked",
        [TANDEM_REMOTE_PAUSED] = "paused",
        [TANDEM_REMOTE_RESTING] = "resting",
    };

    return names[state];
}

/* Is all that each side holds known to the other, as far as we can tell? */
bool td_peer_is_compared(const td_peer *peer)
{
    return peer->said_hello && peer->all_sent && (peer->peer_all_known || peer->peer_listed) &&
           !peer->coverage.unknown && !peer->digests_wanted && !peer->comparing && !peer->listings;
}

static void describe_trouble(tandem_err trouble, const td_origin_cover *origin, char *reason,
                             size_t size)
{
    snprintf(reason, size, "%s in %.*s: %s", tandem_err_name(trouble),
             (int)origin->collection->name.size, (const char *)origin->collection->name.bytes,
             tandem_err_text(trouble));
}

/* Refused jobs that cannot be kept as dead letters. */
static tandem_remote_state unkept_state(td_peer *peer, tandem_err why, char *reason, size_t size)
{
    uint32_t refused = peer->letters.refused_jobs;

    if (why == TANDEM_E_LIMIT) {
        snprintf(reason, size,
                 "%u jobs were refused there, and no more dead letters are kept of it: retry or "
                 "discard some",
                 td_dead_letters_of(peer) + refused);
        return TANDEM_REMOTE_BLOCKED;
    }
    snprintf(reason, size, "%u refused job%s cannot be kept as %s: %s (%s)", refused,
             refused == 1 ? "" : "s", refused == 1 ? "a dead letter" : "dead letters",
             tandem_err_text(why), tandem_err_name(why));
    return TANDEM_REMOTE_BACKING_OFF;
}

/* Nothing moves any more: is anything refused, or has all arrived? */
static tandem_remote_state still_state(td_peer *peer, tandem_err trouble,
                                       const td_origin_cover *origin, char *reason, size_t size)
{
    const td_dead_letter *first;
    uint32_t letters = td_dead_letters_blocking(peer, &first);

    if (letters) {
        snprintf(reason, size, "%u job%s refused there, the first in %s: %s (%s)", letters,
                 letters == 1 ? " was" : "s were", first->collection, tandem_err_text(first->error),
                 tandem_err_name(first->error));
        return TANDEM_REMOTE_BLOCKED;
    }
    if (trouble != TANDEM_OK) {
        describe_trouble(trouble, origin, reason, size);
        return TANDEM_REMOTE_BLOCKED;
    }
    if (peer->coverage.refused) {
        snprintf(reason, size, "%llu operations were refused there (%s)",
                 (unsigned long long)peer->coverage.refused, tandem_err_name(TANDEM_E_REFUSED));
        return TANDEM_REMOTE_BLOCKED;
    }
    if (peer->coverage.refused_here) {
        snprintf(reason, size, "%llu of its operations were refused here (%s)",
                 (unsigned long long)peer->coverage.refused_here,
                 tandem_err_name(TANDEM_E_REFUSED));
        return TANDEM_REMOTE_BLOCKED;
    }
    if (td_way_in_has_filter(peer) || td_way_out_has_filter(peer))
        snprintf(reason, size, "as far as the filter goes");
    return TANDEM_REMOTE_IN_STEP;
}

static tandem_remote_state open_state(td_peer *peer, char *reason, size_t size)
{
    uint32_t jobs = tandem_mailbox_jobs(td_channel_outbox(peer->channel));
    const td_origin_cover *origin;
    uint64_t until_ms;
    tandem_err trouble, unkept;

    if (!td_peer_is_compared(peer)) {
        snprintf(reason, size, "comparing what each side holds");
        return TANDEM_REMOTE_CONNECTING;
    }
    trouble = td_sender_trouble(peer, &origin);
    if (trouble == TANDEM_E_CLOCK) {
        snprintf(reason, size, "the peer's clock is behind our operations in %.*s",
                 (int)origin->collection->name.size, (const char *)origin->collection->name.bytes);
        return TANDEM_REMOTE_WAITING_FOR_CLOCK;
    }
    unkept = td_dead_letters_trouble(peer);
    if (jobs > (unkept != TANDEM_OK ? peer->letters.refused_jobs : 0)) {
        snprintf(reason, size, "%u jobs in flight", jobs);
        return TANDEM_REMOTE_PUSHING;
    }
    if (unkept != TANDEM_OK)
        return unkept_state(peer, unkept, reason, size);
    if (trouble != TANDEM_OK && origin->range.blocked == TANDEM_OK) {
        describe_trouble(trouble, origin, reason, size);
        return TANDEM_REMOTE_BACKING_OFF;
    }
    if (td_puller_is_waiting(peer, &until_ms)) {
        snprintf(reason, size, "operations that it announced are dated ahead of our clock");
        return TANDEM_REMOTE_WAITING_FOR_CLOCK;
    }
    if (peer->coverage.lacking_count || tandem_mailbox_jobs(td_channel_inbox(peer->channel)) > 0) {
        /* What was given up stands last. */
        if (peer->coverage.lacking && peer->coverage.lacking->prev_lacking->is_claim)
            snprintf(reason, size, "it announced operations that it does not send when asked");
        else
            snprintf(reason, size, "it announced operations that are not held here yet");
        return TANDEM_REMOTE_PULLING;
    }
    if (peer->coverage.lag > peer->coverage.refused && trouble == TANDEM_OK) {
        snprintf(reason, size, "%llu operations are not held there yet",
                 (unsigned long long)(peer->coverage.lag - peer->coverage.refused));
        return TANDEM_REMOTE_PUSHING;
    }
    return still_state(peer, trouble, origin, reason, size);
}

static tandem_remote_state closed_state(td_peer *peer, char *reason, size_t size)
{
    bool waiting = td_channel_state_of(peer->channel) == TD_CHANNEL_WAITING;

    if (peer->last_err != TANDEM_OK)
        snprintf(reason, size, "%.*s (%s)", TD_WIRE_TEXT_BYTES_MAX / 2,
                 peer->last_text[0] ? peer->last_text : tandem_err_text(peer->last_err),
                 tandem_err_name(peer->last_err));
    if (td_channel_is_final(peer->channel, peer->last_err))
        return TANDEM_REMOTE_BLOCKED;
    if (waiting && td_channel_is_spent(peer->channel))
        return TANDEM_REMOTE_RESTING;
    if (waiting && peer->last_err != TANDEM_OK)
        return TANDEM_REMOTE_BACKING_OFF;
    return TANDEM_REMOTE_CONNECTING;
}

static tandem_remote_state state_of(td_peer *peer, char *reason, size_t size)
{
    reason[0] = 0;
    if (peer->is_remote && peer->record.paused) {
        snprintf(reason, size, "paused by command, until resumed");
        return TANDEM_REMOTE_PAUSED;
    }
    if (peer->sync->options.offline) {
        snprintf(reason, size, "the node does not run");
        return TANDEM_REMOTE_RESTING;
    }
    if (peer->served_by)
        return open_state(peer->served_by, reason, size);
    if (td_peer_is_open(peer))
        return open_state(peer, reason, size);
    return closed_state(peer, reason, size);
}

/* ---- What a remote holds ---- */

/* What was committed but has not been told to the covers yet would count as held. */
static void look_at_held(td_peer *peer)
{
    const td_peer *works = td_peer_serving(peer);
    tandem_sync *sync = peer->sync;

    if (td_peer_is_open(works) && td_peer_is_compared(works) && works->coverage.lag == 0 &&
        sync->deliveries == 0)
        peer->held = sync->seen_position;
}

void td_remote_keep_held(td_peer *peer)
{
    td_remote_record record = peer->record;

    if (!peer->is_remote || peer->removed || peer->held == record.held)
        return;
    record.held = peer->held;
    if (td_sync_store_put_remote(peer->sync->store, &record) == TANDEM_OK)
        peer->record = record;
}

static uint64_t lag_of(const td_peer *peer)
{
    const td_peer *works = td_peer_serving((td_peer *)peer);
    uint64_t position = td_executor_position(peer->sync->executor);

    if (!peer->is_remote || (td_peer_is_open(works) && td_peer_is_compared(works)))
        return works->coverage.lag;
    return position > peer->held ? position - peer->held : 0;
}

void td_peer_refresh(td_peer *peer)
{
    char reason[TD_WIRE_TEXT_BYTES_MAX];
    tandem_remote_state state = state_of(peer, reason, sizeof(reason));

    if (peer->is_remote)
        look_at_held(peer);
    memcpy(peer->reason, reason, sizeof(reason));
    if (state == peer->state)
        return;
    peer->state = state;
    peer->since_ms = td_env_wall_ms(peer->sync->env);
}

/* ---- Progress ---- */

void td_peer_look_at_progress(td_peer *peer)
{
    if (td_peer_is_open(peer) && td_peer_is_compared(peer))
        td_progress_look(&peer->progress, td_sync_now_ms(peer->sync),
                         peer->sent_operations + peer->received_operations, peer->exchanged_bytes,
                         peer->coverage.lag - peer->coverage.refused +
                             td_coverage_lacking(&peer->coverage));
}

/* Operations that are with the peer, or on the way. */
static uint64_t transported(const td_peer *peer)
{
    uint64_t count = peer->progress.applied;

    for (tandem_job_handle *h = tandem_mailbox_first(td_channel_outbox(peer->channel)); h;
         h = h->next)
        if (h->number)
            count += h->operations;
    for (tandem_job_handle *h = tandem_mailbox_first(td_channel_inbox(peer->channel)); h;
         h = h->next)
        count += h->operations;
    return count < peer->progress.total ? count : peer->progress.total;
}

static void progress_fill(td_peer *peer, tandem_progress *out)
{
    const td_progress *progress = &peer->progress;

    td_peer_look_at_progress(peer);
    *out = (tandem_progress){
        .total = progress->total,
        .transported = transported(peer),
        .applied = progress->applied,
        .bytes = progress->bytes,
        .rate = progress->rate,
        .left_ms = td_progress_left_ms(progress),
    };
}

/* ---- Remotes ---- */

/* A URL that could be dialed; who is offline opens no carrier for it. */
static tandem_err url_check(tandem_sync *sync, const char *url)
{
    td_carrier *carrier;

    if (!sync->options.offline || !strncmp(url, "mem:", 4))
        return td_sync_carrier(sync, url, &carrier);
    return !strncasecmp(url, "http:", 5) ? td_http_url_check(url) : td_url_check(url);
}

static tandem_err run_add(tandem_sync *sync, td_sync_call *call)
{
    const td_kept_share *share = call->argument;
    td_remote_record record = {.share = *share};
    tandem_err err;

    if (td_sync_find_remote(sync, call->name))
        return TANDEM_E_EXISTS;
    if (strlen(call->name) > TANDEM_NAME_BYTES_MAX || strlen(call->url) >= sizeof(record.url))
        return TANDEM_E_INVALID;
    if (!td_name_valid(tandem_slice_text(call->name)))
        return TANDEM_E_INVALID;
    if (sync->peer_count >= TD_SYNC_PEERS_MAX)
        return TANDEM_E_LIMIT;
    if ((err = url_check(sync, call->url)) != TANDEM_OK)
        return err;
    strcpy(record.name, call->name);
    strcpy(record.url, call->url);
    if ((err = td_sync_store_put_remote(sync->store, &record)) != TANDEM_OK)
        return err;
    return td_remote_open(sync, &record);
}

/* Run a call whose argument is what is to be kept of a share. */
static tandem_err call_with_share(tandem_sync *sync, td_sync_call *call, const tandem_share *share)
{
    td_kept_share kept = {.direction = share ? share->direction : TANDEM_DIRECTION_BOTH};
    tandem_err err = TANDEM_OK;
    tandem_writer bytes;

    tandem_writer_init(&bytes);
    if (share)
        err = td_share_of_lists(share, &bytes);
    if (err == TANDEM_OK) {
        kept.bytes = tandem_writer_slice(&bytes);
        call->argument = &kept;
        err = td_sync_call_loop(sync, call);
    }
    tandem_writer_release(&bytes);
    return err;
}

tandem_err tandem_remote_add_sharing(tandem_sync *sync, const char *name, const char *url,
                                     const tandem_share *share)
{
    td_sync_call call = {.run = run_add, .name = name, .url = url};

    if (!sync || !name || !url)
        return TANDEM_E_INVALID;
    return call_with_share(sync, &call, share);
}

tandem_err tandem_remote_add(tandem_sync *sync, const char *name, const char *url)
{
    return tandem_remote_add_sharing(sync, name, url, NULL);
}

/* The remote was changed: its session begins anew. */
static tandem_err begin_anew(td_peer *peer)
{
    tandem_err err;

    peer->served_by = NULL;
    peer->last_err = TANDEM_OK;
    peer->said_hello = false; /* what the session that ends came to says nothing of the next */
    td_channel_stop(peer->channel, TANDEM_OK, "the remote was changed");
    err = td_peer_start(peer);
    td_peer_refresh(peer);
    return err;
}

static tandem_err change(tandem_sync *sync, td_peer *peer, const td_remote_record *record)
{
    tandem_err err;

    if ((err = td_sync_store_put_remote(sync->store, record)) != TANDEM_OK)
        return err;
    peer->record = *record;
    /* An inbound session of the same reactor would go on exchanging what is to rest. */
    if (record->paused && peer->served_by && td_peer_is_open(peer->served_by))
        td_session_fail(td_channel_session(peer->served_by->channel), TANDEM_E_UNREACHABLE,
                        "paused by command there");
    return begin_anew(peer);
}

static tandem_err run_set(tandem_sync *sync, td_sync_call *call)
{
    td_peer *peer = td_sync_find_remote(sync, call->name);
    td_remote_record record;
    tandem_err err;

    if (!peer)
        return TANDEM_E_NOT_FOUND;
    record = peer->record;
    if (call->url) {
        if (strlen(call->url) >= sizeof(record.url))
            return TANDEM_E_INVALID;
        if ((err = url_check(sync, call->url)) != TANDEM_OK)
            return err;
        strcpy(record.url, call->url);
    } else {
        record.paused = call->flag;
    }
    if (record.paused == peer->record.paused && !strcmp(record.url, peer->record.url))
        return TANDEM_OK;
    if (strcmp(record.url, peer->record.url) != 0)
        peer->held = record.held = 0; /* another reactor may be there */
    return change(sync, peer, &record);
}

tandem_err tandem_remote_set(tandem_sync *sync, const char *name, const char *url)
{
    td_sync_call call = {.run = run_set, .name = name, .url = url};

    if (!sync || !name || !url)
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}

tandem_err tandem_remote_pause(tandem_sync *sync, const char *name)
{
    td_sync_call call = {.run = run_set, .name = name, .flag = true};

    if (!sync || !name)
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}

tandem_err tandem_remote_resume(tandem_sync *sync, const char *name)
{
    td_sync_call call = {.run = run_set, .name = name, .flag = false};

    if (!sync || !name)
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}

/* 0 stands for the default throughout. */
static bool is_policy(const tandem_retry_policy *policy)
{
    return policy->size == sizeof(*policy) && policy->base_ms <= RETRY_MS_MAX &&
           policy->cap_ms <= RETRY_MS_MAX && policy->rest_ms <= RETRY_MS_MAX &&
           policy->factor <= RETRY_FACTOR_MAX && policy->attempts <= RETRY_ATTEMPTS_MAX &&
           policy->budget <= RETRY_BUDGET_MAX;
}

static tandem_err run_set_retry(tandem_sync *sync, td_sync_call *call)
{
    const tandem_retry_policy *policy = call->argument;
    td_peer *peer = td_sync_find_remote(sync, call->name);
    td_remote_record record;
    td_retry_policy retry;
    tandem_err err;

    if (!peer)
        return TANDEM_E_NOT_FOUND;
    record = peer->record;
    record.retry = (td_kept_retry){0};
    if (policy)
        record.retry = (td_kept_retry){
            .base_ms = policy->base_ms,
            .factor = policy->factor,
            .cap_ms = policy->cap_ms,
            .attempts = policy->attempts,
            .rest_ms = policy->rest_ms,
            .budget = policy->budget,
        };
    if ((err = td_sync_store_put_remote(sync->store, &record)) != TANDEM_OK)
        return err;
    peer->record = record;
    retry = td_sync_retry_policy(sync, &record.retry);
    td_channel_set_retry(peer->channel, &retry);
    return TANDEM_OK;
}

tandem_err tandem_remote_set_retry(tandem_sync *sync, const char *name,
                                   const tandem_retry_policy *policy)
{
    td_sync_call call = {.run = run_set_retry, .name = name, .argument = (void *)policy};

    if (!sync || !name || (policy && !is_policy(policy)))
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}

static tandem_err run_set_share(tandem_sync *sync, td_sync_call *call)
{
    const td_kept_share *share = call->argument;
    td_peer *peer = td_sync_find_remote(sync, call->name);
    td_remote_record record;
    uint8_t *bytes;
    tandem_err err;

    if (!peer)
        return TANDEM_E_NOT_FOUND;
    if (share->direction == peer->record.share.direction &&
        tandem_slice_equal(share->bytes, peer->record.share.bytes))
        return TANDEM_OK;
    record = peer->record;
    record.share = *share;
    if ((err = td_remote_copy_share(&record.share, &bytes)) != TANDEM_OK)
        return err;
    if ((err = td_sync_store_put_remote(sync->store, &record)) != TANDEM_OK) {
        free(bytes);
        return err;
    }
    td_remote_end_sharing(peer);
    free(peer->share_bytes);
    peer->share_bytes = bytes;
    peer->record = record;
    return begin_anew(peer);
}

tandem_err tandem_remote_set_share(tandem_sync *sync, const char *name, const tandem_share *share)
{
    td_sync_call call = {.run = run_set_share, .name = name};

    if (!sync || !name)
        return TANDEM_E_INVALID;
    return call_with_share(sync, &call, share);
}

_Static_assert((int)TANDEM_POLL_LONG == TD_POLL_LONG && (int)TANDEM_POLL_INTERVAL == TD_POLL_FIXED &&
                   (int)TANDEM_POLL_ADAPTIVE == TD_POLL_ADAPTIVE,
               "one is the other");

const char *tandem_poll_mode_name(tandem_poll_mode mode)
{
    static const char *const names[] = {
        [TANDEM_POLL_LONG] = "long",
        [TANDEM_POLL_INTERVAL] = "interval",
        [TANDEM_POLL_ADAPTIVE] = "adaptive",
    };

    return names[mode];
}

static tandem_err run_set_poll(tandem_sync *sync, td_sync_call *call)
{
    td_peer *peer = td_sync_find_remote(sync, call->name);
    const td_kept_poll *kept = call->argument;
    td_poll_policy policy = td_sync_poll_policy(kept);
    td_remote_record record;
    tandem_err err;

    if (!peer)
        return TANDEM_E_NOT_FOUND;
    record = peer->record;
    record.poll = *kept;
    if ((err = td_sync_store_put_remote(sync->store, &record)) != TANDEM_OK)
        return err;
    peer->record = record;
    td_channel_set_poll(peer->channel, &policy);
    td_sync_tick_at(sync, 0);
    return TANDEM_OK;
}

tandem_err tandem_remote_set_poll(tandem_sync *sync, const char *name, tandem_poll_mode mode,
                                  uint64_t mean_ms)
{
    td_kept_poll kept = {.mode = mode, .mean_ms = mode == TANDEM_POLL_LONG ? 0 : mean_ms};
    td_sync_call call = {.run = run_set_poll, .name = name, .argument = &kept};

    if (!sync || !name || mode < TANDEM_POLL_LONG || mode > TANDEM_POLL_ADAPTIVE ||
        (kept.mean_ms && (mean_ms < TD_POLL_MEAN_MS_MIN || mean_ms > TD_POLL_MEAN_MS_MAX)))
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}

static tandem_err run_remove(tandem_sync *sync, td_sync_call *call)
{
    td_peer *peer = td_sync_find_remote(sync, call->name);
    tandem_err err;

    if (!peer)
        return TANDEM_E_NOT_FOUND;
    if ((err = td_sync_store_delete_remote(sync->store, call->name)) != TANDEM_OK)
        return err;
    peer->removed = true;
    if (td_remote_is_restricted(peer)) /* what its reactor has dialed shares by it */
        td_remote_end_sharing(peer);
    td_dead_letters_removed(sync, call->name);
    td_channel_stop(peer->channel, TANDEM_OK, "the remote was removed");
    td_sync_tick_at(sync, 0);
    return TANDEM_OK;
}

tandem_err tandem_remote_remove(tandem_sync *sync, const char *name)
{
    td_sync_call call = {.run = run_remove, .name = name};

    if (!sync || !name)
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}

static tandem_err run_poke(tandem_sync *sync, td_sync_call *call)
{
    if (call->name && !td_sync_find_remote(sync, call->name))
        return TANDEM_E_NOT_FOUND;
    for (td_peer *peer = sync->peers; peer; peer = peer->next) {
        if (!peer->is_remote || (call->name && strcmp(peer->record.name, call->name)))
            continue;
        /* What the last try ended with says nothing of this one: who waits for its outcome must
         * not take the old one for it. */
        if (td_channel_state_of(peer->channel) == TD_CHANNEL_WAITING)
            peer->last_err = TANDEM_OK;
        td_channel_poke(peer->channel);
    }
    td_sync_tick_at(sync, 0);
    return TANDEM_OK;
}

tandem_err tandem_remote_poke(tandem_sync *sync, const char *name)
{
    td_sync_call call = {.run = run_poke, .name = name};

    if (!sync)
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}

/* ---- Looking ---- */

typedef tandem_err (*visit_remote_fn)(void *context, const tandem_remote_status *status);

static void poll_fill(td_peer *peer, tandem_poll_status *out)
{
    const td_scheduler *scheduler = td_channel_scheduler(peer->channel);
    uint64_t now_ms = td_sync_now_ms(peer->sync);
    td_poll_decision decision;

    td_channel_poll_decision(peer->channel, &decision);
    *out = (tandem_poll_status){
        .mode = (tandem_poll_mode)scheduler->policy.mode,
        .mean_ms = scheduler->policy.mean_ms,
        .reason = td_poll_reason_name(decision.reason),
        .why = td_poll_reason_text(decision.reason),
        .exchanges = scheduler->exchanges,
        .operations_per_second = scheduler->per_second,
        .answer_bytes = scheduler->bytes,
        .exchange_ms = scheduler->took_ms,
        .quiet_ms = now_ms - scheduler->came_ms,
        .saved_ms = scheduler->policy.mode == TD_POLL_ADAPTIVE ? scheduler->saved_ms : 0,
        .failures = scheduler->failures,
        .load_permille = td_channel_load_permille(peer->channel),
    };
    if (!td_channel_is_polled(peer->channel))
        return;
    out->interval_ms = decision.interval_ms;
    if (decision.next_ms != UINT64_MAX)
        out->next_at_ms = td_env_wall_ms(peer->sync->env) +
                          (decision.next_ms > now_ms ? decision.next_ms - now_ms : 0);
}

/* While it is away, by what was set here alone: it may give less. */
static bool is_partial(const td_peer *works, const tandem_share *share)
{
    return td_way_in_has_filter(works) ||
           (share->direction != TANDEM_DIRECTION_PUSH &&
            (share->document_count || share->scope_count || share->branch_count));
}

static tandem_err visit_peer(td_peer *peer, visit_remote_fn visit, void *context)
{
    td_peer *works = td_peer_serving(peer);
    uint64_t until_ms;
    uint64_t retry_ms = peer->served_by ? 0 : td_channel_retry_at_ms(peer->channel);
    td_share_view view;
    tandem_err err;
    tandem_remote_status status = {
        .name = peer->is_remote ? peer->record.name : NULL,
        .url = peer->is_remote ? peer->record.url : NULL,
    };

    td_retry_policy retry = td_sync_retry_policy(peer->sync, &peer->record.retry);

    if ((err = td_share_view_open(&peer->record.share, &view)) != TANDEM_OK)
        return err;
    td_peer_refresh(peer);
    status.share = view.share;
    status.attempts = td_channel_attempts(peer->channel);
    status.retry = (tandem_retry_policy){
        .size = sizeof(status.retry),
        .base_ms = retry.base_ms,
        .cap_ms = retry.cap_ms,
        .rest_ms = retry.rest_ms,
        .factor = (uint32_t)retry.factor,
        .attempts = retry.attempts_max,
        .budget = retry.budget,
    };
    poll_fill(peer, &status.poll);
    memcpy(status.reactor, works->reactor, sizeof(status.reactor));
    if (td_peer_is_open(works)) {
        const td_origin_cover *origin;

        retry_ms = td_sender_trouble(works, &origin) != TANDEM_OK ? origin->range.retry_at_ms : 0;
        if (td_dead_letters_trouble(works) != TANDEM_OK)
            retry_ms = works->letters.keep_at_ms;
        if (!retry_ms && td_puller_is_waiting(works, &until_ms))
            status.retry_at_ms = until_ms;
    }
    status.state = peer->state;
    status.reason = peer->reason;
    status.since_ms = peer->since_ms;
    if (retry_ms) {
        uint64_t now_ms = td_sync_now_ms(peer->sync);

        status.retry_at_ms =
            td_env_wall_ms(peer->sync->env) + (retry_ms > now_ms ? retry_ms - now_ms : 0);
    }
    status.partial = is_partial(works, &status.share);
    status.lag_operations = lag_of(peer);
    progress_fill(works, &status.progress);
    status.outbox = tandem_mailbox_jobs(td_channel_outbox(works->channel));
    status.inbox = tandem_mailbox_jobs(td_channel_inbox(works->channel));
    status.dead_letters = td_dead_letters_of(peer);
    status.sent_operations = peer->sent_operations;
    status.received_operations = peer->received_operations;
    status.duplicate_operations = peer->duplicate_operations;
    status.echoed_operations = peer->echoed_operations;
    if (works != peer) {
        status.sent_operations += works->sent_operations;
        status.received_operations += works->received_operations;
        status.duplicate_operations += works->duplicate_operations;
        status.echoed_operations += works->echoed_operations;
    }
    err = visit(context, &status);
    td_share_view_release(&view);
    return err;
}

static bool stands_for_a_remote(const td_peer *peer)
{
    for (const td_peer *other = peer->sync->peers; other; other = other->next)
        if (other->served_by == peer)
            return true;
    return false;
}

static tandem_err run_remotes(tandem_sync *sync, td_sync_call *call)
{
    visit_remote_fn visit = *(visit_remote_fn *)call->argument;
    tandem_err err = TANDEM_OK;

    for (td_peer *peer = sync->peers; peer && err == TANDEM_OK; peer = peer->next)
        if (peer->is_remote && !peer->removed)
            err = visit_peer(peer, visit, call->context);
    for (td_peer *peer = sync->peers; peer && err == TANDEM_OK; peer = peer->next)
        if (!peer->is_remote && td_peer_is_open(peer) && !stands_for_a_remote(peer))
            err = visit_peer(peer, visit, call->context);
    return err == TANDEM_END ? TANDEM_OK : err;
}

tandem_err tandem_remotes(tandem_sync *sync, visit_remote_fn visit, void *context)
{
    td_sync_call call = {.run = run_remotes, .looks = true, .argument = &visit, .context = context};

    if (!sync || !visit)
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}

typedef void (*report_fn)(void *context, const char *text);

static tandem_err run_verify(tandem_sync *sync, td_sync_call *call)
{
    return td_sync_store_verify(sync->store, *(report_fn *)call->argument, call->context);
}

tandem_err tandem_sync_verify(tandem_sync *sync, report_fn report, void *context)
{
    td_sync_call call = {.run = run_verify, .looks = true, .argument = &report, .context = context};

    if (!sync || !report)
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}

static tandem_err run_stat(tandem_sync *sync, td_sync_call *call)
{
    tandem_sync_stat *stat = call->argument;

    memset(stat, 0, sizeof(*stat));
    strcpy(stat->listener_url, sync->listener_url);
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        if (!td_channel_is_dialed(peer->channel) && td_peer_is_open(peer) && !peer->is_remote)
            stat->sessions++;
    stat->rejected = sync->rejected;
    if (sync->websocket)
        stat->rejected += sync->websocket->ops->rejected(sync->websocket);
    stat->quarantined = sync->quarantined;
    return TANDEM_OK;
}

tandem_err tandem_sync_stat_get(tandem_sync *sync, tandem_sync_stat *out)
{
    td_sync_call call = {.run = run_stat, .looks = true, .argument = out};

    if (!sync || !out)
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}
