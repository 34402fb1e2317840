/*
 * How messages wait, for both runtimes: in lists, first come first served, and in timers, by
 * (due, order of insertion).
 *
 * Both link the messages themselves: a runtime that had to allocate could fail to post. Timers are
 * a pairing heap: adding is constant, taking the first or any other is logarithmic, so ten thousand
 * connections may each keep a few.
 *
 * Threads: none of their own; the caller locks.
 */
#ifndef TANDEM_REACTOR_MESSAGE_H
#define TANDEM_REACTOR_MESSAGE_H

#include "reactor/actor.h"

/* All zeros is the empty list. */
typedef struct td_message_list {
    td_message *first, *last;
} td_message_list;

void td_message_list_push(td_message_list *list, td_message *message);
/* NULL if it is empty. */
td_message *td_message_list_pop(td_message_list *list);
/* Everything in `more` comes behind; `more` is empty then. */
void td_message_list_append(td_message_list *list, td_message_list *more);
/* False if it is not in the list. */
bool td_message_list_remove(td_message_list *list, td_message *message);
/* Move what is addressed to an actor to the end of out, in order. */
void td_message_list_remove_to(td_message_list *list, const td_actor *to, td_message_list *out);
/* Hand every message back to nobody and drop it; the list is empty then. */
void td_message_list_drop(td_message_list *list);

/* All zeros is empty. */
typedef struct td_timers {
    td_message *root;
    uint64_t numbered;
} td_timers;

/* Add a message with its due_us; its number, 1 or more, says that it is timed. */
void td_timers_add(td_timers *timers, td_message *message);
/* The one due first, left in place; NULL if there is none. */
td_message *td_timers_first(const td_timers *timers);
/* Remove a message that is in these timers; its number is 0 then. */
void td_timers_remove(td_timers *timers, td_message *message);
/* Move what is addressed to an actor to the end of out, in order. */
void td_timers_remove_to(td_timers *timers, const td_actor *to, td_message_list *out);

/* now + delay in microseconds; as late as can be said if that is too late to be said. */
uint64_t td_due_us(uint64_t now_us, uint64_t delay_ms);

#endif
