/*
 * serve: the reactor node. The library's threads do the work; this one waits on its own uv loop for
 * callers of the admin socket and for signals.
 *
 * The first signal drains: no more requests, then sync and reactor are closed, exit 0. A second one
 * ends the process at once, which loses nothing that was answered: what is answered is on disk.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "tools/tandem/access.h"
#include "tools/tandem/admin_client.h"
#include "tools/tandem/admin_server.h"
#include "tools/tandem/line_socket.h"

#define LISTEN_DEFAULT "127.0.0.1:7400"

struct node {
    const cli_call *call;
    cli_refusals *refusals;
    tandem_reactor *reactor;
    tandem_sync *sync;
    cli_admin_server *server;
    char *socket_path;
    bool socket_bound;
    uv_loop_t loop;
    uv_signal_t signals[2];
    bool loop_open;
    char url[128];
};

static void say(struct node *node, const char *text)
{
    if (!node->call->quiet)
        cli_log(NULL, TANDEM_LOG_INFO, "serve", text);
}

/* ---- Arguments ---- */

/* Split ADDR:PORT or [ADDR]:PORT. False: it is neither, or ADDR is no IP address. */
static bool address_split(const char *text, char address[64], uint16_t *port_out)
{
    const char *colon = strrchr(text, ':');
    size_t size = colon ? (size_t)(colon - text) : 0;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    uint64_t port;

    if (!colon || !cli_parse_number(colon + 1, &port) || port > UINT16_MAX)
        return false;
    if (size > 2 && text[0] == '[' && text[size - 1] == ']') {
        text++;
        size -= 2;
    } else if (memchr(text, ':', size)) {
        return false; /* without brackets nobody can tell the port from the address */
    }
    if (size == 0 || size >= 64)
        return false;
    memcpy(address, text, size);
    address[size] = 0;
    if (!strcmp(address, "localhost"))
        memcpy(address, "127.0.0.1", sizeof("127.0.0.1"));
    *port_out = (uint16_t)port;
    return !uv_ip4_addr(address, 0, &v4) || !uv_ip6_addr(address, 0, &v6);
}

static tandem_err peer_put(tandem_sync *sync, const char *text, char why[CLI_WHY_BYTES])
{
    const char *equals = strchr(text, '=');
    char name[TANDEM_NAME_BYTES_MAX + 1];
    tandem_err err;

    if (!equals || equals == text || (size_t)(equals - text) >= sizeof(name)) {
        snprintf(why, CLI_WHY_BYTES, "--peer takes NAME=URL, not `%.64s`", text);
        return TANDEM_E_USAGE;
    }
    memcpy(name, text, (size_t)(equals - text));
    name[equals - text] = 0;
    err = tandem_remote_add(sync, name, equals + 1);
    if (err == TANDEM_E_EXISTS)
        err = tandem_remote_set(sync, name, equals + 1);
    if (err == TANDEM_E_INVALID)
        snprintf(why, CLI_WHY_BYTES,
                 "a peer is NAME=ws://HOST:PORT/tandem or NAME=http://HOST:PORT/tandem, not `%.100s`",
                 text);
    else if (err != TANDEM_OK)
        snprintf(why, CLI_WHY_BYTES, "peer `%.32s` at %.100s: %.80s", name, equals + 1,
                 tandem_err_text(err));
    return err;
}

static tandem_err peers_put(const cli_call *call, tandem_sync *sync, char why[CLI_WHY_BYTES])
{
    tandem_err err = TANDEM_OK;

    for (size_t i = 0; err == TANDEM_OK && i < call->given[CLI_PEER]; i++)
        err = peer_put(sync, call->values[CLI_PEER][i], why);
    return err;
}

/* Could all that --peer says be put? Asked of a reactor that is gone at once, so that nothing is
 * kept and nobody is dialed if not. */
static tandem_err peers_check(const cli_call *call, char why[CLI_WHY_BYTES])
{
    tandem_sync_options options = TANDEM_SYNC_OPTIONS_INIT;
    tandem_reactor *reactor = NULL;
    tandem_sync *sync = NULL;
    tandem_err err;

    if (!call->given[CLI_PEER])
        return TANDEM_OK;
    options.offline = true;
    if ((err = tandem_open(NULL, &reactor)) == TANDEM_OK &&
        (err = tandem_sync_open(reactor, &options, &sync)) == TANDEM_OK)
        err = peers_put(call, sync, why);
    tandem_sync_close(sync);
    tandem_close(reactor);
    return err;
}

/* ---- Opening ---- */

static tandem_err store_open(struct node *node, char why[CLI_WHY_BYTES])
{
    cli_admin_client *other = NULL;
    tandem_err err = cli_store_open(node->call, true, node->refusals, &node->reactor, &other, why);

    if (other) {
        cli_admin_client_free(other);
        snprintf(why, CLI_WHY_BYTES, "a node answers at %.180s already", node->socket_path);
        return TANDEM_E_LOCKED;
    }
    if (err == TANDEM_OK)
        err = cli_refusals_settle(node->refusals, node->call->data, node->reactor, why);
    return err;
}

