/* The simulation runtime beyond the contract that it shares (actor_suite.c): one seed, one run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reactor/actor.h"
#include "reactor/runtime.h"
#include "store/store.h"

enum { PLAYERS = 6, TOKENS = 20 };

#define MS UINT64_C(1000)
#define WALL_START_MS UINT64_C(1767225600000)

/* Tokens wander between the actors of two reactors, now at once, now after a while. */
struct player {
    td_actor *actor;
    struct table *table;
    int handled, drained, group, group_max;
};

struct table {
    td_simulation *simulation;
    td_runtime *runtimes[2];
    td_host *hosts[2];
    struct player players[PLAYERS];
    int moves;
    void *litter[PLAYERS];
};

struct token {
    td_message message;
    int hops;
};

enum { FREE, TIMED };

static void token_drop(td_message *message)
{
    free(message);
}

static void player_handle(void *self, td_message *message)
{
    struct player *player = self;
    struct table *table = player->table;
    struct token *token = (struct token *)message;
    tandem_env *env = td_actor_host(player->actor)->runtime->env;

    player->handled++;
    if (++player->group > player->group_max)
        player->group_max = player->group;
    table->moves++;
    if (token->hops-- == 0) {
        free(token);
    } else if (message->kind == FREE && td_env_random_below(env, 3) == 0) {
        message->kind = TIMED;
        td_actor_post_after(player->actor, message, td_env_random_below(env, 5));
    } else {
        message->kind = FREE;
        td_actor_post(table->players[td_env_random_below(env, PLAYERS)].actor, message);
    }
}

static void player_drained(void *self)
{
    struct player *player = self;

    player->drained++;
    player->group = 0;
}

static const td_actor_ops player_ops = {
    .name = "player", .handle = player_handle, .drained = player_drained,
};

static void table_open(struct table *table, uint64_t seed, bool litter)
{
    memset(table, 0, sizeof(*table));
    assert_int_equal(TANDEM_OK, td_simulation_open(seed, &table->simulation));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(TANDEM_OK, td_simulation_runtime(table->simulation, i ? "b" : "a", 0,
                                                          &table->runtimes[i]));
        assert_int_equal(TANDEM_OK, td_host_open(table->runtimes[i], TD_HOST_WORKER, "host",
                                                 &table->hosts[i]));
    }
    for (int i = 0; i < PLAYERS; i++) {
        /* Other addresses, in another order: nothing may depend on them. */
        if (litter)
            table->litter[i] = malloc((size_t)(PLAYERS - i) * 1000);
        table->players[i].table = table;
        assert_int_equal(TANDEM_OK, td_actor_open(table->hosts[i % 2], &player_ops,
                                                  &table->players[i], &table->players[i].actor));
    }
    for (int i = 0; i < TOKENS; i++) {
        struct token *token = calloc(1, sizeof(*token));

        assert_non_null(token);
        token->message.drop = token_drop;
        token->hops = 100;
        td_actor_post(table->players[i % PLAYERS].actor, &token->message);
    }
}

static void table_free(struct table *table)
{
    for (int i = 0; i < 2; i++)
        td_host_stop(table->hosts[i]);
    for (int i = 0; i < PLAYERS; i++) {
        td_actor_free(table->players[i].actor);
        free(table->litter[i]);
    }
    for (int i = 0; i < 2; i++) {
        td_host_free(table->hosts[i]);
        td_runtime_free(table->runtimes[i]);
    }
    td_simulation_free(table->simulation);
}

static uint64_t trace_of(uint64_t seed, bool litter)
{
    struct table table;
    uint64_t trace;

    table_open(&table, seed, litter);
    td_simulation_run(table.simulation, 10000 * MS);
    assert_int_equal(TOKENS * 101, table.moves);
    trace = td_simulation_trace(table.simulation);
    table_free(&table);
    return trace;
}

static void the_same_seed_is_the_same_run(void **state)
{
    for (uint64_t seed = 1; seed <= 10; seed++)
        assert_true(trace_of(seed, false) == trace_of(seed, true));
}

static void another_seed_is_another_run(void **state)
{
    for (uint64_t seed = 1; seed <= 10; seed++)
        assert_true(trace_of(seed, false) != trace_of(seed + 1, false));
}

static void the_trace_tells_every_step(void **state)
{
    struct table table;
    uint64_t before;

    table_open(&table, 3, false);
    for (int i = 0; i < 100; i++) {
        int moves = table.moves;

        before = td_simulation_trace(table.simulation);
        assert_true(td_simulation_step(table.simulation, UINT64_MAX));
        if (table.moves > moves)
            assert_true(before != td_simulation_trace(table.simulation));
    }
    table_free(&table);
}

