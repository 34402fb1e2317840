/*
 * Jobs as users see them: the handles in flight and the dead letters, looked at, followed, and the
 * commands on dead letters.
 */
#include <assert.h>
#include <stdlib.h>

#include <utlist.h>

#include "sync/sync_manager.h"

struct tandem_job_watch {
    tandem_sync *sync; /* NULL: it is gone */
    td_reply *farewell; /* what freeing waits for: it must not fail for want of memory */
    char remote[TANDEM_NAME_BYTES_MAX + 1];
    bool all; /* whatever the remote */
    bool over; /* to be freed when nobody is told any more */
    void (*happened)(void *context, tandem_job_news news, const tandem_job_status *status);
    void *context;
    tandem_job_watch *prev, *next;
};

/* ---- Statuses ---- */

/* Of the remote that it is, or serves; NULL: none. */
static const char *name_of(const td_peer *peer)
{
    if (peer->is_remote)
        return peer->record.name;
    for (const td_peer *other = peer->sync->peers; other; other = other->next)
        if (other->served_by == peer)
            return other->record.name;
    return NULL;
}

static tandem_job_status status_of(const tandem_job_handle *handle, bool inbox, const char *remote)
{
    return (tandem_job_status){
        .id = handle->id,
        .box = inbox ? "inbox" : "outbox",
        .remote = remote,
        .status = tandem_job_state_name(handle->status),
        .collection = handle->collection,
        .document = handle->document,
        .branch = handle->branch,
        .scopes = handle->scopes,
        .origin = handle->origin,
        .first_seq = handle->first_seq,
        .last_seq = handle->last_seq,
        .operations = handle->operations,
        .bytes = handle->bytes,
        .err = handle->error,
        .sentence = handle->error == TANDEM_OK ? "" : tandem_err_text(handle->error),
    };
}

static tandem_job_status status_of_letter(const td_dead_letter *letter)
{
    return (tandem_job_status){
        .id = letter->id,
        .box = "dead",
        .remote = letter->remote[0] ? letter->remote : NULL,
        .status = tandem_job_state_name(TANDEM_JOB_ERROR),
        .collection = tandem_slice_text(letter->collection),
        .document = tandem_slice_text(letter->document),
        .branch = tandem_slice_text(letter->branch),
        .origin = letter->origin,
        .first_seq = letter->first_seq,
        .last_seq = letter->last_seq,
        .operations = letter->operations,
        .bytes = letter->bytes,
        .err = letter->error,
        .sentence = tandem_err_text(letter->error),
        .reactor = letter->reactor,
        .time_ms = letter->time_ms,
        .offered = letter->offered,
        .retry = letter->retry,
    };
}

/* ---- Looking ---- */

typedef tandem_err (*visit_fn)(void *context, const tandem_job_status *status);

struct visiting {
    visit_fn visit;
    void *context;
    uint64_t id; /* of the one that is wanted; 0: all */
    bool found;
};

static tandem_err show(struct visiting *visiting, const tandem_job_status *status)
{
    if (visiting->id && visiting->id != status->id)
        return TANDEM_OK;
    visiting->found = true;
    return visiting->visit(visiting->context, status);
}

static tandem_err visit_box(const td_peer *peer, bool inbox, struct visiting *visiting)
{
    tandem_mailbox *box =
        inbox ? td_channel_inbox(peer->channel) : td_channel_outbox(peer->channel);
    const char *remote = name_of(peer);
    tandem_err err = TANDEM_OK;

    for (tandem_job_handle *h = tandem_mailbox_first(box); h && err == TANDEM_OK; h = h->next) {
        tandem_job_status status = status_of(h, inbox, remote);

        err = show(visiting, &status);
    }
    return err;
}

static tandem_err visit_letter(void *context, const td_dead_letter *letter)
{
    tandem_job_status status = status_of_letter(letter);

    return show(context, &status);
}

static tandem_err visit_all(tandem_sync *sync, struct visiting *visiting)
{
    tandem_err err = TANDEM_OK;

    sync->telling++;
    for (td_peer *peer = sync->peers; peer && err == TANDEM_OK; peer = peer->next)
        if ((err = visit_box(peer, false, visiting)) == TANDEM_OK)
            err = visit_box(peer, true, visiting);
    if (err == TANDEM_OK)
        err = td_dead_letters_visit(sync, visit_letter, visiting);
    sync->telling--;
    return err == TANDEM_END ? TANDEM_OK : err;
}

