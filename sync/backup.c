/*
 * Taking backups. The store is read in pages, each in a transaction of its own that has ended before
 * a byte of it is written; ordinals only grow, so what stands up to the position of the beginning
 * stays as it is while others append. What is lacking does not, so all of that is copied at first.
 *
 * A collection is read in the order of ordinals, in which each job stands behind what it follows: but
 * for the origins that have gaps, or had, where something may have come long after what follows it.
 * Those come behind the others, each in the order of its chain.
 *
 * Of what is held in part there is no backup. The stream has no place for what is loose, behind no head,
 * and without the pairs that say what it is good for it could not be restored to what it was.
 */
#include "sync/backup.h"

#include <stdio.h>
#include <stdlib.h>

#include "reactor/reactor_parts.h"
#include "store/backup_stream.h"
#include "store/own_page.h"
#include "sync/remote_share.h"

enum { PAGE_BYTES = 256 * 1024 };

struct lacking {
    char name[TANDEM_NAME_BYTES_MAX]; /* of the collection */
    size_t name_size;
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    td_lack lack;
};

/* The run of an origin with gaps that is being read. */
struct reading {
    const uint8_t *origin; /* NULL: those without gaps are read */
    td_run run;
    uint64_t seq;                    /* of the last operation that was found … */
    uint8_t hash[TANDEM_HASH_BYTES]; /* … and its hash */
};

struct backup {
    td_op_store *ops;
    td_backup_writer *writer;
    uint64_t position;
    char name[TANDEM_NAME_BYTES_MAX]; /* of the collection */
    size_t name_size;
    bool begun;           /* something of it was put */
    uint64_t ordinal;     /* the last one of it that was looked at */
    uint64_t bad_ordinal; /* of a record that cannot be read; 0: none */
    size_t looked;        /* bytes of what was looked at for this page */
    bool all_read;
    struct lacking *lacks; /* all of the store's; those before next_lack were put */
    size_t lack_count, next_lack;
    uint8_t (*gapped)[TANDEM_ORIGIN_BYTES]; /* of the collection, in byte order */
    size_t gapped_count, gapped_capacity;
    struct reading reading;
    tandem_writer page; /* [ordinal, hash, canonical bytes], one behind the other */
    tandem_writer job;  /* bins of canonical bytes: the job that is being gathered */
    td_backup_job next;
    td_link link;
    char *why;
};

_Static_assert((int)TANDEM_WHY_BYTES == (int)TD_BACKUP_WHY_BYTES, "one sentence, two names");

static tandem_slice name_of(const struct backup *backup)
{
    return tandem_slice_of(backup->name, backup->name_size);
}

static tandem_err corrupt(const struct backup *backup, uint64_t ordinal, const char *what)
{
    snprintf(backup->why, TANDEM_WHY_BYTES, "collection %.*s, ordinal %llu: %s",
             (int)(backup->name_size < 64 ? backup->name_size : 64), backup->name,
             (unsigned long long)ordinal, what);
    return TANDEM_E_CORRUPT;
}

static tandem_err held_in_part(const struct backup *backup, tandem_slice name)
{
    snprintf(backup->why, TANDEM_WHY_BYTES,
             "collection %.*s is held in part; a backup is taken where it is whole",
             (int)(name.size < 64 ? name.size : 64), (const char *)name.bytes);
    return TANDEM_E_UNSUPPORTED;
}

static tandem_err begin(struct backup *backup)
{
    if (backup->begun)
        return TANDEM_OK;
    backup->begun = true;
    return td_backup_put_collection(backup->writer, name_of(backup));
}

/* ---- Jobs ---- */

static void gather(struct backup *backup, const td_operation *operation)
{
    if (backup->next.count++ == 0)
        td_link_begin(&backup->link, operation);
    else
        td_link_extend(&backup->link, operation);
    tandem_write_binary(&backup->job, operation->canonical);
}

struct one {
    tandem_writer *into;
    td_operation parsed; /* of what was written into it */
    tandem_err err;
};

