/*
 * The public face: opens the parts in order and closes them in reverse. Writing is in execute.c,
 * reading in read.c and iterate.c.
 *
 *          caller's threads
 *    execute |    | read        ^ callbacks
 *            v    v             |
 *      executor  document view  event bus        (actors)
 *        worker    worker       loop             (hosts)
 *            \    /
 *           op_store   stream index
 */
#include "reactor/reactor_parts.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "reactor/execute.h"

#ifndef TANDEM_VERSION
#define TANDEM_VERSION "0.0.0"
#endif

struct tandem_reactor {
    td_runtime *runtime;
    bool owns_runtime;
    td_host *loop, *executor_host, *view_host;
    td_data_folder *folder;     /* NULL: in memory */
    tandem_incarnation_reason reason; /* of a store that is fresh */
    td_reactor_disks *disks;    /* in memory: the harness's, or own_disks */
    td_reactor_disks own_disks;
    td_op_store *ops;
    td_model_registry *registry;
    td_event_bus *bus;
    td_executor *executor;
    td_document_view *view;
    atomic_bool closing;
    _Atomic uint64_t executing; /* local requests that are not answered yet */
    atomic_bool attached;
    _Atomic uint64_t corrupt;
};

const char *tandem_version(void)
{
    return TANDEM_VERSION;
}

/* ---- Opening and closing ---- */

static tandem_err open_index(void *context, bool drop, td_store **out)
{
    tandem_reactor *reactor = context;
    tandem_err err;

    if (reactor->folder) {
        if (drop && (err = td_data_folder_drop_index(reactor->folder)) != TANDEM_OK)
            return err;
        return td_lmdb_store_open(reactor->runtime->env, td_data_folder_index(reactor->folder),
                                  td_stream_index_tables, td_stream_index_table_count, out);
    }
    if (drop) {
        td_memory_disk *fresh;

        if ((err = td_memory_disk_open(&fresh)) != TANDEM_OK)
            return err;
        td_memory_disk_free(reactor->disks->index);
        reactor->disks->index = fresh;
    }
    return td_memory_store_open(reactor->runtime->env, reactor->disks->index,
                                td_stream_index_tables, td_stream_index_table_count, out);
}

static void indexed(void *context, uint64_t position)
{
    td_executor_indexed(((tandem_reactor *)context)->executor, position);
}

static tandem_err open_ops(tandem_reactor *reactor)
{
    td_store *store;
    tandem_err err;

    if (reactor->folder)
        err = td_lmdb_store_open(reactor->runtime->env, td_data_folder_store(reactor->folder),
                                 td_op_store_tables, td_op_store_table_count, &store);
    else
        err = td_memory_store_open(reactor->runtime->env, reactor->disks->ops, td_op_store_tables,
                                   td_op_store_table_count, &store);
    if (err != TANDEM_OK)
        return err;
    store->ops->reader_check(store);
    return td_op_store_open_for(reactor->runtime->env, store, reactor->reason, &reactor->ops);
}

tandem_err td_reactor_open_sync_store(tandem_reactor *reactor, const char *const *tables,
                                      unsigned count, td_store **out)
{
    if (reactor->folder)
        return td_lmdb_store_open(reactor->runtime->env, td_data_folder_sync(reactor->folder),
                                  tables, count, out);
    return td_memory_store_open(reactor->runtime->env, reactor->disks->sync, tables, count, out);
}

/* Whoever opens the stores in it, then or later, looks at all their pages first. */
static tandem_err suspect(const td_data_folder *folder)
{
    tandem_err err;

    if ((err = td_lmdb_store_suspect(td_data_folder_store(folder))) != TANDEM_OK ||
        (err = td_lmdb_store_suspect(td_data_folder_index(folder))) != TANDEM_OK)
        return err;
    return td_lmdb_store_suspect(td_data_folder_sync(folder));
}

static tandem_err open_folder(tandem_reactor *reactor, const tandem_options *options)
{
    tandem_err err = td_data_folder_open(options->path, !options->must_exist, &reactor->folder);

    if (err == TANDEM_E_CORRUPT)
        td_log(reactor->runtime->env, TANDEM_LOG_ERROR, "reactor",
               "%s: the operations are gone (store/), and what was made of them is there (index/, "
               "sync/); move those away to begin anew", options->path);
    if (err == TANDEM_OK && options->check)
        err = suspect(reactor->folder);
    return err;
}

