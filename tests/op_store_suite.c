/*
 * The conformance suite of the operations store (store/op_store.h): one program, run once per
 * backend with the backend's name as its argument.
 */
#include <dirent.h>
#include <pthread.h>
#include <unistd.h>

#include <jansson.h>
#include <sodium.h>

#include "tests/op_store_bed.h"

#ifndef TANDEM_VECTORS_DIR
#define TANDEM_VECTORS_DIR "tests/vectors"
#endif

enum { JOB_MAX = TANDEM_JOB_OPERATIONS_MAX + 1 };

/* ---- Opening ---- */

static void a_fresh_store_has_an_identity_and_nothing_else(void **state)
{
    struct bed *bed = *state;
    const td_identity *identity = td_op_store_identity(bed->ops);
    uint8_t origin[TANDEM_ORIGIN_BYTES], none[TANDEM_ORIGIN_BYTES] = {0};
    uint64_t hlc;

    td_origin_of_seed(identity->seed, origin);
    assert_memory_equal(origin, identity->origin, sizeof(origin));
    assert_memory_not_equal(none, identity->reactor, sizeof(none));
    assert_memory_not_equal(identity->reactor, identity->origin, sizeof(none));
    assert_int_equal(0, last_ordinal(bed));
    OK(td_op_store_clock(bed->ops, &hlc));
    assert_int_equal(0, hlc);
    assert_sound(bed);
}

static void reopening_keeps_everything(void **state)
{
    struct bed *bed = *state;
    td_identity before = *td_op_store_identity(bed->ops);
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a");
    td_operation b = after(bed, &a, 0, "b"), fork = after(bed, &a, 0, "c");
    uint8_t digest[TANDEM_HASH_BYTES], again[TANDEM_HASH_BYTES];
    td_head found[TANDEM_HEADS_MAX];
    uint64_t hlc;

    commit(bed, &a, 1);
    commit(bed, &b, 1);
    OK(td_op_store_begin(bed->ops));
    append(bed, &fork, 1);
    OK(td_op_store_put_clock(bed->ops, 77));
    OK(td_op_store_commit(bed->ops));
    OK(td_op_store_vector_digest(bed->ops, NOTES, digest));
    reopen(bed);
    assert_memory_equal(&before, td_op_store_identity(bed->ops), sizeof(before));
    assert_int_equal(3, last_ordinal(bed));
    OK(td_op_store_clock(bed->ops, &hlc));
    assert_int_equal(77, hlc);
    assert_int_equal(2, heads(bed, origin_of(0), found));
    OK(td_op_store_vector_digest(bed->ops, NOTES, again));
    assert_memory_equal(digest, again, sizeof(digest));
    assert_true(holds(bed, &b) && holds(bed, &fork));
    assert_int_equal(4, commit(bed, (td_operation[]){after(bed, &b, 0, "d")}, 1).first_ordinal);
    assert_sound(bed);
}

static void an_uncommitted_group_is_gone_after_reopening(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a");

    OK(td_op_store_begin(bed->ops));
    append(bed, &a, 1);
    reopen(bed);
    assert_int_equal(0, last_ordinal(bed));
    assert_false(holds(bed, &a));
}

static void put_format(struct bed *bed, uint32_t version)
{
    tandem_writer scratch;
    td_txn *txn;

    tandem_writer_init(&scratch);
    OK(td_store_begin_write(td_op_store_backend(bed->ops), &txn));
    OK(td_format_put(txn, version, &scratch));
    OK(td_txn_commit(txn));
    tandem_writer_release(&scratch);
}

static void a_newer_format_is_refused(void **state)
{
    struct bed *bed = *state;

    put_format(bed, TD_FORMAT_VERSION + 1);
    td_op_store_free(bed->ops);
    assert_int_equal(TANDEM_E_FORMAT_NEWER, open_ops(bed));
}

static void an_impossible_format_is_refused(void **state)
{
    struct bed *bed = *state;

    put_format(bed, 0);
    td_op_store_free(bed->ops);
    assert_int_equal(TANDEM_E_FORMAT, open_ops(bed));
}

static void a_store_of_something_else_is_refused(void **state)
{
    struct bed *bed = *state;

    raw_del(bed, TD_TABLE_META, tandem_slice_text(td_meta_format));
    td_op_store_free(bed->ops);
    assert_int_equal(TANDEM_E_FORMAT, open_ops(bed));
}

static void damaged_meta_records_are_refused(void **state)
{
    static const char *const keys[] = {td_meta_format, td_meta_identity, td_meta_position};
    struct bed *bed = *state;

    for (size_t i = 0; i < 3; i++) {
        tandem_slice key = tandem_slice_text(keys[i]);
        uint8_t value[256];
        size_t size = raw_get(bed, TD_TABLE_META, key, value, sizeof(value));
        td_store *store;
        td_txn *txn;

        value[size - 1] ^= 1;
        raw_put(bed, TD_TABLE_META, key, tandem_slice_of(value, size));
        assert_true(verify(bed).count > 0);
        td_op_store_free(bed->ops);
        assert_int_equal(TANDEM_E_CORRUPT, open_ops(bed));
        value[size - 1] ^= 1;
        OK(open_store(bed, &store));
        OK(td_store_begin_write(store, &txn));
        OK(td_txn_put(txn, TD_TABLE_META, key, tandem_slice_of(value, size)));
        OK(td_txn_commit(txn));
        td_store_free(store);
        OK(open_ops(bed));
    }
    assert_sound(bed);
}

/* ---- Appending ---- */

static void a_job_is_appended_whole_and_read_back(void **state)
{
    struct bed *bed = *state;
    td_operation job[3] = {first_of(bed, "notes", origin_of(0), TD_FLAG_CONTINUES, "a")};
    td_head found[TANDEM_HEADS_MAX];
    td_collection_info info;
    td_append_result result;
    struct seen seen;

    job_after(bed, &job[0], 2, job + 1);
    result = commit(bed, job, 3);
    assert_int_equal(1, result.first_ordinal);
    assert_int_equal(3, result.last_ordinal);
    assert_int_equal(3, result.appended);
    assert_int_equal(0, result.duplicates);
    assert_int_equal(3, last_ordinal(bed));
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&job[2], &found[0]);
    seen = scan(bed, "notes", 0);
    assert_int_equal(3, seen.count);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(i + 1, seen.all[i].ordinal);
        assert_int_equal(TANDEM_OK, seen.all[i].err);
        assert_memory_equal(job[i].hash, seen.all[i].hash, TANDEM_HASH_BYTES);
    }
    free(seen.all);
    OK(td_op_store_collection(bed->ops, NOTES, &info));
    assert_int_equal(3, info.operations);
    assert_int_equal(3, info.last_ordinal);
    assert_int_equal(job[0].canonical.size + job[1].canonical.size + job[2].canonical.size,
                     info.bytes);
    assert_true(tandem_slice_equal(NOTES, info.name));
    assert_sound(bed);
}

/* They are not parsed. */
static tandem_err see_bytes_alone(void *context, tandem_err err, uint64_t ordinal,
                                  const td_operation *op)
{
    const td_operation *expected = context;

    OK(err);
    assert_int_equal(1, ordinal);
    assert_true(tandem_slice_equal(expected->canonical, op->canonical));
    assert_memory_equal(expected->hash, op->hash, TANDEM_HASH_BYTES);
    return TANDEM_END;
}

static tandem_err see_bytes(void *context, tandem_err err, uint64_t ordinal,
                            const td_operation *op)
{
    const td_operation *expected = context;

    OK(err);
    assert_true(tandem_slice_equal(expected->canonical, op->canonical));
    assert_true(tandem_slice_equal(expected->payload, op->payload));
    assert_true(tandem_slice_equal(expected->document, op->document));
    return TANDEM_END;
}

static void canonical_bytes_come_back_as_they_were(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0xf0, "payload"); /* unknown flags stay */

    commit(bed, &a, 1);
    assert_int_equal(TANDEM_END, td_op_store_scan(bed->ops, NOTES, 0, see_bytes, &a));
    assert_int_equal(TANDEM_END,
                     td_op_store_scan_bytes(bed->ops, NOTES, 0, see_bytes_alone, &a));
}

