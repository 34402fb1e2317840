#include "sync/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WARM_UP_MS = 1000,
    REPAIR_MS_MAX = 8000, /* what is broken by a step is mended within that, or by the healing */
    SCRIPT_VERSION = 1,
    RANGES_LEAST = 2,
    QUIET_ONE_IN = 20, /* plans: in those nothing may be said twice */
    POLL_STEPS_MAX = 6,
    SHARE_STEPS_MAX = 8,
};

#define HTTP_STREAM UINT64_C(0x68747470)
#define SHARE_STREAM UINT64_C(0x7368617265)

static const struct {
    const char *word;
    unsigned names;
    uint32_t fault;
} kinds[TD_STEP_KINDS] = {
#define STEP_ENTRY(kind, word, names, fault) [TD_STEP_##kind] = {word, names, fault},
    TD_STEPS(STEP_ENTRY)
#undef STEP_ENTRY
};

static const char *const shapes[TD_SHAPES] = {"line", "star", "ring", "mesh"};

static const char *const faults[] = {
    "latency",    "lose",         "duplicate", "reorder", "corrupt",    "cut",     "one_way", "half_open",
    "clog",       "slow",         "crash",     "crash_at", "disk_full", "disk_error",
    "disk_unknown", "memory",     "clock",     "clock_jump", "restore", "copy",    "remotes", "liar",
    "refuse",
    "share",
};

enum { FAULTS = sizeof(faults) / sizeof(faults[0]) };

_Static_assert(TANDEM_FAULT_ALL == (1 << FAULTS) - 1, "each fault has a name");

/* ---- Random numbers ----
 *
 * splitmix64 (https://prng.di.unimi.it/splitmix64.c, public domain): a stream from any one number.
 */

uint64_t td_plan_draw_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t td_plan_draw_below(uint64_t *state, uint64_t limit)
{
    return (td_plan_draw_next(state) >> 32) * limit >> 32; /* limits here are small */
}

/* ---- Names ---- */

const char *td_plan_name(unsigned n)
{
    static const char *const names[TD_PLAN_NODES_MAX] = {"a", "b", "c", "d", "e", "f", "g", "h",
                                                         "i", "j", "k", "l", "m", "n", "o", "p"};

    return names[n];
}

const char *tandem_fault_name(tandem_fault fault)
{
    for (unsigned i = 0; i < FAULTS; i++)
        if ((uint32_t)fault == UINT32_C(1) << i)
            return faults[i];
    return NULL;
}

uint32_t td_step_fault(td_step_kind kind)
{
    return kinds[kind].fault;
}

void td_step_text(const td_step *step, char out[64])
{
    int at = snprintf(out, 64, "%s", kinds[step->kind].word);

    if (kinds[step->kind].names >= 1)
        at += snprintf(out + at, 64 - (size_t)at, " %s", td_plan_name(step->a));
    if (kinds[step->kind].names >= 2)
        snprintf(out + at, 64 - (size_t)at, " %s", td_plan_name(step->b));
}

bool td_plan_joins(const tandem_plan *plan, unsigned a, unsigned b)
{
    unsigned n = plan->reactors;
    bool joined = false, back = false;

    if (a >= n || b >= n || a == b)
        return false;
    switch (plan->shape) {
    case TD_SHAPE_LINE:
        joined = b == a + 1;
        back = a == b + 1;
        break;
    case TD_SHAPE_STAR:
        joined = b == 0;
        back = a == 0;
        break;
    case TD_SHAPE_RING:
        joined = b == (a + 1) % n;
        back = a == (b + 1) % n;
        break;
    case TD_SHAPE_MESH:
        joined = b > a;
        back = a > b;
        break;
    case TD_SHAPES:
        break;
    }
    return joined || (back && plan->both);
}

bool td_plan_is_http(const tandem_plan *plan, unsigned a, unsigned b)
{
    uint64_t state = plan->seed ^ (HTTP_STREAM + a * TD_PLAN_NODES_MAX + b);

    return td_plan_draw_below(&state, 100) < plan->http_percent;
}

