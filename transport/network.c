/*
 * The libwebsockets context, and the life of a connection from its handshake to closed().
 *
 * Written against libwebsockets 4.1.6, whose ways decide much here:
 *   - Listening is ours (server.c): its own listeners retry, share and lose errno.
 *   - It resolves names in the calling thread: names are resolved by libuv (client.c).
 *   - It has no limit on messages: the limit is checked against what a frame claims, and memory
 *     grows only with bytes that came.
 *   - It does not end a frame header, a message or a handshake that dribbles: our timers do.
 *   - It shuts the socket before it says that it closes: a peer that is quick to hang up in turn then
 *     looks like one that went away by itself. It says so in time only to who keeps user data.
 *   - It forgets its handle on the loop where connect() fails at once: we look for it.
 *   - Its own liveness check hangs up on a peer whose pongs we do not read: while a connection is
 *     held, we vouch for it.
 */
#include "transport/connection.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

enum {
    HOLD_VOUCH_S = 10,         /* less than TD_NETWORK_PING_S */
    VOUCH_MS = 1000,           /* proof of life is passed on at most this often */
    BYTES_PER_TURN = 1 << 20,  /* a fast reader does not keep the loop from the others */
    BUFFER_KEEP_BYTES = 64 * 1024,
    FDS_OF_CONTEXT = 4,
    /* Our own deadlines decide: a request's body may pause for longer than a handshake may take. */
    LWS_PATIENCE_S = 2 * TD_HTTP_BODY_S,
};

/* libwebsockets adds a few for itself. Above 2,560 it would trust the descriptor limit of the process
 * again. */
enum { FD_LIMIT = TD_NETWORK_SOCKETS_MAX + 16 };
_Static_assert(FD_LIMIT < 2500, "libwebsockets looks its descriptors up by search");

static const lws_retry_bo_t liveness = {
    .secs_since_valid_ping = TD_NETWORK_PING_S,
    .secs_since_valid_hangup = TD_NETWORK_HANGUP_S,
};

/* It asks the kernel each time. */
static void ask_for_room(td_connection *connection)
{
    if (!connection->asked_for_room)
        lws_callback_on_writable(connection->wsi);
    connection->asked_for_room = true;
}

/* ---- Timers, ends ---- */

static void on_freed(uv_handle_t *handle)
{
    td_connection *connection = (td_connection *)handle;

    connection->network->handles--;
    tandem_writer_release(&connection->in);
    tandem_writer_release(&connection->out);
    free(connection);
}

static void kill_wsi(td_connection *connection)
{
    /* As if a timeout of its own had struck, which skips all politeness. A handshake that takes a
     * step first replaces that timeout: see is_unwanted(). */
    lws_set_timeout(connection->wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_ASYNC);
    td_network_wake(connection->network);
}

static void on_timer(uv_timer_t *timer);

/* One timer serves the deadline of whatever the connection is about. */
void td_connection_set_deadline(td_connection *connection)
{
    uint64_t seconds = 0;

    if (connection->state == TD_CONNECTION_CLOSING)
        seconds = TD_NETWORK_CLOSE_S;
    else if (connection->state == TD_CONNECTION_HANDSHAKE)
        seconds = TD_NETWORK_DIAL_S;
    else if (connection->state == TD_CONNECTION_HTTP)
        seconds = td_http_server_deadline_s(connection);
    else if (connection->held)
        seconds = HOLD_VOUCH_S;
    else if (connection->receiving)
        seconds = TD_NETWORK_MESSAGE_S;
    if (!seconds) {
        uv_timer_stop(&connection->timer);
        return;
    }
    uv_update_time(connection->network->loop);
    uv_timer_start(&connection->timer, on_timer, seconds * 1000, 0);
}

