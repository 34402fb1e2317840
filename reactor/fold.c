#include "reactor/fold.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store/hash_table.h"
#include "store/planted.h"
#include "store/probe.h"

enum {
    PAGE_ENTRIES = 256,
    /* Scanning over so few foreign operations is cheaper than a new transaction. */
    GAP_MAX = 4,
    KEY_BYTES_MAX = 4 * TANDEM_NAME_BYTES_MAX + 3,
};

struct state {
    td_hash_entry hash_entry;
    const tandem_model *model;
    void *state;
    td_place epoch;
    td_place place;    /* of the last entry in it */
    uint64_t folded;   /* entries of the stream up to place */
    uint64_t since;    /* of them since the last snapshot */
    uint64_t estimate; /* bytes of a snapshot, as far as one was made */
    size_t size;
    char key[];
};

struct td_folder {
    td_op_store *ops;
    const td_model_registry *registry;
    unsigned states_max;
    td_hash_table states; /* the longest unused first */
    struct state *loose;  /* the last one that was not to be kept */
    bool held;
    tandem_writer snapshot;
    uint64_t folded;
    td_entry page[PAGE_ENTRIES];
    size_t page_count;
};

/* ---- Reading entries ---- */

struct reading {
    const td_entry *entries;
    size_t count, at;
    td_stream_index *index;
    td_visit_entry_operation visit;
    void *context;
    char *why;
    bool stopped;
};

/*
 * The store holds no record where the index says so. The index is built from the store, so it is
 * the index that goes; if the store has lost the record, the new index counts it as gone.
 */
static tandem_err points_at_nothing(td_stream_index *index, const td_entry *entry,
                                    char why[TD_WHY_BYTES])
{
    td_why(why, "the index names a record at ordinal %" PRIu64 ", and there is none",
           entry->ordinal);
    td_stream_index_distrust(index);
    return TANDEM_E_CORRUPT;
}

static tandem_err read_one(void *context, tandem_err err, uint64_t ordinal,
                           const td_operation *operation)
{
    struct reading *r = context;
    const td_entry *entry = &r->entries[r->at];
    td_entry whole;
    uint64_t next;

    if (ordinal < entry->ordinal)
        return TANDEM_OK; /* in a gap */
    if (ordinal > entry->ordinal)
        return points_at_nothing(r->index, entry, r->why);
    if (err) {
        td_why(r->why, "the record at ordinal %" PRIu64 " is corrupt", entry->ordinal);
        return TANDEM_E_CORRUPT;
    }
    if (!td_place_names(&entry->place, operation)) {
        td_why(r->why, "the index does not fit the record at ordinal %" PRIu64, ordinal);
        td_stream_index_distrust(r->index);
        return TANDEM_E_CORRUPT;
    }
    whole = (td_entry){td_place_with_hash(&entry->place, operation), ordinal};
    err = r->visit(r->context, &whole, operation);
    if (err) {
        r->stopped = err == TANDEM_END;
        return err;
    }
    if (++r->at == r->count)
        return TANDEM_END;
    next = r->entries[r->at].ordinal;
    return next > ordinal && next - ordinal <= GAP_MAX ? TANDEM_OK : TANDEM_END;
}

tandem_err td_entries_read(td_op_store *ops, td_stream_index *index, tandem_slice collection,
                           const td_entry *entries, size_t count, td_visit_entry_operation visit,
                           void *context, char why[TD_WHY_BYTES])
{
    struct reading r = {entries, count, 0, index, visit, context, why, false};

    while (r.at < count && !r.stopped) {
        size_t before = r.at;
        tandem_err err =
            td_op_store_scan(ops, collection, entries[r.at].ordinal - 1, read_one, &r);

        if (err < TANDEM_OK)
            return err;
        if (r.at == before && !r.stopped)
            return points_at_nothing(index, &entries[r.at], why);
    }
    return TANDEM_OK;
}

/* ---- The cache ---- */

