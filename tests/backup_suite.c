/*
 * Backups of a reactor, run on what the argument says: `folder` (LMDB, the library's own loop),
 * `memory` (the same without a folder), `driven` (in memory, this program would turn the loop).
 * Restored is into folders: there is nothing else to restore into.
 */
#include "tests/operation_maker.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "reactor/reactor_parts.h"
#include "store/backup_stream.h"
#include "store/op_tables.h"
#include "sync/backup.h"
#include "tests/draw.h"
#include "tests/folder.h"

static bool in_folder, driven;

/* ---- The bed ---- */

struct bed {
    tandem_reactor *reactor;
    tandem_sync *sync;
    tandem_options to; /* where to restore: root/restored */
    char root[FOLDER_BYTES];
    char path[256]; /* root/data */
    char restored[256];
    char restoring[300];
    tandem_writer stream;
    size_t room; /* for the stream; SIZE_MAX: any */
};

static int bed_open(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));
    tandem_options options = TANDEM_OPTIONS_INIT;

    assert_non_null(bed);
    folder_make(bed->root, "backup", false);
    snprintf(bed->path, sizeof(bed->path), "%s/data", bed->root);
    snprintf(bed->restored, sizeof(bed->restored), "%s/restored", bed->root);
    snprintf(bed->restoring, sizeof(bed->restoring), "%s.restoring", bed->restored);
    options.path = in_folder ? bed->path : NULL;
    options.drive = driven;
    assert_int_equal(TANDEM_OK, tandem_open(&options, &bed->reactor));
    bed->to = (tandem_options)TANDEM_OPTIONS_INIT;
    bed->to.path = bed->restored;
    tandem_writer_init(&bed->stream);
    bed->room = SIZE_MAX;
    *state = bed;
    return 0;
}

static int bed_free(void **state)
{
    struct bed *bed = *state;

    tandem_sync_close(bed->sync);
    tandem_close(bed->reactor);
    tandem_writer_release(&bed->stream);
    folder_remove(bed->root);
    free(bed);
    return 0;
}

static bool exists(const char *path)
{
    struct stat info;

    return lstat(path, &info) == 0;
}

static void expect_nothing_made(const struct bed *bed)
{
    assert_false(exists(bed->restored));
    assert_false(exists(bed->restoring));
}

/* ---- Backing up and restoring ---- */

static tandem_err take_bytes(void *context, tandem_slice bytes)
{
    struct bed *bed = context;

    if (bytes.size > bed->room)
        return TANDEM_E_STORE_FULL;
    bed->room -= bytes.size;
    tandem_write_raw(&bed->stream, bytes);
    return tandem_writer_err(&bed->stream);
}

static tandem_err back_up(struct bed *bed, tandem_backup_info *info, char *why)
{
    tandem_writer_clear(&bed->stream);
    return tandem_backup(bed->reactor, bed->sync, take_bytes, bed, info, why);
}

/* Restore the first size bytes of the stream, in pieces. */
static tandem_err restore_some(struct bed *bed, size_t size, size_t piece,
                               tandem_restored *restored, char *why)
{
    tandem_restore *restore;
    tandem_err err;

    if ((err = tandem_restore_open(&bed->to, &restore, why)) != TANDEM_OK)
        return err;
    for (size_t at = 0; at < size && err == TANDEM_OK; at += piece)
        err = tandem_restore_feed(
            restore,
            tandem_slice_of(bed->stream.bytes + at, size - at < piece ? size - at : piece), why);
    if (err == TANDEM_OK)
        err = tandem_restore_finish(restore, restored, why);
    tandem_restore_free(restore);
    return err;
}

static void report(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "verify: %s\n", text);
}

/* Back up, restore, open. */
static tandem_reactor *round_trip(struct bed *bed, tandem_restored *restored)
{
    tandem_options options = bed->to;
    char why[TANDEM_WHY_BYTES];
    tandem_backup_info info;
    tandem_reactor *reactor;

    assert_int_equal(TANDEM_OK, back_up(bed, &info, why));
    assert_int_equal(info.bytes, bed->stream.size);
    assert_int_equal(TANDEM_OK, restore_some(bed, bed->stream.size, 5000, restored, why));
    assert_memory_equal(&info, &restored->backup, sizeof(info));
    assert_false(exists(bed->restoring));
    options.must_exist = true;
    assert_int_equal(TANDEM_OK, tandem_open(&options, &reactor));
    assert_int_equal(TANDEM_OK, tandem_verify(reactor, report, NULL));
    assert_memory_equal(restored->reactor, tandem_reactor_id(reactor), TANDEM_ORIGIN_BYTES);
    assert_memory_equal(restored->origin, tandem_reactor_origin(reactor), TANDEM_ORIGIN_BYTES);
    return reactor;
}

static void expect_same(tandem_reactor *a, tandem_reactor *b, const char *collection)
{
    tandem_digest x, y;
    char why[TANDEM_WHY_BYTES];

    assert_int_equal(TANDEM_OK, tandem_digest_collection(a, collection, 60000, &x, why));
    assert_int_equal(TANDEM_OK, tandem_digest_collection(b, collection, 60000, &y, why));
    assert_int_equal(x.operations, y.operations);
    assert_int_equal(x.documents, y.documents);
    assert_memory_equal(x.vector_digest, y.vector_digest, TANDEM_HASH_BYTES);
    assert_memory_equal(x.state_digest, y.state_digest, TANDEM_HASH_BYTES);
}

/* ---- Filling a reactor ---- */

static void write_one(tandem_reactor *reactor, const char *collection, const char *document,
                      const char *branch, const char *scope, const char *type, const char *json)
{
    tandem_input input = {.scope = scope, .type = type, .json = json};
    tandem_job job = {.collection = collection, .document = document, .branch = branch,
                      .operations = &input, .count = 1};
    char why[TANDEM_WHY_BYTES];

    assert_int_equal(TANDEM_OK, tandem_execute(reactor, &job, NULL, why));
}

static void write_some(tandem_reactor *reactor, const char *collection, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char document[16];

        snprintf(document, sizeof(document), "d%u", i % 7);
        write_one(reactor, collection, document, NULL, NULL, "counter.ADD", "1");
    }
}

static void fed(td_remote_request *request)
{
    td_reply_set(request->context, TANDEM_OK);
}

static tandem_err feed_through(tandem_reactor *reactor, td_remote_job *job, bool part)
{
    /* Any date: what a backup holds may have come before a clock was set right. */
    td_remote_request request = {
        .jobs = job, .count = 1, .restored = true, .part = part, .done = fed};
    td_reply *reply;

    assert_int_equal(TANDEM_OK, td_reply_open(td_reactor_runtime(reactor), &reply));
    request.context = reply;
    td_executor_remote(td_reactor_executor(reactor), &request);
    assert_int_equal(TANDEM_OK, td_reply_wait(reply, UINT64_MAX));
    td_reply_free(reply);
    return job->err;
}

static tandem_err feed(tandem_reactor *reactor, td_remote_job *job)
{
    return feed_through(reactor, job, false);
}

