/*
 * The sync manager: turns the reactor's events into job handles for every peer that lacks them, what
 * arrives in an inbox into jobs on the executor's queue, and their completion into acknowledgements.
 *
 * It is one actor on the reactor's loop host, and everything below it there (channels, sessions,
 * carriers) runs inside its calls or the loop's; so its parts call each other directly:
 *
 *   sync_manager.c  the actor, opening and closing, peers coming and going, time
 *   remote.c        remotes as users see them: public calls, states
 *   remote_share.c  what is shared with a peer, by both HELLOs
 *   jobs.c          jobs as users see them: handles, dead letters
 *   waiter.c        the barrier, and being in step
 *   peer.c          one peer's session: what it says, asks for and delivers
 *   copies.c        copies of a reactor, ours or a peer's
 *   announcer.c     what it is told
 *   digests.c       of our vectors, for the handshake
 *   comparing.c     and of ranges of them, where there is much
 *   sender.c        what goes out: ranges of the store into the outbox
 *   dead_letters.c  what was refused for good
 *   fresh.c         what was committed last, read once for all of them
 *   puller.c        what is asked for: lacking heads into PULL
 *   ways.c          what goes each way where that is not everything
 *   wants.c         what has to be recorded as lacking, to get what is behind it
 *   coverage.c      what a peer is known to hold
 *
 * Who sends what. A reactor sends the operations of its own origin to every peer that lacks them, as
 * they come. Everything else it announces, and sends when asked: a receiver asks one peer at a time
 * for a range. So no operation echoes in any topology, and none arrives more than twice.
 *
 * Threads: the loop's.
 */
#ifndef TANDEM_SYNC_SYNC_MANAGER_H
#define TANDEM_SYNC_SYNC_MANAGER_H

#include "channel/channel.h"
#include "reactor/reactor_parts.h"
#include "store/share.h"
#include "store/sync_store.h"
#include "sync/coverage.h"
#include "sync/dead_letters.h"
#include "sync/fresh.h"
#include "sync/progress.h"
#include "sync/remote_share.h"
#include "sync/sync.h"

enum {
    TD_SYNC_PEERS_MAX = 1024 + 64, /* as many as the network carries, and the remotes */
    TD_SYNC_REMOTES_KEPT = 64, /* places that inbound sessions leave to remotes */
    TD_ANNOUNCE_MS = 20,        /* changes are gathered so long before they are announced */
    TD_GATHER_PEERS = 20,       /* and our own, before they are pushed, 1 ms for so many peers */
    TD_FRESH_PEERS = 3,        /* with so many, what was committed last is kept for all */
    /* Copies of operations for all outboxes, until they are sent; their spare blocks are as much at most. */
    TD_COPIES_BYTES_MAX = 4 * 1024 * 1024,
    TD_OUTBOX_JOBS_MAX = 128 * 1024, /* handles in all outboxes, of about 400 bytes each */
    TD_ASKS_MAX = 256,          /* ranges asked of one peer and not come yet */
    TD_ASKED_RANGES_MAX = 1024, /* ranges that one peer may ask for */
    TD_REFUSED_RANGES_MAX = 1024, /* ranges that one peer may announce as refused in a session */
    TD_ASK_PATIENCE_MS = 10000, /* no progress for so long: ask somebody else */
    TD_DIRECT_PATIENCE_MS = 3000, /* leave an origin's own reactor so long to push it */
    TD_WATCH_MS = 500,
    TD_GOODBYE_MS = 1000, /* links have so long to close */
    TD_START_AGAIN_MS = 1000, /* after a channel could not be started */
    TD_REPLACED_KEPT = 32, /* instances whose sessions gave way to another's */
};

/* The actor's messages. */
enum { TD_SYNC_TICK = 1, TD_SYNC_RETURNED, TD_SYNC_RECORDED, TD_SYNC_CALL };

typedef struct td_peer td_peer;
typedef struct td_ask_range td_ask_range;
typedef struct td_want td_want;
typedef struct td_waiter td_waiter;

/* Our vector of a collection, in short. */
typedef struct td_vector_digest {
    uint64_t last_ordinal; /* up to which it certainly holds */
    uint8_t digest[TANDEM_HASH_BYTES];
    uint64_t origins;
} td_vector_digest;

