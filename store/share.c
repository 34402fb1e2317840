#include "store/share.h"

#include <stdlib.h>

#include "store/own_page.h"

enum { FORM_NIL = 0xc0, FORM_NO_ITEMS = 0x90, SHARE_ITEMS = 2, KEPT_ITEMS = 2 };

/* A share taken apart, borrowed. */
struct parts {
    tandem_slice collections; /* encoded */
    uint32_t count;
    tandem_slice names[TD_SHARE_COLLECTIONS_MAX];
    tandem_slice filter;
};

static bool is_nil(tandem_slice value)
{
    return value.bytes[0] == FORM_NIL;
}

/* ---- Reading ---- */

static tandem_err read_collections(tandem_slice value, struct parts *out)
{
    tandem_reader reader = tandem_reader_of(value);
    size_t size;

    out->collections = value;
    out->count = 0;
    if (is_nil(value))
        return TANDEM_OK;
    if (tandem_read_array(&reader, &out->count) != TANDEM_OK)
        return TANDEM_E_PAYLOAD;
    if (out->count > TD_SHARE_COLLECTIONS_MAX)
        return TANDEM_E_LIMIT;
    size = out->count < 16 ? 1 : 3;
    for (uint32_t i = 0; i < out->count; i++) {
        tandem_slice *name = &out->names[i];

        if (tandem_read_string(&reader, name) != TANDEM_OK || !td_name_valid(*name) ||
            (i && tandem_slice_compare(name[-1], *name) >= 0))
            return TANDEM_E_PAYLOAD;
        size += name->size + (name->size < 32 ? 1 : 2);
    }
    /* Headers in another than their shortest form show in the size. */
    return size == value.size ? TANDEM_OK : TANDEM_E_PAYLOAD;
}

/* May a filter be that of a share? */
static bool filter_fits(tandem_slice filter)
{
    tandem_reader reader = tandem_reader_of(filter);
    uint32_t lists;

    if (filter.size > TD_SHARE_FILTER_BYTES_MAX)
        return false;
    if (is_nil(filter))
        return true;
    td_own_array(&reader);
    return *reader.at == FORM_NIL ||
           (tandem_read_array(&reader, &lists) == TANDEM_OK && lists <= TD_SHARE_LISTS_MAX);
}

static tandem_err take_apart(tandem_slice bytes, struct parts *out)
{
    static const uint8_t nil[] = {FORM_NIL};
    tandem_reader reader = tandem_reader_of(bytes);
    tandem_slice collections;
    uint32_t items;
    tandem_err err;

    out->collections = out->filter = tandem_slice_of(nil, sizeof(nil));
    out->count = 0;
    if (bytes.size == 1 && is_nil(bytes))
        return TANDEM_OK;
    if (tandem_read_array(&reader, &items) != TANDEM_OK || items != SHARE_ITEMS ||
        reader.at != bytes.bytes + 1 || tandem_read_skip(&reader, &collections) != TANDEM_OK)
        return TANDEM_E_PAYLOAD;
    out->filter = tandem_slice_of(reader.at, tandem_reader_left(&reader));
    if ((err = read_collections(collections, out)) != TANDEM_OK ||
        (err = td_filter_check(out->filter)) != TANDEM_OK)
        return err;
    if (!filter_fits(out->filter))
        return TANDEM_E_LIMIT;
    if (is_nil(out->filter) ? is_nil(collections) : !is_nil(collections) && !out->count)
        return TANDEM_E_PAYLOAD;
    return TANDEM_OK;
}

tandem_err td_share_check(tandem_slice bytes)
{
    struct parts parts;

    return take_apart(bytes, &parts);
}

/* ---- Making ---- */

