#include "tools/tandem/admin_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tandem/interrupt.h"
#include "tools/tandem/line_socket.h"

enum { HELLO_MS = 10 * 1000 };

struct cli_admin_client {
    cli_line_socket socket;
};

static tandem_err lost(tandem_err err, char why[CLI_WHY_BYTES])
{
    snprintf(why, CLI_WHY_BYTES, "the node was lost before it answered");
    return err == TANDEM_E_NOMEM ? err : TANDEM_E_UNREACHABLE;
}

/* What a {"done": …} says. */
static tandem_err outcome(const json_t *done, uint64_t *line_out, char why[CLI_WHY_BYTES])
{
    const char *message = cli_text_of(done, "message");

    snprintf(why, CLI_WHY_BYTES, "%s", message ? message : "");
    if (line_out)
        *line_out = cli_number_of(done, "line", 0);
    return (tandem_err)json_integer_value(json_object_get(done, "code"));
}

tandem_err cli_admin_client_open(const char *path, cli_admin_client **out, char why[CLI_WHY_BYTES])
{
    cli_admin_client *client;
    json_t *hello = NULL;
    const json_t *done;
    int fd;
    tandem_err err = cli_socket_connect(path, &fd, why);

    if (err != TANDEM_OK)
        return err;
    client = calloc(1, sizeof(*client));
    if (!client) {
        why[0] = 0;
        return TANDEM_E_NOMEM;
    }
    cli_line_socket_init(&client->socket, fd, CLI_ANSWER_BYTES_MAX, HELLO_MS);
    /* A node that is stopping may still be connected to: only one that greets will read on. */
    err = cli_line_socket_read(&client->socket, &hello);
    done = json_object_get(hello, "done");
    if (err != TANDEM_OK) {
        snprintf(why, CLI_WHY_BYTES, "no node answers at %.160s", path);
        err = TANDEM_E_UNREACHABLE;
    } else if (done) {
        err = outcome(done, NULL, why);
    }
    json_decref(hello);
    if (err != TANDEM_OK) {
        cli_admin_client_free(client);
        return err;
    }
    client->socket.timeout_ms = UINT64_MAX;
    *out = client;
    return TANDEM_OK;
}

void cli_admin_client_free(cli_admin_client *client)
{
    if (!client)
        return;
    cli_line_socket_release(&client->socket);
    free(client);
}

bool cli_admin_client_wait(const cli_admin_client *client, int timeout_ms)
{
    return cli_interrupt_wait(client->socket.fd, timeout_ms);
}

tandem_err cli_admin_client_send(cli_admin_client *client, const json_t *object, const char *bytes,
                                 size_t size, char why[CLI_WHY_BYTES])
{
    tandem_err err;

    /* jansson measures for nothing but the walk; the node would read no further than this. */
    if (json_dumpb(object, NULL, 0, JSON_COMPACT) > CLI_REQUEST_BYTES_MAX) {
        snprintf(why, CLI_WHY_BYTES, "the request is larger than 1 MiB");
        return TANDEM_E_LIMIT;
    }
    err = cli_line_socket_write(&client->socket, object);
    if (err == TANDEM_OK && bytes)
        err = cli_line_socket_write_raw(&client->socket, bytes, size);
    return err == TANDEM_OK ? TANDEM_OK : lost(err, why);
}

/* Raw bytes, which follow the line that told their number. */
static tandem_err receive_bytes(cli_admin_client *client, uint64_t size,
                                cli_emit_bytes_fn emit_bytes, void *context,
                                char why[CLI_WHY_BYTES])
{
    char *bytes;
    tandem_err err;

    if (!emit_bytes || size > CLI_CHUNK_BYTES_MAX) {
        snprintf(why, CLI_WHY_BYTES, "the node answers in a way that is not known here");
        return TANDEM_E_PROTOCOL;
    }
    if ((err = cli_line_socket_read_raw(&client->socket, (size_t)size, &bytes)) != TANDEM_OK)
        return lost(err, why);
    err = emit_bytes(context, bytes, (size_t)size);
    free(bytes);
    return err;
}

tandem_err cli_admin_client_receive(cli_admin_client *client, cli_emit_fn emit,
                                    cli_emit_bytes_fn emit_bytes, void *context, uint64_t *line_out,
                                    char why[CLI_WHY_BYTES])
{
    json_t *answer = NULL;
    tandem_err err;

    if (line_out)
        *line_out = 0;
    for (;;) {
        const json_t *result, *done, *bytes;

        if ((err = cli_line_socket_read(&client->socket, &answer)) != TANDEM_OK)
            return lost(err, why);
        result = json_object_get(answer, "result");
        done = json_object_get(answer, "done");
        bytes = json_object_get(answer, "bytes");
        if (done) {
            err = outcome(done, line_out, why);
            break;
        }
        why[0] = 0;
        if (result && (err = emit(context, result)) != TANDEM_OK)
            break;
        if (bytes && (err = receive_bytes(client, cli_number_of(answer, "bytes", UINT64_MAX),
                                          emit_bytes, context, why)) != TANDEM_OK)
            break;
        json_decref(answer);
    }
    json_decref(answer);
    return err;
}