static void what_is_held_is_skipped_and_counted(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a"), job[3];
    td_append_result result;

    commit(bed, &a, 1);
    job_after(bed, &a, 3, job);
    commit(bed, job, 3);
    for (int round = 0; round < 2; round++) {
        result = commit(bed, job, 3); /* ends at a head */
        assert_int_equal(0, result.first_ordinal);
        assert_int_equal(0, result.last_ordinal);
        assert_int_equal(0, result.appended);
        assert_int_equal(3, result.duplicates);
        result = commit(bed, &a, 1); /* lies behind it */
        assert_int_equal(1, result.duplicates);
        assert_int_equal(0, result.appended);
        result = commit(bed, job + 1, 2); /* the rest of a job that is held */
        assert_int_equal(2, result.duplicates);
        assert_int_equal(4, last_ordinal(bed));
        reopen(bed);
    }
    /* And within one group, before its commit. */
    OK(td_op_store_begin(bed->ops));
    a = after(bed, &job[2], 0, "b");
    assert_int_equal(1, append(bed, &a, 1).appended);
    assert_int_equal(1, append(bed, &a, 1).duplicates);
    td_operation b = after(bed, &a, 0, "c");
    append(bed, &b, 1);
    assert_int_equal(1, append(bed, &a, 1).duplicates);
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(6, last_ordinal(bed));
    assert_sound(bed);
}

static void a_missing_predecessor_is_refused(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a");
    td_operation other = first_of(bed, "notes", origin_of(0), 0, "other");
    td_operation b = after(bed, &a, 0, "b"), c = after(bed, &b, 0, "c");
    td_operation stranger = after(bed, &other, 0, "s");

    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_PREDECESSOR, append_err(bed, &b, 1)); /* nothing is held at all */
    append(bed, &a, 1);
    assert_int_equal(TANDEM_E_PREDECESSOR, append_err(bed, &c, 1)); /* seq 2 is missing */
    assert_int_equal(TANDEM_E_PREDECESSOR, append_err(bed, &stranger, 1)); /* another seq 1 */
    append(bed, &b, 1);
    append(bed, &c, 1); /* the group was open all the time */
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(TANDEM_E_PREDECESSOR, (OK(td_op_store_begin(bed->ops)),
                                            append_err(bed, &stranger, 1)));
    td_op_store_abort(bed->ops);
    assert_int_equal(3, last_ordinal(bed));
    assert_sound(bed);
}

static void forks_keep_both_sides(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a");
    td_operation b = after(bed, &a, 0, "b"), b2 = after(bed, &a, 0, "b2");
    td_operation c = after(bed, &b, 0, "c"), c2 = after(bed, &b2, 0, "c2");
    td_operation a2 = first_of(bed, "notes", origin_of(0), 0, "a2");
    td_head found[TANDEM_HEADS_MAX];

    commit(bed, &a, 1);
    commit(bed, &b, 1);
    assert_int_equal(1, commit(bed, &b2, 1).appended);
    assert_int_equal(2, heads(bed, origin_of(0), found));
    assert_true(memcmp(found[0].hash, found[1].hash, TANDEM_HASH_BYTES) < 0); /* in hash order */
    /* Each side grows: its head is replaced, none is added. */
    commit(bed, &c, 1);
    assert_int_equal(2, heads(bed, origin_of(0), found));
    assert_head(&b2, &found[0]);
    assert_head(&c, &found[1]);
    commit(bed, &c2, 1);
    assert_int_equal(2, heads(bed, origin_of(0), found));
    /* A fork at the root. */
    assert_int_equal(1, commit(bed, &a2, 1).appended);
    assert_int_equal(3, heads(bed, origin_of(0), found));
    assert_head(&a2, &found[0]);
    td_operation all[] = {a, b, b2, c, c2, a2};
    for (size_t i = 0; i < 6; i++) {
        assert_true(holds(bed, &all[i]));
        assert_int_equal(1, commit(bed, &all[i], 1).duplicates);
    }
    assert_sound(bed);
}

static void forks_within_one_group_are_kept(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a");
    td_operation b = after(bed, &a, 0, "b"), b2 = after(bed, &a, 0, "b2");
    td_operation c = after(bed, &b, 0, "c"), c2 = after(bed, &b2, 0, "c2");
    td_operation all[] = {a, b, b2, c2, c};
    td_head found[TANDEM_HEADS_MAX];

    OK(td_op_store_begin(bed->ops));
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(1, append(bed, &all[i], 1).appended);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(1, append(bed, &all[i], 1).duplicates);
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(2, heads(bed, origin_of(0), found));
    for (size_t i = 0; i < 5; i++)
        assert_true(holds(bed, &all[i]));
    assert_sound(bed);
}

static void the_ninth_head_is_quarantined(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a"), side[9], longer, other;
    td_head found[TANDEM_HEADS_MAX];

    commit(bed, &a, 1);
    for (unsigned i = 0; i < 9; i++) {
        char payload[2] = {(char)('0' + i), 0};

        side[i] = after(bed, &a, 0, payload);
    }
    for (unsigned i = 0; i < TANDEM_HEADS_MAX; i++)
        assert_int_equal(1, commit(bed, &side[i], 1).appended);
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_QUARANTINED, append_err(bed, &side[8], 1));
    /* What makes no new head goes on, and so do other origins. */
    assert_int_equal(1, append(bed, &side[3], 1).duplicates);
    longer = after(bed, &side[3], 0, "x");
    assert_int_equal(1, append(bed, &longer, 1).appended);
    other = first_of(bed, "notes", origin_of(1), 0, "o");
    assert_int_equal(1, append(bed, &other, 1).appended);
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(TANDEM_HEADS_MAX, heads(bed, origin_of(0), found));
    assert_false(holds(bed, &side[8]));
    assert_sound(bed);
}

static void what_is_no_whole_job_is_refused(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a"), job[3], bad[3];
    uint8_t zeros[TANDEM_HASH_BYTES] = {0};
    td_operation change;

    commit(bed, &a, 1);
    job_after(bed, &a, 3, job);
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, job, 1)); /* more should follow */
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, job, 2));
    memcpy(bad, job, sizeof(bad)); /* the middle one ends the job */
    bad[1] = after(bed, &job[0], 0, "m");
    bad[2] = after(bed, &bad[1], 0, "n");
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, bad, 3));
    memcpy(bad, job, sizeof(bad)); /* a gap */
    bad[1] = job[2];
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, bad, 2));
    change = (td_operation){.seq = 3, .origin = job[0].origin, .predecessor = zeros,
                            .collection = job[0].collection, .payload = B("x")};
    bad[1] = made(bed, change); /* another predecessor */
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, bad, 2));
    change.predecessor = job[0].hash;
    change.document = B("other");
    bad[1] = made(bed, change);
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, bad, 2));
    change.document = B("");
    change.branch = B("other");
    bad[1] = made(bed, change);
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, bad, 2));
    change.branch = B("");
    change.origin = origin_of(1);
    bad[1] = made(bed, change);
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, bad, 2));
    change.origin = job[0].origin;
    change.collection = B("other");
    bad[1] = made(bed, change);
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, bad, 2));
    change.collection = job[0].collection;
    bad[1] = made(bed, change); /* and without any of it, it is one */
    assert_int_equal(2, append(bed, bad, 2).appended);
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(3, last_ordinal(bed));
    assert_sound(bed);
}

static void a_chain_begins_at_its_root(void **state)
{
    struct bed *bed = *state;
    uint8_t wrong[TANDEM_HASH_BYTES];
    td_operation a;

    td_chain_root(B("other"), wrong);
    a = made(bed, (td_operation){.seq = 1, .origin = origin_of(0), .predecessor = wrong,
                                 .collection = NOTES, .payload = B("x")});
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, &a, 1));
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(0, raw_count(bed, TD_TABLE_COLLECTIONS)); /* a refusal leaves no trace */
}

static void the_rest_of_a_job_that_forks_is_taken(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a"), job[4], inside, tail[2];
    td_operation change;
    td_head found[TANDEM_HEADS_MAX];

    commit(bed, &a, 1);
    job_after(bed, &a, 4, job);
    commit(bed, job, 4);
    /* job[1] promised that its job goes on, and it does: here, and in another way. */
    inside = after(bed, &job[1], 0, "x");
    assert_int_equal(1, commit(bed, &inside, 1).appended);
    tail[0] = job[2];
    tail[1] = after(bed, &job[2], 0, "y");
    assert_int_equal(1, commit(bed, tail, 2).appended);
    assert_int_equal(3, heads(bed, origin_of(0), found));
    assert_sound(bed);
    change = (td_operation){.seq = job[2].seq, .origin = job[0].origin,
                            .predecessor = job[1].hash, .collection = job[0].collection,
                            .document = B("other"), .payload = B("x")};
    inside = made(bed, change); /* no job is about two documents */
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, &inside, 1));
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(7, last_ordinal(bed));
}

