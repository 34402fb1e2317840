/*
 * One turn of the view: open the index if there is none, index one batch, answer what can be
 * answered, hash one slice of a digest, settle one slice if it is time. It posts itself to itself while
 * work is left, so that requests get in between.
 *
 * A request waits in one list until the index has reached its position, be it that the batch is
 * still to come or the commit itself.
 */
#include "reactor/document_view.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/fold.h"
#include "reactor/message.h"
#include "reactor/prepare.h"
#include "reactor/runtime.h"
#include "reactor/state_digest.h"
#include "store/planted.h"
#include "store/probe.h"

enum {
    PAGE_ENTRIES_MAX = 1000,
    PAGE_BYTES_MAX = 4 * 1024 * 1024,
    RETRY_MS = 1000,
};

enum message_kind { REQUEST, COMMITTED, LOOK, WORK, COMMIT_DUE, RETRY, CLOSE };

/* A digest on its way. */
struct digest {
    td_state_digest *digest;
    struct digest *next;
    td_view_request *request;
    unsigned generation; /* of the index that it is made from */
};

struct td_document_view {
    td_actor *actor;
    tandem_env *env;
    td_op_store *ops;
    const td_model_registry *registry;
    td_index_open_fn index_open;
    void *index_context;
    void (*indexed)(void *context, uint64_t position);
    void *indexed_context;

    td_stream_index *index; /* NULL: none could be opened, */
    tandem_err index_err;   /* for this reason */
    unsigned generation;    /* counts what made positions go back */
    td_folder *folder;
    uint64_t position;  /* indexed */
    uint64_t announced; /* the greatest that `indexed` was told */
    bool behind;        /* there may be more to index */
    bool try_open;      /* a request came, or the time to try again */
    bool commit_due;
    bool settling; /* documents of this settling are left */
    bool damaged; /* an index was, and nobody was told yet */
    bool told;    /* that the one in use is */

    td_message_list waiting;
    struct digest *digests, **digests_end;

    _Atomic uint64_t committed;
    atomic_bool committed_posted;
    td_message committed_message, look_timer, work, commit_timer, retry_timer;
    bool work_posted, commit_timed, retry_timed;

    td_message close_message;
    td_reply *closing; /* set for the close message */
    bool closed;
};

static td_view_request *request_of(td_message *message)
{
    return (td_view_request *)message;
}

static void finish(td_view_request *request, tandem_err err)
{
    if (err && !request->why[0])
        td_why(request->why, "%s", tandem_err_text(err));
    request->err = err;
    if (request->kind == TD_VIEW_PREPARE && err && !request->group->err) {
        request->group->err = err;
        request->group->failed_job = 0;
        memcpy(request->group->why, request->why, sizeof(request->why));
    }
    request->done(request);
}

static void request_drop(td_message *message)
{
    finish(request_of(message), TANDEM_E_CLOSED);
}

static void nothing_drop(td_message *message)
{
}

static void close_drop(td_message *message)
{
    td_document_view *view =
        (td_document_view *)((char *)message - offsetof(td_document_view, close_message));

    td_reply_set(view->closing, TANDEM_E_CLOSED);
}

/* ---- Reading one document ---- */

/* Is it there to be read? */
static tandem_err check_live(const td_document_info *info, char why[TD_WHY_BYTES])
{
    if (info->created && !info->deleted)
        return TANDEM_OK;
    td_why(why, "%s",
           !info->known    ? "there is no such document"
           : info->created ? "the document is deleted"
                           : "the operation that creates the document has not arrived yet");
    return TANDEM_E_NOT_FOUND;
}

