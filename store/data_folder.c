#include "store/data_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PARTS = 3, PART_BYTES_MAX = 16 /* the longest part's name, slash and end */ };

static const char *const part_names[PARTS] = {"store", "index", "sync"};

struct td_data_folder {
    int folder; /* descriptors; -1: not open */
    int lock;
    char *parts[PARTS];
};

static tandem_err err_of_errno(int error)
{
    switch (error) {
    case ENOENT:
        return TANDEM_E_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return TANDEM_E_PERMISSION;
    case ENOSPC:
    case EDQUOT:
        return TANDEM_E_STORE_FULL;
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
        return TANDEM_E_INVALID;
    case ENOMEM:
        return TANDEM_E_NOMEM;
    default:
        return TANDEM_E_IO;
    }
}

/* Some file systems cannot flush a folder, which then needs none. */
static tandem_err flush(int folder)
{
    return fsync(folder) == 0 || errno == EINVAL ? TANDEM_OK : err_of_errno(errno);
}

/* Is it ours, and nobody else's to read or write? */
static tandem_err check_private(int fd)
{
    struct stat info;

    if (fstat(fd, &info) != 0)
        return err_of_errno(errno);
    if (info.st_uid != geteuid() || (info.st_mode & (S_IRWXG | S_IRWXO)))
        return TANDEM_E_PERMISSION;
    return TANDEM_OK;
}

/*
 * Make a folder where there is none, and its name durable in the one above. That one may be
 * passable without being readable; then it cannot be flushed, which is no reason to stop.
 */
static tandem_err make_folder(int above, const char *name)
{
    tandem_err err;
    int fd;

    if (mkdirat(above, name, 0700) != 0)
        return errno == EEXIST ? TANDEM_OK : err_of_errno(errno);
    fd = openat(above, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == EACCES ? TANDEM_OK : err_of_errno(errno);
    err = flush(fd);
    close(fd);
    return err;
}

/* Make path (cut up on the way) and what is missing above it; what exists may be anybody's. */
static tandem_err make_path(char *path)
{
    int above = open(path[0] == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC), next;
    tandem_err err = TANDEM_OK;
    char *save = NULL;

    if (above < 0)
        return err_of_errno(errno);
    for (char *name = strtok_r(path, "/", &save); name; name = strtok_r(NULL, "/", &save)) {
        next = openat(above, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (next < 0 && errno == ENOENT) {
            if ((err = make_folder(above, name)) != TANDEM_OK)
                break;
            next = openat(above, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        }
        if (next < 0) {
            err = err_of_errno(errno);
            break;
        }
        close(above);
        above = next;
    }
    close(above);
    return err;
}

static tandem_err take_lock(td_data_folder *folder, bool create)
{
    tandem_err err;
    int rc;

    folder->lock = openat(folder->folder, "lock",
                          O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);
    if (folder->lock < 0)
        return err_of_errno(errno);
    if ((err = check_private(folder->lock)) != TANDEM_OK)
        return err;
    do
        rc = flock(folder->lock, LOCK_EX | LOCK_NB);
    while (rc != 0 && errno == EINTR);
    if (rc == 0)
        return TANDEM_OK;
    return errno == EWOULDBLOCK ? TANDEM_E_LOCKED : err_of_errno(errno);
}

static tandem_err make_part(td_data_folder *folder, const char *path, unsigned part)
{
    size_t size = strlen(path) + PART_BYTES_MAX;
    tandem_err err;
    int fd;

    folder->parts[part] = malloc(size);
    if (!folder->parts[part])
        return TANDEM_E_NOMEM;
    snprintf(folder->parts[part], size, "%s/%s", path, part_names[part]);
    if ((err = make_folder(folder->folder, part_names[part])) != TANDEM_OK)
        return err;
    fd = openat(folder->folder, part_names[part], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_of_errno(errno);
    err = check_private(fd);
    close(fd);
    return err;
}

tandem_err td_data_folder_open(const char *path, bool create, td_data_folder **out)
{
    td_data_folder *folder;
    char *copy = NULL;
    tandem_err err;

    if (path[0] == '\0' || strlen(path) + PART_BYTES_MAX > PATH_MAX)
        return TANDEM_E_INVALID;
    folder = calloc(1, sizeof(*folder));
    if (!folder)
        return TANDEM_E_NOMEM;
    folder->folder = folder->lock = -1;
    if (create) {
        copy = strdup(path);
        err = copy ? make_path(copy) : TANDEM_E_NOMEM;
        free(copy);
        if (err != TANDEM_OK)
            goto fail;
    }
    folder->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder->folder < 0) {
        err = err_of_errno(errno);
        goto fail;
    }
    if ((err = check_private(folder->folder)) != TANDEM_OK)
        goto fail;
    if ((err = take_lock(folder, create)) != TANDEM_OK)
        goto fail;
    for (unsigned part = 0; part < PARTS; part++)
        if ((err = make_part(folder, path, part)) != TANDEM_OK)
            goto fail;
    if ((err = flush(folder->folder)) != TANDEM_OK)
        goto fail;
    *out = folder;
    return TANDEM_OK;

fail:
    td_data_folder_free(folder);
    return err;
}

void td_data_folder_free(td_data_folder *folder)
{
    if (!folder)
        return;
    for (unsigned part = 0; part < PARTS; part++)
        free(folder->parts[part]);
    /* The file stays: removing it could take it from under one who opens it just now. */
    if (folder->lock >= 0)
        close(folder->lock);
    if (folder->folder >= 0)
        close(folder->folder);
    free(folder);
}

const char *td_data_folder_store(const td_data_folder *folder)
{
    return folder->parts[0];
}

const char *td_data_folder_index(const td_data_folder *folder)
{
    return folder->parts[1];
}

const char *td_data_folder_sync(const td_data_folder *folder)
{
    return folder->parts[2];
}

tandem_err td_data_folder_drop_index(td_data_folder *folder)
{
    int fd = openat(folder->folder, part_names[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    tandem_err err = TANDEM_OK;
    struct dirent *file;

    if (!dir) {
        err = err_of_errno(errno);
        if (fd >= 0)
            close(fd);
        return err;
    }
    while (err == TANDEM_OK && (errno = 0, file = readdir(dir))) {
        if (strcmp(file->d_name, ".") == 0 || strcmp(file->d_name, "..") == 0)
            continue;
        if (unlinkat(fd, file->d_name, 0) != 0 && errno != ENOENT)
            err = err_of_errno(errno);
    }
    if (err == TANDEM_OK && errno != 0)
        err = err_of_errno(errno);
    if (err == TANDEM_OK)
        err = flush(fd);
    closedir(dir);
    return err;
}
