/*
 * Dead letters. DESIGN.md, section 7: "A job that the remote refuses for good is kept by the sender
 * (persisted, listed, retried as a new handle or discarded by command)." "Other operations flow
 * past." "A handle leaves the outbox only when the remote has it durably, or when it becomes a dead
 * letter."
 */
#include "tests/picky_peer.h"

#include <stdio.h>

#include "sync/dead_letters.h"

struct bed {
    tandem_harness *harness;
    struct picky *p;
    char log[8192]; /* lines about dead letters */
};

static void note_line(void *context, tandem_log_level level, const char *component, const char *text)
{
    struct bed *bed = context;

    (void)level;
    (void)component;
    if (strstr(text, "dead letter") && strlen(bed->log) + strlen(text) + 2 < sizeof(bed->log)) {
        strcat(bed->log, text);
        strcat(bed->log, "\n");
    }
}

static void write_kv(struct bed *bed, const char *document)
{
    tandem_input input = {.type = "kv.SET", .json = "{\"x\":1}"};
    tandem_job job = {
        .collection = "notes", .document = document, .operations = &input, .count = 1};

    assert_int_equal(TANDEM_OK, tandem_execute(tandem_harness_reactor(bed->harness, "a"), &job, NULL,
                                               NULL));
}

static tandem_sync *sync_of(struct bed *bed)
{
    return tandem_harness_sync(bed->harness, "a");
}

/* "a" has the picky "p" as its remote. */
static int bed_make(void **state)
{
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_non_null(bed);
    options.log = note_line;
    options.log_context = bed;
    options.log_level = TANDEM_LOG_INFO;
    assert_int_equal(TANDEM_OK, tandem_harness_open(&options, &bed->harness));
    assert_int_equal(TANDEM_OK, tandem_harness_add(bed->harness, "a", 0));
    bed->p = picky_open(bed->harness, "p");
    bed->p->poison = "bad";
    assert_int_equal(TANDEM_OK, tandem_remote_add(sync_of(bed), "p", "mem://p"));
    *state = bed;
    return 0;
}

static int bed_unmake(void **state)
{
    struct bed *bed = *state;

    picky_free(bed->p);
    tandem_harness_free(bed->harness);
    free(bed);
    return 0;
}

static void run(struct bed *bed)
{
    tandem_harness_run(bed->harness, 3000);
}

/* ---- What there is ---- */

struct seen {
    unsigned dead, in_flight, failed;
    uint64_t ids[TD_DEAD_LETTERS_MAX + 1];
    uint64_t first_seq, last_seq, operations, bytes, time_ms, offered;
    char collection[32], document[32], branch[32], remote[32], box[32], sentence[256];
    uint8_t reactor;
    tandem_err err;
    bool retry;
    uint64_t lowest, highest; /* ids, of all jobs */
};

static void copy(char out[32], tandem_slice name)
{
    memcpy(out, name.bytes, name.size);
    out[name.size] = 0;
}

static tandem_err note_job(void *context, const tandem_job_status *status)
{
    struct seen *seen = context;

    if (!seen->lowest || status->id < seen->lowest)
        seen->lowest = status->id;
    if (status->id > seen->highest)
        seen->highest = status->id;
    if (strcmp(status->box, "dead") != 0) {
        seen->in_flight++;
        seen->failed += status->err != TANDEM_OK;
        return TANDEM_OK;
    }
    assert_string_equal("error", status->status);
    if (seen->dead < TD_DEAD_LETTERS_MAX + 1)
        seen->ids[seen->dead] = status->id;
    if (seen->dead++)
        return TANDEM_OK;
    seen->first_seq = status->first_seq;
    seen->last_seq = status->last_seq;
    seen->operations = status->operations;
    seen->bytes = status->bytes;
    seen->time_ms = status->time_ms;
    seen->offered = status->offered;
    seen->retry = status->retry;
    seen->err = status->err;
    seen->reactor = status->reactor[0];
    copy(seen->collection, status->collection);
    copy(seen->document, status->document);
    copy(seen->branch, status->branch);
    snprintf(seen->remote, sizeof(seen->remote), "%s", status->remote ? status->remote : "-");
    snprintf(seen->sentence, sizeof(seen->sentence), "%s", status->sentence);
    return TANDEM_OK;
}

