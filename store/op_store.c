/*
 * The rules. What a group has changed apart from the operations themselves (heads, runs, counters)
 * is kept in memory until the commit and written once there: a group of a thousand jobs then costs
 * a thousand appends and a handful of small entries. Nothing of it outlives the group, so there is
 * no cache that could disagree with the disk after a commit of unknown outcome.
 */
#include <assert.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "store/filter.h"
#include "store/hash_table.h"
#include "store/op_pairs.h"
#include "store/op_place.h"
#include "store/op_read.h"
#include "store/planted.h"
#include "store/probe.h"

/* A collection that the open group has looked at. */
struct collection {
    tandem_slice name; /* into text */
    char text[TANDEM_NAME_BYTES_MAX];
    td_collection_record record; /* id 0: not there yet */
    bool dirty;
    bool may_prune; /* some pair may cover nothing more than heads do */
    td_hash_entry hash_entry;
};

struct open_run {
    td_run run;
    uint8_t last_hash[TANDEM_HASH_BYTES];
};

struct origin_key {
    const struct collection *collection; /* its id is not given before it is needed */
    uint8_t origin[TANDEM_ORIGIN_BYTES];
};

/* An origin in a collection that the open group has looked at. */
struct origin {
    struct origin_key key;
    struct collection *collection;
    td_vector_record vector;
    /* Each ends at a head: what is appended behind one makes it longer. */
    struct open_run runs[TANDEM_HEADS_MAX];
    unsigned run_count;
    bool dirty;
    td_hash_entry hash_entry;
};

/* Others may hold a pointer to an identity that was left behind: all stay until the end. */
struct identity_node {
    td_identity identity;
    struct identity_node *before;
};

struct td_op_store {
    tandem_env *env;
    td_store *store;
    struct identity_node *_Atomic identity;
    struct identity_node *next_identity; /* of the open group */

    td_txn *txn; /* the open group */
    tandem_err group_err;
    td_position position;
    bool dirty;
    bool unproven; /* what a recovery found may not have been on disk: commit before confirming */
    int group_lacks; /* so many more, or fewer, with it */
    unsigned group_forks; /* origins that it made a fork */
    bool group_changes_lacks;
    atomic_int lacks;
    atomic_uint lack_changes;
    td_hash_table collections;
    td_hash_table origins;
    tandem_writer scratch;
};

/* ---- Identity ---- */

static void identity_draw(td_op_store *ops, td_identity *identity)
{
    td_env_random_bytes(ops->env, identity->seed, sizeof(identity->seed));
    td_origin_of_seed(identity->seed, identity->origin);
    identity->since_ms = td_env_wall_ms(ops->env);
}

static void identity_free(struct identity_node *node)
{
    if (node)
        sodium_memzero(node, sizeof(*node));
    free(node);
}

static tandem_err identity_publish(td_op_store *ops, const td_identity *identity)
{
    struct identity_node *node = malloc(sizeof(*node));

    if (!node)
        return TANDEM_E_NOMEM;
    node->identity = *identity;
    node->before = atomic_load(&ops->identity);
    atomic_store(&ops->identity, node);
    return TANDEM_OK;
}

/* ---- Opening ---- */

/* TANDEM_E_FORMAT if anything is in the store. */
static tandem_err expect_empty(td_txn *txn)
{
    tandem_err err = TANDEM_OK;

    for (unsigned table = 0; table < TD_TABLE_COUNT && err == TANDEM_OK; table++) {
        tandem_slice key, value;
        td_cursor *cursor;

        if ((err = td_txn_cursor(txn, table, &cursor)) != TANDEM_OK)
            return err;
        err = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value);
        td_cursor_free(cursor);
        err = err == TANDEM_OK ? TANDEM_E_FORMAT : err == TANDEM_END ? TANDEM_OK : err;
    }
    return err;
}

static tandem_err create(td_op_store *ops, tandem_incarnation_reason reason)
{
    td_position position = {.ordinal = 0};
    td_identity identity = {.incarnation = 1, .reason = reason};
    td_txn *txn;
    tandem_err err;

    td_env_random_bytes(ops->env, identity.reactor, sizeof(identity.reactor));
    identity_draw(ops, &identity);
    err = identity_publish(ops, &identity);
    sodium_memzero(identity.seed, sizeof(identity.seed));
    if (err != TANDEM_OK || (err = td_store_begin_write(ops->store, &txn)) != TANDEM_OK)
        return err;
    if ((err = td_format_put(txn, TD_FORMAT_VERSION, &ops->scratch)) != TANDEM_OK ||
        (err = td_identity_put(txn, td_op_store_identity(ops), &ops->scratch)) != TANDEM_OK ||
        (err = td_position_put(txn, &position, &ops->scratch)) != TANDEM_OK) {
        td_txn_abort(txn);
        return err;
    }
    if ((err = td_txn_commit(txn)) == TANDEM_OK)
        td_probe(ops->env, TD_PROBE_STORE_CREATED);
    return err;
}

/* How many lacks the store has. */
static tandem_err lacks_count(td_op_store *ops, td_txn *txn)
{
    tandem_slice key, value;
    td_cursor *cursor;
    int count = 0;
    tandem_err err;

    if ((err = td_txn_cursor(txn, TD_TABLE_LACKS, &cursor)) != TANDEM_OK)
        return err;
    err = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value);
    for (; err == TANDEM_OK; err = td_cursor_next(cursor, &key, &value))
        count++;
    td_cursor_free(cursor);
    if (err != TANDEM_END)
        return err;
    atomic_store(&ops->lacks, count);
    atomic_fetch_add(&ops->lack_changes, 1);
    return TANDEM_OK;
}

