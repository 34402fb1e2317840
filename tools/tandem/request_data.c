/*
 * Requests about documents and their operations.
 */
#include <stdlib.h>
#include <string.h>

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

tandem_err cli_doc_show_run(cli_request *request, const json_t *object)
{
    const char *branch = cli_text_of(object, "branch");
    const char *scope = cli_text_of(object, "scope");
    const char *collection, *name;
    tandem_document *document = NULL;
    uint64_t operations;
    tandem_err err = names_of(request, object, &collection, &name);

    if (err != TANDEM_OK)
        return err;
    err = tandem_document_read(request->reactor, collection, name, branch, scope,
                               cli_timeout_of(object), &document, request->why);
    if (err != TANDEM_OK)
        return err;
    operations = tandem_document_operations(document);
    err = cli_emit(request, json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o}",
                                      "collection", collection,
                                      "document", name,
                                      "model", tandem_document_model(document),
                                      "branch", branch ? branch : "main",
                                      "scope", scope ? scope : "global",
                                      "operations", cli_json_number(operations),
                                      "state", cli_json_value(tandem_document_state(document))));
    tandem_document_free(document);
    return err;
}

/* ---- Export ---- */

static bool slice_is(tandem_slice slice, const char *text)
{
    return tandem_slice_equal(slice, tandem_slice_text(text));
}

static json_t *export_line(const char *document, const char *model,
                           const tandem_operation *operation)
{
    json_t *line = json_pack("{s:o, s:s, s:o, s:o}",
                             "document", cli_json_name(tandem_slice_text(document)),
                             "model", model,
                             "type", cli_json_name(operation->type),
                             "input", cli_json_value(operation->payload));

    if (line && !slice_is(operation->scope, "global"))
        json_object_set_new(line, "scope", cli_json_name(operation->scope));
    if (line && !slice_is(operation->branch, "main"))
        json_object_set_new(line, "branch", cli_json_name(operation->branch));
    return line;
}

static tandem_err export_document(cli_request *request, const char *collection,
                                  const tandem_document_entry *entry)
{
    tandem_operations *operations = NULL;
    tandem_operation operation;
    tandem_err err = tandem_operations_open(request->reactor, collection, entry->document, 0,
                                            &operations);

    if (err != TANDEM_OK)
        return err;
    while ((err = tandem_operations_next(operations, &operation)) == TANDEM_OK) {
        /* CREATE and DELETE live in the scope `document`; importing creates by itself. */
        if (operation.counts && !slice_is(operation.scope, "document"))
            err = cli_emit(request, export_line(entry->document, entry->model, &operation));
        if (err != TANDEM_OK || (err = cli_check(request)) != TANDEM_OK)
            break;
    }
    tandem_operations_free(operations);
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
