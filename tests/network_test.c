/* The network floor, over real sockets on loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "driven_loop.h"
#include "transport/network.h"
#include "transport/wire.h"

enum { SIDES_MAX = 2 * TD_NETWORK_CONNECTIONS_MAX };

struct fixture;

/* One end of a connection, and what it is to do. */
struct side {
    struct fixture *f;
    td_connection *connection; /* NULL once closed */
    unsigned opened, closed, messages, pulls;
    size_t last_size;
    uint64_t checksum, bytes_pulled;
    tandem_err err;
    char text[200];
    /* to do */
    unsigned to_send;       /* messages, each of send_size, numbered in their first bytes */
    size_t send_size;
    unsigned next_number;   /* of the message to come: each must carry it */
    bool numbered, echo, hold_after_each;
    bool close_in_opened, close_in_message, close_in_writable;
    bool unknown;           /* nobody knows who the peer is */
    size_t echo_size;
    uint8_t *echo_bytes;
};

struct fixture {
    struct loop loop; /* first */
    td_network *server, *client;
    uint16_t port;
    char url[64];
    tandem_err refuse;      /* what accept returns */
    struct side accepted_do; /* a pattern for accepted sides */
    struct side *accepted[SIDES_MAX];
    unsigned accepted_count;
};

/* ---- Sides ---- */

static uint8_t byte_at(unsigned number, size_t i)
{
    return (uint8_t)(number * 31 + i * 7 + i / 251);
}

static void on_opened(void *context)
{
    struct side *side = context;

    assert_int_equal(0, side->opened);
    assert_int_equal(0, side->closed);
    side->opened++;
    if (side->close_in_opened)
        td_connection_close(side->connection, TANDEM_OK, "done at once");
}

static void on_message(void *context, tandem_slice bytes)
{
    struct side *side = context;

    assert_int_equal(1, side->opened);
    assert_int_equal(0, side->closed);
    side->messages++;
    side->last_size = bytes.size;
    if (side->numbered) {
        for (size_t i = 0; i < bytes.size; i++)
            if (bytes.bytes[i] != byte_at(side->next_number, i))
                fail_msg("message %u differs at byte %zu", side->next_number, i);
        side->next_number++;
    }
    if (side->echo) {
        side->echo_bytes = realloc(side->echo_bytes, bytes.size ? bytes.size : 1);
        memcpy(side->echo_bytes, bytes.bytes, bytes.size);
        side->echo_size = bytes.size;
        td_connection_want_write(side->connection);
    }
    if (side->hold_after_each)
        td_connection_hold(side->connection, true);
    if (side->close_in_message)
        td_connection_close(side->connection, TANDEM_OK, NULL);
}

static tandem_err on_writable(void *context, tandem_writer *out)
{
    struct side *side = context;

    assert_int_equal(1, side->opened);
    assert_int_equal(0, side->closed);
    assert_int_equal(0, out->size);
    if (side->close_in_writable) {
        td_connection_close(side->connection, TANDEM_E_NOMEM, "no more");
        return TANDEM_END;
    }
    if (side->echo_bytes) {
        tandem_write_raw(out, tandem_slice_of(side->echo_bytes, side->echo_size));
        free(side->echo_bytes);
        side->echo_bytes = NULL;
        return TANDEM_OK;
    }
    if (!side->to_send)
        return TANDEM_END;
    uint8_t *bytes = malloc(side->send_size + 1);
    for (size_t i = 0; i < side->send_size; i++)
        bytes[i] = byte_at(side->pulls, i);
    tandem_write_raw(out, tandem_slice_of(bytes, side->send_size));
    free(bytes);
    side->to_send--;
    side->pulls++;
    side->bytes_pulled += side->send_size;
    return TANDEM_OK;
}

static void on_closed(void *context, tandem_err err, const char *text)
{
    struct side *side = context;

    assert_int_equal(0, side->closed);
    side->closed++;
    side->err = err;
    snprintf(side->text, sizeof(side->text), "%s", text);
    side->connection = NULL;
    free(side->echo_bytes);
    side->echo_bytes = NULL;
}

static bool on_knows(void *context)
{
    return !((const struct side *)context)->unknown;
}

static const td_connection_events events = {.opened = on_opened,
                                            .message = on_message,
                                            .writable = on_writable,
                                            .knows = on_knows,
                                            .closed = on_closed};

static tandem_err on_accept(void *context, td_connection *connection,
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
    side->connection = connection;
    f->accepted[f->accepted_count++] = side;
    *events_out = &events;
    *context_out = side;
    return TANDEM_OK;
}

/* ---- The fixture ---- */

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    loop_open(&f->loop);
    assert_int_equal(TANDEM_OK, td_network_open(f->loop.host, &f->server));
    assert_int_equal(TANDEM_OK, td_network_open(f->loop.host, &f->client));
    assert_int_equal(TANDEM_OK,
                     td_network_listen(f->server, "127.0.0.1", 0, on_accept, f, &f->port));
    assert_true(f->port > 0);
    snprintf(f->url, sizeof(f->url), "ws://127.0.0.1:%u/tandem", f->port);
    *state = f;
    return 0;
}

static void free_networks(struct fixture *f)
{
    td_network_free(f->client);
    td_network_free(f->server);
    f->client = f->server = NULL;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;

    free_networks(f);
    for (unsigned i = 0; i < f->accepted_count; i++) {
        assert_int_equal(1, f->accepted[i]->closed);
        free(f->accepted[i]);
    }
    loop_free(&f->loop);
    free(f);
    return 0;
}

static void dial(struct fixture *f, struct side *side)
{
    side->f = f;
    assert_int_equal(TANDEM_OK,
                     td_network_dial(f->client, f->url, &events, side, &side->connection));
}

/* A dialed side and the one accepted for it, both open. */
static struct side *connect_pair(struct fixture *f, struct side *dialed)
{
    unsigned before = f->accepted_count;

    dial(f, dialed);
    UNTIL(f, dialed->opened && f->accepted_count > before && f->accepted[before]->opened);
    return f->accepted[before];
}

static void close_pair(struct fixture *f, struct side *dialed, struct side *accepted)
{
    td_connection_close(dialed->connection, TANDEM_OK, NULL);
    UNTIL(f, dialed->closed && accepted->closed);
    assert_int_equal(TANDEM_OK, dialed->err);
    assert_int_equal(TANDEM_OK, accepted->err);
}

/* The node serves: a fresh connection carries a message there and back. */
static void assert_serves(struct fixture *f)
{
    struct side dialed = {.to_send = 1, .send_size = 100, .numbered = true};
    struct side *accepted;

    f->accepted_do = (struct side){.echo = true};
    accepted = connect_pair(f, &dialed);
    UNTIL(f, dialed.messages == 1);
    close_pair(f, &dialed, accepted);
}

/* ---- Raw sockets ---- */

static bool raw_read_all(struct loop *loop, int fd, void *bytes, size_t size)
{
    size_t got;

    for (; size; bytes = (uint8_t *)bytes + got, size -= got)
        if (!(got = raw_read(loop, fd, bytes, size)))
            return false;
    return true;
}

#define HEAD(path, host, protocol, more)                                                           \
    "GET " path " HTTP/1.1\r\nHost: " host "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"    \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" protocol more  \
    "\r\n"
#define PROTOCOL "Sec-WebSocket-Protocol: tandem.1\r\n"

