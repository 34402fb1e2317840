/*
 * What is wanted: a peer holds what comes behind something that it does not hold itself. Before that
 * can be asked for, the piece between has to be recorded as lacking here (store/op_store.h); whoever
 * holds it is asked for it then.
 *
 * Also: our lacks, as the covers of peers know them, are brought up to date when they have changed.
 */
#include <stddef.h>
#include <stdlib.h>

#include <utlist.h>

#include "store/probe.h"
#include "sync/sync_manager.h"

enum {
    WANT_AGAIN_MS = 1000, /* after it could not be recorded */
    WANTS_MAX = 10000,    /* on their way through the executor; more are not listened to */
};

/* A lack on its way through the executor. */
struct td_want {
    td_remote_request request; /* first: done's argument leads here */
    td_remote_job job;
    td_wanted wanted;
    td_covered covered;
    td_head heads[TANDEM_HEADS_MAX];
    uint8_t *filter; /* of a cover; NULL: it is a lack */
    tandem_sync *sync;
    td_message returned;
    td_want *next;
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint8_t name[];
};

/* ---- Our lacks in the covers ---- */

struct lack_list {
    td_lack *lacks;
    unsigned count, capacity;
};

static tandem_err note_lack(void *context, const uint8_t *origin, const td_lack *lack)
{
    struct lack_list *list = context;

    (void)origin;
    if (list->count == list->capacity) {
        unsigned capacity = list->capacity ? 2 * list->capacity : 16;
        td_lack *grown = realloc(list->lacks, capacity * sizeof(*grown));

        if (!grown)
            return TANDEM_E_NOMEM;
        list->lacks = grown;
        list->capacity = capacity;
    }
    list->lacks[list->count++] = *lack;
    return TANDEM_OK;
}

tandem_err td_wants_load(td_peer *peer, td_origin_cover *origin)
{
    struct lack_list list = {.lacks = NULL};
    uint64_t gone = UINT64_MAX;
    tandem_err err;

    err = td_op_store_lacks(peer->sync->ops, origin->collection->name, origin->origin, note_lack,
                            &list);
    if (err == TANDEM_OK)
        err = td_coverage_set_our_lacks(&peer->coverage, origin, list.lacks, list.count, &gone);
    if (gone != UINT64_MAX)
        td_ways_filled(peer, origin, gone);
    free(list.lacks);
    return err;
}

struct origin_list {
    uint8_t (*origins)[TANDEM_ORIGIN_BYTES];
    unsigned count;
};

/* They come in the order of origins. */
static tandem_err note_origin(void *context, const uint8_t *origin, const td_lack *lack)
{
    struct origin_list *list = context;

    (void)lack;
    if (list->count && !memcmp(list->origins[list->count - 1], origin, TANDEM_ORIGIN_BYTES))
        return TANDEM_OK;
    if (list->count == TD_LACKS_MAX)
        return TANDEM_END;
    memcpy(list->origins[list->count++], origin, TANDEM_ORIGIN_BYTES);
    return TANDEM_OK;
}

static int origin_compare(const void *a, const void *b)
{
    return memcmp(a, b, TANDEM_ORIGIN_BYTES);
}

/* Origins of which nothing is lacking any more. */
static void look_at_filled(td_peer *peer, tandem_slice name, const struct origin_list *lacking)
{
    td_collection_cover *collection = td_coverage_find(&peer->coverage, name);

    for (td_origin_cover *o = collection ? td_hash_table_first(&collection->origins) : NULL; o;
         o = td_hash_table_next(&o->hash_entry))
        if ((o->our_lack_count || o->refused_here) &&
            !bsearch(o->origin, lacking->origins, lacking->count, TANDEM_ORIGIN_BYTES,
                     origin_compare))
            td_peer_lacks_changed(peer, name, o->origin);
}

void td_wants_look(tandem_sync *sync, tandem_slice collection)
{
    struct origin_list list = {calloc(TD_LACKS_MAX, TANDEM_ORIGIN_BYTES), 0};
    tandem_err err = list.origins ? td_op_store_lacks(sync->ops, collection, NULL, note_origin, &list)
                                  : TANDEM_E_NOMEM;

    if (err != TANDEM_OK && err != TANDEM_END)
        td_log(sync->env, TANDEM_LOG_ERROR, "sync", "what is lacking cannot be announced: %s",
               tandem_err_name(err));
    for (unsigned i = 0; i < list.count; i++)
        for (td_peer *peer = sync->peers; peer; peer = peer->next)
            if (td_peer_is_open(peer))
                td_peer_lacks_changed(peer, collection, list.origins[i]);
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        if (td_peer_is_open(peer))
            look_at_filled(peer, collection, &list);
    free(list.origins);
}

/* ---- Wanting ---- */

static td_want *find(tandem_sync *sync, tandem_slice collection, const uint8_t *origin)
{
    td_want *want;

    LL_FOREACH(sync->wants, want)
        if (!want->filter && !memcmp(want->origin, origin, TANDEM_ORIGIN_BYTES) &&
            tandem_slice_equal(want->wanted.collection, collection))
            return want;
    return NULL;
}

static void recorded(td_remote_request *request)
{
    td_want *want = (td_want *)request;

    td_actor_post(want->sync->actor, &want->returned);
}

