#include "tools/tandem/access.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/tandem/admin_client.h"
#include "tools/tandem/importer.h"

enum { RETRY_MS = 50, IMPORT_DEPTH = 2 };

/* Groups of an import that were told of here and not received yet, oldest first. */
struct import_outcomes {
    pthread_mutex_t lock;
    pthread_cond_t came;
    cli_imported items[IMPORT_DEPTH];
    unsigned count;
};

struct cli_access {
    cli_admin_client *node; /* or */
    cli_request local;      /* with a reactor that is ours, … */
    cli_refusals *refusals; /* … and goes by these */
    cli_importer *importer; /* of an import here */
    struct import_outcomes outcomes;
};

void cli_log(void *context, tandem_log_level level, const char *component, const char *text)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char now[32];

    cli_time_text(cli_wall_ms(), now);
    fprintf(stderr, "%s %s %s: %s\n", now, names[level], component, text);
}

char *cli_socket_path(const cli_call *call)
{
    char *path = NULL;

    if (!call->data || asprintf(&path, "%s/admin.sock", call->data) < 0)
        return NULL;
    return path;
}

/* Make the folders above the data folder. That one the library makes, and reports what fails. */
static void parents_make(const char *path)
{
    char *copy = strdup(path);

    for (char *slash = copy ? strchr(copy + 1, '/') : NULL; slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(copy, 0700);
        *slash = '/';
    }
    free(copy);
}

static tandem_log_level log_level_of(const cli_call *call)
{
    /* A command reports its own failure; its log is for those who ask. A node has only its log. */
    size_t level = (call->command->run == cli_serve ? (size_t)TANDEM_LOG_INFO : 0) +
                   call->given[CLI_VERBOSE];

    if (call->quiet)
        return TANDEM_LOG_ERROR;
    return level < TANDEM_LOG_DEBUG ? (tandem_log_level)level : TANDEM_LOG_DEBUG;
}

/* Which part of the folder is not its owner's alone, as td_data_folder_open() wants it. */
static void tell_permission(const char *data, char why[CLI_WHY_BYTES])
{
    static const struct {
        const char *name;
        unsigned mode;
    } parts[] = {{"", 0700}, {"/lock", 0600}, {"/store", 0700}, {"/index", 0700}, {"/sync", 0700}};

    snprintf(why, CLI_WHY_BYTES, "%.180s cannot be used", data);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        struct stat found;
        char *path;
        int exists;

        if (asprintf(&path, "%s%s", data, parts[i].name) < 0)
            return;
        exists = stat(path, &found) == 0;
        if (exists && found.st_uid != geteuid())
            snprintf(why, CLI_WHY_BYTES, "%.150s belongs to user %u; run this as that user", path,
                     (unsigned)found.st_uid);
        else if (exists && found.st_mode & 077)
            snprintf(why, CLI_WHY_BYTES, "%.90s has mode %04o, others may use it; `chmod %o %.90s`",
                     path, (unsigned)found.st_mode & 07777, parts[i].mode, path);
        else
            exists = 0;
        free(path);
        if (exists)
            return;
    }
}

/* A command that reads the whole store can as well look at its files first: a tenth more. */
static bool reads_all(const cli_call *call)
{
    return call->command->run == cli_verify || call->command->run == cli_digest ||
           call->command->run == cli_export;
}

static tandem_err reactor_open(const cli_call *call, bool create, cli_refusals *refusals,
                               tandem_reactor **out, char why[CLI_WHY_BYTES])
{
    tandem_options options = TANDEM_OPTIONS_INIT;
    tandem_err err;

    if (create)
        parents_make(call->data);
    options.path = call->data;
    options.must_exist = !create;
    options.check = reads_all(call);
    options.log = cli_log;
    options.log_level = log_level_of(call);
    options.admit = refusals ? cli_refusals_admit : NULL;
    options.admit_context = refusals;
    err = tandem_open(&options, out);
    if (err == TANDEM_OK)
        why[0] = 0; /* it may have been locked a moment ago */
    else if (err == TANDEM_E_NOT_FOUND)
        snprintf(why, CLI_WHY_BYTES, "there is no data folder %.180s", call->data);
    else if (err == TANDEM_E_INVALID)
        snprintf(why, CLI_WHY_BYTES, "%.150s is no folder, nor can it be one; --data names another",
                 call->data);
    else if (err == TANDEM_E_PERMISSION)
        tell_permission(call->data, why);
    else if (err == TANDEM_E_LOCKED)
        snprintf(why, CLI_WHY_BYTES, "another process has %.180s open", call->data);
    else
        snprintf(why, CLI_WHY_BYTES, "%.180s: %.60s", call->data, tandem_err_text(err));
    return err;
}

