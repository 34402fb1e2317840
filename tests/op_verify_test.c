/*
 * What verifying an operations store (store/op_verify.c) says of each thing that can be wrong in it,
 * and that it says nothing else: a store that is whole is changed beneath the rules, in one way at a
 * time, under checksums that fit.
 */
#include "tests/operation_maker.h"

#include <stdio.h>

#include "store/op_tables.h"

/* The origins of makers 1 to 4, as they are written. */
#define A "origin 00000001000000000000000000000000"
#define B "origin 00000002000000000000000000000000"
#define C "origin 00000003000000000000000000000000"
#define D "origin 00000004000000000000000000000000"

#define LOST "the record does not match its checksum or its hash"
#define NAMELESS LOST "; its origin and seq cannot be told"
#define DAMAGED "stored data is damaged, or a part of it is gone"
#define NOT_HELD "its predecessor is not held"
#define OTHER_THERE "the groups table names this operation, and another or none is there"

enum { MADE_MAX = 20, SAID_MAX = 4, ID = 1, LOST_NAMED_MAX = 256 };

static void random_bytes(tandem_env *env, void *out, size_t size)
{
    memset(out, 7, size);
}

static uint64_t no_time(tandem_env *env)
{
    return 0;
}

static const struct tandem_env_ops env_ops = {no_time, no_time, random_bytes};
static tandem_env env = {.ops = &env_ops};

/*
 * Collection c: three jobs of A at ordinals 1 to 3, then one job of B of three operations. What a
 * case makes stands behind those.
 */
struct bed {
    td_op_store *ops;
    struct maker a, b, c, d;
    struct made made[MADE_MAX];
    unsigned made_count;
    td_txn *txn; /* of the case's changes */
    tandem_writer scratch;
    td_collection_record record; /* of the collection, as it should be */
};

static struct made *make_one(struct bed *bed, struct maker *maker, uint64_t flags,
                             const char *document)
{
    uint8_t payload = (uint8_t)bed->made_count; /* no two are equal */
    struct made *made = &bed->made[bed->made_count++];

    assert_true(bed->made_count <= MADE_MAX);
    make_flagged(maker, flags, 1, document, "main", "global", "log.APPEND",
                 tandem_slice_of(&payload, 1), made);
    return made;
}

/* One that follows the chain's root, whatever maker has made. */
static struct made *make_fork(struct bed *bed, struct maker *maker)
{
    maker->tip.seq = 0;
    td_chain_root(tandem_slice_text("c"), maker->tip.hash);
    return make_one(bed, maker, 0, "d");
}

static void append(struct bed *bed, unsigned first, unsigned count)
{
    td_operation job[3];
    td_append_result result;

    for (unsigned i = 0; i < count; i++)
        job[i] = bed->made[first + i].operation;
    assert_int_equal(TANDEM_OK, td_op_store_begin(bed->ops));
    assert_int_equal(TANDEM_OK, td_op_store_append(bed->ops, job, count, &result));
    assert_int_equal(TANDEM_OK, td_op_store_commit(bed->ops));
}

static void bed_make(struct bed *bed)
{
    td_store *store;

    memset(bed, 0, sizeof(*bed));
    tandem_writer_init(&bed->scratch);
    maker_init(&bed->a, "c", 1);
    maker_init(&bed->b, "c", 2);
    maker_init(&bed->c, "c", 3);
    maker_init(&bed->d, "c", 4);
    assert_int_equal(TANDEM_OK, td_memory_store_open(&env, NULL, td_op_store_tables,
                                                     td_op_store_table_count, &store));
    assert_int_equal(TANDEM_OK, td_op_store_open(&env, store, &bed->ops));
    for (unsigned i = 0; i < 3; i++) {
        make_one(bed, &bed->a, 0, "d");
        append(bed, i, 1);
    }
    for (unsigned i = 0; i < 3; i++)
        make_one(bed, &bed->b, i < 2 ? TD_FLAG_CONTINUES : 0, "d");
    append(bed, 3, 3);
    assert_int_equal(TANDEM_OK, td_store_begin_write(td_op_store_backend(bed->ops), &bed->txn));
    assert_int_equal(TANDEM_OK,
                     td_collection_get(bed->txn, tandem_slice_text("c"), &bed->record));
    assert_int_equal(6, bed->record.last_ordinal);
}

