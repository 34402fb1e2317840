#include "store/lmdb_check.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- The format ---- */

enum {
    DATA_VERSION = 1,
    PAGE_BYTES_MIN = 512,
    PAGE_BYTES_MAX = 32768,
    METAS = 2,
    LEVELS_MAX = 32, /* LMDB's cursor has no more */
    KEY_BYTES_MAX = 511,
    /* Pages of one transaction: the last of them may be freed in it and never written. */
    DIRTY_PAGES_MAX = 131072,

    PAGE_BRANCH = 1,
    PAGE_LEAF = 2,
    PAGE_OVERFLOW = 4,
    PAGE_META = 8,
    NODE_BIG = 1,   /* the value is the number of an overflow page */
    NODE_TABLE = 2, /* the value is a struct tree */
    TREE_INTEGER_KEYS = 8,
};

static const uint32_t MAGIC = 0xbeefc0de;
static const size_t NO_PAGE = SIZE_MAX;

struct page {
    size_t number;
    uint16_t pad, flags;
    uint16_t lower, upper; /* of an overflow page: the count of its pages, 32 bits */
};

struct node {
#if __BYTE_ORDER == __LITTLE_ENDIAN
    uint16_t low, high;
#else
    uint16_t high, low;
#endif
    uint16_t flags, key_bytes;
};

struct tree {
    uint32_t pad; /* of the first of the meta page: the size of pages */
    uint16_t flags, depth;
    size_t branch_pages, leaf_pages, overflow_pages, entries, root;
};

struct meta {
    uint32_t magic, version;
    void *address;
    size_t map_bytes;
    struct tree free, main;
    size_t last, txn;
};

enum { META_BYTES = sizeof(struct page) + sizeof(struct meta) };

_Static_assert(sizeof(struct page) == sizeof(size_t) + 8, "as LMDB lays it out");
_Static_assert(sizeof(struct node) == 8, "as LMDB lays it out");
_Static_assert(sizeof(struct tree) == 8 + 5 * sizeof(size_t), "as LMDB lays it out");

/* ---- Reading ---- */

struct check {
    int fd;
    uint64_t file_pages;
    size_t page_bytes;
    struct meta meta;
    char *why;

    /* The walk */
    uint8_t *met;              /* a bit a page */
    uint8_t *level[LEVELS_MAX]; /* a page each: those on the way to the one that is looked at */
    const char *name;          /* of the tree, for sentences */
    const struct tree *tree;
    uint64_t entries;
    struct table {
        struct tree tree;
        char name[32];
    } tables[TD_STORE_TABLES_MAX];
    unsigned table_count;
};

static tandem_err say(const struct check *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static tandem_err say(const struct check *c, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(c->why, TD_STORE_WHY_BYTES, format, args);
    va_end(args);
    return TANDEM_E_CORRUPT;
}

static tandem_err say_page(const struct check *c, size_t number, const char *what)
{
    return say(c, "page %zu of %s: %s", number, c->name, what);
}

static tandem_err read_at(const struct check *c, void *out, size_t size, uint64_t offset)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = pread(c->fd, (char *)out + done, size - done, (off_t)(offset + done));

        if (got > 0)
            done += (size_t)got;
        else if (got == 0)
            return say(c, "the file ends at byte %" PRIu64, offset + done);
        else if (errno != EINTR) {
            say(c, "byte %" PRIu64 " cannot be read: %s", offset + done, strerror(errno));
            return TANDEM_E_IO;
        }
    }
    return TANDEM_OK;
}

/* ---- The meta pages ---- */

static tandem_err meta_read(const struct check *c, uint64_t offset, struct meta *out)
{
    uint8_t bytes[META_BYTES];
    struct page page;
    tandem_err err = read_at(c, bytes, sizeof(bytes), offset);

    if (err)
        return err;
    memcpy(&page, bytes, sizeof(page));
    memcpy(out, bytes + sizeof(page), sizeof(*out));
    if (page.flags == PAGE_META && out->magic == MAGIC && out->version == DATA_VERSION)
        return TANDEM_OK;
    say(c, "there is no meta page at byte %" PRIu64, offset);
    return TANDEM_E_FORMAT;
}

