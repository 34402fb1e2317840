/*
 * Reading single things: a document, its head, digests, positions, figures.
 */
#include <stdio.h>
#include <stdlib.h>

#include "reactor/ask.h"

enum { VERIFY_DOCUMENTS = 256 }; /* that are looked at before other requests get in */

static void set_why(char *why, const char *text)
{
    if (why)
        snprintf(why, TANDEM_WHY_BYTES, "%s", text);
}

/* Ask, wait, and keep the sentence. *out is set on TANDEM_OK only. */
static tandem_err ask(tandem_reactor *reactor, td_view_kind kind, const char *collection,
                      const char *document, const char *branch, const char *scope,
                      uint64_t timeout_ms, char *why, td_ask **out)
{
    td_ask *ask;
    tandem_err err;

    set_why(why, "");
    if ((err = td_ask_open(reactor, kind, collection, document, branch, scope, &ask)) != TANDEM_OK)
        return err;
    if ((err = td_ask_wait(ask, timeout_ms)) != TANDEM_OK) {
        if (err != TANDEM_E_TIMEOUT)
            set_why(why, td_ask_request(ask)->why);
        td_ask_free(ask);
        return err;
    }
    *out = ask;
    return TANDEM_OK;
}

/* ---- Documents ---- */

struct tandem_document {
    td_ask *ask;
    char *json; /* made when asked for */
};

tandem_err tandem_document_read(tandem_reactor *reactor, const char *collection,
                                const char *document, const char *branch, const char *scope,
                                uint64_t timeout_ms, tandem_document **out,
                                char why[TANDEM_WHY_BYTES])
{
    tandem_document *read;
    tandem_err err;

    if (!reactor || !collection || !document || !out)
        return TANDEM_E_INVALID;
    if (!(read = calloc(1, sizeof(*read))))
        return TANDEM_E_NOMEM;
    err = ask(reactor, TD_VIEW_READ, collection, document, branch ? branch : "main",
              scope ? scope : "global", timeout_ms, why, &read->ask);
    if (err != TANDEM_OK) {
        free(read);
        return err;
    }
    *out = read;
    return TANDEM_OK;
}

const char *tandem_document_model(const tandem_document *document)
{
    return td_ask_request(document->ask)->info.model;
}

tandem_slice tandem_document_state(const tandem_document *document)
{
    return tandem_writer_slice(&td_ask_request(document->ask)->out);
}

const char *tandem_document_json(const tandem_document *document)
{
    tandem_document *self = (tandem_document *)document;

    if (!self->json && tandem_json_write(tandem_document_state(document), &self->json) != TANDEM_OK)
        self->json = NULL;
    return self->json;
}

uint64_t tandem_document_operations(const tandem_document *document)
{
    return td_ask_request(document->ask)->operations;
}

uint64_t tandem_document_position(const tandem_document *document)
{
    return td_ask_request(document->ask)->info.last_ordinal;
}

uint64_t tandem_document_seq(const tandem_document *document)
{
    return td_ask_request(document->ask)->info.last_seq;
}

const uint8_t *tandem_document_origin(const tandem_document *document)
{
    return td_ask_request(document->ask)->info.last_origin;
}

void tandem_document_free(tandem_document *document)
{
    if (!document)
        return;
    td_ask_free(document->ask);
    free(document->json);
    free(document);
}

tandem_err tandem_document_head(tandem_reactor *reactor, const char *collection,
                                const char *document, uint64_t timeout_ms, uint64_t *ordinal_out,
                                uint64_t *seq_out, uint8_t origin_out[TANDEM_ORIGIN_BYTES])
{
    const td_document_info *info;
    td_ask *asked;
    tandem_err err;

    if (!reactor || !collection || !document)
        return TANDEM_E_INVALID;
    if ((err = ask(reactor, TD_VIEW_HEAD, collection, document, NULL, NULL, timeout_ms, NULL,
                   &asked)) != TANDEM_OK)
        return err;
    info = &td_ask_request(asked)->info;
    if (ordinal_out)
        *ordinal_out = info->last_ordinal;
    if (seq_out)
        *seq_out = info->last_seq;
    if (origin_out)
        memcpy(origin_out, info->last_origin, TANDEM_ORIGIN_BYTES);
    td_ask_free(asked);
    return TANDEM_OK;
}

