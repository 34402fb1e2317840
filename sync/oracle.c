#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <utlist.h>

#include "sync/oracle_state.h"

enum {
    COVERAGE_EVERY = 8, /* looks: what peers believe of each other costs most to look at */
    PAIRS_EVERY = 3, /* … and pairs some more than the rest */
};

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

void td_oracle_forget_loose(struct td_oracle_node *node)
{
    struct td_loose *loose, *next;

    LL_FOREACH_SAFE(node->loose, loose, next)
        free(loose);
    node->loose = NULL;
}

static void forget_gaps(struct td_oracle_node *node)
{
    struct td_lacked *lacked, *next;

    td_oracle_forget_loose(node);
    LL_FOREACH_SAFE(node->lacked, lacked, next)
        free(lacked);
    node->lacked = NULL;
}

static void known_free(void *known)
{
    free(((struct td_known *)known)->names);
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

tandem_reactor *td_oracle_reactor(const td_oracle *oracle, unsigned node)
{
    return oracle->nodes[node].added
               ? tandem_harness_reactor(oracle->harness, td_plan_name(node))
               : NULL;
}

tandem_sync *td_oracle_sync(const td_oracle *oracle, unsigned node)
{
    return oracle->nodes[node].added ? tandem_harness_sync(oracle->harness, td_plan_name(node))
                                     : NULL;
}

tandem_err td_oracle_fail(td_oracle *oracle, const char *format, ...)
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
    tandem_reactor *reactor = td_oracle_reactor(oracle, node);
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
    struct td_oracle_node *added = &oracle->nodes[node];

    *added = (struct td_oracle_node){
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
    for (struct td_known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        k->backups = (k->backups & ~(UINT32_C(1) << node)) | (k->holders & UINT32_C(1) << node);
}

void td_oracle_let_go(td_oracle *oracle, struct td_known *known, unsigned node)
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
    for (struct td_known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        if (!(k->backups & UINT32_C(1) << node))
            td_oracle_let_go(oracle, k, node);
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
    struct td_durable *durable;

    if (oracle->durable_count == oracle->durable_capacity) {
        size_t capacity = oracle->durable_capacity ? oracle->durable_capacity * 2 : 256;

        if (!(durable = realloc(oracle->durables, capacity * sizeof(*durable))))
            return TANDEM_E_NOMEM;
        oracle->durables = durable;
        oracle->durable_capacity = capacity;
    }
    durable = &oracle->durables[oracle->durable_count++];
    *durable = (struct td_durable){.number = number, .node = (uint8_t)node};
    memcpy(durable->hash, hash, TANDEM_HASH_BYTES);
    return TANDEM_OK;
}

/* ---- Looking ---- */

tandem_err td_oracle_look(td_oracle *oracle, char why[256])
{
    bool beliefs = ++oracle->looks % COVERAGE_EVERY == 0;
    tandem_err err = TANDEM_OK;

    oracle->why = why;
    why[0] = 0;
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX && err == TANDEM_OK; i++) {
        tandem_reactor *reactor = td_oracle_reactor(oracle, i);

        if (!reactor)
            continue;
        err = oracle->nodes[i].fresh ? td_oracle_scan_anew(oracle, i, reactor)
                                     : td_oracle_scan_disk(oracle, i, reactor, true);
        if (err == TANDEM_OK)
            err = td_oracle_check_lacks(oracle, i, reactor);
        if (err == TANDEM_OK && oracle->looks % PAIRS_EVERY == 0)
            err = td_oracle_check_pairs(oracle, i, reactor);
        if (err == TANDEM_OK && (err = td_oracle_check_clock(oracle, i, reactor)) == TANDEM_OK)
            err = td_oracle_check_executor(oracle, i, td_reactor_executor(reactor));
    }
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX && err == TANDEM_OK; i++)
        if (td_oracle_reactor(oracle, i) &&
            td_oracle_find_reactor(oracle, tandem_reactor_id(td_oracle_reactor(oracle, i))) < 0)
            note_kin(oracle, i);
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX && err == TANDEM_OK; i++) {
        tandem_sync *sync = td_oracle_sync(oracle, i);

        if (!sync)
            continue;
        if ((err = td_oracle_note_life(oracle, i, sync)) == TANDEM_OK &&
            (err = td_oracle_check_mailboxes(oracle, i, sync)) == TANDEM_OK && beliefs)
            err = td_oracle_check_beliefs(oracle, i, sync);
    }
    if (err == TANDEM_OK && (err = td_oracle_check_durable(oracle)) == TANDEM_OK)
        err = td_oracle_check_dials(oracle);
    td_oracle_forget_flights(oracle);
    oracle->looked_ms = tandem_harness_now_ms(oracle->harness);
    if (err == TANDEM_OK && oracle->heard[0])
        err = td_oracle_fail(oracle, "%s", oracle->heard);
    if (err != TANDEM_OK && !why[0])
        td_oracle_fail(oracle, "the oracle cannot look: %s", tandem_err_name(err));
    return err;
}

