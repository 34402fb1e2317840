/*
 * What must hold of reactors that run: their clocks, their executors, the handles in their mailboxes, when
 * they dial, and what they believe of each other.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <utlist.h>

#include "sync/oracle_state.h"

/* Remotes that wait that long, and of different reactors so many that are to dial in the same
 * millisecond as another: with jitter it is one pair in a thousand. */
enum { DIAL_MS_MIN = 1000, DIALS_KEPT = 128, DIALS_TOGETHER_MAX = 5 };

/* A job handle in flight, as it was seen last; a mailbox that is listened to; or a dial that is to
 * come, its time for an id. */
struct flight {
    struct flight_key {
        uint64_t peer; /* its serial */
        uint64_t life;
        uint64_t id;
        enum { INBOX, OUTBOX, HEARD_INBOX, HEARD_OUTBOX, DIAL } box;
    } key;
    tandem_job_state status;
    uint64_t look;
    td_hash_entry hash_entry;
};

/* A life as its sessions name it. Ids do not tell copies apart, and a session that nobody has ended
 * still names a reactor that died. */
struct life {
    uint8_t instance[TD_WIRE_INSTANCE_BYTES];
    unsigned node;
    uint64_t number;
    td_hash_entry hash_entry;
};

/* ---- Clocks ---- */

tandem_err td_oracle_check_clock(td_oracle *oracle, unsigned number, tandem_reactor *reactor)
{
    struct td_oracle_node *node = &oracle->nodes[number];
    uint64_t hlc_ms = td_hlc_ms(td_executor_clock(td_reactor_executor(reactor)));

    td_oracle_clock(oracle, number);
    if (hlc_ms > node->wall_ms_max + TD_CLOCK_SKEW_MS_MAX_DEFAULT + TD_CLOCK_SLACK_MS)
        return td_oracle_fail(oracle, "%s: its clock runs %" PRIu64 " ms ahead of all it has seen",
                              td_plan_name(number), hlc_ms - node->wall_ms_max);
    return TANDEM_OK;
}

/* ---- Executors ---- */

tandem_err td_oracle_check_executor(td_oracle *oracle, unsigned number, td_executor *executor)
{
    struct td_oracle_node *node = &oracle->nodes[number];

    if (td_executor_position(executor) > node->scanned)
        return td_oracle_fail(oracle, "%s: it tells of ordinal %" PRIu64 ", its disk ends with %" PRIu64,
                              td_plan_name(number), td_executor_position(executor), node->scanned);
    if (!node->other_by_ms)
        return TANDEM_OK;
    if (td_executor_store_err(executor) != TANDEM_OK) /* then it can take none */
        node->other_by_ms =
            tandem_harness_now_ms(oracle->harness) + TD_INCARNATION_MS + TD_OWN_SLACK_MS;
    if (tandem_harness_now_ms(oracle->harness) > node->other_by_ms)
        return td_oracle_fail(oracle, "%s: another one has continued its chain, and it goes on under its origin",
                              td_plan_name(number));
    return TANDEM_OK;
}

/* ---- Mailboxes ---- */

/* NULL: no memory. is_new: it was not there at the last look. */
static struct flight *look_at_flight(td_oracle *oracle, unsigned number, const td_peer *peer,
                                     int box, uint64_t id, bool *is_new)
{
    struct flight_key key;
    struct flight *flight;

    memset(&key, 0, sizeof(key));
    key.peer = peer->serial;
    key.life = oracle->nodes[number].life << 8 | number;
    key.id = id;
    key.box = box;
    flight = td_hash_table_find(&oracle->flights, tandem_slice_of(&key, sizeof(key)));
    *is_new = !flight;
    if (!flight) {
        if (!(flight = calloc(1, sizeof(*flight))))
            return NULL;
        flight->key = key;
        if (td_hash_table_add(&oracle->flights, &flight->hash_entry,
                              tandem_slice_of(&flight->key, sizeof(flight->key)), flight) !=
            TANDEM_OK) {
            free(flight);
            return NULL;
        }
    }
    flight->look = oracle->looks;
    return flight;
}

