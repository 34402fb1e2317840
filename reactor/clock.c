#include "reactor/clock.h"

void td_clock_init(td_clock *clock, tandem_env *env, uint64_t high_water)
{
    clock->env = env;
    clock->lead = td_env_random_below(env, UINT64_C(1) << (TD_HLC_COUNTER_BITS - 1));
    atomic_init(&clock->last, high_water);
}

/* Everything is relaxed: the number orders nothing but itself. */

uint64_t td_clock_tick(td_clock *clock)
{
    uint64_t wall = td_hlc_of_ms(td_env_wall_ms(clock->env));
    uint64_t last = atomic_load_explicit(&clock->last, memory_order_relaxed), hlc;

    do
        hlc = (wall > last ? wall : last) + 1 + clock->lead;
    while (!atomic_compare_exchange_weak_explicit(&clock->last, &last, hlc, memory_order_relaxed,
                                                  memory_order_relaxed));
    clock->lead = 0;
    return hlc;
}

void td_clock_observe(td_clock *clock, uint64_t hlc)
{
    uint64_t last = atomic_load_explicit(&clock->last, memory_order_relaxed);

    while (hlc > last &&
           !atomic_compare_exchange_weak_explicit(&clock->last, &last, hlc, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

void td_clock_reset(td_clock *clock)
{
    atomic_store(&clock->last, td_hlc_of_ms(td_env_wall_ms(clock->env)));
}

uint64_t td_clock_read(td_clock *clock)
{
    td_clock_observe(clock, td_hlc_of_ms(td_env_wall_ms(clock->env)));
    return atomic_load_explicit(&clock->last, memory_order_relaxed);
}
