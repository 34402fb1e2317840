#include "sync/text_account.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/clock.h"

enum { NAMES_BACK_MAX = TANDEM_JOB_OPERATIONS_MAX - 1 };

/* How an operation names another one that is not there. */
struct name {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t hlc; /* 0: by its seq */
    uint64_t seq;
};

/* An operation of the text, in total order. */
struct told {
    struct name name; /* both hlc and seq */
    bool is_create; /* no edit; else … */
    td_mark first;
    uint32_t count;
    bool counts;       /* for something: else … */
    bool is_former;    /* it is of an earlier life, */
    struct name lacks; /* or this is not there for it */
};

struct account {
    td_typing *typing;
    unsigned text;
    struct told *told;
    size_t count, capacity;
    bool *inserted, *deleted; /* by mark: by what counts */
    bool *held;  /* by edit */
    size_t unread; /* they only delete, and come to nothing: whose they are is not known */
    td_mark *deletes; /* of the present operation */
    size_t delete_count, delete_capacity;
    char *why;
};

static tandem_err wrong(const struct account *account, const struct told *told, const char *what)
{
    snprintf(account->why, 256, "operation %" PRIu64 " at %" PRIu64 " ms %s", told->name.seq,
             td_hlc_ms(told->name.hlc), what);
    return TANDEM_E_STATE;
}

/* ---- Names ---- */

static bool is_named(const struct told *told, const struct name *name)
{
    return !memcmp(told->name.origin, name->origin, TANDEM_ORIGIN_BYTES) &&
           (name->hlc ? told->name.hlc == name->hlc : told->name.seq == name->seq);
}

/* By its HLC the first that inserted anything; of the same job, by its seq, the last. */
static const struct told *find(const struct account *account, const struct name *name)
{
    const struct told *found = NULL;

    for (size_t i = 0; i < account->count; i++) {
        const struct told *told = &account->told[i];

        if (!told->count || !told->counts || !is_named(told, name))
            continue;
        found = told;
        if (name->hlc)
            break;
    }
    return found;
}

/* The number that stands for an operation: its HLC, or how many before this one it is. */
static struct name name_of(const struct told *told, const uint8_t *origin, uint64_t number)
{
    struct name name = {.hlc = number};

    memcpy(name.origin, origin, TANDEM_ORIGIN_BYTES);
    if (number <= NAMES_BACK_MAX)
        name = (struct name){.seq = told->name.seq - number};
    if (number <= NAMES_BACK_MAX)
        memcpy(name.origin, told->name.origin, TANDEM_ORIGIN_BYTES);
    return name;
}

/* Characters of an operation; NULL in *out: it is not there. */
static tandem_err follow(const struct account *account, struct told *told, const uint8_t *origin,
                         uint64_t number, uint64_t offset, uint64_t count,
                         const struct told **out)
{
    struct name name = name_of(told, origin, number);

    *out = told->is_former ? NULL : find(account, &name);
    if (!*out) {
        if (told->counts)
            told->lacks = name;
        told->counts = false;
        return TANDEM_OK;
    }
    if (!count || offset >= (*out)->count || count > (*out)->count - offset)
        return wrong(account, told, "names characters that the operation which it names has not");
    return TANDEM_OK;
}

/* ---- Words ---- */

/* Of one that inserts. */
static const td_edit *edit_of(const struct account *account, const struct told *told)
{
    return td_typing_edit_at(account->typing, td_typing_edit_of(account->typing, told->first));
}

static tandem_err read_origin(tandem_reader *reader, const struct told *told, const uint8_t **out)
{
    tandem_item item;

    *out = told->name.origin;
    if (tandem_read(reader, &item) != TANDEM_OK ||
        (item.kind != TANDEM_NIL &&
         (item.kind != TANDEM_BINARY || item.bytes.size != TANDEM_ORIGIN_BYTES)))
        return TANDEM_E_PAYLOAD;
    if (item.kind == TANDEM_BINARY)
        *out = item.bytes.bytes;
    return TANDEM_OK;
}

/* Fugue's rule: behind its left neighbour, if nothing is behind that yet. */
static tandem_err check_behind(const struct account *account, const struct told *told,
                               td_mark anchor)
{
    const td_edit *edit = edit_of(account, told);

    if (edit->behind != anchor)
        return wrong(account, told, "is behind another character than its author typed it behind");
    if (edit->sees_behind)
        return wrong(account, told, "is right behind a character with another one behind it");
    return TANDEM_OK;
}

