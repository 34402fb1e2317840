/*
 * The laws of models, run on one built-in model: its name is the argument.
 *
 * Every law folds random streams, each from a seed of its own that is printed when it fails. Values
 * are drawn in all forms of msgpack, not only in the shortest: payloads come from strangers. Some
 * laws call the model alone; others put histories into an operations store, index them and fold
 * them as a reactor does, and compare with a fold written anew here, in the fewest words.
 */
#include "tests/operation_maker.h"

#include <stdio.h>

#include "reactor/fold.h"
#include "reactor/model_check.h"
#include "reactor/runtime.h"
#include "tests/draw.h"

/* ---- Allocations that fail on request; sanitizers want the allocator for themselves ---- */

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define SANITIZED 1
#endif

#ifndef SANITIZED
static long allocations_left = -1; /* the one after these fails; below zero: none does */
static long allocations_live;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void __libc_free(void *old);

static bool allocation_fails(void)
{
    if (allocations_left < 0)
        return false;
    return allocations_left-- == 0;
}

void *malloc(size_t size)
{
    void *memory = allocation_fails() ? NULL : __libc_malloc(size);

    allocations_live += memory != NULL;
    return memory;
}

void *calloc(size_t count, size_t size)
{
    void *memory = allocation_fails() ? NULL : __libc_calloc(count, size);

    allocations_live += memory != NULL;
    return memory;
}

void *realloc(void *old, size_t size)
{
    void *memory = allocation_fails() ? NULL : __libc_realloc(old, size);

    allocations_live += memory != NULL && !old;
    return memory;
}

void free(void *old)
{
    allocations_live -= old != NULL;
    __libc_free(old);
}
#endif

/* ---- Randomness with a seed ---- */

struct dice {
    uint64_t seed; /* as given, to be printed */
    uint64_t state;
};

static struct dice dice_of(uint64_t seed)
{
    struct dice dice = {seed, seed * 0x9e3779b97f4a7c15u};
    return dice;
}

static uint64_t roll(struct dice *dice)
{
    return draw(&dice->state);
}

static uint32_t below(struct dice *dice, uint32_t limit)
{
    return (uint32_t)(roll(dice) % limit);
}

#define check(dice, condition) check_at(dice, condition, #condition, __LINE__)

static void check_at(const struct dice *dice, bool holds, const char *condition, int line)
{
    if (holds)
        return;
    print_error("seed %llu: not so: %s\n", (unsigned long long)dice->seed, condition);
    _fail(__FILE__, line);
}

static void put_byte(tandem_writer *out, unsigned byte)
{
    uint8_t bytes[1] = {(uint8_t)byte};

    tandem_write_raw(out, tandem_slice_of(bytes, 1));
}

static void put_wide(tandem_writer *out, unsigned first, uint64_t value, size_t size)
{
    uint8_t bytes[8];

    td_put_u64(bytes, value);
    put_byte(out, first);
    tandem_write_raw(out, tandem_slice_of(bytes + 8 - size, size));
}

static void put_random_bytes(struct dice *dice, tandem_writer *out, size_t size)
{
    while (size--)
        put_byte(out, (unsigned)roll(dice) & 0xff);
}

/* Few enough to meet again, of all lengths, not all of them UTF-8. */
static void put_random_key(struct dice *dice, tandem_writer *out)
{
    uint8_t key[300];
    uint32_t which = below(dice, 24);
    size_t size = which == 0 ? 0 : which < 16 ? 1 + which % 4 : which * 12;

    memset(key, 'a' + (int)which, sizeof(key));
    if (which == 9)
        key[0] = 0xff;
    switch (below(dice, 3)) {
    case 0:
        put_wide(out, 0xda, size, 2);
        break;
    case 1:
        put_wide(out, 0xdb, size, 4);
        break;
    default:
        tandem_write_string(out, tandem_slice_of(key, size));
        return;
    }
    tandem_write_raw(out, tandem_slice_of(key, size));
}

static int64_t random_int(struct dice *dice)
{
    static const int64_t edges[] = {0,         1,         -1,        -32,           -33, 127, 128,
                                    INT64_MAX, INT64_MIN, INT32_MAX, (int64_t)1 << 62};

    if (below(dice, 2))
        return edges[below(dice, sizeof(edges) / sizeof(edges[0]))];
    return (int64_t)roll(dice) >> below(dice, 64);
}

static void put_random_int(struct dice *dice, tandem_writer *out)
{
    int64_t value = random_int(dice);

    if (below(dice, 2))
        tandem_write_int(out, value);
    else
        put_wide(out, 0xd3, (uint64_t)value, 8);
}

static void put_random_scalar(struct dice *dice, tandem_writer *out)
{
    uint32_t size = below(dice, 40);

    switch (below(dice, 9)) {
    case 0:
        tandem_write_nil(out);
        break;
    case 1:
        tandem_write_bool(out, below(dice, 2));
        break;
    case 2:
        put_random_int(dice, out);
        break;
    case 3:
        put_wide(out, 0xcf, roll(dice), 8);
        break;
    case 4:
        put_wide(out, 0xca, roll(dice), 4);
        break;
    case 5:
        put_wide(out, 0xcb, below(dice, 4) ? roll(dice) : 0x7ff4000000000001u, 8);
        break;
    case 6:
        put_random_key(dice, out);
        break;
    case 7:
        put_wide(out, below(dice, 2) ? 0xc5 : 0xda, size, 2);
        put_random_bytes(dice, out, size);
        break;
    default:
        put_wide(out, 0xc7, size, 1);
        put_random_bytes(dice, out, size + 1);
        break;
    }
}

/* One valid value of at most depth levels. */
static void put_random_value(struct dice *dice, tandem_writer *out, unsigned depth)
{
    uint32_t count = below(dice, 4);
    uint32_t shape = below(dice, 8);

    if (below(dice, 40) == 0) /* as deep as it may be */
        for (; depth; depth--)
            tandem_write_array(out, 1);
    if (depth == 0 || shape < 4) {
        put_random_scalar(dice, out);
        return;
    }
    if (shape < 6) {
        put_wide(out, 0xdc, count, 2);
        while (count--)
            put_random_value(dice, out, depth - 1);
        return;
    }
    put_wide(out, 0xdf, count, 4);
    while (count--) {
        if (below(dice, 4))
            put_random_key(dice, out);
        else
            put_random_value(dice, out, depth - 1);
        put_random_value(dice, out, depth - 1);
    }
}

/* ---- The model under test, and inputs that it likes ---- */

struct subject {
    const tandem_model *model;
    const char *verbs[3];
    void (*put_input)(struct dice *dice, const char *verb, tandem_writer *out);
};

static void put_kv_input(struct dice *dice, const char *verb, tandem_writer *out)
{
    uint32_t count = below(dice, 7);

    if (strcmp(verb, "SET") != 0) {
        tandem_write_array(out, count);
        while (count--)
            put_random_key(dice, out);
        return;
    }
    put_wide(out, 0xde, count, 2);
    while (count--) {
        put_random_key(dice, out);
        put_random_value(dice, out, 4);
    }
}