/* One that was computed, valid while the collection's last ordinal is the same. */
typedef struct td_cached_digest {
    td_vector_digest vector;
    td_hash_entry hash_entry;
    size_t size;
    uint8_t name[];
} td_cached_digest;

/* A mailbox of a peer, for whoever observes it. */
typedef struct td_box {
    td_peer *peer;
    bool is_inbox;
} td_box;

/* A remote, or an inbound session that no remote stands for. */
struct td_peer {
    tandem_sync *sync;
    uint64_t serial; /* no other of this sync ever had it */
    td_peer *prev, *next;
    bool is_remote;
    td_remote_record record; /* of a remote, as it is kept */
    uint8_t *share_bytes;    /* those of record.share */
    uint64_t held;           /* of a remote: record.held, as far as it is known by now */
    tandem_channel *channel;
    td_box boxes[2]; /* outbox, inbox */
    td_handle_shelf copies; /* of what was read for the outbox and is not sent yet */
    td_peer *served_by; /* an inbound session from the same reactor does the work */
    bool redial;        /* at once, when its link is gone */
    bool removed;       /* to be freed when its link and its deliveries are gone */
    uint64_t start_at_ms; /* its channel could not be started: again then; 0: it was */
    uint64_t due_ms;      /* time is to be looked at for it then, if nothing happens before */
    uint32_t deliveries;
    uint64_t delivered_ms; /* when the last one came */

    /* This session: */
    bool said_hello;
    uint8_t reactor[TANDEM_ORIGIN_BYTES];
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint8_t instance[TD_WIRE_INSTANCE_BYTES]; /* zeros: it does not say */
    const td_identity *identity; /* ours, as it was told or goes by itself; NULL: neither yet */
    bool shares_settled;
    const td_peer *shares_of; /* the remote by which our shares were settled; NULL: none */
    tandem_slice own_gives, own_takes; /* what we say of them, borrowed from it */
    bool knows_shares; /* the peer does */
    td_share gives, takes; /* what goes to the peer, and what comes */
    uint64_t peer_clock_ms; /* its HLC's milliseconds … */
    uint64_t peer_clock_at_ms; /* … when it was told, monotonic */
    td_coverage coverage;
    uint64_t hello_clock, peer_hello_clock; /* what both HELLOs said */
    bool knows_ranges;    /* the peer does */
    td_ranges ranges;     /* of our collections */
    td_collection_cover *comparing; /* of whose origins ranges are to be told */
    bool all_sent;        /* our digest over all */
    bool digests_wanted;  /* our list of digests is to be sent */
    bool digests_sent;    /* … to its end */
    char digests_after[TANDEM_NAME_BYTES_MAX + 1];
    bool peer_all_known;  /* equal at once: what is not in the table is held up to all_ordinal */
    uint64_t all_ordinal;
    bool peer_listed;     /* its list of digests is complete */
    td_collection_cover *listings; /* to be sent */
    uint64_t announce_at_ms;       /* dirty origins are due; 0: none */
    bool covers_due;               /* COVER may have something to say */
    bool refused_in_part;          /* of some origin, in this session */
    td_collection_cover *sending;
    bool troubled; /* some range is blocked, or waits for its time */
    uint32_t asks;         /* ranges asked of it */
    uint32_t asked_ranges; /* ranges it asked for */
    uint32_t refused_ranges; /* that it announced */
    td_ask_range *ask_queue; /* to be put into the next PULL */

    td_peer_letters letters;

    /* What it looks like: */
    tandem_remote_state state;
    char reason[TD_WIRE_TEXT_BYTES_MAX];
    uint64_t since_ms;
    tandem_err last_err;
    char last_text[TD_WIRE_TEXT_BYTES_MAX];
    uint64_t sent_operations, received_operations, duplicate_operations, echoed_operations;
    uint64_t exchanged_bytes; /* of those sent and received */
    td_progress progress;
};

/* A life of a reactor whose session gave way to that of another life. If it comes back, both live:
 * one is a copy of the other. */
typedef struct td_replaced {
    uint8_t reactor[TANDEM_ORIGIN_BYTES];
    uint8_t instance[TD_WIRE_INSTANCE_BYTES];
} td_replaced;

