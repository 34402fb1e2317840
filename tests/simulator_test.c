/* The simulator by its public header: that it replays, that it finds what is wrong, and that what it
 * finds becomes small. `tandem sim` runs the seeds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sync/simulator.h"
#include "tests/folder.h"

#ifdef __SANITIZE_THREAD__
__attribute__((visibility("default"))) const char *__tsan_default_options(void);

/* All actors run on one thread here, each with LMDB's lock of a store of its own open across messages:
 * in any order, and nobody waits. */
const char *__tsan_default_options(void)
{
    return "detect_deadlocks=0";
}
#endif

static tandem_simulator_result run_plan(const tandem_plan *plan,
                                        const tandem_simulator_options *options)
{
    tandem_simulator_result result;

    assert_int_equal(TANDEM_OK, tandem_simulate(plan, options, &result));
    return result;
}

static tandem_simulator_result run_seed(uint64_t seed, const tandem_simulator_options *options)
{
    tandem_simulator_result result;
    tandem_plan *plan;

    assert_int_equal(TANDEM_OK, tandem_plan_draw(seed, options, &plan));
    result = run_plan(plan, options);
    tandem_plan_free(plan);
    return result;
}

static void the_same_seed_is_the_same_run(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        tandem_simulator_result first = run_seed(seed, NULL), second = run_seed(seed, NULL);

        assert_true(first.trace_hash == second.trace_hash);
        assert_true(first.virtual_ms == second.virtual_ms);
        assert_true(first.trace_hash != run_seed(seed + 100, NULL).trace_hash);
    }
}

static void a_quiet_world_has_nothing_to_complain_of(void **state)
{
    tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;

    (void)state;
    options.faults = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        tandem_simulator_result result = run_seed(seed, &options);

        if (!result.ok)
            print_message("seed %llu: %s\n", (unsigned long long)seed, result.why);
        assert_true(result.ok);
        assert_string_equal("", result.why);
        assert_true(result.operations > 0 && result.reactors >= 2 && result.virtual_ms > 0);
    }
}

/* Else nobody would look whether anything is said twice. */
static void one_plan_in_twenty_is_quiet(void **state)
{
    unsigned quiet = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        tandem_plan *plan;
        const char *fault;
        char *text;

        assert_int_equal(TANDEM_OK, tandem_plan_draw(seed, NULL, &plan));
        assert_int_equal(TANDEM_OK, tandem_plan_write(plan, &text));
        fault = strstr(text, "fault ");
        quiet += !fault || (!strncmp(fault, "fault latency\n", 14) && !strstr(fault + 1, "fault "));
        free(text);
        tandem_plan_free(plan);
    }
    assert_in_range(quiet, 60, 140);
}

static void real_stores_run_the_same_seeds(void **state)
{
    tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;
    char folder[FOLDER_BYTES];

    (void)state;
    folder_make(folder, "simulator", true); /* it is not the disk that is tested */
    options.folder = folder;
    options.faults = TANDEM_FAULT_CRASH | TANDEM_FAULT_LATENCY;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        tandem_simulator_result result = run_seed(seed, &options);

        if (!result.ok)
            print_message("seed %llu: %s\n", (unsigned long long)seed, result.why);
        assert_true(result.ok);
        assert_true(result.trace_hash == run_seed(seed, &options).trace_hash);
    }
    assert_int_equal(0, rmdir(folder));
}

static void a_plan_survives_being_written_and_read(void **state)
{
    tandem_simulator_result before, after;
    tandem_plan *drawn, *read;
    char *text, *again, why[256];

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_plan_draw(7, NULL, &drawn));
    assert_int_equal(TANDEM_OK, tandem_plan_write(drawn, &text));
    assert_int_equal(TANDEM_OK, tandem_plan_read(text, &read, why));
    assert_int_equal(TANDEM_OK, tandem_plan_write(read, &again));
    assert_string_equal(text, again);
    assert_int_equal(7, tandem_plan_seed(read));
    before = run_plan(drawn, NULL);
    after = run_plan(read, NULL);
    assert_true(before.trace_hash == after.trace_hash);
    free(text);
    free(again);
    tandem_plan_free(drawn);
    tandem_plan_free(read);
}

