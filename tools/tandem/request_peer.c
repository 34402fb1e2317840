/*
 * Requests about peers and what is on its way to and from them.
 */
#include <string.h>

#include "tools/tandem/share.h"

enum {
    STEP_MS = 250,             /* a wait looks this often whether it should end */
};

/* How it is polled, what is known of it, and what that makes of it now. */
static json_t *json_poll(const tandem_poll_status *poll)
{
    bool polled = poll->interval_ms != 0;

    return json_pack(
        "{s:s, s:o, s:o, s:o, s:s, s:s, s:o, s:{s:f, s:o, s:o, s:o, s:o, s:o, s:o}}",
        "mode", tandem_poll_mode_name(poll->mode),
        "mean_ms", poll->mean_ms ? cli_json_number(poll->mean_ms) : json_null(),
        "interval_ms", polled ? cli_json_number(poll->interval_ms) : json_null(),
        "next_at", cli_json_time(poll->next_at_ms),
        "reason", poll->reason,
        "why", poll->why,
        "exchanges", cli_json_number(poll->exchanges),
        "inputs",
        "operations_per_second", poll->operations_per_second,
        "answer_bytes", cli_json_number((uint64_t)(poll->answer_bytes + 0.5)),
        "exchange_ms", cli_json_number((uint64_t)(poll->exchange_ms + 0.5)),
        "quiet_ms", cli_json_number(poll->quiet_ms),
        "saved_ms", cli_json_number(poll->saved_ms),
        "failures", cli_json_number(poll->failures),
        "load_permille", cli_json_number(poll->load_permille));
}

json_t *cli_json_remote(const tandem_remote_status *status, bool running)
{
    /* Where no node runs nothing connects, whatever is configured. */
    bool rests = !running && status->state != TANDEM_REMOTE_PAUSED;
    tandem_remote_state state = rests ? TANDEM_REMOTE_RESTING : status->state;
    static const uint8_t unknown[TANDEM_ORIGIN_BYTES];
    const tandem_progress *progress = &status->progress;
    bool met = memcmp(status->reactor, unknown, sizeof(unknown)) != 0;

    return json_pack(
        "{s:s?, s:s?, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
        "s:{s:o, s:o, s:o, s:o, s:o, s:o}, s:{s:o, s:o, s:o, s:o, s:o, s:o}, "
        "s:o, s:s, s:o, s:b}",
        "name", status->name,
        "url", status->url,
        "reactor", met ? cli_json_hex(status->reactor, TANDEM_ORIGIN_BYTES) : json_null(),
        "state", tandem_remote_state_name(state),
        "reason", rests ? "the node does not run" : status->reason,
        "since", cli_json_time(status->since_ms),
        "retry_at", cli_json_time(rests ? 0 : status->retry_at_ms),
        "lag_operations", cli_json_number(status->lag_operations),
        "outbox", cli_json_number(status->outbox),
        "inbox", cli_json_number(status->inbox),
        "dead_letters", cli_json_number(status->dead_letters),
        "sent_operations", cli_json_number(status->sent_operations),
        "received_operations", cli_json_number(status->received_operations),
        "duplicate_operations", cli_json_number(status->duplicate_operations),
        "echoed_operations", cli_json_number(status->echoed_operations),
        "attempts", cli_json_number(status->attempts),
        "retry",
        "base_ms", cli_json_number(status->retry.base_ms),
        "factor", cli_json_number(status->retry.factor),
        "cap_ms", cli_json_number(status->retry.cap_ms),
        "attempts", cli_json_number(status->retry.attempts),
        "rest_ms", cli_json_number(status->retry.rest_ms),
        "budget", cli_json_number(status->retry.budget),
        "progress",
        "total", cli_json_number(progress->total),
        "transported", cli_json_number(progress->transported),
        "applied", cli_json_number(progress->applied),
        "bytes", cli_json_number(progress->bytes),
        "rate", cli_json_number((uint64_t)(progress->rate + 0.5)),
        "left_ms", progress->left_ms == UINT64_MAX ? json_null()
                                                   : cli_json_number(progress->left_ms),
        "poll", json_poll(&status->poll),
        "direction", tandem_direction_name(status->share.direction),
        "share", cli_json_share(&status->share),
        "partial", status->partial);
}

