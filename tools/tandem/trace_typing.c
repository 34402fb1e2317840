#include "tools/tandem/trace_typing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tandem/interrupt.h"
#include "tools/tandem/progress.h"

enum {
    JOB_PATCHES = 400,      /* of a job: what follows is another one */
    JOB_TEXT_BYTES = 65536, /* that it inserts */
    WAITING_MAX = 256,      /* jobs that an author may not have yet: each may be a refusal */
};

/* So far was an author when it had written so many transactions. */
struct mark {
    uint64_t seq;
    uint32_t jobs;
};

/* What was typed by one author. */
struct author {
    const cli_transaction **transactions; /* its own, and NULL behind them */
    struct mark *marks;                   /* by how many of them it had; set as it goes */
    uint32_t done;
    uint64_t seq; /* of its last operation */
};

struct typing {
    const cli_recording *recording;
    cli_world *world;
    cli_typed *typed;
    char *why;
    struct author authors[CLI_AUTHORS_MAX];
    const cli_transaction **transactions; /* all authors' */
    struct mark *marks;                   /* the same */
    uint32_t first; /* all recorded before it is typed */
};

/* ---- Who has typed what ---- */

static void typing_release(struct typing *typing)
{
    free(typing->transactions);
    free(typing->marks);
}

static tandem_err typing_init(struct typing *typing)
{
    const cli_recording *recording = typing->recording;
    uint32_t counts[CLI_AUTHORS_MAX] = {0};
    size_t places = (size_t)recording->transaction_count + recording->authors;
    const cli_transaction **transactions = calloc(places, sizeof(*transactions));
    struct mark *marks = calloc(places, sizeof(*marks));

    typing->transactions = transactions;
    typing->marks = marks;
    if (!transactions || !marks) {
        typing_release(typing);
        return TANDEM_E_NOMEM;
    }
    for (uint32_t i = 0; i < recording->transaction_count; i++)
        counts[recording->transactions[i].author]++;
    for (uint32_t a = 0; a < recording->authors; a++) {
        typing->authors[a] = (struct author){.transactions = transactions, .marks = marks};
        transactions += counts[a] + 1;
        marks += counts[a] + 1;
        counts[a] = 0;
    }
    for (uint32_t i = 0; i < recording->transaction_count; i++) {
        uint32_t a = recording->transactions[i].author;

        typing->authors[a].transactions[counts[a]++] = &recording->transactions[i];
    }
    return TANDEM_OK;
}

/* What an author writes next; NULL: nothing. */
static const cli_transaction *next_of(const struct typing *typing, uint32_t author)
{
    return typing->authors[author].transactions[typing->authors[author].done];
}

/* ---- What an author may have, and must have ---- */

/* What follows was written after seeing whatever the next one was, so that alone is looked at. */
static tandem_err admit(struct typing *typing, uint32_t from, uint32_t to)
{
    const struct author *writer = &typing->authors[from];
    const cli_transaction *next = next_of(typing, to);
    /* A job ends where somebody saw the text: of what is written next, all or nothing was seen. */
    bool sees_next = !next || next->seen[from] > writer->done;

    return typing->world->ops->admit(typing->world, from, to,
                                     sees_next ? UINT64_MAX : writer->marks[next->seen[from]].seq);
}

/* Whatever hangs on how far an author has come. */
static tandem_err admit_around(struct typing *typing, uint32_t author)
{
    tandem_err err = TANDEM_OK;

    for (uint32_t a = 0; a < typing->recording->authors && err == TANDEM_OK; a++)
        if (a != author && (err = admit(typing, author, a)) == TANDEM_OK)
            err = admit(typing, a, author);
    return err;
}

/* What its author had seen is to be there. Nothing else was admitted, so it is enough to count. */
static tandem_err catch_up(struct typing *typing, const cli_transaction *transaction)
{
    uint64_t operations = 0;

    for (uint32_t a = 0; a < typing->recording->authors; a++)
        operations += typing->authors[a].marks[transaction->seen[a]].seq;
    return typing->world->ops->catch_up(typing->world, transaction->author, operations,
                                        typing->why);
}

