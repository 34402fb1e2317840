/*
 * text: a text that several people type into, and EDIT.
 *
 * Each character has an id (models/text_sequence.h), and what is inserted is anchored to one: right
 * behind it, or right before it. Which of the two is decided where the edit is made, by the rule of
 * Fugue: behind the character on its left, if nothing is anchored behind that yet, else before the
 * one on its right (Weidner and Kleppmann, The Art of the Fugue: Minimizing Interleaving in
 * Collaborative Text Editing, 2023). There the characters are a tree, and concurrent siblings are
 * ordered by id. Here the fold is in total order, and of siblings the later one stands nearer to
 * its anchor: then *right behind* and *right before* say everything, no tree is kept, and the text
 * is the one that a tree with this order of siblings gives. So what two people insert at one place at the
 * same time never interleaves, typed forwards or backwards; both keep their own order.
 * Of the published lists it is the one that promises that with the least to remember: RGA and YATA
 * mix what is typed backwards.
 *
 * EDIT  {"at": position, "delete": count, "insert": text}, in code points of Unicode; one of the
 *       latter two may be missing. Positions are those of the state when it is executed.
 *
 * What is stored: [text, anchor, deletions]; behind the text what is not needed is missing.
 *
 *   anchor      nil: the beginning; [side, offset, name] or [side, offset, name, origin]. side 0:
 *               behind, 1: before
 *   deletions   an array of [origin or nil, name, offset, count, further, offset, count, …]: so many
 *               characters of one operation after the other; further: by how much its HLC is higher
 *   name        of the operation that inserted the character: its HLC; or up to a million: the operation
 *               so many before this one in its chain, which was committed together with it (its HLC is
 *               not known when the payload is made; HLCs are larger)
 *   origin      missing, or nil: that of this operation
 *
 * An edit of which anything is named that is not there is a no-op: its cause is missing. Deleting what
 * is deleted is not. Two operations of one origin with the same HLC, which forks may bring, are
 * one name: it means the first.
 *
 * Costs: 15 bytes of payload for a character that follows another one of its author, 7 in the same
 * job, 33 where it is somebody else's; 17, 9 and 34 for deleting one. In memory and in snapshots:
 * text_sequence.h, text_snapshot.h. Folding one takes the logarithm of the number of runs.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "reactor/model.h"
#include "reactor/models/text_sequence.h"
#include "reactor/models/text_snapshot.h"
#include "store/planted.h"
#include "store/utf8.h"

enum {
    BEHIND,
    BEFORE,
    NAMES_BACK_MAX = TANDEM_INTENT_INDEX_MAX, /* below every HLC that a clock gives */
    DELETIONS_MAX = 20000,  /* pieces that were typed at once, in one edit */
};

/* Some characters of one operation. */
struct part {
    td_character first;
    uint32_t count;
};

struct text_state {
    td_sequence *sequence;
    td_numbers *stretches; /* scratch: what one edit deletes */
    size_t stretch_count, stretch_capacity;
};

static tandem_err text_open(void **state_out)
{
    struct text_state *text = calloc(1, sizeof(*text));

    if (!text)
        return TANDEM_E_NOMEM;
    if (td_sequence_open(&text->sequence) != TANDEM_OK) {
        free(text);
        return TANDEM_E_NOMEM;
    }
    *state_out = text;
    return TANDEM_OK;
}

static void text_free(void *state)
{
    struct text_state *text = state;

    if (!text)
        return;
    td_sequence_free(text->sequence);
    free(text->stretches);
    free(text);
}

static bool verb_is_edit(tandem_slice verb)
{
    return tandem_slice_equal(verb, tandem_slice_text("EDIT"));
}

/* ---- What a user asks for ---- */

struct edit {
    uint64_t at, deleted;
    tandem_slice inserted;
};

static tandem_err refuse(char *why, const char *sentence)
{
    snprintf(why, 128, "%s", sentence);
    return TANDEM_E_INPUT;
}