static void a_job_may_fork_inside_another(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a"), job[4], fork[4];
    td_head found[TANDEM_HEADS_MAX];
    td_append_result result;

    commit(bed, &a, 1);
    job_after(bed, &a, 4, job);
    commit(bed, job, 4);
    memcpy(fork, job, 2 * sizeof(fork[0]));
    fork[2] = after(bed, &fork[1], TD_FLAG_CONTINUES, "f");
    fork[3] = after(bed, &fork[2], 0, "g");
    result = commit(bed, fork, 4);
    assert_int_equal(2, result.duplicates);
    assert_int_equal(2, result.appended);
    assert_int_equal(6, result.first_ordinal);
    assert_int_equal(7, result.last_ordinal);
    assert_int_equal(2, heads(bed, origin_of(0), found));
    assert_int_equal(4, commit(bed, fork, 4).duplicates);
    assert_int_equal(4, commit(bed, job, 4).duplicates);
    assert_sound(bed);
}

static void jobs_have_a_largest_size(void **state)
{
    struct bed *bed = *state;
    td_operation *job = calloc(JOB_MAX, sizeof(*job)), a;
    char *payload = malloc(200001);

    assert_non_null(job);
    assert_non_null(payload);
    memset(payload, 'x', 200000);
    payload[200000] = 0;
    a = first_of(bed, "notes", origin_of(0), 0, "a");
    commit(bed, &a, 1);
    OK(td_op_store_begin(bed->ops));
    job_after(bed, &a, JOB_MAX, job);
    assert_int_equal(TANDEM_E_LIMIT, append_err(bed, job, JOB_MAX));
    job[0] = after(bed, &a, TD_FLAG_CONTINUES, payload);
    job[1] = after(bed, &job[0], TD_FLAG_CONTINUES, payload);
    job[2] = after(bed, &job[1], 0, payload);
    assert_int_equal(TANDEM_E_LIMIT, append_err(bed, job, 3));
    job[1] = after(bed, &job[0], 0, payload);
    assert_int_equal(2, append(bed, job, 2).appended);
    a = job[1];
    job_after(bed, &a, TANDEM_JOB_OPERATIONS_MAX, job);
    assert_int_equal(TANDEM_JOB_OPERATIONS_MAX,
                     append(bed, job, TANDEM_JOB_OPERATIONS_MAX).appended);
    OK(td_op_store_commit(bed->ops));
    assert_sound(bed);
    free(payload);
    free(job);
}

static void reserved_collections_are_refused(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "_tandem", origin_of(0), 0, "a");

    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_UNSUPPORTED, append_err(bed, &a, 1));
    td_op_store_abort(bed->ops);
}

/* ---- Groups ---- */

static void an_aborted_group_leaves_no_trace(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a");
    td_operation b = after(bed, &a, 0, "b"), c = first_of(bed, "other", origin_of(0), 0, "c");
    td_head found[TANDEM_HEADS_MAX];
    uint64_t hlc;

    commit(bed, &a, 1);
    OK(td_op_store_begin(bed->ops));
    append(bed, &b, 1);
    append(bed, &c, 1);
    OK(td_op_store_put_clock(bed->ops, 9));
    assert_int_equal(3, td_op_store_group_ordinal(bed->ops));
    assert_int_equal(1, last_ordinal(bed)); /* readers see commits only */
    td_op_store_abort(bed->ops);
    td_op_store_abort(bed->ops); /* without a group: nothing */
    assert_int_equal(1, last_ordinal(bed));
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&a, &found[0]);
    OK(td_op_store_clock(bed->ops, &hlc));
    assert_int_equal(0, hlc);
    assert_int_equal(1, raw_count(bed, TD_TABLE_COLLECTIONS));
    assert_int_equal(2, commit(bed, &b, 1).first_ordinal);
    assert_sound(bed);
}

static void the_tip_is_what_comes_next_follows(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a");
    td_operation b = after(bed, &a, 0, "b"), a2 = first_of(bed, "notes", origin_of(0), 0, "a2");
    uint8_t root[TANDEM_HASH_BYTES];
    td_head tip;

    td_chain_root(NOTES, root);
    OK(td_op_store_tip(bed->ops, NOTES, origin_of(0), &tip)); /* without a group */
    assert_int_equal(0, tip.seq);
    assert_memory_equal(root, tip.hash, TANDEM_HASH_BYTES);
    OK(td_op_store_begin(bed->ops));
    OK(td_op_store_tip(bed->ops, NOTES, origin_of(0), &tip));
    assert_int_equal(0, tip.seq);
    assert_memory_equal(root, tip.hash, TANDEM_HASH_BYTES);
    append(bed, &a, 1);
    append(bed, &b, 1);
    append(bed, &a2, 1); /* a lower head is not the tip */
    OK(td_op_store_tip(bed->ops, NOTES, origin_of(0), &tip));
    assert_head(&b, &tip);
    assert_int_equal(TANDEM_E_INVALID, td_op_store_tip(bed->ops, B(""), origin_of(0), &tip));
    OK(td_op_store_commit(bed->ops));
    OK(td_op_store_tip(bed->ops, NOTES, origin_of(0), &tip));
    assert_head(&b, &tip);
}

static void the_clock_is_a_high_water(void **state)
{
    struct bed *bed = *state;
    uint64_t hlc;

    OK(td_op_store_begin(bed->ops));
    OK(td_op_store_put_clock(bed->ops, 100));
    OK(td_op_store_put_clock(bed->ops, 50));
    OK(td_op_store_commit(bed->ops));
    OK(td_op_store_clock(bed->ops, &hlc));
    assert_int_equal(100, hlc);
}

static void a_group_writes_few_small_entries(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a");
    td_operation b = first_of(bed, "notes", origin_of(1), 0, "b");

    OK(td_op_store_begin(bed->ops));
    append(bed, &a, 1);
    append(bed, &b, 1);
    for (int i = 0; i < 50; i++) { /* turn by turn, so no run is unbroken in the table */
        a = after(bed, &a, 0, "a");
        b = after(bed, &b, 0, "b");
        append(bed, &a, 1);
        append(bed, &b, 1);
    }
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(102, raw_count(bed, TD_TABLE_OPERATIONS));
    assert_int_equal(2, raw_count(bed, TD_TABLE_GROUPS));
    assert_int_equal(2, raw_count(bed, TD_TABLE_VECTORS));
    assert_int_equal(101, located(bed, origin_of(0), 51));
    assert_int_equal(102, located(bed, origin_of(1), 51));
    assert_sound(bed);
}

/* ---- Reading ---- */

static void scans_go_on_behind_an_ordinal(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a");
    td_operation b = first_of(bed, "other", origin_of(0), 0, "b");
    struct seen seen;

    commit(bed, &a, 1);
    commit(bed, &b, 1);
    for (int i = 0; i < 4; i++) {
        a = after(bed, &a, 0, "a");
        b = after(bed, &b, 0, "b");
        commit(bed, &a, 1);
        commit(bed, &b, 1);
    }
    seen = scan(bed, "notes", 0);
    assert_int_equal(5, seen.count);
    free(seen.all);
    seen = scan(bed, "notes", 5);
    assert_int_equal(2, seen.count);
    assert_int_equal(7, seen.all[0].ordinal);
    assert_int_equal(9, seen.all[1].ordinal);
    free(seen.all);
    seen = scan(bed, "other", 9);
    assert_int_equal(1, seen.count);
    assert_int_equal(10, seen.all[0].ordinal);
    free(seen.all);
    assert_int_equal(0, scan(bed, "notes", 9).count);
    assert_int_equal(0, scan(bed, "notes", UINT64_MAX).count);
    assert_int_equal(0, scan(bed, "nobody", 0).count);
    assert_int_equal(0, scan(bed, "", 0).count);
}

static void a_visitor_stops_a_scan(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a"), b = after(bed, &a, 0, "b");
    struct seen seen = {.stop_at = 1, .stop_with = TANDEM_END};

    commit(bed, &a, 1);
    commit(bed, &b, 1);
    assert_int_equal(TANDEM_END, td_op_store_scan(bed->ops, NOTES, 0, see, &seen));
    assert_int_equal(1, seen.count);
    seen.count = 0;
    seen.stop_with = TANDEM_E_CLOSED;
    assert_int_equal(TANDEM_E_CLOSED, td_op_store_scan(bed->ops, NOTES, 0, see, &seen));
    assert_int_equal(1, seen.count);
    free(seen.all);
}

struct names {
    char text[256];
    unsigned stop_at;
    unsigned count;
};

