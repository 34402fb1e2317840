/*
 * What the parts of the oracle share: `oracle.c`, what it is told, and its looks; `oracle_disks.c`, what
 * stands on disks; `oracle_sessions.c`, what reactors do and believe while they run.
 */
#ifndef TANDEM_SYNC_ORACLE_STATE_H
#define TANDEM_SYNC_ORACLE_STATE_H

#include "store/hash_table.h"
#include "sync/oracle.h"
#include "sync/sync_manager.h"

enum {
    TD_CLOCK_SLACK_MS = 2000,
    TD_OWN_SLACK_MS = 15000, /* for a new origin to be taken, once it may be */
};

/* An operation that exists, or did. */
struct td_known {
    uint8_t hash[TANDEM_HASH_BYTES];
    uint32_t holders;  /* a bit for each disk that holds it, … */
    uint32_t backups;  /* … or whose backup does */
    uint32_t expected; /* disks that must be found to hold it still */
    uint64_t hlc;
    uint64_t newest; /* HLC of all its chain up to here: what is refused may be one before it */
    uint64_t chain;  /* a hash of its collection and origin, */
    uint64_t seq;    /* and its number there */
    uint8_t predecessor[TANDEM_HASH_BYTES];
    uint64_t look;   /* at which it was first seen */
    bool forged;     /* by a stranger, whatever its origin says */
    char *names;     /* document, scope and branch, each terminated by NUL; NULL: on no disk yet */
    td_hash_entry hash_entry;
};

/* A job was reported durable. */
struct td_durable {
    uint8_t hash[TANDEM_HASH_BYTES];
    uint64_t number;
    uint8_t node;
    bool seen; /* on its disk, or the disk has gone back since */
};

/* What was lacking on a disk at the last look: where the range begins, and the operation that ends it. */
struct td_lacked {
    uint64_t first;
    uint8_t hash[TANDEM_HASH_BYTES];
    struct td_lacked *next;
};

/* The end of a job that is still to come. */
struct td_open_job {
    uint8_t hash[TANDEM_HASH_BYTES]; /* of what it follows */
    uint64_t seq;
};

/* An operation that is held, and was not behind what it follows when it was seen: loose. */
struct td_loose {
    uint8_t hash[TANDEM_HASH_BYTES], predecessor[TANDEM_HASH_BYTES];
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t seq;
    char collection[TANDEM_NAME_BYTES_MAX + 1];
    struct td_loose *next;
};

struct td_oracle_node {
    td_oracle *oracle;
    bool added;
    bool fresh; /* a new life: its disk is to be scanned from the beginning */
    uint64_t life;
    uint64_t held;
    uint64_t scanned; /* ordinals up to here */
    uint64_t wall_ms_max;  /* that its clock may run by, … */
    uint64_t wall_ms_ever; /* … and one that goes back to what was kept of its disk */
    uint64_t wall_ms_since; /* that it ran by since the last look, where it was set meanwhile */
    uint64_t hlc_max; /* of all that came in this life and incarnation up to the last look, … */
    uint64_t hlc_now; /* … and to this one */
    uint32_t incarnation;
    uint64_t incarnated_ms[TANDEM_INCARNATION_CLOCK + 1]; /* in this life, by reason; 0: not */
    uint64_t other_by_ms; /* to write under another origin by then: somebody else continued this
                           * one's chain; 0: nobody did */
    uint64_t back_life; /* the last one before its disk went back; 0: it never did */
    uint64_t twin_ms;   /* when another went by its id last; 0: never */
    unsigned kin;       /* the first of those that are copies of each other */
    struct td_open_job open;
    bool has_open;
    struct td_loose *loose;
    struct td_lacked *lacked;
    bool refuses; /* it had a rule by which it refuses */
};

struct td_oracle {
    tandem_harness *harness;
    struct td_oracle_node nodes[TD_PLAN_NODES_MAX];
    td_hash_table known;
    uint64_t alive; /* that some disk holds */
    struct td_durable *durables;
    size_t durable_count, durable_capacity, durable_first; /* before it all are seen */
    td_hash_table flights;
    td_hash_table lives;
    uint64_t looks;
    uint64_t looked_ms; /* when the last one was */
    uint64_t dials_together;
    bool any_back;
    char heard[256]; /* what does not hold, and was heard of between two looks */
    char *why;
};

_Static_assert(TD_PLAN_NODES_MAX <= 32, "a bit for each");

/* ---- oracle.c ---- */

void td_oracle_let_go(td_oracle *oracle, struct td_known *known, unsigned node);
void td_oracle_forget_loose(struct td_oracle_node *node);
tandem_reactor *td_oracle_reactor(const td_oracle *oracle, unsigned node);
tandem_sync *td_oracle_sync(const td_oracle *oracle, unsigned node);
tandem_err td_oracle_fail(td_oracle *oracle, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- oracle_disks.c ---- */

struct td_known *td_oracle_known(const td_oracle *oracle, const uint8_t *hash);
/* What has come to a disk since it was looked at last. */
tandem_err td_oracle_scan_disk(td_oracle *oracle, unsigned number, tandem_reactor *reactor, bool is_new);
/* A new life: what its disk held it must still hold. */
tandem_err td_oracle_scan_anew(td_oracle *oracle, unsigned number, tandem_reactor *reactor);
tandem_err td_oracle_check_lacks(td_oracle *oracle, unsigned number, tandem_reactor *reactor);
/* Which of a chain's operations up to a head are in a filter, not held, and not known to be lacking,
 * here or with a peer: 0, or the seq of one. */
uint64_t td_oracle_missing_before(const td_oracle *oracle, unsigned number, const td_filter *filter,
                                  const uint8_t *head, const td_origin_cover *there);
tandem_err td_oracle_check_pairs(td_oracle *oracle, unsigned number, tandem_reactor *reactor);
tandem_err td_oracle_check_durable(td_oracle *oracle);

/* ---- oracle_sessions.c ---- */

tandem_err td_oracle_check_clock(td_oracle *oracle, unsigned number, tandem_reactor *reactor);
tandem_err td_oracle_check_executor(td_oracle *oracle, unsigned number, td_executor *executor);
tandem_err td_oracle_check_mailboxes(td_oracle *oracle, unsigned number, tandem_sync *sync);
void td_oracle_forget_flights(td_oracle *oracle);
/* Who lost the same peer at the same moment is to come back at different ones. */
tandem_err td_oracle_check_dials(td_oracle *oracle);
/* The one running reactor of this id: -1 if there is none, or two. */
int td_oracle_find_reactor(const td_oracle *oracle, const uint8_t *id);
tandem_err td_oracle_note_life(td_oracle *oracle, unsigned number, const tandem_sync *sync);
tandem_err td_oracle_check_beliefs(td_oracle *oracle, unsigned number, tandem_sync *sync);

#endif