/* ---- Drawing ---- */

static tandem_err plan_add(tandem_plan *plan, const td_step *step)
{
    if (plan->count == plan->capacity) {
        size_t capacity = plan->capacity ? plan->capacity * 2 : 256;
        td_step *steps = realloc(plan->steps, capacity * sizeof(*steps));

        if (!steps)
            return TANDEM_E_NOMEM;
        plan->steps = steps;
        plan->capacity = capacity;
    }
    plan->steps[plan->count++] = *step;
    return TANDEM_OK;
}

/* The kind that mends what this one breaks; itself if there is none. */
static td_step_kind mends(td_step_kind kind)
{
    switch (kind) {
    case TD_STEP_CUT:
    case TD_STEP_ONE_WAY:
        return TD_STEP_HEAL;
    case TD_STEP_CLOG:
        return TD_STEP_UNCLOG;
    case TD_STEP_CRASH:
    case TD_STEP_CRASH_AT:
    case TD_STEP_GO_BACK:
        return TD_STEP_RESTART;
    case TD_STEP_DISK_FULL:
    case TD_STEP_DISK_ERROR:
    case TD_STEP_DISK_UNKNOWN:
    case TD_STEP_MEMORY:
        return TD_STEP_DISK_MEND;
    case TD_STEP_CLOCK_JUMP:
        return TD_STEP_CLOCK_BACK;
    case TD_STEP_DISCONNECT:
        return TD_STEP_CONNECT;
    case TD_STEP_PAUSE:
        return TD_STEP_RESUME;
    case TD_STEP_BACKUP:
        return TD_STEP_GO_BACK;
    case TD_STEP_REFUSE:
        return TD_STEP_ADMIT;
    default:
        return kind;
    }
}

static unsigned steps_of_kind(const tandem_plan *plan, td_step_kind kind)
{
    unsigned count = 0;

    for (size_t i = 0; i < plan->count; i++)
        count += plan->steps[i].kind == kind;
    return count;
}

/* A step, and mostly the one that mends it. */
static tandem_err draw_step(tandem_plan *plan, td_step_kind kind, uint64_t *state)
{
    td_step step = {.kind = kind, .random = td_plan_draw_next(state)};
    uint64_t left_ms = plan->heal_ms - WARM_UP_MS;
    bool mend = td_plan_draw_below(state, 4) != 0;
    tandem_err err;

    step.a = (uint8_t)td_plan_draw_below(state, plan->reactors);
    step.b = (uint8_t)td_plan_draw_below(state, plan->reactors - 1);
    step.b = (uint8_t)(step.b + (step.b >= step.a));
    step.at_ms = td_step_fault(kind) || kind == TD_STEP_NETWORK
                     ? WARM_UP_MS + td_plan_draw_below(state, left_ms)
                     : td_plan_draw_below(state, plan->heal_ms);
    /* Each gives an origin one branch more, and there are eight. */
    if ((kind == TD_STEP_BACKUP || kind == TD_STEP_GO_BACK) &&
        steps_of_kind(plan, TD_STEP_GO_BACK) >= 4)
        return TANDEM_OK;
    if ((kind == TD_STEP_COPY || kind == TD_STEP_CLOCK_JUMP || kind == TD_STEP_LIE) &&
        steps_of_kind(plan, kind) >= 2)
        return TANDEM_OK;
    if ((err = plan_add(plan, &step)) != TANDEM_OK)
        return err;
    while (mends(step.kind) != step.kind && mend) {
        step.kind = mends(step.kind);
        step.random = td_plan_draw_next(state);
        step.at_ms += 50 + td_plan_draw_below(state, REPAIR_MS_MAX);
        if ((err = plan_add(plan, &step)) != TANDEM_OK)
            return err;
    }
    return TANDEM_OK;
}

static int step_compare(const void *a, const void *b)
{
    const td_step *x = a, *y = b;

    if (x->at_ms != y->at_ms)
        return x->at_ms < y->at_ms ? -1 : 1;
    return x->random < y->random ? -1 : x->random > y->random;
}

