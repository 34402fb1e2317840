/* The data folder: what it makes, whom it refuses, and that one holds it at a time. */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/data_folder.h"
#include "tests/folder.h"

struct place {
    char root[FOLDER_BYTES];
    char path[300]; /* root/data, not made yet */
};

static int place_make(void **state)
{
    struct place *place = calloc(1, sizeof(*place));

    folder_make(place->root, "folder", false);
    snprintf(place->path, sizeof(place->path), "%s/data", place->root);
    *state = place;
    return 0;
}

static int place_unmake(void **state)
{
    struct place *place = *state;

    folder_remove(place->root);
    free(place);
    return 0;
}

static td_data_folder *opened(const char *path)
{
    td_data_folder *folder = NULL;

    assert_int_equal(TANDEM_OK, td_data_folder_open(path, true, &folder));
    return folder;
}

static void assert_refused(tandem_err expected, const char *path, bool create)
{
    td_data_folder *folder = NULL;

    assert_int_equal(expected, td_data_folder_open(path, create, &folder));
    assert_null(folder);
}

static void assert_mode(unsigned expected, const char *path)
{
    struct stat info;

    assert_int_equal(0, stat(path, &info));
    assert_int_equal(expected, info.st_mode & 07777);
}

static void assert_absent(const char *path)
{
    struct stat info;

    assert_int_equal(-1, stat(path, &info));
}

static void everything_missing_is_made_for_the_owner_alone(void **state)
{
    struct place *place = *state;
    char deep[400], above[400], lock[450];
    mode_t old = umask(0);
    td_data_folder *folder;

    snprintf(above, sizeof(above), "%s/state", place->path);
    snprintf(deep, sizeof(deep), "%s/state//tandem/", place->path);
    folder = opened(deep);
    umask(old);
    snprintf(lock, sizeof(lock), "%s/lock", deep);
    assert_mode(0700, place->path);
    assert_mode(0700, above);
    assert_mode(0700, deep);
    assert_mode(0600, lock);
    assert_mode(0700, td_data_folder_store(folder));
    assert_mode(0700, td_data_folder_index(folder));
    assert_mode(0700, td_data_folder_sync(folder));
    assert_string_not_equal(td_data_folder_store(folder), td_data_folder_index(folder));
    assert_string_not_equal(td_data_folder_store(folder), td_data_folder_sync(folder));
    td_data_folder_free(folder);
    td_data_folder_free(NULL);
}

static void a_relative_path_will_do(void **state)
{
    struct place *place = *state;
    char cwd[PATH_MAX];
    td_data_folder *folder;

    assert_non_null(getcwd(cwd, sizeof(cwd)));
    assert_int_equal(0, chdir(place->root));
    folder = opened("data");
    assert_int_equal(0, chdir(cwd));
    assert_mode(0700, place->path);
    td_data_folder_free(folder);
}

static void a_folder_is_made_only_when_asked(void **state)
{
    struct place *place = *state;
    char lock[400];

    assert_refused(TANDEM_E_NOT_FOUND, place->path, false);
    assert_absent(place->path);

    /* One that was never a data folder is not turned into one either. */
    assert_int_equal(0, mkdir(place->path, 0700));
    assert_refused(TANDEM_E_NOT_FOUND, place->path, false);
    snprintf(lock, sizeof(lock), "%s/lock", place->path);
    assert_absent(lock);

    td_data_folder_free(opened(place->path));
    {
        td_data_folder *folder = NULL;

        assert_int_equal(TANDEM_OK, td_data_folder_open(place->path, false, &folder));
        td_data_folder_free(folder);
    }
}

static void one_holds_it_at_a_time(void **state)
{
    struct place *place = *state;
    td_data_folder *folder = opened(place->path);
    pid_t child;
    int status;

    assert_refused(TANDEM_E_LOCKED, place->path, true);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        td_data_folder *other = NULL;

        _exit(td_data_folder_open(place->path, false, &other) == TANDEM_E_LOCKED ? 0 : 1);
    }
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_int_equal(0, status);
    td_data_folder_free(folder);
    td_data_folder_free(opened(place->path));
}

static void a_killed_holder_leaves_no_lock(void **state)
{
    struct place *place = *state;
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        td_data_folder *folder = NULL;

        if (td_data_folder_open(place->path, true, &folder) == TANDEM_OK)
            abort();
        _exit(1);
    }
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_true(WIFSIGNALED(status));
    td_data_folder_free(opened(place->path));
}

