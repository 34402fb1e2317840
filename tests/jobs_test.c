/*
 * Jobs, followed by an application. DESIGN.md, section 7: "Mailbox: items, get by id, push, remove,
 * `added` and `removed` subscriptions"; "Handle: id, document id, scopes, branch, operations, status,
 * error, `on(status change)`".
 */
#include "tests/picky_peer.h"

#include <stdio.h>

struct bed {
    tandem_harness *harness;
    tandem_job_watch *watch;
    char told[4096];  /* a word for each */
    uint64_t last_id; /* of what was told last */
    /* What is done when something is told: */
    tandem_sync *looks_at, *changes;
    tandem_job_watch **frees;
    unsigned looked;
};

static tandem_sync *sync_of(struct bed *bed, const char *name)
{
    return tandem_harness_sync(bed->harness, name);
}

static void write_kv(struct bed *bed, const char *name, const char *document)
{
    tandem_input input = {.type = "kv.SET", .json = "{\"x\":1}"};
    tandem_job job = {
        .collection = "notes", .document = document, .operations = &input, .count = 1};

    assert_int_equal(TANDEM_OK, tandem_execute(tandem_harness_reactor(bed->harness, name), &job,
                                               NULL, NULL));
}

static void run(struct bed *bed)
{
    tandem_harness_run(bed->harness, 3000);
}

/* "a" has "b" as its remote, and both are in step. */
static int bed_make(void **state)
{
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_non_null(bed);
    assert_int_equal(TANDEM_OK, tandem_harness_open(&options, &bed->harness));
    assert_int_equal(TANDEM_OK, tandem_harness_add(bed->harness, "a", 0));
    assert_int_equal(TANDEM_OK, tandem_harness_add(bed->harness, "b", 0));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(bed->harness, "a", "b"));
    run(bed);
    *state = bed;
    return 0;
}

static int bed_unmake(void **state)
{
    struct bed *bed = *state;

    tandem_job_watch_free(bed->watch);
    tandem_harness_free(bed->harness);
    free(bed);
    return 0;
}

static tandem_err count(void *context, const tandem_job_status *status)
{
    (void)status;
    ++*(unsigned *)context;
    return TANDEM_OK;
}

static void note(void *context, tandem_job_news news, const tandem_job_status *status)
{
    static const char *const names[] = {"?", "added", "changed", "removed"};
    struct bed *bed = context;

    snprintf(bed->told + strlen(bed->told), sizeof(bed->told) - strlen(bed->told), "%s %s:%s:%s%s",
             names[news], status->remote ? status->remote : "-", status->box, status->status,
             status->retry ? ":retry\n" : "\n");
    bed->last_id = status->id;
    if (bed->looks_at)
        assert_int_equal(TANDEM_OK, tandem_job_handles(bed->looks_at, count, &bed->looked));
    if (bed->changes) {
        assert_int_equal(TANDEM_E_STATE, tandem_job_discard(bed->changes, status->id));
        assert_int_equal(TANDEM_E_STATE, tandem_job_retry(bed->changes, status->id));
        assert_int_equal(TANDEM_E_STATE, tandem_remote_remove(bed->changes, "b"));
    }
    if (bed->frees && *bed->frees) {
        tandem_job_watch_free(*bed->frees);
        *bed->frees = NULL;
    }
}

static void watch(struct bed *bed, const char *name, const char *remote)
{
    assert_int_equal(TANDEM_OK,
                     tandem_job_watch_open(sync_of(bed, name), remote, note, bed, &bed->watch));
}

static void a_handle_is_followed_from_its_mailbox_to_its_end(void **state)
{
    struct bed *bed = *state;

    watch(bed, "a", "b");
    write_kv(bed, "a", "n");
    run(bed);
    assert_string_equal("added b:outbox:transport_pending\n"
                        "changed b:outbox:execution_pending\n"
                        "changed b:outbox:applied\n"
                        "removed b:outbox:applied\n",
                        bed->told);
}

