/*
 * When to begin the next exchange with a peer that is polled: HTTP with long poll off.
 *
 * An operation that comes at a random moment waits half an interval on average. Of all ways to spend
 * a given number of exchanges the one with the least waiting begins them at a rate that goes with the
 * square root of the rate at which operations come:
 *
 *   least ∫ λ/2r  at a given ∫ r   =>   r = √λ · constant
 *
 * So where operations come evenly a fixed interval is best, and is what comes out. Where they come in
 * bursts, or not at night, exchanges that would find nothing are worth more later.
 *
 *   λ(age)    is learned from what the exchanges bring, with no clock on the wall and no calendar: by
 *             how long ago something came last (the age), in octaves. How long each age was lived in
 *             and how much came then gives its rate, drawn towards the mean as long as little was
 *             seen. After a burst λ falls with age as the bursts of this peer do.
 *   constant  makes the mean of r, weighted with the time that was spent in each age, the budget.
 *   savings   an exchange is paid for by the time since the last one. What quiet times do not use is
 *             saved for busy ones, and never spent before: so the count stays within that of a fixed
 *             interval at any moment, whatever was learned wrongly. Savings that grow speed it up.
 *
 * Then what holds it back: it is slower after links were lost (twice for each, until exchanges work
 * again) and while what has come is not executed yet; an exchange is never begun before the one
 * before has ended, which on a slow link is the interval; and all of it stays between bounds. An
 * answer that was full, with more behind it, is followed at once and costs nothing.
 *
 * Sources: O. J. Boxma, H. Levy, J. A. Weststrate, Efficient visit frequencies for polling tables
 * (Queueing Systems 9, 1991), the square root; J. Cho, H. Garcia-Molina, Effective page refresh
 * policies for Web crawlers (ACM TODS 28, 2003), refreshing under a budget; M. Friedman, Piecewise
 * exponential models for survival data (Annals of Statistics 10, 1982), rates by age from exposure.
 *
 * Pure: no clock, no timer, no random number. Times are monotonic milliseconds.
 */
#ifndef TANDEM_CHANNEL_SCHEDULER_H
#define TANDEM_CHANNEL_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

enum {
    TD_POLL_MEAN_MS_MIN = 100, /* of a policy */
    TD_POLL_MEAN_MS_MAX = 600000,
    TD_POLL_MEAN_MS_DEFAULT = 5000,
    TD_POLL_INTERVAL_MS_MIN = 10,     /* of an adaptive interval: an eighth of the mean … */
    TD_POLL_INTERVAL_MS_MAX = 300000, /* … to eight times the mean, and within these */
    TD_POLL_AGES = 34,                /* 2^n to 2^(n+1) ms; the last one to the end of days */
};

typedef enum td_poll_mode {
    TD_POLL_LONG,     /* an exchange is always under way: nothing to decide */
    TD_POLL_FIXED,    /* one each mean_ms */
    TD_POLL_ADAPTIVE, /* one each mean_ms on average */
} td_poll_mode;

typedef struct td_poll_policy {
    td_poll_mode mode;
    uint64_t mean_ms;
} td_poll_policy;

/* What an exchange has brought. */
typedef struct td_poll_news {
    uint64_t operations;
    uint64_t bytes;
    uint64_t took_ms; /* from its beginning to its end */
    bool more;        /* the answer was full: there is more behind it */
} td_poll_news;

typedef struct td_scheduler {
    td_poll_policy policy;
    uint64_t began_ms; /* the last exchange */
    uint64_t seen_ms;  /* what came up to here is known */
    uint64_t came_ms;  /* when something came last */
    uint64_t paid_ms;  /* savings are counted up to here */
    uint64_t saved_ms;
    uint64_t faded_ms; /* what was learned has faded up to here */
    double lived_ms[TD_POLL_AGES]; /* time spent in each age … */
    double came[TD_POLL_AGES];     /* … and operations that came then */
    double rate[TD_POLL_AGES];     /* exchanges a millisecond */
    double hits;                   /* exchanges that brought something */
    uint64_t exchanges;            /* ever */
    uint32_t rated;                /* exchanges since the rates were computed */
    uint32_t failures;             /* links lost, less exchanges that worked since */
    double took_ms;                /* an exchange, on average */
    double bytes;                  /* its answer, on average */
    double per_second;             /* operations, of late */
    bool more;
} td_scheduler;

typedef enum td_poll_reason {
    TD_POLL_BY_LONG_POLL,
    TD_POLL_BY_INTERVAL, /* it is a fixed one */
    TD_POLL_BY_MORE,     /* the last answer was full */
    TD_POLL_BY_EVEN,     /* what comes comes evenly, as far as is known */
    TD_POLL_BY_BURST,    /* more comes than on average: faster */
    TD_POLL_BY_QUIET,    /* less comes: slower */
    TD_POLL_BY_BUDGET,   /* it would be faster, but nothing is saved */
    TD_POLL_BY_TROUBLE,  /* links were lost */
    TD_POLL_BY_LOAD,     /* what came is not executed yet */
    TD_POLL_BY_AWAIT,    /* what was sent is not acknowledged yet: the channel's own */
    TD_POLL_REASONS,
} td_poll_reason;

typedef struct td_poll_decision {
    uint64_t next_ms;     /* begin the next exchange then, if none is under way; UINT64_MAX: never */
    uint64_t interval_ms; /* since the beginning of the last one */
    td_poll_reason reason;
} td_poll_decision;

void td_scheduler_init(td_scheduler *scheduler, const td_poll_policy *policy, uint64_t now_ms);
/* Another policy from now on; what was learned stays, what was saved does not. */
void td_scheduler_change(td_scheduler *scheduler, const td_poll_policy *policy, uint64_t now_ms);
/* An exchange begins, by the decision or because there is something to send. */
void td_scheduler_began(td_scheduler *scheduler, uint64_t now_ms);
/* It has ended; all that the peer had to send until now has come. */
void td_scheduler_ended(td_scheduler *scheduler, uint64_t now_ms, const td_poll_news *news);
/* The link was lost. */
void td_scheduler_failed(td_scheduler *scheduler);
/* load_permille: how much of what may wait to be executed does. */
void td_scheduler_decide(const td_scheduler *scheduler, uint32_t load_permille,
                         td_poll_decision *out);
/* The longest interval that it may come to. */
uint64_t td_poll_interval_ms_max(const td_poll_policy *policy);

/* "burst", … and a sentence. Static. */
const char *td_poll_reason_name(td_poll_reason reason);
const char *td_poll_reason_text(td_poll_reason reason);

#endif