/* What is heard of is told with the next look, if it is the first. */
static void hear(const struct td_oracle_node *node, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void hear(const struct td_oracle_node *node, const char *format, ...)
{
    td_oracle *oracle = node->oracle;
    va_list args;
    int size;

    if (oracle->heard[0])
        return;
    size = snprintf(oracle->heard, sizeof(oracle->heard), "%s: ",
                    td_plan_name((unsigned)(node - oracle->nodes)));
    va_start(args, format);
    vsnprintf(oracle->heard + size, sizeof(oracle->heard) - (size_t)size, format, args);
    va_end(args);
}

static bool is_legal(tandem_job_state from, tandem_job_state to)
{
    if (from == TANDEM_JOB_APPLIED || from == TANDEM_JOB_ERROR)
        return false;
    return to == TANDEM_JOB_ERROR || to == from + 1;
}

static void changed(void *context, tandem_job_handle *handle, tandem_job_state from,
                    tandem_job_state to)
{
    (void)handle;
    if (!is_legal(from, to))
        hear(context, "a job handle went from %s to %s", tandem_job_state_name(from),
             tandem_job_state_name(to));
}

/*
 * A message has come, and was not put to those of its session yet. Whoever took one that the pool had
 * no room for takes no other before all that it took are executed: so if what was there before is
 * more than the pool, somebody is held.
 */
static void hear_of_pool(const struct td_oracle_node *node, const tandem_sync *sync)
{
    uint64_t bytes = 0;

    for (const td_peer *peer = sync->peers; peer; peer = peer->next) {
        const td_session *session = td_channel_session(peer->channel);

        if (session && td_session_is_held(session))
            return;
        bytes += session ? td_session_pool_bytes(session) : 0;
    }
    if (bytes > sync->pool.limit_bytes)
        hear(node, "its inboxes hold %" PRIu64 " bytes of a pool of %" PRIu64
             ", and it goes on receiving", bytes, sync->pool.limit_bytes);
}

static void added(void *context, tandem_job_handle *handle)
{
    tandem_job_handle_on(handle, changed, context);
}

/* Whose it is. */
static const td_peer *peer_of(const tandem_sync *sync, const tandem_job_handle *handle, int box)
{
    for (const td_peer *peer = sync->peers; peer; peer = peer->next) {
        tandem_mailbox *mailbox = box == INBOX ? td_channel_inbox(peer->channel)
                                               : td_channel_outbox(peer->channel);

        for (const tandem_job_handle *h = tandem_mailbox_first(mailbox); h; h = h->next)
            if (h == handle)
                return peer;
    }
    return NULL;
}

/* Is some of a job in a way, and not covered by what the peer holds in part? */
static bool is_in_way(const td_share *way, const td_pair_cover *pairs,
                      const tandem_job_handle *handle)
{
    for (size_t at = 0; at < handle->scopes.size;) {
        td_operation operation = {
            .collection = handle->collection,
            .document = handle->document,
            .scope = tandem_slice_text((const char *)handle->scopes.bytes + at),
            .branch = handle->branch,
        };
        const td_pair_cover *pair;
        bool covered = false;

        at += operation.scope.size + 1;
        LL_FOREACH(pairs, pair)
            covered = covered ||
                      (handle->last_seq <= td_pair_cover_seq(pair, handle->origin) &&
                       td_filter_matches(&pair->filter, &operation));
        if (!covered && td_share_matches(way, &operation))
            return true;
    }
    return false;
}

/* What goes to a peer is in the way to it, and it does not hold it; nor has it announced to refuse it,
 * unless somebody wants that to be tried again, or it asked for it. Of a fork a seq says nothing. */
static void offered(void *context, tandem_job_handle *handle)
{
    const struct td_oracle_node *node = context;
    const tandem_sync *sync = td_oracle_sync(node->oracle, (unsigned)(node - node->oracle->nodes));
    const td_peer *peer = sync ? peer_of(sync, handle, OUTBOX) : NULL;
    td_collection_cover *collection;
    const td_origin_cover *cover;
    const td_lack *lack;

    added(context, handle);
    if (!peer || handle->dead_letter || !td_peer_is_open(peer) ||
        !(collection = td_coverage_find((td_coverage *)&peer->coverage, handle->collection)) ||
        !(cover = td_coverage_find_origin(collection, handle->origin)))
        return;
    if (collection->pairs && !cover->unmet && !cover->vague && !cover->parted &&
        !cover->range.whole && !td_coverage_refuses(cover, handle->first_seq, handle->last_seq) &&
        !is_in_way(td_peer_gives(peer), collection->pairs, handle))
        hear(node, "it offers %" PRIu64 ", which the peer holds through a filter",
             handle->last_seq);
    if (cover->head_count > 1 || cover->range.last != UINT64_MAX ||
        handle->last_seq <= cover->range.repeat_last)
        return;
    lack = td_coverage_lack_at(cover->lacks, cover->lack_count, handle->last_seq);
    if (lack && lack->followed && lack->reason != TANDEM_OK)
        hear(node, "it offers %" PRIu64 ", which the peer has announced to refuse",
             handle->last_seq);
}

static void arrived(void *context, tandem_job_handle *handle)
{
    const struct td_oracle_node *node = context;
    const tandem_sync *sync = td_oracle_sync(node->oracle, (unsigned)(node - node->oracle->nodes));
    const td_peer *peer;

    added(context, handle);
    if (!sync)
        return;
    hear_of_pool(node, sync);
    peer = peer_of(sync, handle, INBOX);
    if (peer && !is_in_way(td_peer_takes(peer), NULL, handle))
        hear(node, "%" PRIu64 " came, which is not in the way from that peer", handle->last_seq);
}

/* From now on every change of status of what is in it, or comes, is heard of. What is told is the
 * node, which outlives all mailboxes. */
static tandem_err listen(td_oracle *oracle, unsigned number, const td_peer *peer,
                         tandem_mailbox *mailbox, int box)
{
    bool is_new;

    if (!look_at_flight(oracle, number, peer, box == INBOX ? HEARD_INBOX : HEARD_OUTBOX, 0,
                        &is_new))
        return TANDEM_E_NOMEM;
    if (!is_new)
        return TANDEM_OK;
    for (tandem_job_handle *h = tandem_mailbox_first(mailbox); h; h = h->next)
        added(&oracle->nodes[number], h);
    return tandem_mailbox_subscribe(mailbox, box == INBOX ? arrived : offered, NULL,
                                    &oracle->nodes[number]);
}

static tandem_err check_flight(td_oracle *oracle, unsigned number, const td_peer *peer, int box,
                               const tandem_job_handle *handle)
{
    bool is_new;
    struct flight *flight = look_at_flight(oracle, number, peer, box, handle->id, &is_new);

    if (!flight)
        return TANDEM_E_NOMEM;
    if (is_new)
        flight->status = handle->status;
    if (handle->status < flight->status || handle->status == TANDEM_JOB_APPLIED)
        return td_oracle_fail(oracle, "%s: a job handle went from %s to %s", td_plan_name(number),
                    tandem_job_state_name(flight->status), tandem_job_state_name(handle->status));
    flight->status = handle->status;
    return TANDEM_OK;
}

static tandem_err check_mailbox(td_oracle *oracle, unsigned number, const td_peer *peer,
                                tandem_mailbox *mailbox, int box)
{
    uint32_t jobs = tandem_mailbox_jobs(mailbox);
    tandem_err err;

    if ((err = listen(oracle, number, peer, mailbox, box)) != TANDEM_OK)
        return err;
    if (jobs > 1 && (jobs > tandem_mailbox_window_jobs(mailbox) ||
                     tandem_mailbox_bytes(mailbox) > tandem_mailbox_window_bytes(mailbox)))
        return td_oracle_fail(oracle, "%s: a mailbox holds more than its window", td_plan_name(number));
    for (const tandem_job_handle *h = tandem_mailbox_first(mailbox); h && err == TANDEM_OK;
         h = h->next)
        err = check_flight(oracle, number, peer, box, h);
    return err;
}

/* When no job is on its way through the executor, nothing is left in the pool. */
static tandem_err check_pool(td_oracle *oracle, unsigned number, const tandem_sync *sync)
{
    if (!sync->deliveries && sync->pool.used_bytes)
        return td_oracle_fail(oracle, "%s: %" PRIu64 " bytes of its pool were not given back",
                              td_plan_name(number), sync->pool.used_bytes);
    return TANDEM_OK;
}

tandem_err td_oracle_check_mailboxes(td_oracle *oracle, unsigned number, tandem_sync *sync)
{
    tandem_err err;

    if ((err = check_pool(oracle, number, sync)) != TANDEM_OK)
        return err;
    for (const td_peer *peer = sync->peers; peer; peer = peer->next) {
        if (peer->asks > sync->asks_max || peer->asked_ranges > TD_ASKED_RANGES_MAX)
            return td_oracle_fail(oracle, "%s: more is asked than may be", td_plan_name(number));
        if ((err = check_mailbox(oracle, number, peer, td_channel_inbox(peer->channel), INBOX)) !=
                TANDEM_OK ||
            (err = check_mailbox(oracle, number, peer, td_channel_outbox(peer->channel), OUTBOX)) !=
                TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

void td_oracle_forget_flights(td_oracle *oracle)
{
    struct flight *flight, *next;

    for (flight = td_hash_table_first(&oracle->flights); flight; flight = next) {
        next = td_hash_table_next(&flight->hash_entry);
        if (flight->look == oracle->looks)
            continue;
        td_hash_table_remove(&oracle->flights, &flight->hash_entry);
        free(flight);
    }
}

/* ---- Dials ---- */

/* The dials that were scheduled since the last look. */
struct dials {
    struct dial {
        unsigned node;
        uint64_t at_ms;
    } dials[DIALS_KEPT];
    size_t count;
};

static tandem_err note_dials(td_oracle *oracle, unsigned number, tandem_sync *sync,
                             struct dials *dials)
{
    uint64_t now_ms = td_sync_now_ms(sync); /* of this reactor's clock */

    for (const td_peer *peer = sync->peers; peer; peer = peer->next) {
        uint64_t at_ms = td_channel_retry_at_ms(peer->channel);
        bool is_new;

        /* What only a change can end waits for a fixed time. */
        if (at_ms < now_ms + DIAL_MS_MIN || !tandem_err_is_transient(peer->last_err))
            continue;
        if (!look_at_flight(oracle, number, peer, DIAL, at_ms, &is_new))
            return TANDEM_E_NOMEM;
        if (is_new && dials->count < DIALS_KEPT)
            dials->dials[dials->count++] = (struct dial){number, at_ms - now_ms};
    }
    return TANDEM_OK;
}

tandem_err td_oracle_check_dials(td_oracle *oracle)
{
    struct dials dials = {.count = 0};
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; i < TD_PLAN_NODES_MAX && err == TANDEM_OK; i++)
        if (td_oracle_sync(oracle, i))
            err = note_dials(oracle, i, td_oracle_sync(oracle, i), &dials);
    for (size_t i = 0; i < dials.count; i++)
        for (size_t k = 0; k < i; k++)
            oracle->dials_together += dials.dials[i].node != dials.dials[k].node &&
                                      dials.dials[i].at_ms == dials.dials[k].at_ms;
    if (err == TANDEM_OK && oracle->dials_together > DIALS_TOGETHER_MAX)
        err = td_oracle_fail(oracle, "remotes of several reactors dial again at the same moment");
    return err;
}

/* ---- What reactors believe of each other ---- */

int td_oracle_find_reactor(const td_oracle *oracle, const uint8_t *id)
{
    int found = -1;

    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++) {
        tandem_reactor *reactor = td_oracle_reactor(oracle, i);

        if (!reactor || memcmp(tandem_reactor_id(reactor), id, TANDEM_ORIGIN_BYTES) != 0)
            continue;
        if (found >= 0)
            return -1;
        found = (int)i;
    }
    return found;
}

static struct life *life_find(const td_oracle *oracle, const uint8_t *instance)
{
    return td_hash_table_find(&oracle->lives, tandem_slice_of(instance, TD_WIRE_INSTANCE_BYTES));
}

tandem_err td_oracle_note_life(td_oracle *oracle, unsigned number, const tandem_sync *sync)
{
    struct life *life;
    tandem_err err;

    if (life_find(oracle, sync->instance))
        return TANDEM_OK;
    if (!(life = calloc(1, sizeof(*life))))
        return TANDEM_E_NOMEM;
    memcpy(life->instance, sync->instance, sizeof(life->instance));
    life->node = number;
    life->number = oracle->nodes[number].life;
    err = td_hash_table_add(&oracle->lives, &life->hash_entry,
                            tandem_slice_of(life->instance, sizeof(life->instance)), life);
    if (err != TANDEM_OK)
        free(life);
    return err;
}

/*
 * What a life has told is on its disk, and there in all later ones, unless the disk goes back. Who has
 * not noticed yet that a life is over may go on believing, whatever goes by that id now.
 */
static tandem_err check_coverage(td_oracle *oracle, unsigned number, const td_peer *peer)
{
    const struct life *life = life_find(oracle, peer->instance);
    tandem_reactor *other = life ? td_oracle_reactor(oracle, life->node) : NULL;
    td_op_store *ops;
    tandem_err err;

    if (!other || life->number <= oracle->nodes[life->node].back_life)
        return TANDEM_OK;
    ops = td_reactor_ops(other);
    for (const td_collection_cover *c = td_hash_table_first(&peer->coverage.collections); c;
         c = td_hash_table_next(&c->hash_entry))
        for (const td_origin_cover *o = td_hash_table_first(&c->origins); o;
             o = td_hash_table_next(&o->hash_entry)) {
            td_head heads[TANDEM_HEADS_MAX];
            unsigned count = 0;

            if (!o->peer_seq)
                continue;
            if ((err = td_op_store_heads(ops, c->name, o->origin, heads, &count)) != TANDEM_OK)
                return err;
            if (!count || heads[count - 1].seq < o->peer_seq)
                return td_oracle_fail(oracle, "%s takes %s to hold %" PRIu64
                                      " operations of an origin of which it holds %" PRIu64,
                                      td_plan_name(number), td_plan_name(life->node), o->peer_seq,
                                      count ? heads[count - 1].seq : 0);
        }
    return TANDEM_OK;
}

/* In step with a peer, all is held of what it announced without a filter, and is in the way. But where a
 * pair covers more than the only head that it announced: that may be of a branch which neither knows; and
 * what was refused through a filter is recorded nowhere. */
static tandem_err check_in_step(td_oracle *oracle, unsigned number, const td_peer *peer)
{
    const td_share *way = td_peer_takes(peer);

    if (peer->state != TANDEM_REMOTE_IN_STEP || td_share_is_nothing(way))
        return TANDEM_OK;
    for (const td_collection_cover *c = td_hash_table_first(&peer->coverage.collections); c;
         c = td_hash_table_next(&c->hash_entry)) {
        if (!td_share_has(way, c->name))
            continue;
        for (const td_origin_cover *o = td_hash_table_first(&c->origins); o;
             o = td_hash_table_next(&o->hash_entry))
            for (unsigned i = 0; i < o->head_count; i++) {
                bool is_open = (o->head_count == 1 && o->in_seq > o->heads[0].seq) ||
                               o->refused_in_part;
                uint64_t seq = is_open ? 0
                                       : td_oracle_missing_before(oracle, number, &way->filter,
                                                                  o->heads[i].hash, o);

                if (seq)
                    return td_oracle_fail(oracle, "%s: it is in step with a peer that announced %" PRIu64
                                " operations of an origin, and lacks the operation %" PRIu64,
                                          td_plan_name(number), o->heads[i].seq, seq);
            }
    }
    return TANDEM_OK;
}

tandem_err td_oracle_check_beliefs(td_oracle *oracle, unsigned number, tandem_sync *sync)
{
    tandem_err err = TANDEM_OK;

    for (const td_peer *peer = sync->peers; peer && err == TANDEM_OK; peer = peer->next)
        if (td_peer_is_open(peer) &&
            (err = check_coverage(oracle, number, peer)) == TANDEM_OK)
            err = check_in_step(oracle, number, peer);
    return err;
}
