/*
 * The store in memory: one persistent AVL tree per table.
 *
 * Trees share what they have in common. A version is one root per table; it never changes, so a
 * reader holds the version it began with and needs no lock while it reads. The writer copies the
 * nodes on its way to a change, once per transaction, and edits its own copies in place; to commit
 * is to put its roots in the place of the disk's version. What nobody points to any more is freed,
 * by reference counts. Shape and order depend on the keys and the order of the calls alone.
 *
 * A node that fails to be copied leaves a tree that is in order, if out of balance, so running out
 * of memory is like any failed put: the transaction is aborted and nothing is lost.
 */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "store/probe.h"
#include "store/store.h"

/* A key with its value; never changes. */
struct entry {
    atomic_uint refs;
    uint32_t key_size;
    size_t value_size;
    uint8_t bytes[]; /* key, value */
};

struct node {
    atomic_uint refs; /* parents and roots that point here */
    int height;
    uint64_t edit; /* the writing transaction that made it and may change it */
    struct node *left;
    struct node *right;
    struct entry *entry;
};

struct version {
    atomic_uint refs;
    uint64_t bytes;
    struct node *roots[TD_STORE_TABLES_MAX];
};

struct td_memory_disk {
    pthread_mutex_t lock;
    struct version *version; /* under lock: what is committed */
    uint64_t edits;          /* writing transactions begun, ever */
    const char *names[TD_STORE_TABLES_MAX];
    unsigned count;
    bool in_use;
};

struct memory_txn {
    td_txn base;
    bool writing;
    uint64_t edit;
    uint64_t changes; /* counts puts and deletes, see memory_next() */
    tandem_err err;   /* of a failed put: all that is left is to abort */
    struct version *version; /* the writer's is its own until commit */
};

struct memory_cursor {
    td_cursor base;
    unsigned slot;
    const struct entry *at; /* NULL: not placed */
    uint64_t changes;       /* of the transaction, when it was placed */
};

struct memory_store {
    td_store base;
    tandem_env *env;
    td_memory_disk *disk;
    bool disk_is_private;
    unsigned count;
    unsigned slots[TD_STORE_TABLES_MAX]; /* the disk's number of each table */
    atomic_uint reading;

    /* The writer's thread only. */
    struct memory_txn *writer; /* NULL if none is open */
    bool recover_due;
    tandem_err put_fails;
    tandem_err commit_fails;
};

static struct memory_store *store_of(td_store *store)
{
    return (struct memory_store *)store;
}

static struct memory_txn *txn_of(td_txn *txn)
{
    return (struct memory_txn *)txn;
}

/* True if that was the last reference. The order makes all that others did to it visible first. */
static bool unref(atomic_uint *refs)
{
    return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}

static void ref(atomic_uint *refs)
{
    atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}

/* ---- Entries ---- */

/* Its value is not written yet. */
static struct entry *entry_new(tandem_slice key, size_t value_size)
{
    struct entry *entry = malloc(sizeof(*entry) + key.size + value_size);

    if (!entry)
        return NULL;
    atomic_init(&entry->refs, 1);
    entry->key_size = (uint32_t)key.size;
    entry->value_size = value_size;
    memcpy(entry->bytes, key.bytes, key.size);
    return entry;
}

static void entry_release(struct entry *entry)
{
    if (entry && unref(&entry->refs))
        free(entry);
}

static tandem_slice entry_key(const struct entry *entry)
{
    return tandem_slice_of(entry->bytes, entry->key_size);
}

static tandem_slice entry_value(const struct entry *entry)
{
    return tandem_slice_of(entry->bytes + entry->key_size, entry->value_size);
}

static uint64_t entry_bytes(const struct entry *entry)
{
    return sizeof(struct node) + sizeof(*entry) + entry->key_size + entry->value_size;
}

/* ---- Trees ---- */

static int height(const struct node *node)
{
    return node ? node->height : 0;
}

static void update_height(struct node *node)
{
    int left = height(node->left), right = height(node->right);

    node->height = 1 + (left > right ? left : right);
}

/* As deep as the tree is high, which is at most 1.44 log2 of its entries. */
static void node_release(struct node *node)
{
    if (!node || !unref(&node->refs))
        return;
    node_release(node->left);
    node_release(node->right);
    entry_release(node->entry);
    free(node);
}

