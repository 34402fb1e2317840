/*
 * restore and clone: a data folder made of a backup's bytes, read from a file or asked of the reactor
 * that the other folder is. The folder appears once it is whole; a signal takes away what there is.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/tandem/access.h"
#include "tools/tandem/print.h"
#include "tools/tandem/progress.h"

enum { READ_BYTES = 64 * 1024 };

struct restore {
    const cli_call *call;
    tandem_restore *restore;
    cli_progress progress;
    uint64_t bytes;
    tandem_err err; /* of restoring itself, not of reading what is restored */
    char why[CLI_WHY_BYTES];
};

static volatile sig_atomic_t stopped;

/* The first one ends it in good order; a second one does not wait for that. */
static void note_signal(int number)
{
    if (stopped)
        _exit(128 + number);
    stopped = number;
}

static void signals_set(void)
{
    struct sigaction action = {.sa_handler = note_signal}; /* no SA_RESTART: reading ends, too */

    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

static tandem_err open_restore(struct restore *restore, bool clones)
{
    const cli_call *call = restore->call;
    tandem_options options = TANDEM_OPTIONS_INIT;

    if (!call->data) {
        snprintf(restore->why, CLI_WHY_BYTES,
                 "no data folder is named, by --data or the environment");
        return TANDEM_E_USAGE;
    }
    options.path = call->data;
    options.log = cli_log;
    options.log_level = call->quiet ? TANDEM_LOG_ERROR : TANDEM_LOG_WARNING;
    signals_set();
    return clones ? tandem_clone_open(&options, &restore->restore, restore->why)
                  : tandem_restore_open(call->dry_run ? NULL : &options, &restore->restore,
                                        restore->why);
}

static tandem_err feed(void *context, const char *bytes, size_t size)
{
    struct restore *restore = context;

    if (stopped)
        return restore->err = TANDEM_E_CLOSED;
    restore->bytes += size;
    restore->err =
        tandem_restore_feed(restore->restore, tandem_slice_of(bytes, size), restore->why);
    cli_progress_at(&restore->progress, restore->bytes, restore->bytes >> 20);
    return restore->err;
}

static int report(const struct restore *restore, tandem_err err)
{
    const char *why = restore->why[0] ? restore->why : tandem_err_text(err);
    const char *verb = restore->call->dry_run ? "it cannot be restored" : "nothing was made";
    char sentence[CLI_WHY_BYTES + 64];

    if (stopped)
        return 128 + stopped;
    if (err != TANDEM_E_CORRUPT)
        return cli_fail(err, why, "%s", verb);
    /* What helps a damaged store does not help a damaged backup. */
    snprintf(sentence, sizeof(sentence), "%s: %s; use another backup", verb, why);
    return cli_fail_plain(err, sentence);
}

static int tell(const struct restore *restore, const tandem_restored *restored)
{
    const cli_call *call = restore->call;
    const tandem_backup_info *info = &restored->backup;
    json_t *result;
    char time[32];

    if (call->json) {
        /* As `backup` prints it; whose backup it was moves to "from". */
        result = cli_json_backup(info);
        if (result) {
            json_object_set_new(result, "from", json_pack("{s:O, s:O}",
                                "reactor", json_object_get(result, "reactor"),
                                "origin", json_object_get(result, "origin")));
            json_object_set_new(result, "reactor", call->dry_run
                                ? json_null()
                                : cli_json_hex(restored->reactor, TANDEM_ORIGIN_BYTES));
            json_object_set_new(result, "origin", call->dry_run
                                ? json_null()
                                : cli_json_hex(restored->origin, TANDEM_ORIGIN_BYTES));
            json_object_set_new(result, "data", json_string(call->data));
            cli_print_json(NULL, result);
        }
        json_decref(result);
        return 0;
    }
    cli_time_text(info->taken_ms, time);
    cli_note(call, "%s %s: %llu operations, %llu collections, as of %s",
             call->dry_run ? "the backup is whole; would make" : "made", call->data,
             (unsigned long long)info->operations, (unsigned long long)info->collections, time);
    if (info->remotes && !call->dry_run)
        cli_note(call, "its peers (%llu) are paused: `tandem --data %s peer resume NAME` ends that",
                 (unsigned long long)info->remotes, call->data);
    return 0;
}

/* Everything was fed, or err says why not. */
static int end(struct restore *restore, tandem_err err)
{
    tandem_restored restored;

    if (err == TANDEM_OK && stopped)
        err = TANDEM_E_CLOSED;
    if (err == TANDEM_OK)
        err = tandem_restore_finish(restore->restore, &restored, restore->why);
    cli_progress_end(&restore->progress);
    tandem_restore_free(restore->restore);
    return err == TANDEM_OK ? tell(restore, &restored) : report(restore, err);
}

/* ---- restore ---- */

static tandem_err feed_file(struct restore *restore, int fd)
{
    char *buffer = malloc(READ_BYTES);
    tandem_err err = buffer ? TANDEM_OK : TANDEM_E_NOMEM;
    ssize_t got = 1;

    while (err == TANDEM_OK && got > 0 && !stopped) {
        got = read(fd, buffer, READ_BYTES);
        if (got > 0)
            err = feed(restore, buffer, (size_t)got);
        else if (got < 0 && errno != EINTR) {
            snprintf(restore->why, CLI_WHY_BYTES, "reading failed: %s", strerror(errno));
            err = TANDEM_E_IO;
        }
    }
    free(buffer);
    return err;
}

int cli_restore(const cli_call *call)
{
    const char *path = strcmp(call->args[0], "-") ? call->args[0] : NULL;
    struct restore restore = {.call = call};
    struct stat found;
    int fd = STDIN_FILENO, code;
    tandem_err err;

    if (path && (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return cli_fail(errno == ENOENT   ? TANDEM_E_NOT_FOUND
                        : errno == EACCES ? TANDEM_E_PERMISSION
                                          : TANDEM_E_IO,
                        strerror(errno), "%s cannot be read", path);
    if ((err = open_restore(&restore, false)) != TANDEM_OK) {
        code = cli_fail(err, restore.why, "nothing was made");
    } else {
        cli_progress_begin(&restore.progress, call,
                           fstat(fd, &found) == 0 && S_ISREG(found.st_mode)
                               ? (uint64_t)found.st_size
                               : 0,
                           "MiB");
        code = end(&restore, feed_file(&restore, fd));
    }
    if (path)
        close(fd);
    return code;
}

/* ---- clone ---- */

/* Would it be made inside of the folder that it is a clone of? What does not exist yet is inside of
 * what its nearest folder that does is inside of. */
static bool is_inside(const char *path, const char *folder)
{
    char *outer = realpath(folder, NULL), *inner = NULL, *name = strdup(path), *slash;
    size_t size = outer ? strlen(outer) : 0;
    bool is_there = true, is_inside;

    while (name && !(inner = realpath(name[0] ? name : ".", NULL)) && name[0] && errno == ENOENT) {
        slash = strrchr(name, '/');
        if (slash == name && name[1])
            slash++;
        *(slash ? slash : name) = 0;
        is_there = false;
    }
    is_inside = outer && inner && !strncmp(inner, outer, size) &&
                (inner[size] == '/' || (!inner[size] && !is_there));
    free(outer);
    free(inner);
    free(name);
    return is_inside;
}

int cli_clone(const cli_call *call)
{
    struct restore restore = {.call = call};
    char why[CLI_WHY_BYTES] = "";
    cli_call other = *call;
    cli_access *access = NULL;
    json_t *object;
    int code;
    tandem_err err;

    if (call->given[CLI_NODE])
        return cli_fail(TANDEM_E_USAGE, "a clone is made of the folder that DIR names",
                        "--node is of no use here");
    other.data = (char *)call->args[0];
    if (call->data && is_inside(call->data, other.data))
        return cli_fail(TANDEM_E_INVALID, "a clone in the folder that it is made of",
                        "%s is inside of %s", call->data, other.data);
    if (call->dry_run)
        return cli_would(call, "clone %s to %s", other.data, call->data ? call->data : "?");
    if ((err = open_restore(&restore, true)) != TANDEM_OK)
        return cli_fail(err, restore.why, "nothing was made");
    cli_progress_begin(&restore.progress, call, 0, "MiB");
    object = cli_request_of(&other, "backup");
    err = object ? cli_access_open(&other, false, &access, why) : TANDEM_E_NOMEM;
    if (err == TANDEM_OK)
        err = cli_access_run_bytes(access, object, cli_print_nothing, feed, &restore, why);
    /* The other folder's own trouble, not that of making this one. */
    if (err != TANDEM_OK && restore.err == TANDEM_OK && !stopped) {
        cli_progress_end(&restore.progress);
        tandem_restore_free(restore.restore);
        code = cli_fail(err, why, "%s cannot be cloned", other.data);
    } else {
        code = end(&restore, err);
    }
    cli_access_free(access);
    json_decref(object);
    return code;
}