static tandem_err see_name(void *context, const td_collection_info *info)
{
    struct names *names = context;
    size_t used = strlen(names->text);

    assert_true(info->operations >= 1 && info->last_ordinal >= 1 && info->bytes > 0);
    snprintf(names->text + used, sizeof(names->text) - used, "%.*s ", (int)info->name.size,
             (const char *)info->name.bytes);
    return ++names->count == names->stop_at ? TANDEM_END : TANDEM_OK;
}

static void collections_come_in_byte_order(void **state)
{
    static const char *const order[] = {"b", "a", "ab", "\xc3\xa9", "Z"};
    struct bed *bed = *state;
    struct names names = {.count = 0};
    td_collection_info info;

    OK(td_op_store_collections(bed->ops, B(""), see_name, &names));
    assert_int_equal(0, names.count);
    for (size_t i = 0; i < 5; i++)
        commit(bed, (td_operation[]){first_of(bed, order[i], origin_of(0), 0, "x")}, 1);
    OK(td_op_store_collections(bed->ops, B(""), see_name, &names));
    assert_string_equal("Z a ab b \xc3\xa9 ", names.text);
    names = (struct names){.count = 0};
    OK(td_op_store_collections(bed->ops, B("ab"), see_name, &names));
    assert_string_equal("b \xc3\xa9 ", names.text);
    names = (struct names){.count = 0};
    OK(td_op_store_collections(bed->ops, B("aa"), see_name, &names));
    assert_string_equal("ab b \xc3\xa9 ", names.text);
    names = (struct names){.stop_at = 2};
    assert_int_equal(TANDEM_END, td_op_store_collections(bed->ops, B(""), see_name, &names));
    assert_string_equal("Z a ", names.text);
    OK(td_op_store_collection(bed->ops, B("nobody"), &info));
    assert_int_equal(0, info.operations + info.last_ordinal + info.bytes);
    assert_true(tandem_slice_equal(B("nobody"), info.name));
}

struct origins {
    uint8_t seen[16];
    unsigned count;
    unsigned stop_at;
};

static tandem_err see_origin(void *context, const uint8_t *origin, const td_head *found,
                             unsigned count)
{
    struct origins *origins = context;

    assert_true(count >= 1 && found[0].seq >= 1);
    origins->seen[origins->count++] = origin[0];
    return origins->count == origins->stop_at ? TANDEM_END : TANDEM_OK;
}

static void vectors_come_in_pages(void **state)
{
    struct bed *bed = *state;
    struct origins origins = {.count = 0};

    for (unsigned i = 0; i < 5; i++) {
        unsigned n = (i * 3) % 5;

        commit(bed, (td_operation[]){first_of(bed, "notes", origin_of(n), 0, "x")}, 1);
        commit(bed, (td_operation[]){first_of(bed, "zzz", origin_of(n), 0, "x")}, 1);
    }
    OK(td_op_store_vector(bed->ops, NOTES, NULL, see_origin, &origins));
    assert_int_equal(5, origins.count);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal((i + 1) * 16, origins.seen[i]);
    origins = (struct origins){.stop_at = 2};
    assert_int_equal(TANDEM_END, td_op_store_vector(bed->ops, NOTES, origin_of(1), see_origin,
                                                    &origins));
    assert_int_equal(2, origins.count);
    assert_int_equal(48, origins.seen[0]);
    assert_int_equal(64, origins.seen[1]);
    origins = (struct origins){.count = 0};
    OK(td_op_store_vector(bed->ops, NOTES, origin_of(4), see_origin, &origins));
    OK(td_op_store_vector(bed->ops, B("nobody"), NULL, see_origin, &origins));
    assert_int_equal(0, origins.count);
    td_head found[TANDEM_HEADS_MAX];
    assert_int_equal(0, heads(bed, origin_of(9), found));
}

static void any_operation_is_found(void **state)
{
    struct bed *bed = *state;
    td_operation tip[3], all[3][60];
    uint64_t at[3][60];
    unsigned length[3] = {0};
    uint64_t seed = 7;

    for (unsigned o = 0; o < 3; o++)
        tip[o] = first_of(bed, "notes", origin_of(o), 0, "x");
    for (int group = 0; group < 30; group++) {
        OK(td_op_store_begin(bed->ops));
        for (int i = 0; i < 5; i++) {
            unsigned o = (unsigned)(draw(&seed) % 3);

            if (length[o] == 60)
                continue;
            at[o][length[o]] = append(bed, &tip[o], 1).first_ordinal;
            all[o][length[o]++] = tip[o];
            tip[o] = after(bed, &tip[o], 0, "x");
        }
        OK(td_op_store_commit(bed->ops));
    }
    for (unsigned o = 0; o < 3; o++) {
        assert_true(length[o] > 10);
        for (unsigned i = 0; i < length[o]; i++) {
            assert_int_equal(at[o][i], located(bed, origin_of(o), i + 1));
            assert_true(holds(bed, &all[o][i]));
            all[o][i].hash[5] ^= 1;
            assert_false(holds(bed, &all[o][i]));
        }
        assert_int_equal(at[o][0], located(bed, origin_of(o), 0));
        assert_int_equal(0, located(bed, origin_of(o), length[o] + 1));
        assert_int_equal(0, located(bed, origin_of(o), UINT64_MAX));
        assert_false(holds(bed, &tip[o]));
    }
    assert_int_equal(0, located(bed, origin_of(5), 1));
    assert_sound(bed);
}

static void of_forks_the_first_to_arrive_is_located(void **state)
{
    struct bed *bed = *state;
    td_operation main_[10], side[10];

    main_[0] = first_of(bed, "notes", origin_of(0), 0, "a");
    commit(bed, &main_[0], 1);
    side[0] = main_[0];
    for (int i = 1; i < 10; i++) {
        main_[i] = after(bed, &main_[i - 1], 0, "m");
        side[i] = after(bed, &side[i - 1], 0, "s");
    }
    for (int i = 1; i < 6; i++)
        commit(bed, &main_[i], 1); /* seq 2 to 6 at 2 to 6 */
    for (int i = 1; i < 10; i++)
        commit(bed, &side[i], 1); /* seq 2 to 10 at 7 to 15 */
    for (int i = 6; i < 10; i++)
        commit(bed, &main_[i], 1); /* seq 7 to 10 at 16 to 19 */
    for (uint64_t seq = 1; seq <= 6; seq++)
        assert_int_equal(seq, located(bed, origin_of(0), seq));
    for (uint64_t seq = 7; seq <= 10; seq++)
        assert_int_equal(seq + 5, located(bed, origin_of(0), seq));
    for (int i = 0; i < 10; i++)
        assert_true(holds(bed, &main_[i]) && holds(bed, &side[i]));
    assert_sound(bed);
}

static void an_empty_collection_has_the_digest_of_nothing(void **state)
{
    struct bed *bed = *state;
    uint8_t digest[TANDEM_HASH_BYTES], nothing[TANDEM_HASH_BYTES];

    td_hash(nothing, NULL, 0);
    OK(td_op_store_vector_digest(bed->ops, B("nobody"), digest));
    assert_memory_equal(nothing, digest, sizeof(digest));
}

/* Append the operations that a case of the vectors names, and compare the digest. */
static void digest_case(struct bed *bed, const json_t *vectors, const json_t *digest_case)
{
    const json_t *job, *name, *op;
    uint8_t digest[TANDEM_HASH_BYTES];
    char hex[2 * TANDEM_HASH_BYTES + 1];
    size_t i, j, k;

    OK(td_op_store_begin(bed->ops));
    json_array_foreach(json_object_get(digest_case, "jobs"), i, job) {
        td_operation parsed[4];

        json_array_foreach(job, j, name) {
            json_array_foreach(json_object_get(vectors, "operations"), k, op) {
                const char *text = json_string_value(json_object_get(op, "canonical"));
                size_t size = strlen(text) / 2;

                if (!json_equal(name, json_object_get(op, "name")))
                    continue;
                bed->made = realloc(bed->made, (bed->made_count + 1) * sizeof(bed->made[0]));
                assert_non_null(bed->made);
                bed->made[bed->made_count] = malloc(size);
                assert_int_equal(0, sodium_hex2bin(bed->made[bed->made_count], size, text,
                                                   2 * size, NULL, &size, NULL));
                OK(td_operation_parse(tandem_slice_of(bed->made[bed->made_count++], size),
                                      &parsed[j]));
                td_operation_hash(&parsed[j]);
            }
        }
        append(bed, parsed, json_array_size(job));
    }
    OK(td_op_store_commit(bed->ops));
    OK(td_op_store_vector_digest(bed->ops, NOTES, digest));
    sodium_bin2hex(hex, sizeof(hex), digest, sizeof(digest));
    assert_string_equal(json_string_value(json_object_get(digest_case, "digest")), hex);
}

