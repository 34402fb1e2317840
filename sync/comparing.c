/*
 * Comparing by ranges (ranges.h): where two stores hold much and differ a little, what is in step of the
 * collections, and then of the origins of one, is found before anything is listed.
 *
 * Nobody need take an offer: who lists everything instead is understood, and the other does so, too.
 * Which ranges differ is settled by the messages alone, so both sides know the same of it, whatever is
 * committed meanwhile. What was equal the peer holds as we held it when our side was computed (position);
 * what came since is told as changes are.
 */
#include <stdlib.h>

#include <utlist.h>

#include "store/planted.h"
#include "store/probe.h"
#include "sync/sync_manager.h"

/* ---- Digests ---- */

struct summing {
    td_peer *peer;
    td_ranges_sum sum;
};

/* What is held in part is equal to nothing: our reactor's id stands for its digest. */
static tandem_err add_collection(void *context, tandem_slice name)
{
    struct summing *summing = context;
    td_peer *peer = summing->peer;
    td_vector_digest vector;
    tandem_err err;

    if (!td_way_is_shared(peer, name))
        return TANDEM_OK;
    if ((err = td_sync_digest(peer->sync, name, &vector)) != TANDEM_OK)
        return err;
    if (td_ways_holds_in_part(peer->sync, name)) {
        memset(vector.digest, 0, sizeof(vector.digest));
        memcpy(vector.digest, peer->identity->reactor, TANDEM_ORIGIN_BYTES);
    }
    td_ranges_add_collection(&summing->sum, name, vector.digest);
    return TANDEM_OK;
}

static tandem_err add_origin(void *context, const uint8_t *origin, const td_head *heads,
                             unsigned count)
{
    struct summing *summing = context;

    for (unsigned i = 0; i < count; i++)
        td_ranges_add_head(&summing->sum, origin, &heads[i]);
    return TANDEM_OK;
}

static tandem_err add_lack(void *context, const uint8_t *origin, const td_lack *lack)
{
    struct summing *summing = context;

    td_ranges_add_lack(&summing->sum, origin, lack);
    return TANDEM_OK;
}

/*
 * Our digests: of the origins of a collection, or (NULL) of all collections. The position first: what is
 * committed in between is in the digests and not behind it, so nothing counts as known that is not.
 */
static tandem_err sum(td_peer *peer, const td_collection_cover *collection, unsigned bits,
                      uint64_t *position_out, uint8_t **out)
{
    td_greeting ours = {peer->identity->reactor, peer->hello_clock};
    td_greeting theirs = {peer->reactor, peer->peer_hello_clock};
    struct summing summing = {.peer = peer};
    td_op_store *ops = peer->sync->ops;
    tandem_err err;

    *position_out = td_executor_position(peer->sync->executor);
    if ((err = td_ranges_begin_sum(&summing.sum, bits, &ours, &theirs)) != TANDEM_OK)
        return err;
    if (!collection) {
        err = td_sync_each_collection(peer->sync, add_collection, &summing);
    } else if ((err = td_op_store_vector(ops, collection->name, NULL, add_origin, &summing)) ==
               TANDEM_OK) {
        err = td_op_store_lacks(ops, collection->name, NULL, add_lack, &summing);
    }
    if (err != TANDEM_OK)
        free(summing.sum.digests);
    else
        *out = summing.sum.digests;
    return err;
}

static td_ranges *ranges_of(td_peer *peer, td_collection_cover *collection)
{
    return collection ? &collection->ranges : &peer->ranges;
}

/* ---- What is equal ---- */

bool td_comparing_is_equal(const td_peer *peer, tandem_slice name)
{
    uint8_t key[TANDEM_HASH_BYTES];

    if (peer->ranges.state != TD_RANGES_SETTLED)
        return false;
    td_hash(key, &name, 1);
    return td_ranges_equal(&peer->ranges, key);
}

/*
 * The peer holds what we held at position; of a collection whose ranges are settled, in those that were
 * equal. Of an origin that has no entry td_peer_origin() knows it. Of a fork that has grown since then
 * seqs say little: it is dirty, and the peer answers a change with its own heads.
 */
