/*
 * handshake: two stores of equal contents meet by WebSocket: how long it takes until both are in step,
 * and what goes over the wire for it. 1,000,000 operations in 1,000 collections from 100 origins; of
 * fewer operations a thousandth is the collections, and 5 or more origins write.
 *
 *   equal      they hold the same
 *   missing10  one of them holds ten operations more, each in another collection; so its bytes are those
 *              of ten small differences, and go with the ranges that are compared before anything is
 *              listed (sync/ranges.h): a little with collections and origins, not with operations
 *
 * Figures, of connections through links that count (slow_link):
 *
 *   time              from the connection's being taken until both sides say that they are in step, of
 *                     reactors that were opened a moment before: no digest is known
 *   time_again        the same of a second connection, with another ten operations
 *   bytes             payload of TCP of the second one, both ways, behind what sets it up …
 *   setup_bytes       … which is this: the heads of HTTP
 *   round_trips       from when the connection is set up until the dialer is in step …
 *   round_trips_both  … and until both are: how much longer a third connection takes, over a link that
 *                     delays what it carries by 25 ms each way, in units of 50 ms; less one, the heads
 *
 * The ceiling is the same of a smaller store of as many collections and origins: of a tenth of the
 * operations, or of two for each origin in each collection, where that is more. So a ratio of 1 says
 * that nothing depends on the operations that are held.
 */
#include <stdio.h>

#include "tools/bench/bench.h"
#include "tools/bench/fill.h"
#include "tools/bench/member.h"
#include "tools/bench/process.h"
#include "tools/bench/scratch.h"
#include "tools/bench/slow_link.h"
#include "tools/bench/worker.h"

enum {
    COLLECTIONS_MAX = 1000,
    OPERATIONS_EACH = 1000, /* of a collection, where they are fewer */
    ORIGINS_MIN = 5,
    ORIGINS_MAX = 100,
    ORIGIN_OPERATIONS = 10000, /* of an origin, where they are some in between */
    SMALLER = 10,
    CHAIN_MIN = 2,
    MISSING = 10,
    IN_STEP_MS_MAX = 600 * 1000,
    LOOK_US = 200,
    DELAY_MS = 25,
    ROUND_TRIP_US = 2 * 1000 * DELAY_MS,
};

enum { TIME, TIME_AGAIN, BYTES, SETUP_BYTES, ROUND_TRIPS, ROUND_TRIPS_BOTH };

/* Two folders of the same contents. */
struct pair_of_stores {
    uint64_t operations, origins;
    bench_spread_over over;
    bench_scratch folders[2];
};

struct handshake {
    struct pair_of_stores stores, smaller;
    bool missing; /* the variant */
};

/* ---- Making the stores ---- */

/* An origin, whose reactor is in memory, gives what it writes to the first store. */
static tandem_err write_as_another(const struct pair_of_stores *stores, const char *url)
{
    tandem_share share = TANDEM_SHARE_INIT;
    bench_member origin = {0};
    tandem_err err;

    share.direction = TANDEM_DIRECTION_PUSH;
    if ((err = bench_member_open(&origin, NULL)) == TANDEM_OK &&
        (err = bench_fill_reactor(origin.reactor, &stores->over,
                                  stores->operations / stores->origins, BENCH_FILL_GROUP)) ==
            TANDEM_OK &&
        (err = tandem_remote_add_sharing(origin.sync, "first", url, &share)) == TANDEM_OK)
        err = tandem_wait_covered(origin.sync, "first", IN_STEP_MS_MAX);
    bench_member_close(&origin);
    return err;
}

/* Answered when the index has come so far. */
static tandem_err wait_for_index(const bench_member *member)
{
    return tandem_document_head(member->reactor, "c0", "d0", UINT64_MAX, NULL, NULL, NULL);
}

/* The second store, which fetches all. */
static tandem_err fetch(const struct pair_of_stores *stores, const char *url)
{
    bench_member second = {0};
    tandem_err err;

    if ((err = bench_member_open(&second, stores->folders[1].path)) == TANDEM_OK &&
        (err = tandem_remote_add(second.sync, "first", url)) == TANDEM_OK &&
        (err = tandem_wait_in_step(second.sync, "first", IN_STEP_MS_MAX)) == TANDEM_OK &&
        (err = wait_for_index(&second)) == TANDEM_OK)
        err = tandem_remote_remove(second.sync, "first");
    bench_member_close(&second);
    return err;
}

