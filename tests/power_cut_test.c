/*
 * The power-cut explorer: the operations store and the stream index on real LMDB files, cut off
 * from power at every call that writes or flushes, and opened again with what the disk may then
 * hold (tests/power_cut_disk.h).
 *
 * usage: power_cut_test [--states N] [--seed S]
 *
 * A workload is a list of groups made up front from the seed, so what a store must hold after group
 * n is known byte for byte, and the last ordinal and the clock's high water tell n. Some jobs are
 * refused or wanted at first, and come into the gap when others stand behind it. After a cut the
 * store must open, verify clean, and be exactly as after one of the groups from the last that was
 * promised to the one that had begun. Then some of what was found goes on with further groups, and
 * is cut off again: also while it opens, and also where the program died first without a cut, which
 * leaves writes that a flush has yet to make durable.
 *
 * Where a cut leaves few choices, all are tried; else they are drawn. One seed is one run. Last,
 * the explorer itself is tested: disks that lie about flushing, and a program that promises too
 * early, must be found out. Such files can make LMDB abort, so that happens in a process of its
 * own.
 */
#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "store/op_store.h"
#include "store/stream_index.h"
#include "tests/draw.h"
#include "tests/folder.h"
#include "tests/power_cut_disk.h"

enum {
    OPERATIONS_MAX = 512,
    GROUPS_MAX = 48,
    GROUP_JOBS_MAX = 80,
    CHAINS = 6,
    GAPS_MAX = 64,
    DEPTH_MAX = 2, /* cuts after a cut */
    ALL_MAX = 256, /* combinations, those of one page: all of them are tried now and then */
    WHY_BYTES = 256,
    MAP_BYTES_INITIAL = 64 << 20, /* the store's; its half makes it grow */
};

#define NONE SIZE_MAX /* no operation stands at this ordinal */

/* ---- Chance ---- */

static uint64_t below(uint64_t *state, uint64_t limit)
{
    return draw(state) % limit;
}

struct test_env {
    tandem_env base;
    uint64_t state;
};

static uint64_t no_clock(tandem_env *env)
{
    return 0;
}

static void test_random(tandem_env *env, void *out, size_t size)
{
    struct test_env *self = (struct test_env *)env;

    for (size_t i = 0; i < size; i++)
        ((uint8_t *)out)[i] = (uint8_t)draw(&self->state);
}

static const struct tandem_env_ops test_env_ops = {no_clock, no_clock, test_random};

static void must(bool true_here, const char *what)
{
    if (true_here)
        return;
    fprintf(stderr, "power_cut_test: %s\n", what);
    abort();
}

#define OK(call) must((call) == TANDEM_OK, #call)

/* ---- The workload ---- */

enum act { TAKE, REFUSE, WANT };

struct job {
    size_t first, count; /* of operations */
    enum act act;
};

/* Jobs that were refused or are wanted; those before next were taken after all. */
struct gap {
    struct job jobs[2];
    unsigned count, next;
};

struct group {
    struct job jobs[GROUP_JOBS_MAX];
    unsigned job_count;
    bool reincarnate; /* instead of jobs */
    bool aborted;     /* begun once before, and given up */
    bool reopen;      /* the store is closed and opened before it */
    uint64_t hlc;
    /* What is there after it: */
    uint64_t ordinal;
    td_identity identity;
    uint64_t index_digest, lacks_digest;
};

struct workload {
    struct {
        tandem_writer bytes;
        td_operation operation;
    } made[OPERATIONS_MAX];
    size_t made_count;
    size_t ordinals[2 * OPERATIONS_MAX]; /* index into made, or NONE, by ordinal - 1 */
    uint64_t ordinal;
    struct gap gaps[GAPS_MAX];
    unsigned gap_count;
    struct group groups[GROUPS_MAX]; /* group 0 is the store's creation */
    int group_count;
    bool indexed;
    bool grows; /* past what the first map holds */
};

struct chain {
    const char *collection;
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    td_head tip;
};

static void chain_make(struct workload *w, struct chain *chain, uint64_t *chance,
                       const char *document, bool creates, size_t payload_bytes, bool continues)
{
    uint8_t *payload = malloc(payload_bytes);
    td_operation fields = {
        .version = TD_OPERATION_VERSION,
        .flags = continues ? TD_FLAG_CONTINUES : 0,
        .seq = chain->tip.seq + 1,
        .hlc = (1000 + w->made_count) << 16,
        .origin = chain->origin,
        .predecessor = chain->tip.hash,
        .collection = tandem_slice_text(chain->collection),
        .document = tandem_slice_text(document),
        .branch = tandem_slice_text("main"),
        .scope = tandem_slice_text(creates ? TD_SCOPE_DOCUMENT : "global"),
        .type = tandem_slice_text(creates ? "kv.CREATE" : "kv.SET"),
        .payload = tandem_slice_of(payload, payload_bytes),
    };
    tandem_writer *bytes = &w->made[w->made_count].bytes;
    td_operation *operation = &w->made[w->made_count].operation;
    uint64_t word;

    must(payload && w->made_count < OPERATIONS_MAX, "too many operations");
    for (size_t i = 0; i < payload_bytes; i += sizeof(word)) {
        size_t left = payload_bytes - i;

        word = draw(chance);
        memcpy(payload + i, &word, left < sizeof(word) ? left : sizeof(word));
    }
    tandem_writer_init(bytes);
    OK(td_operation_encode(&fields, bytes));
    OK(td_operation_parse(tandem_writer_slice(bytes), operation));
    td_operation_hash(operation);
    chain->tip.seq++;
    memcpy(chain->tip.hash, operation->hash, TANDEM_HASH_BYTES);
    w->made_count++;
    free(payload);
}

