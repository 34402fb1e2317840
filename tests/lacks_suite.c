/*
 * Gaps (store/op_store.h, store/op_place.h): what is refused or wanted leaves one in a chain that goes on,
 * and comes into it later; of a partial replica what comes need not follow anything. One program, run once per backend with its name as argument.
 */
#include <sodium.h>

#include "tests/op_store_bed.h"

struct lack_list {
    td_lack lacks[64];
    unsigned count;
};

static tandem_err note_lack(void *context, const uint8_t *origin, const td_lack *lack)
{
    struct lack_list *list = context;

    (void)origin;
    assert_true(list->count < 64);
    list->lacks[list->count++] = *lack;
    return TANDEM_OK;
}

static struct lack_list lacks(struct bed *bed, const uint8_t *origin)
{
    struct lack_list list = {.count = 0};

    OK(td_op_store_lacks(bed->ops, NOTES, origin, note_lack, &list));
    return list;
}

static void refuse(struct bed *bed, const td_operation *job, size_t count)
{
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_REFUSED, td_op_store_refuse(bed->ops, job, count, TANDEM_E_REFUSED));
    OK(td_op_store_commit(bed->ops));
}

static td_lack lack_of(const td_operation *job, size_t count)
{
    td_lack lack = {.first = job[0].seq, .last = job[count - 1].seq};

    memcpy(lack.predecessor, job[0].predecessor, TANDEM_HASH_BYTES);
    memcpy(lack.hash, job[count - 1].hash, TANDEM_HASH_BYTES);
    return lack;
}

static tandem_err want(struct bed *bed, const uint8_t *origin, const td_lack *lack)
{
    tandem_err err;

    OK(td_op_store_begin(bed->ops));
    err = td_op_store_want(bed->ops, NOTES, origin, lack);
    OK(td_op_store_commit(bed->ops));
    return err;
}

/* A chain of count single operations; *out is [0] to [count - 1]. */
static void chain(struct bed *bed, const uint8_t *origin, td_operation *out, size_t count)
{
    out[0] = first_of(bed, "notes", origin, 0, "1");
    for (size_t i = 1; i < count; i++)
        out[i] = after(bed, &out[i - 1], 0, "n");
}

static void what_is_refused_leaves_a_gap_and_the_chain_goes_on(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[4];
    struct lack_list list;

    chain(bed, origin_of(0), ops, 4);
    commit(bed, &ops[0], 1);
    refuse(bed, &ops[1], 1);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&ops[0], &found[0]); /* what is refused is not held */
    assert_false(holds(bed, &ops[1]));
    commit(bed, &ops[2], 1);
    commit(bed, &ops[3], 1);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&ops[3], &found[0]);
    list = lacks(bed, origin_of(0));
    assert_int_equal(1, list.count);
    assert_int_equal(2, list.lacks[0].first);
    assert_int_equal(2, list.lacks[0].last);
    assert_int_equal(TANDEM_E_REFUSED, list.lacks[0].reason);
    assert_true(list.lacks[0].followed);
    assert_sound(bed);
    reopen(bed);
    assert_int_equal(1, lacks(bed, NULL).count);
    assert_int_equal(1, td_op_store_lack_count(bed->ops));
    assert_sound(bed);
}

static void what_is_offered_again_fills_the_gap(void **state)
{
    struct bed *bed = *state;
    uint8_t digest[TANDEM_HASH_BYTES], whole[TANDEM_HASH_BYTES];
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[3];
    td_append_result result;

    chain(bed, origin_of(0), ops, 3);
    commit(bed, &ops[0], 1);
    refuse(bed, &ops[1], 1);
    commit(bed, &ops[2], 1);
    OK(td_op_store_vector_digest(bed->ops, NOTES, digest));
    result = commit(bed, &ops[1], 1);
    assert_int_equal(1, result.appended);
    assert_false(result.forked);
    assert_int_equal(1, result.heads);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&ops[2], &found[0]);
    assert_true(holds(bed, &ops[1]));
    assert_int_equal(0, lacks(bed, NULL).count);
    assert_int_equal(0, td_op_store_lack_count(bed->ops));
    assert_int_equal(3, located(bed, origin_of(0), 3)); /* the refusal had an ordinal, too */
    assert_int_equal(3, located(bed, origin_of(0), 2));
    OK(td_op_store_vector_digest(bed->ops, NOTES, whole));
    assert_memory_not_equal(digest, whole, sizeof(whole));
    commit(bed, &ops[1], 1); /* once more: held */
    assert_sound(bed);
    reopen(bed);
    assert_sound(bed);
}

static void a_gap_of_several_jobs_goes_with_the_last(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[5];
    td_lack lack;

    chain(bed, origin_of(0), ops, 5);
    commit(bed, &ops[0], 1);
    lack = lack_of(&ops[1], 3);
    OK(want(bed, origin_of(0), &lack));
    OK(want(bed, origin_of(0), &lack)); /* known */
    assert_int_equal(1, lacks(bed, NULL).count);
    commit(bed, &ops[4], 1);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&ops[4], &found[0]);
    assert_sound(bed);
    commit(bed, &ops[1], 1);
    commit(bed, &ops[2], 1);
    assert_int_equal(1, lacks(bed, NULL).count);
    assert_int_equal(2, heads(bed, origin_of(0), found)); /* it could be another branch */
    assert_sound(bed);
    commit(bed, &ops[3], 1);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&ops[4], &found[0]);
    assert_int_equal(0, lacks(bed, NULL).count);
    assert_sound(bed);
}

