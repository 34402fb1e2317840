/*
 * The memory carrier: links within one process. It is the reference, and the network of the harness
 * and the simulator, so it has faults to offer.
 *
 * A link is two halves, each on its own carrier's host. Halves know each other by carrier name and
 * number, never by address: a packet for a half that is gone is dropped, as on a real network. The
 * numbers of a carrier begin at random, so that those of an earlier one of its name mean nothing.
 *
 * At most TRANSIT_BYTES_MAX are on their way to one half; what it is not ready to take (hold) stays
 * in its queue unacknowledged, so a slow receiver slows the sender.
 */
#include "channel/network_link.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include <utlist.h>

#include "store/hash_table.h"
#include "store/probe.h"

enum { TRANSIT_BYTES_MAX = 256 * 1024, NAME_BYTES_MAX = 64, WAYS_MAX = 256, SLOW_MAX = 32 };

/* FORGET is the network's own: the carrier loses its links with the sender. */
enum packet_kind { DIAL = 1, ACCEPT, REFUSE, DATA, TAKEN, CLOSE, WRITE, DIAL_FAILED, FORGET };

struct half;
struct memory_carrier;

/* What travels. Also the half's own turn messages (WRITE), which never leave the carrier. */
struct packet {
    td_message message; /* first */
    struct packet *prev, *next;
    char from[NAME_BYTES_MAX];
    uint64_t from_half; /* number on its sender's carrier */
    uint64_t to_half;   /* number on its receiver's; 0: DIAL */
    bool delayed;       /* latency is behind it */
    bool exchanges;     /* DIAL: of a link that works by them */
    tandem_err err;
    size_t size;
    uint8_t bytes[];
};

struct half {
    td_link base; /* first */
    struct memory_carrier *carrier;
    uint64_t number;
    char peer[NAME_BYTES_MAX];
    uint64_t peer_half; /* 0 until accepted */
    const td_connection_events *events;
    void *context;
    bool opened, closing, held;
    tandem_err close_err;
    uint64_t transit_bytes; /* sent and not taken */
    uint64_t due_us;        /* when the last packet came or comes: order is kept */
    struct packet *arrived; /* waiting while held */
    struct packet *turn;    /* the half's WRITE message */
    bool turn_posted;
    td_hash_entry hash_entry;
};

struct memory_carrier {
    td_carrier base; /* first */
    td_memory_network *network;
    td_host *host;
    tandem_env *env;
    td_actor *actor;
    char name[NAME_BYTES_MAX];
    td_hash_table halves;
    uint64_t last_number;
    td_link_accept_fn accept, accept_exchanges;
    void *accept_context, *exchanges_context;
    tandem_writer writer;
    struct packet *clogged; /* under the network's lock: kept on the way here */
    uint64_t busy_until_us; /* with what has come before, if it is slow */
    td_hash_entry hash_entry;
};

/* A way on which something is wrong, in one direction. */
struct way {
    char from[NAME_BYTES_MAX], to[NAME_BYTES_MAX];
    bool cut, clogged;
};

struct slow {
    char name[NAME_BYTES_MAX];
    uint32_t message_ms;
};

struct td_memory_network {
    pthread_mutex_t lock;
    td_hash_table carriers;
    td_memory_faults faults;
    struct way ways[WAYS_MAX];
    unsigned way_count;
    struct slow slow[SLOW_MAX];
    unsigned slow_count;
    uint64_t carried;
};

/* ---- The network ---- */

tandem_err td_memory_network_open(td_memory_network **out)
{
    td_memory_network *network = calloc(1, sizeof(*network));

    if (!network)
        return TANDEM_E_NOMEM;
    pthread_mutex_init(&network->lock, NULL);
    *out = network;
    return TANDEM_OK;
}

void td_memory_network_free(td_memory_network *network)
{
    if (!network)
        return;
    assert(!td_hash_table_first(&network->carriers));
    pthread_mutex_destroy(&network->lock);
    free(network);
}

void td_memory_network_faults(td_memory_network *network, const td_memory_faults *faults)
{
    pthread_mutex_lock(&network->lock);
    network->faults = *faults;
    pthread_mutex_unlock(&network->lock);
}

