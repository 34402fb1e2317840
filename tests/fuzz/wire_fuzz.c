/*
 * The wire under hostile bytes. What must hold for any input: the validator ends; what it accepts
 * can be walked to the last entry without a read out of bounds and without one allocation; every
 * call answers TANDEM_OK or TANDEM_E_PROTOCOL, and every slice handed out lies within the input.
 *
 * Built with -fsanitize=fuzzer and TANDEM_LIBFUZZER defined this is a libFuzzer target. Built
 * without, it is a program that mutates the test vectors: wire_fuzz [SEED [MUTATIONS]]. The same
 * seed is the same run. Each input then ends at a page that may not be touched, so that a read too
 * far is seen without a sanitizer too.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/draw.h"
#include "transport/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define HOLDS(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "wire_fuzz: line %d: %s does not hold\n", __LINE__, #condition);       \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* ---- Counting allocations ---- */

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define ALLOCATOR_OF_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ALLOCATOR_OF_SANITIZER 1
#endif

/* Of this thread: the fuzzer has one of its own that watches its memory. */
static _Thread_local unsigned long allocations;

#ifdef ALLOCATOR_OF_SANITIZER
/* Declared here: not every compiler that has the sanitizer brings its header. */
int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *, size_t),
                                              void (*free_hook)(const volatile void *));

static void count_malloc(const volatile void *memory, size_t size)
{
    allocations++;
}

static void count_free(const volatile void *memory)
{
}

static void allocations_count(void)
{
    static bool installed;

    if (!installed)
        HOLDS(__sanitizer_install_malloc_and_free_hooks(count_malloc, count_free));
    installed = true;
}
#elif defined(__GLIBC__)
/* Ours stand before the C library's, which go on under their other names. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);

void *malloc(size_t size)
{
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    allocations++;
    return __libc_realloc(memory, size);
}

static void allocations_count(void)
{
}
#else
static void allocations_count(void)
{
}
#endif

/* ---- The walk ---- */

static unsigned long calls_ok;
static volatile uint8_t sink; /* keeps the reads of what was handed out */

static bool ok(tandem_err err)
{
    HOLDS(err == TANDEM_OK || err == TANDEM_E_PROTOCOL);
    if (err == TANDEM_OK)
        calls_ok++;
    return err == TANDEM_OK;
}

static void touch(tandem_slice input, const uint8_t *bytes, size_t size)
{
    HOLDS(bytes >= input.bytes && size <= input.size &&
          (size_t)(bytes - input.bytes) <= input.size - size);
    for (size_t i = 0; i < size; i++)
        sink ^= bytes[i];
}

static void touch_slice(tandem_slice input, tandem_slice slice)
{
    touch(input, slice.bytes, slice.size);
}

static bool walk_vector(tandem_slice input, td_wire_vector *vector)
{
    td_wire_origin origin;
    td_wire_refused refused;

    touch_slice(input, vector->name);
    touch_slice(input, vector->filter);
    HOLDS(td_filter_check(vector->filter) == TANDEM_OK);
    HOLDS(vector->has_filter == (vector->filter.size > 1));
    for (uint32_t i = 0; i < vector->origin_count; i++) {
        if (!ok(td_wire_read_origin(&vector->origins, &origin)))
            return false;
        touch(input, origin.origin, TANDEM_ORIGIN_BYTES);
        HOLDS(origin.head_count <= TANDEM_HEADS_MAX);
        HOLDS(origin.head_count || vector->refused_count);
        HOLDS(!origin.head_count || origin.heads[0].seq >= 1);
        for (unsigned k = 1; k < origin.head_count; k++)
            HOLDS(origin.heads[k - 1].seq <= origin.heads[k].seq);
    }
    for (uint32_t i = 0; i < vector->refused_count; i++) {
        if (!ok(td_wire_read_refused(&vector->refused, &refused)))
            return false;
        touch(input, refused.origin, TANDEM_ORIGIN_BYTES);
        touch(input, refused.hash, TANDEM_HASH_BYTES);
        HOLDS(refused.first >= 1 && refused.first <= refused.last && refused.reason <= 0);
    }
    HOLDS(tandem_reader_left(&vector->origins) == 0 && tandem_reader_left(&vector->refused) == 0);
    return true;
}