static void digests_are_those_of_the_test_vectors(void **state)
{
    json_t *vectors = json_load_file(TANDEM_VECTORS_DIR "/operations.json", 0, NULL);
    const json_t *one;
    size_t i;

    assert_non_null(vectors);
    assert_int_equal(3, json_array_size(json_object_get(vectors, "vector_digests")));
    json_array_foreach(json_object_get(vectors, "vector_digests"), i, one) {
        void *fresh;

        bed_make(&fresh);
        digest_case(fresh, vectors, one);
        bed_unmake(&fresh);
    }
    json_decref(vectors);
}

/* ---- Damage ---- */

/* Ten operations of two origins, turn by turn: those of origin 0 have the odd ordinals. */
static void ten(struct bed *bed, td_operation *out)
{
    for (unsigned i = 0; i < 10; i++) {
        out[i] = i < 2 ? first_of(bed, "notes", origin_of(i), 0, "x")
                       : after(bed, &out[i - 2], 0, "x");
        commit(bed, &out[i], 1);
    }
}

static void a_damaged_record_is_never_handed_out(void **state)
{
    static const int places[] = {0, 8, 40, -1}; /* checksum, hash, canonical bytes, payload */
    struct bed *bed = *state;
    td_operation all[10];
    struct reports reports;
    struct seen seen;
    uint64_t ordinal;

    ten(bed, all);
    for (size_t i = 0; i < 4; i++) {
        flip(bed, 5, places[i]);
        seen = scan(bed, "notes", 0);
        assert_int_equal(10, seen.count);
        for (size_t n = 0; n < 10; n++) {
            assert_int_equal(n == 4 ? TANDEM_E_CORRUPT : TANDEM_OK, seen.all[n].err);
            assert_int_equal(n + 1, seen.all[n].ordinal);
        }
        free(seen.all);
        reports = verify(bed);
        assert_int_equal(1, reports.count);
        assert_says(&reports, "collection notes: ordinal 5, origin "
                              "10101010101010101010101010101010, seq 3:");
        assert_int_equal(TANDEM_E_CORRUPT,
                         td_op_store_locate(bed->ops, NOTES, origin_of(0), 3, &ordinal));
        assert_int_equal(7, located(bed, origin_of(0), 4)); /* what lies behind is found */
        flip(bed, 5, places[i]);
        assert_sound(bed);
    }
}

