#include "transport/url.h"

#include <ctype.h>
#include <libwebsockets.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <uv.h>

#include "transport/network.h"

/* A host name in letters, digits, dots, hyphens and underscores, or an IPv4 address. */
static bool is_name(const char *host)
{
    if (!*host || strlen(host) > TD_URL_HOST_BYTES_MAX)
        return false;
    for (; *host; host++)
        if (!isalnum((unsigned char)*host) && !strchr(".-_", *host))
            return false;
    return true;
}

/* Is rest (what follows "SCHEME://") nothing but authority and an allowed path? */
static bool is_exactly(const char *rest, const char *authority)
{
    size_t size = strlen(authority);

    if (strncmp(rest, authority, size) != 0)
        return false;
    rest += size;
    return !*rest || strcmp(rest, "/") == 0 || strcmp(rest, TD_NETWORK_PATH) == 0;
}

static bool is_known(const char *scheme)
{
    return !strcasecmp(scheme, "ws") || !strcasecmp(scheme, "wss") ||
           !strcasecmp(scheme, "http") || !strcasecmp(scheme, "https");
}

tandem_err td_url_parse(const char *text, const char *wanted, td_url *out)
{
    char copy[TD_URL_BYTES_MAX + 1];
    char bare[sizeof(out->authority)];
    struct sockaddr_in6 address;
    const char *scheme, *host, *path, *rest;
    int port = 0;
    bool brackets;

    if (strlen(text) > TD_URL_BYTES_MAX)
        return TANDEM_E_INVALID;
    strcpy(copy, text);
    if (lws_parse_uri(copy, &scheme, &host, &port, &path) != 0)
        return TANDEM_E_INVALID;
    if (strcasecmp(scheme, wanted) != 0)
        return is_known(scheme) ? TANDEM_E_UNSUPPORTED : TANDEM_E_INVALID;
    rest = text + strlen(wanted) + strlen("://");
    brackets = *rest == '[';
    if (brackets ? uv_ip6_addr(host, 0, &address) != 0 || strchr(host, '%') : !is_name(host))
        return TANDEM_E_INVALID;

    /* The parser gives a port of 80 for none, and takes any number for one. */
    snprintf(bare, sizeof(bare), brackets ? "[%s]" : "%s", host);
    if (is_exactly(rest, bare))
        port = strcmp(wanted, "ws") ? TD_URL_HTTP_PORT_DEFAULT : TD_URL_PORT_DEFAULT;
    if (port < 1 || port > UINT16_MAX)
        return TANDEM_E_INVALID;
    snprintf(out->authority, sizeof(out->authority), "%.*s:%d", TD_URL_HOST_BYTES_MAX + 2, bare,
             port);
    if (!is_exactly(rest, bare) && !is_exactly(rest, out->authority))
        return TANDEM_E_INVALID;
    snprintf(out->host, sizeof(out->host), "%s", host);
    out->port = (uint16_t)port;
    return TANDEM_OK;
}

tandem_err td_url_check(const char *text)
{
    td_url url;

    return td_url_parse(text, "ws", &url);
}
