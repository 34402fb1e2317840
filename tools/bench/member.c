#include "tools/bench/member.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

#include "reactor/reactor_parts.h"
#include "sync/sync_manager.h"
#include "tools/bench/process.h"

enum { WAIT_S_MAX = 600 };

tandem_err bench_member_open_in(bench_member *member, const char *folder,
                                td_memory_network *network, const char *name)
{
    tandem_options options = TANDEM_OPTIONS_INIT;
    td_carrier *carrier = NULL;
    tandem_err err;

    options.path = folder;
    if ((err = tandem_open(&options, &member->reactor)) != TANDEM_OK ||
        (network && (err = td_memory_carrier_open(network, td_reactor_loop(member->reactor), name,
                                                  &carrier)) != TANDEM_OK))
        return err;
    err = td_sync_open_on(member->reactor, NULL, carrier, &member->sync);
    if (err != TANDEM_OK && carrier)
        carrier->ops->free(carrier);
    return err;
}

tandem_err bench_member_open(bench_member *member, const char *folder)
{
    return bench_member_open_in(member, folder, NULL, NULL);
}

tandem_err bench_member_listen(bench_member *member, char url_out[BENCH_URL_BYTES])
{
    return tandem_listen(member->sync, "127.0.0.1", 0, false, url_out);
}

void bench_member_close(bench_member *member)
{
    tandem_sync_close(member->sync);
    tandem_close(member->reactor);
    if (member->wanted)
        sem_destroy(&member->complete);
}

static void committed(void *context, uint64_t position)
{
    bench_member *member = context;

    if (position < member->wanted || atomic_load(&member->complete_us))
        return;
    atomic_store(&member->complete_us, bench_now_us());
    sem_post(&member->complete);
}

tandem_err bench_member_want(bench_member *member, uint64_t operations)
{
    tandem_subscription *subscription;

    assert(operations);
    member->wanted = operations;
    sem_init(&member->complete, 0, 0);
    return tandem_subscribe(member->reactor, committed, member, &subscription);
}

/* Asleep: whoever looked now and then would take the processor from those that are measured. */
tandem_err bench_member_wait(bench_member *member, uint64_t *when_us_out)
{
    struct timespec until;
    int failed;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S_MAX;
    do
        failed = sem_timedwait(&member->complete, &until);
    while (failed && errno == EINTR);
    if (failed)
        return TANDEM_E_TIMEOUT;
    if (when_us_out)
        *when_us_out = atomic_load(&member->complete_us);
    return TANDEM_OK;
}