static void drop(td_message *message)
{
    td_want *want = (td_want *)((char *)message - offsetof(td_want, returned));

    LL_DELETE(want->sync->wants, want);
    want->sync->deliveries--;
    free(want->filter);
    free(want);
}

static td_want *want_open(tandem_sync *sync, tandem_slice collection, const uint8_t *origin)
{
    td_want *want = calloc(1, sizeof(*want) + collection.size);

    if (!want)
        return NULL;
    memcpy(want->origin, origin, TANDEM_ORIGIN_BYTES);
    memcpy(want->name, collection.bytes, collection.size);
    want->sync = sync;
    want->wanted.collection = want->covered.collection =
        tandem_slice_of(want->name, collection.size);
    want->wanted.origin = want->covered.origin = want->origin;
    want->request.jobs = &want->job;
    want->request.count = 1;
    want->request.done = recorded;
    want->returned = (td_message){.kind = TD_SYNC_RECORDED, .drop = drop};
    return want;
}

static void post(td_want *want)
{
    tandem_sync *sync = want->sync;

    LL_PREPEND(sync->wants, want);
    sync->deliveries++;
    td_executor_remote(sync->executor, &want->request);
}

static bool post_lack(tandem_sync *sync, const td_origin_cover *origin, const td_lack *lack)
{
    td_want *want = want_open(sync, origin->collection->name, origin->origin);

    if (!want)
        return false;
    want->wanted.lack = *lack;
    want->wanted.lack.reason = TANDEM_OK; /* who has refused it there is not us */
    want->job.wanted = &want->wanted;
    post(want);
    return true;
}

void td_wants_cover(td_peer *peer, tandem_slice collection, const td_wire_origin *origin)
{
    tandem_slice filter = td_filter_bytes(&td_peer_takes(peer)->filter);
    td_want *want = peer->sync->deliveries < WANTS_MAX
                        ? want_open(peer->sync, collection, origin->origin)
                        : NULL;

    if (!want)
        return; /* told again in the next session */
    if (!(want->filter = malloc(filter.size))) {
        free(want);
        return;
    }
    memcpy(want->filter, filter.bytes, filter.size);
    memcpy(want->heads, origin->heads, origin->head_count * sizeof(want->heads[0]));
    want->covered.filter = tandem_slice_of(want->filter, filter.size);
    want->covered.heads = want->heads;
    want->covered.count = origin->head_count;
    want->job.covered = &want->covered;
    post(want);
}

/* A pair of ours has moved, or should have: then who told is to tell again, in another session. */
static void tell_covered(const td_want *want)
{
    for (td_peer *peer = want->sync->peers; peer; peer = peer->next) {
        if (!td_peer_is_open(peer))
            continue;
        if (want->job.err == TANDEM_OK)
            td_peer_lacks_changed(peer, want->covered.collection, want->origin);
        else if (td_way_in_has_filter(peer))
            td_session_fail(td_channel_session(peer->channel), want->job.err,
                            "what is held through the filter could not be recorded");
    }
}

void td_wants_recorded(tandem_sync *sync, td_message *message)
{
    td_want *want = (td_want *)((char *)message - offsetof(td_want, returned));

    if (want->job.err != TANDEM_OK) {
        td_log(sync->env, TANDEM_LOG_WARNING, "sync", "what is held here was not recorded: %s",
               tandem_err_name(want->job.err));
        sync->wants_at_ms = td_sync_now_ms(sync) + WANT_AGAIN_MS;
        td_sync_tick_at(sync, sync->wants_at_ms);
    }
    if (!sync->closing && want->filter)
        tell_covered(want);
    drop(message);
    if (sync->closing)
        return;
    td_sync_look_at_commits(sync);
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        td_puller_ask(peer);
}

/* Is what stands before this lack of the peer's here, or lacking, and the lack itself not? */
static tandem_err is_next(td_peer *peer, const td_origin_cover *origin, const td_lack *lack,
                          bool *out)
{
    td_op_store *ops = peer->sync->ops;
    tandem_slice name = origin->collection->name;
    tandem_err err;

    *out = false;
    if (td_coverage_has_lack(origin->our_lacks, origin->our_lack_count, lack->last, lack->hash))
        return TANDEM_OK;
    if ((err = td_op_store_holds(ops, name, origin->origin, lack->last, lack->hash, out)) !=
            TANDEM_OK ||
        *out) {
        *out = false;
        return err;
    }
    *out = lack->first == 1 ||
           td_coverage_has_lack(origin->our_lacks, origin->our_lack_count, lack->first - 1,
                                lack->predecessor);
    return *out ? TANDEM_OK
                : td_op_store_reaches(ops, name, origin->origin, lack->first - 1,
                                      lack->predecessor, out);
}

bool td_wants_next(td_peer *peer, td_origin_cover *origin)
{
    if (!origin->lack_count)
        return false;
    if (find(peer->sync, origin->collection->name, origin->origin) ||
        td_sync_now_ms(peer->sync) < peer->sync->wants_at_ms)
        return true;
    for (unsigned i = 0; i < origin->lack_count; i++) {
        bool next = false;

        if (is_next(peer, origin, &origin->lacks[i], &next) == TANDEM_OK && next)
            return post_lack(peer->sync, origin, &origin->lacks[i]);
    }
    return false;
}
