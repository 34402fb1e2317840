/* The model text, by itself: what positions become, what concurrent edits give, and that it says so in
 * every way in which a state can come to be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reactor/model.h"
#include "reactor/model_check.h"
#include "store/msgpack.h"
#include "store/utf8.h"

enum { AUTHORS = 5, OPERATIONS_MAX = 400, CHARACTERS_MAX = 4096 };

static const tandem_model *const model = &tandem_model_text;

/* ---- Operations, and folding them ---- */

struct made {
    unsigned author;
    uint64_t hlc, seq;
    uint8_t origin[TANDEM_ORIGIN_BYTES], hash[TANDEM_HASH_BYTES];
    tandem_writer payload;
    bool known[AUTHORS]; /* by whom */
};

struct world {
    struct made made[OPERATIONS_MAX];
    unsigned count;
    uint64_t clocks[AUTHORS], seqs[AUTHORS];
    uint64_t dice;
};

static uint64_t next(struct world *world)
{
    uint64_t z = world->dice += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint32_t below(struct world *world, uint32_t limit)
{
    return (uint32_t)(next(world) % limit);
}

static struct world *world_open(uint64_t seed)
{
    struct world *world = calloc(1, sizeof(*world));

    assert_non_null(world);
    world->dice = seed;
    for (unsigned i = 0; i < AUTHORS; i++)
        world->clocks[i] = (uint64_t)1 << 40;
    return world;
}

static void world_free(struct world *world)
{
    for (unsigned i = 0; i < world->count; i++)
        tandem_writer_release(&world->made[i].payload);
    free(world);
}

static tandem_err apply(void *state, const struct made *made)
{
    tandem_change change = {
        .verb = tandem_slice_text("EDIT"),
        .payload = tandem_writer_slice(&made->payload),
        .hlc = made->hlc,
        .origin = made->origin,
        .seq = made->seq,
        .hash = made->hash,
    };

    return model->apply(state, &change);
}

static int in_order(const void *a, const void *b)
{
    const struct made *x = *(struct made *const *)a, *y = *(struct made *const *)b;

    if (x->hlc != y->hlc)
        return x->hlc < y->hlc ? -1 : 1;
    return memcmp(x->origin, y->origin, TANDEM_ORIGIN_BYTES);
}

/* What one of them knows, in total order; AUTHORS: all. */
static unsigned known_to(struct world *world, unsigned author, struct made **out)
{
    unsigned count = 0;

    for (unsigned i = 0; i < world->count; i++)
        if (author == AUTHORS || world->made[i].known[author])
            out[count++] = &world->made[i];
    qsort(out, count, sizeof(out[0]), in_order);
    return count;
}

static void *fold(struct world *world, unsigned author)
{
    struct made *known[OPERATIONS_MAX];
    unsigned count = known_to(world, author, known);
    void *state;

    assert_int_equal(TANDEM_OK, model->state_open(&state));
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(TANDEM_OK, apply(state, known[i]));
    return state;
}

static char *shown(const void *state)
{
    tandem_writer out;
    tandem_reader reader;
    tandem_slice text;
    char *copy;

    tandem_writer_init(&out);
    assert_int_equal(TANDEM_OK, model->show(state, &out));
    reader = tandem_reader_of(tandem_writer_slice(&out));
    assert_int_equal(TANDEM_OK, tandem_read_string(&reader, &text));
    copy = malloc(text.size + 1);
    assert_non_null(copy);
    memcpy(copy, text.bytes, text.size);
    copy[text.size] = '\0';
    tandem_writer_release(&out);
    return copy;
}

static void assert_shows(const char *expected, const void *state)
{
    char *text = shown(state);

    assert_string_equal(expected, text);
    free(text);
}

static uint64_t length_of(const void *state)
{
    char *text = shown(state);
    uint64_t count = 0;

    assert_true(td_utf8_count(tandem_slice_text(text), &count));
    free(text);
    return count;
}

/* ---- Editing ---- */

static void put_edit(tandem_writer *out, uint64_t at, uint64_t deleted, const char *inserted)
{
    tandem_write_map(out, 1 + (deleted > 0) + (inserted != NULL));
    tandem_write_text(out, "at");
    tandem_write_uint(out, at);
    if (deleted) {
        tandem_write_text(out, "delete");
        tandem_write_uint(out, deleted);
    }
    if (inserted) {
        tandem_write_text(out, "insert");
        tandem_write_text(out, inserted);
    }
}

static void origin_of(unsigned author, uint8_t out[TANDEM_ORIGIN_BYTES])
{
    memset(out, 0, TANDEM_ORIGIN_BYTES);
    out[0] = (uint8_t)(0xa0 + author);
}

static tandem_err prepare(const void *state, unsigned author, uint32_t index, tandem_slice input,
                          tandem_writer *payload, char why[128])
{
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    tandem_intent intent = {
        .verb = tandem_slice_text("EDIT"), .input = input, .index = index, .origin = origin};

    origin_of(author, origin);
    return model->prepare(state, &intent, payload, why);
}

/* One more operation of an author, with this payload (taken over). */
static struct made *add(struct world *world, unsigned author, tandem_writer *payload)
{
    struct made *made = &world->made[world->count++];

    assert_true(world->count <= OPERATIONS_MAX);
    made->author = author;
    made->hlc = ++world->clocks[author];
    made->seq = ++world->seqs[author];
    origin_of(author, made->origin);
    td_put_u64(made->hash, made->hlc);
    made->hash[8] = (uint8_t)author;
    made->payload = *payload;
    made->known[author] = true;
    return made;
}

static void edit(struct world *world, unsigned author, void *state, uint64_t at, uint64_t deleted,
                 const char *inserted)
{
    tandem_writer input, payload;
    char why[128] = "";

    tandem_writer_init(&input);
    tandem_writer_init(&payload);
    put_edit(&input, at, deleted, inserted);
    assert_int_equal(TANDEM_OK,
                     prepare(state, author, 0, tandem_writer_slice(&input), &payload, why));
    tandem_writer_release(&input);
    assert_int_equal(TANDEM_OK, apply(state, add(world, author, &payload)));
}

/* All that one knows the other one is told. */
static void tell(struct world *world, unsigned from, unsigned to)
{
    for (unsigned i = 0; i < world->count; i++) {
        struct made *made = &world->made[i];

        if (!made->known[from] || made->known[to])
            continue;
        made->known[to] = true;
        if (made->hlc > world->clocks[to])
            world->clocks[to] = made->hlc;
    }
}

/* ---- A text without runs, trees or snapshots: what the payloads say, word for word ---- */

struct plain_character {
    unsigned author;
    uint64_t hlc, seq, offset;
    uint32_t code; /* its bytes */
    bool deleted;
};

struct plain {
    struct plain_character all[CHARACTERS_MAX];
    size_t count;
};

static size_t plain_find(const struct plain *plain, unsigned author, uint64_t seq, uint64_t name,
                         uint64_t offset)
{
    size_t i = 0;

    for (; i < plain->count; i++) {
        const struct plain_character *c = &plain->all[i];

        if (c->author == author && c->offset == offset &&
            (name <= TANDEM_INTENT_INDEX_MAX ? c->seq == seq - name : c->hlc == name))
            break;
    }
    assert_true(i < plain->count);
    return i;
}

static unsigned plain_author(tandem_reader *reader, unsigned speaker)
{
    tandem_item item;

    assert_int_equal(TANDEM_OK, tandem_read(reader, &item));
    return item.kind == TANDEM_NIL ? speaker : item.bytes.bytes[0] - 0xa0u;
}

static size_t plain_anchor(const struct plain *plain, tandem_reader *reader, const struct made *made)
{
    uint64_t side, offset, name;
    unsigned author = made->author;
    tandem_item item;

    assert_int_equal(TANDEM_OK, tandem_read(reader, &item));
    if (item.kind == TANDEM_NIL)
        return 0;
    assert_int_equal(TANDEM_OK, tandem_read_uint(reader, &side));
    assert_int_equal(TANDEM_OK, tandem_read_uint(reader, &offset));
    assert_int_equal(TANDEM_OK, tandem_read_uint(reader, &name));
    if (item.count == 4)
        author = plain_author(reader, author);
    return plain_find(plain, author, made->seq, name, offset) + (side == 0);
}

static void plain_delete(struct plain *plain, tandem_reader *reader, const struct made *made)
{
    uint32_t blocks, count;

    assert_int_equal(TANDEM_OK, tandem_read_array(reader, &blocks));
    while (blocks--) {
        uint64_t name = 0, further, offset, size;
        unsigned author;

        assert_int_equal(TANDEM_OK, tandem_read_array(reader, &count));
        author = plain_author(reader, made->author);
        for (uint32_t i = 1; i < count; i += 3) {
            assert_int_equal(TANDEM_OK, tandem_read_uint(reader, &further));
            assert_int_equal(TANDEM_OK, tandem_read_uint(reader, &offset));
            assert_int_equal(TANDEM_OK, tandem_read_uint(reader, &size));
            name += further;
            while (size--)
                plain->all[plain_find(plain, author, made->seq, name, offset++)].deleted = true;
        }
    }
}

static void plain_apply(struct plain *plain, const struct made *made)
{
    tandem_reader reader = tandem_reader_of(tandem_writer_slice(&made->payload));
    tandem_slice text;
    uint32_t count;
    uint64_t offset = 0;
    size_t at;

    assert_int_equal(TANDEM_OK, tandem_read_array(&reader, &count));
    assert_int_equal(TANDEM_OK, tandem_read_string(&reader, &text));
    at = plain_anchor(plain, &reader, made);
    for (size_t i = 0, size; i < text.size; i += size, at++) {
        struct plain_character c = {made->author, made->hlc, made->seq, offset++, 0, false};

        size = td_utf8_size(text.bytes + i, text.size - i);
        assert_true(plain->count < CHARACTERS_MAX);
        memcpy(&c.code, text.bytes + i, size);
        memmove(&plain->all[at + 1], &plain->all[at], (plain->count - at) * sizeof(c));
        plain->all[at] = c;
        plain->count++;
    }
    if (count == 3)
        plain_delete(plain, &reader, made);
}

static void assert_is_plain(struct world *world, const void *state)
{
    struct made *known[OPERATIONS_MAX];
    unsigned count = known_to(world, AUTHORS, known);
    struct plain *plain = calloc(1, sizeof(*plain));
    char *text = malloc(4 * CHARACTERS_MAX + 1);
    size_t size = 0;

    assert_true(plain && text);
    for (unsigned i = 0; i < count; i++)
        plain_apply(plain, known[i]);
    for (size_t i = 0; i < plain->count; i++)
        for (unsigned k = 0; k < 4 && !plain->all[i].deleted; k++)
            if (((uint8_t *)&plain->all[i].code)[k])
                text[size++] = (char)((uint8_t *)&plain->all[i].code)[k];
    text[size] = '\0';
    assert_shows(text, state);
    free(text);
    free(plain);
}

/* ---- Alone ---- */

static void positions_are_code_points(void **unused)
{
    struct world *world = world_open(1);
    void *state = fold(world, 0);

    edit(world, 0, state, 0, 0, "h\xc3\xa9llo \xf0\x9f\x8c\x8d!");
    edit(world, 0, state, 6, 1, "w\xc3\xb6rld");
    assert_shows("h\xc3\xa9llo w\xc3\xb6rld!", state);
    edit(world, 0, state, 1, 1, "e");
    edit(world, 0, state, 11, 1, NULL);
    edit(world, 0, state, 0, 6, NULL);
    assert_shows("w\xc3\xb6rld", state);
    edit(world, 0, state, 0, 5, "\xe2\x82\xac");
    assert_shows("\xe2\x82\xac", state);
    model->state_free(state);
    world_free(world);
}

static void what_cannot_be_is_refused_in_words(void **unused)
{
    static const struct {
        const char *input; /* msgpack */
        size_t size;
        const char *word;
    } rows[] = {
        {"\x81\xa2"
         "at\x05", 5, "something"},
        {"\x82\xa2"
         "at\x04\xa6insert\xa1x", 14, "3 characters"},
        {"\x82\xa2"
         "at\x01\xa6"
         "delete\x03", 13, "3 characters"},
        {"\x82\xa2"
         "at\x01\xa6insert\xa1\xff", 14, "UTF-8"},
        {"\x82\xa2"
         "at\x01\xa6insert\xa3\xed\xa0\x80", 16, "UTF-8"},
        {"\x81\xa2"
         "at\x01", 5, "something"},
        {"\x81\xa6insert\xa1x", 10, "position"},
        {"\x82\xa2"
         "at\xff\xa6insert\xa1x", 14, "0 or more"},
        {"\x82\xa2"
         "at\x01\xa6insert\x07", 13, "string"},
        {"\x81\xa3"
         "att\x01", 6, "att"},
        {"\x93\x01\x02\x03", 4, "object"},
    };
    struct world *world = world_open(1);
    void *state = fold(world, 0);

    edit(world, 0, state, 0, 0, "abc");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        tandem_writer payload;
        char why[128] = "";

        tandem_writer_init(&payload);
        assert_int_equal(TANDEM_E_INPUT,
                         prepare(state, 0, 0, tandem_slice_of(rows[i].input, rows[i].size),
                                 &payload, why));
        assert_non_null(strstr(why, rows[i].word));
        assert_int_equal(0, payload.size);
        tandem_writer_release(&payload);
    }
    assert_shows("abc", state);
    model->state_free(state);
    world_free(world);
}

