/*
 * Answering exchanges.
 *
 * A request belongs to its connection, and to its link from its headers on until the answer has left
 * or either is gone. What comes of a request only changes the exchange; the link decides in look()
 * what is answered, strictly by number:
 *
 *   at once    the first one; if there is something to say; if the next one has come; if the other
 *              side was told to hold back and need not any more
 *   after 20 s if none of these, or sooner if the client says so
 *
 * A link that is full (held, and something waits) leaves its exchanges unanswered, and by that the
 * other side without one to send; if it must speak itself, it answers and says "Tandem-Hold".
 *
 * Of libwebsockets: a request without a body leaves its connection in a state in which hanging up is
 * not noticed and makes the loop spin, so a body has at least a length of zero in it; and a request
 * that comes before the answer to the one before is reported as that one's body, complete once more.
 */
#include "transport/http_server.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "transport/connection.h"

enum {
    LINKS_MAX = TD_NETWORK_CONNECTIONS_MAX, /* and open WebSockets together */
    BYTES_PER_TURN = 1 << 20,
    LIMIT_RETRY_S = 5,
    END_VALUE_BYTES = 160,
    STATUS_OK = 200,
    STATUS_BAD = 400,
    STATUS_NOT_POST = 426, /* as for anything else that is no upgrade */
    STATUS_CONFLICT = 409,
    STATUS_GONE = 410,
    STATUS_NO_LENGTH = 411,
    STATUS_TOO_LARGE = 413,
    STATUS_TYPE = 415,
    STATUS_UNAVAILABLE = 503,
};

struct td_http_exchange {
    td_http_exchange *prev, *next; /* of its link, by number */
    td_connection *connection;
    td_http_server_link *link; /* NULL: refused, opening one, or the link is over */
    uint64_t number;
    uint64_t size; /* of the request's body, as it claims */
    uint8_t id[TD_HTTP_LINK_BYTES];
    bool hold;     /* the client takes no messages in the answer */
    bool complete; /* the body is there */
    bool taken;    /* its messages are the link's */
    bool answered; /* the answer is on its way */
    bool hang_up;  /* after it */
    bool come_back; /* refused for now: Retry-After */
    unsigned refusal; /* the status that it gets; 0: none yet */
    const char *why;
    char end[END_VALUE_BYTES]; /* of the header Tandem-End; "": none */
    tandem_writer body;        /* of the request, then of the answer */
    char head[512];            /* of the answer */
    size_t head_size, sent;    /* sent: of both together */
    uint64_t complete_ms;
    uint64_t wait_ms;  /* from then on it may be kept, with nothing to say */
    uint64_t pause_ms; /* after the answer the next one may take so long */
};

struct td_http_server_link {
    td_http_link base;
    uv_timer_t timer;
    td_network *network;
    td_http_server_link *prev, *next;
    uint8_t id[TD_HTTP_LINK_BYTES];
    uint64_t taken, answered;     /* numbers of the last ones */
    td_http_exchange *exchanges;  /* not yet answered, or the answer is on its way */
    bool told_full;               /* the last answer said "hold" */
    bool lost;                    /* an exchange was */
    uint64_t ending_ms;           /* of the loop's clock: since when */
    uint64_t gone_ms;             /* without an exchange it is gone then */
    uint64_t pause_ms;            /* of the last exchange */
};

static td_http_server_link *link_of(td_http_link *base)
{
    return (td_http_server_link *)base;
}

/* ---- Answers ---- */

static const char *name_of_status(unsigned status)
{
    switch (status) {
    case STATUS_OK:
        return "OK";
    case STATUS_BAD:
        return "Bad Request";
    case HTTP_STATUS_FORBIDDEN:
        return "Forbidden";
    case HTTP_STATUS_NOT_FOUND:
        return "Not Found";
    case STATUS_CONFLICT:
        return "Conflict";
    case STATUS_GONE:
        return "Gone";
    case STATUS_NO_LENGTH:
        return "Length Required";
    case STATUS_TOO_LARGE:
        return "Content Too Large";
    case STATUS_TYPE:
        return "Unsupported Media Type";
    case STATUS_NOT_POST:
        return "Upgrade Required";
    default:
        return "Service Unavailable";
    }
}

