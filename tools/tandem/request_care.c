/*
 * Requests about the whole store: digests, verification, status.
 */
#include <stdlib.h>
#include <string.h>

#include "tools/tandem/request.h"

enum {
    PROBLEMS_MAX = 1000, /* listed one by one; more are counted */
    HASH_BYTES = TANDEM_HASH_BYTES,
    FORKS_MAX = 8, /* named by status; more are counted */
};

/* ---- Digest ---- */

static tandem_err collect_name(void *context, const tandem_collection_entry *entry)
{
    json_t *names = context;

    return json_array_append_new(names, json_string(entry->name)) ? TANDEM_E_NOMEM : TANDEM_OK;
}

static tandem_err digest_one(cli_request *request, const char *collection, uint64_t deadline_ms)
{
    uint64_t now = cli_monotonic_ms(), left = UINT64_MAX;
    tandem_digest digest;
    tandem_err err;

    if (deadline_ms != UINT64_MAX)
        left = now < deadline_ms ? deadline_ms - now : 0;
    err = tandem_digest_collection(request->reactor, collection, left, &digest, request->why);
    if (err != TANDEM_OK)
        return err;
    return cli_emit(request,
                    json_pack("{s:s, s:o, s:o, s:o, s:o, s:b}",
                              "collection", collection,
                              "operations", cli_json_number(digest.operations),
                              "documents", cli_json_number(digest.documents),
                              "vector_digest", cli_json_hex(digest.vector_digest, HASH_BYTES),
                              "state_digest", cli_json_hex(digest.state_digest, HASH_BYTES),
                              "partial", digest.partial));
}

tandem_err cli_digest_run(cli_request *request, const json_t *object)
{
    const char *collection = cli_text_of(object, "collection");
    uint64_t timeout = cli_timeout_of(object), now = cli_monotonic_ms();
    uint64_t deadline = timeout < UINT64_MAX - now ? now + timeout : UINT64_MAX;
    tandem_err err, damage = TANDEM_OK;
    json_t *names;

    if (collection)
        return digest_one(request, collection, deadline);
    /* The names first: a visitor may not call back into the reactor. */
    if (!(names = json_array()))
        return TANDEM_E_NOMEM;
    err = tandem_collections(request->reactor, collect_name, names);
    for (size_t i = 0; err == TANDEM_OK && i < json_array_size(names); i++) {
        err = cli_check(request);
        if (err == TANDEM_OK)
            err = digest_one(request, json_string_value(json_array_get(names, i)), deadline);
        /* One that is damaged does not keep the others from being told. */
        if (err == TANDEM_E_CORRUPT) {
            damage = err;
            err = TANDEM_OK;
        }
    }
    json_decref(names);
    return err == TANDEM_OK ? damage : err;
}

/* ---- Verify ---- */

struct problems {
    json_t *listed;
    uint64_t count;
};

static void collect_problem(void *context, const char *text)
{
    struct problems *problems = context;
    json_t *sentence = json_string(text);

    problems->count++;
    if (!sentence)
        sentence = json_string("something that cannot be told in UTF-8");
    if (json_array_size(problems->listed) < PROBLEMS_MAX)
        json_array_append_new(problems->listed, sentence);
    else
        json_decref(sentence);
}

static tandem_err verify_sync(cli_request *request, struct problems *problems)
{
    tandem_sync *sync;
    tandem_err err = cli_request_sync(request, false, &sync);

    if (err == TANDEM_OK)
        return tandem_sync_verify(sync, collect_problem, problems);
    if (err != TANDEM_E_CORRUPT && err != TANDEM_E_FORMAT)
        return err;
    collect_problem(problems, request->why);
    return TANDEM_E_CORRUPT;
}

tandem_err cli_verify_run(cli_request *request, const json_t *object)
{
    struct problems problems = {json_array(), 0};
    tandem_stat stat = {0};
    size_t i;
    const json_t *text;
    tandem_err err, sync_err, emitted = TANDEM_OK;

    if (!problems.listed)
        return TANDEM_E_NOMEM;
    err = tandem_verify(request->reactor, collect_problem, &problems);
    if (err == TANDEM_OK || err == TANDEM_E_CORRUPT) {
        sync_err = verify_sync(request, &problems);
        err = sync_err ? sync_err : err;
    }
    json_array_foreach(problems.listed, i, text) {
        if (emitted == TANDEM_OK)
            emitted = cli_emit(request, json_pack("{s:O}", "problem", text));
    }
    json_decref(problems.listed);
    if (emitted == TANDEM_OK && (err == TANDEM_OK || err == TANDEM_E_CORRUPT)) {
        tandem_stat_get(request->reactor, &stat);
        emitted = cli_emit(request, json_pack("{s:b, s:o, s:o}",
                                              "ok", err == TANDEM_OK,
                                              "operations", cli_json_number(stat.operations),
                                              "problems", cli_json_number(problems.count)));
    }
    if (err == TANDEM_E_CORRUPT)
        cli_refuse(request, err,
                   "%llu %s wrong; fetch the operations again from a peer into a new folder",
                   (unsigned long long)problems.count,
                   problems.count == 1 ? "thing is" : "things are");
    return err == TANDEM_OK ? emitted : err;
}

