/*
 * The way to a reactor's data: the node that has the folder open, through its socket, or the
 * stopped store, opened here. A command that goes this way does not know which one it was.
 *
 * A stopped store is held under its lock for as long as the access is open. If somebody else has
 * the lock, opening tries both ways again until --timeout (5 s if not given): a node that is
 * starting has the lock first and answers a moment later.
 */
#ifndef TANDEM_TOOLS_ACCESS_H
#define TANDEM_TOOLS_ACCESS_H

#include "tools/tandem/refusals.h"
#include "tools/tandem/request.h"

enum { CLI_LOCK_TIMEOUT_MS = 5000 };

typedef struct cli_access cli_access;

/* Open the way. create: make the folder if it is missing; in a dry run, go nowhere then. An error is
 * not reported; why tells. */
tandem_err cli_access_open(const cli_call *call, bool create, cli_access **out,
                           char why[CLI_WHY_BYTES]);
void cli_access_free(cli_access *access); /* NULL is fine */

/* Is it a running node? */
bool cli_access_is_node(const cli_access *access);

/* Run one request to its end; TANDEM_E_CLOSED if a signal is noted (interrupt.h) before a node begins
 * to answer. */
tandem_err cli_access_run(cli_access *access, const json_t *object, cli_emit_fn emit, void *context,
                          char why[CLI_WHY_BYTES]);

/* A node's: wait so long, or until the node is gone, or a signal is noted. */
void cli_access_pause(const cli_access *access, int pause_ms);

/* The same as cli_access_run() for one that gives raw bytes, too; both get context. */
tandem_err cli_access_run_bytes(cli_access *access, const json_t *object, cli_emit_fn emit,
                                cli_emit_bytes_fn emit_bytes, void *context,
                                char why[CLI_WHY_BYTES]);

/*
 * An import's group, in two halves, so that a node can work on one while the next is read: at most
 * cli_access_depth() groups may be sent and not received.
 *
 * bytes        borrowed for the call
 */
unsigned cli_access_depth(const cli_access *access);
tandem_err cli_access_import_send(cli_access *access, const json_t *object, const char *bytes,
                                  size_t size, char why[CLI_WHY_BYTES]);
/* line_out: the bad line; 0 if the error is about none */
tandem_err cli_access_import_receive(cli_access *access, uint64_t *line_out,
                                     char why[CLI_WHY_BYTES]);

/* Open the reactor of a stopped store, waiting for its lock as cli_access_open() does.
 * refusals         by which it is to go; borrowed until it is closed
 * answers_out      (may be NULL) a node that came to answer meanwhile, instead of a reactor */
struct cli_admin_client;
tandem_err cli_store_open(const cli_call *call, bool create, cli_refusals *refusals,
                          tandem_reactor **out, struct cli_admin_client **answers_out,
                          char why[CLI_WHY_BYTES]);

/* The path of the admin socket of --data; the caller frees it. NULL: no folder is named, or no
 * memory. */
char *cli_socket_path(const cli_call *call);

/* The log of a library on stderr, with times; -v shows more of it. */
void cli_log(void *context, tandem_log_level level, const char *component, const char *text);

/* Open the way, run one request, and leave. An error is not reported; why tells. */
tandem_err cli_ask(const cli_call *call, bool create, const json_t *object, cli_emit_fn emit,
                   void *context, char why[CLI_WHY_BYTES]);
/* For a command that is one request: open the way, run it, report what fails as "what, why". what
 * may be NULL: "tandem NOUN VERB failed". object is taken. Returns the exit code. */
int cli_run_request(const cli_call *call, bool create, json_t *object, cli_emit_fn emit,
                    void *context, const char *what);
/* A request object: the command, and --timeout. NULL: no memory. */
json_t *cli_request_of(const cli_call *call, const char *command);

#endif
