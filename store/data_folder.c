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

/* Some file systems cannot flush a folder, which then needs none. */
static tandem_err flush(int folder)
{
    return fsync(folder) == 0 || errno == EINVAL ? TANDEM_OK : tandem_err_of_errno(errno);
}

/* Is it ours, and nobody else's to read or write? */
static tandem_err check_private(int fd)
{
    struct stat info;

    if (fstat(fd, &info) != 0)
        return tandem_err_of_errno(errno);
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
        return errno == EEXIST ? TANDEM_OK : tandem_err_of_errno(errno);
    fd = openat(above, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == EACCES ? TANDEM_OK : tandem_err_of_errno(errno);
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
        return tandem_err_of_errno(errno);
    for (char *name = strtok_r(path, "/", &save); name; name = strtok_r(NULL, "/", &save)) {
        next = openat(above, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (next < 0 && errno == ENOENT) {
            if ((err = make_folder(above, name)) != TANDEM_OK)
                break;
            next = openat(above, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        }
        if (next < 0) {
            err = tandem_err_of_errno(errno);
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
        return tandem_err_of_errno(errno);
    if ((err = check_private(folder->lock)) != TANDEM_OK)
        return err;
    do
        rc = flock(folder->lock, LOCK_EX | LOCK_NB);
    while (rc != 0 && errno == EINTR);
    if (rc == 0)
        return TANDEM_OK;
    return errno == EWOULDBLOCK ? TANDEM_E_LOCKED : tandem_err_of_errno(errno);
}

static bool has_more(const td_data_folder *folder, unsigned part, off_t bytes)
{
    char name[PART_BYTES_MAX + 16];
    struct stat info;

    snprintf(name, sizeof(name), "%s/data.mdb", part_names[part]);
    return fstatat(folder->folder, name, &info, 0) == 0 && info.st_size > bytes;
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
        return tandem_err_of_errno(errno);
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
        err = tandem_err_of_errno(errno);
        goto fail;
    }
    if ((err = check_private(folder->folder)) != TANDEM_OK)
        goto fail;
    if ((err = take_lock(folder, create)) != TANDEM_OK)
        goto fail;
    /* LMDB's file has two pages before its first commit. */
    if (!has_more(folder, 0, 2 * (off_t)sysconf(_SC_PAGESIZE)) &&
        (has_more(folder, 1, 0) || has_more(folder, 2, 0))) {
        err = TANDEM_E_CORRUPT;
        goto fail;
    }
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

/* Remove the files of a folder, whose name in `above` is `name`, then the folder. None is fine. */
static tandem_err remove_files(int above, const char *name, bool itself)
{
    int fd = openat(above, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    tandem_err err = TANDEM_OK;
    struct dirent *file;

    if (!dir) {
        err = itself && errno == ENOENT ? TANDEM_OK : tandem_err_of_errno(errno);
        if (fd >= 0)
            close(fd);
        return err;
    }
    while (err == TANDEM_OK && (errno = 0, file = readdir(dir))) {
        if (strcmp(file->d_name, ".") == 0 || strcmp(file->d_name, "..") == 0)
            continue;
        if (unlinkat(fd, file->d_name, 0) != 0 && errno != ENOENT)
            err = tandem_err_of_errno(errno);
    }
    if (err == TANDEM_OK && errno != 0)
        err = tandem_err_of_errno(errno);
    if (err == TANDEM_OK)
        err = flush(fd);
    closedir(dir);
    if (err == TANDEM_OK && itself && unlinkat(above, name, AT_REMOVEDIR) != 0)
        err = tandem_err_of_errno(errno);
    return err;
}

tandem_err td_data_folder_drop_index(td_data_folder *folder)
{
    return remove_files(folder->folder, part_names[1], false);
}

/* ---- Making one elsewhere first ---- */

/* The folder above path, for flushing; -1 where it may not be read. */
static int open_above(const char *path)
{
    size_t size = strlen(path);
    char *above = strndup(path, size);
    int fd = -1;

    if (!above)
        return -1;
    while (size > 1 && above[size - 1] == '/')
        above[--size] = '\0';
    while (size > 0 && above[size - 1] != '/')
        above[--size] = '\0';
    fd = open(size ? above : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(above);
    return fd;
}

static bool is_mount_point(const char *path, const struct stat *info)
{
    int above = open_above(path);
    struct stat other;
    bool is = above >= 0 && fstat(above, &other) == 0 && other.st_dev != info->st_dev;

    if (above >= 0)
        close(above);
    return is;
}

tandem_err td_data_folder_vacant(const char *path)
{
    tandem_err err = TANDEM_OK;
    struct dirent *file;
    struct stat info;
    DIR *dir;

    if (lstat(path, &info) != 0)
        return errno == ENOENT ? TANDEM_OK : tandem_err_of_errno(errno);
    if (!S_ISDIR(info.st_mode))
        return TANDEM_E_EXISTS;
    if (!(dir = opendir(path)))
        return tandem_err_of_errno(errno);
    while (err == TANDEM_OK && (file = readdir(dir)))
        if (strcmp(file->d_name, ".") != 0 && strcmp(file->d_name, "..") != 0)
            err = TANDEM_E_EXISTS;
    closedir(dir);
    if (err == TANDEM_OK && is_mount_point(path, &info))
        err = TANDEM_E_UNSUPPORTED;
    return err;
}

/* Take the lock of a folder that exists. TANDEM_E_NOT_FOUND: it has none. */
static tandem_err lock_at(const char *path, td_data_folder *folder)
{
    folder->lock = -1;
    folder->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (folder->folder < 0)
        return tandem_err_of_errno(errno);
    return take_lock(folder, false);
}

static void unlock(td_data_folder *folder)
{
    if (folder->lock >= 0)
        close(folder->lock);
    if (folder->folder >= 0)
        close(folder->folder);
}

/* Flush the folders of the parts: the names of their files. */
static tandem_err flush_parts(int folder)
{
    tandem_err err = TANDEM_OK;

    for (unsigned part = 0; part < PARTS && err == TANDEM_OK; part++) {
        int fd = openat(folder, part_names[part], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        err = fd >= 0 ? flush(fd) : tandem_err_of_errno(errno);
        if (fd >= 0)
            close(fd);
    }
    return err == TANDEM_OK ? flush(folder) : err;
}

tandem_err td_data_folder_remove(const char *path)
{
    td_data_folder folder;
    tandem_err err = lock_at(path, &folder);
    struct stat ours, there;

    if (folder.folder < 0)
        return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
    if (err == TANDEM_E_NOT_FOUND) /* its making was broken off before it had a lock */
        err = TANDEM_OK;
    /* Somebody may have moved it to its place while we came for the lock: then it is not ours. */
    if (err == TANDEM_OK && (fstat(folder.folder, &ours) != 0 || lstat(path, &there) != 0 ||
                             ours.st_ino != there.st_ino || ours.st_dev != there.st_dev))
        err = TANDEM_E_LOCKED;
    for (unsigned part = 0; part < PARTS && err == TANDEM_OK; part++)
        err = remove_files(folder.folder, part_names[part], true);
    if (err == TANDEM_OK && unlinkat(folder.folder, "lock", 0) != 0 && errno != ENOENT)
        err = tandem_err_of_errno(errno);
    if (err == TANDEM_OK && rmdir(path) != 0)
        err = errno == ENOTEMPTY || errno == EEXIST ? TANDEM_E_EXISTS : tandem_err_of_errno(errno);
    unlock(&folder);
    return err;
}

tandem_err td_data_folder_move(const char *from, const char *to)
{
    td_data_folder folder;
    tandem_err err = lock_at(from, &folder);
    int above = -1;

    if (err == TANDEM_OK)
        err = flush_parts(folder.folder);
    if (err == TANDEM_OK && rename(from, to) != 0)
        err = errno == ENOTEMPTY || errno == ENOTDIR ? TANDEM_E_EXISTS
                                                      : tandem_err_of_errno(errno);
    if (err == TANDEM_OK && (above = open_above(to)) >= 0)
        err = flush(above);
    if (above >= 0)
        close(above);
    unlock(&folder);
    return err;
}
