/*
 * op and doc: operations and documents.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/tandem/access.h"
#include "tools/tandem/print.h"

/* JSON is longer than what it says: the limit that counts is the format's. */
enum { INPUT_BYTES_MAX = 1024 * 1024 };

/* ---- op append, doc delete ---- */

/* Put an optional flag into a request. */
static void put_flag(const cli_call *call, json_t *object, const char *name, cli_flag flag)
{
    const char *value = cli_value(call, flag);

    if (object && value)
        json_object_set_new(object, name, json_string(value));
}

/* All of stdin; the caller frees it. NULL: reported. */
static char *stdin_read(void)
{
    size_t size = 0, room = INPUT_BYTES_MAX + 1;
    char *text = malloc(room + 1);

    if (!text) {
        cli_fail(TANDEM_E_NOMEM, NULL, "stdin cannot be read");
        return NULL;
    }
    while (size < room) {
        ssize_t got = read(STDIN_FILENO, text + size, room - size);

        if (got <= 0)
            break;
        size += (size_t)got;
    }
    if (size == room) {
        cli_fail(TANDEM_E_LIMIT, "an operation is smaller than 256 KiB", "the input is too large");
        free(text);
        return NULL;
    }
    text[size] = 0;
    return text;
}

static tandem_err print_receipt(void *context, const json_t *result)
{
    const cli_call *call = context;
    bool deletes = call->command->run == cli_doc_delete;

    cli_note(call, "%s %s/%s: seq %llu, ordinal %llu, hash %s", deletes ? "deleted" : "appended to",
             call->args[0], call->args[1], (unsigned long long)cli_number_of(result, "seq", 0),
             (unsigned long long)cli_number_of(result, "ordinal", 0), cli_text_of(result, "hash"));
    return TANDEM_OK;
}

/* Have the operation checked where it would be executed. Takes object. */
static int append_check(const cli_call *call, json_t *object, const char *what)
{
    cli_request nowhere = {.emit = cli_print_nothing};
    char why[CLI_WHY_BYTES] = "";
    tandem_err err = TANDEM_E_NOMEM;

    if (object)
        err = cli_ask(call, false, object, cli_print_nothing, NULL, why);
    /* There is no store yet: an empty one is in memory as well. */
    if (err == TANDEM_E_NOT_FOUND && (err = tandem_open(NULL, &nowhere.reactor)) == TANDEM_OK) {
        err = cli_request_run(&nowhere, object);
        memcpy(why, nowhere.why, sizeof(why));
    }
    tandem_close(nowhere.reactor);
    json_decref(object);
    if (err != TANDEM_OK)
        return cli_fail(err, why, "%s", what);
    return cli_would(call, "append %s to %s/%s", cli_value(call, CLI_TYPE), call->args[0],
                     call->args[1]);
}

/* "SEQ" or "ORIGIN:SEQ"; NULL is fine. */
static bool is_operation(const char *text)
{
    const char *seq = text ? strchr(text, ':') : NULL;
    uint64_t number;

    if (!text)
        return true;
    if (seq && ((size_t)(seq - text) != 2 * TANDEM_ORIGIN_BYTES ||
                strspn(text, "0123456789abcdefABCDEF") != 2 * TANDEM_ORIGIN_BYTES))
        return false;
    return cli_parse_number(seq ? seq + 1 : text, &number);
}

int cli_op_append(const cli_call *call)
{
    const char *type = cli_value(call, CLI_TYPE), *input = cli_value(call, CLI_INPUT);
    const char *what = "the operation was not appended";
    char *read_input = NULL;
    json_t *object;

    if (!type || !input)
        return cli_fail(TANDEM_E_USAGE, type ? "--input is missing" : "--type is missing",
                        "%s", what);
    if (!is_operation(cli_value(call, CLI_EXPECT)))
        return cli_fail(TANDEM_E_USAGE, "it takes SEQ or ORIGIN:SEQ", "--expect is `%.64s`",
                        cli_value(call, CLI_EXPECT));
    if (!strcmp(input, "-") && !(input = read_input = stdin_read()))
        return cli_exit_code(TANDEM_E_LIMIT);
    if (!cli_is_utf8(input)) {
        free(read_input);
        return cli_fail(TANDEM_E_INPUT, "the input is no UTF-8", "%s", what);
    }
    /* Of another name, not with a flag that a node from before would not know, and append. */
    object = cli_request_of(call, call->dry_run ? "op.check" : "op.append");
    if (object) {
        json_object_set_new(object, "collection", json_string(call->args[0]));
        json_object_set_new(object, "document", json_string(call->args[1]));
        json_object_set_new(object, "input", json_string(input));
    }
    put_flag(call, object, "expect", CLI_EXPECT);
    put_flag(call, object, "type", CLI_TYPE);
    put_flag(call, object, "model", CLI_MODEL);
    put_flag(call, object, "scope", CLI_SCOPE);
    put_flag(call, object, "branch", CLI_BRANCH);
    free(read_input);
    if (call->dry_run)
        return append_check(call, object, what);
    return cli_run_request(call, true, object, call->json ? cli_print_json : print_receipt,
                           (void *)call, what);
}

int cli_doc_delete(const cli_call *call)
{
    json_t *object = cli_request_of(call, "doc.delete");

    if (call->dry_run) {
        json_decref(object);
        return cli_would(call, "delete %s/%s", call->args[0], call->args[1]);
    }
    if (object) {
        json_object_set_new(object, "collection", json_string(call->args[0]));
        json_object_set_new(object, "document", json_string(call->args[1]));
    }
    return cli_run_request(call, false, object, call->json ? cli_print_json : print_receipt,
                           (void *)call, "the document was not deleted");
}

