/*
 * Syncing a reactor with others: remotes, the listener, status, the barrier.
 *
 * Open one sync on a reactor, at most; it connects to the remotes that it has persisted and keeps
 * them in step, reconnecting with backoff and full jitter. A remote is a name and a URL:
 *
 *   ws://HOST:PORT/tandem     a reactor that listens, here or elsewhere, by WebSocket
 *   http://HOST:PORT/tandem   the same one, at the same port, where only HTTP gets through
 *   mem://NAME                a reactor of the same process (harness)
 *   mem://NAME/http           the same one, over a link that works as one over HTTP does
 *
 * Threads: call from any thread, except that a sync whose reactor is driven (options.drive) is
 * called from the driving thread.
 */
#ifndef TANDEM_SYNC_SYNC_H
#define TANDEM_SYNC_SYNC_H

#include "../reactor/reactor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tandem_sync tandem_sync;

typedef struct tandem_sync_options {
    size_t size;            /* sizeof(tandem_sync_options) */
    bool offline;           /* only look at and change the remotes that are kept: connect to nobody */
    uint64_t window_bytes;  /* in flight per direction and session; 0: 8 MiB */
    uint32_t window_jobs;   /* 0: 8,192; to all peers together 131,072 are in flight, or 64 to each */
    uint64_t pool_bytes;    /* inboxes of all sessions together; 0: 32 MiB */
    uint64_t retry_base_ms; /* 0: 100 */
    uint64_t retry_cap_ms;  /* 0: 30,000 */
} tandem_sync_options;

#define TANDEM_SYNC_OPTIONS_INIT                                                                   \
    {                                                                                              \
        .size = sizeof(tandem_sync_options)                                                        \
    }

/* options NULL: defaults. Errors: TANDEM_E_STATE (the reactor has one), TANDEM_E_IO,
 * TANDEM_E_STORE_FULL, TANDEM_E_CORRUPT, TANDEM_E_NOMEM. */
TANDEM_API tandem_err tandem_sync_open(tandem_reactor *reactor, const tandem_sync_options *options,
                                       tandem_sync **out);
/* Ends every session; before tandem_close(). NULL is fine. Not from inside a callback. */
TANDEM_API void tandem_sync_close(tandem_sync *sync);

/*
 * Accept sessions.
 *
 * address      an IP address; one beyond loopback is TANDEM_E_INSECURE unless insecure is true (there
 *              is no TLS yet)
 * port         0 picks one
 * url_out      room for 128 bytes: "ws://HOST:PORT/tandem" with the real port
 * Errors: TANDEM_E_INSECURE, TANDEM_E_STATE (it listens already), TANDEM_E_ADDRESS_IN_USE,
 *         TANDEM_E_INVALID (no IP address, or none of this machine), TANDEM_E_PERMISSION,
 *         TANDEM_E_IO, TANDEM_E_NOMEM.
 */
TANDEM_API tandem_err tandem_listen(tandem_sync *sync, const char *address, uint16_t port,
                                    bool insecure, char url_out[128]);

/*
 * Remotes. What is changed is on disk when the call returns; all of them may also give what the disk
 * does: TANDEM_E_STORE_FULL, TANDEM_E_IO (then the outcome is unknown: look, or repeat the call).
 *
 * name     1 to 128 bytes of UTF-8 without control characters
 * url      ws://HOST:PORT/tandem or http://HOST:PORT/tandem
 */

/* Add one, and connect to it at once. TANDEM_E_EXISTS, TANDEM_E_INVALID (name or URL),
 * TANDEM_E_UNSUPPORTED (a scheme of later versions), TANDEM_E_LIMIT (too many), TANDEM_E_NOMEM. */
TANDEM_API tandem_err tandem_remote_add(tandem_sync *sync, const char *name, const char *url);
/* Change its URL. TANDEM_E_NOT_FOUND, TANDEM_E_INVALID, TANDEM_E_UNSUPPORTED. */
TANDEM_API tandem_err tandem_remote_set(tandem_sync *sync, const char *name, const char *url);
/* Forget it, and its dead letters; an open session is ended. TANDEM_E_NOT_FOUND. */
TANDEM_API tandem_err tandem_remote_remove(tandem_sync *sync, const char *name);
/* Exchange nothing with it until resumed, nor by a session that it dials itself (as far as it is
 * known to be the same reactor: since it was last met in this process). TANDEM_E_NOT_FOUND. */
