/*
 * A folder of a bench, in $TMPDIR or /tmp: it is gone when the bench is.
 *
 * Threads: one at a time.
 */
#ifndef TANDEM_TOOLS_BENCH_SCRATCH_H
#define TANDEM_TOOLS_BENCH_SCRATCH_H

#include <stdint.h>

#include "store/error.h"

enum { BENCH_PATH_BYTES = 300 };

typedef struct bench_scratch {
    char path[BENCH_PATH_BYTES]; /* "": none */
} bench_scratch;

/* Make one, empty. An error has been reported. */
tandem_err bench_scratch_open(bench_scratch *scratch);
/* Remove it with all that is in it. One that has not been made is fine. */
void bench_scratch_release(bench_scratch *scratch);

/* Bytes of the files that a data folder keeps operations in, what is behind them included. */
uint64_t bench_data_folder_bytes(const char *folder);

#endif
