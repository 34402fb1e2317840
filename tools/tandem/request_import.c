/*
 * One group of import lines: every line is parsed, then all are executed as one group. A line that
 * cannot be parsed is found before one that its model refuses, even if it stands behind it: the
 * models see a group only when all of it is well formed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tandem/request.h"

struct import_group {
    cli_request *request;
    size_t count; /* lines */
    json_t **parsed; /* the names in jobs point into them */
    char **inputs;
    tandem_input *operations;
    tandem_job *jobs;
};

static void group_release(struct import_group *group, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (group->parsed)
            json_decref(group->parsed[i]);
        if (group->inputs)
            free(group->inputs[i]);
    }
    free(group->parsed);
    free(group->inputs);
    free(group->operations);
    free(group->jobs);
}

static tandem_err group_init(struct import_group *group, cli_request *request, size_t lines)
{
    memset(group, 0, sizeof(*group));
    group->request = request;
    group->parsed = calloc(lines, sizeof(json_t *));
    group->inputs = calloc(lines, sizeof(char *));
    group->operations = calloc(lines, sizeof(tandem_input));
    group->jobs = calloc(lines, sizeof(tandem_job));
    if (group->parsed && group->inputs && group->operations && group->jobs)
        return TANDEM_OK;
    group_release(group, 0);
    return TANDEM_E_NOMEM;
}

/* The text of a member; *out stays NULL if it is optional and missing. */
static tandem_err member(cli_request *request, const json_t *line, const char *name, bool needed,
                         const char **out)
{
    const json_t *value = json_object_get(line, name);

    if (!value && !needed)
        return TANDEM_OK;
    if (!value)
        return cli_refuse(request, TANDEM_E_INPUT, "the member \"%s\" is missing", name);
    if (!json_is_string(value))
        return cli_refuse(request, TANDEM_E_INPUT, "the member \"%s\" is no string", name);
    *out = json_string_value(value);
    if (strlen(*out) != json_string_length(value))
        return cli_refuse(request, TANDEM_E_INPUT, "the member \"%s\" holds U+0000", name);
    return TANDEM_OK;
}

/* A member that is not known is a mistyped one: taking the line without it would lose something. */
static tandem_err members_known(cli_request *request, json_t *line)
{
    static const char *const known[] = {"document", "model", "type", "input", "scope", "branch"};
    const size_t count = sizeof(known) / sizeof(known[0]);
    const char *name;
    json_t *value;

    json_object_foreach(line, name, value) {
        size_t i = 0;

        while (i < count && strcmp(known[i], name))
            i++;
        if (i == count)
            return cli_refuse(request, TANDEM_E_INPUT, "the member \"%.64s\" is not known", name);
    }
    return TANDEM_OK;
}

/* jansson's errors end with what stood there, control characters and all: keep the sentence. */
static tandem_err refuse_json(cli_request *request, const json_error_t *error)
{
    const char *near = strstr(error->text, " near ");
    int size = (int)(near ? (size_t)(near - error->text) : strlen(error->text));

    return cli_refuse(request, TANDEM_E_INPUT, "it is no JSON object: %.*s at column %d", size,
                      error->text, error->column);
}

static bool is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    return true;
}

static tandem_err line_parse(struct import_group *group, const char *text, size_t size)
{
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    cli_request *request = group->request;
    tandem_input *operation = &group->operations[group->count];
    tandem_job *job = &group->jobs[group->count];
    json_error_t error;
    json_t *line;
    tandem_err err;

    if (size > CLI_LINE_BYTES_MAX)
        return cli_refuse(request, TANDEM_E_LIMIT, "the line is longer than 1 MiB");
    if (is_blank(text, size))
        return cli_refuse(request, TANDEM_E_INPUT, "the line is blank");
    line = json_loadb(text, size, flags, &error);
    if (!line)
        return refuse_json(request, &error);
    group->parsed[group->count] = line;
    if (!json_is_object(line))
        return cli_refuse(request, TANDEM_E_INPUT, "it is no JSON object");
    if ((err = members_known(request, line)) != TANDEM_OK ||
        (err = member(request, line, "document", true, &job->document)) != TANDEM_OK ||
        (err = member(request, line, "model", false, &job->model)) != TANDEM_OK ||
        (err = member(request, line, "type", true, &operation->type)) != TANDEM_OK ||
        (err = member(request, line, "scope", false, &operation->scope)) != TANDEM_OK ||
        (err = member(request, line, "branch", false, &job->branch)) != TANDEM_OK)
        return err;
    if (!json_object_get(line, "input"))
        return cli_refuse(request, TANDEM_E_INPUT, "the member \"input\" is missing");
    group->inputs[group->count] =
        json_dumps(json_object_get(line, "input"),
                   JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    if (!group->inputs[group->count])
        return TANDEM_E_NOMEM;
    operation->json = group->inputs[group->count];
    job->operations = operation;
    job->count = 1;
    return TANDEM_OK;
}

/* Parse all lines; on an error group->count is the bad line's index. */
static tandem_err lines_parse(struct import_group *group, const char *collection,
                              const char *bytes, size_t size, size_t lines)
{
    size_t at = 0;
    tandem_err err;

    for (group->count = 0; group->count < lines; group->count++) {
        const char *feed = at < size ? memchr(bytes + at, '\n', size - at) : NULL;
        size_t length = feed ? (size_t)(feed - bytes) - at : size - at;

        if (at >= size)
            return cli_refuse(group->request, TANDEM_E_PROTOCOL, "the group is shorter than told");
        if ((err = line_parse(group, bytes + at, length)) != TANDEM_OK)
            return err;
        group->jobs[group->count].collection = collection;
        at += length + 1;
    }
    if (at < size)
        return cli_refuse(group->request, TANDEM_E_PROTOCOL, "the group is longer than told");
    return TANDEM_OK;
}

tandem_err cli_request_import(cli_request *request, const json_t *object, const char *bytes,
                              size_t size)
{
    const char *collection = cli_text_of(object, "collection");
    uint64_t first = cli_number_of(object, "first_line", 1);
    size_t lines = (size_t)cli_number_of(object, "lines", 0);
    struct import_group group;
    size_t failed = 0;
    tandem_err err;

    request->why[0] = 0;
    request->line = first;
    if (!collection || lines < 1 || lines > CLI_GROUP_LINES_MAX)
        return cli_refuse(request, TANDEM_E_PROTOCOL, "the group's header is not legal");
    if ((err = group_init(&group, request, lines)) != TANDEM_OK)
        return err;
    err = lines_parse(&group, collection, bytes, size, lines);
    failed = err == TANDEM_OK ? 0 : group.count;
    if (err == TANDEM_OK && !json_is_true(json_object_get(object, "dry_run")))
        err = tandem_execute_group(request->reactor, group.jobs, group.count, NULL, &failed,
                                   request->why);
    request->line = first + failed;
    group_release(&group, lines);
    if (err != TANDEM_OK)
        return err;
    return cli_emit(request, json_pack("{s:o}", "lines", cli_json_number(lines)));
}
