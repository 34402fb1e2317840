/*
 * The admin socket's two ends, and what runs over them: JSON Lines both ways, with runs of raw
 * bytes where a header line announces them. Blocking, with a deadline per wait.
 *
 * One conversation: the node says hello; then, any number of times, the client sends one request
 * object in one line and the node answers {"result": …} lines and one {"done": {"code", "error",
 * "message"}} line. After an `import` header line its raw bytes follow; in the answer, after a
 * {"bytes": n} line n raw bytes.
 *
 * Threads: a line_socket belongs to one thread.
 */
#ifndef TANDEM_TOOLS_LINE_SOCKET_H
#define TANDEM_TOOLS_LINE_SOCKET_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/error.h"

enum {
    CLI_REQUEST_BYTES_MAX = 1024 * 1024, /* one request line, towards the node */
    CLI_CHUNK_BYTES_MAX = 4 * 1024 * 1024, /* raw bytes at once, from the node */
    CLI_ANSWER_BYTES_MAX = 64 * 1024 * 1024, /* one line from the node: a large state */
};

typedef struct cli_line_socket {
    int fd;
    uint64_t timeout_ms; /* of each wait for the other side; UINT64_MAX: for ever */
    size_t line_bytes_max;
    char *buffer;
    size_t at; /* buffer[at, end) has come and was not taken */
    size_t end;
    size_t capacity;
} cli_line_socket;

/* Takes fd. */
void cli_line_socket_init(cli_line_socket *socket, int fd, size_t line_bytes_max,
                          uint64_t timeout_ms);
void cli_line_socket_release(cli_line_socket *socket);

/* Read one line as one JSON value; out is a new reference. TANDEM_END: the other side has closed;
 * TANDEM_E_LIMIT: a longer line; TANDEM_E_PROTOCOL: no JSON; TANDEM_E_TIMEOUT,
 * TANDEM_E_UNREACHABLE. */
tandem_err cli_line_socket_read(cli_line_socket *socket, json_t **out);
/* Read exactly size raw bytes into out, which grows as they come and is the caller's to free. */
tandem_err cli_line_socket_read_raw(cli_line_socket *socket, size_t size, char **out);
/* Write one value as a line. TANDEM_E_UNREACHABLE, TANDEM_E_TIMEOUT, TANDEM_E_NOMEM. */
tandem_err cli_line_socket_write(cli_line_socket *socket, const json_t *value);
tandem_err cli_line_socket_write_raw(cli_line_socket *socket, const char *bytes, size_t size);
/* Has the other side gone? */
bool cli_line_socket_gone(const cli_line_socket *socket);

/* Connect to the socket at path. TANDEM_E_UNREACHABLE: nobody answers there; why tells. */
tandem_err cli_socket_connect(const char *path, int *fd_out, char why[256]);
/* Listen at path with mode 0600, replacing a socket that nobody answers; the caller holds the lock
 * of the folder. TANDEM_E_LOCKED: somebody answers; TANDEM_E_EXISTS: what is there is no socket;
 * TANDEM_E_IO. */
tandem_err cli_socket_listen(const char *path, int *fd_out, char why[256]);

#endif
