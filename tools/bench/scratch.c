#include "tools/bench/scratch.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/tandem/command.h"

tandem_err bench_scratch_open(bench_scratch *scratch)
{
    const char *root = getenv("TMPDIR");

    snprintf(scratch->path, sizeof(scratch->path), "%s/tandem-bench-XXXXXX",
             root && root[0] && strlen(root) < BENCH_PATH_BYTES - 64 ? root : "/tmp");
    if (mkdtemp(scratch->path))
        return TANDEM_OK;
    scratch->path[0] = 0;
    cli_fail(TANDEM_E_IO, strerror(errno), "the bench has no place for its folders");
    return TANDEM_E_IO;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    return remove(path);
}

void bench_scratch_release(bench_scratch *scratch)
{
    if (scratch->path[0])
        nftw(scratch->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    scratch->path[0] = 0;
}

uint64_t bench_data_folder_bytes(const char *folder)
{
    static const char *const parts[] = {"store", "index", "sync"};
    uint64_t bytes = 0;

    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        char path[BENCH_PATH_BYTES + 32];
        struct stat status;

        snprintf(path, sizeof(path), "%s/%s/data.mdb", folder, parts[i]);
        if (stat(path, &status) == 0)
            bytes += (uint64_t)status.st_size;
    }
    return bytes;
}
