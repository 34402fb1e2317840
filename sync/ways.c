/*
 * The ways of a session that do not carry everything (store/share.h): what of a collection is in them,
 * what a peer that holds it in part has already, and up to where we have given it all (COVER).
 * transport/PROTOCOL.md, section 6, has the rules.
 *
 * A chain that has not forked is told of by seqs. Of a fork those say nothing, so heads are compared:
 *
 *   parted     a head of the peer's stands at a seq where we hold another operation: all of ours is given,
 *              from the beginning
 *   claimed    a head of the peer's lies beyond ours: when ours have come that far it is looked at again
 *   passed     our heads up to which a fork was given, as a whole or not at all; paired: those that a pair
 *              of the peer's names
 *   vague      we have several heads, and the peer one that a filter keeps from us: what it has behind
 *              that is not known, and it is not counted as lacking there
 *   told       heads that a COVER named, believed in its session whatever our pair keeps
 *   sought     the end of a lack, which was asked for: a COVER that names it says that nothing more of it is
 *              in the way
 */
#include <utlist.h>

#include "store/probe.h"
#include "sync/sync_manager.h"

bool td_way_is_shared(const td_peer *peer, tandem_slice collection)
{
    return td_share_has(td_peer_gives(peer), collection) ||
           td_share_has(td_peer_takes(peer), collection);
}

/* Has a way a filter, so that what it carries leaves gaps? */
static bool has_filter(const td_share *way)
{
    return !td_share_is_nothing(way) && !td_filter_is_all(&way->filter);
}

bool td_way_in_has_filter(const td_peer *peer)
{
    return has_filter(td_peer_takes(peer));
}

bool td_way_out_has_filter(const td_peer *peer)
{
    return has_filter(td_peer_gives(peer));
}

/* ---- What a peer has in part ---- */

enum where { BEHIND, BEYOND, ASIDE };

/* Where does a head of a pair stand: before what we hold, further on, or is it of another branch? */
static enum where where_is(td_peer *peer, const td_collection_cover *collection,
                           const uint8_t *origin, const td_head *head)
{
    td_op_store *ops = peer->sync->ops;
    uint64_t ordinal;
    bool held;

    if (td_op_store_holds(ops, collection->name, origin, head->seq, head->hash, &held) ==
            TANDEM_OK &&
        held)
        return BEHIND;
    return td_op_store_at(ops, collection->name, origin, head->seq, &ordinal) == TANDEM_OK ? ASIDE
                                                                                           : BEYOND;
}

/* The same of a head up to which the peer has all that is in the way: one that is held loose is of another
 * branch where ours has come that far. */
static enum where where_claimed_is(td_peer *peer, const td_origin_cover *origin, const td_head *head)
{
    td_op_store *ops = peer->sync->ops;
    tandem_slice name = origin->collection->name;
    enum where where = where_is(peer, origin->collection, origin->origin, head);
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;
    bool reaches;

    if (where != BEHIND ||
        td_op_store_reaches(ops, name, origin->origin, head->seq, head->hash, &reaches) !=
            TANDEM_OK ||
        reaches || td_op_store_heads(ops, name, origin->origin, heads, &count) != TANDEM_OK)
        return where;
    return count && heads[count - 1].seq >= head->seq ? ASIDE : BEYOND;
}

/* The peer has what is in the way up to this head. */
static enum where claim(td_peer *peer, td_origin_cover *origin, const td_head *head)
{
    enum where where = where_claimed_is(peer, origin, head);

    if (where == ASIDE)
        td_coverage_part(&peer->coverage, origin);
    else if (where == BEYOND)
        origin->claimed = *head;
    return where;
}

void td_ways_take_heads(td_peer *peer, td_origin_cover *origin)
{
    if (!td_way_out_has_filter(peer))
        return;
    for (unsigned i = 0; i < origin->head_count; i++)
        claim(peer, origin, &origin->heads[i]);
}

bool td_ways_part(td_peer *peer, td_origin_cover *origin)
{
    enum where where;

    if (!origin->claimed.seq || origin->parted)
        return false;
    where = where_claimed_is(peer, origin, &origin->claimed);
    if (where != BEYOND)
        origin->claimed.seq = 0;
    if (where == ASIDE)
        td_coverage_part(&peer->coverage, origin);
    return where == ASIDE;
}

