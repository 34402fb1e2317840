/*
 * Taking jobs: where one stands in its chain, the heads and runs that it makes longer, the lacks that it
 * fills or stands behind, and what was loose until it came.
 */
#include <assert.h>
#include <stdlib.h>

#include "store/op_group.h"
#include "store/planted.h"
#include "store/probe.h"

/* ---- Heads and runs ---- */

static int run_compare(const td_run *x, const td_run *y)
{
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->ordinal < y->ordinal ? -1 : x->ordinal > y->ordinal;
}

/* The last operation of what was taken, or is loose no more, becomes a head, unless what follows it is
 * held. */
static void head_move(td_vector_record *vector, const td_place *place, const td_operation *last)
{
    int head = place->head;
    td_head *to;

    if (place->is_loose)
        return;
    if (place->is_inside) {
        if (head >= 0)
            vector->heads[head] = vector->heads[--vector->count];
    } else {
        if (head < 0 && vector->count && td_planted(TD_PLANTED_HEAD_LOST))
            head = 0;
        to = &vector->heads[head >= 0 ? (unsigned)head : vector->count++];
        to->seq = last->seq;
        memcpy(to->hash, last->hash, TANDEM_HASH_BYTES);
    }
    if (vector->count > 1)
        qsort(vector->heads, vector->count, sizeof(vector->heads[0]), td_head_compare);
}

/* Lengthen the open run that the operations follow, or begin one. What follows a loose one is loose. */
static tandem_err run_extend(td_op_store *ops, td_open_origin *origin, const td_operation *first,
                             uint64_t ordinal, const td_operation *last, bool loose)
{
    struct td_open_run *run = NULL;
    tandem_err err;

    for (unsigned i = 0; i < origin->run_count && !run; i++)
        if (origin->runs[i].run.last + 1 == first->seq &&
            memcmp(origin->runs[i].last_hash, first->predecessor, TANDEM_HASH_BYTES) == 0)
            run = &origin->runs[i];
    if (!run && origin->run_count == TANDEM_HEADS_MAX) { /* of an origin with gaps: any number */
        run = &origin->runs[--origin->run_count];
        if ((err = td_run_put(ops->txn, origin->collection->record.id, origin->key.origin,
                              &run->run, &ops->scratch)) != TANDEM_OK)
            return err;
        run = NULL;
    }
    if (!run) {
        run = &origin->runs[origin->run_count++];
        run->run.first = first->seq;
        run->run.ordinal = ordinal;
        run->run.loose = loose;
    }
    run->run.last = last->seq;
    memcpy(run->last_hash, last->hash, TANDEM_HASH_BYTES);
    return TANDEM_OK;
}

/* ---- Lacks of the open group ---- */

static tandem_err lack_add(td_op_store *ops, td_open_origin *origin, const td_lack *lack)
{
    tandem_err err;

    if (atomic_load(&ops->lacks) + ops->group_lacks >= TD_LACKS_MAX)
        return TANDEM_E_LIMIT;
    td_group_give_id(ops, origin->collection);
    if ((err = td_lack_put(ops->txn, origin->collection->record.id, origin->key.origin, lack,
                           &ops->scratch)) != TANDEM_OK)
        return err;
    origin->vector.gaps = true;
    ops->group_lacks++;
    td_group_lacks_changed(ops, origin);
    return TANDEM_OK;
}

/* Something stands behind this lack now, and so behind those before it. */
static tandem_err lack_follow(td_op_store *ops, const td_open_origin *origin, td_lack lack)
{
    td_run open[TANDEM_HEADS_MAX];
    td_chain chain = td_group_chain(ops, origin, open);
    tandem_err err = TANDEM_OK;

    if (td_planted(TD_PLANTED_LACK_DROPPED)) {
        ops->group_lacks--;
        return td_lack_del(ops->txn, chain.id, chain.origin, &lack);
    }
    while (err == TANDEM_OK && !lack.followed) {
        lack.followed = true;
        err = td_lack_put(ops->txn, chain.id, chain.origin, &lack, &ops->scratch);
        if (err == TANDEM_OK)
            err = td_lack_find(&chain, lack.first - 1, lack.predecessor, &lack);
    }
    return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
}

/* What was taken follows a lack, or filled one. */
static tandem_err lacks_after(td_op_store *ops, td_open_origin *origin, const td_place *place)
{
    uint32_t id = origin->collection->record.id;
    tandem_err err;

    if (place->follows && (err = lack_follow(ops, origin, place->before)) != TANDEM_OK)
        return err;
    if (!place->fills)
        return TANDEM_OK;
    if ((err = td_lack_del(ops->txn, id, origin->key.origin, &place->filled)) != TANDEM_OK)
        return err;
    td_probe(ops->env, TD_PROBE_LACK_FILLED);
    ops->group_changes_lacks = true;
    ops->group_lacks--;
    return TANDEM_OK;
}