/* A raw client whose handshake is through. */
static int raw_client(struct fixture *f)
{
    static const char head[] = HEAD("/tandem", "localhost", PROTOCOL, "");
    char answer[1000];
    int fd = raw_connect(f->port);

    assert_true(raw_send(&f->loop, fd, head, strlen(head)));
    assert_true(raw_read_head(&f->loop, fd, answer, sizeof(answer)));
    assert_non_null(strstr(answer, " 101 "));
    return fd;
}

/* A frame's header, with the mask 01 02 03 04 if it comes from a client. */
static size_t frame_head(uint8_t *out, uint8_t first, uint64_t size, bool masked)
{
    size_t used = 0;

    out[used++] = first;
    if (size < 126) {
        out[used++] = (uint8_t)size;
    } else if (size < 65536) {
        out[used++] = 126;
        out[used++] = (uint8_t)(size >> 8);
        out[used++] = (uint8_t)size;
    } else {
        out[used++] = 127;
        td_put_u64(out + used, size);
        used += 8;
    }
    if (masked) {
        out[1] |= 0x80;
        memcpy(out + used, "\1\2\3\4", 4);
        used += 4;
    }
    return used;
}

static uint8_t *frame(uint8_t first, const uint8_t *bytes, size_t size, bool masked,
                      size_t *size_out)
{
    uint8_t *out = malloc(size + 14);
    size_t used = frame_head(out, first, size, masked);

    for (size_t i = 0; i < size; i++)
        out[used + i] = masked ? bytes[i] ^ (uint8_t)(i % 4 + 1) : bytes[i];
    *size_out = used + size;
    return out;
}

/* Read until a close frame comes and return its code; 0 if the connection just ends. */
static unsigned raw_read_close(struct fixture *f, int fd)
{
    uint8_t head[2], body[130];

    for (;;) {
        if (!raw_read_all(&f->loop, fd, head, 2))
            return 0;
        assert_true((head[1] & 0x7f) < 126);
        bool masked = head[1] & 0x80;
        size_t size = (head[1] & 0x7fu) + (masked ? 4 : 0);
        if (!raw_read_all(&f->loop, fd, body, size))
            return 0;
        if ((head[0] & 0xf) != 8)
            continue;
        if (masked)
            for (size_t i = 4; i < size; i++)
                body[i] ^= body[i % 4];
        return (unsigned)body[masked ? 4 : 0] << 8 | body[masked ? 5 : 1];
    }
}

/* Instead of the fixture's own server. */
static int listen_raw(struct fixture *f)
{
    uint16_t port;
    int fd = raw_listen(&port);

    snprintf(f->url, sizeof(f->url), "ws://127.0.0.1:%u", port);
    return fd;
}

/* Answer a dialing network's handshake; protocol is a header line or nothing. */
static void raw_answer(struct fixture *f, int fd, const char *protocol)
{
    char head[2000], key[100], answer[500], *at;
    uint8_t hash[20];

    assert_true(raw_read_head(&f->loop, fd, head, sizeof(head)));
    assert_non_null(strstr(head, "GET /tandem HTTP/1.1\r\n"));
    assert_non_null(strstr(head, PROTOCOL));
    assert_null(strstr(head, "Extensions"));
    assert_null(strstr(head, "Origin"));
    at = strstr(head, "Sec-WebSocket-Key: ");
    assert_non_null(at);
    snprintf(key, sizeof(key), "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11",
             (int)strcspn(at + 19, "\r"), at + 19);
    lws_SHA1((unsigned char *)key, strlen(key), hash);
    lws_b64_encode_string((char *)hash, 20, key, sizeof(key));
    snprintf(answer, sizeof(answer),
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Accept: %s\r\n%s\r\n",
             key, protocol);
    assert_true(raw_send(&f->loop, fd, answer, strlen(answer)));
}

/* ---- Messages ---- */

static void messages_of_any_size_go_there_and_back(void **state)
{
    static const size_t sizes[] = {0,     1,     125,    126,
                                   65535, 65536, 300000, TD_MESSAGE_BYTES_MAX};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct side dialed = {.to_send = 1, .send_size = sizes[i], .numbered = true};
        struct side *accepted;

        f->accepted_do = (struct side){.echo = true, .numbered = true};
        accepted = connect_pair(f, &dialed);
        UNTIL(f, dialed.messages == 1);
        assert_int_equal(sizes[i], dialed.last_size);
        assert_int_equal(sizes[i], accepted->last_size);
        close_pair(f, &dialed, accepted);
    }
    assert_int_equal(0, td_network_rejected(f->server));
}

static void many_messages_keep_their_order_both_ways(void **state)
{
    struct fixture *f = *state;
    struct side dialed = {.to_send = 3000, .send_size = 1000, .numbered = true};
    struct side *accepted;

    f->accepted_do = (struct side){.to_send = 40, .send_size = 200000, .numbered = true};
    accepted = connect_pair(f, &dialed);
    UNTIL(f, dialed.messages == 40 && accepted->messages == 3000);
    close_pair(f, &dialed, accepted);
}

/* By what a frame claims: of its bytes none is kept. In one frame, in many, and of one that was dialed. */
static void little_is_taken_of_who_is_not_known(void **state)
{
    enum { MORE = TD_OPENING_BYTES_MAX + 1 };
    struct fixture *f = *state;
    uint8_t *bytes = calloc(1, MORE), head[14];
    size_t size;

    f->accepted_do = (struct side){.unknown = true};
    for (int kind = 0; kind < 3; kind++) {
        int fd = raw_client(f);
        struct side *side = f->accepted[kind];
        uint8_t *whole = frame(kind == 2 ? 0x02 : 0x82, bytes, MORE - 1, true, &size);

        assert_true(raw_send(&f->loop, fd, whole, size));
        free(whole);
        if (kind == 2) { /* it goes on */
            assert_true(raw_send(&f->loop, fd, head, frame_head(head, 0x80, 1, true)));
        } else { /* the largest passes, as often as it comes */
            UNTIL(f, side->messages == 1);
            side->unknown = kind == 0;
            assert_true(raw_send(&f->loop, fd, head, frame_head(head, 0x82, MORE, true)));
        }
        assert_true(raw_send(&f->loop, fd, bytes, 1));
        if (kind == 1) { /* and everything, once it is known */
            assert_true(raw_send(&f->loop, fd, bytes, MORE - 1));
            UNTIL(f, side->messages == 2);
            assert_int_equal(MORE, side->last_size);
        } else {
            assert_int_equal(1009, raw_read_close(f, fd));
            UNTIL(f, side->closed);
            assert_int_equal(TANDEM_E_PROTOCOL, side->err);
            assert_non_null(strstr(side->text, "HELLO"));
            assert_int_equal(kind == 0, side->messages);
        }
        close(fd);
    }
    free(bytes);
}

static void little_is_taken_of_a_server_that_is_not_known(void **state)
{
    struct fixture *f = *state;
    struct side dialed = {.unknown = true};
    uint8_t *bytes = calloc(1, TD_OPENING_BYTES_MAX + 1), head[14];
    int listener = listen_raw(f), fd;

    dial(f, &dialed);
    fd = raw_accept(&f->loop, listener);
    raw_answer(f, fd, PROTOCOL);
    UNTIL(f, dialed.opened);
    assert_true(raw_send(&f->loop, fd, head,
                         frame_head(head, 0x82, TD_OPENING_BYTES_MAX + 1, false)));
    assert_true(raw_send(&f->loop, fd, bytes, TD_OPENING_BYTES_MAX + 1));
    free(bytes);
    assert_int_equal(1009, raw_read_close(f, fd));
    close(fd);
    close(listener);
    UNTIL(f, dialed.closed);
    assert_int_equal(TANDEM_E_PROTOCOL, dialed.err);
}

