/*
 * A mailbox: the job handles now in flight in one direction of a channel. A window, not a queue: what
 * does not fit waits in the store of whoever has it.
 *
 * Ownership: a mailbox owns the handles in it; removal gives them back.
 * Limits:    window_jobs handles and window_bytes bytes of operations; a single handle always fits
 *            into an empty mailbox. Mailboxes may share what memory there is for handles.
 * Threads:   one thread, that of the channel.
 */
#ifndef TANDEM_CHANNEL_MAILBOX_H
#define TANDEM_CHANNEL_MAILBOX_H

#include "channel/job_handle.h"

enum {
    TD_MAILBOX_OBSERVERS_MAX = 4,
    TD_MAILBOX_JOBS_SHARED = 64, /* so many a mailbox may always hold, whatever the others do */
};

typedef struct tandem_mailbox tandem_mailbox;

/* Handles in several mailboxes: a thousand full windows would be more memory than anybody wants. */
typedef struct td_mailbox_share {
    uint32_t limit_jobs;
    uint32_t used_jobs;
} td_mailbox_share;

typedef void (*tandem_mailbox_fn)(void *context, tandem_job_handle *handle);

tandem_err tandem_mailbox_open(uint32_t window_jobs, uint64_t window_bytes, tandem_mailbox **out);
/* Have it share the memory of handles with others: while it holds TD_MAILBOX_JOBS_SHARED or more, a
 * further one fits only if all together hold fewer than share->limit_jobs. It is empty; share is
 * borrowed and outlives it. */
void tandem_mailbox_join(tandem_mailbox *mailbox, td_mailbox_share *share);
/* Frees the handles in it, without telling anybody. NULL is fine. */
void tandem_mailbox_free(tandem_mailbox *mailbox);

/* Where handles stand that are to be put in, if they are many; they are freed before it is. */
td_handle_shelf *tandem_mailbox_shelf(tandem_mailbox *mailbox);

/* Give ids from a counter that several mailboxes share, so that an id means one handle in all of
 * them; before the first push. last_id is the last one given, and outlives the mailbox. */
void tandem_mailbox_share_ids(tandem_mailbox *mailbox, uint64_t *last_id);

/* Does one more handle with so many bytes fit? */
bool tandem_mailbox_fits(const tandem_mailbox *mailbox, uint64_t bytes);
/* Is what it shares used up, and its own part of it more than half full? Who then puts in a handle for
 * each that is taken out sends each by itself; who waits until half of it is there sends many at once. */
bool tandem_mailbox_is_draining(const tandem_mailbox *mailbox);

/* Put a handle at the end; it gets its id here, which is higher than those before it. The caller asked
 * tandem_mailbox_fits(). */
void tandem_mailbox_push(tandem_mailbox *mailbox, tandem_job_handle *handle);
/* Take a handle out; it is the caller's. */
void tandem_mailbox_remove(tandem_mailbox *mailbox, tandem_job_handle *handle);

/* NULL if there is none of this id. Looks at those that were put in later. */
tandem_job_handle *tandem_mailbox_get(tandem_mailbox *mailbox, uint64_t id);
/* The items, in order of arrival: the first one, then handle->next. */
tandem_job_handle *tandem_mailbox_first(tandem_mailbox *mailbox);
uint32_t tandem_mailbox_jobs(const tandem_mailbox *mailbox);
uint64_t tandem_mailbox_bytes(const tandem_mailbox *mailbox);
uint32_t tandem_mailbox_window_jobs(const tandem_mailbox *mailbox);
uint64_t tandem_mailbox_window_bytes(const tandem_mailbox *mailbox);

/* Be told after a handle was added, or removed; either may be NULL. An observer may push and remove.
 * TANDEM_E_LIMIT above TD_MAILBOX_OBSERVERS_MAX. */
tandem_err tandem_mailbox_subscribe(tandem_mailbox *mailbox, tandem_mailbox_fn added,
                                    tandem_mailbox_fn removed, void *context);
/* The same, and after each change of status of a handle in it. An observer of that changes nothing. */
tandem_err tandem_mailbox_observe(tandem_mailbox *mailbox, tandem_mailbox_fn added,
                                  tandem_job_changed_fn changed, tandem_mailbox_fn removed,
                                  void *context);
void tandem_mailbox_unsubscribe(tandem_mailbox *mailbox, void *context);

#endif