static tandem_err read_anchor(const struct account *account, struct told *told,
                              tandem_reader *reader)
{
    const uint8_t *origin = told->name.origin;
    const struct told *anchor;
    uint64_t side, offset, number;
    tandem_item item;
    tandem_err err;

    if (tandem_read(reader, &item) != TANDEM_OK)
        return TANDEM_E_PAYLOAD;
    if (item.kind == TANDEM_NIL)
        return told->count ? check_behind(account, told, 0) : TANDEM_OK;
    if (item.kind != TANDEM_ARRAY || item.count < 3 ||
        tandem_read_uint(reader, &side) != TANDEM_OK ||
        tandem_read_uint(reader, &offset) != TANDEM_OK ||
        tandem_read_uint(reader, &number) != TANDEM_OK ||
        (item.count > 3 && read_origin(reader, told, &origin) != TANDEM_OK))
        return TANDEM_E_PAYLOAD;
    err = follow(account, told, origin, number, offset, 1, &anchor);
    return err == TANDEM_OK && anchor && !side
               ? check_behind(account, told, anchor->first + (td_mark)offset)
               : err;
}

static tandem_err add_deletes(struct account *account, td_mark first, uint64_t count)
{
    if (account->delete_count + count > account->delete_capacity) {
        size_t capacity = 2 * (account->delete_count + count);
        td_mark *grown = realloc(account->deletes, capacity * sizeof(*grown));

        if (!grown)
            return TANDEM_E_NOMEM;
        account->deletes = grown;
        account->delete_capacity = capacity;
    }
    while (count--)
        account->deletes[account->delete_count++] = first++;
    return TANDEM_OK;
}