static void a_message_too_large_is_refused_by_the_server(void **state)
{
    struct fixture *f = *state;
    uint8_t *bytes = calloc(1, TD_MESSAGE_BYTES_MAX + 1);
    size_t size;
    uint8_t *whole;
    int fd;

    /* The largest passes … */
    fd = raw_client(f);
    whole = frame(0x82, bytes, TD_MESSAGE_BYTES_MAX, true, &size);
    assert_true(raw_send(&f->loop, fd, whole, size));
    free(whole);
    UNTIL(f, f->accepted[0]->messages == 1);
    /* … one byte more does not, in one frame … */
    whole = frame(0x82, bytes, TD_MESSAGE_BYTES_MAX + 1, true, &size);
    raw_send(&f->loop, fd, whole, size);
    free(whole);
    assert_int_equal(1009, raw_read_close(f, fd));
    close(fd);
    UNTIL(f, f->accepted[0]->closed);
    assert_int_equal(TANDEM_E_PROTOCOL, f->accepted[0]->err);
    assert_int_equal(1, f->accepted[0]->messages);
    /* … and not in many. */
    fd = raw_client(f);
    for (unsigned i = 0; i < 17; i++) {
        whole = frame(i ? 0x00 : 0x02, bytes, 65536, true, &size);
        if (!raw_send(&f->loop, fd, whole, size))
            i = 17;
        free(whole);
    }
    assert_int_equal(1009, raw_read_close(f, fd));
    close(fd);
    UNTIL(f, f->accepted[1]->closed);
    assert_int_equal(TANDEM_E_PROTOCOL, f->accepted[1]->err);
    assert_int_equal(0, f->accepted[1]->messages);
    free(bytes);
    assert_serves(f);
}

static void a_message_too_large_is_refused_by_the_client(void **state)
{
    struct fixture *f = *state;
    struct side dialed = {0};
    int listener = listen_raw(f), fd;
    uint8_t *bytes = calloc(1, TD_MESSAGE_BYTES_MAX + 1), *whole;
    size_t size;

    dial(f, &dialed);
    fd = raw_accept(&f->loop, listener);
    raw_answer(f, fd, PROTOCOL);
    UNTIL(f, dialed.opened);
    whole = frame(0x82, bytes, TD_MESSAGE_BYTES_MAX + 1, false, &size);
    raw_send(&f->loop, fd, whole, size);
    assert_int_equal(1009, raw_read_close(f, fd));
    close(fd);
    close(listener);
    UNTIL(f, dialed.closed);
    assert_int_equal(TANDEM_E_PROTOCOL, dialed.err);
    assert_int_equal(0, dialed.messages);
    free(whole);
    free(bytes);
}

/* A peer that refuses a message of ours tells us so. */
static void a_refusal_by_the_peer_is_a_protocol_error(void **state)
{
    struct fixture *f = *state;
    struct side dialed = {0};
    int listener = listen_raw(f), fd;
    static const uint8_t close_frame[] = "\x88\x09\x03\xf1too\nbig";

    dial(f, &dialed);
    fd = raw_accept(&f->loop, listener);
    raw_answer(f, fd, PROTOCOL);
    UNTIL(f, dialed.opened);
    assert_true(raw_send(&f->loop, fd, close_frame, sizeof(close_frame) - 1));
    assert_int_equal(1009, raw_read_close(f, fd));
    close(fd);
    close(listener);
    UNTIL(f, dialed.closed);
    assert_int_equal(TANDEM_E_PROTOCOL, dialed.err);
    assert_string_equal("closed by the peer (1009): too?big", dialed.text);
}

static void a_claim_is_not_believed(void **state)
{
    struct fixture *f = *state;
    uint8_t head[16] = {0};
    int fd = raw_client(f);
    size_t size = frame_head(head, 0x82, INT64_MAX, true);

    /* Nothing is said before a byte of the body has come. */
    assert_true(raw_send(&f->loop, fd, head, size + 1));
    assert_int_equal(1009, raw_read_close(f, fd));
    close(fd);
    UNTIL(f, f->accepted[0]->closed);
    assert_int_equal(TANDEM_E_PROTOCOL, f->accepted[0]->err);
    assert_serves(f);
}

static void frames_and_packets_may_be_split_anywhere(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[1000], stream[4000];
    size_t size = 0, piece;
    uint8_t *part;
    int fd;

    f->accepted_do = (struct side){.numbered = true};
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = byte_at(0, i);
    /* One message in frames of 0, 1, 9, 300 and 690 bytes, with a ping between them. */
    static const size_t cuts[] = {0, 0, 1, 10, 310, 1000};
    for (unsigned i = 0; i < 5; i++) {
        part = frame((uint8_t)((i ? 0x00 : 0x02) | (i == 4 ? 0x80 : 0)), bytes + cuts[i],
                     cuts[i + 1] - cuts[i], true, &piece);
        memcpy(stream + size, part, piece);
        size += piece;
        free(part);
        if (i == 2) {
            part = frame(0x89, (const uint8_t *)"beep", 4, true, &piece);
            memcpy(stream + size, part, piece);
            size += piece;
            free(part);
        }
    }
    /* Byte by byte … */
    fd = raw_client(f);
    for (size_t i = 0; i < size; i++) {
        assert_true(raw_send(&f->loop, fd, stream + i, 1));
        turn(&f->loop);
        assert_int_equal(i + 1 == size ? f->accepted[0]->messages : 0, f->accepted[0]->messages);
    }
    UNTIL(f, f->accepted[0]->messages == 1);
    assert_int_equal(1000, f->accepted[0]->last_size);
    uint8_t pong[6];
    assert_true(raw_read_all(&f->loop, fd, pong, 6));
    assert_memory_equal("\x8a\x04"
                        "beep",
                        pong, 6);
    /* … and all at once, twice. */
    f->accepted[0]->next_number = 0;
    assert_true(raw_send(&f->loop, fd, stream, size));
    UNTIL(f, f->accepted[0]->messages == 2);
    close(fd);
    UNTIL(f, f->accepted[0]->closed);
    assert_int_equal(TANDEM_E_UNREACHABLE, f->accepted[0]->err);
}

static void what_is_no_frame_is_a_protocol_error(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {
        {"\x83\x80\1\2\3\4", 6},                     /* an opcode that is none */
        {"\x80\x81\1\2\3\4\5", 7},                   /* continues nothing */
        {"\xc2\x81\1\2\3\4\5", 7},                   /* compressed */
        {"\x02\x81\1\2\3\4\5\x82\x81\1\2\3\4\5", 14}, /* a message within a message */
        {"\x09\x80\1\2\3\4", 6},                     /* half a ping */
        {"\x89\xfe\x01\x00\1\2\3\4", 8},             /* a long ping */
        {"\x82\xff\x80\0\0\0\0\0\0\0", 10},          /* a negative size */
        {"\x81\x81\1\2\3\4\5", 7},                   /* text */
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int fd = raw_client(f);

        assert_true(raw_send(&f->loop, fd, bad[i].bytes, bad[i].size));
        raw_read_close(f, fd);
        close(fd);
        UNTIL(f, f->accepted[i]->closed);
        if (f->accepted[i]->err != TANDEM_E_PROTOCOL)
            fail_msg("case %u: %s", i, f->accepted[i]->text);
        assert_int_equal(0, f->accepted[i]->messages);
    }
    assert_serves(f);
}

