#include "channel/scheduler.h"

#include <assert.h>

enum {
    RANGE = 8,       /* bounds of the interval: the mean by this, and times this */
    FADE_STEPS = 16, /* half-lives are gone through in so many steps */
    RATE_EVERY = 16, /* exchanges; each of the first: */
    RATE_EACH = 64,
    FAILURES_MAX = 5,
};

static const uint64_t HALF_LIFE_MS = UINT64_C(3) * 24 * 3600 * 1000;
static const uint64_t SAVINGS_MS_MAX = UINT64_C(24) * 3600 * 1000;
static const uint64_t SPENDING_MS = UINT64_C(7) * 24 * 3600 * 1000; /* in which savings are spent */
static const double FADE = 0.957603280698574; /* 2^(-1/FADE_STEPS) */
static const double PRIOR_HITS = 4;           /* so much is seen of the mean in each age beforehand */
static const double NEWEST_WEIGHT = 0.125;    /* of an average; RFC 6298's for round trips */
static const double FLOOD = 16;               /* times what comes on average */
static const double EVEN = 0.1;               /* so far from the mean it is still even */

uint64_t td_poll_interval_ms_max(const td_poll_policy *policy)
{
    uint64_t max_ms = policy->mean_ms * RANGE;

    if (policy->mode == TD_POLL_FIXED)
        return policy->mean_ms;
    if (max_ms > TD_POLL_INTERVAL_MS_MAX)
        max_ms = TD_POLL_INTERVAL_MS_MAX;
    return max_ms > policy->mean_ms ? max_ms : policy->mean_ms;
}

static uint64_t interval_ms_min(const td_poll_policy *policy)
{
    uint64_t min_ms = policy->mean_ms / RANGE;

    return min_ms > TD_POLL_INTERVAL_MS_MIN ? min_ms : TD_POLL_INTERVAL_MS_MIN;
}

/* ---- Rates ---- */

static unsigned age_of(uint64_t ms)
{
    unsigned age = ms > 1 ? 63 - (unsigned)__builtin_clzll(ms) : 0;

    return age < TD_POLL_AGES ? age : TD_POLL_AGES - 1;
}

static uint64_t age_end_ms(unsigned age)
{
    return age < TD_POLL_AGES - 1 ? UINT64_C(2) << age : UINT64_MAX;
}

/* Newton's, to a part in a million and more. */
static double root_of(double x)
{
    double root = x > 1 ? x : 1;

    for (int i = 0; i < 64; i++) {
        double next = (root + x / root) / 2;

        if (root - next <= root * 1e-9)
            return next;
        root = next;
    }
    return root;
}

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* What all ages together would make of this constant: exchanges a millisecond. */
static double mean_rate(const td_scheduler *s, const double *roots, double constant, double low,
                        double high)
{
    double sum = 0, all_ms = 0;

    for (unsigned i = 0; i < TD_POLL_AGES; i++) {
        sum += s->lived_ms[i] * clamp(constant * roots[i], low, high);
        all_ms += s->lived_ms[i];
    }
    return all_ms > 0 ? sum / all_ms : constant;
}

/* r = constant · √λ for each age, its mean the budget. √λ is in units of that of the mean. */
static void compute_rates(td_scheduler *s)
{
    double budget = 1.0 / (double)s->policy.mean_ms;
    double low = 1.0 / (double)td_poll_interval_ms_max(&s->policy);
    double high = 1.0 / (double)interval_ms_min(&s->policy);
    double roots[TD_POLL_AGES], all_ms = 0, all_came = 0, from = low / 64, to = high * 64;

    for (unsigned i = 0; i < TD_POLL_AGES; i++) {
        all_ms += s->lived_ms[i];
        all_came += s->came[i];
    }
    for (unsigned i = 0; i < TD_POLL_AGES; i++) {
        double prior_ms, came, ms;

        roots[i] = 1;
        if (s->hits < 1 || all_came <= 0)
            continue;
        prior_ms = PRIOR_HITS * all_ms / s->hits;
        ms = s->lived_ms[i] + prior_ms;
        came = s->came[i] + all_came / all_ms * prior_ms;
        roots[i] = root_of(came / ms * all_ms / all_came);
    }
    for (int i = 0; i < 32; i++) {
        double middle = root_of(from * to);

        if (mean_rate(s, roots, middle, low, high) < budget)
            from = middle;
        else
            to = middle;
    }
    for (unsigned i = 0; i < TD_POLL_AGES; i++)
        s->rate[i] = clamp(from * roots[i], low, high);
    s->rated = 0;
}

/* ---- Learning ---- */

