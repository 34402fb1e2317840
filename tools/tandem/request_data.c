/*
 * Requests about documents and their operations.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tandem/change_alarm.h"
#include "tools/tandem/request.h"

/* The names that a request must have; TANDEM_E_PROTOCOL without. document_out may be NULL. */
static tandem_err names_of(cli_request *request, const json_t *object, const char **collection_out,
                           const char **document_out)
{
    *collection_out = cli_text_of(object, "collection");
    if (document_out)
        *document_out = cli_text_of(object, "document");
    if (!*collection_out || (document_out && !*document_out))
        return cli_refuse(request, TANDEM_E_PROTOCOL, "the request lacks a name");
    return TANDEM_OK;
}

enum { OPERATION_NAME_BYTES = 2 * TANDEM_ORIGIN_BYTES + 1 + 20 + 1 };

/* ---- Writing ---- */

static tandem_err emit_receipt(cli_request *request, const tandem_receipt *receipt)
{
    return cli_emit(request, json_pack("{s:o, s:o, s:o, s:o}",
                                       "origin", cli_json_hex(receipt->origin, TANDEM_ORIGIN_BYTES),
                                       "seq", cli_json_number(receipt->seq),
                                       "ordinal", cli_json_number(receipt->ordinal),
                                       "hash", cli_json_hex(receipt->hash, TANDEM_HASH_BYTES)));
}

/* An operation as people name it: "ORIGIN:SEQ". */
static void name_operation(const uint8_t *origin, uint64_t seq, char out[OPERATION_NAME_BYTES])
{
    for (unsigned i = 0; i < TANDEM_ORIGIN_BYTES; i++)
        sprintf(out + 2 * i, "%02x", origin[i]);
    sprintf(out + 2 * TANDEM_ORIGIN_BYTES, ":%llu", (unsigned long long)seq);
}

/*
 * Turn the operation that the caller saw into the position that the job compares when it is
 * committed: 0 for a new document, "SEQ" for one of this reactor's present origin, "ORIGIN:SEQ".
 */
static tandem_err expect_position(cli_request *request, const json_t *object, tandem_job *job)
{
    const char *expect = cli_text_of(object, "expect");
    char newest[OPERATION_NAME_BYTES] = "0", wanted[OPERATION_NAME_BYTES];
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t position = 0, seq = 0;
    tandem_err err;

    if (!expect)
        return TANDEM_OK;
    err = tandem_document_head(request->reactor, job->collection, job->document,
                               cli_timeout_of(object), &position, &seq, origin);
    if (err != TANDEM_OK)
        return err;
    if (position)
        name_operation(origin, seq, newest);
    if (strchr(expect, ':') || !strcmp(expect, "0"))
        snprintf(wanted, sizeof(wanted), "%s", expect);
    else
        name_operation(tandem_reactor_origin(request->reactor), strtoull(expect, NULL, 10), wanted);
    if (strcasecmp(wanted, newest) != 0)
        return cli_refuse(request, TANDEM_E_CONFLICT,
                          position ? "its newest operation is %s" : "the document is not known",
                          newest);
    job->has_expect = true;
    job->expect_position = position;
    return TANDEM_OK;
}

/*
 * Check all that executing checks, and write nothing: behind the job stands one that is never
 * legal, jobs are looked at in order, and a group is executed whole or not at all.
 */
static tandem_err check_only(cli_request *request, const tandem_job *job)
{
    tandem_job jobs[] = {*job, *job};
    size_t failed = 0;
    tandem_err err;

    jobs[1].document = "";
    err = tandem_execute_group(request->reactor, jobs, 2, NULL, &failed, request->why);
    if (err != TANDEM_E_INPUT || failed != 1)
        return err;
    request->why[0] = 0;
    return cli_emit(request, json_pack("{s:b}", "dry_run", 1));
}

static tandem_err append(cli_request *request, const json_t *object, bool checks_only)
{
    tandem_input input = {.scope = cli_text_of(object, "scope"),
                          .type = cli_text_of(object, "type"),
                          .json = cli_text_of(object, "input")};
    tandem_job job = {.branch = cli_text_of(object, "branch"),
                      .model = cli_text_of(object, "model"),
                      .operations = &input,
                      .count = 1};
    tandem_receipt receipt;
    tandem_err err = names_of(request, object, &job.collection, &job.document);

    if (err != TANDEM_OK)
        return err;
    if (!input.type || !input.json)
        return cli_refuse(request, TANDEM_E_PROTOCOL, "the request lacks a type or an input");
    if ((err = expect_position(request, object, &job)) != TANDEM_OK)
        return err;
    if (checks_only)
        return check_only(request, &job);
    err = tandem_execute(request->reactor, &job, &receipt, request->why);
    return err == TANDEM_OK ? emit_receipt(request, &receipt) : err;
}

tandem_err cli_op_append_run(cli_request *request, const json_t *object)
{
    return append(request, object, false);
}

tandem_err cli_op_check_run(cli_request *request, const json_t *object)
{
    return append(request, object, true);
}

