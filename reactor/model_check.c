#include "reactor/model_check.h"

#include <stdio.h>
#include <stdlib.h>

#include "reactor/fold.h"
#include "reactor/model_history.h"
#include "reactor/runtime.h"

enum { ARRIVALS = 3, STATES_MAX = 2, SHOW_DEPTH_MAX = TANDEM_PAYLOAD_DEPTH_MAX + 16 };

/* One check: a seed after the other. */
struct check {
    const tandem_model *model;
    const tandem_model_check_options *options;
    td_model_registry *registry;
    td_simulation *simulation;
    td_runtime *runtime;
    uint64_t seed;
    uint64_t accepted;
    unsigned arrivals; /* of this seed's history, in disorder */
    td_history history;
    tandem_writer shown[TD_HISTORY_OPERATIONS]; /* the state after each operation, as walked */
    tandem_writer scratch;
    char *why;
};

#define BROKEN(check, ...) td_model_why((check)->why, TANDEM_E_INTERNAL, (check)->seed, __VA_ARGS__)

/* ---- Law by law, on the model alone ---- */

/* Show a state into out, which is emptied. */
static tandem_err show(struct check *c, const void *state, tandem_writer *out)
{
    tandem_err err;

    tandem_writer_clear(out);
    err = c->model->show(state, out);
    if (err == TANDEM_OK)
        err = tandem_writer_err(out);
    if (err != TANDEM_OK && err != TANDEM_E_NOMEM)
        err = BROKEN(c, "show: it answered %s", tandem_err_name(err));
    return err;
}

static tandem_err check_shows(struct check *c, const void *state, const tandem_writer *expected,
                              bool *equal_out)
{
    tandem_err err = show(c, state, &c->scratch);

    *equal_out =
        tandem_slice_equal(tandem_writer_slice(&c->scratch), tandem_writer_slice(expected));
    return err;
}

static tandem_err check_canonical(struct check *c, const tandem_writer *shown)
{
    tandem_slice value = tandem_writer_slice(shown);
    tandem_err err;

    tandem_writer_clear(&c->scratch);
    err = tandem_msgpack_validate(value, SHOW_DEPTH_MAX, UINT32_MAX);
    if (err == TANDEM_OK)
        err = tandem_write_canonical(&c->scratch, value);
    if (err == TANDEM_E_NOMEM)
        return err;
    if (err != TANDEM_OK)
        return BROKEN(c, "show: what it writes is not one value of msgpack");
    if (!tandem_slice_equal(value, tandem_writer_slice(&c->scratch)))
        return BROKEN(c, "show: what it writes is not canonical");
    return TANDEM_OK;
}

static tandem_err check_restore(struct check *c, const void *state, const tandem_writer *expected)
{
    void *restored = NULL;
    bool equal = false;
    tandem_writer snapshot;
    tandem_err err;

    tandem_writer_init(&snapshot);
    if ((err = c->model->save(state, &snapshot)) != TANDEM_OK ||
        (err = tandem_writer_err(&snapshot)) != TANDEM_OK)
        goto out;
    if ((err = c->model->restore(tandem_writer_slice(&snapshot), &restored)) != TANDEM_OK)
        goto out;
    if ((err = check_shows(c, restored, expected, &equal)) != TANDEM_OK)
        goto out;
    if (!equal) {
        err = BROKEN(c, "restore: what save wrote is restored to a state that shows another value");
        goto out;
    }
    c->model->state_free(restored);
    restored = NULL;
    if (snapshot.size) {
        snapshot.size = td_dice_below(&c->history.dice, (uint32_t)snapshot.size);
        err = c->model->restore(tandem_writer_slice(&snapshot), &restored);
        if (err == TANDEM_E_CORRUPT) {
            restored = NULL;
            err = TANDEM_OK;
        }
    }
out:
    if (err != TANDEM_OK && err != TANDEM_E_NOMEM && err != TANDEM_E_INTERNAL)
        err = BROKEN(c, "restore: save or restore answered %s", tandem_err_name(err));
    if (restored)
        c->model->state_free(restored);
    tandem_writer_release(&snapshot);
    return err;
}

/*
 * Apply an operation whose payload is gone afterwards. It stands alone in its memory, so that
 * AddressSanitizer sees who reads beyond it.
 */
