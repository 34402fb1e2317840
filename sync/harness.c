#include "sync/harness.h"

#include <stdio.h>
#include <stdlib.h>

#include <utlist.h>

#include "sync/harness_disk.h"
#include "sync/harness_parts.h"
#include "sync/sync_manager.h"

enum { NAME_BYTES_MAX = 31, SLICE_MS = 20, QUIET_MS = 1000 };

struct node {
    struct node *next;
    char name[NAME_BYTES_MAX + 1];
    int64_t clock_skew_ms;
    td_harness_disk *disk, *backup;
    td_probe_kind dies_at; /* in its next life */
    uint64_t dies_in;
    tandem_admit_fn admit;
    void *admit_context;
    /* NULL while it is crashed: */
    td_runtime *runtime;
    tandem_reactor *reactor;
    tandem_sync *sync;
};

struct tandem_harness {
    tandem_harness_options options;
    td_simulation *simulation;
    td_memory_network *network;
    struct node *nodes;
    uint64_t disks;  /* opened so far: a folder's name is not used again */
    uint64_t deaths; /* of the simulation's, that were seen */
};

/* ---- Lives of a reactor ---- */

static void life_end(struct node *node)
{
    if (node->reactor)
        td_reactor_halt(node->reactor);
    td_sync_crash(node->sync);
    if (node->reactor)
        td_reactor_crash(node->reactor);
    td_runtime_free(node->runtime);
    node->sync = NULL;
    node->reactor = NULL;
    node->runtime = NULL;
}

/* The rule may change within a life. */
static bool admits(void *context, const tandem_operation *operation)
{
    struct node *node = context;

    return !node->admit || node->admit(node->admit_context, operation);
}

static tandem_err life_begin(tandem_harness *harness, struct node *node)
{
    tandem_options options = TANDEM_OPTIONS_INIT;
    td_carrier *carrier;
    char url[128];
    tandem_err err;

    options.models = harness->options.models;
    options.model_count = harness->options.model_count;
    options.path = node->disk->path;
    options.admit = admits;
    options.admit_context = node;
    if ((err = td_simulation_runtime(harness->simulation, node->name, node->clock_skew_ms,
                                     &node->runtime)) != TANDEM_OK)
        goto fail;
    td_simulation_arm(node->runtime, node->dies_at, node->dies_in);
    node->dies_in = 0;
    if ((err = td_reactor_open(node->runtime, &options, options.path ? NULL : &node->disk->memory,
                               &node->reactor)) != TANDEM_OK ||
        (err = td_memory_carrier_open(harness->network, td_reactor_loop(node->reactor), node->name,
                                      &carrier)) != TANDEM_OK)
        goto fail;
    err = td_sync_open_on(node->reactor, harness->options.sync.size ? &harness->options.sync : NULL,
                          carrier, &node->sync);
    if (err != TANDEM_OK) {
        td_reactor_halt(node->reactor);
        carrier->ops->free(carrier);
        goto fail;
    }
    if ((err = tandem_listen(node->sync, "", 0, false, url)) != TANDEM_OK)
        goto fail;
    if (!td_simulation_is_dead(node->runtime))
        return TANDEM_OK;
    err = TANDEM_E_IO;

fail:
    life_end(node);
    return err;
}

/* Whoever has died since the last look ends here, unless this is called from within a turn, which may
 * be that of the one who died. */
static void bury(tandem_harness *harness)
{
    uint64_t deaths = td_simulation_deaths(harness->simulation);

    if (deaths == harness->deaths || td_simulation_is_turning(harness->simulation))
        return;
    harness->deaths = deaths;
    for (struct node *node = harness->nodes; node; node = node->next)
        if (node->runtime && td_simulation_is_dead(node->runtime))
            life_end(node);
}

/* ---- Opening ---- */

tandem_err tandem_harness_open(const tandem_harness_options *options, tandem_harness **out)
{
    static const tandem_harness_options defaults = TANDEM_HARNESS_OPTIONS_INIT;
    tandem_harness *harness;
    tandem_err err;

    if (!out || (options && options->size != sizeof(*options)))
        return TANDEM_E_INVALID;
    if (!(harness = calloc(1, sizeof(*harness))))
        return TANDEM_E_NOMEM;
    harness->options = options ? *options : defaults;
    if ((err = td_simulation_open(harness->options.seed, &harness->simulation)) != TANDEM_OK ||
        (err = td_memory_network_open(&harness->network)) != TANDEM_OK) {
        tandem_harness_free(harness);
        return err;
    }
    td_simulation_log(harness->simulation, harness->options.log, harness->options.log_context,
                      harness->options.log_level);
    *out = harness;
    return TANDEM_OK;
}

