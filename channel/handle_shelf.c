#include "channel/handle_shelf.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

struct td_shelf_block {
    td_handle_shelf *shelf;
    uint32_t things; /* that stand on it */
    size_t size, used; /* of bytes */
    _Alignas(max_align_t) unsigned char bytes[];
};

_Static_assert(sizeof(td_shelf_block) + TD_SHELF_THING_BYTES_MAX + sizeof(max_align_t) <=
                   TD_SHELF_SMALL_BYTES,
               "any thing fits into a small block");

static void count(td_handle_shelf *shelf, size_t bytes)
{
    shelf->bytes += bytes;
    if (shelf->all_bytes)
        *shelf->all_bytes += bytes;
}

void *td_handle_shelf_take(td_handle_shelf *shelf, size_t size, td_shelf_block **block_out)
{
    size_t aligned = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    td_shelf_block *block = shelf->block;
    void *room;

    assert(size <= TD_SHELF_THING_BYTES_MAX);
    if (!block || block->used + aligned > block->size) {
        size_t bytes = block ? TD_SHELF_LARGE_BYTES : TD_SHELF_SMALL_BYTES;

        if (!(block = malloc(bytes)))
            return NULL;
        *block = (td_shelf_block){.shelf = shelf, .size = bytes - sizeof(*block)};
        shelf->block = block;
        count(shelf, bytes);
    }
    room = block->bytes + block->used;
    block->used += aligned;
    block->things++;
    *block_out = block;
    return room;
}

void td_handle_shelf_clear(td_shelf_block *block)
{
    if (--block->things)
        return;
    count(block->shelf, -(sizeof(*block) + block->size));
    if (block->shelf->block == block)
        block->shelf->block = NULL;
    free(block);
}
