#include "store/probe.h"

#include <assert.h>
#include <string.h>

static const struct {
    const char *name;
    const char *sentence;
} probes[TD_PROBE_COUNT] = {
#define PROBE_ENTRY(name, sentence) [TD_PROBE_##name] = {#name, sentence},
    TD_PROBES(PROBE_ENTRY)
#undef PROBE_ENTRY
};

const char *td_probe_name(td_probe_kind probe)
{
    assert(probe < TD_PROBE_COUNT);
    return probes[probe].name;
}

const char *td_probe_sentence(td_probe_kind probe)
{
    assert(probe < TD_PROBE_COUNT);
    return probes[probe].sentence;
}

tandem_err td_probe_find(const char *name, td_probe_kind *out)
{
    for (unsigned i = 0; i < TD_PROBE_COUNT; i++) {
        if (strcmp(probes[i].name, name) != 0)
            continue;
        *out = (td_probe_kind)i;
        return TANDEM_OK;
    }
    return TANDEM_E_NOT_FOUND;
}
