/*
 * The conformance suite of the actor runtimes: what actor.h and runtime.h promise, against each.
 *
 * argv[1] names the runtime: threads, driven (threads with a loop host that the test polls) or
 * simulation. The suite runs once per kind of host.
 */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <uv.h>

#include <cmocka.h>

#include "reactor/actor.h"
#include "reactor/runtime.h"

enum { SEEN_MAX = 8192, PRODUCERS = 4, PER_PRODUCER = 2000, BETWEEN_DRAINED_MAX = 1024 };

enum { NOTE, TASK };

static enum { THREADS, DRIVEN, SIMULATION } runtime_kind;
static td_host_kind host_kind;

/* An actor that keeps a diary. Read it only after an answer from its host. */
struct probe {
    td_actor *actor;
    td_host *host;
    int seen[SEEN_MAX];
    int count;
    int drained;
    int since_drained, since_drained_max;
    td_reply *drained_reply; /* answered by the drained call that follows drained_at messages */
    int drained_at;
};

struct note {
    td_message message;
    int value;
    int *dropped; /* counted up by a drop; NULL */
};

/* Code to run in an actor. */
struct task {
    td_message message;
    void (*run)(void *argument);
    void *argument;
    td_reply *reply;
};

struct fixture {
    td_simulation *simulation;
    td_runtime *runtime;
    td_host *host;
    struct probe a, b;
};

static void note_drop(td_message *message)
{
    struct note *note = (struct note *)message;

    if (note->dropped)
        ++*note->dropped;
    free(note);
}

static struct note *note_of(int value, int *dropped)
{
    struct note *note = calloc(1, sizeof(*note));

    assert_non_null(note);
    note->message.kind = NOTE;
    note->message.drop = note_drop;
    note->value = value;
    note->dropped = dropped;
    return note;
}

static void post(struct probe *probe, int value)
{
    td_actor_post(probe->actor, &note_of(value, NULL)->message);
}

static void task_drop(td_message *message)
{
    struct task *task = (struct task *)message;

    if (task->reply)
        td_reply_set(task->reply, TANDEM_E_CLOSED);
    free(task);
}

static struct task *question_of(void (*run)(void *), void *argument, td_reply *reply)
{
    struct task *task = calloc(1, sizeof(*task));

    assert_non_null(task);
    task->message.kind = TASK;
    task->message.drop = task_drop;
    task->run = run;
    task->argument = argument;
    task->reply = reply;
    return task;
}

static void post_task(struct probe *probe, void (*run)(void *), void *argument, td_reply *reply)
{
    td_actor_post(probe->actor, &question_of(run, argument, reply)->message);
}

static void probe_handle(void *self, td_message *message)
{
    struct probe *probe = self;

    if (++probe->since_drained > probe->since_drained_max)
        probe->since_drained_max = probe->since_drained;
    if (message->kind == TASK) {
        struct task *task = (struct task *)message;

        if (task->run)
            task->run(task->argument);
        if (task->reply)
            td_reply_set(task->reply, TANDEM_OK);
        free(task);
    } else {
        struct note *note = (struct note *)message;

        assert_true(probe->count < SEEN_MAX);
        probe->seen[probe->count++] = note->value;
        free(note);
    }
}

static void probe_drained(void *self)
{
    struct probe *probe = self;
    td_reply *reply = probe->drained_reply;

    probe->drained++;
    probe->since_drained = 0;
    if (reply && probe->count >= probe->drained_at) {
        probe->drained_reply = NULL;
        td_reply_set(reply, TANDEM_OK);
    }
}

static const td_actor_ops probe_ops = {
    .name = "probe", .handle = probe_handle, .drained = probe_drained,
};

static void probe_open(struct probe *probe, td_host *host)
{
    probe->host = host;
    assert_int_equal(TANDEM_OK, td_actor_open(host, &probe_ops, probe, &probe->actor));
    assert_ptr_equal(host, td_actor_host(probe->actor));
}

static td_reply *reply_of(struct fixture *f)
{
    td_reply *reply;

    assert_int_equal(TANDEM_OK, td_reply_open(f->runtime, &reply));
    return reply;
}