static void bed_unmake(struct bed *bed)
{
    td_op_store_free(bed->ops);
    made_release(bed->made, bed->made_count);
    tandem_writer_release(&bed->scratch);
}

/* ---- Changes ---- */

static void put(struct bed *bed, unsigned table, const void *key, size_t key_size,
                tandem_slice value)
{
    assert_int_equal(TANDEM_OK,
                     td_txn_put(bed->txn, table, tandem_slice_of(key, key_size), value));
}

static void put_run(struct bed *bed, const uint8_t *origin, uint64_t first, uint64_t last,
                    uint64_t ordinal)
{
    td_run run = {.first = first, .last = last, .ordinal = ordinal};

    assert_int_equal(TANDEM_OK, td_run_put(bed->txn, ID, origin, &run, &bed->scratch));
}

/* With the heads given, up to NULL. */
static void put_vector(struct bed *bed, const struct made *const *heads)
{
    td_vector_record vector = {.count = 0};
    const uint8_t *origin = heads[0]->operation.origin;

    for (; heads[vector.count]; vector.count++) {
        vector.heads[vector.count].seq = heads[vector.count]->operation.seq;
        memcpy(vector.heads[vector.count].hash, heads[vector.count]->operation.hash,
               TANDEM_HASH_BYTES);
    }
    assert_int_equal(TANDEM_OK, td_vector_put(bed->txn, ID, origin, &vector, &bed->scratch));
}

/* The same, of an origin that has gaps. */
static void put_gapped(struct bed *bed, const uint8_t *origin, const struct made *const *heads)
{
    td_vector_record vector = {.count = 0};

    if (heads[0]) {
        put_vector(bed, heads);
        assert_int_equal(TANDEM_OK, td_vector_get(bed->txn, ID, origin, &vector));
    }
    vector.gaps = true;
    assert_int_equal(TANDEM_OK, td_vector_put(bed->txn, ID, origin, &vector, &bed->scratch));
}

#define PUT_GAPPED(bed, maker, ...)                                                                \
    put_gapped(bed, (maker)->origin, (const struct made *const[]){__VA_ARGS__, NULL})

/* This one is lacking. */
static void put_lack(struct bed *bed, const struct made *made, bool followed)
{
    const td_operation *operation = &made->operation;
    td_lack lack = {.first = operation->seq, .last = operation->seq, .followed = followed};

    memcpy(lack.predecessor, operation->predecessor, sizeof(lack.predecessor));
    memcpy(lack.hash, operation->hash, sizeof(lack.hash));
    assert_int_equal(TANDEM_OK,
                     td_lack_put(bed->txn, ID, operation->origin, &lack, &bed->scratch));
}

#define PUT_VECTOR(bed, ...) put_vector(bed, (const struct made *const[]){__VA_ARGS__, NULL})

static void put_record(struct bed *bed)
{
    td_position position;

    assert_int_equal(TANDEM_OK, td_collection_put(bed->txn, tandem_slice_text("c"), &bed->record,
                                                  &bed->scratch));
    assert_int_equal(TANDEM_OK, td_position_get(bed->txn, &position));
    position.ordinal = bed->record.last_ordinal;
    assert_int_equal(TANDEM_OK, td_position_put(bed->txn, &position, &bed->scratch));
}

/* Hold one at the next ordinal, counted and in a run of its own. Returns the ordinal. */
static uint64_t hold(struct bed *bed, const struct made *made)
{
    const td_operation *operation = &made->operation;
    uint64_t ordinal = ++bed->record.last_ordinal;

    bed->record.operations++;
    bed->record.bytes += tandem_writer_slice(&made->bytes).size;
    assert_int_equal(TANDEM_OK,
                     td_operation_put(bed->txn, ID, ordinal, operation));
    put_run(bed, operation->origin, operation->seq, operation->seq, ordinal);
    put_record(bed);
    return ordinal;
}

