#include "tests/faults.h"

#include <assert.h>
#include <errno.h>
#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "store/store.h"

static struct {
    struct fault fault;
    bool armed, hit, may_have_happened;
    uint64_t count;
} state;

void fault_arm(const struct fault *fault)
{
    memset(&state, 0, sizeof(state));
    state.fault = *fault;
    state.armed = true;
}

void fault_disarm(void)
{
    state.armed = false;
}

uint64_t fault_count(void)
{
    return state.count;
}

bool fault_hit(void)
{
    return state.hit;
}

bool fault_may_have_happened(void)
{
    return state.may_have_happened;
}

static bool is_due(fault_kind kind)
{
    if (!state.armed || state.fault.kind != kind)
        return false;
    state.count++;
    if (state.fault.at == 0 || state.count < state.fault.at ||
        (state.count > state.fault.at && !state.fault.for_ever))
        return false;
    state.hit = true;
    return true;
}

/* ---- Allocations ---- */

#if defined(__has_feature)
#define HAS_FEATURE(feature) __has_feature(feature)
#else
#define HAS_FEATURE(feature) 0
#endif

/* Who really allocates; a sanitizer must go on seeing it all. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                               \
    HAS_FEATURE(address_sanitizer) || HAS_FEATURE(thread_sanitizer)
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif

void *REAL(malloc)(size_t size);
void *REAL(calloc)(size_t count, size_t size);
void *REAL(realloc)(void *old, size_t size);
void *REAL(memalign)(size_t alignment, size_t size);
void REAL(free)(void *memory);

/* Under names of our own, so that no compiler knows what they do. */
#define TAKES_THE_PLACE_OF(name) __asm__(name) __attribute__((visibility("default"), used))

void *fault_malloc(size_t size) TAKES_THE_PLACE_OF("malloc");
void *fault_calloc(size_t count, size_t size) TAKES_THE_PLACE_OF("calloc");
void *fault_realloc(void *old, size_t size) TAKES_THE_PLACE_OF("realloc");
void *fault_reallocarray(void *old, size_t count, size_t size) TAKES_THE_PLACE_OF("reallocarray");
void *fault_aligned_alloc(size_t alignment, size_t size) TAKES_THE_PLACE_OF("aligned_alloc");
char *fault_strdup(const char *text) TAKES_THE_PLACE_OF("strdup");
void fault_free(void *memory) TAKES_THE_PLACE_OF("free");

static _Atomic int64_t allocations;

static struct range {
    uintptr_t begin, end;
} ours, lmdb;

static void note_range(const struct dl_phdr_info *info, struct range *range)
{
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];

        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
            continue;
        range->begin = info->dlpi_addr + part->p_vaddr;
        range->end = range->begin + part->p_memsz;
    }
}

static int note_object(struct dl_phdr_info *info, size_t size, void *context)
{
    if (info->dlpi_name[0] == '\0')
        note_range(info, &ours);
    else if (strstr(info->dlpi_name, "liblmdb"))
        note_range(info, &lmdb);
    return 0;
}

__attribute__((constructor)) static void find_callers(void)
{
    dl_iterate_phdr(note_object, NULL);
}

static bool is_in(const struct range *range, const void *address)
{
    return (uintptr_t)address >= range->begin && (uintptr_t)address < range->end;
}

static bool allocation_fails(const void *caller)
{
    return state.armed && (is_in(&ours, caller) || is_in(&lmdb, caller)) &&
           is_due(FAULT_ALLOCATION);
}

#define FAILS() allocation_fails(__builtin_return_address(0))

static void *counted(void *memory)
{
    if (memory)
        atomic_fetch_add(&allocations, 1);
    return memory;
}

int64_t fault_allocations(void)
{
    return atomic_load(&allocations);
}

void *fault_malloc(size_t size)
{
    return FAILS() ? NULL : counted(REAL(malloc)(size));
}

void *fault_calloc(size_t count, size_t size)
{
    return FAILS() ? NULL : counted(REAL(calloc)(count, size));
}