/* Wait without moving a simulation past what it needs; where the test drives the loop, drive it. */
static tandem_err await(struct fixture *f, td_reply *reply)
{
    tandem_err err;

    if (td_host_fd(f->host) < 0)
        return td_reply_wait(reply, UINT64_MAX);
    while ((err = td_reply_wait(reply, 0)) == TANDEM_E_TIMEOUT) {
        struct pollfd ready = {.fd = td_host_fd(f->host), .events = POLLIN};

        poll(&ready, 1, td_host_timeout_ms(f->host));
        assert_int_equal(TANDEM_OK, td_host_poll(f->host));
    }
    return err;
}

/* Run code in an actor and wait for it. */
static void call(struct fixture *f, struct probe *probe, void (*run)(void *), void *argument)
{
    td_reply *reply = reply_of(f);

    post_task(probe, run, argument, reply);
    assert_int_equal(TANDEM_OK, await(f, reply));
    td_reply_free(reply);
}

/* Wait until all that the actor has been posted before is handled. */
static void settle(struct fixture *f, struct probe *probe)
{
    call(f, probe, NULL, NULL);
}

static int fixture_open(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    if (runtime_kind == SIMULATION) {
        assert_int_equal(TANDEM_OK, td_simulation_open(7, &f->simulation));
        assert_int_equal(TANDEM_OK, td_simulation_runtime(f->simulation, "a", 0, &f->runtime));
    } else {
        assert_int_equal(TANDEM_OK, td_threads_open(runtime_kind == DRIVEN, NULL, NULL,
                                                    TANDEM_LOG_ERROR, &f->runtime));
    }
    assert_int_equal(TANDEM_OK, td_host_open(f->runtime, host_kind, "suite-host-long-name",
                                             &f->host));
    probe_open(&f->a, f->host);
    probe_open(&f->b, f->host);
    *state = f;
    return 0;
}

static int fixture_free(void **state)
{
    struct fixture *f = *state;

    td_host_stop(f->host);
    td_actor_free(f->a.actor);
    td_actor_free(f->b.actor);
    td_host_free(f->host);
    td_runtime_free(f->runtime);
    td_simulation_free(f->simulation);
    free(f);
    return 0;
}

/* ---- Mailboxes ---- */

static void messages_of_one_actor_are_handled_in_order(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 3000; i++) {
        post(&f->a, i);
        post(&f->b, -i);
    }
    settle(f, &f->a);
    settle(f, &f->b);
    assert_int_equal(3000, f->a.count);
    assert_int_equal(3000, f->b.count);
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(i, f->a.seen[i]);
        assert_int_equal(-i, f->b.seen[i]);
    }
}

struct producer {
    pthread_t thread;
    struct probe *probe;
    int number;
};

static void *produce(void *self)
{
    struct producer *producer = self;

    for (int i = 0; i < PER_PRODUCER; i++)
        post(producer->probe, producer->number * PER_PRODUCER + i);
    return NULL;
}

static void many_producers_each_keep_their_order(void **state)
{
    struct fixture *f = *state;
    struct producer producers[PRODUCERS];
    int next[PRODUCERS] = {0};
    td_reply *reply = reply_of(f);

    f->a.drained_reply = reply;
    f->a.drained_at = PRODUCERS * PER_PRODUCER;
    for (int i = 0; i < PRODUCERS; i++) {
        producers[i] = (struct producer){.probe = &f->a, .number = i};
        assert_int_equal(0, pthread_create(&producers[i].thread, NULL, produce, &producers[i]));
    }
    assert_int_equal(TANDEM_OK, await(f, reply));
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(producers[i].thread, NULL);
    for (int i = 0; i < PRODUCERS * PER_PRODUCER; i++) {
        int producer = f->a.seen[i] / PER_PRODUCER;

        assert_int_equal(next[producer]++, f->a.seen[i] % PER_PRODUCER);
    }
    td_reply_free(reply);
}

static void post_a_burst(void *argument)
{
    struct fixture *f = argument;

    for (int i = 0; i < 5000; i++)
        post(&f->a, i);
}

static void drained_follows_a_burst_and_interrupts_a_long_one(void **state)
{
    struct fixture *f = *state;
    td_reply *reply = reply_of(f);

    f->a.drained_reply = reply;
    f->a.drained_at = 5000;
    call(f, &f->b, post_a_burst, f);
    assert_int_equal(TANDEM_OK, await(f, reply));
    settle(f, &f->b);
    assert_true(f->a.drained >= 5);
    assert_true(f->a.drained < 5000); /* once for many, or it would be no use */
    assert_true(f->a.since_drained_max <= BETWEEN_DRAINED_MAX);
    td_reply_free(reply);
}