static void put_counter_input(struct dice *dice, const char *verb, tandem_writer *out)
{
    (void)verb;
    put_random_int(dice, out);
}

static void put_log_input(struct dice *dice, const char *verb, tandem_writer *out)
{
    (void)verb;
    put_random_value(dice, out, TANDEM_PAYLOAD_DEPTH_MAX);
}

static const struct subject subjects[] = {
    {&tandem_model_kv, {"SET", "UNSET"}, put_kv_input},
    {&tandem_model_counter, {"ADD"}, put_counter_input},
    {&tandem_model_log, {"APPEND"}, put_log_input},
};

static const struct subject *subject;
static const tandem_model *model;

static const char *random_verb(struct dice *dice)
{
    return subject->verbs[1] && below(dice, 3) == 0 ? subject->verbs[1] : subject->verbs[0];
}

struct operation {
    const char *verb;
    tandem_writer payload;
};

/* Mostly what the model likes; else a value, or a verb, that it never asked for. */
static struct operation random_operation(struct dice *dice)
{
    static const char *const strange[] = {"", "SE", "SETS", "set", "ADD", "APPEND", "CREATE", "\n"};
    struct operation operation = {.verb = random_verb(dice)};
    uint32_t kind = below(dice, 10);

    tandem_writer_init(&operation.payload);
    if (kind == 0)
        operation.verb = strange[below(dice, sizeof(strange) / sizeof(strange[0]))];
    if (kind < 3)
        put_random_value(dice, &operation.payload, TANDEM_PAYLOAD_DEPTH_MAX);
    else
        subject->put_input(dice, operation.verb, &operation.payload);
    assert_int_equal(TANDEM_OK, tandem_msgpack_validate(tandem_writer_slice(&operation.payload),
                                                        TANDEM_PAYLOAD_DEPTH_MAX,
                                                        TANDEM_PAYLOAD_ITEMS_MAX));
    return operation;
}

static tandem_err apply_bytes(void *state, const char *verb, tandem_slice payload)
{
    static const uint8_t zeros[TANDEM_HASH_BYTES];
    tandem_change change = {
        .verb = tandem_slice_text(verb),
        .payload = payload,
        .hlc = 1,
        .origin = zeros,
        .seq = 1,
        .hash = zeros,
    };

    return model->apply(state, &change);
}

static tandem_err apply_to(void *state, const struct operation *operation)
{
    return apply_bytes(state, operation->verb, tandem_writer_slice(&operation->payload));
}

static tandem_err prepare_input(const void *state, const char *verb, tandem_slice input,
                                tandem_writer *payload, char why[128])
{
    static const uint8_t origin[TANDEM_ORIGIN_BYTES] = {1};
    const tandem_intent intent = {
        .verb = tandem_slice_text(verb), .input = input, .origin = origin};

    return model->prepare(state, &intent, payload, why);
}

static void *open_state(void)
{
    void *state = NULL;

    assert_int_equal(TANDEM_OK, model->state_open(&state));
    assert_non_null(state);
    return state;
}

static tandem_writer shown(const void *state)
{
    tandem_writer out;

    tandem_writer_init(&out);
    assert_int_equal(TANDEM_OK, model->show(state, &out));
    return out;
}

static tandem_writer saved(const void *state)
{
    tandem_writer out;

    tandem_writer_init(&out);
    assert_int_equal(TANDEM_OK, model->save(state, &out));
    return out;
}

static bool writers_equal(const tandem_writer *a, const tandem_writer *b)
{
    return tandem_slice_equal(tandem_writer_slice(a), tandem_writer_slice(b));
}

static bool states_equal(const void *a, const void *b)
{
    tandem_writer x = shown(a), y = shown(b);
    bool equal = writers_equal(&x, &y);

    tandem_writer_release(&x);
    tandem_writer_release(&y);
    return equal;
}

static void *random_state(struct dice *dice, unsigned operations)
{
    void *state = open_state();

    while (operations--) {
        struct operation operation = random_operation(dice);

        apply_to(state, &operation);
        tandem_writer_release(&operation.payload);
    }
    return state;
}

enum { SEEDS = 150, OPERATIONS = 40 };

/* ---- The laws ---- */

static void restoring_in_the_middle_equals_the_whole_fold(void **unused)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct dice dice = dice_of(seed);
        void *whole = random_state(&dice, below(&dice, OPERATIONS));
        tandem_writer snapshot = saved(whole), again;
        void *rest = NULL;

        check(&dice, model->restore(tandem_writer_slice(&snapshot), &rest) == TANDEM_OK);
        check(&dice, states_equal(whole, rest));
        again = saved(rest);
        check(&dice, writers_equal(&snapshot, &again));
        for (unsigned i = 0; i < OPERATIONS; i++) {
            struct operation operation = random_operation(&dice);
            tandem_err err = apply_to(whole, &operation);

            check(&dice, apply_to(rest, &operation) == err);
            check(&dice, states_equal(whole, rest));
            tandem_writer_release(&operation.payload);
        }
        tandem_writer_release(&snapshot);
        tandem_writer_release(&again);
        model->state_free(whole);
        model->state_free(rest);
    }
}

static void a_refused_operation_changes_nothing(void **unused)
{
    unsigned applied = 0, refused = 0;

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct dice dice = dice_of(seed);
        void *state = open_state();

        for (unsigned i = 0; i < OPERATIONS; i++) {
            struct operation operation = random_operation(&dice);
            tandem_writer before = shown(state), after;
            tandem_err err = apply_to(state, &operation);

            check(&dice, err == TANDEM_OK || err == TANDEM_E_INPUT);
            after = shown(state);
            if (err != TANDEM_OK)
                check(&dice, writers_equal(&before, &after));
            applied += err == TANDEM_OK;
            refused += err != TANDEM_OK;
            tandem_writer_release(&before);
            tandem_writer_release(&after);
            tandem_writer_release(&operation.payload);
        }
        model->state_free(state);
    }
    /* Or else the generator proves nothing. */
    assert_true(applied > SEEDS * OPERATIONS / 4);
    assert_true(refused > SEEDS);
}

static void show_is_canonical(void **unused)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct dice dice = dice_of(seed);
        void *state = random_state(&dice, below(&dice, OPERATIONS));
        tandem_writer out = shown(state), canonical;

        tandem_writer_init(&canonical);
        check(&dice, tandem_msgpack_validate(tandem_writer_slice(&out),
                                             TANDEM_PAYLOAD_DEPTH_MAX + 1,
                                             UINT32_MAX) == TANDEM_OK);
        check(&dice, tandem_write_canonical(&canonical, tandem_writer_slice(&out)) == TANDEM_OK);
        check(&dice, writers_equal(&out, &canonical));
        tandem_writer_release(&out);
        tandem_writer_release(&canonical);
        model->state_free(state);
    }
}