static void on_timer(uv_timer_t *timer)
{
    td_connection *connection = (td_connection *)timer;

    if (connection->state == TD_CONNECTION_OPEN && connection->held) {
        lws_validity_confirmed(connection->wsi);
        td_connection_set_deadline(connection);
        return;
    }
    if (connection->state == TD_CONNECTION_OPEN) {
        td_connection_set_reason(connection, TANDEM_E_TIMEOUT, TD_CLOSE_PROTOCOL,
                                 "a message was not finished within %d s", TD_NETWORK_MESSAGE_S);
        td_connection_shut(connection);
        return;
    }
    if (connection->state == TD_CONNECTION_HTTP)
        td_http_server_late(connection);
    td_connection_set_reason(connection, TANDEM_E_TIMEOUT, 0, "no answer within %d s",
                             TD_NETWORK_DIAL_S);
    if (!connection->wsi) {
        td_connection_end(connection);
        return;
    }
    connection->state = TD_CONNECTION_CLOSING;
    kill_wsi(connection);
    td_connection_set_deadline(connection);
}

td_connection *td_connection_new(td_network *network, const td_listener *listener)
{
    td_connection *connection = calloc(1, sizeof(*connection));

    if (!connection)
        return NULL;
    connection->network = network;
    connection->listener = listener;
    tandem_writer_init(&connection->in);
    tandem_writer_init(&connection->out);
    uv_timer_init(network->loop, &connection->timer);
    network->handles++;
    DL_APPEND(network->connections, connection);
    if (listener)
        network->accepted++;
    else
        network->dialed++;
    td_connection_set_deadline(connection);
    return connection;
}

void td_connection_end(td_connection *connection)
{
    td_network *network = connection->network;

    td_connection_set_reason(connection, TANDEM_E_UNREACHABLE, 0, "the connection was lost");
    td_client_release(connection);
    td_http_server_gone(connection);
    DL_DELETE(network->connections, connection);
    if (connection->serving)
        network->serving--;
    if (connection->listener)
        network->accepted--;
    else
        network->dialed--;
    connection->state = TD_CONNECTION_CLOSING;
    uv_close((uv_handle_t *)&connection->timer, on_freed);
    if (connection->events)
        connection->events->closed(connection->context, connection->err, connection->text);
}

static void on_end(uv_timer_t *timer)
{
    td_connection_end((td_connection *)timer);
}

void td_connection_end_soon(td_connection *connection)
{
    connection->state = TD_CONNECTION_CLOSING;
    uv_timer_start(&connection->timer, on_end, 0, 0);
    td_network_wake(connection->network);
}

void td_connection_set_reason(td_connection *connection, tandem_err err, unsigned close_code,
                              const char *format, ...)
{
    va_list args;

    if (connection->has_reason)
        return;
    connection->has_reason = true;
    connection->err = err;
    connection->close_code = close_code;
    va_start(args, format);
    vsnprintf(connection->text, sizeof(connection->text), format, args);
    va_end(args);
}

void td_connection_shut(td_connection *connection)
{
    bool was_open = connection->state == TD_CONNECTION_OPEN;

    assert(connection->has_reason);
    if (connection->state == TD_CONNECTION_CLOSING)
        return;
    connection->state = TD_CONNECTION_CLOSING;
    if (!connection->wsi) {
        td_connection_end_soon(connection);
        return;
    }
    /* Open: the close frame goes out when the socket has room for it, see on_room(), and the
     * answer to it must be heard. */
    if (was_open) {
        lws_rx_flow_control(connection->wsi, 1);
        lws_callback_on_writable(connection->wsi);
    } else {
        kill_wsi(connection);
    }
    td_connection_set_deadline(connection);
    td_network_wake(connection->network);
}

/* ---- Calls ---- */

void td_connection_want_write(td_connection *connection)
{
    if (connection->state != TD_CONNECTION_OPEN)
        return; /* on opening it is asked once anyway */
    ask_for_room(connection);
    td_network_wake(connection->network);
}