static tandem_err copy_one(void *context, tandem_err err, uint64_t ordinal,
                           const td_operation *operation)
{
    struct one *one = context;

    one->err = err;
    if (err != TANDEM_OK)
        return TANDEM_END;
    tandem_writer_clear(one->into);
    tandem_write_raw(one->into, operation->canonical);
    if ((one->err = tandem_writer_err(one->into)) == TANDEM_OK)
        one->err = td_operation_parse(tandem_writer_slice(one->into), &one->parsed);
    memcpy(one->parsed.hash, operation->hash, sizeof(one->parsed.hash));
    return TANDEM_END;
}

/* Read the operation of a hash, which another one names as its predecessor. */
static tandem_err read_before(struct backup *backup, uint64_t seq, const uint8_t *hash,
                              const uint8_t *origin, struct one *out)
{
    uint64_t ordinal;
    tandem_err err;

    err = td_op_store_find(backup->ops, name_of(backup), origin, seq, hash, &ordinal);
    if (err == TANDEM_OK) {
        out->err = TANDEM_E_NOT_FOUND;
        err = td_op_store_scan(backup->ops, name_of(backup), ordinal - 1, copy_one, out);
        if (err == TANDEM_END)
            err = out->err;
    }
    return err == TANDEM_E_NOT_FOUND ? TANDEM_E_CORRUPT : err;
}

/* Nobody vouches for what comes before this operation: it came through a filter, and is loose. */
static tandem_err is_loose(struct backup *backup, const td_operation *operation, bool *out)
{
    td_head heads[TANDEM_HEADS_MAX];
    unsigned count;
    tandem_err err;

    err = td_op_store_heads(backup->ops, name_of(backup), operation->origin, heads, &count);
    *out = err == TANDEM_OK && backup->reading.origin &&
           (!count || heads[count - 1].seq < operation->seq);
    return err;
}

/*
 * An operation follows no head: a branch begins with it. That may be in the middle of a job, of which
 * the first part stands in another branch: then this part is gathered once more, for jobs are whole.
 */
static tandem_err branch_begin(struct backup *backup, uint64_t ordinal, const td_operation *first)
{
    tandem_writer copies[TANDEM_JOB_OPERATIONS_MAX];
    uint8_t predecessor[TANDEM_HASH_BYTES];
    uint64_t seq = first->seq;
    unsigned count = 0;
    tandem_err err;
    bool loose;

    if ((err = is_loose(backup, first, &loose)) != TANDEM_OK || loose)
        return loose ? held_in_part(backup, name_of(backup)) : err;
    backup->next.branch = true;
    memcpy(predecessor, first->predecessor, sizeof(predecessor));
    while (seq > 1) {
        struct one before = {.into = &copies[count]};

        if (count == TANDEM_JOB_OPERATIONS_MAX - 1) {
            err = TANDEM_E_CORRUPT;
            break;
        }
        tandem_writer_init(&copies[count++]);
        if ((err = read_before(backup, seq - 1, predecessor, first->origin, &before)) != TANDEM_OK)
            break;
        if (!(before.parsed.flags & TD_FLAG_CONTINUES)) {
            tandem_writer_release(&copies[--count]);
            break;
        }
        seq = before.parsed.seq;
        memcpy(predecessor, before.parsed.predecessor, sizeof(predecessor));
    }
    backup->next.held = count;
    while (count > 0) {
        tandem_writer *copy = &copies[--count];
        td_operation parsed;

        if (err == TANDEM_OK &&
            (err = td_operation_parse(tandem_writer_slice(copy), &parsed)) == TANDEM_OK) {
            td_operation_hash(&parsed);
            gather(backup, &parsed);
        }
        tandem_writer_release(copy);
    }
    return err == TANDEM_E_CORRUPT ? corrupt(backup, ordinal, "what comes before it is missing")
                                   : err;
}

