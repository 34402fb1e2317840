#include "store/op_place.h"

#include <assert.h>

#include "store/op_read.h"
#include "store/planted.h"

tandem_err td_job_check(const td_operation *job, size_t count)
{
    size_t bytes = 0;

    assert(count >= 1);
    if (count > TANDEM_JOB_OPERATIONS_MAX)
        return TANDEM_E_LIMIT;
    for (size_t i = 0; i < count; i++) {
        bool continues = job[i].flags & TD_FLAG_CONTINUES;

        if (continues != (i + 1 < count))
            return TANDEM_E_CHAIN;
        bytes += job[i].canonical.size;
        if (i == 0)
            continue;
        if (job[i].seq != job[i - 1].seq + 1 ||
            memcmp(job[i].predecessor, job[i - 1].hash, TANDEM_HASH_BYTES) ||
            memcmp(job[i].origin, job[0].origin, TANDEM_ORIGIN_BYTES) ||
            !tandem_slice_equal(job[i].collection, job[0].collection) ||
            !tandem_slice_equal(job[i].document, job[0].document) ||
            !tandem_slice_equal(job[i].branch, job[0].branch))
            return TANDEM_E_CHAIN;
    }
    if (bytes > TANDEM_JOB_BYTES_MAX)
        return TANDEM_E_LIMIT;
    if (job[0].collection.bytes[0] == '_')
        return TANDEM_E_UNSUPPORTED;
    if (job[0].seq == 1) {
        uint8_t root[TANDEM_HASH_BYTES];

        td_chain_root(job[0].collection, root);
        if (memcmp(job[0].predecessor, root, sizeof(root)))
            return TANDEM_E_CHAIN;
    }
    return TANDEM_OK;
}

int td_head_find(const td_vector_record *vector, uint64_t seq, const uint8_t *hash)
{
    for (unsigned i = 0; i < vector->count; i++)
        if (vector->heads[i].seq == seq &&
            memcmp(vector->heads[i].hash, hash, TANDEM_HASH_BYTES) == 0)
            return (int)i;
    return -1;
}

static tandem_err find(const td_chain *chain, uint64_t seq, const uint8_t *hash, td_found *out)
{
    if (!chain->id)
        return TANDEM_E_NOT_FOUND;
    return td_op_find_held(chain->txn, chain->id, chain->origin, chain->vector, seq, hash,
                           chain->open, chain->open_count, out);
}

/* How many of job's operations are held? They are a prefix: jobs are whole. */
static tandem_err held_prefix(const td_chain *chain, const td_operation *job, size_t count,
                              td_place *out)
{
    size_t low = 0, high = count, middle = count - 1; /* first of all: is it held as a whole? */
    td_found found;

    while (low < high) {
        tandem_err err = find(chain, job[middle].seq, job[middle].hash, &found);

        if (err == TANDEM_OK)
            low = middle + 1;
        else if (err == TANDEM_E_NOT_FOUND)
            high = middle;
        else
            return err;
        middle = low + (high - low) / 2;
    }
    out->held = low;
    return TANDEM_OK;
}

/* The same where there are gaps, and is that loose? What is held behind one may be the end of a job, cut
 * off by a peer, and this the whole of it. It cannot be made whole with what is held: TANDEM_E_CHAIN. */
static tandem_err held_with_gaps(const td_chain *chain, const td_operation *job, size_t count,
                                 td_place *out)
{
    td_held_part part;
    tandem_err err = td_op_held_part(chain->txn, chain->id, chain->origin, job, count,
                                     chain->vector->count > 1 || chain->vector->branched,
                                     chain->open, chain->open_count, &part);

    if (err != TANDEM_OK)
        return err;
    out->held = part.count;
    out->is_loose = part.loose;
    return part.count == part.end ? TANDEM_OK : TANDEM_E_CHAIN;
}

static bool is_of_place(const td_operation *operation, const uint8_t place[TANDEM_HASH_BYTES])
{
    uint8_t own[TANDEM_HASH_BYTES];

    td_operation_place(operation, own);
    return memcmp(own, place, sizeof(own)) == 0;
}

/* ---- Lacks ---- */

tandem_err td_lack_find(const td_chain *chain, uint64_t seq, const uint8_t *hash, td_lack *out)
{
    if (!chain->vector->gaps)
        return TANDEM_E_NOT_FOUND;
    return td_lack_get(chain->txn, chain->id, chain->origin, seq, hash, out);
}

struct end_search {
    const td_operation *job;
    size_t count;
    td_place *place;
};

/* Does the job bring this lack's last operation? Only that proves that it is of the same branch. */
static tandem_err brings_end(void *context, const uint8_t *origin, const td_lack *lack)
{
    struct end_search *search = context;
    const td_operation *first = &search->job[0], *last = &search->job[search->count - 1];

    (void)origin;
    if (lack->last > last->seq)
        return TANDEM_END;
    if (memcmp(search->job[lack->last - first->seq].hash, lack->hash, TANDEM_HASH_BYTES))
        return TANDEM_OK;
    search->place->is_inside = lack->followed && lack->last == last->seq;
    search->place->fills = true;
    search->place->filled = *lack;
    return TANDEM_END;
}

/* The head before a lack, through lacks that stand before it; -1 if something follows it already. */
static tandem_err head_before(const td_chain *chain, td_lack at, int *out)
{
    *out = -1;
    while (!at.followed) {
        tandem_err err;

        *out = td_head_find(chain->vector, at.first - 1, at.predecessor);
        if (*out >= 0)
            break;
        err = td_lack_find(chain, at.first - 1, at.predecessor, &at);
        if (err != TANDEM_OK)
            return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
    }
    return TANDEM_OK;
}

