#include "sync/oracle.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <utlist.h>
#include <xxhash.h>

#include "store/hash_table.h"
#include "sync/sync_manager.h"

enum {
    COVERAGE_EVERY = 8, /* looks: what peers believe of each other costs most to look at */
    PAIRS_EVERY = 3, /* … and pairs some more than the rest */
    TWIN_MS = 10000, /* so long, once it goes by an id of its own, it may meet what its copy wrote */
    CLOCK_SLACK_MS = 2000,
    /* Remotes that wait that long, and of different reactors so many that are to dial in the same
     * millisecond as another: with jitter it is one pair in a thousand. */
    DIAL_MS_MIN = 1000,
    DIALS_KEPT = 128,
    DIALS_TOGETHER_MAX = 5,
    OWN_SLACK_MS = 15000, /* for a new origin to be taken, once it may be; … */
    OPEN_SLACK_MS = 1000, /* … in a new life, which waits for nothing */
};

/* An operation that exists, or did. */
struct known {
    uint8_t hash[TANDEM_HASH_BYTES];
    uint32_t holders;  /* a bit for each disk that holds it, … */
    uint32_t backups;  /* … or whose backup does */
    uint32_t expected; /* disks that must be found to hold it still */
    uint64_t hlc;
    uint64_t newest; /* HLC of all its chain up to here: what is refused may be one before it */
    uint64_t chain;  /* a hash of its collection and origin, */
    uint64_t seq;    /* and its number there */
    uint8_t predecessor[TANDEM_HASH_BYTES];
    uint64_t look;   /* at which it was first seen */
    bool forged;     /* by a stranger, whatever its origin says */
    char *names;     /* document, scope and branch, each terminated by NUL; NULL: on no disk yet */
    td_hash_entry hash_entry;
};

/* A job was reported durable. */
struct durable {
    uint8_t hash[TANDEM_HASH_BYTES];
    uint64_t number;
    uint8_t node;
    bool seen; /* on its disk, or the disk has gone back since */
};

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

/* What was lacking on a disk at the last look: where the range begins, and the operation that ends it. */
struct lacked {
    uint64_t first;
    uint8_t hash[TANDEM_HASH_BYTES];
    struct lacked *next;
};

/* The end of a job that is still to come. */
struct open_job {
    uint8_t hash[TANDEM_HASH_BYTES]; /* of what it follows */
    uint64_t seq;
};

/* An operation that is held, and was not behind what it follows when it was seen: loose. */
struct loose {
    uint8_t hash[TANDEM_HASH_BYTES], predecessor[TANDEM_HASH_BYTES];
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t seq;
    char collection[TANDEM_NAME_BYTES_MAX + 1];
    struct loose *next;
};

struct node {
    td_oracle *oracle;
    bool added;
    bool fresh; /* a new life: its disk is to be scanned from the beginning */
    uint64_t life;
    uint64_t held;
    uint64_t scanned; /* ordinals up to here */
    uint64_t wall_ms_max;  /* that its clock may run by, … */
    uint64_t wall_ms_ever; /* … and one that goes back to what was kept of its disk */
    uint64_t wall_ms_since; /* that it ran by since the last look, where it was set meanwhile */
    uint64_t hlc_max; /* of all that came in this life and incarnation up to the last look, … */
    uint64_t hlc_now; /* … and to this one */
    uint32_t incarnation;
    uint64_t incarnated_ms[TANDEM_INCARNATION_CLOCK + 1]; /* in this life, by reason; 0: not */
    uint64_t other_by_ms; /* to write under another origin by then: somebody else continued this
                           * one's chain; 0: nobody did */
    uint64_t back_life; /* the last one before its disk went back; 0: it never did */
    uint64_t twin_ms;   /* when another went by its id last; 0: never */
    unsigned kin;       /* the first of those that are copies of each other */
    struct open_job open;
    bool has_open;
    struct loose *loose;
    struct lacked *lacked;
    bool refuses; /* it had a rule by which it refuses */
};

struct td_oracle {
    tandem_harness *harness;
    struct node nodes[TD_PLAN_NODES_MAX];
    td_hash_table known;
    uint64_t alive; /* that some disk holds */
    struct durable *durables;
    size_t durable_count, durable_capacity, durable_first; /* before it all are seen */
    td_hash_table flights;
    td_hash_table lives;
    uint64_t looks;
    uint64_t looked_ms; /* when the last one was */
    uint64_t dials_together;
    bool any_back;
    char heard[256]; /* what does not hold, and was heard of between two looks */
    char *why;
};

_Static_assert(TD_PLAN_NODES_MAX <= 32, "a bit for each");

/* ---- Opening ---- */

tandem_err td_oracle_open(tandem_harness *harness, td_oracle **out)
{
    td_oracle *oracle = calloc(1, sizeof(*oracle));

    if (!oracle)
        return TANDEM_E_NOMEM;
    oracle->harness = harness;
    *out = oracle;
    return TANDEM_OK;
}

static void forget_loose(struct node *node)
{
    struct loose *loose, *next;

    LL_FOREACH_SAFE(node->loose, loose, next)
        free(loose);
    node->loose = NULL;
}

static void forget_gaps(struct node *node)
{
    struct lacked *lacked, *next;

    forget_loose(node);
    LL_FOREACH_SAFE(node->lacked, lacked, next)
        free(lacked);
    node->lacked = NULL;
}

static void known_free(void *known)
{
    free(((struct known *)known)->names);
    free(known);
}

void td_oracle_free(td_oracle *oracle)
{
    if (!oracle)
        return;
    td_hash_table_clear(&oracle->known, known_free);
    td_hash_table_clear(&oracle->flights, free);
    td_hash_table_clear(&oracle->lives, free);
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
        forget_gaps(&oracle->nodes[i]);
    free(oracle->durables);
    free(oracle);
}

static tandem_reactor *reactor_of(const td_oracle *oracle, unsigned node)
{
    return oracle->nodes[node].added
               ? tandem_harness_reactor(oracle->harness, td_plan_name(node))
               : NULL;
}

static tandem_sync *sync_of(const td_oracle *oracle, unsigned node)
{
    return oracle->nodes[node].added ? tandem_harness_sync(oracle->harness, td_plan_name(node))
                                     : NULL;
}

