/*
 * A late operation costs what lies behind it, and one distance between snapshots: in operations folded,
 * not in time.
 *
 * The same of opening: what is shown first in a new life is folded from the newest snapshot.
 *
 * usage: late_operation_test MODEL OPERATIONS
 *
 * One reactor writes a document of that many operations. Others hold it since it was created, wrote
 * one operation each at a moment of their own, and deliver it when all is written, so that it belongs
 * before the last k.
 */
#include <assert.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "reactor/fold.h"
#include "reactor/reactor.h"
#include "sync/harness.h"

enum {
    JOB = 400,
    SETTLE_MS = 600000,
    /* Snapshots thin out with age: of what a late operation is behind of, this many times as much may
     * have to be folded again. Eight of them span a million operations where each gap is 2.9 times as
     * long as the one after it (2.9^8 = 5,000 times 256). */
    STRETCH = 4,
    PAGE = 512, /* a snapshot is left at the end of a page of entries, so up to a page too late */
};

static const char *model = "text";
static uint64_t total = 20000;
static const uint64_t depths[] = {1, 10, 1000, 10000, 100000};

enum { DEPTHS = sizeof(depths) / sizeof(depths[0]) };

struct world {
    tandem_harness *harness;
    tandem_reactor *writer;
    uint64_t written;
    char folder[64];
};

static const char *late_name(unsigned i)
{
    static char name[16];

    snprintf(name, sizeof(name), "late%u", i);
    return name;
}

static void edit_of(uint64_t number, char json[64], tandem_input *out)
{
    if (!strcmp(model, "text")) {
        *out = (tandem_input){.type = "EDIT", .json = json};
        snprintf(json, 64, "{\"at\": %" PRIu64 ", \"insert\": \"x\"}", number);
    } else if (!strcmp(model, "kv")) {
        *out = (tandem_input){.type = "SET", .json = json};
        snprintf(json, 64, "{\"m%" PRIu64 "\": %" PRIu64 "}", number % 100, number);
    } else {
        *out = (tandem_input){.type = "APPEND", .json = json};
        snprintf(json, 64, "%" PRIu64, number);
    }
}

static void execute(tandem_reactor *reactor, uint64_t first, size_t count)
{
    static char json[JOB][64];
    tandem_input inputs[JOB];
    tandem_job job = {.collection = "c", .document = "d", .model = model, .operations = inputs,
                      .count = count};
    char why[TANDEM_WHY_BYTES] = "";

    assert(count <= JOB);
    for (size_t i = 0; i < count; i++)
        edit_of(first + i, json[i], &inputs[i]);
    if (tandem_execute(reactor, &job, NULL, why) != TANDEM_OK)
        fail_msg("%s", why);
}

static void write_up_to(struct world *world, uint64_t number)
{
    while (world->written < number) {
        uint64_t left = number - world->written, count = left < JOB ? left : JOB;

        execute(world->writer, world->written, (size_t)count);
        world->written += count;
    }
}

static uint64_t folded(struct world *world)
{
    tandem_stat stat;

    assert_int_equal(TANDEM_OK, tandem_stat_get(world->writer, &stat));
    return stat.folded;
}

/* Read the document; returns how many operations were folded for it, and how many it is the fold of. */
static uint64_t read_document(struct world *world, uint64_t *operations_out)
{
    tandem_document *document;
    uint64_t before = folded(world);

    assert_int_equal(TANDEM_OK, tandem_document_read(world->writer, "c", "d", NULL, NULL, UINT64_MAX,
                                                     &document, NULL));
    *operations_out = tandem_document_operations(document);
    tandem_document_free(document);
    return folded(world) - before;
}

/* What is written next is dated after all that was written: a clock may be ahead by a millisecond for
 * each 65,536 operations. */
static void pass_time(struct world *world)
{
    tandem_harness_run(world->harness, 10 + total / 65536);
}

/* How many operations lie between two snapshots where they are closest: what makes up for the bytes of
 * one. Of these models each operation adds less than 12 bytes to it. */
static uint64_t interval(void)
{
    uint64_t bytes = !strcmp(model, "kv") ? 100 * 16 : !strcmp(model, "log") ? total * 4 : total + 64;
    uint64_t entries = bytes / TD_SNAPSHOT_BYTES_PER_ENTRY;

    return (entries > TD_SNAPSHOT_ENTRIES_MIN ? entries : TD_SNAPSHOT_ENTRIES_MIN) + PAGE;
}

/* Would folding everything be too much? */
static bool can_fail(uint64_t depth)
{
    return STRETCH * depth + interval() < total;
}

static void settle(struct world *world)
{
    assert_int_equal(TANDEM_OK, tandem_harness_run_until_idle(world->harness, SETTLE_MS));
}

/* Let it deliver what it has written meanwhile. */
static void deliver(struct world *world, const char *name)
{
    tandem_harness_clog(world->harness, name, "writer", false);
    settle(world);
    tandem_harness_clog(world->harness, name, "writer", true);
}

