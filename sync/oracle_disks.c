/*
 * What must hold of disks: whatever is there was seen before or is new, is dated as it must be, stands behind
 * what it follows or is known to be lacking; what was reported durable is there.
 */
#include <inttypes.h>
#include <stdlib.h>

#include <utlist.h>
#include <xxhash.h>

#include "sync/oracle_state.h"

enum {
    TWIN_MS = 10000, /* so long, once it goes by an id of its own, it may meet what its copy wrote */
    OPEN_SLACK_MS = 1000, /* for a new origin to be taken in a new life, which waits for nothing */
};

/* ---- Disks ---- */

struct td_known *td_oracle_known(const td_oracle *oracle, const uint8_t *hash)
{
    return td_hash_table_find(&oracle->known, tandem_slice_of(hash, TANDEM_HASH_BYTES));
}

static struct td_known *known_make(td_oracle *oracle, const uint8_t *hash)
{
    struct td_known *known = td_oracle_known(oracle, hash);

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
    struct td_known *known = known_make(oracle, hash);

    if (!known)
        return TANDEM_E_NOMEM;
    known->forged = true;
    return TANDEM_OK;
}

/* Did anybody but this reactor bring it here, for all that is known? */
static bool is_of_others(const td_oracle *oracle, const struct td_known *known)
{
    return known->forged || known->look < oracle->looks;
}

struct scanning {
    td_oracle *oracle;
    unsigned number;
    struct td_oracle_node *node;
    const uint8_t *own; /* the origin that it writes under */
    uint64_t wall_ms;
    bool is_new; /* what comes now came since the last look, and to the same writer */
};

/* Does another one write under its origin, or did it a short time ago? */
static bool has_twin(const td_oracle *oracle, unsigned number)
{
    const struct td_oracle_node *node = &oracle->nodes[number];

    return node->twin_ms && tandem_harness_now_ms(oracle->harness) < node->twin_ms + TWIN_MS;
}

/*
 * Is it dated as it must be? Behind its predecessor; what was written here, behind all that was held
 * here; what came, not too far ahead of the clock here.
 */
static tandem_err check_date(const struct scanning *scanning, const td_operation *operation,
                             const struct td_known *known, const struct td_known *before)
{
    const struct td_oracle_node *node = scanning->node;
    bool was_known = is_of_others(scanning->oracle, known);
    bool is_own = !memcmp(operation->origin, scanning->own, TANDEM_ORIGIN_BYTES);
    const char *name = td_plan_name(scanning->number);

    if (before && operation->hlc <= before->hlc && !known->forged) /* the format allows it */
        return td_oracle_fail(scanning->oracle, "%s: an operation is not dated after the one that it follows",
                              name);
    if (!scanning->is_new)
        return TANDEM_OK;
    if (is_own && !was_known && operation->hlc <= node->hlc_max &&
        !has_twin(scanning->oracle, scanning->number))
        return td_oracle_fail(scanning->oracle, "%s: it wrote an operation dated before what it held", name);
    if (!is_own && td_hlc_ms(operation->hlc) >
                       scanning->wall_ms + TD_CLOCK_SKEW_MS_MAX_DEFAULT + TD_CLOCK_SLACK_MS)
        return td_oracle_fail(scanning->oracle, "%s: it took an operation dated %" PRIu64 " ms ahead", name,
                              td_hlc_ms(operation->hlc) - scanning->wall_ms);
    return TANDEM_OK;
}

