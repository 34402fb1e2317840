/*
 * Sending: ranges of the store into a peer's outbox, in order of ordinals, one scan for all ranges of
 * a collection. A range knows up to which ordinal it is on its way, so a scan can begin anywhere.
 *
 * What the peer says it cannot take goes back into its range: the range waits for its time and then
 * begins again with the first operation that was refused.
 */
#include <assert.h>
#include <stdlib.h>

#include <utlist.h>

#include "store/planted.h"
#include "store/probe.h"
#include "sync/sync_manager.h"

enum {
    RETRY_MS = 500,
    RETRY_MS_MAX = 30000,
    CLOCK_DELAY_MS_MAX = 60 * 60 * 1000,
    PREDECESSOR_ATTEMPTS_MAX = 5,
    FILTERED_JOBS_MAX = 1024,
    PASSED_MAX = 64, /* operations that are read for nothing, rather than to look the next one up */
};

static void list_sending(td_peer *peer, td_collection_cover *collection)
{
    if (collection->sending)
        return;
    collection->sending = true;
    LL_APPEND2(peer->sending, collection, next_sending);
}

void td_sender_asked(td_peer *peer, td_origin_cover *origin)
{
    /* Who asks knows that it is time, or is to learn until when this waits: it would ask on and on. */
    if (origin->range.retry_err == TANDEM_E_CLOCK)
        origin->range.retry_at_ms = 0;
    list_sending(peer, origin->collection);
}

static void set_asked(td_peer *peer, td_send_range *range, bool asked)
{
    if (range->asked == asked)
        return;
    range->asked = asked;
    if (asked)
        peer->asked_ranges++;
    else
        peer->asked_ranges--;
}

struct job_search {
    uint64_t ordinal, first; /* of the operation; of the job that was met last */
    bool is_inside;          /* that goes on with what comes next */
};

static tandem_err look_for_job(void *context, tandem_err err, uint64_t ordinal,
                               const td_operation *operation)
{
    struct job_search *search = context;

    if (ordinal >= search->ordinal)
        return TANDEM_END;
    if (!search->is_inside)
        search->first = ordinal;
    search->is_inside = err == TANDEM_OK && (operation->flags & TD_FLAG_CONTINUES);
    return TANDEM_OK;
}

/* The ordinal of the first operation of the job in which the one at *ordinal stands. */
static tandem_err find_job(td_peer *peer, tandem_slice collection, uint64_t *ordinal)
{
    struct job_search search = {.ordinal = *ordinal, .first = *ordinal};
    uint64_t before = *ordinal - 1, most = TANDEM_JOB_OPERATIONS_MAX;
    tandem_err err;

    err = before ? td_op_store_scan(peer->sync->ops, collection, before - 1, look_for_job, &search)
                 : TANDEM_OK;
    if ((err != TANDEM_OK && err != TANDEM_END) || !search.is_inside)
        return err == TANDEM_END ? TANDEM_OK : err; /* most of them: the job begins here */
    search.is_inside = false;
    err = td_op_store_scan(peer->sync->ops, collection, *ordinal > most ? *ordinal - most : 0,
                           look_for_job, &search);
    *ordinal = search.first;
    return err == TANDEM_END ? TANDEM_OK : err;
}

tandem_err td_sender_add(td_peer *peer, td_origin_cover *origin, uint64_t first, uint64_t last,
                         uint64_t sent_ordinal)
{
    td_send_range *range = &origin->range;
    td_collection_info info;
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;
    /* It was given all of it, and still it is lacking there: a pair of the peer's is of another branch. */
    bool again = origin->asked_first == first && !origin->asked_failed;
    uint64_t ordinal;
    bool gaps;
    tandem_err err;

    if ((err = td_op_store_has_gaps(peer->sync->ops, origin->collection->name, origin->origin,
                                    &gaps)) != TANDEM_OK ||
        (gaps && (err = td_wants_load(peer, origin)) != TANDEM_OK) ||
        (err = td_op_store_heads(peer->sync->ops, origin->collection->name, origin->origin, heads,
                                 &count)) != TANDEM_OK)
        return err;
    if (sent_ordinal == 0) {
        /* The end first: what is appended between the two looks must not be passed over. */
        if ((err = td_op_store_collection(peer->sync->ops, origin->collection->name, &info)) !=
            TANDEM_OK)
            return err;
        err = td_op_store_locate(peer->sync->ops, origin->collection->name, origin->origin, first,
                                 &ordinal);
        if (err == TANDEM_E_NOT_FOUND && last != UINT64_MAX)
            return TANDEM_OK; /* nothing of it is held */
        if (err != TANDEM_OK && err != TANDEM_E_NOT_FOUND)
            return err;
        /* Jobs go whole: through a filter a part of one would be kept, and the rest taken for held. */
        if (err == TANDEM_OK && last != UINT64_MAX &&
            (err = find_job(peer, origin->collection->name, &ordinal)) != TANDEM_OK)
            return err;
        sent_ordinal = err == TANDEM_OK ? ordinal - 1 : info.last_ordinal;
    }
    /* All that we hold of a fork; what comes to be held meanwhile is not of it. */
    if (last != UINT64_MAX &&
        (err = td_coverage_set_asked(origin, heads, first <= 1 && count > 1 ? count : 0)) !=
            TANDEM_OK)
        return err;
    if (!range->active) {
        *range = (td_send_range){.active = true, .first = first, .last = last};
        range->sent_ordinal = sent_ordinal;
    } else {
        if (first < range->first)
            range->first = first;
        if (last > range->last)
            range->last = last;
        if (sent_ordinal < range->sent_ordinal)
            range->sent_ordinal = sent_ordinal;
        if (range->last != UINT64_MAX)
            range->retry_at_ms = 0; /* who asks knows that it is time */
        range->blocked = TANDEM_OK;
    }
    range->gaps = gaps;
    range->forked = gaps && count > 1;
    if (last != UINT64_MAX) {
        range->whole = range->whole || again;
        origin->asked_first = first;
        origin->asked_failed = false;
    }
    range->failed_seq = 0;
    range->again_seq = 0;
    range->run = (td_run){.first = 0};
    range->run_seq = 0;
    range->next_seq = gaps ? range->first : 0;
    set_asked(peer, range, range->last != UINT64_MAX);
    if (last != UINT64_MAX)
        td_sender_asked(peer, origin);
    else
        list_sending(peer, origin->collection);
    return TANDEM_OK;
}