/* ---- Jobs ---- */

static bool is_nothing(const cli_patch *patch)
{
    return !patch->deleted && !patch->inserted[0];
}

static void write_input(tandem_writer *out, const cli_patch *patch)
{
    tandem_write_map(out, 1 + (patch->deleted > 0) + (patch->inserted[0] != '\0'));
    tandem_write_text(out, "at");
    tandem_write_uint(out, patch->at);
    if (patch->deleted) {
        tandem_write_text(out, "delete");
        tandem_write_uint(out, patch->deleted);
    }
    if (patch->inserted[0]) {
        tandem_write_text(out, "insert");
        tandem_write_text(out, patch->inserted);
    }
}

static tandem_err execute(struct typing *typing, uint32_t author, const cli_patch *patches,
                          uint32_t count)
{
    tandem_input operations[JOB_PATCHES];
    size_t ends[JOB_PATCHES];
    tandem_job job = {.collection = CLI_TRACE_COLLECTION, .document = CLI_TRACE_DOCUMENT,
                      .model = "text", .operations = operations};
    tandem_receipt receipt;
    tandem_writer inputs;
    char why[TANDEM_WHY_BYTES] = "";
    tandem_err err;

    tandem_writer_init(&inputs);
    for (uint32_t i = 0; i < count; i++) {
        if (is_nothing(&patches[i]))
            continue;
        write_input(&inputs, &patches[i]);
        ends[job.count++] = inputs.size;
    }
    for (size_t i = 0; i < job.count; i++) {
        size_t begin = i ? ends[i - 1] : 0;

        operations[i] = (tandem_input){
            .type = "EDIT", .input = tandem_slice_of(inputs.bytes + begin, ends[i] - begin)};
    }
    err = tandem_writer_err(&inputs);
    if (err == TANDEM_OK && job.count) {
        err = tandem_execute(typing->world->ops->reactor(typing->world, author), &job, &receipt,
                             why);
        typing->typed->edits += job.count;
        typing->typed->jobs++;
    }
    if (err == TANDEM_OK && job.count) {
        typing->typed->operations += receipt.seq + 1 - receipt.first_seq;
        typing->authors[author].seq = receipt.seq;
    }
    if (err != TANDEM_OK)
        snprintf(typing->why, 256, "the edit of author %u failed: %s", author, why);
    tandem_writer_release(&inputs);
    return err;
}

/* A transaction of more patches than a job takes is several. */
static tandem_err execute_all(struct typing *typing, uint32_t author, const cli_patch *patches,
                              uint32_t count)
{
    tandem_err err = TANDEM_OK;

    for (uint32_t at = 0; at < count && err == TANDEM_OK; at += JOB_PATCHES)
        err = execute(typing, author, patches + at,
                      count - at < JOB_PATCHES ? count - at : JOB_PATCHES);
    return err;
}

/* How many of an author's transactions are its next job. They stand one behind the other. */
static uint32_t job_size(const struct typing *typing, uint32_t author)
{
    const cli_recording *recording = typing->recording;
    const struct author *writer = &typing->authors[author];
    const cli_transaction *const *next = &writer->transactions[writer->done], *begin = next[0];
    uint32_t count = 1, patches = begin->patch_count;
    size_t bytes = 0;

    for (; next[count] == begin + count && !next[count - 1]->ends_part; count++) {
        for (uint32_t i = 0; i < next[count]->patch_count; i++)
            bytes += strlen(recording->patches[next[count]->first_patch + i].inserted);
        if (patches + next[count]->patch_count > JOB_PATCHES || bytes > JOB_TEXT_BYTES)
            break;
        for (uint32_t a = 0; a < recording->authors; a++)
            if (a != author && next[count]->seen[a] != begin->seen[a])
                return count;
        patches += next[count]->patch_count;
    }
    return count;
}

/* ---- The order ---- */

