/*
 * Does tandem_model_check() find what it is there to find? One model, a sum and its last addend,
 * that breaks one law at a time on purpose; the law must be named. And it must find nothing where
 * there is nothing: the model as it should be, and those of other tests.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reactor/model_check.h"
#include "tests/tally_model.h"

enum fault {
    NONE,
    PREPARES_NO_VALUE,
    PREPARE_FAILS,
    APPLY_FAILS,
    CHANGES_WHEN_REFUSING,
    SHOWS_WIDE_INTEGERS,
    SHOWS_TWO_VALUES,
    SAVE_LOSES_WHAT_SHOWS,
    SAVE_LOSES_WHAT_MATTERS_LATER,
    RESTORE_REFUSES,
    RESTORE_FAILS_ON_DAMAGE,
    COUNTS_ACROSS_STATES,
    COUNTS_WHAT_IS_FOREIGN,
    SHOWS_AN_ADDRESS,
    SHOWS_WHEN_IT_WAS_RESTORED_TWICE,
};

static enum fault fault;
static uint64_t applied_ever; /* no business of a model */

struct sum {
    uint64_t sum, adds, restores;
};

static tandem_err sum_open(void **state_out)
{
    return (*state_out = calloc(1, sizeof(struct sum))) ? TANDEM_OK : TANDEM_E_NOMEM;
}

static bool addend_read(tandem_slice verb, tandem_slice value, uint64_t *out)
{
    tandem_reader reader = tandem_reader_of(value);

    return tandem_slice_equal(verb, tandem_slice_text("ADD")) &&
           tandem_read_uint(&reader, out) == TANDEM_OK;
}

static tandem_err sum_prepare(const void *state, const tandem_intent *intent,
                              tandem_writer *payload, char why[128])
{
    uint64_t addend;

    if (fault == PREPARE_FAILS)
        return TANDEM_E_IO;
    if (!addend_read(intent->verb, intent->input, &addend)) {
        snprintf(why, 128, "sum takes ADD with an integer of 0 or more");
        return TANDEM_E_INPUT;
    }
    tandem_write_uint(payload, addend);
    if (fault == PREPARES_NO_VALUE)
        tandem_write_nil(payload);
    return tandem_writer_err(payload);
}

static tandem_err sum_apply(void *state, const tandem_change *change)
{
    struct sum *sum = state;
    uint64_t addend;

    applied_ever++;
    if (!addend_read(change->verb, change->payload, &addend)) {
        if (fault == CHANGES_WHEN_REFUSING)
            sum->sum++;
        if (fault == COUNTS_WHAT_IS_FOREIGN) {
            sum->sum += applied_ever;
            return TANDEM_OK;
        }
        return fault == APPLY_FAILS ? TANDEM_E_PAYLOAD : TANDEM_E_INPUT;
    }
    sum->adds++;
    sum->sum += addend;
    if (fault == SAVE_LOSES_WHAT_MATTERS_LATER && sum->adds % 3 == 0)
        sum->sum++;
    if (fault == COUNTS_ACROSS_STATES)
        sum->sum = applied_ever;
    if (fault == SHOWS_AN_ADDRESS)
        sum->sum = (uintptr_t)change->payload.bytes;
    return TANDEM_OK;
}

static tandem_err sum_show(const void *state, tandem_writer *out)
{
    static const uint8_t wide[] = {0xcd, 0, 1};
    const struct sum *sum = state;

    if (fault == SHOWS_WIDE_INTEGERS) {
        tandem_write_raw(out, tandem_slice_of(wide, sizeof(wide)));
        return tandem_writer_err(out);
    }
    if (fault == SHOWS_TWO_VALUES)
        tandem_write_nil(out);
    tandem_write_uint(out, sum->sum + (fault == SHOWS_WHEN_IT_WAS_RESTORED_TWICE &&
                                       sum->restores > 1));
    return tandem_writer_err(out);
}

