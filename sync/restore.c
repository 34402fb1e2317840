/*
 * Restoring. What the stream's reader hands out goes through the executor of a fresh reactor, as
 * remote operations do: the rules of the store are enforced, and its index is built on the way. The
 * remotes are written straight into the sync store: a sync manager would want to meet them.
 */
#include <stdio.h>
#include <stdlib.h>

#include "reactor/reactor_parts.h"
#include "store/backup_stream.h"
#include "store/sync_store.h"
#include "sync/backup.h"

enum {
    /* Jobs that go to the executor at once, as one group: one flush of the disk. */
    BATCH_JOBS_MAX = 8192,
    BATCH_BYTES_MAX = 2 * 1024 * 1024,
    BATCH_COLLECTIONS_MAX = 256,
};

#define MAKING ".restoring"

/* Something that is lacking: recorded by a job of its own. */
struct lacking {
    td_wanted wanted;
    char name[TANDEM_NAME_BYTES_MAX];
    uint8_t origin[TANDEM_ORIGIN_BYTES];
};

struct batched {
    const td_wanted *wanted; /* NULL: operations */
    size_t at;
    size_t size;
    uint32_t count;
    uint32_t held;
};

/* A collection of which all jobs have come, the last ones perhaps in the batch. */
struct ended {
    char name[TANDEM_NAME_BYTES_MAX];
    size_t name_size;
    uint64_t operations;
    uint8_t vector_digest[TANDEM_HASH_BYTES];
};

struct tandem_restore {
    char *path;
    char *making;            /* path.restoring */
    bool made;               /* it is there, ours, and not in its place yet */
    tandem_reactor *reactor; /* NULL: nothing is made, or it is finished */
    td_sync_store *remotes;
    td_backup_reader *reader;
    tandem_writer bytes; /* of the batch */
    struct batched *batched;
    td_remote_job *jobs;
    uint32_t count;
    struct lacking *lacking; /* TD_LACKS_MAX, once there is one: no store has more */
    uint32_t lacking_count;
    struct ended *ended;
    uint32_t ended_count;
    tandem_restored restored;
    char *why; /* of the call that runs */
    char unheard[TANDEM_WHY_BYTES];
};

static tandem_err refuse(tandem_restore *restore, tandem_err err, const char *sentence)
{
    snprintf(restore->why, TANDEM_WHY_BYTES, "%s", sentence);
    return err;
}

/* ---- Operations ---- */

/* The store's word on a job of a stream that is whole in itself. */
static tandem_err judge(tandem_restore *restore, const td_remote_job *job,
                        const struct batched *batched)
{
    switch (job->err) {
    case TANDEM_OK:
        if (job->wanted || job->result.appended == batched->count - batched->held)
            return TANDEM_OK;
        return refuse(restore, TANDEM_E_CORRUPT, "the backup holds an operation twice");
    case TANDEM_E_CHAIN:
    case TANDEM_E_PREDECESSOR:
    case TANDEM_E_INVALID:
    case TANDEM_E_LIMIT:
    case TANDEM_E_PAYLOAD:
    case TANDEM_E_QUARANTINED:
        snprintf(restore->why, TANDEM_WHY_BYTES, "the backup holds what no store takes: %s",
                 tandem_err_text(job->err));
        return TANDEM_E_CORRUPT;
    default:
        return job->err;
    }
}

static void executed(td_remote_request *request)
{
    td_reply_set(request->context, TANDEM_OK);
}

/* What the store holds of collections that have ended is what the other one held. */
static tandem_err compare(tandem_restore *restore)
{
    td_op_store *ops = td_reactor_ops(restore->reactor);

    for (uint32_t i = 0; i < restore->ended_count; i++) {
        const struct ended *ended = &restore->ended[i];
        tandem_slice name = tandem_slice_of(ended->name, ended->name_size);
        uint8_t digest[TANDEM_HASH_BYTES];
        td_collection_info info;
        tandem_err err;

        if ((err = td_op_store_collection(ops, name, &info)) != TANDEM_OK ||
            (err = td_op_store_vector_digest(ops, name, digest)) != TANDEM_OK)
            return err;
        if (info.operations != ended->operations ||
            memcmp(digest, ended->vector_digest, sizeof(digest)))
            return refuse(restore, TANDEM_E_CORRUPT, "a collection became another one");
    }
    restore->ended_count = 0;
    return TANDEM_OK;
}

