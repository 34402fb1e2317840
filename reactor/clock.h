/*
 * The hybrid logical clock: one 64-bit number, milliseconds since 1970 in the upper 48 bits, a
 * counter in the lower 16; a full counter carries into the milliseconds. It never goes back, follows
 * the wall clock when that is ahead, and moves past every operation received, so that an effect is
 * always dated after its cause.
 *
 * The first number of a life is a random bit ahead, by less than half a millisecond. Two copies of a
 * reactor that do the same thing first, with one high water or within one millisecond, would else
 * make one operation where there are two.
 *
 * Source: Kulkarni, Demirbas, Madappa, Avva, Leone: Logical Physical Clocks (OPODIS 2014).
 *
 * Threads: one thread ticks and observes (the executor's); td_clock_read() from any.
 */
#ifndef TANDEM_REACTOR_CLOCK_H
#define TANDEM_REACTOR_CLOCK_H

#include <stdatomic.h>

#include "store/env.h"

enum { TD_HLC_COUNTER_BITS = 16, TD_CLOCK_SKEW_MS_MAX_DEFAULT = 5 * 60 * 1000 };

typedef struct td_clock {
    tandem_env *env;
    _Atomic uint64_t last;
    uint64_t lead; /* of the first tick; 0 afterwards */
} td_clock;

/* high_water: the largest HLC this reactor ever gave or took, 0 for none. */
void td_clock_init(td_clock *clock, tandem_env *env, uint64_t high_water);
/* A timestamp for a new operation: above all before it. */
uint64_t td_clock_tick(td_clock *clock);
/* Move past a timestamp received. The caller has checked that it is not too far ahead. */
void td_clock_observe(td_clock *clock, uint64_t hlc);
/* Begin again from the wall clock, lower though it may be: for a new origin only. */
void td_clock_reset(td_clock *clock);
/* The time now: no later tick is at or below it, even if the wall clock steps back meanwhile. */
uint64_t td_clock_read(td_clock *clock);

static inline uint64_t td_hlc_of_ms(uint64_t wall_ms)
{
    return wall_ms << TD_HLC_COUNTER_BITS;
}
static inline uint64_t td_hlc_ms(uint64_t hlc)
{
    return hlc >> TD_HLC_COUNTER_BITS;
}

#endif