/* Read both meta pages, and keep the one of txn. */
static tandem_err metas_check(struct check *c, uint64_t txn, uint64_t file_bytes)
{
    struct meta metas[METAS];
    tandem_err err;
    unsigned at;

    if ((err = meta_read(c, 0, &metas[0])) != TANDEM_OK)
        return err;
    c->page_bytes = metas[0].free.pad;
    if (c->page_bytes < PAGE_BYTES_MIN || c->page_bytes > PAGE_BYTES_MAX ||
        c->page_bytes & (c->page_bytes - 1))
        return say(c, "pages cannot have %zu bytes", c->page_bytes);
    if ((err = meta_read(c, c->page_bytes, &metas[1])) != TANDEM_OK)
        return err;
    if (txn == TD_LMDB_NEWEST) {
        at = metas[0].txn < metas[1].txn;
        if ((metas[at].txn & 1) != at) /* LMDB would take the other one */
            return say(c, "transaction %zu stands in the wrong meta page", metas[at].txn);
    } else {
        at = txn & 1;
        if (metas[at].txn != txn)
            return TANDEM_E_STATE;
    }
    c->meta = metas[at];
    c->file_pages = file_bytes / c->page_bytes;
    if (c->meta.free.pad != c->page_bytes || c->meta.free.flags != TREE_INTEGER_KEYS ||
        c->meta.main.flags != 0)
        return say(c, "meta page %u does not describe such a file", at);
    if (c->meta.last < METAS - 1 || c->meta.last >= c->file_pages + DIRTY_PAGES_MAX)
        return say(c, "the file has %" PRIu64 " pages and should have %zu", c->file_pages,
                   c->meta.last + 1);
    return TANDEM_OK;
}

/* ---- The walk ---- */

/* Pages are used once: by a tree or by the list of free ones. */
static tandem_err meet(struct check *c, size_t number, bool is_free)
{
    uint8_t bit = (uint8_t)(1u << (number % 8));

    if (number < METAS || number > c->meta.last || (!is_free && number >= c->file_pages))
        return say_page(c, number, "there is no such page in the file");
    if (c->met[number / 8] & bit)
        return say_page(c, number, is_free ? "it is free, and in use or free twice"
                                           : "it is in use twice");
    c->met[number / 8] |= bit;
    return TANDEM_OK;
}

/* Read a page that was not met before; what follows its header is not looked at yet. */
static tandem_err page_read(struct check *c, size_t number, uint8_t *out, struct page *head)
{
    tandem_err err = meet(c, number, false);

    if (err || (err = read_at(c, out, c->page_bytes, (uint64_t)number * c->page_bytes)))
        return err;
    memcpy(head, out, sizeof(*head));
    return head->number == number ? TANDEM_OK : say_page(c, number, "it has another page's number");
}

/*
 * The value of size bytes that begins on an overflow page. LMDB writes a shorter value over a
 * longer one of the same transaction, so there may be more pages than it takes.
 *
 * out   NULL, or receives a copy of the value, to be freed
 */
static tandem_err overflow_check(struct check *c, size_t first, size_t size, uint8_t **out)
{
    size_t needed = (sizeof(struct page) + size - 1) / c->page_bytes + 1, left = size;
    uint8_t *page = malloc(c->page_bytes), *value = NULL;
    size_t skip = sizeof(struct page);
    uint32_t pages = 0;
    struct page head;
    tandem_err err;

    if (!page)
        return TANDEM_E_NOMEM;
    if ((err = page_read(c, first, page, &head)) != TANDEM_OK)
        goto out;
    memcpy(&pages, page + offsetof(struct page, lower), sizeof(pages));
    if (head.flags != PAGE_OVERFLOW || pages < needed || pages > c->file_pages) {
        err = say_page(c, first, "it does not begin a value of such a size");
        goto out;
    }
    if (out && !(value = malloc(size))) {
        err = TANDEM_E_NOMEM;
        goto out;
    }
    for (size_t i = 0; i < pages && err == TANDEM_OK; i++, skip = 0) {
        size_t here = left < c->page_bytes - skip ? left : c->page_bytes - skip;

        if (i && (err = meet(c, first + i, false)) == TANDEM_OK)
            err = read_at(c, page, c->page_bytes, ((uint64_t)first + i) * c->page_bytes);
        if (value && here)
            memcpy(value + (size - left), page + skip, here);
        left -= here;
    }
    if (err == TANDEM_OK && out) {
        *out = value;
        value = NULL;
    }

out:
    free(value);
    free(page);
    return err;
}

/* A list of free pages: their count, then as many numbers, each below the one before it. */
static tandem_err free_check(struct check *c, size_t page, const uint8_t *value, size_t size)
{
    size_t count = 0, number, before = SIZE_MAX;
    tandem_err err = TANDEM_OK;

    if (size >= sizeof(count))
        memcpy(&count, value, sizeof(count));
    if (size < sizeof(count) || count > size / sizeof(count) - 1)
        return say_page(c, page, "a list of free pages is cut short");
    for (size_t i = 1; i <= count && err == TANDEM_OK; i++, before = number) {
        memcpy(&number, value + i * sizeof(number), sizeof(number));
        if (number >= before)
            return say_page(c, page, "a list of free pages is not in order");
        err = meet(c, number, true);
    }
    return err;
}