static tandem_err read_block(struct account *account, struct told *told, tandem_reader *reader)
{
    uint64_t number = 0, further, offset, size;
    const struct told *named;
    const uint8_t *origin;
    uint32_t count;
    tandem_err err;

    if (tandem_read_array(reader, &count) != TANDEM_OK || count % 3 != 1 ||
        read_origin(reader, told, &origin) != TANDEM_OK)
        return TANDEM_E_PAYLOAD;
    for (; count > 1; count -= 3) {
        if (tandem_read_uint(reader, &further) != TANDEM_OK ||
            tandem_read_uint(reader, &offset) != TANDEM_OK ||
            tandem_read_uint(reader, &size) != TANDEM_OK)
            return TANDEM_E_PAYLOAD;
        number += further;
        if ((err = follow(account, told, origin, number, offset, size, &named)) != TANDEM_OK)
            return err;
        if (named &&
            (err = add_deletes(account, named->first + (uint32_t)offset, size)) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

/* Is it the first of a job that begins the document? */
static bool begins(const struct account *account, const struct told *told)
{
    struct name create = {.seq = told->name.seq - 1};
    bool found = false;

    memcpy(create.origin, told->name.origin, TANDEM_ORIGIN_BYTES);
    for (size_t i = 0; i < account->count && !found; i++)
        found = account->told[i].is_create && is_named(&account->told[i], &create);
    return found;
}

/* What it inserts is what somebody typed in one edit. */
static tandem_err read_inserted(struct account *account, struct told *told, tandem_slice text)
{
    const td_edit *edit;
    size_t count, number;
    td_mark *marks;
    tandem_err err = td_marks_read(text, &marks, &count);

    if (err != TANDEM_OK)
        return err == TANDEM_E_STATE ? wrong(account, told, "inserts what nobody types") : err;
    if (count) {
        told->first = marks[0];
        told->count = (uint32_t)count;
    }
    number = count ? td_typing_edit_of(account->typing, marks[0]) : TD_NOWHERE;
    edit = number == TD_NOWHERE ? NULL : td_typing_edit_at(account->typing, number);
    if (count && (!edit || edit->text != account->text || edit->first != marks[0] ||
                  edit->count != count))
        err = wrong(account, told, "inserts what nobody has typed there");
    for (size_t i = 1; i < count && err == TANDEM_OK; i++)
        if (marks[i] != marks[0] + i)
            err = wrong(account, told, "inserts in another order than was typed");
    if (edit && err == TANDEM_OK && begins(account, told))
        td_typing_unsee(account->typing, edit->job);
    if (edit && err == TANDEM_OK) {
        if (account->held[number])
            err = wrong(account, told, "inserts what another one has inserted");
        else if (td_typing_has_failed(account->typing, edit))
            err = wrong(account, told, "is of a job that was reported as failed");
        account->held[number] = true;
    }
    free(marks);
    return err;
}

/* ---- What they come to ---- */

static int mark_compare(const void *a, const void *b)
{
    td_mark x = *(const td_mark *)a, y = *(const td_mark *)b;

    return x < y ? -1 : x > y;
}

static bool deletes(const struct account *account, const td_edit *edit)
{
    return edit->deleted_count == account->delete_count &&
           (!account->delete_count || !memcmp(edit->deleted, account->deletes,
                                              account->delete_count * sizeof(td_mark)));
}

/* Whoever wanted just this is its author, as far as it matters: first who knows that it was done.
 * */
static bool find_deleting(struct account *account, bool durable)
{
    for (size_t i = 0; i < td_typing_edits(account->typing); i++) {
        const td_edit *edit = td_typing_edit_at(account->typing, i);

        if (edit->text == account->text && !edit->count && !account->held[i] &&
            !td_typing_has_failed(account->typing, edit) &&
            td_typing_is_durable(account->typing, edit) == durable && deletes(account, edit))
            return account->held[i] = true;
    }
    return false;
}

static tandem_err take(struct account *account, struct told *told)
{
    if (account->delete_count)
        qsort(account->deletes, account->delete_count, sizeof(td_mark), mark_compare);
    if (told->count && !deletes(account, edit_of(account, told)))
        return wrong(account, told, "deletes something else than its author wanted");
    if (!told->count && !find_deleting(account, true) && !find_deleting(account, false))
        return wrong(account, told, "deletes what nobody wanted to");
    for (uint32_t i = 0; i < told->count; i++)
        account->inserted[told->first + i] = true;
    for (size_t i = 0; i < account->delete_count; i++)
        account->deleted[account->deletes[i]] = true;
    return TANDEM_OK;
}

static tandem_err read_words(struct account *account, struct told *told, tandem_slice payload)
{
    tandem_reader reader = tandem_reader_of(payload);
    uint32_t items, blocks = 0;
    tandem_slice text;
    tandem_err err;

    account->delete_count = 0;
    if (tandem_read_array(&reader, &items) != TANDEM_OK || items < 2 ||
        tandem_read_string(&reader, &text) != TANDEM_OK)
        return TANDEM_E_PAYLOAD;
    if ((err = read_inserted(account, told, text)) != TANDEM_OK ||
        (err = read_anchor(account, told, &reader)) != TANDEM_OK)
        return err;
    if (items > 2 && tandem_read_array(&reader, &blocks) != TANDEM_OK)
        return TANDEM_E_PAYLOAD;
    while (blocks-- && err == TANDEM_OK)
        err = read_block(account, told, &reader);
    return err;
}

static bool is_create(const tandem_operation *operation)
{
    return tandem_slice_equal(operation->type, tandem_slice_text("text.CREATE"));
}

static struct name name_itself(const tandem_operation *operation)
{
    struct name name = {.hlc = operation->hlc, .seq = operation->seq};

    memcpy(name.origin, operation->origin, TANDEM_ORIGIN_BYTES);
    return name;
}

static tandem_err add(struct account *account, const tandem_operation *operation)
{
    struct told told = {.name = name_itself(operation),
                        .counts = operation->counts,
                        .is_former = !operation->counts,
                        .is_create = is_create(operation)};
    tandem_err err = TANDEM_OK;

    if (account->count == account->capacity) {
        size_t capacity = account->capacity ? 2 * account->capacity : 256;
        struct told *grown = realloc(account->told, capacity * sizeof(*grown));

        if (!grown)
            return TANDEM_E_NOMEM;
        account->told = grown;
        account->capacity = capacity;
    }
    if (!told.is_create) {
        err = read_words(account, &told, operation->payload);
        if (err == TANDEM_E_PAYLOAD)
            err = wrong(account, &told, "is no edit of a text");
        if (err == TANDEM_OK && told.counts)
            err = take(account, &told);
        account->unread += !told.counts && !told.count;
    }
    account->told[account->count++] = told;
    return err;
}

/* Why does this one come to nothing? */
static tandem_err check_reason(const struct account *account, const struct told *told)
{
    const struct told *named = NULL;

    if (told->counts || told->is_former)
        return TANDEM_OK;
    for (size_t i = 0; i < account->count && !named; i++)
        if (account->told[i].count && is_named(&account->told[i], &told->lacks))
            named = &account->told[i];
    if (!named)
        return td_typing_has_losses(account->typing, account->text)
                   ? TANDEM_OK
                   : wrong(account, told, "names what never was, and comes to nothing");
    if (!named->counts || named > told)
        return TANDEM_OK;
    return wrong(account, told, "comes to nothing, though what it names is there");
}

static tandem_err check_edits(const struct account *account)
{
    size_t missing = 0;

    for (size_t i = 0; i < td_typing_edits(account->typing); i++) {
        const td_edit *edit = td_typing_edit_at(account->typing, i);

        if (edit->text != account->text || account->held[i] ||
            !td_typing_is_durable(account->typing, edit))
            continue;
        missing += !edit->count;
        if (!edit->count && missing <= account->unread)
            continue;
        snprintf(account->why, 256, "job %" PRIu64 " was durable, and what it %s is nowhere",
                 edit->job, edit->count ? "typed" : "deleted");
        return TANDEM_E_STATE;
    }
    return TANDEM_OK;
}

static uint64_t job_of(const struct account *account, td_mark mark)
{
    return td_typing_edit_at(account->typing, td_typing_edit_of(account->typing, mark))->job;
}

/* Those that are shown are just those that were inserted and not deleted. */
static tandem_err check_shown(const struct account *account, td_marks shown)
{
    const char *what = NULL;
    td_mark mark = 0;

    for (size_t i = 0; i < shown.count && !what; i++) {
        mark = shown.all[i];
        if (!account->inserted[mark])
            what = "is shown, though its operation comes to nothing";
        else if (account->deleted[mark])
            what = "is shown, though it was deleted";
        account->inserted[mark] = false; /* seen */
    }
    for (td_mark i = 1; !what && td_typing_edit_of(account->typing, i) != TD_NOWHERE; i++) {
        mark = i;
        if (account->inserted[mark] && !account->deleted[mark])
            what = "is not shown, and nobody has deleted it";
    }
    if (!what)
        return TANDEM_OK;
    snprintf(account->why, 256, "a character of job %" PRIu64 " %s", job_of(account, mark), what);
    return TANDEM_E_STATE;
}

static bool is_of(const tandem_operation *operation, const td_text_place *place)
{
    return tandem_slice_equal(operation->type, tandem_slice_text("text.EDIT")) &&
           tandem_slice_equal(operation->branch, tandem_slice_text(place->branch)) &&
           tandem_slice_equal(operation->scope, tandem_slice_text(place->scope));
}

static tandem_err read_all(struct account *account, const td_text_place *place,
                           tandem_reactor *reactor)
{
    tandem_operations *operations = NULL;
    tandem_operation operation;
    tandem_err err =
        tandem_operations_open(reactor, place->collection, place->document, 0, &operations);

    while (err == TANDEM_OK &&
           (err = tandem_operations_next(operations, &operation)) == TANDEM_OK)
        if (is_create(&operation) || is_of(&operation, place))
            err = add(account, &operation);
    tandem_operations_free(operations);
    return err == TANDEM_END ? TANDEM_OK : err;
}

tandem_err td_text_account(td_typing *typing, unsigned text, const td_text_place *place,
                           tandem_reactor *reactor, td_marks shown, char why[256])
{
    struct account account = {.typing = typing, .text = text, .why = why};
    tandem_err err = TANDEM_E_NOMEM;

    account.inserted = calloc(td_typing_marks(typing), sizeof(bool));
    account.deleted = calloc(td_typing_marks(typing), sizeof(bool));
    account.held = calloc(td_typing_edits(typing) + 1, sizeof(bool));
    if (account.inserted && account.deleted && account.held)
        err = read_all(&account, place, reactor);
    for (size_t i = 0; i < account.count && err == TANDEM_OK; i++)
        err = check_reason(&account, &account.told[i]);
    if (err == TANDEM_OK && (err = check_edits(&account)) == TANDEM_OK)
        err = check_shown(&account, shown);
    free(account.told);
    free(account.inserted);
    free(account.deleted);
    free(account.held);
    free(account.deletes);
    return err;
}