/* ---- Positions ---- */

tandem_err tandem_position(tandem_reactor *reactor, uint64_t *out)
{
    if (!reactor || !out)
        return TANDEM_E_INVALID;
    *out = td_executor_position(td_reactor_executor(reactor));
    return TANDEM_OK;
}

tandem_err tandem_wait(tandem_reactor *reactor, uint64_t position, uint64_t timeout_ms)
{
    td_ask *asked;
    tandem_err err;

    if (!reactor)
        return TANDEM_E_INVALID;
    if ((err = td_ask_open(reactor, TD_VIEW_WAIT, NULL, NULL, NULL, NULL, &asked)) != TANDEM_OK)
        return err;
    td_ask_request(asked)->position = position;
    err = td_ask_wait(asked, timeout_ms);
    td_ask_free(asked);
    return err;
}

/* ---- Collections, digests, figures ---- */

struct visit_collections {
    tandem_err (*visit)(void *context, const tandem_collection_entry *entry);
    void *context;
};

static tandem_err visit_collection(void *context, const td_collection_info *info)
{
    struct visit_collections *visiting = context;
    char name[TANDEM_NAME_BYTES_MAX + 1];
    tandem_collection_entry entry = {
        .name = name, .operations = info->operations, .last_ordinal = info->last_ordinal};

    memcpy(name, info->name.bytes, info->name.size);
    name[info->name.size] = 0;
    return visiting->visit(visiting->context, &entry);
}

tandem_err tandem_collections(tandem_reactor *reactor,
                              tandem_err (*visit)(void *context,
                                                  const tandem_collection_entry *entry),
                              void *context)
{
    struct visit_collections visiting = {visit, context};
    tandem_err err;

    if (!reactor || !visit)
        return TANDEM_E_INVALID;
    err = td_op_store_collections(td_reactor_ops(reactor), tandem_slice_of(NULL, 0),
                                  visit_collection, &visiting);
    return err == TANDEM_END ? TANDEM_OK : err;
}

tandem_err tandem_digest_collection(tandem_reactor *reactor, const char *collection,
                                    uint64_t timeout_ms, tandem_digest *out,
                                    char why[TANDEM_WHY_BYTES])
{
    td_op_store *ops;
    td_collection_info info;
    td_ask *asked;
    tandem_err err;

    if (!reactor || !collection || !out)
        return TANDEM_E_INVALID;
    ops = td_reactor_ops(reactor);
    if ((err = ask(reactor, TD_VIEW_STATES, collection, NULL, NULL, NULL, timeout_ms, why,
                   &asked)) != TANDEM_OK)
        return err;
    out->documents = td_ask_request(asked)->documents;
    memcpy(out->state_digest, td_ask_request(asked)->digest, TANDEM_HASH_BYTES);
    td_ask_free(asked);
    if ((err = td_op_store_collection(ops, tandem_slice_text(collection), &info)) != TANDEM_OK)
        return err;
    out->operations = info.operations;
    if ((err = td_op_store_in_part(ops, tandem_slice_text(collection), &out->partial)) != TANDEM_OK)
        return err;
    return td_op_store_vector_digest(ops, tandem_slice_text(collection), out->vector_digest);
}

/* ---- Verifying ---- */

struct verify {
    tandem_reactor *reactor;
    void (*report)(void *context, const char *text);
    void *context;
    char after[TANDEM_NAME_BYTES_MAX + 1];
    bool index_wrong;
};

static void tell(struct verify *v, const char *what, const char *why)
{
    char text[2 * TANDEM_WHY_BYTES + TD_STORE_WHY_BYTES];

    snprintf(text, sizeof(text), "%s%s%s", what, why[0] ? ": " : "", why);
    v->report(v->context, text);
}

