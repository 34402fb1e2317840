/*
 * The network: WebSocket connections, dialed and accepted, on a loop host's libuv loop
 * (libwebsockets as a foreign loop). It moves whole messages and knows nothing of what is in them.
 *
 * Path /tandem, subprotocol tandem.1, binary messages of at most TD_MESSAGE_BYTES_MAX, extensions
 * off. A request that carries an Origin header, a Host that is not an address or name of this
 * listener, another path, another subprotocol or an upgrade to anything else is refused and counted:
 * browsers reach loopback. The same listeners serve links over HTTP if they are told to
 * (http_server.h).
 *
 * Sending is asked for, not pushed: on opening and after td_connection_want_write() the connection
 * calls writable() whenever the socket has room, and each call may append one message, so nothing
 * queues here. Receiving can be held: then the kernel's buffers fill and the sender slows.
 *
 * Lifetimes: a connection is the caller's until closed() was called (exactly once for each that was
 * opened, also when dialing fails); then it is gone. td_connection_close() asks and returns at once;
 * closed() follows, never from within the call. What a callback stands on is freed at the end of the
 * turn.
 *
 * Liveness: pings after TD_NETWORK_PING_S of silence, hang-up after TD_NETWORK_HANGUP_S, but not
 * while receiving is held. Every phase has a deadline: dialing and an incoming handshake 10 s, one
 * whole message 30 s once it has begun, closing 10 s.
 *
 * libwebsockets ignores SIGPIPE for the whole process, and is told to log nothing.
 *
 * Threads: the loop host's thread, for every call and every callback.
 */
#ifndef TANDEM_TRANSPORT_NETWORK_H
#define TANDEM_TRANSPORT_NETWORK_H

#include "reactor/runtime.h"
#include "store/msgpack.h"

enum {
    TD_NETWORK_PING_S = 20,
    TD_NETWORK_HANGUP_S = 60,
    TD_NETWORK_DIAL_S = 10,
    TD_NETWORK_MESSAGE_S = 30,
    TD_NETWORK_CONNECTIONS_MAX = 1024, /* dialed; accepted and open, with links over HTTP */
    TD_NETWORK_FRAME_BYTES = 64 * 1024,
};

#define TD_NETWORK_PATH "/tandem"
#define TD_NETWORK_PROTOCOL "tandem.1"

typedef struct td_network td_network;
typedef struct td_connection td_connection;

typedef struct td_connection_events {
    /* The connection is open: messages may flow. */
    void (*opened)(void *context);
    /* A whole message; bytes are borrowed for the call. */
    void (*message)(void *context, tandem_slice bytes);
    /* Room to send: append one message to out and return TANDEM_OK, or TANDEM_END if there is
     * nothing (asking stops until the next want_write). */
    tandem_err (*writable)(void *context, tandem_writer *out);
    /* The peer asks to be left alone for so long; closed() follows at once. May be NULL. */
    void (*retry_after)(void *context, uint64_t delay_ms);
    /* Of links that work by exchanges (http_link.h); each may be NULL. */
    /* The client has said that between two exchanges up to so long may pass; 0: one is always under
     * way. Before the first message that hangs on it. */
    void (*paced)(void *context, uint64_t pause_ms);
    /* Dialed: an exchange begins … */
    void (*exchange_began)(void *context);
    /* … and is over, its messages delivered (or held); more: its answer was full. */
    void (*exchange_ended)(void *context, uint64_t took_ms, uint64_t bytes, bool more);
    /* Dialed: is an answer awaited to what was sent, or is about to be? */
    bool (*expects)(void *context);
    /* Is the peer known? Until then no more than TD_OPENING_BYTES_MAX is taken of it at once: what
     * has come unasked may be anybody's. NULL: yes. */
    bool (*knows)(void *context);
    /* Gone. TANDEM_OK after a normal close of either side, TANDEM_E_UNREACHABLE, TANDEM_E_TIMEOUT,
     * TANDEM_E_PROTOCOL (not a tandem peer, bad framing, message too large), TANDEM_E_INSECURE.
     * text: one sentence for people, borrowed. */
    void (*closed)(void *context, tandem_err err, const char *text);
} td_connection_events;

/* A connection came in: set its events and context (both must be set in the call) and return
 * TANDEM_OK, or an error to refuse it. opened() follows. */
typedef tandem_err (*td_accept_fn)(void *context, td_connection *connection,
                                   const td_connection_events **events_out, void **context_out);

/* Attach to a loop host that runs, or will. Errors: TANDEM_E_NOMEM, TANDEM_E_IO. */
tandem_err td_network_open(td_host *host, td_network **out);
/* Closes every connection without a close frame (closed() is called with TANDEM_OK) and runs the
 * loop until it has let go. Call it on the loop's thread, or on any once the host has stopped, but
 * never from within a callback of a connection; from within another callback of the loop it works,
 * and other callbacks of the loop then happen inside it. NULL is fine. */
void td_network_free(td_network *network);

/*
 * Listen.
 *
 * address      an IPv4 or IPv6 address ("127.0.0.1", "::1"); beyond loopback it is the caller's
 *              business to have decided that
 * port         0 picks one; port_out receives the real one
 * Errors: TANDEM_E_ADDRESS_IN_USE, TANDEM_E_INVALID (no such address here), TANDEM_E_PERMISSION,
 * TANDEM_E_IO.
 */
tandem_err td_network_listen(td_network *network, const char *address, uint16_t port,
                             td_accept_fn accept, void *context, uint16_t *port_out);
/* Requests refused since open: Origin, Host, path, subprotocol, garbage, too many connections. */
uint64_t td_network_rejected(const td_network *network);

/*
 * Dial ws://HOST[:PORT]/tandem. The outcome comes as opened() or closed().
 * Names are resolved off the loop's thread; all their addresses are tried within the deadline.
 *
 * Errors, nothing will be called: TANDEM_E_INVALID (not such a URL), TANDEM_E_UNSUPPORTED (wss),
 * TANDEM_E_LIMIT (TD_NETWORK_CONNECTIONS_MAX dialed), TANDEM_E_CLOSED (the network is being freed),
 * TANDEM_E_NOMEM.
 */
tandem_err td_network_dial(td_network *network, const char *url, const td_connection_events *events,
                           void *context, td_connection **out);

void td_connection_want_write(td_connection *connection);
/* Stop or resume receiving; a message that has begun may still come. */
void td_connection_hold(td_connection *connection, bool hold);
/* Close after what was already written. err and text go into the close frame (1000 for TANDEM_OK,
 * 1002 protocol, 1011 else), and to closed(). Nothing else is called any more. */
void td_connection_close(td_connection *connection, tandem_err err, const char *text);

/* Check a URL without dialing: TANDEM_OK, TANDEM_E_INVALID, TANDEM_E_UNSUPPORTED (wss, http, https). */
tandem_err td_url_check(const char *url);

#endif
