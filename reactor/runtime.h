/*
 * The actor runtime: the seam through which threads, time and randomness come in. Two exist:
 *
 *   threads      each worker host is a thread; the loop host is a libuv loop, on a thread of the
 *                library or driven by the embedder; real clock, real randomness
 *   simulation   no threads; a virtual clock; one seed decides which actor runs next and every
 *                random byte. The same seed gives the same run, byte for byte.
 *
 * One reactor has one td_runtime: a loop host for the sync manager, the network and all callbacks
 * to the embedder, and worker hosts for the executor and the document view. In a simulation many
 * runtimes share one scheduler and one clock; each has an env of its own (with a clock skew).
 *
 * Ownership: hosts belong to their runtime, and are stopped before their actors are freed.
 */
#ifndef TANDEM_REACTOR_RUNTIME_H
#define TANDEM_REACTOR_RUNTIME_H

#include "reactor/actor.h"
#include "store/probe.h"

struct uv_loop_s;

typedef enum td_host_kind {
    TD_HOST_WORKER,
    TD_HOST_BACKGROUND, /* a worker whose thread steps back where processors are short */
    TD_HOST_LOOP,
} td_host_kind;

/* What a runtime offers; the two tables are all that their files export besides their open. */
struct td_runtime_ops {
    const char *name; /* "threads", "simulation" */
    tandem_err (*host_open)(td_runtime *runtime, td_host_kind kind, const char *name,
                            td_host **out);
    void (*host_stop)(td_host *host);
    void (*host_free)(td_host *host);
    bool (*host_is_current)(const td_host *host);
    tandem_err (*actor_open)(td_host *host, const td_actor_ops *ops, void *self, td_actor **out);
    void (*actor_free)(td_actor *actor);
    void (*post)(td_actor *actor, td_message *message);
    /* Of a caller that waits next: it may stand in for a thread that sleeps. */
    void (*post_and_help)(td_actor *actor, td_message *message);
    void (*post_after)(td_actor *actor, td_message *message, uint64_t delay_ms);
    bool (*cancel)(td_actor *actor, td_message *message);
    tandem_err (*reply_open)(td_runtime *runtime, td_reply **out);
    void (*reply_set)(td_reply *reply, tandem_err err);
    tandem_err (*reply_wait)(td_reply *reply, uint64_t timeout_ms);
    void (*reply_keep)(td_reply *reply);
    void (*reply_free)(td_reply *reply);
    struct uv_loop_s *(*loop)(td_host *host);
    int (*loop_fd)(td_host *host);
    int (*loop_timeout_ms)(td_host *host);
    tandem_err (*loop_poll)(td_host *host);
    void (*free)(td_runtime *runtime);
};

struct td_runtime {
    const struct td_runtime_ops *ops;
    tandem_env *env;
};

/* The bases that both runtimes embed first. */
struct td_host {
    td_runtime *runtime;
};
struct td_actor {
    td_host *host;
};
struct td_reply {
    td_runtime *runtime;
};

/*
 * Open the threads runtime.
 *
 * drive        true: the loop host gets no thread; the embedder runs it with td_host_poll()
 * log          as in tandem_env
 */
tandem_err td_threads_open(bool drive, tandem_log_fn log, void *log_context,
                           tandem_log_level level, td_runtime **out);
/* NULL is fine. All hosts must be freed. */
void td_runtime_free(td_runtime *runtime);

/* Open a host and start it. */
tandem_err td_host_open(td_runtime *runtime, td_host_kind kind, const char *name, td_host **out);
/* Handle no further message and, on return, run no code any more; what was handled gets its drained
 * call first. Idempotent. Not from within the host itself.
 *
 * Between stop and free the caller's thread owns a loop host's libuv loop: it may run it, to close
 * what others attached to it. */
void td_host_stop(td_host *host);
/* Stops, frees. Its actors must be freed, foreign handles on its loop closed. NULL is fine. */
void td_host_free(td_host *host);