/* NULL if nothing is wrong there. Under the lock, as are all of these. */
static struct way *way_find(td_memory_network *network, const char *from, const char *to)
{
    for (unsigned i = 0; i < network->way_count; i++)
        if (!strcmp(network->ways[i].from, from) && !strcmp(network->ways[i].to, to))
            return &network->ways[i];
    return NULL;
}

static struct way *way_make(td_memory_network *network, const char *from, const char *to)
{
    struct way *way = way_find(network, from, to);

    if (way)
        return way;
    assert(network->way_count < WAYS_MAX);
    way = &network->ways[network->way_count++];
    memset(way, 0, sizeof(*way));
    strncpy(way->from, from, NAME_BYTES_MAX - 1);
    strncpy(way->to, to, NAME_BYTES_MAX - 1);
    return way;
}

static void way_tidy(td_memory_network *network, struct way *way)
{
    if (way && !way->cut && !way->clogged)
        *way = network->ways[--network->way_count];
}

static void way_mend(td_memory_network *network, const char *from, const char *to)
{
    struct way *way = way_find(network, from, to);

    if (way)
        way->cut = false;
    way_tidy(network, way);
}

void td_memory_network_cut(td_memory_network *network, const char *a, const char *b, bool both)
{
    pthread_mutex_lock(&network->lock);
    way_mend(network, b, a);
    way_make(network, a, b)->cut = true;
    if (both)
        way_make(network, b, a)->cut = true;
    pthread_mutex_unlock(&network->lock);
}

void td_memory_network_heal(td_memory_network *network, const char *a, const char *b)
{
    pthread_mutex_lock(&network->lock);
    way_mend(network, a, b);
    way_mend(network, b, a);
    pthread_mutex_unlock(&network->lock);
}

static struct memory_carrier *carrier_find(const td_memory_network *network, const char *name)
{
    return td_hash_table_find(&network->carriers, tandem_slice_text(name));
}

/* Let go on what was kept on the way from one to another, in order. */
static void unclog(td_memory_network *network, const char *from, const char *to)
{
    struct memory_carrier *carrier = carrier_find(network, to);
    struct packet *packet, *next;

    if (!carrier)
        return;
    DL_FOREACH_SAFE(carrier->clogged, packet, next)
    {
        if (strcmp(packet->from, from) != 0)
            continue;
        DL_DELETE(carrier->clogged, packet);
        packet->prev = packet->next = NULL;
        td_actor_post(carrier->actor, &packet->message);
    }
}

void td_memory_network_clog(td_memory_network *network, const char *a, const char *b, bool clogged)
{
    struct way *way;

    pthread_mutex_lock(&network->lock);
    way = way_make(network, a, b);
    way->clogged = clogged;
    way_tidy(network, way);
    if (!clogged)
        unclog(network, a, b);
    pthread_mutex_unlock(&network->lock);
}

void td_memory_network_slow(td_memory_network *network, const char *name, uint32_t message_ms)
{
    struct slow *slow = NULL;

    pthread_mutex_lock(&network->lock);
    for (unsigned i = 0; i < network->slow_count && !slow; i++)
        if (!strcmp(network->slow[i].name, name))
            slow = &network->slow[i];
    if (!slow) {
        assert(network->slow_count < SLOW_MAX);
        slow = &network->slow[network->slow_count++];
        strncpy(slow->name, name, NAME_BYTES_MAX - 1);
    }
    slow->message_ms = message_ms;
    pthread_mutex_unlock(&network->lock);
}

static uint32_t slowness(const td_memory_network *network, const char *name)
{
    for (unsigned i = 0; i < network->slow_count; i++)
        if (!strcmp(network->slow[i].name, name))
            return network->slow[i].message_ms;
    return 0;
}

uint64_t td_memory_network_carried(td_memory_network *network)
{
    uint64_t carried;

    pthread_mutex_lock(&network->lock);
    carried = network->carried;
    pthread_mutex_unlock(&network->lock);
    return carried;
}

/* ---- Packets ---- */

static void packet_drop(td_message *message)
{
    free(message);
}

