#include "transport/http_client.h"

#include <assert.h>
#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>

#include "transport/url.h"

enum {
    ANSWER_S = TD_HTTP_POLL_S + 10, /* without a byte, or with hardly any … */
    SLOW_BYTES_PER_S = 512,         /* … which is this */
    REQUEST_S = 120,                /* all in all */
    END_S = 10,                     /* to have the end of a link acknowledged */
    REUSE_S = TD_HTTP_IDLE_S - 1,   /* an older connection may be closed while it is taken */
    RETRY_AFTER_S_MAX = 24 * 3600,
    HEADER_BYTES = 220,
};

typedef struct client_link client_link;

/* One exchange. */
struct request {
    struct request *prev, *next; /* of its link, by number */
    client_link *link;
    CURL *easy;
    struct curl_slist *headers;
    uint64_t number;
    tandem_writer body, answer;
    uint64_t begun_ms;
    bool ends;   /* it carries Tandem-End */
    bool begun;  /* curl has it */
    bool done;   /* with this outcome: */
    CURLcode result;
};

struct client_link {
    td_http_link base;
    uv_timer_t timer;
    td_http_client *client;
    client_link *prev, *next;
    char id[2 * TD_HTTP_LINK_BYTES + 1];
    td_url url;
    struct lookup *lookup;             /* NULL: not resolving */
    struct curl_slist *resolve; /* what curl is told of the name; NULL: it is an address */
    td_http_asking asking;
    struct request *requests;          /* not answered in order yet */
    bool end_sent, failed;
    uint64_t deadline_ms;       /* of opening, or of ending; of the loop's clock */
};

/* A name being resolved. It may outlive its link: once begun it cannot be cancelled. */
struct lookup {
    uv_getaddrinfo_t request; /* first */
    td_http_client *client;
    client_link *link; /* NULL: nobody waits any more */
};

/* A socket of curl's. */
struct watcher {
    uv_poll_t poll; /* first */
    td_http_client *client;
    struct watcher *prev, *next;
    curl_socket_t fd;
};

struct td_http_client {
    tandem_env *env;
    uv_loop_t *loop;
    CURLM *multi;
    uv_timer_t timer; /* curl's */
    struct watcher *watchers;
    client_link *links;
    unsigned link_count;
    unsigned handles; /* our own on the loop, and requests: freed before the client is */
    uint64_t connects;
    bool has_timer, freeing;
};

static client_link *link_of(td_http_link *base)
{
    return (client_link *)base;
}

/* ---- libcurl on the loop ---- */

/* Requests that have come to an end; their links look at them later, from the loop. */
static void collect(td_http_client *client)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(client->multi, &left))) {
        struct request *done;
        long connects = 0;

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &done);
        curl_easy_getinfo(message->easy_handle, CURLINFO_NUM_CONNECTS, &connects);
        client->connects += (uint64_t)connects;
        done->done = true;
        done->result = message->data.result;
        curl_multi_remove_handle(client->multi, done->easy);
        done->begun = false;
        td_http_link_look_soon(&done->link->base);
    }
}

static void on_curl_timer(uv_timer_t *timer)
{
    td_http_client *client = timer->data;
    int running;

    curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(client);
}

