#include "store/op_search.h"

/*
 * Look through one run for its operation at seq.
 *
 * The run's operations are told from a fork's, which may stand between them, by following the
 * chain. A record that cannot be read may have been one of them: then the next one of the origin is
 * taken to go on with the run, and if that lies beyond seq, the one sought is the damaged one.
 */
static tandem_err find_in_run(td_txn *txn, uint32_t id, const uint8_t *origin, const td_run *run,
                              uint64_t seq, const uint8_t *hash, td_found *out)
{
    uint8_t start[TD_OPERATION_KEY_BYTES];
    uint8_t reached_hash[TANDEM_HASH_BYTES];
    uint64_t reached = run->first - 1;
    bool lost = true; /* the first one's predecessor is not known here */
    td_cursor *cursor;
    tandem_slice key, value;
    tandem_err err;

    if ((err = td_txn_cursor(txn, TD_TABLE_OPERATIONS, &cursor)) != TANDEM_OK)
        return err;
    td_operation_key(start, id, run->ordinal);
    err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    for (; err == TANDEM_OK; err = td_cursor_next(cursor, &key, &value)) {
        td_operation op;

        if (!td_key_has_id(key, id))
            break;
        if (td_operation_decode(key, value, &op) != TANDEM_OK) {
            lost = true;
            continue;
        }
        if (memcmp(op.origin, origin, TANDEM_ORIGIN_BYTES) || op.seq <= reached ||
            op.seq > run->last)
            continue;
        if (!lost && (op.seq != reached + 1 ||
                      memcmp(op.predecessor, reached_hash, TANDEM_HASH_BYTES)))
            continue;
        if (op.seq > seq)
            break;
        lost = false;
        reached = op.seq;
        memcpy(reached_hash, op.hash, TANDEM_HASH_BYTES);
        if (reached < seq)
            continue;
        err = TANDEM_E_NOT_FOUND;
        if (!hash || memcmp(hash, op.hash, TANDEM_HASH_BYTES) == 0) {
            out->ordinal = td_get_u64(key.bytes + TD_ID_BYTES);
            out->flags = op.flags;
            out->run_first = run->first;
            out->loose = run->loose;
            td_operation_place(&op, out->place);
            err = TANDEM_OK;
        }
        td_cursor_free(cursor);
        return err;
    }
    td_cursor_free(cursor);
    return err == TANDEM_OK || err == TANDEM_END ? TANDEM_E_CORRUPT : err;
}

struct search {
    td_txn *txn;
    uint32_t id;
    const uint8_t *origin;
    uint64_t seq;
    const uint8_t *hash;
    td_found *best;
    bool found;
    bool corrupt;
};

/* TANDEM_END once nothing better can come. */
static tandem_err search_run(struct search *s, const td_run *run)
{
    td_found found;
    tandem_err err;

    if (run->first > s->seq || run->last < s->seq)
        return TANDEM_OK;
    err = find_in_run(s->txn, s->id, s->origin, run, s->seq, s->hash, &found);
    if (err == TANDEM_OK) {
        if (!s->found || found.ordinal < s->best->ordinal)
            *s->best = found;
        s->found = true;
        return s->hash ? TANDEM_END : TANDEM_OK;
    }
    if (err == TANDEM_E_CORRUPT)
        s->corrupt = true;
    return err == TANDEM_E_CORRUPT || err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
}

static bool run_of(tandem_slice key, uint32_t id, const uint8_t *origin)
{
    return key.size == TD_RUN_KEY_BYTES && td_key_has_id(key, id) &&
           memcmp(key.bytes + TD_ID_BYTES, origin, TANDEM_ORIGIN_BYTES) == 0;
}