/* The peer's name, and the sync that knows it. */
static tandem_err peer_of(cli_request *request, const json_t *object, bool online,
                          const char **name_out, tandem_sync **sync_out)
{
    *name_out = cli_text_of(object, "name");
    if (!*name_out)
        return cli_refuse(request, TANDEM_E_PROTOCOL, "the request lacks a peer's name");
    return cli_request_sync(request, online, sync_out);
}

static tandem_err named(cli_request *request, tandem_err err, const char *name)
{
    if (err == TANDEM_OK)
        return cli_emit(request, json_pack("{s:s}", "name", name));
    if (err == TANDEM_E_NOT_FOUND)
        return cli_refuse(request, err, "there is no peer `%s`", name);
    if (err == TANDEM_E_EXISTS)
        return cli_refuse(request, err, "there is a peer `%s`; `peer set` changes its URL", name);
    if (err == TANDEM_E_INVALID)
        return cli_refuse(request, err, "a peer has a name of 1 to 128 bytes and a URL "
                          "http://HOST:PORT/tandem or ws://HOST:PORT/tandem");
    return err;
}

/* ---- Configuration ---- */

static uint32_t number32_of(const json_t *object, const char *member, uint32_t fallback)
{
    uint64_t number = cli_number_of(object, member, fallback);

    return number < UINT32_MAX ? (uint32_t)number : UINT32_MAX;
}

struct current_retry {
    const char *name;
    tandem_retry_policy policy;
};

static tandem_err find_retry(void *context, const tandem_remote_status *status)
{
    struct current_retry *current = context;

    if (!status->name || strcmp(status->name, current->name) != 0)
        return TANDEM_OK;
    current->policy = status->retry;
    return TANDEM_END;
}

/* Set how a peer is retried, if the request says so: what it does not name stays, unless it says
 * "reset". */
static tandem_err retry_set(cli_request *request, const json_t *object, tandem_sync *sync,
                            const char *name)
{
    const json_t *retry = json_object_get(object, "retry");
    struct current_retry current = {.name = name, .policy = TANDEM_RETRY_POLICY_INIT};
    tandem_retry_policy *policy = &current.policy;
    tandem_err err;

    if (!json_is_object(retry))
        return TANDEM_OK;
    if (!json_is_true(json_object_get(retry, "reset")) &&
        (err = tandem_remotes(sync, find_retry, &current)) != TANDEM_OK)
        return err;
    policy->base_ms = cli_number_of(retry, "base_ms", policy->base_ms);
    policy->cap_ms = cli_number_of(retry, "cap_ms", policy->cap_ms);
    policy->rest_ms = cli_number_of(retry, "rest_ms", policy->rest_ms);
    policy->factor = number32_of(retry, "factor", policy->factor);
    policy->attempts = number32_of(retry, "attempts", policy->attempts);
    policy->budget = number32_of(retry, "budget", policy->budget);
    err = tandem_remote_set_retry(sync, name, policy);
    if (err == TANDEM_E_INVALID)
        return cli_refuse(request, err, "times of a retry policy are at most an hour, its factor "
                          "100, its attempts 1000000, its budget 60000 a minute");
    return err;
}

/* Set how a peer is polled, if the request says so. */
static tandem_err poll_set(cli_request *request, const json_t *object, tandem_sync *sync,
                           const char *name)
{
    static const tandem_poll_mode modes[] = {TANDEM_POLL_LONG, TANDEM_POLL_INTERVAL,
                                             TANDEM_POLL_ADAPTIVE};
    const json_t *poll = json_object_get(object, "poll");
    const char *word = cli_text_of(poll, "mode");
    tandem_err err = TANDEM_E_INVALID;

    if (!json_is_object(poll))
        return TANDEM_OK;
    for (unsigned i = 0; word && i < sizeof(modes) / sizeof(modes[0]); i++)
        if (!strcmp(word, tandem_poll_mode_name(modes[i])))
            err = tandem_remote_set_poll(sync, name, modes[i], cli_number_of(poll, "mean_ms", 0));
    if (err == TANDEM_E_INVALID)
        return cli_refuse(request, err, "a peer is polled each 100 ms to 600 s");
    return err;
}

