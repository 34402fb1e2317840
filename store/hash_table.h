/*
 * Hash tables: what is found by its key, and met in the order in which it was added. uthash does the
 * work; hash_table.c alone expands its macros.
 *
 * Whoever is to be found embeds an entry and keeps the key; neither is copied:
 *
 *   struct origin {
 *       uint8_t id[TANDEM_ORIGIN_BYTES];
 *       td_hash_entry hash_entry;
 *   };
 *
 *   td_hash_table origins = {0};
 *   tandem_slice key = tandem_slice_of(origin->id, TANDEM_ORIGIN_BYTES);
 *
 *   err = td_hash_table_add(&origins, &origin->hash_entry, key, origin);
 *   origin = td_hash_table_find(&origins, key);
 *   for (o = td_hash_table_first(&origins); o; o = td_hash_table_next(&o->hash_entry))
 *       visit(o);
 *   td_hash_table_clear(&origins, free);
 *
 * A table of zeros is empty, and an empty one holds no memory: it needs neither opening nor closing.
 *
 * Ownership: the owner of an entry belongs to whoever added it; the table hands out what was added.
 *            So all of a table are of one type. Entry, owner and the key's bytes stay where they
 *            are, and the key as it is, until the entry is taken out. An entry is in one table at a
 *            time; what is to be in several has an entry for each.
 * Order:     of insertion, until it is sorted; what is added then comes behind all others. It does
 *            not depend on the hash.
 * Errors:    only adding can fail.
 * Threads:   one at a time for each table.
 *
 * The hash is keyed, since strangers choose the keys: knowing it they could choose them to collide.
 * The hash's key is one of the process and stays: tables would lose their entries with another.
 */
#ifndef TANDEM_STORE_HASH_TABLE_H
#define TANDEM_STORE_HASH_TABLE_H

#include <uthash.h>

#include "store/bytes.h"
#include "store/error.h"

typedef struct td_hash_entry {
    UT_hash_handle hh;
    void *owner;
} td_hash_entry;

typedef struct td_hash_table {
    td_hash_entry *first;
} td_hash_table;

/* None of an equal key may be in it. key may be empty. TANDEM_E_NOMEM: entry is not in it, and
 * nothing else has changed. */
tandem_err td_hash_table_add(td_hash_table *table, td_hash_entry *entry, tandem_slice key,
                             void *owner);
/* The owner of the entry that was added with an equal key; NULL if there is none. */
void *td_hash_table_find(const td_hash_table *table, tandem_slice key);
/* It must be in this table. */
void td_hash_table_remove(td_hash_table *table, td_hash_entry *entry);
uint32_t td_hash_table_count(const td_hash_table *table);

/* Owners in order; NULL: there is no other. Whoever takes an entry out on the way asks for the one
 * after it first. */
void *td_hash_table_first(const td_hash_table *table);
void *td_hash_table_next(const td_hash_entry *entry);
/* compare gets two owners and answers as for qsort(); those that are equal stay as they were. */
void td_hash_table_sort(td_hash_table *table, int (*compare)(const void *a, const void *b));
/* Take all out, in order. release gets each owner once its entry is out, and may free it; it leaves
 * the table alone. */
void td_hash_table_clear(td_hash_table *table, void (*release)(void *owner));

/* Propose a random key: the threads runtime does. Ignored once something was hashed, or a key was
 * proposed: a simulation alone in its process hashes with a fixed one. Any thread. */
void td_hash_propose_key(uint64_t key);

#endif
