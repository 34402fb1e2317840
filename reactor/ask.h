/*
 * A question to the document view that somebody outside the actors waits for, and may give up on.
 *
 * The asker and the view each own it; it is gone when both have let go, so that an answer which comes
 * after the deadline has somewhere to go.
 */
#ifndef TANDEM_REACTOR_ASK_H
#define TANDEM_REACTOR_ASK_H

#include "reactor/reactor_parts.h"

typedef struct td_ask td_ask;

/* A question about (collection, document, branch, scope), each of which may be NULL and is copied.
 * It sees at least what is committed when it is opened. */
tandem_err td_ask_open(tandem_reactor *reactor, td_view_kind kind, const char *collection,
                       const char *document, const char *branch, const char *scope, td_ask **out);
/* To be filled further before, and read after td_ask_wait(). */
td_view_request *td_ask_request(td_ask *ask);
/* Ask and wait; once. The request's err, or TANDEM_E_TIMEOUT: then nothing of it may be read. */
tandem_err td_ask_wait(td_ask *ask, uint64_t timeout_ms);
void td_ask_free(td_ask *ask); /* NULL is fine */

#endif