void td_memory_network_half_open(td_memory_network *network, const char *a, const char *b)
{
    struct packet *packet = calloc(1, sizeof(*packet));
    struct memory_carrier *carrier;

    if (!packet)
        return;
    packet->message.kind = FORGET;
    packet->message.drop = packet_drop;
    strncpy(packet->from, a, NAME_BYTES_MAX - 1);
    pthread_mutex_lock(&network->lock);
    carrier = carrier_find(network, b);
    if (carrier)
        td_actor_post(carrier->actor, &packet->message);
    pthread_mutex_unlock(&network->lock);
    if (!carrier)
        free(packet);
}

static struct packet *packet_open(const struct half *from, enum packet_kind kind,
                                  tandem_slice bytes)
{
    struct packet *packet = malloc(sizeof(*packet) + bytes.size);

    if (!packet)
        return NULL;
    memset(packet, 0, sizeof(*packet)); /* and not what its bytes fill */
    packet->message.kind = kind;
    packet->message.drop = packet_drop;
    memcpy(packet->from, from->carrier->name, sizeof(packet->from));
    packet->from_half = from->number;
    packet->to_half = from->peer_half;
    packet->size = bytes.size;
    if (bytes.size)
        memcpy(packet->bytes, bytes.bytes, bytes.size);
    return packet;
}

static bool chance(tandem_env *env, uint32_t permille)
{
    return permille && td_env_random_below(env, 1000) < permille;
}

/* Hand a packet to the carrier of this name. False if there is none, or the way is cut: the packet
 * is gone then. */
static bool carry(struct memory_carrier *from, const char *to, struct packet *packet)
{
    td_memory_network *network = from->network;
    struct memory_carrier *carrier;
    bool carried = false;
    struct way *way;

    pthread_mutex_lock(&network->lock);
    carrier = carrier_find(network, to);
    if (td_env_is_dead(from->env)) {
        carrier = NULL;
    } else if (carrier && (way = way_find(network, from->name, to)) && way->cut) {
        td_probe(from->env, TD_PROBE_PACKET_CUT);
        carrier = NULL;
    }
    if (carrier) {
        network->carried++;
        td_actor_post(carrier->actor, &packet->message);
        carried = true;
    }
    pthread_mutex_unlock(&network->lock);
    if (!carried)
        free(packet);
    return carried;
}

static void send_small(struct half *half, enum packet_kind kind, tandem_err err, size_t size)
{
    struct packet *packet = packet_open(half, kind, tandem_slice_of(NULL, 0));

    if (!packet)
        return; /* as good as lost on the way: silence ends the session */
    packet->err = err;
    packet->size = size;
    carry(half->carrier, half->peer, packet);
}

/* ---- Halves ---- */

static struct half *half_find(struct memory_carrier *carrier, uint64_t number)
{
    return td_hash_table_find(&carrier->halves, tandem_slice_of(&number, sizeof(number)));
}

static tandem_err half_open(struct memory_carrier *carrier, const char *peer, struct half **out)
{
    struct half *half = calloc(1, sizeof(*half));
    tandem_err err;

    if (!half)
        return TANDEM_E_NOMEM;
    half->base.carrier = &carrier->base;
    half->carrier = carrier;
    half->number = ++carrier->last_number;
    strncpy(half->peer, peer, NAME_BYTES_MAX - 1);
    if (!(half->turn = packet_open(half, WRITE, tandem_slice_of(NULL, 0)))) {
        free(half);
        return TANDEM_E_NOMEM;
    }
    half->turn->to_half = half->number;
    err = td_hash_table_add(&carrier->halves, &half->hash_entry,
                            tandem_slice_of(&half->number, sizeof(half->number)), half);
    if (err != TANDEM_OK) {
        free(half->turn);
        free(half);
        return err;
    }
    *out = half;
    return TANDEM_OK;
}

/* closed() is the last that is heard of it. */
static void half_free(struct half *half, tandem_err err, const char *text)
{
    struct memory_carrier *carrier = half->carrier;
    struct packet *packet, *next;

    td_hash_table_remove(&carrier->halves, &half->hash_entry);
    DL_FOREACH_SAFE(half->arrived, packet, next)
        free(packet);
    /* A posted turn finds no half any more and frees itself. */
    if (!half->turn_posted)
        free(half->turn);
    if (half->events)
        half->events->closed(half->context, err, text);
    free(half);
}