static void a_script_that_is_none_is_refused_by_its_line(void **state)
{
    static const struct {
        const char *text, *why;
    } bad[] = {
        {"plan 1\nseed 1\nreactors 9\n", "line 3 is no line of a plan: reactors 9"},
        {"", "no line says `plan 1`"},
        {"# a word\nreactors 2\n", "no line says `plan 1`"},
        {"plan 2\n", "line 1 is no line of a plan: plan 2"},
        {"plan 1\nworkload idle\n", "line 2 is no line of a plan: workload idle"},
        {"plan 1\nshape cube\n", "line 2 is no line of a plan: shape cube"},
        {"plan 1\nfault laziness\n", "line 2 is no line of a plan: fault laziness"},
        {"plan 1\nstep 10 ff dance a\n", "line 2 is no line of a plan: step 10 ff dance a"},
        {"plan 1\nstep 10 ff cut a\n", "line 2 is no line of a plan: step 10 ff cut a"},
        {"plan 1\nstep 10 ff crash z\n", "line 2 is no line of a plan: step 10 ff crash z"},
        {"plan 1\n\n# a word\nreactors 0", "line 4 is no line of a plan: reactors 0"},
        {"plan 1\nstep 10\n", "line 2 is no line of a plan: step 10"},
        {"plan 1\nstep 10 ff crash A\n", "line 2 is no line of a plan: step 10 ff crash A"},
        {"plan 1\nstep 10 ff crash ab\n", "line 2 is no line of a plan: step 10 ff crash ab"},
        {"plan 1\nstep 10 ff cut a z\n", "line 2 is no line of a plan: step 10 ff cut a z"},
        {"plan 1\nheal_ms 3600001\n", "line 2 is no line of a plan: heal_ms 3600001"},
        {"plan 1\nstep 3600001 ff crash a\n",
         "line 2 is no line of a plan: step 3600001 ff crash a"},
        {"plan 1\nstep 10 ff crash a\nstep 9 ff crash a\n",
         "line 3 is no line of a plan: step 9 ff crash a"},
    };
    char why[256];

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        tandem_plan *plan;

        assert_int_equal(TANDEM_E_INVALID, tandem_plan_read(bad[i].text, &plan, why));
        assert_string_equal(bad[i].why, why);
    }
}

/* A plan knows for what it was drawn, if that can be said in a script. */
static void a_plan_keeps_its_workload(void **state)
{
    static const char *const lines[] = {NULL, NULL, "workload text\n", NULL};
    tandem_workload own = *tandem_default_workload();
    const tandem_workload *const workloads[] = {NULL, tandem_default_workload(),
                                                tandem_text_workload(), &own};

    (void)state;
    assert_ptr_equal(tandem_default_workload(), tandem_find_workload("mixed"));
    assert_ptr_equal(tandem_text_workload(), tandem_find_workload("text"));
    assert_null(tandem_find_workload("idle"));
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;
        tandem_simulator_result drawn, read;
        char *text, *line, why[256];
        tandem_plan *plan, *script;

        options.workload = workloads[i];
        assert_int_equal(TANDEM_OK, tandem_plan_draw(2, &options, &plan));
        assert_int_equal(TANDEM_OK, tandem_plan_write(plan, &text));
        line = strstr(text, "workload ");
        assert_true(lines[i] ? line && !strncmp(line, lines[i], strlen(lines[i])) : !line);
        assert_int_equal(TANDEM_OK, tandem_plan_read(text, &script, why));
        drawn = run_plan(plan, &options);
        read = run_plan(script, NULL);
        assert_true(drawn.ok && read.trace_hash == drawn.trace_hash);
        assert_true(!lines[i] || drawn.reactors >= 5);
        free(text);
        tandem_plan_free(plan);
        tandem_plan_free(script);
    }
}

