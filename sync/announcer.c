/*
 * What a peer is told: digests, listings, changes, and what it is asked for. Nothing is queued: each
 * HAVE is made from the store when there is room to send it, so it is as new as can be.
 */
#include <utlist.h>

#include "store/planted.h"
#include "store/probe.h"
#include "sync/sync_manager.h"

enum { DIGESTS_PAGE = TD_HAVE_PAGE_ENTRIES_MAX / 4 };

size_t td_announcer_begin_have(td_peer *peer, uint64_t number, td_have_level level,
                               tandem_writer *out, size_t *more_at_out)
{
    uint64_t promise = 0;

    /* Every operation made from now on is dated after what the last commit kept. */
    if (td_op_store_clock(peer->sync->ops, &promise) != TANDEM_OK)
        promise = 0;
    return td_wire_begin_have(out, number, td_executor_clock(peer->sync->executor), promise, level,
                              more_at_out);
}

static tandem_err announce_all(td_peer *peer, uint64_t number, tandem_writer *out)
{
    uint8_t digest[TANDEM_HASH_BYTES];
    uint64_t count, promise;
    tandem_err err;

    if ((err = td_sync_digest_all(peer, &count, digest)) != TANDEM_OK ||
        (err = td_op_store_clock(peer->sync->ops, &promise)) != TANDEM_OK)
        return err;
    td_wire_write_have_all(out, number, td_executor_clock(peer->sync->executor), promise, count,
                           digest);
    peer->all_sent = true;
    return TANDEM_OK;
}

/* The digests of a page of names, of those that are to be told. */
static tandem_err write_digests(td_peer *peer, tandem_slice names, tandem_writer *out,
                                uint32_t *count)
{
    tandem_err err = TANDEM_OK;

    for (size_t at = 0; err == TANDEM_OK && at < names.size;) {
        tandem_slice name = tandem_slice_text((const char *)names.bytes + at);
        td_vector_digest vector;

        if (td_way_is_shared(peer, name) && !td_comparing_is_equal(peer, name) &&
            (err = td_sync_digest(peer->sync, name, &vector)) == TANDEM_OK) {
            bool in_part = td_ways_holds_in_part(peer->sync, name);

            td_wire_write_digest(out, name, in_part ? NULL : vector.digest,
                                 peer->knows_ranges && !in_part ? vector.origins : 0);
            (*count)++;
        }
        memcpy(peer->digests_after, name.bytes, name.size);
        peer->digests_after[name.size] = 0;
        at += name.size + 1;
    }
    return err;
}

static tandem_err announce_digests(td_peer *peer, uint64_t number, tandem_writer *out)
{
    size_t count_at, more_at;
    uint32_t count = 0;
    tandem_writer names;
    tandem_err page, err = TANDEM_OK;

    td_comparing_plain_digests(peer);
    tandem_writer_init(&names);
    count_at = td_announcer_begin_have(peer, number, TD_HAVE_DIGESTS, out, &more_at);
    do { /* where ranges are equal, few of a page of names are told */
        page = td_sync_names_after(peer->sync, peer->digests_after, DIGESTS_PAGE, &names);
        if (page != TANDEM_OK && page != TANDEM_END)
            err = page;
        else
            err = write_digests(peer, tandem_writer_slice(&names), out, &count);
    } while (err == TANDEM_OK && page == TANDEM_OK && count < DIGESTS_PAGE);
    tandem_writer_release(&names);
    td_wire_patch_count(out, count_at, count);
    td_wire_patch_bool(out, more_at, page == TANDEM_OK);
    if (page == TANDEM_END) {
        peer->digests_wanted = false;
        peer->digests_sent = true;
    }
    return err;
}

/* Origins of one collection into a listing, as far as a page goes; but those in ranges that were equal. */
struct listing {
    td_collection_cover *collection;
    tandem_writer *out;
    size_t size_max;
    uint32_t count;
};

/* Lacks of the origins of one entry, gathered while those are written. */
struct lack_writing {
    tandem_writer *out;
    uint32_t count;
    const uint8_t *after, *last; /* origins: only those behind the one (NULL: all), up to the other … */
    const td_ranges *ranges;     /* … and not in ranges of these that were equal; NULL: wherever */
};

static tandem_err write_lack(void *context, const uint8_t *origin, const td_lack *lack)
{
    struct lack_writing *writing = context;
    td_wire_refused refused = {
        .origin = origin,
        .first = lack->first,
        .last = lack->last,
        .hash = lack->hash,
        .reason = lack->reason,
        .predecessor = lack->predecessor,
    };

    if (td_planted(TD_PLANTED_LACK_NOT_TOLD))
        return TANDEM_OK;
    if (writing->after && memcmp(origin, writing->after, TANDEM_ORIGIN_BYTES) <= 0)
        return TANDEM_OK;
    if (writing->last && memcmp(origin, writing->last, TANDEM_ORIGIN_BYTES) > 0)
        return TANDEM_END;
    if (writing->ranges && td_ranges_equal(writing->ranges, origin))
        return TANDEM_OK;
    td_wire_write_refused(writing->out, &refused);
    writing->count++;
    return TANDEM_OK;
}

