/*
 * Light peers: sessions without reactors behind them, for a herd that is larger than the machine that
 * it runs on. To the node each is a peer like any other: it dials, says HELLO, announces that it holds
 * nothing, acknowledges what comes and keeps the connection alive, through the library's own channel,
 * session and carriers. But it keeps nothing, checks no hash and folds nothing; what it says it holds
 * after a reconnect is nothing again.
 *
 * Many share a loop and a thread: the caller's.
 */
#ifndef TANDEM_TOOLS_BENCH_LIGHT_H
#define TANDEM_TOOLS_BENCH_LIGHT_H

#include <stdatomic.h>
#include <stdint.h>

#include "store/error.h"

typedef struct bench_lights bench_lights;

tandem_err bench_lights_open(bench_lights **out);
/* Add a peer that dials url. collection: all that it shares; NULL: everything. operations: where it
 * counts how many came to it. */
tandem_err bench_lights_add(bench_lights *lights, const char *url, const char *collection,
                            _Atomic uint64_t *operations);
/* Be they all, for ever. */
_Noreturn void bench_lights_live(bench_lights *lights);

#endif
