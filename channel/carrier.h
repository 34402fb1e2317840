/*
 * A carrier: a backend's presence in one reactor. It dials and accepts links and moves whole
 * messages over them, and knows nothing of what is in them; so a new backend is small.
 *
 * The rules of a link are those of a connection in transport/network.h: sending is asked for with
 * want_write and pulled by writable(), receiving can be held, and closed() is called exactly once
 * for each link, never from within close(). Backends: memory_channel.c, websocket_channel.c,
 * http_channel.c, exchange_channel.c; one conformance suite (tests/channel_suite.c) runs on all.
 *
 * Threads: the loop host's.
 */
#ifndef TANDEM_CHANNEL_CARRIER_H
#define TANDEM_CHANNEL_CARRIER_H

#include "transport/network.h"

typedef struct td_carrier td_carrier;
typedef struct td_link td_link;

/* A link came in: set events and context, or refuse it with an error. */
typedef tandem_err (*td_link_accept_fn)(void *context, td_link *link,
                                        const td_connection_events **events_out,
                                        void **context_out);

/* No slot may be NULL. */
typedef struct td_carrier_ops {
    const char *scheme; /* "mem", "ws", "http" */
    bool packs; /* what is said takes time by its length: it is worth packing (packer.h) */
    /* Is this a URL of the scheme that could be dialed? TANDEM_E_INVALID, TANDEM_E_UNSUPPORTED. */
    tandem_err (*check)(const char *url);
    tandem_err (*dial)(td_carrier *carrier, const char *url, const td_connection_events *events,
                       void *context, td_link **out);
    /* url_out: where others dial to. */
    tandem_err (*listen)(td_carrier *carrier, const char *address, uint16_t port,
                         td_link_accept_fn accept, void *context, char url_out[128]);
    uint64_t (*rejected)(const td_carrier *carrier);
    void (*want_write)(td_link *link);
    void (*hold)(td_link *link, bool hold);
    /* Of a link that was dialed and works by exchanges: have none under way but when there is
     * something to send, or poll() asks for one, which is to happen at least each pause_ms; 0: always
     * have one (long poll), as at first. False, and nothing changes: messages flow at any time. */
    bool (*pace)(td_link *link, uint64_t pause_ms);
    void (*poll)(td_link *link);
    void (*close)(td_link *link, tandem_err err, const char *text);
    /* Closes what is open (closed() is called) and frees. On the host's thread or after its stop. */
    void (*free)(td_carrier *carrier);
} td_carrier_ops;

struct td_carrier {
    const td_carrier_ops *ops;
};

struct td_link {
    td_carrier *carrier;
};

/* The WebSocket carrier on a loop host. */
tandem_err td_websocket_carrier_open(td_host *host, td_carrier **out);
/* The network that it listens with. */
td_network *td_websocket_carrier_network(td_carrier *carrier);

/* The HTTP carrier on a loop host. */
tandem_err td_http_url_check(const char *url); /* as td_carrier_ops.check, without a carrier */
tandem_err td_http_carrier_open(td_host *host, td_carrier **out);
/* Close what was dialed, for good; what was accepted goes on. */
void td_http_carrier_end_dialing(td_carrier *carrier);
/* Take the links that come in over HTTP where network listens, instead of listening itself; accept
 * as in td_carrier_ops.listen. The network is freed before the carrier is. */
void td_http_carrier_serve(td_carrier *carrier, td_network *network, td_link_accept_fn accept,
                           void *context);

/*
 * The memory network: what joins memory carriers of one process, with faults on request. URLs are
 * mem://NAME, or mem://NAME/http for links that work by exchanges, as those over HTTP do. Its functions may be called from any thread; in a simulation the seed decides what the
 * faults hit.
 */
typedef struct td_memory_network td_memory_network;

typedef struct td_memory_faults {
    uint32_t latency_ms_min, latency_ms_max;
    uint32_t lose_permille;      /* a message vanishes */
    uint32_t duplicate_permille; /* a message comes twice */
    uint32_t reorder_permille;   /* a message overtakes those before it */
    uint32_t corrupt_permille;   /* one bit of a message comes wrong */
} td_memory_faults;

tandem_err td_memory_network_open(td_memory_network **out);
void td_memory_network_free(td_memory_network *network); /* no carrier may be on it; NULL is fine */
void td_memory_network_faults(td_memory_network *network, const td_memory_faults *faults);
/* From now on nothing gets from a to b (and, if both, from b to a); links are not told, as with a
 * cable that is cut. */
void td_memory_network_cut(td_memory_network *network, const char *a, const char *b, bool both);
void td_memory_network_heal(td_memory_network *network, const char *a, const char *b);
/* What goes from a to b is kept on the way, in order, until that ends. */
void td_memory_network_clog(td_memory_network *network, const char *a, const char *b, bool clogged);
/* b has lost its links with a and is told so; a is not, and what it sends there is lost. */
void td_memory_network_half_open(td_memory_network *network, const char *a, const char *b);
/* A carrier of this name takes so long for each message; 0: no time. */
void td_memory_network_slow(td_memory_network *network, const char *name, uint32_t message_ms);
/* Messages handed over so far. */
uint64_t td_memory_network_carried(td_memory_network *network);

/* A carrier under a name on the network. TANDEM_E_EXISTS. */
tandem_err td_memory_carrier_open(td_memory_network *network, td_host *host, const char *name,
                                  td_carrier **out);
/* Links that were dialed as mem://NAME/http are not for listen's accept but for this one; url_out as
 * there. */
void td_memory_carrier_serve_exchanges(td_carrier *carrier, td_link_accept_fn accept,
                                       void *context, char url_out[128]);

/* The carrier of links that work by exchanges, on a memory carrier, which is borrowed and freed
 * before this one is. */
tandem_err td_exchange_carrier_open(td_host *host, td_carrier *inner, td_carrier **out);

#endif
