/*
 * The conformance suite of channels: two reactors' ends, each with a fake sync manager and a fake
 * store, joined over one backend: `memory` or `exchange` (on the simulation), `websocket` or `http`
 * (a driven loop, real sockets on loopback); the latter of each two also polled, without long poll.
 * Every test runs on all; faults that only memory has to offer come last.
 *
 * Each sentence of DESIGN.md, section 7, has its test: here if it takes a channel, in
 * session_test.c if it takes a session alone, in mailbox_test.c, job_handle_test.c and retry_test.c
 * if less.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#include "channel/channel.h"
#include "job_maker.h"
#include "stepped_clock.h"

enum { MEMORY, WEBSOCKET, HTTP, EXCHANGE, BACKENDS };
enum { POLL_MS = 100 };

enum {
    DEADLINE_MS = 60 * 1000,             /* of a real clock */
    DEADLINE_VIRTUAL_MS = 24 * 3600 * 1000,
    STEP_MS = 10,
    ORIGINS_MAX = 4,
    WINDOW_JOBS = 64,
    WINDOW_BYTES = 4 << 20,
    POLICY_ATTEMPTS = 4,
    SILENCE_MS = 30 * 1000,
    SILENCE_MS_MAX = 38 * 1000, /* libcurl measures a speed over some seconds */
    ATTEMPT_MS_MAX = 16 * 1000, /* carriers say 10 s; above them it is 15 */
    PROXY_PAIRS_MAX = 8,
    TRICKLE_TURNS = 100,
};

struct fixture;
struct node;

/* What a node holds of an origin. */
struct held {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t seq;
};

/* One end of a channel, and what its user saw. */
struct end {
    struct node *node;
    tandem_channel *channel;
    struct end *prev, *next;
    bool accepted, closed_for_good;
    bool announced; /* in this session */
    struct held peer[ORIGINS_MAX];
    unsigned sessions, hellos_said, closed, peer_errors;
    tandem_err closed_err, peer_err;
    unsigned applied, failed;
    tandem_err last_failed;
    uint64_t last_detail;
    tandem_job_handle *stays; /* what was refused for good, if its user keeps that */
    bool keeps;
    bool order_broken; /* a handle moved in a way that it must not */
    uint32_t inbox_peak;
    unsigned deliveries;
};

struct node {
    struct fixture *f;
    const char *name;
    td_runtime *runtime;
    td_host *host;
    td_carrier *carrier;
    td_carrier *inner; /* of the exchange carrier */
    char url[128];
    uint16_t port; /* of a listener on sockets: it comes back at the same place */
    /* How its channels are. */
    td_pool pool;
    uint64_t pool_peak;
    uint32_t window_jobs;
    uint64_t window_bytes;
    td_retry_policy retry;
    /* What its user does. */
    bool executes; /* deliveries are given back as they come */
    tandem_err refuse_link, refuse_have;
    uint64_t floor_ms; /* asked for when the peer ends a session */
    tandem_err peer_err; /* what it said then, last */
    tandem_err accepted_err; /* why the last channel that it accepted was closed */
    uint8_t not_now[TANDEM_ORIGIN_BYTES]; /* of this origin nothing is taken: TANDEM_E_CLOCK */
    uint8_t never[TANDEM_ORIGIN_BYTES];   /* nor of this one: TANDEM_E_REFUSED */
    /* What it has. */
    struct end *ends;
    td_remote_request *requests; /* for its executor */
    struct held held[ORIGINS_MAX];
    unsigned jobs_stored, jobs_seen_twice, jobs_without_predecessor;
};

/*
 * Between two sockets: forwards so many bytes towards b, then drops the connections. It has b's port
 * at another address of loopback, because b lets in only who calls it by its port.
 */
struct proxy {
    int listener;
    struct {
        int near, far; /* -1: none */
    } pairs[PROXY_PAIRS_MAX];
    uint16_t port;
    uint64_t left;
    bool mute;     /* nothing gets through, and nobody is told */
    bool trickles; /* what comes from b comes a byte at a time */
    unsigned turns;
};

struct fixture {
    td_simulation *simulation;
    td_memory_network *network;
    struct node a, b; /* a dials, b listens */
    struct proxy proxy;
    bool steps; /* each turn is so much later, and no time is waited for */
    struct batch batch;
    struct chain chains[ORIGINS_MAX];
};

static int backend;
static bool polls; /* long poll is off */

static bool is_simulated(void)
{
    return backend == MEMORY || backend == EXCHANGE;
}

/* ---- The fake store ---- */

static struct held *held_of(struct held *list, const uint8_t *origin)
{
    static const uint8_t nobody[TANDEM_ORIGIN_BYTES];

    for (unsigned i = 0; i < ORIGINS_MAX; i++) {
        if (!memcmp(list[i].origin, nobody, sizeof(nobody)))
            memcpy(list[i].origin, origin, sizeof(nobody));
        if (!memcmp(list[i].origin, origin, sizeof(nobody)))
            return &list[i];
    }
    fail_msg("more origins than the fake store has room for");
    return NULL;
}

/* Store one job as the executor would. It must be whole: that is what channels promise. */
static tandem_err store_job(struct node *node, td_remote_job *job)
{
    tandem_reader reader = tandem_reader_of(job->operations);
    struct held *held = NULL;
    uint64_t first = 0, last = 0;

    for (uint32_t i = 0; i < job->count; i++) {
        td_operation operation;
        tandem_slice canonical;

        assert_int_equal(TANDEM_OK, tandem_read_binary(&reader, &canonical));
        assert_int_equal(TANDEM_OK, td_operation_parse(canonical, &operation));
        assert_int_equal(i + 1 < job->count, operation.flags & TD_FLAG_CONTINUES);
        held = held_of(node->held, operation.origin);
        first = i == 0 ? operation.seq : first;
        last = operation.seq;
        assert_int_equal(first + i, last);
    }
    assert_int_equal(0, tandem_reader_left(&reader));
    if (!memcmp(held->origin, node->not_now, TANDEM_ORIGIN_BYTES)) {
        job->detail = 77;
        return TANDEM_E_CLOCK;
    }
    if (!memcmp(held->origin, node->never, TANDEM_ORIGIN_BYTES))
        return TANDEM_E_REFUSED;
    if (last <= held->seq) {
        node->jobs_seen_twice++;
        return TANDEM_OK;
    }
    if (first != held->seq + 1) {
        node->jobs_without_predecessor++;
        return TANDEM_E_PREDECESSOR;
    }
    held->seq = last;
    node->jobs_stored++;
    return TANDEM_OK;
}

/* Execute what was delivered first, and give it back. stored: as an executor that runs. */
static void give_back(struct node *node, bool stored)
{
    td_remote_request *request = node->requests;
    td_delivery *delivery = (td_delivery *)request;

    LL_DELETE(node->requests, request);
    for (uint32_t i = 0; i < request->count; i++)
        request->jobs[i].err = stored ? store_job(node, &request->jobs[i]) : TANDEM_E_CLOSED;
    ((struct end *)delivery->user)->deliveries--;
    td_session_delivered(delivery);
}

static void give_all_back(struct node *node)
{
    while (node->requests)
        give_back(node, true);
}

/* ---- The fake sync manager ---- */

static void user_hello(void *context, td_wire_hello *out)
{
    struct end *end = context;

    memset(out->reactor, end->node->name[0], sizeof(out->reactor));
    memset(out->origin, end->node->name[0], sizeof(out->origin));
    out->agent = tandem_slice_text(end->node->name);
    end->hellos_said++;
    end->announced = false;
}

static tandem_err user_peer_hello(void *context, const td_wire_hello *hello)
{
    struct end *end = context;

    assert_int_not_equal(end->node->name[0], hello->reactor[0]);
    end->sessions++;
    memset(end->peer, 0, sizeof(end->peer));
    return TANDEM_OK;
}

/* One HAVE a session: all that is held. Hashes are nobody's business here. */
static tandem_err user_announce(void *context, uint64_t number, tandem_writer *out)
{
    struct end *end = context;
    size_t entries_at, origins_at;
    uint32_t count = 0;

    if (end->announced)
        return TANDEM_END;
    end->announced = true;
    entries_at = td_wire_begin_have(out, number, 1, 1, TD_HAVE_VECTORS, NULL);
    origins_at = td_wire_begin_vector(out, tandem_slice_text("notes"), true, NULL);
    for (unsigned i = 0; i < ORIGINS_MAX; i++) {
        td_head head = {.seq = end->node->held[i].seq};

        if (head.seq) {
            td_wire_write_origin(out, end->node->held[i].origin, &head, 1);
            count++;
        }
    }
    td_wire_patch_count(out, origins_at, count);
    td_wire_end_vector(out);
    td_wire_patch_count(out, entries_at, 1);
    return TANDEM_OK;
}

/* What waited since the last session: applied if the peer announced it, else sent again. */
static void settle(struct end *end)
{
    tandem_mailbox *outbox = td_channel_outbox(end->channel);
    tandem_job_handle *handle, *next;

    for (handle = tandem_mailbox_first(outbox); handle; handle = next) {
        next = handle->next;
        if (!handle->waiting || handle == end->stays)
            continue;
        handle->waiting = false;
        if (handle->last_seq > held_of(end->peer, handle->origin)->seq)
            continue;
        tandem_job_handle_transported(handle);
        tandem_job_handle_executed(handle);
        tandem_mailbox_remove(outbox, handle);
        tandem_job_handle_free(handle);
        end->applied++;
    }
}