/* One job as it comes from a peer, through a filter or not. */
static tandem_err feed_job_through(tandem_reactor *reactor, const struct made *const *made,
                                   uint32_t count, bool part, td_append_result *result)
{
    td_remote_job job = {.count = count};
    tandem_writer bytes;
    tandem_err err;

    tandem_writer_init(&bytes);
    for (uint32_t i = 0; i < count; i++)
        tandem_write_binary(&bytes, made[i]->operation.canonical);
    job.operations = tandem_writer_slice(&bytes);
    err = feed_through(reactor, &job, part);
    tandem_writer_release(&bytes);
    if (result)
        *result = job.result;
    return err;
}

static tandem_err feed_job(tandem_reactor *reactor, const struct made *const *made, uint32_t count,
                           td_append_result *result)
{
    return feed_job_through(reactor, made, count, false, result);
}

/* Have a job recorded as lacking. */
static tandem_err feed_lack(tandem_reactor *reactor, const struct made *const *made, uint32_t count,
                            tandem_err reason)
{
    const td_operation *first = &made[0]->operation, *last = &made[count - 1]->operation;
    td_wanted wanted = {first->collection, first->origin,
                        {.first = first->seq, .last = last->seq, .reason = reason}};
    td_remote_job job = {.wanted = &wanted};

    memcpy(wanted.lack.predecessor, first->predecessor, TANDEM_HASH_BYTES);
    memcpy(wanted.lack.hash, last->hash, TANDEM_HASH_BYTES);
    return feed(reactor, &job);
}

/* An operation after another one (NULL: its origin's first). */
static struct made *made_after(const struct made *before, uint32_t origin, uint64_t flags,
                               uint64_t hlc, const char *type, uint8_t number)
{
    static const char collection[] = "forks";
    struct made *made = calloc(1, sizeof(*made));
    uint8_t name[TANDEM_ORIGIN_BYTES] = {0}, root[TANDEM_HASH_BYTES];
    td_operation fields = {
        .version = TD_OPERATION_VERSION,
        .flags = flags,
        .seq = before ? before->operation.seq + 1 : 1,
        .hlc = hlc,
        .origin = name,
        .predecessor = before ? before->operation.hash : root,
        .collection = tandem_slice_text(collection),
        .document = tandem_slice_text("d"),
        .branch = tandem_slice_text("main"),
        .scope = tandem_slice_text("global"),
        .type = tandem_slice_text(type),
        .payload = tandem_slice_of(&number, 1),
    };

    assert_non_null(made);
    td_put_u32(name, origin);
    td_chain_root(tandem_slice_text(collection), root);
    tandem_writer_init(&made->bytes);
    assert_int_equal(TANDEM_OK, td_operation_encode(&fields, &made->bytes));
    assert_int_equal(TANDEM_OK,
                     td_operation_parse(tandem_writer_slice(&made->bytes), &made->operation));
    td_operation_hash(&made->operation);
    return made;
}

/* ---- What is restored ---- */

static void everything_comes_back_under_a_new_name(void **state)
{
    struct bed *bed = *state;
    tandem_restored restored;
    tandem_reactor *reactor;
    tandem_stat stat;
    char why[TANDEM_WHY_BYTES];

    write_some(bed->reactor, "a", 100);
    write_some(bed->reactor, "b", 3);
    write_one(bed->reactor, "b", "d0", "draft", "mine", "counter.ADD", "7");
    write_one(bed->reactor, "c", "x", NULL, NULL, "kv.SET", "{\"k\":[1,2.5,null]}");
    assert_int_equal(TANDEM_OK, tandem_delete(bed->reactor, "b", "d1", NULL, why));
    reactor = round_trip(bed, &restored);
    expect_same(bed->reactor, reactor, "a");
    expect_same(bed->reactor, reactor, "b");
    expect_same(bed->reactor, reactor, "c");
    assert_int_equal(3, restored.backup.collections);
    assert_memory_equal(restored.backup.reactor, tandem_reactor_id(bed->reactor),
                        TANDEM_ORIGIN_BYTES);
    assert_memory_equal(restored.backup.origin, tandem_reactor_origin(bed->reactor),
                        TANDEM_ORIGIN_BYTES);
    assert_memory_not_equal(restored.reactor, restored.backup.reactor, TANDEM_ORIGIN_BYTES);
    assert_memory_not_equal(restored.origin, restored.backup.origin, TANDEM_ORIGIN_BYTES);
    assert_int_equal(TANDEM_OK, tandem_stat_get(reactor, &stat));
    assert_int_equal(1, stat.incarnation);
    assert_int_equal(TANDEM_INCARNATION_RESTORED, stat.incarnation_reason);
    assert_int_equal(restored.backup.operations, stat.operations);
    assert_int_equal(0, stat.forks);
    /* Both go on, each under its own name: no fork. */
    write_some(reactor, "a", 1);
    write_some(bed->reactor, "a", 1);
    tandem_close(reactor);
}

static void nothing_comes_back_of_nothing(void **state)
{
    struct bed *bed = *state;
    tandem_restored restored;

    tandem_close(round_trip(bed, &restored));
    assert_int_equal(0, restored.backup.operations);
    assert_int_equal(0, restored.backup.collections);
}

static void many_collections_come_back(void **state)
{
    enum { COUNT = 300 };
    struct bed *bed = *state;
    tandem_restored restored;
    tandem_reactor *reactor;
    char name[16];

    if (in_folder)
        return; /* a flush for each; the folder that counts is the one that is made */
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "c%u", i);
        write_some(bed->reactor, name, 1);
    }
    reactor = round_trip(bed, &restored);
    assert_int_equal(COUNT, restored.backup.collections);
    for (unsigned i = 0; i < COUNT; i += 60) {
        snprintf(name, sizeof(name), "c%u", i);
        expect_same(bed->reactor, reactor, name);
    }
    tandem_close(reactor);
}

static void jobs_of_every_size_stay_whole(void **state)
{
    enum { COUNT = 999 };
    struct bed *bed = *state;
    tandem_input *inputs = calloc(COUNT, sizeof(*inputs));
    tandem_job job = {.collection = "big", .document = "d", .operations = inputs};
    char json[400], why[TANDEM_WHY_BYTES];
    tandem_restored restored;
    tandem_reactor *reactor;

    assert_non_null(inputs);
    memset(json, 'x', sizeof(json));
    json[0] = json[300] = '"';
    json[301] = 0;
    for (unsigned i = 0; i < COUNT; i++)
        inputs[i] = (tandem_input){.type = "log.APPEND", .json = json};
    for (job.count = 1; job.count <= COUNT; job.count += 499)
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(TANDEM_OK, tandem_execute(bed->reactor, &job, NULL, why));
    free(inputs);
    reactor = round_trip(bed, &restored);
    expect_same(bed->reactor, reactor, "big");
    tandem_close(reactor);
}

