/*
 * peer, job, wait: other reactors, and what is on its way to and from them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tandem/access.h"
#include "tools/tandem/print.h"
#include "tools/tandem/share.h"

static json_t *request_named(const cli_call *call, const char *command)
{
    json_t *object = cli_request_of(call, command);

    if (object && call->arg_count > 0)
        json_object_set_new(object, "name", json_string(call->args[0]));
    return object;
}

/* ---- Changing ---- */

/* The error of a URL that this version cannot use, or TANDEM_OK. */
static tandem_err url_check(const char *url)
{
    static const char *const later[] = {"wss://", "https://"};

    for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++)
        if (!strncmp(url, later[i], strlen(later[i])))
            return TANDEM_E_UNSUPPORTED;
    return strncmp(url, "ws://", 5) && strncmp(url, "http://", 7) ? TANDEM_E_INVALID : TANDEM_OK;
}

/* A number, or a time with its unit, in milliseconds. */
static bool parse_amount(const char *text, bool is_time, uint64_t *out)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    size_t digits = strspn(text, "0123456789");
    char number[24];

    if (!digits || digits >= sizeof(number))
        return false;
    memcpy(number, text, digits);
    number[digits] = '\0';
    if (!cli_parse_number(number, out))
        return false;
    if (!is_time)
        return text[digits] == '\0';
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (!strcmp(text + digits, units[i].unit) && *out <= UINT64_MAX / units[i].ms) {
            *out *= units[i].ms;
            return true;
        }
    return false;
}

/* What --retry says, as a request has it; NULL and reported: something that cannot be. */
static json_t *retry_given(const cli_call *call)
{
    static const struct {
        const char *key, *member;
        bool is_time;
    } keys[] = {{"base", "base_ms", true},     {"cap", "cap_ms", true},
                {"rest", "rest_ms", true},     {"factor", "factor", false},
                {"attempts", "attempts", false}, {"budget", "budget", false}};
    json_t *retry = json_object();

    for (size_t i = 0; retry && i < call->given[CLI_RETRY]; i++) {
        const char *text = call->values[CLI_RETRY][i], *value = strchr(text, '=');
        size_t k = 0, count = sizeof(keys) / sizeof(keys[0]);
        uint64_t amount;

        if (!strcmp(text, "reset")) {
            json_object_set_new(retry, text, json_true());
            continue;
        }
        while (value && k < count && (strlen(keys[k].key) != (size_t)(value - text) ||
                                      strncmp(keys[k].key, text, (size_t)(value - text))))
            k++;
        if (!value || k == count || !parse_amount(value + 1, keys[k].is_time, &amount) ||
            amount == 0 || amount > INT64_MAX) {
            cli_fail(TANDEM_E_INVALID,
                     "base, cap and rest are times such as 100ms or 30s; factor, attempts and "
                     "budget are whole numbers from 1 on",
                     "`--retry %s` was not understood", text);
            json_decref(retry);
            return NULL;
        }
        json_object_set_new(retry, keys[k].member, json_integer((json_int_t)amount));
    }
    return retry;
}

/* What --poll says, as a request has it; NULL and reported: something that cannot be. */
static json_t *poll_given(const cli_call *call)
{
    const char *text = call->values[CLI_POLL][0], *time = text;
    const char *mode = "interval";
    uint64_t mean_ms = 0;

    if (!strncmp(text, "adaptive", 8) && (!text[8] || text[8] == '=')) {
        mode = "adaptive";
        time = text[8] ? text + 9 : NULL;
    } else if (!strcmp(text, "long")) {
        mode = text;
        time = NULL;
    }
    if (time && ((!parse_amount(time, true, &mean_ms) &&
                  (!cli_parse_number(time, &mean_ms) || (mean_ms *= 1000) > INT64_MAX)) ||
                 mean_ms == 0 || mean_ms > INT64_MAX)) {
        cli_fail(TANDEM_E_INVALID,
                 "it is long, a time such as 500ms, 5s or 5 (seconds), adaptive, or adaptive=5s",
                 "`--poll %s` was not understood", text);
        return NULL;
    }
    return json_pack("{s:s, s:I}", "mode", mode, "mean_ms", (json_int_t)mean_ms);
}

/* What the flags say of how a peer is treated, added to a request; false and reported: something that
 * cannot be. */
