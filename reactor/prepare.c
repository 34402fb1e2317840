#include "reactor/prepare.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store/hash_table.h"

_Static_assert(TD_GROUP_JOBS_MAX * TANDEM_JOB_OPERATIONS_MAX <= TANDEM_INTENT_INDEX_MAX,
               "each operation of a group has an index");

enum {
    /* What an operation has around its payload, besides its names: headers, origin, predecessor. */
    OPERATION_OVERHEAD = 128,
    PAYLOAD_BYTES_MAX = TANDEM_OPERATION_BYTES_MAX - 1024,
    NAME_SHOWN = 40, /* bytes of a foreign name in a sentence */
};

_Static_assert(OPERATION_OVERHEAD + 5 * TANDEM_NAME_BYTES_MAX <= 1024, "any names fit");

/* How many operations the group has in the chain of a collection so far. */
struct chain {
    td_hash_entry hash_entry;
    uint32_t operations;
    char key[];
};

/* The state of a scope, and on it what the group has pretended so far. */
struct ground {
    td_hash_entry hash_entry;
    const tandem_model *model;
    void *state;
    bool is_own; /* not a fold's */
    bool is_pretended;
    char key[];
};

/* What the group has made of a document so far. */
struct overlay {
    td_hash_entry hash_entry;
    bool live;
    bool state_read;
    bool touched; /* created or deleted in this group: no fold shows it */
    uint32_t lives; /* begun in this group */
    uint64_t created_hlc; /* of the CREATE that makes it live; 0 if that is of this group */
    td_document_info info; /* as it is without the group */
    char model[TANDEM_NAME_BYTES_MAX + 1];
    size_t size;
    char key[];
};

struct check {
    const td_preparer *preparer;
    td_local_group *group;
    td_hash_table overlays, chains, grounds;

    td_local_job *job;
    struct overlay *overlay;
    const tandem_model *model;
    struct chain *chain;
    size_t job_bytes; /* of the job, as far as it is prepared */
};

/* As much of a name as a sentence has room for, no character cut in two. */
static int shown(tandem_slice name)
{
    size_t size = name.size < NAME_SHOWN ? name.size : NAME_SHOWN;

    while (size > 0 && size < name.size && (name.bytes[size] & 0xc0) == 0x80)
        size--;
    return (int)size;
}

#define SHOW(name) shown(name), (const char *)(name).bytes /* for %.*s */

static tandem_slice text(const char *chars)
{
    return tandem_slice_text(chars);
}

/* ---- Form ---- */

static tandem_err check_name(struct check *check, tandem_slice name, const char *what)
{
    if (td_name_valid(name))
        return TANDEM_OK;
    td_why(check->group->why,
           "the name of the %s must be 1 to %d bytes of UTF-8 without control characters", what,
           TANDEM_NAME_BYTES_MAX);
    return TANDEM_E_INPUT;
}

static tandem_err check_type(struct check *check, td_local_operation *operation)
{
    tandem_slice type = operation->type, verb = td_type_verb(type);
    tandem_err err = check_name(check, type, "type");

    if (err)
        return err;
    if (verb.size == 0 || (verb.size < type.size && td_type_model(type).size == 0)) {
        td_why(check->group->why, "%.*s is no type: write VERB or MODEL.VERB", SHOW(type));
        return TANDEM_E_INPUT;
    }
    if (tandem_slice_equal(verb, text("CREATE")) || tandem_slice_equal(verb, text("DELETE"))) {
        td_why(check->group->why, "%.*s is the library's own: it creates and deletes documents",
               SHOW(verb));
        return TANDEM_E_INPUT;
    }
    operation->verb = verb;
    return TANDEM_OK;
}

static tandem_err check_operation_form(struct check *check, td_local_operation *operation)
{
    char *why = check->group->why;
    tandem_err err;

    if ((err = check_name(check, operation->scope, "scope")) != TANDEM_OK)
        return err;
    if (tandem_slice_equal(operation->scope, text(TD_SCOPE_DOCUMENT))) {
        td_why(why, "the scope `document` is the library's own");
        return TANDEM_E_INPUT;
    }
    if ((err = check_type(check, operation)) != TANDEM_OK)
        return err;
    if (operation->input.size > PAYLOAD_BYTES_MAX) {
        td_why(why, "the input has %zu bytes, at most %d are possible", operation->input.size,
               PAYLOAD_BYTES_MAX);
        return TANDEM_E_LIMIT;
    }
    err = tandem_msgpack_validate(operation->input, TANDEM_PAYLOAD_DEPTH_MAX,
                                  TANDEM_PAYLOAD_ITEMS_MAX);
    if (err)
        td_why(why, "the input is not one msgpack value of at most %d levels and %d items",
               TANDEM_PAYLOAD_DEPTH_MAX, TANDEM_PAYLOAD_ITEMS_MAX);
    return err;
}

