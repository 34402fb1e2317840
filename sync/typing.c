#include "sync/typing.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/utf8.h"

enum {
    NARROW_FIRST = 0x21, /* code points of one to three bytes, and of four, by turns */
    WIDE_FIRST = 0x10000,
    SURROGATES_FIRST = 0xd800,
    SURROGATES = 0x800,
};

_Static_assert(NARROW_FIRST + TD_MARKS_MAX / 2 + SURROGATES <= WIDE_FIRST,
               "each mark has a code point of its own");

/* A character as a job sees it, or has seen it. */
struct seen {
    td_mark mark;
    bool deleted; /* by this very author, since he began to type without a break */
};

struct character {
    uint32_t edit;
    td_mark behind;
    uint32_t deleted_behind; /* of those that were typed right behind it, how many were deleted */
    uint64_t deleted_in;     /* the first job that did; 0: none */
};

struct job {
    uint64_t number;
    unsigned text;
    bool has_view;
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t operations; /* that the text is the fold of afterwards, if nobody else changes it */
    td_mark unbroken;    /* from this one on what is seen was typed by him without a break */
    td_mark cursor;      /* typed last; 0: nothing */
    bool backwards;
    bool failed, is_durable, may_be_gone;
    struct seen *seen; /* in the order of the text, deleted ones in their places */
    size_t count, capacity;
};

struct td_typing {
    struct character *characters; /* by mark; 0 is the beginning … */
    struct character beginnings[TD_TEXTS_MAX]; /* … of any text; of each */
    size_t mark_count, mark_capacity;
    td_edit *edits;
    size_t edit_count, edit_capacity;
    struct job *jobs; /* in ascending order of number */
    size_t job_count, job_capacity;
    bool begun_anew[TD_TEXTS_MAX]; /* its document was deleted */
};

/* Make room for one more. */
static bool grow(void **array, size_t count, size_t *capacity, size_t size)
{
    size_t wanted = *capacity ? 2 * *capacity : 64;
    void *grown;

    if (count < *capacity)
        return true;
    if (!(grown = realloc(*array, wanted * size)))
        return false;
    *array = grown;
    *capacity = wanted;
    return true;
}

tandem_err td_typing_open(td_typing **out)
{
    td_typing *typing = calloc(1, sizeof(*typing));

    if (!typing || !grow((void **)&typing->characters, 0, &typing->mark_capacity,
                         sizeof(typing->characters[0]))) {
        free(typing);
        return TANDEM_E_NOMEM;
    }
    typing->characters[0] = (struct character){.edit = 0};
    typing->mark_count = 1;
    *out = typing;
    return TANDEM_OK;
}

void td_typing_free(td_typing *typing)
{
    if (!typing)
        return;
    for (size_t i = 0; i < typing->job_count; i++)
        free(typing->jobs[i].seen);
    for (size_t i = 0; i < typing->edit_count; i++)
        free(typing->edits[i].deleted);
    free(typing->characters);
    free(typing->edits);
    free(typing->jobs);
    free(typing);
}

/* ---- Code points ---- */

static uint32_t code_of(td_mark mark)
{
    uint32_t code = NARROW_FIRST + mark / 2;

    if (mark % 2)
        return WIDE_FIRST + mark / 2;
    return code < SURROGATES_FIRST ? code : code + SURROGATES;
}

