/*
 * What a remote shares: kept, shown, said in HELLO by whichever session carries its data, and joined
 * with what the other side says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "sync/harness.h"
#include "sync/sync_manager.h"

enum { A_WHILE_MS = 60000 };

static tandem_harness *open_pair(uint64_t seed)
{
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    tandem_harness *harness;

    options.seed = seed;
    assert_int_equal(TANDEM_OK, tandem_harness_open(&options, &harness));
    assert_int_equal(TANDEM_OK, tandem_harness_add(harness, "a", 0));
    assert_int_equal(TANDEM_OK, tandem_harness_add(harness, "b", 0));
    return harness;
}

#define LIST(...) ((const char *const[]){__VA_ARGS__})

/* ---- As it is shown ---- */

static void add_list(char *out, const char *const *list, size_t count)
{
    strcat(out, "|");
    for (size_t i = 0; i < count; i++)
        sprintf(out + strlen(out), "%s%s", i ? "," : "", list[i]);
}

static tandem_err show(void *context, const tandem_remote_status *status)
{
    const tandem_share *share = &status->share;
    char *out = context;

    sprintf(out + strlen(out), "%s %s", status->name ? status->name : "-",
            tandem_direction_name(share->direction));
    add_list(out, share->collections, share->collection_count);
    add_list(out, share->documents, share->document_count);
    add_list(out, share->scopes, share->scope_count);
    add_list(out, share->branches, share->branch_count);
    return TANDEM_OK;
}

static void assert_shown(tandem_harness *harness, const char *expected)
{
    char shown[512] = "";

    assert_int_equal(TANDEM_OK, tandem_remotes(tandem_harness_sync(harness, "a"), show, shown));
    assert_string_equal(expected, shown);
}

static void what_is_shared_is_kept_and_shown(void **state)
{
    tandem_harness *harness = open_pair(1);
    tandem_share share = {.size = sizeof(share), .direction = TANDEM_DIRECTION_PUSH,
                          .collections = LIST("tasks", "notes", "tasks"), .collection_count = 3,
                          .documents = LIST("a*", "[b-d]?"), .document_count = 2,
                          .scopes = LIST("global"), .scope_count = 1};
    tandem_sync *sync = tandem_harness_sync(harness, "a");

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_remote_add(sync, "b", "mem://b"));
    assert_shown(harness, "b both||||");
    assert_int_equal(TANDEM_OK, tandem_remote_set_share(sync, "b", &share));
    assert_shown(harness, "b push|notes,tasks|[b-d]?,a*|global|");
    assert_int_equal(TANDEM_OK, tandem_remote_set_share(sync, "b", &share));
    assert_int_equal(TANDEM_OK, tandem_remote_pause(sync, "b"));
    assert_int_equal(TANDEM_OK, tandem_harness_crash(harness, "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(harness, "a"));
    sync = tandem_harness_sync(harness, "a");
    assert_shown(harness, "b push|notes,tasks|[b-d]?,a*|global|");
    share = (tandem_share)TANDEM_SHARE_INIT;
    share.direction = TANDEM_DIRECTION_PULL;
    assert_int_equal(TANDEM_OK, tandem_remote_set_share(sync, "b", &share));
    assert_shown(harness, "b pull||||");
    assert_int_equal(TANDEM_OK, tandem_remote_set_share(sync, "b", NULL));
    assert_shown(harness, "b both||||");
    tandem_harness_free(harness);
}

static void what_cannot_be_shared_is_refused(void **state)
{
    tandem_harness *harness = open_pair(2);
    tandem_sync *sync = tandem_harness_sync(harness, "a");
    tandem_share share = TANDEM_SHARE_INIT;
    const char *many[65];

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_remote_add(sync, "b", "mem://b"));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_remote_set_share(sync, "c", &share));
    assert_int_equal(TANDEM_E_INVALID, tandem_remote_set_share(NULL, "b", &share));
    assert_int_equal(TANDEM_E_INVALID, tandem_remote_set_share(sync, NULL, &share));
    share.size--;
    assert_int_equal(TANDEM_E_INVALID, tandem_remote_set_share(sync, "b", &share));
    share = (tandem_share)TANDEM_SHARE_INIT;
    share.direction = 3;
    assert_int_equal(TANDEM_E_INVALID, tandem_remote_set_share(sync, "b", &share));
    share.direction = TANDEM_DIRECTION_BOTH;
    share.collection_count = 1; /* of none */
    assert_int_equal(TANDEM_E_INVALID, tandem_remote_set_share(sync, "b", &share));
    share.collections = LIST("_tandem");
    assert_int_equal(TANDEM_E_INVALID, tandem_remote_set_share(sync, "b", &share));
    share.collections = LIST(NULL);
    assert_int_equal(TANDEM_E_INVALID, tandem_remote_set_share(sync, "b", &share));
    share.collection_count = 0;
    share.documents = LIST("[a");
    share.document_count = 1;
    assert_int_equal(TANDEM_E_INVALID, tandem_remote_add_sharing(sync, "c", "mem://c", &share));
    for (unsigned i = 0; i < 65; i++)
        many[i] = "a";
    share.documents = many;
    share.document_count = 65;
    assert_int_equal(TANDEM_E_LIMIT, tandem_remote_set_share(sync, "b", &share));
    assert_int_equal(TANDEM_E_LIMIT, tandem_share_check(&share));
    share.document_count = 64;
    assert_int_equal(TANDEM_OK, tandem_share_check(&share));
    assert_int_equal(TANDEM_E_INVALID, tandem_share_check(NULL));
    assert_shown(harness, "b both||||");
    tandem_harness_free(harness);
}

