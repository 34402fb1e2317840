#include "channel/job_handle.h"

#include <assert.h>
#include <stdlib.h>

#include "store/planted.h"

const char *tandem_job_state_name(tandem_job_state state)
{
    switch (state) {
    case TANDEM_JOB_UNKNOWN:
        return "unknown";
    case TANDEM_JOB_TRANSPORT_PENDING:
        return "transport_pending";
    case TANDEM_JOB_EXECUTION_PENDING:
        return "execution_pending";
    case TANDEM_JOB_APPLIED:
        return "applied";
    case TANDEM_JOB_ERROR:
        return "error";
    }
    return "unknown";
}

static tandem_slice keep(char **at, tandem_slice name)
{
    tandem_slice kept = tandem_slice_of(*at, name.size);

    memcpy(*at, name.bytes, name.size);
    *at += name.size;
    return kept;
}

static bool has_scope(const tandem_job_handle *handle, tandem_slice scope)
{
    for (size_t at = 0; at < handle->scopes.size;) {
        tandem_slice known = tandem_slice_text((const char *)handle->scopes.bytes + at);

        if (tandem_slice_equal(known, scope))
            return true;
        at += known.size + 1;
    }
    return false;
}

static tandem_err need_more(tandem_job_handle *handle)
{
    if (handle->more)
        return TANDEM_OK;
    if (!(handle->more = malloc(sizeof(*handle->more))))
        return TANDEM_E_NOMEM;
    tandem_writer_init(&handle->more->scopes);
    tandem_writer_init(&handle->more->canonical);
    return TANDEM_OK;
}

static tandem_err add_scope(tandem_job_handle *handle, tandem_slice scope)
{
    tandem_writer *several;
    tandem_err err;

    if ((err = need_more(handle)) != TANDEM_OK)
        return err;
    several = &handle->more->scopes;
    if (!several->size)
        tandem_write_raw(several, handle->scopes);
    tandem_write_raw(several, scope);
    tandem_write_raw(several, tandem_slice_of("", 1));
    if ((err = tandem_writer_err(several)) == TANDEM_OK)
        handle->scopes = tandem_writer_slice(several);
    return err;
}

static tandem_err take(tandem_job_handle *handle, const td_operation *operation)
{
    tandem_err err;

    if (handle->operations && !has_scope(handle, operation->scope) &&
        (err = add_scope(handle, operation->scope)) != TANDEM_OK)
        return err;
    if (handle->keeps) {
        tandem_write_binary(&handle->more->canonical, operation->canonical);
        if ((err = tandem_writer_err(&handle->more->canonical)) != TANDEM_OK)
            return err;
    }
    handle->last_seq = operation->seq;
    handle->operations++;
    handle->bytes += operation->canonical.size;
    return TANDEM_OK;
}

/* With the NUL behind its scope. */
static size_t size_of(const td_operation *first)
{
    return sizeof(tandem_job_handle) + first->collection.size + first->document.size +
           first->branch.size + first->scope.size + 1;
}

_Static_assert(sizeof(tandem_job_handle) + 4 * TANDEM_NAME_BYTES_MAX + 1 <= TD_SHELF_THING_BYTES_MAX,
               "any handle fits on a shelf");

static tandem_err begin(tandem_job_handle *handle, const td_operation *first, uint64_t ordinal,
                        bool keeps)
{
    char *at = handle->names;
    tandem_err err;

    if (keeps && (err = need_more(handle)) != TANDEM_OK)
        return err;
    handle->status = TANDEM_JOB_UNKNOWN;
    handle->first_ordinal = ordinal;
    handle->keeps = keeps;
    handle->first_seq = first->seq;
    memcpy(handle->origin, first->origin, sizeof(handle->origin));
    handle->collection = keep(&at, first->collection);
    handle->document = keep(&at, first->document);
    handle->branch = keep(&at, first->branch);
    handle->scopes = keep(&at, first->scope);
    *at = 0;
    handle->scopes.size++;
    return take(handle, first);
}

tandem_err td_job_handle_open(const td_operation *first, uint64_t ordinal, bool keeps,
                              tandem_job_handle **out)
{
    tandem_job_handle *handle = malloc(size_of(first));
    tandem_err err;

    if (!handle)
        return TANDEM_E_NOMEM;
    memset(handle, 0, sizeof(*handle));
    if ((err = begin(handle, first, ordinal, keeps)) == TANDEM_OK)
        *out = handle;
    else
        tandem_job_handle_free(handle);
    return err;
}

tandem_err td_job_handle_open_on(td_handle_shelf *shelf, const td_operation *first,
                                 uint64_t ordinal, tandem_job_handle **out)
{
    td_shelf_block *block;
    tandem_job_handle *handle = td_handle_shelf_take(shelf, size_of(first), &block);
    tandem_err err;

    if (!handle)
        return TANDEM_E_NOMEM;
    memset(handle, 0, sizeof(*handle));
    handle->block = block;
    if ((err = begin(handle, first, ordinal, false)) == TANDEM_OK)
        *out = handle;
    else
        tandem_job_handle_free(handle);
    return err;
}