/* ---- What was loose ---- */

/* The run behind *run, of those in the table and the open ones; *open_out: which of these, or NULL. */
static tandem_err run_after(td_op_store *ops, td_open_origin *origin, td_run *run,
                            struct td_open_run **open_out)
{
    td_run after = *run;
    tandem_err err = td_run_next(ops->txn, origin->collection->record.id, origin->key.origin, &after);

    *open_out = NULL;
    if (err != TANDEM_OK && err != TANDEM_END)
        return err;
    for (unsigned i = 0; i < origin->run_count; i++) {
        struct td_open_run *open = &origin->runs[i];

        if (run_compare(&open->run, run) <= 0 ||
            (err == TANDEM_OK && run_compare(&open->run, &after) >= 0))
            continue;
        after = open->run;
        *open_out = open;
        err = TANDEM_OK;
    }
    *run = after;
    return err;
}

/* Place a loose run, if what it follows is there now; *settled. */
static tandem_err run_settle(td_op_store *ops, td_open_origin *origin, td_run *run,
                             struct td_open_run *open, bool *settled)
{
    td_run runs[TANDEM_HEADS_MAX];
    td_chain chain = td_group_chain(ops, origin, runs);
    td_operation first, last;
    td_place place;
    tandem_err err;

    *settled = false;
    if ((err = td_run_ends(ops->txn, chain.id, chain.origin, run, &first, &last)) != TANDEM_OK ||
        (err = td_run_place(&chain, &first, &place)) != TANDEM_OK || place.is_loose)
        return err;
    *settled = true;
    td_probe(ops->env, TD_PROBE_LOOSE_ABSORBED);
    run->loose = false;
    if (open)
        open->run.loose = false;
    else if ((err = td_run_put(ops->txn, chain.id, chain.origin, run, &ops->scratch)) != TANDEM_OK)
        return err;
    head_move(&origin->vector, &place, &last);
    return place.follows ? lack_follow(ops, origin, place.before) : TANDEM_OK;
}

/* From seq first to last something stands behind a head now, or is lacking: place what is loose behind
 * it, and behind that. A run begins behind what it follows, so one pass finds all. */
static tandem_err settle(td_op_store *ops, td_open_origin *origin, uint64_t first, uint64_t last)
{
    td_run run = {.first = first + 1};
    struct td_open_run *open;
    tandem_err err;

    origin->collection->may_prune = origin->collection->may_prune || origin->vector.gaps;
    if (!origin->vector.loose)
        return TANDEM_OK;
    while ((err = run_after(ops, origin, &run, &open)) == TANDEM_OK && run.first - 1 <= last) {
        bool settled = false;

        if (run.loose && (err = run_settle(ops, origin, &run, open, &settled)) != TANDEM_OK)
            return err;
        if (settled && run.last > last)
            last = run.last;
    }
    return err == TANDEM_END ? TANDEM_OK : err;
}

/* ---- Append ---- */

static tandem_err job_write(td_op_store *ops, td_open_origin *origin, const td_operation *job,
                            size_t count, const td_place *place, td_append_result *result)
{
    td_open_collection *collection = origin->collection;
    const td_operation *last = &job[count - 1];
    uint64_t first_ordinal = ops->position.ordinal + 1, from = job[0].seq, to = last->seq;
    bool was_full = origin->vector.count == TANDEM_HEADS_MAX;
    tandem_err err;

    td_group_give_id(ops, collection);
    for (size_t i = 0; i < count; i++) {
        if (i && i >= count / 2 && td_planted(TD_PLANTED_JOB_HALVED))
            break;
        err = td_operation_put(ops->txn, collection->record.id, ++ops->position.ordinal, &job[i]);
        if (err != TANDEM_OK)
            return err;
        collection->record.bytes += job[i].canonical.size;
    }
    collection->record.operations += count;
    collection->record.last_ordinal = ops->position.ordinal;
    if (place->is_loose)
        origin->vector.gaps = origin->vector.loose = true;
    if (origin->vector.gaps && !origin->vector.branched) {
        td_run open[TANDEM_HEADS_MAX];
        td_chain chain = td_group_chain(ops, origin, open);

        if (origin->vector.count > 1) /* of the branches of a fork some stand beside each other */
            origin->vector.branched = true;
        else if ((err = td_op_overlaps(ops->txn, chain.id, chain.origin, job[0].seq, last->seq,
                                       open, chain.open_count, &origin->vector.branched)) !=
                 TANDEM_OK)
            return err;
    }
    if ((err = run_extend(ops, origin, &job[0], first_ordinal, last, place->is_loose)) !=
            TANDEM_OK ||
        (err = lacks_after(ops, origin, place)) != TANDEM_OK)
        return err;
    head_move(&origin->vector, place, last);
    if (was_full && origin->vector.count < TANDEM_HEADS_MAX) {
        from = 0; /* there is room for what stayed loose for want of it, wherever that is */
        to = UINT64_MAX;
    }
    if (!place->is_loose && (err = settle(ops, origin, from, to)) != TANDEM_OK)
        return err;
    collection->dirty = origin->dirty = ops->dirty = true;
    result->first_ordinal = first_ordinal;
    result->last_ordinal = ops->position.ordinal;
    result->appended = (uint32_t)count;
    return TANDEM_OK;
}

