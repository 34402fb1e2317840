/* Mailboxes. DESIGN.md, section 7: "Mailbox: items, get by id, push, remove, `added` and `removed`
 * subscriptions" and "Mailboxes are windows, not queues". */
#include "channel/mailbox.h"
#include "job_maker.h"

enum { JOBS = 300 };

static tandem_mailbox *mailbox_of(uint32_t jobs, uint64_t bytes)
{
    tandem_mailbox *mailbox;

    assert_int_equal(TANDEM_OK, tandem_mailbox_open(jobs, bytes, &mailbox));
    assert_int_equal(jobs, tandem_mailbox_window_jobs(mailbox));
    assert_int_equal(bytes, tandem_mailbox_window_bytes(mailbox));
    return mailbox;
}

static tandem_job_handle *push_job(tandem_mailbox *mailbox, struct chain *chain, size_t payload)
{
    tandem_job_handle *handle = make_job(chain, 1, payload);

    assert_true(tandem_mailbox_fits(mailbox, handle->bytes));
    tandem_mailbox_push(mailbox, handle);
    return handle;
}

static void take_out(tandem_mailbox *mailbox, tandem_job_handle *handle)
{
    tandem_mailbox_remove(mailbox, handle);
    tandem_job_handle_free(handle);
}

static void an_empty_mailbox_has_no_items(void **state)
{
    tandem_mailbox *mailbox = mailbox_of(3, 1000);

    assert_null(tandem_mailbox_first(mailbox));
    assert_null(tandem_mailbox_get(mailbox, 1));
    assert_int_equal(0, tandem_mailbox_jobs(mailbox));
    assert_int_equal(0, tandem_mailbox_bytes(mailbox));
    tandem_mailbox_free(mailbox);
    tandem_mailbox_free(NULL);
}

static void items_come_in_order_of_arrival_and_by_id(void **state)
{
    tandem_mailbox *mailbox = mailbox_of(JOBS, UINT64_MAX);
    tandem_job_handle *handles[JOBS], *item;
    uint64_t bytes = 0;
    struct chain chain;

    chain_init(&chain, "notes", 1);
    for (int i = 0; i < JOBS; i++) {
        handles[i] = push_job(mailbox, &chain, (size_t)i);
        bytes += handles[i]->bytes;
    }
    assert_int_equal(JOBS, tandem_mailbox_jobs(mailbox));
    assert_int_equal(bytes, tandem_mailbox_bytes(mailbox));
    item = tandem_mailbox_first(mailbox);
    for (int i = 0; i < JOBS; i++, item = item->next) {
        assert_ptr_equal(handles[i], item);
        assert_ptr_equal(item, tandem_mailbox_get(mailbox, item->id));
        assert_true(i == 0 || item->id > handles[i - 1]->id);
    }
    assert_null(item);
    /* Out of the middle, the front and the end. */
    for (int i = 1; i < JOBS; i += 2) {
        uint64_t id = handles[i]->id;

        take_out(mailbox, handles[i]);
        assert_null(tandem_mailbox_get(mailbox, id));
    }
    take_out(mailbox, handles[0]);
    take_out(mailbox, handles[JOBS - 2]);
    item = tandem_mailbox_first(mailbox);
    bytes = 0;
    for (int i = 2; i < JOBS - 2; i += 2, item = item->next) {
        assert_ptr_equal(handles[i], item);
        bytes += item->bytes;
    }
    assert_null(item);
    assert_int_equal(bytes, tandem_mailbox_bytes(mailbox));
    tandem_mailbox_free(mailbox); /* and what is still in it */
}

static void ids_are_not_used_again(void **state)
{
    tandem_mailbox *mailbox = mailbox_of(2, 1000);
    tandem_job_handle *handle;
    struct chain chain;
    uint64_t first;

    chain_init(&chain, "notes", 1);
    handle = push_job(mailbox, &chain, 1);
    first = handle->id;
    assert_int_not_equal(0, first);
    tandem_mailbox_remove(mailbox, handle);
    tandem_mailbox_push(mailbox, handle);
    assert_true(handle->id > first);
    assert_null(tandem_mailbox_get(mailbox, first));
    tandem_mailbox_free(mailbox);
}