static tandem_err run_visit(tandem_sync *sync, td_sync_call *call)
{
    return visit_all(sync, call->argument);
}

tandem_err tandem_job_handles(tandem_sync *sync, visit_fn visit, void *context)
{
    struct visiting visiting = {.visit = visit, .context = context};
    td_sync_call call = {.run = run_visit, .argument = &visiting, .looks = true};

    if (!sync || !visit)
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}

tandem_err tandem_job_get(tandem_sync *sync, uint64_t id, visit_fn visit, void *context)
{
    struct visiting visiting = {.visit = visit, .context = context, .id = id};
    td_sync_call call = {.run = run_visit, .argument = &visiting, .looks = true};
    tandem_err err;

    if (!sync || !visit || !id)
        return TANDEM_E_INVALID;
    err = td_sync_call_loop(sync, &call);
    return err == TANDEM_OK && !visiting.found ? TANDEM_E_NOT_FOUND : err;
}

/* ---- Following ---- */

static void watch_free(tandem_job_watch *watch)
{
    td_reply_free(watch->farewell);
    free(watch);
}

/* Nobody is told anything now: who does not want to be told any more may go. */
static void sweep(tandem_sync *sync)
{
    tandem_job_watch *watch, *next;

    DL_FOREACH_SAFE(sync->watches, watch, next)
    {
        if (!watch->over)
            continue;
        DL_DELETE(sync->watches, watch);
        watch_free(watch);
    }
}

static void tell(tandem_sync *sync, tandem_job_news news, const tandem_job_status *status)
{
    tandem_job_watch *watch;

    sync->telling++;
    DL_FOREACH(sync->watches, watch)
        if (!watch->over &&
            (watch->all || (status->remote && !strcmp(watch->remote, status->remote))))
            watch->happened(watch->context, news, status);
    if (--sync->telling == 0)
        sweep(sync);
}

static void tell_of(td_box *box, tandem_job_news news, const tandem_job_handle *handle)
{
    tandem_sync *sync = box->peer->sync;
    tandem_job_status status;

    if (!sync->watches)
        return;
    status = status_of(handle, box->is_inbox, name_of(box->peer));
    tell(sync, news, &status);
}

static void added(void *context, tandem_job_handle *handle)
{
    tell_of(context, TANDEM_JOB_ADDED, handle);
}

static void changed(void *context, tandem_job_handle *handle, tandem_job_state from,
                    tandem_job_state to)
{
    (void)from;
    (void)to;
    tell_of(context, TANDEM_JOB_CHANGED, handle);
}

static void removed(void *context, tandem_job_handle *handle)
{
    tell_of(context, TANDEM_JOB_REMOVED, handle);
}

void td_jobs_observe(td_peer *peer)
{
    tandem_mailbox *boxes[] = {td_channel_outbox(peer->channel), td_channel_inbox(peer->channel)};

    for (unsigned i = 0; i < 2 && peer->sync->jobs_watched; i++) {
        tandem_err err;

        peer->boxes[i] = (td_box){.peer = peer, .is_inbox = i};
        err = tandem_mailbox_observe(boxes[i], added, changed, removed, &peer->boxes[i]);
        assert(err == TANDEM_OK); /* few others do */
        (void)err;
    }
}

/* Each handle changes three times on its way: before somebody wants to know, nobody is told. */
static void observe_all(tandem_sync *sync)
{
    if (sync->jobs_watched)
        return;
    sync->jobs_watched = true;
    for (td_peer *peer = sync->peers; peer; peer = peer->next)
        td_jobs_observe(peer);
}

void td_jobs_forget(td_peer *peer)
{
    if (!peer->sync->jobs_watched)
        return;
    for (tandem_job_handle *h = tandem_mailbox_first(td_channel_outbox(peer->channel)); h;
         h = h->next)
        tell_of(&peer->boxes[0], TANDEM_JOB_REMOVED, h);
}