static tandem_err apply_borrowed(struct check *c, void *state, const td_operation *operation)
{
    td_operation borrowed = *operation;
    uint8_t *payload = malloc(operation->payload.size ? operation->payload.size : 1);
    tandem_err err;

    if (!payload)
        return TANDEM_E_NOMEM;
    if (operation->payload.size)
        memcpy(payload, operation->payload.bytes, operation->payload.size);
    borrowed.payload.bytes = payload;
    err = td_fold_apply(c->model, state, &borrowed);
    memset(payload, 0xc1, operation->payload.size);
    free(payload);
    return err;
}

/* Through the history in total order, one state after the other. */
static tandem_err walk(struct check *c)
{
    const td_history *history = &c->history;
    void *state = NULL;
    tandem_err err = c->model->state_open(&state);

    if (err == TANDEM_OK)
        err = show(c, state, &c->shown[0]);
    for (size_t i = 1; err == TANDEM_OK && i < history->count; i++) {
        const td_operation *operation = &history->operations[i];
        tandem_err applied = apply_borrowed(c, state, operation);

        if (applied == TANDEM_E_NOMEM)
            err = applied;
        else if (applied != TANDEM_OK && applied != TANDEM_E_INPUT)
            err = BROKEN(c, "apply: of a %.*s it answered %s", (int)operation->type.size,
                         (const char *)operation->type.bytes, tandem_err_name(applied));
        else
            err = show(c, state, &c->shown[i]);
        if (err == TANDEM_OK && applied == TANDEM_E_INPUT &&
            !tandem_slice_equal(tandem_writer_slice(&c->shown[i]),
                                tandem_writer_slice(&c->shown[i - 1])))
            err = BROKEN(c, "refusal: a %.*s was refused and has changed the state",
                         (int)operation->type.size, (const char *)operation->type.bytes);
        if (err == TANDEM_OK)
            err = check_canonical(c, &c->shown[i]);
        if (err == TANDEM_OK)
            err = check_restore(c, state, &c->shown[i]);
    }
    if (state)
        c->model->state_free(state);
    return err;
}

/* ---- On the parts of a reactor ---- */

struct replica {
    td_op_store *ops;
    td_stream_index *index;
    td_folder *folder;
    td_document_info info;
};

static void replica_free(struct replica *r)
{
    td_folder_free(r->folder);
    td_stream_index_free(r->index);
    td_op_store_free(r->ops);
}

static tandem_err replica_open(struct check *c, struct replica *r)
{
    tandem_env *env = c->runtime->env;
    td_store *store;
    tandem_err err;

    memset(r, 0, sizeof(*r));
    if ((err = td_memory_store_open(env, NULL, td_op_store_tables, td_op_store_table_count,
                                    &store)) == TANDEM_OK &&
        (err = td_op_store_open(env, store, &r->ops)) == TANDEM_OK &&
        (err = td_memory_store_open(env, NULL, td_stream_index_tables,
                                    td_stream_index_table_count, &store)) == TANDEM_OK &&
        (err = td_stream_index_open(env, store, r->ops, &r->index)) == TANDEM_OK)
        err = td_folder_open(r->ops, c->registry, STATES_MAX, &r->folder);
    if (err != TANDEM_OK)
        replica_free(r);
    return err;
}

/* TANDEM_E_PREDECESSOR: not yet. */
static tandem_err arrive(struct replica *r, const td_operation *operation)
{
    td_append_result result;
    tandem_err err = td_op_store_begin(r->ops), late;

    if (err != TANDEM_OK)
        return err;
    late = td_op_store_append(r->ops, operation, 1, &result);
    if (late != TANDEM_OK && late != TANDEM_E_PREDECESSOR) {
        td_op_store_abort(r->ops);
        return late;
    }
    err = td_op_store_commit(r->ops);
    return err != TANDEM_OK ? err : late;
}

/* The state of all that has arrived; state is NULL as long as there is no CREATE. */
static tandem_err fold(struct check *c, struct replica *r, td_fold *out)
{
    tandem_slice collection = tandem_slice_text(TD_HISTORY_COLLECTION);
    tandem_slice document = tandem_slice_text(TD_HISTORY_DOCUMENT);
    char why[TD_WHY_BYTES] = "";
    uint64_t position;
    bool current;
    tandem_err err;

    out->state = NULL;
    if ((err = td_stream_index_advance(r->index, TD_HISTORY_OPERATIONS, &position,
                                       &current)) != TANDEM_OK ||
        (err = td_stream_index_document(r->index, collection, document, &r->info)) != TANDEM_OK ||
        !r->info.created)
        return err;
    err = td_folder_fold(r->folder, r->index, collection, document, &r->info,
                         tandem_slice_text(TD_HISTORY_BRANCH), tandem_slice_text(TD_HISTORY_SCOPE),
                         true, out, why);
    if (err != TANDEM_OK && err != TANDEM_E_NOMEM)
        err = BROKEN(c, "purity: a fold that went well before fails: %s", why);
    return err;
}