size_t td_mark_write(td_mark mark, char out[TD_MARK_BYTES_MAX])
{
    uint32_t code = code_of(mark);
    size_t size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t leads[] = {0, 0, 0xc0, 0xe0, 0xf0};

    for (size_t i = size - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(leads[size] | code);
    return size;
}

/* The mark of a well-formed character; 0: it is none. */
static td_mark mark_of(const uint8_t *bytes, size_t size)
{
    uint32_t code = size == 1 ? bytes[0] : bytes[0] & (0xffu >> (size + 1));

    for (size_t i = 1; i < size; i++)
        code = code << 6 | (bytes[i] & 0x3f);
    if (code >= WIDE_FIRST)
        return code - WIDE_FIRST < TD_MARKS_MAX / 2 ? 2 * (code - WIDE_FIRST) + 1 : 0;
    if (code >= SURROGATES_FIRST)
        code -= SURROGATES;
    return code > NARROW_FIRST && code - NARROW_FIRST < TD_MARKS_MAX / 2 ? 2 * (code - NARROW_FIRST)
                                                                       : 0;
}

tandem_err td_marks_read(tandem_slice text, td_mark **out, size_t *count_out)
{
    td_mark *marks = malloc((text.size + 1) * sizeof(*marks));
    size_t count = 0;

    if (!marks)
        return TANDEM_E_NOMEM;
    for (size_t at = 0, size; at < text.size; at += size) {
        size = td_utf8_size(text.bytes + at, text.size - at);
        marks[count] = size ? mark_of(text.bytes + at, size) : 0;
        if (!marks[count++]) {
            free(marks);
            return TANDEM_E_STATE;
        }
    }
    *out = marks;
    *count_out = count;
    return TANDEM_OK;
}

/* NULL: that job is of no text. */
static struct job *find_job(const td_typing *typing, uint64_t number)
{
    size_t first = 0, end = typing->job_count;

    while (first < end) {
        size_t middle = (first + end) / 2;

        if (typing->jobs[middle].number == number)
            return &typing->jobs[middle];
        if (typing->jobs[middle].number < number)
            first = middle + 1;
        else
            end = middle;
    }
    return NULL;
}

/* ---- What a job sees ---- */

static struct job *present(const td_typing *typing)
{
    return &typing->jobs[typing->job_count - 1];
}

static bool job_grow(struct job *job, size_t count)
{
    size_t capacity = job->capacity;
    struct seen *grown;

    if (count <= capacity)
        return true;
    capacity = count + count / 2 + 16;
    if (!(grown = realloc(job->seen, capacity * sizeof(*grown))))
        return false;
    job->seen = grown;
    job->capacity = capacity;
    return true;
}

/* Which of those in their places the visible one at a position is; count: there is none. */
static size_t place_of(const struct job *job, size_t at)
{
    size_t place = 0;

    for (; place < job->count; place++)
        if (!job->seen[place].deleted && at-- == 0)
            break;
    return place;
}

/* The position of a character; TD_NOWHERE: it is not visible. */
static size_t position_of(const struct job *job, td_mark mark)
{
    size_t at = 0;

    for (size_t i = 0; i < job->count; i++) {
        if (job->seen[i].deleted)
            continue;
        if (job->seen[i].mark == mark)
            return at;
        at++;
    }
    return TD_NOWHERE;
}

static bool is_by(const struct job *job, unsigned text, const uint8_t *origin)
{
    return job->text == text && job->has_view && !memcmp(job->origin, origin, TANDEM_ORIGIN_BYTES);
}

static bool shows(const struct job *job, td_marks marks)
{
    size_t at = 0;

    for (size_t i = 0; i < job->count; i++) {
        if (job->seen[i].deleted)
            continue;
        if (at == marks.count || job->seen[i].mark != marks.all[at])
            return false;
        at++;
    }
    return at == marks.count;
}

/* The last job of the same author in the same text, if the text is as that left it. A document that
 * has begun anew may count as many operations as before. */
static const struct job *find_unbroken(const td_typing *typing, unsigned text, const td_view *view)
{
    for (size_t i = typing->job_count; i-- > 0;) {
        const struct job *job = &typing->jobs[i];

        if (!is_by(job, text, view->origin) || job->failed)
            continue;
        return job->operations == view->operations && !view->is_new && !typing->begun_anew[text] &&
                       shows(job, view->marks)
                   ? job
                   : NULL;
    }
    return NULL;
}

static bool see(const td_typing *typing, struct job *job, const td_view *view)
{
    const struct job *last = find_unbroken(typing, job->text, view);

    if (!job_grow(job, last ? last->count : view->marks.count))
        return false;
    job->has_view = true;
    memcpy(job->origin, view->origin, TANDEM_ORIGIN_BYTES);
    job->operations = view->operations + view->is_new;
    if (last) {
        job->unbroken = last->unbroken;
        job->count = last->count;
        if (last->count)
            memcpy(job->seen, last->seen, last->count * sizeof(*job->seen));
        return true;
    }
    job->count = view->marks.count;
    for (size_t i = 0; i < job->count; i++)
        job->seen[i] = (struct seen){.mark = view->marks.all[i]};
    return true;
}

tandem_err td_typing_begin(td_typing *typing, uint64_t number, unsigned text, const td_view *view)
{
    struct job job = {.number = number, .text = text, .unbroken = (td_mark)typing->mark_count};

    if (!grow((void **)&typing->jobs, typing->job_count, &typing->job_capacity,
              sizeof(typing->jobs[0])))
        return TANDEM_E_NOMEM;
    if (view && !see(typing, &job, view))
        return TANDEM_E_NOMEM;
    typing->jobs[typing->job_count++] = job;
    return TANDEM_OK;
}

size_t td_typing_length(const td_typing *typing)
{
    const struct job *job = present(typing);
    size_t length = 0;

    for (size_t i = 0; i < job->count; i++)
        length += !job->seen[i].deleted;
    return length;
}

size_t td_typing_cursor(const td_typing *typing, bool *backwards_out)
{
    const struct job *job = present(typing);

    for (size_t i = typing->job_count; i-- > 0;) {
        const struct job *last = &typing->jobs[i];
        size_t at;

        if (last != job && (!job->has_view || !is_by(last, job->text, job->origin)))
            continue;
        if (!last->cursor || (at = position_of(job, last->cursor)) == TD_NOWHERE)
            continue;
        *backwards_out = last->backwards;
        return at + !last->backwards;
    }
    return TD_NOWHERE;
}

size_t td_typing_cursor_of_other(const td_typing *typing)
{
    const struct job *job = present(typing);

    for (size_t i = typing->job_count; i-- > 0;) {
        const struct job *last = &typing->jobs[i];
        size_t at;

        if (last->text == job->text && !is_by(last, job->text, job->origin) && last->cursor &&
            (at = position_of(job, last->cursor)) != TD_NOWHERE)
            return at + !last->backwards;
    }
    return TD_NOWHERE;
}

/* ---- Typing ---- */

static int mark_compare(const void *a, const void *b)
{
    td_mark x = *(const td_mark *)a, y = *(const td_mark *)b;

    return x < y ? -1 : x > y;
}

static struct character *left_of(td_typing *typing, const struct job *job, td_mark mark)
{
    return mark ? &typing->characters[mark] : &typing->beginnings[job->text];
}

/*
 * Does one stand right before another, which was typed right behind it, and nothing that is deleted
 * between? They are next to each other as the job sees it. What its author has typed without a
 * break he has in its place, deleted or not. Else, what could be between was typed right behind the
 * one, too: so nothing of that was ever deleted, but by him.
 */
static bool is_next_to(td_typing *typing, const struct job *job, td_mark left, td_mark right)
{
    const td_edit *edit = &typing->edits[typing->characters[right].edit];
    uint32_t own = 0;

    if (typing->characters[right].behind != left)
        return false;
    if (right >= job->unbroken)
        return true;
    /* Whose clock has begun again may have a document begun for him, before all that he sees. */
    if (!left && (typing->begun_anew[job->text] ||
                  !is_by(find_job(typing, edit->job), job->text, job->origin)))
        return false;
    for (size_t i = 0; i < job->count; i++)
        own += job->seen[i].deleted && typing->characters[job->seen[i].mark].behind == left;
    return left_of(typing, job, left)->deleted_behind == own;
}

static bool sees_behind(const td_typing *typing, const struct job *job, td_mark left)
{
    for (size_t i = 0; i < job->count; i++)
        if (typing->characters[job->seen[i].mark].behind == left)
            return true;
    return false;
}

/* Those that are visible from a place on. */
static tandem_err delete_from(td_typing *typing, size_t place, size_t count, td_edit *edit)
{
    struct job *job = present(typing);

    if (!count)
        return TANDEM_OK;
    if (!(edit->deleted = malloc(count * sizeof(*edit->deleted))))
        return TANDEM_E_NOMEM;
    for (; place < job->count && edit->deleted_count < count; place++) {
        struct seen *seen = &job->seen[place];
        struct character *character = &typing->characters[seen->mark];

        if (seen->deleted)
            continue;
        seen->deleted = true;
        edit->deleted[edit->deleted_count++] = seen->mark;
        if (!character->deleted_in) {
            character->deleted_in = job->number;
            left_of(typing, job, character->behind)->deleted_behind++;
        }
    }
    qsort(edit->deleted, edit->deleted_count, sizeof(*edit->deleted), mark_compare);
    return TANDEM_OK;
}

static tandem_err insert_at(td_typing *typing, size_t place, size_t count, td_edit *edit)
{
    struct job *job = present(typing);
    td_mark left = place ? job->seen[place - 1].mark : 0;

    edit->first = (td_mark)typing->mark_count;
    edit->behind = left;
    edit->sees_behind = sees_behind(typing, job, left);
    if (place < job->count && is_next_to(typing, job, left, job->seen[place].mark))
        edit->before = job->seen[place].mark;
    if (typing->mark_count + count > TD_MARKS_MAX || !job_grow(job, job->count + count))
        return TANDEM_E_NOMEM;
    memmove(&job->seen[place + count], &job->seen[place],
            (job->count - place) * sizeof(*job->seen));
    job->count += count;
    for (size_t i = 0; i < count; i++) {
        if (!grow((void **)&typing->characters, typing->mark_count, &typing->mark_capacity,
                  sizeof(typing->characters[0])))
            return TANDEM_E_NOMEM;
        typing->characters[typing->mark_count] =
            (struct character){.edit = (uint32_t)typing->edit_count, .behind = left};
        left = (td_mark)typing->mark_count++;
        job->seen[place + i] = (struct seen){.mark = left};
        edit->count++;
    }
    return TANDEM_OK;
}

tandem_err td_typing_edit(td_typing *typing, size_t at, size_t deleted, size_t inserted,
                          bool backwards, const td_edit **out)
{
    struct job *job = present(typing);
    size_t place = at ? place_of(job, at - 1) + 1 : 0;
    td_edit edit = {.job = job->number, .text = job->text};

    /* What fails here is over: nobody looks at it any more. */
    if (!grow((void **)&typing->edits, typing->edit_count, &typing->edit_capacity,
              sizeof(typing->edits[0])) ||
        delete_from(typing, place, deleted, &edit) != TANDEM_OK ||
        (inserted && insert_at(typing, place, inserted, &edit) != TANDEM_OK)) {
        free(edit.deleted);
        return TANDEM_E_NOMEM;
    }
    if (inserted)
        job->cursor = backwards ? edit.first : edit.first + edit.count - 1;
    else
        job->cursor = place ? job->seen[place - 1].mark : 0;
    job->backwards = backwards && inserted;
    job->operations++;
    typing->edits[typing->edit_count] = edit;
    *out = &typing->edits[typing->edit_count++];
    return TANDEM_OK;
}

void td_typing_deleted(td_typing *typing, unsigned text)
{
    typing->begun_anew[text] = true;
}

static uint64_t job_of(const td_typing *typing, td_mark mark)
{
    return typing->edits[typing->characters[mark].edit].job;
}

void td_typing_unsee(td_typing *typing, uint64_t number)
{
    struct job *job = find_job(typing, number);
    size_t kept = 0;

    for (size_t i = 0; i < job->count; i++)
        if (job_of(typing, job->seen[i].mark) == number)
            job->seen[kept++] = job->seen[i];
    if (kept == job->count)
        return;
    job->has_view = false;
    job->count = kept;
    for (size_t i = 0; i < typing->edit_count; i++)
        if (typing->edits[i].job == number) {
            typing->edits[i].sees_behind = false;
            if (typing->edits[i].before && job_of(typing, typing->edits[i].before) != number)
                typing->edits[i].before = 0;
        }
}

void td_typing_outcome(td_typing *typing, uint64_t number, tandem_outcome outcome)
{
    struct job *job = find_job(typing, number);

    if (!job)
        return;
    job->failed = outcome == TANDEM_OUTCOME_FAILED;
    job->is_durable = outcome == TANDEM_OUTCOME_DURABLE;
    job->may_be_gone = !job->failed && !job->is_durable;
}

/* ---- What was typed ---- */

size_t td_typing_marks(const td_typing *typing)
{
    return typing->mark_count;
}

size_t td_typing_edits(const td_typing *typing)
{
    return typing->edit_count;
}

const td_edit *td_typing_edit_at(const td_typing *typing, size_t edit)
{
    return &typing->edits[edit];
}

size_t td_typing_edit_of(const td_typing *typing, td_mark mark)
{
    return mark > 0 && mark < typing->mark_count ? typing->characters[mark].edit : TD_NOWHERE;
}

bool td_typing_is_durable(const td_typing *typing, const td_edit *edit)
{
    return find_job(typing, edit->job)->is_durable;
}

bool td_typing_has_failed(const td_typing *typing, const td_edit *edit)
{
    return find_job(typing, edit->job)->failed;
}

bool td_typing_has_losses(const td_typing *typing, unsigned text)
{
    for (size_t i = 0; i < typing->job_count; i++)
        if (typing->jobs[i].text == text && typing->jobs[i].may_be_gone)
            return true;
    return false;
}

/* ---- Looking ---- */

/* A character and all that was typed behind it, on the way through a text. */
enum { AHEAD, OPEN, CLOSED };

struct look {
    const td_typing *typing;
    td_marks shown;
    size_t *positions; /* by mark; TD_NOWHERE: it is not shown */
    uint8_t *states;
    td_mark *last; /* of what was typed behind it, right behind: the last that was come by */
    td_mark *next; /* what was typed right behind the same one, and comes next */
    td_mark *path, *chain;
    size_t path_count;
    char *why;
};

static void look_release(struct look *look)
{
    free(look->positions);
    free(look->states);
    free(look->last);
    free(look->next);
    free(look->path);
    free(look->chain);
}

static tandem_err look_open(struct look *look)
{
    size_t count = look->typing->mark_count;

    look->positions = malloc(count * sizeof(*look->positions));
    look->states = calloc(count, sizeof(*look->states));
    look->last = calloc(count, sizeof(*look->last));
    look->next = calloc(count, sizeof(*look->next));
    look->path = malloc(count * sizeof(*look->path));
    look->chain = malloc(count * sizeof(*look->chain));
    if (!look->positions || !look->states || !look->last || !look->next || !look->path ||
        !look->chain)
        return TANDEM_E_NOMEM;
    for (size_t i = 0; i < count; i++)
        look->positions[i] = TD_NOWHERE;
    return TANDEM_OK;
}

/* Each was typed here, and is there once. */
static tandem_err look_at_each(struct look *look, unsigned text)
{
    const td_typing *typing = look->typing;

    for (size_t i = 0; i < look->shown.count; i++) {
        td_mark mark = look->shown.all[i];
        size_t edit = td_typing_edit_of(typing, mark);

        if (edit == TD_NOWHERE || typing->edits[edit].text != text) {
            snprintf(look->why, 256, "character %u was never typed there", mark);
            return TANDEM_E_STATE;
        }
        if (td_typing_has_failed(typing, &typing->edits[edit])) {
            snprintf(look->why, 256, "it shows job %" PRIu64 ", which was reported as failed",
                     typing->edits[edit].job);
            return TANDEM_E_STATE;
        }
        if (look->positions[mark] != TD_NOWHERE) {
            snprintf(look->why, 256, "a character of job %" PRIu64 " stands there twice",
                     typing->edits[edit].job);
            return TANDEM_E_STATE;
        }
        look->positions[mark] = i;
    }
    return TANDEM_OK;
}

/* The next character: what it was typed behind, and that behind, up to what the way is still in. */
static tandem_err step_forwards(struct look *look, size_t at)
{
    const struct character *characters = look->typing->characters;
    td_mark mark = look->shown.all[at], above = mark;
    size_t count = 0;

    for (; look->states[above] == AHEAD; above = characters[above].behind) {
        if (look->positions[above] != TD_NOWHERE && look->positions[above] > at)
            break;
        look->chain[count++] = above;
    }
    if (look->states[above] == AHEAD) {
        snprintf(look->why, 256, "what job %" PRIu64 " typed behind a character of job %" PRIu64
                 " stands before it", job_of(look->typing, mark), job_of(look->typing, above));
        return TANDEM_E_STATE;
    }
    if (look->states[above] == CLOSED) {
        snprintf(look->why, 256, "what was typed from job %" PRIu64 " on is interleaved: job"
                 " %" PRIu64 " stands in it, before job %" PRIu64, job_of(look->typing, above),
                 job_of(look->typing, look->shown.all[at - 1]), job_of(look->typing, mark));
        return TANDEM_E_STATE;
    }
    while (look->path[look->path_count - 1] != above)
        look->states[look->path[--look->path_count]] = CLOSED;
    while (count) {
        td_mark next = look->chain[--count];

        if (look->last[above])
            look->next[look->last[above]] = next;
        look->last[above] = next;
        look->states[next] = OPEN;
        look->path[look->path_count++] = above = next;
    }
    return TANDEM_OK;
}

static tandem_err look_forwards(struct look *look)
{
    tandem_err err = TANDEM_OK;

    look->path[look->path_count++] = 0;
    look->states[0] = OPEN;
    for (size_t i = 0; i < look->shown.count && err == TANDEM_OK; i++)
        err = step_forwards(look, i);
    return err;
}

/* Had its author certainly not seen this one? It may have been deleted when he looked. */
static bool is_ignorant(const td_typing *typing, td_mark typed, td_mark of)
{
    const struct job *job = find_job(typing, job_of(typing, typed));
    uint64_t deleted_in = typing->characters[of].deleted_in;

    if (!job->has_view || (deleted_in && deleted_in < job->number))
        return false;
    for (size_t i = 0; i < job->count; i++)
        if (job->seen[i].mark == of)
            return false;
    return true;
}

static td_mark before(const td_typing *typing, td_mark mark)
{
    const td_edit *edit = &typing->edits[typing->characters[mark].edit];

    return edit->first == mark ? edit->before : 0;
}

/* … of all before which `first` was typed, and the next of these, up to end? */
static bool has_seen_none(const td_typing *typing, td_mark typed, td_mark first, td_mark end)
{
    td_mark right = before(typing, first);

    while (right != end && is_ignorant(typing, typed, right))
        right = before(typing, right);
    return is_ignorant(typing, typed, right);
}

/* From what was typed right before another one to that, or to the next of such of which anything is
 * left: who else stands there has seen one of them. */
static tandem_err step_backwards(struct look *look, td_mark first)
{
    const td_typing *typing = look->typing;
    td_mark end = before(typing, first), at, stranger = 0;

    while (end && look->states[end] == AHEAD)
        end = before(typing, end);
    if (!end)
        return TANDEM_OK;
    for (at = look->next[first]; at && at != end; at = look->next[at])
        if (!stranger && has_seen_none(typing, at, first, end))
            stranger = at;
    if (!at)
        snprintf(look->why, 256, "what job %" PRIu64 " typed right before job %" PRIu64
                 " stands behind it", job_of(typing, first), job_of(typing, end));
    else if (stranger)
        snprintf(look->why, 256, "what job %" PRIu64 " typed right before job %" PRIu64
                 " is interleaved: job %" PRIu64 " stands between", job_of(typing, first),
                 job_of(typing, end), job_of(typing, stranger));
    return at && !stranger ? TANDEM_OK : TANDEM_E_STATE;
}

static tandem_err look_backwards(struct look *look, unsigned text)
{
    const td_typing *typing = look->typing;
    tandem_err err = TANDEM_OK;

    for (size_t i = 0; i < typing->edit_count && err == TANDEM_OK; i++) {
        const td_edit *edit = &typing->edits[i];

        if (edit->text == text && edit->before && look->states[edit->first] != AHEAD)
            err = step_backwards(look, edit->first);
    }
    return err;
}

tandem_err td_typing_look(td_typing *typing, unsigned text, td_marks shown, char why[256])
{
    struct look look = {.typing = typing, .shown = shown, .why = why};
    tandem_err err = look_open(&look);

    if (err == TANDEM_OK && (err = look_at_each(&look, text)) == TANDEM_OK &&
        (err = look_forwards(&look)) == TANDEM_OK)
        err = look_backwards(&look, text);
    look_release(&look);
    return err;
}

static tandem_err look_at_order(const struct look *look, const struct job *job)
{
    td_mark last = 0;

    for (size_t i = 0; i < job->count; i++) {
        td_mark mark = job->seen[i].mark;

        if (look->positions[mark] == TD_NOWHERE)
            continue;
        if (last && look->positions[mark] < look->positions[last]) {
            snprintf(look->why, 256, "the author of job %" PRIu64 " had a character of job %" PRIu64
                     " before one of job %" PRIu64 ", and it stands behind it", job->number,
                     job_of(look->typing, last), job_of(look->typing, mark));
            return TANDEM_E_STATE;
        }
        last = mark;
    }
    return TANDEM_OK;
}

tandem_err td_typing_order(td_typing *typing, unsigned text, td_marks shown, char why[256])
{
    struct look look = {.typing = typing, .shown = shown, .why = why};
    tandem_err err = look_open(&look);

    if (err == TANDEM_OK)
        err = look_at_each(&look, text);
    for (size_t i = 0; i < typing->job_count && err == TANDEM_OK; i++)
        if (typing->jobs[i].text == text)
            err = look_at_order(&look, &typing->jobs[i]);
    look_release(&look);
    return err;
}