static tandem_err check_form(struct check *check)
{
    td_local_job *job = check->job;
    char *why = check->group->why;
    tandem_err err;

    if ((err = check_name(check, job->collection, "collection")) != TANDEM_OK ||
        (err = check_name(check, job->document, "document")) != TANDEM_OK ||
        (err = check_name(check, job->branch, "branch")) != TANDEM_OK)
        return err;
    if (!td_collection_name_valid(job->collection)) {
        td_why(why, "names of collections that begin with '_' are reserved");
        return TANDEM_E_UNSUPPORTED;
    }
    if (job->model.size && (err = check_name(check, job->model, "model")) != TANDEM_OK)
        return err;
    if ((job->count == 0) != job->is_delete) {
        td_why(why, "a job has operations or deletes its document");
        return TANDEM_E_INPUT;
    }
    if (job->count > TANDEM_JOB_OPERATIONS_MAX - 1) {
        td_why(why, "the job has %zu operations, at most %d are possible", job->count,
               TANDEM_JOB_OPERATIONS_MAX - 1);
        return TANDEM_E_LIMIT;
    }
    for (size_t i = 0; i < job->count; i++)
        if ((err = check_operation_form(check, &job->operations[i])) != TANDEM_OK)
            return err;
    return TANDEM_OK;
}

/* ---- The document ---- */

/* The document as it is without the group, and what the group has made of it. */
static tandem_err look(struct check *check)
{
    const td_local_job *job = check->job;
    char key[2 * TANDEM_NAME_BYTES_MAX + 1];
    size_t size = job->collection.size + 1 + job->document.size;
    struct overlay *overlay;
    tandem_err err;

    memcpy(key, job->collection.bytes, job->collection.size);
    key[job->collection.size] = '\0';
    memcpy(key + job->collection.size + 1, job->document.bytes, job->document.size);
    check->overlay = td_hash_table_find(&check->overlays, tandem_slice_of(key, size));
    if (check->overlay)
        return TANDEM_OK;
    if (!(overlay = calloc(1, sizeof(*overlay) + size)))
        return TANDEM_E_NOMEM;
    err = check->preparer->look(check->preparer->look_context, job->collection, job->document,
                                &overlay->info);
    if (err != TANDEM_OK) {
        free(overlay);
        return err;
    }
    overlay->live = overlay->info.created && !overlay->info.deleted;
    overlay->created_hlc = overlay->live ? td_place_hlc(&overlay->info.epoch) : 0;
    memcpy(overlay->model, overlay->info.model, sizeof(overlay->model));
    overlay->size = size;
    memcpy(overlay->key, key, size);
    err = td_hash_table_add(&check->overlays, &overlay->hash_entry,
                            tandem_slice_of(overlay->key, size), overlay);
    if (err != TANDEM_OK) {
        free(overlay);
        return err;
    }
    check->overlay = overlay;
    return TANDEM_OK;
}

static tandem_err check_expect(struct check *check)
{
    const td_local_job *job = check->job;

    uint64_t position = check->overlay->info.last_ordinal;

    if (!job->has_expect || position == job->expect_position)
        return TANDEM_OK;
    td_why(check->group->why, "the document is at position %" PRIu64 ", not at %" PRIu64,
           position, job->expect_position);
    return TANDEM_E_CONFLICT;
}

static tandem_err check_delete(struct check *check)
{
    struct overlay *overlay = check->overlay;

    if (!overlay->live) {
        td_why(check->group->why, overlay->model[0] ? "the document is deleted already"
                                                    : "there is no such document");
        return TANDEM_E_NOT_FOUND;
    }
    if (overlay->created_hlc > check->group->clock) {
        td_why(check->group->why, "a clock that ran ahead created the document: there is none "
                                  "before that date");
        return TANDEM_E_NOT_FOUND;
    }
    check->job->created_hlc = overlay->created_hlc;
    memcpy(check->job->model_found, overlay->model, sizeof(overlay->model));
    overlay->live = false;
    overlay->touched = true;
    return TANDEM_OK;
}

