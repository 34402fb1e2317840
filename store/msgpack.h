/*
 * msgpack: the bounded reader, the writer, and the canonical form.
 *
 * The reader walks bytes in place: it never allocates, never recurses over the caller's limits and
 * never reads past the end; a header that promises more items than there are bytes left is refused
 * at once. Everything from outside passes td_msgpack_validate() first, so that a reader over
 * validated bytes fails only where the kind of an item is not the expected one.
 *
 * The writer packs through msgpack-c and always takes the shortest form.
 *
 * Canonical form (documents' states, digests): shortest integers, every float as float64 with one
 * NaN, maps sorted by key without duplicates (of equal keys the last wins), keys in this order:
 * strings first, by their bytes; then the others, by their canonical encoding.
 *
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md
 * Threads: a reader or writer belongs to one thread at a time.
 */
#ifndef TANDEM_STORE_MSGPACK_H
#define TANDEM_STORE_MSGPACK_H

#include <stdbool.h>

#include "bytes.h"
#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tandem_kind {
    TANDEM_NIL,
    TANDEM_BOOL,
    TANDEM_UINT, /* 0 and above */
    TANDEM_INT,  /* below 0 */
    TANDEM_FLOAT,
    TANDEM_STRING,
    TANDEM_BINARY,
    TANDEM_ARRAY,
    TANDEM_MAP,
    TANDEM_EXTENSION,
} tandem_kind;

/* One item. Of arrays and maps only the header: their items follow in the reader. */
typedef struct tandem_item {
    tandem_kind kind;
    bool boolean;
    uint64_t uint;
    int64_t sint;
    double real;
    int8_t extension;
    uint32_t count;      /* items of an array, pairs of a map */
    tandem_slice bytes;  /* string, binary, extension: borrowed from what is read */
} tandem_item;

typedef struct tandem_reader {
    const uint8_t *at;
    const uint8_t *end;
} tandem_reader;

/*
 * Check that bytes are exactly one msgpack value within limits.
 *
 * depth_max   levels of arrays and maps: a scalar has none, [] one, [[]] two
 * items_max   values in all, containers included, keys and values of maps counted each
 *
 * Errors: TANDEM_E_PAYLOAD.
 */
TANDEM_API tandem_err tandem_msgpack_validate(tandem_slice bytes, unsigned depth_max,
                                              uint32_t items_max);

TANDEM_API tandem_reader tandem_reader_of(tandem_slice bytes);
/* Bytes not read yet. */
TANDEM_API size_t tandem_reader_left(const tandem_reader *reader);

/* Read the next item's header (and, where it has any, its bytes). TANDEM_E_PAYLOAD on anything
 * malformed or cut short; the reader then stands where it stood. */
TANDEM_API tandem_err tandem_read(tandem_reader *reader, tandem_item *out);
/* Read one item of a given kind; TANDEM_E_PAYLOAD if it is of another. */
TANDEM_API tandem_err tandem_read_array(tandem_reader *reader, uint32_t *count_out);
TANDEM_API tandem_err tandem_read_map(tandem_reader *reader, uint32_t *pairs_out);
TANDEM_API tandem_err tandem_read_uint(tandem_reader *reader, uint64_t *out);
TANDEM_API tandem_err tandem_read_int(tandem_reader *reader, int64_t *out); /* what fits 64 bits */
TANDEM_API tandem_err tandem_read_bool(tandem_reader *reader, bool *out);
TANDEM_API tandem_err tandem_read_string(tandem_reader *reader, tandem_slice *out);
TANDEM_API tandem_err tandem_read_binary(tandem_reader *reader, tandem_slice *out);
/* Step over one whole value, however nested; out (may be NULL) receives its bytes. */
TANDEM_API tandem_err tandem_read_skip(tandem_reader *reader, tandem_slice *out);

/*
 * A growing buffer that values are appended to. The first failed allocation sticks: later writes do
 * nothing, and tandem_writer_err() tells, so that a sequence of writes needs one check.
 */
typedef struct tandem_writer {
    uint8_t *bytes;
    size_t size;
    size_t capacity;
    tandem_err err;
} tandem_writer;

TANDEM_API void tandem_writer_init(tandem_writer *writer);
TANDEM_API void tandem_writer_release(tandem_writer *writer);
TANDEM_API void tandem_writer_clear(tandem_writer *writer); /* keeps the memory, forgets an error */
TANDEM_API tandem_err tandem_writer_err(const tandem_writer *writer);
/* What was written; valid until the next write. */
TANDEM_API tandem_slice tandem_writer_slice(const tandem_writer *writer);

TANDEM_API void tandem_write_nil(tandem_writer *writer);
TANDEM_API void tandem_write_bool(tandem_writer *writer, bool value);
TANDEM_API void tandem_write_uint(tandem_writer *writer, uint64_t value);
TANDEM_API void tandem_write_int(tandem_writer *writer, int64_t value);
TANDEM_API void tandem_write_float(tandem_writer *writer, double value);
TANDEM_API void tandem_write_string(tandem_writer *writer, tandem_slice text);
TANDEM_API void tandem_write_text(tandem_writer *writer, const char *text);
TANDEM_API void tandem_write_binary(tandem_writer *writer, tandem_slice bytes);
TANDEM_API void tandem_write_binary_header(tandem_writer *writer, uint32_t size); /* body follows */
TANDEM_API void tandem_write_array(tandem_writer *writer, uint32_t count);
TANDEM_API void tandem_write_map(tandem_writer *writer, uint32_t pairs);
/* Append bytes as they are: one encoded value, or the body after a header. */
TANDEM_API void tandem_write_raw(tandem_writer *writer, tandem_slice bytes);

/*
 * Append value, which is one valid msgpack value, in canonical form.
 *
 * Errors: TANDEM_E_PAYLOAD if it is not one value or nested deeper than TANDEM_PAYLOAD_DEPTH_MAX
 * plus 16 (states may nest a payload); TANDEM_E_NOMEM. On error nothing was appended.
 */
TANDEM_API tandem_err tandem_write_canonical(tandem_writer *writer, tandem_slice value);

#ifdef __cplusplus
}
#endif

#endif