static bool settings_given(const cli_call *call, json_t *out)
{
    json_t *setting;

    if (call->given[CLI_RETRY]) {
        if (!(setting = retry_given(call)))
            return false;
        json_object_set_new(out, "retry", setting);
    }
    if (call->given[CLI_POLL]) {
        if (!(setting = poll_given(call)))
            return false;
        json_object_set_new(out, "poll", setting);
    }
    if (cli_share_is_given(call)) {
        if (!(setting = cli_share_given(call)))
            return false;
        json_object_set_new(out, "share", setting);
    }
    return true;
}

enum { SENTENCE_BYTES = 512 };

/* What is done to a peer, behind the verb. */
static const char *describe(const cli_call *call, const char *url, char out[SENTENCE_BYTES])
{
    const char *name = call->args[0];
    bool retry = call->given[CLI_RETRY], poll = call->given[CLI_POLL];
    const char *how = retry && poll ? "retried and polled" : poll ? "polled" : "retried";

    if (url)
        snprintf(out, SENTENCE_BYTES, "%.128s at %.256s", name, url);
    else if (!cli_share_is_given(call))
        snprintf(out, SENTENCE_BYTES, "how %.256s is %s", name, how);
    else if (!retry && !poll)
        snprintf(out, SENTENCE_BYTES, "what is shared with %.256s", name);
    else
        snprintf(out, SENTENCE_BYTES, "what is shared with %.256s, and how it is %s", name, how);
    return out;
}

static int peer_put(const cli_call *call, const char *command, const char *verb, const char *done)
{
    const char *url = call->arg_count > 1 ? call->args[1] : NULL;
    char sentence[SENTENCE_BYTES];
    tandem_err err = url ? url_check(url) : TANDEM_OK;
    json_t *object;
    int code;

    if (!url && !call->given[CLI_RETRY] && !call->given[CLI_POLL] && !cli_share_is_given(call))
        return cli_fail(TANDEM_E_USAGE,
                        "there is neither a URL nor --retry nor --poll nor what to share",
                        "the peer was not %s", done);
    if (err != TANDEM_OK)
        return cli_fail(err,
                        err == TANDEM_E_INVALID
                            ? "a URL is http://HOST:PORT/tandem or ws://HOST:PORT/tandem"
                            : "this version speaks ws:// and http:// only",
                        "the peer was not %s", done);
    object = request_named(call, command);
    if (object && !settings_given(call, object)) {
        json_decref(object);
        return cli_exit_code(TANDEM_E_INVALID);
    }
    describe(call, url, sentence);
    if (call->dry_run) {
        json_decref(object);
        return cli_would(call, "%s %s%s", verb, url ? "peer " : "", sentence);
    }
    if (object && url)
        json_object_set_new(object, "url", json_string(url));
    code = cli_run_request(call, true, object, call->json ? cli_print_json : cli_print_nothing,
                           NULL, NULL);
    if (!code)
        cli_note(call, "%s %s", done, sentence);
    return code;
}

int cli_peer_add(const cli_call *call)
{
    return peer_put(call, "peer.add", "add", "added");
}

int cli_peer_set(const cli_call *call)
{
    return peer_put(call, "peer.set", "set", "set");
}

static int peer_change(const cli_call *call, const char *command, const char *verb,
                       const char *done)
{
    int code;

    if (call->dry_run)
        return cli_would(call, "%s peer %s", verb, call->args[0]);
    code = cli_run_request(call, false, request_named(call, command),
                           call->json ? cli_print_json : cli_print_nothing, NULL, NULL);
    if (!code)
        cli_note(call, "%s %s", done, call->args[0]);
    return code;
}

int cli_peer_pause(const cli_call *call)
{
    return peer_change(call, "peer.pause", "pause", "paused");
}

int cli_peer_resume(const cli_call *call)
{
    return peer_change(call, "peer.resume", "resume", "resumed");
}

int cli_peer_rm(const cli_call *call)
{
    return peer_change(call, "peer.rm", "remove", "removed");
}

/* ---- Waiting ---- */

