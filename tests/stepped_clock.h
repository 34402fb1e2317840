/*
 * A monotonic clock that a test moves forward: what waits for a span of time need not be waited for.
 *
 * Linked into a test program, stepped_clock.c is the clock of all libraries under it as well: libuv,
 * libwebsockets and libcurl ask the same clock as the runtime does. The wall clock stays.
 */
#ifndef TANDEM_TESTS_STEPPED_CLOCK_H
#define TANDEM_TESTS_STEPPED_CLOCK_H

#include <stdint.h>

/* From now on so much later. */
void step_clock(uint64_t ms);
/* Milliseconds of this clock. */
uint64_t clock_ms(void);

#endif
