/*
 * The node's end of the admin socket: accepts on the program's uv loop, and serves each connection
 * on a thread of its own, since a request may wait for a commit, for a peer or for a slow reader.
 * At most CLI_CONNECTIONS_MAX at once; more are refused with an error.
 *
 * Threads: all functions from the loop's thread.
 */
#ifndef TANDEM_TOOLS_ADMIN_SERVER_H
#define TANDEM_TOOLS_ADMIN_SERVER_H

#include <uv.h>

#include "tools/tandem/request.h"

enum { CLI_CONNECTIONS_MAX = 64 };

typedef struct cli_admin_server cli_admin_server;

/* Serve what comes in on a listening socket, which is taken, until stopped. */
tandem_err cli_admin_server_open(uv_loop_t *loop, int fd, tandem_reactor *reactor,
                                 tandem_sync *sync, cli_admin_server **out);
/* Accept no more, read no more: requests end when what they are in the middle of is done. */
void cli_admin_server_stop(cli_admin_server *server);
/* Stop, and wait for the last request; before the sync and the reactor are closed. The loop must
 * not have been closed, unless it has run since the stop. NULL is fine. */
void cli_admin_server_free(cli_admin_server *server);

#endif
