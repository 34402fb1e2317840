/* The WebSocket carrier: transport/network.h under the contract of a carrier. */
#include "channel/network_link.h"

#include <stdlib.h>

struct websocket_carrier {
    td_carrier base;
    td_network *network;
    td_link_acceptor acceptor;
};

static struct websocket_carrier *carrier_of(td_carrier *carrier)
{
    return (struct websocket_carrier *)carrier;
}

static td_connection *connection_of(td_link *link)
{
    return td_network_link_moves(link);
}

static tandem_err websocket_dial(td_carrier *carrier, const char *url,
                                 const td_connection_events *events, void *context, td_link **out)
{
    td_network_link *link = td_network_link_open(carrier, events, context);
    td_connection *connection;
    tandem_err err;

    if (!link)
        return TANDEM_E_NOMEM;
    if ((err = td_network_dial(carrier_of(carrier)->network, url, &td_network_link_events, link,
                               &connection)) != TANDEM_OK) {
        free(link);
        return err;
    }
    link->moves = connection;
    *out = &link->base;
    return TANDEM_OK;
}

static tandem_err accept_connection(void *context, td_connection *connection,
                                    const td_connection_events **events_out, void **context_out)
{
    return td_network_link_accept(context, connection, events_out, context_out);
}

static tandem_err websocket_listen(td_carrier *base, const char *address, uint16_t port,
                                   td_link_accept_fn accept, void *context, char url_out[128])
{
    struct websocket_carrier *carrier = carrier_of(base);
    uint16_t real_port = 0;
    tandem_err err;

    carrier->acceptor = (td_link_acceptor){base, accept, context};
    if ((err = td_network_listen(carrier->network, address, port, accept_connection,
                                 &carrier->acceptor, &real_port)) != TANDEM_OK)
        return err;
    td_network_url("ws", address, real_port, url_out);
    return TANDEM_OK;
}

static uint64_t websocket_rejected(const td_carrier *carrier)
{
    return td_network_rejected(((const struct websocket_carrier *)carrier)->network);
}

static void websocket_want_write(td_link *link)
{
    td_connection_want_write(connection_of(link));
}

static void websocket_hold(td_link *link, bool hold)
{
    td_connection_hold(connection_of(link), hold);
}

static void websocket_close(td_link *link, tandem_err err, const char *text)
{
    td_connection_close(connection_of(link), err, text);
}

static void websocket_free(td_carrier *carrier)
{
    if (!carrier)
        return;
    td_network_free(carrier_of(carrier)->network);
    free(carrier);
}

static const td_carrier_ops websocket_ops = {
    .scheme = "ws",
    .packs = true,
    .check = td_url_check,
    .dial = websocket_dial,
    .listen = websocket_listen,
    .rejected = websocket_rejected,
    .want_write = websocket_want_write,
    .hold = websocket_hold,
    .pace = td_link_has_no_pace,
    .poll = td_link_has_no_exchanges,
    .close = websocket_close,
    .free = websocket_free,
};

tandem_err td_websocket_carrier_open(td_host *host, td_carrier **out)
{
    struct websocket_carrier *carrier = calloc(1, sizeof(*carrier));
    tandem_err err;

    if (!carrier)
        return TANDEM_E_NOMEM;
    carrier->base.ops = &websocket_ops;
    if ((err = td_network_open(host, &carrier->network)) != TANDEM_OK) {
        free(carrier);
        return err;
    }
    *out = &carrier->base;
    return TANDEM_OK;
}

td_network *td_websocket_carrier_network(td_carrier *carrier)
{
    return carrier_of(carrier)->network;
}