tandem_err td_chain_holds(const td_chain *chain, uint64_t seq, const uint8_t *hash)
{
    td_found found;

    return find(chain, seq, hash, &found);
}

tandem_err td_chain_reaches(const td_chain *chain, uint64_t seq, const uint8_t *hash,
                            tandem_slice collection)
{
    uint8_t root[TANDEM_HASH_BYTES];
    td_found found;
    td_lack lack;
    tandem_err err;

    if (seq == 0) {
        td_chain_root(collection, root);
        return memcmp(hash, root, sizeof(root)) ? TANDEM_E_PREDECESSOR : TANDEM_OK;
    }
    if (td_head_find(chain->vector, seq, hash) >= 0)
        return TANDEM_OK;
    err = find(chain, seq, hash, &found);
    if (err == TANDEM_OK && found.loose)
        return TANDEM_E_PREDECESSOR;
    if (err == TANDEM_E_NOT_FOUND)
        err = td_lack_find(chain, seq, hash, &lack);
    return err == TANDEM_E_NOT_FOUND ? TANDEM_E_PREDECESSOR : err;
}

/* ---- The place ---- */

/* What the job's first operation follows is no head. */
static tandem_err place_first(const td_chain *chain, const td_operation *first, td_place *out)
{
    td_found before;
    tandem_err err;

    if (first->seq == 1)
        return TANDEM_OK;
    err = find(chain, first->seq - 1, first->predecessor, &before);
    if (err == TANDEM_OK) {
        out->is_loose = before.loose;
        /* Whoever holds a fork inside a job has the rest of one branch apart, and can send no more
         * of it: with what is held here it is whole, if it is of the same document and branch. */
        return (before.flags & TD_FLAG_CONTINUES) && !is_of_place(first, before.place)
                   ? TANDEM_E_CHAIN
                   : TANDEM_OK;
    }
    if (err != TANDEM_E_NOT_FOUND)
        return err;
    err = td_lack_find(chain, first->seq - 1, first->predecessor, &out->before);
    if (err == TANDEM_OK) {
        out->follows = true;
        return TANDEM_OK;
    }
    if (err == TANDEM_E_NOT_FOUND && td_planted(TD_PLANTED_CHAIN_UNCHECKED))
        return TANDEM_OK;
    out->is_loose = err == TANDEM_E_NOT_FOUND && chain->part;
    return out->is_loose ? TANDEM_OK : err == TANDEM_E_NOT_FOUND ? TANDEM_E_PREDECESSOR : err;
}

static tandem_err place_with_gaps(const td_chain *chain, const td_operation *job, size_t count,
                                  td_place *out)
{
    struct end_search search = {job, count, out};
    tandem_err err = td_lacks_each(chain->txn, chain->id, chain->origin, job[0].seq, brings_end,
                                   &search);

    if (err != TANDEM_OK && err != TANDEM_END)
        return err;
    /* Behind a head something is held only if it is loose, or stands behind a lack. */
    if ((out->head < 0 || chain->vector->loose || (out->fills && !out->is_inside)) &&
        (err = held_with_gaps(chain, job, count, out)) != TANDEM_OK)
        return err;
    if (out->held == count)
        return TANDEM_OK;
    /* Where some are held, the rest is a fork inside the job: what it follows is among them. */
    if (out->head < 0 && out->held == 0 &&
        (err = place_first(chain, &job[0], out)) != TANDEM_OK)
        return err;
    /* With the lack would go what says that the rest of it is not held. */
    return out->is_loose && out->fills ? TANDEM_E_PREDECESSOR : TANDEM_OK;
}

tandem_err td_job_place(const td_chain *chain, const td_operation *job, size_t count,
                        td_place *out)
{
    const td_vector_record *vector = chain->vector;
    const td_operation *last = &job[count - 1];
    tandem_err err;

    *out = (td_place){.head = td_head_find(vector, job[0].seq - 1, job[0].predecessor)};
    if (vector->gaps)
        return place_with_gaps(chain, job, count, out);
    /* Nothing is held behind a head: no look-up needed. */
    if (out->head >= 0 || (job[0].seq == 1 && vector->count == 0))
        return TANDEM_OK;
    if (td_head_find(vector, last->seq, last->hash) >= 0) {
        out->held = count;
        return TANDEM_OK;
    }
    if ((err = held_prefix(chain, job, count, out)) != TANDEM_OK)
        return err;
    /* Where some are held, the rest is a fork inside the job: of its own place, and no head. */
    return out->held == 0 ? place_first(chain, &job[0], out) : TANDEM_OK;
}

tandem_err td_run_place(const td_chain *chain, const td_operation *first, td_place *out)
{
    tandem_err err;

    *out = (td_place){.head = td_head_find(chain->vector, first->seq - 1, first->predecessor)};
    if (out->head >= 0)
        return TANDEM_OK;
    err = place_first(chain, first, out);
    if (err == TANDEM_OK && !out->is_loose)
        err = td_place_head(chain, out);
    /* It can be behind no head: it is not whole with what it follows, or there are too many. */
    out->is_loose = out->is_loose || err == TANDEM_E_PREDECESSOR || err == TANDEM_E_CHAIN ||
                    err == TANDEM_E_QUARANTINED;
    return out->is_loose ? TANDEM_OK : err;
}

tandem_err td_place_head(const td_chain *chain, td_place *place)
{
    tandem_err err;

    if (place->follows && (err = head_before(chain, place->before, &place->head)) != TANDEM_OK)
        return err;
    if (place->head >= 0 || place->is_inside || place->is_loose)
        return TANDEM_OK;
    return chain->vector->count == TANDEM_HEADS_MAX ? TANDEM_E_QUARANTINED : TANDEM_OK;
}