static void what_was_handled_before_a_stop_is_drained(void **state)
{
    struct fixture *f = *state;
    int dropped = 0;

    for (int i = 0; i < 200; i++)
        td_actor_post(f->a.actor, &note_of(i, &dropped)->message);
    if (runtime_kind == SIMULATION)
        for (int i = 0; i < 101; i++)
            td_simulation_step(f->simulation, 0);
    td_host_stop(f->host);
    assert_int_equal(0, f->a.since_drained);
    td_actor_free(f->a.actor);
    f->a.actor = NULL;
    assert_int_equal(200, f->a.count + dropped);
}

static int plain_count;

static void plain_handle(void *self, td_message *message)
{
    plain_count++;
    message->drop(message);
}

static void an_actor_needs_no_drained(void **state)
{
    static const td_actor_ops plain_ops = {.name = "plain", .handle = plain_handle};
    struct fixture *f = *state;
    td_actor *plain;

    plain_count = 0;
    assert_int_equal(TANDEM_OK, td_actor_open(f->host, &plain_ops, NULL, &plain));
    td_actor_post(plain, &note_of(1, NULL)->message);
    settle(f, &f->a);
    td_host_stop(f->host);
    if (runtime_kind != SIMULATION) /* there the settling may have come first */
        assert_int_equal(1, plain_count);
    td_actor_free(plain);
}

/* ---- Timers ---- */

enum { TIMERS = 9 };

struct timed {
    struct fixture *f;
    uint64_t due_us[TIMERS]; /* as the runtime noted it: a slow machine may stretch the starts */
};

static void start_timers(void *argument)
{
    static const uint64_t delays_ms[TIMERS] = {18, 6, 14, 6, 0, 10, 6, 18, 2};
    struct timed *timed = argument;

    for (int i = 0; i < TIMERS; i++) {
        struct note *note = note_of(i, NULL);

        td_actor_post_after(timed->f->a.actor, &note->message, delays_ms[i]);
        timed->due_us[i] = note->message.due_us;
    }
}

static void timers_come_in_order_of_due_then_of_start(void **state)
{
    struct fixture *f = *state;
    struct timed timed = {.f = f};
    td_reply *reply = reply_of(f);

    f->a.drained_reply = reply;
    f->a.drained_at = TIMERS;
    call(f, &f->a, start_timers, &timed);
    assert_int_equal(TANDEM_OK, await(f, reply));
    for (int i = 1; i < TIMERS; i++) {
        int before = f->a.seen[i - 1], after = f->a.seen[i];

        assert_true(timed.due_us[before] < timed.due_us[after] ||
                    (timed.due_us[before] == timed.due_us[after] && before < after));
    }
    td_reply_free(reply);
}

static uint64_t timer_started_us;

static void start_one_timer(void *argument)
{
    struct fixture *f = argument;

    timer_started_us = td_env_monotonic_us(f->runtime->env);
    td_actor_post_after(f->a.actor, &note_of(1, NULL)->message, 20);
}

static void a_timer_never_comes_early(void **state)
{
    struct fixture *f = *state;
    td_reply *reply = reply_of(f);

    f->a.drained_reply = reply;
    f->a.drained_at = 1;
    call(f, &f->a, start_one_timer, f);
    assert_int_equal(TANDEM_OK, await(f, reply));
    assert_true(td_env_monotonic_us(f->runtime->env) - timer_started_us >= 20000);
    td_reply_free(reply);
}

/* Thousands at once, a third of them cancelled, in an order that is none. */
struct many_timers {
    struct fixture *f;
    struct note *notes[3000];
    uint64_t due_us[3000]; /* by value */
};

static int due_of(int i)
{
    return i * 7919 % 3000;
}

static void start_many_timers(void *argument)
{
    struct many_timers *many = argument;

    for (int i = 0; i < 3000; i++) {
        many->notes[i] = note_of(due_of(i), NULL);
        td_actor_post_after(many->f->a.actor, &many->notes[i]->message,
                            5 + (uint64_t)due_of(i) / 100);
        many->due_us[due_of(i)] = many->notes[i]->message.due_us;
    }
    for (int i = 0; i < 3000; i += 3) {
        assert_true(td_actor_cancel(many->f->a.actor, &many->notes[i]->message));
        assert_false(td_actor_cancel(many->f->a.actor, &many->notes[i]->message));
        note_drop(&many->notes[i]->message);
    }
}