/* ---- Lists ---- */

/* Prints results as rows of a table: one cell per member named. */
struct rows {
    cli_table *table;
    const char *const *members;
    size_t count;
};

enum { ORIGIN_SHOWN = 8 }; /* digits: enough to tell one's own few apart */

static tandem_err print_row(void *context, const json_t *result)
{
    struct rows *rows = context;
    char *cells[16] = {0};
    tandem_err err = TANDEM_OK;

    for (size_t i = 0; i < rows->count && err == TANDEM_OK; i++) {
        cells[i] = cli_cell(json_object_get(result, rows->members[i]));
        err = cells[i] ? TANDEM_OK : TANDEM_E_NOMEM;
        if (cells[i] && !strcmp(rows->members[i], "origin") && strlen(cells[i]) > ORIGIN_SHOWN)
            cells[i][ORIGIN_SHOWN] = 0;
    }
    if (err == TANDEM_OK)
        err = cli_table_row(rows->table, (const char *const *)cells, 0, NULL);
    for (size_t i = 0; i < rows->count; i++)
        free(cells[i]);
    return err;
}

/* A follower's table would wait for its last row: lines instead. */
static tandem_err print_operation_line(void *context, const json_t *result)
{
    char *input = cli_cell(json_object_get(result, "input"));

    printf("%8llu  %.8s %-6llu %s  %s  %s\n",
           (unsigned long long)cli_number_of(result, "ordinal", 0), cli_text_of(result, "origin"),
           (unsigned long long)cli_number_of(result, "seq", 0), cli_text_of(result, "document"),
           cli_text_of(result, "type"), input ? input : "-");
    free(input);
    fflush(stdout);
    return TANDEM_OK;
}

static tandem_err print_json_now(void *context, const json_t *result)
{
    tandem_err err = cli_print_json(NULL, result);

    fflush(stdout);
    return err;
}

static int list(const cli_call *call, json_t *object, const char *const *headings,
                const char *const *members, size_t count)
{
    struct rows rows = {NULL, members, count};
    int code;

    if (call->json)
        return cli_run_request(call, false, object, cli_print_json, NULL, NULL);
    rows.table = cli_table_open(call, headings, count, true);
    if (!rows.table) {
        json_decref(object);
        return cli_fail(TANDEM_E_NOMEM, NULL, "the list cannot be made");
    }
    code = cli_run_request(call, false, object, print_row, &rows, NULL);
    cli_table_free(rows.table);
    return code;
}

int cli_op_ls(const cli_call *call)
{
    static const char *const headings[] = {">ORDINAL", "ORIGIN", ">SEQ",   "DOCUMENT",
                                           "BRANCH",   "SCOPE",  "TYPE",   "~INPUT"};
    static const char *const members[] = {"ordinal", "origin", "seq",  "document",
                                          "branch",  "scope",  "type", "input"};
    const size_t count = sizeof(members) / sizeof(members[0]);
    json_t *object = cli_request_of(call, "op.ls");
    uint64_t after;

    if (!cli_number(call, CLI_AFTER, 0, &after)) {
        json_decref(object);
        return cli_exit_code(TANDEM_E_USAGE);
    }
    if (object) {
        json_object_set_new(object, "collection", json_string(call->args[0]));
        if (call->arg_count > 1)
            json_object_set_new(object, "document", json_string(call->args[1]));
        json_object_set_new(object, "after", cli_json_number(after));
        json_object_set_new(object, "follow", json_boolean(call->given[CLI_FOLLOW] > 0));
    }
    if (call->given[CLI_FOLLOW])
        return cli_run_request(call, false, object,
                               call->json ? print_json_now : print_operation_line, NULL, NULL);
    return list(call, object, headings, members, count);
}

int cli_doc_ls(const cli_call *call)
{
    static const char *const headings[] = {"DOCUMENT", "MODEL", ">OPERATIONS", "DELETED"};
    static const char *const members[] = {"document", "model", "operations", "deleted"};
    json_t *object = cli_request_of(call, "doc.ls");

    if (object)
        json_object_set_new(object, "collection", json_string(call->args[0]));
    return list(call, object, headings, members, sizeof(members) / sizeof(members[0]));
}

/* ---- doc show ---- */

static tandem_err print_document(void *context, const json_t *result)
{
    printf("%s/%s  %s, branch %s, scope %s, %llu operations\n", cli_text_of(result, "collection"),
           cli_text_of(result, "document"), cli_text_of(result, "model"),
           cli_text_of(result, "branch"), cli_text_of(result, "scope"),
           (unsigned long long)cli_number_of(result, "operations", 0));
    cli_json_show(json_object_get(result, "state"));
    fflush(stdout);
    return TANDEM_OK;
}

int cli_doc_show(const cli_call *call)
{
    json_t *object = cli_request_of(call, "doc.show");

    if (object) {
        json_object_set_new(object, "collection", json_string(call->args[0]));
        json_object_set_new(object, "document", json_string(call->args[1]));
    }
    put_flag(call, object, "branch", CLI_BRANCH);
    put_flag(call, object, "scope", CLI_SCOPE);
    if (object && call->given[CLI_FOLLOW])
        json_object_set_new(object, "follow", json_true());
    return cli_run_request(call, false, object,
                           !call->json                ? print_document
                           : call->given[CLI_FOLLOW] ? print_json_now
                                                     : cli_print_json,
                           NULL, "the document cannot be shown");
}
