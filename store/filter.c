#include "store/filter.h"

#include <stdlib.h>

#include "store/glob.h"
#include "store/own_page.h"
#include "store/stream_index.h"

enum {
    FORM_NIL = 0xc0,
    FILTER_ITEMS = 3,
    FIXARRAY_ITEMS_MAX = 15,
    FIXSTR_BYTES_MAX = 31,
};

/* A list of names as a filter has it. */
struct list {
    bool everything;
    uint32_t count;
    tandem_slice names[TD_FILTER_ENTRIES_MAX];
};

/* A filter taken apart; names are borrowed. */
struct parts {
    uint32_t globs_count; /* 0: every document */
    struct list globs[TD_FILTER_LISTS_MAX];
    struct list scopes, branches;
};

static const uint8_t nil[] = {FORM_NIL};

/* ---- Reading ---- */

static bool is_nil(const tandem_reader *reader)
{
    return tandem_reader_left(reader) && *reader->at == FORM_NIL;
}

static size_t array_header_size(uint32_t count)
{
    return count <= FIXARRAY_ITEMS_MAX ? 1 : 3;
}

/* Read a list; size grows by what it takes in its shortest form. */
static tandem_err read_list(tandem_reader *reader, uint32_t least, bool (*valid)(tandem_slice name),
                            struct list *out, size_t *size)
{
    if (tandem_read_array(reader, &out->count) != TANDEM_OK || out->count < least)
        return TANDEM_E_PAYLOAD;
    if (out->count > TD_FILTER_ENTRIES_MAX)
        return TANDEM_E_LIMIT;
    out->everything = false;
    *size += array_header_size(out->count);
    for (uint32_t i = 0; i < out->count; i++) {
        tandem_slice *name = &out->names[i];

        if (tandem_read_string(reader, name) != TANDEM_OK || !valid(*name) ||
            (i && tandem_slice_compare(name[-1], *name) >= 0))
            return TANDEM_E_PAYLOAD;
        *size += name->size + (name->size <= FIXSTR_BYTES_MAX ? 1 : 2);
    }
    return TANDEM_OK;
}

static tandem_err read_names(tandem_reader *reader, struct list *out, size_t *size)
{
    if (!is_nil(reader))
        return read_list(reader, 0, td_name_valid, out, size);
    out->everything = true;
    *size += 1;
    return tandem_read_skip(reader, NULL);
}

static tandem_err read_globs(tandem_reader *reader, struct parts *out, size_t *size)
{
    tandem_slice last = {NULL, 0};
    tandem_err err;

    out->globs_count = 0;
    if (is_nil(reader)) {
        *size += 1;
        return tandem_read_skip(reader, NULL);
    }
    if (tandem_read_array(reader, &out->globs_count) != TANDEM_OK || out->globs_count < 1)
        return TANDEM_E_PAYLOAD;
    if (out->globs_count > TD_FILTER_LISTS_MAX)
        return TANDEM_E_LIMIT;
    *size += array_header_size(out->globs_count);
    for (uint32_t i = 0; i < out->globs_count; i++) {
        const uint8_t *start = reader->at;
        tandem_slice whole;

        if ((err = read_list(reader, 1, tandem_glob_valid, &out->globs[i], size)) != TANDEM_OK)
            return err;
        whole = tandem_slice_of(start, (size_t)(reader->at - start));
        if (i && tandem_slice_compare(last, whole) >= 0)
            return TANDEM_E_PAYLOAD;
        last = whole;
    }
    return TANDEM_OK;
}