static tandem_err answer_read(td_document_view *view, td_view_request *r)
{
    tandem_slice branch = r->branch.size ? r->branch : tandem_slice_text("main");
    tandem_slice scope = r->scope.size ? r->scope : tandem_slice_text("global");
    tandem_slice lifecycle = tandem_slice_text(TD_SCOPE_DOCUMENT);
    uint64_t entries, lifecycle_entries;
    td_fold fold;
    tandem_err err;

    if ((err = td_stream_index_document(view->index, r->collection, r->document, &r->info)) ||
        (err = check_live(&r->info, r->why)))
        return err;
    if (tandem_slice_equal(scope, lifecycle)) {
        td_why(r->why, "the scope `document` has no state");
        return TANDEM_E_NOT_FOUND;
    }
    if ((err = td_stream_index_count(view->index, r->collection, r->document, branch, scope,
                                     &entries)) ||
        (err = td_stream_index_count(view->index, r->collection, r->document, branch, lifecycle,
                                     &lifecycle_entries)))
        return err;
    if (!entries && (!tandem_slice_equal(branch, tandem_slice_text("main")) ||
                     !tandem_slice_equal(scope, tandem_slice_text("global")))) {
        td_why(r->why, "the document has no such branch and scope");
        return TANDEM_E_NOT_FOUND;
    }
    err = td_folder_fold(view->folder, view->index, r->collection, r->document, &r->info, branch,
                         scope, true, &fold, r->why);
    if (err)
        return err;
    r->operations = lifecycle_entries + entries;
    if ((err = fold.model->show(fold.state, &r->out)) != TANDEM_OK)
        return err;
    return tandem_writer_err(&r->out);
}

static tandem_err look_indexed(void *index, tandem_slice collection, tandem_slice document,
                               td_document_info *out)
{
    return td_stream_index_document(index, collection, document, out);
}

static tandem_err answer_prepare(td_document_view *view, td_view_request *r)
{
    const td_preparer preparer = {.look = look_indexed,
                                  .look_context = view->index,
                                  .index = view->index,
                                  .folder = view->folder,
                                  .registry = view->registry};
    tandem_err err;

    r->group->origin = td_op_store_identity(view->ops)->origin;
    err = td_prepare(&preparer, r->group);
    r->group->looked_at = view->position;
    memcpy(r->why, r->group->why, sizeof(r->why));
    return err;
}

/* ---- Pages ---- */

static uint32_t page_limit(const td_view_request *r)
{
    if (r->limit < 1)
        return 1;
    return r->limit < PAGE_ENTRIES_MAX ? r->limit : PAGE_ENTRIES_MAX;
}

struct documents_page {
    td_view_request *request;
    uint32_t left;
};

static tandem_err list_document(void *context, tandem_slice document, const td_document_info *info)
{
    struct documents_page *page = context;
    td_view_request *r = page->request;

    if (page->left == 0) {
        r->more = true;
        return TANDEM_END;
    }
    page->left--;
    tandem_write_array(&r->out, 4);
    tandem_write_string(&r->out, document);
    tandem_write_text(&r->out, info->model);
    tandem_write_uint(&r->out, info->operations);
    tandem_write_bool(&r->out, info->deleted);
    memcpy(r->after_name, document.bytes, document.size);
    r->after_name[document.size] = '\0';
    return tandem_writer_err(&r->out);
}

static tandem_err answer_documents(td_document_view *view, td_view_request *r)
{
    struct documents_page page = {r, page_limit(r)};
    tandem_err err = td_stream_index_documents(view->index, r->collection, r->after,
                                               list_document, &page);

    if (err == TANDEM_OK && page.left < page_limit(r))
        r->after = tandem_slice_text(r->after_name);
    return err;
}

struct stream_page {
    td_entry *entries;
    size_t count, limit;
};

static tandem_err page_entry(void *context, const td_place *place, uint64_t ordinal)
{
    struct stream_page *page = context;

    page->entries[page->count++] = (td_entry){*place, ordinal};
    return page->count == page->limit ? TANDEM_END : TANDEM_OK;
}

static tandem_err list_operation(void *context, const td_entry *entry,
                                 const td_operation *operation)
{
    td_view_request *r = context;

    tandem_write_array(&r->out, 4);
    tandem_write_uint(&r->out, r->next_index);
    tandem_write_uint(&r->out, entry->ordinal);
    tandem_write_binary(&r->out, operation->canonical);
    tandem_write_binary(&r->out, tandem_slice_of(operation->hash, TANDEM_HASH_BYTES));
    if (tandem_writer_err(&r->out))
        return tandem_writer_err(&r->out);
    r->next_index++;
    r->has_after_place = true;
    r->after_place = entry->place;
    return r->out.size >= PAGE_BYTES_MAX ? TANDEM_END : TANDEM_OK;
}