/* Which remotes are over HTTP, and when some are polled otherwise than before: a stream of its own, for
 * all else that a seed stands for was drawn before there were such. */
static tandem_err draw_http(tandem_plan *plan)
{
    uint64_t state = plan->seed ^ HTTP_STREAM, count;
    tandem_err err = TANDEM_OK;

    plan->http_percent = 50 * (uint32_t)td_plan_draw_below(&state, 3);
    count = plan->http_percent ? td_plan_draw_below(&state, POLL_STEPS_MAX + 1) : 0;
    for (uint64_t i = 0; i < count && err == TANDEM_OK; i++)
        err = draw_step(plan, TD_STEP_POLL, &state);
    return err;
}

/* Of a few remotes, what is shared with them is changed some times, or becomes everything again: some
 * from the beginning on. */
static tandem_err draw_shares(tandem_plan *plan)
{
    uint64_t state = plan->seed ^ SHARE_STREAM, count;
    tandem_err err = TANDEM_OK;

    count = plan->faults & TANDEM_FAULT_SHARE ? 1 + td_plan_draw_below(&state, SHARE_STEPS_MAX) : 0;
    for (uint64_t i = 0; i < count && err == TANDEM_OK; i++) {
        td_step step = {.random = td_plan_draw_next(&state)};
        bool early = td_plan_draw_below(&state, 3) == 0;

        step.kind = td_plan_draw_below(&state, 5) ? TD_STEP_SHARE : TD_STEP_SHARE_ALL;
        step.at_ms = td_plan_draw_below(&state, early ? WARM_UP_MS : plan->heal_ms);
        do {
            step.a = (uint8_t)td_plan_draw_below(&state, plan->reactors);
            step.b = (uint8_t)td_plan_draw_below(&state, plan->reactors);
        } while (!td_plan_joins(plan, step.a, step.b));
        err = plan_add(plan, &step);
    }
    return err;
}

static const char *draw_one(uint64_t *state, const char *const *names, unsigned count)
{
    return names[td_plan_draw_below(state, count)];
}

void td_plan_draw_share(uint64_t random, const tandem_workload *workload, td_drawn_share *out)
{
    static const char *const collections[] = {"c0", "c1", "c2"};
    static const char *const scopes[] = {"global", "notes"};
    static const char *const branches[] = {"main", "draft"};
    static const tandem_direction ways[] = {TANDEM_DIRECTION_BOTH, TANDEM_DIRECTION_BOTH,
                                            TANDEM_DIRECTION_PULL, TANDEM_DIRECTION_PUSH};
    const char *const *documents =
        workload->documents ? workload->documents : tandem_default_workload()->documents;
    unsigned document_count = 0;
    uint64_t state = random;

    while (documents[document_count])
        document_count++;
    memset(out, 0, sizeof(*out));
    out->share = (tandem_share)TANDEM_SHARE_INIT;
    out->share.direction = ways[td_plan_draw_below(&state, 4)];
    out->share.collections = out->collections;
    out->share.documents = out->documents;
    out->share.scopes = out->scopes;
    out->share.branches = out->branches;
    if (td_plan_draw_below(&state, 3) == 0)
        out->share.collection_count = 1 + td_plan_draw_below(&state, 2);
    if (td_plan_draw_below(&state, 3))
        out->share.document_count = 1 + td_plan_draw_below(&state, 2);
    out->share.scope_count = td_plan_draw_below(&state, 6) == 0;
    out->share.branch_count = td_plan_draw_below(&state, 6) == 0;
    for (unsigned i = 0; i < 2; i++) {
        out->collections[i] = draw_one(&state, collections, 3);
        out->documents[i] = draw_one(&state, documents, document_count);
    }
    out->scopes[0] = draw_one(&state, scopes, 2);
    out->branches[0] = draw_one(&state, branches, 2);
}