/* ---- Filling the outbox ---- */

struct filling {
    td_peer *peer;
    td_collection_cover *collection;
    tandem_job_handle *handle; /* the job that is being gathered */
    td_origin_cover *origin;   /* its */
    uint64_t done_ordinal;     /* everything up to here was seen, and no job is cut by it */
    bool full;
    bool copies;   /* what is read is kept for the message */
    bool filtered; /* not everything goes: some of the job must be in the way … */
    bool matches;  /* … and it is */
    bool skipped;  /* something was not */
    bool again; /* some range is to be scanned once more */
    tandem_err err;
};

static bool is_ready(const td_send_range *range)
{
    return range->active && range->blocked == TANDEM_OK && range->retry_at_ms == 0;
}

/* Where there are gaps ordinals do not tell what comes first, nor do seqs of a fork. */
static bool goes_by_runs(const td_send_range *range)
{
    return range->gaps && range->last != UINT64_MAX;
}

static void block(struct filling *filling, td_origin_cover *origin, tandem_err err)
{
    td_probe(filling->peer->sync->env, TD_PROBE_RANGE_BLOCKED);
    origin->range.blocked = err;
    filling->peer->troubled = true;
    td_log(filling->peer->sync->env, TANDEM_LOG_ERROR, "sender",
           "%.*s: operations of an origin cannot be sent on: %s",
           (int)filling->collection->name.size, (const char *)filling->collection->name.bytes,
           tandem_err_name(err));
}

/* Through a filter the outbox is gone through for each origin that COVER may name: it is kept short. */
static bool has_room(const td_peer *peer, uint64_t bytes)
{
    return td_channel_fits(peer->channel, bytes) &&
           (!td_way_out_has_filter(peer) ||
            tandem_mailbox_jobs(td_channel_outbox(peer->channel)) < FILTERED_JOBS_MAX);
}

static tandem_err job_is_whole(struct filling *filling)
{
    td_origin_cover *origin = filling->origin;
    tandem_job_handle *handle = filling->handle;
    tandem_err err;

    filling->handle = NULL;
    if (handle->last_seq < origin->range.first) {
        tandem_job_handle_free(handle);
        return TANDEM_OK;
    }
    if (!filling->matches) { /* it is not in the way */
        origin->range.sent_ordinal = handle->first_ordinal + handle->operations - 1;
        if (handle->last_seq >= origin->range.next_seq)
            origin->range.next_seq = handle->last_seq + 1;
        tandem_job_handle_free(handle);
        filling->skipped = true;
        return TANDEM_OK;
    }
    if (!has_room(filling->peer, handle->bytes)) {
        tandem_job_handle_free(handle);
        td_probe(filling->peer->sync->env, TD_PROBE_OUTBOX_FULL);
        filling->full = true;
        return TANDEM_END;
    }
    /* Before the push, which may already have it sent. */
    origin->range.sent_ordinal = handle->first_ordinal + handle->operations - 1;
    /* Never down: the branches of a fork stand one behind the other. */
    if (handle->last_seq >= origin->range.next_seq)
        origin->range.next_seq = handle->last_seq + 1;
    if (handle->last_seq > origin->sent_seq)
        origin->sent_seq = handle->last_seq;
    if ((err = td_channel_push(filling->peer->channel, handle)) != TANDEM_OK) {
        origin->range.sent_ordinal = handle->first_ordinal - 1;
        origin->range.next_seq = handle->first_seq;
        tandem_job_handle_free(handle);
    }
    return err;
}

/* Nobody offers what the peer has refused, or knows to be lacking: it asks for that when it wants it. */
static bool is_refused(const td_origin_cover *origin, const td_operation *operation)
{
    const td_lack *lack;

    if (td_planted(TD_PLANTED_OFFERED_AGAIN) || origin->head_count > 1 ||
        origin->range.last != UINT64_MAX || operation->seq <= origin->range.repeat_last)
        return false;
    /* Of a branch that is not held here it says nothing. */
    lack = td_coverage_lack_at(origin->lacks, origin->lack_count, operation->seq);
    return lack && lack->followed;
}