/* Takes entry over; on failure it does not. */
static struct node *node_new(uint64_t edit, struct entry *entry)
{
    struct node *node = calloc(1, sizeof(*node));

    if (!node)
        return NULL;
    atomic_init(&node->refs, 1);
    node->height = 1;
    node->edit = edit;
    node->entry = entry;
    return node;
}

/* Make *link, which the caller's tree holds, a node that this transaction may change. */
static tandem_err own(uint64_t edit, struct node **link)
{
    struct node *node = *link, *copy;

    if (node->edit == edit)
        return TANDEM_OK;
    copy = node_new(edit, node->entry);
    if (!copy)
        return TANDEM_E_NOMEM;
    ref(&node->entry->refs);
    copy->height = node->height;
    if ((copy->left = node->left))
        ref(&copy->left->refs);
    if ((copy->right = node->right))
        ref(&copy->right->refs);
    *link = copy;
    node_release(node);
    return TANDEM_OK;
}

/* Both nodes that a rotation changes are the transaction's own. */
static void rotate_right(struct node **link)
{
    struct node *node = *link, *left = node->left;

    node->left = left->right;
    left->right = node;
    *link = left;
    update_height(node);
    update_height(left);
}

static void rotate_left(struct node **link)
{
    struct node *node = *link, *right = node->right;

    node->right = right->left;
    right->left = node;
    *link = right;
    update_height(node);
    update_height(right);
}

/* Restore the balance of *link, which is the transaction's own, after a change below it. */
static tandem_err rebalance(uint64_t edit, struct node **link)
{
    struct node *node = *link;
    int lean = height(node->left) - height(node->right);

    if (lean > 1) {
        if (own(edit, &node->left) != TANDEM_OK)
            return TANDEM_E_NOMEM;
        if (height(node->left->left) < height(node->left->right)) {
            if (own(edit, &node->left->right) != TANDEM_OK)
                return TANDEM_E_NOMEM;
            rotate_left(&node->left);
        }
        rotate_right(link);
    } else if (lean < -1) {
        if (own(edit, &node->right) != TANDEM_OK)
            return TANDEM_E_NOMEM;
        if (height(node->right->right) < height(node->right->left)) {
            if (own(edit, &node->right->left) != TANDEM_OK)
                return TANDEM_E_NOMEM;
            rotate_right(&node->right);
        }
        rotate_left(link);
    } else {
        update_height(node);
    }
    return TANDEM_OK;
}

/*
 * Insert or replace. *entry is taken and set to NULL, or to what it replaced; if it is not taken,
 * it stays.
 */
static tandem_err tree_put(uint64_t edit, struct node **link, struct entry **entry)
{
    struct node *node = *link;
    tandem_err err;
    int order;

    if (!node) {
        *link = node_new(edit, *entry);
        if (!*link)
            return TANDEM_E_NOMEM;
        *entry = NULL;
        return TANDEM_OK;
    }
    if ((err = own(edit, link)) != TANDEM_OK)
        return err;
    node = *link;
    order = tandem_slice_compare(entry_key(*entry), entry_key(node->entry));
    if (order == 0) {
        struct entry *replaced = node->entry;

        node->entry = *entry;
        *entry = replaced;
        return TANDEM_OK;
    }
    if ((err = tree_put(edit, order < 0 ? &node->left : &node->right, entry)) != TANDEM_OK)
        return err;
    return rebalance(edit, link);
}

/* Put the one child that *link, the transaction's own, has at most in its place. */
static void unlink_node(struct node **link)
{
    struct node *node = *link;

    assert(!node->left || !node->right);
    *link = node->left ? node->left : node->right;
    node->left = node->right = NULL;
    node_release(node);
}

/* Take the smallest entry out. *entry_out is set if that happened, even where balancing failed. */
static tandem_err tree_take_first(uint64_t edit, struct node **link, struct entry **entry_out)
{
    struct node *node;
    tandem_err err;

    if ((err = own(edit, link)) != TANDEM_OK)
        return err;
    node = *link;
    if (!node->left) {
        *entry_out = node->entry;
        node->entry = NULL;
        unlink_node(link);
        return TANDEM_OK;
    }
    if ((err = tree_take_first(edit, &node->left, entry_out)) != TANDEM_OK)
        return err;
    return rebalance(edit, link);
}