/* "at most `window_bytes`/`window_jobs` in flight" */
static void the_window_is_in_jobs_and_in_bytes(void **state)
{
    tandem_mailbox *jobs = mailbox_of(3, UINT64_MAX), *bytes;
    tandem_job_handle *handle;
    struct chain chain;
    uint64_t each;

    chain_init(&chain, "notes", 1);
    for (int i = 0; i < 3; i++)
        push_job(jobs, &chain, 1);
    assert_false(tandem_mailbox_fits(jobs, 1));
    take_out(jobs, tandem_mailbox_first(jobs));
    assert_true(tandem_mailbox_fits(jobs, 1));
    tandem_mailbox_free(jobs);

    handle = make_job(&chain, 1, 100);
    each = handle->bytes;
    bytes = mailbox_of(1000, 3 * each);
    tandem_mailbox_push(bytes, handle);
    assert_true(tandem_mailbox_fits(bytes, 2 * each));
    assert_false(tandem_mailbox_fits(bytes, 2 * each + 1));
    push_job(bytes, &chain, 100);
    push_job(bytes, &chain, 100);
    assert_false(tandem_mailbox_fits(bytes, 1));
    take_out(bytes, tandem_mailbox_first(bytes));
    assert_true(tandem_mailbox_fits(bytes, each));
    tandem_mailbox_free(bytes);
}

/* Else a job larger than the window could never travel. */
static void a_single_handle_always_fits(void **state)
{
    tandem_mailbox *mailbox = mailbox_of(5, 10);
    struct chain chain;

    chain_init(&chain, "notes", 1);
    assert_true(tandem_mailbox_fits(mailbox, TANDEM_JOB_BYTES_MAX));
    push_job(mailbox, &chain, 10000);
    assert_false(tandem_mailbox_fits(mailbox, 1));
    tandem_mailbox_free(mailbox);
}

/* ---- Subscriptions ---- */

struct observer {
    tandem_mailbox *mailbox;
    unsigned added, removed;
    uint64_t last_added, last_removed;
    bool takes_out;  /* what is added, at once */
    bool pushes_one; /* when something is removed */
    struct chain chain;
};

/* "All connections draw on one pool, each may always hold one message." */
static void mailboxes_may_share_memory_and_each_keeps_a_part(void **state)
{
    enum { EACH = TD_MAILBOX_JOBS_SHARED };
    td_mailbox_share share = {.limit_jobs = EACH + 10};
    tandem_mailbox *first = mailbox_of(1000, UINT64_MAX), *second = mailbox_of(1000, UINT64_MAX);
    struct chain chain;

    chain_init(&chain, "notes", 1);
    tandem_mailbox_join(first, &share);
    tandem_mailbox_join(second, &share);
    for (int i = 0; i < EACH + 10; i++)
        push_job(first, &chain, 1);
    assert_false(tandem_mailbox_fits(first, 1));
    assert_true(tandem_mailbox_is_draining(first));
    assert_false(tandem_mailbox_is_draining(second));
    for (int i = 0; i < EACH; i++)
        push_job(second, &chain, 1);
    assert_false(tandem_mailbox_fits(second, 1));
    for (int i = 0; i < EACH / 2; i++) {
        assert_true(tandem_mailbox_is_draining(second));
        take_out(second, tandem_mailbox_first(second));
    }
    assert_false(tandem_mailbox_is_draining(second));
    tandem_mailbox_free(first); /* gives back what it had */
    assert_int_equal(EACH / 2, share.used_jobs);
    while (tandem_mailbox_jobs(second) < share.limit_jobs)
        push_job(second, &chain, 1);
    assert_false(tandem_mailbox_fits(second, 1));
    tandem_mailbox_free(second);
    assert_int_equal(0, share.used_jobs);
}

static void on_added(void *context, tandem_job_handle *handle)
{
    struct observer *observer = context;

    observer->added++;
    observer->last_added = handle->id;
    assert_ptr_equal(handle, tandem_mailbox_get(observer->mailbox, handle->id));
    if (observer->takes_out)
        take_out(observer->mailbox, handle);
}

static void on_removed(void *context, tandem_job_handle *handle)
{
    struct observer *observer = context;

    observer->removed++;
    observer->last_removed = handle->id;
    assert_null(tandem_mailbox_get(observer->mailbox, handle->id));
    if (observer->pushes_one) {
        observer->pushes_one = false;
        push_job(observer->mailbox, &observer->chain, 1);
    }
}