/* Have the batch executed, and look at what it brought to an end. */
static tandem_err execute(tandem_restore *restore)
{
    td_remote_request request = {
        .jobs = restore->jobs, .count = restore->count, .restored = true, .done = executed};
    td_reply *reply;
    tandem_err err;

    if (restore->count == 0)
        return compare(restore);
    if ((err = tandem_writer_err(&restore->bytes)) != TANDEM_OK)
        return err;
    for (uint32_t i = 0; i < restore->count; i++) {
        const struct batched *batched = &restore->batched[i];

        restore->jobs[i] = (td_remote_job){
            .operations = tandem_slice_of(restore->bytes.bytes + batched->at, batched->size),
            .count = batched->count,
            .wanted = batched->wanted};
    }
    if ((err = td_reply_open(td_reactor_runtime(restore->reactor), &reply)) != TANDEM_OK)
        return err;
    request.context = reply;
    td_executor_remote(td_reactor_executor(restore->reactor), &request);
    err = td_reply_wait(reply, UINT64_MAX);
    td_reply_free(reply);
    for (uint32_t i = 0; i < restore->count && err == TANDEM_OK; i++)
        err = judge(restore, &restore->jobs[i], &restore->batched[i]);
    restore->count = 0;
    tandem_writer_clear(&restore->bytes);
    return err == TANDEM_OK ? compare(restore) : err;
}

/* Have room in the batch for another job. */
static tandem_err make_room(tandem_restore *restore, size_t size)
{
    return restore->count == BATCH_JOBS_MAX || restore->bytes.size + size > BATCH_BYTES_MAX
               ? execute(restore)
               : TANDEM_OK;
}

static tandem_err take_job(void *context, const td_backup_job *job)
{
    tandem_restore *restore = context;
    tandem_err err = make_room(restore, job->operations.size);

    if (err != TANDEM_OK)
        return err;
    restore->batched[restore->count++] = (struct batched){
        .at = restore->bytes.size, .size = job->operations.size, .count = job->count,
        .held = job->held};
    tandem_write_raw(&restore->bytes, job->operations);
    return TANDEM_OK;
}

static tandem_err take_lack(void *context, tandem_slice collection, const uint8_t *origin,
                            const td_lack *lack)
{
    tandem_restore *restore = context;
    struct lacking *lacking;
    tandem_err err = make_room(restore, 0);

    if (err != TANDEM_OK)
        return err;
    if (!restore->lacking &&
        !(restore->lacking = calloc(TD_LACKS_MAX, sizeof(*restore->lacking))))
        return TANDEM_E_NOMEM;
    if (restore->lacking_count == TD_LACKS_MAX)
        return refuse(restore, TANDEM_E_CORRUPT, "the backup lacks more than a store can");
    lacking = &restore->lacking[restore->lacking_count++];
    memcpy(lacking->name, collection.bytes, collection.size);
    memcpy(lacking->origin, origin, sizeof(lacking->origin));
    lacking->wanted = (td_wanted){tandem_slice_of(lacking->name, collection.size),
                                  lacking->origin, *lack};
    restore->batched[restore->count++] = (struct batched){.wanted = &lacking->wanted};
    return TANDEM_OK;
}

/* Many small collections share a batch: a flush for each would take long. */
static tandem_err take_collection(void *context, const td_backup_collection *collection)
{
    tandem_restore *restore = context;
    struct ended *ended = &restore->ended[restore->ended_count++];

    memcpy(ended->name, collection->name.bytes, collection->name.size);
    ended->name_size = collection->name.size;
    ended->operations = collection->operations;
    memcpy(ended->vector_digest, collection->vector_digest, sizeof(ended->vector_digest));
    return restore->ended_count == BATCH_COLLECTIONS_MAX ? execute(restore) : TANDEM_OK;
}

