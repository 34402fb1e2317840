/*
 * Backups: the stream goes to the caller as raw bytes, who writes them where he may; then follows what
 * they hold.
 */
#include "tools/tandem/request.h"

static tandem_err write_bytes(void *context, tandem_slice bytes)
{
    cli_request *request = context;
    tandem_err err = cli_check(request);

    if (err != TANDEM_OK)
        return err;
    return request->emit_bytes(request->emit_context, (const char *)bytes.bytes, bytes.size);
}

json_t *cli_json_backup(const tandem_backup_info *info)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "reactor", cli_json_hex(info->reactor, TANDEM_ORIGIN_BYTES),
                     "origin", cli_json_hex(info->origin, TANDEM_ORIGIN_BYTES),
                     "taken_at", cli_json_time(info->taken_ms),
                     "ordinal", cli_json_number(info->position),
                     "collections", cli_json_number(info->collections),
                     "operations", cli_json_number(info->operations),
                     "peers", cli_json_number(info->remotes),
                     "bytes", cli_json_number(info->bytes));
}

tandem_err cli_backup_run(cli_request *request, const json_t *object)
{
    tandem_backup_info info;
    tandem_sync *sync = NULL;
    tandem_err err;

    if (!request->emit_bytes)
        return cli_refuse(request, TANDEM_E_PROTOCOL, "the caller takes no bytes");
    if ((err = cli_request_sync(request, false, &sync)) != TANDEM_OK)
        return err;
    err = tandem_backup(request->reactor, sync, write_bytes, request, &info, request->why);
    if (err != TANDEM_OK)
        return err;
    return cli_emit(request, cli_json_backup(&info));
}
