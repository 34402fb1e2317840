#include "channel/packer.h"

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

/* Higher ones find a little more, and take twice the time and more. */
enum { LEVEL = 1 };

struct td_packer {
    ZSTD_CCtx *packing; /* NULL, as below, until it is needed */
    ZSTD_DCtx *unpacking;
    uint8_t *frame;
    size_t room; /* of frame */
};

tandem_err td_packer_open(td_packer **out)
{
    *out = calloc(1, sizeof(**out));
    return *out ? TANDEM_OK : TANDEM_E_NOMEM;
}

void td_packer_free(td_packer *packer)
{
    if (!packer)
        return;
    ZSTD_freeCCtx(packer->packing);
    ZSTD_freeDCtx(packer->unpacking);
    free(packer->frame);
    free(packer);
}

/* Room for whatever becomes of so many bytes. */
static bool make_ready(td_packer *packer, size_t bytes)
{
    size_t room = ZSTD_compressBound(bytes);

    if (packer->room < room) {
        free(packer->frame);
        packer->frame = malloc(room);
        packer->room = packer->frame ? room : 0;
    }
    if (!packer->packing)
        packer->packing = ZSTD_createCCtx();
    return packer->frame && packer->packing;
}

size_t td_packer_pack(td_packer *packer, tandem_writer *out, size_t start, uint64_t number)
{
    enum { HEAD_BYTES = 24 }; /* at most, of what stands around the frame */
    size_t bytes = out->size - start, packed;

    if (tandem_writer_err(out) != TANDEM_OK || !make_ready(packer, bytes))
        return 0;
    packed = ZSTD_compressCCtx(packer->packing, packer->frame, packer->room, out->bytes + start,
                               bytes, LEVEL);
    if (ZSTD_isError(packed) || packed + HEAD_BYTES >= bytes)
        return 0;
    out->size = start;
    td_wire_write_packed(out, number, bytes, tandem_slice_of(packer->frame, packed));
    return bytes - (out->size - start);
}

tandem_err td_packer_unpack(td_packer *packer, const td_wire_packed *packed, uint8_t **bytes_out)
{
    uint8_t *bytes;
    size_t size;

    /* One frame of that size, and nothing behind it: zstd would pass over some that follow. */
    if (ZSTD_getFrameContentSize(packed->frame.bytes, packed->frame.size) != packed->bytes ||
        ZSTD_findFrameCompressedSize(packed->frame.bytes, packed->frame.size) !=
            packed->frame.size)
        return TANDEM_E_PROTOCOL;
    if (!packer->unpacking && !(packer->unpacking = ZSTD_createDCtx()))
        return TANDEM_E_NOMEM;
    if (!(bytes = malloc(packed->bytes)))
        return TANDEM_E_NOMEM;
    size = ZSTD_decompressDCtx(packer->unpacking, bytes, packed->bytes, packed->frame.bytes,
                               packed->frame.size);
    if (ZSTD_isError(size) || size != packed->bytes) {
        free(bytes);
        return TANDEM_E_PROTOCOL;
    }
    *bytes_out = bytes;
    return TANDEM_OK;
}
