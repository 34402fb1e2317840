#include "tools/bench/fetch.h"

#include <string.h>

#include "tools/bench/member.h"
#include "tools/bench/process.h"
#include "tools/bench/scratch.h"
#include "tools/bench/worker.h"
#include "tools/tandem/command.h"

struct fetching {
    const bench_fetch *fetch;
    const char *folder;
};

static tandem_err wait_for_all(bench_member *peer, uint64_t begun_us, bench_fetched *out)
{
    tandem_stat stat;
    uint64_t at_us;
    tandem_err err;

    if ((err = bench_member_wait(peer, &at_us)) != TANDEM_OK)
        return err;
    out->seconds = (double)(at_us - begun_us) / 1e6;
    /* Answered when the index has come so far. */
    if ((err = tandem_document_head(peer->reactor, "c0", "d0", UINT64_MAX, NULL, NULL, NULL)) !=
        TANDEM_OK)
        return err;
    out->seconds_indexed = (double)(bench_now_us() - begun_us) / 1e6;
    err = tandem_stat_get(peer->reactor, &stat);
    out->commits = stat.commits;
    return err;
}

static tandem_err fetch_from(const struct fetching *fetching, td_memory_network *network,
                             const char *url, bench_fetched *out)
{
    bench_member peer = {0};
    uint64_t begun_us = 0;
    tandem_err err;

    if ((err = bench_member_open_in(&peer, fetching->folder, network, "peer")) == TANDEM_OK &&
        (err = bench_member_want(&peer, fetching->fetch->operations)) == TANDEM_OK) {
        begun_us = bench_now_us();
        err = tandem_remote_add(peer.sync, "source", url);
    }
    if (err == TANDEM_OK)
        err = wait_for_all(&peer, begun_us, out);
    bench_member_close(&peer);
    return err;
}

static tandem_err fetch_within(const struct fetching *fetching, bench_fetched *out)
{
    td_memory_network *network;
    bench_member source = {0};
    char url[128];
    tandem_err err;

    if ((err = td_memory_network_open(&network)) != TANDEM_OK)
        return err;
    if ((err = bench_member_open_in(&source, fetching->fetch->source, network, "source")) ==
            TANDEM_OK &&
        (err = tandem_listen(source.sync, "", 0, false, url)) == TANDEM_OK)
        err = fetch_from(fetching, network, url, out);
    bench_member_close(&source);
    td_memory_network_free(network);
    return err;
}

static tandem_err fetch_work(void *context, void *shared)
{
    const struct fetching *fetching = context;
    const char *url = fetching->fetch->url;
    tandem_err err =
        url ? fetch_from(fetching, NULL, url, shared) : fetch_within(fetching, shared);

    if (err != TANDEM_OK)
        cli_fail(err, NULL, "the peer did not get all");
    return err;
}

tandem_err bench_fetch_all(const bench_fetch *fetch, bench_fetched *out)
{
    bench_scratch folder;
    struct fetching fetching = {fetch, folder.path};
    bench_worker *worker = NULL;
    uint64_t rss_anon_bytes = 0;
    tandem_err err = bench_scratch_open(&folder);

    if (err != TANDEM_OK)
        return err;
    if ((err = bench_worker_start(fetch_work, &fetching, sizeof(*out), &worker)) == TANDEM_OK) {
        err = bench_worker_wait(worker, fetch->beside, &rss_anon_bytes);
        memcpy(out, bench_worker_shared(worker), sizeof(*out));
    }
    bench_worker_free(worker);
    out->rss_anon_bytes = rss_anon_bytes;
    out->disk_bytes = bench_data_folder_bytes(folder.path);
    bench_scratch_release(&folder);
    return err;
}