static void fade(td_scheduler *s, uint64_t now_ms)
{
    for (; now_ms - s->faded_ms >= HALF_LIFE_MS / FADE_STEPS;
         s->faded_ms += HALF_LIFE_MS / FADE_STEPS) {
        for (unsigned i = 0; i < TD_POLL_AGES; i++) {
            s->lived_ms[i] *= FADE;
            s->came[i] *= FADE;
        }
        s->hits *= FADE;
    }
}

/* What is learned of so many in one exchange. One flood, as when a new replica gets everything, must
 * not stand for what usually comes. */
static double weight_of(const td_scheduler *s, uint64_t operations)
{
    double came = 1, most;

    for (unsigned i = 0; i < TD_POLL_AGES; i++)
        came += s->came[i];
    most = FLOOD * came / (s->hits + 1);
    return (double)operations < most ? (double)operations : most;
}

/* From seen_ms to now_ms so many came: evenly, as far as anybody knows. */
static void learn(td_scheduler *s, uint64_t now_ms, uint64_t operations)
{
    uint64_t from_ms = s->seen_ms, all_ms = now_ms - s->seen_ms;
    double weight = operations ? weight_of(s, operations) : 0;

    if (all_ms == 0)
        s->came[age_of(from_ms - s->came_ms)] += weight;
    while (from_ms < now_ms) {
        unsigned age = age_of(from_ms - s->came_ms);
        uint64_t left_ms = age_end_ms(age) - (from_ms - s->came_ms);
        uint64_t ms = now_ms - from_ms < left_ms ? now_ms - from_ms : left_ms;

        s->lived_ms[age] += (double)ms;
        s->came[age] += weight * (double)ms / (double)all_ms;
        from_ms += ms;
    }
    s->seen_ms = now_ms;
    if (operations) {
        s->hits++;
        s->came_ms = now_ms;
    }
}

static void average(double *mean, double newest, bool first)
{
    *mean += (newest - *mean) * (first ? 1 : NEWEST_WEIGHT);
}

/* ---- The calls ---- */

void td_scheduler_change(td_scheduler *s, const td_poll_policy *policy, uint64_t now_ms)
{
    assert(policy->mode == TD_POLL_LONG || (policy->mean_ms >= TD_POLL_MEAN_MS_MIN &&
                                            policy->mean_ms <= TD_POLL_MEAN_MS_MAX));
    s->policy = *policy;
    s->paid_ms = now_ms;
    s->saved_ms = 0;
    if (policy->mode == TD_POLL_ADAPTIVE)
        compute_rates(s);
}

void td_scheduler_init(td_scheduler *s, const td_poll_policy *policy, uint64_t now_ms)
{
    *s = (td_scheduler){
        .began_ms = now_ms, .seen_ms = now_ms, .came_ms = now_ms, .faded_ms = now_ms};
    td_scheduler_change(s, policy, now_ms);
}

static void save(td_scheduler *s, uint64_t now_ms)
{
    s->saved_ms += now_ms - s->paid_ms;
    if (s->saved_ms > SAVINGS_MS_MAX)
        s->saved_ms = SAVINGS_MS_MAX;
    s->paid_ms = now_ms;
}

void td_scheduler_began(td_scheduler *s, uint64_t now_ms)
{
    save(s, now_ms);
    if (!s->more) /* there is no debt: what had to be sent had to */
        s->saved_ms -= s->saved_ms < s->policy.mean_ms ? s->saved_ms : s->policy.mean_ms;
    s->began_ms = now_ms;
    s->more = false;
}

void td_scheduler_ended(td_scheduler *s, uint64_t now_ms, const td_poll_news *news)
{
    bool first = s->exchanges++ == 0;
    uint64_t since_ms = now_ms > s->seen_ms ? now_ms - s->seen_ms : 1;

    average(&s->took_ms, (double)news->took_ms, first);
    average(&s->bytes, (double)news->bytes, first);
    average(&s->per_second, (double)news->operations * 1000 / (double)since_ms, first);
    fade(s, now_ms);
    learn(s, now_ms, news->operations);
    s->more = news->more;
    if (s->failures)
        s->failures--;
    if (s->policy.mode == TD_POLL_ADAPTIVE &&
        (++s->rated >= RATE_EVERY || s->exchanges < RATE_EACH))
        compute_rates(s);
}

void td_scheduler_failed(td_scheduler *s)
{
    if (s->failures < FAILURES_MAX)
        s->failures++;
    s->more = false;
}

