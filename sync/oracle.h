/*
 * The oracle: it knows which operation is on which disk of a simulated world, and sees whether what
 * must always hold does hold. It looks at the stores and the sync managers from outside, between two
 * steps, listens to the job handles in the mailboxes that it has seen, and changes nothing, so a run
 * is the same with and without it.
 *
 * Each disk is scanned once from its beginning in every life of its reactor, and from there on as it
 * grows. What is on one disk and then is not, or comes twice, or without what it follows, is found
 * there; and what was reported durable is looked for.
 *
 * Threads: one.
 */
#ifndef TANDEM_SYNC_ORACLE_H
#define TANDEM_SYNC_ORACLE_H

#include "sync/plan.h"

typedef struct td_oracle td_oracle;

/* harness is borrowed; the oracle listens to its mailboxes, and so is freed after it. Reactors are
 * known by number, see td_plan_name(). */
tandem_err td_oracle_open(tandem_harness *harness, td_oracle **out);
void td_oracle_free(td_oracle *oracle); /* NULL is fine */

/* A reactor was added; copy_of: on a copy of this one's disk, or -1. */
void td_oracle_added(td_oracle *oracle, unsigned node, int copy_of);
/* It begins another life, on the disk as it was. */
void td_oracle_restarted(td_oracle *oracle, unsigned node);
/* Before and after its clock is set: what comes until the next look may have come by the one or the
 * other, and it may die before that. */
void td_oracle_clock(td_oracle *oracle, unsigned node);
/* It begins to refuse operations for good, by a rule. */
void td_oracle_refuses(td_oracle *oracle, unsigned node);
void td_oracle_backed_up(td_oracle *oracle, unsigned node);
void td_oracle_went_back(td_oracle *oracle, unsigned node);
/* Somebody is about to send an operation that nobody wrote. TANDEM_E_NOMEM. */
tandem_err td_oracle_forged(td_oracle *oracle, const uint8_t hash[TANDEM_HASH_BYTES]);
/* A job was reported durable there: its last operation's hash. TANDEM_E_NOMEM. */
tandem_err td_oracle_durable(td_oracle *oracle, unsigned node, uint64_t number,
                             const uint8_t hash[TANDEM_HASH_BYTES]);

/* Look at everything. TANDEM_E_STATE and a sentence if something does not hold. */
tandem_err td_oracle_look(td_oracle *oracle, char why[256]);

/* As of the last look: do all that run hold all that is held anywhere? But for what came through a filter
 * and follows something that was gone with the only disk that held it: that stays loose, and is not passed
 * on. */
bool td_oracle_is_equal(const td_oracle *oracle);
/* Is there such? */
bool td_oracle_has_stranded(const td_oracle *oracle);
/* Does any reactor want what nobody holds? Only who was told of it wants it, for ever. */
bool td_oracle_has_vain(const td_oracle *oracle);
/* The same but for what is dated further ahead of their clocks than may be, or follows such. */
bool td_oracle_is_equal_but_ahead(const td_oracle *oracle);
/* How far the newest of all that is held anywhere is dated ahead of their clocks. */
uint64_t td_oracle_ahead_ms(const td_oracle *oracle);
/* Does nobody write what others would have to refuse as dated ahead of this time? */
bool td_oracle_is_on_time(const td_oracle *oracle);
/* Does the other hold, and pass on, what node does not hold? */
bool td_oracle_lacks(const td_oracle *oracle, unsigned node, unsigned other);
/* The one running reactor of this id: -1 if there is none, or two. */
int td_oracle_find(const td_oracle *oracle, const uint8_t reactor[TANDEM_ORIGIN_BYTES]);
/* Is no job in flight? */
bool td_oracle_is_idle(const td_oracle *oracle);
/* Is there no dead letter for a reactor that has a session with who wrote it? */
bool td_oracle_is_delivered(const td_oracle *oracle);
/* Does each that runs go by an id of its own? Copies take some time for that. */
bool td_oracle_is_distinct(const td_oracle *oracle);
/* Operations that exist. */
uint64_t td_oracle_operations(const td_oracle *oracle);

/* Visit the jobs that were reported durable and that no disk holds any more, or only such as do not hold
 * what they follow. TANDEM_E_STATE and a sentence if no disk went back, so that this cannot be. */
tandem_err td_oracle_lost(td_oracle *oracle,
                          void (*lost)(void *context, uint64_t number, bool stranded),
                          void *context, char why[256]);

#endif
