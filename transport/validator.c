#include "transport/wire.h"

tandem_err td_wire_validate(tandem_slice bytes)
{
    tandem_reader reader;
    uint64_t type, number;
    uint32_t count;

    /* Size first: what is too large is not even looked at. */
    if (bytes.size > TD_MESSAGE_BYTES_MAX)
        return TANDEM_E_PROTOCOL;
    if (tandem_msgpack_validate(bytes, TD_MESSAGE_DEPTH_MAX, TD_MESSAGE_ITEMS_MAX) != TANDEM_OK)
        return TANDEM_E_PROTOCOL;
    reader = tandem_reader_of(bytes);
    if (tandem_read_array(&reader, &count) != TANDEM_OK || count < 2 ||
        tandem_read_uint(&reader, &type) != TANDEM_OK ||
        tandem_read_uint(&reader, &number) != TANDEM_OK || number < 1)
        return TANDEM_E_PROTOCOL;
    return TANDEM_OK;
}