static void all_branches_of_forks_come_back(void **state)
{
    struct bed *bed = *state;
    uint64_t now = td_executor_clock(td_reactor_executor(bed->reactor));
    struct made *m[24];
    const struct made *one, *job[3];
    td_append_result result;
    tandem_restored restored;
    tandem_reactor *reactor;
    tandem_stat stat;
    unsigned n = 0;

    /* Origin 1 in eight branches, two of which begin at the root. */
    one = m[n++] = made_after(NULL, 1, 0, now, "kv.SET", 0xc0);
    assert_int_equal(TANDEM_OK, feed_job(bed->reactor, &one, 1, NULL));
    for (uint8_t i = 0; i < 7; i++) {
        one = m[n++] = made_after(m[0], 1, 0, now + i, "nobody.KNOWS", i);
        assert_int_equal(TANDEM_OK, feed_job(bed->reactor, &one, 1, NULL));
    }
    one = m[n++] = made_after(NULL, 1, 0, now, "kv.SET", 1);
    assert_int_equal(TANDEM_OK, feed_job(bed->reactor, &one, 1, NULL));
    one = m[n++] = made_after(NULL, 1, 0, now, "kv.SET", 2);
    assert_int_equal(TANDEM_E_QUARANTINED, feed_job(bed->reactor, &one, 1, NULL));
    /* Origin 2 in two, that part within a job of three. */
    job[0] = m[n++] = made_after(NULL, 2, TD_FLAG_CONTINUES, now, "kv.SET", 1);
    job[1] = m[n++] = made_after(job[0], 2, TD_FLAG_CONTINUES, now, "kv.SET", 2);
    job[2] = m[n++] = made_after(job[1], 2, 0, now, "kv.SET", 3);
    assert_int_equal(TANDEM_OK, feed_job(bed->reactor, job, 3, NULL));
    one = m[n++] = made_after(job[2], 2, 0, now, "kv.SET", 4);
    assert_int_equal(TANDEM_OK, feed_job(bed->reactor, &one, 1, NULL));
    job[2] = m[n++] = made_after(job[1], 2, 0, now, "kv.SET", 5);
    assert_int_equal(TANDEM_OK, feed_job(bed->reactor, job, 3, &result));
    assert_int_equal(1, result.appended);
    assert_int_equal(2, result.duplicates);
    /* Origin 3 from a year ahead. */
    one = m[n++] = made_after(NULL, 3, 0, now + (UINT64_C(31536000000) << 16), "kv.SET", 1);
    assert_int_equal(TANDEM_OK, feed_job(bed->reactor, &one, 1, NULL));
    assert_true(td_executor_clock(td_reactor_executor(bed->reactor)) < one->operation.hlc);

    reactor = round_trip(bed, &restored);
    expect_same(bed->reactor, reactor, "forks");
    assert_int_equal(TANDEM_OK, tandem_stat_get(reactor, &stat));
    assert_int_equal(2, stat.forks);
    assert_int_equal(15, stat.operations);
    assert_true(td_executor_clock(td_reactor_executor(reactor)) < one->operation.hlc);
    tandem_close(reactor);
    while (n > 0) {
        made_release(m[--n], 1);
        free(m[n]);
    }
}

/* ---- What is lacking ---- */

struct lack_list {
    struct {
        char collection[TANDEM_NAME_BYTES_MAX + 1];
        uint8_t origin[TANDEM_ORIGIN_BYTES];
        td_lack lack;
    } all[64];
    unsigned count;
};

static tandem_err list_lack(void *context, tandem_slice collection, const uint8_t *origin,
                            const td_lack *lack)
{
    struct lack_list *list = context;

    assert_true(list->count < sizeof(list->all) / sizeof(list->all[0]));
    memcpy(list->all[list->count].collection, collection.bytes, collection.size);
    memcpy(list->all[list->count].origin, origin, TANDEM_ORIGIN_BYTES);
    list->all[list->count++].lack = *lack;
    return TANDEM_OK;
}

static struct lack_list *lacks_of(tandem_reactor *reactor)
{
    struct lack_list *list = calloc(1, sizeof(*list));
    uint64_t ordinal;

    assert_non_null(list);
    assert_int_equal(TANDEM_OK,
                     td_op_store_all_lacks(td_reactor_ops(reactor), &ordinal, list_lack, list));
    return list;
}

/* The same, by the same reasons. */
static unsigned expect_same_lacks(tandem_reactor *a, tandem_reactor *b)
{
    struct lack_list *x = lacks_of(a), *y = lacks_of(b);
    unsigned count = x->count;

    assert_int_equal(count, y->count);
    for (unsigned i = 0; i < count; i++) {
        const td_lack *one = &x->all[i].lack, *other = &y->all[i].lack;

        assert_string_equal(x->all[i].collection, y->all[i].collection);
        assert_memory_equal(x->all[i].origin, y->all[i].origin, TANDEM_ORIGIN_BYTES);
        assert_int_equal(one->first, other->first);
        assert_int_equal(one->last, other->last);
        assert_memory_equal(one->predecessor, other->predecessor, TANDEM_HASH_BYTES);
        assert_memory_equal(one->hash, other->hash, TANDEM_HASH_BYTES);
        assert_int_equal(one->reason, other->reason);
        assert_int_equal(one->followed, other->followed);
    }
    free(x);
    free(y);
    return count;
}

enum { CHAIN = 5 };

static void chain_make(struct made *made[CHAIN], uint32_t origin, uint64_t hlc)
{
    for (uint8_t i = 0; i < CHAIN; i++)
        made[i] = made_after(i ? made[i - 1] : NULL, origin, 0, hlc + i, "kv.SET", i);
}

static void chain_free(struct made *made[CHAIN])
{
    for (unsigned i = 0; i < CHAIN; i++) {
        made_release(made[i], 1);
        free(made[i]);
    }
}

static const struct made *const *at(struct made **made)
{
    return (const struct made *const *)made;
}

static void what_is_lacking_comes_back_with_its_reason(void **state)
{
    struct bed *bed = *state;
    uint64_t now = td_executor_clock(td_reactor_executor(bed->reactor));
    static const tandem_err reasons[] = {TANDEM_E_REFUSED, TANDEM_OK, TANDEM_E_UNSUPPORTED,
                                         TANDEM_E_REFUSED};
    struct made *m[4][CHAIN];
    struct lack_list *lacks;
    tandem_restored restored;
    tandem_reactor *reactor;

    write_some(bed->reactor, "forks", 20);
    for (uint32_t i = 0; i < 4; i++)
        chain_make(m[i], i + 1, now);
    /* Origin 1 has refused one and wants the two behind it; the last is held. */
    assert_int_equal(TANDEM_OK, feed_job(bed->reactor, at(m[0]), 1, NULL));
    assert_int_equal(TANDEM_OK, feed_lack(bed->reactor, at(m[0] + 1), 1, TANDEM_E_REFUSED));
    assert_int_equal(TANDEM_OK, feed_lack(bed->reactor, at(m[0] + 2), 2, TANDEM_OK));
    assert_int_equal(TANDEM_OK, feed_job(bed->reactor, at(m[0] + 4), 1, NULL));
    write_some(bed->reactor, "forks", 20);
    /* Of origin 2 all is refused; of origin 3 the last. */
    assert_int_equal(TANDEM_OK, feed_lack(bed->reactor, at(m[1]), CHAIN, TANDEM_E_UNSUPPORTED));
    for (unsigned i = 0; i < CHAIN - 1; i++)
        assert_int_equal(TANDEM_OK, feed_job(bed->reactor, at(m[2] + i), 1, NULL));
    assert_int_equal(TANDEM_OK, feed_lack(bed->reactor, at(m[2] + 4), 1, TANDEM_E_REFUSED));
    /* Origin 4's gap was filled from its end, as one job came after the other was refused. */
    for (unsigned i = 0; i < CHAIN - 1; i++)
        assert_int_equal(TANDEM_OK, feed_lack(bed->reactor, at(m[3] + i), 1, TANDEM_E_REFUSED));
    for (unsigned i = CHAIN; i-- > 0;)
        assert_int_equal(TANDEM_OK, feed_job(bed->reactor, at(m[3] + i), 1, NULL));
    reactor = round_trip(bed, &restored);
    expect_same(bed->reactor, reactor, "forks");
    assert_int_equal(4, expect_same_lacks(bed->reactor, reactor));
    lacks = lacks_of(reactor);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(reasons[i], lacks->all[i].lack.reason);
    free(lacks);
    /* And what comes now fills it. */
    for (unsigned i = 0; i < CHAIN; i++)
        assert_int_equal(TANDEM_OK, feed_job(reactor, at(m[1] + i), 1, NULL));
    for (unsigned i = 0; i < CHAIN; i++)
        assert_int_equal(TANDEM_OK, feed_job(bed->reactor, at(m[1] + i), 1, NULL));
    expect_same(bed->reactor, reactor, "forks");
    assert_int_equal(3, expect_same_lacks(bed->reactor, reactor));
    tandem_close(reactor);
    for (unsigned i = 0; i < 4; i++)
        chain_free(m[i]);
}