/* Is this operation the next one of its range? What came late stands behind what follows it. */
static bool is_next(struct filling *filling, td_origin_cover *origin, const td_operation *operation)
{
    td_send_range *range = &origin->range;

    if (!range->next_seq)
        return true;
    if (range->gaps)
        return operation->seq <= td_coverage_behind_lacks(origin->our_lacks, origin->our_lack_count,
                                                          range->next_seq) &&
               (operation->seq >= range->next_seq || range->forked);
    if (operation->seq > range->next_seq)
        block(filling, origin, TANDEM_E_CORRUPT); /* one before it could not be read */
    return operation->seq <= range->next_seq;
}

/* What is loose is not passed on: it would be taken for what stands at its seq in a chain that is whole. */
static bool is_loose(struct filling *filling, td_origin_cover *origin, const td_operation *operation)
{
    bool reaches;

    return td_op_store_reaches(filling->peer->sync->ops, filling->collection->name, origin->origin,
                               operation->seq, operation->hash, &reaches) == TANDEM_OK &&
           !reaches;
}

/* May a job that begins with this seq reach into the range? It goes whole. */
static bool may_reach(const td_send_range *range, uint64_t seq)
{
    return seq + TANDEM_JOB_OPERATIONS_MAX > range->first && seq <= range->last;
}

/* Is this the first operation of a job that goes to the peer? */
static bool is_wanted(struct filling *filling, uint64_t ordinal, const td_operation *operation,
                      td_origin_cover **origin_out)
{
    td_origin_cover *origin = td_coverage_find_origin(filling->collection, operation->origin);
    td_send_range *range;

    if (!origin || !is_ready(&origin->range) || goes_by_runs(&origin->range))
        return false;
    range = &origin->range;
    if (ordinal <= range->sent_ordinal || !may_reach(range, operation->seq))
        return false;
    if (!is_next(filling, origin, operation) ||
        (range->gaps && is_loose(filling, origin, operation)))
        return false;
    if (is_refused(origin, operation)) {
        range->sent_ordinal = ordinal;
        if (operation->seq >= range->next_seq)
            range->next_seq = operation->seq + 1;
        return false;
    }
    /* Somebody else delivered it meanwhile. Of a fork the seq says nothing. */
    if (operation->seq > range->repeat_last && origin->head_count <= 1 && !origin->parted &&
        operation->seq <= origin->peer_seq && range->last == UINT64_MAX) {
        td_probe(filling->peer->sync->env, TD_PROBE_SENT_BY_ANOTHER);
        range->sent_ordinal = ordinal;
        if (operation->seq >= range->next_seq)
            range->next_seq = operation->seq + 1;
        return false;
    }
    *origin_out = origin;
    return true;
}

/* A record cannot be read. */
static tandem_err visit_corrupt(struct filling *filling, uint64_t ordinal)
{
    td_sync_count_corrupt(filling->peer->sync, filling->collection->name, ordinal);
    if (filling->handle) {
        block(filling, filling->origin, TANDEM_E_CORRUPT);
        tandem_job_handle_free(filling->handle);
        filling->handle = NULL;
    }
    return TANDEM_OK;
}

/* It will be sent soon, most likely, and needs not be read and checked once more then. */
static void copy(struct filling *filling, const td_operation *operation)
{
    td_peer *peer = filling->peer;
    tandem_job_handle *handle = filling->handle;

    if (handle && filling->matches && !(operation->flags & TD_FLAG_CONTINUES) &&
        handle->operations == 1 &&
        td_handle_shelf_has_room(&peer->copies, TD_COPIES_BYTES_MAX))
        td_job_handle_copy(handle, &peer->copies, operation->canonical);
}

/* The next operation of filling->origin, with which a job may begin, or that goes on with one. */
static tandem_err gather(struct filling *filling, uint64_t ordinal, const td_operation *operation,
                         bool begins)
{
    td_handle_shelf *shelf;
    tandem_err err;

    if (filling->handle) {
        err = td_job_handle_add(filling->handle, operation);
        if (err != TANDEM_OK) {
            tandem_job_handle_free(filling->handle);
            filling->handle = NULL;
            if (err == TANDEM_E_NOMEM)
                return err;
            block(filling, filling->origin, TANDEM_E_CORRUPT);
        }
    } else if (begins) {
        filling->matches = !filling->filtered;
        shelf = tandem_mailbox_shelf(td_channel_outbox(filling->peer->channel));
        if ((err = td_job_handle_open_on(shelf, operation, ordinal, &filling->handle)) != TANDEM_OK)
            return err;
    }
    if (filling->handle && !filling->matches)
        filling->matches = td_way_out_has(filling->peer, filling->collection, operation);
    if (filling->copies)
        copy(filling, operation);
    return filling->handle && !(operation->flags & TD_FLAG_CONTINUES) ? job_is_whole(filling)
                                                                      : TANDEM_OK;
}

static tandem_err visit(void *context, tandem_err err, uint64_t ordinal,
                        const td_operation *operation)
{
    struct filling *filling = context;

    if (err != TANDEM_OK) {
        filling->done_ordinal = ordinal;
        return visit_corrupt(filling, ordinal);
    }
    err = gather(filling, ordinal, operation,
                 !filling->handle && is_wanted(filling, ordinal, operation, &filling->origin));
    if (err != TANDEM_OK)
        return err;
    if (!filling->handle)
        filling->done_ordinal = ordinal;
    return TANDEM_OK;
}