/* Write the head of the answer whose body is there, and have it sent. extra: whole header lines. The
 * length is the last one: there are clients that take a head that is cut off for a whole one. */
static void send_answer(td_http_exchange *exchange, unsigned status, const char *type,
                        const char *extra)
{
    td_connection *connection = exchange->connection;
    int size = snprintf(exchange->head, sizeof(exchange->head),
                        "HTTP/1.1 %u %s\r\nContent-Type: %s\r\nCache-Control: no-store\r\n"
                        "%s%sContent-Length: %zu\r\n\r\n",
                        status, name_of_status(status), type, extra,
                        exchange->hang_up ? "Connection: close\r\n" : "", exchange->body.size);

    assert(size > 0 && (size_t)size < sizeof(exchange->head));
    exchange->head_size = (size_t)size;
    exchange->sent = 0;
    exchange->answered = true;
    td_connection_set_deadline(connection);
    lws_callback_on_writable(connection->wsi);
    td_network_wake(connection->network);
}

/* Answer with a status and a line of text. */
static void refuse(td_http_exchange *exchange, unsigned status, const char *why)
{
    char retry[40] = "", line[200];

    if (exchange->come_back)
        snprintf(retry, sizeof(retry), "Retry-After: %d\r\n", LIMIT_RETRY_S);
    snprintf(line, sizeof(line), "%s\n", why);
    tandem_writer_clear(&exchange->body);
    tandem_write_raw(&exchange->body, tandem_slice_text(line));
    if (tandem_writer_err(&exchange->body) != TANDEM_OK)
        tandem_writer_clear(&exchange->body);
    exchange->refusal = status;
    exchange->hang_up = true;
    send_answer(exchange, status, "text/plain", retry);
}

static void forget_exchange(td_connection *connection)
{
    td_http_exchange *exchange = connection->exchange;

    connection->exchange = NULL;
    if (exchange->link) {
        DL_DELETE(exchange->link->exchanges, exchange);
        memcpy(connection->answered_link, exchange->id, sizeof(exchange->id));
        exchange->link->gone_ms = uv_now(connection->network->loop) + TD_HTTP_GONE_S * 1000 +
                                  exchange->link->pause_ms;
        td_http_link_look_soon(&exchange->link->base);
    }
    tandem_writer_release(&exchange->body);
    free(exchange);
}

/* Copy what comes next of head and body. */
static size_t next_bytes(const td_http_exchange *exchange, uint8_t *out, size_t room)
{
    size_t used = 0, at = exchange->sent, left;

    if (at < exchange->head_size) {
        used = exchange->head_size - at;
        memcpy(out, exchange->head + at, used);
        at = exchange->head_size;
    }
    at -= exchange->head_size;
    left = exchange->body.size - at;
    if (left > room - used)
        left = room - used;
    if (left)
        memcpy(out + used, exchange->body.bytes + at, left);
    return used + left;
}

int td_http_server_room(td_connection *connection)
{
    td_network *network = connection->network;
    td_http_exchange *exchange = connection->exchange;
    struct lws *wsi = connection->wsi;
    size_t total, budget = BYTES_PER_TURN;
    bool hang_up;

    if (!exchange || !exchange->answered)
        return 0;
    total = exchange->head_size + exchange->body.size;
    /* What libwebsockets has buffered is not sent yet: it must not take the answer for finished. */
    while (exchange->sent < total || lws_partial_buffered(wsi)) {
        uint8_t *frame = network->frame + LWS_PRE;
        size_t size;

        if (lws_send_pipe_choked(wsi) || !budget) {
            lws_callback_on_writable(wsi);
            return 0;
        }
        size = next_bytes(exchange, frame, TD_NETWORK_FRAME_BYTES);
        if (lws_write(wsi, frame, size, LWS_WRITE_HTTP) < (int)size)
            return -1;
        exchange->sent += size;
        budget -= size < budget ? size : budget;
    }
    hang_up = exchange->hang_up;
    forget_exchange(connection);
    td_connection_set_deadline(connection);
    return hang_up || lws_http_transaction_completed(wsi) ? -1 : 0;
}

