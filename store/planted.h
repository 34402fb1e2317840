/*
 * Planted bugs: the tester's test. Each is a mistake that somebody could make, in the place where it
 * would be made and mostly one condition long; the simulator must find each within 500 seeds. They
 * exist in a build of their own (-Dplanted=true), where the environment variable TANDEM_PLANTED names
 * the one that is awake. In every other build the question is a constant, and nothing of them is in
 * the binary; .ci/run looks.
 *
 * tools/planted wakes one after the other and counts the seeds; tests/PLANTED.md keeps the table.
 * Adding a bug is adding a line here and a condition where it bites. One that is not found shows
 * something that nobody looks at: then it is the oracle that has to learn (sync/oracle.h).
 *
 * Threads: any.
 */
#ifndef TANDEM_STORE_PLANTED_H
#define TANDEM_STORE_PLANTED_H

#include <stdbool.h>

/* X(name, options of `tandem sim` that it takes, sentence). In the order of the floors. */
#define TD_PLANTED_BUGS(X)                                                                         \
    /* store */                                                                                    \
    X(DEDUPE_SKIPPED, "", "what is held already is appended again")                                \
    X(CHAIN_UNCHECKED, "", "an operation is taken whose predecessor is not held")                  \
    X(HEAD_LOST, "", "of the heads of a fork the newest replaces another")                         \
    X(JOB_HALVED, "", "of a job only the first half is written")                                   \
    X(SEQ_REUSED, "", "the next seq is taken from the disk, not from the open group")              \
    X(COMMIT_ERROR_DROPPED, "", "a commit that failed is taken for a good one")                    \
    X(CLOCK_NOT_KEPT, "", "the clock's high water is not kept on disk")                            \
    X(INDEX_NOT_UNDONE, "", "the index keeps in mind what a failed commit took back")              \
    X(SNAPSHOT_OUTLIVED, "", "a snapshot stays though an operation before it came late")           \
    X(FOLDED_AS_IT_CAME, "", "operations are folded in their order of arrival")                    \
    X(LACK_DROPPED, "", "what is lacking is forgotten when something comes behind it")             \
    X(WITHDRAWAL_DROPPED, "", "what was refused stays refused when that is withdrawn")             \
    /* reactor */                                                                                  \
    X(ANSWERED_EARLY, "", "whoever asked is answered before the commit")                           \
    X(COMMITTED_EARLY, "", "a commit is made known before it has happened")                        \
    X(COMMIT_REPEATED, "", "a failed commit is done again without a look at what happened")        \
    X(FOUND_AND_FAILED, "", "a commit turns out to have happened, and its error is answered")      \
    X(CLOCK_NOT_OBSERVED, "", "the clock does not move on with what is received")                  \
    X(REFUSAL_DROPPED, "", "a job that could not be appended is acknowledged all the same")        \
    X(REFUSAL_AS_TAKEN, "", "what was refused for good is acknowledged as taken")                  \
    X(SKEW_UNCHECKED, "", "operations dated far ahead are taken")                                  \
    X(CLOCK_STOPS_ALL, "", "with what is dated ahead all that comes after it has to wait")         \
    X(LATE_NOT_REFOLDED, "", "a state in memory goes on though an operation came late")            \
    X(READ_BEHIND, "", "a read does not wait for what was committed before it")                    \
    X(READ_UNSETTLED, "", "a read does not see what waits in memory for its turn")                 \
    X(OWN_GOES_ON, "", "a reactor whose chain another continued keeps its origin")                 \
    X(ORIGINS_WITHOUT_END, "", "a new origin is taken however often there is a reason")            \
    X(OWN_FORK_FORGOTTEN, "--script tests/plans/continued_before_a_crash.plan",                    \
      "a crash makes a reactor forget that its chain was continued")                               \
    X(BACKWARDS_MIXED, "--workload text", "what is typed backwards is anchored as if typed forwards") \
    X(NEIGHBOUR_DELETED, "--workload text", "a deletion takes what was typed before it, too")      \
    X(BRANCHING_NOT_KEPT, "--workload text", "a snapshot forgets behind what something was typed") \
    /* channel */                                                                                  \
    X(ACKED_EARLY, "", "a job is acknowledged when it arrives")                                    \
    X(ANSWERS_MIXED_UP, "", "of the jobs of one message each gets another's answer")               \
    X(WINDOW_NOT_GIVEN_BACK, "", "what is acknowledged still counts as in flight")                 \
    X(CREDIT_NOT_GIVEN_BACK, "", "what is executed still counts against the inbox")                \
    X(POOL_NOT_GIVEN_BACK, "", "what is executed still counts against the pool")                   \
    X(POOL_WITHOUT_END, "", "receiving goes on when the pool is used up")                          \
    X(HELD_FOR_EVER, "", "receiving that was held for want of memory does not go on")              \
    X(HANDLE_LEFT, "", "a finished handle stays in the outbox")                                    \
    X(STATUS_WENT_BACK, "", "a job that is sent again begins its life anew")                       \
    X(STATUS_SKIPPED, "", "what has arrived is applied without being execution pending")           \
    X(APPLIED_FAILS, "", "a handle that was applied is reported as failed")                        \
    X(GAP_PASSED_OVER, "", "a message that was lost on the way is not missed")                     \
    X(REPEAT_TAKEN, "", "a message that comes twice is taken twice")                               \
    X(SILENCE_SUFFERED, "", "a peer that has fallen silent is waited for")                         \
    X(RETRY_WITHOUT_JITTER, "", "all dial again at the same moment")                               \
    X(POLL_FORGOTTEN, "", "a peer that is polled is asked when there is something to send, else never") \
    /* sync */                                                                                     \
    X(ANNOUNCE_FORGOTTEN, "", "what came from one peer is not announced to the others")            \
    X(OWN_NOT_SENT, "", "what is written during a session waits for the next one")                 \
    X(REFUSED_AS_HELD, "", "what a peer refused is taken for held there")                          \
    X(PUT_BACK_FORGOTTEN, "", "what a peer refused for now is not sent again")                     \
    X(ASKED_TWICE, "--fault latency", "one range is asked of two peers at once")                                  \
    X(ASKS_WITHOUT_END, "", "a peer is asked for any number of ranges at once")                    \
    X(FORK_NOT_SEARCHED, "", "nobody looks for where a fork began")                   \
    X(COVERAGE_KEPT, "", "what a peer held is remembered across sessions")                         \
    X(DIGEST_STALE, "", "a digest is used again though the collection has changed")                \
    X(GROWN_AS_HELD, "", "what has come since ranges were offered is taken for held there")        \
    X(LACK_NOT_TOLD, "", "what is lacking is not announced")                                       \
    X(OFFERED_AGAIN, "", "what a peer has announced to refuse is offered to it again")             \
    X(COPY_NOT_TOLD, "", "a copy that is met keeps its origin")

#ifdef TANDEM_PLANTED

typedef enum td_planted_bug {
#define TD_PLANTED_MEMBER(name, options, sentence) TD_PLANTED_##name,
    TD_PLANTED_BUGS(TD_PLANTED_MEMBER)
#undef TD_PLANTED_MEMBER
    TD_PLANTED_COUNT,
} td_planted_bug;

/* Is this the one that is awake? */
bool td_planted(td_planted_bug bug);

#else

#define td_planted(bug) false

#endif

#endif