void td_job_handle_copy(tandem_job_handle *handle, td_handle_shelf *shelf, tandem_slice canonical)
{
    uint8_t *room = NULL;

    assert(handle->operations == 1 && handle->bytes == canonical.size && !handle->copy);
    if (canonical.size <= TD_SHELF_THING_BYTES_MAX)
        room = td_handle_shelf_take(shelf, canonical.size, &handle->copy_block);
    if (room)
        memcpy(room, canonical.bytes, canonical.size);
    handle->copy = room;
}

static void drop_copy(tandem_job_handle *handle)
{
    if (handle->copy)
        td_handle_shelf_clear(handle->copy_block);
    handle->copy = NULL;
}

tandem_err td_job_handle_add(tandem_job_handle *handle, const td_operation *next)
{
    if (next->seq != handle->last_seq + 1 ||
        memcmp(next->origin, handle->origin, sizeof(handle->origin)) != 0 ||
        !tandem_slice_equal(next->collection, handle->collection) ||
        !tandem_slice_equal(next->document, handle->document) ||
        !tandem_slice_equal(next->branch, handle->branch))
        return TANDEM_E_CHAIN;
    if (handle->operations >= TANDEM_JOB_OPERATIONS_MAX ||
        handle->bytes + next->canonical.size > TANDEM_JOB_BYTES_MAX)
        return TANDEM_E_LIMIT;
    return take(handle, next);
}

void tandem_job_handle_free(tandem_job_handle *handle)
{
    if (!handle)
        return;
    assert(!handle->prev);
    drop_copy(handle);
    if (handle->more) {
        tandem_writer_release(&handle->more->scopes);
        tandem_writer_release(&handle->more->canonical);
        free(handle->more);
    }
    if (handle->block)
        td_handle_shelf_clear(handle->block);
    else
        free(handle);
}

void tandem_job_handle_on(tandem_job_handle *handle, tandem_job_changed_fn changed, void *context)
{
    handle->changed = changed;
    handle->changed_context = context;
}

static void tell(tandem_job_handle *handle, tandem_job_state from)
{
    if (handle->changed)
        handle->changed(handle->changed_context, handle, from, handle->status);
    if (handle->told)
        handle->told(handle->told_context, handle, from, handle->status);
}

static tandem_err move(tandem_job_handle *handle, tandem_job_state to)
{
    tandem_job_state from = handle->status;

    if (from == TANDEM_JOB_ERROR || to > from + 1 + td_planted(TD_PLANTED_STATUS_SKIPPED))
        return TANDEM_E_STATE;
    if (to <= from)
        return TANDEM_OK; /* it took effect before */
    handle->status = to;
    tell(handle, from);
    return TANDEM_OK;
}

tandem_err tandem_job_handle_started(tandem_job_handle *handle)
{
    return move(handle, TANDEM_JOB_TRANSPORT_PENDING);
}

tandem_err tandem_job_handle_transported(tandem_job_handle *handle)
{
    drop_copy(handle);
    return move(handle, TANDEM_JOB_EXECUTION_PENDING);
}

tandem_err tandem_job_handle_executed(tandem_job_handle *handle)
{
    return move(handle, TANDEM_JOB_APPLIED);
}

tandem_err tandem_job_handle_failed(tandem_job_handle *handle, tandem_err error)
{
    tandem_job_state from = handle->status;

    if (from == TANDEM_JOB_APPLIED && !td_planted(TD_PLANTED_APPLIED_FAILS))
        return TANDEM_E_STATE;
    if (from == TANDEM_JOB_ERROR)
        return TANDEM_OK;
    handle->status = TANDEM_JOB_ERROR;
    handle->error = error;
    tell(handle, from);
    return TANDEM_OK;
}

bool td_job_handle_has_bytes(const tandem_job_handle *handle)
{
    return handle->keeps || handle->elsewhere.size || handle->copy;
}

tandem_err tandem_job_handle_read(const tandem_job_handle *handle, const td_job_source *source,
                                  const td_job_visitor *visitor)
{
    tandem_reader reader = tandem_reader_of(
        handle->keeps ? tandem_writer_slice(&handle->more->canonical) : handle->elsewhere);
    tandem_slice canonical;
    tandem_err err;

    if (handle->copy)
        return visitor->visit(visitor->context, tandem_slice_of(handle->copy, handle->bytes));
    if (!td_job_handle_has_bytes(handle))
        return source->read(source->context, handle, visitor);
    while (tandem_reader_left(&reader) > 0) {
        if ((err = tandem_read_binary(&reader, &canonical)) != TANDEM_OK ||
            (err = visitor->visit(visitor->context, canonical)) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}