static bool walk_have(tandem_slice input, td_wire_have *have)
{
    td_wire_digest digest;
    td_wire_ranges ranges;
    td_wire_vector vector;

    HOLDS(have->level <= TD_HAVE_RANGES);
    if (have->level == TD_HAVE_ALL)
        return true;
    for (uint32_t i = 0; i < have->entry_count; i++) {
        if (have->level == TD_HAVE_DIGESTS) {
            if (!ok(td_wire_read_digest(&have->entries, &digest)))
                return false;
            touch_slice(input, digest.name);
        } else if (have->level == TD_HAVE_RANGES) {
            if (!ok(td_wire_read_ranges(&have->entries, &ranges)))
                return false;
            if (ranges.has_name)
                touch_slice(input, ranges.name);
            touch(input, ranges.bytes,
                  ranges.is_answer ? td_range_bitmap_bytes(ranges.bits)
                                   : td_range_digests_bytes(ranges.bits));
        } else if (!ok(td_wire_read_vector(&have->entries, &vector)) ||
                   !walk_vector(input, &vector)) {
            return false;
        }
    }
    HOLDS(tandem_reader_left(&have->entries) == 0);
    return true;
}

static bool walk_jobs(tandem_slice input, td_wire_jobs *jobs)
{
    tandem_slice operation;
    uint32_t count;

    HOLDS(jobs->first_job >= 1);
    for (uint32_t i = 0; i < jobs->job_count; i++) {
        if (!ok(td_wire_read_job(&jobs->jobs, &count)))
            return false;
        HOLDS(count >= 1 && count <= TANDEM_JOB_OPERATIONS_MAX);
        for (uint32_t k = 0; k < count; k++) {
            if (!ok(td_wire_read_operation(&jobs->jobs, &operation)))
                return false;
            touch_slice(input, operation);
        }
    }
    while (tandem_reader_left(&jobs->jobs))
        HOLDS(tandem_read_skip(&jobs->jobs, NULL) == TANDEM_OK);
    return true;
}

static bool walk_ack(td_wire_ack *ack)
{
    td_wire_exception exception;

    for (uint32_t i = 0; i < ack->exception_count; i++) {
        if (!ok(td_wire_read_exception(&ack->exceptions, &exception)))
            return false;
        HOLDS(exception.job >= 1 && exception.err < 0);
    }
    HOLDS(tandem_reader_left(&ack->exceptions) == 0);
    return true;
}

static bool walk_pull(tandem_slice input, td_wire_pull *pull)
{
    td_wire_pull_collection collection;
    td_wire_range range;

    for (uint32_t i = 0; i < pull->collection_count; i++) {
        if (!ok(td_wire_read_pull_collection(&pull->collections, &collection)))
            return false;
        touch_slice(input, collection.name);
        for (uint32_t k = 0; k < collection.range_count; k++) {
            if (!ok(td_wire_read_range(&collection.ranges, &range)))
                return false;
            touch(input, range.origin, TANDEM_ORIGIN_BYTES);
            HOLDS(range.first >= 1 && range.first <= range.last);
        }
    }
    HOLDS(tandem_reader_left(&pull->collections) == 0);
    return true;
}

static bool walk_cover(tandem_slice input, td_wire_cover *cover)
{
    td_wire_cover_collection collection;
    td_wire_origin origin;

    for (uint32_t i = 0; i < cover->collection_count; i++) {
        if (!ok(td_wire_read_cover_collection(&cover->collections, &collection)))
            return false;
        touch_slice(input, collection.name);
        for (uint32_t k = 0; k < collection.origin_count; k++) {
            if (!ok(td_wire_read_origin(&collection.origins, &origin)))
                return false;
            touch(input, origin.origin, TANDEM_ORIGIN_BYTES);
            HOLDS(origin.head_count >= 1 && origin.head_count <= TANDEM_HEADS_MAX);
        }
        HOLDS(tandem_reader_left(&collection.origins) == 0);
    }
    HOLDS(tandem_reader_left(&cover->collections) == 0);
    return true;
}

