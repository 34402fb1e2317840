/*
 * uthash as we use it: an allocation that fails is reported, not fatal (define
 * uthash_nonfatal_oom(element) before including this to learn of it), and the hash is keyed, since
 * strangers choose the keys. uthash iterates in order of insertion, so the key never shows.
 *
 * The key is one of the process and stays: tables would lose their entries with another.
 */
#ifndef TANDEM_STORE_HASH_TABLE_H
#define TANDEM_STORE_HASH_TABLE_H

#include <stdint.h>

#include <xxhash.h>

/* Propose a random key: the threads runtime does. Ignored once something was hashed, or a key was
 * proposed: a simulation alone in its process hashes with a fixed one. Any thread. */
void td_hash_propose_key(uint64_t key);
uint64_t td_hash_key(void);

#define HASH_NONFATAL_OOM 1
#define HASH_FUNCTION(key, size, hash)                                                             \
    ((hash) = (unsigned)XXH3_64bits_withSeed(key, size, td_hash_key()))

#include <uthash.h>

#endif
