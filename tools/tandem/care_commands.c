/*
 * status, digest, verify, errors: how the store and its neighbours are.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "tools/tandem/access.h"
#include "tools/tandem/interrupt.h"
#include "tools/tandem/print.h"

enum { WATCH_MS = 1000, WATCH_BYTES = 256 * 1024 };

/* ---- status ---- */

/* The first few; how many there are is said already. */
static void print_forks(const json_t *forks, unsigned long long count)
{
    const json_t *fork;
    size_t i;

    json_array_foreach(forks, i, fork) {
        printf("forked  origin %s in %s: %llu heads%s\n", cli_text_of(fork, "origin"),
               cli_text_of(fork, "collection"),
               (unsigned long long)cli_number_of(fork, "heads", 0),
               json_is_true(json_object_get(fork, "quarantined"))
                   ? ", quarantined: a further one is refused"
                   : "");
    }
    if (count > json_array_size(forks))
        printf("        and %llu more\n", count - (unsigned long long)json_array_size(forks));
}

/* What has happened since the store was opened. */
static void print_events(const json_t *events)
{
    static const struct {
        const char *kind, *text;
    } rows[] = {
        {"incarnation", "new origins taken"},
        {"fork", "heads more of an origin"},
        {"quarantine", "jobs refused of a quarantined origin"},
        {"clock", "jobs put off, dated ahead"},
        {"claim", "claims of peers not shown"},
        {"refusal", "jobs of peers refused for good"},
        {"dead_letter", "jobs that peers refused for good"},
        {"withdrawal", "times that refusals were withdrawn"},
    };
    const char *between = "events  ";

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned long long count = cli_number_of(events, rows[i].kind, 0);

        if (!count)
            continue;
        printf("%s%s: %llu", between, rows[i].text, count);
        between = ", ";
    }
    if (between[0] == ',')
        putchar('\n');
}

static void print_store(const json_t *result)
{
    const json_t *store = json_object_get(result, "store");
    const json_t *listener = json_object_get(result, "listener");
    const char *url = cli_text_of(listener, "url");
    const char *error = cli_text_of(store, "error");
    unsigned long long lag = cli_number_of(store, "index_lag", 0);
    unsigned long long quarantined = cli_number_of(store, "quarantined", 0);
    unsigned long long forks = cli_number_of(store, "forks", 0);
    unsigned long long full = cli_number_of(store, "quarantined_origins", 0);
    unsigned long long lacks = cli_number_of(store, "lacks", 0);
    unsigned long long refused = cli_number_of(store, "refused", 0);
    unsigned long long partial = cli_number_of(store, "partial_collections", 0);
    const json_t *incarnation = json_object_get(result, "incarnation");
    const char *reason = cli_text_of(incarnation, "reason");
    char bytes[32];

    cli_bytes_text(cli_number_of(store, "bytes", 0), bytes);
    printf("reactor %s  origin %s  tandem %s  %s\n", cli_text_of(result, "reactor"),
           cli_text_of(result, "origin"), cli_text_of(result, "version"),
           json_is_true(json_object_get(result, "running")) ? "running" : "stopped");
    if (cli_number_of(incarnation, "number", 1) > 1 || (reason && strcmp(reason, "created") != 0))
        printf("        its origin number %llu, since %s: %s\n",
               (unsigned long long)cli_number_of(incarnation, "number", 0),
               cli_text_of(incarnation, "since"), reason);
    printf("store   %s, %llu operations", bytes,
           (unsigned long long)cli_number_of(store, "operations", 0));
    if (lag)
        printf(", index %llu behind", lag);
    if (forks)
        printf(", %llu forked", forks);
    if (full)
        printf(", %llu of them quarantined", full);
    if (lacks)
        printf(", %llu range%s lacking", lacks, lacks == 1 ? "" : "s");
    if (refused)
        printf(", %llu range%s refused", refused, refused == 1 ? "" : "s");
    if (partial)
        printf(", %llu collection%s held in part", partial, partial == 1 ? "" : "s");
    if (quarantined)
        printf(", %llu records quarantined: run `tandem verify`", quarantined);
    if (error)
        printf(", cannot be written: %s", error);
    putchar('\n');
    print_forks(json_object_get(result, "forks"), forks);
    print_events(json_object_get(result, "events"));
    if (url)
        printf("listens %s, %llu sessions, %llu rejected\n", url,
               (unsigned long long)cli_number_of(listener, "sessions", 0),
               (unsigned long long)cli_number_of(listener, "rejected", 0));
}