/* Mostly small; now and then one that needs pages of its own. */
static size_t payload_size(uint64_t *chance)
{
    uint64_t kind = below(chance, 16);

    return (size_t)(kind == 0   ? 2100 + below(chance, 9000)
                    : kind < 4 ? 300 + below(chance, 900)
                               : 1 + below(chance, 120));
}

static struct job job_make(struct workload *w, struct chain *chain, uint64_t *chance, size_t count,
                           size_t payload_bytes)
{
    struct job job = {.first = w->made_count, .count = count};
    char document[16];

    snprintf(document, sizeof(document), "d%u", (unsigned)below(chance, 5));
    for (size_t i = 0; i < count; i++)
        chain_make(w, chain, chance, document, i == 0 && count > 1,
                   payload_bytes ? payload_bytes : payload_size(chance), i + 1 < count);
    return job;
}

static void job_take(struct workload *w, struct group *group, const struct job *job)
{
    group->jobs[group->job_count++] = *job;
    for (size_t i = 0; i < job->count; i++)
        w->ordinals[w->ordinal++] = job->first + i;
}

/* One that is refused, or one or two that are wanted; what the chain does next stands behind them. */
static void gap_make(struct workload *w, struct group *group, struct chain *chain,
                     uint64_t *chance)
{
    struct gap *gap = &w->gaps[w->gap_count++];
    struct job lacking = {.first = w->made_count};

    *gap = (struct gap){.count = 1 + (unsigned)below(chance, 2)};
    lacking.act = gap->count > 1 || below(chance, 2) ? WANT : REFUSE;
    for (unsigned i = 0; i < gap->count; i++) {
        gap->jobs[i] = job_make(w, chain, chance, 1 + (size_t)below(chance, 3), 0);
        lacking.count += gap->jobs[i].count;
    }
    group->jobs[group->job_count++] = lacking;
    w->ordinals[w->ordinal++] = NONE;
}

static void gap_fill(struct workload *w, struct group *group, uint64_t *chance)
{
    struct gap *gap = w->gap_count ? &w->gaps[below(chance, w->gap_count)] : NULL;

    if (gap && gap->next < gap->count)
        job_take(w, group, &gap->jobs[gap->next++]);
}

/* A job that is held already changes nothing. */
static void job_again(const struct workload *w, struct group *group, uint64_t *chance)
{
    const struct group *old = &w->groups[below(chance, (uint64_t)(group - w->groups))];

    if (old->job_count)
        group->jobs[group->job_count++] = old->jobs[below(chance, old->job_count)];
}

static void group_make(struct workload *w, struct group *group, struct chain *chains,
                       uint64_t *chance)
{
    unsigned jobs = (unsigned)below(chance, 8) == 0 ? 0 : 1 + (unsigned)below(chance, 3);

    group->aborted = below(chance, 8) == 0;
    group->reopen = below(chance, 10) == 0;
    group->reincarnate = below(chance, 14) == 0;
    if (group->reincarnate)
        return;
    for (unsigned i = 0; i < jobs; i++) {
        struct chain *chain = &chains[below(chance, CHAINS)];
        struct chain before = *chain;

        struct job job;

        if (below(chance, 6) == 0 && w->gap_count < GAPS_MAX) {
            gap_make(w, group, chain, chance);
            continue;
        }
        job = job_make(w, chain, chance, 1 + (size_t)below(chance, 4), 0);
        job_take(w, group, &job);
        if (below(chance, 12) == 0) {
            job = job_make(w, &before, chance, 1, 0); /* a fork, … */
            job_take(w, group, &job);
            if (below(chance, 2))
                *chain = before; /* … of which one side or the other goes on */
        }
    }
    if (below(chance, 3) == 0)
        gap_fill(w, group, chance);
    if (below(chance, 6) == 0)
        job_again(w, group, chance);
}