/* Through the filter of our way the peer has all up to these heads: a pair of it says so, or we gave it. The pair
 * may say less: it ends before what we lack ourselves. */
static tandem_err pass(td_peer *peer, td_origin_cover *cover, const td_head *heads, unsigned count,
                       bool is_paired)
{
    td_head ours[TANDEM_HEADS_MAX];
    unsigned our_count = 0;
    tandem_err err;

    td_coverage_pass(&peer->coverage, cover, heads[0].seq);
    if ((err = td_op_store_heads(peer->sync->ops, cover->collection->name, cover->origin, ours,
                                 &our_count)) != TANDEM_OK)
        return err;
    /* Also where it has not forked: once it has, the peer has this branch already. */
    err = is_paired ? td_coverage_pair_heads(cover, heads, count)
                    : td_coverage_pass_heads(cover, heads, count);
    if (err == TANDEM_OK && our_count > 1)
        td_coverage_set_our_heads(&peer->coverage, cover, ours, our_count);
    return err;
}

void td_ways_filled(td_peer *peer, td_origin_cover *origin, uint64_t first)
{
    td_send_range *range = &origin->range;
    const td_pair_cover *pair;
    uint64_t kept = first - 1, seq;
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;

    if (!td_way_out_has_filter(peer))
        return;
    LL_FOREACH(origin->collection->pairs, pair)
        if (td_filter_includes(&pair->filter, &td_peer_gives(peer)->filter) &&
            (seq = td_pair_cover_seq(pair, origin->origin)) > kept)
            kept = seq;
    td_coverage_pass_back(&peer->coverage, origin, kept);
    td_coverage_pass_heads(origin, NULL, 0);
    if (td_op_store_heads(peer->sync->ops, origin->collection->name, origin->origin, heads, &count) ==
            TANDEM_OK &&
        count > 1)
        td_coverage_set_our_heads(&peer->coverage, origin, heads, count);
    origin->asked_sent = false;
    if (range->next_seq > first && (!range->failed_seq || first < range->failed_seq))
        range->failed_seq = first;
}

tandem_err td_ways_take_pair(td_peer *peer, td_collection_cover *collection,
                             const td_wire_vector *entry)
{
    tandem_reader origins = entry->origins;
    td_pair_cover *pair;
    bool is_way;
    tandem_err err;

    if ((err = td_pair_cover_of(&collection->pairs, entry->filter, &pair)) != TANDEM_OK)
        return err == TANDEM_E_LIMIT ? TANDEM_OK : err; /* what it covers may come twice */
    is_way = td_way_out_has_filter(peer) &&
             td_filter_includes(&pair->filter, &td_peer_gives(peer)->filter);
    for (uint32_t i = 0; i < entry->origin_count; i++) {
        td_origin_cover *cover;
        td_wire_origin origin;
        enum where where;
        size_t known;

        if ((err = td_wire_read_origin(&origins, &origin)) != TANDEM_OK)
            return err;
        if (!origin.head_count)
            continue;
        if (is_way && (err = td_coverage_origin(&peer->coverage, collection, origin.origin,
                                                &cover)) != TANDEM_OK)
            return err;
        if (origin.head_count > 1)
            where = BEHIND;
        else if (is_way)
            where = claim(peer, cover, &origin.heads[0]);
        else
            where = where_is(peer, collection, origin.origin, &origin.heads[0]);
        /* What lies beyond ours may be of another branch: better twice than not at all. */
        if (where == ASIDE || (where == BEYOND && !is_way))
            continue;
        /* Of several heads the lowest: nothing is taken for covered that may not be. */
        known = td_hash_table_count(&pair->origins);
        if (peer->coverage.pair_origins >= TD_COVERS_MAX)
            return TANDEM_E_LIMIT;
        if ((err = td_pair_cover_set(pair, origin.origin, origin.heads[0].seq)) != TANDEM_OK)
            return err;
        peer->coverage.pair_origins += td_hash_table_count(&pair->origins) - known;
        /* Our lacks, to know when one is filled. */
        if (is_way && ((err = td_wants_load(peer, cover)) != TANDEM_OK ||
                       (err = pass(peer, cover, origin.heads, origin.head_count, true)) != TANDEM_OK))
            return err;
    }
    return TANDEM_OK;
}

