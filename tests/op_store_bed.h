/*
 * What tests of the operations store stand on: a store on either backend, operations and jobs made by
 * the dozen, what visitors see, and damage done below the store's back. The program sets on_lmdb.
 */
#ifndef TANDEM_TESTS_OP_STORE_BED_H
#define TANDEM_TESTS_OP_STORE_BED_H

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/op_tables.h"
#include "tests/draw.h"
#include "tests/folder.h"

#define B(literal) tandem_slice_of(literal, sizeof(literal) - 1)
#define OK(call) assert_int_equal(TANDEM_OK, call)
#define NOTES B("notes")

/* ---- The environment: every draw is the same in every run ---- */

struct test_env {
    tandem_env base;
    uint64_t state;
};

static inline uint64_t no_clock(tandem_env *env)
{
    return 0;
}

static inline void test_random(tandem_env *env, void *out, size_t size)
{
    struct test_env *self = (struct test_env *)env;

    for (size_t i = 0; i < size; i++)
        ((uint8_t *)out)[i] = (uint8_t)draw(&self->state);
}

static const struct tandem_env_ops test_env_ops = {no_clock, no_clock, test_random};

/* ---- A store and what it stands on ---- */

struct bed {
    struct test_env env;
    char folder[FOLDER_BYTES];
    td_memory_disk *disk;
    td_op_store *ops;
    uint8_t **made; /* canonical bytes of the operations that the test made */
    size_t made_count;
};

static bool on_lmdb;

static inline tandem_err open_store(struct bed *bed, td_store **out)
{
    if (on_lmdb)
        return td_lmdb_store_open(&bed->env.base, bed->folder, td_op_store_tables,
                                  td_op_store_table_count, out);
    return td_memory_store_open(&bed->env.base, bed->disk, td_op_store_tables,
                                td_op_store_table_count, out);
}

static inline tandem_err open_ops(struct bed *bed)
{
    td_store *store;

    OK(open_store(bed, &store));
    bed->ops = NULL;
    return td_op_store_open(&bed->env.base, store, &bed->ops);
}

static inline void reopen(struct bed *bed)
{
    td_op_store_free(bed->ops);
    OK(open_ops(bed));
}

static inline int bed_make(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_non_null(bed);
    bed->env.base.ops = &test_env_ops;
    folder_make(bed->folder, "op-store", false);
    OK(td_memory_disk_open(&bed->disk));
    OK(open_ops(bed));
    *state = bed;
    return 0;
}

static inline int bed_unmake(void **state)
{
    struct bed *bed = *state;

    td_op_store_free(bed->ops);
    td_memory_disk_free(bed->disk);
    folder_remove(bed->folder);
    for (size_t i = 0; i < bed->made_count; i++)
        free(bed->made[i]);
    free(bed->made);
    free(bed);
    return 0;
}

/* ---- Making operations ---- */

static inline const uint8_t *origin_of(unsigned n)
{
    static uint8_t origins[16][TANDEM_ORIGIN_BYTES];

    assert(n < 16);
    memset(origins[n], (int)(n + 1) * 16, TANDEM_ORIGIN_BYTES);
    return origins[n];
}

/* Encode, parse and hash what op says; the bytes live as long as the bed. */
static inline td_operation made(struct bed *bed, td_operation op)
{
    tandem_writer writer;
    td_operation out;

    op.version = TD_OPERATION_VERSION;
    if (!op.document.size)
        op.document = B("doc");
    if (!op.branch.size)
        op.branch = B("main");
    op.scope = B("global");
    op.type = B("kv.SET");
    tandem_writer_init(&writer);
    OK(td_operation_encode(&op, &writer));
    bed->made = realloc(bed->made, (bed->made_count + 1) * sizeof(bed->made[0]));
    assert_non_null(bed->made);
    bed->made[bed->made_count++] = writer.bytes;
    OK(td_operation_parse(tandem_writer_slice(&writer), &out));
    td_operation_hash(&out);
    return out;
}

static inline td_operation first_of(struct bed *bed, const char *collection, const uint8_t *origin,
                             uint64_t flags, const char *payload)
{
    uint8_t root[TANDEM_HASH_BYTES];

    td_chain_root(tandem_slice_text(collection), root);
    return made(bed, (td_operation){.flags = flags, .seq = 1, .origin = origin,
                                    .predecessor = root,
                                    .collection = tandem_slice_text(collection),
                                    .payload = tandem_slice_text(payload)});
}

static inline td_operation after(struct bed *bed, const td_operation *before, uint64_t flags,
                          const char *payload)
{
    return made(bed, (td_operation){.flags = flags, .seq = before->seq + 1,
                                    .origin = before->origin, .predecessor = before->hash,
                                    .collection = before->collection,
                                    .document = before->document, .branch = before->branch,
                                    .payload = tandem_slice_text(payload)});
}

/* A job of count operations behind before. */
static inline void job_after(struct bed *bed, const td_operation *before, size_t count, td_operation *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = after(bed, i ? &out[i - 1] : before, i + 1 < count ? TD_FLAG_CONTINUES : 0, "j");
}

static inline td_append_result append(struct bed *bed, const td_operation *job, size_t count)
{
    td_append_result result;

    OK(td_op_store_append(bed->ops, job, count, &result));
    return result;
}

static inline tandem_err append_err(struct bed *bed, const td_operation *job, size_t count)
{
    td_append_result result;

    return td_op_store_append(bed->ops, job, count, &result);
}

/* One job in a group of its own. */
static inline td_append_result commit(struct bed *bed, const td_operation *job, size_t count)
{
    td_append_result result;

    OK(td_op_store_begin(bed->ops));
    result = append(bed, job, count);
    OK(td_op_store_commit(bed->ops));
    return result;
}

