/* What the simulator needs of a harness besides its public face: borrowed, as long as it lives. */
#ifndef TANDEM_SYNC_HARNESS_PARTS_H
#define TANDEM_SYNC_HARNESS_PARTS_H

#include "channel/carrier.h"
#include "reactor/runtime.h"
#include "sync/harness.h"

td_simulation *td_harness_simulation(tandem_harness *harness);
td_memory_network *td_harness_network(tandem_harness *harness);

#endif
