#include "tools/bench/peer.h"

#include "reactor/reactor_parts.h"
#include "sync/sync_manager.h"

tandem_err bench_peer_open(bench_peer *peer, const char *folder, td_memory_network *network,
                           const char *name)
{
    tandem_options options = TANDEM_OPTIONS_INIT;
    td_carrier *carrier = NULL;
    tandem_err err;

    *peer = (bench_peer){NULL, NULL};
    options.path = folder;
    if ((err = tandem_open(&options, &peer->reactor)) != TANDEM_OK ||
        (network && (err = td_memory_carrier_open(network, td_reactor_loop(peer->reactor), name,
                                                  &carrier)) != TANDEM_OK))
        return err;
    err = td_sync_open_on(peer->reactor, NULL, carrier, &peer->sync);
    if (err != TANDEM_OK && carrier)
        carrier->ops->free(carrier);
    return err;
}

void bench_peer_close(bench_peer *peer)
{
    tandem_sync_close(peer->sync);
    tandem_close(peer->reactor);
}