static void cancelled_timers_never_come_and_all_others_do(void **state)
{
    struct fixture *f = *state;
    struct many_timers *many = calloc(1, sizeof(*many));
    bool seen[3000] = {false};
    td_reply *reply = reply_of(f);

    assert_non_null(many);
    many->f = f;
    f->a.drained_reply = reply;
    f->a.drained_at = 2000;
    call(f, &f->a, start_many_timers, many);
    assert_int_equal(TANDEM_OK, await(f, reply));
    for (int i = 0; i < 2000; i++) {
        if (i > 0)
            assert_true(many->due_us[f->a.seen[i]] >= many->due_us[f->a.seen[i - 1]]);
        seen[f->a.seen[i]] = true;
    }
    for (int i = 0; i < 3000; i++)
        assert_int_equal(i % 3 != 0, seen[due_of(i)]);
    free(many);
    td_reply_free(reply);
}

struct duel {
    struct fixture *f;
    struct task *rival;
    bool cancelled;
};

static void cancel_the_rival(void *argument)
{
    struct duel *duel = argument;

    duel->cancelled = td_actor_cancel(duel->f->a.actor, &duel->rival->message);
    if (duel->cancelled)
        task_drop(&duel->rival->message);
}

static void fail_the_test(void *argument)
{
    fail_msg("a cancelled message came");
}

static struct task *task_of(void (*run)(void *), void *argument)
{
    struct task *task = calloc(1, sizeof(*task));

    assert_non_null(task);
    task->message.kind = TASK;
    task->message.drop = task_drop;
    task->run = run;
    task->argument = argument;
    return task;
}

static void start_duel(void *argument)
{
    struct duel *duel = argument;
    struct task *first = task_of(cancel_the_rival, duel);

    duel->rival = task_of(fail_the_test, NULL);
    td_actor_post_after(duel->f->a.actor, &first->message, 0);
    td_actor_post_after(duel->f->a.actor, &duel->rival->message, 0);
    td_actor_post_after(duel->f->a.actor, &note_of(1, NULL)->message, 2);
}

static void a_due_timer_can_still_be_cancelled(void **state)
{
    struct fixture *f = *state;
    struct duel duel = {.f = f};
    td_reply *reply = reply_of(f);

    f->a.drained_reply = reply;
    f->a.drained_at = 1;
    call(f, &f->a, start_duel, &duel);
    assert_int_equal(TANDEM_OK, await(f, reply));
    assert_true(duel.cancelled);
    td_reply_free(reply);
}

static void cancel_what_was_posted(void *argument)
{
    struct fixture *f = argument;
    struct note *note = note_of(1, NULL);

    assert_false(td_actor_cancel(f->a.actor, &note->message));
    td_actor_post(f->a.actor, &note->message);
    assert_false(td_actor_cancel(f->a.actor, &note->message));
}

static void only_timed_messages_can_be_cancelled(void **state)
{
    struct fixture *f = *state;

    call(f, &f->a, cancel_what_was_posted, f);
    settle(f, &f->a);
    assert_int_equal(1, f->a.count);
}

/* ---- Lifetimes ---- */

struct burial {
    struct fixture *f;
    int dropped;
};

static void free_b(void *argument)
{
    struct burial *burial = argument;

    td_actor_free(burial->f->b.actor);
    burial->f->b.actor = NULL;
}

static void prepare_the_burial(void *argument)
{
    struct burial *burial = argument;

    post_task(&burial->f->a, free_b, burial, NULL);
    for (int i = 0; i < 3; i++)
        td_actor_post(burial->f->b.actor, &note_of(i, &burial->dropped)->message);
    for (int i = 0; i < 4; i++)
        td_actor_post_after(burial->f->b.actor, &note_of(i, &burial->dropped)->message,
                            1000000000);
}

static void free_drops_what_is_queued_and_what_is_timed(void **state)
{
    struct fixture *f = *state;
    struct burial burial = {.f = f};

    call(f, &f->a, prepare_the_burial, &burial);
    settle(f, &f->a);
    assert_null(f->b.actor);
    assert_int_equal(7, f->b.count + burial.dropped);
    if (runtime_kind != SIMULATION) /* where b may have had its turn first */
        assert_int_equal(7, burial.dropped);
}

