#include "store/store.h"

#include <assert.h>

void td_store_check(const struct td_store_ops *ops)
{
    assert(ops->name);
    assert(ops->begin_write);
    assert(ops->begin_read);
    assert(ops->commit);
    assert(ops->abort);
    assert(ops->get);
    assert(ops->put);
    assert(ops->reserve);
    assert(ops->del);
    assert(ops->cursor_open);
    assert(ops->seek);
    assert(ops->seek_before);
    assert(ops->next);
    assert(ops->cursor_free);
    assert(ops->recover);
    assert(ops->check);
    assert(ops->bytes);
    assert(ops->reader_check);
    assert(ops->free);
}