static struct seen look(struct bed *bed)
{
    struct seen seen = {0};

    assert_int_equal(TANDEM_OK, tandem_job_handles(sync_of(bed), note_job, &seen));
    return seen;
}

struct shown {
    tandem_remote_state state;
    char reason[512];
    uint64_t dead_letters, lag, retry_at_ms;
};

static tandem_err note_remote(void *context, const tandem_remote_status *status)
{
    struct shown *shown = context;

    shown->state = status->state;
    snprintf(shown->reason, sizeof(shown->reason), "%s", status->reason);
    shown->dead_letters = status->dead_letters;
    shown->lag = status->lag_operations;
    shown->retry_at_ms = status->retry_at_ms;
    return TANDEM_OK;
}

static struct shown show(struct bed *bed)
{
    struct shown shown = {0};

    assert_int_equal(TANDEM_OK, tandem_remotes(sync_of(bed), note_remote, &shown));
    return shown;
}

static void restart(struct bed *bed)
{
    assert_int_equal(TANDEM_OK, tandem_harness_crash(bed->harness, "a"));
    run(bed);
    assert_int_equal(TANDEM_OK, tandem_harness_restart(bed->harness, "a"));
    run(bed);
}

/* "good", then what is refused, then "after": seqs 1 to 6. */
static void have_one_refused(struct bed *bed)
{
    write_kv(bed, "good");
    write_kv(bed, "bad");
    write_kv(bed, "after");
    run(bed);
    assert_int_equal(1, look(bed).dead);
}

/* ---- The tests ---- */

static void a_refused_job_is_kept_and_what_follows_flows_past(void **state)
{
    struct bed *bed = *state;
    struct seen seen;
    struct shown shown;
    tandem_stat stat;

    have_one_refused(bed);
    for (uint64_t seq = 1; seq <= 6; seq++)
        assert_int_equal(seq != 3 && seq != 4, bed->p->took[seq]);
    seen = look(bed);
    assert_int_equal(0, seen.in_flight);
    assert_true(seen.ids[0] > 0);
    assert_int_equal(3, seen.first_seq);
    assert_int_equal(4, seen.last_seq);
    assert_int_equal(2, seen.operations);
    assert_true(seen.bytes > 100);
    assert_true(seen.time_ms > 0);
    assert_int_equal(1, seen.offered);
    assert_false(seen.retry);
    assert_int_equal(TANDEM_E_REFUSED, seen.err);
    assert_string_equal(tandem_err_text(TANDEM_E_REFUSED), seen.sentence);
    assert_string_equal("notes", seen.collection);
    assert_string_equal("bad", seen.document);
    assert_string_equal("main", seen.branch);
    assert_string_equal("p", seen.remote);
    assert_int_equal('p', seen.reactor);
    shown = show(bed);
    assert_int_equal(TANDEM_REMOTE_BLOCKED, shown.state);
    assert_non_null(strstr(shown.reason, "1 job was refused there, the first in notes"));
    assert_non_null(strstr(shown.reason, "TANDEM_E_REFUSED"));
    assert_int_equal(1, shown.dead_letters);
    assert_int_equal(0, shown.lag);
    assert_int_equal(TANDEM_OK, tandem_stat_get(tandem_harness_reactor(bed->harness, "a"), &stat));
    assert_int_equal(1, stat.events[TANDEM_EVENT_DEAD_LETTER]);
    assert_non_null(strstr(bed->log, "p refuses job"));
}

static void a_job_that_cannot_be_taken_stops_what_hangs_on_it(void **state)
{
    struct bed *bed = *state;

    bed->p->err = TANDEM_E_CHAIN;
    write_kv(bed, "good");
    write_kv(bed, "bad");
    run(bed);
    write_kv(bed, "after");
    run(bed);
    assert_int_equal(1, look(bed).dead);
    assert_int_equal(TANDEM_E_CHAIN, look(bed).err);
    assert_int_equal(0, bed->p->took[5]);
    assert_int_equal(TANDEM_REMOTE_BLOCKED, show(bed).state);
    assert_non_null(strstr(show(bed).reason, "TANDEM_E_CHAIN"));
    /* Once it is taken, all else comes. */
    bed->p->poison = NULL;
    assert_int_equal(TANDEM_OK, tandem_job_retry(sync_of(bed), look(bed).ids[0]));
    run(bed);
    for (uint64_t seq = 1; seq <= 6; seq++)
        assert_int_equal(1, bed->p->took[seq]);
    assert_int_equal(0, look(bed).dead);
    assert_int_equal(TANDEM_REMOTE_IN_STEP, show(bed).state);
}

