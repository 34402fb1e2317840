#include "sync/dead_letters.h"

#include <assert.h>
#include <stdlib.h>

#include <utlist.h>

#include "store/probe.h"
#include "sync/sync_manager.h"

enum {
    KEEP_AT_ONCE_MAX = 64, /* in one transaction */
    KEEP_AGAIN_MS = 1000,  /* after it failed */
    RETRY_MS = 500,        /* for a retried one that could not be offered, or taken, for now */
    RETRY_MS_MAX = 30000,
    IDS_AHEAD = 1 << 16,
};

struct td_letter {
    td_dead_letter kept; /* as it is on disk */
    td_letter *prev, *next;
    td_peer *offered_to; /* a handle is on its way there */
    uint64_t retry_at_ms;
    uint32_t attempts;
    bool is_held; /* there: to be removed */
    uint64_t session; /* for which it was looked whether … */
    bool is_aside;    /* … nothing of it is in the way */
};

/* ---- Whose it is ---- */

static bool is_known(const uint8_t *reactor)
{
    static const uint8_t unknown[TANDEM_ORIGIN_BYTES];

    return memcmp(reactor, unknown, sizeof(unknown)) != 0;
}

static bool is_of(const td_dead_letter *letter, const td_peer *peer)
{
    if (peer->is_remote && !strcmp(letter->remote, peer->record.name))
        return true;
    return is_known(peer->reactor) && !memcmp(letter->reactor, peer->reactor, TANDEM_ORIGIN_BYTES);
}

/* The remote that stands for the reactor of an inbound session, or the peer itself. */
static td_peer *owner_of(td_peer *peer)
{
    if (peer->is_remote)
        return peer;
    for (td_peer *other = peer->sync->peers; other; other = other->next)
        if (other->is_remote && !other->removed &&
            (other->served_by == peer ||
             (is_known(other->reactor) &&
              !memcmp(other->reactor, peer->reactor, TANDEM_ORIGIN_BYTES))))
            return other;
    return peer;
}

static bool is_its(const td_dead_letter *letter, const td_peer *peer, const td_peer *owner)
{
    return is_of(letter, peer) || (owner != peer && is_of(letter, owner));
}

/* ---- The list ---- */

static td_letter *find(tandem_sync *sync, uint64_t id)
{
    td_letter *letter;

    DL_FOREACH(sync->dead.list, letter)
        if (letter->kept.id == id)
            return letter;
    return NULL;
}

static int by_id(const td_letter *a, const td_letter *b)
{
    return a->kept.id < b->kept.id ? -1 : a->kept.id > b->kept.id;
}

static void add(tandem_sync *sync, td_letter *letter)
{
    DL_INSERT_INORDER(sync->dead.list, letter, by_id);
    sync->dead.to_retry += letter->kept.retry;
    sync->dead.changes++;
    td_jobs_letter(sync, TANDEM_JOB_ADDED, &letter->kept);
}

static void take_away(tandem_sync *sync, td_letter *letter)
{
    DL_DELETE(sync->dead.list, letter);
    sync->dead.to_retry -= letter->kept.retry;
    sync->dead.to_remove -= letter->is_held;
    sync->dead.changes++;
    td_jobs_letter(sync, TANDEM_JOB_REMOVED, &letter->kept);
    free(letter);
}

static void change(tandem_sync *sync, td_letter *letter, const td_dead_letter *kept)
{
    sync->dead.to_retry -= letter->kept.retry;
    letter->kept = *kept;
    sync->dead.to_retry += letter->kept.retry;
    sync->dead.changes++;
    td_jobs_letter(sync, TANDEM_JOB_CHANGED, &letter->kept);
}

static tandem_err load(void *context, const td_dead_letter *kept)
{
    td_letter *letter = calloc(1, sizeof(*letter));

    if (!letter)
        return TANDEM_E_NOMEM;
    letter->kept = *kept;
    add(context, letter);
    return TANDEM_OK;
}