static void the_first_of_all_may_be_lacking(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[3];

    chain(bed, origin_of(0), ops, 3);
    refuse(bed, &ops[0], 1);
    assert_int_equal(0, heads(bed, origin_of(0), found));
    assert_int_equal(1, lacks(bed, origin_of(0)).count);
    assert_sound(bed);
    refuse(bed, &ops[1], 1); /* one behind the other */
    assert_sound(bed);
    commit(bed, &ops[2], 1);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&ops[2], &found[0]);
    assert_true(lacks(bed, NULL).lacks[0].followed && lacks(bed, NULL).lacks[1].followed);
    assert_sound(bed);
    commit(bed, &ops[0], 1);
    commit(bed, &ops[1], 1);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_int_equal(0, lacks(bed, NULL).count);
    assert_sound(bed);
}

static void what_follows_nothing_known_is_no_lack(void **state)
{
    struct bed *bed = *state;
    td_operation ops[4];
    td_lack lack;

    chain(bed, origin_of(0), ops, 4);
    commit(bed, &ops[0], 1);
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_PREDECESSOR,
                     td_op_store_refuse(bed->ops, &ops[2], 1, TANDEM_E_REFUSED));
    td_op_store_abort(bed->ops);
    lack = lack_of(&ops[2], 1);
    assert_int_equal(TANDEM_E_PREDECESSOR, want(bed, origin_of(0), &lack));
    lack = lack_of(&ops[0], 1); /* held */
    OK(want(bed, origin_of(0), &lack));
    OK(td_op_store_begin(bed->ops));
    OK(td_op_store_refuse(bed->ops, &ops[0], 1, TANDEM_E_REFUSED)); /* held, too */
    OK(td_op_store_commit(bed->ops));
    lack.first = 0;
    assert_int_equal(TANDEM_E_INVALID, want(bed, origin_of(0), &lack));
    lack = lack_of(&ops[0], 1);
    lack.predecessor[0] ^= 1; /* no root */
    assert_int_equal(TANDEM_E_PREDECESSOR, want(bed, origin_of(1), &lack));
    assert_int_equal(0, lacks(bed, NULL).count);
    assert_sound(bed);
}

static void a_fork_beside_a_gap_is_kept(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[3], other;

    chain(bed, origin_of(0), ops, 3);
    other = after(bed, &ops[0], 0, "other");
    commit(bed, &ops[0], 1);
    refuse(bed, &ops[1], 1);
    commit(bed, &other, 1); /* another operation at the number that was refused */
    assert_int_equal(1, heads(bed, origin_of(0), found));
    commit(bed, &ops[2], 1);
    assert_int_equal(2, heads(bed, origin_of(0), found));
    assert_sound(bed);
    commit(bed, &ops[1], 1);
    assert_int_equal(2, heads(bed, origin_of(0), found));
    assert_head(&other, &found[0]);
    assert_head(&ops[2], &found[1]);
    assert_int_equal(0, lacks(bed, NULL).count);
    assert_sound(bed);
}

/* Who asked for the first part of a job alone: what it ends with is no head, what comes is whole. */
static void a_gap_may_end_inside_a_job(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation one, job[3], other;
    td_lack lack;

    one = first_of(bed, "notes", origin_of(0), 0, "1");
    job_after(bed, &one, 3, job);
    other = after(bed, &job[1], 0, "other");
    commit(bed, &one, 1);
    lack = lack_of(job, 2);
    OK(want(bed, origin_of(0), &lack));
    commit(bed, &other, 1); /* the rest of the job, on another branch */
    assert_int_equal(1, heads(bed, origin_of(0), found));
    commit(bed, job, 3);
    assert_int_equal(2, heads(bed, origin_of(0), found));
    assert_int_equal(0, lacks(bed, NULL).count);
    assert_sound(bed);
}

static void refusals_are_withdrawn_and_counted(void **state)
{
    struct bed *bed = *state;
    td_operation ops[3];
    uint64_t before;

    chain(bed, origin_of(0), ops, 3);
    refuse(bed, &ops[0], 1);
    before = last_ordinal(bed);
    OK(td_op_store_begin(bed->ops));
    OK(td_op_store_withdraw(bed->ops));
    OK(td_op_store_commit(bed->ops));
    assert_true(last_ordinal(bed) > before); /* whoever follows ordinals learns of it */
    assert_int_equal(TANDEM_OK, lacks(bed, NULL).lacks[0].reason);
    refuse(bed, &ops[0], 1); /* and refused again */
    assert_int_equal(TANDEM_E_REFUSED, lacks(bed, NULL).lacks[0].reason);
    assert_int_equal(1, td_op_store_lack_count(bed->ops));
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_REFUSED,
                     td_op_store_refuse(bed->ops, &ops[1], 1, TANDEM_E_REFUSED));
    td_op_store_abort(bed->ops);
    assert_int_equal(1, td_op_store_lack_count(bed->ops));
    assert_sound(bed);
}

/* The first that is heard of a collection is refused, and that withdrawn, before anything is committed. */
static void what_was_refused_in_the_same_group_is_withdrawn(void **state)
{
    struct bed *bed = *state;
    td_operation op = first_of(bed, "notes", origin_of(0), 0, "1");

    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_REFUSED, td_op_store_refuse(bed->ops, &op, 1, TANDEM_E_REFUSED));
    OK(td_op_store_withdraw(bed->ops));
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(1, lacks(bed, NULL).count);
    assert_int_equal(TANDEM_OK, lacks(bed, NULL).lacks[0].reason);
    assert_sound(bed);
}

