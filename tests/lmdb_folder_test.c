/*
 * The folder of an LMDB store (store/lmdb_folder.h): a file that was not made whole, the mark of a
 * closed store, and folders and disks that refuse.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/lmdb_folder.h"
#include "tests/folder.h"

enum { PATH_BYTES = 300, METAS_BYTES = 2 * 4096, MARK_BYTES = 32 };

struct bed {
    char folder[FOLDER_BYTES];
    char data[PATH_BYTES], mark[PATH_BYTES], lock[PATH_BYTES];
    struct rlimit limit; /* of a file's size */
};

static int bed_make(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_non_null(bed);
    folder_make(bed->folder, "lmdb-folder", false);
    snprintf(bed->data, sizeof(bed->data), "%s/data.mdb", bed->folder);
    snprintf(bed->mark, sizeof(bed->mark), "%s/closed", bed->folder);
    snprintf(bed->lock, sizeof(bed->lock), "%s/lock.mdb", bed->folder);
    assert_int_equal(0, getrlimit(RLIMIT_FSIZE, &bed->limit));
    signal(SIGXFSZ, SIG_IGN);
    *state = bed;
    return 0;
}

static int bed_unmake(void **state)
{
    struct bed *bed = *state;

    setrlimit(RLIMIT_FSIZE, &bed->limit);
    signal(SIGXFSZ, SIG_DFL);
    folder_remove(bed->folder);
    free(bed);
    return 0;
}

/* From now on no file grows beyond so many bytes. */
static void disk_limit(const struct bed *bed, rlim_t bytes)
{
    struct rlimit limit = {.rlim_cur = bytes, .rlim_max = bed->limit.rlim_max};

    assert_int_equal(0, setrlimit(RLIMIT_FSIZE, &limit));
}

static void write_file(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(size, write(fd, bytes, size));
    close(fd);
}

static off_t size_of(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 ? info.st_size : -1;
}

/* Two meta pages as LMDB makes them: number, kind, magic, version, … size of pages, … transaction. */
static void metas_make(uint8_t metas[METAS_BYTES], uint64_t txn)
{
    static const uint32_t magic = 0xbeefc0de, version = 1, page = METAS_BYTES / 2;

    memset(metas, 0, METAS_BYTES);
    for (size_t at = 0; at < METAS_BYTES; at += page) {
        metas[at] = at != 0;
        metas[at + 10] = 8;
        memcpy(metas + at + 16, &magic, sizeof(magic));
        memcpy(metas + at + 20, &version, sizeof(version));
        memcpy(metas + at + 40, &page, sizeof(page));
        memcpy(metas + at + 144, &txn, sizeof(txn));
    }
}

static td_lmdb_mark mark_read(const struct bed *bed)
{
    td_lmdb_mark mark;

    assert_int_equal(0, td_lmdb_mark_read(bed->folder, &mark));
    return mark;
}

/* ---- A file that was not made whole ---- */

static void only_what_lmdb_left_half_made_is_begun_anew(void **state)
{
    static const struct {
        size_t size;                 /* of the file */
        size_t cleared, cleared_end; /* bytes that did not reach the disk */
        size_t other;                /* a byte that is neither LMDB's nor zero; 0: none */
        uint64_t txn;
        bool torn;
    } cases[] = {
        {METAS_BYTES, 0, 0, 0, 0, false},
        {METAS_BYTES, 0, 4096, 0, 0, true},
        {METAS_BYTES, 4096, METAS_BYTES, 0, 0, true},
        {METAS_BYTES, 0, METAS_BYTES, 0, 0, true},
        {4096, 0, 0, 0, 0, true},
        {512, 0, 0, 0, 0, true},
        {512, 0, 512, 0, 0, true},
        {0, 0, 0, 0, 0, false},
        {513, 0, 0, 0, 0, false},                   /* not cut where a disk cuts */
        {METAS_BYTES, 0, 4096, 4000, 0, false},     /* somebody wrote */
        {METAS_BYTES, 0, 4096, 5000, 0, false},
        {METAS_BYTES, 4096, METAS_BYTES, 0, 1, false}, /* something was committed */
        {METAS_BYTES, 16, 20, 0, 0, false},            /* half a meta page */
    };
    struct bed *bed = *state;

    if (sysconf(_SC_PAGESIZE) != METAS_BYTES / 2)
        skip(); /* LMDB makes pages of the system's size */
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t bytes[METAS_BYTES];

        metas_make(bytes, cases[i].txn);
        memset(bytes + cases[i].cleared, 0, cases[i].cleared_end - cases[i].cleared);
        if (cases[i].other)
            bytes[cases[i].other] = 1;
        write_file(bed->data, bytes, cases[i].size);
        assert_int_equal(0, td_lmdb_creation_mend(bed->folder));
        if ((size_of(bed->data) == 0) != (cases[i].torn || cases[i].size == 0))
            fail_msg("case %zu: %s", i, cases[i].torn ? "left as it was" : "taken for torn");
    }
    assert_int_equal(0, truncate(bed->data, METAS_BYTES + 512)); /* too long to be a new one */
    assert_int_equal(0, td_lmdb_creation_mend(bed->folder));
    assert_int_equal(METAS_BYTES + 512, size_of(bed->data));
    assert_int_equal(0, unlink(bed->data));
    assert_int_equal(0, td_lmdb_creation_mend(bed->folder));
    assert_int_equal(-1, size_of(bed->data));
}

