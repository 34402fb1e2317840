/*
 * A peer that lies. It dials one reactor, says HELLO as anybody does, and then what nobody should: it
 * forks an origin over and over, also that of a reactor that lives, claims what it cannot show, goes
 * back on what it announced, refuses what it is given, or sends what is no message at all. It writes messages by hand and follows no
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

/*
 * Of a living reactor's chain eight branches are kept, and which ones must be decided in one place, or
 * all never become equal: so how many it forges is not its own decision.
 */
typedef struct td_liar_orders {
    unsigned branches; /* of the victim's chain, each time that it forks it */
    bool others;       /* and one of a third's */
    /* Told of every operation before it is sent. */
    void (*forged)(void *context, const uint8_t hash[TANDEM_HASH_BYTES]);
    void *context;
} td_liar_orders;

/* name: its own on the network; victim: a reactor's; random: what it does. */
tandem_err td_liar_open(tandem_harness *harness, const char *name, const char *victim,
                        uint64_t random, const td_liar_orders *orders, td_liar **out);
void td_liar_free(td_liar *liar); /* its link is gone; NULL is fine */

#endif