tandem_err td_dead_letters_load(tandem_sync *sync)
{
    uint64_t last;
    tandem_err err;

    if ((err = td_sync_store_job_ids(sync->store, &last)) != TANDEM_OK)
        return err;
    sync->dead.first_job_id = sync->dead.last_job_id = sync->dead.reserved_job_ids = last;
    return td_sync_store_dead(sync->store, load, sync);
}

void td_dead_letters_release(tandem_sync *sync)
{
    while (sync->dead.list)
        take_away(sync, sync->dead.list);
}

void td_dead_letters_reserve_ids(tandem_sync *sync, uint64_t now_ms)
{
    td_dead_letters *dead = &sync->dead;

    if (dead->last_job_id == dead->first_job_id ||
        dead->last_job_id + IDS_AHEAD / 2 <= dead->reserved_job_ids || now_ms < dead->reserve_at_ms)
        return;
    /* Without it only handles in flight may get the ids of such before the restart: a letter takes
     * care of its own. */
    dead->reserve_at_ms = now_ms + KEEP_AGAIN_MS;
    if (td_sync_store_reserve_job_ids(sync->store, dead->last_job_id + IDS_AHEAD) == TANDEM_OK)
        dead->reserved_job_ids = dead->last_job_id + IDS_AHEAD;
}

/* ---- Looking ---- */

struct finding {
    const td_share *way;
    uint64_t left; /* operations */
    bool found;
};

static tandem_err find_in_way(void *context, tandem_err err, uint64_t ordinal,
                              const td_operation *operation)
{
    struct finding *finding = context;

    (void)ordinal;
    /* What cannot be read may be in it. */
    finding->found = err != TANDEM_OK || td_share_matches(finding->way, operation);
    return finding->found || !--finding->left ? TANDEM_END : TANDEM_OK;
}

static bool is_aside(td_peer *peer, td_letter *letter)
{
    struct finding finding = {.way = td_peer_gives(peer), .left = letter->kept.operations};
    tandem_err err;

    if (!td_peer_is_open(peer) || td_share_is_all(td_peer_gives(peer)))
        return false;
    if (letter->session == peer->letters.session)
        return letter->is_aside;
    err = td_op_store_scan(peer->sync->ops, tandem_slice_text(letter->kept.collection),
                           letter->kept.first_ordinal - 1, find_in_way, &finding);
    letter->session = peer->letters.session;
    letter->is_aside = (err == TANDEM_OK || err == TANDEM_END) && !finding.found;
    return letter->is_aside;
}

static void look_at_letters(td_peer *peer)
{
    td_peer_letters *its = &peer->letters;
    const td_peer *owner;
    td_letter *letter;

    if (its->changes == peer->sync->dead.changes)
        return;
    its->changes = peer->sync->dead.changes;
    its->count = its->blocking = 0;
    its->first = NULL;
    owner = owner_of(peer);
    DL_FOREACH(peer->sync->dead.list, letter)
    {
        if (!is_its(&letter->kept, peer, owner))
            continue;
        its->count++;
        if (!is_aside(peer, letter) && !its->blocking++)
            its->first = &letter->kept;
    }
}

uint32_t td_dead_letters_of(td_peer *peer)
{
    look_at_letters(peer);
    return peer->letters.count;
}

uint32_t td_dead_letters_blocking(td_peer *peer, const td_dead_letter **first_out)
{
    look_at_letters(peer);
    *first_out = peer->letters.first;
    return peer->letters.blocking;
}

bool td_dead_letters_before(td_peer *peer, uint64_t ordinal)
{
    const td_peer *owner = owner_of(peer);
    td_letter *letter;

    DL_FOREACH(peer->sync->dead.list, letter)
        if (letter->kept.first_ordinal <= ordinal && is_its(&letter->kept, peer, owner) &&
            !is_aside(peer, letter))
            return true;
    if (!peer->letters.refused_jobs)
        return false;
    for (tandem_job_handle *h = tandem_mailbox_first(td_channel_outbox(peer->channel)); h;
         h = h->next)
        if (h->refused && h->first_ordinal <= ordinal)
            return true;
    return false;
}

tandem_err td_dead_letters_trouble(const td_peer *peer)
{
    return peer->letters.refused_jobs ? peer->letters.err : TANDEM_OK;
}