/* Leave a snapshot of what was folded, as a long fold does, and forget the state itself. */
static tandem_err leave_snapshot(struct check *c, struct replica *r, const td_fold *found)
{
    tandem_slice collection = tandem_slice_text(TD_HISTORY_COLLECTION);
    tandem_slice document = tandem_slice_text(TD_HISTORY_DOCUMENT);
    tandem_slice branch = tandem_slice_text(TD_HISTORY_BRANCH);
    tandem_slice scope = tandem_slice_text(TD_HISTORY_SCOPE);
    td_snapshot snapshot = {found->place, found->entries, c->model->version, {NULL, 0}};
    tandem_err err;

    if (found->entries == 0)
        return TANDEM_OK;
    tandem_writer_clear(&c->scratch);
    if ((err = c->model->save(found->state, &c->scratch)) != TANDEM_OK ||
        (err = tandem_writer_err(&c->scratch)) != TANDEM_OK)
        return err;
    snapshot.bytes = tandem_writer_slice(&c->scratch);
    err = td_stream_index_put_snapshot(r->index, collection, document, branch, scope, &snapshot);
    td_folder_clear(r->folder);
    return err;
}

/* All there, then folded twice from the beginning. */
static tandem_err check_purity(struct check *c, struct replica *r)
{
    const tandem_writer *whole = &c->shown[c->history.count - 1];
    td_fold found;
    bool equal;
    tandem_err err = TANDEM_OK;

    for (size_t i = 0; err == TANDEM_OK && i < c->history.count; i++)
        err = arrive(r, &c->history.operations[i]);
    for (unsigned i = 0; err == TANDEM_OK && i < 2; i++) {
        if ((err = fold(c, r, &found)) != TANDEM_OK ||
            (err = check_shows(c, found.state, whole, &equal)) != TANDEM_OK)
            return err;
        if (!equal)
            return BROKEN(c, "purity: two folds of the same operations show different values");
        td_folder_clear(r->folder);
    }
    return err;
}

/* One after the other, each folded from a snapshot of all before it. */
static tandem_err check_snapshots(struct check *c, struct replica *r)
{
    td_fold found;
    bool equal;
    tandem_err err = TANDEM_OK;

    for (size_t i = 0; err == TANDEM_OK && i < c->history.count; i++) {
        if ((err = arrive(r, &c->history.operations[i])) != TANDEM_OK ||
            (err = fold(c, r, &found)) != TANDEM_OK ||
            (err = check_shows(c, found.state, &c->shown[i], &equal)) != TANDEM_OK)
            return err;
        if (!equal)
            return BROKEN(c, "snapshot: one of %zu operations and the next one show another value "
                             "than all of them folded", i ? i - 1 : 0);
        err = leave_snapshot(c, r, &found);
    }
    return err;
}

/*
 * In random order, as far as chains let it be. Some come twice; folds on the way leave states and
 * snapshots that the next arrivals may make wrong.
 *
 * disorder     only so many may overtake each other: where any may, there is hardly ever a snapshot
 *              before what comes late
 */