tandem_err cli_store_open(const cli_call *call, bool create, cli_refusals *refusals,
                          tandem_reactor **out, cli_admin_client **answers_out,
                          char why[CLI_WHY_BYTES])
{
    uint64_t begun = cli_monotonic_ms();
    uint64_t patience = call->timeout_ms == CLI_NO_TIMEOUT ? CLI_LOCK_TIMEOUT_MS : call->timeout_ms;
    char *path = cli_socket_path(call);
    char no_answer[CLI_WHY_BYTES];
    tandem_err err;

    if (!path) {
        snprintf(why, CLI_WHY_BYTES, "no data folder is named, by --data or the environment");
        return TANDEM_E_USAGE;
    }
    for (;;) {
        if (answers_out) {
            err = cli_admin_client_open(path, answers_out, no_answer);
            if (err == TANDEM_OK)
                break;
        }
        err = reactor_open(call, create, refusals, out, why);
        if (err != TANDEM_E_LOCKED || cli_monotonic_ms() - begun >= patience)
            break;
        cli_pause_ms(RETRY_MS);
    }
    free(path);
    return err;
}

tandem_err cli_access_open(const cli_call *call, bool create, cli_access **out,
                           char why[CLI_WHY_BYTES])
{
    const char *node = cli_value(call, CLI_NODE);
    cli_access *access = calloc(1, sizeof(*access));
    tandem_err err = TANDEM_OK;

    why[0] = 0;
    if (!access)
        return TANDEM_E_NOMEM;
    pthread_mutex_init(&access->outcomes.lock, NULL);
    pthread_cond_init(&access->outcomes.came, NULL);
    if (call->dry_run && create) { /* goes nowhere: what is checked needs no store */
        *out = access;
        return TANDEM_OK;
    }
    if (node && strncmp(node, "unix:", 5)) {
        snprintf(why, CLI_WHY_BYTES, "--node takes unix:PATH, not `%.64s`", node);
        err = TANDEM_E_USAGE;
    } else if (node) {
        err = cli_admin_client_open(node + 5, &access->node, why);
    } else {
        if (call->data)
            err = cli_refusals_load(call->data, &access->refusals, why);
        if (err == TANDEM_OK)
            err = cli_store_open(call, create, access->refusals, &access->local.reactor,
                                 &access->node, why);
    }
    if (err != TANDEM_OK) {
        cli_access_free(access);
        return err;
    }
    *out = access;
    return TANDEM_OK;
}

void cli_access_free(cli_access *access)
{
    if (!access)
        return;
    cli_importer_free(access->importer);
    pthread_cond_destroy(&access->outcomes.came);
    pthread_mutex_destroy(&access->outcomes.lock);
    cli_admin_client_free(access->node);
    tandem_sync_close(access->local.sync);
    tandem_close(access->local.reactor);
    cli_refusals_free(access->refusals);
    free(access);
}

bool cli_access_is_node(const cli_access *access)
{
    return access->node != NULL;
}

void cli_access_pause(const cli_access *access, int pause_ms)
{
    cli_admin_client_wait(access->node, pause_ms);
}

tandem_err cli_access_run(cli_access *access, const json_t *object, cli_emit_fn emit, void *context,
                          char why[CLI_WHY_BYTES])
{
    return cli_access_run_bytes(access, object, emit, NULL, context, why);
}