/* Headers in another than their shortest form show in the size of the whole. */
static tandem_err take_apart(tandem_slice bytes, struct parts *out)
{
    tandem_reader reader = tandem_reader_of(bytes);
    size_t size = array_header_size(FILTER_ITEMS);
    uint32_t items;
    tandem_err err;

    if (bytes.size > TD_FILTER_BYTES_MAX)
        return TANDEM_E_LIMIT;
    if (is_nil(&reader)) {
        out->globs_count = 0;
        out->scopes.everything = out->branches.everything = true;
        return bytes.size == 1 ? TANDEM_OK : TANDEM_E_PAYLOAD;
    }
    if (tandem_read_array(&reader, &items) != TANDEM_OK || items != FILTER_ITEMS)
        return TANDEM_E_PAYLOAD;
    if ((err = read_globs(&reader, out, &size)) != TANDEM_OK ||
        (err = read_names(&reader, &out->scopes, &size)) != TANDEM_OK ||
        (err = read_names(&reader, &out->branches, &size)) != TANDEM_OK)
        return err;
    if (size != bytes.size ||
        (!out->globs_count && out->scopes.everything && out->branches.everything))
        return TANDEM_E_PAYLOAD;
    return TANDEM_OK;
}

static void take_own_apart(const td_filter *filter, struct parts *out)
{
    tandem_err err = take_apart(td_filter_bytes(filter), out);

    assert(err == TANDEM_OK);
    (void)err;
}

tandem_err td_filter_check(tandem_slice bytes)
{
    struct parts parts;

    return take_apart(bytes, &parts);
}

static tandem_err copy_bytes(tandem_slice bytes, td_filter *out)
{
    uint8_t *copy;

    if (bytes.size == sizeof(nil)) {
        *out = TD_FILTER_ALL;
        return TANDEM_OK;
    }
    if (!(copy = malloc(bytes.size)))
        return TANDEM_E_NOMEM;
    memcpy(copy, bytes.bytes, bytes.size);
    *out = (td_filter){copy, bytes.size};
    return TANDEM_OK;
}

tandem_err td_filter_decode(tandem_slice bytes, td_filter *out)
{
    tandem_err err = td_filter_check(bytes);

    return err == TANDEM_OK ? copy_bytes(bytes, out) : err;
}

/* ---- Making ---- */

static int compare_names(const void *a, const void *b)
{
    return tandem_slice_compare(*(const tandem_slice *)a, *(const tandem_slice *)b);
}

static tandem_err list_of(td_names names, bool (*valid)(tandem_slice name), struct list *out)
{
    if (names.count > TD_FILTER_ENTRIES_MAX)
        return TANDEM_E_LIMIT;
    out->everything = names.count == 0;
    out->count = 0;
    for (uint32_t i = 0; i < names.count; i++)
        if (!valid(names.names[i]))
            return TANDEM_E_INVALID;
    if (out->everything)
        return TANDEM_OK;
    memcpy(out->names, names.names, names.count * sizeof(out->names[0]));
    qsort(out->names, names.count, sizeof(out->names[0]), compare_names);
    for (uint32_t i = 0; i < names.count; i++)
        if (!i || !tandem_slice_equal(out->names[out->count - 1], out->names[i]))
            out->names[out->count++] = out->names[i];
    return TANDEM_OK;
}

static void write_list(tandem_writer *out, const struct list *list)
{
    if (list->everything) {
        tandem_write_nil(out);
        return;
    }
    tandem_write_array(out, list->count);
    for (uint32_t i = 0; i < list->count; i++)
        tandem_write_string(out, list->names[i]);
}

/* Each list of globs is encoded by itself, as their order is that of the encodings. */
static void write_globs(tandem_writer *out, const struct parts *parts)
{
    tandem_writer lists;
    tandem_slice encoded[TD_FILTER_LISTS_MAX];
    size_t ends[TD_FILTER_LISTS_MAX];

    if (!parts->globs_count) {
        tandem_write_nil(out);
        return;
    }
    tandem_writer_init(&lists);
    for (uint32_t i = 0; i < parts->globs_count; i++) {
        write_list(&lists, &parts->globs[i]);
        ends[i] = lists.size;
    }
    if (tandem_writer_err(&lists) == TANDEM_OK) {
        for (uint32_t i = 0; i < parts->globs_count; i++) {
            size_t start = i ? ends[i - 1] : 0;

            encoded[i] = tandem_slice_of(lists.bytes + start, ends[i] - start);
        }
        qsort(encoded, parts->globs_count, sizeof(encoded[0]), compare_names);
        tandem_write_array(out, parts->globs_count);
        for (uint32_t i = 0; i < parts->globs_count; i++)
            tandem_write_raw(out, encoded[i]);
    } else {
        out->err = tandem_writer_err(&lists);
    }
    tandem_writer_release(&lists);
}

