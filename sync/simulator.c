#include "sync/simulator.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>
#include <xxhash.h>

#include "sync/liar.h"
#include "sync/oracle.h"
#include "sync/sync_manager.h"

enum {
    CONVERGE_MS_MAX = 120000,
    CONVERGE_POLLED_MS_MAX = 300000, /* by small windows, one at each poll */
    SLICE_MS_MIN = 20, /* between two looks while all become equal */
    SLICE_MS_MAX = 500,
    READ_MS = 5000,
    PROBES_MAX = 256,
    LIARS_MAX = 4,
    ASKS_MAX = 8, /* of one peer at once */
    LIAR_BRANCHES = TANDEM_HEADS_MAX + 2,
};

#define YEARS_MS_MAX UINT64_C(63072000000) /* two of them */
#define BAD_DISK                                                                                   \
    (TANDEM_FAULT_DISK_FULL | TANDEM_FAULT_DISK_ERROR | TANDEM_FAULT_DISK_UNKNOWN |                \
     TANDEM_FAULT_MEMORY)

/* What a reactor reported durable last: where it stands. */
struct wrote {
    char collection[TANDEM_NAME_BYTES_MAX + 1], document[TANDEM_NAME_BYTES_MAX + 1];
    uint64_t ordinal; /* 0: nothing yet, or its disk went back since */
};

/* What a reactor refuses for good: the documents of some names. */
struct rule {
    struct run *run;
    unsigned node;
    uint64_t random; /* draws the names; 0: everything is taken */
    bool withdrawn;  /* for good */
};

/* A job on its way. */
struct pending {
    struct run *run;
    struct pending *prev, *next;
    uint64_t number;
    unsigned node;
    struct wrote wrote;
};

struct run {
    const tandem_plan *plan;
    const tandem_simulator_options *options;
    const tandem_workload *workload;
    void *work;
    tandem_harness *harness;
    td_oracle *oracle;
    unsigned nodes;
    unsigned copy_of[TD_PLAN_NODES_MAX]; /* of those above the plan's reactors */
    td_liar *liars[LIARS_MAX];
    unsigned liar_count;
    uint64_t jobs; /* written so far */
    struct pending *pending; /* and not answered yet */
    struct wrote wrote[TD_PLAN_NODES_MAX];
    struct rule rules[TD_PLAN_NODES_MAX];
    uint64_t outcomes; /* a hash over all answers */
    bool ending;       /* what ends from now on is no news */
    const char *probes[PROBES_MAX];
    unsigned probe_count;
    bool jumped; /* a clock has, far ahead */
    bool polls;  /* a remote was polled at intervals */
    tandem_err err;
    tandem_simulator_result *result;
};

static const char *name_of(unsigned node)
{
    return td_plan_name(node);
}

/* ---- Writing ---- */

/* With these a job may be on disk all the same: its reactor crashed, or could not tell. With any
 * other error it must be nowhere. */
static bool is_unknown(tandem_err err)
{
    return err == TANDEM_E_CLOSED || err == TANDEM_E_OUTCOME_UNKNOWN || err == TANDEM_E_TIMEOUT;
}

static void job_ended(struct run *run, unsigned node, uint64_t number, tandem_err err,
                      const tandem_receipt *receipt)
{
    const uint64_t answer[] = {number, (uint64_t)(int64_t)err, err == TANDEM_OK ? receipt->seq : 0,
                               tandem_harness_now_ms(run->harness)};

    run->outcomes = XXH3_64bits_withSeed(answer, sizeof(answer), run->outcomes);
    if (err == TANDEM_OK && !run->ending && run->err == TANDEM_OK)
        run->err = td_oracle_durable(run->oracle, node, number, receipt->hash);
    run->workload->outcome(run->work, number,
                           err == TANDEM_OK    ? TANDEM_OUTCOME_DURABLE
                           : is_unknown(err) ? TANDEM_OUTCOME_UNKNOWN
                                             : TANDEM_OUTCOME_FAILED);
}

static void executed(void *context, tandem_err err, const tandem_receipt *receipt, const char *why)
{
    struct pending *pending = context;

    (void)why;
    DL_DELETE(pending->run->pending, pending);
    if (err == TANDEM_OK) {
        pending->wrote.ordinal = receipt->ordinal;
        pending->run->wrote[pending->node] = pending->wrote;
    }
    job_ended(pending->run, pending->node, pending->number, err, receipt);
    free(pending);
}

/* Whoever asked a reactor that has crashed hears nothing. */
static void end_pending(struct run *run, bool all)
{
    struct pending *pending, *next;

    DL_FOREACH_SAFE(run->pending, pending, next)
    {
        if (all || !tandem_harness_reactor(run->harness, name_of(pending->node)))
            executed(pending, TANDEM_E_CLOSED, NULL, "");
    }
}

static void write_job(struct run *run, unsigned node, uint64_t random)
{
    tandem_reactor *reactor = tandem_harness_reactor(run->harness, name_of(node));
    uint64_t number;
    struct pending *pending;
    tandem_receipt receipt;
    tandem_job job;
    tandem_err err;

    if (!reactor)
        return;
    number = ++run->jobs;
    run->workload->job(run->work, reactor, number, random, &job);
    /* Reading takes time. */
    if (!(reactor = tandem_harness_reactor(run->harness, name_of(node)))) {
        run->workload->outcome(run->work, number, TANDEM_OUTCOME_FAILED);
        return;
    }
    if (job.count == 0) {
        err = tandem_delete(reactor, job.collection, job.document, &receipt, NULL);
        job_ended(run, node, number, err, &receipt);
        return;
    }
    if (!(pending = malloc(sizeof(*pending)))) {
        run->err = TANDEM_E_NOMEM;
        return;
    }
    *pending = (struct pending){.run = run, .number = number, .node = node};
    snprintf(pending->wrote.collection, sizeof(pending->wrote.collection), "%s", job.collection);
    snprintf(pending->wrote.document, sizeof(pending->wrote.document), "%s", job.document);
    DL_APPEND(run->pending, pending);
    err = tandem_execute_async(reactor, &job, executed, pending);
    if (err != TANDEM_OK)
        executed(pending, err, NULL, "");
}

