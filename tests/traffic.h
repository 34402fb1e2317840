/*
 * Traffic for the tests of polling: the moments at which a peer writes, as real numbers of virtual
 * milliseconds, the same on every run.
 */
#ifndef TANDEM_TESTS_TRAFFIC_H
#define TANDEM_TESTS_TRAFFIC_H

#include <math.h>

#include "draw.h"

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR };

/* What is written at the peer. */
struct traffic {
    uint64_t random;
    double at_ms;    /* the next operation */
    double until_ms; /* of a burst */
    double day_ms;   /* how long one is, for by_day() */
};

/* From the one to the other. */
static inline double uniform(struct traffic *traffic, double from, double to)
{
    return from + (to - from) * (double)(draw(&traffic->random) >> 11) / (double)(UINT64_C(1) << 53);
}

/* Until the next event of a Poisson process with this mean between two. */
static inline double pause_of(struct traffic *traffic, double mean_ms)
{
    return -mean_ms * log(1 - uniform(traffic, 0, 1));
}

static inline void steadily(struct traffic *traffic)
{
    traffic->at_ms += pause_of(traffic, 2 * SECOND);
}

static inline void rarely(struct traffic *traffic)
{
    traffic->at_ms += pause_of(traffic, 1 * MINUTE);
}

/* Two a second for one to five minutes; then nothing for a quarter of an hour on average. */
static inline void in_bursts(struct traffic *traffic)
{
    traffic->at_ms += pause_of(traffic, SECOND / 2);
    if (traffic->at_ms < traffic->until_ms)
        return;
    traffic->at_ms = traffic->until_ms + pause_of(traffic, 15 * MINUTE);
    traffic->until_ms = traffic->at_ms + uniform(traffic, 1 * MINUTE, 5 * MINUTE);
}

/* Half a day with one every ten seconds, and a night as long with none. */
static inline void by_day(struct traffic *traffic)
{
    double clock;

    traffic->at_ms += pause_of(traffic, 10 * SECOND);
    clock = fmod(traffic->at_ms, traffic->day_ms);
    if (clock >= traffic->day_ms / 2)
        traffic->at_ms += traffic->day_ms - clock;
}

#endif