/* What the header says an edit costs. */
static void typing_costs_a_few_bytes(void **unused)
{
    struct world *world = world_open(1);
    void *state = fold(world, 0);

    edit(world, 0, state, 0, 0, "a");
    edit(world, 0, state, 1, 0, "b");
    assert_int_equal(15, world->made[1].payload.size);
    edit(world, 0, state, 1, 1, NULL);
    assert_int_equal(17, world->made[2].payload.size);
    edit(world, 1, state, 1, 0, "c");
    assert_int_equal(33, world->made[3].payload.size);
    edit(world, 1, state, 0, 1, NULL);
    assert_int_equal(34, world->made[4].payload.size);
    model->state_free(state);
    world_free(world);
}

static void typing_costs_less_within_a_job(void **unused)
{
    static const struct {
        uint64_t at, deleted;
        const char *inserted;
        size_t size;
    } rows[] = {{0, 0, "a", 4}, {1, 0, "b", 7}, {1, 1, NULL, 9}};
    struct world *world = world_open(1);
    void *state = fold(world, 0);
    uint8_t origin[TANDEM_ORIGIN_BYTES];

    origin_of(0, origin);
    for (uint32_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        tandem_intent intent = {
            .verb = tandem_slice_text("EDIT"), .index = i, .origin = origin};
        tandem_writer input, payload;
        char why[128] = "";

        tandem_writer_init(&input);
        tandem_writer_init(&payload);
        put_edit(&input, rows[i].at, rows[i].deleted, rows[i].inserted);
        intent.input = tandem_writer_slice(&input);
        assert_int_equal(TANDEM_OK, model->prepare(state, &intent, &payload, why));
        assert_int_equal(rows[i].size, payload.size);
        assert_int_equal(TANDEM_OK, model->pretend(state, &intent, tandem_writer_slice(&payload)));
        tandem_writer_release(&input);
        tandem_writer_release(&payload);
    }
    model->take_back(state);
    assert_shows("", state);
    model->state_free(state);
    world_free(world);
}

