#include "store/env.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

enum { LOG_LINE_BYTES_MAX = 512 };

uint64_t td_env_wall_ms(tandem_env *env)
{
    return env->ops->wall_ms(env);
}

uint64_t td_env_monotonic_us(tandem_env *env)
{
    return env->ops->monotonic_us(env);
}

uint64_t td_env_monotonic_ms(tandem_env *env)
{
    return env->ops->monotonic_us(env) / 1000;
}

void td_env_random_bytes(tandem_env *env, void *out, size_t size)
{
    env->ops->random_bytes(env, out, size);
}

uint64_t td_env_random_below(tandem_env *env, uint64_t limit)
{
    uint64_t value, biased;

    assert(limit >= 1);
    /* Numbers at the very top would make the small results likelier: draw again. */
    biased = (UINT64_MAX % limit + 1) % limit;
    do
        td_env_random_bytes(env, &value, sizeof(value));
    while (value > UINT64_MAX - biased);
    return value % limit;
}

void td_log(tandem_env *env, tandem_log_level level, const char *component, const char *format, ...)
{
    char line[LOG_LINE_BYTES_MAX];
    va_list args;

    if (!env->log || level > env->log_level)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    /* Names of peers and documents reach the log: none may move the cursor of a terminal. */
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    env->log(env->log_context, level, component, line);
}