/* The libuv loop of a loop host; NULL in the simulation and for a worker. */
struct uv_loop_s *td_host_loop(td_host *host);

/* Driving a loop host (drive = true): a descriptor that polls readable when there is work, the
 * milliseconds until the next timer (-1: none), and one turn without waiting. From one thread.
 * Elsewhere, from within the host and once it has stopped: -1, -1 and TANDEM_E_STATE. */
int td_host_fd(td_host *host);
int td_host_timeout_ms(td_host *host);
tandem_err td_host_poll(td_host *host);

/*
 * ---- Simulation ----
 *
 * td_reply_wait runs the simulation until the reply is set. Where it waits for ever and nothing is
 * left to do, or 30 virtual days have passed, it returns TANDEM_E_TIMEOUT: a deadlock should fail a
 * test, not hang it. So it does some turns after there were too many, see td_simulation_restless().
 */

typedef struct td_simulation td_simulation;

/* So many turns within one virtual second are no work but a loop: two that answer each other for ever
 * at one moment. */
enum { TD_SIMULATION_TURNS_MAX = 200000 };

tandem_err td_simulation_open(uint64_t seed, td_simulation **out);
/* All runtimes made of it must be freed. NULL is fine. */
void td_simulation_free(td_simulation *simulation);

/* A runtime of one reactor. clock_skew_ms is added to its wall clock, which starts at
 * 2026-01-01T00:00:00Z; its monotonic clock starts anywhere. The name is copied; a name used again
 * (a restart) gets other random bytes. */
tandem_err td_simulation_runtime(td_simulation *simulation, const char *name,
                                 int64_t clock_skew_ms, td_runtime **out);
/* Set a runtime's skew later: clocks step. */
void td_simulation_skew(td_runtime *runtime, int64_t clock_skew_ms);
/* Let the runtime die at the nth (>= 1) passing of a probe from now on; see store/probe.h. */
void td_simulation_arm(td_runtime *runtime, td_probe_kind probe, uint64_t nth);
bool td_simulation_is_dead(const td_runtime *runtime);
/* How many have died since the simulation began, to be looked at after each step. */
uint64_t td_simulation_deaths(const td_simulation *simulation);
/* Is some actor having its turn? What it stands on must not be freed now. */
bool td_simulation_is_turning(const td_simulation *simulation);
/* The next count calls of this kind on the runtime's disk fail with err. It forgets what was asked
 * for before; count 0: no more failures. */
void td_simulation_disk(td_runtime *runtime, td_disk_call call, tandem_err err, uint64_t count);
/* How often each probe was passed, in all runtimes: TD_PROBE_COUNT of them. */
const uint64_t *td_simulation_probes(const td_simulation *simulation);

/* The log of every runtime opened later. */
void td_simulation_log(td_simulation *simulation, tandem_log_fn log, void *context,
                       tandem_log_level level);

/* Handle one message or make one drained call, or, if none is ready, move the clock to the next
 * timer due at or before until_us. False if there is nothing to do until then, and for ever after
 * more turns than may be. Not from within a handler. */
bool td_simulation_step(td_simulation *simulation, uint64_t until_us);
/* The actor that had the last turn of those that were too many: whatever runs on this simulation comes
 * to no end. NULL: there were not. */
const char *td_simulation_restless(const td_simulation *simulation);
/* Virtual time since the start. */
uint64_t td_simulation_now_us(const td_simulation *simulation);
/* Step until now + duration_us has come; the clock then stands exactly there. */
void td_simulation_run(td_simulation *simulation, uint64_t duration_us);
/* A seeded random number of the scenario's own stream. */
uint64_t td_simulation_random(td_simulation *simulation);
/* A hash over every step so far (which actor, which kind of message, when): equal runs, equal
 * hashes. */
uint64_t td_simulation_trace(const td_simulation *simulation);

#endif