/* ---- The mark ---- */

static void a_mark_is_of_the_meta_pages_that_it_was_made_with(void **state)
{
    struct bed *bed = *state;
    uint8_t metas[METAS_BYTES];

    metas_make(metas, 7);
    write_file(bed->data, metas, sizeof(metas));
    assert_int_equal(TD_LMDB_NOT_CLOSED, mark_read(bed));
    assert_int_equal(0, td_lmdb_mark_make(bed->folder));
    assert_int_equal(TD_LMDB_CLOSED, mark_read(bed));
    metas[144] ^= 1;
    write_file(bed->data, metas, sizeof(metas));
    assert_int_equal(TD_LMDB_CHANGED, mark_read(bed));
    metas[144] ^= 1;
    for (size_t size = 0; size < METAS_BYTES; size += 256) { /* cut off */
        write_file(bed->data, metas, size);
        assert_int_equal(size >= 4096 + 512 ? TD_LMDB_CLOSED : TD_LMDB_CHANGED, mark_read(bed));
    }
    assert_int_equal(0, unlink(bed->data));
    assert_int_equal(TD_LMDB_NOT_CLOSED, mark_read(bed)); /* there is nothing to compare */
    write_file(bed->data, metas, sizeof(metas));
    assert_int_equal(0, td_lmdb_mark_remove(bed->folder));
    assert_int_equal(TD_LMDB_NOT_CLOSED, mark_read(bed));
    assert_int_equal(0, td_lmdb_mark_remove(bed->folder));
}

static void what_has_no_meta_pages_gets_no_mark(void **state)
{
    struct bed *bed = *state;
    uint8_t metas[METAS_BYTES];

    metas_make(metas, 0);
    assert_int_equal(ENOENT, td_lmdb_mark_make(bed->folder));
    write_file(bed->data, metas, 511);
    assert_int_equal(ENODATA, td_lmdb_mark_make(bed->folder));
    write_file(bed->data, metas, 4096 + 511);
    assert_int_equal(ENODATA, td_lmdb_mark_make(bed->folder));
    assert_int_equal(-1, size_of(bed->mark));
}

static void a_mark_that_did_not_fit_on_the_disk_is_none(void **state)
{
    struct bed *bed = *state;
    uint8_t metas[METAS_BYTES];

    metas_make(metas, 7);
    write_file(bed->data, metas, sizeof(metas));
    for (rlim_t bytes = 0; bytes < MARK_BYTES; bytes += 8) {
        disk_limit(bed, bytes);
        assert_int_equal(EIO, td_lmdb_mark_make(bed->folder));
        assert_int_equal(bytes, size_of(bed->mark));
        assert_int_equal(TD_LMDB_NOT_CLOSED, mark_read(bed));
    }
    disk_limit(bed, bed->limit.rlim_cur);
    assert_int_equal(0, td_lmdb_mark_make(bed->folder));
    assert_int_equal(TD_LMDB_CLOSED, mark_read(bed));
}

/* ---- Folders and disks that refuse ---- */