static void a_world_has_room_for_seven(void **state)
{
    tandem_workload crowd = *tandem_default_workload();
    tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;
    tandem_plan *plan;

    (void)state;
    options.workload = &crowd;
    crowd.reactors_min = 8;
    assert_int_equal(TANDEM_E_INVALID, tandem_plan_draw(2, &options, &plan));
    crowd.reactors_min = 7;
    assert_int_equal(TANDEM_OK, tandem_plan_draw(2, &options, &plan));
    assert_int_equal(7, run_plan(plan, &options).reactors);
    tandem_plan_free(plan);
}

/* As many steps as a plan may have, and one more; lines of any length. */
static void a_script_has_its_limits(void **state)
{
    enum { STEPS_MAX = 4096, STEP_BYTES = 64 };
    char *text = malloc((STEPS_MAX + 2) * STEP_BYTES), *at = text, why[256];
    tandem_plan *plan;

    (void)state;
    assert_non_null(text);
    at += sprintf(at, "# %0200d\nplan 1\n", 0);
    for (unsigned i = 0; i < STEPS_MAX; i++)
        at += sprintf(at, "step %u 0 crash a\n", i);
    assert_int_equal(TANDEM_OK, tandem_plan_read(text, &plan, why));
    assert_int_equal(STEPS_MAX, tandem_plan_steps(plan));
    tandem_plan_free(plan);
    sprintf(at, "step 5000 0 crash a\n");
    assert_int_equal(TANDEM_E_INVALID, tandem_plan_read(text, &plan, why));
    assert_string_equal("line 4099 is no line of a plan: step 5000 0 crash a", why);
    free(text);
}

/* A workload that is never content once a certain job was written. */
static bool unlucky_written;

static tandem_err unlucky_open(void **out)
{
    unlucky_written = false;
    return tandem_default_workload()->open(out);
}

static void unlucky_job(void *context, tandem_reactor *reactor, uint64_t number, uint64_t random,
                        tandem_job *job)
{
    tandem_default_workload()->job(context, reactor, number, random, job);
    if (number && random % 31 == 7)
        unlucky_written = true;
}

static void unlucky_outcome(void *context, uint64_t number, tandem_outcome outcome)
{
    tandem_default_workload()->outcome(context, number, outcome);
}

static tandem_err unlucky_check(void *context, tandem_reactor *reactor, char why[256])
{
    if (!unlucky_written)
        return tandem_default_workload()->check(context, reactor, why);
    snprintf(why, 256, "the unlucky job was written");
    return TANDEM_E_STATE;
}

static void unlucky_free(void *context)
{
    tandem_default_workload()->free(context);
}

static const tandem_workload unlucky = {
    .open = unlucky_open,
    .job = unlucky_job,
    .outcome = unlucky_outcome,
    .check = unlucky_check,
    .free = unlucky_free,
};

static void what_fails_becomes_small(void **state)
{
    tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;
    tandem_simulator_result result;
    tandem_plan *plan, *small;
    char *text;

    (void)state;
    options.workload = &unlucky;
    options.faults = TANDEM_FAULT_LATENCY | TANDEM_FAULT_CRASH;
    assert_int_equal(TANDEM_OK, tandem_plan_draw(3, &options, &plan));
    assert_false(run_plan(plan, &options).ok);
    assert_int_equal(TANDEM_OK, tandem_plan_shrink(plan, &options, 500, &small, &result));
    assert_false(result.ok);
    assert_non_null(strstr(result.why, "the unlucky job was written"));
    assert_int_equal(1, tandem_plan_steps(small));
    assert_int_equal(TANDEM_OK, tandem_plan_write(small, &text));
    assert_non_null(strstr(text, "reactors 2\n"));
    assert_null(strstr(text, "fault "));
    assert_true(run_plan(small, &options).trace_hash == result.trace_hash);
    free(text);
    tandem_plan_free(plan);
    tandem_plan_free(small);
}

