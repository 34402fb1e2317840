/*
 * Where a recorded session is replayed: reactors with stores in a folder, which sync as they go.
 * The first so many belong to the authors, one each, all connected with each other; each further
 * one only reads, and hangs on one author. An author's reactor has a gate (trace_gate.h).
 *
 * Threads: one.
 */
#ifndef TANDEM_TOOLS_TRACE_WORLD_H
#define TANDEM_TOOLS_TRACE_WORLD_H

#include "sync/sync.h"

/* What everything is written to. */
#define CLI_TRACE_COLLECTION "trace"
#define CLI_TRACE_DOCUMENT "text"

typedef struct cli_world cli_world;

typedef struct cli_world_ops {
    const char *via; /* its name for --via */
    /*
     * Make and connect them; nothing of one author may reach another one yet.
     *
     * folder  an existing one, empty; it is the caller's, and so is what is left there afterwards
     * why     says what is wrong, here and below; "" if the error says it all
     */
    tandem_err (*open)(const char *folder, unsigned authors, unsigned reactors, cli_world **out,
                       char why[256]);
    /* The world's; valid until it is freed. */
    tandem_reactor *(*reactor)(cli_world *world, unsigned reactor);
    tandem_sync *(*sync)(cli_world *world, unsigned reactor);
    /* What author `from` has written up to a seq, that of its origin, may reach author `to` from
     * now on. UINT64_MAX: so may whatever it writes before the next call about the two. What was
     * admitted once is never kept back again. */
    tandem_err (*admit)(cli_world *world, unsigned from, unsigned to, uint64_t seq);
    /* Wait until an author's reactor holds so many operations: its own, and all that was admitted.
     * TANDEM_E_STATE: it holds more; TANDEM_E_TIMEOUT: they did not come. */
    tandem_err (*catch_up)(cli_world *world, unsigned author, uint64_t operations, char why[256]);
    /* The same of all reactors: they hold everything that was written. */
    tandem_err (*converge)(cli_world *world, uint64_t operations, char why[256]);
    void (*free)(cli_world *world); /* NULL is fine */
} cli_world_ops;

/* Begins each world's own struct. */
struct cli_world {
    const cli_world_ops *ops;
};

extern const cli_world_ops cli_memory_world, cli_ws_world;

/* For worlds: a reactor has not come to hold what it should. Says so in why; returns the error. */
tandem_err cli_world_holds_other(unsigned reactor, uint64_t wanted, uint64_t held, char why[256]);

#endif