/* Make the record at ordinal unreadable: one byte of it, or with cut all but so many. */
static void damage(struct bed *bed, uint64_t ordinal, size_t cut)
{
    uint8_t key[TD_OPERATION_KEY_BYTES], bytes[1024];
    tandem_slice value;
    size_t size;

    td_operation_key(key, ID, ordinal);
    assert_int_equal(TANDEM_OK, td_txn_get(bed->txn, TD_TABLE_OPERATIONS,
                                           tandem_slice_of(key, sizeof(key)), &value));
    assert_true(value.size <= sizeof(bytes));
    memcpy(bytes, value.bytes, size = value.size);
    bytes[0] ^= 1;
    if (cut) {
        bed->record.bytes -= size - TD_OPERATION_RECORD_BYTES;
        put_record(bed);
    }
    put(bed, TD_TABLE_OPERATIONS, key, sizeof(key), tandem_slice_of(bytes, cut ? cut : size));
}

/* ---- What can be wrong ---- */

static void nothing(struct bed *bed)
{
}

static void a_job_goes_on_elsewhere(struct bed *bed)
{
    struct made *begin = make_one(bed, &bed->c, TD_FLAG_CONTINUES, "d");
    struct made *end = make_one(bed, &bed->c, 0, "e");

    hold(bed, begin);
    hold(bed, end);
    PUT_VECTOR(bed, end);
}

static void a_fork_inside_a_job_goes_on_elsewhere(struct bed *bed)
{
    struct made *fork;

    bed->b.tip.seq = 1;
    memcpy(bed->b.tip.hash, bed->made[3].operation.hash, TANDEM_HASH_BYTES);
    fork = make_one(bed, &bed->b, 0, "e");
    hold(bed, fork);
    PUT_VECTOR(bed, fork, &bed->made[5]);
}

static void a_chain_begins_nowhere(struct bed *bed)
{
    struct made *made;

    bed->c.tip.hash[0] ^= 1;
    made = make_one(bed, &bed->c, 0, "d");
    hold(bed, made);
    PUT_VECTOR(bed, made);
}

static void a_predecessor_stands_behind(struct bed *bed)
{
    struct made *first = make_one(bed, &bed->c, 0, "d"), *second = make_one(bed, &bed->c, 0, "d");

    hold(bed, second);
    hold(bed, first);
    PUT_VECTOR(bed, second);
}

static void there_is_a_ninth_head(struct bed *bed)
{
    struct made *heads[TANDEM_HEADS_MAX + 1] = {NULL};

    for (unsigned i = 0; i < TANDEM_HEADS_MAX; i++)
        hold(bed, heads[i] = make_fork(bed, &bed->c));
    put_vector(bed, (const struct made *const *)heads);
    hold(bed, make_fork(bed, &bed->c));
}

/* The vector names eight, of which the last is that record; eight others are derived. */
static void the_ninth_head_cannot_be_read(struct bed *bed)
{
    struct made *heads[TANDEM_HEADS_MAX + 1] = {NULL}, *ninth;

    for (unsigned i = 0; i < TANDEM_HEADS_MAX; i++)
        hold(bed, heads[i] = make_fork(bed, &bed->c));
    ninth = make_fork(bed, &bed->c);
    damage(bed, hold(bed, ninth), 0);
    heads[TANDEM_HEADS_MAX - 1] = ninth;
    put_vector(bed, (const struct made *const *)heads);
}

static void an_operation_is_of_another_collection(struct bed *bed)
{
    struct made *made;

    maker_init(&bed->c, "x", 3);
    made = make_one(bed, &bed->c, 0, "d");
    hold(bed, made);
    PUT_VECTOR(bed, made);
}

static void keys_are_too_long(struct bed *bed)
{
    uint8_t operation[TD_OPERATION_KEY_BYTES + 1] = {0}, vector[TD_VECTOR_KEY_BYTES + 1] = {0};

    td_operation_key(operation, ID, 2);
    td_vector_key(vector, ID, bed->a.origin);
    put(bed, TD_TABLE_OPERATIONS, operation, sizeof(operation), tandem_slice_text("value"));
    put(bed, TD_TABLE_VECTORS, vector, sizeof(vector), tandem_slice_text("value"));
}

