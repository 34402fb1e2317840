#include "tools/bench/process.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t bench_process_rss_anon(pid_t pid)
{
    char path[64], line[128];
    uint64_t kib = 0;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    if (!(status = fopen(path, "re")))
        return 0;
    while (fgets(line, sizeof(line), status) && sscanf(line, "RssAnon: %" SCNu64, &kib) != 1)
        ;
    fclose(status);
    return kib * 1024;
}

double bench_process_cpu_s(pid_t pid)
{
    unsigned long user = 0, kernel = 0;
    char path[64], text[1024];
    const char *end;
    size_t size;
    FILE *stat;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (!(stat = fopen(path, "re")))
        return 0;
    size = fread(text, 1, sizeof(text) - 1, stat);
    fclose(stat);
    text[size] = 0;
    /* Its name, in parentheses, may hold anything. */
    if ((end = strrchr(text, ')')))
        sscanf(end + 1, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lu %lu", &user, &kernel);
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static double thread_waited_s(pid_t pid, const char *thread)
{
    unsigned long long waited_ns = 0;
    char path[96];
    FILE *stat;

    snprintf(path, sizeof(path), "/proc/%d/task/%.16s/schedstat", (int)pid, thread);
    if (!(stat = fopen(path, "re")))
        return 0;
    if (fscanf(stat, "%*u %llu", &waited_ns) != 1)
        waited_ns = 0;
    fclose(stat);
    return (double)waited_ns / 1e9;
}

double bench_process_waited_s(pid_t pid)
{
    const struct dirent *entry;
    char path[64];
    double seconds = 0;
    DIR *threads;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    if (!(threads = opendir(path)))
        return 0;
    while ((entry = readdir(threads)))
        if (entry->d_name[0] != '.')
            seconds += thread_waited_s(pid, entry->d_name);
    closedir(threads);
    return seconds;
}

uint64_t bench_loopback_bytes(void)
{
    FILE *devices = fopen("/proc/self/net/dev", "re");
    char line[512];
    uint64_t bytes = 0;

    if (!devices)
        return 0;
    while (fgets(line, sizeof(line), devices) && sscanf(line, " lo: %" SCNu64, &bytes) != 1)
        ;
    fclose(devices);
    return bytes;
}

uint64_t bench_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void bench_sleep_until_us(uint64_t us)
{
    struct timespec until = {.tv_sec = (time_t)(us / 1000000),
                             .tv_nsec = (long)(us % 1000000) * 1000};

    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}
