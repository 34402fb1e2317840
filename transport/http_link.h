/*
 * A link over HTTP: whole messages both ways, over a series of exchanges (PROTOCOL.md, section 2).
 *
 * To its user it is what a connection of network.h is: sending is asked for and pulled by
 * writable(), receiving can be held, closed() comes exactly once and never from within close(). This
 * file holds what both sides of a link share: the framing of bodies, delivery, the reason to end; and
 * the rules of when an exchange begins and when it is answered. The sides are http_client.c, which
 * dials, and http_server.c, which answers; the simulator has both without HTTP, by the same rules
 * (channel/exchange_channel.c).
 *
 * Whatever happens to a link, by a call, an exchange or time, only marks it and has it looked at: a
 * side's look() does what can be done, always from the loop. So nothing here is called back from
 * within a call, and no state can be left waiting for a call that never comes.
 *
 *      opening ──> open ──> ending ──> closed() ──> freed with its timer
 *         └───────────┴────────^
 *
 * Nothing queues: what has come and cannot be delivered is at most what two exchanges carry, and
 * the other side is told to send no more. Messages to send are pulled when an exchange leaves.
 *
 * Threads: the loop host's thread.
 */
#ifndef TANDEM_TRANSPORT_HTTP_LINK_H
#define TANDEM_TRANSPORT_HTTP_LINK_H

#include <uv.h>

#include "transport/network.h"
#include "transport/wire.h"

#define TD_HTTP_TYPE "application/vnd.tandem.1"

enum {
    TD_HTTP_LINK_BYTES = 16, /* an id; twice as many digits */
    TD_HTTP_LENGTH_BYTES = 4, /* before each message in a body */
    /* What a body may hold: 1 MiB, and the message that crosses that line. */
    TD_HTTP_BODY_BYTES_MAX = 2 * (TD_MESSAGE_BYTES_MAX + TD_HTTP_LENGTH_BYTES),
    TD_HTTP_GREETING_MESSAGES = 2, /* HELLO, and the first HAVE */
    TD_HTTP_FILL_BYTES = 256 * 1024, /* no further message is added to a body that has so much */
    TD_HTTP_UNDER_WAY_MAX = 2,       /* exchanges; one more that ends the link */
    TD_HTTP_POLL_S = 20,  /* an exchange with nothing to say is answered after so long, at most */
    TD_HTTP_AWAIT_MS = 1000, /* a client that does not long-poll waits so long for what it awaits */
    TD_HTTP_PAUSE_S_MAX = 3600, /* between two exchanges of such a client */
    TD_HTTP_GONE_S = 60,  /* a link without an exchange is gone after so long … */
    TD_HTTP_HUNG_UP_S = 2, /* … or so long after its client closed the connection */
    TD_HTTP_BODY_S = 30,  /* from the headers of a request to the end of its body */
    TD_HTTP_IDLE_S = 5,   /* a connection without a request is closed after so long */
    TD_HTTP_END_TEXT_BYTES_MAX = 123,
};

typedef struct td_http_link td_http_link;

typedef enum td_http_state {
    TD_HTTP_OPENING,
    TD_HTTP_OPEN,
    TD_HTTP_ENDING, /* nothing is called any more but closed() */
} td_http_state;

/* What the two sides do differently. */
typedef struct td_http_side {
    /* Do what can be done now. It may end the link; it is not called from within itself. */
    void (*look)(td_http_link *link);
    /* Have look() called from the loop in so long, if not sooner. */
    void (*look_in)(td_http_link *link, uint64_t delay_ms);
    /* The link is over, closed() comes next: look() is not to be called any more, and when no turn
     * stands on it any more, td_http_link_release() and free it. */
    void (*stop)(td_http_link *link);
} td_http_side;

struct td_http_link {
    const td_http_side *side;
    const td_connection_events *events; /* NULL: nobody is told anything */
    void *context;
    td_http_state state;
    bool over;  /* closed() was called */
    bool held;  /* receiving is */
    bool wants; /* writable() may have something */
    bool peer_ended; /* after what has come nothing more will */
    tandem_writer in; /* what has come: whole, valid bodies, … */
    size_t in_at;     /* … delivered up to here */
    tandem_writer message; /* the one being pulled */