static tandem_err take_operation(struct backup *backup, uint64_t ordinal,
                                 const td_operation *operation)
{
    tandem_err err = begin(backup);

    if (err != TANDEM_OK)
        return err;
    if (backup->next.count == 0) {
        td_link_begin(&backup->link, operation);
        if (!td_backup_follows(backup->writer, &backup->link) &&
            (err = branch_begin(backup, ordinal, operation)) != TANDEM_OK)
            return err;
    }
    if (backup->next.count > 0 && !td_link_continues(&backup->link, operation))
        return corrupt(backup, ordinal, "the job before it is not whole");
    gather(backup, operation);
    if (operation->flags & TD_FLAG_CONTINUES)
        return TANDEM_OK;
    if ((err = tandem_writer_err(&backup->job)) != TANDEM_OK)
        return err;
    backup->next.operations = tandem_writer_slice(&backup->job);
    err = td_backup_put_job(backup->writer, &backup->next, &backup->link);
    if (err == TANDEM_E_CORRUPT)
        err = corrupt(backup, ordinal, "it is not where it belongs");
    tandem_writer_clear(&backup->job);
    backup->next = (td_backup_job){.count = 0};
    return err;
}

/* ---- Pages ---- */

static int gapped_compare(const void *a, const void *b)
{
    return memcmp(a, b, TANDEM_ORIGIN_BYTES);
}

/* Is this operation of those that are read at present? Others of an origin with gaps may stand in
 * between: another branch's. */
static bool is_read(const struct backup *backup, uint64_t ordinal, const td_operation *operation)
{
    const struct reading *reading = &backup->reading;

    if (!reading->origin)
        return !backup->gapped_count ||
               !bsearch(operation->origin, backup->gapped, backup->gapped_count,
                        sizeof(backup->gapped[0]), gapped_compare);
    if (memcmp(operation->origin, reading->origin, TANDEM_ORIGIN_BYTES) ||
        operation->seq != reading->seq + 1)
        return false;
    return operation->seq == reading->run.first
               ? ordinal == reading->run.ordinal
               : !memcmp(operation->predecessor, reading->hash, TANDEM_HASH_BYTES);
}

static tandem_err copy_to_page(void *context, tandem_err err, uint64_t ordinal,
                               const td_operation *operation)
{
    struct backup *backup = context;

    if (err != TANDEM_OK) {
        backup->bad_ordinal = ordinal;
        return TANDEM_END;
    }
    if (ordinal > backup->position) {
        backup->all_read = true;
        return TANDEM_END;
    }
    backup->ordinal = ordinal;
    backup->looked += operation->canonical.size;
    if (is_read(backup, ordinal, operation)) {
        tandem_write_uint(&backup->page, ordinal);
        tandem_write_binary(&backup->page, tandem_slice_of(operation->hash, TANDEM_HASH_BYTES));
        tandem_write_binary(&backup->page, operation->canonical);
        backup->reading.seq = operation->seq;
        memcpy(backup->reading.hash, operation->hash, TANDEM_HASH_BYTES);
        backup->all_read = backup->reading.origin && operation->seq == backup->reading.run.last;
    }
    return backup->all_read || backup->looked >= PAGE_BYTES ? TANDEM_END : TANDEM_OK;
}

static tandem_err read_page(struct backup *backup)
{
    tandem_err err;

    tandem_writer_clear(&backup->page);
    backup->looked = 0;
    err = td_op_store_scan(backup->ops, name_of(backup), backup->ordinal, copy_to_page, backup);
    if (err == TANDEM_OK)
        backup->all_read = true;
    if (err != TANDEM_OK && err != TANDEM_END)
        return err;
    if (backup->bad_ordinal)
        return corrupt(backup, backup->bad_ordinal, "the record does not match its checksum");
    return tandem_writer_err(&backup->page);
}