static void after_a_stop_posts_and_timers_wait_for_the_drop(void **state)
{
    struct fixture *f = *state;
    int dropped = 0;
    struct note *taken_back = note_of(9, &dropped);

    settle(f, &f->a);
    td_host_stop(f->host);
    td_host_stop(f->host);
    td_actor_post(f->a.actor, &note_of(1, &dropped)->message);
    td_actor_post_after(f->a.actor, &note_of(2, &dropped)->message, 0);
    td_actor_post_after(f->a.actor, &taken_back->message, 0);
    assert_true(td_actor_cancel(f->a.actor, &taken_back->message));
    note_drop(&taken_back->message);
    if (runtime_kind == SIMULATION)
        td_simulation_run(f->simulation, 1000000);
    assert_int_equal(1, dropped);
    td_actor_free(f->a.actor);
    f->a.actor = NULL;
    assert_int_equal(3, dropped);
    assert_int_equal(0, f->a.count);
}

struct birth {
    struct fixture *f;
    struct probe child;
    td_reply *reply;
};

static void give_birth(void *argument)
{
    struct birth *birth = argument;

    probe_open(&birth->child, birth->f->host);
    birth->child.drained_reply = birth->reply;
    birth->child.drained_at = 3;
    for (int i = 0; i < 3; i++)
        post(&birth->child, i);
}

static void an_actor_may_be_opened_by_another(void **state)
{
    struct fixture *f = *state;
    struct birth *birth = calloc(1, sizeof(*birth));

    assert_non_null(birth);
    birth->f = f;
    birth->reply = reply_of(f);
    call(f, &f->a, give_birth, birth);
    assert_int_equal(TANDEM_OK, await(f, birth->reply));
    assert_int_equal(3, birth->child.count);
    td_host_stop(f->host);
    td_actor_free(birth->child.actor);
    td_reply_free(birth->reply);
    free(birth);
}

static void null_is_fine_everywhere(void **state)
{
    td_actor_free(NULL);
    td_host_free(NULL);
    td_reply_free(NULL);
    td_runtime_free(NULL);
    td_simulation_free(NULL);
}

/* ---- Where it runs ---- */

struct place {
    td_host *host, *other;
    bool on_host, on_other;
};

static void look_around(void *argument)
{
    struct place *place = argument;

    place->on_host = td_host_is_current(place->host);
    place->on_other = td_host_is_current(place->other);
}

static void a_host_knows_its_own_code(void **state)
{
    struct fixture *f = *state;
    struct place place = {.host = f->host};

    assert_int_equal(TANDEM_OK, td_host_open(f->runtime, TD_HOST_WORKER, "other", &place.other));
    call(f, &f->a, look_around, &place);
    assert_true(place.on_host);
    assert_false(place.on_other);
    assert_false(td_host_is_current(f->host));
    td_host_stop(f->host);
    assert_true(td_host_is_current(f->host));
    td_host_free(place.other);
}

static void note_nice(void *argument)
{
    *(int *)argument = getpriority(PRIO_PROCESS, 0);
}

static void only_a_background_host_steps_back(void **state)
{
    struct fixture *f = *state;
    int here, there;

    note_nice(&here);
    call(f, &f->a, note_nice, &there);
    if (host_kind == TD_HOST_BACKGROUND && here < 19)
        assert_true(there > here);
    else
        assert_int_equal(here, there);
}

static void the_environment_answers(void **state)
{
    struct fixture *f = *state;
    tandem_env *env = f->runtime->env;
    uint8_t first[40] = {0}, second[40] = {0};
    uint64_t before_us = td_env_monotonic_us(env);

    assert_true(td_env_wall_ms(env) >= UINT64_C(1577836800000)); /* 2020 */
    assert_true(td_env_monotonic_us(env) >= before_us);
    assert_true(before_us > 0);
    td_env_random_bytes(env, first, sizeof(first));
    td_env_random_bytes(env, second, sizeof(second) - 1);
    assert_memory_not_equal(first, second, sizeof(first) - 1);
    assert_int_equal(0, second[39]);
    assert_string_equal(runtime_kind == SIMULATION ? "simulation" : "threads",
                        f->runtime->ops->name);
}

static void only_a_driven_loop_can_be_driven(void **state)
{
    struct fixture *f = *state;

    if (runtime_kind == DRIVEN && host_kind == TD_HOST_LOOP)
        return;
    assert_int_equal(-1, td_host_fd(f->host));
    assert_int_equal(-1, td_host_timeout_ms(f->host));
    assert_int_equal(TANDEM_E_STATE, td_host_poll(f->host));
    if (runtime_kind == THREADS && host_kind == TD_HOST_LOOP)
        assert_non_null(td_host_loop(f->host));
    else
        assert_null(td_host_loop(f->host));
}

