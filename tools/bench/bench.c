/* `tandem bench`: the table of benches, and how their figures look. */
#include "tools/bench/bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/tandem/interrupt.h"
#include "tools/tandem/request.h"

/* In the order in which they are run. */
static const bench benches[] = {
    {"write", "durable writes of one caller, of 64, in batches, and import",
     "one, callers64, batch100, import", {.operations = 1000000, .seconds = 2, .pairs = 9},
     {.operations = 50000, .seconds = 1, .pairs = 1}, false, bench_write},
    {"catchup", "a fresh peer fetches everything",
     "websocket, http, memory, documents, collections, slow_link",
     {.operations = 1000000, .pairs = 9}, {.operations = 50000, .pairs = 1}, false, bench_catchup},
    {"latency", "from an append to its being visible at a peer, at 200 and 20,000 a second",
     "200, 20000", {.operations = 1000000, .seconds = 10, .pairs = 9},
     {.operations = 20000, .seconds = 1, .pairs = 1}, false, bench_latency},
    {"handshake", "two equal stores meet, and two that differ by ten operations", "equal, missing10",
     {.operations = 1000000, .pairs = 9}, {.operations = 10000, .pairs = 1}, false,
     bench_handshake},
    {"fanout", "one writes, and eight get it", "readers8", {.operations = 200000, .pairs = 9},
     {.operations = 10000, .pairs = 1}, false, bench_fanout},
    {"mesh", "five write, and each gets it from all", "writers5",
     {.operations = 200000, .pairs = 9}, {.operations = 10000, .pairs = 1}, false, bench_mesh},
    {"fold", "a document of many operations read, cold and after a late one; typing", "kv, text",
     {.operations = 1000000, .pairs = 9}, {.operations = 20000, .pairs = 1}, false, bench_fold},
    {"open", "opening stores of 10 thousand to 10 million operations",
     "10000, 100000, 1000000, 10000000", {.operations = 10000000, .pairs = 9},
     {.operations = 100000, .pairs = 3}, false, bench_open},
    {"growth", "what an operation costs at 100 thousand, a million and ten million",
     "catchup, write", {.operations = 10000000, .pairs = 9}, {.operations = 100000, .pairs = 1},
     false, bench_growth},
    {"peers", "1,000 peers of one node: in step, memory, CPU, and from a write to its being visible",
     "all, own", {.peers = 1000, .reactors = 100, .rate = 100, .seconds = 20},
     {.peers = 100, .reactors = 20, .rate = 100, .seconds = 3}, true, bench_peers},
    {"slow_receiver", "a peer that reads nothing for a minute: what it costs the sender and the others",
     NULL, {.peers = 8, .seconds = 60}, {.peers = 4, .seconds = 3}, true, bench_slow_receiver},
};
enum { BENCHES = sizeof(benches) / sizeof(benches[0]) };

/* ---- Figures ---- */

/* null where it does not apply. */
static json_t *number_or_null(double value)
{
    return value != 0 ? json_real(value) : json_null();
}

static double ratio_of(const bench_figure *figure)
{
    if (figure->ratio != 0 || figure->ceiling == 0)
        return figure->ratio;
    return figure->value / figure->ceiling;
}

static void print_json(const bench_run *run, const bench_figure *figure)
{
    json_t *line = json_pack(
        "{s:s, s:s, s:s, s:f, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "bench",
        run->name, "variant", run->variant, "figure", figure->name, "value", figure->value, "unit",
        figure->unit, "ceiling", number_or_null(figure->ceiling), "ratio",
        figure->ceiling != 0 ? json_real(ratio_of(figure)) : json_null(), "rss_anon_bytes",
        figure->rss_anon_bytes ? json_integer((json_int_t)figure->rss_anon_bytes) : json_null(),
        "disk_bytes_per_operation", number_or_null(figure->disk_bytes_per_operation),
        "wire_bytes_per_operation", number_or_null(figure->wire_bytes_per_operation), "low",
        number_or_null(figure->spread.low), "high", number_or_null(figure->spread.high), "ratio_low",
        number_or_null(figure->ratio_spread.low), "ratio_high",
        number_or_null(figure->ratio_spread.high));

    if (line)
        cli_print_json(NULL, line);
    json_decref(line);
}

enum { NUMBER_BYTES = 32 };

static void number_text(double value, char out[NUMBER_BYTES])
{
    bool whole = value == (double)(int64_t)value;

    snprintf(out, NUMBER_BYTES, "%.*f", whole || value >= 10000 ? 0 : value < 10 && value > -10 ? 3 : 1,
             value);
}

/* "0.61 (0.58 to 0.64)" */
static void spread_text(const bench_spread *spread, char *out, size_t size)
{
    if (spread->low != spread->high)
        snprintf(out, size, "%.3g to %.3g", spread->low, spread->high);
}

void bench_print(bench_run *run, const bench_figure *figure)
{
    char value[NUMBER_BYTES], ceiling[NUMBER_BYTES] = "-", ratio[NUMBER_BYTES] = "-";
    char between[2 * NUMBER_BYTES] = "", rss[NUMBER_BYTES] = "-", disk[NUMBER_BYTES] = "-";
    char wire[NUMBER_BYTES] = "-";
    const char *cells[] = {run->name, run->variant, figure->name, value, figure->unit, ceiling,
                           ratio, between, rss, disk, wire};

    bench_progress_end(run);
    if (!run->table) {
        print_json(run, figure);
        fflush(stdout);
        return;
    }
    number_text(figure->value, value);
    if (figure->ceiling != 0) {
        number_text(figure->ceiling, ceiling);
        snprintf(ratio, sizeof(ratio), "%.3f", ratio_of(figure));
        spread_text(&figure->ratio_spread, between, sizeof(between));
    }
    if (figure->rss_anon_bytes)
        snprintf(rss, sizeof(rss), "%.1f", (double)figure->rss_anon_bytes / (1024 * 1024));
    if (figure->disk_bytes_per_operation != 0)
        number_text(figure->disk_bytes_per_operation, disk);
    if (figure->wire_bytes_per_operation != 0)
        number_text(figure->wire_bytes_per_operation, wire);
    cli_table_row(run->table, cells, 0, NULL);
}

