/*
 * New origins: a copy of this reactor is alive, or another one has continued our chain, or our clock has
 * run ahead. Each reason takes one at most every TD_INCARNATION_MS, in a commit of its own.
 */
#include <string.h>

#include "reactor/executor_state.h"
#include "reactor/runtime.h"
#include "store/planted.h"
#include "store/probe.h"

void td_follow_identity(td_executor *executor)
{
    const td_identity *identity = td_op_store_identity(executor->ops);

    if (identity->incarnation == executor->incarnation)
        return;
    executor->incarnation = identity->incarnation;
    if (identity->reason == TANDEM_INCARNATION_CLOCK)
        td_clock_reset(&executor->clock);
}

static bool is_clock_ahead(td_executor *executor)
{
    return td_clock_read(&executor->clock) >
           td_hlc_of_ms(td_env_wall_ms(executor->env) + executor->max_clock_skew_ms);
}

/* A group of its own, with nothing but the new identity. */
static tandem_err identity_commit(td_executor *executor, tandem_incarnation_reason reason)
{
    uint64_t hlc = reason == TANDEM_INCARNATION_CLOCK
                       ? td_hlc_of_ms(td_env_wall_ms(executor->env))
                       : 0;
    uint32_t before = executor->tried_from;
    tandem_err err;

    if (!before || executor->tried_for != reason)
        before = td_op_store_identity(executor->ops)->incarnation;
    if ((err = td_group_begin(executor)) != TANDEM_OK)
        return err;
    executor->open = false;
    /* What a commit that failed was to make may be there: then it is only to be proven. */
    if (td_op_store_identity(executor->ops)->incarnation == before)
        err = td_op_store_reincarnate(executor->ops, reason, reason == TANDEM_INCARNATION_COPIED,
                                      hlc);
    if (err == TANDEM_OK)
        err = td_op_store_commit(executor->ops);
    if (err != TANDEM_OK && td_op_store_recover(executor->ops) == TANDEM_OK &&
        td_op_store_identity(executor->ops)->incarnation != before &&
        td_op_store_begin(executor->ops) == TANDEM_OK)
        err = td_op_store_commit(executor->ops);
    executor->tried_from = err == TANDEM_OK ? 0 : before;
    executor->tried_for = reason;
    return err;
}

static void reincarnate_after(td_executor *executor, uint64_t delay_ms)
{
    if (executor->reincarnate_timed)
        td_actor_cancel(executor->actor, &executor->reincarnate_later);
    executor->reincarnate_timed = true;
    td_actor_post_after(executor->actor, &executor->reincarnate_later, delay_ms);
}

static tandem_err take_origin(td_executor *executor, tandem_incarnation_reason reason)
{
    tandem_event event = {.kind = TANDEM_EVENT_INCARNATION};
    const td_identity *identity;
    tandem_err err;

    if ((err = identity_commit(executor, reason)) != TANDEM_OK) {
        td_store_failed(executor, err);
        return err;
    }
    td_follow_identity(executor);
    executor->reincarnated_ms[reason] = td_env_monotonic_ms(executor->env);
    identity = td_op_store_identity(executor->ops);
    if (reason == TANDEM_INCARNATION_CONTINUED)
        td_probe(executor->env, TD_PROBE_INCARNATION_CONTINUED);
    td_log(executor->env, TANDEM_LOG_WARNING, "executor",
           "this reactor writes under a new origin, its %u: %s", identity->incarnation,
           tandem_incarnation_reason_name(identity->reason));
    memcpy(event.origin, identity->origin, sizeof(event.origin));
    event.reason = identity->reason;
    td_event_bus_tell(executor->bus, &event);
    return TANDEM_OK;
}

void td_reincarnate(td_executor *executor)
{
    static const struct {
        tandem_incarnation_reason reason;
        unsigned settles; /* these reasons with it */
    } order[] = {
        {TANDEM_INCARNATION_COPIED,
         TD_REASON(TANDEM_INCARNATION_COPIED) | TD_REASON(TANDEM_INCARNATION_CONTINUED)},
        {TANDEM_INCARNATION_CONTINUED, TD_REASON(TANDEM_INCARNATION_CONTINUED)},
        {TANDEM_INCARNATION_CLOCK, TD_REASON(TANDEM_INCARNATION_CLOCK)},
    };
    uint64_t now_ms = td_env_monotonic_ms(executor->env), wait_ms = UINT64_MAX;

    if (executor->open)
        td_group_commit(executor);
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        tandem_incarnation_reason reason = order[i].reason;
        uint64_t last_ms = executor->reincarnated_ms[reason];
        bool is_settled;

        if (!(atomic_load(&executor->reincarnation) & TD_REASON(reason)))
            continue;
        if (last_ms && now_ms < last_ms + TD_INCARNATION_MS &&
            !td_planted(TD_PLANTED_ORIGINS_WITHOUT_END)) {
            if (last_ms + TD_INCARNATION_MS - now_ms < wait_ms)
                wait_ms = last_ms + TD_INCARNATION_MS - now_ms;
            continue;
        }
        is_settled = reason == TANDEM_INCARNATION_CLOCK && !executor->tried_from &&
                     !is_clock_ahead(executor);
        if (!is_settled && take_origin(executor, reason) != TANDEM_OK) {
            wait_ms = TD_MEND_MS;
            break;
        }
        atomic_fetch_and(&executor->reincarnation, ~order[i].settles);
    }
    if (wait_ms != UINT64_MAX)
        reincarnate_after(executor, wait_ms);
}

void td_executor_reincarnate(td_executor *executor, tandem_incarnation_reason reason)
{
    atomic_fetch_or(&executor->reincarnation, TD_REASON(reason));
    if (!atomic_exchange(&executor->reincarnate_posted, true))
        td_actor_post(executor->actor, &executor->reincarnate_message);
}

void td_executor_peer_clock(td_executor *executor, uint64_t hlc)
{
    uint64_t peer_ms = td_hlc_ms(hlc), own_ms = td_hlc_ms(td_clock_read(&executor->clock));

    if (own_ms > peer_ms && own_ms - peer_ms > executor->max_clock_skew_ms &&
        is_clock_ahead(executor))
        td_executor_reincarnate(executor, TANDEM_INCARNATION_CLOCK);
}
