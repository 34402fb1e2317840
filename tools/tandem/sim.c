/*
 * sim: bad weeks drawn from seeds, run on the library's simulator. What fails is printed with the
 * command that replays it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sync/simulator.h"
#include "tools/tandem/command.h"
#include "tools/tandem/interrupt.h"
#include "tools/tandem/print.h"

enum { SHRINK_RUNS = 2000, SCRIPT_BYTES_MAX = 1024 * 1024, EVENTS_MAX = 512 };

struct event {
    const char *name, *sentence;
    uint64_t count;
};

struct sim {
    const cli_call *call;
    tandem_simulator_options options;
    struct event events[EVENTS_MAX];
    size_t event_count, event_at; /* at: in the run that is being told */
    char folder[256];
    uint64_t runs, failed, virtual_ms, operations;
};

/* ---- Options ---- */

static bool add_fault(struct sim *sim, const char *name)
{
    if (!strcmp(name, "all")) {
        sim->options.faults |= TANDEM_FAULT_ALL;
        return true;
    }
    if (!strcmp(name, "none"))
        return true;
    for (uint32_t fault = 1; fault <= TANDEM_FAULT_ALL; fault <<= 1)
        if (!strcmp(name, tandem_fault_name((tandem_fault)fault))) {
            sim->options.faults |= fault;
            return true;
        }
    return false;
}

static int take_faults(struct sim *sim)
{
    const cli_call *call = sim->call;

    if (call->given[CLI_FAULT])
        sim->options.faults = 0;
    for (size_t i = 0; i < call->given[CLI_FAULT]; i++)
        if (!add_fault(sim, call->values[CLI_FAULT][i]))
            return cli_fail(TANDEM_E_INVALID, "none, all, or one of latency, lose, cut, crash …",
                            "%s is no class of faults", call->values[CLI_FAULT][i]);
    return 0;
}

static int take_workload(struct sim *sim)
{
    const char *name = cli_value(sim->call, CLI_WORKLOAD);

    if (name && !(sim->options.workload = tandem_find_workload(name)))
        return cli_fail(TANDEM_E_INVALID, "it is mixed or text", "there is no workload %s", name);
    return 0;
}

/* A folder for real stores: where nothing is really written to a disk, if there is such a place. From
 * then on a signal is waited for between two runs, when the folder is empty. */
static int take_store(struct sim *sim)
{
    const char *store = cli_value(sim->call, CLI_STORE), *root = getenv("TMPDIR");

    if (!store || !strcmp(store, "memory"))
        return 0;
    if (strcmp(store, "lmdb") != 0)
        return cli_fail(TANDEM_E_INVALID, "it is memory or lmdb", "there is no store %s", store);
    if (!root)
        root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(sim->folder, sizeof(sim->folder), "%s/tandem-sim-XXXXXX", root);
    if (!mkdtemp(sim->folder)) {
        sim->folder[0] = 0;
        return cli_fail(TANDEM_E_IO, strerror(errno), "no folder could be made in %s", root);
    }
    sim->options.folder = sim->folder;
    cli_interrupt_begin();
    return 0;
}

static void log_line(void *context, tandem_log_level level, const char *component,
                     const char *text)
{
    (void)context;
    (void)level;
    fprintf(stderr, "%s: %s\n", component, text);
}

/* ---- Events ---- */

static void begin_events(struct sim *sim)
{
    sim->event_at = 0;
}

static void add_event(void *context, const char *name, const char *sentence, uint64_t count)
{
    struct sim *sim = context;
    struct event *event = &sim->events[sim->event_at];

    if (sim->event_at == EVENTS_MAX)
        return;
    sim->event_at++;
    if (sim->event_at > sim->event_count)
        sim->event_count = sim->event_at;
    event->name = name;
    event->sentence = sentence;
    event->count += count;
}