TANDEM_API tandem_err tandem_remote_pause(tandem_sync *sync, const char *name);
/* TANDEM_E_NOT_FOUND. */
TANDEM_API tandem_err tandem_remote_resume(tandem_sync *sync, const char *name);
/* The network may be back: retry now. What a remote was blocked by is forgotten until it is met
 * again. name NULL: every remote. TANDEM_E_NOT_FOUND. */
TANDEM_API tandem_err tandem_remote_poke(tandem_sync *sync, const char *name);

/*
 * How a remote is retried: after the nth failure in a row it waits a random time between 0 and
 * min(cap, base * factor^(n-1)) (full jitter), and never makes more than budget attempts a minute,
 * however many of them succeed. After `attempts` failures the policy is spent: the application is
 * told TANDEM_E_CHANNEL_NETWORK, and the remote rests, with one probe about each rest time.
 */
typedef struct tandem_retry_policy {
    size_t size;       /* sizeof(tandem_retry_policy) */
    uint64_t base_ms;  /* up to an hour, as all times here; 0, here and below: the default, 100 */
    uint64_t cap_ms;   /* 30,000 */
    uint64_t rest_ms;  /* 60,000 */
    uint32_t factor;   /* 1 to 100; 2 */
    uint32_t attempts; /* up to 1,000,000; 10 */
    uint32_t budget;   /* up to 60,000; 60 */
} tandem_retry_policy;

#define TANDEM_RETRY_POLICY_INIT                                                                   \
    {                                                                                              \
        .size = sizeof(tandem_retry_policy)                                                        \
    }

/* Retry a remote by this policy from its next failure on; NULL: by the default one. It is kept.
 * TANDEM_E_NOT_FOUND, TANDEM_E_INVALID (a number is beyond its range). */
TANDEM_API tandem_err tandem_remote_set_retry(tandem_sync *sync, const char *name,
                                              const tandem_retry_policy *policy);

typedef enum tandem_direction {
    TANDEM_DIRECTION_BOTH,
    TANDEM_DIRECTION_PUSH, /* only to the remote */
    TANDEM_DIRECTION_PULL, /* only from it */
} tandem_direction;

/* "both", "push", "pull". Static. */
TANDEM_API const char *tandem_direction_name(tandem_direction direction);

/*
 * What is shared with a remote: which way operations go, and which of them. An operation goes if its
 * collection, its document, its scope and its branch are each listed; an empty list lists all of
 * them. A job goes whole where one of its operations does, and what creates or deletes a document
 * goes whatever its scope and its branch. Where the remote shares less with this reactor, less goes.
 *
 * A reactor that holds a collection in part, because it pulls only some of it, passes nothing of it
 * on but what it wrote itself. A list that grows brings what is missing, and nothing else; one that
 * shrinks takes nothing away.
 */
typedef struct tandem_share {
    size_t size; /* sizeof(tandem_share) */
    tandem_direction direction;
    const char *const *collections; /* their names */
    size_t collection_count;        /* up to 64, as all of these; 0: all of them */
    const char *const *documents;   /* globs: * any number of characters, ? one, [a-z] one of these;
                                       a backslash takes the meaning of what follows */
    size_t document_count;
    const char *const *scopes;
    size_t scope_count;
    const char *const *branches;
    size_t branch_count;
} tandem_share;

#define TANDEM_SHARE_INIT                                                                          \
    {                                                                                              \
        .size = sizeof(tandem_share)                                                               \
    }

/* Can this be shared? TANDEM_E_INVALID (a name is no name, a glob no glob, a collection is reserved),
 * TANDEM_E_LIMIT (more than 64 of a kind, or 2,048 bytes without the collections), TANDEM_E_NOMEM. */
TANDEM_API tandem_err tandem_share_check(const tandem_share *share);