static void the_scenarios_stream_leaves_the_schedule_alone(void **state)
{
    struct table table;

    table_open(&table, 5, false);
    assert_true(td_simulation_random(table.simulation) != td_simulation_random(table.simulation));
    td_simulation_run(table.simulation, 10000 * MS);
    assert_true(td_simulation_trace(table.simulation) == trace_of(5, false));
    table_free(&table);
}

static void groups_of_all_sizes_occur(void **state)
{
    struct table table;

    table_open(&table, 11, false);
    td_simulation_run(table.simulation, 10000 * MS);
    for (int i = 0; i < PLAYERS; i++) {
        struct player *player = &table.players[i];

        assert_true(player->group_max > 1);
        assert_true(player->drained > player->handled / 8);
        assert_true(player->drained < player->handled);
        assert_int_equal(0, player->group);
    }
    table_free(&table);
}

/* ---- One reactor with one actor ---- */

struct lone {
    td_simulation *simulation;
    td_runtime *runtime;
    td_host *host;
    td_actor *actor;
    int handled;
    uint64_t again_after_ms; /* a message comes back after this; 0: is freed */
    td_reply *reply;
    int answer_at;
};

static void lone_handle(void *self, td_message *message)
{
    struct lone *lone = self;

    lone->handled++;
    if (message->kind == TIMED && lone->again_after_ms)
        td_actor_post_after(lone->actor, message, lone->again_after_ms);
    else if (message->kind == FREE) {
        message->kind = TIMED;
        td_actor_post_after(lone->actor, message, 7);
    } else
        free(message);
    if (lone->reply && lone->handled == 2) {
        td_reply_set(lone->reply, TANDEM_OK);
        lone->reply = NULL;
    }
}

static const td_actor_ops lone_ops = {.name = "lone", .handle = lone_handle};

static void lone_open(struct lone *lone, int64_t skew_ms)
{
    memset(lone, 0, sizeof(*lone));
    assert_int_equal(TANDEM_OK, td_simulation_open(1, &lone->simulation));
    assert_int_equal(TANDEM_OK,
                     td_simulation_runtime(lone->simulation, "lone", skew_ms, &lone->runtime));
    assert_int_equal(TANDEM_OK, td_host_open(lone->runtime, TD_HOST_LOOP, "host", &lone->host));
    assert_int_equal(TANDEM_OK, td_actor_open(lone->host, &lone_ops, lone, &lone->actor));
}

static void lone_start(struct lone *lone)
{
    td_message *message = calloc(1, sizeof(*message));

    assert_non_null(message);
    message->kind = FREE;
    message->drop = token_drop;
    td_actor_post(lone->actor, message);
}

static void lone_free(struct lone *lone)
{
    td_host_stop(lone->host);
    td_actor_free(lone->actor);
    td_host_free(lone->host);
    td_runtime_free(lone->runtime);
    td_simulation_free(lone->simulation);
}

static void the_clock_moves_only_when_nothing_is_ready(void **state)
{
    struct lone lone;

    lone_open(&lone, 0);
    assert_false(td_simulation_step(lone.simulation, UINT64_MAX));
    lone_start(&lone);
    assert_true(td_simulation_step(lone.simulation, 0));
    assert_int_equal(1, lone.handled);
    assert_int_equal(0, td_simulation_now_us(lone.simulation));
    /* The timer is due at 7 ms. */
    assert_false(td_simulation_step(lone.simulation, 7 * MS - 1));
    assert_int_equal(0, td_simulation_now_us(lone.simulation));
    assert_true(td_simulation_step(lone.simulation, 7 * MS));
    assert_int_equal(7 * MS, td_simulation_now_us(lone.simulation));
    assert_int_equal(1, lone.handled);
    assert_true(td_simulation_step(lone.simulation, 7 * MS));
    assert_int_equal(2, lone.handled);
    assert_false(td_simulation_step(lone.simulation, UINT64_MAX));
    lone_free(&lone);
}

static void a_run_ends_exactly_when_it_should(void **state)
{
    struct lone lone;
    uint64_t start_us;

    lone_open(&lone, 0);
    lone.again_after_ms = 10;
    start_us = td_env_monotonic_us(lone.runtime->env);
    lone_start(&lone);
    td_simulation_run(lone.simulation, 1234567);
    assert_int_equal(1234567, td_simulation_now_us(lone.simulation));
    assert_int_equal(start_us + 1234567, td_env_monotonic_us(lone.runtime->env));
    assert_int_equal(WALL_START_MS + 1234, td_env_wall_ms(lone.runtime->env));
    assert_int_equal(1 + 1 + (1234 - 7) / 10, lone.handled);
    lone_free(&lone);
}