/* Where the scan must begin: below everything that is not sent. False if there is nothing. ends: what
 * was asked for, or has gaps, is done with where the scan ends, so it must be the store's end. */
static bool scan_from(const td_collection_cover *collection, uint64_t *out, bool *ends_out)
{
    bool any = false;

    *ends_out = false;
    for (const td_origin_cover *o = td_hash_table_first(&collection->origins); o;
         o = td_hash_table_next(&o->hash_entry)) {
        if (!is_ready(&o->range) || goes_by_runs(&o->range))
            continue;
        if (!any || o->range.sent_ordinal < *out)
            *out = o->range.sent_ordinal;
        *ends_out = *ends_out || o->range.last != UINT64_MAX || o->range.gaps;
        any = true;
    }
    return any;
}

/* Of a range with gaps some may stand before what was sent: the scan begins again with the next seq. */
static bool scan_again(struct filling *filling, td_origin_cover *origin)
{
    td_send_range *range = &origin->range;
    uint64_t ordinal, next = td_coverage_behind_lacks(origin->our_lacks, origin->our_lack_count,
                                                      range->next_seq);

    if (next > range->last || next > origin->our_seq || next == range->again_seq ||
        td_op_store_at(filling->peer->sync->ops, filling->collection->name, origin->origin, next,
                       &ordinal) != TANDEM_OK)
        return false;
    range->again_seq = next;
    range->sent_ordinal = ordinal - 1;
    filling->again = true;
    return true;
}

/* All that was asked for is sent. */
static void finish_asked(td_peer *peer, td_origin_cover *origin)
{
    td_send_range *range = &origin->range;

    range->active = false;
    range->repeat_last = 0;
    set_asked(peer, range, false);
    td_ways_sent(peer, origin);
    origin->asked_sent =
        origin->asked_count && range->last >= origin->asked[origin->asked_count - 1].seq;
    if (origin->asked_sent)
        td_ways_progressed(peer);
}

/* All ready ranges are sent as far as the scan came; at its end, some are finished. */
static void advance_ranges(td_peer *peer, struct filling *filling, bool at_end)
{
    for (td_origin_cover *o = td_hash_table_first(&filling->collection->origins); o;
         o = td_hash_table_next(&o->hash_entry)) {
        td_send_range *range = &o->range;

        if (!is_ready(range) || goes_by_runs(range))
            continue;
        if (filling->done_ordinal > range->sent_ordinal)
            range->sent_ordinal = filling->done_ordinal;
        if (!at_end)
            continue;
        if (range->gaps && scan_again(filling, o))
            continue;
        range->repeat_last = 0;
        /* Something that we hold was not met: its record could not be read. */
        if (range->last == UINT64_MAX && range->next_seq && range->next_seq <= o->our_seq &&
            peer->sync->quarantined)
            block(filling, o, TANDEM_E_CORRUPT);
        if (range->last != UINT64_MAX)
            finish_asked(peer, o);
        else
            td_ways_sent(peer, o);
    }
}

/* ---- By runs ---- */

struct run_reading {
    struct filling *filling;
    const td_run *run;
    uint64_t next_seq;
    uint8_t hash[TANDEM_HASH_BYTES]; /* of the operation before, once there was one … */
    bool continues;                  /* … and it is of the same job */
};

/* Between its operations stand those of others. */
static tandem_err visit_run(void *context, tandem_err err, uint64_t ordinal,
                            const td_operation *operation)
{
    struct run_reading *reading = context;
    struct filling *filling = reading->filling;
    const td_send_range *range = &filling->origin->range;
    bool begins;

    if (err != TANDEM_OK)
        return visit_corrupt(filling, ordinal);
    if (memcmp(operation->origin, filling->origin->origin, TANDEM_ORIGIN_BYTES) ||
        operation->seq != reading->next_seq ||
        (operation->seq > reading->run->first &&
         memcmp(operation->predecessor, reading->hash, TANDEM_HASH_BYTES)))
        return TANDEM_OK;
    reading->next_seq++;
    memcpy(reading->hash, operation->hash, TANDEM_HASH_BYTES);
    begins = !reading->continues && operation->seq >= range->run_seq &&
             may_reach(range, operation->seq);
    reading->continues = operation->flags & TD_FLAG_CONTINUES;
    err = gather(filling, ordinal, operation, begins);
    if (err != TANDEM_OK)
        return err;
    return operation->seq == reading->run->last ? TANDEM_END : TANDEM_OK;
}