/* A page ends before a record that is corrupt; one that would begin with it is nothing but that. */
static tandem_err pass_corrupt(td_view_request *r, uint64_t first, const td_entry *entries)
{
    if (r->next_index > first) {
        r->why[0] = '\0';
        return TANDEM_OK;
    }
    r->corrupt = entries[0].ordinal;
    r->next_index++;
    r->has_after_place = true;
    r->after_place = entries[0].place;
    return TANDEM_E_CORRUPT;
}

static tandem_err answer_stream(td_document_view *view, td_view_request *r)
{
    static const td_place zero;
    /* One more than the page, to know whether another follows. */
    struct stream_page page = {.limit = page_limit(r) + 1};
    uint64_t first = r->next_index;
    size_t count;
    tandem_err err;

    if (!(page.entries = malloc(page.limit * sizeof(page.entries[0]))))
        return TANDEM_E_NOMEM;
    err = td_stream_index_entries(view->index, r->collection, r->document, r->branch, r->scope,
                                  r->has_after_place ? &r->after_place : &zero, page_entry, &page);
    count = page.count < page.limit ? page.count : page.limit - 1;
    if (err == TANDEM_OK)
        err = td_entries_read(view->ops, view->index, r->collection, page.entries, count,
                              list_operation, r, r->why);
    if (err == TANDEM_E_CORRUPT && !td_stream_index_failure(view->index) && count)
        err = pass_corrupt(r, first, page.entries);
    r->more = r->next_index - first < page.count;
    free(page.entries);
    return err;
}

static tandem_err list_stream(void *context, tandem_slice branch, tandem_slice scope,
                              uint64_t operations)
{
    td_view_request *r = context;

    tandem_write_array(&r->out, 3);
    tandem_write_string(&r->out, branch);
    tandem_write_string(&r->out, scope);
    tandem_write_uint(&r->out, operations);
    return tandem_writer_err(&r->out);
}

static tandem_err answer_streams(td_document_view *view, td_view_request *r)
{
    tandem_slice none = tandem_slice_of(NULL, 0);
    tandem_slice lifecycle = tandem_slice_text(TD_SCOPE_DOCUMENT);
    uint64_t operations;
    tandem_err err;

    if ((err = td_stream_index_document(view->index, r->collection, r->document, &r->info)) ||
        (err = td_stream_index_count(view->index, r->collection, r->document, none, lifecycle,
                                     &operations)))
        return err;
    if (operations && (err = list_stream(r, none, lifecycle, operations)) != TANDEM_OK)
        return err;
    return td_stream_index_streams(view->index, r->collection, r->document, list_stream, r);
}

/* ---- Verifying ---- */

static tandem_err answer_verify(td_document_view *view, td_view_request *r)
{
    char why[TD_INDEX_WHY_BYTES];
    tandem_err err;

    r->rebuilt = view->damaged;
    view->damaged = false;
    err = td_stream_index_verify(view->index, r->collection, r->after, page_limit(r),
                                 r->after_name, &r->more, why);
    r->after = tandem_slice_text(r->after_name);
    if (err && why[0])
        td_why(r->why, "%s", why);
    return err;
}

/* ---- What failed ---- */

/*
 * A write to the index that failed takes back what was not committed, and that may be a snapshot's, in
 * the middle of an answer. Has it gone back? Then what came after its position is to be indexed again,
 * and no fold is worth anything.
 */
static bool went_back(td_document_view *view)
{
    uint64_t position = td_stream_index_position(view->index);

    if (position >= view->position)
        return false;
    td_probe(view->env, TD_PROBE_INDEX_BACK);
    view->position = position;
    view->generation++;
    view->behind = true;
    td_folder_clear(view->folder);
    return true;
}

/* ---- Digests ---- */

static void digest_free(struct digest *digest)
{
    td_state_digest_free(digest->digest);
    free(digest);
}