static void state_free(struct state *s)
{
    if (!s)
        return;
    if (s->state)
        s->model->state_free(s->state);
    free(s);
}

static void forget(td_folder *folder, struct state *s)
{
    if (s == folder->loose)
        folder->loose = NULL;
    else
        td_hash_table_remove(&folder->states, &s->hash_entry);
    state_free(s);
}

tandem_err td_folder_open(td_op_store *ops, const td_model_registry *registry, unsigned states_max,
                          td_folder **out)
{
    td_folder *folder = calloc(1, sizeof(*folder));

    if (!folder)
        return TANDEM_E_NOMEM;
    folder->ops = ops;
    folder->registry = registry;
    folder->states_max = states_max;
    tandem_writer_init(&folder->snapshot);
    *out = folder;
    return TANDEM_OK;
}

static void make_room(td_folder *folder)
{
    while (!folder->held && td_hash_table_count(&folder->states) > folder->states_max)
        forget(folder, td_hash_table_first(&folder->states));
}

void td_folder_hold(td_folder *folder)
{
    folder->held = true;
}

void td_folder_release(td_folder *folder)
{
    folder->held = false;
    make_room(folder);
}

void td_folder_clear(td_folder *folder)
{
    struct state *s;

    assert(!folder->held);
    while ((s = td_hash_table_first(&folder->states)))
        forget(folder, s);
    if (folder->loose)
        forget(folder, folder->loose);
}

void td_folder_free(td_folder *folder)
{
    if (!folder)
        return;
    td_folder_clear(folder);
    tandem_writer_release(&folder->snapshot);
    free(folder);
}

static size_t key_make(char *key, tandem_slice collection, tandem_slice document,
                       tandem_slice branch, tandem_slice scope)
{
    const tandem_slice names[] = {collection, document, branch, scope};
    size_t size = 0;

    for (unsigned i = 0; i < 4; i++) {
        assert(names[i].size <= TANDEM_NAME_BYTES_MAX);
        if (i)
            key[size++] = '\0';
        if (names[i].size)
            memcpy(key + size, names[i].bytes, names[i].size);
        size += names[i].size;
    }
    return size;
}

/* Put it last in line; it may be new. */
static tandem_err touch(td_folder *folder, struct state *s, bool is_new)
{
    tandem_err err;

    if (!is_new)
        td_hash_table_remove(&folder->states, &s->hash_entry);
    err = td_hash_table_add(&folder->states, &s->hash_entry, tandem_slice_of(s->key, s->size), s);
    if (err != TANDEM_OK) {
        state_free(s);
        return err;
    }
    make_room(folder);
    return TANDEM_OK;
}

/* ---- Folding ---- */

/* One call: which stream of what. */
struct run {
    td_folder *folder;
    td_stream_index *index;
    tandem_slice collection, document, branch, scope;
    const td_document_info *info;
    const tandem_model *model;
    uint64_t entries; /* in the stream */
    struct state *state;
    char *why;
};

static tandem_err count_one(void *context, const td_place *place, uint64_t ordinal)
{
    ++*(uint64_t *)context;
    return TANDEM_OK;
}

/* Entries after a place. */
static tandem_err count_entries(const struct run *run, const td_place *after, uint64_t *out)
{
    *out = 0;
    return td_stream_index_entries(run->index, run->collection, run->document, run->branch,
                                   run->scope, after, count_one, out);
}

/* The cached state, if it still holds; out is NULL if not. */
static tandem_err find_cached(struct run *run, const char *key, size_t size, struct state **out)
{
    td_folder *folder = run->folder;
    struct state *s = td_hash_table_find(&folder->states, tandem_slice_of(key, size));
    uint64_t later;
    tandem_err err;

    *out = NULL;
    if (!s)
        return TANDEM_OK;
    if (s->model == run->model &&
        memcmp(&s->epoch, &run->info->epoch, sizeof(s->epoch)) == 0) {
        if ((err = count_entries(run, &s->place, &later)) != TANDEM_OK)
            return err;
        if (td_planted(TD_PLANTED_LATE_NOT_REFOLDED))
            s->folded = run->entries - later;
        if (s->folded + later == run->entries) {
            td_probe(td_stream_index_env(run->index), TD_PROBE_FOLD_CONTINUED);
            if ((err = touch(folder, s, false)) == TANDEM_OK)
                *out = s;
            return err;
        }
        td_probe(td_stream_index_env(run->index), TD_PROBE_FOLD_REPEATED);
    }
    forget(folder, s);
    return TANDEM_OK;
}