int cli_peer_sync(const cli_call *call)
{
    const char *name = call->arg_count > 0 ? call->args[0] : "every peer";
    bool waits = call->given[CLI_WAIT] > 0;
    json_t *object;
    int code;

    if (call->dry_run)
        return cli_would(call, "sync %s", name);
    object = request_named(call, "peer.sync");
    if (object)
        json_object_set_new(object, "wait", json_boolean(waits));
    code = cli_run_request(call, false, object, call->json ? cli_print_json : cli_print_nothing,
                           NULL, NULL);
    if (!code)
        cli_note(call, waits ? "in step with %s" : "told to sync with %s", name);
    return code;
}

/* ---- Looking ---- */

/* "both", "push", "pull"; and "some" if it is not all of it. */
static char *share_cell(const json_t *result)
{
    const char *direction = cli_text_of(result, "direction");
    const json_t *share = json_object_get(result, "share");
    bool some = false;
    const char *name;
    json_t *list;
    char text[32];

    json_object_foreach((json_t *)share, name, list)
        some = some || !json_is_null(list);
    snprintf(text, sizeof(text), "%s%s", direction ? direction : "-", some ? " some" : "");
    return strdup(text);
}

static tandem_err add_peer_row(void *context, const json_t *result)
{
    enum { SHARES = 2, STATE, CELLS = 9 };
    static const char *const members[CELLS] = {"name",   "url",   NULL,    "state", "lag_operations",
                                               "outbox", "inbox", "since", "reason"};
    char *cells[CELLS] = {0};
    const char *state = cli_text_of(result, "state");
    tandem_err err;

    for (size_t i = 0; i < CELLS; i++)
        cells[i] = i == SHARES ? share_cell(result)
                               : cli_cell(json_object_get(result, members[i]));
    err = cli_table_row(context, (const char *const *)cells, STATE,
                        cli_state_color(state ? state : ""));
    for (size_t i = 0; i < CELLS; i++)
        free(cells[i]);
    return err;
}

int cli_peer_ls(const cli_call *call)
{
    static const char *const headings[] = {"PEER", "URL", "SHARES", "STATE", ">LAG",
                                           ">OUT", ">IN", "SINCE",  "~REASON"};
    cli_table *table;
    int code;

    if (call->json)
        return cli_run_request(call, false, cli_request_of(call, "peer.ls"), cli_print_json, NULL,
                               NULL);
    table = cli_table_open(call, headings, 9, false);
    if (!table)
        return cli_fail(TANDEM_E_NOMEM, NULL, "the list cannot be made");
    code = cli_run_request(call, false, cli_request_of(call, "peer.ls"), add_peer_row, table, NULL);
    cli_table_free(table);
    return code;
}

/* One object, a member a line. */
static tandem_err print_members(void *context, const json_t *result)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)result, name, value) {
        char *cell = cli_cell(value);

        printf("%-22s %s\n", name, cell ? cell : "-");
        free(cell);
    }
    return TANDEM_OK;
}

int cli_peer_show(const cli_call *call)
{
    return cli_run_request(call, false, request_named(call, "peer.show"),
                           call->json ? cli_print_json : print_members, NULL, NULL);
}

/* A table of jobs, and which members of a row stand in it. */
struct job_table {
    const cli_call *call;
    bool dead; /* of dead letters only */
    cli_table *table; /* NULL: no row has come yet */
};

enum { JOB_COLUMNS = 9 };

static tandem_err job_table_open(struct job_table *jobs)
{
    static const char *const all[JOB_COLUMNS] = {
        ">ID", "BOX", "PEER", "STATUS", "COLLECTION", "DOCUMENT", ">OPERATIONS", ">BYTES", "~ERROR"};
    static const char *const dead[JOB_COLUMNS] = {
        ">ID", "PEER", "COLLECTION", "DOCUMENT", ">OPERATIONS", ">OFFERED", "REFUSED", "ERROR",
        "~REASON"};

    jobs->table = cli_table_open(jobs->call, jobs->dead ? dead : all, JOB_COLUMNS, false);
    return jobs->table ? TANDEM_OK : TANDEM_E_NOMEM;
}

