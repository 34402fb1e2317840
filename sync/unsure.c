/*
 * What may have been committed, though the executor could not tell: its disk failed at the wrong
 * moment. Nobody is told of such operations when their delivery ends, and no later delivery brings
 * them again where they turn out to be held; so they are kept in mind, and the other peers are told
 * once the disk works again and shows them.
 */
#include <stdlib.h>

#include <utlist.h>

#include "store/planted.h"
#include "store/probe.h"
#include "sync/sync_manager.h"

enum { UNSURE_MAX = 4096 };

struct td_unsure {
    td_unsure *next;
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    size_t size;
    uint8_t collection[];
};

static tandem_slice collection_of(const td_unsure *unsure)
{
    return tandem_slice_of(unsure->collection, unsure->size);
}

/* Whoever connects anew is told everything. */
static void begin_anew(tandem_sync *sync)
{
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        if (td_peer_is_open(peer))
            td_session_fail(td_channel_session(peer->channel), TANDEM_E_NOMEM,
                            "too much is not known of what was stored");
}

void td_unsure_note(tandem_sync *sync, const tandem_job_handle *handle, tandem_err err)
{
    td_unsure *unsure;
    unsigned count = 0;

    if (err != TANDEM_E_OUTCOME_UNKNOWN)
        return; /* it certainly is not held */
    if (td_planted(TD_PLANTED_UNSURE_FORGOTTEN))
        return;
    LL_FOREACH(sync->unsure, unsure)
    {
        count++;
        if (!memcmp(unsure->origin, handle->origin, TANDEM_ORIGIN_BYTES) &&
            tandem_slice_equal(collection_of(unsure), handle->collection))
            return;
    }
    if (count >= UNSURE_MAX ||
        !(unsure = malloc(sizeof(*unsure) + handle->collection.size))) {
        begin_anew(sync);
        return;
    }
    memcpy(unsure->origin, handle->origin, TANDEM_ORIGIN_BYTES);
    unsure->size = handle->collection.size;
    memcpy(unsure->collection, handle->collection.bytes, unsure->size);
    LL_PREPEND(sync->unsure, unsure);
    /* A commit has worked since, and we may have been told of that before. */
    if (td_executor_store_err(sync->executor) == TANDEM_OK)
        td_unsure_settle(sync);
}

static void tell(tandem_sync *sync, const td_unsure *unsure)
{
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;

    if (td_op_store_heads(sync->ops, collection_of(unsure), unsure->origin, heads, &count) !=
            TANDEM_OK ||
        !count)
        return;
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        if (td_peer_is_open(peer))
            td_peer_committed(peer, collection_of(unsure), unsure->origin, heads[count - 1].seq);
    td_puller_progress(sync, collection_of(unsure), unsure->origin);
}

void td_unsure_settle(tandem_sync *sync)
{
    while (sync->unsure) {
        td_unsure *unsure = sync->unsure;

        LL_DELETE(sync->unsure, unsure);
        td_probe(sync->env, TD_PROBE_UNSURE_TOLD);
        tell(sync, unsure);
        free(unsure);
    }
}

void td_unsure_release(tandem_sync *sync)
{
    while (sync->unsure) {
        td_unsure *unsure = sync->unsure;

        LL_DELETE(sync->unsure, unsure);
        free(unsure);
    }
}
