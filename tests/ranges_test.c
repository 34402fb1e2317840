/*
 * Ranges: how many there are, what their digests are, and that both sides, whoever offers, come to the
 * same of what differs. Then in reactors: what is listed of much that differs a little; and what a peer
 * may not say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <sodium.h>

#include "sync/sync_manager.h"
#include "tests/harness_bed.h"
#include "tests/picky_peer.h"

#ifndef TANDEM_VECTORS_DIR
#define TANDEM_VECTORS_DIR "tests/vectors"
#endif

enum { DIGESTS_BYTES_MAX = TD_RANGE_DIGEST_BYTES << TD_RANGE_BITS_MAX };

/* ---- Ranges alone ---- */

static void there_are_as_many_as_it_is_worth(void **state)
{
    (void)state;
    assert_int_equal(0, td_ranges_bits(65, 64, 1000));
    assert_int_equal(0, td_ranges_bits(65, 1000, 64));
    assert_int_equal(5, td_ranges_bits(65, 65, 1000));
    assert_int_equal(5, td_ranges_bits(65, 128, 128));
    assert_int_equal(6, td_ranges_bits(65, 129, 129));
    assert_int_equal(8, td_ranges_bits(65, 1000, 1000));
    assert_int_equal(TD_RANGE_BITS_MIN, td_ranges_bits(2, 2, 2));
    assert_int_equal(TD_RANGE_BITS_MAX, td_ranges_bits(65, UINT64_MAX, UINT64_MAX));
}

static const uint8_t reactor_a[TANDEM_ORIGIN_BYTES] = {1}, reactor_b[TANDEM_ORIGIN_BYTES] = {2};

static td_ranges_sum begin_sum(unsigned bits, uint64_t clock_a)
{
    td_greeting a = {reactor_a, clock_a}, b = {reactor_b, 7};
    td_ranges_sum sum;

    assert_int_equal(TANDEM_OK, td_ranges_begin_sum(&sum, bits, &a, &b));
    return sum;
}

static void add_number(td_ranges_sum *sum, unsigned number)
{
    uint8_t digest[TANDEM_HASH_BYTES] = {0};
    char name[16];

    snprintf(name, sizeof(name), "%u", number);
    td_ranges_add_collection(sum, tandem_slice_text(name), digest);
}

/* Numbers below a thousand, but one. */
static uint8_t *digests_without(unsigned bits, unsigned missing)
{
    td_ranges_sum sum = begin_sum(bits, 5);

    for (unsigned i = 0; i < 1000; i++)
        if (i != missing)
            add_number(&sum, i);
    return sum.digests;
}

static void a_session_has_digests_of_its_own(void **state)
{
    td_ranges_sum sum = begin_sum(3, 5), same = begin_sum(3, 5), other = begin_sum(3, 6);

    (void)state;
    add_number(&sum, 1);
    add_number(&same, 1);
    add_number(&other, 1);
    assert_memory_equal(sum.digests, same.digests, td_range_digests_bytes(3));
    assert_memory_not_equal(sum.digests, other.digests, td_range_digests_bytes(3));
    free(sum.digests);
    free(same.digests);
    free(other.digests);
}

/* ---- The vectors: tests/vectors/wire.json ---- */

static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    assert_non_null(value);
    return value;
}

static uint64_t number_of(const json_t *object, const char *key)
{
    const json_t *value = member(object, key);

    return json_is_string(value) ? strtoull(json_string_value(value), NULL, 10)
                                 : (uint64_t)json_integer_value(value);
}

static void bytes_of(const json_t *object, const char *key, uint8_t *out, size_t size)
{
    const char *hex = json_string_value(member(object, key));
    size_t read;

    assert_int_equal(0, sodium_hex2bin(out, size, hex, strlen(hex), NULL, &read, NULL));
    assert_int_equal(size, read);
}

static void add_origin(td_ranges_sum *sum, const json_t *json)
{
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    json_t *each;
    size_t i;

    bytes_of(json, "origin", origin, sizeof(origin));
    json_array_foreach(member(json, "heads"), i, each) {
        td_head head = {.seq = number_of(each, "seq")};

        bytes_of(each, "hash", head.hash, sizeof(head.hash));
        td_ranges_add_head(sum, origin, &head);
    }
    json_array_foreach(member(json, "lacks"), i, each) {
        td_lack lack = {.first = number_of(each, "first"), .last = number_of(each, "last")};

        bytes_of(each, "hash", lack.hash, sizeof(lack.hash));
        td_ranges_add_lack(sum, origin, &lack);
    }
}

