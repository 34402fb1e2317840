/*
 * Packing: messages made smaller with zstd, for the way. What is packed is one whole message
 * (transport/PROTOCOL.md, PACKED); what comes out is no longer than the sender said, and that was
 * checked before anything is allocated for it.
 *
 * One packer serves all sessions of a reactor: what zstd works with takes some hundred KiB, which are
 * had at the first use.
 *
 * Threads: one, that of its sessions.
 */
#ifndef TANDEM_CHANNEL_PACKER_H
#define TANDEM_CHANNEL_PACKER_H

#include "transport/wire.h"

/* The name of the feature in HELLO. */
#define TD_PACKER_FEATURE "zstd"

enum { TD_PACKED_FROM_BYTES = 1024 }; /* what is shorter is not worth it */

typedef struct td_packer td_packer;

tandem_err td_packer_open(td_packer **out); /* TANDEM_E_NOMEM */
void td_packer_free(td_packer *packer);     /* NULL is fine */

/*
 * Put a packed message in the place of the one that begins at start and ends with out, which has no
 * sum yet. Returns by how many bytes it is shorter; 0: it was left as it is, because it would not be,
 * or for want of memory.
 */
size_t td_packer_pack(td_packer *packer, tandem_writer *out, size_t start, uint64_t number);

/*
 * What was packed.
 *
 * bytes_out  packed->bytes of it, the caller's to free()
 * TANDEM_E_PROTOCOL: it is no frame, or of another length. TANDEM_E_NOMEM.
 */
tandem_err td_packer_unpack(td_packer *packer, const td_wire_packed *packed, uint8_t **bytes_out);

#endif