static void skew_moves_the_wall_clock_only(void **state)
{
    struct lone lone;
    uint64_t start_us;

    lone_open(&lone, -2500);
    start_us = td_env_monotonic_us(lone.runtime->env);
    assert_int_equal(WALL_START_MS - 2500, td_env_wall_ms(lone.runtime->env));
    td_simulation_skew(lone.runtime, 60000);
    assert_int_equal(WALL_START_MS + 60000, td_env_wall_ms(lone.runtime->env));
    td_simulation_skew(lone.runtime, INT64_MIN);
    assert_int_equal(0, td_env_wall_ms(lone.runtime->env));
    assert_int_equal(start_us, td_env_monotonic_us(lone.runtime->env));
    lone_free(&lone);
}

static void a_wait_that_nothing_can_end_times_out(void **state)
{
    struct lone lone;
    td_reply *reply;

    lone_open(&lone, 0);
    assert_int_equal(TANDEM_OK, td_reply_open(lone.runtime, &reply));
    lone_start(&lone);
    assert_int_equal(TANDEM_E_TIMEOUT, td_reply_wait(reply, UINT64_MAX));
    assert_int_equal(7 * MS, td_simulation_now_us(lone.simulation));
    /* A heartbeat that goes on for ever does not make it wait for ever. */
    lone.again_after_ms = 3600 * 1000;
    lone_start(&lone);
    assert_int_equal(TANDEM_E_TIMEOUT, td_reply_wait(reply, UINT64_MAX));
    td_reply_free(reply);
    lone_free(&lone);
}

static void restless_handle(void *self, td_message *message)
{
    struct lone *lone = self;

    if (++lone->handled == lone->answer_at)
        td_reply_set(lone->reply, TANDEM_OK);
    td_actor_post(lone->actor, message);
}

/* Two that answer each other for ever; here it is one. */
static void a_moment_that_does_not_pass_ends_the_simulation(void **state)
{
    static const td_actor_ops restless_ops = {.name = "restless", .handle = restless_handle};
    struct lone lone;
    td_actor *sober;
    td_reply *reply;

    lone_open(&lone, 0);
    sober = lone.actor;
    assert_int_equal(TANDEM_OK, td_actor_open(lone.host, &restless_ops, &lone, &lone.actor));
    assert_int_equal(TANDEM_OK, td_reply_open(lone.runtime, &reply));
    td_simulation_run(lone.simulation, 1000 * MS);
    assert_null(td_simulation_restless(lone.simulation));
    lone_start(&lone);
    td_simulation_run(lone.simulation, 1000 * MS);
    assert_int_equal(TD_SIMULATION_TURNS_MAX, lone.handled);
    assert_string_equal("restless", td_simulation_restless(lone.simulation));
    assert_false(td_simulation_step(lone.simulation, UINT64_MAX));
    assert_int_equal(TANDEM_E_TIMEOUT, td_reply_wait(reply, UINT64_MAX));
    /* A question that the others can answer is answered nevertheless. */
    lone.reply = reply;
    lone.answer_at = lone.handled + 10;
    assert_int_equal(TANDEM_OK, td_reply_wait(reply, UINT64_MAX));
    td_reply_free(reply);
    td_host_stop(lone.host);
    td_actor_free(sober);
    lone_free(&lone);
}

/* As much work as one likes, as long as time passes. */
static void turns_are_counted_by_the_second(void **state)
{
    struct lone lone;

    lone_open(&lone, 0);
    lone.again_after_ms = 1;
    lone_start(&lone);
    td_simulation_run(lone.simulation, UINT64_C(3) * TD_SIMULATION_TURNS_MAX / 2 * MS);
    assert_true(lone.handled > TD_SIMULATION_TURNS_MAX);
    assert_null(td_simulation_restless(lone.simulation));
    lone_free(&lone);
}