static void a_vector_holds(const json_t *vector)
{
    uint8_t reactors[2][TANDEM_ORIGIN_BYTES], expected[DIGESTS_BYTES_MAX];
    td_greeting greetings[2];
    td_ranges_sum sum;
    json_t *each;
    size_t i;

    json_array_foreach(member(vector, "greetings"), i, each) {
        bytes_of(each, "reactor", reactors[i], TANDEM_ORIGIN_BYTES);
        greetings[i] = (td_greeting){reactors[i], number_of(each, "clock")};
    }
    assert_int_equal(TANDEM_OK,
                     td_ranges_begin_sum(&sum, (unsigned)number_of(vector, "bits"), &greetings[0],
                                         &greetings[1]));
    json_array_foreach(json_object_get(vector, "collections"), i, each) {
        uint8_t digest[TANDEM_HASH_BYTES];

        bytes_of(each, "digest", digest, sizeof(digest));
        td_ranges_add_collection(
            &sum, tandem_slice_text(json_string_value(member(each, "name"))), digest);
    }
    json_array_foreach(json_object_get(vector, "origins"), i, each)
        add_origin(&sum, each);
    bytes_of(vector, "digests", expected, td_range_digests_bytes(sum.bits));
    assert_memory_equal(expected, sum.digests, td_range_digests_bytes(sum.bits));
    free(sum.digests);
}

static void the_vectors_hold(void **state)
{
    json_t *all = json_load_file(TANDEM_VECTORS_DIR "/wire.json", 0, NULL), *vector;
    size_t i;

    (void)state;
    assert_true(json_array_size(member(all, "ranges")) > 0);
    json_array_foreach(member(all, "ranges"), i, vector)
        a_vector_holds(vector);
    json_decref(all);
}

/* ---- What is settled ---- */

static td_ranges offered(unsigned bits, unsigned missing)
{
    td_ranges ranges = {.state = TD_RANGES_OFFER, .bits = bits};

    td_ranges_offer(&ranges, 7, digests_without(bits, missing));
    return ranges;
}

static unsigned count_differing(const td_ranges *ranges)
{
    unsigned count = 0;

    for (unsigned i = 0; i < 1u << ranges->bits; i++) {
        uint8_t key[2] = {(uint8_t)(i << (16 - ranges->bits) >> 8),
                          (uint8_t)(i << (16 - ranges->bits))};

        count += !td_ranges_equal(ranges, key);
    }
    return count;
}

static void two_offers_that_meet_come_to_the_same(void **state)
{
    (void)state;
    for (unsigned bits = TD_RANGE_BITS_MIN; bits <= TD_RANGE_BITS_MAX; bits++) {
        td_ranges a = offered(6, 3), b = offered(bits, 500);
        uint8_t *digests_a = digests_without(6, 3), *digests_b = digests_without(bits, 500);

        assert_int_equal(TANDEM_OK, td_ranges_meet(&a, digests_b, bits));
        assert_int_equal(TANDEM_OK, td_ranges_meet(&b, digests_a, 6));
        assert_int_equal(bits < 6 ? bits : 6, a.bits);
        assert_int_equal(a.bits, b.bits);
        assert_memory_equal(a.differ, b.differ, td_range_bitmap_bytes(a.bits));
        assert_in_range(count_differing(&a), 1, 2);
        assert_int_equal(7, a.position);
        free(digests_a);
        free(digests_b);
        td_ranges_release(&a);
        td_ranges_release(&b);
    }
}