static tandem_err read_member(tandem_reader *reader, struct edit *edit, bool *has_at, char *why)
{
    tandem_slice key;

    if (tandem_read_string(reader, &key) != TANDEM_OK)
        return refuse(why, "text.EDIT takes \"at\", \"delete\" and \"insert\"");
    if (tandem_slice_equal(key, tandem_slice_text("at"))) {
        *has_at = true;
        return tandem_read_uint(reader, &edit->at) == TANDEM_OK
                   ? TANDEM_OK
                   : refuse(why, "\"at\" is a position in code points, 0 or more");
    }
    if (tandem_slice_equal(key, tandem_slice_text("delete")))
        return tandem_read_uint(reader, &edit->deleted) == TANDEM_OK
                   ? TANDEM_OK
                   : refuse(why, "\"delete\" is a count of code points, 0 or more");
    if (tandem_slice_equal(key, tandem_slice_text("insert")))
        return tandem_read_string(reader, &edit->inserted) == TANDEM_OK
                   ? TANDEM_OK
                   : refuse(why, "\"insert\" is a string");
    snprintf(why, 128, "text.EDIT has no \"%.*s\"; it takes \"at\", \"delete\" and \"insert\"",
             (int)(key.size < 32 ? key.size : 32), (const char *)key.bytes);
    return TANDEM_E_INPUT;
}

static tandem_err read_edit(tandem_slice input, struct edit *edit, char *why)
{
    tandem_reader reader = tandem_reader_of(input);
    uint32_t members;
    bool has_at = false;
    tandem_err err;

    *edit = (struct edit){.inserted = {NULL, 0}};
    if (tandem_read_map(&reader, &members) != TANDEM_OK)
        return refuse(why, "text.EDIT takes an object");
    for (uint32_t i = 0; i < members; i++)
        if ((err = read_member(&reader, edit, &has_at, why)) != TANDEM_OK)
            return err;
    if (!has_at)
        return refuse(why, "text.EDIT takes \"at\": the position, in code points");
    return TANDEM_OK;
}

static tandem_err check_edit(const td_sequence *sequence, const struct edit *edit,
                             uint64_t *characters_out, char *why)
{
    uint64_t length = td_sequence_length(sequence);

    if (!td_utf8_count(edit->inserted, characters_out))
        return refuse(why, "\"insert\" is not well-formed UTF-8");
    if (!edit->deleted && !edit->inserted.size)
        return refuse(why, "text.EDIT deletes or inserts something");
    if (edit->at <= length && edit->deleted <= length - edit->at)
        return TANDEM_OK;
    snprintf(why, 128, "the text has %llu characters: nothing is to be %s at %llu",
             (unsigned long long)length, edit->at > length ? "edited" : "deleted so far",
             (unsigned long long)edit->at);
    return TANDEM_E_INPUT;
}

/* ---- Making a payload ---- */

static bool is_pretended(const td_sequence *sequence, uint32_t author)
{
    return author == td_sequence_author_count(sequence);
}

/* How an operation names another one. */
static uint64_t name_of(const td_sequence *sequence, const tandem_intent *intent, uint32_t author,
                        const td_insertion *insertion)
{
    return is_pretended(sequence, author) ? intent->index - insertion->seq : insertion->hlc;
}

static bool is_own(const td_sequence *sequence, const tandem_intent *intent, uint32_t author)
{
    return is_pretended(sequence, author) ||
           !memcmp(td_sequence_author(sequence, author)->origin, intent->origin,
                   TANDEM_ORIGIN_BYTES);
}

static void write_anchor(const td_sequence *sequence, const tandem_intent *intent, unsigned side,
                         td_character anchor, tandem_writer *out)
{
    const td_insertion *insertion = td_sequence_insertion_of(sequence, anchor);
    bool own = is_own(sequence, intent, anchor.author);

    tandem_write_array(out, own ? 3 : 4);
    tandem_write_uint(out, side);
    tandem_write_uint(out, anchor.number - insertion->first);
    tandem_write_uint(out, name_of(sequence, intent, anchor.author, insertion));
    if (!own)
        tandem_write_binary(out, tandem_slice_of(td_sequence_author(sequence, anchor.author)->origin,
                                                 TANDEM_ORIGIN_BYTES));
}

static td_character character_of(const td_run_node *run, uint32_t offset)
{
    return (td_character){run->author, run->first + offset};
}