/* ---- Replies ---- */

static void set_reply(void *argument)
{
    td_reply_set(argument, TANDEM_E_CONFLICT);
}

static void a_reply_may_be_set_before_the_wait(void **state)
{
    struct fixture *f = *state;
    td_reply *reply = reply_of(f);

    td_reply_set(reply, TANDEM_E_INPUT);
    assert_int_equal(TANDEM_E_INPUT, td_reply_wait(reply, 0));
    assert_int_equal(TANDEM_E_INPUT, td_reply_wait(reply, UINT64_MAX));
    td_reply_free(reply);
}

static void a_reply_may_be_set_during_the_wait(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 200; i++) {
        td_reply *reply = reply_of(f);

        post_task(&f->a, set_reply, reply, NULL);
        assert_int_equal(TANDEM_E_CONFLICT, await(f, reply));
        td_reply_free(reply);
    }
}

static void a_wait_gives_up_and_the_reply_is_set_later(void **state)
{
    struct fixture *f = *state;
    td_reply *reply = reply_of(f);

    assert_int_equal(TANDEM_E_TIMEOUT, td_reply_wait(reply, 0));
    assert_int_equal(TANDEM_E_TIMEOUT, td_reply_wait(reply, 2));
    td_reply_keep(reply);
    td_reply_free(reply);
    call(f, &f->a, set_reply, reply);
    assert_int_equal(TANDEM_E_CONFLICT, td_reply_wait(reply, 0));
    td_reply_free(reply);
}

static void a_dropped_request_answers_its_reply(void **state)
{
    struct fixture *f = *state;
    td_reply *reply = reply_of(f);

    td_host_stop(f->host);
    post_task(&f->a, NULL, NULL, reply);
    td_actor_free(f->a.actor);
    f->a.actor = NULL;
    assert_int_equal(TANDEM_E_CLOSED, td_reply_wait(reply, 0));
    td_reply_free(reply);
}

/* ---- Loops ---- */

struct foreign {
    uv_loop_t *loop;
    uv_async_t async;
    uv_timer_t timer;
    uv_check_t check;
    int woken, closed;
};

static void on_foreign_wake(uv_async_t *async)
{
    ((struct foreign *)async->data)->woken++;
}

static void on_foreign_close(uv_handle_t *handle)
{
    ((struct foreign *)handle->data)->closed++;
}

static void on_foreign_timer(uv_timer_t *timer)
{
}

static void on_foreign_check(uv_check_t *check)
{
    uv_stop(check->loop); /* as libraries do that think the loop theirs */
}

static void attach_foreign(void *argument)
{
    struct foreign *foreign = argument;

    uv_async_init(foreign->loop, &foreign->async, on_foreign_wake);
    uv_timer_init(foreign->loop, &foreign->timer);
    uv_check_init(foreign->loop, &foreign->check);
    foreign->async.data = foreign->timer.data = foreign->check.data = foreign;
    uv_timer_start(&foreign->timer, on_foreign_timer, 1000000, 0);
    uv_check_start(&foreign->check, on_foreign_check);
}

static void foreign_handles_outlive_the_stop_and_are_closed_by_the_stopper(void **state)
{
    struct fixture *f = *state;
    struct foreign foreign = {.loop = td_host_loop(f->host)};

    call(f, &f->a, attach_foreign, &foreign);
    for (int i = 0; i < 50; i++)
        settle(f, &f->b);
    for (int i = 0; i < 10; i++)
        post(&f->a, i); /* a wake-up that may be left over */
    td_host_stop(f->host);
    uv_check_stop(&foreign.check);
    uv_async_send(&foreign.async);
    uv_run(foreign.loop, UV_RUN_ONCE);
    while (!foreign.woken)
        uv_run(foreign.loop, UV_RUN_NOWAIT);
    uv_close((uv_handle_t *)&foreign.async, on_foreign_close);
    uv_close((uv_handle_t *)&foreign.timer, on_foreign_close);
    uv_close((uv_handle_t *)&foreign.check, on_foreign_close);
    /* Ends by itself: nothing of the host keeps the loop alive. */
    assert_int_equal(0, uv_run(foreign.loop, UV_RUN_DEFAULT));
    assert_int_equal(3, foreign.closed);
}

