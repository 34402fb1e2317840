/*
 * A model of an embedder that looks at the state: TICK writes down how many ticks it saw before it.
 * On one reactor, where nothing is concurrent, the nth tick must have seen n - 1.
 */
#ifndef TANDEM_TESTS_TALLY_MODEL_H
#define TANDEM_TESTS_TALLY_MODEL_H

#include <stdio.h>
#include <stdlib.h>

#include "reactor/model.h"

static tandem_err tally_open(void **state_out)
{
    *state_out = calloc(1, sizeof(uint64_t));
    return *state_out ? TANDEM_OK : TANDEM_E_NOMEM;
}

static tandem_err tally_prepare(const void *state, const tandem_intent *intent,
                                tandem_writer *payload, char why[128])
{
    if (!tandem_slice_equal(intent->verb, tandem_slice_text("TICK"))) {
        snprintf(why, 128, "tally takes TICK");
        return TANDEM_E_INPUT;
    }
    tandem_write_uint(payload, *(const uint64_t *)state);
    return tandem_writer_err(payload);
}

static tandem_err tally_apply(void *state, const tandem_change *change)
{
    ++*(uint64_t *)state;
    return TANDEM_OK;
}

static tandem_err tally_save(const void *state, tandem_writer *out)
{
    tandem_write_uint(out, *(const uint64_t *)state);
    return tandem_writer_err(out);
}

static tandem_err tally_restore(tandem_slice snapshot, void **state_out)
{
    tandem_reader reader = tandem_reader_of(snapshot);
    uint64_t ticks;
    tandem_err err;

    if (tandem_read_uint(&reader, &ticks) != TANDEM_OK)
        return TANDEM_E_CORRUPT;
    if ((err = tally_open(state_out)) == TANDEM_OK)
        *(uint64_t *)*state_out = ticks;
    return err;
}

static const tandem_model tally_model = {
    .size = sizeof(tandem_model),
    .name = "tally",
    .version = 1,
    .prepare_reads_state = true,
    .state_open = tally_open,
    .state_free = free,
    .prepare = tally_prepare,
    .apply = tally_apply,
    .show = tally_save,
    .save = tally_save,
    .restore = tally_restore,
};

static const tandem_model *const tally_models[] = {&tally_model};

#endif
