/*
 * When to try again: exponential backoff with full jitter.
 *
 *   delay = random(0, min(cap, base * factor^attempt))
 *
 * and a budget: so many attempts a minute, however many of them succeed. It bounds what backoff does
 * not see, a connection that is made and lost again and again; all of a minute's may come at once.
 *
 * Sources: Marc Brooker, Exponential Backoff And Jitter (AWS Architecture Blog, 2015), "full jitter";
 * ATM Forum, Traffic Management 4.0, the generic cell rate algorithm (virtual scheduling).
 * Pure but for the random number: no clock, no timer.
 */
#ifndef TANDEM_CHANNEL_RETRY_H
#define TANDEM_CHANNEL_RETRY_H

#include "store/env.h"

typedef struct td_retry_policy {
    uint64_t base_ms;
    uint64_t factor;
    uint64_t cap_ms;
    uint32_t attempts_max; /* after so many failures in a row the policy is spent */
    uint64_t rest_ms;      /* then one probe each so often */
    uint32_t budget;       /* attempts a minute; 0: any number */
} td_retry_policy;

#define TD_RETRY_POLICY_DEFAULT                                                                    \
    {                                                                                              \
        .base_ms = 100, .factor = 2, .cap_ms = 30000, .attempts_max = 10, .rest_ms = 60000,        \
        .budget = 60                                                                               \
    }

typedef struct td_retry {
    td_retry_policy policy;
    uint32_t attempts; /* failures in a row */
    uint64_t paid_ms;  /* the attempts so far pay for the time up to here */
} td_retry;

void td_retry_init(td_retry *retry, const td_retry_policy *policy);
/* Another policy from now on; what has failed so far counts on. */
void td_retry_change(td_retry *retry, const td_retry_policy *policy);
/* An attempt is made now (monotonic ms): it counts against the budget. */
void td_retry_attempted(td_retry *retry, uint64_t now_ms);
/* It worked: begin anew. */
void td_retry_succeeded(td_retry *retry);
/* It failed: how long to wait from now_ms on, at least floor_ms (what the peer asked for) and until
 * the budget allows it. While resting, the delay is the rest time with half of it jittered. */
uint64_t td_retry_failed(td_retry *retry, tandem_env *env, uint64_t now_ms, uint64_t floor_ms);
/* Is the policy spent? */
bool td_retry_spent(const td_retry *retry);

#endif
