#include "sync/liar.h"

#include <stdio.h>
#include <stdlib.h>

#include "reactor/clock.h"
#include "store/operation.h"
#include "sync/plan.h"
#include "transport/wire.h"

enum { FORKS = TANDEM_HEADS_MAX + 2, LIES_MAX = 6 };

enum lie {
    LIE_FORKS,     /* many operations of one number */
    LIE_CLAIM,     /* a head that nobody can show */
    LIE_GO_BACK,   /* less than was announced before, as a change … */
    LIE_RELIST,    /* … and as a listing */
    LIE_REFUSE,    /* it will not have the victim's operations */
    LIE_CHAIN,     /* a job in the middle of nowhere */
    LIE_FUTURE,    /* an operation from next year */
    LIE_ACK,       /* of jobs that it was not sent */
    LIE_GARBAGE,
    LIES,
};

struct td_liar {
    td_runtime *runtime;
    td_host *host;
    td_carrier *carrier;
    td_link *link;
    tandem_env *env;
    uint64_t state; /* of its random numbers */
    uint64_t number; /* of the last message */
    uint64_t jobs;   /* sent */
    bool said_hello, heard_hello;
    uint8_t victim[TANDEM_ORIGIN_BYTES]; /* the victim's origin */
    enum lie lies[LIES_MAX];
    unsigned told, count;
    unsigned step; /* of a lie that takes two messages */
    uint8_t origin[TANDEM_ORIGIN_BYTES]; /* that the present lie is about */
    uint64_t received, acked; /* the victim's jobs */
};

static const char collection[] = "c0";

/* ---- Messages ---- */

static void random_bytes(td_liar *liar, uint8_t *out, size_t size)
{
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)(td_plan_draw_next(&liar->state) >> 32);
}

static uint64_t clock_of(td_liar *liar)
{
    return td_hlc_of_ms(td_env_wall_ms(liar->env));
}

static void write_hello(td_liar *liar, tandem_writer *out)
{
    td_wire_hello hello;

    memset(&hello, 0, sizeof(hello));
    hello.major = TD_WIRE_MAJOR;
    hello.minor = TD_WIRE_MINOR;
    hello.message_bytes = TD_MESSAGE_BYTES_MAX;
    hello.window_bytes = 1 << 20;
    hello.window_jobs = 64;
    hello.clock = clock_of(liar);
    hello.agent = tandem_slice_text("honest");
    random_bytes(liar, hello.reactor, sizeof(hello.reactor));
    random_bytes(liar, hello.origin, sizeof(hello.origin));
    td_wire_write_hello(out, ++liar->number, &hello, NULL, 0);
}

/* One operation of the lie's origin into the open message. */
static void write_operation(td_liar *liar, tandem_writer *out, uint64_t seq, uint64_t hlc)
{
    uint8_t predecessor[TANDEM_HASH_BYTES], payload[16];
    tandem_writer canonical;
    td_operation operation = {
        .version = TD_OPERATION_VERSION,
        .seq = seq,
        .hlc = hlc,
        .origin = liar->origin,
        .predecessor = predecessor,
        .collection = tandem_slice_text(collection),
        .document = tandem_slice_text("lies"),
        .branch = tandem_slice_text("main"),
        .scope = tandem_slice_text("global"),
        .type = tandem_slice_text("kv.SET"),
    };

    random_bytes(liar, payload, sizeof(payload));
    operation.payload = tandem_slice_of(payload, sizeof(payload));
    if (seq == 1)
        td_chain_root(operation.collection, predecessor);
    else
        random_bytes(liar, predecessor, sizeof(predecessor));
    tandem_writer_init(&canonical);
    td_operation_encode(&operation, &canonical);
    td_wire_write_job(out, 1);
    td_wire_write_operation(out, tandem_writer_slice(&canonical));
    tandem_writer_release(&canonical);
}

static void write_jobs(td_liar *liar, tandem_writer *out, unsigned count, uint64_t seq, uint64_t hlc)
{
    size_t at = td_wire_begin_jobs(out, ++liar->number, liar->jobs + 1);

    for (unsigned i = 0; i < count; i++)
        write_operation(liar, out, seq, hlc);
    td_wire_patch_count(out, at, count);
    liar->jobs += count;
}

/* One head of the lie's origin; listing: as all that there is. */
static void write_vector(td_liar *liar, tandem_writer *out, uint64_t seq, bool listing)
{
    size_t count_at, more_at, origins_at, end_at;
    td_head head = {.seq = seq};

    random_bytes(liar, head.hash, sizeof(head.hash));
    count_at = td_wire_begin_have(out, ++liar->number, clock_of(liar), 0, TD_HAVE_VECTORS,
                                  &more_at);
    origins_at = td_wire_begin_vector(out, tandem_slice_text(collection), listing, &end_at);
    td_wire_write_origin(out, liar->origin, &head, 1);
    td_wire_patch_count(out, origins_at, 1);
    td_wire_patch_bool(out, end_at, listing);
    td_wire_end_vector(out);
    td_wire_patch_count(out, count_at, 1);
}

/* "I will not have what you write." */
static void write_refusal(td_liar *liar, tandem_writer *out)
{
    size_t count_at, more_at, origins_at, end_at;
    uint8_t hash[TANDEM_HASH_BYTES];

    random_bytes(liar, hash, sizeof(hash));
    count_at = td_wire_begin_have(out, ++liar->number, clock_of(liar), 0, TD_HAVE_VECTORS,
                                  &more_at);
    origins_at = td_wire_begin_vector(out, tandem_slice_text(collection), false, &end_at);
    td_wire_patch_count(out, origins_at, 0);
    tandem_write_array(out, 1);
    tandem_write_array(out, 5);
    tandem_write_binary(out, tandem_slice_of(liar->victim, sizeof(liar->victim)));
    tandem_write_uint(out, 1);
    tandem_write_uint(out, 5);
    tandem_write_binary(out, tandem_slice_of(hash, sizeof(hash)));
    tandem_write_int(out, TANDEM_E_REFUSED);
    td_wire_patch_count(out, count_at, 1);
}

