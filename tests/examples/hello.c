/* Write a document, read it back, list what is there. */
#include <stdio.h>

#include <tandem/tandem.h>

int main(int argc, char **argv)
{
    tandem_options options = TANDEM_OPTIONS_INIT;
    tandem_input input = {.type = "kv.SET", .json = "{\"title\": \"Hello\", \"stars\": 5}"};
    tandem_job job = {
        .collection = "notes", .document = "first", .operations = &input, .count = 1};
    tandem_reactor *reactor = NULL;
    tandem_document *document = NULL;
    tandem_documents *documents = NULL;
    tandem_document_entry entry;
    char why[TANDEM_WHY_BYTES] = "";
    tandem_err err;

    options.path = argc > 1 ? argv[1] : NULL; /* a folder; without one the reactor is in memory */
    if ((err = tandem_open(&options, &reactor)) != TANDEM_OK)
        goto out;

    /* On disk when it returns. */
    if ((err = tandem_execute(reactor, &job, NULL, why)) != TANDEM_OK)
        goto out;

    if ((err = tandem_document_read(reactor, "notes", "first", NULL, NULL, 5000, &document, why)) !=
        TANDEM_OK)
        goto out;
    printf("first: %s\n", tandem_document_json(document));

    if ((err = tandem_documents_open(reactor, "notes", &documents)) != TANDEM_OK)
        goto out;
    while ((err = tandem_documents_next(documents, &entry)) == TANDEM_OK)
        printf("%s is a %s of %llu operations\n", entry.document, entry.model,
               (unsigned long long)entry.operations);
    if (err == TANDEM_END)
        err = TANDEM_OK;

out:
    if (err != TANDEM_OK)
        fprintf(stderr, "%s: %s %s\n", tandem_err_name(err), tandem_err_text(err), why);
    tandem_documents_free(documents);
    tandem_document_free(document);
    tandem_close(reactor);
    return err != TANDEM_OK;
}
