#include "tools/tandem/admin_server.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/tandem/importer.h"
#include "tools/tandem/line_socket.h"

enum {
    REQUEST_BYTES_MAX = CLI_REQUEST_BYTES_MAX,
    /* How long the other side may leave us waiting. Generous: a reader may be a pager that a person
     * looks at, a writer a pipe from a slow program. */
    PATIENCE_MS = 15 * 60 * 1000,
    ACCEPT_PAUSE_MS = 100, /* after descriptors ran out */
    GRACE_MS = 2000,       /* for answers on their way when the node stops */
    DRAIN_LOOK_MS = 5,
    /* A group may pass its limit by one line that is too long itself. */
    GROUP_BYTES_MAX = CLI_GROUP_BYTES_MAX + CLI_LINE_BYTES_MAX + 16,
};

struct connection {
    struct connection *next;
    cli_admin_server *server;
    pthread_t thread;
    cli_line_socket socket;
    cli_importer *importer; /* while import groups come: it answers them */
    atomic_bool import_failed;
    atomic_bool done; /* the thread is at its end */
};

struct cli_admin_server {
    uv_poll_t poller;
    uv_timer_t timer;
    int fd;
    unsigned handles; /* open on the loop */
    tandem_reactor *reactor;
    tandem_sync *sync;
    struct connection *connections; /* the loop thread's */
    unsigned count;
    atomic_bool stopping;
};

/* ---- A connection ---- */

static bool connection_cancelled(void *context)
{
    struct connection *connection = context;

    return atomic_load(&connection->server->stopping) ||
           cli_line_socket_gone(&connection->socket);
}

static tandem_err connection_emit(void *context, const json_t *result)
{
    struct connection *connection = context;
    json_t *line = json_pack("{s:O}", "result", (json_t *)result);
    tandem_err err = line ? cli_line_socket_write(&connection->socket, line) : TANDEM_E_NOMEM;

    json_decref(line);
    return err;
}

static tandem_err connection_emit_bytes(void *context, const char *bytes, size_t size)
{
    struct connection *connection = context;
    json_t *line = json_pack("{s:o}", "bytes", cli_json_number(size));
    tandem_err err = line ? cli_line_socket_write(&connection->socket, line) : TANDEM_E_NOMEM;

    json_decref(line);
    if (err == TANDEM_OK)
        err = cli_line_socket_write_raw(&connection->socket, bytes, size);
    return err;
}

static tandem_err write_done(cli_line_socket *socket, tandem_err outcome, const char *why,
                             uint64_t line)
{
    const char *message = outcome != TANDEM_OK && why ? why : "";
    json_t *done = json_pack("{s:{s:i, s:s, s:s}}", "done", "code", (int)outcome, "error",
                             tandem_err_name(outcome), "message", message);
    tandem_err err;

    /* A sentence may quote what is no UTF-8, or be cut within a character. */
    if (!done)
        done = json_pack("{s:{s:i, s:s, s:s}}", "done", "code", (int)outcome, "error",
                         tandem_err_name(outcome), "message", tandem_err_text(outcome));
    if (!done)
        return TANDEM_E_NOMEM;
    if (line)
        json_object_set_new(json_object_get(done, "done"), "line", cli_json_number(line));
    err = cli_line_socket_write(socket, done);
    json_decref(done);
    return err;
}

/* Answer an import group. Behind one that was not executed none may be, and the next may be on its way
 * already: nothing more is read. */
static void answer_group(void *context, const cli_imported *outcome)
{
    struct connection *connection = context;
    json_t *lines = json_pack("{s:o}", "lines", cli_json_number(outcome->lines));
    tandem_err err = outcome->err;

    if (err == TANDEM_OK && (err = connection_emit(connection, lines)) == TANDEM_OK)
        err = write_done(&connection->socket, TANDEM_OK, "", 0);
    else
        write_done(&connection->socket, err, outcome->why, outcome->line);
    json_decref(lines);
    if (err == TANDEM_OK)
        return;
    atomic_store(&connection->import_failed, true);
    shutdown(connection->socket.fd, SHUT_RD);
}