static void what_others_may_enter_is_refused(void **state)
{
    static const mode_t modes[] = {0710, 0701, 0740, 0707, 0770};
    struct place *place = *state;
    char part[400];
    td_data_folder *folder;

    assert_int_equal(0, mkdir(place->path, 0700));
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        assert_int_equal(0, chmod(place->path, modes[i]));
        assert_refused(TANDEM_E_PERMISSION, place->path, true);
    }
    assert_int_equal(0, chmod(place->path, 0700));
    folder = opened(place->path);
    snprintf(part, sizeof(part), "%s", td_data_folder_sync(folder));
    td_data_folder_free(folder);
    assert_int_equal(0, chmod(part, 0750));
    assert_refused(TANDEM_E_PERMISSION, place->path, true);
    assert_int_equal(0, chmod(part, 0700));
    snprintf(part, sizeof(part), "%s/lock", place->path);
    assert_int_equal(0, chmod(part, 0644));
    assert_refused(TANDEM_E_PERMISSION, place->path, true);
}

static void what_belongs_to_others_is_refused(void **state)
{
    struct place *place = *state;

    if (geteuid() == 0) {
        assert_int_equal(0, mkdir(place->path, 0700));
        assert_int_equal(0, chown(place->path, 65534, (gid_t)-1));
        assert_refused(TANDEM_E_PERMISSION, place->path, true);
    } else {
        assert_refused(TANDEM_E_PERMISSION, "/root/tandem-data", true);
    }
}

static void a_path_that_cannot_be_is_invalid(void **state)
{
    struct place *place = *state;
    char *endless = malloc(PATH_MAX + 1), inside[400];
    FILE *file;

    memset(endless, 'a', PATH_MAX);
    endless[PATH_MAX] = '\0';
    assert_refused(TANDEM_E_INVALID, endless, true);
    endless[300] = '\0'; /* one name of that length */
    assert_refused(TANDEM_E_INVALID, endless, true);
    free(endless);
    assert_refused(TANDEM_E_INVALID, "", true);

    file = fopen(place->path, "w");
    assert_non_null(file);
    fclose(file);
    assert_refused(TANDEM_E_INVALID, place->path, true);
    snprintf(inside, sizeof(inside), "%s/data", place->path);
    assert_refused(TANDEM_E_INVALID, inside, true);
}

static void a_lock_that_is_a_link_is_not_followed(void **state)
{
    struct place *place = *state;
    char link[400], target[400];

    snprintf(link, sizeof(link), "%s/lock", place->path);
    snprintf(target, sizeof(target), "%s/elsewhere", place->root);
    assert_int_equal(0, mkdir(place->path, 0700));
    assert_int_equal(0, symlink(target, link));
    assert_refused(TANDEM_E_INVALID, place->path, true);
    assert_absent(target);
}

static void file_make(const char *folder, const char *name)
{
    char path[450];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(4, fwrite("data", 1, 4, file));
    assert_int_equal(0, ftruncate(fileno(file), 3 * sysconf(_SC_PAGESIZE)));
    fclose(file);
}

static void a_store_that_is_gone_is_not_made_anew(void **state)
{
    static const char *const others[] = {"index", "sync"};
    struct place *place = *state;
    char store[450], file[500], other[450];

    for (unsigned i = 0; i < 2; i++) {
        td_data_folder *folder = opened(place->path);

        snprintf(store, sizeof(store), "%s", td_data_folder_store(folder));
        snprintf(other, sizeof(other), "%s/%s", place->path, others[i]);
        file_make(store, "data.mdb");
        file_make(other, "data.mdb");
        td_data_folder_free(folder);
        td_data_folder_free(opened(place->path));
        snprintf(file, sizeof(file), "%s/data.mdb", store);
        assert_int_equal(0, truncate(file, 2 * sysconf(_SC_PAGESIZE)));
        assert_refused(TANDEM_E_CORRUPT, place->path, true);
        assert_int_equal(0, truncate(file, 0));
        assert_refused(TANDEM_E_CORRUPT, place->path, true);
        assert_refused(TANDEM_E_CORRUPT, place->path, false);
        assert_int_equal(0, unlink(file));
        assert_refused(TANDEM_E_CORRUPT, place->path, true);
        assert_int_equal(0, rmdir(store));
        assert_refused(TANDEM_E_CORRUPT, place->path, true);
        assert_absent(store);
        snprintf(file, sizeof(file), "%s/data.mdb", other);
        assert_int_equal(0, truncate(file, 0)); /* then it may be a new one */
        td_data_folder_free(opened(place->path));
    }
}