/* Does it follow something that no disk holds any more, and nobody has recorded as lacking? */
static bool is_stranded(const td_oracle *oracle, const struct td_known *known)
{
    const struct td_lacked *lacked;

    while (known->seq > 1) {
        const struct td_known *before = td_oracle_known(oracle, known->predecessor);

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
    const struct td_loose *loose;

    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
        LL_FOREACH(oracle->nodes[i].loose, loose)
        {
            const struct td_known *known = td_oracle_known(oracle, loose->hash);

            if (known && is_stranded(oracle, known))
                return true;
        }
    return false;
}

bool td_oracle_has_vain(const td_oracle *oracle)
{
    const struct td_lacked *lacked;

    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
        LL_FOREACH(oracle->nodes[i].lacked, lacked)
        {
            const struct td_known *known = td_oracle_known(oracle, lacked->hash);

            if (!known || !known->holders)
                return true;
        }
    return false;
}

static uint32_t running(const td_oracle *oracle)
{
    uint32_t bits = 0;

    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
        bits |= (uint32_t)(td_oracle_reactor(oracle, i) != NULL) << i;
    return bits;
}

static bool is_any_fresh(const td_oracle *oracle)
{
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
        if (oracle->nodes[i].fresh && td_oracle_reactor(oracle, i))
            return true;
    return false;
}

bool td_oracle_is_equal(const td_oracle *oracle)
{
    uint32_t all = running(oracle);

    if (is_any_fresh(oracle))
        return false;
    for (const struct td_known *k = td_hash_table_first(&oracle->known); k;
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
        tandem_reactor *reactor = td_oracle_reactor(oracle, i);
        uint64_t wall_ms = reactor ? td_env_wall_ms(td_reactor_env(reactor)) : UINT64_MAX;

        min_ms = wall_ms < min_ms ? wall_ms : min_ms;
    }
    return min_ms;
}

static bool is_forked_at(const td_oracle *oracle, const struct td_known *one)
{
    for (const struct td_known *k = td_hash_table_first(&oracle->known); k;
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

    for (const struct td_known *k = td_hash_table_first(&oracle->known);
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
    for (const struct td_known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        if (k->holders && (all & ~k->holders) && td_hlc_ms(k->newest) <= ahead_ms &&
            !is_fork_ahead(oracle, k->chain, ahead_ms) && !is_stranded(oracle, k))
            return false;
    return true;
}

uint64_t td_oracle_ahead_ms(const td_oracle *oracle)
{
    uint64_t now_ms = wall_ms_min(oracle), newest_ms = now_ms;

    for (const struct td_known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        if (k->holders && td_hlc_ms(k->newest) > newest_ms)
            newest_ms = td_hlc_ms(k->newest);
    return newest_ms - now_ms;
}

bool td_oracle_is_on_time(const td_oracle *oracle)
{
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++) {
        tandem_reactor *reactor = td_oracle_reactor(oracle, i);

        if (reactor && td_hlc_ms(td_executor_clock(td_reactor_executor(reactor))) >
                           td_env_wall_ms(td_reactor_env(reactor)) + TD_CLOCK_SKEW_MS_MAX_DEFAULT)
            return false;
    }
    return true;
}

/* What is loose, or follows such, is not passed on. */
static bool is_loose_at(const td_oracle *oracle, unsigned number, const struct td_known *known)
{
    const struct td_loose *loose;

    for (; known && (known->holders & UINT32_C(1) << number);
         known = td_oracle_known(oracle, known->predecessor))
        LL_FOREACH(oracle->nodes[number].loose, loose)
            if (!memcmp(loose->hash, known->hash, TANDEM_HASH_BYTES))
                return true;
    return false;
}

bool td_oracle_lacks(const td_oracle *oracle, unsigned node, unsigned other)
{
    uint32_t bit = UINT32_C(1) << node, others = UINT32_C(1) << other;

    for (const struct td_known *k = td_hash_table_first(&oracle->known); k;
         k = td_hash_table_next(&k->hash_entry))
        if ((k->holders & others) && !(k->holders & bit) && !is_stranded(oracle, k) &&
            !is_loose_at(oracle, other, k))
            return true;
    return false;
}

int td_oracle_find(const td_oracle *oracle, const uint8_t reactor[TANDEM_ORIGIN_BYTES])
{
    return td_oracle_find_reactor(oracle, reactor);
}

bool td_oracle_is_idle(const td_oracle *oracle)
{
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++) {
        tandem_sync *sync = td_oracle_sync(oracle, i);

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
        if (td_peer_is_open(peer) && td_oracle_find_reactor(delivery->oracle, letter->reactor) >= 0 &&
            !memcmp(peer->reactor, letter->reactor, TANDEM_ORIGIN_BYTES))
            return TANDEM_END;
    return TANDEM_OK;
}

bool td_oracle_is_delivered(const td_oracle *oracle)
{
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++) {
        tandem_sync *sync = td_oracle_sync(oracle, i);
        struct delivery delivery = {oracle, sync};

        if (sync && td_dead_letters_visit(sync, is_for_one_who_is_there, &delivery) != TANDEM_OK)
            return false;
    }
    return true;
}

bool td_oracle_is_distinct(const td_oracle *oracle)
{
    for (unsigned i = 0; i < TD_PLAN_NODES_MAX; i++)
        if (td_oracle_reactor(oracle, i) &&
            td_oracle_find_reactor(oracle, tandem_reactor_id(td_oracle_reactor(oracle, i))) < 0)
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
        const struct td_durable *durable = &oracle->durables[i];
        const struct td_known *known = td_oracle_known(oracle, durable->hash);
        bool stranded = known && known->holders && is_stranded(oracle, known);

        if (known && known->holders && !stranded)
            continue;
        if (!oracle->any_back)
            return td_oracle_fail(oracle, "job %" PRIu64 " was durable on %s, and nobody holds it",
                                  durable->number, td_plan_name(durable->node));
        lost(context, durable->number, stranded);
    }
    return TANDEM_OK;
}
