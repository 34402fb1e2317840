#include "tests/power_cut_disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS_MAX = 1024, PATH_BYTES = 512 };

static struct {
    struct cut_log *log;
    const char *const *folders;
    unsigned count;
    struct cut_lies lies;
    struct {
        bool known, through;
        unsigned file;
    } fds[FDS_MAX];
} recorder;

static void *grown(void *old, size_t *room, size_t wanted, size_t size)
{
    if (wanted <= *room)
        return old;
    *room = wanted > 2 * *room ? wanted : 2 * *room;
    old = realloc(old, *room * size);
    if (!old)
        abort();
    return old;
}

/* ---- The log ---- */

void cut_record(struct cut_log *log, const char *const *folders, unsigned count,
                struct cut_lies lies)
{
    assert(count <= CUT_FILES_MAX);
    recorder.log = log;
    recorder.folders = folders;
    recorder.count = count;
    recorder.lies = lies;
}

void cut_log_clear(struct cut_log *log)
{
    for (size_t i = 0; i < log->count; i++)
        free(log->events[i].bytes);
    log->count = 0;
}

void cut_log_release(struct cut_log *log)
{
    cut_log_clear(log);
    free(log->events);
    memset(log, 0, sizeof(*log));
}

static void log_event(cut_kind kind, unsigned file, bool through, uint64_t offset, size_t size,
                      const struct iovec *parts, int count)
{
    struct cut_log *log = recorder.log;
    struct cut_event *event;
    size_t at = 0;

    log->events = grown(log->events, &log->room, log->count + 1, sizeof(*log->events));
    event = &log->events[log->count++];
    *event = (struct cut_event){.kind = kind,
                                .file = file,
                                .through = through,
                                .offset = offset,
                                .size = size,
                                .promised = log->promised,
                                .begun = log->begun};
    if (size && !(event->bytes = malloc(size)))
        abort();
    for (int i = 0; i < count && at < size; i++) {
        size_t part = parts[i].iov_len < size - at ? parts[i].iov_len : size - at;

        memcpy(event->bytes + at, parts[i].iov_base, part);
        at += part;
    }
}

/* ---- The calls of the C library ----
 *
 * Under names of our own, so that no header redirects or inlines them. */

#define TAKES_THE_PLACE_OF(name) __asm__(name) __attribute__((visibility("default"), used))

int cut_open(const char *path, int flags, ...) TAKES_THE_PLACE_OF("open");
int cut_close(int fd) TAKES_THE_PLACE_OF("close");
ssize_t cut_pwrite(int fd, const void *bytes, size_t size, off_t offset)
    TAKES_THE_PLACE_OF("pwrite");
ssize_t cut_writev(int fd, const struct iovec *parts, int count) TAKES_THE_PLACE_OF("writev");
int cut_fdatasync(int fd) TAKES_THE_PLACE_OF("fdatasync");
int cut_fsync(int fd) TAKES_THE_PLACE_OF("fsync");

static bool watched(int fd)
{
    return recorder.log && fd >= 0 && fd < FDS_MAX && recorder.fds[fd].known;
}

/* Which file of ours this is; -1: none. */
static int file_of(const char *path)
{
    for (unsigned i = 0; recorder.log && i < recorder.count; i++) {
        size_t size = strlen(recorder.folders[i]);

        if (strncmp(path, recorder.folders[i], size) == 0 &&
            strcmp(path + size, "/data.mdb") == 0)
            return (int)i;
    }
    return -1;
}

int cut_open(const char *path, int flags, ...)
{
    int file = file_of(path), fd;
    mode_t mode = 0;

    if (flags & O_CREAT) {
        va_list args;

        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    fd = (int)syscall(SYS_openat, AT_FDCWD, path, file >= 0 ? flags & ~O_DSYNC : flags, mode);
    if (fd >= 0 && fd < FDS_MAX) {
        recorder.fds[fd].known = file >= 0;
        recorder.fds[fd].through = flags & O_DSYNC;
        recorder.fds[fd].file = file >= 0 ? (unsigned)file : 0;
    }
    return fd;
}

int cut_close(int fd)
{
    if (fd >= 0 && fd < FDS_MAX)
        recorder.fds[fd].known = false;
    return (int)syscall(SYS_close, fd);
}

ssize_t cut_pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    ssize_t done = syscall(SYS_pwrite64, fd, bytes, size, offset);
    struct iovec part = {(void *)bytes, size};

    if (done > 0 && watched(fd))
        log_event(CUT_WRITE, recorder.fds[fd].file,
                  recorder.fds[fd].through && !recorder.lies.through, (uint64_t)offset,
                  (size_t)done, &part, 1);
    return done;
}