static void a_dead_letter_survives_a_restart(void **state)
{
    struct bed *bed = *state;
    struct seen before, after;

    have_one_refused(bed);
    before = look(bed);
    bed->p->announces = true;
    restart(bed);
    after = look(bed);
    assert_int_equal(1, after.dead);
    assert_int_equal(before.ids[0], after.ids[0]);
    assert_int_equal(before.time_ms, after.time_ms);
    assert_int_equal(1, after.offered);
    assert_int_equal(1, bed->p->sent_poison); /* nobody offers what it announces to refuse */
    assert_int_equal(TANDEM_REMOTE_BLOCKED, show(bed).state);
    assert_non_null(strstr(show(bed).reason, "1 job was refused there"));
    assert_int_equal(1, show(bed).dead_letters);
}

static void refused_again_it_is_the_same_letter(void **state)
{
    struct bed *bed = *state;
    struct seen before, after;

    have_one_refused(bed);
    before = look(bed);
    memset(&bed->p->head, 0, sizeof(bed->p->head)); /* it has lost everything */
    picky_hang_up(bed->p);
    run(bed);
    after = look(bed);
    assert_int_equal(2, bed->p->sent_poison);
    assert_int_equal(1, after.dead);
    assert_int_equal(before.ids[0], after.ids[0]);
    assert_int_equal(2, after.offered);
    assert_true(after.time_ms > before.time_ms);
    bed->p->announces = true;
    restart(bed);
    assert_int_equal(2, look(bed).offered);
    assert_int_equal(after.time_ms, look(bed).time_ms);
}

static void what_the_remote_holds_after_all_is_removed(void **state)
{
    struct bed *bed = *state;

    have_one_refused(bed);
    picky_hang_up(bed->p); /* and then it announces seq 6, and no refusal */
    run(bed);
    assert_int_equal(0, look(bed).dead);
    assert_int_equal(0, show(bed).dead_letters);
    assert_int_equal(TANDEM_REMOTE_IN_STEP, show(bed).state);
    assert_non_null(strstr(bed->log, "p holds what it had refused"));
    restart(bed);
    assert_int_equal(0, look(bed).dead);
}

static void a_retried_one_is_delivered_and_removed(void **state)
{
    struct bed *bed = *state;
    uint64_t id;

    have_one_refused(bed);
    id = look(bed).ids[0];
    bed->p->poison = NULL;
    run(bed);
    assert_int_equal(0, bed->p->took[3]); /* by itself it is not offered */
    assert_int_equal(TANDEM_OK, tandem_job_retry(sync_of(bed), id));
    run(bed);
    assert_int_equal(1, bed->p->took[3]);
    assert_int_equal(1, bed->p->took[4]);
    assert_int_equal(1, bed->p->took[5]);
    assert_int_equal(0, look(bed).dead);
    assert_int_equal(TANDEM_REMOTE_IN_STEP, show(bed).state);
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_job_retry(sync_of(bed), id));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_job_discard(sync_of(bed), id));
}

static void a_retried_one_is_a_new_handle(void **state)
{
    struct bed *bed = *state;
    struct seen seen;

    have_one_refused(bed);
    bed->p->mute = true;
    assert_int_equal(TANDEM_OK, tandem_job_retry(sync_of(bed), look(bed).ids[0]));
    run(bed);
    seen = look(bed);
    assert_int_equal(1, seen.dead); /* until the outcome is known */
    assert_true(seen.retry);
    assert_int_equal(1, seen.in_flight);
    assert_true(seen.highest > seen.ids[0]);
    assert_int_equal(TANDEM_REMOTE_PUSHING, show(bed).state);
    bed->p->mute = false;
    write_kv(bed, "more");
    run(bed);
    seen = look(bed);
    assert_int_equal(1, seen.dead);
    assert_int_equal(0, seen.in_flight);
    assert_int_equal(2, seen.offered);
    assert_false(seen.retry);
    assert_int_equal(2, bed->p->sent_poison);
}

