/*
 * Peer URLs: ws://HOST[:PORT][/tandem] and http://HOST[:PORT][/tandem].
 *
 * libwebsockets takes the URL apart, leniently; what it found must then be exactly what the text
 * says, so that no two readers of a URL disagree about the host.
 */
#ifndef TANDEM_TRANSPORT_URL_H
#define TANDEM_TRANSPORT_URL_H

#include <stdint.h>

#include "store/error.h"

enum {
    TD_URL_PORT_DEFAULT = 7400, /* of ws; that of http is everybody's */
    TD_URL_HTTP_PORT_DEFAULT = 80,
    TD_URL_BYTES_MAX = 512,
    TD_URL_HOST_BYTES_MAX = 253,
};

typedef struct td_url {
    char host[TD_URL_HOST_BYTES_MAX + 1]; /* a name or an address, IPv6 without brackets */
    uint16_t port;
    char authority[TD_URL_HOST_BYTES_MAX + 16]; /* "HOST:PORT", IPv6 in brackets: a Host header */
} td_url;

/* scheme: "ws" or "http". Errors: TANDEM_E_INVALID, TANDEM_E_UNSUPPORTED (the other one, wss,
 * https). */
tandem_err td_url_parse(const char *text, const char *scheme, td_url *out);

#endif