struct tandem_sync {
    tandem_reactor *reactor;
    tandem_env *env;
    td_op_store *ops;
    td_executor *executor;
    td_runtime *runtime;
    td_host *loop;
    td_actor *actor;
    tandem_sync_options options;
    td_sync_store *store;
    td_carrier *websocket, *http; /* opened when first needed */
    td_carrier *memory;           /* the harness gives it … */
    td_carrier *exchanges;        /* … and on it, opened when first needed, stand links as of HTTP */
    char listener_url[128];
    td_pool pool;
    td_mailbox_share outboxes;
    uint32_t asks_max; /* TD_ASKS_MAX; a simulation makes it smaller … */
    uint64_t ranges_least; /* … and this: TD_RANGES_LEAST */
    td_job_source source;
    tandem_subscription *subscription;
    uint8_t instance[TD_WIRE_INSTANCE_BYTES]; /* this life of the reactor */
    td_replaced replaced[TD_REPLACED_KEPT];   /* a ring */
    uint32_t replaced_count;                  /* ever */
    td_peer *peers;
    uint32_t peer_count;
    uint64_t peers_opened;
    td_hash_table digests; /* td_cached_digest */
    td_hash_table asks; /* all that are asked of anybody, by collection and origin */
    td_want *wants;
    uint64_t wants_at_ms; /* no others before: one could not be recorded */
    unsigned seen_lack_changes;
    td_dead_letters dead;
    td_waiter *waiters;
    tandem_job_watch *watches;
    bool jobs_watched; /* somebody does, or did: mailboxes tell */
    unsigned telling; /* somebody is shown jobs, and may change nothing */
    uint64_t seen_position;
    td_fresh fresh;
    size_t copies_bytes; /* of all peers */
    uint64_t looked_ms; /* when what was committed was last looked at */
    uint64_t rejected;
    uint64_t quarantined;
    uint64_t *corrupt; /* ordinals that were counted */
    size_t corrupt_count;
    td_message tick;
    bool tick_timed;
    uint64_t tick_at_ms;
    uint64_t due_ms; /* all peers are to be looked at then */
    uint32_t deliveries; /* on their way through the executor */
    uint64_t watch_at_ms;
    char agent[64]; /* what HELLO says for people */
    bool closing;
    bool freeing; /* the carriers are being freed */
    td_reply *closed; /* set when the links are closed and the last delivery is back */
    td_reply *farewell[3]; /* what closing waits for: it must not fail for want of memory */
};

/* ---- sync_manager.c ---- */

/* Open with carriers of the harness: none on sockets, memory given (and then owned). */
tandem_err td_sync_open_on(tandem_reactor *reactor, const tandem_sync_options *options,
                           td_carrier *memory, tandem_sync **out);
/* As a crash does: nobody is told. */
void td_sync_crash(tandem_sync *sync);
/* Have time, and all peers, looked at no later than this (monotonic ms). */
void td_sync_tick_at(tandem_sync *sync, uint64_t at_ms);
/* The same with this peer alone: of a thousand most have nothing to be looked at. */
void td_peer_tick_at(td_peer *peer, uint64_t at_ms);
uint64_t td_sync_now_ms(tandem_sync *sync);
/* Look at what was committed since the last look. */
void td_sync_look_at_commits(tandem_sync *sync);
/* The carrier for a URL. TANDEM_E_INVALID, TANDEM_E_UNSUPPORTED. */
tandem_err td_sync_carrier(tandem_sync *sync, const char *url, td_carrier **out);
/* Make a peer of a remote, and connect it unless it is paused. */
tandem_err td_remote_open(tandem_sync *sync, const td_remote_record *record);
/* The policy that what is kept of a remote stands for, with the defaults filled in. */
td_retry_policy td_sync_retry_policy(const tandem_sync *sync, const td_kept_retry *kept);
/* The same of how it is polled. */
td_poll_policy td_sync_poll_policy(const td_kept_poll *kept);
/* Let a remote connect from now on, unless it is paused or the sync offline. */
tandem_err td_peer_start(td_peer *peer);

/* A public call on its way to the loop: run() there, with whatever arguments it needs. */
typedef struct td_sync_call td_sync_call;
struct td_sync_call {
    td_message message;
    tandem_err (*run)(tandem_sync *sync, td_sync_call *call);
    td_reply *reply;
    const char *name, *url;
    void *argument, *context;
    uint64_t number;
    bool flag;
    bool looks; /* changes nothing */
};
/* Run it on the loop and wait; a driven loop is run from here. TANDEM_E_STATE: it comes from somebody
 * who is shown jobs, and does not only look. */
