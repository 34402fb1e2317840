/*
 * Texts for the simulator: a few, so that all reactors type into the same ones at once. Whoever
 * types looks first, and has his job executed only on what he saw: typing.h judges by that. Where
 * something came in between, it is refused. Who finds a reactor that cannot be read types at the
 * beginning, which is always there.
 *
 * An author mostly goes on where he typed last, forwards or backwards; else he begins at a place
 * that others like, too: an end, the middle, the cursor of another one. What is typed at once is a
 * run of characters in one edit, edits that follow each other in one job, or jobs.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sync/plan.h"
#include "sync/text_account.h"
#include "sync/typing.h"

/* Rarely a job has so many edits that its fold leaves a snapshot, or one so many characters. */
enum {
    TEXTS = 5,
    EDITS_MAX = 300,
    PASTE = 400,
    LENGTH_MAX = 800, /* of a text; then much of it is deleted */
    READ_MS = 5000,
};

static const struct {
    td_text_place place;
    unsigned share;   /* of all jobs, in percent */
    bool is_deleted;  /* sometimes */
} texts[TEXTS] = {
    {{"c0", "essay", "main", "global"}, 45, false},
    {{"c1", "essay", "main", "global"}, 20, false},
    {{"c1", "essay", "draft", "global"}, 10, false},
    {{"c2", "memo", "main", "notes"}, 10, false},
    {{"c2", "scrap", "main", "global"}, 15, true},
};

_Static_assert((int)TEXTS <= (int)TD_TEXTS_MAX, "each is known by its number");

struct workload {
    td_typing *typing;
    tandem_err err;
    char why[256]; /* what somebody saw that cannot be */
    /* The job that is being written: */
    tandem_input inputs[EDITS_MAX];
    size_t ends[EDITS_MAX], count; /* of each input in … */
    tandem_writer bytes;
};

static void workload_free(void *context)
{
    struct workload *workload = context;

    if (!workload)
        return;
    td_typing_free(workload->typing);
    tandem_writer_release(&workload->bytes);
    free(workload);
}

static tandem_err workload_open(void **out)
{
    struct workload *workload = calloc(1, sizeof(*workload));
    tandem_err err;

    if (!workload)
        return TANDEM_E_NOMEM;
    tandem_writer_init(&workload->bytes);
    if ((err = td_typing_open(&workload->typing)) != TANDEM_OK) {
        workload_free(workload);
        return err;
    }
    *out = workload;
    return TANDEM_OK;
}

/* ---- Looking ---- */

/* A text as a reactor shows it. */
struct shown {
    td_mark *marks;
    size_t count;
    uint64_t operations, position;
    bool is_there;
};

/* TANDEM_E_STATE and a sentence: something in it was never typed. Else the errors of
 * tandem_document_read(), but for TANDEM_E_NOT_FOUND: then nothing is shown. */
static tandem_err show(unsigned text, tandem_reactor *reactor, uint64_t timeout_ms,
                       struct shown *out, char why[256])
{
    const td_text_place *place = &texts[text].place;
    tandem_document *document;
    tandem_reader reader;
    tandem_slice bytes;
    char said[TANDEM_WHY_BYTES] = "";
    tandem_err err;

    memset(out, 0, sizeof(*out));
    /* Of a document that is not there nobody says as of when. */
    if ((err = tandem_document_head(reactor, place->collection, place->document, timeout_ms,
                                    &out->position, NULL, NULL)) != TANDEM_OK)
        return err;
    err = tandem_document_read(reactor, place->collection, place->document, place->branch,
                               place->scope, timeout_ms, &document, said);
    if (err != TANDEM_OK) {
        snprintf(why, 256, "it cannot be read: %s", said);
        return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
    }
    out->is_there = true;
    out->operations = tandem_document_operations(document);
    out->position = tandem_document_position(document);
    reader = tandem_reader_of(tandem_document_state(document));
    err = tandem_read_string(&reader, &bytes);
    if (err == TANDEM_OK)
        err = td_marks_read(bytes, &out->marks, &out->count);
    if (err == TANDEM_E_STATE || err == TANDEM_E_PAYLOAD) {
        snprintf(why, 256, "it shows what nobody types");
        err = TANDEM_E_STATE;
    }
    tandem_document_free(document);
    return err;
}

/* The first thing that cannot be is kept. */
static void note(struct workload *workload, unsigned text, uint64_t number, const char *why)
{
    if (workload->err == TANDEM_OK)
        snprintf(workload->why, sizeof(workload->why), "%s/%s, read for job %" PRIu64 ": %.200s",
                 texts[text].place.collection, texts[text].place.document, number, why);
    workload->err = TANDEM_E_STATE;
}

/* ---- Typing ---- */

