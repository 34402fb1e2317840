/*
 * Globs against a naive matcher; filters and shares as values: their bytes, what they match, and
 * two of them together.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "draw.h"
#include "store/glob.h"
#include "store/share.h"

enum { POINTS_MAX = 16, ROUNDS = 20000, VALUES = 400 };

static tandem_slice text(const char *s)
{
    return tandem_slice_text(s);
}

/* ---- Globs ---- */

static void a_glob_matches_whole_names(void **state)
{
    static const struct {
        const char *glob, *name;
        bool matches;
    } cases[] = {
        {"a", "a", true},
        {"a", "ab", false},
        {"a", "ba", false},
        {"a", "A", false},
        {"*", "anything at all", true},
        {"a*", "a", true},
        {"*a", "banana", true},
        {"*an*an*", "banana", true},
        {"*an*an*an*", "banana", false},
        {"**x", "yx", true},
        {"a?c", "abc", true},
        {"a?c", "ac", false},
        {"?", "\u00e9", true},
        {"??", "\u00e9", false},
        {"?", "\U0001f600", true},
        {"[\u00e0-\u00ef]", "\u00e9", true},
        {"[a-c]x", "bx", true},
        {"[a-c]x", "dx", false},
        {"[!a-c]x", "dx", true},
        {"[^a-c]x", "bx", false},
        {"[]]", "]", true},
        {"[!]]", "a", true},
        {"[!]]", "]", false},
        {"[a-]", "-", true},
        {"[-a]", "-", true},
        {"[a\\]b]", "]", true},
        {"[\\a-\\c]", "b", true},
        {"[*?]", "*", true},
        {"[*?]", "x", false},
        {"\\*", "*", true},
        {"\\*", "a", false},
        {"\\\\", "\\", true},
        {"\\a", "a", true},
        {"a]b", "a]b", true},
        {"dir/*", "dir/.x/y", true},
        {"*.md", ".md", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_true(tandem_glob_valid(text(cases[i].glob)));
        if (tandem_glob_matches(text(cases[i].glob), text(cases[i].name)) != cases[i].matches)
            fail_msg("%s against %s", cases[i].glob, cases[i].name);
    }
}

static void what_is_no_glob_is_told(void **state)
{
    static const char *const none[] = {"",      "[",   "[]",    "[a",   "[!]", "[a\\]", "a\\",
                                       "[b-a]", "[a-", "\x01*", "\xff", "*[",  "[\\",   "[a-\\"};
    char too_long[TANDEM_NAME_BYTES_MAX + 2];

    (void)state;
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        if (tandem_glob_valid(text(none[i])))
            fail_msg("%s is taken for a glob", none[i]);
    memset(too_long, '*', sizeof(too_long) - 1);
    too_long[sizeof(too_long) - 1] = '\0';
    assert_false(tandem_glob_valid(text(too_long)));
    assert_true(tandem_glob_valid(text(too_long + 1)));
}

/* The longest glob that a matcher could lose its way in. */
static void stars_do_not_multiply(void **state)
{
    char glob[TANDEM_NAME_BYTES_MAX + 1], name[TANDEM_NAME_BYTES_MAX + 1];

    (void)state;
    for (size_t i = 0; i < TANDEM_NAME_BYTES_MAX; i++) {
        glob[i] = i % 2 ? 'a' : '*';
        name[i] = 'a';
    }
    glob[TANDEM_NAME_BYTES_MAX - 1] = 'b';
    glob[TANDEM_NAME_BYTES_MAX] = name[TANDEM_NAME_BYTES_MAX] = '\0';
    for (int i = 0; i < 1000; i++)
        assert_false(tandem_glob_matches(text(glob), text(name)));
}

/* The naive matcher: over code points, trying everything. */
struct points {
    uint32_t at[POINTS_MAX];
    unsigned count;
};

/* Behind one item of a glob at i; 0: it is none. */
static unsigned naive_item(const struct points *g, unsigned i, uint32_t c, bool *matches)
{
    bool negated = false, among = false, first = true;

    if (g->at[i] == '\\') {
        if (i + 1 == g->count)
            return 0;
        *matches = g->at[i + 1] == c;
        return i + 2;
    }
    if (g->at[i] != '[') {
        *matches = g->at[i] == '?' || g->at[i] == c;
        return i + 1;
    }
    i++;
    if (i < g->count && (g->at[i] == '!' || g->at[i] == '^')) {
        negated = true;
        i++;
    }
    for (;; first = false) {
        uint32_t from, to;

        if (i < g->count && g->at[i] == ']' && !first) {
            *matches = among != negated;
            return i + 1;
        }
        if (i < g->count && g->at[i] == '\\')
            i++;
        if (i >= g->count)
            return 0;
        from = to = g->at[i++];
        if (i + 1 < g->count && g->at[i] == '-' && g->at[i + 1] != ']') {
            i++;
            if (g->at[i] == '\\')
                i++;
            if (i >= g->count)
                return 0;
            to = g->at[i++];
        }
        if (to < from)
            return 0;
        among |= from <= c && c <= to;
    }
}

static bool naive_valid(const struct points *g)
{
    bool matches;

    for (unsigned i = 0; i < g->count;)
        if (!(i = naive_item(g, i, 0, &matches)))
            return false;
    return g->count > 0;
}

static bool naive_matches(const struct points *g, unsigned i, const struct points *n, unsigned k)
{
    bool matches;
    unsigned next;

    if (i == g->count)
        return k == n->count;
    if (g->at[i] == '*') {
        for (unsigned end = k; end <= n->count; end++)
            if (naive_matches(g, i + 1, n, end))
                return true;
        return false;
    }
    if (k == n->count)
        return false;
    next = naive_item(g, i, n->at[k], &matches);
    assert_true(next);
    return matches && naive_matches(g, next, n, k + 1);
}

static tandem_slice utf8(const struct points *points, char *bytes)
{
    size_t size = 0;

    for (unsigned i = 0; i < points->count; i++) {
        uint32_t c = points->at[i];

        if (c < 0x80) {
            bytes[size++] = (char)c;
        } else if (c < 0x800) {
            bytes[size++] = (char)(0xc0 | c >> 6);
            bytes[size++] = (char)(0x80 | (c & 0x3f));
        } else {
            bytes[size++] = (char)(0xf0 | c >> 18);
            bytes[size++] = (char)(0x80 | (c >> 12 & 0x3f));
            bytes[size++] = (char)(0x80 | (c >> 6 & 0x3f));
            bytes[size++] = (char)(0x80 | (c & 0x3f));
        }
    }
    return tandem_slice_of(bytes, size);
}

static void draw_points(uint64_t *seed, const uint32_t *alphabet, unsigned letters, unsigned max,
                        struct points *out)
{
    out->count = (unsigned)(draw(seed) % max) + 1;
    for (unsigned i = 0; i < out->count; i++)
        out->at[i] = alphabet[draw(seed) % letters];
}

static void any_glob_matches_as_the_naive_matcher_says(void **state)
{
    static const uint32_t letters[] = {'a',  'b', 'c',  0xe9, 0x1f600, '*', '*', '?',
                                       '\\', '[', '[', ']',  ']',     '-', '!', '^'};
    char glob_bytes[4 * POINTS_MAX], name_bytes[4 * POINTS_MAX];
    uint64_t seed = 7;
    unsigned valid = 0, matching = 0;

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct points glob, name;
        tandem_slice g, n;
        bool matches;

        draw_points(&seed, letters, 16, 8, &glob);
        g = utf8(&glob, glob_bytes);
        if (naive_valid(&glob) != tandem_glob_valid(g))
            fail_msg("round %d: a glob or not", round);
        if (!tandem_glob_valid(g))
            continue;
        valid++;
        for (int i = 0; i < 8; i++) {
            draw_points(&seed, letters, i % 2 ? 5 : 16, 7, &name);
            n = utf8(&name, name_bytes);
            matches = naive_matches(&glob, 0, &name, 0);
            matching += matches;
            if (tandem_glob_matches(g, n) != matches)
                fail_msg("round %d: %.*s against %.*s", round, (int)g.size, (const char *)g.bytes,
                         (int)n.size, (const char *)n.bytes);
        }
    }
    assert_true(valid > ROUNDS / 10 && matching > ROUNDS / 10);
}