static void an_answer_says_the_same(void **state)
{
    td_ranges a = offered(8, 3), b = {.bits = 8, .digests = digests_without(8, 1000)};
    uint8_t *digests_a = digests_without(8, 3);
    tandem_slice three = tandem_slice_text("3"), four = tandem_slice_text("4");
    uint8_t key[TANDEM_HASH_BYTES];

    (void)state;
    assert_int_equal(TANDEM_OK, td_ranges_meet(&b, digests_a, 8));
    assert_int_equal(TANDEM_OK, td_ranges_settle(&a, b.differ));
    assert_int_equal(1, count_differing(&a));
    td_hash(key, &three, 1);
    assert_false(td_ranges_equal(&a, key));
    td_hash(key, &four, 1);
    assert_true(td_ranges_equal(&a, key));
    free(digests_a);
    td_ranges_release(&a);
    td_ranges_release(&b);
    assert_int_equal(TD_RANGES_NONE, a.state);
    assert_false(td_ranges_equal(&a, key));
}

static void what_is_given_up_is_not_settled(void **state)
{
    td_ranges ranges = offered(4, 1);
    uint8_t key[TANDEM_HASH_BYTES] = {0};

    (void)state;
    td_ranges_give_up(&ranges);
    assert_int_equal(TD_RANGES_PLAIN, ranges.state);
    assert_null(ranges.digests);
    assert_false(td_ranges_equal(&ranges, key));
}

/* ---- In reactors ---- */

enum { MANY = 80 };

static void write_of(tandem_harness *harness, const char *name, const char *collection,
                     const char *document)
{
    tandem_input input = {.type = "counter.ADD", .json = "1"};
    tandem_job job = {.collection = collection,
                      .document = document,
                      .model = "counter",
                      .operations = &input,
                      .count = 1};
    char why[TANDEM_WHY_BYTES];

    assert_int_equal(TANDEM_OK,
                     tandem_execute(tandem_harness_reactor(harness, name), &job, NULL, why));
}

static void write_in(tandem_harness *harness, const char *name, const char *collection)
{
    write_of(harness, name, collection, "d");
}

static void write_in_many(tandem_harness *harness, const char *name, unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++) {
        char collection[16];

        snprintf(collection, sizeof(collection), "c%u", i);
        write_in(harness, name, collection);
    }
}

struct seen {
    const char *name;
    uint64_t count;
};

static void see(void *context, const char *name, const char *sentence, uint64_t count)
{
    struct seen *seen = context;

    (void)sentence;
    if (!strcmp(name, seen->name))
        seen->count = count;
}

static uint64_t happened(const tandem_harness *harness, const char *probe)
{
    struct seen seen = {.name = probe};

    tandem_harness_events(harness, see, &seen);
    return seen.count;
}

/* Of messages, both ways, in the session of a and b. */
static uint64_t session_bytes(tandem_harness *harness)
{
    const td_peer *peer = tandem_harness_sync(harness, "a")->peers;
    const td_session_stat *stat = td_session_stat_of(td_channel_session(peer->channel));

    return stat->sent_bytes + stat->received_bytes;
}

/* They meet and part, and differ by what is written then. */
static tandem_harness *meet_and_part(uint64_t seed, unsigned collections)
{
    tandem_harness *harness = bed_open(seed, (const char *[]){"a", "b"}, 2);

    write_in_many(harness, "a", 0, collections);
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    assert_converges(harness);
    assert_int_equal(TANDEM_OK, tandem_harness_disconnect(harness, "a", "b"));
    tandem_harness_run(harness, 1000);
    return harness;
}

static void become_equal(tandem_harness *harness)
{
    assert_converges(harness);
    tandem_harness_run(harness, 2000);
    assert_int_equal(TANDEM_REMOTE_IN_STEP, bed_status(harness, "a", "b").status.state);
    assert_sound(harness, "a");
    assert_sound(harness, "b");
}

static void meet_again(tandem_harness *harness)
{
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    become_equal(harness);
}

static void few_are_listed(void **state)
{
    tandem_harness *harness = meet_and_part(1, TD_RANGES_LEAST - 1);

    (void)state;
    write_in_many(harness, "a", 3, 1);
    meet_again(harness);
    assert_int_equal(0, happened(harness, "RANGES_OFFERED"));
    tandem_harness_free(harness);
}

