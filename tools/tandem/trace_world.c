#include "tools/tandem/trace_world.h"

#include <inttypes.h>
#include <stdio.h>

tandem_err cli_world_holds_other(unsigned reactor, uint64_t wanted, uint64_t held, char why[256])
{
    snprintf(why, 256, "reactor %u should hold %" PRIu64 " operations, and holds %" PRIu64, reactor,
             wanted, held);
    return held > wanted ? TANDEM_E_STATE : TANDEM_E_TIMEOUT;
}
