#include "tools/bench/slow_link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/bench/process.h"
#include "tools/bench/worker.h"
#include "tools/tandem/command.h"

enum {
    CHUNK = 16 * 1024,
    CHUNKS = 64, /* on the way, each way: what a router in between would hold, a megabyte */
    LINKS = 4,   /* connections, one after the other or beside each other */
};

struct chunk {
    uint64_t due_us; /* to come out */
    size_t size, sent;
    uint8_t bytes[CHUNK];
};

/* One way of one connection: a ring of chunks. */
struct way {
    int from, to;
    bool ended; /* from said so */
    uint64_t head, tail;
    uint64_t free_us; /* when the line has taken in what it was given */
    unsigned head_end; /* how much of the blank line behind its head has passed */
    struct chunk chunks[CHUNKS];
};

struct connection {
    bool open;
    struct way ways[2];
};

/* Shared with the bench. */
struct counts {
    _Atomic uint64_t bytes, head_bytes, opened_us;
};

struct bench_slow_link {
    bench_worker *worker;
    int listener;
    struct sockaddr_in target;
    char url[160];
    uint64_t delay_us, bytes_per_second;
    struct connection connections[LINKS];
};

/* ---- One way ---- */

static bool has_room(const struct way *way)
{
    return !way->ended && way->tail - way->head < CHUNKS;
}

static void take_in(struct way *way, const bench_slow_link *link)
{
    struct chunk *chunk = &way->chunks[way->tail % CHUNKS];
    ssize_t got = recv(way->from, chunk->bytes, sizeof(chunk->bytes), MSG_DONTWAIT);
    uint64_t now_us = bench_now_us();

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        way->ended = true;
        return;
    }
    if (way->free_us < now_us)
        way->free_us = now_us;
    if (link->bytes_per_second)
        way->free_us += (uint64_t)got * 1000000 / link->bytes_per_second;
    chunk->due_us = way->free_us + link->delay_us;
    chunk->size = (size_t)got;
    chunk->sent = 0;
    way->tail++;
}

static void count(struct way *way, const uint8_t *bytes, size_t size, struct counts *counts)
{
    static const char blank_line[] = "\r\n\r\n";
    enum { BLANK_LINE = sizeof(blank_line) - 1 };
    size_t head = 0;

    for (; way->head_end < BLANK_LINE && head < size; head++) {
        if (bytes[head] != blank_line[way->head_end])
            way->head_end = 0;
        way->head_end += bytes[head] == blank_line[way->head_end];
    }
    atomic_fetch_add(&counts->bytes, size);
    atomic_fetch_add(&counts->head_bytes, head);
}

