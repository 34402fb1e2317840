/*
 * Folders for tests: below TMPDIR, or /tmp where that is not set. What takes the files of
 * thousands of stores is put in memory then, if there is a folder for that: it is faster, and spares
 * disks what proves nothing there. What goes wrong ends the program.
 */
#ifndef TANDEM_TESTS_FOLDER_H
#define TANDEM_TESTS_FOLDER_H

#include <ftw.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { FOLDER_BYTES = 200, MEMORY_BYTES_MIN = 256 << 20 };

static inline void folder_must(bool good, const char *path)
{
    if (good)
        return;
    perror(path);
    abort();
}

static inline const char *folder_above(bool in_memory)
{
    const char *tmp = getenv("TMPDIR"), *memory = "/dev/shm";
    struct statvfs disk;

    if (!tmp && in_memory && access(memory, W_OK) == 0 && statvfs(memory, &disk) == 0 &&
        (uint64_t)disk.f_bavail * disk.f_frsize >= MEMORY_BYTES_MIN)
        return memory;
    return tmp ? tmp : "/tmp";
}

/* Make one of mode 0700, with this word in its name. */
static inline void folder_make(char path[FOLDER_BYTES], const char *word, bool in_memory)
{
    int size = snprintf(path, FOLDER_BYTES, "%s/tandem-%s-XXXXXX", folder_above(in_memory), word);

    folder_must(size > 0 && size < FOLDER_BYTES && mkdtemp(path) != NULL, path);
}

static inline int folder_remove_one(const char *path, const struct stat *info, int kind,
                                    struct FTW *place)
{
    (void)info;
    (void)kind;
    folder_must(place->level == 0 || remove(path) == 0, path);
    return 0;
}

static inline void folder_empty(const char *path)
{
    enum { OPEN_FOLDERS = 16 };

    folder_must(nftw(path, folder_remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS) == 0, path);
}

static inline void folder_remove(const char *path)
{
    folder_empty(path);
    folder_must(rmdir(path) == 0, path);
}

#endif