/* That all of a made one's origin up to it is held, as far as a filter matches. */
static tandem_err feed_cover(tandem_reactor *reactor, const struct made *last)
{
    const tandem_slice glob = tandem_slice_text("d*");
    const td_operation *operation = &last->operation;
    td_head head = {.seq = operation->seq};
    td_filter filter = TD_FILTER_ALL;
    td_covered covered = {.collection = operation->collection, .origin = operation->origin,
                          .heads = &head, .count = 1};
    td_remote_job job = {.covered = &covered};
    tandem_err err;

    memcpy(head.hash, operation->hash, TANDEM_HASH_BYTES);
    assert_int_equal(TANDEM_OK, td_filter_make((td_names){&glob, 1}, (td_names){NULL, 0},
                                               (td_names){NULL, 0}, &filter));
    covered.filter = td_filter_bytes(&filter);
    err = feed(reactor, &job);
    td_filter_release(&filter);
    return err;
}

static void expect_part_refused(struct bed *bed, bool with_pair)
{
    char why[TANDEM_WHY_BYTES];

    assert_int_equal(TANDEM_E_UNSUPPORTED, back_up(bed, NULL, why));
    assert_non_null(strstr(why, "forks is held in part"));
    if (with_pair)
        assert_int_equal(0, bed->stream.size);
}

/* By what is loose alone, till COVER comes; by a pair alone; and by both. */
static void what_is_held_in_part_has_no_backup_until_it_is_whole(void **state)
{
    struct bed *bed = *state;
    uint64_t now = td_executor_clock(td_reactor_executor(bed->reactor));
    tandem_restored restored;
    tandem_reactor *reactor;
    struct made *m[2][CHAIN];

    write_some(bed->reactor, "forks", 20);
    for (uint32_t i = 0; i < 2; i++)
        chain_make(m[i], i + 1, now);
    assert_int_equal(TANDEM_OK, feed_job(bed->reactor, at(m[0]), 1, NULL));
    assert_int_equal(TANDEM_OK, feed_job_through(bed->reactor, at(m[0] + 2), 1, true, NULL));
    assert_int_equal(TANDEM_OK, feed_job_through(bed->reactor, at(m[0] + 3), 1, true, NULL));
    expect_part_refused(bed, false);
    assert_int_equal(TANDEM_OK, feed_cover(bed->reactor, m[0][3]));
    expect_part_refused(bed, true);
    assert_int_equal(TANDEM_OK, feed_job(bed->reactor, at(m[0] + 1), 1, NULL));
    assert_int_equal(TANDEM_OK, feed_cover(bed->reactor, m[1][2]));
    expect_part_refused(bed, true);
    for (unsigned i = 0; i < CHAIN; i++)
        assert_int_equal(TANDEM_OK, feed_job(bed->reactor, at(m[1] + i), 1, NULL));
    reactor = round_trip(bed, &restored);
    expect_same(bed->reactor, reactor, "forks");
    tandem_close(reactor);
    for (unsigned i = 0; i < 2; i++)
        chain_free(m[i]);
}

static void a_collection_that_only_lacks_comes_back(void **state)
{
    struct bed *bed = *state;
    struct made *m[CHAIN];
    tandem_restored restored;
    tandem_reactor *reactor;

    write_some(bed->reactor, "a", 3);
    write_some(bed->reactor, "z", 3);
    chain_make(m, 1, 1);
    assert_int_equal(TANDEM_OK, feed_lack(bed->reactor, at(m), 2, TANDEM_E_REFUSED));
    reactor = round_trip(bed, &restored);
    assert_int_equal(3, restored.backup.collections);
    expect_same(bed->reactor, reactor, "forks");
    assert_int_equal(1, expect_same_lacks(bed->reactor, reactor));
    tandem_close(reactor);
    chain_free(m);
}

/* Random histories: chains with forks and jobs of several operations, refused, wanted and taken in an
 * order that is drawn. */
enum { HISTORY_JOBS = 36, HISTORY_ORIGINS = 3 };

struct history {
    struct {
        struct made *made[3];
        unsigned count;
    } jobs[HISTORY_JOBS];
};

static void history_draw(struct history *history, uint64_t now, bool with_forks, uint64_t *random)
{
    for (unsigned i = 0; i < HISTORY_JOBS; i++) {
        const struct made *before = NULL;

        if (i >= HISTORY_ORIGINS) {
            /* Mostly behind the origin's last one. */
            bool forks = draw(random) % 12 == 0 && with_forks;
            unsigned k = forks ? i % HISTORY_ORIGINS : i - HISTORY_ORIGINS;

            before = history->jobs[k].made[history->jobs[k].count - 1];
        }
        history->jobs[i].count = 1 + (unsigned)(draw(random) % 3);
        for (uint32_t n = 0; n < history->jobs[i].count; n++) {
            uint64_t flags = n + 1 < history->jobs[i].count ? TD_FLAG_CONTINUES : 0;

            before = history->jobs[i].made[n] =
                made_after(before, 1 + i % HISTORY_ORIGINS, flags, now + i, "counter.ADD",
                           (uint8_t)(i + n));
        }
    }
}

static void history_play(tandem_reactor *reactor, struct history *history, uint64_t *random)
{
    for (unsigned step = 0; step < 150; step++) {
        unsigned i = (unsigned)(draw(random) % (step / 3 + HISTORY_ORIGINS));
        struct made **job;
        uint32_t count;
        tandem_err err;

        i = i < HISTORY_JOBS ? i : i % HISTORY_JOBS;
        job = history->jobs[i].made;
        count = history->jobs[i].count;
        switch (draw(random) % 4) {
        case 0:
            err = feed_lack(reactor, at(job), count, TANDEM_E_REFUSED);
            break;
        case 1:
            err = feed_lack(reactor, at(job), count, TANDEM_OK);
            break;
        default:
            err = feed_job(reactor, at(job), count, NULL);
        }
        assert_true(err == TANDEM_OK || err == TANDEM_E_PREDECESSOR ||
                    err == TANDEM_E_QUARANTINED);
    }
}

