/*
 * A harness for tests: opened with the reactors named, its remotes looked at by name, run until it
 * has converged. What goes wrong fails the test.
 *
 * Include after cmocka.h and what cmocka.h asks for.
 */
#ifndef TANDEM_TESTS_HARNESS_BED_H
#define TANDEM_TESTS_HARNESS_BED_H

#include <stdio.h>
#include <string.h>

#include "sync/harness.h"

/* For the caller to close. */
static inline tandem_harness *bed_open(uint64_t seed, const char *const *names, size_t count)
{
    tandem_harness_options options = TANDEM_HARNESS_OPTIONS_INIT;
    tandem_harness *harness;

    options.seed = seed;
    assert_int_equal(TANDEM_OK, tandem_harness_open(&options, &harness));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(TANDEM_OK, tandem_harness_add(harness, names[i], 0));
    return harness;
}

static inline void bed_say(void *context, const char *text)
{
    print_message("%s: %s\n", (const char *)context, text);
}

static inline void assert_sound(tandem_harness *harness, const char *name)
{
    assert_int_equal(TANDEM_OK,
                     tandem_verify(tandem_harness_reactor(harness, name), bed_say, (void *)name));
}

static inline void assert_converges(tandem_harness *harness)
{
    char why[256];
    tandem_err err = tandem_harness_run_until_converged(harness, 120000, why);

    if (err != TANDEM_OK)
        print_message("not converged: %s\n", why);
    assert_int_equal(TANDEM_OK, err);
}

struct bed_remote {
    const char *name;
    tandem_remote_status status; /* its texts are gone, but the reason, which is below */
    char reason[256];
};

static inline tandem_err bed_see(void *context, const tandem_remote_status *status)
{
    struct bed_remote *remote = context;

    if (!status->name || strcmp(status->name, remote->name) != 0)
        return TANDEM_OK;
    remote->status = *status;
    snprintf(remote->reason, sizeof(remote->reason), "%s", status->reason);
    return TANDEM_OK;
}

/* All zero but the name where there is no remote of that name. */
static inline struct bed_remote bed_status(tandem_harness *harness, const char *name,
                                           const char *remote)
{
    struct bed_remote seen = {.name = remote};

    assert_int_equal(TANDEM_OK,
                     tandem_remotes(tandem_harness_sync(harness, name), bed_see, &seen));
    return seen;
}

#endif