/* Runs that the groups table holds: the last that begins at or before seq, or all of those. */
static tandem_err search_table(struct search *s, bool forked)
{
    uint8_t start[TD_RUN_KEY_BYTES];
    tandem_slice key, value;
    td_cursor *cursor;
    td_run run;
    tandem_err err;

    if ((err = td_txn_cursor(s->txn, TD_TABLE_GROUPS, &cursor)) != TANDEM_OK)
        return err;
    /* No ordinal is as large as that: the key lies behind all that begin at seq. */
    td_run_key(start, s->id, s->origin, forked ? 0 : s->seq, forked ? 0 : UINT64_MAX);
    err = forked ? td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value)
                 : td_cursor_seek_before(cursor, tandem_slice_of(start, sizeof(start)), &key,
                                         &value);
    while (err == TANDEM_OK && run_of(key, s->id, s->origin)) {
        if (td_run_decode(key, value, &run) != TANDEM_OK) {
            s->corrupt = true;
        } else {
            if (run.first > s->seq)
                break;
            if ((err = search_run(s, &run)) != TANDEM_OK)
                break;
        }
        if (!forked)
            break;
        err = td_cursor_next(cursor, &key, &value);
    }
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}

tandem_err td_op_find(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t seq,
                      const uint8_t *hash, bool forked, const td_run *open, unsigned open_count,
                      td_found *out)
{
    struct search s = {
        .txn = txn, .id = id, .origin = origin, .seq = seq, .hash = hash, .best = out};
    tandem_err err;

    if ((err = search_table(&s, forked)) != TANDEM_OK)
        return err;
    for (unsigned i = 0; i < open_count; i++) {
        err = search_run(&s, &open[i]);
        if (err != TANDEM_OK && err != TANDEM_END)
            return err;
    }
    if (s.found)
        return TANDEM_OK;
    return s.corrupt ? TANDEM_E_CORRUPT : TANDEM_E_NOT_FOUND;
}

tandem_err td_run_next(td_txn *txn, uint32_t id, const uint8_t *origin, td_run *run)
{
    uint8_t start[TD_RUN_KEY_BYTES];
    tandem_slice key, value;
    td_cursor *cursor;
    tandem_err err;

    if ((err = td_txn_cursor(txn, TD_TABLE_GROUPS, &cursor)) != TANDEM_OK)
        return err;
    td_run_key(start, id, origin, run->first, run->ordinal + 1);
    err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    if (err == TANDEM_OK)
        err = run_of(key, id, origin) ? td_run_decode(key, value, run) : TANDEM_END;
    td_cursor_free(cursor);
    return err;
}

static tandem_err operation_at(td_txn *txn, uint32_t id, uint64_t ordinal, td_operation *out)
{
    uint8_t key[TD_OPERATION_KEY_BYTES];
    tandem_slice value;
    tandem_err err;

    td_operation_key(key, id, ordinal);
    err = td_txn_get(txn, TD_TABLE_OPERATIONS, tandem_slice_of(key, sizeof(key)), &value);
    if (err == TANDEM_OK)
        err = td_operation_decode(tandem_slice_of(key, sizeof(key)), value, out);
    return err == TANDEM_E_NOT_FOUND ? TANDEM_E_CORRUPT : err;
}

tandem_err td_run_ends(td_txn *txn, uint32_t id, const uint8_t *origin, const td_run *run,
                       td_operation *first_out, td_operation *last_out)
{
    td_found found;
    tandem_err err;

    if ((err = operation_at(txn, id, run->ordinal, first_out)) == TANDEM_OK &&
        (err = find_in_run(txn, id, origin, run, run->last, NULL, &found)) == TANDEM_OK)
        err = operation_at(txn, id, found.ordinal, last_out);
    return err;
}

/* Call visit for all runs of an origin, in order of their first seqs. */
static tandem_err runs_each(td_txn *txn, uint32_t id, const uint8_t *origin,
                            tandem_err (*visit)(void *context, const td_run *run), void *context)
{
    uint8_t start[TD_RUN_KEY_BYTES];
    tandem_slice key, value;
    td_cursor *cursor;
    td_run run;
    tandem_err err;

    if ((err = td_txn_cursor(txn, TD_TABLE_GROUPS, &cursor)) != TANDEM_OK)
        return err;
    td_run_key(start, id, origin, 0, 0);
    err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    while (err == TANDEM_OK && run_of(key, id, origin)) {
        if ((err = td_run_decode(key, value, &run)) == TANDEM_OK &&
            (err = visit(context, &run)) == TANDEM_OK)
            err = td_cursor_next(cursor, &key, &value);
    }
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}

