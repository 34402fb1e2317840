#include "sync/sync_manager.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include <utlist.h>

static const td_retry_policy default_retry = TD_RETRY_POLICY_DEFAULT;

/* ---- Small things ---- */

uint64_t td_sync_now_ms(tandem_sync *sync)
{
    return td_env_monotonic_ms(sync->env);
}

void td_sync_tick_at(tandem_sync *sync, uint64_t at_ms)
{
    uint64_t now_ms;

    if (sync->tick_timed && sync->tick_at_ms <= at_ms)
        return;
    if (sync->tick_timed)
        td_actor_cancel(sync->actor, &sync->tick);
    now_ms = td_sync_now_ms(sync);
    sync->tick_timed = true;
    sync->tick_at_ms = at_ms;
    td_actor_post_after(sync->actor, &sync->tick, at_ms > now_ms ? at_ms - now_ms : 0);
}

void td_sync_count_corrupt(tandem_sync *sync, tandem_slice collection, uint64_t ordinal)
{
    uint64_t *grown;

    for (size_t i = 0; i < sync->corrupt_count; i++)
        if (sync->corrupt[i] == ordinal)
            return;
    if ((grown = realloc(sync->corrupt, (sync->corrupt_count + 1) * sizeof(*grown)))) {
        sync->corrupt = grown;
        sync->corrupt[sync->corrupt_count++] = ordinal;
    }
    sync->quarantined++;
    td_log(sync->env, TANDEM_LOG_ERROR, "sync",
           "%.*s: the record at ordinal %llu does not verify and is not sent",
           (int)collection.size, (const char *)collection.bytes, (unsigned long long)ordinal);
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
static bool is_compared(const td_peer *peer)
{
    return peer->said_hello && peer->all_sent && (peer->peer_all_known || peer->peer_listed) &&
           !peer->coverage.unknown && !peer->digests_wanted && !peer->listings;
}

static tandem_remote_state open_state(td_peer *peer, char *reason, size_t size)
{
    const td_origin_cover *origin;
    tandem_err trouble;

    if (!is_compared(peer)) {
        snprintf(reason, size, "comparing what each side holds");
        return TANDEM_REMOTE_CONNECTING;
    }
    trouble = td_sender_trouble(peer, &origin);
    if (trouble == TANDEM_E_CLOCK) {
        snprintf(reason, size, "the peer's clock is behind our operations in %.*s",
                 (int)origin->collection->name.size, (const char *)origin->collection->name.bytes);
        return TANDEM_REMOTE_WAITING_FOR_CLOCK;
    }
    if (tandem_mailbox_jobs(td_channel_outbox(peer->channel)) > 0) {
        snprintf(reason, size, "%u jobs in flight",
                 tandem_mailbox_jobs(td_channel_outbox(peer->channel)));
        return TANDEM_REMOTE_PUSHING;
    }
    if (trouble != TANDEM_OK) {
        bool waits = origin->range.blocked == TANDEM_OK;

        snprintf(reason, size, "%s in %.*s: %s", tandem_err_name(trouble),
                 (int)origin->collection->name.size, (const char *)origin->collection->name.bytes,
                 tandem_err_text(trouble));
        return waits ? TANDEM_REMOTE_BACKING_OFF : TANDEM_REMOTE_BLOCKED;
    }
    if (peer->coverage.lacking_count || tandem_mailbox_jobs(td_channel_inbox(peer->channel)) > 0) {
        snprintf(reason, size, "it announced operations that are not held here yet");
        return TANDEM_REMOTE_PULLING;
    }
    if (peer->coverage.lag > 0) {
        snprintf(reason, size, "%llu operations are not held there yet",
                 (unsigned long long)peer->coverage.lag);
        return TANDEM_REMOTE_PUSHING;
    }
    return TANDEM_REMOTE_IN_STEP;
}

static tandem_remote_state closed_state(td_peer *peer, char *reason, size_t size)
{
    bool waiting = td_channel_state_of(peer->channel) == TD_CHANNEL_WAITING;

    if (peer->last_err != TANDEM_OK)
        snprintf(reason, size, "%.*s (%s)", TD_WIRE_TEXT_BYTES_MAX / 2,
                 peer->last_text[0] ? peer->last_text : tandem_err_text(peer->last_err),
                 tandem_err_name(peer->last_err));
    if (peer->last_err < 0 && !tandem_err_is_transient(peer->last_err) &&
        peer->last_err != TANDEM_E_CLOSED)
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

void td_peer_refresh(td_peer *peer)
{
    char reason[TD_WIRE_TEXT_BYTES_MAX];
    tandem_remote_state state = state_of(peer, reason, sizeof(reason));

    memcpy(peer->reason, reason, sizeof(reason));
    if (state == peer->state)
        return;
    peer->state = state;
    peer->since_ms = td_env_wall_ms(peer->sync->env);
}

/* ---- Waiters: the barrier, and being in step ---- */

struct requirement {
    struct requirement *next;
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t seq;
    size_t size;
    uint8_t name[];
};

struct td_waiter {
    td_waiter *next;
    char name[TANDEM_NAME_BYTES_MAX + 1]; /* "": every remote */
    bool in_step; /* else the barrier */
    bool noted;   /* the requirements are those of the call, as far as they were open then */
    struct requirement *requirements;
    td_reply *reply;
};

static td_peer *find_remote(tandem_sync *sync, const char *name)
{
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        if (peer->is_remote && !peer->removed && !strcmp(peer->record.name, name))
            return peer;
    return NULL;
}

static td_peer *serving(td_peer *peer)
{
    return peer->served_by ? peer->served_by : peer;
}

static void requirements_free(td_waiter *waiter)
{
    while (waiter->requirements) {
        struct requirement *next = waiter->requirements->next;

        free(waiter->requirements);
        waiter->requirements = next;
    }
}

/* What the peer is not known to hold of all that we hold now. */
static tandem_err note_requirements(td_waiter *waiter, td_peer *peer)
{
    for (td_collection_cover *c = peer->coverage.collections; c; c = c->hh.next) {
        for (td_origin_cover *o = c->origins; o; o = o->hh.next) {
            struct requirement *requirement;

            if (o->lag == 0)
                continue;
            if (!(requirement = calloc(1, sizeof(*requirement) + c->name.size)))
                return TANDEM_E_NOMEM;
            memcpy(requirement->origin, o->origin, sizeof(requirement->origin));
            requirement->seq = o->our_seq;
            requirement->size = c->name.size;
            memcpy(requirement->name, c->name.bytes, c->name.size);
            LL_PREPEND(waiter->requirements, requirement);
        }
    }
    waiter->noted = true;
    return TANDEM_OK;
}

static bool is_met(td_peer *peer, const struct requirement *requirement)
{
    td_collection_cover *collection =
        td_coverage_find(&peer->coverage, tandem_slice_of(requirement->name, requirement->size));
    td_origin_cover *origin;

    if (!collection)
        return peer->peer_all_known;
    if ((origin = td_coverage_find_origin(collection, requirement->origin)))
        return origin->peer_seq >= requirement->seq;
    return collection->base_ordinal > 0;
}

/* TANDEM_END: not yet. */
static tandem_err barrier_outcome(td_waiter *waiter, td_peer *peer)
{
    const td_origin_cover *origin;
    tandem_err err;

    if (!td_peer_is_open(peer) || !is_compared(peer))
        return TANDEM_END;
    if (!waiter->noted && (err = note_requirements(waiter, peer)) != TANDEM_OK)
        return err;
    while (waiter->requirements && is_met(peer, waiter->requirements)) {
        struct requirement *met = waiter->requirements;

        waiter->requirements = met->next;
        free(met);
    }
    if (!waiter->requirements)
        return TANDEM_OK;
    err = td_sender_trouble(peer, &origin);
    return err != TANDEM_OK && origin->range.blocked != TANDEM_OK ? TANDEM_E_REFUSED : TANDEM_END;
}

static tandem_err outcome(tandem_sync *sync, td_waiter *waiter)
{
    td_peer *peer;

    if (waiter->name[0]) {
        if (!(peer = find_remote(sync, waiter->name)))
            return TANDEM_E_NOT_FOUND;
        if (!waiter->in_step)
            return barrier_outcome(waiter, serving(peer));
        td_peer_refresh(peer);
        return peer->state == TANDEM_REMOTE_IN_STEP ? TANDEM_OK : TANDEM_END;
    }
    for (peer = sync->peers; peer; peer = peer->next) {
        if (!peer->is_remote || peer->removed || peer->record.paused)
            continue;
        td_peer_refresh(peer);
        if (peer->state != TANDEM_REMOTE_IN_STEP)
            return TANDEM_END;
    }
    return TANDEM_OK;
}

static void waiter_end(tandem_sync *sync, td_waiter *waiter, tandem_err err)
{
    LL_DELETE(sync->waiters, waiter);
    requirements_free(waiter);
    td_reply_set(waiter->reply, err);
    td_reply_free(waiter->reply);
    free(waiter);
}

void td_sync_check_waiters(tandem_sync *sync)
{
    td_waiter *waiter, *next;

    LL_FOREACH_SAFE(sync->waiters, waiter, next)
    {
        tandem_err err = sync->closing ? TANDEM_E_CLOSED : outcome(sync, waiter);

        if (err != TANDEM_END)
            waiter_end(sync, waiter, err);
    }
}

/* ---- Peers ---- */

static tandem_err peer_open(tandem_sync *sync, td_peer **out)
{
    td_channel_config config = {
        .env = sync->env,
        .window_jobs = sync->options.window_jobs,
        .window_bytes = sync->options.window_bytes,
        .retry = default_retry,
        .pool = &sync->pool,
        .source = &sync->source,
        .user = &td_peer_user,
        .closed = td_peer_closed,
    };
    td_peer *peer;
    tandem_err err;

    if (sync->peer_count >= TD_SYNC_PEERS_MAX)
        return TANDEM_E_LIMIT;
    if (!(peer = calloc(1, sizeof(*peer))))
        return TANDEM_E_NOMEM;
    peer->sync = sync;
    peer->since_ms = td_env_wall_ms(sync->env);
    config.context = peer;
    config.retry.base_ms = sync->options.retry_base_ms;
    config.retry.cap_ms = sync->options.retry_cap_ms;
    if ((err = td_channel_open(&config, &peer->channel)) != TANDEM_OK) {
        free(peer);
        return err;
    }
    DL_APPEND(sync->peers, peer);
    sync->peer_count++;
    *out = peer;
    return TANDEM_OK;
}

static void peer_free(td_peer *peer)
{
    tandem_sync *sync = peer->sync;

    for (td_peer *other = sync->peers; other; other = other->next)
        if (other->served_by == peer)
            other->served_by = NULL;
    DL_DELETE(sync->peers, peer);
    sync->peer_count--;
    td_coverage_release(&peer->coverage);
    td_channel_free(peer->channel);
    free(peer);
}

static tandem_err carrier_of(tandem_sync *sync, const char *url, td_carrier **out)
{
    tandem_err err;

    if (!strncmp(url, "mem:", 4)) {
        if (!sync->memory)
            return TANDEM_E_UNSUPPORTED;
        *out = sync->memory;
        return sync->memory->ops->check(url);
    }
    if ((err = td_url_check(url)) != TANDEM_OK)
        return err;
    if (!td_host_loop(sync->loop))
        return TANDEM_E_UNSUPPORTED; /* the simulation has no sockets */
    if (!sync->websocket &&
        (err = td_websocket_carrier_open(sync->loop, &sync->websocket)) != TANDEM_OK)
        return err;
    *out = sync->websocket;
    return TANDEM_OK;
}

static tandem_err start(td_peer *peer)
{
    td_carrier *carrier;
    tandem_err err;

    if (peer->sync->options.offline || peer->record.paused || peer->removed)
        return TANDEM_OK;
    if ((err = carrier_of(peer->sync, peer->record.url, &carrier)) != TANDEM_OK ||
        (err = td_channel_start(peer->channel, carrier, peer->record.url)) != TANDEM_OK)
        return err;
    td_sync_tick_at(peer->sync, 0);
    return TANDEM_OK;
}

static tandem_err remote_open(tandem_sync *sync, const td_remote_record *record)
{
    td_peer *peer;
    tandem_err err;

    if ((err = peer_open(sync, &peer)) != TANDEM_OK)
        return err;
    peer->is_remote = true;
    peer->record = *record;
    if ((err = start(peer)) != TANDEM_OK) {
        peer->last_err = err;
        snprintf(peer->last_text, sizeof(peer->last_text), "%s", tandem_err_text(err));
    }
    td_peer_refresh(peer);
    return TANDEM_OK;
}

static tandem_err accept_link(void *context, td_link *link,
                              const td_connection_events **events_out, void **context_out)
{
    tandem_sync *sync = context;
    td_peer *peer;
    tandem_err err;

    if (sync->closing)
        return TANDEM_E_CLOSED;
    if ((err = peer_open(sync, &peer)) != TANDEM_OK)
        return err;
    return td_channel_accept(peer->channel, link, events_out, context_out);
}

/* A dialing remote whose session lost against an inbound one of the same reactor lets that serve,
 * and dials again when it is gone. */
static void look_at_duplicates(tandem_sync *sync)
{
    for (td_peer *peer = sync->peers; peer; peer = peer->next) {
        if (!peer->is_remote || peer->removed)
            continue;
        if (peer->served_by) {
            if (td_peer_is_open(peer->served_by))
                continue;
            peer->served_by = NULL;
            start(peer);
            continue;
        }
        if (td_channel_is_linked(peer->channel) || peer->last_err != TANDEM_E_DUPLICATE_SESSION)
            continue;
        for (td_peer *other = sync->peers; other; other = other->next)
            if (other != peer && td_peer_is_open(other) &&
                !memcmp(other->reactor, peer->reactor, TANDEM_ORIGIN_BYTES)) {
                peer->served_by = other;
                td_channel_stop(peer->channel, TANDEM_OK, "");
                break;
            }
    }
}

/* ---- What was committed ---- */

struct grown {
    tandem_writer names; /* NUL-terminated */
    uint64_t seen;
};

static tandem_err note_grown(void *context, const td_collection_info *info)
{
    struct grown *grown = context;

    if (info->last_ordinal > grown->seen) {
        tandem_write_raw(&grown->names, info->name);
        tandem_write_raw(&grown->names, tandem_slice_of("", 1));
    }
    return TANDEM_OK;
}

static void collection_grew(tandem_sync *sync, tandem_slice name)
{
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;

    if (td_op_store_heads(sync->ops, name, td_op_store_identity(sync->ops)->origin, heads,
                          &count) != TANDEM_OK ||
        !count)
        return;
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        if (td_peer_is_open(peer))
            td_peer_own_grew(peer, name, heads[count - 1].seq);
}

static void look_at_commits(tandem_sync *sync)
{
    uint64_t position = td_executor_position(sync->executor);
    struct grown grown = {.seen = sync->seen_position};

    if (position <= sync->seen_position)
        return;
    tandem_writer_init(&grown.names);
    if (td_op_store_collections(sync->ops, tandem_slice_of(NULL, 0), note_grown, &grown) ==
        TANDEM_OK) {
        sync->seen_position = position;
        for (size_t at = 0; at < grown.names.size;) {
            tandem_slice name = tandem_slice_text((const char *)grown.names.bytes + at);

            collection_grew(sync, name);
            at += name.size + 1;
        }
    }
    tandem_writer_release(&grown.names);
    for (td_peer *peer = sync->peers; peer; peer = peer->next) {
        td_sender_fill(peer);
        td_peer_refresh(peer);
    }
}

static void committed(void *context, uint64_t position)
{
    tandem_sync *sync = context;

    (void)position;
    if (!sync->closing)
        look_at_commits(sync);
}

/* ---- Time ---- */

static uint64_t tick_peer(td_peer *peer, uint64_t now_ms)
{
    uint64_t due_ms = td_channel_tick(peer->channel, now_ms), sender_ms;

    if (!td_peer_is_open(peer)) {
        td_peer_refresh(peer);
        return due_ms;
    }
    sender_ms = td_sender_tick(peer, now_ms);
    td_sender_fill(peer);
    if (peer->announce_at_ms && now_ms >= peer->announce_at_ms)
        td_session_announce(td_channel_session(peer->channel));
    else if (peer->announce_at_ms && peer->announce_at_ms < due_ms)
        due_ms = peer->announce_at_ms;
    td_peer_refresh(peer);
    return sender_ms < due_ms ? sender_ms : due_ms;
}

static void sweep(tandem_sync *sync)
{
    td_peer *peer, *next;

    DL_FOREACH_SAFE(sync->peers, peer, next)
    {
        bool gone = !td_channel_is_linked(peer->channel) && peer->deliveries == 0;

        if (gone && (peer->removed || !peer->is_remote))
            peer_free(peer);
    }
}

static void free_carriers(tandem_sync *sync)
{
    if (sync->websocket)
        sync->websocket->ops->free(sync->websocket);
    if (sync->memory)
        sync->memory->ops->free(sync->memory);
    sync->websocket = sync->memory = NULL;
}

/* Links are given some time to say goodbye; then what is left of them is cut. The peers stay until
 * the executor has given back what they delivered. */
static void look_at_closing(tandem_sync *sync, uint64_t now_ms)
{
    bool linked = false;

    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        linked = linked || td_channel_is_linked(peer->channel);
    if (linked && now_ms < sync->watch_at_ms) {
        td_sync_tick_at(sync, sync->watch_at_ms);
        return;
    }
    free_carriers(sync);
    if (sync->deliveries == 0 && sync->closed) {
        td_reply_set(sync->closed, TANDEM_OK);
        sync->closed = NULL;
    }
}

static void tick(tandem_sync *sync)
{
    uint64_t now_ms = td_sync_now_ms(sync), due_ms = UINT64_MAX;

    if (sync->closing) {
        look_at_closing(sync, now_ms);
        return;
    }
    look_at_duplicates(sync);
    sweep(sync);
    look_at_commits(sync);
    for (td_peer *peer = sync->peers; peer; peer = peer->next) {
        uint64_t peer_ms = tick_peer(peer, now_ms);

        if (peer_ms < due_ms)
            due_ms = peer_ms;
    }
    if (now_ms >= sync->watch_at_ms) {
        td_puller_tick(sync, now_ms);
        sync->watch_at_ms = now_ms + TD_WATCH_MS;
    }
    td_sync_check_waiters(sync);
    if (sync->peers && sync->watch_at_ms < due_ms)
        due_ms = sync->watch_at_ms;
    if (due_ms != UINT64_MAX)
        td_sync_tick_at(sync, due_ms > now_ms ? due_ms : now_ms + 1);
}

/* ---- The actor ---- */

typedef struct sync_call sync_call;
struct sync_call {
    td_message message;
    tandem_err (*run)(tandem_sync *sync, sync_call *call);
    tandem_sync *sync;
    td_reply *reply; /* NULL: run in place */
    const char *name, *url;
    void *argument, *context;
    uint64_t number;
    bool flag;
};

static void drop_nothing(td_message *message)
{
    (void)message;
}

static void drop_call(td_message *message)
{
    td_reply_set(((sync_call *)message)->reply, TANDEM_E_CLOSED);
}

static void handle(void *self, td_message *message)
{
    tandem_sync *sync = self;

    switch (message->kind) {
    case TD_SYNC_TICK:
        sync->tick_timed = false;
        tick(sync);
        break;
    case TD_SYNC_RETURNED: {
        td_delivery *delivery = (td_delivery *)((char *)message - offsetof(td_delivery, returned));

        td_peer_delivered(delivery->user, delivery);
        if (sync->closing)
            td_sync_tick_at(sync, 0);
        break;
    }
    case TD_SYNC_CALL: {
        sync_call *call = (sync_call *)message;
        td_reply *reply = call->reply;

        td_reply_set(reply, call->run(sync, call));
        break;
    }
    default:
        assert(false && "a message of the sync manager's");
    }
}

static const td_actor_ops sync_ops = {.name = "sync", .handle = handle};

/* Run on the loop and wait. A driven loop is run from here. */
static tandem_err call_loop(tandem_sync *sync, sync_call *call)
{
    td_reply *reply;
    tandem_err err;

    if (td_host_is_current(sync->loop))
        return call->run(sync, call);
    if ((err = td_reply_open(sync->runtime, &reply)) != TANDEM_OK)
        return err;
    call->reply = reply;
    call->message = (td_message){.kind = TD_SYNC_CALL, .drop = drop_call};
    td_actor_post(sync->actor, &call->message);
    if (td_host_fd(sync->loop) >= 0)
        while ((err = td_reply_wait(reply, 0)) == TANDEM_E_TIMEOUT)
            td_host_poll(sync->loop);
    else
        err = td_reply_wait(reply, UINT64_MAX);
    td_reply_free(reply);
    return err;
}

/* ---- Opening and closing ---- */

static tandem_err open_remote(void *context, const td_remote_record *record)
{
    return remote_open(context, record);
}

static tandem_err begin(tandem_sync *sync, sync_call *call)
{
    tandem_err err;

    (void)call;
    err = td_sync_store_remotes(sync->store, open_remote, sync);
    return err == TANDEM_END ? TANDEM_OK : err;
}

static void fill_options(tandem_sync *sync, const tandem_sync_options *options)
{
    if (options)
        sync->options = *options;
    if (!sync->options.window_bytes)
        sync->options.window_bytes = 8 * 1024 * 1024;
    if (!sync->options.window_jobs)
        sync->options.window_jobs = 1024;
    if (!sync->options.retry_base_ms)
        sync->options.retry_base_ms = default_retry.base_ms;
    if (!sync->options.retry_cap_ms)
        sync->options.retry_cap_ms = default_retry.cap_ms;
    sync->pool.limit_bytes =
        sync->options.pool_bytes ? sync->options.pool_bytes : 32 * 1024 * 1024;
}

/* Free what the actor stood on; nothing of it runs any more. */
static void sync_free(tandem_sync *sync)
{
    td_waiter *waiter, *next;

    td_actor_free(sync->actor);
    LL_FOREACH_SAFE(sync->waiters, waiter, next)
        waiter_end(sync, waiter, TANDEM_E_CLOSED);
    while (sync->peers)
        peer_free(sync->peers);
    td_sync_forget_digests(sync);
    td_sync_store_free(sync->store);
    free(sync->corrupt);
    td_reactor_detach(sync->reactor);
    free(sync);
}

tandem_err td_sync_open_on(tandem_reactor *reactor, const tandem_sync_options *options,
                           td_carrier *memory, tandem_sync **out)
{
    tandem_sync *sync;
    sync_call call = {.run = begin};
    td_store *store;
    tandem_err err;

    if (!reactor || !out || (options && options->size != sizeof(*options)))
        return TANDEM_E_INVALID;
    if ((err = td_reactor_attach(reactor)) != TANDEM_OK)
        return err;
    if (!(sync = calloc(1, sizeof(*sync)))) {
        td_reactor_detach(reactor);
        return TANDEM_E_NOMEM;
    }
    sync->reactor = reactor;
    sync->env = td_reactor_env(reactor);
    sync->ops = td_reactor_ops(reactor);
    sync->executor = td_reactor_executor(reactor);
    sync->runtime = td_reactor_runtime(reactor);
    sync->loop = td_reactor_loop(reactor);
    sync->memory = memory;
    sync->source = (td_job_source){.read = td_sender_read, .context = sync};
    sync->tick = (td_message){.kind = TD_SYNC_TICK, .drop = drop_nothing};
    fill_options(sync, options);
    if ((err = td_reactor_open_sync_store(reactor, td_sync_store_tables,
                                          td_sync_store_table_count, &store)) != TANDEM_OK ||
        (err = td_sync_store_open(sync->env, store, &sync->store)) != TANDEM_OK ||
        (err = td_actor_open(sync->loop, &sync_ops, sync, &sync->actor)) != TANDEM_OK)
        goto fail;
    if ((err = call_loop(sync, &call)) != TANDEM_OK ||
        (err = td_event_bus_subscribe(td_reactor_bus(reactor), committed, sync,
                                      &sync->subscription)) != TANDEM_OK) {
        sync->memory = NULL;
        tandem_sync_close(sync);
        return err;
    }
    *out = sync;
    return TANDEM_OK;

fail:
    sync->memory = NULL;
    sync_free(sync);
    return err;
}

tandem_err tandem_sync_open(tandem_reactor *reactor, const tandem_sync_options *options,
                            tandem_sync **out)
{
    return td_sync_open_on(reactor, options, NULL, out);
}

/* End every session; look_at_closing() does the rest. */
static tandem_err end(tandem_sync *sync, sync_call *call)
{
    sync->closing = true;
    sync->closed = call->argument;
    sync->watch_at_ms = td_sync_now_ms(sync) + TD_GOODBYE_MS;
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        td_channel_stop(peer->channel, TANDEM_OK, "the reactor is closing");
    td_sync_check_waiters(sync);
    td_sync_tick_at(sync, 0);
    return TANDEM_OK;
}

struct closing {
    td_bus_call call;
    tandem_sync *sync;
    td_reply *reply;
};

static void run_free(td_bus_call *call)
{
    struct closing *closing = (struct closing *)call;
    td_reply *reply = closing->reply;

    sync_free(closing->sync);
    td_reply_set(reply, TANDEM_OK);
}

static void wait_for(td_host *loop, td_reply *reply)
{
    if (td_host_fd(loop) >= 0)
        while (td_reply_wait(reply, 0) == TANDEM_E_TIMEOUT)
            td_host_poll(loop);
    else
        td_reply_wait(reply, UINT64_MAX);
    td_reply_free(reply);
}

void tandem_sync_close(tandem_sync *sync)
{
    struct closing closing = {.sync = sync};
    sync_call call = {.run = end};
    td_reply *ended, *freed;
    td_host *loop;

    if (!sync)
        return;
    loop = sync->loop;
    td_event_bus_unsubscribe(sync->subscription);
    if (td_reply_open(sync->runtime, &ended) != TANDEM_OK)
        return; /* out of memory: leak rather than pull it from under the executor */
    call.argument = ended;
    call_loop(sync, &call);
    wait_for(loop, ended);
    if (td_reply_open(sync->runtime, &freed) != TANDEM_OK)
        return;
    closing.reply = freed;
    closing.call.run = run_free;
    closing.call.message.drop = drop_nothing;
    td_event_bus_run(td_reactor_bus(sync->reactor), &closing.call);
    wait_for(loop, freed);
}

void td_sync_crash(tandem_sync *sync)
{
    if (!sync)
        return;
    sync->closing = true;
    free_carriers(sync);
    sync_free(sync);
}

/* ---- Remotes ---- */

static tandem_err run_add(tandem_sync *sync, sync_call *call)
{
    td_remote_record record = {.paused = false};
    td_carrier *carrier;
    tandem_err err;

    if (find_remote(sync, call->name))
        return TANDEM_E_EXISTS;
    if (strlen(call->name) > TANDEM_NAME_BYTES_MAX || strlen(call->url) >= sizeof(record.url))
        return TANDEM_E_INVALID;
    if (!td_name_valid(tandem_slice_text(call->name)))
        return TANDEM_E_INVALID;
    if ((err = sync->options.offline && strncmp(call->url, "mem:", 4)
                   ? td_url_check(call->url)
                   : carrier_of(sync, call->url, &carrier)) != TANDEM_OK)
        return err;
    strcpy(record.name, call->name);
    strcpy(record.url, call->url);
    if ((err = td_sync_store_put_remote(sync->store, &record)) != TANDEM_OK)
        return err;
    return remote_open(sync, &record);
}

tandem_err tandem_remote_add(tandem_sync *sync, const char *name, const char *url)
{
    sync_call call = {.run = run_add, .name = name, .url = url};

    if (!sync || !name || !url)
        return TANDEM_E_INVALID;
    return call_loop(sync, &call);
}

static tandem_err change(tandem_sync *sync, td_peer *peer, const td_remote_record *record)
{
    tandem_err err;

    if ((err = td_sync_store_put_remote(sync->store, record)) != TANDEM_OK)
        return err;
    peer->record = *record;
    peer->served_by = NULL;
    peer->last_err = TANDEM_OK;
    td_channel_stop(peer->channel, TANDEM_OK, "the remote was changed");
    err = start(peer);
    td_peer_refresh(peer);
    return err;
}

static tandem_err run_set(tandem_sync *sync, sync_call *call)
{
    td_peer *peer = find_remote(sync, call->name);
    td_remote_record record;
    tandem_err err;

    if (!peer)
        return TANDEM_E_NOT_FOUND;
    record = peer->record;
    if (call->url) {
        td_carrier *carrier;

        if (strlen(call->url) >= sizeof(record.url))
            return TANDEM_E_INVALID;
        if ((err = sync->options.offline && strncmp(call->url, "mem:", 4)
                       ? td_url_check(call->url)
                       : carrier_of(sync, call->url, &carrier)) != TANDEM_OK)
            return err;
        strcpy(record.url, call->url);
    } else {
        record.paused = call->flag;
        if (record.paused == peer->record.paused)
            return TANDEM_OK;
    }
    return change(sync, peer, &record);
}

tandem_err tandem_remote_set(tandem_sync *sync, const char *name, const char *url)
{
    sync_call call = {.run = run_set, .name = name, .url = url};

    if (!sync || !name || !url)
        return TANDEM_E_INVALID;
    return call_loop(sync, &call);
}

tandem_err tandem_remote_pause(tandem_sync *sync, const char *name)
{
    sync_call call = {.run = run_set, .name = name, .flag = true};

    if (!sync || !name)
        return TANDEM_E_INVALID;
    return call_loop(sync, &call);
}

tandem_err tandem_remote_resume(tandem_sync *sync, const char *name)
{
    sync_call call = {.run = run_set, .name = name, .flag = false};

    if (!sync || !name)
        return TANDEM_E_INVALID;
    return call_loop(sync, &call);
}

static tandem_err run_remove(tandem_sync *sync, sync_call *call)
{
    td_peer *peer = find_remote(sync, call->name);
    tandem_err err;

    if (!peer)
        return TANDEM_E_NOT_FOUND;
    if ((err = td_sync_store_delete_remote(sync->store, call->name)) != TANDEM_OK)
        return err;
    peer->removed = true;
    td_channel_stop(peer->channel, TANDEM_OK, "the remote was removed");
    td_sync_tick_at(sync, 0);
    return TANDEM_OK;
}

tandem_err tandem_remote_remove(tandem_sync *sync, const char *name)
{
    sync_call call = {.run = run_remove, .name = name};

    if (!sync || !name)
        return TANDEM_E_INVALID;
    return call_loop(sync, &call);
}

static tandem_err run_poke(tandem_sync *sync, sync_call *call)
{
    if (call->name && !find_remote(sync, call->name))
        return TANDEM_E_NOT_FOUND;
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        if (peer->is_remote && (!call->name || !strcmp(peer->record.name, call->name)))
            td_channel_poke(peer->channel);
    td_sync_tick_at(sync, 0);
    return TANDEM_OK;
}

tandem_err tandem_remote_poke(tandem_sync *sync, const char *name)
{
    sync_call call = {.run = run_poke, .name = name};

    if (!sync)
        return TANDEM_E_INVALID;
    return call_loop(sync, &call);
}

/* ---- Listening ---- */

static bool is_loopback(const char *address)
{
    return !strncmp(address, "127.", 4) || !strcmp(address, "::1");
}

static tandem_err run_listen(tandem_sync *sync, sync_call *call)
{
    td_carrier *carrier = sync->memory;
    tandem_err err;

    if (sync->listener_url[0])
        return TANDEM_E_STATE;
    if (!carrier) {
        if (!is_loopback(call->name) && !call->flag)
            return TANDEM_E_INSECURE;
        if (!sync->websocket &&
            (err = td_websocket_carrier_open(sync->loop, &sync->websocket)) != TANDEM_OK)
            return err;
        carrier = sync->websocket;
    }
    if ((err = carrier->ops->listen(carrier, call->name, (uint16_t)call->number, accept_link, sync,
                                    sync->listener_url)) != TANDEM_OK) {
        sync->listener_url[0] = 0;
        return err;
    }
    strcpy(call->argument, sync->listener_url);
    return TANDEM_OK;
}

tandem_err tandem_listen(tandem_sync *sync, const char *address, uint16_t port, bool insecure,
                         char url_out[128])
{
    sync_call call = {
        .run = run_listen, .name = address, .number = port, .flag = insecure, .argument = url_out};

    if (!sync || !address || !url_out)
        return TANDEM_E_INVALID;
    return call_loop(sync, &call);
}

/* ---- Looking ---- */

typedef tandem_err (*visit_remote_fn)(void *context, const tandem_remote_status *status);

static tandem_err visit_peer(td_peer *peer, visit_remote_fn visit, void *context)
{
    td_peer *works = serving(peer);
    uint64_t retry_ms = peer->served_by ? 0 : td_channel_retry_at_ms(peer->channel);
    tandem_remote_status status = {
        .name = peer->is_remote ? peer->record.name : NULL,
        .url = peer->is_remote ? peer->record.url : NULL,
    };

    td_peer_refresh(peer);
    memcpy(status.reactor, works->reactor, sizeof(status.reactor));
    if (td_peer_is_open(works)) {
        const td_origin_cover *origin;

        retry_ms = td_sender_trouble(works, &origin) != TANDEM_OK ? origin->range.retry_at_ms : 0;
    }
    status.state = peer->state;
    status.reason = peer->reason;
    status.since_ms = peer->since_ms;
    if (retry_ms) {
        uint64_t now_ms = td_sync_now_ms(peer->sync);

        status.retry_at_ms =
            td_env_wall_ms(peer->sync->env) + (retry_ms > now_ms ? retry_ms - now_ms : 0);
    }
    status.lag_operations = works->coverage.lag;
    status.outbox = tandem_mailbox_jobs(td_channel_outbox(works->channel));
    status.inbox = tandem_mailbox_jobs(td_channel_inbox(works->channel));
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
    return visit(context, &status);
}

static bool stands_for_a_remote(const td_peer *peer)
{
    for (const td_peer *other = peer->sync->peers; other; other = other->next)
        if (other->served_by == peer)
            return true;
    return false;
}

static tandem_err run_remotes(tandem_sync *sync, sync_call *call)
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
    sync_call call = {.run = run_remotes, .argument = &visit, .context = context};

    if (!sync || !visit)
        return TANDEM_E_INVALID;
    return call_loop(sync, &call);
}

static tandem_err run_stat(tandem_sync *sync, sync_call *call)
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
    sync_call call = {.run = run_stat, .argument = out};

    if (!sync || !out)
        return TANDEM_E_INVALID;
    return call_loop(sync, &call);
}

