/*
 * The exchange carrier: links that work as those over HTTP do, over links of a memory carrier. Only
 * the side that dialed begins, by exchanges that may overtake each other; long poll or not, hold and
 * end are as in PROTOCOL.md, section 2, and the rules are the very ones that HTTP runs by
 * (transport/http_link.h). So the simulator and the conformance suite have sessions over HTTP without
 * a socket, and whatever the memory network does to a packet, it does to an exchange.
 *
 * A request and an answer is one message of the inner link each:
 *
 *   [kind, number, hold, wait_ms, pause_ms, end, body]
 *
 * Both sides are this file, so one that cannot be read was changed on the way: the link is lost, as it
 * is where an exchange comes twice, never, or out of bounds.
 *
 * A link is freed when it was closed() and the inner one is gone. Threads: the host's.
 */
#include "channel/network_link.h"

#include <assert.h>
#include <stdlib.h>

#include <utlist.h>

#include "store/probe.h"
#include "transport/http_link.h"

enum { REQUEST = 1, ANSWER };
enum { TURN = 1, LOOK, LINGER }; /* a link's own messages */
enum {
    ANSWER_MS = (TD_HTTP_POLL_S + 10) * 1000,
    GONE_MS = TD_HTTP_GONE_S * 1000,
    END_MS = 10 * 1000,
    LINGER_MS = 1000, /* for what is still to go out */
    END_BYTES = 160,
    PARCEL_ITEMS = 7,
};

/* A request, or its answer. */
struct exchange {
    struct exchange *prev, *next; /* of its link, by number */
    uint64_t number;
    uint64_t at_ms; /* when it was begun here, or came here */
    uint64_t wait_ms, pause_ms;
    bool hold, ends;
    bool arrived; /* a request has, or the answer to one, and is not taken yet */
    bool taken;   /* the messages of a request are the link's */
    bool answered;
    char end[END_BYTES];
    tandem_writer body;
};

/* What is to be said by the inner link. */
struct parcel {
    struct parcel *next;
    tandem_writer bytes;
};

struct exchange_link {
    td_http_link base; /* first */
    struct exchange_carrier *carrier;
    struct exchange_link *prev, *next;
    td_link *inner; /* NULL: gone … */
    tandem_err inner_err; /* … by this, or not there yet */
    bool dialed;
    td_message turn;
    bool turn_posted;
    td_message timer;
    bool timed;
    uint64_t timed_ms;
    bool done; /* nobody stands on it any more: freed in its turn */
    struct parcel *parcels;
    struct exchange *exchanges; /* not answered in order yet */
    bool lost;
    uint64_t since_ms; /* of what is over after a time: opening, ending, being without an exchange */

    td_http_asking asking; /* dialed */
    bool end_sent;

    uint64_t taken, answered; /* accepted */
    bool told_full;
    uint64_t pause_ms;
    uint64_t ending_ms; /* since when */
};

struct exchange_carrier {
    td_carrier base; /* first */
    td_carrier *inner;
    tandem_env *env;
    td_actor *actor;
    td_link_acceptor acceptor;
    struct exchange_link *links;
};

static struct exchange_link *link_of(td_http_link *base)
{
    return (struct exchange_link *)base;
}

static uint64_t now_of(const struct exchange_link *link)
{
    return td_env_monotonic_ms(link->carrier->env);
}

/* ---- Life ---- */

static void exchange_free(struct exchange *exchange)
{
    tandem_writer_release(&exchange->body);
    free(exchange);
}

static void link_free(struct exchange_link *link)
{
    struct exchange *exchange, *next;
    struct parcel *parcel;

    DL_FOREACH_SAFE(link->exchanges, exchange, next)
        exchange_free(exchange);
    while ((parcel = link->parcels)) {
        link->parcels = parcel->next;
        tandem_writer_release(&parcel->bytes);
        free(parcel);
    }
    DL_DELETE(link->carrier->links, link);
    td_http_link_release(&link->base);
    free(link);
}

static struct exchange_link *link_of_turn(td_message *message)
{
    return (struct exchange_link *)((char *)message - offsetof(struct exchange_link, turn));
}

