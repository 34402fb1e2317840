#include "store/glob.h"

#include <assert.h>

#include "store/operation.h"

/* The next code point of what is well-formed UTF-8. */
static uint32_t next(tandem_slice *text)
{
    uint8_t first = text->bytes[0];
    size_t size = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint32_t point = size == 1 ? first : first & (0x7fU >> size);

    assert(size <= text->size);
    for (size_t i = 1; i < size; i++)
        point = point << 6 | (text->bytes[i] & 0x3f);
    text->bytes += size;
    text->size -= size;
    return point;
}

static bool begins_with(tandem_slice text, char c)
{
    return text.size && text.bytes[0] == (uint8_t)c;
}

/* A character that may be written with a backslash. False: there is none. */
static bool literal(tandem_slice *glob, uint32_t *out)
{
    if (begins_with(*glob, '\\'))
        next(glob);
    if (!glob->size)
        return false;
    *out = next(glob);
    return true;
}

/* What stands in brackets, from behind the first one. False: it is none. */
static bool brackets(tandem_slice *glob, uint32_t point, bool *matches)
{
    bool negated = begins_with(*glob, '!') || begins_with(*glob, '^');
    bool among = false;
    uint32_t from, to;

    if (negated)
        next(glob);
    do {
        if (!literal(glob, &from))
            return false;
        to = from;
        if (glob->size >= 2 && begins_with(*glob, '-') && glob->bytes[1] != ']') {
            next(glob);
            if (!literal(glob, &to) || to < from)
                return false;
        }
        among = among || (from <= point && point <= to);
    } while (!begins_with(*glob, ']'));
    next(glob);
    *matches = among != negated;
    return true;
}

/* Anything but a star, against one code point. False: it is nothing. */
static bool single(tandem_slice *glob, uint32_t point, bool *matches)
{
    uint32_t wanted;

    if (begins_with(*glob, '?')) {
        next(glob);
        *matches = true;
        return true;
    }
    if (begins_with(*glob, '[')) {
        next(glob);
        return brackets(glob, point, matches);
    }
    if (!literal(glob, &wanted))
        return false;
    *matches = wanted == point;
    return true;
}

bool tandem_glob_valid(tandem_slice glob)
{
    bool matches;

    if (!td_name_valid(glob))
        return false;
    while (glob.size)
        if (begins_with(glob, '*'))
            next(&glob);
        else if (!single(&glob, 0, &matches))
            return false;
    return true;
}

/*
 * Where something does not match, the last star takes one more. The ones before it need not be
 * looked at again: whatever they could take more, the last one can take, too.
 */
bool tandem_glob_matches(tandem_slice glob, tandem_slice name)
{
    tandem_slice behind_star = {NULL, 0}, taken = {NULL, 0};

    while (name.size) {
        tandem_slice ahead = glob, rest = name;
        bool matches = false;

        if (begins_with(glob, '*')) {
            next(&glob);
            behind_star = glob;
            taken = name;
            continue;
        }
        if (glob.size && single(&ahead, next(&rest), &matches) && matches) {
            glob = ahead;
            name = rest;
            continue;
        }
        if (!behind_star.bytes)
            return false;
        next(&taken);
        name = taken;
        glob = behind_star;
    }
    while (begins_with(glob, '*'))
        next(&glob);
    return glob.size == 0;
}