tandem_err td_dead_letters_visit(tandem_sync *sync,
                                 tandem_err (*visit)(void *context, const td_dead_letter *letter),
                                 void *context)
{
    tandem_err err = TANDEM_OK;
    td_letter *letter, *next;

    DL_FOREACH_SAFE(sync->dead.list, letter, next)
    {
        if ((err = visit(context, &letter->kept)) != TANDEM_OK)
            break;
    }
    return err;
}

/* ---- Keeping what was refused ---- */

bool td_dead_letters_take(td_peer *peer, tandem_job_handle *handle)
{
    if (peer->removed || !td_sender_is_refusal(handle->error) || !td_sender_is_ours(peer, handle) ||
        (handle->dead_letter && !find(peer->sync, handle->dead_letter)))
        return false; /* in the last case it was discarded meanwhile */
    td_probe(peer->sync->env, TD_PROBE_JOB_DIED);
    assert(!handle->refused);
    handle->refused = true;
    peer->letters.refused_jobs++;
    td_peer_tick_at(peer, 0);
    return true;
}

/* A letter as it is to be kept, of one that is there or of a new one. */
struct draft {
    tandem_job_handle *handle;
    td_letter *letter;
    bool is_new;
    td_dead_letter kept;
};

static tandem_err read_hash(void *context, tandem_err err, uint64_t ordinal,
                            const td_operation *operation)
{
    (void)ordinal;
    if (err != TANDEM_OK)
        return err;
    memcpy(context, operation->hash, TANDEM_HASH_BYTES);
    return TANDEM_END;
}

static void name_into(char out[TANDEM_NAME_BYTES_MAX + 1], tandem_slice name)
{
    assert(name.size <= TANDEM_NAME_BYTES_MAX);
    memcpy(out, name.bytes, name.size);
    out[name.size] = 0;
}

static tandem_err describe(td_peer *peer, const tandem_job_handle *handle, td_dead_letter *out)
{
    uint64_t last_ordinal = handle->first_ordinal + handle->operations - 1;
    td_peer *owner = owner_of(peer);
    tandem_err err;

    *out = (td_dead_letter){
        .id = handle->id,
        .first_seq = handle->first_seq,
        .last_seq = handle->last_seq,
        .operations = handle->operations,
        .bytes = handle->bytes,
        .first_ordinal = handle->first_ordinal,
        .error = handle->error,
        .detail = handle->detail,
        .time_ms = td_env_wall_ms(peer->sync->env),
        .offered = 1,
    };
    if (owner->is_remote)
        memcpy(out->remote, owner->record.name, sizeof(out->remote));
    memcpy(out->reactor, peer->reactor, sizeof(out->reactor));
    memcpy(out->origin, handle->origin, sizeof(out->origin));
    name_into(out->collection, handle->collection);
    name_into(out->document, handle->document);
    name_into(out->branch, handle->branch);
    err = td_op_store_scan(peer->sync->ops, handle->collection, last_ordinal - 1, read_hash,
                           out->hash);
    /* It verified when it was sent. If it does not any more, that is told elsewhere. */
    return err == TANDEM_END || err == TANDEM_E_CORRUPT ? TANDEM_OK : err;
}

static bool is_same_range(const td_dead_letter *a, const td_dead_letter *b)
{
    return a->first_seq == b->first_seq && a->last_seq == b->last_seq &&
           !memcmp(a->origin, b->origin, sizeof(a->origin)) &&
           !memcmp(a->hash, b->hash, sizeof(a->hash)) && !strcmp(a->collection, b->collection);
}

/* The letter of the same range, if there is one already. */
static td_letter *find_same(td_peer *peer, const tandem_job_handle *handle,
                            const td_dead_letter *kept)
{
    const td_peer *owner = owner_of(peer);
    td_letter *letter;

    if (handle->dead_letter)
        return find(peer->sync, handle->dead_letter);
    DL_FOREACH(peer->sync->dead.list, letter)
        if (is_same_range(&letter->kept, kept) && is_its(&letter->kept, peer, owner))
            return letter;
    return NULL;
}