/* Fugue's rule: behind the one on the left, if nothing is behind that yet, else before what follows it,
 * deleted or not. */
static void write_place(const td_sequence *sequence, const tandem_intent *intent, uint64_t at,
                        tandem_writer *out)
{
    const td_run_node *left = NULL, *right;
    uint32_t offset = 0;

    if (at > 0)
        left = td_sequence_at(sequence, at - 1, &offset);
    if (left && offset + 1 < left->count) {
        write_anchor(sequence, intent, BEFORE, character_of(left, offset + 1), out);
    } else if (left && (!left->branched || td_planted(TD_PLANTED_BACKWARDS_MIXED))) {
        write_anchor(sequence, intent, BEHIND, character_of(left, offset), out);
    } else if (!left && !td_sequence_branched(sequence)) {
        tandem_write_nil(out);
    } else {
        right = left ? td_sequence_next(left) : td_sequence_first(sequence);
        assert(right && "something is anchored there");
        write_anchor(sequence, intent, BEFORE, character_of(right, 0), out);
    }
}

/* The visible characters from a position on, operation by operation. TANDEM_E_INPUT: they are too many
 * pieces; TANDEM_E_NOMEM. */
static tandem_err list_parts(const td_sequence *sequence, uint64_t at, uint64_t count,
                             struct part **parts_out, size_t *count_out)
{
    uint32_t offset = 0;
    const td_run_node *run = td_sequence_at(sequence, at, &offset);
    size_t used = 0, capacity = 0;
    struct part *parts = NULL;

    for (; count; run = td_sequence_next(run), offset = 0) {
        while (!run->deleted && offset < run->count && count) {
            td_character first = character_of(run, offset);
            const td_insertion *insertion = td_sequence_insertion_of(sequence, first);
            uint32_t left = insertion->first +
                            td_sequence_insertion_size(sequence, run->author, insertion) -
                            first.number;

            if (left > run->count - offset)
                left = run->count - offset;
            if (left > count)
                left = (uint32_t)count;
            if (used == capacity) {
                struct part *grown = realloc(parts, (capacity + 64) * 2 * sizeof(*grown));

                if (!grown || used == DELETIONS_MAX) {
                    free(grown ? grown : parts);
                    return grown ? TANDEM_E_INPUT : TANDEM_E_NOMEM;
                }
                parts = grown;
                capacity = (capacity + 64) * 2;
            }
            parts[used++] = (struct part){first, left};
            offset += left;
            count -= left;
        }
    }
    *parts_out = parts;
    *count_out = used;
    return used > DELETIONS_MAX ? TANDEM_E_INPUT : TANDEM_OK;
}

/* How many of the parts go into one array: of one author, each of an operation that is not before. */
static size_t block_size(const td_sequence *sequence, const struct part *parts, size_t count)
{
    size_t size = 1;
    const td_insertion *last = td_sequence_insertion_of(sequence, parts[0].first), *next;

    if (is_pretended(sequence, parts[0].first.author))
        return 1;
    for (; size < count && parts[size].first.author == parts[0].first.author; size++, last = next)
        if ((next = td_sequence_insertion_of(sequence, parts[size].first))->hlc < last->hlc)
            break;
    return size;
}

static void write_block(const td_sequence *sequence, const tandem_intent *intent,
                        const struct part *parts, size_t count, tandem_writer *out)
{
    uint32_t author = parts[0].first.author;
    uint64_t before = 0;

    tandem_write_array(out, (uint32_t)(1 + 3 * count));
    if (is_own(sequence, intent, author))
        tandem_write_nil(out);
    else
        tandem_write_binary(out, tandem_slice_of(td_sequence_author(sequence, author)->origin,
                                                 TANDEM_ORIGIN_BYTES));
    for (size_t i = 0; i < count; i++) {
        const td_insertion *insertion = td_sequence_insertion_of(sequence, parts[i].first);
        uint64_t name = name_of(sequence, intent, author, insertion);

        tandem_write_uint(out, name - before);
        tandem_write_uint(out, parts[i].first.number - insertion->first);
        tandem_write_uint(out, parts[i].count);
        before = name;
    }
}