static void dropping_the_index_touches_nothing_else(void **state)
{
    struct place *place = *state;
    td_data_folder *folder = opened(place->path);
    char path[450];

    file_make(td_data_folder_index(folder), "data.mdb");
    file_make(td_data_folder_index(folder), "lock.mdb");
    file_make(td_data_folder_store(folder), "data.mdb");
    assert_int_equal(TANDEM_OK, td_data_folder_drop_index(folder));
    snprintf(path, sizeof(path), "%s/data.mdb", td_data_folder_index(folder));
    assert_absent(path);
    snprintf(path, sizeof(path), "%s/lock.mdb", td_data_folder_index(folder));
    assert_absent(path);
    assert_mode(0700, td_data_folder_index(folder));
    snprintf(path, sizeof(path), "%s/data.mdb", td_data_folder_store(folder));
    assert_int_equal(0, access(path, F_OK));
    assert_int_equal(TANDEM_OK, td_data_folder_drop_index(folder));
    td_data_folder_free(folder);
}

#define IN_PLACE(test) cmocka_unit_test_setup_teardown(test, place_make, place_unmake)

/* ---- Making one elsewhere first ---- */

static void make_file(const char *folder, const char *name)
{
    char path[400];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void a_folder_is_moved_to_a_vacant_place(void **state)
{
    struct place *place = *state;
    td_data_folder *folder;
    char making[320];
    struct stat info;

    snprintf(making, sizeof(making), "%s.making", place->path);
    assert_int_equal(TANDEM_OK, td_data_folder_vacant(place->path));
    assert_int_equal(TANDEM_OK, td_data_folder_open(making, true, &folder));
    assert_int_equal(TANDEM_E_LOCKED, td_data_folder_move(making, place->path));
    td_data_folder_free(folder);
    assert_int_equal(TANDEM_E_EXISTS, td_data_folder_vacant(making));
    assert_int_equal(TANDEM_OK, td_data_folder_move(making, place->path));
    assert_int_equal(-1, stat(making, &info));
    assert_int_equal(TANDEM_OK, td_data_folder_open(place->path, false, &folder));
    td_data_folder_free(folder);
    assert_int_equal(TANDEM_E_NOT_FOUND, td_data_folder_move(making, place->path));
    /* The place is taken now; an empty folder is none. */
    assert_int_equal(TANDEM_OK, td_data_folder_open(making, true, &folder));
    td_data_folder_free(folder);
    assert_int_equal(TANDEM_E_EXISTS, td_data_folder_move(making, place->path));
    assert_int_equal(TANDEM_OK, td_data_folder_remove(place->path));
    assert_int_equal(0, mkdir(place->path, 0755));
    assert_int_equal(TANDEM_OK, td_data_folder_vacant(place->path));
    assert_int_equal(TANDEM_OK, td_data_folder_move(making, place->path));
    assert_int_equal(0, stat(place->path, &info));
    assert_int_equal(0700, info.st_mode & 0777);
}

static void a_folder_is_removed_with_what_is_its_own(void **state)
{
    struct place *place = *state;
    td_data_folder *folder;
    char store[320];
    struct stat info;

    assert_int_equal(TANDEM_OK, td_data_folder_remove(place->path));
    assert_int_equal(TANDEM_OK, td_data_folder_open(place->path, true, &folder));
    make_file(td_data_folder_store(folder), "data.mdb");
    assert_int_equal(TANDEM_E_LOCKED, td_data_folder_remove(place->path));
    snprintf(store, sizeof(store), "%s/data.mdb", td_data_folder_store(folder));
    assert_int_equal(0, stat(store, &info));
    td_data_folder_free(folder);
    make_file(place->path, "foreign");
    assert_int_equal(TANDEM_E_EXISTS, td_data_folder_remove(place->path));
    assert_int_equal(-1, stat(store, &info));
    snprintf(store, sizeof(store), "%s/foreign", place->path);
    assert_int_equal(0, unlink(store));
    assert_int_equal(TANDEM_OK, td_data_folder_remove(place->path)); /* it has no lock any more */
    assert_int_equal(-1, stat(place->path, &info));
}

static void make_path_of(char *out, size_t size, const struct place *place, const char *name)
{
    snprintf(out, size, "%s/%s", place->root, name);
}

static void what_is_no_folder_is_neither_vacant_nor_moved_nor_removed(void **state)
{
    struct place *place = *state;
    char file[400], below[500], link[400], nowhere[500], *long_name;
    td_data_folder *folder;

    make_file(place->root, "file");
    make_path_of(file, sizeof(file), place, "file");
    snprintf(below, sizeof(below), "%s/below", file);
    make_path_of(link, sizeof(link), place, "link");
    make_path_of(nowhere, sizeof(nowhere), place, "no/where");
    assert_int_equal(0, symlink(place->root, link));
    assert_non_null(long_name = calloc(1, 10000));
    memset(long_name, 'n', 9999);

    assert_int_equal(TANDEM_E_EXISTS, td_data_folder_vacant(file));
    assert_int_equal(TANDEM_E_EXISTS, td_data_folder_vacant(link));
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_vacant(below));
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_vacant(long_name));
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_remove(file));
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_remove(below));
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_remove(link));
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_move(file, place->path));

    assert_int_equal(TANDEM_OK, td_data_folder_open(place->path, true, &folder));
    td_data_folder_free(folder);
    assert_int_equal(TANDEM_E_EXISTS, td_data_folder_move(place->path, file));
    assert_int_equal(TANDEM_E_NOT_FOUND, td_data_folder_move(place->path, nowhere));
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_move(place->path, long_name));
    assert_int_equal(TANDEM_OK, td_data_folder_remove(place->path));
    free(long_name);
}

