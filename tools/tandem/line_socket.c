#include "tools/tandem/line_socket.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "reactor/json.h"

enum { READ_BYTES = 64 * 1024, LISTEN_BACKLOG = 64 };

void cli_line_socket_init(cli_line_socket *s, int fd, size_t line_bytes_max, uint64_t timeout_ms)
{
    memset(s, 0, sizeof(*s));
    s->fd = fd;
    s->line_bytes_max = line_bytes_max;
    s->timeout_ms = timeout_ms;
}

void cli_line_socket_release(cli_line_socket *s)
{
    if (s->fd >= 0)
        close(s->fd);
    free(s->buffer);
    memset(s, 0, sizeof(*s));
    s->fd = -1;
}

/* Wait until the descriptor is ready for events, or broken. */
static tandem_err wait_for(const cli_line_socket *s, short events)
{
    struct pollfd poller = {.fd = s->fd, .events = events};
    int timeout = s->timeout_ms < INT_MAX ? (int)s->timeout_ms : -1;
    int ready;

    do
        ready = poll(&poller, 1, timeout);
    while (ready < 0 && errno == EINTR);
    if (ready < 0)
        return TANDEM_E_IO;
    return ready ? TANDEM_OK : TANDEM_E_TIMEOUT;
}

/* Receive at least one byte behind what the buffer holds. */
static tandem_err receive(cli_line_socket *s)
{
    tandem_err err;
    ssize_t got;

    if (s->at > 0) {
        memmove(s->buffer, s->buffer + s->at, s->end - s->at);
        s->end -= s->at;
        s->at = 0;
    }
    if (s->capacity - s->end < READ_BYTES) {
        size_t capacity = s->capacity * 2 > s->end + READ_BYTES ? s->capacity * 2
                                                                : s->end + READ_BYTES;
        char *grown = realloc(s->buffer, capacity);

        if (!grown)
            return TANDEM_E_NOMEM;
        s->buffer = grown;
        s->capacity = capacity;
    }
    if ((err = wait_for(s, POLLIN)) != TANDEM_OK)
        return err;
    do
        got = recv(s->fd, s->buffer + s->end, s->capacity - s->end, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == ECONNRESET ? TANDEM_END : TANDEM_E_UNREACHABLE;
    if (got == 0)
        return TANDEM_END;
    s->end += (size_t)got;
    return TANDEM_OK;
}

tandem_err cli_line_socket_read(cli_line_socket *s, json_t **out)
{
    size_t searched = 0;
    char *feed;
    tandem_err err;

    for (;;) {
        feed = s->end > s->at + searched
                   ? memchr(s->buffer + s->at + searched, '\n', s->end - s->at - searched)
                   : NULL;
        if (feed)
            break;
        searched = s->end - s->at;
        if (searched > s->line_bytes_max)
            return TANDEM_E_LIMIT;
        if ((err = receive(s)) != TANDEM_OK)
            return err;
    }
    if ((size_t)(feed - s->buffer) - s->at > s->line_bytes_max)
        return TANDEM_E_LIMIT;
    *out = json_loadb(s->buffer + s->at, (size_t)(feed - s->buffer) - s->at,
                      JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    s->at = (size_t)(feed - s->buffer) + 1;
    return *out ? TANDEM_OK : TANDEM_E_PROTOCOL;
}

tandem_err cli_line_socket_read_raw(cli_line_socket *s, size_t size, char **out)
{
    char *bytes = NULL;
    size_t have = 0, capacity = 0;
    tandem_err err;

    for (;;) {
        size_t ready = s->end - s->at < size - have ? s->end - s->at : size - have;

        if (have + ready > capacity || !bytes) {
            /* By what has come, not by what was announced. */
            size_t wanted = capacity * 2 > have + ready + READ_BYTES ? capacity * 2
                                                                     : have + ready + READ_BYTES;
            char *grown = realloc(bytes, wanted);

            if (!grown) {
                err = TANDEM_E_NOMEM;
                goto fail;
            }
            bytes = grown;
            capacity = wanted;
        }
        if (ready > 0)
            memcpy(bytes + have, s->buffer + s->at, ready);
        have += ready;
        s->at += ready;
        if (have == size)
            break;
        if ((err = receive(s)) != TANDEM_OK)
            goto fail;
    }
    *out = bytes;
    return TANDEM_OK;

fail:
    free(bytes);
    return err;
}

tandem_err cli_line_socket_write_raw(cli_line_socket *s, const char *bytes, size_t size)
{
    size_t sent = 0;

    while (sent < size) {
        ssize_t now = send(s->fd, bytes + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        tandem_err err;

        if (now >= 0) {
            sent += (size_t)now;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if ((err = wait_for(s, POLLOUT)) != TANDEM_OK)
                return err;
        } else if (errno != EINTR) {
            return TANDEM_E_UNREACHABLE;
        }
    }
    return TANDEM_OK;
}

tandem_err cli_line_socket_write(cli_line_socket *s, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY |
                                       JSON_REAL_PRECISION(tandem_json_digits(value)));
    size_t size;
    tandem_err err;

    if (!text)
        return TANDEM_E_NOMEM;
    size = strlen(text);
    text[size] = '\n'; /* in the place of the NUL: one write, one wake-up */
    err = cli_line_socket_write_raw(s, text, size + 1);
    free(text);
    return err;
}

bool cli_line_socket_gone(const cli_line_socket *s)
{
    struct pollfd poller = {.fd = s->fd};

    return poll(&poller, 1, 0) > 0 && (poller.revents & (POLLHUP | POLLERR | POLLNVAL));
}

/* ---- Addresses ---- */

/*
 * A socket's address has room for 107 bytes. A folder deeper than that is reached through its
 * descriptor, which is to be closed after bind or connect (-1: none).
 */
static tandem_err address_of(const char *path, struct sockaddr_un *out, int *folder_out)
{
    const char *slash = strrchr(path, '/');
    char folder[PATH_MAX];
    int length;

    memset(out, 0, sizeof(*out));
    out->sun_family = AF_UNIX;
    *folder_out = -1;
    if (strlen(path) < sizeof(out->sun_path)) {
        memcpy(out->sun_path, path, strlen(path) + 1);
        return TANDEM_OK;
    }
    if (!slash || (size_t)(slash - path) >= sizeof(folder))
        return TANDEM_E_INVALID;
    memcpy(folder, path, (size_t)(slash - path));
    folder[slash - path] = 0;
    *folder_out = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*folder_out < 0)
        return TANDEM_E_UNREACHABLE;
    length = snprintf(out->sun_path, sizeof(out->sun_path), "/proc/self/fd/%d/%s", *folder_out,
                      slash + 1);
    if (length > 0 && (size_t)length < sizeof(out->sun_path))
        return TANDEM_OK;
    close(*folder_out);
    *folder_out = -1;
    return TANDEM_E_INVALID;
}

static tandem_err connect_to(const char *path, int *fd_out, int *errno_out)
{
    struct sockaddr_un address;
    int folder, fd;
    tandem_err err = address_of(path, &address, &folder);

    *errno_out = err == TANDEM_E_UNREACHABLE ? ENOENT : ENAMETOOLONG;
    if (err != TANDEM_OK)
        return TANDEM_E_UNREACHABLE;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address))) {
        *errno_out = errno;
        if (fd >= 0)
            close(fd);
        err = TANDEM_E_UNREACHABLE;
    } else {
        *fd_out = fd;
    }
    if (folder >= 0)
        close(folder);
    return err;
}

