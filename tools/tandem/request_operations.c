/*
 * Listing operations, and following what arrives.
 */
#include "tools/tandem/change_alarm.h"

/* One listing; last is the ordinal up to which operations were handed out. */
struct listing {
    cli_request *request;
    const char *collection;
    const char *document; /* NULL: the whole collection */
    uint64_t last;
    uint64_t corrupt; /* records that do not verify */
};

static tandem_err emit_operation(struct listing *l, const tandem_operation *operation)
{
    json_t *line = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
        "origin", cli_json_hex(operation->origin, TANDEM_ORIGIN_BYTES),
        "seq", cli_json_number(operation->seq),
        "ordinal", cli_json_number(operation->ordinal),
        "hash", cli_json_hex(operation->hash, TANDEM_HASH_BYTES),
        "hlc", cli_json_number(operation->hlc),
        "collection", cli_json_name(operation->collection),
        "document", cli_json_name(operation->document),
        "branch", cli_json_name(operation->branch),
        "scope", cli_json_name(operation->scope),
        "type", cli_json_name(operation->type),
        "input", cli_json_value(operation->payload));

    if (line && l->document)
        json_object_set_new(line, "index", cli_json_number(operation->index));
    return cli_emit(l->request, line);
}

/*
 * Hand out what an open iterator gives up to a position, then the iterator's TANDEM_END. A record
 * that does not verify is counted, and the rest still shown.
 */
static tandem_err drain(struct listing *l, tandem_operations *operations, uint64_t up_to)
{
    tandem_operation operation;
    tandem_err err;

    for (;;) {
        err = tandem_operations_next(operations, &operation);
        if (err == TANDEM_E_CORRUPT) {
            l->corrupt++;
            continue;
        }
        if (err != TANDEM_OK)
            return err;
        if (operation.ordinal > up_to)
            continue;
        if ((err = emit_operation(l, &operation)) != TANDEM_OK)
            return err;
        if ((err = cli_check(l->request)) != TANDEM_OK)
            return err;
    }
}

/* Hand out the operations of a document between l->last and now, in total order. */
static tandem_err document_round(struct listing *l)
{
    tandem_operations *operations = NULL;
    uint64_t newest = 0, position = 0;
    tandem_err err;

    /* Most commits are of other documents; the newest operation tells without reading them all. */
    if (l->last > 0) {
        err = tandem_document_head(l->request->reactor, l->collection, l->document, UINT64_MAX,
                                   &newest, NULL, NULL);
        if (err != TANDEM_OK)
            return err;
        if (newest <= l->last)
            return TANDEM_OK;
    }
    /* What is committed while this round reads may stand before the place that it has reached: the
     * position taken first leaves it to the next round. */
    if ((err = tandem_position(l->request->reactor, &position)) != TANDEM_OK)
        return err;
    err = tandem_operations_open(l->request->reactor, l->collection, l->document, l->last,
                                 &operations);
    if (err != TANDEM_OK)
        return err;
    err = drain(l, operations, position);
    tandem_operations_free(operations);
    l->last = position;
    return err == TANDEM_END ? TANDEM_OK : err;
}

/* Go on with what arrives until the caller has gone; operations is the collection's iterator. */
static tandem_err follow(struct listing *l, tandem_operations *operations)
{
    cli_change_alarm alarm;
    tandem_err err = cli_change_alarm_init(&alarm, l->request->reactor, l->collection, l->document);

    /* First a round: what was committed before the alarm wakes nobody. */
    while (err == TANDEM_OK) {
        err = l->document ? document_round(l) : drain(l, operations, UINT64_MAX);
        if (err == TANDEM_OK || err == TANDEM_END)
            err = cli_change_alarm_wait(&alarm, l->request);
    }
    cli_change_alarm_release(&alarm);
    return err;
}

tandem_err cli_op_ls_run(cli_request *request, const json_t *object)
{
    struct listing l = {.request = request,
                        .collection = cli_text_of(object, "collection"),
                        .document = cli_text_of(object, "document"),
                        .last = cli_number_of(object, "after", 0)};
    bool follows = json_is_true(json_object_get(object, "follow"));
    tandem_operations *operations = NULL;
    tandem_err err;

    if (!l.collection)
        return cli_refuse(request, TANDEM_E_PROTOCOL, "the request lacks a name");
    if (follows && l.document) {
        err = document_round(&l);
    } else {
        err = tandem_operations_open(request->reactor, l.collection, l.document, l.last,
                                     &operations);
        if (err == TANDEM_OK)
            err = drain(&l, operations, UINT64_MAX);
    }
    if (err == TANDEM_END)
        err = TANDEM_OK;
    if (err == TANDEM_OK && follows && !request->running)
        err = cli_refuse(request, TANDEM_E_UNREACHABLE, "no node runs, so nothing more can arrive");
    else if (err == TANDEM_OK && follows)
        err = follow(&l, operations);
    tandem_operations_free(operations);
    if (err == TANDEM_OK && l.corrupt)
        err = cli_refuse(request, TANDEM_E_CORRUPT, "%llu records do not verify and are not listed",
                         (unsigned long long)l.corrupt);
    return err;
}
