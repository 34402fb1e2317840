#include "tools/tandem/request.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct {
    const char *command;
    tandem_err (*run)(cli_request *request, const json_t *object);
} requests[] = {
    {"op.append", cli_op_append_run},
    {"op.check", cli_op_check_run},
    {"op.ls", cli_op_ls_run},
    {"doc.ls", cli_doc_ls_run},
    {"doc.show", cli_doc_show_run},
    {"doc.delete", cli_doc_delete_run},
    {"export", cli_export_run},
    {"digest", cli_digest_run},
    {"verify", cli_verify_run},
    {"status", cli_status_run},
    {"peer.add", cli_peer_add_run},
    {"peer.set", cli_peer_set_run},
    {"peer.ls", cli_peer_ls_run},
    {"peer.show", cli_peer_show_run},
    {"peer.pause", cli_peer_pause_run},
    {"peer.resume", cli_peer_resume_run},
    {"peer.sync", cli_peer_sync_run},
    {"peer.rm", cli_peer_rm_run},
    {"job.ls", cli_job_ls_run},
    {"job.show", cli_job_show_run},
    {"job.retry", cli_job_retry_run},
    {"job.discard", cli_job_discard_run},
    {"wait", cli_wait_run},
    {"backup", cli_backup_run},
};

tandem_err cli_request_run(cli_request *request, const json_t *object)
{
    const char *command = cli_text_of(object, "command");

    request->why[0] = 0;
    if (!command)
        return cli_refuse(request, TANDEM_E_PROTOCOL, "a request is an object with a command");
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        if (!strcmp(requests[i].command, command))
            return requests[i].run(request, object);
    return cli_refuse(request, TANDEM_E_UNSUPPORTED, "this node knows no request `%.64s`", command);
}

/* ---- Shared ---- */

tandem_err cli_emit(cli_request *request, json_t *result)
{
    tandem_err err;

    if (!result)
        return TANDEM_E_NOMEM;
    err = request->emit(request->emit_context, result);
    json_decref(result);
    return err;
}

tandem_err cli_check(cli_request *request)
{
    if (request->cancelled && request->cancelled(request->cancel_context))
        return cli_refuse(request, TANDEM_E_CLOSED, "the node is stopping, or the caller has gone");
    return TANDEM_OK;
}

tandem_err cli_refuse(cli_request *request, tandem_err err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(request->why, sizeof(request->why), format, args);
    va_end(args);
    return err;
}

/* Remotes are configuration: nobody but their owner can say again what they were. */
const char *cli_sync_cure(tandem_err err)
{
    return err == TANDEM_E_CORRUPT || err == TANDEM_E_FORMAT
               ? "; move the folder sync/ away and add the peers again"
               : "";
}

tandem_err cli_request_sync(cli_request *request, bool online, tandem_sync **out)
{
    tandem_sync_options options = TANDEM_SYNC_OPTIONS_INIT;
    tandem_err err = TANDEM_OK;

    if (!request->sync) {
        options.offline = !online;
        err = tandem_sync_open(request->reactor, &options, &request->sync);
        if (err != TANDEM_OK)
            cli_refuse(request, err, "what is kept of the peers (in sync/) cannot be opened: %s%s",
                       tandem_err_text(err), cli_sync_cure(err));
    }
    *out = request->sync;
    return err;
}

const char *cli_text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

uint64_t cli_number_of(const json_t *object, const char *name, uint64_t fallback)
{
    const json_t *value = json_object_get(object, name);

    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return fallback;
    return (uint64_t)json_integer_value(value);
}

uint64_t cli_timeout_of(const json_t *object)
{
    return cli_number_of(object, "timeout_ms", UINT64_MAX);
}

json_t *cli_json_hex(const uint8_t *bytes, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    char text[2 * TANDEM_HASH_BYTES];

    if (size > TANDEM_HASH_BYTES)
        size = TANDEM_HASH_BYTES;
    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    return json_stringn(text, 2 * size);
}

json_t *cli_json_name(tandem_slice name)
{
    char plain[TANDEM_NAME_BYTES_MAX];
    size_t size = name.size < sizeof(plain) ? name.size : sizeof(plain);
    json_t *json = name.size ? json_stringn((const char *)name.bytes, name.size) : json_string("");

    if (json)
        return json;
    for (size_t i = 0; i < size; i++)
        plain[i] = name.bytes[i] < 0x80 ? (char)name.bytes[i] : '?';
    return json_stringn(plain, size);
}

void cli_time_text(uint64_t wall_ms, char out[32])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm parts;
    size_t used = 0;

    if (gmtime_r(&seconds, &parts))
        used = strftime(out, 24, "%Y-%m-%dT%H:%M:%S", &parts);
    if (used)
        snprintf(out + used, 32 - used, ".%03uZ", (unsigned)(wall_ms % 1000));
    else
        snprintf(out, 32, "9999-12-31T23:59:59.999Z");
}

json_t *cli_json_time(uint64_t wall_ms)
{
    char text[32];

    if (!wall_ms)
        return json_null();
    cli_time_text(wall_ms, text);
    return json_string(text);
}

json_t *cli_json_number(uint64_t value)
{
    return json_integer(value <= INT64_MAX ? (json_int_t)value : INT64_MAX);
}

json_t *cli_json_value(tandem_slice msgpack)
{
    char *text = NULL;
    json_t *value;

    if (tandem_json_write(msgpack, &text) != TANDEM_OK)
        return json_null();
    value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    free(text);
    return value ? value : json_null();
}

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t cli_wall_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

uint64_t cli_monotonic_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

void cli_pause_ms(uint64_t ms)
{
    struct timespec wait = {.tv_sec = (time_t)(ms / 1000),
                            .tv_nsec = (long)(ms % 1000) * 1000000L};

    nanosleep(&wait, NULL);
}
