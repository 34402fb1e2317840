/*
 * What the operations of a text come to, told from their words alone (reactor/models/text.c says
 * what those mean): which characters must be seen and which must not.
 *
 * Where they stand is typing.h's. Here each name that an operation has for a character is followed
 * to the operation that inserted it. So it is known which come to nothing, because what they name
 * is not there; and that must have a reason. What they name is
 *
 *   of an earlier life of the document, or itself comes to nothing;
 *   dated after it: whoever saw it has begun his clock again since (the oracle looks that nobody
 *   else does so);
 *   gone, with the only disk that held it.
 *
 * All others must have their effect: what they insert is there, exactly once, unless one of them
 * has deleted it; what they delete is not. What they insert and delete is what their author wanted;
 * what was reported durable is among them, unless it is gone; what was reported as failed is not.
 *
 * Threads: one.
 */
#ifndef TANDEM_SYNC_TEXT_ACCOUNT_H
#define TANDEM_SYNC_TEXT_ACCOUNT_H

#include "sync/typing.h"

/* Where a text is. */
typedef struct td_text_place {
    const char *collection, *document, *branch, *scope;
} td_text_place;

/*
 * Is this what a reactor has to show? TANDEM_E_STATE and a sentence if it is not; and the errors of
 * tandem_operations_next().
 *
 * A job that had to begin the document though its author saw one is found here, and told to typing:
 * the one that he saw was created by a clock that ran ahead, and he wrote before that.
 */
tandem_err td_text_account(td_typing *typing, unsigned text, const td_text_place *place,
                           tandem_reactor *reactor, td_marks shown, char why[256]);

#endif