/* ---- Together ---- */

static void what_two_type_at_one_place_stays_together(void **unused)
{
    /* Forwards, backwards, and one of each. */
    for (unsigned way = 0; way < 4; way++) {
        struct world *world = world_open(way);
        void *state = fold(world, 0), *a, *b;
        char *text;

        edit(world, 0, state, 0, 0, "<>");
        model->state_free(state);
        tell(world, 0, 1);
        a = fold(world, 0);
        b = fold(world, 1);
        for (unsigned i = 0; i < 10; i++) {
            const char x[2] = {(char)('a' + i), 0}, y[2] = {(char)('A' + i), 0};

            edit(world, 0, a, way & 1 ? 1 : 1 + i, 0, x);
            edit(world, 1, b, way & 2 ? 1 : 1 + i, 0, y);
        }
        model->state_free(a);
        model->state_free(b);
        state = fold(world, AUTHORS);
        text = shown(state);
        assert_non_null(strstr(text, way & 1 ? "jihgfedcba" : "abcdefghij"));
        assert_non_null(strstr(text, way & 2 ? "JIHGFEDCBA" : "ABCDEFGHIJ"));
        free(text);
        model->state_free(state);
        world_free(world);
    }
}

static const char *random_text(struct world *world, char out[64])
{
    static const char *const letters[] = {"a", "b", "c", "\xc3\xa9", "\xe2\x82\xac",
                                          "\xf0\x9f\x8c\x8d", " ", "\n"};
    unsigned count = 1 + below(world, below(world, 8) ? 3 : 12);

    out[0] = '\0';
    while (count--)
        strcat(out, letters[below(world, sizeof(letters) / sizeof(letters[0]))]);
    return out;
}

