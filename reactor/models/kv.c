/*
 * kv: a map of last-writer-wins entries.
 *
 * SET {key: value, …} sets its members, UNSET [key, …] removes. The total order of the stream
 * decides who was last, so an entry needs no timestamp of its own.
 *
 * The state is a hash table from key to the canonical bytes of the value. The order of a hash table
 * is nobody's business: what goes out is sorted by key, so that the bytes are the same everywhere.
 */
#include "reactor/model.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/hash_table.h"

struct kv_entry {
    td_hash_entry hash_entry;
    uint8_t *value;  /* canonical bytes; NULL only while a SET that brings the key is staged */
    uint8_t *staged; /* what value becomes when the SET is committed */
    size_t value_size;
    size_t staged_size;
    size_t key_size;
    uint8_t key[];
};

struct kv_state {
    td_hash_table entries;
};

static tandem_err kv_open(void **state_out)
{
    struct kv_state *kv = calloc(1, sizeof(*kv));

    if (!kv)
        return TANDEM_E_NOMEM;
    *state_out = kv;
    return TANDEM_OK;
}

static void entry_free(void *owner)
{
    struct kv_entry *entry = owner;

    free(entry->value);
    free(entry->staged);
    free(entry);
}

static void kv_free(void *state)
{
    struct kv_state *kv = state;

    if (!kv)
        return;
    td_hash_table_clear(&kv->entries, entry_free);
    free(kv);
}

/* Stands in the table, without a value. NULL if memory ran out. */
static struct kv_entry *entry_add(struct kv_state *kv, tandem_slice key)
{
    struct kv_entry *entry = calloc(1, sizeof(*entry) + key.size);

    if (!entry)
        return NULL;
    entry->key_size = key.size;
    memcpy(entry->key, key.bytes, key.size);
    if (td_hash_table_add(&kv->entries, &entry->hash_entry, tandem_slice_of(entry->key, key.size),
                          entry) == TANDEM_OK)
        return entry;
    free(entry);
    return NULL;
}

static void entry_remove(struct kv_state *kv, struct kv_entry *entry)
{
    td_hash_table_remove(&kv->entries, &entry->hash_entry);
    entry_free(entry);
}

/* ---- Checking ---- */

static bool verb_is(tandem_slice verb, const char *text)
{
    return tandem_slice_equal(verb, tandem_slice_text(text));
}

static tandem_err refuse(char *why, const char *sentence, const char *kind)
{
    if (why)
        snprintf(why, 128, "%s, not %s", sentence, kind);
    return TANDEM_E_INPUT;
}

/* Is input a map with string keys, and nothing else? why may be NULL. */
static tandem_err check_set(tandem_slice input, char *why)
{
    tandem_reader reader = tandem_reader_of(input);
    tandem_item item, key;

    if (tandem_read(&reader, &item) != TANDEM_OK)
        return refuse(why, "kv.SET takes an object", "damaged bytes");
    if (item.kind != TANDEM_MAP)
        return refuse(why, "kv.SET takes an object", tandem_kind_text(item.kind));
    for (uint32_t i = 0; i < item.count; i++) {
        if (tandem_read(&reader, &key) != TANDEM_OK)
            return refuse(why, "kv.SET takes an object", "damaged bytes");
        if (key.kind != TANDEM_STRING)
            return refuse(why, "kv.SET takes strings as keys", tandem_kind_text(key.kind));
        if (tandem_read_skip(&reader, NULL) != TANDEM_OK)
            return refuse(why, "kv.SET takes an object", "damaged bytes");
    }
    if (tandem_reader_left(&reader))
        return refuse(why, "kv.SET takes one object", "more");
    return TANDEM_OK;
}