/* One page. TANDEM_END: the index is wrong, and that was told. */
static tandem_err verify_page(struct verify *v, tandem_slice collection, bool *more_out)
{
    td_view_request *r;
    td_ask *asked;
    tandem_err err;

    err = td_ask_open(v->reactor, TD_VIEW_VERIFY, NULL, NULL, NULL, NULL, &asked);
    if (err)
        return err;
    r = td_ask_request(asked);
    r->collection = collection;
    r->after = tandem_slice_text(v->after);
    r->limit = VERIFY_DOCUMENTS;
    err = td_ask_wait(asked, UINT64_MAX);
    *more_out = r->more;
    if (r->rebuilt) {
        tell(v, "the index was damaged, and was built anew", "");
        v->index_wrong = true;
    }
    if (err == TANDEM_OK) {
        memcpy(v->after, r->after_name, sizeof(v->after));
    } else if (err == TANDEM_E_CORRUPT && r->damaged) {
        tell(v, "the index is damaged, and is built anew", r->why);
        v->index_wrong = true;
        err = TANDEM_END;
    } else if (err == TANDEM_E_CORRUPT) {
        tell(v, "the index cannot be made of these operations", r->why);
    }
    td_ask_free(asked);
    return err;
}

struct collection_name {
    size_t size;
    uint8_t bytes[TANDEM_NAME_BYTES_MAX];
};

static tandem_err first_collection(void *context, const td_collection_info *info)
{
    struct collection_name *name = context;

    memcpy(name->bytes, info->name.bytes, name->size = info->name.size);
    return TANDEM_END;
}

/* Names are fetched one by one: what visits a store must not wait for others who read it. */
static tandem_err verify_collections(struct verify *v)
{
    struct collection_name name = {0};
    tandem_err err;
    bool more;

    while ((err = td_op_store_collections(td_reactor_ops(v->reactor),
                                          tandem_slice_of(name.bytes, name.size), first_collection,
                                          &name)) == TANDEM_END) {
        v->after[0] = '\0';
        do
            err = verify_page(v, tandem_slice_of(name.bytes, name.size), &more);
        while (err == TANDEM_OK && more);
        if (err)
            return err;
    }
    return err;
}

/* The first fault ends it: all of the index is built anew then, which is waited for. */
static tandem_err verify_index(struct verify *v)
{
    uint64_t position;
    tandem_err err;
    bool more;

    if ((err = verify_page(v, tandem_slice_of(NULL, 0), &more)) == TANDEM_OK)
        err = verify_collections(v);
    if (err == TANDEM_END)
        err = TANDEM_OK;
    if (err || !v->index_wrong)
        return err;
    if ((err = tandem_position(v->reactor, &position)) == TANDEM_OK)
        err = tandem_wait(v->reactor, position, UINT64_MAX);
    return err ? err : TANDEM_E_CORRUPT;
}

tandem_err tandem_verify(tandem_reactor *reactor, void (*report)(void *context, const char *text),
                         void *context)
{
    struct verify v = {.reactor = reactor, .report = report, .context = context};
    char why[TD_STORE_WHY_BYTES];
    tandem_err err, index_err;

    if (!reactor || !report)
        return TANDEM_E_INVALID;
    err = td_store_pages_check(td_op_store_backend(td_reactor_ops(reactor)), why);
    if (err == TANDEM_E_CORRUPT)
        tell(&v, "the store's file is damaged, and its records were not read", why);
    if (err)
        return err;
    err = td_op_store_verify(td_reactor_ops(reactor), report, context);
    if (err && err != TANDEM_E_CORRUPT)
        return err;
    index_err = verify_index(&v);
    return index_err ? index_err : err;
}

struct counting {
    td_op_store *ops;
    tandem_stat *stat;
    bool any_lacks; /* mostly there are none, and none need to be looked for */
};

static tandem_err count_lack(void *context, const uint8_t *origin, const td_lack *lack)
{
    tandem_stat *stat = context;

    (void)origin;
    *(lack->reason == TANDEM_OK ? &stat->lacks : &stat->refused) += 1;
    return TANDEM_OK;
}

static tandem_err count_operations(void *context, const td_collection_info *info)
{
    struct counting *counting = context;
    bool in_part;
    tandem_err err;

    counting->stat->operations += info->operations;
    if ((err = td_op_store_in_part(counting->ops, info->name, &in_part)) != TANDEM_OK)
        return err;
    counting->stat->partial_collections += in_part;
    return counting->any_lacks ? td_op_store_lacks(counting->ops, info->name, NULL, count_lack,
                                                   counting->stat)
                               : TANDEM_OK;
}