static void of_many_collections_few_are_listed(void **state)
{
    tandem_harness *harness = meet_and_part(2, MANY);

    (void)state;
    write_in_many(harness, "a", 3, 1);
    write_in_many(harness, "b", 40, 1);
    write_in_many(harness, "b", MANY, 2); /* two that a has not */
    meet_again(harness);
    assert_int_equal(2, happened(harness, "RANGES_SETTLED"));
    assert_in_range(happened(harness, "COLLECTION_EQUAL"), 0, MANY); /* by both */
    assert_in_range(session_bytes(harness), 1, 6000);
    /* Known, though nobody told of them. */
    write_in_many(harness, "b", 0, MANY + 4);
    write_in_many(harness, "a", 0, MANY + 4);
    assert_converges(harness);
    tandem_harness_free(harness);
}

static const tandem_harness_faults far = {.latency_ms_min = 10, .latency_ms_max = 10};

static void what_is_written_meanwhile_comes(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 10; seed++) {
        tandem_harness *harness = meet_and_part(100 + seed, MANY);

        tandem_harness_set_faults(harness, &far);
        write_in_many(harness, "a", 3, 1);
        assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
        for (unsigned i = 0; i < MANY; i++) {
            tandem_harness_run(harness, 1);
            write_in_many(harness, i % 2 ? "a" : "b", i, 1);
        }
        become_equal(harness);
        assert_int_equal(2, happened(harness, "RANGES_SETTLED"));
        assert_true(happened(harness, "RANGE_GREW") > 0);
        tandem_harness_free(harness);
    }
}

/* What is held in part is equal to nothing, though the heads be the same. */
static void what_is_held_in_part_differs(void **state)
{
    static const char *const glob = "note-*";
    tandem_harness *harness = meet_and_part(5, MANY);
    tandem_share share = TANDEM_SHARE_INIT;
    uint64_t listings;

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_add(harness, "c", 0));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "c", "a"));
    assert_converges(harness);
    assert_int_equal(TANDEM_OK, tandem_harness_disconnect(harness, "c", "a"));
    share.direction = TANDEM_DIRECTION_PULL;
    share.documents = &glob;
    share.document_count = 1;
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "b", "a"));
    assert_int_equal(TANDEM_OK,
                     tandem_remote_set_share(tandem_harness_sync(harness, "b"), "a", &share));
    tandem_harness_run(harness, 2000);
    write_in(harness, "a", "c5");
    write_of(harness, "a", "c5", "note-1");
    tandem_harness_run(harness, 2000);
    assert_int_equal(TANDEM_OK, tandem_harness_disconnect(harness, "b", "a"));
    tandem_harness_run(harness, 1000);

    listings = happened(harness, "LISTING_TAKEN");
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "b", "c"));
    tandem_harness_run(harness, 2000);
    assert_int_equal(2, happened(harness, "RANGES_SETTLED"));
    assert_int_equal(listings + 2, happened(harness, "LISTING_TAKEN"));
    tandem_harness_free(harness);
}

/* "a" holds a collection of many origins, and so does "b". */
static tandem_harness *meet_of_many_origins(uint64_t seed, unsigned origins)
{
    tandem_harness *harness = bed_open(seed, (const char *[]){"a", "b"}, 2);

    for (unsigned i = 0; i < origins; i++) {
        char name[16];

        snprintf(name, sizeof(name), "w%u", i);
        assert_int_equal(TANDEM_OK, tandem_harness_add(harness, name, 0));
        write_in(harness, name, "c0");
        assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, name, "a"));
    }
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    assert_converges(harness);
    assert_int_equal(TANDEM_OK, tandem_harness_disconnect(harness, "a", "b"));
    tandem_harness_run(harness, 1000);
    return harness;
}

static void of_many_origins_few_are_listed(void **state)
{
    tandem_harness *harness = meet_of_many_origins(3, TD_RANGES_LEAST);

    (void)state;
    write_in(harness, "b", "c0");
    write_in(harness, "w7", "c0");
    tandem_harness_run(harness, 1000);
    assert_int_equal(0, happened(harness, "RANGES_OFFERED"));
    meet_again(harness);
    assert_int_equal(2, happened(harness, "RANGES_SETTLED"));
    for (unsigned i = 0; i < TD_RANGES_LEAST; i++) { /* known, though nobody told of them */
        char name[16];

        snprintf(name, sizeof(name), "w%u", i);
        write_in(harness, name, "c0");
    }
    write_in(harness, "a", "c0");
    assert_converges(harness);
    tandem_harness_free(harness);
}