/* Is input an array of strings, and nothing else? why may be NULL. */
static tandem_err check_unset(tandem_slice input, char *why)
{
    tandem_reader reader = tandem_reader_of(input);
    tandem_item item, key;

    if (tandem_read(&reader, &item) != TANDEM_OK)
        return refuse(why, "kv.UNSET takes an array of keys", "damaged bytes");
    if (item.kind != TANDEM_ARRAY)
        return refuse(why, "kv.UNSET takes an array of keys", tandem_kind_text(item.kind));
    for (uint32_t i = 0; i < item.count; i++) {
        if (tandem_read(&reader, &key) != TANDEM_OK)
            return refuse(why, "kv.UNSET takes an array of keys", "damaged bytes");
        if (key.kind != TANDEM_STRING)
            return refuse(why, "kv.UNSET takes strings as keys", tandem_kind_text(key.kind));
    }
    if (tandem_reader_left(&reader))
        return refuse(why, "kv.UNSET takes one array", "more");
    return TANDEM_OK;
}

static tandem_err kv_prepare(const void *state, const tandem_intent *intent,
                             tandem_writer *payload, char why[128])
{
    tandem_slice verb = intent->verb, input = intent->input;
    tandem_err err;

    if (verb_is(verb, "SET")) {
        err = check_set(input, why);
    } else if (verb_is(verb, "UNSET")) {
        err = check_unset(input, why);
    } else {
        snprintf(why, 128, "kv has no such operation; it takes SET and UNSET");
        err = TANDEM_E_INPUT;
    }
    if (err != TANDEM_OK)
        return err;
    err = tandem_write_canonical(payload, input);
    if (err == TANDEM_E_PAYLOAD) {
        snprintf(why, 128, "the input is damaged or nested too deep");
        return TANDEM_E_INPUT;
    }
    return err;
}

/* ---- Folding ---- */

/* Take back what stage() did to count entries. */
static void unstage(struct kv_state *kv, struct kv_entry **touched, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct kv_entry *entry = touched[i];

        free(entry->staged);
        entry->staged = NULL;
        if (!entry->value)
            entry_remove(kv, entry);
    }
}

/* Stage value at key; what can fail for want of memory fails here, before the first change. */
static struct kv_entry *stage(struct kv_state *kv, tandem_slice key, tandem_slice value)
{
    struct kv_entry *entry = td_hash_table_find(&kv->entries, key);
    uint8_t *staged = malloc(value.size);

    if (!staged)
        return NULL;
    if (!entry)
        entry = entry_add(kv, key);
    if (!entry) {
        free(staged);
        return NULL;
    }
    assert(!entry->staged); /* canonical maps hold no key twice */
    memcpy(staged, value.bytes, value.size);
    entry->staged = staged;
    entry->staged_size = value.size;
    return entry;
}

