/*
 * Jobs that peers deliver, on their way through the executor, and what is committed here, by whomever:
 * who is to be told, and who has it already.
 */

#include <utlist.h>

#include "store/planted.h"
#include "store/probe.h"
#include "sync/sync_manager.h"

static void executed(td_remote_request *request)
{
    td_delivery *delivery = (td_delivery *)request;
    td_peer *peer = delivery->user;

    td_actor_post(peer->sync->actor, &delivery->returned);
}

static void drop_delivery(td_message *message)
{
    td_delivery *delivery = (td_delivery *)((char *)message - offsetof(td_delivery, returned));

    ((td_peer *)delivery->user)->deliveries--;
    ((td_peer *)delivery->user)->sync->deliveries--;
    td_session_delivered(delivery);
}

void td_deliveries_take(void *context, td_delivery *delivery)
{
    td_peer *peer = context;

    delivery->user = peer;
    delivery->returned.kind = TD_SYNC_RETURNED;
    delivery->returned.drop = drop_delivery;
    delivery->request.done = executed;
    delivery->request.part = td_way_in_has_filter(peer);
    peer->deliveries++;
    peer->delivered_ms = td_sync_now_ms(peer->sync);
    peer->sync->deliveries++;
    td_executor_remote(peer->sync->executor, &delivery->request);
}

/* Up to where an origin is held, now that a run of it was committed: that may be loose, or have closed
 * a gap before what was. */
static uint64_t held_with(tandem_sync *sync, const tandem_job_handle *handle)
{
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;
    bool gaps;

    if (td_op_store_has_gaps(sync->ops, handle->collection, handle->origin, &gaps) != TANDEM_OK ||
        !gaps ||
        td_op_store_heads(sync->ops, handle->collection, handle->origin, heads, &count) != TANDEM_OK)
        return handle->last_seq;
    return count ? heads[count - 1].seq : 0;
}

/* Tell all other peers of a run of one origin that was committed. */
static void tell_others(td_peer *peer, const tandem_job_handle *handle)
{
    uint64_t seq = held_with(peer->sync, handle);

    for (td_peer *other = peer->sync->peers; other; other = other->next)
        if (td_peer_is_open(other))
            td_peer_committed(other, handle->collection, handle->origin, seq);
    td_puller_progress(peer->sync, handle->collection, handle->origin);
}

static td_origin_cover *cover_of(td_peer *peer, const tandem_job_handle *handle)
{
    td_collection_cover *collection;
    td_origin_cover *origin;

    if (!td_peer_is_open(peer) || !td_way_is_shared(peer, handle->collection) ||
        td_peer_collection(peer, handle->collection, &collection) != TANDEM_OK || !collection ||
        td_peer_origin(peer, collection, handle->origin, &origin) != TANDEM_OK)
        return NULL;
    return origin;
}

/*
 * The peer itself holds what it sent, also if we could not keep it. Where we did, no announcement to it is
 * needed: its ACK says so, if it follows what the peer was told, and did not come through a filter.
 */
static void note_sender(td_peer *peer, td_origin_cover *origin, const tandem_job_handle *handle,
                        const td_remote_job *job)
{
    if (!origin)
        return;
    td_coverage_acknowledge(&peer->coverage, origin, handle->last_seq);
    if (job->err == TANDEM_E_REFUSED && td_way_in_has_filter(peer))
        origin->refused_in_part = peer->refused_in_part = true;
    if (job->err != TANDEM_OK || handle->last_seq <= origin->announced_seq)
        return;
    if (!job->result.loose && !td_way_in_has_filter(peer) &&
        handle->first_seq <= origin->announced_seq + 1) {
        origin->announced_seq = handle->last_seq;
        return;
    }
    td_coverage_mark_dirty(origin);
    td_announcer_soon(peer);
}

static bool wants_some(const td_origin_cover *origin)
{
    for (unsigned i = 0; i < origin->our_lack_count; i++)
        if (origin->our_lacks[i].reason == TANDEM_OK)
            return true;
    return false;
}

/* Through a filter it is in step only when COVER has come. And whoever gave what follows something that is
 * wanted holds that, though it may never announce it. When our lacks were looked at, what it gave may have
 * been in the store, and not back here: then they were known to be followed, and not by whom. What is known
 * to be lacking there is looked at with every commit. */