static tandem_err take_page(struct backup *backup)
{
    tandem_reader reader = tandem_reader_of(tandem_writer_slice(&backup->page));
    tandem_err err = TANDEM_OK;

    while (err == TANDEM_OK && tandem_reader_left(&reader)) {
        td_operation operation;
        tandem_slice hash;
        uint64_t ordinal;

        ordinal = td_own_uint(&reader);
        hash = td_own_binary(&reader);
        td_own_operation(&reader, &operation);
        memcpy(operation.hash, hash.bytes, sizeof(operation.hash));
        err = take_operation(backup, ordinal, &operation);
    }
    return err;
}

/* All that is to be read behind an ordinal. */
static tandem_err take_pages(struct backup *backup, uint64_t after)
{
    tandem_err err;

    backup->ordinal = after;
    backup->all_read = false;
    do {
        if ((err = read_page(backup)) != TANDEM_OK || (err = take_page(backup)) != TANDEM_OK)
            return err;
    } while (!backup->all_read);
    return backup->next.count > 0 ? corrupt(backup, backup->ordinal, "its job is not whole")
                                  : TANDEM_OK;
}

/* ---- Origins with gaps ---- */

static tandem_err note_gapped(void *context, const uint8_t *origin, const td_head *heads,
                              unsigned count)
{
    struct backup *backup = context;
    size_t capacity = backup->gapped_capacity ? 2 * backup->gapped_capacity : 64;
    uint8_t(*grown)[TANDEM_ORIGIN_BYTES];

    (void)heads;
    (void)count;
    if (backup->gapped_count == backup->gapped_capacity) {
        if (!(grown = realloc(backup->gapped, capacity * sizeof(*grown))))
            return TANDEM_E_NOMEM;
        backup->gapped = grown;
        backup->gapped_capacity = capacity;
    }
    memcpy(backup->gapped[backup->gapped_count++], origin, TANDEM_ORIGIN_BYTES);
    return TANDEM_OK;
}

/* Put what is lacking of an origin up to seq. */
static tandem_err take_lacks(struct backup *backup, const uint8_t *origin, uint64_t seq)
{
    for (; backup->next_lack < backup->lack_count; backup->next_lack++) {
        const struct lacking *next = &backup->lacks[backup->next_lack];
        tandem_err err;

        if (!tandem_slice_equal(tandem_slice_of(next->name, next->name_size), name_of(backup)) ||
            memcmp(next->origin, origin, TANDEM_ORIGIN_BYTES) || next->lack.last > seq)
            break;
        if ((err = begin(backup)) != TANDEM_OK)
            return err;
        err = td_backup_put_lack(backup->writer, origin, &next->lack);
        if (err != TANDEM_OK)
            return err == TANDEM_E_CORRUPT
                       ? corrupt(backup, 0, "what is said to be lacking cannot be")
                       : err;
    }
    return TANDEM_OK;
}

/* Run by run, in the order of their first seqs: so each stands behind what it follows. A run was
 * committed at once, and lies before the position as a whole or not at all. */
static tandem_err take_gapped(struct backup *backup, const uint8_t *origin)
{
    struct reading *reading = &backup->reading;
    tandem_err err;

    *reading = (struct reading){.origin = origin};
    while ((err = td_op_store_next_run(backup->ops, name_of(backup), origin, &reading->run)) ==
           TANDEM_OK) {
        if (reading->run.ordinal > backup->position)
            continue;
        reading->seq = reading->run.first - 1;
        if ((err = take_lacks(backup, origin, reading->run.first - 1)) != TANDEM_OK ||
            (err = take_pages(backup, reading->run.ordinal - 1)) != TANDEM_OK)
            return err;
        if (reading->seq != reading->run.last)
            return corrupt(backup, reading->run.ordinal, "operations are missing behind it");
    }
    return err == TANDEM_END ? take_lacks(backup, origin, UINT64_MAX) : err;
}

/* ---- Collections ---- */

/*
 * What was put must be what the store's own records say that it holds: a record that has gone leaves
 * no other trace. They tell only while nobody has appended since. (Lacks have ordinals, too.)
 */
