#include <assert.h>
#include <sodium.h>
#include <stdlib.h>

#include "store/op_group.h"
#include "store/planted.h"
#include "store/probe.h"

int td_head_compare(const void *a, const void *b)
{
    const td_head *x = a, *y = b;

    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return memcmp(x->hash, y->hash, TANDEM_HASH_BYTES);
}

/* ---- Identity ---- */

static void identity_draw(td_op_store *ops, td_identity *identity)
{
    td_env_random_bytes(ops->env, identity->seed, sizeof(identity->seed));
    td_origin_of_seed(identity->seed, identity->origin);
    identity->since_ms = td_env_wall_ms(ops->env);
}

static void identity_free(struct td_identity_node *node)
{
    if (node)
        sodium_memzero(node, sizeof(*node));
    free(node);
}

static tandem_err identity_publish(td_op_store *ops, const td_identity *identity)
{
    struct td_identity_node *node = malloc(sizeof(*node));

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
    for (struct td_identity_node *node = atomic_load(&ops->identity), *before; node; node = before) {
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

tandem_err td_group_collection(td_op_store *ops, tandem_slice name, td_open_collection **out)
{
    td_open_collection *entry = td_hash_table_find(&ops->collections, name);
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

tandem_err td_group_origin(td_op_store *ops, td_open_collection *collection,
                           const uint8_t *origin, td_open_origin **out)
{
    struct td_origin_key key = {.collection = collection};
    td_open_origin *entry;
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

td_chain td_group_chain(const td_op_store *ops, const td_open_origin *origin,
                        td_run open[TANDEM_HEADS_MAX])
{
    for (unsigned i = 0; i < origin->run_count; i++)
        open[i] = origin->runs[i].run;
    return (td_chain){ops->txn, origin->collection->record.id, origin->key.origin,
                      &origin->vector, open, origin->run_count, false};
}

void td_group_give_id(td_op_store *ops, td_open_collection *collection)
{
    if (!collection->record.id)
        collection->record.id = ++ops->position.collections;
}

void td_group_lacks_changed(td_op_store *ops, td_open_origin *origin)
{
    origin->collection->record.last_ordinal = ++ops->position.ordinal;
    origin->collection->dirty = origin->dirty = ops->dirty = true;
    ops->group_changes_lacks = true;
}

bool td_group_is_broken_by(tandem_err err)
{
    return err == TANDEM_E_STORE_FULL || err == TANDEM_E_IO || err == TANDEM_E_NOMEM;
}

/* ---- The group's other calls ---- */

tandem_err td_op_store_tip(td_op_store *ops, tandem_slice collection, const uint8_t *origin,
                           td_head *out)
{
    td_vector_record vector;
    td_open_collection *entry;
    td_open_origin *known;
    tandem_err err;

    if (ops->txn && !td_planted(TD_PLANTED_SEQ_REUSED)) {
        if (!td_name_valid(collection))
            return TANDEM_E_INVALID;
        if ((err = td_group_collection(ops, collection, &entry)) != TANDEM_OK ||
            (err = td_group_origin(ops, entry, origin, &known)) != TANDEM_OK)
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
    struct td_identity_node *next;

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

static tandem_err origin_flush(td_op_store *ops, const td_open_origin *origin)
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
    td_open_origin *origin;
    td_open_collection *collection;
    tandem_err err = ops->group_err;

    for (collection = td_hash_table_first(&ops->collections); collection && err == TANDEM_OK;
         collection = td_hash_table_next(&collection->hash_entry))
        if (collection->may_prune)
            err = td_pairs_prune(ops, collection);
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