static tandem_err load(td_op_store *ops, tandem_incarnation_reason reason)
{
    bool fresh = false;
    td_identity identity;
    td_position position;
    td_txn *txn;
    tandem_err err;

    if ((err = td_store_begin_read(ops->store, &txn)) != TANDEM_OK)
        return err;
    err = td_format_check(txn);
    if (err == TANDEM_E_NOT_FOUND) {
        fresh = true;
        err = expect_empty(txn);
    } else if (err == TANDEM_OK && (err = td_identity_get(txn, &identity)) == TANDEM_OK &&
               (err = td_position_get(txn, &position)) == TANDEM_OK &&
               (err = lacks_count(ops, txn)) == TANDEM_OK) {
        td_probe(ops->env, TD_PROBE_STORE_OPENED);
        err = identity_publish(ops, &identity);
    }
    sodium_memzero(&identity, sizeof(identity));
    td_txn_abort(txn);
    return err == TANDEM_OK && fresh ? create(ops, reason) : err;
}

tandem_err td_op_store_open_for(tandem_env *env, td_store *store, tandem_incarnation_reason reason,
                                td_op_store **out)
{
    td_op_store *ops;
    tandem_err err;

    if (sodium_init() < 0) { /* only the random device can fail it; BLAKE2b picks its best code */
        td_store_free(store);
        return TANDEM_E_IO;
    }
    ops = calloc(1, sizeof(*ops));
    if (!ops) {
        td_store_free(store);
        return TANDEM_E_NOMEM;
    }
    ops->env = env;
    ops->store = store;
    tandem_writer_init(&ops->scratch);
    if ((err = load(ops, reason)) != TANDEM_OK) {
        td_op_store_free(ops);
        return err;
    }
    *out = ops;
    return TANDEM_OK;
}

tandem_err td_op_store_open(tandem_env *env, td_store *store, td_op_store **out)
{
    return td_op_store_open_for(env, store, TANDEM_INCARNATION_CREATED, out);
}

void td_op_store_free(td_op_store *ops)
{
    if (!ops)
        return;
    td_op_store_abort(ops);
    td_store_free(ops->store);
    tandem_writer_release(&ops->scratch);
    for (struct identity_node *node = atomic_load(&ops->identity), *before; node; node = before) {
        before = node->before;
        identity_free(node);
    }
    free(ops);
}

const td_identity *td_op_store_identity(const td_op_store *ops)
{
    return &atomic_load(&ops->identity)->identity;
}

unsigned td_op_store_lack_count(const td_op_store *ops)
{
    return (unsigned)atomic_load(&ops->lacks);
}

unsigned td_op_store_lack_changes(const td_op_store *ops)
{
    return atomic_load(&ops->lack_changes);
}

td_store *td_op_store_backend(td_op_store *ops)
{
    return ops->store;
}

/* ---- The group ---- */

static void group_drop(td_op_store *ops)
{
    td_hash_table_clear(&ops->origins, free);
    td_hash_table_clear(&ops->collections, free);
    identity_free(ops->next_identity);
    ops->next_identity = NULL;
    ops->txn = NULL;
    ops->dirty = false;
    ops->group_lacks = 0;
    ops->group_forks = 0;
    ops->group_changes_lacks = false;
    ops->group_err = TANDEM_OK;
}

tandem_err td_op_store_begin(td_op_store *ops)
{
    tandem_err err;

    assert(!ops->txn);
    if ((err = td_store_begin_write(ops->store, &ops->txn)) != TANDEM_OK) {
        ops->txn = NULL;
        return err;
    }
    if ((err = td_position_get(ops->txn, &ops->position)) != TANDEM_OK)
        td_op_store_abort(ops);
    return err;
}

static tandem_err collection_look(td_op_store *ops, tandem_slice name, struct collection **out)
{
    struct collection *entry = td_hash_table_find(&ops->collections, name);
    tandem_err err;

    if (entry) {
        *out = entry;
        return TANDEM_OK;
    }
    assert(name.size <= sizeof(entry->text));
    entry = calloc(1, sizeof(*entry));
    if (!entry)
        return TANDEM_E_NOMEM;
    memcpy(entry->text, name.bytes, name.size);
    entry->name = tandem_slice_of(entry->text, name.size);
    err = td_collection_get(ops->txn, name, &entry->record);
    if (err == TANDEM_OK || err == TANDEM_E_NOT_FOUND)
        err = td_hash_table_add(&ops->collections, &entry->hash_entry, entry->name, entry);
    if (err != TANDEM_OK) {
        free(entry);
        return err;
    }
    *out = entry;
    return TANDEM_OK;
}

static tandem_err origin_look(td_op_store *ops, struct collection *collection,
                              const uint8_t *origin, struct origin **out)
{
    struct origin_key key = {.collection = collection};
    struct origin *entry;
    tandem_err err = TANDEM_OK;

    _Static_assert(sizeof(key) == sizeof(void *) + TANDEM_ORIGIN_BYTES, "no padding to compare");
    memcpy(key.origin, origin, TANDEM_ORIGIN_BYTES);
    entry = td_hash_table_find(&ops->origins, tandem_slice_of(&key, sizeof(key)));
    if (entry) {
        *out = entry;
        return TANDEM_OK;
    }
    entry = calloc(1, sizeof(*entry));
    if (!entry)
        return TANDEM_E_NOMEM;
    entry->key = key;
    entry->collection = collection;
    if (collection->record.id)
        err = td_vector_get(ops->txn, collection->record.id, origin, &entry->vector);
    if (err == TANDEM_OK)
        err = td_hash_table_add(&ops->origins, &entry->hash_entry,
                                tandem_slice_of(&entry->key, sizeof(entry->key)), entry);
    if (err != TANDEM_OK) {
        free(entry);
        return err;
    }
    *out = entry;
    return TANDEM_OK;
}

static td_chain chain_of(const td_op_store *ops, const struct origin *origin,
                         td_run open[TANDEM_HEADS_MAX])
{
    for (unsigned i = 0; i < origin->run_count; i++)
        open[i] = origin->runs[i].run;
    return (td_chain){ops->txn, origin->collection->record.id, origin->key.origin,
                      &origin->vector, open, origin->run_count, false};
}