static void look_at_delivered(td_peer *peer, td_origin_cover *origin)
{
    if (origin && (td_way_in_has_filter(peer) || (!origin->lacking && wants_some(origin))))
        td_puller_look(peer, origin);
}

static void count_job(td_peer *peer, const tandem_job_handle *handle, const td_remote_job *job)
{
    td_collection_cover *collection;
    td_origin_cover *origin;

    peer->received_operations += job->count;
    peer->exchanged_bytes += handle->bytes;
    if (!job->result.duplicates)
        return;
    peer->duplicate_operations += job->result.duplicates;
    collection = td_coverage_find(&peer->coverage, handle->collection);
    origin = collection ? td_coverage_find_origin(collection, handle->origin) : NULL;
    if (!memcmp(handle->origin, td_sync_origin(peer->sync), TANDEM_ORIGIN_BYTES) ||
        (origin && origin->sent_seq >= handle->last_seq))
        peer->echoed_operations += job->result.duplicates;
}

static bool same_run(const tandem_job_handle *a, const tandem_job_handle *b)
{
    return a && b && b->first_seq == a->last_seq + 1 &&
           !memcmp(a->origin, b->origin, TANDEM_ORIGIN_BYTES) &&
           tandem_slice_equal(a->collection, b->collection);
}

void td_peer_delivered(td_peer *peer, td_delivery *delivery)
{
    bool withdrawn =
        delivery->request.withdrawals < td_executor_withdrawals(peer->sync->executor);
    td_origin_cover *origin = NULL; /* of the run that the job goes on with */
    bool goes_on = false;

    peer->deliveries--;
    peer->sync->deliveries--;
    for (uint32_t i = 0; i < delivery->count; i++) {
        const td_remote_job *job = &delivery->jobs[i];
        const tandem_job_handle *handle = delivery->handles[i];

        if (!handle)
            continue;
        if (!goes_on)
            origin = cover_of(peer, handle);
        note_sender(peer, origin, handle, job);
        goes_on = false;
        if (job->err == TANDEM_E_PREDECESSOR)
            td_puller_step_back(peer, handle->collection, handle->origin);
        if (job->err == TANDEM_E_CLOCK)
            td_puller_wait(peer, handle->collection, handle->origin, handle->first_seq,
                           job->detail);
        if (job->err != TANDEM_OK) {
            td_puller_failed(peer, handle->collection, handle->origin, handle->first_seq,
                             job->err);
            td_log(peer->sync->env, TANDEM_LOG_INFO, "sync", "a job was not applied: %s",
                   tandem_err_name(job->err));
            continue;
        }
        count_job(peer, handle, job);
        if (job->result.loose)
            td_puller_came_loose(peer, handle->collection, handle->origin, handle->last_seq);
        goes_on = i + 1 < delivery->count && delivery->jobs[i + 1].err == TANDEM_OK &&
                  same_run(handle, delivery->handles[i + 1]);
        if (goes_on)
            continue;
        look_at_delivered(peer, origin);
        tell_others(peer, handle);
    }
    if (!delivery->session)
        td_probe(peer->sync->env, TD_PROBE_DELIVERY_ORPHANED);
    td_session_delivered(delivery);
    if (withdrawn)
        td_peer_withdrawn(peer);
    if (td_peer_is_open(peer))
        td_puller_ask(peer);
    td_peer_refresh(peer);
    td_sync_check_waiters(peer->sync);
}

/* We hold an origin up to seq now. Of several heads that says nothing: is it forked? Then what the peer is
 * shown to hold is to be looked at again. */
static bool look_at_ours(td_peer *peer, td_origin_cover *origin, uint64_t seq)
{
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;

    td_coverage_set_ours(&peer->coverage, origin, seq);
    if (!td_executor_forks(peer->sync->executor) ||
        td_op_store_heads(peer->sync->ops, origin->collection->name, origin->origin, heads,
                          &count) != TANDEM_OK)
        return false;
    return count > 1;
}

/* What came may have filled a gap below what was announced. */
static bool has_gaps(td_peer *peer, td_origin_cover *origin)
{
    bool gaps;

    return td_op_store_has_gaps(peer->sync->ops, origin->collection->name, origin->origin, &gaps) ==
               TANDEM_OK &&
           gaps && td_wants_load(peer, origin) == TANDEM_OK;
}

