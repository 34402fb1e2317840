#include "store/heads.h"

#include <sodium.h>
#include <stdlib.h>

#include "store/hash_table.h"
#include "store/op_store.h"

struct origin {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    unsigned count;
    td_head *heads; /* one, but where the origin is forked; in (seq, hash) order */
    td_hash_entry hash_entry;
};

struct td_heads {
    td_hash_table origins;
};

tandem_err td_heads_open(td_heads **out)
{
    return (*out = calloc(1, sizeof(**out))) ? TANDEM_OK : TANDEM_E_NOMEM;
}

static void origin_free(void *owner)
{
    struct origin *origin = owner;

    free(origin->heads);
    free(origin);
}

void td_heads_clear(td_heads *heads)
{
    td_hash_table_clear(&heads->origins, origin_free);
}

void td_heads_free(td_heads *heads)
{
    if (!heads)
        return;
    td_heads_clear(heads);
    free(heads);
}

static struct origin *find(const td_heads *heads, const uint8_t *origin)
{
    return td_hash_table_find(&heads->origins, tandem_slice_of(origin, TANDEM_ORIGIN_BYTES));
}

void td_link_begin(td_link *link, const td_operation *first)
{
    memcpy(link->origin, first->origin, sizeof(link->origin));
    memcpy(link->predecessor, first->predecessor, sizeof(link->predecessor));
    link->first_seq = first->seq;
    td_link_extend(link, first);
}

void td_link_extend(td_link *link, const td_operation *next)
{
    link->last_seq = next->seq;
    memcpy(link->last_hash, next->hash, sizeof(link->last_hash));
}

bool td_link_continues(const td_link *link, const td_operation *next)
{
    return next->seq == link->last_seq + 1 &&
           !memcmp(next->origin, link->origin, sizeof(link->origin)) &&
           !memcmp(next->predecessor, link->last_hash, sizeof(link->last_hash));
}

/* The head that a job follows; NULL if it follows none. */
static td_head *head_before(const struct origin *origin, const td_link *job)
{
    for (unsigned i = 0; origin && i < origin->count; i++)
        if (origin->heads[i].seq == job->first_seq - 1 &&
            !memcmp(origin->heads[i].hash, job->predecessor, TANDEM_HASH_BYTES))
            return &origin->heads[i];
    return NULL;
}

bool td_heads_follows(const td_heads *heads, const td_link *job)
{
    const struct origin *origin = find(heads, job->origin);

    return head_before(origin, job) || (!origin && job->first_seq == 1);
}

static tandem_err origin_add(td_heads *heads, const uint8_t *name, struct origin **out)
{
    struct origin *origin = calloc(1, sizeof(*origin));
    tandem_err err;

    if (!origin)
        return TANDEM_E_NOMEM;
    memcpy(origin->origin, name, sizeof(origin->origin));
    err = td_hash_table_add(&heads->origins, &origin->hash_entry,
                            tandem_slice_of(origin->origin, sizeof(origin->origin)), origin);
    if (err != TANDEM_OK) {
        free(origin);
        return err;
    }
    *out = origin;
    return TANDEM_OK;
}

static int head_compare(const void *a, const void *b)
{
    const td_head *x = a, *y = b;

    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return memcmp(x->hash, y->hash, TANDEM_HASH_BYTES);
}

tandem_err td_heads_add(td_heads *heads, const td_link *job)
{
    struct origin *origin = find(heads, job->origin);
    td_head *head = head_before(origin, job), *grown;
    tandem_err err;

    if (!origin && (err = origin_add(heads, job->origin, &origin)) != TANDEM_OK)
        return err;
    if (!head) {
        if (origin->count == TANDEM_HEADS_MAX)
            return TANDEM_E_QUARANTINED;
        if (!(grown = realloc(origin->heads, (origin->count + 1) * sizeof(*grown))))
            return TANDEM_E_NOMEM;
        origin->heads = grown;
        head = &grown[origin->count++];
    }
    head->seq = job->last_seq;
    memcpy(head->hash, job->last_hash, sizeof(head->hash));
    if (origin->count > 1)
        qsort(origin->heads, origin->count, sizeof(*origin->heads), head_compare);
    return TANDEM_OK;
}

static int origin_compare(const void *a, const void *b)
{
    const struct origin *x = a, *y = b;

    return memcmp(x->origin, y->origin, sizeof(x->origin));
}

void td_heads_digest(td_heads *heads, uint8_t out[TANDEM_HASH_BYTES])
{
    crypto_generichash_state state;

    td_hash_table_sort(&heads->origins, origin_compare);
    crypto_generichash_init(&state, NULL, 0, TANDEM_HASH_BYTES);
    for (const struct origin *o = td_hash_table_first(&heads->origins); o;
         o = td_hash_table_next(&o->hash_entry))
        for (unsigned i = 0; i < o->count; i++) {
            uint8_t seq[8];

            td_put_u64(seq, o->heads[i].seq);
            crypto_generichash_update(&state, o->origin, sizeof(o->origin));
            crypto_generichash_update(&state, seq, sizeof(seq));
            crypto_generichash_update(&state, o->heads[i].hash, TANDEM_HASH_BYTES);
        }
    crypto_generichash_final(&state, out, TANDEM_HASH_BYTES);
}
