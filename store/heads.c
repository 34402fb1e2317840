#include "store/heads.h"

#include <sodium.h>
#include <stdlib.h>

#include "store/hash_table.h"

struct origin {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    unsigned count;
    td_head *heads; /* one, but where the origin is forked; in (seq, hash) order */
    td_hash_entry hash_entry;
};

struct lacking {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    td_lack lack;
};

struct td_heads {
    td_hash_table origins;
    struct lacking *lacking; /* few */
    size_t lacking_count, lacking_capacity;
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
    heads->lacking_count = 0;
}

void td_heads_free(td_heads *heads)
{
    if (!heads)
        return;
    td_heads_clear(heads);
    free(heads->lacking);
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

static td_head *head_at(const struct origin *origin, uint64_t seq, const uint8_t *hash)
{
    for (unsigned i = 0; origin && i < origin->count; i++)
        if (origin->heads[i].seq == seq &&
            !memcmp(origin->heads[i].hash, hash, TANDEM_HASH_BYTES))
            return &origin->heads[i];
    return NULL;
}

/* The lack that ends with (seq, hash). */
static td_lack *lack_at(const td_heads *heads, const uint8_t *origin, uint64_t seq,
                        const uint8_t *hash)
{
    for (size_t i = 0; i < heads->lacking_count; i++) {
        struct lacking *lacking = &heads->lacking[i];

        if (lacking->lack.last == seq && !memcmp(lacking->lack.hash, hash, TANDEM_HASH_BYTES) &&
            !memcmp(lacking->origin, origin, TANDEM_ORIGIN_BYTES))
            return &lacking->lack;
    }
    return NULL;
}

bool td_heads_follows(const td_heads *heads, const td_link *job)
{
    const struct origin *origin = find(heads, job->origin);

    return head_at(origin, job->first_seq - 1, job->predecessor) ||
           lack_at(heads, job->origin, job->first_seq - 1, job->predecessor) ||
           (!origin && job->first_seq == 1);
}

/* The head before a lack that is followed from now on, through lacks that stand before it; NULL if
 * something followed it already. */
static td_head *follow(td_heads *heads, const struct origin *origin, td_lack *lack,
                       const uint8_t *name)
{
    td_head *head = NULL;

    while (lack && !lack->followed && !head) {
        head = head_at(origin, lack->first - 1, lack->predecessor);
        lack->followed = true;
        lack = lack_at(heads, name, lack->first - 1, lack->predecessor);
    }
    return head;
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

tandem_err td_heads_add(td_heads *heads, const td_link *job)
{
    struct origin *origin = find(heads, job->origin);
    td_head *head = head_at(origin, job->first_seq - 1, job->predecessor), *grown;
    tandem_err err;

    if (lack_at(heads, job->origin, job->last_seq, job->last_hash))
        return TANDEM_E_INVALID;
    if (!head)
        head = follow(heads, origin,
                      lack_at(heads, job->origin, job->first_seq - 1, job->predecessor),
                      job->origin);
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
        qsort(origin->heads, origin->count, sizeof(*origin->heads), td_head_compare);
    return TANDEM_OK;
}

tandem_err td_heads_add_lack(td_heads *heads, const uint8_t *origin, const td_lack *lack)
{
    struct lacking *lacking = heads->lacking;
    size_t capacity = heads->lacking_capacity ? 2 * heads->lacking_capacity : 16;

    if (lack->first < 1 || lack->last < lack->first ||
        lack_at(heads, origin, lack->last, lack->hash) ||
        head_at(find(heads, origin), lack->last, lack->hash))
        return TANDEM_E_INVALID;
    if (heads->lacking_count == TD_LACKS_MAX)
        return TANDEM_E_LIMIT;
    if (heads->lacking_count == heads->lacking_capacity) {
        if (!(lacking = realloc(lacking, capacity * sizeof(*lacking))))
            return TANDEM_E_NOMEM;
        heads->lacking = lacking;
        heads->lacking_capacity = capacity;
    }
    lacking = &heads->lacking[heads->lacking_count++];
    memcpy(lacking->origin, origin, TANDEM_ORIGIN_BYTES);
    lacking->lack = *lack;
    lacking->lack.followed = false;
    return TANDEM_OK;
}

/* In the order of (origin, last, hash). */
static int lacking_compare(const void *a, const void *b)
{
    const struct lacking *x = a, *y = b;
    int order = memcmp(x->origin, y->origin, sizeof(x->origin));

    if (order)
        return order;
    if (x->lack.last != y->lack.last)
        return x->lack.last < y->lack.last ? -1 : 1;
    return memcmp(x->lack.hash, y->lack.hash, TANDEM_HASH_BYTES);
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
    if (heads->lacking_count)
        qsort(heads->lacking, heads->lacking_count, sizeof(heads->lacking[0]), lacking_compare);
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
    for (size_t i = 0; i < heads->lacking_count; i++) {
        const struct lacking *lacking = &heads->lacking[i];
        uint8_t range[16];

        td_put_u64(range, lacking->lack.first);
        td_put_u64(range + 8, lacking->lack.last);
        crypto_generichash_update(&state, lacking->origin, sizeof(lacking->origin));
        crypto_generichash_update(&state, range, sizeof(range));
        crypto_generichash_update(&state, lacking->lack.hash, TANDEM_HASH_BYTES);
    }
    crypto_generichash_final(&state, out, TANDEM_HASH_BYTES);
}