static void nothing_runs_outside_poll(void **state)
{
    struct fixture *f = *state;
    struct pollfd ready = {.fd = td_host_fd(f->host), .events = POLLIN};

    assert_true(ready.fd >= 0);
    assert_int_equal(-1, td_host_timeout_ms(f->host));
    assert_int_equal(0, poll(&ready, 1, 0));
    post(&f->a, 1);
    post(&f->a, 2);
    assert_int_equal(1, poll(&ready, 1, 0));
    assert_int_equal(0, f->a.count);
    assert_int_equal(TANDEM_OK, td_host_poll(f->host));
    assert_int_equal(2, f->a.count);
    assert_int_equal(1, f->a.drained);
    /* The turn may have left the wake-up to the next one; then there is rest. */
    assert_int_equal(TANDEM_OK, td_host_poll(f->host));
    assert_int_equal(0, poll(&ready, 1, 0));
}

static void poll_again(void *argument)
{
    struct fixture *f = argument;

    assert_int_equal(TANDEM_E_STATE, td_host_poll(f->host));
    assert_int_equal(-1, td_host_fd(f->host));
}

static void poll_is_refused_within_itself_and_after_the_stop(void **state)
{
    struct fixture *f = *state;

    call(f, &f->a, poll_again, f);
    td_host_stop(f->host);
    poll_again(f);
}

static void the_timeout_tells_of_the_next_timer(void **state)
{
    struct fixture *f = *state;
    td_reply *reply = reply_of(f);
    int timeout_ms;

    f->a.drained_reply = reply;
    f->a.drained_at = 1;
    call(f, &f->a, start_one_timer, f);
    timeout_ms = td_host_timeout_ms(f->host);
    assert_true(timeout_ms >= 0 && timeout_ms <= 21);
    assert_int_equal(TANDEM_OK, await(f, reply));
    td_reply_free(reply);
    assert_int_equal(TANDEM_OK, td_host_poll(f->host));
    assert_int_equal(-1, td_host_timeout_ms(f->host));
}

/* ---- Asking ---- */

enum { ASKERS = 4, QUESTIONS = 500 };

struct asker {
    struct fixture *f;
    struct probe *probe;
    pthread_t thread;
};

static void count_question(void *argument)
{
    struct probe *probe = argument;

    assert_true(td_host_is_current(probe->host));
    probe->seen[0]++; /* unguarded: whoever runs here is alone */
}

static void *ask_often(void *argument)
{
    struct asker *asker = argument;
    struct probe *probe = asker->probe;

    for (int i = 0; i < QUESTIONS; i++) {
        td_reply *reply = reply_of(asker->f);
        struct task *task = question_of(count_question, probe, reply);

        assert_int_equal(TANDEM_OK, td_actor_ask(probe->actor, &task->message, reply));
        td_reply_free(reply);
    }
    assert_false(td_host_is_current(probe->host));
    return NULL;
}

/* On their own threads or on the host's: one at a time. */
static void those_who_ask_stand_in_one_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct asker askers[ASKERS];

    if (td_host_fd(f->host) >= 0)
        skip(); /* nobody drives it */
    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.f = f, .probe = &f->a};
        assert_int_equal(0, pthread_create(&askers[i].thread, NULL, ask_often, &askers[i]));
    }
    for (int i = 0; i < ASKERS; i++)
        pthread_join(askers[i].thread, NULL);
    call(f, &f->a, count_question, &f->a);
    assert_int_equal(ASKERS * QUESTIONS + 1, f->a.seen[0]);
}

static void set_timer(void *argument)
{
    struct asker *asker = argument;

    td_actor_post_after(asker->probe->actor, &note_of(7, NULL)->message, 1);
}

/* The host's thread sleeps, and learns of a timer that was set by who stood in for it. */
static void a_timer_that_a_stand_in_sets_comes(void **state)
{
    struct fixture *f = *state;
    struct asker asker = {.f = f, .probe = &f->a};
    td_reply *reply = reply_of(f), *noted = reply_of(f);
    struct task *task = question_of(set_timer, &asker, reply);

    if (td_host_fd(f->host) >= 0) {
        task_drop(&task->message);
        td_reply_free(reply);
        td_reply_free(noted);
        skip();
    }
    f->a.drained_reply = noted;
    f->a.drained_at = 1;
    assert_int_equal(TANDEM_OK, td_actor_ask(f->a.actor, &task->message, reply));
    assert_int_equal(TANDEM_OK, td_reply_wait(noted, UINT64_MAX));
    assert_int_equal(7, f->a.seen[0]);
    td_reply_free(reply);
    td_reply_free(noted);
}

