/*
 * Every exchange has a deadline, on both sides: whoever says nothing, or says it a byte at a time for
 * ever, is given up in time. Real sockets, and a clock that is moved forward.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http_bed.h"
#include "stepped_clock.h"

enum {
    STEP_MS = 250,
    ANSWER_S = 30, /* as PROTOCOL.md has it: hears nothing for so long, or hardly anything */
    REQUEST_S = 120,
    END_S = 10,
    LATE_S = 8, /* libcurl measures a speed over some seconds */
};

/* ---- Time ---- */

static void pass(struct fixture *f, uint64_t ms)
{
    uv_loop_t *loop = td_host_loop(f->loop.host);

    step_clock(ms);
    uv_update_time(loop);
    uv_timer_start(&f->loop.deadline, on_deadline, DEADLINE_MS, 0); /* that one is of real time */
    let_rest(&f->loop);
}

/* What a raw peer goes on saying meanwhile. */
struct trickle {
    int fd;
    const char *bytes; /* then zeros; NULL: nothing at all */
    size_t size;
    size_t each; /* so many a step */
    size_t sent;
};

static void say_more(struct fixture *f, struct trickle *trickle)
{
    for (size_t i = 0; trickle->bytes && i < trickle->each; i++, trickle->sent++) {
        const char *byte = trickle->sent < trickle->size ? trickle->bytes + trickle->sent : "";

        if (!raw_send(&f->loop, trickle->fd, byte, 1))
            return;
    }
}

/* Let time pass until *closed or for so long, and say what it was. */
static uint64_t time_until(struct fixture *f, const unsigned *closed, struct trickle *trickle,
                           uint64_t ms_max)
{
    uint64_t begun_ms = clock_ms();

    while (!*closed && clock_ms() - begun_ms < ms_max) {
        pass(f, STEP_MS);
        if (trickle && !*closed)
            say_more(f, trickle);
    }
    return clock_ms() - begun_ms;
}

/* Not before so many seconds, and hardly later. */
static void assert_closes_after(struct fixture *f, const struct side *side, struct trickle *trickle,
                                unsigned seconds)
{
    uint64_t took_ms = time_until(f, &side->closed, trickle, (seconds + 60) * 1000);

    if (!side->closed || took_ms < (seconds - 1) * 1000 || took_ms > (seconds + LATE_S) * 1000)
        fail_msg("%s after %llu ms, not %u s", side->closed ? "closed" : "open",
                 (unsigned long long)took_ms, seconds);
}