static tandem_err arrive_in_disorder(struct check *c, struct replica *r, size_t disorder)
{
    td_history *history = &c->history;
    bool held[TD_HISTORY_OPERATIONS] = {false};
    td_fold found;

    for (size_t first = 0; first < history->count;) {
        size_t left = history->count - first;
        size_t among = left < disorder ? left : disorder;
        size_t i = first + td_dice_below(&history->dice, (uint32_t)among);
        tandem_err err = arrive(r, &history->operations[i]);

        if (err == TANDEM_E_PREDECESSOR)
            continue;
        held[i] |= err == TANDEM_OK;
        while (first < history->count && held[first])
            first++;
        if (err == TANDEM_OK && td_dice_below(&history->dice, 6) == 0 &&
            (err = fold(c, r, &found)) == TANDEM_OK && found.state &&
            td_dice_below(&history->dice, 2))
            err = leave_snapshot(c, r, &found);
        if (err != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

static tandem_err check_order(struct check *c, struct replica *r)
{
    static const size_t disorders[] = {TD_HISTORY_OPERATIONS, 4, 12};
    size_t disorder = disorders[c->arrivals++ % (sizeof(disorders) / sizeof(disorders[0]))];
    td_fold found;
    bool equal;
    tandem_err err;

    if ((err = arrive_in_disorder(c, r, disorder)) != TANDEM_OK ||
        (err = fold(c, r, &found)) != TANDEM_OK ||
        (err = check_shows(c, found.state, &c->shown[c->history.count - 1], &equal)) != TANDEM_OK)
        return err;
    if (!equal)
        return BROKEN(c, "order: in another order of arrival the same operations show another "
                         "value");
    return TANDEM_OK;
}

/* ---- All of it ---- */

static tandem_err check_seed(struct check *c)
{
    tandem_err (*const laws[])(struct check *, struct replica *) = {check_purity, check_snapshots,
                                                                    check_order};
    enum { LAWS = sizeof(laws) / sizeof(laws[0]) };
    tandem_err err = td_history_draw(&c->history, c->model, c->options, c->seed, c->why);

    c->arrivals = 0;
    if (err == TANDEM_OK)
        err = walk(c);
    for (unsigned i = 0; err == TANDEM_OK && i < LAWS + ARRIVALS - 1; i++) {
        struct replica r;

        if ((err = replica_open(c, &r)) != TANDEM_OK)
            break;
        err = laws[i < LAWS ? i : LAWS - 1](c, &r);
        replica_free(&r);
    }
    c->accepted += c->history.accepted;
    td_history_release(&c->history);
    return err;
}

static tandem_err check_open(struct check *c)
{
    const tandem_model *model = c->model;
    tandem_err err;

    if ((err = td_model_registry_open(&c->registry)) != TANDEM_OK)
        return err;
    err = td_model_registry_add(c->registry, model);
    if (err == TANDEM_E_EXISTS &&
        td_model_registry_find(c->registry, tandem_slice_text(model->name)) == model)
        err = TANDEM_OK; /* a built-in one */
    if (err != TANDEM_OK) {
        if (err == TANDEM_E_INVALID)
            td_model_why(c->why, err, c->seed, "the model's name, size or one of its slots is wrong");
        return err;
    }
    if ((err = td_simulation_open(1, &c->simulation)) != TANDEM_OK)
        return err;
    return td_simulation_runtime(c->simulation, "check", 0, &c->runtime);
}

tandem_err tandem_model_check(const tandem_model *model, const tandem_model_check_options *options,
                              char why[TANDEM_MODEL_WHY_BYTES])
{
    struct check *c;
    tandem_err err;

    why[0] = '\0';
    if (!options || options->size != sizeof(*options) || !options->verbs || !options->verbs[0] ||
        options->seeds == 0) {
        snprintf(why, TANDEM_MODEL_WHY_BYTES, "the options want size, verbs and how many seeds");
        return TANDEM_E_INVALID;
    }
    if (!(c = calloc(1, sizeof(*c))))
        return TANDEM_E_NOMEM;
    c->model = model;
    c->options = options;
    c->why = why;
    tandem_writer_init(&c->scratch);
    for (size_t i = 0; i < TD_HISTORY_OPERATIONS; i++)
        tandem_writer_init(&c->shown[i]);
    c->seed = options->seed;
    err = check_open(c);
    for (uint32_t i = 0; err == TANDEM_OK && i < options->seeds; i++) {
        c->seed = options->seed + i;
        err = check_seed(c);
    }
    if (err == TANDEM_OK && c->accepted == 0)
        err = td_model_why(why, TANDEM_E_INVALID, c->seed,
                           "prepare accepted no input that was drawn: nothing is proven");
    if (err != TANDEM_OK && !why[0])
        td_model_why(why, err, c->seed, "%s", tandem_err_text(err));
    for (size_t i = 0; i < TD_HISTORY_OPERATIONS; i++)
        tandem_writer_release(&c->shown[i]);
    tandem_writer_release(&c->scratch);
    td_runtime_free(c->runtime);
    td_simulation_free(c->simulation);
    td_model_registry_free(c->registry);
    free(c);
    return err;
}