static void history_release(struct history *history)
{
    for (unsigned i = 0; i < HISTORY_JOBS; i++)
        for (uint32_t n = 0; n < history->jobs[i].count; n++) {
            made_release(history->jobs[i].made[n], 1);
            free(history->jobs[i].made[n]);
        }
}

static void random_histories_with_gaps_come_back(void **state)
{
    unsigned lacks = 0, forks = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= (in_folder ? 2 : 12); seed++) {
        struct history history;
        uint64_t random = seed;
        tandem_restored restored;
        tandem_reactor *reactor;
        tandem_stat stat;
        struct bed *bed;
        void *other;

        bed_open(&other);
        bed = other;
        history_draw(&history, td_executor_clock(td_reactor_executor(bed->reactor)), true,
                     &random);
        history_play(bed->reactor, &history, &random);
        reactor = round_trip(bed, &restored);
        expect_same(bed->reactor, reactor, "forks");
        lacks += expect_same_lacks(bed->reactor, reactor);
        assert_int_equal(TANDEM_OK, tandem_stat_get(reactor, &stat));
        forks += (unsigned)stat.forks;
        /* Once more, of what was restored in large groups. */
        tandem_close(bed->reactor);
        bed->reactor = reactor;
        snprintf(bed->restored, sizeof(bed->restored), "%s/again", bed->root);
        reactor = round_trip(bed, &restored);
        expect_same(bed->reactor, reactor, "forks");
        expect_same_lacks(bed->reactor, reactor);
        tandem_close(reactor);
        bed_free(&other);
        history_release(&history);
    }
    assert_true(lacks > 3 && forks > 0);
}

/* Feed jobs, some of them through a filter, in an order that is drawn; then perhaps all that are
 * missing. */
static void history_play_in_part(tandem_reactor *reactor, struct history *history, bool to_the_end,
                                 uint64_t *random)
{
    for (unsigned step = 0; step < 60; step++) {
        unsigned i = (unsigned)(draw(random) % HISTORY_JOBS);
        tandem_err err = feed_job_through(reactor, at(history->jobs[i].made),
                                          history->jobs[i].count, draw(random) % 3 == 0, NULL);

        assert_true(err == TANDEM_OK || err == TANDEM_E_PREDECESSOR);
    }
    for (unsigned i = 0; i < HISTORY_JOBS && to_the_end; i++)
        assert_int_equal(TANDEM_OK, feed_job(reactor, at(history->jobs[i].made),
                                             history->jobs[i].count, NULL));
}

/* While something is loose there is no backup; once it hangs together, whatever the order in which it
 * came, all of it comes back. */
static void random_histories_in_part_come_back_once_they_are_whole(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= (in_folder ? 4 : 16); seed++) {
        struct history history;
        uint64_t random = seed;
        tandem_restored restored;
        char why[TANDEM_WHY_BYTES];
        tandem_reactor *reactor;
        struct bed *bed;
        void *other;

        bed_open(&other);
        bed = other;
        history_draw(&history, td_executor_clock(td_reactor_executor(bed->reactor)), false,
                     &random);
        history_play_in_part(bed->reactor, &history, seed % 2, &random);
        if (seed % 2) {
            reactor = round_trip(bed, &restored);
            expect_same(bed->reactor, reactor, "forks");
            tandem_close(reactor);
        } else {
            assert_int_equal(TANDEM_E_UNSUPPORTED, back_up(bed, NULL, why));
            assert_int_equal(TANDEM_OK, tandem_verify(bed->reactor, report, NULL));
        }
        bed_free(&other);
        history_release(&history);
    }
}

struct filler {
    struct bed *bed;
    struct made **made;
    bool filled;
};

static tandem_err fill_between(void *context, tandem_slice bytes)
{
    struct filler *filler = context;

    if (!filler->filled) {
        assert_int_equal(TANDEM_OK, feed_job(filler->bed->reactor, at(filler->made + 1), 1, NULL));
        assert_int_equal(TANDEM_OK, feed_lack(filler->bed->reactor, at(filler->made + 3), 1,
                                              TANDEM_E_REFUSED));
        assert_int_equal(TANDEM_OK, feed_job(filler->bed->reactor, at(filler->made + 4), 1, NULL));
    }
    filler->filled = true;
    return take_bytes(filler->bed, bytes);
}

static void gaps_that_are_filled_meanwhile_are_gaps_in_it(void **state)
{
    struct bed *bed = *state;
    tandem_options options = bed->to;
    tandem_reactor *before, *reactor;
    char why[TANDEM_WHY_BYTES], second[300];
    struct made *m[CHAIN];
    struct filler filler = {bed, m, false};
    tandem_restored restored;

    chain_make(m, 1, 1);
    assert_int_equal(TANDEM_OK, feed_job(bed->reactor, at(m), 1, NULL));
    assert_int_equal(TANDEM_OK, feed_lack(bed->reactor, at(m + 1), 1, TANDEM_E_REFUSED));
    assert_int_equal(TANDEM_OK, feed_job(bed->reactor, at(m + 2), 1, NULL));
    before = round_trip(bed, &restored);
    snprintf(second, sizeof(second), "%s2", bed->restored);
    options.path = bed->to.path = second;
    tandem_writer_clear(&bed->stream);
    assert_int_equal(TANDEM_OK,
                     tandem_backup(bed->reactor, NULL, fill_between, &filler, NULL, why));
    assert_int_equal(TANDEM_OK, restore_some(bed, bed->stream.size, 999, &restored, why));
    assert_int_equal(TANDEM_OK, tandem_open(&options, &reactor));
    expect_same(before, reactor, "forks");
    assert_int_equal(1, expect_same_lacks(before, reactor));
    tandem_close(before);
    tandem_close(reactor);
    chain_free(m);
}

struct scribbler {
    tandem_reactor *reactor;
    atomic_bool stop;
    atomic_uint written;
};

static void *scribble(void *context)
{
    struct scribbler *scribbler = context;

    while (!atomic_load(&scribbler->stop)) {
        write_some(scribbler->reactor, "hot", 1);
        write_some(scribbler->reactor, "z-new", 1);
        atomic_fetch_add(&scribbler->written, 1);
    }
    return NULL;
}

static tandem_err count_up_to(tandem_reactor *reactor, const char *collection, uint64_t position,
                              uint64_t *count)
{
    tandem_operations *operations;
    tandem_operation operation;
    tandem_err err;

    *count = 0;
    assert_int_equal(TANDEM_OK,
                     tandem_operations_open(reactor, collection, NULL, 0, &operations));
    while ((err = tandem_operations_next(operations, &operation)) == TANDEM_OK)
        *count += operation.ordinal <= position;
    tandem_operations_free(operations);
    return err;
}