/* Each stands behind what its first operation follows. TANDEM_END: the outbox is full. */
static tandem_err fill_runs(struct filling *filling, td_origin_cover *origin)
{
    tandem_slice name = filling->collection->name;
    td_send_range *range = &origin->range;
    uint64_t end;
    tandem_err err;

    filling->origin = origin;
    for (;;) {
        struct run_reading reading = {.filling = filling, .run = &range->run};

        if (!range->run_seq) {
            err = td_op_store_next_run(filling->peer->sync->ops, name, origin->origin, &range->run);
            if (err != TANDEM_OK || range->run.first > range->last)
                break;
            range->run_seq = range->next_seq = range->run.first;
        }
        reading.next_seq = range->run.first;
        /* What is loose nobody can take who does not hold what it follows, and is not passed on. */
        err = range->run.loose || range->run.last < range->first
                  ? TANDEM_OK
                  : td_op_store_scan(filling->peer->sync->ops, name, range->run.ordinal - 1,
                                     visit_run, &reading);
        tandem_job_handle_free(filling->handle);
        filling->handle = NULL;
        if (filling->full || (err != TANDEM_OK && err != TANDEM_END)) {
            range->run_seq = range->next_seq;
            return err;
        }
        if (!is_ready(range))
            return TANDEM_OK;
        range->run_seq = 0;
    }
    if (err != TANDEM_OK && err != TANDEM_END)
        return err;
    /* The last run may not reach as far as one before it. */
    end = range->last < origin->our_seq ? range->last : origin->our_seq;
    if (range->next_seq <= end)
        range->next_seq = end + 1;
    finish_asked(filling->peer, origin);
    return TANDEM_OK;
}

static tandem_err fill_forks(struct filling *filling)
{
    tandem_err err = TANDEM_OK;

    for (td_origin_cover *o = td_hash_table_first(&filling->collection->origins);
         o && err == TANDEM_OK; o = td_hash_table_next(&o->hash_entry))
        if (is_ready(&o->range) && goes_by_runs(&o->range))
            err = fill_runs(filling, o);
    return err;
}

static void log_failed(td_peer *peer, tandem_err err)
{
    td_log(peer->sync->env, TANDEM_LOG_ERROR, "sender", "reading for a peer failed: %s",
           tandem_err_name(err));
}

/* Fill from one collection. False if the outbox is full, or reading failed: try again later; or if some
 * of it is to be read once more. */
static bool fill_collection(td_peer *peer, td_collection_cover *collection, bool *again_out)
{
    struct filling filling = {.peer = peer, .collection = collection};
    uint64_t from = 0;
    bool ends;
    tandem_err err;

    *again_out = false;
    filling.filtered = td_way_out_has_filter(peer) || collection->pairs;
    if (!collection->stays && collection->known && (err = fill_forks(&filling)) != TANDEM_OK) {
        if (err != TANDEM_END)
            log_failed(peer, err);
        collection->sending = true;
        return false;
    }
    if (collection->stays || !collection->known || !scan_from(collection, &from, &ends)) {
        if (filling.skipped)
            td_ways_progressed(peer);
        collection->sending = false;
        return true;
    }
    filling.done_ordinal = from;
    /* Where it is told what could not be read, or what there is no more of, the store is asked. */
    if (ends || peer->sync->quarantined ||
        !td_fresh_scan(&peer->sync->fresh, collection->name, from, visit, &filling, &err)) {
        filling.copies = true;
        err = td_op_store_scan(peer->sync->ops, collection->name, from, visit, &filling);
    }
    tandem_job_handle_free(filling.handle);
    if (err == TANDEM_OK || filling.full)
        advance_ranges(peer, &filling, err == TANDEM_OK);
    else
        log_failed(peer, err);
    if (filling.skipped)
        td_ways_progressed(peer);
    *again_out = err == TANDEM_OK && filling.again;
    collection->sending = err != TANDEM_OK || filling.again;
    return !collection->sending;
}

void td_sender_fill(td_peer *peer)
{
    const tandem_mailbox *outbox = td_channel_outbox(peer->channel);

    if (!td_peer_is_open(peer) || td_dead_letters_trouble(peer) == TANDEM_E_LIMIT)
        return;
    while (peer->sending) {
        td_collection_cover *collection = peer->sending;
        bool again;

        if (!has_room(peer, 1) || tandem_mailbox_is_draining(outbox))
            break;
        LL_DELETE2(peer->sending, collection, next_sending);
        if (!fill_collection(peer, collection, &again)) {
            /* To the end: the next time another collection has its turn. */
            LL_APPEND2(peer->sending, collection, next_sending);
            if (!again)
                break;
        }
    }
}

/* ---- Reading a handle's operations for a frame ---- */

struct reading {
    const tandem_job_handle *handle;
    uint64_t next_ordinal; /* of it; behind its last one once it was read */
    unsigned passed;       /* operations of others that stood in between */
    const td_job_visitor *visitor;
};

/* Begin with a handle. True: what is to be read of it stands a little further on. */
static bool goes_on_with(struct reading *reading, const tandem_job_handle *handle)
{
    const tandem_job_handle *before = reading->handle;
    uint64_t behind = reading->next_ordinal;

    reading->handle = handle;
    reading->next_ordinal = handle->first_ordinal;
    return handle->first_ordinal >= behind &&
           tandem_slice_equal(handle->collection, before->collection);
}

static tandem_err read_operation(void *context, tandem_err err, uint64_t ordinal,
                                 const td_operation *operation)
{
    struct reading *reading = context;
    const td_job_visitor *visitor = reading->visitor;
    const tandem_job_handle *handle = reading->handle;

    if (ordinal < reading->next_ordinal) /* if there are many, its place is looked up */
        return reading->passed++ < PASSED_MAX ? TANDEM_OK : TANDEM_END;
    if (err != TANDEM_OK)
        return err;
    if (ordinal != reading->next_ordinal)
        return TANDEM_E_CORRUPT;
    reading->next_ordinal++;
    if ((err = visitor->visit(visitor->context, operation->canonical)) != TANDEM_OK)
        return err;
    if (reading->next_ordinal < handle->first_ordinal + handle->operations)
        return TANDEM_OK;
    handle = visitor->next ? visitor->next(visitor->context) : NULL;
    if (!handle) {
        reading->handle = NULL;
        return TANDEM_END;
    }
    return goes_on_with(reading, handle) ? TANDEM_OK : TANDEM_END;
}