/* ---- Links ---- */

static td_http_server_link *find_link(td_network *network, const uint8_t *id)
{
    td_http_server_link *link;

    DL_FOREACH(network->links, link)
        if (memcmp(link->id, id, TD_HTTP_LINK_BYTES) == 0)
            return link;
    return NULL;
}

/* Out of the network: what it still had to answer is answered, what is on its way goes on. */
static void finish(td_http_server_link *link)
{
    td_http_exchange *exchange, *next;

    DL_FOREACH_SAFE(link->exchanges, exchange, next) {
        exchange->link = NULL;
        if (!exchange->complete) {
            exchange->refusal = STATUS_GONE;
            exchange->why = "the link has ended";
        } else if (!exchange->answered) {
            refuse(exchange, STATUS_GONE, "the link has ended");
        }
    }
    link->exchanges = NULL;
    DL_DELETE(link->network->links, link);
    link->network->serving--;
    td_http_link_finish(&link->base);
}

static void on_timer_closed(uv_handle_t *handle)
{
    td_http_server_link *link = link_of(handle->data);

    link->network->handles--;
    td_http_link_release(&link->base);
    free(link);
}

static void look_in(td_http_link *base, uint64_t delay_ms)
{
    td_http_timer_look_in(&link_of(base)->timer, delay_ms);
}

static void stop(td_http_link *base)
{
    uv_close((uv_handle_t *)&link_of(base)->timer, on_timer_closed);
}

static void lose(td_http_server_link *link, tandem_err err, const char *text)
{
    td_http_link_set_reason(&link->base, err, "%s", text);
    link->lost = true;
    td_http_link_look_soon(&link->base);
}

/* The client long-polls, or does not: the user is told when that changes. */
static void take_pace(td_http_server_link *link, const td_http_exchange *exchange)
{
    td_http_link *base = &link->base;

    if (link->pause_ms == exchange->pause_ms)
        return;
    link->pause_ms = exchange->pause_ms;
    if (base->state == TD_HTTP_OPEN && base->events->paced)
        base->events->paced(base->context, link->pause_ms);
}

/* What has come in order becomes the link's. */
static void take_exchanges(td_http_server_link *link)
{
    td_http_exchange *exchange;

    DL_FOREACH(link->exchanges, exchange) {
        tandem_err err;

        if (exchange->taken)
            continue;
        if (!exchange->complete || exchange->number != link->taken + 1)
            break;
        link->taken = exchange->number;
        exchange->taken = true;
        err = td_http_link_take(&link->base, tandem_writer_slice(&exchange->body));
        tandem_writer_clear(&exchange->body);
        if (err != TANDEM_OK) {
            link->answered = exchange->number;
            refuse(exchange, err == TANDEM_E_NOMEM ? STATUS_UNAVAILABLE : STATUS_BAD,
                   "the body is no sequence of messages, or more than was allowed");
            lose(link, err, "an exchange has a body that is no sequence of messages");
            return;
        }
        take_pace(link, exchange);
        if (*exchange->end)
            td_http_end_read(&link->base, exchange->end);
    }
}

static td_http_exchange *oldest_unanswered(td_http_server_link *link)
{
    td_http_exchange *exchange;

    DL_FOREACH(link->exchanges, exchange)
        if (!exchange->answered)
            return exchange->taken ? exchange : NULL;
    return NULL;
}

