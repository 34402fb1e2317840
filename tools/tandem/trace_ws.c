/*
 * A world of real reactors, with threads and a listener on loopback each, that sync over WebSocket,
 * in real time. Each author dials those before it, each reader one of them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tandem/interrupt.h"
#include "tools/tandem/trace_gate.h"
#include "tools/tandem/trace_world.h"

enum {
    LOOK_MS = 1000,      /* how often a wait looks whether a signal came */
    PATIENCE_MS = 60000, /* nothing was committed for so long: it will not come */
    CONNECT_MS = 60000,
    NAME_BYTES = 16,
};

struct node {
    tandem_reactor *reactor;
    tandem_sync *sync;
    cli_gate gate; /* an author's */
    char url[128];
};

struct ws_world {
    cli_world base;
    unsigned authors, reactors;
    uint8_t origins[CLI_AUTHORS_MAX][TANDEM_ORIGIN_BYTES];
    struct node nodes[CLI_AUTHORS_MAX];
};

static struct ws_world *ws_of(cli_world *world)
{
    return (struct ws_world *)world;
}

static tandem_reactor *ws_reactor(cli_world *world, unsigned reactor)
{
    return ws_of(world)->nodes[reactor].reactor;
}

static tandem_sync *ws_sync(cli_world *world, unsigned reactor)
{
    return ws_of(world)->nodes[reactor].sync;
}

/* ---- Making it ---- */

static tandem_err open_node(struct ws_world *ws, const char *folder, unsigned number)
{
    tandem_options options = TANDEM_OPTIONS_INIT;
    struct node *node = &ws->nodes[number];
    char path[512];
    tandem_err err;

    snprintf(path, sizeof(path), "%s/r%u", folder, number);
    options.path = path;
    if (number < ws->authors) {
        options.admit = cli_gate_admits;
        options.admit_context = &node->gate;
    }
    if ((err = tandem_open(&options, &node->reactor)) != TANDEM_OK ||
        (err = tandem_sync_open(node->reactor, NULL, &node->sync)) != TANDEM_OK)
        return err;
    if (number < ws->authors)
        memcpy(ws->origins[number], tandem_reactor_origin(node->reactor), TANDEM_ORIGIN_BYTES);
    return tandem_listen(node->sync, "127.0.0.1", 0, false, node->url);
}

static tandem_err dial(struct ws_world *ws, unsigned from, unsigned to)
{
    char name[NAME_BYTES];

    snprintf(name, sizeof(name), "r%u", to);
    return tandem_remote_add(ws->nodes[from].sync, name, ws->nodes[to].url);
}

/* Authors with each other, each reader with one of them. */
static tandem_err connect_all(struct ws_world *ws)
{
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; i < ws->authors; i++)
        for (unsigned k = 0; k < i && err == TANDEM_OK; k++)
            err = dial(ws, i, k);
    for (unsigned i = ws->authors; i < ws->reactors && err == TANDEM_OK; i++)
        err = dial(ws, i, i % ws->authors);
    for (unsigned i = 0; i < ws->reactors && err == TANDEM_OK; i++)
        err = tandem_wait_in_step(ws->nodes[i].sync, NULL, CONNECT_MS);
    return err;
}

static void ws_free(cli_world *world)
{
    struct ws_world *ws = ws_of(world);

    if (!ws)
        return;
    for (unsigned i = 0; i < ws->reactors; i++) {
        tandem_sync_close(ws->nodes[i].sync);
        tandem_close(ws->nodes[i].reactor);
        cli_gate_release(&ws->nodes[i].gate);
    }
    free(ws);
}

static tandem_err ws_open(const char *folder, unsigned authors, unsigned reactors, cli_world **out,
                          char why[256])
{
    struct ws_world *ws = calloc(1, sizeof(*ws));
    tandem_err err = TANDEM_OK;

    if (!ws)
        return TANDEM_E_NOMEM;
    ws->base.ops = &cli_ws_world;
    ws->authors = authors;
    ws->reactors = reactors;
    for (unsigned i = 0; i < reactors; i++)
        cli_gate_init(&ws->nodes[i].gate, ws->origins, authors);
    for (unsigned i = 0; i < reactors && err == TANDEM_OK; i++)
        if ((err = open_node(ws, folder, i)) != TANDEM_OK)
            snprintf(why, 256, "reactor %u could not be opened: %s", i, tandem_err_text(err));
    if (err == TANDEM_OK && (err = connect_all(ws)) != TANDEM_OK)
        snprintf(why, 256, "the reactors could not be connected: %s", tandem_err_text(err));
    if (err == TANDEM_OK)
        *out = &ws->base;
    else
        ws_free(&ws->base);
    return err;
}

/* ---- What comes when ---- */

static tandem_err ws_admit(cli_world *world, unsigned from, unsigned to, uint64_t seq)
{
    struct node *node = &ws_of(world)->nodes[to];

    return cli_gate_set(&node->gate, node->reactor, from, seq);
}

/* A commit that brings nothing, such as that of a refusal, ends a wait, too. */
static tandem_err ws_catch_up(cli_world *world, unsigned author, uint64_t operations, char why[256])
{
    tandem_reactor *reactor = ws_reactor(world, author);
    uint64_t position, silent_ms = 0;
    tandem_stat stat;
    tandem_err err;

    for (;;) {
        /* The position first: what comes between the two looks must end the wait. */
        if ((err = tandem_position(reactor, &position)) != TANDEM_OK ||
            (err = tandem_stat_get(reactor, &stat)) != TANDEM_OK || stat.operations == operations)
            return err;
        if (stat.operations > operations || silent_ms >= PATIENCE_MS || cli_interrupt())
            return cli_world_holds_other(author, operations, stat.operations, why);
        err = tandem_wait(reactor, position + 1, LOOK_MS);
        if (err != TANDEM_OK && err != TANDEM_E_TIMEOUT)
            return err;
        silent_ms = err == TANDEM_OK ? 0 : silent_ms + LOOK_MS;
    }
}

static tandem_err ws_converge(cli_world *world, uint64_t operations, char why[256])
{
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; i < ws_of(world)->reactors && err == TANDEM_OK; i++)
        err = ws_catch_up(world, i, operations, why);
    return err;
}

const cli_world_ops cli_ws_world = {
    .via = "ws",
    .open = ws_open,
    .reactor = ws_reactor,
    .sync = ws_sync,
    .admit = ws_admit,
    .catch_up = ws_catch_up,
    .converge = ws_converge,
    .free = ws_free,
};