/* It holds what was committed up to its position, and not an operation more. */
static void a_backup_is_taken_while_others_write(void **state)
{
    struct bed *bed = *state;
    struct scribbler scribbler = {.reactor = bed->reactor};
    char why[TANDEM_WHY_BYTES];
    tandem_restored restored;
    pthread_t thread;

    write_some(bed->reactor, "a", 200);
    assert_int_equal(0, pthread_create(&thread, NULL, scribble, &scribbler));
    while (atomic_load(&scribbler.written) < 10)
        ;
    for (unsigned i = 0; i < 2; i++) {
        unsigned before = atomic_load(&scribbler.written);
        uint64_t of_a, hot, new;

        assert_int_equal(TANDEM_OK, back_up(bed, NULL, why));
        while (atomic_load(&scribbler.written) == before)
            ;
        assert_int_equal(TANDEM_OK,
                         restore_some(bed, bed->stream.size, 100000, &restored, why));
        count_up_to(bed->reactor, "a", restored.backup.position, &of_a);
        count_up_to(bed->reactor, "hot", restored.backup.position, &hot);
        count_up_to(bed->reactor, "z-new", restored.backup.position, &new);
        assert_int_equal(of_a + hot + new, restored.backup.operations);
        folder_remove(bed->restored);
    }
    atomic_store(&scribbler.stop, true);
    pthread_join(thread, NULL);
}

struct remotes {
    unsigned count, paused;
    bool bob, eve;
};

/* On the loop's thread: nothing may be asserted here. */
static tandem_err look_at_remote(void *context, const tandem_remote_status *status)
{
    struct remotes *remotes = context;

    remotes->count++;
    remotes->paused += status->state == TANDEM_REMOTE_PAUSED;
    remotes->bob = remotes->bob || (!strcmp(status->name, "bob") &&
                                    !strcmp(status->url, "ws://127.0.0.1:9/tandem"));
    remotes->eve = remotes->eve ||
                   (!strcmp(status->name, "eve") && !strcmp(status->url, "ws://[::1]:9/tandem") &&
                    status->share.direction == TANDEM_DIRECTION_PUSH &&
                    status->share.document_count == 1 &&
                    !strcmp(status->share.documents[0], "a*"));
    return TANDEM_OK;
}

static tandem_err write_between(void *context, tandem_slice bytes)
{
    struct bed *bed = context;
    static const char *const collections[] = {"a", "a-new", "z-new"};

    for (unsigned i = 0; i < 3; i++)
        write_some(bed->reactor, collections[i], 1);
    return take_bytes(bed, bytes);
}

static void what_is_written_meanwhile_is_not_in_it(void **state)
{
    struct bed *bed = *state;
    char why[TANDEM_WHY_BYTES];
    tandem_restored restored;
    tandem_backup_info info;
    tandem_stat stat;

    write_some(bed->reactor, "a", 10);
    assert_int_equal(TANDEM_OK, tandem_stat_get(bed->reactor, &stat));
    assert_int_equal(TANDEM_OK,
                     tandem_backup(bed->reactor, NULL, write_between, bed, &info, why));
    assert_int_equal(stat.position, info.position);
    assert_int_equal(stat.operations, info.operations);
    assert_int_equal(1, info.collections);
    assert_int_equal(TANDEM_OK, restore_some(bed, bed->stream.size, 300, &restored, why));
}

static void remotes_come_back_paused(void **state)
{
    struct bed *bed = *state;
    tandem_sync_options offline = TANDEM_SYNC_OPTIONS_INIT;
    tandem_share share = {.size = sizeof(share), .direction = TANDEM_DIRECTION_PUSH,
                          .documents = (const char *const[]){"a*"}, .document_count = 1};
    struct remotes remotes = {.count = 0};
    tandem_restored restored;
    tandem_reactor *reactor;
    tandem_sync *sync;

    if (driven)
        return; /* the loop would be ours to turn */
    offline.offline = true;
    assert_int_equal(TANDEM_OK, tandem_sync_open(bed->reactor, &offline, &bed->sync));
    assert_int_equal(TANDEM_OK, tandem_remote_add(bed->sync, "bob", "ws://127.0.0.1:9/tandem"));
    assert_int_equal(TANDEM_OK, tandem_remote_add_sharing(bed->sync, "eve", "ws://[::1]:9/tandem",
                                                          &share));
    reactor = round_trip(bed, &restored);
    assert_int_equal(2, restored.backup.remotes);
    assert_int_equal(TANDEM_OK, tandem_sync_open(reactor, NULL, &sync));
    assert_int_equal(TANDEM_OK, tandem_remotes(sync, look_at_remote, &remotes));
    assert_int_equal(2, remotes.count);
    assert_int_equal(2, remotes.paused);
    assert_true(remotes.bob && remotes.eve);
    tandem_sync_close(sync);
    tandem_close(reactor);
}

/* ---- What is refused ---- */

/* Change the store behind its back: the operation at an ordinal is flipped or deleted. */
static void damage(struct bed *bed, uint64_t ordinal, bool delete)
{
    td_store *store = td_op_store_backend(td_reactor_ops(bed->reactor));
    uint8_t key[TD_OPERATION_KEY_BYTES];
    tandem_slice name = tandem_slice_of(key, sizeof(key)), value;
    tandem_writer changed;
    td_txn *txn;

    td_operation_key(key, 1, ordinal);
    tandem_writer_init(&changed);
    assert_int_equal(TANDEM_OK, td_store_begin_write(store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_get(txn, TD_TABLE_OPERATIONS, name, &value));
    tandem_write_raw(&changed, value);
    changed.bytes[changed.size / 2] ^= 4;
    if (delete)
        assert_int_equal(TANDEM_OK, td_txn_del(txn, TD_TABLE_OPERATIONS, name));
    else
        assert_int_equal(TANDEM_OK, td_txn_put(txn, TD_TABLE_OPERATIONS, name,
                                               tandem_writer_slice(&changed)));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
    tandem_writer_release(&changed);
}

static void lose_lack(struct bed *bed, const td_operation *last)
{
    td_lack lack = {.last = last->seq};
    td_txn *txn;

    memcpy(lack.hash, last->hash, sizeof(lack.hash));
    assert_int_equal(TANDEM_OK,
                     td_store_begin_write(td_op_store_backend(td_reactor_ops(bed->reactor)), &txn));
    assert_int_equal(TANDEM_OK, td_lack_del(txn, 1, last->origin, &lack));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
}

static void of_a_damaged_store_there_is_no_backup(void **state)
{
    static const struct {
        uint64_t ordinal;
        bool delete;
        const char *named;
    } damages[] = {{50, false, "ordinal 50"}, {50, true, "ordinal 51"}, {100, true, "ordinal 100"}};
    char why[TANDEM_WHY_BYTES];

    (void)state;
    for (unsigned i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        void *other;
        struct bed *fresh;

        bed_open(&other);
        fresh = other;
        write_some(fresh->reactor, "c", 93); /* and seven that create: 100 */
        assert_int_equal(TANDEM_OK, back_up(fresh, NULL, why));
        damage(fresh, damages[i].ordinal, damages[i].delete);
        assert_int_equal(TANDEM_E_CORRUPT, back_up(fresh, NULL, why));
        if (!strstr(why, damages[i].named))
            fail_msg("`%s` does not name %s", why, damages[i].named);
        bed_free(&other);
    }
}

/* Of a chain with a gap that was filled late: the gap's, its last one, a record that says where; and
 * what says that something is lacking. */
static void of_damaged_gaps_there_is_no_backup(void **state)
{
    char why[TANDEM_WHY_BYTES];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct made *m[CHAIN];
        struct bed *fresh;
        void *other;

        bed_open(&other);
        fresh = other;
        chain_make(m, 1, 1);
        assert_int_equal(TANDEM_OK, feed_job(fresh->reactor, at(m), 1, NULL));
        assert_int_equal(TANDEM_OK, feed_lack(fresh->reactor, at(m + 1), 1, TANDEM_E_REFUSED));
        assert_int_equal(TANDEM_OK, feed_job(fresh->reactor, at(m + 2), 1, NULL));
        assert_int_equal(TANDEM_OK, feed_lack(fresh->reactor, at(m + 3), 1, TANDEM_OK));
        assert_int_equal(TANDEM_OK, feed_job(fresh->reactor, at(m + 4), 1, NULL));
        assert_int_equal(TANDEM_OK, feed_job(fresh->reactor, at(m + 1), 1, NULL));
        assert_int_equal(TANDEM_OK, back_up(fresh, NULL, why));
        if (i < 3)
            damage(fresh, i == 0 ? 6 : 5, i < 2);
        else
            lose_lack(fresh, &m[3]->operation);
        assert_int_equal(TANDEM_E_CORRUPT, back_up(fresh, NULL, why));
        assert_true(why[0]);
        bed_free(&other);
        chain_free(m);
    }
}

