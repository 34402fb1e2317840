/*
 * A mute peer: it opens a session over WebSocket, says that it holds nothing, so that all is sent to
 * it, and then reads no byte of it. But it lives: its heartbeats go out, and the node does not hang up.
 *
 * Threads: one at a time.
 */
#ifndef TANDEM_TOOLS_BENCH_MUTE_H
#define TANDEM_TOOLS_BENCH_MUTE_H

#include <stdbool.h>

typedef struct bench_mute bench_mute;

/* Open one with the node at "ws://127.0.0.1:PORT/tandem". NULL: that did not work. */
bench_mute *bench_mute_open(const char *url);
void bench_mute_free(bench_mute *mute); /* NULL is fine */
/* Say a heartbeat if it is time. */
void bench_mute_live(bench_mute *mute);
/* Was something sent to it, and has the node not hung up? */
bool bench_mute_is_served(const bench_mute *mute);

#endif