/* Accepted, and by the fold; or refused with a sentence, and nothing written. */
static void prepare_agrees_with_apply(void **unused)
{
    for (uint64_t seed = 1; seed <= SEEDS * 10; seed++) {
        struct dice dice = dice_of(seed);
        struct operation operation = random_operation(&dice);
        tandem_slice input = tandem_writer_slice(&operation.payload);
        void *state = open_state(), *other = open_state();
        tandem_writer payload, canonical;
        char why[128] = "";
        tandem_err err;

        tandem_writer_init(&payload);
        tandem_writer_init(&canonical);
        put_byte(&payload, 0x2a); /* prepare appends */
        err = prepare_input(model->prepare_reads_state ? state : NULL, operation.verb, input, &payload,
                            why);
        check(&dice, err == apply_to(other, &operation));
        if (err == TANDEM_OK) {
            tandem_slice made = tandem_slice_of(payload.bytes + 1, payload.size - 1);

            check(&dice, apply_bytes(state, operation.verb, made) == TANDEM_OK);
            check(&dice, states_equal(state, other));
            check(&dice, tandem_write_canonical(&canonical, made) == TANDEM_OK);
            check(&dice, tandem_slice_equal(made, tandem_writer_slice(&canonical)));
        } else {
            check(&dice, err == TANDEM_E_INPUT);
            check(&dice, payload.size == 1);
            check(&dice, why[0] && strlen(why) < 128);
        }
        tandem_writer_release(&payload);
        tandem_writer_release(&canonical);
        tandem_writer_release(&operation.payload);
        model->state_free(state);
        model->state_free(other);
    }
}

static void an_unknown_verb_is_refused_in_words(void **unused)
{
    static const char *const verbs[] = {"", "FOO", "set", "SE", "CREATE", "DELETE", "ADD "};
    static const uint8_t nil[] = {0xc0};

    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        void *state = open_state();
        tandem_writer payload;
        char why[128] = "";

        tandem_writer_init(&payload);
        assert_int_equal(TANDEM_E_INPUT,
                         prepare_input(state, verbs[i], tandem_slice_of(nil, 1), &payload, why));
        assert_int_equal(0, payload.size);
        assert_non_null(strstr(why, model->name));
        assert_int_equal(TANDEM_E_INPUT, apply_bytes(state, verbs[i], tandem_slice_of(nil, 1)));
        tandem_writer_release(&payload);
        model->state_free(state);
    }
}

/* The fold validates first; who calls a model himself may forget to. */
static void bytes_that_are_no_value_are_refused(void **unused)
{
    for (uint64_t seed = 1; seed <= SEEDS * 10; seed++) {
        struct dice dice = dice_of(seed);
        const char *verb = random_verb(&dice);
        void *state = random_state(&dice, 3);
        tandem_writer before = shown(state), after, bytes, payload;
        char why[128] = "";

        tandem_writer_init(&bytes);
        tandem_writer_init(&payload);
        subject->put_input(&dice, verb, &bytes);
        switch (below(&dice, 3)) {
        case 0:
            bytes.size = below(&dice, (uint32_t)bytes.size);
            break;
        case 1:
            put_random_scalar(&dice, &bytes);
            break;
        default: /* what msgpack does not have, in some place */
            if (bytes.size == 1)
                bytes.size = 0;
            else
                bytes.size = 1 + below(&dice, (uint32_t)bytes.size - 1);
            put_byte(&bytes, 0xc1);
            break;
        }
        if (tandem_msgpack_validate(tandem_writer_slice(&bytes), TANDEM_PAYLOAD_DEPTH_MAX,
                                    TANDEM_PAYLOAD_ITEMS_MAX) != TANDEM_OK) {
            check(&dice, apply_bytes(state, verb, tandem_writer_slice(&bytes)) == TANDEM_E_INPUT);
            check(&dice, prepare_input(state, verb, tandem_writer_slice(&bytes), &payload, why) ==
                              TANDEM_E_INPUT);
            check(&dice, why[0] && payload.size == 0);
        }
        after = shown(state);
        check(&dice, writers_equal(&before, &after));
        tandem_writer_release(&before);
        tandem_writer_release(&after);
        tandem_writer_release(&bytes);
        tandem_writer_release(&payload);
        model->state_free(state);
    }
}

/* Damage is noticed, or what is left is a state like any other. */
static void check_restored(struct dice *dice, tandem_slice snapshot)
{
    struct operation operation;
    tandem_writer out;
    void *state = NULL;
    tandem_err err = model->restore(snapshot, &state);

    check(dice, err == TANDEM_OK || err == TANDEM_E_CORRUPT);
    if (err != TANDEM_OK) {
        check(dice, state == NULL);
        return;
    }
    out = saved(state);
    check(dice, tandem_slice_equal(tandem_writer_slice(&out), snapshot));
    operation = random_operation(dice);
    err = apply_to(state, &operation);
    check(dice, err == TANDEM_OK || err == TANDEM_E_INPUT);
    tandem_writer_release(&out);
    tandem_writer_release(&operation.payload);
    model->state_free(state);
}

static void a_damaged_snapshot_is_noticed_or_valid(void **unused)
{
    for (uint64_t seed = 1; seed <= SEEDS / 5; seed++) {
        struct dice dice = dice_of(seed);
        void *state = random_state(&dice, below(&dice, 12)), *restored = NULL;
        tandem_writer snapshot = saved(state);

        /* One value cut short, or with something behind it, is not one value. */
        for (size_t size = 0; size < snapshot.size; size++)
            check(&dice, model->restore(tandem_slice_of(snapshot.bytes, size), &restored) ==
                             TANDEM_E_CORRUPT);
        for (size_t at = 0; at < snapshot.size; at++) {
            uint8_t kept = snapshot.bytes[at];

            snapshot.bytes[at] ^= (uint8_t)(1u << below(&dice, 8));
            check_restored(&dice, tandem_writer_slice(&snapshot));
            snapshot.bytes[at] = kept;
        }
        put_byte(&snapshot, 0xc0);
        check(&dice, model->restore(tandem_writer_slice(&snapshot), &restored) == TANDEM_E_CORRUPT);
        check(&dice, restored == NULL);
        tandem_writer_release(&snapshot);
        model->state_free(state);
    }
}

/* ---- Histories: what several origins did to two documents ---- */

enum { HISTORY_MAX = 72, HISTORIES = 60, ARRIVALS = 4, CHAINS = 4, DOCUMENTS = 2, STREAMS = 4 };

static const char *const documents[DOCUMENTS] = {"d", "e"};
static const struct {
    const char *branch, *scope;
} streams[STREAMS] = {{"main", "global"}, {"main", "x"}, {"b", "global"}, {"b", "x"}};

struct history {
    struct made made[HISTORY_MAX];
    size_t count;
    struct maker chains[CHAINS];
    uint32_t origins;
};

static void history_init(struct history *history)
{
    memset(history, 0, sizeof(*history));
    while (history->origins < CHAINS) {
        maker_init(&history->chains[history->origins], "c", history->origins + 1);
        history->origins++;
    }
}

static void history_release(struct history *history)
{
    made_release(history->made, history->count);
}

