/*
 * Watching one document: after each commit the view is asked for the newest operation of the document,
 * one question at a time, and the subscriber is told on the loop if it is newer than what he was told
 * of. So a commit costs a look into the index for each document that is watched, and a slow subscriber
 * sees fewer calls, the last one with the newest position.
 *
 * The subscription owns the watch, and so does the view while it has the question.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/reactor_parts.h"
#include "store/operation.h"

struct document_watch {
    td_view_request request; /* the view's while asked */
    tandem_reactor *reactor;
    void (*changed)(void *context, uint64_t position);
    void *context;
    atomic_int owners;
    atomic_bool asked;
    atomic_bool failed; /* since the loop looked: it is not known what is newest */
    _Atomic uint64_t found;
    uint64_t looked; /* the loop's: up to this position */
    uint64_t told;   /* the loop's */
    char names[];
};

static void let_go(struct document_watch *watch)
{
    if (atomic_fetch_sub(&watch->owners, 1) == 1)
        free(watch);
}

static void answered(td_view_request *request)
{
    struct document_watch *watch = request->context;
    tandem_err err = request->err;

    if (err == TANDEM_OK)
        atomic_store(&watch->found, request->info.last_ordinal);
    else if (err != TANDEM_E_CLOSED)
        atomic_store(&watch->failed, true);
    tandem_writer_release(&request->out);
    atomic_store(&watch->asked, false);
    td_event_bus_rouse(td_reactor_bus(watch->reactor));
    let_go(watch);
}

static void look(struct document_watch *watch)
{
    uint64_t position = td_executor_position(td_reactor_executor(watch->reactor));

    if (position <= watch->looked || atomic_load(&watch->asked))
        return;
    watch->looked = position;
    atomic_fetch_add(&watch->owners, 1);
    atomic_store(&watch->asked, true);
    watch->request.position = position;
    tandem_writer_init(&watch->request.out);
    td_document_view_post(td_reactor_view(watch->reactor), &watch->request);
}

static void roused(void *context)
{
    struct document_watch *watch = context;
    uint64_t found = atomic_load(&watch->found);
    bool failed = atomic_exchange(&watch->failed, false);

    look(watch);
    if (!failed && found <= watch->told)
        return;
    if (found > watch->told)
        watch->told = found;
    watch->changed(watch->context, failed ? 0 : found);
}

static void released(void *context)
{
    let_go(context);
}

static tandem_slice keep(char *at, const char *name)
{
    size_t size = strlen(name);

    memcpy(at, name, size);
    return tandem_slice_of(at, size);
}

tandem_err tandem_subscribe_document(tandem_reactor *reactor, const char *collection,
                                     const char *document,
                                     void (*changed)(void *context, uint64_t position),
                                     void *context, tandem_subscription **out)
{
    td_subscriber to = {.roused = roused, .released = released};
    struct document_watch *watch;
    size_t size;
    tandem_err err;

    if (!reactor || !collection || !document || !changed || !out ||
        !td_name_valid(tandem_slice_text(collection)) || !td_name_valid(tandem_slice_text(document)))
        return TANDEM_E_INVALID;
    size = strlen(collection) + strlen(document);
    if (!(watch = calloc(1, sizeof(*watch) + size)))
        return TANDEM_E_NOMEM;
    watch->reactor = reactor;
    watch->changed = changed;
    watch->context = context;
    atomic_init(&watch->owners, 1);
    watch->told = watch->looked = td_executor_position(td_reactor_executor(reactor));
    atomic_init(&watch->found, watch->told);
    watch->request.kind = TD_VIEW_HEAD;
    watch->request.collection = keep(watch->names, collection);
    watch->request.document = keep(watch->names + watch->request.collection.size, document);
    watch->request.done = answered;
    watch->request.context = watch;
    to.context = watch;
    if ((err = td_event_bus_subscribe(td_reactor_bus(reactor), &to, out)) != TANDEM_OK) {
        let_go(watch);
        return err;
    }
    /* What was committed since the position was read has been told to the others already. */
    td_event_bus_rouse(td_reactor_bus(reactor));
    return TANDEM_OK;
}