/* Start from the newest snapshot, or from empty at the epoch. */
static tandem_err start(struct run *run, struct state *s)
{
    td_snapshot snapshot;
    tandem_err err = td_stream_index_snapshot(run->index, run->collection, run->document,
                                              run->branch, run->scope, run->model->version,
                                              &snapshot);

    s->model = run->model;
    s->epoch = s->place = run->info->epoch;
    if (err && err != TANDEM_E_NOT_FOUND)
        return err;
    if (err == TANDEM_OK &&
        memcmp(&snapshot.place, &s->epoch, sizeof(s->epoch)) > 0) {
        s->place = snapshot.place;
        s->folded = snapshot.folded;
        s->estimate = snapshot.bytes.size;
        err = run->model->restore(snapshot.bytes, &s->state);
        if (err != TANDEM_E_CORRUPT)
            return err;
        s->state = NULL;
        s->place = s->epoch;
    }
    err = td_stream_index_rank(run->index, run->collection, run->document, run->branch, run->scope,
                               &s->epoch, &s->folded);
    if (err)
        return err;
    return run->model->state_open(&s->state);
}

tandem_err td_fold_apply(const tandem_model *model, void *state, const td_operation *operation)
{
    tandem_change change = {
        .verb = td_type_verb(operation->type),
        .payload = operation->payload,
        .hlc = operation->hlc,
        .origin = operation->origin,
        .seq = operation->seq,
        .hash = operation->hash,
    };

    if (operation->flags & TD_FLAG_SEALED ||
        !tandem_slice_equal(td_type_model(operation->type), tandem_slice_text(model->name)) ||
        tandem_slice_equal(change.verb, tandem_slice_text("CREATE")) ||
        tandem_slice_equal(change.verb, tandem_slice_text("DELETE")) ||
        tandem_msgpack_validate(operation->payload, TANDEM_PAYLOAD_DEPTH_MAX,
                                TANDEM_PAYLOAD_ITEMS_MAX) != TANDEM_OK)
        return TANDEM_E_INPUT;
    return model->apply(state, &change);
}

static tandem_err apply_one(void *context, const td_entry *entry, const td_operation *operation)
{
    struct run *run = context;
    struct state *s = run->state;
    tandem_err err;

    s->place = entry->place;
    s->folded++;
    s->since++;
    run->folder->folded++;
    err = td_fold_apply(s->model, s->state, operation);
    if (err != TANDEM_OK && err != TANDEM_E_INPUT) {
        td_why(run->why, "the model %s failed: %s", s->model->name, tandem_err_name(err));
        return err;
    }
    return TANDEM_OK;
}

static bool snapshot_due(const struct state *s)
{
    return s->since >= TD_SNAPSHOT_ENTRIES_MIN &&
           s->since >= s->estimate / TD_SNAPSHOT_BYTES_PER_ENTRY;
}

/*
 * Leave a snapshot where the entries since the last one are worth its bytes. A long fold leaves
 * several on its way, so that an operation that is late by far finds one before it.
 */
static tandem_err leave_snapshot(struct run *run)
{
    struct state *s = run->state;
    tandem_writer *out = &run->folder->snapshot;
    td_snapshot snapshot = {s->place, s->folded, s->model->version, {NULL, 0}};
    tandem_err err;

    if (!snapshot_due(s))
        return TANDEM_OK;
    tandem_writer_clear(out);
    if ((err = s->model->save(s->state, out)) != TANDEM_OK ||
        (err = tandem_writer_err(out)) != TANDEM_OK)
        return err;
    s->estimate = out->size;
    if (!snapshot_due(s))
        return TANDEM_OK;
    snapshot.bytes = tandem_writer_slice(out);
    err = td_stream_index_put_snapshot(run->index, run->collection, run->document, run->branch,
                                       run->scope, &snapshot);
    if (err == TANDEM_OK)
        s->since = 0;
    return err;
}