static struct exchange_link *link_of_timer(td_message *message)
{
    return (struct exchange_link *)((char *)message - offsetof(struct exchange_link, timer));
}

static void drop_turn(td_message *message)
{
    struct exchange_link *link = link_of_turn(message);

    link->turn_posted = false;
    if (link->done)
        link_free(link);
}

static void drop_timer(td_message *message)
{
    link_of_timer(message)->timed = false;
}

/* From any thread, as it is where somebody wants to write. */
static void post_turn(struct exchange_link *link)
{
    if (link->turn_posted)
        return;
    link->turn_posted = true;
    link->turn.kind = TURN;
    link->turn.drop = drop_turn;
    td_actor_post(link->carrier->actor, &link->turn);
}

static void forget_timer(struct exchange_link *link)
{
    if (link->timed)
        td_actor_cancel(link->carrier->actor, &link->timer);
    link->timed = false;
}

static void set_timer(struct exchange_link *link, uint32_t kind, uint64_t delay_ms)
{
    uint64_t at_ms = now_of(link) + delay_ms;

    if (link->timed && link->timer.kind == kind && link->timed_ms <= at_ms)
        return;
    forget_timer(link);
    link->timer.kind = kind;
    link->timer.drop = drop_timer;
    link->timed = true;
    link->timed_ms = at_ms;
    td_actor_post_after(link->carrier->actor, &link->timer, delay_ms);
}

static void look_in(td_http_link *base, uint64_t delay_ms)
{
    if (delay_ms)
        set_timer(link_of(base), LOOK, delay_ms);
    else
        post_turn(link_of(base));
}

static void be_done(struct exchange_link *link)
{
    forget_timer(link);
    link->done = true;
    post_turn(link);
}

static void close_inner(struct exchange_link *link)
{
    if (link->inner)
        link->inner->carrier->ops->close(link->inner, TANDEM_OK, "");
}

static void stop(td_http_link *base)
{
    struct exchange_link *link = link_of(base);

    forget_timer(link);
    if (!link->inner) {
        be_done(link);
    } else if (link->parcels) {
        set_timer(link, LINGER, LINGER_MS);
        link->inner->carrier->ops->want_write(link->inner);
    } else {
        close_inner(link);
    }
}

static void lose(struct exchange_link *link, tandem_err err, const char *text)
{
    td_http_link_set_reason(&link->base, err, "%s", text);
    link->lost = true;
    td_http_link_look_soon(&link->base);
}

/* All that has come is taken: a connection that is gone brings no more. */
static void look_at_inner(struct exchange_link *link)
{
    if (link->inner_err == TANDEM_OK || link->base.peer_ended)
        return;
    td_http_link_set_reason(&link->base, link->inner_err, "the connection was lost");
    link->lost = true;
}

static struct exchange *exchange_open(struct exchange_link *link, uint64_t number)
{
    struct exchange *exchange = calloc(1, sizeof(*exchange)), *later;

    if (!exchange)
        return NULL;
    exchange->number = number;
    exchange->at_ms = now_of(link);
    tandem_writer_init(&exchange->body);
    DL_FOREACH(link->exchanges, later)
        if (later->number > number)
            break;
    if (later)
        DL_PREPEND_ELEM(link->exchanges, later, exchange);
    else
        DL_APPEND(link->exchanges, exchange);
    return exchange;
}

/* ---- Parcels ---- */

static void send_parcel(struct exchange_link *link, unsigned kind, const struct exchange *exchange)
{
    struct parcel *parcel = calloc(1, sizeof(*parcel));
    tandem_writer *out;

    if (!parcel)
        return; /* as good as lost on the way */
    out = &parcel->bytes;
    tandem_writer_init(out);
    tandem_write_array(out, PARCEL_ITEMS);
    tandem_write_uint(out, kind);
    tandem_write_uint(out, exchange->number);
    tandem_write_bool(out, exchange->hold);
    tandem_write_uint(out, exchange->wait_ms);
    tandem_write_uint(out, exchange->pause_ms);
    tandem_write_text(out, exchange->end);
    tandem_write_binary(out, tandem_writer_slice(&exchange->body));
    if (tandem_writer_err(out) != TANDEM_OK || !link->inner) {
        tandem_writer_release(out);
        free(parcel);
        return;
    }
    LL_APPEND(link->parcels, parcel);
    link->inner->carrier->ops->want_write(link->inner);
}