static struct observer observer_of(tandem_mailbox *mailbox)
{
    struct observer observer = {.mailbox = mailbox};

    chain_init(&observer.chain, "others", 9);
    return observer;
}

static void added_and_removed_are_told_to_all_who_subscribed(void **state)
{
    tandem_mailbox *mailbox = mailbox_of(10, UINT64_MAX);
    struct observer both = observer_of(mailbox), added = both, removed = both;
    tandem_job_handle *first, *second;
    struct chain chain;

    chain_init(&chain, "notes", 1);
    assert_int_equal(TANDEM_OK, tandem_mailbox_subscribe(mailbox, on_added, on_removed, &both));
    assert_int_equal(TANDEM_OK, tandem_mailbox_subscribe(mailbox, on_added, NULL, &added));
    assert_int_equal(TANDEM_OK, tandem_mailbox_subscribe(mailbox, NULL, on_removed, &removed));
    first = push_job(mailbox, &chain, 1);
    second = push_job(mailbox, &chain, 1);
    assert_int_equal(2, both.added);
    assert_int_equal(second->id, both.last_added);
    assert_int_equal(2, added.added);
    tandem_mailbox_remove(mailbox, first);
    assert_int_equal(first->id, both.last_removed);
    assert_int_equal(1, removed.removed);
    assert_int_equal(0, added.removed);
    assert_int_equal(0, removed.added);
    tandem_job_handle_free(first);

    tandem_mailbox_unsubscribe(mailbox, &both);
    tandem_mailbox_unsubscribe(mailbox, &both); /* a stranger now: nothing happens */
    take_out(mailbox, second);
    assert_int_equal(1, both.removed);
    assert_int_equal(2, removed.removed);
    /* Freeing tells nobody. */
    push_job(mailbox, &chain, 1);
    tandem_mailbox_free(mailbox);
    assert_int_equal(2, removed.removed);
}

static void there_are_at_most_four_observers(void **state)
{
    tandem_mailbox *mailbox = mailbox_of(10, UINT64_MAX);
    struct observer observers[TD_MAILBOX_OBSERVERS_MAX + 1];

    for (int i = 0; i < TD_MAILBOX_OBSERVERS_MAX; i++)
        assert_int_equal(TANDEM_OK,
                         tandem_mailbox_subscribe(mailbox, on_added, NULL, &observers[i]));
    assert_int_equal(TANDEM_E_LIMIT, tandem_mailbox_subscribe(mailbox, on_added, NULL,
                                                              &observers[4]));
    tandem_mailbox_unsubscribe(mailbox, &observers[1]);
    assert_int_equal(TANDEM_OK, tandem_mailbox_subscribe(mailbox, on_added, NULL, &observers[4]));
    tandem_mailbox_free(mailbox);
}

static void an_observer_may_push_and_remove(void **state)
{
    tandem_mailbox *mailbox = mailbox_of(10, UINT64_MAX);
    struct observer first = observer_of(mailbox), second = first;
    tandem_job_handle *handle;
    struct chain chain;

    chain_init(&chain, "notes", 1);
    assert_int_equal(TANDEM_OK, tandem_mailbox_subscribe(mailbox, on_added, on_removed, &first));
    assert_int_equal(TANDEM_OK, tandem_mailbox_subscribe(mailbox, on_added, on_removed, &second));
    /* The first one takes it out and frees it: the second one is not shown what is gone. */
    first.takes_out = true;
    handle = make_job(&chain, 1, 1);
    tandem_mailbox_push(mailbox, handle);
    assert_int_equal(0, tandem_mailbox_jobs(mailbox));
    assert_int_equal(1, first.added);
    assert_int_equal(0, second.added);
    assert_int_equal(1, second.removed);

    first.takes_out = false;
    first.pushes_one = true;
    take_out(mailbox, push_job(mailbox, &chain, 1));
    assert_int_equal(1, tandem_mailbox_jobs(mailbox));
    assert_int_equal(3, first.added);
    assert_int_equal(2, second.added);
    tandem_mailbox_free(mailbox);
}

static void on_changed(void *context, tandem_job_handle *handle, tandem_job_state from,
                       tandem_job_state to)
{
    int *changes = context;

    assert_int_equal(handle->status, to);
    assert_true(from < to);
    ++*changes;
}

