/* Listening, and who is let in. */
#include "transport/connection.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>
#include <utlist.h>

/* A backlog that overflows costs the dialer a second. */
enum { BACKLOG = TD_NETWORK_CONNECTIONS_MAX, HOST_BYTES_MAX = 300 };

/* ---- Judging a request ---- */

static bool is_address(const char *text)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    return uv_ip4_addr(text, 0, &v4) == 0 || uv_ip6_addr(text, 0, &v6) == 0;
}

/*
 * Does a Host header name this listener? A page that had its own name resolve to this machine would
 * send that name. The port may be any: what forwards a port of another number is no stranger. host is
 * taken apart in place.
 */
static bool is_our_host(const td_listener *listener, char *host)
{
    char *name = host, *end;

    if (*host == '[') {
        name++;
        if (!(end = strchr(host, ']')))
            return false;
        *end++ = '\0';
    } else {
        end = host + strcspn(host, ":");
    }
    if (*end && (*end != ':' || end[1 + strspn(end + 1, "0123456789")] != '\0'))
        return false;
    *end = '\0';
    if (!strcasecmp(name, "localhost") || !strcmp(name, "127.0.0.1") || !strcmp(name, "::1"))
        return true;
    return listener->is_any ? is_address(name) : strcasecmp(name, listener->address) == 0;
}

static bool offers_protocol(char *list)
{
    char *rest = NULL;

    for (char *name = strtok_r(list, ", \t", &rest); name; name = strtok_r(NULL, ", \t", &rest))
        if (strcmp(name, TD_NETWORK_PROTOCOL) == 0)
            return true;
    return false;
}

int td_server_judge_request(const td_listener *listener, struct lws *wsi, int uri_token)
{
    char text[HOST_BYTES_MAX];

    if (lws_hdr_total_length(wsi, WSI_TOKEN_ORIGIN) ||
        lws_hdr_total_length(wsi, WSI_TOKEN_SWORIGIN))
        return HTTP_STATUS_FORBIDDEN;
    if (lws_hdr_copy(wsi, text, sizeof(text), WSI_TOKEN_HOST) <= 0 || !is_our_host(listener, text))
        return HTTP_STATUS_FORBIDDEN;
    if (lws_hdr_copy(wsi, text, sizeof(text), uri_token) <= 0 ||
        strcmp(text, TD_NETWORK_PATH) != 0 || lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_URI_ARGS))
        return HTTP_STATUS_NOT_FOUND;
    return 0;
}

int td_server_judge(const td_listener *listener, struct lws *wsi)
{
    char text[HOST_BYTES_MAX];
    int status;

    /* libwebsockets asks about "h2c" too, and once more after it has answered an unknown upgrade
     * itself. Only "websocket" is this long. */
    if (lws_hdr_total_length(wsi, WSI_TOKEN_UPGRADE) != (int)strlen("websocket"))
        return -1;
    if ((status = td_server_judge_request(listener, wsi, WSI_TOKEN_GET_URI)) != 0)
        return status;
    if (lws_hdr_copy(wsi, text, sizeof(text), WSI_TOKEN_PROTOCOL) <= 0 || !offers_protocol(text))
        return HTTP_STATUS_BAD_REQUEST;
    return 0;
}

/* ---- Accepting ---- */

/* libuv calls back for what was closed last first: the listener may be gone already. */
static void on_peer_freed(uv_handle_t *handle)
{
    td_network *network = handle->data;

    network->handles--;
    free(handle);
}

/* Hand a connected socket over to libwebsockets, which owns it from here, whatever happens. */
static void adopt(td_listener *listener, int fd)
{
    td_network *network = listener->network;
    lws_adopt_desc_t adoption = {
        .vh = network->vhost,
        .type = LWS_ADOPT_SOCKET | LWS_ADOPT_HTTP,
        .fd.sockfd = fd,
    };
    td_connection *connection = NULL;

    if (network->accepted < TD_NETWORK_ACCEPTED_MAX &&
        network->accepted + network->dialed < TD_NETWORK_SOCKETS_MAX)
        connection = td_connection_new(network, listener);
    if (!connection) {
        network->rejected++;
        close(fd);
        return;
    }
    adoption.opaque = connection;
    connection->wsi = lws_adopt_descriptor_vhost_via_info(&adoption);
    if (!connection->wsi) {
        network->rejected++;
        td_connection_end(connection);
    }
}

