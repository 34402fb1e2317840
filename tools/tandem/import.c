/*
 * import: the operations of a JSON Lines file, in atomic groups of 1,000 lines.
 *
 * Lines are cut here and parsed where the reactor is, so that the errors are the same whether a
 * node runs or not. To a node the next group is on its way while one is executed; groups are
 * answered in order, and after one that failed the node executes no other, so that what was kept is
 * always everything up to a line. A signal lets the groups that were sent be answered, and drops
 * the one that is being read.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/tandem/access.h"
#include "tools/tandem/interrupt.h"
#include "tools/tandem/print.h"
#include "tools/tandem/progress.h"

enum { READ_BYTES = 64 * 1024, FLIGHT_MAX = 2 };

struct source {
    int fd;
    char buffer[READ_BYTES];
    size_t at;
    size_t end;
    uint64_t taken; /* bytes */
    bool ended;
    bool failed; /* reading did, with errno */
};

/* A group of lines, as it is sent. */
struct group {
    uint64_t first;
    size_t lines;
    uint64_t taken; /* how far into the source it ends */
};

struct import {
    const cli_call *call;
    cli_access *access;
    struct source source;
    cli_progress progress;
    char *bytes; /* the group that is being read */
    size_t size;
    size_t capacity;
    uint64_t next_line;
    struct group flight[FLIGHT_MAX]; /* sent and not answered, oldest first */
    unsigned in_flight;
    uint64_t kept;      /* lines */
    uint64_t kept_last; /* number of the last of them */
    uint64_t groups;
    uint64_t bad_line;
    bool interrupted;
    char why[CLI_WHY_BYTES];
};

/* ---- Reading lines ---- */

static bool source_fill(struct source *source)
{
    ssize_t got;

    if (source->at < source->end)
        return true;
    if (source->ended || !cli_interrupt_wait(source->fd, -1))
        return false;
    do
        got = read(source->fd, source->buffer, sizeof(source->buffer));
    while (got < 0 && errno == EINTR);
    source->failed = got < 0;
    source->ended = got <= 0;
    source->at = 0;
    source->end = got > 0 ? (size_t)got : 0;
    return got > 0;
}

/* Take bytes up to and with the next line feed, or what the buffer holds. */
static size_t source_take(struct source *source, const char **bytes_out, bool *line_ends_out)
{
    const char *begin = source->buffer + source->at;
    const char *feed = memchr(begin, '\n', source->end - source->at);
    size_t size = feed ? (size_t)(feed - begin) + 1 : source->end - source->at;

    source->at += size;
    source->taken += size;
    *bytes_out = begin;
    *line_ends_out = feed != NULL;
    return size;
}

static void skip_lines(struct import *import, uint64_t lines)
{
    const char *bytes;
    bool ends;

    while (lines > 0 && source_fill(&import->source)) {
        source_take(&import->source, &bytes, &ends);
        lines -= ends;
    }
}

static tandem_err put_bytes(struct import *import, const char *bytes, size_t size)
{
    if (import->size + size > import->capacity) {
        size_t capacity = import->capacity * 2 > import->size + size ? import->capacity * 2
                                                                     : import->size + size;
        char *grown = realloc(import->bytes, capacity);

        if (!grown)
            return TANDEM_E_NOMEM;
        import->bytes = grown;
        import->capacity = capacity;
    }
    memcpy(import->bytes + import->size, bytes, size);
    import->size += size;
    return TANDEM_OK;
}

/*
 * Read one line into the group. One that is too long is cut just behind the limit and is the last
 * one read: it goes to the reactor all the same, which refuses it in its turn, after the lines
 * before it.
 */
static tandem_err read_line(struct import *import, bool *got_out)
{
    size_t begun = import->size;
    bool ends = false;
    tandem_err err;

    *got_out = false;
    while (!ends && source_fill(&import->source)) {
        const char *bytes;
        size_t size = source_take(&import->source, &bytes, &ends);
        size_t room = CLI_LINE_BYTES_MAX + 1 - (import->size - begun);

        if (size - ends >= room) {
            import->source.ended = true;
            import->source.at = import->source.end;
            ends = true;
            size = room;
        }
        if ((err = put_bytes(import, bytes, size)) != TANDEM_OK)
            return err;
        *got_out = true;
    }
    return TANDEM_OK;
}

static tandem_err read_group(struct import *import, struct group *group)
{
    bool got = true;
    tandem_err err;

    *group = (struct group){.first = import->next_line};
    import->size = 0;
    while (group->lines < CLI_GROUP_LINES_MAX &&
           import->size < CLI_GROUP_BYTES_MAX - CLI_LINE_BYTES_MAX) {
        if ((err = read_line(import, &got)) != TANDEM_OK)
            return err;
        if (!got)
            break;
        group->lines++;
    }
    group->taken = import->source.taken;
    import->next_line += group->lines;
    return TANDEM_OK;
}

/* ---- Groups ---- */

static tandem_err send_group(struct import *import, const struct group *group)
{
    json_t *object = json_pack("{s:s, s:s, s:o, s:o, s:o, s:b}",
                               "command", "import",
                               "collection", import->call->args[0],
                               "first_line", cli_json_number(group->first),
                               "lines", cli_json_number(group->lines),
                               "bytes", cli_json_number(import->size),
                               "dry_run", import->call->dry_run);
    tandem_err err = TANDEM_E_NOMEM;

    if (object)
        err = cli_access_import_send(import->access, object, import->bytes, import->size,
                                     import->why);
    json_decref(object);
    return err;
}