static void a_message_cut_off_is_never_delivered(void **state)
{
    struct fixture *f = *state;
    struct linger at_once = {.l_onoff = 1};
    uint8_t bytes[1000] = {0}, *whole;
    size_t size;

    for (unsigned i = 0; i < 2; i++) {
        int fd = raw_client(f);

        /* A whole one to know that the next has been read, then all but one byte of another. */
        whole = frame(0x82, bytes, sizeof(bytes), true, &size);
        assert_true(raw_send(&f->loop, fd, whole, size));
        assert_true(raw_send(&f->loop, fd, whole, size - 1));
        free(whole);
        UNTIL(f, f->accepted[i]->messages == 1);
        if (i)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        close(fd);
        UNTIL(f, f->accepted[i]->closed);
        assert_int_equal(TANDEM_E_UNREACHABLE, f->accepted[i]->err);
        assert_int_equal(1, f->accepted[i]->messages);
    }
}

/* ---- Flow ---- */

static void hold_stops_delivery_until_resumed(void **state)
{
    struct fixture *f = *state;
    struct side dialed = {
        .numbered = true, .hold_after_each = true, .to_send = 500, .send_size = 50};
    struct side *accepted;

    /* Many small messages arrive in one read; each side takes one a go. */
    f->accepted_do = (struct side){
        .numbered = true, .hold_after_each = true, .to_send = 500, .send_size = 3000};
    accepted = connect_pair(f, &dialed);
    for (unsigned i = 1; i <= 500; i++) {
        UNTIL(f, dialed.messages >= i && accepted->messages >= i);
        if (i % 100 == 0)
            for (unsigned idle = 0; idle < 10; idle++)
                td_host_poll(f->loop.host);
        assert_int_equal(i, dialed.messages);
        assert_int_equal(i, accepted->messages);
        td_connection_hold(dialed.connection, false);
        td_connection_hold(accepted->connection, false);
    }
    close_pair(f, &dialed, accepted);
}

static void a_held_connection_can_be_closed_by_either_side(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        struct side dialed = {0};
        struct side *accepted = (f->accepted_do = (struct side){0}, connect_pair(f, &dialed));

        td_connection_hold(dialed.connection, true);
        td_connection_hold(accepted->connection, true);
        td_connection_close(i ? accepted->connection : dialed.connection, TANDEM_OK, NULL);
        /* The closer hears again; the other one as soon as it resumes. */
        td_connection_hold(i ? dialed.connection : accepted->connection, false);
        UNTIL(f, dialed.closed && accepted->closed);
        assert_int_equal(TANDEM_OK, dialed.err);
        assert_int_equal(TANDEM_OK, accepted->err);
    }
}

/* Turn until nothing is pulled any more: the loop is idle while the peer holds. */
static void until_quiet(struct fixture *f, const struct side *side)
{
    uint64_t before;
    unsigned quiet = 0;

    while (quiet < 50) {
        before = side->bytes_pulled;
        assert_int_equal(TANDEM_OK, td_host_poll(f->loop.host));
        quiet = side->bytes_pulled == before ? quiet + 1 : 0;
    }
}

static void a_peer_that_does_not_read_is_not_written_to(void **state)
{
    enum { MESSAGE = 100000, COUNT = 300, BOUND = 16 << 20 };
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        struct side dialed = {.numbered = true};
        struct side *accepted;

        f->accepted_do = (struct side){.numbered = true};
        accepted = connect_pair(f, &dialed);
        struct side *sender = i ? accepted : &dialed, *receiver = i ? &dialed : accepted;
        td_connection_hold(receiver->connection, true);
        sender->to_send = COUNT;
        sender->send_size = MESSAGE;
        td_connection_want_write(sender->connection);
        until_quiet(f, sender);
        assert_true(sender->bytes_pulled > 0);
        if (sender->bytes_pulled > BOUND)
            fail_msg("%zu bytes were pulled", (size_t)sender->bytes_pulled);
        assert_int_equal(0, receiver->messages);
        td_connection_hold(receiver->connection, false);
        UNTIL(f, receiver->messages == COUNT);
        close_pair(f, &dialed, accepted);
    }
}

/* ---- Who is let in ---- */

static void requests_of_others_are_refused_and_counted(void **state)
{
    static const struct {
        const char *request;
        const char *status; /* "": whatever; NULL: hangs up without a word */
    } cases[] = {
        {HEAD("/tandem", "localhost", PROTOCOL, "Origin: http://localhost\r\n"), " 403 "},
        {HEAD("/tandem", "localhost", PROTOCOL, "Origin: null\r\n"), " 403 "},
        {HEAD("/tandem", "evil.example", PROTOCOL, ""), " 403 "},
        {HEAD("/tandem", "localhost:1x", PROTOCOL, ""), " 403 "},
        {HEAD("/tandem", "evil.example:7400", PROTOCOL, ""), " 403 "},
        {HEAD("/tandem", "localhost.evil.example", PROTOCOL, ""), " 403 "},
        {HEAD("/tandem", "10.1.2.3", PROTOCOL, ""), " 403 "},
        {HEAD("/tandem", "[::1", PROTOCOL, ""), " 403 "},
        {HEAD("/", "localhost", PROTOCOL, ""), " 404 "},
        {HEAD("/tandem/", "localhost", PROTOCOL, ""), " 404 "},
        {HEAD("/tandem?x=1", "localhost", PROTOCOL, ""), " 404 "},
        {HEAD("/other", "localhost", PROTOCOL, ""), " 404 "},
        {HEAD("/tandem", "localhost", "", ""), " 400 "},
        {HEAD("/tandem", "localhost", "Sec-WebSocket-Protocol: tandem.2\r\n", ""), " 400 "},
        {HEAD("/tandem", "localhost", "Sec-WebSocket-Protocol: tandem.10, chat\r\n", ""), " 400 "},
        {"GET /tandem HTTP/1.1\r\nHost: localhost\r\n\r\n", " 426 "},
        {"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n", " 426 "},
        {"POST /tandem HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", " 426 "},
        {"GET /tandem HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade, "
         "HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
         NULL},
        {"GET /tandem HTTP/1.1\r\nHost: localhost\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n",
         " 403 "},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", " 403 "},
        {"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", NULL},
        {"\x16\x03\x01\x02\x01\x01 no TLS here\r\n\r\n", ""},
        {"\xff\xfe\xfd\xfc garbage\r\n\r\n\x01\x02\x03\r\n\r\n", ""},
        {"\r\n\r\n\r\n\r\n", ""},
        {"", NULL},
    };
    struct fixture *f = *state;
    unsigned count = sizeof(cases) / sizeof(cases[0]);

    for (unsigned i = 0; i < count; i++) {
        char answer[2000] = "";
        size_t used = 0, got;
        int fd = raw_connect(f->port);

        assert_true(raw_send(&f->loop, fd, cases[i].request, strlen(cases[i].request)));
        if (!*cases[i].request)
            shutdown(fd, SHUT_WR);
        while ((got = raw_read(&f->loop, fd, answer + used, sizeof(answer) - 1 - used)) > 0)
            used += got;
        answer[used] = '\0';
        if (strstr(answer, " 101 ") ||
            (cases[i].status ? !strstr(answer, cases[i].status) : used > 0))
            fail_msg("case %u was answered: %s", i, answer);
        close(fd);
        UNTIL(f, td_network_rejected(f->server) == i + 1);
    }
    assert_int_equal(0, f->accepted_count);
    assert_serves(f);
    assert_int_equal(count, td_network_rejected(f->server));
}

