#include "channel/retry.h"

#include "store/planted.h"

void td_retry_init(td_retry *retry, const td_retry_policy *policy)
{
    retry->policy = *policy;
    retry->attempts = 0;
}

void td_retry_succeeded(td_retry *retry)
{
    retry->attempts = 0;
}

bool td_retry_spent(const td_retry *retry)
{
    return retry->attempts >= retry->policy.attempts_max;
}

static uint64_t ceiling_ms(const td_retry_policy *policy, uint32_t attempts)
{
    uint64_t ms = policy->base_ms;

    if (policy->factor <= 1)
        return ms < policy->cap_ms ? ms : policy->cap_ms;
    for (uint32_t i = 1; i < attempts && ms && ms < policy->cap_ms; i++)
        ms = ms > policy->cap_ms / policy->factor ? policy->cap_ms : ms * policy->factor;
    return ms < policy->cap_ms ? ms : policy->cap_ms;
}

uint64_t td_retry_failed(td_retry *retry, tandem_env *env, uint64_t floor_ms)
{
    uint64_t delay_ms;

    if (retry->attempts < UINT32_MAX)
        retry->attempts++;
    if (td_retry_spent(retry)) {
        uint64_t half = retry->policy.rest_ms / 2;

        delay_ms = half + td_env_random_below(env, half + 1);
    } else {
        delay_ms = td_env_random_below(env, ceiling_ms(&retry->policy, retry->attempts) + 1);
        if (td_planted(TD_PLANTED_RETRY_WITHOUT_JITTER))
            delay_ms = ceiling_ms(&retry->policy, retry->attempts);
    }
    return delay_ms > floor_ms ? delay_ms : floor_ms;
}