static tandem_err acknowledge(td_peer *peer, td_collection_cover *collection, uint64_t position)
{
    td_collection_info info;
    tandem_err err;

    if ((err = td_op_store_collection(peer->sync->ops, collection->name, &info)) != TANDEM_OK)
        return err;
    collection->base_ordinal = position;
    collection->base_in_part = collection->ranges.state == TD_RANGES_SETTLED;
    for (td_origin_cover *o = td_hash_table_first(&collection->origins); o;
         o = td_hash_table_next(&o->hash_entry)) {
        uint64_t seq;

        if (!td_coverage_base(collection, o->origin))
            continue;
        if (info.last_ordinal <= position || td_planted(TD_PLANTED_GROWN_AS_HELD)) {
            td_coverage_acknowledge_all(&peer->coverage, o);
            continue;
        }
        td_probe(peer->sync->env, TD_PROBE_RANGE_GREW);
        if ((err = td_op_store_reached(peer->sync->ops, collection->name, o->origin, position,
                                       &seq)) != TANDEM_OK)
            return err;
        td_coverage_acknowledge(&peer->coverage, o, seq);
    }
    return TANDEM_OK;
}

/* Make one known that has no cover: of our own there is something to send, or a handle to settle. */
static tandem_err make_known(void *context, tandem_slice name)
{
    td_peer *peer = context;
    td_collection_cover *collection;

    if (td_coverage_find(&peer->coverage, name) || !td_way_is_shared(peer, name) ||
        !td_comparing_is_equal(peer, name))
        return TANDEM_OK;
    return td_peer_collection(peer, name, &collection);
}

static tandem_err make_known_if_grown(void *context, tandem_slice name)
{
    const td_peer *peer = context;
    td_collection_info info;
    tandem_err err = td_op_store_collection(peer->sync->ops, name, &info);

    if (err != TANDEM_OK || info.last_ordinal <= peer->ranges.position)
        return err;
    td_probe(peer->sync->env, TD_PROBE_RANGE_GREW);
    return make_known(context, name);
}

/* The handles that wait for what the peer holds. Each that is settled may take others away with it. */
static tandem_err settle_outbox(td_peer *peer)
{
    tandem_job_handle *handle = tandem_mailbox_first(td_channel_outbox(peer->channel));

    while (handle) {
        tandem_err err;

        if (!handle->waiting || handle->refused ||
            td_coverage_find(&peer->coverage, handle->collection) ||
            !td_comparing_is_equal(peer, handle->collection)) {
            handle = handle->next;
            continue;
        }
        if ((err = make_known(peer, handle->collection)) != TANDEM_OK)
            return err;
        handle = tandem_mailbox_first(td_channel_outbox(peer->channel));
    }
    return TANDEM_OK;
}

/* ---- What is settled ---- */

static void wake(td_peer *peer)
{
    td_session_announce(td_channel_session(peer->channel));
}

static tandem_err collections_are_settled(td_peer *peer)
{
    uint64_t position = peer->ranges.position;
    tandem_err err;

    for (td_collection_cover *c = td_hash_table_first(&peer->coverage.collections); c;
         c = td_hash_table_next(&c->hash_entry))
        if (!c->known && td_comparing_is_equal(peer, c->name) &&
            ((err = acknowledge(peer, c, position)) != TANDEM_OK ||
             (err = td_peer_knows(peer, c)) != TANDEM_OK))
            return err;
    if (!peer->peer_all_known &&
        ((err = settle_outbox(peer)) != TANDEM_OK ||
         (td_executor_position(peer->sync->executor) > position &&
          (err = td_sync_each_collection(peer->sync, make_known_if_grown, peer)) != TANDEM_OK)))
        return err;
    td_announcer_want_digests(peer);
    wake(peer); /* they may have waited for this */
    return TANDEM_OK;
}

static tandem_err are_settled(td_peer *peer, td_collection_cover *collection)
{
    tandem_err err;

    td_probe(peer->sync->env, TD_PROBE_RANGES_SETTLED);
    if (!collection)
        return collections_are_settled(peer);
    if (!collection->known &&
        (err = acknowledge(peer, collection, collection->ranges.position)) != TANDEM_OK)
        return err;
    td_announcer_list(peer, collection);
    return TANDEM_OK;
}

/* ---- Deciding ---- */

static void tell(td_peer *peer, td_collection_cover *collection)
{
    if (collection && !collection->comparing) {
        collection->comparing = true;
        LL_APPEND2(peer->comparing, collection, next_comparing);
    }
    wake(peer);
}