static void workload_make(struct workload *w, uint64_t seed, bool indexed, bool grows)
{
    static const char *const collections[] = {"notes", "tasks", "files"};
    uint64_t chance = seed;
    struct chain chains[CHAINS] = {0};

    memset(w, 0, sizeof(*w));
    w->indexed = indexed;
    w->grows = grows;
    w->group_count = grows ? 8 : 30;
    for (unsigned i = 0; i < CHAINS; i++) {
        chains[i].collection = collections[i % 3];
        td_put_u64(chains[i].origin, seed + i);
        td_chain_root(tandem_slice_text(chains[i].collection), chains[i].tip.hash);
    }
    for (int i = 1; i < w->group_count; i++) {
        struct group *group = &w->groups[i];

        if (grows && i == 3)
            for (unsigned j = 0; j < 66; j++) {
                struct job job = job_make(w, &chains[j % CHAINS], &chance, 2, 255000);

                job_take(w, group, &job);
            }
        else
            group_make(w, group, chains, &chance);
        group->hlc = (uint64_t)(5000 + i) << 16;
        group->ordinal = w->ordinal;
    }
}

static void workload_release(struct workload *w)
{
    for (size_t i = 0; i < w->made_count; i++)
        tandem_writer_release(&w->made[i].bytes);
}

/* ---- The store under test ---- */

struct bed {
    struct test_env env;
    struct workload *workload;
    const char *folders[CUT_FILES_MAX]; /* of the operations store, of the index */
    unsigned folder_count;
    td_op_store *ops;
    td_stream_index *index;
};

static tandem_err bed_open(struct bed *bed)
{
    td_store *store;
    tandem_err err;

    bed->env.state = 0; /* the same identity whenever the store is made */
    err = td_lmdb_store_open(&bed->env.base, bed->folders[0], td_op_store_tables,
                             td_op_store_table_count, &store);
    if (err == TANDEM_OK)
        err = td_op_store_open(&bed->env.base, store, &bed->ops);
    if (err != TANDEM_OK || !bed->workload->indexed)
        return err;
    err = td_lmdb_store_open(&bed->env.base, bed->folders[1], td_stream_index_tables,
                             td_stream_index_table_count, &store);
    if (err == TANDEM_OK)
        err = td_stream_index_open(&bed->env.base, store, bed->ops, &bed->index);
    return err;
}

static void bed_close(struct bed *bed)
{
    td_stream_index_free(bed->index);
    td_op_store_free(bed->ops);
    bed->index = NULL;
    bed->ops = NULL;
}

/* ---- The index: what it shows, as one number ---- */

struct digest {
    td_stream_index *index;
    tandem_slice collection, document, branch, scope;
    XXH3_state_t *hash;
    td_place last;
    uint64_t entries;
    bool broken; /* a snapshot that does not belong where it stands */
};

/* What a fold up to this place is, as far as this test is concerned. */
static uint64_t snapshot_of(const td_place *place)
{
    return XXH3_64bits(place->bytes, sizeof(place->bytes));
}

static tandem_err digest_entry(void *context, const td_place *place, uint64_t ordinal)
{
    struct digest *digest = context;

    XXH3_64bits_update(digest->hash, place->bytes, sizeof(place->bytes));
    XXH3_64bits_update(digest->hash, &ordinal, sizeof(ordinal));
    digest->last = *place;
    digest->entries++;
    return TANDEM_OK;
}

static tandem_err digest_stream(void *context, tandem_slice branch, tandem_slice scope,
                                uint64_t operations)
{
    struct digest *digest = context;
    static const td_place start;
    td_snapshot snapshot;
    tandem_err err;

    digest->entries = 0;
    XXH3_64bits_update(digest->hash, scope.bytes, scope.size);
    err = td_stream_index_entries(digest->index, digest->collection, digest->document, branch,
                                  scope, &start, digest_entry, digest);
    if (err != TANDEM_OK)
        return err;
    digest->broken |= digest->entries != operations;
    err = td_stream_index_snapshot(digest->index, digest->collection, digest->document, branch,
                                   scope, 1, &snapshot);
    if (err == TANDEM_OK)
        digest->broken |= snapshot.bytes.size != 8 ||
                          td_get_u64(snapshot.bytes.bytes) != snapshot_of(&snapshot.place);
    return err == TANDEM_E_NOT_FOUND ? TANDEM_OK : err;
}

static tandem_err digest_document(void *context, tandem_slice document,
                                  const td_document_info *info)
{
    struct digest *digest = context;

    digest->document = document;
    XXH3_64bits_update(digest->hash, document.bytes, document.size);
    XXH3_64bits_update(digest->hash, &info->operations, sizeof(info->operations));
    XXH3_64bits_update(digest->hash, info->model, strlen(info->model));
    XXH3_64bits_update(digest->hash, &info->last_ordinal, sizeof(info->last_ordinal));
    return td_stream_index_streams(digest->index, digest->collection, document, digest_stream,
                                   digest);
}

