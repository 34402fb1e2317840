/*
 * backup: what a reactor holds, as a file that appears once it is whole, or on stdout. It is written
 * here, also where a node reads it: a file then belongs to whoever asked for it, and its name is meant
 * where he stands.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tools/tandem/access.h"
#include "tools/tandem/print.h"
#include "tools/tandem/progress.h"
#include "tools/tandem/whole_file.h"

struct backup {
    FILE *out;
    cli_progress progress;
    uint64_t bytes;
    int error; /* why writing failed */
    json_t *result;
};

static tandem_err write_bytes(void *context, const char *bytes, size_t size)
{
    struct backup *backup = context;

    if (fwrite(bytes, 1, size, backup->out) != size) {
        backup->error = errno;
        return errno == ENOSPC || errno == EDQUOT ? TANDEM_E_STORE_FULL : TANDEM_E_IO;
    }
    backup->bytes += size;
    cli_progress_at(&backup->progress, backup->bytes, backup->bytes >> 20);
    return TANDEM_OK;
}

static tandem_err keep_result(void *context, const json_t *result)
{
    struct backup *backup = context;

    json_decref(backup->result);
    backup->result = json_deep_copy(result);
    return backup->result ? TANDEM_OK : TANDEM_E_NOMEM;
}

/* Have it written to backup->out. Reported if that fails; returns the exit code. */
static int run(const cli_call *call, struct backup *backup)
{
    json_t *object = cli_request_of(call, "backup");
    char why[CLI_WHY_BYTES] = "";
    cli_access *access = NULL;
    tandem_err err = object ? TANDEM_OK : TANDEM_E_NOMEM;

    if (err == TANDEM_OK)
        err = cli_access_open(call, false, &access, why);
    cli_progress_begin(&backup->progress, call, 0, "MiB");
    if (err == TANDEM_OK)
        err = cli_access_run_bytes(access, object, keep_result, write_bytes, backup, why);
    cli_progress_end(&backup->progress);
    cli_access_free(access);
    json_decref(object);
    if (err == TANDEM_OK && fflush(backup->out)) {
        backup->error = errno;
        err = TANDEM_E_IO;
    }
    if (err == TANDEM_OK)
        return 0;
    return cli_fail(err, backup->error ? strerror(backup->error) : why, "there is no backup");
}

static void tell(const cli_call *call, const struct backup *backup, const char *path)
{
    unsigned long long operations = cli_number_of(backup->result, "operations", 0);
    unsigned long long collections = cli_number_of(backup->result, "collections", 0);
    char bytes[32];

    if (call->json) {
        json_object_set_new(backup->result, "file", json_string(path));
        cli_print_json(NULL, backup->result);
        return;
    }
    cli_bytes_text(backup->bytes, bytes);
    cli_note(call, "backed up %llu operations, %llu collections to %s, %s", operations,
             collections, path, bytes);
}

static int to_file(const cli_call *call, struct backup *backup, const char *path)
{
    bool replace = call->given[CLI_YES] > 0;
    cli_whole_file file;
    int code;

    if (!cli_whole_file_open(&file, path, replace, &code))
        return code;
    backup->out = file.out;
    code = run(call, backup);
    if (!code)
        code = cli_whole_file_keep(&file, replace);
    cli_whole_file_release(&file);
    if (!code)
        tell(call, backup, path);
    return code;
}

int cli_backup(const cli_call *call)
{
    const char *path = call->args[0];
    struct backup backup = {.out = stdout};
    int code;

    if (call->dry_run)
        return cli_would(call, "back up %s to %s", call->data ? call->data : "?",
                         strcmp(path, "-") ? path : "stdout");
    if (strcmp(path, "-"))
        code = to_file(call, &backup, path);
    else if (isatty(STDOUT_FILENO))
        code = cli_fail(TANDEM_E_USAGE, "a backup is no text", "stdout is a terminal");
    else
        code = run(call, &backup);
    json_decref(backup.result);
    return code;
}
