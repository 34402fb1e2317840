/*
 * A bed for tests of links over HTTP: a client and a server on one loop, sides that do as they are
 * told, and both before a raw socket that speaks HTTP.
 *
 * Include after cmocka.h and what cmocka.h asks for.
 */
#ifndef TANDEM_TESTS_HTTP_BED_H
#define TANDEM_TESTS_HTTP_BED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driven_loop.h"
#include "transport/http_client.h"
#include "transport/http_server.h"

enum { SIDES_MAX = 128 };

struct fixture;

/* One end of a link, and what it is to do. */
struct side {
    struct fixture *f;
    td_http_link *link; /* NULL once closed */
    unsigned opened, closed, messages;
    uint64_t received_bytes, retry_after_ms;
    uint8_t last_first; /* the first byte of the last message */
    tandem_err err;
    char text[200];
    /* to do */
    unsigned to_send; /* messages, each of send_size, numbered in their first byte */
    size_t send_size;
    unsigned sent;
    bool ordered; /* each message's first byte must be the next number */
    bool echo, hold_after_each;
    unsigned echoes;
    uint64_t pace_ms; /* no long poll; 0: as always */
    bool expects;
    bool unknown; /* nobody knows who the peer is */
    /* of exchanges */
    uint64_t pause_ms; /* the client's, as the server was told */
    unsigned paced, began, ended, full;
    bool close_in_opened, close_in_message, close_in_writable;
};

struct fixture {
    struct loop loop; /* first */
    td_network *server;
    td_http_client *client;
    uint16_t port;
    char url[64];
    tandem_err refuse;       /* what accept returns */
    struct side accepted_do; /* a pattern for accepted sides */
    struct side *accepted[SIDES_MAX];
    unsigned accepted_count;
};

/* ---- Sides ---- */

static inline void on_opened(void *context)
{
    struct side *side = context;

    assert_int_equal(0, side->opened + side->closed);
    side->opened++;
    if (side->close_in_opened)
        td_http_link_close(side->link, TANDEM_OK, "done at once");
}

static inline void on_message(void *context, tandem_slice bytes)
{
    struct side *side = context;

    assert_int_equal(1, side->opened);
    assert_int_equal(0, side->closed);
    assert_true(bytes.size > 0);
    if (side->ordered)
        assert_int_equal(side->messages & 0xff, bytes.bytes[0]);
    side->messages++;
    side->received_bytes += bytes.size;
    side->last_first = bytes.bytes[0];
    if (side->echo) {
        side->echoes++;
        td_http_link_want_write(side->link);
    }
    if (side->hold_after_each)
        td_http_link_hold(side->link, true);
    if (side->close_in_message)
        td_http_link_close(side->link, TANDEM_OK, NULL);
}

static inline tandem_err on_writable(void *context, tandem_writer *out)
{
    struct side *side = context;
    uint8_t *bytes;

    assert_int_equal(1, side->opened);
    assert_int_equal(0, side->closed);
    assert_int_equal(0, out->size);
    if (side->close_in_writable) {
        td_http_link_close(side->link, TANDEM_E_NOMEM, "no more");
        return TANDEM_END;
    }
    if (side->echoes) {
        side->echoes--;
        tandem_write_raw(out, tandem_slice_of("echo", 4));
        return TANDEM_OK;
    }
    if (!side->to_send)
        return TANDEM_END;
    bytes = calloc(1, side->send_size);
    bytes[0] = (uint8_t)side->sent;
    tandem_write_raw(out, tandem_slice_of(bytes, side->send_size));
    free(bytes);
    side->to_send--;
    side->sent++;
    return TANDEM_OK;
}

static inline void on_retry_after(void *context, uint64_t delay_ms)
{
    struct side *side = context;

    assert_int_equal(0, side->closed);
    side->retry_after_ms = delay_ms;
}

static inline void on_paced(void *context, uint64_t pause_ms)
{
    struct side *side = context;

    assert_int_equal(0, side->closed);
    side->paced++;
    side->pause_ms = pause_ms;
}

static inline void on_exchange_began(void *context)
{
    struct side *side = context;

    assert_int_equal(0, side->closed);
    side->began++;
}