static bool no_poison(void *context, const tandem_operation *operation)
{
    (void)context;
    return !tandem_slice_equal(operation->document, tandem_slice_text("poison"));
}

/* What both lack is equal, too: nobody tells of it. */
static void lacks_in_equal_ranges_are_not_listed(void **state)
{
    tandem_harness *harness = meet_of_many_origins(6, TD_RANGES_LEAST);
    uint64_t told;

    (void)state;
    assert_int_equal(TANDEM_OK, tandem_harness_set_admission(harness, "a", no_poison, NULL));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    tandem_harness_run(harness, 1000);
    write_of(harness, "w3", "c0", "poison");
    write_in(harness, "w3", "c0");
    tandem_harness_run(harness, 20000);
    assert_int_equal(TANDEM_OK, tandem_harness_disconnect(harness, "a", "b"));
    tandem_harness_run(harness, 1000);
    write_in(harness, "w7", "c0");
    tandem_harness_run(harness, 1000);

    assert_true((told = happened(harness, "REFUSED_RANGE_TOLD")) > 0);
    assert_int_equal(0, happened(harness, "RANGES_OFFERED"));
    assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
    tandem_harness_run(harness, 5000);
    assert_int_equal(2, happened(harness, "RANGES_SETTLED"));
    assert_int_equal(told, happened(harness, "REFUSED_RANGE_TOLD"));
    assert_int_equal(TANDEM_REMOTE_IN_STEP, bed_status(harness, "a", "b").status.state);
    tandem_harness_free(harness);
}

static void what_comes_meanwhile_goes_on(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 10; seed++) {
        tandem_harness *harness = meet_of_many_origins(200 + seed, MANY);

        tandem_harness_set_faults(harness, &far);
        write_in(harness, "b", "c0");
        assert_int_equal(TANDEM_OK, tandem_harness_connect(harness, "a", "b"));
        for (unsigned i = 0; i < MANY; i++) {
            char name[16];

            tandem_harness_run(harness, 1);
            snprintf(name, sizeof(name), "w%u", i);
            write_in(harness, name, "c0");
        }
        become_equal(harness);
        assert_int_equal(2, happened(harness, "RANGES_SETTLED"));
        assert_true(happened(harness, "RANGE_GREW") > 0);
        tandem_harness_free(harness);
    }
}

static void who_lists_all_is_understood(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        tandem_harness *harness = meet_of_many_origins(4, 10);

        tandem_harness_sync(harness, i ? "a" : "b")->ranges_least = 2;
        write_in(harness, "b", "c0");
        write_in(harness, "w7", "c0");
        meet_again(harness);
        assert_int_equal(1, happened(harness, "RANGES_GIVEN_UP"));
        assert_int_equal(0, happened(harness, "RANGES_SETTLED"));
        tandem_harness_free(harness);
    }
}

/* ---- What a peer may not say ---- */

/* A peer that says HELLO and level 0, and lines of its own once it has read an offer. */
struct script {
    struct picky *peer;
    const char *feature;
    void (*say)(struct script *script, tandem_writer *out, unsigned line); /* nothing: no more */
    unsigned said, lines;
    td_wire_ranges offer; /* what it was offered last; bits 0: nothing */
    tandem_err ended;     /* what it was told by ERROR */
};

static size_t begin_have(struct script *script, tandem_writer *out, td_have_level level)
{
    return td_wire_begin_have(out, script->peer->number + 1, 1, 0, level, NULL);
}

static void script_hello(struct script *script, tandem_writer *out)
{
    td_wire_hello hello = {.major = TD_WIRE_MAJOR,
                           .message_bytes = TD_MESSAGE_BYTES_MAX,
                           .window_bytes = 1 << 20,
                           .window_jobs = 64,
                           .clock = picky_clock(script->peer),
                           .agent = tandem_slice_text("script")};

    memset(hello.reactor, 'p', sizeof(hello.reactor));
    memset(hello.origin, 'q', sizeof(hello.origin));
    td_wire_write_hello(out, 1, &hello, &script->feature, script->feature ? 1 : 0);
}