    /* The first reason to end counts. */
    bool has_reason;
    tandem_err err;
    unsigned close_code; /* as of WebSocket: connection.h */
    char text[160];
    uint64_t retry_after_ms;
};

/* ---- For users ---- */

void td_http_link_want_write(td_http_link *link);
/* Stop or resume receiving; within message() it takes effect at once. */
void td_http_link_hold(td_http_link *link, bool hold);
/* Close after what was already pulled. As td_connection_close(). */
void td_http_link_close(td_http_link *link, tandem_err err, const char *text);

/* ---- For the sides ---- */

void td_http_link_init(td_http_link *link, const td_http_side *side);
void td_http_link_release(td_http_link *link);
/* Look from the loop, soon or (if not sooner) in so many milliseconds. */
void td_http_link_look_soon(td_http_link *link);
void td_http_link_look_in(td_http_link *link, uint64_t delay_ms);
/* A body came: check its framing and keep it. TANDEM_E_PROTOCOL, TANDEM_E_NOMEM. */
tandem_err td_http_link_take(td_http_link *link, tandem_slice body);
/* Deliver what can be delivered; the link may be ending afterwards. */
void td_http_link_deliver(td_http_link *link);
/* Is all delivered that came? */
bool td_http_link_is_empty(const td_http_link *link);
/* Held, and something waits to be delivered: the other side is to send no more. */
bool td_http_link_is_full(const td_http_link *link);
/* May so much more come of the other side, where so much has come and is not taken yet? Little may
 * until it is known. */
bool td_http_link_has_room(const td_http_link *link, uint64_t come_bytes, uint64_t more_bytes);
/* Append what there is to send to body, which is empty, but no more than so many messages. The link
 * may be ending afterwards. */
void td_http_link_fill(td_http_link *link, tandem_writer *body, unsigned messages_max);
/* Record why it ends, unless there is a reason already; it does not end by that. */
void td_http_link_set_reason(td_http_link *link, tandem_err err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Over: the side's stop and closed() are called. Once. */
void td_http_link_finish(td_http_link *link);

/* The timer of a link on a libuv loop, which is its data. For look_in; stop closes it. */
void td_http_timer_init(uv_timer_t *timer, uv_loop_t *loop, td_http_link *link);
void td_http_timer_look_in(uv_timer_t *timer, uint64_t delay_ms);

/* ---- The rules of the side that dials ---- */

typedef struct td_http_asking {
    uint64_t sent, answered; /* numbers of the last exchanges */
    uint64_t greeting;       /* the number of the first that says something; 0: none yet */
    uint64_t pause_ms;       /* 0: long poll, one is always under way */
    bool polled;             /* one is asked for */
    bool peer_full;          /* the last answer said "hold" */
    bool said_full;          /* the last request did */
} td_http_asking;

static inline unsigned td_http_under_way(const td_http_asking *asking)
{
    return (unsigned)(asking->sent - asking->answered);
}

/*
 * Is the next exchange to begin now? Then body, which is empty, has what it is to carry, and
 * td_http_asked() is to follow. The link may be ending afterwards.
 *
 * The first that says something is the greeting: little fits into it, and nothing more is said before
 * it is answered, because the other side takes little of who is not known to it.
 */
bool td_http_ask(td_http_link *link, td_http_asking *asking, tandem_writer *body);
/* It has begun; it said "hold", or not. */
void td_http_asked(td_http_asking *asking, bool full);
/* How long the answer to the next exchange, which was asked for, may wait for something to say, in
 * ms. */
unsigned td_http_wait_ms(const td_http_link *link, const td_http_asking *asking);

/* ---- The rules of the side that answers ---- */

/* The oldest exchange that is not answered; its messages were taken. */
typedef struct td_http_parked {
    uint64_t number;
    uint64_t until_ms; /* it may be kept */
    bool hold;         /* its client takes no messages for now */
    bool next_taken;   /* the one after it has come */
} td_http_parked;

/* Is it to be answered now? Then body, which is empty, has what the answer carries. The link may be
 * ending afterwards. told_full: the last answer said "hold". */
bool td_http_answer(td_http_link *link, const td_http_parked *parked, bool told_full,
                    uint64_t now_ms, tandem_writer *body);

/* The value of a Tandem-End header, and what a received one means. */
void td_http_end_write(const td_http_link *link, char *out, size_t size);
void td_http_end_read(td_http_link *link, const char *value);

#endif