/* Takes filter on success. */
static tandem_err put_together(tandem_slice collections, td_filter *filter, td_share *out)
{
    td_share share = TD_SHARE_ALL;

    if (!is_nil(collections)) {
        share.nothing = collections.bytes[0] == FORM_NO_ITEMS;
        if (!share.nothing && !(share.collections = malloc(collections.size)))
            return TANDEM_E_NOMEM;
    }
    if (share.nothing) {
        td_filter_release(filter);
    } else if (share.collections) {
        memcpy(share.collections, collections.bytes, collections.size);
        share.collections_size = collections.size;
    }
    share.filter = *filter;
    *out = share;
    return TANDEM_OK;
}

/* The same of a filter that stays the caller's. */
static tandem_err put_copy_together(tandem_slice collections, const td_filter *filter,
                                    td_share *out)
{
    td_filter copy;
    tandem_err err;

    if ((err = td_filter_copy(filter, &copy)) != TANDEM_OK)
        return err;
    if ((err = put_together(collections, &copy, out)) != TANDEM_OK)
        td_filter_release(&copy);
    return err;
}

tandem_err td_share_decode(tandem_slice bytes, td_share *out)
{
    struct parts parts;
    td_filter filter;
    tandem_err err;

    if ((err = take_apart(bytes, &parts)) != TANDEM_OK ||
        (err = td_filter_decode(parts.filter, &filter)) != TANDEM_OK)
        return err;
    if ((err = put_together(parts.collections, &filter, out)) != TANDEM_OK)
        td_filter_release(&filter);
    return err;
}

static int compare_names(const void *a, const void *b)
{
    return tandem_slice_compare(*(const tandem_slice *)a, *(const tandem_slice *)b);
}

static void write_names(tandem_writer *out, const tandem_slice *names, uint32_t count)
{
    tandem_write_array(out, count);
    for (uint32_t i = 0; i < count; i++)
        tandem_write_string(out, names[i]);
}

tandem_err td_share_make(td_names collections, const td_filter *filter, td_share *out)
{
    tandem_slice names[TD_SHARE_COLLECTIONS_MAX];
    uint32_t count = 0;
    tandem_writer encoded;
    tandem_err err;

    if (collections.count > TD_SHARE_COLLECTIONS_MAX || !filter_fits(td_filter_bytes(filter)))
        return TANDEM_E_LIMIT;
    for (uint32_t i = 0; i < collections.count; i++) {
        if (!td_name_valid(collections.names[i]))
            return TANDEM_E_INVALID;
        names[i] = collections.names[i];
    }
    qsort(names, collections.count, sizeof(names[0]), compare_names);
    for (uint32_t i = 0; i < collections.count; i++)
        if (!i || !tandem_slice_equal(names[count - 1], names[i]))
            names[count++] = names[i];
    tandem_writer_init(&encoded);
    if (count)
        write_names(&encoded, names, count);
    else
        tandem_write_nil(&encoded);
    if ((err = tandem_writer_err(&encoded)) == TANDEM_OK)
        err = put_copy_together(tandem_writer_slice(&encoded), filter, out);
    tandem_writer_release(&encoded);
    return err;
}

void td_share_release(td_share *share)
{
    free(share->collections);
    td_filter_release(&share->filter);
    *share = TD_SHARE_ALL;
}

/* The encoded collections. */
static tandem_slice collections_of(const td_share *share)
{
    static const uint8_t nil[] = {FORM_NIL}, none[] = {FORM_NO_ITEMS};

    if (share->nothing)
        return tandem_slice_of(none, sizeof(none));
    if (!share->collections)
        return tandem_slice_of(nil, sizeof(nil));
    return tandem_slice_of(share->collections, share->collections_size);
}

void td_share_write(const td_share *share, tandem_writer *out)
{
    if (td_share_is_all(share)) {
        tandem_write_nil(out);
        return;
    }
    tandem_write_array(out, SHARE_ITEMS);
    tandem_write_raw(out, collections_of(share));
    tandem_write_raw(out, td_filter_bytes(&share->filter));
}

tandem_err td_share_copy(const td_share *share, td_share *out)
{
    return put_copy_together(collections_of(share), &share->filter, out);
}

