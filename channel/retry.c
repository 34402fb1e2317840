#include "channel/retry.h"

#include "store/planted.h"

enum { MINUTE_MS = 60000 };

void td_retry_init(td_retry *retry, const td_retry_policy *policy)
{
    *retry = (td_retry){.policy = *policy};
}

void td_retry_change(td_retry *retry, const td_retry_policy *policy)
{
    retry->policy = *policy;
}

void td_retry_attempted(td_retry *retry, uint64_t now_ms)
{
    if (!retry->policy.budget)
        return;
    if (retry->paid_ms < now_ms)
        retry->paid_ms = now_ms;
    retry->paid_ms += MINUTE_MS / retry->policy.budget;
}

/* How long until one more attempt pays for no more than a minute from then on. */
static uint64_t budget_wait_ms(const td_retry *retry, uint64_t now_ms)
{
    uint64_t paid_ms;

    if (!retry->policy.budget)
        return 0;
    paid_ms = retry->paid_ms + MINUTE_MS / retry->policy.budget;
    return paid_ms > now_ms + MINUTE_MS ? paid_ms - MINUTE_MS - now_ms : 0;
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

uint64_t td_retry_failed(td_retry *retry, tandem_env *env, uint64_t now_ms, uint64_t floor_ms)
{
    uint64_t delay_ms, budget_ms = budget_wait_ms(retry, now_ms);

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
    if (delay_ms < floor_ms)
        delay_ms = floor_ms;
    return delay_ms > budget_ms ? delay_ms : budget_ms;
}