/* Share this with a remote from now on; NULL: everything. An open session is begun anew. It is
 * kept. TANDEM_E_NOT_FOUND, and the errors of tandem_share_check(). */
TANDEM_API tandem_err tandem_remote_set_share(tandem_sync *sync, const char *name,
                                              const tandem_share *share);
/* tandem_remote_add(), sharing only this from the beginning. Errors: those of both. */
TANDEM_API tandem_err tandem_remote_add_sharing(tandem_sync *sync, const char *name,
                                                const char *url, const tandem_share *share);
/*
 * When a remote over HTTP is asked whether there is something. What this reactor has to send is sent
 * at once, however that is; over WebSocket everything comes at once.
 */
typedef enum tandem_poll_mode {
    TANDEM_POLL_LONG,     /* a request is always waiting there: at once. The default */
    TANDEM_POLL_INTERVAL, /* one request each so often */
    TANDEM_POLL_ADAPTIVE, /* so many on average: more where operations come, fewer where not */
} tandem_poll_mode;

/* Poll a remote so from now on. It is kept.
 * mean_ms  the interval, or its mean: 100 to 600,000; 0: 5,000. Ignored by a long poll.
 * TANDEM_E_NOT_FOUND, TANDEM_E_INVALID. */
TANDEM_API tandem_err tandem_remote_set_poll(tandem_sync *sync, const char *name,
                                             tandem_poll_mode mode, uint64_t mean_ms);

/* How a remote is polled: what was set, what is known, and what that makes of it. The latter two only
 * say something of one that is polled over a link of its own. */
typedef struct tandem_poll_status {
    tandem_poll_mode mode;
    uint64_t mean_ms;     /* 0: a long poll */
    uint64_t interval_ms; /* as it is now; 0: it is not polled */
    uint64_t next_at_ms;  /* wall clock: the next request; 0: not polled, or one is under way */
    const char *reason;   /* "burst", "quiet", …; static, and so is … */
    const char *why;      /* … a sentence */
    uint64_t exchanges;   /* so far */
    double operations_per_second; /* that came, of late */
    double answer_bytes;  /* of an exchange, of late */
    double exchange_ms;   /* it took, of late */
    uint64_t quiet_ms;    /* since something came last */
    uint64_t saved_ms;    /* of the budget, and not spent yet */
    uint32_t failures;    /* links lost, less the exchanges since */
    uint32_t load_permille; /* of what may wait to be executed here, what does */
} tandem_poll_status;

/* "long", "interval", "adaptive". Static. */
TANDEM_API const char *tandem_poll_mode_name(tandem_poll_mode mode);

typedef enum tandem_remote_state {
    TANDEM_REMOTE_CONNECTING,
    TANDEM_REMOTE_IN_STEP, /* each side durably covers what the other announced */
    TANDEM_REMOTE_PUSHING,
    TANDEM_REMOTE_PULLING,
    TANDEM_REMOTE_BACKING_OFF,       /* until retry_at */
    TANDEM_REMOTE_WAITING_FOR_CLOCK, /* until retry_at */
    TANDEM_REMOTE_BLOCKED,           /* by reason, until somebody acts: such as by what it refuses */
    TANDEM_REMOTE_PAUSED,
    TANDEM_REMOTE_RESTING, /* the retry policy is spent; probes at retry_at */
} tandem_remote_state;

/* "connecting", "in_step", … Static. */
TANDEM_API const char *tandem_remote_state_name(tandem_remote_state state);

/* How far a remote is on its way from behind to in step; the last way, once it is. Both directions
 * together; at its end total, transported and applied are equal. */
typedef struct tandem_progress {
    uint64_t total;       /* operations: what was exchanged, and what is left */
    uint64_t transported; /* of them: on their way, or there */
    uint64_t applied;     /* of them: durable there */
    uint64_t bytes;       /* of those applied */
    double rate;          /* operations a second */
    uint64_t left_ms;     /* at this rate; UINT64_MAX: nobody knows */
} tandem_progress;