static tandem_err write_deletions(const td_sequence *sequence, const tandem_intent *intent,
                                  const struct edit *edit, tandem_writer *out, char *why)
{
    struct part *parts = NULL;
    size_t count = 0, blocks = 0;
    tandem_err err = list_parts(sequence, edit->at, edit->deleted, &parts, &count);

    if (err == TANDEM_E_INPUT)
        snprintf(why, 128, "that is too much to delete at once: at most %d pieces as they were typed",
                 DELETIONS_MAX);
    if (err == TANDEM_OK) {
        for (size_t i = 0; i < count; i += block_size(sequence, &parts[i], count - i))
            blocks++;
        tandem_write_array(out, (uint32_t)blocks);
        for (size_t i = 0, size; i < count; i += size) {
            size = block_size(sequence, &parts[i], count - i);
            write_block(sequence, intent, &parts[i], size, out);
        }
    }
    free(parts);
    return err;
}

static tandem_err text_prepare(const void *state, const tandem_intent *intent,
                               tandem_writer *payload, char why[128])
{
    const struct text_state *text = state;
    struct edit edit;
    uint64_t characters;
    size_t size = payload->size;
    tandem_err err;

    if (!verb_is_edit(intent->verb))
        return refuse(why, "text has no such operation; it takes EDIT");
    if ((err = read_edit(intent->input, &edit, why)) != TANDEM_OK ||
        (err = check_edit(text->sequence, &edit, &characters, why)) != TANDEM_OK)
        return err;
    tandem_write_array(payload, edit.deleted ? 3 : 2);
    tandem_write_string(payload, edit.inserted);
    if (edit.inserted.size)
        write_place(text->sequence, intent, edit.at, payload);
    else
        tandem_write_nil(payload);
    if (edit.deleted &&
        (err = write_deletions(text->sequence, intent, &edit, payload, why)) != TANDEM_OK) {
        payload->size = size;
        return err;
    }
    return tandem_writer_err(payload);
}

/* ---- Reading one ---- */

/* Who speaks: what a name without an origin means. */
struct speaker {
    uint32_t author; /* TD_NOBODY: nothing of it is there */
    uint32_t of_job; /* of what is up to NAMES_BACK_MAX before it */
    uint64_t seq;
};

struct change {
    tandem_slice inserted;
    uint64_t characters;
    bool before;
    td_character anchor;
};

/* Characters of the operation with this name. TANDEM_E_INPUT: it is not there, or has fewer. */
static tandem_err resolve(const td_sequence *sequence, const struct speaker *speaker,
                          uint32_t author, uint64_t name, uint64_t offset, uint64_t count,
                          td_numbers *out)
{
    const td_insertion *insertion = NULL;
    uint64_t size;

    if (name <= NAMES_BACK_MAX) {
        if (author != speaker->author || name < 1 || name > speaker->seq ||
            speaker->of_job == TD_NOBODY)
            return TANDEM_E_INPUT;
        author = speaker->of_job;
        insertion = td_sequence_find_seq(sequence, author, speaker->seq - name);
    } else if (author != TD_NOBODY) {
        insertion = td_sequence_find(sequence, author, name);
    }
    if (!insertion)
        return TANDEM_E_INPUT;
    size = td_sequence_insertion_size(sequence, author, insertion);
    if (count < 1 || offset >= size || count > size - offset)
        return TANDEM_E_INPUT;
    *out = (td_numbers){author, insertion->first + (uint32_t)offset, (uint32_t)count};
    return TANDEM_OK;
}

/* An origin, or nil: the speaker's. TD_NOBODY: nothing of it is there. */
static tandem_err read_author(const td_sequence *sequence, const struct speaker *speaker,
                              tandem_reader *reader, uint32_t *out)
{
    tandem_item item;

    if (tandem_read(reader, &item) != TANDEM_OK)
        return TANDEM_E_INPUT;
    *out = speaker->author;
    if (item.kind == TANDEM_NIL)
        return TANDEM_OK;
    if (item.kind != TANDEM_BINARY || item.bytes.size != TANDEM_ORIGIN_BYTES)
        return TANDEM_E_INPUT;
    *out = td_sequence_find_author(sequence, item.bytes.bytes);
    return *out == TD_NOBODY ? TANDEM_E_INPUT : TANDEM_OK;
}