static void node_free(struct node *node)
{
    if (node->runtime)
        life_end(node);
    td_harness_disk_free(node->disk);
    td_harness_disk_free(node->backup);
    free(node);
}

void tandem_harness_free(tandem_harness *harness)
{
    if (!harness)
        return;
    while (harness->nodes) {
        struct node *node = harness->nodes;

        LL_DELETE(harness->nodes, node);
        node_free(node);
    }
    td_memory_network_free(harness->network);
    td_simulation_free(harness->simulation);
    free(harness);
}

td_simulation *td_harness_simulation(tandem_harness *harness)
{
    return harness->simulation;
}

td_memory_network *td_harness_network(tandem_harness *harness)
{
    return harness->network;
}

static struct node *find(tandem_harness *harness, const char *name)
{
    for (struct node *node = harness->nodes; node; node = node->next)
        if (!strcmp(node->name, name))
            return node;
    return NULL;
}

/* An empty disk, or a copy of `from`. */
static tandem_err disk_open(tandem_harness *harness, const struct node *node,
                            const td_harness_disk *from, td_harness_disk **out)
{
    const char *root = harness->options.folder;
    char name[NAME_BYTES_MAX + 32];

    snprintf(name, sizeof(name), "%s-%llu", node->name, (unsigned long long)++harness->disks);
    return from ? td_harness_disk_copy(from, root, name, out)
                : td_harness_disk_open(root, name, out);
}

static tandem_err add(tandem_harness *harness, const char *name, int64_t clock_skew_ms,
                      const td_harness_disk *from)
{
    struct node *node;
    tandem_err err;

    if (!name || !name[0] || strlen(name) > NAME_BYTES_MAX || strchr(name, '/'))
        return TANDEM_E_INVALID;
    if (find(harness, name))
        return TANDEM_E_EXISTS;
    if (!(node = calloc(1, sizeof(*node))))
        return TANDEM_E_NOMEM;
    strcpy(node->name, name);
    node->clock_skew_ms = clock_skew_ms;
    if ((err = disk_open(harness, node, from, &node->disk)) != TANDEM_OK ||
        (err = life_begin(harness, node)) != TANDEM_OK) {
        node_free(node);
        return err;
    }
    LL_APPEND(harness->nodes, node);
    return TANDEM_OK;
}

tandem_err tandem_harness_add(tandem_harness *harness, const char *name, int64_t clock_skew_ms)
{
    return add(harness, name, clock_skew_ms, NULL);
}

tandem_err tandem_harness_set_sync_options(tandem_harness *harness,
                                           const tandem_sync_options *options)
{
    if (!options || options->size != sizeof(*options))
        return TANDEM_E_INVALID;
    harness->options.sync = *options;
    return TANDEM_OK;
}

tandem_err tandem_harness_set_admission(tandem_harness *harness, const char *name,
                                        tandem_admit_fn admit, void *context)
{
    struct node *node = find(harness, name);

    if (!node)
        return TANDEM_E_NOT_FOUND;
    node->admit = admit;
    node->admit_context = context;
    return TANDEM_OK;
}

tandem_reactor *tandem_harness_reactor(tandem_harness *harness, const char *name)
{
    struct node *node = find(harness, name);

    bury(harness);
    return node ? node->reactor : NULL;
}

tandem_sync *tandem_harness_sync(tandem_harness *harness, const char *name)
{
    struct node *node = find(harness, name);

    bury(harness);

    return node ? node->sync : NULL;
}

static tandem_err connect_by(tandem_harness *harness, const char *a, const char *b,
                             const char *path)
{
    struct node *from = find(harness, a);
    char url[NAME_BYTES_MAX + 16];

    bury(harness);
    if (!from || !from->sync || !find(harness, b))
        return TANDEM_E_NOT_FOUND;
    snprintf(url, sizeof(url), "mem://%s%s", b, path);
    return tandem_remote_add(from->sync, b, url);
}

tandem_err tandem_harness_connect(tandem_harness *harness, const char *a, const char *b)
{
    return connect_by(harness, a, b, "");
}

tandem_err tandem_harness_connect_http(tandem_harness *harness, const char *a, const char *b)
{
    return connect_by(harness, a, b, "/http");
}