/* ---- Append: the writing ---- */

static int head_compare(const void *a, const void *b)
{
    const td_head *x = a, *y = b;

    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return memcmp(x->hash, y->hash, TANDEM_HASH_BYTES);
}

static int run_compare(const td_run *x, const td_run *y)
{
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->ordinal < y->ordinal ? -1 : x->ordinal > y->ordinal;
}

/* The last operation of what was taken, or is loose no more, becomes a head, unless what follows it is
 * held. */
static void head_move(td_vector_record *vector, const td_place *place, const td_operation *last)
{
    int head = place->head;
    td_head *to;

    if (place->is_loose)
        return;
    if (place->is_inside) {
        if (head >= 0)
            vector->heads[head] = vector->heads[--vector->count];
    } else {
        if (head < 0 && vector->count && td_planted(TD_PLANTED_HEAD_LOST))
            head = 0;
        to = &vector->heads[head >= 0 ? (unsigned)head : vector->count++];
        to->seq = last->seq;
        memcpy(to->hash, last->hash, TANDEM_HASH_BYTES);
    }
    if (vector->count > 1)
        qsort(vector->heads, vector->count, sizeof(vector->heads[0]), head_compare);
}

/* Lengthen the open run that the operations follow, or begin one. What follows a loose one is loose. */
static tandem_err run_extend(td_op_store *ops, struct origin *origin, const td_operation *first,
                             uint64_t ordinal, const td_operation *last, bool loose)
{
    struct open_run *run = NULL;
    tandem_err err;

    for (unsigned i = 0; i < origin->run_count && !run; i++)
        if (origin->runs[i].run.last + 1 == first->seq &&
            memcmp(origin->runs[i].last_hash, first->predecessor, TANDEM_HASH_BYTES) == 0)
            run = &origin->runs[i];
    if (!run && origin->run_count == TANDEM_HEADS_MAX) { /* of an origin with gaps: any number */
        run = &origin->runs[--origin->run_count];
        if ((err = td_run_put(ops->txn, origin->collection->record.id, origin->key.origin,
                              &run->run, &ops->scratch)) != TANDEM_OK)
            return err;
        run = NULL;
    }
    if (!run) {
        run = &origin->runs[origin->run_count++];
        run->run.first = first->seq;
        run->run.ordinal = ordinal;
        run->run.loose = loose;
    }
    run->run.last = last->seq;
    memcpy(run->last_hash, last->hash, TANDEM_HASH_BYTES);
    return TANDEM_OK;
}

static void collection_give_id(td_op_store *ops, struct collection *collection)
{
    if (!collection->record.id)
        collection->record.id = ++ops->position.collections;
}

/* ---- Lacks of the open group ---- */

/* A change of lacks has an ordinal of its own, so that whoever follows those learns of it. */
static void lacks_changed(td_op_store *ops, struct origin *origin)
{
    origin->collection->record.last_ordinal = ++ops->position.ordinal;
    origin->collection->dirty = origin->dirty = ops->dirty = true;
    ops->group_changes_lacks = true;
}

static tandem_err lack_add(td_op_store *ops, struct origin *origin, const td_lack *lack)
{
    tandem_err err;

    if (atomic_load(&ops->lacks) + ops->group_lacks >= TD_LACKS_MAX)
        return TANDEM_E_LIMIT;
    collection_give_id(ops, origin->collection);
    if ((err = td_lack_put(ops->txn, origin->collection->record.id, origin->key.origin, lack,
                           &ops->scratch)) != TANDEM_OK)
        return err;
    origin->vector.gaps = true;
    ops->group_lacks++;
    lacks_changed(ops, origin);
    return TANDEM_OK;
}

/* Something stands behind this lack now, and so behind those before it. */
static tandem_err lack_follow(td_op_store *ops, const struct origin *origin, td_lack lack)
{
    td_run open[TANDEM_HEADS_MAX];
    td_chain chain = chain_of(ops, origin, open);
    tandem_err err = TANDEM_OK;

    if (td_planted(TD_PLANTED_LACK_DROPPED)) {
        ops->group_lacks--;
        return td_lack_del(ops->txn, chain.id, chain.origin, &lack);
    }
    while (err == TANDEM_OK && !lack.followed) {
        lack.followed = true;
        err = td_lack_put(ops->txn, chain.id, chain.origin, &lack, &ops->scratch);
        if (err == TANDEM_OK)
            err = td_lack_find(&chain, lack.first - 1, lack.predecessor, &lack);
    }
    return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
}

/* What was taken follows a lack, or filled one. */
static tandem_err lacks_after(td_op_store *ops, struct origin *origin, const td_place *place)
{
    uint32_t id = origin->collection->record.id;
    tandem_err err;

    if (place->follows && (err = lack_follow(ops, origin, place->before)) != TANDEM_OK)
        return err;
    if (!place->fills)
        return TANDEM_OK;
    if ((err = td_lack_del(ops->txn, id, origin->key.origin, &place->filled)) != TANDEM_OK)
        return err;
    td_probe(ops->env, TD_PROBE_LACK_FILLED);
    ops->group_changes_lacks = true;
    ops->group_lacks--;
    return TANDEM_OK;
}

/* ---- What was loose ---- */

/* The run behind *run, of those in the table and the open ones; *open_out: which of these, or NULL. */
static tandem_err run_after(td_op_store *ops, struct origin *origin, td_run *run,
                            struct open_run **open_out)
{
    td_run after = *run;
    tandem_err err = td_run_next(ops->txn, origin->collection->record.id, origin->key.origin, &after);

    *open_out = NULL;
    if (err != TANDEM_OK && err != TANDEM_END)
        return err;
    for (unsigned i = 0; i < origin->run_count; i++) {
        struct open_run *open = &origin->runs[i];

        if (run_compare(&open->run, run) <= 0 ||
            (err == TANDEM_OK && run_compare(&open->run, &after) >= 0))
            continue;
        after = open->run;
        *open_out = open;
        err = TANDEM_OK;
    }
    *run = after;
    return err;
}