/* ---- Reading ---- */

/* What was reported durable must show; the document may be deleted by now. */
static void read_own(struct run *run, unsigned node, tandem_reactor *reactor)
{
    struct wrote wrote = run->wrote[node]; /* reading takes time */
    tandem_document *document;
    uint64_t head;

    if (tandem_document_head(reactor, wrote.collection, wrote.document, READ_MS, &head, NULL,
                             NULL) != TANDEM_OK)
        return;
    if (tandem_document_read(reactor, wrote.collection, wrote.document, NULL, NULL, READ_MS,
                             &document, NULL) == TANDEM_OK) {
        if (tandem_document_position(document) < head)
            head = tandem_document_position(document);
        tandem_document_free(document);
    }
    if (head >= wrote.ordinal)
        return;
    snprintf(run->result->why, sizeof(run->result->why),
             "%s: a job was durable as ordinal %" PRIu64 ", and its document is shown as of %" PRIu64,
             name_of(node), wrote.ordinal, head);
    run->err = TANDEM_E_STATE;
}

static void read_one(struct run *run, unsigned node, uint64_t random)
{
    tandem_reactor *reactor = tandem_harness_reactor(run->harness, name_of(node));
    tandem_document *document;
    tandem_digest digest;
    tandem_job job;

    if (!reactor)
        return;
    if ((random & 2) && run->wrote[node].ordinal) {
        read_own(run, node, reactor);
        return;
    }
    run->workload->job(run->work, reactor, 0, random, &job); /* for the names in it */
    if (random & 1)
        tandem_digest_collection(reactor, job.collection, READ_MS, &digest, NULL);
    else if (tandem_document_read(reactor, job.collection, job.document, NULL, NULL, READ_MS,
                                  &document, NULL) == TANDEM_OK)
        tandem_document_free(document);
}

/* ---- Trouble ---- */

static void set_network(struct run *run, uint64_t random)
{
    uint32_t faults = run->plan->faults;
    tandem_harness_faults set = {0};
    uint64_t state = random;

    if (td_plan_draw_below(&state, 4) == 0)
        faults = 0; /* a calm */
    if (faults & TANDEM_FAULT_LATENCY) {
        set.latency_ms_min = (uint32_t)td_plan_draw_below(&state, 20);
        set.latency_ms_max = set.latency_ms_min + (uint32_t)td_plan_draw_below(&state, 400);
    }
    if (faults & TANDEM_FAULT_LOSE)
        set.lose_permille = (uint32_t)td_plan_draw_below(&state, 60);
    if (faults & TANDEM_FAULT_DUPLICATE)
        set.duplicate_permille = (uint32_t)td_plan_draw_below(&state, 80);
    if (faults & TANDEM_FAULT_REORDER)
        set.reorder_permille = (uint32_t)td_plan_draw_below(&state, 60);
    if (faults & TANDEM_FAULT_CORRUPT)
        set.corrupt_permille = (uint32_t)td_plan_draw_below(&state, 6);
    tandem_harness_set_faults(run->harness, &set);
}

static void fail_disk(struct run *run, const td_step *step)
{
    uint64_t state = step->random;
    tandem_harness_disk_call call =
        td_plan_draw_below(&state, 2) ? TANDEM_HARNESS_PUT : TANDEM_HARNESS_COMMIT;
    uint64_t count = td_plan_draw_below(&state, 2) ? 1 + td_plan_draw_below(&state, 4) : UINT64_MAX;
    tandem_err err = TANDEM_E_IO;

    if (step->kind == TD_STEP_DISK_FULL)
        err = TANDEM_E_STORE_FULL;
    if (step->kind == TD_STEP_DISK_UNKNOWN)
        call = TANDEM_HARNESS_COMMITTED;
    if (step->kind == TD_STEP_MEMORY) {
        call = TANDEM_HARNESS_PUT;
        err = TANDEM_E_NOMEM;
    }
    tandem_harness_fail_disk(run->harness, name_of(step->a), call, err, count);
}

static void set_clock(struct run *run, unsigned node, int64_t skew_ms)
{
    td_oracle_clock(run->oracle, node);
    tandem_harness_set_clock(run->harness, name_of(node), skew_ms);
    td_oracle_clock(run->oracle, node);
}

static void shift_clock(struct run *run, const td_step *step)
{
    uint64_t state = step->random;

    set_clock(run, step->a, (int64_t)td_plan_draw_below(&state, 400000) - 200000);
}

/* One clock, or those of all: they follow one that is wrong. */
static void jump_clock(struct run *run, const td_step *step)
{
    uint64_t state = step->random;
    int64_t skew_ms = (int64_t)(td_plan_draw_next(&state) % YEARS_MS_MAX);
    bool all = td_plan_draw_below(&state, 4) == 0;

    run->jumped = true;
    for (unsigned i = 0; i < run->nodes; i++)
        if (all || i == step->a)
            set_clock(run, i, skew_ms);
}

static void note_probe(void *context, const char *name, const char *sentence, uint64_t count)
{
    struct run *run = context;

    (void)sentence;
    (void)count;
    if (run->probe_count < PROBES_MAX)
        run->probes[run->probe_count++] = name;
}

static void crash_at(struct run *run, const td_step *step)
{
    uint64_t state = step->random;
    const char *probe = run->probes[td_plan_draw_below(&state, run->probe_count)];

    tandem_harness_crash_at(run->harness, name_of(step->a), probe,
                            1 + td_plan_draw_below(&state, 5));
}

/* Every other reactor has the plan's windows, so that they differ from their peers'. */
static void set_windows(struct run *run, unsigned node)
{
    tandem_sync_options sync = TANDEM_SYNC_OPTIONS_INIT;

    if (node % 2 == 0) {
        sync.window_jobs = run->plan->window_jobs;
        sync.window_bytes = run->plan->window_bytes;
        sync.pool_bytes = run->plan->pool_bytes;
    }
    tandem_harness_set_sync_options(run->harness, &sync);
}