/* ---- Filters ---- */

static td_names names_of(const char *const *list, tandem_slice *slices)
{
    td_names names = {slices, 0};

    for (; list && list[names.count]; names.count++)
        slices[names.count] = text(list[names.count]);
    return names;
}

static tandem_err make(const char *const *documents, const char *const *scopes,
                       const char *const *branches, td_filter *out)
{
    tandem_slice d[80], s[80], b[80];

    return td_filter_make(names_of(documents, d), names_of(scopes, s), names_of(branches, b), out);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static td_filter made(const char *const *documents, const char *const *scopes,
                      const char *const *branches)
{
    td_filter filter;

    assert_int_equal(TANDEM_OK, make(documents, scopes, branches, &filter));
    return filter;
}

static bool matches(const td_filter *filter, const char *document, const char *branch,
                    const char *scope)
{
    td_operation operation = {
        .collection = text("c"),
        .document = text(document),
        .branch = text(branch),
        .scope = text(scope),
    };

    return td_filter_matches(filter, &operation);
}

static void everything_matches_everything_and_takes_no_memory(void **state)
{
    td_filter all = made(NULL, NULL, NULL), copy;

    (void)state;
    assert_true(td_filter_is_all(&all));
    assert_null(all.bytes);
    assert_true(matches(&all, "d", "main", "global"));
    assert_int_equal(1, td_filter_bytes(&all).size);
    assert_int_equal(0xc0, td_filter_bytes(&all).bytes[0]);
    assert_int_equal(TANDEM_OK, td_filter_decode(td_filter_bytes(&all), &copy));
    assert_true(td_filter_is_all(&copy));
}

static void a_filter_matches_by_document_scope_and_branch(void **state)
{
    td_filter filter = made(LIST("note-*", "x"), LIST("global", "draft"), LIST("main"));

    (void)state;
    assert_true(matches(&filter, "note-1", "main", "global"));
    assert_true(matches(&filter, "x", "main", "draft"));
    assert_false(matches(&filter, "y", "main", "global"));
    assert_false(matches(&filter, "note-1", "other", "global"));
    assert_false(matches(&filter, "note-1", "main", "secret"));
    td_filter_release(&filter);
    assert_true(td_filter_is_all(&filter));
}

static void lifecycle_operations_match_on_every_branch(void **state)
{
    td_filter filter = made(LIST("note-*"), LIST("draft"), LIST("main"));

    (void)state;
    assert_true(matches(&filter, "note-1", "other", "document"));
    assert_false(matches(&filter, "x", "main", "document"));
    td_filter_release(&filter);
}

static void the_same_names_give_the_same_bytes(void **state)
{
    td_filter a = made(LIST("b", "a", "b"), LIST("t", "s"), NULL);
    td_filter b = made(LIST("a", "b", "a"), LIST("s", "t", "s"), NULL);
    td_filter c = made(LIST("a"), LIST("s", "t"), NULL);
    static const uint8_t expected[] = {0x93, 0x91, 0x92, 0xa1, 'a', 0xa1, 'b',
                                       0x92, 0xa1, 's', 0xa1, 't', 0xc0};

    (void)state;
    assert_true(td_filter_equal(&a, &b));
    assert_false(td_filter_equal(&a, &c));
    assert_int_equal(sizeof(expected), td_filter_bytes(&a).size);
    assert_memory_equal(expected, td_filter_bytes(&a).bytes, sizeof(expected));
    td_filter_release(&a);
    td_filter_release(&b);
    td_filter_release(&c);
}

static void too_much_and_what_is_no_name_are_refused(void **state)
{
    char names[65][TANDEM_NAME_BYTES_MAX + 1];
    const char *list[66] = {NULL};
    td_filter filter = TD_FILTER_ALL;

    (void)state;
    for (unsigned i = 0; i < 65; i++) {
        memset(names[i], 'a', TANDEM_NAME_BYTES_MAX);
        names[i][i] = 'b';
        names[i][TANDEM_NAME_BYTES_MAX] = '\0';
        list[i] = names[i] + TANDEM_NAME_BYTES_MAX - 20;
        names[i][TANDEM_NAME_BYTES_MAX - 1 - i % 10] = (char)('c' + i / 10);
    }
    assert_int_equal(TANDEM_E_LIMIT, make(list, NULL, NULL, &filter));
    list[64] = NULL;
    assert_int_equal(TANDEM_OK, make(list, NULL, NULL, &filter));
    td_filter_release(&filter);
    for (unsigned i = 0; i < 64; i++)
        list[i] = names[i];
    assert_int_equal(TANDEM_E_LIMIT, make(list, NULL, NULL, &filter));
    assert_int_equal(TANDEM_E_INVALID, make(LIST("[a"), NULL, NULL, &filter));
    assert_int_equal(TANDEM_E_INVALID, make(NULL, LIST(""), NULL, &filter));
    assert_int_equal(TANDEM_E_INVALID, make(NULL, NULL, LIST("a\n"), &filter));
    assert_null(filter.bytes);
}

static void the_conjunction_matches_what_both_do(void **state)
{
    td_filter a = made(LIST("a*"), LIST("s", "t"), NULL);
    td_filter b = made(LIST("*z"), LIST("t", "u"), LIST("main")), both, again;

    (void)state;
    assert_int_equal(TANDEM_OK, td_filter_and(&a, &b, &both));
    assert_true(matches(&both, "a-z", "main", "t"));
    assert_false(matches(&both, "a-y", "main", "t"));
    assert_false(matches(&both, "b-z", "main", "t"));
    assert_false(matches(&both, "a-z", "main", "s"));
    assert_false(matches(&both, "a-z", "other", "t"));
    assert_int_equal(TANDEM_OK, td_filter_and(&b, &a, &again));
    assert_true(td_filter_equal(&both, &again));
    td_filter_release(&again);
    assert_int_equal(TANDEM_OK, td_filter_and(&both, &a, &again));
    assert_true(td_filter_equal(&both, &again));
    td_filter_release(&a);
    td_filter_release(&b);
    td_filter_release(&both);
    td_filter_release(&again);
}

static void only_lifecycles_are_left_where_no_scope_is_shared(void **state)
{
    td_filter a = made(NULL, LIST("s"), NULL), b = made(NULL, LIST("t"), NULL), both, copy;

    (void)state;
    assert_int_equal(TANDEM_OK, td_filter_and(&a, &b, &both));
    assert_false(matches(&both, "d", "main", "s"));
    assert_false(matches(&both, "d", "main", "t"));
    assert_true(matches(&both, "d", "main", "document"));
    assert_int_equal(TANDEM_OK, td_filter_decode(td_filter_bytes(&both), &copy));
    assert_true(td_filter_equal(&both, &copy));
    td_filter_release(&a);
    td_filter_release(&b);
    td_filter_release(&both);
    td_filter_release(&copy);
}

static void a_filter_includes_what_its_names_show(void **state)
{
    td_filter all = TD_FILTER_ALL, a = made(LIST("a", "b"), LIST("s"), NULL);
    td_filter part = made(LIST("b"), LIST("s"), LIST("main")), other = made(LIST("c"), NULL, NULL);
    td_filter both;

    (void)state;
    assert_true(td_filter_includes(&all, &a));
    assert_false(td_filter_includes(&a, &all));
    assert_true(td_filter_includes(&a, &a));
    assert_true(td_filter_includes(&a, &part));
    assert_false(td_filter_includes(&part, &a));
    assert_false(td_filter_includes(&a, &other));
    assert_int_equal(TANDEM_OK, td_filter_and(&a, &other, &both));
    assert_true(td_filter_includes(&a, &both));
    assert_true(td_filter_includes(&other, &both));
    assert_false(td_filter_includes(&both, &a));
    td_filter_release(&a);
    td_filter_release(&part);
    td_filter_release(&other);
    td_filter_release(&both);
}

static void only_canonical_bytes_are_a_filter(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        tandem_err err;
    } cases[] = {
        {"\x93\x91\x91\xa1"
         "a\xc0\xc0",
         7, TANDEM_OK},
        {"\x93\x91\x91\xa1"
         "a\xc0\xc0\xc0",
         8, TANDEM_E_PAYLOAD}, /* something behind it */
        {"\x93\x91\x91\xa1"
         "a\xc0",
         6, TANDEM_E_PAYLOAD},
        {"\x94\x91\x91\xa1"
         "a\xc0\xc0\xc0",
         8, TANDEM_E_PAYLOAD}, /* a fourth item */
        {"\x92\xc0\x91\xa1s", 5, TANDEM_E_PAYLOAD},
        {"\x93\xc0\xc0\xc0", 4, TANDEM_E_PAYLOAD}, /* everything is nil */
        {"\xc0", 1, TANDEM_OK},
        {"\xc0\xc0", 2, TANDEM_E_PAYLOAD},
        {"", 0, TANDEM_E_PAYLOAD},
        {"\x90", 1, TANDEM_E_PAYLOAD},
        {"\x93\x90\xc0\xc0", 4, TANDEM_E_PAYLOAD},          /* no list */
        {"\x93\x91\x90\xc0\xc0", 5, TANDEM_E_PAYLOAD},      /* an empty list */
        {"\x93\xc0\x90\xc0", 4, TANDEM_OK},                 /* no scope is left */
        {"\x93\xc0\xc0\x90", 4, TANDEM_OK},
        {"\x93\xc0\x92\xa1t\xa1s\xc0", 8, TANDEM_E_PAYLOAD}, /* not in order */
        {"\x93\xc0\x92\xa1s\xa1s\xc0", 8, TANDEM_E_PAYLOAD},
        {"\x93\xc0\x91\xd9\x01s\xc0", 7, TANDEM_E_PAYLOAD}, /* a longer form */
        {"\x93\xc0\xdc\x00\x01\xa1s\xc0", 8, TANDEM_E_PAYLOAD},
        {"\x93\xc0\x91\xc4\x01s\xc0", 7, TANDEM_E_PAYLOAD}, /* bin */
        {"\x93\xc0\x91\xa0\xc0", 5, TANDEM_E_PAYLOAD},
        {"\x93\x91\x91\xa1[\xc0\xc0", 7, TANDEM_E_PAYLOAD}, /* no glob */
        {"\x93\x92\x91\xa1"
         "a\x91\xa1"
         "b\xc0\xc0",
         10, TANDEM_OK},
        {"\x93\x92\x91\xa1"
         "b\x91\xa1"
         "a\xc0\xc0",
         10, TANDEM_E_PAYLOAD},
        {"\x93\x92\x91\xa1"
         "a\x91\xa1"
         "a\xc0\xc0",
         10, TANDEM_E_PAYLOAD},
        {"\x93\x95\x91\xa1"
         "a\x91\xa1"
         "b\x91\xa1"
         "c\x91\xa1"
         "d\x91\xa1"
         "e\xc0\xc0",
         19, TANDEM_E_LIMIT},
        {"\x93\xdd\xff\xff\xff\xff", 6, TANDEM_E_PAYLOAD},
        {"\x93\xc0\xdc\x00\x41", 5, TANDEM_E_PAYLOAD}, /* promised, not there */
    };
    td_filter filter = TD_FILTER_ALL;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *exact = malloc(cases[i].size ? cases[i].size : 1);
        tandem_slice bytes = tandem_slice_of(exact, cases[i].size);
        tandem_err err;

        assert_non_null(exact);
        memcpy(exact, cases[i].bytes, cases[i].size);
        err = td_filter_check(bytes);
        if (err != cases[i].err)
            fail_msg("case %zu: %s", i, tandem_err_name(err));
        assert_int_equal(err, td_filter_decode(bytes, &filter));
        td_filter_release(&filter);
        free(exact);
    }
}