static bool read_parcel(tandem_slice bytes, uint64_t *kind, struct exchange *out,
                        tandem_slice *body)
{
    tandem_reader reader = tandem_reader_of(bytes);
    tandem_slice end;
    uint32_t items;

    if (tandem_msgpack_validate(bytes, 2, PARCEL_ITEMS + 1) != TANDEM_OK ||
        tandem_read_array(&reader, &items) != TANDEM_OK || items != PARCEL_ITEMS ||
        tandem_read_uint(&reader, kind) != TANDEM_OK ||
        tandem_read_uint(&reader, &out->number) != TANDEM_OK ||
        tandem_read_bool(&reader, &out->hold) != TANDEM_OK ||
        tandem_read_uint(&reader, &out->wait_ms) != TANDEM_OK ||
        tandem_read_uint(&reader, &out->pause_ms) != TANDEM_OK ||
        tandem_read_string(&reader, &end) != TANDEM_OK || end.size >= END_BYTES ||
        tandem_read_binary(&reader, body) != TANDEM_OK)
        return false;
    if (out->wait_ms > TD_HTTP_POLL_S * 1000 || out->pause_ms > TD_HTTP_PAUSE_S_MAX * 1000)
        return false;
    memcpy(out->end, end.bytes, end.size);
    return true;
}

/* ---- The side that dialed ---- */

static void begin_exchange(struct exchange_link *link, tandem_writer *body, bool ends)
{
    td_http_link *base = &link->base;
    bool full = td_http_link_is_full(base);
    struct exchange *exchange = exchange_open(link, link->asking.sent + 1);

    if (!exchange) {
        tandem_writer_release(body);
        lose(link, TANDEM_E_NOMEM, "no memory for an exchange");
        return;
    }
    tandem_writer_release(&exchange->body);
    exchange->body = *body;
    exchange->hold = full;
    exchange->ends = ends;
    exchange->pause_ms = exchange->number > 1 ? link->asking.pause_ms : 0;
    exchange->wait_ms = td_http_wait_ms(base, &link->asking);
    if (ends)
        td_http_end_write(base, exchange->end, sizeof(exchange->end));
    send_parcel(link, REQUEST, exchange);
    tandem_writer_release(&exchange->body);
    tandem_writer_init(&exchange->body);
    *exchange->end = 0;
    td_probe(link->carrier->env, TD_PROBE_EXCHANGE_BEGUN);
    td_http_asked(&link->asking, full);
    if (exchange->number > 1 && base->events->exchange_began)
        base->events->exchange_began(base->context);
}

static void pump(struct exchange_link *link)
{
    tandem_writer body;

    tandem_writer_init(&body);
    while (!link->lost && td_http_ask(&link->base, &link->asking, &body)) {
        begin_exchange(link, &body, false);
        tandem_writer_init(&body);
    }
    tandem_writer_release(&body);
}

static void take_answer(struct exchange_link *link, const struct exchange *exchange)
{
    td_http_link *base = &link->base;

    if (td_http_link_take(base, tandem_writer_slice(&exchange->body)) != TANDEM_OK) {
        lose(link, TANDEM_E_UNREACHABLE, "an answer was changed on the way");
        return;
    }
    link->asking.peer_full = exchange->hold;
    if (exchange->hold)
        td_probe(link->carrier->env, TD_PROBE_EXCHANGE_HELD);
    if (*exchange->end)
        td_http_end_read(base, exchange->end);
    if (exchange->ends)
        base->peer_ended = true; /* nothing more will come */
    if (base->state == TD_HTTP_OPENING) {
        base->state = TD_HTTP_OPEN;
        base->wants = true;
        base->events->opened(base->context);
    }
    td_http_link_deliver(base);
    if (exchange->number > 1 && base->state == TD_HTTP_OPEN && base->events->exchange_ended)
        base->events->exchange_ended(base->context, now_of(link) - exchange->at_ms,
                                     exchange->body.size,
                                     exchange->body.size >= TD_HTTP_FILL_BYTES);
}

