/*
 * What a peer says: what it holds (HAVE), what of a filtered way is covered (COVER), and what it asks for
 * (PULL). transport/PROTOCOL.md says what is said when.
 */
#include <stdlib.h>

#include "store/probe.h"
#include "sync/sync_manager.h"

/* ---- Covers ---- */

tandem_err td_peer_origin(td_peer *peer, td_collection_cover *collection, const uint8_t *origin,
                          td_origin_cover **out)
{
    td_origin_cover *cover = td_coverage_find_origin(collection, origin);
    uint64_t base, seq = 0;
    tandem_err err;

    if (cover) {
        *out = cover;
        return TANDEM_OK;
    }
    if ((base = td_coverage_base(collection, origin)) &&
        (err = td_op_store_reached(peer->sync->ops, collection->name, origin, base, &seq)) !=
            TANDEM_OK)
        return err;
    if ((err = td_coverage_origin(&peer->coverage, collection, origin, &cover)) != TANDEM_OK)
        return err;
    td_coverage_acknowledge(&peer->coverage, cover, seq);
    *out = cover;
    return TANDEM_OK;
}

uint64_t td_peer_base(const td_peer *peer, tandem_slice name)
{
    if (peer->peer_all_known)
        return peer->all_ordinal;
    return td_comparing_is_equal(peer, name) ? peer->ranges.position : 0;
}

tandem_err td_peer_collection(td_peer *peer, tandem_slice name, td_collection_cover **out)
{
    td_collection_cover *collection = td_coverage_find(&peer->coverage, name);
    tandem_err err;

    *out = collection;
    if (collection || (!peer->peer_all_known && !peer->peer_listed &&
                       !td_comparing_is_equal(peer, name)))
        return TANDEM_OK;
    /* Not in the peer's lists: equal up to its base, or nothing of it is held there. */
    if ((err = td_coverage_collection(&peer->coverage, name, out)) != TANDEM_OK)
        return err;
    (*out)->base_ordinal = td_peer_base(peer, name);
    return td_peer_knows(peer, *out);
}

struct comparing {
    td_peer *peer;
    td_collection_cover *collection;
    uint8_t (*origins)[TANDEM_ORIGIN_BYTES];
    size_t count, capacity;
};

static tandem_err note_origin(void *context, const uint8_t *origin, const td_head *heads,
                              unsigned count)
{
    struct comparing *comparing = context;
    td_origin_cover *cover = td_coverage_find_origin(comparing->collection, origin);

    if (count == 0)
        return TANDEM_OK; /* only lacks are known of it */
    if (td_coverage_base(comparing->collection, origin))
        return TANDEM_OK; /* it was in a range that was equal */
    if (cover) {
        td_coverage_set_our_heads(&comparing->peer->coverage, cover, heads, count);
        return TANDEM_OK;
    }
    if (comparing->count == comparing->capacity) {
        size_t capacity = comparing->capacity ? comparing->capacity * 2 : 16;
        void *grown = realloc(comparing->origins, capacity * TANDEM_ORIGIN_BYTES);

        if (!grown)
            return TANDEM_E_NOMEM;
        comparing->origins = grown;
        comparing->capacity = capacity;
    }
    memcpy(comparing->origins[comparing->count++], origin, TANDEM_ORIGIN_BYTES);
    return TANDEM_OK;
}

/* Entries for every origin of ours that the peer did not list, though it would have: it holds nothing of
 * them. */
static tandem_err add_our_origins(td_peer *peer, td_collection_cover *collection)
{
    struct comparing comparing = {.peer = peer, .collection = collection};
    tandem_err err;

    err = td_op_store_vector(peer->sync->ops, collection->name, NULL, note_origin, &comparing);
    for (size_t i = 0; err == TANDEM_OK && i < comparing.count; i++) {
        td_head heads[TANDEM_HEADS_MAX];
        td_origin_cover *cover;
        unsigned count = 0;

        if ((err = td_coverage_origin(&peer->coverage, collection, comparing.origins[i],
                                      &cover)) != TANDEM_OK ||
            (err = td_op_store_heads(peer->sync->ops, collection->name, comparing.origins[i],
                                     heads, &count)) != TANDEM_OK)
            break;
        if (count)
            td_coverage_set_our_heads(&peer->coverage, cover, heads, count);
    }
    free(comparing.origins);
    return err;
}