tandem_err cli_doc_delete_run(cli_request *request, const json_t *object)
{
    const char *collection, *document;
    tandem_receipt receipt;
    tandem_err err = names_of(request, object, &collection, &document);

    if (err != TANDEM_OK)
        return err;
    err = tandem_delete(request->reactor, collection, document, &receipt, request->why);
    return err == TANDEM_OK ? emit_receipt(request, &receipt) : err;
}

/* ---- Documents ---- */

tandem_err cli_doc_ls_run(cli_request *request, const json_t *object)
{
    tandem_documents *documents = NULL;
    tandem_document_entry entry;
    const char *collection;
    tandem_err err = names_of(request, object, &collection, NULL);

    if (err != TANDEM_OK)
        return err;
    if ((err = tandem_documents_open(request->reactor, collection, &documents)) != TANDEM_OK)
        return err;
    while ((err = tandem_documents_next(documents, &entry)) == TANDEM_OK) {
        tandem_slice name = tandem_slice_text(entry.document);

        err = cli_emit(request, json_pack("{s:s, s:o, s:s, s:o, s:b}",
                                          "collection", collection,
                                          "document", cli_json_name(name),
                                          "model", entry.model,
                                          "operations", cli_json_number(entry.operations),
                                          "deleted", entry.deleted));
        if (err != TANDEM_OK || (err = cli_check(request)) != TANDEM_OK)
            break;
    }
    tandem_documents_free(documents);
    return err == TANDEM_END ? TANDEM_OK : err;
}

struct showing {
    cli_request *request;
    const char *collection, *name, *branch, *scope;
    uint64_t timeout_ms;
    uint64_t operations; /* of the state that was shown: no other one has as many */
};

/* Show it if it is another state than the one before. */
static tandem_err show(struct showing *showing)
{
    cli_request *request = showing->request;
    tandem_document *document = NULL;
    uint64_t operations;
    tandem_err err = tandem_document_read(request->reactor, showing->collection, showing->name,
                                          showing->branch, showing->scope, showing->timeout_ms,
                                          &document, request->why);

    if (err != TANDEM_OK)
        return err;
    operations = tandem_document_operations(document);
    if (operations != showing->operations)
        err = cli_emit(request, json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o}",
                                          "collection", showing->collection,
                                          "document", showing->name,
                                          "model", tandem_document_model(document),
                                          "branch", showing->branch ? showing->branch : "main",
                                          "scope", showing->scope ? showing->scope : "global",
                                          "operations", cli_json_number(operations),
                                          "state", cli_json_value(tandem_document_state(document))));
    showing->operations = operations;
    tandem_document_free(document);
    return err;
}

/* Again when it changes, until the caller has gone; while it is deleted, nothing. */
static tandem_err follow(struct showing *showing)
{
    cli_change_alarm alarm;
    tandem_err err = cli_change_alarm_init(&alarm, showing->request->reactor,
                                           showing->collection, showing->name);

    while (err == TANDEM_OK) {
        err = show(showing);
        if (err == TANDEM_OK || err == TANDEM_E_NOT_FOUND)
            err = cli_change_alarm_wait(&alarm, showing->request);
    }
    cli_change_alarm_release(&alarm);
    return err;
}

tandem_err cli_doc_show_run(cli_request *request, const json_t *object)
{
    struct showing showing = {.request = request,
                              .branch = cli_text_of(object, "branch"),
                              .scope = cli_text_of(object, "scope"),
                              .timeout_ms = cli_timeout_of(object)};
    bool follows = json_is_true(json_object_get(object, "follow"));
    tandem_err err = names_of(request, object, &showing.collection, &showing.name);

    if (err == TANDEM_OK)
        err = show(&showing);
    if (err == TANDEM_OK && follows && !request->running)
        err = cli_refuse(request, TANDEM_E_UNREACHABLE, "no node runs, so nothing more can arrive");
    return err == TANDEM_OK && follows ? follow(&showing) : err;
}

/* ---- Export ---- */

enum { EXPORT_TEXT_BYTES = 60000 }; /* of a text, in one line */

static bool slice_is(tandem_slice slice, const char *text)
{
    return tandem_slice_equal(slice, tandem_slice_text(text));
}

static void export_place(json_t *line, tandem_slice branch, tandem_slice scope)
{
    if (line && !slice_is(scope, "global"))
        json_object_set_new(line, "scope", cli_json_name(scope));
    if (line && !slice_is(branch, "main"))
        json_object_set_new(line, "branch", cli_json_name(branch));
}

static json_t *export_line(const char *document, const char *model,
                           const tandem_operation *operation)
{
    json_t *line = json_pack("{s:o, s:s, s:o, s:o}",
                             "document", cli_json_name(tandem_slice_text(document)),
                             "model", model,
                             "type", cli_json_name(operation->type),
                             "input", cli_json_value(operation->payload));

    export_place(line, operation->branch, operation->scope);
    return line;
}