/*
 * What msgpack can do to a reader that trusts it. All are refused by the bounded reader; of some
 * the claim alone is a bomb, others are as large as they say.
 */
static void put_bomb(struct dice *dice, tandem_writer *out)
{
    static const uint8_t firsts[] = {0xc6, 0xc9, 0xdb, 0xdd, 0xdf};
    uint32_t kind = below(dice, 8), count;

    switch (kind) {
    case 0: /* too deep */
        for (count = TANDEM_PAYLOAD_DEPTH_MAX + 1 + below(dice, 5000); count; count--)
            put_byte(out, 0x91);
        put_byte(out, 0xc0);
        break;
    case 1: /* too deep, in keys */
        for (count = TANDEM_PAYLOAD_DEPTH_MAX + 1 + below(dice, 50); count; count--)
            put_byte(out, 0x81);
        break;
    case 2: /* too many */
        put_wide(out, 0xdd, TANDEM_PAYLOAD_ITEMS_MAX + 1, 4);
        for (count = TANDEM_PAYLOAD_ITEMS_MAX + 1; count; count--)
            put_byte(out, 0xc0);
        break;
    default: /* a claim of up to 4 GiB */
        put_wide(out, firsts[kind - 3], UINT32_MAX - below(dice, 3), 4);
        put_random_bytes(dice, out, below(dice, 20));
        break;
    }
}

static const struct subject *other_subject(struct dice *dice)
{
    const struct subject *other;

    do
        other = &subjects[below(dice, sizeof(subjects) / sizeof(subjects[0]))];
    while (other == subject);
    return other;
}

static void put_input_cut_short(struct dice *dice, tandem_writer *out)
{
    size_t before = out->size;

    subject->put_input(dice, subject->verbs[0], out);
    out->size = before + below(dice, (uint32_t)(out->size - before));
}

/* One operation by an origin with a chain, or by one that makes no other. */
static void history_add(struct history *history, struct dice *dice, uint64_t flags,
                        const char *document, const char *branch, const char *scope,
                        const char *type, tandem_writer *payload)
{
    struct maker *maker = &history->chains[below(dice, CHAINS)], single;
    /* Few moments, so that there are ties, and no wish to follow the chain. */
    uint64_t hlc = 1000 + below(dice, 60);

    assert_true(history->count < HISTORY_MAX);
    if (below(dice, 2)) {
        maker_init(&single, "c", ++history->origins);
        maker = &single;
    } else if (below(dice, 12) == 0) { /* a copied folder: a fork, the same moment and place */
        *maker = history->chains[below(dice, CHAINS)];
    }
    make_flagged(maker, flags, hlc, document, branch, scope, type, tandem_writer_slice(payload),
                 &history->made[history->count++]);
    tandem_writer_release(payload);
}

static void add_lifecycle(struct history *history, struct dice *dice, const char *document)
{
    const char *name = below(dice, 5) ? model->name : other_subject(dice)->model->name;
    const char *verb = below(dice, 7) == 0 ? "SET" : below(dice, 3) ? "CREATE" : "DELETE";
    tandem_writer payload;
    char type[32];

    snprintf(type, sizeof(type), "%s.%s", name, verb);
    tandem_writer_init(&payload);
    put_random_bytes(dice, &payload, below(dice, 3));
    history_add(history, dice, 0, document, streams[below(dice, STREAMS)].branch,
                TD_SCOPE_DOCUMENT, type, &payload);
}

/* What no fold may apply, whatever the model is. */
static void add_foreign(struct history *history, struct dice *dice, const char *document,
                        const char *branch, const char *scope)
{
    static const char *const verbs[] = {"CREATE", "DELETE", "GROW", "set", "SETS"};
    const char *name = model->name, *verb = random_verb(dice);
    const struct subject *other;
    tandem_writer payload;
    uint64_t flags = 0;
    char type[32];

    tandem_writer_init(&payload);
    switch (below(dice, 7)) {
    case 0:
        put_bomb(dice, &payload);
        break;
    case 1: /* a byte that msgpack does not have, and anything behind it */
        put_byte(&payload, 0xc1);
        put_random_bytes(dice, &payload, below(dice, 200));
        break;
    case 2:
        put_input_cut_short(dice, &payload);
        break;
    case 3: /* one value more */
        subject->put_input(dice, verb, &payload);
        put_random_scalar(dice, &payload);
        break;
    case 4:
        subject->put_input(dice, verb, &payload);
        verb = verbs[below(dice, sizeof(verbs) / sizeof(verbs[0]))];
        break;
    case 5:
        subject->put_input(dice, verb, &payload);
        flags = TD_FLAG_SEALED;
        break;
    default:
        other = other_subject(dice);
        name = other->model->name;
        verb = other->verbs[0];
        other->put_input(dice, verb, &payload);
        break;
    }
    snprintf(type, sizeof(type), "%s.%s", name, verb);
    history_add(history, dice, flags, document, branch, scope, type, &payload);
}

/* What the model likes, mostly; else the payload of another model, or bytes that mean nothing. */
static void add_change(struct history *history, struct dice *dice, const char *document,
                       const char *branch, const char *scope)
{
    const char *verb = random_verb(dice);
    tandem_writer payload;
    char type[32];

    tandem_writer_init(&payload);
    switch (below(dice, 10)) {
    case 0:
        other_subject(dice)->put_input(dice, verb, &payload);
        break;
    case 1:
        put_random_bytes(dice, &payload, below(dice, 40));
        break;
    case 2:
        put_random_value(dice, &payload, TANDEM_PAYLOAD_DEPTH_MAX);
        break;
    default:
        subject->put_input(dice, verb, &payload);
        break;
    }
    snprintf(type, sizeof(type), "%s.%s", model->name, verb);
    history_add(history, dice, 0, document, branch, scope, type, &payload);
}

static void random_history(struct dice *dice, struct history *history)
{
    history_init(history);
    while (history->count < HISTORY_MAX) {
        const char *document = documents[below(dice, DOCUMENTS)];
        uint32_t stream = below(dice, STREAMS);

        if (below(dice, 6) == 0)
            add_lifecycle(history, dice, document);
        else if (below(dice, 5) == 0)
            add_foreign(history, dice, document, streams[stream].branch, streams[stream].scope);
        else
            add_change(history, dice, document, streams[stream].branch, streams[stream].scope);
    }
}

/* ---- The same, folded from DESIGN.md's words ---- */

static bool is(tandem_slice slice, const char *text)
{
    return tandem_slice_equal(slice, tandem_slice_text(text));
}

static int in_total_order(const void *a, const void *b)
{
    const td_operation *x = &((const struct made *)a)->operation;
    const td_operation *y = &((const struct made *)b)->operation;
    int origins = memcmp(x->origin, y->origin, TANDEM_ORIGIN_BYTES);

    if (x->hlc != y->hlc)
        return x->hlc < y->hlc ? -1 : 1;
    if (origins)
        return origins;
    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return memcmp(x->hash, y->hash, TANDEM_HASH_BYTES);
}