/* ---- Shares ---- */

static td_share share_of(const char *const *collections, const td_filter *filter)
{
    tandem_slice slices[80];
    td_share share;

    assert_int_equal(TANDEM_OK, td_share_make(names_of(collections, slices), filter, &share));
    return share;
}

static void assert_read_back(const td_share *share)
{
    tandem_writer bytes;
    td_share read;

    tandem_writer_init(&bytes);
    td_share_write(share, &bytes);
    assert_int_equal(TANDEM_OK, tandem_writer_err(&bytes));
    assert_int_equal(TANDEM_OK, td_share_decode(tandem_writer_slice(&bytes), &read));
    assert_true(td_share_equal(share, &read));
    for (size_t size = 0; size < bytes.size; size++)
        assert_int_not_equal(TANDEM_OK, td_share_check(tandem_slice_of(bytes.bytes, size)));
    td_share_release(&read);
    tandem_writer_release(&bytes);
}

static void a_share_is_collections_and_a_filter(void **state)
{
    td_filter filter = made(LIST("a*"), NULL, NULL), all = TD_FILTER_ALL;
    td_share share = share_of(LIST("tasks", "notes", "tasks"), &filter);
    td_share everything = share_of(NULL, &all), filtered = share_of(NULL, &filter);
    td_share nothing = TD_SHARE_NOTHING;
    td_operation operation = {.collection = text("notes"),
                              .document = text("abc"),
                              .branch = text("main"),
                              .scope = text("global")};

    (void)state;
    assert_true(td_share_matches(&share, &operation));
    assert_true(td_share_matches(&filtered, &operation));
    assert_true(td_share_matches(&everything, &operation));
    assert_false(td_share_matches(&nothing, &operation));
    operation.document = text("b");
    assert_false(td_share_matches(&share, &operation));
    assert_true(td_share_matches(&everything, &operation));
    operation.collection = text("other");
    operation.document = text("abc");
    assert_false(td_share_matches(&share, &operation));
    assert_true(td_share_is_all(&everything));
    assert_false(td_share_is_all(&filtered));
    assert_false(td_share_is_all(&nothing));
    assert_read_back(&share);
    assert_read_back(&everything);
    assert_read_back(&filtered);
    assert_read_back(&nothing);
    td_share_release(&share);
    td_share_release(&filtered);
    td_filter_release(&filter);
}