static void lacks_are_bounded(void **state)
{
    struct bed *bed = *state;
    td_operation op = first_of(bed, "notes", origin_of(0), 0, "1");

    OK(td_op_store_begin(bed->ops));
    for (unsigned i = 0; i < TD_LACKS_MAX; i++) {
        assert_int_equal(TANDEM_E_REFUSED,
                         td_op_store_refuse(bed->ops, &op, 1, TANDEM_E_REFUSED));
        op = after(bed, &op, 0, "n");
    }
    assert_int_equal(TANDEM_E_LIMIT, td_op_store_refuse(bed->ops, &op, 1, TANDEM_E_REFUSED));
    append(bed, &op, 1); /* what is taken needs no place */
    OK(td_op_store_commit(bed->ops));
    assert_sound(bed);
}

static void what_an_origin_reached_is_told_in_spite_of_gaps(void **state)
{
    struct bed *bed = *state;
    td_operation ops[6];
    uint64_t seq, base;

    chain(bed, origin_of(0), ops, 6);
    commit(bed, &ops[0], 1);
    refuse(bed, &ops[1], 1);
    commit(bed, &ops[2], 1);
    base = last_ordinal(bed);
    commit(bed, &ops[3], 1);
    OK(td_op_store_reached(bed->ops, NOTES, origin_of(0), base, &seq));
    assert_int_equal(3, seq);
    OK(td_op_store_reached(bed->ops, NOTES, origin_of(0), base - 2, &seq));
    assert_int_equal(1, seq); /* the second is not held */
    commit(bed, &ops[1], 1);
    OK(td_op_store_reached(bed->ops, NOTES, origin_of(0), base, &seq));
    assert_int_equal(1, seq); /* what filled the gap came later */
    OK(td_op_store_reached(bed->ops, NOTES, origin_of(0), last_ordinal(bed), &seq));
    assert_int_equal(4, seq);
    assert_true(located(bed, origin_of(0), 3));
}

/* ---- In part ---- */

static td_append_result commit_part(struct bed *bed, const td_operation *job, size_t count)
{
    td_append_result result;

    OK(td_op_store_begin(bed->ops));
    OK(td_op_store_append_part(bed->ops, job, count, &result));
    OK(td_op_store_commit(bed->ops));
    return result;
}

static tandem_err append_part_err(struct bed *bed, const td_operation *job, size_t count)
{
    td_append_result result;

    return td_op_store_append_part(bed->ops, job, count, &result);
}

static tandem_slice some_filter(unsigned n)
{
    static uint8_t bytes[32][64];
    tandem_writer out;

    assert_true(n < 32);
    tandem_writer_init(&out);
    tandem_write_array(&out, 3);
    tandem_write_nil(&out);
    tandem_write_nil(&out);
    tandem_write_array(&out, 1);
    tandem_write_text(&out, (const char *[]){"draft", "main", "other", "last"}[n % 4]);
    if (n >= 4) { /* any number of them */
        char name[16];

        tandem_writer_clear(&out);
        tandem_write_array(&out, 3);
        tandem_write_nil(&out);
        tandem_write_nil(&out);
        tandem_write_array(&out, 1);
        snprintf(name, sizeof(name), "b%02u", n);
        tandem_write_text(&out, name);
    }
    memcpy(bytes[n], out.bytes, out.size);
    tandem_slice slice = tandem_slice_of(bytes[n], out.size);
    tandem_writer_release(&out);
    return slice;
}

static void cover(struct bed *bed, tandem_slice filter, const td_operation *op)
{
    td_head head = {.seq = op->seq};

    memcpy(head.hash, op->hash, TANDEM_HASH_BYTES);
    OK(td_op_store_begin(bed->ops));
    OK(td_op_store_cover(bed->ops, NOTES, filter, op->origin, &head, 1));
    OK(td_op_store_commit(bed->ops));
}

static unsigned covered(struct bed *bed, tandem_slice filter, const uint8_t *origin, uint64_t *seq)
{
    td_head found[TANDEM_HEADS_MAX];
    unsigned count;

    OK(td_op_store_pair_heads(bed->ops, NOTES, filter, origin, found, &count));
    *seq = count ? found[count - 1].seq : 0;
    return count;
}

static tandem_err count_pair(void *context, tandem_slice filter, uint64_t ordinal)
{
    (void)filter;
    (void)ordinal;
    ++*(unsigned *)context;
    return TANDEM_OK;
}

static unsigned pairs(struct bed *bed)
{
    unsigned count = 0;

    OK(td_op_store_pairs(bed->ops, NOTES, count_pair, &count));
    return count;
}

static void what_is_loose_was_not_reached(void **state)
{
    struct bed *bed = *state;
    td_operation ops[6];
    uint64_t seq, base;

    chain(bed, origin_of(0), ops, 6);
    commit(bed, &ops[0], 1);
    commit_part(bed, &ops[3], 1);
    base = last_ordinal(bed);
    commit_part(bed, &ops[5], 1);
    OK(td_op_store_reached(bed->ops, NOTES, origin_of(0), base, &seq));
    assert_int_equal(1, seq);
    OK(td_op_store_reached(bed->ops, NOTES, origin_of(0), last_ordinal(bed), &seq));
    assert_int_equal(1, seq);
}

