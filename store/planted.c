#include "store/planted.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[TD_PLANTED_COUNT] = {
#define PLANTED_NAME(name, options, sentence) [TD_PLANTED_##name] = #name,
    TD_PLANTED_BUGS(PLANTED_NAME)
#undef PLANTED_NAME
};

/* TD_PLANTED_COUNT: none. */
static int choose(void)
{
    const char *name = getenv("TANDEM_PLANTED");

    if (!name)
        return TD_PLANTED_COUNT;
    for (int bug = 0; bug < TD_PLANTED_COUNT; bug++)
        if (!strcmp(names[bug], name))
            return bug;
    fprintf(stderr, "TANDEM_PLANTED: there is no planted bug %s\n", name);
    exit(2); /* a run without it would seem to have missed it */
}

bool td_planted(td_planted_bug bug)
{
    static atomic_int awake = -1;

    if (atomic_load_explicit(&awake, memory_order_relaxed) < 0)
        atomic_store_explicit(&awake, choose(), memory_order_relaxed);
    return atomic_load_explicit(&awake, memory_order_relaxed) == (int)bug;
}
