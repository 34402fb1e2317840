/*
 * The HTTP carrier: transport/http_client.h and http_server.h under the contract of a carrier. What
 * it accepts comes of a network of its own or, where one listener is to serve WebSocket too, of the
 * WebSocket carrier's.
 */
#include "channel/network_link.h"

#include <stdlib.h>

#include "transport/http_client.h"
#include "transport/http_server.h"

struct http_carrier {
    td_carrier base;
    td_host *host;
    td_http_client *client; /* NULL: nothing was dialed yet */
    td_network *network;    /* NULL: it does not listen itself */
    bool dialing_ended;
    td_link_acceptor acceptor;
};

static struct http_carrier *carrier_of(td_carrier *carrier)
{
    return (struct http_carrier *)carrier;
}

static td_http_link *http_link_of(td_link *link)
{
    return td_network_link_moves(link);
}

static tandem_err http_dial(td_carrier *base, const char *url, const td_connection_events *events,
                            void *context, td_link **out)
{
    struct http_carrier *carrier = carrier_of(base);
    td_network_link *link;
    td_http_link *moves;
    tandem_err err;

    if (carrier->dialing_ended)
        return TANDEM_E_CLOSED;
    if (!carrier->client &&
        (err = td_http_client_open(carrier->host, &carrier->client)) != TANDEM_OK)
        return err;
    if (!(link = td_network_link_open(base, events, context)))
        return TANDEM_E_NOMEM;
    if ((err = td_http_dial(carrier->client, url, &td_network_link_events, link, &moves)) !=
        TANDEM_OK) {
        free(link);
        return err;
    }
    link->moves = moves;
    *out = &link->base;
    return TANDEM_OK;
}

static tandem_err accept_link(void *context, td_http_link *accepted,
                              const td_connection_events **events_out, void **context_out)
{
    return td_network_link_accept(context, accepted, events_out, context_out);
}

void td_http_carrier_serve(td_carrier *base, td_network *network, td_link_accept_fn accept,
                           void *context)
{
    struct http_carrier *carrier = carrier_of(base);

    carrier->acceptor = (td_link_acceptor){base, accept, context};
    td_network_serve_http(network, accept_link, &carrier->acceptor);
}

/* Whoever comes by WebSocket is told no. */
static tandem_err refuse_connection(void *context, td_connection *connection,
                                    const td_connection_events **events_out, void **context_out)
{
    return TANDEM_E_UNSUPPORTED;
}

static tandem_err http_listen(td_carrier *base, const char *address, uint16_t port,
                              td_link_accept_fn accept, void *context, char url_out[128])
{
    struct http_carrier *carrier = carrier_of(base);
    uint16_t real_port = 0;
    tandem_err err;

    if (!carrier->network &&
        (err = td_network_open(carrier->host, &carrier->network)) != TANDEM_OK)
        return err;
    td_http_carrier_serve(base, carrier->network, accept, context);
    if ((err = td_network_listen(carrier->network, address, port, refuse_connection, NULL,
                                 &real_port)) != TANDEM_OK)
        return err;
    td_network_url("http", address, real_port, url_out);
    return TANDEM_OK;
}

static uint64_t http_rejected(const td_carrier *base)
{
    const struct http_carrier *carrier = (const struct http_carrier *)base;

    return carrier->network ? td_network_rejected(carrier->network) : 0;
}

static void http_want_write(td_link *link)
{
    td_http_link_want_write(http_link_of(link));
}

static void http_hold(td_link *link, bool hold)
{
    td_http_link_hold(http_link_of(link), hold);
}

static bool http_pace(td_link *link, uint64_t pause_ms)
{
    td_http_client_pace(http_link_of(link), pause_ms);
    return true;
}

static void http_poll(td_link *link)
{
    td_http_client_poll(http_link_of(link));
}

static void http_close(td_link *link, tandem_err err, const char *text)
{
    td_http_link_close(http_link_of(link), err, text);
}

void td_http_carrier_end_dialing(td_carrier *base)
{
    struct http_carrier *carrier = carrier_of(base);
    td_http_client *client = carrier->client;

    carrier->dialing_ended = true;
    carrier->client = NULL;
    td_http_client_free(client);
}

static void http_free(td_carrier *base)
{
    struct http_carrier *carrier = carrier_of(base);

    if (!carrier)
        return;
    td_http_carrier_end_dialing(base);
    td_network_free(carrier->network);
    free(carrier);
}

static const td_carrier_ops http_ops = {
    .scheme = "http",
    .packs = true,
    .check = td_http_url_check,
    .dial = http_dial,
    .listen = http_listen,
    .rejected = http_rejected,
    .want_write = http_want_write,
    .hold = http_hold,
    .pace = http_pace,
    .poll = http_poll,
    .close = http_close,
    .free = http_free,
};

tandem_err td_http_carrier_open(td_host *host, td_carrier **out)
{
    struct http_carrier *carrier = calloc(1, sizeof(*carrier));

    if (!carrier)
        return TANDEM_E_NOMEM;
    carrier->base.ops = &http_ops;
    carrier->host = host;
    *out = &carrier->base;
    return TANDEM_OK;
}