void td_connection_hold(td_connection *connection, bool hold)
{
    if (connection->held == hold)
        return;
    connection->held = hold;
    if (connection->state != TD_CONNECTION_OPEN)
        return;
    lws_rx_flow_control(connection->wsi, !hold);
    lws_validity_confirmed(connection->wsi);
    connection->heard_ms = uv_now(connection->network->loop);
    td_connection_set_deadline(connection);
    td_network_wake(connection->network);
}

void td_connection_close(td_connection *connection, tandem_err err, const char *text)
{
    td_connection_set_reason(connection, err,
                             err == TANDEM_OK           ? TD_CLOSE_NORMAL
                             : err == TANDEM_E_PROTOCOL ? TD_CLOSE_PROTOCOL
                                                        : TD_CLOSE_TROUBLE,
                             "%s", text ? text : "");
    td_connection_shut(connection);
}

/* ---- Receiving ---- */

static void heard(td_connection *connection)
{
    uint64_t now_ms = uv_now(connection->network->loop);

    if (now_ms - connection->heard_ms >= VOUCH_MS) {
        connection->heard_ms = now_ms;
        lws_validity_confirmed(connection->wsi);
    }
}

static void refuse_message(td_connection *connection, unsigned close_code, const char *text)
{
    td_connection_set_reason(connection, TANDEM_E_PROTOCOL, close_code, "%s", text);
    td_connection_shut(connection);
}

static void forget_message(td_connection *connection)
{
    connection->receiving = false;
    if (connection->in.capacity > BUFFER_KEEP_BYTES)
        tandem_writer_release(&connection->in);
    tandem_writer_clear(&connection->in);
}

/* What comes without leave is refused, by what the frame claims before it has come; each addend is
 * below 2^63. */
static bool is_too_large(td_connection *connection, uint64_t size)
{
    const td_connection_events *events = connection->events;

    if (size > TD_MESSAGE_BYTES_MAX) {
        refuse_message(connection, TD_CLOSE_TOO_LARGE, "a message is larger than 1 MiB");
        return true;
    }
    if (size <= TD_OPENING_BYTES_MAX || !events->knows || events->knows(connection->context))
        return false;
    refuse_message(connection, TD_CLOSE_TOO_LARGE, TD_TOO_MUCH_TEXT);
    return true;
}

/* A piece of a frame; returns nonzero to have libwebsockets close. */
static int on_bytes(td_connection *connection, const void *bytes, size_t size)
{
    struct lws *wsi = connection->wsi;
    bool whole, began = connection->receiving;

    if (connection->state != TD_CONNECTION_OPEN)
        return 0;
    heard(connection);
    if (!lws_frame_is_binary(wsi)) {
        refuse_message(connection, TD_CLOSE_NOT_BINARY, "a message is not binary");
        return 0;
    }
    if (is_too_large(connection, connection->in.size + size + lws_remaining_packet_payload(wsi)))
        return 0;
    whole = lws_is_final_fragment(wsi);
    if (whole && !began) {
        connection->events->message(connection->context, tandem_slice_of(bytes, size));
        return 0;
    }
    tandem_write_raw(&connection->in, tandem_slice_of(bytes, size));
    if (tandem_writer_err(&connection->in) != TANDEM_OK) {
        td_connection_close(connection, TANDEM_E_NOMEM, "no memory for a message");
        return 0;
    }
    connection->receiving = !whole;
    if (whole) {
        connection->events->message(connection->context, tandem_writer_slice(&connection->in));
        forget_message(connection);
    }
    if (connection->receiving != began)
        td_connection_set_deadline(connection);
    return 0;
}

/* ---- Sending ---- */

/* Bytes of text for a close frame, without half a character at the end. */
static size_t close_text_size(const char *text)
{
    size_t size = strlen(text);

    if (size <= TD_CLOSE_TEXT_BYTES_MAX)
        return size;
    size = TD_CLOSE_TEXT_BYTES_MAX;
    while (size && ((unsigned char)text[size] & 0xc0) == 0x80)
        size--;
    return size;
}