/* For an index that went back to be again where it must be? */
static bool digest_waits(const td_document_view *view, const struct digest *digest)
{
    return digest->generation != view->generation && view->position < digest->request->position;
}

/* Also anew, on another index. */
static tandem_err digest_start(td_document_view *view, struct digest *digest)
{
    td_view_request *r = digest->request;

    digest->generation = view->generation;
    return td_state_digest_start(digest->digest, view->index, r->collection, r->why);
}

/* TANDEM_OK: it is on its way and will finish the request. */
static tandem_err digest_begin(td_document_view *view, td_view_request *r)
{
    struct digest *digest = calloc(1, sizeof(*digest));
    tandem_err err = digest ? td_state_digest_open(&digest->digest) : TANDEM_E_NOMEM;

    if (err == TANDEM_OK) {
        digest->request = r;
        err = digest_start(view, digest);
    }
    if (err != TANDEM_OK) {
        if (digest)
            digest_free(digest);
        return err;
    }
    *view->digests_end = digest;
    view->digests_end = &digest->next;
    return TANDEM_OK;
}

/* One slice of the first digest in line. */
static void digest_step(td_document_view *view)
{
    struct digest *digest = view->digests;
    td_view_request *r;
    bool undone;
    tandem_err err = TANDEM_OK;

    if (!digest || digest_waits(view, digest))
        return;
    r = digest->request;
    if (digest->generation != view->generation)
        err = digest_start(view, digest);
    if (err == TANDEM_OK)
        err = td_state_digest_step(digest->digest, view->index, view->folder, r->why);
    undone = went_back(view);
    assert(!undone || err < 0); /* the write that failed was the step's own */
    /* Once only: where a snapshot finds no room, the next one may find none either. */
    if (err < 0 && (undone || td_stream_index_failure(view->index)) && !r->retried) {
        r->retried = true;
        r->why[0] = '\0';
        return; /* begins anew with the next index, or when this one is there again */
    }
    view->digests = digest->next;
    digest->next = NULL;
    if (!view->digests)
        view->digests_end = &view->digests;
    if (err == TANDEM_OK) {
        *view->digests_end = digest; /* to the end of the line */
        view->digests_end = &digest->next;
        return;
    }
    if (err == TANDEM_END) {
        td_state_digest_end(digest->digest, r->digest, &r->documents);
        err = TANDEM_OK;
    }
    finish(r, err);
    digest_free(digest);
}

/* ---- Requests ---- */

/* Answers a request whose position is indexed; true if it is answered now. */
static bool answer(td_document_view *view, td_view_request *r)
{
    bool undone = false;
    tandem_err err = TANDEM_OK;

    switch (r->kind) {
    case TD_VIEW_PREPARE:
        err = answer_prepare(view, r);
        break;
    case TD_VIEW_READ:
        err = answer_read(view, r);
        break;
    case TD_VIEW_HEAD:
        err = td_stream_index_document(view->index, r->collection, r->document, &r->info);
        break;
    case TD_VIEW_DOCUMENTS:
        err = answer_documents(view, r);
        break;
    case TD_VIEW_STREAM:
        err = answer_stream(view, r);
        break;
    case TD_VIEW_STREAMS:
        err = answer_streams(view, r);
        break;
    case TD_VIEW_STATES:
        err = digest_begin(view, r);
        if (err == TANDEM_OK)
            return true;
        break;
    case TD_VIEW_WAIT:
        break;
    case TD_VIEW_STAT:
        td_stream_index_stat_get(view->index, &r->stat);
        r->folded = td_folder_folded(view->folder);
        break;
    case TD_VIEW_VERIFY:
        err = answer_verify(view, r);
        r->damaged = view->told = td_stream_index_failure(view->index) != TANDEM_OK;
        finish(r, err);
        return true;
    }
    /* What one job of a group was held against must be what all of them were. */
    if (r->kind == TD_VIEW_PREPARE && went_back(view) && err == TANDEM_OK) {
        undone = true;
        err = TANDEM_E_NOMEM;
    }
    /* A damaged index is built anew: that deserves a second look, and only one. */
    if (err && (undone || td_stream_index_failure(view->index)) && !r->retried) {
        r->retried = true;
        r->why[0] = '\0';
        if (r->kind == TD_VIEW_PREPARE)
            r->group->err = TANDEM_OK;
        tandem_writer_clear(&r->out);
        return false;
    }
    finish(r, err);
    return true;
}

