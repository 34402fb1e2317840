/*
 * Gathering: the operations store is scanned, in arrival order of each collection, for what is neither
 * in the tables nor waiting to be written. Nothing is written here.
 */
#include <assert.h>
#include <string.h>

#include "store/stream_state.h"

enum { TARGETS_MAX = 64 }; /* collections that one call looks at */

/* A collection that lags. */
struct target {
    td_index_collection *collection;
    uint64_t last;
};

struct gathering {
    td_stream_index *index;
    struct target targets[TARGETS_MAX];
    unsigned target_count;
    uint64_t beyond; /* the least progress of those that found no room in targets */

    td_index_collection *collection; /* that is being scanned */
    uint32_t count, max;
};

/* Keep the collections that lag most, in order of their progress: nearly the order of ordinals. */
static tandem_err survey(void *context, const td_collection_info *info)
{
    struct gathering *g = context;
    td_index_collection *c = td_index_collection_find(g->index, info->name);
    tandem_err err;
    unsigned at;

    if (!c) {
        err = td_index_collection_add(g->index, info->name, g->index->next_collection, &c);
        if (err)
            return err;
        g->index->next_collection++;
    }
    if (info->last_ordinal <= c->progress)
        return TANDEM_OK;
    for (at = g->target_count; at > 0; at--)
        if (g->targets[at - 1].collection->progress <= c->progress)
            break;
    if (g->target_count == TARGETS_MAX) {
        const td_index_collection *out =
            at == TARGETS_MAX ? c : g->targets[TARGETS_MAX - 1].collection;

        if (out->progress < g->beyond)
            g->beyond = out->progress;
        if (out == c)
            return TANDEM_OK;
        g->target_count--;
    }
    memmove(&g->targets[at + 1], &g->targets[at], (g->target_count - at) * sizeof(g->targets[0]));
    g->targets[at] = (struct target){c, info->last_ordinal};
    g->target_count++;
    return TANDEM_OK;
}

static void pass_over(struct gathering *g, td_index_collection *c, uint64_t ordinal,
                      uint64_t records)
{
    if (c->corrupt == 0)
        c->corrupt_first = ordinal;
    c->corrupt += records;
    g->index->corrupt += records;
    c->unsaved = g->index->unsaved = true;
}

static tandem_err gather(void *context, tandem_err err, uint64_t ordinal,
                         const td_operation *operation)
{
    struct gathering *g = context;
    td_index_collection *c = g->collection;

    if (g->count == g->max)
        return TANDEM_END;
    if (err) {
        pass_over(g, c, ordinal, 1);
    } else {
        if ((err = td_pending_add(&g->index->pending, c, operation, ordinal)) != TANDEM_OK)
            return err;
        c->entries++;
        g->index->indexed++;
    }
    g->count++;
    c->progress = ordinal;
    c->unsaved = g->index->unsaved = true;
    return TANDEM_OK;
}

/*
 * The scan came to the collection's end. Are records gone that the collection counts? verify tells
 * which. What arrived meanwhile leaves the question to the next call.
 */
static tandem_err count_gone(struct gathering *g, const struct target *target, uint64_t before)
{
    td_index_collection *c = target->collection;
    td_collection_info info;
    uint64_t known = c->entries + c->corrupt;
    tandem_err err = td_op_store_collection(g->index->ops, tandem_slice_of(c->name, c->size),
                                            &info);

    if (err)
        return err;
    if (c->progress < target->last) {
        c->progress = target->last;
        c->unsaved = g->index->unsaved = true;
    }
    if (info.last_ordinal == c->progress && info.operations > known)
        pass_over(g, c, before + 1, info.operations - known);
    return TANDEM_OK;
}

/* Scan until the budget is spent. lowest_out: everything up to there is gathered. */
static tandem_err gather_all(struct gathering *g, uint64_t *lowest_out)
{
    uint64_t lowest = g->beyond;

    for (unsigned i = 0; i < g->target_count; i++) {
        td_index_collection *c = g->targets[i].collection;
        uint64_t before = c->progress;
        tandem_err err;

        g->collection = c;
        err = td_op_store_scan(g->index->ops, tandem_slice_of(c->name, c->size), before, gather, g);
        if (err < TANDEM_OK)
            return err;
        if (err == TANDEM_OK && (err = count_gone(g, &g->targets[i], before)) != TANDEM_OK)
            return err;
        if (err == TANDEM_END && c->progress < lowest)
            lowest = c->progress;
    }
    *lowest_out = lowest;
    return TANDEM_OK;
}

tandem_err td_stream_index_advance(td_stream_index *index, uint32_t operations_max,
                                   uint64_t *position_out, bool *current_out)
{
    struct gathering g = {.index = index, .beyond = UINT64_MAX, .max = operations_max};
    uint64_t last, position, lowest = UINT64_MAX;
    tandem_err err;

    assert(operations_max >= 1);
    if (index->failed)
        return index->failed;
    /* First: what is committed from here on may or may not be gathered. */
    if ((err = td_op_store_last_ordinal(index->ops, &last)) != TANDEM_OK ||
        (err = td_op_store_collections(index->ops, tandem_slice_of(NULL, 0), survey, &g)) !=
            TANDEM_OK ||
        (err = gather_all(&g, &lowest)) != TANDEM_OK)
        return err;
    position = lowest < last ? lowest : last;
    if (position > index->position) {
        index->position = position;
        index->unsaved = true;
    }
    *position_out = index->position;
    *current_out = lowest == UINT64_MAX;
    return TANDEM_OK;
}