/* Delete key, which is there. */
static tandem_err tree_del(uint64_t edit, struct node **link, tandem_slice key)
{
    struct node *node;
    tandem_err err;
    int order;

    if ((err = own(edit, link)) != TANDEM_OK)
        return err;
    node = *link;
    order = tandem_slice_compare(key, entry_key(node->entry));
    if (order != 0) {
        err = tree_del(edit, order < 0 ? &node->left : &node->right, key);
    } else if (!node->left || !node->right) {
        unlink_node(link);
        return TANDEM_OK;
    } else {
        struct entry *successor = NULL;

        err = tree_take_first(edit, &node->right, &successor);
        if (successor) {
            entry_release(node->entry);
            node->entry = successor;
        }
    }
    return err == TANDEM_OK ? rebalance(edit, link) : err;
}

static const struct entry *tree_get(const struct node *node, tandem_slice key)
{
    while (node) {
        int order = tandem_slice_compare(key, entry_key(node->entry));

        if (order == 0)
            return node->entry;
        node = order < 0 ? node->left : node->right;
    }
    return NULL;
}

/* The first entry with a key >= key, or > key if that is asked. NULL if there is none. */
static const struct entry *tree_from(const struct node *node, tandem_slice key, bool after)
{
    const struct entry *found = NULL;

    while (node) {
        int order = tandem_slice_compare(key, entry_key(node->entry));

        if (order < 0 || (order == 0 && !after)) {
            found = node->entry;
            node = node->left;
        } else {
            node = node->right;
        }
    }
    return found;
}

/* The last entry with a key < key (an empty key: the last of all). NULL if there is none. */
static const struct entry *tree_before(const struct node *node, tandem_slice key)
{
    const struct entry *found = NULL;

    while (node) {
        if (key.size == 0 || tandem_slice_compare(entry_key(node->entry), key) < 0) {
            found = node->entry;
            node = node->right;
        } else {
            node = node->left;
        }
    }
    return found;
}

/* ---- Versions and the disk ---- */

static void version_release(struct version *version)
{
    if (!version || !unref(&version->refs))
        return;
    for (unsigned i = 0; i < TD_STORE_TABLES_MAX; i++)
        node_release(version->roots[i]);
    free(version);
}

static struct version *disk_version(td_memory_disk *disk)
{
    struct version *version;

    pthread_mutex_lock(&disk->lock);
    version = disk->version;
    ref(&version->refs);
    pthread_mutex_unlock(&disk->lock);
    return version;
}

/* A version of the writer's own, with the contents of the disk's. */
static struct version *version_copy(td_memory_disk *disk)
{
    struct version *base, *copy = calloc(1, sizeof(*copy));

    if (!copy)
        return NULL;
    base = disk_version(disk);
    atomic_init(&copy->refs, 1);
    copy->bytes = base->bytes;
    for (unsigned i = 0; i < TD_STORE_TABLES_MAX; i++)
        if ((copy->roots[i] = base->roots[i]))
            ref(&copy->roots[i]->refs);
    version_release(base);
    return copy;
}

tandem_err td_memory_disk_open(td_memory_disk **out)
{
    td_memory_disk *disk = calloc(1, sizeof(*disk));

    if (!disk)
        return TANDEM_E_NOMEM;
    pthread_mutex_init(&disk->lock, NULL);
    disk->version = calloc(1, sizeof(*disk->version));
    if (!disk->version) {
        td_memory_disk_free(disk);
        return TANDEM_E_NOMEM;
    }
    atomic_init(&disk->version->refs, 1);
    *out = disk;
    return TANDEM_OK;
}

tandem_err td_memory_disk_copy(td_memory_disk *disk, td_memory_disk **out)
{
    td_memory_disk *copy;
    tandem_err err = td_memory_disk_open(&copy);

    if (err != TANDEM_OK)
        return err;
    version_release(copy->version);
    copy->version = disk_version(disk);
    memcpy(copy->names, disk->names, sizeof(copy->names));
    copy->count = disk->count;
    copy->edits = disk->edits;
    *out = copy;
    return TANDEM_OK;
}

