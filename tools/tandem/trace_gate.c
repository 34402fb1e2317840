#include "tools/tandem/trace_gate.h"

#include <string.h>

void cli_gate_init(cli_gate *gate, const uint8_t (*origins)[TANDEM_ORIGIN_BYTES], unsigned authors)
{
    *gate = (cli_gate){.origins = origins, .authors = authors, .lock = PTHREAD_MUTEX_INITIALIZER};
}

void cli_gate_release(cli_gate *gate)
{
    pthread_mutex_destroy(&gate->lock);
}

bool cli_gate_admits(void *context, const tandem_operation *operation)
{
    cli_gate *gate = context;
    unsigned author = 0;
    bool admitted;

    while (author < gate->authors &&
           memcmp(gate->origins[author], operation->origin, TANDEM_ORIGIN_BYTES) != 0)
        author++;
    if (author == gate->authors)
        return false;
    pthread_mutex_lock(&gate->lock);
    admitted = operation->seq <= gate->limits[author];
    if (!admitted && (!gate->refused[author] || operation->seq < gate->refused[author]))
        gate->refused[author] = operation->seq;
    pthread_mutex_unlock(&gate->lock);
    return admitted;
}

tandem_err cli_gate_set(cli_gate *gate, tandem_reactor *reactor, unsigned author, uint64_t seq)
{
    bool wanted;

    pthread_mutex_lock(&gate->lock);
    gate->limits[author] = seq;
    wanted = gate->refused[author] && gate->refused[author] <= seq;
    if (wanted) /* all are withdrawn; those that are too early are refused once more */
        memset(gate->refused, 0, sizeof(gate->refused));
    pthread_mutex_unlock(&gate->lock);
    return wanted ? tandem_withdraw_refusals(reactor) : TANDEM_OK;
}