static tandem_err make_work(void *context, void *shared)
{
    const struct pair_of_stores *stores = context;
    bench_member first = {0};
    char url[BENCH_URL_BYTES];
    tandem_err err;

    if ((err = bench_member_open(&first, stores->folders[0].path)) == TANDEM_OK)
        err = bench_member_listen(&first, url);
    for (uint64_t i = 0; err == TANDEM_OK && i < stores->origins; i++)
        err = write_as_another(stores, url);
    if (err == TANDEM_OK && (err = wait_for_index(&first)) == TANDEM_OK)
        err = fetch(stores, url);
    bench_member_close(&first);
    if (err != TANDEM_OK)
        cli_fail(err, NULL, "the stores could not be made");
    return err;
}

static tandem_err make_stores(struct pair_of_stores *stores)
{
    tandem_err err = bench_scratch_open(&stores->folders[0]);

    if (err == TANDEM_OK && (err = bench_scratch_open(&stores->folders[1])) == TANDEM_OK)
        err = bench_worker_run(make_work, stores, NULL, 0, NULL);
    return err;
}

/* ---- A handshake ---- */

/* The connections of a meeting, one after the other. */
enum { FIRST, AGAIN, DELAYED, CONNECTIONS };

struct connection {
    uint64_t opened_us, guest_us, host_us; /* when they were in step */
    uint64_t bytes, setup_bytes;
};

/* What the processes share; what is counted goes up with each connection. */
struct field {
    _Atomic uint32_t ready, connecting, host_in_step;
    char url[BENCH_URL_BYTES]; /* "": the host has failed */
    struct connection connections[CONNECTIONS];
};

struct meeting {
    const struct pair_of_stores *stores;
    bool missing;
    struct field *field;
    bench_slow_link *links[CONNECTIONS];
};

struct inbound {
    unsigned sessions, in_step;
};

static tandem_err note_session(void *context, const tandem_remote_status *status)
{
    struct inbound *inbound = context;

    inbound->sessions++;
    inbound->in_step += status->state == TANDEM_REMOTE_IN_STEP;
    return TANDEM_OK;
}

/* Wait until its one session is in step, or until it has none. */
static tandem_err wait_for_session(const bench_member *host, bool in_step)
{
    uint64_t begun_us = bench_now_us();
    struct inbound inbound;
    tandem_err err;

    for (;;) {
        inbound = (struct inbound){0, 0};
        if ((err = tandem_remotes(host->sync, note_session, &inbound)) != TANDEM_OK)
            return err;
        if (in_step ? inbound.in_step > 0 : !inbound.sessions)
            return TANDEM_OK;
        if (bench_now_us() - begun_us > IN_STEP_MS_MAX * UINT64_C(1000))
            return TANDEM_E_TIMEOUT;
        bench_sleep_until_us(bench_now_us() + LOOK_US);
    }
}

static tandem_err write_missing(const bench_member *host, const bench_spread_over *over)
{
    bench_job made[MISSING];
    tandem_job jobs[MISSING];

    for (unsigned i = 0; i < MISSING; i++) {
        bench_job_make(&made[i], over, i);
        jobs[i] = made[i].job;
    }
    return tandem_execute_group(host->reactor, jobs, MISSING, NULL, NULL, NULL);
}

static tandem_err host_meetings(const struct meeting *meeting, const bench_member *host)
{
    struct field *field = meeting->field;
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; err == TANDEM_OK && i < CONNECTIONS; i++) {
        if (meeting->missing &&
            (err = write_missing(host, &meeting->stores->over)) != TANDEM_OK)
            return err;
        atomic_store(&field->ready, i + 1);
        if ((err = bench_shared_wait(&field->connecting, i + 1)) != TANDEM_OK ||
            (err = wait_for_session(host, true)) != TANDEM_OK)
            return err;
        field->connections[i].host_us = bench_now_us();
        atomic_store(&field->host_in_step, i + 1);
        err = wait_for_session(host, false);
    }
    return err;
}

