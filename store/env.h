/*
 * The environment: where time, randomness and the log come in from.
 *
 * No code outside a runtime (reactor/runtime.h) asks the operating system for the time or for
 * random bytes: it asks its tandem_env. The threads runtime answers with the real ones, the
 * simulation with a virtual clock and a seeded generator, so that one seed is one run.
 *
 * Ownership: an env belongs to its runtime and outlives all that uses it.
 * Threads:   every function may be called from any thread.
 */
#ifndef TANDEM_STORE_ENV_H
#define TANDEM_STORE_ENV_H

#include <stdint.h>

#include "log.h"

typedef struct tandem_env tandem_env;

struct tandem_env_ops {
    uint64_t (*wall_ms)(tandem_env *env);      /* since 1970-01-01 UTC; may jump */
    uint64_t (*monotonic_us)(tandem_env *env); /* from an arbitrary start; never goes back */
    void (*random_bytes)(tandem_env *env, void *out, size_t size);
};

struct td_hooks;

struct tandem_env {
    const struct tandem_env_ops *ops;
    const struct td_hooks *hooks; /* the simulation's, see store/probe.h; else NULL */
    tandem_log_fn log; /* NULL: no log */
    void *log_context;
    tandem_log_level log_level; /* lines above it are not even formatted */
};

uint64_t td_env_wall_ms(tandem_env *env);
uint64_t td_env_monotonic_ms(tandem_env *env);
uint64_t td_env_monotonic_us(tandem_env *env);
void td_env_random_bytes(tandem_env *env, void *out, size_t size);

/* A random number below limit (>= 1), evenly spread. */
uint64_t td_env_random_below(tandem_env *env, uint64_t limit);

/* Formats and logs one line of at most 512 bytes; control characters in it become '?'. */
void td_log(tandem_env *env, tandem_log_level level, const char *component, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