void *fault_realloc(void *old, size_t size)
{
    if (FAILS())
        return NULL;
    return old ? REAL(realloc)(old, size) : counted(REAL(realloc)(old, size));
}

void *fault_reallocarray(void *old, size_t count, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes) || FAILS())
        return NULL;
    return old ? REAL(realloc)(old, bytes) : counted(REAL(realloc)(old, bytes));
}

void *fault_aligned_alloc(size_t alignment, size_t size)
{
    return FAILS() ? NULL : counted(REAL(memalign)(alignment, size));
}

char *fault_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = FAILS() ? NULL : counted(REAL(malloc)(size));

    return copy ? memcpy(copy, text, size) : NULL;
}

void fault_free(void *memory)
{
    if (memory)
        atomic_fetch_sub(&allocations, 1);
    REAL(free)(memory);
}

/* ---- The disk ---- */

ssize_t fault_pwrite(int fd, const void *bytes, size_t size, off_t offset)
    TAKES_THE_PLACE_OF("pwrite");
ssize_t fault_writev(int fd, const struct iovec *parts, int count) TAKES_THE_PLACE_OF("writev");
int fault_fdatasync(int fd) TAKES_THE_PLACE_OF("fdatasync");
int fault_fsync(int fd) TAKES_THE_PLACE_OF("fsync");
int fault_ftruncate(int fd, off_t size) TAKES_THE_PLACE_OF("ftruncate");
int fault_ftruncate64(int fd, off_t size) TAKES_THE_PLACE_OF("ftruncate64");

/* What a call is answered, that would be answered done. */
static bool disk_fails(const void *caller)
{
    if (!state.armed || (!is_in(&ours, caller) && !is_in(&lmdb, caller)) || !is_due(FAULT_DISK))
        return false;
    state.may_have_happened = true;
    errno = state.fault.err == TANDEM_E_STORE_FULL ? ENOSPC : EIO;
    return true;
}

#define DISK_CALL(type, ...)                                                                       \
    do {                                                                                           \
        bool fails = disk_fails(__builtin_return_address(0));                                      \
        int why = errno;                                                                           \
        long done = fails && !state.fault.happened ? -1 : syscall(__VA_ARGS__);                    \
                                                                                                   \
        if (fails)                                                                                 \
            errno = why;                                                                           \
        return fails ? -1 : (type)done;                                                            \
    } while (0)

ssize_t fault_pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    DISK_CALL(ssize_t, SYS_pwrite64, fd, bytes, size, offset);
}

ssize_t fault_writev(int fd, const struct iovec *parts, int count)
{
    DISK_CALL(ssize_t, SYS_writev, fd, parts, count);
}

int fault_fdatasync(int fd)
{
    DISK_CALL(int, SYS_fdatasync, fd);
}

int fault_fsync(int fd)
{
    DISK_CALL(int, SYS_fsync, fd);
}

int fault_ftruncate(int fd, off_t size)
{
    DISK_CALL(int, SYS_ftruncate, fd, size);
}

int fault_ftruncate64(int fd, off_t size)
{
    DISK_CALL(int, SYS_ftruncate, fd, size);
}

/* ---- Stores ---- */

enum { STORES_MAX = 16 };

struct faulty {
    struct td_store_ops ops; /* what the store's users see */
    const struct td_store_ops *real;
    td_store *store; /* NULL: free */
    td_txn *writer;
    tandem_err broken; /* what a call on the writer met: all that is left is to abort */
    bool recover_due;
};

static struct faulty stores[STORES_MAX];

static struct faulty *faulty_of(td_store *store)
{
    return (struct faulty *)((char *)store->ops - offsetof(struct faulty, ops));
}

/* A call that only reads. On the writer the transaction is broken by it. */
static tandem_err read_fault(td_txn *txn)
{
    struct faulty *f = faulty_of(txn->store);

    if (txn == f->writer && f->broken != TANDEM_OK)
        return f->broken;
    if (!is_due(FAULT_STORE))
        return TANDEM_OK;
    if (txn == f->writer) {
        f->broken = TANDEM_E_IO;
        f->recover_due = true;
    }
    return TANDEM_E_IO;
}

