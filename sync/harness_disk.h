/*
 * Where a reactor of the harness keeps its data: three disks in memory, or a folder with real LMDB
 * stores. It outlives the reactor's lives, and can be copied, in use or not: what is committed is in
 * the copy.
 *
 * Threads: one.
 */
#ifndef TANDEM_SYNC_HARNESS_DISK_H
#define TANDEM_SYNC_HARNESS_DISK_H

#include "reactor/reactor_parts.h"

typedef struct td_harness_disk {
    td_reactor_disks memory;
    char *path; /* NULL: in memory */
} td_harness_disk;

/* An empty disk. root NULL: in memory; else the folder root/name, made when a reactor opens it. */
tandem_err td_harness_disk_open(const char *root, const char *name, td_harness_disk **out);
/* Another disk, with what is committed on this one. */
tandem_err td_harness_disk_copy(const td_harness_disk *disk, const char *root, const char *name,
                                td_harness_disk **out);
/* No reactor may use it. A folder is removed. NULL is fine. */
void td_harness_disk_free(td_harness_disk *disk);

#endif