tandem_err td_sync_call_loop(tandem_sync *sync, td_sync_call *call);
/* The same with the caller's reply: it does not fail for want of memory. */
tandem_err td_sync_call_with(tandem_sync *sync, td_sync_call *call, td_reply *reply);
/* A record that does not verify was met: count it once. */
void td_sync_count_corrupt(tandem_sync *sync, tandem_slice collection, uint64_t ordinal);
/* Under which we write. */
static inline const uint8_t *td_sync_origin(const tandem_sync *sync)
{
    return td_op_store_identity(sync->ops)->origin;
}
/* Visit peers that are open and known: for what must reach all. */
static inline bool td_peer_is_open(const td_peer *peer)
{
    td_session *session = td_channel_session(peer->channel);

    return session && td_session_is_open(session) && peer->said_hello;
}

/* ---- remote.c ---- */

/* NULL if there is none of this name. */
td_peer *td_sync_find_remote(tandem_sync *sync, const char *name);
/* The peer that carries its data: itself, or the inbound session that serves it. */
td_peer *td_peer_serving(td_peer *peer);
/* Is all that each side holds known to the other, as far as we can tell? */
bool td_peer_is_compared(const td_peer *peer);
/* What the remote is known to hold is kept for when it is away. */
void td_remote_keep_held(td_peer *peer);
/* The state, reason and since of a peer may have changed. */
void td_peer_refresh(td_peer *peer);

/* Time has passed: how far is it on its way to in step? */
void td_peer_look_at_progress(td_peer *peer);

/* ---- remote_share.c ---- */

/* Have share borrow from a copy of its bytes, which the caller owns; NULL: there are none. */
tandem_err td_remote_copy_share(td_kept_share *share, uint8_t **bytes_out);
/* Does a remote share less than everything? */
bool td_remote_is_restricted(const td_peer *remote);
/* What a remote shares is about to change: end the sessions that its reactor has dialed. */
void td_remote_end_sharing(td_peer *remote);
/* What is kept of its share goes: what sessions would still say is not borrowed from it any more. */
void td_remote_take_back_shares(td_peer *remote);

/* Do we know enough of the peer to say what we share with it? */
bool td_peer_may_say_shares(const td_peer *peer);
/* Say in HELLO what we give and take. */
void td_peer_say_shares(td_peer *peer, td_wire_hello *out);
/* Now that the peer's reactor is known: end the sessions in which we have said something else than
 * what a remote shares with the same one. True if this is one of them. */
bool td_peer_end_stale_shares(td_peer *peer);
/* The peer has said it. TANDEM_E_NOMEM. */
tandem_err td_peer_take_shares(td_peer *peer, const td_wire_hello *hello);
void td_peer_forget_shares(td_peer *peer);
/*
 * The two ways of a session: what goes to the peer, which is what we give and it takes, and what
 * comes from it. From its HELLO to the end of the session; else everything.
 */
const td_share *td_peer_gives(const td_peer *peer);
const td_share *td_peer_takes(const td_peer *peer);

/* ---- jobs.c ---- */

/* Whoever watches jobs, now or later, is told of those of this peer, which is new. */
void td_jobs_observe(td_peer *peer);
/* The peer is about to be freed, with what is in its mailboxes. */
void td_jobs_forget(td_peer *peer);
/* Something was done with a dead letter. */
void td_jobs_letter(tandem_sync *sync, tandem_job_news news, const td_dead_letter *letter);
/* The sync is about to be freed. */
void td_jobs_end(tandem_sync *sync);

/* ---- ways.c ---- */

/* Does anything of a collection go any way? */
bool td_way_is_shared(const td_peer *peer, tandem_slice collection);
/* Has the way from the peer, or to it, a filter? */
bool td_way_in_has_filter(const td_peer *peer);
bool td_way_out_has_filter(const td_peer *peer);
/* Is an operation in the way to the peer, and not covered by a pair of its? */
bool td_way_out_has(const td_peer *peer, const td_collection_cover *collection,
                    const td_operation *operation);
/* Of a way in with a filter: up to where we hold all of an origin that is in it; 0 if it has forked, and it
 * is not all. */
