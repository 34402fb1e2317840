/*
 * Where tests put the files of thousands of stores: in memory, if there is a folder for that. It is
 * faster, and spares disks what proves nothing there.
 */
#ifndef TANDEM_TESTS_MEMORY_FOLDER_H
#define TANDEM_TESTS_MEMORY_FOLDER_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { MEMORY_FOLDER_BYTES_MIN = 256 << 20 };

/* TMPDIR if that is set. */
static inline const char *memory_folder(void)
{
    const char *tmp = getenv("TMPDIR"), *memory = "/dev/shm";
    struct statvfs disk;

    if (!tmp && access(memory, W_OK) == 0 && statvfs(memory, &disk) == 0 &&
        (uint64_t)disk.f_bavail * disk.f_frsize >= MEMORY_FOLDER_BYTES_MIN)
        return memory;
    return tmp ? tmp : "/tmp";
}

#endif