static void a_run_is_damaged(struct bed *bed)
{
    uint8_t key[TD_RUN_KEY_BYTES];

    td_run_key(key, ID, bed->a.origin, 2, 2);
    put(bed, TD_TABLE_GROUPS, key, sizeof(key), tandem_slice_text("value"));
}

static void runs_name_what_is_not_there(struct bed *bed)
{
    put_run(bed, bed->a.origin, 4, 4, 3);  /* there is seq 3 */
    put_run(bed, bed->b.origin, 1, 1, 1);  /* there is one of A */
    put_run(bed, bed->c.origin, 1, 1, 99); /* there is none */
}

static void a_vector_has_a_head_too_many(struct bed *bed)
{
    PUT_VECTOR(bed, &bed->made[1], &bed->made[2]);
}

/* Two that cannot be read lie behind each other: whose is whose, the groups table tells. */
static void more_is_lost_than_is_missing(struct bed *bed)
{
    struct made *made[6];

    for (unsigned i = 0; i < 6; i++)
        hold(bed, made[i] = make_one(bed, i % 2 ? &bed->d : &bed->c, 0, "d"));
    damage(bed, 9, 10);
    damage(bed, 10, 10);
    PUT_VECTOR(bed, made[4]);
    PUT_VECTOR(bed, made[5]);
}

/* As before, and of the one in front of what follows the hash can be read. */
static void the_hash_of_one_that_is_lost_is_known(struct bed *bed)
{
    struct made *made[5];

    for (unsigned i = 0; i < 3; i++)
        hold(bed, made[i] = make_one(bed, i % 2 ? &bed->d : &bed->c, 0, "d"));
    hold(bed, made[3] = make_one(bed, &bed->c, 0, "d"));
    hold(bed, made[4] = make_one(bed, &bed->c, 0, "d"));
    damage(bed, 8, 10);
    damage(bed, 9, 10);
    damage(bed, 10, 0);
    PUT_VECTOR(bed, made[4]);
    PUT_VECTOR(bed, made[1]);
}

static void far_too_much_is_lost(struct bed *bed)
{
    uint8_t key[TD_OPERATION_KEY_BYTES];

    for (unsigned i = 0; i <= LOST_NAMED_MAX; i++) {
        td_operation_key(key, ID, ++bed->record.last_ordinal);
        put(bed, TD_TABLE_OPERATIONS, key, sizeof(key), tandem_slice_text("value"));
        bed->record.operations++;
    }
    put_record(bed);
}

static void a_collections_name_is_too_long(struct bed *bed)
{
    char name[TANDEM_NAME_BYTES_MAX + 1];

    memset(name, 'n', sizeof(name));
    put(bed, TD_TABLE_COLLECTIONS, name, sizeof(name), tandem_slice_text("value"));
}

static void two_collections_share_an_id(struct bed *bed)
{
    td_collection_record record = {.id = ID};

    assert_int_equal(TANDEM_OK, td_collection_put(bed->txn, tandem_slice_text("b"), &record,
                                                  &bed->scratch));
}

static void there_are_entries_of_no_collection(struct bed *bed)
{
    static const uint8_t none[TD_VECTOR_KEY_BYTES] = {0, 0, 0, 9};
    static const uint8_t last[TD_OPERATION_KEY_BYTES] = {0xff, 0xff, 0xff, 0xff};

    put(bed, TD_TABLE_OPERATIONS, last, sizeof(last), tandem_slice_text("value"));
    put(bed, TD_TABLE_VECTORS, none, sizeof(none), tandem_slice_text("value"));
    put(bed, TD_TABLE_GROUPS, none, 2, tandem_slice_text("value")); /* too short for an id */
}

/* ---- In an origin with gaps ---- */

/* Count operations of C; with a bit of held those are held, in any order, else they are lacking. */
static struct made *chain_with_gaps(struct bed *bed, unsigned count, unsigned held)
{
    struct made *made = &bed->made[bed->made_count];

    for (unsigned i = 0; i < count; i++)
        make_one(bed, &bed->c, 0, "d");
    for (unsigned i = count; i-- > 0;)
        if (held & (1u << i))
            hold(bed, &made[i]);
        else
            put_lack(bed, &made[i], held >> i != 0);
    return made;
}