static tandem_err network_open(struct node *node, const char *address, uint16_t port,
                               char why[CLI_WHY_BYTES])
{
    bool insecure = node->call->given[CLI_INSECURE] > 0;
    tandem_err err;

    if ((err = tandem_sync_open(node->reactor, NULL, &node->sync)) != TANDEM_OK) {
        snprintf(why, CLI_WHY_BYTES, "what is kept of the peers (%.120s/sync) cannot be opened: %s%s",
                 node->call->data, tandem_err_text(err), cli_sync_cure(err));
        return err;
    }
    err = tandem_listen(node->sync, address, port, insecure, node->url);
    if (err != TANDEM_OK)
        snprintf(why, CLI_WHY_BYTES, "%s port %u: %.120s", address, port, tandem_err_text(err));
    return err == TANDEM_OK ? peers_put(node->call, node->sync, why) : err;
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct node *node = handle->data;

    say(node, number == SIGINT ? "stopping on SIGINT" : "stopping on SIGTERM");
    uv_stop(handle->loop);
}

static tandem_err loop_open(struct node *node)
{
    static const int numbers[] = {SIGTERM, SIGINT};

    if (uv_loop_init(&node->loop))
        return TANDEM_E_NOMEM;
    node->loop_open = true;
    for (size_t i = 0; i < 2; i++) {
        node->signals[i].data = node;
        uv_signal_init(&node->loop, &node->signals[i]);
        uv_signal_start(&node->signals[i], on_signal, numbers[i]);
    }
    return TANDEM_OK;
}

static tandem_err node_open(struct node *node, const char *address, uint16_t port,
                            char why[CLI_WHY_BYTES])
{
    int fd;
    tandem_err err;

    node->socket_path = cli_socket_path(node->call);
    if ((err = store_open(node, why)) != TANDEM_OK || (err = loop_open(node)) != TANDEM_OK)
        return err;
    if ((err = cli_socket_listen(node->socket_path, &fd, why)) != TANDEM_OK)
        return err;
    node->socket_bound = true;
    err = network_open(node, address, port, why);
    if (err != TANDEM_OK) {
        close(fd);
        return err;
    }
    return cli_admin_server_open(&node->loop, fd, node->reactor, node->sync, &node->server);
}

/* ---- Closing ---- */

static void end_at_once(int number)
{
    _exit(128 + number);
}

static void loop_close(struct node *node)
{
    if (!node->loop_open)
        return;
    for (size_t i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&node->signals[i], NULL);
    uv_run(&node->loop, UV_RUN_DEFAULT);
    uv_loop_close(&node->loop);
    /* From here on nobody runs the loop: a second signal ends the process. */
    signal(SIGTERM, end_at_once);
    signal(SIGINT, end_at_once);
}

static void node_close(struct node *node)
{
    if (node->server)
        cli_admin_server_stop(node->server);
    loop_close(node);
    cli_admin_server_free(node->server);
    tandem_sync_close(node->sync);
    if (node->socket_bound)
        unlink(node->socket_path);
    tandem_close(node->reactor);
    cli_refusals_free(node->refusals);
    free(node->socket_path);
}

int cli_serve(const cli_call *call)
{
    const char *listen = cli_value(call, CLI_LISTEN);
    struct node node = {.call = call};
    char why[CLI_WHY_BYTES] = "", address[64];
    uint16_t port;
    tandem_err err;

    if (!address_split(listen ? listen : LISTEN_DEFAULT, address, &port))
        return cli_fail(TANDEM_E_USAGE, "it takes ADDR:PORT or [ADDR]:PORT, ADDR an IP address",
                        "--listen is `%.64s`", listen);
    if ((err = peers_check(call, why)) != TANDEM_OK ||
        (err = cli_refusals_of_call(call, &node.refusals, why)) != TANDEM_OK)
        return cli_fail(err, why, "the node was not started");
    if (call->dry_run) {
        cli_refusals_free(node.refusals);
        printf("would serve %s on %s\n", call->data ? call->data : "?",
               listen ? listen : LISTEN_DEFAULT);
        return 0;
    }
    signal(SIGPIPE, SIG_IGN);
    err = node_open(&node, address, port, why);
    if (err == TANDEM_OK) {
        printf("ready %s\n", node.url);
        fflush(stdout);
        uv_run(&node.loop, UV_RUN_DEFAULT);
    }
    node_close(&node);
    if (err != TANDEM_OK)
        return cli_fail(err, why, "the node was not started");
    cli_log(NULL, TANDEM_LOG_INFO, "serve", "stopped");
    return 0;
}