/* Index all that is there, and hash it; 0 if that fails. */
static uint64_t index_digest(struct bed *bed)
{
    static const char *const collections[] = {"files", "notes", "tasks"};
    struct digest digest = {.index = bed->index, .hash = XXH3_createState()};
    tandem_err err = TANDEM_OK;
    bool current = false;
    uint64_t position, sum;

    XXH3_64bits_reset(digest.hash);
    while (err == TANDEM_OK && !current)
        err = td_stream_index_advance(bed->index, 64, &position, &current);
    for (unsigned i = 0; i < 3 && err == TANDEM_OK; i++) {
        digest.collection = tandem_slice_text(collections[i]);
        err = td_stream_index_documents(bed->index, digest.collection,
                                        tandem_slice_of(NULL, 0), digest_document, &digest);
    }
    sum = XXH3_64bits_digest(digest.hash);
    XXH3_freeState(digest.hash);
    return err == TANDEM_OK && !digest.broken ? sum | 1 : 0;
}

/* Keep a snapshot of one stream's whole fold. */
static void index_snapshot(struct bed *bed, const td_operation *of)
{
    struct digest digest = {.index = bed->index, .hash = XXH3_createState()};
    static const td_place start;
    td_snapshot snapshot = {.model_version = 1};
    uint8_t bytes[8];

    XXH3_64bits_reset(digest.hash);
    OK(td_stream_index_entries(bed->index, of->collection, of->document, of->branch, of->scope,
                               &start, digest_entry, &digest));
    XXH3_freeState(digest.hash);
    td_put_u64(bytes, snapshot_of(&digest.last));
    snapshot.place = digest.last;
    snapshot.folded = digest.entries;
    snapshot.bytes = tandem_slice_of(bytes, sizeof(bytes));
    OK(td_stream_index_put_snapshot(bed->index, of->collection, of->document, of->branch,
                                    of->scope, &snapshot));
}

/* ---- What is lacking, as one number ---- */

static tandem_err digest_lack(void *context, tandem_slice collection, const uint8_t *origin,
                              const td_lack *lack)
{
    XXH3_state_t *hash = context;

    XXH3_64bits_update(hash, collection.bytes, collection.size);
    XXH3_64bits_update(hash, origin, TANDEM_ORIGIN_BYTES);
    XXH3_64bits_update(hash, &lack->first, sizeof(lack->first));
    XXH3_64bits_update(hash, lack->hash, sizeof(lack->hash));
    XXH3_64bits_update(hash, &lack->reason, sizeof(lack->reason));
    XXH3_64bits_update(hash, &lack->followed, sizeof(lack->followed));
    return TANDEM_OK;
}

/* 0 if it cannot be read. */
static uint64_t lacks_digest(struct bed *bed)
{
    XXH3_state_t *hash = XXH3_createState();
    uint64_t ordinal, sum;
    tandem_err err;

    XXH3_64bits_reset(hash);
    err = td_op_store_all_lacks(bed->ops, &ordinal, digest_lack, hash);
    sum = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    return err == TANDEM_OK ? sum | 1 : 0;
}

/* ---- Groups ---- */

static void lack_record(struct bed *bed, const td_operation *job, size_t count, enum act act)
{
    td_lack lack = {.first = job[0].seq, .last = job[count - 1].seq};
    tandem_err err;

    if (act == REFUSE) {
        err = td_op_store_refuse(bed->ops, job, count, TANDEM_E_REFUSED);
        must(err == TANDEM_E_REFUSED || err == TANDEM_OK, "refusing");
        return;
    }
    memcpy(lack.predecessor, job[0].predecessor, sizeof(lack.predecessor));
    memcpy(lack.hash, job[count - 1].hash, sizeof(lack.hash));
    OK(td_op_store_want(bed->ops, job[0].collection, job[0].origin, &lack));
}

static void group_append(struct bed *bed, const struct group *group)
{
    td_append_result result;
    td_operation job[TANDEM_JOB_OPERATIONS_MAX];

    OK(td_op_store_begin(bed->ops));
    if (group->reincarnate)
        OK(td_op_store_reincarnate(bed->ops, TANDEM_INCARNATION_CONTINUED, false, group->hlc));
    for (unsigned i = 0; i < group->job_count; i++) {
        for (size_t j = 0; j < group->jobs[i].count; j++)
            job[j] = bed->workload->made[group->jobs[i].first + j].operation;
        if (group->jobs[i].act == TAKE)
            OK(td_op_store_append(bed->ops, job, group->jobs[i].count, &result));
        else
            lack_record(bed, job, group->jobs[i].count, group->jobs[i].act);
    }
    OK(td_op_store_put_clock(bed->ops, group->hlc));
}

static void group_run(struct bed *bed, int number)
{
    struct group *group = &bed->workload->groups[number];

    if (group->reopen) {
        bed_close(bed);
        OK(bed_open(bed));
    }
    bed->env.state = (uint64_t)number;
    if (group->aborted) {
        group_append(bed, group);
        td_op_store_abort(bed->ops);
        bed->env.state = (uint64_t)number;
    }
    group_append(bed, group);
    OK(td_op_store_commit(bed->ops));
    group->lacks_digest = lacks_digest(bed);
    if (!bed->index)
        return;
    group->index_digest = index_digest(bed);
    must(group->index_digest, "the index cannot be read");
    if (number % 3 == 0 && group->job_count && group->jobs[0].act == TAKE) { /* a job's last one is none of its lifecycle */
        const struct job *job = &group->jobs[0];

        index_snapshot(bed, &bed->workload->made[job->first + job->count - 1].operation);
    }
    if (number % 2 == 0)
        OK(td_stream_index_commit(bed->index));
}