/* ---- Progress ---- */

static bool shows_progress(const bench_run *run)
{
    return !run->call->quiet && run->call->progress == CLI_AUTO && isatty(STDERR_FILENO);
}

void bench_progress(bench_run *run, const char *what, uint64_t done, uint64_t total)
{
    enum { CELLS = 24 };

    if (!shows_progress(run))
        return;
    fputs("\r\033[K", stderr);
    for (uint64_t i = 0; i < CELLS; i++)
        fputs(i * total < done * CELLS ? "█" : "·", stderr);
    fprintf(stderr, "  %s %s: %s %" PRIu64 " of %" PRIu64 ", %" PRIu64 " s", run->name, run->variant,
            what, done + 1, total, (cli_monotonic_ms() - run->begun_ms) / 1000);
    fflush(stderr);
}

void bench_progress_end(bench_run *run)
{
    if (shows_progress(run))
        fputs("\r\033[K", stderr);
    fflush(stderr);
}

/* ---- The command ---- */

bool bench_variant(bench_run *run, const char *variant)
{
    if (cli_interrupt() || (run->only && strcmp(run->only, variant)))
        return false;
    run->variant = variant;
    return true;
}

static int list(const cli_call *call)
{
    for (unsigned i = 0; i < BENCHES; i++) {
        const bench *row = &benches[i];
        json_t *line;

        if (!call->json) {
            printf("%-15s %s\n", row->name, row->help);
            if (row->variants)
                printf("%-15s   %s\n", "", row->variants);
            continue;
        }
        line = json_pack("{s:s, s:s, s:s*}", "bench", row->name, "help", row->help, "variants",
                         row->variants);
        if (line)
            cli_print_json(NULL, line);
        json_decref(line);
    }
    return 0;
}

/* What was asked for, of what the bench has. */
static bool read_size(const cli_call *call, const bench_size *usual, bench_size *out)
{
    const struct {
        cli_flag flag;
        uint64_t usual;
        uint64_t *out;
    } numbers[] = {
        {CLI_PEERS, usual->peers, &out->peers},
        {CLI_REACTORS, usual->reactors, &out->reactors},
        {CLI_RATE, usual->rate, &out->rate},
        {CLI_SECONDS, usual->seconds, &out->seconds},
        {CLI_OPERATIONS, usual->operations, &out->operations},
        {CLI_PAIRS, usual->pairs, &out->pairs},
    };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (!cli_number(call, numbers[i].flag, numbers[i].usual, numbers[i].out))
            return false;
        if (numbers[i].usual && !*numbers[i].out && numbers[i].flag != CLI_REACTORS) {
            cli_fail(TANDEM_E_USAGE, "nothing would be measured", "%s is at least 1",
                     cli_flag_name(numbers[i].flag));
            return false;
        }
    }
    return true;
}

static int run_bench(const cli_call *call, const bench *row, cli_table *table)
{
    bench_run run = {.call = call,
                     .name = row->name,
                     .variant = "",
                     .only = cli_value(call, CLI_VARIANT),
                     .table = table,
                     .quick = call->given[CLI_QUICK] > 0,
                     .begun_ms = cli_monotonic_ms()};
    int code;

    if (!read_size(call, run.quick ? &row->quick : &row->usual, &run.size))
        return cli_exit_code(TANDEM_E_USAGE);
    code = row->run(&run);
    bench_progress_end(&run);
    if (!code && !run.variant[0])
        code = cli_fail(TANDEM_E_NOT_FOUND, "`tandem bench --list` lists them",
                        "bench %s has no variant `%.64s`", row->name, run.only);
    return cli_interrupt() ? 128 + cli_interrupt() : code;
}

static int run_benches(const cli_call *call, const char *name)
{
    static const char *const headings[] = {"BENCH",  "VARIANT",  "FIGURE", ">VALUE",
                                           "UNIT",   ">CEILING", ">RATIO", "BETWEEN",
                                           ">MIB",   ">DISK/OP", ">WIRE/OP"};
    cli_table *table = NULL;
    int code = 0;

    if (!call->json &&
        !(table = cli_table_open(call, headings, sizeof(headings) / sizeof(headings[0]), false)))
        return cli_fail(TANDEM_E_NOMEM, NULL, "the bench could not be started");
    cli_interrupt_begin();
    for (unsigned i = 0; i < BENCHES && !code; i++)
        if (name ? !strcmp(name, benches[i].name) : !benches[i].apart)
            code = run_bench(call, &benches[i], table);
    cli_table_free(table);
    return code;
}

int cli_bench(const cli_call *call)
{
    if (call->given[CLI_LIST])
        return list(call);
    if (!call->arg_count)
        return run_benches(call, NULL);
    for (unsigned i = 0; i < BENCHES; i++)
        if (!strcmp(call->args[0], benches[i].name))
            return run_benches(call, benches[i].name);
    return cli_fail(TANDEM_E_NOT_FOUND, "`tandem bench --list` lists them",
                    "there is no bench `%.64s`", call->args[0]);
}