static int set_curl_timer(CURLM *multi, long timeout_ms, void *context)
{
    td_http_client *client = context;

    if (timeout_ms < 0) {
        uv_timer_stop(&client->timer);
        return 0;
    }
    uv_update_time(client->loop);
    uv_timer_start(&client->timer, on_curl_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct watcher *watcher = (struct watcher *)poll;
    td_http_client *client = watcher->client;
    int flags = 0, running;

    if (status < 0)
        flags = CURL_CSELECT_ERR;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    curl_multi_socket_action(client->multi, watcher->fd, flags, &running);
    collect(client);
}

static void on_watcher_freed(uv_handle_t *handle)
{
    struct watcher *watcher = (struct watcher *)handle;

    watcher->client->handles--;
    free(watcher);
}

static struct watcher *find_watcher(td_http_client *client, curl_socket_t fd)
{
    struct watcher *watcher;

    DL_FOREACH(client->watchers, watcher)
        if (watcher->fd == fd)
            return watcher;
    return NULL;
}

static void stop_watching(td_http_client *client, curl_socket_t fd)
{
    struct watcher *watcher = find_watcher(client, fd);

    if (!watcher)
        return;
    DL_DELETE(client->watchers, watcher);
    uv_close((uv_handle_t *)&watcher->poll, on_watcher_freed);
}

/* curl closes some sockets before it says that it does not watch them any more, or without a word;
 * but the loop may hold no handle on a descriptor that is closed. */
static int close_socket(void *context, curl_socket_t fd)
{
    stop_watching(context, fd);
    return close(fd);
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *of_socket)
{
    td_http_client *client = context;
    struct watcher *watcher = find_watcher(client, fd);
    int events = 0;

    if (what == CURL_POLL_REMOVE) {
        stop_watching(client, fd);
        return 0;
    }
    if (!watcher) {
        if (!(watcher = calloc(1, sizeof(*watcher))))
            return -1;
        watcher->client = client;
        watcher->fd = fd;
        if (uv_poll_init_socket(client->loop, &watcher->poll, fd) != 0) {
            free(watcher);
            return -1;
        }
        client->handles++;
        DL_APPEND(client->watchers, watcher);
    }
    if (what & CURL_POLL_IN)
        events |= UV_READABLE;
    if (what & CURL_POLL_OUT)
        events |= UV_WRITABLE;
    return uv_poll_start(&watcher->poll, events, on_socket) == 0 ? 0 : -1;
}

/* ---- Requests ---- */

static void request_free(struct request *request)
{
    if (!request)
        return;
    if (request->begun)
        curl_multi_remove_handle(request->link->client->multi, request->easy);
    curl_easy_cleanup(request->easy);
    curl_slist_free_all(request->headers);
    tandem_writer_release(&request->body);
    tandem_writer_release(&request->answer);
    free(request);
}

static size_t on_answer(char *bytes, size_t one, size_t size, void *context)
{
    struct request *request = context;

    if (request->answer.size + size > TD_HTTP_BODY_BYTES_MAX)
        return 0;
    tandem_write_raw(&request->answer, tandem_slice_of(bytes, size));
    return tandem_writer_err(&request->answer) == TANDEM_OK ? size : 0;
}

static bool add_header(struct request *request, const char *line)
{
    struct curl_slist *longer = curl_slist_append(request->headers, line);

    if (longer)
        request->headers = longer;
    return longer != NULL;
}

static bool add_pace(struct request *request)
{
    const client_link *link = request->link;
    unsigned wait_ms = td_http_wait_ms(&link->base, &link->asking);
    char wait[HEADER_BYTES], pause[HEADER_BYTES];

    snprintf(wait, sizeof(wait), "Tandem-Wait: %u", wait_ms);
    if (!link->asking.pause_ms)
        return wait_ms == TD_HTTP_POLL_S * 1000 || add_header(request, wait);
    snprintf(pause, sizeof(pause), "Tandem-Pause: %" PRIu64,
             (link->asking.pause_ms + 999) / 1000);
    return add_header(request, wait) && add_header(request, pause);
}

static bool add_headers(struct request *request, bool full)
{
    const client_link *link = request->link;
    char id[HEADER_BYTES], number[HEADER_BYTES], end[HEADER_BYTES] = "Tandem-End: ";
    size_t used = strlen(end);

    snprintf(id, sizeof(id), "Tandem-Link: %s", link->id);
    snprintf(number, sizeof(number), "Tandem-Exchange: %" PRIu64, request->number);
    if (request->ends)
        td_http_end_write(&link->base, end + used, sizeof(end) - used);
    return add_header(request, "Content-Type: " TD_HTTP_TYPE) && add_header(request, "Expect:") &&
           add_header(request, "Accept: " TD_HTTP_TYPE) && add_header(request, id) &&
           add_header(request, number) && add_pace(request) &&
           (!full || add_header(request, "Tandem-Hold: 1")) &&
           (!request->ends || add_header(request, end));
}

static void set_options(struct request *request)
{
    const client_link *link = request->link;
    CURL *easy = request->easy;
    char url[TD_URL_BYTES_MAX];

    snprintf(url, sizeof(url), "http://%s" TD_NETWORK_PATH, link->url.authority);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, link->client);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "tandem");
    curl_easy_setopt(easy, CURLOPT_RESOLVE, link->resolve);
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)REUSE_S);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)TD_NETWORK_DIAL_S);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES_PER_S);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)ANSWER_S);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT, (long)REQUEST_S);
    curl_easy_setopt(easy, CURLOPT_MAXFILESIZE, (long)TD_HTTP_BODY_BYTES_MAX);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers);
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body.bytes);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)request->body.size);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
}