static tandem_err print_events(struct sim *sim)
{
    static const char *const headings[] = {">COUNT", "EVENT", "~WHAT HAPPENED"};
    cli_table *table;

    if (sim->call->json) {
        for (size_t i = 0; i < sim->event_count; i++) {
            json_t *line = json_pack("{s:s,s:I,s:s}", "event", sim->events[i].name, "count",
                                     (json_int_t)sim->events[i].count, "sentence",
                                     sim->events[i].sentence);

            if (!line)
                return TANDEM_E_NOMEM;
            cli_print_json(NULL, line);
            json_decref(line);
        }
        return TANDEM_OK;
    }
    if (!(table = cli_table_open(sim->call, headings, 3, false)))
        return TANDEM_E_NOMEM;
    for (size_t i = 0; i < sim->event_count; i++) {
        char count[32];
        const char *const cells[] = {count, sim->events[i].name, sim->events[i].sentence};

        snprintf(count, sizeof(count), "%" PRIu64, sim->events[i].count);
        cli_table_row(table, cells, 0, sim->events[i].count ? NULL : "red");
    }
    cli_table_free(table);
    return TANDEM_OK;
}

/* ---- Runs ---- */

static tandem_err print_result(const struct sim *sim, uint64_t seed,
                               const tandem_simulator_result *result)
{
    char hash[32];
    json_t *line;

    snprintf(hash, sizeof(hash), "%016" PRIx64, result->trace_hash);
    if (!sim->call->json) {
        if (sim->call->given[CLI_VERBOSE])
            printf("seed %" PRIu64 "  %s  %s  %" PRIu64 " reactors, %" PRIu64
                   " operations, %" PRIu64 " virtual ms, equal after %" PRIu64 "\n",
                   seed, hash, result->ok ? "ok" : "FAILED", result->reactors, result->operations,
                   result->virtual_ms, result->converged_ms);
        return TANDEM_OK;
    }
    line = json_pack("{s:I,s:s,s:I,s:b,s:I,s:I,s:I}", "seed", (json_int_t)seed, "trace_hash", hash,
                     "virtual_ms", (json_int_t)result->virtual_ms, "ok", result->ok, "reactors",
                     (json_int_t)result->reactors, "operations", (json_int_t)result->operations,
                     "converged_ms", (json_int_t)result->converged_ms);
    if (!line || (!result->ok && json_object_set_new(line, "why", json_string(result->why)))) {
        json_decref(line);
        return TANDEM_E_NOMEM;
    }
    cli_print_json(NULL, line);
    json_decref(line);
    fflush(stdout); /* somebody may watch a long campaign */
    return TANDEM_OK;
}

/* How to see it again. */
static void print_replay(const struct sim *sim, uint64_t seed)
{
    const cli_call *call = sim->call;
    const char *script = cli_value(call, CLI_SCRIPT);

    if (script)
        fprintf(stderr, "replay: tandem sim --script %s", script);
    else
        fprintf(stderr, "replay: tandem sim --seed %" PRIu64, seed);
    if (sim->options.workload)
        fprintf(stderr, " --workload %s", sim->options.workload->name);
    for (size_t i = 0; i < call->given[CLI_FAULT]; i++)
        fprintf(stderr, " --fault %s", call->values[CLI_FAULT][i]);
    fprintf(stderr, "%s -vv\n", sim->folder[0] ? " --store lmdb" : "");
}

static tandem_err print_script(const struct sim *sim, uint64_t seed, const char *why,
                               const char *text)
{
    json_t *line;

    if (!sim->call->json) {
        printf("# %s\n%s", why, text);
        return TANDEM_OK;
    }
    if (!(line = json_pack("{s:I,s:s,s:s}", "seed", (json_int_t)seed, "why", why, "script", text)))
        return TANDEM_E_NOMEM;
    cli_print_json(NULL, line);
    json_decref(line);
    return TANDEM_OK;
}

static tandem_err print_shrunk(struct sim *sim, const tandem_plan *plan)
{
    tandem_simulator_result result;
    tandem_plan *small;
    char *text;
    tandem_err err;

    if ((err = tandem_plan_shrink(plan, &sim->options, SHRINK_RUNS, &small, &result)) != TANDEM_OK)
        return err;
    if ((err = tandem_plan_write(small, &text)) == TANDEM_OK) {
        err = print_script(sim, tandem_plan_seed(plan), result.why, text);
        free(text);
    }
    tandem_plan_free(small);
    return err;
}

