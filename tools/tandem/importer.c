/*
 * Of a group every line is parsed, then all are executed together. A line that cannot be parsed is
 * found before one that its model refuses, even if it stands behind it: the models see a group only
 * when all of it is well formed.
 *
 * A parsed group is one block of bytes, names and inputs one behind the other, and jobs that point into
 * it: of a line's tree nothing stays.
 */
#include "tools/tandem/importer.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/json.h"

struct group {
    size_t count; /* lines */
    uint64_t first_line;
    bool dry_run;
    tandem_err err; /* of the parsing; line and why tell of it */
    uint64_t line;
    char why[CLI_WHY_BYTES];
    tandem_writer bytes;
    tandem_input *operations;
    tandem_job *jobs;
};

struct cli_importer {
    tandem_reactor *reactor;
    cli_imported_fn told;
    void *context;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct group *next; /* parsed, not begun */
    bool failed;
    bool ended;
};

/* ---- Parsing ---- */

static void group_free(struct group *group)
{
    if (!group)
        return;
    tandem_writer_release(&group->bytes);
    free(group->operations);
    free(group->jobs);
    free(group);
}

static tandem_err refuse(struct group *group, tandem_err err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static tandem_err refuse(struct group *group, tandem_err err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(group->why, sizeof(group->why), format, args);
    va_end(args);
    return err;
}

/* Where something stands in bytes, plus one; they may still move. It becomes a pointer in the end. */
static const char *place_of(size_t at)
{
    return (const char *)(at + 1);
}

static const char *pointer_of(const struct group *group, const char *place)
{
    return place ? (const char *)group->bytes.bytes + ((size_t)place - 1) : NULL;
}

/* Keep the text of a member. */
static tandem_err keep_text(struct group *group, const char *name, const json_t *value,
                            const char **out)
{
    const char *text = json_string_value(value);

    if (!json_is_string(value))
        return refuse(group, TANDEM_E_INPUT, "the member \"%s\" is no string", name);
    if (strlen(text) != json_string_length(value))
        return refuse(group, TANDEM_E_INPUT, "the member \"%s\" holds U+0000", name);
    *out = place_of(group->bytes.size);
    tandem_write_raw(&group->bytes, tandem_slice_of(text, json_string_length(value) + 1));
    return tandem_writer_err(&group->bytes);
}

static tandem_err keep_input(struct group *group, const json_t *value, tandem_slice *out)
{
    size_t at = group->bytes.size;
    tandem_err err = tandem_json_convert(value, &group->bytes, group->why);

    *out = tandem_slice_of(place_of(at), group->bytes.size - at);
    return err;
}

enum member { DOCUMENT, MODEL, TYPE, INPUT, SCOPE, BRANCH, MEMBERS };

static const char *const member_names[MEMBERS] = {"document", "model", "type",
                                                  "input",    "scope", "branch"};

/* A member that is not known is a mistyped one: taking the line without it would lose something. */
static tandem_err members_of(struct group *group, json_t *line, const json_t *out[MEMBERS])
{
    const char *name;
    json_t *value;

    json_object_foreach(line, name, value) {
        unsigned i = 0;

        while (i < MEMBERS && strcmp(member_names[i], name))
            i++;
        if (i == MEMBERS)
            return refuse(group, TANDEM_E_INPUT, "the member \"%.64s\" is not known", name);
        out[i] = value;
    }
    return TANDEM_OK;
}

static tandem_err keep_line(struct group *group, json_t *line)
{
    tandem_job *job = &group->jobs[group->count];
    tandem_input *operation = &group->operations[group->count];
    const struct {
        enum member member;
        bool needed;
        const char **out;
    } texts[] = {{DOCUMENT, true, &job->document},
                 {MODEL, false, &job->model},
                 {TYPE, true, &operation->type},
                 {SCOPE, false, &operation->scope},
                 {BRANCH, false, &job->branch}};
    const json_t *members[MEMBERS] = {NULL};
    tandem_err err = members_of(group, line, members);

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) && err == TANDEM_OK; i++) {
        const char *name = member_names[texts[i].member];
        const json_t *value = members[texts[i].member];

        if (value)
            err = keep_text(group, name, value, texts[i].out);
        else if (texts[i].needed)
            err = refuse(group, TANDEM_E_INPUT, "the member \"%s\" is missing", name);
    }
    if (err == TANDEM_OK && !members[INPUT])
        err = refuse(group, TANDEM_E_INPUT, "the member \"input\" is missing");
    return err == TANDEM_OK ? keep_input(group, members[INPUT], &operation->input) : err;
}

