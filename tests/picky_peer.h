/*
 * A peer in a harness that will not have everything: it writes messages by hand, as
 * transport/PROTOCOL.md has them, takes what it is sent but for the documents of one name, and takes
 * what follows those. Others dial it at mem://NAME, or it dials one of them.
 */
#ifndef TANDEM_TESTS_PICKY_PEER_H
#define TANDEM_TESTS_PICKY_PEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reactor/clock.h"
#include "sync/harness_parts.h"
#include "transport/wire.h"

enum { PICKY_HELD_MAX = 4096 };

struct picky {
    tandem_harness *harness;
    td_runtime *runtime;
    td_host *host;
    td_carrier *carrier;
    td_link *link;
    uint8_t reactor; /* its id, many times */
    /* What it does: */
    const char *poison;  /* the document that it will not have; NULL: it has all */
    tandem_err err;      /* why */
    bool announces;      /* what it refuses, when a session begins */
    bool mute;           /* it answers no job any more */
    /* What it is told: */
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    td_head head;          /* of the one origin, in the one collection: the newest that it took */
    char collection[32];
    struct {
        uint64_t first, last;
        uint8_t hash[TANDEM_HASH_BYTES], predecessor[TANDEM_HASH_BYTES];
    } refused;
    uint8_t took[PICKY_HELD_MAX]; /* by seq: how often */
    unsigned sent_poison;  /* how often it was offered */
    /* The session: */
    uint64_t number;
    bool heard_hello;
    unsigned said;
    uint64_t jobs, acked;
    td_wire_exception exceptions[PICKY_HELD_MAX];
    uint32_t exception_count;
};

static inline uint64_t picky_clock(struct picky *picky)
{
    return td_hlc_of_ms(td_env_wall_ms(picky->runtime->env));
}

static inline void picky_hello(struct picky *picky, tandem_writer *out)
{
    td_wire_hello hello;

    memset(&hello, 0, sizeof(hello));
    hello.major = TD_WIRE_MAJOR;
    hello.minor = TD_WIRE_MINOR;
    hello.message_bytes = TD_MESSAGE_BYTES_MAX;
    hello.window_bytes = 1 << 20;
    hello.window_jobs = 64;
    hello.clock = picky_clock(picky);
    hello.agent = tandem_slice_text("picky");
    memset(hello.reactor, picky->reactor, sizeof(hello.reactor));
    memset(hello.origin, picky->reactor + 1, sizeof(hello.origin));
    td_wire_write_hello(out, ++picky->number, &hello, NULL, 0);
}

/* A digest like nobody's, of the collection if it holds some of it; then what it holds. */
static inline void picky_digests(struct picky *picky, tandem_writer *out)
{
    size_t at = td_wire_begin_have(out, ++picky->number, picky_clock(picky), 0, TD_HAVE_DIGESTS,
                                   NULL);
    uint8_t digest[TANDEM_HASH_BYTES] = {1};

    if (picky->head.seq)
        td_wire_write_digest(out, tandem_slice_text(picky->collection), digest, 0);
    td_wire_patch_count(out, at, picky->head.seq > 0);
}

static inline void picky_vector(struct picky *picky, tandem_writer *out, bool listing)
{
    size_t count_at, origins_at, refused_at, end_at;
    bool refuses = picky->announces && picky->refused.last;
    td_wire_refused refused = {
        .origin = picky->origin,
        .first = picky->refused.first,
        .last = picky->refused.last,
        .hash = picky->refused.hash,
        .reason = TANDEM_E_REFUSED,
        .predecessor = picky->refused.predecessor,
    };

    count_at = td_wire_begin_have(out, ++picky->number, picky_clock(picky), 0, TD_HAVE_VECTORS,
                                  NULL);
    origins_at = td_wire_begin_vector(out, tandem_slice_text(picky->collection), listing, &end_at);
    td_wire_write_origin(out, picky->origin, &picky->head, 1);
    td_wire_patch_count(out, origins_at, 1);
    td_wire_patch_bool(out, end_at, listing);
    refused_at = td_wire_begin_refused(out);
    if (refuses)
        td_wire_write_refused(out, &refused);
    td_wire_patch_count(out, refused_at, refuses);
    td_wire_patch_count(out, count_at, 1);
}

/* The next message: HELLO, HAVE of every level, and from then on ACK. */
static inline tandem_err picky_writable(void *context, tandem_writer *out)
{
    struct picky *picky = context;
    uint8_t digest[TANDEM_HASH_BYTES] = {1};

    if (picky->said && !picky->heard_hello)
        return TANDEM_END;
    switch (picky->said++) {
    case 0:
        picky_hello(picky, out);
        return TANDEM_OK;
    case 1:
        td_wire_write_have_all(out, ++picky->number, picky_clock(picky), 0, 1, digest);
        return TANDEM_OK;
    case 2:
        picky_digests(picky, out);
        return TANDEM_OK;
    case 3:
        if (picky->head.seq) {
            picky_vector(picky, out, true);
            return TANDEM_OK;
        }
        break;
    }
    if (picky->acked == picky->jobs || picky->mute)
        return TANDEM_END;
    picky->acked = picky->jobs;
    td_wire_write_ack(out, ++picky->number, picky->acked, picky->exceptions,
                      picky->exception_count);
    picky->exception_count = 0;
    return TANDEM_OK;
}

