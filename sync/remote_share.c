/*
 * What is shared with a peer: the lists of a remote as users give them and as they are kept, and the
 * two ways of a session, by both HELLOs.
 *
 * A session that was accepted shares by the remote that stands for the same reactor. So where a
 * remote shares less than everything the side that was dialed says HELLO after the other, to know
 * which reactor that is; and where it turns out to be that of a remote only later, the session ends.
 */
#include <stdlib.h>

#include "sync/sync_manager.h"

static const uint8_t everything[] = {0xc0}, nothing[] = {0x92, 0x90, 0xc0};

const char *tandem_direction_name(tandem_direction direction)
{
    static const char *const names[] = {
        [TANDEM_DIRECTION_BOTH] = "both",
        [TANDEM_DIRECTION_PUSH] = "push",
        [TANDEM_DIRECTION_PULL] = "pull",
    };

    return names[direction];
}

/* ---- As users give it ---- */

static tandem_err list_of(const char *const *list, size_t count,
                          tandem_slice names[TD_FILTER_ENTRIES_MAX], td_names *out)
{
    if (count > TD_FILTER_ENTRIES_MAX)
        return TANDEM_E_LIMIT;
    if (count && !list)
        return TANDEM_E_INVALID;
    *out = (td_names){names, (uint32_t)count};
    for (size_t i = 0; i < count; i++) {
        if (!list[i])
            return TANDEM_E_INVALID;
        names[i] = tandem_slice_text(list[i]);
    }
    return TANDEM_OK;
}

static tandem_err filter_of(const tandem_share *share, td_filter *out)
{
    tandem_slice documents[TD_FILTER_ENTRIES_MAX], scopes[TD_FILTER_ENTRIES_MAX];
    tandem_slice branches[TD_FILTER_ENTRIES_MAX];
    td_names of_documents, of_scopes, of_branches;
    tandem_err err;

    if ((err = list_of(share->documents, share->document_count, documents, &of_documents)) !=
            TANDEM_OK ||
        (err = list_of(share->scopes, share->scope_count, scopes, &of_scopes)) != TANDEM_OK ||
        (err = list_of(share->branches, share->branch_count, branches, &of_branches)) != TANDEM_OK)
        return err;
    return td_filter_make(of_documents, of_scopes, of_branches, out);
}

tandem_err td_share_of_lists(const tandem_share *share, tandem_writer *out)
{
    tandem_slice collections[TD_FILTER_ENTRIES_MAX];
    td_names of_collections;
    td_filter filter;
    td_share made;
    tandem_err err;

    if (share->size != sizeof(*share) || (int)share->direction < 0 ||
        share->direction > TANDEM_DIRECTION_PULL)
        return TANDEM_E_INVALID;
    if ((err = list_of(share->collections, share->collection_count, collections,
                       &of_collections)) != TANDEM_OK)
        return err;
    for (uint32_t i = 0; i < of_collections.count; i++)
        if (!td_collection_name_valid(collections[i]))
            return TANDEM_E_INVALID;
    if ((err = filter_of(share, &filter)) != TANDEM_OK)
        return err;
    err = td_share_make(of_collections, &filter, &made);
    td_filter_release(&filter);
    if (err != TANDEM_OK)
        return err;
    if (!td_share_is_all(&made))
        td_share_write(&made, out);
    td_share_release(&made);
    return tandem_writer_err(out);
}

tandem_err tandem_share_check(const tandem_share *share)
{
    tandem_writer bytes;
    tandem_err err;

    if (!share)
        return TANDEM_E_INVALID;
    tandem_writer_init(&bytes);
    err = td_share_of_lists(share, &bytes);
    tandem_writer_release(&bytes);
    return err;
}

/* Counting names, then filling them in. */
struct filling {
    size_t bytes;
    size_t counts[TD_FILTER_BRANCHES + 1];
    const char **names[TD_FILTER_BRANCHES + 1]; /* NULL: only count */
    char *text;
};