static void fail(client_link *link, tandem_err err, const char *text)
{
    td_http_link_set_reason(&link->base, err, "%s", text);
    link->failed = true;
}

/* Send the next exchange, with what is in body, which is taken over. */
static void start_exchange(client_link *link, tandem_writer *body, bool ends)
{
    static const uint8_t nothing[TD_HTTP_LENGTH_BYTES];
    struct request *request = calloc(1, sizeof(*request));
    bool full = td_http_link_is_full(&link->base);

    if (!request) {
        tandem_writer_release(body);
        fail(link, TANDEM_E_NOMEM, "no memory for an exchange");
        return;
    }
    request->link = link;
    request->number = link->asking.sent + 1;
    request->ends = ends;
    request->body = *body;
    tandem_writer_init(&request->answer);
    if (!request->body.size)
        tandem_write_raw(&request->body, tandem_slice_of(nothing, sizeof(nothing)));
    request->easy = curl_easy_init();
    if (!request->easy || tandem_writer_err(&request->body) != TANDEM_OK ||
        !add_headers(request, full)) {
        request_free(request);
        fail(link, TANDEM_E_NOMEM, "no memory for an exchange");
        return;
    }
    set_options(request);
    if (curl_multi_add_handle(link->client->multi, request->easy) != CURLM_OK) {
        request_free(request);
        fail(link, TANDEM_E_NOMEM, "no memory for an exchange");
        return;
    }
    request->begun = true;
    request->begun_ms = uv_now(link->client->loop);
    td_http_asked(&link->asking, full);
    if (request->number > 1 && link->base.events->exchange_began)
        link->base.events->exchange_began(link->base.context);
    DL_APPEND(link->requests, request);
}

/* Have as many exchanges under way as there is reason for. */
static void pump(client_link *link)
{
    tandem_writer body;

    tandem_writer_init(&body);
    while (!link->failed && td_http_ask(&link->base, &link->asking, &body)) {
        start_exchange(link, &body, false);
        tandem_writer_init(&body);
    }
    tandem_writer_release(&body);
}

/* ---- Answers ---- */

static void fail_by_network(client_link *link, CURLcode result)
{
    switch (result) {
    case CURLE_OPERATION_TIMEDOUT:
        td_http_link_set_reason(&link->base, TANDEM_E_TIMEOUT, "no answer in time from %s",
                                link->url.authority);
        break;
    case CURLE_COULDNT_CONNECT:
        td_http_link_set_reason(&link->base, TANDEM_E_UNREACHABLE, "nobody answers at %s",
                                link->url.authority);
        break;
    case CURLE_OUT_OF_MEMORY:
        td_http_link_set_reason(&link->base, TANDEM_E_NOMEM, "no memory for an exchange");
        break;
    case CURLE_WRITE_ERROR:
    case CURLE_FILESIZE_EXCEEDED:
        td_http_link_set_reason(&link->base, TANDEM_E_PROTOCOL, "an answer is too large");
        break;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_CONTENT_ENCODING:
        td_http_link_set_reason(&link->base, TANDEM_E_PROTOCOL,
                                "not a tandem peer: its answer is no HTTP");
        break;
    default:
        td_http_link_set_reason(&link->base, TANDEM_E_UNREACHABLE, "the connection was lost");
        break;
    }
    link->failed = true;
}

static bool is_transient(long status)
{
    return status == 408 || status == 425 || status == 429 || status >= 500;
}

