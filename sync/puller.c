/*
 * Asking: heads that a peer announced and that we do not hold. One peer at a time is asked for a
 * range; the reactor that an origin belongs to pushes its operations by itself and is left some time
 * to do so, if it is connected. No progress for a while, and another one is asked.
 *
 * Of a fork only the heads are known, not the common point: what is asked for begins 1, 2, 4, 8 …
 * operations below the announced head, until what comes fits.
 */
#include <stdlib.h>

#include <utlist.h>

#include "store/planted.h"
#include "store/probe.h"
#include "sync/sync_manager.h"

/* One range asked of a peer. Its key is collection and origin. */
struct td_ask_range {
    td_peer *peer;
    uint64_t first, last;
    uint64_t progress_seq; /* ours, when it was last looked at */
    uint64_t progress_ms;
    bool of_fork; /* of operations beside ours, not after them */
    bool of_lack; /* of a lack of ours */
    bool of_filter; /* of what is in the way: COVER ends it */
    bool failed;  /* what came could not be applied here */
    bool queued;  /* not in a PULL yet */
    uint64_t waits_ms; /* wall clock: not before; 0: it does not wait, and counts in peer->asks */
    td_ask_range *next;
    td_hash_entry hash_entry;
    size_t name_size;
    uint8_t key[]; /* origin, then the collection's name */
};

static size_t key_of(tandem_slice collection, const uint8_t *origin, uint8_t *out)
{
    memcpy(out, origin, TANDEM_ORIGIN_BYTES);
    memcpy(out + TANDEM_ORIGIN_BYTES, collection.bytes, collection.size);
    return TANDEM_ORIGIN_BYTES + collection.size;
}

static td_ask_range *find(tandem_sync *sync, tandem_slice collection, const uint8_t *origin)
{
    uint8_t key[TANDEM_ORIGIN_BYTES + TANDEM_NAME_BYTES_MAX];
    size_t size = key_of(collection, origin, key);

    return td_hash_table_find(&sync->asks, tandem_slice_of(key, size));
}

static void forget(tandem_sync *sync, td_ask_range *ask)
{
    if (ask->queued)
        LL_DELETE(ask->peer->ask_queue, ask);
    if (!ask->waits_ms)
        ask->peer->asks--;
    td_hash_table_remove(&sync->asks, &ask->hash_entry);
    free(ask);
}

static bool is_head(const td_origin_cover *origin, const td_lack *lack)
{
    for (unsigned i = 0; i < origin->head_count; i++)
        if (origin->heads[i].seq == lack->last &&
            !memcmp(origin->heads[i].hash, lack->hash, TANDEM_HASH_BYTES))
            return true;
    return false;
}

/* Which of our lacks may the peer hold, all of whose heads are held here, or lacking? What nothing of that
 * follows is behind none of them. Lacks stand in order, so what follows one is known before it. */
static void note_holdable(const td_origin_cover *origin, bool holdable[TD_LACKS_MAX])
{
    for (unsigned i = origin->our_lack_count; i-- > 0;) {
        const td_lack *lack = &origin->our_lacks[i];

        holdable[i] = lack->followed || is_head(origin, lack);
        for (unsigned k = i + 1; k < origin->our_lack_count && !holdable[i]; k++)
            holdable[i] = holdable[k] && origin->our_lacks[k].first == lack->last + 1 &&
                          !memcmp(origin->our_lacks[k].predecessor, lack->hash,
                                  TANDEM_HASH_BYTES);
    }
}

/* A lack of ours that is wanted, and that the peer holds; and how much of what it holds was refused.
 * knows_heads: none of those that it announced is unknown here. Through a filter nobody knows whether
 * what was refused is in the way. */