/* Each scan reads at least the operations of the handle that it begins with. */
tandem_err td_sender_read(void *context, const tandem_job_handle *handle,
                          const td_job_visitor *visitor)
{
    tandem_sync *sync = context;
    struct reading reading = {.handle = handle, .visitor = visitor};
    tandem_err err = TANDEM_OK;

    while ((handle = reading.handle)) {
        uint64_t after = handle->first_ordinal - 1;

        reading.next_ordinal = handle->first_ordinal;
        reading.passed = 0;
        if (!td_fresh_scan(&sync->fresh, handle->collection, after, read_operation, &reading, &err))
            err = td_op_store_scan_bytes(sync->ops, handle->collection, after, read_operation,
                                         &reading);
        if (err == TANDEM_OK && reading.handle == handle)
            err = TANDEM_E_CORRUPT; /* there is nothing where it is said to be */
        if (err == TANDEM_OK && reading.next_ordinal > reading.handle->first_ordinal)
            err = TANDEM_E_CORRUPT;
        if (err != TANDEM_OK && err != TANDEM_END)
            break;
    }
    if (err == TANDEM_E_CORRUPT)
        td_sync_count_corrupt(sync, reading.handle->collection, reading.next_ordinal);
    return err == TANDEM_END ? TANDEM_OK : err;
}

/* ---- What became of handles ---- */

bool td_sender_is_refusal(tandem_err err)
{
    switch (err) {
    case TANDEM_E_CHAIN:
    case TANDEM_E_PAYLOAD:
    case TANDEM_E_LIMIT:
    case TANDEM_E_UNSUPPORTED:
    case TANDEM_E_REFUSED:
    case TANDEM_E_QUARANTINED:
    case TANDEM_E_CORRUPT:
    case TANDEM_E_INPUT:
        return true;
    default:
        return false;
    }
}

bool td_sender_is_ours(td_peer *peer, const tandem_job_handle *handle)
{
    td_collection_cover *collection = td_coverage_find(&peer->coverage, handle->collection);
    td_origin_cover *origin =
        collection ? td_coverage_find_origin(collection, handle->origin) : NULL;

    return handle->dead_letter || (origin && origin->range.last == UINT64_MAX);
}

/* How long until the peer's clock has reached an HLC; not for ever: clocks are set right. */
static uint64_t clock_delay_ms(const td_peer *peer, uint64_t hlc, uint64_t now_ms)
{
    uint64_t clock_ms = peer->peer_clock_ms + (now_ms - peer->peer_clock_at_ms), delay_ms;

    delay_ms = td_hlc_ms(hlc) > clock_ms + RETRY_MS ? td_hlc_ms(hlc) - clock_ms : RETRY_MS;
    return delay_ms < CLOCK_DELAY_MS_MAX ? delay_ms : CLOCK_DELAY_MS_MAX;
}

/* What was asked for is asked for again when its time has come: till then it shows that it waits. */
static void show_waiting(td_peer *peer, td_origin_cover *origin, uint64_t hlc)
{
    td_send_range *range = &origin->range;
    uint64_t now_ms = td_sync_now_ms(peer->sync);

    set_asked(peer, range, false);
    range->active = true;
    range->retry_err = TANDEM_E_CLOCK;
    range->clock_hlc = hlc;
    range->retry_at_ms = now_ms + clock_delay_ms(peer, hlc, now_ms);
    peer->troubled = true;
    td_peer_tick_at(peer, range->retry_at_ms);
}

/* Put what was refused back into its range, to be sent again when its time comes. */
static void put_back(td_peer *peer, td_origin_cover *origin, const tandem_job_handle *handle,
                     uint64_t detail)
{
    td_send_range *range = &origin->range;
    uint64_t now_ms = td_sync_now_ms(peer->sync), delay_ms = RETRY_MS;

    td_probe(peer->sync->env, TD_PROBE_PUT_BACK);
    peer->troubled = true;
    /* Those behind a refused one fail for want of it: the first reason is the reason. */
    if (handle->error != TANDEM_E_PREDECESSOR || range->retry_err == TANDEM_OK)
        range->retry_err = handle->error;
    if (handle->first_ordinal - 1 < range->sent_ordinal) {
        range->sent_ordinal = handle->first_ordinal - 1;
        range->next_seq = handle->first_seq;
    }
    if (handle->error == TANDEM_E_CLOCK) {
        range->clock_hlc = detail;
        delay_ms = clock_delay_ms(peer, detail, now_ms);
    } else if (range->retry_at_ms == 0) {
        for (uint32_t i = 0; i < range->attempts && delay_ms < RETRY_MS_MAX; i++)
            delay_ms *= 2;
        range->attempts++;
    }
    if (range->retry_at_ms < now_ms + delay_ms &&
        (range->retry_at_ms == 0 || handle->error == TANDEM_E_CLOCK))
        range->retry_at_ms = now_ms + delay_ms;
    td_peer_tick_at(peer, range->retry_at_ms);
}