static tandem_err user_peer_have(void *context, const td_wire_have *have)
{
    struct end *end = context;
    tandem_reader entries = have->entries;
    td_wire_vector vector;

    if (end->node->refuse_have != TANDEM_OK)
        return end->node->refuse_have;
    if (have->entry_count == 0)
        return TANDEM_OK; /* a heartbeat */
    assert_int_equal(TANDEM_OK, td_wire_read_vector(&entries, &vector));
    for (uint32_t i = 0; i < vector.origin_count; i++) {
        td_wire_origin origin;

        assert_int_equal(TANDEM_OK, td_wire_read_origin(&vector.origins, &origin));
        held_of(end->peer, origin.origin)->seq = origin.heads[0].seq;
    }
    settle(end);
    return TANDEM_OK;
}

static tandem_err user_peer_pull(void *context, const td_wire_pull *pull)
{
    return TANDEM_OK;
}

static void user_heartbeat(void *context, uint64_t number, tandem_writer *out)
{
    td_wire_patch_count(out, td_wire_begin_have(out, number, 1, 1, TD_HAVE_VECTORS, NULL), 0);
}

static void user_deliver(void *context, td_delivery *delivery)
{
    struct end *end = context;
    uint32_t jobs = tandem_mailbox_jobs(td_channel_inbox(end->channel));

    delivery->user = end;
    end->deliveries++;
    LL_APPEND(end->node->requests, &delivery->request);
    end->inbox_peak = jobs > end->inbox_peak ? jobs : end->inbox_peak;
    if (end->node->pool.used_bytes > end->node->pool_peak)
        end->node->pool_peak = end->node->pool.used_bytes;
}

static bool user_stays(void *context, tandem_job_handle *handle)
{
    struct end *end = context;

    if (!end->keeps || handle->error != TANDEM_E_REFUSED)
        return false;
    assert_null(end->stays);
    end->stays = handle;
    return true;
}

static void user_finished(void *context, tandem_job_handle *handle, uint64_t detail)
{
    struct end *end = context;

    if (handle->status == TANDEM_JOB_APPLIED) {
        end->applied++;
        return;
    }
    assert_int_equal(TANDEM_JOB_ERROR, handle->status);
    end->failed++;
    end->last_failed = handle->error;
    end->last_detail = detail;
}

static void user_peer_error(void *context, const td_wire_error *error)
{
    struct end *end = context;

    end->peer_errors++;
    end->peer_err = end->node->peer_err = (tandem_err)error->err;
    if (end->node->floor_ms)
        td_channel_retry_floor(end->channel, end->node->floor_ms);
}

static void on_closed(void *context, tandem_err err, const char *text)
{
    struct end *end = context;

    assert_non_null(text);
    assert_null(td_channel_session(end->channel));
    assert_false(end->closed_for_good);
    end->closed++;
    end->closed_err = err;
    end->closed_for_good = end->accepted;
    if (end->accepted)
        end->node->accepted_err = err;
}

static const td_session_user user = {
    .hello = user_hello,
    .peer_hello = user_peer_hello,
    .peer_have = user_peer_have,
    .peer_pull = user_peer_pull,
    .announce = user_announce,
    .heartbeat = user_heartbeat,
    .deliver = user_deliver,
    .stays = user_stays,
    .finished = user_finished,
    .peer_error = user_peer_error,
};

/* Status of a handle goes up one step at a time, whatever becomes of links. */
static void on_change(void *context, tandem_job_handle *handle, tandem_job_state from,
                      tandem_job_state to)
{
    struct end *end = context;

    if (to != from + 1 && to != TANDEM_JOB_ERROR)
        end->order_broken = true;
}

static void on_added(void *context, tandem_job_handle *handle)
{
    tandem_job_handle_on(handle, on_change, context);
}

/* ---- Nodes ---- */

static uint64_t now_ms(struct node *node)
{
    return td_env_monotonic_ms(node->runtime->env);
}

/* Time is looked at in every turn. */
static void on_due(void *context, uint64_t at_ms)
{
    (void)context;
    (void)at_ms;
}

static struct end *end_open(struct node *node)
{
    struct end *end = calloc(1, sizeof(*end));
    td_channel_config config = {
        .env = node->runtime->env,
        .window_jobs = node->window_jobs,
        .window_bytes = node->window_bytes,
        .retry = node->retry,
        .poll = {.mode = polls ? TD_POLL_FIXED : TD_POLL_LONG, .mean_ms = polls ? POLL_MS : 0},
        .pool = &node->pool,
        .user = &user,
        .closed = on_closed,
        .due = on_due,
        .context = end,
    };

    assert_non_null(end);
    end->node = node;
    assert_int_equal(TANDEM_OK, td_channel_open(&config, &end->channel));
    assert_int_equal(TANDEM_OK, tandem_mailbox_subscribe(td_channel_outbox(end->channel), on_added,
                                                         NULL, end));
    DL_APPEND(node->ends, end);
    return end;
}

static void end_free(struct end *end)
{
    assert_false(end->order_broken);
    DL_DELETE(end->node->ends, end);
    td_channel_free(end->channel);
    free(end);
}

static tandem_err on_accept(void *context, td_link *link, const td_connection_events **events_out,
                            void **context_out)
{
    struct node *node = context;
    struct end *end;

    if (node->refuse_link != TANDEM_OK)
        return node->refuse_link;
    end = end_open(node);
    end->accepted = true;
    return td_channel_accept(end->channel, link, events_out, context_out);
}

static void node_open(struct node *node, struct fixture *f, const char *name)
{
    node->f = f;
    node->name = name;
    node->pool.limit_bytes = UINT64_MAX;
    node->window_jobs = WINDOW_JOBS;
    node->window_bytes = WINDOW_BYTES;
    node->retry = (td_retry_policy){.base_ms = 5, .factor = 2, .cap_ms = 20,
                                    .attempts_max = POLICY_ATTEMPTS, .rest_ms = 40};
    node->executes = true;
    if (is_simulated())
        assert_int_equal(TANDEM_OK, td_simulation_runtime(f->simulation, name, 0, &node->runtime));
    else
        assert_int_equal(TANDEM_OK, td_threads_open(true, NULL, NULL, TANDEM_LOG_ERROR,
                                                    &node->runtime));
}

static void exchange_start(struct node *node)
{
    assert_int_equal(TANDEM_OK, td_memory_carrier_open(node->f->network, node->host, node->name,
                                                       &node->inner));
    assert_int_equal(TANDEM_OK,
                     td_exchange_carrier_open(node->host, node->inner, &node->carrier));
}

static void node_start(struct node *node)
{
    assert_int_equal(TANDEM_OK, td_host_open(node->runtime, TD_HOST_LOOP, "loop", &node->host));
    if (backend == MEMORY)
        assert_int_equal(TANDEM_OK, td_memory_carrier_open(node->f->network, node->host, node->name,
                                                           &node->carrier));
    else if (backend == EXCHANGE)
        exchange_start(node);
    else if (backend == WEBSOCKET)
        assert_int_equal(TANDEM_OK, td_websocket_carrier_open(node->host, &node->carrier));
    else
        assert_int_equal(TANDEM_OK, td_http_carrier_open(node->host, &node->carrier));
}

static void node_listen(struct node *node)
{
    assert_int_equal(TANDEM_OK,
                     node->carrier->ops->listen(node->carrier, "127.0.0.2", node->port, on_accept,
                                                node, node->url));
    if (!is_simulated())
        node->port = (uint16_t)atoi(strrchr(node->url, ':') + 1);
}

/* As a process that is killed: what it had not stored is gone. Its dialing channels are not. */
static void node_kill(struct node *node)
{
    struct end *end, *next;

    td_host_stop(node->host);
    while (node->requests)
        give_back(node, false);
    if (node->inner)
        node->inner->ops->free(node->inner);
    node->carrier->ops->free(node->carrier);
    node->carrier = node->inner = NULL;
    DL_FOREACH_SAFE(node->ends, end, next)
    {
        assert_false(td_channel_is_linked(end->channel));
        if (end->accepted)
            end_free(end);
    }
    td_host_free(node->host);
    node->host = NULL;
}

static void node_release(struct node *node)
{
    if (node->host)
        node_kill(node);
    while (node->ends)
        end_free(node->ends);
    assert_int_equal(0, node->pool.used_bytes);
    td_runtime_free(node->runtime);
}

/* What its user does now and then: ticks, executes, sweeps what is over. */
static uint64_t node_turn(struct node *node)
{
    uint64_t due_ms = UINT64_MAX;
    struct end *end, *next;

    while (node->executes && node->requests)
        give_back(node, true);
    DL_FOREACH_SAFE(node->ends, end, next)
    {
        uint64_t end_ms = td_channel_tick(end->channel, now_ms(node));

        due_ms = end_ms < due_ms ? end_ms : due_ms;
        if (end->closed_for_good && end->deliveries == 0)
            end_free(end);
    }
    return due_ms;
}

/* ---- The proxy ---- */

static int socket_at(uint32_t address, uint16_t port, int flags, struct sockaddr_in *out)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

    assert_true(fd >= 0);
    *out = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    out->sin_addr.s_addr = htonl(address);
    return fd;
}