/* ---- The rest of the stream ---- */

static tandem_err take_header(void *context, const td_backup_header *header)
{
    tandem_backup_info *info = &((tandem_restore *)context)->restored.backup;

    memcpy(info->reactor, header->reactor, sizeof(info->reactor));
    memcpy(info->origin, header->origin, sizeof(info->origin));
    info->taken_ms = header->taken_ms;
    info->position = header->ordinal;
    return TANDEM_OK;
}

static tandem_err remotes_open(tandem_restore *restore)
{
    td_store *store;
    tandem_err err = td_reactor_open_sync_store(restore->reactor, td_sync_store_tables,
                                                td_sync_store_table_count, &store);

    if (err == TANDEM_OK)
        err = td_sync_store_open(td_reactor_env(restore->reactor), store, &restore->remotes);
    return err;
}

static tandem_err take_remote(void *context, tandem_slice name, tandem_slice url,
                              const td_kept_share *share)
{
    tandem_restore *restore = context;
    td_remote_record record = {.paused = true, .share = *share};
    tandem_err err = TANDEM_OK;

    if (url.size >= sizeof(record.url))
        return refuse(restore, TANDEM_E_CORRUPT, "the backup holds what is no remote");
    memcpy(record.name, name.bytes, name.size);
    memcpy(record.url, url.bytes, url.size);
    if (!restore->remotes)
        err = remotes_open(restore);
    if (err == TANDEM_OK)
        err = td_sync_store_put_remote(restore->remotes, &record);
    return err == TANDEM_E_INVALID
               ? refuse(restore, TANDEM_E_CORRUPT, "the backup holds what is no remote")
               : err;
}

/* ---- Life ---- */

/* "…" of "…///". */
static char *path_copy(const char *path, const char *suffix)
{
    size_t size = strlen(path);
    char *copy;

    while (size > 1 && path[size - 1] == '/')
        size--;
    if (!(copy = malloc(size + strlen(suffix) + 1)))
        return NULL;
    memcpy(copy, path, size);
    strcpy(copy + size, suffix);
    return copy;
}

static tandem_err folder_begin(tandem_restore *restore, const tandem_options *options,
                               tandem_incarnation_reason reason)
{
    tandem_options opened = *options;
    tandem_err err;

    restore->path = path_copy(options->path, "");
    restore->making = path_copy(options->path, MAKING);
    restore->batched = malloc(BATCH_JOBS_MAX * sizeof(*restore->batched));
    restore->jobs = malloc(BATCH_JOBS_MAX * sizeof(*restore->jobs));
    restore->ended = malloc(BATCH_COLLECTIONS_MAX * sizeof(*restore->ended));
    if (!restore->path || !restore->making || !restore->batched || !restore->jobs ||
        !restore->ended)
        return TANDEM_E_NOMEM;
    err = td_data_folder_vacant(restore->path);
    if (err == TANDEM_E_EXISTS)
        return refuse(restore, err, "there is something at the folder's place already");
    if (err == TANDEM_E_UNSUPPORTED)
        return refuse(restore, err, "a mount point cannot be made anew: name a folder in it");
    if (err != TANDEM_OK)
        return err;
    err = td_data_folder_remove(restore->making);
    if (err == TANDEM_E_LOCKED)
        return refuse(restore, err, "another restore makes that folder");
    if (err == TANDEM_E_EXISTS)
        return refuse(restore, err, "something foreign stands in the folder's way, NAME" MAKING);
    if (err != TANDEM_OK)
        return err;
    opened.path = restore->making;
    opened.must_exist = false;
    restore->made = true;
    return td_reactor_open_for(&opened, reason, &restore->reactor);
}