/* Has the other side hung up? What it says before is passed over. */
static bool has_hung_up(int fd)
{
    char bytes[4096];
    ssize_t got;

    while ((got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
        ;
    return got == 0 || errno != EAGAIN;
}

static void assert_hangs_up_after(struct fixture *f, struct trickle *trickle, unsigned seconds)
{
    uint64_t begun_ms = clock_ms(), took_ms;

    while (!has_hung_up(trickle->fd)) {
        pass(f, STEP_MS);
        took_ms = clock_ms() - begun_ms;
        if (took_ms > (seconds + LATE_S) * 1000)
            fail_msg("not hung up after %llu ms", (unsigned long long)took_ms);
        say_more(f, trickle);
    }
    assert_true(clock_ms() - begun_ms >= (seconds - 1) * 1000);
}

static void the_clock_can_be_stepped(void **state)
{
    struct fixture *f = *state;
    uint64_t before_ns = uv_hrtime(), before_ms = td_env_monotonic_ms(f->loop.runtime->env);

    step_clock(5000);
    assert_true(uv_hrtime() - before_ns >= UINT64_C(5000000000));
    assert_true(td_env_monotonic_ms(f->loop.runtime->env) - before_ms >= 5000);
}

/* ---- The client ---- */

static const char slow_answer[] = OK_HEAD "Content-Length: 2000000\r\n\r\n";

/* What a server says that never comes to an end, in pieces for each step. */
static const struct {
    const char *bytes;
    size_t each;
} mutterings[] = {
    {NULL, 0},          /* nothing */
    {slow_answer, 1},   /* 4 bytes a second: first of a head, at last of a body */
    {slow_answer, 100}, /* a body at 400 */
};

/* "Dialing […] has 10 s": whatever it says meanwhile, and at whatever speed. */
static void a_server_that_does_not_answer_is_given_up(void **state)
{
    struct fixture *f = *state;
    int listener = listen_raw(f);

    for (unsigned i = 0; i < 5; i++) {
        struct trickle trickle = {.bytes = slow_answer, .size = sizeof(slow_answer) - 1};
        struct http request = {.body = NULL};
        struct side dialed = {0};
        int fd = -1;

        dial(f, &dialed);
        if (i > 0) { /* before, nobody even accepts it */
            fd = trickle.fd = raw_accept(&f->loop, listener);
            assert_true(raw_read_http(f, fd, &request));
        }
        trickle.each = (const size_t[]){0, 0, 1, 100, 5000}[i];
        assert_closes_after(f, &dialed, &trickle, TD_NETWORK_DIAL_S);
        assert_int_equal(TANDEM_E_TIMEOUT, dialed.err);
        assert_int_equal(0, dialed.opened);
        free(request.body);
        if (fd < 0)
            fd = raw_accept(&f->loop, listener);
        assert_true(has_hung_up(fd));
        close(fd);
    }
    close(listener);
}

/* "A client gives up an exchange of which it hears nothing for 30 s", or hardly anything. */
static void an_exchange_that_is_not_answered_is_given_up(void **state)
{
    struct fixture *f = *state;
    int listener = listen_raw(f);

    for (unsigned i = 0; i < sizeof(mutterings) / sizeof(mutterings[0]); i++) {
        struct http request = {.body = NULL};
        struct side dialed = {0};
        int fd = raw_serve(f, listener, &dialed);
        struct trickle trickle = {.fd = fd, .bytes = mutterings[i].bytes,
                                  .size = sizeof(slow_answer) - 1, .each = mutterings[i].each};

        assert_true(raw_read_http(f, fd, &request)); /* the long poll */
        assert_closes_after(f, &dialed, &trickle, ANSWER_S);
        assert_int_equal(TANDEM_E_TIMEOUT, dialed.err);
        assert_non_null(strstr(dialed.text, strrchr(f->url, '/') + 1));
        assert_int_equal(0, dialed.messages);
        assert_true(has_hung_up(fd));
        free(request.body);
        close(fd);
    }
    close(listener);
}

/* Nor does it help that the answer comes faster than that, if it does not end. */
static void an_answer_that_does_not_end_is_given_up(void **state)
{
    struct fixture *f = *state;
    struct http request = {.body = NULL};
    struct side dialed = {0};
    int listener = listen_raw(f), fd = raw_serve(f, listener, &dialed);
    struct trickle trickle = {.fd = fd, .bytes = slow_answer, .size = sizeof(slow_answer) - 1,
                              .each = 1000};

    assert_true(raw_read_http(f, fd, &request));
    assert_closes_after(f, &dialed, &trickle, REQUEST_S);
    assert_int_equal(TANDEM_E_TIMEOUT, dialed.err);
    free(request.body);
    close(fd);
    close(listener);
}

/* Without long poll nothing is under way, and time costs nothing, until something is. */
static void a_poll_that_is_not_answered_is_given_up(void **state)
{
    struct fixture *f = *state;
    struct http request = {.body = NULL};
    struct side dialed = {.pace_ms = 600000};
    int listener = listen_raw(f), fd = raw_serve(f, listener, &dialed), second;

    time_until(f, &dialed.closed, NULL, 300 * 1000);
    assert_int_equal(0, dialed.closed);
    td_http_client_poll(dialed.link);
    second = raw_accept(&f->loop, listener); /* the first connection is too old */
    assert_true(raw_read_http(f, second, &request));
    assert_closes_after(f, &dialed, NULL, ANSWER_S);
    assert_int_equal(TANDEM_E_TIMEOUT, dialed.err);
    free(request.body);
    close(fd);
    close(second);
    close(listener);
}

/* What is sent is not taken, either. */
static void a_request_that_is_not_read_is_given_up(void **state)
{
    struct fixture *f = *state;
    struct http request = {.body = NULL};
    struct side dialed = {0};
    int listener = listen_raw(f), fd, second;

    raw_narrow(listener);
    fd = raw_serve(f, listener, &dialed);
    assert_true(raw_read_http(f, fd, &request));
    dialed.to_send = 2;
    dialed.send_size = TD_MESSAGE_BYTES_MAX;
    td_http_link_want_write(dialed.link);
    second = raw_accept(&f->loop, listener);
    raw_answer(f, fd, "", ""); /* the long poll, so that only the other one is waited for */
    assert_closes_after(f, &dialed, NULL, ANSWER_S);
    assert_int_equal(TANDEM_E_TIMEOUT, dialed.err);
    free(request.body);
    close(fd);
    close(second);
    close(listener);
}

/* We have ended it, for a reason of ours, and nobody says that he has heard it. */
static void an_end_that_is_not_answered_is_not_waited_for(void **state)
{
    struct fixture *f = *state;
    struct http request = {.body = NULL};
    struct side dialed = {0};
    int listener = listen_raw(f), fd = raw_serve(f, listener, &dialed), second;

    assert_true(raw_read_http(f, fd, &request));
    td_http_link_close(dialed.link, TANDEM_E_NOMEM, "no room");
    second = raw_accept(&f->loop, listener);
    assert_true(raw_read_http(f, second, &request));
    assert_non_null(strstr(request.head, "\r\nTandem-End: 1011 no room\r\n"));
    assert_closes_after(f, &dialed, NULL, END_S);
    assert_int_equal(TANDEM_E_NOMEM, dialed.err);
    free(request.body);
    close(fd);
    close(second);
    close(listener);
}

/* ---- The server ---- */

static const char long_request[] =
    POST HOST TYPE LINK "Tandem-Exchange: 2\r\nContent-Length: 60000\r\n\r\n";

/* "It must be complete 30 s after its headers." */
static void a_request_that_trickles_is_given_up(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 3; i++) {
        int fd = raw_connect(f->port);
        struct side *side = raw_open(f, fd);
        struct trickle trickle = {.fd = fd, .bytes = "", .each = (const size_t[]){0, 1, 300}[i]};

        assert_true(raw_send(&f->loop, fd, long_request, strlen(long_request)));
        assert_closes_after(f, side, &trickle, TD_HTTP_BODY_S);
        assert_int_equal(TANDEM_E_TIMEOUT, side->err);
        assert_int_equal(0, side->messages);
        assert_true(has_hung_up(fd));
        close(fd);
    }
}

/* There is no link yet to lose. */
static void a_first_request_that_trickles_is_given_up(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        struct trickle trickle = {.fd = raw_connect(f->port), .bytes = "", .each = i};
        char request[sizeof(long_request)];

        strcpy(request, long_request);
        *strstr(request, "2\r\nContent") = '1';
        assert_true(raw_send(&f->loop, trickle.fd, request, strlen(request)));
        assert_hangs_up_after(f, &trickle, TD_HTTP_BODY_S);
        close(trickle.fd);
    }
    assert_int_equal(0, f->accepted_count);
}