static tandem_err table_add(struct check *c, size_t page, tandem_slice name, const uint8_t *value)
{
    struct table *table = &c->tables[c->table_count];

    if (c->table_count == TD_STORE_TABLES_MAX || name.size >= sizeof(table->name))
        return say_page(c, page, "it names a table that is none of ours");
    memcpy(&table->tree, value, sizeof(table->tree));
    memcpy(table->name, name.bytes, name.size);
    table->name[name.size] = '\0';
    if (table->tree.flags != 0)
        return say_page(c, page, "it describes a table in a way that is not ours");
    c->table_count++;
    return TANDEM_OK;
}

static bool is_free_tree(const struct check *c)
{
    return c->tree == &c->meta.free;
}

/* The value of a leaf's node; at lies behind its key, and size bytes of it, or the number of an
 * overflow page, are on the page. */
static tandem_err value_check(struct check *c, size_t page, const struct node *node,
                              tandem_slice key, const uint8_t *at, size_t size)
{
    bool big = node->flags & NODE_BIG;
    uint8_t *value = NULL;
    size_t first;
    tandem_err err;

    c->entries++;
    if (c->tree == &c->meta.main)
        return node->flags == NODE_TABLE && size == sizeof(struct tree)
                   ? table_add(c, page, key, at)
                   : say_page(c, page, "it holds something else than tables");
    if (!big)
        return is_free_tree(c) ? free_check(c, page, at, size) : TANDEM_OK;
    memcpy(&first, at, sizeof(first));
    err = overflow_check(c, first, size, is_free_tree(c) ? &value : NULL);
    if (err == TANDEM_OK && value)
        err = free_check(c, first, value, size);
    free(value);
    return err;
}

/* Less than, equal to, greater than zero, as LMDB has it. */
static int key_compare(const struct check *c, tandem_slice a, tandem_slice b)
{
    size_t x, y;

    if (!is_free_tree(c))
        return tandem_slice_compare(a, b);
    memcpy(&x, a.bytes, sizeof(x));
    memcpy(&y, b.bytes, sizeof(y));
    return x < y ? -1 : x > y;
}

static bool key_fits(const struct check *c, tandem_slice key)
{
    return is_free_tree(c) ? key.size == sizeof(size_t)
                           : key.size >= 1 && key.size <= KEY_BYTES_MAX;
}

/* Node i of a page whose header was checked, if it lies within the page; false if not. */
static bool node_get(const struct check *c, const uint8_t *page, const struct page *head,
                     unsigned i, struct node *node, tandem_slice *key, const uint8_t **value)
{
    size_t size, at;
    uint16_t offset;

    memcpy(&offset, page + sizeof(*head) + 2 * (size_t)i, sizeof(offset));
    if (offset < head->upper || offset & 1 || offset + sizeof(*node) > c->page_bytes)
        return false;
    memcpy(node, page + offset, sizeof(*node));
    at = offset + sizeof(*node) + node->key_bytes;
    size = head->flags == PAGE_BRANCH   ? 0
           : node->flags & NODE_BIG     ? sizeof(size_t)
                                        : node->low | (size_t)node->high << 16;
    if (at > c->page_bytes || size > c->page_bytes - at)
        return false;
    *key = tandem_slice_of(page + offset + sizeof(*node), node->key_bytes);
    *value = page + at;
    return true;
}

/*
 * Do the entries lie on the page, and are its keys not less than low and less than high? An empty
 * one of these is no bound. The first key of a branch page is never looked at: it stands for low.
 */
static tandem_err entries_check(const struct check *c, const uint8_t *page, const struct page *head,
                                unsigned count, tandem_slice low, tandem_slice high)
{
    bool leaf = head->flags == PAGE_LEAF;
    tandem_slice before = low, key;
    const uint8_t *value;
    struct node node;

    for (unsigned i = 0; i < count; i++) {
        if (!node_get(c, page, head, i, &node, &key, &value))
            return say_page(c, head->number, "an entry does not lie on it");
        if (!leaf && i == 0)
            continue;
        if (!key_fits(c, key))
            return say_page(c, head->number, "a key cannot be");
        if (before.size && key_compare(c, before, key) >= (leaf && i == 0))
            return say_page(c, head->number, "a key is not in order");
        if (leaf && (node.flags & ~(unsigned)(NODE_BIG | NODE_TABLE) ||
                     (node.flags & NODE_TABLE && c->tree != &c->meta.main)))
            return say_page(c, head->number, "an entry is of another kind");
        before = key;
    }
    if (before.size && high.size && key_compare(c, before, high) >= 0)
        return say_page(c, head->number, "a key is not in order");
    return TANDEM_OK;
}

