/*
 * Digests of our vectors, kept for as long as a collection does not change, and the one over all of
 * them with which a handshake begins.
 */
#include <stdlib.h>

#include "store/planted.h"
#include "sync/sync_manager.h"

tandem_err td_sync_digest(tandem_sync *sync, tandem_slice collection, td_vector_digest *out)
{
    td_collection_info info;
    td_cached_digest *cached;
    tandem_err err;

    /* The ordinal first: what is written in between is in the digest and not in the ordinal, so
     * nothing counts as known that is not. */
    if ((err = td_op_store_collection(sync->ops, collection, &info)) != TANDEM_OK)
        return err;
    cached = td_hash_table_find(&sync->digests, collection);
    if (cached && (cached->vector.last_ordinal == info.last_ordinal ||
                   td_planted(TD_PLANTED_DIGEST_STALE))) {
        *out = cached->vector;
        out->last_ordinal = info.last_ordinal;
        return TANDEM_OK;
    }
    out->last_ordinal = info.last_ordinal;
    if ((err = td_op_store_vector_summary(sync->ops, collection, out->digest, &out->origins)) !=
        TANDEM_OK)
        return err;
    /* Names that only peers know are not kept: they could be any number. */
    if (!cached && info.last_ordinal == 0)
        return TANDEM_OK;
    if (!cached) {
        if (!(cached = calloc(1, sizeof(*cached) + collection.size)))
            return TANDEM_OK;
        cached->size = collection.size;
        memcpy(cached->name, collection.bytes, collection.size);
        if (td_hash_table_add(&sync->digests, &cached->hash_entry,
                              tandem_slice_of(cached->name, cached->size), cached) != TANDEM_OK) {
            free(cached);
            return TANDEM_OK;
        }
    }
    cached->vector = *out;
    return TANDEM_OK;
}

void td_sync_forget_digests(tandem_sync *sync)
{
    td_hash_table_clear(&sync->digests, free);
}

/* Names of our collections after a name, one page, as NUL-terminated texts in a writer. */
struct names {
    tandem_writer *out;
    uint32_t count;
    uint32_t count_max;
};

static tandem_err note_name(void *context, const td_collection_info *info)
{
    struct names *names = context;

    if (info->last_ordinal == 0)
        return TANDEM_OK;
    tandem_write_raw(names->out, info->name);
    tandem_write_raw(names->out, tandem_slice_of("", 1));
    return ++names->count >= names->count_max ? TANDEM_END : TANDEM_OK;
}

tandem_err td_sync_names_after(tandem_sync *sync, const char *after, uint32_t count_max,
                              tandem_writer *out)
{
    struct names names = {.out = out, .count_max = count_max};
    tandem_err err;

    tandem_writer_clear(out);
    err = td_op_store_collections(sync->ops, tandem_slice_text(after), note_name, &names);
    if (tandem_writer_err(out) != TANDEM_OK)
        return tandem_writer_err(out);
    return err == TANDEM_END ? TANDEM_OK : err == TANDEM_OK ? TANDEM_END : err;
}

tandem_err td_sync_each_collection(tandem_sync *sync,
                                  tandem_err (*visit)(void *context, tandem_slice name),
                                  void *context)
{
    char after[TANDEM_NAME_BYTES_MAX + 1] = "";
    tandem_writer names;
    tandem_err page = TANDEM_OK, err = TANDEM_OK;

    tandem_writer_init(&names);
    while (page == TANDEM_OK && err == TANDEM_OK) {
        page = td_sync_names_after(sync, after, TD_HAVE_PAGE_ENTRIES_MAX, &names);
        if (page != TANDEM_OK && page != TANDEM_END)
            err = page;
        for (size_t at = 0; err == TANDEM_OK && at < names.size;) {
            tandem_slice name = tandem_slice_text((const char *)names.bytes + at);

            err = visit(context, name);
            memcpy(after, name.bytes, name.size);
            after[name.size] = 0;
            at += name.size + 1;
        }
    }
    tandem_writer_release(&names);
    return err;
}

struct digesting {
    td_peer *peer;
    bool in_part;
    tandem_writer parts; /* B(name) || digest, one after the other */
    uint64_t count;
};

static tandem_err digest_one(void *context, tandem_slice name)
{
    struct digesting *digesting = context;
    uint8_t hash[TANDEM_HASH_BYTES];
    td_vector_digest vector;
    tandem_err err;

    if (!td_way_is_shared(digesting->peer, name))
        return TANDEM_OK;
    if ((err = td_sync_digest(digesting->peer->sync, name, &vector)) != TANDEM_OK)
        return err;
    digesting->in_part = digesting->in_part || td_ways_holds_in_part(digesting->peer->sync, name);
    td_hash(hash, &name, 1);
    tandem_write_raw(&digesting->parts, tandem_slice_of(hash, sizeof(hash)));
    tandem_write_raw(&digesting->parts, tandem_slice_of(vector.digest, sizeof(vector.digest)));
    digesting->count++;
    return tandem_writer_err(&digesting->parts);
}

tandem_err td_sync_digest_all(td_peer *peer, uint64_t *count_out, uint8_t out[TANDEM_HASH_BYTES])
{
    struct digesting digesting = {.peer = peer};
    tandem_slice parts;
    tandem_err err;

    tandem_writer_init(&digesting.parts);
    if ((err = td_sync_each_collection(peer->sync, digest_one, &digesting)) == TANDEM_OK) {
        parts = tandem_writer_slice(&digesting.parts);
        td_hash(out, &parts, 1);
        if (digesting.in_part)
            memset(out, 0, TANDEM_HASH_BYTES);
        *count_out = digesting.count;
    }
    tandem_writer_release(&digesting.parts);
    return err;
}