/* Damage the last record of a table. */
static void flip_last(struct bed *bed, unsigned table)
{
    td_store *store = td_op_store_backend(bed->ops);
    uint8_t key_bytes[64], bytes[64];
    tandem_slice key, value;
    td_cursor *cursor;
    td_txn *txn;

    assert_int_equal(TANDEM_OK, td_store_begin_read(store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_cursor(txn, table, &cursor));
    assert_int_equal(TANDEM_OK,
                     td_cursor_seek_before(cursor, tandem_slice_of(NULL, 0), &key, &value));
    assert_true(key.size <= sizeof(key_bytes) && value.size <= sizeof(bytes));
    memcpy(key_bytes, key.bytes, key.size);
    memcpy(bytes, value.bytes, value.size);
    bytes[value.size - 1] ^= 1;
    td_cursor_free(cursor);
    td_txn_abort(txn);
    raw_put(bed, table, tandem_slice_of(key_bytes, key.size), tandem_slice_of(bytes, value.size));
}

static void beyond_the_heads_nothing_is_held_whatever_is_damaged(void **state)
{
    struct bed *bed = *state;
    uint8_t hash[TANDEM_HASH_BYTES] = {1};
    td_operation all[10];
    uint64_t ordinal;
    bool held = true;

    ten(bed, all);
    flip_last(bed, TD_TABLE_GROUPS); /* of origin 1, whose last is seq 5 */
    assert_int_equal(TANDEM_E_CORRUPT,
                     td_op_store_locate(bed->ops, NOTES, origin_of(1), 5, &ordinal));
    assert_int_equal(TANDEM_E_NOT_FOUND,
                     td_op_store_locate(bed->ops, NOTES, origin_of(1), 6, &ordinal));
    assert_int_equal(TANDEM_OK, td_op_store_holds(bed->ops, NOTES, origin_of(1), 6, hash, &held));
    assert_false(held);
}

/* A store whose pages are damaged beneath the records. */
static struct td_store_ops broken_ops;
static tandem_err (*whole_next)(td_cursor *cursor, tandem_slice *key_out, tandem_slice *value_out);
static unsigned steps_left;

static tandem_err broken_next(td_cursor *cursor, tandem_slice *key_out, tandem_slice *value_out)
{
    return steps_left-- ? whole_next(cursor, key_out, value_out) : TANDEM_E_CORRUPT;
}

static void verify_says_something_wherever_it_cannot_read_on(void **state)
{
    struct bed *bed = *state;
    const struct td_store_ops *whole;
    td_operation all[10];
    td_store *store;
    unsigned steps = 0;
    bool ended = false;

    ten(bed, all);
    store = td_op_store_backend(bed->ops);
    whole = store->ops;
    whole_next = whole->next;
    broken_ops = *whole;
    broken_ops.next = broken_next;
    for (; !ended; steps++) {
        struct reports reports;

        steps_left = steps;
        store->ops = &broken_ops;
        reports = verify(bed); /* which checks that it is TANDEM_E_CORRUPT if anything was said */
        store->ops = whole;
        ended = reports.count == 0;
        assert_true(ended == (steps_left < UINT_MAX / 2));
        if (!ended)
            assert_says(&reports, "cannot be read");
    }
    assert_true(steps > 10);
}

static void a_record_at_another_key_is_damage(void **state)
{
    struct bed *bed = *state;
    td_operation all[10];
    uint8_t key[TD_OPERATION_KEY_BYTES], value[1024];
    struct reports reports;
    size_t size;

    ten(bed, all);
    td_operation_key(key, 1, 3);
    size = raw_get(bed, TD_TABLE_OPERATIONS, tandem_slice_of(key, sizeof(key)), value, 1024);
    td_operation_key(key, 1, 5);
    raw_put(bed, TD_TABLE_OPERATIONS, tandem_slice_of(key, sizeof(key)),
            tandem_slice_of(value, size));
    struct seen seen = scan(bed, "notes", 4); /* what stands there is whole, but elsewhere */
    assert_int_equal(TANDEM_E_CORRUPT, seen.all[0].err);
    free(seen.all);
    reports = verify(bed);
    assert_int_equal(1, reports.count);
    assert_says(&reports, "ordinal 5, origin 10101010101010101010101010101010, seq 3: the record "
                          "does not match");
}

static void verify_names_what_is_damaged(void **state)
{
    struct bed *bed = *state;
    td_operation all[10];
    struct reports reports;

    ten(bed, all);
    flip(bed, 1, 8); /* the first of its origin, its hash unreadable: told by the one after it */
    flip(bed, 4, 8); /* one in the middle, of the other origin */
    flip(bed, 9, 8); /* a head: told by the vector */
    reports = verify(bed);
    assert_int_equal(3, reports.count);
    assert_says(&reports, "ordinal 1, origin 10101010101010101010101010101010, seq 1:");
    assert_says(&reports, "ordinal 4, origin 20202020202020202020202020202020, seq 2:");
    assert_says(&reports, "ordinal 9, origin 10101010101010101010101010101010, seq 5:");
    flip(bed, 1, 8);
    flip(bed, 4, 8);
    flip(bed, 9, 8);
    assert_sound(bed);
    /* Two side by side: which is whose, their hashes tell. */
    flip(bed, 5, -1);
    flip(bed, 6, -1);
    reports = verify(bed);
    assert_int_equal(2, reports.count);
    assert_says(&reports, "ordinal 5, origin 10101010101010101010101010101010, seq 3:");
    assert_says(&reports, "ordinal 6, origin 20202020202020202020202020202020, seq 3:");
    flip(bed, 5, -1);
    flip(bed, 6, -1);
    for (uint64_t ordinal = 1; ordinal <= 10; ordinal++) {
        char expected[32];

        flip(bed, ordinal, -1);
        reports = verify(bed);
        assert_int_equal(1, reports.count);
        snprintf(expected, sizeof(expected), "seq %u:", (unsigned)(ordinal + 1) / 2);
        assert_says(&reports, expected);
        flip(bed, ordinal, -1);
    }
}

static void verify_compares_the_tables(void **state)
{
    struct bed *bed = *state;
    td_operation all[10];
    uint8_t key[TD_RUN_KEY_BYTES], value[1024];
    struct reports reports;
    tandem_writer scratch;
    td_txn *txn;
    size_t size;

    tandem_writer_init(&scratch);
    ten(bed, all);
    /* A vector that lags behind. */
    OK(td_store_begin_write(td_op_store_backend(bed->ops), &txn));
    td_vector_record vector = {.count = 1, .heads = {{.seq = 4}}};
    memcpy(vector.heads[0].hash, all[6].hash, TANDEM_HASH_BYTES);
    OK(td_vector_put(txn, 1, origin_of(0), &vector, &scratch));
    OK(td_txn_commit(txn));
    reports = verify(bed);
    assert_says(&reports, "the vector names this head");
    OK(td_store_begin_write(td_op_store_backend(bed->ops), &txn));
    vector.heads[0].seq = 5;
    memcpy(vector.heads[0].hash, all[8].hash, TANDEM_HASH_BYTES);
    OK(td_vector_put(txn, 1, origin_of(0), &vector, &scratch));
    OK(td_txn_commit(txn));
    assert_sound(bed);
    /* A missing run. */
    td_run_key(key, 1, origin_of(0), 3, 5);
    size = raw_get(bed, TD_TABLE_GROUPS, tandem_slice_of(key, sizeof(key)), value, 1024);
    raw_del(bed, TD_TABLE_GROUPS, tandem_slice_of(key, sizeof(key)));
    reports = verify(bed);
    assert_says(&reports, "the groups table has 4 operations, 5 are held");
    raw_put(bed, TD_TABLE_GROUPS, tandem_slice_of(key, sizeof(key)), tandem_slice_of(value, size));
    assert_sound(bed);
    /* A missing vector. */
    td_vector_key(key, 1, origin_of(1));
    size = raw_get(bed, TD_TABLE_VECTORS, tandem_slice_of(key, TD_VECTOR_KEY_BYTES), value, 1024);
    raw_del(bed, TD_TABLE_VECTORS, tandem_slice_of(key, TD_VECTOR_KEY_BYTES));
    reports = verify(bed);
    assert_says(&reports, "it has operations and no vector record");
    raw_put(bed, TD_TABLE_VECTORS, tandem_slice_of(key, TD_VECTOR_KEY_BYTES),
            tandem_slice_of(value, size));
    /* Wrong counts. */
    td_collection_record record = {.id = 1, .operations = 11, .last_ordinal = 9, .bytes = 1};
    OK(td_store_begin_write(td_op_store_backend(bed->ops), &txn));
    OK(td_collection_put(txn, NOTES, &record, &scratch));
    OK(td_txn_commit(txn));
    reports = verify(bed);
    assert_says(&reports, "11 operations are counted, 10 are held");
    assert_says(&reports, "the last ordinal should be 9 and is 10");
    assert_says(&reports, "1 bytes are counted");
    /* A collection that is gone, and its operations are not. */
    raw_del(bed, TD_TABLE_COLLECTIONS, NOTES);
    reports = verify(bed);
    assert_says(&reports, "table operations: entries of an unknown collection, id 1");
    assert_says(&reports, "table vectors: entries of an unknown collection, id 1");
    tandem_writer_release(&scratch);
}

static void verify_finds_what_the_rules_would_have_refused(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a"), job[3], b, c, wrong;
    struct reports reports;
    td_txn *txn;

    commit(bed, &a, 1);
    job_after(bed, &a, 3, job);
    b = first_of(bed, "notes", origin_of(1), 0, "b");
    c = after(bed, &b, 0, "c"); /* b is not held */
    wrong = first_of(bed, "notes", origin_of(2), 0, "w");
    wrong.hash[0] ^= 1;
    OK(td_store_begin_write(td_op_store_backend(bed->ops), &txn));
    OK(td_operation_put(txn, 1, 2, &job[0]));
    OK(td_operation_put(txn, 1, 3, &c));
    OK(td_operation_put(txn, 1, 4, &wrong));
    OK(td_txn_commit(txn));
    reports = verify(bed);
    assert_says(&reports, "ordinal 2, origin 10101010101010101010101010101010, seq 2: the rest of "
                          "its job is missing");
    assert_says(&reports, "ordinal 3, origin 20202020202020202020202020202020, seq 2: its "
                          "predecessor is not held");
    assert_says(&reports, "ordinal 4, origin 30303030303030303030303030303030, seq 1: its hash is "
                          "not that of its bytes");
    assert_says(&reports, "ordinal 4 lies beyond the store's last, 1");
}

static void damage_in_small_tables_is_told(void **state)
{
    struct bed *bed = *state;
    td_operation all[10], next;
    uint8_t key[TD_VECTOR_KEY_BYTES], value[1024];
    td_head found[TANDEM_HEADS_MAX];
    td_collection_info info;
    struct reports reports;
    unsigned count;
    size_t size;

    ten(bed, all);
    next = after(bed, &all[8], 0, "y");
    td_vector_key(key, 1, origin_of(0));
    size = raw_get(bed, TD_TABLE_VECTORS, tandem_slice_of(key, sizeof(key)), value, 1024);
    value[size - 5] ^= 1;
    raw_put(bed, TD_TABLE_VECTORS, tandem_slice_of(key, sizeof(key)), tandem_slice_of(value, size));
    assert_int_equal(TANDEM_E_CORRUPT,
                     td_op_store_heads(bed->ops, NOTES, origin_of(0), found, &count));
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_CORRUPT, append_err(bed, &next, 1)); /* and the group stays open */
    next = after(bed, &all[9], 0, "z");
    append(bed, &next, 1);
    OK(td_op_store_commit(bed->ops));
    reports = verify(bed);
    assert_int_equal(1, reports.count);
    assert_says(&reports, "origin 10101010101010101010101010101010: the vector record");
    size = raw_get(bed, TD_TABLE_COLLECTIONS, NOTES, value, 1024);
    value[size - 1] ^= 1;
    raw_put(bed, TD_TABLE_COLLECTIONS, NOTES, tandem_slice_of(value, size));
    assert_int_equal(TANDEM_E_CORRUPT, td_op_store_collection(bed->ops, NOTES, &info));
    reports = verify(bed);
    assert_says(&reports, "collection notes: the collection's record");
}

/* ---- Failures ---- */

static void after_a_failed_put_the_group_is_over(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a"), b = after(bed, &a, 0, "b");
    td_store *store = td_op_store_backend(bed->ops);

    commit(bed, &a, 1);
    OK(td_op_store_begin(bed->ops));
    td_memory_store_fail(store, TANDEM_E_STORE_FULL, false);
    assert_int_equal(TANDEM_E_STORE_FULL, append_err(bed, &b, 1));
    td_memory_store_fail(store, TANDEM_OK, false);
    assert_int_equal(TANDEM_E_STORE_FULL, append_err(bed, &b, 1)); /* it stays broken */
    assert_int_equal(TANDEM_E_STORE_FULL, td_op_store_commit(bed->ops));
    OK(td_op_store_recover(bed->ops));
    assert_int_equal(1, last_ordinal(bed));
    assert_false(holds(bed, &b));
    assert_int_equal(2, commit(bed, &b, 1).first_ordinal);
    assert_sound(bed);
}

static void after_a_failed_commit_recover_tells(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a"), b = after(bed, &a, 0, "b");
    td_operation other = first_of(bed, "other", origin_of(0), 0, "o");
    td_store *store = td_op_store_backend(bed->ops);
    td_head found[TANDEM_HEADS_MAX];
    uint64_t reached;

    commit(bed, &a, 1);
    OK(td_op_store_begin(bed->ops));
    append(bed, &b, 1);
    append(bed, &other, 1);
    reached = td_op_store_group_ordinal(bed->ops);
    td_memory_store_fail(store, TANDEM_E_IO, true);
    assert_int_equal(TANDEM_E_IO, td_op_store_commit(bed->ops));
    td_memory_store_fail(store, TANDEM_OK, true);
    OK(td_op_store_recover(bed->ops));
    assert_int_equal(3, reached);
    if (last_ordinal(bed) != reached) {
        assert_int_equal(1, last_ordinal(bed));
        assert_int_equal(1, heads(bed, origin_of(0), found));
        assert_head(&a, &found[0]);
    }
    assert_sound(bed);
    OK(td_op_store_begin(bed->ops));
    append(bed, &b, 1);
    append(bed, &other, 1);
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(3, last_ordinal(bed));
    assert_sound(bed);
}