static void what_comes_through_a_filter_is_held_loose(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[6];
    uint64_t seq;

    chain(bed, origin_of(0), ops, 6);
    assert_int_equal(1, commit_part(bed, &ops[1], 1).appended);
    assert_int_equal(1, commit_part(bed, &ops[3], 1).appended);
    assert_int_equal(1, commit_part(bed, &ops[4], 1).appended);
    assert_int_equal(1, commit_part(bed, &ops[4], 1).duplicates);
    assert_int_equal(0, heads(bed, origin_of(0), found));
    assert_true(holds(bed, &ops[1]) && holds(bed, &ops[4]) && !holds(bed, &ops[2]));
    cover(bed, some_filter(0), &ops[5]);
    assert_int_equal(1, covered(bed, some_filter(0), origin_of(0), &seq));
    assert_int_equal(6, seq);
    cover(bed, some_filter(0), &ops[3]); /* never back */
    covered(bed, some_filter(0), origin_of(0), &seq);
    assert_int_equal(6, seq);
    assert_sound(bed);
    reopen(bed);
    covered(bed, some_filter(0), origin_of(0), &seq);
    assert_int_equal(6, seq);
    assert_int_equal(0, covered(bed, some_filter(1), origin_of(0), &seq));

    /* The rest comes, and the chain closes. */
    commit(bed, &ops[0], 1);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&ops[1], &found[0]);
    assert_sound(bed);
    commit(bed, &ops[2], 1);
    assert_head(&ops[4], (heads(bed, origin_of(0), found), &found[0]));
    assert_int_equal(1, pairs(bed));
    commit(bed, &ops[5], 1);
    assert_head(&ops[5], (heads(bed, origin_of(0), found), &found[0]));
    assert_int_equal(0, pairs(bed)); /* it covers nothing more */
    assert_sound(bed);
}

static void the_missing_may_come_behind_what_is_loose(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[5];

    chain(bed, origin_of(0), ops, 5);
    commit_part(bed, &ops[0], 1);
    commit_part(bed, &ops[2], 1);
    cover(bed, some_filter(0), &ops[4]);
    assert_int_equal(1, heads(bed, origin_of(0), found)); /* the first one has its root */
    assert_head(&ops[0], &found[0]);
    commit(bed, &ops[3], 1); /* behind a loose one, and no fork */
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&ops[0], &found[0]);
    commit(bed, &ops[1], 1);
    assert_head(&ops[3], (heads(bed, origin_of(0), found), &found[0]));
    assert_sound(bed);
}

/* A branch that stands loose below a head, of which the root comes last. */
static void a_loose_branch_gets_a_head_of_its_own(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[6], branch[3];
    bool reaches;

    chain(bed, origin_of(0), ops, 6);
    branch[0] = after(bed, &ops[1], 0, "1");
    branch[1] = after(bed, &branch[0], 0, "2");
    branch[2] = after(bed, &branch[1], 0, "3");
    commit(bed, ops, 1);
    commit_part(bed, &ops[4], 1);
    commit_part(bed, &branch[1], 1);
    for (unsigned i = 1; i < 4; i++)
        commit(bed, &ops[i], 1);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&ops[4], &found[0]);
    commit_part(bed, &branch[2], 1); /* behind what is loose, though heads are above it */
    OK(td_op_store_reaches(bed->ops, NOTES, origin_of(0), 5, branch[2].hash, &reaches));
    assert_true(holds(bed, &branch[2]) && !reaches);
    commit(bed, &ops[5], 1);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_sound(bed);
    reopen(bed);
    assert_true(commit(bed, &branch[0], 1).forked);
    assert_int_equal(2, heads(bed, origin_of(0), found));
    assert_head(&branch[2], &found[0]);
    assert_head(&ops[5], &found[1]);
    OK(td_op_store_reaches(bed->ops, NOTES, origin_of(0), 5, branch[2].hash, &reaches));
    assert_true(reaches);
    assert_sound(bed);
}

static void a_fork_inside_a_loose_job_is_loose(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[2], job[3], other[3];

    chain(bed, origin_of(0), ops, 2);
    job_after(bed, &ops[1], 3, job);
    memcpy(other, job, sizeof(other));
    other[2] = after(bed, &job[1], 0, "other");
    commit(bed, ops, 1);
    commit_part(bed, job, 3);
    assert_int_equal(2, commit_part(bed, other, 3).duplicates);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_sound(bed);
    commit(bed, &ops[1], 1);
    assert_int_equal(2, heads(bed, origin_of(0), found));
    assert_sound(bed);
}

/* A peer cut off the end of a job: it came by itself, and the whole of it is no job to put behind it. */
static void a_job_of_which_the_end_is_loose_is_no_job(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation one, job[4], middle[2];

    one = first_of(bed, "notes", origin_of(0), 0, "1");
    job_after(bed, &one, 4, job);
    middle[0] = job[1]; /* of another branch, cut in front and ended otherwise */
    middle[1] = after(bed, &job[1], 0, "other");
    commit(bed, &one, 1);
    commit_part(bed, &job[2], 2);
    for (int part = 0; part < 2; part++) {
        OK(td_op_store_begin(bed->ops));
        assert_int_equal(TANDEM_E_CHAIN, part ? append_part_err(bed, job, 4) : append_err(bed, job, 4));
        OK(td_op_store_commit(bed->ops));
        assert_false(holds(bed, &job[0]));
    }
    assert_int_equal(2, commit_part(bed, &job[2], 2).duplicates);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&one, &found[0]);
    assert_sound(bed);
    reopen(bed);
    commit_part(bed, middle, 2);
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, job, 4));
    OK(td_op_store_commit(bed->ops));
    assert_sound(bed);
}