static tandem_err changes_set(cli_request *request, const json_t *object, tandem_sync *sync,
                              const char *name)
{
    tandem_err err = retry_set(request, object, sync, name);

    return err == TANDEM_OK ? poll_set(request, object, sync, name) : err;
}

tandem_err cli_peer_add_run(cli_request *request, const json_t *object)
{
    const char *name, *url = cli_text_of(object, "url");
    tandem_sync *sync;
    tandem_err err = peer_of(request, object, false, &name, &sync);

    if (err != TANDEM_OK)
        return err;
    err = cli_share_add(request, object, sync, name, url ? url : "");
    if (err == TANDEM_OK && (err = changes_set(request, object, sync, name)) != TANDEM_OK)
        tandem_remote_remove(sync, name);
    return request->why[0] ? err : named(request, err, name);
}

tandem_err cli_peer_set_run(cli_request *request, const json_t *object)
{
    const char *name, *url = cli_text_of(object, "url");
    tandem_sync *sync;
    tandem_err err = peer_of(request, object, false, &name, &sync);

    if (err != TANDEM_OK)
        return err;
    /* First what is shared: nothing else is to go to where the new URL leads. */
    err = cli_share_set(request, object, sync, name);
    if (err == TANDEM_OK && url)
        err = tandem_remote_set(sync, name, url);
    if (err == TANDEM_OK)
        err = changes_set(request, object, sync, name);
    return request->why[0] ? err : named(request, err, name);
}

static tandem_err with_name(cli_request *request, const json_t *object,
                            tandem_err (*call)(tandem_sync *sync, const char *name))
{
    const char *name;
    tandem_sync *sync;
    tandem_err err = peer_of(request, object, false, &name, &sync);

    return err == TANDEM_OK ? named(request, call(sync, name), name) : err;
}

tandem_err cli_peer_pause_run(cli_request *request, const json_t *object)
{
    return with_name(request, object, tandem_remote_pause);
}

tandem_err cli_peer_resume_run(cli_request *request, const json_t *object)
{
    return with_name(request, object, tandem_remote_resume);
}

tandem_err cli_peer_rm_run(cli_request *request, const json_t *object)
{
    return with_name(request, object, tandem_remote_remove);
}

/* ---- Looking ---- */

/* Gathers what a visitor shows, to be handed out when the visit is over: handing out may wait for a
 * slow caller, and a visit must not. */
struct gathering {
    json_t *list;
    const char *name; /* NULL: all */
    const char *box;
    uint64_t id; /* 0: all */
    uint8_t reactor[TANDEM_ORIGIN_BYTES]; /* what the peer of that name is, if it was met */
    size_t found;
    bool running;
};

static tandem_err gather_remote(void *context, const tandem_remote_status *status)
{
    struct gathering *g = context;

    if (!status->name || (g->name && strcmp(g->name, status->name)))
        return TANDEM_OK;
    return json_array_append_new(g->list, cli_json_remote(status, g->running)) ? TANDEM_E_NOMEM
                                                                               : TANDEM_OK;
}

static tandem_err hand_out(cli_request *request, struct gathering *g, tandem_err err)
{
    for (size_t i = 0; err == TANDEM_OK && i < json_array_size(g->list); i++)
        err = cli_emit(request, json_incref(json_array_get(g->list, i)));
    json_decref(g->list);
    return err;
}

static tandem_err peers_show(cli_request *request, tandem_sync *sync, const char *name)
{
    struct gathering g = {.list = json_array(), .name = name, .running = request->running};
    tandem_err err;

    if (!g.list)
        return TANDEM_E_NOMEM;
    err = tandem_remotes(sync, gather_remote, &g);
    if (err == TANDEM_OK && name && json_array_size(g.list) == 0)
        err = cli_refuse(request, TANDEM_E_NOT_FOUND, "there is no peer `%s`", name);
    return hand_out(request, &g, err);
}