uint64_t td_way_in_reached(td_peer *peer, const td_origin_cover *origin);
/* Did the peer announce a head that no head of ours vouches for? */
bool td_way_in_is_vague(td_peer *peer, const td_origin_cover *origin);
/* Is all that the peer announced held here, without a gap, or lacking? */
bool td_ways_holds_heads(td_peer *peer, const td_origin_cover *origin);
/* Is nothing of our origin sent on our own account, because the peer announced of it what is not held here,
 * be that in the way to us or not? It may be of another branch, and the peer asks. What goes through a filter
 * need not follow anything: that is told of by td_ways_part(). */
bool td_ways_waits(td_peer *peer, const td_origin_cover *origin);
/* The peer has announced heads of an origin without a filter. */
void td_ways_take_heads(td_peer *peer, td_origin_cover *origin);
/* Does it show, now that we hold as much, that what a pair of the peer's covers is of another branch than
 * ours? That is told once. */
bool td_ways_part(td_peer *peer, td_origin_cover *origin);
/* The peer has announced one of its pairs. */
tandem_err td_ways_take_pair(td_peer *peer, td_collection_cover *collection,
                             const td_wire_vector *entry);
/* Something was sent or acknowledged: COVER may be due. */
void td_ways_progressed(td_peer *peer);
/* We hold a lack of ours now that begins there: what was told of what follows was told without it. */
void td_ways_filled(td_peer *peer, td_origin_cover *origin, uint64_t first);
/* The peer asks for a range that ends there: if that is a lack of its, it is told when it has what of that is
 * in the way … */
void td_ways_seek(td_peer *peer, td_origin_cover *origin, uint64_t last);
/* … and all of the range was sent now. */
void td_ways_sent(td_peer *peer, td_origin_cover *origin);
/* Append a COVER, or TANDEM_END. */
tandem_err td_ways_announce(td_peer *peer, uint64_t number, tandem_writer *out);
/* Do we hold a collection in part? */
bool td_ways_holds_in_part(tandem_sync *sync, tandem_slice collection);
/* Append entries of our pairs, of these origins alone (named NULL: of all). */
tandem_err td_ways_write_pairs(td_peer *peer, tandem_slice collection, const uint8_t *named,
                               uint32_t count, tandem_writer *out, uint32_t *entries);

/* ---- waiter.c ---- */

/* Something has changed: is what somebody waits for there? */
void td_sync_check_waiters(tandem_sync *sync);
/* All of them end with TANDEM_E_CLOSED. */
void td_sync_end_waiters(tandem_sync *sync);

/* ---- peer.c ---- */

extern const td_session_user td_peer_user;
void td_peer_closed(void *context, tandem_err err, const char *text);
/* It has told what its clock is. */
void td_peer_take_clock(td_peer *peer, uint64_t hlc);

/* ---- announced.c ---- */

/* The session's calls; context is a td_peer. */
tandem_err td_announced_have(void *context, const td_wire_have *have);
tandem_err td_announced_pull(void *context, const td_wire_pull *pull);
tandem_err td_announced_cover(void *context, const td_wire_cover *cover);
/* What the peer holds of a collection is known from now on: send it what is ours. */
tandem_err td_peer_knows(td_peer *peer, td_collection_cover *collection);
/* Up to which ordinal of ours the peer certainly holds a collection of which there is no cover. */
uint64_t td_peer_base(const td_peer *peer, tandem_slice name);
/* The cover of a collection that is certainly shared with the peer; NULL if what it holds there is
 * not known yet. */
tandem_err td_peer_collection(td_peer *peer, tandem_slice name, td_collection_cover **out);
/* An entry of a collection that was equal up to its base: the peer holds what stood before it. */
tandem_err td_peer_origin(td_peer *peer, td_collection_cover *collection, const uint8_t *origin,
                          td_origin_cover **out);
/* Which of the peer's lacks do we hold, up to seq? Others are of a branch that may be gone everywhere. */
void td_peer_look_at_lacks(td_peer *peer, td_origin_cover *origin, uint64_t seq);

/* ---- deliveries.c ---- */

/* The session's call; context is a td_peer. */
void td_deliveries_take(void *context, td_delivery *delivery);
/* A delivery came back from the executor. */
void td_peer_delivered(td_peer *peer, td_delivery *delivery);
/* Our own origin has operations in this collection that it had not. */
void td_peer_own_grew(td_peer *peer, tandem_slice collection, uint64_t seq);
/* Operations of an origin up to seq have been committed here. */
void td_peer_committed(td_peer *peer, tandem_slice collection, const uint8_t *origin,
                       uint64_t seq);
