/*
 * Admission: the embedder's rule by which jobs of peers are refused for good (tandem_options.admit).
 *
 * Threads: the executor's.
 */
#ifndef TANDEM_REACTOR_ADMISSION_H
#define TANDEM_REACTOR_ADMISSION_H

#include "reactor/reactor.h"
#include "store/operation.h"

/* All zero: everything is admitted. */
typedef struct td_admission {
    tandem_admit_fn admit;
    void *context;
} td_admission;

/* Is every operation of this job to be taken? */
bool td_admission_takes(const td_admission *admission, const td_operation *job, size_t count);

#endif