#define FIXTURE_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open, fixture_free)

static const struct CMUnitTest all_tests[] = {
    FIXTURE_TEST(messages_of_one_actor_are_handled_in_order),
    FIXTURE_TEST(drained_follows_a_burst_and_interrupts_a_long_one),
    FIXTURE_TEST(what_was_handled_before_a_stop_is_drained),
    FIXTURE_TEST(an_actor_needs_no_drained),
    FIXTURE_TEST(timers_come_in_order_of_due_then_of_start),
    FIXTURE_TEST(a_timer_never_comes_early),
    FIXTURE_TEST(cancelled_timers_never_come_and_all_others_do),
    FIXTURE_TEST(a_due_timer_can_still_be_cancelled),
    FIXTURE_TEST(only_timed_messages_can_be_cancelled),
    FIXTURE_TEST(free_drops_what_is_queued_and_what_is_timed),
    FIXTURE_TEST(after_a_stop_posts_and_timers_wait_for_the_drop),
    FIXTURE_TEST(an_actor_may_be_opened_by_another),
    FIXTURE_TEST(null_is_fine_everywhere),
    FIXTURE_TEST(a_host_knows_its_own_code),
    FIXTURE_TEST(the_environment_answers),
    FIXTURE_TEST(only_a_driven_loop_can_be_driven),
    FIXTURE_TEST(a_reply_may_be_set_before_the_wait),
    FIXTURE_TEST(a_reply_may_be_set_during_the_wait),
    FIXTURE_TEST(a_wait_gives_up_and_the_reply_is_set_later),
    FIXTURE_TEST(a_dropped_request_answers_its_reply),
};

static const struct CMUnitTest threads_tests[] = {
    FIXTURE_TEST(only_a_background_host_steps_back),
    FIXTURE_TEST(those_who_ask_stand_in_one_at_a_time),
    FIXTURE_TEST(a_timer_that_a_stand_in_sets_comes),
    FIXTURE_TEST(many_producers_each_keep_their_order),
};

static const struct CMUnitTest loop_tests[] = {
    FIXTURE_TEST(foreign_handles_outlive_the_stop_and_are_closed_by_the_stopper),
};

static const struct CMUnitTest driven_tests[] = {
    FIXTURE_TEST(nothing_runs_outside_poll),
    FIXTURE_TEST(poll_is_refused_within_itself_and_after_the_stop),
    FIXTURE_TEST(the_timeout_tells_of_the_next_timer),
};

int main(int argc, char **argv)
{
    const char *name = argc == 2 ? argv[1] : "";
    int failed;

    if (strcmp(name, "threads") == 0) {
        runtime_kind = THREADS;
    } else if (strcmp(name, "driven") == 0) {
        runtime_kind = DRIVEN;
    } else if (strcmp(name, "simulation") == 0) {
        runtime_kind = SIMULATION;
    } else {
        fprintf(stderr, "usage: actor_suite threads|driven|simulation\n");
        return 2;
    }
    host_kind = TD_HOST_LOOP;
    failed = cmocka_run_group_tests_name("loop host", all_tests, NULL, NULL);
    if (runtime_kind != SIMULATION) {
        failed += cmocka_run_group_tests_name("loop host, threads", threads_tests, NULL, NULL);
        failed += cmocka_run_group_tests_name("loop host, libuv", loop_tests, NULL, NULL);
    }
    if (runtime_kind == DRIVEN)
        failed += cmocka_run_group_tests_name("loop host, driven", driven_tests, NULL, NULL);
    host_kind = TD_HOST_WORKER;
    failed += cmocka_run_group_tests_name("worker host", all_tests, NULL, NULL);
    if (runtime_kind != SIMULATION)
        failed += cmocka_run_group_tests_name("worker host, threads", threads_tests, NULL, NULL);
    if (runtime_kind != SIMULATION) {
        host_kind = TD_HOST_BACKGROUND;
        failed += cmocka_run_group_tests_name("background host", all_tests, NULL, NULL);
        failed +=
            cmocka_run_group_tests_name("background host, threads", threads_tests, NULL, NULL);
    }
    return failed ? 1 : 0;
}
