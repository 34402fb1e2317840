/*
 * counter: one integer of 64 bits, and ADD.
 *
 * What would overflow at its place in the order is a no-op there, not a wrapped or a clamped sum:
 * the same everywhere, and nobody's addition is lost but the one that could not be. prepare does
 * not look: whether a sum overflows is decided by an order that is not known yet.
 */
#include "reactor/model.h"

#include <stdio.h>
#include <stdlib.h>

static tandem_err counter_open(void **state_out)
{
    int64_t *counter = calloc(1, sizeof(*counter));

    if (!counter)
        return TANDEM_E_NOMEM;
    *state_out = counter;
    return TANDEM_OK;
}

static void counter_free(void *state)
{
    free(state);
}

static bool verb_is_add(tandem_slice verb)
{
    return tandem_slice_equal(verb, tandem_slice_text("ADD"));
}

/* Read bytes that are one integer of 64 bits and nothing else. */
static bool read_whole_int(tandem_slice bytes, int64_t *out)
{
    tandem_reader reader = tandem_reader_of(bytes);

    return tandem_read_int(&reader, out) == TANDEM_OK && tandem_reader_left(&reader) == 0;
}

static tandem_err counter_prepare(const void *state, const tandem_intent *intent,
                                  tandem_writer *payload, char why[128])
{
    tandem_slice verb = intent->verb, input = intent->input;
    tandem_reader reader = tandem_reader_of(input);
    tandem_item item;
    int64_t amount;

    if (!verb_is_add(verb)) {
        snprintf(why, 128, "counter has no such operation; it takes ADD");
        return TANDEM_E_INPUT;
    }
    if (read_whole_int(input, &amount)) {
        tandem_write_int(payload, amount);
        return tandem_writer_err(payload);
    }
    if (tandem_read(&reader, &item) != TANDEM_OK || tandem_reader_left(&reader))
        snprintf(why, 128, "counter.ADD takes one integer");
    else if (item.kind == TANDEM_UINT)
        snprintf(why, 128, "counter.ADD takes an integer up to %lld, not %llu",
                 (long long)INT64_MAX, (unsigned long long)item.uint);
    else
        snprintf(why, 128, "counter.ADD takes an integer, not %s", tandem_kind_text(item.kind));
    return TANDEM_E_INPUT;
}

static tandem_err counter_apply(void *state, const tandem_change *change)
{
    int64_t *counter = state;
    int64_t amount, sum;

    if (!verb_is_add(change->verb) || !read_whole_int(change->payload, &amount))
        return TANDEM_E_INPUT;
    if (__builtin_add_overflow(*counter, amount, &sum))
        return TANDEM_E_INPUT;
    *counter = sum;
    return TANDEM_OK;
}

static tandem_err counter_show(const void *state, tandem_writer *out)
{
    const int64_t *counter = state;

    tandem_write_int(out, *counter);
    return tandem_writer_err(out);
}

static tandem_err counter_restore(tandem_slice snapshot, void **state_out)
{
    tandem_writer again;
    int64_t value;
    tandem_err err;

    if (!read_whole_int(snapshot, &value))
        return TANDEM_E_CORRUPT;
    /* save writes the shortest form; what is not in it was damaged. */
    tandem_writer_init(&again);
    tandem_write_int(&again, value);
    err = tandem_writer_err(&again);
    if (err == TANDEM_OK && !tandem_slice_equal(tandem_writer_slice(&again), snapshot))
        err = TANDEM_E_CORRUPT;
    tandem_writer_release(&again);
    if (err == TANDEM_OK)
        err = counter_open(state_out);
    if (err == TANDEM_OK)
        *(int64_t *)*state_out = value;
    return err;
}

const tandem_model tandem_model_counter = {
    .size = sizeof(tandem_model),
    .name = "counter",
    .version = 1,
    .prepare_reads_state = false,
    .state_open = counter_open,
    .state_free = counter_free,
    .prepare = counter_prepare,
    .apply = counter_apply,
    .show = counter_show,
    .save = counter_show,
    .restore = counter_restore,
};