typedef struct tandem_remote_status {
    const char *name; /* NULL: an inbound session that no remote stands for */
    const char *url;
    uint8_t reactor[TANDEM_ORIGIN_BYTES]; /* zeros until it said hello */
    tandem_remote_state state;
    const char *reason; /* "" or a sentence */
    uint64_t since_ms;  /* wall clock */
    uint64_t retry_at_ms; /* 0: none */
    uint32_t attempts;    /* to connect, that failed since the last that did not */
    tandem_retry_policy retry; /* by which it is retried; with the defaults filled in */
    tandem_share share;        /* of a remote: what was set; lists in byte order, each name once */
    tandem_poll_status poll;
    uint64_t lag_operations; /* held here that it is not known to hold; while it is away: what came
                                since it held everything, so it may have them from others */
    tandem_progress progress;
    uint64_t outbox; /* handles in flight */
    uint64_t inbox;
    uint64_t dead_letters; /* jobs that it refused, see tandem_job_handles() */
    uint64_t sent_operations; /* since sync was opened */
    uint64_t received_operations;
    uint64_t duplicate_operations; /* received and held already */
    uint64_t echoed_operations;    /* received, though the peer had them from here */
    bool partial; /* what comes from it goes through a filter, so that it is held in part here */
} tandem_remote_status;

/* Visit all remotes, then the inbound sessions; everything is borrowed for the call. */
TANDEM_API tandem_err tandem_remotes(tandem_sync *sync,
                                     tandem_err (*visit)(void *context,
                                                         const tandem_remote_status *status),
                                     void *context);

/* Re-read what is kept of remotes. TANDEM_E_CORRUPT if anything is wrong: then report was called
 * for each thing, with a sentence borrowed for the call, from the loop's thread. */
TANDEM_API tandem_err tandem_sync_verify(tandem_sync *sync,
                                         void (*report)(void *context, const char *text),
                                         void *context);

typedef struct tandem_sync_stat {
    char listener_url[128]; /* "" if none */
    uint64_t sessions;      /* inbound, open */
    uint64_t rejected;      /* connections refused or closed for breaking rules */
    uint64_t quarantined;   /* records found corrupt while sending */
} tandem_sync_stat;

TANDEM_API tandem_err tandem_sync_stat_get(tandem_sync *sync, tandem_sync_stat *out);

/*
 * Jobs: those in flight, and the dead letters: jobs of ours that a remote has refused for good. A
 * dead letter is kept, over restarts, until it is discarded or the remote holds its operations after
 * all. It blocks nothing else: what follows flows on, if the remote takes it.
 */

/* One job handle in a mailbox, or a dead letter; borrowed for the call. */
typedef struct tandem_job_status {
    uint64_t id;        /* no other job of this reactor has it, or ever had */
    const char *box;    /* "inbox", "outbox", "dead" */
    const char *remote; /* NULL: an inbound session's that no remote stands for */
    const char *status; /* "unknown", "transport_pending", "execution_pending", "applied", "error" */
    tandem_slice collection, document, branch;
    tandem_slice scopes; /* in order of appearance, each ended by a NUL; empty: a dead letter's */
    const uint8_t *origin;
    uint64_t first_seq, last_seq;
    uint64_t operations, bytes;
    tandem_err err; /* of each of the operations: a job is taken whole or not at all */
    const char *sentence; /* what err means; "" */
    /* Of a dead letter: */
    const uint8_t *reactor; /* that refused it; NULL: it is a handle in flight */
    uint64_t time_ms;       /* of the last refusal, by the wall clock */
    uint64_t offered;       /* so often, and refused every time */
    bool retry;             /* it is to be offered again */
} tandem_job_status;

/* Visit the handles in flight, then the dead letters in order of their ids. */
TANDEM_API tandem_err tandem_job_handles(tandem_sync *sync,
                                         tandem_err (*visit)(void *context,
                                                             const tandem_job_status *status),
                                         void *context);
/* The same of one job. TANDEM_E_NOT_FOUND. */
TANDEM_API tandem_err tandem_job_get(tandem_sync *sync, uint64_t id,
                                     tandem_err (*visit)(void *context,
                                                         const tandem_job_status *status),
                                     void *context);