/* "status subscriptions": of whatever is in it. */
static void changes_of_status_are_told_while_a_handle_is_in_it(void **state)
{
    tandem_mailbox *mailbox = mailbox_of(3, UINT64_MAX);
    tandem_job_handle *handle;
    int both = 0, one = 0;
    struct chain chain;

    (void)state;
    chain_init(&chain, "notes", 1);
    assert_int_equal(TANDEM_OK, tandem_mailbox_observe(mailbox, NULL, on_changed, NULL, &both));
    assert_int_equal(TANDEM_OK, tandem_mailbox_observe(mailbox, NULL, on_changed, NULL, &one));
    handle = push_job(mailbox, &chain, 1);
    assert_int_equal(TANDEM_OK, tandem_job_handle_started(handle));
    assert_int_equal(TANDEM_OK, tandem_job_handle_started(handle));
    assert_int_equal(TANDEM_E_STATE, tandem_job_handle_executed(handle));
    tandem_mailbox_unsubscribe(mailbox, &one);
    assert_int_equal(TANDEM_OK, tandem_job_handle_transported(handle));
    assert_int_equal(2, both);
    assert_int_equal(1, one);
    tandem_mailbox_remove(mailbox, handle);
    assert_int_equal(TANDEM_OK, tandem_job_handle_failed(handle, TANDEM_E_CLOSED));
    assert_int_equal(2, both);
    tandem_job_handle_free(handle);
    tandem_mailbox_free(mailbox);
}

/* Before that nobody wanted to know. */
static void who_comes_late_is_told_of_what_is_there_already(void **state)
{
    tandem_mailbox *mailbox = mailbox_of(3, UINT64_MAX);
    tandem_job_handle *handle, *next;
    struct chain chain;
    int late = 0;

    (void)state;
    chain_init(&chain, "notes", 1);
    handle = push_job(mailbox, &chain, 1);
    assert_int_equal(TANDEM_OK, tandem_job_handle_started(handle));
    assert_int_equal(TANDEM_OK, tandem_mailbox_observe(mailbox, NULL, on_changed, NULL, &late));
    next = push_job(mailbox, &chain, 1);
    assert_int_equal(TANDEM_OK, tandem_job_handle_transported(handle));
    assert_int_equal(1, late);
    assert_int_equal(TANDEM_OK, tandem_job_handle_started(next));
    assert_int_equal(2, late);
    tandem_mailbox_free(mailbox);
}

static void mailboxes_that_share_ids_never_give_one_twice(void **state)
{
    tandem_mailbox *a = mailbox_of(JOBS, UINT64_MAX), *b = mailbox_of(JOBS, UINT64_MAX);
    uint64_t last = 100;
    struct chain chain;

    (void)state;
    chain_init(&chain, "notes", 1);
    tandem_mailbox_share_ids(a, &last);
    tandem_mailbox_share_ids(b, &last);
    assert_int_equal(101, push_job(a, &chain, 1)->id);
    assert_int_equal(102, push_job(b, &chain, 1)->id);
    take_out(a, tandem_mailbox_first(a));
    assert_int_equal(103, push_job(a, &chain, 1)->id);
    assert_int_equal(103, last);
    assert_null(tandem_mailbox_get(a, 102));
    tandem_mailbox_free(a);
    tandem_mailbox_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_mailbox_has_no_items),
        cmocka_unit_test(items_come_in_order_of_arrival_and_by_id),
        cmocka_unit_test(ids_are_not_used_again),
        cmocka_unit_test(changes_of_status_are_told_while_a_handle_is_in_it),
        cmocka_unit_test(who_comes_late_is_told_of_what_is_there_already),
        cmocka_unit_test(mailboxes_that_share_ids_never_give_one_twice),
        cmocka_unit_test(the_window_is_in_jobs_and_in_bytes),
        cmocka_unit_test(a_single_handle_always_fits),
        cmocka_unit_test(mailboxes_may_share_memory_and_each_keeps_a_part),
        cmocka_unit_test(added_and_removed_are_told_to_all_who_subscribed),
        cmocka_unit_test(there_are_at_most_four_observers),
        cmocka_unit_test(an_observer_may_push_and_remove),
    };

    return cmocka_run_group_tests_name("mailbox", tests, NULL, NULL);
}