/* Two faults: the smaller one is always there. */
static uint64_t jobs_written;

static void fickle_job(void *context, tandem_reactor *reactor, uint64_t number, uint64_t random,
                       tandem_job *job)
{
    tandem_default_workload()->job(context, reactor, number, random, job);
    jobs_written = number ? number : jobs_written;
}

static tandem_err fickle_check(void *context, tandem_reactor *reactor, char why[256])
{
    snprintf(why, 256, "%u of %u were %s", (unsigned)jobs_written % 7, (unsigned)jobs_written,
             jobs_written < 10 ? "too few" : "too many");
    return TANDEM_E_STATE;
}

static void what_fails_becomes_small_for_the_same_reason(void **state)
{
    tandem_workload fickle = *tandem_default_workload();
    tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;
    tandem_simulator_result result;
    tandem_plan *plan, *small;

    (void)state;
    fickle.job = fickle_job;
    fickle.check = fickle_check;
    options.workload = &fickle;
    options.faults = TANDEM_FAULT_CRASH;
    assert_int_equal(TANDEM_OK, tandem_plan_draw(3, &options, &plan));
    assert_int_equal(TANDEM_OK, tandem_plan_shrink(plan, &options, 500, &small, &result));
    assert_non_null(strstr(result.why, "were too many"));
    assert_true(tandem_plan_steps(small) <= 10);
    tandem_plan_free(plan);
    tandem_plan_free(small);
}

static void what_does_not_fail_is_not_shrunk(void **state)
{
    tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;
    tandem_simulator_result result;
    tandem_plan *plan, *small;

    (void)state;
    options.faults = 0;
    assert_int_equal(TANDEM_OK, tandem_plan_draw(3, &options, &plan));
    assert_int_equal(TANDEM_E_STATE, tandem_plan_shrink(plan, &options, 500, &small, &result));
    tandem_plan_free(plan);
}

/* The number behind a word of a script. */
static unsigned script_number(const char *text, const char *word)
{
    const char *at = strstr(text, word);

    assert_non_null(at);
    return (unsigned)strtoul(at + strlen(word), NULL, 10);
}

/* The step that is left may name a reactor, which stays then. */
static void a_shrunk_world_has_few_reactors_and_wide_windows(void **state)
{
    tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;
    unsigned narrow = 0, fewer = 0;

    (void)state;
    options.workload = &unlucky;
    options.faults = TANDEM_FAULT_CUT;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        tandem_simulator_result result;
        tandem_plan *plan, *small;
        char *before, *after;

        assert_int_equal(TANDEM_OK, tandem_plan_draw(seed, &options, &plan));
        assert_int_equal(TANDEM_OK, tandem_plan_shrink(plan, &options, 500, &small, &result));
        assert_int_equal(TANDEM_OK, tandem_plan_write(plan, &before));
        assert_int_equal(TANDEM_OK, tandem_plan_write(small, &after));
        narrow += script_number(before, "window_jobs ") > 0;
        fewer += script_number(before, "reactors ") > script_number(after, "reactors ");
        assert_int_equal(0, script_number(after, "window_jobs "));
        assert_int_equal(0, script_number(after, "pool_bytes "));
        assert_int_equal(1, tandem_plan_steps(small));
        free(before);
        free(after);
        tandem_plan_free(plan);
        tandem_plan_free(small);
    }
    assert_true(fewer > 0 && narrow > 0);
}

