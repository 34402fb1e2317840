#include "transport/http_link.h"

#include <assert.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "transport/connection.h"

enum { KEEP_BYTES = 64 * 1024 };

/* ---- Time ---- */

static void on_timer(uv_timer_t *timer)
{
    td_http_link *link = timer->data;

    link->side->look(link);
}

void td_http_timer_init(uv_timer_t *timer, uv_loop_t *loop, td_http_link *link)
{
    uv_timer_init(loop, timer);
    timer->data = link;
}

void td_http_timer_look_in(uv_timer_t *timer, uint64_t delay_ms)
{
    uv_handle_t *handle = (uv_handle_t *)timer;

    uv_update_time(handle->loop);
    if (!uv_is_active(handle) || uv_timer_get_due_in(timer) > delay_ms)
        uv_timer_start(timer, on_timer, delay_ms, 0);
}

void td_http_link_init(td_http_link *link, const td_http_side *side)
{
    link->side = side;
    tandem_writer_init(&link->in);
    tandem_writer_init(&link->message);
}

void td_http_link_release(td_http_link *link)
{
    tandem_writer_release(&link->in);
    tandem_writer_release(&link->message);
}

void td_http_link_look_soon(td_http_link *link)
{
    td_http_link_look_in(link, 0);
}

void td_http_link_look_in(td_http_link *link, uint64_t delay_ms)
{
    if (!link->over)
        link->side->look_in(link, delay_ms);
}

/* ---- Calls ---- */

void td_http_link_want_write(td_http_link *link)
{
    link->wants = true;
    td_http_link_look_soon(link);
}

void td_http_link_hold(td_http_link *link, bool hold)
{
    if (link->held == hold)
        return;
    link->held = hold;
    td_http_link_look_soon(link);
}

void td_http_link_close(td_http_link *link, tandem_err err, const char *text)
{
    td_http_link_set_reason(link, err, "%s", text ? text : "");
    link->state = TD_HTTP_ENDING;
    td_http_link_look_soon(link);
}

/* ---- Receiving ---- */