static void fail_by_status(client_link *link, struct request *request, long status)
{
    curl_off_t after_s = 0;

    if (status == 409 || status == 410) {
        fail(link, TANDEM_E_UNREACHABLE, "the peer has forgotten this link");
        return;
    }
    link->failed = true;
    if (!is_transient(status)) {
        td_http_link_set_reason(&link->base, TANDEM_E_PROTOCOL,
                                "not a tandem peer: it answered with HTTP status %ld", status);
        return;
    }
    td_http_link_set_reason(&link->base, TANDEM_E_UNREACHABLE,
                            "the other side answered with HTTP status %ld", status);
    if (curl_easy_getinfo(request->easy, CURLINFO_RETRY_AFTER, &after_s) == CURLE_OK && after_s > 0)
        link->base.retry_after_ms =
            (uint64_t)(after_s < RETRY_AFTER_S_MAX ? after_s : RETRY_AFTER_S_MAX) * 1000;
}

static const char *header_of(struct request *request, const char *name)
{
    struct curl_header *header;

    if (curl_easy_header(request->easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
        return "";
    return header->value;
}

/* The next answer in order. */
static void take_answer(client_link *link, struct request *request)
{
    td_http_link *base = &link->base;
    const char *type = NULL, *end;
    long status = 0;
    tandem_err err;

    curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(request->easy, CURLINFO_CONTENT_TYPE, &type);
    if (status != 200) {
        fail_by_status(link, request, status);
        return;
    }
    if (!type || strcmp(type, TD_HTTP_TYPE) != 0) {
        fail(link, TANDEM_E_PROTOCOL, "not a tandem peer: its answer has another type");
        return;
    }
    /* To curl a head that is cut off is one that has ended. The length comes last in it. */
    if (!*header_of(request, "Content-Length") && !*header_of(request, "Transfer-Encoding")) {
        fail(link, TANDEM_E_UNREACHABLE, "an answer was cut off");
        return;
    }
    if ((err = td_http_link_take(base, tandem_writer_slice(&request->answer))) != TANDEM_OK) {
        fail(link, err, "an answer is no sequence of messages, or more than was allowed");
        return;
    }
    link->asking.peer_full = strcmp(header_of(request, "Tandem-Hold"), "1") == 0;
    end = header_of(request, "Tandem-End");
    if (*end)
        td_http_end_read(base, end);
    if (request->ends)
        base->peer_ended = true; /* nothing more will come */
    if (base->state == TD_HTTP_OPENING) {
        base->state = TD_HTTP_OPEN;
        base->wants = true;
        base->events->opened(base->context);
    }
}

/* What an answer brought is delivered, or held. */
static void tell_ended(client_link *link, uint64_t took_ms, uint64_t bytes)
{
    td_http_link *base = &link->base;

    if (link->asking.answered > 1 && base->state == TD_HTTP_OPEN && base->events->exchange_ended)
        base->events->exchange_ended(base->context, took_ms, bytes, bytes >= TD_HTTP_FILL_BYTES);
}

static void take_answers(client_link *link)
{
    struct request *request;

    /* What the network does to one costs the link; what the peer says is heard in order. */
    DL_FOREACH(link->requests, request)
        if (request->done && request->result != CURLE_OK && !link->failed &&
            !link->base.peer_ended) {
            fail_by_network(link, request->result);
            return;
        }
    while ((request = link->requests) && request->done && request->result == CURLE_OK &&
           !link->failed && !link->base.peer_ended) {
        uint64_t bytes = request->answer.size;
        uint64_t took_ms = uv_now(link->client->loop) - request->begun_ms;

        link->asking.answered = request->number;
        take_answer(link, request);
        DL_DELETE(link->requests, request);
        request_free(request);
        td_http_link_deliver(&link->base);
        tell_ended(link, took_ms, bytes);
    }
}

/* ---- Life of a link ---- */

static void finish(client_link *link)
{
    struct request *request, *next;

    DL_FOREACH_SAFE(link->requests, request, next)
        request_free(request);
    link->requests = NULL;
    if (link->lookup) {
        link->lookup->link = NULL;
        uv_cancel((uv_req_t *)&link->lookup->request);
        link->lookup = NULL;
    }
    DL_DELETE(link->client->links, link);
    link->client->link_count--;
    td_http_link_finish(&link->base);
}

static void on_timer_closed(uv_handle_t *handle)
{
    client_link *link = link_of(handle->data);

    link->client->handles--;
    curl_slist_free_all(link->resolve);
    td_http_link_release(&link->base);
    free(link);
}

static void look_in(td_http_link *base, uint64_t delay_ms)
{
    td_http_timer_look_in(&link_of(base)->timer, delay_ms);
}

static void stop(td_http_link *base)
{
    uv_close((uv_handle_t *)&link_of(base)->timer, on_timer_closed);
}

/* We end it: say so with an exchange of its own, once. */
static void say_end(client_link *link, uint64_t now_ms)
{
    tandem_writer nothing;

    if (link->end_sent)
        return;
    link->end_sent = true;
    link->deadline_ms = now_ms + END_S * 1000;
    tandem_writer_init(&nothing);
    start_exchange(link, &nothing, true);
}

static void look(td_http_link *base)
{
    client_link *link = link_of(base);
    uint64_t now_ms = uv_now(link->client->loop);

    take_answers(link);
    td_http_link_deliver(base);
    if (base->state == TD_HTTP_OPEN && !base->peer_ended)
        pump(link);
    if (base->state == TD_HTTP_ENDING && link->asking.answered && !link->failed && !base->peer_ended)
        say_end(link, now_ms);
    if (link->failed || (base->state == TD_HTTP_ENDING && (!link->asking.answered || base->peer_ended)) ||
        (base->peer_ended && td_http_link_is_empty(base))) {
        finish(link);
        return;
    }
    if (base->state != TD_HTTP_OPEN) {
        if (now_ms >= link->deadline_ms) {
            td_http_link_set_reason(base, TANDEM_E_TIMEOUT, "no answer within %d s",
                                    TD_NETWORK_DIAL_S);
            finish(link);
            return;
        }
        td_http_link_look_in(base, link->deadline_ms - now_ms);
    }
}

void td_http_client_pace(td_http_link *base, uint64_t pause_ms)
{
    client_link *link = link_of(base);

    link->asking.pause_ms = pause_ms;
    td_http_link_look_soon(base);
}

void td_http_client_poll(td_http_link *base)
{
    client_link *link = link_of(base);

    link->asking.polled = true;
    td_http_link_look_soon(base);
}

static const td_http_side client_side = {.look = look, .look_in = look_in, .stop = stop};

/* ---- Dialing ---- */

static void say_hello(client_link *link)
{
    tandem_writer nothing;

    tandem_writer_init(&nothing);
    start_exchange(link, &nothing, false);
    if (link->failed)
        td_http_link_look_soon(&link->base);
}

/* HOST:PORT:ADDRESS,ADDRESS…, which curl takes for the answer of a name server. */
static bool tell_addresses(client_link *link, const struct addrinfo *addresses)
{
    char text[2048], address[INET6_ADDRSTRLEN];
    size_t used = (size_t)snprintf(text, sizeof(text), "%s:%u:", link->url.host,
                                   (unsigned)link->url.port);
    unsigned count = 0;

    for (; addresses && used + sizeof(address) + 1 < sizeof(text); addresses = addresses->ai_next) {
        if (uv_ip_name(addresses->ai_addr, address, sizeof(address)) != 0)
            continue;
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", count ? "," : "",
                                 address);
        count++;
    }
    link->resolve = count ? curl_slist_append(NULL, text) : NULL;
    return link->resolve != NULL;
}

static void on_resolved(uv_getaddrinfo_t *request, int failed, struct addrinfo *addresses)
{
    struct lookup *lookup = (struct lookup *)request;
    client_link *link = lookup->link;

    lookup->client->handles--;
    free(lookup);
    if (link) {
        link->lookup = NULL;
        if (!failed && tell_addresses(link, addresses)) {
            say_hello(link);
        } else {
            td_http_link_set_reason(&link->base, TANDEM_E_UNREACHABLE,
                                    "%s cannot be resolved: %s", link->url.authority,
                                    failed ? uv_strerror(failed) : "no address");
            link->failed = true;
            td_http_link_look_soon(&link->base);
        }
    }
    uv_freeaddrinfo(addresses);
}

static bool is_address(const char *host)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    return uv_ip4_addr(host, 0, &v4) == 0 || uv_ip6_addr(host, 0, &v6) == 0;
}