static tandem_err write_fault(td_txn *txn)
{
    struct faulty *f = faulty_of(txn->store);

    assert(txn == f->writer);
    if (f->broken == TANDEM_OK && is_due(FAULT_STORE)) {
        f->broken = state.fault.err;
        f->recover_due = true;
    }
    return f->broken;
}

static tandem_err faulty_begin_write(td_store *store, td_txn **out)
{
    struct faulty *f = faulty_of(store);
    tandem_err err;

    if (f->recover_due)
        return TANDEM_E_STATE;
    if (is_due(FAULT_STORE))
        return state.fault.err;
    if ((err = f->real->begin_write(store, out)) == TANDEM_OK) {
        f->writer = *out;
        f->broken = TANDEM_OK;
    }
    return err;
}

static tandem_err faulty_begin_read(td_store *store, td_txn **out)
{
    return is_due(FAULT_STORE) ? TANDEM_E_IO : faulty_of(store)->real->begin_read(store, out);
}

static tandem_err faulty_commit(td_txn *txn)
{
    struct faulty *f = faulty_of(txn->store);
    tandem_err err;

    assert(txn == f->writer);
    f->writer = NULL;
    if (f->broken != TANDEM_OK) {
        f->real->abort(txn);
        return f->broken;
    }
    if (!is_due(FAULT_STORE))
        return f->real->commit(txn);
    f->recover_due = true;
    state.may_have_happened = true;
    if (!state.fault.happened)
        f->real->abort(txn);
    else if ((err = f->real->commit(txn)) != TANDEM_OK)
        return err;
    return state.fault.err;
}

static void faulty_abort(td_txn *txn)
{
    struct faulty *f;

    if (!txn)
        return;
    f = faulty_of(txn->store);
    if (txn == f->writer)
        f->writer = NULL;
    f->real->abort(txn);
}

static tandem_err faulty_get(td_txn *txn, unsigned table, tandem_slice key, tandem_slice *value_out)
{
    tandem_err err = read_fault(txn);

    return err ? err : faulty_of(txn->store)->real->get(txn, table, key, value_out);
}

static tandem_err faulty_put(td_txn *txn, unsigned table, tandem_slice key, tandem_slice value)
{
    tandem_err err = write_fault(txn);

    return err ? err : faulty_of(txn->store)->real->put(txn, table, key, value);
}

static tandem_err faulty_reserve(td_txn *txn, unsigned table, tandem_slice key, size_t size,
                                 uint8_t **room_out)
{
    tandem_err err = write_fault(txn);

    return err ? err : faulty_of(txn->store)->real->reserve(txn, table, key, size, room_out);
}

static tandem_err faulty_del(td_txn *txn, unsigned table, tandem_slice key)
{
    tandem_err err = write_fault(txn);

    return err ? err : faulty_of(txn->store)->real->del(txn, table, key);
}

static tandem_err faulty_cursor_open(td_txn *txn, unsigned table, td_cursor **out)
{
    tandem_err err = read_fault(txn);

    return err ? err : faulty_of(txn->store)->real->cursor_open(txn, table, out);
}

static tandem_err faulty_seek(td_cursor *cursor, tandem_slice key, tandem_slice *key_out,
                              tandem_slice *value_out)
{
    tandem_err err = read_fault(cursor->txn);

    return err ? err : faulty_of(cursor->txn->store)->real->seek(cursor, key, key_out, value_out);
}

static tandem_err faulty_seek_before(td_cursor *cursor, tandem_slice key, tandem_slice *key_out,
                                     tandem_slice *value_out)
{
    tandem_err err = read_fault(cursor->txn);

    return err ? err
               : faulty_of(cursor->txn->store)->real->seek_before(cursor, key, key_out, value_out);
}