tandem_err td_peer_knows(td_peer *peer, td_collection_cover *collection)
{
    td_origin_cover *own;
    tandem_err err;

    td_coverage_set_known(&peer->coverage, collection, true);
    if ((!collection->base_ordinal || collection->base_in_part) &&
        (err = add_our_origins(peer, collection)) != TANDEM_OK)
        return err;
    if ((err = td_peer_origin(peer, collection, td_sync_origin(peer->sync), &own)) != TANDEM_OK)
        return err;
    if ((err = td_puller_look(peer, own)) != TANDEM_OK)
        return err;
    if (!td_ways_waits(peer, own) &&
        (err = td_sender_add(peer, own, own->parted ? 1 : td_coverage_reached(own) + 1, UINT64_MAX,
                             own->parted ? 0 : td_coverage_base(collection, own->origin))) !=
            TANDEM_OK)
        return err;
    td_sender_settle(peer, collection);
    return TANDEM_OK;
}

/* ---- What the peer announces ---- */

/* A digest was equal: what we held of the collection when it was computed is held there, too. */
static void acknowledge_ours(td_peer *peer, td_collection_cover *collection)
{
    for (td_origin_cover *o = td_hash_table_first(&collection->origins); o;
         o = td_hash_table_next(&o->hash_entry))
        td_coverage_acknowledge_all(&peer->coverage, o);
}