/* The end of a job stands behind a lack that ends inside the job, and is a head: the beginning is not held. */
static void a_job_of_which_the_end_is_a_head_is_no_job(void **state)
{
    struct bed *bed = *state;
    td_operation one, job[4];
    td_lack lack;

    one = first_of(bed, "notes", origin_of(0), 0, "1");
    job_after(bed, &one, 4, job);
    commit(bed, &one, 1);
    lack = lack_of(job, 2);
    OK(want(bed, origin_of(0), &lack));
    commit(bed, &job[2], 2);
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_CHAIN, append_err(bed, job, 4));
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(2, commit(bed, &job[2], 2).duplicates);
    assert_int_equal(1, lacks(bed, NULL).count);
    assert_sound(bed);
}

/* What is held of a job is found in whatever runs it stands, among those of others. */
static void a_job_in_many_runs_is_held(void **state)
{
    enum { COUNT = 12 };
    struct bed *bed = *state;
    td_operation one, job[COUNT], other;
    td_append_result result;

    one = first_of(bed, "notes", origin_of(0), 0, "1");
    job_after(bed, &one, COUNT, job);
    commit(bed, &one, 1);
    refuse(bed, job, COUNT);
    for (unsigned i = 1; i < COUNT; i += 3) { /* jobs that begin as it does, and end otherwise */
        td_operation branch[COUNT];

        memcpy(branch, job, sizeof(branch));
        branch[i] = after(bed, &job[i - 1], 0, "other");
        commit(bed, branch, i + 1);
    }
    other = after(bed, &one, 0, "beside");
    commit(bed, &other, 1);
    OK(td_op_store_begin(bed->ops));
    result = append(bed, job, COUNT);
    assert_int_equal(10, result.duplicates);
    assert_int_equal(2, result.appended);
    assert_int_equal(COUNT, append(bed, job, COUNT).duplicates); /* in runs that are open */
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(COUNT, commit(bed, job, COUNT).duplicates);
    assert_int_equal(0, lacks(bed, NULL).count);
    assert_sound(bed);
}

static void a_lack_before_loose_branches_makes_a_fork(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[3], other;
    td_lack lack;

    chain(bed, origin_of(0), ops, 3);
    other = after(bed, &ops[1], 0, "other");
    commit(bed, ops, 1);
    commit_part(bed, &ops[2], 1);
    commit_part(bed, &other, 1);
    lack = lack_of(&ops[1], 1);
    OK(td_op_store_begin(bed->ops));
    OK(td_op_store_want(bed->ops, NOTES, origin_of(0), &lack));
    assert_int_equal(1, td_op_store_group_forks(bed->ops));
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(2, heads(bed, origin_of(0), found));
    assert_sound(bed);
}

/* A lack of several jobs: the last of them alone, through a filter, does not end it. */
static void what_ends_a_lack_follows_what_is_before(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[4];
    td_lack lack;

    chain(bed, origin_of(0), ops, 4);
    commit(bed, ops, 1);
    lack = lack_of(&ops[1], 2);
    OK(want(bed, origin_of(0), &lack));
    commit(bed, &ops[3], 1);
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_PREDECESSOR, append_part_err(bed, &ops[2], 1));
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(1, lacks(bed, NULL).count);
    assert_sound(bed);
    commit(bed, &ops[1], 1);
    commit_part(bed, &ops[2], 1);
    assert_int_equal(0, lacks(bed, NULL).count);
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&ops[3], &found[0]);
    assert_sound(bed);
}

/* A pair names the heads of the branches that came; who tells of one branch takes no other away. */
static void a_pair_covers_the_branches_that_it_was_told_of(void **state)
{
    struct bed *bed = *state;
    td_head heads_of[2], found[TANDEM_HEADS_MAX];
    td_operation ops[4], branch[2];
    unsigned count;

    chain(bed, origin_of(0), ops, 4);
    branch[0] = after(bed, &ops[0], 0, "1");
    branch[1] = after(bed, &branch[0], 0, "2");
    cover(bed, some_filter(0), &ops[2]);
    cover(bed, some_filter(0), &branch[1]); /* at the same seq: that is no more */
    OK(td_op_store_pair_heads(bed->ops, NOTES, some_filter(0), origin_of(0), found, &count));
    assert_int_equal(1, count);
    assert_head(&ops[2], &found[0]);
    for (unsigned i = 0; i < 2; i++) {
        const td_operation *op = i ? &ops[3] : &branch[1];

        heads_of[i].seq = op->seq;
        memcpy(heads_of[i].hash, op->hash, TANDEM_HASH_BYTES);
    }
    OK(td_op_store_begin(bed->ops));
    OK(td_op_store_cover(bed->ops, NOTES, some_filter(0), origin_of(0), heads_of, 2));
    OK(td_op_store_commit(bed->ops));
    cover(bed, some_filter(0), &ops[2]); /* goes back */
    OK(td_op_store_pair_heads(bed->ops, NOTES, some_filter(0), origin_of(0), found, &count));
    assert_int_equal(2, count);
    assert_head(&branch[1], &found[0]);
    assert_head(&ops[3], &found[1]);
    /* Not dropped for the seq of its highest head alone. */
    for (unsigned i = 0; i < 4; i++)
        commit(bed, &ops[i], 1);
    assert_int_equal(1, pairs(bed));
    for (unsigned i = 0; i < 2; i++)
        commit(bed, &branch[i], 1);
    assert_int_equal(0, pairs(bed));
    assert_sound(bed);
}