static void what_recovery_found_is_committed_before_it_is_confirmed(void **state)
{
    struct bed *bed = *state;
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a");
    td_store *store = td_op_store_backend(bed->ops);

    commit(bed, &a, 1);
    td_memory_store_fail(store, TANDEM_E_IO, true);
    commit(bed, &a, 1); /* all is on disk: nothing to commit, nothing to fail */
    td_memory_store_fail(store, TANDEM_OK, true);
    OK(td_op_store_recover(bed->ops));
    td_memory_store_fail(store, TANDEM_E_IO, true);
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(1, append(bed, &a, 1).duplicates);
    assert_int_equal(TANDEM_E_IO, td_op_store_commit(bed->ops));
    td_memory_store_fail(store, TANDEM_OK, true);
    OK(td_op_store_recover(bed->ops));
    assert_int_equal(1, commit(bed, &a, 1).duplicates);
}

/* ---- Threads ---- */

struct reading {
    struct bed *bed;
    tandem_err err;
    bool torn;
};

static tandem_err see_prefix(void *context, tandem_err err, uint64_t ordinal,
                             const td_operation *op)
{
    uint64_t *next = context;

    return err == TANDEM_OK && ordinal == *next && op->seq == (*next)++ ? TANDEM_OK
                                                                        : TANDEM_E_INTERNAL;
}

static void *read_on(void *context)
{
    struct reading *reading = context;
    uint64_t seen = 0;

    while (seen < 200 && reading->err == TANDEM_OK) {
        uint64_t next = 1, reached;
        uint8_t digest[TANDEM_HASH_BYTES];

        reading->err = td_op_store_last_ordinal(reading->bed->ops, &reached);
        if (reading->err == TANDEM_OK)
            reading->err = td_op_store_scan(reading->bed->ops, NOTES, 0, see_prefix, &next);
        if (reading->err == TANDEM_OK)
            reading->err = td_op_store_vector_digest(reading->bed->ops, NOTES, digest);
        reading->torn |= reached < seen || next - 1 < reached;
        seen = next - 1;
    }
    return NULL;
}

static void others_read_while_one_writes(void **state)
{
    struct bed *bed = *state;
    struct reading readings[2] = {{.bed = bed}, {.bed = bed}};
    td_operation a = first_of(bed, "notes", origin_of(0), 0, "a");
    pthread_t threads[2];

    for (int i = 0; i < 2; i++)
        assert_int_equal(0, pthread_create(&threads[i], NULL, read_on, &readings[i]));
    for (int group = 0; group < 50; group++) {
        OK(td_op_store_begin(bed->ops));
        for (int i = 0; i < 4; i++) {
            append(bed, &a, 1);
            a = after(bed, &a, 0, "a");
        }
        OK(td_op_store_commit(bed->ops));
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(0, pthread_join(threads[i], NULL));
        OK(readings[i].err);
        assert_false(readings[i].torn);
    }
}

/* ---- A naive model ---- */

enum { MODEL_JOBS_MAX = 2000, MODEL_JOB_MAX = 4, MODEL_ORIGINS = 3, MODEL_COLLECTIONS = 2 };

static const char *const model_collections[MODEL_COLLECTIONS] = {"notes", "other"};

struct model_job {
    td_operation ops[MODEL_JOB_MAX];
    size_t count;
};

struct model {
    struct bed *bed;
    uint64_t seed;
    struct model_job *jobs; /* all that were ever made, held or not */
    size_t job_count;
    td_operation *held; /* by ordinal, from 1 */
    size_t held_count;
    size_t committed;
};

static size_t model_find(const struct model *m, tandem_slice collection, const uint8_t *origin,
                         uint64_t seq, const uint8_t *hash)
{
    for (size_t i = 0; i < m->held_count; i++)
        if (m->held[i].seq == seq && tandem_slice_equal(m->held[i].collection, collection) &&
            memcmp(m->held[i].origin, origin, TANDEM_ORIGIN_BYTES) == 0 &&
            (!hash || memcmp(m->held[i].hash, hash, TANDEM_HASH_BYTES) == 0))
            return i + 1;
    return 0;
}

static int model_head_compare(const void *a, const void *b)
{
    const td_head *x = a, *y = b;

    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return memcmp(x->hash, y->hash, TANDEM_HASH_BYTES);
}

/* What no held operation names as its predecessor. */
static unsigned model_heads(const struct model *m, tandem_slice collection, const uint8_t *origin,
                            td_head *out)
{
    unsigned count = 0;

    for (size_t i = 0; i < m->held_count; i++) {
        const td_operation *op = &m->held[i];
        bool followed = false;

        if (!tandem_slice_equal(op->collection, collection) ||
            memcmp(op->origin, origin, TANDEM_ORIGIN_BYTES))
            continue;
        for (size_t j = i + 1; j < m->held_count && !followed; j++)
            followed = memcmp(m->held[j].predecessor, op->hash, TANDEM_HASH_BYTES) == 0;
        if (followed)
            continue;
        out[count].seq = op->seq;
        memcpy(out[count++].hash, op->hash, TANDEM_HASH_BYTES);
    }
    qsort(out, count, sizeof(out[0]), model_head_compare);
    return count;
}

static tandem_err model_append(struct model *m, const struct model_job *job, size_t *held_out)
{
    const td_operation *first = &job->ops[0];
    td_head found[TANDEM_HEADS_MAX + 1];
    bool extends = false;
    unsigned count;
    size_t held = 0, before;

    while (held < job->count && model_find(m, first->collection, first->origin,
                                           job->ops[held].seq, job->ops[held].hash))
        held++;
    *held_out = held;
    if (held == job->count)
        return TANDEM_OK;
    if (first->seq > 1) {
        before = model_find(m, first->collection, first->origin, first->seq - 1,
                            first->predecessor);
        if (!before)
            return TANDEM_E_PREDECESSOR;
        if ((m->held[before - 1].flags & TD_FLAG_CONTINUES) &&
            (!tandem_slice_equal(m->held[before - 1].document, first->document) ||
             !tandem_slice_equal(m->held[before - 1].branch, first->branch)))
            return TANDEM_E_CHAIN;
    }
    count = model_heads(m, first->collection, first->origin, found);
    for (unsigned i = 0; i < count; i++)
        extends |= memcmp(found[i].hash, job->ops[held].predecessor, TANDEM_HASH_BYTES) == 0;
    if (!extends && count == TANDEM_HEADS_MAX)
        return TANDEM_E_QUARANTINED;
    for (size_t i = held; i < job->count; i++)
        m->held[m->held_count++] = job->ops[i];
    return TANDEM_OK;
}

/* A new job: mostly at a head, at times behind whatever was ever made, at times at the root. */
static const struct model_job *model_job_new(struct model *m)
{
    const char *collection = model_collections[draw(&m->seed) % MODEL_COLLECTIONS];
    const uint8_t *origin = origin_of((unsigned)(draw(&m->seed) % MODEL_ORIGINS));
    struct model_job *job = &m->jobs[m->job_count];
    td_head found[TANDEM_HEADS_MAX + 1];
    unsigned dice = (unsigned)(draw(&m->seed) % 40), heads_count;
    const td_operation *base = NULL;
    char payload[24];

    heads_count = model_heads(m, tandem_slice_text(collection), origin, found);
    if (dice < 4 && m->job_count) {
        const struct model_job *any = &m->jobs[draw(&m->seed) % m->job_count];

        base = &any->ops[draw(&m->seed) % any->count];
    } else if (dice > 4 && heads_count) {
        const td_head *head = &found[draw(&m->seed) % heads_count];
        size_t at = model_find(m, tandem_slice_text(collection), origin, head->seq, head->hash);

        base = &m->held[at - 1];
    }
    job->count = 1 + draw(&m->seed) % MODEL_JOB_MAX;
    for (size_t i = 0; i < job->count; i++) {
        uint64_t flags = i + 1 < job->count ? TD_FLAG_CONTINUES : 0;

        snprintf(payload, sizeof(payload), "%u", (unsigned)draw(&m->seed));
        job->ops[i] = i ? after(m->bed, &job->ops[i - 1], flags, payload)
                    : base ? after(m->bed, base, flags, payload)
                           : first_of(m->bed, collection, origin, flags, payload);
    }
    m->job_count++;
    return job;
}