static tandem_err read_anchor(const td_sequence *sequence, const struct speaker *speaker,
                              tandem_reader *reader, struct change *change)
{
    uint64_t side, offset, name;
    uint32_t author = speaker->author;
    td_numbers numbers;
    tandem_item item;

    change->anchor = (td_character){TD_NOBODY, 0};
    if (tandem_read(reader, &item) != TANDEM_OK)
        return TANDEM_E_INPUT;
    if (item.kind == TANDEM_NIL)
        return TANDEM_OK;
    if (item.kind != TANDEM_ARRAY || (item.count != 3 && item.count != 4) ||
        tandem_read_uint(reader, &side) != TANDEM_OK || side > BEFORE ||
        tandem_read_uint(reader, &offset) != TANDEM_OK ||
        tandem_read_uint(reader, &name) != TANDEM_OK ||
        (item.count == 4 && read_author(sequence, speaker, reader, &author) != TANDEM_OK) ||
        resolve(sequence, speaker, author, name, offset, 1, &numbers) != TANDEM_OK)
        return TANDEM_E_INPUT;
    change->before = side == BEFORE;
    change->anchor = (td_character){numbers.author, numbers.first};
    return TANDEM_OK;
}

/* One more stretch; it may go on with the last one. */
static tandem_err add_stretch(struct text_state *text, td_numbers numbers)
{
    td_numbers *last = text->stretch_count ? &text->stretches[text->stretch_count - 1] : NULL;

    if (last && last->author == numbers.author && last->first + last->count == numbers.first) {
        last->count += numbers.count;
        return TANDEM_OK;
    }
    if (text->stretch_count == text->stretch_capacity) {
        size_t capacity = text->stretch_capacity ? 2 * text->stretch_capacity : 16;
        td_numbers *grown = realloc(text->stretches, capacity * sizeof(*grown));

        if (!grown)
            return TANDEM_E_NOMEM;
        text->stretches = grown;
        text->stretch_capacity = capacity;
    }
    text->stretches[text->stretch_count++] = numbers;
    return TANDEM_OK;
}