static void what_goes_is_what_one_gives_and_the_other_takes(void **state)
{
    td_filter a = made(LIST("a*"), NULL, NULL), b = made(LIST("*z"), NULL, NULL), both;
    td_share gives = share_of(LIST("notes", "tasks"), &a), takes = share_of(LIST("tasks"), &b);
    td_share apart = share_of(LIST("other"), &b), all = TD_SHARE_ALL, nothing = TD_SHARE_NOTHING;
    td_share way, copy;

    (void)state;
    assert_int_equal(TANDEM_OK, td_share_and(&gives, &takes, &way));
    assert_int_equal(TANDEM_OK, td_filter_and(&a, &b, &both));
    assert_true(td_filter_equal(&both, &way.filter));
    assert_true(td_share_has(&way, text("tasks")));
    assert_false(td_share_has(&way, text("notes")));
    assert_int_equal(TANDEM_OK, td_share_copy(&way, &copy));
    assert_true(td_share_equal(&way, &copy));
    td_share_release(&way);
    assert_int_equal(TANDEM_OK, td_share_and(&all, &takes, &way));
    assert_true(td_share_equal(&takes, &way));
    td_share_release(&way);
    assert_int_equal(TANDEM_OK, td_share_and(&gives, &apart, &way));
    assert_true(td_share_is_nothing(&way));
    assert_true(td_share_equal(&nothing, &way));
    td_share_release(&way);
    assert_int_equal(TANDEM_OK, td_share_and(&nothing, &all, &way));
    assert_true(td_share_is_nothing(&way));
    td_share_release(&way);
    td_share_release(&copy);
    td_share_release(&gives);
    td_share_release(&takes);
    td_share_release(&apart);
    td_filter_release(&a);
    td_filter_release(&b);
    td_filter_release(&both);
}