tandem_err cli_peer_ls_run(cli_request *request, const json_t *object)
{
    tandem_sync *sync;
    tandem_err err = cli_request_sync(request, false, &sync);

    return err == TANDEM_OK ? peers_show(request, sync, NULL) : err;
}

tandem_err cli_peer_show_run(cli_request *request, const json_t *object)
{
    const char *name;
    tandem_sync *sync;
    tandem_err err = peer_of(request, object, false, &name, &sync);

    return err == TANDEM_OK ? peers_show(request, sync, name) : err;
}

static bool is_job_of(const tandem_job_status *job, const struct gathering *g)
{
    static const uint8_t unknown[TANDEM_ORIGIN_BYTES];

    return (job->remote && !strcmp(job->remote, g->name)) ||
           (job->reactor && memcmp(g->reactor, unknown, sizeof(unknown)) != 0 &&
            !memcmp(job->reactor, g->reactor, sizeof(g->reactor)));
}

static json_t *json_scopes(tandem_slice scopes)
{
    json_t *list = scopes.size ? json_array() : json_null();

    for (size_t at = 0; list && at < scopes.size;) {
        tandem_slice scope = tandem_slice_text((const char *)scopes.bytes + at);

        json_array_append_new(list, cli_json_name(scope));
        at += scope.size + 1;
    }
    return list;
}

static tandem_err gather_job(void *context, const tandem_job_status *job)
{
    struct gathering *g = context;
    bool failed = job->err != TANDEM_OK, dead = job->reactor;
    json_t *line;

    if ((g->box && strcmp(g->box, job->box)) || (g->id && g->id != job->id) ||
        (g->name && !is_job_of(job, g)))
        return TANDEM_OK;
    line = json_pack("{s:o, s:s, s:s?, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
                     "s:o, s:o, s:o, s:o}",
                     "id", cli_json_number(job->id),
                     "box", job->box,
                     "remote", job->remote,
                     "status", job->status,
                     "collection", cli_json_name(job->collection),
                     "document", cli_json_name(job->document),
                     "branch", cli_json_name(job->branch),
                     "scopes", json_scopes(job->scopes),
                     "origin", cli_json_hex(job->origin, TANDEM_ORIGIN_BYTES),
                     "first_seq", cli_json_number(job->first_seq),
                     "last_seq", cli_json_number(job->last_seq),
                     "operations", cli_json_number(job->operations),
                     "bytes", cli_json_number(job->bytes),
                     "error", failed ? json_string(tandem_err_name(job->err)) : json_null(),
                     "reason", failed ? json_string(job->sentence) : json_null(),
                     "reactor", dead ? cli_json_hex(job->reactor, TANDEM_ORIGIN_BYTES) : json_null(),
                     "refused_at", cli_json_time(job->time_ms),
                     "offered", dead ? cli_json_number(job->offered) : json_null(),
                     "retry", json_boolean(job->retry));
    return json_array_append_new(g->list, line) ? TANDEM_E_NOMEM : TANDEM_OK;
}

static tandem_err jobs_show(cli_request *request, const char *box, uint64_t id)
{
    struct gathering g = {.list = NULL, .box = box, .id = id};
    tandem_sync *sync;
    tandem_err err = cli_request_sync(request, false, &sync);

    if (err != TANDEM_OK)
        return err;
    if (!(g.list = json_array()))
        return TANDEM_E_NOMEM;
    err = tandem_job_handles(sync, gather_job, &g);
    if (err == TANDEM_OK && id && json_array_size(g.list) == 0)
        err = cli_refuse(request, TANDEM_E_NOT_FOUND,
                         "no job %llu is in flight, nor is it a dead letter; `tandem job ls` lists "
                         "them all",
                         (unsigned long long)id);
    return hand_out(request, &g, err);
}

tandem_err cli_job_ls_run(cli_request *request, const json_t *object)
{
    return jobs_show(request, cli_text_of(object, "box"), 0);
}

tandem_err cli_job_show_run(cli_request *request, const json_t *object)
{
    uint64_t id = cli_number_of(object, "id", 0);

    if (!id)
        return cli_refuse(request, TANDEM_E_NOT_FOUND, "jobs are numbered from 1");
    return jobs_show(request, NULL, id);
}

