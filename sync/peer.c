/*
 * One peer's session: HELLO, what it announces and asks for, and what it delivers.
 * transport/PROTOCOL.md says what is said when.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include <utlist.h>

#include "store/planted.h"
#include "store/probe.h"
#include "sync/sync_manager.h"

static const uint8_t *own_origin(const td_peer *peer)
{
    return td_op_store_identity(peer->sync->ops)->origin;
}

/* ---- Covers ---- */

/* An entry of a collection that was equal up to its base: the peer holds what stood before it. */
static tandem_err origin_of(td_peer *peer, td_collection_cover *collection, const uint8_t *origin,
                            td_origin_cover **out)
{
    td_origin_cover *cover = td_coverage_find_origin(collection, origin);
    uint64_t seq = 0;
    tandem_err err;

    if (cover) {
        *out = cover;
        return TANDEM_OK;
    }
    if (collection->base_ordinal &&
        (err = td_op_store_reached(peer->sync->ops, collection->name, origin,
                                   collection->base_ordinal, &seq)) != TANDEM_OK)
        return err;
    if ((err = td_coverage_origin(&peer->coverage, collection, origin, &cover)) != TANDEM_OK)
        return err;
    td_coverage_acknowledge(&peer->coverage, cover, seq);
    *out = cover;
    return TANDEM_OK;
}

static tandem_err collection_is_known(td_peer *peer, td_collection_cover *collection);

