#include "channel/network_link.h"

#include <stdio.h>
#include <stdlib.h>

static void link_opened(void *context)
{
    td_network_link *link = context;

    link->events->opened(link->context);
}

static void link_message(void *context, tandem_slice bytes)
{
    td_network_link *link = context;

    link->events->message(link->context, bytes);
}

static tandem_err link_writable(void *context, tandem_writer *out)
{
    td_network_link *link = context;

    return link->events->writable(link->context, out);
}

static void link_retry_after(void *context, uint64_t delay_ms)
{
    td_network_link *link = context;

    if (link->events->retry_after)
        link->events->retry_after(link->context, delay_ms);
}

static void link_paced(void *context, uint64_t pause_ms)
{
    td_network_link *link = context;

    if (link->events->paced)
        link->events->paced(link->context, pause_ms);
}

static void link_exchange_began(void *context)
{
    td_network_link *link = context;

    if (link->events->exchange_began)
        link->events->exchange_began(link->context);
}

static void link_exchange_ended(void *context, uint64_t took_ms, uint64_t bytes, bool more)
{
    td_network_link *link = context;

    if (link->events->exchange_ended)
        link->events->exchange_ended(link->context, took_ms, bytes, more);
}

static bool link_expects(void *context)
{
    td_network_link *link = context;

    return link->events->expects && link->events->expects(link->context);
}

static bool link_knows(void *context)
{
    td_network_link *link = context;

    return !link->events->knows || link->events->knows(link->context);
}

static void link_closed(void *context, tandem_err err, const char *text)
{
    td_network_link *link = context;

    link->events->closed(link->context, err, text);
    free(link);
}

const td_connection_events td_network_link_events = {
    .opened = link_opened,
    .message = link_message,
    .writable = link_writable,
    .retry_after = link_retry_after,
    .paced = link_paced,
    .exchange_began = link_exchange_began,
    .exchange_ended = link_exchange_ended,
    .expects = link_expects,
    .knows = link_knows,
    .closed = link_closed,
};

td_network_link *td_network_link_open(td_carrier *carrier, const td_connection_events *events,
                                      void *context)
{
    td_network_link *link = calloc(1, sizeof(*link));

    if (!link)
        return NULL;
    link->base.carrier = carrier;
    link->events = events;
    link->context = context;
    return link;
}

tandem_err td_network_link_accept(const td_link_acceptor *acceptor, void *moves,
                                  const td_connection_events **events_out, void **context_out)
{
    td_network_link *link = td_network_link_open(acceptor->carrier, NULL, NULL);
    tandem_err err;

    if (!link)
        return TANDEM_E_NOMEM;
    link->moves = moves;
    if ((err = acceptor->accept(acceptor->context, &link->base, &link->events, &link->context)) !=
        TANDEM_OK) {
        free(link);
        return err;
    }
    *events_out = &td_network_link_events;
    *context_out = link;
    return TANDEM_OK;
}

bool td_link_has_no_pace(td_link *link, uint64_t pause_ms)
{
    (void)link;
    (void)pause_ms;
    return false;
}

void td_link_has_no_exchanges(td_link *link)
{
    (void)link;
}

void td_network_url(const char *scheme, const char *address, uint16_t port, char url_out[128])
{
    bool six = strchr(address, ':') != NULL;

    snprintf(url_out, 128, "%s://%s%s%s:%u/tandem", scheme, six ? "[" : "", address,
             six ? "]" : "", port);
}