static void every_name_of_the_listener_is_accepted(void **state)
{
    static const char *hosts[] = {"localhost", "LOCALHOST:%u", "127.0.0.1", "127.0.0.1:%u",
                                  "[::1]", "[::1]:%u", "localhost:1"};
    struct fixture *f = *state;

    for (unsigned i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        char host[64], request[1000], answer[1000];
        int fd = raw_connect(f->port);

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(host, sizeof(host), hosts[i], f->port);
#pragma GCC diagnostic pop
        snprintf(request, sizeof(request), HEAD("/tandem", "%s",
                 "Sec-WebSocket-Protocol: chat, tandem.1\r\n", ""), host);
        assert_true(raw_send(&f->loop, fd, request, strlen(request)));
        assert_true(raw_read_head(&f->loop, fd, answer, sizeof(answer)));
        assert_non_null(strstr(answer, " 101 "));
        assert_non_null(strstr(answer, PROTOCOL));
        assert_null(strstr(answer, "Extensions"));
        close(fd);
        UNTIL(f, f->accepted_count == i + 1 && f->accepted[i]->closed);
    }
}

static void a_wildcard_listener_is_any_address_but_no_foreign_name(void **state)
{
    static const char *requests[] = {HEAD("/tandem", "10.1.2.3", PROTOCOL, ""),
                                     HEAD("/tandem", "evil.example", PROTOCOL, "")};
    struct fixture *f = *state;

    assert_int_equal(TANDEM_OK, td_network_listen(f->server, "0.0.0.0", 0, on_accept, f, &f->port));
    for (unsigned i = 0; i < 2; i++) {
        char answer[1000];
        int fd = raw_connect(f->port);

        assert_true(raw_send(&f->loop, fd, requests[i], strlen(requests[i])));
        assert_true(raw_read_head(&f->loop, fd, answer, sizeof(answer)));
        assert_non_null(strstr(answer, i ? " 403 " : " 101 "));
        close(fd);
    }
    UNTIL(f, td_network_rejected(f->server) == 1 && f->accepted_count == 1);
}

static void connections_beyond_the_limit_are_refused(void **state)
{
    struct fixture *f = *state;
    struct rlimit limit;
    int *fds = calloc(TD_NETWORK_CONNECTIONS_MAX + 1, sizeof(int));

    /* Both ends of each live here. */
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < 2 * TD_NETWORK_CONNECTIONS_MAX + 100) {
        free(fds);
        skip();
    }
    for (unsigned i = 0; i < TD_NETWORK_CONNECTIONS_MAX; i++)
        fds[i] = raw_client(f);
    assert_int_equal(TD_NETWORK_CONNECTIONS_MAX, f->accepted_count);
    static const char head[] = HEAD("/tandem", "localhost", PROTOCOL, "");
    int fd = raw_connect(f->port);
    char byte;
    raw_send(&f->loop, fd, head, strlen(head));
    assert_int_equal(0, raw_read(&f->loop, fd, &byte, 1));
    close(fd);
    assert_int_equal(1, td_network_rejected(f->server));
    /* One goes, one may come. */
    close(fds[0]);
    UNTIL(f, f->accepted[0]->closed);
    fds[0] = raw_client(f);
    for (unsigned i = 0; i < TD_NETWORK_CONNECTIONS_MAX; i++)
        close(fds[i]);
    free(fds);
}

static void running_out_of_descriptors_costs_only_the_newcomers(void **state)
{
    enum { COUNT = 20 };
    struct fixture *f = *state;
    struct side open = {.numbered = true}, dialed = {0};
    struct side *accepted = connect_pair(f, &open);
    struct rlimit before, none;
    int fds[COUNT];
    char byte;

    for (unsigned i = 0; i < COUNT; i++)
        fds[i] = raw_connect(f->port);
    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = (rlim_t)fds[COUNT - 1] + 1;
    for (int i = 0; i < fds[COUNT - 1]; i++)
        if (fcntl(i, F_GETFD) < 0)
            dup2(fds[0], i); /* no gaps below */
    setrlimit(RLIMIT_NOFILE, &none);
    for (unsigned i = 1; i < COUNT; i++)
        assert_int_equal(0, raw_read(&f->loop, fds[i], &byte, 1));
    dial(f, &dialed);
    UNTIL(f, dialed.closed);
    assert_int_equal(TANDEM_E_UNREACHABLE, dialed.err);
    td_network *network;
    assert_int_equal(TANDEM_E_IO, td_network_open(f->loop.host, &network));
    /* What is open stays open. */
    accepted->to_send = 1;
    accepted->send_size = 1000;
    td_connection_want_write(accepted->connection);
    UNTIL(f, open.messages == 1);
    setrlimit(RLIMIT_NOFILE, &before);
    struct stat ours, other;
    fstat(fds[0], &ours);
    for (int i = 0; i < fds[COUNT - 1]; i++)
        if (i != fds[0] && fstat(i, &other) == 0 && other.st_ino == ours.st_ino)
            close(i);
    for (unsigned i = 0; i < COUNT; i++)
        close(fds[i]);
    close_pair(f, &open, accepted);
    assert_serves(f);
}

static void who_is_not_accepted_is_told(void **state)
{
    struct fixture *f = *state;
    struct side dialed = {0};

    f->refuse = TANDEM_E_LIMIT;
    dial(f, &dialed);
    UNTIL(f, dialed.closed);
    assert_int_equal(TANDEM_E_UNREACHABLE, dialed.err);
    f->refuse = TANDEM_OK;
    assert_serves(f);
}

/* ---- Listening and dialing ---- */

static void a_port_is_listened_on_once(void **state)
{
    struct fixture *f = *state;
    uint16_t port = 0;
    int taken = listen_raw(f);
    unsigned taken_port = (unsigned)atoi(strrchr(f->url, ':') + 1);

    assert_int_equal(TANDEM_E_ADDRESS_IN_USE,
                     td_network_listen(f->server, "127.0.0.1", f->port, on_accept, f, &port));
    assert_int_equal(TANDEM_E_ADDRESS_IN_USE,
                     td_network_listen(f->client, "127.0.0.1", f->port, on_accept, f, &port));
    assert_int_equal(TANDEM_E_ADDRESS_IN_USE,
                     td_network_listen(f->client, "0.0.0.0", f->port, on_accept, f, &port));
    assert_int_equal(TANDEM_E_ADDRESS_IN_USE,
                     td_network_listen(f->server, "127.0.0.1", (uint16_t)taken_port, on_accept, f,
                                       &port));
    assert_int_equal(TANDEM_E_INVALID,
                     td_network_listen(f->server, "192.0.2.1", 0, on_accept, f, &port));
    assert_int_equal(TANDEM_E_INVALID,
                     td_network_listen(f->server, "localhost", 0, on_accept, f, &port));
    assert_int_equal(TANDEM_E_INVALID, td_network_listen(f->server, "", 0, on_accept, f, &port));
    assert_int_equal(0, port);
    close(taken);
    snprintf(f->url, sizeof(f->url), "ws://127.0.0.1:%u", f->port);
    assert_serves(f);
}

