#include "sync/harness_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a data folder consists of; see store/data_folder.h. */
static const char *const parts[] = {"store", "index", "sync"};

enum { PARTS = sizeof(parts) / sizeof(parts[0]) };

static tandem_err disk_new(const char *root, const char *name, td_harness_disk **out)
{
    td_harness_disk *disk = calloc(1, sizeof(*disk));

    if (!disk)
        return TANDEM_E_NOMEM;
    if (root && asprintf(&disk->path, "%s/%s", root, name) < 0) {
        free(disk);
        return TANDEM_E_NOMEM;
    }
    *out = disk;
    return TANDEM_OK;
}

tandem_err td_harness_disk_open(const char *root, const char *name, td_harness_disk **out)
{
    td_harness_disk *disk;
    tandem_err err;

    if ((err = disk_new(root, name, &disk)) != TANDEM_OK)
        return err;
    if (!root && ((err = td_memory_disk_open(&disk->memory.ops)) != TANDEM_OK ||
                  (err = td_memory_disk_open(&disk->memory.index)) != TANDEM_OK ||
                  (err = td_memory_disk_open(&disk->memory.sync)) != TANDEM_OK)) {
        td_harness_disk_free(disk);
        return err;
    }
    *out = disk;
    return TANDEM_OK;
}

/* ---- Folders ---- */

static bool make_path(char out[PATH_MAX], const char *folder, const char *part, const char *file)
{
    int size = snprintf(out, PATH_MAX, "%s/%s/%s", folder, part, file);

    return size > 0 && size < PATH_MAX;
}

static tandem_err file_copy(const char *from, const char *to)
{
    char buffer[64 * 1024];
    tandem_err err = TANDEM_E_IO;
    int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
    ssize_t size;

    if (in < 0)
        return errno == ENOENT ? TANDEM_OK : TANDEM_E_IO; /* nothing was kept there yet */
    if ((out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) < 0)
        goto done;
    while ((size = read(in, buffer, sizeof(buffer))) > 0)
        if (write(out, buffer, (size_t)size) != size)
            goto done;
    if (size == 0)
        err = TANDEM_OK;

done:
    if (out >= 0)
        close(out);
    close(in);
    return err;
}

static tandem_err folder_copy(const char *from, const char *to)
{
    char source[PATH_MAX], target[PATH_MAX];
    tandem_err err = TANDEM_OK;

    if (mkdir(to, 0700) != 0)
        return TANDEM_E_IO;
    for (unsigned i = 0; i < PARTS && err == TANDEM_OK; i++) {
        if (!make_path(target, to, parts[i], "") || mkdir(target, 0700) != 0 ||
            !make_path(source, from, parts[i], "data.mdb") ||
            !make_path(target, to, parts[i], "data.mdb"))
            return TANDEM_E_IO;
        err = file_copy(source, target);
    }
    return err;
}

static void folder_remove(const char *folder)
{
    static const char *const files[] = {"data.mdb", "lock.mdb", "closed"};
    char path[PATH_MAX];

    for (unsigned i = 0; i < PARTS; i++) {
        for (size_t j = 0; j < sizeof(files) / sizeof(files[0]); j++)
            if (make_path(path, folder, parts[i], files[j]))
                unlink(path);
        if (make_path(path, folder, parts[i], ""))
            rmdir(path);
    }
    if (make_path(path, folder, "", "lock"))
        unlink(path);
    rmdir(folder);
}

/* ---- Copies ---- */

tandem_err td_harness_disk_copy(const td_harness_disk *disk, const char *root, const char *name,
                                td_harness_disk **out)
{
    td_harness_disk *copy;
    tandem_err err;

    if ((err = disk_new(root, name, &copy)) != TANDEM_OK)
        return err;
    if (root)
        err = folder_copy(disk->path, copy->path);
    else if ((err = td_memory_disk_copy(disk->memory.ops, &copy->memory.ops)) == TANDEM_OK &&
             (err = td_memory_disk_copy(disk->memory.index, &copy->memory.index)) == TANDEM_OK)
        err = td_memory_disk_copy(disk->memory.sync, &copy->memory.sync);
    if (err != TANDEM_OK) {
        td_harness_disk_free(copy);
        return err;
    }
    *out = copy;
    return TANDEM_OK;
}

void td_harness_disk_free(td_harness_disk *disk)
{
    if (!disk)
        return;
    if (disk->path)
        folder_remove(disk->path);
    td_memory_disk_free(disk->memory.ops);
    td_memory_disk_free(disk->memory.index);
    td_memory_disk_free(disk->memory.sync);
    free(disk->path);
    free(disk);
}