/* The victim's jobs, none of which it says to have taken. */
static void write_ack(td_liar *liar, tandem_writer *out)
{
    td_wire_exception exceptions[64];
    uint32_t count = 0;

    while (liar->acked < liar->received && count < sizeof(exceptions) / sizeof(exceptions[0]))
        exceptions[count++] = (td_wire_exception){.job = ++liar->acked, .err = TANDEM_E_REFUSED};
    td_wire_write_ack(out, ++liar->number, liar->acked, exceptions, count);
}

/* ---- Lies ---- */

/* The next message of a lie. True if the lie is told. */
static bool tell(td_liar *liar, enum lie lie, tandem_writer *out)
{
    bool first = liar->step++ == 0;

    if (first)
        random_bytes(liar, liar->origin, sizeof(liar->origin));
    switch (lie) {
    case LIE_FORKS:
        write_jobs(liar, out, FORKS, 1, clock_of(liar));
        return true;
    case LIE_CLAIM:
        write_vector(liar, out, 1000, false);
        return true;
    case LIE_GO_BACK:
        write_vector(liar, out, first ? 10 : 5, false);
        return !first;
    case LIE_RELIST:
        write_vector(liar, out, first ? 10 : 5, !first);
        return !first;
    case LIE_REFUSE:
        write_refusal(liar, out);
        return true;
    case LIE_CHAIN:
        write_jobs(liar, out, 1, 7, clock_of(liar));
        return true;
    case LIE_FUTURE:
        write_jobs(liar, out, 1, 1, clock_of(liar) + td_hlc_of_ms(UINT64_C(31536000000)));
        return true;
    case LIE_ACK:
        td_wire_write_ack(out, ++liar->number, liar->received + 1000, NULL, 0);
        return true;
    case LIE_GARBAGE:
    case LIES:
        break;
    }
    for (int i = 0; i < 40; i++)
        tandem_write_raw(out, tandem_slice_of(&(uint8_t){(uint8_t)td_plan_draw_next(&liar->state)},
                                              1));
    return true;
}

static tandem_err writable(void *context, tandem_writer *out)
{
    td_liar *liar = context;

    if (!liar->said_hello) {
        liar->said_hello = true;
        write_hello(liar, out);
        return TANDEM_OK;
    }
    if (!liar->heard_hello)
        return TANDEM_END;
    if (liar->acked < liar->received) {
        write_ack(liar, out);
        return TANDEM_OK;
    }
    if (liar->told == liar->count)
        return TANDEM_END;
    if (tell(liar, liar->lies[liar->told], out)) {
        liar->told++;
        liar->step = 0;
    }
    return TANDEM_OK;
}

static void want_write(td_liar *liar)
{
    if (liar->link)
        liar->carrier->ops->want_write(liar->link);
}

static void opened(void *context)
{
    want_write(context);
}

static void message(void *context, tandem_slice bytes)
{
    td_liar *liar = context;
    td_wire_message read;

    if (td_wire_read(bytes, &read) != TANDEM_OK)
        return;
    if (read.type == TD_WIRE_HELLO) {
        memcpy(liar->victim, read.as.hello.origin, sizeof(liar->victim));
        liar->heard_hello = true;
    }
    if (read.type == TD_WIRE_JOBS)
        liar->received += read.as.jobs.job_count;
    want_write(liar);
}

static void closed(void *context, tandem_err err, const char *text)
{
    (void)err;
    (void)text;
    ((td_liar *)context)->link = NULL;
}

static const td_connection_events events = {
    .opened = opened, .message = message, .writable = writable, .closed = closed};

/* ---- Opening ---- */

tandem_err td_liar_open(tandem_harness *harness, const char *name, const char *victim,
                        uint64_t random, td_liar **out)
{
    td_liar *liar = calloc(1, sizeof(*liar));
    char url[64];
    tandem_err err;

    if (!liar)
        return TANDEM_E_NOMEM;
    liar->state = random;
    liar->count = 1 + (unsigned)td_plan_draw_below(&liar->state, LIES_MAX);
    for (unsigned i = 0; i < liar->count; i++)
        liar->lies[i] = (enum lie)td_plan_draw_below(&liar->state, LIES);
    snprintf(url, sizeof(url), "mem://%s", victim);
    if ((err = td_simulation_runtime(td_harness_simulation(harness), name, 0, &liar->runtime)) !=
            TANDEM_OK ||
        (err = td_host_open(liar->runtime, TD_HOST_LOOP, "liar", &liar->host)) != TANDEM_OK ||
        (err = td_memory_carrier_open(td_harness_network(harness), liar->host, name,
                                      &liar->carrier)) != TANDEM_OK)
        goto fail;
    liar->env = liar->runtime->env;
    if ((err = liar->carrier->ops->dial(liar->carrier, url, &events, liar, &liar->link)) !=
        TANDEM_OK)
        goto fail;
    *out = liar;
    return TANDEM_OK;

fail:
    td_liar_free(liar);
    return err;
}

void td_liar_free(td_liar *liar)
{
    if (!liar)
        return;
    if (liar->host)
        td_host_stop(liar->host);
    if (liar->carrier)
        liar->carrier->ops->free(liar->carrier);
    td_host_free(liar->host);
    td_runtime_free(liar->runtime);
    free(liar);
}
