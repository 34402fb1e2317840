/*
 * The entries of a stream: sorted ones are merged into its blocks, and they are read in order.
 *
 * What is newer than all that a stream has goes behind its last block, which is begun anew when it is
 * full. What is late goes where it belongs; a block that gets too large for it becomes several of
 * about the same size, or the next late one would find no room again.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "store/stream_block.h"
#include "store/stream_state.h"

/* ---- Finding ---- */

/* The block that a place belongs to, and where the next one begins. */
struct home {
    bool found;
    td_index_key key;
    tandem_slice body; /* in the index's block_old */
    bool bounded;
    td_place bound; /* its prefix */
};

/* To the last block that begins at or before a place, or to the stream's first. */
static tandem_err block_seek(td_cursor *cursor, tandem_slice stream, const td_place *place,
                             tandem_slice *key, tandem_slice *value)
{
    td_index_key from;
    tandem_err err;

    td_block_key(&from, stream, place);
    from.bytes[from.size++] = 0; /* the next key that there can be */
    err = td_cursor_seek_before(cursor, td_index_key_slice(&from), key, value);
    if (err < TANDEM_OK || (err == TANDEM_OK && td_block_is_of(*key, stream)))
        return err;
    td_index_key_copy(&from, stream);
    td_index_key_end_name(&from);
    err = td_cursor_seek(cursor, td_index_key_slice(&from), key, value);
    return err == TANDEM_OK && !td_block_is_of(*key, stream) ? TANDEM_END : err;
}

static tandem_err home_find(td_stream_index *index, td_cursor *cursor, tandem_slice stream,
                            const td_place *place, struct home *out)
{
    tandem_slice key, value;
    tandem_err err = block_seek(cursor, stream, place, &key, &value);

    out->found = out->bounded = false;
    if (err)
        return err == TANDEM_END ? TANDEM_OK : err;
    if ((err = td_index_unwrap(TD_INDEX_DOCUMENTS, key, &value)) != TANDEM_OK)
        return err;
    out->found = true;
    td_index_key_copy(&out->key, key);
    tandem_writer_clear(&index->block_old);
    tandem_write_raw(&index->block_old, value);
    if ((err = tandem_writer_err(&index->block_old)) != TANDEM_OK)
        return err;
    out->body = tandem_writer_slice(&index->block_old);
    err = td_cursor_next(cursor, &key, &value);
    if (err == TANDEM_OK && td_block_is_of(key, stream)) {
        out->bounded = true;
        memcpy(out->bound.bytes, key.bytes + key.size - TD_PLACE_HASH_AT, TD_PLACE_HASH_AT);
    }
    return err < TANDEM_OK ? err : TANDEM_OK;
}

/* ---- Writing ---- */

/* Blocks that are written one after the other. */
struct writing {
    td_stream_index *index;
    tandem_slice stream; /* its key */
    bool lifecycle;
    size_t bytes_max; /* of a block */

    bool begun;
    td_index_key key;
    td_block_state state;
    td_place last;
    tandem_writer *body; /* the index's */
    uint8_t bytes[TD_BLOCK_ENTRY_BYTES_MAX]; /* the entry that is being added */
};

static void writing_begin(struct writing *w, const td_index_key *key)
{
    w->begun = true;
    w->key = *key;
    tandem_writer_clear(w->body);
    td_block_begin(&w->state, td_index_key_slice(&w->key), w->lifecycle);
}

static tandem_err writing_put(struct writing *w)
{
    tandem_err err = tandem_writer_err(w->body);

    if (err == TANDEM_OK && w->begun)
        err = td_index_put(w->index, TD_INDEX_DOCUMENTS, td_index_key_slice(&w->key),
                           tandem_writer_slice(w->body));
    w->begun = false;
    return err;
}

/* A new block, of which the first entry stands at place. */
static tandem_err writing_go_on(struct writing *w, const td_place *place)
{
    td_index_key key;
    tandem_err err = writing_put(w);

    td_block_key(&key, w->stream, place);
    writing_begin(w, &key);
    return err;
}

static tandem_err writing_add(struct writing *w, const td_block_entry *entry)
{
    size_t size = w->begun ? td_block_add(&w->state, entry, w->bytes) : 0;
    bool tie = w->begun && td_place_prefix_compare(&w->last, &entry->place) == 0;
    tandem_err err;

    assert(size || !tie); /* no new origin */
    if (size == 0 || (w->body->size + size > w->bytes_max && !tie)) {
        if ((err = writing_go_on(w, &entry->place)) != TANDEM_OK)
            return err;
        size = td_block_add(&w->state, entry, w->bytes);
    }
    tandem_write_raw(w->body, tandem_slice_of(w->bytes, size));
    w->last = entry->place;
    return TANDEM_OK;
}

/* ---- Ties ---- */

static bool are_tied(const td_block_entry *a, const td_block_entry *b)
{
    return td_place_prefix_compare(&a->place, &b->place) == 0;
}

