/*
 * Progress: how far a peer is on its way from behind to in step, as a status bar would show it. One
 * way begins when something is left to be exchanged and ends when nothing is; the last one stays to
 * be looked at until the next begins.
 *
 *   total   what was exchanged on this way, and what is left; it grows while somebody writes, and
 *           shrinks when others deliver what is lacking here
 *   rate    operations a second: of the last second or so, an exponentially weighted average
 *
 * At its end the way is done to exactly the total. Threads: the loop's.
 */
#ifndef TANDEM_SYNC_PROGRESS_H
#define TANDEM_SYNC_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct td_progress {
    bool active;
    uint64_t base_operations, base_bytes; /* exchanged before this way began */
    uint64_t total, applied, bytes;
    uint64_t began_ms; /* monotonic */
    uint64_t sampled_ms, sampled; /* when the rate was last looked at, and what was applied then */
    double rate;
    uint64_t idle_ms, idle_operations, idle_bytes; /* when nothing was left, for the last time */
} td_progress;

/*
 * Look at it now.
 *
 * operations, bytes   exchanged since the peer is known
 * left                operations that are still to be
 */
void td_progress_look(td_progress *progress, uint64_t now_ms, uint64_t operations, uint64_t bytes,
                      uint64_t left);
/* The time that is left at this rate, in milliseconds; 0: none, UINT64_MAX: nobody knows. */
uint64_t td_progress_left_ms(const td_progress *progress);

#endif