static tandem_err read_block(struct text_state *text, const struct speaker *speaker,
                             tandem_reader *reader)
{
    uint64_t name = 0, further, offset, size;
    uint32_t count, author;
    td_numbers numbers;
    tandem_err err;

    if (tandem_read_array(reader, &count) != TANDEM_OK || count < 4 || count % 3 != 1 ||
        read_author(text->sequence, speaker, reader, &author) != TANDEM_OK)
        return TANDEM_E_INPUT;
    for (uint32_t i = 1; i < count; i += 3) {
        if (tandem_read_uint(reader, &further) != TANDEM_OK ||
            tandem_read_uint(reader, &offset) != TANDEM_OK ||
            tandem_read_uint(reader, &size) != TANDEM_OK ||
            __builtin_add_overflow(name, further, &name) ||
            resolve(text->sequence, speaker, author, name, offset, size, &numbers) != TANDEM_OK)
            return TANDEM_E_INPUT;
        if ((err = add_stretch(text, numbers)) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

static tandem_err read_change(struct text_state *text, const struct speaker *speaker,
                              tandem_slice payload, struct change *change)
{
    tandem_reader reader = tandem_reader_of(payload);
    uint32_t count, blocks = 0;
    tandem_err err = TANDEM_OK;

    *change = (struct change){.before = false};
    text->stretch_count = 0;
    if (tandem_read_array(&reader, &count) != TANDEM_OK || count < 2 || count > 3 ||
        tandem_read_string(&reader, &change->inserted) != TANDEM_OK ||
        !td_utf8_count(change->inserted, &change->characters) ||
        read_anchor(text->sequence, speaker, &reader, change) != TANDEM_OK ||
        (count == 3 && tandem_read_array(&reader, &blocks) != TANDEM_OK))
        return TANDEM_E_INPUT;
    for (uint32_t i = 0; i < blocks && err == TANDEM_OK; i++)
        err = read_block(text, speaker, &reader);
    if (err == TANDEM_OK && (tandem_reader_left(&reader) ||
                             (!change->characters && !text->stretch_count)))
        err = TANDEM_E_INPUT;
    return err;
}

/* ---- Folding ---- */

/* All that can fail has been done but for memory, which is asked for first. */
static tandem_err fold(struct text_state *text, const struct change *change, uint32_t author,
                       uint64_t hlc, uint64_t seq)
{
    tandem_err err = td_sequence_reserve(text->sequence, author, (uint32_t)change->characters,
                                         change->inserted.size, text->stretch_count);

    if (err != TANDEM_OK)
        return err == TANDEM_E_LIMIT ? TANDEM_E_INPUT : err;
    for (size_t i = 0; i < text->stretch_count; i++)
        td_sequence_delete(text->sequence, text->stretches[i]);
    if (change->characters)
        td_sequence_insert(text->sequence, change->anchor, change->before, author, hlc, seq,
                           change->inserted, (uint32_t)change->characters);
    return TANDEM_OK;
}

static tandem_err text_apply(void *state, const tandem_change *operation)
{
    struct text_state *text = state;
    struct speaker speaker = {.seq = operation->seq};
    struct change change;
    tandem_err err;

    if (!verb_is_edit(operation->verb))
        return TANDEM_E_INPUT;
    speaker.author = speaker.of_job = td_sequence_find_author(text->sequence, operation->origin);
    if ((err = read_change(text, &speaker, operation->payload, &change)) != TANDEM_OK)
        return err;
    if (change.characters && (err = td_sequence_add_author(text->sequence, operation->origin,
                                                           &speaker.author)) != TANDEM_OK)
        return err;
    return fold(text, &change, speaker.author, operation->hlc, operation->seq);
}

static tandem_err text_pretend(void *state, const tandem_intent *intent, tandem_slice payload)
{
    struct text_state *text = state;
    struct speaker speaker = {.seq = intent->index};
    struct change change;
    tandem_err err;

    speaker.of_job = td_sequence_pretend(text->sequence);
    speaker.author = td_sequence_find_author(text->sequence, intent->origin);
    if ((err = read_change(text, &speaker, payload, &change)) != TANDEM_OK)
        return err;
    return fold(text, &change, speaker.of_job, intent->index, intent->index);
}

static void text_take_back(void *state)
{
    td_sequence_take_back(((struct text_state *)state)->sequence);
}

/* ---- Out and back in ---- */

static tandem_err text_show(const void *state, tandem_writer *out)
{
    const struct text_state *text = state;
    size_t size = (size_t)td_sequence_bytes(text->sequence), at = 0;
    uint8_t *whole = malloc(size + 1);

    if (!whole)
        return TANDEM_E_NOMEM;
    for (const td_run_node *run = td_sequence_first(text->sequence); run;
         run = td_sequence_next(run)) {
        tandem_slice bytes = td_sequence_text(text->sequence, run);

        if (run->deleted)
            continue;
        memcpy(whole + at, bytes.bytes, bytes.size);
        at += bytes.size;
    }
    assert(at == size);
    tandem_write_string(out, tandem_slice_of(whole, size));
    free(whole);
    return tandem_writer_err(out);
}

static tandem_err text_save(const void *state, tandem_writer *out)
{
    return td_text_save(((const struct text_state *)state)->sequence, out);
}

static tandem_err text_restore(tandem_slice snapshot, void **state_out)
{
    td_sequence *sequence;
    struct text_state *text;
    tandem_err err = td_text_restore(snapshot, &sequence);

    if (err != TANDEM_OK)
        return err;
    if (!(text = calloc(1, sizeof(*text)))) {
        td_sequence_free(sequence);
        return TANDEM_E_NOMEM;
    }
    text->sequence = sequence;
    *state_out = text;
    return TANDEM_OK;
}

const tandem_model tandem_model_text = {
    .size = sizeof(tandem_model),
    .name = "text",
    .version = 1,
    .prepare_reads_state = true,
    .state_open = text_open,
    .state_free = text_free,
    .prepare = text_prepare,
    .apply = text_apply,
    .show = text_show,
    .save = text_save,
    .restore = text_restore,
    .pretend = text_pretend,
    .take_back = text_take_back,
};