typedef tandem_err (*visit_job_fn)(void *context, const tandem_job_status *status);

static tandem_err visit_box(td_peer *peer, tandem_mailbox *box, const char *name,
                            visit_job_fn visit, void *context)
{
    tandem_err err = TANDEM_OK;

    for (tandem_job_handle *h = tandem_mailbox_first(box); h && err == TANDEM_OK; h = h->next) {
        tandem_job_status status = {
            .id = h->id,
            .box = name,
            .remote = peer->is_remote ? peer->record.name : NULL,
            .status = tandem_job_state_name(h->status),
            .collection = h->collection,
            .document = h->document,
            .branch = h->branch,
            .origin = h->origin,
            .first_seq = h->first_seq,
            .last_seq = h->last_seq,
            .operations = h->operations,
            .bytes = h->bytes,
            .err = h->error,
        };

        err = visit(context, &status);
    }
    return err;
}

static tandem_err run_jobs(tandem_sync *sync, sync_call *call)
{
    visit_job_fn visit = *(visit_job_fn *)call->argument;
    tandem_err err = TANDEM_OK;

    for (td_peer *peer = sync->peers; peer && err == TANDEM_OK; peer = peer->next) {
        err = visit_box(peer, td_channel_outbox(peer->channel), "outbox", visit, call->context);
        if (err == TANDEM_OK)
            err = visit_box(peer, td_channel_inbox(peer->channel), "inbox", visit, call->context);
    }
    return err == TANDEM_END ? TANDEM_OK : err;
}

