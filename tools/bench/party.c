#include "tools/bench/party.h"

#include <stdio.h>

#include "tools/bench/fill.h"
#include "tools/bench/floor.h"
#include "tools/bench/member.h"
#include "tools/bench/process.h"
#include "tools/bench/scratch.h"
#include "tools/bench/worker.h"

enum { DOCUMENTS = 100, JOIN_MS_MAX = 60 * 1000, IN_FLIGHT = 16 };
enum { RATE };

static const bench_spread_over over = {DOCUMENTS, 1};

/* What the processes share. */
struct field {
    _Atomic uint32_t listening, joined, complete; /* members */
    uint64_t joined_us[BENCH_PARTY_MAX], complete_us[BENCH_PARTY_MAX];
    uint64_t commits[BENCH_PARTY_MAX];
    char urls[BENCH_PARTY_MAX][BENCH_URL_BYTES];
};

struct run {
    const bench_party *party;
    struct field *field;
    bench_scratch folders[BENCH_PARTY_MAX];
    bench_worker *workers[BENCH_PARTY_MAX];
};

struct place {
    const struct run *run;
    unsigned index;
};

/* What each writer writes: at least one document, created and set. */
static uint64_t part_of(const bench_party *party)
{
    enum { PART_MIN = 2 };
    uint64_t part = party->operations / party->writers;

    return part < PART_MIN ? PART_MIN : part;
}

/* ---- A member ---- */

/* Dial the writers before it. */
static tandem_err join(const struct place *place, bench_member *member)
{
    const bench_party *party = place->run->party;
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; err == TANDEM_OK && i < place->index && i < party->writers; i++) {
        char name[16];

        snprintf(name, sizeof(name), "w%u", i);
        err = tandem_remote_add(member->sync, name, place->run->field->urls[i]);
    }
    return err == TANDEM_OK ? tandem_wait_in_step(member->sync, NULL, JOIN_MS_MAX) : err;
}

/* Nobody begins before all are joined, and nobody leaves before all are complete. */
static tandem_err take_part(const struct place *place, bench_member *member)
{
    const bench_party *party = place->run->party;
    struct field *field = place->run->field;
    tandem_err err;

    if ((err = bench_member_listen(member, field->urls[place->index])) != TANDEM_OK)
        return err;
    atomic_fetch_add(&field->listening, 1);
    if ((err = bench_shared_wait(&field->listening, party->members)) != TANDEM_OK ||
        (err = join(place, member)) != TANDEM_OK)
        return err;
    field->joined_us[place->index] = bench_now_us();
    atomic_fetch_add(&field->joined, 1);
    if ((err = bench_shared_wait(&field->joined, party->members)) != TANDEM_OK ||
        (place->index < party->writers &&
         (err = bench_fill_reactor(member->reactor, &over, part_of(party), party->group)) !=
             TANDEM_OK) ||
        (err = bench_member_wait(member, NULL)) != TANDEM_OK)
        return err;
    field->complete_us[place->index] = atomic_load(&member->complete_us);
    atomic_fetch_add(&field->complete, 1);
    return bench_shared_wait(&field->complete, party->members);
}

static tandem_err member_work(void *context, void *shared)
{
    const struct place *place = context;
    const struct run *run = place->run;
    bench_member member = {0};
    tandem_stat stat;
    tandem_err err;

    if ((err = bench_member_open(&member, run->folders[place->index].path)) == TANDEM_OK &&
        (err = bench_member_want(&member, part_of(run->party) * run->party->writers)) ==
            TANDEM_OK &&
        (err = take_part(place, &member)) == TANDEM_OK &&
        (err = tandem_stat_get(member.reactor, &stat)) == TANDEM_OK)
        run->field->commits[place->index] = stat.commits;
    bench_member_close(&member);
    if (err != TANDEM_OK)
        cli_fail(err, NULL, "a member did not get all");
    return err;
}

/* ---- All of them ---- */

static void add_up(const struct run *run, uint64_t wire_bytes, bench_sample *out)
{
    const bench_party *party = run->party;
    double operations = (double)(part_of(party) * party->writers);
    uint64_t first_us = 0, last_us = 0, fewest = UINT64_MAX, disk_bytes = 0;

    for (unsigned i = 0; i < party->members; i++) {
        const struct field *field = run->field;

        first_us = field->joined_us[i] > first_us ? field->joined_us[i] : first_us;
        last_us = field->complete_us[i] > last_us ? field->complete_us[i] : last_us;
        fewest = field->commits[i] < fewest ? field->commits[i] : fewest;
        disk_bytes += bench_data_folder_bytes(run->folders[i].path);
    }
    out->values[RATE] = operations * 1e6 / (double)(last_us - first_us);
    out->batch = operations / (double)(fewest ? fewest : 1);
    out->disk_bytes_per_operation = (double)disk_bytes / operations / party->members;
    out->wire_bytes_per_operation = (double)wire_bytes / operations;
}

static tandem_err run_party(void *context, bench_sample *out)
{
    const bench_party *party = context;
    struct run run = {.party = party};
    uint64_t wire_bytes = bench_loopback_bytes();
    tandem_err err = bench_shared_open(sizeof(*run.field), (void **)&run.field);

    for (unsigned i = 0; err == TANDEM_OK && i < party->members; i++) {
        struct place place = {&run, i};

        if ((err = bench_scratch_open(&run.folders[i])) == TANDEM_OK)
            err = bench_worker_start(member_work, &place, 1, &run.workers[i]);
    }
    if (err == TANDEM_OK)
        err = bench_worker_wait_all(run.workers, party->members, &out->rss_anon_bytes);
    if (err == TANDEM_OK)
        add_up(&run, bench_loopback_bytes() - wire_bytes, out);
    for (unsigned i = 0; i < party->members; i++)
        bench_worker_free(run.workers[i]);
    for (unsigned i = 0; i < party->members; i++)
        bench_scratch_release(&run.folders[i]);
    bench_shared_free(run.field, sizeof(*run.field));
    return err;
}

/* ---- The bench ---- */

static tandem_err ceiling(void *context, const bench_sample *subject, bench_sample *out)
{
    const bench_party *party = context;
    bench_floor floor = {.records = part_of(party) * party->writers,
                         .record_bytes = BENCH_RECORD_BYTES,
                         .batch = party->group,
                         .in_flight = IN_FLIGHT,
                         .processes = party->members,
                         .writers = party->writers};
    bench_floor_result result = {0};
    tandem_err err = bench_floor_replicate(&floor, &result);

    if (err == TANDEM_OK)
        out->values[RATE] = (double)result.records / result.seconds;
    return err;
}

int bench_party_measure(bench_run *run, const bench_party *party)
{
    bench_party measured = *party;
    bench_pairs pairs;
    tandem_err err;

    if ((err = bench_pairs_run(run, run_party, ceiling, &measured, &pairs)) != TANDEM_OK)
        return cli_exit_code(err);
    bench_print_pairs(run, &pairs, RATE, "rate", "operations/s");
    bench_print_batch(run, &pairs);
    return 0;
}
