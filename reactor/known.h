/*
 * What the executor knows of documents by itself: that one lives, its model, and since when, so that a
 * job on it can be prepared without the document view. It is learnt from what the view finds out, and
 * forgotten when an operation creates or deletes the document. A document of which a request is with
 * the view is not known: a later request must not overtake it.
 *
 * Only documents of models that do not look at the state are worth knowing.
 *
 * Threads: the executor's.
 */
#ifndef TANDEM_REACTOR_KNOWN_H
#define TANDEM_REACTOR_KNOWN_H

#include "reactor/model.h"
#include "store/hash_table.h"

enum { TD_KNOWN_MAX = 8192 }; /* documents; of more the oldest are forgotten */

/* Zeros: nothing is known. */
typedef struct td_known {
    td_hash_table documents; /* that are known */
    td_hash_table asked;     /* of which a request is with the view: never in both */
} td_known;

/* The model of a document that lives; *created_hlc_out is its CREATE's. NULL: it is not known. */
const tandem_model *td_known_find(const td_known *known, tandem_slice collection,
                                  tandem_slice document, uint64_t *created_hlc_out);

/* A job on it goes to the view. TANDEM_E_NOMEM. */
tandem_err td_known_ask(td_known *known, tandem_slice collection, tandem_slice document);
/* It came back, once for each that went: with model, if the document lives and is of that one, else
 * NULL. */
void td_known_answer(td_known *known, tandem_slice collection, tandem_slice document,
                     const tandem_model *model, uint64_t created_hlc);

/* It was created or deleted, or may have been. */
void td_known_forget(td_known *known, tandem_slice collection, tandem_slice document);
/* All may have been. */
void td_known_forget_all(td_known *known);
void td_known_release(td_known *known);

#endif