/*
 * Those that are prepared again first. Else whoever's job came first, and was committed, could be here with
 * the next one before the others are back, win again, and they would never get their turn.
 */
static td_message_list take_waiting(td_document_view *view)
{
    td_message_list again = {0}, others = {0};
    td_message *message;

    while ((message = td_message_list_pop(&view->waiting)))
        td_message_list_push(request_of(message)->again ? &again : &others, message);
    td_message_list_append(&again, &others);
    return again;
}

static void serve(td_document_view *view)
{
    td_message_list todo = take_waiting(view);
    td_message *message;

    while ((message = td_message_list_pop(&todo))) {
        td_view_request *request = request_of(message);
        bool caught_up =
            request->position <= view->position || td_planted(TD_PLANTED_READ_BEHIND);

        if (!caught_up || td_stream_index_failure(view->index) ||
            !answer(view, request))
            td_message_list_push(&view->waiting, message);
        went_back(view);
    }
}

/* What waits for operations that are committed and cannot be indexed gets to know why. */
static void refuse(td_document_view *view, tandem_err err)
{
    uint64_t committed = atomic_load(&view->committed);
    td_message_list todo = view->waiting;
    struct digest *digest, **at = &view->digests;
    td_message *message;

    view->waiting = (td_message_list){0};
    while ((message = td_message_list_pop(&todo))) {
        td_view_request *request = request_of(message);

        if (view->index &&
            (request->position <= view->position || request->position > committed))
            td_message_list_push(&view->waiting, message);
        else
            finish(request, err);
    }
    while ((digest = *at)) {
        if (view->index && !digest_waits(view, digest)) {
            at = &digest->next;
            continue;
        }
        *at = digest->next;
        finish(digest->request, err);
        digest_free(digest);
    }
    view->digests_end = at;
}

/* ---- The index ---- */

static void retry_later(td_document_view *view)
{
    if (view->retry_timed)
        return;
    view->retry_timed = true;
    td_actor_post_after(view->actor, &view->retry_timer, RETRY_MS);
}

static void index_close(td_document_view *view)
{
    td_folder_clear(view->folder);
    td_stream_index_free(view->index);
    view->index = NULL;
    view->settling = false;
    view->position = 0;
    view->generation++;
}

static tandem_err index_try(td_document_view *view, bool drop)
{
    td_store *store;
    tandem_err err = view->index_open(view->index_context, drop, &store);

    if (err)
        return err;
    return td_stream_index_open(view->env, store, view->ops, &view->index);
}

/* Leaves view->index NULL, with index_err, if there can be none at present. */
static void index_get(td_document_view *view, bool drop)
{
    tandem_err err = index_try(view, drop);
    td_stream_index_stat stat;

    if (err && !drop) {
        td_log(view->env, TANDEM_LOG_WARNING, "view", "the stream index is built anew: %s",
               tandem_err_name(err));
        if (err == TANDEM_E_CORRUPT)
            view->damaged = true;
        err = index_try(view, true);
    }
    view->try_open = false;
    view->index_err = err;
    if (err) {
        td_log(view->env, TANDEM_LOG_ERROR, "view", "there can be no stream index: %s",
               tandem_err_name(err));
        view->index = NULL;
        retry_later(view);
        return;
    }
    td_stream_index_stat_get(view->index, &stat);
    view->position = stat.position;
    view->behind = true;
}

/* After a failure: positions may have gone back, and a broken index goes. */
static void index_failed(td_document_view *view, tandem_err err)
{
    td_stream_index_stat stat;

    view->behind = true;
    if (td_stream_index_failure(view->index)) {
        td_probe(view->env, TD_PROBE_INDEX_REBUILT);
        td_log(view->env, TANDEM_LOG_WARNING, "view", "the stream index is built anew: %s",
               tandem_err_name(td_stream_index_failure(view->index)));
        if (td_stream_index_failure(view->index) == TANDEM_E_CORRUPT && !view->told)
            view->damaged = true;
        view->told = false;
        index_close(view);
        index_get(view, true);
        return;
    }
    td_probe(view->env, TD_PROBE_INDEX_BACK);
    td_stream_index_stat_get(view->index, &stat);
    view->position = stat.position;
    view->generation++;
    td_folder_clear(view->folder);
    refuse(view, err);
    retry_later(view);
}