tandem_err tandem_harness_disconnect(tandem_harness *harness, const char *a, const char *b)
{
    struct node *from = find(harness, a);

    bury(harness);
    return from && from->sync ? tandem_remote_remove(from->sync, b) : TANDEM_E_NOT_FOUND;
}

/* ---- The network ---- */

void tandem_harness_cut(tandem_harness *harness, const char *a, const char *b)
{
    td_memory_network_cut(harness->network, a, b, true);
}

void tandem_harness_cut_one_way(tandem_harness *harness, const char *a, const char *b)
{
    td_memory_network_cut(harness->network, a, b, false);
}

void tandem_harness_half_open(tandem_harness *harness, const char *a, const char *b)
{
    td_memory_network_half_open(harness->network, a, b);
}

void tandem_harness_clog(tandem_harness *harness, const char *a, const char *b, bool clogged)
{
    td_memory_network_clog(harness->network, a, b, clogged);
}

void tandem_harness_slow(tandem_harness *harness, const char *name, uint32_t message_ms)
{
    td_memory_network_slow(harness->network, name, message_ms);
}

void tandem_harness_heal(tandem_harness *harness, const char *a, const char *b)
{
    td_memory_network_heal(harness->network, a, b);
}

void tandem_harness_set_faults(tandem_harness *harness, const tandem_harness_faults *faults)
{
    td_memory_faults set = {
        .latency_ms_min = faults->latency_ms_min,
        .latency_ms_max = faults->latency_ms_max,
        .lose_permille = faults->lose_permille,
        .duplicate_permille = faults->duplicate_permille,
        .reorder_permille = faults->reorder_permille,
        .corrupt_permille = faults->corrupt_permille,
    };

    td_memory_network_faults(harness->network, &set);
}

/* ---- Crashes, disks, clocks ---- */

tandem_err tandem_harness_crash(tandem_harness *harness, const char *name)
{
    struct node *node = find(harness, name);

    bury(harness);
    if (!node)
        return TANDEM_E_NOT_FOUND;
    if (!node->runtime)
        return TANDEM_E_STATE;
    life_end(node);
    return TANDEM_OK;
}

tandem_err tandem_harness_crash_at(tandem_harness *harness, const char *name, const char *probe,
                                   uint64_t nth)
{
    struct node *node = find(harness, name);
    td_probe_kind kind = 0;

    bury(harness);
    if (!node || (nth && td_probe_find(probe, &kind) != TANDEM_OK))
        return TANDEM_E_NOT_FOUND;
    if (node->runtime) {
        td_simulation_arm(node->runtime, kind, nth);
        return TANDEM_OK;
    }
    node->dies_at = kind;
    node->dies_in = nth;
    return TANDEM_OK;
}

tandem_err tandem_harness_restart(tandem_harness *harness, const char *name)
{
    struct node *node = find(harness, name);

    bury(harness);
    if (!node)
        return TANDEM_E_NOT_FOUND;
    if (node->runtime)
        return TANDEM_E_STATE;
    return life_begin(harness, node);
}

tandem_err tandem_harness_fail_disk(tandem_harness *harness, const char *name,
                                    tandem_harness_disk_call call, tandem_err err, uint64_t count)
{
    static const td_disk_call calls[] = {
        [TANDEM_HARNESS_PUT] = TD_DISK_PUT,
        [TANDEM_HARNESS_COMMIT] = TD_DISK_COMMIT,
        [TANDEM_HARNESS_COMMITTED] = TD_DISK_COMMITTED,
    };
    struct node *node = find(harness, name);

    bury(harness);
    if (call < TANDEM_HARNESS_PUT || call > TANDEM_HARNESS_COMMITTED || (count && err >= 0))
        return TANDEM_E_INVALID;
    if (!node)
        return TANDEM_E_NOT_FOUND;
    if (!node->runtime)
        return TANDEM_E_STATE;
    td_simulation_disk(node->runtime, calls[call], err, count);
    return TANDEM_OK;
}

tandem_err tandem_harness_backup(tandem_harness *harness, const char *name)
{
    struct node *node = find(harness, name);
    td_harness_disk *backup;
    tandem_err err;

    if (!node)
        return TANDEM_E_NOT_FOUND;
    if ((err = disk_open(harness, node, node->disk, &backup)) != TANDEM_OK)
        return err;
    td_harness_disk_free(node->backup);
    node->backup = backup;
    return TANDEM_OK;
}