static void one_retried_while_the_remote_is_away_is_offered_when_it_is_back(void **state)
{
    struct bed *bed = *state;

    have_one_refused(bed);
    bed->p->announces = true; /* whatever it announces */
    tandem_harness_cut(bed->harness, "a", "p");
    picky_hang_up(bed->p);
    run(bed);
    assert_int_equal(TANDEM_OK, tandem_job_retry(sync_of(bed), look(bed).ids[0]));
    restart(bed);
    assert_true(look(bed).retry);
    assert_int_equal(1, bed->p->sent_poison);
    tandem_harness_heal(bed->harness, "a", "p");
    tandem_harness_run(bed->harness, 120000);
    assert_int_equal(2, bed->p->sent_poison);
    assert_int_equal(2, look(bed).offered);
    assert_false(look(bed).retry);
}

static void a_retried_one_that_is_lost_on_the_way_is_offered_again(void **state)
{
    struct bed *bed = *state;

    have_one_refused(bed);
    bed->p->announces = true;
    bed->p->mute = true;
    assert_int_equal(TANDEM_OK, tandem_job_retry(sync_of(bed), look(bed).ids[0]));
    run(bed);
    assert_int_equal(2, bed->p->sent_poison);
    picky_hang_up(bed->p);
    bed->p->mute = false;
    bed->p->poison = NULL;
    run(bed);
    assert_int_equal(1, bed->p->took[3]);
    assert_int_equal(0, look(bed).dead);
    assert_int_equal(0, look(bed).in_flight);
}

static void a_discarded_one_is_gone(void **state)
{
    struct bed *bed = *state;

    have_one_refused(bed);
    bed->p->announces = true;
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_job_discard(sync_of(bed), look(bed).ids[0] + 1));
    assert_int_equal(TANDEM_OK, tandem_job_discard(sync_of(bed), look(bed).ids[0]));
    assert_int_equal(0, look(bed).dead);
    assert_int_equal(0, show(bed).dead_letters);
    assert_int_equal(TANDEM_REMOTE_IN_STEP, show(bed).state);
    restart(bed);
    assert_int_equal(0, look(bed).dead);
    assert_int_equal(1, bed->p->sent_poison);
}

static void one_discarded_while_it_is_offered_again_stays_away(void **state)
{
    struct bed *bed = *state;

    have_one_refused(bed);
    bed->p->mute = true;
    assert_int_equal(TANDEM_OK, tandem_job_retry(sync_of(bed), look(bed).ids[0]));
    run(bed);
    assert_int_equal(TANDEM_OK, tandem_job_discard(sync_of(bed), look(bed).ids[0]));
    bed->p->mute = false;
    write_kv(bed, "more");
    run(bed);
    assert_int_equal(0, look(bed).dead);
    assert_int_equal(0, look(bed).in_flight);
}

static void without_room_on_the_disk_the_handle_stays(void **state)
{
    struct bed *bed = *state;
    uint64_t id;

    write_kv(bed, "good");
    bed->p->mute = true;
    write_kv(bed, "bad");
    run(bed);
    bed->p->mute = false;
    assert_int_equal(TANDEM_OK, tandem_harness_fail_disk(bed->harness, "a", TANDEM_HARNESS_COMMIT,
                                                         TANDEM_E_STORE_FULL, UINT32_MAX));
    picky_want_write(bed->p);
    run(bed);
    assert_int_equal(0, look(bed).dead);
    assert_int_equal(1, look(bed).in_flight);
    assert_int_equal(1, look(bed).failed);
    id = look(bed).lowest;
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_job_discard(sync_of(bed), id));
    assert_int_equal(TANDEM_REMOTE_BACKING_OFF, show(bed).state);
    assert_non_null(strstr(show(bed).reason, "1 refused job cannot be kept as a dead letter"));
    assert_non_null(strstr(show(bed).reason, "TANDEM_E_STORE_FULL"));
    assert_true(show(bed).retry_at_ms > 0);
    assert_int_equal(TANDEM_E_REFUSED, tandem_wait_covered(sync_of(bed), "p", 1000));
    /* Nor does it go with its session. */
    bed->p->announces = true;
    picky_hang_up(bed->p);
    run(bed);
    assert_int_equal(1, look(bed).failed);
    assert_int_equal(TANDEM_OK, tandem_harness_fail_disk(bed->harness, "a", TANDEM_HARNESS_COMMIT,
                                                         TANDEM_E_STORE_FULL, 0));
    run(bed);
    assert_int_equal(1, look(bed).dead);
    assert_int_equal(id, look(bed).ids[0]);
    assert_int_equal(0, look(bed).in_flight);
    assert_int_equal(TANDEM_REMOTE_BLOCKED, show(bed).state);
    restart(bed);
    assert_int_equal(1, look(bed).dead);
}

