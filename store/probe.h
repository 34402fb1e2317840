/*
 * Probes: places in the code where something worth knowing really happens. The simulation counts how
 * often each is passed, so that a campaign can be asked whether it came by all of them, and can let a
 * reactor die at any passing: a crash point is a probe. The threads runtime has no hooks, and a probe
 * costs it one look at a pointer.
 *
 * A reactor that died is frozen: its code runs on to the end of its turn, but its disk takes nothing
 * any more (commits fail with TANDEM_E_IO and change nothing) and what it sends is lost. So nothing
 * leaks and no frame is jumped over; whoever drives the simulation then ends the life. The same hook
 * of the disk makes a living one fail on request.
 *
 * Adding a probe is adding a line here and a call where it happens: in the branch that does it, never
 * before a check. One that no simulated run passes fails the build (.ci/run), so each must be
 * reachable there.
 *
 * Threads: those of the env.
 */
#ifndef TANDEM_STORE_PROBE_H
#define TANDEM_STORE_PROBE_H

#include <stdbool.h>

#include "store/env.h"

/* X(name, sentence). In the order of the floors. */
#define TD_PROBES(X)                                                                               \
    /* store */                                                                                    \
    X(STORE_CREATED, "a new store got its identity")                                               \
    X(STORE_OPENED, "a store was opened again")                                                    \
    X(COMMIT_BEFORE, "a group is written, its commit not begun")                                   \
    X(COMMIT_AFTER, "a group is on disk, nobody told")                                             \
    X(COMMIT_FAILED, "a group's commit failed")                                                    \
    X(COMMIT_SKIPPED, "a group had nothing new")                                                   \
    X(STORE_RECOVERED, "a store was closed and opened after a failure")                            \
    X(DUPLICATE_DROPPED, "a job was held already")                                                 \
    X(PREDECESSOR_MISSING, "a job's predecessor was not held")                                     \
    X(FORK_KEPT, "a second operation of the same number was kept")                                 \
    X(FORK_GREW, "a third branch of a fork, or a further one, was kept")                           \
    X(HEAD_QUARANTINED, "a ninth branch was refused")                                              \
    X(RANGE_REFUSED, "a job was refused for good, and recorded as lacking")                        \
    X(RANGE_WANTED, "what nobody here holds was recorded as lacking and wanted")                   \
    X(LACK_FILLED, "a job came that had been lacking")                                             \
    X(LOOSE_TAKEN, "a job was taken that nothing before it vouches for")                           \
    X(LOOSE_ABSORBED, "what was held loose came to stand behind a head")                           \
    X(PAIR_MOVED, "what is held through a filter was covered further")                             \
    X(IDENTITY_WRITTEN, "a new origin is in the open group")                                       \
    X(DISK_PUT_FAILED, "the disk refused a put")                                                   \
    X(DISK_COMMIT_FAILED, "the disk refused a commit")                                             \
    X(DISK_COMMIT_UNKNOWN, "a commit happened and was reported as failed")                         \
    X(REMOTE_KEPT, "the sync store committed a change")                                            \
    X(INDEX_CREATED, "a stream index began from nothing")                                          \
    X(INDEX_COMMIT_BEFORE, "a batch of the index is written, its commit not begun")                \
    X(INDEX_COMMIT_AFTER, "a batch of the index is on disk")                                       \
    X(INDEX_UNDONE, "the index lost what was not committed")                                       \
    X(SNAPSHOT_KEPT, "a fold left a snapshot")                                                     \
    X(SNAPSHOT_USED, "a fold began at a snapshot")                                                 \
    X(SNAPSHOT_DROPPED, "a late operation dropped snapshots")                                      \
    X(EPOCH_CHANGED, "a document began another life")                                              \
    /* reactor */                                                                                  \
    X(FOLD_CONTINUED, "a fold went on from a state in memory")                                     \
    X(FOLD_REPEATED, "a late operation made a state in memory worthless")                          \
    X(INDEX_REBUILT, "an index was dropped and is built anew")                                     \
    X(INDEX_BACK, "the index went back to its last commit")                                        \
    X(READ_WAITED, "a request waited for the index")                                               \
    X(GROUP_SHARED, "several requests went into one commit")                                       \
    X(GROUP_REPEATED, "a group was undone and repeated")                                           \
    X(GROUP_FAILED, "a group was given up")                                                        \
    X(LOCAL_BEFORE_ANSWER, "a local job is on disk, its caller not told")                          \
    X(REMOTE_BEFORE_ANSWER, "a remote job is on disk, its session not told")                       \
    X(JOB_STALE, "a document changed before its job was written")                                  \
    X(CLOCK_WAIT, "an operation from too far ahead was sent back to wait")                         \
    X(OWN_CONTINUED, "operations of our origin came that we did not write")                        \
    X(OWN_COMMITTED, "our chain was continued on disk, a new origin is not taken yet")              \
    X(INCARNATION_CONTINUED, "a new origin: our chain was continued by another")                   \
    X(COMMIT_HAD_HAPPENED, "a commit that was reported as failed had happened")                    \
    X(COMMIT_WAS_LOST, "a commit that failed had not happened")                                    \
    X(OUTCOME_OPEN, "what a failed commit has come to could not be looked up at once")             \
    X(OUTCOME_NOT_KNOWN, "who waited for a failed commit was told that nobody knows")              \
    X(WRITING_STOPPED, "writing stopped")                                                          \
    X(WRITING_MENDED, "writing works again")                                                       \
    /* channel */                                                                                  \
    X(DIALED, "a link was asked for")                                                              \
    X(DIAL_UNANSWERED, "a dial got no answer in its time")                                         \
    X(LINK_ACCEPTED, "a link was accepted")                                                        \
    X(LINK_LOST, "a link ended")                                                                   \
    X(RETRY_SCHEDULED, "a dial is to be tried again")                                              \
    X(RETRY_SPENT, "a retry policy was spent")                                                     \
    X(RETRY_WORKED, "a retry came through")                                                        \
    X(SESSION_CUT_SHORT, "a session ended as soon as it had begun")                                \
    X(POLLED, "an exchange was begun to see whether there is something")                           \
    X(EXCHANGE_BEGUN, "a request was made")                                                        \
    X(EXCHANGE_HELD, "a request or an answer said that no more can be taken for now")              \
    X(EXCHANGE_OVERTOOK, "a request overtook the one before it")                                   \
    X(EXCHANGE_REPEATED, "a request came again, or out of bounds")                                 \
    X(EXCHANGE_GIVEN_UP, "an answer did not come in its time")                                     \
    X(PEER_POLLS, "a peer said that it asks now and then")                                         \
    X(PEER_POLLS_LONG, "a peer that asked now and then waits for answers again")                   \
    X(HELLO_SENT, "HELLO was said")                                                                \
    X(HELLO_TAKEN, "HELLO was heard")                                                              \
    X(JOBS_SENT, "jobs were written into a message")                                               \
    X(PACKED_TAKEN, "jobs arrived packed")                                                         \
    X(JOBS_TAKEN, "jobs arrived and stand in the inbox")                                           \
    X(FRAME_FULL, "a message was full before the outbox was empty")                                \
    X(WINDOW_FULL, "jobs waited for credit")                                                       \
    X(ACK_BEFORE, "jobs are durable, their ACK not sent")                                          \
    X(ACK_SENT, "an ACK was written")                                                              \
    X(ACK_TAKEN, "an ACK arrived")                                                                 \
    X(JOB_REFUSED, "an ACK said that a job was not taken")                                         \
    X(JOB_DIED, "a job of ours was refused for good")                                              \
    X(HEARTBEAT_SENT, "a heartbeat was said")                                                      \
    X(MESSAGE_REPEATED, "a message that came twice was passed over")                               \
    X(MESSAGE_MISSING, "a message was missing in the numbers")                                     \
    X(MESSAGE_CHANGED, "a message was changed on the way, and its sum told")                       \
    X(PEER_BROKE_RULES, "a peer broke the protocol")                                               \
    X(PEER_SILENT, "a peer was given up after silence")                                            \
    X(ERROR_TOLD, "a peer ended a session with an error")                                          \
    X(DELIVERY_ORPHANED, "jobs were executed after their session had ended")                       \
    X(POOL_HELD, "receiving was held for want of memory")                                          \
    X(POOL_RELEASED, "receiving went on")                                                          \
    X(PACKET_LOST, "the network lost a message")                                                   \
    X(PACKET_CUT, "a message met a cut link")                                                      \
    X(PACKET_REPEATED, "the network delivered a message twice")                                    \
    X(PACKET_REORDERED, "a message overtook another")                                              \
    X(PACKET_CORRUPTED, "one bit of a message came wrong")                                         \
    X(PACKET_CLOGGED, "a message was kept on a clogged way")                                       \
    X(LINK_HALF_OPEN, "one side lost a link and the other was not told")                           \
    X(TRANSIT_FULL, "a link took no more for the moment")                                          \
    /* sync */                                                                                     \
    X(SELF_MET, "a reactor met itself")                                                            \
    X(COPY_MET, "a reactor met a copy of itself")                                                  \
    X(COPY_TOLD, "a hub told a reactor of its older copy")                                         \
    X(RESTART_SEEN, "a session gave way to one of the reactor's next life")                        \
    X(SESSION_DOUBLED, "of two sessions with one reactor one was ended")                           \
    X(SERVED_BY_INBOUND, "a remote was served by a session that came in")                          \
    X(PAUSED_REFUSED, "a paused remote was refused")                                               \
    X(DIGEST_EQUAL, "one digest said that all was equal")                                          \
    X(DIGEST_DIFFERED, "the digest over all differed")                                             \
    X(COLLECTION_EQUAL, "a collection's digest was equal")                                         \
    X(RANGES_OFFERED, "digests of ranges were offered, to find what differs")                      \
    X(RANGES_ANSWERED, "a peer was answered which ranges differ")                                  \
    X(RANGES_CROSSED, "two offers of ranges met on their way")                                     \
    X(RANGES_SETTLED, "it was settled which ranges differ")                                        \
    X(RANGES_GIVEN_UP, "instead of comparing ranges everything was listed")                        \
    X(RANGE_GREW, "what was equal had grown when it was known to be equal")                        \
    X(LISTING_TAKEN, "a listing of a vector was taken to its end")                                 \
    X(LISTING_REPEATED, "a listing said less than was known")                                      \
    X(COVER_SENT, "a peer was told up to where it has all that is in the way to it")               \
    X(WITHDRAWN_IN_PART, "what was refused through a filter was asked for in another session")     \
    X(CHANGES_ANNOUNCED, "what had changed was announced")                                         \
    X(POSITION_WENT_BACK, "a peer went back on what it had announced")                             \
    X(REFUSED_RANGE_TOLD, "a peer announced that it refuses operations of ours")                   \
    X(ASKED, "a peer was asked for what is lacking")                                               \
    X(ASKED_OF_FORK, "a branch of a fork was asked for")                                           \
    X(STEPPED_BACK, "a fork was asked for from further back")                                      \
    X(ASK_ANSWERED, "what was asked for has come")                                                 \
    X(ASK_GIVEN_UP, "nothing came: somebody else is asked")                                        \
    X(DIRECT_PATIENCE, "an origin's own reactor was left time to push")                            \
    X(SENT_BY_ANOTHER, "another one had delivered it before")                                      \
    X(OUTBOX_FULL, "a range waits for room in the outbox")                                         \
    X(PUT_BACK, "a refused job went back into its range")                                          \
    X(RANGE_RETRIED, "the time of a range that waited had come")                                   \
    X(RANGE_BLOCKED, "a range was blocked for good")                                               \
    X(SETTLED_ELSEWHERE, "jobs that waited were left to another session")                         \
    X(SETTLED_AS_APPLIED, "a job whose ACK was lost was found at the peer")                        \
    X(SETTLED_TO_RESEND, "a job was sent again with its handle")                                   \
    X(SETTLED_AWAY, "a job that waited was taken out of the outbox")