static tandem_err faulty_next(td_cursor *cursor, tandem_slice *key_out, tandem_slice *value_out)
{
    tandem_err err = read_fault(cursor->txn);

    return err ? err : faulty_of(cursor->txn->store)->real->next(cursor, key_out, value_out);
}

static void faulty_cursor_free(td_cursor *cursor)
{
    if (cursor)
        faulty_of(cursor->txn->store)->real->cursor_free(cursor);
}

static tandem_err faulty_recover(td_store *store)
{
    struct faulty *f = faulty_of(store);
    tandem_err err;

    assert(!f->writer);
    if (is_due(FAULT_STORE)) {
        f->recover_due = true;
        return TANDEM_E_IO;
    }
    err = f->real->recover(store);
    f->recover_due = err != TANDEM_OK;
    return err;
}

static uint64_t faulty_bytes(td_store *store)
{
    return faulty_of(store)->real->bytes(store);
}

static tandem_err faulty_check(td_store *store, char why[TD_STORE_WHY_BYTES])
{
    why[0] = 0;
    return is_due(FAULT_STORE) ? TANDEM_E_IO : faulty_of(store)->real->check(store, why);
}

static void faulty_reader_check(td_store *store)
{
    faulty_of(store)->real->reader_check(store);
}

static void faulty_free(td_store *store)
{
    struct faulty *f;

    if (!store)
        return;
    f = faulty_of(store);
    store->ops = f->real;
    f->store = NULL;
    store->ops->free(store);
}

static const struct td_store_ops faulty_ops = {
    .name = "faulty",
    .begin_write = faulty_begin_write,
    .begin_read = faulty_begin_read,
    .commit = faulty_commit,
    .abort = faulty_abort,
    .get = faulty_get,
    .put = faulty_put,
    .reserve = faulty_reserve,
    .del = faulty_del,
    .cursor_open = faulty_cursor_open,
    .seek = faulty_seek,
    .seek_before = faulty_seek_before,
    .next = faulty_next,
    .cursor_free = faulty_cursor_free,
    .recover = faulty_recover,
    .bytes = faulty_bytes,
    .check = faulty_check,
    .reader_check = faulty_reader_check,
    .free = faulty_free,
};

static void make_faulty(td_store *store)
{
    struct faulty *f = stores;

    td_store_check(&faulty_ops);
    while (f->store)
        assert(++f < stores + STORES_MAX);
    *f = (struct faulty){.ops = faulty_ops, .real = store->ops, .store = store};
    store->ops = &f->ops;
}

/* The linker gives these to whoever opens a store, and the real ones to them (--wrap). */
tandem_err __real_td_lmdb_store_open(tandem_env *env, const char *folder, const char *const *names,
                                     unsigned count, td_store **out);
tandem_err __wrap_td_lmdb_store_open(tandem_env *env, const char *folder, const char *const *names,
                                     unsigned count, td_store **out);
tandem_err __real_td_memory_store_open(tandem_env *env, td_memory_disk *disk,
                                       const char *const *names, unsigned count, td_store **out);
tandem_err __wrap_td_memory_store_open(tandem_env *env, td_memory_disk *disk,
                                       const char *const *names, unsigned count, td_store **out);

tandem_err __wrap_td_lmdb_store_open(tandem_env *env, const char *folder, const char *const *names,
                                     unsigned count, td_store **out)
{
    tandem_err err;

    if (is_due(FAULT_STORE))
        return state.fault.err;
    if ((err = __real_td_lmdb_store_open(env, folder, names, count, out)) == TANDEM_OK)
        make_faulty(*out);
    return err;
}

tandem_err __wrap_td_memory_store_open(tandem_env *env, td_memory_disk *disk,
                                       const char *const *names, unsigned count, td_store **out)
{
    tandem_err err;

    if (is_due(FAULT_STORE))
        return state.fault.err;
    if ((err = __real_td_memory_store_open(env, disk, names, count, out)) == TANDEM_OK)
        make_faulty(*out);
    return err;
}
