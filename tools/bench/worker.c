#include "tools/bench/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench/process.h"
#include "tools/tandem/command.h"
#include "tools/tandem/interrupt.h"

enum { LOOK_US = 20 * 1000, SHARED_LOOK_US = 500, WAIT_S_MAX = 600 };

/* Shared with the process, in front of what the bench shares with it. */
struct head {
    _Alignas(16) tandem_err result;
};

struct bench_worker {
    pid_t pid; /* 0: it has ended */
    int status; /* how */
    struct head *head;
    size_t bytes;
};

/* ---- Shared memory ---- */

tandem_err bench_shared_open(size_t bytes, void **out)
{
    void *shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (shared == MAP_FAILED) {
        cli_fail(TANDEM_E_NOMEM, NULL, "the bench has no memory to share with its processes");
        return TANDEM_E_NOMEM;
    }
    *out = shared;
    return TANDEM_OK;
}

void bench_shared_free(void *shared, size_t bytes)
{
    if (shared)
        munmap(shared, bytes);
}

tandem_err bench_shared_wait(const _Atomic uint32_t *number, uint32_t least)
{
    uint64_t begun_us = bench_now_us();

    while (atomic_load(number) < least) {
        if (cli_interrupt() || bench_now_us() - begun_us > WAIT_S_MAX * UINT64_C(1000000))
            return TANDEM_E_TIMEOUT;
        bench_sleep_until_us(bench_now_us() + SHARED_LOOK_US);
    }
    return TANDEM_OK;
}

/* ---- Processes ---- */

/* In the new process. */
static _Noreturn void live(bench_worker *worker, bench_work_fn work, void *context)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGINT, SIG_IGN); /* the bench decides */
    signal(SIGTERM, SIG_DFL);
    worker->head->result = work(context, worker->head + 1);
    _exit(0);
}

tandem_err bench_worker_start(bench_work_fn work, void *context, size_t shared_bytes,
                              bench_worker **out)
{
    bench_worker *worker = calloc(1, sizeof(*worker));

    if (!worker)
        return TANDEM_E_NOMEM;
    worker->bytes = sizeof(struct head) + shared_bytes;
    if (bench_shared_open(worker->bytes, (void **)&worker->head) != TANDEM_OK) {
        free(worker);
        return TANDEM_E_NOMEM;
    }
    worker->head->result = TANDEM_E_CLOSED; /* unless it says otherwise */
    fflush(stdout);
    if ((worker->pid = fork()) == 0)
        live(worker, work, context);
    if (worker->pid < 0) {
        worker->pid = 0;
        bench_worker_free(worker);
        cli_fail(TANDEM_E_IO, strerror(errno), "a process of the bench could not be started");
        return TANDEM_E_IO;
    }
    *out = worker;
    return TANDEM_OK;
}

void *bench_worker_shared(bench_worker *worker)
{
    return worker->head + 1;
}

pid_t bench_worker_pid(const bench_worker *worker)
{
    return worker->pid;
}

static void look(pid_t pid, uint64_t *rss_max)
{
    uint64_t rss = pid && rss_max ? bench_process_rss_anon(pid) : 0;

    if (rss_max && rss > *rss_max)
        *rss_max = rss;
}

/* Has it? What it takes is looked at, and an interrupt ends it. */
static bool has_ended(bench_worker *worker, uint64_t *rss_max)
{
    pid_t ended = worker->pid ? waitpid(worker->pid, &worker->status, WNOHANG) : 0;

    if (ended == worker->pid || (ended < 0 && errno != EINTR)) {
        worker->pid = 0;
        return true;
    }
    if (cli_interrupt())
        kill(worker->pid, SIGKILL);
    look(worker->pid, rss_max);
    return false;
}

tandem_err bench_worker_wait(bench_worker *worker, pid_t beside, uint64_t *rss_max)
{
    if (rss_max)
        *rss_max = 0;
    while (!has_ended(worker, rss_max)) {
        look(beside, rss_max);
        bench_sleep_until_us(bench_now_us() + LOOK_US);
    }
    return worker->head->result;
}

tandem_err bench_worker_wait_all(bench_worker *const *workers, unsigned count, uint64_t *rss_max)
{
    unsigned ended = 0;

    if (rss_max)
        *rss_max = 0;
    while (ended < count) {
        ended = 0;
        for (unsigned i = 0; i < count; i++) {
            if (!has_ended(workers[i], rss_max))
                continue;
            if (workers[i]->head->result != TANDEM_OK)
                return workers[i]->head->result;
            ended++;
        }
        if (ended < count)
            bench_sleep_until_us(bench_now_us() + LOOK_US);
    }
    return TANDEM_OK;
}

tandem_err bench_worker_ended(bench_worker *worker, uint64_t *rss_max)
{
    bench_worker_wait(worker, 0, rss_max);
    return WIFEXITED(worker->status) && !WEXITSTATUS(worker->status) ? TANDEM_OK : TANDEM_E_IO;
}

void bench_worker_free(bench_worker *worker)
{
    if (!worker)
        return;
    if (worker->pid) {
        kill(worker->pid, SIGKILL);
        while (waitpid(worker->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    bench_shared_free(worker->head, worker->bytes);
    free(worker);
}

tandem_err bench_worker_run(bench_work_fn work, void *context, void *shared_out,
                            size_t shared_bytes, uint64_t *rss_max)
{
    bench_worker *worker;
    tandem_err err = bench_worker_start(work, context, shared_bytes, &worker);

    if (err != TANDEM_OK)
        return err;
    err = bench_worker_wait(worker, 0, rss_max);
    if (shared_bytes)
        memcpy(shared_out, bench_worker_shared(worker), shared_bytes);
    bench_worker_free(worker);
    return err;
}
