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

/* ---- Of a job ---- */

struct part_search {
    td_txn *txn;
    uint32_t id;
    const uint8_t *origin;
    const td_operation *job;
    size_t count;
    td_held_part *out;
    bool corrupt;
};

/* Is the job's operation number at held in this run? */
static tandem_err is_in_run(struct part_search *s, const td_run *run, size_t at, bool *out)
{
    td_found found;
    tandem_err err = find_in_run(s->txn, s->id, s->origin, run, s->job[at].seq, s->job[at].hash,
                                 &found);

    *out = err == TANDEM_OK;
    s->corrupt = s->corrupt || err == TANDEM_E_CORRUPT;
    return err == TANDEM_E_NOT_FOUND || err == TANDEM_E_CORRUPT ? TANDEM_OK : err;
}

/* Run and job are chains: what both have begins where both do, and goes on until they part. Each operation
 * is in one run. */
static tandem_err search_part(struct part_search *s, const td_run *run)
{
    uint64_t first = s->job[0].seq, last = s->job[s->count - 1].seq;
    size_t low, high, begin, middle; /* low are held, those from high on are not */
    bool is_held;
    tandem_err err;

    if (run->first > last || run->last < first)
        return TANDEM_OK;
    begin = run->first > first ? (size_t)(run->first - first) : 0;
    high = (size_t)((run->last < last ? run->last : last) - first) + 1;
    low = begin;
    middle = high - 1; /* mostly all are, or none */
    while (low < high) {
        if ((err = is_in_run(s, run, middle, &is_held)) != TANDEM_OK)
            return err;
        if (is_held)
            low = middle + 1;
        else
            high = middle;
        middle = low == begin ? begin : low + (high - low) / 2;
    }
    s->out->count += low - begin;
    if (low > begin && low > s->out->end) {
        s->out->end = low;
        s->out->loose = run->loose;
    }
    return TANDEM_OK;
}

/* Of the runs in the table those that may span the job: all that begin before its end, or, where runs
 * stand one behind the other, from the one on in which it begins. */
static tandem_err search_part_in_table(struct part_search *s, bool forked)
{
    uint64_t first = s->job[0].seq, last = s->job[s->count - 1].seq;
    uint8_t start[TD_RUN_KEY_BYTES];
    tandem_slice key, value;
    td_cursor *cursor;
    td_run run;
    tandem_err err;

    if ((err = td_txn_cursor(s->txn, TD_TABLE_GROUPS, &cursor)) != TANDEM_OK)
        return err;
    td_run_key(start, s->id, s->origin, forked ? 0 : first, 0);
    err = forked ? TANDEM_END
                 : td_cursor_seek_before(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    if (err == TANDEM_END || (err == TANDEM_OK && !run_of(key, s->id, s->origin)))
        err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    while (err == TANDEM_OK && run_of(key, s->id, s->origin)) {
        if (td_run_decode(key, value, &run) != TANDEM_OK)
            s->corrupt = true;
        else if (run.first > last)
            break;
        else
            err = search_part(s, &run);
        if (err == TANDEM_OK)
            err = td_cursor_next(cursor, &key, &value);
    }
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}

tandem_err td_op_held_part(td_txn *txn, uint32_t id, const uint8_t *origin, const td_operation *job,
                           size_t count, bool forked, const td_run *open, unsigned open_count,
                           td_held_part *out)
{
    struct part_search s = {
        .txn = txn, .id = id, .origin = origin, .job = job, .count = count, .out = out};
    tandem_err err;

    *out = (td_held_part){0};
    err = search_part_in_table(&s, forked);
    for (unsigned i = 0; i < open_count && err == TANDEM_OK; i++)
        err = search_part(&s, &open[i]);
    if (err == TANDEM_OK && s.corrupt && out->count < count)
        err = TANDEM_E_CORRUPT;
    return err;
}

/* ---- Runs ---- */

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

tandem_err td_op_overlaps(td_txn *txn, uint32_t id, const uint8_t *origin, uint64_t first,
                          uint64_t last, const td_run *open, unsigned open_count, bool *out)
{
    uint8_t end[TD_RUN_KEY_BYTES];
    tandem_slice key, value;
    td_cursor *cursor;
    td_run run;
    tandem_err err;

    *out = false;
    for (unsigned i = 0; i < open_count; i++)
        if (open[i].first <= last && open[i].last >= first)
            *out = true;
    if (*out)
        return TANDEM_OK;
    if ((err = td_txn_cursor(txn, TD_TABLE_GROUPS, &cursor)) != TANDEM_OK)
        return err;
    td_run_key(end, id, origin, last, UINT64_MAX);
    err = td_cursor_seek_before(cursor, tandem_slice_of(end, sizeof(end)), &key, &value);
    if (err == TANDEM_OK && run_of(key, id, origin) &&
        (err = td_run_decode(key, value, &run)) == TANDEM_OK)
        *out = run.last >= first;
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}