/* Answer the oldest exchange, if it is time. */
static bool answer_next(td_http_server_link *link, uint64_t now_ms)
{
    td_http_exchange *exchange = oldest_unanswered(link);
    td_http_link *base = &link->base;
    char extra[sizeof("Tandem-Hold: 1\r\nTandem-End: \r\n") + END_VALUE_BYTES] = "";
    td_http_parked parked;
    size_t used = 0;
    bool ends;

    if (!exchange)
        return false;
    parked = (td_http_parked){
        .number = exchange->number,
        .until_ms = exchange->complete_ms + exchange->wait_ms,
        .hold = exchange->hold,
        .next_taken = exchange->next && exchange->next->taken,
    };
    if (!td_http_answer(base, &parked, link->told_full, now_ms, &exchange->body))
        return false;
    ends = base->state == TD_HTTP_ENDING && !base->peer_ended;
    link->told_full = td_http_link_is_full(base);
    link->answered = exchange->number;
    if (link->told_full)
        used += (size_t)snprintf(extra, sizeof(extra), "Tandem-Hold: 1\r\n");
    if (ends) {
        char value[END_VALUE_BYTES];

        td_http_end_write(base, value, sizeof(value));
        snprintf(extra + used, sizeof(extra) - used, "Tandem-End: %s\r\n", value);
        exchange->hang_up = true;
    }
    send_answer(exchange, STATUS_OK, TD_HTTP_TYPE, extra);
    if (ends)
        link->lost = true; /* it is said: the link is over */
    return true;
}

/* So long it may take until there is an exchange to say the end in. */
static uint64_t ended_by_ms(const td_http_server_link *link)
{
    return link->ending_ms + TD_NETWORK_CLOSE_S * 1000 + link->pause_ms;
}

/* When does time alone change something? In milliseconds from now. */
static uint64_t next_deadline(const td_http_server_link *link, uint64_t now_ms)
{
    const td_http_exchange *exchange = link->exchanges;
    uint64_t at_ms = UINT64_MAX;

    while (exchange && exchange->answered)
        exchange = exchange->next;
    if (exchange && exchange->taken)
        at_ms = exchange->complete_ms + exchange->wait_ms;
    else if (!link->exchanges && !link->base.peer_ended)
        at_ms = link->gone_ms;
    if (link->base.state == TD_HTTP_ENDING && ended_by_ms(link) < at_ms)
        at_ms = ended_by_ms(link);
    if (at_ms == UINT64_MAX)
        return UINT64_MAX;
    return at_ms > now_ms ? at_ms - now_ms : 0;
}

static void look(td_http_link *base)
{
    td_http_server_link *link = link_of(base);
    uint64_t now_ms = uv_now(link->network->loop), wait_ms;

    if (base->state == TD_HTTP_OPENING) {
        base->state = TD_HTTP_OPEN;
        base->wants = true;
        base->events->opened(base->context);
    }
    if (!link->lost)
        take_exchanges(link);
    td_http_link_deliver(base);
    while (!link->lost && answer_next(link, now_ms))
        ;
    if (base->peer_ended && td_http_link_is_empty(base))
        link->lost = true;
    if (!link->exchanges && !base->peer_ended && now_ms >= link->gone_ms) {
        td_http_link_set_reason(base, TANDEM_E_UNREACHABLE, "the client went away");
        link->lost = true;
    }
    if (base->state == TD_HTTP_ENDING) {
        link->ending_ms = link->ending_ms ? link->ending_ms : now_ms;
        if (base->peer_ended || now_ms >= ended_by_ms(link))
            link->lost = true;
    }
    if (link->lost) {
        finish(link);
        return;
    }
    if ((wait_ms = next_deadline(link, now_ms)) != UINT64_MAX)
        td_http_link_look_in(base, wait_ms);
}

static const td_http_side server_side = {.look = look, .look_in = look_in, .stop = stop};

/* ---- Opening ---- */

