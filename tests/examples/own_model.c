/*
 * A model of one's own: a high score. Its state is the highest number that anybody reported, so it
 * is the same whatever the order in which reports arrive.
 */
#include <stdio.h>
#include <stdlib.h>

#include <tandem/tandem.h>

static tandem_err score_open(void **state_out)
{
    return (*state_out = calloc(1, sizeof(uint64_t))) ? TANDEM_OK : TANDEM_E_NOMEM;
}

static bool read_score(tandem_slice verb, tandem_slice value, uint64_t *out)
{
    tandem_reader reader = tandem_reader_of(value);

    return tandem_slice_equal(verb, tandem_slice_text("REPORT")) &&
           tandem_read_uint(&reader, out) == TANDEM_OK;
}

/* Before an operation exists: tell the user what is wrong with the input. */
static tandem_err score_prepare(const void *state, const tandem_intent *intent,
                                tandem_writer *payload, char why[128])
{
    uint64_t points;

    (void)state;
    if (!read_score(intent->verb, intent->input, &points)) {
        snprintf(why, 128, "score takes REPORT with an integer of 0 or more");
        return TANDEM_E_INPUT;
    }
    tandem_write_uint(payload, points);
    return tandem_writer_err(payload);
}

/* The payload may come from a stranger: what is not valid is a no-op, the same everywhere. */
static tandem_err score_apply(void *state, const tandem_change *change)
{
    uint64_t *best = state, points;

    if (!read_score(change->verb, change->payload, &points))
        return TANDEM_E_INPUT;
    if (points > *best)
        *best = points;
    return TANDEM_OK;
}

static tandem_err score_show(const void *state, tandem_writer *out)
{
    tandem_write_uint(out, *(const uint64_t *)state);
    return tandem_writer_err(out);
}

static tandem_err score_restore(tandem_slice snapshot, void **state_out)
{
    tandem_reader reader = tandem_reader_of(snapshot);
    uint64_t best;
    tandem_err err;

    if (tandem_read_uint(&reader, &best) != TANDEM_OK || tandem_reader_left(&reader))
        return TANDEM_E_CORRUPT;
    if ((err = score_open(state_out)) == TANDEM_OK)
        *(uint64_t *)*state_out = best;
    return err;
}

static const tandem_model score = {
    .size = sizeof(tandem_model),
    .name = "score",
    .version = 1,
    .state_open = score_open,
    .state_free = free,
    .prepare = score_prepare,
    .apply = score_apply,
    .show = score_show,
    .save = score_show,
    .restore = score_restore,
};

int main(void)
{
    static const tandem_model *const models[] = {&score};
    static const char *const reports[] = {"250", "900", "400", "\"many\""};
    tandem_options options = TANDEM_OPTIONS_INIT;
    tandem_reactor *reactor = NULL;
    tandem_document *document = NULL;
    char why[TANDEM_WHY_BYTES] = "";
    tandem_err err;

    options.models = models;
    options.model_count = 1;
    if ((err = tandem_open(&options, &reactor)) != TANDEM_OK)
        goto out;
    for (size_t i = 0; i < sizeof(reports) / sizeof(reports[0]); i++) {
        tandem_input input = {.type = "score.REPORT", .json = reports[i]};
        tandem_job job = {
            .collection = "game", .document = "chess", .operations = &input, .count = 1};

        if ((err = tandem_execute(reactor, &job, NULL, why)) == TANDEM_E_INPUT)
            printf("refused %s: %s\n", reports[i], why);
        else if (err != TANDEM_OK)
            goto out;
    }
    err = tandem_document_read(reactor, "game", "chess", NULL, NULL, 5000, &document, why);
    if (err == TANDEM_OK)
        printf("best: %s\n", tandem_document_json(document));

out:
    if (err != TANDEM_OK)
        fprintf(stderr, "%s: %s %s\n", tandem_err_name(err), tandem_err_text(err), why);
    tandem_document_free(document);
    tandem_close(reactor);
    return err != TANDEM_OK;
}