/* A page of the tree and all below it: as deep as the tree is, 32 at most. */
static tandem_err subtree_check(struct check *c, size_t number, unsigned level, tandem_slice low,
                                tandem_slice high)
{
    bool leaf = level + 1 == c->tree->depth;
    uint8_t *page = c->level[level];
    const uint8_t *value;
    struct page head;
    struct node node;
    tandem_slice key;
    unsigned count;
    tandem_err err;

    if (!page && !(page = c->level[level] = malloc(c->page_bytes)))
        return TANDEM_E_NOMEM;
    if ((err = page_read(c, number, page, &head)) != TANDEM_OK)
        return err;
    if (head.flags != (leaf ? PAGE_LEAF : PAGE_BRANCH))
        return say_page(c, number, "it is of another kind");
    if (head.lower < sizeof(head) || head.lower & 1 || head.lower > head.upper ||
        head.upper > c->page_bytes)
        return say_page(c, number, "its bounds cannot be");
    count = (unsigned)(head.lower - sizeof(head)) / 2;
    if (count < (leaf || is_free_tree(c) ? 1u : 2u)) /* LMDB asserts it */
        return say_page(c, number, "it has too few entries");
    if ((err = entries_check(c, page, &head, count, low, high)) != TANDEM_OK)
        return err;
    for (unsigned i = 0; i < count && err == TANDEM_OK; i++) {
        size_t size;
        tandem_slice next = high;

        if (!leaf && i + 1 < count)
            node_get(c, page, &head, i + 1, &node, &next, &value);
        node_get(c, page, &head, i, &node, &key, &value);
        size = node.low | (size_t)node.high << 16; /* of a value, or the number of a page */
        if (leaf)
            err = value_check(c, number, &node, key, value, size);
        else
            err = subtree_check(c, size | (size_t)((uint64_t)node.flags << 32), level + 1,
                                i ? key : low, next);
    }
    return err;
}

static tandem_err tree_check(struct check *c, const struct tree *tree, const char *name)
{
    tandem_slice none = {NULL, 0};
    tandem_err err = TANDEM_OK;

    c->tree = tree;
    c->name = name;
    c->entries = 0;
    if (tree->depth > LEVELS_MAX || (tree->depth == 0) != (tree->root == NO_PAGE))
        return say(c, "the tree of %s cannot be %u pages deep", name, tree->depth);
    if (tree->depth)
        err = subtree_check(c, tree->root, 0, none, none);
    if (err == TANDEM_OK && c->entries != tree->entries)
        err = say(c, "%zu entries of %s are counted, %" PRIu64 " are there", tree->entries, name,
                  c->entries);
    return err;
}

/* The free pages come last: what a tree uses is named by it, not by the list. */
static tandem_err walk_all(struct check *c)
{
    tandem_err err;

    c->met = calloc(c->meta.last / 8 + 1, 1);
    if (!c->met)
        err = TANDEM_E_NOMEM;
    else
        err = tree_check(c, &c->meta.main, "the list of tables");
    for (unsigned i = 0; i < c->table_count && err == TANDEM_OK; i++)
        err = tree_check(c, &c->tables[i].tree, c->tables[i].name);
    if (err == TANDEM_OK)
        err = tree_check(c, &c->meta.free, "the list of free pages");
    for (unsigned i = 0; i < LEVELS_MAX; i++)
        free(c->level[i]);
    free(c->met);
    return err;
}

tandem_err td_lmdb_check(const char *folder, uint64_t txn, bool walk, char why[TD_STORE_WHY_BYTES])
{
    struct check *c = NULL;
    char path[PATH_MAX];
    struct stat file;
    tandem_err err;
    int fd;

    why[0] = '\0';
    if ((size_t)snprintf(path, sizeof(path), "%s/data.mdb", folder) >= sizeof(path))
        return TANDEM_E_INVALID;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? TANDEM_OK : errno == EACCES ? TANDEM_E_PERMISSION : TANDEM_E_IO;
    err = fstat(fd, &file) == 0 ? TANDEM_OK : TANDEM_E_IO;
    if (err || file.st_size == 0)
        goto out;
    if (!(c = calloc(1, sizeof(*c)))) {
        err = TANDEM_E_NOMEM;
        goto out;
    }
    c->fd = fd;
    c->why = why;
    err = metas_check(c, txn, (uint64_t)file.st_size);
    /* A page freed by the transaction that made it need not be in the file: the walk tells. */
    if (err == TANDEM_OK && (walk || c->meta.last >= c->file_pages))
        err = walk_all(c);
    free(c);

out:
    close(fd);
    return err;
}