static inline void picky_want_write(struct picky *picky)
{
    if (picky->link)
        picky->carrier->ops->want_write(picky->link);
}

static inline void picky_job(struct picky *picky, td_operation *first, td_operation *last)
{
    bool is_poison =
        picky->poison && tandem_slice_equal(first->document, tandem_slice_text(picky->poison));

    picky->jobs++;
    if (is_poison) {
        picky->sent_poison++;
        picky->refused.first = first->seq;
        picky->refused.last = last->seq;
        memcpy(picky->refused.hash, last->hash, TANDEM_HASH_BYTES);
        memcpy(picky->refused.predecessor, first->predecessor, TANDEM_HASH_BYTES);
        picky->exceptions[picky->exception_count++] =
            (td_wire_exception){.job = picky->jobs, .err = picky->err};
        return;
    }
    for (uint64_t seq = first->seq; seq <= last->seq && seq < PICKY_HELD_MAX; seq++)
        picky->took[seq]++;
    memcpy(picky->origin, last->origin, TANDEM_ORIGIN_BYTES);
    memcpy(picky->collection, last->collection.bytes, last->collection.size);
    if (last->seq > picky->head.seq) {
        picky->head.seq = last->seq;
        memcpy(picky->head.hash, last->hash, TANDEM_HASH_BYTES);
    }
}

static inline void picky_jobs(struct picky *picky, td_wire_jobs *jobs)
{
    for (uint32_t i = 0; i < jobs->job_count; i++) {
        td_operation first = {0}, operation = {0};
        tandem_slice canonical;
        uint32_t count;

        assert_int_equal(TANDEM_OK, td_wire_read_job(&jobs->jobs, &count));
        for (uint32_t k = 0; k < count; k++) {
            assert_int_equal(TANDEM_OK, td_wire_read_operation(&jobs->jobs, &canonical));
            assert_int_equal(TANDEM_OK, td_operation_parse(canonical, &operation));
            td_operation_hash(&operation);
            if (k == 0)
                first = operation;
        }
        picky_job(picky, &first, &operation);
    }
}

static inline void picky_opened(void *context)
{
    picky_want_write(context);
}

static inline void picky_message(void *context, tandem_slice bytes)
{
    struct picky *picky = context;
    td_wire_message read;

    assert_int_equal(TANDEM_OK, td_wire_read(bytes, &read));
    picky->heard_hello = picky->heard_hello || read.type == TD_WIRE_HELLO;
    if (read.type == TD_WIRE_JOBS)
        picky_jobs(picky, &read.as.jobs);
    picky_want_write(picky);
}

static inline void picky_closed(void *context, tandem_err err, const char *text)
{
    (void)err;
    (void)text;
    ((struct picky *)context)->link = NULL;
}

static const td_connection_events picky_events = {.opened = picky_opened,
                                                  .message = picky_message,
                                                  .writable = picky_writable,
                                                  .closed = picky_closed};

static inline void picky_begin(struct picky *picky)
{
    picky->number = picky->jobs = picky->acked = 0;
    picky->said = 0;
    picky->heard_hello = false;
    picky->exception_count = 0;
}

static inline tandem_err picky_accept(void *context, td_link *link,
                                      const td_connection_events **events_out, void **context_out)
{
    struct picky *picky = context;

    if (picky->link)
        return TANDEM_E_LIMIT;
    picky_begin(picky);
    picky->link = link;
    *events_out = &picky_events;
    *context_out = picky;
    return TANDEM_OK;
}

static inline struct picky *picky_open(tandem_harness *harness, const char *name)
{
    struct picky *picky = calloc(1, sizeof(*picky));
    char url[128];

    assert_non_null(picky);
    picky->harness = harness;
    picky->reactor = (uint8_t)name[0];
    picky->err = TANDEM_E_REFUSED;
    assert_int_equal(TANDEM_OK, td_simulation_runtime(td_harness_simulation(harness), name, 0,
                                                      &picky->runtime));
    assert_int_equal(TANDEM_OK, td_host_open(picky->runtime, TD_HOST_LOOP, "picky", &picky->host));
    assert_int_equal(TANDEM_OK, td_memory_carrier_open(td_harness_network(harness), picky->host,
                                                       name, &picky->carrier));
    assert_int_equal(TANDEM_OK, picky->carrier->ops->listen(picky->carrier, "", 0, picky_accept,
                                                            picky, url));
    return picky;
}

static inline void picky_dial(struct picky *picky, const char *url)
{
    picky_begin(picky);
    assert_int_equal(TANDEM_OK, picky->carrier->ops->dial(picky->carrier, url, &picky_events,
                                                          picky, &picky->link));
}

/* End its session; whoever dialed it dials again. */
static inline void picky_hang_up(struct picky *picky)
{
    if (picky->link)
        picky->carrier->ops->close(picky->link, TANDEM_OK, "enough");
}

static inline void picky_free(struct picky *picky)
{
    td_host_stop(picky->host);
    picky->carrier->ops->free(picky->carrier);
    td_host_free(picky->host);
    td_runtime_free(picky->runtime);
    free(picky);
}

#endif