void td_memory_disk_free(td_memory_disk *disk)
{
    if (!disk)
        return;
    assert(!disk->in_use);
    version_release(disk->version);
    pthread_mutex_destroy(&disk->lock);
    free(disk);
}

/* The disk's number of a table, given to it now if it has none. */
static tandem_err disk_slot(td_memory_disk *disk, const char *name, unsigned *slot_out)
{
    unsigned i = 0;

    while (i < disk->count && strcmp(disk->names[i], name) != 0)
        i++;
    if (i == TD_STORE_TABLES_MAX)
        return TANDEM_E_LIMIT;
    if (i == disk->count)
        disk->names[disk->count++] = name;
    *slot_out = i;
    return TANDEM_OK;
}

/* ---- Transactions ---- */

static tandem_err txn_new(td_store *store, bool writing, struct memory_txn **out)
{
    struct memory_store *s = store_of(store);
    struct memory_txn *txn = calloc(1, sizeof(*txn));

    if (!txn)
        return TANDEM_E_NOMEM;
    txn->base.store = store;
    txn->writing = writing;
    txn->version = writing ? version_copy(s->disk) : disk_version(s->disk);
    if (!txn->version) {
        free(txn);
        return TANDEM_E_NOMEM;
    }
    *out = txn;
    return TANDEM_OK;
}

static tandem_err memory_begin_write(td_store *store, td_txn **out)
{
    struct memory_store *s = store_of(store);
    tandem_err err;

    assert(!s->writer);
    if (s->recover_due)
        return TANDEM_E_STATE;
    if ((err = td_disk_fault(s->env, TD_DISK_BEGIN)) != TANDEM_OK ||
        (err = txn_new(store, true, &s->writer)) != TANDEM_OK)
        return err;
    s->writer->edit = ++s->disk->edits;
    *out = &s->writer->base;
    return TANDEM_OK;
}

static tandem_err memory_begin_read(td_store *store, td_txn **out)
{
    struct memory_txn *txn;
    tandem_err err = txn_new(store, false, &txn);

    if (err != TANDEM_OK)
        return err;
    ref(&store_of(store)->reading);
    *out = &txn->base;
    return TANDEM_OK;
}

static void memory_abort(td_txn *base)
{
    struct memory_txn *txn = txn_of(base);
    struct memory_store *s;

    if (!txn)
        return;
    s = store_of(base->store);
    version_release(txn->version);
    if (txn->writing)
        s->writer = NULL;
    else
        unref(&s->reading);
    free(txn);
}

static tandem_err memory_commit(td_txn *base)
{
    struct memory_txn *txn = txn_of(base);
    struct memory_store *s = store_of(base->store);
    tandem_err err = txn->err != TANDEM_OK ? txn->err : s->commit_fails;

    assert(txn->writing);
    if (err == TANDEM_OK)
        err = td_disk_fault(s->env, TD_DISK_COMMIT);
    if (err == TANDEM_OK) {
        struct version *old;

        pthread_mutex_lock(&s->disk->lock);
        old = s->disk->version;
        s->disk->version = txn->version;
        pthread_mutex_unlock(&s->disk->lock);
        txn->version = old; /* goes with the transaction */
        err = td_disk_fault(s->env, TD_DISK_COMMITTED);
    }
    if (err != TANDEM_OK)
        s->recover_due = true;
    memory_abort(base);
    return err;
}

static struct node **root_of(struct memory_txn *txn, unsigned table)
{
    struct memory_store *s = store_of(txn->base.store);

    assert(table < s->count);
    return &txn->version->roots[s->slots[table]];
}

static void check_key(tandem_slice key)
{
    assert(key.size >= 1 && key.size <= TD_STORE_KEY_BYTES_MAX);
}

static tandem_err fail(struct memory_txn *txn, tandem_err err)
{
    txn->err = err;
    store_of(txn->base.store)->recover_due = true;
    return err;
}

static tandem_err memory_get(td_txn *base, unsigned table, tandem_slice key,
                             tandem_slice *value_out)
{
    struct memory_txn *txn = txn_of(base);
    const struct entry *entry;

    check_key(key);
    if (txn->err != TANDEM_OK)
        return txn->err;
    entry = tree_get(*root_of(txn, table), key);
    if (!entry)
        return TANDEM_E_NOT_FOUND;
    *value_out = entry_value(entry);
    return TANDEM_OK;
}