tandem_err tandem_job_handles(tandem_sync *sync, visit_job_fn visit, void *context)
{
    sync_call call = {.run = run_jobs, .argument = &visit, .context = context};

    if (!sync || !visit)
        return TANDEM_E_INVALID;
    return call_loop(sync, &call);
}

/* ---- Waiting ---- */

static tandem_err run_wait(tandem_sync *sync, sync_call *call)
{
    td_waiter *waiter = calloc(1, sizeof(*waiter));
    tandem_err err;

    if (!waiter)
        return TANDEM_E_NOMEM;
    if (call->name) {
        if (!find_remote(sync, call->name)) {
            free(waiter);
            return TANDEM_E_NOT_FOUND;
        }
        strcpy(waiter->name, call->name);
    }
    waiter->in_step = call->flag;
    waiter->reply = call->argument;
    td_reply_keep(waiter->reply);
    /* What was committed before the call must count, even if its event has not come yet. */
    look_at_commits(sync);
    LL_APPEND(sync->waiters, waiter);
    if ((err = outcome(sync, waiter)) != TANDEM_END)
        waiter_end(sync, waiter, err);
    return TANDEM_OK;
}

static tandem_err run_unwait(tandem_sync *sync, sync_call *call)
{
    td_waiter *waiter, *next;

    LL_FOREACH_SAFE(sync->waiters, waiter, next)
        if (waiter->reply == call->argument)
            waiter_end(sync, waiter, TANDEM_E_TIMEOUT);
    return TANDEM_OK;
}