/* Fill a draft. TANDEM_E_LIMIT: there is no room for a letter of this peer. */
static tandem_err draft_init(td_peer *peer, tandem_job_handle *handle, uint32_t news,
                             struct draft *out)
{
    tandem_err err;

    memset(out, 0, sizeof(*out));
    out->handle = handle;
    if ((err = describe(peer, handle, &out->kept)) != TANDEM_OK)
        return err;
    if ((out->letter = find_same(peer, handle, &out->kept))) {
        td_dead_letter again = out->letter->kept;

        again.error = out->kept.error;
        again.detail = out->kept.detail;
        again.time_ms = out->kept.time_ms;
        again.offered++;
        again.retry = false;
        out->kept = again;
        return TANDEM_OK;
    }
    if (out->kept.remote[0] && td_dead_letters_of(peer) + news >= TD_DEAD_LETTERS_MAX)
        return TANDEM_E_LIMIT;
    if (!(out->letter = calloc(1, sizeof(*out->letter))))
        return TANDEM_E_NOMEM;
    out->is_new = true;
    return TANDEM_OK;
}

static void tell(tandem_sync *sync, const td_dead_letter *letter)
{
    tandem_event event = {.kind = TANDEM_EVENT_DEAD_LETTER, .seq = letter->last_seq};

    memcpy(event.origin, letter->origin, sizeof(event.origin));
    memcpy(event.collection, letter->collection, sizeof(event.collection));
    td_event_bus_tell(td_reactor_bus(sync->reactor), &event);
    td_log(sync->env, TANDEM_LOG_WARNING, "sync",
           "%s refuses job %llu (%s, %s, seqs %llu to %llu): %s; it is kept as a dead letter",
           letter->remote[0] ? letter->remote : "an inbound peer", (unsigned long long)letter->id,
           letter->collection, letter->document, (unsigned long long)letter->first_seq,
           (unsigned long long)letter->last_seq, tandem_err_name(letter->error));
}

static void leave_outbox(td_peer *peer, tandem_job_handle *handle)
{
    peer->letters.refused_jobs--;
    tandem_mailbox_remove(td_channel_outbox(peer->channel), handle);
    tandem_job_handle_free(handle);
}

/* They are on disk: their handles may leave the outbox. */
static void drafts_kept(td_peer *peer, struct draft *drafts, size_t count)
{
    tandem_sync *sync = peer->sync;

    for (size_t i = 0; i < count; i++) {
        struct draft *draft = &drafts[i];

        if (draft->is_new) {
            draft->letter->kept = draft->kept;
            add(sync, draft->letter);
            tell(sync, &draft->kept);
        } else {
            draft->letter->offered_to = NULL;
            sync->dead.to_remove -= draft->letter->is_held; /* not any more */
            draft->letter->is_held = false;
            change(sync, draft->letter, &draft->kept);
        }
        leave_outbox(peer, draft->handle);
    }
}

/* Letters of reactors that no remote stands for make room for newer ones. */
static void make_room(tandem_sync *sync)
{
    td_letter *letter, *next;
    uint64_t gone[KEEP_AT_ONCE_MAX];
    uint32_t nameless = 0;
    size_t count = 0;

    DL_FOREACH(sync->dead.list, letter)
        nameless += !letter->kept.remote[0];
    if (nameless <= TD_DEAD_LETTERS_MAX)
        return;
    DL_FOREACH(sync->dead.list, letter)
        if (!letter->kept.remote[0] && count < nameless - TD_DEAD_LETTERS_MAX &&
            count < KEEP_AT_ONCE_MAX)
            gone[count++] = letter->kept.id;
    if (td_sync_store_delete_dead(sync->store, gone, count) != TANDEM_OK)
        return; /* with the next one */
    DL_FOREACH_SAFE(sync->dead.list, letter, next)
        for (size_t i = 0; i < count; i++)
            if (letter->kept.id == gone[i]) {
                take_away(sync, letter);
                break;
            }
}

/* Does a draft stand for the same range already? What was refused in two sessions may come twice. */
static bool is_drafted(const struct draft *drafts, size_t count, const struct draft *draft)
{
    for (size_t i = 0; i < count; i++)
        if (drafts[i].letter == draft->letter ||
            (drafts[i].is_new && is_same_range(&drafts[i].kept, &draft->kept)))
            return true;
    return false;
}

