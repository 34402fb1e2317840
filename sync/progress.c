#include "sync/progress.h"

enum { SAMPLE_MS = 500 };

static const double NEWEST_WEIGHT = 0.4; /* of a sample against those before it */

/* What was exchanged since it was last seen at rest belongs to this way. */
static void begin(td_progress *progress, uint64_t now_ms)
{
    /* It was not looked at while it was away: then nobody knows more than that it begins now. */
    bool was_watched = progress->idle_ms && now_ms - progress->idle_ms <= 2 * SAMPLE_MS;
    uint64_t began_ms = was_watched ? progress->idle_ms : now_ms;

    *progress = (td_progress){
        .active = true,
        .base_operations = progress->idle_operations,
        .base_bytes = progress->idle_bytes,
        .began_ms = began_ms,
        .sampled_ms = began_ms,
    };
}

static void sample(td_progress *progress, uint64_t now_ms)
{
    uint64_t since_ms = now_ms - progress->sampled_ms;
    bool first = progress->sampled_ms == progress->began_ms;
    double rate;

    if (since_ms == 0 || (since_ms < SAMPLE_MS && !first))
        return;
    rate = (double)(progress->applied - progress->sampled) * 1000 / (double)since_ms;
    progress->rate =
        first ? rate : NEWEST_WEIGHT * rate + (1 - NEWEST_WEIGHT) * progress->rate;
    if (since_ms < SAMPLE_MS)
        return; /* better than nothing, and no sample yet */
    progress->sampled_ms = now_ms;
    progress->sampled = progress->applied;
}

static void end(td_progress *progress, uint64_t now_ms)
{
    uint64_t took_ms = now_ms - progress->began_ms;

    progress->active = false;
    /* Of the whole way, which says more than its last moment. */
    progress->rate = took_ms ? (double)progress->applied * 1000 / (double)took_ms : 0;
}

void td_progress_look(td_progress *progress, uint64_t now_ms, uint64_t operations, uint64_t bytes,
                      uint64_t left)
{
    if (!progress->active && left)
        begin(progress, now_ms);
    if (!left) {
        progress->idle_ms = now_ms;
        progress->idle_operations = operations;
        progress->idle_bytes = bytes;
    }
    if (!progress->active)
        return;
    progress->applied = operations - progress->base_operations;
    progress->bytes = bytes - progress->base_bytes;
    progress->total = progress->applied + left;
    if (left)
        sample(progress, now_ms);
    else
        end(progress, now_ms);
}

uint64_t td_progress_left_ms(const td_progress *progress)
{
    double left_ms;

    if (progress->total == progress->applied)
        return 0;
    if (progress->rate <= 0)
        return UINT64_MAX;
    left_ms = (double)(progress->total - progress->applied) * 1000 / progress->rate;
    return left_ms < 1e18 ? (uint64_t)left_ms : UINT64_MAX;
}