static void gaps_are_as_they_should_be(struct bed *bed)
{
    struct made *made = chain_with_gaps(bed, 7, 0x2d); /* the 2nd, the 5th and the last lack */

    PUT_GAPPED(bed, &bed->c, &made[5]);
}

static void a_lack_follows_nothing(struct bed *bed)
{
    struct made *made = chain_with_gaps(bed, 1, 1);

    make_one(bed, &bed->c, 0, "d"); /* nobody knows of it */
    put_lack(bed, make_one(bed, &bed->c, 0, "d"), true);
    hold(bed, make_one(bed, &bed->c, 0, "d"));
    PUT_GAPPED(bed, &bed->c, &made[0]); /* what nothing vouches for is no head */
}

static void what_follows_a_lack_is_denied(struct bed *bed)
{
    struct made *made = chain_with_gaps(bed, 3, 5);

    put_lack(bed, &made[1], false);
    PUT_GAPPED(bed, &bed->c, &made[2]);
}

static void what_is_lacking_is_held(struct bed *bed)
{
    struct made *made = chain_with_gaps(bed, 2, 3);

    put_lack(bed, &made[1], false);
    PUT_GAPPED(bed, &bed->c, &made[1]);
}

/* The first and the third of a chain are held, and it is said of each whether it is loose; and, if told, by
 * the vector that some may be. */
static void hold_in_part(struct bed *bed, bool told, bool first, bool third)
{
    struct made *made = chain_with_gaps(bed, 1, 1);
    td_run runs[] = {{1, 1, bed->record.last_ordinal, first},
                     {3, 3, bed->record.last_ordinal + 1, third}};
    td_vector_record vector;

    make_one(bed, &bed->c, 0, "d");
    hold(bed, make_one(bed, &bed->c, 0, "d"));
    PUT_GAPPED(bed, &bed->c, &made[0]);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(TANDEM_OK,
                         td_run_put(bed->txn, ID, bed->c.origin, &runs[i], &bed->scratch));
    assert_int_equal(TANDEM_OK, td_vector_get(bed->txn, ID, bed->c.origin, &vector));
    vector.loose = told;
    assert_int_equal(TANDEM_OK,
                     td_vector_put(bed->txn, ID, bed->c.origin, &vector, &bed->scratch));
}

static void something_is_loose(struct bed *bed)
{
    hold_in_part(bed, true, false, true);
}

static void a_loose_run_does_not_say_so(struct bed *bed)
{
    hold_in_part(bed, true, false, false);
}

static void a_run_says_wrongly_that_it_is_loose(struct bed *bed)
{
    hold_in_part(bed, true, true, true);
}

static void a_vector_denies_what_is_loose(struct bed *bed)
{
    hold_in_part(bed, false, false, true);
}

static void a_lack_is_gone(struct bed *bed)
{
    struct made *last;

    chain_with_gaps(bed, 1, 1);
    make_one(bed, &bed->c, 0, "d");
    last = make_one(bed, &bed->c, 0, "d");
    hold(bed, last);
    PUT_GAPPED(bed, &bed->c, last);
}

static void a_job_lacks_its_rest(struct bed *bed)
{
    struct made *made = make_one(bed, &bed->c, TD_FLAG_CONTINUES, "d");

    hold(bed, made);
    PUT_GAPPED(bed, &bed->c, made);
}

static void a_job_goes_on_elsewhere_behind_a_gap(struct bed *bed)
{
    struct made *begin, *end;

    chain_with_gaps(bed, 1, 0);
    put_lack(bed, &bed->made[bed->made_count - 1], true);
    begin = make_one(bed, &bed->c, TD_FLAG_CONTINUES, "d");
    end = make_one(bed, &bed->c, 0, "e");
    hold(bed, end);
    hold(bed, begin);
    PUT_GAPPED(bed, &bed->c, end);
}

static int made_compare(const void *a, const void *b)
{
    const struct made *const *x = a, *const *y = b;

    return memcmp((*x)->operation.hash, (*y)->operation.hash, TANDEM_HASH_BYTES);
}