static bool look_for_wanted(td_coverage *coverage, td_origin_cover *origin, bool knows_heads,
                            bool filtered)
{
    bool holdable[TD_LACKS_MAX], found = false;
    uint64_t refused = 0;

    if (knows_heads)
        note_holdable(origin, holdable);
    for (unsigned i = 0; i < origin->our_lack_count; i++) {
        const td_lack *lack = &origin->our_lacks[i];

        if (origin->peer_seq < lack->last ||
            td_coverage_has_lack(origin->lacks, origin->lack_count, lack->last, lack->hash) ||
            td_coverage_is_void(origin, lack) || (knows_heads && !holdable[i]))
            continue;
        if (lack->reason != TANDEM_OK) {
            refused += filtered ? 0 : lack->last - lack->first + 1;
        } else if (!found) {
            origin->want_first = lack->first;
            origin->want_last = lack->last;
            found = true;
        }
    }
    td_coverage_set_refused_here(coverage, origin, refused);
    return found;
}

/* The way from the peer is not whole: what is lacking is what our pair does not cover; and of what we want
 * whatever is in the way, until the peer says that it was all. */
static void look_through_filter(td_peer *peer, td_origin_cover *origin)
{
    bool lacking = false;

    origin->want_first = origin->want_last = 0;
    if (td_share_has(td_peer_takes(peer), origin->collection->name)) {
        origin->in_seq = td_way_in_reached(peer, origin);
        origin->lacking_seq = origin->peer_seq;
        lacking = origin->lacking_seq > origin->in_seq;
        if (!lacking &&
            look_for_wanted(&peer->coverage, origin, td_ways_holds_heads(peer, origin), true)) {
            origin->lacking_seq = origin->want_last;
            lacking = true;
        }
    }
    td_coverage_set_lacking(&peer->coverage, origin, lacking, td_sync_now_ms(peer->sync));
}

/* The ask of it that waits for its time, if that is for something else than the lack that is wanted first. */
static td_ask_range *waiting_ask(tandem_sync *sync, const td_origin_cover *origin)
{
    td_ask_range *ask = find(sync, origin->collection->name, origin->origin);

    return ask && ask->waits_ms && (!ask->of_lack || ask->first > origin->want_first) ? ask : NULL;
}

tandem_err td_puller_look(td_peer *peer, td_origin_cover *origin)
{
    tandem_sync *sync = peer->sync;
    tandem_slice name = origin->collection->name;
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;
    bool lacking = false, filtered;
    tandem_err err;

    if ((err = td_op_store_heads(sync->ops, name, origin->origin, heads, &count)) != TANDEM_OK ||
        (err = td_wants_load(peer, origin)) != TANDEM_OK)
        return err;
    filtered = !td_share_has(td_peer_takes(peer), name) || td_way_in_has_filter(peer);
    td_coverage_set_vague(&peer->coverage, origin,
                          filtered && count > 1 && td_way_in_is_vague(peer, origin));
    if (count)
        td_coverage_set_our_heads(&peer->coverage, origin, heads, count);
    if (filtered) {
        look_through_filter(peer, origin);
        return TANDEM_OK;
    }
    for (unsigned i = 0; i < origin->head_count; i++) {
        const td_head *theirs = &origin->heads[i];
        bool held = false;

        for (unsigned k = 0; k < count && !held; k++)
            held = heads[k].seq == theirs->seq && !memcmp(heads[k].hash, theirs->hash,
                                                          TANDEM_HASH_BYTES);
        if (!held && count && heads[count - 1].seq >= theirs->seq &&
            (err = td_op_store_reaches(sync->ops, name, origin->origin, theirs->seq, theirs->hash,
                                       &held)) != TANDEM_OK)
            return err;
        if (!held && !td_coverage_has_lack(origin->our_lacks, origin->our_lack_count, theirs->seq,
                                           theirs->hash)) {
            lacking = true;
            origin->lacking_seq = theirs->seq;
        }
    }
    origin->want_first = origin->want_last = 0;
    if (look_for_wanted(&peer->coverage, origin, !lacking, false) && (!lacking || waiting_ask(sync, origin))) {
        origin->lacking_seq = origin->want_last;
        lacking = true;
    } else {
        origin->want_first = origin->want_last = 0; /* what it announced comes first */
    }
    td_coverage_set_lacking(&peer->coverage, origin, lacking, td_sync_now_ms(sync));
    return TANDEM_OK;
}