static tandem_err host_work(void *context, void *shared)
{
    const struct meeting *meeting = context;
    bench_member host = {0};
    tandem_err err;

    if ((err = bench_member_open(&host, meeting->stores->folders[0].path)) == TANDEM_OK &&
        (err = bench_member_listen(&host, meeting->field->url)) == TANDEM_OK)
        err = host_meetings(meeting, &host);
    atomic_store(&meeting->field->ready, CONNECTIONS);
    bench_member_close(&host);
    if (err != TANDEM_OK)
        cli_fail(err, NULL, "a store could not be met");
    return err;
}

static tandem_err connect_once(const struct meeting *meeting, const bench_member *guest,
                               unsigned number)
{
    struct field *field = meeting->field;
    struct connection *connection = &field->connections[number];
    bench_slow_link *link = meeting->links[number];
    bench_slow_link_counts counts;
    tandem_err err;

    if ((err = bench_shared_wait(&field->ready, number + 1)) != TANDEM_OK)
        return err;
    atomic_store(&field->connecting, number + 1);
    if ((err = tandem_remote_add(guest->sync, "host", bench_slow_link_url(link))) != TANDEM_OK ||
        (err = tandem_wait_in_step(guest->sync, "host", IN_STEP_MS_MAX)) != TANDEM_OK)
        return err;
    connection->guest_us = bench_now_us();
    if ((err = bench_shared_wait(&field->host_in_step, number + 1)) != TANDEM_OK)
        return err;
    counts = bench_slow_link_count(link);
    connection->opened_us = counts.opened_us;
    connection->setup_bytes = counts.head_bytes;
    connection->bytes = counts.bytes - counts.head_bytes;
    return tandem_remote_remove(guest->sync, "host");
}

static tandem_err guest_work(void *context, void *shared)
{
    const struct meeting *meeting = context;
    bench_member guest = {0};
    tandem_err err = bench_member_open(&guest, meeting->stores->folders[1].path);

    for (unsigned i = 0; err == TANDEM_OK && i < CONNECTIONS; i++)
        err = connect_once(meeting, &guest, i);
    bench_member_close(&guest);
    if (err != TANDEM_OK)
        cli_fail(err, NULL, "two stores did not come into step");
    return err;
}

/* ---- Turns ---- */

static double guest_took_us(const struct connection *connection)
{
    return (double)(connection->guest_us - connection->opened_us);
}

static double both_took_us(const struct connection *connection)
{
    uint64_t last_us = connection->host_us > connection->guest_us ? connection->host_us
                                                                  : connection->guest_us;

    return (double)(last_us - connection->opened_us);
}

static void evaluate(const struct connection connections[CONNECTIONS], bench_sample *out)
{
    const struct connection *again = &connections[AGAIN], *delayed = &connections[DELAYED];

    out->values[TIME] = both_took_us(&connections[FIRST]) / 1000;
    out->values[TIME_AGAIN] = both_took_us(again) / 1000;
    out->values[BYTES] = (double)again->bytes;
    out->values[SETUP_BYTES] = (double)again->setup_bytes;
    out->values[ROUND_TRIPS] =
        (guest_took_us(delayed) - guest_took_us(again)) / ROUND_TRIP_US - 1;
    out->values[ROUND_TRIPS_BOTH] =
        (both_took_us(delayed) - both_took_us(again)) / ROUND_TRIP_US - 1;
}

static tandem_err open_links(struct meeting *meeting)
{
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; err == TANDEM_OK && i < CONNECTIONS; i++)
        err = bench_slow_link_open(meeting->field->url, i == DELAYED ? DELAY_MS : 0, 0,
                                   &meeting->links[i]);
    return err;
}

static tandem_err run_meeting(struct meeting *meeting, bench_worker *workers[2], bench_sample *out)
{
    struct field *field = meeting->field;
    tandem_err err;

    if ((err = bench_worker_start(host_work, meeting, 1, &workers[0])) != TANDEM_OK ||
        (err = bench_shared_wait(&field->ready, 1)) != TANDEM_OK)
        return err;
    if (!field->url[0])
        return bench_worker_wait(workers[0], 0, NULL);
    if ((err = open_links(meeting)) != TANDEM_OK ||
        (err = bench_worker_start(guest_work, meeting, 1, &workers[1])) != TANDEM_OK ||
        (err = bench_worker_wait_all(workers, 2, &out->rss_anon_bytes)) != TANDEM_OK)
        return err;
    evaluate(field->connections, out);
    return TANDEM_OK;
}