/* Which of them need their hash to be told apart? */
static void ties_mark(td_block_entry *entries, size_t count, bool lifecycle)
{
    for (size_t i = 0; i < count; i++)
        entries[i].hashed = lifecycle || (i > 0 && are_tied(&entries[i - 1], &entries[i])) ||
                            (i + 1 < count && are_tied(&entries[i], &entries[i + 1]));
}

struct lookup {
    td_block_entry *entry;
    bool found;
};

static tandem_err take_hash(void *context, tandem_err err, uint64_t ordinal,
                            const td_operation *operation)
{
    struct lookup *lookup = context;

    if (err || ordinal != lookup->entry->ordinal)
        return TANDEM_END;
    lookup->entry->place = td_place_with_hash(&lookup->entry->place, operation);
    lookup->entry->hashed = lookup->found = true;
    return TANDEM_END;
}

/* The operation knows the hash that an entry did not need until now. */
static tandem_err hash_find(td_stream_index *index, tandem_slice collection, td_block_entry *entry)
{
    struct lookup lookup = {entry, false};
    tandem_err err;

    if (entry->hashed)
        return TANDEM_OK;
    err = td_op_store_scan(index->ops, collection, entry->ordinal - 1, take_hash, &lookup);
    if (err < TANDEM_OK)
        return err;
    return lookup.found ? TANDEM_OK : TANDEM_E_CORRUPT; /* built anew, it does without this one */
}

static int place_order(const void *a, const void *b)
{
    const td_block_entry *x = a, *y = b;

    return td_place_compare(&x->place, &y->place);
}

/* Those that share hlc, origin and seq get their hashes, and the order that these tell. */
static tandem_err ties_sort(td_stream_index *index, tandem_slice collection,
                            td_block_entry *entries, size_t count)
{
    for (size_t i = 0, tied; i < count; i += tied) {
        tandem_err err;

        for (tied = 1; i + tied < count && are_tied(&entries[i], &entries[i + tied]);)
            tied++;
        for (size_t k = 0; tied > 1 && k < tied; k++)
            if ((err = hash_find(index, collection, &entries[i + k])) != TANDEM_OK)
                return err;
        if (tied > 1)
            qsort(entries + i, tied, sizeof(entries[0]), place_order);
    }
    return TANDEM_OK;
}

/* ---- Merging ---- */

static tandem_err block_count(const struct home *home, bool lifecycle, td_block_state *state,
                              size_t *count_out, td_block_entry *last_out)
{
    tandem_slice rest = home->body;
    tandem_err err;

    *count_out = 0;
    td_block_begin(state, td_index_key_slice(&home->key), lifecycle);
    while ((err = td_block_next(state, &rest, last_out)) == TANDEM_OK)
        ++*count_out;
    return err == TANDEM_END ? TANDEM_OK : err;
}

/* What a block has and what is new, in one order. */
static tandem_err merge(struct writing *w, tandem_slice collection, const struct home *home,
                        td_block_entry *entries, size_t count, td_block_entry *out,
                        size_t *count_out)
{
    td_block_state state;
    td_block_entry old;
    tandem_slice rest = home->body;
    size_t used = 0, i = 0;
    tandem_err err;

    td_block_begin(&state, td_index_key_slice(&home->key), w->lifecycle);
    while ((err = td_block_next(&state, &rest, &old)) == TANDEM_OK) {
        for (; i < count; i++) {
            int order;

            if (are_tied(&entries[i], &old) &&
                ((err = hash_find(w->index, collection, &old)) != TANDEM_OK ||
                 (err = hash_find(w->index, collection, &entries[i])) != TANDEM_OK))
                return err;
            order = td_block_entry_compare(&old, &entries[i].place);
            if (order == 0)
                return TANDEM_E_CORRUPT; /* it is there already */
            if (order < 0)
                break;
            out[used++] = entries[i];
        }
        out[used++] = old;
    }
    if (err != TANDEM_END)
        return err;
    for (; i < count; i++)
        out[used++] = entries[i];
    *count_out = used;
    ties_mark(out, used, w->lifecycle);
    return TANDEM_OK;
}

/* Write a block anew, and what belongs between what it has. */
static tandem_err block_rewrite(struct writing *w, tandem_slice collection, const struct home *home,
                                td_block_entry *entries, size_t count, size_t held)
{
    size_t bytes = home->body.size + home->body.size / held * count;
    size_t parts = bytes / TD_BLOCK_BYTES + 1, merged;
    td_block_entry *all = malloc((held + count) * sizeof(*all));
    td_index_key first;
    tandem_err err;

    if (!all)
        return TANDEM_E_NOMEM;
    if ((err = merge(w, collection, home, entries, count, all, &merged)) != TANDEM_OK)
        goto out;
    td_block_key(&first, w->stream, &all[0].place);
    if (!tandem_slice_equal(td_index_key_slice(&first), td_index_key_slice(&home->key)) &&
        (err = td_index_del(w->index, TD_INDEX_DOCUMENTS, td_index_key_slice(&home->key))) !=
            TANDEM_OK)
        goto out;
    if (parts > 1)
        w->bytes_max = bytes / parts + home->body.size / held;
    for (size_t i = 0; i < merged && err == TANDEM_OK; i++)
        err = writing_add(w, &all[i]);
    if (err == TANDEM_OK)
        err = writing_put(w);

out:
    free(all);
    return err;
}