/* Place a loose run, if what it follows is there now; *settled. */
static tandem_err run_settle(td_op_store *ops, struct origin *origin, td_run *run,
                             struct open_run *open, bool *settled)
{
    td_run runs[TANDEM_HEADS_MAX];
    td_chain chain = chain_of(ops, origin, runs);
    td_operation first, last;
    td_place place;
    tandem_err err;

    *settled = false;
    if ((err = td_run_ends(ops->txn, chain.id, chain.origin, run, &first, &last)) != TANDEM_OK ||
        (err = td_run_place(&chain, &first, &place)) != TANDEM_OK || place.is_loose)
        return err;
    *settled = true;
    td_probe(ops->env, TD_PROBE_LOOSE_ABSORBED);
    run->loose = false;
    if (open)
        open->run.loose = false;
    else if ((err = td_run_put(ops->txn, chain.id, chain.origin, run, &ops->scratch)) != TANDEM_OK)
        return err;
    head_move(&origin->vector, &place, &last);
    return place.follows ? lack_follow(ops, origin, place.before) : TANDEM_OK;
}

/* From seq first to last something stands behind a head now, or is lacking: place what is loose behind
 * it, and behind that. A run begins behind what it follows, so one pass finds all. */
static tandem_err settle(td_op_store *ops, struct origin *origin, uint64_t first, uint64_t last)
{
    td_run run = {.first = first + 1};
    struct open_run *open;
    tandem_err err;

    origin->collection->may_prune = origin->collection->may_prune || origin->vector.gaps;
    if (!origin->vector.loose)
        return TANDEM_OK;
    while ((err = run_after(ops, origin, &run, &open)) == TANDEM_OK && run.first - 1 <= last) {
        bool settled = false;

        if (run.loose && (err = run_settle(ops, origin, &run, open, &settled)) != TANDEM_OK)
            return err;
        if (settled && run.last > last)
            last = run.last;
    }
    return err == TANDEM_END ? TANDEM_OK : err;
}

/* ---- Append ---- */

static tandem_err job_write(td_op_store *ops, struct origin *origin, const td_operation *job,
                            size_t count, const td_place *place, td_append_result *result)
{
    struct collection *collection = origin->collection;
    const td_operation *last = &job[count - 1];
    uint64_t first_ordinal = ops->position.ordinal + 1, from = job[0].seq, to = last->seq;
    bool was_full = origin->vector.count == TANDEM_HEADS_MAX;
    tandem_err err;

    collection_give_id(ops, collection);
    for (size_t i = 0; i < count; i++) {
        if (i && i >= count / 2 && td_planted(TD_PLANTED_JOB_HALVED))
            break;
        err = td_operation_put(ops->txn, collection->record.id, ++ops->position.ordinal, &job[i],
                               &ops->scratch);
        if (err != TANDEM_OK)
            return err;
        collection->record.bytes += job[i].canonical.size;
    }
    collection->record.operations += count;
    collection->record.last_ordinal = ops->position.ordinal;
    if (place->is_loose)
        origin->vector.gaps = origin->vector.loose = true;
    if (origin->vector.gaps && !origin->vector.branched) {
        td_run open[TANDEM_HEADS_MAX];
        td_chain chain = chain_of(ops, origin, open);

        err = td_op_overlaps(ops->txn, chain.id, chain.origin, job[0].seq, last->seq, open,
                             chain.open_count, &origin->vector.branched);
        if (err != TANDEM_OK)
            return err;
    }
    if ((err = run_extend(ops, origin, &job[0], first_ordinal, last, place->is_loose)) !=
            TANDEM_OK ||
        (err = lacks_after(ops, origin, place)) != TANDEM_OK)
        return err;
    head_move(&origin->vector, place, last);
    if (was_full && origin->vector.count < TANDEM_HEADS_MAX) {
        from = 0; /* there is room for what stayed loose for want of it, wherever that is */
        to = UINT64_MAX;
    }
    if (!place->is_loose && (err = settle(ops, origin, from, to)) != TANDEM_OK)
        return err;
    collection->dirty = origin->dirty = ops->dirty = true;
    result->first_ordinal = first_ordinal;
    result->last_ordinal = ops->position.ordinal;
    result->appended = (uint32_t)count;
    return TANDEM_OK;
}

/* Look up where a job belongs. *chain lives as long as open. */
static tandem_err job_look(td_op_store *ops, const td_operation *job, size_t count, bool part,
                           struct origin **origin_out, td_run open[TANDEM_HEADS_MAX],
                           td_chain *chain, td_place *place)
{
    struct collection *collection;
    tandem_err err;

    if ((err = td_job_check(job, count)) != TANDEM_OK ||
        (err = collection_look(ops, job[0].collection, &collection)) != TANDEM_OK ||
        (err = origin_look(ops, collection, job[0].origin, origin_out)) != TANDEM_OK)
        return err;
    *chain = chain_of(ops, *origin_out, open);
    chain->part = part;
    return td_job_place(chain, job, count, place);
}

static tandem_err append_job(td_op_store *ops, const td_operation *job, size_t count, bool part,
                             td_append_result *result)
{
    td_run open[TANDEM_HEADS_MAX];
    struct origin *origin;
    td_chain chain;
    td_place place;
    tandem_err err;

    if ((err = job_look(ops, job, count, part, &origin, open, &chain, &place)) != TANDEM_OK)
        return err;
    if (td_planted(TD_PLANTED_DEDUPE_SKIPPED))
        place.held = 0;
    result->duplicates = (uint32_t)place.held;
    result->loose = place.is_loose;
    if (place.held == count) {
        td_probe(ops->env, TD_PROBE_DUPLICATE_DROPPED);
        return TANDEM_OK;
    }
    if ((err = td_place_head(&chain, &place)) != TANDEM_OK)
        return err;
    if (place.is_loose)
        td_probe(ops->env, TD_PROBE_LOOSE_TAKEN);
    result->heads_before = origin->vector.count;
    err = job_write(ops, origin, job + place.held, count - place.held, &place, result);
    result->heads = origin->vector.count;
    result->forked = result->heads > 1 && result->heads > result->heads_before;
    ops->group_forks += result->forked && result->heads_before < 2;
    if (result->forked)
        td_probe(ops->env, result->heads_before > 1 ? TD_PROBE_FORK_GREW : TD_PROBE_FORK_KEPT);
    return err;
}