static tandem_err draw_steps(tandem_plan *plan, uint64_t *state)
{
    static const uint32_t network = TANDEM_FAULT_LATENCY | TANDEM_FAULT_LOSE |
                                    TANDEM_FAULT_DUPLICATE | TANDEM_FAULT_REORDER |
                                    TANDEM_FAULT_CORRUPT;
    td_step_kind troubles[TD_STEP_KINDS];
    unsigned trouble_count = 0;
    uint64_t count = 40 + td_plan_draw_below(state, 120);
    uint64_t trouble_percent = 5 + td_plan_draw_below(state, 30);
    tandem_err err = TANDEM_OK;

    for (unsigned kind = 0; kind < TD_STEP_KINDS; kind++)
        if ((kinds[kind].fault & plan->faults) && kind != TD_STEP_SHARE)
            troubles[trouble_count++] = (td_step_kind)kind;
    if (plan->faults & network)
        troubles[trouble_count++] = TD_STEP_NETWORK;
    for (uint64_t i = 0; i < count && err == TANDEM_OK; i++) {
        uint64_t dice = td_plan_draw_below(state, 100);
        td_step_kind kind = dice % 10 == 0 ? TD_STEP_READ
                            : dice % 9 == 0 ? TD_STEP_BURST
                                            : TD_STEP_WRITE;

        if (trouble_count && dice < trouble_percent)
            kind = troubles[td_plan_draw_below(state, trouble_count)];
        err = draw_step(plan, kind, state);
    }
    if (err == TANDEM_OK)
        err = draw_http(plan);
    if (err == TANDEM_OK)
        err = draw_shares(plan);
    if (err == TANDEM_OK)
        qsort(plan->steps, plan->count, sizeof(plan->steps[0]), step_compare);
    return err;
}

/* A script need not name the default one. */
static const tandem_workload *workload_of(const tandem_simulator_options *options)
{
    const tandem_workload *workload = options->workload;

    return workload && workload->name && workload != tandem_default_workload() &&
                   tandem_find_workload(workload->name) == workload
               ? workload
               : NULL;
}

tandem_err tandem_plan_draw(uint64_t seed, const tandem_simulator_options *options,
                            tandem_plan **out)
{
    static const tandem_simulator_options defaults = TANDEM_SIMULATOR_OPTIONS_INIT;
    static const uint8_t sizes[] = {2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 7};
    uint64_t state = seed, dice;
    tandem_plan *plan;
    tandem_err err;

    if (!options)
        options = &defaults;
    if (options->size != sizeof(*options) || !out ||
        (options->workload && options->workload->reactors_min > TD_PLAN_REACTORS_MAX))
        return TANDEM_E_INVALID;
    if (!(plan = calloc(1, sizeof(*plan))))
        return TANDEM_E_NOMEM;
    plan->seed = seed;
    plan->reactors = sizes[td_plan_draw_below(&state, sizeof(sizes))];
    plan->workload = workload_of(options);
    if (options->workload && plan->reactors < options->workload->reactors_min)
        plan->reactors = options->workload->reactors_min;
    plan->shape = (td_shape)td_plan_draw_below(&state, TD_SHAPES);
    plan->both = td_plan_draw_below(&state, 2);
    dice = td_plan_draw_next(&state);
    plan->faults = options->faults & (uint32_t)dice & TANDEM_FAULT_ALL;
    if ((dice >> 32) % QUIET_ONE_IN == 0)
        plan->faults &= TANDEM_FAULT_LATENCY;
    /* Of a liar's ten branches eight are kept: the same ones everywhere, as long as no wrong bit
     * makes others of them on the way. */
    if (plan->faults & TANDEM_FAULT_CORRUPT)
        plan->faults &= ~(uint32_t)TANDEM_FAULT_LIAR;
    /* Windows that are ever full, in half of the plans. */
    if (td_plan_draw_below(&state, 2)) {
        plan->window_jobs = (uint32_t)(1 + td_plan_draw_below(&state, 6));
        plan->window_bytes = 256 << td_plan_draw_below(&state, 8);
        plan->pool_bytes = 512 << td_plan_draw_below(&state, 8);
    }
    /* There is too little of anything to be compared by ranges: half of the plans begin at once. */
    plan->ranges_least = seed % 2 ? RANGES_LEAST : 0;
    plan->heal_ms = td_plan_draw_below(&state, 6) ? 3000 + td_plan_draw_below(&state, 17000)
                                                  : 40000 + td_plan_draw_below(&state, 50000);
    if ((err = draw_steps(plan, &state)) != TANDEM_OK) {
        tandem_plan_free(plan);
        return err;
    }
    *out = plan;
    return TANDEM_OK;
}