tandem_err cli_socket_connect(const char *path, int *fd_out, char why[256])
{
    int error;
    tandem_err err = connect_to(path, fd_out, &error);

    if (err != TANDEM_OK)
        snprintf(why, 256, "no node answers at %.160s: %s", path, strerror(error));
    return err;
}

tandem_err cli_socket_listen(const char *path, int *fd_out, char why[256])
{
    struct sockaddr_un address;
    struct stat found;
    int folder = -1, fd = -1, error;
    tandem_err err;

    if (lstat(path, &found) == 0) {
        if (!S_ISSOCK(found.st_mode)) {
            snprintf(why, 256, "%.200s is not a socket", path);
            return TANDEM_E_EXISTS;
        }
        if (connect_to(path, &fd, &error) == TANDEM_OK) {
            close(fd);
            snprintf(why, 256, "a node answers at %.200s already", path);
            return TANDEM_E_LOCKED;
        }
        unlink(path);
    }
    if ((err = address_of(path, &address, &folder)) != TANDEM_OK)
        goto fail;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    err = TANDEM_E_IO;
    /* The umask leaves it to its owner from the first moment; chmod then takes the x away. */
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) ||
        chmod(path, 0600) || listen(fd, LISTEN_BACKLOG))
        goto fail;
    if (folder >= 0)
        close(folder);
    *fd_out = fd;
    return TANDEM_OK;

fail:
    snprintf(why, 256, "%.160s cannot be listened on: %s", path,
             err == TANDEM_E_INVALID ? "its name is too long" : strerror(errno));
    if (fd >= 0)
        close(fd);
    if (folder >= 0)
        close(folder);
    return err;
}
