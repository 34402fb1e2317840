/*
 * Waiting for a remote: the barrier, and being in step. A waiter stands in the sync manager's list
 * and is looked at whenever something was announced, acknowledged or committed.
 */
#include <stdlib.h>

#include <utlist.h>

#include "sync/sync_manager.h"

struct requirement {
    struct requirement *next;
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t seq;
    size_t size;
    uint8_t name[];
};

struct td_waiter {
    td_waiter *next;
    char name[TANDEM_NAME_BYTES_MAX + 1]; /* "": every remote */
    bool in_step; /* else the barrier */
    uint64_t position; /* what is held here by then counts */
    bool noted;   /* the requirements are those of the call, as far as they were open then */
    struct requirement *requirements;
    td_reply *reply;
};

static void requirements_free(td_waiter *waiter)
{
    while (waiter->requirements) {
        struct requirement *next = waiter->requirements->next;

        free(waiter->requirements);
        waiter->requirements = next;
    }
}

/* What the peer is not known to hold of all that we hold now. */
static tandem_err note_requirements(td_waiter *waiter, td_peer *peer)
{
    for (td_collection_cover *c = td_hash_table_first(&peer->coverage.collections); c;
         c = td_hash_table_next(&c->hash_entry)) {
        for (td_origin_cover *o = td_hash_table_first(&c->origins); o;
             o = td_hash_table_next(&o->hash_entry)) {
            struct requirement *requirement;

            if (o->lag == 0)
                continue;
            if (!(requirement = calloc(1, sizeof(*requirement) + c->name.size)))
                return TANDEM_E_NOMEM;
            memcpy(requirement->origin, o->origin, sizeof(requirement->origin));
            requirement->seq = o->our_seq;
            requirement->size = c->name.size;
            memcpy(requirement->name, c->name.bytes, c->name.size);
            LL_PREPEND(waiter->requirements, requirement);
        }
    }
    waiter->noted = true;
    return TANDEM_OK;
}

/* Would it be met, but for what the peer has refused? */
static bool is_refused(td_peer *peer, const struct requirement *requirement)
{
    td_collection_cover *collection =
        td_coverage_find(&peer->coverage, tandem_slice_of(requirement->name, requirement->size));
    td_origin_cover *origin =
        collection ? td_coverage_find_origin(collection, requirement->origin) : NULL;

    return origin && origin->refused && origin->lag == origin->refused;
}

static bool is_met(td_peer *peer, const struct requirement *requirement)
{
    td_collection_cover *collection =
        td_coverage_find(&peer->coverage, tandem_slice_of(requirement->name, requirement->size));
    td_origin_cover *origin;

    if (!collection)
        return td_peer_base(peer, tandem_slice_of(requirement->name, requirement->size)) > 0;
    if ((origin = td_coverage_find_origin(collection, requirement->origin)))
        return td_coverage_reached(origin) >= requirement->seq && !origin->unmet &&
               !td_coverage_lacks_some(&peer->coverage, origin, requirement->seq);
    return td_coverage_base(collection, requirement->origin) > 0;
}

/* TANDEM_END: not yet. */
static tandem_err barrier_outcome(td_waiter *waiter, td_peer *peer)
{
    const td_origin_cover *origin;
    bool open = false;
    tandem_err err;

    if (!td_peer_is_open(peer) || !td_peer_is_compared(peer))
        return TANDEM_END;
    if (!waiter->noted && (err = note_requirements(waiter, peer)) != TANDEM_OK)
        return err;
    for (struct requirement **at = &waiter->requirements; *at;) {
        struct requirement *requirement = *at;

        if (!is_met(peer, requirement)) {
            open = open || !is_refused(peer, requirement);
            at = &requirement->next;
            continue;
        }
        *at = requirement->next;
        free(requirement);
    }
    if (!open) /* all that it takes is there, and perhaps not all that there is */
        return waiter->requirements || !td_share_is_all(td_peer_gives(peer)) ||
                       td_dead_letters_before(peer, waiter->position)
                   ? TANDEM_E_REFUSED
                   : TANDEM_OK;
    err = td_sender_trouble(peer, &origin);
    return err != TANDEM_OK && origin->range.blocked != TANDEM_OK ? TANDEM_E_REFUSED : TANDEM_END;
}

/* Away until somebody acts: then nothing that is waited for comes. */
static bool is_blocked(td_peer *peer)
{
    td_peer_refresh(peer);
    return !td_peer_is_open(td_peer_serving(peer)) &&
           (peer->state == TANDEM_REMOTE_BLOCKED || peer->state == TANDEM_REMOTE_PAUSED);
}

static tandem_err outcome(tandem_sync *sync, td_waiter *waiter)
{
    td_peer *peer;

    if (waiter->name[0]) {
        if (!(peer = td_sync_find_remote(sync, waiter->name)))
            return TANDEM_E_NOT_FOUND;
        if (!waiter->in_step)
            return is_blocked(peer) ? TANDEM_E_REFUSED
                                    : barrier_outcome(waiter, td_peer_serving(peer));
        td_peer_refresh(peer);
        return peer->state == TANDEM_REMOTE_IN_STEP ? TANDEM_OK : TANDEM_END;
    }
    for (peer = sync->peers; peer; peer = peer->next) {
        if (!peer->is_remote || peer->removed || peer->record.paused)
            continue;
        td_peer_refresh(peer);
        if (peer->state != TANDEM_REMOTE_IN_STEP)
            return TANDEM_END;
    }
    return TANDEM_OK;
}