/* map is canonical and has string keys. All members are set or, on TANDEM_E_NOMEM, none. */
static tandem_err set_members(struct kv_state *kv, tandem_slice map)
{
    tandem_reader reader = tandem_reader_of(map);
    struct kv_entry **touched;
    uint32_t count = 0;
    tandem_err err = tandem_read_map(&reader, &count);

    assert(err == TANDEM_OK);
    if (count == 0)
        return TANDEM_OK;
    touched = calloc(count, sizeof(struct kv_entry *));
    if (!touched)
        return TANDEM_E_NOMEM;
    for (uint32_t i = 0; i < count; i++) {
        tandem_slice key = {0}, value = {0};

        err = tandem_read_string(&reader, &key);
        assert(err == TANDEM_OK);
        err = tandem_read_skip(&reader, &value);
        assert(err == TANDEM_OK);
        touched[i] = stage(kv, key, value);
        if (!touched[i]) {
            unstage(kv, touched, i);
            err = TANDEM_E_NOMEM;
            goto out;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        struct kv_entry *entry = touched[i];

        free(entry->value);
        entry->value = entry->staged;
        entry->value_size = entry->staged_size;
        entry->staged = NULL;
    }

out:
    free(touched);
    return err;
}

static tandem_err apply_set(struct kv_state *kv, tandem_slice payload)
{
    tandem_writer canonical;
    tandem_err err = check_set(payload, NULL);

    if (err != TANDEM_OK)
        return err;
    /* In canonical form the last of equal keys has won already. */
    tandem_writer_init(&canonical);
    err = tandem_write_canonical(&canonical, payload);
    if (err == TANDEM_OK)
        err = set_members(kv, tandem_writer_slice(&canonical));
    else if (err != TANDEM_E_NOMEM)
        err = TANDEM_E_INPUT;
    tandem_writer_release(&canonical);
    return err;
}

static tandem_err apply_unset(struct kv_state *kv, tandem_slice payload)
{
    tandem_reader reader = tandem_reader_of(payload);
    uint32_t count = 0;
    tandem_err err = check_unset(payload, NULL);

    if (err != TANDEM_OK)
        return err;
    err = tandem_read_array(&reader, &count);
    assert(err == TANDEM_OK);
    for (uint32_t i = 0; i < count; i++) {
        tandem_slice key = {0};
        struct kv_entry *entry;

        err = tandem_read_string(&reader, &key);
        assert(err == TANDEM_OK);
        entry = td_hash_table_find(&kv->entries, key);
        if (entry)
            entry_remove(kv, entry);
    }
    return TANDEM_OK;
}

static tandem_err kv_apply(void *state, const tandem_change *change)
{
    if (verb_is(change->verb, "SET"))
        return apply_set(state, change->payload);
    if (verb_is(change->verb, "UNSET"))
        return apply_unset(state, change->payload);
    return TANDEM_E_INPUT;
}

/* ---- Out and back in ---- */

static int entry_compare(const void *a, const void *b)
{
    const struct kv_entry *x = *(struct kv_entry *const *)a;
    const struct kv_entry *y = *(struct kv_entry *const *)b;

    return tandem_slice_compare(tandem_slice_of(x->key, x->key_size),
                                tandem_slice_of(y->key, y->key_size));
}

static tandem_err kv_show(const void *state, tandem_writer *out)
{
    const struct kv_state *kv = state;
    uint32_t count = td_hash_table_count(&kv->entries);
    const struct kv_entry *entry;
    const struct kv_entry **sorted;
    uint32_t at = 0;

    if (count == 0) {
        tandem_write_map(out, 0);
        return tandem_writer_err(out);
    }
    sorted = calloc(count, sizeof(const struct kv_entry *));
    if (!sorted)
        return TANDEM_E_NOMEM;
    for (entry = td_hash_table_first(&kv->entries); entry;
         entry = td_hash_table_next(&entry->hash_entry))
        sorted[at++] = entry;
    qsort(sorted, count, sizeof(const struct kv_entry *), entry_compare);
    tandem_write_map(out, count);
    for (uint32_t i = 0; i < count; i++) {
        tandem_write_string(out, tandem_slice_of(sorted[i]->key, sorted[i]->key_size));
        tandem_write_raw(out, tandem_slice_of(sorted[i]->value, sorted[i]->value_size));
    }
    free(sorted);
    return tandem_writer_err(out);
}

static tandem_err kv_restore(tandem_slice snapshot, void **state_out)
{
    tandem_writer canonical;
    void *state = NULL;
    tandem_err err;

    /* What save did not write byte for byte was damaged: no guessing. */
    tandem_writer_init(&canonical);
    err = tandem_write_canonical(&canonical, snapshot);
    if (err == TANDEM_E_NOMEM)
        goto out;
    if (err != TANDEM_OK || !tandem_slice_equal(tandem_writer_slice(&canonical), snapshot) ||
        check_set(snapshot, NULL) != TANDEM_OK) {
        err = TANDEM_E_CORRUPT;
        goto out;
    }
    if ((err = kv_open(&state)) != TANDEM_OK)
        goto out;
    if ((err = set_members(state, snapshot)) != TANDEM_OK)
        goto out;
    *state_out = state;
    state = NULL;

out:
    kv_free(state);
    tandem_writer_release(&canonical);
    return err;
}

const tandem_model tandem_model_kv = {
    .size = sizeof(tandem_model),
    .name = "kv",
    .version = 1,
    .prepare_reads_state = false,
    .state_open = kv_open,
    .state_free = kv_free,
    .prepare = kv_prepare,
    .apply = kv_apply,
    .show = kv_show,
    .save = kv_show,
    .restore = kv_restore,
};
