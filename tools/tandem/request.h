/*
 * Requests: what the data commands do, against an open reactor. A request is a JSON object with the
 * member "command"; what it finds is handed out as JSON objects, one by one. The same functions
 * serve a store that the command line has opened itself and a node's admin socket, so that a caller
 * sees no difference.
 *
 * Members besides the command's own: "timeout_ms", how long to wait for something (missing: for
 * ever).
 *
 * Threads: any number of requests at once on one reactor, each with a context of its own.
 */
#ifndef TANDEM_TOOLS_REQUEST_H
#define TANDEM_TOOLS_REQUEST_H

#include <jansson.h>
#include <stdbool.h>

#include "tools/tandem/command.h"
#include "reactor/reactor.h"
#include "sync/backup.h"
#include "sync/sync.h"

enum {
    CLI_GROUP_LINES_MAX = 1000,
    CLI_LINE_BYTES_MAX = 1024 * 1024,
    CLI_GROUP_BYTES_MAX = 16 * 1024 * 1024, /* a group ends before it; see import.h */
};

/* Receives one result, borrowed for the call. An error ends the request with that error. */
typedef tandem_err (*cli_emit_fn)(void *context, const json_t *result);

/* Receives the next raw bytes of a request that gives some (a backup); the same. */
typedef tandem_err (*cli_emit_bytes_fn)(void *context, const char *bytes, size_t size);

typedef struct cli_request {
    tandem_reactor *reactor;
    tandem_sync *sync; /* NULL, where running is false, until cli_request_sync() */
    bool running;      /* a node serves it: sessions exist, things arrive */
    cli_emit_fn emit;
    cli_emit_bytes_fn emit_bytes; /* NULL: the caller takes none */
    void *emit_context;
    bool (*cancelled)(void *context); /* should it end before its time? */
    void *cancel_context;
    char why[CLI_WHY_BYTES]; /* says what is wrong; "" if the error's text says it all */
} cli_request;

/* Run one request to its end. Errors: TANDEM_E_UNSUPPORTED (no such command), TANDEM_E_PROTOCOL (no
 * request object), and the command's own. */
tandem_err cli_request_run(cli_request *request, const json_t *object);

/* ---- Shared by the files of requests ---- */

tandem_err cli_op_append_run(cli_request *request, const json_t *object);
tandem_err cli_op_check_run(cli_request *request, const json_t *object);
tandem_err cli_op_ls_run(cli_request *request, const json_t *object);
tandem_err cli_doc_ls_run(cli_request *request, const json_t *object);
tandem_err cli_doc_show_run(cli_request *request, const json_t *object);
tandem_err cli_doc_delete_run(cli_request *request, const json_t *object);
tandem_err cli_export_run(cli_request *request, const json_t *object);
tandem_err cli_digest_run(cli_request *request, const json_t *object);
tandem_err cli_verify_run(cli_request *request, const json_t *object);
tandem_err cli_status_run(cli_request *request, const json_t *object);
tandem_err cli_peer_add_run(cli_request *request, const json_t *object);
tandem_err cli_peer_set_run(cli_request *request, const json_t *object);
tandem_err cli_peer_ls_run(cli_request *request, const json_t *object);
tandem_err cli_peer_show_run(cli_request *request, const json_t *object);
tandem_err cli_peer_pause_run(cli_request *request, const json_t *object);
tandem_err cli_peer_resume_run(cli_request *request, const json_t *object);
tandem_err cli_peer_sync_run(cli_request *request, const json_t *object);
tandem_err cli_peer_rm_run(cli_request *request, const json_t *object);
tandem_err cli_job_ls_run(cli_request *request, const json_t *object);
tandem_err cli_job_show_run(cli_request *request, const json_t *object);
tandem_err cli_job_retry_run(cli_request *request, const json_t *object);
tandem_err cli_job_discard_run(cli_request *request, const json_t *object);
tandem_err cli_wait_run(cli_request *request, const json_t *object);
tandem_err cli_backup_run(cli_request *request, const json_t *object);

/* Hand out a result and let go of it. result NULL: memory ran out. */
tandem_err cli_emit(cli_request *request, json_t *result);
/* TANDEM_E_CLOSED if the request should end. */
tandem_err cli_check(cli_request *request);
/* Set why and return err. */
tandem_err cli_refuse(cli_request *request, tandem_err err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The sync; a stopped store's is opened here: online if it is to talk to peers, else only to look
 * at and change what is configured. */
tandem_err cli_request_sync(cli_request *request, bool online, tandem_sync **out);
/* What to say if opening a sync fails; "" where the error itself says enough. */
const char *cli_sync_cure(tandem_err err);

/* A member that is text; NULL if missing. */
const char *cli_text_of(const json_t *object, const char *name);
/* A member that is a whole number. */
uint64_t cli_number_of(const json_t *object, const char *name, uint64_t fallback);
/* "timeout_ms", UINT64_MAX if missing. */
uint64_t cli_timeout_of(const json_t *object);

/* New references; NULL if memory ran out. */
json_t *cli_json_hex(const uint8_t *bytes, size_t size);
json_t *cli_json_name(tandem_slice name); /* bytes that are no UTF-8 are replaced */
json_t *cli_json_time(uint64_t wall_ms);  /* RFC 3339 in UTC; null for 0 */
json_t *cli_json_number(uint64_t value);
/* A msgpack value as JSON; null if it is none. */
json_t *cli_json_value(tandem_slice msgpack);
/* "2026-11-21T00:00:28.123Z" */
void cli_time_text(uint64_t wall_ms, char out[32]);
uint64_t cli_wall_ms(void);
uint64_t cli_monotonic_ms(void);
void cli_pause_ms(uint64_t ms);

/* What a backup holds, as `backup`, `restore` and `clone` print it; "reactor" and "origin" are those
 * that it was taken of. */
json_t *cli_json_backup(const tandem_backup_info *info);
/* One remote as `status` and `peer` print it. */
json_t *cli_json_remote(const tandem_remote_status *status, bool running);

#endif