/* The model that the job names for itself; empty if it names none. */
static tandem_slice model_named(const td_local_job *job)
{
    if (job->model.size)
        return job->model;
    for (size_t i = 0; i < job->count; i++)
        if (td_type_model(job->operations[i].type).size)
            return td_type_model(job->operations[i].type);
    return tandem_slice_of(NULL, 0);
}

static tandem_err mismatch(struct check *check, tandem_slice model, tandem_slice other)
{
    td_why(check->group->why, "the document's model is %.*s, not %.*s", SHOW(model), SHOW(other));
    return TANDEM_E_MODEL_MISMATCH;
}

static tandem_err check_model(struct check *check)
{
    td_local_job *job = check->job;
    struct overlay *overlay = check->overlay;
    tandem_slice named = model_named(job);
    tandem_slice model = overlay->model[0] ? text(overlay->model) : named;

    if (!overlay->live && !named.size) {
        td_why(check->group->why, overlay->model[0]
                                      ? "the document is deleted: name its model to create it again"
                                      : "the document is new: name its model");
        return TANDEM_E_MODEL_UNKNOWN;
    }
    /* A model is for ever, deleted or not: the CREATE of another one would not count. */
    if (named.size && !tandem_slice_equal(named, model))
        return mismatch(check, model, named);
    for (size_t i = 0; i < job->count; i++) {
        tandem_slice full = td_type_model(job->operations[i].type);

        if (full.size && !tandem_slice_equal(full, model))
            return mismatch(check, model, full);
    }
    check->model = td_model_registry_find(check->preparer->registry, model);
    if (!check->model) {
        td_why(check->group->why, "no model %.*s is registered", SHOW(model));
        return TANDEM_E_MODEL_UNKNOWN;
    }
    memcpy(job->model_found, model.bytes, model.size);
    job->model_found[model.size] = '\0';
    /* It may have been created while the clock here, or another, was far ahead. What is written now is
     * dated before that and would be a no-op for ever: the document begins here. */
    job->create = !overlay->live || overlay->created_hlc > check->group->clock;
    job->created_hlc = job->create ? 0 : overlay->created_hlc;
    return TANDEM_OK;
}

/* ---- Payloads ---- */

/* A model that looks at the state, and cannot pretend, must not be shown one that the group itself has
 * made stale. */
static tandem_err check_states(struct check *check)
{
    const td_local_job *job = check->job;
    char *why = check->group->why;

    if (!check->model->prepare_reads_state || check->model->pretend)
        return TANDEM_OK;
    if (check->overlay->state_read) {
        td_why(why, "a group can have one job on a document of the model %s", check->model->name);
        return TANDEM_E_UNSUPPORTED;
    }
    for (size_t i = 0; i < job->count; i++)
        for (size_t j = 0; j < i; j++)
            if (tandem_slice_equal(job->operations[i].scope, job->operations[j].scope)) {
                td_why(why, "a job can have one operation on a scope of the model %s",
                       check->model->name);
                return TANDEM_E_UNSUPPORTED;
            }
    return TANDEM_OK;
}

static tandem_slice payload_of(const struct check *check, const td_local_operation *operation)
{
    return tandem_slice_of(check->group->payloads.bytes + operation->payload_at,
                           operation->payload_size);
}

static tandem_intent intent_of(const struct check *check, size_t index)
{
    const td_local_operation *operation = &check->job->operations[index];

    return (tandem_intent){.verb = operation->verb,
                           .input = operation->input,
                           .index = check->chain->operations + check->job->create + (uint32_t)index,
                           .origin = check->group->origin};
}

static tandem_err check_payload(struct check *check, const td_local_operation *operation)
{
    char *why = check->group->why;
    tandem_slice payload = payload_of(check, operation);

    if (strlen(check->model->name) + 1 + operation->verb.size > TANDEM_NAME_BYTES_MAX) {
        td_why(why, "the type %s.%.*s is longer than %d bytes", check->model->name,
               SHOW(operation->verb), TANDEM_NAME_BYTES_MAX);
        return TANDEM_E_LIMIT;
    }
    if (payload.size > PAYLOAD_BYTES_MAX) {
        td_why(why, "the payload has %zu bytes, at most %d are possible", payload.size,
               PAYLOAD_BYTES_MAX);
        return TANDEM_E_LIMIT;
    }
    if (tandem_msgpack_validate(payload, TANDEM_PAYLOAD_DEPTH_MAX, TANDEM_PAYLOAD_ITEMS_MAX)) {
        td_why(why, "the payload nests deeper than %d levels or holds more than %d items",
               TANDEM_PAYLOAD_DEPTH_MAX, TANDEM_PAYLOAD_ITEMS_MAX);
        return TANDEM_E_PAYLOAD;
    }
    return TANDEM_OK;
}

