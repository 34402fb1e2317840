#include "reactor/model_history.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "reactor/fold.h"
#include "reactor/json.h"

enum { CHAINS = 3, FORKS_MAX = 2, MOMENTS = 64 };

/* As clocks give them: a model may tell an HLC from a small number. */
static const uint64_t FIRST_MOMENT = UINT64_C(1) << 48;

struct chain {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t seq, hlc;
    uint8_t tip[TANDEM_HASH_BYTES];
};

struct drawing {
    td_history *history;
    const tandem_model *model;
    const tandem_model_check_options *options;
    uint64_t seed;
    void *seen; /* a state for prepare: everything so far, as it was drawn */
    struct chain chains[CHAINS];
    uint32_t origins, verbs;
    unsigned forks;
    char *why;
};

uint64_t td_dice_next(uint64_t *dice)
{
    uint64_t z = *dice += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint32_t td_dice_below(uint64_t *dice, uint32_t limit)
{
    return (uint32_t)(td_dice_next(dice) % limit);
}

tandem_err td_model_why(char why[TANDEM_MODEL_WHY_BYTES], tandem_err err, uint64_t seed,
                        const char *format, ...)
{
    int size = snprintf(why, TANDEM_MODEL_WHY_BYTES, "seed %" PRIu64 ": ", seed);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(why + size, TANDEM_MODEL_WHY_BYTES - (size_t)size, format, arguments);
    va_end(arguments);
    return err;
}

/* ---- Values ---- */

static void put_bytes(uint64_t *dice, tandem_writer *out, uint32_t count)
{
    while (count--) {
        uint8_t byte[1] = {(uint8_t)td_dice_next(dice)};

        tandem_write_raw(out, tandem_slice_of(byte, 1));
    }
}

/* Few, so that they meet again. */
static void put_key(uint64_t *dice, tandem_writer *out)
{
    static const char *const keys[] = {"", "a", "b", "key", "Schl\xc3\xbcssel",
                                       "a key of more bytes than fit into the shortest form"};

    tandem_write_text(out, keys[td_dice_below(dice, sizeof(keys) / sizeof(keys[0]))]);
}

static void put_int(uint64_t *dice, tandem_writer *out)
{
    static const int64_t edges[] = {0,   1,   -1,        -32,       -33,       127,
                                    128, 255, INT32_MAX, INT64_MAX, INT64_MIN, (int64_t)1 << 62};

    if (td_dice_below(dice, 3) == 0)
        tandem_write_int(out, edges[td_dice_below(dice, sizeof(edges) / sizeof(edges[0]))]);
    else
        tandem_write_int(out, (int64_t)td_dice_below(dice, 100));
}

/* One value, of at most depth levels. */
static void put_value(uint64_t *dice, tandem_writer *out, unsigned depth)
{
    static const uint8_t odd[] = {0xd4, 0x01, 0x02}; /* an extension */
    uint32_t count = td_dice_below(dice, 4);

    switch (td_dice_below(dice, depth ? 12 : 9)) {
    case 0:
        tandem_write_nil(out);
        break;
    case 1:
        tandem_write_bool(out, count & 1);
        break;
    case 2:
        tandem_write_float(out, (double)(int64_t)td_dice_next(dice) / 1024);
        break;
    case 3:
        tandem_write_binary_header(out, count * 9);
        put_bytes(dice, out, count * 9);
        break;
    case 4:
        tandem_write_raw(out, tandem_slice_of(odd, sizeof(odd)));
        break;
    case 5:
    case 6:
        put_key(dice, out);
        break;
    case 9:
    case 10:
        tandem_write_map(out, count);
        while (count--) {
            put_key(dice, out);
            put_value(dice, out, depth - 1);
        }
        break;
    case 11:
        tandem_write_array(out, count);
        while (count--)
            put_value(dice, out, depth - 1);
        break;
    default:
        put_int(dice, out);
        break;
    }
}

/* Any bytes; a value cut short, or one too deep; a claim of 4 GiB. None may reach a model. */
static void put_no_value(uint64_t *dice, tandem_writer *out)
{
    static const uint8_t firsts[] = {0xc6, 0xc9, 0xdb, 0xdd, 0xdf};
    static const uint8_t level[] = {0x91}, never[] = {0xc1};
    const uint8_t claim[] = {firsts[td_dice_below(dice, sizeof(firsts))], 0xff, 0xff, 0xff, 0xff};

    switch (td_dice_below(dice, 4)) {
    case 0:
        for (unsigned i = 0; i <= TANDEM_PAYLOAD_DEPTH_MAX; i++)
            tandem_write_raw(out, tandem_slice_of(level, 1));
        tandem_write_nil(out);
        break;
    case 1:
        tandem_write_raw(out, tandem_slice_of(claim, sizeof(claim)));
        break;
    case 2:
        tandem_write_array(out, 3);
        put_value(dice, out, 2);
        break;
    default:
        tandem_write_raw(out, tandem_slice_of(never, 1));
        put_bytes(dice, out, td_dice_below(dice, 40));
        break;
    }
}

/* What a user would say: as the caller draws it, or anything. */
static tandem_err put_input(struct drawing *d, const char *verb, tandem_writer *out)
{
    uint64_t random = td_dice_next(&d->history->dice);
    char json[TANDEM_DRAWN_BYTES] = "", said[128];
    tandem_err err;

    if (!d->options->draw) {
        put_value(&random, out, 3);
        return tandem_writer_err(out);
    }
    d->options->draw(d->options->context, verb, random, json);
    json[sizeof(json) - 1] = '\0';
    err = tandem_json_read(tandem_slice_text(json), out, said);
    if (err == TANDEM_E_INPUT)
        return td_model_why(d->why, TANDEM_E_INVALID, d->seed, "what was drawn for %s: %s", verb,
                            said);
    return err;
}

/* ---- Operations ---- */

/* What is pretended is taken back. */
static tandem_err check_pretend(struct drawing *d, const tandem_intent *intent, tandem_slice payload)
{
    tandem_writer before, after;
    tandem_err err;

    if (!d->model->pretend || !d->model->prepare_reads_state)
        return TANDEM_OK;
    tandem_writer_init(&before);
    tandem_writer_init(&after);
    if ((err = d->model->show(d->seen, &before)) == TANDEM_OK) {
        err = d->model->pretend(d->seen, intent, payload);
        if (err == TANDEM_E_INPUT && d->forks)
            err = TANDEM_OK; /* two operations of one origin may have one date */
        d->model->take_back(d->seen);
    }
    if (err == TANDEM_OK && (err = d->model->show(d->seen, &after)) == TANDEM_OK &&
        !tandem_slice_equal(tandem_writer_slice(&before), tandem_writer_slice(&after)))
        err = td_model_why(d->why, TANDEM_E_INTERNAL, d->seed,
                           "pretend: what was taken back shows another value");
    tandem_writer_release(&before);
    tandem_writer_release(&after);
    return err;
}

/* As an origin makes it; what prepare refuses is sent by a stranger, as it is. */
static tandem_err put_prepared(struct drawing *d, const struct chain *chain, const char *verb,
                               tandem_writer *out)
{
    tandem_intent intent = {.verb = tandem_slice_text(verb), .origin = chain->origin};
    const void *state = d->model->prepare_reads_state ? d->seen : NULL;
    tandem_writer input;
    char said[128] = "";
    tandem_err err;

    tandem_writer_init(&input);
    if ((err = put_input(d, verb, &input)) != TANDEM_OK)
        goto out;
    intent.input = tandem_writer_slice(&input);
    err = d->model->prepare(state, &intent, out, said);
    if (err == TANDEM_OK)
        err = tandem_writer_err(out);
    if (err == TANDEM_E_INPUT) {
        tandem_writer_clear(out);
        tandem_write_raw(out, tandem_writer_slice(&input));
        err = tandem_writer_err(out);
    } else if (err == TANDEM_OK) {
        d->history->accepted++;
        if (tandem_msgpack_validate(tandem_writer_slice(out), TANDEM_PAYLOAD_DEPTH_MAX,
                                    TANDEM_PAYLOAD_ITEMS_MAX) != TANDEM_OK)
            err = td_model_why(d->why, TANDEM_E_INTERNAL, d->seed,
                               "prepare: of %s it wrote what is not one valid value", verb);
        else
            err = check_pretend(d, &intent, tandem_writer_slice(out));
    } else if (err != TANDEM_E_NOMEM) {
        err = td_model_why(d->why, TANDEM_E_INTERNAL, d->seed, "prepare: of %s it answered %s",
                           verb, tandem_err_name(err));
    }
out:
    tandem_writer_release(&input);
    return err;
}

static bool held_already(const td_history *history, const td_operation *operation)
{
    for (size_t i = 0; i < history->count; i++)
        if (memcmp(history->operations[i].hash, operation->hash, TANDEM_HASH_BYTES) == 0)
            return true;
    return false;
}

/* Encode the next operation of a chain. One that both branches of a fork make is one. */
static tandem_err add(struct drawing *d, struct chain *chain, uint64_t flags, const char *scope,
                      const char *name, const char *verb, tandem_slice payload)
{
    td_history *history = d->history;
    tandem_writer *bytes = &history->bytes[history->count];
    td_operation *operation = &history->operations[history->count];
    char type[TANDEM_NAME_BYTES_MAX + 1];
    int size = snprintf(type, sizeof(type), "%s.%s", name, verb);
    td_operation fields = {
        .version = TD_OPERATION_VERSION,
        .flags = flags,
        .seq = chain->seq + 1,
        .hlc = chain->hlc,
        .origin = chain->origin,
        .predecessor = chain->tip,
        .collection = tandem_slice_text(TD_HISTORY_COLLECTION),
        .document = tandem_slice_text(TD_HISTORY_DOCUMENT),
        .branch = tandem_slice_text(TD_HISTORY_BRANCH),
        .scope = tandem_slice_text(scope),
        .type = tandem_slice_of(type, (size_t)size),
        .payload = payload,
    };
    tandem_err err;

    if (size >= (int)sizeof(type))
        return td_model_why(d->why, TANDEM_E_INVALID, d->seed, "the verb %.40s is too long", verb);
    tandem_writer_clear(bytes);
    if ((err = td_operation_encode(&fields, bytes)) != TANDEM_OK ||
        (err = td_operation_parse(tandem_writer_slice(bytes), operation)) != TANDEM_OK)
        return err == TANDEM_E_NOMEM
                   ? err
                   : td_model_why(d->why, TANDEM_E_INVALID, d->seed, "%s is no operation: %s", type,
                                  tandem_err_text(err));
    td_operation_hash(operation);
    if (held_already(history, operation))
        return TANDEM_OK;
    history->count++;
    chain->seq++;
    memcpy(chain->tip, operation->hash, TANDEM_HASH_BYTES);
    err = d->seen ? td_fold_apply(d->model, d->seen, operation) : TANDEM_OK;
    return err == TANDEM_E_NOMEM ? err : TANDEM_OK; /* other errors are the walk's to tell */
}

static void chain_init(struct drawing *d, struct chain *chain, uint64_t hlc)
{
    memset(chain, 0, sizeof(*chain));
    /* Origins sort as they come, or against that. */
    chain->origin[0] = (uint8_t)td_dice_next(&d->history->dice);
    td_put_u32(chain->origin + 4, ++d->origins);
    chain->hlc = hlc;
    td_chain_root(tandem_slice_text(TD_HISTORY_COLLECTION), chain->tip);
}

/* A chain to go on with, or single for an origin that writes once and then no more. */
static struct chain *draw_chain(struct drawing *d, struct chain *single)
{
    uint64_t *dice = &d->history->dice;
    struct chain *chain = &d->chains[td_dice_below(dice, CHAINS)];

    if (td_dice_below(dice, 2)) {
        chain_init(d, single, FIRST_MOMENT + td_dice_below(dice, MOMENTS));
        return single;
    }
    if (d->forks < FORKS_MAX && td_dice_below(dice, 10) == 0) { /* a copied folder */
        *chain = d->chains[td_dice_below(dice, CHAINS)];
        d->forks++;
    }
    chain->hlc += td_dice_below(dice, 8);
    return chain;
}

static tandem_err draw_operation(struct drawing *d)
{
    static const char *const strange[] = {"CREATE", "DELETE", "NEVER_HEARD_OF", "x", "\xc3\xbc"};
    uint64_t *dice = &d->history->dice;
    const char *verb = d->options->verbs[td_dice_below(dice, d->verbs)], *name = d->model->name;
    struct chain single, *chain = draw_chain(d, &single);
    uint64_t flags = 0;
    tandem_writer payload;
    tandem_err err = TANDEM_OK;

    tandem_writer_init(&payload);
    switch (td_dice_below(dice, 16)) {
    case 0:
        put_no_value(dice, &payload);
        break;
    case 1:
    case 2:
        put_value(dice, &payload, 4);
        break;
    case 3:
        verb = strange[td_dice_below(dice, sizeof(strange) / sizeof(strange[0]))];
        put_value(dice, &payload, 2);
        break;
    case 4:
        name = "somebody_elses";
        put_value(dice, &payload, 2);
        break;
    case 5:
        flags = TD_FLAG_SEALED;
        put_bytes(dice, &payload, 20);
        break;
    default:
        err = put_prepared(d, chain, verb, &payload);
        break;
    }
    if (err == TANDEM_OK && (err = tandem_writer_err(&payload)) == TANDEM_OK)
        err = add(d, chain, flags, TD_HISTORY_SCOPE, name, verb, tandem_writer_slice(&payload));
    tandem_writer_release(&payload);
    return err;
}

static int in_total_order(const void *a, const void *b)
{
    const td_operation *x = a, *y = b;
    int origins = memcmp(x->origin, y->origin, TANDEM_ORIGIN_BYTES);

    if (x->hlc != y->hlc)
        return x->hlc < y->hlc ? -1 : 1;
    if (origins)
        return origins;
    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return memcmp(x->hash, y->hash, TANDEM_HASH_BYTES);
}

tandem_err td_history_draw(td_history *history, const tandem_model *model,
                           const tandem_model_check_options *options, uint64_t seed,
                           char why[TANDEM_MODEL_WHY_BYTES])
{
    struct drawing d = {history, model, options, seed, .why = why};
    struct chain creator;
    tandem_err err;

    memset(history, 0, sizeof(*history));
    history->dice = seed;
    while (options->verbs[d.verbs])
        d.verbs++;
    for (size_t i = 0; i < TD_HISTORY_OPERATIONS; i++)
        tandem_writer_init(&history->bytes[i]);
    for (unsigned i = 0; i < CHAINS; i++)
        chain_init(&d, &d.chains[i], FIRST_MOMENT + td_dice_below(&history->dice, MOMENTS / 2));
    chain_init(&d, &creator, 1);
    err = add(&d, &creator, 0, TD_SCOPE_DOCUMENT, model->name, "CREATE",
              tandem_slice_of("\xc0", 1));
    if (err == TANDEM_OK)
        err = model->state_open(&d.seen);
    /* What both branches of a fork make is one operation: a draw may bring none. */
    for (unsigned i = 0; err == TANDEM_OK && i < TD_HISTORY_OPERATIONS - 1; i++)
        err = draw_operation(&d);
    if (d.seen)
        model->state_free(d.seen);
    if (err == TANDEM_OK)
        qsort(history->operations, history->count, sizeof(history->operations[0]), in_total_order);
    return err;
}

void td_history_release(td_history *history)
{
    for (size_t i = 0; i < TD_HISTORY_OPERATIONS; i++)
        tandem_writer_release(&history->bytes[i]);
}