static tandem_err run_plan(struct sim *sim, const tandem_plan *plan)
{
    uint64_t seed = tandem_plan_seed(plan);
    tandem_simulator_result result;
    tandem_err err;

    begin_events(sim);
    if ((err = tandem_simulate(plan, &sim->options, &result)) != TANDEM_OK)
        return err;
    sim->runs++;
    sim->virtual_ms += result.virtual_ms;
    sim->operations += result.operations;
    if ((err = print_result(sim, seed, &result)) != TANDEM_OK || result.ok)
        return err;
    sim->failed++;
    fflush(stdout);
    fprintf(stderr, "seed %" PRIu64 ": %s\n", seed, result.why);
    print_replay(sim, seed);
    return sim->call->given[CLI_SHRINK] ? print_shrunk(sim, plan) : TANDEM_OK;
}

static int run_seeds(struct sim *sim)
{
    uint64_t first, count;

    if (!cli_number(sim->call, CLI_SEED, 1, &first) ||
        !cli_number(sim->call, CLI_SEEDS, 1, &count))
        return cli_exit_code(TANDEM_E_INVALID);
    if (!count)
        return cli_fail(TANDEM_E_USAGE, "no seed would be run", "`--seeds 0` is no number of seeds");
    for (uint64_t seed = first; seed - first < count && !cli_interrupt(); seed++) {
        tandem_plan *plan;
        tandem_err err = tandem_plan_draw(seed, &sim->options, &plan);

        if (err == TANDEM_OK) {
            err = run_plan(sim, plan);
            tandem_plan_free(plan);
        }
        if (err != TANDEM_OK)
            return cli_fail(err, NULL, "seed %" PRIu64 " could not be run", seed);
    }
    return 0;
}

static int run_script(struct sim *sim, const char *name)
{
    static char text[SCRIPT_BYTES_MAX + 1];
    FILE *in = strcmp(name, "-") ? fopen(name, "re") : stdin;
    char why[256];
    tandem_plan *plan;
    size_t size;
    tandem_err err;

    if (!in)
        return cli_fail(TANDEM_E_NOT_FOUND, strerror(errno), "%s cannot be read", name);
    size = fread(text, 1, SCRIPT_BYTES_MAX, in);
    text[size] = 0;
    if (in != stdin)
        fclose(in);
    if ((err = tandem_plan_read(text, &plan, why)) != TANDEM_OK)
        return cli_fail(err, why, "%s is no script", name);
    err = run_plan(sim, plan);
    tandem_plan_free(plan);
    return err == TANDEM_OK ? 0 : cli_fail(err, NULL, "%s could not be run", name);
}

int cli_sim(const cli_call *call)
{
    static const tandem_simulator_options defaults = TANDEM_SIMULATOR_OPTIONS_INIT;
    const char *script = cli_value(call, CLI_SCRIPT);
    struct sim *sim = calloc(1, sizeof(*sim));
    int code;

    if (!sim)
        return cli_fail(TANDEM_E_NOMEM, NULL, "the simulator could not be started");
    sim->call = call;
    sim->options = defaults;
    sim->options.event = add_event;
    sim->options.event_context = sim;
    if (call->given[CLI_VERBOSE] > 1) {
        sim->options.log = log_line;
        sim->options.log_level = TANDEM_LOG_DEBUG;
    }
    if ((code = take_faults(sim)) == 0 && (code = take_workload(sim)) == 0 &&
        (code = take_store(sim)) == 0)
        code = script ? run_script(sim, script) : run_seeds(sim);
    if (!code && call->given[CLI_EVENTS] && print_events(sim) != TANDEM_OK)
        code = cli_fail(TANDEM_E_NOMEM, NULL, "the events could not be printed");
    if (!code)
        cli_note(call, "%" PRIu64 " runs, %" PRIu64 " failed; %" PRIu64 " virtual seconds, %" PRIu64
                 " operations", sim->runs, sim->failed, sim->virtual_ms / 1000, sim->operations);
    if (!code && sim->failed)
        code = 1;
    if (!code && cli_interrupt())
        code = 128 + cli_interrupt();
    if (sim->folder[0])
        rmdir(sim->folder);
    free(sim);
    return code;
}
