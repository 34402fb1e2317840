/*
 * A plan: what is done to which reactor when, and nothing else. Drawing one is a pure function of its
 * seed and of the faults that are allowed; a script is a plan in words.
 *
 * Threads: pure functions.
 */
#ifndef TANDEM_SYNC_PLAN_H
#define TANDEM_SYNC_PLAN_H

#include "sync/simulator.h"

enum {
    TD_PLAN_REACTORS_MAX = 7,
    TD_PLAN_NODES_MAX = 16, /* with copies */
    TD_PLAN_STEPS_MAX = 4096,
    TD_PLAN_MS_MAX = 3600 * 1000, /* of virtual time, until it heals */
};

/* X(kind, word in a script, reactors that it names, fault class or 0) */
#define TD_STEPS(X)                                                                                \
    X(WRITE, "write", 1, 0)                                                                        \
    X(BURST, "burst", 1, 0)                                                                        \
    X(READ, "read", 1, 0)                                                                          \
    X(NETWORK, "network", 0, 0)                                                                    \
    X(CUT, "cut", 2, TANDEM_FAULT_CUT)                                                             \
    X(ONE_WAY, "one_way", 2, TANDEM_FAULT_ONE_WAY)                                                 \
    X(HEAL, "heal", 2, 0)                                                                          \
    X(HALF_OPEN, "half_open", 2, TANDEM_FAULT_HALF_OPEN)                                           \
    X(CLOG, "clog", 2, TANDEM_FAULT_CLOG)                                                          \
    X(UNCLOG, "unclog", 2, 0)                                                                      \
    X(SLOW, "slow", 1, TANDEM_FAULT_SLOW)                                                          \
    X(CRASH, "crash", 1, TANDEM_FAULT_CRASH)                                                       \
    X(CRASH_AT, "crash_at", 1, TANDEM_FAULT_CRASH_AT)                                              \
    X(RESTART, "restart", 1, 0)                                                                    \
    X(DISK_FULL, "disk_full", 1, TANDEM_FAULT_DISK_FULL)                                           \
    X(DISK_ERROR, "disk_error", 1, TANDEM_FAULT_DISK_ERROR)                                        \
    X(DISK_UNKNOWN, "disk_unknown", 1, TANDEM_FAULT_DISK_UNKNOWN)                                  \
    X(MEMORY, "memory", 1, TANDEM_FAULT_MEMORY)                                                    \
    X(DISK_MEND, "disk_mend", 1, 0)                                                                \
    X(CLOCK, "clock", 1, TANDEM_FAULT_CLOCK)                                                       \
    X(CLOCK_JUMP, "clock_jump", 1, TANDEM_FAULT_CLOCK_JUMP)                                        \
    X(CLOCK_BACK, "clock_back", 1, 0)                                                              \
    X(BACKUP, "backup", 1, TANDEM_FAULT_RESTORE)                                                   \
    X(GO_BACK, "go_back", 1, TANDEM_FAULT_RESTORE)                                                 \
    X(COPY, "copy", 1, TANDEM_FAULT_COPY)                                                          \
    X(CONNECT, "connect", 2, 0)                                                                    \
    X(MEET_SELF, "meet_self", 1, TANDEM_FAULT_REMOTES)                                             \
    X(DISCONNECT, "disconnect", 2, TANDEM_FAULT_REMOTES)                                           \
    X(PAUSE, "pause", 2, TANDEM_FAULT_REMOTES)                                                     \
    X(RESUME, "resume", 2, 0)                                                                      \
    X(LIE, "lie", 1, TANDEM_FAULT_LIAR)                                                            \
    X(POLL, "poll", 2, 0)                                                                          \
    X(REFUSE, "refuse", 1, TANDEM_FAULT_REFUSE)                                                    \
    X(ADMIT, "admit", 1, 0)                                                                        \
    X(WITHDRAW, "withdraw", 1, TANDEM_FAULT_REFUSE)                                                \
    X(DEAD_LETTER, "dead_letter", 1, TANDEM_FAULT_REFUSE)                                          \
    X(SHARE, "share", 2, TANDEM_FAULT_SHARE)                                                       \
    X(SHARE_ALL, "share_all", 2, 0)

typedef enum td_step_kind {
#define TD_STEP_MEMBER(kind, word, names, fault) TD_STEP_##kind,
    TD_STEPS(TD_STEP_MEMBER)
#undef TD_STEP_MEMBER
    TD_STEP_KINDS,
} td_step_kind;

typedef struct td_step {
    uint64_t at_ms; /* of virtual time: never before that */
    td_step_kind kind;
    uint8_t a, b;    /* reactors, by number */
    uint64_t random; /* its own */
} td_step;

typedef enum td_shape {
    TD_SHAPE_LINE,
    TD_SHAPE_STAR,
    TD_SHAPE_RING,
    TD_SHAPE_MESH,
    TD_SHAPES,
} td_shape;

struct tandem_plan {
    uint64_t seed;
    unsigned reactors;
    td_shape shape;
    bool both; /* each is a remote of the other */
    uint32_t window_jobs;
    uint64_t window_bytes, pool_bytes;
    uint32_t http_percent; /* of the remotes: over links as of HTTP */
    uint32_t ranges_least; /* so much is compared by ranges (comparing.c); 0: as everywhere */
    uint32_t faults; /* that it has */
    uint64_t heal_ms; /* from then on nothing goes wrong any more */
    const tandem_workload *workload; /* NULL: one that is not built in, or the default one */
    td_step *steps;
    size_t count, capacity;
};

/* The next number of a stream: for whatever hangs on a step's random number. */
uint64_t td_plan_draw_next(uint64_t *state);
/* Below limit (>= 1). */
uint64_t td_plan_draw_below(uint64_t *state, uint64_t limit);

/* Is b to be a remote of a? */
bool td_plan_joins(const tandem_plan *plan, unsigned a, unsigned b);
/* If it is one, is it over a link as of HTTP? */
bool td_plan_is_http(const tandem_plan *plan, unsigned a, unsigned b);
/* Draw what is shared with a remote, of what a workload writes: a tandem_share and its lists. */
typedef struct td_drawn_share {
    tandem_share share;
    const char *collections[2], *documents[2], *scopes[1], *branches[1];
} td_drawn_share;
void td_plan_draw_share(uint64_t random, const tandem_workload *workload, td_drawn_share *out);
tandem_err td_plan_copy(const tandem_plan *plan, tandem_plan **out);
/* "write a", "cut a b". */
void td_step_text(const td_step *step, char out[64]);
uint32_t td_step_fault(td_step_kind kind);

/* The name of reactor n: "a", "b" … Static. */
const char *td_plan_name(unsigned n);

#endif