/* All groups are answered: others may speak. False: one has failed, and what was read behind it is not
 * to be served. */
static bool end_import(struct connection *connection)
{
    cli_importer_free(connection->importer);
    connection->importer = NULL;
    return !atomic_load(&connection->import_failed);
}

/* Serve one import group. False: the conversation is over. */
static bool serve_group(struct connection *connection, const json_t *object)
{
    uint64_t size = cli_number_of(object, "bytes", UINT64_MAX);
    char *bytes = NULL;
    tandem_err err;

    if (size > GROUP_BYTES_MAX) {
        end_import(connection);
        write_done(&connection->socket, TANDEM_E_LIMIT, "a group of that size is not legal", 0);
        return false;
    }
    if (cli_line_socket_read_raw(&connection->socket, (size_t)size, &bytes) != TANDEM_OK)
        return false;
    err = connection->importer ? TANDEM_OK
                               : cli_importer_open(connection->server->reactor, answer_group,
                                                   connection, &connection->importer);
    if (err == TANDEM_OK)
        err = cli_importer_put(connection->importer, object, bytes, (size_t)size);
    free(bytes);
    return err == TANDEM_OK;
}

/* Serve one request. False: the conversation is over. */
static bool serve_one(struct connection *connection, const json_t *object)
{
    cli_request request = {.reactor = connection->server->reactor,
                           .sync = connection->server->sync,
                           .running = true,
                           .emit = connection_emit,
                           .emit_bytes = connection_emit_bytes,
                           .emit_context = connection,
                           .cancelled = connection_cancelled,
                           .cancel_context = connection};
    const char *command = cli_text_of(object, "command");
    tandem_err err;

    if (command && !strcmp(command, "import"))
        return serve_group(connection, object);
    if (!end_import(connection))
        return false;
    err = cli_request_run(&request, object);
    return write_done(&connection->socket, err, request.why, 0) == TANDEM_OK;
}

static void *connection_main(void *context)
{
    struct connection *connection = context;
    json_t *hello = json_pack("{s:{s:s}}", "hello", "version", tandem_version());
    bool open = hello && cli_line_socket_write(&connection->socket, hello) == TANDEM_OK;
    tandem_err err;

    json_decref(hello);
    while (open && !atomic_load(&connection->server->stopping)) {
        json_t *object = NULL;

        err = cli_line_socket_read(&connection->socket, &object);
        if (err != TANDEM_OK)
            end_import(connection);
        if (err == TANDEM_E_LIMIT)
            write_done(&connection->socket, err, "a request line is larger than 1 MiB", 0);
        else if (err == TANDEM_E_PROTOCOL)
            write_done(&connection->socket, err, "a request line is no JSON", 0);
        open = err == TANDEM_OK && serve_one(connection, object);
        json_decref(object);
    }
    end_import(connection);
    shutdown(connection->socket.fd, SHUT_RDWR);
    atomic_store(&connection->done, true);
    return NULL;
}

/* ---- Accepting ---- */

/* Let go of connections whose threads have ended, or of all, waiting for them. */
static void reap(cli_admin_server *server, bool all)
{
    struct connection **link = &server->connections;

    while (*link) {
        struct connection *connection = *link;

        if (!all && !atomic_load(&connection->done)) {
            link = &connection->next;
            continue;
        }
        pthread_join(connection->thread, NULL);
        *link = connection->next;
        cli_line_socket_release(&connection->socket);
        free(connection);
        server->count--;
    }
}

static void refuse(int fd, tandem_err err, const char *why)
{
    cli_line_socket socket;

    cli_line_socket_init(&socket, fd, REQUEST_BYTES_MAX, 0);
    write_done(&socket, err, why, 0);
    cli_line_socket_release(&socket);
}

