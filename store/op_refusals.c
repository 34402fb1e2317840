/*
 * What is not taken: refused for good, or wanted, either of which is a lack; and refusals that are
 * withdrawn.
 */
#include <assert.h>
#include <stdlib.h>

#include "store/op_group.h"
#include "store/planted.h"
#include "store/probe.h"

static tandem_err refuse_job(td_op_store *ops, const td_operation *job, size_t count,
                             tandem_err reason)
{
    const td_operation *first, *last = &job[count - 1];
    td_open_origin *origin;
    td_run open[TANDEM_HEADS_MAX];
    td_chain chain;
    td_place place;
    td_lack lack;
    tandem_err err;

    if ((err = td_group_look(ops, job, count, false, &origin, open, &chain, &place)) != TANDEM_OK)
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
        td_group_lacks_changed(ops, origin);
        return reason;
    }
    first = &job[place.held];
    lack = (td_lack){.first = first->seq, .last = last->seq, .reason = reason};
    memcpy(lack.predecessor, first->predecessor, TANDEM_HASH_BYTES);
    memcpy(lack.hash, last->hash, TANDEM_HASH_BYTES);
    td_probe(ops->env, TD_PROBE_RANGE_REFUSED);
    err = td_group_add_lack(ops, origin, &lack);
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
    if (td_group_is_broken_by(err))
        ops->group_err = err;
    return err;
}

tandem_err td_op_store_want(td_op_store *ops, tandem_slice name, const uint8_t *origin_id,
                            const td_lack *lack)
{
    td_lack added = *lack, known;
    td_open_collection *collection;
    td_open_origin *origin;
    td_run open[TANDEM_HEADS_MAX];
    td_chain chain;
    tandem_err err;

    assert(ops->txn);
    if (ops->group_err != TANDEM_OK)
        return ops->group_err;
    if (!td_collection_name_valid(name) || lack->first < 1 || lack->last < lack->first)
        return TANDEM_E_INVALID;
    if ((err = td_group_collection(ops, name, &collection)) != TANDEM_OK ||
        (err = td_group_origin(ops, collection, origin_id, &origin)) != TANDEM_OK)
        return err;
    chain = td_group_chain(ops, origin, open);
    if ((err = td_lack_find(&chain, lack->last, lack->hash, &known)) != TANDEM_E_NOT_FOUND)
        return err; /* known */
    if ((err = td_chain_reaches(&chain, lack->first - 1, lack->predecessor, name)) != TANDEM_OK)
        return err;
    if ((err = td_chain_holds(&chain, lack->last, lack->hash)) != TANDEM_E_NOT_FOUND)
        return err; /* held */
    added.followed = false;
    td_probe(ops->env, added.reason == TANDEM_OK ? TD_PROBE_RANGE_WANTED : TD_PROBE_RANGE_REFUSED);
    err = td_group_add_lack(ops, origin, &added);
    if (td_group_is_broken_by(err))
        ops->group_err = err;
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
    td_open_collection *collection;
    tandem_err err;

    refusals->count = 0;
    if ((err = td_group_collection(ops, name, &collection)) != TANDEM_OK ||
        (err = td_lacks_each(ops->txn, collection->record.id, NULL, 0, note_refused, refusals)) !=
        TANDEM_OK)
        return err;
    for (size_t i = 0; i < refusals->count; i++) {
        struct refused *refused = &refusals->list[i];
        td_open_origin *origin;

        refused->lack.reason = TANDEM_OK;
        if ((err = td_group_origin(ops, collection, refused->origin, &origin)) != TANDEM_OK ||
            (err = td_lack_put(ops->txn, collection->record.id, refused->origin, &refused->lack,
                               &ops->scratch)) != TANDEM_OK)
            return err;
        td_group_lacks_changed(ops, origin);
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
    for (td_open_collection *entry = td_hash_table_first(&ops->collections);
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
    if (td_group_is_broken_by(err))
        ops->group_err = err;
    return err;
}
