/*
 * The characters of a text, with their ids, in order: what model `text` folds into.
 *
 * A character is (author, number): the authors are the origins that inserted anything, and number
 * counts an author's characters in the order in which they were inserted. Outside of one state a
 * character is named by the operation that inserted it, (origin, hlc), and its place in that.
 *
 * Characters that were deleted stay, invisible, for others to be anchored to. A *run* is a piece of
 * the sequence: characters of one author, with consecutive numbers, all visible or all deleted, each
 * anchored behind the one before. So what somebody types in one go is one run, of one node, however
 * many operations it took.
 *
 * Runs stand in a treap (Seidel and Aragon, Randomized Search Trees, 1996) in the order of the text,
 * with the number of visible characters below each: finding a position, and telling a change to all
 * above, take the logarithm of the number of runs. Per author the runs are linked in the order of
 * numbers, with an index over every TD_RUN_CHARACTERS_MAX-th number.
 *
 * Memory: 72 bytes a run, 24 an operation that inserts (reserved in steps of half), 1 to 4 bytes a
 * character (its UTF-8; of deleted ones until the state is restored from a snapshot), 8 a
 * TD_RUN_CHARACTERS_MAX-th.
 *
 * Limits: TD_TEXT_CHARACTERS_MAX characters of an author, deleted ones included.
 * Threads: one at a time.
 */
#ifndef TANDEM_REACTOR_MODELS_TEXT_SEQUENCE_H
#define TANDEM_REACTOR_MODELS_TEXT_SEQUENCE_H

#include <stdbool.h>

#include "store/bytes.h"
#include "store/error.h"

enum { TD_RUN_CHARACTERS_MAX = 128 };
#define TD_TEXT_CHARACTERS_MAX UINT32_C(0x7fffffff)

typedef struct td_run_node td_run_node;
typedef struct td_sequence td_sequence;

struct td_run_node {
    td_run_node *left, *right, *parent;
    td_run_node *next_piece; /* of the author, in the order of numbers */
    uint64_t bytes_at;       /* in the author's text */
    uint64_t visible_below;  /* characters, in all of the subtree */
    uint32_t priority;
    uint32_t author;
    uint32_t first, count; /* numbers */
    uint32_t bytes;        /* of UTF-8; of deleted ones maybe 0 */
    bool deleted;
    bool pretended; /* … only until that is taken back */
    bool branched; /* something was anchored behind its last character; of the others the next one is */
};

/* An operation that inserted something. */
typedef struct td_insertion {
    uint64_t hlc;
    uint64_t seq;
    uint32_t first; /* the number of its first character; the next one's ends it */
} td_insertion;

typedef struct td_author {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    td_insertion *insertions; /* in the order of (hlc, arrival) */
    size_t insertion_count, insertion_capacity;
    size_t found; /* where the last one was found: the next one is often beside it */
    uint32_t characters;
    uint8_t *text; /* UTF-8, in the order of numbers */
    uint64_t text_size, text_capacity;
    td_run_node **index; /* the run of every TD_RUN_CHARACTERS_MAX-th number */
    size_t index_capacity;
    td_run_node *first_piece, *last_piece;
} td_author;

/* A character, or (author TD_NOBODY) the beginning of the text. */
typedef struct td_character {
    uint32_t author;
    uint32_t number;
} td_character;

#define TD_NOBODY UINT32_MAX

/* Numbers of one author. */
typedef struct td_numbers {
    uint32_t author;
    uint32_t first, count;
} td_numbers;

tandem_err td_sequence_open(td_sequence **out);
void td_sequence_free(td_sequence *sequence); /* NULL is fine */

/* ---- Authors ---- */

uint32_t td_sequence_author_count(const td_sequence *sequence);
td_author *td_sequence_author(const td_sequence *sequence, uint32_t author);
/* TD_NOBODY if there is none. */
uint32_t td_sequence_find_author(const td_sequence *sequence, const uint8_t *origin);
/* Find or make. TANDEM_E_NOMEM. */
tandem_err td_sequence_add_author(td_sequence *sequence, const uint8_t *origin, uint32_t *out);

/* The insertion of an author with this HLC, of several the first; or NULL. */
const td_insertion *td_sequence_find(const td_sequence *sequence, uint32_t author, uint64_t hlc);
/* The one with this seq; of several, which forks bring, the last if it is not far back. Or NULL. */
const td_insertion *td_sequence_find_seq(const td_sequence *sequence, uint32_t author, uint64_t seq);
/* How many characters it inserted. */
uint32_t td_sequence_insertion_size(const td_sequence *sequence, uint32_t author,
                                    const td_insertion *insertion);
/* The insertion that a character is of. */
const td_insertion *td_sequence_insertion_of(const td_sequence *sequence, td_character character);

/* ---- Changing: what can fail for want of memory does so in _reserve() ---- */

/* Make room for inserting `characters` of `bytes` by an author, as one operation, and for deleting so
 * many stretches of numbers. TANDEM_E_NOMEM, TANDEM_E_LIMIT: nothing has changed. */
tandem_err td_sequence_reserve(td_sequence *sequence, uint32_t author, uint32_t characters,
                               size_t bytes, size_t deletions);
/* Insert right behind a character (or at the beginning), or right before one. text: well-formed UTF-8 of
 * that many characters. */
void td_sequence_insert(td_sequence *sequence, td_character anchor, bool before, uint32_t author,
                        uint64_t hlc, uint64_t seq, tandem_slice text, uint32_t characters);
/* Those that are deleted already stay so. */
void td_sequence_delete(td_sequence *sequence, td_numbers numbers);

/*
 * From here on until td_sequence_take_back() nothing is for good: it takes back what was inserted, by
 * the author that comes back, which is nobody's, and what was deleted.
 */
uint32_t td_sequence_pretend(td_sequence *sequence);
void td_sequence_take_back(td_sequence *sequence);
bool td_sequence_is_pretending(const td_sequence *sequence);

/* ---- Looking ---- */

uint64_t td_sequence_length(const td_sequence *sequence); /* visible characters */
uint64_t td_sequence_bytes(const td_sequence *sequence);  /* of their UTF-8 */
/* Is anything anchored behind the beginning? */
bool td_sequence_branched(const td_sequence *sequence);

/* The run with the visible character at a position, and which of its characters that is; NULL behind
 * the last one. */
td_run_node *td_sequence_at(const td_sequence *sequence, uint64_t position, uint32_t *offset_out);
td_run_node *td_sequence_first(const td_sequence *sequence);
td_run_node *td_sequence_next(const td_run_node *run);
tandem_slice td_sequence_text(const td_sequence *sequence, const td_run_node *run);

/* For a state that is read back: append a run at the end; its text of `bytes` is at bytes_at in the
 * author's. TANDEM_E_NOMEM. */
tandem_err td_sequence_append(td_sequence *sequence, const td_run_node *run);
/* The runs that were appended belong together: each author's numbers are there once and without a gap.
 * TANDEM_E_CORRUPT, TANDEM_E_NOMEM. */
tandem_err td_sequence_link(td_sequence *sequence);
void td_sequence_set_branched(td_sequence *sequence, bool branched);

#endif
