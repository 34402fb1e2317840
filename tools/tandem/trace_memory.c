/*
 * A world on the harness: reactors that sync in memory, on a virtual clock, with real stores. Each
 * author is connected with those before it, each reader with one of them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sync/harness.h"
#include "tools/tandem/trace_gate.h"
#include "tools/tandem/trace_world.h"

enum {
    PATIENCE_MS = 120000, /* of virtual time, for what is to come */
    CONVERGE_MS = 600000,
    NAME_BYTES = 16,
};

struct memory_world {
    cli_world base;
    tandem_harness *harness;
    unsigned authors, reactors;
    uint8_t origins[CLI_AUTHORS_MAX][TANDEM_ORIGIN_BYTES];
    cli_gate gates[CLI_AUTHORS_MAX]; /* the authors' */
};

static struct memory_world *memory_of(cli_world *world)
{
    return (struct memory_world *)world;
}

static const char *name_of(unsigned reactor, char out[NAME_BYTES])
{
    snprintf(out, NAME_BYTES, "r%u", reactor);
    return out;
}

static tandem_reactor *memory_reactor(cli_world *world, unsigned reactor)
{
    char name[NAME_BYTES];

    return tandem_harness_reactor(memory_of(world)->harness, name_of(reactor, name));
}

/* ---- Making it ---- */

static tandem_err add_reactor(struct memory_world *memory, unsigned number)
{
    char name[NAME_BYTES];
    tandem_err err = tandem_harness_add(memory->harness, name_of(number, name), 0);

    if (err != TANDEM_OK || number >= memory->authors)
        return err;
    memcpy(memory->origins[number], tandem_reactor_origin(memory_reactor(&memory->base, number)),
           TANDEM_ORIGIN_BYTES);
    return tandem_harness_set_admission(memory->harness, name, cli_gate_admits,
                                        &memory->gates[number]);
}

static tandem_err connect_two(struct memory_world *memory, unsigned from, unsigned to)
{
    char name[NAME_BYTES], other[NAME_BYTES];

    return tandem_harness_connect(memory->harness, name_of(from, name), name_of(to, other));
}

static tandem_err connect_all(struct memory_world *memory)
{
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; i < memory->reactors && err == TANDEM_OK; i++)
        err = add_reactor(memory, i);
    for (unsigned i = 0; i < memory->authors; i++)
        for (unsigned k = 0; k < i && err == TANDEM_OK; k++)
            err = connect_two(memory, i, k);
    for (unsigned i = memory->authors; i < memory->reactors && err == TANDEM_OK; i++)
        err = connect_two(memory, i, i % memory->authors);
    return err == TANDEM_OK ? tandem_harness_run_until_idle(memory->harness, PATIENCE_MS) : err;
}

static void memory_free(cli_world *world)
{
    struct memory_world *memory = memory_of(world);

    if (!memory)
        return;
    tandem_harness_free(memory->harness);
    for (unsigned a = 0; a < memory->authors; a++)
        cli_gate_release(&memory->gates[a]);
    free(memory);
}

static tandem_err memory_open(const char *folder, unsigned authors, unsigned reactors,
                              cli_world **out, char why[256])
{
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    struct memory_world *memory = calloc(1, sizeof(*memory));
    tandem_err err;

    (void)why; /* the error says it all */
    if (!memory)
        return TANDEM_E_NOMEM;
    memory->base.ops = &cli_memory_world;
    memory->authors = authors;
    memory->reactors = reactors;
    for (unsigned a = 0; a < authors; a++)
        cli_gate_init(&memory->gates[a], memory->origins, authors);
    options.folder = folder;
    if ((err = tandem_harness_open(&options, &memory->harness)) == TANDEM_OK)
        err = connect_all(memory);
    if (err == TANDEM_OK)
        *out = &memory->base;
    else
        memory_free(&memory->base);
    return err;
}

/* ---- What comes when ---- */

static tandem_err memory_admit(cli_world *world, unsigned from, unsigned to, uint64_t seq)
{
    return cli_gate_set(&memory_of(world)->gates[to], memory_reactor(world, to), from, seq);
}

static tandem_err memory_catch_up(cli_world *world, unsigned author, uint64_t operations,
                                  char why[256])
{
    tandem_harness *harness = memory_of(world)->harness;
    tandem_reactor *reactor = memory_reactor(world, author);
    uint64_t end_ms = tandem_harness_now_ms(harness) + PATIENCE_MS, position, looked_at = 0;
    tandem_stat stat = {.operations = 0};
    tandem_err err;

    do {
        if ((err = tandem_position(reactor, &position)) == TANDEM_OK && position != looked_at) {
            looked_at = position;
            err = tandem_stat_get(reactor, &stat);
        }
        if (err != TANDEM_OK || stat.operations == operations)
            return err;
        tandem_harness_step(harness);
    } while (stat.operations < operations && tandem_harness_now_ms(harness) < end_ms);
    return cli_world_holds_other(author, operations, stat.operations, why);
}

static tandem_err memory_converge(cli_world *world, uint64_t operations, char why[256])
{
    (void)operations; /* the harness compares what they hold */
    return tandem_harness_run_until_converged(memory_of(world)->harness, CONVERGE_MS, why);
}

static tandem_sync *memory_sync(cli_world *world, unsigned reactor)
{
    char name[NAME_BYTES];

    return tandem_harness_sync(memory_of(world)->harness, name_of(reactor, name));
}

const cli_world_ops cli_memory_world = {
    .via = "memory",
    .open = memory_open,
    .reactor = memory_reactor,
    .sync = memory_sync,
    .admit = memory_admit,
    .catch_up = memory_catch_up,
    .converge = memory_converge,
    .free = memory_free,
};