/* ---- Status ---- */

struct remotes {
    json_t *list;
    bool running;
};

static tandem_err collect_remote(void *context, const tandem_remote_status *status)
{
    struct remotes *remotes = context;
    json_t *remote = cli_json_remote(status, remotes->running);

    return json_array_append_new(remotes->list, remote) ? TANDEM_E_NOMEM : TANDEM_OK;
}

static json_t *json_store(const tandem_stat *stat, const tandem_sync_stat *sync_stat)
{
    json_t *error = stat->store_err == TANDEM_OK ? json_null()
                                                 : json_string(tandem_err_name(stat->store_err));

    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "bytes", cli_json_number(stat->bytes),
                     "operations", cli_json_number(stat->operations),
                     "index_bytes", cli_json_number(stat->index_bytes),
                     "index_lag", cli_json_number(stat->index_lag),
                     "quarantined", cli_json_number(stat->quarantined + sync_stat->quarantined),
                     "forks", cli_json_number(stat->forks),
                     "quarantined_origins", cli_json_number(stat->quarantined_origins),
                     "lacks", cli_json_number(stat->lacks),
                     "refused", cli_json_number(stat->refused),
                     "partial_collections", cli_json_number(stat->partial_collections),
                     "commits", cli_json_number(stat->commits),
                     "folded", cli_json_number(stat->folded),
                     "error", error);
}

static json_t *json_incarnation(const tandem_stat *stat)
{
    char since[32];

    cli_time_text(stat->incarnation_since_ms, since);
    return json_pack("{s:o, s:s, s:s}",
                     "number", cli_json_number(stat->incarnation),
                     "reason", tandem_incarnation_reason_name(stat->incarnation_reason),
                     "since", since);
}

static tandem_err collect_fork(void *context, const tandem_fork *fork)
{
    json_t *row = json_pack("{s:s, s:o, s:i, s:b}", "collection", fork->collection, "origin",
                            cli_json_hex(fork->origin, TANDEM_ORIGIN_BYTES), "heads",
                            (int)fork->heads, "quarantined", fork->is_quarantined);

    return json_array_append_new(context, row) ? TANDEM_E_NOMEM : TANDEM_OK;
}

/* How often each happened since the store was opened. */
static json_t *json_events(const tandem_stat *stat)
{
    json_t *events = json_object();

    for (tandem_event_kind kind = TANDEM_EVENT_INCARNATION;
         events && kind <= (tandem_event_kind)TANDEM_EVENT_KINDS; kind++)
        json_object_set_new(events, tandem_event_kind_name(kind),
                            cli_json_number(stat->events[kind]));
    return events;
}

tandem_err cli_status_run(cli_request *request, const json_t *object)
{
    struct remotes remotes = {NULL, request->running};
    tandem_sync_stat sync_stat;
    tandem_sync *sync = NULL;
    tandem_stat stat;
    const uint8_t *id = tandem_reactor_id(request->reactor);
    const uint8_t *origin = tandem_reactor_origin(request->reactor);
    json_t *url, *forks;
    tandem_err err;

    if ((err = cli_request_sync(request, false, &sync)) != TANDEM_OK ||
        (err = tandem_stat_get(request->reactor, &stat)) != TANDEM_OK ||
        (err = tandem_sync_stat_get(sync, &sync_stat)) != TANDEM_OK)
        return err;
    if (!(remotes.list = json_array()))
        return TANDEM_E_NOMEM;
    forks = json_array();
    if (!forks ||
        (err = tandem_forks(request->reactor, FORKS_MAX, collect_fork, forks)) != TANDEM_OK ||
        (err = tandem_remotes(sync, collect_remote, &remotes)) != TANDEM_OK) {
        json_decref(remotes.list);
        err = forks ? err : TANDEM_E_NOMEM;
        json_decref(forks);
        return err;
    }
    url = sync_stat.listener_url[0] ? json_string(sync_stat.listener_url) : json_null();
    return cli_emit(
        request,
        json_pack("{s:o, s:o, s:o, s:s, s:b, s:o, s:o, s:o, s:{s:o, s:o, s:o}, s:o}",
                  "reactor", cli_json_hex(id, TANDEM_ORIGIN_BYTES),
                  "origin", cli_json_hex(origin, TANDEM_ORIGIN_BYTES),
                  "incarnation", json_incarnation(&stat),
                  "version", tandem_version(),
                  "running", request->running,
                  "store", json_store(&stat, &sync_stat),
                  "forks", forks,
                  "events", json_events(&stat),
                  "listener",
                  "url", url,
                  "sessions", cli_json_number(sync_stat.sessions),
                  "rejected", cli_json_number(sync_stat.rejected),
                  "remotes", remotes.list));
}