/* Ask for the next message. False: there is none, or the connection closes now. */
static bool pull_message(td_connection *connection)
{
    tandem_err err;

    tandem_writer_clear(&connection->out);
    err = connection->events->writable(connection->context, &connection->out);
    if (connection->state == TD_CONNECTION_OPEN && err == TANDEM_OK)
        err = tandem_writer_err(&connection->out);
    if (connection->state == TD_CONNECTION_OPEN && err < 0)
        td_connection_close(connection, err, tandem_err_text(err));
    if (err != TANDEM_OK || connection->state != TD_CONNECTION_OPEN) {
        if (connection->out.capacity > BUFFER_KEEP_BYTES)
            tandem_writer_release(&connection->out);
        tandem_writer_clear(&connection->out);
        return false;
    }
    assert(connection->out.size <= TD_MESSAGE_BYTES_MAX);
    connection->sending = true;
    connection->sent = 0;
    return true;
}

/* Send one frame of the message under way. */
static int send_frame(td_connection *connection, size_t *size_out)
{
    td_network *network = connection->network;
    size_t left = connection->out.size - connection->sent;
    size_t size = left < TD_NETWORK_FRAME_BYTES ? left : TD_NETWORK_FRAME_BYTES;
    int flags = lws_write_ws_flags(LWS_WRITE_BINARY, connection->sent == 0, size == left);

    if (size)
        memcpy(network->frame + LWS_PRE, connection->out.bytes + connection->sent, size);
    if (lws_write(connection->wsi, network->frame + LWS_PRE, size, flags) < (int)size)
        return -1;
    connection->sent += size;
    connection->sending = size != left;
    *size_out = size;
    return 0;
}

static int on_room(td_connection *connection)
{
    struct lws *wsi = connection->wsi;
    size_t size, budget = BYTES_PER_TURN;

    connection->asked_for_room = false;
    /* It asks once more after the close frame, and a second close would not wait for the answer. */
    if (connection->state == TD_CONNECTION_HANDSHAKE || connection->close_begun)
        return 0;
    for (;;) {
        /* Whole frames only: a close frame after half a buffered one would never be sent. */
        if (lws_send_pipe_choked(wsi)) {
            lws_callback_on_writable(wsi);
            return 0;
        }
        if (!connection->sending && connection->state == TD_CONNECTION_OPEN &&
            !pull_message(connection) && connection->state == TD_CONNECTION_OPEN)
            return 0;
        if (!connection->sending)
            break;
        if (!budget) {
            lws_callback_on_writable(wsi);
            return 0;
        }
        if (send_frame(connection, &size) != 0) {
            /* Said here, because what the peer sent last may lie unread in the socket. */
            td_connection_set_reason(connection, TANDEM_E_UNREACHABLE, 0,
                                     "the connection was lost");
            return -1;
        }
        budget -= size < budget ? size : budget;
    }
    /* Not by returning -1: builds of libwebsockets with assertions then close twice, and the second
     * close takes the close frame for sent. */
    connection->close_begun = true;
    lws_close_reason(wsi, connection->close_code, (unsigned char *)connection->text,
                     close_text_size(connection->text));
    lws_set_timeout(wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_SYNC);
    return 0;
}

/* ---- What libwebsockets says ---- */

static void on_open(td_connection *connection)
{
    const td_listener *listener = connection->listener;
    tandem_err err;

    /* Refused, the connection has no events yet. */
    connection->established = true;
    connection->state = TD_CONNECTION_OPEN;
    connection->heard_ms = uv_now(connection->network->loop);
    if (listener) {
        connection->serving = true;
        connection->network->serving++;
        err = listener->accept(listener->context, connection, &connection->events,
                               &connection->context);
        if (err != TANDEM_OK) {
            connection->events = NULL;
            td_connection_close(connection, err, tandem_err_text(err));
            return;
        }
        assert(connection->events);
    }
    td_connection_set_deadline(connection);
    if (connection->held)
        lws_rx_flow_control(connection->wsi, 0);
    if (connection->state == TD_CONNECTION_OPEN)
        connection->events->opened(connection->context);
    if (connection->state == TD_CONNECTION_OPEN)
        lws_callback_on_writable(connection->wsi);
}