bool td_way_out_has(const td_peer *peer, const td_collection_cover *collection,
                    const td_operation *operation)
{
    const td_origin_cover *origin;
    const td_pair_cover *pair;

    if (!td_share_matches(td_peer_gives(peer), operation))
        return false;
    if (!collection->pairs)
        return true;
    /* Of a fork a seq does not say which branch is covered; what is lacking there no pair covers; and who asks
     * again knows better. */
    origin = td_coverage_find_origin((td_collection_cover *)collection, operation->origin);
    if (origin && (origin->unmet || origin->vague || origin->parted || origin->range.whole ||
                   td_coverage_lack_at(origin->lacks, origin->lack_count, operation->seq)))
        return true;
    LL_FOREACH(collection->pairs, pair)
        if (operation->seq <= td_pair_cover_seq(pair, operation->origin) &&
            td_filter_matches(&pair->filter, operation))
            return false;
    return true;
}

/* ---- COVER: what we have given ---- */

void td_ways_progressed(td_peer *peer)
{
    if (!td_way_out_has_filter(peer) || peer->covers_due)
        return;
    peer->covers_due = true;
    td_announcer_soon(peer);
}

/* The first seq of an origin that is on its way to the peer; UINT64_MAX: none. */
static uint64_t first_on_its_way(td_peer *peer, const td_origin_cover *origin)
{
    uint64_t first = UINT64_MAX;

    for (tandem_job_handle *h = tandem_mailbox_first(td_channel_outbox(peer->channel)); h;
         h = h->next)
        if (h->first_seq < first && !h->refused &&
            !memcmp(h->origin, origin->origin, TANDEM_ORIGIN_BYTES) &&
            tandem_slice_equal(h->collection, origin->collection->name))
            first = h->first_seq;
    return first;
}

/* Everything of an origin in the way has been sent, and acknowledged, up to this seq; 0: not known. */
static uint64_t given_up_to(td_peer *peer, const td_origin_cover *origin)
{
    const td_send_range *range = &origin->range;
    uint64_t reached = td_coverage_reached(origin), seq = range->next_seq ? range->next_seq - 1 : 0;
    uint64_t on_its_way;

    if (range->failed_seq && range->failed_seq <= seq)
        seq = range->failed_seq - 1;
    if (range->first > reached + 1 || seq <= reached)
        return 0; /* most of them: before the outbox is gone through */
    on_its_way = first_on_its_way(peer, origin);
    if (on_its_way <= seq)
        seq = on_its_way - 1;
    return seq > reached ? seq : 0;
}

struct hash_reading {
    uint64_t ordinal;
    td_head *out;
    bool found;
};

static tandem_err read_hash(void *context, tandem_err err, uint64_t ordinal,
                            const td_operation *operation)
{
    struct hash_reading *reading = context;

    if (err == TANDEM_OK && ordinal == reading->ordinal) {
        memcpy(reading->out->hash, operation->hash, TANDEM_HASH_BYTES);
        reading->found = true;
    }
    return TANDEM_END;
}

/* The operation that we hold at a seq, on the way to our head. False also if it cannot be told. */
static bool head_at(td_peer *peer, const td_origin_cover *origin, uint64_t seq, td_head *out)
{
    td_op_store *ops = peer->sync->ops;
    tandem_slice name = origin->collection->name;
    struct hash_reading reading = {.out = out};
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;
    bool reaches;

    if (td_op_store_heads(ops, name, origin->origin, heads, &count) == TANDEM_OK && count == 1 &&
        heads[0].seq == seq) {
        *out = heads[0];
        return true;
    }
    out->seq = seq;
    if (td_op_store_at(ops, name, origin->origin, seq, &reading.ordinal) != TANDEM_OK)
        return false;
    td_op_store_scan(ops, name, reading.ordinal - 1, read_hash, &reading);
    return reading.found && td_op_store_reaches(ops, name, origin->origin, seq, out->hash,
                                                &reaches) == TANDEM_OK && reaches;
}

