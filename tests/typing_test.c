/* The laws of texts in the simulator, lied to: each is seen to be broken by a text that breaks it,
 * and by none that does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sync/typing.h"

enum { TEXT = 3, MARKS_MAX = 32 };

static const uint8_t anna[TANDEM_ORIGIN_BYTES] = "anna", berta[TANDEM_ORIGIN_BYTES] = "berta";

static int open_typing(void **state)
{
    return td_typing_open((td_typing **)state) != TANDEM_OK;
}

static int free_typing(void **state)
{
    td_typing_free(*state);
    return 0;
}

/* Characters by their numbers: "1 2 3". */
static size_t marks_of(const char *text, td_mark out[MARKS_MAX])
{
    size_t count = 0;
    int size;

    for (; sscanf(text, "%u%n", &out[count], &size) == 1; text += size)
        assert_true(++count < MARKS_MAX);
    return count;
}

/* One job of one edit, by one who sees this. */
static td_edit type(td_typing *typing, uint64_t job, const uint8_t *author, const char *sees,
                    size_t at, size_t deleted, size_t inserted)
{
    td_mark marks[MARKS_MAX];
    td_view view = {.marks = {marks, marks_of(sees, marks)}, .operations = job, .origin = author};
    const td_edit *edit;

    assert_int_equal(TANDEM_OK, td_typing_begin(typing, job, TEXT, &view));
    assert_int_equal(TANDEM_OK, td_typing_edit(typing, at, deleted, inserted, false, &edit));
    td_typing_outcome(typing, job, TANDEM_OUTCOME_DURABLE);
    return *edit;
}

static void assert_fine(td_typing *typing, const char *text)
{
    td_mark marks[MARKS_MAX];
    td_marks shown = {marks, marks_of(text, marks)};
    char why[256] = "";

    if (td_typing_look(typing, TEXT, shown, why) != TANDEM_OK ||
        td_typing_order(typing, TEXT, shown, why) != TANDEM_OK)
        fail_msg("%s: %s", text, why);
}

static void assert_wrong(td_typing *typing, const char *text, const char *word)
{
    td_mark marks[MARKS_MAX];
    td_marks shown = {marks, marks_of(text, marks)};
    char why[256] = "";

    if (td_typing_look(typing, TEXT, shown, why) == TANDEM_OK)
        assert_int_equal(TANDEM_E_STATE, td_typing_order(typing, TEXT, shown, why));
    if (!strstr(why, word))
        fail_msg("%s: %s", text, why);
}

static void what_is_shown_was_typed(void **state)
{
    type(*state, 1, anna, "", 0, 0, 3);
    assert_fine(*state, "1 2 3");
    assert_fine(*state, "2");
    assert_wrong(*state, "1 2 3 4", "never typed");
    assert_wrong(*state, "1 2 2", "twice");
    td_typing_outcome(*state, 1, TANDEM_OUTCOME_FAILED);
    assert_wrong(*state, "2", "failed");
}

static void another_text_is_another_one(void **state)
{
    td_mark mark = 1;
    char why[256];

    type(*state, 1, anna, "", 0, 0, 1);
    assert_int_equal(TANDEM_E_STATE, td_typing_look(*state, TEXT + 1, (td_marks){&mark, 1}, why));
    assert_non_null(strstr(why, "never typed there"));
}

static void who_types_forwards_is_not_interleaved(void **state)
{
    type(*state, 1, anna, "", 0, 0, 2);       /* 1 2 */
    type(*state, 2, berta, "", 0, 0, 2);      /* 3 4 */
    type(*state, 3, anna, "1 2", 2, 0, 1);    /* 5 */
    type(*state, 4, berta, "3 4", 2, 0, 1);   /* 6 */
    assert_fine(*state, "1 2 5 3 4 6");
    assert_fine(*state, "3 4 6 1 2 5");
    assert_fine(*state, "3 6 2 5"); /* with some deleted */
    assert_wrong(*state, "1 3 4 6 2 5", "interleaved");
    assert_wrong(*state, "1 2 3 4 6 5", "interleaved");
    assert_wrong(*state, "3 1 6", "interleaved");
    assert_wrong(*state, "2 1", "stands before it");
    assert_wrong(*state, "5 2", "stands before it");
}

static void who_types_backwards_is_not_interleaved(void **state)
{
    assert_int_equal(0, type(*state, 1, anna, "", 0, 0, 2).before); /* 1 2 */
    assert_int_equal(0, type(*state, 2, berta, "", 0, 0, 2).before); /* 3 4 */
    assert_int_equal(1, type(*state, 3, anna, "1 2", 0, 0, 1).before); /* 5 */
    assert_int_equal(3, type(*state, 4, berta, "3 4", 0, 0, 1).before); /* 6 */
    assert_fine(*state, "5 1 2 6 3 4");
    assert_fine(*state, "6 3 4 5 1 2");
    assert_fine(*state, "6 4 5 2");
    assert_wrong(*state, "5 6 1 2 3 4", "interleaved");
    assert_wrong(*state, "6 5 3 4 1 2", "interleaved");
    assert_wrong(*state, "6 5 4 2", "interleaved");
    assert_wrong(*state, "1 2 5 6 3 4", "stands behind it");
}