/*
 * Follow jobs. In an outbox a handle stands for a job that the remote is to apply, in an inbox for
 * one that is applied here; it goes from "unknown" to "transport_pending" to "execution_pending" to
 * "applied", or from any of them but the last to "error", and stays there.
 */
typedef enum tandem_job_news {
    TANDEM_JOB_ADDED = 1, /* a handle was put into a mailbox; a dead letter is kept */
    TANDEM_JOB_CHANGED,   /* its status; of a dead letter: it was refused again, or is to be offered */
    TANDEM_JOB_REMOVED,   /* it was taken out; status is the last it had */
} tandem_job_news;

typedef struct tandem_job_watch tandem_job_watch;

/*
 * Be told of every job of a remote (NULL: of all, and of inbound sessions that no remote stands for)
 * from now on. First, before the call returns, each that is there is told as added.
 *
 * happened     on the loop's thread; status is borrowed for the call. It is in the way of what it
 *              tells of: let it be short. It may look (tandem_remotes(), tandem_job_handles(), …) and
 *              free watches; what would change something is TANDEM_E_STATE from within it, as it is
 *              from within the visitors of jobs.
 * TANDEM_E_NOT_FOUND (no such remote), TANDEM_E_NOMEM. A remote that is removed later is told of no
 * more.
 */
TANDEM_API tandem_err tandem_job_watch_open(tandem_sync *sync, const char *remote,
                                            void (*happened)(void *context, tandem_job_news news,
                                                             const tandem_job_status *status),
                                            void *context, tandem_job_watch **out);
/* After it returns happened() does not run. From any thread, and from within happened(); before the
 * sync is closed. NULL is fine. */
TANDEM_API void tandem_job_watch_free(tandem_job_watch *watch);

/*
 * Offer a dead letter again, as a new handle, whatever the remote has announced to refuse: at once, or
 * when the remote is back, be it after a restart. The letter stays until the outcome is known:
 * delivered, it is removed; refused again, its time and its count change.
 * TANDEM_E_NOT_FOUND: there is no dead letter of this id; TANDEM_E_STORE_FULL, TANDEM_E_IO.
 */
TANDEM_API tandem_err tandem_job_retry(tandem_sync *sync, uint64_t id);
/* Forget a dead letter; its operations stay. Errors as above. */
TANDEM_API tandem_err tandem_job_discard(tandem_sync *sync, uint64_t id);

/*
 * The barrier: wait until the remote durably covers all that this reactor held when the barrier was
 * opened. It is met by the remote's own announcement, whoever delivered the operations, and stands
 * across reconnects.
 */
typedef struct tandem_barrier tandem_barrier;

/* TANDEM_E_NOT_FOUND, TANDEM_E_NOMEM. */
TANDEM_API tandem_err tandem_barrier_open(tandem_sync *sync, const char *name,
                                          tandem_barrier **out);
/* TANDEM_E_TIMEOUT: not yet, wait again if you like. TANDEM_E_REFUSED: it will not take all (the dead
 * letters of tandem_job_handles() say what, and all else is there, or hangs on them), or is away and
 * blocked or paused until somebody acts. TANDEM_E_NOT_FOUND: the remote was removed.
 * TANDEM_E_CLOSED: the sync is closing. TANDEM_E_STATE: the loop is the caller's to drive. */
TANDEM_API tandem_err tandem_barrier_wait(tandem_barrier *barrier, uint64_t timeout_ms);
/* Before the sync is closed. NULL is fine. */
TANDEM_API void tandem_barrier_free(tandem_barrier *barrier);

/* Open, wait, free. */
TANDEM_API tandem_err tandem_wait_covered(tandem_sync *sync, const char *name, uint64_t timeout_ms);

/* Wait until the remote (NULL: every one that is not paused) is in step. TANDEM_E_TIMEOUT. */
TANDEM_API tandem_err tandem_wait_in_step(tandem_sync *sync, const char *name, uint64_t timeout_ms);

#ifdef __cplusplus
}
#endif

#endif
