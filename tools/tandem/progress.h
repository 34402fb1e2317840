/*
 * Progress of long work on stderr: a bar where that is a terminal, otherwise a plain line at most
 * every ten seconds.
 */
#ifndef TANDEM_TOOLS_PROGRESS_H
#define TANDEM_TOOLS_PROGRESS_H

#include "tools/tandem/command.h"

typedef struct cli_progress {
    bool bar;
    bool plain;
    bool drawn;
    uint64_t total; /* bytes; 0: not known */
    const char *unit;
    uint64_t begun_ms;
    uint64_t shown_ms;
} cli_progress;

/* unit: what is counted besides bytes, "lines" */
void cli_progress_begin(cli_progress *progress, const cli_call *call, uint64_t total_bytes,
                        const char *unit);
/* So many bytes and units are done. */
void cli_progress_at(cli_progress *progress, uint64_t bytes, uint64_t units);
/* Take the bar away. */
void cli_progress_end(cli_progress *progress);

#endif