/* On a fresh connection, and on one that has been of use. */
static void headers_that_trickle_are_given_up(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 4; i++) {
        struct trickle trickle = {.fd = raw_connect(f->port), .bytes = long_request,
                                  .size = sizeof(long_request) - 1, .each = i % 2};

        if (i > 1)
            raw_open(f, trickle.fd);
        if (!trickle.each && i > 1)
            assert_hangs_up_after(f, &trickle, TD_HTTP_IDLE_S);
        else
            assert_hangs_up_after(f, &trickle, TD_NETWORK_DIAL_S);
        close(trickle.fd);
        if (f->accepted_count)
            time_until(f, &f->accepted[f->accepted_count - 1]->closed, NULL, 90 * 1000);
    }
}

static void an_answer_that_is_not_taken_is_given_up(void **state)
{
    struct fixture *f = *state;
    struct side *side;
    int fd = raw_socket();

    raw_narrow(fd);
    raw_connect_to(fd, f->port);
    side = raw_open(f, fd);
    side->to_send = 100;
    side->send_size = TD_MESSAGE_BYTES_MAX;
    raw_exchange(f, fd, 2, "", "");
    td_http_link_want_write(side->link);
    assert_closes_after(f, side, NULL, TD_NETWORK_MESSAGE_S);
    assert_int_equal(TANDEM_E_TIMEOUT, side->err);
    close(fd);
}

