/*
 * An importer: executes groups of import lines, one after the other, on a thread of its own, while
 * whoever reads the lines has the next group parsed. Groups are atomic, and after one that failed no
 * other is executed: what was kept is always everything up to a line.
 *
 * Threads: one puts and frees; told runs on the importer's own thread.
 */
#ifndef TANDEM_TOOLS_IMPORTER_H
#define TANDEM_TOOLS_IMPORTER_H

#include "tools/tandem/request.h"

typedef struct cli_importer cli_importer;

/* What became of a group. */
typedef struct cli_imported {
    tandem_err err;
    size_t lines;
    uint64_t line; /* the bad one; 0 if the error is about none */
    char why[CLI_WHY_BYTES];
} cli_imported;

/* Once for each group that was put, in their order, until one has failed: the last that is told. */
typedef void (*cli_imported_fn)(void *context, const cli_imported *outcome);

/* reactor may be NULL: then only dry runs may be put. TANDEM_E_NOMEM. */
tandem_err cli_importer_open(tandem_reactor *reactor, cli_imported_fn told, void *context,
                             cli_importer **out);

/*
 * Have a group executed: all or none. Waits while one that was put before has not begun.
 *
 * object   {"command": "import", "collection", "first_line", "lines", "bytes", "dry_run"}
 * bytes    the lines, each ended by a line feed, the last one perhaps not; borrowed for the call
 *
 * What is wrong with it is told in its turn. TANDEM_E_NOMEM: it never will be. TANDEM_E_CLOSED: one before
 * it has failed.
 */
tandem_err cli_importer_put(cli_importer *importer, const json_t *object, const char *bytes,
                            size_t size);

/* Has everything that was put told, first. NULL is fine. */
void cli_importer_free(cli_importer *importer);

#endif