/* There are too few origins for the limit of what is asked for. Every third reactor rather lists all than
 * compare by ranges, so that others meet one that does. */
static void set_limits(struct run *run, unsigned node)
{
    tandem_sync *sync = tandem_harness_sync(run->harness, name_of(node));

    if (!sync)
        return;
    sync->asks_max = ASKS_MAX;
    if (run->plan->ranges_least && node % 3 != 2)
        sync->ranges_least = run->plan->ranges_least;
}

static void restart(struct run *run, unsigned node)
{
    end_pending(run, false);
    set_windows(run, node);
    if (tandem_harness_restart(run->harness, name_of(node)) != TANDEM_OK)
        return;
    set_limits(run, node);
    td_oracle_restarted(run->oracle, node);
}

static void copy(struct run *run, unsigned node)
{
    set_windows(run, run->nodes);
    if (run->nodes == TD_PLAN_NODES_MAX ||
        tandem_harness_copy(run->harness, name_of(node), name_of(run->nodes)) != TANDEM_OK)
        return;
    set_limits(run, run->nodes);
    td_oracle_added(run->oracle, run->nodes, (int)node);
    run->copy_of[run->nodes++] = node;
}

/* Where it may die it does so half of the time when it meets what it wrote and does not know. */
static void go_back(struct run *run, const td_step *step)
{
    uint64_t state = step->random;

    if (tandem_harness_go_back(run->harness, name_of(step->a)) != TANDEM_OK)
        return;
    td_oracle_went_back(run->oracle, step->a);
    run->wrote[step->a].ordinal = 0;
    if ((run->plan->faults & TANDEM_FAULT_CRASH_AT) && td_plan_draw_below(&state, 2))
        tandem_harness_crash_at(run->harness, name_of(step->a), "OWN_COMMITTED", 1);
}

static void forged(void *context, const uint8_t hash[TANDEM_HASH_BYTES])
{
    struct run *run = context;

    if (run->err == TANDEM_OK)
        run->err = td_oracle_forged(run->oracle, hash);
}

/* Where it is the only one from whom a chain may get branches it makes more of them than are kept. */
static td_liar_orders orders_of(struct run *run)
{
    unsigned lies = 0;

    for (size_t i = 0; i < run->plan->count; i++)
        lies += run->plan->steps[i].kind == TD_STEP_LIE;
    if (lies == 1 && !(run->plan->faults & (TANDEM_FAULT_RESTORE | TANDEM_FAULT_COPY)))
        return (td_liar_orders){LIAR_BRANCHES, false, forged, run};
    return (td_liar_orders){1, true, forged, run};
}

static void lie(struct run *run, const td_step *step)
{
    td_liar_orders orders = orders_of(run);
    char name[16];

    if (run->liar_count == LIARS_MAX)
        return;
    snprintf(name, sizeof(name), "liar%u", run->liar_count);
    if (td_liar_open(run->harness, name, name_of(step->a), step->random, &orders,
                     &run->liars[run->liar_count]) == TANDEM_OK)
        run->liar_count++;
}

static void end_lies(struct run *run)
{
    while (run->liar_count)
        td_liar_free(run->liars[--run->liar_count]);
}

/* ---- Refusals ---- */

enum { REFUSED_ONE_IN = 4 }; /* documents */

static bool admit(void *context, const tandem_operation *operation)
{
    const struct rule *rule = context;

    /* What a stranger made up is nowhere, once it is refused, and would be wanted for ever. */
    return !rule->random || tandem_slice_equal(operation->document, tandem_slice_text("lies")) ||
           XXH3_64bits_withSeed(operation->document.bytes, operation->document.size, rule->random) %
               REFUSED_ONE_IN != 0;
}

static void refuse(struct run *run, unsigned node, uint64_t random)
{
    struct rule *rule = &run->rules[node];

    *rule = (struct rule){.run = run, .node = node, .random = random};
    tandem_harness_set_admission(run->harness, name_of(node), admit, rule);
    if (random)
        td_oracle_refuses(run->oracle, node);
}

static tandem_err withdraw(struct run *run, unsigned node)
{
    tandem_reactor *reactor = tandem_harness_reactor(run->harness, name_of(node));

    return reactor ? tandem_withdraw_refusals(reactor) : TANDEM_E_STATE;
}

/* A disk that failed may take some time until it can be written again. */
static void withdraw_all(struct run *run)
{
    for (unsigned i = 0; i < run->nodes; i++)
        if (!run->rules[i].withdrawn)
            run->rules[i].withdrawn = withdraw(run, i) == TANDEM_OK;
}

struct letters {
    uint64_t ids[8];
    size_t count;
};

static tandem_err note_letter(void *context, const td_dead_letter *letter)
{
    struct letters *letters = context;

    letters->ids[letters->count++] = letter->id;
    return letters->count < sizeof(letters->ids) / sizeof(letters->ids[0]) ? TANDEM_OK : TANDEM_END;
}

/* One of its dead letters is offered again, or given up. */
static void see_to_letter(struct run *run, const td_step *step)
{
    tandem_sync *sync = tandem_harness_sync(run->harness, name_of(step->a));
    struct letters letters = {.count = 0};
    uint64_t state = step->random, id;

    if (!sync)
        return;
    td_dead_letters_visit(sync, note_letter, &letters);
    if (!letters.count)
        return;
    id = letters.ids[td_plan_draw_below(&state, letters.count)];
    if (td_plan_draw_below(&state, 3))
        tandem_job_retry(sync, id);
    else
        tandem_job_discard(sync, id);
}

/* ---- Remotes ---- */