static void half_turn(struct half *half)
{
    if (half->turn_posted)
        return;
    half->turn_posted = true;
    td_actor_post(half->carrier->actor, &half->turn->message);
}

/* Pull messages out of the owner while there is room. */
static void half_write(struct half *half)
{
    struct memory_carrier *carrier = half->carrier;

    if (half->transit_bytes >= TRANSIT_BYTES_MAX)
        td_probe(carrier->env, TD_PROBE_TRANSIT_FULL);
    while (half->opened && !half->closing && half->transit_bytes < TRANSIT_BYTES_MAX) {
        uint64_t number = half->number;
        struct packet *packet;
        tandem_slice bytes;

        tandem_writer_clear(&carrier->writer);
        if (half->events->writable(half->context, &carrier->writer) != TANDEM_OK)
            return;
        if (half_find(carrier, number) != half)
            return;
        bytes = tandem_writer_slice(&carrier->writer);
        half->transit_bytes += bytes.size;
        if ((packet = packet_open(half, DATA, bytes)))
            carry(carrier, half->peer, packet);
    }
}

static void half_take(struct half *half, struct packet *packet)
{
    size_t size = packet->size;
    uint64_t number = half->number;
    struct memory_carrier *carrier = half->carrier;

    half->events->message(half->context, tandem_slice_of(packet->bytes, packet->size));
    free(packet);
    if (half_find(carrier, number) == half)
        send_small(half, TAKEN, TANDEM_OK, size);
}

static void half_take_arrived(struct half *half)
{
    struct memory_carrier *carrier = half->carrier;
    uint64_t number = half->number;

    while (half_find(carrier, number) == half && half->arrived && !half->held && !half->closing) {
        struct packet *packet = half->arrived;

        DL_DELETE(half->arrived, packet);
        if (packet->message.kind == CLOSE) {
            free(packet);
            half_free(half, TANDEM_OK, "closed by the other side");
            return;
        }
        half_take(half, packet);
    }
}

/* ---- What arrives ---- */

static void take_dial(struct memory_carrier *carrier, struct packet *packet)
{
    td_link_accept_fn accept = packet->exchanges ? carrier->accept_exchanges : carrier->accept;
    void *context = packet->exchanges ? carrier->exchanges_context : carrier->accept_context;
    struct half *half;
    tandem_err err;

    if ((err = half_open(carrier, packet->from, &half)) != TANDEM_OK)
        return;
    half->peer_half = packet->from_half;
    err = accept ? accept(context, &half->base, &half->events, &half->context)
                 : TANDEM_E_UNREACHABLE;
    if (err != TANDEM_OK) {
        half->events = NULL;
        send_small(half, REFUSE, err, 0);
        half_free(half, err, "");
        return;
    }
    half->opened = true;
    send_small(half, ACCEPT, TANDEM_OK, 0);
    half->events->opened(half->context);
}

static void take(struct memory_carrier *carrier, struct packet *packet)
{
    struct half *half = packet->message.kind == DIAL ? NULL : half_find(carrier, packet->to_half);

    if (packet->message.kind == DIAL) {
        take_dial(carrier, packet);
        free(packet);
        return;
    }
    if (!half || (half->peer_half && packet->from_half != half->peer_half)) {
        free(packet);
        return;
    }
    switch (packet->message.kind) {
    case ACCEPT:
        half->peer_half = packet->from_half;
        if (!half->closing && !half->opened) {
            half->opened = true;
            half->events->opened(half->context);
        } else if (half->closing) {
            send_small(half, CLOSE, TANDEM_OK, 0);
        }
        break;
    case REFUSE:
        half_free(half, packet->err, "nobody accepts there");
        break;
    case DIAL_FAILED:
        half_free(half, TANDEM_E_UNREACHABLE, "there is no way to it");
        break;
    case TAKEN:
        half->transit_bytes -= packet->size < half->transit_bytes ? packet->size
                                                                   : half->transit_bytes;
        half_turn(half);
        break;
    case CLOSE:
        if (half->arrived && !half->closing) {
            DL_APPEND(half->arrived, packet); /* what was said before is heard before */
            return;
        }
        half_free(half, TANDEM_OK, "closed by the other side");
        break;
    case DATA:
        if (half->held || half->arrived)
            DL_APPEND(half->arrived, packet);
        else if (!half->closing)
            half_take(half, packet);
        else
            free(packet);
        return;
    default:
        assert(false); /* there are no other packets */
    }
    free(packet);
}

