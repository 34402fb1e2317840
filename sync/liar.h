/*
 * A peer that lies. It dials one reactor, says HELLO as anybody does, and then what nobody should: it
 * forks an origin over and over, claims what it cannot show, goes back on what it announced, refuses
 * what it is given, or sends what is no message at all. It writes messages by hand and follows no
 * session, so that no rule of ours keeps it honest.
 *
 * What it makes others store is well formed and is kept and relayed like anybody's.
 *
 * Threads: that of the simulation.
 */
#ifndef TANDEM_SYNC_LIAR_H
#define TANDEM_SYNC_LIAR_H

#include "sync/harness_parts.h"

typedef struct td_liar td_liar;

/* name: its own on the network; victim: a reactor's; random: what it does. */
tandem_err td_liar_open(tandem_harness *harness, const char *name, const char *victim,
                        uint64_t random, td_liar **out);
void td_liar_free(td_liar *liar); /* its link is gone; NULL is fine */

#endif