/* Of a code point in UTF-8, is it not the first byte? */
static bool is_inside(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/* What was typed is anchored to what was typed before, so a text goes out as it stands: edits that insert it
 * piece by piece. */
/* One edit of a text: an insertion, or without text the deletion of one character. */
static tandem_err export_edit(cli_request *request, const tandem_document_entry *entry,
                              const char *branch, const char *scope, uint64_t at, tandem_slice text)
{
    json_t *line = json_pack("{s:o, s:s, s:s, s:{s:o, s:o}}",
                             "document", cli_json_name(tandem_slice_text(entry->document)),
                             "model", entry->model,
                             "type", "text.EDIT",
                             "input", "at", cli_json_number(at),
                             text.size ? "insert" : "delete",
                             text.size ? cli_json_name(text) : cli_json_number(1));
    tandem_err err;

    export_place(line, tandem_slice_text(branch), tandem_slice_text(scope));
    err = cli_emit(request, line);
    return err == TANDEM_OK ? cli_check(request) : err;
}

static tandem_err export_text(cli_request *request, const char *collection,
                              const tandem_document_entry *entry, const char *branch,
                              const char *scope)
{
    tandem_document *document = NULL;
    tandem_slice text = {NULL, 0};
    tandem_reader reader;
    uint64_t at = 0;
    tandem_err err = tandem_document_read(request->reactor, collection, entry->document, branch,
                                          scope, UINT64_MAX, &document, request->why);

    if (err != TANDEM_OK)
        return err;
    reader = tandem_reader_of(tandem_document_state(document));
    tandem_read_string(&reader, &text);
    /* An empty one is there, too: no edit says that, but two. */
    if (!text.size && (err = export_edit(request, entry, branch, scope, 0,
                                         tandem_slice_text(" "))) == TANDEM_OK)
        err = export_edit(request, entry, branch, scope, 0, text);
    while (err == TANDEM_OK && text.size) {
        size_t size = 0;
        uint64_t begin = at;

        /* At least so many, to the end of a code point. */
        for (; size < text.size && (size < EXPORT_TEXT_BYTES || is_inside(text.bytes[size])); size++)
            at += !is_inside(text.bytes[size]);
        err = export_edit(request, entry, branch, scope, begin, tandem_slice_of(text.bytes, size));
        text.bytes += size;
        text.size -= size;
    }
    tandem_document_free(document);
    return err;
}

/* Each of its texts once: seen has their branches and scopes. */
static tandem_err export_text_once(cli_request *request, const char *collection,
                                   const tandem_document_entry *entry, json_t *seen,
                                   const tandem_operation *operation)
{
    char branch[TANDEM_NAME_BYTES_MAX + 1], scope[TANDEM_NAME_BYTES_MAX + 1];
    char place[2 * TANDEM_NAME_BYTES_MAX + 2];

    snprintf(branch, sizeof(branch), "%.*s", (int)operation->branch.size,
             (const char *)operation->branch.bytes);
    snprintf(scope, sizeof(scope), "%.*s", (int)operation->scope.size,
             (const char *)operation->scope.bytes);
    snprintf(place, sizeof(place), "%s\n%s", branch, scope);
    if (json_object_get(seen, place))
        return TANDEM_OK;
    if (json_object_set_new(seen, place, json_true()) < 0)
        return TANDEM_E_NOMEM;
    return export_text(request, collection, entry, branch, scope);
}

static tandem_err export_document(cli_request *request, const char *collection,
                                  const tandem_document_entry *entry)
{
    bool is_text = !strcmp(entry->model, tandem_model_text.name);
    tandem_operations *operations = NULL;
    json_t *seen = json_object();
    tandem_operation operation;
    tandem_err err = seen ? tandem_operations_open(request->reactor, collection, entry->document, 0,
                                                   &operations)
                          : TANDEM_E_NOMEM;

    if (err != TANDEM_OK) {
        json_decref(seen);
        return err;
    }
    while ((err = tandem_operations_next(operations, &operation)) == TANDEM_OK) {
        /* CREATE and DELETE live in the scope `document`; importing creates by itself. */
        if (operation.counts && !slice_is(operation.scope, "document") && is_text)
            err = export_text_once(request, collection, entry, seen, &operation);
        else if (operation.counts && !slice_is(operation.scope, "document"))
            err = cli_emit(request, export_line(entry->document, entry->model, &operation));
        if (err != TANDEM_OK || (err = cli_check(request)) != TANDEM_OK)
            break;
    }
    tandem_operations_free(operations);
    json_decref(seen);
    return err == TANDEM_END ? TANDEM_OK : err;
}

tandem_err cli_export_run(cli_request *request, const json_t *object)
{
    tandem_documents *documents = NULL;
    tandem_document_entry entry;
    const char *collection;
    tandem_err err = names_of(request, object, &collection, NULL);

    if (err != TANDEM_OK)
        return err;
    if ((err = tandem_documents_open(request->reactor, collection, &documents)) != TANDEM_OK)
        return err;
    while ((err = tandem_documents_next(documents, &entry)) == TANDEM_OK) {
        if (!entry.deleted && entry.model[0])
            err = export_document(request, collection, &entry);
        if (err != TANDEM_OK)
            break;
    }
    tandem_documents_free(documents);
    return err == TANDEM_END ? TANDEM_OK : err;
}