/* Our lacks of an origin are others now. */
void td_peer_lacks_changed(td_peer *peer, tandem_slice collection, const uint8_t *origin);
/* Refusals were withdrawn here. */
void td_peer_withdrawn(td_peer *peer);

/* ---- copies.c ---- */

/* This life of the reactor begins. */
void td_copies_init(tandem_sync *sync);
/* A HELLO named our own reactor or origin: the error to refuse it with. */
tandem_err td_copies_meet(td_peer *peer);
/* We are told, or see, that an older copy of us lives. */
void td_copies_told(td_peer *peer);
/* Another session with the peer's reactor is open. TANDEM_OK: it goes; TANDEM_END: it is the same
 * life, which is not for us to decide; TANDEM_E_COPY: the peer is to take a new origin. */
tandem_err td_copies_resolve(td_peer *peer, td_peer *other);
/* We write under a new origin: every session begins anew. */
void td_copies_reincarnated(tandem_sync *sync);

/* ---- announcer.c ---- */

/* The session's announce and heartbeat; context is a td_peer. */
tandem_err td_announcer_next(void *context, uint64_t number, tandem_writer *out);
void td_announcer_heartbeat(void *context, uint64_t number, tandem_writer *out);
/* Have our vector of a collection listed to the peer, once a session. */
void td_announcer_list(td_peer *peer, td_collection_cover *collection);
/* Have all our digests sent, once a session; where ranges were compared, of those that differ. */
void td_announcer_want_digests(td_peer *peer);
/* Begin a HAVE; returns where its count is to be patched. */
size_t td_announcer_begin_have(td_peer *peer, uint64_t number, td_have_level level,
                               tandem_writer *out, size_t *more_at_out);
/* Something is dirty: announce it within TD_ANNOUNCE_MS. */
void td_announcer_soon(td_peer *peer);

/* ---- digests.c ---- */

tandem_err td_sync_digest(tandem_sync *sync, tandem_slice collection, td_vector_digest *out);
/* The digest over all collections that hold an operation and are shared with a peer, and how many those
 * are. Zeros if one of them is held in part: that equals nothing. */
tandem_err td_sync_digest_all(td_peer *peer, uint64_t *count_out, uint8_t out[TANDEM_HASH_BYTES]);
void td_sync_forget_digests(tandem_sync *sync);
/* A page of the names of collections that hold an operation, each terminated by NUL. TANDEM_END: it
 * is the last. */
tandem_err td_sync_names_after(tandem_sync *sync, const char *after, uint32_t count_max,
                               tandem_writer *out);
/* Visit all of them, with no transaction open. */
tandem_err td_sync_each_collection(tandem_sync *sync,
                                   tandem_err (*visit)(void *context, tandem_slice name),
                                   void *context);

/* ---- comparing.c ---- */

/* The digests over all differ; the peer has so many collections, we so many: have ours compared. */
void td_comparing_collections(td_peer *peer, uint64_t ours, uint64_t theirs);
/* The digests of a collection differ, of so many origins of ours and of the peer's: have ours compared,
 * or listed. */
void td_comparing_origins(td_peer *peer, td_collection_cover *collection, uint64_t ours,
                          uint64_t theirs);
/* The peer lists all its digests, or we do: ranges of them are not compared any more. */
void td_comparing_plain_digests(td_peer *peer);
/* The same of a listing of a collection. */
void td_comparing_plain_listing(td_peer *peer, td_collection_cover *collection);
/* Was a collection in a range that was equal? */
bool td_comparing_is_equal(const td_peer *peer, tandem_slice name);
/* A HAVE of level 3 has come. */
tandem_err td_comparing_take(td_peer *peer, const td_wire_have *have);
/* Append one, or TANDEM_END. */
tandem_err td_comparing_announce(td_peer *peer, uint64_t number, tandem_writer *out);
/* Forget it all, before the coverage is released. */
void td_comparing_forget(td_peer *peer);

/* ---- sender.c ---- */

/* A range is to be sent: from this seq on. */
tandem_err td_sender_add(td_peer *peer, td_origin_cover *origin, uint64_t first, uint64_t last,
                         uint64_t sent_ordinal);