/* Keep some of what was refused. */
static tandem_err keep_some(td_peer *peer, struct draft *drafts, const td_dead_letter **letters)
{
    tandem_job_handle *handle = tandem_mailbox_first(td_channel_outbox(peer->channel));
    uint32_t news = 0;
    size_t count = 0;
    tandem_err err = TANDEM_OK, kept = TANDEM_OK;

    for (; handle && count < KEEP_AT_ONCE_MAX && err == TANDEM_OK; handle = handle->next) {
        struct draft *draft = &drafts[count];

        if (!handle->refused)
            continue;
        if ((err = draft_init(peer, handle, news, draft)) != TANDEM_OK)
            break;
        if (is_drafted(drafts, count, draft)) {
            if (draft->is_new)
                free(draft->letter);
            break; /* the next time it is there */
        }
        news += draft->is_new;
        letters[count++] = &draft->kept;
    }
    if (count)
        kept = td_sync_store_put_dead(peer->sync->store, letters, count);
    if (kept != TANDEM_OK) {
        for (size_t i = 0; i < count; i++)
            if (drafts[i].is_new)
                free(drafts[i].letter);
        return kept;
    }
    drafts_kept(peer, drafts, count);
    return err;
}

static uint64_t keep(td_peer *peer, uint64_t now_ms)
{
    td_peer_letters *its = &peer->letters;
    const td_dead_letter **letters;
    struct draft *drafts;
    tandem_err err;

    if (!its->refused_jobs)
        return UINT64_MAX;
    if (now_ms < its->keep_at_ms)
        return its->keep_at_ms;
    drafts = malloc(KEEP_AT_ONCE_MAX * sizeof(*drafts));
    letters = malloc(KEEP_AT_ONCE_MAX * sizeof(*letters));
    err = drafts && letters ? keep_some(peer, drafts, letters) : TANDEM_E_NOMEM;
    free(letters);
    free(drafts);
    make_room(peer->sync);
    if (err != TANDEM_OK && err != its->err)
        td_log(peer->sync->env, TANDEM_LOG_ERROR, "sync", "refused jobs cannot be kept: %s",
               tandem_err_text(err));
    its->err = err;
    its->keep_at_ms = err == TANDEM_OK ? 0 : now_ms + KEEP_AGAIN_MS;
    td_dead_letters_look(peer); /* what was announced meanwhile */
    return its->refused_jobs ? (err == TANDEM_OK ? now_ms : its->keep_at_ms) : UINT64_MAX;
}

/* ---- Offering again ---- */

struct gathering {
    const td_dead_letter *kept;
    tandem_job_handle *handle;
    uint8_t hash[TANDEM_HASH_BYTES];
};

static tandem_err gather(void *context, tandem_err err, uint64_t ordinal,
                         const td_operation *operation)
{
    struct gathering *g = context;

    if (err != TANDEM_OK)
        return err;
    err = g->handle ? td_job_handle_add(g->handle, operation)
                    : td_job_handle_open(operation, ordinal, false, &g->handle);
    if (err != TANDEM_OK)
        return err == TANDEM_E_NOMEM ? err : TANDEM_E_CORRUPT;
    memcpy(g->hash, operation->hash, sizeof(g->hash));
    return g->handle->operations == g->kept->operations ? TANDEM_END : TANDEM_OK;
}

/* A new handle of its operations. TANDEM_E_CORRUPT: they are not what they were. */
static tandem_err handle_of(tandem_sync *sync, const td_dead_letter *kept, tandem_job_handle **out)
{
    struct gathering g = {.kept = kept};
    tandem_err err = td_op_store_scan(sync->ops, tandem_slice_text(kept->collection),
                                      kept->first_ordinal - 1, gather, &g);

    if (err == TANDEM_END &&
        (memcmp(g.handle->origin, kept->origin, TANDEM_ORIGIN_BYTES) != 0 ||
         g.handle->first_ordinal != kept->first_ordinal || g.handle->last_seq != kept->last_seq ||
         memcmp(g.hash, kept->hash, TANDEM_HASH_BYTES) != 0))
        err = TANDEM_E_CORRUPT;
    if (err == TANDEM_END) {
        g.handle->dead_letter = kept->id;
        *out = g.handle;
        return TANDEM_OK;
    }
    tandem_job_handle_free(g.handle);
    return err == TANDEM_OK ? TANDEM_E_CORRUPT : err;
}

