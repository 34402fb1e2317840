#include "reactor/clock.h"

void td_clock_init(td_clock *clock, tandem_env *env, uint64_t high_water)
{
    clock->env = env;
    atomic_init(&clock->last, high_water);
}

uint64_t td_clock_tick(td_clock *clock)
{
    uint64_t hlc = td_clock_read(clock) + 1;

    atomic_store_explicit(&clock->last, hlc, memory_order_relaxed);
    return hlc;
}

void td_clock_observe(td_clock *clock, uint64_t hlc)
{
    if (hlc > atomic_load_explicit(&clock->last, memory_order_relaxed))
        atomic_store_explicit(&clock->last, hlc, memory_order_relaxed);
}

uint64_t td_clock_read(td_clock *clock)
{
    uint64_t last = atomic_load_explicit(&clock->last, memory_order_relaxed);
    uint64_t wall = td_hlc_of_ms(td_env_wall_ms(clock->env));

    return wall > last ? wall : last;
}