/* Poll a remote so: a third each. What is polled is polled so often that all become equal in time. */
static void set_poll(struct run *run, unsigned a, unsigned b, uint64_t random)
{
    static const tandem_poll_mode modes[] = {TANDEM_POLL_LONG, TANDEM_POLL_INTERVAL,
                                             TANDEM_POLL_ADAPTIVE};
    tandem_sync *sync = tandem_harness_sync(run->harness, name_of(a));
    uint64_t state = random;
    tandem_poll_mode mode = modes[td_plan_draw_below(&state, 3)];

    if (!sync)
        return;
    tandem_remote_set_poll(sync, name_of(b), mode, 100 + td_plan_draw_below(&state, 700));
    run->polls |= mode != TANDEM_POLL_LONG;
}

/* Where a window holds a job or two, and moves on when it is polled, a hundred of them take
 * their minute, and more than the patience with which an origin is left to push by itself. */
static bool is_slow_by_windows(const struct run *run)
{
    return run->polls && run->plan->window_jobs;
}

/* NULL: everything. On a disk that fails it stays as it was. */
static void set_share(struct run *run, unsigned a, const char *remote, const tandem_share *share)
{
    tandem_sync *sync = tandem_harness_sync(run->harness, name_of(a));

    if (sync)
        tandem_remote_set_share(sync, remote, share);
}

static void share(struct run *run, const td_step *step)
{
    td_drawn_share drawn;

    td_plan_draw_share(step->random, run->workload, &drawn);
    set_share(run, step->a, name_of(step->b), &drawn.share);
}

struct sharing {
    char names[TD_PLAN_NODES_MAX][8];
    size_t count;
};

static tandem_err note_sharing(void *context, const tandem_remote_status *status)
{
    struct sharing *sharing = context;
    const tandem_share *share = &status->share;

    if (status->name && sharing->count < TD_PLAN_NODES_MAX &&
        (share->direction != TANDEM_DIRECTION_BOTH || share->collection_count ||
         share->document_count || share->scope_count || share->branch_count))
        snprintf(sharing->names[sharing->count++], sizeof(sharing->names[0]), "%s", status->name);
    return TANDEM_OK;
}

/* Everything is shared with all again; what a disk that has failed does not keep yet is said anew. */
static void share_everything(struct run *run)
{
    for (unsigned i = 0; i < run->nodes; i++) {
        struct sharing sharing = {.count = 0};
        tandem_sync *sync = tandem_harness_sync(run->harness, name_of(i));

        if (sync)
            tandem_remotes(sync, note_sharing, &sharing);
        for (size_t k = 0; k < sharing.count; k++)
            set_share(run, i, sharing.names[k], NULL);
    }
}

static tandem_err connect_to(struct run *run, unsigned a, unsigned b)
{
    tandem_err err;

    if (!td_plan_is_http(run->plan, a, b))
        return tandem_harness_connect(run->harness, name_of(a), name_of(b));
    err = tandem_harness_connect_http(run->harness, name_of(a), name_of(b));
    if (err == TANDEM_OK)
        set_poll(run, a, b, run->plan->seed + a * TD_PLAN_NODES_MAX + b);
    return err;
}

static void do_step(struct run *run, const td_step *step)
{
    const char *a = name_of(step->a), *b = name_of(step->b);
    uint64_t state = step->random;

    switch (step->kind) {
    case TD_STEP_WRITE:
        write_job(run, step->a, step->random);
        break;
    case TD_STEP_BURST:
        for (uint64_t left = 2 + td_plan_draw_below(&state, 12); left > 0; left--)
            write_job(run, step->a, td_plan_draw_next(&state));
        break;
    case TD_STEP_READ:
        read_one(run, step->a, step->random);
        break;
    case TD_STEP_NETWORK:
        set_network(run, step->random);
        break;
    case TD_STEP_CUT:
        tandem_harness_cut(run->harness, a, b);
        break;
    case TD_STEP_ONE_WAY:
        tandem_harness_cut_one_way(run->harness, a, b);
        break;
    case TD_STEP_HEAL:
        tandem_harness_heal(run->harness, a, b);
        break;
    case TD_STEP_HALF_OPEN:
        tandem_harness_half_open(run->harness, a, b);
        break;
    case TD_STEP_CLOG:
    case TD_STEP_UNCLOG:
        tandem_harness_clog(run->harness, a, b, step->kind == TD_STEP_CLOG);
        break;
    case TD_STEP_SLOW:
        tandem_harness_slow(run->harness, a, td_plan_draw_below(&state, 2)
                                                 ? (uint32_t)td_plan_draw_below(&state, 200)
                                                 : 0);
        break;
    case TD_STEP_CRASH:
        tandem_harness_crash(run->harness, a);
        break;
    case TD_STEP_CRASH_AT:
        crash_at(run, step);
        break;
    case TD_STEP_RESTART:
        restart(run, step->a);
        break;
    case TD_STEP_DISK_FULL:
    case TD_STEP_DISK_ERROR:
    case TD_STEP_DISK_UNKNOWN:
    case TD_STEP_MEMORY:
        fail_disk(run, step);
        break;
    case TD_STEP_DISK_MEND:
        tandem_harness_fail_disk(run->harness, a, TANDEM_HARNESS_PUT, TANDEM_OK, 0);
        break;
    case TD_STEP_CLOCK:
        shift_clock(run, step);
        break;
    case TD_STEP_CLOCK_JUMP:
        jump_clock(run, step);
        break;
    case TD_STEP_CLOCK_BACK:
        set_clock(run, step->a, 0);
        break;
    case TD_STEP_BACKUP:
        if (tandem_harness_backup(run->harness, a) == TANDEM_OK)
            td_oracle_backed_up(run->oracle, step->a);
        break;
    case TD_STEP_GO_BACK:
        go_back(run, step);
        break;
    case TD_STEP_COPY:
        copy(run, step->a);
        break;
    case TD_STEP_CONNECT:
        connect_to(run, step->a, step->b);
        break;
    case TD_STEP_MEET_SELF:
        tandem_harness_connect(run->harness, a, a);
        break;
    case TD_STEP_DISCONNECT:
        tandem_harness_disconnect(run->harness, a, b);
        break;
    case TD_STEP_PAUSE:
    case TD_STEP_RESUME: {
        tandem_sync *sync = tandem_harness_sync(run->harness, a);

        if (sync && step->kind == TD_STEP_PAUSE)
            tandem_remote_pause(sync, b);
        else if (sync)
            tandem_remote_resume(sync, b);
        break;
    }
    case TD_STEP_LIE:
        lie(run, step);
        break;
    case TD_STEP_POLL:
        set_poll(run, step->a, step->b, step->random);
        break;
    case TD_STEP_REFUSE:
        refuse(run, step->a, step->random | 1);
        break;
    case TD_STEP_ADMIT:
        refuse(run, step->a, 0);
        withdraw(run, step->a);
        break;
    case TD_STEP_WITHDRAW:
        withdraw(run, step->a);
        break;
    case TD_STEP_DEAD_LETTER:
        see_to_letter(run, step);
        break;
    case TD_STEP_SHARE:
        share(run, step);
        break;
    case TD_STEP_SHARE_ALL:
        set_share(run, step->a, b, NULL);
        break;
    case TD_STEP_KINDS:
        break;
    }
}

