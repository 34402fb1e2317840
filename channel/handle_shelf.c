#include "channel/handle_shelf.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

struct td_shelf_block {
    td_handle_shelf *shelf;
    td_shelf_block *next; /* of spare ones */
    uint32_t things;     /* that stand on it */
    uint32_t size, used; /* of bytes */
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

static size_t bytes_of(const td_shelf_block *block)
{
    return sizeof(*block) + block->size;
}

static td_shelf_block *spare_take(td_handle_shelf *shelf)
{
    td_shelf_block *block = shelf->spare;

    if (block) {
        shelf->spare = block->next;
        shelf->spare_bytes -= bytes_of(block);
    }
    return block;
}

/* A block that is done with: to be spared, or to go, as do others that are too many now. */
static void spare_add(td_handle_shelf *shelf, td_shelf_block *block)
{
    size_t most = shelf->bytes < TD_SHELF_SPARE_BYTES_MAX ? shelf->bytes : TD_SHELF_SPARE_BYTES_MAX;

    if (bytes_of(block) == TD_SHELF_LARGE_BYTES) {
        block->next = shelf->spare;
        shelf->spare = block;
        shelf->spare_bytes += bytes_of(block);
    } else {
        free(block);
    }
    while (shelf->spare_bytes > most)
        free(spare_take(shelf));
}

static td_shelf_block *block_take(td_handle_shelf *shelf)
{
    td_shelf_block *block = spare_take(shelf);
    size_t bytes = block || shelf->block ? TD_SHELF_LARGE_BYTES : TD_SHELF_SMALL_BYTES;

    if (!block && !(block = malloc(bytes)))
        return NULL;
    *block = (td_shelf_block){.shelf = shelf, .size = (uint32_t)(bytes - sizeof(*block))};
    count(shelf, bytes);
    return shelf->block = block;
}

void *td_handle_shelf_take(td_handle_shelf *shelf, size_t size, td_shelf_block **block_out)
{
    size_t aligned = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    td_shelf_block *block = shelf->block;
    void *room;

    assert(size <= TD_SHELF_THING_BYTES_MAX);
    if ((!block || block->used + aligned > block->size) && !(block = block_take(shelf)))
        return NULL;
    room = block->bytes + block->used;
    block->used += (uint32_t)aligned;
    block->things++;
    *block_out = block;
    return room;
}

void td_handle_shelf_clear(td_shelf_block *block)
{
    td_handle_shelf *shelf = block->shelf;

    if (--block->things)
        return;
    count(shelf, -bytes_of(block));
    if (shelf->block == block)
        shelf->block = NULL;
    spare_add(shelf, block);
}

bool td_handle_shelf_has_room(const td_handle_shelf *shelf, size_t all_bytes_max)
{
    size_t all = *shelf->all_bytes;

    return all < all_bytes_max && shelf->bytes < all_bytes_max - all;
}
