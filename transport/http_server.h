/*
 * The answering side of links over HTTP, on the listeners of a network: POST /tandem beside the
 * upgrade to WebSocket, at the same port.
 *
 * Threads: the loop host's thread.
 */
#ifndef TANDEM_TRANSPORT_HTTP_SERVER_H
#define TANDEM_TRANSPORT_HTTP_SERVER_H

#include "transport/http_link.h"

/* A link came in: set its events and context (both must be set in the call) and return TANDEM_OK, or
 * an error to refuse it. opened() follows. */
typedef tandem_err (*td_http_accept_fn)(void *context, td_http_link *link,
                                        const td_connection_events **events_out,
                                        void **context_out);

/* From now on the network's listeners serve HTTP, too; without it such requests are refused. Its
 * links are closed when the network is freed. */
void td_network_serve_http(td_network *network, td_http_accept_fn accept, void *context);

#endif