tandem_err tandem_stat_get(tandem_reactor *reactor, tandem_stat *out)
{
    struct counting counting = {.stat = out};
    const td_identity *identity;
    td_store *backend;
    td_ask *asked;
    tandem_err err;

    if (!reactor || !out)
        return TANDEM_E_INVALID;
    memset(out, 0, sizeof(*out));
    counting.ops = td_reactor_ops(reactor);
    counting.any_lacks = td_op_store_lack_count(counting.ops) > 0;
    identity = td_op_store_identity(td_reactor_ops(reactor));
    /* Whoever asks may do so because of a disk that fails: what can be told is told. */
    err = td_op_store_collections(counting.ops, tandem_slice_of(NULL, 0), count_operations,
                                  &counting);
    backend = td_op_store_backend(td_reactor_ops(reactor));
    out->bytes = backend->ops->bytes(backend);
    out->position = td_executor_position(td_reactor_executor(reactor));
    out->forks = td_executor_forks(td_reactor_executor(reactor));
    out->quarantined_origins = td_executor_quarantined_origins(td_reactor_executor(reactor));
    out->commits = td_executor_commits(td_reactor_executor(reactor));
    out->incarnation = identity->incarnation;
    out->incarnation_reason = identity->reason;
    out->incarnation_since_ms = identity->since_ms;
    for (unsigned kind = 1; kind <= TANDEM_EVENT_KINDS; kind++)
        out->events[kind] = td_event_bus_count(td_reactor_bus(reactor), (tandem_event_kind)kind);
    out->store_err = td_executor_store_err(td_reactor_executor(reactor));
    if (out->store_err == TANDEM_OK)
        out->store_err = err;
    if ((err = td_ask_open(reactor, TD_VIEW_STAT, NULL, NULL, NULL, NULL, &asked)) != TANDEM_OK)
        return err;
    td_ask_request(asked)->position = 0;
    err = td_ask_wait(asked, UINT64_MAX);
    if (err == TANDEM_OK) {
        const td_stream_index_stat *stat = &td_ask_request(asked)->stat;

        out->index_bytes = stat->bytes;
        out->index_lag = out->position > stat->position ? out->position - stat->position : 0;
        out->quarantined = stat->corrupt;
        out->folded = td_ask_request(asked)->folded;
    } else if (err != TANDEM_E_CLOSED && err != TANDEM_E_NOMEM) {
        out->index_lag = out->position; /* there is no index at present */
        err = TANDEM_OK;
    }
    out->quarantined += td_reactor_corrupt(reactor);
    td_ask_free(asked);
    return err;
}

/* ---- Forks ---- */

struct forks {
    td_op_store *ops;
    size_t left;
    tandem_err (*visit)(void *context, const tandem_fork *fork);
    void *context;
    char collection[TANDEM_NAME_BYTES_MAX + 1];
};

static tandem_err visit_fork(void *context, const uint8_t *origin, const td_head *heads,
                             unsigned count)
{
    struct forks *forks = context;
    tandem_fork fork = {.collection = forks->collection,
                        .heads = count,
                        .is_quarantined = count == TANDEM_HEADS_MAX};
    tandem_err err;

    (void)heads;
    if (count < 2)
        return TANDEM_OK;
    memcpy(fork.origin, origin, sizeof(fork.origin));
    err = forks->visit(forks->context, &fork);
    return err != TANDEM_OK ? err : --forks->left ? TANDEM_OK : TANDEM_END;
}

static tandem_err visit_forks_of(void *context, const td_collection_info *info)
{
    struct forks *forks = context;

    memcpy(forks->collection, info->name.bytes, info->name.size);
    forks->collection[info->name.size] = 0;
    return td_op_store_vector(forks->ops, info->name, NULL, visit_fork, forks);
}

tandem_err tandem_forks(tandem_reactor *reactor, size_t max,
                        tandem_err (*visit)(void *context, const tandem_fork *fork), void *context)
{
    struct forks forks = {.left = max, .visit = visit, .context = context};
    tandem_err err;

    if (!reactor || !visit)
        return TANDEM_E_INVALID;
    /* Mostly there are none, and no vector needs to be read. */
    if (!max || !td_executor_forks(td_reactor_executor(reactor)))
        return TANDEM_OK;
    forks.ops = td_reactor_ops(reactor);
    err = td_op_store_collections(forks.ops, tandem_slice_of(NULL, 0), visit_forks_of, &forks);
    return err == TANDEM_END && !forks.left ? TANDEM_OK : err;
}