/* jansson's errors end with what stood there, control characters and all: keep the sentence. */
static tandem_err refuse_json(struct group *group, const json_error_t *error)
{
    const char *near = strstr(error->text, " near ");
    int size = (int)(near ? (size_t)(near - error->text) : strlen(error->text));

    return refuse(group, TANDEM_E_INPUT, "it is no JSON object: %.*s at column %d", size,
                  error->text, error->column);
}

static bool is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    return true;
}

static tandem_err line_parse(struct group *group, const char *text, size_t size)
{
    json_error_t error;
    json_t *line;
    tandem_err err;

    if (size > CLI_LINE_BYTES_MAX)
        return refuse(group, TANDEM_E_LIMIT, "the line is longer than 1 MiB");
    if (is_blank(text, size))
        return refuse(group, TANDEM_E_INPUT, "the line is blank");
    line = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!line)
        return refuse_json(group, &error);
    err = json_is_object(line) ? keep_line(group, line)
                               : refuse(group, TANDEM_E_INPUT, "it is no JSON object");
    json_decref(line);
    return err;
}

/* Parse all lines; on an error group->count is the bad line's index. */
static tandem_err lines_parse(struct group *group, const char *bytes, size_t size, size_t lines)
{
    size_t at = 0;
    tandem_err err;

    for (group->count = 0; group->count < lines; group->count++) {
        const char *feed = at < size ? memchr(bytes + at, '\n', size - at) : NULL;
        size_t length = feed ? (size_t)(feed - bytes) - at : size - at;

        if (at >= size)
            return refuse(group, TANDEM_E_PROTOCOL, "the group is shorter than told");
        if ((err = line_parse(group, bytes + at, length)) != TANDEM_OK)
            return err;
        at += length + 1;
    }
    return at < size ? refuse(group, TANDEM_E_PROTOCOL, "the group is longer than told") : TANDEM_OK;
}

static void places_settle(struct group *group, const char *collection)
{
    for (size_t i = 0; i < group->count; i++) {
        tandem_job *job = &group->jobs[i];
        tandem_input *operation = &group->operations[i];

        job->collection = pointer_of(group, collection);
        job->document = pointer_of(group, job->document);
        job->model = pointer_of(group, job->model);
        job->branch = pointer_of(group, job->branch);
        operation->type = pointer_of(group, operation->type);
        operation->scope = pointer_of(group, operation->scope);
        operation->input.bytes =
            (const uint8_t *)pointer_of(group, (const char *)operation->input.bytes);
        job->operations = operation;
        job->count = 1;
    }
}

static tandem_err group_parse(struct group *group, const json_t *object, const char *bytes,
                              size_t size)
{
    const char *collection = cli_text_of(object, "collection");
    size_t lines = (size_t)cli_number_of(object, "lines", 0);
    const char *place = place_of(group->bytes.size);
    tandem_err err;

    if (!collection || lines < 1 || lines > CLI_GROUP_LINES_MAX)
        return refuse(group, TANDEM_E_PROTOCOL, "the group's header is not legal");
    group->operations = calloc(lines, sizeof(*group->operations));
    group->jobs = calloc(lines, sizeof(*group->jobs));
    if (!group->operations || !group->jobs)
        return TANDEM_E_NOMEM;
    tandem_write_raw(&group->bytes, tandem_slice_of(collection, strlen(collection) + 1));
    err = lines_parse(group, bytes, size, lines);
    if (err == TANDEM_OK)
        places_settle(group, place);
    return err;
}