/* The first exchange of a link is complete. */
static void open_link(td_http_exchange *exchange)
{
    td_network *network = exchange->connection->network;
    td_http_server_link *link;
    tandem_err err;

    if (find_link(network, exchange->id)) {
        refuse(exchange, STATUS_CONFLICT, "there is a link of that name");
        return;
    }
    if (network->serving >= LINKS_MAX || !(link = calloc(1, sizeof(*link)))) {
        network->rejected++;
        exchange->come_back = true;
        refuse(exchange, STATUS_UNAVAILABLE, "too many links");
        return;
    }
    link->network = network;
    memcpy(link->id, exchange->id, sizeof(link->id));
    td_http_link_init(&link->base, &server_side);
    td_http_timer_init(&link->timer, network->loop, &link->base);
    network->handles++;
    network->serving++;
    DL_APPEND(network->links, link);
    err = network->http_accept(network->http_context, &link->base, &link->base.events,
                               &link->base.context);
    if (err != TANDEM_OK) {
        link->base.events = NULL;
        td_http_link_set_reason(&link->base, err, "%s", tandem_err_text(err));
        finish(link);
        exchange->come_back = err == TANDEM_E_LIMIT;
        refuse(exchange, STATUS_UNAVAILABLE, tandem_err_text(err));
        return;
    }
    assert(link->base.events);
    exchange->link = link;
    DL_APPEND(link->exchanges, exchange);
    td_http_link_look_soon(&link->base);
}

/* ---- Requests ---- */

static bool read_number(const char *text, uint64_t *out)
{
    char *end;

    if (!isdigit((unsigned char)*text) || strlen(text) > 18)
        return false;
    *out = strtoull(text, &end, 10);
    return !*end;
}

static bool read_id(const char *text, uint8_t *out)
{
    if (strlen(text) != 2 * TD_HTTP_LINK_BYTES)
        return false;
    for (int i = 0; i < 2 * TD_HTTP_LINK_BYTES; i++) {
        const char *digit = strchr("0123456789abcdef", text[i]);

        if (!digit)
            return false;
        out[i / 2] = (uint8_t)(out[i / 2] << 4 | (digit - "0123456789abcdef"));
    }
    return true;
}

/* The value of one of our own headers; "" if there is none. */
static void read_header(struct lws *wsi, const char *name, char *out, size_t size)
{
    if (lws_hdr_custom_copy(wsi, out, (int)size, name, (int)strlen(name)) <= 0)
        *out = '\0';
}

/* A number up to max, greater ones count as that; missing is what it is without the header. */
static bool read_limit(struct lws *wsi, const char *name, uint64_t missing, uint64_t max,
                       uint64_t *out)
{
    char text[END_VALUE_BYTES];

    read_header(wsi, name, text, sizeof(text));
    *out = missing;
    if (*text && !read_number(text, out))
        return false;
    *out = *out < max ? *out : max;
    return true;
}

/* The status that refuses this request, and why, or 0. It fills in the exchange. */
static unsigned judge(td_connection *connection, td_http_exchange *exchange, const char **why)
{
    struct lws *wsi = connection->wsi;
    char text[END_VALUE_BYTES];
    int status;

    *why = "this speaks WebSocket, and HTTP by POST";
    if (!connection->network->http_accept || !lws_hdr_total_length(wsi, WSI_TOKEN_POST_URI))
        return STATUS_NOT_POST;
    *why = "not from there, or not to here";
    if ((status = td_server_judge_request(connection->listener, wsi, WSI_TOKEN_POST_URI)) != 0)
        return (unsigned)status;
    *why = "a body of known length is wanted";
    if (lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_TRANSFER_ENCODING) ||
        lws_hdr_copy(wsi, text, sizeof(text), WSI_TOKEN_HTTP_CONTENT_LENGTH) <= 0 ||
        !read_number(text, &exchange->size))
        return STATUS_NO_LENGTH;
    *why = "the body is too large";
    if (exchange->size > TD_HTTP_BODY_BYTES_MAX)
        return STATUS_TOO_LARGE;
    *why = "the type is to be " TD_HTTP_TYPE;
    if (lws_hdr_copy(wsi, text, sizeof(text), WSI_TOKEN_HTTP_CONTENT_TYPE) <= 0 ||
        strcmp(text, TD_HTTP_TYPE) != 0)
        return STATUS_TYPE;
    *why = "a body has four bytes at least";
    if (exchange->size < TD_HTTP_LENGTH_BYTES)
        return STATUS_BAD;
    *why = "Tandem-Link or Tandem-Exchange is missing or malformed";
    read_header(wsi, "tandem-link:", text, sizeof(text));
    if (!read_id(text, exchange->id))
        return STATUS_BAD;
    read_header(wsi, "tandem-exchange:", text, sizeof(text));
    if (!read_number(text, &exchange->number) || !exchange->number)
        return STATUS_BAD;
    *why = "the body is too large for the first exchange";
    if (exchange->number == 1 && exchange->size > TD_OPENING_BYTES_MAX)
        return STATUS_TOO_LARGE;
    if (!read_limit(wsi, "tandem-wait:", TD_HTTP_POLL_S * 1000, TD_HTTP_POLL_S * 1000,
                    &exchange->wait_ms) ||
        !read_limit(wsi, "tandem-pause:", 0, TD_HTTP_PAUSE_S_MAX, &exchange->pause_ms)) {
        *why = "Tandem-Wait or Tandem-Pause is malformed";
        return STATUS_BAD;
    }
    exchange->pause_ms *= 1000;
    read_header(wsi, "tandem-hold:", text, sizeof(text));
    exchange->hold = strcmp(text, "1") == 0;
    read_header(wsi, "tandem-end:", exchange->end, sizeof(exchange->end));
    return 0;
}