ssize_t cut_writev(int fd, const struct iovec *parts, int count)
{
    off_t offset = watched(fd) ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t done = syscall(SYS_writev, fd, parts, count);

    if (done > 0 && watched(fd))
        log_event(CUT_WRITE, recorder.fds[fd].file,
                  recorder.fds[fd].through && !recorder.lies.through, (uint64_t)offset,
                  (size_t)done, parts, count);
    return done;
}

int cut_fdatasync(int fd)
{
    if (watched(fd) && !recorder.lies.flush)
        log_event(CUT_FLUSH, recorder.fds[fd].file, false, 0, 0, NULL, 0);
    return 0;
}

int cut_fsync(int fd)
{
    struct stat info, folder;

    if (watched(fd))
        return cut_fdatasync(fd);
    if (!recorder.log || fstat(fd, &info) != 0 || !S_ISDIR(info.st_mode))
        return 0;
    for (unsigned i = 0; i < recorder.count; i++)
        if (stat(recorder.folders[i], &folder) == 0 && folder.st_ino == info.st_ino &&
            folder.st_dev == info.st_dev)
            log_event(CUT_FLUSH_FOLDER, i, false, 0, 0, NULL, 0);
    return 0;
}

/* ---- Bytes ---- */

static void bytes_reach(struct cut_bytes *bytes, size_t size)
{
    size_t room = bytes->room;

    /* Whole sectors, so that the last one can be copied. */
    bytes->bytes = grown(bytes->bytes, &bytes->room,
                         (size + CUT_SECTOR_BYTES - 1) & ~(size_t)(CUT_SECTOR_BYTES - 1), 1);
    if (bytes->room > room)
        memset(bytes->bytes + room, 0, bytes->room - room);
    if (size > bytes->size)
        bytes->size = size;
}

static void bytes_put(struct cut_bytes *to, uint64_t offset, const void *from, size_t size)
{
    bytes_reach(to, (size_t)offset + size);
    memcpy(to->bytes + offset, from, size);
}

static void bytes_copy(struct cut_bytes *to, const struct cut_bytes *from)
{
    if (from->size)
        bytes_put(to, 0, from->bytes, from->size);
}

/* ---- The real files ---- */

/* What says that a store was closed in order is durably gone since it was opened. */
static int real_open(const struct cut_disk *disk, unsigned file)
{
    char path[PATH_BYTES];
    int fd;

    snprintf(path, sizeof(path), "%s/closed", disk->folders[file]);
    unlink(path);
    snprintf(path, sizeof(path), "%s/data.mdb", disk->folders[file]);
    fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        abort();
    return fd;
}

static void real_write(int fd, const void *bytes, size_t size, uint64_t offset)
{
    if (size && syscall(SYS_pwrite64, fd, bytes, size, offset) != (ssize_t)size)
        abort();
}

static void real_size(int fd, size_t size)
{
    if (ftruncate(fd, (off_t)size) != 0)
        abort();
}

void cut_disk_write_out(const struct cut_disk *disk, bool cached)
{
    for (unsigned i = 0; i < disk->count; i++) {
        const struct cut_bytes *bytes =
            cached ? &disk->files[i].cached : &disk->files[i].durable;
        int fd = real_open(disk, i);

        real_size(fd, 0);
        real_write(fd, bytes->bytes, bytes->size, 0);
        close(fd);
    }
}

/* ---- The disk ---- */

void cut_disk_init(struct cut_disk *disk, const char *const *folders, unsigned count)
{
    memset(disk, 0, sizeof(*disk));
    disk->folders = folders;
    disk->count = count;
}

