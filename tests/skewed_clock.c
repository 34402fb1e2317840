/*
 * A wall clock that is wrong: preloaded into a program, this adds $SKEWED_CLOCK_S seconds to
 * CLOCK_REALTIME. All other clocks stay, so what waits for a span of time waits for it.
 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec *now)
{
    long result = syscall(SYS_clock_gettime, id, now);
    const char *skew = id == CLOCK_REALTIME ? getenv("SKEWED_CLOCK_S") : NULL;

    if (result == 0 && skew)
        now->tv_sec += strtol(skew, NULL, 10);
    return (int)result;
}