tandem_err tandem_harness_go_back(tandem_harness *harness, const char *name)
{
    struct node *node = find(harness, name);
    td_harness_disk *disk;
    tandem_err err;

    if (!node || !node->backup)
        return TANDEM_E_NOT_FOUND;
    if ((err = disk_open(harness, node, node->backup, &disk)) != TANDEM_OK)
        return err;
    if (node->runtime)
        life_end(node);
    td_harness_disk_free(node->disk);
    node->disk = disk;
    return TANDEM_OK;
}

tandem_err tandem_harness_copy(tandem_harness *harness, const char *name, const char *copy)
{
    struct node *node = find(harness, name);

    bury(harness);
    return node ? add(harness, copy, node->clock_skew_ms, node->disk) : TANDEM_E_NOT_FOUND;
}

tandem_err tandem_harness_set_clock(tandem_harness *harness, const char *name,
                                    int64_t clock_skew_ms)
{
    struct node *node = find(harness, name);

    if (!node)
        return TANDEM_E_NOT_FOUND;
    node->clock_skew_ms = clock_skew_ms;
    if (node->runtime)
        td_simulation_skew(node->runtime, clock_skew_ms);
    return TANDEM_OK;
}

/* ---- Time ---- */

bool tandem_harness_step(tandem_harness *harness)
{
    bool stepped = td_simulation_step(harness->simulation, UINT64_MAX);

    bury(harness);
    return stepped;
}

void tandem_harness_run(tandem_harness *harness, uint64_t duration_ms)
{
    uint64_t now_us = td_simulation_now_us(harness->simulation);
    uint64_t until_us = now_us + duration_ms * 1000;

    bury(harness);
    while (td_simulation_step(harness->simulation, until_us))
        bury(harness);
    /* Nothing is left to do until then. */
    td_simulation_run(harness->simulation, until_us - td_simulation_now_us(harness->simulation));
}

uint64_t tandem_harness_now_ms(const tandem_harness *harness)
{
    return td_simulation_now_us(harness->simulation) / 1000;
}

uint64_t tandem_harness_trace(const tandem_harness *harness)
{
    return td_simulation_trace(harness->simulation);
}

uint64_t tandem_harness_random(tandem_harness *harness, uint64_t below)
{
    return below ? td_simulation_random(harness->simulation) % below : 0;
}

void tandem_harness_events(const tandem_harness *harness,
                           void (*visit)(void *context, const char *name, const char *sentence,
                                         uint64_t count),
                           void *context)
{
    const uint64_t *counts = td_simulation_probes(harness->simulation);

    for (unsigned i = 0; i < TD_PROBE_COUNT; i++)
        visit(context, td_probe_name((td_probe_kind)i), td_probe_sentence((td_probe_kind)i),
              counts[i]);
}

/* Everything that moves: messages carried, operations committed. */
static uint64_t activity(tandem_harness *harness)
{
    uint64_t sum = td_memory_network_carried(harness->network);

    for (struct node *node = harness->nodes; node; node = node->next) {
        uint64_t position = 0;

        if (node->reactor && tandem_position(node->reactor, &position) == TANDEM_OK)
            sum += position;
    }
    return sum;
}

tandem_err tandem_harness_run_until_idle(tandem_harness *harness, uint64_t limit_ms)
{
    uint64_t end_ms = tandem_harness_now_ms(harness) + limit_ms;
    uint64_t last = activity(harness), quiet_ms = 0;

    while (quiet_ms < QUIET_MS) {
        uint64_t now;

        if (tandem_harness_now_ms(harness) >= end_ms)
            return TANDEM_E_TIMEOUT;
        tandem_harness_run(harness, SLICE_MS);
        now = activity(harness);
        quiet_ms = now == last ? quiet_ms + SLICE_MS : 0;
        last = now;
    }
    return TANDEM_OK;
}

/* ---- Convergence ---- */

static tandem_err digest_of(const struct node *node, const char *collection, tandem_digest *out,
                            char why[256])
{
    tandem_err err = tandem_digest_collection(node->reactor, collection, UINT64_MAX, out, NULL);

    if (err != TANDEM_OK)
        snprintf(why, 256, "%s: %s has no digest: %s", collection, node->name,
                 tandem_err_name(err));
    return err;
}

