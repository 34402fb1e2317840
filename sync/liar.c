#include "sync/liar.h"

#include <stdio.h>
#include <stdlib.h>

#include <sodium.h>

#include "reactor/clock.h"
#include "store/operation.h"
#include "sync/plan.h"
#include "transport/wire.h"

enum { FORKS = TANDEM_HEADS_MAX + 2, LIES_MAX = 6, NAME_BYTES = 16 };

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
    LIE_CLAIM_OWN, /* more of the victim's origin, and of another's, than there is */
    LIE_FORK_LIVE, /* other bytes at a number that a living reactor has written */
    LIES,
};

/* What it has seen of somebody's chain: an operation, or a head that was announced. */
struct seen {
    char collection[NAME_BYTES];
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t seq, hlc;
    uint8_t hash[TANDEM_HASH_BYTES];
    uint8_t predecessor[TANDEM_HASH_BYTES];
    bool is_whole; /* hlc and predecessor are known */
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
    bool said_have;
    struct seen own, other; /* of the victim's chain, and of a third's; seq 0: nothing */
    td_liar_orders orders;
};

static const char lies_collection[] = "c0";

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

/* "I hold nothing": what makes the victim tell and send what it holds. */
static void write_nothing_held(td_liar *liar, tandem_writer *out)
{
    uint8_t digest[TANDEM_HASH_BYTES];

    liar->said_have = true;
    crypto_generichash(digest, sizeof(digest), NULL, 0, NULL, 0);
    td_wire_write_have_all(out, ++liar->number, clock_of(liar), 0, 0, digest);
}

/* One operation into the open message; about a document that nobody else writes to. */
static void write_operation(td_liar *liar, tandem_writer *out, td_operation *operation)
{
    uint8_t payload[16];
    tandem_writer canonical;
    td_operation written;

    random_bytes(liar, payload, sizeof(payload));
    operation->version = TD_OPERATION_VERSION;
    operation->document = tandem_slice_text("lies");
    operation->branch = tandem_slice_text("main");
    operation->scope = tandem_slice_text("global");
    operation->type = tandem_slice_text("kv.SET");
    operation->payload = tandem_slice_of(payload, sizeof(payload));
    tandem_writer_init(&canonical);
    td_operation_encode(operation, &canonical);
    td_wire_write_job(out, 1);
    td_wire_write_operation(out, tandem_writer_slice(&canonical));
    if (td_operation_parse(tandem_writer_slice(&canonical), &written) == TANDEM_OK) {
        td_operation_hash(&written);
        liar->orders.forged(liar->orders.context, written.hash);
    }
    tandem_writer_release(&canonical);
}

/* One of the lie's own origin. */
static void write_own(td_liar *liar, tandem_writer *out, uint64_t seq, uint64_t hlc)
{
    uint8_t predecessor[TANDEM_HASH_BYTES];
    td_operation operation = {
        .seq = seq,
        .hlc = hlc,
        .origin = liar->origin,
        .predecessor = predecessor,
        .collection = tandem_slice_text(lies_collection),
    };

    if (seq == 1)
        td_chain_root(operation.collection, predecessor);
    else
        random_bytes(liar, predecessor, sizeof(predecessor));
    write_operation(liar, out, &operation);
}

/* Another branch of somebody's chain: beside what was seen, or, of a head, behind it. */
static void write_branch(td_liar *liar, tandem_writer *out, const struct seen *seen)
{
    td_operation operation = {
        .seq = seen->is_whole ? seen->seq : seen->seq + 1,
        .hlc = seen->is_whole ? seen->hlc : clock_of(liar),
        .origin = seen->origin,
        .predecessor = seen->is_whole ? seen->predecessor : seen->hash,
        .collection = tandem_slice_text(seen->collection),
    };

    write_operation(liar, out, &operation);
}

static void write_jobs(td_liar *liar, tandem_writer *out, unsigned count, uint64_t seq, uint64_t hlc)
{
    size_t at = td_wire_begin_jobs(out, ++liar->number, liar->jobs + 1);

    for (unsigned i = 0; i < count; i++)
        write_own(liar, out, seq, hlc);
    td_wire_patch_count(out, at, count);
    liar->jobs += count;
}

/* As many of the victim's chain as it was told to, and one of another's. */
static void write_branches(td_liar *liar, tandem_writer *out)
{
    size_t at = td_wire_begin_jobs(out, ++liar->number, liar->jobs + 1);
    uint32_t count = 0;

    for (; liar->own.seq && count < liar->orders.branches; count++)
        write_branch(liar, out, &liar->own);
    if (liar->other.seq && liar->orders.others) {
        write_branch(liar, out, &liar->other);
        count++;
    }
    td_wire_patch_count(out, at, count);
    liar->jobs += count;
}