static tandem_err list_origin(void *context, const uint8_t *origin, const td_head *heads,
                              unsigned count)
{
    struct listing *listing = context;
    td_origin_cover *cover;

    if (td_ranges_equal(&listing->collection->ranges, origin))
        return TANDEM_OK;
    if (listing->out->size >= listing->size_max)
        return TANDEM_END;
    td_wire_write_origin(listing->out, origin, heads, count);
    memcpy(listing->collection->listing_after, origin, TANDEM_ORIGIN_BYTES);
    listing->count++;
    cover = td_coverage_find_origin(listing->collection, origin);
    if (cover && count && heads[count - 1].seq > cover->announced_seq)
        cover->announced_seq = heads[count - 1].seq;
    return TANDEM_OK;
}

/* The lacks of the origins of an entry: those behind after (NULL: all) up to last (NULL: all). */
static tandem_err list_lacks(td_peer *peer, const td_collection_cover *collection,
                             const uint8_t *after, const uint8_t *last, tandem_writer *out)
{
    struct lack_writing writing = {
        .out = out, .after = after, .last = last, .ranges = &collection->ranges};
    size_t at = td_wire_begin_refused(out);
    tandem_err err =
        td_op_store_lacks(peer->sync->ops, collection->name, NULL, write_lack, &writing);

    if (err != TANDEM_OK && err != TANDEM_END)
        return err;
    td_wire_patch_count(out, at, writing.count);
    return TANDEM_OK;
}

static tandem_err announce_listings(td_peer *peer, uint64_t number, tandem_writer *out)
{
    size_t start = out->size, count_at;
    uint32_t entries = 0;
    tandem_err err = TANDEM_OK;

    count_at = td_announcer_begin_have(peer, number, TD_HAVE_VECTORS, out, NULL);
    while (peer->listings && out->size - start < TD_HAVE_PAGE_BYTES_MAX &&
           entries < TD_HAVE_PAGE_ENTRIES_MAX) {
        td_collection_cover *collection = peer->listings;
        uint8_t after[TANDEM_ORIGIN_BYTES];
        bool has_after = collection->listing_begun;
        struct listing listing = {.collection = collection,
                                  .out = out,
                                  .size_max = start + TD_HAVE_PAGE_BYTES_MAX};
        size_t origins_at, end_at;
        bool more;

        td_comparing_plain_listing(peer, collection);
        memcpy(after, collection->listing_after, sizeof(after));
        origins_at =
            td_wire_begin_vector(out, collection->name, !collection->listing_begun, &end_at);
        err = td_op_store_vector(peer->sync->ops, collection->name,
                                 collection->listing_begun ? collection->listing_after : NULL,
                                 list_origin, &listing);
        if (err != TANDEM_OK && err != TANDEM_END)
            return err;
        collection->listing_begun = true;
        td_wire_patch_count(out, origins_at, listing.count);
        td_wire_patch_bool(out, end_at, err == TANDEM_OK);
        entries++;
        more = err == TANDEM_END;
        err = list_lacks(peer, collection, has_after ? after : NULL,
                         more ? collection->listing_after : NULL, out);
        if (err != TANDEM_OK)
            return err;
        if (!more && td_ways_holds_in_part(peer->sync, collection->name)) {
            /* Its pairs stand between the first entry and the last. */
            td_wire_patch_bool(out, end_at, false);
            if ((err = td_ways_write_pairs(peer, collection->name, NULL, 0, out, &entries)) !=
                TANDEM_OK)
                return err;
            origins_at = td_wire_begin_vector(out, collection->name, false, &end_at);
            td_wire_patch_count(out, origins_at, 0);
            td_wire_patch_bool(out, end_at, true);
            td_wire_end_vector(out);
            entries++;
        }
        if (!more) {
            LL_DELETE2(peer->listings, collection, next_listing);
            collection->listing_pending = false;
        }
    }
    td_wire_patch_count(out, count_at, entries);
    return TANDEM_OK;
}

static int origin_compare(const td_origin_cover *a, const td_origin_cover *b)
{
    return memcmp(a->origin, b->origin, TANDEM_ORIGIN_BYTES);
}

/* Was the peer told of it, or sent it, and did not refuse it? */
static bool has_head(const td_origin_cover *origin, uint64_t seq)
{
    return seq <= origin->announced_seq ||
           (seq <= origin->sent_seq && seq > origin->passed_seq);
}