/* ---- The run ---- */

static bool names_known(const struct run *run, const td_step *step)
{
    return step->a < run->nodes && step->b < run->nodes;
}

/* Does time pass? What comes to no end has no result. */
static tandem_err check_time(struct run *run, const char *when)
{
    const char *actor = td_simulation_restless(td_harness_simulation(run->harness));

    if (!actor)
        return TANDEM_OK;
    snprintf(run->result->why, sizeof(run->result->why),
             "%.60s: time stands still: %d turns in one second, the last of %.60s", when,
             TD_SIMULATION_TURNS_MAX, actor);
    return TANDEM_E_STATE;
}

/* Look; what does not hold is the result. */
static tandem_err look(struct run *run, const char *when)
{
    char why[256];
    tandem_err err = check_time(run, when);

    if (err != TANDEM_OK)
        return err;
    err = td_oracle_look(run->oracle, why);
    end_pending(run, false);
    if (err == TANDEM_OK && run->err != TANDEM_OK)
        return run->err;
    if (err == TANDEM_E_STATE)
        snprintf(run->result->why, sizeof(run->result->why), "%.*s: %.180s", 60, when, why);
    return err;
}

static tandem_err world_open(struct run *run)
{
    const tandem_plan *plan = run->plan;
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    uint64_t state = plan->seed;
    tandem_err err;

    options.seed = plan->seed;
    options.models = run->options->models;
    options.model_count = run->options->model_count;
    options.log = run->options->log;
    options.log_context = run->options->log_context;
    options.log_level = run->options->log_level;
    options.folder = run->options->folder;
    if ((err = run->workload->open(&run->work)) != TANDEM_OK ||
        (err = tandem_harness_open(&options, &run->harness)) != TANDEM_OK ||
        (err = td_oracle_open(run->harness, &run->oracle)) != TANDEM_OK)
        return err;
    for (; run->nodes < plan->reactors; run->nodes++) {
        int64_t skew_ms = plan->faults & TANDEM_FAULT_CLOCK
                              ? (int64_t)td_plan_draw_below(&state, 4000) - 2000
                              : 0;

        set_windows(run, run->nodes);
        if ((err = tandem_harness_add(run->harness, name_of(run->nodes), skew_ms)) != TANDEM_OK)
            return err;
        set_limits(run, run->nodes);
        td_oracle_added(run->oracle, run->nodes, -1);
    }
    for (unsigned a = 0; a < plan->reactors; a++)
        for (unsigned b = 0; b < plan->reactors; b++)
            if (td_plan_joins(plan, a, b) &&
                (err = connect_to(run, a, b)) != TANDEM_OK)
                return err;
    tandem_harness_events(run->harness, note_probe, run);
    return TANDEM_OK;
}

static tandem_err chaos(struct run *run)
{
    const tandem_plan *plan = run->plan;
    char when[64] = "at the beginning";
    tandem_err err;

    for (size_t i = 0; i < plan->count; i++) {
        const td_step *step = &plan->steps[i];
        uint64_t now_ms = tandem_harness_now_ms(run->harness);

        if (!names_known(run, step))
            continue;
        if (step->at_ms > now_ms)
            tandem_harness_run(run->harness, step->at_ms - now_ms);
        if ((err = look(run, when)) != TANDEM_OK)
            return err;
        td_step_text(step, when);
        do_step(run, step);
    }
    if (plan->heal_ms > tandem_harness_now_ms(run->harness))
        tandem_harness_run(run->harness, plan->heal_ms - tandem_harness_now_ms(run->harness));
    return look(run, when);
}

static void heal_link(struct run *run, unsigned a, unsigned b)
{
    const char *from = name_of(a), *to = name_of(b);
    tandem_sync *sync = tandem_harness_sync(run->harness, from);

    tandem_harness_heal(run->harness, from, to);
    tandem_harness_clog(run->harness, from, to, false);
    if (sync)
        tandem_remote_resume(sync, to);
    if (td_plan_joins(run->plan, a, b))
        connect_to(run, a, b);
}

/* Nothing goes wrong any more, and everybody is there. */
static void heal(struct run *run)
{
    static const tandem_harness_faults none;

    /* Before anything moves: by which clock something was taken must be seen afterwards. */
    for (unsigned a = 0; a < run->nodes; a++)
        set_clock(run, a, 0);
    end_lies(run);
    tandem_harness_set_faults(run->harness, &none);
    for (unsigned a = 0; a < run->nodes; a++) {
        tandem_harness_crash_at(run->harness, name_of(a), NULL, 0);
        tandem_harness_fail_disk(run->harness, name_of(a), TANDEM_HARNESS_PUT, TANDEM_OK, 0);
        tandem_harness_slow(run->harness, name_of(a), 0);
        restart(run, a);
    }
    for (unsigned a = 0; a < run->nodes; a++)
        refuse(run, a, 0);
    for (unsigned a = 0; a < run->nodes; a++) {
        tandem_harness_disconnect(run->harness, name_of(a), name_of(a));
        for (unsigned b = 0; b < run->nodes; b++)
            if (a != b)
                heal_link(run, a, b);
        /* Nobody knows of a copy: its original may be one that dials nobody. */
        if (a >= run->plan->reactors)
            tandem_harness_connect(run->harness, name_of(a), name_of(run->copy_of[a]));
    }
}

