/*
 * The WebSocket carrier: transport/network.h under the contract of a carrier. A td_connection is
 * wrapped, because a link begins with its carrier.
 */
#include "channel/carrier.h"

#include <stdio.h>
#include <stdlib.h>

struct websocket_carrier {
    td_carrier base;
    td_network *network;
    td_link_accept_fn accept;
    void *accept_context;
};

struct websocket_link {
    td_link base;
    td_connection *connection;
    const td_connection_events *events;
    void *context;
};

static struct websocket_carrier *carrier_of(td_carrier *carrier)
{
    return (struct websocket_carrier *)carrier;
}

static struct websocket_link *link_of(td_link *link)
{
    return (struct websocket_link *)link;
}

static void link_opened(void *context)
{
    struct websocket_link *link = context;

    link->events->opened(link->context);
}

static void link_message(void *context, tandem_slice bytes)
{
    struct websocket_link *link = context;

    link->events->message(link->context, bytes);
}

static tandem_err link_writable(void *context, tandem_writer *out)
{
    struct websocket_link *link = context;

    return link->events->writable(link->context, out);
}

static void link_closed(void *context, tandem_err err, const char *text)
{
    struct websocket_link *link = context;

    link->events->closed(link->context, err, text);
    free(link);
}

static const td_connection_events link_events = {
    .opened = link_opened,
    .message = link_message,
    .writable = link_writable,
    .closed = link_closed,
};

static tandem_err websocket_dial(td_carrier *carrier, const char *url,
                                 const td_connection_events *events, void *context, td_link **out)
{
    struct websocket_link *link = calloc(1, sizeof(*link));
    tandem_err err;

    if (!link)
        return TANDEM_E_NOMEM;
    link->base.carrier = carrier;
    link->events = events;
    link->context = context;
    if ((err = td_network_dial(carrier_of(carrier)->network, url, &link_events, link,
                               &link->connection)) != TANDEM_OK) {
        free(link);
        return err;
    }
    *out = &link->base;
    return TANDEM_OK;
}

static tandem_err accept_connection(void *context, td_connection *connection,
                                    const td_connection_events **events_out, void **context_out)
{
    struct websocket_carrier *carrier = context;
    struct websocket_link *link = calloc(1, sizeof(*link));
    tandem_err err;

    if (!link)
        return TANDEM_E_NOMEM;
    link->base.carrier = &carrier->base;
    link->connection = connection;
    if ((err = carrier->accept(carrier->accept_context, &link->base, &link->events,
                               &link->context)) != TANDEM_OK) {
        free(link);
        return err;
    }
    *events_out = &link_events;
    *context_out = link;
    return TANDEM_OK;
}

static tandem_err websocket_listen(td_carrier *base, const char *address, uint16_t port,
                                   td_link_accept_fn accept, void *context, char url_out[128])
{
    struct websocket_carrier *carrier = carrier_of(base);
    bool six = strchr(address, ':') != NULL;
    uint16_t real_port = 0;
    tandem_err err;

    carrier->accept = accept;
    carrier->accept_context = context;
    if ((err = td_network_listen(carrier->network, address, port, accept_connection, carrier,
                                 &real_port)) != TANDEM_OK)
        return err;
    snprintf(url_out, 128, "ws://%s%s%s:%u/tandem", six ? "[" : "", address, six ? "]" : "",
             real_port);
    return TANDEM_OK;
}

static uint64_t websocket_rejected(const td_carrier *carrier)
{
    return td_network_rejected(((const struct websocket_carrier *)carrier)->network);
}

static void websocket_want_write(td_link *link)
{
    td_connection_want_write(link_of(link)->connection);
}

static void websocket_hold(td_link *link, bool hold)
{
    td_connection_hold(link_of(link)->connection, hold);
}

static void websocket_close(td_link *link, tandem_err err, const char *text)
{
    td_connection_close(link_of(link)->connection, err, text);
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
    .check = td_url_check,
    .dial = websocket_dial,
    .listen = websocket_listen,
    .rejected = websocket_rejected,
    .want_write = websocket_want_write,
    .hold = websocket_hold,
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