static void what_would_be_a_ninth_head_stays_loose(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[2], branches[TANDEM_HEADS_MAX];
    bool reaches;

    chain(bed, origin_of(0), ops, 2);
    for (unsigned i = 0; i < TANDEM_HEADS_MAX; i++)
        branches[i] = after(bed, &ops[0], 0, (const char *[]){"1", "2", "3", "4", "5", "6", "7",
                                                               "8"}[i]);
    commit_part(bed, &ops[1], 1);
    for (unsigned i = 0; i < TANDEM_HEADS_MAX; i++)
        commit_part(bed, &branches[i], 1);
    commit(bed, &ops[0], 1);
    assert_int_equal(TANDEM_HEADS_MAX, heads(bed, origin_of(0), found));
    assert_sound(bed);
    OK(td_op_store_reaches(bed->ops, NOTES, origin_of(0), 2, branches[7].hash, &reaches));
    assert_true(holds(bed, &branches[7]) && !reaches);
}

/* Of a lack of several jobs the first part was a head of its own until the rest came. */
static void what_stayed_loose_gets_the_place_of_a_head_that_goes(void **state)
{
    struct bed *bed = *state;
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[5], branches[TANDEM_HEADS_MAX - 3], root, leaves[2];
    td_lack lack;

    chain(bed, origin_of(0), ops, 5);
    commit(bed, &ops[0], 1);
    lack = lack_of(&ops[1], 3);
    OK(want(bed, origin_of(0), &lack));
    commit(bed, &ops[4], 1);
    commit(bed, &ops[1], 1);
    for (unsigned i = 0; i < TANDEM_HEADS_MAX - 3; i++) {
        branches[i] = after(bed, &ops[0], 0, (const char *[]){"1", "2", "3", "4", "5"}[i]);
        commit(bed, &branches[i], 1);
    }
    root = after(bed, &ops[0], 0, "6");
    for (unsigned i = 0; i < 2; i++) {
        leaves[i] = after(bed, &root, 0, (const char *[]){"7", "8"}[i]);
        commit_part(bed, &leaves[i], 1);
    }
    commit(bed, &root, 1); /* one leaf is the eighth head */
    assert_int_equal(TANDEM_HEADS_MAX, heads(bed, origin_of(0), found));
    assert_sound(bed);
    commit(bed, &ops[2], 1);
    commit(bed, &ops[3], 1);
    assert_int_equal(TANDEM_HEADS_MAX, heads(bed, origin_of(0), found));
    assert_sound(bed);
}

/* Heads of two branches, and what a pair keeps of such. */
static void cover_both(struct bed *bed, const td_operation *low, const td_operation *high)
{
    td_head heads[2] = {{.seq = low->seq}, {.seq = high->seq}};

    memcpy(heads[0].hash, low->hash, TANDEM_HASH_BYTES);
    memcpy(heads[1].hash, high->hash, TANDEM_HASH_BYTES);
    OK(td_op_store_begin(bed->ops));
    OK(td_op_store_cover(bed->ops, NOTES, some_filter(0), high->origin, heads, 2));
    OK(td_op_store_commit(bed->ops));
}

static void a_pair_goes_on_along_its_lower_branch(void **state)
{
    struct bed *bed = *state;
    td_operation ops[6], branch[3];
    td_head found[TANDEM_HEADS_MAX];
    unsigned count;

    chain(bed, origin_of(0), ops, 6);
    branch[0] = after(bed, &ops[0], 0, "1");
    branch[1] = after(bed, &branch[0], 0, "2");
    branch[2] = after(bed, &branch[1], 0, "3");
    cover_both(bed, &branch[0], &ops[5]);
    cover_both(bed, &branch[2], &ops[5]);
    cover_both(bed, &branch[1], &ops[5]); /* never back */
    OK(td_op_store_pair_heads(bed->ops, NOTES, some_filter(0), origin_of(0), found, &count));
    assert_int_equal(2, count);
    assert_head(&branch[2], &found[0]);
    assert_head(&ops[5], &found[1]);
}

static void pairs_are_bounded(void **state)
{
    struct bed *bed = *state;
    td_operation ops[3];
    uint64_t seq;

    chain(bed, origin_of(0), ops, 3);
    for (unsigned n = 4; n < 4 + TD_PAIRS_MAX; n++)
        cover(bed, some_filter(n), &ops[1]);
    cover(bed, some_filter(4), &ops[2]); /* not the oldest any more */
    cover(bed, some_filter(0), &ops[1]);
    assert_int_equal(TD_PAIRS_MAX, pairs(bed));
    assert_int_equal(1, covered(bed, some_filter(4), origin_of(0), &seq));
    assert_int_equal(0, covered(bed, some_filter(5), origin_of(0), &seq));
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_INVALID,
                     td_op_store_cover(bed->ops, NOTES, B("\xc0"), origin_of(0), NULL, 0));
    td_op_store_abort(bed->ops);
    assert_sound(bed);
}

/* One lack stands before another, and its record cannot be read: what is behind both has no place. */
static void behind_a_damaged_lack_nothing_is_taken(void **state)
{
    struct bed *bed = *state;
    uint8_t key[TD_LACK_KEY_BYTES], value[256];
    td_head found[TANDEM_HEADS_MAX];
    td_operation ops[4];
    td_lack lack;
    size_t size;

    chain(bed, origin_of(0), ops, 4);
    commit(bed, &ops[0], 1);
    refuse(bed, &ops[1], 1);
    refuse(bed, &ops[2], 1);
    lack = lack_of(&ops[1], 1);
    td_lack_key(key, 1, origin_of(0), &lack);
    size = raw_get(bed, TD_TABLE_LACKS, tandem_slice_of(key, sizeof(key)), value, sizeof(value));
    value[size - 1] ^= 1;
    raw_put(bed, TD_TABLE_LACKS, tandem_slice_of(key, sizeof(key)), tandem_slice_of(value, size));
    OK(td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_E_CORRUPT, append_err(bed, &ops[3], 1));
    OK(td_op_store_commit(bed->ops));
    assert_int_equal(1, heads(bed, origin_of(0), found));
    assert_head(&ops[0], &found[0]);
    value[size - 1] ^= 1;
    raw_put(bed, TD_TABLE_LACKS, tandem_slice_of(key, sizeof(key)), tandem_slice_of(value, size));
    commit(bed, &ops[3], 1);
    assert_sound(bed);
}