/* False: the other end is gone. */
static bool give_out(struct way *way, struct counts *counts)
{
    while (way->head != way->tail) {
        struct chunk *chunk = &way->chunks[way->head % CHUNKS];
        ssize_t sent;

        if (chunk->due_us > bench_now_us())
            return true;
        sent = send(way->to, chunk->bytes + chunk->sent, chunk->size - chunk->sent,
                    MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN || errno == EINTR;
        count(way, chunk->bytes + chunk->sent, (size_t)sent, counts);
        if ((chunk->sent += (size_t)sent) == chunk->size)
            way->head++;
    }
    return !way->ended;
}

/* ---- The process ---- */

static void connection_close(struct connection *connection)
{
    close(connection->ways[0].from);
    close(connection->ways[0].to);
    connection->open = false;
}

static void no_delay(int socket)
{
    int on = 1;

    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void take_connection(bench_slow_link *link, struct counts *counts)
{
    int near = accept4(link->listener, NULL, NULL, SOCK_CLOEXEC), far;

    if (near < 0)
        return;
    atomic_store(&counts->opened_us, bench_now_us());
    far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (unsigned i = 0; i < LINKS && far >= 0; i++) {
        struct connection *connection = &link->connections[i];

        if (connection->open)
            continue;
        if (connect(far, (struct sockaddr *)&link->target, sizeof(link->target)))
            break;
        no_delay(near);
        no_delay(far);
        memset(connection, 0, sizeof(*connection));
        connection->ways[0].from = connection->ways[1].to = near;
        connection->ways[0].to = connection->ways[1].from = far;
        connection->open = true;
        return;
    }
    close(near);
    if (far >= 0)
        close(far);
}

/* When the next chunk is due, in milliseconds, rounded up; -1: there is none. */
static int next_due_ms(const bench_slow_link *link)
{
    uint64_t now_us = bench_now_us(), first_us = UINT64_MAX;

    for (unsigned i = 0; i < 2 * LINKS; i++) {
        const struct connection *connection = &link->connections[i / 2];
        const struct way *way = &connection->ways[i % 2];

        if (connection->open && way->head != way->tail &&
            way->chunks[way->head % CHUNKS].due_us < first_us)
            first_us = way->chunks[way->head % CHUNKS].due_us;
    }
    if (first_us == UINT64_MAX)
        return -1;
    return first_us > now_us ? (int)((first_us - now_us + 999) / 1000) : 1;
}

static void wait_for_something(const bench_slow_link *link, bool *connecting)
{
    struct pollfd polled[1 + 2 * LINKS] = {{.fd = link->listener, .events = POLLIN}};
    nfds_t count = 1;

    for (unsigned i = 0; i < 2 * LINKS; i++) {
        const struct connection *connection = &link->connections[i / 2];

        if (connection->open && has_room(&connection->ways[i % 2]))
            polled[count++] =
                (struct pollfd){.fd = connection->ways[i % 2].from, .events = POLLIN};
    }
    poll(polled, count, next_due_ms(link));
    *connecting = polled[0].revents != 0;
}

/* Until it is ended. */
static tandem_err pass_on(void *context, void *shared)
{
    bench_slow_link *link = context;
    struct counts *counts = shared;

    while (link->listener >= 0) {
        bool connecting;

        wait_for_something(link, &connecting);
        if (connecting)
            take_connection(link, counts);
        for (unsigned i = 0; i < 2 * LINKS; i++) {
            struct connection *connection = &link->connections[i / 2];
            struct way *way = &connection->ways[i % 2];

            if (!connection->open)
                continue;
            if (has_room(way))
                take_in(way, link);
            if (!give_out(way, counts))
                connection_close(connection);
        }
    }
    return TANDEM_OK;
}

/* ---- The link ---- */

/* Of "SCHEME://127.0.0.1:PORT/PATH". */
static bool read_url(const char *url, char scheme[16], unsigned *port, char path[96])
{
    return sscanf(url, "%15[a-z]://127.0.0.1:%u/%95s", scheme, port, path) == 3 && *port < 65536;
}

static bool listen_anywhere(bench_slow_link *link, unsigned *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);

    link->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (link->listener < 0 || bind(link->listener, (struct sockaddr *)&address, size) ||
        getsockname(link->listener, (struct sockaddr *)&address, &size) ||
        listen(link->listener, LINKS))
        return false;
    *port = ntohs(address.sin_port);
    return true;
}

tandem_err bench_slow_link_open(const char *url, uint32_t delay_ms, uint64_t bytes_per_second,
                                bench_slow_link **out)
{
    bench_slow_link *link = calloc(1, sizeof(*link));
    char scheme[16], path[96];
    unsigned to, at;
    tandem_err err;

    if (!link)
        return TANDEM_E_NOMEM;
    if (!read_url(url, scheme, &to, path) || !listen_anywhere(link, &at)) {
        cli_fail(TANDEM_E_IO, strerror(errno), "the slow link could not be made");
        free(link);
        return TANDEM_E_IO;
    }
    link->target = (struct sockaddr_in){.sin_family = AF_INET,
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                        .sin_port = htons((uint16_t)to)};
    link->delay_us = delay_ms * UINT64_C(1000);
    link->bytes_per_second = bytes_per_second;
    snprintf(link->url, sizeof(link->url), "%s://127.0.0.1:%u/%s", scheme, at, path);
    err = bench_worker_start(pass_on, link, sizeof(struct counts), &link->worker);
    close(link->listener);
    if (err == TANDEM_OK)
        *out = link;
    else
        free(link);
    return err;
}

const char *bench_slow_link_url(const bench_slow_link *link)
{
    return link->url;
}

bench_slow_link_counts bench_slow_link_count(bench_slow_link *link)
{
    struct counts *counts = bench_worker_shared(link->worker);

    return (bench_slow_link_counts){.bytes = atomic_load(&counts->bytes),
                                    .head_bytes = atomic_load(&counts->head_bytes),
                                    .opened_us = atomic_load(&counts->opened_us)};
}

void bench_slow_link_free(bench_slow_link *link)
{
    if (!link)
        return;
    bench_worker_free(link->worker);
    free(link);
}