static tandem_err add_job_row(void *context, const json_t *result)
{
    static const char *const all[JOB_COLUMNS] = {"id",       "box",        "remote",
                                                 "status",   "collection", "document",
                                                 "operations", "bytes",    "error"};
    static const char *const dead[JOB_COLUMNS] = {"id",         "remote",  "collection",
                                                  "document",   "operations", "offered",
                                                  "refused_at", "error",   "reason"};
    struct job_table *jobs = context;
    const char *const *members = jobs->dead ? dead : all;
    const char *box = cli_text_of(result, "box");
    char *cells[JOB_COLUMNS] = {0};
    tandem_err err = TANDEM_OK;

    if (!box)
        return TANDEM_OK; /* it is about the peer */
    if (!jobs->table && (err = job_table_open(jobs)) != TANDEM_OK)
        return err;
    for (size_t i = 0; i < JOB_COLUMNS; i++)
        cells[i] = cli_cell(json_object_get(result, members[i]));
    err = cli_table_row(jobs->table, (const char *const *)cells, jobs->dead ? 7 : 8, "red");
    for (size_t i = 0; i < JOB_COLUMNS; i++)
        free(cells[i]);
    return err;
}

int cli_job_ls(const cli_call *call)
{
    const char *box = cli_value(call, CLI_BOX);
    struct job_table jobs = {.call = call, .dead = box && !strcmp(box, "dead")};
    json_t *object;
    int code;

    if (box && strcmp(box, "inbox") && strcmp(box, "outbox") && strcmp(box, "dead"))
        return cli_fail(TANDEM_E_USAGE, "it takes inbox, outbox or dead", "--box is `%.64s`", box);
    object = cli_request_of(call, "job.ls");
    if (object && box)
        json_object_set_new(object, "box", json_string(box));
    if (call->json)
        return cli_run_request(call, false, object, cli_print_json, NULL, NULL);
    if (job_table_open(&jobs) != TANDEM_OK) {
        json_decref(object);
        return cli_fail(TANDEM_E_NOMEM, NULL, "the list cannot be made");
    }
    code = cli_run_request(call, false, object, add_job_row, &jobs, NULL);
    cli_table_free(jobs.table);
    return code;
}

/* The request about the job that the command line names; NULL: reported, *code_out says how. */
static json_t *request_of_job(const cli_call *call, const char *command, int *code_out)
{
    json_t *object;
    uint64_t id;

    if (!cli_parse_number(call->args[0], &id) || id > INT64_MAX) {
        *code_out = cli_fail(TANDEM_E_USAGE, "a job's ID is a number", "there is no job `%.64s`",
                             call->args[0]);
        return NULL;
    }
    if (!(object = cli_request_of(call, command))) {
        *code_out = cli_fail(TANDEM_E_NOMEM, NULL, "job %.64s is not looked at", call->args[0]);
        return NULL;
    }
    json_object_set_new(object, "id", cli_json_number(id));
    return object;
}

int cli_job_show(const cli_call *call)
{
    int code;
    json_t *object = request_of_job(call, "job.show", &code);

    if (!object)
        return code;
    return cli_run_request(call, false, object, call->json ? cli_print_json : print_members, NULL,
                           NULL);
}

static int letter_change(const cli_call *call, const char *command, const char *what,
                         const char *done)
{
    int code;
    json_t *object = request_of_job(call, command, &code);

    if (!object)
        return code;
    if (call->dry_run) {
        json_decref(object);
        return cli_would(call, "%s %s", what, call->args[0]);
    }
    code = cli_run_request(call, false, object, call->json ? cli_print_json : cli_print_nothing,
                           NULL, NULL);
    if (!code)
        cli_note(call, "%s %s", done, call->args[0]);
    return code;
}

int cli_job_retry(const cli_call *call)
{
    return letter_change(call, "job.retry", "offer again job", "to be offered again: job");
}

int cli_job_discard(const cli_call *call)
{
    return letter_change(call, "job.discard", "discard dead letter", "discarded dead letter");
}

/* ---- The barrier ---- */

int cli_wait(const cli_call *call)
{
    struct job_table jobs = {.call = call, .dead = true};
    int code;

    if (call->dry_run)
        return cli_would(call, "wait for %s", call->args[0]);
    code = cli_run_request(call, false, request_named(call, "wait"),
                           call->json ? cli_print_json : add_job_row, &jobs, NULL);
    cli_table_free(jobs.table);
    if (!code)
        cli_note(call, "%s durably has all that this reactor held", call->args[0]);
    return code;
}