tandem_err td_err_of_close_code(unsigned code)
{
    if (code == TD_CLOSE_NORMAL || code == TD_CLOSE_GOING_AWAY)
        return TANDEM_OK;
    return code == TD_CLOSE_TROUBLE ? TANDEM_E_UNREACHABLE : TANDEM_E_PROTOCOL;
}

/* The peer's close frame: code and text, which are the peer's. */
static void on_peer_close(td_connection *connection, const uint8_t *bytes, size_t size)
{
    unsigned code = size >= 2 ? (unsigned)bytes[0] << 8 | bytes[1] : TD_CLOSE_NORMAL;
    char text[TD_CLOSE_TEXT_BYTES_MAX + 1];
    size_t used = 0;

    for (size_t i = 2; i < size && used < TD_CLOSE_TEXT_BYTES_MAX; i++)
        text[used++] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? (char)bytes[i] : '?';
    text[used] = '\0';
    td_connection_set_reason(connection, td_err_of_close_code(code), code,
                             "closed by the peer (%u)%s%s", code, used ? ": " : "", text);
    connection->state = TD_CONNECTION_CLOSING;
    td_connection_set_deadline(connection);
}

/* Is the peer still there, so that it was us (libwebsockets) who hung up? */
static bool is_peer_there(struct lws *wsi)
{
    uint8_t byte;
    ssize_t got = recv(lws_get_socket_fd(wsi), &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK));
}

/* An open connection goes, and nobody said why. */
static void on_going(td_connection *connection)
{
    uint64_t silent_ms = uv_now(connection->network->loop) - connection->heard_ms;

    if (connection->network->freeing)
        td_connection_set_reason(connection, TANDEM_OK, 0, "the network was shut down");
    else if (silent_ms >= (TD_NETWORK_HANGUP_S - 1) * 1000 && is_peer_there(connection->wsi))
        td_connection_set_reason(connection, TANDEM_E_TIMEOUT, 0, "no sign of life for %d s",
                                 TD_NETWORK_HANGUP_S);
    else if (lws_get_close_length(connection->wsi) || is_peer_there(connection->wsi))
        td_connection_set_reason(connection, TANDEM_E_PROTOCOL, 0,
                                 "the peer sent what is no WebSocket frame");
    connection->state = TD_CONNECTION_CLOSING;
    td_connection_set_deadline(connection);
}

static void on_dial_failed(td_connection *connection, struct lws *wsi, const char *why)
{
    unsigned status = lws_http_client_http_response(wsi);

    if (!connection->reached)
        return; /* another address may do */
    if (status && status != 101)
        td_connection_set_reason(connection, TANDEM_E_PROTOCOL, 0,
                                 "not a tandem peer: it answered with HTTP status %u", status);
    else if (status || strstr(why, "HS:") || strstr(why, "pars"))
        td_connection_set_reason(connection, TANDEM_E_PROTOCOL, 0, "not a tandem peer: %.80s", why);
    else
        td_connection_set_reason(connection, TANDEM_E_UNREACHABLE, 0,
                                 "the other side hung up before it answered");
}

static void on_watcher_freed(uv_handle_t *handle)
{
    td_network *network = handle->data;

    network->handles--;
    free(handle);
}

struct forgotten {
    td_network *network;
    const struct lws *wsi;
};

static void close_if_forgotten(uv_handle_t *handle, void *argument)
{
    const struct forgotten *forgotten = argument;

    if (handle->type != UV_POLL || handle->data != forgotten->wsi || uv_is_closing(handle))
        return;
    handle->data = forgotten->network;
    forgotten->network->handles++;
    uv_close(handle, on_watcher_freed);
}

