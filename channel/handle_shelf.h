/*
 * A shelf: memory for handles that are opened one behind the other, and freed in about that order, or for
 * copies of their operations. They stand side by side, a dozen in a block, which is one allocation, and
 * whoever goes through them in order finds the next one in the processor's cache.
 *
 * A block is done with when the last thing on it goes, and one that stays keeps those beside it. So each
 * mailbox has a shelf of its own, and each peer one for copies: else one that is slow would keep what others
 * were done with. Some blocks that are done with are spared for what comes next, never more than are in use:
 * while many things stand on a shelf others come and go without an allocation. An empty shelf, which is all
 * zeros but for all_bytes, holds no memory, nor does one whose things are gone; it outlives them.
 *
 * Threads: one thread, that of the channel.
 */
#ifndef TANDEM_CHANNEL_HANDLE_SHELF_H
#define TANDEM_CHANNEL_HANDLE_SHELF_H

#include <stdbool.h>
#include <stddef.h>

typedef struct td_shelf_block td_shelf_block;

typedef struct td_handle_shelf {
    td_shelf_block *block; /* the last one, if something stands on it */
    td_shelf_block *spare; /* all of them large, the last that was done with first */
    size_t spare_bytes;
    size_t bytes;      /* of all blocks in use */
    size_t *all_bytes;     /* of several shelves, which it counts, too; NULL: it is not one of several */
} td_handle_shelf;

/* What stands alone gets a small block: of a thousand mailboxes most hold a handle or two. */
enum {
    TD_SHELF_SMALL_BYTES = 1024,
    TD_SHELF_LARGE_BYTES = 4096,
    TD_SHELF_SPARE_BYTES_MAX = 512 * 1024, /* what a group of operations lets go of at once */
    TD_SHELF_THING_BYTES_MAX = TD_SHELF_SMALL_BYTES - 64,
};

/* Room for something of TD_SHELF_THING_BYTES_MAX at most, aligned for a handle. NULL: no memory.
 * block_out: td_handle_shelf_clear() takes it, once for each room. */
void *td_handle_shelf_take(td_handle_shelf *shelf, size_t size, td_shelf_block **block_out);
void td_handle_shelf_clear(td_shelf_block *block);

/* Of several, for which there are so many bytes in all: is there room on this one? Each may have as much as
 * is left over, so that one whose things do not go leaves half of all to the others. They end up with a
 * large block more at most. */
bool td_handle_shelf_has_room(const td_handle_shelf *shelf, size_t all_bytes_max);

#endif
