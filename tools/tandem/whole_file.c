#include "tools/tandem/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINKS_MAX = 40 }; /* as many as the kernel follows */

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
/* What a signal is to remove; NULL: nothing. */
static char *volatile doomed;

static void remove_and_end(int number)
{
    if (doomed)
        unlink(doomed);
    _exit(128 + number);
}

static void signals_set(void (*handler)(int number))
{
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        signal(signals[i], handler);
}

static int report(const char *path, int error)
{
    const char *why = error == EEXIST ? "it exists; -y replaces it" : strerror(error);

    return cli_fail(tandem_err_of_errno(error), why, "%s cannot be written", path);
}

/*
 * What path points to, followed link by link: it need not exist. The caller frees it; NULL with
 * errno set.
 */
static char *follow(const char *path)
{
    char *at = strdup(path), *next;
    char link[PATH_MAX];

    for (unsigned i = 0; at && i < LINKS_MAX; i++) {
        ssize_t size = readlink(at, link, sizeof(link) - 1);

        if (size < 0) /* no link, or nothing: who opens it is told */
            return at;
        link[size] = 0;
        if (asprintf(&next, "%s%s%s", link[0] == '/' ? "" : dirname(at),
                     link[0] == '/' ? "" : "/", link) < 0)
            next = NULL;
        free(at);
        at = next;
    }
    if (at)
        errno = ELOOP;
    free(at);
    return NULL;
}

static bool is_stdout(const struct stat *found)
{
    struct stat out;

    return fstat(STDOUT_FILENO, &out) == 0 && out.st_dev == found->st_dev &&
           out.st_ino == found->st_ino;
}

/* The owner first: a change of owner may take bits of the mode away. It is root's to give. */
static bool take_over(int fd, const struct stat *found)
{
    return (fchown(fd, found->st_uid, found->st_gid) == 0 || geteuid() != 0) &&
           fchmod(fd, found->st_mode & 0777) == 0;
}

/* found: what is there; NULL: nothing. -1 with errno set. */
static int temporary_open(cli_whole_file *file, const struct stat *found)
{
    int fd;

    if (found && access(file->target, W_OK)) /* the folder's mode alone would let it be replaced */
        return -1;
    if (asprintf(&file->temporary, "%s.XXXXXX", file->target) < 0) {
        file->temporary = NULL;
        errno = ENOMEM;
        return -1;
    }
    if ((fd = mkstemp(file->temporary)) < 0) { /* mode 0600 */
        free(file->temporary);
        file->temporary = NULL;
        return -1;
    }
    doomed = file->temporary;
    signals_set(remove_and_end);
    if (!found || take_over(fd, found))
        return fd;
    close(fd);
    return -1;
}

bool cli_whole_file_open(cli_whole_file *file, const char *path, bool replace, int *exit_out)
{
    struct stat found;
    bool exists = stat(path, &found) == 0;
    int fd;

    *file = (cli_whole_file){.path = path};
    if (exists && S_ISREG(found.st_mode) && !replace) {
        *exit_out = report(path, EEXIST);
        return false;
    }
    file->is_stdout = exists && is_stdout(&found);
    file->target = follow(path);
    if (!file->target)
        fd = -1;
    else if (exists && !S_ISREG(found.st_mode))
        fd = open(path, O_WRONLY | O_CLOEXEC);
    else
        fd = temporary_open(file, exists ? &found : NULL);
    if (fd >= 0 && (file->out = fdopen(fd, "w")))
        return true;
    *exit_out = report(path, errno);
    if (fd >= 0)
        close(fd);
    cli_whole_file_release(file);
    return false;
}

/* Make the rename outlive a loss of power as well. */
static void folder_sync(const char *path)
{
    char *copy = strdup(path);
    int folder = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (folder >= 0) {
        fsync(folder);
        close(folder);
    }
    free(copy);
}

static bool move(const cli_whole_file *file, bool replace)
{
    struct stat found;

    if (replace)
        return rename(file->temporary, file->target) == 0;
    if (renameat2(AT_FDCWD, file->temporary, AT_FDCWD, file->target, RENAME_NOREPLACE) == 0)
        return true;
    if (errno != EINVAL && errno != ENOSYS)
        return false;
    /* Not every file system can do that: then somebody may come between the two. */
    if (stat(file->target, &found) == 0) {
        errno = EEXIST;
        return false;
    }
    return rename(file->temporary, file->target) == 0;
}

int cli_whole_file_keep(cli_whole_file *file, bool replace)
{
    if (fflush(file->out) || ferror(file->out))
        return report(file->path, errno);
    if (!file->temporary)
        return 0;
    if (fsync(fileno(file->out)) || !move(file, replace))
        return report(file->path, errno);
    doomed = NULL;
    free(file->temporary);
    file->temporary = NULL;
    folder_sync(file->target);
    return 0;
}

void cli_whole_file_release(cli_whole_file *file)
{
    if (file->out)
        fclose(file->out);
    if (file->temporary)
        unlink(file->temporary);
    if (doomed)
        signals_set(SIG_DFL);
    doomed = NULL;
    free(file->temporary);
    free(file->target);
    *file = (cli_whole_file){.out = NULL};
}