struct tandem_barrier {
    tandem_sync *sync;
    td_reply *reply;
};

static tandem_err waiting_open(tandem_sync *sync, const char *name, bool in_step,
                               tandem_barrier **out)
{
    sync_call call = {.run = run_wait, .name = name, .flag = in_step};
    tandem_barrier *barrier;
    tandem_err err;

    if (!(barrier = calloc(1, sizeof(*barrier))))
        return TANDEM_E_NOMEM;
    barrier->sync = sync;
    if ((err = td_reply_open(sync->runtime, &barrier->reply)) != TANDEM_OK) {
        free(barrier);
        return err;
    }
    call.argument = barrier->reply;
    if ((err = call_loop(sync, &call)) != TANDEM_OK) {
        td_reply_free(barrier->reply);
        free(barrier);
        return err;
    }
    *out = barrier;
    return TANDEM_OK;
}

tandem_err tandem_barrier_open(tandem_sync *sync, const char *name, tandem_barrier **out)
{
    if (!sync || !name || !out)
        return TANDEM_E_INVALID;
    return waiting_open(sync, name, false, out);
}

tandem_err tandem_barrier_wait(tandem_barrier *barrier, uint64_t timeout_ms)
{
    td_host *loop = barrier->sync->loop;

    if (td_host_is_current(loop) || (td_host_fd(loop) >= 0 && timeout_ms > 0))
        return TANDEM_E_STATE; /* the loop that would bring the news is the caller's */
    return td_reply_wait(barrier->reply, timeout_ms);
}

void tandem_barrier_free(tandem_barrier *barrier)
{
    sync_call call = {.run = run_unwait};

    if (!barrier)
        return;
    call.argument = barrier->reply;
    call_loop(barrier->sync, &call);
    td_reply_free(barrier->reply);
    free(barrier);
}

static tandem_err wait_on(tandem_sync *sync, const char *name, bool in_step, uint64_t timeout_ms)
{
    tandem_barrier *barrier;
    tandem_err err;

    if ((err = waiting_open(sync, name, in_step, &barrier)) != TANDEM_OK)
        return err;
    err = tandem_barrier_wait(barrier, timeout_ms);
    tandem_barrier_free(barrier);
    return err;
}

tandem_err tandem_wait_covered(tandem_sync *sync, const char *name, uint64_t timeout_ms)
{
    if (!sync || !name)
        return TANDEM_E_INVALID;
    return wait_on(sync, name, false, timeout_ms);
}

tandem_err tandem_wait_in_step(tandem_sync *sync, const char *name, uint64_t timeout_ms)
{
    if (!sync)
        return TANDEM_E_INVALID;
    return wait_on(sync, name, true, timeout_ms);
}