tandem_err td_plan_copy(const tandem_plan *plan, tandem_plan **out)
{
    tandem_plan *copy = malloc(sizeof(*copy));

    if (!copy)
        return TANDEM_E_NOMEM;
    *copy = *plan;
    copy->capacity = plan->count;
    copy->steps = malloc((plan->count + 1) * sizeof(*copy->steps));
    if (!copy->steps) {
        free(copy);
        return TANDEM_E_NOMEM;
    }
    if (plan->count)
        memcpy(copy->steps, plan->steps, plan->count * sizeof(*copy->steps));
    *out = copy;
    return TANDEM_OK;
}

size_t tandem_plan_steps(const tandem_plan *plan)
{
    return plan->count;
}

uint64_t tandem_plan_seed(const tandem_plan *plan)
{
    return plan->seed;
}

void tandem_plan_free(tandem_plan *plan)
{
    if (!plan)
        return;
    free(plan->steps);
    free(plan);
}

/* ---- Scripts ---- */

tandem_err tandem_plan_write(const tandem_plan *plan, char **text_out)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return TANDEM_E_NOMEM;
    fprintf(out, "plan %d\nseed %" PRIu64 "\nreactors %u\nshape %s\nboth %d\n", SCRIPT_VERSION,
            plan->seed, plan->reactors, shapes[plan->shape], plan->both);
    fprintf(out, "window_jobs %u\nwindow_bytes %" PRIu64 "\npool_bytes %" PRIu64 "\n",
            plan->window_jobs, plan->window_bytes, plan->pool_bytes);
    fprintf(out, "http_percent %u\nheal_ms %" PRIu64 "\n", plan->http_percent, plan->heal_ms);
    if (plan->ranges_least)
        fprintf(out, "ranges_least %u\n", plan->ranges_least);
    if (plan->workload)
        fprintf(out, "workload %s\n", plan->workload->name);
    for (unsigned i = 0; i < FAULTS; i++)
        if (plan->faults & UINT32_C(1) << i)
            fprintf(out, "fault %s\n", faults[i]);
    for (size_t i = 0; i < plan->count; i++) {
        char step[64];

        td_step_text(&plan->steps[i], step);
        fprintf(out, "step %" PRIu64 " %" PRIx64 " %s\n", plan->steps[i].at_ms,
                plan->steps[i].random, step);
    }
    if (fclose(out) != 0) {
        free(text);
        return TANDEM_E_NOMEM;
    }
    *text_out = text;
    return TANDEM_OK;
}

static bool read_name(const char *word, uint8_t *out)
{
    if (word[0] < 'a' || word[0] >= 'a' + TD_PLAN_NODES_MAX || word[1])
        return false;
    *out = (uint8_t)(word[0] - 'a');
    return true;
}

static bool read_step(tandem_plan *plan, const char *line, tandem_err *err_out)
{
    char word[32], a[8] = "", b[8] = "";
    td_step step = {.at_ms = 0};
    int count = sscanf(line, "step %" SCNu64 " %" SCNx64 " %31s %7s %7s", &step.at_ms,
                       &step.random, word, a, b);

    if (count < 3 || plan->count >= TD_PLAN_STEPS_MAX)
        return false;
    for (step.kind = 0; step.kind < TD_STEP_KINDS; step.kind++)
        if (!strcmp(kinds[step.kind].word, word))
            break;
    if (step.kind == TD_STEP_KINDS || (unsigned)count != 3 + kinds[step.kind].names ||
        (count >= 4 && !read_name(a, &step.a)) || (count >= 5 && !read_name(b, &step.b)))
        return false;
    if (step.at_ms > TD_PLAN_MS_MAX ||
        (plan->count && step.at_ms < plan->steps[plan->count - 1].at_ms))
        return false;
    *err_out = plan_add(plan, &step);
    return true;
}

