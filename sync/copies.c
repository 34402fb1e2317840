/*
 * Copies: two folders with one reactor id and origin, and both alive. Their sessions tell them
 * apart: HELLO names the instance, the life that the reactor leads since it was opened.
 *
 * Where copies meet each other the younger takes a new reactor id and origin, the older goes on.
 * Behind a hub they do not meet: the hub lets the newer session replace the older one, as for a
 * reactor that was restarted. A life that was over does not come back; one that does shows that both
 * live, and the hub tells the younger.
 *
 * Which is younger is what their wall clocks say, random bytes break a tie: it only matters that
 * everybody says the same. A liar can cost a reactor an origin a minute this way, and no data.
 */
#include "store/planted.h"
#include "store/probe.h"
#include "sync/sync_manager.h"

static const uint8_t unknown[TD_WIRE_INSTANCE_BYTES];

static bool are_two_lives(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, TD_WIRE_INSTANCE_BYTES) != 0 &&
           memcmp(a, unknown, TD_WIRE_INSTANCE_BYTES) != 0 &&
           memcmp(b, unknown, TD_WIRE_INSTANCE_BYTES) != 0;
}

static bool is_younger(const uint8_t *instance, const uint8_t *than)
{
    return memcmp(instance, than, TD_WIRE_INSTANCE_BYTES) > 0;
}

void td_copies_init(tandem_sync *sync)
{
    uint64_t now_ms = td_env_wall_ms(sync->env);

    for (unsigned i = 0; i < 8; i++)
        sync->instance[i] = (uint8_t)(now_ms >> (56 - 8 * i));
    td_env_random_bytes(sync->env, sync->instance + 8, sizeof(sync->instance) - 8);
}

tandem_err td_copies_meet(td_peer *peer)
{
    tandem_sync *sync = peer->sync;

    if (!are_two_lives(sync->instance, peer->instance)) {
        td_probe(sync->env, TD_PROBE_SELF_MET);
        return TANDEM_E_SELF;
    }
    td_probe(sync->env, TD_PROBE_COPY_MET);
    if (!is_younger(sync->instance, peer->instance))
        return TANDEM_E_COPY;
    td_copies_told(peer);
    td_session_fail(td_channel_session(peer->channel), TANDEM_E_UNREACHABLE,
                    "a copy of this reactor is alive: this one takes a new origin");
    return TANDEM_E_UNREACHABLE;
}

void td_copies_told(td_peer *peer)
{
    if (peer->identity == td_op_store_identity(peer->sync->ops) &&
        !td_planted(TD_PLANTED_COPY_NOT_TOLD))
        td_executor_reincarnate(peer->sync->executor, TANDEM_INCARNATION_COPIED);
}

/* ---- Behind a hub ---- */

static bool was_replaced(const td_peer *peer)
{
    for (unsigned i = 0; i < TD_REPLACED_KEPT; i++) {
        const td_replaced *replaced = &peer->sync->replaced[i];

        if (!memcmp(replaced->reactor, peer->reactor, sizeof(peer->reactor)) &&
            !memcmp(replaced->instance, peer->instance, sizeof(peer->instance)))
            return true;
    }
    return false;
}

static void note_replaced(const td_peer *peer)
{
    td_replaced *replaced;

    if (was_replaced(peer))
        return;
    replaced = &peer->sync->replaced[peer->sync->replaced_count++ % TD_REPLACED_KEPT];
    memcpy(replaced->reactor, peer->reactor, sizeof(replaced->reactor));
    memcpy(replaced->instance, peer->instance, sizeof(replaced->instance));
}

tandem_err td_copies_resolve(td_peer *peer, td_peer *other)
{
    bool both_live;

    if (!are_two_lives(peer->instance, other->instance))
        return TANDEM_END;
    both_live = was_replaced(peer);
    if (both_live && is_younger(peer->instance, other->instance))
        return TANDEM_E_COPY;
    note_replaced(other);
    td_probe(peer->sync->env, both_live ? TD_PROBE_COPY_TOLD : TD_PROBE_RESTART_SEEN);
    if (both_live)
        td_session_fail(td_channel_session(other->channel), TANDEM_E_COPY,
                        tandem_err_text(TANDEM_E_COPY));
    else
        td_session_fail(td_channel_session(other->channel), TANDEM_E_DUPLICATE_SESSION,
                        "the reactor was started again");
    return TANDEM_OK;
}

/* ---- Afterwards ---- */

void td_copies_reincarnated(tandem_sync *sync)
{
    const td_identity *identity = td_op_store_identity(sync->ops);

    for (td_peer *peer = sync->peers; peer; peer = peer->next) {
        td_session *session = td_channel_session(peer->channel);

        if (session && peer->identity && peer->identity != identity) {
            peer->redial = peer->is_remote;
            td_session_fail(session, TANDEM_E_UNREACHABLE,
                            "the other side has taken a new origin");
        } else if (peer->is_remote) {
            td_channel_poke(peer->channel);
        }
    }
    td_sync_tick_at(sync, 0);
}