static bool walk_hello(tandem_slice input, td_wire_hello *hello)
{
    tandem_slice feature;

    if (hello->major != TD_WIRE_MAJOR)
        return true;
    HOLDS(hello->message_bytes >= TD_MESSAGE_BYTES_MIN);
    touch_slice(input, hello->agent);
    for (uint32_t i = 0; i < hello->feature_count; i++) {
        HOLDS(tandem_read_string(&hello->features, &feature) == TANDEM_OK);
        HOLDS(feature.size <= TD_WIRE_TEXT_BYTES_MAX);
        touch_slice(input, feature);
    }
    if (hello->has_shares) {
        touch_slice(input, hello->gives);
        touch_slice(input, hello->takes);
        HOLDS(td_share_check(hello->gives) == TANDEM_OK);
        HOLDS(td_share_check(hello->takes) == TANDEM_OK);
    }
    return true;
}

static bool walk(tandem_slice input, td_wire_message *message)
{
    HOLDS(message->number >= 1);
    switch (message->type) {
    case TD_WIRE_HELLO:
        return walk_hello(input, &message->as.hello);
    case TD_WIRE_HAVE:
        return walk_have(input, &message->as.have);
    case TD_WIRE_JOBS:
        return walk_jobs(input, &message->as.jobs);
    case TD_WIRE_ACK:
        return walk_ack(&message->as.ack);
    case TD_WIRE_PULL:
        return walk_pull(input, &message->as.pull);
    case TD_WIRE_COVER:
        return walk_cover(input, &message->as.cover);
    case TD_WIRE_PACKED:
        HOLDS(message->as.packed.bytes >= 1 && message->as.packed.bytes <= TD_MESSAGE_BYTES_MAX);
        touch_slice(input, message->as.packed.frame);
        return true;
    case TD_WIRE_ERROR:
        HOLDS(message->as.error.err < 0);
        touch_slice(input, message->as.error.text);
        return true;
    default:
        return true;
    }
}

static struct {
    unsigned long inputs, valid, read, walked;
} seen;

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    const tandem_slice input = tandem_slice_of(bytes, size);
    td_wire_message message;
    unsigned long before;
    bool valid, read;

    allocations_count();
    before = allocations;
    seen.inputs++;
    valid = ok(td_wire_validate(input));
    read = ok(td_wire_read(input, &message));
    HOLDS(valid || !read);
    seen.valid += valid;
    seen.read += read;
    if (read)
        seen.walked += walk(input, &message);
    HOLDS(allocations == before);
    return 0;
}

#ifndef TANDEM_LIBFUZZER

/* ---- The driver: mutations of the vectors ---- */

#include <jansson.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef TANDEM_VECTORS_DIR
#define TANDEM_VECTORS_DIR "tests/vectors"
#endif

enum {
    MUTATIONS = 100000,
    INPUT_BYTES_MAX = 16 * 1024,
    SEEDS_MAX = 1024,
};

static uint64_t random_state;

static uint64_t random_next(void)
{
    return draw(&random_state);
}

static size_t random_below(size_t limit)
{
    return (size_t)(random_next() % limit);
}

static struct {
    uint8_t *bytes;
    size_t size;
} seeds[SEEDS_MAX];
static size_t seed_count;

static unsigned nibble(char digit)
{
    return (unsigned)(digit <= '9' ? digit - '0' : digit - 'a' + 10) & 15;
}

static void seed_add(const char *hex)
{
    size_t size = strlen(hex) / 2;
    uint8_t *bytes = malloc(size + 1);

    HOLDS(bytes && size <= INPUT_BYTES_MAX && seed_count < SEEDS_MAX);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
    seeds[seed_count].bytes = bytes;
    seeds[seed_count++].size = size;
}

static void seeds_load(void)
{
    static const char *const sections[] = {"messages", "invalid"};
    json_error_t why;
    json_t *all = json_load_file(TANDEM_VECTORS_DIR "/wire.json", 0, &why), *vector;
    size_t i;

    if (!all) {
        fprintf(stderr, "wire_fuzz: %s:%d: %s\n", why.source, why.line, why.text);
        exit(1);
    }
    for (size_t section = 0; section < 2; section++)
        json_array_foreach(json_object_get(all, sections[section]), i, vector)
            seed_add(json_string_value(json_object_get(vector, "hex")));
    json_decref(all);
    HOLDS(seed_count > 0);
}

static void seeds_free(void)
{
    while (seed_count)
        free(seeds[--seed_count].bytes);
}

