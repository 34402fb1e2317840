/*
 * The gate of an author's reactor: a limit for each author, up to which it takes what that one has
 * written. What stands above is refused (tandem_options.admit); when a limit is raised above
 * something that was refused, the refusals are withdrawn, and the reactor asks for that again.
 *
 * So it is exact, whoever sends what, over whatever network, in whatever order. A refusal costs
 * some writes to the disk and a round trip; what is admitted before it is sent costs nothing.
 *
 * Ownership: origins is borrowed, and complete before anything comes. Threads:   cli_gate_admits()
 * is called on the reactor's, everything else on the caller's one.
 */
#ifndef TANDEM_TOOLS_TRACE_GATE_H
#define TANDEM_TOOLS_TRACE_GATE_H

#include <pthread.h>

#include "reactor/reactor.h"
#include "tools/tandem/recording.h"

typedef struct cli_gate {
    const uint8_t (*origins)[TANDEM_ORIGIN_BYTES]; /* of the authors */
    unsigned authors;
    pthread_mutex_t lock;              /* for what follows */
    uint64_t limits[CLI_AUTHORS_MAX];  /* of each author: seqs up to here are taken */
    uint64_t refused[CLI_AUTHORS_MAX]; /* the lowest that was not since the last withdrawal, or 0 */
} cli_gate;

/* Nothing is taken yet. */
void cli_gate_init(cli_gate *gate, const uint8_t (*origins)[TANDEM_ORIGIN_BYTES], unsigned authors);
void cli_gate_release(cli_gate *gate);

/* A tandem_admit_fn; its context is the gate. */
bool cli_gate_admits(void *gate, const tandem_operation *operation);

/* Set the limit of an author. Errors: those of tandem_withdraw_refusals(). */
tandem_err cli_gate_set(cli_gate *gate, tandem_reactor *reactor, unsigned author, uint64_t seq);

#endif