/* TANDEM_E_LIMIT: there is no room now. */
static tandem_err offer(td_peer *peer, td_letter *letter)
{
    td_collection_cover *collection;
    tandem_job_handle *handle;
    td_origin_cover *origin;
    tandem_err err;

    if ((err = td_peer_collection(peer, tandem_slice_text(letter->kept.collection), &collection)) !=
        TANDEM_OK)
        return err;
    if (!collection || !collection->known || !td_channel_fits(peer->channel, letter->kept.bytes))
        return TANDEM_E_LIMIT;
    if ((err = td_coverage_origin(&peer->coverage, collection, letter->kept.origin, &origin)) !=
            TANDEM_OK ||
        (err = handle_of(peer->sync, &letter->kept, &handle)) != TANDEM_OK)
        return err;
    letter->offered_to = peer; /* before the push, which may already have it sent */
    if ((err = td_channel_push(peer->channel, handle)) != TANDEM_OK) {
        letter->offered_to = NULL;
        tandem_job_handle_free(handle);
        return err;
    }
    return TANDEM_OK;
}

/* It could not be offered, or not taken, for now. */
static void put_off(tandem_sync *sync, td_letter *letter)
{
    uint64_t delay_ms = RETRY_MS;

    for (uint32_t i = 0; i < letter->attempts && delay_ms < RETRY_MS_MAX; i++)
        delay_ms *= 2;
    letter->attempts++;
    letter->retry_at_ms = td_sync_now_ms(sync) + delay_ms;
    td_sync_tick_at(sync, letter->retry_at_ms);
}

static uint64_t offer_all(td_peer *peer, uint64_t now_ms)
{
    uint64_t due_ms = UINT64_MAX;
    const td_peer *owner;
    td_letter *letter;

    if (!peer->sync->dead.to_retry || !td_peer_is_open(peer))
        return UINT64_MAX;
    owner = owner_of(peer);
    DL_FOREACH(peer->sync->dead.list, letter)
    {
        tandem_err err;

        if (!letter->kept.retry || letter->is_held || letter->offered_to ||
            !is_its(&letter->kept, peer, owner) || is_aside(peer, letter))
            continue;
        if (letter->retry_at_ms <= now_ms) {
            if ((err = offer(peer, letter)) == TANDEM_OK)
                continue;
            if (err == TANDEM_E_LIMIT) {
                due_ms = due_ms < now_ms + RETRY_MS ? due_ms : now_ms + RETRY_MS;
                continue;
            }
            td_log(peer->sync->env, TANDEM_LOG_ERROR, "sync",
                   "dead letter %llu cannot be offered again: %s",
                   (unsigned long long)letter->kept.id, tandem_err_text(err));
            put_off(peer->sync, letter);
        }
        due_ms = due_ms < letter->retry_at_ms ? due_ms : letter->retry_at_ms;
    }
    return due_ms;
}

/* ---- What became of them ---- */

static tandem_err remove_from_disk(tandem_sync *sync, td_letter *letter)
{
    tandem_err err = td_sync_store_delete_dead(sync->store, &letter->kept.id, 1);

    if (err == TANDEM_OK)
        take_away(sync, letter);
    return err;
}

static void is_held_there(td_peer *peer, td_letter *letter)
{
    uint64_t id = letter->kept.id;
    const char *name = owner_of(peer)->is_remote ? owner_of(peer)->record.name : "an inbound peer";

    if (remove_from_disk(peer->sync, letter) != TANDEM_OK) {
        peer->sync->dead.to_remove += !letter->is_held;
        letter->is_held = true;
        td_peer_tick_at(peer, td_sync_now_ms(peer->sync) + KEEP_AGAIN_MS);
        return;
    }
    td_log(peer->sync->env, TANDEM_LOG_INFO, "sync",
           "%s holds what it had refused: dead letter %llu is removed", name,
           (unsigned long long)id);
}