static tandem_err fail(td_oracle *oracle, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static tandem_err fail(td_oracle *oracle, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(oracle->why, 256, format, args);
    va_end(args);
    return TANDEM_E_STATE;
}

/* ---- What is told ---- */

/* Copies of each other, one of which begins to live: for a while they may go by one id, and nobody
 * knows which of them is which. */
static void note_kin(td_oracle *oracle, unsigned node)
{
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
        if (i != node && oracle->nodes[i].added && oracle->nodes[i].kin == oracle->nodes[node].kin)
            oracle->nodes[i].twin_ms = oracle->nodes[node].twin_ms =
                tandem_harness_now_ms(oracle->harness) + 1;
}

void td_oracle_clock(td_oracle *oracle, unsigned node)
{
    tandem_reactor *reactor = reactor_of(oracle, node);
    uint64_t wall_ms = reactor ? td_env_wall_ms(td_reactor_env(reactor)) : 0;

    if (wall_ms > oracle->nodes[node].wall_ms_max)
        oracle->nodes[node].wall_ms_max = wall_ms;
    if (wall_ms > oracle->nodes[node].wall_ms_ever)
        oracle->nodes[node].wall_ms_ever = wall_ms;
    if (wall_ms > oracle->nodes[node].wall_ms_since)
        oracle->nodes[node].wall_ms_since = wall_ms;
}

void td_oracle_added(td_oracle *oracle, unsigned node, int copy_of)
{
    struct node *added = &oracle->nodes[node];

    *added = (struct node){
        .oracle = oracle, .added = true, .fresh = true, .life = 1, .kin = node};
    if (copy_of >= 0) {
        added->wall_ms_max = added->wall_ms_ever = oracle->nodes[copy_of].wall_ms_ever;
        added->incarnation = oracle->nodes[copy_of].incarnation;
        added->kin = oracle->nodes[copy_of].kin;
        added->refuses = oracle->nodes[copy_of].refuses;
        note_kin(oracle, node);
    }
    td_oracle_clock(oracle, node);
}

void td_oracle_restarted(td_oracle *oracle, unsigned node)
{
    oracle->nodes[node].fresh = true;
    oracle->nodes[node].life++;
    note_kin(oracle, node);
    td_oracle_clock(oracle, node);
}

void td_oracle_refuses(td_oracle *oracle, unsigned node)
{
    oracle->nodes[node].refuses = true;
}

void td_oracle_backed_up(td_oracle *oracle, unsigned node)
{
    for (struct known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        k->backups = (k->backups & ~(UINT32_C(1) << node)) | (k->holders & UINT32_C(1) << node);
}

static void let_go(td_oracle *oracle, struct known *known, unsigned node)
{
    uint32_t bit = UINT32_C(1) << node;

    if (!(known->holders & bit))
        return;
    known->holders &= ~bit;
    oracle->nodes[node].held--;
    if (!known->holders)
        oracle->alive--;
}

void td_oracle_went_back(td_oracle *oracle, unsigned node)
{
    for (struct known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        if (!(k->backups & UINT32_C(1) << node))
            let_go(oracle, k, node);
    for (size_t i = oracle->durable_first; i < oracle->durable_count; i++)
        if (oracle->durables[i].node == node)
            oracle->durables[i].seen = true;
    forget_gaps(&oracle->nodes[node]);
    oracle->nodes[node].wall_ms_max = oracle->nodes[node].wall_ms_ever;
    oracle->any_back = true;
    oracle->nodes[node].back_life = oracle->nodes[node].life;
}

tandem_err td_oracle_durable(td_oracle *oracle, unsigned node, uint64_t number,
                             const uint8_t hash[TANDEM_HASH_BYTES])
{
    struct durable *durable;

    if (oracle->durable_count == oracle->durable_capacity) {
        size_t capacity = oracle->durable_capacity ? oracle->durable_capacity * 2 : 256;

        if (!(durable = realloc(oracle->durables, capacity * sizeof(*durable))))
            return TANDEM_E_NOMEM;
        oracle->durables = durable;
        oracle->durable_capacity = capacity;
    }
    durable = &oracle->durables[oracle->durable_count++];
    *durable = (struct durable){.number = number, .node = (uint8_t)node};
    memcpy(durable->hash, hash, TANDEM_HASH_BYTES);
    return TANDEM_OK;
}

/* ---- Disks ---- */

static struct known *known_find(const td_oracle *oracle, const uint8_t *hash)
{
    return td_hash_table_find(&oracle->known, tandem_slice_of(hash, TANDEM_HASH_BYTES));
}

static struct known *known_make(td_oracle *oracle, const uint8_t *hash)
{
    struct known *known = known_find(oracle, hash);

    if (known || !(known = calloc(1, sizeof(*known))))
        return known;
    memcpy(known->hash, hash, TANDEM_HASH_BYTES);
    if (td_hash_table_add(&oracle->known, &known->hash_entry,
                          tandem_slice_of(known->hash, TANDEM_HASH_BYTES), known) == TANDEM_OK)
        return known;
    free(known);
    return NULL;
}

tandem_err td_oracle_forged(td_oracle *oracle, const uint8_t hash[TANDEM_HASH_BYTES])
{
    struct known *known = known_make(oracle, hash);

    if (!known)
        return TANDEM_E_NOMEM;
    known->forged = true;
    return TANDEM_OK;
}

/* Did anybody but this reactor bring it here, for all that is known? */
static bool is_of_others(const td_oracle *oracle, const struct known *known)
{
    return known->forged || known->look < oracle->looks;
}

struct scanning {
    td_oracle *oracle;
    unsigned number;
    struct node *node;
    const uint8_t *own; /* the origin that it writes under */
    uint64_t wall_ms;
    bool is_new; /* what comes now came since the last look, and to the same writer */
};

/* Does another one write under its origin, or did it a short time ago? */
static bool has_twin(const td_oracle *oracle, unsigned number)
{
    const struct node *node = &oracle->nodes[number];

    return node->twin_ms && tandem_harness_now_ms(oracle->harness) < node->twin_ms + TWIN_MS;
}

/*
 * Is it dated as it must be? Behind its predecessor; what was written here, behind all that was held
 * here; what came, not too far ahead of the clock here.
 */
static tandem_err check_date(const struct scanning *scanning, const td_operation *operation,
                             const struct known *known, const struct known *before)
{
    const struct node *node = scanning->node;
    bool was_known = is_of_others(scanning->oracle, known);
    bool is_own = !memcmp(operation->origin, scanning->own, TANDEM_ORIGIN_BYTES);
    const char *name = td_plan_name(scanning->number);

    if (before && operation->hlc <= before->hlc && !known->forged) /* the format allows it */
        return fail(scanning->oracle, "%s: an operation is not dated after the one that it follows",
                    name);
    if (!scanning->is_new)
        return TANDEM_OK;
    if (is_own && !was_known && operation->hlc <= node->hlc_max &&
        !has_twin(scanning->oracle, scanning->number))
        return fail(scanning->oracle, "%s: it wrote an operation dated before what it held", name);
    if (!is_own && td_hlc_ms(operation->hlc) >
                       scanning->wall_ms + TD_CLOCK_SKEW_MS_MAX_DEFAULT + CLOCK_SLACK_MS)
        return fail(scanning->oracle, "%s: it took an operation dated %" PRIu64 " ms ahead", name,
                    td_hlc_ms(operation->hlc) - scanning->wall_ms);
    return TANDEM_OK;
}

/* Operations under its own origin that others hold and it did not: it is to take another. */
static void note_continued(const struct scanning *scanning, const td_operation *operation,
                           const struct known *known)
{
    if (scanning->is_new && is_of_others(scanning->oracle, known) && !scanning->node->other_by_ms &&
        !memcmp(operation->origin, scanning->own, TANDEM_ORIGIN_BYTES))
        scanning->node->other_by_ms = tandem_harness_now_ms(scanning->oracle->harness) +
                                      TD_INCARNATION_MS + OWN_SLACK_MS;
}

/* By which it is in a filter, or not. NULL: no memory. */
static char *names_of(const td_operation *operation)
{
    const tandem_slice *parts[] = {&operation->document, &operation->scope, &operation->branch};
    char *names = calloc(1, parts[0]->size + parts[1]->size + parts[2]->size + 3), *at = names;

    for (unsigned i = 0; names && i < 3; i++) {
        memcpy(at, parts[i]->bytes, parts[i]->size);
        at += parts[i]->size + 1;
    }
    return names;
}

/* Behind no head, until what it follows is held or known to be lacking. */
static tandem_err note_loose(struct node *node, const td_operation *operation)
{
    struct loose *loose = calloc(1, sizeof(*loose));

    if (!loose)
        return TANDEM_E_NOMEM;
    memcpy(loose->hash, operation->hash, TANDEM_HASH_BYTES);
    memcpy(loose->predecessor, operation->predecessor, TANDEM_HASH_BYTES);
    memcpy(loose->origin, operation->origin, TANDEM_ORIGIN_BYTES);
    memcpy(loose->collection, operation->collection.bytes, operation->collection.size);
    loose->seq = operation->seq;
    LL_PREPEND(node->loose, loose);
    return TANDEM_OK;
}

static tandem_err see_operation(void *context, tandem_err err, uint64_t ordinal,
                                const td_operation *operation)
{
    struct scanning *scanning = context;
    td_oracle *oracle = scanning->oracle;
    struct node *node = scanning->node;
    const char *name = td_plan_name(scanning->number);
    uint32_t bit = UINT32_C(1) << scanning->number;
    struct known *known, *before = NULL;

    if (err != TANDEM_OK)
        return fail(oracle, "%s: the record at ordinal %" PRIu64 " does not verify", name, ordinal);
    if (!(known = known_make(oracle, operation->hash)))
        return TANDEM_E_NOMEM;
    if (!known->look)
        known->look = oracle->looks;
    known->hlc = known->newest = operation->hlc;
    known->seq = operation->seq;
    memcpy(known->predecessor, operation->predecessor, TANDEM_HASH_BYTES);
    if (!known->names && !(known->names = names_of(operation)))
        return TANDEM_E_NOMEM;
    known->chain =
        XXH3_64bits_withSeed(operation->origin, TANDEM_ORIGIN_BYTES,
                             XXH3_64bits(operation->collection.bytes, operation->collection.size));
    if (known->holders & bit)
        return fail(oracle, "%s: the operation at ordinal %" PRIu64 " is held twice", name, ordinal);
    if (operation->seq > 1) {
        before = known_find(oracle, operation->predecessor);
        if ((!before || !(before->holders & bit)) &&
            (err = note_loose(node, operation)) != TANDEM_OK)
            return err;
        if (before && before->newest > known->newest)
            known->newest = before->newest;
    }
    if (node->has_open && memcmp(node->open.hash, operation->predecessor, TANDEM_HASH_BYTES))
        return fail(oracle, "%s: the job before ordinal %" PRIu64 " is not whole", name, ordinal);
    node->has_open = operation->flags & TD_FLAG_CONTINUES;
    memcpy(node->open.hash, operation->hash, TANDEM_HASH_BYTES);
    if ((err = check_date(scanning, operation, known, before)) != TANDEM_OK)
        return err;
    note_continued(scanning, operation, known);
    if (scanning->is_new && operation->hlc > node->hlc_now)
        node->hlc_now = operation->hlc;
    oracle->alive += known->holders == 0;
    known->holders |= bit;
    node->held++;
    return TANDEM_OK;
}

struct grown {
    tandem_writer names; /* terminated by NUL */
    uint64_t scanned, last;
};

static tandem_err note_grown(void *context, const td_collection_info *info)
{
    struct grown *grown = context;

    if (info->last_ordinal <= grown->scanned)
        return TANDEM_OK;
    if (info->last_ordinal > grown->last)
        grown->last = info->last_ordinal;
    tandem_write_raw(&grown->names, info->name);
    tandem_write_raw(&grown->names, tandem_slice_of("", 1));
    return tandem_writer_err(&grown->names);
}

/*
 * Does it write as it did at the last look? Under another incarnation what it held before says
 * nothing of what it writes: its clock may have begun again. If that is why it is another, it must
 * have: what it has seen before is no excuse any more, unless a life before this one took it, whose
 * clock may have run ahead until its end. While its disk fails it is about to take another one: it
 * cannot know whether this one is kept.
 */
static bool is_same_writer(struct node *node, const td_identity *identity, bool is_same_life,
                           bool works)
{
    bool is_same = identity->incarnation == node->incarnation;

    if (!is_same)
        node->hlc_max = node->hlc_now = node->other_by_ms = 0;
    if (identity->incarnation > node->incarnation &&
        identity->reason == TANDEM_INCARNATION_CLOCK && is_same_life && works)
        node->wall_ms_max = 0;
    node->incarnation = identity->incarnation;
    return is_same;
}

/*
 * Another origin is taken at a bounded rate: what brings it about may be somebody who lies. It was
 * taken after the last look. While the disk fails it is unknown whether it is kept, and it may be
 * taken once more.
 */
static tandem_err check_incarnation(td_oracle *oracle, unsigned number, const td_identity *identity)
{
    struct node *node = &oracle->nodes[number];
    uint64_t now_ms = tandem_harness_now_ms(oracle->harness);
    uint64_t *taken_ms = &node->incarnated_ms[identity->reason];

    if (identity->incarnation <= node->incarnation)
        return TANDEM_OK;
    if (*taken_ms && now_ms < *taken_ms + TD_INCARNATION_MS)
        return fail(oracle, "%s: it took two origins within %" PRIu64 " ms: %s",
                    td_plan_name(number), now_ms - *taken_ms,
                    tandem_incarnation_reason_name(identity->reason));
    *taken_ms = oracle->looked_ms;
    return TANDEM_OK;
}

/* What has come to a disk since it was looked at last. */
static tandem_err scan(td_oracle *oracle, unsigned number, tandem_reactor *reactor, bool is_new)
{
    struct node *node = &oracle->nodes[number];
    td_op_store *ops = td_reactor_ops(reactor);
    bool works = td_executor_store_err(td_reactor_executor(reactor)) == TANDEM_OK;
    const td_identity *identity = td_op_store_identity(ops);
    struct scanning scanning = {.oracle = oracle,
                                .number = number,
                                .node = node,
                                .own = identity->origin,
                                .wall_ms = td_env_wall_ms(td_reactor_env(reactor))};
    struct grown grown = {.scanned = node->scanned, .last = node->scanned};
    tandem_err err;

    if (node->wall_ms_since > scanning.wall_ms)
        scanning.wall_ms = node->wall_ms_since;
    node->wall_ms_since = 0;
    if (is_new && works && (err = check_incarnation(oracle, number, identity)) != TANDEM_OK)
        return err;
    scanning.is_new = is_same_writer(node, identity, is_new, works) && is_new;
    tandem_writer_init(&grown.names);
    err = td_op_store_collections(ops, tandem_slice_of(NULL, 0), note_grown, &grown);
    for (size_t at = 0; err == TANDEM_OK && at < grown.names.size;) {
        tandem_slice name = tandem_slice_text((const char *)grown.names.bytes + at);

        node->has_open = false;
        err = td_op_store_scan(ops, name, node->scanned, see_operation, &scanning);
        if (err == TANDEM_OK && node->has_open)
            err = fail(oracle, "%s: the last job is not whole", td_plan_name(number));
        at += name.size + 1;
    }
    tandem_writer_release(&grown.names);
    node->scanned = grown.last;
    node->hlc_max = node->hlc_now;
    return err;
}

struct own_forks {
    td_op_store *ops;
    bool any;
};

static tandem_err look_for_own_fork(void *context, const td_collection_info *info)
{
    struct own_forks *forks = context;
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count = 0;
    tandem_err err = td_op_store_heads(forks->ops, info->name,
                                       td_op_store_identity(forks->ops)->origin, heads, &count);

    forks->any = forks->any || count > 1;
    return err;
}

/* It may have died before it could take another origin: what its disk shows is enough to know. */
static tandem_err note_own_forks(td_oracle *oracle, struct node *node, td_op_store *ops)
{
    struct own_forks forks = {.ops = ops};
    tandem_err err = td_op_store_collections(ops, tandem_slice_of(NULL, 0), look_for_own_fork,
                                             &forks);

    if (forks.any)
        node->other_by_ms = tandem_harness_now_ms(oracle->harness) + OPEN_SLACK_MS;
    return err;
}

/* A new life: what its disk held it must still hold. */
static tandem_err scan_anew(td_oracle *oracle, unsigned number, tandem_reactor *reactor)
{
    struct node *node = &oracle->nodes[number];
    uint32_t bit = UINT32_C(1) << number;
    tandem_err err;

    node->fresh = false;
    forget_loose(node);
    node->scanned = node->hlc_max = node->hlc_now = node->other_by_ms = 0;
    for (struct known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry)) {
        k->expected = (k->expected & ~bit) | (k->holders & bit);
        let_go(oracle, k, number);
    }
    memset(node->incarnated_ms, 0, sizeof(node->incarnated_ms));
    if ((err = scan(oracle, number, reactor, false)) != TANDEM_OK ||
        (err = note_own_forks(oracle, node, td_reactor_ops(reactor))) != TANDEM_OK)
        return err;
    for (struct known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        if ((k->expected & bit) && !(k->holders & bit))
            return fail(oracle, "%s: what was on its disk is not there any more",
                        td_plan_name(number));
    return TANDEM_OK;
}

/* ---- Gaps ---- */

struct lacks {
    td_oracle *oracle;
    unsigned number;
    td_op_store *ops;
    unsigned count;
    struct lacked *now;
    const struct loose *loose; /* whose predecessor is looked for */
    bool found;
};

static tandem_err see_lack(void *context, const uint8_t *origin, const td_lack *lack)
{
    struct lacks *lacks = context;
    struct node *node = &lacks->oracle->nodes[lacks->number];
    const struct known *known = known_find(lacks->oracle, lack->hash);
    const char *name = td_plan_name(lacks->number);
    struct lacked *lacked;

    (void)origin;
    lacks->count++;
    if (lack->first < 1 || lack->first > lack->last)
        return fail(lacks->oracle, "%s: it lacks %" PRIu64 " to %" PRIu64, name, lack->first,
                    lack->last);
    if (known && (known->holders & UINT32_C(1) << lacks->number))
        return fail(lacks->oracle, "%s: it holds %" PRIu64 ", and says to lack it", name, lack->last);
    if (lack->reason != TANDEM_OK && !node->refuses)
        return fail(lacks->oracle, "%s: it refuses %" PRIu64 " to %" PRIu64 " by no rule", name,
                    lack->first, lack->last);
    if (!(lacked = calloc(1, sizeof(*lacked))))
        return TANDEM_E_NOMEM;
    lacked->first = lack->first;
    memcpy(lacked->hash, lack->hash, TANDEM_HASH_BYTES);
    LL_PREPEND(lacks->now, lacked);
    return TANDEM_OK;
}

static tandem_err see_lacks_of(void *context, const td_collection_info *info)
{
    struct lacks *lacks = context;

    return td_op_store_lacks(lacks->ops, info->name, NULL, see_lack, lacks);
}

static tandem_err is_end(void *context, const uint8_t *origin, const td_lack *lack)
{
    struct lacks *lacks = context;

    (void)origin;
    lacks->found = lack->last + 1 == lacks->loose->seq &&
                   !memcmp(lack->hash, lacks->loose->predecessor, TANDEM_HASH_BYTES);
    return lacks->found ? TANDEM_END : TANDEM_OK;
}

static bool is_held(const td_oracle *oracle, const uint8_t *hash, unsigned number)
{
    const struct known *known = known_find(oracle, hash);

    return known && (known->holders & UINT32_C(1) << number);
}

/* Does the chain that ends with a head lead to this operation? */
static bool stands_behind(const td_oracle *oracle, const struct loose *loose, const td_head *head)
{
    const struct known *known = known_find(oracle, head->hash);

    while (known && known->seq > loose->seq)
        known = known_find(oracle, known->predecessor);
    return known && !memcmp(known->hash, loose->hash, TANDEM_HASH_BYTES);
}

/* What follows something that is neither held nor lacking is behind no head: those vouch for all before
 * them. */
static tandem_err check_loose(struct lacks *lacks)
{
    td_oracle *oracle = lacks->oracle;
    struct node *node = &oracle->nodes[lacks->number];
    struct loose *loose, *next;

    LL_FOREACH_SAFE(node->loose, loose, next)
    {
        td_head heads[TANDEM_HEADS_MAX];
        unsigned count = 0;
        tandem_err err;

        if (is_held(oracle, loose->predecessor, lacks->number)) {
            LL_DELETE(node->loose, loose);
            free(loose);
            continue;
        }
        lacks->loose = loose;
        lacks->found = false;
        err = td_op_store_lacks(lacks->ops, tandem_slice_text(loose->collection), loose->origin,
                                is_end, lacks);
        if (err != TANDEM_OK && err != TANDEM_END)
            return err;
        if (lacks->found)
            continue;
        if ((err = td_op_store_heads(lacks->ops, tandem_slice_text(loose->collection),
                                     loose->origin, heads, &count)) != TANDEM_OK)
            return err;
        for (unsigned i = 0; i < count; i++)
            if (heads[i].seq >= loose->seq && stands_behind(oracle, loose, &heads[i]))
                return fail(oracle, "%s: the operation %" PRIu64 " stands behind a head and follows "
                            "one that is neither held nor lacking",
                            td_plan_name(lacks->number), loose->seq);
    }
    return TANDEM_OK;
}

/* What was lacking is so still, or held. */
static tandem_err check_lacked(const struct lacks *lacks)
{
    struct node *node = &lacks->oracle->nodes[lacks->number];
    const struct lacked *before, *now;

    LL_FOREACH(node->lacked, before)
    {
        const struct known *known = known_find(lacks->oracle, before->hash);

        LL_FOREACH(lacks->now, now)
            if (!memcmp(now->hash, before->hash, TANDEM_HASH_BYTES))
                break;
        if (!now && !(known && (known->holders & UINT32_C(1) << lacks->number)))
            return fail(lacks->oracle, "%s: it has forgotten what it lacks",
                        td_plan_name(lacks->number));
    }
    return TANDEM_OK;
}

static tandem_err check_lacks(td_oracle *oracle, unsigned number, tandem_reactor *reactor)
{
    struct node *node = &oracle->nodes[number];
    struct lacks lacks = {.oracle = oracle, .number = number, .ops = td_reactor_ops(reactor)};
    unsigned count = td_op_store_lack_count(lacks.ops);
    tandem_err err;

    if (!count && !node->loose && !node->lacked)
        return TANDEM_OK;
    err = td_op_store_collections(lacks.ops, tandem_slice_of(NULL, 0), see_lacks_of, &lacks);
    if (err == TANDEM_OK && (lacks.count != count || count > TD_LACKS_MAX))
        err = fail(oracle, "%s: it counts %u lacks, and has %u", td_plan_name(number), count,
                   lacks.count);
    if (err == TANDEM_OK && (err = check_lacked(&lacks)) == TANDEM_OK)
        err = check_loose(&lacks);
    for (struct lacked *lacked = node->lacked, *next; lacked; lacked = next) {
        next = lacked->next;
        free(lacked);
    }
    node->lacked = lacks.now;
    return err;
}

/* ---- Who holds in part ---- */

static bool is_in(const td_filter *filter, const struct known *known)
{
    td_operation operation = {.document = tandem_slice_text(known->names)};

    operation.scope = tandem_slice_text(known->names + operation.document.size + 1);
    operation.branch =
        tandem_slice_text(known->names + operation.document.size + operation.scope.size + 2);
    return td_filter_matches(filter, &operation);
}

/* The first seq of what ends with this operation and lacks, here or there; or all that there are. */
static uint64_t lacks_from(const struct node *node, const td_origin_cover *there, const uint8_t *hash)
{
    const struct lacked *lacked;

    LL_FOREACH(node->lacked, lacked)
        if (!memcmp(lacked->hash, hash, TANDEM_HASH_BYTES))
            return lacked->first;
    for (unsigned i = 0; there && i < there->lack_count; i++)
        if (!memcmp(there->lacks[i].hash, hash, TANDEM_HASH_BYTES))
            return there->lacks[i].first;
    return UINT64_MAX;
}

/* Which of a chain's operations up to a head are in a filter, not held, and not known to be lacking,
 * here or with a peer: 0, or the seq of one. */
static uint64_t missing_before(const td_oracle *oracle, unsigned number, const td_filter *filter,
                               const uint8_t *head, const td_origin_cover *there)
{
    const struct node *node = &oracle->nodes[number];
    const struct known *known = known_find(oracle, head);
    uint64_t lacking_from = UINT64_MAX;

    for (; known && known->names; known = known_find(oracle, known->predecessor)) {
        if (known->seq < lacking_from)
            lacking_from = lacks_from(node, there, known->hash);
        if (known->seq < lacking_from && !(known->holders & UINT32_C(1) << number) &&
            is_in(filter, known))
            return known->seq;
        if (known->seq == 1)
            break;
    }
    return 0;
}

/* A pair covers what is held, and nothing else. */
struct pair_look {
    td_oracle *oracle;
    unsigned number;
    td_op_store *ops;
    tandem_slice collection;
    td_filter filter;
};

static tandem_err check_covered(void *context, const uint8_t *origin, const td_head *heads,
                                unsigned count)
{
    const struct pair_look *look = context;

    (void)origin;
    for (unsigned i = 0; i < count; i++) {
        uint64_t seq = missing_before(look->oracle, look->number, &look->filter, heads[i].hash,
                                      NULL);

        if (seq)
            return fail(look->oracle, "%s: a pair covers %" PRIu64 " operations of an origin, and "
                        "the operation %" PRIu64 " is in its filter and not held",
                        td_plan_name(look->number), heads[i].seq, seq);
    }
    return TANDEM_OK;
}

static tandem_err check_pair(void *context, tandem_slice filter, uint64_t ordinal)
{
    struct pair_look *look = context;
    tandem_err err;

    (void)ordinal;
    if ((err = td_filter_decode(filter, &look->filter)) != TANDEM_OK)
        return err;
    err = td_op_store_pair_vector(look->ops, look->collection, filter, NULL, check_covered, look);
    td_filter_release(&look->filter);
    return err;
}

static tandem_err check_pairs_of(void *context, const td_collection_info *info)
{
    struct pair_look *look = context;

    look->collection = info->name;
    return td_op_store_pairs(look->ops, info->name, check_pair, look);
}

static tandem_err check_pairs(td_oracle *oracle, unsigned number, tandem_reactor *reactor)
{
    struct pair_look look = {.oracle = oracle, .number = number, .ops = td_reactor_ops(reactor)};

    return td_op_store_collections(look.ops, tandem_slice_of(NULL, 0), check_pairs_of, &look);
}

static tandem_err check_durable(td_oracle *oracle)
{
    for (size_t i = oracle->durable_first; i < oracle->durable_count; i++) {
        struct durable *durable = &oracle->durables[i];
        const struct known *known;

        if (!durable->seen && reactor_of(oracle, durable->node)) {
            known = known_find(oracle, durable->hash);
            if (!known || !(known->holders & UINT32_C(1) << durable->node))
                return fail(oracle, "%s: job %" PRIu64 " was reported durable and is not there",
                            td_plan_name(durable->node), durable->number);
            durable->seen = true;
        }
        if (durable->seen && i == oracle->durable_first)
            oracle->durable_first++;
    }
    return TANDEM_OK;
}

/* ---- Clocks ---- */

static tandem_err check_clock(td_oracle *oracle, unsigned number, tandem_reactor *reactor)
{
    struct node *node = &oracle->nodes[number];
    uint64_t hlc_ms = td_hlc_ms(td_executor_clock(td_reactor_executor(reactor)));

    td_oracle_clock(oracle, number);
    if (hlc_ms > node->wall_ms_max + TD_CLOCK_SKEW_MS_MAX_DEFAULT + CLOCK_SLACK_MS)
        return fail(oracle, "%s: its clock runs %" PRIu64 " ms ahead of all it has seen",
                    td_plan_name(number), hlc_ms - node->wall_ms_max);
    return TANDEM_OK;
}

/* ---- Executors ---- */

static tandem_err check_executor(td_oracle *oracle, unsigned number, td_executor *executor)
{
    struct node *node = &oracle->nodes[number];

    if (td_executor_position(executor) > node->scanned)
        return fail(oracle, "%s: it tells of ordinal %" PRIu64 ", its disk ends with %" PRIu64,
                    td_plan_name(number), td_executor_position(executor), node->scanned);
    if (!node->other_by_ms)
        return TANDEM_OK;
    if (td_executor_store_err(executor) != TANDEM_OK) /* then it can take none */
        node->other_by_ms =
            tandem_harness_now_ms(oracle->harness) + TD_INCARNATION_MS + OWN_SLACK_MS;
    if (tandem_harness_now_ms(oracle->harness) > node->other_by_ms)
        return fail(oracle, "%s: another one has continued its chain, and it goes on under its origin",
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
static void hear(const struct node *node, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void hear(const struct node *node, const char *format, ...)
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
static void hear_of_pool(const struct node *node, const tandem_sync *sync)
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
    const struct node *node = context;
    const tandem_sync *sync = sync_of(node->oracle, (unsigned)(node - node->oracle->nodes));
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
    const struct node *node = context;
    const tandem_sync *sync = sync_of(node->oracle, (unsigned)(node - node->oracle->nodes));
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
        return fail(oracle, "%s: a job handle went from %s to %s", td_plan_name(number),
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
        return fail(oracle, "%s: a mailbox holds more than its window", td_plan_name(number));
    for (const tandem_job_handle *h = tandem_mailbox_first(mailbox); h && err == TANDEM_OK;
         h = h->next)
        err = check_flight(oracle, number, peer, box, h);
    return err;
}

/* When no job is on its way through the executor, nothing is left in the pool. */
static tandem_err check_pool(td_oracle *oracle, unsigned number, const tandem_sync *sync)
{
    if (!sync->deliveries && sync->pool.used_bytes)
        return fail(oracle, "%s: %" PRIu64 " bytes of its pool were not given back",
                    td_plan_name(number), sync->pool.used_bytes);
    return TANDEM_OK;
}

static tandem_err check_mailboxes(td_oracle *oracle, unsigned number, tandem_sync *sync)
{
    tandem_err err;

    if ((err = check_pool(oracle, number, sync)) != TANDEM_OK)
        return err;
    for (const td_peer *peer = sync->peers; peer; peer = peer->next) {
        if (peer->asks > sync->asks_max || peer->asked_ranges > TD_ASKED_RANGES_MAX)
            return fail(oracle, "%s: more is asked than may be", td_plan_name(number));
        if ((err = check_mailbox(oracle, number, peer, td_channel_inbox(peer->channel), INBOX)) !=
                TANDEM_OK ||
            (err = check_mailbox(oracle, number, peer, td_channel_outbox(peer->channel), OUTBOX)) !=
                TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

static void forget_flights(td_oracle *oracle)
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

/* Who lost the same peer at the same moment is to come back at different ones. */
static tandem_err check_dials(td_oracle *oracle)
{
    struct dials dials = {.count = 0};
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; i < TD_PLAN_NODES_MAX && err == TANDEM_OK; i++)
        if (sync_of(oracle, i))
            err = note_dials(oracle, i, sync_of(oracle, i), &dials);
    for (size_t i = 0; i < dials.count; i++)
        for (size_t k = 0; k < i; k++)
            oracle->dials_together += dials.dials[i].node != dials.dials[k].node &&
                                      dials.dials[i].at_ms == dials.dials[k].at_ms;
    if (err == TANDEM_OK && oracle->dials_together > DIALS_TOGETHER_MAX)
        err = fail(oracle, "remotes of several reactors dial again at the same moment");
    return err;
}

/* ---- What reactors believe of each other ---- */

/* The one running reactor of this id: -1 if there is none, or two. */
static int find_reactor(const td_oracle *oracle, const uint8_t *id)
{
    int found = -1;

    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++) {
        tandem_reactor *reactor = reactor_of(oracle, i);

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

static tandem_err note_life(td_oracle *oracle, unsigned number, const tandem_sync *sync)
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
    tandem_reactor *other = life ? reactor_of(oracle, life->node) : NULL;
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
                return fail(oracle, "%s takes %s to hold %" PRIu64
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
                                       : missing_before(oracle, number, &way->filter,
                                                        o->heads[i].hash, o);

                if (seq)
                    return fail(oracle, "%s: it is in step with a peer that announced %" PRIu64
                                " operations of an origin, and lacks the operation %" PRIu64,
                                td_plan_name(number), o->heads[i].seq, seq);
            }
    }
    return TANDEM_OK;
}

static tandem_err check_beliefs(td_oracle *oracle, unsigned number, tandem_sync *sync)
{
    tandem_err err = TANDEM_OK;

    for (const td_peer *peer = sync->peers; peer && err == TANDEM_OK; peer = peer->next)
        if (td_peer_is_open(peer) &&
            (err = check_coverage(oracle, number, peer)) == TANDEM_OK)
            err = check_in_step(oracle, number, peer);
    return err;
}

/* ---- Looking ---- */

tandem_err td_oracle_look(td_oracle *oracle, char why[256])
{
    bool beliefs = ++oracle->looks % COVERAGE_EVERY == 0;
    tandem_err err = TANDEM_OK;

    oracle->why = why;
    why[0] = 0;
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX && err == TANDEM_OK; i++) {
        tandem_reactor *reactor = reactor_of(oracle, i);

        if (!reactor)
            continue;
        err = oracle->nodes[i].fresh ? scan_anew(oracle, i, reactor)
                                     : scan(oracle, i, reactor, true);
        if (err == TANDEM_OK)
            err = check_lacks(oracle, i, reactor);
        if (err == TANDEM_OK && oracle->looks % PAIRS_EVERY == 0)
            err = check_pairs(oracle, i, reactor);
        if (err == TANDEM_OK && (err = check_clock(oracle, i, reactor)) == TANDEM_OK)
            err = check_executor(oracle, i, td_reactor_executor(reactor));
    }
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX && err == TANDEM_OK; i++)
        if (reactor_of(oracle, i) &&
            find_reactor(oracle, tandem_reactor_id(reactor_of(oracle, i))) < 0)
            note_kin(oracle, i);
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX && err == TANDEM_OK; i++) {
        tandem_sync *sync = sync_of(oracle, i);

        if (!sync)
            continue;
        if ((err = note_life(oracle, i, sync)) == TANDEM_OK &&
            (err = check_mailboxes(oracle, i, sync)) == TANDEM_OK && beliefs)
            err = check_beliefs(oracle, i, sync);
    }
    if (err == TANDEM_OK && (err = check_durable(oracle)) == TANDEM_OK)
        err = check_dials(oracle);
    forget_flights(oracle);
    oracle->looked_ms = tandem_harness_now_ms(oracle->harness);
    if (err == TANDEM_OK && oracle->heard[0])
        err = fail(oracle, "%s", oracle->heard);
    if (err != TANDEM_OK && !why[0])
        fail(oracle, "the oracle cannot look: %s", tandem_err_name(err));
    return err;
}

/* Does it follow something that no disk holds any more, and nobody has recorded as lacking? */
static bool is_stranded(const td_oracle *oracle, const struct known *known)
{
    const struct lacked *lacked;

    while (known->seq > 1) {
        const struct known *before = known_find(oracle, known->predecessor);

        if (before && before->holders) {
            known = before;
            continue;
        }
        for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
            LL_FOREACH(oracle->nodes[i].lacked, lacked)
                if (!memcmp(lacked->hash, known->predecessor, TANDEM_HASH_BYTES))
                    return false;
        return true;
    }
    return false;
}

bool td_oracle_has_stranded(const td_oracle *oracle)
{
    const struct loose *loose;

    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
        LL_FOREACH(oracle->nodes[i].loose, loose)
        {
            const struct known *known = known_find(oracle, loose->hash);

            if (known && is_stranded(oracle, known))
                return true;
        }
    return false;
}

bool td_oracle_has_vain(const td_oracle *oracle)
{
    const struct lacked *lacked;

    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
        LL_FOREACH(oracle->nodes[i].lacked, lacked)
        {
            const struct known *known = known_find(oracle, lacked->hash);

            if (!known || !known->holders)
                return true;
        }
    return false;
}

static uint32_t running(const td_oracle *oracle)
{
    uint32_t bits = 0;

    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
        bits |= (uint32_t)(reactor_of(oracle, i) != NULL) << i;
    return bits;
}

static bool is_any_fresh(const td_oracle *oracle)
{
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
        if (oracle->nodes[i].fresh && reactor_of(oracle, i))
            return true;
    return false;
}

bool td_oracle_is_equal(const td_oracle *oracle)
{
    uint32_t all = running(oracle);

    if (is_any_fresh(oracle))
        return false;
    for (const struct known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        if (k->holders && (all & ~k->holders) && !is_stranded(oracle, k))
            return false;
    return true;
}

/* The clock by which all that runs refuses what is dated too far ahead. */
static uint64_t wall_ms_min(const td_oracle *oracle)
{
    uint64_t min_ms = UINT64_MAX;

    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++) {
        tandem_reactor *reactor = reactor_of(oracle, i);
        uint64_t wall_ms = reactor ? td_env_wall_ms(td_reactor_env(reactor)) : UINT64_MAX;

        min_ms = wall_ms < min_ms ? wall_ms : min_ms;
    }
    return min_ms;
}

static bool is_forked_at(const td_oracle *oracle, const struct known *one)
{
    for (const struct known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        if (k != one && k->holders && k->chain == one->chain && k->seq == one->seq)
            return true;
    return false;
}

/* Where an origin has branches that are due and others that are not, all of them may wait: the answer
 * that says so names the origin alone. */
static bool is_fork_ahead(const td_oracle *oracle, uint64_t chain, uint64_t ahead_ms)
{
    bool ahead = false, forked = false;

    for (const struct known *k = td_hash_table_first(&oracle->known);
         k && !(ahead && forked); k = td_hash_table_next(&k->hash_entry)) {
        if (!k->holders || k->chain != chain)
            continue;
        ahead = ahead || td_hlc_ms(k->newest) > ahead_ms;
        forked = forked || is_forked_at(oracle, k);
    }
    return ahead && forked;
}

bool td_oracle_is_equal_but_ahead(const td_oracle *oracle)
{
    uint64_t ahead_ms = wall_ms_min(oracle) + TD_CLOCK_SKEW_MS_MAX_DEFAULT;
    uint32_t all = running(oracle);

    if (is_any_fresh(oracle))
        return false;
    for (const struct known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        if (k->holders && (all & ~k->holders) && td_hlc_ms(k->newest) <= ahead_ms &&
            !is_fork_ahead(oracle, k->chain, ahead_ms) && !is_stranded(oracle, k))
            return false;
    return true;
}

uint64_t td_oracle_ahead_ms(const td_oracle *oracle)
{
    uint64_t now_ms = wall_ms_min(oracle), newest_ms = now_ms;

    for (const struct known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        if (k->holders && td_hlc_ms(k->newest) > newest_ms)
            newest_ms = td_hlc_ms(k->newest);
    return newest_ms - now_ms;
}

bool td_oracle_is_on_time(const td_oracle *oracle)
{
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++) {
        tandem_reactor *reactor = reactor_of(oracle, i);

        if (reactor && td_hlc_ms(td_executor_clock(td_reactor_executor(reactor))) >
                           td_env_wall_ms(td_reactor_env(reactor)) + TD_CLOCK_SKEW_MS_MAX_DEFAULT)
            return false;
    }
    return true;
}

/* What is loose, or follows such, is not passed on. */
static bool is_loose_at(const td_oracle *oracle, unsigned number, const struct known *known)
{
    const struct loose *loose;

    for (; known && (known->holders & UINT32_C(1) << number);
         known = known_find(oracle, known->predecessor))
        LL_FOREACH(oracle->nodes[number].loose, loose)
            if (!memcmp(loose->hash, known->hash, TANDEM_HASH_BYTES))
                return true;
    return false;
}

bool td_oracle_lacks(const td_oracle *oracle, unsigned node, unsigned other)
{
    uint32_t bit = UINT32_C(1) << node, others = UINT32_C(1) << other;

    for (const struct known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        if ((k->holders & others) && !(k->holders & bit) && !is_stranded(oracle, k) &&
            !is_loose_at(oracle, other, k))
            return true;
    return false;
}

int td_oracle_find(const td_oracle *oracle, const uint8_t reactor[TANDEM_ORIGIN_BYTES])
{
    return find_reactor(oracle, reactor);
}

bool td_oracle_is_idle(const td_oracle *oracle)
{
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++) {
        tandem_sync *sync = sync_of(oracle, i);

        for (const td_peer *peer = sync ? sync->peers : NULL; peer; peer = peer->next)
            if (peer->deliveries || tandem_mailbox_jobs(td_channel_inbox(peer->channel)) ||
                tandem_mailbox_jobs(td_channel_outbox(peer->channel)) ||
                (td_channel_session(peer->channel) &&
                 td_session_inflight_bytes(td_channel_session(peer->channel))))
                return false;
    }
    return true;
}

struct delivery {
    const td_oracle *oracle;
    const tandem_sync *sync;
};

static tandem_err is_for_one_who_is_there(void *context, const td_dead_letter *letter)
{
    const struct delivery *delivery = context;

    for (const td_peer *peer = delivery->sync->peers; peer; peer = peer->next)
        if (td_peer_is_open(peer) && find_reactor(delivery->oracle, letter->reactor) >= 0 &&
            !memcmp(peer->reactor, letter->reactor, TANDEM_ORIGIN_BYTES))
            return TANDEM_END;
    return TANDEM_OK;
}

bool td_oracle_is_delivered(const td_oracle *oracle)
{
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++) {
        tandem_sync *sync = sync_of(oracle, i);
        struct delivery delivery = {oracle, sync};

        if (sync && td_dead_letters_visit(sync, is_for_one_who_is_there, &delivery) != TANDEM_OK)
            return false;
    }
    return true;
}

bool td_oracle_is_distinct(const td_oracle *oracle)
{
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
        if (reactor_of(oracle, i) &&
            find_reactor(oracle, tandem_reactor_id(reactor_of(oracle, i))) < 0)
            return false;
    return true;
}

uint64_t td_oracle_operations(const td_oracle *oracle)
{
    return oracle->alive;
}

tandem_err td_oracle_lost(td_oracle *oracle,
                          void (*lost)(void *context, uint64_t number, bool stranded),
                          void *context, char why[256])
{
    oracle->why = why;
    for (size_t i = 0; i < oracle->durable_count; i++) {
        const struct durable *durable = &oracle->durables[i];
        const struct known *known = known_find(oracle, durable->hash);
        bool stranded = known && known->holders && is_stranded(oracle, known);

        if (known && known->holders && !stranded)
            continue;
        if (!oracle->any_back)
            return fail(oracle, "job %" PRIu64 " was durable on %s, and nobody holds it",
                        durable->number, td_plan_name(durable->node));
        lost(context, durable->number, stranded);
    }
    return TANDEM_OK;
}