/* A document's life: of which model it is, and from which place in the order it counts. */
struct life {
    char model[32]; /* "" until created */
    bool deleted;
    size_t epoch; /* in the sorted history */
};

static struct life life_of(const struct history *history, const char *document)
{
    struct life life = {.epoch = 0};

    for (size_t i = 0; i < history->count; i++) {
        const td_operation *operation = &history->made[i].operation;
        tandem_slice name = td_type_model(operation->type);
        bool create = is(td_type_verb(operation->type), "CREATE");

        if (!is(operation->document, document) || !is(operation->scope, TD_SCOPE_DOCUMENT))
            continue;
        if (!life.model[0]) {
            if (!create)
                continue;
            memcpy(life.model, name.bytes, name.size);
            life.epoch = i;
        } else if (!is(name, life.model)) {
            continue;
        } else if (create && life.deleted) {
            life.deleted = false;
            life.epoch = i;
        }
        life.deleted |= is(td_type_verb(operation->type), "DELETE");
    }
    return life;
}

static bool in_stream(const td_operation *operation, const char *document, unsigned stream)
{
    return is(operation->document, document) && is(operation->branch, streams[stream].branch) &&
           is(operation->scope, streams[stream].scope);
}

static void apply_as_designed(const tandem_model *of, void *state, const td_operation *operation)
{
    tandem_change change = {td_type_verb(operation->type), operation->payload, operation->hlc,
                            operation->origin, operation->seq, operation->hash};

    if (is(change.verb, "CREATE") || is(change.verb, "DELETE") ||
        operation->flags & TD_FLAG_SEALED || !is(td_type_model(operation->type), of->name) ||
        tandem_msgpack_validate(operation->payload, TANDEM_PAYLOAD_DEPTH_MAX,
                                TANDEM_PAYLOAD_ITEMS_MAX) != TANDEM_OK)
        return;
    of->apply(state, &change);
}

static const tandem_model *model_named(const char *name)
{
    for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++)
        if (strcmp(subjects[i].model->name, name) == 0)
            return subjects[i].model;
    return NULL;
}

/* As folded() writes it. The history is sorted. */
static tandem_writer folded_as_designed(const struct history *history)
{
    tandem_writer out;

    tandem_writer_init(&out);
    for (unsigned d = 0; d < DOCUMENTS; d++) {
        struct life life = life_of(history, documents[d]);
        const tandem_model *of = model_named(life.model);

        tandem_write_text(&out, life.model);
        tandem_write_bool(&out, life.deleted);
        for (unsigned s = 0; of && s < STREAMS; s++) {
            uint64_t entries = 0;
            void *state;

            assert_int_equal(TANDEM_OK, of->state_open(&state));
            for (size_t i = 0; i < history->count; i++) {
                if (!in_stream(&history->made[i].operation, documents[d], s))
                    continue;
                entries++;
                if (i > life.epoch)
                    apply_as_designed(of, state, &history->made[i].operation);
            }
            tandem_write_uint(&out, entries);
            assert_int_equal(TANDEM_OK, of->show(state, &out));
            of->state_free(state);
        }
    }
    return out;
}

/* ---- The same, folded by the reactor's parts ---- */

static td_simulation *simulation;
static td_runtime *runtime;

struct replica {
    td_op_store *ops;
    td_stream_index *index;
    td_model_registry *registry;
    td_folder *folder;
};

static struct replica replica_open(unsigned states_max)
{
    struct replica r;
    td_store *store;

    assert_int_equal(TANDEM_OK, td_memory_store_open(runtime->env, NULL, td_op_store_tables,
                                                     td_op_store_table_count, &store));
    assert_int_equal(TANDEM_OK, td_op_store_open(runtime->env, store, &r.ops));
    assert_int_equal(TANDEM_OK, td_memory_store_open(runtime->env, NULL, td_stream_index_tables,
                                                     td_stream_index_table_count, &store));
    assert_int_equal(TANDEM_OK, td_stream_index_open(runtime->env, store, r.ops, &r.index));
    assert_int_equal(TANDEM_OK, td_model_registry_open(&r.registry));
    assert_int_equal(TANDEM_OK, td_folder_open(r.ops, r.registry, states_max, &r.folder));
    return r;
}

static void replica_free(struct replica *r)
{
    td_folder_free(r->folder);
    td_model_registry_free(r->registry);
    td_stream_index_free(r->index);
    td_op_store_free(r->ops);
}

static void replica_index(struct replica *r)
{
    uint64_t position;
    bool current;

    assert_int_equal(TANDEM_OK,
                     td_stream_index_advance(r->index, HISTORY_MAX, &position, &current));
    assert_true(current);
}

static td_fold fold(struct replica *r, unsigned document, const td_document_info *info,
                    unsigned stream, bool keep)
{
    td_fold found;
    char why[TD_WHY_BYTES];

    assert_int_equal(TANDEM_OK,
                     td_folder_fold(r->folder, r->index, tandem_slice_text("c"),
                                    tandem_slice_text(documents[document]), info,
                                    tandem_slice_text(streams[stream].branch),
                                    tandem_slice_text(streams[stream].scope), keep, &found, why));
    return found;
}

static td_document_info info_of(struct replica *r, unsigned document)
{
    td_document_info info;

    assert_int_equal(TANDEM_OK,
                     td_stream_index_document(r->index, tandem_slice_text("c"),
                                              tandem_slice_text(documents[document]), &info));
    return info;
}

/* All that is to be equal on all replicas. */
static tandem_writer folded(struct replica *r)
{
    tandem_writer out;

    tandem_writer_init(&out);
    for (unsigned d = 0; d < DOCUMENTS; d++) {
        td_document_info info = info_of(r, d);

        tandem_write_text(&out, info.model);
        tandem_write_bool(&out, info.deleted);
        for (unsigned s = 0; info.created && s < STREAMS; s++) {
            td_fold found = fold(r, d, &info, s, true);

            tandem_write_uint(&out, found.entries);
            assert_int_equal(TANDEM_OK, found.model->show(found.state, &out));
        }
    }
    return out;
}

/* The bytes of state are what the stream is folded to up to and including place. */
static void leave_snapshot(struct replica *r, unsigned document, unsigned stream,
                           const td_place *place, uint64_t entries, const tandem_model *of,
                           const void *state)
{
    td_snapshot snapshot = {*place, entries, of->version, {NULL, 0}};
    tandem_writer bytes;

    tandem_writer_init(&bytes);
    assert_int_equal(TANDEM_OK, of->save(state, &bytes));
    snapshot.bytes = tandem_writer_slice(&bytes);
    assert_int_equal(TANDEM_OK,
                     td_stream_index_put_snapshot(r->index, tandem_slice_text("c"),
                                                  tandem_slice_text(documents[document]),
                                                  tandem_slice_text(streams[stream].branch),
                                                  tandem_slice_text(streams[stream].scope),
                                                  &snapshot));
    tandem_writer_release(&bytes);
}

