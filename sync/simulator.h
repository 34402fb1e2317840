/*
 * The simulator: a bad week, drawn from one number. It takes two to seven reactors of the harness,
 * joins them, has them written to, and lets happen to them what happens to reactors: messages that
 * are lost, doubled, late, out of order or wrong, cables that are cut on one side or both, crashes at
 * every interesting place, disks that are full or fail, clocks that step, backups that are restored.
 * After each step it looks whether what must always hold does hold; in the end the faults stop, and
 * all reactors must become equal within 120 virtual seconds.
 *
 * A seed is drawn into a plan, a list of steps, once and in advance: a pure function. Each step has
 * a random number of its own, so that leaving one out changes no other: that is how a plan that fails
 * is made smaller, to the few steps that matter, and kept as a script (tandem_plan_write()).
 *
 * It runs on one's own models, too: a workload says what is written and whether the outcome is right.
 *
 * What must hold, after each step: nothing is stored twice; the predecessor of whatever is held is
 * held, or recorded as lacking; what is lacking stays so until it is held; jobs are whole; what was reported durable is there, also after a crash; nothing is told of that
 * is not on disk; a reactor shows what it reported durable; nobody believes another to hold what it
 * does not; nobody offers what was announced as refused; job handles go through their states in order; windows, queues and the pool are within their
 * bounds, and what was executed is given back; no clock runs ahead of what it has seen; what is written
 * is dated after what was held, what is taken not far ahead; whose chain another continued takes a new
 * origin, and nobody takes them faster than he may; remotes of several do not dial at one moment. In
 * the end all refusals are withdrawn: equal vectors, equal documents byte for byte, stores that verify,
 * nothing refused or lacking but what is gone, no dead letter of what is held, no job in flight, no id twice, everything that was ever reported durable and not lost with its only
 * disk; nothing happened that only a fault explains which the plan has not; and, where nothing was done
 * to the network, nothing echoed. Where a clock has jumped, this comes after another end: all but
 * what is dated ahead is equal, that is seen to wait, and nobody writes ahead of time any more; then
 * all clocks are set to the day when it is due.
 *
 * Threads: one.
 */
#ifndef TANDEM_SYNC_SIMULATOR_H
#define TANDEM_SYNC_SIMULATOR_H

#include "harness.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Classes of faults. A plan has each of those that are allowed with probability one half; one in
 * twenty has none at all, but perhaps latency. */
typedef enum tandem_fault {
    TANDEM_FAULT_LATENCY = 1 << 0,
    TANDEM_FAULT_LOSE = 1 << 1,      /* messages vanish */
    TANDEM_FAULT_DUPLICATE = 1 << 2, /* … come twice */
    TANDEM_FAULT_REORDER = 1 << 3,   /* … overtake each other */
    TANDEM_FAULT_CORRUPT = 1 << 4,   /* … come with a wrong bit */
    TANDEM_FAULT_CUT = 1 << 5,       /* links are cut, both ways */
    TANDEM_FAULT_ONE_WAY = 1 << 6,   /* … one way */
    TANDEM_FAULT_HALF_OPEN = 1 << 7, /* … known to be gone on one side only */
    TANDEM_FAULT_CLOG = 1 << 8,      /* … keep what they carry for a while */
    TANDEM_FAULT_SLOW = 1 << 9,      /* a reactor takes its time for each message */
    TANDEM_FAULT_CRASH = 1 << 10,    /* a reactor crashes between two turns … */
    TANDEM_FAULT_CRASH_AT = 1 << 11, /* … or in the middle of one, at a probe */
    TANDEM_FAULT_DISK_FULL = 1 << 12,
    TANDEM_FAULT_DISK_ERROR = 1 << 13,
    TANDEM_FAULT_DISK_UNKNOWN = 1 << 14, /* a commit is reported as failed, and has happened */
    TANDEM_FAULT_MEMORY = 1 << 15,       /* a store finds no memory */
    TANDEM_FAULT_CLOCK = 1 << 16,        /* clocks are off and step, by minutes … */
    TANDEM_FAULT_CLOCK_JUMP = 1 << 17,   /* … by years */
    TANDEM_FAULT_RESTORE = 1 << 18,      /* a reactor goes back to a backup */
    TANDEM_FAULT_COPY = 1 << 19,         /* a reactor's folder is copied, and both run */
    TANDEM_FAULT_REMOTES = 1 << 20,      /* remotes are removed, added, paused */
    TANDEM_FAULT_LIAR = 1 << 21,         /* a stranger connects who lies */
    TANDEM_FAULT_REFUSE = 1 << 22,       /* reactors refuse documents for good, for a while */
    TANDEM_FAULT_SHARE = 1 << 23,        /* less than everything is shared with remotes */
    TANDEM_FAULT_ALL = (1 << 24) - 1,
} tandem_fault;

/* "latency", "lose", …; NULL if it is none. Static. */
TANDEM_API const char *tandem_fault_name(tandem_fault fault);

/* What became of a job. */
typedef enum tandem_outcome {
    TANDEM_OUTCOME_DURABLE, /* it was reported durable */
    TANDEM_OUTCOME_FAILED,  /* it was refused: it must be nowhere */
    TANDEM_OUTCOME_UNKNOWN, /* its reactor crashed, or could not tell: it may be somewhere */
    TANDEM_OUTCOME_LOST, /* was durable, and the only disks that held it went back to a backup */
    TANDEM_OUTCOME_STRANDED, /* was durable, and what it follows is lost: who held it in part holds it still */
} tandem_outcome;