static void tell_no_more(td_peer *peer, td_collection_cover *collection)
{
    if (!collection || !collection->comparing)
        return;
    collection->comparing = false;
    LL_DELETE2(peer->comparing, collection, next_comparing);
}

void td_comparing_collections(td_peer *peer, uint64_t ours, uint64_t theirs)
{
    unsigned bits = peer->knows_ranges ? td_ranges_bits(peer->sync->ranges_least, ours, theirs) : 0;

    if (bits && peer->ranges.state == TD_RANGES_NONE && !peer->digests_wanted) {
        peer->ranges.state = TD_RANGES_OFFER;
        peer->ranges.bits = bits;
    }
    td_announcer_want_digests(peer);
}

void td_comparing_origins(td_peer *peer, td_collection_cover *collection, uint64_t ours,
                          uint64_t theirs)
{
    unsigned bits = peer->knows_ranges ? td_ranges_bits(peer->sync->ranges_least, ours, theirs) : 0;

    if (bits && collection->ranges.state == TD_RANGES_NONE && !collection->listing_sent) {
        collection->ranges.state = TD_RANGES_OFFER;
        collection->ranges.bits = bits;
        tell(peer, collection);
    }
    td_announcer_list(peer, collection);
}

static void be_plain(td_peer *peer, td_collection_cover *collection)
{
    td_ranges *ranges = ranges_of(peer, collection);

    if (ranges->state == TD_RANGES_SETTLED || ranges->state == TD_RANGES_PLAIN)
        return;
    if (ranges->state != TD_RANGES_NONE) {
        td_probe(peer->sync->env, TD_PROBE_RANGES_GIVEN_UP);
        wake(peer); /* all digests may have waited for this */
    }
    td_ranges_give_up(ranges);
    tell_no_more(peer, collection);
}

void td_comparing_plain_digests(td_peer *peer)
{
    be_plain(peer, NULL);
}

void td_comparing_plain_listing(td_peer *peer, td_collection_cover *collection)
{
    be_plain(peer, collection);
}

/* ---- What the peer tells ---- */

/* Is the peer's offer to be compared with what we hold, or do we rather list all? */
static tandem_err is_worth_it(td_peer *peer, const td_collection_cover *collection, bool *out)
{
    td_vector_digest vector;
    tandem_err err;

    *out = true;
    if (!collection)
        return TANDEM_OK; /* HAVE level 0 has told how many collections there are */
    if ((err = td_sync_digest(peer->sync, collection->name, &vector)) == TANDEM_OK)
        *out = vector.origins >= peer->sync->ranges_least &&
               !td_ways_holds_in_part(peer->sync, collection->name);
    return err;
}

static tandem_err take_offer(td_peer *peer, td_collection_cover *collection,
                             const td_wire_ranges *offer)
{
    td_ranges *ranges = ranges_of(peer, collection);
    bool worth_it, meets = ranges->state == TD_RANGES_OFFERED;
    tandem_err err;

    if (ranges->state == TD_RANGES_SETTLED)
        return TANDEM_E_PROTOCOL; /* once a session */
    if (ranges->state == TD_RANGES_PLAIN)
        return TANDEM_OK; /* what we list has crossed it, or is to come */
    if (!meets) {
        if ((err = is_worth_it(peer, collection, &worth_it)) != TANDEM_OK)
            return err;
        if (!worth_it) {
            be_plain(peer, collection);
            td_announcer_list(peer, collection);
            return TANDEM_OK;
        }
        if ((err = sum(peer, collection, offer->bits, &ranges->position, &ranges->digests)) !=
            TANDEM_OK)
            return err;
        ranges->bits = offer->bits;
        ranges->answers = true;
        tell(peer, collection);
    }
    if ((err = td_ranges_meet(ranges, offer->bytes, offer->bits)) != TANDEM_OK)
        return err;
    td_probe(peer->sync->env, meets ? TD_PROBE_RANGES_CROSSED : TD_PROBE_RANGES_ANSWERED);
    return are_settled(peer, collection);
}

