/*
 * Two reactors in one process, on a virtual clock: cut the link, edit on both sides, heal it. Tests
 * of models and applications look like this; the same seed gives the same run.
 */
#include <stdio.h>

#include <tandem/tandem.h>

static tandem_err set(tandem_harness *harness, const char *name, const char *json)
{
    tandem_input input = {.type = "kv.SET", .json = json};
    tandem_job job = {
        .collection = "notes", .document = "shared", .operations = &input, .count = 1};

    return tandem_execute(tandem_harness_reactor(harness, name), &job, NULL, NULL);
}

static tandem_err show(tandem_harness *harness, const char *name)
{
    tandem_document *document = NULL;
    tandem_err err = tandem_document_read(tandem_harness_reactor(harness, name), "notes", "shared",
                                          NULL, NULL, 5000, &document, NULL);

    if (err == TANDEM_OK)
        printf("%s: %s\n", name, tandem_document_json(document));
    tandem_document_free(document);
    return err;
}

int main(void)
{
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    tandem_harness *harness = NULL;
    char why[256] = "";
    tandem_err err;

    options.seed = 7;
    if ((err = tandem_harness_open(&options, &harness)) != TANDEM_OK ||
        (err = tandem_harness_add(harness, "anna", 0)) != TANDEM_OK ||
        (err = tandem_harness_add(harness, "ben", 0)) != TANDEM_OK ||
        (err = tandem_harness_connect(harness, "anna", "ben")) != TANDEM_OK)
        goto out;

    if ((err = set(harness, "anna", "{\"title\": \"Plan\"}")) != TANDEM_OK ||
        (err = tandem_harness_run_until_converged(harness, 10000, why)) != TANDEM_OK)
        goto out;

    tandem_harness_cut(harness, "anna", "ben");
    if ((err = set(harness, "anna", "{\"title\": \"Our plan\"}")) != TANDEM_OK ||
        (err = set(harness, "ben", "{\"done\": true}")) != TANDEM_OK)
        goto out;
    tandem_harness_heal(harness, "anna", "ben");

    if ((err = tandem_harness_run_until_converged(harness, 120000, why)) != TANDEM_OK ||
        (err = show(harness, "anna")) != TANDEM_OK || (err = show(harness, "ben")) != TANDEM_OK)
        goto out;

out:
    if (err != TANDEM_OK)
        fprintf(stderr, "%s: %s %s\n", tandem_err_name(err), tandem_err_text(err), why);
    tandem_harness_free(harness);
    return err != TANDEM_OK;
}