tandem_err td_peer_collection(td_peer *peer, tandem_slice name, td_collection_cover **out)
{
    td_collection_cover *collection = td_coverage_find(&peer->coverage, name);
    tandem_err err;

    *out = collection;
    if (collection || (!peer->peer_all_known && !peer->peer_listed))
        return TANDEM_OK;
    /* Not in the peer's lists: equal up to all_ordinal, or nothing of it is held there. */
    if ((err = td_coverage_collection(&peer->coverage, name, out)) != TANDEM_OK)
        return err;
    (*out)->base_ordinal = peer->peer_all_known ? peer->all_ordinal : 0;
    return collection_is_known(peer, *out);
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

/* Entries for every origin of ours that the peer did not list: it holds nothing of them. */
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

/* What the peer holds of a collection is known from now on: send it what is ours. */
static tandem_err collection_is_known(td_peer *peer, td_collection_cover *collection)
{
    td_origin_cover *own;
    tandem_err err;

    td_coverage_set_known(&peer->coverage, collection, true);
    if (collection->base_ordinal == 0 && (err = add_our_origins(peer, collection)) != TANDEM_OK)
        return err;
    if ((err = origin_of(peer, collection, own_origin(peer), &own)) != TANDEM_OK)
        return err;
    if ((err = td_puller_look(peer, own)) != TANDEM_OK)
        return err;
    if (!own->lacking &&
        (err = td_sender_add(peer, own, own->parted ? 1 : td_coverage_reached(own) + 1, UINT64_MAX,
                             own->parted ? 0 : collection->base_ordinal)) != TANDEM_OK)
        return err;
    td_sender_settle(peer, collection);
    return TANDEM_OK;
}

/* ---- HELLO ---- */

static bool may_greet(void *context)
{
    return td_peer_may_say_shares(context);
}

static void say_hello(void *context, td_wire_hello *out)
{
    td_peer *peer = context;
    const td_identity *identity = td_op_store_identity(peer->sync->ops);

    memcpy(out->reactor, identity->reactor, TANDEM_ORIGIN_BYTES);
    memcpy(out->origin, identity->origin, TANDEM_ORIGIN_BYTES);
    memcpy(out->instance, peer->sync->instance, sizeof(out->instance));
    peer->identity = identity;
    td_peer_say_shares(peer, out);
    out->clock = td_executor_clock(peer->sync->executor);
    out->agent = tandem_slice_text(peer->sync->agent);
}

/* Which reactor dialed the peer's session: ours or the peer's. */
static const uint8_t *dialer_of(const td_peer *peer)
{
    return td_channel_is_dialed(peer->channel) ? td_op_store_identity(peer->sync->ops)->reactor
                                               : peer->reactor;
}

/* Its HELLO was taken, and it goes on; ours may still be on its way to it. */
static bool is_taken(const td_peer *peer)
{
    const td_session *session = td_channel_session(peer->channel);

    return session && peer->said_hello && td_session_err(session, NULL) == TANDEM_OK;
}

/*
 * Of two sessions with one reactor one carries data: the one that the reactor with the smaller id
 * dialed; of two dialed by the same, the newer. Both sides come to the same answer. One of an
 * earlier life of the reactor gives way.
 */
static tandem_err resolve_duplicate(td_peer *peer)
{
    for (td_peer *other = peer->sync->peers; other; other = other->next) {
        tandem_err err;
        int order;

        if (other == peer || !is_taken(other) ||
            memcmp(other->reactor, peer->reactor, TANDEM_ORIGIN_BYTES) != 0)
            continue;
        err = td_copies_resolve(peer, other);
        if (err == TANDEM_OK)
            continue;
        if (err != TANDEM_END)
            return err;
        order = memcmp(dialer_of(peer), dialer_of(other), TANDEM_ORIGIN_BYTES);
        if (order > 0)
            return TANDEM_E_DUPLICATE_SESSION;
        td_probe(peer->sync->env, TD_PROBE_SESSION_DOUBLED);
        td_session_fail(td_channel_session(other->channel), TANDEM_E_DUPLICATE_SESSION,
                        "another session with this reactor carries the data");
    }
    return TANDEM_OK;
}

/* Is it a reactor that a paused remote of ours stands for? */
static bool is_paused(const td_peer *peer)
{
    for (const td_peer *other = peer->sync->peers; other; other = other->next)
        if (other->is_remote && !other->removed && other->record.paused &&
            !memcmp(other->reactor, peer->reactor, TANDEM_ORIGIN_BYTES))
            return true;
    return false;
}

static void take_clock(td_peer *peer, uint64_t hlc)
{
    peer->peer_clock_ms = td_hlc_ms(hlc);
    peer->peer_clock_at_ms = td_sync_now_ms(peer->sync);
    td_executor_peer_clock(peer->sync->executor, hlc);
}

static tandem_err take_hello(void *context, const td_wire_hello *hello)
{
    td_peer *peer = context;
    const td_identity *identity = td_op_store_identity(peer->sync->ops);
    tandem_err err;

    memcpy(peer->reactor, hello->reactor, TANDEM_ORIGIN_BYTES);
    memcpy(peer->origin, hello->origin, TANDEM_ORIGIN_BYTES);
    memcpy(peer->instance, hello->instance, sizeof(peer->instance));
    take_clock(peer, hello->clock);
    if (!memcmp(hello->reactor, identity->reactor, TANDEM_ORIGIN_BYTES) ||
        !memcmp(hello->origin, identity->origin, TANDEM_ORIGIN_BYTES)) {
        peer->identity = identity; /* it goes by it, too, whether it was told ours yet or not */
        return td_copies_meet(peer);
    }
    if (is_paused(peer)) {
        td_probe(peer->sync->env, TD_PROBE_PAUSED_REFUSED);
        td_session_fail(td_channel_session(peer->channel), TANDEM_E_UNREACHABLE,
                        "paused by command there");
        return TANDEM_E_UNREACHABLE;
    }
    if (td_peer_end_stale_shares(peer))
        return TANDEM_E_UNREACHABLE;
    if ((err = resolve_duplicate(peer)) != TANDEM_OK ||
        (err = td_peer_take_shares(peer, hello)) != TANDEM_OK)
        return err;
    peer->said_hello = true;
    peer->coverage.gives = td_peer_gives(peer);
    td_dead_letters_opened(peer);
    td_sender_settle_unshared(peer);
    peer->last_err = TANDEM_OK;
    peer->last_text[0] = 0;
    td_log(peer->sync->env, TANDEM_LOG_INFO, "sync", "session with %s open",
           peer->is_remote ? peer->record.name : "an inbound peer");
    td_peer_refresh(peer);
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
        td_announcer_want_digests(peer);
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
        if ((err = collection_is_known(peer, c)) != TANDEM_OK)
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

    if ((collection && collection->listed) || !td_way_is_shared(peer, name))
        return TANDEM_OK;
    if ((err = td_peer_collection(peer, name, &collection)) != TANDEM_OK)
        return err;
    td_announcer_list(peer, collection);
    return TANDEM_OK;
}

/* The peer's list of digests is complete. */
static tandem_err list_is_complete(td_peer *peer)
{
    tandem_err err;

    peer->peer_listed = true;
    for (td_collection_cover *c = td_hash_table_first(&peer->coverage.collections); c;
         c = td_hash_table_next(&c->hash_entry))
        if (!c->listed && !c->known && (err = collection_is_known(peer, c)) != TANDEM_OK)
            return err;
    return td_sync_each_collection(peer->sync, add_unlisted, peer);
}

static tandem_err take_digests(td_peer *peer, const td_wire_have *have)
{
    tandem_reader entries = have->entries;
    tandem_err err;

    for (uint32_t i = 0; i < have->entry_count; i++) {
        uint8_t digest[TANDEM_HASH_BYTES];
        td_collection_cover *collection;
        td_wire_digest entry;
        uint64_t last_ordinal;

        if ((err = td_wire_read_digest(&entries, &entry)) != TANDEM_OK)
            return err;
        if (!td_collection_name_valid(entry.name) || !td_way_is_shared(peer, entry.name))
            continue; /* reserved, or none of this session's */
        if ((err = td_coverage_collection(&peer->coverage, entry.name, &collection)) !=
                TANDEM_OK ||
            (err = td_sync_digest(peer->sync, entry.name, &last_ordinal, digest)) != TANDEM_OK)
            return err;
        collection->listed = true;
        if (!entry.has_digest || td_ways_holds_in_part(peer->sync, entry.name) ||
            memcmp(digest, entry.digest, sizeof(digest)) != 0) {
            td_announcer_list(peer, collection);
            continue;
        }
        td_probe(peer->sync->env, TD_PROBE_COLLECTION_EQUAL);
        acknowledge_ours(peer, collection);
        if (collection->known)
            continue;
        collection->base_ordinal = last_ordinal;
        if ((err = collection_is_known(peer, collection)) != TANDEM_OK)
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

    if ((err = is_change ? origin_of(peer, collection, entry->origin, &origin)
                         : td_coverage_origin(&peer->coverage, collection, entry->origin,
                                              &origin)) != TANDEM_OK)
        return err;
    /* Another branch may have come there. */
    if (entry->head_count != origin->head_count)
        td_coverage_clear_void(origin);
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
        if ((err = origin_of(peer, collection, refused.origin, &origin)) != TANDEM_OK)
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

/* Which of the peer's lacks do we hold, up to seq? Others are of a branch that may be gone everywhere. */
static void look_at_lacks(td_peer *peer, td_origin_cover *origin, uint64_t seq)
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
 * known there, but was not committed yet when it looked. */
static void tell_back(td_peer *peer, td_origin_cover *origin)
{
    if (origin->lacking || !origin->head_count ||
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
        look_at_lacks(peer, origin, UINT64_MAX);
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
    }
    is_change = is_change && !collection->receiving;
    for (uint32_t i = 0; i < entry->origin_count; i++) {
        td_wire_origin origin;

        if ((err = td_wire_read_origin(&origins, &origin)) != TANDEM_OK ||
            (err = take_origin(peer, collection, is_change, &origin)) != TANDEM_OK)
            return err;
    }
    if ((err = take_lacks(peer, collection, entry)) != TANDEM_OK ||
        (err = look_at_lacking(peer, collection, entry, is_change)) != TANDEM_OK)
        return err;
    if (entry->end) {
        collection->receiving = false;
        td_probe(peer->sync->env, TD_PROBE_LISTING_TAKEN);
        if (!collection->known && (err = collection_is_known(peer, collection)) != TANDEM_OK)
            return err;
        td_announcer_list(peer, collection);
    }
    return TANDEM_OK;
}

static tandem_err take_have(void *context, const td_wire_have *have)
{
    td_peer *peer = context;
    tandem_reader entries = have->entries;
    tandem_err err = TANDEM_OK;

    take_clock(peer, have->clock);
    switch (have->level) {
    case TD_HAVE_ALL:
        err = take_all(peer, have);
        break;
    case TD_HAVE_DIGESTS:
        err = take_digests(peer, have);
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

static tandem_err take_pull(void *context, const td_wire_pull *pull)
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
            if ((err = origin_of(peer, collection, range.origin, &origin)) != TANDEM_OK)
                return err;
            if (td_ways_part(peer, origin) || origin->parted)
                range.first = 1;
            if (origin->range.active && origin->range.last == UINT64_MAX &&
                origin->range.first <= range.first && range.first > td_coverage_reached(origin) &&
                !td_coverage_lack_at(origin->lacks, origin->lack_count, range.first)) {
                td_sender_asked(peer, origin); /* on its way anyway, be it no more of our own */
                continue;
            }
            if ((err = td_sender_add(peer, origin, range.first, range.last, 0)) != TANDEM_OK)
                return err;
            td_ways_seek(peer, origin, range.last);
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
static tandem_err take_cover(void *context, const td_wire_cover *cover)
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

/* ---- Jobs ---- */

static void finished(void *context, tandem_job_handle *handle, uint64_t detail)
{
    td_peer *peer = context;

    if (handle->status == TANDEM_JOB_APPLIED) {
        peer->sent_operations += handle->operations;
        peer->exchanged_bytes += handle->bytes;
    }
    td_sender_finished(peer, handle, detail);
    td_peer_tick_at(peer, 0);
}

/* What is refused for good stays until it is kept. What follows from that does not wait for it. */
static bool stays(void *context, tandem_job_handle *handle)
{
    if (!td_dead_letters_take(context, handle))
        return false;
    finished(context, handle, handle->detail);
    return true;
}

static void deliver(void *context, td_delivery *delivery);

static void take_error(void *context, const td_wire_error *error)
{
    td_peer *peer = context;

    td_log(peer->sync->env, TANDEM_LOG_WARNING, "sync", "the peer ended the session: %.*s",
           (int)error->text.size, (const char *)error->text.bytes);
    if (error->err == TANDEM_E_COPY)
        td_copies_told(peer);
    if (error->retry_after_ms)
        td_channel_retry_floor(peer->channel,
                               error->retry_after_ms < 3600000 ? error->retry_after_ms : 3600000);
}

const td_session_user td_peer_user = {
    .may_greet = may_greet,
    .hello = say_hello,
    .peer_hello = take_hello,
    .peer_have = take_have,
    .peer_pull = take_pull,
    .peer_cover = take_cover,
    .announce = td_announcer_next,
    .heartbeat = td_announcer_heartbeat,
    .deliver = deliver,
    .stays = stays,
    .finished = finished,
    .peer_error = take_error,
};

/* ---- Deliveries ---- */

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

static void deliver(void *context, td_delivery *delivery)
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
        origin_of(peer, collection, handle->origin, &origin) != TANDEM_OK)
        return NULL;
    return origin;
}

/*
 * The peer itself holds what it sent, also if we could not keep it. Where we did, no announcement to it is
 * needed: its ACK says so, if it follows what the peer was told, and did not come through a filter.
 */
static void note_sender(td_peer *peer, const tandem_job_handle *handle, const td_remote_job *job)
{
    td_origin_cover *origin = cover_of(peer, handle);

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

/* Does something that is wanted stand behind everything that was known to be held there? */
static bool wants_last(const td_origin_cover *origin)
{
    for (unsigned i = 0; i < origin->our_lack_count; i++)
        if (origin->our_lacks[i].reason == TANDEM_OK && !origin->our_lacks[i].followed)
            return true;
    return false;
}

/* Through a filter it is in step only when COVER has come. And whoever gave what follows something that is
 * wanted holds that, though it may never announce it. */
static void look_at_delivered(td_peer *peer, const tandem_job_handle *handle)
{
    td_origin_cover *origin = cover_of(peer, handle);

    if (origin && (td_way_in_has_filter(peer) || wants_last(origin)))
        td_puller_look(peer, origin);
}

static void count_job(td_peer *peer, const tandem_job_handle *handle, const td_remote_job *job)
{
    td_collection_cover *collection = td_coverage_find(&peer->coverage, handle->collection);
    td_origin_cover *origin =
        collection ? td_coverage_find_origin(collection, handle->origin) : NULL;

    peer->received_operations += job->count;
    peer->exchanged_bytes += handle->bytes;
    peer->duplicate_operations += job->result.duplicates;
    if (!memcmp(handle->origin, own_origin(peer), TANDEM_ORIGIN_BYTES) ||
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

    peer->deliveries--;
    peer->sync->deliveries--;
    for (uint32_t i = 0; i < delivery->count; i++) {
        const td_remote_job *job = &delivery->jobs[i];
        const tandem_job_handle *handle = delivery->handles[i];
        bool goes_on;

        if (!handle)
            continue;
        note_sender(peer, handle, job);
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
        look_at_delivered(peer, handle);
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
        origin_of(peer, collection, origin_id, &origin) != TANDEM_OK ||
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
    if (origin_of(peer, collection, origin_id, &origin) != TANDEM_OK)
        return;
    forked = look_at_ours(peer, origin, seq);
    look_at_lacks(peer, origin, seq);
    if (origin->lacking)
        origin->lacking_since_ms = td_sync_now_ms(peer->sync); /* it is coming */
    if (origin->lacking || forked)
        td_puller_look(peer, origin);
    /* What another one wrote under our origin is here now: ours follows it from here on. */
    if (collection->known && !origin->lacking && !origin->range.active &&
        !memcmp(origin_id, own_origin(peer), TANDEM_ORIGIN_BYTES))
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
        !collection->known || origin_of(peer, collection, own_origin(peer), &origin) != TANDEM_OK)
        return;
    td_coverage_set_ours(&peer->coverage, origin, seq);
    if (td_ways_part(peer, origin))
        td_sender_add(peer, origin, 1, UINT64_MAX, 0);
    else if (!origin->range.active && !origin->lacking)
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

/* ---- The end ---- */

/* The session is over: what was known of the peer is told again next time. */
void td_peer_closed(void *context, tandem_err err, const char *text)
{
    td_peer *peer = context;

    td_remote_keep_held(peer);
    td_dead_letters_closed(peer);
    td_puller_forget(peer);
    if (!td_planted(TD_PLANTED_COVERAGE_KEPT))
        td_coverage_release(&peer->coverage);
    peer->said_hello = false;
    td_peer_forget_shares(peer);
    peer->identity = NULL;
    peer->all_sent = peer->digests_wanted = peer->digests_sent = false;
    peer->digests_after[0] = 0;
    peer->peer_all_known = peer->peer_listed = false;
    peer->all_ordinal = 0;
    peer->listings = peer->sending = NULL;
    peer->announce_at_ms = 0;
    peer->covers_due = peer->refused_in_part = false;
    peer->asked_ranges = peer->refused_ranges = 0;
    peer->troubled = false;
    peer->last_err = err;
    snprintf(peer->last_text, sizeof(peer->last_text), "%s", text);
    assert(!peer->asks && !peer->ask_queue);
    /* One that broke the rules; trouble of the network and duplicate sessions are nobody's fault. */
    if (!peer->is_remote && err < 0 && !tandem_err_is_transient(err) && err != TANDEM_E_CLOSED)
        peer->sync->rejected++;
    if (err != TANDEM_OK && err != TANDEM_E_DUPLICATE_SESSION)
        td_log(peer->sync->env, TANDEM_LOG_INFO, "sync", "session with %s over: %s (%s)",
               peer->is_remote ? peer->record.name : "an inbound peer", text,
               tandem_err_name(err));
    if (peer->redial)
        td_channel_poke(peer->channel);
    peer->redial = false;
    td_peer_tick_at(peer, 0);
}