/* Operations under its own origin that others hold and it did not: it is to take another. */
static void note_continued(const struct scanning *scanning, const td_operation *operation,
                           const struct td_known *known)
{
    if (scanning->is_new && is_of_others(scanning->oracle, known) && !scanning->node->other_by_ms &&
        !memcmp(operation->origin, scanning->own, TANDEM_ORIGIN_BYTES))
        scanning->node->other_by_ms = tandem_harness_now_ms(scanning->oracle->harness) +
                                      TD_INCARNATION_MS + TD_OWN_SLACK_MS;
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
static tandem_err note_loose(struct td_oracle_node *node, const td_operation *operation)
{
    struct td_loose *loose = calloc(1, sizeof(*loose));

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
    struct td_oracle_node *node = scanning->node;
    const char *name = td_plan_name(scanning->number);
    uint32_t bit = UINT32_C(1) << scanning->number;
    struct td_known *known, *before = NULL;

    if (err != TANDEM_OK)
        return td_oracle_fail(oracle, "%s: the record at ordinal %" PRIu64 " does not verify", name, ordinal);
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
        return td_oracle_fail(oracle, "%s: the operation at ordinal %" PRIu64 " is held twice", name, ordinal);
    if (operation->seq > 1) {
        before = td_oracle_known(oracle, operation->predecessor);
        if ((!before || !(before->holders & bit)) &&
            (err = note_loose(node, operation)) != TANDEM_OK)
            return err;
        if (before && before->newest > known->newest)
            known->newest = before->newest;
    }
    if (node->has_open && memcmp(node->open.hash, operation->predecessor, TANDEM_HASH_BYTES))
        return td_oracle_fail(oracle, "%s: the job before ordinal %" PRIu64 " is not whole", name, ordinal);
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
static bool is_same_writer(struct td_oracle_node *node, const td_identity *identity, bool is_same_life,
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
    struct td_oracle_node *node = &oracle->nodes[number];
    uint64_t now_ms = tandem_harness_now_ms(oracle->harness);
    uint64_t *taken_ms = &node->incarnated_ms[identity->reason];

    if (identity->incarnation <= node->incarnation)
        return TANDEM_OK;
    if (*taken_ms && now_ms < *taken_ms + TD_INCARNATION_MS)
        return td_oracle_fail(oracle, "%s: it took two origins within %" PRIu64 " ms: %s",
                              td_plan_name(number), now_ms - *taken_ms,
                              tandem_incarnation_reason_name(identity->reason));
    *taken_ms = oracle->looked_ms;
    return TANDEM_OK;
}

tandem_err td_oracle_scan_disk(td_oracle *oracle, unsigned number, tandem_reactor *reactor, bool is_new)
{
    struct td_oracle_node *node = &oracle->nodes[number];
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
            err = td_oracle_fail(oracle, "%s: the last job is not whole", td_plan_name(number));
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
static tandem_err note_own_forks(td_oracle *oracle, struct td_oracle_node *node, td_op_store *ops)
{
    struct own_forks forks = {.ops = ops};
    tandem_err err = td_op_store_collections(ops, tandem_slice_of(NULL, 0), look_for_own_fork,
                                             &forks);

    if (forks.any)
        node->other_by_ms = tandem_harness_now_ms(oracle->harness) + OPEN_SLACK_MS;
    return err;
}

tandem_err td_oracle_scan_anew(td_oracle *oracle, unsigned number, tandem_reactor *reactor)
{
    struct td_oracle_node *node = &oracle->nodes[number];
    uint32_t bit = UINT32_C(1) << number;
    tandem_err err;

    node->fresh = false;
    td_oracle_forget_loose(node);
    node->scanned = node->hlc_max = node->hlc_now = node->other_by_ms = 0;
    for (struct td_known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry)) {
        k->expected = (k->expected & ~bit) | (k->holders & bit);
        td_oracle_let_go(oracle, k, number);
    }
    memset(node->incarnated_ms, 0, sizeof(node->incarnated_ms));
    if ((err = td_oracle_scan_disk(oracle, number, reactor, false)) != TANDEM_OK ||
        (err = note_own_forks(oracle, node, td_reactor_ops(reactor))) != TANDEM_OK)
        return err;
    for (struct td_known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        if ((k->expected & bit) && !(k->holders & bit))
            return td_oracle_fail(oracle, "%s: what was on its disk is not there any more",
                                  td_plan_name(number));
    return TANDEM_OK;
}

/* ---- Gaps ---- */

struct lacks {
    td_oracle *oracle;
    unsigned number;
    td_op_store *ops;
    unsigned count;
    struct td_lacked *now;
    const struct td_loose *loose; /* whose predecessor is looked for */
    bool found;
};

static tandem_err see_lack(void *context, const uint8_t *origin, const td_lack *lack)
{
    struct lacks *lacks = context;
    struct td_oracle_node *node = &lacks->oracle->nodes[lacks->number];
    const struct td_known *known = td_oracle_known(lacks->oracle, lack->hash);
    const char *name = td_plan_name(lacks->number);
    struct td_lacked *lacked;

    (void)origin;
    lacks->count++;
    if (lack->first < 1 || lack->first > lack->last)
        return td_oracle_fail(lacks->oracle, "%s: it lacks %" PRIu64 " to %" PRIu64, name, lack->first,
                              lack->last);
    if (known && (known->holders & UINT32_C(1) << lacks->number))
        return td_oracle_fail(lacks->oracle, "%s: it holds %" PRIu64 ", and says to lack it", name, lack->last);
    if (lack->reason != TANDEM_OK && !node->refuses)
        return td_oracle_fail(lacks->oracle, "%s: it refuses %" PRIu64 " to %" PRIu64 " by no rule", name,
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
    const struct td_known *known = td_oracle_known(oracle, hash);

    return known && (known->holders & UINT32_C(1) << number);
}

/* Does the chain that ends with a head lead to this operation? */
static bool stands_behind(const td_oracle *oracle, const struct td_loose *loose, const td_head *head)
{
    const struct td_known *known = td_oracle_known(oracle, head->hash);

    while (known && known->seq > loose->seq)
        known = td_oracle_known(oracle, known->predecessor);
    return known && !memcmp(known->hash, loose->hash, TANDEM_HASH_BYTES);
}

/* What follows something that is neither held nor lacking is behind no head: those vouch for all before
 * them. */
static tandem_err check_loose(struct lacks *lacks)
{
    td_oracle *oracle = lacks->oracle;
    struct td_oracle_node *node = &oracle->nodes[lacks->number];
    struct td_loose *loose, *next;

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
                return td_oracle_fail(oracle, "%s: the operation %" PRIu64 " stands behind a head and follows "
                                      "one that is neither held nor lacking",
                                      td_plan_name(lacks->number), loose->seq);
    }
    return TANDEM_OK;
}

/* What was lacking is so still, or held. */
static tandem_err check_lacked(const struct lacks *lacks)
{
    struct td_oracle_node *node = &lacks->oracle->nodes[lacks->number];
    const struct td_lacked *before, *now;

    LL_FOREACH(node->lacked, before)
    {
        const struct td_known *known = td_oracle_known(lacks->oracle, before->hash);

        LL_FOREACH(lacks->now, now)
            if (!memcmp(now->hash, before->hash, TANDEM_HASH_BYTES))
                break;
        if (!now && !(known && (known->holders & UINT32_C(1) << lacks->number)))
            return td_oracle_fail(lacks->oracle, "%s: it has forgotten what it lacks",
                                  td_plan_name(lacks->number));
    }
    return TANDEM_OK;
}

tandem_err td_oracle_check_lacks(td_oracle *oracle, unsigned number, tandem_reactor *reactor)
{
    struct td_oracle_node *node = &oracle->nodes[number];
    struct lacks lacks = {.oracle = oracle, .number = number, .ops = td_reactor_ops(reactor)};
    unsigned count = td_op_store_lack_count(lacks.ops);
    tandem_err err;

    if (!count && !node->loose && !node->lacked)
        return TANDEM_OK;
    err = td_op_store_collections(lacks.ops, tandem_slice_of(NULL, 0), see_lacks_of, &lacks);
    if (err == TANDEM_OK && (lacks.count != count || count > TD_LACKS_MAX))
        err = td_oracle_fail(oracle, "%s: it counts %u lacks, and has %u", td_plan_name(number), count,
                             lacks.count);
    if (err == TANDEM_OK && (err = check_lacked(&lacks)) == TANDEM_OK)
        err = check_loose(&lacks);
    for (struct td_lacked *lacked = node->lacked, *next; lacked; lacked = next) {
        next = lacked->next;
        free(lacked);
    }
    node->lacked = lacks.now;
    return err;
}

/* ---- Who holds in part ---- */

static bool is_in(const td_filter *filter, const struct td_known *known)
{
    td_operation operation = {.document = tandem_slice_text(known->names)};

    operation.scope = tandem_slice_text(known->names + operation.document.size + 1);
    operation.branch =
        tandem_slice_text(known->names + operation.document.size + operation.scope.size + 2);
    return td_filter_matches(filter, &operation);
}

/* The first seq of what ends with this operation and lacks, here or there; or all that there are. */
static uint64_t lacks_from(const struct td_oracle_node *node, const td_origin_cover *there, const uint8_t *hash)
{
    const struct td_lacked *lacked;

    LL_FOREACH(node->lacked, lacked)
        if (!memcmp(lacked->hash, hash, TANDEM_HASH_BYTES))
            return lacked->first;
    for (unsigned i = 0; there && i < there->lack_count; i++)
        if (!memcmp(there->lacks[i].hash, hash, TANDEM_HASH_BYTES))
            return there->lacks[i].first;
    return UINT64_MAX;
}

uint64_t td_oracle_missing_before(const td_oracle *oracle, unsigned number, const td_filter *filter,
                                  const uint8_t *head, const td_origin_cover *there)
{
    const struct td_oracle_node *node = &oracle->nodes[number];
    const struct td_known *known = td_oracle_known(oracle, head);
    uint64_t lacking_from = UINT64_MAX;

    for (; known && known->names; known = td_oracle_known(oracle, known->predecessor)) {
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
        uint64_t seq = td_oracle_missing_before(look->oracle, look->number, &look->filter, heads[i].hash,
                                                NULL);

        if (seq)
            return td_oracle_fail(look->oracle, "%s: a pair covers %" PRIu64 " operations of an origin, and "
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

tandem_err td_oracle_check_pairs(td_oracle *oracle, unsigned number, tandem_reactor *reactor)
{
    struct pair_look look = {.oracle = oracle, .number = number, .ops = td_reactor_ops(reactor)};

    return td_op_store_collections(look.ops, tandem_slice_of(NULL, 0), check_pairs_of, &look);
}

tandem_err td_oracle_check_durable(td_oracle *oracle)
{
    for (size_t i = oracle->durable_first; i < oracle->durable_count; i++) {
        struct td_durable *durable = &oracle->durables[i];
        const struct td_known *known;

        if (!durable->seen && td_oracle_reactor(oracle, durable->node)) {
            known = td_oracle_known(oracle, durable->hash);
            if (!known || !(known->holders & UINT32_C(1) << durable->node))
                return td_oracle_fail(oracle, "%s: job %" PRIu64 " was reported durable and is not there",
                                      td_plan_name(durable->node), durable->number);
            durable->seen = true;
        }
        if (durable->seen && i == oracle->durable_first)
            oracle->durable_first++;
    }
    return TANDEM_OK;
}
