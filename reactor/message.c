#include "reactor/message.h"

#include <assert.h>

void td_message_list_push(td_message_list *list, td_message *message)
{
    message->next = NULL;
    if (list->last)
        list->last->next = message;
    else
        list->first = message;
    list->last = message;
}

td_message *td_message_list_pop(td_message_list *list)
{
    td_message *message = list->first;

    if (!message)
        return NULL;
    list->first = message->next;
    if (!list->first)
        list->last = NULL;
    message->next = NULL;
    return message;
}

void td_message_list_append(td_message_list *list, td_message_list *more)
{
    if (!more->first)
        return;
    if (list->last)
        list->last->next = more->first;
    else
        list->first = more->first;
    list->last = more->last;
    *more = (td_message_list){0};
}

bool td_message_list_remove(td_message_list *list, td_message *message)
{
    td_message *previous = NULL;

    for (td_message *m = list->first; m; previous = m, m = m->next) {
        if (m != message)
            continue;
        if (previous)
            previous->next = m->next;
        else
            list->first = m->next;
        if (list->last == m)
            list->last = previous;
        m->next = NULL;
        return true;
    }
    return false;
}

void td_message_list_remove_to(td_message_list *list, const td_actor *to, td_message_list *out)
{
    td_message_list kept = {0};
    td_message *message;

    while ((message = td_message_list_pop(list)))
        td_message_list_push(message->to == to ? out : &kept, message);
    *list = kept;
}

void td_message_list_drop(td_message_list *list)
{
    td_message *message;

    while ((message = td_message_list_pop(list))) {
        message->to = NULL;
        message->number = 0;
        message->drop(message);
    }
}

/* ---- The pairing heap: child is the first child, next the next sibling, prev the previous sibling
 * or, of a first child, the parent. ---- */

static bool is_before(const td_message *a, const td_message *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->number < b->number;
}

/* Two heaps become one; either may be empty. */
static td_message *merge(td_message *a, td_message *b)
{
    if (!a || !b)
        return a ? a : b;
    if (is_before(b, a)) {
        td_message *swap = a;

        a = b;
        b = swap;
    }
    b->prev = a;
    b->next = a->child;
    if (b->next)
        b->next->prev = b;
    a->child = b;
    return a;
}

/* The children of a removed node become one heap: merged in pairs from the left, then the pairs
 * from the right. Any other order would cost the logarithm. */
static td_message *merge_children(td_message *child)
{
    td_message *pairs = NULL, *root = NULL;

    while (child) {
        td_message *a = child, *b = a->next, *pair;

        child = b ? b->next : NULL;
        a->next = a->prev = NULL;
        if (b)
            b->next = b->prev = NULL;
        pair = merge(a, b);
        pair->next = pairs;
        pairs = pair;
    }
    while (pairs) {
        td_message *pair = pairs;

        pairs = pair->next;
        pair->next = NULL;
        root = merge(root, pair);
    }
    return root;
}

static void insert(td_timers *timers, td_message *message)
{
    message->next = message->prev = message->child = NULL;
    timers->root = merge(timers->root, message);
}

static void detach(td_timers *timers, td_message *message)
{
    if (message == timers->root) {
        timers->root = merge_children(message->child);
    } else {
        if (message->prev->child == message)
            message->prev->child = message->next;
        else
            message->prev->next = message->next;
        if (message->next)
            message->next->prev = message->prev;
        timers->root = merge(timers->root, merge_children(message->child));
    }
    message->next = message->prev = message->child = NULL;
}

void td_timers_add(td_timers *timers, td_message *message)
{
    message->number = ++timers->numbered;
    insert(timers, message);
}

td_message *td_timers_first(const td_timers *timers)
{
    return timers->root;
}

void td_timers_remove(td_timers *timers, td_message *message)
{
    assert(message->number && timers->root);
    detach(timers, message);
    message->number = 0;
}

void td_timers_remove_to(td_timers *timers, const td_actor *to, td_message_list *out)
{
    td_message_list kept = {0};
    td_message *message;

    while ((message = timers->root)) {
        detach(timers, message);
        td_message_list_push(message->to == to ? out : &kept, message);
    }
    while ((message = td_message_list_pop(&kept)))
        insert(timers, message);
}

uint64_t td_due_us(uint64_t now_us, uint64_t delay_ms)
{
    return delay_ms > (UINT64_MAX - now_us) / 1000 ? UINT64_MAX : now_us + delay_ms * 1000;
}
