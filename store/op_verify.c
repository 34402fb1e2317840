/*
 * The proof that the rules were kept: everything is read again and derived anew, and compared with
 * what the tables say.
 *
 * A collection is checked in one transaction, so that its tables belong together, and its
 * operations are read once, in order of their ordinals; of each origin only its heads are kept
 * meanwhile. A record that cannot be read waits in a short list: the operation after it, a run or a
 * vector often tells which one it was. Of an origin with gaps order tells nothing: all of it is noted
 * and linked afterwards (op_links.h).
 */
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/filter.h"
#include "store/hash_table.h"
#include "store/op_links.h"
#include "store/op_pairs.h"
#include "store/op_search.h"

enum {
    LOST_MAX = 256, /* records that wait for their name; more are reported without one */
    SENTENCE_BYTES_MAX = 640,
    ORIGIN_HEX_BYTES = 2 * TANDEM_ORIGIN_BYTES + 1,
};

/* A head as derived, with what is needed to judge the operation after it. */
struct tail {
    td_head head;
    uint64_t ordinal;
    bool continues;
    uint8_t place[TANDEM_HASH_BYTES];
};

struct origin {
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    struct tail tails[TANDEM_HEADS_MAX];
    unsigned tail_count;
    uint64_t operations;
    uint64_t in_runs;  /* operations that the groups table promises */
    bool in_vectors;
    bool gaps;
    bool loose;    /* some of it may be behind no head */
    bool has_more; /* branches than may be kept: some of them are loose */
    td_links links; /* of one with gaps: all that was met */
    td_hash_entry hash_entry;
};

/* A record that cannot be read. */
struct lost {
    uint64_t ordinal;
    bool hash_known;
    uint8_t hash[TANDEM_HASH_BYTES]; /* as it stands in the record, where that is long enough */
    const struct origin *origin;     /* whose it was, once that is known */
    uint64_t seq;
};

struct verify {
    td_op_store *ops;
    void (*report)(void *context, const char *text);
    void *context;
    uint64_t reported;

    /* of the collection being checked */
    td_txn *txn;
    tandem_slice name;
    td_collection_record record;
    td_hash_table origins;
    struct lost lost[LOST_MAX];
    unsigned lost_count;
    bool lost_unnamed; /* some record's origin is not known: counts cannot be compared */
    uint64_t operations;
    uint64_t bytes;
    uint64_t last_ordinal;
    bool any_gaps;
};

static void hex_origin(const uint8_t *origin, char out[ORIGIN_HEX_BYTES])
{
    for (unsigned i = 0; i < TANDEM_ORIGIN_BYTES; i++)
        snprintf(out + 2 * (size_t)i, 3, "%02x", origin[i]);
}