static void who_cannot_write_is_told_so(void **state)
{
    struct bed *bed = *state;
    char why[TANDEM_WHY_BYTES];

    write_some(bed->reactor, "c", 10);
    assert_int_equal(TANDEM_OK, back_up(bed, NULL, NULL));
    for (size_t room = bed->stream.size - 1; room > 100; room -= 50) {
        bed->room = room;
        assert_int_equal(TANDEM_E_STORE_FULL, back_up(bed, NULL, why));
    }
    assert_int_equal(TANDEM_E_INVALID, tandem_backup(NULL, NULL, take_bytes, bed, NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_backup(bed->reactor, NULL, NULL, bed, NULL, NULL));
}

static void what_fails_leaves_nothing_behind(void **state)
{
    struct bed *bed = *state;
    char why[TANDEM_WHY_BYTES];
    tandem_restore *restore;

    write_some(bed->reactor, "c", 5);
    assert_int_equal(TANDEM_OK, back_up(bed, NULL, why));
    for (size_t size = 0; size < bed->stream.size; size += bed->stream.size / 5) {
        tandem_err err = restore_some(bed, size, 4096, NULL, why);

        assert_int_equal(size < 8 ? TANDEM_E_FORMAT : TANDEM_E_CORRUPT, err);
        assert_true(why[0]);
        expect_nothing_made(bed);
    }
    for (size_t at = 10; at < bed->stream.size; at += bed->stream.size / 4) {
        bed->stream.bytes[at] ^= 16;
        assert_int_equal(TANDEM_E_CORRUPT, restore_some(bed, bed->stream.size, 4096, NULL, NULL));
        bed->stream.bytes[at] ^= 16;
        expect_nothing_made(bed);
    }
    assert_int_equal(TANDEM_OK, tandem_restore_open(&bed->to, &restore, why));
    assert_true(exists(bed->restoring));
    tandem_restore_free(restore);
    expect_nothing_made(bed);
    tandem_restore_free(NULL);
}

static void only_to_look_makes_nothing(void **state)
{
    static const uint8_t zeros[TANDEM_ORIGIN_BYTES];
    struct bed *bed = *state;
    char why[TANDEM_WHY_BYTES];
    tandem_restored restored;
    tandem_backup_info info;
    tandem_restore *restore;

    write_some(bed->reactor, "c", 5);
    assert_int_equal(TANDEM_OK, back_up(bed, &info, why));
    assert_int_equal(TANDEM_OK, tandem_restore_open(NULL, &restore, why));
    assert_int_equal(TANDEM_OK,
                     tandem_restore_feed(restore, tandem_writer_slice(&bed->stream), why));
    assert_int_equal(TANDEM_OK, tandem_restore_finish(restore, &restored, why));
    assert_memory_equal(&info, &restored.backup, sizeof(info));
    assert_memory_equal(zeros, restored.origin, sizeof(zeros));
    tandem_restore_free(restore);
    expect_nothing_made(bed);
}

static void the_place_must_be_free(void **state)
{
    struct bed *bed = *state;
    char why[TANDEM_WHY_BYTES], inside[300];
    tandem_restored restored;
    tandem_restore *restore;
    int fd;

    write_some(bed->reactor, "c", 5);
    assert_int_equal(TANDEM_OK, back_up(bed, NULL, why));
    /* Anything but an empty folder. */
    snprintf(inside, sizeof(inside), "%s/file", bed->restored);
    assert_int_equal(0, mkdir(bed->restored, 0755));
    fd = open(inside, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(TANDEM_E_EXISTS, tandem_restore_open(&bed->to, &restore, why));
    assert_true(why[0]);
    bed->to.path = inside;
    assert_int_equal(TANDEM_E_EXISTS, tandem_restore_open(&bed->to, &restore, why));
    assert_int_equal(0, unlink(inside));
    /* An empty one, written with slashes. */
    snprintf(inside, sizeof(inside), "%s//", bed->restored);
    assert_int_equal(TANDEM_OK, restore_some(bed, bed->stream.size, 100, &restored, why));
    assert_int_equal(TANDEM_E_EXISTS, tandem_restore_open(&bed->to, &restore, why));
    folder_remove(bed->restored);
    /* Somebody is faster. */
    assert_int_equal(TANDEM_OK, tandem_restore_open(&bed->to, &restore, why));
    assert_int_equal(TANDEM_OK,
                     tandem_restore_feed(restore, tandem_writer_slice(&bed->stream), why));
    fd = open(bed->restored, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(TANDEM_E_EXISTS, tandem_restore_finish(restore, NULL, why));
    tandem_restore_free(restore);
    assert_int_equal(0, unlink(bed->restored));
    expect_nothing_made(bed);
}

static void two_restores_do_not_meet(void **state)
{
    struct bed *bed = *state;
    char why[TANDEM_WHY_BYTES], foreign[350];
    tandem_restore *one, *two;
    td_data_folder *folder;
    int fd;

    /* What a killed one left is removed; what is not ours stays, and so does what lives. */
    assert_int_equal(TANDEM_OK, td_data_folder_open(bed->restoring, true, &folder));
    td_data_folder_free(folder);
    assert_int_equal(TANDEM_OK, tandem_restore_open(&bed->to, &one, why));
    assert_int_equal(TANDEM_E_LOCKED, tandem_restore_open(&bed->to, &two, why));
    assert_true(exists(bed->restoring));
    tandem_restore_free(one);
    expect_nothing_made(bed);
    assert_int_equal(0, mkdir(bed->restoring, 0700));
    snprintf(foreign, sizeof(foreign), "%s/file", bed->restoring);
    fd = open(foreign, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(TANDEM_E_EXISTS, tandem_restore_open(&bed->to, &one, why));
    assert_true(exists(foreign));
}

/* ---- Streams that are whole in themselves, and that no reactor has written ---- */

static td_backup_writer *forge(struct bed *bed)
{
    td_backup_header header = {.reactor = {1}, .origin = {1}, .ordinal = 9, .has_lacks = true};
    td_backup_writer *writer;

    tandem_writer_clear(&bed->stream);
    assert_int_equal(TANDEM_OK, td_backup_writer_open(take_bytes, bed, &writer));
    assert_int_equal(TANDEM_OK, td_backup_put_header(writer, &header));
    return writer;
}

/* One operation as a job of its own. */
static void forge_job(td_backup_writer *writer, const struct made *made, bool branch)
{
    td_backup_job job = {.count = 1, .branch = branch};
    tandem_writer bytes;
    td_link link;

    tandem_writer_init(&bytes);
    tandem_write_binary(&bytes, made->operation.canonical);
    job.operations = tandem_writer_slice(&bytes);
    td_link_begin(&link, &made->operation);
    assert_int_equal(!branch, td_backup_follows(writer, &link));
    assert_int_equal(TANDEM_OK, td_backup_put_job(writer, &job, &link));
    tandem_writer_release(&bytes);
}

static void expect_forgery_refused(struct bed *bed, td_backup_writer *writer, const char *sentence)
{
    char why[TANDEM_WHY_BYTES];

    assert_int_equal(TANDEM_OK, td_backup_put_end(writer));
    td_backup_writer_free(writer);
    assert_int_equal(TANDEM_E_CORRUPT, restore_some(bed, bed->stream.size, 4096, NULL, why));
    if (!strstr(why, sentence))
        fail_msg("`%s` is not in `%s`", sentence, why);
    expect_nothing_made(bed);
}

static void what_no_store_takes_is_not_restored(void **state)
{
    struct made *made[3] = {NULL};
    td_backup_collection end;
    struct bed *bed = *state;

    for (unsigned i = 0; i < 3; i++)
        made[i] = made_after(i ? made[i - 1] : NULL, 7, 0, 1 + i, "counter.ADD", (uint8_t)i);
    for (int twice = 0; twice < 2; twice++) {
        td_backup_writer *writer = forge(bed);

        assert_int_equal(TANDEM_OK, td_backup_put_collection(writer, tandem_slice_text("forks")));
        forge_job(writer, made[0], false);
        if (twice)
            forge_job(writer, made[1], false);
        forge_job(writer, made[twice ? 0 : 2], true); /* what it follows was not there; or it was */
        assert_int_equal(TANDEM_OK, td_backup_put_collection_end(writer, 3, &end));
        expect_forgery_refused(bed, writer, twice ? "holds an operation twice"
                                                  : "holds what no store takes");
    }
    for (unsigned held = 0; held < 2; held++) {
        td_backup_writer *writer = forge(bed);
        const td_operation *lacks = &made[1 - held]->operation;
        td_lack lack = {.first = lacks->seq, .last = lacks->seq};

        /* What it follows is not there; or it is held. */
        memcpy(lack.predecessor, lacks->predecessor, sizeof(lack.predecessor));
        memcpy(lack.hash, lacks->hash, sizeof(lack.hash));
        assert_int_equal(TANDEM_OK, td_backup_put_collection(writer, tandem_slice_text("forks")));
        for (unsigned i = 0; i < 2 * held; i++)
            forge_job(writer, made[i], false);
        assert_int_equal(TANDEM_OK,
                         td_backup_put_lack(writer, lacks->origin, &lack));
        assert_int_equal(TANDEM_OK, td_backup_put_collection_end(writer, 3, &end));
        expect_forgery_refused(bed, writer, held ? "became another one"
                                                 : "holds what no store takes");
    }
    for (unsigned i = 0; i < 3; i++) {
        made_release(made[i], 1);
        free(made[i]);
    }
}

static void what_is_no_remote_is_not_restored(void **state)
{
    char url[600] = "ws://";
    struct bed *bed = *state;

    memset(url + 5, 'a', sizeof(url) - 6);
    for (size_t size = 0; size < sizeof(url); size += 511) { /* no URL, and none that is kept */
        td_backup_writer *writer = forge(bed);

        assert_int_equal(TANDEM_OK, td_backup_put_remote(writer, tandem_slice_text("bob"),
                                                         tandem_slice_of(url, size + 1),
                                                         &(td_kept_share){.direction = 0}));
        expect_forgery_refused(bed, writer, "holds what is no remote");
    }
}

static void options_are_checked(void **state)
{
    struct bed *bed = *state;
    tandem_options options = bed->to;
    tandem_restore *restore;

    options.drive = true;
    assert_int_equal(TANDEM_E_INVALID, tandem_restore_open(&options, &restore, NULL));
    options.drive = false;
    options.size = 1;
    assert_int_equal(TANDEM_E_INVALID, tandem_restore_open(&options, &restore, NULL));
    options.size = sizeof(options);
    options.path = NULL;
    assert_int_equal(TANDEM_E_INVALID, tandem_restore_open(&options, &restore, NULL));
    options.path = "";
    assert_int_equal(TANDEM_E_INVALID, tandem_restore_open(&options, &restore, NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_restore_open(NULL, NULL, NULL));
    assert_int_equal(TANDEM_E_INVALID,
                     tandem_restore_feed(NULL, tandem_slice_of("", 0), NULL));
    assert_int_equal(TANDEM_E_INVALID, tandem_restore_finish(NULL, NULL, NULL));
}

#define ON_BED(test) cmocka_unit_test_setup_teardown(test, bed_open, bed_free)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        ON_BED(everything_comes_back_under_a_new_name),
        ON_BED(nothing_comes_back_of_nothing),
        ON_BED(many_collections_come_back),
        ON_BED(jobs_of_every_size_stay_whole),
        ON_BED(all_branches_of_forks_come_back),
        ON_BED(what_is_lacking_comes_back_with_its_reason),
        ON_BED(what_is_held_in_part_has_no_backup_until_it_is_whole),
        ON_BED(a_collection_that_only_lacks_comes_back),
        cmocka_unit_test(random_histories_with_gaps_come_back),
        cmocka_unit_test(random_histories_in_part_come_back_once_they_are_whole),
        ON_BED(gaps_that_are_filled_meanwhile_are_gaps_in_it),
        ON_BED(a_backup_is_taken_while_others_write),
        ON_BED(what_is_written_meanwhile_is_not_in_it),
        ON_BED(remotes_come_back_paused),
        cmocka_unit_test(of_a_damaged_store_there_is_no_backup),
        cmocka_unit_test(of_damaged_gaps_there_is_no_backup),
        ON_BED(who_cannot_write_is_told_so),
    };
    /* Where the backup was taken makes no difference to these. */
    const struct CMUnitTest restoring[] = {
        ON_BED(what_fails_leaves_nothing_behind),
        ON_BED(only_to_look_makes_nothing),
        ON_BED(the_place_must_be_free),
        ON_BED(two_restores_do_not_meet),
        ON_BED(what_no_store_takes_is_not_restored),
        ON_BED(what_is_no_remote_is_not_restored),
        ON_BED(options_are_checked),
    };
    int failed;

    if (argc != 2 || (strcmp(argv[1], "folder") && strcmp(argv[1], "memory") &&
                      strcmp(argv[1], "driven"))) {
        fprintf(stderr, "usage: backup_suite folder|memory|driven\n");
        return 2;
    }
    in_folder = strcmp(argv[1], "folder") == 0;
    driven = strcmp(argv[1], "driven") == 0;
    failed = cmocka_run_group_tests_name(argv[1], tests, NULL, NULL);
    if (in_folder)
        failed += cmocka_run_group_tests_name("restoring", restoring, NULL, NULL);
    return failed;
}
