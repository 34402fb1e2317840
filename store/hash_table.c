#include "store/hash_table.h"

_Atomic uint64_t td_hash_seed;