/* Errors that say nothing about the job: the transaction may be half written. */
static bool breaks_group(tandem_err err)
{
    return err == TANDEM_E_STORE_FULL || err == TANDEM_E_IO || err == TANDEM_E_NOMEM;
}

static tandem_err append(td_op_store *ops, const td_operation *job, size_t count, bool part,
                         td_append_result *result)
{
    tandem_err err;

    assert(ops->txn);
    *result = (td_append_result){.appended = 0};
    if (ops->group_err != TANDEM_OK)
        return ops->group_err;
    err = append_job(ops, job, count, part, result);
    if (breaks_group(err))
        ops->group_err = err;
    if (err != TANDEM_OK)
        *result = (td_append_result){.appended = 0};
    if (err == TANDEM_E_PREDECESSOR)
        td_probe(ops->env, TD_PROBE_PREDECESSOR_MISSING);
    if (err == TANDEM_E_QUARANTINED)
        td_probe(ops->env, TD_PROBE_HEAD_QUARANTINED);
    return err;
}

tandem_err td_op_store_append(td_op_store *ops, const td_operation *job, size_t count,
                              td_append_result *result)
{
    return append(ops, job, count, false, result);
}

tandem_err td_op_store_append_part(td_op_store *ops, const td_operation *job, size_t count,
                                   td_append_result *result)
{
    return append(ops, job, count, true, result);
}

/* Behind a new lack something loose may stand, even several branches. */
static tandem_err lack_record(td_op_store *ops, struct origin *origin, const td_lack *lack)
{
    unsigned before = origin->vector.count;
    tandem_err err = lack_add(ops, origin, lack);

    if (err == TANDEM_OK)
        err = settle(ops, origin, lack->last, lack->last);
    ops->group_forks += before < 2 && origin->vector.count > 1;
    return err;
}

static tandem_err refuse_job(td_op_store *ops, const td_operation *job, size_t count,
                             tandem_err reason)
{
    const td_operation *first, *last = &job[count - 1];
    struct origin *origin;
    td_run open[TANDEM_HEADS_MAX];
    td_chain chain;
    td_place place;
    td_lack lack;
    tandem_err err;

    if ((err = job_look(ops, job, count, false, &origin, open, &chain, &place)) != TANDEM_OK)
        return err;
    if (place.held == count)
        return TANDEM_OK; /* that is settled */
    if (place.is_loose)
        return reason; /* nothing hangs on it that a head vouches for */
    err = td_lack_find(&chain, last->seq, last->hash, &lack);
    if (err != TANDEM_E_NOT_FOUND) {
        if (err != TANDEM_OK || lack.reason == reason)
            return err == TANDEM_OK ? reason : err;
        lack.reason = reason;
        if ((err = td_lack_put(ops->txn, chain.id, chain.origin, &lack, &ops->scratch)) != TANDEM_OK)
            return err;
        lacks_changed(ops, origin);
        return reason;
    }
    first = &job[place.held];
    lack = (td_lack){.first = first->seq, .last = last->seq, .reason = reason};
    memcpy(lack.predecessor, first->predecessor, TANDEM_HASH_BYTES);
    memcpy(lack.hash, last->hash, TANDEM_HASH_BYTES);
    td_probe(ops->env, TD_PROBE_RANGE_REFUSED);
    err = lack_record(ops, origin, &lack);
    return err == TANDEM_OK ? reason : err;
}

tandem_err td_op_store_refuse(td_op_store *ops, const td_operation *job, size_t count,
                              tandem_err reason)
{
    tandem_err err;

    assert(ops->txn && reason < 0);
    if (ops->group_err != TANDEM_OK)
        return ops->group_err;
    err = refuse_job(ops, job, count, reason);
    if (breaks_group(err))
        ops->group_err = err;
    return err;
}

tandem_err td_op_store_want(td_op_store *ops, tandem_slice name, const uint8_t *origin_id,
                            const td_lack *lack)
{
    td_lack added = *lack, known;
    struct collection *collection;
    struct origin *origin;
    td_run open[TANDEM_HEADS_MAX];
    td_chain chain;
    tandem_err err;

    assert(ops->txn);
    if (ops->group_err != TANDEM_OK)
        return ops->group_err;
    if (!td_collection_name_valid(name) || lack->first < 1 || lack->last < lack->first)
        return TANDEM_E_INVALID;
    if ((err = collection_look(ops, name, &collection)) != TANDEM_OK ||
        (err = origin_look(ops, collection, origin_id, &origin)) != TANDEM_OK)
        return err;
    chain = chain_of(ops, origin, open);
    if ((err = td_lack_find(&chain, lack->last, lack->hash, &known)) != TANDEM_E_NOT_FOUND)
        return err; /* known */
    if ((err = td_chain_reaches(&chain, lack->first - 1, lack->predecessor, name)) != TANDEM_OK)
        return err;
    if ((err = td_chain_holds(&chain, lack->last, lack->hash)) != TANDEM_E_NOT_FOUND)
        return err; /* held */
    added.followed = false;
    td_probe(ops->env, added.reason == TANDEM_OK ? TD_PROBE_RANGE_WANTED : TD_PROBE_RANGE_REFUSED);
    err = lack_record(ops, origin, &added);
    if (breaks_group(err))
        ops->group_err = err;
    return err;
}

