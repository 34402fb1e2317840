/* `tandem bench`: the table of benches, and how their figures look. */
#include "tools/bench/bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/tandem/interrupt.h"

static const bench benches[] = {
    {"peers", "1,000 peers of one node: in step, memory, CPU, and from a write to its being visible",
     1000, 100, 100, 20, bench_peers},
    {"slow_receiver", "a peer that reads nothing for a minute: what it costs the sender and the others",
     8, 0, 0, 60, bench_slow_receiver},
};
enum { BENCHES = sizeof(benches) / sizeof(benches[0]) };

/* ---- Figures ---- */

/* null where it does not apply. */
static json_t *number_or_null(double value)
{
    return value != 0 ? json_real(value) : json_null();
}

static void print_json(const bench_run *run, const bench_figure *figure)
{
    json_t *line = json_pack(
        "{s:s, s:s, s:s, s:f, s:s, s:o, s:o, s:o, s:o, s:o}", "bench", run->name, "variant",
        run->variant, "figure", figure->name, "value", figure->value, "unit", figure->unit,
        "ceiling", number_or_null(figure->ceiling), "ratio",
        figure->ceiling != 0 ? json_real(figure->value / figure->ceiling) : json_null(),
        "rss_anon_bytes",
        figure->rss_anon_bytes ? json_integer((json_int_t)figure->rss_anon_bytes) : json_null(),
        "disk_bytes_per_operation", number_or_null(figure->disk_bytes_per_operation),
        "wire_bytes_per_operation", number_or_null(figure->wire_bytes_per_operation));

    if (line)
        cli_print_json(NULL, line);
    json_decref(line);
}

static void number_text(double value, char out[32])
{
    bool whole = value == (double)(int64_t)value;

    snprintf(out, 32, "%.*f", whole ? 0 : value < 10 && value > -10 ? 3 : 1, value);
}

void bench_print(bench_run *run, const bench_figure *figure)
{
    char value[32], ceiling[32] = "-", ratio[32] = "-";
    const char *cells[] = {run->variant, figure->name, value, figure->unit, ceiling, ratio};

    if (!run->table) {
        print_json(run, figure);
        fflush(stdout);
        return;
    }
    number_text(figure->value, value);
    if (figure->ceiling != 0) {
        number_text(figure->ceiling, ceiling);
        snprintf(ratio, sizeof(ratio), "%.3f", figure->value / figure->ceiling);
    }
    cli_table_row(run->table, cells, 0, NULL);
}

/* ---- The command ---- */

static int list(const cli_call *call)
{
    for (unsigned i = 0; i < BENCHES; i++) {
        json_t *line;

        if (!call->json) {
            printf("%-15s %s\n", benches[i].name, benches[i].help);
            continue;
        }
        line = json_pack("{s:s, s:s}", "bench", benches[i].name, "help", benches[i].help);
        if (line)
            cli_print_json(NULL, line);
        json_decref(line);
    }
    return 0;
}

static int run_bench(const cli_call *call, const bench *row)
{
    static const char *const headings[] = {"VARIANT", "FIGURE", ">VALUE", "UNIT", ">CEILING",
                                           ">RATIO"};
    bench_run run = {.call = call, .name = row->name, .variant = ""};
    int code;

    if (!cli_number(call, CLI_PEERS, row->peers, &run.peers) ||
        !cli_number(call, CLI_REACTORS, row->reactors, &run.reactors) ||
        !cli_number(call, CLI_RATE, row->rate, &run.rate) ||
        !cli_number(call, CLI_SECONDS, row->seconds, &run.seconds))
        return cli_exit_code(TANDEM_E_INVALID);
    if (!run.peers || (row->rate && !run.rate) || !run.seconds)
        return cli_fail(TANDEM_E_USAGE, "peers, rate and seconds are at least 1",
                        "nothing would be measured");
    if (!call->json &&
        !(run.table = cli_table_open(call, headings, sizeof(headings) / sizeof(headings[0]), false)))
        return cli_fail(TANDEM_E_NOMEM, NULL, "the bench could not be started");
    cli_interrupt_begin();
    code = row->run(&run);
    cli_table_free(run.table);
    return cli_interrupt() ? 128 + cli_interrupt() : code;
}

int cli_bench(const cli_call *call)
{
    if (!call->arg_count)
        return list(call);
    for (unsigned i = 0; i < BENCHES; i++)
        if (!strcmp(call->args[0], benches[i].name))
            return run_bench(call, &benches[i]);
    return cli_fail(TANDEM_E_NOT_FOUND, "`tandem bench` lists them", "there is no bench `%.64s`",
                    call->args[0]);
}