/* ---- What is there after a cut ---- */

struct scan {
    const struct workload *workload;
    uint64_t seen, ordinal_max;
    const char *wrong;
};

static tandem_err scan_one(void *context, tandem_err err, uint64_t ordinal,
                           const td_operation *operation)
{
    struct scan *scan = context;
    const td_operation *expected;

    if (err != TANDEM_OK || ordinal == 0 || ordinal > scan->ordinal_max ||
        scan->workload->ordinals[ordinal - 1] == NONE) {
        scan->wrong = "an operation cannot be read, or was never promised";
        return TANDEM_END;
    }
    expected = &scan->workload->made[scan->workload->ordinals[ordinal - 1]].operation;
    if (!tandem_slice_equal(expected->canonical, operation->canonical) ||
        memcmp(expected->hash, operation->hash, TANDEM_HASH_BYTES)) {
        scan->wrong = "an operation is not the one that was appended";
        return TANDEM_END;
    }
    scan->seen++;
    return TANDEM_OK;
}

static void report(void *context, const char *text)
{
    char *why = context;

    if (!why[0])
        snprintf(why, WHY_BYTES, "verify: %s", text);
}

/* Which group this is the state after; -1: none. */
static int group_found(struct bed *bed, char *why)
{
    const struct workload *w = bed->workload;
    uint64_t ordinal, hlc;

    if (td_op_store_last_ordinal(bed->ops, &ordinal) != TANDEM_OK ||
        td_op_store_clock(bed->ops, &hlc) != TANDEM_OK) {
        snprintf(why, WHY_BYTES, "position and clock cannot be read");
        return -1;
    }
    for (int i = 0; i < w->group_count; i++)
        if (w->groups[i].hlc == hlc && w->groups[i].ordinal == ordinal)
            return i;
    snprintf(why, WHY_BYTES, "ordinal %llu with clock %llx: between groups",
             (unsigned long long)ordinal, (unsigned long long)hlc);
    return -1;
}

/* Is the open store exactly as after a group from promised to begun? That group, or -1 and why. */
static int state_check(struct bed *bed, int promised, int begun, char *why)
{
    const struct workload *w = bed->workload;
    static const char *const collections[] = {"files", "notes", "tasks"};
    struct scan scan = {.workload = w};
    uint64_t expected = 0;
    int found = group_found(bed, why);

    if (found < 0)
        return -1;
    if (found < promised || found > begun) {
        snprintf(why, WHY_BYTES, "group %d is there; promised %d, begun %d", found, promised,
                 begun);
        return -1;
    }
    if (memcmp(td_op_store_identity(bed->ops), &w->groups[found].identity,
               sizeof(td_identity)) != 0) {
        snprintf(why, WHY_BYTES, "another identity than after group %d", found);
        return -1;
    }
    scan.ordinal_max = w->groups[found].ordinal;
    for (unsigned i = 0; i < 3 && !scan.wrong; i++)
        if (td_op_store_scan(bed->ops, tandem_slice_text(collections[i]), 0, scan_one, &scan) < 0)
            scan.wrong = "a collection cannot be read";
    for (uint64_t i = 0; i < scan.ordinal_max; i++)
        expected += w->ordinals[i] != NONE;
    if (!scan.wrong && scan.seen != expected)
        scan.wrong = "operations are missing";
    if (scan.wrong) {
        snprintf(why, WHY_BYTES, "%s (%llu of %llu)", scan.wrong, (unsigned long long)scan.seen,
                 (unsigned long long)expected);
        return -1;
    }
    if (lacks_digest(bed) != w->groups[found].lacks_digest) {
        snprintf(why, WHY_BYTES, "other things are lacking than after group %d", found);
        return -1;
    }
    /* Hashing 33 MB anew finds nothing there that comparing them has not found. */
    if (!w->grows && td_op_store_verify(bed->ops, report, why) != TANDEM_OK)
        return -1;
    if (bed->index && index_digest(bed) != w->groups[found].index_digest) {
        snprintf(why, WHY_BYTES, "the index is not that of group %d", found);
        return -1;
    }
    return found;
}

/* ---- The explorer ---- */

struct explorer {
    struct workload *workload;
    struct bed bed;
    uint64_t chance;
    double per_cut; /* states at each cut; below 1: at some */
    uint64_t states, states_max;
    uint64_t *shared_states; /* the same number, seen by the process that waits */
    uint64_t cuts, whole_cuts, nested;
    uint64_t trace; /* over all that was found: equal runs, equal numbers */
    bool promises_early; /* a planted bug */
    struct cut_lies lies;
    uint64_t seed;
    char where[WHY_BYTES];
    char why[WHY_BYTES];
};

static struct explorer *now; /* for the last words of a crash */

