/*
 * Pairs: up to where all that matches a filter is held, as peers tell it; and those that are needed no
 * more, since what stands without gaps reaches as far.
 */
#include <assert.h>
#include <stdlib.h>

#include "store/filter.h"
#include "store/op_group.h"
#include "store/op_pairs.h"
#include "store/probe.h"

struct oldest_pair {
    unsigned count;
    uint64_t ordinal;
    bool is_there;
    tandem_slice filter; /* the one that is looked for */
    uint8_t *bytes;      /* of the oldest: TD_FILTER_BYTES_MAX */
    size_t size;
};

static tandem_err look_at_pair(void *context, tandem_slice filter, uint64_t ordinal)
{
    struct oldest_pair *oldest = context;

    oldest->count++;
    oldest->is_there = oldest->is_there || tandem_slice_equal(filter, oldest->filter);
    if (filter.size > TD_FILTER_BYTES_MAX)
        return TANDEM_E_CORRUPT;
    if (!oldest->size || ordinal < oldest->ordinal) {
        memcpy(oldest->bytes, filter.bytes, filter.size);
        oldest->size = filter.size;
        oldest->ordinal = ordinal;
    }
    return TANDEM_OK;
}

/* A new pair may need another one's place. */
static tandem_err pair_make_room(td_op_store *ops, uint32_t id, tandem_slice filter)
{
    struct oldest_pair oldest = {.filter = filter, .bytes = malloc(TD_FILTER_BYTES_MAX)};
    tandem_err err;

    if (!oldest.bytes)
        return TANDEM_E_NOMEM;
    err = td_pairs_each(ops->txn, id, look_at_pair, &oldest);
    if (err == TANDEM_OK && !oldest.is_there && oldest.count >= TD_PAIRS_MAX)
        err = td_pair_del(ops->txn, id, tandem_slice_of(oldest.bytes, oldest.size));
    free(oldest.bytes);
    return err;
}

/* Put heads in the place of those that are covered. Who tells of fewer does not know the lowest
 * branches: those stay. */
static unsigned heads_join(td_head covered[TANDEM_HEADS_MAX], unsigned covered_count,
                           const td_head *heads, unsigned count)
{
    unsigned stay = covered_count > count ? covered_count - count : 0, kept = 0;

    for (unsigned i = 0; i < stay; i++) {
        bool known = false;

        for (unsigned k = 0; k < count; k++)
            known = known || td_head_compare(&covered[i], &heads[k]) == 0;
        if (!known)
            covered[kept++] = covered[i];
    }
    memcpy(&covered[kept], heads, count * sizeof(heads[0]));
    qsort(covered, kept + count, sizeof(covered[0]), td_head_compare);
    return kept + count;
}

/* Does who tells of these heads know more than is covered? From the highest branch down: none of them
 * goes back. */
static bool goes_on(const td_head *covered, unsigned covered_count, const td_head *heads,
                    unsigned count)
{
    if (count > covered_count)
        return true;
    covered += covered_count - count;
    while (count-- > 0)
        if (heads[count].seq != covered[count].seq)
            return heads[count].seq > covered[count].seq;
    return false;
}

static tandem_err cover(td_op_store *ops, tandem_slice name, tandem_slice filter,
                        const uint8_t *origin_id, const td_head *heads, unsigned count)
{
    td_head covered[TANDEM_HEADS_MAX];
    td_open_collection *collection;
    td_open_origin *origin;
    unsigned covered_count;
    uint32_t id;
    tandem_err err;

    if ((err = td_group_collection(ops, name, &collection)) != TANDEM_OK ||
        (err = td_group_origin(ops, collection, origin_id, &origin)) != TANDEM_OK)
        return err;
    td_group_give_id(ops, collection);
    id = collection->record.id;
    if ((err = td_pair_get(ops->txn, id, filter, origin_id, covered, &covered_count)) != TANDEM_OK)
        return err;
    if (!goes_on(covered, covered_count, heads, count))
        return TANDEM_OK;
    covered_count = heads_join(covered, covered_count, heads, count);
    origin->vector.gaps = true; /* what does not match may come later, in any order */
    td_group_lacks_changed(ops, origin);
    collection->may_prune = true;
    td_probe(ops->env, TD_PROBE_PAIR_MOVED);
    if ((err = pair_make_room(ops, id, filter)) != TANDEM_OK ||
        (err = td_pair_put(ops->txn, id, filter, ops->position.ordinal, &ops->scratch)) !=
            TANDEM_OK)
        return err;
    return td_pair_put_heads(ops->txn, id, filter, origin_id, covered, covered_count,
                             &ops->scratch);
}