static tandem_err sum_save(const void *state, tandem_writer *out)
{
    const struct sum *sum = state;

    tandem_write_array(out, 3);
    tandem_write_uint(out, fault == SAVE_LOSES_WHAT_SHOWS ? 0 : sum->sum);
    tandem_write_uint(out, fault == SAVE_LOSES_WHAT_MATTERS_LATER ? 0 : sum->adds);
    tandem_write_uint(out, sum->restores);
    return tandem_writer_err(out);
}

static tandem_err sum_restore(tandem_slice snapshot, void **state_out)
{
    tandem_reader reader = tandem_reader_of(snapshot);
    struct sum sum = {0};
    uint32_t items;
    tandem_err err;

    if (fault == RESTORE_REFUSES || tandem_read_array(&reader, &items) != TANDEM_OK || items != 3 ||
        tandem_read_uint(&reader, &sum.sum) != TANDEM_OK ||
        tandem_read_uint(&reader, &sum.adds) != TANDEM_OK ||
        tandem_read_uint(&reader, &sum.restores) != TANDEM_OK)
        return fault == RESTORE_FAILS_ON_DAMAGE ? TANDEM_E_PAYLOAD : TANDEM_E_CORRUPT;
    sum.restores++;
    if ((err = sum_open(state_out)) == TANDEM_OK)
        *(struct sum *)*state_out = sum;
    return err;
}

static const tandem_model sum_model = {
    .size = sizeof(tandem_model),
    .name = "sum",
    .version = 1,
    .state_open = sum_open,
    .state_free = free,
    .prepare = sum_prepare,
    .apply = sum_apply,
    .show = sum_show,
    .save = sum_save,
    .restore = sum_restore,
};

static void draw_addend(void *context, const char *verb, uint64_t random,
                        char json[TANDEM_DRAWN_BYTES])
{
    assert_string_equal("ADD", verb);
    snprintf(json, TANDEM_DRAWN_BYTES, random % 5 ? "%u" : "[%u]", (unsigned)(random >> 40));
}

static void draw_no_json(void *context, const char *verb, uint64_t random,
                         char json[TANDEM_DRAWN_BYTES])
{
    snprintf(json, TANDEM_DRAWN_BYTES, "{");
}

static void draw_text(void *context, const char *verb, uint64_t random,
                      char json[TANDEM_DRAWN_BYTES])
{
    snprintf(json, TANDEM_DRAWN_BYTES, "\"one\"");
}

static const char *const add[] = {"ADD", NULL};

static tandem_model_check_options options_of(uint32_t seeds)
{
    tandem_model_check_options options = TANDEM_MODEL_CHECK_OPTIONS_INIT;

    options.verbs = add;
    options.draw = draw_addend;
    options.seeds = seeds;
    return options;
}

/* ---- What is broken is named ---- */

static void names(const tandem_model *model, enum fault broken, const char *law)
{
    tandem_model_check_options options = options_of(20);
    char why[TANDEM_MODEL_WHY_BYTES], wanted[32];
    tandem_err err;

    fault = broken;
    err = tandem_model_check(model, &options, why);
    fault = NONE;
    snprintf(wanted, sizeof(wanted), ": %s: ", law);
    if (err != TANDEM_E_INTERNAL || strncmp(why, "seed ", 5) != 0 || !strstr(why, wanted))
        fail_msg("fault %d, law %s: %s, \"%s\"", broken, law, tandem_err_name(err), why);
}

static void each_broken_law_is_named(void **state)
{
    names(&sum_model, PREPARES_NO_VALUE, "prepare");
    names(&sum_model, PREPARE_FAILS, "prepare");
    names(&sum_model, APPLY_FAILS, "apply");
    names(&sum_model, CHANGES_WHEN_REFUSING, "refusal");
    names(&sum_model, SHOWS_WIDE_INTEGERS, "show");
    names(&sum_model, SHOWS_TWO_VALUES, "show");
    names(&sum_model, SAVE_LOSES_WHAT_SHOWS, "restore");
    names(&sum_model, RESTORE_REFUSES, "restore");
    names(&sum_model, RESTORE_FAILS_ON_DAMAGE, "restore");
    names(&sum_model, COUNTS_ACROSS_STATES, "purity");
    names(&sum_model, COUNTS_WHAT_IS_FOREIGN, "purity");
    names(&sum_model, SHOWS_AN_ADDRESS, "purity");
    names(&sum_model, SAVE_LOSES_WHAT_MATTERS_LATER, "snapshot");
    names(&sum_model, SHOWS_WHEN_IT_WAS_RESTORED_TWICE, "snapshot");
}