static tandem_err take_all(td_peer *peer, const td_wire_have *have)
{
    uint8_t digest[TANDEM_HASH_BYTES];
    uint64_t position = td_executor_position(peer->sync->executor), count;
    tandem_job_handle *handle, *next;
    tandem_err err;

    if ((err = td_sync_digest_all(peer, &count, digest)) != TANDEM_OK)
        return err;
    if (!memcmp(digest, (uint8_t[TANDEM_HASH_BYTES]){0}, sizeof(digest)) ||
        memcmp(digest, have->digest, sizeof(digest)) != 0) {
        td_probe(peer->sync->env, TD_PROBE_DIGEST_DIFFERED);
        td_comparing_collections(peer, count, have->collections);
        return TANDEM_OK;
    }
    td_probe(peer->sync->env, TD_PROBE_DIGEST_EQUAL);
    peer->peer_all_known = true;
    peer->all_ordinal = position;
    for (handle = tandem_mailbox_first(td_channel_outbox(peer->channel)); handle; handle = next) {
        next = handle->next;
        if (!handle->waiting || handle->refused)
            continue;
        if (handle->first_ordinal + handle->operations - 1 <= position) {
            tandem_job_handle_transported(handle);
            tandem_job_handle_executed(handle);
        }
        tandem_mailbox_remove(td_channel_outbox(peer->channel), handle);
        tandem_job_handle_free(handle);
    }
    for (td_collection_cover *c = td_hash_table_first(&peer->coverage.collections); c;
         c = td_hash_table_next(&c->hash_entry)) {
        if (c->known)
            continue;
        acknowledge_ours(peer, c);
        c->base_ordinal = position;
        if ((err = td_peer_knows(peer, c)) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

/*
 * One of ours that the peer's complete list does not name: it holds nothing of it. What we hold is
 * told now, because our own list of digests may have been sent before any of it was here.
 */
static tandem_err add_unlisted(void *context, tandem_slice name)
{
    td_peer *peer = context;
    td_collection_cover *collection = td_coverage_find(&peer->coverage, name);
    tandem_err err;

    if ((collection && collection->listed) || !td_way_is_shared(peer, name) ||
        td_comparing_is_equal(peer, name))
        return TANDEM_OK;
    if ((err = td_peer_collection(peer, name, &collection)) != TANDEM_OK)
        return err;
    td_announcer_list(peer, collection);
    return TANDEM_OK;
}

/* The peer's list of digests is complete. What was in ranges that were equal is known. */
static tandem_err list_is_complete(td_peer *peer)
{
    tandem_err err;

    peer->peer_listed = true;
    for (td_collection_cover *c = td_hash_table_first(&peer->coverage.collections); c;
         c = td_hash_table_next(&c->hash_entry))
        if (!c->listed && !c->known && (err = td_peer_knows(peer, c)) != TANDEM_OK)
            return err;
    return td_sync_each_collection(peer->sync, add_unlisted, peer);
}

static tandem_err take_digests(td_peer *peer, const td_wire_have *have)
{
    tandem_reader entries = have->entries;
    tandem_err err;

    td_comparing_plain_digests(peer);
    for (uint32_t i = 0; i < have->entry_count; i++) {
        td_collection_cover *collection;
        td_vector_digest vector;
        td_wire_digest entry;

        if ((err = td_wire_read_digest(&entries, &entry)) != TANDEM_OK)
            return err;
        if (!td_collection_name_valid(entry.name) || !td_way_is_shared(peer, entry.name))
            continue; /* reserved, or none of this session's */
        if (td_comparing_is_equal(peer, entry.name))
            return TANDEM_E_PROTOCOL;
        if ((err = td_coverage_collection(&peer->coverage, entry.name, &collection)) !=
                TANDEM_OK ||
            (err = td_sync_digest(peer->sync, entry.name, &vector)) != TANDEM_OK)
            return err;
        collection->listed = true;
        if (!entry.has_digest || td_ways_holds_in_part(peer->sync, entry.name) ||
            memcmp(vector.digest, entry.digest, sizeof(vector.digest)) != 0) {
            td_comparing_origins(peer, collection, vector.origins,
                                 entry.has_digest ? entry.origins : 0);
            continue;
        }
        td_probe(peer->sync->env, TD_PROBE_COLLECTION_EQUAL);
        acknowledge_ours(peer, collection);
        if (collection->known)
            continue;
        collection->base_ordinal = vector.last_ordinal;
        if ((err = td_peer_knows(peer, collection)) != TANDEM_OK)
            return err;
    }
    td_announcer_want_digests(peer);
    if (have->more)
        return TANDEM_OK;
    return list_is_complete(peer);
}

static uint64_t last_seq(const td_head *heads, unsigned count)
{
    return count ? heads[count - 1].seq : 0;
}

/* Within a session positions never go back: by listing or by change. What we took for held because it was
 * acknowledged, or came from there, may be loose, and no head vouches for it. */
static tandem_err take_origin(td_peer *peer, td_collection_cover *collection, bool is_change,
                              const td_wire_origin *entry)
{
    td_origin_cover *origin;
    tandem_err err;

    if ((err = is_change ? td_peer_origin(peer, collection, entry->origin, &origin)
         : td_coverage_origin(&peer->coverage, collection, entry->origin,
                              &origin)) != TANDEM_OK)
        return err;
    td_coverage_look_at_void(origin, entry->heads, entry->head_count);
    peer->refused_ranges -= origin->lack_count;
    td_coverage_begin_lacks(&peer->coverage, origin);
    if (last_seq(entry->heads, entry->head_count) < last_seq(origin->heads, origin->head_count)) {
        td_probe(peer->sync->env, is_change ? TD_PROBE_POSITION_WENT_BACK
                                            : TD_PROBE_LISTING_REPEATED);
        return is_change ? TANDEM_E_PROTOCOL : TANDEM_OK; /* a listing may have been begun before */
    }
    if ((err = td_coverage_set_heads(&peer->coverage, origin, entry->heads, entry->head_count)) !=
        TANDEM_OK)
        return err;
    td_ways_take_heads(peer, origin);
    return TANDEM_OK;
}

/* What it does not hold of the origins of this entry, though heads may stand behind it. */
static tandem_err take_lacks(td_peer *peer, td_collection_cover *collection,
                               const td_wire_vector *entry)
{
    tandem_reader reader = entry->refused;
    tandem_err err;

    for (uint32_t i = 0; i < entry->refused_count; i++) {
        td_origin_cover *origin;
        td_wire_refused refused;
        td_lack lack;

        if ((err = td_wire_read_refused(&reader, &refused)) != TANDEM_OK)
            return err;
        if (++peer->refused_ranges > TD_REFUSED_RANGES_MAX)
            return TANDEM_E_LIMIT;
        if ((err = td_peer_origin(peer, collection, refused.origin, &origin)) != TANDEM_OK)
            return err;
        td_probe(peer->sync->env, TD_PROBE_REFUSED_RANGE_TOLD);
        lack = (td_lack){.first = refused.first,
                         .last = refused.last,
                         .reason = refused.reason ? TANDEM_E_REFUSED : TANDEM_OK};
        memcpy(lack.hash, refused.hash, TANDEM_HASH_BYTES);
        memcpy(lack.predecessor, refused.predecessor, TANDEM_HASH_BYTES);
        if ((err = td_coverage_add_lack(&peer->coverage, origin, &lack)) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

void td_peer_look_at_lacks(td_peer *peer, td_origin_cover *origin, uint64_t seq)
{
    bool held;

    for (unsigned i = 0; i < origin->lack_count; i++)
        if (!origin->lacks[i].followed && origin->lacks[i].last <= seq &&
            td_op_store_holds(peer->sync->ops, origin->collection->name, origin->origin,
                              origin->lacks[i].last, origin->lacks[i].hash, &held) == TANDEM_OK &&
            held)
            td_coverage_hold_lack(&peer->coverage, origin, &origin->lacks[i]);
}

/* The peer tells of what we hold, and were silent about: the digests were equal, so it should have been
 * known there, but was not committed yet when it looked. Or both lacked some of it, and it does no more:
 * unless it knows that we do, it cannot answer for that. */
static void tell_back(td_peer *peer, td_origin_cover *origin)
{
    if ((origin->lacking && !origin->want_last) || !origin->head_count ||
        origin->announced_seq >= origin->heads[origin->head_count - 1].seq)
        return;
    td_coverage_mark_dirty(origin);
    td_announcer_soon(peer);
}

/* What is lacking here of the origins that an entry names, now that all of it was read. What the peer has
 * told of what it did not hold then, our pair says: it ends before that. */
static tandem_err look_at_lacking(td_peer *peer, td_collection_cover *collection,
                                  const td_wire_vector *entry, bool is_change)
{
    tandem_reader origins = entry->origins;
    tandem_err err = TANDEM_OK;

    for (uint32_t i = 0; i < entry->origin_count && err == TANDEM_OK; i++) {
        td_origin_cover *origin;
        td_wire_origin found;

        if ((err = td_wire_read_origin(&origins, &found)) != TANDEM_OK ||
            !(origin = td_coverage_find_origin(collection, found.origin)))
            continue;
        td_peer_look_at_lacks(peer, origin, UINT64_MAX);
        if (td_coverage_lacks_gone(origin))
            err = td_coverage_set_told(origin, NULL, 0);
        if (err == TANDEM_OK && (err = td_puller_look(peer, origin)) == TANDEM_OK && is_change)
            tell_back(peer, origin);
    }
    return err;
}

static tandem_err take_vector(td_peer *peer, const td_wire_vector *entry)
{
    tandem_reader origins = entry->origins;
    td_collection_cover *collection;
    bool is_change = !entry->begin && !entry->end;
    tandem_err err;

    if (!td_collection_name_valid(entry->name))
        return TANDEM_OK; /* reserved */
    if (!td_way_is_shared(peer, entry->name))
        return TANDEM_OK;
    if ((err = td_peer_collection(peer, entry->name, &collection)) != TANDEM_OK ||
        (!collection && (err = td_coverage_collection(&peer->coverage, entry->name,
                                                      &collection)) != TANDEM_OK))
        return err;
    if (entry->has_filter)
        return td_ways_take_pair(peer, collection, entry);
    if (entry->begin) {
        if (collection->received)
            return TANDEM_E_PROTOCOL; /* once a session */
        collection->receiving = collection->received = true;
        td_comparing_plain_listing(peer, collection);
    }
    is_change = is_change && !collection->receiving;
    for (uint32_t i = 0; i < entry->origin_count; i++) {
        td_wire_origin origin;

        if ((err = td_wire_read_origin(&origins, &origin)) != TANDEM_OK ||
            (!is_change && td_ranges_equal(&collection->ranges, origin.origin) &&
             (err = TANDEM_E_PROTOCOL) != TANDEM_OK) ||
            (err = take_origin(peer, collection, is_change, &origin)) != TANDEM_OK)
            return err;
    }
    if ((err = take_lacks(peer, collection, entry)) != TANDEM_OK ||
        (err = look_at_lacking(peer, collection, entry, is_change)) != TANDEM_OK)
        return err;
    if (entry->end) {
        collection->receiving = false;
        td_probe(peer->sync->env, TD_PROBE_LISTING_TAKEN);
        if (!collection->known && (err = td_peer_knows(peer, collection)) != TANDEM_OK)
            return err;
        td_announcer_list(peer, collection);
    }
    return TANDEM_OK;
}

tandem_err td_announced_have(void *context, const td_wire_have *have)
{
    td_peer *peer = context;
    tandem_reader entries = have->entries;
    tandem_err err = TANDEM_OK;

    td_peer_take_clock(peer, have->clock);
    switch (have->level) {
    case TD_HAVE_ALL:
        err = take_all(peer, have);
        break;
    case TD_HAVE_DIGESTS:
        err = take_digests(peer, have);
        break;
    case TD_HAVE_RANGES:
        err = td_comparing_take(peer, have);
        break;
    case TD_HAVE_VECTORS:
        for (uint32_t i = 0; err == TANDEM_OK && i < have->entry_count; i++) {
            td_wire_vector entry;

            if ((err = td_wire_read_vector(&entries, &entry)) == TANDEM_OK)
                err = take_vector(peer, &entry);
        }
        break;
    }
    if (err != TANDEM_OK)
        return err;
    td_dead_letters_look(peer);
    td_sender_fill(peer);
    td_puller_ask(peer);
    td_peer_refresh(peer);
    td_sync_check_waiters(peer->sync);
    return TANDEM_OK;
}

/* ---- What the peer asks for ---- */

tandem_err td_announced_pull(void *context, const td_wire_pull *pull)
{
    td_peer *peer = context;
    tandem_reader reader = pull->collections;
    tandem_err err;

    for (uint32_t i = 0; i < pull->collection_count; i++) {
        td_wire_pull_collection entry;
        td_collection_cover *collection;
        tandem_reader ranges;

        if ((err = td_wire_read_pull_collection(&reader, &entry)) != TANDEM_OK ||
            (!td_share_has(td_peer_gives(peer), entry.name) && (err = TANDEM_END) == TANDEM_END) ||
            (err = td_peer_collection(peer, entry.name, &collection)) != TANDEM_OK ||
            /* Asked for before it is known what it holds: sent when that is known. */
            (!collection && (err = td_coverage_collection(&peer->coverage, entry.name,
                                                          &collection)) != TANDEM_OK)) {
            if (err == TANDEM_END)
                continue; /* not in the way */
            return err;
        }
        ranges = entry.ranges;
        for (uint32_t k = 0; k < entry.range_count; k++) {
            td_origin_cover *origin;
            td_wire_range range;

            if ((err = td_wire_read_range(&ranges, &range)) != TANDEM_OK)
                return err;
            if (peer->asked_ranges >= TD_ASKED_RANGES_MAX)
                return TANDEM_E_LIMIT;
            if ((err = td_peer_origin(peer, collection, range.origin, &origin)) != TANDEM_OK)
                return err;
            if (td_ways_part(peer, origin) || origin->parted)
                range.first = 1;
            if (origin->range.active && origin->range.last == UINT64_MAX &&
                origin->range.first <= range.first && range.first > td_coverage_reached(origin) &&
                !td_coverage_lack_at(origin->lacks, origin->lack_count, range.first)) {
                td_sender_asked(peer, origin); /* on its way anyway, be it no more of our own */
                continue;
            }
            td_ways_seek(peer, origin, range.last);
            if ((err = td_sender_add(peer, origin, range.first, range.last, 0)) != TANDEM_OK)
                return err;
            if (!origin->range.active)
                td_ways_sent(peer, origin); /* nothing of it is held */
            if (origin->range.last == UINT64_MAX && range.last > origin->range.repeat_last)
                origin->range.repeat_last = range.last;
        }
    }
    td_sender_fill(peer);
    td_peer_refresh(peer);
    return TANDEM_OK;
}

/* What the peer lacks itself it has not given: our pair ends before that, whatever this session may take for
 * given. False: it covers nothing. */
static bool end_before_lacks(const td_origin_cover *origin, td_wire_origin *told)
{
    td_head *last = &told->heads[told->head_count - 1];

    for (unsigned i = 0; i < origin->lack_count; i++) {
        const td_lack *lack = &origin->lacks[i];

        if (lack->first > last->seq)
            continue;
        if (lack->first == 1 || told->head_count > 1)
            return false;
        last->seq = lack->first - 1;
        memcpy(last->hash, lack->predecessor, TANDEM_HASH_BYTES);
    }
    return true;
}

/* Is it the end of what we lack, and asked for? */
static bool wants(const td_origin_cover *origin, const td_head *head)
{
    return head->seq == origin->want_last &&
           td_coverage_has_lack(origin->our_lacks, origin->our_lack_count, head->seq, head->hash);
}

static tandem_err take_covered(td_peer *peer, tandem_slice name, const td_wire_origin *told)
{
    td_collection_cover *collection = td_coverage_find(&peer->coverage, name);
    td_origin_cover *origin =
        collection ? td_coverage_find_origin(collection, told->origin) : NULL;
    td_wire_origin kept = *told;
    tandem_err err = TANDEM_OK;

    if (!told->head_count)
        return TANDEM_OK;
    if (origin && told->head_count == 1 && wants(origin, &told->heads[0])) {
        if ((err = td_coverage_add_void(origin, &told->heads[0])) == TANDEM_OK)
            err = td_puller_look(peer, origin);
        return err;
    }
    /* The answer to what has come since. */
    if (origin && origin->told_count && told->head_count == 1 &&
        told->heads[0].seq < origin->told[origin->told_count - 1].seq)
        return TANDEM_OK;
    if (origin)
        err = td_coverage_set_told(origin, told->heads, told->head_count);
    if (err == TANDEM_OK &&
        (!origin || (!origin->refused_in_part && end_before_lacks(origin, &kept))))
        td_wants_cover(peer, name, &kept);
    else if (err == TANDEM_OK)
        err = td_puller_look(peer, origin);
    return err;
}

/* A session whose way here has no filter learns nothing by it. */
tandem_err td_announced_cover(void *context, const td_wire_cover *cover)
{
    tandem_reader collections = cover->collections;
    td_peer *peer = context;
    tandem_err err;

    for (uint32_t i = 0; i < cover->collection_count; i++) {
        td_wire_cover_collection entry;
        td_wire_origin origin;

        if ((err = td_wire_read_cover_collection(&collections, &entry)) != TANDEM_OK)
            return err;
        for (uint32_t k = 0; k < entry.origin_count; k++) {
            if ((err = td_wire_read_origin(&entry.origins, &origin)) != TANDEM_OK)
                return err;
            if (td_way_in_has_filter(peer) && td_share_has(td_peer_takes(peer), entry.name) &&
                (err = take_covered(peer, entry.name, &origin)) != TANDEM_OK)
                return err;
        }
    }
    return TANDEM_OK;
}
