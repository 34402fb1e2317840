#include "sync/sync_manager.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include <utlist.h>

#include "store/probe.h"

static const td_retry_policy default_retry = TD_RETRY_POLICY_DEFAULT;

/* ---- Small things ---- */

uint64_t td_sync_now_ms(tandem_sync *sync)
{
    return td_env_monotonic_ms(sync->env);
}

static void lower(uint64_t *due_ms, uint64_t at_ms)
{
    if (at_ms < *due_ms)
        *due_ms = at_ms;
}

static void set_timer(tandem_sync *sync, uint64_t at_ms)
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

void td_sync_tick_at(tandem_sync *sync, uint64_t at_ms)
{
    lower(&sync->due_ms, at_ms);
    set_timer(sync, at_ms);
}

void td_peer_tick_at(td_peer *peer, uint64_t at_ms)
{
    lower(&peer->due_ms, at_ms);
    set_timer(peer->sync, at_ms);
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

/* ---- Peers ---- */

static uint64_t or_default(uint64_t value, uint64_t fallback)
{
    return value ? value : fallback;
}

td_retry_policy td_sync_retry_policy(const tandem_sync *sync, const td_kept_retry *kept)
{
    return (td_retry_policy){
        .base_ms = or_default(kept->base_ms, sync->options.retry_base_ms),
        .factor = or_default(kept->factor, default_retry.factor),
        .cap_ms = or_default(kept->cap_ms, sync->options.retry_cap_ms),
        .attempts_max = (uint32_t)or_default(kept->attempts, default_retry.attempts_max),
        .rest_ms = or_default(kept->rest_ms, default_retry.rest_ms),
        .budget = (uint32_t)or_default(kept->budget, default_retry.budget),
    };
}

/* What a later version, or nobody, has written is a long poll. */
td_poll_policy td_sync_poll_policy(const td_kept_poll *kept)
{
    td_poll_policy policy = {.mode = TD_POLL_LONG};

    if (kept->mode != TD_POLL_FIXED && kept->mode != TD_POLL_ADAPTIVE)
        return policy;
    policy.mode = (td_poll_mode)kept->mode;
    policy.mean_ms = or_default(kept->mean_ms, TD_POLL_MEAN_MS_DEFAULT);
    if (policy.mean_ms < TD_POLL_MEAN_MS_MIN)
        policy.mean_ms = TD_POLL_MEAN_MS_MIN;
    if (policy.mean_ms > TD_POLL_MEAN_MS_MAX)
        policy.mean_ms = TD_POLL_MEAN_MS_MAX;
    return policy;
}

static void peer_due(void *context, uint64_t at_ms)
{
    td_peer *peer = context;

    td_sync_tick_at(peer->sync, at_ms);
}

/* record: of a remote; NULL: it came in. */
static tandem_err peer_open(tandem_sync *sync, const td_remote_record *record, td_peer **out)
{
    static const td_remote_record by_default; /* and never used: who dialed dials again, and polls */
    td_channel_config config = {
        .env = sync->env,
        .window_jobs = sync->options.window_jobs,
        .window_bytes = sync->options.window_bytes,
        .retry = td_sync_retry_policy(sync, record ? &record->retry : &by_default.retry),
        .poll = td_sync_poll_policy(record ? &record->poll : &by_default.poll),
        .job_ids = &sync->dead.last_job_id,
        .pool = &sync->pool,
        .outboxes = &sync->outboxes,
        .source = &sync->source,
        .user = &td_peer_user,
        .closed = td_peer_closed,
        .due = peer_due,
    };
    td_peer *peer;
    tandem_err err;

    if (sync->peer_count >= TD_SYNC_PEERS_MAX)
        return TANDEM_E_LIMIT;
    if (!(peer = calloc(1, sizeof(*peer))))
        return TANDEM_E_NOMEM;
    peer->sync = sync;
    peer->copies.all_bytes = &sync->copies_bytes;
    peer->serial = ++sync->peers_opened;
    peer->since_ms = td_env_wall_ms(sync->env);
    config.context = peer;
    if ((err = td_channel_open(&config, &peer->channel)) != TANDEM_OK) {
        free(peer);
        return err;
    }
    td_jobs_observe(peer);
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
    td_dead_letters_forget(peer);
    td_jobs_forget(peer);
    DL_DELETE(sync->peers, peer);
    sync->peer_count--;
    td_coverage_release(&peer->coverage);
    td_channel_free(peer->channel);
    td_peer_forget_shares(peer);
    td_remote_take_back_shares(peer);
    free(peer->share_bytes);
    assert(!peer->copies.bytes);
    free(peer);
}

static tandem_err open_carrier(tandem_sync *sync, bool http, td_carrier **out)
{
    td_carrier **carrier = http ? &sync->http : &sync->websocket;
    tandem_err err = TANDEM_OK;

    if (!*carrier)
        err = (http ? td_http_carrier_open : td_websocket_carrier_open)(sync->loop, carrier);
    *out = *carrier;
    return err;
}

/* Within the process: of messages, or of exchanges. */
static tandem_err memory_carrier(tandem_sync *sync, bool exchanges, td_carrier **out)
{
    tandem_err err = TANDEM_OK;

    if (!sync->memory)
        return TANDEM_E_UNSUPPORTED;
    if (exchanges && !sync->exchanges)
        err = td_exchange_carrier_open(sync->loop, sync->memory, &sync->exchanges);
    *out = exchanges ? sync->exchanges : sync->memory;
    return err;
}

tandem_err td_sync_carrier(tandem_sync *sync, const char *url, td_carrier **out)
{
    bool http = !strncasecmp(url, "http:", 5);
    tandem_err err;

    if (!strncmp(url, "mem://", 6)) {
        if ((err = memory_carrier(sync, strchr(url + 6, '/'), out)) != TANDEM_OK)
            return err;
        return (*out)->ops->check(url);
    }
    if ((err = http ? td_http_url_check(url) : td_url_check(url)) != TANDEM_OK)
        return err;
    if (!td_host_loop(sync->loop))
        return TANDEM_E_UNSUPPORTED; /* the simulation has no sockets */
    return open_carrier(sync, http, out);
}

tandem_err td_peer_start(td_peer *peer)
{
    td_carrier *carrier;
    tandem_err err;

    peer->start_at_ms = 0;
    if (peer->sync->options.offline || peer->record.paused || peer->removed)
        return TANDEM_OK;
    err = td_sync_carrier(peer->sync, peer->record.url, &carrier);
    if (err == TANDEM_OK)
        err = td_channel_start(peer->channel, carrier, peer->record.url);
    if (tandem_err_is_transient(err))
        peer->start_at_ms = td_sync_now_ms(peer->sync) + TD_START_AGAIN_MS;
    if (err == TANDEM_OK || peer->start_at_ms)
        td_peer_tick_at(peer, peer->start_at_ms);
    return err;
}

tandem_err td_remote_open(tandem_sync *sync, const td_remote_record *record)
{
    td_peer *peer;
    tandem_err err;

    if ((err = peer_open(sync, record, &peer)) != TANDEM_OK)
        return err;
    peer->record = *record;
    if ((err = td_remote_copy_share(&peer->record.share, &peer->share_bytes)) != TANDEM_OK) {
        peer_free(peer);
        return err;
    }
    peer->is_remote = true;
    peer->held = record->held;
    if ((err = td_peer_start(peer)) != TANDEM_OK) {
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
    if (sync->peer_count >= TD_SYNC_PEERS_MAX - TD_SYNC_REMOTES_KEPT)
        return TANDEM_E_LIMIT;
    if ((err = peer_open(sync, NULL, &peer)) != TANDEM_OK)
        return err;
    td_sync_tick_at(sync, 0); /* where there was no peer, time was not looked at */
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
            td_remote_keep_held(peer);
            td_peer_start(peer);
            continue;
        }
        if (td_channel_is_linked(peer->channel) || peer->last_err != TANDEM_E_DUPLICATE_SESSION)
            continue;
        for (td_peer *other = sync->peers; other; other = other->next)
            if (other != peer && td_peer_is_open(other) &&
                !memcmp(other->reactor, peer->reactor, TANDEM_ORIGIN_BYTES)) {
                td_probe(sync->env, TD_PROBE_SERVED_BY_INBOUND);
                peer->served_by = other;
                other->letters.changes = 0; /* the remote's are its own */
                td_channel_stop(peer->channel, TANDEM_OK, "");
                td_sender_leave(peer);
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

/* names: of what has grown. */
static void keep_fresh(tandem_sync *sync, uint64_t position, const tandem_writer *names)
{
    if (sync->peer_count < TD_FRESH_PEERS) {
        td_fresh_release(&sync->fresh);
        return;
    }
    td_fresh_begin(&sync->fresh, sync->seen_position, position);
    for (size_t at = 0; at < names->size;) {
        tandem_slice name = tandem_slice_text((const char *)names->bytes + at);

        td_fresh_add(&sync->fresh, sync->ops, name);
        at += name.size + 1;
    }
    td_fresh_end(&sync->fresh);
}

void td_sync_look_at_commits(tandem_sync *sync)
{
    uint64_t position = td_executor_position(sync->executor);
    struct grown grown = {.seen = sync->seen_position};
    unsigned lack_changes = td_op_store_lack_changes(sync->ops);

    if (position <= sync->seen_position)
        return;
    tandem_writer_init(&grown.names);
    if (td_op_store_collections(sync->ops, tandem_slice_of(NULL, 0), note_grown, &grown) ==
        TANDEM_OK) {
        keep_fresh(sync, position, &grown.names);
        sync->seen_position = position;
        for (size_t at = 0; at < grown.names.size;) {
            tandem_slice name = tandem_slice_text((const char *)grown.names.bytes + at);

            collection_grew(sync, name);
            if (lack_changes != sync->seen_lack_changes)
                td_wants_look(sync, name);
            at += name.size + 1;
        }
    }
    tandem_writer_release(&grown.names);
    sync->seen_lack_changes = lack_changes;
    for (td_peer *peer = sync->peers; peer; peer = peer->next) {
        td_sender_fill(peer);
        td_peer_refresh(peer);
    }
    sync->looked_ms = td_sync_now_ms(sync);
}

/*
 * What is committed goes to every peer in a message of its own, and there to a commit of its own. Where
 * there are many peers, that costs all of them more than the operations do: so the more there are, the
 * longer commits are gathered. A few get each at once.
 */
static void look_when_gathered(tandem_sync *sync)
{
    uint64_t due_ms = sync->looked_ms + sync->peer_count / TD_GATHER_PEERS;

    if (td_executor_position(sync->executor) <= sync->seen_position)
        return;
    if (td_sync_now_ms(sync) >= due_ms)
        td_sync_look_at_commits(sync);
    else
        set_timer(sync, due_ms);
}

static void committed(void *context, uint64_t position)
{
    tandem_sync *sync = context;

    (void)position;
    if (!sync->closing)
        look_when_gathered(sync);
}

static void happened(void *context, const tandem_event *event)
{
    tandem_sync *sync = context;

    if (sync->closing)
        return;
    if (event->kind == TANDEM_EVENT_INCARNATION)
        td_copies_reincarnated(sync);
    if (event->kind == TANDEM_EVENT_WITHDRAWAL)
        for (td_peer *peer = sync->peers; peer; peer = peer->next)
            td_peer_withdrawn(peer);
}

/* ---- Time ---- */

static uint64_t tick_peer(td_peer *peer, uint64_t now_ms)
{
    uint64_t due_ms, sender_ms, letters_ms;

    if (peer->start_at_ms && now_ms >= peer->start_at_ms)
        td_peer_start(peer);
    due_ms = td_channel_tick(peer->channel, now_ms);
    letters_ms = td_dead_letters_tick(peer, now_ms);
    due_ms = letters_ms < due_ms ? letters_ms : due_ms;
    if (!td_peer_is_open(peer)) {
        td_peer_refresh(peer);
        return peer->start_at_ms && peer->start_at_ms < due_ms ? peer->start_at_ms : due_ms;
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

/* Freeing a carrier turns the loop, and with it this very actor: it must not find itself here again. */
static void free_carriers(tandem_sync *sync)
{
    td_carrier *websocket = sync->websocket, *http = sync->http, *memory = sync->memory;
    td_carrier *exchanges = sync->exchanges;

    sync->websocket = sync->http = sync->memory = sync->exchanges = NULL;
    sync->freeing = true;
    /* What dials first: nobody is to open sockets while libwebsockets goes, see transport/network.c.
     * The HTTP carrier itself last: links that the other's listener accepted are its own. */
    if (http)
        td_http_carrier_end_dialing(http);
    if (websocket)
        websocket->ops->free(websocket);
    if (http)
        http->ops->free(http);
    if (memory)
        memory->ops->free(memory);
    if (exchanges)
        exchanges->ops->free(exchanges);
    sync->freeing = false;
}

/* Links are given some time to say goodbye; then what is left of them is cut. The peers stay until
 * the executor has given back what they delivered. */
static void look_at_closing(tandem_sync *sync, uint64_t now_ms)
{
    bool linked = false;

    if (sync->freeing)
        return;
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        linked = linked || td_channel_is_linked(peer->channel);
    if (linked && now_ms < sync->watch_at_ms) {
        td_sync_tick_at(sync, sync->watch_at_ms);
        return;
    }
    free_carriers(sync);
    if (sync->deliveries)
        td_executor_give_up(sync->executor);
    if (sync->deliveries == 0 && sync->closed) {
        td_reply_set(sync->closed, TANDEM_OK);
        sync->closed = NULL;
    }
}

static void tick(tandem_sync *sync)
{
    uint64_t now_ms = td_sync_now_ms(sync), due_ms = UINT64_MAX;
    bool watch = now_ms >= sync->watch_at_ms, all = watch || now_ms >= sync->due_ms;

    if (sync->closing) {
        look_at_closing(sync, now_ms);
        return;
    }
    if (all)
        sync->due_ms = UINT64_MAX; /* what happens now may set it, and those of the peers */
    look_at_duplicates(sync);
    sweep(sync);
    look_when_gathered(sync);
    for (td_peer *peer = sync->peers; peer; peer = peer->next) {
        if (all || now_ms >= peer->due_ms) {
            peer->due_ms = UINT64_MAX;
            lower(&peer->due_ms, tick_peer(peer, now_ms));
        }
        lower(&due_ms, peer->due_ms);
    }
    td_dead_letters_reserve_ids(sync, now_ms);
    if (watch) {
        td_puller_tick(sync, now_ms);
        for (td_peer *peer = sync->peers; peer; peer = peer->next)
            td_peer_look_at_progress(peer);
        sync->watch_at_ms = now_ms + TD_WATCH_MS;
    }
    td_sync_check_waiters(sync);
    lower(&due_ms, sync->due_ms);
    if (sync->peers)
        lower(&due_ms, sync->watch_at_ms);
    if (due_ms != UINT64_MAX)
        set_timer(sync, due_ms > now_ms ? due_ms : now_ms + 1);
}

/* ---- The actor ---- */

static void drop_nothing(td_message *message)
{
    (void)message;
}

static void drop_call(td_message *message)
{
    td_reply_set(((td_sync_call *)message)->reply, TANDEM_E_CLOSED);
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
    case TD_SYNC_RECORDED:
        td_wants_recorded(sync, message);
        if (sync->closing)
            td_sync_tick_at(sync, 0);
        break;
    case TD_SYNC_CALL: {
        td_sync_call *call = (td_sync_call *)message;
        td_reply *reply = call->reply;

        td_reply_set(reply, call->run(sync, call));
        break;
    }
    default:
        assert(false && "a message of the sync manager's");
    }
}

static const td_actor_ops sync_ops = {.name = "sync", .handle = handle};

static tandem_err run_here(tandem_sync *sync, td_sync_call *call)
{
    return sync->telling && !call->looks ? TANDEM_E_STATE : call->run(sync, call);
}

/* A driven loop is run from here. */
tandem_err td_sync_call_with(tandem_sync *sync, td_sync_call *call, td_reply *reply)
{
    tandem_err err;

    if (td_host_is_current(sync->loop))
        return run_here(sync, call);
    call->reply = reply;
    call->message = (td_message){.kind = TD_SYNC_CALL, .drop = drop_call};
    td_actor_post(sync->actor, &call->message);
    if (td_host_fd(sync->loop) >= 0)
        while ((err = td_reply_wait(reply, 0)) == TANDEM_E_TIMEOUT)
            td_host_poll(sync->loop);
    else
        err = td_reply_wait(reply, UINT64_MAX);
    return err;
}

tandem_err td_sync_call_loop(tandem_sync *sync, td_sync_call *call)
{
    td_reply *reply;
    tandem_err err;

    if (td_host_is_current(sync->loop))
        return run_here(sync, call);
    if ((err = td_reply_open(sync->runtime, &reply)) != TANDEM_OK)
        return err;
    err = td_sync_call_with(sync, call, reply);
    td_reply_free(reply);
    return err;
}

/* ---- Opening and closing ---- */

static tandem_err open_remote(void *context, const td_remote_record *record)
{
    return td_remote_open(context, record);
}

static tandem_err begin(tandem_sync *sync, td_sync_call *call)
{
    tandem_err err;

    (void)call;
    if ((err = td_dead_letters_load(sync)) != TANDEM_OK)
        return err;
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
        sync->options.window_jobs = 8192;
    if (!sync->options.retry_base_ms)
        sync->options.retry_base_ms = default_retry.base_ms;
    if (!sync->options.retry_cap_ms)
        sync->options.retry_cap_ms = default_retry.cap_ms;
    sync->asks_max = TD_ASKS_MAX;
    sync->ranges_least = TD_RANGES_LEAST;
    sync->outboxes.limit_jobs = TD_OUTBOX_JOBS_MAX;
    sync->pool.limit_bytes =
        sync->options.pool_bytes ? sync->options.pool_bytes : 32 * 1024 * 1024;
}

/* Free what the actor stood on; nothing of it runs any more. */
static void sync_free(tandem_sync *sync)
{
    td_actor_free(sync->actor);
    td_sync_end_waiters(sync);
    td_jobs_end(sync);
    while (sync->peers)
        peer_free(sync->peers);
    assert(!sync->copies_bytes && !sync->pool.parsed);
    td_dead_letters_release(sync);
    td_sync_forget_digests(sync);
    td_fresh_release(&sync->fresh);
    td_sync_store_free(sync->store);
    td_packer_free(sync->pool.packer);
    free(sync->corrupt);
    for (unsigned i = 0; i < 3; i++)
        td_reply_free(sync->farewell[i]);
    td_reactor_detach(sync->reactor);
    free(sync);
}

tandem_err td_sync_open_on(tandem_reactor *reactor, const tandem_sync_options *options,
                           td_carrier *memory, tandem_sync **out)
{
    tandem_sync *sync;
    td_sync_call call = {.run = begin};
    td_subscriber subscriber = {.committed = committed, .happened = happened};
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
    subscriber.context = sync;
    sync->source = (td_job_source){.read = td_sender_read, .context = sync};
    sync->tick = (td_message){.kind = TD_SYNC_TICK, .drop = drop_nothing};
    snprintf(sync->agent, sizeof(sync->agent), "tandem %s", tandem_version());
    fill_options(sync, options);
    td_copies_init(sync);
    if ((err = td_packer_open(&sync->pool.packer)) != TANDEM_OK ||
        (err = td_reactor_open_sync_store(reactor, td_sync_store_tables,
                                          td_sync_store_table_count, &store)) != TANDEM_OK ||
        (err = td_sync_store_open(sync->env, store, &sync->store)) != TANDEM_OK)
        goto fail;
    for (unsigned i = 0; i < 3; i++)
        if ((err = td_reply_open(sync->runtime, &sync->farewell[i])) != TANDEM_OK)
            goto fail;
    if ((err = td_actor_open(sync->loop, &sync_ops, sync, &sync->actor)) != TANDEM_OK)
        goto fail;
    if ((err = td_sync_call_loop(sync, &call)) != TANDEM_OK ||
        (err = td_event_bus_subscribe(td_reactor_bus(reactor), &subscriber,
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
static tandem_err end(tandem_sync *sync, td_sync_call *call)
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
    td_sync_call call = {.run = end};
    td_reply *asked, *ended, *freed;
    td_host *loop;

    if (!sync)
        return;
    loop = sync->loop;
    td_event_bus_unsubscribe(sync->subscription);
    asked = sync->farewell[0];
    ended = sync->farewell[1];
    freed = sync->farewell[2];
    memset(sync->farewell, 0, sizeof(sync->farewell));
    call.argument = ended;
    td_sync_call_with(sync, &call, asked);
    td_reply_free(asked);
    wait_for(loop, ended);
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

/* ---- Listening ---- */

static bool is_loopback(const char *address)
{
    return !strncmp(address, "127.", 4) || !strcmp(address, "::1");
}

/* One listener serves WebSocket and HTTP. */
static tandem_err open_listeners(tandem_sync *sync, td_carrier **out)
{
    td_carrier *http;
    tandem_err err;

    if ((err = open_carrier(sync, false, out)) != TANDEM_OK ||
        (err = open_carrier(sync, true, &http)) != TANDEM_OK)
        return err;
    td_http_carrier_serve(http, td_websocket_carrier_network(*out), accept_link, sync);
    return TANDEM_OK;
}

static tandem_err run_listen(tandem_sync *sync, td_sync_call *call)
{
    td_carrier *carrier = sync->memory, *exchanges;
    char unused[128];
    tandem_err err;

    if (sync->listener_url[0])
        return TANDEM_E_STATE;
    if (carrier) {
        if ((err = memory_carrier(sync, true, &exchanges)) != TANDEM_OK ||
            (err = exchanges->ops->listen(exchanges, "", 0, accept_link, sync, unused)) !=
                TANDEM_OK)
            return err;
    } else {
        if (!is_loopback(call->name) && !call->flag)
            return TANDEM_E_INSECURE;
        if ((err = open_listeners(sync, &carrier)) != TANDEM_OK)
            return err;
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
    td_sync_call call = {
        .run = run_listen, .name = address, .number = port, .flag = insecure, .argument = url_out};

    if (!sync || !address || !url_out)
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}
