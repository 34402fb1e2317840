/* The registry of models: the built-in ones are there, and what is no model is refused. */
#include "reactor/model_registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static int open_registry(void **state)
{
    td_model_registry *registry = NULL;

    if (td_model_registry_open(&registry) != TANDEM_OK)
        return -1;
    *state = registry;
    return 0;
}

static int free_registry(void **state)
{
    td_model_registry_free(*state);
    return 0;
}

static const tandem_model *find(const td_model_registry *registry, const char *name)
{
    return td_model_registry_find(registry, tandem_slice_text(name));
}

static void the_built_in_models_are_there(void **state)
{
    assert_ptr_equal(&tandem_model_kv, find(*state, "kv"));
    assert_ptr_equal(&tandem_model_counter, find(*state, "counter"));
    assert_ptr_equal(&tandem_model_log, find(*state, "log"));
}

static void an_unknown_name_is_not_found(void **state)
{
    assert_null(find(*state, ""));
    assert_null(find(*state, "k"));
    assert_null(find(*state, "kvs"));
    assert_null(find(*state, "KV"));
    assert_null(td_model_registry_find(*state, tandem_slice_of("kv\0", 3)));
}

static void many_models_can_be_added(void **state)
{
    static tandem_model models[40];
    static char names[40][16];

    for (int i = 0; i < 40; i++) {
        snprintf(names[i], sizeof(names[i]), "model_%d", i);
        models[i] = tandem_model_log;
        models[i].name = names[i];
        assert_int_equal(TANDEM_OK, td_model_registry_add(*state, &models[i]));
    }
    for (int i = 0; i < 40; i++)
        assert_ptr_equal(&models[i], find(*state, names[i]));
    assert_ptr_equal(&tandem_model_kv, find(*state, "kv"));
}

static void a_taken_name_is_refused(void **state)
{
    tandem_model other = tandem_model_counter;

    other.name = "kv";
    assert_int_equal(TANDEM_E_EXISTS, td_model_registry_add(*state, &other));
    assert_ptr_equal(&tandem_model_kv, find(*state, "kv"));
}

static void a_bad_name_is_refused(void **state)
{
    static const char *const names[] = {
        NULL, "", "Kv", "a.b", "a-b", "a b", "\xc3\xa4",
        "a2345678901234567890123456789012345678901234567890123456789012345",
    };
    tandem_model other = tandem_model_log;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        other.name = names[i];
        assert_int_equal(TANDEM_E_INVALID, td_model_registry_add(*state, &other));
    }
    other.name = "a234567890123456789012345678901234567890123456789012345678901234";
    assert_int_equal(TANDEM_OK, td_model_registry_add(*state, &other));
}

static void a_model_of_another_size_is_refused(void **state)
{
    tandem_model other = tandem_model_log;

    other.name = "other";
    other.size = 0;
    assert_int_equal(TANDEM_E_INVALID, td_model_registry_add(*state, &other));
    other.size = sizeof(other) + sizeof(void *);
    assert_int_equal(TANDEM_E_INVALID, td_model_registry_add(*state, &other));
    assert_int_equal(TANDEM_E_INVALID, td_model_registry_add(*state, NULL));
}

#define REFUSED_WITHOUT(slot)                                                                      \
    do {                                                                                           \
        tandem_model other = tandem_model_log;                                                     \
                                                                                                   \
        other.name = "other";                                                                      \
        other.slot = NULL;                                                                         \
        assert_int_equal(TANDEM_E_INVALID, td_model_registry_add(*state, &other));                 \
    } while (0)

static void a_model_with_a_missing_slot_is_refused(void **state)
{
    REFUSED_WITHOUT(state_open);
    REFUSED_WITHOUT(state_free);
    REFUSED_WITHOUT(prepare);
    REFUSED_WITHOUT(apply);
    REFUSED_WITHOUT(show);
    REFUSED_WITHOUT(save);
    REFUSED_WITHOUT(restore);
    assert_null(find(*state, "other"));
}

static void free_accepts_nothing(void **state)
{
    (void)state;
    td_model_registry_free(NULL);
}

#define WITH_REGISTRY(test) cmocka_unit_test_setup_teardown(test, open_registry, free_registry)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_REGISTRY(the_built_in_models_are_there),
        WITH_REGISTRY(an_unknown_name_is_not_found),
        WITH_REGISTRY(many_models_can_be_added),
        WITH_REGISTRY(a_taken_name_is_refused),
        WITH_REGISTRY(a_bad_name_is_refused),
        WITH_REGISTRY(a_model_of_another_size_is_refused),
        WITH_REGISTRY(a_model_with_a_missing_slot_is_refused),
        cmocka_unit_test(free_accepts_nothing),
    };

    return cmocka_run_group_tests_name("model registry", tests, NULL, NULL);
}