static tandem_err page_add(void *context, const td_place *place, uint64_t ordinal)
{
    td_folder *folder = context;

    folder->page[folder->page_count++] = (td_entry){*place, ordinal};
    return folder->page_count == PAGE_ENTRIES ? TANDEM_END : TANDEM_OK;
}

uint64_t td_folder_folded(const td_folder *folder)
{
    return folder->folded;
}

/* Apply everything after the state's place. */
static tandem_err run_entries(struct run *run)
{
    td_folder *folder = run->folder;
    tandem_err err;

    do {
        td_place after = run->state->place;

        folder->page_count = 0;
        err = td_stream_index_entries(run->index, run->collection, run->document, run->branch,
                                      run->scope, &after, page_add, folder);
        if (err || (err = td_entries_read(folder->ops, run->index, run->collection, folder->page,
                                          folder->page_count, apply_one, run, run->why)) ||
            (err = leave_snapshot(run)))
            return err;
    } while (folder->page_count == PAGE_ENTRIES);
    if (run->state->folded == run->entries)
        return TANDEM_OK;
    td_why(run->why, "the index counts %" PRIu64 " operations and lists %" PRIu64, run->entries,
           run->state->folded);
    td_stream_index_distrust(run->index);
    return TANDEM_E_CORRUPT;
}

/* The state to go on from: run->state, in the cache or loose. */
static tandem_err state_find(struct run *run, bool keep)
{
    td_folder *folder = run->folder;
    char key[KEY_BYTES_MAX];
    size_t size = key_make(key, run->collection, run->document, run->branch, run->scope);
    struct state *s;
    tandem_err err = find_cached(run, key, size, &run->state);

    if (err || run->state)
        return err;
    if (!(s = calloc(1, sizeof(*s) + size)))
        return TANDEM_E_NOMEM;
    memcpy(s->key, key, size);
    s->size = size;
    if ((err = start(run, s)) != TANDEM_OK) {
        state_free(s);
        return err;
    }
    if (!keep)
        folder->loose = s;
    else if ((err = touch(folder, s, true)) != TANDEM_OK)
        return err;
    run->state = s;
    return TANDEM_OK;
}

tandem_err td_folder_fold(td_folder *folder, td_stream_index *index, tandem_slice collection,
                          tandem_slice document, const td_document_info *info, tandem_slice branch,
                          tandem_slice scope, bool keep, td_fold *out, char why[TD_WHY_BYTES])
{
    struct run run = {.folder = folder,
                      .index = index,
                      .collection = collection,
                      .document = document,
                      .branch = branch,
                      .scope = scope,
                      .info = info,
                      .why = why};
    tandem_err err;

    assert(info->created);
    why[0] = '\0';
    if (folder->loose)
        forget(folder, folder->loose);
    run.model = td_model_registry_find(folder->registry, tandem_slice_text(info->model));
    if (!run.model) {
        td_why(why, "no model %s is registered", info->model);
        return TANDEM_E_MODEL_UNKNOWN;
    }
    err = td_stream_index_count(index, collection, document, branch, scope, &run.entries);
    if (err == TANDEM_OK)
        err = state_find(&run, keep);
    if (err == TANDEM_OK)
        err = run_entries(&run);
    if (err) {
        /* It stands somewhere in the middle. */
        if (run.state)
            forget(folder, run.state);
        if (!why[0])
            td_why(why, "%s", tandem_err_text(err));
        return err;
    }
    *out = (td_fold){run.model, run.state->state, run.entries, run.state->place};
    return TANDEM_OK;
}
