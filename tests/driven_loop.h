/*
 * A loop that is driven by hand, and raw sockets on loopback beside it: what the tests of the
 * network have in common. A fixture embeds a struct loop as its member `loop`. Every wait turns the
 * loop, and fails the test once the deadline has passed.
 *
 * Include after cmocka.h and what cmocka.h asks for.
 */
#ifndef TANDEM_TESTS_DRIVEN_LOOP_H
#define TANDEM_TESTS_DRIVEN_LOOP_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "reactor/runtime.h"

enum { DEADLINE_MS = 60 * 1000 };

struct loop {
    td_runtime *runtime;
    td_host *host;
    uv_timer_t deadline;
    bool deadline_closed, expired;
    unsigned errors; /* logged */
};

/* ---- The loop ---- */

static inline void on_deadline(uv_timer_t *timer)
{
    ((struct loop *)timer->data)->expired = true;
}

static inline void on_deadline_closed(uv_handle_t *handle)
{
    ((struct loop *)handle->data)->deadline_closed = true;
}

/* A bug that the library tells in its log; what is left on a loop is one. */
static inline void on_error(void *context, tandem_log_level level, const char *scope,
                            const char *text)
{
    struct loop *loop = context;

    assert_int_equal(TANDEM_LOG_ERROR, level);
    print_message("%s: %s\n", scope, text);
    loop->errors++;
}

static inline void loop_open(struct loop *loop)
{
    assert_int_equal(TANDEM_OK,
                     td_threads_open(true, on_error, loop, TANDEM_LOG_ERROR, &loop->runtime));
    assert_int_equal(TANDEM_OK, td_host_open(loop->runtime, TD_HOST_LOOP, "loop", &loop->host));
    uv_timer_init(td_host_loop(loop->host), &loop->deadline);
    loop->deadline.data = loop;
    uv_timer_start(&loop->deadline, on_deadline, DEADLINE_MS, 0);
}

/* What stands on it is gone. A host may be stopped already. */
static inline void loop_free(struct loop *loop)
{
    uv_close((uv_handle_t *)&loop->deadline, on_deadline_closed);
    while (!loop->deadline_closed)
        uv_run(td_host_loop(loop->host), UV_RUN_NOWAIT);
    td_host_free(loop->host);
    td_runtime_free(loop->runtime);
    assert_int_equal(0, loop->errors);
}

static inline void turn_with(struct loop *loop, int fd, short for_what)
{
    struct pollfd fds[] = {{.fd = td_host_fd(loop->host), .events = POLLIN},
                           {.fd = fd, .events = for_what}};

    poll(fds, 2, td_host_timeout_ms(loop->host));
    assert_int_equal(TANDEM_OK, td_host_poll(loop->host));
    if (loop->expired)
        fail_msg("the deadline has passed");
}

static inline void turn(struct loop *loop)
{
    turn_with(loop, -1, 0);
}

#define UNTIL(f, condition)                                                                        \
    do {                                                                                           \
        while (!(condition))                                                                       \
            turn(&(f)->loop);                                                                      \
    } while (0)

/* Whatever can happen without anybody's doing has happened. */
static inline void let_rest(struct loop *loop)
{
    for (int i = 0; i < 50; i++)
        assert_int_equal(TANDEM_OK, td_host_poll(loop->host));
}

/* ---- Raw sockets ---- */

static inline void raw_nodelay(int fd)
{
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* Let little lie between both sides of a socket, or of those that a listener accepts: nearly
 * nothing is taken off a sender's hands that is not read. Before it is connected. */
static inline void raw_narrow(int fd)
{
    int bytes = 4096, segment = 536;

    assert_int_equal(0, setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)));
    assert_int_equal(0, setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof(segment)));
}

static inline int raw_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    return fd;
}

static inline void raw_connect_to(int fd, uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(0, connect(fd, (struct sockaddr *)&at, sizeof(at)));
    raw_nodelay(fd);
}

static inline int raw_connect(uint16_t port)
{
    int fd = raw_socket();

    raw_connect_to(fd, port);
    return fd;
}

static inline int raw_listen(uint16_t *port_out)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof(at);
    int fd = raw_socket();

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(0, bind(fd, (struct sockaddr *)&at, sizeof(at)));
    assert_int_equal(0, listen(fd, 8));
    assert_int_equal(0, getsockname(fd, (struct sockaddr *)&at, &size));
    *port_out = ntohs(at.sin_port);
    return fd;
}

static inline int raw_accept(struct loop *loop, int listener)
{
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    int fd;

    while (poll(&ready, 1, 0) != 1)
        turn_with(loop, listener, POLLIN);
    fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    raw_nodelay(fd);
    return fd;
}

/* Send all, or until the other side has closed: false. */
static inline bool raw_send(struct loop *loop, int fd, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;

    while (size) {
        ssize_t sent = send(fd, at, size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent > 0) {
            at += sent;
            size -= (size_t)sent;
        } else if (errno == EAGAIN) {
            turn_with(loop, fd, POLLOUT);
        } else {
            return false;
        }
    }
    return true;
}

/* 1 or more bytes, or 0 once the other side has closed. */
static inline size_t raw_read(struct loop *loop, int fd, void *bytes, size_t size)
{
    for (;;) {
        ssize_t got = recv(fd, bytes, size, MSG_DONTWAIT);

        if (got >= 0)
            return (size_t)got;
        if (errno != EAGAIN)
            return 0;
        turn_with(loop, fd, POLLIN);
    }
}

/* Is there nothing to read, though all that can happen has happened? */
static inline bool is_silent(struct loop *loop, int fd)
{
    char byte;

    let_rest(loop);
    return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

/* Read the head of a request or an answer into text. False: the other side hung up before. */
static inline bool raw_read_head(struct loop *loop, int fd, char *text, size_t size)
{
    size_t used = 0;

    memset(text, 0, size);
    while (!strstr(text, "\r\n\r\n")) {
        assert_true(used + 1 < size);
        if (!raw_read(loop, fd, text + used, 1))
            return false;
        used++;
    }
    return true;
}

#endif