static tandem_err change_letter(cli_request *request, const json_t *object, const char *done,
                                tandem_err (*call)(tandem_sync *sync, uint64_t id))
{
    uint64_t id = cli_number_of(object, "id", 0);
    tandem_sync *sync;
    tandem_err err = cli_request_sync(request, false, &sync);

    if (err == TANDEM_OK)
        err = call(sync, id);
    if (err == TANDEM_E_NOT_FOUND)
        return cli_refuse(request, err,
                          "there is no dead letter %llu; `tandem job ls --box dead` lists them",
                          (unsigned long long)id);
    return err == TANDEM_OK ? cli_emit(request, json_pack("{s:o, s:b}", "id", cli_json_number(id),
                                                          done, 1))
                            : err;
}

tandem_err cli_job_retry_run(cli_request *request, const json_t *object)
{
    return change_letter(request, object, "retry", tandem_job_retry);
}

tandem_err cli_job_discard_run(cli_request *request, const json_t *object)
{
    return change_letter(request, object, "discarded", tandem_job_discard);
}

/* ---- Waiting ---- */

/* What a wait for being in step waits for. */
struct outlook {
    const char *name; /* NULL: all that are not paused */
    size_t blocked;   /* until somebody acts */
    size_t others;    /* that are not in step yet */
};

static tandem_err look_at(void *context, const tandem_remote_status *status)
{
    struct outlook *outlook = context;
    bool paused = status->state == TANDEM_REMOTE_PAUSED;

    if (!status->name || (outlook->name ? strcmp(outlook->name, status->name) != 0 : paused))
        return TANDEM_OK;
    if (paused || status->state == TANDEM_REMOTE_BLOCKED)
        outlook->blocked++;
    else if (status->state != TANDEM_REMOTE_IN_STEP)
        outlook->others++;
    return TANDEM_OK;
}

/* Is nothing left to wait for but what does not end by itself? */
static bool is_hopeless(tandem_sync *sync, const char *name)
{
    struct outlook outlook = {.name = name};

    return tandem_remotes(sync, look_at, &outlook) == TANDEM_OK && outlook.blocked &&
           !outlook.others;
}

/* Wait for a while after a while, so that it ends when its caller has gone or the node stops. */
static tandem_err wait_in_steps(cli_request *request, tandem_sync *sync, const char *name,
                                tandem_barrier *barrier, uint64_t timeout_ms)
{
    uint64_t begun = cli_monotonic_ms();

    for (;;) {
        uint64_t passed = cli_monotonic_ms() - begun;
        uint64_t left = timeout_ms == UINT64_MAX ? UINT64_MAX
                        : passed < timeout_ms    ? timeout_ms - passed
                                                 : 0;
        uint64_t step_ms = left < STEP_MS ? left : STEP_MS;
        tandem_err err = barrier ? tandem_barrier_wait(barrier, step_ms)
                                 : tandem_wait_in_step(sync, name, step_ms);

        if (err == TANDEM_E_TIMEOUT && !barrier && is_hopeless(sync, name))
            return TANDEM_E_REFUSED;
        if (err != TANDEM_E_TIMEOUT || left <= STEP_MS)
            return err;
        if ((err = cli_check(request)) != TANDEM_OK)
            return err;
    }
}

static tandem_err find_name(void *context, const tandem_remote_status *status)
{
    struct gathering *g = context;

    if (status->name && (!g->name || !strcmp(g->name, status->name)))
        g->found++;
    return TANDEM_OK;
}

/* What keeps a peer back, for the sentence of a wait that did not end well. */
struct excuse {
    cli_request *request;
    const char *name;
    const char *advice; /* "; what to do", or "" */
    const char *of_dead_letters; /* the same where there are some; NULL: the same */
};