/* What blocked a range is held there: it goes on behind that. */
static void unblock(td_peer *peer, td_collection_cover *collection, td_send_range *range,
                    const tandem_job_handle *handle)
{
    range->blocked = TANDEM_OK;
    range->sent_ordinal = handle->first_ordinal + handle->operations - 1;
    range->next_seq = handle->last_seq + 1;
    list_sending(peer, collection);
}

void td_sender_finished(td_peer *peer, tandem_job_handle *handle, uint64_t detail)
{
    td_collection_cover *collection = td_coverage_find(&peer->coverage, handle->collection);
    td_origin_cover *origin =
        collection ? td_coverage_find_origin(collection, handle->origin) : NULL;
    td_send_range *range;

    if (handle->dead_letter && !handle->refused)
        td_dead_letters_returned(peer, handle);
    else if (handle->status == TANDEM_JOB_APPLIED)
        td_dead_letters_applied(peer, handle);
    if (!origin)
        return;
    range = &origin->range;
    if (handle->status == TANDEM_JOB_APPLIED || td_planted(TD_PLANTED_REFUSED_AS_HELD)) {
        /* It hung on that alone. What was behind it was taken back when it was refused. */
        if (handle->dead_letter && range->blocked != TANDEM_OK && !origin->refused &&
            handle->last_seq > origin->peer_seq)
            unblock(peer, collection, range, handle);
        /* Through a filter, or where it was held in part already, it says nothing of what is before. */
        if (!td_way_out_has_filter(peer) &&
            (!collection->pairs || handle->first_seq <= td_coverage_reached(origin) + 1))
            td_coverage_acknowledge(&peer->coverage, origin, handle->last_seq);
        td_ways_progressed(peer);
        range->attempts = 0;
        range->clock_hlc = 0;
        range->retry_err = TANDEM_OK;
        return;
    }
    td_log(peer->sync->env, TANDEM_LOG_INFO, "sender", "a job was not taken: %s",
           tandem_err_name(handle->error));
    /* Its clock is below that. Its HLC, which it tells else, may be as far ahead as ours. */
    if (handle->error == TANDEM_E_CLOCK && detail > td_hlc_of_ms(1))
        td_executor_peer_clock(peer->sync->executor, detail - td_hlc_of_ms(1));
    if (handle->dead_letter)
        return;
    if (range->last != UINT64_MAX) { /* it was asked for: the asker knows best when to ask again */
        if (handle->error == TANDEM_E_CLOCK)
            show_waiting(peer, origin, detail);
        origin->asked_failed = origin->asked_failed || handle->error != TANDEM_E_PREDECESSOR;
        if (handle->error != TANDEM_E_REFUSED &&
            (!range->failed_seq || handle->first_seq < range->failed_seq))
            range->failed_seq = handle->first_seq;
        return;
    }
    if (handle->error == TANDEM_E_REFUSED && td_way_out_has_filter(peer)) {
        td_ways_progressed(peer);
        return;
    }
    if (handle->error == TANDEM_E_REFUSED) {
        td_coverage_pass(&peer->coverage, origin, handle->last_seq);
        /* It learns what there is from what it takes: to want this one day it has to be told. */
        td_coverage_mark_dirty(origin);
        td_announcer_soon(peer);
        return;
    }
    if (td_sender_is_refusal(handle->error)) {
        td_probe(peer->sync->env, TD_PROBE_RANGE_BLOCKED);
        if (range->blocked == TANDEM_OK)
            range->blocked = handle->error;
        peer->troubled = true;
        return;
    }
    if (range->blocked != TANDEM_OK || td_planted(TD_PLANTED_PUT_BACK_FORGOTTEN))
        return;
    put_back(peer, origin, handle, detail);
    if (handle->error == TANDEM_E_PREDECESSOR && range->attempts > PREDECESSOR_ATTEMPTS_MAX) {
        td_session *session = td_channel_session(peer->channel);

        /* It does not hold what it announced: only a new handshake can tell what it does. */
        td_session_fail(session, TANDEM_E_PREDECESSOR, "what was announced here is not held");
    }
}

/* Take a handle that waits out of the outbox: Applied if the peer holds it, else as it stands. */
static void take_out(td_peer *peer, tandem_job_handle *handle, bool applied)
{
    td_probe(peer->sync->env, applied ? TD_PROBE_SETTLED_AS_APPLIED : TD_PROBE_SETTLED_AWAY);
    if (applied) {
        tandem_job_handle_transported(handle);
        tandem_job_handle_executed(handle);
    }
    tandem_mailbox_remove(td_channel_outbox(peer->channel), handle);
    tandem_job_handle_free(handle);
}

void td_sender_leave(td_peer *peer)
{
    tandem_job_handle *handle, *next;

    for (handle = tandem_mailbox_first(td_channel_outbox(peer->channel)); handle; handle = next) {
        next = handle->next;
        if (handle->refused)
            continue;
        td_probe(peer->sync->env, TD_PROBE_SETTLED_ELSEWHERE);
        tandem_mailbox_remove(td_channel_outbox(peer->channel), handle);
        tandem_job_handle_free(handle);
    }
}