static inline void on_exchange_ended(void *context, uint64_t took_ms, uint64_t bytes, bool more)
{
    struct side *side = context;

    assert_int_equal(0, side->closed);
    assert_true(side->ended < side->began);
    assert_true(took_ms < DEADLINE_MS);
    assert_true(more == (bytes >= TD_HTTP_FILL_BYTES));
    side->ended++;
    side->full += more;
}

static inline bool on_expects(void *context)
{
    struct side *side = context;

    assert_int_equal(0, side->closed);
    return side->expects;
}

static inline bool on_knows(void *context)
{
    struct side *side = context;

    assert_int_equal(0, side->closed);
    return !side->unknown;
}

static inline void on_closed(void *context, tandem_err err, const char *text)
{
    struct side *side = context;

    assert_int_equal(0, side->closed);
    side->closed++;
    side->err = err;
    snprintf(side->text, sizeof(side->text), "%s", text);
    side->link = NULL;
}

static const td_connection_events events = {
    .opened = on_opened, .message = on_message, .writable = on_writable,
    .retry_after = on_retry_after, .paced = on_paced, .exchange_began = on_exchange_began,
    .exchange_ended = on_exchange_ended, .expects = on_expects, .knows = on_knows,
    .closed = on_closed};

static inline tandem_err on_accept(void *context, td_http_link *link,
                                   const td_connection_events **events_out, void **context_out)
{
    struct fixture *f = context;
    struct side *side;

    if (f->refuse)
        return f->refuse;
    assert_true(f->accepted_count < SIDES_MAX);
    side = malloc(sizeof(*side));
    *side = f->accepted_do;
    side->f = f;
    side->link = link;
    f->accepted[f->accepted_count++] = side;
    *events_out = &events;
    *context_out = side;
    return TANDEM_OK;
}

static inline tandem_err refuse_websocket(void *context, td_connection *connection,
                                          const td_connection_events **events_out,
                                          void **context_out)
{
    return TANDEM_E_UNSUPPORTED;
}

/* ---- The fixture ---- */

static inline int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    loop_open(&f->loop);
    assert_int_equal(TANDEM_OK, td_network_open(f->loop.host, &f->server));
    assert_int_equal(TANDEM_OK, td_http_client_open(f->loop.host, &f->client));
    td_network_serve_http(f->server, on_accept, f);
    assert_int_equal(TANDEM_OK, td_network_listen(f->server, "127.0.0.1", 0, refuse_websocket, f,
                                                  &f->port));
    snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u/tandem", f->port);
    *state = f;
    return 0;
}

static inline void free_both(struct fixture *f)
{
    td_http_client_free(f->client);
    td_network_free(f->server);
    f->client = NULL;
    f->server = NULL;
}

static inline int close_fixture(void **state)
{
    struct fixture *f = *state;

    free_both(f);
    for (unsigned i = 0; i < f->accepted_count; i++) {
        assert_int_equal(1, f->accepted[i]->closed);
        free(f->accepted[i]);
    }
    loop_free(&f->loop);
    free(f);
    return 0;
}

static inline void dial(struct fixture *f, struct side *side)
{
    side->f = f;
    assert_int_equal(TANDEM_OK, td_http_dial(f->client, f->url, &events, side, &side->link));
    if (side->pace_ms)
        td_http_client_pace(side->link, side->pace_ms);
}

/* A dialed side and the one accepted for it, both open. */
static inline struct side *connect_pair(struct fixture *f, struct side *dialed)
{
    unsigned before = f->accepted_count;

    dial(f, dialed);
    UNTIL(f, dialed->opened && f->accepted_count > before && f->accepted[before]->opened);
    return f->accepted[before];
}

/* ---- Raw sockets ---- */

/* What was read of HTTP: a head as text, and the body. */
struct http {
    char head[4096];
    uint8_t *body;
    size_t size;
};

static inline char *field_of(struct http *http, const char *name)
{
    char *at = strcasestr(http->head, name);

    return at ? at + strlen(name) : NULL;
}