/* ---- Becoming equal ---- */

/* Has everything come to its end, apart from what is held where? */
static bool is_at_rest(const struct run *run, char why[256])
{
    const char *open = run->pending                         ? "a job was never answered"
                       : !td_oracle_is_idle(run->oracle)     ? "a job handle is still in flight"
                       : !td_oracle_is_distinct(run->oracle) ? "two reactors go by one id"
                                                             : NULL;

    if (open)
        snprintf(why, 256, "%s", open);
    return !open;
}

static bool is_equal(struct run *run, char why[256])
{
    bool rests = is_at_rest(run, why) && td_oracle_is_equal(run->oracle);

    if (rests && !td_oracle_is_delivered(run->oracle)) {
        snprintf(why, 256, "there is a dead letter of what is held");
        return false;
    }
    /* A disk that has failed may hold what its reactor shows a little later. */
    return rests && (td_oracle_has_stranded(run->oracle) || td_oracle_has_vain(run->oracle) ||
                     tandem_harness_converged(run->harness, why) == TANDEM_OK);
}

struct waits {
    const struct run *run;
    unsigned node;
    char *why;
};

/* What cannot be equal yet must be seen to wait, on both sides. */
static tandem_err check_wait(void *context, const tandem_remote_status *status)
{
    const struct waits *waits = context;
    const td_oracle *oracle = waits->run->oracle;
    int other = td_oracle_find(oracle, status->reactor);
    bool is_lacking, is_ahead;

    if (other < 0 || (unsigned)other == waits->node)
        return TANDEM_OK;
    is_lacking = td_oracle_lacks(oracle, waits->node, (unsigned)other);
    is_ahead = td_oracle_lacks(oracle, (unsigned)other, waits->node);
    /* Who lacks it knows until when. Who holds it may have been asked for none of it; and the lag
     * counts no branches of a fork. */
    if ((!is_lacking || (status->state == TANDEM_REMOTE_WAITING_FOR_CLOCK &&
                         status->reason[0] && status->retry_at_ms)) &&
        (!is_ahead || status->state == TANDEM_REMOTE_WAITING_FOR_CLOCK ||
         (status->state != TANDEM_REMOTE_IN_STEP && status->lag_operations)))
        return TANDEM_OK;
    snprintf(waits->why, 256,
             "%s %s what is dated ahead, and shows %s (%.60s), lag %" PRIu64 ", for %s",
             name_of(waits->node), is_lacking ? "lacks" : "keeps",
             tandem_remote_state_name(status->state), status->reason, status->lag_operations,
             name_of((unsigned)other));
    return TANDEM_E_STATE;
}

/* Is this true of each remote of all? The visitor gets a struct waits, and says why not. */
static bool each_remote(const struct run *run,
                        tandem_err (*check)(void *context, const tandem_remote_status *status),
                        char *why)
{
    for (unsigned i = 0; i < run->nodes; i++) {
        struct waits waits = {run, i, why};
        tandem_sync *sync = tandem_harness_sync(run->harness, name_of(i));

        if (sync && tandem_remotes(sync, check, &waits) != TANDEM_OK)
            return false;
    }
    return true;
}

/* All that may be held everywhere is; what is dated ahead waits in sight, and nobody goes on
 * writing such. */
static bool is_equal_but_ahead(struct run *run, char why[256])
{
    if (!is_at_rest(run, why))
        return false;
    if (!td_oracle_is_equal_but_ahead(run->oracle)) {
        snprintf(why, 256, "some lack what is not dated ahead");
        return false;
    }
    if (!td_oracle_is_on_time(run->oracle)) {
        snprintf(why, 256, "a reactor writes ahead of its time, under the origin that it had");
        return false;
    }
    return each_remote(run, check_wait, why);
}

static tandem_err check_in_step(void *context, const tandem_remote_status *status)
{
    const struct waits *waits = context;

    if (status->state == TANDEM_REMOTE_IN_STEP)
        return TANDEM_OK;
    snprintf(waits->why, 256, "%s shows %s (%.100s), lag %" PRIu64 ", for %s", name_of(waits->node),
             tandem_remote_state_name(status->state), status->reason, status->lag_operations,
             status->name ? status->name : "an inbound peer");
    return TANDEM_E_STATE;
}

/* Does everybody show that all has come that is shared? */
static bool is_in_step(struct run *run, char why[256])
{
    return is_at_rest(run, why) && each_remote(run, check_in_step, why);
}

static tandem_err converge(struct run *run, bool (*is_done)(struct run *run, char why[256]))
{
    uint64_t begin_ms = tandem_harness_now_ms(run->harness), slice_ms = SLICE_MS_MIN;
    uint64_t passed_ms = 0;
    uint64_t max_ms = is_slow_by_windows(run) ? CONVERGE_POLLED_MS_MAX : CONVERGE_MS_MAX;
    char why[256];
    tandem_err err;

    for (;;) {
        if (is_done != is_in_step)
            share_everything(run);
        withdraw_all(run);
        if ((err = look(run, "after the faults")) != TANDEM_OK)
            return err;
        passed_ms = tandem_harness_now_ms(run->harness) - begin_ms;
        if (is_done(run, why)) {
            run->result->converged_ms += passed_ms;
            return TANDEM_OK;
        }
        if (passed_ms >= max_ms)
            break;
        tandem_harness_run(run->harness, slice_ms);
        if (slice_ms < SLICE_MS_MAX)
            slice_ms += slice_ms / 2;
    }
    run->result->converged_ms += passed_ms;
    if (is_done == is_equal && is_at_rest(run, why) &&
        td_oracle_is_delivered(run->oracle) &&
        tandem_harness_converged(run->harness, why) == TANDEM_OK)
        snprintf(why, sizeof(why), "what somebody held is gone");
    snprintf(run->result->why, sizeof(run->result->why), "not %s after %" PRIu64 " s: %.200s",
             is_done == is_in_step ? "in step" : "equal", max_ms / 1000, why);
    return TANDEM_E_STATE;
}