static void on_incoming(uv_stream_t *stream, int status)
{
    td_listener *listener = (td_listener *)stream;
    uv_tcp_t *peer;
    uv_os_fd_t fd;
    int own = -1;

    if (status != 0 || !(peer = malloc(sizeof(*peer))))
        return;
    uv_tcp_init(listener->network->loop, peer);
    peer->data = listener->network;
    listener->network->handles++;
    /* libuv knows what to do when descriptors run out; then the socket moves on. */
    if (uv_accept(stream, (uv_stream_t *)peer) == 0 && uv_tcp_nodelay(peer, 1) == 0 &&
        uv_fileno((uv_handle_t *)peer, &fd) == 0)
        own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    uv_close((uv_handle_t *)peer, on_peer_freed);
    if (own >= 0)
        adopt(listener, own);
    else
        listener->network->rejected++;
}

/* ---- Listening ---- */

static void on_listener_freed(uv_handle_t *handle)
{
    td_listener *listener = (td_listener *)handle;

    listener->network->handles--;
    free(listener);
}

void td_listener_close(td_listener *listener)
{
    DL_DELETE(listener->network->listeners, listener);
    uv_close((uv_handle_t *)&listener->tcp, on_listener_freed);
}

static tandem_err err_of_uv(int failed)
{
    switch (failed) {
    case UV_EADDRINUSE:
        return TANDEM_E_ADDRESS_IN_USE;
    case UV_EADDRNOTAVAIL:
    case UV_EAFNOSUPPORT:
    case UV_EINVAL:
        return TANDEM_E_INVALID;
    case UV_EACCES:
    case UV_EPERM:
        return TANDEM_E_PERMISSION;
    case UV_ENOMEM:
        return TANDEM_E_NOMEM;
    default:
        return TANDEM_E_IO;
    }
}

static tandem_err bind_and_listen(td_listener *listener, const char *address, uint16_t port)
{
    struct sockaddr_storage at = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&at;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&at;
    int size = sizeof(at), failed;

    if (uv_ip4_addr(address, port, v4) == 0)
        listener->is_any = v4->sin_addr.s_addr == INADDR_ANY;
    else if (uv_ip6_addr(address, port, v6) == 0)
        listener->is_any = IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr);
    else
        return TANDEM_E_INVALID;
    if ((failed = uv_tcp_bind(&listener->tcp, (struct sockaddr *)&at, 0)) != 0 ||
        (failed = uv_listen((uv_stream_t *)&listener->tcp, BACKLOG, on_incoming)) != 0 ||
        (failed = uv_tcp_getsockname(&listener->tcp, (struct sockaddr *)&at, &size)) != 0)
        return err_of_uv(failed);
    listener->port = ntohs(at.ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
    return TANDEM_OK;
}

tandem_err td_network_listen(td_network *network, const char *address, uint16_t port,
                             td_accept_fn accept, void *context, uint16_t *port_out)
{
    td_listener *listener;
    tandem_err err;

    if (strlen(address) >= sizeof(listener->address))
        return TANDEM_E_INVALID;
    if (!(listener = calloc(1, sizeof(*listener))))
        return TANDEM_E_NOMEM;
    listener->network = network;
    listener->accept = accept;
    listener->context = context;
    strcpy(listener->address, address);
    if (uv_tcp_init(network->loop, &listener->tcp) != 0) {
        free(listener);
        return TANDEM_E_IO;
    }
    network->handles++;
    DL_APPEND(network->listeners, listener);
    if ((err = bind_and_listen(listener, address, port)) != TANDEM_OK) {
        td_listener_close(listener);
        return err;
    }
    *port_out = listener->port;
    td_network_wake(network);
    return TANDEM_OK;
}