/* A read on the way: leaves a state in memory, and perhaps a snapshot, that the next arrivals may
 * make wrong. */
static void read_something(struct replica *r, struct dice *dice)
{
    unsigned document = below(dice, DOCUMENTS), stream = below(dice, STREAMS);
    td_document_info info;
    td_fold found;

    replica_index(r);
    info = info_of(r, document);
    if (!info.created)
        return;
    found = fold(r, document, &info, stream, below(dice, 4) != 0);
    if (memcmp(&found.place, &info.epoch, sizeof(found.place)) > 0 && below(dice, 2))
        leave_snapshot(r, document, stream, &found.place, found.entries, found.model, found.state);
}

/* In random order, as far as chains let it be; some come twice. */
static void arrive_in_any_order(struct replica *r, const struct history *history,
                                struct dice *dice)
{
    size_t order[HISTORY_MAX], held = 0;
    bool is_held[HISTORY_MAX] = {false};

    shuffle(order, history->count, roll(dice));
    while (held < history->count) {
        size_t before = held;

        for (size_t i = 0; i < history->count; i++) {
            td_append_result result;
            tandem_err err;

            if (is_held[order[i]] && below(dice, 8))
                continue;
            assert_int_equal(TANDEM_OK, td_op_store_begin(r->ops));
            err = td_op_store_append(r->ops, &history->made[order[i]].operation, 1, &result);
            assert_true(err == TANDEM_OK || err == TANDEM_E_PREDECESSOR);
            assert_int_equal(TANDEM_OK, td_op_store_commit(r->ops));
            held += err == TANDEM_OK && !is_held[order[i]];
            is_held[order[i]] |= err == TANDEM_OK;
            if (below(dice, 6) == 0)
                read_something(r, dice);
        }
        assert_true(held > before);
    }
    replica_index(r);
}

static void sort(struct history *history)
{
    qsort(history->made, history->count, sizeof(history->made[0]), in_total_order);
}

static void any_order_of_arrival_gives_the_same_bytes(void **unused)
{
    for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
        struct dice dice = dice_of(seed);
        static struct history history;
        tandem_writer designed;

        random_history(&dice, &history);
        sort(&history);
        designed = folded_as_designed(&history);
        for (unsigned arrival = 0; arrival < ARRIVALS; arrival++) {
            /* With all states in memory, or only some. */
            struct replica r = replica_open(DOCUMENTS * STREAMS >> arrival);
            tandem_writer warm, cold;

            arrive_in_any_order(&r, &history, &dice);
            warm = folded(&r);
            td_folder_clear(r.folder);
            cold = folded(&r);
            check(&dice, writers_equal(&designed, &warm));
            check(&dice, writers_equal(&designed, &cold));
            tandem_writer_release(&warm);
            tandem_writer_release(&cold);
            replica_free(&r);
        }
        tandem_writer_release(&designed);
        history_release(&history);
    }
}

/* A document of the model under test, and count operations in its first stream. */
static void simple_history(struct dice *dice, struct history *history, size_t count)
{
    char type[32];

    history_init(history);
    snprintf(type, sizeof(type), "%s.CREATE", model->name);
    make_single("c", ++history->origins, 1, documents[0], "main", TD_SCOPE_DOCUMENT, type,
                &history->made[history->count++]);
    while (history->count <= count)
        add_change(history, dice, documents[0], streams[0].branch, streams[0].scope);
}

static void check_shows(const struct dice *dice, struct replica *r, uint64_t entries,
                        const void *state)
{
    td_document_info info = info_of(r, 0);
    td_fold found = fold(r, 0, &info, 0, false);

    check(dice, found.entries == entries);
    check(dice, states_equal(found.state, state));
}

static void a_snapshot_at_any_cut_and_the_rest_equal_the_whole_fold(void **unused)
{
    for (uint64_t seed = 1; seed <= HISTORIES / 2; seed++) {
        struct dice dice = dice_of(seed);
        static struct history history;
        struct replica r = replica_open(1);
        void *whole = open_state(), *part = open_state();

        simple_history(&dice, &history, OPERATIONS);
        arrive_in_any_order(&r, &history, &dice);
        sort(&history);
        for (size_t i = 1; i < history.count; i++)
            apply_as_designed(model, whole, &history.made[i].operation);
        for (size_t cut = 1; cut < history.count; cut++) {
            const td_operation *last = &history.made[cut].operation;
            td_place place;

            td_put_u64(place.bytes, last->hlc);
            memcpy(place.bytes + 8, last->origin, TANDEM_ORIGIN_BYTES);
            td_put_u64(place.bytes + 8 + TANDEM_ORIGIN_BYTES, last->seq);
            memcpy(place.bytes + 16 + TANDEM_ORIGIN_BYTES, last->hash, 16);
            apply_as_designed(model, part, last);
            leave_snapshot(&r, 0, 0, &place, cut, model, part);
            check_shows(&dice, &r, history.count - 1, whole);
        }
        model->state_free(whole);
        model->state_free(part);
        replica_free(&r);
        history_release(&history);
    }
}

static void what_strangers_send_is_a_no_op_that_counts(void **unused)
{
    for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
        struct dice dice = dice_of(seed);
        static struct history history;
        struct replica r = replica_open(1);
        td_document_info info;
        tandem_writer before;
        td_fold found;

        simple_history(&dice, &history, OPERATIONS / 2);
        arrive_in_any_order(&r, &history, &dice);
        info = info_of(&r, 0);
        found = fold(&r, 0, &info, 0, false);
        before = shown(found.state);
        while (history.count < HISTORY_MAX)
            add_foreign(&history, &dice, documents[0], streams[0].branch, streams[0].scope);
        arrive_in_any_order(&r, &history, &dice);
        info = info_of(&r, 0);
        found = fold(&r, 0, &info, 0, false);
        check(&dice, found.entries == HISTORY_MAX - 1);
        {
            tandem_writer after = shown(found.state);

            check(&dice, writers_equal(&before, &after));
            tandem_writer_release(&after);
        }
        tandem_writer_release(&before);
        replica_free(&r);
        history_release(&history);
    }
}

/* As anybody checks a model of his own: with values of all shapes, as JSON cannot write them all. */
static void the_check_for_models_of_ones_own_finds_nothing(void **unused)
{
    tandem_model_check_options options = TANDEM_MODEL_CHECK_OPTIONS_INIT;
    char why[TANDEM_MODEL_WHY_BYTES];

    options.verbs = subject->verbs; /* with NULL behind the last */
    if (tandem_model_check(model, &options, why) != TANDEM_OK)
        fail_msg("%s", why);
}

static int runtime_open(void **unused)
{
    assert_int_equal(TANDEM_OK, td_simulation_open(1, &simulation));
    assert_int_equal(TANDEM_OK, td_simulation_runtime(simulation, "a", 0, &runtime));
    return 0;
}

static int runtime_free(void **unused)
{
    td_runtime_free(runtime);
    td_simulation_free(simulation);
    return 0;
}

