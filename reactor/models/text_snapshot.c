#include "reactor/models/text_snapshot.h"

#include <assert.h>
#include <stdlib.h>

#include "store/planted.h"
#include "store/utf8.h"

enum { DELETED = 1, BRANCHED = 2, LEB_BYTES_MAX = 10 };

/* ---- Numbers ---- */

static void put_number(tandem_writer *out, uint64_t value)
{
    uint8_t bytes[LEB_BYTES_MAX];
    size_t size = 0;

    do
        bytes[size++] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
    while (value >>= 7);
    tandem_write_raw(out, tandem_slice_of(bytes, size));
}

static bool get_number(tandem_slice *from, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; from->size && shift < 64; shift += 7) {
        uint8_t byte = *from->bytes;

        from->bytes++;
        from->size--;
        if (shift == 63 && byte > 1)
            return false;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static uint64_t zigzag(int64_t value)
{
    return (uint64_t)value << 1 ^ (uint64_t)(value >> 63);
}

static int64_t unzigzag(uint64_t value)
{
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

/* ---- Out ---- */

struct step {
    uint64_t hlc, seq, characters;
};

static struct step step_of(const td_sequence *sequence, uint32_t author, size_t i)
{
    const td_author *its = td_sequence_author(sequence, author);
    const td_insertion *before = i ? &its->insertions[i - 1] : NULL;

    return (struct step){
        its->insertions[i].hlc - (before ? before->hlc : 0),
        its->insertions[i].seq - (before ? before->seq : 0), /* of a fork it may be lower: it wraps */
        td_sequence_insertion_size(sequence, author, &its->insertions[i])};
}

static bool same_step(struct step a, struct step b)
{
    return a.hlc == b.hlc && a.seq == b.seq && a.characters == b.characters;
}

static void save_insertions(const td_sequence *sequence, uint32_t author, tandem_writer *out)
{
    const td_author *its = td_sequence_author(sequence, author);

    for (size_t i = 0, end; i < its->insertion_count; i = end) {
        struct step step = step_of(sequence, author, i);

        for (end = i + 1; end < its->insertion_count; end++)
            if (!same_step(step, step_of(sequence, author, end)))
                break;
        put_number(out, end - i);
        put_number(out, step.hlc);
        put_number(out, step.seq);
        put_number(out, step.characters);
    }
}

/* Could they be one run? */
static bool are_one(const td_run_node *run, const td_run_node *next)
{
    return next && run->author == next->author && run->deleted == next->deleted && run->branched &&
           run->first + run->count == next->first;
}

static tandem_err save_runs(const td_sequence *sequence, tandem_writer *out)
{
    uint32_t authors = td_sequence_author_count(sequence);
    uint64_t *ends = calloc(authors + 1, sizeof(*ends));

    if (!ends)
        return TANDEM_E_NOMEM;
    for (const td_run_node *run = td_sequence_first(sequence), *next; run; run = next) {
        const td_run_node *last = run;

        while (are_one(last, next = td_sequence_next(last)))
            last = next;
        put_number(out, run->author);
        put_number(out, zigzag((int64_t)run->first - (int64_t)ends[run->author]));
        put_number(out, last->first + last->count - run->first);
        put_number(out, (run->deleted ? DELETED : 0) |
                            (last->branched && !td_planted(TD_PLANTED_BRANCHING_NOT_KEPT) ? BRANCHED
                                                                                          : 0));
        ends[run->author] = last->first + last->count;
    }
    free(ends);
    return TANDEM_OK;
}

static tandem_err save_text(const td_sequence *sequence, tandem_writer *out)
{
    for (const td_run_node *run = td_sequence_first(sequence); run; run = td_sequence_next(run))
        if (!run->deleted)
            tandem_write_raw(out, td_sequence_text(sequence, run));
    return TANDEM_OK;
}

tandem_err td_text_save(const td_sequence *sequence, tandem_writer *out)
{
    uint32_t authors = td_sequence_author_count(sequence);
    tandem_writer part;
    tandem_err err;

    assert(!td_sequence_is_pretending(sequence));
    tandem_writer_init(&part);
    tandem_write_array(out, 4);
    tandem_write_bool(out, td_sequence_branched(sequence));
    tandem_write_array(out, authors);
    for (uint32_t i = 0; i < authors; i++) {
        tandem_writer_clear(&part);
        save_insertions(sequence, i, &part);
        tandem_write_array(out, 2);
        tandem_write_binary(out, tandem_slice_of(td_sequence_author(sequence, i)->origin,
                                                 TANDEM_ORIGIN_BYTES));
        tandem_write_binary(out, tandem_writer_slice(&part));
    }
    tandem_writer_clear(&part);
    if ((err = save_runs(sequence, &part)) == TANDEM_OK) {
        tandem_write_binary(out, tandem_writer_slice(&part));
        err = tandem_writer_err(&part);
        tandem_writer_clear(&part);
    }
    if (err == TANDEM_OK && (err = save_text(sequence, &part)) == TANDEM_OK &&
        (err = tandem_writer_err(&part)) == TANDEM_OK)
        tandem_write_string(out, tandem_writer_slice(&part));
    tandem_writer_release(&part);
    return err == TANDEM_OK ? tandem_writer_err(out) : err;
}

/* ---- Back in ---- */

/* One group of insertions. */
static tandem_err restore_group(td_author *author, tandem_slice *from)
{
    uint64_t repeat, hlc, seq, characters;

    if (!get_number(from, &repeat) || !get_number(from, &hlc) || !get_number(from, &seq) ||
        !get_number(from, &characters) || !repeat || !characters ||
        characters > TD_TEXT_CHARACTERS_MAX ||
        repeat > (TD_TEXT_CHARACTERS_MAX - author->characters) / characters)
        return TANDEM_E_CORRUPT;
    if (author->insertion_count + repeat > author->insertion_capacity) {
        size_t capacity = author->insertion_count + (size_t)repeat + author->insertion_count / 2;
        td_insertion *grown = realloc(author->insertions, capacity * sizeof(*grown));

        if (!grown)
            return TANDEM_E_NOMEM;
        author->insertions = grown;
        author->insertion_capacity = capacity;
    }
    for (; repeat; repeat--) {
        const td_insertion *before =
            author->insertion_count ? &author->insertions[author->insertion_count - 1] : NULL;
        td_insertion next = {.hlc = hlc, .seq = seq, .first = author->characters};

        if (before && __builtin_add_overflow(before->hlc, hlc, &next.hlc))
            return TANDEM_E_CORRUPT;
        if (before)
            next.seq += before->seq;
        author->insertions[author->insertion_count++] = next;
        author->characters += (uint32_t)characters;
    }
    return TANDEM_OK;
}

static tandem_err restore_authors(td_sequence *sequence, tandem_reader *reader)
{
    uint32_t count, members, author;
    tandem_slice origin, insertions;
    tandem_err err;

    if (tandem_read_array(reader, &count) != TANDEM_OK)
        return TANDEM_E_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        if (tandem_read_array(reader, &members) != TANDEM_OK || members != 2 ||
            tandem_read_binary(reader, &origin) != TANDEM_OK ||
            origin.size != TANDEM_ORIGIN_BYTES ||
            tandem_read_binary(reader, &insertions) != TANDEM_OK)
            return TANDEM_E_CORRUPT;
        if ((err = td_sequence_add_author(sequence, origin.bytes, &author)) != TANDEM_OK)
            return err;
        if (author != i)
            return TANDEM_E_CORRUPT;
        while (insertions.size)
            if ((err = restore_group(td_sequence_author(sequence, i), &insertions)) != TANDEM_OK)
                return err;
    }
    return TANDEM_OK;
}

/* One run as it was written: pieces that are short enough. text: what is left of it. */
static tandem_err restore_run(td_sequence *sequence, td_run_node run, uint64_t count, bool branched,
                              tandem_slice *text)
{
    tandem_err err = TANDEM_OK;

    while (count && err == TANDEM_OK) {
        run.count = count < TD_RUN_CHARACTERS_MAX ? (uint32_t)count : TD_RUN_CHARACTERS_MAX;
        count -= run.count;
        run.branched = count || branched;
        run.bytes = 0;
        for (uint32_t i = 0; !run.deleted && i < run.count; i++) {
            size_t size = text->size > run.bytes
                              ? td_utf8_size(text->bytes + run.bytes, text->size - run.bytes)
                              : 0;

            if (!size)
                return TANDEM_E_CORRUPT;
            run.bytes += (uint32_t)size;
        }
        text->bytes += run.bytes;
        text->size -= run.bytes;
        err = td_sequence_append(sequence, &run);
        run.bytes_at += run.bytes;
        run.first += run.count;
    }
    return err;
}

static tandem_err restore_runs(td_sequence *sequence, tandem_slice runs, tandem_slice text)
{
    uint32_t authors = td_sequence_author_count(sequence);
    uint64_t *ends = calloc(authors + 1, sizeof(*ends)), all = 0;
    const uint8_t *begin = text.bytes;
    tandem_err err = ends ? TANDEM_OK : TANDEM_E_NOMEM;

    while (runs.size && err == TANDEM_OK) {
        uint64_t author, step, count, flags;
        int64_t first;

        err = TANDEM_E_CORRUPT;
        if (!get_number(&runs, &author) || author >= authors || !get_number(&runs, &step) ||
            !get_number(&runs, &count) || !count || !get_number(&runs, &flags) ||
            flags > (DELETED | BRANCHED) ||
            __builtin_add_overflow((int64_t)ends[author], unzigzag(step), &first) || first < 0 ||
            (uint64_t)first > td_sequence_author(sequence, (uint32_t)author)->characters ||
            count > td_sequence_author(sequence, (uint32_t)author)->characters - (uint64_t)first ||
            (all += count) > TD_TEXT_CHARACTERS_MAX)
            break;
        ends[author] = (uint64_t)first + count;
        /* Where it stands in the text is where it stands in its author's until that is known. */
        err = restore_run(sequence,
                          (td_run_node){.author = (uint32_t)author,
                                        .first = (uint32_t)first,
                                        .bytes_at = (uint64_t)(text.bytes - begin),
                                        .deleted = flags & DELETED},
                          count, flags & BRANCHED, &text);
    }
    free(ends);
    return err == TANDEM_OK && text.size ? TANDEM_E_CORRUPT : err;
}

/* Each author's text, in the order of its numbers. */
static tandem_err restore_texts(td_sequence *sequence, tandem_slice text)
{
    for (uint32_t i = 0; i < td_sequence_author_count(sequence); i++) {
        td_author *author = td_sequence_author(sequence, i);
        uint64_t size = 0;

        for (td_run_node *piece = author->first_piece; piece; piece = piece->next_piece)
            size += piece->bytes;
        if (!(author->text = malloc((size_t)size + 1)))
            return TANDEM_E_NOMEM;
        author->text_capacity = size + 1;
        for (td_run_node *piece = author->first_piece; piece; piece = piece->next_piece) {
            memcpy(author->text + author->text_size, text.bytes + piece->bytes_at, piece->bytes);
            piece->bytes_at = author->text_size;
            author->text_size += piece->bytes;
        }
    }
    return TANDEM_OK;
}

tandem_err td_text_restore(tandem_slice snapshot, td_sequence **out)
{
    tandem_reader reader = tandem_reader_of(snapshot);
    td_sequence *sequence = NULL;
    tandem_slice runs, text;
    uint32_t count;
    bool branched;
    tandem_err err;

    if (tandem_read_array(&reader, &count) != TANDEM_OK || count != 4 ||
        tandem_read_bool(&reader, &branched) != TANDEM_OK)
        return TANDEM_E_CORRUPT;
    if ((err = td_sequence_open(&sequence)) != TANDEM_OK)
        return err;
    td_sequence_set_branched(sequence, branched);
    if ((err = restore_authors(sequence, &reader)) == TANDEM_OK &&
        (tandem_read_binary(&reader, &runs) != TANDEM_OK ||
         tandem_read_string(&reader, &text) != TANDEM_OK || tandem_reader_left(&reader)))
        err = TANDEM_E_CORRUPT;
    if (err == TANDEM_OK && (err = restore_runs(sequence, runs, text)) == TANDEM_OK &&
        (err = td_sequence_link(sequence)) == TANDEM_OK)
        err = restore_texts(sequence, text);
    if (err == TANDEM_OK)
        *out = sequence;
    else
        td_sequence_free(sequence);
    return err;
}
