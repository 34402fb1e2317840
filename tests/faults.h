/*
 * Failures on request: the nth allocation, the nth call of a store's contract, or the nth call that
 * writes to the disk fails, once or with all that follow.
 *
 * Allocations. The test program takes the place of the C library's allocator and counts what our
 * code and LMDB ask for; what others ask for (the C library itself, libuv, libsodium …) never
 * fails, but all that is not given back is counted.
 *
 * Stores. The test program is linked with --wrap, so whoever opens a store gets one whose calls
 * fail as the contract (store/store.h) lets them: a failed put breaks its transaction, and
 * recover() is due. A commit fails either without effect or after it has happened: its outcome is
 * unknown.
 *
 * Disks. The test program takes the place of the calls by which we and LMDB write, flush and size
 * files. They fail with EIO, or ENOSPC where err is TANDEM_E_STORE_FULL, and have happened or not:
 * a write that cannot be flushed fails and still shows.
 *
 * Threads: one while armed.
 */
#ifndef TANDEM_TESTS_FAULTS_H
#define TANDEM_TESTS_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "store/error.h"

typedef enum fault_kind { FAULT_ALLOCATION, FAULT_STORE, FAULT_DISK } fault_kind;

struct fault {
    fault_kind kind;
    uint64_t at;    /* the nth fails, from 1; 0: none, they are only counted */
    bool for_ever;  /* and all after it */
    bool happened;  /* a commit, or a call to the disk, that fails has happened */
    tandem_err err; /* what a store's call fails with, if the call may; else TANDEM_E_IO */
};

/* Begin to count, and to fail. */
void fault_arm(const struct fault *fault);
/* Pause: nothing is counted and nothing fails. */
void fault_disarm(void);
/* How many were counted since it was armed. */
uint64_t fault_count(void);
/* Was one of them made to fail, and one that may have happened? */
bool fault_hit(void);
bool fault_may_have_happened(void);

/* Allocations that were not given back yet, of the whole process. */
int64_t fault_allocations(void);

#endif