static void proxy_open(struct proxy *proxy)
{
    struct sockaddr_in at;
    socklen_t size = sizeof(at);

    proxy->listener = socket_at(INADDR_LOOPBACK, 0, SOCK_NONBLOCK, &at);
    for (int i = 0; i < PROXY_PAIRS_MAX; i++)
        proxy->pairs[i].near = proxy->pairs[i].far = -1;
    assert_int_equal(0, bind(proxy->listener, (struct sockaddr *)&at, sizeof(at)));
    assert_int_equal(0, listen(proxy->listener, 8));
    assert_int_equal(0, getsockname(proxy->listener, (struct sockaddr *)&at, &size));
    proxy->port = ntohs(at.sin_port);
    proxy->left = UINT64_MAX;
}

static void proxy_drop_pair(struct proxy *proxy, int i)
{
    if (proxy->pairs[i].near >= 0) {
        close(proxy->pairs[i].near);
        close(proxy->pairs[i].far);
    }
    proxy->pairs[i].near = proxy->pairs[i].far = -1;
}

static void proxy_drop(struct proxy *proxy)
{
    for (int i = 0; i < PROXY_PAIRS_MAX; i++)
        proxy_drop_pair(proxy, i);
}

static void proxy_release(struct proxy *proxy)
{
    proxy_drop(proxy);
    close(proxy->listener);
}