static tandem_err receive_group(struct import *import)
{
    const struct group group = import->flight[0];
    tandem_err err = cli_access_import_receive(import->access, &import->bad_line, import->why);

    if (err != TANDEM_OK) {
        if (!import->bad_line)
            import->bad_line = group.first;
        return err;
    }
    import->in_flight--;
    import->flight[0] = import->flight[1];
    import->kept += group.lines;
    import->kept_last = group.first + group.lines - 1;
    import->groups++;
    cli_progress_at(&import->progress, group.taken, import->kept);
    return TANDEM_OK;
}

/* A group could not be sent: what the node said about those before it decides. */
static tandem_err after_loss(struct import *import, const struct group *unsent, tandem_err lost)
{
    char why[CLI_WHY_BYTES];
    tandem_err err;

    memcpy(why, import->why, sizeof(why));
    while (import->in_flight > 0)
        if ((err = receive_group(import)) != TANDEM_OK)
            return err;
    memcpy(import->why, why, sizeof(why));
    import->bad_line = unsent->first;
    return lost;
}

static tandem_err run(struct import *import)
{
    unsigned depth = cli_access_depth(import->access);
    struct group group;
    bool ended = false;
    tandem_err err;

    for (;;) {
        if (!ended && import->in_flight < depth) {
            if ((err = read_group(import, &group)) != TANDEM_OK) {
                import->bad_line = group.first;
                return err;
            }
            ended = group.lines == 0;
            if (cli_interrupt() && !(ended && import->source.ended)) {
                import->interrupted = ended = true;
                import->next_line = group.first;
            }
            if (ended)
                continue;
            if ((err = send_group(import, &group)) != TANDEM_OK)
                return after_loss(import, &group, err);
            import->flight[import->in_flight++] = group;
        } else if (import->in_flight > 0) {
            if ((err = receive_group(import)) != TANDEM_OK)
                return err;
        } else {
            break;
        }
    }
    import->bad_line = import->next_line;
    if (import->interrupted) {
        snprintf(import->why, sizeof(import->why), "stopped by %s",
                 cli_interrupt() == SIGINT ? "SIGINT" : "SIGTERM");
        return TANDEM_E_CLOSED;
    }
    if (import->source.failed) {
        snprintf(import->why, sizeof(import->why), "reading failed: %s", strerror(errno));
        return TANDEM_E_IO;
    }
    return TANDEM_OK;
}

/* ---- The outcome ---- */

static int report(struct import *import, tandem_err err)
{
    const char *verb = import->call->dry_run ? "checked" : "kept";
    const char *why = import->why[0] ? import->why : tandem_err_text(err);
    unsigned long long line = import->bad_line, last = import->kept_last;
    char sentence[CLI_WHY_BYTES + 128];

    if (import->call->json)
        printf("{\"lines\":%llu,\"groups\":%llu}\n", (unsigned long long)import->kept,
               (unsigned long long)import->groups);
    if (err == TANDEM_OK) {
        cli_note(import->call, "%s %llu lines", import->call->dry_run ? "would import" : "imported",
                 (unsigned long long)import->kept);
        return 0;
    }
    if (import->kept)
        snprintf(sentence, sizeof(sentence), "line %llu: %s; lines 1-%llu %s", line, why, last,
                 verb);
    else
        snprintf(sentence, sizeof(sentence), "line %llu: %s; no lines %s", line, why, verb);
    cli_fail_plain(err, sentence);
    if (import->interrupted && err == TANDEM_E_CLOSED)
        return 128 + cli_interrupt();
    if (err == TANDEM_E_UNREACHABLE)
        return cli_exit_code(err);
    return import->kept ? 3 : 1;
}

int cli_import(const cli_call *call)
{
    const char *path = call->arg_count > 1 && strcmp(call->args[1], "-") ? call->args[1] : NULL;
    struct import *import;
    struct stat found;
    uint64_t from;
    tandem_err err;
    int fd = STDIN_FILENO, code;

    if (!cli_number(call, CLI_FROM, 1, &from))
        return cli_exit_code(TANDEM_E_USAGE);
    if (from < 1)
        return cli_fail(TANDEM_E_USAGE, "lines are numbered from 1", "--from is 0");
    if (path && (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return cli_fail(tandem_err_of_errno(errno), strerror(errno), "%s cannot be read", path);
    import = calloc(1, sizeof(*import));
    if (!import) {
        code = cli_fail(TANDEM_E_NOMEM, NULL, "nothing was imported");
        goto out;
    }
    import->call = call;
    import->source.fd = fd;
    import->next_line = from;
    err = cli_access_open(call, true, &import->access, import->why);
    if (err != TANDEM_OK) {
        code = cli_fail(err, import->why, "nothing was imported");
        goto out;
    }
    cli_interrupt_begin();
    cli_progress_begin(&import->progress, call,
                       fstat(fd, &found) == 0 && S_ISREG(found.st_mode) ? (uint64_t)found.st_size
                                                                        : 0,
                       "lines");
    skip_lines(import, from - 1);
    err = run(import);
    cli_progress_end(&import->progress);
    code = report(import, err);

out:
    if (path)
        close(fd);
    if (import) {
        cli_access_free(import->access);
        free(import->bytes);
    }
    free(import);
    return code;
}