static void a_second_address_serves_too(void **state)
{
    struct fixture *f = *state;
    uint16_t port;
    tandem_err err = td_network_listen(f->server, "::1", 0, on_accept, f, &port);

    if (err == TANDEM_E_INVALID)
        skip(); /* no IPv6 here */
    assert_int_equal(TANDEM_OK, err);
    assert_serves(f);
    snprintf(f->url, sizeof(f->url), "ws://[::1]:%u", port);
    assert_serves(f);
}

static void a_name_is_resolved(void **state)
{
    struct fixture *f = *state;

    snprintf(f->url, sizeof(f->url), "WS://localhost:%u/", f->port);
    assert_serves(f);
}

static void a_name_that_is_none_is_unreachable(void **state)
{
    struct fixture *f = *state;
    struct side dialed = {0};

    snprintf(f->url, sizeof(f->url), "ws://no-such-host.invalid");
    dial(f, &dialed);
    assert_int_equal(0, dialed.closed);
    UNTIL(f, dialed.closed);
    assert_int_equal(TANDEM_E_UNREACHABLE, dialed.err);
    assert_int_equal(0, dialed.opened);
}

static void nobody_there_is_unreachable(void **state)
{
    static const char *urls[] = {"ws://127.0.0.1:%u", "ws://[::1]:%u", "ws://localhost:%u"};
    struct fixture *f = *state;
    int fd = listen_raw(f);
    unsigned port = (unsigned)atoi(strrchr(f->url, ':') + 1);

    close(fd);
    for (unsigned i = 0; i < 3; i++) {
        struct side dialed = {0};

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(f->url, sizeof(f->url), urls[i], port);
#pragma GCC diagnostic pop
        dial(f, &dialed);
        assert_int_equal(0, dialed.closed);
        UNTIL(f, dialed.closed);
        assert_int_equal(TANDEM_E_UNREACHABLE, dialed.err);
        assert_non_null(strstr(dialed.text, strrchr(f->url, '/') + 1));
        assert_int_equal(0, dialed.opened);
    }
}

/* Where there is no way to an address, connect() fails at once; to one of a group there is none. */
static void an_address_without_a_way_to_it_is_unreachable(void **state)
{
    struct fixture *f = *state;

    snprintf(f->url, sizeof(f->url), "ws://224.0.0.1:9");
    for (unsigned i = 0; i < 3; i++) {
        struct side dialed = {0};

        dial(f, &dialed);
        UNTIL(f, dialed.closed);
        assert_int_equal(TANDEM_E_UNREACHABLE, dialed.err);
    }
    /* libwebsockets leaves a handle on the loop each time; close_fixture() finds none. */
}

static void a_proxy_of_the_environment_is_not_used(void **state)
{
    struct fixture *f;

    setenv("http_proxy", "http://127.0.0.1:1", 1);
    assert_int_equal(0, open_fixture(state));
    f = *state;
    assert_serves(f);
    assert_int_equal(0, close_fixture(state));
    unsetenv("http_proxy");
}

static void a_server_of_another_kind_is_a_protocol_error(void **state)
{
    static const struct {
        const char *answer; /* NULL: a right one without a subprotocol */
        tandem_err err;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", TANDEM_E_PROTOCOL},
        {"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", TANDEM_E_PROTOCOL},
        {"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
         TANDEM_E_PROTOCOL},
        {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Accept: AAAA\r\n\r\n",
         TANDEM_E_PROTOCOL},
        {NULL, TANDEM_E_PROTOCOL},
        {"", TANDEM_E_UNREACHABLE},
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct side dialed = {0};
        int listener = listen_raw(f), fd;
        char head[2000];

        dial(f, &dialed);
        fd = raw_accept(&f->loop, listener);
        if (cases[i].answer) {
            assert_true(raw_read_head(&f->loop, fd, head, sizeof(head)));
            raw_send(&f->loop, fd, cases[i].answer, strlen(cases[i].answer));
        } else {
            raw_answer(f, fd, "");
        }
        if (cases[i].answer && !*cases[i].answer)
            close(fd);
        UNTIL(f, dialed.closed);
        if (cases[i].err != dialed.err)
            fail_msg("case %u: %s: %s", i, tandem_err_name(dialed.err), dialed.text);
        assert_int_equal(0, dialed.opened);
        if (!cases[i].answer || *cases[i].answer)
            close(fd);
        close(listener);
    }
}

static void urls_are_checked(void **state)
{
    static const struct {
        const char *url;
        tandem_err err;
    } cases[] = {
        {"ws://localhost", TANDEM_OK},
        {"ws://localhost/", TANDEM_OK},
        {"ws://localhost/tandem", TANDEM_OK},
        {"ws://localhost:7400/tandem", TANDEM_OK},
        {"ws://localhost:80", TANDEM_OK},
        {"ws://a-b.c_d.example:65535", TANDEM_OK},
        {"WS://LOCALHOST:1", TANDEM_OK},
        {"ws://127.0.0.1:7400", TANDEM_OK},
        {"ws://[::1]", TANDEM_OK},
        {"ws://[2001:db8::7]:7400/tandem", TANDEM_OK},
        {"wss://localhost", TANDEM_E_UNSUPPORTED},
        {"WSS://localhost", TANDEM_E_UNSUPPORTED},
        {"http://localhost/tandem", TANDEM_E_UNSUPPORTED},
        {"https://localhost", TANDEM_E_UNSUPPORTED},
        {"", TANDEM_E_INVALID},
        {"localhost", TANDEM_E_INVALID},
        {"localhost:7400", TANDEM_E_INVALID},
        {"ws:localhost", TANDEM_E_INVALID},
        {"ws:/localhost", TANDEM_E_INVALID},
        {"ws://", TANDEM_E_INVALID},
        {"ws:///tandem", TANDEM_E_INVALID},
        {"ws://:7400", TANDEM_E_INVALID},
        {"ftp://localhost", TANDEM_E_INVALID},
        {"ws://localhost:", TANDEM_E_INVALID},
        {"ws://localhost:0", TANDEM_E_INVALID},
        {"ws://localhost:65536", TANDEM_E_INVALID},
        {"ws://localhost:4294967376", TANDEM_E_INVALID},
        {"ws://localhost:99999999999999999999", TANDEM_E_INVALID},
        {"ws://localhost:+80", TANDEM_E_INVALID},
        {"ws://localhost:080", TANDEM_E_INVALID},
        {"ws://localhost:80x", TANDEM_E_INVALID},
        {"ws://localhost:-1", TANDEM_E_INVALID},
        {"ws://localhost:7400/other", TANDEM_E_INVALID},
        {"ws://localhost/tandem/", TANDEM_E_INVALID},
        {"ws://localhost//tandem", TANDEM_E_INVALID},
        {"ws://localhost/tandem?x", TANDEM_E_INVALID},
        {"ws://localhost?x", TANDEM_E_INVALID},
        {"ws://localhost#x", TANDEM_E_INVALID},
        {"ws://user@localhost", TANDEM_E_INVALID},
        {"ws://user:secret@localhost:7400", TANDEM_E_INVALID},
        {"ws://local host", TANDEM_E_INVALID},
        {"ws://localhost\n", TANDEM_E_INVALID},
        {" ws://localhost", TANDEM_E_INVALID},
        {"ws://lo\tcalhost", TANDEM_E_INVALID},
        {"ws://+/tmp/socket", TANDEM_E_INVALID},
        {"ws://::1", TANDEM_E_INVALID},
        {"ws://[::1", TANDEM_E_INVALID},
        {"ws://[::1]x:7400", TANDEM_E_INVALID},
        {"ws://[::1]]:7400", TANDEM_E_INVALID},
        {"ws://[localhost]", TANDEM_E_INVALID},
        {"ws://[127.0.0.1]", TANDEM_E_INVALID},
        {"ws://[fe80::1%lo]", TANDEM_E_INVALID},
        {"ws://[]", TANDEM_E_INVALID},
        {"ws://a://b", TANDEM_E_INVALID},
        {"x://ws://localhost", TANDEM_E_INVALID},
    };
    struct fixture *f = *state;
    char longest[1000] = "ws://";
    struct side dialed = {0};

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (td_url_check(cases[i].url) != cases[i].err)
            fail_msg("\"%s\": %s", cases[i].url, tandem_err_name(td_url_check(cases[i].url)));
    memset(longest + 5, 'a', 253);
    strcpy(longest + 5 + 253, ":65535/tandem");
    assert_int_equal(TANDEM_OK, td_url_check(longest));
    memset(longest + 5, 'a', 254);
    strcpy(longest + 5 + 254, ":65535/tandem");
    assert_int_equal(TANDEM_E_INVALID, td_url_check(longest));
    memset(longest + 5, 'a', sizeof(longest) - 6);
    assert_int_equal(TANDEM_E_INVALID, td_url_check(longest));
    assert_int_equal(TANDEM_E_UNSUPPORTED,
                     td_network_dial(f->client, "wss://x", &events, &dialed, &dialed.connection));
    assert_int_equal(TANDEM_E_INVALID,
                     td_network_dial(f->client, "ws://x/y", &events, &dialed, &dialed.connection));
    assert_null(dialed.connection);
}