static void only_canonical_bytes_are_a_share(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        tandem_err err;
    } cases[] = {
        {"\xc0", 1, TANDEM_OK},
        {"\x92\x90\xc0", 3, TANDEM_OK},
        {"\x92\xc0\xc0", 3, TANDEM_E_PAYLOAD},
        {"\x92\x91\xa1t\xc0", 5, TANDEM_OK},
        {"\x92\x92\xa1t\xa1t\xc0", 7, TANDEM_E_PAYLOAD},
        {"\x92\x92\xa1t\xa1s\xc0", 7, TANDEM_E_PAYLOAD},
        {"\x92\xdc\x00\x01\xa1t\xc0", 7, TANDEM_E_PAYLOAD},
        {"\x92\x90\x93\xc0\xc0\x91\xa1m", 8, TANDEM_E_PAYLOAD}, /* nothing, and some of it */
        {"\x92\xc0\x93\xc0\xc0\x91\xa1m", 8, TANDEM_OK},
        {"\x93\x91\xa1t\xc0\xc0", 6, TANDEM_E_PAYLOAD},
        {"\xdc\x00\x02\x91\xa1t\xc0", 7, TANDEM_E_PAYLOAD},
        {"\x92\x91\xa1t", 4, TANDEM_E_PAYLOAD},
        {"\x92\x91\x01\xc0", 4, TANDEM_E_PAYLOAD},
        {"\xc2", 1, TANDEM_E_PAYLOAD},
        {"\x92\xc0\x93\x93\x91\xa1"
         "a\x91\xa1"
         "b\x91\xa1"
         "c\xc0\xc0",
         15, TANDEM_E_LIMIT}, /* more lists than fit twice */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (td_share_check(tandem_slice_of(cases[i].bytes, cases[i].size)) != cases[i].err)
            fail_msg("case %zu", i);
}