/* What is left when the runs are used up fails, too. */
static void shrinking_ends_with_its_runs(void **state)
{
    tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;
    tandem_simulator_result result;
    tandem_plan *plan, *small;
    size_t steps, before;

    (void)state;
    options.workload = &unlucky;
    assert_int_equal(TANDEM_OK, tandem_plan_draw(3, &options, &plan));
    assert_int_equal(TANDEM_E_STATE, tandem_plan_shrink(plan, &options, 0, &small, &result));
    before = tandem_plan_steps(plan);
    for (uint64_t runs = 1; runs <= 13; runs += 4) {
        assert_int_equal(TANDEM_OK, tandem_plan_shrink(plan, &options, runs, &small, &result));
        steps = tandem_plan_steps(small);
        assert_true(steps <= before);
        before = steps;
        assert_false(run_plan(small, &options).ok);
        tandem_plan_free(small);
    }
    assert_true(before < tandem_plan_steps(plan));
    tandem_plan_free(plan);
}

/* ---- A model that is no function of its operations ---- */

static uint64_t rolled;

static tandem_err roll_open(void **state_out)
{
    *state_out = calloc(1, sizeof(uint64_t));
    return *state_out ? TANDEM_OK : TANDEM_E_NOMEM;
}

static tandem_err roll_prepare(const void *state, const tandem_intent *intent,
                               tandem_writer *payload, char why[128])
{
    tandem_write_nil(payload);
    return TANDEM_OK;
}

static tandem_err roll_apply(void *state, const tandem_change *change)
{
    *(uint64_t *)state = ++rolled;
    return TANDEM_OK;
}

static tandem_err roll_show(const void *state, tandem_writer *out)
{
    tandem_write_uint(out, *(const uint64_t *)state);
    return TANDEM_OK;
}

static tandem_err roll_restore(tandem_slice snapshot, void **state_out)
{
    return TANDEM_E_CORRUPT;
}

static const tandem_model roulette = {
    .size = sizeof(tandem_model),
    .name = "roulette",
    .version = 1,
    .state_open = roll_open,
    .state_free = free,
    .prepare = roll_prepare,
    .apply = roll_apply,
    .show = roll_show,
    .save = roll_show,
    .restore = roll_restore,
};

static void roulette_job(void *context, tandem_reactor *reactor, uint64_t number, uint64_t random,
                         tandem_job *job)
{
    static const tandem_input roll = {.type = "roulette.ROLL", .json = "null"};

    *job = (tandem_job){.collection = "c", .document = "d", .operations = &roll, .count = 1};
}

static void roulette_outcome(void *context, uint64_t number, tandem_outcome outcome)
{
}

static tandem_err roulette_check(void *context, tandem_reactor *reactor, char why[256])
{
    return TANDEM_OK;
}

static const tandem_workload roulette_workload = {
    .open = roll_open,
    .job = roulette_job,
    .outcome = roulette_outcome,
    .check = roulette_check,
    .free = free,
};

static void note_line(void *context, tandem_log_level level, const char *component,
                      const char *line)
{
    *(unsigned *)context += !strcmp(component, "simulator") && strstr(line, " -> ");
}

static void a_model_that_folds_as_it_likes_is_found(void **state)
{
    static const tandem_model *const models[] = {&roulette};
    tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;
    tandem_simulator_result result;
    unsigned remotes_told = 0;

    (void)state;
    options.models = models;
    options.model_count = 1;
    options.workload = &roulette_workload;
    options.faults = TANDEM_FAULT_CRASH;
    options.log = note_line;
    options.log_context = &remotes_told;
    options.log_level = TANDEM_LOG_INFO;
    result = run_seed(11, &options);
    assert_false(result.ok);
    assert_non_null(strstr(result.why, "not equal after"));
    assert_true(remotes_told > 0);
}

/* ---- A workload that comes to no end ---- */

static tandem_reactor *restless_reactor; /* NULL: it may rest */

/* A map is set to what is no map: refused, and asked again, before any time has passed. */
static void ask_again(void *context, tandem_err err, const tandem_receipt *receipt, const char *why)
{
    static const tandem_input none = {.type = "kv.SET", .json = "[]"};
    static const tandem_job job = {
        .collection = "c0", .document = "map0", .operations = &none, .count = 1};

    if (restless_reactor && err != TANDEM_E_CLOSED)
        tandem_execute_async(restless_reactor, &job, ask_again, NULL);
}

