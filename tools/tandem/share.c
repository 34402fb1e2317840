#include "tools/tandem/share.h"

#include <stdlib.h>
#include <string.h>

enum { COLLECTIONS, DOCUMENTS, SCOPES, BRANCHES, LISTS };

static const struct {
    cli_flag flag;
    const char *member, *what;
} lists[LISTS] = {
    [COLLECTIONS] = {CLI_COLLECTION, "collections", "name of a collection"},
    [DOCUMENTS] = {CLI_DOCUMENT, "documents", "glob"},
    [SCOPES] = {CLI_SCOPE, "scopes", "name of a scope"},
    [BRANCHES] = {CLI_BRANCH, "branches", "name of a branch"},
};

static void put_list(tandem_share *share, size_t list, const char *const *names, size_t count)
{
    const char *const **lists_of[] = {&share->collections, &share->documents, &share->scopes,
                                      &share->branches};
    size_t *counts[] = {&share->collection_count, &share->document_count, &share->scope_count,
                        &share->branch_count};

    *lists_of[list] = names;
    *counts[list] = count;
}

/* ---- The command line ---- */

bool cli_share_is_given(const cli_call *call)
{
    bool given = call->given[CLI_PUSH] || call->given[CLI_PULL] || call->given[CLI_BOTH] ||
                 call->given[CLI_ALL];

    for (size_t i = 0; i < LISTS; i++)
        given = given || call->given[lists[i].flag];
    return given;
}

static const char *direction_given(const cli_call *call)
{
    bool push = call->given[CLI_PUSH], pull = call->given[CLI_PULL];

    if (call->given[CLI_BOTH] || (push && pull))
        return tandem_direction_name(TANDEM_DIRECTION_BOTH);
    if (push || pull)
        return tandem_direction_name(push ? TANDEM_DIRECTION_PUSH : TANDEM_DIRECTION_PULL);
    return NULL;
}

/* One flag's values; NULL and reported: one of them cannot be. */
static json_t *list_given(const cli_call *call, size_t list)
{
    const char **texts = call->values[lists[list].flag];
    json_t *names = json_array();

    for (size_t i = 0; i < call->given[lists[list].flag]; i++) {
        tandem_share share = TANDEM_SHARE_INIT;

        put_list(&share, list, &texts[i], 1);
        if (tandem_share_check(&share) == TANDEM_E_INVALID) {
            cli_fail(TANDEM_E_INVALID, NULL, "`%s %.64s` is no %s", cli_flag_name(lists[list].flag),
                     texts[i], lists[list].what);
            json_decref(names);
            return NULL;
        }
        json_array_append_new(names, json_string(texts[i]));
    }
    return names;
}

json_t *cli_share_given(const cli_call *call)
{
    const char *direction = direction_given(call);
    json_t *share = json_object();

    if (call->given[CLI_BOTH] && call->given[CLI_PUSH] != call->given[CLI_PULL]) {
        cli_fail(TANDEM_E_USAGE, "they contradict each other", "--both stands beside %s",
                 call->given[CLI_PUSH] ? "--push" : "--pull");
        json_decref(share);
        return NULL;
    }
    if (direction)
        json_object_set_new(share, "direction", json_string(direction));
    if (call->given[CLI_ALL])
        json_object_set_new(share, "all", json_true());
    for (size_t i = 0; i < LISTS; i++) {
        json_t *names;

        if (!call->given[lists[i].flag])
            continue;
        if (!(names = list_given(call, i))) {
            json_decref(share);
            return NULL;
        }
        json_object_set_new(share, lists[i].member, names);
    }
    return share;
}

/* ---- The library ---- */

static json_t *json_list(const char *const *list, size_t count)
{
    json_t *names = count ? json_array() : json_null();

    for (size_t i = 0; i < count; i++)
        json_array_append_new(names, json_string(list[i]));
    return names;
}

json_t *cli_json_share(const tandem_share *share)
{
    return json_pack("{s:o, s:o, s:o, s:o}",
                     "collections", json_list(share->collections, share->collection_count),
                     "documents", json_list(share->documents, share->document_count),
                     "scopes", json_list(share->scopes, share->scope_count),
                     "branches", json_list(share->branches, share->branch_count));
}