static void index_step(td_document_view *view)
{
    bool current;
    tandem_err err =
        td_stream_index_advance(view->index, TD_VIEW_BATCH, &view->position, &current);

    if (err) {
        index_failed(view, err);
        return;
    }
    view->behind = !current;
    if (view->position <= view->announced)
        return;
    view->announced = view->position;
    if (view->indexed)
        view->indexed(view->indexed_context, view->position);
}

static void index_settle(td_document_view *view)
{
    tandem_err err;

    if (!td_stream_index_busy(view->index)) {
        view->commit_due = view->settling = false;
        return;
    }
    if (view->settling || view->commit_due || td_stream_index_full(view->index)) {
        view->commit_due = false;
        err = td_stream_index_settle(view->index, TD_INDEX_SLICE, &view->settling);
        if (err)
            index_failed(view, err);
        return;
    }
    if (view->commit_timed)
        return;
    view->commit_timed = true;
    td_actor_post_after(view->actor, &view->commit_timer, TD_VIEW_COMMIT_MS);
}

/* ---- The actor ---- */

static void close_down(td_document_view *view)
{
    if (view->index && td_stream_index_commit(view->index) != TANDEM_OK)
        td_log(view->env, TANDEM_LOG_WARNING, "view", "the end of the stream index is lost");
    index_close(view);
    view->index_err = TANDEM_E_CLOSED;
    view->closed = true;
    td_reply_set(view->closing, TANDEM_OK);
}

/* At what was committed; of what is from now on it is told again. */
static void look(td_document_view *view)
{
    atomic_store(&view->committed_posted, false);
    if (atomic_load(&view->committed) > view->position)
        view->behind = true;
}

static void handle(void *self, td_message *message)
{
    td_document_view *view = self;

    switch ((enum message_kind)message->kind) {
    case REQUEST:
        view->try_open = true;
        if (request_of(message)->position > view->position) {
            view->behind = true;
            td_probe(view->env, TD_PROBE_READ_WAITED);
        }
        /* What it waits for may be still to come, and a pause would hold it up. */
        if (request_of(message)->position > atomic_load(&view->committed) &&
            td_actor_cancel(view->actor, &view->look_timer))
            look(view);
        td_message_list_push(&view->waiting, message);
        break;
    case COMMITTED: /* and stays posted: until it is looked no other is wanted */
        if (view->waiting.first)
            look(view);
        else
            td_actor_post_after(view->actor, &view->look_timer, TD_VIEW_PAUSE_MS);
        break;
    case LOOK:
        look(view);
        break;
    case WORK:
        view->work_posted = false;
        break;
    case COMMIT_DUE:
        view->commit_timed = false;
        view->commit_due = true;
        break;
    case RETRY:
        view->retry_timed = false;
        view->try_open = true;
        break;
    case CLOSE:
        close_down(view);
        break;
    }
}

static void drained(void *self)
{
    td_document_view *view = self;
    bool work;

    if (!view->index && view->try_open && !view->closed)
        index_get(view, false);
    /* After a failure the timer tells when to go on; a request may still ask for one more try. */
    if (view->index && view->behind && !view->settling && (!view->retry_timed || view->try_open))
        index_step(view);
    view->try_open = false;
    if (view->index)
        serve(view);
    if (view->index)
        digest_step(view);
    if (view->index && td_stream_index_failure(view->index))
        index_failed(view, td_stream_index_failure(view->index));
    if (view->index)
        index_settle(view);
    if (!view->index) {
        refuse(view, view->index_err);
        return;
    }
    /* A digest that waits is no work: while the timer runs, the view would turn for nothing. */
    work = (view->behind && !view->retry_timed) || view->settling ||
           (view->digests && !digest_waits(view, view->digests));
    if (work && !view->work_posted) {
        view->work_posted = true;
        td_actor_post(view->actor, &view->work);
    }
}