static void a_pull_handle_is_followed_too(void **state)
{
    struct bed *bed = *state;

    watch(bed, "b", NULL);
    write_kv(bed, "a", "n");
    run(bed);
    assert_string_equal("added -:inbox:transport_pending\n"
                        "changed -:inbox:execution_pending\n"
                        "changed -:inbox:applied\n"
                        "removed -:inbox:applied\n",
                        bed->told);
}

static tandem_err note_scopes(void *context, const tandem_job_status *status)
{
    struct bed *bed = context;

    bed->last_id = status->id;
    assert_int_equal(2, status->operations);
    assert_int_equal(sizeof("document\0global"), status->scopes.size);
    assert_memory_equal("document\0global", status->scopes.bytes, status->scopes.size);
    return TANDEM_OK;
}

static void what_is_there_is_told_first_and_found_by_its_id(void **state)
{
    struct bed *bed = *state;
    unsigned found = 0;

    tandem_harness_clog(bed->harness, "b", "a", true); /* no answer comes */
    write_kv(bed, "a", "n");
    run(bed);
    watch(bed, "a", "b");
    assert_string_equal("added b:outbox:execution_pending\n", bed->told);
    assert_int_equal(TANDEM_OK, tandem_job_handles(sync_of(bed, "a"), note_scopes, bed));
    assert_int_equal(TANDEM_OK, tandem_job_get(sync_of(bed, "a"), bed->last_id, count, &found));
    assert_int_equal(1, found);
    assert_int_equal(TANDEM_E_NOT_FOUND,
                     tandem_job_get(sync_of(bed, "a"), bed->last_id + 1, count, &found));
    tandem_harness_clog(bed->harness, "b", "a", false);
    run(bed);
    assert_string_equal("added b:outbox:execution_pending\n"
                        "changed b:outbox:applied\n"
                        "removed b:outbox:applied\n",
                        bed->told);
    assert_int_equal(TANDEM_E_NOT_FOUND,
                     tandem_job_get(sync_of(bed, "a"), bed->last_id, count, &found));
    assert_int_equal(1, found);
}

static void only_one_remote_is_followed_if_it_is_named(void **state)
{
    struct bed *bed = *state;

    assert_int_equal(TANDEM_OK, tandem_harness_add(bed->harness, "c", 0));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(bed->harness, "a", "c"));
    run(bed);
    watch(bed, "a", "c");
    write_kv(bed, "a", "n");
    run(bed);
    assert_null(strstr(bed->told, "b:"));
    assert_non_null(strstr(bed->told, "removed c:outbox:applied"));
}

static void a_peer_of_later_is_followed_too(void **state)
{
    struct bed *bed = *state;

    watch(bed, "a", NULL);
    assert_int_equal(TANDEM_OK, tandem_harness_add(bed->harness, "c", 0));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(bed->harness, "a", "c"));
    run(bed);
    write_kv(bed, "a", "n");
    run(bed);
    assert_non_null(strstr(bed->told, "added c:outbox:transport_pending"));
    assert_non_null(strstr(bed->told, "removed c:outbox:applied"));
}

static void each_watch_is_told_once(void **state)
{
    struct bed *bed = *state;
    tandem_job_watch *first;

    watch(bed, "a", "b");
    first = bed->watch;
    tandem_job_watch_free(first);
    for (int i = 0; i < 6; i++) {
        watch(bed, "a", "b");
        if (i < 5)
            tandem_job_watch_free(bed->watch);
    }
    write_kv(bed, "a", "n");
    run(bed);
    assert_string_equal("added b:outbox:transport_pending\n"
                        "changed b:outbox:execution_pending\n"
                        "changed b:outbox:applied\n"
                        "removed b:outbox:applied\n",
                        bed->told);
}