static tandem_err script_writable(void *context, tandem_writer *out)
{
    struct script *script = context;
    struct picky *peer = script->peer;
    uint8_t digest[TANDEM_HASH_BYTES] = {1};
    size_t start = out->size;

    if (script->said && !peer->heard_hello)
        return TANDEM_END;
    if (script->said == 0)
        script_hello(script, out);
    else if (script->said == 1)
        td_wire_write_have_all(out, peer->number + 1, 1, 0, 5, digest);
    else if (script->offer.bits || !script->feature)
        script->say(script, out, script->lines++);
    if (out->size == start)
        return TANDEM_END;
    script->said++;
    peer->number++;
    return TANDEM_OK;
}

static void script_opened(void *context)
{
    picky_want_write(((struct script *)context)->peer);
}

static void script_message(void *context, tandem_slice bytes)
{
    struct script *script = context;
    td_wire_message read;

    assert_int_equal(TANDEM_OK, td_wire_read(bytes, &read));
    script->peer->heard_hello = script->peer->heard_hello || read.type == TD_WIRE_HELLO;
    if (read.type == TD_WIRE_HAVE && read.as.have.level == TD_HAVE_RANGES)
        assert_int_equal(TANDEM_OK,
                         td_wire_read_ranges(&read.as.have.entries, &script->offer));
    if (read.type == TD_WIRE_ERROR)
        script->ended = (tandem_err)read.as.error.err;
    picky_want_write(script->peer);
}

static void script_closed(void *context, tandem_err err, const char *text)
{
    (void)err;
    (void)text;
    ((struct script *)context)->peer->link = NULL;
}

static const td_connection_events script_events = {.opened = script_opened,
                                                   .message = script_message,
                                                   .writable = script_writable,
                                                   .closed = script_closed};

/* "a" holds five collections. How does it end a session in which the peer says that? */
static tandem_err end_of(const char *feature,
                         void (*say)(struct script *script, tandem_writer *out, unsigned line))
{
    tandem_harness *harness = bed_open(9, (const char *[]){"a"}, 1);
    struct script script = {.feature = feature, .say = say};

    tandem_harness_sync(harness, "a")->ranges_least = 2;
    write_in_many(harness, "a", 0, 5);
    script.peer = picky_open(harness, "p");
    picky_begin(script.peer);
    assert_int_equal(TANDEM_OK,
                     script.peer->carrier->ops->dial(script.peer->carrier, "mem://a",
                                                     &script_events, &script, &script.peer->link));
    tandem_harness_run(harness, 3000);
    assert_true(script.lines > 1); /* all was said */
    assert_sound(harness, "a");
    picky_hang_up(script.peer);
    tandem_harness_run(harness, 1000);
    picky_free(script.peer);
    tandem_harness_free(harness);
    return script.ended;
}

/* Nothing differs, or everything does. */
static void answer(struct script *script, tandem_writer *out, unsigned bits, uint8_t differ)
{
    uint8_t bytes[512];
    td_wire_ranges entry = {.bits = bits, .is_answer = true, .bytes = bytes};
    size_t at = begin_have(script, out, TD_HAVE_RANGES);

    memset(bytes, differ, sizeof(bytes));
    td_wire_write_ranges(out, &entry);
    td_wire_patch_count(out, at, 1);
}

static void offer_nothing(struct script *script, tandem_writer *out, const char *name)
{
    static const uint8_t digests[64] = {0};
    td_wire_ranges entry = {.bits = 3, .bytes = digests, .has_name = name};
    size_t at = begin_have(script, out, TD_HAVE_RANGES);

    if (name)
        entry.name = tandem_slice_text(name);
    td_wire_write_ranges(out, &entry);
    td_wire_patch_count(out, at, 1);
}

static void list_digest(struct script *script, tandem_writer *out)
{
    uint8_t digest[TANDEM_HASH_BYTES] = {1};
    size_t at = begin_have(script, out, TD_HAVE_DIGESTS);

    td_wire_write_digest(out, tandem_slice_text("c0"), digest, 100);
    td_wire_patch_count(out, at, 1);
}

static void list_nothing(struct script *script, tandem_writer *out)
{
    td_wire_patch_count(out, begin_have(script, out, TD_HAVE_DIGESTS), 0);
}