static void a_gapped_origin_has_a_ninth_head(struct bed *bed)
{
    struct made *heads[TANDEM_HEADS_MAX + 1] = {NULL};

    for (unsigned i = 0; i <= TANDEM_HEADS_MAX; i++)
        hold(bed, heads[i] = make_fork(bed, &bed->c));
    qsort(heads, TANDEM_HEADS_MAX + 1, sizeof(heads[0]), made_compare);
    heads[TANDEM_HEADS_MAX] = NULL;
    put_gapped(bed, bed->c.origin, (const struct made *const *)heads);
}

static void a_vector_denies_its_gaps(struct bed *bed)
{
    struct made *made = chain_with_gaps(bed, 2, 1);

    PUT_VECTOR(bed, &made[0]);
}

static void more_is_lacking_than_may_be(struct bed *bed)
{
    struct made *made = chain_with_gaps(bed, 1, 1);
    td_lack lack = {.first = 2, .last = 2};

    memcpy(lack.predecessor, made->operation.hash, sizeof(lack.predecessor));
    for (uint32_t i = 0; i <= TD_LACKS_MAX; i++) {
        td_put_u32(lack.hash, i);
        assert_int_equal(TANDEM_OK,
                         td_lack_put(bed->txn, ID, bed->c.origin, &lack, &bed->scratch));
    }
    PUT_GAPPED(bed, &bed->c, made);
}

static void a_lack_is_damaged(struct bed *bed)
{
    struct made *made = chain_with_gaps(bed, 1, 1);
    uint8_t key[TD_LACK_KEY_BYTES];
    td_lack lack = {.last = 2};

    td_lack_key(key, ID, bed->c.origin, &lack);
    put(bed, TD_TABLE_LACKS, key, sizeof(key), tandem_slice_text("value"));
    PUT_GAPPED(bed, &bed->c, made);
}

static void a_gapped_origin_has_lost_one(struct bed *bed)
{
    struct made *made = chain_with_gaps(bed, 5, 0x17);

    damage(bed, bed->record.last_ordinal - 1, 0); /* the second: the first came last */
    PUT_GAPPED(bed, &bed->c, &made[4]);
}

static void the_format_is_newer(struct bed *bed)
{
    assert_int_equal(TANDEM_OK, td_format_put(bed->txn, TD_FORMAT_VERSION + 1, &bed->scratch));
}

static void what_the_store_knows_of_itself_is_damaged(struct bed *bed)
{
    put(bed, TD_TABLE_META, td_meta_format, strlen(td_meta_format), tandem_slice_text("value"));
    put(bed, TD_TABLE_META, td_meta_identity, strlen(td_meta_identity),
        tandem_slice_text("value"));
    put(bed, TD_TABLE_META, td_meta_position, strlen(td_meta_position),
        tandem_slice_text("value"));
}

/* ---- What is said ---- */

struct wrong {
    void (*make)(struct bed *bed);
    unsigned count; /* of sentences; the first of them, or all: */
    const char *said[SAID_MAX];
};

struct heard {
    const struct wrong *wrong;
    unsigned count, expected;
    char last[1000];
};

static void hear(void *context, const char *text)
{
    struct heard *heard = context;

    heard->count++;
    snprintf(heard->last, sizeof(heard->last), "%s", text);
    for (unsigned i = 0; i < SAID_MAX; i++)
        if (heard->wrong->said[i] && strcmp(heard->wrong->said[i], text) == 0)
            heard->expected++;
}