static tandem_err compare(const char *collection, const struct node *node, const tandem_digest *a,
                          const struct node *other, const tandem_digest *b, char why[256])
{
    if (memcmp(a->vector_digest, b->vector_digest, sizeof(a->vector_digest)) != 0) {
        snprintf(why, 256, "%s: %s holds %llu operations, %s others (%llu)", collection, node->name,
                 (unsigned long long)a->operations, other->name,
                 (unsigned long long)b->operations);
        return TANDEM_E_STATE;
    }
    if (a->documents != b->documents ||
        memcmp(a->state_digest, b->state_digest, sizeof(a->state_digest)) != 0) {
        snprintf(why, 256, "%s: %s and %s show other documents of the same operations", collection,
                 node->name, other->name);
        return TANDEM_E_STATE;
    }
    return TANDEM_OK;
}

/* Names first: a digest waits, and a visitor must not. */
struct collection_names {
    char (*names)[TANDEM_NAME_BYTES_MAX + 1];
    size_t count;
};

static tandem_err note_collection(void *context, const tandem_collection_entry *entry)
{
    struct collection_names *names = context;
    void *grown;

    for (size_t i = 0; i < names->count; i++)
        if (!strcmp(names->names[i], entry->name))
            return TANDEM_OK;
    grown = realloc(names->names, (names->count + 1) * sizeof(*names->names));

    if (!grown)
        return TANDEM_E_NOMEM;
    names->names = grown;
    strcpy(names->names[names->count++], entry->name);
    return TANDEM_OK;
}

static struct node *first_running(tandem_harness *harness)
{
    struct node *node = harness->nodes;

    while (node && !node->reactor)
        node = node->next;
    return node;
}

/* One collection: everybody's against the first's. */
static tandem_err check_collection(tandem_harness *harness, const char *collection, char why[256])
{
    struct node *first = first_running(harness);
    tandem_digest digest, other;
    tandem_err err = digest_of(first, collection, &digest, why);

    for (struct node *node = first->next; node && err == TANDEM_OK; node = node->next) {
        if (!node->reactor)
            continue;
        if ((err = digest_of(node, collection, &other, why)) == TANDEM_OK)
            err = compare(collection, first, &digest, node, &other, why);
    }
    return err;
}

tandem_err tandem_harness_converged(tandem_harness *harness, char why[256])
{
    struct collection_names names = {NULL, 0};
    tandem_err err = TANDEM_OK;

    bury(harness);
    why[0] = 0;
    for (struct node *node = harness->nodes; node && err == TANDEM_OK; node = node->next)
        if (node->reactor)
            err = tandem_collections(node->reactor, note_collection, &names);
    for (size_t i = 0; i < names.count && err == TANDEM_OK; i++)
        err = check_collection(harness, names.names[i], why);
    free(names.names);
    return err;
}

/* Cheap: are the vectors equal? Folding everything after each slice would be waste. */
static bool vectors_equal(tandem_harness *harness)
{
    struct node *first = NULL;
    struct collection_names names = {NULL, 0};
    bool equal = true;

    for (struct node *node = harness->nodes; node; node = node->next) {
        if (!node->reactor)
            continue;
        if (tandem_collections(node->reactor, note_collection, &names) != TANDEM_OK)
            equal = false;
        first = first ? first : node;
    }
    for (size_t i = 0; equal && i < names.count; i++) {
        uint8_t digest[TANDEM_HASH_BYTES], other[TANDEM_HASH_BYTES];
        tandem_slice name = tandem_slice_text(names.names[i]);

        equal = td_op_store_vector_digest(td_reactor_ops(first->reactor), name, digest) ==
                TANDEM_OK;
        for (struct node *node = first->next; equal && node; node = node->next)
            equal = !node->reactor ||
                    (td_op_store_vector_digest(td_reactor_ops(node->reactor), name, other) ==
                         TANDEM_OK &&
                     !memcmp(digest, other, sizeof(digest)));
    }
    free(names.names);
    return equal;
}

tandem_err tandem_harness_run_until_converged(tandem_harness *harness, uint64_t limit_ms,
                                              char why[256])
{
    uint64_t end_ms = tandem_harness_now_ms(harness) + limit_ms;

    while (!vectors_equal(harness)) {
        if (tandem_harness_now_ms(harness) >= end_ms) {
            tandem_harness_converged(harness, why);
            return TANDEM_E_TIMEOUT;
        }
        tandem_harness_run(harness, SLICE_MS);
    }
    return tandem_harness_converged(harness, why);
}