void td_ways_seek(td_peer *peer, td_origin_cover *origin, uint64_t last)
{
    const td_lack *lack = td_coverage_lack_at(origin->lacks, origin->lack_count, last);

    origin->sought.seq = 0;
    origin->sought_sent = false;
    if (!td_way_out_has_filter(peer) || !lack || lack->last != last)
        return;
    origin->sought.seq = lack->last;
    memcpy(origin->sought.hash, lack->hash, TANDEM_HASH_BYTES);
    if (td_op_store_holds(peer->sync->ops, origin->collection->name, origin->origin, lack->last,
                          lack->hash, &origin->sought_held) != TANDEM_OK)
        origin->sought.seq = 0;
}

void td_ways_sent(td_peer *peer, td_origin_cover *origin)
{
    if (!origin->sought.seq)
        return;
    origin->sought_sent = true;
    td_ways_progressed(peer);
}

/* May the end of the lack that the peer asked for be held here now? */
static bool may_hold_sought(td_peer *peer, const td_origin_cover *origin)
{
    bool held;

    return td_op_store_holds(peer->sync->ops, origin->collection->name, origin->origin,
                             origin->sought.seq, origin->sought.hash, &held) != TANDEM_OK || held;
}

/* Was all given that is in the way of the lack that the peer asked for? Who lacks some of it cannot tell, nor
 * who has come to hold its end since: that was not sent. */
static bool is_sought_given(td_peer *peer, td_origin_cover *origin)
{
    const td_send_range *range = &origin->range;
    const td_lack *lack = NULL;

    for (unsigned i = 0; i < origin->lack_count && origin->sought_sent && !lack; i++)
        if (origin->lacks[i].last == origin->sought.seq &&
            !memcmp(origin->lacks[i].hash, origin->sought.hash, TANDEM_HASH_BYTES) &&
            (origin->sought_held || !may_hold_sought(peer, origin)))
            lack = &origin->lacks[i];
    for (unsigned i = 0; i < origin->our_lack_count && lack; i++)
        if (origin->our_lacks[i].first <= lack->last && origin->our_lacks[i].last >= lack->first)
            return false;
    return lack && range->blocked == TANDEM_OK && range->retry_err == TANDEM_OK &&
           !range->failed_seq && !origin->asked_failed &&
           first_on_its_way(peer, origin) > origin->sought.seq;
}

/* The heads up to which all that is in the way was given now; 0: nothing new. A fork is given as a whole
 * or not at all. */
static unsigned given(td_peer *peer, td_origin_cover *origin, td_head heads[TANDEM_HEADS_MAX])
{
    const td_send_range *range = &origin->range;
    uint64_t seq;

    /* One that was filled just now was not sent. */
    if (range->blocked != TANDEM_OK || range->retry_err != TANDEM_OK ||
        (origin->our_lack_count && td_wants_load(peer, origin) != TANDEM_OK))
        return 0;
    if (origin->unmet || origin->vague) {
        if (!origin->asked_sent || range->failed_seq ||
            first_on_its_way(peer, origin) != UINT64_MAX)
            return 0;
        origin->asked_sent = false;
        memcpy(heads, origin->asked, origin->asked_count * sizeof(heads[0]));
        return origin->asked_count;
    }
    /* What was filled since then moves it back. */
    if (!given_up_to(peer, origin) || td_wants_load(peer, origin) != TANDEM_OK)
        return 0;
    seq = given_up_to(peer, origin);
    return seq && head_at(peer, origin, seq, &heads[0]) ? 1 : 0;
}

/* One thing at a time. */
static unsigned to_tell(td_peer *peer, td_origin_cover *origin, td_head heads[TANDEM_HEADS_MAX])
{
    unsigned count;

    if (is_sought_given(peer, origin)) {
        heads[0] = origin->sought;
        origin->sought.seq = 0;
        origin->sought_sent = false;
        td_ways_progressed(peer);
        return 1;
    }
    if ((count = given(peer, origin, heads)))
        pass(peer, origin, heads, count, false);
    return count;
}