static inline uint64_t last_ordinal(struct bed *bed)
{
    uint64_t ordinal;

    OK(td_op_store_last_ordinal(bed->ops, &ordinal));
    return ordinal;
}

static inline unsigned heads(struct bed *bed, const uint8_t *origin, td_head *out)
{
    unsigned count;

    OK(td_op_store_heads(bed->ops, NOTES, origin, out, &count));
    return count;
}

static inline void assert_head(const td_operation *op, const td_head *head)
{
    assert_true(op->seq == head->seq);
    assert_memory_equal(op->hash, head->hash, TANDEM_HASH_BYTES);
}

static inline bool holds(struct bed *bed, const td_operation *op)
{
    bool held;

    OK(td_op_store_holds(bed->ops, op->collection, op->origin, op->seq, op->hash, &held));
    return held;
}

static inline uint64_t located(struct bed *bed, const uint8_t *origin, uint64_t seq)
{
    uint64_t ordinal = 0;
    tandem_err err = td_op_store_locate(bed->ops, NOTES, origin, seq, &ordinal);

    assert_true(err == TANDEM_OK || err == TANDEM_E_NOT_FOUND);
    return ordinal;
}

/* ---- Collecting what visitors see ---- */

struct seen {
    struct one {
        tandem_err err;
        uint64_t ordinal;
        uint64_t seq;
        uint8_t hash[TANDEM_HASH_BYTES];
    } *all;
    size_t count;
    size_t stop_at; /* 0: never */
    tandem_err stop_with;
};

static inline tandem_err see(void *context, tandem_err err, uint64_t ordinal, const td_operation *op)
{
    struct seen *seen = context;
    struct one *one;

    seen->all = realloc(seen->all, (seen->count + 1) * sizeof(*seen->all));
    assert_non_null(seen->all);
    one = &seen->all[seen->count++];
    memset(one, 0, sizeof(*one));
    one->err = err;
    one->ordinal = ordinal;
    assert_true((err == TANDEM_OK) == (op != NULL));
    if (op) {
        one->seq = op->seq;
        memcpy(one->hash, op->hash, TANDEM_HASH_BYTES);
    }
    return seen->count == seen->stop_at ? seen->stop_with : TANDEM_OK;
}

static inline struct seen scan(struct bed *bed, const char *collection, uint64_t from)
{
    struct seen seen = {.count = 0};

    OK(td_op_store_scan(bed->ops, tandem_slice_text(collection), from, see, &seen));
    return seen;
}

struct reports {
    char text[16384];
    unsigned count;
};

static inline void note(void *context, const char *text)
{
    struct reports *reports = context;
    size_t used = strlen(reports->text);

    reports->count++;
    snprintf(reports->text + used, sizeof(reports->text) - used, "%s\n", text);
}

static inline struct reports verify(struct bed *bed)
{
    struct reports reports = {.count = 0};
    tandem_err err = td_op_store_verify(bed->ops, note, &reports);

    assert_int_equal(reports.count ? TANDEM_E_CORRUPT : TANDEM_OK, err);
    return reports;
}

static inline void assert_sound(struct bed *bed)
{
    struct reports reports = verify(bed);

    if (reports.count)
        fail_msg("verify: %s", reports.text);
}

static inline void assert_says(const struct reports *reports, const char *text)
{
    if (!strstr(reports->text, text))
        fail_msg("expected \"%s\" in: %s", text, reports->text);
}

/* ---- Damage, done below the store's back ---- */

static inline void raw_put(struct bed *bed, unsigned table, tandem_slice key, tandem_slice value)
{
    td_txn *txn;

    OK(td_store_begin_write(td_op_store_backend(bed->ops), &txn));
    OK(td_txn_put(txn, table, key, value));
    OK(td_txn_commit(txn));
}

static inline void raw_del(struct bed *bed, unsigned table, tandem_slice key)
{
    td_txn *txn;

    OK(td_store_begin_write(td_op_store_backend(bed->ops), &txn));
    OK(td_txn_del(txn, table, key));
    OK(td_txn_commit(txn));
}

static inline size_t raw_get(struct bed *bed, unsigned table, tandem_slice key, uint8_t *out, size_t room)
{
    tandem_slice value;
    td_txn *txn;

    OK(td_store_begin_read(td_op_store_backend(bed->ops), &txn));
    OK(td_txn_get(txn, table, key, &value));
    assert_true(value.size <= room);
    memcpy(out, value.bytes, value.size);
    td_txn_abort(txn);
    return value.size;
}

static inline size_t raw_count(struct bed *bed, unsigned table)
{
    tandem_slice key, value;
    td_cursor *cursor;
    size_t count = 0;
    td_txn *txn;

    OK(td_store_begin_read(td_op_store_backend(bed->ops), &txn));
    OK(td_txn_cursor(txn, table, &cursor));
    for (tandem_err err = td_cursor_seek(cursor, tandem_slice_of(NULL, 0), &key, &value);
         err == TANDEM_OK; err = td_cursor_next(cursor, &key, &value))
        count++;
    td_cursor_free(cursor);
    td_txn_abort(txn);
    return count;
}

/* Flip a bit of the record at an ordinal of the only collection; at counts from its end if < 0. */
static inline void flip(struct bed *bed, uint64_t ordinal, int at)
{
    uint8_t key[TD_OPERATION_KEY_BYTES], value[2048];
    tandem_slice slice = tandem_slice_of(key, sizeof(key));
    size_t size;

    td_operation_key(key, 1, ordinal);
    size = raw_get(bed, TD_TABLE_OPERATIONS, slice, value, sizeof(value));
    value[at < 0 ? size - (size_t)-at : (size_t)at] ^= 1;
    raw_put(bed, TD_TABLE_OPERATIONS, slice, tandem_slice_of(value, size));
}

#endif