/* Who has seen what one types before may type there, too. */
static void who_has_seen_it_may_stand_there(void **state)
{
    type(*state, 1, anna, "", 0, 0, 1);   /* 1 */
    type(*state, 2, berta, "1", 0, 0, 1); /* 2 */
    type(*state, 3, anna, "1", 0, 0, 1);  /* 3 */
    assert_fine(*state, "2 3 1");
    assert_fine(*state, "3 2 1");
}

/* Of what was deleted where one types nobody but the model knows whether it stands there. */
static void what_is_deleted_may_have_others_behind_it(void **state)
{
    type(*state, 1, anna, "", 0, 0, 1);                                   /* 1 */
    type(*state, 2, anna, "1", 1, 0, 1);                                  /* 2 */
    type(*state, 3, berta, "1", 1, 0, 1);                                 /* 3 */
    assert_int_equal(2, type(*state, 4, anna, "1 2", 1, 0, 1).before);    /* 4 */
    type(*state, 5, berta, "1 3 4 2", 1, 1, 0);                           /* without 3 */
    assert_int_equal(0, type(*state, 6, anna, "1 4 2", 1, 0, 1).before);  /* 5, or before 3 */
    assert_int_equal(1, type(*state, 7, berta, "1 4 2", 1, 1, 1).behind); /* 6, for 4 */
}

static void the_order_that_one_saw_stays(void **state)
{
    type(*state, 1, anna, "", 0, 0, 1);       /* 1 */
    type(*state, 2, berta, "", 0, 0, 1);      /* 2 */
    type(*state, 3, anna, "1 2", 2, 0, 1);    /* 3 */
    type(*state, 4, berta, "1 2 3", 1, 1, 1); /* 4, for 2 */
    assert_fine(*state, "1 4 3");
    assert_wrong(*state, "3 1", "before one of job");
    assert_wrong(*state, "2 3 1", "before one of job");
}

static void cursors_go_with_their_authors(void **state)
{
    bool backwards;

    type(*state, 1, anna, "", 0, 0, 2);       /* 1 2 */
    type(*state, 2, berta, "", 0, 0, 1);      /* 3 */
    type(*state, 3, anna, "1 2 3", 0, 1, 0);  /* without 1: a beginning is no cursor */
    type(*state, 4, berta, "2 3", 2, 0, 1);   /* 4 */
    assert_int_equal(3, td_typing_cursor(*state, &backwards));
    assert_false(backwards);
    assert_int_equal(1, td_typing_cursor_of_other(*state));
    assert_int_equal(3, td_typing_length(*state));
}

static void characters_are_well_formed(void **state)
{
    for (td_mark mark = 1; mark < TD_MARKS_MAX; mark++) {
        char text[TD_MARK_BYTES_MAX];
        size_t size = td_mark_write(mark, text), count;
        td_mark *marks;

        assert_int_equal(TANDEM_OK, td_marks_read(tandem_slice_of(text, size), &marks, &count));
        assert_true(count == 1 && marks[0] == mark);
        free(marks);
    }
    for (const char *const *text = (const char *const[]){"\x1f", "\xff", "\xf4\x80\x80\x80", NULL};
         *text; text++) {
        td_mark *marks;
        size_t count;

        assert_int_equal(TANDEM_E_STATE, td_marks_read(tandem_slice_text(*text), &marks, &count));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_shown_was_typed, open_typing, free_typing),
        cmocka_unit_test_setup_teardown(another_text_is_another_one, open_typing, free_typing),
        cmocka_unit_test_setup_teardown(who_types_forwards_is_not_interleaved, open_typing,
                                        free_typing),
        cmocka_unit_test_setup_teardown(who_types_backwards_is_not_interleaved, open_typing,
                                        free_typing),
        cmocka_unit_test_setup_teardown(who_has_seen_it_may_stand_there, open_typing, free_typing),
        cmocka_unit_test_setup_teardown(what_is_deleted_may_have_others_behind_it, open_typing,
                                        free_typing),
        cmocka_unit_test_setup_teardown(the_order_that_one_saw_stays, open_typing, free_typing),
        cmocka_unit_test_setup_teardown(cursors_go_with_their_authors, open_typing, free_typing),
        cmocka_unit_test(characters_are_well_formed),
    };

    return cmocka_run_group_tests_name("typing", tests, NULL, NULL);
}