/* Another end for a job that was made: a fork inside it. */
static const struct model_job *model_job_bend(struct model *m)
{
    const struct model_job *old = &m->jobs[draw(&m->seed) % m->job_count];
    struct model_job *job = &m->jobs[m->job_count];

    if (old->count < 2)
        return old;
    *job = *old;
    job->ops[job->count - 1] = after(m->bed, &job->ops[job->count - 2], 0, "bent");
    m->job_count++;
    return job;
}

static void model_step(struct model *m)
{
    unsigned dice = (unsigned)(draw(&m->seed) % 10);
    const struct model_job *job;
    td_append_result result;
    size_t held, before = m->held_count;
    tandem_err expected;

    if (dice < 3 && m->job_count)
        job = &m->jobs[draw(&m->seed) % m->job_count];
    else if (dice == 3 && m->job_count)
        job = model_job_bend(m);
    else
        job = model_job_new(m);
    expected = model_append(m, job, &held);
    assert_int_equal(expected, td_op_store_append(m->bed->ops, job->ops, job->count, &result));
    assert_int_equal(m->held_count, td_op_store_group_ordinal(m->bed->ops));
    if (expected != TANDEM_OK)
        return;
    assert_int_equal(held, result.duplicates);
    assert_int_equal(m->held_count - before, result.appended);
    assert_int_equal(result.appended ? before + 1 : 0, result.first_ordinal);
    assert_int_equal(result.appended ? m->held_count : 0, result.last_ordinal);
}

static void model_compare(struct model *m)
{
    assert_int_equal(m->held_count, last_ordinal(m->bed));
    for (unsigned c = 0; c < MODEL_COLLECTIONS; c++) {
        tandem_slice name = tandem_slice_text(model_collections[c]);
        struct seen seen = scan(m->bed, model_collections[c], 0);
        size_t n = 0;

        for (size_t i = 0; i < m->held_count; i++) {
            if (!tandem_slice_equal(m->held[i].collection, name))
                continue;
            assert_true(n < seen.count);
            assert_int_equal(i + 1, seen.all[n].ordinal);
            assert_memory_equal(m->held[i].hash, seen.all[n++].hash, TANDEM_HASH_BYTES);
        }
        assert_int_equal(n, seen.count);
        free(seen.all);
        for (unsigned o = 0; o < MODEL_ORIGINS; o++) {
            td_head expected[TANDEM_HEADS_MAX + 1], found[TANDEM_HEADS_MAX];
            unsigned count;
            uint64_t ordinal, seq;

            OK(td_op_store_heads(m->bed->ops, name, origin_of(o), found, &count));
            assert_int_equal(model_heads(m, name, origin_of(o), expected), count);
            if (!count)
                continue;
            for (unsigned i = 0; i < count; i++) {
                assert_true(expected[i].seq == found[i].seq);
                assert_memory_equal(expected[i].hash, found[i].hash, TANDEM_HASH_BYTES);
            }
            seq = 1 + draw(&m->seed) % found[count - 1].seq;
            OK(td_op_store_locate(m->bed->ops, name, origin_of(o), seq, &ordinal));
            assert_int_equal(model_find(m, name, origin_of(o), seq, NULL), ordinal);
        }
    }
    for (int i = 0; i < 20 && m->job_count; i++) {
        const struct model_job *job = &m->jobs[draw(&m->seed) % m->job_count];
        const td_operation *op = &job->ops[draw(&m->seed) % job->count];

        assert_int_equal(
            model_find(m, op->collection, op->origin, op->seq, op->hash) != 0, holds(m->bed, op));
    }
}

static void model_run(uint64_t seed, unsigned groups)
{
    struct model m = {.seed = seed};
    void *bed;

    bed_make(&bed);
    m.bed = bed;
    m.jobs = calloc(MODEL_JOBS_MAX, sizeof(*m.jobs));
    m.held = calloc((size_t)MODEL_JOBS_MAX * MODEL_JOB_MAX, sizeof(*m.held));
    assert_non_null(m.jobs);
    assert_non_null(m.held);
    for (unsigned group = 0; group < groups; group++) {
        unsigned steps = 1 + (unsigned)(draw(&m.seed) % 12);

        OK(td_op_store_begin(m.bed->ops));
        for (unsigned i = 0; i < steps && m.job_count < MODEL_JOBS_MAX; i++)
            model_step(&m);
        if (draw(&m.seed) % 8 == 0) {
            td_op_store_abort(m.bed->ops);
            m.held_count = m.committed;
        } else {
            OK(td_op_store_commit(m.bed->ops));
            m.committed = m.held_count;
        }
        if (draw(&m.seed) % 10 == 0)
            reopen(m.bed);
        model_compare(&m);
    }
    assert_true(m.held_count > groups);
    assert_sound(m.bed);
    free(m.jobs);
    free(m.held);
    bed_unmake(&bed);
}

static void random_histories_match_a_naive_model(void **state)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        print_message("seed %u\n", (unsigned)seed);
        model_run(seed, 40);
    }
}

#define ON_BED(test) cmocka_unit_test_setup_teardown(test, bed_make, bed_unmake)

int main(int argc, char **argv)
{
    static const struct CMUnitTest contract[] = {
        ON_BED(a_fresh_store_has_an_identity_and_nothing_else),
        ON_BED(reopening_keeps_everything),
        ON_BED(an_uncommitted_group_is_gone_after_reopening),
        ON_BED(a_newer_format_is_refused),
        ON_BED(an_impossible_format_is_refused),
        ON_BED(a_store_of_something_else_is_refused),
        ON_BED(damaged_meta_records_are_refused),
        ON_BED(a_job_is_appended_whole_and_read_back),
        ON_BED(canonical_bytes_come_back_as_they_were),
        ON_BED(what_is_held_is_skipped_and_counted),
        ON_BED(a_missing_predecessor_is_refused),
        ON_BED(forks_keep_both_sides),
        ON_BED(forks_within_one_group_are_kept),
        ON_BED(the_ninth_head_is_quarantined),
        ON_BED(what_is_no_whole_job_is_refused),
        ON_BED(a_chain_begins_at_its_root),
        ON_BED(the_rest_of_a_job_that_forks_is_taken),
        ON_BED(a_job_may_fork_inside_another),
        ON_BED(jobs_have_a_largest_size),
        ON_BED(reserved_collections_are_refused),
        ON_BED(an_aborted_group_leaves_no_trace),
        ON_BED(the_tip_is_what_comes_next_follows),
        ON_BED(the_clock_is_a_high_water),
        ON_BED(a_group_writes_few_small_entries),
        ON_BED(scans_go_on_behind_an_ordinal),
        ON_BED(a_visitor_stops_a_scan),
        ON_BED(collections_come_in_byte_order),
        ON_BED(vectors_come_in_pages),
        ON_BED(any_operation_is_found),
        ON_BED(of_forks_the_first_to_arrive_is_located),
        ON_BED(an_empty_collection_has_the_digest_of_nothing),
        cmocka_unit_test(digests_are_those_of_the_test_vectors),
        ON_BED(a_damaged_record_is_never_handed_out),
        ON_BED(a_record_at_another_key_is_damage),
        ON_BED(beyond_the_heads_nothing_is_held_whatever_is_damaged),
        ON_BED(verify_says_something_wherever_it_cannot_read_on),
        ON_BED(verify_names_what_is_damaged),
        ON_BED(verify_compares_the_tables),
        ON_BED(verify_finds_what_the_rules_would_have_refused),
        ON_BED(damage_in_small_tables_is_told),
        ON_BED(others_read_while_one_writes),
        cmocka_unit_test(random_histories_match_a_naive_model),
    };
    static const struct CMUnitTest memory_only[] = {
        ON_BED(after_a_failed_put_the_group_is_over),
        ON_BED(after_a_failed_commit_recover_tells),
        ON_BED(what_recovery_found_is_committed_before_it_is_confirmed),
    };
    char group[64];
    int failed;

    if (argc != 2 || (strcmp(argv[1], "lmdb") && strcmp(argv[1], "memory")) || sodium_init() < 0) {
        fprintf(stderr, "usage: %s lmdb|memory\n", argv[0]);
        return 2;
    }
    on_lmdb = strcmp(argv[1], "lmdb") == 0;
    snprintf(group, sizeof(group), "op store %s", argv[1]);
    failed = cmocka_run_group_tests_name(group, contract, NULL, NULL);
    if (!on_lmdb) {
        snprintf(group, sizeof(group), "op store %s only", argv[1]);
        failed += cmocka_run_group_tests_name(group, memory_only, NULL, NULL);
    }
    return failed;
}