static const td_actor_ops view_ops = {.name = "view", .handle = handle, .drained = drained};

static void message_init(td_message *message, enum message_kind kind)
{
    message->kind = kind;
    message->drop = nothing_drop;
}

tandem_err td_document_view_open(td_host *host, td_op_store *ops,
                                 const td_model_registry *registry, td_index_open_fn index_open,
                                 void *index_context, void (*indexed)(void *, uint64_t position),
                                 void *indexed_context, td_document_view **out)
{
    td_document_view *view = calloc(1, sizeof(*view));
    uint64_t committed;
    tandem_err err;

    if (!view)
        return TANDEM_E_NOMEM;
    view->env = host->runtime->env;
    view->ops = ops;
    view->registry = registry;
    view->index_open = index_open;
    view->index_context = index_context;
    view->indexed = indexed;
    view->indexed_context = indexed_context;
    view->digests_end = &view->digests;
    view->try_open = true;
    message_init(&view->committed_message, COMMITTED);
    message_init(&view->look_timer, LOOK);
    message_init(&view->work, WORK);
    message_init(&view->commit_timer, COMMIT_DUE);
    message_init(&view->retry_timer, RETRY);
    message_init(&view->close_message, CLOSE);
    view->close_message.drop = close_drop;
    /* What waits for a position of former times must not wait for it to be committed. */
    if ((err = td_op_store_last_ordinal(ops, &committed)) != TANDEM_OK ||
        (err = td_folder_open(ops, registry, TD_VIEW_STATES_MAX, &view->folder)) != TANDEM_OK) {
        free(view);
        return err;
    }
    atomic_init(&view->committed, committed);
    if ((err = td_actor_open(host, &view_ops, view, &view->actor)) != TANDEM_OK) {
        td_folder_free(view->folder);
        free(view);
        return err;
    }
    view->work_posted = true;
    td_actor_post(view->actor, &view->work);
    *out = view;
    return TANDEM_OK;
}

void td_document_view_close(td_document_view *view)
{
    td_runtime *runtime = td_actor_host(view->actor)->runtime;

    /* Without memory for a reply the index is left as it is: nothing is lost but time. */
    if (td_reply_open(runtime, &view->closing) != TANDEM_OK)
        return;
    td_actor_post(view->actor, &view->close_message);
    td_reply_wait(view->closing, UINT64_MAX);
    td_reply_free(view->closing);
}

void td_document_view_free(td_document_view *view)
{
    struct digest *digest;
    td_message *message;

    if (!view)
        return;
    td_actor_free(view->actor);
    while ((message = td_message_list_pop(&view->waiting)))
        finish(request_of(message), TANDEM_E_CLOSED);
    while ((digest = view->digests)) {
        view->digests = digest->next;
        finish(digest->request, TANDEM_E_CLOSED);
        digest_free(digest);
    }
    td_folder_free(view->folder);
    td_stream_index_free(view->index);
    free(view);
}

void td_document_view_committed(td_document_view *view, uint64_t position)
{
    uint64_t known = atomic_load(&view->committed);

    while (known < position && !atomic_compare_exchange_weak(&view->committed, &known, position))
        ;
    if (!atomic_exchange(&view->committed_posted, true))
        td_actor_post(view->actor, &view->committed_message);
}

void td_document_view_post(td_document_view *view, td_view_request *request)
{
    assert(request->done);
    request->err = TANDEM_OK;
    request->why[0] = '\0';
    request->retried = false;
    request->more = false;
    request->rebuilt = request->damaged = false;
    request->corrupt = 0;
    memset(&request->info, 0, sizeof(request->info));
    request->operations = 0;
    request->documents = 0;
    tandem_writer_init(&request->out);
    if (request->kind == TD_VIEW_PREPARE)
        request->group->err = TANDEM_OK;
    request->message.kind = REQUEST;
    request->message.drop = request_drop;
    td_actor_post(view->actor, &request->message);
}