/* ---- Two of them ---- */

static tandem_err write_shared(const td_share *a, const td_share *b, tandem_writer *out)
{
    tandem_reader reader = tandem_reader_of(collections_of(a));
    tandem_slice names[TD_SHARE_COLLECTIONS_MAX];
    uint32_t count = 0;

    if (is_nil(collections_of(a))) {
        tandem_write_raw(out, collections_of(b));
        return tandem_writer_err(out);
    }
    for (uint32_t left = td_own_array(&reader); left; left--) {
        tandem_slice name = td_own_string(&reader);

        if (td_share_has(b, name))
            names[count++] = name;
    }
    write_names(out, names, count);
    return tandem_writer_err(out);
}

tandem_err td_share_and(const td_share *a, const td_share *b, td_share *out)
{
    td_filter filter = TD_FILTER_ALL;
    tandem_writer collections;
    tandem_err err;

    tandem_writer_init(&collections);
    if ((err = write_shared(a, b, &collections)) == TANDEM_OK &&
        (err = td_filter_and(&a->filter, &b->filter, &filter)) == TANDEM_OK)
        err = put_together(tandem_writer_slice(&collections), &filter, out);
    if (err != TANDEM_OK)
        td_filter_release(&filter);
    tandem_writer_release(&collections);
    return err;
}

bool td_share_is_all(const td_share *share)
{
    return !share->nothing && !share->collections && td_filter_is_all(&share->filter);
}

bool td_share_is_nothing(const td_share *share)
{
    return share->nothing;
}

bool td_share_equal(const td_share *a, const td_share *b)
{
    return tandem_slice_equal(collections_of(a), collections_of(b)) &&
           td_filter_equal(&a->filter, &b->filter);
}

bool td_share_has(const td_share *share, tandem_slice collection)
{
    tandem_reader reader = tandem_reader_of(collections_of(share));

    if (is_nil(collections_of(share)))
        return true;
    for (uint32_t left = td_own_array(&reader); left; left--)
        if (tandem_slice_equal(td_own_string(&reader), collection))
            return true;
    return false;
}

bool td_share_matches(const td_share *share, const td_operation *operation)
{
    return td_share_has(share, operation->collection) &&
           td_filter_matches(&share->filter, operation);
}

/* ---- As it is kept with a remote ---- */

bool td_kept_share_valid(const td_kept_share *share)
{
    return share->direction < TD_DIRECTIONS &&
           (!share->bytes.size || td_share_check(share->bytes) == TANDEM_OK);
}

void td_kept_share_write(const td_kept_share *share, tandem_writer *out)
{
    tandem_write_array(out, KEPT_ITEMS);
    tandem_write_uint(out, share->direction);
    if (share->bytes.size)
        tandem_write_raw(out, share->bytes);
    else
        tandem_write_nil(out);
}

bool td_kept_share_read(tandem_slice value, td_kept_share *out)
{
    tandem_reader reader = tandem_reader_of(value);
    uint32_t items;

    if (tandem_read_array(&reader, &items) != TANDEM_OK || items < KEPT_ITEMS ||
        tandem_read_uint(&reader, &out->direction) != TANDEM_OK ||
        tandem_read_skip(&reader, &out->bytes) != TANDEM_OK || !td_kept_share_valid(out))
        return false;
    if (is_nil(out->bytes))
        out->bytes = (tandem_slice){NULL, 0};
    return true;
}

/* ---- Looking ---- */

void td_share_each(const td_share *share, td_visit_filter_name visit, void *context)
{
    tandem_reader reader = tandem_reader_of(collections_of(share));

    if (!is_nil(collections_of(share)))
        for (uint32_t left = td_own_array(&reader); left; left--)
            visit(context, TD_FILTER_COLLECTIONS, td_own_string(&reader));
    td_filter_each(&share->filter, visit, context);
}