/* What has changed since it was announced, except what the peer has from here. */
static tandem_err announce_changes(td_peer *peer, uint64_t number, tandem_writer *out)
{
    size_t start = out->size, count_at;
    uint32_t entries = 0;
    bool full = false;
    bool any_gaps = false;
    tandem_writer lacks, named; /* origins of an entry, to name them in those of its pairs */
    tandem_err err = TANDEM_OK;

    tandem_writer_init(&lacks);
    tandem_writer_init(&named);
    count_at = td_announcer_begin_have(peer, number, TD_HAVE_VECTORS, out, NULL);
    for (td_collection_cover *c = td_hash_table_first(&peer->coverage.collections); c && !full;
         c = td_hash_table_next(&c->hash_entry)) {
        size_t mark = out->size, origins_at = 0, end_at;
        struct lack_writing writing = {.out = &lacks};
        uint32_t origins = 0;

        if (!c->dirty || c->listing_pending)
            continue;
        LL_SORT2(c->dirty, origin_compare, next_dirty);
        tandem_writer_clear(&lacks);
        tandem_writer_clear(&named);
        any_gaps = false;
        origins_at = td_wire_begin_vector(out, c->name, false, &end_at);
        while (c->dirty && !full) {
            td_origin_cover *origin = c->dirty;
            td_head heads[TANDEM_HEADS_MAX];
            unsigned count = 0;
            bool gaps = false;

            if ((err = td_op_store_heads(peer->sync->ops, c->name, origin->origin, heads,
                                         &count)) != TANDEM_OK ||
                (err = td_op_store_has_gaps(peer->sync->ops, c->name, origin->origin, &gaps)) !=
                    TANDEM_OK)
                goto out;
            c->dirty = origin->next_dirty;
            origin->dirty = false;
            if (!gaps && (!count || (count == 1 && has_head(origin, heads[0].seq))))
                continue;
            td_wire_write_origin(out, origin->origin, heads, count);
            any_gaps = any_gaps || gaps;
            tandem_write_raw(&named, tandem_slice_of(origin->origin, TANDEM_ORIGIN_BYTES));
            if (gaps && (err = td_op_store_lacks(peer->sync->ops, c->name, origin->origin,
                                                 write_lack, &writing)) != TANDEM_OK)
                goto out;
            if (count)
                origin->announced_seq = heads[count - 1].seq;
            origins++;
            full = out->size - start >= TD_HAVE_PAGE_BYTES_MAX;
        }
        if (!origins) {
            out->size = mark;
            continue;
        }
        td_wire_patch_count(out, origins_at, origins);
        td_wire_patch_count(out, td_wire_begin_refused(out), writing.count);
        tandem_write_raw(out, tandem_writer_slice(&lacks));
        entries++;
        if (any_gaps &&
            (err = td_ways_write_pairs(peer, c->name, named.bytes, origins, out, &entries)) !=
                TANDEM_OK)
            goto out;
        full = full || entries >= TD_HAVE_PAGE_ENTRIES_MAX;
    }
    err = tandem_writer_err(&lacks);
    if (!full)
        peer->announce_at_ms = 0;
    if (!entries) {
        out->size = start;
        err = TANDEM_END;
        goto out;
    }
    td_wire_patch_count(out, count_at, entries);
    td_probe(peer->sync->env, TD_PROBE_CHANGES_ANNOUNCED);

out:
    tandem_writer_release(&named);
    tandem_writer_release(&lacks);
    return err;
}

tandem_err td_announcer_next(void *context, uint64_t number, tandem_writer *out)
{
    td_peer *peer = context;
    tandem_err err;

    if (!peer->said_hello)
        return TANDEM_END;
    if (!peer->all_sent)
        return announce_all(peer, number, out);
    if ((err = td_comparing_announce(peer, number, out)) != TANDEM_END)
        return err;
    if (peer->digests_wanted && peer->ranges.state != TD_RANGES_OFFERED)
        return announce_digests(peer, number, out);
    if (peer->listings)
        return announce_listings(peer, number, out);
    if (peer->announce_at_ms && td_sync_now_ms(peer->sync) >= peer->announce_at_ms &&
        (err = announce_changes(peer, number, out)) != TANDEM_END)
        return err;
    if (peer->covers_due && !peer->announce_at_ms &&
        (err = td_ways_announce(peer, number, out)) != TANDEM_END)
        return err;
    return td_puller_announce(peer, number, out);
}

void td_announcer_heartbeat(void *context, uint64_t number, tandem_writer *out)
{
    td_peer *peer = context;
    size_t count_at = td_announcer_begin_have(peer, number, TD_HAVE_VECTORS, out, NULL);

    td_wire_patch_count(out, count_at, 0);
}

static void wake(td_peer *peer)
{
    td_session_announce(td_channel_session(peer->channel));
}

void td_announcer_list(td_peer *peer, td_collection_cover *collection)
{
    if (collection->listing_sent || collection->ranges.state == TD_RANGES_OFFER ||
        collection->ranges.state == TD_RANGES_OFFERED) /* it is, when that is settled */
        return;
    collection->listing_sent = collection->listing_pending = true;
    LL_APPEND2(peer->listings, collection, next_listing);
    wake(peer);
}

void td_announcer_want_digests(td_peer *peer)
{
    if (peer->digests_wanted || peer->digests_sent)
        return;
    peer->digests_wanted = true;
    wake(peer);
}

void td_announcer_soon(td_peer *peer)
{
    if (peer->announce_at_ms)
        return;
    peer->announce_at_ms = td_sync_now_ms(peer->sync) + TD_ANNOUNCE_MS;
    td_peer_tick_at(peer, peer->announce_at_ms);
}