/* Is the reactor of this origin connected, so that it will push by itself? */
static bool has_direct_peer(tandem_sync *sync, const uint8_t *origin)
{
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        if (td_peer_is_open(peer) && !memcmp(peer->origin, origin, TANDEM_ORIGIN_BYTES))
            return true;
    return false;
}

/* An entry for an origin of which there is none. NULL: no memory. */
static td_ask_range *ask_open(td_peer *peer, tandem_slice name, const uint8_t *origin)
{
    td_ask_range *ask = calloc(1, sizeof(*ask) + TANDEM_ORIGIN_BYTES + name.size);
    size_t size;

    if (!ask)
        return NULL;
    ask->peer = peer;
    ask->name_size = name.size;
    size = key_of(name, origin, ask->key);
    if (td_hash_table_add(&peer->sync->asks, &ask->hash_entry, tandem_slice_of(ask->key, size),
                          ask) != TANDEM_OK) {
        free(ask);
        return NULL;
    }
    peer->asks++;
    return ask;
}

/* Of whomever. */
static bool is_asked(td_peer *peer, const td_origin_cover *origin)
{
    const td_ask_range *ask = find(peer->sync, origin->collection->name, origin->origin);

    return ask && (ask->peer == peer || !td_planted(TD_PLANTED_ASKED_TWICE));
}

/* The seq up to which the peer can send what follows first: it may lack something itself. */
static uint64_t sendable(const td_origin_cover *origin, uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < origin->lack_count; i++) {
        const td_lack *lack = &origin->lacks[i];

        if (lack->first > first && lack->first <= last &&
            !td_coverage_has_lack(origin->our_lacks, origin->our_lack_count, lack->last,
                                  lack->hash))
            last = lack->first - 1;
    }
    return last;
}

static uint64_t progress_of(const td_ask_range *ask, const td_origin_cover *origin)
{
    return ask->of_filter ? origin->in_seq : origin->our_seq;
}

static bool ask_range(td_peer *peer, td_origin_cover *origin, uint64_t now_ms)
{
    td_ask_range *ask = ask_open(peer, origin->collection->name, origin->origin);

    if (!ask)
        return false;
    ask->last = origin->lacking_seq;
    ask->first = td_coverage_behind_lacks(origin->our_lacks, origin->our_lack_count,
                                          origin->our_seq + 1);
    if (origin->want_last) {
        ask->of_lack = true;
        ask->first = origin->want_first;
    } else if (td_way_in_has_filter(peer)) {
        ask->of_filter = true;
        ask->first = origin->in_seq + 1;
    } else if (origin->back || ask->first > ask->last) {
        ask->of_fork = true;
        ask->first = ask->last > origin->back ? ask->last - origin->back : 1;
    } else if (td_coverage_lack_at(origin->lacks, origin->lack_count, ask->first)) {
        /* It lacks what would show that this is another branch, and would send nothing. */
        ask->of_fork = true;
        ask->first = 1;
    } else {
        ask->last = sendable(origin, ask->first, ask->last);
    }
    ask->progress_seq = progress_of(ask, origin);
    ask->progress_ms = now_ms;
    td_probe(peer->sync->env, ask->of_fork ? TD_PROBE_ASKED_OF_FORK : TD_PROBE_ASKED);
    ask->queued = true;
    LL_APPEND(peer->ask_queue, ask);
    return true;
}