static bool read_word(const char *word, const char *const *words, unsigned count, unsigned *out)
{
    for (*out = 0; *out < count; ++*out)
        if (!strcmp(words[*out], word))
            return true;
    return false;
}

/* Is this a line of a script? The one that says so sets *is_plan. */
static bool read_line(tandem_plan *plan, const char *line, bool *is_plan, tandem_err *err_out)
{
    char word[32];
    unsigned number;
    int both;

    if (!line[0] || line[0] == '#')
        return true;
    if (sscanf(line, "plan %u", &number) == 1)
        return *is_plan = number == SCRIPT_VERSION;
    if (sscanf(line, "seed %" SCNu64, &plan->seed) == 1 ||
        sscanf(line, "window_jobs %" SCNu32, &plan->window_jobs) == 1 ||
        sscanf(line, "ranges_least %" SCNu32, &plan->ranges_least) == 1 ||
        sscanf(line, "window_bytes %" SCNu64, &plan->window_bytes) == 1 ||
        sscanf(line, "pool_bytes %" SCNu64, &plan->pool_bytes) == 1)
        return true;
    if (sscanf(line, "http_percent %" SCNu32, &plan->http_percent) == 1)
        return plan->http_percent <= 100;
    if (sscanf(line, "heal_ms %" SCNu64, &plan->heal_ms) == 1)
        return plan->heal_ms <= TD_PLAN_MS_MAX;
    if (sscanf(line, "reactors %u", &plan->reactors) == 1)
        return plan->reactors >= 1 && plan->reactors <= TD_PLAN_REACTORS_MAX;
    if (sscanf(line, "both %d", &both) == 1) {
        plan->both = both != 0;
        return true;
    }
    if (sscanf(line, "shape %31s", word) == 1) {
        if (!read_word(word, shapes, TD_SHAPES, &number))
            return false;
        plan->shape = (td_shape)number;
        return true;
    }
    if (sscanf(line, "workload %31s", word) == 1)
        return (plan->workload = tandem_find_workload(word)) != NULL;
    if (sscanf(line, "fault %31s", word) == 1) {
        if (!read_word(word, faults, FAULTS, &number))
            return false;
        plan->faults |= UINT32_C(1) << number;
        return true;
    }
    return read_step(plan, line, err_out);
}

tandem_err tandem_plan_read(const char *text, tandem_plan **out, char why[256])
{
    tandem_plan *plan;
    tandem_err err = TANDEM_OK;
    unsigned number = 0;
    bool is_plan = false;

    why[0] = 0;
    if (!(plan = calloc(1, sizeof(*plan))))
        return TANDEM_E_NOMEM;
    plan->reactors = 2;
    while (*text && err == TANDEM_OK) {
        size_t size = strcspn(text, "\n");
        char line[128];

        number++;
        snprintf(line, sizeof(line), "%.*s", (int)(size < sizeof(line) ? size : sizeof(line) - 1),
                 text);
        if (!read_line(plan, line, &is_plan, &err)) {
            snprintf(why, 256, "line %u is no line of a plan: %s", number, line);
            err = TANDEM_E_INVALID;
        }
        text += size + (text[size] == '\n');
    }
    if (err == TANDEM_OK && !is_plan) {
        snprintf(why, 256, "no line says `plan %d`", SCRIPT_VERSION);
        err = TANDEM_E_INVALID;
    }
    if (err != TANDEM_OK) {
        tandem_plan_free(plan);
        return err;
    }
    *out = plan;
    return TANDEM_OK;
}