void td_sender_settle_unshared(td_peer *peer)
{
    tandem_job_handle *handle, *next;

    for (handle = tandem_mailbox_first(td_channel_outbox(peer->channel)); handle; handle = next) {
        next = handle->next;
        if (handle->waiting && !handle->refused && !td_way_is_shared(peer, handle->collection))
            take_out(peer, handle, false);
    }
}

void td_sender_settle(td_peer *peer, td_collection_cover *collection)
{
    const uint8_t *own = td_op_store_identity(peer->sync->ops)->origin;
    td_origin_cover *origin = td_coverage_find_origin(collection, own);
    /* Else what waits may not be in the way of this session any more. */
    bool all_goes = !td_way_out_has_filter(peer) && !collection->pairs && !collection->stays;
    tandem_job_handle *handle, *next;

    for (handle = tandem_mailbox_first(td_channel_outbox(peer->channel)); handle; handle = next) {
        td_send_range *range = origin ? &origin->range : NULL;
        uint64_t last_ordinal = handle->first_ordinal + handle->operations - 1;
        const td_lack *lack;

        next = handle->next;
        if (!handle->waiting || handle->refused ||
            !tandem_slice_equal(handle->collection, collection->name))
            continue;
        if (handle->dead_letter) {
            take_out(peer, handle, false); /* and offered again */
        } else if (origin && !memcmp(handle->origin, own, TANDEM_ORIGIN_BYTES) &&
                   (lack = td_coverage_lack_at(origin->lacks, origin->lack_count,
                                               handle->last_seq)) &&
                   lack->followed) {
            /* If it was refused, the answer was lost. */
            if (lack->reason != TANDEM_OK)
                tandem_job_handle_failed(handle, TANDEM_E_REFUSED);
            if (lack->reason == TANDEM_OK || !td_dead_letters_take(peer, handle))
                take_out(peer, handle, false);
        } else if (last_ordinal <= td_coverage_base(collection, handle->origin) ||
            (origin && !memcmp(handle->origin, own, TANDEM_ORIGIN_BYTES) &&
             handle->last_seq <= td_coverage_reached(origin))) {
            take_out(peer, handle, true);
        } else if (all_goes && range && range->active &&
                   !memcmp(handle->origin, own, TANDEM_ORIGIN_BYTES) &&
                   handle->first_seq == (origin->sent_seq ? origin->sent_seq : origin->peer_seq) + 1) {
            /* It continues what the peer holds: sent again, with its handle and its status. */
            td_probe(peer->sync->env, TD_PROBE_SETTLED_TO_RESEND);
            handle->waiting = false;
            range->sent_ordinal = last_ordinal;
            range->next_seq = handle->last_seq + 1;
            origin->sent_seq = handle->last_seq;
        } else {
            take_out(peer, handle, false);
        }
    }
}

static void clear_trouble(td_send_range *range)
{
    range->blocked = range->retry_err = TANDEM_OK;
    range->retry_at_ms = range->clock_hlc = 0;
    range->attempts = 0;
    range->next_seq = 0;
}

uint64_t td_sender_tick(td_peer *peer, uint64_t now_ms)
{
    uint64_t due_ms = UINT64_MAX;
    bool trouble = false;

    if (!peer->troubled)
        return UINT64_MAX;
    for (td_collection_cover *c = td_hash_table_first(&peer->coverage.collections); c;
         c = td_hash_table_next(&c->hash_entry)) {
        for (td_origin_cover *o = td_hash_table_first(&c->origins); o;
             o = td_hash_table_next(&o->hash_entry)) {
            if (!o->range.active)
                continue;
            if (o->lag == 0 && (o->range.last == UINT64_MAX || o->range.clock_hlc)) {
                clear_trouble(&o->range); /* somebody else delivered it */
                o->range.active = o->range.last == UINT64_MAX;
            }
            /* One that waits for its time may have no reason left: what was refused was held after
             * all, and what followed it was applied. */
            trouble = trouble || o->range.retry_err || o->range.blocked || o->range.retry_at_ms;
            if (o->range.retry_at_ms == 0)
                continue;
            if (o->range.retry_at_ms <= now_ms) {
                td_probe(peer->sync->env, TD_PROBE_RANGE_RETRIED);
                o->range.retry_at_ms = 0;
                if (o->range.last != UINT64_MAX)
                    o->range.retry_err = TANDEM_OK; /* to be asked for again */
                list_sending(peer, c);
            } else if (o->range.retry_at_ms < due_ms) {
                due_ms = o->range.retry_at_ms;
            }
        }
    }
    peer->troubled = trouble;
    return due_ms;
}

tandem_err td_sender_trouble(td_peer *peer, const td_origin_cover **origin_out)
{
    if (!peer->troubled)
        return TANDEM_OK;
    for (td_collection_cover *c = td_hash_table_first(&peer->coverage.collections); c;
         c = td_hash_table_next(&c->hash_entry)) {
        for (td_origin_cover *o = td_hash_table_first(&c->origins); o;
             o = td_hash_table_next(&o->hash_entry)) {
            if (!o->range.active ||
                (o->range.blocked == TANDEM_OK && o->range.retry_err == TANDEM_OK))
                continue;
            *origin_out = o;
            return o->range.blocked != TANDEM_OK ? o->range.blocked : o->range.retry_err;
        }
    }
    return TANDEM_OK;
}