static void fill_one(void *context, td_filter_part part, tandem_slice name)
{
    struct filling *filling = context;

    filling->bytes += name.size + 1;
    if (filling->names[part]) {
        memcpy(filling->text, name.bytes, name.size);
        filling->text[name.size] = 0;
        filling->names[part][filling->counts[part]] = filling->text;
        filling->text += name.size + 1;
    }
    filling->counts[part]++;
}

tandem_err td_share_view_open(const td_kept_share *kept, td_share_view *out)
{
    struct filling filling = {.bytes = 0};
    size_t total = 0, counts[TD_FILTER_BRANCHES + 1];
    td_share share;
    tandem_err err;

    *out = (td_share_view){.share = TANDEM_SHARE_INIT};
    out->share.direction = (tandem_direction)kept->direction;
    if (!kept->bytes.size)
        return TANDEM_OK;
    if ((err = td_share_decode(kept->bytes, &share)) != TANDEM_OK)
        return err;
    td_share_each(&share, fill_one, &filling);
    memcpy(counts, filling.counts, sizeof(counts));
    for (unsigned i = 0; i <= TD_FILTER_BRANCHES; i++)
        total += counts[i];
    out->names = malloc(total * sizeof(*out->names) + filling.bytes);
    if (out->names) {
        filling = (struct filling){.text = (char *)(out->names + total)};
        for (unsigned i = 0, at = 0; i <= TD_FILTER_BRANCHES; at += (unsigned)counts[i++])
            filling.names[i] = out->names + at;
        td_share_each(&share, fill_one, &filling);
        out->share.collections = filling.names[TD_FILTER_COLLECTIONS];
        out->share.collection_count = counts[TD_FILTER_COLLECTIONS];
        out->share.documents = filling.names[TD_FILTER_DOCUMENTS];
        out->share.document_count = counts[TD_FILTER_DOCUMENTS];
        out->share.scopes = filling.names[TD_FILTER_SCOPES];
        out->share.scope_count = counts[TD_FILTER_SCOPES];
        out->share.branches = filling.names[TD_FILTER_BRANCHES];
        out->share.branch_count = counts[TD_FILTER_BRANCHES];
    }
    td_share_release(&share);
    return out->names ? TANDEM_OK : TANDEM_E_NOMEM;
}

void td_share_view_release(td_share_view *view)
{
    free(view->names);
    view->names = NULL;
}

/* ---- As it is kept ---- */

tandem_err td_remote_copy_share(td_kept_share *share, uint8_t **bytes_out)
{
    *bytes_out = NULL;
    if (!share->bytes.size)
        return TANDEM_OK;
    if (!(*bytes_out = malloc(share->bytes.size)))
        return TANDEM_E_NOMEM;
    memcpy(*bytes_out, share->bytes.bytes, share->bytes.size);
    share->bytes.bytes = *bytes_out;
    return TANDEM_OK;
}

static tandem_slice one_way(const td_peer *remote, tandem_direction other)
{
    if (!remote)
        return tandem_slice_of(everything, sizeof(everything));
    if (remote->record.share.direction == (uint64_t)other)
        return tandem_slice_of(nothing, sizeof(nothing));
    return remote->record.share.bytes.size ? remote->record.share.bytes
                                           : tandem_slice_of(everything, sizeof(everything));
}

/* ---- A session ---- */

static bool is_same_reactor(const td_peer *remote, const td_peer *peer)
{
    static const uint8_t unknown[TANDEM_ORIGIN_BYTES];

    return memcmp(peer->reactor, unknown, sizeof(unknown)) != 0 &&
           !memcmp(remote->reactor, peer->reactor, sizeof(peer->reactor));
}

static const td_peer *remote_of(const td_peer *peer)
{
    if (peer->is_remote)
        return peer;
    for (const td_peer *other = peer->sync->peers; other; other = other->next)
        if (other->is_remote && !other->removed && is_same_reactor(other, peer))
            return other;
    return NULL;
}

bool td_remote_is_restricted(const td_peer *remote)
{
    return remote->record.share.direction != TANDEM_DIRECTION_BOTH ||
           remote->record.share.bytes.size;
}

