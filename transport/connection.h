/*
 * What network.c, server.c and client.c share: the network and its connections.
 *
 * A connection is ours, the struct lws under it (its wsi) is the library's; they hold each other by
 * pointer. libwebsockets may free a wsi that we were never told of, or destroy one a turn after the
 * call that made it failed, so a wsi's word counts only while it is the connection's current one.
 *
 *      handshake ──> open ──> closing ──> (wsi destroyed) ──> closed() ──> freed with its timer
 *          └───────────┴─────────────────────────^
 *
 * All of our own deadlines are one uv_timer_t a connection: timers of libwebsockets that are set
 * from outside its own callbacks are not armed before the next socket event.
 */
#ifndef TANDEM_TRANSPORT_CONNECTION_H
#define TANDEM_TRANSPORT_CONNECTION_H

#include <libwebsockets.h>
#include <uv.h>

#include "transport/http_server.h"
#include "transport/network.h"
#include "transport/wire.h"

enum {
    /* A link over HTTP has two sockets at times; some are left for dialing. */
    TD_NETWORK_ACCEPTED_MAX = 2 * TD_NETWORK_CONNECTIONS_MAX,
    TD_NETWORK_SOCKETS_MAX = TD_NETWORK_ACCEPTED_MAX + 400,
    TD_NETWORK_CLOSE_S = 10, /* to send what was written and see the close frame answered */
    TD_CLOSE_TEXT_BYTES_MAX = 123,
};

#define TD_TOO_MUCH_TEXT "more than 64 KiB before a HELLO that was accepted"

/* Close codes of RFC 6455. */
enum {
    TD_CLOSE_NORMAL = 1000,
    TD_CLOSE_GOING_AWAY = 1001,
    TD_CLOSE_PROTOCOL = 1002,
    TD_CLOSE_NOT_BINARY = 1003,
    TD_CLOSE_TOO_LARGE = 1009,
    TD_CLOSE_TROUBLE = 1011,
};

typedef struct td_listener td_listener;
typedef struct td_lookup td_lookup;
typedef struct td_http_exchange td_http_exchange;
typedef struct td_http_server_link td_http_server_link;

struct td_listener {
    uv_tcp_t tcp; /* first: its close callback frees the listener */
    td_network *network;
    td_listener *prev, *next;
    char address[INET6_ADDRSTRLEN];
    bool is_any; /* 0.0.0.0 or :: */
    uint16_t port;
    td_accept_fn accept;
    void *context;
};

typedef enum td_connection_state {
    TD_CONNECTION_HANDSHAKE, /* from resolving the name, or from the accepted socket on */
    TD_CONNECTION_OPEN,
    TD_CONNECTION_HTTP, /* it carries exchanges, one after the other: http_server.c */
    TD_CONNECTION_CLOSING, /* nothing is called any more but closed() */
} td_connection_state;

struct td_connection {
    uv_timer_t timer; /* first: its close callback frees the connection */
    td_network *network;
    td_connection *prev, *next;
    td_connection_state state;
    const td_listener *listener; /* accepted there; NULL: dialed */
    const td_connection_events *events;
    void *context;
    struct lws *wsi; /* NULL: none yet, between two, or no more */
    bool established; /* the handshake was through, whatever came then */
    bool close_begun; /* the close frame is libwebsockets' business now */
    bool serving;     /* it counts among the network's */
    td_http_exchange *exchange; /* the one that it carries now */
    uint8_t answered_link[16];  /* of the last one */

    /* Dialing. */
    td_lookup *lookup;                /* NULL: not resolving */
    struct addrinfo *addresses;       /* all … */
    const struct addrinfo *untried;   /* … and those left */
    bool reached;                     /* TCP is connected: no further address is tried */
    char authority[272];              /* the Host header */

    /* Receiving. */
    bool held;
    bool receiving; /* a message has begun */
    tandem_writer in;
    uint64_t heard_ms; /* of the loop's clock */

    /* Sending. */
    bool asked_for_room; /* of libwebsockets, which has not called back yet */
    bool sending; /* a message has begun: sent of out's bytes are written */
    tandem_writer out;
    size_t sent;

    /* The first reason to end counts. */
    bool has_reason;
    tandem_err err;
    unsigned close_code;
    char text[160];
};

struct td_network {
    tandem_env *env;
    uv_loop_t *loop;
    struct lws_context *lws; /* NULL once destroyed */
    struct lws_vhost *vhost;
    td_listener *listeners;
    td_connection *connections;
    unsigned accepted, dialed; /* of connections */
    unsigned serving;          /* accepted connections that are open, and links over HTTP */
    td_http_server_link *links;
    td_http_accept_fn http_accept; /* NULL: HTTP is not served */
    void *http_context;
    unsigned handles;          /* our own on the loop, and requests: freed before the network is */
    int wake_fd;               /* with which libwebsockets wakes itself; -1: none */
    unsigned depth;            /* callbacks of libwebsockets that we are in */
    bool awake;                /* a wake-up is under way */
    bool freeing;
    uint64_t rejected;
    uint8_t frame[LWS_PRE + TD_NETWORK_FRAME_BYTES]; /* libwebsockets masks in place: a copy */
};

/* listener NULL: dialed. NULL if memory ran out. The handshake's deadline runs from here. */
td_connection *td_connection_new(td_network *network, const td_listener *listener);
/* No wsi (any more): call closed() or count it as rejected, then free it at the end of the turn. */
void td_connection_end(td_connection *connection);
/* Call td_connection_end() from the loop, not from within the caller's call. */
void td_connection_end_soon(td_connection *connection);
/* Record why it ends, unless there is a reason already. */
void td_connection_set_reason(td_connection *connection, tandem_err err, unsigned close_code,
                              const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Close with the recorded reason, politely if it is open. */
void td_connection_shut(td_connection *connection);

/* What a close code means to the one that is closed. */
tandem_err td_err_of_close_code(unsigned code);
/* Start the deadline of what the connection is about now. */
void td_connection_set_deadline(td_connection *connection);

/* Have libwebsockets look at its timers and buffers, and the loop at new handles. */
void td_network_wake(td_network *network);

/* server.c */
/* The HTTP status that refuses this upgrade, 0 to let it pass, -1 to hang up without a word. */
int td_server_judge(const td_listener *listener, struct lws *wsi);
/* The same for a request of any kind, by what it says of where it comes from and goes to. */
int td_server_judge_request(const td_listener *listener, struct lws *wsi, int uri_token);
void td_listener_close(td_listener *listener);

/* http_server.c */
/* A request that is no upgrade: its headers, a piece of its body, its end, room for its answer.
 * Nonzero: hang up. */
int td_http_server_request(td_connection *connection);
int td_http_server_body(td_connection *connection, const void *bytes, size_t size);
int td_http_server_complete(td_connection *connection);
int td_http_server_room(td_connection *connection);
/* The deadline of what the connection is about; 0: none. */
unsigned td_http_server_deadline_s(const td_connection *connection);
/* It has passed: say so in the connection's reason. */
void td_http_server_late(td_connection *connection);
/* The connection is gone, for the reason recorded, and with it its exchange. */
void td_http_server_gone(td_connection *connection);
/* The client closed the connection. */
void td_http_server_hung_up(td_connection *connection);
void td_http_server_free_links(td_network *network);

/* client.c */
/* An attempt failed before the peer was reached: try the next address. */
bool td_client_try_next(td_connection *connection);
/* Forget what resolving and dialing hold. */
void td_client_release(td_connection *connection);

#endif