/* Addresses need no resolving; names go to libuv's threads. */
static tandem_err resolve(client_link *link)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG};
    struct lookup *lookup;
    char port[8];

    if (is_address(link->url.host)) {
        say_hello(link);
        return TANDEM_OK;
    }
    if (!(lookup = calloc(1, sizeof(*lookup))))
        return TANDEM_E_NOMEM;
    snprintf(port, sizeof(port), "%u", (unsigned)link->url.port);
    if (uv_getaddrinfo(link->client->loop, &lookup->request, on_resolved, link->url.host, port,
                       &hints) != 0) {
        free(lookup);
        return TANDEM_E_NOMEM;
    }
    lookup->client = link->client;
    lookup->link = link;
    link->lookup = lookup;
    link->client->handles++;
    return TANDEM_OK;
}

static void draw_id(client_link *link)
{
    uint8_t id[TD_HTTP_LINK_BYTES];

    td_env_random_bytes(link->client->env, id, sizeof(id));
    for (int i = 0; i < TD_HTTP_LINK_BYTES; i++)
        snprintf(link->id + 2 * i, 3, "%02x", id[i]);
}

tandem_err td_http_dial(td_http_client *client, const char *text,
                        const td_connection_events *events, void *context, td_http_link **out)
{
    client_link *link;
    td_url url;
    tandem_err err;

    if ((err = td_url_parse(text, "http", &url)) != TANDEM_OK)
        return err;
    if (client->freeing)
        return TANDEM_E_CLOSED;
    if (client->link_count >= TD_NETWORK_CONNECTIONS_MAX)
        return TANDEM_E_LIMIT;
    if (!(link = calloc(1, sizeof(*link))))
        return TANDEM_E_NOMEM;
    link->client = client;
    link->url = url;
    draw_id(link);
    td_http_link_init(&link->base, &client_side);
    td_http_timer_init(&link->timer, client->loop, &link->base);
    client->handles++;
    client->link_count++;
    DL_APPEND(client->links, link);
    uv_update_time(client->loop); /* it may not have turned for long */
    link->deadline_ms = uv_now(client->loop) + TD_NETWORK_DIAL_S * 1000;
    td_http_link_look_in(&link->base, TD_NETWORK_DIAL_S * 1000);
    if ((err = resolve(link)) != TANDEM_OK) {
        fail(link, err, tandem_err_text(err));
        finish(link); /* no events yet: nothing is called */
        return err;
    }
    link->base.events = events;
    link->base.context = context;
    *out = &link->base;
    return TANDEM_OK;
}