/* An operation more of the job: no more is prepared than it may have. */
static tandem_err add_size(struct check *check, size_t bytes)
{
    const td_local_job *job = check->job;

    check->job_bytes += OPERATION_OVERHEAD + job->collection.size + job->document.size +
                        job->branch.size + strlen(check->model->name) + bytes;
    if (check->job_bytes <= TANDEM_JOB_BYTES_MAX)
        return TANDEM_OK;
    td_why(check->group->why, "the job is larger than %d bytes", TANDEM_JOB_BYTES_MAX);
    return TANDEM_E_LIMIT;
}

/* The operation's payload, and whether it may be one. */
static tandem_err prepare_payload(struct check *check, size_t index, const void *state)
{
    td_local_group *group = check->group;
    td_local_operation *operation = &check->job->operations[index];
    const tandem_intent intent = intent_of(check, index);
    tandem_err err;

    operation->payload_at = group->payloads.size;
    err = check->model->prepare(state, &intent, &group->payloads, group->why);
    if (err == TANDEM_OK)
        err = tandem_writer_err(&group->payloads);
    operation->payload_size = group->payloads.size - operation->payload_at;
    if (err == TANDEM_OK)
        err = check_payload(check, operation);
    return err == TANDEM_OK ? add_size(check, operation->scope.size + 1 + operation->verb.size +
                                                  operation->payload_size)
                            : err;
}

/* The next operation on the scope of this one; count: there is none. */
static size_t next_on_scope(const td_local_job *job, size_t index)
{
    tandem_slice scope = job->operations[index].scope;

    while (++index < job->count)
        if (tandem_slice_equal(job->operations[index].scope, scope))
            break;
    return index;
}

static bool is_first_on_scope(const td_local_job *job, size_t index)
{
    for (size_t i = 0; i < index; i++)
        if (tandem_slice_equal(job->operations[i].scope, job->operations[index].scope))
            return false;
    return true;
}

/* ---- States ---- */

/* A name and what separates it from the next one. */
static size_t key_add(char *key, size_t size, tandem_slice name)
{
    memcpy(key + size, name.bytes, name.size);
    key[size + name.size] = '\0';
    return size + name.size + 1;
}

static void ground_free(void *item)
{
    struct ground *ground = item;

    if (ground->is_pretended)
        ground->model->take_back(ground->state);
    if (ground->is_own)
        ground->model->state_free(ground->state);
    free(ground);
}

static tandem_err ground_open(struct check *check, tandem_slice scope, struct ground *ground)
{
    const td_local_job *job = check->job;
    td_fold fold = {0};
    tandem_err err;

    ground->model = check->model;
    if ((ground->is_own = job->create || check->overlay->touched))
        return ground->model->state_open(&ground->state);
    err = td_folder_fold(check->preparer->folder, check->preparer->index, job->collection,
                         job->document, &check->overlay->info, job->branch, scope, true, &fold,
                         check->group->why);
    ground->state = (void *)fold.state; /* what is pretended is taken back before anybody sees it */
    return err;
}

/* What an operation on a scope is prepared against. */
static tandem_err ground_of(struct check *check, tandem_slice scope, struct ground **out)
{
    const td_local_job *job = check->job;
    char key[4 * (TANDEM_NAME_BYTES_MAX + 1) + sizeof(uint32_t)];
    uint32_t life = check->overlay->lives + job->create;
    size_t size = 0;
    tandem_err err;

    size = key_add(key, size, job->collection);
    size = key_add(key, size, job->document);
    size = key_add(key, size, job->branch);
    size = key_add(key, size, scope);
    memcpy(key + size, &life, sizeof(life));
    size += sizeof(life);
    if ((*out = td_hash_table_find(&check->grounds, tandem_slice_of(key, size))))
        return TANDEM_OK;
    if (td_hash_table_count(&check->grounds) == TD_GROUP_STATES_MAX) {
        td_why(check->group->why, "the group edits more than %d scopes of documents of the model %s",
               TD_GROUP_STATES_MAX, check->model->name);
        return TANDEM_E_LIMIT;
    }
    if (!(*out = calloc(1, sizeof(**out) + size)))
        return TANDEM_E_NOMEM;
    memcpy((*out)->key, key, size);
    if ((err = ground_open(check, scope, *out)) != TANDEM_OK) {
        free(*out);
        return err;
    }
    if ((err = td_hash_table_add(&check->grounds, &(*out)->hash_entry,
                                 tandem_slice_of((*out)->key, size), *out)) != TANDEM_OK)
        ground_free(*out);
    return err;
}