static void a_wait_takes_virtual_time(void **state)
{
    struct lone lone;
    td_reply *reply;

    lone_open(&lone, 0);
    assert_int_equal(TANDEM_OK, td_reply_open(lone.runtime, &reply));
    assert_int_equal(TANDEM_E_TIMEOUT, td_reply_wait(reply, 3000));
    assert_int_equal(3000 * MS, td_simulation_now_us(lone.simulation));
    lone.reply = reply;
    lone.again_after_ms = 1;
    lone_start(&lone);
    assert_int_equal(TANDEM_OK, td_reply_wait(reply, 1000));
    assert_int_equal(3007 * MS, td_simulation_now_us(lone.simulation));
    td_reply_free(reply);
    lone_free(&lone);
}

static void a_stopped_host_moves_no_clock(void **state)
{
    struct lone lone;

    lone_open(&lone, 0);
    lone_start(&lone);
    assert_true(td_simulation_step(lone.simulation, 0));
    lone_start(&lone);
    td_host_stop(lone.host);
    assert_false(td_simulation_step(lone.simulation, UINT64_MAX));
    assert_int_equal(0, td_simulation_now_us(lone.simulation));
    assert_int_equal(1, lone.handled);
    lone_free(&lone);
}

static uint64_t first_random_of(uint64_t seed, const char *before, const char *name)
{
    td_simulation *simulation;
    td_runtime *other = NULL, *runtime;
    uint64_t value;

    assert_int_equal(TANDEM_OK, td_simulation_open(seed, &simulation));
    if (before)
        assert_int_equal(TANDEM_OK, td_simulation_runtime(simulation, before, 0, &other));
    td_runtime_free(other);
    assert_int_equal(TANDEM_OK, td_simulation_runtime(simulation, name, 0, &runtime));
    td_env_random_bytes(runtime->env, &value, sizeof(value));
    td_runtime_free(runtime);
    td_simulation_free(simulation);
    return value;
}

static void every_runtime_has_random_bytes_of_its_own(void **state)
{
    assert_true(first_random_of(1, NULL, "a") == first_random_of(1, NULL, "a"));
    assert_true(first_random_of(1, NULL, "a") != first_random_of(1, NULL, "b"));
    assert_true(first_random_of(1, NULL, "a") != first_random_of(2, NULL, "a"));
    /* A reactor that is started again. */
    assert_true(first_random_of(1, NULL, "a") != first_random_of(1, "a", "a"));
}

struct diary {
    int lines;
};

static void write_diary(void *context, tandem_log_level level, const char *component,
                        const char *text)
{
    assert_string_equal("hello 1", text);
    ((struct diary *)context)->lines++;
}

static void the_log_is_every_later_runtimes(void **state)
{
    td_simulation *simulation;
    td_runtime *runtime;
    struct diary diary = {0};

    assert_int_equal(TANDEM_OK, td_simulation_open(1, &simulation));
    td_simulation_log(simulation, write_diary, &diary, TANDEM_LOG_INFO);
    assert_int_equal(TANDEM_OK, td_simulation_runtime(simulation, "a", 0, &runtime));
    td_log(runtime->env, TANDEM_LOG_INFO, "test", "hello %d", 1);
    td_log(runtime->env, TANDEM_LOG_DEBUG, "test", "hello %d", 2);
    assert_int_equal(1, diary.lines);
    td_runtime_free(runtime);
    td_simulation_free(simulation);
}

/* One put and its commit. */
static tandem_err put_one(td_store *store, const char *key)
{
    td_txn *txn;
    tandem_err err;

    if ((err = td_store_begin_write(store, &txn)) != TANDEM_OK)
        return err;
    if ((err = td_txn_put(txn, 0, tandem_slice_text(key), tandem_slice_text("1"))) == TANDEM_OK)
        return td_txn_commit(txn);
    td_txn_abort(txn);
    return err;
}

static bool has(td_store *store, const char *key)
{
    tandem_slice value;
    td_txn *txn;
    bool found;

    assert_int_equal(TANDEM_OK, td_store_begin_read(store, &txn));
    found = td_txn_get(txn, 0, tandem_slice_text(key), &value) == TANDEM_OK;
    td_txn_abort(txn);
    return found;
}