/* ---- Pairs ---- */

struct oldest_pair {
    unsigned count;
    uint64_t ordinal;
    bool is_there;
    tandem_slice filter; /* the one that is looked for */
    uint8_t *bytes;      /* of the oldest: TD_FILTER_BYTES_MAX */
    size_t size;
};

static tandem_err look_at_pair(void *context, tandem_slice filter, uint64_t ordinal)
{
    struct oldest_pair *oldest = context;

    oldest->count++;
    oldest->is_there = oldest->is_there || tandem_slice_equal(filter, oldest->filter);
    if (filter.size > TD_FILTER_BYTES_MAX)
        return TANDEM_E_CORRUPT;
    if (!oldest->size || ordinal < oldest->ordinal) {
        memcpy(oldest->bytes, filter.bytes, filter.size);
        oldest->size = filter.size;
        oldest->ordinal = ordinal;
    }
    return TANDEM_OK;
}

/* A new pair may need another one's place. */
static tandem_err pair_make_room(td_op_store *ops, uint32_t id, tandem_slice filter)
{
    struct oldest_pair oldest = {.filter = filter, .bytes = malloc(TD_FILTER_BYTES_MAX)};
    tandem_err err;

    if (!oldest.bytes)
        return TANDEM_E_NOMEM;
    err = td_pairs_each(ops->txn, id, look_at_pair, &oldest);
    if (err == TANDEM_OK && !oldest.is_there && oldest.count >= TD_PAIRS_MAX)
        err = td_pair_del(ops->txn, id, tandem_slice_of(oldest.bytes, oldest.size));
    free(oldest.bytes);
    return err;
}

/* Put heads in the place of those that are covered. Who tells of fewer does not know the lowest
 * branches: those stay. */
static unsigned heads_join(td_head covered[TANDEM_HEADS_MAX], unsigned covered_count,
                           const td_head *heads, unsigned count)
{
    unsigned stay = covered_count > count ? covered_count - count : 0, kept = 0;

    for (unsigned i = 0; i < stay; i++) {
        bool known = false;

        for (unsigned k = 0; k < count; k++)
            known = known || head_compare(&covered[i], &heads[k]) == 0;
        if (!known)
            covered[kept++] = covered[i];
    }
    memcpy(&covered[kept], heads, count * sizeof(heads[0]));
    qsort(covered, kept + count, sizeof(covered[0]), head_compare);
    return kept + count;
}

/* Does who tells of these heads know more than is covered? From the highest branch down: none of them
 * goes back. */
static bool goes_on(const td_head *covered, unsigned covered_count, const td_head *heads,
                    unsigned count)
{
    if (count > covered_count)
        return true;
    covered += covered_count - count;
    while (count-- > 0)
        if (heads[count].seq != covered[count].seq)
            return heads[count].seq > covered[count].seq;
    return false;
}

static tandem_err cover(td_op_store *ops, tandem_slice name, tandem_slice filter,
                        const uint8_t *origin_id, const td_head *heads, unsigned count)
{
    td_head covered[TANDEM_HEADS_MAX];
    struct collection *collection;
    struct origin *origin;
    unsigned covered_count;
    uint32_t id;
    tandem_err err;

    if ((err = collection_look(ops, name, &collection)) != TANDEM_OK ||
        (err = origin_look(ops, collection, origin_id, &origin)) != TANDEM_OK)
        return err;
    collection_give_id(ops, collection);
    id = collection->record.id;
    if ((err = td_pair_get(ops->txn, id, filter, origin_id, covered, &covered_count)) != TANDEM_OK)
        return err;
    if (!goes_on(covered, covered_count, heads, count))
        return TANDEM_OK;
    covered_count = heads_join(covered, covered_count, heads, count);
    origin->vector.gaps = true; /* what does not match may come later, in any order */
    lacks_changed(ops, origin);
    collection->may_prune = true;
    td_probe(ops->env, TD_PROBE_PAIR_MOVED);
    if ((err = pair_make_room(ops, id, filter)) != TANDEM_OK ||
        (err = td_pair_put(ops->txn, id, filter, ops->position.ordinal, &ops->scratch)) !=
            TANDEM_OK)
        return err;
    return td_pair_put_heads(ops->txn, id, filter, origin_id, covered, covered_count,
                             &ops->scratch);
}

tandem_err td_op_store_cover(td_op_store *ops, tandem_slice collection, tandem_slice filter,
                             const uint8_t *origin, const td_head *heads, unsigned count)
{
    tandem_err err;

    assert(ops->txn);
    if (ops->group_err != TANDEM_OK)
        return ops->group_err;
    if (!td_collection_name_valid(collection) || count < 1 || count > TANDEM_HEADS_MAX ||
        filter.size > TD_FILTER_BYTES_MAX || td_filter_check(filter) != TANDEM_OK)
        return TANDEM_E_INVALID;
    err = cover(ops, collection, filter, origin, heads, count);
    if (breaks_group(err))
        ops->group_err = err;
    return err;
}

struct pruning {
    td_op_store *ops;
    struct collection *collection;
    bool is_held;
    tandem_writer filters; /* of pairs to be dropped, each behind its size */
};

/* Is all that the pair covers of this origin held without a gap? */
static tandem_err is_origin_held(void *context, const uint8_t *origin_id, const td_head *heads,
                                 unsigned count)
{
    struct pruning *pruning = context;
    td_run open[TANDEM_HEADS_MAX];
    struct origin *origin;
    td_chain chain;
    tandem_err err;

    err = origin_look(pruning->ops, pruning->collection, origin_id, &origin);
    if (err != TANDEM_OK)
        return err;
    chain = chain_of(pruning->ops, origin, open);
    for (unsigned i = 0; i < count; i++) {
        err = td_chain_reaches(&chain, heads[i].seq, heads[i].hash, pruning->collection->name);
        if (err != TANDEM_OK) {
            pruning->is_held = false;
            return err == TANDEM_E_PREDECESSOR ? TANDEM_END : err;
        }
    }
    return TANDEM_OK;
}

