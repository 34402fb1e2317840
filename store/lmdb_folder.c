#include "store/lmdb_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/operation.h"

enum {
    LOCK_FILE_BYTES = 32768,
    /* LMDB's meta pages: how many, where in one its magic, the size of pages and its transaction
     * stand, what of one is not zero; and what of a file is written whole or not at all. */
    METAS = 2,
    META_MAGIC_AT = 16,
    META_PAGE_BYTES_AT = META_MAGIC_AT + 24,
    META_TRANSACTION_AT = META_MAGIC_AT + 128,
    SECTOR_BYTES = 512,
    META_BYTES_MAX = 512,
    MARK_BYTES = 32,
};
_Static_assert((TD_LMDB_READERS_MAX - 1) * 64 + 192 <= LOCK_FILE_BYTES,
               "a slot of 64 bytes for each reader but one, and a header of 192");

int td_lmdb_folder_sync(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

    if (fd < 0)
        return errno;
    if (fsync(fd) != 0 && errno != EINVAL)
        rc = errno;
    close(fd);
    return rc;
}

int td_lmdb_lock_reserve(const char *folder)
{
    char path[PATH_MAX];
    int fd, rc;

    if ((size_t)snprintf(path, sizeof(path), "%s/lock.mdb", folder) >= sizeof(path))
        return ENAMETOOLONG;
    if ((fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
        return errno;
    rc = posix_fallocate(fd, 0, LOCK_FILE_BYTES);
    close(fd);
    return rc == EOPNOTSUPP ? 0 : rc;
}

/* Is this LMDB's new file with a part of it missing: each meta page there, of no transaction yet, or
 * zeros, the rest zeros? */
static bool creation_is_torn(const uint8_t *bytes, size_t size, size_t page)
{
    static const uint32_t magic = 0xbeefc0de;
    static const uint64_t none = 0;
    unsigned metas = 0;
    size_t at = 0;

    if (size % SECTOR_BYTES != 0)
        return false;
    while (at < size) {
        if (at % page == 0 && memcmp(bytes + at + META_MAGIC_AT, &magic, sizeof(magic)) == 0 &&
            memcmp(bytes + at + META_TRANSACTION_AT, &none, sizeof(none)) == 0) {
            metas++;
            at += META_BYTES_MAX;
        } else if (bytes[at++] != 0) {
            return false; /* somebody else's */
        }
    }
    return size > 0 && metas < METAS;
}

int td_lmdb_creation_mend(const char *folder)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *bytes = NULL;
    char path[PATH_MAX];
    struct stat info;
    int fd, rc = 0;

    if ((size_t)snprintf(path, sizeof(path), "%s/data.mdb", folder) >= sizeof(path))
        return ENAMETOOLONG;
    if ((fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
        return errno == ENOENT ? 0 : errno;
    if (fstat(fd, &info) != 0)
        rc = errno;
    else if ((uint64_t)info.st_size <= METAS * page) {
        bytes = calloc(METAS, page);
        if (!bytes)
            rc = ENOMEM;
        else if (pread(fd, bytes, (size_t)info.st_size, 0) != info.st_size)
            rc = EIO;
        else if (creation_is_torn(bytes, (size_t)info.st_size, page) && ftruncate(fd, 0) != 0)
            rc = errno;
    }
    free(bytes);
    close(fd);
    return rc;
}

/* ---- The mark of a closed store ---- */

static int mark_path(const char *folder, char path[PATH_MAX])
{
    int size = snprintf(path, PATH_MAX, "%s/closed", folder);

    return size < 0 || size >= PATH_MAX ? ENAMETOOLONG : 0;
}

/* ENODATA: they are not both there. */
static int metas_read(const char *folder, uint8_t metas[METAS * META_BYTES_MAX])
{
    char path[PATH_MAX];
    uint32_t page;
    int fd, rc = 0;

    if ((size_t)snprintf(path, sizeof(path), "%s/data.mdb", folder) >= sizeof(path))
        return ENAMETOOLONG;
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return errno;
    if (pread(fd, metas, META_BYTES_MAX, 0) != META_BYTES_MAX) {
        rc = ENODATA;
    } else {
        memcpy(&page, metas + META_PAGE_BYTES_AT, sizeof(page));
        if (pread(fd, metas + META_BYTES_MAX, META_BYTES_MAX, page) != META_BYTES_MAX)
            rc = ENODATA;
    }
    close(fd);
    return rc;
}

/* The half of a mark that proves the other. */
static void mark_prove(const uint8_t mark[MARK_BYTES / 2], uint8_t out[MARK_BYTES / 2])
{
    tandem_slice part = tandem_slice_of(mark, MARK_BYTES / 2);
    uint8_t hash[TANDEM_HASH_BYTES];

    td_hash(hash, &part, 1);
    memcpy(out, hash, MARK_BYTES / 2);
}

static int mark_of_metas(const char *folder, uint8_t mark[MARK_BYTES])
{
    uint8_t metas[METAS * META_BYTES_MAX], hash[TANDEM_HASH_BYTES];
    tandem_slice part = tandem_slice_of(metas, sizeof(metas));
    int rc = metas_read(folder, metas);

    if (rc)
        return rc;
    td_hash(hash, &part, 1);
    memcpy(mark, hash, MARK_BYTES / 2);
    mark_prove(mark, mark + MARK_BYTES / 2);
    return 0;
}

int td_lmdb_mark_make(const char *folder)
{
    uint8_t mark[MARK_BYTES];
    char path[PATH_MAX];
    int rc, fd;

    if ((rc = mark_path(folder, path)) != 0 || (rc = mark_of_metas(folder, mark)) != 0)
        return rc;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    rc = write(fd, mark, sizeof(mark)) == (ssize_t)sizeof(mark) ? 0 : EIO;
    close(fd);
    return rc;
}

int td_lmdb_mark_read(const char *folder, td_lmdb_mark *out)
{
    uint8_t mark[MARK_BYTES], proof[MARK_BYTES / 2], now[MARK_BYTES];
    char path[PATH_MAX];
    ssize_t size;
    int rc, fd;

    *out = TD_LMDB_NOT_CLOSED;
    if ((rc = mark_path(folder, path)) != 0)
        return rc;
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return errno == ENOENT ? 0 : errno;
    size = read(fd, mark, sizeof(mark));
    close(fd);
    if (size == (ssize_t)sizeof(mark))
        mark_prove(mark, proof);
    if (size != (ssize_t)sizeof(mark) || memcmp(mark + MARK_BYTES / 2, proof, sizeof(proof)) != 0)
        return 0;
    rc = mark_of_metas(folder, now);
    if (rc == ENOENT)
        return 0;
    if (rc != 0 && rc != ENODATA)
        return rc;
    *out = rc == 0 && memcmp(mark, now, sizeof(now)) == 0 ? TD_LMDB_CLOSED : TD_LMDB_CHANGED;
    return 0;
}

int td_lmdb_mark_remove(const char *folder)
{
    char path[PATH_MAX];
    int rc = mark_path(folder, path);

    if (rc)
        return rc;
    return unlink(path) == 0 || errno == ENOENT ? 0 : errno;
}