/* Right as long as operations come in their order, from the beginning or from a snapshot; wrong
 * where a late one is folded onto a snapshot after newer ones have been seen. */
static uint64_t newest_hlc;

static tandem_err late_apply(void *state, const tandem_change *change)
{
    struct sum *sum = state;

    if (sum->restores && sum->adds && change->hlc < newest_hlc)
        sum->sum += 1000;
    newest_hlc = change->hlc;
    return sum_apply(state, change);
}

static void a_model_that_minds_the_order_of_arrival_is_named(void **state)
{
    tandem_model late = sum_model;

    newest_hlc = 0;
    late.apply = late_apply;
    names(&late, NONE, "order");
}

static void a_broken_law_has_a_seed_that_shows_it_again(void **state)
{
    tandem_model_check_options options = options_of(50);
    char first[TANDEM_MODEL_WHY_BYTES], again[TANDEM_MODEL_WHY_BYTES];

    fault = SAVE_LOSES_WHAT_MATTERS_LATER;
    assert_int_equal(TANDEM_E_INTERNAL, tandem_model_check(&sum_model, &options, first));
    assert_int_equal(TANDEM_E_INTERNAL, tandem_model_check(&sum_model, &options, again));
    assert_string_equal(first, again);
    options.seed = strtoull(first + strlen("seed "), NULL, 10);
    options.seeds = 1;
    assert_int_equal(TANDEM_E_INTERNAL, tandem_model_check(&sum_model, &options, again));
    assert_string_equal(first, again);
    fault = NONE;
}

/* ---- Where nothing is broken, nothing is found ---- */

static void models_that_hold_pass(void **state)
{
    static const char *const tick[] = {"TICK", NULL};
    tandem_model_check_options options = options_of(50);
    char why[TANDEM_MODEL_WHY_BYTES] = "x";

    assert_int_equal(TANDEM_OK, tandem_model_check(&sum_model, &options, why));
    assert_string_equal("", why);
    options.draw = NULL;
    assert_int_equal(TANDEM_OK, tandem_model_check(&sum_model, &options, why));
    options.verbs = tick;
    assert_int_equal(TANDEM_OK, tandem_model_check(&tally_model, &options, why));
}

static void a_check_that_proves_nothing_says_so(void **state)
{
    static const char *const nothing[] = {NULL};
    tandem_model_check_options options = options_of(5);
    tandem_model incomplete = sum_model;
    char why[TANDEM_MODEL_WHY_BYTES];

    options.draw = draw_text;
    assert_int_equal(TANDEM_E_INVALID, tandem_model_check(&sum_model, &options, why));
    assert_non_null(strstr(why, "nothing is proven"));
    options.draw = draw_no_json;
    assert_int_equal(TANDEM_E_INVALID, tandem_model_check(&sum_model, &options, why));
    assert_non_null(strstr(why, "what was drawn for ADD"));
    incomplete.save = NULL;
    assert_int_equal(TANDEM_E_INVALID, tandem_model_check(&incomplete, &options, why));
    assert_non_null(strstr(why, "slots"));
    options.verbs = nothing;
    assert_int_equal(TANDEM_E_INVALID, tandem_model_check(&sum_model, &options, why));
    options.verbs = add;
    options.seeds = 0;
    assert_int_equal(TANDEM_E_INVALID, tandem_model_check(&sum_model, &options, why));
    assert_int_equal(TANDEM_E_INVALID, tandem_model_check(&sum_model, NULL, why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_broken_law_is_named),
        cmocka_unit_test(a_model_that_minds_the_order_of_arrival_is_named),
        cmocka_unit_test(a_broken_law_has_a_seed_that_shows_it_again),
        cmocka_unit_test(models_that_hold_pass),
        cmocka_unit_test(a_check_that_proves_nothing_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