/* Read one request or answer. False: the other side has hung up before. */
static inline bool raw_read_http(struct fixture *f, int fd, struct http *http)
{
    size_t used;
    char *length;

    free(http->body);
    http->body = NULL;
    http->size = 0;
    if (!raw_read_head(&f->loop, fd, http->head, sizeof(http->head)))
        return false;
    length = field_of(http, "content-length: ");
    http->size = length ? (size_t)atol(length) : 0;
    http->body = calloc(1, http->size + 1);
    for (used = 0; used < http->size;) {
        size_t got = raw_read(&f->loop, fd, http->body + used, http->size - used);

        assert_true(got > 0);
        used += got;
    }
    return true;
}

/* Messages of one byte each, as a body: "abc" is three. */
static inline size_t frame_letters(const char *letters, uint8_t *out)
{
    size_t used = 0;

    for (; *letters; letters++) {
        memcpy(out + used, "\0\0\0\1", 4);
        out[used + 4] = (uint8_t)*letters;
        used += 5;
    }
    if (!used) {
        memset(out, 0, 4);
        used = 4;
    }
    return used;
}

#define POST "POST /tandem HTTP/1.1\r\n"
#define ID "00112233445566778899aabbccddeeff"
#define TYPE "Content-Type: " TD_HTTP_TYPE "\r\n"
#define HOST "Host: localhost\r\n"
#define LINK "Tandem-Link: " ID "\r\n"
#define ONE "Tandem-Exchange: 1\r\n"
#define FOUR "Content-Length: 4\r\n"
#define OK_HEAD "HTTP/1.1 200 OK\r\n" TYPE

/* The bytes of an exchange with such messages. */
static inline size_t exchange(unsigned number, const char *letters, const char *more, char *out)
{
    uint8_t body[1000];
    size_t size = frame_letters(letters, body);
    int head = sprintf(out, POST HOST TYPE LINK "Tandem-Exchange: %u\r\nContent-Length: %zu\r\n"
                            "%s\r\n",
                       number, size, more);

    memcpy(out + head, body, size);
    return (size_t)head + size;
}

static inline void raw_exchange(struct fixture *f, int fd, unsigned number, const char *letters,
                                const char *more)
{
    char bytes[2000];
    size_t size = exchange(number, letters, more, bytes);

    assert_true(raw_send(&f->loop, fd, bytes, size));
}

static inline unsigned status_of(const struct http *http)
{
    return (unsigned)atoi(http->head + strlen("HTTP/1.1 "));
}

/* Open a link with a raw exchange; its accepted side. */
static inline struct side *raw_open(struct fixture *f, int fd)
{
    struct http answer = {.body = NULL};
    unsigned before = f->accepted_count;

    raw_exchange(f, fd, 1, "", "");
    assert_true(raw_read_http(f, fd, &answer));
    assert_int_equal(200, status_of(&answer));
    assert_non_null(strstr(answer.head, TYPE));
    assert_int_equal(before + 1, f->accepted_count);
    free(answer.body);
    return f->accepted[before];
}

/* ---- A raw server before the client ---- */

/* Instead of the fixture's own server. */
static inline int listen_raw(struct fixture *f)
{
    uint16_t port;
    int fd = raw_listen(&port);

    snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u", port);
    return fd;
}

static inline void raw_answer(struct fixture *f, int fd, const char *letters, const char *more)
{
    uint8_t body[1000];
    size_t size = frame_letters(letters, body);
    char bytes[2000];
    int head = sprintf(bytes, OK_HEAD "%sContent-Length: %zu\r\n\r\n", more, size);

    memcpy(bytes + head, body, size);
    assert_true(raw_send(&f->loop, fd, bytes, (size_t)head + size));
}

/* Dial a raw server, and answer what opens the link. */
static inline int raw_serve(struct fixture *f, int listener, struct side *dialed)
{
    struct http request = {.body = NULL};
    int fd;

    dial(f, dialed);
    fd = raw_accept(&f->loop, listener);
    assert_true(raw_read_http(f, fd, &request));
    assert_non_null(strstr(request.head, POST));
    assert_non_null(strstr(request.head, TYPE));
    assert_non_null(strstr(request.head, "\r\nTandem-Exchange: 1\r\n"));
    assert_null(strcasestr(request.head, "Expect"));
    assert_null(strcasestr(request.head, "Origin"));
    assert_null(strcasestr(request.head, "Transfer-Encoding"));
    free(request.body);
    raw_answer(f, fd, "", "");
    UNTIL(f, dialed->opened);
    return fd;
}

#define HTTP_TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

#endif