/* Memory of INPUT_BYTES_MAX that ends where no byte may be touched. */
static uint8_t *guarded_open(size_t *mapped_out)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = (INPUT_BYTES_MAX + page - 1) / page * page;
    uint8_t *map = mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                        0);

    HOLDS(map != MAP_FAILED);
    HOLDS(mprotect(map + size, page, PROT_NONE) == 0);
    *mapped_out = size + page;
    return map + size - INPUT_BYTES_MAX;
}

/* Bytes at which msgpack turns: ends of ranges of headers, and the wide forms. */
static uint8_t header_byte(void)
{
    static const uint8_t bytes[] = {0x00, 0x01, 0x7f, 0x80, 0x81, 0x8f, 0x90, 0x91, 0x93, 0x9f,
                                    0xa0, 0xa1, 0xbf, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6,
                                    0xc7, 0xc9, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf, 0xd0, 0xd3,
                                    0xd4, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xe0,
                                    0xff};

    return bytes[random_below(sizeof(bytes))];
}

/* Make room for added bytes at a place, as far as there is any. */
static size_t widen(uint8_t *input, size_t size, size_t at, size_t added)
{
    if (size + added > INPUT_BYTES_MAX)
        return size;
    memmove(input + at + added, input + at, size - at);
    return size + added;
}

/* One small change; returns the new size. */
static size_t mutate(uint8_t *input, size_t size)
{
    size_t at = random_below(size + 1);
    size_t left = size - at;
    size_t from, length, grown;

    switch (random_below(8)) {
    case 0: /* flip a bit */
        if (left)
            input[at] ^= (uint8_t)(1u << random_below(8));
        return size;
    case 1: /* another header */
        if (left)
            input[at] = header_byte();
        return size;
    case 2: /* a number a little larger or smaller */
        if (left)
            input[at] = (uint8_t)(input[at] + random_below(9) - 4);
        return size;
    case 3: /* put in a header */
        if ((grown = widen(input, size, at, 1)) > size)
            input[at] = header_byte();
        return grown;
    case 4: /* take some out */
        length = left ? random_below(left < 32 ? left : 32) : 0;
        memmove(input + at, input + at + length, left - length);
        return size - length;
    case 5: /* some twice */
        length = left ? random_below(left < 64 ? left : 64) : 0;
        grown = widen(input, size, at, length);
        if (grown > size)
            memcpy(input + at, input + at + length, length);
        return grown;
    case 6: /* a piece of another over it */
        from = random_below(seed_count);
        if (!left || !seeds[from].size)
            return size;
        length = random_below(left < seeds[from].size ? left : seeds[from].size);
        memcpy(input + at, seeds[from].bytes + random_below(seeds[from].size - length), length);
        return size;
    default: /* cut short, seldom: nothing cut short is valid */
        return random_below(4) ? size : at;
    }
}

static void run(uint64_t mutations, uint8_t *memory, uint8_t *scratch)
{
    for (uint64_t i = 0; i < mutations; i++) {
        size_t chosen = random_below(seed_count);
        size_t changes = 1 + random_below(4);
        size_t size = seeds[chosen].size;

        memcpy(scratch, seeds[chosen].bytes, size);
        while (changes--)
            size = mutate(scratch, size);
        memcpy(memory + INPUT_BYTES_MAX - size, scratch, size);
        LLVMFuzzerTestOneInput(memory + INPUT_BYTES_MAX - size, size);
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t mutations = argc > 2 ? strtoull(argv[2], NULL, 10) : MUTATIONS;
    static uint8_t scratch[INPUT_BYTES_MAX];
    size_t mapped;
    uint8_t *memory = guarded_open(&mapped);

    random_state = seed;
    seeds_load();
    run(mutations, memory, scratch);
    printf("wire_fuzz: seed %llu: %lu inputs, %lu valid, %lu read, %lu walked to the end, "
           "%lu calls well\n",
           (unsigned long long)seed, seen.inputs, seen.valid, seen.read, seen.walked,
           calls_ok);
    /* A run in which little is accepted proves little. */
    HOLDS(mutations < 1000 || seen.walked > mutations / 50);
    seeds_free();
    HOLDS(munmap(memory + INPUT_BYTES_MAX - (mapped - (size_t)sysconf(_SC_PAGESIZE)), mapped) == 0);
    return 0;
}

#endif
