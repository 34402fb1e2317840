/*
 * What was typed into texts, by whom, and having seen what: enough to say of a text that is shown
 * whether it can be right, by nothing of the model that made it but its promises.
 *
 * Each character that is ever typed in a run is another code point. So whoever reads a text knows
 * of each of its characters in which edit it was typed, and behind which other one: behind what its
 * author saw on the left of it, or at the beginning. By that the characters are a tree.
 *
 * These must hold in whatever is shown, to anybody, at any time (td_typing_look()):
 *
 *   known      each character was typed, into this text, not by a job that failed; it is there once
 *   forwards   a character, what was typed behind it, what behind that … stand together, it first:
 *              nothing else stands among them. So of two who type at one place at once neither's
 *              run, nor what others add to it, has the other's in it
 *   backwards  where one was typed right before another, nothing stands between that was typed by
 *              who had not seen the latter: so neither those who type backwards interleave
 *
 * *Forwards* is forward non-interleaving, word for word: the order of a text is a walk over that
 * tree, each before its children (Weidner and Kleppmann, The Art of the Fugue, 2023). *Backwards*
 * is what is promised of backward non-interleaving: nothing is promised about those at one place
 * whose right neighbours were different ones. It is looked for where the two were typed behind the
 * same one, and nothing that was deleted can stand between them, behind which others may type.
 *
 * And in the end (td_typing_order()): in the order in which an author saw characters, his own in
 * their places, they stand for ever. So what one types on stands in the order in which he did.
 *
 * Threads: one.
 */
#ifndef TANDEM_SYNC_TYPING_H
#define TANDEM_SYNC_TYPING_H

#include "sync/simulator.h"

typedef struct td_typing td_typing;

/* A character, by when it was typed: 1, 2, 3 … in all texts together. 0: the beginning. */
typedef uint32_t td_mark;

#define TD_NOWHERE SIZE_MAX

/* Some characters, borrowed from who gives them. */
typedef struct td_marks {
    const td_mark *all;
    size_t count;
} td_marks;

/* One edit: what was typed, and what was deleted. */
typedef struct td_edit {
    uint64_t job;
    unsigned text;
    td_mark first;
    uint32_t count;   /* from first on, each behind the one before */
    td_mark behind;   /* typed right behind this one; 0: at the beginning */
    bool sees_behind; /* its author saw something that was typed right behind that before */
    td_mark before;   /* typed right before this one; 0: not known, or the end */
    td_mark *deleted; /* in ascending order */
    uint32_t deleted_count;
} td_edit;

/* What its author sees before he edits. */
typedef struct td_view {
    td_marks marks;
    uint64_t operations;   /* that it is the fold of */
    bool is_new;           /* the text is not there */
    const uint8_t *origin; /* TANDEM_ORIGIN_BYTES: who sees it */
} td_view;

tandem_err td_typing_open(td_typing **out);
void td_typing_free(td_typing *typing); /* NULL is fine */

/* ---- Code points ---- */

enum { TD_MARK_BYTES_MAX = 4, TD_MARKS_MAX = 120000, TD_TEXTS_MAX = 8 };

/* UTF-8, of one to four bytes; how many. */
size_t td_mark_write(td_mark mark, char out[TD_MARK_BYTES_MAX]);
/* What a string shows, into memory that the caller frees. TANDEM_E_STATE: something in it is no
 * mark; TANDEM_E_NOMEM. */
tandem_err td_marks_read(tandem_slice text, td_mark **out, size_t *count_out);

/* ---- Typing ---- */

/*
 * A job on a text begins, of edits that follow each other.
 *
 * text  0 to TD_TEXTS_MAX - 1
 * view  NULL: it is typed at the beginning, whatever stands there
 * Errors: TANDEM_E_NOMEM: no edit may follow.
 */
tandem_err td_typing_begin(td_typing *typing, uint64_t job, unsigned text, const td_view *view);
/* How long the text is now, as the job sees it. */
size_t td_typing_length(const td_typing *typing);
/* Where its author has typed last, in this job or one before it, if that is to be seen; and in
 * which direction he went. TD_NOWHERE if it is not. */
size_t td_typing_cursor(const td_typing *typing, bool *backwards_out);
/* Where one of the others has typed last. */
size_t td_typing_cursor_of_other(const td_typing *typing);
/* Delete so many at a position, and insert there. TANDEM_E_NOMEM. */
tandem_err td_typing_edit(td_typing *typing, size_t at, size_t deleted, size_t inserted,
                          bool backwards, const td_edit **out);

/* The whole document of a text is deleted: it begins anew. */
void td_typing_deleted(td_typing *typing, unsigned text);
/* What its author saw was not what his job was executed on: the document was begun for it. */
void td_typing_unsee(td_typing *typing, uint64_t job);
/* Jobs that are not of a text are passed over. */
void td_typing_outcome(td_typing *typing, uint64_t job, tandem_outcome outcome);

/* ---- What was typed ---- */

/* One more than were typed. */
size_t td_typing_marks(const td_typing *typing);
size_t td_typing_edits(const td_typing *typing);
const td_edit *td_typing_edit_at(const td_typing *typing, size_t edit);
/* The one in which a character was typed; marks that were never typed: TD_NOWHERE. */
size_t td_typing_edit_of(const td_typing *typing, td_mark mark);
/* Was the job of an edit reported durable, and is held all the same? … must it be nowhere? */
bool td_typing_is_durable(const td_typing *typing, const td_edit *edit);
bool td_typing_has_failed(const td_typing *typing, const td_edit *edit);
/* Is there a job of this text that may be gone? */
bool td_typing_has_losses(const td_typing *typing, unsigned text);

/* ---- Looking ---- */

/* TANDEM_E_STATE and a sentence of what does not hold; TANDEM_E_NOMEM. */
tandem_err td_typing_look(td_typing *typing, unsigned text, td_marks shown, char why[256]);
tandem_err td_typing_order(td_typing *typing, unsigned text, td_marks shown, char why[256]);

#endif