/* ---- Drawn ---- */

static const char *const drawn_documents[] = {"a", "ab", "b*", "*", "?b", "[ac]*"};
static const char *const drawn_names[] = {"main", "global", "draft", "x", "y"};

static void draw_list(uint64_t *seed, const char *const *from, unsigned count, const char **out)
{
    unsigned size = (unsigned)(draw(seed) % 4), i;

    for (i = 0; i < size; i++)
        out[i] = from[draw(seed) % count];
    out[i] = NULL;
}

static void draw_share(uint64_t *seed, td_share *out)
{
    const char *collections[4], *documents[4], *scopes[4], *branches[4];
    td_filter filter;

    draw_list(seed, drawn_names, 5, collections);
    draw_list(seed, drawn_documents, 6, documents);
    draw_list(seed, drawn_names, 5, scopes);
    draw_list(seed, drawn_names, 5, branches);
    filter = made(documents, scopes, branches);
    *out = draw(seed) % 16 ? share_of(collections, &filter) : TD_SHARE_NOTHING;
    td_filter_release(&filter);
}

static void drawn_shares_are_read_back_and_joined(void **state)
{
    static const char *const documents[] = {"a", "ab", "b", "cab", "zz"};
    static const char *const scopes[] = {"global", "draft", "x", "document"};
    uint64_t seed = 11;

    (void)state;
    for (int round = 0; round < VALUES; round++) {
        td_share a, b, both;

        draw_share(&seed, &a);
        draw_share(&seed, &b);
        assert_read_back(&a);
        assert_int_equal(TANDEM_OK, td_share_and(&a, &b, &both));
        for (int i = 0; i < 40; i++) {
            td_operation operation = {
                .collection = text(drawn_names[draw(&seed) % 5]),
                .document = text(documents[draw(&seed) % 5]),
                .branch = text(drawn_names[draw(&seed) % 5]),
                .scope = text(scopes[draw(&seed) % 4]),
            };
            bool in_a = td_share_matches(&a, &operation), in_b = td_share_matches(&b, &operation);

            assert_int_equal(in_a && in_b, td_share_matches(&both, &operation));
            if (td_filter_includes(&a.filter, &b.filter) &&
                td_filter_matches(&b.filter, &operation))
                assert_true(td_filter_matches(&a.filter, &operation));
        }
        assert_true(td_filter_includes(&a.filter, &both.filter) || td_share_is_nothing(&both));
        td_share_release(&a);
        td_share_release(&b);
        td_share_release(&both);
    }
}