static tandem_err open_disks(tandem_reactor *reactor)
{
    tandem_err err;

    reactor->disks = &reactor->own_disks;
    if ((err = td_memory_disk_open(&reactor->disks->ops)) != TANDEM_OK ||
        (err = td_memory_disk_open(&reactor->disks->index)) != TANDEM_OK)
        return err;
    return td_memory_disk_open(&reactor->disks->sync);
}

static tandem_err open_parts(tandem_reactor *reactor, const tandem_options *options)
{
    uint64_t skew_ms =
        options->max_clock_skew_ms ? options->max_clock_skew_ms : TD_CLOCK_SKEW_MS_MAX_DEFAULT;
    tandem_err err;

    if ((err = td_model_registry_open(&reactor->registry)) != TANDEM_OK)
        return err;
    for (size_t i = 0; i < options->model_count; i++)
        if ((err = td_model_registry_add(reactor->registry, options->models[i])) != TANDEM_OK)
            return err;
    if ((err = open_ops(reactor)) != TANDEM_OK)
        return err;
    if ((err = td_host_open(reactor->runtime, TD_HOST_LOOP, "loop", &reactor->loop)) != TANDEM_OK ||
        (err = td_host_open(reactor->runtime, TD_HOST_WORKER, "executor",
                            &reactor->executor_host)) != TANDEM_OK ||
        (err = td_host_open(reactor->runtime, TD_HOST_BACKGROUND, "view", &reactor->view_host)) !=
            TANDEM_OK)
        return err;
    if ((err = td_event_bus_open(reactor->loop, &reactor->bus)) != TANDEM_OK)
        return err;
    if ((err = td_executor_open(reactor->executor_host, reactor->ops, reactor->registry, reactor->bus,
                                skew_ms, &reactor->executor)) != TANDEM_OK)
        return err;
    if ((err = td_document_view_open(reactor->view_host, reactor->ops, reactor->registry,
                                     open_index, reactor, indexed, reactor, &reactor->view)) !=
        TANDEM_OK)
        return err;
    td_executor_set_view(reactor->executor, reactor->view);
    td_executor_set_admission(reactor->executor,
                              &(td_admission){options->admit, options->admit_context});
    return TANDEM_OK;
}

void td_reactor_halt(tandem_reactor *reactor)
{
    if (reactor->loop)
        td_host_stop(reactor->loop);
    if (reactor->executor_host)
        td_host_stop(reactor->executor_host);
    if (reactor->view_host)
        td_host_stop(reactor->view_host);
    td_document_view_free(reactor->view);
    td_executor_free(reactor->executor);
    td_event_bus_free(reactor->bus);
    reactor->view = NULL;
    reactor->executor = NULL;
    reactor->bus = NULL;
}

/* Stop and free everything, however much of it there is. */
static void free_parts(tandem_reactor *reactor)
{
    td_reactor_halt(reactor);
    td_host_free(reactor->view_host);
    td_host_free(reactor->executor_host);
    td_host_free(reactor->loop);
    td_op_store_free(reactor->ops);
    td_model_registry_free(reactor->registry);
    td_memory_disk_free(reactor->own_disks.ops);
    td_memory_disk_free(reactor->own_disks.index);
    td_memory_disk_free(reactor->own_disks.sync);
    td_data_folder_free(reactor->folder);
    if (reactor->owns_runtime)
        td_runtime_free(reactor->runtime);
    free(reactor);
}

static tandem_err reactor_open(td_runtime *runtime, bool owns_runtime,
                               const tandem_options *options, td_reactor_disks *disks,
                               tandem_incarnation_reason reason, tandem_reactor **out)
{
    tandem_reactor *reactor = calloc(1, sizeof(*reactor));
    tandem_err err = TANDEM_OK;

    if (!reactor) {
        if (owns_runtime)
            td_runtime_free(runtime);
        return TANDEM_E_NOMEM;
    }
    reactor->runtime = runtime;
    reactor->owns_runtime = owns_runtime;
    reactor->reason = reason;
    if (disks)
        reactor->disks = disks;
    else if (options->path)
        err = open_folder(reactor, options);
    else
        err = open_disks(reactor);
    if (err == TANDEM_OK)
        err = open_parts(reactor, options);
    if (err != TANDEM_OK) {
        free_parts(reactor);
        return err;
    }
    *out = reactor;
    return TANDEM_OK;
}

tandem_err td_reactor_open(td_runtime *runtime, const tandem_options *options,
                           td_reactor_disks *disks, tandem_reactor **out)
{
    return reactor_open(runtime, false, options, disks, TANDEM_INCARNATION_CREATED, out);
}