static tandem_err compare(struct backup *backup, const td_backup_collection *put)
{
    uint8_t digest[TANDEM_HASH_BYTES];
    td_collection_info info;
    tandem_err err;

    if ((err = td_op_store_vector_digest(backup->ops, name_of(backup), digest)) != TANDEM_OK ||
        (err = td_op_store_collection(backup->ops, name_of(backup), &info)) != TANDEM_OK)
        return err;
    if (info.last_ordinal > backup->position)
        return TANDEM_OK;
    if (info.operations != put->operations || info.last_ordinal < put->last_ordinal ||
        (info.last_ordinal > put->last_ordinal && !backup->gapped_count) ||
        memcmp(digest, put->vector_digest, sizeof(digest)))
        return corrupt(backup, info.last_ordinal, "operations are missing before it");
    return TANDEM_OK;
}

static tandem_err take_collection(struct backup *backup)
{
    td_backup_collection put = {.operations = 0};
    uint64_t last_ordinal;
    tandem_err err;

    backup->begun = false;
    backup->gapped_count = 0;
    backup->reading = (struct reading){.origin = NULL};
    if ((err = td_op_store_gapped(backup->ops, name_of(backup), note_gapped, backup)) !=
            TANDEM_OK ||
        (err = take_pages(backup, 0)) != TANDEM_OK)
        return err;
    last_ordinal = backup->ordinal;
    for (size_t i = 0; i < backup->gapped_count; i++)
        if ((err = take_gapped(backup, backup->gapped[i])) != TANDEM_OK)
            return err;
    if (backup->begun && (err = td_backup_put_collection_end(backup->writer, last_ordinal,
                                                             &put)) != TANDEM_OK)
        return err;
    return compare(backup, &put);
}

static tandem_err take_name(void *context, const td_collection_info *info)
{
    struct backup *backup = context;

    memcpy(backup->name, info->name.bytes, info->name.size);
    backup->name_size = info->name.size;
    return TANDEM_END;
}

static tandem_err take_collections(struct backup *backup)
{
    char after[TANDEM_NAME_BYTES_MAX];
    tandem_err err;

    for (;;) {
        memcpy(after, backup->name, backup->name_size);
        err = td_op_store_collections(backup->ops, tandem_slice_of(after, backup->name_size),
                                      take_name, backup);
        if (err != TANDEM_END)
            return err;
        if ((err = take_collection(backup)) != TANDEM_OK)
            return err;
    }
}

/* ---- Remotes ---- */

/* They are told on the loop, which must not wait for whoever writes: gather first. */
static tandem_err gather_remote(void *context, const tandem_remote_status *status)
{
    tandem_writer *remotes = context, share;
    tandem_err err;

    if (!status->name)
        return TANDEM_OK;
    tandem_write_text(remotes, status->name);
    tandem_write_text(remotes, status->url);
    tandem_write_uint(remotes, status->share.direction);
    tandem_writer_init(&share);
    if ((err = td_share_of_lists(&status->share, &share)) == TANDEM_OK)
        tandem_write_binary(remotes, tandem_writer_slice(&share));
    tandem_writer_release(&share);
    return err == TANDEM_OK ? tandem_writer_err(remotes) : err;
}

static tandem_err take_remotes(struct backup *backup, tandem_sync *sync)
{
    tandem_writer remotes;
    tandem_reader reader;
    tandem_err err;

    tandem_writer_init(&remotes);
    err = tandem_remotes(sync, gather_remote, &remotes);
    reader = tandem_reader_of(tandem_writer_slice(&remotes));
    while (err == TANDEM_OK && tandem_reader_left(&reader)) {
        tandem_slice name = td_own_string(&reader), url = td_own_string(&reader);
        td_kept_share share = {.direction = td_own_uint(&reader)};

        share.bytes = td_own_binary(&reader);
        err = td_backup_put_remote(backup->writer, name, url, &share);
    }
    tandem_writer_release(&remotes);
    return err;
}

/* ---- All of it ---- */