static void a_remote_that_refuses_too_much_is_sent_nothing_more(void **state)
{
    struct bed *bed = *state;
    struct seen seen;

    for (unsigned i = 0; i < TD_DEAD_LETTERS_MAX + 3; i++)
        write_kv(bed, "bad");
    run(bed);
    seen = look(bed);
    assert_int_equal(TD_DEAD_LETTERS_MAX, seen.dead);
    assert_int_equal(3, seen.in_flight);
    write_kv(bed, "good");
    run(bed);
    assert_int_equal(0, bed->p->head.seq);
    assert_int_equal(TANDEM_REMOTE_BLOCKED, show(bed).state);
    assert_non_null(strstr(show(bed).reason, "1027 jobs were refused there, and no more"));
    assert_int_equal(TANDEM_OK, tandem_job_discard(sync_of(bed), seen.ids[0]));
    assert_int_equal(TANDEM_OK, tandem_job_discard(sync_of(bed), seen.ids[1]));
    assert_int_equal(TANDEM_OK, tandem_job_discard(sync_of(bed), seen.ids[2]));
    run(bed);
    assert_int_equal(TD_DEAD_LETTERS_MAX, look(bed).dead);
    assert_int_equal(0, look(bed).in_flight);
    assert_true(bed->p->head.seq > 0);
}

static void strangers_letters_are_bounded_and_block_nobody(void **state)
{
    struct bed *bed = *state;
    struct picky *q = picky_open(bed->harness, "q");
    uint64_t first;

    q->poison = "bad";
    picky_dial(q, "mem://a");
    write_kv(bed, "bad");
    run(bed);
    assert_int_equal(2, look(bed).dead); /* p's, and q's */
    assert_int_equal(TANDEM_OK, tandem_remote_remove(sync_of(bed), "p"));
    assert_int_equal(1, look(bed).dead);
    assert_string_equal("-", look(bed).remote);
    assert_int_equal('q', look(bed).reactor);
    first = look(bed).ids[0];
    for (unsigned i = 0; i < TD_DEAD_LETTERS_MAX; i++)
        write_kv(bed, "bad");
    write_kv(bed, "good");
    run(bed);
    assert_int_equal(TD_DEAD_LETTERS_MAX, look(bed).dead);
    assert_true(look(bed).ids[0] > first);
    assert_int_equal(0, look(bed).in_flight);
    assert_true(q->head.seq > 0);
    restart(bed);
    assert_int_equal(TD_DEAD_LETTERS_MAX, look(bed).dead);
    picky_free(q);
}

static void dead_letters_go_with_their_remote(void **state)
{
    struct bed *bed = *state;

    have_one_refused(bed);
    assert_int_equal(TANDEM_OK, tandem_remote_remove(sync_of(bed), "p"));
    run(bed);
    assert_int_equal(0, look(bed).dead);
    restart(bed);
    assert_int_equal(0, look(bed).dead);
}

static void a_barrier_tells_that_something_was_refused(void **state)
{
    struct bed *bed = *state;

    have_one_refused(bed);
    assert_int_equal(TANDEM_E_REFUSED, tandem_wait_covered(sync_of(bed), "p", 10000));
    assert_int_equal(TANDEM_E_TIMEOUT, tandem_wait_in_step(sync_of(bed), "p", 1000));
    assert_int_equal(TANDEM_OK, tandem_job_discard(sync_of(bed), look(bed).ids[0]));
    assert_int_equal(TANDEM_OK, tandem_wait_covered(sync_of(bed), "p", 10000));
}