static void random_edit(struct world *world, unsigned author, void *state)
{
    uint64_t length = length_of(state), at, deleted = 0;
    char text[64];

    at = below(world, (uint32_t)length + 1);
    if (length > at && below(world, 3) == 0)
        deleted = 1 + below(world, (uint32_t)(length - at < 6 ? length - at : 6));
    edit(world, author, state, at, deleted,
         deleted && below(world, 2) ? NULL : random_text(world, text));
}

/* What would be anchored where, at every position. */
static tandem_writer places(const void *state)
{
    uint64_t length = length_of(state);
    tandem_writer all, input;
    char why[128];

    tandem_writer_init(&all);
    tandem_writer_init(&input);
    for (uint64_t at = 0; at <= length; at++) {
        tandem_writer_clear(&input);
        put_edit(&input, at, 0, "x");
        assert_int_equal(TANDEM_OK, prepare(state, 0, 0, tandem_writer_slice(&input), &all, why));
    }
    tandem_writer_release(&input);
    return all;
}

static void assert_same(tandem_writer *a, tandem_writer *b)
{
    assert_true(tandem_slice_equal(tandem_writer_slice(a), tandem_writer_slice(b)));
    tandem_writer_release(a);
    tandem_writer_release(b);
}

/* A snapshot of a state, and what it is read back to, which takes the state's place. */
static void *through_snapshot(void *state)
{
    tandem_writer first, second, before = places(state), after;
    void *restored;

    tandem_writer_init(&first);
    tandem_writer_init(&second);
    assert_int_equal(TANDEM_OK, model->save(state, &first));
    assert_int_equal(TANDEM_OK, model->restore(tandem_writer_slice(&first), &restored));
    assert_int_equal(TANDEM_OK, model->save(restored, &second));
    assert_same(&first, &second);
    after = places(restored);
    assert_same(&before, &after);
    model->state_free(state);
    return restored;
}