static uint32_t cover_collection(td_peer *peer, td_collection_cover *collection, tandem_writer *out)
{
    uint32_t count = 0;
    size_t at = 0;

    for (td_origin_cover *o = td_hash_table_first(&collection->origins); o;
         o = td_hash_table_next(&o->hash_entry)) {
        td_head heads[TANDEM_HEADS_MAX];
        unsigned head_count = to_tell(peer, o, heads);

        if (!head_count)
            continue;
        if (!count)
            at = td_wire_begin_cover_collection(out, collection->name);
        td_wire_write_origin(out, o->origin, heads, head_count);
        count++;
    }
    if (count)
        td_wire_patch_count(out, at, count);
    return count;
}

tandem_err td_ways_announce(td_peer *peer, uint64_t number, tandem_writer *out)
{
    size_t start = out->size, at;
    uint32_t count = 0;

    peer->covers_due = false;
    if (!td_way_out_has_filter(peer))
        return TANDEM_END;
    at = td_wire_begin_cover(out, number);
    for (td_collection_cover *c = td_hash_table_first(&peer->coverage.collections);
         c && out->size - start < TD_HAVE_PAGE_BYTES_MAX; c = td_hash_table_next(&c->hash_entry))
        if (c->known && td_share_has(td_peer_gives(peer), c->name))
            count += cover_collection(peer, c, out) > 0;
    if (!count) {
        out->size = start;
        return TANDEM_END;
    }
    td_wire_patch_count(out, at, count);
    td_probe(peer->sync->env, TD_PROBE_COVER_SENT);
    return TANDEM_OK;
}

/* ---- What we hold in part ---- */

struct reach {
    tandem_sync *sync;
    const td_origin_cover *origin;
    const td_filter *way;
    uint64_t seq;
    const td_head *head; /* is this one covered? … */
    bool covered;        /* … it is */
};

static tandem_err look_at_pair(void *context, tandem_slice filter, uint64_t ordinal)
{
    struct reach *reach = context;
    td_head heads[TANDEM_HEADS_MAX];
    td_filter pair = TD_FILTER_ALL;
    unsigned count = 0;
    tandem_err err;

    (void)ordinal;
    if ((err = td_filter_decode(filter, &pair)) != TANDEM_OK)
        return err;
    if (td_filter_includes(&pair, reach->way) &&
        td_op_store_pair_heads(reach->sync->ops, reach->origin->collection->name, filter,
                               reach->origin->origin, heads, &count) == TANDEM_OK &&
        count && heads[count - 1].seq > reach->seq)
        reach->seq = heads[count - 1].seq;
    for (unsigned i = 0; i < count && reach->head; i++)
        reach->covered = reach->covered ||
                         (heads[i].seq == reach->head->seq &&
                          !memcmp(heads[i].hash, reach->head->hash, TANDEM_HASH_BYTES));
    td_filter_release(&pair);
    return TANDEM_OK;
}

static uint64_t reached(td_peer *peer, const td_origin_cover *origin)
{
    struct reach reach = {
        .sync = peer->sync,
        .origin = origin,
        .way = &td_peer_takes(peer)->filter,
        .seq = origin->our_seq,
    };

    if (origin->told_count && origin->told[origin->told_count - 1].seq > reach.seq)
        reach.seq = origin->told[origin->told_count - 1].seq;
    /* A wider one tells the peer as much: it does not send COVER for what that covers. */
    td_op_store_pairs(peer->sync->ops, origin->collection->name, look_at_pair, &reach);
    return reach.seq;
}

/* Is all that is in the way held up to this head? */
static bool is_covered(td_peer *peer, const td_origin_cover *origin, const td_head *head)
{
    struct reach reach = {
        .sync = peer->sync,
        .origin = origin,
        .way = &td_peer_takes(peer)->filter,
        .head = head,
    };

    if (td_coverage_is_told(origin, head)) /* our pair may keep another branch */
        return true;
    if (td_op_store_reaches(peer->sync->ops, origin->collection->name, origin->origin, head->seq,
                            head->hash, &reach.covered) == TANDEM_OK &&
        !reach.covered)
        td_op_store_pairs(peer->sync->ops, origin->collection->name, look_at_pair, &reach);
    return reach.covered;
}