/* No byte that has changed makes anything worse than another filter. */
static void changed_bytes_are_refused_or_canonical(void **state)
{
    uint64_t seed = 13;
    unsigned taken = 0;

    (void)state;
    for (int round = 0; round < VALUES * 10; round++) {
        tandem_writer bytes, again;
        td_share share;

        draw_share(&seed, &share);
        tandem_writer_init(&bytes);
        tandem_writer_init(&again);
        td_share_write(&share, &bytes);
        td_share_release(&share);
        bytes.bytes[draw(&seed) % bytes.size] = (uint8_t)draw(&seed);
        if (td_share_decode(tandem_writer_slice(&bytes), &share) == TANDEM_OK) {
            taken++;
            td_share_write(&share, &again);
            assert_true(tandem_slice_equal(tandem_writer_slice(&bytes),
                                           tandem_writer_slice(&again)));
            td_share_release(&share);
        }
        tandem_writer_release(&bytes);
        tandem_writer_release(&again);
    }
    assert_true(taken > 0);
}

static void count_name(void *context, td_filter_part part, tandem_slice name)
{
    unsigned *counts = context;

    assert_true(name.size > 0);
    counts[part]++;
}

static void all_names_are_visited(void **state)
{
    td_filter a = made(LIST("a", "b"), LIST("s"), NULL), b = made(LIST("c"), NULL, NULL), both;
    td_share share;
    unsigned counts[4] = {0};

    (void)state;
    assert_int_equal(TANDEM_OK, td_filter_and(&a, &b, &both));
    share = share_of(LIST("x", "y"), &both);
    td_share_each(&share, count_name, counts);
    assert_int_equal(2, counts[TD_FILTER_COLLECTIONS]);
    assert_int_equal(3, counts[TD_FILTER_DOCUMENTS]);
    assert_int_equal(1, counts[TD_FILTER_SCOPES]);
    assert_int_equal(0, counts[TD_FILTER_BRANCHES]);
    td_share_release(&share);
    td_filter_release(&a);
    td_filter_release(&b);
    td_filter_release(&both);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_glob_matches_whole_names),
        cmocka_unit_test(what_is_no_glob_is_told),
        cmocka_unit_test(stars_do_not_multiply),
        cmocka_unit_test(any_glob_matches_as_the_naive_matcher_says),
        cmocka_unit_test(everything_matches_everything_and_takes_no_memory),
        cmocka_unit_test(a_filter_matches_by_document_scope_and_branch),
        cmocka_unit_test(lifecycle_operations_match_on_every_branch),
        cmocka_unit_test(the_same_names_give_the_same_bytes),
        cmocka_unit_test(too_much_and_what_is_no_name_are_refused),
        cmocka_unit_test(the_conjunction_matches_what_both_do),
        cmocka_unit_test(only_lifecycles_are_left_where_no_scope_is_shared),
        cmocka_unit_test(a_filter_includes_what_its_names_show),
        cmocka_unit_test(only_canonical_bytes_are_a_filter),
        cmocka_unit_test(a_share_is_collections_and_a_filter),
        cmocka_unit_test(what_goes_is_what_one_gives_and_the_other_takes),
        cmocka_unit_test(only_canonical_bytes_are_a_share),
        cmocka_unit_test(drawn_shares_are_read_back_and_joined),
        cmocka_unit_test(changed_bytes_are_refused_or_canonical),
        cmocka_unit_test(all_names_are_visited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