void cut_disk_release(struct cut_disk *disk)
{
    for (unsigned i = 0; i < disk->count; i++) {
        free(disk->files[i].durable.bytes);
        free(disk->files[i].cached.bytes);
    }
    free(disk->pending);
    free(disk->choices);
    memset(disk, 0, sizeof(*disk));
}

void cut_disk_begin(struct cut_disk *disk, const struct cut_event *event)
{
    struct cut_bytes *cached = &disk->files[event->file].cached;
    uint64_t first = event->offset / CUT_SECTOR_BYTES, last;

    if (event->kind != CUT_WRITE)
        return;
    bytes_put(cached, event->offset, event->bytes, event->size);
    last = (event->offset + event->size - 1) / CUT_SECTOR_BYTES;
    disk->order++;
    for (uint64_t sector = first; sector <= last; sector++) {
        struct cut_pending *pending;

        disk->pending = grown(disk->pending, &disk->pending_room, disk->pending_count + 1,
                              sizeof(*disk->pending));
        pending = &disk->pending[disk->pending_count++];
        pending->file = event->file;
        pending->sector = sector;
        pending->order = disk->order;
        memcpy(pending->bytes, cached->bytes + sector * CUT_SECTOR_BYTES, CUT_SECTOR_BYTES);
    }
}

/* What a finished call makes durable of what is pending: all of its file, or its own sectors with
 * the older versions of them. */
static bool is_flushed(const struct cut_event *event, const struct cut_pending *pending)
{
    if (pending->file != event->file)
        return false;
    return event->kind == CUT_FLUSH ||
           (pending->sector >= event->offset / CUT_SECTOR_BYTES &&
            pending->sector <= (event->offset + event->size - 1) / CUT_SECTOR_BYTES);
}

void cut_disk_end(struct cut_disk *disk, const struct cut_event *event)
{
    struct cut_bytes *durable = &disk->files[event->file].durable;
    size_t kept = 0;
    int fd;

    if (event->kind == CUT_FLUSH_FOLDER)
        disk->files[event->file].named = true;
    if (event->kind != CUT_FLUSH && !(event->kind == CUT_WRITE && event->through))
        return;
    fd = real_open(disk, event->file);
    for (size_t i = 0; i < disk->pending_count; i++) {
        struct cut_pending *pending = &disk->pending[i];

        if (!is_flushed(event, pending)) {
            if (kept != i)
                disk->pending[kept] = *pending;
            kept++;
            continue;
        }
        bytes_put(durable, pending->sector * CUT_SECTOR_BYTES, pending->bytes, CUT_SECTOR_BYTES);
        real_write(fd, pending->bytes, CUT_SECTOR_BYTES, pending->sector * CUT_SECTOR_BYTES);
    }
    disk->pending_count = kept;
    close(fd);
}

/* ---- What the disk may hold after a cut ---- */

static int by_place(const void *a, const void *b)
{
    const struct cut_pending *x = a, *y = b;

    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    if (x->sector != y->sector)
        return x->sector < y->sector ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

void cut_disk_choices(struct cut_disk *disk)
{
    disk->choice_count = 0;
    disk->grown = disk->missing = false;
    memset(disk->lost, 0, sizeof(disk->lost));
    if (disk->pending_count)
        qsort(disk->pending, disk->pending_count, sizeof(*disk->pending), by_place);
    for (size_t i = 0; i < disk->pending_count; i++) {
        if (i && disk->pending[i].file == disk->pending[i - 1].file &&
            disk->pending[i].sector == disk->pending[i - 1].sector) {
            disk->choices[disk->choice_count - 1].versions++;
            continue;
        }
        disk->choices = grown(disk->choices, &disk->choice_room, disk->choice_count + 1,
                              sizeof(*disk->choices));
        disk->choices[disk->choice_count++] = (struct cut_choice){.first = i, .versions = 1};
    }
}

static const struct cut_pending *chosen(const struct cut_disk *disk, size_t choice)
{
    const struct cut_choice *c = &disk->choices[choice];

    return c->chosen ? &disk->pending[c->first + c->chosen - 1] : NULL;
}

static bool is_there(const struct cut_disk *disk, unsigned file)
{
    return !disk->lost[file] && (disk->files[file].named || !disk->missing);
}

static void path_remove(const struct cut_disk *disk, unsigned file)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof(path), "%s/data.mdb", disk->folders[file]);
    if (unlink(path) != 0 && errno != ENOENT)
        abort();
}

