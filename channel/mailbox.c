#include "channel/mailbox.h"

#include <assert.h>
#include <stdlib.h>

#include <utlist.h>

struct observer {
    tandem_mailbox_fn added, removed;
    tandem_job_changed_fn changed;
    void *context;
};

struct tandem_mailbox {
    uint32_t window_jobs;
    uint64_t window_bytes;
    uint32_t jobs;
    uint64_t bytes;
    uint64_t own_last_id, *last_id;
    td_mailbox_share *share; /* NULL: none */
    td_handle_shelf shelf;
    tandem_job_handle *list; /* by id; utlist's: the first one's prev is the last */
    struct observer observers[TD_MAILBOX_OBSERVERS_MAX];
    unsigned observer_count;
    bool tells; /* somebody is told of changes, or was: each handle knows it then */
};

tandem_err tandem_mailbox_open(uint32_t window_jobs, uint64_t window_bytes, tandem_mailbox **out)
{
    tandem_mailbox *mailbox;

    assert(window_jobs >= 1);
    if (!(mailbox = calloc(1, sizeof(*mailbox))))
        return TANDEM_E_NOMEM;
    mailbox->window_jobs = window_jobs;
    mailbox->window_bytes = window_bytes;
    mailbox->last_id = &mailbox->own_last_id;
    *out = mailbox;
    return TANDEM_OK;
}

static void unlink_handle(tandem_mailbox *mailbox, tandem_job_handle *handle)
{
    DL_DELETE(mailbox->list, handle);
    handle->prev = handle->next = NULL;
    handle->told = NULL;
    mailbox->jobs--;
    mailbox->bytes -= handle->bytes;
    if (mailbox->share)
        mailbox->share->used_jobs--;
}

void tandem_mailbox_join(tandem_mailbox *mailbox, td_mailbox_share *share)
{
    assert(!mailbox->jobs && !mailbox->share);
    mailbox->share = share;
}

void tandem_mailbox_free(tandem_mailbox *mailbox)
{
    if (!mailbox)
        return;
    while (mailbox->list) {
        tandem_job_handle *handle = mailbox->list;

        unlink_handle(mailbox, handle);
        tandem_job_handle_free(handle);
    }
    assert(!mailbox->shelf.bytes);
    free(mailbox);
}

td_handle_shelf *tandem_mailbox_shelf(tandem_mailbox *mailbox)
{
    return &mailbox->shelf;
}

void tandem_mailbox_share_ids(tandem_mailbox *mailbox, uint64_t *last_id)
{
    assert(mailbox->own_last_id == 0);
    mailbox->last_id = last_id;
}

bool tandem_mailbox_fits(const tandem_mailbox *mailbox, uint64_t bytes)
{
    const td_mailbox_share *share = mailbox->share;

    if (mailbox->jobs == 0)
        return true;
    if (share && mailbox->jobs >= TD_MAILBOX_JOBS_SHARED && share->used_jobs >= share->limit_jobs)
        return false;
    return mailbox->jobs < mailbox->window_jobs &&
           mailbox->bytes + bytes <= mailbox->window_bytes;
}

bool tandem_mailbox_is_draining(const tandem_mailbox *mailbox)
{
    const td_mailbox_share *share = mailbox->share;

    return share && share->used_jobs >= share->limit_jobs &&
           mailbox->jobs > TD_MAILBOX_JOBS_SHARED / 2;
}

static void changed(void *context, tandem_job_handle *handle, tandem_job_state from,
                    tandem_job_state to)
{
    const tandem_mailbox *mailbox = context;

    for (unsigned i = 0; i < mailbox->observer_count; i++)
        if (mailbox->observers[i].changed)
            mailbox->observers[i].changed(mailbox->observers[i].context, handle, from, to);
}

static void tell_changes(tandem_mailbox *mailbox, tandem_job_handle *handle)
{
    handle->told = changed;
    handle->told_context = mailbox;
}

void tandem_mailbox_push(tandem_mailbox *mailbox, tandem_job_handle *handle)
{
    uint64_t id;

    assert(tandem_mailbox_fits(mailbox, handle->bytes));
    assert(!handle->prev);
    handle->id = id = ++*mailbox->last_id;
    DL_APPEND(mailbox->list, handle);
    if (mailbox->tells)
        tell_changes(mailbox, handle);
    mailbox->jobs++;
    mailbox->bytes += handle->bytes;
    if (mailbox->share)
        mailbox->share->used_jobs++;
    /* One of those that are told may have taken it out again: the others need not know. */
    for (unsigned i = 0; i < mailbox->observer_count; i++)
        if (mailbox->observers[i].added && (i == 0 || tandem_mailbox_get(mailbox, id)))
            mailbox->observers[i].added(mailbox->observers[i].context, handle);
}

void tandem_mailbox_remove(tandem_mailbox *mailbox, tandem_job_handle *handle)
{
    unlink_handle(mailbox, handle);
    for (unsigned i = 0; i < mailbox->observer_count; i++)
        if (mailbox->observers[i].removed)
            mailbox->observers[i].removed(mailbox->observers[i].context, handle);
}

/* From the end: it is asked for what has just come, or by a person. A table would cost each handle on its
 * way more than that. */
tandem_job_handle *tandem_mailbox_get(tandem_mailbox *mailbox, uint64_t id)
{
    tandem_job_handle *first = mailbox->list, *handle = first ? first->prev : NULL;

    while (handle && handle->id > id)
        handle = handle == first ? NULL : handle->prev;
    return handle && handle->id == id ? handle : NULL;
}

tandem_job_handle *tandem_mailbox_first(tandem_mailbox *mailbox)
{
    return mailbox->list;
}

uint32_t tandem_mailbox_jobs(const tandem_mailbox *mailbox)
{
    return mailbox->jobs;
}

uint64_t tandem_mailbox_bytes(const tandem_mailbox *mailbox)
{
    return mailbox->bytes;
}

uint32_t tandem_mailbox_window_jobs(const tandem_mailbox *mailbox)
{
    return mailbox->window_jobs;
}

uint64_t tandem_mailbox_window_bytes(const tandem_mailbox *mailbox)
{
    return mailbox->window_bytes;
}

tandem_err tandem_mailbox_subscribe(tandem_mailbox *mailbox, tandem_mailbox_fn added,
                                    tandem_mailbox_fn removed, void *context)
{
    return tandem_mailbox_observe(mailbox, added, NULL, removed, context);
}

tandem_err tandem_mailbox_observe(tandem_mailbox *mailbox, tandem_mailbox_fn added,
                                  tandem_job_changed_fn changed_fn, tandem_mailbox_fn removed,
                                  void *context)
{
    if (mailbox->observer_count >= TD_MAILBOX_OBSERVERS_MAX)
        return TANDEM_E_LIMIT;
    mailbox->observers[mailbox->observer_count++] =
        (struct observer){added, removed, changed_fn, context};
    if (!changed_fn || mailbox->tells)
        return TANDEM_OK;
    mailbox->tells = true;
    for (tandem_job_handle *handle = mailbox->list; handle; handle = handle->next)
        tell_changes(mailbox, handle);
    return TANDEM_OK;
}

void tandem_mailbox_unsubscribe(tandem_mailbox *mailbox, void *context)
{
    for (unsigned i = 0; i < mailbox->observer_count; i++) {
        if (mailbox->observers[i].context != context)
            continue;
        mailbox->observers[i] = mailbox->observers[--mailbox->observer_count];
        return;
    }
}
