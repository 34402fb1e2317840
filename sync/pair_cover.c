#include "sync/pair_cover.h"

#include <stdlib.h>

#include <utlist.h>

#include "store/op_store.h"

enum { ORIGINS_MAX = 10000 };

struct pair_origin {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t seq;
    td_hash_entry hash_entry;
};

void td_pair_covers_free(td_pair_cover **list)
{
    td_pair_cover *pair, *next;

    LL_FOREACH_SAFE(*list, pair, next)
    {
        td_hash_table_clear(&pair->origins, free);
        td_filter_release(&pair->filter);
        free(pair);
    }
    *list = NULL;
}

tandem_err td_pair_cover_of(td_pair_cover **list, tandem_slice filter, td_pair_cover **out)
{
    unsigned count = 0;
    td_pair_cover *pair;
    tandem_err err;

    LL_FOREACH(*list, pair)
    {
        *out = pair;
        count++;
        if (tandem_slice_equal(td_filter_bytes(&pair->filter), filter))
            return TANDEM_OK;
    }
    if (count >= TD_PAIRS_MAX)
        return TANDEM_E_LIMIT;
    if (!(pair = calloc(1, sizeof(*pair))))
        return TANDEM_E_NOMEM;
    if ((err = td_filter_decode(filter, &pair->filter)) != TANDEM_OK) {
        free(pair);
        return err;
    }
    LL_PREPEND(*list, pair);
    *out = pair;
    return TANDEM_OK;
}

static struct pair_origin *find(const td_pair_cover *pair, const uint8_t *origin)
{
    return td_hash_table_find(&pair->origins, tandem_slice_of(origin, TANDEM_ORIGIN_BYTES));
}

tandem_err td_pair_cover_set(td_pair_cover *pair, const uint8_t *origin, uint64_t seq)
{
    struct pair_origin *entry = find(pair, origin);

    if (!entry) {
        if (td_hash_table_count(&pair->origins) >= ORIGINS_MAX)
            return TANDEM_E_LIMIT;
        if (!(entry = calloc(1, sizeof(*entry))))
            return TANDEM_E_NOMEM;
        memcpy(entry->origin, origin, TANDEM_ORIGIN_BYTES);
        if (td_hash_table_add(&pair->origins, &entry->hash_entry,
                              tandem_slice_of(entry->origin, TANDEM_ORIGIN_BYTES),
                              entry) != TANDEM_OK) {
            free(entry);
            return TANDEM_E_NOMEM;
        }
    }
    if (seq > entry->seq)
        entry->seq = seq;
    return TANDEM_OK;
}

uint64_t td_pair_cover_seq(const td_pair_cover *pair, const uint8_t *origin)
{
    const struct pair_origin *entry = find(pair, origin);

    return entry ? entry->seq : 0;
}