tandem_err td_reactor_open_for(const tandem_options *options, tandem_incarnation_reason reason,
                               tandem_reactor **out)
{
    static const tandem_options defaults = TANDEM_OPTIONS_INIT;
    td_runtime *runtime;
    tandem_err err;

    if (!out || (options && options->size != sizeof(*options)) ||
        (options && options->model_count && !options->models))
        return TANDEM_E_INVALID;
    if (!options)
        options = &defaults;
    if ((err = td_threads_open(options->drive, options->log, options->log_context,
                               options->log_level, &runtime)) != TANDEM_OK)
        return err;
    return reactor_open(runtime, true, options, NULL, reason, out);
}

tandem_err tandem_open(const tandem_options *options, tandem_reactor **out)
{
    return td_reactor_open_for(options, TANDEM_INCARNATION_CREATED, out);
}

void tandem_close(tandem_reactor *reactor)
{
    if (!reactor)
        return;
    assert(!atomic_load(&reactor->attached));
    atomic_store(&reactor->closing, true);
    td_execute_flush(reactor);
    td_document_view_close(reactor->view);
    free_parts(reactor);
}

void td_reactor_crash(tandem_reactor *reactor)
{
    free_parts(reactor);
}

/* ---- Parts ---- */

td_runtime *td_reactor_runtime(tandem_reactor *reactor)
{
    return reactor->runtime;
}

tandem_env *td_reactor_env(tandem_reactor *reactor)
{
    return reactor->runtime->env;
}

td_host *td_reactor_loop(tandem_reactor *reactor)
{
    return reactor->loop;
}

td_op_store *td_reactor_ops(tandem_reactor *reactor)
{
    return reactor->ops;
}

td_executor *td_reactor_executor(tandem_reactor *reactor)
{
    return reactor->executor;
}

td_event_bus *td_reactor_bus(tandem_reactor *reactor)
{
    return reactor->bus;
}

td_document_view *td_reactor_view(tandem_reactor *reactor)
{
    return reactor->view;
}

bool td_reactor_is_closing(tandem_reactor *reactor)
{
    return atomic_load(&reactor->closing);
}

void td_reactor_executing(tandem_reactor *reactor, int change)
{
    atomic_fetch_add(&reactor->executing, (uint64_t)(int64_t)change);
}

uint64_t td_reactor_executing_count(tandem_reactor *reactor)
{
    return atomic_load(&reactor->executing);
}

uint64_t td_reactor_corrupt(tandem_reactor *reactor)
{
    return atomic_load(&reactor->corrupt);
}

tandem_err td_reactor_attach(tandem_reactor *reactor)
{
    return atomic_exchange(&reactor->attached, true) ? TANDEM_E_STATE : TANDEM_OK;
}

void td_reactor_detach(tandem_reactor *reactor)
{
    atomic_store(&reactor->attached, false);
}

void td_reactor_count_corrupt(tandem_reactor *reactor)
{
    atomic_fetch_add(&reactor->corrupt, 1);
}

const uint8_t *tandem_reactor_id(const tandem_reactor *reactor)
{
    return td_op_store_identity(reactor->ops)->reactor;
}

const uint8_t *tandem_reactor_origin(const tandem_reactor *reactor)
{
    return td_op_store_identity(reactor->ops)->origin;
}

/* ---- Events and driving ---- */

tandem_err tandem_subscribe(tandem_reactor *reactor,
                            void (*committed)(void *context, uint64_t position), void *context,
                            tandem_subscription **out)
{
    if (!reactor || !committed || !out)
        return TANDEM_E_INVALID;
    return td_event_bus_subscribe(
        reactor->bus, &(td_subscriber){.committed = committed, .context = context}, out);
}

tandem_err tandem_watch(tandem_reactor *reactor,
                        void (*happened)(void *context, const tandem_event *event), void *context,
                        tandem_subscription **out)
{
    if (!reactor || !happened || !out)
        return TANDEM_E_INVALID;
    return td_event_bus_subscribe(
        reactor->bus, &(td_subscriber){.happened = happened, .context = context}, out);
}

void tandem_unsubscribe(tandem_subscription *subscription)
{
    td_event_bus_unsubscribe(subscription);
}

int tandem_fd(tandem_reactor *reactor)
{
    return td_host_fd(reactor->loop);
}

int tandem_timeout_ms(tandem_reactor *reactor)
{
    return td_host_timeout_ms(reactor->loop);
}

tandem_err tandem_poll(tandem_reactor *reactor)
{
    return td_host_poll(reactor->loop);
}
