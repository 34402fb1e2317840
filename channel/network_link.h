/*
 * What the carriers over a network share: a link that stands before what moves its bytes, a
 * td_connection or a td_http_link. Those know nothing of carriers, and a link begins with its own;
 * so their events come here and are passed on.
 *
 * Ownership: it is freed after closed(). Until then it is the backend's to give to its user.
 */
#ifndef TANDEM_CHANNEL_NETWORK_LINK_H
#define TANDEM_CHANNEL_NETWORK_LINK_H

#include "channel/carrier.h"

typedef struct td_network_link {
    td_link base;
    void *moves; /* what moves its bytes, of the backend's kind */
    const td_connection_events *events; /* the user's */
    void *context;
} td_network_link;

/* Who takes the links that come in. */
typedef struct td_link_acceptor {
    td_carrier *carrier;
    td_link_accept_fn accept;
    void *context;
} td_link_acceptor;

/* What the backend is given for its events; the context is the td_network_link. */
extern const td_connection_events td_network_link_events;

/* For dialing: moves is still to be set. NULL if memory ran out; free() it if dialing fails. */
td_network_link *td_network_link_open(td_carrier *carrier, const td_connection_events *events,
                                      void *context);
/* Something has come in: offer it to the acceptor. Whatever that says, or TANDEM_E_NOMEM. */
tandem_err td_network_link_accept(const td_link_acceptor *acceptor, void *moves,
                                  const td_connection_events **events_out, void **context_out);

static inline void *td_network_link_moves(td_link *link)
{
    return ((td_network_link *)link)->moves;
}

/* pace() and poll() of a link on which messages flow at any time. */
bool td_link_has_no_pace(td_link *link, uint64_t pause_ms);
void td_link_has_no_exchanges(td_link *link);

/* "SCHEME://HOST:PORT/tandem" of a listener's address. */
void td_network_url(const char *scheme, const char *address, uint16_t port, char url_out[128]);

#endif