static void take_answers(struct exchange_link *link)
{
    struct exchange *exchange;

    while ((exchange = link->exchanges) && exchange->arrived && !link->lost &&
           !link->base.peer_ended) {
        link->asking.answered = exchange->number;
        DL_DELETE(link->exchanges, exchange);
        take_answer(link, exchange);
        exchange_free(exchange);
    }
}

static void look_at_dialed(td_http_link *base)
{
    struct exchange_link *link = link_of(base);
    uint64_t now_ms = now_of(link), due_ms = UINT64_MAX;

    take_answers(link);
    td_http_link_deliver(base);
    look_at_inner(link);
    if (base->state == TD_HTTP_OPEN && !base->peer_ended)
        pump(link);
    if (base->state == TD_HTTP_ENDING && link->asking.answered && !link->lost &&
        !base->peer_ended && !link->end_sent) {
        tandem_writer nothing;

        tandem_writer_init(&nothing);
        link->end_sent = true;
        link->since_ms = now_ms;
        begin_exchange(link, &nothing, true);
    }
    if (link->exchanges)
        due_ms = link->exchanges->at_ms + ANSWER_MS;
    if (base->state != TD_HTTP_OPEN && link->since_ms + END_MS < due_ms)
        due_ms = link->since_ms + END_MS;
    if (now_ms >= due_ms && !base->peer_ended) {
        td_probe(link->carrier->env, TD_PROBE_EXCHANGE_GIVEN_UP);
        td_http_link_set_reason(base, TANDEM_E_TIMEOUT, "no answer in time");
        link->lost = true;
    }
    if (link->lost ||
        (base->state == TD_HTTP_ENDING && (!link->asking.answered || base->peer_ended)) ||
        (base->peer_ended && td_http_link_is_empty(base)))
        td_http_link_finish(base);
    else if (due_ms != UINT64_MAX && !base->peer_ended)
        td_http_link_look_in(base, due_ms - now_ms);
}

static const td_http_side dialed_side = {.look = look_at_dialed, .look_in = look_in, .stop = stop};

/* ---- The side that answers ---- */

static void take_requests(struct exchange_link *link)
{
    td_http_link *base = &link->base;
    struct exchange *exchange;

    DL_FOREACH(link->exchanges, exchange)
    {
        if (exchange->taken)
            continue;
        if (exchange->number != link->taken + 1)
            break;
        link->taken = exchange->number;
        exchange->taken = true;
        exchange->arrived = false;
        if (td_http_link_take(base, tandem_writer_slice(&exchange->body)) != TANDEM_OK) {
            lose(link, TANDEM_E_UNREACHABLE, "a request was changed on the way");
            return;
        }
        tandem_writer_clear(&exchange->body);
        if (link->pause_ms != exchange->pause_ms && base->state == TD_HTTP_OPEN &&
            base->events->paced)
            base->events->paced(base->context, exchange->pause_ms);
        link->pause_ms = exchange->pause_ms;
        if (*exchange->end)
            td_http_end_read(base, exchange->end);
    }
}

/* Answer the oldest one, if it is time. */
static bool answer_next(struct exchange_link *link, uint64_t now_ms)
{
    td_http_link *base = &link->base;
    struct exchange *exchange = link->exchanges;
    td_http_parked parked;

    if (!exchange || !exchange->taken)
        return false;
    parked = (td_http_parked){
        .number = exchange->number,
        .until_ms = exchange->at_ms + exchange->wait_ms,
        .hold = exchange->hold,
        .next_taken = exchange->next && exchange->next->taken,
    };
    if (!td_http_answer(base, &parked, link->told_full, now_ms, &exchange->body))
        return false;
    link->told_full = td_http_link_is_full(base);
    link->answered = exchange->number;
    exchange->hold = link->told_full;
    *exchange->end = 0;
    if (base->state == TD_HTTP_ENDING && !base->peer_ended) {
        td_http_end_write(base, exchange->end, sizeof(exchange->end));
        link->lost = true; /* it is said: the link is over */
    }
    send_parcel(link, ANSWER, exchange);
    DL_DELETE(link->exchanges, exchange);
    exchange_free(exchange);
    link->since_ms = now_ms;
    return true;
}

