/* What the executor knows of documents: learnt once nothing is with the view, forgotten when touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "reactor/known.h"

static tandem_slice s(const char *text)
{
    return tandem_slice_text(text);
}

static const tandem_model *find(const td_known *known, const char *document)
{
    uint64_t created_hlc;

    return td_known_find(known, s("c"), s(document), &created_hlc);
}

static void learn(td_known *known, const char *document)
{
    assert_int_equal(TANDEM_OK, td_known_ask(known, s("c"), s(document)));
    td_known_answer(known, s("c"), s(document), &tandem_model_kv, 5);
}

static void what_the_view_answered_is_known(void **state)
{
    td_known known = {0};
    uint64_t created_hlc = 0;

    assert_null(find(&known, "d"));
    learn(&known, "d");
    assert_ptr_equal(&tandem_model_kv, td_known_find(&known, s("c"), s("d"), &created_hlc));
    assert_int_equal(5, created_hlc);
    assert_null(find(&known, "e"));
    assert_null(td_known_find(&known, s("cd"), s(""), &created_hlc));
    td_known_release(&known);
}

static void what_is_touched_is_forgotten(void **state)
{
    td_known known = {0};

    learn(&known, "d");
    learn(&known, "e");
    td_known_forget(&known, s("c"), s("d"));
    assert_null(find(&known, "d"));
    assert_non_null(find(&known, "e"));
    td_known_forget_all(&known);
    assert_null(find(&known, "e"));
    td_known_release(&known);
}

static void while_one_is_asked_about_no_other_overtakes_it(void **state)
{
    td_known known = {0};

    learn(&known, "d");
    assert_int_equal(TANDEM_OK, td_known_ask(&known, s("c"), s("d")));
    assert_int_equal(TANDEM_OK, td_known_ask(&known, s("c"), s("d")));
    assert_null(find(&known, "d"));
    td_known_answer(&known, s("c"), s("d"), &tandem_model_kv, 5);
    assert_null(find(&known, "d"));
    td_known_forget(&known, s("c"), s("d"));
    td_known_answer(&known, s("c"), s("d"), NULL, 0);
    assert_null(find(&known, "d"));
    learn(&known, "d");
    assert_non_null(find(&known, "d"));
    td_known_release(&known);
}

static void of_too_many_the_oldest_are_forgotten(void **state)
{
    td_known known = {0};
    char name[16];

    for (int i = 0; i <= TD_KNOWN_MAX; i++) {
        snprintf(name, sizeof(name), "d%d", i);
        learn(&known, name);
    }
    assert_null(find(&known, "d0"));
    assert_non_null(find(&known, "d1"));
    assert_non_null(find(&known, name));
    td_known_release(&known);
}

/* They are refused elsewhere. */
static void names_that_are_none_do_no_harm(void **state)
{
    td_known known = {0};

    assert_int_equal(TANDEM_OK, td_known_ask(&known, s(""), s("")));
    td_known_answer(&known, s(""), s(""), NULL, 0);
    td_known_release(&known);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_view_answered_is_known),
        cmocka_unit_test(what_is_touched_is_forgotten),
        cmocka_unit_test(while_one_is_asked_about_no_other_overtakes_it),
        cmocka_unit_test(of_too_many_the_oldest_are_forgotten),
        cmocka_unit_test(names_that_are_none_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
