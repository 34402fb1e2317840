#include "tools/tandem/recording.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { READ_BYTES = 1 << 20 };

static tandem_err bad(char why[256], const char *sentence, uint32_t transaction)
{
    snprintf(why, 256, "transaction %u: %s", transaction, sentence);
    return TANDEM_E_INPUT;
}

/* The whole file, unpacked if it is gzipped. */
static tandem_err read_file(const char *path, char **out, size_t *size_out, char why[256])
{
    gzFile file = gzopen(path, "rb");
    char *bytes = NULL, *grown;
    size_t size = 0, capacity = 0;
    int got = 1;

    if (!file) {
        snprintf(why, 256, "%s", strerror(errno));
        return errno == ENOENT ? TANDEM_E_NOT_FOUND : errno == ENOMEM ? TANDEM_E_NOMEM : TANDEM_E_IO;
    }
    while (got > 0) {
        if (size + READ_BYTES > capacity) {
            capacity = 2 * capacity + READ_BYTES;
            if (!(grown = realloc(bytes, capacity)))
                break;
            bytes = grown;
        }
        if ((got = gzread(file, bytes + size, READ_BYTES)) > 0)
            size += (size_t)got;
    }
    gzclose(file);
    if (got == 0) {
        *out = bytes;
        *size_out = size;
        return TANDEM_OK;
    }
    free(bytes);
    snprintf(why, 256, got < 0 ? "it cannot be read to its end" : "memory ran out");
    return got < 0 ? TANDEM_E_IO : TANDEM_E_NOMEM;
}

/* ---- Counting, so that everything is allocated once ---- */

struct sizes {
    uint32_t transactions, patches;
    size_t text;
};

static tandem_err measure(const json_t *root, struct sizes *sizes, uint32_t *authors, char why[256])
{
    const json_t *transactions = json_object_get(root, "txns"), *transaction, *patch;
    const json_t *agents = json_object_get(root, "numAgents");
    size_t i, k;

    *authors = 1;
    if (agents)
        *authors = json_integer_value(agents) > 0 && json_integer_value(agents) <= CLI_AUTHORS_MAX
                       ? (uint32_t)json_integer_value(agents)
                       : 0;
    if (!json_is_array(transactions) || !*authors ||
        !json_is_string(json_object_get(root, "endContent"))) {
        snprintf(why, 256, "it has no \"txns\" and \"endContent\", or no number of agents up to %d",
                 CLI_AUTHORS_MAX);
        return TANDEM_E_INPUT;
    }
    sizes->transactions = (uint32_t)json_array_size(transactions);
    json_array_foreach(transactions, i, transaction)
    {
        const json_t *patches = json_object_get(transaction, "patches");

        if (patches && !json_is_array(patches))
            return bad(why, "its patches are no array", (uint32_t)i);
        json_array_foreach(patches, k, patch)
        {
            if (json_array_size(patch) != 3 || !json_is_integer(json_array_get(patch, 0)) ||
                !json_is_integer(json_array_get(patch, 1)) ||
                !json_is_string(json_array_get(patch, 2)) ||
                json_integer_value(json_array_get(patch, 0)) < 0 ||
                json_integer_value(json_array_get(patch, 0)) > UINT32_MAX ||
                json_integer_value(json_array_get(patch, 1)) < 0 ||
                json_integer_value(json_array_get(patch, 1)) > UINT32_MAX)
                return bad(why, "a patch is [position, deleted, inserted]", (uint32_t)i);
            sizes->patches++;
            sizes->text += json_string_length(json_array_get(patch, 2)) + 1;
        }
    }
    return TANDEM_OK;
}

/* ---- Taking ---- */

static void take_patches(cli_recording *out, cli_transaction *transaction, const json_t *patches,
                         size_t *used)
{
    const json_t *patch;
    size_t i;

    transaction->first_patch = out->patch_count;
    json_array_foreach(patches, i, patch)
    {
        const json_t *inserted = json_array_get(patch, 2);
        size_t size = json_string_length(inserted);

        out->patches[out->patch_count++] =
            (cli_patch){(uint32_t)json_integer_value(json_array_get(patch, 0)),
                        (uint32_t)json_integer_value(json_array_get(patch, 1)), out->text + *used};
        memcpy(out->text + *used, json_string_value(inserted), size + 1);
        *used += size + 1;
    }
    transaction->patch_count = out->patch_count - transaction->first_patch;
}

