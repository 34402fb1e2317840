#include "tools/tandem/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "tools/tandem/request.h"

enum { BAR_CELLS = 24, BAR_EVERY_MS = 100, PLAIN_EVERY_MS = 10 * 1000 };

void cli_progress_begin(cli_progress *progress, const cli_call *call, uint64_t total_bytes,
                        const char *unit)
{
    bool silent = call->quiet || call->progress == CLI_NEVER;

    progress->bar = !silent && call->progress == CLI_AUTO && isatty(STDERR_FILENO);
    progress->plain = !silent && !progress->bar;
    progress->drawn = false;
    progress->total = total_bytes;
    progress->unit = unit;
    progress->begun_ms = cli_monotonic_ms();
    progress->shown_ms = progress->begun_ms;
}

static void draw(cli_progress *progress, uint64_t bytes, uint64_t units, uint64_t rate)
{
    unsigned long long percent = progress->total ? bytes * 100 / progress->total : 0;
    unsigned cells = (unsigned)(percent * BAR_CELLS / 100);

    fputs("\r\033[K", stderr);
    if (progress->total) {
        for (unsigned i = 0; i < BAR_CELLS; i++)
            fputs(i < cells ? "█" : "·", stderr);
        fprintf(stderr, " %3llu%%", percent);
    }
    fprintf(stderr, "  %llu %s, %llu %s/s", (unsigned long long)units, progress->unit,
            (unsigned long long)rate, progress->unit);
    fflush(stderr);
    progress->drawn = true;
}

void cli_progress_at(cli_progress *progress, uint64_t bytes, uint64_t units)
{
    uint64_t now = cli_monotonic_ms();
    uint64_t passed = now > progress->begun_ms ? now - progress->begun_ms : 1;
    uint64_t rate = units * 1000 / passed;

    if (progress->bar && now - progress->shown_ms >= BAR_EVERY_MS) {
        draw(progress, bytes, units, rate);
        progress->shown_ms = now;
    }
    if (progress->plain && now - progress->shown_ms >= PLAIN_EVERY_MS) {
        fprintf(stderr, "%llu %s, %llu %s/s\n", (unsigned long long)units, progress->unit,
                (unsigned long long)rate, progress->unit);
        progress->shown_ms = now;
    }
}

void cli_progress_end(cli_progress *progress)
{
    if (progress->drawn)
        fputs("\r\033[K", stderr);
    fflush(stderr);
}