static void each_thing_that_is_wrong_is_said_and_nothing_else(void **state)
{
    static const struct wrong wrongs[] = {
        {nothing, 0, {NULL}},
        {a_job_goes_on_elsewhere, 1,
         {"collection c: ordinal 8, " C ", seq 2: the job that it belongs to is on another "
          "document or branch"}},
        {a_fork_inside_a_job_goes_on_elsewhere, 1,
         {"collection c: ordinal 7, " B ", seq 2: the job that it belongs to is on another "
          "document or branch"}},
        {a_chain_begins_nowhere, 1,
         {"collection c: ordinal 7, " C ", seq 1: it does not begin at the root of the chain"}},
        {a_predecessor_stands_behind, 2,
         {"collection c: ordinal 7, " C ", seq 2: " NOT_HELD,
          "collection c: " C ": the vector has 1 heads, the operations have 2"}},
        {there_is_a_ninth_head, 1,
         {"collection c: ordinal 15, " C ", seq 1: its origin has more heads than may be kept"}},
        {the_ninth_head_cannot_be_read, 1, {"collection c: ordinal 15, " C ", seq 1: " LOST}},
        {an_operation_is_of_another_collection, 2,
         {"collection c: ordinal 7, " C ", seq 1: it belongs to another collection",
          "collection c: ordinal 7, " C ", seq 1: it does not begin at the root of the chain"}},
        {keys_are_too_long, 2,
         {"collection c: the operations table has a key of a wrong size",
          "collection c: the vectors table has a key of a wrong size"}},
        {a_run_is_damaged, 1,
         {"collection c: an entry of the groups table does not match its checksum"}},
        {runs_name_what_is_not_there, 7,
         {"collection c: ordinal 3, " A ", seq 4: " OTHER_THERE,
          "collection c: ordinal 1, " B ", seq 1: " OTHER_THERE,
          "collection c: ordinal 99, " C ", seq 1: " OTHER_THERE,
          "collection c: " C ": the groups table has 1 operations, 0 are held"}},
        {a_vector_has_a_head_too_many, 2,
         {"collection c: " A ", seq 2: the vector names this head; the operations end elsewhere",
          "collection c: " A ": the vector has 2 heads, the operations have 1"}},
        {more_is_lost_than_is_missing, 4,
         {"collection c: ordinal 11, " C ", seq 3: " NOT_HELD,
          "collection c: ordinal 12, " D ", seq 3: " NOT_HELD,
          "collection c: ordinal 9, " C ", seq 2: " LOST,
          "collection c: ordinal 10, " D ", seq 2: " LOST}},
        {the_hash_of_one_that_is_lost_is_known, 3,
         {"collection c: ordinal 8, " D ", seq 1: " LOST,
          "collection c: ordinal 9, " C ", seq 2: " LOST,
          "collection c: ordinal 10, " C ", seq 3: " LOST}},
        {far_too_much_is_lost, LOST_NAMED_MAX + 1,
         {"collection c: ordinal 7: " NAMELESS, "collection c: ordinal 262: " NAMELESS,
          "collection c: ordinal 263: " NAMELESS}},
        {a_collections_name_is_too_long, 1,
         {"the collections table has a key that is no name"}},
        {two_collections_share_an_id, 12,
         {"two collections have the id 1",
          "collection b: ordinal 1, " A ", seq 1: it belongs to another collection",
          "collection b: ordinal 1, " A ", seq 1: it does not begin at the root of the chain",
          "collection b: 0 operations are counted, 6 are held"}},
        {there_are_entries_of_no_collection, 3,
         {"table operations: entries of an unknown collection, id 4294967295",
          "table vectors: entries of an unknown collection, id 9",
          "table groups: entries of an unknown collection, id 0"}},
        {gaps_are_as_they_should_be, 0, {NULL}},
        {a_lack_follows_nothing, 1,
         {"collection c: ordinal 0, " C ", seq 3: it is lacking, and its predecessor is neither held "
          "nor lacking"}},
        {what_follows_a_lack_is_denied, 1,
         {"collection c: ordinal 0, " C ", seq 2: it is lacking, and what is said of what follows it "
          "is wrong"}},
        {what_is_lacking_is_held, 1,
         {"collection c: ordinal 0, " C ", seq 2: it is said to be lacking, and is held"}},
        {something_is_loose, 0, {NULL}},
        {a_loose_run_does_not_say_so, 1,
         {"collection c: ordinal 8, " C ", seq 3: what is said of whether it is loose is wrong"}},
        {a_run_says_wrongly_that_it_is_loose, 1,
         {"collection c: ordinal 7, " C ", seq 1: what is said of whether it is loose is wrong"}},
        {a_vector_denies_what_is_loose, 2,
         {"collection c: ordinal 8, " C ", seq 3: its predecessor is neither held nor lacking",
          "collection c: ordinal 8, " C ", seq 3: it is loose, and its vector says that nothing is"}},
        {a_lack_is_gone, 2,
         {"collection c: ordinal 8, " C ", seq 3: its predecessor is neither held nor lacking",
          "collection c: " C ", seq 3: the vector names this head; the operations end elsewhere"}},
        {a_job_lacks_its_rest, 1,
         {"collection c: ordinal 7, " C ", seq 1: the rest of its job is missing"}},
        {a_job_goes_on_elsewhere_behind_a_gap, 1,
         {"collection c: ordinal 7, " C ", seq 3: the job that it belongs to is on another document "
          "or branch"}},
        {a_gapped_origin_has_a_ninth_head, 1,
         {"collection c: ordinal 0, " C ", seq 1: its origin has more heads than may be kept"}},
        {a_vector_denies_its_gaps, 1,
         {"collection c: ordinal 0, " C ", seq 2: it is lacking, and its vector says that nothing is"}},
        {more_is_lacking_than_may_be, 1,
         {"collection c: ordinal 0, " C ", seq 2: more is lacking than may be"}},
        {a_lack_is_damaged, 1,
         {"collection c: an entry of the lacks table does not match its checksum"}},
        {a_gapped_origin_has_lost_one, 3,
         {"collection c: ordinal 9, " C ", seq 2: " LOST,
          "collection c: ordinal 8, " C ", seq 3: its predecessor is neither held nor lacking",
          "collection c: " C ", seq 5: the vector names this head; the operations end elsewhere"}},
        {the_format_is_newer, 1,
         {"the record of the format version: the data folder was written by a newer version"}},
        {what_the_store_knows_of_itself_is_damaged, 3,
         {"the record of the format version: " DAMAGED,
          "the record of the identity: " DAMAGED,
          "the record of the position: " DAMAGED}},
    };

    for (unsigned i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        struct heard heard = {.wrong = &wrongs[i]};
        unsigned expected = 0;
        struct bed bed;
        tandem_err err;

        bed_make(&bed);
        wrongs[i].make(&bed);
        assert_int_equal(TANDEM_OK, td_txn_commit(bed.txn));
        err = td_op_store_verify(bed.ops, hear, &heard);
        while (expected < SAID_MAX && wrongs[i].said[expected])
            expected++;
        if (heard.count != wrongs[i].count || heard.expected != expected)
            fail_msg("case %u: %u sentences of %u, %u of the %u expected; the last: %s", i,
                     heard.count, wrongs[i].count, heard.expected, expected, heard.last);
        assert_int_equal(wrongs[i].count ? TANDEM_E_CORRUPT : TANDEM_OK, err);
        bed_unmake(&bed);
    }
}