void td_peer_lacks_changed(td_peer *peer, tandem_slice name, const uint8_t *origin_id)
{
    td_collection_cover *collection;
    td_origin_cover *origin;

    if (!td_way_is_shared(peer, name))
        return;
    if (td_peer_collection(peer, name, &collection) != TANDEM_OK ||
        (!collection && (!peer->all_sent || td_coverage_collection(&peer->coverage, name,
                                                                   &collection) != TANDEM_OK)) ||
        td_peer_origin(peer, collection, origin_id, &origin) != TANDEM_OK ||
        td_puller_look(peer, origin) != TANDEM_OK)
        return;
    td_coverage_mark_dirty(origin);
    td_announcer_soon(peer);
}

void td_peer_committed(td_peer *peer, tandem_slice name, const uint8_t *origin_id, uint64_t seq)
{
    td_collection_cover *collection;
    td_origin_cover *origin;
    bool forked;

    if (!td_way_is_shared(peer, name))
        return;
    if (td_peer_collection(peer, name, &collection) != TANDEM_OK)
        return;
    /* Our lists may have gone without it: it is announced when it is known who lacks it. */
    if (!collection && (!peer->all_sent || td_coverage_collection(&peer->coverage, name,
                                                                  &collection) != TANDEM_OK))
        return;
    if (td_peer_origin(peer, collection, origin_id, &origin) != TANDEM_OK)
        return;
    forked = look_at_ours(peer, origin, seq);
    td_peer_look_at_lacks(peer, origin, seq);
    if (origin->lacking)
        origin->lacking_since_ms = td_sync_now_ms(peer->sync); /* it is coming */
    if (origin->lacking || forked)
        td_puller_look(peer, origin);
    /* What another one wrote under our origin is here now: ours follows it from here on. */
    if (collection->known && !origin->range.active &&
        !memcmp(origin_id, td_sync_origin(peer->sync), TANDEM_ORIGIN_BYTES) &&
        !td_ways_waits(peer, origin))
        td_sender_add(peer, origin, td_coverage_reached(origin) + 1, UINT64_MAX, 0);
    if (seq <= origin->announced_seq && !forked && !has_gaps(peer, origin))
        return;
    if (td_planted(TD_PLANTED_ANNOUNCE_FORGOTTEN))
        return;
    td_coverage_mark_dirty(origin);
    td_announcer_soon(peer);
}

void td_peer_own_grew(td_peer *peer, tandem_slice name, uint64_t seq)
{
    td_collection_cover *collection;
    td_origin_cover *origin;

    if (!td_way_is_shared(peer, name))
        return;
    if (td_peer_collection(peer, name, &collection) != TANDEM_OK || !collection ||
        !collection->known || td_peer_origin(peer, collection, td_sync_origin(peer->sync), &origin) != TANDEM_OK)
        return;
    td_coverage_set_ours(&peer->coverage, origin, seq);
    if (td_ways_part(peer, origin))
        td_sender_add(peer, origin, 1, UINT64_MAX, 0);
    else if (!origin->range.active && !td_ways_waits(peer, origin))
        td_sender_add(peer, origin, td_coverage_reached(origin) + 1, UINT64_MAX, 0);
    if (td_planted(TD_PLANTED_OWN_NOT_SENT))
        return;
    if (origin->range.active && !collection->sending) {
        collection->sending = true;
        LL_APPEND2(peer->sending, collection, next_sending);
    }
    if (seq > origin->announced_seq) {
        td_coverage_mark_dirty(origin);
        td_announcer_soon(peer);
    }
}

/*
 * What was refused through a filter is recorded nowhere: this session took it for given, and a COVER that
 * says so may be on its way. Another session begins where our pair ends, which is before that.
 */
void td_peer_withdrawn(td_peer *peer)
{
    if (!peer->refused_in_part || !td_peer_is_open(peer))
        return;
    td_probe(peer->sync->env, TD_PROBE_WITHDRAWN_IN_PART);
    peer->redial = peer->is_remote;
    td_session_fail(td_channel_session(peer->channel), TANDEM_E_UNREACHABLE,
                    "what was refused through a filter is taken now");
}