/* "63 %, 12000/s, 3 s"; "" for a peer that is not on its way. */
static char *progress_cell(const json_t *remote)
{
    const json_t *progress = json_object_get(remote, "progress");
    unsigned long long total = cli_number_of(progress, "total", 0);
    unsigned long long applied = cli_number_of(progress, "applied", 0);
    unsigned long long left_ms = cli_number_of(progress, "left_ms", 0);
    char *cell = NULL, left[32] = "";

    if (applied >= total)
        return strdup("");
    if (left_ms)
        snprintf(left, sizeof(left), ", %llu s", (left_ms + 999) / 1000);
    if (asprintf(&cell, "%llu %%, %llu/s%s", applied * 100 / total,
                 (unsigned long long)cli_number_of(progress, "rate", 0), left) < 0)
        return NULL;
    return cell;
}

static tandem_err print_status(void *context, const json_t *result)
{
    static const char *const headings[] = {"PEER", "STATE", ">LAG", "PROGRESS", ">OUT", ">IN",
                                           ">SENT", ">RECEIVED", "NEXT TRY", "~REASON"};
    static const char *const members[] = {"name", "state", "lag_operations", "progress", "outbox",
                                          "inbox", "sent_operations", "received_operations",
                                          "retry_at", "reason"};
    enum { CELLS = sizeof(members) / sizeof(members[0]), PROGRESS = 3 };
    const cli_call *call = context;
    const json_t *remotes = json_object_get(result, "remotes"), *remote;
    cli_table *table;
    size_t i;

    print_store(result);
    if (json_array_size(remotes) == 0) {
        printf("no peers; `tandem peer add NAME URL` makes one\n");
        return TANDEM_OK;
    }
    table = cli_table_open(call, headings, CELLS, false);
    if (!table)
        return TANDEM_E_NOMEM;
    json_array_foreach(remotes, i, remote) {
        char *cells[CELLS] = {0};

        for (size_t cell = 0; cell < CELLS; cell++)
            cells[cell] = cell == PROGRESS ? progress_cell(remote)
                                           : cli_cell(json_object_get(remote, members[cell]));
        cli_table_row(table, (const char *const *)cells, 1,
                      cli_state_color(cells[1] ? cells[1] : ""));
        for (size_t cell = 0; cell < CELLS; cell++)
            free(cells[cell]);
    }
    cli_table_free(table);
    return TANDEM_OK;
}

/* The same in place of what the terminal shows. */
static tandem_err redraw_status(void *context, const json_t *result)
{
    fputs("\033[H\033[2J", stdout);
    return print_status(context, result);
}

/* Show it again and again, until a signal comes or the node ends; a refresh is shown whole, or not
 * at all. A stopped store is shown once: nobody changes it while we hold its lock. */
static tandem_err watch_status(cli_access *access, const json_t *object, cli_emit_fn emit,
                               const cli_call *call, char why[CLI_WHY_BYTES])
{
    tandem_err err;

    setvbuf(stdout, NULL, _IOFBF, WATCH_BYTES);
    for (;;) {
        err = cli_access_run(access, object, emit, (void *)call, why);
        if (fflush(stdout) || err != TANDEM_OK || cli_interrupt())
            return err;
        if (!cli_access_is_node(access)) {
            snprintf(why, CLI_WHY_BYTES, "no node runs on %.180s, so nothing changes", call->data);
            return TANDEM_E_UNREACHABLE;
        }
        cli_access_pause(access, WATCH_MS);
        if (cli_interrupt())
            return TANDEM_OK;
    }
}

static int watch(const cli_call *call)
{
    cli_emit_fn emit = call->json              ? cli_print_json
                       : isatty(STDOUT_FILENO) ? redraw_status
                                               : print_status;
    json_t *object = cli_request_of(call, "status");
    cli_access *access = NULL;
    char why[CLI_WHY_BYTES] = "";
    tandem_err err = object ? cli_access_open(call, false, &access, why) : TANDEM_E_NOMEM;

    cli_interrupt_begin();
    if (err == TANDEM_OK)
        err = watch_status(access, object, emit, call, why);
    cli_access_free(access);
    json_decref(object);
    if (cli_interrupt())
        return 128 + cli_interrupt();
    return err == TANDEM_OK ? 0 : cli_fail(err, why, "`tandem status --watch` ended");
}

int cli_status(const cli_call *call)
{
    if (call->given[CLI_WATCH])
        return watch(call);
    return cli_run_request(call, false, cli_request_of(call, "status"),
                           call->json ? cli_print_json : print_status, (void *)call, NULL);
}

/* ---- digest, verify ---- */