/* However a place is written, the folder above it is found. */
static void a_vacant_place_may_be_written_with_slashes_or_without(void **state)
{
    struct place *place = *state;
    char slashes[400], before[PATH_MAX];

    snprintf(slashes, sizeof(slashes), "%s///", place->path);
    assert_int_equal(0, mkdir(place->path, 0700));
    assert_int_equal(TANDEM_OK, td_data_folder_vacant(slashes));
    assert_non_null(getcwd(before, sizeof(before)));
    assert_int_equal(0, chdir(place->root));
    assert_int_equal(0, mkdir("here", 0700));
    assert_int_equal(TANDEM_OK, td_data_folder_vacant("here"));
    assert_int_equal(TANDEM_OK, td_data_folder_vacant("here/"));
    assert_int_equal(TANDEM_OK, td_data_folder_vacant("there"));
    assert_int_equal(0, rmdir("here"));
    assert_int_equal(0, chdir(before));
    assert_int_equal(0, rmdir(place->path));
}

/* Nothing is removed, or moved, that we did not make. */
static void a_folder_with_something_else_in_it_stays(void **state)
{
    struct place *place = *state;
    char inside[400], target[400];
    td_data_folder *folder;
    const char *store;

    assert_int_equal(TANDEM_OK, td_data_folder_open(place->path, true, &folder));
    store = td_data_folder_store(folder);
    snprintf(inside, sizeof(inside), "%s/deeper", store);
    snprintf(target, sizeof(target), "%s", store); /* outlives folder */
    td_data_folder_free(folder);
    assert_int_equal(0, mkdir(inside, 0700));
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_remove(place->path));
    assert_int_equal(0, rmdir(inside));

    /* A part that is a file, or missing. */
    assert_int_equal(TANDEM_OK, td_data_folder_open(place->path, true, &folder));
    td_data_folder_free(folder);
    assert_int_equal(0, rmdir(target));
    make_path_of(inside, sizeof(inside), place, "elsewhere");
    assert_int_equal(TANDEM_E_NOT_FOUND, td_data_folder_move(place->path, inside));
    assert_int_equal(0, symlink("/nowhere", target));
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_remove(place->path));
    assert_int_equal(0, unlink(target));
    assert_int_equal(TANDEM_OK, td_data_folder_remove(place->path));
}