typedef enum td_probe_kind {
#define TD_PROBE_MEMBER(name, sentence) TD_PROBE_##name,
    TD_PROBES(TD_PROBE_MEMBER)
#undef TD_PROBE_MEMBER
    TD_PROBE_COUNT,
} td_probe_kind;

/* What a store is about to do, or has done. */
typedef enum td_disk_call {
    TD_DISK_BEGIN,     /* a writing transaction, or a recovery, begins */
    TD_DISK_PUT,       /* a put or delete: an error fails it */
    TD_DISK_COMMIT,    /* an error fails the commit, nothing changes */
    TD_DISK_COMMITTED, /* it is on disk; an error is reported all the same */
} td_disk_call;

/* What a runtime hangs into its env; see env.h. No slot may be NULL. */
struct td_hooks {
    void (*probe)(tandem_env *env, td_probe_kind probe);
    /* What the call is to fail with; TANDEM_OK: nothing. */
    tandem_err (*disk)(tandem_env *env, td_disk_call call);
    bool (*is_dead)(tandem_env *env);
};

static inline void td_probe(tandem_env *env, td_probe_kind probe)
{
    if (env->hooks)
        env->hooks->probe(env, probe);
}

static inline tandem_err td_disk_fault(tandem_env *env, td_disk_call call)
{
    return env->hooks ? env->hooks->disk(env, call) : TANDEM_OK;
}

static inline bool td_env_is_dead(tandem_env *env)
{
    return env->hooks && env->hooks->is_dead(env);
}

/* "COMMIT_BEFORE", and its sentence. Static. */
const char *td_probe_name(td_probe_kind probe);
const char *td_probe_sentence(td_probe_kind probe);
/* TANDEM_E_NOT_FOUND. */
tandem_err td_probe_find(const char *name, td_probe_kind *out);

#endif