static tandem_err print_digest(void *context, const json_t *result)
{
    printf("%s  %llu operations, %llu documents%s\n  vector %s\n  state  %s\n",
           cli_text_of(result, "collection"),
           (unsigned long long)cli_number_of(result, "operations", 0),
           (unsigned long long)cli_number_of(result, "documents", 0),
           json_is_true(json_object_get(result, "partial")) ? ", held in part" : "",
           cli_text_of(result, "vector_digest"), cli_text_of(result, "state_digest"));
    return TANDEM_OK;
}

int cli_digest(const cli_call *call)
{
    json_t *object = cli_request_of(call, "digest");

    if (object && call->arg_count > 0)
        json_object_set_new(object, "collection", json_string(call->args[0]));
    return cli_run_request(call, false, object, call->json ? cli_print_json : print_digest, NULL,
                           NULL);
}

static tandem_err print_problem(void *context, const json_t *result)
{
    const char *problem = cli_text_of(result, "problem");

    if (problem)
        printf("%s\n", problem);
    else if (json_is_true(json_object_get(result, "ok")))
        cli_note(context, "the store is whole: %llu operations",
                 (unsigned long long)cli_number_of(result, "operations", 0));
    return TANDEM_OK;
}

int cli_verify(const cli_call *call)
{
    return cli_run_request(call, false, cli_request_of(call, "verify"),
                           call->json ? cli_print_json : print_problem, (void *)call,
                           "the store is not whole");
}

/* ---- errors ---- */

/* "NOMEM" of TANDEM_E_NOMEM, "END" of TANDEM_END. */
static const char *bare_name(const tandem_error_info *info)
{
    const char *prefix = strncmp(info->name, "TANDEM_E_", 9) ? "TANDEM_" : "TANDEM_E_";

    return info->name + strlen(prefix);
}

/* Is this row meant by CODE: its name, whole or without its prefix, or its number? */
static bool error_is(const tandem_error_info *info, const char *code)
{
    const char *number = code[0] == '-' ? code + 1 : code;
    uint64_t value;

    if (cli_parse_number(number, &value))
        return value == (uint64_t)(info->err < 0 ? -(int)info->err : (int)info->err) &&
               (info->err != TANDEM_END || code[0] != '-');
    return !strcasecmp(code, info->name) || !strcasecmp(code, info->name + strlen("TANDEM_")) ||
           !strcasecmp(code, bare_name(info));
}

static void print_error_row(const cli_call *call, cli_table *table, const tandem_error_info *info)
{
    char number[16], code[16];
    const char *cells[] = {info->name, number, code, info->transient ? "yes" : "no", info->when,
                           info->cure};
    json_t *row;

    snprintf(number, sizeof(number), "%d", (int)info->err);
    snprintf(code, sizeof(code), "%d", info->exit_code);
    if (!call->json) {
        cli_table_row(table, cells, 0, NULL);
        return;
    }
    row = json_pack("{s:s, s:i, s:b, s:i, s:s, s:s}", "name", info->name, "number", (int)info->err,
                    "transient", info->transient, "exit_code", info->exit_code, "when", info->when,
                    "cure", info->cure);
    if (row)
        cli_print_json(NULL, row);
    json_decref(row);
}

int cli_errors(const cli_call *call)
{
    static const char *const headings[] = {"NAME",      ">NUMBER",      ">EXIT",
                                           "TRANSIENT", "WHEN", "WHAT TO DO"};
    const char *code = call->arg_count > 0 ? call->args[0] : NULL;
    char why[CLI_WHY_BYTES] = "nor one like it; `tandem errors` lists them all";
    const char *names[64], *nearest;
    cli_table *table = call->json ? NULL : cli_table_open(call, headings, 6, false);
    size_t count, shown = 0;
    const tandem_error_info *list = tandem_err_list(&count);

    if (!call->json && !table)
        return cli_fail(TANDEM_E_NOMEM, NULL, "the list cannot be made");
    for (size_t i = 0; i < count; i++) {
        names[i < 64 ? i : 63] = bare_name(&list[i]);
        if (code && !error_is(&list[i], code))
            continue;
        print_error_row(call, table, &list[i]);
        shown++;
    }
    cli_table_free(table);
    if (shown)
        return 0;
    nearest = cli_nearest(code, names, count < 64 ? count : 64);
    if (nearest)
        snprintf(why, sizeof(why), "did you mean `%s`?; `tandem errors` lists them all", nearest);
    return cli_fail(TANDEM_E_NOT_FOUND, why, "there is no error `%.64s`", code);
}