static struct group *group_open(const json_t *object, const char *bytes, size_t size)
{
    struct group *group = calloc(1, sizeof(*group));

    if (!group)
        return NULL;
    tandem_writer_init(&group->bytes);
    group->first_line = cli_number_of(object, "first_line", 1);
    group->dry_run = json_is_true(json_object_get(object, "dry_run"));
    group->err = group_parse(group, object, bytes, size);
    group->line = group->first_line + (group->err == TANDEM_OK ? 0 : group->count);
    return group;
}

/* ---- Executing ---- */

static tandem_err group_execute(cli_importer *importer, struct group *group)
{
    cli_imported outcome = {.err = group->err, .lines = group->count, .line = group->line};
    size_t failed = 0;

    memcpy(outcome.why, group->why, sizeof(outcome.why));
    if (group->err == TANDEM_OK && !group->dry_run) {
        outcome.err = tandem_execute_group(importer->reactor, group->jobs, group->count, NULL,
                                           &failed, outcome.why);
        outcome.line = group->first_line + failed;
    }
    if (outcome.err == TANDEM_OK)
        outcome.line = 0;
    importer->told(importer->context, &outcome);
    return outcome.err;
}

static void *importer_main(void *self)
{
    cli_importer *importer = self;

    pthread_mutex_lock(&importer->lock);
    for (;;) {
        struct group *group;
        bool failed;

        while (!importer->next && !importer->ended)
            pthread_cond_wait(&importer->changed, &importer->lock);
        if (!importer->next || importer->failed)
            break;
        group = importer->next;
        importer->next = NULL;
        pthread_cond_signal(&importer->changed);
        pthread_mutex_unlock(&importer->lock);
        failed = group_execute(importer, group) != TANDEM_OK;
        group_free(group);
        pthread_mutex_lock(&importer->lock);
        importer->failed = failed;
        if (failed)
            break;
    }
    pthread_cond_signal(&importer->changed);
    pthread_mutex_unlock(&importer->lock);
    return NULL;
}

tandem_err cli_importer_open(tandem_reactor *reactor, cli_imported_fn told, void *context,
                             cli_importer **out)
{
    cli_importer *importer = calloc(1, sizeof(*importer));
    sigset_t all, before;
    int failed;

    if (!importer)
        return TANDEM_E_NOMEM;
    importer->reactor = reactor;
    importer->told = told;
    importer->context = context;
    pthread_mutex_init(&importer->lock, NULL);
    pthread_cond_init(&importer->changed, NULL);
    sigfillset(&all); /* they are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&importer->thread, NULL, importer_main, importer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        pthread_cond_destroy(&importer->changed);
        pthread_mutex_destroy(&importer->lock);
        free(importer);
        return TANDEM_E_NOMEM;
    }
    *out = importer;
    return TANDEM_OK;
}

tandem_err cli_importer_put(cli_importer *importer, const json_t *object, const char *bytes,
                            size_t size)
{
    struct group *group = group_open(object, bytes, size);
    bool failed;

    if (!group)
        return TANDEM_E_NOMEM;
    pthread_mutex_lock(&importer->lock);
    while (importer->next && !importer->failed)
        pthread_cond_wait(&importer->changed, &importer->lock);
    failed = importer->failed;
    if (!failed) {
        importer->next = group;
        pthread_cond_signal(&importer->changed);
    }
    pthread_mutex_unlock(&importer->lock);
    if (failed)
        group_free(group);
    return failed ? TANDEM_E_CLOSED : TANDEM_OK;
}

void cli_importer_free(cli_importer *importer)
{
    if (!importer)
        return;
    pthread_mutex_lock(&importer->lock);
    importer->ended = true;
    pthread_cond_signal(&importer->changed);
    pthread_mutex_unlock(&importer->lock);
    pthread_join(importer->thread, NULL);
    group_free(importer->next);
    pthread_cond_destroy(&importer->changed);
    pthread_mutex_destroy(&importer->lock);
    free(importer);
}
