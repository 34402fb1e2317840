/*
 * Dialing. libuv resolves names, in its own threads; libwebsockets is given one address after
 * another until one answers, all within one deadline.
 */
#include "transport/connection.h"

#include <stdio.h>
#include <stdlib.h>

#include "transport/url.h"

/* A name being resolved. It may outlive its connection: once begun it cannot be cancelled. */
struct td_lookup {
    uv_getaddrinfo_t request; /* first */
    td_network *network;
    td_connection *connection; /* NULL: nobody waits any more */
};

void td_client_release(td_connection *connection)
{
    if (connection->lookup) {
        connection->lookup->connection = NULL;
        uv_cancel((uv_req_t *)&connection->lookup->request);
        connection->lookup = NULL;
    }
    uv_freeaddrinfo(connection->addresses);
    connection->addresses = NULL;
    connection->untried = NULL;
}

bool td_client_try_next(td_connection *connection)
{
    td_network *network = connection->network;
    char address[INET6_ADDRSTRLEN];
    struct lws_client_connect_info info = {
        .context = network->lws,
        .vhost = network->vhost,
        .address = address,
        .path = TD_NETWORK_PATH,
        .host = connection->authority,
        .protocol = TD_NETWORK_PROTOCOL,
        .local_protocol_name = TD_NETWORK_PROTOCOL,
        .ietf_version_or_minus_one = -1,
        .ssl_connection = LCCSCF_HTTP_NO_FOLLOW_REDIRECT,
        .opaque_user_data = connection,
        .pwsi = &connection->wsi,
    };

    while (connection->untried && !connection->reached) {
        const struct addrinfo *at = connection->untried;

        connection->untried = at->ai_next;
        if (uv_ip_name(at->ai_addr, address, sizeof(address)) != 0)
            continue;
        info.port = ntohs(at->ai_family == AF_INET
                              ? ((const struct sockaddr_in *)at->ai_addr)->sin_port
                              : ((const struct sockaddr_in6 *)at->ai_addr)->sin6_port);
        connection->wsi = lws_client_connect_via_info(&info);
        if (connection->wsi)
            return true;
    }
    return false;
}

static void try_first(td_connection *connection)
{
    connection->untried = connection->addresses;
    if (td_client_try_next(connection)) {
        td_network_wake(connection->network);
        return;
    }
    td_connection_set_reason(connection, TANDEM_E_UNREACHABLE, 0, "nobody answers at %s",
                             connection->authority);
    td_connection_end_soon(connection);
}

static void on_resolved(uv_getaddrinfo_t *request, int failed, struct addrinfo *addresses)
{
    td_lookup *lookup = (td_lookup *)request;
    td_connection *connection = lookup->connection;

    lookup->network->handles--;
    free(lookup);
    if (!connection) {
        uv_freeaddrinfo(addresses);
        return;
    }
    connection->lookup = NULL;
    if (failed) {
        td_connection_set_reason(connection, TANDEM_E_UNREACHABLE, 0, "%s cannot be resolved: %s",
                                 connection->authority, uv_strerror(failed));
        td_connection_end(connection);
        return;
    }
    connection->addresses = addresses;
    try_first(connection);
}

/* Addresses need no resolving; names go to the threads. */
static tandem_err resolve(td_connection *connection, const td_url *url)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    td_network *network = connection->network;
    td_lookup *lookup = calloc(1, sizeof(*lookup));
    char port[8];

    if (!lookup)
        return TANDEM_E_NOMEM;
    lookup->network = network;
    snprintf(port, sizeof(port), "%u", (unsigned)url->port);
    if (uv_getaddrinfo(network->loop, &lookup->request, NULL, url->host, port, &hints) == 0) {
        connection->addresses = lookup->request.addrinfo;
        free(lookup);
        try_first(connection);
        return TANDEM_OK;
    }
    hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG;
    if (uv_getaddrinfo(network->loop, &lookup->request, on_resolved, url->host, port, &hints)) {
        free(lookup);
        return TANDEM_E_NOMEM;
    }
    lookup->connection = connection;
    connection->lookup = lookup;
    network->handles++;
    td_network_wake(network);
    return TANDEM_OK;
}

tandem_err td_network_dial(td_network *network, const char *text,
                           const td_connection_events *events, void *context, td_connection **out)
{
    td_connection *connection;
    td_url url;
    tandem_err err;

    if ((err = td_url_parse(text, "ws", &url)) != TANDEM_OK)
        return err;
    if (network->freeing)
        return TANDEM_E_CLOSED;
    if (network->dialed >= TD_NETWORK_CONNECTIONS_MAX ||
        network->accepted + network->dialed >= TD_NETWORK_SOCKETS_MAX)
        return TANDEM_E_LIMIT;
    if (!(connection = td_connection_new(network, NULL)))
        return TANDEM_E_NOMEM;
    snprintf(connection->authority, sizeof(connection->authority), "%s", url.authority);
    if ((err = resolve(connection, &url)) != TANDEM_OK) {
        td_connection_end(connection); /* no events yet: nothing is called */
        return err;
    }
    connection->events = events;
    connection->context = context;
    *out = connection;
    return TANDEM_OK;
}