tandem_err td_http_url_check(const char *text)
{
    td_url url;

    return td_url_parse(text, "http", &url);
}

/* ---- The client ---- */

uint64_t td_http_client_connects(const td_http_client *client)
{
    return client->connects;
}

static void on_timer_freed(uv_handle_t *handle)
{
    td_http_client *client = handle->data;

    client->handles--;
}

tandem_err td_http_client_open(td_host *host, td_http_client **out)
{
    td_http_client *client = calloc(1, sizeof(*client));

    if (!client)
        return TANDEM_E_NOMEM;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(client);
        return TANDEM_E_IO;
    }
    client->env = host->runtime->env;
    client->loop = td_host_loop(host);
    if (!(client->multi = curl_multi_init())) {
        td_http_client_free(client);
        return TANDEM_E_NOMEM;
    }
    uv_timer_init(client->loop, &client->timer);
    client->timer.data = client;
    client->has_timer = true;
    client->handles++;
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, set_curl_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    *out = client;
    return TANDEM_OK;
}

void td_http_client_free(td_http_client *client)
{
    if (!client)
        return;
    client->freeing = true;
    while (client->links) {
        td_http_link_set_reason(&client->links->base, TANDEM_OK, "the network was shut down");
        finish(client->links);
    }
    if (client->multi)
        curl_multi_cleanup(client->multi);
    if (client->has_timer)
        uv_close((uv_handle_t *)&client->timer, on_timer_freed);
    while (client->handles)
        uv_run(client->loop, UV_RUN_ONCE);
    curl_global_cleanup();
    free(client);
}