/* How long until the rates from this age on come to one exchange. */
static double until_one(const td_scheduler *s, uint64_t age_ms, double factor)
{
    double left = 1, ms = 0;

    for (;;) {
        unsigned age = age_of(age_ms);
        double rate = s->rate[age] * factor;
        double rest_ms = (double)(age_end_ms(age) - age_ms);

        if (rate * rest_ms >= left || age == TD_POLL_AGES - 1)
            return ms + left / rate;
        left -= rate * rest_ms;
        ms += rest_ms;
        age_ms = age_end_ms(age);
    }
}

static td_poll_reason reason_of(const td_scheduler *s, double interval_ms)
{
    double mean_ms = (double)s->policy.mean_ms;

    if (interval_ms < mean_ms * (1 - EVEN))
        return TD_POLL_BY_BURST;
    return interval_ms > mean_ms * (1 + EVEN) ? TD_POLL_BY_QUIET : TD_POLL_BY_EVEN;
}

/* When the interval is paid for. */
static uint64_t paid_at_ms(const td_scheduler *s)
{
    uint64_t mean_ms = s->policy.mean_ms;

    return s->paid_ms + (mean_ms > s->saved_ms ? mean_ms - s->saved_ms : 0);
}

static void decide_adaptively(const td_scheduler *s, uint32_t load_permille,
                              td_poll_decision *out)
{
    double factor = 1 + (double)s->saved_ms / (double)SPENDING_MS;
    double free = load_permille < 1000 ? 1 - (double)load_permille / 1000 : 0;
    double low_ms = (double)interval_ms_min(&s->policy);
    double high_ms = (double)td_poll_interval_ms_max(&s->policy);
    double interval_ms = until_one(s, s->seen_ms - s->came_ms, factor);

    out->reason = reason_of(s, interval_ms);
    if (s->failures) {
        interval_ms *= (double)(UINT32_C(1) << s->failures);
        out->reason = TD_POLL_BY_TROUBLE;
    }
    if (free < 1 - EVEN) {
        interval_ms = free * high_ms > interval_ms ? interval_ms / free : high_ms;
        out->reason = TD_POLL_BY_LOAD;
    }
    out->interval_ms = (uint64_t)(clamp(interval_ms, low_ms, high_ms) + 0.5);
    out->next_ms = s->began_ms + out->interval_ms;
    if (paid_at_ms(s) > out->next_ms) {
        if (out->reason == TD_POLL_BY_BURST)
            out->reason = TD_POLL_BY_BUDGET;
        out->next_ms = paid_at_ms(s);
        out->interval_ms = out->next_ms - s->began_ms;
    }
}

void td_scheduler_decide(const td_scheduler *s, uint32_t load_permille, td_poll_decision *out)
{
    *out = (td_poll_decision){.next_ms = UINT64_MAX, .reason = TD_POLL_BY_LONG_POLL};
    if (s->policy.mode == TD_POLL_LONG)
        return;
    if (s->more && load_permille < 1000) {
        *out = (td_poll_decision){.next_ms = s->seen_ms, .reason = TD_POLL_BY_MORE};
        return;
    }
    if (s->policy.mode == TD_POLL_ADAPTIVE) {
        decide_adaptively(s, load_permille, out);
        return;
    }
    out->interval_ms = s->policy.mean_ms;
    out->next_ms = s->began_ms + out->interval_ms;
    out->reason = TD_POLL_BY_INTERVAL;
}

/* ---- Words ---- */

static const struct {
    const char *name, *text;
} reasons[TD_POLL_REASONS] = {
    [TD_POLL_BY_LONG_POLL] = {"long_poll", "the peer answers when it has something to say"},
    [TD_POLL_BY_INTERVAL] = {"interval", "the interval is fixed"},
    [TD_POLL_BY_MORE] = {"more", "the last answer was full, there is more behind it"},
    [TD_POLL_BY_EVEN] = {"even", "what comes comes evenly, as far as is known"},
    [TD_POLL_BY_BURST] = {"burst", "more comes now than on average"},
    [TD_POLL_BY_QUIET] = {"quiet", "less comes now than on average"},
    [TD_POLL_BY_BUDGET] = {"budget", "more comes than on average, but nothing is saved for it"},
    [TD_POLL_BY_TROUBLE] = {"trouble", "links were lost of late"},
    [TD_POLL_BY_LOAD] = {"load", "what has come is not executed yet"},
    [TD_POLL_BY_AWAIT] = {"await", "what was sent is not acknowledged yet"},
};

const char *td_poll_reason_name(td_poll_reason reason)
{
    return reasons[reason].name;
}

const char *td_poll_reason_text(td_poll_reason reason)
{
    return reasons[reason].text;
}