/* What is written. Every function is needed. */
typedef struct tandem_workload {
    /* Begin a run: what *out becomes is the context of the others. */
    tandem_err (*open)(void **out);
    /*
     * Fill in job `number` (1, 2, 3 …), whose content depends on number, on random, and on what
     * the reactor shows; without operations it deletes its document. All is borrowed until the
     * next call.
     *
     * number   0: nothing is executed, only a collection and a document are wanted: read nothing
     * reactor  is to execute it, and may be read. That takes virtual time: meanwhile others write
     *          to it, and it may crash; then calls say so, and the job fails
     */
    void (*job)(void *context, tandem_reactor *reactor, uint64_t number, uint64_t random,
                tandem_job *job);
    void (*outcome)(void *context, uint64_t number, tandem_outcome outcome);
    /* All reactors are equal: is what they show right? Else a sentence in why. */
    tandem_err (*check)(void *context, tandem_reactor *reactor, char why[256]);
    void (*free)(void *context);
    /* NULL, or: it is built in, and scripts know it by this name. */
    const char *name;
    /* Globs of documents, of which some are shared with a remote and others not; NULL behind the
     * last one. Itself NULL: those of the default one. Collections are c0, c1 and c2. */
    const char *const *documents;
    unsigned reactors_min; /* that a plan is drawn with: 0 to 7 */
} tandem_workload;

/* Counters, maps and logs: what the simulator writes by default. "mixed". */
TANDEM_API const tandem_workload *tandem_default_workload(void);
/*
 * Texts, "text": five reactors or more type into the same ones at once, forwards and backwards, and
 * delete. Each character is another one, so that a text tells who typed what. Whatever is read, at
 * any time: what one typed at a place is not interleaved with what another did. In the end: each
 * character of a durable job that nobody has deleted is there once, deleted ones are gone, and all
 * stand in the order in which their authors saw them.
 */
TANDEM_API const tandem_workload *tandem_text_workload(void);
/* One of these by its name; NULL: there is none. */
TANDEM_API const tandem_workload *tandem_find_workload(const char *name);

typedef struct tandem_simulator_options {
    size_t size;         /* sizeof(tandem_simulator_options) */
    uint32_t faults;     /* of tandem_fault: those that may be drawn */
    const tandem_workload *workload;   /* NULL: the plan's, or the default one */
    const tandem_model *const *models; /* of one's own; borrowed */
    size_t model_count;
    const char *folder; /* NULL: disks are in memory; else as in tandem_harness_options */
    tandem_log_fn log;  /* NULL: silent */
    void *log_context;
    tandem_log_level log_level;
    /* Told of every probe at the end of each run, see tandem_harness_events(). May be NULL. */
    void (*event)(void *context, const char *name, const char *sentence, uint64_t count);
    void *event_context;
} tandem_simulator_options;

#define TANDEM_SIMULATOR_OPTIONS_INIT                                                              \
    {                                                                                              \
        .size = sizeof(tandem_simulator_options), .faults = TANDEM_FAULT_ALL,                      \
        .log_level = TANDEM_LOG_WARNING                                                            \
    }

typedef struct tandem_plan tandem_plan;

/* Draw the plan of a seed, for options->workload: the plan knows it if it is built in. options NULL:
 * defaults. TANDEM_E_NOMEM, TANDEM_E_INVALID. */
TANDEM_API tandem_err tandem_plan_draw(uint64_t seed, const tandem_simulator_options *options,
                                       tandem_plan **out);
/* Read a script. TANDEM_E_INVALID, and a sentence that names the line, or what is missing. */
TANDEM_API tandem_err tandem_plan_read(const char *text, tandem_plan **out, char why[256]);
/* Write it as a script, which the caller frees with free(). */
TANDEM_API tandem_err tandem_plan_write(const tandem_plan *plan, char **text_out);
TANDEM_API size_t tandem_plan_steps(const tandem_plan *plan);
/* The seed that it was drawn from; of a script the one that it names. */
TANDEM_API uint64_t tandem_plan_seed(const tandem_plan *plan);
TANDEM_API void tandem_plan_free(tandem_plan *plan); /* NULL is fine */

typedef struct tandem_simulator_result {
    bool ok;
    char why[256];       /* what did not hold, and after which step; "" if ok */
    uint64_t trace_hash; /* of all that happened: equal runs, equal hashes */
    uint64_t virtual_ms;
    uint64_t converged_ms; /* after the faults stopped: until all were equal */
    uint64_t operations;
    uint64_t reactors;
} tandem_simulator_result;

/* Run a plan. TANDEM_OK if it ran, whatever it found: result->ok tells. */
TANDEM_API tandem_err tandem_simulate(const tandem_plan *plan,
                                      const tandem_simulator_options *options,
                                      tandem_simulator_result *result);

/*
 * Make a plan that fails smaller, as long as it fails for the same reason: steps first, then classes
 * of faults, then reactors.
 *
 * runs_max     how often it may be run for that
 * result       of the plan that is left
 * Errors: TANDEM_E_STATE (it does not fail), and those of tandem_simulate().
 */
TANDEM_API tandem_err tandem_plan_shrink(const tandem_plan *plan,
                                         const tandem_simulator_options *options,
                                         uint64_t runs_max, tandem_plan **out,
                                         tandem_simulator_result *result);

#ifdef __cplusplus
}
#endif

#endif
