#include "sync/fresh.h"

#include <stdlib.h>

struct td_fresh_operation {
    uint64_t ordinal;
    td_operation operation; /* of the bytes */
    uint8_t *bytes;
};

static void forget(td_fresh *fresh, uint64_t position)
{
    for (size_t i = 0; i < fresh->count; i++)
        free(fresh->operations[i].bytes);
    fresh->count = fresh->bytes = 0;
    fresh->after = fresh->through = position;
}

void td_fresh_release(td_fresh *fresh)
{
    forget(fresh, 0);
    free(fresh->operations);
    *fresh = (td_fresh){0};
}

/* ---- Keeping ---- */

/* Take the oldest out until so many more operations fit. */
static void make_room(td_fresh *fresh, size_t operations)
{
    size_t gone = 0;

    while (gone < fresh->count && (fresh->count - gone + operations > TD_FRESH_OPERATIONS_MAX ||
                                    fresh->bytes > TD_FRESH_BYTES_MAX)) {
        fresh->bytes -= fresh->operations[gone].operation.canonical.size;
        fresh->after = fresh->operations[gone].ordinal;
        free(fresh->operations[gone++].bytes);
    }
    if (!gone)
        return;
    fresh->count -= gone;
    memmove(fresh->operations, fresh->operations + gone,
            fresh->count * sizeof(*fresh->operations));
}

void td_fresh_begin(td_fresh *fresh, uint64_t seen, uint64_t position)
{
    if (position - seen > TD_FRESH_OPERATIONS_MAX)
        forget(fresh, position);
    else if (fresh->through != seen)
        forget(fresh, seen);
    else
        make_room(fresh, position - seen);
    fresh->seen = seen;
    fresh->through = position;
}

static bool grow(td_fresh *fresh)
{
    size_t capacity = fresh->capacity ? fresh->capacity * 2 : 64;
    void *grown = realloc(fresh->operations, capacity * sizeof(*fresh->operations));

    if (!grown)
        return false;
    fresh->operations = grown;
    fresh->capacity = capacity;
    return true;
}

static tandem_err keep(void *context, tandem_err err, uint64_t ordinal,
                       const td_operation *operation)
{
    td_fresh *fresh = context;
    td_fresh_operation *kept;

    if (err != TANDEM_OK)
        return err;
    if (ordinal > fresh->through)
        return TANDEM_END; /* later than what is looked at: of other collections it is not read */
    if (fresh->count == fresh->capacity && !grow(fresh))
        return TANDEM_E_NOMEM;
    kept = &fresh->operations[fresh->count];
    if (!(kept->bytes = malloc(operation->canonical.size)))
        return TANDEM_E_NOMEM;
    memcpy(kept->bytes, operation->canonical.bytes, operation->canonical.size);
    kept->ordinal = ordinal;
    err = td_operation_parse(tandem_slice_of(kept->bytes, operation->canonical.size),
                             &kept->operation);
    if (err != TANDEM_OK) {
        free(kept->bytes);
        return err;
    }
    memcpy(kept->operation.hash, operation->hash, sizeof(kept->operation.hash));
    fresh->count++;
    fresh->bytes += operation->canonical.size;
    return TANDEM_OK;
}

void td_fresh_add(td_fresh *fresh, td_op_store *ops, tandem_slice collection)
{
    tandem_err err;

    if (fresh->after == fresh->through)
        return; /* it has forgotten */
    err = td_op_store_scan(ops, collection, fresh->seen, keep, fresh);
    if (err != TANDEM_OK && err != TANDEM_END)
        forget(fresh, fresh->through);
}

static int by_ordinal(const void *a, const void *b)
{
    uint64_t first = ((const td_fresh_operation *)a)->ordinal;
    uint64_t second = ((const td_fresh_operation *)b)->ordinal;

    return first < second ? -1 : first > second;
}

void td_fresh_end(td_fresh *fresh)
{
    if (fresh->count)
        qsort(fresh->operations, fresh->count, sizeof(*fresh->operations), by_ordinal);
    make_room(fresh, 0);
}

/* ---- Reading ---- */

/* The first with an ordinal above this one. */
static size_t first_after(const td_fresh *fresh, uint64_t after)
{
    size_t low = 0, high = fresh->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (fresh->operations[middle].ordinal > after)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

bool td_fresh_scan(const td_fresh *fresh, tandem_slice collection, uint64_t after,
                    td_visit_operation visit, void *context, tandem_err *err_out)
{
    tandem_err err = TANDEM_OK;

    if (after < fresh->after || after >= fresh->through)
        return false;
    for (size_t i = first_after(fresh, after); err == TANDEM_OK && i < fresh->count; i++) {
        const td_fresh_operation *kept = &fresh->operations[i];

        if (tandem_slice_equal(kept->operation.collection, collection))
            err = visit(context, TANDEM_OK, kept->ordinal, &kept->operation);
    }
    *err_out = err;
    return true;
}
