/*
 * Peer URLs: ws://HOST[:PORT][/tandem].
 *
 * libwebsockets takes the URL apart, leniently; what it found must then be exactly what the text
 * says, so that no two readers of a URL disagree about the host.
 */
#ifndef TANDEM_TRANSPORT_URL_H
#define TANDEM_TRANSPORT_URL_H

#include <stdint.h>

#include "store/error.h"

enum {
    TD_URL_PORT_DEFAULT = 7400,
    TD_URL_BYTES_MAX = 512,
    TD_URL_HOST_BYTES_MAX = 253,
};

typedef struct td_url {
    char host[TD_URL_HOST_BYTES_MAX + 1]; /* a name or an address, IPv6 without brackets */
    uint16_t port;
    char authority[TD_URL_HOST_BYTES_MAX + 16]; /* "HOST:PORT", IPv6 in brackets: a Host header */
} td_url;

/* Errors: TANDEM_E_INVALID, TANDEM_E_UNSUPPORTED (wss, http, https). */
tandem_err td_url_parse(const char *text, td_url *out);

#endif