/* What was refused after the barrier was opened is none of its business. */
static void a_barrier_looks_at_what_there_was(void **state)
{
    struct bed *bed = *state;
    tandem_barrier *barrier;

    write_kv(bed, "good");
    run(bed);
    bed->p->mute = true;
    write_kv(bed, "more");
    assert_int_equal(TANDEM_OK, tandem_barrier_open(sync_of(bed), "p", &barrier));
    write_kv(bed, "bad");
    bed->p->mute = false;
    run(bed);
    assert_int_equal(1, look(bed).dead);
    assert_int_equal(TANDEM_OK, tandem_barrier_wait(barrier, 10000));
    tandem_barrier_free(barrier);
}

static void no_id_is_given_twice(void **state)
{
    struct bed *bed = *state;
    uint64_t highest;

    bed->p->mute = true;
    write_kv(bed, "good");
    run(bed);
    highest = look(bed).highest;
    assert_true(highest > 0);
    for (int i = 0; i < 3; i++) {
        restart(bed);
        write_kv(bed, "good");
        run(bed);
        assert_int_equal(1, look(bed).in_flight);
        assert_true(look(bed).lowest > highest);
        highest = look(bed).highest;
    }
    bed->p->mute = false;
    picky_want_write(bed->p);
    have_one_refused(bed);
    assert_true(look(bed).ids[0] > highest);
}

/* ---- A reactor that refuses ---- */

struct rule {
    bool off;
    unsigned refused;
};

static bool nothing_bad(void *context, const tandem_operation *operation)
{
    struct rule *rule = context;

    if (rule->off || !tandem_slice_equal(operation->document, tandem_slice_text("bad")))
        return true;
    rule->refused++;
    return false;
}

/* "a" has "b", which refuses what is bad, as its remote, beside "p", which takes all; among what it has
 * written one job is bad. */
static void have_one_refused_by(struct bed *bed, struct rule *rule, unsigned count)
{
    bed->p->poison = NULL;
    assert_int_equal(TANDEM_OK, tandem_harness_add(bed->harness, "b", 0));
    assert_int_equal(TANDEM_OK,
                     tandem_harness_set_admission(bed->harness, "b", nothing_bad, rule));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(bed->harness, "a", "b"));
    run(bed);
    for (unsigned i = 0; i < count; i++) {
        char document[16];

        snprintf(document, sizeof(document), "n%u", i);
        write_kv(bed, i == count / 2 ? "bad" : document);
    }
    tandem_harness_run(bed->harness, 10000);
    assert_int_equal(1, look(bed).dead);
    assert_string_equal("b", look(bed).remote);
    assert_int_equal(1, rule->refused);
}

static void restart_both(struct bed *bed)
{
    assert_int_equal(TANDEM_OK, tandem_harness_crash(bed->harness, "b"));
    restart(bed);
    assert_int_equal(TANDEM_OK, tandem_harness_restart(bed->harness, "b"));
    tandem_harness_run(bed->harness, 60000);
}

static void assert_converged(struct bed *bed)
{
    char why[256];

    assert_int_equal(TANDEM_OK, tandem_harness_run_until_converged(bed->harness, 60000, why));
}

static void a_poisoned_job_among_many_comes_when_it_is_retried(void **state)
{
    struct bed *bed = *state;
    struct rule rule = {.off = false};
    tandem_stat a, b;
    struct seen seen;

    have_one_refused_by(bed, &rule, 1001);
    restart_both(bed);
    seen = look(bed);
    assert_int_equal(1, seen.dead);
    assert_string_equal("bad", seen.document);
    assert_int_equal(1, seen.offered);
    assert_int_equal(1, rule.refused);
    assert_int_equal(TANDEM_OK, tandem_stat_get(tandem_harness_reactor(bed->harness, "a"), &a));
    assert_int_equal(TANDEM_OK, tandem_stat_get(tandem_harness_reactor(bed->harness, "b"), &b));
    assert_int_equal(2002, a.operations);
    assert_int_equal(2000, b.operations);
    /* Too early; then not. */
    assert_int_equal(TANDEM_OK, tandem_job_retry(sync_of(bed), seen.ids[0]));
    run(bed);
    assert_int_equal(2, look(bed).offered);
    assert_int_equal(2, rule.refused);
    rule.off = true;
    assert_int_equal(TANDEM_OK, tandem_job_retry(sync_of(bed), seen.ids[0]));
    run(bed);
    assert_int_equal(0, look(bed).dead);
    assert_converged(bed);
    assert_int_equal(TANDEM_OK, tandem_wait_covered(sync_of(bed), "b", 10000));
    restart_both(bed);
    assert_int_equal(0, look(bed).dead);
    assert_converged(bed);
}