static void say(struct verify *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* One sentence, with the collection in front if one is being checked. */
static void say(struct verify *v, const char *format, ...)
{
    char text[SENTENCE_BYTES_MAX];
    int used = 0;
    va_list args;

    if (v->name.size)
        used = snprintf(text, sizeof(text), "collection %.*s: ", (int)v->name.size,
                        (const char *)v->name.bytes);
    assert(used >= 0 && (size_t)used < sizeof(text));
    va_start(args, format);
    vsnprintf(text + used, sizeof(text) - (size_t)used, format, args);
    va_end(args);
    v->reported++;
    v->report(v->context, text);
}

/* One sentence about an operation. */
static void say_operation(struct verify *v, uint64_t ordinal, const uint8_t *origin, uint64_t seq,
                          const char *what)
{
    char hex[ORIGIN_HEX_BYTES];

    hex_origin(origin, hex);
    say(v, "ordinal %" PRIu64 ", origin %s, seq %" PRIu64 ": %s", ordinal, hex, seq, what);
}

/* ---- Records that cannot be read ---- */

static const char lost_text[] = "the record does not match its checksum or its hash";

static void lost_add(struct verify *v, uint64_t ordinal, tandem_slice value)
{
    struct lost *lost;

    if (v->lost_count == LOST_MAX) {
        say(v, "ordinal %" PRIu64 ": %s; its origin and seq cannot be told", ordinal, lost_text);
        v->lost_unnamed = true;
        return;
    }
    lost = &v->lost[v->lost_count++];
    *lost = (struct lost){.ordinal = ordinal};
    if (value.size >= TD_OPERATION_RECORD_BYTES) {
        memcpy(lost->hash, value.bytes + TD_CHECKSUM_BYTES, TANDEM_HASH_BYTES);
        lost->hash_known = true;
    }
}

static void lost_name(struct verify *v, struct lost *lost, struct origin *origin, uint64_t seq)
{
    lost->origin = origin;
    lost->seq = seq;
    origin->operations++;
    say_operation(v, lost->ordinal, origin->origin, seq, lost_text);
}

static struct lost *lost_by_hash(struct verify *v, const uint8_t *hash)
{
    for (unsigned i = 0; i < v->lost_count; i++)
        if (!v->lost[i].origin && v->lost[i].hash_known &&
            memcmp(v->lost[i].hash, hash, TANDEM_HASH_BYTES) == 0)
            return &v->lost[i];
    return NULL;
}

/*
 * The operations of origin from seq first to last are missing, and stood behind ordinal after; hash
 * is that of the last. A record that cannot be read still shows its hash, most of the time; beyond
 * that, if just as many records there cannot be read as are missing, those are they.
 */
static bool lost_explain(struct verify *v, struct origin *origin, uint64_t first, uint64_t last,
                         uint64_t after, const uint8_t *hash)
{
    struct lost *known = lost_by_hash(v, hash);
    uint64_t candidates = 0;

    if (known)
        lost_name(v, known, origin, last--);
    if (first > last)
        return known != NULL;
    for (unsigned i = 0; i < v->lost_count; i++)
        candidates += !v->lost[i].origin && v->lost[i].ordinal > after;
    if (candidates != last - first + 1)
        return known != NULL;
    for (unsigned i = 0; i < v->lost_count; i++)
        if (!v->lost[i].origin && v->lost[i].ordinal > after)
            lost_name(v, &v->lost[i], origin, first++);
    return true;
}

static void lost_finish(struct verify *v)
{
    for (unsigned i = 0; i < v->lost_count; i++)
        if (!v->lost[i].origin)
            say(v, "ordinal %" PRIu64 ": %s; its origin and seq cannot be told",
                v->lost[i].ordinal, lost_text);
}

/* Is there any that nobody has named? Then what is missing elsewhere may be that. */
static bool lost_open(const struct verify *v)
{
    for (unsigned i = 0; i < v->lost_count; i++)
        if (!v->lost[i].origin)
            return true;
    return v->lost_unnamed;
}

/* ---- Chains ---- */

static struct origin *origin_look(struct verify *v, const uint8_t *id, bool create)
{
    struct origin *origin =
        td_hash_table_find(&v->origins, tandem_slice_of(id, TANDEM_ORIGIN_BYTES));
    td_vector_record vector;

    if (origin || !create)
        return origin;
    origin = calloc(1, sizeof(*origin));
    if (!origin)
        return NULL;
    memcpy(origin->origin, id, TANDEM_ORIGIN_BYTES);
    /* A record that cannot be read is reported where vectors are. */
    if (td_vector_get(v->txn, v->record.id, id, &vector) == TANDEM_OK) {
        origin->gaps = vector.gaps;
        origin->loose = vector.loose;
    }
    v->any_gaps = v->any_gaps || origin->gaps;
    if (td_hash_table_add(&v->origins, &origin->hash_entry,
                          tandem_slice_of(origin->origin, TANDEM_ORIGIN_BYTES),
                          origin) == TANDEM_OK)
        return origin;
    free(origin);
    return NULL;
}

/* The derived head that operation names as its predecessor. */
static struct tail *tail_before(struct origin *origin, const td_operation *operation)
{
    for (unsigned i = 0; i < origin->tail_count; i++)
        if (origin->tails[i].head.seq + 1 == operation->seq &&
            memcmp(origin->tails[i].head.hash, operation->predecessor, TANDEM_HASH_BYTES) == 0)
            return &origin->tails[i];
    return NULL;
}

/* The highest derived head below seq. */
static struct tail *tail_below(struct origin *origin, uint64_t seq)
{
    struct tail *best = NULL;

    for (unsigned i = 0; i < origin->tail_count; i++)
        if (origin->tails[i].head.seq < seq &&
            (!best || origin->tails[i].head.seq > best->head.seq))
            best = &origin->tails[i];
    return best;
}

/* Is a job's operation followed by one of the same job? */
static void job_check(struct verify *v, const td_operation *operation, uint64_t ordinal,
                      const uint8_t *place_before)
{
    uint8_t place[TANDEM_HASH_BYTES];

    td_operation_place(operation, place);
    if (memcmp(place, place_before, sizeof(place)))
        say_operation(v, ordinal, operation->origin, operation->seq,
                      "the job that it belongs to is on another document or branch");
}

/*
 * An operation that follows none of the heads: the first of its chain, a fork, one whose
 * predecessor cannot be read, or one that should not be here. *tail_out is the head that it
 * replaces, NULL for a new one.
 */
static tandem_err chain_break(struct verify *v, struct origin *origin,
                              const td_operation *operation, uint64_t ordinal,
                              struct tail **tail_out)
{
    struct tail *below = tail_below(origin, operation->seq - 1);
    td_found before;
    tandem_err err;

    *tail_out = NULL;
    if (operation->seq == 1) {
        uint8_t root[TANDEM_HASH_BYTES];

        td_chain_root(v->name, root);
        if (memcmp(root, operation->predecessor, sizeof(root)))
            say_operation(v, ordinal, operation->origin, operation->seq,
                          "it does not begin at the root of the chain");
        return TANDEM_OK;
    }
    err = td_op_find(v->txn, v->record.id, operation->origin, operation->seq - 1,
                     operation->predecessor, true, NULL, 0, &before);
    if (err == TANDEM_OK && before.ordinal < ordinal) {
        if (before.flags & TD_FLAG_CONTINUES)
            job_check(v, operation, ordinal, before.place);
        return TANDEM_OK;
    }
    if (err != TANDEM_OK && err != TANDEM_E_NOT_FOUND && err != TANDEM_E_CORRUPT)
        return err;
    if (!lost_explain(v, origin, below ? below->head.seq + 1 : 1, operation->seq - 1,
                      below ? below->ordinal : 0, operation->predecessor))
        say_operation(v, ordinal, operation->origin, operation->seq,
                      "its predecessor is not held");
    *tail_out = below;
    return TANDEM_OK;
}

static tandem_err chain_check(struct verify *v, const td_operation *operation, uint64_t ordinal)
{
    struct origin *origin = origin_look(v, operation->origin, true);
    struct tail *tail;
    tandem_err err;

    if (!origin)
        return TANDEM_E_NOMEM;
    origin->operations++;
    if (origin->gaps)
        return td_links_add(&origin->links, operation, ordinal);
    tail = tail_before(origin, operation);
    if (tail && tail->continues)
        job_check(v, operation, ordinal, tail->place);
    if (!tail && (err = chain_break(v, origin, operation, ordinal, &tail)) != TANDEM_OK)
        return err;
    if (!tail && origin->tail_count == TANDEM_HEADS_MAX) {
        say_operation(v, ordinal, operation->origin, operation->seq,
                      "its origin has more heads than may be kept");
        return TANDEM_OK;
    }
    if (!tail)
        tail = &origin->tails[origin->tail_count++];
    tail->head.seq = operation->seq;
    memcpy(tail->head.hash, operation->hash, TANDEM_HASH_BYTES);
    tail->ordinal = ordinal;
    tail->continues = operation->flags & TD_FLAG_CONTINUES;
    td_operation_place(operation, tail->place);
    return TANDEM_OK;
}

/* ---- The passes over one collection ---- */

static tandem_err operation_check(struct verify *v, tandem_slice key, tandem_slice value)
{
    uint8_t hash[TANDEM_HASH_BYTES];
    uint64_t ordinal;
    td_operation operation;

    if (key.size != TD_OPERATION_KEY_BYTES) {
        say(v, "the operations table has a key of a wrong size");
        return TANDEM_OK;
    }
    ordinal = td_get_u64(key.bytes + TD_ID_BYTES);
    v->operations++;
    if (value.size > TD_OPERATION_RECORD_BYTES)
        v->bytes += value.size - TD_OPERATION_RECORD_BYTES;
    v->last_ordinal = ordinal;
    if (td_operation_decode(key, value, &operation) != TANDEM_OK) {
        lost_add(v, ordinal, value);
        return TANDEM_OK;
    }
    memcpy(hash, operation.hash, sizeof(hash));
    td_operation_hash(&operation);
    if (memcmp(hash, operation.hash, sizeof(hash)))
        say_operation(v, ordinal, operation.origin, operation.seq,
                      "its hash is not that of its bytes");
    if (!tandem_slice_equal(operation.collection, v->name))
        say_operation(v, ordinal, operation.origin, operation.seq,
                      "it belongs to another collection");
    return chain_check(v, &operation, ordinal);
}

/* Call check for each entry of a table that belongs to the collection. */
static tandem_err each_entry(struct verify *v, unsigned table,
                             tandem_err (*check)(struct verify *v, tandem_slice key,
                                                 tandem_slice value))
{
    uint8_t start[TD_ID_BYTES];
    tandem_slice key, value;
    td_cursor *cursor;
    tandem_err err;

    if ((err = td_txn_cursor(v->txn, table, &cursor)) != TANDEM_OK)
        return err;
    td_put_u32(start, v->record.id);
    err = td_cursor_seek(cursor, tandem_slice_of(start, sizeof(start)), &key, &value);
    while (err == TANDEM_OK && td_key_has_id(key, v->record.id)) {
        if ((err = check(v, key, value)) == TANDEM_OK)
            err = td_cursor_next(cursor, &key, &value);
    }
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}

static tandem_err run_check(struct verify *v, tandem_slice key, tandem_slice value)
{
    uint8_t start[TD_OPERATION_KEY_BYTES];
    const uint8_t *id = key.bytes + TD_ID_BYTES;
    struct origin *origin;
    td_operation first;
    td_run run;
    tandem_err err;

    if (td_run_decode(key, value, &run) != TANDEM_OK) {
        say(v, "an entry of the groups table does not match its checksum");
        v->lost_unnamed = true;
        return TANDEM_OK;
    }
    origin = origin_look(v, id, true);
    if (!origin)
        return TANDEM_E_NOMEM;
    origin->in_runs += run.last - run.first + 1;
    for (unsigned i = 0; i < v->lost_count; i++)
        if (!v->lost[i].origin && v->lost[i].ordinal == run.ordinal)
            lost_name(v, &v->lost[i], origin, run.first);
    td_operation_key(start, v->record.id, run.ordinal);
    key = tandem_slice_of(start, sizeof(start));
    err = td_txn_get(v->txn, TD_TABLE_OPERATIONS, key, &value);
    if (err != TANDEM_OK && err != TANDEM_E_NOT_FOUND)
        return err;
    if (err == TANDEM_OK && td_operation_decode(key, value, &first) != TANDEM_OK)
        return TANDEM_OK; /* reported where the operations were read */
    if (err == TANDEM_E_NOT_FOUND || first.seq != run.first ||
        memcmp(first.origin, origin->origin, TANDEM_ORIGIN_BYTES))
        say_operation(v, run.ordinal, origin->origin, run.first,
                      "the groups table names this operation, and another or none is there");
    return TANDEM_OK;
}

/* Does it say rightly whether something before it is missing? Once the origins are linked. */
static tandem_err run_loose_check(struct verify *v, tandem_slice key, tandem_slice value)
{
    struct origin *origin = origin_look(v, key.bytes + TD_ID_BYTES, false);
    td_operation first, last;
    td_run run;

    if (!origin || td_run_decode(key, value, &run) != TANDEM_OK ||
        td_run_ends(v->txn, v->record.id, origin->origin, &run, &first, &last) != TANDEM_OK)
        return TANDEM_OK; /* reported where the operations were read */
    if (run.loose && !origin->loose)
        say_operation(v, run.ordinal, origin->origin, run.first,
                      "it is loose, and its vector says that nothing is");
    else if (origin->loose && !origin->has_more &&
             run.loose == td_links_are_anchored(&origin->links, first.seq, first.hash))
        say_operation(v, run.ordinal, origin->origin, run.first,
                      "what is said of whether it is loose is wrong");
    return TANDEM_OK;
}

static tandem_err lack_check(struct verify *v, tandem_slice key, tandem_slice value)
{
    struct origin *origin;
    td_lack lack;

    if (td_lack_decode(key, value, &lack) != TANDEM_OK) {
        say(v, "an entry of the lacks table does not match its checksum");
        return TANDEM_OK;
    }
    if (!(origin = origin_look(v, key.bytes + TD_ID_BYTES, true)))
        return TANDEM_E_NOMEM;
    if (!origin->gaps)
        say_operation(v, 0, origin->origin, lack.first,
                      "it is lacking, and its vector says that nothing is");
    return td_links_add_lack(&origin->links, &lack);
}

struct linking {
    struct verify *v;
    const struct origin *origin;
};

static void say_link(void *context, const td_op_link *link, const char *what)
{
    struct linking *linking = context;

    say_operation(linking->v, link->ordinal, linking->origin->origin, link->seq, what);
}

/* Derive the heads of an origin with gaps. */
static void link_up(struct verify *v, struct origin *origin)
{
    struct linking linking = {v, origin};
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;

    td_links_check(&origin->links, v->name, origin->loose, say_link, &linking, heads, &count);
    if (count > TANDEM_HEADS_MAX && !origin->loose) {
        say_operation(v, 0, origin->origin, heads[0].seq,
                      "its origin has more heads than may be kept");
    }
    for (unsigned i = 0; i < count && i < TANDEM_HEADS_MAX; i++)
        origin->tails[origin->tail_count++] = (struct tail){.head = heads[i]};
    origin->has_more = count > TANDEM_HEADS_MAX;
}

static tandem_err note_pair(void *context, tandem_slice filter, uint64_t ordinal)
{
    struct verify *v = context;

    (void)ordinal;
    if (td_filter_check(filter) != TANDEM_OK)
        say(v, "a pair's filter is none");
    return TANDEM_OK;
}

static tandem_err pairs_check(struct verify *v)
{
    tandem_err err = td_pairs_each(v->txn, v->record.id, note_pair, v);

    if (err != TANDEM_E_CORRUPT)
        return err;
    say(v, "an entry of the pairs table does not match its checksum");
    return TANDEM_OK;
}

static void links_check(struct verify *v)
{
    for (struct origin *o = td_hash_table_first(&v->origins); o;
         o = td_hash_table_next(&o->hash_entry))
        if (o->gaps)
            link_up(v, o);
}

static bool tail_is(const struct origin *origin, const td_head *head)
{
    for (unsigned i = 0; i < origin->tail_count; i++)
        if (origin->tails[i].head.seq == head->seq &&
            memcmp(origin->tails[i].head.hash, head->hash, TANDEM_HASH_BYTES) == 0)
            return true;
    return false;
}

/* Was an operation of origin at seq found to be a record that cannot be read? */
static bool lost_at(const struct verify *v, const struct origin *origin, uint64_t seq)
{
    for (unsigned i = 0; i < v->lost_count; i++)
        if (v->lost[i].origin == origin && v->lost[i].seq == seq)
            return true;
    return false;
}

/* A head of the vector that was not derived: perhaps it is a record that cannot be read. */
static void head_missing(struct verify *v, struct origin *origin, const td_head *head)
{
    struct tail *below = tail_below(origin, head->seq);
    char hex[ORIGIN_HEX_BYTES];

    /* The groups table may have told already. */
    if (lost_at(v, origin, head->seq) ||
        lost_explain(v, origin, below ? below->head.seq + 1 : 1, head->seq,
                     below ? below->ordinal : 0, head->hash)) {
        if (!below && origin->tail_count == TANDEM_HEADS_MAX)
            return;
        if (!below)
            below = &origin->tails[origin->tail_count++];
        below->head = *head;
        below->continues = false;
        return;
    }
    hex_origin(origin->origin, hex);
    say(v, "origin %s, seq %" PRIu64 ": the vector names this head; the operations end elsewhere",
        hex, head->seq);
}

static tandem_err vector_check(struct verify *v, tandem_slice key, tandem_slice value)
{
    td_vector_record vector;
    struct origin *origin;

    if (key.size != TD_VECTOR_KEY_BYTES) {
        say(v, "the vectors table has a key of a wrong size");
        return TANDEM_OK;
    }
    origin = origin_look(v, key.bytes + TD_ID_BYTES, true);
    if (!origin)
        return TANDEM_E_NOMEM;
    origin->in_vectors = true;
    if (td_vector_decode(key, value, &vector) != TANDEM_OK) {
        char hex[ORIGIN_HEX_BYTES];

        hex_origin(origin->origin, hex);
        say(v, "origin %s: the vector record does not match its checksum", hex);
        return TANDEM_OK;
    }
    for (unsigned i = 0; i < vector.count; i++)
        if (origin->has_more
                ? !td_links_are_anchored(&origin->links, vector.heads[i].seq, vector.heads[i].hash)
                : !tail_is(origin, &vector.heads[i]))
            head_missing(v, origin, &vector.heads[i]);
    if (vector.count != origin->tail_count) {
        char hex[ORIGIN_HEX_BYTES];

        hex_origin(origin->origin, hex);
        say(v, "origin %s: the vector has %u heads, the operations have %u", hex, vector.count,
            origin->tail_count);
    }
    return TANDEM_OK;
}

/* What can be said of each origin once all tables were read. */
static void origins_check(struct verify *v)
{
    for (struct origin *o = td_hash_table_first(&v->origins); o;
         o = td_hash_table_next(&o->hash_entry)) {
        char hex[ORIGIN_HEX_BYTES];

        hex_origin(o->origin, hex);
        if (!o->in_vectors)
            say(v, "origin %s: it has operations and no vector record", hex);
        for (unsigned i = 0; i < o->tail_count; i++)
            if (o->tails[i].continues)
                say_operation(v, o->tails[i].ordinal, o->origin, o->tails[i].head.seq,
                              "the rest of its job is missing");
        if (o->in_runs != o->operations && !lost_open(v))
            say(v, "origin %s: the groups table has %" PRIu64 " operations, %" PRIu64 " are held",
                hex, o->in_runs, o->operations);
    }
}

static void counts_check(struct verify *v, uint64_t ordinal_max)
{
    if (v->operations != v->record.operations)
        say(v, "%" PRIu64 " operations are counted, %" PRIu64 " are held", v->record.operations,
            v->operations);
    if (v->bytes != v->record.bytes)
        say(v, "%" PRIu64 " bytes are counted, %" PRIu64 " are held", v->record.bytes, v->bytes);
    /* Lacks have ordinals, too. */
    if (v->last_ordinal > v->record.last_ordinal ||
        (v->last_ordinal < v->record.last_ordinal && !v->any_gaps))
        say(v, "the last ordinal should be %" PRIu64 " and is %" PRIu64, v->record.last_ordinal,
            v->last_ordinal);
    if (v->record.last_ordinal > v->last_ordinal)
        v->last_ordinal = v->record.last_ordinal;
    if (v->last_ordinal > ordinal_max)
        say(v, "ordinal %" PRIu64 " lies beyond the store's last, %" PRIu64, v->last_ordinal,
            ordinal_max);
}

static void origin_free(void *owner)
{
    struct origin *origin = owner;

    td_links_release(&origin->links);
    free(origin);
}

static tandem_err collection_check(struct verify *v, uint64_t ordinal_max)
{
    tandem_err err;

    v->lost_count = 0;
    v->lost_unnamed = v->any_gaps = false;
    v->operations = v->bytes = v->last_ordinal = 0;
    if ((err = each_entry(v, TD_TABLE_OPERATIONS, operation_check)) == TANDEM_OK &&
        (err = each_entry(v, TD_TABLE_GROUPS, run_check)) == TANDEM_OK &&
        (err = each_entry(v, TD_TABLE_LACKS, lack_check)) == TANDEM_OK &&
        (err = pairs_check(v)) == TANDEM_OK) {
        links_check(v);
        if ((err = each_entry(v, TD_TABLE_GROUPS, run_loose_check)) == TANDEM_OK)
            err = each_entry(v, TD_TABLE_VECTORS, vector_check);
    }
    if (err == TANDEM_OK) {
        lost_finish(v);
        origins_check(v);
        counts_check(v, ordinal_max);
    }
    td_hash_table_clear(&v->origins, origin_free);
    return err;
}

/* ---- The whole store ---- */

/* Check the first collection behind name, which then becomes it; TANDEM_END if there is none. */
static tandem_err collection_next(struct verify *v, char name[TANDEM_NAME_BYTES_MAX], size_t *size)
{
    tandem_slice after = tandem_slice_of(name, *size);
    td_cursor *cursor = NULL;
    tandem_slice key, value;
    td_position position;
    tandem_err err;

    if ((err = td_store_begin_read(td_op_store_backend(v->ops), &v->txn)) != TANDEM_OK)
        return err;
    if ((err = td_position_get(v->txn, &position)) == TANDEM_E_CORRUPT) {
        position.ordinal = UINT64_MAX; /* meta_check() has told */
        err = TANDEM_OK;
    }
    if (err != TANDEM_OK ||
        (err = td_txn_cursor(v->txn, TD_TABLE_COLLECTIONS, &cursor)) != TANDEM_OK)
        goto out;
    err = td_cursor_seek(cursor, after, &key, &value);
    if (err == TANDEM_OK && tandem_slice_equal(key, after))
        err = td_cursor_next(cursor, &key, &value);
    if (err != TANDEM_OK)
        goto out;
    if (key.size > TANDEM_NAME_BYTES_MAX) {
        say(v, "the collections table has a key that is no name");
        err = TANDEM_END; /* nothing behind it can be trusted to be found */
        goto out;
    }
    memcpy(name, key.bytes, key.size);
    *size = key.size;
    v->name = tandem_slice_of(name, *size);
    if (td_collection_decode(key, value, &v->record) != TANDEM_OK)
        say(v, "the collection's record does not match its checksum; it was not checked");
    else
        err = collection_check(v, position.ordinal);
    v->name = tandem_slice_of(NULL, 0);

out:
    td_cursor_free(cursor);
    td_txn_abort(v->txn);
    return err;
}

/* A record that cannot be read now says nothing about the record. */
static tandem_err record_check(struct verify *v, const char *what, tandem_err err)
{
    if (err == TANDEM_OK || tandem_err_is_transient(err))
        return err;
    say(v, "the record of the %s: %s", what, tandem_err_text(err));
    return TANDEM_OK;
}

static tandem_err meta_check(struct verify *v)
{
    td_identity identity;
    td_position position;
    td_txn *txn;
    tandem_err err;

    if ((err = td_store_begin_read(td_op_store_backend(v->ops), &txn)) != TANDEM_OK)
        return err;
    if ((err = record_check(v, "format version", td_format_check(txn))) == TANDEM_OK &&
        (err = record_check(v, "identity", td_identity_get(txn, &identity))) == TANDEM_OK)
        err = record_check(v, "position", td_position_get(txn, &position));
    memset(&identity, 0, sizeof(identity));
    td_txn_abort(txn);
    return err;
}

struct ids {
    uint32_t *ids;
    size_t count;
    size_t capacity;
    bool complete; /* no record was unreadable */
};

static int id_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static tandem_err ids_read(td_txn *txn, struct ids *ids)
{
    tandem_slice key, value;
    td_cursor *cursor;
    tandem_err err;

    if ((err = td_txn_cursor(txn, TD_TABLE_COLLECTIONS, &cursor)) != TANDEM_OK)
        return err;
    ids->complete = true;
    err = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value);
    for (; err == TANDEM_OK; err = td_cursor_next(cursor, &key, &value)) {
        td_collection_record record;

        if (td_collection_decode(key, value, &record) != TANDEM_OK) {
            ids->complete = false;
            continue;
        }
        if (ids->count == ids->capacity) {
            size_t capacity = ids->capacity ? 2 * ids->capacity : 64;
            uint32_t *more = realloc(ids->ids, capacity * sizeof(*more));

            if (!more) {
                err = TANDEM_E_NOMEM;
                break;
            }
            ids->ids = more;
            ids->capacity = capacity;
        }
        ids->ids[ids->count++] = record.id;
    }
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}