/* Behind a head nothing is looked up, so a damaged run elsewhere in a forked chain with gaps stops nobody. */
static void a_damaged_run_does_not_stop_what_follows_a_head(void **state)
{
    struct bed *bed = *state;
    uint8_t key[TD_RUN_KEY_BYTES];
    td_operation ops[6], fork;

    chain(bed, origin_of(0), ops, 6);
    fork = after(bed, &ops[0], 0, "fork");
    commit(bed, &ops[0], 1);
    commit(bed, &fork, 1);
    refuse(bed, &ops[1], 1);
    for (unsigned i = 2; i < 5; i++)
        commit(bed, &ops[i], 1);
    td_run_key(key, 1, origin_of(0), 1, 1);
    raw_put(bed, TD_TABLE_GROUPS, tandem_slice_of(key, sizeof(key)), B("0123456789abcdef"));
    assert_int_equal(1, commit(bed, &ops[5], 1).appended);
    assert_true(holds(bed, &ops[5]));
}

static void verify_notices_damaged_lacks(void **state)
{
    struct bed *bed = *state;
    uint8_t key[TD_LACK_KEY_BYTES], value[256];
    struct reports reports;
    td_operation ops[3];
    td_lack lack;
    size_t size;

    chain(bed, origin_of(0), ops, 3);
    commit(bed, &ops[0], 1);
    refuse(bed, &ops[1], 1);
    commit(bed, &ops[2], 1);
    lack = lack_of(&ops[1], 1);
    td_lack_key(key, 1, origin_of(0), &lack);
    size = raw_get(bed, TD_TABLE_LACKS, tandem_slice_of(key, sizeof(key)), value, sizeof(value));
    raw_del(bed, TD_TABLE_LACKS, tandem_slice_of(key, sizeof(key)));
    reports = verify(bed);
    assert_says(&reports, "its predecessor is neither held nor lacking");
    value[size - 1] ^= 1;
    raw_put(bed, TD_TABLE_LACKS, tandem_slice_of(key, sizeof(key)), tandem_slice_of(value, size));
    reports = verify(bed);
    assert_says(&reports, "lacks table");
}

/*
 * Random histories: a chain with forks, jobs of one to three operations, each job refused, wanted,
 * taken, or taken through a filter, in an order that is drawn. In the end everything is offered until it is held, and the heads are
 * those of a store that got everything in order.
 */
enum { HISTORY_JOBS = 40 };

struct history {
    struct {
        td_operation ops[3];
        size_t count;
    } jobs[HISTORY_JOBS];
    unsigned count;
};

static void history_draw(struct bed *bed, uint64_t *random, struct history *history)
{
    for (unsigned i = 0; i < HISTORY_JOBS; i++) {
        const td_operation *before = NULL;

        history->jobs[i].count = 1 + draw(random) % 3;
        if (i) {
            /* Mostly behind the last one. */
            unsigned k = draw(random) % 12 ? i - 1 : (unsigned)(draw(random) % i);

            before = &history->jobs[k].ops[history->jobs[k].count - 1];
        }
        for (size_t n = 0; n < history->jobs[i].count; n++) {
            uint64_t flags = n + 1 < history->jobs[i].count ? TD_FLAG_CONTINUES : 0;
            char payload[24];

            snprintf(payload, sizeof(payload), "%u.%zu", i, n);
            history->jobs[i].ops[n] = before ? after(bed, before, flags, payload)
                                             : first_of(bed, "notes", origin_of(0), flags, payload);
            before = &history->jobs[i].ops[n];
        }
    }
    history->count = HISTORY_JOBS;
}

enum { THROUGH_FILTER, TAKE, WANT, REFUSE };