static tandem_err look_whether_needed(void *context, tandem_slice filter, uint64_t ordinal)
{
    struct pruning *pruning = context;
    uint8_t size[4];
    tandem_err err;

    (void)ordinal;
    pruning->is_held = true;
    err = td_pair_vector(pruning->ops->txn, pruning->collection->record.id, filter, NULL,
                         is_origin_held, pruning);
    if (err != TANDEM_OK && err != TANDEM_END)
        return err;
    if (!pruning->is_held)
        return TANDEM_OK;
    td_put_u32(size, (uint32_t)filter.size);
    tandem_write_raw(&pruning->filters, tandem_slice_of(size, sizeof(size)));
    tandem_write_raw(&pruning->filters, filter);
    return tandem_writer_err(&pruning->filters);
}

/* Drop the pairs that cover nothing but what heads vouch for. */
static tandem_err prune(td_op_store *ops, struct collection *collection)
{
    struct pruning pruning = {.ops = ops, .collection = collection};
    tandem_err err;

    tandem_writer_init(&pruning.filters);
    err = td_pairs_each(ops->txn, collection->record.id, look_whether_needed, &pruning);
    for (size_t at = 0; err == TANDEM_OK && at < pruning.filters.size;) {
        uint32_t size = td_get_u32(pruning.filters.bytes + at);

        err = td_pair_del(ops->txn, collection->record.id,
                          tandem_slice_of(pruning.filters.bytes + at + 4, size));
        ops->group_changes_lacks = true;
        at += 4 + size;
    }
    tandem_writer_release(&pruning.filters);
    return err;
}

/* ---- Withdrawing ---- */

struct refused {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    td_lack lack;
};

struct refusals {
    struct refused *list; /* TD_LACKS_MAX */
    size_t count;
};

static tandem_err note_refused(void *context, const uint8_t *origin, const td_lack *lack)
{
    struct refusals *refusals = context;
    struct refused *refused;

    if (lack->reason == TANDEM_OK || refusals->count == TD_LACKS_MAX ||
        td_planted(TD_PLANTED_WITHDRAWAL_DROPPED))
        return TANDEM_OK;
    refused = &refusals->list[refusals->count++];
    memcpy(refused->origin, origin, TANDEM_ORIGIN_BYTES);
    refused->lack = *lack;
    return TANDEM_OK;
}

static tandem_err withdraw_in(td_op_store *ops, tandem_slice name, struct refusals *refusals)
{
    struct collection *collection;
    tandem_err err;

    refusals->count = 0;
    if ((err = collection_look(ops, name, &collection)) != TANDEM_OK ||
        (err = td_lacks_each(ops->txn, collection->record.id, NULL, 0, note_refused, refusals)) !=
            TANDEM_OK)
        return err;
    for (size_t i = 0; i < refusals->count; i++) {
        struct refused *refused = &refusals->list[i];
        struct origin *origin;

        refused->lack.reason = TANDEM_OK;
        if ((err = origin_look(ops, collection, refused->origin, &origin)) != TANDEM_OK ||
            (err = td_lack_put(ops->txn, collection->record.id, refused->origin, &refused->lack,
                               &ops->scratch)) != TANDEM_OK)
            return err;
        lacks_changed(ops, origin);
    }
    return TANDEM_OK;
}

tandem_err td_op_store_withdraw(td_op_store *ops)
{
    struct refusals refusals = {calloc(TD_LACKS_MAX, sizeof(struct refused)), 0};
    char name[TANDEM_NAME_BYTES_MAX];
    tandem_slice key, value, after = tandem_slice_of(NULL, 0);
    td_cursor *cursor = NULL;
    tandem_err err = TANDEM_OK;

    assert(ops->txn);
    if (!refusals.list)
        return TANDEM_E_NOMEM;
    /* Those that the open group has begun are in no table yet. */
    for (struct collection *entry = td_hash_table_first(&ops->collections);
         entry && err == TANDEM_OK; entry = td_hash_table_next(&entry->hash_entry))
        if (entry->dirty)
            err = withdraw_in(ops, entry->name, &refusals);
    if (err == TANDEM_OK)
        err = td_txn_cursor(ops->txn, TD_TABLE_COLLECTIONS, &cursor);
    while (err == TANDEM_OK) {
        err = td_cursor_seek(cursor, after, &key, &value);
        if (err == TANDEM_OK && after.size && tandem_slice_equal(key, after))
            err = td_cursor_next(cursor, &key, &value);
        if (err == TANDEM_OK && key.size > sizeof(name))
            err = TANDEM_E_CORRUPT;
        if (err != TANDEM_OK)
            break;
        memcpy(name, key.bytes, key.size);
        after = tandem_slice_of(name, key.size);
        err = withdraw_in(ops, after, &refusals);
    }
    td_cursor_free(cursor);
    free(refusals.list);
    err = err == TANDEM_END ? TANDEM_OK : err;
    if (breaks_group(err))
        ops->group_err = err;
    return err;
}

/* ---- The group's other calls ---- */

tandem_err td_op_store_tip(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                           td_head *out)
{
    td_vector_record vector;
    struct collection *entry;
    struct origin *known;
    tandem_err err;

    if (ops->txn && !td_planted(TD_PLANTED_SEQ_REUSED)) {
        if (!td_name_valid(collection))
            return TANDEM_E_INVALID;
        if ((err = collection_look(ops, collection, &entry)) != TANDEM_OK ||
            (err = origin_look(ops, entry, origin, &known)) != TANDEM_OK)
            return err;
        vector = known->vector;
    } else {
        err = td_op_store_heads(ops, collection, origin, vector.heads, &vector.count);
        if (err != TANDEM_OK)
            return err;
    }
    if (vector.count) {
        *out = vector.heads[vector.count - 1];
        return TANDEM_OK;
    }
    out->seq = 0;
    td_chain_root(collection, out->hash);
    return TANDEM_OK;
}

