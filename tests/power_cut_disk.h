/*
 * A disk that can lose power. The test program takes the place of the C library for the calls by
 * which LMDB writes and flushes its data files, keeps a log of them, and rebuilds from it what a
 * disk may hold after a cut: all that was flushed before it, and of every sector written since any
 * one of its versions, the old one included.
 *
 * The model is harsher than most disks: sectors reach the platter in any order, also those of one
 * write; a file may have its new size and not its new bytes; and a folder that was not flushed may
 * lack a file altogether. It is kinder than the worst in two points, on which LMDB stands: a sector
 * is written whole or not at all (of LMDB's meta pages 120 bytes of one change), and what was
 * flushed stays.
 *
 * Nothing is flushed for real, so the speed of the machine's disk does not matter.
 *
 * Threads: one.
 */
#ifndef TANDEM_TESTS_POWER_CUT_DISK_H
#define TANDEM_TESTS_POWER_CUT_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CUT_SECTOR_BYTES = 512, CUT_FILES_MAX = 2 };

/* ---- The log ---- */

typedef enum cut_kind {
    CUT_WRITE,
    CUT_FLUSH,        /* of a file */
    CUT_FLUSH_FOLDER, /* of the folder that it is in */
} cut_kind;

struct cut_event {
    cut_kind kind;
    bool through; /* CUT_WRITE: durable by itself when the call returns (O_DSYNC) */
    unsigned file;
    uint64_t offset;
    size_t size;
    uint8_t *bytes;
    /* What the program had promised and what it had begun when it made the call. */
    int promised, begun;
};

struct cut_log {
    struct cut_event *events;
    size_t count, room;
    int promised, begun; /* the program's to set; noted with each event */
};

/* Disks that lie about flushing: what a broken store looks like to the explorer. */
struct cut_lies {
    bool flush;   /* a flush does nothing */
    bool through; /* O_DSYNC does nothing */
};

/* From now on log the writes to DIR/data.mdb of these folders; log NULL: no more. */
void cut_record(struct cut_log *log, const char *const *folders, unsigned count,
                struct cut_lies lies);
void cut_log_clear(struct cut_log *log);
void cut_log_release(struct cut_log *log);

/* ---- The disk ---- */

struct cut_bytes {
    uint8_t *bytes;
    size_t size, room; /* bytes up to room are zero beyond size */
};

/* A version of a sector that was written and may be on the disk. */
struct cut_pending {
    unsigned file;
    uint64_t sector;
    uint64_t order;
    uint8_t bytes[CUT_SECTOR_BYTES];
};

/* One sector with all its versions; those of pending stand together, the oldest first. */
struct cut_choice {
    size_t first;
    unsigned versions;
    unsigned chosen; /* 0: as it was flushed; n: the nth version */
};

struct cut_disk {
    const char *const *folders;
    unsigned count;
    struct {
        struct cut_bytes durable, cached;
        bool named; /* the folder was flushed since the file was made */
    } files[CUT_FILES_MAX];
    struct cut_pending *pending;
    size_t pending_count, pending_room;
    uint64_t order;

    struct cut_choice *choices;
    size_t choice_count, choice_room;
    bool grown;   /* the sizes are the new ones, whatever was written */
    bool missing; /* files whose folder was not flushed are not there */
    bool lost[CUT_FILES_MAX]; /* is not there, whatever was flushed */
};

void cut_disk_init(struct cut_disk *disk, const char *const *folders, unsigned count);
void cut_disk_release(struct cut_disk *disk);

/* The call is under way: what it writes may be on the disk or not. */
void cut_disk_begin(struct cut_disk *disk, const struct cut_event *event);
/* It has returned. Writes what became durable to the real files, which hold the durable bytes. */
void cut_disk_end(struct cut_disk *disk, const struct cut_event *event);

/* Fill choices: all sectors that have a choice, none chosen. */
void cut_disk_choices(struct cut_disk *disk);
/* Put the choices into the real files. */
void cut_disk_apply(const struct cut_disk *disk);
/* Make the real files durable's again after cut_disk_apply() and what log tells. */
void cut_disk_restore(const struct cut_disk *disk, const struct cut_log *log);
/* Write the real files from scratch: as durable, or as cached. */
void cut_disk_write_out(const struct cut_disk *disk, bool cached);

/* Another disk that goes on from what this one holds after a cut with the present choices. */
void cut_disk_after_cut(const struct cut_disk *disk, struct cut_disk *out);
/* Another disk, the same: only the program died, and the system keeps what it wrote. */
void cut_disk_after_death(const struct cut_disk *disk, struct cut_disk *out);

#endif
