/*
 * Executing jobs: the public calls are in reactor.h; this is what closing needs of them.
 */
#ifndef TANDEM_REACTOR_EXECUTE_H
#define TANDEM_REACTOR_EXECUTE_H

#include "reactor/reactor.h"

/* Wait until every job that was accepted is answered, callbacks included; no new one may come. */
void td_execute_flush(tandem_reactor *reactor);

#endif