/* Has the job another edit? What it inserts is written as it was typed. */
static bool edit(struct workload *workload, size_t at, size_t deleted, size_t inserted,
                 bool backwards)
{
    tandem_writer *out = &workload->bytes;
    char text[PASTE * TD_MARK_BYTES_MAX];
    const td_edit *made;
    size_t size = 0;

    if (workload->err == TANDEM_E_NOMEM || workload->count == EDITS_MAX || (!deleted && !inserted))
        return false;
    if (td_typing_edit(workload->typing, at, deleted, inserted, backwards, &made) != TANDEM_OK) {
        workload->err = TANDEM_E_NOMEM;
        return false;
    }
    for (uint32_t i = 0; i < made->count; i++)
        size += td_mark_write(made->first + i, text + size);
    tandem_write_map(out, 1 + (deleted > 0) + (inserted > 0));
    tandem_write_text(out, "at");
    tandem_write_uint(out, at);
    if (deleted) {
        tandem_write_text(out, "delete");
        tandem_write_uint(out, deleted);
    }
    if (inserted) {
        tandem_write_text(out, "insert");
        tandem_write_string(out, tandem_slice_of(text, size));
    }
    if (tandem_writer_err(out) != TANDEM_OK)
        workload->err = TANDEM_E_NOMEM;
    workload->inputs[workload->count] = (tandem_input){.type = "text.EDIT"};
    workload->ends[workload->count++] = out->size;
    return true;
}

/* A place where others may be, too. */
static size_t draw_place(const struct workload *workload, uint64_t *state)
{
    size_t length = td_typing_length(workload->typing), at;

    switch (td_plan_draw_below(state, 8)) {
    case 0:
        return 0;
    case 1:
        return length;
    case 2:
        return length / 2;
    case 3:
    case 4:
    case 5:
        at = td_typing_cursor_of_other(workload->typing);
        return at == TD_NOWHERE ? length / 2 : at;
    default:
        return td_plan_draw_below(state, length + 1);
    }
}

/* Where the author has typed last, or another place. */
static size_t draw_cursor(const struct workload *workload, uint64_t *state, bool *backwards)
{
    size_t at = td_typing_cursor(workload->typing, backwards);

    if (at != TD_NOWHERE)
        return at;
    *backwards = td_plan_draw_below(state, 2);
    return draw_place(workload, state);
}

static void delete_some(struct workload *workload, uint64_t *state, size_t at, uint64_t count_max)
{
    size_t length = td_typing_length(workload->typing);
    size_t count = 1 + td_plan_draw_below(state, count_max);

    if (at == length && at > 0)
        at--;
    edit(workload, at, count < length - at ? count : length - at, 0, false);
}

/* Edits one after the other: typing on, forwards or backwards, taking back, going elsewhere. */
static void type_along(struct workload *workload, uint64_t *state, size_t count)
{
    bool backwards;
    size_t at = draw_cursor(workload, state, &backwards);

    while (count--) {
        size_t dice = td_plan_draw_below(state, 20), inserted = 1 + td_plan_draw_below(state, 3);

        if (dice == 0) {
            at = draw_place(workload, state);
            backwards = td_plan_draw_below(state, 2);
        }
        if (dice <= 2 && at > 0) {
            edit(workload, --at, 1, 0, backwards);
        } else if (dice == 3 && at < td_typing_length(workload->typing)) {
            edit(workload, at, 1, inserted, backwards);
            at += backwards ? 0 : inserted;
        } else {
            edit(workload, at, 0, inserted, backwards);
            at += backwards ? 0 : inserted;
        }
    }
}

/* Much at once. */
static void do_much(struct workload *workload, uint64_t *state)
{
    size_t length = td_typing_length(workload->typing);

    if (length > LENGTH_MAX / 2)
        edit(workload, length / 4, length / 2, 0, false);
    else if (td_plan_draw_below(state, 2))
        edit(workload, draw_place(workload, state), 0, PASTE, false);
    else
        type_along(workload, state, EDITS_MAX);
}

static void draw_edits(struct workload *workload, uint64_t *state)
{
    size_t length = td_typing_length(workload->typing), at;
    unsigned dice = (unsigned)td_plan_draw_below(state, 100);
    bool backwards;

    if (length > LENGTH_MAX || dice < 3) {
        do_much(workload, state);
    } else if (dice < 55) {
        at = draw_cursor(workload, state, &backwards);
        edit(workload, at, 0, 1 + td_plan_draw_below(state, 6), backwards);
    } else if (dice < 65) {
        at = draw_place(workload, state);
        backwards = td_plan_draw_below(state, 2);
        edit(workload, at, 0, 1 + td_plan_draw_below(state, 6), backwards);
    } else if (dice < 75) {
        delete_some(workload, state, draw_place(workload, state), 8);
    } else if (dice < 82) {
        at = draw_place(workload, state);
        edit(workload, at, at < length, 1 + td_plan_draw_below(state, 4), false);
    } else {
        type_along(workload, state, 2 + td_plan_draw_below(state, 8));
    }
    /* There was nothing to delete. */
    if (!workload->count)
        edit(workload, 0, 0, 3, false);
}

