/*
 * What a node refuses: rules COLLECTION or COLLECTION/GLOB, the glob over names of documents
 * (store/glob.h); a collection ends at the first slash. Jobs of peers that one of them matches are
 * refused for good: up to TD_LACKS_MAX of them (store/op_store.h).
 *
 * They are the node's, given anew with each start, and kept in the data folder as `refuse`, one a
 * line, in byte order: a command that syncs a stopped store goes by them as well, and a node that
 * starts under others than before withdraws what was refused. The file is written after that, so
 * that a start which was broken off does it once more.
 *
 * Threads: asked on the thread that commits, never changed once made.
 */
#ifndef TANDEM_TOOLS_REFUSALS_H
#define TANDEM_TOOLS_REFUSALS_H

#include "sync/sync.h"
#include "tools/tandem/command.h"

typedef struct cli_refusals cli_refusals;

/* Those that --refuse gives. TANDEM_E_USAGE, and why; TANDEM_E_NOMEM. */
tandem_err cli_refusals_of_call(const cli_call *call, cli_refusals **out, char why[CLI_WHY_BYTES]);
/* Those that are kept in a data folder; none where nothing is. TANDEM_E_CORRUPT (they are no rules),
 * TANDEM_E_IO, and why. */
tandem_err cli_refusals_load(const char *data, cli_refusals **out, char why[CLI_WHY_BYTES]);
void cli_refusals_free(cli_refusals *refusals); /* NULL is fine */

/* A tandem_admit_fn. */
bool cli_refusals_admit(void *refusals, const tandem_operation *operation);

/*
 * From now on a data folder goes by these: where others are kept, or what cannot be read, all
 * refusals of its reactor are withdrawn, and these are kept. Those of the disk, and why.
 */
tandem_err cli_refusals_settle(const cli_refusals *refusals, const char *data,
                               tandem_reactor *reactor, char why[CLI_WHY_BYTES]);

#endif