/* All clocks say at once that the time has come for whatever is dated ahead, as if all reactors had
 * been asleep until then. */
static void sleep_until_due(struct run *run)
{
    int64_t ahead_ms = (int64_t)td_oracle_ahead_ms(run->oracle);

    for (unsigned i = 0; i < run->nodes; i++)
        set_clock(run, i, ahead_ms);
}

/*
 * After a clock has jumped there is more to see. What was written meanwhile is dated ahead, and
 * waits; all else becomes equal. Where everybody's clock has jumped it takes a word for them to
 * notice; but then what is written does not wait any more. When the time has come nothing waits.
 */
static tandem_err become_equal(struct run *run)
{
    tandem_err err;

    if ((run->plan->faults & TANDEM_FAULT_SHARE) && !run->jumped &&
        (err = converge(run, is_in_step)) != TANDEM_OK)
        return err;
    for (unsigned round = 0; run->jumped && round < 2; round++) {
        for (unsigned i = 0; i < run->nodes; i++)
            write_job(run, i, run->plan->seed + round + i);
        if ((err = converge(run, is_equal_but_ahead)) != TANDEM_OK)
            return err;
    }
    if (run->jumped)
        sleep_until_due(run);
    err = converge(run, is_equal);
    return err == TANDEM_OK ? converge(run, is_in_step) : err;
}

/* ---- The end ---- */

static void lost(void *context, uint64_t number, bool stranded)
{
    struct run *run = context;

    run->workload->outcome(run->work, number,
                           stranded ? TANDEM_OUTCOME_STRANDED : TANDEM_OUTCOME_LOST);
}

static void note_damage(void *context, const char *text)
{
    snprintf(context, 200, "%s", text);
}

struct traffic {
    uint64_t received, duplicates, echoed;
};

static tandem_err add_traffic(void *context, const tandem_remote_status *status)
{
    struct traffic *traffic = context;

    traffic->received += status->received_operations;
    traffic->duplicates += status->duplicate_operations;
    traffic->echoed += status->echoed_operations;
    return TANDEM_OK;
}

/* In a quiet world nothing comes back, and nothing twice: only where messages take their time, or wait
 * for a poll, may the same be on its way from two sides. */
static tandem_err check_traffic(struct run *run, unsigned node)
{
    struct traffic traffic = {0};
    uint64_t duplicates_max;

    if (run->plan->faults & ~(uint32_t)TANDEM_FAULT_LATENCY)
        return TANDEM_OK;
    tandem_remotes(tandem_harness_sync(run->harness, name_of(node)), add_traffic, &traffic);
    duplicates_max = run->plan->faults || is_slow_by_windows(run) ? traffic.received / 2 : 0;
    if (!traffic.echoed && traffic.duplicates <= duplicates_max)
        return TANDEM_OK;
    snprintf(run->result->why, sizeof(run->result->why),
             "%s: %" PRIu64 " operations came back, %" PRIu64 " of %" PRIu64 " came twice",
             name_of(node), traffic.echoed, traffic.duplicates, traffic.received);
    return TANDEM_E_STATE;
}

/* What was refused is here, unless nobody has it any more, or nobody ever did. */
static tandem_err check_lacks(struct run *run, unsigned node, tandem_reactor *reactor)
{
    tandem_stat stat;
    tandem_err err = tandem_stat_get(reactor, &stat);

    if (err != TANDEM_OK)
        return err;
    if (!stat.refused &&
        (!stat.lacks || (run->plan->faults & (TANDEM_FAULT_RESTORE | TANDEM_FAULT_LIAR))))
        return TANDEM_OK;
    snprintf(run->result->why, sizeof(run->result->why),
             "%s: %" PRIu64 " ranges are refused and %" PRIu64 " lacking in the end", name_of(node),
             stat.refused, stat.lacks);
    return TANDEM_E_STATE;
}

static tandem_err check_node(struct run *run, unsigned node)
{
    tandem_reactor *reactor = tandem_harness_reactor(run->harness, name_of(node));
    char why[256] = "";
    tandem_err err;

    if (!reactor) {
        snprintf(run->result->why, sizeof(run->result->why), "%s cannot be started",
                 name_of(node));
        return TANDEM_E_STATE;
    }
    err = tandem_verify(reactor, note_damage, why);
    if (err == TANDEM_OK)
        err = run->workload->check(run->work, reactor, why);
    if (err != TANDEM_OK) {
        snprintf(run->result->why, sizeof(run->result->why), "%s: %.200s", name_of(node), why);
        return TANDEM_E_STATE;
    }
    if ((err = check_lacks(run, node, reactor)) != TANDEM_OK)
        return err;
    return check_traffic(run, node);
}