static void last_words(int signal_number)
{
    static const char head[] = "power_cut_test: a crash at ";

    if (now && write(2, head, sizeof(head) - 1) > 0 &&
        write(2, now->where, strlen(now->where)) > 0 && write(2, "\n", 1) > 0) {
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* Open what is on the disk now, and look. */
static bool state_try(struct explorer *x, int promised, int begun, struct cut_log *log)
{
    tandem_err err;
    int found = -1;

    x->why[0] = '\0';
    cut_log_clear(log);
    cut_record(log, x->bed.folders, x->bed.folder_count, x->lies);
    err = bed_open(&x->bed);
    if (err == TANDEM_OK)
        found = state_check(&x->bed, promised, begun, x->why);
    else
        snprintf(x->why, WHY_BYTES, "it does not open: %s", tandem_err_name(err));
    bed_close(&x->bed);
    cut_record(NULL, NULL, 0, x->lies);
    x->states++;
    if (x->shared_states)
        *x->shared_states = x->states;
    x->trace = x->trace * 0x100000001b3u + (uint64_t)(found + 2);
    return found >= 0;
}

/* The next of all combinations; false after the last. */
static bool choices_next(struct cut_disk *disk)
{
    for (size_t i = 0; i < disk->choice_count; i++) {
        if (disk->choices[i].chosen++ < disk->choices[i].versions)
            return true;
        disk->choices[i].chosen = 0;
    }
    return false;
}

/* How many combinations there are; limit + 1 if more than limit. */
static uint64_t combinations(const struct cut_disk *disk, uint64_t limit)
{
    uint64_t count = 1;

    for (size_t i = 0; i < disk->choice_count && count <= limit; i++)
        count *= disk->choices[i].versions + 1;
    return count <= limit ? count : limit + 1;
}

static void choose(struct cut_choice *choice, uint64_t *chance)
{
    choice->chosen = below(chance, 2) ? choice->versions
                                      : 1 + (unsigned)below(chance, choice->versions);
}

/* Draw one of the combinations, of a shape that a disk may leave behind. */
static void choices_draw(struct cut_disk *disk, uint64_t *chance)
{
    uint64_t shape = below(chance, 8);
    uint64_t count = disk->choice_count, one = count ? below(chance, count) : 0;
    uint64_t order = disk->order ? 1 + below(chance, disk->order) : 0, page = 0;
    bool page_there = false;

    for (size_t i = 0; i < count; i++) {
        struct cut_choice *choice = &disk->choices[i];
        const struct cut_pending *first = &disk->pending[choice->first];
        bool there = false;

        switch (shape) {
        case 0: /* what was written first is there, what came later is not */
            choice->chosen = 0;
            while (choice->chosen < choice->versions && first[choice->chosen].order <= order)
                choice->chosen++;
            continue;
        case 1: /* all but one sector */
            there = i != one;
            break;
        case 2: /* one sector alone */
            there = i == one;
            break;
        case 3: /* whole pages */
            if (i == 0 || first->sector / 8 != page) {
                page = first->sector / 8;
                page_there = below(chance, 2);
            }
            there = page_there;
            break;
        case 4:
            there = below(chance, 8) != 0;
            break;
        case 5:
            there = below(chance, 8) == 0;
            break;
        default:
            there = below(chance, 2);
        }
        choice->chosen = 0;
        if (there)
            choose(choice, chance);
    }
    disk->grown = below(chance, 8) == 0;
    disk->missing = below(chance, 8) == 0;
    for (unsigned i = 1; i < disk->count; i++) /* the index can be built anew */
        disk->lost[i] = below(chance, 8) == 0;
}

/* Try the present choices. */
static bool choices_try(struct explorer *x, struct cut_disk *disk, int promised, int begun)
{
    struct cut_log log = {0};
    bool good;

    cut_disk_apply(disk);
    good = state_try(x, promised, begun, &log);
    if (good)
        cut_disk_restore(disk, &log);
    cut_log_release(&log);
    return good;
}

static bool explore(struct explorer *x, struct cut_disk *disk, const struct cut_log *log,
                    double per_cut, unsigned depth, const char *where);

/* Go on from what a cut (or a death of the program alone) left, and cut that off in its turn. */
static bool explore_after(struct explorer *x, struct cut_disk *disk, int promised, int begun,
                          unsigned depth)
{
    bool death = below(&x->chance, 3) == 0, good = false;
    struct cut_log log = {.promised = promised, .begun = begun};
    struct cut_disk left;
    char where[sizeof(x->where)];
    int found = -1;

    snprintf(where, sizeof(where), "%.200s, %s", x->where, death ? "then death" : "then");
    choices_draw(disk, &x->chance);
    if (death)
        cut_disk_after_death(disk, &left);
    else
        cut_disk_after_cut(disk, &left);
    cut_disk_write_out(&left, death);
    x->nested++;
    x->why[0] = '\0';
    cut_record(&log, x->bed.folders, x->bed.folder_count, x->lies);
    if (bed_open(&x->bed) == TANDEM_OK)
        found = state_check(&x->bed, promised, begun, x->why);
    else
        snprintf(x->why, WHY_BYTES, "it does not open");
    if (found >= 0) {
        /* What it shows it may tell a peer: it has promised it. */
        log.promised = log.begun = found;
        for (int i = found + 1; i < x->workload->group_count && i < found + 3; i++) {
            log.begun = i;
            group_run(&x->bed, i);
            log.promised = i;
        }
    }
    bed_close(&x->bed);
    cut_record(NULL, NULL, 0, x->lies);
    if (found >= 0) {
        cut_disk_write_out(&left, false);
        good = explore(x, &left, &log, 2, depth + 1, where);
        cut_disk_write_out(disk, false);
    }
    cut_disk_release(&left);
    cut_log_release(&log);
    return good;
}

static bool explore_cut(struct explorer *x, struct cut_disk *disk, int promised, int begun,
                        double per_cut, unsigned depth)
{
    uint64_t whole = (uint64_t)per_cut;
    uint64_t wanted = whole + ((double)below(&x->chance, 1000) < 1000 * (per_cut - (double)whole));
    uint64_t all_max = below(&x->chance, 16) == 0 ? ALL_MAX : wanted;
    bool all;

    cut_disk_choices(disk);
    all = wanted && combinations(disk, all_max) <= all_max;
    x->cuts++;
    x->whole_cuts += all;
    if (all) {
        do
            if (!choices_try(x, disk, promised, begun))
                return false;
        while (choices_next(disk));
    }
    for (uint64_t i = 0; i < wanted && !all; i++) {
        choices_draw(disk, &x->chance);
        if (!choices_try(x, disk, promised, begun))
            return false;
    }
    if (depth < DEPTH_MAX && !x->workload->grows && below(&x->chance, depth ? 40 : 5) == 0)
        return explore_after(x, disk, promised, begun, depth);
    return true;
}

/* Cut off at each event of a log, and after the last. The real files hold the durable bytes. */
static bool explore(struct explorer *x, struct cut_disk *disk, const struct cut_log *log,
                    double per_cut, unsigned depth, const char *where)
{
    static const char *const names[] = {"write", "flush", "flush of the folder"};

    for (size_t i = 0; i <= log->count && x->states < x->states_max; i++) {
        const struct cut_event *event = i < log->count ? &log->events[i] : NULL;

        snprintf(x->where, sizeof(x->where), "%.200s cut %zu of %zu (%s)", where, i, log->count,
                 event ? names[event->kind] : "all done");
        if (event)
            cut_disk_begin(disk, event);
        if (!explore_cut(x, disk, event ? event->promised : log->promised,
                         event ? event->begun : log->begun, per_cut, depth))
            return false;
        if (event)
            cut_disk_end(disk, event);
    }
    return true;
}

/* Run a workload once, undisturbed, and note what is there after each group. */
static void record(struct explorer *x, struct cut_log *log)
{
    struct workload *w = x->workload;
    struct bed *bed = &x->bed;

    log->promised = -1;
    log->begun = 0;
    cut_record(log, bed->folders, bed->folder_count, x->lies);
    OK(bed_open(bed));
    w->groups[0].identity = *td_op_store_identity(bed->ops);
    w->groups[0].lacks_digest = lacks_digest(bed);
    if (bed->index)
        w->groups[0].index_digest = index_digest(bed);
    log->promised = 0;
    for (int i = 1; i < w->group_count; i++) {
        log->begun = i;
        if (x->promises_early)
            log->promised = i;
        group_run(bed, i);
        w->groups[i].identity = *td_op_store_identity(bed->ops);
        log->promised = i;
    }
    bed_close(bed);
    cut_record(NULL, NULL, 0, x->lies);
}

/* The map grew if a meta page says so; its size is what LMDB writes first of it. */
static bool map_grew(const struct cut_log *log)
{
    uint64_t map_bytes;

    for (size_t i = 0; i < log->count; i++) {
        if (!log->events[i].through)
            continue;
        memcpy(&map_bytes, log->events[i].bytes, sizeof(map_bytes));
        if (map_bytes > MAP_BYTES_INITIAL)
            return true;
    }
    return false;
}

/* One workload, all its cuts. */
static bool explore_workload(struct explorer *x, uint64_t seed, bool indexed, bool grows)
{
    struct cut_log log = {0};
    struct cut_disk disk;
    char where[64];
    bool good;

    workload_make(x->workload, seed, indexed, grows);
    x->bed.folder_count = indexed ? 2 : 1;
    x->bed.workload = x->workload;
    for (unsigned i = 0; i < x->bed.folder_count; i++)
        folder_empty(x->bed.folders[i]);
    record(x, &log);
    must(!grows || map_grew(&log), "the map did not grow");
    cut_disk_init(&disk, x->bed.folders, x->bed.folder_count);
    cut_disk_write_out(&disk, false);
    snprintf(where, sizeof(where), "seed %llu%s%s:", (unsigned long long)seed,
             indexed ? " with index" : "", grows ? " growing" : "");
    good = explore(x, &disk, &log, x->per_cut, 0, where);
    if (!good)
        printf("power_cut_test: %s: %s\n", x->where, x->why);
    cut_disk_release(&disk);
    cut_log_release(&log);
    workload_release(x->workload);
    return good;
}

/* Workloads until there were so many states. */
static bool explore_states(struct explorer *x, uint64_t states, bool indexed, bool grows,
                           double per_cut)
{
    uint64_t seed = x->seed * 1000000;

    x->per_cut = per_cut;
    x->states_max = x->states + states;
    while (x->states < x->states_max)
        if (!explore_workload(x, ++seed, indexed, grows))
            return false;
    return true;
}

/* ---- The explorer's own test ---- */

static void explorer_init(struct explorer *x, const char *const *folders, uint64_t seed)
{
    static struct workload workload;

    memset(x, 0, sizeof(*x));
    x->workload = &workload;
    x->bed.env.base.ops = &test_env_ops;
    x->bed.folders[0] = folders[0];
    x->bed.folders[1] = folders[1];
    x->seed = seed;
    x->chance = seed;
    now = x;
}

/* Is what is wrong with x found? In another process, which it may kill. */
static bool found_out(struct explorer *x, const char *what)
{
    const struct rlimit no_core = {0, 0};
    int status = 0;
    pid_t child;

    x->shared_states = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(x->shared_states != MAP_FAILED, "no memory");
    fflush(NULL);
    child = fork();
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &no_core);
        if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
            _exit(0);
        alarm(60); /* a torn tree can be a circle */
        _exit(explore_states(x, 5000, false, false, 8) ? 0 : 1);
    }
    must(child > 0 && waitpid(child, &status, 0) == child, "no process");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        printf("power_cut_test: %s was not found\n", what);
        return false;
    }
    printf("%s: found after %llu states (%s)\n", what, (unsigned long long)*x->shared_states,
           WIFEXITED(status) ? "told" : "crashed");
    munmap(x->shared_states, sizeof(uint64_t));
    return true;
}