tandem_err cli_access_run_bytes(cli_access *access, const json_t *object, cli_emit_fn emit,
                                cli_emit_bytes_fn emit_bytes, void *context,
                                char why[CLI_WHY_BYTES])
{
    tandem_err err;

    if (access->node) {
        err = cli_admin_client_send(access->node, object, NULL, 0, why);
        if (err != TANDEM_OK)
            return err;
        if (!cli_admin_client_wait(access->node, -1))
            return TANDEM_E_CLOSED;
        return cli_admin_client_receive(access->node, emit, emit_bytes, context, NULL, why);
    }
    access->local.emit = emit;
    access->local.emit_bytes = emit_bytes;
    access->local.emit_context = context;
    err = cli_request_run(&access->local, object);
    memcpy(why, access->local.why, CLI_WHY_BYTES);
    return err;
}

/* ---- Import ---- */

static tandem_err emit_nothing(void *context, const json_t *result)
{
    return TANDEM_OK;
}

unsigned cli_access_depth(const cli_access *access)
{
    (void)access;
    return IMPORT_DEPTH;
}

static void note_outcome(void *context, const cli_imported *outcome)
{
    struct import_outcomes *outcomes = context;

    pthread_mutex_lock(&outcomes->lock);
    outcomes->items[outcomes->count++] = *outcome;
    pthread_cond_signal(&outcomes->came);
    pthread_mutex_unlock(&outcomes->lock);
}

tandem_err cli_access_import_send(cli_access *access, const json_t *object, const char *bytes,
                                  size_t size, char why[CLI_WHY_BYTES])
{
    tandem_err err = TANDEM_OK;

    if (access->node)
        return cli_admin_client_send(access->node, object, bytes, size, why);
    if (!access->importer)
        err = cli_importer_open(access->local.reactor, note_outcome, &access->outcomes,
                                &access->importer);
    return err == TANDEM_OK ? cli_importer_put(access->importer, object, bytes, size) : err;
}

tandem_err cli_access_import_receive(cli_access *access, uint64_t *line_out,
                                     char why[CLI_WHY_BYTES])
{
    struct import_outcomes *outcomes = &access->outcomes;
    cli_imported outcome;

    if (access->node)
        return cli_admin_client_receive(access->node, emit_nothing, NULL, NULL, line_out, why);
    pthread_mutex_lock(&outcomes->lock);
    while (!outcomes->count)
        pthread_cond_wait(&outcomes->came, &outcomes->lock);
    outcome = outcomes->items[0];
    outcomes->items[0] = outcomes->items[1];
    outcomes->count--;
    pthread_mutex_unlock(&outcomes->lock);
    *line_out = outcome.line;
    memcpy(why, outcome.why, CLI_WHY_BYTES);
    return outcome.err;
}

/* ---- One request ---- */

json_t *cli_request_of(const cli_call *call, const char *command)
{
    json_t *object = json_pack("{s:s}", "command", command);

    if (object && call->timeout_ms != CLI_NO_TIMEOUT)
        json_object_set_new(object, "timeout_ms", cli_json_number(call->timeout_ms));
    return object;
}

tandem_err cli_ask(const cli_call *call, bool create, const json_t *object, cli_emit_fn emit,
                   void *context, char why[CLI_WHY_BYTES])
{
    cli_access *access = NULL;
    tandem_err err = cli_access_open(call, create, &access, why);

    if (err == TANDEM_OK)
        err = cli_access_run(access, object, emit, context, why);
    cli_access_free(access);
    return err;
}

int cli_run_request(const cli_call *call, bool create, json_t *object, cli_emit_fn emit,
                    void *context, const char *what)
{
    const cli_command *command = call->command;
    char why[CLI_WHY_BYTES] = "";
    tandem_err err = object ? cli_ask(call, create, object, emit, context, why) : TANDEM_E_NOMEM;

    json_decref(object);
    if (err == TANDEM_OK)
        return 0;
    if (what)
        return cli_fail(err, why, "%s", what);
    return cli_fail(err, why, "`tandem %s%s%s` failed", command->noun, command->verb ? " " : "",
                    command->verb ? command->verb : "");
}