/* The disk failed when they were to be removed. */
static uint64_t remove_held(tandem_sync *sync, uint64_t now_ms)
{
    td_dead_letters *dead = &sync->dead;
    td_letter *letter, *next;

    if (!dead->to_remove)
        return UINT64_MAX;
    if (now_ms < dead->remove_at_ms)
        return dead->remove_at_ms;
    DL_FOREACH_SAFE(dead->list, letter, next)
    {
        if (!letter->is_held || remove_from_disk(sync, letter) == TANDEM_OK)
            continue;
        dead->remove_at_ms = now_ms + KEEP_AGAIN_MS;
        return dead->remove_at_ms;
    }
    return UINT64_MAX;
}

uint64_t td_dead_letters_tick(td_peer *peer, uint64_t now_ms)
{
    uint64_t due_ms, offer_ms, remove_ms;

    if (peer->removed)
        return UINT64_MAX;
    due_ms = keep(peer, now_ms);
    offer_ms = offer_all(peer, now_ms);
    remove_ms = remove_held(peer->sync, now_ms);
    due_ms = due_ms < offer_ms ? due_ms : offer_ms;
    return due_ms < remove_ms ? due_ms : remove_ms;
}

void td_dead_letters_returned(td_peer *peer, const tandem_job_handle *handle)
{
    td_letter *letter = find(peer->sync, handle->dead_letter);

    if (!letter)
        return;
    letter->offered_to = NULL;
    if (handle->status == TANDEM_JOB_APPLIED)
        is_held_there(peer, letter);
    else
        put_off(peer->sync, letter);
}

void td_dead_letters_applied(td_peer *peer, const tandem_job_handle *handle)
{
    const td_peer *owner;
    td_letter *letter, *next;

    if (!peer->sync->dead.list)
        return;
    owner = owner_of(peer);
    DL_FOREACH_SAFE(peer->sync->dead.list, letter, next)
    {
        if (letter->kept.first_ordinal == handle->first_ordinal &&
            tandem_slice_equal(tandem_slice_text(letter->kept.collection), handle->collection) &&
            is_its(&letter->kept, peer, owner))
            is_held_there(peer, letter);
    }
}

/* As far as it is known here. */
static bool is_forked(tandem_sync *sync, const td_dead_letter *letter)
{
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;

    return td_executor_forks(sync->executor) &&
           (td_op_store_heads(sync->ops, tandem_slice_text(letter->collection), letter->origin,
                              heads, &count) != TANDEM_OK ||
            count > 1);
}

/* Does a pair of the peer's cover all that is in the way up to there? It ends before what was refused. */
static bool is_covered(td_peer *peer, const td_collection_cover *collection, td_letter *letter)
{
    const td_pair_cover *pair;

    if (!td_way_out_has_filter(peer) || is_forked(peer->sync, &letter->kept) || is_aside(peer, letter))
        return false;
    LL_FOREACH(collection->pairs, pair)
        if (td_filter_includes(&pair->filter, &td_peer_gives(peer)->filter) &&
            td_pair_cover_seq(pair, letter->kept.origin) >= letter->kept.last_seq)
            return true;
    return false;
}

/* Through a filter a head counts as met where all before it that is in the way was given. Has the peer
 * announced each of ours? */
static bool shows_our_heads(td_peer *peer, const td_dead_letter *letter,
                            const td_origin_cover *origin)
{
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;

    if (td_op_store_heads(peer->sync->ops, tandem_slice_text(letter->collection), letter->origin,
                          heads, &count) != TANDEM_OK)
        return false;
    for (unsigned i = 0; i < count; i++)
        if (!td_coverage_is_announced(origin, &heads[i]))
            return false;
    return count > 0;
}

/*
 * Has the peer announced that it holds the operations? Its heads must reach them; of a forked origin
 * that says nothing, unless it is this very head, or nothing of ours is missing there at all.
 */