static void dead_letters_are_followed(void **state)
{
    struct bed *bed = *state;
    struct picky *p = picky_open(bed->harness, "p");

    p->poison = "bad";
    assert_int_equal(TANDEM_OK, tandem_remote_add(sync_of(bed, "a"), "p", "mem://p"));
    run(bed);
    watch(bed, "a", "p");
    write_kv(bed, "a", "bad");
    run(bed);
    assert_string_equal("added p:outbox:transport_pending\n"
                        "changed p:outbox:execution_pending\n"
                        "changed p:outbox:error\n"
                        "added p:dead:error\n"
                        "removed p:outbox:error\n",
                        bed->told);
    bed->told[0] = 0;
    p->poison = NULL;
    assert_int_equal(TANDEM_OK, tandem_job_retry(sync_of(bed, "a"), bed->last_id));
    run(bed);
    assert_string_equal("changed p:dead:error:retry\n"
                        "added p:outbox:transport_pending\n"
                        "changed p:outbox:execution_pending\n"
                        "changed p:outbox:applied\n"
                        "removed p:outbox:applied\n"
                        "removed p:dead:error:retry\n",
                        bed->told);
    picky_free(p);
}

static void who_is_told_may_look_and_change_nothing(void **state)
{
    struct bed *bed = *state;

    bed->looks_at = bed->changes = sync_of(bed, "a");
    watch(bed, "a", NULL);
    write_kv(bed, "a", "n");
    run(bed);
    assert_int_equal(3, bed->looked); /* once more it is in the outbox no longer */
    assert_non_null(strstr(bed->told, "removed b:outbox:applied"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_job_discard(bed->changes, bed->last_id));
}

static void a_watch_may_be_freed_while_it_is_told(void **state)
{
    struct bed *bed = *state;

    bed->frees = &bed->watch;
    watch(bed, "a", "b");
    write_kv(bed, "a", "n");
    run(bed);
    assert_string_equal("added b:outbox:transport_pending\n", bed->told);
    assert_null(bed->watch);
}

static void a_freed_watch_is_told_nothing(void **state)
{
    struct bed *bed = *state;

    watch(bed, "a", "b");
    tandem_job_watch_free(bed->watch);
    bed->watch = NULL;
    write_kv(bed, "a", "n");
    run(bed);
    assert_string_equal("", bed->told);
}

static void a_watch_outlives_a_crash_and_is_told_nothing_more(void **state)
{
    struct bed *bed = *state;

    watch(bed, "a", "b");
    assert_int_equal(TANDEM_OK, tandem_harness_crash(bed->harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(bed->harness, "a"));
    write_kv(bed, "a", "n");
    run(bed);
    assert_string_equal("", bed->told);
}

static void what_goes_with_its_remote_is_told_as_removed(void **state)
{
    struct bed *bed = *state;

    tandem_harness_clog(bed->harness, "b", "a", true);
    write_kv(bed, "a", "n");
    run(bed);
    watch(bed, "a", "b");
    assert_int_equal(TANDEM_OK, tandem_remote_remove(sync_of(bed, "a"), "b"));
    run(bed);
    assert_string_equal("added b:outbox:execution_pending\n"
                        "removed b:outbox:execution_pending\n",
                        bed->told);
}

/* Two real reactors, whose loops have threads of their own, or are driven from here. */
static void follow_a_job(bool drive)
{
    tandem_options options = TANDEM_OPTIONS_INIT;
    tandem_input input = {.type = "kv.SET", .json = "{\"x\":1}"};
    tandem_job job = {.collection = "notes", .document = "n", .operations = &input, .count = 1};
    struct bed bed = {.harness = NULL};
    tandem_reactor *a, *b;
    tandem_sync *a_sync, *b_sync;
    char url[128];

    assert_int_equal(TANDEM_OK, tandem_open(&options, &b));
    assert_int_equal(TANDEM_OK, tandem_sync_open(b, NULL, &b_sync));
    assert_int_equal(TANDEM_OK, tandem_listen(b_sync, "127.0.0.1", 0, false, url));
    options.drive = drive;
    assert_int_equal(TANDEM_OK, tandem_open(&options, &a));
    assert_int_equal(TANDEM_OK, tandem_sync_open(a, NULL, &a_sync));
    assert_int_equal(TANDEM_OK, tandem_remote_add(a_sync, "b", url));
    assert_int_equal(TANDEM_OK, tandem_job_watch_open(a_sync, "b", note, &bed, &bed.watch));
    assert_int_equal(TANDEM_OK, tandem_execute(a, &job, NULL, NULL));
    while (drive && !strstr(bed.told, "removed"))
        assert_int_equal(TANDEM_OK, tandem_poll(a));
    if (!drive)
        assert_int_equal(TANDEM_OK, tandem_wait_covered(a_sync, "b", 60000));
    /* b tells what it holds and acknowledges what it got: either may come first. */
    do {
        bed.looked = 0;
        assert_int_equal(TANDEM_OK, tandem_job_handles(a_sync, count, &bed.looked));
    } while (bed.looked);
    tandem_job_watch_free(bed.watch);
    assert_non_null(strstr(bed.told, "removed b:outbox:applied"));
    tandem_sync_close(a_sync);
    tandem_close(a);
    tandem_sync_close(b_sync);
    tandem_close(b);
}

static void a_watch_is_told_on_the_loop_whoever_runs_it(void **state)
{
    (void)state;
    follow_a_job(false);
    follow_a_job(true);
}

static void a_call_that_lacks_something_is_refused(void **state)
{
    struct bed *bed = *state;
    char long_name[TANDEM_NAME_BYTES_MAX + 2];
    tandem_job_watch *none = NULL;
    unsigned found;

    memset(long_name, 'n', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = 0;
    assert_int_equal(TANDEM_E_INVALID, tandem_job_watch_open(NULL, NULL, note, bed, &none));
    assert_int_equal(TANDEM_E_INVALID,
                     tandem_job_watch_open(sync_of(bed, "a"), NULL, NULL, bed, &none));
    assert_int_equal(TANDEM_E_INVALID,
                     tandem_job_watch_open(sync_of(bed, "a"), NULL, note, bed, NULL));
    assert_int_equal(TANDEM_E_NOT_FOUND,
                     tandem_job_watch_open(sync_of(bed, "a"), "c", note, bed, &none));
    assert_int_equal(TANDEM_E_NOT_FOUND,
                     tandem_job_watch_open(sync_of(bed, "a"), long_name, note, bed, &none));
    assert_int_equal(TANDEM_E_INVALID, tandem_job_get(NULL, 1, count, &found));
    assert_int_equal(TANDEM_E_INVALID, tandem_job_get(sync_of(bed, "a"), 0, count, &found));
    assert_int_equal(TANDEM_E_INVALID, tandem_job_get(sync_of(bed, "a"), 1, NULL, &found));
    assert_null(none);
    tandem_job_watch_free(NULL);
}

#define ON_BED(test) cmocka_unit_test_setup_teardown(test, bed_make, bed_unmake)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        ON_BED(a_handle_is_followed_from_its_mailbox_to_its_end),
        ON_BED(a_pull_handle_is_followed_too),
        ON_BED(what_is_there_is_told_first_and_found_by_its_id),
        ON_BED(only_one_remote_is_followed_if_it_is_named),
        ON_BED(a_peer_of_later_is_followed_too),
        ON_BED(each_watch_is_told_once),
        ON_BED(dead_letters_are_followed),
        ON_BED(who_is_told_may_look_and_change_nothing),
        ON_BED(a_watch_may_be_freed_while_it_is_told),
        ON_BED(a_freed_watch_is_told_nothing),
        ON_BED(a_watch_outlives_a_crash_and_is_told_nothing_more),
        ON_BED(what_goes_with_its_remote_is_told_as_removed),
        cmocka_unit_test(a_watch_is_told_on_the_loop_whoever_runs_it),
        ON_BED(a_call_that_lacks_something_is_refused),
    };

    return cmocka_run_group_tests_name("jobs", tests, NULL, NULL);
}