static tandem_err memory_reserve(td_txn *base, unsigned table, tandem_slice key, size_t size,
                                 uint8_t **room_out)
{
    struct memory_txn *txn = txn_of(base);
    struct memory_store *s = store_of(base->store);
    struct entry *entry;
    uint64_t bytes;
    tandem_err err;

    check_key(key);
    assert(txn->writing && size <= UINT32_MAX);
    if (txn->err != TANDEM_OK)
        return txn->err;
    txn->changes++;
    if (s->put_fails != TANDEM_OK)
        return fail(txn, s->put_fails);
    if ((err = td_disk_fault(s->env, TD_DISK_PUT)) != TANDEM_OK)
        return fail(txn, err);
    entry = entry_new(key, size);
    if (!entry)
        return fail(txn, TANDEM_E_NOMEM);
    *room_out = entry->bytes + key.size;
    bytes = entry_bytes(entry);
    err = tree_put(txn->edit, root_of(txn, table), &entry);
    if (err == TANDEM_OK) {
        txn->version->bytes += bytes;
        if (entry)
            txn->version->bytes -= entry_bytes(entry);
    }
    entry_release(entry);
    return err == TANDEM_OK ? TANDEM_OK : fail(txn, err);
}

static tandem_err memory_put(td_txn *base, unsigned table, tandem_slice key, tandem_slice value)
{
    uint8_t *room;
    tandem_err err = memory_reserve(base, table, key, value.size, &room);

    if (err == TANDEM_OK && value.size)
        memcpy(room, value.bytes, value.size);
    return err;
}

static tandem_err memory_del(td_txn *base, unsigned table, tandem_slice key)
{
    struct memory_txn *txn = txn_of(base);
    const struct entry *entry;
    uint64_t bytes;
    tandem_err err;

    check_key(key);
    assert(txn->writing);
    if (txn->err != TANDEM_OK)
        return txn->err;
    txn->changes++;
    entry = tree_get(*root_of(txn, table), key);
    if (!entry) /* first, so that nothing is copied in vain */
        return TANDEM_E_NOT_FOUND;
    bytes = entry_bytes(entry);
    if ((err = td_disk_fault(store_of(base->store)->env, TD_DISK_PUT)) != TANDEM_OK)
        return fail(txn, err);
    if ((err = tree_del(txn->edit, root_of(txn, table), key)) != TANDEM_OK)
        return fail(txn, err);
    txn->version->bytes -= bytes;
    return TANDEM_OK;
}

/* ---- Cursors ---- */

static tandem_err memory_cursor_open(td_txn *base, unsigned table, td_cursor **out)
{
    struct memory_store *s = store_of(base->store);
    struct memory_cursor *cursor;

    assert(table < s->count);
    if (txn_of(base)->err != TANDEM_OK)
        return txn_of(base)->err;
    cursor = calloc(1, sizeof(*cursor));
    if (!cursor)
        return TANDEM_E_NOMEM;
    cursor->base.txn = base;
    cursor->slot = s->slots[table];
    *out = &cursor->base;
    return TANDEM_OK;
}

static const struct node *cursor_root(const struct memory_cursor *cursor)
{
    return txn_of(cursor->base.txn)->version->roots[cursor->slot];
}

static tandem_err land(struct memory_cursor *cursor, const struct entry *entry,
                       tandem_slice *key_out, tandem_slice *value_out)
{
    cursor->at = entry;
    cursor->changes = txn_of(cursor->base.txn)->changes;
    if (!entry)
        return TANDEM_END;
    *key_out = entry_key(entry);
    *value_out = entry_value(entry);
    return TANDEM_OK;
}

static tandem_err memory_seek(td_cursor *base, tandem_slice key, tandem_slice *key_out,
                              tandem_slice *value_out)
{
    struct memory_cursor *cursor = (struct memory_cursor *)base;

    assert(key.size <= TD_STORE_KEY_BYTES_MAX);
    if (txn_of(base->txn)->err != TANDEM_OK)
        return txn_of(base->txn)->err;
    return land(cursor, tree_from(cursor_root(cursor), key, false), key_out, value_out);
}