tandem_err td_op_store_cover(td_op_store *ops, tandem_slice collection, tandem_slice filter,
                             const uint8_t *origin, const td_head *heads, unsigned count)
{
    tandem_err err;

    assert(ops->txn);
    if (ops->group_err != TANDEM_OK)
        return ops->group_err;
    if (!td_collection_name_valid(collection) || count < 1 || count > TANDEM_HEADS_MAX ||
        filter.size > TD_FILTER_BYTES_MAX || td_filter_check(filter) != TANDEM_OK)
        return TANDEM_E_INVALID;
    err = cover(ops, collection, filter, origin, heads, count);
    if (td_group_is_broken_by(err))
        ops->group_err = err;
    return err;
}

struct pruning {
    td_op_store *ops;
    td_open_collection *collection;
    bool is_held;
    tandem_writer filters; /* of pairs to be dropped, each behind its size */
};

/* Is all that the pair covers of this origin held without a gap? */
static tandem_err is_origin_held(void *context, const uint8_t *origin_id, const td_head *heads,
                                 unsigned count)
{
    struct pruning *pruning = context;
    td_run open[TANDEM_HEADS_MAX];
    td_open_origin *origin;
    td_chain chain;
    tandem_err err;

    err = td_group_origin(pruning->ops, pruning->collection, origin_id, &origin);
    if (err != TANDEM_OK)
        return err;
    chain = td_group_chain(pruning->ops, origin, open);
    for (unsigned i = 0; i < count; i++) {
        err = td_chain_reaches(&chain, heads[i].seq, heads[i].hash, pruning->collection->name);
        if (err != TANDEM_OK) {
            pruning->is_held = false;
            return err == TANDEM_E_PREDECESSOR ? TANDEM_END : err;
        }
    }
    return TANDEM_OK;
}

static tandem_err look_whether_needed(void *context, tandem_slice filter, uint64_t ordinal)
{
    struct pruning *pruning = context;
    uint8_t size[4];
    tandem_err err;

    (void)ordinal;
    pruning->is_held = true;
    err = td_pair_vector(pruning->ops->txn, pruning->collection->record.id, filter, NULL,
                         is_origin_held, pruning);
    if (err != TANDEM_OK && err != TANDEM_END)
        return err;
    if (!pruning->is_held)
        return TANDEM_OK;
    td_put_u32(size, (uint32_t)filter.size);
    tandem_write_raw(&pruning->filters, tandem_slice_of(size, sizeof(size)));
    tandem_write_raw(&pruning->filters, filter);
    return tandem_writer_err(&pruning->filters);
}

/* Drop the pairs that cover nothing but what heads vouch for. */
tandem_err td_pairs_prune(td_op_store *ops, td_open_collection *collection)
{
    struct pruning pruning = {.ops = ops, .collection = collection};
    tandem_err err;

    tandem_writer_init(&pruning.filters);
    err = td_pairs_each(ops->txn, collection->record.id, look_whether_needed, &pruning);
    for (size_t at = 0; err == TANDEM_OK && at < pruning.filters.size;) {
        uint32_t size = td_get_u32(pruning.filters.bytes + at);

        err = td_pair_del(ops->txn, collection->record.id,
                          tandem_slice_of(pruning.filters.bytes + at + 4, size));
        ops->group_changes_lacks = true;
        at += 4 + size;
    }
    tandem_writer_release(&pruning.filters);
    return err;
}