/* What never happens but under one of these faults. */
static const struct {
    const char *event;
    uint32_t faults;
} never[] = {
    {"COMMIT_FAILED", BAD_DISK | TANDEM_FAULT_CRASH_AT},
    {"FORK_KEPT", TANDEM_FAULT_LIAR | TANDEM_FAULT_RESTORE | TANDEM_FAULT_COPY},
    {"PREDECESSOR_MISSING", TANDEM_FAULT_LIAR | BAD_DISK | TANDEM_FAULT_CRASH_AT |
                                TANDEM_FAULT_CLOCK | TANDEM_FAULT_CLOCK_JUMP |
                                TANDEM_FAULT_RESTORE | TANDEM_FAULT_COPY},
    {"INDEX_REBUILT", BAD_DISK | TANDEM_FAULT_CRASH_AT},
    {"CLOCK_WAIT", TANDEM_FAULT_LIAR | TANDEM_FAULT_CLOCK | TANDEM_FAULT_CLOCK_JUMP},
    {"LOOSE_TAKEN", TANDEM_FAULT_SHARE},
    {"PAIR_MOVED", TANDEM_FAULT_SHARE},
    {"COVER_SENT", TANDEM_FAULT_SHARE},
    {"OWN_CONTINUED", TANDEM_FAULT_LIAR | TANDEM_FAULT_RESTORE | TANDEM_FAULT_COPY},
    {"RANGE_REFUSED", TANDEM_FAULT_REFUSE},
    {"RANGE_WANTED", TANDEM_FAULT_REFUSE | TANDEM_FAULT_LIAR},
    {"JOB_REFUSED", TANDEM_FAULT_REFUSE | TANDEM_FAULT_LIAR | BAD_DISK | TANDEM_FAULT_CRASH_AT |
                        TANDEM_FAULT_CLOCK | TANDEM_FAULT_CLOCK_JUMP | TANDEM_FAULT_RESTORE | TANDEM_FAULT_COPY},
    {"MESSAGE_REPEATED", TANDEM_FAULT_LIAR | TANDEM_FAULT_DUPLICATE},
    {"MESSAGE_MISSING", TANDEM_FAULT_LIAR | TANDEM_FAULT_LOSE | TANDEM_FAULT_REORDER |
                            TANDEM_FAULT_CUT | TANDEM_FAULT_ONE_WAY | TANDEM_FAULT_CLOG},
    {"MESSAGE_CHANGED", TANDEM_FAULT_CORRUPT},
    {"PEER_BROKE_RULES", TANDEM_FAULT_LIAR | TANDEM_FAULT_CORRUPT},
};

static void note_event(void *context, const char *name, const char *sentence, uint64_t count)
{
    struct run *run = context;

    for (size_t i = 0; count && i < sizeof(never) / sizeof(never[0]); i++)
        if (!strcmp(name, never[i].event) && !(run->plan->faults & never[i].faults))
            snprintf(run->result->why, sizeof(run->result->why), "without a reason, %s", sentence);
}

static tandem_err check_events(struct run *run)
{
    tandem_harness_events(run->harness, note_event, run);
    return run->result->why[0] ? TANDEM_E_STATE : TANDEM_OK;
}

static tandem_err check_end(struct run *run)
{
    tandem_err err;

    if ((err = td_oracle_lost(run->oracle, lost, run, run->result->why)) != TANDEM_OK)
        return err;
    for (unsigned i = 0; i < run->nodes && err == TANDEM_OK; i++)
        err = check_node(run, i);
    return err == TANDEM_OK ? check_events(run) : err;
}

struct telling {
    const struct run *run;
    unsigned node;
};

static tandem_err tell_remote(void *context, const tandem_remote_status *status)
{
    const struct telling *telling = context;
    const tandem_simulator_options *options = telling->run->options;
    char line[256];

    snprintf(line, sizeof(line),
             "%s -> %s: %s (%s), lag %" PRIu64 ", outbox %" PRIu64 ", inbox %" PRIu64,
             name_of(telling->node), status->name ? status->name : "inbound",
             tandem_remote_state_name(status->state), status->reason, status->lag_operations,
             status->outbox, status->inbox);
    options->log(options->log_context, TANDEM_LOG_INFO, "simulator", line);
    return TANDEM_OK;
}

/* How all stood when something did not hold. */
static void tell_remotes(const struct run *run)
{
    if (!run->options->log || !run->harness)
        return;
    for (unsigned i = 0; i < run->nodes; i++) {
        struct telling telling = {run, i};
        tandem_sync *sync = tandem_harness_sync(run->harness, name_of(i));

        if (sync)
            tandem_remotes(sync, tell_remote, &telling);
    }
}

static void world_close(struct run *run)
{
    tandem_simulator_result *result = run->result;

    run->ending = true;
    if (run->harness) {
        const uint64_t all[] = {tandem_harness_trace(run->harness), run->outcomes};

        result->trace_hash = XXH3_64bits(all, sizeof(all));
        result->virtual_ms = tandem_harness_now_ms(run->harness);
        if (run->options->event)
            tandem_harness_events(run->harness, run->options->event, run->options->event_context);
    }
    if (run->oracle)
        result->operations = td_oracle_operations(run->oracle);
    result->reactors = run->nodes;
    if (run->harness)
        end_pending(run, true);
    end_lies(run);
    tandem_harness_free(run->harness);
    td_oracle_free(run->oracle);
    run->workload->free(run->work);
}

tandem_err tandem_simulate(const tandem_plan *plan, const tandem_simulator_options *options,
                           tandem_simulator_result *result)
{
    static const tandem_simulator_options defaults = TANDEM_SIMULATOR_OPTIONS_INIT;
    struct run run = {.plan = plan, .result = result};
    tandem_err err;

    if (!options)
        options = &defaults;
    if (!plan || !result || options->size != sizeof(*options))
        return TANDEM_E_INVALID;
    memset(result, 0, sizeof(*result));
    run.options = options;
    run.workload = options->workload ? options->workload
                   : plan->workload  ? plan->workload
                                     : tandem_default_workload();
    if ((err = world_open(&run)) == TANDEM_OK && (err = chaos(&run)) == TANDEM_OK) {
        heal(&run);
        if ((err = become_equal(&run)) == TANDEM_OK)
            err = check_end(&run);
        if (check_time(&run, "at the end") != TANDEM_OK)
            err = TANDEM_E_STATE;
    }
    if (err != TANDEM_OK)
        tell_remotes(&run);
    world_close(&run);
    result->ok = err == TANDEM_OK;
    return err == TANDEM_E_STATE && result->why[0] ? TANDEM_OK : err;
}