bool td_peer_may_say_shares(const td_peer *peer)
{
    if (td_channel_is_dialed(peer->channel) || td_session_heard(td_channel_session(peer->channel)))
        return true;
    for (const td_peer *other = peer->sync->peers; other; other = other->next)
        if (other->is_remote && !other->removed && td_remote_is_restricted(other))
            return false;
    return true;
}

static bool is_stale(const td_peer *peer)
{
    const td_peer *remote = remote_of(peer);

    return peer->shares_settled && remote && remote != peer->shares_of && td_remote_is_restricted(remote);
}

bool td_peer_end_stale_shares(td_peer *peer)
{
    /* Only of this reactor something new is known. */
    for (td_peer *other = peer->sync->peers; other; other = other->next)
        if (is_same_reactor(other, peer) && td_channel_session(other->channel) && is_stale(other))
            td_session_fail(td_channel_session(other->channel), TANDEM_E_UNREACHABLE,
                            "less is shared with this reactor than was said");
    return is_stale(peer);
}

/* What this side gives and takes in a session: the same from its first use to its end. */
static void settle_own(td_peer *peer)
{
    if (peer->shares_settled)
        return;
    peer->shares_settled = true;
    peer->shares_of = remote_of(peer);
    peer->own_gives = one_way(peer->shares_of, TANDEM_DIRECTION_PULL);
    peer->own_takes = one_way(peer->shares_of, TANDEM_DIRECTION_PUSH);
}

void td_peer_say_shares(td_peer *peer, td_wire_hello *out)
{
    settle_own(peer);
    out->has_shares = true;
    out->gives = peer->own_gives;
    out->takes = peer->own_takes;
}

static tandem_err conjunction(tandem_slice given, tandem_slice taken, td_share *out)
{
    td_share gives = TD_SHARE_ALL, takes = TD_SHARE_ALL, both;
    tandem_err err;

    if ((err = td_share_decode(given, &gives)) == TANDEM_OK &&
        (err = td_share_decode(taken, &takes)) == TANDEM_OK &&
        (err = td_share_and(&gives, &takes, &both)) == TANDEM_OK) {
        td_share_release(out);
        *out = both;
    }
    td_share_release(&gives);
    td_share_release(&takes);
    return err;
}

tandem_err td_peer_take_shares(td_peer *peer, const td_wire_hello *hello)
{
    const tandem_slice all = tandem_slice_of(everything, sizeof(everything));
    tandem_err err;

    settle_own(peer);
    peer->knows_shares = hello->has_shares;
    if ((err = conjunction(peer->own_gives, hello->has_shares ? hello->takes : all,
                           &peer->gives)) != TANDEM_OK)
        return err;
    return conjunction(hello->has_shares ? hello->gives : all, peer->own_takes, &peer->takes);
}

const td_share *td_peer_gives(const td_peer *peer)
{
    return &peer->gives;
}

const td_share *td_peer_takes(const td_peer *peer)
{
    return &peer->takes;
}

void td_peer_forget_shares(td_peer *peer)
{
    td_share_release(&peer->gives);
    td_share_release(&peer->takes);
    peer->shares_settled = peer->knows_shares = false;
    peer->shares_of = NULL;
    peer->own_gives = peer->own_takes = (tandem_slice){NULL, 0};
}

void td_remote_take_back_shares(td_peer *remote)
{
    for (td_peer *peer = remote->sync->peers; peer; peer = peer->next) {
        if (peer->shares_of != remote)
            continue;
        peer->shares_of = NULL;
        peer->own_gives = peer->own_takes = tandem_slice_of(nothing, sizeof(nothing));
    }
}

void td_remote_end_sharing(td_peer *remote)
{
    for (td_peer *peer = remote->sync->peers; peer; peer = peer->next)
        if (!peer->is_remote && (is_same_reactor(remote, peer) || peer->shares_of == remote) &&
            td_channel_session(peer->channel))
            td_session_fail(td_channel_session(peer->channel), TANDEM_E_UNREACHABLE,
                            "what is shared was changed there");
    td_remote_take_back_shares(remote);
}