void cut_disk_apply(const struct cut_disk *disk)
{
    int fds[CUT_FILES_MAX];

    for (unsigned i = 0; i < disk->count; i++)
        fds[i] = real_open(disk, i);
    for (size_t i = 0; i < disk->choice_count; i++) {
        const struct cut_pending *p = chosen(disk, i);

        if (p)
            real_write(fds[p->file], p->bytes, CUT_SECTOR_BYTES, p->sector * CUT_SECTOR_BYTES);
    }
    for (unsigned i = 0; i < disk->count; i++) {
        if (disk->grown)
            real_size(fds[i], disk->files[i].cached.size);
        close(fds[i]);
        if (!is_there(disk, i))
            path_remove(disk, i);
    }
}

/* Give a range of the real file its durable bytes; what lies beyond them is cut off later. */
static void range_restore(const struct cut_disk *disk, int fd, unsigned file, uint64_t offset,
                          size_t size)
{
    const struct cut_bytes *durable = &disk->files[file].durable;

    if (offset >= durable->size)
        return;
    if (size > durable->size - offset)
        size = durable->size - (size_t)offset;
    real_write(fd, durable->bytes + offset, size, offset);
}

void cut_disk_restore(const struct cut_disk *disk, const struct cut_log *log)
{
    int fds[CUT_FILES_MAX];

    for (unsigned i = 0; i < disk->count; i++) {
        if (!is_there(disk, i)) {
            cut_disk_write_out(disk, false);
            return;
        }
    }
    for (unsigned i = 0; i < disk->count; i++)
        fds[i] = real_open(disk, i);
    for (size_t i = 0; i < disk->choice_count; i++) {
        const struct cut_pending *p = chosen(disk, i);

        if (p)
            range_restore(disk, fds[p->file], p->file, p->sector * CUT_SECTOR_BYTES,
                          CUT_SECTOR_BYTES);
    }
    for (size_t i = 0; i < log->count; i++)
        range_restore(disk, fds[log->events[i].file], log->events[i].file,
                      log->events[i].offset, log->events[i].size);
    for (unsigned i = 0; i < disk->count; i++) {
        real_size(fds[i], disk->files[i].durable.size);
        close(fds[i]);
    }
}

void cut_disk_after_cut(const struct cut_disk *disk, struct cut_disk *out)
{
    cut_disk_init(out, disk->folders, disk->count);
    for (unsigned i = 0; i < disk->count; i++) {
        out->files[i].named = disk->files[i].named;
        if (!is_there(disk, i))
            continue;
        bytes_copy(&out->files[i].durable, &disk->files[i].durable);
        if (disk->grown)
            bytes_reach(&out->files[i].durable, disk->files[i].cached.size);
    }
    for (size_t i = 0; i < disk->choice_count; i++) {
        const struct cut_pending *p = chosen(disk, i);

        if (p && is_there(disk, p->file))
            bytes_put(&out->files[p->file].durable, p->sector * CUT_SECTOR_BYTES, p->bytes,
                      CUT_SECTOR_BYTES);
    }
    for (unsigned i = 0; i < disk->count; i++)
        bytes_copy(&out->files[i].cached, &out->files[i].durable);
}

void cut_disk_after_death(const struct cut_disk *disk, struct cut_disk *out)
{
    cut_disk_init(out, disk->folders, disk->count);
    for (unsigned i = 0; i < disk->count; i++) {
        out->files[i].named = disk->files[i].named;
        bytes_copy(&out->files[i].durable, &disk->files[i].durable);
        bytes_copy(&out->files[i].cached, &disk->files[i].cached);
    }
    out->pending = grown(NULL, &out->pending_room, disk->pending_count, sizeof(*out->pending));
    out->pending_count = disk->pending_count;
    if (disk->pending_count)
        memcpy(out->pending, disk->pending, disk->pending_count * sizeof(*out->pending));
    out->order = disk->order;
}
