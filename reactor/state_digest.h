/*
 * The digest over the states of a collection: equal where all documents show the same. It is made
 * slice by slice, so that whoever makes it can do something else in between.
 *
 * It is BLAKE2b-256 over [document, branch, scope, model, state] as msgpack, for each stream of each
 * live document, in the order of their names; the state is what the model shows, nil where the model
 * is unknown here.
 *
 * Threads: the document view's.
 */
#ifndef TANDEM_REACTOR_STATE_DIGEST_H
#define TANDEM_REACTOR_STATE_DIGEST_H

#include "reactor/fold.h"

typedef struct td_state_digest td_state_digest;

/* TANDEM_E_NOMEM. */
tandem_err td_state_digest_open(td_state_digest **out);
void td_state_digest_free(td_state_digest *digest); /* NULL is fine */

/*
 * Begin with a collection, or once more on another index. collection outlives the digest.
 * TANDEM_E_CORRUPT: records are missing of what is to be folded, so there is no digest; why tells the
 * first. Or what the index says.
 */
tandem_err td_state_digest_start(td_state_digest *digest, td_stream_index *index,
                                 tandem_slice collection, char why[TD_WHY_BYTES]);
/* Hash some documents. TANDEM_OK: there are more; TANDEM_END: that was all; or what failed. */
tandem_err td_state_digest_step(td_state_digest *digest, td_stream_index *index, td_folder *folder,
                                char why[TD_WHY_BYTES]);
/* The digest, and how many live documents there are. After TANDEM_END. */
void td_state_digest_end(td_state_digest *digest, uint8_t out[TANDEM_HASH_BYTES],
                         uint64_t *documents_out);

#endif