static tandem_err note_lack(void *context, tandem_slice collection, const uint8_t *origin,
                            const td_lack *lack)
{
    struct backup *backup = context;
    struct lacking *noted;

    if (backup->lack_count == TD_LACKS_MAX)
        return TANDEM_E_CORRUPT;
    noted = &backup->lacks[backup->lack_count++];
    memcpy(noted->name, collection.bytes, collection.size);
    noted->name_size = collection.size;
    memcpy(noted->origin, origin, sizeof(noted->origin));
    noted->lack = *lack;
    return TANDEM_OK;
}

/* One that is left belongs to no origin that any collection knows. */
static tandem_err all_lacks_put(const struct backup *backup)
{
    if (backup->next_lack == backup->lack_count)
        return TANDEM_OK;
    snprintf(backup->why, TANDEM_WHY_BYTES, "something is lacking of an origin that is not there");
    return TANDEM_E_CORRUPT;
}

static tandem_err look_whether_whole(void *context, const td_collection_info *info)
{
    const struct backup *backup = context;
    bool in_part;
    tandem_err err = td_op_store_in_part(backup->ops, info->name, &in_part);

    return err == TANDEM_OK && in_part ? held_in_part(backup, info->name) : err;
}

static tandem_err take_all(struct backup *backup, tandem_reactor *reactor, tandem_sync *sync,
                           tandem_backup_info *info)
{
    const td_identity *identity = td_op_store_identity(backup->ops);
    const td_backup_totals *totals = td_backup_written(backup->writer);
    td_backup_header header = {.taken_ms = td_env_wall_ms(td_reactor_env(reactor))};
    tandem_err err;

    if (!(backup->lacks = calloc(TD_LACKS_MAX, sizeof(*backup->lacks))))
        return TANDEM_E_NOMEM;
    if ((err = td_op_store_all_lacks(backup->ops, &backup->position, note_lack, backup)) !=
            TANDEM_OK ||
        (err = td_op_store_collections(backup->ops, tandem_slice_of(NULL, 0), look_whether_whole,
                                       backup)) != TANDEM_OK)
        return err;
    memcpy(header.reactor, identity->reactor, sizeof(header.reactor));
    memcpy(header.origin, identity->origin, sizeof(header.origin));
    header.ordinal = backup->position;
    header.has_lacks = backup->lack_count > 0;
    if ((err = td_backup_put_header(backup->writer, &header)) != TANDEM_OK ||
        (err = take_collections(backup)) != TANDEM_OK || (err = all_lacks_put(backup)) != TANDEM_OK ||
        (sync && (err = take_remotes(backup, sync)) != TANDEM_OK) ||
        (err = td_backup_put_end(backup->writer)) != TANDEM_OK)
        return err;
    memcpy(info->reactor, header.reactor, sizeof(info->reactor));
    memcpy(info->origin, header.origin, sizeof(info->origin));
    info->taken_ms = header.taken_ms;
    info->position = header.ordinal;
    info->collections = totals->collections;
    info->operations = totals->operations;
    info->remotes = totals->remotes;
    info->bytes = totals->bytes;
    return TANDEM_OK;
}

tandem_err tandem_backup(tandem_reactor *reactor, tandem_sync *sync, tandem_backup_write_fn write,
                         void *context, tandem_backup_info *info_out, char why[TANDEM_WHY_BYTES])
{
    char unheard[TANDEM_WHY_BYTES];
    struct backup backup = {.why = why ? why : unheard};
    tandem_backup_info info;
    tandem_err err;

    if (!reactor || !write)
        return TANDEM_E_INVALID;
    backup.why[0] = 0;
    backup.ops = td_reactor_ops(reactor);
    tandem_writer_init(&backup.page);
    tandem_writer_init(&backup.job);
    err = td_backup_writer_open(write, context, &backup.writer);
    if (err == TANDEM_OK)
        err = take_all(&backup, reactor, sync, &info);
    if (err == TANDEM_OK && info_out)
        *info_out = info;
    td_backup_writer_free(backup.writer);
    free(backup.lacks);
    free(backup.gapped);
    tandem_writer_release(&backup.page);
    tandem_writer_release(&backup.job);
    return err;
}
