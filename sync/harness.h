/*
 * The harness: any number of reactors in one process, in memory, on a virtual clock, with faults on
 * request. For tests of document models and of applications on the library, and for our own.
 *
 * It runs the very reactor, session and sync manager that `tandem serve` runs; only clock,
 * randomness, network, disk and threads are replaced. One seed decides the order of every message,
 * timer and fault: the same seed, the same calls, the same run.
 *
 * Time stands still between calls. Calls on a harness's reactors and syncs that wait (execute, read,
 * …) run the simulation until they have their answer.
 *
 * Ownership: the harness owns its reactors and syncs; do not close them.
 * Threads:   one thread.
 */
#ifndef TANDEM_SYNC_HARNESS_H
#define TANDEM_SYNC_HARNESS_H

#include "sync.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tandem_harness tandem_harness;

typedef struct tandem_harness_options {
    size_t size;   /* sizeof(tandem_harness_options) */
    uint64_t seed;
    const tandem_model *const *models; /* of one's own, registered in every reactor; borrowed */
    size_t model_count;
    tandem_log_fn log; /* NULL: silent */
    void *log_context;
    tandem_log_level log_level;
    tandem_sync_options sync; /* size 0: defaults */
    /* NULL: disks are in memory. Else an existing folder: each reactor keeps real stores in one of
     * its own there, removed with the harness. */
    const char *folder;
} tandem_harness_options;

#define TANDEM_HARNESS_OPTIONS_INIT                                                                \
    {                                                                                              \
        .size = sizeof(tandem_harness_options), .seed = 1, .log_level = TANDEM_LOG_WARNING         \
    }

/* What the network does to messages; all zero: nothing. */
typedef struct tandem_harness_faults {
    uint32_t latency_ms_min, latency_ms_max;
    uint32_t lose_permille;
    uint32_t duplicate_permille;
    uint32_t reorder_permille;
    uint32_t corrupt_permille; /* one bit comes wrong, and nothing below the session notices */
} tandem_harness_faults;

/* options NULL: defaults. TANDEM_E_NOMEM, TANDEM_E_INVALID. */
TANDEM_API tandem_err tandem_harness_open(const tandem_harness_options *options,
                                          tandem_harness **out);
TANDEM_API void tandem_harness_free(tandem_harness *harness); /* NULL is fine */

/*
 * Add a reactor; it runs from now on and accepts sessions.
 *
 * name            1 to 31 bytes; its URL for others is mem://NAME
 * clock_skew_ms   how far its clock is off
 * TANDEM_E_EXISTS, TANDEM_E_INVALID, TANDEM_E_NOMEM.
 */
TANDEM_API tandem_err tandem_harness_add(tandem_harness *harness, const char *name,
                                         int64_t clock_skew_ms);
/* How reactors sync whose lives begin from now on. TANDEM_E_INVALID (size). */
TANDEM_API tandem_err tandem_harness_set_sync_options(tandem_harness *harness,
                                                      const tandem_sync_options *options);
/* What a reactor takes of what its peers send, from now on and in its next lives: see
 * tandem_options.admit. NULL: everything. TANDEM_E_NOT_FOUND. */
TANDEM_API tandem_err tandem_harness_set_admission(tandem_harness *harness, const char *name,
                                                   tandem_admit_fn admit, void *context);
/* NULL while it is crashed, or if there is none of this name. Valid until it crashes. */
TANDEM_API tandem_reactor *tandem_harness_reactor(tandem_harness *harness, const char *name);
TANDEM_API tandem_sync *tandem_harness_sync(tandem_harness *harness, const char *name);

/* Make b a remote of a, and no longer. TANDEM_E_NOT_FOUND, TANDEM_E_EXISTS, and those of the disk. */
TANDEM_API tandem_err tandem_harness_connect(tandem_harness *harness, const char *a, const char *b);
/* The same over a link that works as one over HTTP: tandem_remote_set_poll() is for its remote. */
TANDEM_API tandem_err tandem_harness_connect_http(tandem_harness *harness, const char *a,
                                                  const char *b);
TANDEM_API tandem_err tandem_harness_disconnect(tandem_harness *harness, const char *a,
                                                const char *b);

/* ---- The network ---- */

/* Nothing gets through between a and b until healed; neither is told, as with a cable. */
TANDEM_API void tandem_harness_cut(tandem_harness *harness, const char *a, const char *b);
/* The same from a to b alone: what b says still arrives. */
TANDEM_API void tandem_harness_cut_one_way(tandem_harness *harness, const char *a, const char *b);
TANDEM_API void tandem_harness_heal(tandem_harness *harness, const char *a, const char *b);
/* b loses its links with a and knows it; a does not, and hears nothing any more. */
TANDEM_API void tandem_harness_half_open(tandem_harness *harness, const char *a, const char *b);
/* What a sends to b is kept on the way, in order, until that ends. */
TANDEM_API void tandem_harness_clog(tandem_harness *harness, const char *a, const char *b,
                                    bool clogged);
/* A reactor takes so long for each message that it receives. */
TANDEM_API void tandem_harness_slow(tandem_harness *harness, const char *name,
                                    uint32_t message_ms);