/* The last word about a wsi. Its connection may be gone long since. */
static void on_destroyed(td_network *network, struct lws *wsi, td_connection *claimed)
{
    struct forgotten forgotten = {network, wsi};
    td_connection *connection;

    uv_walk(network->loop, close_if_forgotten, &forgotten);
    DL_FOREACH(network->connections, connection)
        if (connection == claimed)
            break;
    if (!connection || connection->wsi != wsi)
        return;
    connection->wsi = NULL;
    if (connection->state == TD_CONNECTION_HANDSHAKE && !connection->listener &&
        !connection->has_reason && !network->freeing) {
        if (td_client_try_next(connection))
            return;
        td_connection_set_reason(connection, TANDEM_E_UNREACHABLE, 0, "nobody answers at %s",
                                 connection->authority);
    }
    if (connection->listener && !connection->established && !network->freeing)
        network->rejected++;
    if (network->freeing)
        td_connection_set_reason(connection, TANDEM_OK, 0, "the network was shut down");
    td_connection_end(connection);
}

/* A request that is none of ours: answer it and hang up. */
static int judge_upgrade(td_connection *connection, struct lws *wsi)
{
    int status = td_server_judge(connection->listener, wsi);

    if (connection->state != TD_CONNECTION_HANDSHAKE ||
        connection->network->serving >= TD_NETWORK_CONNECTIONS_MAX)
        status = -1;
    if (!status)
        return 0;
    td_log(connection->network->env, TANDEM_LOG_DEBUG, "network", "an upgrade is refused (%d)",
           status);
    if (status > 0)
        lws_return_http_status(wsi, (unsigned)status, NULL);
    return -1;
}

/* Does the server speak our subprotocol? libwebsockets lets one pass that names none. */
static bool names_protocol(struct lws *wsi)
{
    char name[sizeof(TD_NETWORK_PROTOCOL) + 1];

    return lws_hdr_copy(wsi, name, sizeof(name), WSI_TOKEN_PROTOCOL) > 0 &&
           strcmp(name, TD_NETWORK_PROTOCOL) == 0;
}

/* Does a handshake go on that was to end? */
static bool is_unwanted(const td_connection *connection, enum lws_callback_reasons reason)
{
    switch (reason) {
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
    case LWS_CALLBACK_CLIENT_FILTER_PRE_ESTABLISH:
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
    case LWS_CALLBACK_FILTER_HTTP_CONNECTION:
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
    case LWS_CALLBACK_ESTABLISHED:
    case LWS_CALLBACK_HTTP_BODY:
    case LWS_CALLBACK_HTTP_BODY_COMPLETION:
    case LWS_CALLBACK_HTTP_WRITEABLE:
        return connection->state == TD_CONNECTION_CLOSING;
    default:
        return false;
    }
}