static tandem_err restore_open(const tandem_options *options, tandem_incarnation_reason reason,
                               tandem_restore **out, char why[TANDEM_WHY_BYTES])
{
    td_backup_sink sink = {.header = take_header};
    tandem_restore *restore;
    tandem_err err = TANDEM_OK;

    if (!out || (options && (options->size != sizeof(*options) || !options->path ||
                             !options->path[0] || options->drive)))
        return TANDEM_E_INVALID;
    if (!(restore = calloc(1, sizeof(*restore))))
        return TANDEM_E_NOMEM;
    restore->why = why ? why : restore->unheard;
    restore->why[0] = 0;
    tandem_writer_init(&restore->bytes);
    if (options) {
        sink.job = take_job;
        sink.lack = take_lack;
        sink.collection = take_collection;
        sink.remote = take_remote;
        err = folder_begin(restore, options, reason);
    }
    sink.context = restore;
    if (err == TANDEM_OK)
        err = td_backup_reader_open(&sink, &restore->reader);
    if (err != TANDEM_OK) {
        tandem_restore_free(restore);
        return err;
    }
    *out = restore;
    return TANDEM_OK;
}

tandem_err tandem_restore_open(const tandem_options *options, tandem_restore **out,
                               char why[TANDEM_WHY_BYTES])
{
    return restore_open(options, TANDEM_INCARNATION_RESTORED, out, why);
}

tandem_err tandem_clone_open(const tandem_options *options, tandem_restore **out,
                             char why[TANDEM_WHY_BYTES])
{
    return restore_open(options, TANDEM_INCARNATION_CLONED, out, why);
}

tandem_err tandem_restore_feed(tandem_restore *restore, tandem_slice bytes,
                               char why[TANDEM_WHY_BYTES])
{
    if (!restore)
        return TANDEM_E_INVALID;
    restore->why = why ? why : restore->unheard;
    restore->why[0] = 0;
    return td_backup_reader_feed(restore->reader, bytes, restore->why);
}

/* Make what is left, close it, and put it in its place. */
static tandem_err folder_finish(tandem_restore *restore)
{
    tandem_err err = execute(restore);

    if (err != TANDEM_OK)
        return err;
    memcpy(restore->restored.reactor, tandem_reactor_id(restore->reactor), TANDEM_ORIGIN_BYTES);
    memcpy(restore->restored.origin, tandem_reactor_origin(restore->reactor), TANDEM_ORIGIN_BYTES);
    if (!restore->remotes && (err = remotes_open(restore)) != TANDEM_OK)
        return err;
    td_sync_store_free(restore->remotes);
    restore->remotes = NULL;
    tandem_close(restore->reactor);
    restore->reactor = NULL;
    err = td_data_folder_move(restore->making, restore->path);
    if (err == TANDEM_E_EXISTS)
        refuse(restore, err, "somebody else has made something at the folder's place meanwhile");
    restore->made = err != TANDEM_OK;
    return err;
}

tandem_err tandem_restore_finish(tandem_restore *restore, tandem_restored *restored_out,
                                 char why[TANDEM_WHY_BYTES])
{
    const td_backup_totals *totals;
    tandem_err err;

    if (!restore)
        return TANDEM_E_INVALID;
    restore->why = why ? why : restore->unheard;
    restore->why[0] = 0;
    if ((err = td_backup_reader_finish(restore->reader, restore->why)) != TANDEM_OK)
        return err;
    if (restore->reactor && (err = folder_finish(restore)) != TANDEM_OK)
        return err;
    totals = td_backup_read(restore->reader);
    restore->restored.backup.collections = totals->collections;
    restore->restored.backup.operations = totals->operations;
    restore->restored.backup.remotes = totals->remotes;
    restore->restored.backup.bytes = totals->bytes;
    if (restored_out)
        *restored_out = restore->restored;
    return TANDEM_OK;
}

void tandem_restore_free(tandem_restore *restore)
{
    if (!restore)
        return;
    td_sync_store_free(restore->remotes);
    tandem_close(restore->reactor);
    if (restore->made)
        td_data_folder_remove(restore->making);
    td_backup_reader_free(restore->reader);
    tandem_writer_release(&restore->bytes);
    free(restore->batched);
    free(restore->jobs);
    free(restore->lacking);
    free(restore->ended);
    free(restore->making);
    free(restore->path);
    free(restore);
}