/* Of how many jobs of others does an author not know when it writes next? */
static uint32_t waiting_for(const struct typing *typing, uint32_t author)
{
    const cli_transaction *next = next_of(typing, author);
    uint32_t waiting = 0;

    for (uint32_t a = 0; next && a < typing->recording->authors; a++) {
        const struct author *other = &typing->authors[a];

        if (a != author && next->seen[a] < other->done)
            waiting += other->marks[other->done].jobs - other->marks[next->seen[a]].jobs;
    }
    return waiting;
}

/* Whoever is to write before this author can: one who has everything that it had seen. */
static uint32_t ready_for(const struct typing *typing, uint32_t author)
{
    for (uint32_t a = 0; a < typing->recording->authors; a++)
        if (next_of(typing, author)->seen[a] > typing->authors[a].done) {
            author = a;
            a = UINT32_MAX; /* from the beginning: what that one had seen is less */
        }
    return author;
}

/* Who writes next? As recorded; but when much waits for one who was away and saw nothing of it, it
 * is that one's turn. As many as there are authors: nobody. */
static uint32_t next_author(struct typing *typing)
{
    const cli_recording *recording = typing->recording;
    const cli_transaction *transactions = recording->transactions;

    for (; typing->first < recording->transaction_count; typing->first++) {
        const cli_transaction *first = &transactions[typing->first];

        if (first->seen[first->author] == typing->authors[first->author].done)
            break;
    }
    if (typing->first == recording->transaction_count)
        return recording->authors;
    for (uint32_t a = 0; a < recording->authors; a++)
        if (waiting_for(typing, a) >= WAITING_MAX)
            return ready_for(typing, a);
    return transactions[typing->first].author;
}

/* ---- The session ---- */

/* The text that was there before is author 0's. Everybody wrote after seeing it. */
static tandem_err begin_text(struct typing *typing)
{
    const cli_patch patch = {.inserted = typing->recording->start};
    tandem_err err = TANDEM_OK;

    for (uint32_t a = 1; a < typing->recording->authors && err == TANDEM_OK; a++)
        err = typing->world->ops->admit(typing->world, 0, a, UINT64_MAX);
    if (err == TANDEM_OK && patch.inserted[0])
        err = execute(typing, 0, &patch, 1);
    typing->authors[0].marks[0].seq = typing->authors[0].seq;
    for (uint32_t a = 0; a < typing->recording->authors && err == TANDEM_OK; a++)
        err = admit_around(typing, a);
    return err;
}

static tandem_err type_job(struct typing *typing, uint32_t number)
{
    struct author *author = &typing->authors[number];
    const cli_transaction *begin = next_of(typing, number);
    uint32_t count = job_size(typing, number), patches = 0;
    uint64_t jobs = typing->typed->jobs;
    tandem_err err;

    for (uint32_t k = 0; k < count; k++)
        patches += begin[k].patch_count;
    if ((err = catch_up(typing, begin)) != TANDEM_OK ||
        (err = execute_all(typing, number, &typing->recording->patches[begin->first_patch],
                           patches)) != TANDEM_OK)
        return err;
    for (uint32_t k = 0; k < count; k++) {
        struct mark *mark = &author->marks[author->done++];

        mark[1] = (struct mark){author->seq,
                                mark->jobs + (k ? 0 : (uint32_t)(typing->typed->jobs - jobs))};
    }
    return admit_around(typing, number);
}

tandem_err cli_type(const cli_call *call, const cli_recording *recording, cli_world *world,
                    cli_typed *out, char why[256])
{
    struct typing typing = {.recording = recording, .world = world, .typed = out, .why = why};
    cli_progress progress;
    uint32_t author;
    tandem_err err;

    memset(out, 0, sizeof(*out));
    if ((err = typing_init(&typing)) != TANDEM_OK)
        return err;
    err = begin_text(&typing);
    cli_progress_begin(&progress, call, 0, "edits");
    while (err == TANDEM_OK && (author = next_author(&typing)) < recording->authors) {
        err = type_job(&typing, author);
        cli_progress_at(&progress, 0, out->edits);
        if (cli_interrupt())
            err = TANDEM_END;
    }
    cli_progress_end(&progress);
    typing_release(&typing);
    return err;
}