/* Everybody edits what they know, and tells others now and then: in the end all show the same, and what
 * a list of characters shows. */
static void concurrent_edits_converge(void **unused)
{
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct world *world = world_open(seed);
        void *state;

        for (unsigned step = 0; step < 60; step++) {
            unsigned author = below(world, AUTHORS);

            tell(world, below(world, AUTHORS), author);
            state = fold(world, author);
            for (unsigned i = 1 + below(world, 4); i > 0; i--)
                random_edit(world, author, state);
            model->state_free(state);
        }
        state = fold(world, AUTHORS);
        assert_is_plain(world, state);
        state = through_snapshot(state);
        assert_is_plain(world, state);
        for (unsigned i = 1; i < AUTHORS; i++)
            tell(world, i, 0);
        random_edit(world, 0, state);
        assert_is_plain(world, state);
        model->state_free(state);
        world_free(world);
    }
}

/* One types and deletes for a while, through snapshots: the runs are split, joined and read back. */
static void a_long_session_is_folded_from_snapshots(void **unused)
{
    struct world *world = world_open(77);
    void *state = fold(world, 0);

    for (unsigned i = 0; i < OPERATIONS_MAX - 1; i++) {
        random_edit(world, 0, state);
        if (i % 7 == 0)
            state = through_snapshot(state);
    }
    assert_is_plain(world, state);
    model->state_free(state);
    world_free(world);
}