/* One head of the lie's origin, or of whose it is said to be; listing: as all that there is. */
static void write_vector(td_liar *liar, tandem_writer *out, uint64_t seq, bool listing)
{
    size_t count_at, more_at, origins_at, end_at;
    td_head head = {.seq = seq};

    random_bytes(liar, head.hash, sizeof(head.hash));
    count_at = td_wire_begin_have(out, ++liar->number, clock_of(liar), 0, TD_HAVE_VECTORS,
                                  &more_at);
    origins_at = td_wire_begin_vector(out, tandem_slice_text(lies_collection), listing, &end_at);
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
    origins_at = td_wire_begin_vector(out, tandem_slice_text(lies_collection), false, &end_at);
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

/* The victim's jobs, none of which it says to have taken, by rule or because they are no jobs. */
static void write_ack(td_liar *liar, tandem_writer *out)
{
    td_wire_exception exceptions[64];
    uint32_t count = 0;

    while (liar->acked < liar->received && count < sizeof(exceptions) / sizeof(exceptions[0])) {
        liar->acked++;
        exceptions[count++] = (td_wire_exception){
            .job = liar->acked, .err = liar->acked % 2 ? TANDEM_E_REFUSED : TANDEM_E_CHAIN};
    }
    td_wire_write_ack(out, ++liar->number, liar->acked, exceptions, count);
}

/* ---- Lies ---- */

/* Does it have to hear more first? */
static bool must_wait(const td_liar *liar)
{
    enum lie lie = liar->lies[liar->told];

    return liar->said_have && !liar->own.seq && !liar->other.seq &&
           (lie == LIE_FORK_LIVE || (lie == LIE_CLAIM_OWN && liar->step > 1));
}

/* The victim's origin, then that of a third. */
static bool claim_own(td_liar *liar, tandem_writer *out, unsigned step)
{
    bool has_other = liar->other.seq;

    memcpy(liar->origin, step > 1 && has_other ? liar->other.origin : liar->victim,
           sizeof(liar->origin));
    write_vector(liar, out, 1000 + step, step == 1); /* a listing is what the victim waits for */
    return step > 1;
}

/* The next message of a lie. True if the lie is told. */
static bool tell(td_liar *liar, enum lie lie, tandem_writer *out)
{
    unsigned step = liar->step++;
    bool first = step == 0;

    if ((lie == LIE_CLAIM_OWN || lie == LIE_FORK_LIVE) && !liar->said_have) {
        write_nothing_held(liar, out);
        return false;
    }
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
    case LIE_CLAIM_OWN:
        return claim_own(liar, out, step);
    case LIE_FORK_LIVE:
        write_branches(liar, out);
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
    if (liar->told == liar->count || must_wait(liar))
        return TANDEM_END;
    if (tell(liar, liar->lies[liar->told], out)) {
        liar->told++;
        liar->step = 0;
    }
    return TANDEM_OK;
}

/* ---- What it hears ---- */

static void see(td_liar *liar, const struct seen *seen)
{
    bool is_own = !memcmp(seen->origin, liar->victim, sizeof(liar->victim));
    struct seen *kept = is_own ? &liar->own : &liar->other;

    /* Of the victim's only what it has written for certain, and of a third's what comes first: a
     * lie takes some time. */
    if (is_own ? seen->is_whole : !kept->seq)
        *kept = *seen;
}

static void see_operation(td_liar *liar, tandem_slice canonical)
{
    struct seen seen = {.is_whole = true};
    td_operation operation;

    if (td_operation_parse(canonical, &operation) != TANDEM_OK ||
        operation.collection.size >= sizeof(seen.collection))
        return;
    memcpy(seen.collection, operation.collection.bytes, operation.collection.size);
    memcpy(seen.origin, operation.origin, sizeof(seen.origin));
    memcpy(seen.predecessor, operation.predecessor, sizeof(seen.predecessor));
    seen.seq = operation.seq;
    seen.hlc = operation.hlc;
    see(liar, &seen);
}

static void see_jobs(td_liar *liar, td_wire_jobs *jobs)
{
    tandem_slice canonical;
    uint32_t count;

    for (uint32_t i = 0; i < jobs->job_count; i++) {
        if (td_wire_read_job(&jobs->jobs, &count) != TANDEM_OK)
            return;
        for (uint32_t k = 0; k < count; k++)
            if (td_wire_read_operation(&jobs->jobs, &canonical) == TANDEM_OK)
                see_operation(liar, canonical);
    }
    liar->received += jobs->job_count;
}

static void see_vector(td_liar *liar, td_wire_vector *vector)
{
    td_wire_origin origin;

    for (uint32_t i = 0; i < vector->origin_count; i++) {
        struct seen seen = {.seq = 0};

        if (td_wire_read_origin(&vector->origins, &origin) != TANDEM_OK ||
            vector->name.size >= sizeof(seen.collection))
            return;
        if (origin.head_count == 0)
            continue; /* all that is known of it is lacking */
        memcpy(seen.collection, vector->name.bytes, vector->name.size);
        memcpy(seen.origin, origin.origin, sizeof(seen.origin));
        memcpy(seen.hash, origin.heads[origin.head_count - 1].hash, sizeof(seen.hash));
        seen.seq = origin.heads[origin.head_count - 1].seq;
        see(liar, &seen);
    }
}

static void see_have(td_liar *liar, td_wire_have *have)
{
    td_wire_vector vector;

    for (uint32_t i = 0; have->level == TD_HAVE_VECTORS && i < have->entry_count; i++)
        if (td_wire_read_vector(&have->entries, &vector) == TANDEM_OK)
            see_vector(liar, &vector);
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
        see_jobs(liar, &read.as.jobs);
    if (read.type == TD_WIRE_HAVE)
        see_have(liar, &read.as.have);
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
                        uint64_t random, const td_liar_orders *orders, td_liar **out)
{
    td_liar *liar = calloc(1, sizeof(*liar));
    char url[64];
    tandem_err err;

    if (!liar)
        return TANDEM_E_NOMEM;
    liar->state = random;
    liar->orders = *orders;
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
