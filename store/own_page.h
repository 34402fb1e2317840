/*
 * Reading back the pages that this process wrote for itself into memory, as the document view does
 * for the iterators and these do for their next call. The bytes never left the process, so whatever
 * is not what was written is a bug of ours: that is asserted, not answered.
 *
 * Ownership: slices are borrowed from the page.
 * Threads: whoever has the reader.
 */
#ifndef TANDEM_STORE_OWN_PAGE_H
#define TANDEM_STORE_OWN_PAGE_H

#include <assert.h>

#include "store/operation.h"

static inline uint32_t td_own_array(tandem_reader *page)
{
    uint32_t count = 0;
    tandem_err err = tandem_read_array(page, &count);

    assert(err == TANDEM_OK);
    (void)err;
    return count;
}

static inline uint64_t td_own_uint(tandem_reader *page)
{
    uint64_t value = 0;
    tandem_err err = tandem_read_uint(page, &value);

    assert(err == TANDEM_OK);
    (void)err;
    return value;
}

static inline bool td_own_bool(tandem_reader *page)
{
    bool value = false;
    tandem_err err = tandem_read_bool(page, &value);

    assert(err == TANDEM_OK);
    (void)err;
    return value;
}

static inline tandem_slice td_own_string(tandem_reader *page)
{
    tandem_slice text = {NULL, 0};
    tandem_err err = tandem_read_string(page, &text);

    assert(err == TANDEM_OK);
    (void)err;
    return text;
}

static inline tandem_slice td_own_binary(tandem_reader *page)
{
    tandem_slice bytes = {NULL, 0};
    tandem_err err = tandem_read_binary(page, &bytes);

    assert(err == TANDEM_OK);
    (void)err;
    return bytes;
}

/* An operation's canonical bytes, which were parsed before they were written. */
static inline void td_own_operation(tandem_reader *page, td_operation *out)
{
    tandem_err err = td_operation_parse(td_own_binary(page), out);

    assert(err == TANDEM_OK);
    (void)err;
}

#endif