/* ---- Jobs ---- */

/* Several edits of one job: each is made on the state with those before it, which is then as it was; and
 * they are named by how far back they are. */
static void a_job_sees_its_own_edits(void **unused)
{
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct world *world = world_open(seed);
        void *state = fold(world, 0), *other;
        uint8_t origin[TANDEM_ORIGIN_BYTES];
        tandem_writer payloads[20], places_before, places_after;
        char *before, *with, text[64];
        unsigned count = 2 + below(world, 18);

        for (unsigned i = below(world, 8); i > 0; i--) {
            random_edit(world, i % 2, state);
            tell(world, i % 2, !(i % 2));
        }
        origin_of(0, origin);
        before = shown(state);
        places_before = places(state);
        for (unsigned i = 0; i < count; i++) {
            uint64_t length = length_of(state), at = below(world, (uint32_t)length + 1);
            uint64_t deleted = length > at && below(world, 2) ? 1 + below(world, (uint32_t)(length - at)) : 0;
            tandem_intent intent = {
                .verb = tandem_slice_text("EDIT"), .index = i, .origin = origin};
            tandem_writer input;
            char why[128] = "";

            tandem_writer_init(&input);
            tandem_writer_init(&payloads[i]);
            put_edit(&input, at, deleted, random_text(world, text));
            intent.input = tandem_writer_slice(&input);
            assert_int_equal(TANDEM_OK, model->prepare(state, &intent, &payloads[i], why));
            assert_int_equal(TANDEM_OK,
                             model->pretend(state, &intent, tandem_writer_slice(&payloads[i])));
            tandem_writer_release(&input);
        }
        with = shown(state);
        model->take_back(state);
        assert_shows(before, state);
        places_after = places(state);
        assert_same(&places_before, &places_after);
        for (unsigned i = 0; i < count; i++)
            assert_int_equal(TANDEM_OK, apply(state, add(world, 0, &payloads[i])));
        assert_shows(with, state);
        assert_is_plain(world, state);
        other = fold(world, AUTHORS);
        assert_shows(with, other);
        random_edit(world, 0, state);
        assert_is_plain(world, state);
        free(before);
        free(with);
        model->state_free(state);
        model->state_free(other);
        world_free(world);
    }
}

/* ---- The laws of models ---- */

static void draw(void *context, const char *verb, uint64_t random, char json[TANDEM_DRAWN_BYTES])
{
    unsigned at = (unsigned)(random % 5), deleted = (unsigned)(random / 5 % 3);

    snprintf(json, TANDEM_DRAWN_BYTES, "{\"at\": %u, \"delete\": %u, \"insert\": \"%s\"}", at, deleted,
             random / 15 % 3 ? "ab\xc3\xa9" : "");
}

static void it_keeps_the_laws_of_models(void **unused)
{
    static const char *const verbs[] = {"EDIT", NULL};
    tandem_model_check_options options = TANDEM_MODEL_CHECK_OPTIONS_INIT;
    char why[TANDEM_MODEL_WHY_BYTES] = "";

    options.verbs = verbs;
    options.draw = draw;
    options.seeds = 300;
    assert_int_equal(TANDEM_OK, tandem_model_check(model, &options, why));
    assert_string_equal("", why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(positions_are_code_points),
        cmocka_unit_test(what_cannot_be_is_refused_in_words),
        cmocka_unit_test(typing_costs_a_few_bytes),
        cmocka_unit_test(typing_costs_less_within_a_job),
        cmocka_unit_test(what_two_type_at_one_place_stays_together),
        cmocka_unit_test(concurrent_edits_converge),
        cmocka_unit_test(a_long_session_is_folded_from_snapshots),
        cmocka_unit_test(a_job_sees_its_own_edits),
        cmocka_unit_test(it_keeps_the_laws_of_models),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