tandem_err td_op_store_put_clock(td_op_store *ops, uint64_t hlc)
{
    assert(ops->txn);
    if (hlc > ops->position.hlc && !td_planted(TD_PLANTED_CLOCK_NOT_KEPT)) {
        ops->position.hlc = hlc;
        ops->dirty = true;
    }
    return ops->group_err;
}

tandem_err td_op_store_reincarnate(td_op_store *ops, tandem_incarnation_reason reason,
                                   bool with_reactor, uint64_t hlc)
{
    struct identity_node *next;

    assert(ops->txn && !ops->dirty && !ops->next_identity);
    if (ops->group_err != TANDEM_OK)
        return ops->group_err;
    if (!(next = malloc(sizeof(*next))))
        return TANDEM_E_NOMEM;
    next->before = atomic_load(&ops->identity);
    next->identity = next->before->identity;
    next->identity.incarnation++;
    next->identity.reason = reason;
    identity_draw(ops, &next->identity);
    if (with_reactor)
        td_env_random_bytes(ops->env, next->identity.reactor, sizeof(next->identity.reactor));
    ops->next_identity = next;
    if (hlc)
        ops->position.hlc = hlc;
    ops->dirty = true;
    ops->group_err = td_identity_put(ops->txn, &next->identity, &ops->scratch);
    if (ops->group_err == TANDEM_OK)
        td_probe(ops->env, TD_PROBE_IDENTITY_WRITTEN);
    return ops->group_err;
}

unsigned td_op_store_group_forks(const td_op_store *ops)
{
    assert(ops->txn);
    return ops->group_forks;
}

uint64_t td_op_store_group_ordinal(const td_op_store *ops)
{
    assert(ops->txn);
    return ops->position.ordinal;
}

/* ---- Commit ---- */

static tandem_err origin_flush(td_op_store *ops, const struct origin *origin)
{
    uint32_t id = origin->collection->record.id;
    tandem_err err = td_vector_put(ops->txn, id, origin->key.origin, &origin->vector,
                                   &ops->scratch);

    for (unsigned i = 0; i < origin->run_count && err == TANDEM_OK; i++)
        err = td_run_put(ops->txn, id, origin->key.origin, &origin->runs[i].run, &ops->scratch);
    return err;
}

static tandem_err group_flush(td_op_store *ops)
{
    struct origin *origin;
    struct collection *collection;
    tandem_err err = ops->group_err;

    for (collection = td_hash_table_first(&ops->collections); collection && err == TANDEM_OK;
         collection = td_hash_table_next(&collection->hash_entry))
        if (collection->may_prune)
            err = prune(ops, collection);
    for (origin = td_hash_table_first(&ops->origins); origin && err == TANDEM_OK;
         origin = td_hash_table_next(&origin->hash_entry))
        if (origin->dirty)
            err = origin_flush(ops, origin);
    for (collection = td_hash_table_first(&ops->collections); collection && err == TANDEM_OK;
         collection = td_hash_table_next(&collection->hash_entry))
        if (collection->dirty)
            err = td_collection_put(ops->txn, collection->name, &collection->record,
                                    &ops->scratch);
    if (err == TANDEM_OK)
        err = td_position_put(ops->txn, &ops->position, &ops->scratch);
    return err;
}

tandem_err td_op_store_commit(td_op_store *ops)
{
    tandem_err err;

    assert(ops->txn);
    if (!ops->dirty && !ops->unproven && ops->group_err == TANDEM_OK) {
        td_op_store_abort(ops); /* nothing new: all that the group confirmed is on disk */
        td_probe(ops->env, TD_PROBE_COMMIT_SKIPPED);
        return TANDEM_OK;
    }
    if ((err = group_flush(ops)) == TANDEM_OK) {
        td_probe(ops->env, TD_PROBE_COMMIT_BEFORE);
        err = td_txn_commit(ops->txn);
        if (td_planted(TD_PLANTED_COMMIT_ERROR_DROPPED))
            err = TANDEM_OK;
    } else {
        td_txn_abort(ops->txn);
    }
    td_probe(ops->env, err == TANDEM_OK ? TD_PROBE_COMMIT_AFTER : TD_PROBE_COMMIT_FAILED);
    if (err == TANDEM_OK) {
        atomic_fetch_add(&ops->lacks, ops->group_lacks);
        atomic_fetch_add(&ops->lack_changes, ops->group_changes_lacks);
    }
    if (err == TANDEM_OK && ops->next_identity) {
        atomic_store(&ops->identity, ops->next_identity);
        ops->next_identity = NULL;
    }
    group_drop(ops);
    if (err == TANDEM_OK)
        ops->unproven = false;
    return err;
}

void td_op_store_abort(td_op_store *ops)
{
    if (!ops->txn)
        return;
    td_txn_abort(ops->txn);
    group_drop(ops);
}

tandem_err td_op_store_recover(td_op_store *ops)
{
    td_identity identity;
    td_position position;
    td_txn *txn;
    tandem_err err;

    td_op_store_abort(ops);
    ops->unproven = true;
    if ((err = td_store_recover(ops->store)) != TANDEM_OK ||
        (err = td_store_begin_read(ops->store, &txn)) != TANDEM_OK)
        return err;
    if ((err = td_position_get(txn, &position)) == TANDEM_OK &&
        (err = td_identity_get(txn, &identity)) == TANDEM_OK &&
        identity.incarnation != td_op_store_identity(ops)->incarnation)
        err = identity_publish(ops, &identity); /* a commit that was taken for failed */
    if (err == TANDEM_OK)
        err = lacks_count(ops, txn);
    sodium_memzero(&identity, sizeof(identity));
    td_txn_abort(txn);
    if (err == TANDEM_OK)
        td_probe(ops->env, TD_PROBE_STORE_RECOVERED);
    return err;
}
