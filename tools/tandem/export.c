/*
 * export: a collection's content as JSON Lines, to stdout or to a file that appears once it is
 * whole.
 */
#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/tandem/access.h"
#include "tools/tandem/print.h"

struct export {
    FILE *out;
    uint64_t lines;
};

static tandem_err write_line(void *context, const json_t *result)
{
    struct export *export = context;

    if (cli_json_write(result, export->out, JSON_COMPACT) || putc('\n', export->out) == EOF)
        return TANDEM_E_IO;
    export->lines++;
    return TANDEM_OK;
}

static json_t *request_of(const cli_call *call)
{
    json_t *object = cli_request_of(call, "export");

    if (object)
        json_object_set_new(object, "collection", json_string(call->args[0]));
    return object;
}

/* Make the rename outlive a loss of power as well. */
static void folder_sync(const char *path)
{
    char *copy = strdup(path);
    FILE *folder = copy ? fopen(dirname(copy), "r") : NULL;

    if (folder) {
        fsync(fileno(folder));
        fclose(folder);
    }
    free(copy);
}

static int export_to(const cli_call *call, const char *path)
{
    struct export export = {0};
    char *temporary = NULL;
    int fd = -1, code;
    bool whole;

    if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
        return cli_fail(TANDEM_E_NOMEM, NULL, "nothing was exported");
    fd = mkstemp(temporary); /* mode 0600 */
    if (fd >= 0)
        export.out = fdopen(fd, "w");
    if (!export.out) {
        code = cli_fail(errno == EACCES ? TANDEM_E_PERMISSION : TANDEM_E_IO, strerror(errno),
                        "%s cannot be written", path);
        goto out;
    }
    code = cli_run_request(call, false, request_of(call), write_line, &export,
                           "nothing was exported");
    whole = !fflush(export.out) && !ferror(export.out) && !fsync(fd);
    if (!code && (!whole || rename(temporary, path)))
        code = cli_fail(TANDEM_E_IO, strerror(errno), "%s cannot be written", path);

out:
    if (export.out)
        fclose(export.out);
    else if (fd >= 0)
        close(fd);
    if (code && fd >= 0)
        unlink(temporary);
    free(temporary);
    if (code)
        return code;
    folder_sync(path);
    if (call->json)
        printf("{\"lines\":%llu}\n", (unsigned long long)export.lines);
    else
        cli_note(call, "exported %llu operations to %s", (unsigned long long)export.lines, path);
    return 0;
}

int cli_export(const cli_call *call)
{
    const char *path = call->arg_count > 1 && strcmp(call->args[1], "-") ? call->args[1] : NULL;
    struct export export = {stdout, 0};

    if (call->dry_run)
        return cli_would(call, "export %s to %s", call->args[0], path ? path : "stdout");
    if (path)
        return export_to(call, path);
    return cli_run_request(call, false, request_of(call), write_line, &export,
                           "the export is not whole");
}
