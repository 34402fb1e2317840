/*
 * Dead letters: jobs of ours that a remote has refused for good. Each is kept on disk until the remote
 * holds its operations after all, or somebody discards it; it blocks nothing that is not behind it.
 *
 *   refused  the handle stays in the outbox, in Error, until it is kept: one transaction for all that
 *            were refused since the last turn. Where that fails (a full disk), the handle goes on
 *            staying, the state of the remote says so, and it is tried again. What stays takes up the
 *            window, so a disk that is full for long stops the sending
 *   again    the same range refused once more changes the count and the time of its letter
 *   retried  by command: offered as a new handle, whatever the remote announces to refuse, when it is
 *            there; that it is to be offered is kept on disk
 *   held     the remote announces that it holds the operations: the letter is removed
 *   aside    nothing of it is in the way of this session, whose filter is another one now: it is kept, and
 *            does not say of the remote that it is blocked
 *
 * Whose a letter is. It bears the name of the remote, and the id of the reactor that refused; either
 * will do, for a remote may come to be another reactor, and a reactor be met by an inbound session.
 *
 * Bounds: TD_DEAD_LETTERS_MAX for each remote. Where it has as many, its refused jobs stay in the
 * outbox and nothing more is sent to it. Reactors that no remote stands for share as many places; the
 * newest takes that of the oldest there, so that strangers can neither fill the disk nor block anybody.
 *
 * Threads: the loop's.
 */
#ifndef TANDEM_SYNC_DEAD_LETTERS_H
#define TANDEM_SYNC_DEAD_LETTERS_H

#include "channel/job_handle.h"
#include "store/sync_store.h"

enum { TD_DEAD_LETTERS_MAX = 1024 };

typedef struct td_letter td_letter;
typedef struct td_peer td_peer;
struct tandem_sync;

/* All of a sync's; in tandem_sync. */
typedef struct td_dead_letters {
    td_letter *list; /* in order of their ids */
    uint32_t to_retry;
    uint32_t to_remove; /* held there, and still on disk */
    uint64_t remove_at_ms; /* not before */
    uint64_t changes; /* counts them, so that a peer knows whether its count is still right */
    uint64_t first_job_id, last_job_id, reserved_job_ids;
    uint64_t reserve_at_ms; /* not before */
    uint64_t sessions;
} td_dead_letters;

/* A peer's; in td_peer. */
typedef struct td_peer_letters {
    uint64_t changes;
    uint64_t session; /* its number among all of the sync's */
    uint32_t count;
    uint32_t blocking; /* … of which so many are in the way of this session */
    const td_dead_letter *first; /* of these */
    uint32_t refused_jobs; /* in its outbox, to be kept */
    tandem_err err;        /* why they could not be */
    uint64_t keep_at_ms;   /* when it is tried again */
} td_peer_letters;

/* Read what is kept. As td_sync_store_dead(), TANDEM_E_NOMEM. */
tandem_err td_dead_letters_load(struct tandem_sync *sync);
void td_dead_letters_release(struct tandem_sync *sync);

/* The session's stays(). */
bool td_dead_letters_take(td_peer *peer, tandem_job_handle *handle);
/* A handle that offers a letter again has come back, and was not refused. */
void td_dead_letters_returned(td_peer *peer, const tandem_job_handle *handle);
/* The peer took a handle that offers no letter: it had asked for what it refused before. */
void td_dead_letters_applied(td_peer *peer, const tandem_job_handle *handle);
/* The peer has announced something: what does it hold? */
void td_dead_letters_look(td_peer *peer);
/* The peer has said HELLO, and its ways are known. */
void td_dead_letters_opened(td_peer *peer);
/* The peer's session is over. */
void td_dead_letters_closed(td_peer *peer);
/* The peer is about to be freed. */
void td_dead_letters_forget(td_peer *peer);
/* Keep what was refused, offer what is to be retried. Returns when to call again. */
uint64_t td_dead_letters_tick(td_peer *peer, uint64_t now_ms);
/* Keep the numbers of jobs ahead of those that are given. */
void td_dead_letters_reserve_ids(struct tandem_sync *sync, uint64_t now_ms);

uint32_t td_dead_letters_of(td_peer *peer); /* how many the peer has */
/* How many of them are in the way of its session, or without one all; and the first, in order of their ids. */
uint32_t td_dead_letters_blocking(td_peer *peer, const td_dead_letter **first_out);
/* Has it refused some of what stands up to this ordinal and is in the way, kept or about to be? */
bool td_dead_letters_before(td_peer *peer, uint64_t ordinal);
/* Why refused jobs cannot be kept; TANDEM_OK: all are. TANDEM_E_LIMIT: there are as many as can be,
 * and nothing is sent. */
tandem_err td_dead_letters_trouble(const td_peer *peer);

/* All of them, in order of their ids; as tandem_job_handles(). */
tandem_err td_dead_letters_visit(struct tandem_sync *sync,
                                 tandem_err (*visit)(void *context, const td_dead_letter *letter),
                                 void *context);
/* TANDEM_E_NOT_FOUND, and those of the sync store. */
tandem_err td_dead_letters_retry(struct tandem_sync *sync, uint64_t id);
tandem_err td_dead_letters_discard(struct tandem_sync *sync, uint64_t id);
/* A remote was removed, and its letters with it. */
void td_dead_letters_removed(struct tandem_sync *sync, const char *remote);

#endif