/* Move what has come. False: one side has closed, or the limit is reached. */
static bool proxy_move(struct fixture *f, int from, int to, uint64_t *left)
{
    char bytes[8192];
    size_t room = left && *left < sizeof(bytes) ? (size_t)*left : sizeof(bytes);
    ssize_t got;

    if (room == 0)
        return false;
    got = recv(from, bytes, room, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN;
    if (left)
        *left -= (uint64_t)got;
    for (ssize_t sent = 0; sent < got;) {
        ssize_t now = send(to, bytes + sent, (size_t)(got - sent), MSG_DONTWAIT | MSG_NOSIGNAL);

        if (now > 0) {
            sent += now;
        } else if (errno == EAGAIN) {
            /* Whoever does not read is turned by the same thread. */
            td_host_poll(f->a.host);
            td_host_poll(f->b.host);
        } else {
            return false;
        }
    }
    return got > 0;
}

static void proxy_accept(struct fixture *f, int i)
{
    struct proxy *proxy = &f->proxy;
    struct sockaddr_in at;

    proxy->pairs[i].near = accept4(proxy->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (proxy->pairs[i].near < 0)
        return;
    proxy->pairs[i].far = socket_at(INADDR_LOOPBACK + 1, f->b.port, 0, &at);
    if (connect(proxy->pairs[i].far, (struct sockaddr *)&at, sizeof(at)) != 0)
        proxy_drop_pair(proxy, i);
}

/* Nobody hears a, who hears nothing. False: it has hung up. */
static bool proxy_swallow(int near)
{
    char bytes[8192];
    ssize_t got = recv(near, bytes, sizeof(bytes), MSG_DONTWAIT);

    return got > 0 || (got < 0 && errno == EAGAIN);
}

/* One byte in so many turns comes back. */
static bool proxy_trickle(struct fixture *f, int near, int far)
{
    uint64_t one = 1;

    return proxy_move(f, near, far, NULL) &&
           (++f->proxy.turns % TRICKLE_TURNS || proxy_move(f, far, near, &one));
}

static bool proxy_move_pair(struct fixture *f, int near, int far)
{
    if (f->proxy.mute)
        return proxy_swallow(near);
    if (f->proxy.trickles)
        return proxy_trickle(f, near, far);
    return proxy_move(f, near, far, &f->proxy.left) && proxy_move(f, far, near, NULL);
}

static void proxy_turn(struct fixture *f)
{
    struct proxy *proxy = &f->proxy;

    for (int i = 0; i < PROXY_PAIRS_MAX; i++) {
        int near = proxy->pairs[i].near, far = proxy->pairs[i].far;

        if (near < 0)
            proxy_accept(f, i);
        else if (!proxy_move_pair(f, near, far))
            proxy_drop_pair(proxy, i);
    }
    if (proxy->left == 0)
        proxy_drop(proxy);
}

/* ---- Time ---- */

static void turn_sockets(struct fixture *f, uint64_t due_ms)
{
    struct node *nodes[] = {&f->a, &f->b};
    struct pollfd fds[3 + 2 * PROXY_PAIRS_MAX];
    nfds_t count = 0;
    int timeout_ms = STEP_MS;

    if (due_ms < STEP_MS)
        timeout_ms = (int)due_ms;
    for (int i = 0; i < 2; i++) {
        int host_ms = nodes[i]->host ? td_host_timeout_ms(nodes[i]->host) : -1;

        if (nodes[i]->host)
            fds[count++] = (struct pollfd){.fd = td_host_fd(nodes[i]->host), .events = POLLIN};
        if (host_ms >= 0 && host_ms < timeout_ms)
            timeout_ms = host_ms;
    }
    fds[count++] = (struct pollfd){.fd = f->proxy.listener, .events = POLLIN};
    for (int i = 0; i < PROXY_PAIRS_MAX; i++)
        if (f->proxy.pairs[i].near >= 0) {
            fds[count++] = (struct pollfd){.fd = f->proxy.pairs[i].near, .events = POLLIN};
            fds[count++] = (struct pollfd){.fd = f->proxy.pairs[i].far, .events = POLLIN};
        }
    poll(fds, count, f->steps ? 0 : timeout_ms);
    if (f->steps)
        step_clock(STEP_MS);
    for (int i = 0; i < 2; i++)
        if (nodes[i]->host)
            assert_int_equal(TANDEM_OK, td_host_poll(nodes[i]->host));
    proxy_turn(f);
}

static void turn(struct fixture *f)
{
    uint64_t a_ms = f->a.host ? node_turn(&f->a) : UINT64_MAX;
    uint64_t b_ms = f->b.host ? node_turn(&f->b) : UINT64_MAX, due_ms;

    if (is_simulated()) {
        uint64_t until_us = td_simulation_now_us(f->simulation) + STEP_MS * 1000;

        if (!td_simulation_step(f->simulation, until_us))
            td_simulation_run(f->simulation, STEP_MS * 1000);
        return;
    }
    due_ms = UINT64_MAX;
    if (f->a.host && a_ms != UINT64_MAX)
        due_ms = a_ms > now_ms(&f->a) ? a_ms - now_ms(&f->a) : 0;
    if (f->b.host && b_ms != UINT64_MAX) {
        uint64_t b_due_ms = b_ms > now_ms(&f->b) ? b_ms - now_ms(&f->b) : 0;

        due_ms = b_due_ms < due_ms ? b_due_ms : due_ms;
    }
    turn_sockets(f, due_ms);
}

static bool is_late(struct fixture *f, uint64_t since_ms)
{
    return now_ms(&f->a) - since_ms >= (is_simulated() ? DEADLINE_VIRTUAL_MS : DEADLINE_MS);
}

#define UNTIL(f, condition)                                                                        \
    do {                                                                                           \
        uint64_t since_ms_ = now_ms(&(f)->a);                                                      \
        while (!(condition)) {                                                                     \
            if (is_late(f, since_ms_))                                                             \
                fail_msg("the deadline has passed before %s", #condition);                         \
            turn(f);                                                                               \
        }                                                                                          \
    } while (0)

/* Nothing more comes of its own: enough turns for what could be under way. */
static void let_rest(struct fixture *f)
{
    for (int i = 0; i < 60; i++)
        turn(f);
}

/* ---- Fixture ---- */

static int fixture_open(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    if (is_simulated()) {
        assert_int_equal(TANDEM_OK, td_simulation_open(11, &f->simulation));
        assert_int_equal(TANDEM_OK, td_memory_network_open(&f->network));
    } else {
        proxy_open(&f->proxy);
    }
    node_open(&f->a, f, "a");
    node_open(&f->b, f, "b");
    f->b.port = f->proxy.port;
    for (uint32_t i = 0; i < ORIGINS_MAX; i++)
        chain_init(&f->chains[i], "notes", i + 1);
    node_start(&f->a);
    node_start(&f->b);
    node_listen(&f->b);
    *state = f;
    return 0;
}

static int fixture_free(void **state)
{
    struct fixture *f = *state;

    node_release(&f->a);
    node_release(&f->b);
    if (is_simulated()) {
        td_memory_network_free(f->network);
        td_simulation_free(f->simulation);
    } else {
        proxy_release(&f->proxy);
    }
    batch_release(&f->batch);
    free(f);
    return 0;
}

static struct end *dial(struct fixture *f)
{
    struct end *end = end_open(&f->a);

    assert_int_equal(TANDEM_OK, td_channel_start(end->channel, f->a.carrier, f->b.url));
    return end;
}

/* The same by way of the proxy, if there is one. */
static struct end *dial_over_proxy(struct fixture *f)
{
    struct end *end;
    char url[64];

    if (is_simulated())
        return dial(f);
    end = end_open(&f->a);
    snprintf(url, sizeof(url), "%s://127.0.0.1:%u/tandem", f->a.carrier->ops->scheme,
             f->proxy.port);
    assert_int_equal(TANDEM_OK, td_channel_start(end->channel, f->a.carrier, url));
    return end;
}

static bool is_open(const struct end *end)
{
    return td_channel_state_of(end->channel) == TD_CHANNEL_OPEN;
}

/* a's end of an open channel; b's is the newest of b's. */
static struct end *connect_ends(struct fixture *f)
{
    struct end *end = dial(f);

    UNTIL(f, is_open(end) && f->b.ends && is_open(f->b.ends->prev) &&
                 end->sessions == 1 && f->b.ends->prev->sessions == 1);
    return end;
}

static uint64_t stored(struct node *node, struct chain *chain)
{
    return held_of(node->held, chain->origin)->seq;
}

/* Jobs of one chain, each of so many operations, into an outbox; all must fit. */
static void send_jobs(struct fixture *f, struct end *end, struct chain *chain, size_t jobs,
                      size_t operations, size_t payload)
{
    size_t taken;

    for (size_t i = 0; i < jobs; i++)
        batch_job(&f->batch, chain, operations, payload);
    assert_int_equal(TANDEM_OK, td_channel_send(end->channel, f->batch.operations, f->batch.count,
                                                &taken));
    assert_int_equal(f->batch.count, taken);
    batch_release(&f->batch);
}

/* ---- Sending ---- */

/* "`send(operations)`: groups them into jobs and puts their handles into the outbox" */
static void send_groups_operations_into_jobs(void **state)
{
    static const size_t sizes[] = {1, 3, 2, 1};
    struct fixture *f = *state;
    struct end *end = end_open(&f->a); /* it needs no link for that */
    tandem_job_handle *handle;
    size_t taken;

    for (size_t i = 0; i < 4; i++)
        batch_job(&f->batch, &f->chains[i / 2], sizes[i], 10);
    assert_int_equal(TANDEM_OK, td_channel_send(end->channel, f->batch.operations, 7, &taken));
    assert_int_equal(7, taken);
    assert_int_equal(4, tandem_mailbox_jobs(td_channel_outbox(end->channel)));
    handle = tandem_mailbox_first(td_channel_outbox(end->channel));
    for (size_t i = 0; i < 4; i++, handle = handle->next) {
        assert_int_equal(sizes[i], handle->operations);
        assert_int_equal(TANDEM_JOB_TRANSPORT_PENDING, handle->status);
        assert_memory_equal(f->chains[i / 2].origin, handle->origin, TANDEM_ORIGIN_BYTES);
    }
    batch_release(&f->batch);

    /* Half a job is none: what was whole before it is taken. */
    batch_job(&f->batch, &f->chains[2], 2, 10);
    batch_job(&f->batch, &f->chains[2], 3, 10);
    assert_int_equal(TANDEM_E_CHAIN,
                     td_channel_send(end->channel, f->batch.operations, 4, &taken));
    assert_int_equal(2, taken);
    assert_int_equal(5, tandem_mailbox_jobs(td_channel_outbox(end->channel)));
}

/* "`outbox`: mailbox of job handles: operations being applied by the remote", and both ways. */
static void operations_travel_both_ways(void **state)
{
    struct fixture *f = *state;
    struct end *a = connect_ends(f), *b = f->b.ends->prev;

    let_rest(f); /* nothing else has the link write */
    send_jobs(f, a, &f->chains[0], 10, 3, 100);
    send_jobs(f, b, &f->chains[1], 10, 2, 1000);
    UNTIL(f, a->applied == 10 && b->applied == 10);
    assert_int_equal(30, stored(&f->b, &f->chains[0]));
    assert_int_equal(20, stored(&f->a, &f->chains[1]));
    assert_int_equal(0, tandem_mailbox_jobs(td_channel_outbox(a->channel)));
    assert_int_equal(0, tandem_mailbox_jobs(td_channel_inbox(a->channel)));
    assert_int_equal(0, f->a.jobs_seen_twice + f->b.jobs_seen_twice);
}

/* Where a link is polled, the answer that waits for an ACK may leave for the sake of other messages. */
static void an_ack_comes_soon_however_rarely_it_is_polled(void **state)
{
    struct fixture *f = *state;
    struct end *a = connect_ends(f), *b = f->b.ends->prev;
    td_poll_policy rarely = {TD_POLL_FIXED, TD_POLL_MEAN_MS_MAX};
    uint64_t since_ms;

    let_rest(f);
    td_channel_set_poll(a->channel, &rarely);
    f->b.executes = false;
    send_jobs(f, a, &f->chains[0], 1, 1, 10);
    UNTIL(f, f->b.requests);
    send_jobs(f, b, &f->chains[1], 1, 1, 10);
    UNTIL(f, stored(&f->a, &f->chains[1]) == 1);
    f->b.executes = true;
    since_ms = now_ms(&f->a);
    UNTIL(f, a->applied == 1);
    assert_true(now_ms(&f->a) - since_ms < DEADLINE_MS);
}

/* "A handle leaves the outbox only when the remote has it *durably*" */
static void a_handle_leaves_the_outbox_when_the_remote_has_it_durably(void **state)
{
    struct fixture *f = *state;
    struct end *a = connect_ends(f), *b = f->b.ends->prev;
    tandem_job_handle *handle, *arrived;
    uint64_t id;

    f->b.executes = false;
    send_jobs(f, a, &f->chains[0], 1, 2, 10);
    handle = tandem_mailbox_first(td_channel_outbox(a->channel));
    id = handle->id;
    UNTIL(f, f->b.requests);
    let_rest(f);
    assert_ptr_equal(handle, tandem_mailbox_get(td_channel_outbox(a->channel), id));
    assert_int_equal(TANDEM_JOB_EXECUTION_PENDING, handle->status);
    assert_int_equal(0, a->applied);

    /* "`inbox`: mailbox of pull job handles: operations to be applied here" */
    arrived = tandem_mailbox_first(td_channel_inbox(b->channel));
    assert_int_equal(TANDEM_JOB_EXECUTION_PENDING, arrived->status);
    assert_int_equal(handle->bytes, arrived->bytes);
    assert_int_equal(2, arrived->operations);
    assert_true(tandem_slice_equal(handle->document, arrived->document));
    assert_true(tandem_slice_equal(handle->branch, arrived->branch));

    give_all_back(&f->b);
    assert_int_equal(0, a->applied);
    UNTIL(f, a->applied == 1);
    assert_null(tandem_mailbox_get(td_channel_outbox(a->channel), id));
}

/* "or when it becomes a dead letter", which takes as long as a disk takes: over reconnects, too. */
static void a_refused_handle_stays_until_its_user_takes_it_out(void **state)
{
    struct fixture *f = *state;
    struct end *a = connect_ends(f);
    tandem_job_handle *refused;

    a->keeps = true;
    memcpy(f->b.never, f->chains[1].origin, TANDEM_ORIGIN_BYTES);
    send_jobs(f, a, &f->chains[0], 1, 1, 10);
    send_jobs(f, a, &f->chains[1], 1, 2, 10);
    send_jobs(f, a, &f->chains[0], 1, 1, 10);
    UNTIL(f, a->stays && a->applied == 2);
    refused = a->stays;
    assert_int_equal(TANDEM_JOB_ERROR, refused->status);
    assert_ptr_equal(refused, tandem_mailbox_first(td_channel_outbox(a->channel)));
    assert_int_equal(1, tandem_mailbox_jobs(td_channel_outbox(a->channel)));
    node_kill(&f->b);
    UNTIL(f, a->closed == 1);
    node_start(&f->b);
    node_listen(&f->b);
    UNTIL(f, a->sessions == 2);
    send_jobs(f, a, &f->chains[0], 1, 1, 10);
    UNTIL(f, a->applied == 3);
    assert_ptr_equal(refused, tandem_mailbox_get(td_channel_outbox(a->channel), refused->id));
    assert_int_equal(0, a->failed);
    tandem_mailbox_remove(td_channel_outbox(a->channel), refused);
    tandem_job_handle_free(refused);
    assert_int_equal(0, a->failed);
}

static void the_largest_job_arrives_whole(void **state)
{
    struct fixture *f = *state;
    struct end *a = connect_ends(f);

    send_jobs(f, a, &f->chains[0], 1, TANDEM_JOB_OPERATIONS_MAX, 300);
    send_jobs(f, a, &f->chains[1], 1, 2, 255 * 1024);
    UNTIL(f, a->applied == 2);
    assert_int_equal(TANDEM_JOB_OPERATIONS_MAX, stored(&f->b, &f->chains[0]));
    assert_int_equal(2, stored(&f->b, &f->chains[1]));
}

/* ---- Windows ---- */

/* "at most `window_bytes`/`window_jobs` in flight […] what waits, waits in the store" */
static void what_does_not_fit_waits_with_the_caller(void **state)
{
    struct fixture *f = *state;
    tandem_job_handle *handle;
    struct end *a;
    size_t taken, offered;

    f->a.window_jobs = 4;
    a = connect_ends(f);
    f->b.executes = false;
    for (int i = 0; i < 10; i++)
        batch_job(&f->batch, &f->chains[0], 2, 10);
    assert_int_equal(TANDEM_E_LIMIT,
                     td_channel_send(a->channel, f->batch.operations, 20, &taken));
    assert_int_equal(8, taken);
    assert_false(td_channel_fits(a->channel, 1));
    handle = make_job(&f->chains[1], 1, 1);
    assert_int_equal(TANDEM_E_LIMIT, td_channel_push(a->channel, handle));
    assert_int_equal(TANDEM_JOB_UNKNOWN, handle->status);
    tandem_job_handle_free(handle); /* refused, so still ours */

    f->b.executes = true;
    for (offered = taken; offered < 20; offered += taken) {
        UNTIL(f, td_channel_fits(a->channel, 1000));
        td_channel_send(a->channel, f->batch.operations + offered, 20 - offered, &taken);
        assert_true(tandem_mailbox_jobs(td_channel_outbox(a->channel)) <= 4);
    }
    UNTIL(f, a->applied == 10);
    assert_int_equal(20, stored(&f->b, &f->chains[0]));
}

static void the_window_is_in_bytes_too(void **state)
{
    struct fixture *f = *state;
    struct end *a;
    size_t taken;

    f->a.window_bytes = 50000;
    a = connect_ends(f);
    f->b.executes = false;
    for (int i = 0; i < 10; i++)
        batch_job(&f->batch, &f->chains[0], 1, 10000);
    assert_int_equal(TANDEM_E_LIMIT,
                     td_channel_send(a->channel, f->batch.operations, 10, &taken));
    assert_int_equal(4, taken);
    f->b.executes = true;
    UNTIL(f, a->applied == 4);
}

/* "the inbox window being the credit that the sender has" */
static void the_inbox_window_is_the_senders_credit(void **state)
{
    struct fixture *f = *state;
    struct end *a, *b;

    f->b.window_jobs = 3;
    a = connect_ends(f);
    b = f->b.ends->prev;
    f->b.executes = false;
    send_jobs(f, a, &f->chains[0], 40, 1, 100);
    UNTIL(f, tandem_mailbox_jobs(td_channel_inbox(b->channel)) == 3);
    let_rest(f);
    assert_int_equal(3, b->inbox_peak);
    assert_int_equal(40, tandem_mailbox_jobs(td_channel_outbox(a->channel)));
    f->b.executes = true;
    UNTIL(f, a->applied == 40);
    assert_int_equal(3, b->inbox_peak);
    assert_int_equal(TANDEM_OK, td_session_err(td_channel_session(b->channel), NULL));
}

/* A slow receiver slows the sender: nobody's memory grows while it does not execute. */
static void a_slow_receiver_slows_the_sender(void **state)
{
    enum { JOBS = 400, WINDOW = 200 * 1024 };
    struct fixture *f = *state;
    uint64_t sent_bytes;
    size_t offered = 0, taken;
    struct end *a;

    f->a.window_bytes = f->b.window_bytes = WINDOW;
    a = connect_ends(f);
    f->b.executes = false;
    for (int i = 0; i < JOBS; i++)
        batch_job(&f->batch, &f->chains[0], 1, 8000);
    for (int round = 0; round < 100; round++) {
        td_channel_send(a->channel, f->batch.operations + offered, JOBS - offered, &taken);
        offered += taken;
        turn(f);
    }
    UNTIL(f, f->b.pool.used_bytes > WINDOW / 10 * 9);
    sent_bytes = td_session_stat_of(td_channel_session(a->channel))->sent_bytes;
    let_rest(f);
    assert_int_equal(sent_bytes, td_session_stat_of(td_channel_session(a->channel))->sent_bytes);
    assert_in_range(offered, WINDOW / 9000, WINDOW / 8000);
    assert_in_range(sent_bytes, 0, WINDOW + 8192);
    assert_in_range(f->b.pool.used_bytes, 0, WINDOW + 8192);
    assert_true(tandem_mailbox_bytes(td_channel_outbox(a->channel)) <= WINDOW);

    f->b.executes = true;
    while (offered < JOBS) {
        UNTIL(f, td_channel_fits(a->channel, 9000));
        td_channel_send(a->channel, f->batch.operations + offered, JOBS - offered, &taken);
        offered += taken;
    }
    UNTIL(f, a->applied == JOBS);
    assert_in_range(f->b.pool_peak, 0, WINDOW + 8192);
}

/* "All connections draw on one pool, each may always hold one message." */
static void connections_share_one_pool_without_deadlock(void **state)
{
    enum { ENDS = 3, JOBS = 12, BYTES = 60 * 1024 };
    struct fixture *f = *state;
    struct end *ends[ENDS];

    f->b.pool.limit_bytes = 1;
    f->b.executes = false;
    for (int i = 0; i < ENDS; i++) {
        ends[i] = connect_ends(f);
        send_jobs(f, ends[i], &f->chains[i], JOBS, 1, BYTES);
    }
    /* Each gets its one message through, and no more. A transport may have had one more in hand. */
    UNTIL(f, f->b.pool.used_bytes >= ENDS * BYTES);
    let_rest(f);
    assert_in_range(f->b.pool.used_bytes, ENDS * BYTES, 2 * ENDS * (BYTES + 1024));
    for (int i = 0; i < ENDS; i++)
        assert_int_equal(JOBS, tandem_mailbox_jobs(td_channel_outbox(ends[i]->channel)));
    f->b.executes = true;
    UNTIL(f, ends[0]->applied == JOBS && ends[1]->applied == JOBS && ends[2]->applied == JOBS);
    assert_in_range(f->b.pool_peak, 0, 2 * ENDS * (BYTES + 1024));
    assert_int_equal(0, f->b.pool.used_bytes);
}

/* "Acknowledgements, announcements, errors and pings need no credit." */
static void what_is_no_job_needs_no_credit(void **state)
{
    struct fixture *f = *state;
    struct end *a, *b;
    unsigned announced;

    f->b.window_jobs = 1;
    a = connect_ends(f);
    b = f->b.ends->prev;
    f->b.executes = false;
    send_jobs(f, a, &f->chains[0], 5, 1, 100);
    UNTIL(f, f->b.requests);
    /* The window to b is full: b's jobs are still acknowledged, … */
    send_jobs(f, b, &f->chains[1], 1, 1, 100);
    UNTIL(f, b->applied == 1);
    /* … a's announcements still come, … */
    f->a.held[ORIGINS_MAX - 1].origin[0] = 9;
    f->a.held[ORIGINS_MAX - 1].seq = 9;
    announced = (unsigned)b->peer[ORIGINS_MAX - 1].seq;
    assert_int_equal(0, announced);
    a->announced = false;
    td_session_announce(td_channel_session(a->channel));
    UNTIL(f, held_of(b->peer, f->a.held[ORIGINS_MAX - 1].origin)->seq == 9);
    /* … and its errors. */
    td_channel_stop(a->channel, TANDEM_E_CLOSED, "going");
    UNTIL(f, b->peer_err == TANDEM_E_CLOSED);
    assert_int_equal(0, a->applied);
}

/* "Order binds only within (collection, origin): what is put back leaves the window with its
 * origin, the rest flows." */
static void order_binds_within_an_origin_and_the_rest_flows(void **state)
{
    enum { JOBS = 15 };
    struct fixture *f = *state;
    struct end *a = connect_ends(f);

    memcpy(f->b.not_now, f->chains[1].origin, TANDEM_ORIGIN_BYTES);
    for (int i = 0; i < JOBS; i++)
        for (int k = 0; k < 3; k++)
            send_jobs(f, a, &f->chains[k], 1, 1 + (size_t)i % 3, 5000);
    UNTIL(f, a->applied + a->failed == 3 * JOBS);
    assert_int_equal(JOBS, a->failed);
    assert_int_equal(TANDEM_E_CLOCK, a->last_failed);
    assert_int_equal(77, a->last_detail);
    assert_int_equal(0, f->b.jobs_without_predecessor);
    assert_int_equal(f->chains[0].seq, stored(&f->b, &f->chains[0]));
    assert_int_equal(0, stored(&f->b, &f->chains[1]));
    assert_int_equal(f->chains[2].seq, stored(&f->b, &f->chains[2]));
    assert_true(td_channel_fits(a->channel, 1));
}

/* ---- Links come and go ---- */

/* "What is sent again after a reconnect keeps its handle and status." */
static void a_reconnect_keeps_handles_and_sends_them_again(void **state)
{
    struct fixture *f = *state;
    tandem_job_handle *handles[6], *handle;
    struct end *a;
    uint64_t ids[6];

    f->b.window_jobs = 4;
    a = connect_ends(f);
    f->b.executes = false;
    send_jobs(f, a, &f->chains[0], 6, 1, 60 * 1024);
    handle = tandem_mailbox_first(td_channel_outbox(a->channel));
    for (int i = 0; i < 6; i++, handle = handle->next) {
        handles[i] = handle;
        ids[i] = handle->id;
    }
    UNTIL(f, tandem_mailbox_jobs(td_channel_inbox(f->b.ends->prev->channel)) == 4);
    give_back(&f->b, true); /* durable there; its ack gets lost with the process */
    node_kill(&f->b);
    UNTIL(f, a->closed == 1);
    assert_int_not_equal(TANDEM_E_TIMEOUT, a->closed_err); /* it was told, and need not wait */
    assert_int_equal(6, tandem_mailbox_jobs(td_channel_outbox(a->channel)));
    for (int i = 0; i < 6; i++) {
        assert_ptr_equal(handles[i], tandem_mailbox_get(td_channel_outbox(a->channel), ids[i]));
        assert_int_equal(i < 4 ? TANDEM_JOB_EXECUTION_PENDING : TANDEM_JOB_TRANSPORT_PENDING,
                         handles[i]->status);
        assert_true(handles[i]->waiting);
    }

    f->b.executes = true;
    node_start(&f->b);
    node_listen(&f->b);
    UNTIL(f, a->applied == 6);
    assert_int_equal(2, a->sessions);
    assert_int_equal(6, stored(&f->b, &f->chains[0]));
    /* The one that b announced was not sent again. */
    assert_int_equal(0, f->b.jobs_seen_twice);
    assert_int_equal(0, a->failed);
}

/* Where the dialer has gone away and come back, the accepting side's channel is a new one. */
static void an_accepted_channel_lives_as_long_as_its_link(void **state)
{
    struct fixture *f = *state;
    struct end *a = connect_ends(f);

    assert_true(td_channel_is_dialed(a->channel));
    assert_false(td_channel_is_dialed(f->b.ends->channel));
    node_kill(&f->a);
    assert_int_equal(1, a->closed);
    assert_int_equal(TD_CHANNEL_WAITING, td_channel_state_of(a->channel));
    UNTIL(f, !f->b.ends);
    node_start(&f->a);
    assert_int_equal(TANDEM_OK, td_channel_start(a->channel, f->a.carrier, f->b.url));
    UNTIL(f, is_open(a) && f->b.ends && is_open(f->b.ends));
    assert_int_equal(2, a->sessions);
    assert_int_equal(1, f->b.ends->sessions);
}

/*
 * Jobs are whole, also when the link dies in the middle of a message: after ever so many steps of
 * the simulation, or ever so many bytes.
 */
static void jobs_stay_whole_when_the_link_dies_in_the_middle(void **state)
{
    enum { CUTS = 24, JOBS = 6 };
    struct fixture *f = *state;
    struct end *a = dial_over_proxy(f);

    for (unsigned cut = 0; cut < CUTS; cut++) {
        unsigned closed;

        UNTIL(f, is_open(a) && a->sessions == cut + 1);
        closed = a->closed;
        if (!is_simulated())
            f->proxy.left = 200 + 7001 * cut;
        send_jobs(f, a, &f->chains[0], JOBS, 2, 15000);
        if (is_simulated()) {
            for (unsigned step = 0; step < 2 * cut && a->closed == closed; step++)
                turn(f);
            node_kill(&f->b);
            node_start(&f->b);
            node_listen(&f->b);
        }
        UNTIL(f, a->closed == closed + 1 || a->applied == (cut + 1) * JOBS);
        /* Enough bytes for all of it: then it is between two messages that it dies. */
        if (a->closed == closed)
            proxy_drop(&f->proxy);
        f->proxy.left = UINT64_MAX;
        UNTIL(f, a->applied == (cut + 1) * JOBS);
        UNTIL(f, a->closed == closed + 1);
        assert_int_equal(f->chains[0].seq, stored(&f->b, &f->chains[0]));
    }
    assert_int_equal(0, a->failed);
    assert_int_equal(0, f->b.jobs_without_predecessor);
}

/* ---- Retries ---- */

/*
 * "A network error surfaces only when the policy is exhausted, as `TANDEM_E_CHANNEL_NETWORK`, and
 * the remote then rests until resumed, told to, or its rest time passes: never forgotten."
 */
static void a_network_error_surfaces_when_the_policy_is_spent(void **state)
{
    struct fixture *f = *state;
    struct end *a;

    node_kill(&f->b);
    a = dial(f);
    UNTIL(f, a->closed == 1);
    assert_int_equal(TANDEM_E_UNREACHABLE, a->closed_err);
    assert_int_equal(TD_CHANNEL_WAITING, td_channel_state_of(a->channel));
    assert_int_not_equal(0, td_channel_retry_at_ms(a->channel));
    while (a->closed < POLICY_ATTEMPTS) {
        assert_int_equal(TANDEM_E_UNREACHABLE, a->closed_err);
        assert_false(td_channel_is_spent(a->channel));
        turn(f);
    }
    assert_int_equal(TANDEM_E_CHANNEL_NETWORK, a->closed_err);
    assert_true(td_channel_is_spent(a->channel));
    /* It probes, … */
    UNTIL(f, a->closed == POLICY_ATTEMPTS + 3);
    assert_int_equal(TANDEM_E_CHANNEL_NETWORK, a->closed_err);
    assert_in_range(td_channel_retry_at_ms(a->channel), now_ms(&f->a),
                    now_ms(&f->a) + f->a.retry.rest_ms);
    /* … and finds it. */
    send_jobs(f, a, &f->chains[0], 3, 1, 10);
    node_start(&f->b);
    node_listen(&f->b);
    UNTIL(f, a->applied == 3);
    assert_false(td_channel_is_spent(a->channel));
}

/* From now on nothing, or hardly anything, comes from b. */
static void silence(struct fixture *f, bool trickles)
{
    f->steps = true;
    f->proxy.mute = !trickles;
    f->proxy.trickles = trickles;
    if (is_simulated())
        td_memory_network_cut(f->network, "b", "a", false);
}

static void end_silence(struct fixture *f)
{
    f->proxy.mute = f->proxy.trickles = false;
    if (is_simulated())
        td_memory_network_heal(f->network, "b", "a");
    else
        proxy_drop(&f->proxy); /* what was lost does not come again */
}

/* Every attempt has a deadline, and that it passed is the network's trouble: retried by the policy,
 * and told once that is spent. */
static void a_peer_that_does_not_answer_is_given_up_and_tried_again(void **state)
{
    struct fixture *f = *state;
    struct end *a;

    silence(f, false);
    a = dial_over_proxy(f);
    for (unsigned attempt = 1; attempt <= POLICY_ATTEMPTS + 2; attempt++) {
        uint64_t begun_ms = now_ms(&f->a);

        if (attempt > 2) /* it answers, if that is to be called so */
            silence(f, true);
        UNTIL(f, a->closed == attempt);
        assert_in_range(now_ms(&f->a) - begun_ms, 9000, ATTEMPT_MS_MAX);
        assert_int_equal(attempt < POLICY_ATTEMPTS ? TANDEM_E_TIMEOUT : TANDEM_E_CHANNEL_NETWORK,
                         a->closed_err);
        assert_int_equal(attempt >= POLICY_ATTEMPTS, td_channel_is_spent(a->channel));
        assert_int_equal(TD_CHANNEL_WAITING, td_channel_state_of(a->channel));
    }
    assert_int_equal(0, a->sessions);
    send_jobs(f, a, &f->chains[0], 3, 1, 10);
    end_silence(f);
    UNTIL(f, a->applied == 3);
    assert_false(td_channel_is_spent(a->channel));
}

/*
 * The same of a session: it is over 30 s after the last message, on both sides. Where it is polled,
 * every ten minutes, silence means nothing, but what is begun meanwhile must be answered. What was
 * under way is sent again.
 */
static void a_peer_that_falls_silent_is_given_up_and_tried_again(void **state)
{
    static const td_poll_policy rarely = {.mode = TD_POLL_FIXED, .mean_ms = 600 * 1000};
    struct fixture *f = *state;
    struct end *a = dial_over_proxy(f);

    if (polls)
        td_channel_set_poll(a->channel, &rarely);
    UNTIL(f, is_open(a));
    for (unsigned round = 1; round <= 2; round++) {
        uint64_t begun_ms;

        silence(f, false);
        begun_ms = now_ms(&f->a);
        send_jobs(f, a, &f->chains[0], 5, 1, 10);
        UNTIL(f, !is_open(a));
        assert_in_range(now_ms(&f->a) - begun_ms, SILENCE_MS / 2, SILENCE_MS_MAX);
        UNTIL(f, a->closed && (polls || !f->b.ends));
        assert_int_equal(TANDEM_E_TIMEOUT, a->closed_err);
        assert_int_equal(5 * (round - 1), a->applied);
        end_silence(f);
        UNTIL(f, a->applied == 5 * round);
        assert_int_equal(5 * round, stored(&f->b, &f->chains[0]));
        assert_false(td_channel_is_spent(a->channel));
        a->closed = 0;
    }
}

/* "a reachability hint retries now" */
static void a_hint_retries_now(void **state)
{
    struct fixture *f = *state;
    struct end *a;

    f->a.retry = (td_retry_policy){.base_ms = 1000000000, .factor = 1, .cap_ms = 1000000000,
                                   .attempts_max = 1, .rest_ms = 1000000000};
    node_kill(&f->b);
    a = dial(f);
    UNTIL(f, a->closed == 1);
    assert_true(td_channel_retry_at_ms(a->channel) > now_ms(&f->a) + 1000000);
    node_start(&f->b);
    node_listen(&f->b);
    td_channel_poke(a->channel);
    assert_true(td_channel_retry_at_ms(a->channel) <= now_ms(&f->a));
    assert_false(td_channel_is_spent(a->channel));
    UNTIL(f, is_open(a));
    td_channel_poke(a->channel); /* of no use, and no harm */
    assert_true(is_open(a));
}

/* "`Retry-After` is a floor" */
static void what_the_peer_asks_for_is_a_floor(void **state)
{
    struct fixture *f = *state;
    uint64_t before_ms;
    struct end *a;

    f->a.floor_ms = 100000000;
    a = connect_ends(f);
    before_ms = now_ms(&f->a);
    td_session_fail(td_channel_session(f->b.ends->channel), TANDEM_E_IO, "the disk is sick");
    UNTIL(f, a->closed == 1);
    assert_int_equal(1, a->peer_errors);
    assert_int_equal(TANDEM_E_IO, a->closed_err);
    assert_true(td_channel_retry_at_ms(a->channel) >= before_ms + f->a.floor_ms);
    /* For that once. */
    f->a.floor_ms = 0;
    f->b.refuse_link = TANDEM_E_LIMIT;
    td_channel_poke(a->channel);
    UNTIL(f, a->closed == 2);
    assert_true(td_channel_retry_at_ms(a->channel) < before_ms + 10000000);
}

/* A peer that ends each session as soon as it has begun is backed off from, as one that is away. */
static void sessions_that_are_refused_are_backed_off_from(void **state)
{
    struct fixture *f = *state;
    struct end *a;

    f->b.refuse_have = TANDEM_E_STORE_FULL;
    a = dial(f);
    UNTIL(f, a->closed == POLICY_ATTEMPTS);
    assert_int_equal(TANDEM_E_STORE_FULL, a->closed_err);
    assert_int_equal(TANDEM_E_STORE_FULL, a->peer_err);
    assert_true(td_channel_is_spent(a->channel));
    f->b.refuse_have = TANDEM_OK;
    UNTIL(f, is_open(a));
    assert_false(td_channel_is_spent(a->channel));
}

/* What only a change on one of the two sides can end is not tried again for a minute. */
static void what_is_final_is_probed_rarely(void **state)
{
    struct fixture *f = *state;
    uint64_t before_ms = now_ms(&f->a);
    struct end *a;

    f->b.refuse_have = TANDEM_E_SELF;
    a = dial(f);
    UNTIL(f, a->closed == 1);
    assert_int_equal(TANDEM_E_SELF, a->closed_err);
    assert_true(td_channel_retry_at_ms(a->channel) >= before_ms + 60000);
}

static void a_refused_link_is_tried_again(void **state)
{
    struct fixture *f = *state;
    struct end *a;

    f->b.refuse_link = TANDEM_E_NOMEM;
    a = dial(f);
    UNTIL(f, a->closed == 2);
    assert_int_equal(0, a->sessions);
    assert_null(f->b.ends);
    f->b.refuse_link = TANDEM_OK;
    UNTIL(f, is_open(a));
}

/* ---- Stopping ---- */

static void a_stopped_channel_tells_the_peer_and_does_not_return(void **state)
{
    struct fixture *f = *state;
    struct end *a = connect_ends(f);

    send_jobs(f, a, &f->chains[0], 1, 1, 10);
    UNTIL(f, a->applied == 1);
    td_channel_stop(a->channel, TANDEM_E_CLOSED, "removed by command");
    f->b.executes = false;
    UNTIL(f, a->closed == 1 && !f->b.ends);
    assert_int_equal(TANDEM_E_CLOSED, f->b.peer_err);
    assert_int_equal(TD_CHANNEL_IDLE, td_channel_state_of(a->channel));
    assert_int_equal(TANDEM_E_CLOSED, a->closed_err);
    assert_int_equal(UINT64_MAX, td_channel_tick(a->channel, now_ms(&f->a) + 1000000));
    let_rest(f);
    assert_int_equal(1, a->closed);
    assert_false(td_channel_is_linked(a->channel));
    td_channel_stop(a->channel, TANDEM_E_CLOSED, "again");

    f->b.executes = true;
    assert_int_equal(TANDEM_OK, td_channel_start(a->channel, f->a.carrier, f->b.url));
    send_jobs(f, a, &f->chains[0], 1, 1, 10);
    UNTIL(f, a->applied == 2);
    td_channel_stop(a->channel, TANDEM_OK, "without a reason");
    UNTIL(f, a->closed == 2 && !f->b.ends);
    assert_int_equal(TANDEM_OK, a->closed_err);
    assert_int_equal(0, a->peer_errors);
}

/* What was said before a link was closed is heard before it is, however late. */
static void a_held_peer_still_hears_why(void **state)
{
    struct fixture *f = *state;
    struct end *a = connect_ends(f);

    f->b.pool.limit_bytes = 1;
    f->b.executes = false;
    send_jobs(f, a, &f->chains[0], 2, 1, 60 * 1024);
    UNTIL(f, f->b.requests);
    let_rest(f);
    td_channel_stop(a->channel, TANDEM_E_CLOSED, "removed by command");
    let_rest(f);
    assert_int_equal(TANDEM_OK, f->b.peer_err);
    f->b.executes = true;
    UNTIL(f, !f->b.ends);
    assert_int_equal(TANDEM_E_CLOSED, f->b.peer_err);
    assert_int_equal(2, stored(&f->b, &f->chains[0]));
    UNTIL(f, a->closed == 1);
}

static void a_channel_can_be_stopped_while_it_dials(void **state)
{
    struct fixture *f = *state;
    struct end *a = dial(f);

    turn(f);
    td_channel_stop(a->channel, TANDEM_OK, "");
    UNTIL(f, !td_channel_is_linked(a->channel) && !f->b.ends);
    assert_int_equal(TD_CHANNEL_IDLE, td_channel_state_of(a->channel));
    let_rest(f);
    assert_int_equal(0, a->sessions);
}

static void urls_are_checked_before_anything_is_dialed(void **state)
{
    static const char *const bad[BACKENDS][4] = {
        [MEMORY] = {"", "mem://", "ws://127.0.0.1:1/tandem", "mem:/b"},
        [WEBSOCKET] = {"", "ws://", "mem://b", "ws://127.0.0.1:999999/tandem"},
        [HTTP] = {"", "http://", "mem://b", "http://127.0.0.1:999999/tandem"},
        [EXCHANGE] = {"", "mem:///http", "http://127.0.0.1:1/tandem", "mem://b"},
    };
    struct fixture *f = *state;
    struct end *a = end_open(&f->a);

    for (int i = 0; i < 4; i++)
        assert_int_equal(TANDEM_E_INVALID,
                         td_channel_start(a->channel, f->a.carrier, bad[backend][i]));
    if (!is_simulated())
        assert_int_equal(TANDEM_E_UNSUPPORTED, td_channel_start(a->channel, f->a.carrier,
                                                                "wss://127.0.0.1:1/tandem"));
    let_rest(f);
    assert_int_equal(TD_CHANNEL_IDLE, td_channel_state_of(a->channel));
    assert_int_equal(0, a->closed);
    assert_int_equal(TANDEM_OK, td_channel_start(a->channel, f->a.carrier, f->b.url));
    UNTIL(f, is_open(a));
    td_channel_free(NULL);
}

/* ---- A peer that breaks the rules ---- */

struct stranger {
    td_link *link;
    tandem_writer say[3];
    unsigned count, said;
    bool closed;
    td_wire_error heard;
};

static void stranger_opened(void *context)
{
    struct stranger *stranger = context;

    stranger->link->carrier->ops->want_write(stranger->link);
}

static void stranger_message(void *context, tandem_slice bytes)
{
    struct stranger *stranger = context;
    td_wire_message message;

    assert_int_equal(TANDEM_OK, td_wire_read(bytes, &message));
    if (message.type == TD_WIRE_ERROR)
        stranger->heard = message.as.error;
}

static tandem_err stranger_writable(void *context, tandem_writer *out)
{
    struct stranger *stranger = context;

    if (stranger->said == stranger->count)
        return TANDEM_END;
    tandem_write_raw(out, tandem_writer_slice(&stranger->say[stranger->said++]));
    return TANDEM_OK;
}

static void stranger_closed(void *context, tandem_err err, const char *text)
{
    ((struct stranger *)context)->closed = true;
}

static const td_connection_events stranger_events = {
    .opened = stranger_opened,
    .message = stranger_message,
    .writable = stranger_writable,
    .closed = stranger_closed,
};

static tandem_writer *stranger_says(struct stranger *stranger)
{
    tandem_writer *out = &stranger->say[stranger->count++];

    tandem_writer_init(out);
    return out;
}

static void stranger_greets(struct stranger *stranger)
{
    td_wire_hello hello = {.major = TD_WIRE_MAJOR, .message_bytes = TD_MESSAGE_BYTES_MAX,
                           .reactor = {'z'}, .agent = tandem_slice_text("stranger")};

    td_wire_write_hello(stranger_says(stranger), 1, &hello, NULL, 0);
}

/* "any other transition is […] `TANDEM_E_PROTOCOL` to a peer", and so is anything else that it must
 * not do; the others do not notice. */
static void a_peer_that_breaks_the_rules_is_shown_out(void **state)
{
    struct fixture *f = *state;
    struct end *a = connect_ends(f);

    for (int kind = 0; kind < 4; kind++) {
        struct stranger stranger = {.count = 0};

        if (kind > 0)
            stranger_greets(&stranger);
        if (kind == 1) /* acknowledges what was never sent */
            td_wire_write_ack(stranger_says(&stranger), 2, 5, NULL, 0);
        else if (kind == 2)
            tandem_write_text(stranger_says(&stranger), "no message at all");
        else if (kind == 3) /* jobs that do not begin with the first */
            td_wire_patch_count(&stranger.say[1],
                                td_wire_begin_jobs(stranger_says(&stranger), 2, 7), 0);
        else
            td_wire_write_ack(stranger_says(&stranger), 1, 0, NULL, 0);
        assert_int_equal(TANDEM_OK, f->a.carrier->ops->dial(f->a.carrier, f->b.url,
                                                            &stranger_events, &stranger,
                                                            &stranger.link));
        UNTIL(f, stranger.closed);
        assert_int_equal(TANDEM_E_PROTOCOL, stranger.heard.err);
        for (unsigned i = 0; i < stranger.count; i++)
            tandem_writer_release(&stranger.say[i]);
        send_jobs(f, a, &f->chains[0], 1, 1, 10);
        UNTIL(f, a->applied == (unsigned)kind + 1);
    }
    UNTIL(f, f->b.ends && !f->b.ends->next);
    assert_int_equal(1, a->sessions);
}

/* "Until its HELLO was accepted …": of whoever says nothing else little is taken. */
static void little_is_taken_of_a_peer_before_its_hello(void **state)
{
    struct fixture *f = *state;
    struct end *a = connect_ends(f);

    for (unsigned more = 0; more < 2; more++) {
        struct stranger stranger = {.count = 0};
        tandem_writer *out = stranger_says(&stranger);
        size_t size = TD_OPENING_BYTES_MAX - 100 + 1000 * more;
        uint8_t *bytes = calloc(1, size);

        tandem_write_binary(out, tandem_slice_of(bytes, size));
        free(bytes);
        f->b.accepted_err = TANDEM_OK;
        assert_int_equal(TANDEM_OK, f->a.carrier->ops->dial(f->a.carrier, f->b.url,
                                                            &stranger_events, &stranger,
                                                            &stranger.link));
        UNTIL(f, stranger.closed && f->b.accepted_err != TANDEM_OK);
        assert_int_equal(TANDEM_E_PROTOCOL, f->b.accepted_err);
        /* What is refused as it comes is not answered in words. */
        assert_true(stranger.heard.err == TANDEM_E_PROTOCOL || more);
        tandem_writer_release(out);
        send_jobs(f, a, &f->chains[0], 1, 1, 10);
        UNTIL(f, a->applied == more + 1);
    }
    assert_int_equal(1, a->sessions);
}

/* ---- Memory: "with latency, loss, duplication, reordering, partition on request" ---- */

static void send_through_faults(struct fixture *f, const td_memory_faults *faults)
{
    enum { JOBS = 300 };
    struct end *a = connect_ends(f);
    size_t offered = 0, taken;

    td_memory_network_faults(f->network, faults);
    for (int i = 0; i < JOBS; i++)
        batch_job(&f->batch, &f->chains[i % 3], 1 + (size_t)i % 2, 3000);
    while (offered < f->batch.count) {
        td_channel_send(a->channel, f->batch.operations + offered, f->batch.count - offered,
                        &taken);
        offered += taken;
        turn(f);
    }
    UNTIL(f, a->applied == JOBS);
    for (int i = 0; i < 3; i++)
        assert_int_equal(f->chains[i].seq, stored(&f->b, &f->chains[i]));
    assert_int_equal(0, a->failed);
    assert_int_equal(0, f->b.jobs_without_predecessor);
}

static void latency_keeps_order_and_sessions(void **state)
{
    struct fixture *f = *state;

    send_through_faults(f, &(td_memory_faults){.latency_ms_min = 1, .latency_ms_max = 250});
    assert_int_equal(1, f->a.ends->sessions);
}

static void duplicates_are_not_noticed(void **state)
{
    struct fixture *f = *state;

    send_through_faults(f, &(td_memory_faults){.latency_ms_max = 20, .duplicate_permille = 500});
    /* "No exchange is ever sent again": one that comes twice costs its link. */
    assert_true((f->a.ends->sessions == 1) == (backend == MEMORY));
    assert_int_equal(0, f->b.jobs_seen_twice);
}

static void loss_costs_sessions_and_no_job(void **state)
{
    struct fixture *f = *state;

    send_through_faults(f, &(td_memory_faults){.latency_ms_max = 40, .lose_permille = 150});
    assert_true(f->a.ends->sessions > 1);
}

static void reordering_costs_sessions_and_no_job(void **state)
{
    struct fixture *f = *state;

    send_through_faults(f, &(td_memory_faults){.latency_ms_max = 40, .reorder_permille = 300,
                                               .duplicate_permille = 100});
    /* Exchanges may overtake each other. */
    assert_true(f->a.ends->sessions > 1 || backend == EXCHANGE);
}

/* A cut cable tells nobody: silence does. One direction of it is as bad as both. */
static void a_partition_heals(void **state)
{
    struct fixture *f = *state;
    struct end *a = connect_ends(f);

    for (int kind = 0; kind < 3; kind++) {
        unsigned sessions = a->sessions, applied = a->applied;

        if (kind == 1)
            td_memory_network_cut(f->network, "b", "a", false);
        else
            td_memory_network_cut(f->network, "a", "b", kind == 2);
        send_jobs(f, a, &f->chains[0], 5, 1, 10);
        UNTIL(f, !is_open(a) && !f->b.ends);
        assert_int_equal(applied, a->applied);
        for (int i = 0; i < 5000; i++)
            turn(f);
        td_memory_network_heal(f->network, "a", "b");
        UNTIL(f, a->applied == applied + 5);
        assert_true(a->sessions > sessions);
    }
}

/* The numbers of a node that was restarted mean nothing to links from before. */
static void a_link_from_before_a_restart_is_nobodys(void **state)
{
    struct fixture *f = *state;
    struct end *a = connect_ends(f);

    for (int i = 0; i < 20; i++) {
        unsigned sessions = a->sessions;
        struct end *other;

        /* b dies unheard; what a says on the old link must not reach a new one. */
        td_memory_network_cut(f->network, "b", "a", true);
        node_kill(&f->b);
        node_start(&f->b);
        node_listen(&f->b);
        td_memory_network_heal(f->network, "a", "b");
        other = dial(f);
        UNTIL(f, is_open(other) && f->b.ends && is_open(f->b.ends));
        send_jobs(f, a, &f->chains[0], 1, 1, 10);
        for (int k = 0; k < 200; k++)
            turn(f);
        assert_int_equal(0, f->b.ends->peer_errors);
        assert_int_equal(TANDEM_OK, td_session_err(td_channel_session(f->b.ends->channel), NULL));
        UNTIL(f, a->sessions > sessions && a->applied == (unsigned)i + 1);
        assert_int_equal(1, other->sessions);
        td_channel_stop(other->channel, TANDEM_OK, "");
        UNTIL(f, !td_channel_is_linked(other->channel));
        end_free(other);
        UNTIL(f, !f->b.ends->next);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open, fixture_free)

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int backend;
        bool polls;
    } names[] = {
        {"memory", MEMORY, false},      {"websocket", WEBSOCKET, false},
        {"http", HTTP, false},          {"http-polled", HTTP, true},
        {"exchange", EXCHANGE, false},  {"exchange-polled", EXCHANGE, true},
    };
    unsigned which;
    const struct CMUnitTest tests[] = {
        TEST(send_groups_operations_into_jobs),
        TEST(operations_travel_both_ways),
        TEST(an_ack_comes_soon_however_rarely_it_is_polled),
        TEST(a_handle_leaves_the_outbox_when_the_remote_has_it_durably),
        TEST(a_refused_handle_stays_until_its_user_takes_it_out),
        TEST(the_largest_job_arrives_whole),
        TEST(what_does_not_fit_waits_with_the_caller),
        TEST(the_window_is_in_bytes_too),
        TEST(the_inbox_window_is_the_senders_credit),
        TEST(a_slow_receiver_slows_the_sender),
        TEST(connections_share_one_pool_without_deadlock),
        TEST(what_is_no_job_needs_no_credit),
        TEST(order_binds_within_an_origin_and_the_rest_flows),
        TEST(a_reconnect_keeps_handles_and_sends_them_again),
        TEST(an_accepted_channel_lives_as_long_as_its_link),
        TEST(jobs_stay_whole_when_the_link_dies_in_the_middle),
        TEST(a_network_error_surfaces_when_the_policy_is_spent),
        TEST(a_peer_that_does_not_answer_is_given_up_and_tried_again),
        TEST(a_peer_that_falls_silent_is_given_up_and_tried_again),
        TEST(a_hint_retries_now),
        TEST(what_the_peer_asks_for_is_a_floor),
        TEST(sessions_that_are_refused_are_backed_off_from),
        TEST(what_is_final_is_probed_rarely),
        TEST(a_refused_link_is_tried_again),
        TEST(a_stopped_channel_tells_the_peer_and_does_not_return),
        TEST(a_held_peer_still_hears_why),
        TEST(a_channel_can_be_stopped_while_it_dials),
        TEST(urls_are_checked_before_anything_is_dialed),
        TEST(a_peer_that_breaks_the_rules_is_shown_out),
        TEST(little_is_taken_of_a_peer_before_its_hello),
    };
    const struct CMUnitTest memory_faults[] = {
        TEST(latency_keeps_order_and_sessions),
        TEST(duplicates_are_not_noticed),
        TEST(loss_costs_sessions_and_no_job),
        TEST(reordering_costs_sessions_and_no_job),
        TEST(a_partition_heals),
        TEST(a_link_from_before_a_restart_is_nobodys),
    };
    char group[32];
    int failed;

    for (which = 0; which < sizeof(names) / sizeof(names[0]); which++)
        if (argc == 2 && !strcmp(argv[1], names[which].name))
            break;
    if (which == sizeof(names) / sizeof(names[0])) {
        fprintf(stderr, "usage: %s memory|websocket|http|http-polled|exchange|exchange-polled\n",
                argv[0]);
        return 2;
    }
    backend = names[which].backend;
    polls = names[which].polls;
    snprintf(group, sizeof(group), "channel-%s", names[which].name);
    failed = cmocka_run_group_tests_name(group, tests, NULL, NULL);
    if (is_simulated())
        failed += cmocka_run_group_tests_name("channel-memory-faults", memory_faults, NULL, NULL);
    return failed;
}