static void a_full_disk_is_told_before_the_reader_table_is_mapped(void **state)
{
    struct bed *bed = *state;

    disk_limit(bed, 4096);
    assert_int_equal(EFBIG, td_lmdb_lock_reserve(bed->folder));
    disk_limit(bed, bed->limit.rlim_cur);
    assert_int_equal(0, td_lmdb_lock_reserve(bed->folder));
    assert_true(size_of(bed->lock) >= TD_LMDB_READERS_MAX * 64);
}

/* What each call says of a folder. */
struct refused {
    int sync, reserve, mend, make, read, remove;
};

static void assert_calls(const char *folder, const struct refused *expected)
{
    td_lmdb_mark mark;

    assert_int_equal(expected->sync, td_lmdb_folder_sync(folder));
    assert_int_equal(expected->reserve, td_lmdb_lock_reserve(folder));
    assert_int_equal(expected->mend, td_lmdb_creation_mend(folder));
    assert_int_equal(expected->make, td_lmdb_mark_make(folder));
    assert_int_equal(expected->read, td_lmdb_mark_read(folder, &mark));
    assert_int_equal(TD_LMDB_NOT_CLOSED, mark);
    assert_int_equal(expected->remove, td_lmdb_mark_remove(folder));
}

static void what_is_no_folder_is_refused_by_each_call(void **state)
{
    static const struct refused too_long = {ENAMETOOLONG, ENAMETOOLONG, ENAMETOOLONG,
                                            ENAMETOOLONG, ENAMETOOLONG, ENAMETOOLONG};
    static const struct refused missing = {ENOENT, ENOENT, 0, ENOENT, 0, 0};
    static const struct refused file = {ENOTDIR, ENOTDIR, ENOTDIR, ENOTDIR, ENOTDIR, ENOTDIR};
    struct bed *bed = *state;
    char *path = calloc(1, PATH_MAX + 1);

    assert_non_null(path);
    memset(path, 'n', PATH_MAX);
    assert_calls(path, &too_long);
    snprintf(path, PATH_MAX, "%s/missing", bed->folder);
    assert_calls(path, &missing);
    write_file(path, "", 0);
    assert_calls(path, &file);
    free(path);
}

static void what_is_no_file_is_refused(void **state)
{
    struct bed *bed = *state;
    uint8_t metas[METAS_BYTES];
    td_lmdb_mark mark;

    /* Folders where files should be. */
    assert_int_equal(0, mkdir(bed->data, 0700));
    assert_int_equal(0, mkdir(bed->lock, 0700));
    assert_int_equal(EISDIR, td_lmdb_lock_reserve(bed->folder));
    assert_int_equal(EISDIR, td_lmdb_creation_mend(bed->folder));
    assert_int_equal(ENODATA, td_lmdb_mark_make(bed->folder));
    assert_int_equal(0, rmdir(bed->data));
    metas_make(metas, 7);
    write_file(bed->data, metas, sizeof(metas));
    assert_int_equal(0, mkdir(bed->mark, 0700));
    assert_int_equal(EISDIR, td_lmdb_mark_make(bed->folder));
    assert_int_equal(TD_LMDB_NOT_CLOSED, mark_read(bed));
    assert_true(td_lmdb_mark_remove(bed->folder) != 0);
    assert_int_equal(0, rmdir(bed->mark));
    /* A mark, and a file that cannot be opened now: whether it changed is not known. */
    assert_int_equal(0, td_lmdb_mark_make(bed->folder));
    assert_int_equal(0, unlink(bed->data));
    assert_int_equal(0, symlink(bed->data, bed->data));
    assert_int_equal(ELOOP, td_lmdb_mark_read(bed->folder, &mark));
    assert_int_equal(TD_LMDB_NOT_CLOSED, mark);
}

#define ON_BED(test) cmocka_unit_test_setup_teardown(test, bed_make, bed_unmake)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        ON_BED(only_what_lmdb_left_half_made_is_begun_anew),
        ON_BED(a_mark_is_of_the_meta_pages_that_it_was_made_with),
        ON_BED(what_has_no_meta_pages_gets_no_mark),
        ON_BED(a_mark_that_did_not_fit_on_the_disk_is_none),
        ON_BED(a_full_disk_is_told_before_the_reader_table_is_mapped),
        ON_BED(what_is_no_folder_is_refused_by_each_call),
        ON_BED(what_is_no_file_is_refused),
    };

    return cmocka_run_group_tests_name("lmdb folder", tests, NULL, NULL);
}