static void look_at_accepted(td_http_link *base)
{
    struct exchange_link *link = link_of(base);
    uint64_t now_ms = now_of(link), due_ms;

    if (base->state == TD_HTTP_OPENING && link->exchanges) {
        base->state = TD_HTTP_OPEN;
        base->wants = true;
        base->events->opened(base->context);
    }
    if (!link->lost)
        take_requests(link);
    td_http_link_deliver(base);
    look_at_inner(link);
    while (!link->lost && answer_next(link, now_ms))
        ;
    if (base->peer_ended && td_http_link_is_empty(base))
        link->lost = true;
    due_ms = link->since_ms + GONE_MS + link->pause_ms;
    if (link->exchanges && link->exchanges->taken)
        due_ms = link->exchanges->at_ms + link->exchanges->wait_ms;
    else if (now_ms >= due_ms && !base->peer_ended)
        lose(link, TANDEM_E_UNREACHABLE, "the client went away");
    if (base->state == TD_HTTP_ENDING) {
        link->ending_ms = link->ending_ms ? link->ending_ms : now_ms;
        due_ms = link->ending_ms + END_MS + link->pause_ms;
        link->lost = link->lost || base->peer_ended || now_ms >= due_ms;
    }
    if (link->lost)
        td_http_link_finish(base);
    else
        td_http_link_look_in(base, due_ms > now_ms ? due_ms - now_ms : GONE_MS);
}

static const td_http_side accepted_side = {
    .look = look_at_accepted, .look_in = look_in, .stop = stop};

/* ---- The inner link ---- */

static void inner_opened(void *context)
{
    struct exchange_link *link = context;
    tandem_writer nothing;

    if (!link->dialed || link->base.over)
        return;
    tandem_writer_init(&nothing);
    begin_exchange(link, &nothing, false);
    td_http_link_look_soon(&link->base);
}

static void request_came(struct exchange_link *link, const struct exchange *head,
                         tandem_slice body)
{
    unsigned allowed = TD_HTTP_UNDER_WAY_MAX + (*head->end ? 1 : 0);
    struct exchange *exchange;
    uint64_t come_bytes = 0;

    DL_FOREACH(link->exchanges, exchange)
        come_bytes += exchange->body.size;
    if (!td_http_link_has_room(&link->base, come_bytes, body.size)) {
        lose(link, TANDEM_E_PROTOCOL, "too much before a HELLO that was accepted");
        return;
    }
    DL_FOREACH(link->exchanges, exchange)
        if (exchange->number == head->number)
            break;
    if (exchange || head->number <= link->taken || head->number > link->answered + allowed) {
        td_probe(link->carrier->env, TD_PROBE_EXCHANGE_REPEATED);
        lose(link, TANDEM_E_UNREACHABLE, "an exchange came again, or out of order");
        return;
    }
    if (!(exchange = exchange_open(link, head->number))) {
        lose(link, TANDEM_E_NOMEM, "no memory for an exchange");
        return;
    }
    if (head->number > link->taken + 1)
        td_probe(link->carrier->env, TD_PROBE_EXCHANGE_OVERTOOK);
    if (head->hold)
        td_probe(link->carrier->env, TD_PROBE_EXCHANGE_HELD);
    exchange->arrived = true;
    exchange->hold = head->hold;
    exchange->wait_ms = head->wait_ms;
    exchange->pause_ms = head->pause_ms;
    memcpy(exchange->end, head->end, sizeof(exchange->end));
    tandem_write_raw(&exchange->body, body);
}

static void answer_came(struct exchange_link *link, const struct exchange *head, tandem_slice body)
{
    struct exchange *exchange;

    DL_FOREACH(link->exchanges, exchange)
        if (exchange->number == head->number && !exchange->arrived)
            break;
    if (!exchange)
        return; /* once more */
    exchange->arrived = true;
    exchange->hold = head->hold;
    memcpy(exchange->end, head->end, sizeof(exchange->end));
    tandem_write_raw(&exchange->body, body);
}

