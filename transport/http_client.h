/*
 * The dialing side of links over HTTP: libcurl's multi socket interface on a loop host's libuv loop.
 *
 * No redirects, no proxies, no cookies, HTTP/1.1 with keep-alive. Every request has a deadline, and
 * bytes of an answer are counted as they come. Names are resolved by libuv: curl would have its
 * thread for that waited for where a dial is given up.
 *
 * What becomes of a link when an exchange fails, as closed() tells it:
 *
 *   TANDEM_E_UNREACHABLE  the network; HTTP status 408, 425, 429, 5xx (with Retry-After, by seconds or
 *                         date, retry_after() is called first); 409, 410: the peer has forgotten the
 *                         link
 *   TANDEM_E_TIMEOUT      a deadline
 *   TANDEM_E_PROTOCOL     no tandem peer: any other status, another type, no HTTP, too many bytes, a
 *                         body that is no sequence of messages
 *
 * Threads: the loop host's thread, for every call and every callback.
 */
#ifndef TANDEM_TRANSPORT_HTTP_CLIENT_H
#define TANDEM_TRANSPORT_HTTP_CLIENT_H

#include "transport/http_link.h"

typedef struct td_http_client td_http_client;

/* Attach to a loop host that runs, or will. Errors: TANDEM_E_NOMEM, TANDEM_E_IO. */
tandem_err td_http_client_open(td_host *host, td_http_client **out);
/* Ends every link without a word (closed() is called with TANDEM_OK) and runs the loop until it has
 * let go. Where it may be called: as td_network_free(). NULL is fine. */
void td_http_client_free(td_http_client *client);

/*
 * Dial http://HOST[:PORT]/tandem. The outcome comes as opened() or closed().
 *
 * Errors, nothing will be called: TANDEM_E_INVALID (not such a URL), TANDEM_E_UNSUPPORTED (https),
 * TANDEM_E_LIMIT (TD_NETWORK_CONNECTIONS_MAX dialed), TANDEM_E_CLOSED (being freed),
 * TANDEM_E_NOMEM.
 */
tandem_err td_http_dial(td_http_client *client, const char *url, const td_connection_events *events,
                        void *context, td_http_link **out);

/* As td_carrier_ops.pace and poll. */
void td_http_client_pace(td_http_link *link, uint64_t pause_ms);
void td_http_client_poll(td_http_link *link);

/* Check a URL without dialing: TANDEM_OK, TANDEM_E_INVALID, TANDEM_E_UNSUPPORTED (ws, wss, https). */
tandem_err td_http_url_check(const char *url);

/* TCP connections made since open. */
uint64_t td_http_client_connects(const td_http_client *client);

#endif
