/*
 * Typing a recorded session into a world: each author's transactions on its own reactor, in the
 * recorded order, or in another one in which everything comes before what was written after seeing
 * it.
 *
 * Causality. A transaction's positions are those of the text as its author saw it, so its reactor
 * must hold then what the author had seen, and nothing else. What another author has written is
 * admitted to it as soon as everything that it still has to write was written after seeing that:
 * mostly before it is sent, and later only where the two wrote at once. A job ends where somebody
 * else saw the text.
 */
#ifndef TANDEM_TOOLS_TRACE_TYPING_H
#define TANDEM_TOOLS_TRACE_TYPING_H

#include "tools/tandem/command.h"
#include "tools/tandem/recording.h"
#include "tools/tandem/trace_world.h"

typedef struct cli_typed {
    uint64_t edits, jobs;
    uint64_t operations; /* edits, and what creates the document */
} cli_typed;

/*
 * Type all of it. call says how progress is shown.
 *
 * TANDEM_END: a signal came (interrupt.h), out tells how far it was. Else what the world and the
 * reactors return, and why.
 */
tandem_err cli_type(const cli_call *call, const cli_recording *recording, cli_world *world,
                    cli_typed *out, char why[256]);

#endif
