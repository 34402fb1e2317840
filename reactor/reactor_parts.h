/*
 * What the floors above need of a reactor besides its public face: its parts, and a way to open one
 * on a runtime and disks that are not its own (the harness: simulation, memory, crashes).
 *
 * Parts are borrowed and live until the reactor is closed.
 */
#ifndef TANDEM_REACTOR_REACTOR_PARTS_H
#define TANDEM_REACTOR_REACTOR_PARTS_H

#include "reactor/executor.h"
#include "reactor/reactor.h"
#include "reactor/runtime.h"
#include "store/data_folder.h"

/* Where a reactor of the harness keeps things; outlives it. */
typedef struct td_reactor_disks {
    td_memory_disk *ops;
    td_memory_disk *index;
    td_memory_disk *sync;
} td_reactor_disks;

/*
 * Open on a runtime, which stays the caller's.
 *
 * disks    NULL: options->path, or a memory of its own; its index disk may be replaced by a fresh one
 */
tandem_err td_reactor_open(td_runtime *runtime, const tandem_options *options,
                           td_reactor_disks *disks, tandem_reactor **out);
/* As tandem_open(), but a store that is fresh is there for that reason. */
tandem_err td_reactor_open_for(const tandem_options *options, tandem_incarnation_reason reason,
                               tandem_reactor **out);
/* As a crash does: nothing that was accepted is finished, what was not committed is gone. First
 * halt: all hosts stop, and what waited in the executor is answered with TANDEM_E_CLOSED; then what
 * stands on the reactor is freed; then the rest. */
void td_reactor_halt(tandem_reactor *reactor);
void td_reactor_crash(tandem_reactor *reactor);

td_runtime *td_reactor_runtime(tandem_reactor *reactor);
tandem_env *td_reactor_env(tandem_reactor *reactor);
td_host *td_reactor_loop(tandem_reactor *reactor);
td_op_store *td_reactor_ops(tandem_reactor *reactor);
td_executor *td_reactor_executor(tandem_reactor *reactor);
td_event_bus *td_reactor_bus(tandem_reactor *reactor);
td_document_view *td_reactor_view(tandem_reactor *reactor);
bool td_reactor_is_closing(tandem_reactor *reactor);
/* Count local requests that are not answered yet. */
void td_reactor_executing(tandem_reactor *reactor, int change);
uint64_t td_reactor_executing_count(tandem_reactor *reactor);
uint64_t td_reactor_corrupt(tandem_reactor *reactor);
/* A store with these tables beside the reactor's own, for the sync manager. */
tandem_err td_reactor_open_sync_store(tandem_reactor *reactor, const char *const *tables,
                                      unsigned count, td_store **out);
/* At most one sync stands on a reactor: TANDEM_E_STATE if one does. */
tandem_err td_reactor_attach(tandem_reactor *reactor);
void td_reactor_detach(tandem_reactor *reactor);
/* Records found corrupt outside the index: counted into tandem_stat. */
void td_reactor_count_corrupt(tandem_reactor *reactor);

#endif
