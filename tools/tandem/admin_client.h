/*
 * The command line's end of the admin socket: requests to a running node.
 *
 * Threads: one at a time.
 */
#ifndef TANDEM_TOOLS_ADMIN_CLIENT_H
#define TANDEM_TOOLS_ADMIN_CLIENT_H

#include "tools/tandem/request.h"

typedef struct cli_admin_client cli_admin_client;

/* Connect and be greeted. TANDEM_E_UNREACHABLE: nobody answers, or only to hang up; why tells. */
tandem_err cli_admin_client_open(const char *path, cli_admin_client **out, char why[CLI_WHY_BYTES]);
void cli_admin_client_free(cli_admin_client *client); /* NULL is fine */

/* Wait until the node says something or is gone, or so many milliseconds (-1: for ever). False: a
 * signal was noted (interrupt.h). */
bool cli_admin_client_wait(const cli_admin_client *client, int timeout_ms);

/* Send one request; raw bytes (NULL: none) follow its line. */
tandem_err cli_admin_client_send(cli_admin_client *client, const json_t *object, const char *bytes,
                                 size_t size, char why[CLI_WHY_BYTES]);
/*
 * Receive the answer to the oldest request that was sent: its results and its raw bytes (emit_bytes
 * NULL: it has none), in the order in which they come, then its outcome. Errors:
 * the node's own, whatever emit returned (then the client is of no further use),
 * TANDEM_E_UNREACHABLE if the node is lost on the way. line_out (may be NULL) receives an import's
 * bad line, or 0.
 */
tandem_err cli_admin_client_receive(cli_admin_client *client, cli_emit_fn emit,
                                    cli_emit_bytes_fn emit_bytes, void *context, uint64_t *line_out,
                                    char why[CLI_WHY_BYTES]);

#endif