static uint32_t length_at(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Lengths that are allowed, and the last message ends with the body. */
static bool is_framed(tandem_slice body)
{
    size_t at = 0;

    while (body.size - at >= TD_HTTP_LENGTH_BYTES) {
        uint32_t size = length_at(body.bytes + at);

        at += TD_HTTP_LENGTH_BYTES;
        if (size > TD_MESSAGE_BYTES_MAX || size > body.size - at)
            return false;
        at += size;
    }
    return at == body.size;
}

tandem_err td_http_link_take(td_http_link *link, tandem_slice body)
{
    if (!is_framed(body))
        return TANDEM_E_PROTOCOL;
    if (link->state == TD_HTTP_ENDING)
        return TANDEM_OK; /* too late */
    /* Who keeps the rules sends no more than this; see td_http_link_is_full(). */
    if (link->in.size - link->in_at + body.size > 2 * TD_HTTP_BODY_BYTES_MAX)
        return TANDEM_E_PROTOCOL;
    if (link->in_at) {
        link->in.size -= link->in_at;
        memmove(link->in.bytes, link->in.bytes + link->in_at, link->in.size);
        link->in_at = 0;
    }
    tandem_write_raw(&link->in, body);
    return tandem_writer_err(&link->in);
}

bool td_http_link_has_room(const td_http_link *link, uint64_t come_bytes, uint64_t more_bytes)
{
    come_bytes += link->in.size - link->in_at;
    return come_bytes + more_bytes <= TD_OPENING_BYTES_MAX || !link->events ||
           !link->events->knows || link->events->knows(link->context);
}

static void forget_delivered(td_http_link *link)
{
    link->in_at = 0;
    if (link->in.capacity > KEEP_BYTES)
        tandem_writer_release(&link->in);
    tandem_writer_clear(&link->in);
}

void td_http_link_deliver(td_http_link *link)
{
    while (link->state == TD_HTTP_OPEN && !link->held && link->in_at < link->in.size) {
        const uint8_t *at = link->in.bytes + link->in_at;
        uint32_t size = length_at(at);

        link->in_at += TD_HTTP_LENGTH_BYTES + size;
        if (size)
            link->events->message(link->context,
                                  tandem_slice_of(at + TD_HTTP_LENGTH_BYTES, size));
    }
    if (link->in_at && link->in_at == link->in.size)
        forget_delivered(link);
}

bool td_http_link_is_empty(const td_http_link *link)
{
    return link->in.size == 0;
}

bool td_http_link_is_full(const td_http_link *link)
{
    return link->held && link->in.size > 0;
}

/* ---- Sending ---- */

/* Pull one message into body. False: there is none, or the link ends now. */
static bool pull(td_http_link *link, tandem_writer *body)
{
    uint8_t length[TD_HTTP_LENGTH_BYTES];
    tandem_err err;
    size_t size;

    tandem_writer_clear(&link->message);
    link->wants = false; /* unless it is asked for while we ask */
    err = link->events->writable(link->context, &link->message);
    if (err == TANDEM_OK)
        err = tandem_writer_err(&link->message);
    if (err < 0 && link->state == TD_HTTP_OPEN)
        td_http_link_close(link, err, tandem_err_text(err));
    if (err != TANDEM_OK || link->state != TD_HTTP_OPEN)
        return false;
    link->wants = true;
    size = link->message.size;
    assert(size <= TD_MESSAGE_BYTES_MAX);
    for (int i = 0; i < TD_HTTP_LENGTH_BYTES; i++)
        length[i] = (uint8_t)(size >> (24 - 8 * i));
    tandem_write_raw(body, tandem_slice_of(length, sizeof(length)));
    tandem_write_raw(body, tandem_writer_slice(&link->message));
    if (tandem_writer_err(body) != TANDEM_OK)
        td_http_link_close(link, TANDEM_E_NOMEM, "no memory for a message");
    return link->state == TD_HTTP_OPEN;
}

void td_http_link_fill(td_http_link *link, tandem_writer *body, unsigned messages_max)
{
    assert(body->size == 0);
    for (unsigned i = 0; i < messages_max && link->state == TD_HTTP_OPEN && link->wants &&
                         body->size < TD_HTTP_FILL_BYTES && pull(link, body);
         i++)
        ;
    if (link->message.capacity > KEEP_BYTES)
        tandem_writer_release(&link->message);
}

/* ---- Rules ---- */

/* Is there to be an exchange though there is nothing to send? */
static bool is_wanted(const td_http_link *link, const td_http_asking *asking)
{
    if (asking->said_full && !td_http_link_is_full(link))
        return true; /* the peer may go on */
    if (td_http_under_way(asking))
        return false;
    return !asking->pause_ms || asking->polled || (asking->peer_full && link->wants);
}

static bool is_greeting(const td_http_asking *asking)
{
    return asking->greeting > asking->answered;
}

bool td_http_ask(td_http_link *link, td_http_asking *asking, tandem_writer *body)
{
    bool wanted = is_wanted(link, asking);

    if (link->state != TD_HTTP_OPEN || td_http_under_way(asking) >= TD_HTTP_UNDER_WAY_MAX)
        return false;
    if (wanted && asking->pause_ms)
        link->wants = true; /* what could wait goes along */
    if (!asking->peer_full && !is_greeting(asking))
        td_http_link_fill(link, body, asking->greeting ? UINT_MAX : TD_HTTP_GREETING_MESSAGES);
    if (body->size && !asking->greeting)
        asking->greeting = asking->sent + 1;
    return body->size || (wanted && link->state == TD_HTTP_OPEN);
}

void td_http_asked(td_http_asking *asking, bool full)
{
    asking->sent++;
    asking->said_full = full;
    asking->polled = false;
}

unsigned td_http_wait_ms(const td_http_link *link, const td_http_asking *asking)
{
    if (!asking->pause_ms)
        return is_greeting(asking) ? TD_HTTP_AWAIT_MS : TD_HTTP_POLL_S * 1000;
    if (asking->peer_full && link->wants)
        return TD_HTTP_POLL_S * 1000;
    return link->state == TD_HTTP_OPEN && link->events->expects &&
                   link->events->expects(link->context)
               ? TD_HTTP_AWAIT_MS
               : 0;
}

/* Must it be answered now, though there is nothing to say? */
static bool is_due(const td_http_link *link, const td_http_parked *parked, bool told_full,
                   uint64_t now_ms)
{
    bool full = td_http_link_is_full(link);

    if (parked->number == 1 || link->peer_ended || (told_full && !full) ||
        now_ms >= parked->until_ms)
        return true;
    if (!parked->next_taken)
        return false;
    return !full || (parked->hold && link->wants);
}

bool td_http_answer(td_http_link *link, const td_http_parked *parked, bool told_full,
                    uint64_t now_ms, tandem_writer *body)
{
    if (!parked->hold)
        td_http_link_fill(link, body, UINT_MAX);
    return body->size || (link->state == TD_HTTP_ENDING && !link->peer_ended) ||
           is_due(link, parked, told_full, now_ms);
}

/* ---- Ends ---- */

void td_http_link_set_reason(td_http_link *link, tandem_err err, const char *format, ...)
{
    va_list args;

    if (link->has_reason)
        return;
    link->has_reason = true;
    link->err = err;
    link->close_code = err == TANDEM_OK           ? TD_CLOSE_NORMAL
                       : err == TANDEM_E_PROTOCOL ? TD_CLOSE_PROTOCOL
                                                  : TD_CLOSE_TROUBLE;
    va_start(args, format);
    vsnprintf(link->text, sizeof(link->text), format, args);
    va_end(args);
}

void td_http_link_finish(td_http_link *link)
{
    assert(!link->over && link->has_reason);
    link->over = true;
    link->state = TD_HTTP_ENDING;
    link->side->stop(link);
    if (!link->events)
        return;
    if (link->retry_after_ms && link->events->retry_after)
        link->events->retry_after(link->context, link->retry_after_ms);
    link->events->closed(link->context, link->err, link->text);
}

/* ASCII that can be printed, and nothing else: this is a header. */
static void copy_plain(char *out, size_t size, const char *text)
{
    size_t used = 0;

    for (; *text && used + 1 < size; text++)
        out[used++] = *text >= 0x20 && *text < 0x7f ? *text : '?';
    out[used] = '\0';
}

void td_http_end_write(const td_http_link *link, char *out, size_t size)
{
    char text[TD_HTTP_END_TEXT_BYTES_MAX + 1];

    copy_plain(text, sizeof(text), link->text);
    snprintf(out, size, "%u%s%s", link->close_code, *text ? " " : "", text);
}

void td_http_end_read(td_http_link *link, const char *value)
{
    char text[TD_HTTP_END_TEXT_BYTES_MAX + 1], *rest;
    unsigned long code = strtoul(value, &rest, 10);

    while (*rest == ' ')
        rest++;
    copy_plain(text, sizeof(text), rest);
    link->peer_ended = true;
    td_http_link_set_reason(link, td_err_of_close_code((unsigned)code),
                            "closed by the peer (%lu)%s%s", code % 10000, *text ? ": " : "", text);
}