static bool is_announced(td_peer *peer, td_letter *dead)
{
    const td_dead_letter *letter = &dead->kept;
    td_collection_cover *collection =
        td_coverage_find(&peer->coverage, tandem_slice_text(letter->collection));
    uint64_t last_ordinal = letter->first_ordinal + letter->operations - 1;
    td_origin_cover *origin;

    if (!collection)
        return last_ordinal <= td_peer_base(peer, tandem_slice_text(letter->collection));
    if (!collection->known)
        return false;
    if (last_ordinal <= td_coverage_base(collection, letter->origin))
        return true;
    if (!(origin = td_coverage_find_origin(collection, letter->origin)) ||
        td_coverage_refuses(origin, letter->first_seq, letter->last_seq))
        return false;
    if (is_covered(peer, collection, dead))
        return true;
    for (unsigned i = 0; i < origin->head_count; i++) {
        const td_head *head = &origin->heads[i];

        if (head->seq == letter->last_seq && !memcmp(head->hash, letter->hash, TANDEM_HASH_BYTES))
            return true;
        if (head->seq > letter->last_seq && origin->head_count == 1 &&
            !is_forked(peer->sync, letter))
            return true;
    }
    return origin->head_count && origin->peer_seq >= origin->our_seq && !origin->unmet &&
           origin->our_seq >= letter->last_seq &&
           (!td_way_out_has_filter(peer) || shows_our_heads(peer, letter, origin)) &&
           (!origin->passed_seq || is_forked(peer->sync, letter));
}

void td_dead_letters_look(td_peer *peer)
{
    const td_peer *owner;
    td_letter *letter, *next;

    if (!peer->sync->dead.list || !peer->said_hello)
        return;
    owner = owner_of(peer);
    DL_FOREACH_SAFE(peer->sync->dead.list, letter, next)
    {
        if (is_its(&letter->kept, peer, owner) && is_announced(peer, letter))
            is_held_there(peer, letter);
    }
}

void td_dead_letters_opened(td_peer *peer)
{
    peer->letters.session = ++peer->sync->dead.sessions;
    peer->letters.changes = 0; /* whose letters are its own, and which are in the way? */
}

void td_dead_letters_closed(td_peer *peer)
{
    td_letter *letter;

    DL_FOREACH(peer->sync->dead.list, letter)
        if (letter->offered_to == peer)
            letter->offered_to = NULL;
    peer->letters.changes = 0; /* it may be another reactor the next time */
}

void td_dead_letters_forget(td_peer *peer)
{
    td_dead_letters_closed(peer);
    peer->letters.refused_jobs = 0;
}

/* ---- Commands ---- */

tandem_err td_dead_letters_retry(tandem_sync *sync, uint64_t id)
{
    td_letter *letter = find(sync, id);
    const td_dead_letter *letters[1];
    td_dead_letter kept;
    tandem_err err;

    if (!letter)
        return TANDEM_E_NOT_FOUND;
    kept = letter->kept;
    kept.retry = true;
    letters[0] = &kept;
    if (!letter->kept.retry && (err = td_sync_store_put_dead(sync->store, letters, 1)) != TANDEM_OK)
        return err;
    change(sync, letter, &kept);
    letter->retry_at_ms = 0;
    letter->attempts = 0;
    td_sync_tick_at(sync, 0);
    return TANDEM_OK;
}

tandem_err td_dead_letters_discard(tandem_sync *sync, uint64_t id)
{
    td_letter *letter = find(sync, id);
    tandem_err err;

    if (!letter)
        return TANDEM_E_NOT_FOUND;
    if ((err = remove_from_disk(sync, letter)) != TANDEM_OK)
        return err;
    /* There may be room now for what could not be kept. */
    for (td_peer *peer = sync->peers; peer; peer = peer->next) {
        peer->letters.keep_at_ms = 0;
        td_peer_refresh(peer);
    }
    td_sync_tick_at(sync, 0);
    return TANDEM_OK;
}

void td_dead_letters_removed(tandem_sync *sync, const char *remote)
{
    td_letter *letter, *next;

    DL_FOREACH_SAFE(sync->dead.list, letter, next)
        if (!strcmp(letter->kept.remote, remote))
            take_away(sync, letter);
}