void td_puller_ask(td_peer *peer)
{
    tandem_sync *sync = peer->sync;
    uint64_t now_ms = td_sync_now_ms(sync);
    td_origin_cover *origin, *next;
    td_ask_range *waiting;
    bool any = false;

    if (!td_peer_is_open(peer))
        return;
    DL_FOREACH_SAFE2(peer->coverage.lacking, origin, next, next_lacking)
    {
        if (peer->asks >= sync->asks_max && !td_planted(TD_PLANTED_ASKS_WITHOUT_END))
            break;
        waiting = origin->want_last ? waiting_ask(sync, origin) : NULL;
        if (!origin->collection->known || (!waiting && is_asked(peer, origin)))
            continue;
        /* What was refused once nobody pushes. */
        if (!origin->want_last && now_ms < origin->lacking_since_ms + TD_DIRECT_PATIENCE_MS &&
            has_direct_peer(sync, origin->origin)) {
            td_probe(sync->env, TD_PROBE_DIRECT_PATIENCE);
            continue;
        }
        if (td_puller_look(peer, origin) != TANDEM_OK || !origin->lacking ||
            (waiting && !origin->want_last) ||
            (!origin->want_last && !td_way_in_has_filter(peer) && td_wants_next(peer, origin)))
            continue;
        if (waiting)
            forget(sync, waiting); /* asked for again when nothing older is wanted */
        any = ask_range(peer, origin, now_ms) || any;
    }
    if (any)
        td_session_announce(td_channel_session(peer->channel));
}

tandem_err td_puller_announce(td_peer *peer, uint64_t number, tandem_writer *out)
{
    size_t collections_at, ranges_at = 0;
    uint32_t collections = 0, ranges = 0;
    tandem_slice current = {NULL, 0};

    if (!peer->ask_queue)
        return TANDEM_END;
    collections_at = td_wire_begin_pull(out, number);
    while (peer->ask_queue) {
        td_ask_range *ask = peer->ask_queue;
        tandem_slice name = tandem_slice_of(ask->key + TANDEM_ORIGIN_BYTES, ask->name_size);

        LL_DELETE(peer->ask_queue, ask);
        ask->queued = false;
        if (!collections || !tandem_slice_equal(name, current)) {
            if (collections)
                td_wire_patch_count(out, ranges_at, ranges);
            ranges_at = td_wire_begin_pull_collection(out, name);
            ranges = 0;
            collections++;
            current = name;
        }
        td_wire_write_range(out, ask->key, ask->first, ask->last);
        ranges++;
    }
    td_wire_patch_count(out, ranges_at, ranges);
    td_wire_patch_count(out, collections_at, collections);
    return TANDEM_OK;
}

void td_puller_forget(td_peer *peer)
{
    td_ask_range *ask, *next;

    for (ask = td_hash_table_first(&peer->sync->asks); ask; ask = next) {
        next = td_hash_table_next(&ask->hash_entry);
        if (ask->peer == peer)
            forget(peer->sync, ask);
    }
}

void td_puller_step_back(td_peer *peer, tandem_slice collection, const uint8_t *origin)
{
    td_collection_cover *cover = td_coverage_find(&peer->coverage, collection);
    td_origin_cover *lacked = cover ? td_coverage_find_origin(cover, origin) : NULL;
    td_ask_range *ask = find(peer->sync, collection, origin);

    if (!lacked || !lacked->lacking || !ask || ask->peer != peer || ask->queued ||
        ask->waits_ms || ask->of_lack || ask->of_filter || ask->first == 1)
        return; /* what was asked for from the beginning is asked for again when its time is over */
    if (td_planted(TD_PLANTED_FORK_NOT_SEARCHED))
        return;
    td_probe(peer->sync->env, TD_PROBE_STEPPED_BACK);
    lacked->back = lacked->back ? lacked->back * 2 : 1;
    forget(peer->sync, ask);
}

void td_puller_came_loose(td_peer *peer, tandem_slice collection, const uint8_t *origin,
                          uint64_t seq)
{
    const td_ask_range *ask = find(peer->sync, collection, origin);

    if (ask && ask->first > 1 && seq >= ask->last)
        td_puller_step_back(peer, collection, origin);
}