struct from_search {
    td_txn *txn;
    uint32_t id;
    const uint8_t *origin;
    uint64_t seq;
    uint64_t best; /* 0: none */
};

static tandem_err search_from(void *context, const td_run *run)
{
    struct from_search *s = context;
    td_found found = {.ordinal = run->ordinal};
    tandem_err err;

    if (run->last < s->seq)
        return TANDEM_OK;
    if (run->first < s->seq && (err = find_in_run(s->txn, s->id, s->origin, run, s->seq, NULL,
                                                  &found)) != TANDEM_OK)
        return err;
    if (!s->best || found.ordinal < s->best)
        s->best = found.ordinal;
    return TANDEM_OK;
}

tandem_err td_op_find_from(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t seq,
                           uint64_t *ordinal_out)
{
    struct from_search s = {txn, id, origin, seq, 0};
    tandem_err err = runs_each(txn, id, origin, search_from, &s);

    *ordinal_out = s.best;
    return err == TANDEM_OK && !s.best ? TANDEM_E_NOT_FOUND : err;
}

struct later_search {
    uint64_t ordinal;
    uint64_t seq; /* 0: none */
};

/* What a run names was committed at once, so it lies behind an ordinal whole or not at all. */
static tandem_err search_later(void *context, const td_run *run)
{
    struct later_search *s = context;

    if (run->ordinal > s->ordinal && (!s->seq || run->first < s->seq))
        s->seq = run->first;
    return TANDEM_OK;
}

tandem_err td_op_find_later(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t ordinal,
                            uint64_t *seq_out)
{
    struct later_search s = {ordinal, 0};
    tandem_err err = runs_each(txn, id, origin, search_later, &s);

    *seq_out = s.seq;
    return err == TANDEM_OK && !s.seq ? TANDEM_E_NOT_FOUND : err;
}

struct overlap_search {
    uint64_t first, last; /* seqs */
    bool found;
};

static tandem_err search_overlap(void *context, const td_run *run)
{
    struct overlap_search *s = context;

    s->found = run->first <= s->last && run->last >= s->first;
    return s->found || run->first > s->last ? TANDEM_END : TANDEM_OK;
}

/* The same, of the run that begins last of those that begin at or before the last seq. */
static tandem_err overlap_of_last(td_txn *txn, uint32_t id, const uint8_t *origin,
                                  struct overlap_search *s)
{
    uint8_t end[TD_RUN_KEY_BYTES];
    tandem_slice key, value;
    td_cursor *cursor;
    td_run run;
    tandem_err err;

    if ((err = td_txn_cursor(txn, TD_TABLE_GROUPS, &cursor)) != TANDEM_OK)
        return err;
    td_run_key(end, id, origin, s->last, UINT64_MAX);
    err = td_cursor_seek_before(cursor, tandem_slice_of(end, sizeof(end)), &key, &value);
    if (err == TANDEM_OK && run_of(key, id, origin) &&
        (err = td_run_decode(key, value, &run)) == TANDEM_OK)
        err = search_overlap(s, &run);
    td_cursor_free(cursor);
    return err;
}

tandem_err td_op_overlaps(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t first,
                          uint64_t last, bool forked, const td_run *open, unsigned open_count,
                          bool *out)
{
    struct overlap_search s = {.first = first, .last = last};
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; i < open_count && !s.found; i++)
        (void)search_overlap(&s, &open[i]);
    if (!s.found)
        err = forked ? runs_each(txn, id, origin, search_overlap, &s)
                     : overlap_of_last(txn, id, origin, &s);
    *out = s.found;
    return err == TANDEM_END ? TANDEM_OK : err;
}