static tandem_err memory_seek_before(td_cursor *base, tandem_slice key, tandem_slice *key_out,
                                     tandem_slice *value_out)
{
    struct memory_cursor *cursor = (struct memory_cursor *)base;

    assert(key.size <= TD_STORE_KEY_BYTES_MAX);
    if (txn_of(base->txn)->err != TANDEM_OK)
        return txn_of(base->txn)->err;
    return land(cursor, tree_before(cursor_root(cursor), key), key_out, value_out);
}

static tandem_err memory_next(td_cursor *base, tandem_slice *key_out, tandem_slice *value_out)
{
    struct memory_cursor *cursor = (struct memory_cursor *)base;
    struct memory_txn *txn = txn_of(base->txn);

    if (txn->err != TANDEM_OK)
        return txn->err;
    if (!cursor->at)
        return TANDEM_END;
    assert(cursor->changes == txn->changes); /* else seek again first */
    return land(cursor, tree_from(cursor_root(cursor), entry_key(cursor->at), true), key_out,
                value_out);
}

static void memory_cursor_free(td_cursor *base)
{
    free(base);
}

/* ---- The store ---- */

static tandem_err memory_recover(td_store *store)
{
    struct memory_store *s = store_of(store);
    tandem_err err = td_disk_fault(s->env, TD_DISK_BEGIN);

    assert(!s->writer);
    s->recover_due = err != TANDEM_OK;
    return err;
}

/* Nothing lies beneath the tables that could be damaged. */
static tandem_err memory_check(td_store *store, char why[TD_STORE_WHY_BYTES])
{
    why[0] = '\0';
    return TANDEM_OK;
}

static uint64_t memory_bytes(td_store *store)
{
    struct version *version = disk_version(store_of(store)->disk);
    uint64_t bytes = version->bytes;

    version_release(version);
    return bytes;
}

static void memory_reader_check(td_store *store)
{
    /* Readers here are of this process: none crashes alone. */
}

static void memory_free(td_store *store)
{
    struct memory_store *s = store_of(store);

    if (!s)
        return;
    assert(atomic_load(&s->reading) == 0);
    if (s->writer)
        memory_abort(&s->writer->base);
    if (s->disk)
        s->disk->in_use = false;
    if (s->disk_is_private)
        td_memory_disk_free(s->disk);
    free(s);
}

static const struct td_store_ops memory_store_ops = {
    .name = "memory",
    .begin_write = memory_begin_write,
    .begin_read = memory_begin_read,
    .commit = memory_commit,
    .abort = memory_abort,
    .get = memory_get,
    .put = memory_put,
    .reserve = memory_reserve,
    .del = memory_del,
    .cursor_open = memory_cursor_open,
    .seek = memory_seek,
    .seek_before = memory_seek_before,
    .next = memory_next,
    .cursor_free = memory_cursor_free,
    .recover = memory_recover,
    .check = memory_check,
    .bytes = memory_bytes,
    .reader_check = memory_reader_check,
    .free = memory_free,
};

tandem_err td_memory_store_open(tandem_env *env, td_memory_disk *disk, const char *const *names,
                                unsigned count, td_store **out)
{
    struct memory_store *s = calloc(1, sizeof(*s));
    tandem_err err = TANDEM_OK;

    assert(count >= 1 && count <= TD_STORE_TABLES_MAX);
    td_store_check(&memory_store_ops);
    if (!s)
        return TANDEM_E_NOMEM;
    s->base.ops = &memory_store_ops;
    s->env = env;
    s->count = count;
    s->disk_is_private = !disk;
    if (!disk && (err = td_memory_disk_open(&disk)) != TANDEM_OK)
        goto fail;
    assert(!disk->in_use);
    disk->in_use = true;
    s->disk = disk;
    for (unsigned i = 0; i < count; i++)
        if ((err = disk_slot(disk, names[i], &s->slots[i])) != TANDEM_OK)
            goto fail;
    *out = &s->base;
    return TANDEM_OK;

fail:
    memory_free(&s->base);
    return err;
}

void td_memory_store_fail(td_store *store, tandem_err err, bool at_commit)
{
    struct memory_store *s = store_of(store);

    assert(store->ops == &memory_store_ops);
    s->put_fails = at_commit ? TANDEM_OK : err;
    s->commit_fails = at_commit ? err : TANDEM_OK;
}