#ifndef SANITIZED
/* An input that the model takes, and large enough to make its tables and buffers grow. */
static struct operation large_operation(unsigned start, unsigned count)
{
    struct operation operation = {.verb = subject->verbs[0]};

    tandem_writer_init(&operation.payload);
    if (model == &tandem_model_counter) {
        tandem_write_int(&operation.payload, count);
        return operation;
    }
    tandem_write_map(&operation.payload, count);
    for (unsigned i = start; i < start + count; i++) {
        char key[32];

        snprintf(key, sizeof(key), "key %u", i);
        tandem_write_text(&operation.payload, key);
        tandem_write_uint(&operation.payload, start);
    }
    return operation;
}

/*
 * Each allocation of the call under test fails once: this is the loop's end, when the call came
 * through with failures to spare. A call may also come through without (qsort needs no memory).
 */
static bool all_have_failed(void)
{
    bool spare = allocations_left >= 0;

    allocations_left = -1;
    return spare;
}

static void running_out_of_memory_changes_nothing(void **unused)
{
    struct operation first = large_operation(0, 100), second = large_operation(50, 400);
    void *done = open_state();
    bool finished = false;
    long refused = 0;

    assert_int_equal(TANDEM_OK, apply_to(done, &first));
    assert_int_equal(TANDEM_OK, apply_to(done, &second));
    for (long failing = 0; !finished; failing++) {
        void *state = open_state();
        tandem_writer before, after;
        tandem_err err;
        long live;

        assert_int_equal(TANDEM_OK, apply_to(state, &first));
        before = shown(state);
        live = allocations_live;
        allocations_left = failing;
        err = apply_to(state, &second);
        finished = all_have_failed();
        if (err != TANDEM_OK) {
            assert_int_equal(TANDEM_E_NOMEM, err);
            assert_int_equal(live, allocations_live);
            after = shown(state);
            assert_true(writers_equal(&before, &after));
            tandem_writer_release(&after);
            refused++;
            assert_int_equal(TANDEM_OK, apply_to(state, &second));
        }
        assert_true(states_equal(state, done));
        tandem_writer_release(&before);
        model->state_free(state);
    }
    assert_true(model == &tandem_model_counter || refused > 0);
    tandem_writer_release(&first.payload);
    tandem_writer_release(&second.payload);
    model->state_free(done);
}

static void running_out_of_memory_while_restoring_leaks_nothing(void **unused)
{
    struct operation first = large_operation(0, 400);
    void *state = open_state();
    bool finished = false;
    tandem_writer snapshot;
    long refused = 0;

    assert_int_equal(TANDEM_OK, apply_to(state, &first));
    snapshot = saved(state);
    for (long failing = 0; !finished; failing++) {
        long live = allocations_live;
        void *restored = NULL;
        tandem_err err;

        allocations_left = failing;
        err = model->restore(tandem_writer_slice(&snapshot), &restored);
        finished = all_have_failed();
        if (err != TANDEM_OK) {
            assert_int_equal(TANDEM_E_NOMEM, err);
            assert_null(restored);
            refused++;
        } else {
            assert_true(states_equal(state, restored));
            model->state_free(restored);
        }
        assert_int_equal(live, allocations_live);
    }
    assert_true(refused > 0);
    tandem_writer_release(&snapshot);
    tandem_writer_release(&first.payload);
    model->state_free(state);
}

static void running_out_of_memory_while_showing_is_told(void **unused)
{
    struct operation first = large_operation(0, 400);
    void *state = open_state();
    tandem_writer whole;
    bool finished = false;
    long refused = 0;

    assert_int_equal(TANDEM_OK, apply_to(state, &first));
    whole = shown(state);
    for (long failing = 0; !finished; failing++) {
        long live = allocations_live;
        tandem_writer out;
        tandem_err err;

        tandem_writer_init(&out);
        allocations_left = failing;
        err = model->show(state, &out);
        finished = all_have_failed();
        if (err == TANDEM_OK)
            assert_true(writers_equal(&whole, &out));
        else
            assert_int_equal(TANDEM_E_NOMEM, err);
        refused += err != TANDEM_OK;
        tandem_writer_release(&out);
        assert_int_equal(live, allocations_live);
    }
    assert_true(refused > 0);
    tandem_writer_release(&whole);
    tandem_writer_release(&first.payload);
    model->state_free(state);
}
#endif

/* ---- What is each model's own ---- */

/* Apply a payload given as bytes, and expect err. */
static void apply_expecting(tandem_err err, void *state, const char *verb, const char *bytes,
                            size_t size)
{
    assert_int_equal(err, apply_bytes(state, verb, tandem_slice_of(bytes, size)));
}
#define APPLY(err, state, verb, bytes) apply_expecting(err, state, verb, bytes, sizeof(bytes) - 1)

static void shows(const void *state, const char *bytes, size_t size)
{
    tandem_writer out = shown(state);

    assert_int_equal(size, out.size);
    assert_memory_equal(bytes, out.bytes, size);
    tandem_writer_release(&out);
}
#define SHOWS(state, bytes) shows(state, bytes, sizeof(bytes) - 1)

static void tells(const char *verb, const char *input, size_t size, const char *sentence)
{
    tandem_writer payload;
    char why[128] = "";

    tandem_writer_init(&payload);
    assert_int_equal(TANDEM_E_INPUT, prepare_input(NULL, verb, tandem_slice_of(input, size), &payload,
                                                   why));
    assert_string_equal(sentence, why);
    tandem_writer_release(&payload);
}
#define TELLS(verb, input, sentence) tells(verb, input, sizeof(input) - 1, sentence)

static void kv_sets_unsets_and_sorts(void **unused)
{
    void *kv = open_state();

    SHOWS(kv, "\x80");
    APPLY(TANDEM_OK, kv, "SET", "\x82\xa1z\x01\xa1" "a\xc0");
    SHOWS(kv, "\x82\xa1" "a\xc0\xa1z\x01");
    APPLY(TANDEM_OK, kv, "SET", "\x82\xa0\xd1\x00\x07\xa1z\x02");
    SHOWS(kv, "\x83\xa0\x07\xa1" "a\xc0\xa1z\x02");
    APPLY(TANDEM_OK, kv, "UNSET", "\x93\xa1" "a\xa7missing\xa1" "a");
    SHOWS(kv, "\x82\xa0\x07\xa1z\x02");
    APPLY(TANDEM_OK, kv, "UNSET", "\x92\xa0\xa1z");
    SHOWS(kv, "\x80");
    APPLY(TANDEM_OK, kv, "SET", "\x81\xa1q\xc3");
    SHOWS(kv, "\x81\xa1q\xc3");
    APPLY(TANDEM_OK, kv, "SET", "\x80");
    APPLY(TANDEM_OK, kv, "UNSET", "\x90");
    SHOWS(kv, "\x81\xa1q\xc3");
    model->state_free(kv);
}

static void kv_of_equal_keys_in_one_set_the_last_wins(void **unused)
{
    void *kv = open_state();

    APPLY(TANDEM_OK, kv, "SET", "\x83\xa1k\x01\xd9\x01k\x02\xa1k\x03");
    SHOWS(kv, "\x81\xa1k\x03");
    model->state_free(kv);
}

