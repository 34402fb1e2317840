/*
 * export: a collection's content as JSON Lines, to stdout or to a file that appears once it is
 * whole.
 */
#include <string.h>

#include "tools/tandem/access.h"
#include "tools/tandem/print.h"
#include "tools/tandem/whole_file.h"

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

static int export_to(const cli_call *call, const char *path)
{
    struct export export = {0};
    cli_whole_file file;
    bool shares_stdout;
    int code;

    if (!cli_whole_file_open(&file, path, true, &code))
        return code;
    export.out = file.out;
    code = cli_run_request(call, false, request_of(call), write_line, &export,
                           "the export is not whole");
    if (!code)
        code = cli_whole_file_keep(&file, true);
    shares_stdout = file.is_stdout;
    cli_whole_file_release(&file);
    if (code || shares_stdout) /* a note would stand in the export */
        return code;
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