static void waiter_end(tandem_sync *sync, td_waiter *waiter, tandem_err err)
{
    LL_DELETE(sync->waiters, waiter);
    requirements_free(waiter);
    td_reply_set(waiter->reply, err);
    td_reply_free(waiter->reply);
    free(waiter);
}

void td_sync_check_waiters(tandem_sync *sync)
{
    td_waiter *waiter, *next;

    LL_FOREACH_SAFE(sync->waiters, waiter, next)
    {
        tandem_err err = sync->closing ? TANDEM_E_CLOSED : outcome(sync, waiter);

        if (err != TANDEM_END)
            waiter_end(sync, waiter, err);
    }
}

void td_sync_end_waiters(tandem_sync *sync)
{
    td_waiter *waiter, *next;

    LL_FOREACH_SAFE(sync->waiters, waiter, next)
        waiter_end(sync, waiter, TANDEM_E_CLOSED);
}

/* ---- The public calls ---- */

static tandem_err run_wait(tandem_sync *sync, td_sync_call *call)
{
    td_waiter *waiter = calloc(1, sizeof(*waiter));
    tandem_err err;

    if (!waiter)
        return TANDEM_E_NOMEM;
    if (call->name) {
        if (!td_sync_find_remote(sync, call->name)) {
            free(waiter);
            return TANDEM_E_NOT_FOUND;
        }
        strcpy(waiter->name, call->name);
    }
    waiter->in_step = call->flag;
    waiter->reply = call->argument;
    td_reply_keep(waiter->reply);
    /* What was committed before the call must count, even if its event has not come yet. */
    td_sync_look_at_commits(sync);
    waiter->position = td_executor_position(sync->executor);
    LL_APPEND(sync->waiters, waiter);
    if ((err = outcome(sync, waiter)) != TANDEM_END)
        waiter_end(sync, waiter, err);
    return TANDEM_OK;
}

static tandem_err run_unwait(tandem_sync *sync, td_sync_call *call)
{
    td_waiter *waiter, *next;

    LL_FOREACH_SAFE(sync->waiters, waiter, next)
        if (waiter->reply == call->argument)
            waiter_end(sync, waiter, TANDEM_E_TIMEOUT);
    return TANDEM_OK;
}

struct tandem_barrier {
    tandem_sync *sync;
    td_reply *reply;
    td_reply *farewell; /* what freeing waits for: it must not fail for want of memory */
};

static tandem_err waiting_open(tandem_sync *sync, const char *name, bool in_step,
                               tandem_barrier **out)
{
    td_sync_call call = {.run = run_wait, .name = name, .flag = in_step};
    tandem_barrier *barrier;
    tandem_err err;

    if (!(barrier = calloc(1, sizeof(*barrier))))
        return TANDEM_E_NOMEM;
    barrier->sync = sync;
    if ((err = td_reply_open(sync->runtime, &barrier->reply)) != TANDEM_OK ||
        (err = td_reply_open(sync->runtime, &barrier->farewell)) != TANDEM_OK)
        goto fail;
    call.argument = barrier->reply;
    if ((err = td_sync_call_loop(sync, &call)) != TANDEM_OK)
        goto fail;
    *out = barrier;
    return TANDEM_OK;

fail:
    td_reply_free(barrier->farewell);
    td_reply_free(barrier->reply);
    free(barrier);
    return err;
}

tandem_err tandem_barrier_open(tandem_sync *sync, const char *name, tandem_barrier **out)
{
    if (!sync || !name || !out)
        return TANDEM_E_INVALID;
    return waiting_open(sync, name, false, out);
}

tandem_err tandem_barrier_wait(tandem_barrier *barrier, uint64_t timeout_ms)
{
    td_host *loop = barrier->sync->loop;

    if (td_host_is_current(loop) || (td_host_fd(loop) >= 0 && timeout_ms > 0))
        return TANDEM_E_STATE; /* the loop that would bring the news is the caller's */
    return td_reply_wait(barrier->reply, timeout_ms);
}

void tandem_barrier_free(tandem_barrier *barrier)
{
    td_sync_call call = {.run = run_unwait};

    if (!barrier)
        return;
    call.argument = barrier->reply;
    td_sync_call_with(barrier->sync, &call, barrier->farewell);
    td_reply_free(barrier->farewell);
    td_reply_free(barrier->reply);
    free(barrier);
}

static tandem_err wait_on(tandem_sync *sync, const char *name, bool in_step, uint64_t timeout_ms)
{
    tandem_barrier *barrier;
    tandem_err err;

    if ((err = waiting_open(sync, name, in_step, &barrier)) != TANDEM_OK)
        return err;
    err = tandem_barrier_wait(barrier, timeout_ms);
    tandem_barrier_free(barrier);
    return err;
}

tandem_err tandem_wait_covered(tandem_sync *sync, const char *name, uint64_t timeout_ms)
{
    if (!sync || !name)
        return TANDEM_E_INVALID;
    return wait_on(sync, name, false, timeout_ms);
}

tandem_err tandem_wait_in_step(tandem_sync *sync, const char *name, uint64_t timeout_ms)
{
    if (!sync)
        return TANDEM_E_INVALID;
    return wait_on(sync, name, true, timeout_ms);
}