TANDEM_API void tandem_harness_set_faults(tandem_harness *harness,
                                          const tandem_harness_faults *faults);

/* ---- Crashes, disks, clocks ---- */

/* End a reactor as a crash does: what was not committed is gone. TANDEM_E_NOT_FOUND,
 * TANDEM_E_STATE (it is crashed). */
TANDEM_API tandem_err tandem_harness_crash(tandem_harness *harness, const char *name);
/*
 * Let it crash at the nth passing of a probe from now on, in this life or, if it is crashed, in its
 * next: at one of the places that tandem_harness_events() lists. nth 0: it is not to crash so any
 * more (probe is ignored). Unlike tandem_harness_crash() nobody learns of it: its peers hear silence. What it was asked and has not answered ends with an
 * error, and may be on its disk. It counts as crashed when the call that drives the harness returns.
 * TANDEM_E_NOT_FOUND: no such reactor or probe.
 */
TANDEM_API tandem_err tandem_harness_crash_at(tandem_harness *harness, const char *name,
                                              const char *probe, uint64_t nth);
/* Open it again on the disk it left. TANDEM_E_NOT_FOUND, TANDEM_E_STATE (it runs), and what its disk
 * makes of it: it is crashed then as before. */
TANDEM_API tandem_err tandem_harness_restart(tandem_harness *harness, const char *name);

typedef enum tandem_harness_disk_call {
    TANDEM_HARNESS_PUT = 1,       /* writing into a transaction fails */
    TANDEM_HARNESS_COMMIT = 2,    /* a commit fails and changes nothing */
    TANDEM_HARNESS_COMMITTED = 3, /* a commit is reported as failed, and has happened */
} tandem_harness_disk_call;

/*
 * The next count calls of this kind on the disk of a running reactor fail with err; count 0 ends it,
 * and so does a crash. A full disk or map is TANDEM_E_STORE_FULL, a broken one TANDEM_E_IO, a failed
 * allocation TANDEM_E_NOMEM. TANDEM_E_NOT_FOUND, TANDEM_E_STATE (it is crashed), TANDEM_E_INVALID.
 */
TANDEM_API tandem_err tandem_harness_fail_disk(tandem_harness *harness, const char *name,
                                               tandem_harness_disk_call call, tandem_err err,
                                               uint64_t count);

/* Keep a backup of its disk as it is now, in the place of the one before; and go back to it: it
 * crashes, and begins its next life on the backup. TANDEM_E_NOT_FOUND (also: there is no backup). */
TANDEM_API tandem_err tandem_harness_backup(tandem_harness *harness, const char *name);
TANDEM_API tandem_err tandem_harness_go_back(tandem_harness *harness, const char *name);
/* Add a reactor on a copy of another's disk, as of now: as if somebody had copied its folder.
 * Errors as tandem_harness_add(). */
TANDEM_API tandem_err tandem_harness_copy(tandem_harness *harness, const char *name,
                                          const char *copy);
/* Set how far its clock is off, for good. TANDEM_E_NOT_FOUND. */
TANDEM_API tandem_err tandem_harness_set_clock(tandem_harness *harness, const char *name,
                                               int64_t clock_skew_ms);

/* ---- Time ---- */

/* Do the next thing: a message, a timer, or let time pass up to it. False if there is none, which
 * only a harness without running reactors comes to: they have timers. */
TANDEM_API bool tandem_harness_step(tandem_harness *harness);
/* Let virtual time pass. */
TANDEM_API void tandem_harness_run(tandem_harness *harness, uint64_t duration_ms);
/* Run until nothing was committed and no message travelled for a second of virtual time.
 * TANDEM_E_TIMEOUT after limit_ms. */
TANDEM_API tandem_err tandem_harness_run_until_idle(tandem_harness *harness, uint64_t limit_ms);

/*
 * Do all running reactors hold the same operations and show the same documents? TANDEM_OK, or
 * TANDEM_E_STATE and a sentence in why that names the first difference.
 */
TANDEM_API tandem_err tandem_harness_converged(tandem_harness *harness, char why[256]);
/* Run until they do. TANDEM_E_TIMEOUT after limit_ms, and the difference. */
TANDEM_API tandem_err tandem_harness_run_until_converged(tandem_harness *harness,
                                                         uint64_t limit_ms, char why[256]);

/* ---- What happened ---- */

/* Visit all probes: a name, a sentence that says what happens there, and how often it has happened in
 * all reactors. Static. */
TANDEM_API void tandem_harness_events(const tandem_harness *harness,
                                      void (*visit)(void *context, const char *name,
                                                    const char *sentence, uint64_t count),
                                      void *context);
/* A random number of the scenario's own, from the seed. */
TANDEM_API uint64_t tandem_harness_random(tandem_harness *harness, uint64_t below);
/* Virtual milliseconds since the start. */
TANDEM_API uint64_t tandem_harness_now_ms(const tandem_harness *harness);
/* A hash over everything that happened: equal runs, equal hashes. */
TANDEM_API uint64_t tandem_harness_trace(const tandem_harness *harness);

#ifdef __cplusplus
}
#endif

#endif