static void kv_checks_all_of_a_payload_before_it_changes_any(void **unused)
{
    void *kv = open_state();

    APPLY(TANDEM_OK, kv, "SET", "\x82\xa1" "a\x01\xa1" "b\x02");
    APPLY(TANDEM_E_INPUT, kv, "SET", "\x82\xa1" "a\x09\x05\x09");
    APPLY(TANDEM_E_INPUT, kv, "UNSET", "\x92\xa1" "a\x05");
    APPLY(TANDEM_E_INPUT, kv, "UNSET", "\x91\xa1" "a\xc0");
    APPLY(TANDEM_E_INPUT, kv, "SET", "\x81\xa1" "a\x09\xc0");
    APPLY(TANDEM_E_INPUT, kv, "SET", "");
    SHOWS(kv, "\x82\xa1" "a\x01\xa1" "b\x02");
    model->state_free(kv);
}

static void kv_tells_what_is_wrong(void **unused)
{
    TELLS("SET", "\x90", "kv.SET takes an object, not an array");
    TELLS("SET", "\x81\x01\x01", "kv.SET takes strings as keys, not an integer");
    TELLS("UNSET", "\x80", "kv.UNSET takes an array of keys, not an object");
    TELLS("UNSET", "\x91\xc3", "kv.UNSET takes strings as keys, not a boolean");
    TELLS("DROP", "\xc0", "kv has no such operation; it takes SET and UNSET");
}

static void counter_adds_and_what_would_overflow_is_a_no_op(void **unused)
{
    void *counter = open_state();

    SHOWS(counter, "\x00");
    APPLY(TANDEM_OK, counter, "ADD", "\xcf\x7f\xff\xff\xff\xff\xff\xff\xfe");
    APPLY(TANDEM_OK, counter, "ADD", "\xd1\x00\x01");
    SHOWS(counter, "\xcf\x7f\xff\xff\xff\xff\xff\xff\xff");
    APPLY(TANDEM_E_INPUT, counter, "ADD", "\x01");
    SHOWS(counter, "\xcf\x7f\xff\xff\xff\xff\xff\xff\xff");
    APPLY(TANDEM_OK, counter, "ADD", "\xd3\x80\x00\x00\x00\x00\x00\x00\x00");
    SHOWS(counter, "\xff");
    APPLY(TANDEM_E_INPUT, counter, "ADD", "\xd3\x80\x00\x00\x00\x00\x00\x00\x00");
    APPLY(TANDEM_E_INPUT, counter, "ADD", "\xcf\x80\x00\x00\x00\x00\x00\x00\x00");
    APPLY(TANDEM_E_INPUT, counter, "ADD", "\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00");
    SHOWS(counter, "\xff");
    model->state_free(counter);
}

static void counter_tells_what_is_wrong(void **unused)
{
    TELLS("ADD", "\xa1" "1", "counter.ADD takes an integer, not a string");
    TELLS("ADD", "\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
          "counter.ADD takes an integer, not a real number");
    TELLS("ADD", "\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
          "counter.ADD takes an integer up to 9223372036854775807, not 18446744073709551615");
    TELLS("SUBTRACT", "\x01", "counter has no such operation; it takes ADD");
}

static void log_keeps_everything_in_order(void **unused)
{
    void *list = open_state();

    SHOWS(list, "\x90");
    APPLY(TANDEM_OK, list, "APPEND", "\xc0");
    APPLY(TANDEM_OK, list, "APPEND", "\x82\xa1z\x01\xa1" "a\xca\x3f\x80\x00\x00");
    APPLY(TANDEM_OK, list, "APPEND", "\xc0");
    SHOWS(list, "\x93\xc0\x82\xa1" "a\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\xa1z\x01\xc0");
    APPLY(TANDEM_E_INPUT, list, "APPEND", "\xc0\xc0");
    APPLY(TANDEM_E_INPUT, list, "APPEND", "\x91");
    TELLS("PREPEND", "\xc0", "log has no such operation; it takes APPEND");
    model->state_free(list);
}

#ifdef SANITIZED
#define LAWS_OF_MEMORY
#else
#define LAWS_OF_MEMORY                                                                             \
    cmocka_unit_test(running_out_of_memory_changes_nothing),                                       \
        cmocka_unit_test(running_out_of_memory_while_restoring_leaks_nothing),                     \
        cmocka_unit_test(running_out_of_memory_while_showing_is_told),
#endif

#define LAWS                                                                                       \
    cmocka_unit_test(restoring_in_the_middle_equals_the_whole_fold),                               \
        cmocka_unit_test(a_refused_operation_changes_nothing),                                     \
        cmocka_unit_test(show_is_canonical), cmocka_unit_test(prepare_agrees_with_apply),          \
        cmocka_unit_test(an_unknown_verb_is_refused_in_words),                                     \
        cmocka_unit_test(a_damaged_snapshot_is_noticed_or_valid),                                  \
        cmocka_unit_test(bytes_that_are_no_value_are_refused),                                     \
        cmocka_unit_test(any_order_of_arrival_gives_the_same_bytes),                               \
        cmocka_unit_test(a_snapshot_at_any_cut_and_the_rest_equal_the_whole_fold),                 \
        cmocka_unit_test(what_strangers_send_is_a_no_op_that_counts),                              \
        cmocka_unit_test(the_check_for_models_of_ones_own_finds_nothing), LAWS_OF_MEMORY

int main(int argc, char **argv)
{
    const struct CMUnitTest kv[] = {
        LAWS
        cmocka_unit_test(kv_sets_unsets_and_sorts),
        cmocka_unit_test(kv_of_equal_keys_in_one_set_the_last_wins),
        cmocka_unit_test(kv_checks_all_of_a_payload_before_it_changes_any),
        cmocka_unit_test(kv_tells_what_is_wrong),
    };
    const struct CMUnitTest counter[] = {
        LAWS
        cmocka_unit_test(counter_adds_and_what_would_overflow_is_a_no_op),
        cmocka_unit_test(counter_tells_what_is_wrong),
    };
    const struct CMUnitTest list[] = {
        LAWS
        cmocka_unit_test(log_keeps_everything_in_order),
    };

    for (size_t i = 0; argc == 2 && i < sizeof(subjects) / sizeof(subjects[0]); i++)
        if (strcmp(argv[1], subjects[i].model->name) == 0)
            subject = &subjects[i];
    if (!subject) {
        fprintf(stderr, "usage: %s kv|counter|log\n", argv[0]);
        return 2;
    }
    model = subject->model;
    if (model == &tandem_model_kv)
        return cmocka_run_group_tests_name("model kv", kv, runtime_open, runtime_free);
    if (model == &tandem_model_counter)
        return cmocka_run_group_tests_name("model counter", counter, runtime_open, runtime_free);
    return cmocka_run_group_tests_name("model log", list, runtime_open, runtime_free);
}