static td_origin_cover *cover_of(td_peer *peer, tandem_slice collection, const uint8_t *origin)
{
    td_collection_cover *cover = td_coverage_find(&peer->coverage, collection);

    return cover ? td_coverage_find_origin(cover, origin) : NULL;
}

/* Is something lacking before this seq that is not dated ahead? */
static bool lacks_before(td_peer *peer, tandem_slice collection, const uint8_t *origin, uint64_t seq)
{
    const td_origin_cover *of = cover_of(peer, collection, origin);

    return of && of->failed_seq > of->our_seq && of->failed_seq < seq;
}

/* While the newest waits for its time, what is wanted can come. */
static void look_for_older(tandem_sync *sync, tandem_slice collection, const uint8_t *origin)
{
    for (td_peer *peer = sync->peers; peer; peer = peer->next) {
        td_origin_cover *cover = td_peer_is_open(peer) ? cover_of(peer, collection, origin) : NULL;

        if (cover && cover->our_lack_count)
            td_puller_look(peer, cover);
    }
}

void td_puller_wait(td_peer *peer, tandem_slice collection, const uint8_t *origin, uint64_t seq,
                    uint64_t hlc)
{
    td_ask_range *ask = find(peer->sync, collection, origin);

    if (!td_peer_is_open(peer))
        return; /* its session ended before its jobs did: nothing would ever forget the ask */
    if (lacks_before(peer, collection, origin, seq))
        return; /* that was refused for another reason, and is not dated ahead */
    if ((!ask && !(ask = ask_open(peer, collection, origin))) || ask->peer != peer || ask->queued)
        return;
    if (!ask->waits_ms)
        peer->asks--;
    else if (ask->waits_ms <= td_hlc_ms(hlc))
        return; /* of several jobs that came too early the first is due first */
    ask->last = UINT64_MAX; /* until it is time */
    ask->waits_ms = td_hlc_ms(hlc) + 1;
    look_for_older(peer->sync, collection, origin);
}

bool td_puller_is_waiting(td_peer *peer, uint64_t *until_out)
{
    *until_out = UINT64_MAX;
    for (td_origin_cover *o = peer->coverage.lacking; o; o = o->next_lacking) {
        td_ask_range *ask = find(peer->sync, o->collection->name, o->origin);

        if (!ask || !ask->waits_ms)
            return false;
        if (ask->waits_ms < *until_out)
            *until_out = ask->waits_ms;
    }
    return peer->coverage.lacking != NULL;
}

void td_puller_failed(td_peer *peer, tandem_slice collection, const uint8_t *origin, uint64_t seq,
                      tandem_err why)
{
    td_ask_range *ask = find(peer->sync, collection, origin);
    td_origin_cover *of = cover_of(peer, collection, origin);

    if (why == TANDEM_E_REFUSED) {
        /* It is lacking: what comes behind it goes on. That was the answer; whether it is wanted again
         * since the next look tells. */
        if (ask && ask->peer == peer && ask->of_lack && ask->first == seq && !ask->queued)
            forget(peer->sync, ask);
        return;
    }
    if (of && why != TANDEM_E_CLOCK && why != TANDEM_E_PREDECESSOR &&
        (of->failed_seq <= of->our_seq || seq < of->failed_seq))
        of->failed_seq = seq;

    if (ask && ask->peer == peer)
        ask->failed = true;
}

/* Has it delivered since, or does it now? That it was asked for more says nothing: it may have none
 * of it. */
static bool peer_is_busy(td_peer *peer, uint64_t since_ms)
{
    return peer->delivered_ms > since_ms ||
           tandem_mailbox_jobs(td_channel_inbox(peer->channel)) > 0;
}