/* What a peer shares now. */
struct current {
    const char *name;
    tandem_direction direction;
    json_t *share;
};

static tandem_err find_share(void *context, const tandem_remote_status *status)
{
    struct current *current = context;

    if (!status->name || strcmp(status->name, current->name) != 0)
        return TANDEM_OK;
    current->direction = status->share.direction;
    current->share = cli_json_share(&status->share);
    return current->share ? TANDEM_END : TANDEM_E_NOMEM;
}

/* What is to be shared, as the library has it; the strings are the request's and current's. */
struct wanted {
    tandem_share share;
    const char **names[LISTS];
};

static void wanted_release(struct wanted *wanted)
{
    for (size_t i = 0; i < LISTS; i++)
        free(wanted->names[i]);
}

static tandem_err wanted_list(const json_t *array, const char ***names_out, size_t *count_out)
{
    const char **names;

    *count_out = json_array_size(array);
    if (!*count_out)
        return TANDEM_OK;
    if (!(names = *names_out = calloc(*count_out, sizeof(*names))))
        return TANDEM_E_NOMEM;
    for (size_t i = 0; i < *count_out; i++)
        if (!(names[i] = json_string_value(json_array_get(array, i))))
            return TANDEM_E_PROTOCOL;
    return TANDEM_OK;
}

static tandem_err wanted_direction(const json_t *share, tandem_direction *out)
{
    const char *word = cli_text_of(share, "direction");

    for (tandem_direction d = TANDEM_DIRECTION_BOTH; word && d <= TANDEM_DIRECTION_PULL; d++)
        if (!strcmp(word, tandem_direction_name(d))) {
            *out = d;
            return TANDEM_OK;
        }
    return word ? TANDEM_E_PROTOCOL : TANDEM_OK;
}

static tandem_err wanted_make(const json_t *share, const struct current *current,
                              struct wanted *out)
{
    bool all = json_is_true(json_object_get(share, "all"));
    tandem_err err;

    *out = (struct wanted){.share = TANDEM_SHARE_INIT};
    out->share.direction = current->direction;
    if ((err = wanted_direction(share, &out->share.direction)) != TANDEM_OK)
        return err;
    for (size_t i = 0; i < LISTS; i++) {
        const json_t *list = json_object_get(share, lists[i].member);
        size_t count;

        if (!list && !all)
            list = json_object_get(current->share, lists[i].member);
        if ((err = wanted_list(list, &out->names[i], &count)) != TANDEM_OK)
            return err;
        put_list(&out->share, i, out->names[i], count);
    }
    return TANDEM_OK;
}

static tandem_err refuse(cli_request *request, tandem_err err)
{
    if (err == TANDEM_E_LIMIT)
        return cli_refuse(request, err, "a peer has up to 64 collections, globs, scopes and "
                          "branches each, and the last three take 2048 bytes at most together");
    return err;
}

tandem_err cli_share_set(cli_request *request, const json_t *object, tandem_sync *sync,
                         const char *name)
{
    const json_t *share = json_object_get(object, "share");
    struct current current = {.name = name};
    struct wanted wanted;
    tandem_err err;

    if (!json_is_object(share))
        return TANDEM_OK;
    if ((err = tandem_remotes(sync, find_share, &current)) != TANDEM_OK)
        return err;
    err = wanted_make(share, &current, &wanted);
    if (err == TANDEM_OK)
        err = tandem_remote_set_share(sync, name, &wanted.share);
    wanted_release(&wanted);
    json_decref(current.share);
    return refuse(request, err);
}

tandem_err cli_share_add(cli_request *request, const json_t *object, tandem_sync *sync,
                         const char *name, const char *url)
{
    const json_t *share = json_object_get(object, "share");
    const struct current everything = {.name = name};
    struct wanted wanted;
    tandem_err err = wanted_make(share, &everything, &wanted);

    if (err == TANDEM_OK)
        err = tandem_remote_add_sharing(sync, name, url, &wanted.share);
    wanted_release(&wanted);
    return err == TANDEM_E_LIMIT && json_is_object(share) ? refuse(request, err) : err;
}
