/* Before uthash: memory that runs out is reported, not fatal; an empty slice may have no bytes. */
#define HASH_NONFATAL_OOM 1
#define HASH_FUNCTION(key, size, hash)                                                             \
    ((hash) = (unsigned)XXH3_64bits_withSeed(key, size, hash_key()))
#define HASH_KEYCMP(a, b, size) ((size) ? memcmp(a, b, size) : 0)

#include "store/hash_table.h"

#include <assert.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <xxhash.h>

enum { FIXED_KEY = 1 };

static _Atomic uint64_t settled_key; /* 0: not yet */

void td_hash_propose_key(uint64_t key)
{
    uint64_t unsettled = 0;

    atomic_compare_exchange_strong(&settled_key, &unsettled, key ? key : FIXED_KEY);
}

static uint64_t hash_key(void)
{
    uint64_t key = atomic_load_explicit(&settled_key, memory_order_relaxed);

    if (key)
        return key;
    td_hash_propose_key(FIXED_KEY);
    return atomic_load_explicit(&settled_key, memory_order_relaxed);
}

static void *owner_of(const td_hash_entry *entry)
{
    return entry ? entry->owner : NULL;
}

tandem_err td_hash_table_add(td_hash_table *table, td_hash_entry *entry, tandem_slice key,
                             void *owner)
{
    assert(owner && key.size <= UINT_MAX);
    entry->owner = owner;
    HASH_ADD_KEYPTR(hh, table->first, key.bytes, key.size, entry);
    return entry->hh.tbl ? TANDEM_OK : TANDEM_E_NOMEM;
}

void *td_hash_table_find(const td_hash_table *table, tandem_slice key)
{
    td_hash_entry *entry = table->first;

    /* Of many tables the only one is asked for again and again: it is found without a hash. */
    if (entry && !entry->hh.next)
        return entry->hh.keylen == key.size && !HASH_KEYCMP(entry->hh.key, key.bytes, key.size)
                   ? entry->owner
                   : NULL;
    HASH_FIND(hh, table->first, key.bytes, key.size, entry);
    return owner_of(entry);
}

void td_hash_table_remove(td_hash_table *table, td_hash_entry *entry)
{
    assert(table->first && entry->hh.tbl == table->first->hh.tbl);
    HASH_DEL(table->first, entry);
    entry->hh.tbl = NULL;
}

uint32_t td_hash_table_count(const td_hash_table *table)
{
    return HASH_COUNT(table->first);
}

void *td_hash_table_first(const td_hash_table *table)
{
    return owner_of(table->first);
}

void *td_hash_table_next(const td_hash_entry *entry)
{
    return owner_of(entry->hh.next);
}

void td_hash_table_sort(td_hash_table *table, int (*compare)(const void *a, const void *b))
{
#define COMPARE_OWNERS(a, b) compare((a)->owner, (b)->owner)
    HASH_SORT(table->first, COMPARE_OWNERS);
#undef COMPARE_OWNERS
}

void td_hash_table_clear(td_hash_table *table, void (*release)(void *owner))
{
    while (table->first) {
        td_hash_entry *entry = table->first;

        td_hash_table_remove(table, entry);
        release(entry->owner);
    }
}