static tandem_err meet(const struct pair_of_stores *stores, bool missing, bench_sample *out)
{
    struct meeting meeting = {.stores = stores, .missing = missing};
    bench_worker *workers[2] = {NULL, NULL};
    tandem_err err = bench_shared_open(sizeof(*meeting.field), (void **)&meeting.field);

    if (err != TANDEM_OK)
        return err;
    err = run_meeting(&meeting, workers, out);
    bench_worker_free(workers[1]);
    bench_worker_free(workers[0]);
    for (unsigned i = 0; i < CONNECTIONS; i++)
        bench_slow_link_free(meeting.links[i]);
    bench_shared_free(meeting.field, sizeof(*meeting.field));
    return err;
}

static tandem_err subject(void *context, bench_sample *out)
{
    const struct handshake *handshake = context;

    return meet(&handshake->stores, handshake->missing, out);
}

static tandem_err ceiling(void *context, const bench_sample *sample, bench_sample *out)
{
    const struct handshake *handshake = context;

    return meet(&handshake->smaller, handshake->missing, out);
}

/* ---- The bench ---- */

static void choose_sizes(struct handshake *handshake, uint64_t operations)
{
    struct pair_of_stores *stores = &handshake->stores, *smaller = &handshake->smaller;
    uint64_t collections = operations / OPERATIONS_EACH, origins = operations / ORIGIN_OPERATIONS;

    collections = collections < 1 ? 1 : collections < COLLECTIONS_MAX ? collections : COLLECTIONS_MAX;
    origins = origins < ORIGINS_MIN ? ORIGINS_MIN : origins < ORIGINS_MAX ? origins : ORIGINS_MAX;
    stores->operations = operations;
    stores->origins = origins;
    stores->over = (bench_spread_over){collections, collections};
    *smaller = *stores;
    smaller->operations = operations / SMALLER;
    if (smaller->operations < CHAIN_MIN * collections * origins)
        smaller->operations = CHAIN_MIN * collections * origins;
}

static tandem_err measure(bench_run *run, struct handshake *handshake)
{
    bench_pairs pairs;
    tandem_err err = bench_pairs_run(run, subject, ceiling, handshake, &pairs);

    if (err != TANDEM_OK)
        return err;
    bench_print_pairs(run, &pairs, TIME, "time", "ms");
    bench_print_pairs(run, &pairs, TIME_AGAIN, "time_again", "ms");
    bench_print_pairs(run, &pairs, BYTES, "bytes", "bytes");
    bench_print_pairs(run, &pairs, SETUP_BYTES, "setup_bytes", "bytes");
    bench_print_pairs(run, &pairs, ROUND_TRIPS, "round_trips", "round trips");
    bench_print_pairs(run, &pairs, ROUND_TRIPS_BOTH, "round_trips_both", "round trips");
    return TANDEM_OK;
}

/* The stores are made once for both variants: at the end of each they are equal. */
int bench_handshake(bench_run *run)
{
    static const char *const variants[] = {"equal", "missing10"};
    struct handshake handshake = {.missing = false};
    bool made = false;
    tandem_err err = TANDEM_OK;

    choose_sizes(&handshake, run->size.operations);
    for (unsigned i = 0; err == TANDEM_OK && i < 2; i++) {
        if (!bench_variant(run, variants[i]))
            continue;
        if (!made) {
            bench_progress(run, "making stores", 0, 1);
            if ((err = make_stores(&handshake.stores)) != TANDEM_OK ||
                (err = make_stores(&handshake.smaller)) != TANDEM_OK)
                break;
            made = true;
        }
        handshake.missing = i == 1;
        err = measure(run, &handshake);
    }
    for (unsigned i = 0; i < 2; i++) {
        bench_scratch_release(&handshake.stores.folders[i]);
        bench_scratch_release(&handshake.smaller.folders[i]);
    }
    return err == TANDEM_OK ? 0 : cli_exit_code(err);
}