/* Without a single collection, nothing belongs anywhere. */
static void a_store_without_collections_has_no_entries(void **state)
{
    static const struct wrong wrong = {
        .count = 1, .said = {"table groups: entries of an unknown collection, id 3"}};
    static const uint8_t key[TD_RUN_KEY_BYTES] = {0, 0, 0, 3};
    struct heard heard = {.wrong = &wrong};
    td_op_store *ops;
    td_store *store;
    td_txn *txn;

    assert_int_equal(TANDEM_OK, td_memory_store_open(&env, NULL, td_op_store_tables,
                                                     td_op_store_table_count, &store));
    assert_int_equal(TANDEM_OK, td_op_store_open(&env, store, &ops));
    assert_int_equal(TANDEM_OK, td_op_store_verify(ops, hear, &heard));
    assert_int_equal(TANDEM_OK, td_store_begin_write(store, &txn));
    assert_int_equal(TANDEM_OK, td_txn_put(txn, TD_TABLE_GROUPS, tandem_slice_of(key, sizeof(key)),
                                           tandem_slice_text("value")));
    assert_int_equal(TANDEM_OK, td_txn_commit(txn));
    assert_int_equal(TANDEM_E_CORRUPT, td_op_store_verify(ops, hear, &heard));
    assert_int_equal(1, heard.count);
    assert_int_equal(1, heard.expected);
    td_op_store_free(ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_thing_that_is_wrong_is_said_and_nothing_else),
        cmocka_unit_test(a_store_without_collections_has_no_entries),
    };

    return cmocka_run_group_tests_name("op verify", tests, NULL, NULL);
}