/* "else after 20 s […] with an empty body" */
static void a_parked_exchange_is_answered_in_time(void **state)
{
    struct fixture *f = *state;
    struct http answer = {.body = NULL};
    int fd = raw_connect(f->port);
    struct side *side = raw_open(f, fd);

    for (unsigned number = 2; number < 5; number++) {
        raw_exchange(f, fd, number, "", "");
        let_rest(&f->loop);
        time_until(f, &side->closed, NULL, (TD_HTTP_POLL_S - 1) * 1000);
        assert_true(is_silent(&f->loop, fd));
        pass(f, 1500);
        assert_false(is_silent(&f->loop, fd));
        assert_true(raw_read_http(f, fd, &answer));
        assert_int_equal(200, status_of(&answer));
        assert_int_equal(0, answer.size);
    }
    free(answer.body);
    close(fd);
}

/* "A link of which no exchange was under way for 60 s, beyond a pause, is gone." */
static void a_link_without_exchanges_is_gone(void **state)
{
    struct fixture *f = *state;
    struct http answer = {.body = NULL};

    for (unsigned i = 0; i < 2; i++) {
        int fd = raw_connect(f->port);
        struct side *side = raw_open(f, fd);

        if (i) {
            raw_exchange(f, fd, 2, "", "Tandem-Wait: 0\r\nTandem-Pause: 7\r\n");
            assert_true(raw_read_http(f, fd, &answer));
        }
        assert_closes_after(f, side, NULL, TD_HTTP_GONE_S + 7 * i);
        assert_int_equal(TANDEM_E_UNREACHABLE, side->err);
        close(fd);
    }
    free(answer.body);
}

/* It has something to say last, and nobody asks. */
static void an_end_that_nobody_asks_for_is_not_kept(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f->port);
    struct side *side = raw_open(f, fd);

    td_http_link_close(side->link, TANDEM_E_PROTOCOL, "enough");
    assert_closes_after(f, side, NULL, END_S);
    assert_int_equal(TANDEM_E_PROTOCOL, side->err);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HTTP_TEST(the_clock_can_be_stepped),
        HTTP_TEST(a_server_that_does_not_answer_is_given_up),
        HTTP_TEST(an_exchange_that_is_not_answered_is_given_up),
        HTTP_TEST(an_answer_that_does_not_end_is_given_up),
        HTTP_TEST(a_poll_that_is_not_answered_is_given_up),
        HTTP_TEST(a_request_that_is_not_read_is_given_up),
        HTTP_TEST(an_end_that_is_not_answered_is_not_waited_for),
        HTTP_TEST(a_request_that_trickles_is_given_up),
        HTTP_TEST(a_first_request_that_trickles_is_given_up),
        HTTP_TEST(headers_that_trickle_are_given_up),
        HTTP_TEST(an_answer_that_is_not_taken_is_given_up),
        HTTP_TEST(a_parked_exchange_is_answered_in_time),
        HTTP_TEST(a_link_without_exchanges_is_gone),
        HTTP_TEST(an_end_that_nobody_asks_for_is_not_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