/* A reactor that holds the beginning, does not want what the writer writes, and is not heard. */
static void connect_late(struct world *world, const char *name)
{
    tandem_share share = TANDEM_SHARE_INIT;

    assert_int_equal(TANDEM_OK, tandem_harness_add(world->harness, name, 0));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(world->harness, name, "writer"));
    settle(world);
    share.direction = TANDEM_DIRECTION_PUSH;
    assert_int_equal(TANDEM_OK, tandem_remote_set_share(tandem_harness_sync(world->harness, name),
                                                        "writer", &share));
    settle(world);
    tandem_harness_clog(world->harness, name, "writer", true);
}

static void world_open(struct world *world)
{
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;

    *world = (struct world){.folder = "/tmp/tandem-late-XXXXXX"};
    assert_non_null(mkdtemp(world->folder));
    options.folder = world->folder;
    assert_int_equal(TANDEM_OK, tandem_harness_open(&options, &world->harness));
    assert_int_equal(TANDEM_OK, tandem_harness_add(world->harness, "writer", 0));
    world->writer = tandem_harness_reactor(world->harness, "writer");
    write_up_to(world, 1);
}

static void world_close(struct world *world)
{
    tandem_harness_free(world->harness);
    assert_int_equal(0, rmdir(world->folder));
}

static void a_late_operation_costs_what_it_is_behind(void **state)
{
    struct world world;
    uint64_t operations, cost, before = 0;

    (void)state;
    world_open(&world);
    for (unsigned i = 0; i < DEPTHS; i++)
        connect_late(&world, late_name(i));
    /* The deepest is written first. */
    for (unsigned i = DEPTHS; i-- > 0;) {
        if (!can_fail(depths[i]))
            continue;
        write_up_to(&world, total - depths[i]);
        pass_time(&world);
        execute(tandem_harness_reactor(world.harness, late_name(i)), 0, 1);
        pass_time(&world);
    }
    write_up_to(&world, total);
    read_document(&world, &before);
    for (unsigned i = 0; i < DEPTHS; i++) {
        if (!can_fail(depths[i]))
            continue;
        deliver(&world, late_name(i));
        cost = read_document(&world, &operations);
        assert_int_equal(before + 1, operations);
        before = operations;
        print_message("%s of %" PRIu64 ": one behind %" PRIu64 " folds %" PRIu64
                      ", of at most %" PRIu64 "\n",
                      model, total, depths[i], cost, STRETCH * depths[i] + interval());
        assert_in_range(cost, depths[i], STRETCH * depths[i] + interval());
        /* … and once only. */
        assert_int_equal(0, read_document(&world, &operations));
    }
    world_close(&world);
}

static void one_that_comes_all_the_time_costs_no_more(void **state)
{
    enum { ROUNDS = 100, BEHIND = 3 };
    struct world world;
    uint64_t operations, before, sum = 0;

    (void)state;
    world_open(&world);
    connect_late(&world, "late");
    write_up_to(&world, total);
    read_document(&world, &before);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t cost;

        pass_time(&world);
        execute(tandem_harness_reactor(world.harness, "late"), 0, 1);
        pass_time(&world);
        write_up_to(&world, world.written + BEHIND);
        read_document(&world, &operations);
        assert_int_equal(before + BEHIND, operations);
        deliver(&world, "late");
        cost = read_document(&world, &operations);
        assert_int_equal(before + BEHIND + 1, operations);
        before = operations;
        assert_in_range(cost, BEHIND + 1, STRETCH * BEHIND + interval());
        sum += cost;
    }
    print_message("%s of %" PRIu64 ": %d edits behind %d fold %" PRIu64 " each, of at most %" PRIu64
                  "\n", model, total, ROUNDS, BEHIND, sum / ROUNDS, STRETCH * BEHIND + interval());
    world_close(&world);
}

static void opened_anew_it_folds_from_the_newest_snapshot(void **state)
{
    struct world world;
    uint64_t operations, cost;

    (void)state;
    world_open(&world);
    write_up_to(&world, total);
    read_document(&world, &operations);
    tandem_harness_run(world.harness, 1000); /* the index is on disk */
    assert_int_equal(TANDEM_OK, tandem_harness_crash(world.harness, "writer"));
    assert_int_equal(TANDEM_OK, tandem_harness_restart(world.harness, "writer"));
    world.writer = tandem_harness_reactor(world.harness, "writer");
    cost = read_document(&world, &operations);
    assert_int_equal(total + 1, operations);
    print_message("%s of %" PRIu64 ": opened anew it folds %" PRIu64 ", of at most %" PRIu64 "\n",
                  model, total, cost, interval());
    assert_in_range(cost, 0, interval());
    world_close(&world);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_late_operation_costs_what_it_is_behind),
        cmocka_unit_test(one_that_comes_all_the_time_costs_no_more),
        cmocka_unit_test(opened_anew_it_folds_from_the_newest_snapshot),
    };

    if (argc > 2) {
        model = argv[1];
        total = strtoull(argv[2], NULL, 10);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