/* Of what is done with jobs that from one to another. */
static void one_history(uint64_t seed, unsigned from, unsigned to)
{
    struct bed *bed, *straight;
    struct history *history = calloc(1, sizeof(*history));
    td_head expected[TANDEM_HEADS_MAX], found[TANDEM_HEADS_MAX];
    uint8_t digest[TANDEM_HASH_BYTES], whole[TANDEM_HASH_BYTES];
    unsigned count = 0, rounds = 0;
    bool quarantined = false, all;

    assert_non_null(history);
    bed_make((void **)&bed);
    bed_make((void **)&straight);
    history_draw(straight, &seed, history);
    for (unsigned i = 0; i < history->count && !quarantined; i++) {
        td_append_result result;

        OK(td_op_store_begin(straight->ops));
        quarantined = td_op_store_append(straight->ops, history->jobs[i].ops,
                                         history->jobs[i].count, &result) == TANDEM_E_QUARANTINED;
        OK(td_op_store_commit(straight->ops));
    }
    if (quarantined)
        goto out; /* which heads are kept then is a matter of arrival */
    for (unsigned step = 0; step < 150; step++) {
        unsigned i = (unsigned)(draw(&seed) % (history->count < step ? history->count : step / 2 + 1));
        td_operation *job;
        size_t size;
        tandem_err err;

        i = i < history->count ? i : history->count - 1;
        job = history->jobs[i].ops;
        size = history->jobs[i].count;
        if (step % 3 == 0)
            OK(td_op_store_begin(bed->ops));
        switch (from + draw(&seed) % (to - from + 1)) {
        case REFUSE:
            err = td_op_store_refuse(bed->ops, job, size, TANDEM_E_REFUSED);
            break;
        case WANT: {
            td_lack lack = lack_of(job, size);

            err = td_op_store_want(bed->ops, NOTES, origin_of(0), &lack);
            break;
        }
        case THROUGH_FILTER:
            err = append_part_err(bed, job, size);
            break;
        default:
            err = append_err(bed, job, size);
        }
        assert_true(err == TANDEM_OK || err == TANDEM_E_PREDECESSOR || err == TANDEM_E_REFUSED);
        if (step % 3 == 2) {
            if (draw(&seed) % 8)
                OK(td_op_store_commit(bed->ops));
            else
                td_op_store_abort(bed->ops);
            assert_sound(bed);
        }
    }
    do {
        all = true;
        for (unsigned i = 0; i < history->count; i++) {
            OK(td_op_store_begin(bed->ops));
            all = append_err(bed, history->jobs[i].ops, history->jobs[i].count) == TANDEM_OK && all;
            OK(td_op_store_commit(bed->ops));
        }
    } while (!all && ++rounds < HISTORY_JOBS);
    assert_true(all);
    assert_sound(bed);
    count = heads(straight, origin_of(0), expected);
    assert_int_equal(count, heads(bed, origin_of(0), found));
    assert_memory_equal(expected, found, count * sizeof(found[0]));
    assert_int_equal(0, lacks(bed, NULL).count);
    assert_int_equal(0, td_op_store_lack_count(bed->ops));
    OK(td_op_store_vector_digest(bed->ops, NOTES, digest));
    OK(td_op_store_vector_digest(straight->ops, NOTES, whole));
    assert_memory_equal(whole, digest, sizeof(digest));

out:
    bed_unmake((void **)&straight);
    bed_unmake((void **)&bed);
    free(history);
}

static void histories(unsigned from, unsigned to)
{
    for (uint64_t seed = 1; seed <= (on_lmdb ? 10 : 200); seed++)
        one_history(seed, from, to);
}

static void random_histories_with_gaps_end_whole(void **state)
{
    (void)state;
    histories(TAKE, REFUSE);
}

static void random_histories_in_part_end_whole(void **state)
{
    (void)state;
    histories(THROUGH_FILTER, TAKE);
}

static void random_histories_in_part_with_gaps_end_whole(void **state)
{
    (void)state;
    histories(THROUGH_FILTER, REFUSE);
}

#define ON_BED(test) cmocka_unit_test_setup_teardown(test, bed_make, bed_unmake)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        ON_BED(what_is_refused_leaves_a_gap_and_the_chain_goes_on),
        ON_BED(what_is_offered_again_fills_the_gap),
        ON_BED(a_gap_of_several_jobs_goes_with_the_last),
        ON_BED(the_first_of_all_may_be_lacking),
        ON_BED(what_follows_nothing_known_is_no_lack),
        ON_BED(a_fork_beside_a_gap_is_kept),
        ON_BED(a_gap_may_end_inside_a_job),
        ON_BED(refusals_are_withdrawn_and_counted),
        ON_BED(what_was_refused_in_the_same_group_is_withdrawn),
        ON_BED(lacks_are_bounded),
        ON_BED(what_an_origin_reached_is_told_in_spite_of_gaps),
        ON_BED(what_is_loose_was_not_reached),
        ON_BED(what_comes_through_a_filter_is_held_loose),
        ON_BED(the_missing_may_come_behind_what_is_loose),
        ON_BED(a_loose_branch_gets_a_head_of_its_own),
        ON_BED(a_fork_inside_a_loose_job_is_loose),
        ON_BED(a_job_of_which_the_end_is_loose_is_no_job),
        ON_BED(a_job_of_which_the_end_is_a_head_is_no_job),
        ON_BED(a_job_in_many_runs_is_held),
        ON_BED(a_lack_before_loose_branches_makes_a_fork),
        ON_BED(what_ends_a_lack_follows_what_is_before),
        ON_BED(a_pair_covers_the_branches_that_it_was_told_of),
        ON_BED(what_would_be_a_ninth_head_stays_loose),
        ON_BED(what_stayed_loose_gets_the_place_of_a_head_that_goes),
        ON_BED(a_pair_goes_on_along_its_lower_branch),
        ON_BED(pairs_are_bounded),
        ON_BED(behind_a_damaged_lack_nothing_is_taken),
        ON_BED(a_damaged_run_does_not_stop_what_follows_a_head),
        ON_BED(verify_notices_damaged_lacks),
        cmocka_unit_test(random_histories_with_gaps_end_whole),
        cmocka_unit_test(random_histories_in_part_end_whole),
        cmocka_unit_test(random_histories_in_part_with_gaps_end_whole),
    };
    char group[64];

    if (argc != 2 || (strcmp(argv[1], "lmdb") && strcmp(argv[1], "memory")) || sodium_init() < 0) {
        fprintf(stderr, "usage: %s lmdb|memory\n", argv[0]);
        return 2;
    }
    on_lmdb = strcmp(argv[1], "lmdb") == 0;
    snprintf(group, sizeof(group), "lacks %s", argv[1]);
    return cmocka_run_group_tests_name(group, tests, NULL, NULL);
}