/* The peer asks for what is on its way anyway: there may be more of it to send. */
void td_sender_asked(td_peer *peer, td_origin_cover *origin);
/* Fill the outbox as far as it goes. */
void td_sender_fill(td_peer *peer);
/* Does the peer say by this error that it will not have a job, whenever it is offered? */
bool td_sender_is_refusal(tandem_err err);
/* Was it sent without being asked for? */
bool td_sender_is_ours(td_peer *peer, const tandem_job_handle *handle);
/* A handle came to its end. */
void td_sender_finished(td_peer *peer, tandem_job_handle *handle, uint64_t detail);
/* A session has begun: nobody says in it what the peer holds of collections that are in neither way. Take
 * out the handles that wait for that. */
void td_sender_settle_unshared(td_peer *peer);
/* What the peer holds of a collection became known: settle the handles that wait for it. */
void td_sender_settle(td_peer *peer, td_collection_cover *collection);
/* Put ranges whose time has come back to work; returns when to call again. */
uint64_t td_sender_tick(td_peer *peer, uint64_t now_ms);
/* Why some range does not go on: blocked for good, or waiting for its time (what it waits for is in
 * its retry_err then). TANDEM_OK if all do. */
tandem_err td_sender_trouble(td_peer *peer, const td_origin_cover **origin_out);
/* Another session serves the peer: what waits in its own outbox goes there anew. */
void td_sender_leave(td_peer *peer);
/* The read of a td_job_source; context is the sync. */
tandem_err td_sender_read(void *context, const tandem_job_handle *handle,
                          const td_job_visitor *visitor);

/* ---- wants.c ---- */

/* Tell a cover what our lacks are now. */
tandem_err td_wants_load(td_peer *peer, td_origin_cover *origin);
/* Lacks of a collection may have changed: have peers told. */
void td_wants_look(tandem_sync *sync, tandem_slice collection);
/* Is something that the peer lacks to be recorded as lacking here before more of this origin is asked of
 * it? Has that done; then the peer is asked again. */
bool td_wants_next(td_peer *peer, td_origin_cover *origin);
/* Through the way from the peer we hold all of an origin up to these heads: have that recorded. */
void td_wants_cover(td_peer *peer, tandem_slice collection, const td_wire_origin *origin);
/* A message TD_SYNC_RECORDED. */
void td_wants_recorded(tandem_sync *sync, td_message *message);

/* ---- puller.c ---- */

/* Does the peer announce a head of this origin that we do not hold, or hold a lack of ours that we want?
 * Keeps the lacking list. */
tandem_err td_puller_look(td_peer *peer, td_origin_cover *origin);
/* Ask for what is lacking, as far as it is to be asked now. */
void td_puller_ask(td_peer *peer);
/* Append the next PULL, or TANDEM_END. */
tandem_err td_puller_announce(td_peer *peer, uint64_t number, tandem_writer *out);
/* The peer's session is over: what was asked of it is to be asked elsewhere. */
void td_puller_forget(td_peer *peer);
/* A job of this origin was refused here because its predecessor is not held. */
void td_puller_step_back(td_peer *peer, tandem_slice collection, const uint8_t *origin);
/* A job of this origin up to this seq came, or was held already, and is loose: if that is all that was
 * asked for, its branch begins before. */
void td_puller_came_loose(td_peer *peer, tandem_slice collection, const uint8_t *origin,
                          uint64_t seq);
/* A job of this origin that came from this peer, from this seq on, was refused here because it is dated
 * too far ahead: what is lacking of it is asked for when our clock has come to that, and nowhere
 * before; unless something before it is lacking, too. */
void td_puller_wait(td_peer *peer, tandem_slice collection, const uint8_t *origin, uint64_t seq,
                    uint64_t hlc);
/* Is our clock all that keeps us from what the peer announced? until: wall clock ms. */
bool td_puller_is_waiting(td_peer *peer, uint64_t *until_out);
/* A job of this origin, from this seq on, came and could not be applied here: for now, or for good. */
void td_puller_failed(td_peer *peer, tandem_slice collection, const uint8_t *origin, uint64_t seq,
                      tandem_err why);
/* Operations of an origin have been committed: is what was asked for here? */
void td_puller_progress(tandem_sync *sync, tandem_slice collection, const uint8_t *origin);
void td_puller_tick(tandem_sync *sync, uint64_t now_ms);

#endif