/* ---- Closing ---- */

static void either_side_may_close_within_any_callback(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 6; i++) {
        struct side closer = {.close_in_opened = i % 3 == 0,
                              .close_in_message = i % 3 == 1,
                              .close_in_writable = i % 3 == 2};
        struct side other = {.to_send = 10, .send_size = 10};
        struct side dialed = i < 3 ? closer : other;
        tandem_err expected = i % 3 == 2 ? TANDEM_E_NOMEM : TANDEM_OK;
        struct side *accepted;

        f->accepted_do = i < 3 ? other : closer;
        dial(f, &dialed);
        UNTIL(f, dialed.closed && f->accepted_count == i + 1 && f->accepted[i]->closed);
        accepted = f->accepted[i];
        assert_int_equal(expected, (i < 3 ? &dialed : accepted)->err);
        assert_int_equal(expected ? TANDEM_E_UNREACHABLE : TANDEM_OK,
                         (i < 3 ? accepted : &dialed)->err);
        if (expected)
            assert_non_null(strstr((i < 3 ? accepted : &dialed)->text, "(1011): no more"));
        if (i % 3 == 1)
            assert_int_equal(1, (i < 3 ? &dialed : accepted)->messages);
    }
    assert_serves(f);
}

static void what_was_written_arrives_before_the_close(void **state)
{
    struct fixture *f = *state;
    struct side dialed = {.to_send = 1, .send_size = TD_MESSAGE_BYTES_MAX};
    struct side *accepted;

    f->accepted_do = (struct side){.numbered = true};
    accepted = connect_pair(f, &dialed);
    UNTIL(f, dialed.bytes_pulled);
    td_connection_close(dialed.connection, TANDEM_OK, "and good night");
    UNTIL(f, dialed.closed && accepted->closed);
    assert_int_equal(1, accepted->messages);
    assert_int_equal(TANDEM_OK, accepted->err);
    assert_string_equal("closed by the peer (1000): and good night", accepted->text);
}

static void closing_waits_for_the_answer(void **state)
{
    static const uint8_t answer[] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8};
    struct fixture *f = *state;
    int fd = raw_client(f);

    td_connection_close(f->accepted[0]->connection, TANDEM_OK, NULL);
    assert_int_equal(1000, raw_read_close(f, fd));
    for (unsigned i = 0; i < 10; i++)
        td_host_poll(f->loop.host);
    assert_int_equal(0, f->accepted[0]->closed);
    assert_true(raw_send(&f->loop, fd, answer, sizeof(answer)));
    UNTIL(f, f->accepted[0]->closed);
    close(fd);
}

static void closing_never_calls_back_at_once_and_may_be_repeated(void **state)
{
    struct fixture *f = *state;
    struct side dialed = {0}, resolving = {0};
    char text[300];

    /* While connecting … */
    dial(f, &dialed);
    td_connection_close(dialed.connection, TANDEM_E_TIMEOUT, "changed my mind");
    td_connection_close(dialed.connection, TANDEM_OK, NULL);
    assert_int_equal(0, dialed.closed);
    UNTIL(f, dialed.closed);
    assert_int_equal(TANDEM_E_TIMEOUT, dialed.err);
    assert_string_equal("changed my mind", dialed.text);
    assert_int_equal(0, dialed.opened);
    /* … while resolving … */
    snprintf(f->url, sizeof(f->url), "ws://localhost:%u", f->port);
    dial(f, &resolving);
    td_connection_close(resolving.connection, TANDEM_OK, NULL);
    td_connection_want_write(resolving.connection);
    td_connection_hold(resolving.connection, true);
    assert_int_equal(0, resolving.closed);
    UNTIL(f, resolving.closed);
    assert_int_equal(TANDEM_OK, resolving.err);
    snprintf(f->url, sizeof(f->url), "ws://127.0.0.1:%u", f->port);
    /* … and when open, with more text than a close frame holds. */
    struct side open = {0};
    struct side *accepted = connect_pair(f, &open);
    memset(text, 'a', sizeof(text));
    memcpy(text + 121, "\xe2\x82\xac", 3);
    text[299] = '\0';
    td_connection_close(open.connection, TANDEM_E_PROTOCOL, text);
    td_connection_close(open.connection, TANDEM_OK, NULL);
    td_connection_want_write(open.connection);
    td_connection_hold(open.connection, true);
    assert_int_equal(0, open.closed);
    UNTIL(f, open.closed && accepted->closed);
    assert_int_equal(TANDEM_E_PROTOCOL, open.err);
    assert_int_equal(TANDEM_E_PROTOCOL, accepted->err);
    assert_int_equal(strlen("closed by the peer (1002): ") + 121, strlen(accepted->text));
}

static void close_before_poll(uv_prepare_t *prepare)
{
    struct side *side = prepare->data;

    uv_close((uv_handle_t *)prepare, NULL);
    td_connection_close(side->connection, TANDEM_OK, NULL);
}

/* … in the turn that brings the other side's next step, and well before a deadline would do it. */
static void closing_in_the_middle_of_a_handshake_ends_it(void **state)
{
    struct fixture *f = *state;
    int listener = listen_raw(f), before_request, before_answer;
    struct side first = {0}, second = {0};
    uv_prepare_t prepare = {.data = &second};

    uv_timer_start(&f->loop.deadline, on_deadline, TD_NETWORK_DIAL_S * 1000 / 2, 0);
    dial(f, &first);
    td_connection_close(first.connection, TANDEM_OK, NULL);
    before_request = raw_accept(&f->loop, listener);
    UNTIL(f, first.closed);
    dial(f, &second);
    before_answer = raw_accept(&f->loop, listener);
    raw_answer(f, before_answer, PROTOCOL "\r\n");
    uv_prepare_init(td_host_loop(f->loop.host), &prepare);
    uv_prepare_start(&prepare, close_before_poll);
    UNTIL(f, second.closed);
    assert_int_equal(0, first.opened + second.opened);
    close(before_request);
    close(before_answer);
    close(listener);
}