/* What stands in the way is neither entered nor taken for a part. */
static void a_part_that_is_no_folder_is_refused(void **state)
{
    static const char *const parts[] = {"store", "index", "sync"};
    struct place *place = *state;
    char path[450];

    for (unsigned i = 0; i < 3; i++) {
        td_data_folder_free(opened(place->path));
        snprintf(path, sizeof(path), "%s/%s", place->path, parts[i]);
        assert_int_equal(0, rmdir(path));
        make_file(place->path, parts[i]);
        assert_refused(TANDEM_E_INVALID, place->path, true);
        assert_int_equal(0, unlink(path));
        assert_int_equal(0, symlink("/nowhere", path));
        assert_refused(TANDEM_E_NOT_FOUND, place->path, true);
        assert_int_equal(0, unlink(path));
    }
    /* So with the lock. */
    snprintf(path, sizeof(path), "%s/lock", place->path);
    assert_int_equal(0, unlink(path));
    assert_int_equal(0, mkdir(path, 0700));
    assert_refused(TANDEM_E_INVALID, place->path, true);
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_remove(place->path));
    assert_int_equal(0, rmdir(path));
}

static void an_index_that_is_gone_or_no_folder_is_not_dropped(void **state)
{
    struct place *place = *state;
    td_data_folder *folder = opened(place->path);
    char inside[450];

    snprintf(inside, sizeof(inside), "%s/deeper", td_data_folder_index(folder));
    assert_int_equal(0, mkdir(inside, 0700));
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_drop_index(folder));
    assert_int_equal(0, rmdir(inside));
    assert_int_equal(TANDEM_OK, td_data_folder_drop_index(folder));
    assert_int_equal(0, rmdir(td_data_folder_index(folder)));
    assert_int_equal(TANDEM_E_NOT_FOUND, td_data_folder_drop_index(folder));
    make_file(place->path, "index");
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_drop_index(folder));
    assert_int_equal(0, unlink(td_data_folder_index(folder)));
    assert_int_equal(0, symlink(td_data_folder_store(folder), td_data_folder_index(folder)));
    assert_int_equal(TANDEM_E_INVALID, td_data_folder_drop_index(folder)); /* not followed */
    assert_int_equal(0, unlink(td_data_folder_index(folder)));
    td_data_folder_free(folder);
}

/* Where nothing can be made, that is told: below a link to nowhere, and in a folder that is gone. */
static void a_path_through_nothing_is_not_made(void **state)
{
    struct place *place = *state;
    char link[400], below[450], before[PATH_MAX];

    snprintf(link, sizeof(link), "%s/link", place->root);
    snprintf(below, sizeof(below), "%s/data", link);
    assert_int_equal(0, symlink("/nowhere/at/all", link));
    assert_refused(TANDEM_E_NOT_FOUND, below, true);
    assert_int_equal(0, mkdir(place->path, 0700));
    assert_non_null(getcwd(before, sizeof(before)));
    assert_int_equal(0, chdir(place->path));
    assert_int_equal(0, rmdir(place->path));
    assert_refused(TANDEM_E_NOT_FOUND, "data", true);
    assert_int_equal(0, chdir(before));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        IN_PLACE(everything_missing_is_made_for_the_owner_alone),
        IN_PLACE(a_relative_path_will_do),
        IN_PLACE(a_folder_is_made_only_when_asked),
        IN_PLACE(one_holds_it_at_a_time),
        IN_PLACE(a_killed_holder_leaves_no_lock),
        IN_PLACE(what_others_may_enter_is_refused),
        IN_PLACE(what_belongs_to_others_is_refused),
        IN_PLACE(a_path_that_cannot_be_is_invalid),
        IN_PLACE(a_lock_that_is_a_link_is_not_followed),
        IN_PLACE(a_store_that_is_gone_is_not_made_anew),
        IN_PLACE(dropping_the_index_touches_nothing_else),
        IN_PLACE(a_folder_is_moved_to_a_vacant_place),
        IN_PLACE(a_folder_is_removed_with_what_is_its_own),
        IN_PLACE(what_is_no_folder_is_neither_vacant_nor_moved_nor_removed),
        IN_PLACE(a_vacant_place_may_be_written_with_slashes_or_without),
        IN_PLACE(a_folder_with_something_else_in_it_stays),
        IN_PLACE(a_part_that_is_no_folder_is_refused),
        IN_PLACE(an_index_that_is_gone_or_no_folder_is_not_dropped),
        IN_PLACE(a_path_through_nothing_is_not_made),
    };

    return cmocka_run_group_tests_name("data folder", tests, NULL, NULL);
}