static void a_runtime_dies_at_the_passing_that_was_asked_for(void **state)
{
    static const char *const names[] = {"t"};
    td_simulation *simulation;
    td_runtime *a, *b;
    td_store *store;

    assert_int_equal(TANDEM_OK, td_simulation_open(1, &simulation));
    assert_int_equal(TANDEM_OK, td_simulation_runtime(simulation, "a", 0, &a));
    assert_int_equal(TANDEM_OK, td_simulation_runtime(simulation, "b", 0, &b));
    assert_int_equal(TANDEM_OK, td_memory_store_open(a->env, NULL, names, 1, &store));
    td_simulation_arm(a, TD_PROBE_COMMIT_AFTER, 2);
    assert_int_equal(TANDEM_OK, put_one(store, "first"));
    td_probe(a->env, TD_PROBE_COMMIT_AFTER);
    td_probe(b->env, TD_PROBE_COMMIT_AFTER); /* another's passing is none of its own */
    td_probe(a->env, TD_PROBE_COMMIT_BEFORE);
    assert_false(td_simulation_is_dead(a));
    assert_int_equal(TANDEM_OK, put_one(store, "second"));
    td_probe(a->env, TD_PROBE_COMMIT_AFTER);
    assert_true(td_simulation_is_dead(a));
    assert_false(td_simulation_is_dead(b));
    assert_int_equal(1, td_simulation_deaths(simulation));
    assert_int_equal(TANDEM_E_IO, put_one(store, "third"));
    assert_int_equal(TANDEM_E_IO, td_store_recover(store));
    assert_true(has(store, "second") && !has(store, "third"));
    td_probe(a->env, TD_PROBE_COMMIT_AFTER); /* the dead are not counted */
    assert_int_equal(3, td_simulation_probes(simulation)[TD_PROBE_COMMIT_AFTER]);
    td_store_free(store);
    td_runtime_free(a);
    td_runtime_free(b);
    td_simulation_free(simulation);
}

static void a_disk_fails_as_often_as_it_was_asked_to(void **state)
{
    static const char *const names[] = {"t"};
    td_simulation *simulation;
    td_runtime *runtime;
    td_store *store;

    assert_int_equal(TANDEM_OK, td_simulation_open(1, &simulation));
    assert_int_equal(TANDEM_OK, td_simulation_runtime(simulation, "a", 0, &runtime));
    assert_int_equal(TANDEM_OK, td_memory_store_open(runtime->env, NULL, names, 1, &store));
    td_simulation_disk(runtime, TD_DISK_PUT, TANDEM_E_STORE_FULL, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(TANDEM_E_STORE_FULL, put_one(store, "first"));
        assert_int_equal(TANDEM_OK, td_store_recover(store));
    }
    assert_int_equal(TANDEM_OK, put_one(store, "second"));
    /* Reported as failed, and it is there. */
    td_simulation_disk(runtime, TD_DISK_COMMITTED, TANDEM_E_IO, 1);
    assert_int_equal(TANDEM_E_IO, put_one(store, "third"));
    assert_int_equal(TANDEM_E_STATE, put_one(store, "fourth"));
    assert_int_equal(TANDEM_OK, td_store_recover(store));
    assert_true(has(store, "third") && !has(store, "first") && !has(store, "fourth"));
    td_store_free(store);
    td_runtime_free(runtime);
    td_simulation_free(simulation);
}

static void probes_have_names(void **state)
{
    td_probe_kind found;

    for (unsigned i = 0; i < TD_PROBE_COUNT; i++) {
        assert_int_equal(TANDEM_OK, td_probe_find(td_probe_name((td_probe_kind)i), &found));
        assert_int_equal(i, found);
        assert_true(td_probe_sentence(found)[0] != '\0');
    }
    assert_int_equal(TANDEM_E_NOT_FOUND, td_probe_find("NO_SUCH_PROBE", &found));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_is_the_same_run),
        cmocka_unit_test(another_seed_is_another_run),
        cmocka_unit_test(the_trace_tells_every_step),
        cmocka_unit_test(the_scenarios_stream_leaves_the_schedule_alone),
        cmocka_unit_test(groups_of_all_sizes_occur),
        cmocka_unit_test(the_clock_moves_only_when_nothing_is_ready),
        cmocka_unit_test(a_run_ends_exactly_when_it_should),
        cmocka_unit_test(skew_moves_the_wall_clock_only),
        cmocka_unit_test(a_wait_that_nothing_can_end_times_out),
        cmocka_unit_test(a_moment_that_does_not_pass_ends_the_simulation),
        cmocka_unit_test(turns_are_counted_by_the_second),
        cmocka_unit_test(a_wait_takes_virtual_time),
        cmocka_unit_test(a_stopped_host_moves_no_clock),
        cmocka_unit_test(every_runtime_has_random_bytes_of_its_own),
        cmocka_unit_test(the_log_is_every_later_runtimes),
        cmocka_unit_test(a_runtime_dies_at_the_passing_that_was_asked_for),
        cmocka_unit_test(a_disk_fails_as_often_as_it_was_asked_to),
        cmocka_unit_test(probes_have_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
