/*
 * Stopping long work on SIGINT or SIGTERM at a place where it can say what was done: the first of
 * either is noted, and ends a wait for input or for a node; a second of the same kind ends the
 * process, as it would have without this.
 *
 * Threads: the main one; the library's take no signals.
 */
#ifndef TANDEM_TOOLS_INTERRUPT_H
#define TANDEM_TOOLS_INTERRUPT_H

#include <stdbool.h>

/* Take the signals from now on. */
void cli_interrupt_begin(void);
/* The signal that came; 0: none. */
int cli_interrupt(void);
/* Wait until a read would not block, or so many milliseconds (-1: for ever). False: a signal came,
 * before or meanwhile. */
bool cli_interrupt_wait(int fd, int timeout_ms);

#endif