static void two_hundred_connections_come_and_go(void **state)
{
    enum { COUNT = 200 };
    struct fixture *f = *state;
    static struct side dialed[COUNT];

    for (unsigned round = 0; round < 3; round++) {
        memset(dialed, 0, sizeof(dialed));
        f->accepted_do = (struct side){.echo = true};
        for (unsigned i = 0; i < COUNT; i++) {
            dialed[i] = (struct side){.to_send = 1, .send_size = i * 37, .numbered = true};
            dial(f, &dialed[i]);
        }
        for (unsigned i = 0; i < COUNT; i++)
            UNTIL(f, dialed[i].messages == 1);
        for (unsigned i = 0; i < COUNT; i++)
            td_connection_close(dialed[i].connection, TANDEM_OK, NULL);
        for (unsigned i = 0; i < COUNT; i++)
            UNTIL(f, dialed[i].closed);
    }
    UNTIL(f, f->accepted[3 * COUNT - 1]->closed);
    assert_int_equal(3 * COUNT, f->accepted_count);
}

static void freeing_closes_whatever_is_open(void **state)
{
    struct fixture *f = *state;
    struct side open[5] = {{0}}, sending = {.to_send = 1000, .send_size = 100000};
    struct side dialing = {0}, resolving = {0};
    struct side *held;
    int raw = raw_connect(f->port), hanging = raw_client(f);

    for (unsigned i = 0; i < 5; i++)
        connect_pair(f, &open[i]);
    held = connect_pair(f, &sending);
    td_connection_hold(held->connection, true);
    until_quiet(f, &sending);
    td_connection_close(open[0].connection, TANDEM_E_PROTOCOL, "on its way");
    dial(f, &dialing);
    snprintf(f->url, sizeof(f->url), "ws://localhost:%u", f->port);
    dial(f, &resolving);
    td_host_stop(f->loop.host);
    free_networks(f);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(1, open[i].closed);
    assert_int_equal(TANDEM_OK, open[1].err);
    assert_int_equal(1, sending.closed);
    assert_int_equal(1, dialing.closed);
    assert_int_equal(1, resolving.closed);
    for (unsigned i = 0; i < f->accepted_count; i++)
        assert_int_equal(1, f->accepted[i]->closed);
    close(raw);
    close(hanging);
    for (unsigned i = 0; i < f->accepted_count; i++)
        free(f->accepted[i]);
    /* The host is stopped: what is left on the loop is ours. */
    loop_free(&f->loop);
    free(f);
}

static void free_inside(uv_timer_t *timer)
{
    struct fixture *f = timer->data; /* of its loop, which is first */

    free_networks(f);
    uv_timer_stop(timer);
}

static void freeing_within_another_callback_of_the_loop_works(void **state)
{
    struct fixture *f = *state;
    struct side open[3] = {{0}};

    for (unsigned i = 0; i < 3; i++)
        connect_pair(f, &open[i]);
    uv_timer_start(&f->loop.deadline, free_inside, 0, 0);
    UNTIL(f, !f->server);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(1, open[i].closed);
}

static void free_after_poll(uv_check_t *check)
{
    struct fixture *f = check->data;

    uv_close((uv_handle_t *)check, NULL); /* first: freeing turns the loop */
    td_network_free(f->server);
    f->server = NULL;
}

/* libuv closes the other way round than it was asked: the listener goes before what it accepted. */
static void freeing_in_the_turn_that_accepts_works(void **state)
{
    struct fixture *f = *state;
    uv_check_t check = {.data = f};
    int raw = raw_connect(f->port);

    uv_check_init(td_host_loop(f->loop.host), &check);
    uv_check_start(&check, free_after_poll);
    UNTIL(f, !f->server);
    close(raw);
}

static void networks_come_and_go_on_one_loop(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 20; i++) {
        td_network *network;
        uint16_t port;

        assert_int_equal(TANDEM_OK, td_network_open(f->loop.host, &network));
        if (i % 2)
            assert_int_equal(TANDEM_OK,
                             td_network_listen(network, "127.0.0.1", 0, on_accept, f, &port));
        if (i % 3)
            turn(&f->loop);
        td_network_free(network);
    }
    assert_serves(f);
}

#define NETWORK_TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        NETWORK_TEST(messages_of_any_size_go_there_and_back),
        NETWORK_TEST(many_messages_keep_their_order_both_ways),
        NETWORK_TEST(little_is_taken_of_who_is_not_known),
        NETWORK_TEST(little_is_taken_of_a_server_that_is_not_known),
        NETWORK_TEST(a_message_too_large_is_refused_by_the_server),
        NETWORK_TEST(a_message_too_large_is_refused_by_the_client),
        NETWORK_TEST(a_refusal_by_the_peer_is_a_protocol_error),
        NETWORK_TEST(a_claim_is_not_believed),
        NETWORK_TEST(frames_and_packets_may_be_split_anywhere),
        NETWORK_TEST(what_is_no_frame_is_a_protocol_error),
        NETWORK_TEST(a_message_cut_off_is_never_delivered),
        NETWORK_TEST(hold_stops_delivery_until_resumed),
        NETWORK_TEST(a_held_connection_can_be_closed_by_either_side),
        NETWORK_TEST(a_peer_that_does_not_read_is_not_written_to),
        NETWORK_TEST(requests_of_others_are_refused_and_counted),
        NETWORK_TEST(every_name_of_the_listener_is_accepted),
        NETWORK_TEST(a_wildcard_listener_is_any_address_but_no_foreign_name),
        NETWORK_TEST(connections_beyond_the_limit_are_refused),
        NETWORK_TEST(running_out_of_descriptors_costs_only_the_newcomers),
        NETWORK_TEST(who_is_not_accepted_is_told),
        NETWORK_TEST(a_port_is_listened_on_once),
        NETWORK_TEST(a_second_address_serves_too),
        NETWORK_TEST(a_name_is_resolved),
        NETWORK_TEST(a_name_that_is_none_is_unreachable),
        NETWORK_TEST(nobody_there_is_unreachable),
        NETWORK_TEST(an_address_without_a_way_to_it_is_unreachable),
        cmocka_unit_test(a_proxy_of_the_environment_is_not_used),
        NETWORK_TEST(a_server_of_another_kind_is_a_protocol_error),
        NETWORK_TEST(urls_are_checked),
        NETWORK_TEST(either_side_may_close_within_any_callback),
        NETWORK_TEST(what_was_written_arrives_before_the_close),
        NETWORK_TEST(closing_waits_for_the_answer),
        NETWORK_TEST(closing_never_calls_back_at_once_and_may_be_repeated),
        NETWORK_TEST(closing_in_the_middle_of_a_handshake_ends_it),
        NETWORK_TEST(two_hundred_connections_come_and_go),
        cmocka_unit_test_setup(freeing_closes_whatever_is_open, open_fixture),
        NETWORK_TEST(freeing_within_another_callback_of_the_loop_works),
        NETWORK_TEST(freeing_in_the_turn_that_accepts_works),
        NETWORK_TEST(networks_come_and_go_on_one_loop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