bool td_way_in_is_vague(td_peer *peer, const td_origin_cover *origin)
{
    bool reaches = true;

    for (unsigned i = 0; i < origin->head_count && reaches; i++)
        if (td_op_store_reaches(peer->sync->ops, origin->collection->name, origin->origin,
                                origin->heads[i].seq, origin->heads[i].hash,
                                &reaches) != TANDEM_OK)
            return true;
    return !reaches;
}

bool td_ways_holds_heads(td_peer *peer, const td_origin_cover *origin)
{
    for (unsigned i = 0; i < origin->head_count; i++) {
        const td_head *head = &origin->heads[i];
        bool known = td_coverage_has_lack(origin->our_lacks, origin->our_lack_count, head->seq,
                                          head->hash);

        if (!known && (td_op_store_reaches(peer->sync->ops, origin->collection->name,
                                           origin->origin, head->seq, head->hash,
                                           &known) != TANDEM_OK || !known))
            return false;
    }
    return true;
}

bool td_ways_waits(td_peer *peer, const td_origin_cover *origin)
{
    return origin->lacking ||
           (!td_way_out_has_filter(peer) && !td_ways_holds_heads(peer, origin));
}

uint64_t td_way_in_reached(td_peer *peer, const td_origin_cover *origin)
{
    uint64_t seq = reached(peer, origin);

    /* Of a chain that has not forked, as far as the peer knows, what is below is before it. */
    if (origin->head_count == 1 && origin->heads[0].seq != seq)
        return seq;
    for (unsigned i = 0; i < origin->head_count; i++)
        if (!is_covered(peer, origin, &origin->heads[i]))
            return 0;
    return seq;
}

bool td_ways_holds_in_part(tandem_sync *sync, tandem_slice collection)
{
    bool in_part;

    td_op_store_in_part(sync->ops, collection, &in_part);
    return in_part;
}

struct pair_writing {
    td_peer *peer;
    tandem_slice collection;
    const uint8_t *named; /* count origins; NULL: all */
    uint32_t count;
    tandem_writer *out;
    uint32_t written, entries;
};

static tandem_err write_origin(void *context, const uint8_t *origin, const td_head *heads,
                               unsigned count)
{
    struct pair_writing *writing = context;
    bool wanted = !writing->named;

    for (uint32_t i = 0; i < writing->count && !wanted; i++)
        wanted = !memcmp(writing->named + i * (size_t)TANDEM_ORIGIN_BYTES, origin,
                         TANDEM_ORIGIN_BYTES);
    if (!wanted)
        return TANDEM_OK;
    td_wire_write_origin(writing->out, origin, heads, count);
    writing->written++;
    return TANDEM_OK;
}

static tandem_err write_pair(void *context, tandem_slice filter, uint64_t ordinal)
{
    struct pair_writing *writing = context;
    size_t mark = writing->out->size;
    size_t at = td_wire_begin_pair(writing->out, writing->collection, filter);
    tandem_err err;

    (void)ordinal;
    writing->written = 0;
    err = td_op_store_pair_vector(writing->peer->sync->ops, writing->collection, filter, NULL,
                                  write_origin, writing);
    if (err != TANDEM_OK)
        return err;
    if (!writing->written) {
        writing->out->size = mark;
        return TANDEM_OK;
    }
    td_wire_patch_count(writing->out, at, writing->written);
    td_wire_end_vector(writing->out);
    writing->entries++;
    return TANDEM_OK;
}

tandem_err td_ways_write_pairs(td_peer *peer, tandem_slice collection, const uint8_t *named,
                               uint32_t count, tandem_writer *out, uint32_t *entries)
{
    struct pair_writing writing = {peer, collection, named, count, out, 0, 0};
    tandem_err err;

    if (!peer->knows_shares)
        return TANDEM_OK;
    err = td_op_store_pairs(peer->sync->ops, collection, write_pair, &writing);
    *entries += writing.entries;
    return err;
}