static int dispatch(td_network *network, td_connection *connection, struct lws *wsi,
                    enum lws_callback_reasons reason, void *in, size_t size)
{
    if (is_unwanted(connection, reason))
        return -1;
    switch (reason) {
    case LWS_CALLBACK_WSI_DESTROY:
        on_destroyed(network, wsi, connection);
        return 0;
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE: /* in may dangle: the header is read again */
        return judge_upgrade(connection, wsi);
    case LWS_CALLBACK_FILTER_HTTP_CONNECTION:
        return td_http_server_request(connection);
    case LWS_CALLBACK_HTTP_BODY:
        return td_http_server_body(connection, in, size);
    case LWS_CALLBACK_HTTP_BODY_COMPLETION:
        return td_http_server_complete(connection);
    case LWS_CALLBACK_HTTP_WRITEABLE:
        return td_http_server_room(connection);
    case LWS_CALLBACK_RAW_ADOPT: /* CONNECT makes a raw socket of a request */
    case LWS_CALLBACK_RAW_RX:
        return -1;
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
        connection->reached = true;
        return 0;
    case LWS_CALLBACK_CLIENT_FILTER_PRE_ESTABLISH:
        return names_protocol(wsi) ? 0 : -1;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        on_dial_failed(connection, wsi, in ? in : "");
        return 0;
    case LWS_CALLBACK_ESTABLISHED:
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        on_open(connection);
        return 0;
    case LWS_CALLBACK_RECEIVE:
    case LWS_CALLBACK_CLIENT_RECEIVE:
        return on_bytes(connection, in, size);
    case LWS_CALLBACK_RECEIVE_PONG:
    case LWS_CALLBACK_CLIENT_RECEIVE_PONG:
        heard(connection);
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        return on_room(connection);
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        on_peer_close(connection, in, size);
        return 0;
    case LWS_CALLBACK_HTTP_DROP_PROTOCOL:
        if (connection->state == TD_CONNECTION_HTTP && !is_peer_there(wsi))
            td_http_server_hung_up(connection);
        return 0;
    case LWS_CALLBACK_WS_SERVER_DROP_PROTOCOL: /* before the socket is shut */
    case LWS_CALLBACK_WS_CLIENT_DROP_PROTOCOL:
        if (connection->state == TD_CONNECTION_OPEN)
            on_going(connection);
        return 0;
    default:
        return 0;
    }
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                    size_t size)
{
    td_network *network = lws_context_user(lws_get_context(wsi));
    td_connection *connection = lws_get_opaque_user_data(wsi);
    int result;

    if (reason == LWS_CALLBACK_EVENT_WAIT_CANCELLED)
        network->awake = false;
    if (!connection)
        return 0; /* its internal ones */
    network->depth++;
    result = dispatch(network, connection, wsi, reason, in, size);
    network->depth--;
    return result;
}

/* ---- The network ---- */

void td_network_wake(td_network *network)
{
    if (network->depth || network->awake || !network->lws)
        return;
    network->awake = true;
    lws_cancel_service(network->lws);
}

/* libwebsockets cannot undo a context for which it found no descriptors: see first. */
static bool has_descriptors(void)
{
    int fds[FDS_OF_CONTEXT];
    bool enough = true;

    for (int i = 0; i < FDS_OF_CONTEXT; i++)
        if ((fds[i] = eventfd(0, EFD_CLOEXEC)) < 0)
            enough = false;
    for (int i = 0; i < FDS_OF_CONTEXT; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return enough;
}

static struct lws_context *open_context(td_network *network)
{
    static const struct lws_protocols protocols[] = {
        {.name = TD_NETWORK_PROTOCOL,
         .callback = on_event,
         .per_session_data_size = 1, /* unused: only with one is DROP_PROTOCOL said */
         .rx_buffer_size = TD_NETWORK_FRAME_BYTES,
         .tx_packet_size = TD_NETWORK_FRAME_BYTES},
        {0},
    };
    void *loops[] = {network->loop};
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN,
        .options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_SKIP_SERVER_CANONICAL_NAME,
        .foreign_loops = loops,
        .protocols = protocols,
        .extensions = NULL,
        .alpn = "http/1.1",
        .user = network,
        .pcontext = &network->lws,
        .fd_limit_per_thread = FD_LIMIT,
        .max_http_header_pool2 = FD_LIMIT,
        .pt_serv_buf_size = TD_NETWORK_FRAME_BYTES + 4096,
        .timeout_secs = LWS_PATIENCE_S,
        .keepalive_timeout = TD_HTTP_IDLE_S,
        .connect_timeout_secs = TD_NETWORK_DIAL_S,
        .retry_and_idle_policy = &liveness,
        .http_proxy_address = "", /* or it takes one from the environment */
    };

    /* Process-wide; it writes to stderr otherwise. */
    lws_set_log_level(0, NULL);
    return lws_create_context(&info);
}

/*
 * libwebsockets closes the descriptor that wakes it twice, with a turn of the loop in between: a
 * file that another thread opens meanwhile would lose its number. A pipe of ours takes the number
 * for that turn.
 */
struct placeholder {
    int ends[2];
    int taken; /* the number held; -1: none */
    ino_t inode;
};