void td_jobs_letter(tandem_sync *sync, tandem_job_news news, const td_dead_letter *letter)
{
    tandem_job_status status;

    if (!sync->watches)
        return;
    status = status_of_letter(letter);
    tell(sync, news, &status);
}

void td_jobs_end(tandem_sync *sync)
{
    tandem_job_watch *watch;

    sweep(sync);
    DL_FOREACH(sync->watches, watch)
    {
        td_reply_free(watch->farewell); /* of the runtime, which goes, too */
        watch->farewell = NULL;
        watch->sync = NULL;
    }
    sync->watches = NULL;
}

/* What is there already, as added. */
static tandem_err tell_first(void *context, const tandem_job_status *status)
{
    tandem_job_watch *watch = context;

    if (watch->all || (status->remote && !strcmp(watch->remote, status->remote)))
        watch->happened(watch->context, TANDEM_JOB_ADDED, status);
    return TANDEM_OK;
}

static tandem_err run_watch(tandem_sync *sync, td_sync_call *call)
{
    tandem_job_watch *watch = call->argument;

    struct visiting visiting = {.visit = tell_first, .context = watch};

    if (!watch->all && !td_sync_find_remote(sync, watch->remote))
        return TANDEM_E_NOT_FOUND;
    observe_all(sync);
    DL_APPEND(sync->watches, watch);
    return visit_all(sync, &visiting);
}

static tandem_err run_unwatch(tandem_sync *sync, td_sync_call *call)
{
    tandem_job_watch *watch = call->argument;

    watch->over = true;
    if (!sync->telling) /* else who tells is not done with it */
        sweep(sync);
    return TANDEM_OK;
}

tandem_err tandem_job_watch_open(tandem_sync *sync, const char *remote,
                                 void (*happened)(void *context, tandem_job_news news,
                                                  const tandem_job_status *status),
                                 void *context, tandem_job_watch **out)
{
    td_sync_call call = {.run = run_watch};
    tandem_job_watch *watch;
    tandem_err err;

    if (!sync || !happened || !out)
        return TANDEM_E_INVALID;
    if (remote && strlen(remote) > TANDEM_NAME_BYTES_MAX)
        return TANDEM_E_NOT_FOUND;
    if (!(watch = calloc(1, sizeof(*watch))))
        return TANDEM_E_NOMEM;
    watch->sync = sync;
    watch->all = !remote;
    if (remote)
        strcpy(watch->remote, remote);
    watch->happened = happened;
    watch->context = context;
    call.argument = watch;
    if ((err = td_reply_open(sync->runtime, &watch->farewell)) != TANDEM_OK ||
        (err = td_sync_call_loop(sync, &call)) != TANDEM_OK) {
        watch_free(watch);
        return err;
    }
    *out = watch;
    return TANDEM_OK;
}

void tandem_job_watch_free(tandem_job_watch *watch)
{
    td_sync_call call = {.run = run_unwatch, .argument = watch, .looks = true};
    td_reply *farewell;

    if (!watch)
        return;
    if (!watch->sync) {
        watch_free(watch);
        return;
    }
    if (td_host_is_current(watch->sync->loop)) {
        run_unwatch(watch->sync, &call);
        return;
    }
    farewell = watch->farewell;
    watch->farewell = NULL; /* it answers when the watch is gone */
    td_sync_call_with(watch->sync, &call, farewell);
    td_reply_free(farewell);
}

/* ---- Commands ---- */

static tandem_err run_retry(tandem_sync *sync, td_sync_call *call)
{
    return td_dead_letters_retry(sync, call->number);
}

tandem_err tandem_job_retry(tandem_sync *sync, uint64_t id)
{
    td_sync_call call = {.run = run_retry, .number = id};

    if (!sync)
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}

static tandem_err run_discard(tandem_sync *sync, td_sync_call *call)
{
    return td_dead_letters_discard(sync, call->number);
}

tandem_err tandem_job_discard(tandem_sync *sync, uint64_t id)
{
    td_sync_call call = {.run = run_discard, .number = id};

    if (!sync)
        return TANDEM_E_INVALID;
    return td_sync_call_loop(sync, &call);
}