static void say_equal(struct script *script, tandem_writer *out, unsigned line)
{
    if (line == 0)
        answer(script, out, script->offer.bits, 0);
    else if (line == 1)
        list_nothing(script, out);
}

static void say_other_bits(struct script *script, tandem_writer *out, unsigned line)
{
    if (line == 0)
        answer(script, out, script->offer.bits + 1, 0);
}

static void say_answer_twice(struct script *script, tandem_writer *out, unsigned line)
{
    if (line < 2)
        answer(script, out, script->offer.bits, 0xff);
}

static void say_offer_after_answer(struct script *script, tandem_writer *out, unsigned line)
{
    if (line == 0)
        answer(script, out, script->offer.bits, 0xff);
    else if (line == 1)
        offer_nothing(script, out, NULL);
}

static void say_equal_and_list(struct script *script, tandem_writer *out, unsigned line)
{
    if (line == 0)
        answer(script, out, script->offer.bits, 0);
    else if (line == 1)
        list_digest(script, out);
}

static void say_answer_of_no_offer(struct script *script, tandem_writer *out, unsigned line)
{
    size_t at;

    if (line == 0) {
        answer(script, out, script->offer.bits, 0xff);
    } else if (line == 1) {
        td_wire_ranges entry = {.bits = 3,
                                .is_answer = true,
                                .bytes = (const uint8_t[]){0},
                                .has_name = true,
                                .name = tandem_slice_text("c0")};

        at = begin_have(script, out, TD_HAVE_RANGES);
        td_wire_write_ranges(out, &entry);
        td_wire_patch_count(out, at, 1);
    }
}

static void say_offer(struct script *script, tandem_writer *out, unsigned line)
{
    if (line == 0)
        offer_nothing(script, out, NULL);
}

/* Of what nobody here holds, or holds little of: all is listed. */
static void say_offers_of_names(struct script *script, tandem_writer *out, unsigned line)
{
    if (line == 0)
        answer(script, out, script->offer.bits, 0xff);
    else if (line == 1)
        offer_nothing(script, out, "nobody's");
    else if (line < 4)
        offer_nothing(script, out, "c0");
}

static void what_breaks_the_rules_ends_the_session(void **state)
{
    (void)state;
    assert_int_equal(TANDEM_OK, end_of(TD_RANGES_FEATURE, say_equal));
    assert_int_equal(TANDEM_OK, end_of(TD_RANGES_FEATURE, say_offers_of_names));
    assert_int_equal(TANDEM_OK, end_of(TD_RANGES_FEATURE, say_offer)); /* two that meet */
    assert_int_equal(TANDEM_E_PROTOCOL, end_of(NULL, say_offer));
    assert_int_equal(TANDEM_E_PROTOCOL, end_of(TD_RANGES_FEATURE, say_other_bits));
    assert_int_equal(TANDEM_E_PROTOCOL, end_of(TD_RANGES_FEATURE, say_answer_twice));
    assert_int_equal(TANDEM_E_PROTOCOL, end_of(TD_RANGES_FEATURE, say_offer_after_answer));
    assert_int_equal(TANDEM_E_PROTOCOL, end_of(TD_RANGES_FEATURE, say_equal_and_list));
    assert_int_equal(TANDEM_E_PROTOCOL, end_of(TD_RANGES_FEATURE, say_answer_of_no_offer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_are_as_many_as_it_is_worth),
        cmocka_unit_test(a_session_has_digests_of_its_own),
        cmocka_unit_test(the_vectors_hold),
        cmocka_unit_test(two_offers_that_meet_come_to_the_same),
        cmocka_unit_test(an_answer_says_the_same),
        cmocka_unit_test(what_is_given_up_is_not_settled),
        cmocka_unit_test(few_are_listed),
        cmocka_unit_test(of_many_collections_few_are_listed),
        cmocka_unit_test(what_is_written_meanwhile_comes),
        cmocka_unit_test(what_is_held_in_part_differs),
        cmocka_unit_test(of_many_origins_few_are_listed),
        cmocka_unit_test(lacks_in_equal_ranges_are_not_listed),
        cmocka_unit_test(what_comes_meanwhile_goes_on),
        cmocka_unit_test(who_lists_all_is_understood),
        cmocka_unit_test(what_breaks_the_rules_ends_the_session),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