/* The half's own turn: write, take what was held back, or come to an end. */
static void take_turn(struct memory_carrier *carrier, struct packet *packet)
{
    struct half *half = half_find(carrier, packet->to_half);
    uint64_t number = packet->to_half;

    if (!half) {
        free(packet);
        return;
    }
    half->turn_posted = false;
    if (half->closing) {
        if (half->peer_half)
            send_small(half, CLOSE, TANDEM_OK, 0);
        half_free(half, half->close_err, "closed here");
        return;
    }
    half_take_arrived(half);
    if (half_find(carrier, number) == half)
        half_write(half);
}

/* Keep it if its way is clogged; else what the network does to it. */
static bool keep_clogged(struct memory_carrier *carrier, struct packet *packet,
                         td_memory_faults *faults_out, uint32_t *slow_ms_out)
{
    td_memory_network *network = carrier->network;
    const struct way *way;
    bool clogged;

    pthread_mutex_lock(&network->lock);
    way = way_find(network, packet->from, carrier->name);
    clogged = way && way->clogged;
    if (clogged)
        DL_APPEND(carrier->clogged, packet);
    *faults_out = network->faults;
    *slow_ms_out = slowness(network, carrier->name);
    pthread_mutex_unlock(&network->lock);
    return clogged;
}

static void corrupt(struct memory_carrier *carrier, struct packet *packet)
{
    uint64_t bit = td_env_random_below(carrier->env, packet->size * 8);

    td_probe(carrier->env, TD_PROBE_PACKET_CORRUPTED);
    packet->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

/* Latency and the other faults hit a packet when it reaches its receiver's carrier. */
static bool delay(struct memory_carrier *carrier, struct packet *packet)
{
    struct half *half = half_find(carrier, packet->to_half);
    uint64_t now_us = td_env_monotonic_us(carrier->env), due_us = now_us;
    td_memory_faults faults;
    uint32_t slow_ms;

    packet->delayed = true;
    if (td_env_is_dead(carrier->env)) {
        free(packet);
        return true;
    }
    if (keep_clogged(carrier, packet, &faults, &slow_ms)) {
        td_probe(carrier->env, TD_PROBE_PACKET_CLOGGED);
        return true;
    }
    if (packet->message.kind == DATA && packet->size &&
        chance(carrier->env, faults.corrupt_permille))
        corrupt(carrier, packet);
    if (packet->message.kind == DATA && chance(carrier->env, faults.lose_permille)) {
        td_probe(carrier->env, TD_PROBE_PACKET_LOST);
        free(packet);
        return true;
    }
    if (faults.latency_ms_max)
        due_us += 1000 * (faults.latency_ms_min +
                          td_env_random_below(carrier->env, 1 + faults.latency_ms_max -
                                                                faults.latency_ms_min));
    if (slow_ms && packet->message.kind == DATA) {
        if (carrier->busy_until_us < now_us)
            carrier->busy_until_us = now_us;
        carrier->busy_until_us += slow_ms * UINT64_C(1000);
        if (due_us < carrier->busy_until_us)
            due_us = carrier->busy_until_us;
    }
    if (half && chance(carrier->env, faults.reorder_permille)) {
        td_probe(carrier->env, TD_PROBE_PACKET_REORDERED);
    } else if (half) {
        if (due_us < half->due_us)
            due_us = half->due_us;
        /* When it really comes: a timer knows milliseconds only. */
        due_us = now_us + (due_us - now_us + 999) / 1000 * 1000;
        half->due_us = due_us;
    }
    if (half && packet->message.kind == DATA && chance(carrier->env, faults.duplicate_permille)) {
        /* Later than the original: it is no reordering. */
        struct packet *twin = malloc(sizeof(*twin) + packet->size);

        td_probe(carrier->env, TD_PROBE_PACKET_REPEATED);
        if (twin) {
            memcpy(twin, packet, sizeof(*twin) + packet->size);
            memset(&twin->message, 0, sizeof(twin->message));
            twin->message.kind = DATA;
            twin->message.drop = packet_drop;
            twin->prev = twin->next = NULL;
            td_actor_post_after(carrier->actor, &twin->message, (due_us - now_us) / 1000 + 1);
        }
    }
    if (due_us <= now_us)
        return false;
    td_actor_post_after(carrier->actor, &packet->message, (due_us - now_us) / 1000);
    return true;
}

/* The carrier has lost its links with another: its side knows. */
static void take_forget(struct memory_carrier *carrier, struct packet *packet)
{
    struct half *half, *next;

    for (half = td_hash_table_first(&carrier->halves); half; half = next) {
        next = td_hash_table_next(&half->hash_entry);
        if (strcmp(half->peer, packet->from) != 0)
            continue;
        td_probe(carrier->env, TD_PROBE_LINK_HALF_OPEN);
        half_free(half, TANDEM_E_CHANNEL_NETWORK, "the link is gone");
    }
    free(packet);
}

static void handle(void *self, td_message *message)
{
    struct memory_carrier *carrier = self;
    struct packet *packet = (struct packet *)message;

    if (message->kind == WRITE)
        take_turn(carrier, packet);
    else if (message->kind == FORGET)
        take_forget(carrier, packet);
    else if (packet->delayed || message->kind == DIAL_FAILED || !delay(carrier, packet))
        take(carrier, packet);
}

static const td_actor_ops carrier_actor = {.name = "memory_carrier", .handle = handle};

/* ---- The contract ---- */

/* mem://NAME or mem://NAME/http. */
static tandem_err read_url(const char *url, char name[NAME_BYTES_MAX], bool *exchanges_out)
{
    size_t length;

    if (strncmp(url, "mem://", 6) != 0)
        return TANDEM_E_INVALID;
    length = strcspn(url + 6, "/");
    *exchanges_out = url[6 + length] != 0;
    if (length == 0 || length >= NAME_BYTES_MAX ||
        (*exchanges_out && strcmp(url + 6 + length, "/http") != 0))
        return TANDEM_E_INVALID;
    memcpy(name, url + 6, length);
    name[length] = 0;
    return TANDEM_OK;
}

static tandem_err memory_check(const char *url)
{
    char name[NAME_BYTES_MAX];
    bool exchanges;

    return read_url(url, name, &exchanges);
}

static tandem_err memory_dial(td_carrier *base, const char *url, const td_connection_events *events,
                              void *context, td_link **out)
{
    struct memory_carrier *carrier = (struct memory_carrier *)base;
    struct packet *packet, *failed;
    char name[NAME_BYTES_MAX];
    struct half *half;
    bool exchanges;
    tandem_err err;

    if ((err = read_url(url, name, &exchanges)) != TANDEM_OK ||
        (err = half_open(carrier, name, &half)) != TANDEM_OK)
        return err;
    packet = packet_open(half, DIAL, tandem_slice_of(NULL, 0));
    failed = packet_open(half, DIAL_FAILED, tandem_slice_of(NULL, 0));
    if (!packet || !failed) {
        free(packet);
        free(failed);
        half_free(half, TANDEM_E_NOMEM, "");
        return TANDEM_E_NOMEM;
    }
    half->events = events;
    half->context = context;
    failed->to_half = half->number;
    packet->exchanges = exchanges;
    if (carry(carrier, half->peer, packet))
        free(failed);
    else
        td_actor_post(carrier->actor, &failed->message);
    *out = &half->base;
    return TANDEM_OK;
}

static tandem_err memory_listen(td_carrier *base, const char *address, uint16_t port,
                                td_link_accept_fn accept, void *context, char url_out[128])
{
    struct memory_carrier *carrier = (struct memory_carrier *)base;

    (void)address;
    (void)port;
    carrier->accept = accept;
    carrier->accept_context = context;
    strcpy(url_out, "mem://");
    strcat(url_out, carrier->name);
    return TANDEM_OK;
}

void td_memory_carrier_serve_exchanges(td_carrier *base, td_link_accept_fn accept, void *context,
                                       char url_out[128])
{
    struct memory_carrier *carrier = (struct memory_carrier *)base;

    carrier->accept_exchanges = accept;
    carrier->exchanges_context = context;
    strcpy(url_out, "mem://");
    strcat(url_out, carrier->name);
    strcat(url_out, "/http");
}

static uint64_t memory_rejected(const td_carrier *carrier)
{
    (void)carrier;
    return 0;
}

static void memory_want_write(td_link *link)
{
    half_turn((struct half *)link);
}

static void memory_hold(td_link *link, bool hold)
{
    struct half *half = (struct half *)link;

    half->held = hold;
    if (!hold)
        half_turn(half);
}

static void memory_close(td_link *link, tandem_err err, const char *text)
{
    struct half *half = (struct half *)link;

    (void)text;
    if (half->closing)
        return;
    half->closing = true;
    half->close_err = err;
    half_turn(half);
}

static void memory_free(td_carrier *base)
{
    struct memory_carrier *carrier = (struct memory_carrier *)base;
    struct packet *packet, *following;
    struct half *half;

    if (!carrier)
        return;
    pthread_mutex_lock(&carrier->network->lock);
    td_hash_table_remove(&carrier->network->carriers, &carrier->hash_entry);
    pthread_mutex_unlock(&carrier->network->lock);
    DL_FOREACH_SAFE(carrier->clogged, packet, following)
        free(packet);
    /* The peers learn of it, as from an operating system whose process has died. */
    while ((half = td_hash_table_first(&carrier->halves))) {
        if (half->peer_half)
            send_small(half, CLOSE, TANDEM_OK, 0);
        half_free(half, TANDEM_OK, "the carrier is closed");
    }
    td_actor_free(carrier->actor);
    tandem_writer_release(&carrier->writer);
    free(carrier);
}

static const td_carrier_ops memory_ops = {
    .scheme = "mem",
    .check = memory_check,
    .dial = memory_dial,
    .listen = memory_listen,
    .rejected = memory_rejected,
    .want_write = memory_want_write,
    .hold = memory_hold,
    .pace = td_link_has_no_pace,
    .poll = td_link_has_no_exchanges,
    .close = memory_close,
    .free = memory_free,
};

tandem_err td_memory_carrier_open(td_memory_network *network, td_host *host, const char *name,
                                  td_carrier **out)
{
    struct memory_carrier *carrier;
    tandem_err err;

    if (strlen(name) == 0 || strlen(name) >= NAME_BYTES_MAX)
        return TANDEM_E_INVALID;
    if (!(carrier = calloc(1, sizeof(*carrier))))
        return TANDEM_E_NOMEM;
    carrier->base.ops = &memory_ops;
    carrier->network = network;
    carrier->host = host;
    carrier->env = host->runtime->env;
    td_env_random_bytes(carrier->env, &carrier->last_number, sizeof(carrier->last_number));
    carrier->last_number >>= 1; /* it never comes around to 0 */
    tandem_writer_init(&carrier->writer);
    strcpy(carrier->name, name);
    pthread_mutex_lock(&network->lock);
    if (carrier_find(network, name))
        err = TANDEM_E_EXISTS;
    else
        err = td_hash_table_add(&network->carriers, &carrier->hash_entry,
                                tandem_slice_text(carrier->name), carrier);
    /* Last: it could not be freed while its host runs. */
    if (err == TANDEM_OK &&
        (err = td_actor_open(host, &carrier_actor, carrier, &carrier->actor)) != TANDEM_OK)
        td_hash_table_remove(&network->carriers, &carrier->hash_entry);
    pthread_mutex_unlock(&network->lock);
    if (err != TANDEM_OK) {
        free(carrier);
        return err;
    }
    *out = &carrier->base;
    return TANDEM_OK;
}