/* What its author had seen: its parents, and all that those had. */
static tandem_err take_parents(cli_recording *out, uint32_t number, const json_t *json, char why[256])
{
    cli_transaction *transaction = &out->transactions[number];
    const json_t *parents = json_object_get(json, "parents"), *agent = json_object_get(json, "agent");
    const json_t *parent;
    size_t i;

    transaction->author = 0;
    transaction->seen = out->seen + (size_t)number * out->authors;
    if (!agent && out->authors > 1)
        return bad(why, "it has no agent", number);
    if (agent && (json_integer_value(agent) < 0 || json_integer_value(agent) >= out->authors))
        return bad(why, "there is no such agent", number);
    if (agent)
        transaction->author = (uint32_t)json_integer_value(agent);
    if (!parents && number) {
        memcpy(transaction->seen, out->transactions[number - 1].seen,
               out->authors * sizeof(uint32_t));
        transaction->seen[out->transactions[number - 1].author]++;
    }
    json_array_foreach(parents, i, parent)
    {
        const cli_transaction *earlier;

        if (!json_is_integer(parent) || json_integer_value(parent) < 0 ||
            json_integer_value(parent) >= number)
            return bad(why, "its parents are no earlier ones", number);
        earlier = &out->transactions[json_integer_value(parent)];
        for (uint32_t a = 0; a < out->authors; a++) {
            uint32_t seen = earlier->seen[a] + (a == earlier->author);

            if (seen > transaction->seen[a])
                transaction->seen[a] = seen;
        }
    }
    return TANDEM_OK;
}

/* Which transactions end a part that somebody else saw. */
static tandem_err mark_parts(cli_recording *out, char why[256])
{
    uint32_t counts[CLI_AUTHORS_MAX] = {0};
    cli_transaction **of_author = malloc((out->transaction_count + 1) * sizeof(*of_author));
    uint32_t begins[CLI_AUTHORS_MAX + 1] = {0};
    tandem_err err = of_author ? TANDEM_OK : TANDEM_E_NOMEM;

    for (uint32_t i = 0; i < out->transaction_count; i++)
        begins[out->transactions[i].author + 1]++;
    for (uint32_t a = 0; a < out->authors; a++)
        begins[a + 1] += begins[a];
    for (uint32_t i = 0; i < out->transaction_count && err == TANDEM_OK; i++) {
        cli_transaction *transaction = &out->transactions[i];

        if (transaction->seen[transaction->author] != counts[transaction->author])
            err = bad(why, "its author had not seen its own transactions, or more of them", i);
        of_author[begins[transaction->author] + counts[transaction->author]++] = transaction;
        for (uint32_t a = 0; a < out->authors && err == TANDEM_OK; a++)
            if (a != transaction->author && transaction->seen[a])
                of_author[begins[a] + transaction->seen[a] - 1]->ends_part = true;
    }
    free(of_author);
    return err;
}

static tandem_err take(const json_t *root, cli_recording *out, char why[256])
{
    const json_t *start = json_object_get(root, "startContent"), *transaction;
    struct sizes sizes = {0};
    size_t i, used = 0;
    tandem_err err = measure(root, &sizes, &out->authors, why);

    if (err != TANDEM_OK)
        return err;
    out->transactions = calloc(sizes.transactions + 1, sizeof(out->transactions[0]));
    out->patches = calloc(sizes.patches + 1, sizeof(out->patches[0]));
    out->seen = calloc((size_t)sizes.transactions * out->authors + 1, sizeof(out->seen[0]));
    out->text = malloc(sizes.text + 1);
    out->start = strdup(json_is_string(start) ? json_string_value(start) : "");
    out->end = strdup(json_string_value(json_object_get(root, "endContent")));
    if (!out->transactions || !out->patches || !out->seen || !out->text || !out->start || !out->end)
        return TANDEM_E_NOMEM;
    json_array_foreach(json_object_get(root, "txns"), i, transaction)
    {
        take_patches(out, &out->transactions[i], json_object_get(transaction, "patches"), &used);
        if ((err = take_parents(out, (uint32_t)i, transaction, why)) != TANDEM_OK)
            return err;
        out->transaction_count++;
    }
    return mark_parts(out, why);
}

tandem_err cli_recording_read(const char *path, cli_recording *out, char why[256])
{
    char *bytes = NULL;
    size_t size = 0;
    json_error_t trouble;
    json_t *root;
    tandem_err err;

    memset(out, 0, sizeof(*out));
    why[0] = '\0';
    if ((err = read_file(path, &bytes, &size, why)) != TANDEM_OK)
        return err;
    root = json_loadb(bytes, size, 0, &trouble);
    free(bytes);
    if (!root) {
        snprintf(why, 256, "line %d: %s", trouble.line, trouble.text);
        return TANDEM_E_INPUT;
    }
    err = take(root, out, why);
    json_decref(root);
    if (err != TANDEM_OK)
        cli_recording_release(out);
    return err;
}

void cli_recording_release(cli_recording *recording)
{
    free(recording->transactions);
    free(recording->patches);
    free(recording->seen);
    free(recording->text);
    free(recording->start);
    free(recording->end);
    memset(recording, 0, sizeof(*recording));
}
