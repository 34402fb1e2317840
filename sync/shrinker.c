/*
 * Making a plan that fails smaller. Steps go first, by halves, quarters … (delta debugging: Zeller
 * and Hildebrandt, 2002), because each that is gone makes every further run cheaper; then whole
 * classes of faults, the small windows, and the last reactors.
 *
 * A smaller plan must fail for the same reason, or what is looked for slides away to whatever fails
 * more easily. That is the last clause of the sentence, without numbers and names of reactors: what
 * stands before it says when and where.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "sync/plan.h"

enum { REASON_BYTES = 256 };

struct shrinking {
    tandem_simulator_options quiet;
    uint64_t runs_left;
    tandem_plan *best; /* fails, */
    char reason[REASON_BYTES]; /* for this */
    tandem_simulator_result *result;
};

static void reason_of(const char *why, char out[REASON_BYTES])
{
    size_t size = 0, word = 0; /* where the present one begins */

    for (const char *colon; (colon = strstr(why, ": "));)
        why = colon + 2;
    for (; *why && size < REASON_BYTES - 1; why++) {
        if (isalpha((unsigned char)*why))
            out[size++] = *why;
        if (*why != ' ')
            continue;
        if (size - word <= 1) /* a name, or nothing but digits */
            size = word;
        else
            out[size++] = ' ';
        word = size;
    }
    out[size - word <= 1 ? word : size] = 0;
}

static bool is_same_reason(const struct shrinking *shrinking, const char *why)
{
    char reason[REASON_BYTES];

    reason_of(why, reason);
    return !strcmp(reason, shrinking->reason);
}

/* Does it fail, too, and for the same reason? Then it is the best so far. Takes plan. */
static tandem_err try(struct shrinking *shrinking, tandem_plan *plan, bool *better_out)
{
    tandem_simulator_result result;
    tandem_err err;

    *better_out = false;
    if (!shrinking->runs_left) {
        tandem_plan_free(plan);
        return TANDEM_OK;
    }
    shrinking->runs_left--;
    err = tandem_simulate(plan, &shrinking->quiet, &result);
    if (err == TANDEM_OK && !result.ok && !shrinking->best)
        reason_of(result.why, shrinking->reason);
    if (err != TANDEM_OK || result.ok || !is_same_reason(shrinking, result.why)) {
        tandem_plan_free(plan);
        return err;
    }
    tandem_plan_free(shrinking->best);
    shrinking->best = plan;
    *shrinking->result = result;
    *better_out = true;
    return TANDEM_OK;
}

static tandem_err try_without(struct shrinking *shrinking, size_t first, size_t count,
                              bool *better_out)
{
    tandem_plan *plan;
    tandem_err err = td_plan_copy(shrinking->best, &plan);

    if (err != TANDEM_OK)
        return err;
    memmove(plan->steps + first, plan->steps + first + count,
            (plan->count - first - count) * sizeof(*plan->steps));
    plan->count -= count;
    return try(shrinking, plan, better_out);
}

static tandem_err shrink_steps(struct shrinking *shrinking)
{
    size_t chunk = (shrinking->best->count + 1) / 2;
    bool better;
    tandem_err err;

    while (chunk > 0 && shrinking->runs_left) {
        bool any = false;

        for (size_t at = 0; at < shrinking->best->count && shrinking->runs_left;) {
            size_t left = shrinking->best->count - at;

            if ((err = try_without(shrinking, at, left < chunk ? left : chunk, &better)) !=
                TANDEM_OK)
                return err;
            any = any || better;
            at += better ? 0 : chunk;
        }
        chunk = chunk == 1 && any ? 1 : chunk / 2;
    }
    return TANDEM_OK;
}

/* A class of faults, with all its steps. */
static tandem_err shrink_faults(struct shrinking *shrinking)
{
    for (uint32_t fault = 1; fault <= TANDEM_FAULT_ALL; fault <<= 1) {
        tandem_plan *plan;
        bool better;
        size_t kept = 0;
        tandem_err err;

        if (!(shrinking->best->faults & fault))
            continue;
        if ((err = td_plan_copy(shrinking->best, &plan)) != TANDEM_OK)
            return err;
        plan->faults &= ~fault;
        for (size_t i = 0; i < plan->count; i++)
            if (!(td_step_fault(plan->steps[i].kind) & fault))
                plan->steps[kept++] = plan->steps[i];
        plan->count = kept;
        if ((err = try(shrinking, plan, &better)) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

static tandem_err shrink_world(struct shrinking *shrinking)
{
    tandem_plan *plan;
    bool better;
    tandem_err err;

    if (shrinking->best->window_jobs || shrinking->best->window_bytes ||
        shrinking->best->pool_bytes) {
        if ((err = td_plan_copy(shrinking->best, &plan)) != TANDEM_OK)
            return err;
        plan->window_jobs = 0;
        plan->window_bytes = plan->pool_bytes = 0;
        if ((err = try(shrinking, plan, &better)) != TANDEM_OK)
            return err;
    }
    if (shrinking->best->ranges_least) {
        if ((err = td_plan_copy(shrinking->best, &plan)) != TANDEM_OK)
            return err;
        plan->ranges_least = 0;
        if ((err = try(shrinking, plan, &better)) != TANDEM_OK)
            return err;
    }
    do {
        if (shrinking->best->reactors <= 2)
            break;
        if ((err = td_plan_copy(shrinking->best, &plan)) != TANDEM_OK)
            return err;
        plan->reactors--;
        if ((err = try(shrinking, plan, &better)) != TANDEM_OK)
            return err;
    } while (better);
    return TANDEM_OK;
}

tandem_err tandem_plan_shrink(const tandem_plan *plan, const tandem_simulator_options *options,
                              uint64_t runs_max, tandem_plan **out,
                              tandem_simulator_result *result)
{
    static const tandem_simulator_options defaults = TANDEM_SIMULATOR_OPTIONS_INIT;
    struct shrinking shrinking = {.runs_left = runs_max, .result = result};
    tandem_plan *copy;
    bool fails;
    tandem_err err;

    shrinking.quiet = options ? *options : defaults;
    shrinking.quiet.log = NULL;
    shrinking.quiet.event = NULL;
    if ((err = td_plan_copy(plan, &copy)) != TANDEM_OK)
        return err;
    if ((err = try(&shrinking, copy, &fails)) != TANDEM_OK)
        return err;
    if (!fails)
        return TANDEM_E_STATE;
    /* Twice: without a reactor or a class of faults, further steps do nothing. */
    for (int i = 0; i < 2 && err == TANDEM_OK; i++)
        if ((err = shrink_steps(&shrinking)) == TANDEM_OK &&
            (err = shrink_faults(&shrinking)) == TANDEM_OK)
            err = shrink_world(&shrinking);
    if (err != TANDEM_OK) {
        tandem_plan_free(shrinking.best);
        return err;
    }
    *out = shrinking.best;
    return TANDEM_OK;
}
