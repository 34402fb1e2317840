#include "tools/bench/mute.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "reactor/clock.h"
#include "tools/bench/process.h"
#include "transport/wire.h"

enum { HEARTBEAT_US = 5 * 1000 * 1000, ANSWER_S = 10, MASKED = 0x80, FINAL_BINARY = 0x82 };

struct bench_mute {
    int fd;
    uint64_t number;   /* of its last message */
    uint64_t said_us;
    bool lost;
};

static bool send_all(bench_mute *mute, const void *bytes, size_t size)
{
    const char *at = bytes;

    while (size) {
        ssize_t sent = send(mute->fd, at, size, MSG_NOSIGNAL);

        if (sent <= 0 && errno != EINTR)
            return false;
        if (sent > 0) {
            at += sent;
            size -= (size_t)sent;
        }
    }
    return true;
}

/* One message in one frame. Its mask is zeros, with which bytes stay as they are. */
static bool send_message(bench_mute *mute, const tandem_writer *message)
{
    uint8_t head[8] = {FINAL_BINARY, MASKED | 126, (uint8_t)(message->size >> 8),
                       (uint8_t)message->size};

    return tandem_writer_err((tandem_writer *)message) == TANDEM_OK &&
           send_all(mute, head, sizeof(head)) && send_all(mute, message->bytes, message->size);
}

static bool connect_to(bench_mute *mute, const char *url)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    unsigned port;

    if (sscanf(url, "ws://127.0.0.1:%u/", &port) != 1)
        return false;
    at.sin_port = htons((uint16_t)port);
    mute->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return mute->fd >= 0 && connect(mute->fd, (struct sockaddr *)&at, sizeof(at)) == 0;
}

/* The upgrade; of the answer only that it is one. It ends where the node's first frame may begin. */
static bool upgrade(bench_mute *mute)
{
    static const char request[] =
        "GET /tandem HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: tandem.1\r\n\r\n";
    struct timeval patience = {.tv_sec = ANSWER_S};
    char answer[1024] = "";
    size_t size = 0;

    setsockopt(mute->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (!send_all(mute, request, sizeof(request) - 1))
        return false;
    while (size + 1 < sizeof(answer) && !strstr(answer, "\r\n\r\n")) {
        if (recv(mute->fd, answer + size, 1, 0) != 1)
            return false;
        answer[++size] = 0;
    }
    return !strncmp(answer, "HTTP/1.1 101 ", strlen("HTTP/1.1 101 "));
}

static uint64_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return td_hlc_of_ms((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

static bool say_hello(bench_mute *mute)
{
    td_wire_hello hello = {
        .major = TD_WIRE_MAJOR,
        .minor = TD_WIRE_MINOR,
        .clock = clock_now(),
        .message_bytes = TD_MESSAGE_BYTES_MAX,
        .window_bytes = 8 * 1024 * 1024,
        .window_jobs = 1024,
        .agent = tandem_slice_text("a peer that reads nothing"),
    };
    uint64_t now_us = bench_now_us();
    tandem_writer out;
    bool said;

    /* Nobody else of the bench is called so. */
    memset(hello.reactor, 0x55, sizeof(hello.reactor));
    memset(hello.origin, 0xaa, sizeof(hello.origin));
    memcpy(hello.reactor, &now_us, sizeof(now_us));
    memcpy(hello.origin, &now_us, sizeof(now_us));
    tandem_writer_init(&out);
    td_wire_write_hello(&out, ++mute->number, &hello, NULL, 0);
    said = send_message(mute, &out);
    tandem_writer_release(&out);
    return said;
}

/* A HAVE without entries: of digests, the list of which is empty and complete; of vectors, nothing new,
 * a heartbeat. */
static bool say_nothing(bench_mute *mute, td_have_level level)
{
    tandem_writer out;
    size_t count_at, more_at;
    bool said;

    tandem_writer_init(&out);
    count_at = td_wire_begin_have(&out, ++mute->number, clock_now(), 0, level, &more_at);
    td_wire_patch_count(&out, count_at, 0);
    said = send_message(mute, &out);
    tandem_writer_release(&out);
    mute->said_us = bench_now_us();
    return said;
}

bench_mute *bench_mute_open(const char *url)
{
    bench_mute *mute = calloc(1, sizeof(*mute));

    if (!mute)
        return NULL;
    mute->fd = -1;
    if (connect_to(mute, url) && upgrade(mute) && say_hello(mute) &&
        say_nothing(mute, TD_HAVE_DIGESTS))
        return mute;
    bench_mute_free(mute);
    return NULL;
}

void bench_mute_free(bench_mute *mute)
{
    if (!mute)
        return;
    if (mute->fd >= 0)
        close(mute->fd);
    free(mute);
}

void bench_mute_live(bench_mute *mute)
{
    if (!mute->lost && bench_now_us() >= mute->said_us + HEARTBEAT_US)
        mute->lost = !say_nothing(mute, TD_HAVE_VECTORS);
}

bool bench_mute_is_served(const bench_mute *mute)
{
    int waiting = 0;

    /* Far more than HELLO and digests lies there. */
    return !mute->lost && ioctl(mute->fd, FIONREAD, &waiting) == 0 && waiting > 16 * 1024;
}
