/*
 * uthash as we use it: an allocation that fails is reported, not fatal (define
 * uthash_nonfatal_oom(element) before including this to learn of it), and the hash is keyed, since
 * strangers choose the keys. uthash iterates in order of insertion, so the key never shows.
 */
#ifndef TANDEM_STORE_HASH_TABLE_H
#define TANDEM_STORE_HASH_TABLE_H

#include <stdatomic.h>
#include <stdint.h>

#include <xxhash.h>

/* Random, set once by the threads runtime before anything is hashed; 0 in a simulation. */
extern _Atomic uint64_t td_hash_seed;

#define HASH_NONFATAL_OOM 1
#define HASH_FUNCTION(key, size, hash)                                                             \
    ((hash) = (unsigned)XXH3_64bits_withSeed(                                                      \
         key, size, atomic_load_explicit(&td_hash_seed, memory_order_relaxed)))

#include <uthash.h>

#endif