/* Look up where a job belongs. *chain lives as long as open. */
tandem_err td_group_look(td_op_store *ops, const td_operation *job, size_t count, bool part,
                         td_open_origin **origin_out, td_run open[TANDEM_HEADS_MAX],
                         td_chain *chain, td_place *place)
{
    td_open_collection *collection;
    tandem_err err;

    if ((err = td_job_check(job, count)) != TANDEM_OK ||
        (err = td_group_collection(ops, job[0].collection, &collection)) != TANDEM_OK ||
        (err = td_group_origin(ops, collection, job[0].origin, origin_out)) != TANDEM_OK)
        return err;
    *chain = td_group_chain(ops, *origin_out, open);
    chain->part = part;
    return td_job_place(chain, job, count, place);
}

static tandem_err append_job(td_op_store *ops, const td_operation *job, size_t count, bool part,
                             td_append_result *result)
{
    td_run open[TANDEM_HEADS_MAX];
    td_open_origin *origin;
    td_chain chain;
    td_place place;
    tandem_err err;

    if ((err = td_group_look(ops, job, count, part, &origin, open, &chain, &place)) != TANDEM_OK)
        return err;
    if (td_planted(TD_PLANTED_DEDUPE_SKIPPED))
        place.held = 0;
    result->duplicates = (uint32_t)place.held;
    result->loose = place.is_loose;
    if (place.held == count) {
        td_probe(ops->env, TD_PROBE_DUPLICATE_DROPPED);
        return TANDEM_OK;
    }
    if ((err = td_place_head(&chain, &place)) != TANDEM_OK)
        return err;
    if (place.is_loose)
        td_probe(ops->env, TD_PROBE_LOOSE_TAKEN);
    result->heads_before = origin->vector.count;
    err = job_write(ops, origin, job + place.held, count - place.held, &place, result);
    result->heads = origin->vector.count;
    result->forked = result->heads > 1 && result->heads > result->heads_before;
    ops->group_forks += result->forked && result->heads_before < 2;
    if (result->forked)
        td_probe(ops->env, result->heads_before > 1 ? TD_PROBE_FORK_GREW : TD_PROBE_FORK_KEPT);
    return err;
}

static tandem_err append(td_op_store *ops, const td_operation *job, size_t count, bool part,
                         td_append_result *result)
{
    tandem_err err;

    assert(ops->txn);
    *result = (td_append_result){.appended = 0};
    if (ops->group_err != TANDEM_OK)
        return ops->group_err;
    err = append_job(ops, job, count, part, result);
    if (td_group_is_broken_by(err))
        ops->group_err = err;
    if (err != TANDEM_OK)
        *result = (td_append_result){.appended = 0};
    if (err == TANDEM_E_PREDECESSOR)
        td_probe(ops->env, TD_PROBE_PREDECESSOR_MISSING);
    if (err == TANDEM_E_QUARANTINED)
        td_probe(ops->env, TD_PROBE_HEAD_QUARANTINED);
    return err;
}

tandem_err td_op_store_append(td_op_store *ops, const td_operation *job, size_t count,
                              td_append_result *result)
{
    return append(ops, job, count, false, result);
}

tandem_err td_op_store_append_part(td_op_store *ops, const td_operation *job, size_t count,
                                   td_append_result *result)
{
    return append(ops, job, count, true, result);
}

tandem_err td_group_add_lack(td_op_store *ops, td_open_origin *origin, const td_lack *lack)
{
    unsigned before = origin->vector.count;
    tandem_err err = lack_add(ops, origin, lack);

    if (err == TANDEM_OK)
        err = settle(ops, origin, lack->last, lack->last);
    ops->group_forks += before < 2 && origin->vector.count > 1;
    return err;
}
