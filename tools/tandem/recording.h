/*
 * Recorded editing sessions, as the collection editing-traces publishes them (josephg/editing-traces): JSON,
 * gzipped or not. A transaction is what one author did at once: patches [position, deleted, inserted] in code
 * points, applied one after the other. Where there are several authors its positions are those of the
 * text as its author saw it: after its parents, which are earlier transactions, and all before them.
 *
 * What is read is checked: positions may lie behind the text's end, which the replay tells, but
 * parents are earlier ones, and authors are as many as are announced.
 */
#ifndef TANDEM_TOOLS_RECORDING_H
#define TANDEM_TOOLS_RECORDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/error.h"

enum { CLI_AUTHORS_MAX = 64 };

typedef struct cli_patch {
    uint32_t at, deleted;
    const char *inserted; /* "" if nothing */
} cli_patch;

typedef struct cli_transaction {
    uint32_t author;
    uint32_t first_patch, patch_count;
    bool ends_part;  /* another author saw the text up to here, and not what comes next */
    uint32_t *seen;  /* of each author: so many transactions, of its own those before it */
} cli_transaction;

typedef struct cli_recording {
    uint32_t authors;
    cli_transaction *transactions;
    uint32_t transaction_count;
    cli_patch *patches;
    uint32_t patch_count;
    char *start, *end; /* the text before and after */
    char *text;        /* what patches insert, each ended by a zero */
    uint32_t *seen;    /* what the transactions point into */
} cli_recording;

/* Errors: TANDEM_E_NOT_FOUND, TANDEM_E_IO, TANDEM_E_INPUT (why says what is wrong), TANDEM_E_NOMEM. */
tandem_err cli_recording_read(const char *path, cli_recording *out, char why[256]);
void cli_recording_release(cli_recording *recording);

#endif
