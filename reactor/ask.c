#include "reactor/ask.h"

#include <stdatomic.h>
#include <stdlib.h>

struct td_ask {
    td_view_request request;
    tandem_reactor *reactor;
    td_reply *reply;
    atomic_int owners; /* the asker, and the view while it has the request */
    char text[];       /* the names */
};

static tandem_slice keep(char **at, const char *text)
{
    size_t size = text ? strlen(text) : 0;
    tandem_slice kept = tandem_slice_of(*at, size);

    if (size)
        memcpy(*at, text, size);
    *at += size;
    return kept;
}

static size_t length(const char *text)
{
    return text ? strlen(text) : 0;
}

tandem_err td_ask_open(tandem_reactor *reactor, td_view_kind kind, const char *collection,
                       const char *document, const char *branch, const char *scope, td_ask **out)
{
    size_t size = length(collection) + length(document) + length(branch) + length(scope);
    td_ask *ask;
    tandem_err err;
    char *at;

    if (!(ask = calloc(1, sizeof(*ask) + size)))
        return TANDEM_E_NOMEM;
    if ((err = td_reply_open(td_reactor_runtime(reactor), &ask->reply)) != TANDEM_OK) {
        free(ask);
        return err;
    }
    at = ask->text;
    ask->reactor = reactor;
    atomic_init(&ask->owners, 1);
    ask->request.kind = kind;
    ask->request.position = td_executor_position(td_reactor_executor(reactor));
    ask->request.collection = keep(&at, collection);
    ask->request.document = keep(&at, document);
    ask->request.branch = keep(&at, branch);
    ask->request.scope = keep(&at, scope);
    tandem_writer_init(&ask->request.out);
    *out = ask;
    return TANDEM_OK;
}

td_view_request *td_ask_request(td_ask *ask)
{
    return &ask->request;
}

static void done(td_view_request *request)
{
    td_ask *ask = request->context;

    td_reply_set(ask->reply, request->err);
    td_ask_free(ask);
}

tandem_err td_ask_wait(td_ask *ask, uint64_t timeout_ms)
{
    if (td_reactor_is_closing(ask->reactor))
        return TANDEM_E_CLOSED;
    ask->request.done = done;
    ask->request.context = ask;
    atomic_fetch_add(&ask->owners, 1);
    td_document_view_post(td_reactor_view(ask->reactor), &ask->request);
    return td_reply_wait(ask->reply, timeout_ms);
}

void td_ask_free(td_ask *ask)
{
    if (!ask || atomic_fetch_sub(&ask->owners, 1) > 1)
        return;
    tandem_writer_release(&ask->request.out);
    td_reply_free(ask->reply);
    free(ask);
}