/* What its author sees, and types having seen that. */
static void write_having_seen(struct workload *workload, unsigned text, tandem_reactor *reactor,
                              uint64_t number, uint64_t *state, tandem_job *job)
{
    struct shown shown;
    char why[256];
    tandem_err err = show(text, reactor, READ_MS, &shown, why);
    td_view view = {.marks = {shown.marks, shown.count},
                    .operations = shown.operations,
                    .is_new = !shown.is_there};

    if (err == TANDEM_OK)
        err = td_typing_look(workload->typing, text, view.marks, why);
    if (err == TANDEM_E_STATE)
        note(workload, text, number, why);
    if (err == TANDEM_OK) {
        view.origin = tandem_reactor_origin(reactor);
        job->has_expect = true;
        job->expect_position = shown.position;
    }
    if (td_typing_begin(workload->typing, number, text, err == TANDEM_OK ? &view : NULL) !=
        TANDEM_OK)
        workload->err = TANDEM_E_NOMEM;
    free(shown.marks);
    if (err == TANDEM_OK)
        draw_edits(workload, state);
    else
        edit(workload, 0, 0, 1 + td_plan_draw_below(state, 6), false);
}

/* At the beginning, whatever stands there. */
static void write_blindly(struct workload *workload, unsigned text, uint64_t number,
                          uint64_t *state)
{
    if (td_typing_begin(workload->typing, number, text, NULL) != TANDEM_OK)
        workload->err = TANDEM_E_NOMEM;
    edit(workload, 0, 0, 1 + td_plan_draw_below(state, 6), false);
}

static unsigned draw_text(uint64_t *state)
{
    unsigned dice = (unsigned)td_plan_draw_below(state, 100), text = 0;

    while (text < TEXTS - 1 && dice >= texts[text].share)
        dice -= texts[text++].share;
    return text;
}

static void workload_job(void *context, tandem_reactor *reactor, uint64_t number, uint64_t random,
                         tandem_job *job)
{
    struct workload *workload = context;
    uint64_t state = random;
    unsigned text = draw_text(&state);
    const td_text_place *place = &texts[text].place;

    *job = (tandem_job){.collection = place->collection,
                        .document = place->document,
                        .branch = place->branch,
                        .operations = workload->inputs};
    if (!number)
        return;
    if (texts[text].is_deleted && td_plan_draw_below(&state, 12) == 0) {
        td_typing_deleted(workload->typing, text);
        return;
    }
    workload->count = 0;
    tandem_writer_clear(&workload->bytes);
    if (td_plan_draw_below(&state, 25) == 0)
        write_blindly(workload, text, number, &state);
    else
        write_having_seen(workload, text, reactor, number, &state, job);
    if (workload->err == TANDEM_E_NOMEM) {
        workload->inputs[0] = (tandem_input){.type = "text.EDIT", .json = "{}"}; /* is refused */
        workload->ends[0] = 0;
        workload->count = 1;
    }
    for (size_t i = 0, at = 0; i < workload->count; at = workload->ends[i++]) {
        workload->inputs[i].scope = place->scope;
        workload->inputs[i].input =
            tandem_slice_of(workload->bytes.bytes + at, workload->ends[i] - at);
    }
    job->count = workload->count;
}

static void workload_outcome(void *context, uint64_t number, tandem_outcome outcome)
{
    td_typing_outcome(((struct workload *)context)->typing, number, outcome);
}

/* ---- In the end ---- */

static tandem_err check_text(struct workload *workload, unsigned text, tandem_reactor *reactor,
                             char why[256])
{
    const td_text_place *place = &texts[text].place;
    struct shown shown;
    char said[256] = "";
    tandem_err err = show(text, reactor, UINT64_MAX, &shown, said);
    td_marks marks = {shown.marks, shown.count};

    if (err == TANDEM_OK &&
        (err = td_typing_look(workload->typing, text, marks, said)) == TANDEM_OK &&
        (err = td_text_account(workload->typing, text, place, reactor, marks, said)) == TANDEM_OK)
        err = td_typing_order(workload->typing, text, marks, said);
    free(shown.marks);
    if (err == TANDEM_OK || err == TANDEM_E_NOMEM)
        return err;
    snprintf(why, 256, "%s/%s (%s, %s): %.200s", place->collection, place->document, place->branch,
             place->scope, said);
    return TANDEM_E_STATE;
}

static tandem_err workload_check(void *context, tandem_reactor *reactor, char why[256])
{
    struct workload *workload = context;
    tandem_err err = workload->err;

    if (err == TANDEM_E_STATE)
        snprintf(why, 256, "%s", workload->why);
    for (unsigned i = 0; i < TEXTS && err == TANDEM_OK; i++)
        err = check_text(workload, i, reactor, why);
    return err;
}

const tandem_workload *tandem_text_workload(void)
{
    /* Few, so that one is often in several shares. */
    static const char *const documents[] = {"essay", "memo", "scrap", "e*", "[ms]*", "*", NULL};
    static const tandem_workload workload = {
        .open = workload_open,
        .job = workload_job,
        .outcome = workload_outcome,
        .check = workload_check,
        .free = workload_free,
        .name = "text",
        .documents = documents,
        .reactors_min = 5,
    };

    return &workload;
}