static tandem_err put_together(const struct parts *parts, td_filter *out)
{
    tandem_writer bytes;
    tandem_err err;

    if (!parts->globs_count && parts->scopes.everything && parts->branches.everything) {
        *out = TD_FILTER_ALL;
        return TANDEM_OK;
    }
    tandem_writer_init(&bytes);
    tandem_write_array(&bytes, FILTER_ITEMS);
    write_globs(&bytes, parts);
    write_list(&bytes, &parts->scopes);
    write_list(&bytes, &parts->branches);
    err = tandem_writer_err(&bytes);
    if (err == TANDEM_OK && bytes.size > TD_FILTER_BYTES_MAX)
        err = TANDEM_E_LIMIT;
    if (err == TANDEM_OK)
        err = copy_bytes(tandem_writer_slice(&bytes), out);
    tandem_writer_release(&bytes);
    return err;
}

tandem_err td_filter_make(td_names documents, td_names scopes, td_names branches, td_filter *out)
{
    struct parts parts;
    tandem_err err;

    if ((err = list_of(documents, tandem_glob_valid, &parts.globs[0])) != TANDEM_OK ||
        (err = list_of(scopes, td_name_valid, &parts.scopes)) != TANDEM_OK ||
        (err = list_of(branches, td_name_valid, &parts.branches)) != TANDEM_OK)
        return err;
    parts.globs_count = !parts.globs[0].everything;
    return put_together(&parts, out);
}

void td_filter_release(td_filter *filter)
{
    free(filter->bytes);
    *filter = TD_FILTER_ALL;
}

tandem_slice td_filter_bytes(const td_filter *filter)
{
    return filter->bytes ? tandem_slice_of(filter->bytes, filter->size)
                         : tandem_slice_of(nil, sizeof(nil));
}

tandem_err td_filter_copy(const td_filter *filter, td_filter *out)
{
    return copy_bytes(td_filter_bytes(filter), out);
}

/* ---- Two of them ---- */

static bool list_has(const struct list *list, tandem_slice name)
{
    return list->everything || bsearch(&name, list->names, list->count, sizeof(list->names[0]),
                                       compare_names) != NULL;
}

/* Keep what is in other, too. */
static void list_and(struct list *list, const struct list *other)
{
    uint32_t kept = 0;

    if (list->everything) {
        *list = *other;
        return;
    }
    for (uint32_t i = 0; i < list->count; i++)
        if (list_has(other, list->names[i]))
            list->names[kept++] = list->names[i];
    list->count = kept;
}

/* Is everything of other in list? */
static bool list_includes(const struct list *list, const struct list *other)
{
    if (list->everything || other->everything)
        return list->everything;
    for (uint32_t i = 0; i < other->count; i++)
        if (!list_has(list, other->names[i]))
            return false;
    return true;
}

static bool lists_equal(const struct list *a, const struct list *b)
{
    return a->count == b->count && list_includes(a, b);
}

static tandem_err add_globs(struct parts *parts, const struct list *globs)
{
    for (uint32_t i = 0; i < parts->globs_count; i++)
        if (lists_equal(&parts->globs[i], globs))
            return TANDEM_OK;
    if (parts->globs_count == TD_FILTER_LISTS_MAX)
        return TANDEM_E_LIMIT;
    parts->globs[parts->globs_count++] = *globs;
    return TANDEM_OK;
}

