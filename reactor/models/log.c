/*
 * log: an array that values are appended to, in the total order.
 *
 * The state is one growing buffer of the items' canonical bytes, and their count: appending costs
 * the item, showing costs a header and a copy.
 */
#include "reactor/model.h"

#include <stdio.h>
#include <stdlib.h>

struct log_state {
    tandem_writer items;
    uint32_t count;
};

static tandem_err log_open(void **state_out)
{
    struct log_state *list = calloc(1, sizeof(*list));

    if (!list)
        return TANDEM_E_NOMEM;
    tandem_writer_init(&list->items);
    *state_out = list;
    return TANDEM_OK;
}

static void log_free(void *state)
{
    struct log_state *list = state;

    if (!list)
        return;
    tandem_writer_release(&list->items);
    free(list);
}

static bool verb_is_append(tandem_slice verb)
{
    return tandem_slice_equal(verb, tandem_slice_text("APPEND"));
}

static tandem_err log_prepare(const void *state, const tandem_intent *intent,
                              tandem_writer *payload, char why[128])
{
    tandem_slice verb = intent->verb, input = intent->input;
    tandem_err err;

    if (!verb_is_append(verb)) {
        snprintf(why, 128, "log has no such operation; it takes APPEND");
        return TANDEM_E_INPUT;
    }
    err = tandem_write_canonical(payload, input);
    if (err == TANDEM_E_PAYLOAD) {
        snprintf(why, 128, "the input is damaged or nested too deep");
        return TANDEM_E_INPUT;
    }
    return err;
}

static tandem_err log_apply(void *state, const tandem_change *change)
{
    struct log_state *list = state;
    tandem_err err;

    /* msgpack counts an array's items in 32 bits. */
    if (!verb_is_append(change->verb) || list->count == UINT32_MAX)
        return TANDEM_E_INPUT;
    err = tandem_write_canonical(&list->items, change->payload);
    if (err == TANDEM_OK) {
        list->count++;
        return TANDEM_OK;
    }
    /* Nothing was appended. A writer's error sticks, but this state must go on once there is
     * memory again. */
    list->items.err = TANDEM_OK;
    return err == TANDEM_E_NOMEM ? err : TANDEM_E_INPUT;
}

static tandem_err log_show(const void *state, tandem_writer *out)
{
    const struct log_state *list = state;

    tandem_write_array(out, list->count);
    tandem_write_raw(out, tandem_writer_slice(&list->items));
    return tandem_writer_err(out);
}

static tandem_err log_restore(tandem_slice snapshot, void **state_out)
{
    tandem_reader reader = tandem_reader_of(snapshot);
    struct log_state *list = NULL;
    tandem_writer canonical;
    uint32_t count;
    void *state = NULL;
    tandem_err err;

    /* What save did not write byte for byte was damaged: no guessing. */
    tandem_writer_init(&canonical);
    err = tandem_write_canonical(&canonical, snapshot);
    if (err == TANDEM_E_NOMEM)
        goto out;
    if (err != TANDEM_OK || !tandem_slice_equal(tandem_writer_slice(&canonical), snapshot) ||
        tandem_read_array(&reader, &count) != TANDEM_OK) {
        err = TANDEM_E_CORRUPT;
        goto out;
    }
    if ((err = log_open(&state)) != TANDEM_OK)
        goto out;
    list = state;
    tandem_write_raw(&list->items, tandem_slice_of(reader.at, tandem_reader_left(&reader)));
    list->count = count;
    if ((err = tandem_writer_err(&list->items)) != TANDEM_OK)
        goto out;
    *state_out = state;
    state = NULL;

out:
    log_free(state);
    tandem_writer_release(&canonical);
    return err;
}

const tandem_model tandem_model_log = {
    .size = sizeof(tandem_model),
    .name = "log",
    .version = 1,
    .prepare_reads_state = false,
    .state_open = log_open,
    .state_free = log_free,
    .prepare = log_prepare,
    .apply = log_apply,
    .show = log_show,
    .save = log_show,
    .restore = log_restore,
};