static tandem_err find_excuse(void *context, const tandem_remote_status *status)
{
    struct excuse *excuse = context;

    if (!status->name || (excuse->name && strcmp(excuse->name, status->name)) ||
        (!excuse->name && status->state == TANDEM_REMOTE_PAUSED) ||
        status->state == TANDEM_REMOTE_IN_STEP || excuse->request->why[0])
        return TANDEM_OK;
    cli_refuse(excuse->request, TANDEM_E_TIMEOUT, "`%s` is %s%s%s, %llu operations behind%s",
               status->name, tandem_remote_state_name(status->state), status->reason[0] ? ": " : "",
               status->reason, (unsigned long long)status->lag_operations,
               status->dead_letters && excuse->of_dead_letters ? excuse->of_dead_letters
                                                               : excuse->advice);
    return TANDEM_OK;
}

static void give_advice(struct excuse *excuse)
{
    excuse->advice = "; see to that, or resume, set or remove the peer";
    excuse->of_dead_letters = "; see to that, then `tandem job retry` or `discard` what it refuses";
}

static tandem_err find_reactor(void *context, const tandem_remote_status *status)
{
    struct gathering *g = context;

    if (status->name && !strcmp(g->name, status->name))
        memcpy(g->reactor, status->reactor, sizeof(g->reactor));
    return TANDEM_OK;
}

/* What a peer has refused. */
static tandem_err letters_show(cli_request *request, tandem_sync *sync, const char *name)
{
    struct gathering g = {.list = json_array(), .name = name, .box = "dead"};
    tandem_err err;

    if (!g.list)
        return TANDEM_E_NOMEM;
    err = tandem_remotes(sync, find_reactor, &g);
    if (err == TANDEM_OK)
        err = tandem_job_handles(sync, gather_job, &g);
    return hand_out(request, &g, err);
}

tandem_err cli_peer_sync_run(cli_request *request, const json_t *object)
{
    const char *name = cli_text_of(object, "name");
    bool waits = json_is_true(json_object_get(object, "wait"));
    struct gathering g = {.name = name};
    struct excuse excuse = {request, name, "", NULL};
    tandem_sync *sync;
    tandem_err err;

    if (!waits && !request->running)
        return cli_refuse(request, TANDEM_E_UNREACHABLE,
                          "no node runs; with --wait this command syncs by itself");
    if ((err = cli_request_sync(request, true, &sync)) != TANDEM_OK ||
        (err = tandem_remotes(sync, find_name, &g)) != TANDEM_OK)
        return err;
    if (name && !g.found)
        return named(request, TANDEM_E_NOT_FOUND, name);
    err = tandem_remote_poke(sync, name);
    if (err == TANDEM_OK && waits)
        err = wait_in_steps(request, sync, name, NULL, cli_timeout_of(object));
    if (err == TANDEM_E_REFUSED)
        give_advice(&excuse);
    if (err == TANDEM_E_TIMEOUT || err == TANDEM_E_REFUSED)
        tandem_remotes(sync, find_excuse, &excuse);
    if (err != TANDEM_OK)
        return err;
    return cli_emit(request, json_pack("{s:s?, s:b}", "name", name, "in_step", waits));
}

tandem_err cli_wait_run(cli_request *request, const json_t *object)
{
    const char *name;
    struct excuse excuse = {request, NULL, "", NULL};
    tandem_barrier *barrier;
    tandem_sync *sync;
    tandem_err err = peer_of(request, object, true, &name, &sync);

    if (err != TANDEM_OK)
        return err;
    if ((err = tandem_barrier_open(sync, name, &barrier)) == TANDEM_OK) {
        err = wait_in_steps(request, sync, name, barrier, cli_timeout_of(object));
        tandem_barrier_free(barrier);
    }
    excuse.name = name;
    if (err == TANDEM_E_NOT_FOUND)
        return named(request, err, name);
    if (err == TANDEM_E_REFUSED) {
        give_advice(&excuse);
        peers_show(request, sync, name);
        letters_show(request, sync, name);
    }
    if (err == TANDEM_E_TIMEOUT || err == TANDEM_E_REFUSED)
        tandem_remotes(sync, find_excuse, &excuse);
    if (err == TANDEM_E_REFUSED && !request->why[0])
        return cli_refuse(request, err,
                          "`%s` has all that goes to it, but not everything is shared with it", name);
    if (err != TANDEM_OK)
        return err;
    return cli_emit(request, json_pack("{s:s, s:b}", "peer", name, "covered", 1));
}
