#include "reactor/known.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES_MAX = 2 * TANDEM_NAME_BYTES_MAX + 1 };

struct entry {
    td_hash_entry hash_entry;
    uint32_t asked; /* jobs that are with the view */
    const tandem_model *model;
    uint64_t created_hlc;
    size_t size;
    uint8_t key[];
};

/* Its two names; an empty slice if they are none, which is found out elsewhere. */
static tandem_slice key_of(tandem_slice collection, tandem_slice document,
                           uint8_t out[KEY_BYTES_MAX])
{
    if (!collection.size || collection.size > TANDEM_NAME_BYTES_MAX || !document.size ||
        document.size > TANDEM_NAME_BYTES_MAX)
        return tandem_slice_of(NULL, 0);
    memcpy(out, collection.bytes, collection.size);
    out[collection.size] = '\0';
    memcpy(out + collection.size + 1, document.bytes, document.size);
    return tandem_slice_of(out, collection.size + 1 + document.size);
}

static void drop(td_hash_table *table, struct entry *entry)
{
    td_hash_table_remove(table, &entry->hash_entry);
    free(entry);
}

static tandem_err add(td_hash_table *table, struct entry *entry)
{
    return td_hash_table_add(table, &entry->hash_entry, tandem_slice_of(entry->key, entry->size),
                             entry);
}

const tandem_model *td_known_find(const td_known *known, tandem_slice collection,
                                  tandem_slice document, uint64_t *created_hlc_out)
{
    uint8_t key[KEY_BYTES_MAX];
    const struct entry *entry =
        td_hash_table_find(&known->documents, key_of(collection, document, key));

    if (!entry)
        return NULL;
    *created_hlc_out = entry->created_hlc;
    return entry->model;
}

tandem_err td_known_ask(td_known *known, tandem_slice collection, tandem_slice document)
{
    uint8_t bytes[KEY_BYTES_MAX];
    tandem_slice key = key_of(collection, document, bytes);
    struct entry *entry = td_hash_table_find(&known->asked, key);

    td_known_forget(known, collection, document);
    if (!entry) {
        if (!(entry = calloc(1, sizeof(*entry) + key.size)))
            return TANDEM_E_NOMEM;
        entry->size = key.size;
        if (key.size)
            memcpy(entry->key, key.bytes, key.size);
        if (add(&known->asked, entry) != TANDEM_OK) {
            free(entry);
            return TANDEM_E_NOMEM;
        }
    }
    entry->asked++;
    return TANDEM_OK;
}

void td_known_answer(td_known *known, tandem_slice collection, tandem_slice document,
                     const tandem_model *model, uint64_t created_hlc)
{
    uint8_t key[KEY_BYTES_MAX];
    struct entry *entry = td_hash_table_find(&known->asked, key_of(collection, document, key));

    assert(entry && entry->asked);
    if (--entry->asked)
        return;
    td_hash_table_remove(&known->asked, &entry->hash_entry);
    entry->model = model;
    entry->created_hlc = created_hlc;
    if (!model || add(&known->documents, entry) != TANDEM_OK) {
        free(entry);
        return;
    }
    if (td_hash_table_count(&known->documents) > TD_KNOWN_MAX)
        drop(&known->documents, td_hash_table_first(&known->documents));
}

void td_known_forget(td_known *known, tandem_slice collection, tandem_slice document)
{
    uint8_t key[KEY_BYTES_MAX];
    struct entry *entry = td_hash_table_find(&known->documents, key_of(collection, document, key));

    if (entry)
        drop(&known->documents, entry);
}

void td_known_forget_all(td_known *known)
{
    td_hash_table_clear(&known->documents, free);
}

void td_known_release(td_known *known)
{
    td_hash_table_clear(&known->documents, free);
    td_hash_table_clear(&known->asked, free);
}