static void inner_message(void *context, tandem_slice bytes)
{
    struct exchange_link *link = context;
    struct exchange head = {.prev = NULL};
    tandem_slice body;
    uint64_t kind;

    if (link->base.over)
        return;
    if (!read_parcel(bytes, &kind, &head, &body) || kind != (link->dialed ? ANSWER : REQUEST))
        lose(link, TANDEM_E_UNREACHABLE, "an exchange was changed on the way");
    else if (link->dialed)
        answer_came(link, &head, body);
    else
        request_came(link, &head, body);
    td_http_link_look_soon(&link->base);
}

static tandem_err inner_writable(void *context, tandem_writer *out)
{
    struct exchange_link *link = context;
    struct parcel *parcel = link->parcels;

    if (!parcel) {
        if (link->base.over)
            close_inner(link);
        return TANDEM_END;
    }
    LL_DELETE(link->parcels, parcel);
    tandem_write_raw(out, tandem_writer_slice(&parcel->bytes));
    tandem_writer_release(&parcel->bytes);
    free(parcel);
    return TANDEM_OK;
}

/* Has something come that was not looked at yet? */
static bool has_arrived(const struct exchange_link *link)
{
    const struct exchange *exchange;

    DL_FOREACH(link->exchanges, exchange)
        if (exchange->arrived)
            return true;
    return false;
}

static void inner_closed(void *context, tandem_err err, const char *text)
{
    struct exchange_link *link = context;
    td_http_link *base = &link->base;

    (void)text;
    link->inner = NULL;
    if (base->over) {
        be_done(link);
        return;
    }
    link->inner_err = err < 0 ? err : TANDEM_E_UNREACHABLE;
    /* What came before it is heard before, in a turn: there may be nobody left to hear it now. */
    if (base->peer_ended || has_arrived(link)) {
        td_http_link_look_soon(base);
        return;
    }
    look_at_inner(link);
    td_http_link_finish(base);
}

static const td_connection_events inner_events = {
    .opened = inner_opened,
    .message = inner_message,
    .writable = inner_writable,
    .closed = inner_closed,
};

/* ---- The actor ---- */

static void handle(void *self, td_message *message)
{
    struct exchange_link *link =
        message->kind == TURN ? link_of_turn(message) : link_of_timer(message);

    (void)self;
    if (message->kind == TURN)
        link->turn_posted = false;
    else
        link->timed = false;
    if (link->done)
        link_free(link);
    else if (message->kind == LINGER)
        close_inner(link);
    else if (!link->base.over)
        link->base.side->look(&link->base);
}

static const td_actor_ops carrier_actor = {.name = "exchange_carrier", .handle = handle};

/* ---- The contract ---- */

static struct exchange_link *link_open(struct exchange_carrier *carrier, bool dialed)
{
    struct exchange_link *link = calloc(1, sizeof(*link));

    if (!link)
        return NULL;
    link->carrier = carrier;
    link->dialed = dialed;
    td_http_link_init(&link->base, dialed ? &dialed_side : &accepted_side);
    link->since_ms = now_of(link);
    DL_APPEND(carrier->links, link);
    return link;
}

static tandem_err exchange_check(const char *url)
{
    size_t length = strlen(url);

    return strncmp(url, "mem://", 6) == 0 && length > 11 && !strcmp(url + length - 5, "/http")
               ? TANDEM_OK
               : TANDEM_E_INVALID;
}

static tandem_err exchange_dial(td_carrier *base, const char *url,
                                const td_connection_events *events, void *context, td_link **out)
{
    struct exchange_carrier *carrier = (struct exchange_carrier *)base;
    td_network_link *outer;
    struct exchange_link *link;
    tandem_err err;

    if ((err = exchange_check(url)) != TANDEM_OK)
        return err;
    if (!(outer = td_network_link_open(base, events, context)))
        return TANDEM_E_NOMEM;
    if (!(link = link_open(carrier, true))) {
        free(outer);
        return TANDEM_E_NOMEM;
    }
    link->base.events = &td_network_link_events;
    link->base.context = outer;
    if ((err = carrier->inner->ops->dial(carrier->inner, url, &inner_events, link,
                                         &link->inner)) != TANDEM_OK) {
        free(outer);
        link_free(link);
        return err;
    }
    td_http_link_look_soon(&link->base);
    outer->moves = &link->base;
    *out = &outer->base;
    return TANDEM_OK;
}

