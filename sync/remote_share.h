/*
 * What is shared with a remote, between the lists that users give and see and the canonical bytes that
 * are kept. What a session makes of it is in sync_manager.h.
 *
 * Threads: pure functions.
 */
#ifndef TANDEM_SYNC_REMOTE_SHARE_H
#define TANDEM_SYNC_REMOTE_SHARE_H

#include "store/share.h"
#include "sync/sync.h"

/* The lists of a share as canonical bytes, appended to out; none: it is everything. As
 * tandem_share_check(). */
tandem_err td_share_of_lists(const tandem_share *share, tandem_writer *out);

/* What is kept of a share, as lists; share is valid until the release. TANDEM_E_NOMEM. */
typedef struct td_share_view {
    tandem_share share;
    const char **names;
} td_share_view;
tandem_err td_share_view_open(const td_kept_share *kept, td_share_view *out);
void td_share_view_release(td_share_view *view);

#endif