/* It was asked for what it announced, and sent nothing of it. That is told once. */
static void note_claim(td_peer *peer, td_origin_cover *origin)
{
    tandem_event event = {.kind = TANDEM_EVENT_CLAIM, .seq = origin->lacking_seq};

    if (origin->is_claim)
        return;
    origin->is_claim = true;
    memcpy(event.origin, origin->origin, sizeof(event.origin));
    memcpy(event.collection, origin->collection->name.bytes, origin->collection->name.size);
    td_event_bus_tell(td_reactor_bus(peer->sync->reactor), &event);
}

/* Is what begins there still lacking, and may it come from the peer? */
static bool is_wanted(const td_origin_cover *origin, uint64_t first)
{
    for (unsigned i = 0; i < origin->our_lack_count; i++)
        if (origin->our_lacks[i].first == first && origin->our_lacks[i].reason == TANDEM_OK &&
            !td_coverage_is_void(origin, &origin->our_lacks[i]))
            return true;
    return false;
}

static bool is_answered(const td_ask_range *ask, const td_origin_cover *origin)
{
    if (!origin->lacking)
        return true;
    if (ask->of_filter)
        return origin->in_seq >= ask->last;
    if (ask->of_lack)
        return !is_wanted(origin, ask->first);
    return !ask->of_fork && origin->our_seq >= ask->last;
}

/* An ask is over when what it was for is held; it is dropped when nothing comes. */
static void look_at_ask(tandem_sync *sync, td_ask_range *ask, uint64_t now_ms)
{
    tandem_slice name = tandem_slice_of(ask->key + TANDEM_ORIGIN_BYTES, ask->name_size);
    td_collection_cover *collection = td_coverage_find(&ask->peer->coverage, name);
    td_origin_cover *origin =
        collection ? td_coverage_find_origin(collection, ask->key) : NULL;

    if (!origin || td_puller_look(ask->peer, origin) != TANDEM_OK || is_answered(ask, origin)) {
        td_probe(sync->env, TD_PROBE_ASK_ANSWERED);
        forget(sync, ask);
        return;
    }
    if (ask->waits_ms) {
        if (td_env_wall_ms(sync->env) >= ask->waits_ms)
            forget(sync, ask);
        return;
    }
    if (progress_of(ask, origin) > ask->progress_seq) {
        ask->progress_seq = progress_of(ask, origin);
        ask->progress_ms = now_ms;
    } else if (!ask->failed && peer_is_busy(ask->peer, ask->progress_ms)) {
        if (ask->progress_ms < ask->peer->delivered_ms)
            ask->progress_ms = ask->peer->delivered_ms; /* other things of it come first */
    } else if (!ask->queued && now_ms >= ask->progress_ms + TD_ASK_PATIENCE_MS &&
               tandem_mailbox_jobs(td_channel_inbox(ask->peer->channel)) == 0) {
        td_peer *peer = ask->peer;

        td_probe(sync->env, TD_PROBE_ASK_GIVEN_UP);
        forget(sync, ask);
        note_claim(peer, origin);
        /* Behind the others: whoever else has it is asked first. */
        DL_DELETE2(peer->coverage.lacking, origin, prev_lacking, next_lacking);
        DL_APPEND2(peer->coverage.lacking, origin, prev_lacking, next_lacking);
        for (td_peer *other = peer->next; other; other = other->next)
            td_puller_ask(other);
    }
}

void td_puller_progress(tandem_sync *sync, tandem_slice collection, const uint8_t *origin)
{
    td_ask_range *ask = find(sync, collection, origin);

    if (ask)
        look_at_ask(sync, ask, td_sync_now_ms(sync));
}

void td_puller_tick(tandem_sync *sync, uint64_t now_ms)
{
    td_ask_range *ask, *next;

    for (ask = td_hash_table_first(&sync->asks); ask; ask = next) {
        next = td_hash_table_next(&ask->hash_entry);
        look_at_ask(sync, ask, now_ms);
    }
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        td_puller_ask(peer);
}