static void take(cli_admin_server *server, int fd)
{
    struct connection *connection;
    sigset_t all, before;
    int failed;

    reap(server, false);
    if (server->count == CLI_CONNECTIONS_MAX) {
        refuse(fd, TANDEM_E_UNREACHABLE, "the node serves 64 callers already");
        return;
    }
    connection = calloc(1, sizeof(*connection));
    if (!connection) {
        refuse(fd, TANDEM_E_NOMEM, "the node is out of memory");
        return;
    }
    connection->server = server;
    cli_line_socket_init(&connection->socket, fd, REQUEST_BYTES_MAX, PATIENCE_MS);
    /* Signals belong to the loop's thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&connection->thread, NULL, connection_main, connection);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        connection->socket.fd = -1;
        free(connection);
        refuse(fd, TANDEM_E_NOMEM, "the node can start no thread");
        return;
    }
    connection->next = server->connections;
    server->connections = connection;
    server->count++;
}

static void on_acceptable(uv_poll_t *poller, int status, int events);

static void on_accept_again(uv_timer_t *timer)
{
    cli_admin_server *server = timer->data;

    uv_poll_start(&server->poller, UV_READABLE, on_acceptable);
}

static void on_acceptable(uv_poll_t *poller, int status, int events)
{
    cli_admin_server *server = poller->data;
    int fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0) {
        take(server, fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        /* The caller stays in the queue and the socket readable: look again later, do not spin. */
        uv_poll_stop(poller);
        uv_timer_start(&server->timer, on_accept_again, ACCEPT_PAUSE_MS, 0);
    }
}

/* ---- Life ---- */

static void on_closed(uv_handle_t *handle)
{
    cli_admin_server *server = handle->data;

    server->handles--;
}

tandem_err cli_admin_server_open(uv_loop_t *loop, int fd, tandem_reactor *reactor,
                                 tandem_sync *sync, cli_admin_server **out)
{
    cli_admin_server *server = calloc(1, sizeof(*server));

    if (!server) {
        close(fd);
        return TANDEM_E_NOMEM;
    }
    server->fd = fd;
    server->reactor = reactor;
    server->sync = sync;
    server->poller.data = server;
    server->timer.data = server;
    uv_timer_init(loop, &server->timer);
    if (uv_poll_init(loop, &server->poller, fd)) {
        uv_close((uv_handle_t *)&server->timer, NULL);
        uv_run(loop, UV_RUN_NOWAIT);
        close(fd);
        free(server);
        return TANDEM_E_IO;
    }
    server->handles = 2;
    uv_poll_start(&server->poller, UV_READABLE, on_acceptable);
    *out = server;
    return TANDEM_OK;
}

void cli_admin_server_stop(cli_admin_server *server)
{
    if (atomic_exchange(&server->stopping, true))
        return;
    uv_close((uv_handle_t *)&server->poller, on_closed);
    uv_close((uv_handle_t *)&server->timer, on_closed);
    /* Who is not accepted yet hears at once that nobody will read. */
    shutdown(server->fd, SHUT_RDWR);
    /* The answer to what is being done may still be written; nothing more is read. */
    for (struct connection *c = server->connections; c; c = c->next)
        shutdown(c->socket.fd, SHUT_RD);
}

void cli_admin_server_free(cli_admin_server *server)
{
    uint64_t begun = cli_monotonic_ms();

    if (!server)
        return;
    cli_admin_server_stop(server);
    for (reap(server, false); server->count && cli_monotonic_ms() - begun < GRACE_MS;
         reap(server, false))
        cli_pause_ms(DRAIN_LOOK_MS);
    /* Those left write to callers that do not read. */
    for (struct connection *c = server->connections; c; c = c->next)
        shutdown(c->socket.fd, SHUT_RDWR);
    reap(server, true);
    while (server->handles)
        uv_run(server->poller.loop, UV_RUN_NOWAIT);
    close(server->fd);
    free(server);
}