static tandem_err accept_inner(void *context, td_link *inner,
                               const td_connection_events **events_out, void **context_out)
{
    struct exchange_carrier *carrier = context;
    struct exchange_link *link;
    tandem_err err;

    if (!(link = link_open(carrier, false)))
        return TANDEM_E_NOMEM;
    if ((err = td_network_link_accept(&carrier->acceptor, &link->base, &link->base.events,
                                      &link->base.context)) != TANDEM_OK) {
        link_free(link);
        return err;
    }
    link->inner = inner;
    td_http_link_look_in(&link->base, GONE_MS);
    *events_out = &inner_events;
    *context_out = link;
    return TANDEM_OK;
}

static tandem_err exchange_listen(td_carrier *base, const char *address, uint16_t port,
                                  td_link_accept_fn accept, void *context, char url_out[128])
{
    struct exchange_carrier *carrier = (struct exchange_carrier *)base;

    (void)address;
    (void)port;
    carrier->acceptor = (td_link_acceptor){base, accept, context};
    td_memory_carrier_serve_exchanges(carrier->inner, accept_inner, carrier, url_out);
    return TANDEM_OK;
}

static uint64_t exchange_rejected(const td_carrier *carrier)
{
    (void)carrier;
    return 0;
}

static td_http_link *moves_of(td_link *link)
{
    return td_network_link_moves(link);
}

static void exchange_want_write(td_link *link)
{
    td_http_link_want_write(moves_of(link));
}

static void exchange_hold(td_link *link, bool hold)
{
    td_http_link_hold(moves_of(link), hold);
}

static bool exchange_pace(td_link *outer, uint64_t pause_ms)
{
    struct exchange_link *link = link_of(moves_of(outer));

    link->asking.pause_ms = pause_ms;
    td_http_link_look_soon(&link->base);
    return true;
}

static void exchange_poll(td_link *outer)
{
    struct exchange_link *link = link_of(moves_of(outer));

    link->asking.polled = true;
    td_http_link_look_soon(&link->base);
}

static void exchange_close(td_link *link, tandem_err err, const char *text)
{
    td_http_link_close(moves_of(link), err, text);
}

static void carrier_free(td_carrier *base)
{
    struct exchange_carrier *carrier = (struct exchange_carrier *)base;
    struct exchange_link *link, *next;

    if (!carrier)
        return;
    DL_FOREACH_SAFE(carrier->links, link, next)
    {
        assert(!link->inner);
        if (link->base.over)
            continue;
        td_http_link_set_reason(&link->base, TANDEM_OK, "the carrier is closed");
        td_http_link_finish(&link->base);
    }
    td_actor_free(carrier->actor); /* drops what frees the links */
    assert(!carrier->links);
    free(carrier);
}

static const td_carrier_ops exchange_ops = {
    .scheme = "mem/http",
    .packs = true,
    .check = exchange_check,
    .dial = exchange_dial,
    .listen = exchange_listen,
    .rejected = exchange_rejected,
    .want_write = exchange_want_write,
    .hold = exchange_hold,
    .pace = exchange_pace,
    .poll = exchange_poll,
    .close = exchange_close,
    .free = carrier_free,
};

tandem_err td_exchange_carrier_open(td_host *host, td_carrier *inner, td_carrier **out)
{
    struct exchange_carrier *carrier = calloc(1, sizeof(*carrier));
    tandem_err err;

    if (!carrier)
        return TANDEM_E_NOMEM;
    carrier->base.ops = &exchange_ops;
    carrier->inner = inner;
    carrier->env = host->runtime->env;
    if ((err = td_actor_open(host, &carrier_actor, carrier, &carrier->actor)) != TANDEM_OK) {
        free(carrier);
        return err;
    }
    *out = &carrier->base;
    return TANDEM_OK;
}