/* All operations on a scope, each against the state with those before it. */
static tandem_err prepare_scope(struct check *check, size_t index)
{
    const tandem_model *model = check->model;
    const td_local_group *group = check->group;
    td_local_job *job = check->job;
    bool is_last_job = job == &group->jobs[group->count - 1];
    struct ground *ground;
    tandem_err err;

    job->state_read = check->overlay->state_read = true;
    if ((err = ground_of(check, job->operations[index].scope, &ground)) != TANDEM_OK)
        return err;
    for (size_t next; index < job->count && err == TANDEM_OK; index = next) {
        const td_local_operation *operation = &job->operations[index];
        const tandem_intent intent = intent_of(check, index);

        next = next_on_scope(job, index);
        err = prepare_payload(check, index, ground->state);
        if (err == TANDEM_OK && model->pretend && (next < job->count || !is_last_job)) {
            ground->is_pretended = true; /* one that fails may be half done */
            err = model->pretend(ground->state, &intent, payload_of(check, operation));
        }
    }
    return err;
}

static tandem_err prepare_payloads(struct check *check)
{
    const td_local_job *job = check->job;
    tandem_err err = check_states(check);

    check->job_bytes = 0;
    if (err == TANDEM_OK && job->create)
        err = add_size(check, strlen(TD_SCOPE_DOCUMENT) + 8);
    for (size_t i = 0; i < job->count && err == TANDEM_OK; i++)
        if (!check->model->prepare_reads_state)
            err = prepare_payload(check, i, NULL);
        else if (is_first_on_scope(job, i))
            err = prepare_scope(check, i);
    return err;
}

/* ---- The group ---- */

static tandem_err chain_of(struct check *check, tandem_slice collection, struct chain **out)
{
    tandem_err err;

    if ((*out = td_hash_table_find(&check->chains, collection)))
        return TANDEM_OK;
    if (!(*out = calloc(1, sizeof(**out) + collection.size)))
        return TANDEM_E_NOMEM;
    memcpy((*out)->key, collection.bytes, collection.size);
    if ((err = td_hash_table_add(&check->chains, &(*out)->hash_entry,
                                 tandem_slice_of((*out)->key, collection.size), *out)) != TANDEM_OK)
        free(*out);
    return err;
}

static tandem_err check_job(struct check *check)
{
    td_local_job *job = check->job;
    tandem_err err;

    job->model_found[0] = '\0';
    job->create = job->state_read = false;
    job->created_hlc = 0;
    if ((err = check_form(check)) != TANDEM_OK || (err = look(check)) != TANDEM_OK ||
        (err = check_expect(check)) != TANDEM_OK ||
        (err = chain_of(check, job->collection, &check->chain)) != TANDEM_OK)
        return err;
    if (job->is_delete) {
        check->chain->operations++;
        return check_delete(check);
    }
    if ((err = check_model(check)) != TANDEM_OK || (err = prepare_payloads(check)) != TANDEM_OK)
        return err;
    check->chain->operations += (uint32_t)job->count + job->create;
    if (job->create) {
        check->overlay->live = true;
        check->overlay->touched = true;
        check->overlay->lives++;
        check->overlay->created_hlc = 0;
        memcpy(check->overlay->model, job->model_found, sizeof(job->model_found));
    }
    return TANDEM_OK;
}

tandem_err td_prepare(const td_preparer *preparer, td_local_group *group)
{
    struct check check = {.preparer = preparer, .group = group};
    size_t i = 0;

    assert(group->count >= 1 && group->count <= TD_GROUP_JOBS_MAX);
    tandem_writer_clear(&group->payloads);
    if (preparer->folder)
        td_folder_hold(preparer->folder);
    group->err = TANDEM_OK;
    group->failed_job = 0;
    group->why[0] = '\0';
    for (; i < group->count && group->err == TANDEM_OK; i++) {
        check.job = &group->jobs[i];
        group->err = check_job(&check);
    }
    if (group->err) {
        group->failed_job = i - 1;
        if (!group->why[0])
            td_why(group->why, "%s", tandem_err_text(group->err));
    }
    td_hash_table_clear(&check.grounds, ground_free);
    td_hash_table_clear(&check.chains, free);
    td_hash_table_clear(&check.overlays, free);
    if (preparer->folder)
        td_folder_release(preparer->folder);
    return group->err;
}