static bool explorer_works(const char *const *folders, uint64_t seed)
{
    struct explorer x;
    uint64_t trace;

    explorer_init(&x, folders, seed);
    if (!explore_states(&x, 200, true, false, 2))
        return false;
    trace = x.trace;
    explorer_init(&x, folders, seed);
    if (!explore_states(&x, 200, true, false, 2) || x.trace != trace) {
        printf("power_cut_test: the same seed is another run\n");
        return false;
    }
    explorer_init(&x, folders, seed);
    x.lies.flush = true;
    if (!found_out(&x, "a disk that does not flush"))
        return false;
    explorer_init(&x, folders, seed);
    x.lies.through = true;
    if (!found_out(&x, "a disk that does not write through"))
        return false;
    explorer_init(&x, folders, seed);
    x.promises_early = true;
    return found_out(&x, "a promise before the commit");
}

/* ---- Everything ---- */

static bool explore_all(const char *const *folders, uint64_t states, uint64_t seed)
{
    struct explorer x;
    struct timespec from, to;
    double seconds;

    explorer_init(&x, folders, seed);
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (!explore_states(&x, states / 50, true, false, 4) ||
        !explore_states(&x, states / 2000 + 4, false, true, 0.1) ||
        !explore_states(&x, states - x.states, false, false, 12))
        return false;
    clock_gettime(CLOCK_MONOTONIC, &to);
    seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
    printf("seed %llu: %llu states at %llu cuts (%llu of them whole, %llu second lives), "
           "trace %016llx, %.0f a second\n",
           (unsigned long long)seed, (unsigned long long)x.states, (unsigned long long)x.cuts,
           (unsigned long long)x.whole_cuts, (unsigned long long)x.nested,
           (unsigned long long)x.trace, (double)x.states / seconds);
    return true;
}

int main(int argc, char **argv)
{
    char root[FOLDER_BYTES], store[300], index[300];
    const char *const folders[] = {store, index};
    uint64_t states = 2000, seed = 1;
    bool good;

    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--states") == 0)
            states = strtoull(argv[i + 1], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
        else
            must(false, "usage: power_cut_test [--states N] [--seed S]");
    }
    folder_make(root, "cut", true);
    snprintf(store, sizeof(store), "%s/store", root);
    snprintf(index, sizeof(index), "%s/index", root);
    must(mkdir(store, 0700) == 0 && mkdir(index, 0700) == 0, "no folder");
    signal(SIGSEGV, last_words);
    signal(SIGBUS, last_words);
    signal(SIGABRT, last_words);

    good = explorer_works(folders, seed) && explore_all(folders, states, seed);
    if (good) {
        folder_remove(root);
    } else {
        printf("the files are in %s; repeat with --states %llu --seed %llu\n", root,
               (unsigned long long)states, (unsigned long long)seed);
    }
    return good ? 0 : 1;
}