/* Hop from id to id: no table may hold entries of a collection that does not exist. */
static tandem_err strays_check(struct verify *v, td_txn *txn, unsigned table, const struct ids *ids)
{
    tandem_slice key, value, from = tandem_slice_of(NULL, 0);
    uint8_t start[TD_ID_BYTES];
    td_cursor *cursor;
    uint32_t id = 0;
    tandem_err err;

    if ((err = td_txn_cursor(txn, table, &cursor)) != TANDEM_OK)
        return err;
    while ((err = td_cursor_seek(cursor, from, &key, &value)) == TANDEM_OK) {
        id = key.size >= TD_ID_BYTES ? td_get_u32(key.bytes) : 0;
        if (!ids->count || !bsearch(&id, ids->ids, ids->count, sizeof(id), id_compare))
            say(v, "table %s: entries of an unknown collection, id %u", td_op_store_tables[table],
                id);
        if (id == UINT32_MAX || key.size < TD_ID_BYTES)
            break;
        td_put_u32(start, id + 1);
        from = tandem_slice_of(start, sizeof(start));
    }
    td_cursor_free(cursor);
    return err == TANDEM_END ? TANDEM_OK : err;
}

static tandem_err ids_check(struct verify *v)
{
    static const unsigned tables[] = {TD_TABLE_OPERATIONS, TD_TABLE_VECTORS, TD_TABLE_GROUPS,
                                      TD_TABLE_LACKS, TD_TABLE_PAIRS};
    struct ids ids = {.ids = NULL};
    td_txn *txn;
    tandem_err err;

    if ((err = td_store_begin_read(td_op_store_backend(v->ops), &txn)) != TANDEM_OK)
        return err;
    err = ids_read(txn, &ids);
    if (ids.count)
        qsort(ids.ids, ids.count, sizeof(ids.ids[0]), id_compare);
    for (size_t i = 1; i < ids.count; i++)
        if (ids.ids[i] == ids.ids[i - 1])
            say(v, "two collections have the id %u", ids.ids[i]);
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]) && err == TANDEM_OK && ids.complete;
         i++)
        err = strays_check(v, txn, tables[i], &ids);
    td_txn_abort(txn);
    free(ids.ids);
    return err;
}

tandem_err td_op_store_verify(td_op_store *ops, void (*report)(void *context, const char *text),
                              void *context)
{
    char name[TANDEM_NAME_BYTES_MAX];
    size_t size = 0;
    struct verify *v = calloc(1, sizeof(*v));
    tandem_err err;

    if (!v)
        return TANDEM_E_NOMEM;
    v->ops = ops;
    v->report = report;
    v->context = context;
    if ((err = meta_check(v)) == TANDEM_OK && (err = ids_check(v)) == TANDEM_OK) {
        do
            err = collection_next(v, name, &size);
        while (err == TANDEM_OK);
    }
    if (err == TANDEM_E_CORRUPT)
        say(v, "what comes after this cannot be read");
    if (err == TANDEM_END)
        err = v->reported ? TANDEM_E_CORRUPT : TANDEM_OK;
    free(v);
    return err;
}