static tandem_err restless_check(void *context, tandem_reactor *reactor, char why[256])
{
    enum { DELETED = 50000 }; /* of what is not there: each has some turns */
    tandem_receipt receipt;

    restless_reactor = reactor;
    ask_again(NULL, TANDEM_OK, NULL, NULL);
    for (int i = 0; i < DELETED; i++)
        tandem_delete(reactor, "none", "none", &receipt, NULL);
    restless_reactor = NULL;
    return TANDEM_OK;
}

static void a_run_that_comes_to_no_end_is_ended(void **state)
{
    tandem_workload restless = *tandem_default_workload();
    tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;
    tandem_simulator_result result;

    (void)state;
    restless.check = restless_check;
    options.workload = &restless;
    options.faults = 0;
    result = run_seed(1, &options);
    assert_false(result.ok);
    assert_non_null(strstr(result.why, "time stands still"));
}

static void what_cannot_be_simulated_is_refused(void **state)
{
    tandem_simulator_options options = TANDEM_SIMULATOR_OPTIONS_INIT;
    tandem_simulator_result result;
    tandem_plan *plan;

    (void)state;
    assert_int_equal(TANDEM_E_INVALID, tandem_plan_draw(1, &options, NULL));
    assert_int_equal(TANDEM_OK, tandem_plan_draw(1, &options, &plan));
    assert_int_equal(TANDEM_E_INVALID, tandem_simulate(NULL, &options, &result));
    assert_int_equal(TANDEM_E_INVALID, tandem_simulate(plan, &options, NULL));
    options.size--;
    assert_int_equal(TANDEM_E_INVALID, tandem_simulate(plan, &options, &result));
    tandem_plan_free(plan);
    assert_int_equal(TANDEM_E_INVALID, tandem_plan_draw(1, &options, &plan));
    tandem_plan_free(NULL);
}

static void faults_have_names(void **state)
{
    (void)state;
    for (uint32_t fault = 1; fault <= TANDEM_FAULT_ALL; fault <<= 1)
        assert_non_null(tandem_fault_name((tandem_fault)fault));
    assert_string_equal("crash_at", tandem_fault_name(TANDEM_FAULT_CRASH_AT));
    assert_null(tandem_fault_name((tandem_fault)(TANDEM_FAULT_CUT | TANDEM_FAULT_LOSE)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_is_the_same_run),
        cmocka_unit_test(a_quiet_world_has_nothing_to_complain_of),
        cmocka_unit_test(one_plan_in_twenty_is_quiet),
        cmocka_unit_test(real_stores_run_the_same_seeds),
        cmocka_unit_test(a_plan_survives_being_written_and_read),
        cmocka_unit_test(a_script_that_is_none_is_refused_by_its_line),
        cmocka_unit_test(a_plan_keeps_its_workload),
        cmocka_unit_test(a_world_has_room_for_seven),
        cmocka_unit_test(a_script_has_its_limits),
        cmocka_unit_test(what_fails_becomes_small),
        cmocka_unit_test(what_fails_becomes_small_for_the_same_reason),
        cmocka_unit_test(what_does_not_fail_is_not_shrunk),
        cmocka_unit_test(a_shrunk_world_has_few_reactors_and_wide_windows),
        cmocka_unit_test(shrinking_ends_with_its_runs),
        cmocka_unit_test(a_model_that_folds_as_it_likes_is_found),
        cmocka_unit_test(a_run_that_comes_to_no_end_is_ended),
        cmocka_unit_test(what_cannot_be_simulated_is_refused),
        cmocka_unit_test(faults_have_names),
    };

    return cmocka_run_group_tests_name("simulator", tests, NULL, NULL);
}