static void one_that_the_remote_gets_elsewhere_is_removed(void **state)
{
    struct bed *bed = *state;
    struct rule rule = {.off = false};

    have_one_refused_by(bed, &rule, 11);
    assert_int_equal(TANDEM_OK, tandem_harness_add(bed->harness, "c", 0));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(bed->harness, "c", "a"));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(bed->harness, "c", "b"));
    tandem_harness_run(bed->harness, 20000);
    assert_int_equal(1, look(bed).dead);
    tandem_harness_cut(bed->harness, "a", "b");
    rule.off = true;
    assert_int_equal(TANDEM_OK,
                     tandem_withdraw_refusals(tandem_harness_reactor(bed->harness, "b")));
    tandem_harness_run(bed->harness, 20000);
    assert_int_equal(1, look(bed).dead); /* nobody could tell */
    tandem_harness_heal(bed->harness, "a", "b");
    tandem_harness_run(bed->harness, 60000);
    assert_int_equal(0, look(bed).dead);
    assert_converged(bed);
}

static void a_refusal_whose_answer_was_lost_is_kept_too(void **state)
{
    struct bed *bed = *state;
    struct rule rule = {.off = false};

    have_one_refused_by(bed, &rule, 11);
    assert_int_equal(TANDEM_OK, tandem_job_discard(sync_of(bed), look(bed).ids[0]));
    tandem_harness_cut_one_way(bed->harness, "b", "a");
    write_kv(bed, "bad");
    run(bed);
    assert_int_equal(2, rule.refused);
    assert_int_equal(0, look(bed).dead);
    tandem_harness_half_open(bed->harness, "a", "b");
    tandem_harness_half_open(bed->harness, "b", "a");
    tandem_harness_heal(bed->harness, "a", "b");
    tandem_harness_run(bed->harness, 120000);
    assert_int_equal(1, look(bed).dead);
    assert_int_equal(0, look(bed).in_flight);
    assert_int_equal(2, rule.refused);
}

static void a_call_that_lacks_something_is_refused(void **state)
{
    struct bed *bed = *state;

    assert_int_equal(TANDEM_E_INVALID, tandem_job_retry(NULL, 1));
    assert_int_equal(TANDEM_E_INVALID, tandem_job_discard(NULL, 1));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_job_retry(sync_of(bed), 1));
    assert_int_equal(TANDEM_E_NOT_FOUND, tandem_job_discard(sync_of(bed), 1));
}

#define ON_BED(test) cmocka_unit_test_setup_teardown(test, bed_make, bed_unmake)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        ON_BED(a_refused_job_is_kept_and_what_follows_flows_past),
        ON_BED(a_job_that_cannot_be_taken_stops_what_hangs_on_it),
        ON_BED(a_dead_letter_survives_a_restart),
        ON_BED(refused_again_it_is_the_same_letter),
        ON_BED(what_the_remote_holds_after_all_is_removed),
        ON_BED(a_retried_one_is_delivered_and_removed),
        ON_BED(a_retried_one_is_a_new_handle),
        ON_BED(one_retried_while_the_remote_is_away_is_offered_when_it_is_back),
        ON_BED(a_retried_one_that_is_lost_on_the_way_is_offered_again),
        ON_BED(a_discarded_one_is_gone),
        ON_BED(one_discarded_while_it_is_offered_again_stays_away),
        ON_BED(without_room_on_the_disk_the_handle_stays),
        ON_BED(a_remote_that_refuses_too_much_is_sent_nothing_more),
        ON_BED(strangers_letters_are_bounded_and_block_nobody),
        ON_BED(dead_letters_go_with_their_remote),
        ON_BED(a_barrier_tells_that_something_was_refused),
        ON_BED(a_barrier_looks_at_what_there_was),
        ON_BED(no_id_is_given_twice),
        ON_BED(a_poisoned_job_among_many_comes_when_it_is_retried),
        ON_BED(one_that_the_remote_gets_elsewhere_is_removed),
        ON_BED(a_refusal_whose_answer_was_lost_is_kept_too),
        ON_BED(a_call_that_lacks_something_is_refused),
    };

    return cmocka_run_group_tests_name("dead letters", tests, NULL, NULL);
}