/* Entries that belong to one block, or to none: those of a new stream. */
static tandem_err block_extend(struct writing *w, tandem_slice collection, const struct home *home,
                               td_block_entry *entries, size_t count)
{
    td_block_entry last;
    size_t held;
    tandem_err err;

    w->bytes_max = TD_BLOCK_BYTES;
    if (home->found) {
        if ((err = block_count(home, w->lifecycle, &w->state, &held, &last)) != TANDEM_OK)
            return err;
        if (td_place_prefix_compare(&last.place, &entries[0].place) >= 0)
            return block_rewrite(w, collection, home, entries, count, held);
        w->begun = true;
        w->key = home->key;
        w->last = last.place;
        tandem_writer_clear(w->body);
        tandem_write_raw(w->body, home->body);
    }
    ties_mark(entries, count, w->lifecycle);
    for (size_t i = 0; i < count; i++)
        if ((err = writing_add(w, &entries[i])) != TANDEM_OK)
            return err;
    return writing_put(w);
}

tandem_err td_index_entries_put(td_stream_index *index, tandem_slice collection,
                                tandem_slice stream_key, bool lifecycle, bool is_new,
                                td_block_entry *entries, size_t count)
{
    struct writing w = {.index = index,
                        .stream = stream_key,
                        .lifecycle = lifecycle,
                        .body = &index->block_new};
    struct home home = {0};
    td_cursor *cursor = NULL;
    tandem_err err = ties_sort(index, collection, entries, count);

    if (err == TANDEM_OK && !is_new)
        err = td_txn_cursor(index->txn, TD_INDEX_DOCUMENTS, &cursor);
    while (count && err == TANDEM_OK) {
        size_t fit = 0;

        if (cursor && (err = home_find(index, cursor, stream_key, &entries[0].place, &home)))
            break;
        while (fit < count &&
               (!home.bounded || td_place_prefix_compare(&entries[fit].place, &home.bound) < 0))
            fit++;
        err = block_extend(&w, collection, &home, entries, fit);
        entries += fit;
        count -= fit;
    }
    td_cursor_free(cursor);
    return err;
}

/* ---- Reading ---- */

/* Only what has the hlc, origin and seq of a whole place may need its hash to be told from it. */
static tandem_err is_after(td_stream_index *index, tandem_slice collection,
                           const td_block_entry *entry, const td_place *place, bool *out)
{
    td_block_entry whole = *entry;
    tandem_err err = TANDEM_OK;

    if (td_place_prefix_compare(&entry->place, place) == 0 && !td_place_lacks_hash(place))
        err = hash_find(index, collection, &whole);
    *out = td_block_entry_compare(&whole, place) > 0;
    return err;
}

tandem_err td_index_entries_each(td_stream_index *index, tandem_slice collection,
                                 tandem_slice stream, bool lifecycle, const td_place *after,
                                 td_visit_block_entry visit, void *context, tandem_err *said_out)
{
    tandem_slice key, value;
    td_block_state state;
    td_block_entry entry;
    td_cursor *cursor;
    tandem_err err = td_txn_cursor(index->txn, TD_INDEX_DOCUMENTS, &cursor), said = TANDEM_OK;
    bool is;

    *said_out = TANDEM_OK;
    if (err)
        return err;
    err = block_seek(cursor, stream, after, &key, &value);
    while (err == TANDEM_OK && td_block_is_of(key, stream)) {
        if ((err = td_index_unwrap(TD_INDEX_DOCUMENTS, key, &value)) != TANDEM_OK)
            break;
        td_block_begin(&state, key, lifecycle);
        while (!said && (err = td_block_next(&state, &value, &entry)) == TANDEM_OK) {
            if ((err = is_after(index, collection, &entry, after, &is)) != TANDEM_OK)
                break;
            if (is)
                said = visit(context, &entry);
        }
        if (err < TANDEM_OK || said)
            break;
        err = td_cursor_next(cursor, &key, &value);
    }
    td_cursor_free(cursor);
    *said_out = said;
    return err < TANDEM_OK ? err : TANDEM_OK;
}

struct rank {
    td_stream_index *index;
    tandem_slice collection;
    const td_place *place;
    uint64_t count;
};

static tandem_err rank_one(void *context, const td_block_entry *entry)
{
    struct rank *rank = context;
    bool is;
    tandem_err err = is_after(rank->index, rank->collection, entry, rank->place, &is);

    if (err || is)
        return err ? err : TANDEM_END;
    rank->count++;
    return TANDEM_OK;
}

tandem_err td_index_entries_rank(td_stream_index *index, tandem_slice collection,
                                 tandem_slice stream, const td_place *place, uint64_t *out)
{
    struct rank rank = {index, collection, place, 0};
    tandem_err said, err = td_index_entries_each(index, collection, stream, false, &td_place_zero,
                                                 rank_one, &rank, &said);

    *out = rank.count;
    return err || said >= TANDEM_OK ? err : said;
}
