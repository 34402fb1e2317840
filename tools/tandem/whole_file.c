#include "tools/tandem/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static tandem_err err_of(int error)
{
    switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
        return TANDEM_E_PERMISSION;
    case ENOENT:
    case ENOTDIR:
        return TANDEM_E_NOT_FOUND;
    case EEXIST:
        return TANDEM_E_EXISTS;
    case ENOSPC:
    case EDQUOT:
        return TANDEM_E_STORE_FULL;
    default:
        return TANDEM_E_IO;
    }
}

static int report(const char *path, int error)
{
    const char *why = error == EEXIST ? "it exists; -y replaces it" : strerror(error);

    return cli_fail(err_of(error), why, "%s cannot be written", path);
}

bool cli_whole_file_open(cli_whole_file *file, const char *path, bool replace, int *exit_out)
{
    struct stat found;
    int fd;

    *file = (cli_whole_file){.path = path};
    if (stat(path, &found) == 0) {
        if (!S_ISREG(found.st_mode)) {
            *exit_out = cli_fail(TANDEM_E_INVALID, "it is no file", "%s cannot be written", path);
            return false;
        }
        if (!replace) {
            *exit_out = report(path, EEXIST);
            return false;
        }
    }
    if (asprintf(&file->temporary, "%s.XXXXXX", path) < 0) {
        file->temporary = NULL;
        *exit_out = cli_fail(TANDEM_E_NOMEM, NULL, "%s cannot be written", path);
        return false;
    }
    if ((fd = mkstemp(file->temporary)) < 0) { /* mode 0600 */
        *exit_out = report(path, errno);
        free(file->temporary);
        file->temporary = NULL;
        return false;
    }
    doomed = file->temporary;
    signals_set(remove_and_end);
    if (!(file->out = fdopen(fd, "w"))) {
        *exit_out = report(path, errno);
        close(fd);
        cli_whole_file_release(file);
        return false;
    }
    return true;
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
        return rename(file->temporary, file->path) == 0;
    if (renameat2(AT_FDCWD, file->temporary, AT_FDCWD, file->path, RENAME_NOREPLACE) == 0)
        return true;
    if (errno != EINVAL && errno != ENOSYS)
        return false;
    /* Not every file system can do that: then somebody may come between the two. */
    if (stat(file->path, &found) == 0) {
        errno = EEXIST;
        return false;
    }
    return rename(file->temporary, file->path) == 0;
}

int cli_whole_file_keep(cli_whole_file *file, bool replace)
{
    if (fflush(file->out) || ferror(file->out) || fsync(fileno(file->out)) || !move(file, replace))
        return report(file->path, errno);
    doomed = NULL;
    free(file->temporary);
    file->temporary = NULL;
    folder_sync(file->path);
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
    *file = (cli_whole_file){.out = NULL};
}