/* ---- As it is said ---- */

/* The open session of one with the other. */
static td_peer *session_of(tandem_harness *harness, const char *name)
{
    td_peer *found = NULL;

    for (td_peer *peer = tandem_harness_sync(harness, name)->peers; peer; peer = peer->next)
        if (td_peer_is_open(peer)) {
            assert_null(found);
            found = peer;
        }
    assert_non_null(found);
    return found;
}

static td_share made(const char *collection, const char *glob)
{
    tandem_slice collections[] = {tandem_slice_text(collection)};
    tandem_slice globs[] = {tandem_slice_text(glob)};
    const td_names none = {NULL, 0};
    td_filter filter;
    td_share share;

    assert_int_equal(TANDEM_OK,
                     td_filter_make((td_names){globs, *glob != 0}, none, none, &filter));
    assert_int_equal(TANDEM_OK,
                     td_share_make((td_names){collections, *collection != 0}, &filter, &share));
    td_filter_release(&filter);
    return share;
}

/* What goes from a to b, and from b to a, as both sides see it. */
static void assert_ways(tandem_harness *harness, const td_share *to_b, const td_share *to_a)
{
    const td_peer *at_a = session_of(harness, "a"), *at_b = session_of(harness, "b");

    assert_true(at_a->knows_shares && at_b->knows_shares);
    assert_true(td_share_equal(to_b, td_peer_gives(at_a)));
    assert_true(td_share_equal(to_b, td_peer_takes(at_b)));
    assert_true(td_share_equal(to_a, td_peer_takes(at_a)));
    assert_true(td_share_equal(to_a, td_peer_gives(at_b)));
}

static void both_sides_know_what_goes_either_way(void **state)
{
    tandem_harness *harness = open_pair(3);
    tandem_sync *sync = tandem_harness_sync(harness, "a");
    tandem_share share = {.size = sizeof(share), .collections = LIST("tasks"),
                          .collection_count = 1, .direction = TANDEM_DIRECTION_PULL};
    td_share all = TD_SHARE_ALL, nothing = TD_SHARE_NOTHING, tasks = made("tasks", "");

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_remote_add_sharing(sync, "b", "mem://b", &share));
    tandem_harness_run(harness, A_WHILE_MS);
    assert_ways(harness, &nothing, &tasks);
    share.direction = TANDEM_DIRECTION_BOTH;
    assert_int_equal(TANDEM_OK, tandem_remote_set_share(sync, "b", &share));
    tandem_harness_run(harness, A_WHILE_MS);
    assert_ways(harness, &tasks, &tasks);
    assert_int_equal(TANDEM_OK, tandem_remote_set_share(sync, "b", NULL));
    tandem_harness_run(harness, A_WHILE_MS);
    assert_ways(harness, &all, &all);
    td_share_release(&tasks);
    tandem_harness_free(harness);
}

/* Each is a remote of the other: whichever session stays, both remotes' shares hold. */
static void two_remotes_of_each_other_share_what_both_do(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 40; seed++) {
        tandem_harness *harness = open_pair(seed);
        tandem_share at_a = {.size = sizeof(at_a), .collections = LIST("notes", "tasks"),
                             .collection_count = 2, .direction = TANDEM_DIRECTION_PUSH};
        tandem_share at_b = {.size = sizeof(at_b), .collections = LIST("tasks"),
                             .collection_count = 1, .documents = LIST("a*"), .document_count = 1};
        td_share nothing = TD_SHARE_NOTHING, tasks = made("tasks", "a*"), some = made("", "a*");
        tandem_sync *sync = tandem_harness_sync(harness, "a");

        assert_int_equal(TANDEM_OK, tandem_remote_add_sharing(sync, "b", "mem://b", &at_a));
        if (seed % 3 == 0)
            tandem_harness_run(harness, A_WHILE_MS); /* a's session comes first */
        assert_int_equal(TANDEM_OK,
                         tandem_remote_add_sharing(tandem_harness_sync(harness, "b"), "a",
                                                   "mem://a", seed % 2 ? &at_b : NULL));
        tandem_harness_run(harness, A_WHILE_MS);
        if (seed % 2 == 0)
            assert_int_equal(TANDEM_OK, tandem_remote_set_share(tandem_harness_sync(harness, "b"),
                                                                "a", &at_b));
        tandem_harness_run(harness, A_WHILE_MS);
        assert_ways(harness, &tasks, &nothing);
        at_b.collection_count = 0;
        assert_int_equal(TANDEM_OK, tandem_remote_set_share(tandem_harness_sync(harness, "b"), "a",
                                                            &at_b));
        assert_int_equal(TANDEM_OK, tandem_remote_set_share(sync, "b", NULL));
        tandem_harness_run(harness, A_WHILE_MS);
        assert_ways(harness, &some, &some);
        assert_int_equal(TANDEM_OK, tandem_remote_remove(sync, "b"));
        tandem_harness_run(harness, A_WHILE_MS);
        assert_ways(harness, &some, &some);
        td_share_release(&tasks);
        td_share_release(&some);
        tandem_harness_free(harness);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_shared_is_kept_and_shown),
        cmocka_unit_test(what_cannot_be_shared_is_refused),
        cmocka_unit_test(both_sides_know_what_goes_either_way),
        cmocka_unit_test(two_remotes_of_each_other_share_what_both_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