tandem_err td_filter_and(const td_filter *a, const td_filter *b, td_filter *out)
{
    struct parts parts, other;
    tandem_err err;

    take_own_apart(a, &parts);
    take_own_apart(b, &other);
    for (uint32_t i = 0; i < other.globs_count; i++)
        if ((err = add_globs(&parts, &other.globs[i])) != TANDEM_OK)
            return err;
    list_and(&parts.scopes, &other.scopes);
    list_and(&parts.branches, &other.branches);
    return put_together(&parts, out);
}

bool td_filter_is_all(const td_filter *filter)
{
    return !filter->bytes;
}

bool td_filter_equal(const td_filter *a, const td_filter *b)
{
    return tandem_slice_equal(td_filter_bytes(a), td_filter_bytes(b));
}

/* A list of globs matches at least what another one of these does. */
static bool any_is_included(const struct list *globs, const struct parts *other)
{
    for (uint32_t i = 0; i < other->globs_count; i++)
        if (list_includes(globs, &other->globs[i]))
            return true;
    return false;
}

bool td_filter_includes(const td_filter *filter, const td_filter *other)
{
    struct parts parts, others;

    take_own_apart(filter, &parts);
    take_own_apart(other, &others);
    for (uint32_t i = 0; i < parts.globs_count; i++)
        if (!any_is_included(&parts.globs[i], &others))
            return false;
    return list_includes(&parts.scopes, &others.scopes) &&
           list_includes(&parts.branches, &others.branches);
}

/* ---- Matching ---- */

/* Read a list to its end: is there one that matches name? */
static bool list_matches(tandem_reader *reader, tandem_slice name,
                         bool (*matches)(tandem_slice listed, tandem_slice name))
{
    bool found = false;

    for (uint32_t left = td_own_array(reader); left; left--) {
        tandem_slice listed = td_own_string(reader);

        found = found || matches(listed, name);
    }
    return found;
}

static bool document_matches(tandem_reader *reader, tandem_slice document)
{
    bool all = true;

    if (is_nil(reader)) {
        tandem_read_skip(reader, NULL);
        return true;
    }
    for (uint32_t left = td_own_array(reader); left; left--)
        all = list_matches(reader, document, tandem_glob_matches) && all;
    return all;
}

static bool same(tandem_slice listed, tandem_slice name)
{
    return tandem_slice_equal(listed, name);
}

static bool is_listed(tandem_reader *reader, tandem_slice name)
{
    if (!is_nil(reader))
        return list_matches(reader, name, same);
    tandem_read_skip(reader, NULL);
    return true;
}

bool td_filter_matches(const td_filter *filter, const td_operation *operation)
{
    tandem_reader reader = tandem_reader_of(td_filter_bytes(filter));

    if (td_filter_is_all(filter))
        return true;
    td_own_array(&reader);
    if (!document_matches(&reader, operation->document))
        return false;
    if (tandem_slice_equal(operation->scope, tandem_slice_text(TD_SCOPE_DOCUMENT)))
        return true;
    return is_listed(&reader, operation->scope) && is_listed(&reader, operation->branch);
}

/* ---- Looking ---- */

static void list_each(const struct list *list, td_filter_part part, td_visit_filter_name visit,
                      void *context)
{
    for (uint32_t i = 0; !list->everything && i < list->count; i++)
        visit(context, part, list->names[i]);
}

void td_filter_each(const td_filter *filter, td_visit_filter_name visit, void *context)
{
    struct parts parts;

    take_own_apart(filter, &parts);
    for (uint32_t i = 0; i < parts.globs_count; i++)
        list_each(&parts.globs[i], TD_FILTER_DOCUMENTS, visit, context);
    list_each(&parts.scopes, TD_FILTER_SCOPES, visit, context);
    list_each(&parts.branches, TD_FILTER_BRANCHES, visit, context);
}