static void hold_place(struct placeholder *place, int fd)
{
    struct stat status;

    place->taken = -1;
    if (fd < 0 || pipe2(place->ends, O_CLOEXEC) != 0) {
        place->ends[0] = place->ends[1] = -1;
        return;
    }
    fstat(place->ends[0], &status);
    place->inode = status.st_ino;
    place->taken = place->ends[0] == fd ? fd : fcntl(place->ends[0], F_DUPFD_CLOEXEC, fd);
    if (place->taken != fd && place->taken >= 0) {
        close(place->taken); /* another thread was quicker, or a newer library keeps it open */
        place->taken = -1;
    }
}

static void leave_place(const struct placeholder *place)
{
    struct stat status;

    if (place->ends[0] < 0)
        return;
    /* Still ours if the second close never came. */
    if (place->taken >= 0 && fstat(place->taken, &status) == 0 && S_ISFIFO(status.st_mode) &&
        status.st_ino == place->inode)
        close(place->taken);
    if (place->taken != place->ends[0])
        close(place->ends[0]);
    close(place->ends[1]);
}

static void find_newest_poll(uv_handle_t *handle, void *argument)
{
    if (handle->type == UV_POLL)
        *(uv_handle_t **)argument = handle;
}

/* The descriptor that wakes a context just made. */
static int wake_descriptor(uv_loop_t *loop)
{
    uv_handle_t *newest = NULL;
    uv_os_fd_t fd;

    uv_walk(loop, find_newest_poll, &newest);
    return newest && uv_fileno(newest, &fd) == 0 ? fd : -1;
}

tandem_err td_network_open(td_host *host, td_network **out)
{
    td_network *network;

    if (!has_descriptors())
        return TANDEM_E_IO;
    if (!(network = calloc(1, sizeof(*network))))
        return TANDEM_E_NOMEM;
    network->env = host->runtime->env;
    network->loop = td_host_loop(host);
    network->lws = open_context(network);
    network->wake_fd = -1;
    if (network->lws)
        network->vhost = lws_get_vhost_by_name(network->lws, "default");
    if (network->vhost)
        network->wake_fd = wake_descriptor(network->loop);
    if (!network->vhost) {
        td_network_free(network);
        return TANDEM_E_IO;
    }
    *out = network;
    return TANDEM_OK;
}

uint64_t td_network_rejected(const td_network *network)
{
    return network->rejected;
}

struct static_handles {
    const struct lws_context *lws;
    unsigned count;
};

/* The idle handle and the timer of a context carry it as their data. */
static void count_static_handle(uv_handle_t *handle, void *argument)
{
    struct static_handles *handles = argument;

    if (handle->data == handles->lws && handle->type != UV_POLL)
        handles->count++;
}

static bool is_context_on_loop(const td_network *network)
{
    struct static_handles handles = {.lws = network->lws};

    if (!network->lws)
        return false;
    uv_walk(network->loop, count_static_handle, &handles);
    return handles.count > 0;
}

void td_network_free(td_network *network)
{
    td_connection *connection, *next;
    struct placeholder place;

    if (!network)
        return;
    assert(!network->depth);
    network->freeing = true;
    while (network->listeners)
        td_listener_close(network->listeners);
    td_http_server_free_links(network);
    DL_FOREACH_SAFE(network->connections, connection, next) {
        if (connection->wsi)
            continue;
        td_connection_set_reason(connection, TANDEM_OK, 0, "the network was shut down");
        td_connection_end(connection);
    }
    /* 1. All sockets begin to close. 2. The loop closes their handles, then those of the context.
     * 3. The context goes. */
    lws_context_destroy(network->lws);
    hold_place(&place, network->wake_fd);
    while (network->handles || is_context_on_loop(network))
        uv_run(network->loop, UV_RUN_ONCE);
    assert(!network->connections);
    if (network->lws)
        lws_context_destroy(network->lws);
    assert(!network->lws);
    leave_place(&place);
    free(network);
}