/* Put it where its number says. False: it does not fit there. */
static bool join(td_http_server_link *link, td_http_exchange *exchange)
{
    unsigned allowed = TD_HTTP_UNDER_WAY_MAX + (*exchange->end ? 1 : 0);
    td_http_exchange *later;

    if (exchange->number <= link->taken || exchange->number > link->answered + allowed)
        return false;
    DL_FOREACH(link->exchanges, later) {
        if (later->number == exchange->number)
            return false;
        if (later->number > exchange->number)
            break;
    }
    exchange->link = link;
    if (later)
        DL_PREPEND_ELEM(link->exchanges, later, exchange);
    else
        DL_APPEND(link->exchanges, exchange);
    return true;
}

/* Is there room for its body, beside those that have come or are on their way? */
static bool has_room(const td_http_server_link *link, const td_http_exchange *exchange)
{
    const td_http_exchange *other;
    uint64_t come_bytes = 0;

    DL_FOREACH(link->exchanges, other)
        if (!other->taken)
            come_bytes += other->size;
    return td_http_link_has_room(&link->base, come_bytes, exchange->size);
}

/* Find the link of a request that is in order so far. */
static void find_place(td_connection *connection, td_http_exchange *exchange)
{
    td_http_server_link *link = find_link(connection->network, exchange->id);

    if (!link && exchange->number == 1)
        return;
    if (link && !link->lost && !has_room(link, exchange)) {
        /* Of one that overtakes others it cannot be said that its client knew. */
        bool early = exchange->number > link->taken + 1;

        exchange->refusal = early ? STATUS_CONFLICT : STATUS_TOO_LARGE;
        exchange->why = TD_TOO_MUCH_TEXT;
        lose(link, early ? TANDEM_E_UNREACHABLE : TANDEM_E_PROTOCOL, TD_TOO_MUCH_TEXT);
        return;
    }
    if (link && !link->lost && join(link, exchange))
        return;
    exchange->refusal = STATUS_CONFLICT;
    exchange->why = link ? "that exchange is out of order" : "there is no such link";
    if (link)
        lose(link, TANDEM_E_UNREACHABLE, "an exchange came again, or out of order");
}

int td_http_server_request(td_connection *connection)
{
    td_http_exchange *exchange;
    const char *why = NULL;
    unsigned status;

    if (connection->exchange || !(exchange = calloc(1, sizeof(*exchange))))
        return -1;
    exchange->connection = connection;
    tandem_writer_init(&exchange->body);
    status = judge(connection, exchange, &why);
    if (status) {
        char line[100];

        /* Whoever is refused here is no peer: no byte more is read. */
        td_log(connection->network->env, TANDEM_LOG_DEBUG, "network", "a request is refused (%u)",
               status);
        free(exchange);
        if (connection->established)
            connection->network->rejected++;
        snprintf(line, sizeof(line), "%s", why);
        lws_return_http_status(connection->wsi, status, line);
        return -1;
    }
    connection->established = true;
    connection->state = TD_CONNECTION_HTTP;
    connection->exchange = exchange;
    find_place(connection, exchange);
    td_connection_set_deadline(connection);
    return 0;
}