static tandem_err take_answer(td_peer *peer, td_collection_cover *collection,
                              const td_wire_ranges *answer)
{
    td_ranges *ranges = ranges_of(peer, collection);
    tandem_err err;

    if (ranges->state != TD_RANGES_OFFERED || ranges->bits != answer->bits)
        return TANDEM_E_PROTOCOL;
    if ((err = td_ranges_settle(ranges, answer->bytes)) != TANDEM_OK)
        return err;
    return are_settled(peer, collection);
}

static tandem_err take_ranges(td_peer *peer, const td_wire_ranges *entry)
{
    td_collection_cover *collection = NULL;
    tandem_err err;

    if (entry->has_name) {
        if (!td_collection_name_valid(entry->name) || !td_way_is_shared(peer, entry->name))
            return TANDEM_OK; /* reserved, or none of this session's */
        if ((err = td_peer_collection(peer, entry->name, &collection)) != TANDEM_OK ||
            (!collection && (err = td_coverage_collection(&peer->coverage, entry->name,
                                                          &collection)) != TANDEM_OK))
            return err;
    }
    return entry->is_answer ? take_answer(peer, collection, entry)
                            : take_offer(peer, collection, entry);
}

tandem_err td_comparing_take(td_peer *peer, const td_wire_have *have)
{
    tandem_reader entries = have->entries;
    tandem_err err = TANDEM_OK;

    /* The peer compares what differs by our digest over all. */
    if (!peer->knows_ranges || !peer->all_sent)
        return TANDEM_E_PROTOCOL;
    for (uint32_t i = 0; err == TANDEM_OK && i < have->entry_count; i++) {
        td_wire_ranges entry;

        if ((err = td_wire_read_ranges(&entries, &entry)) == TANDEM_OK)
            err = take_ranges(peer, &entry);
    }
    return err;
}

/* ---- What the peer is told ---- */

/* Our offer, or our answer. */
static tandem_err write_ranges(td_peer *peer, td_collection_cover *collection, tandem_writer *out)
{
    td_ranges *ranges = ranges_of(peer, collection);
    td_wire_ranges entry = {.has_name = collection, .bits = ranges->bits};
    uint64_t position;
    uint8_t *digests;
    tandem_err err;

    if (collection)
        entry.name = collection->name;
    if (ranges->state == TD_RANGES_OFFER) {
        if ((err = sum(peer, collection, ranges->bits, &position, &digests)) != TANDEM_OK)
            return err;
        td_ranges_offer(ranges, position, digests);
        td_probe(peer->sync->env, TD_PROBE_RANGES_OFFERED);
        entry.bytes = ranges->digests;
    } else {
        ranges->answers = false;
        entry.is_answer = true;
        entry.bytes = ranges->differ;
    }
    td_wire_write_ranges(out, &entry);
    return TANDEM_OK;
}

static bool is_due(const td_ranges *ranges)
{
    return ranges->answers || ranges->state == TD_RANGES_OFFER;
}

tandem_err td_comparing_announce(td_peer *peer, uint64_t number, tandem_writer *out)
{
    size_t start = out->size, count_at;
    uint32_t count = 0;
    tandem_err err = TANDEM_OK;

    if (!is_due(&peer->ranges) && !peer->comparing)
        return TANDEM_END;
    count_at = td_announcer_begin_have(peer, number, TD_HAVE_RANGES, out, NULL);
    if (is_due(&peer->ranges)) {
        err = write_ranges(peer, NULL, out);
        count++;
    }
    while (err == TANDEM_OK && peer->comparing && out->size - start < TD_HAVE_PAGE_BYTES_MAX &&
           count < TD_HAVE_PAGE_ENTRIES_MAX) {
        td_collection_cover *collection = peer->comparing;

        if (collection->ranges.state == TD_RANGES_OFFER &&
            td_ways_holds_in_part(peer->sync, collection->name)) {
            be_plain(peer, collection); /* it has come to be since */
            td_announcer_list(peer, collection);
            continue;
        }
        tell_no_more(peer, collection);
        err = write_ranges(peer, collection, out);
        count++;
    }
    if (err == TANDEM_OK && !count) {
        out->size = start;
        return TANDEM_END;
    }
    td_wire_patch_count(out, count_at, count);
    return err;
}

void td_comparing_forget(td_peer *peer)
{
    td_ranges_release(&peer->ranges);
    peer->comparing = NULL;
    peer->knows_ranges = false;
}