int td_http_server_body(td_connection *connection, const void *bytes, size_t size)
{
    td_http_exchange *exchange = connection->exchange;

    if (!exchange || exchange->complete)
        return -1;
    if (exchange->refusal)
        return 0;
    if (exchange->body.size + size > TD_HTTP_BODY_BYTES_MAX)
        return -1;
    tandem_write_raw(&exchange->body, tandem_slice_of(bytes, size));
    return tandem_writer_err(&exchange->body) == TANDEM_OK ? 0 : -1;
}

int td_http_server_complete(td_connection *connection)
{
    td_http_exchange *exchange = connection->exchange;

    if (!exchange || exchange->complete)
        return -1; /* a request before the answer to the one before */
    exchange->complete = true;
    exchange->complete_ms = uv_now(connection->network->loop);
    lws_set_timeout(connection->wsi, NO_PENDING_TIMEOUT, 0);
    td_connection_set_deadline(connection);
    if (exchange->refusal)
        refuse(exchange, exchange->refusal, exchange->why);
    else if (exchange->link)
        td_http_link_look_soon(&exchange->link->base);
    else
        open_link(exchange);
    return 0;
}

unsigned td_http_server_deadline_s(const td_connection *connection)
{
    const td_http_exchange *exchange = connection->exchange;

    if (!exchange)
        return 2 * TD_HTTP_IDLE_S; /* libwebsockets should have done it */
    if (!exchange->complete)
        return TD_HTTP_BODY_S;
    return exchange->answered ? TD_NETWORK_MESSAGE_S : 0;
}

void td_http_server_late(td_connection *connection)
{
    const td_http_exchange *exchange = connection->exchange;

    if (exchange && exchange->answered)
        td_connection_set_reason(connection, TANDEM_E_TIMEOUT, 0,
                                 "an answer was not taken within %d s", TD_NETWORK_MESSAGE_S);
    else if (exchange)
        td_connection_set_reason(connection, TANDEM_E_TIMEOUT, 0,
                                 "a request was not finished within %d s", TD_HTTP_BODY_S);
}

void td_http_server_gone(td_connection *connection)
{
    td_http_server_link *link;

    if (!connection->exchange)
        return;
    link = connection->exchange->link;
    forget_exchange(connection);
    if (link && !link->base.peer_ended)
        lose(link, connection->err, connection->text);
}

/* Between two exchanges a client may change connections, but one that hangs up and sends no more is
 * gone: whoever comes in its place should not find it still there. */
void td_http_server_hung_up(td_connection *connection)
{
    td_http_server_link *link = find_link(connection->network, connection->answered_link);
    uint64_t gone_ms = uv_now(connection->network->loop) + TD_HTTP_HUNG_UP_S * 1000;

    if (!link || link->exchanges || link->gone_ms <= (gone_ms += link->pause_ms))
        return;
    link->gone_ms = gone_ms;
    td_http_link_look_soon(&link->base);
}

void td_http_server_free_links(td_network *network)
{
    td_http_server_link *link, *next;
    td_http_exchange *exchange, *following;

    DL_FOREACH_SAFE(network->links, link, next) {
        DL_FOREACH_SAFE(link->exchanges, exchange, following)
            exchange->link = NULL;
        link->exchanges = NULL;
        td_http_link_set_reason(&link->base, TANDEM_OK, "the network was shut down");
        finish(link);
    }
}

void td_network_serve_http(td_network *network, td_http_accept_fn accept, void *context)
{
    network->http_accept = accept;
    network->http_context = context;
}
