/*
 * The wire: the messages that two reactors exchange, as bytes and back. transport/PROTOCOL.md is
 * the normative description; the vectors in tests/vectors/wire.json are checked against this file.
 *
 * Every message is one msgpack array [type, number, ...]. Numbers count from 1 in each direction of
 * a session without gaps: a receiver that misses one closes the session, one that sees an old one
 * ignores it; so a transport may lose, repeat or reorder, and no more than a session is lost.
 *
 *   1 HELLO  major, minor, reactor, origin, clock, features, limits, agent, instance,
 *            [gives, takes]
 *   2 HAVE   clock, promise, level, more, entries
 *              level 0: [collections, digest]          one digest over all shared collections
 *              level 1: [[name, digest or nil, origins], …]      one a collection
 *              level 2: [[name, filter or nil, begin, end, [[origin, [[seq, hash], …]], …],
 *                         [[origin, first, last, hash, reason], …]], …]
 *              level 3: [[name or nil, bits, digests (bin) or bitmap (bin)], …]  of ranges
 *   3 JOBS   first job number, [[operation (bin), …], …]      each job whole
 *   4 ACK    jobs done, [[job number, error, detail], …]
 *   5 PULL   [[name, [[origin, first, last], …]], …]
 *   6 COMMAND (reserved: skipped)
 *   7 ERROR  error, text, retry after ms
 *   8 COVER  [[name, [[origin, [[seq, hash], …]], …]], …]
 *   9 PACKED bytes, frame (bin)             a JOBS of so many bytes, in one frame of zstd
 *
 * Behind these a message may have a sum, see td_wire_seal().
 *
 * Unknown types and trailing items of any array are skipped. Nothing is allocated while reading:
 * a td_wire_message is a view into the validated bytes. A call that fails leaves its reader where
 * it stood, and out as it was.
 *
 * Threads: pure functions over the caller's memory.
 */
#ifndef TANDEM_TRANSPORT_WIRE_H
#define TANDEM_TRANSPORT_WIRE_H

#include "store/msgpack.h"
#include "store/op_store.h"
#include "store/share.h"

enum {
    TD_WIRE_MAJOR = 1,
    TD_WIRE_MINOR = 0,
    TD_MESSAGE_BYTES_MAX = 1024 * 1024,
    /* So much is taken of a peer before its HELLO was accepted: it may be anybody. */
    TD_OPENING_BYTES_MAX = 64 * 1024,
    TD_MESSAGE_DEPTH_MAX = 16,
    TD_MESSAGE_ITEMS_MAX = 65536,
    TD_WIRE_INSTANCE_BYTES = 16,
    TD_WIRE_TEXT_BYTES_MAX = 256, /* of an agent, a feature, an error's text */
    /* The least that a HELLO may say it takes in one message: any job fits. */
    TD_MESSAGE_BYTES_MIN = 528 * 1024,
    /* Where a page of HAVE ends, whichever comes first: then no page exceeds the items above, which
     * many short entries reach long before the bytes. */
    TD_HAVE_PAGE_ENTRIES_MAX = 4096,
    TD_HAVE_PAGE_BYTES_MAX = 256 * 1024,
    /* What is compared by ranges falls into 2^bits of them. */
    TD_RANGE_BITS_MIN = 3,
    TD_RANGE_BITS_MAX = 12,
    TD_RANGE_DIGEST_BYTES = 8,
};

_Static_assert(TANDEM_JOB_BYTES_MAX + 16 * TANDEM_JOB_OPERATIONS_MAX < TD_MESSAGE_BYTES_MIN,
               "any job fits into one message");
_Static_assert(TD_MESSAGE_BYTES_MIN < TD_MESSAGE_BYTES_MAX, "every reader takes that much");
_Static_assert(2 * (TD_SHARE_COLLECTIONS_MAX * (TANDEM_NAME_BYTES_MAX + 2) +
                    TD_SHARE_FILTER_BYTES_MAX) + 4 * TD_WIRE_TEXT_BYTES_MAX <
                   TD_OPENING_BYTES_MAX,
               "any HELLO of ours fits, and the first HAVE behind it");

typedef enum td_wire_type {
    TD_WIRE_HELLO = 1,
    TD_WIRE_HAVE = 2,
    TD_WIRE_JOBS = 3,
    TD_WIRE_ACK = 4,
    TD_WIRE_PULL = 5,
    TD_WIRE_COMMAND = 6,
    TD_WIRE_ERROR = 7,
    TD_WIRE_COVER = 8,
    TD_WIRE_PACKED = 9,
} td_wire_type;

/* Of a HELLO of another major version only major and minor are filled, the rest is zero: it may say
 * anything after them. */
typedef struct td_wire_hello {
    uint64_t major, minor;
    uint8_t reactor[TANDEM_ORIGIN_BYTES];
    uint8_t origin[TANDEM_ORIGIN_BYTES];
    uint64_t clock;         /* HLC */
    uint64_t message_bytes; /* the largest message it takes, at least TD_MESSAGE_BYTES_MIN */
    uint64_t window_bytes;  /* what may be in flight to it, in bytes of operations … */
    uint64_t window_jobs;   /* … and in jobs */
    tandem_slice agent;     /* for people */
    tandem_reader features; /* array of strings, header read */
    uint32_t feature_count;
    /* This life of the reactor: when it began (wall clock ms, big endian), then eight random bytes;
     * zeros: it does not say, and none is written. */
    uint8_t instance[TD_WIRE_INSTANCE_BYTES];
    bool sums; /* it has items behind the instance: each of this side's messages ends with a sum */
    /* What it gives and takes: canonical bytes of shares (store/share.h), checked. false: it knows
     * no shares, which means everything, and none are written; who writes them says an instance and
     * seals its messages. */
    bool has_shares;
    tandem_slice gives, takes;
} td_wire_hello;

typedef enum td_have_level {
    TD_HAVE_ALL = 0,
    TD_HAVE_DIGESTS = 1,
    TD_HAVE_VECTORS = 2,
    TD_HAVE_RANGES = 3, /* only where both HELLOs offer "ranges" */
} td_have_level;

typedef struct td_wire_have {
    uint64_t clock;   /* HLC */
    uint64_t promise; /* the sender will make no operation with an HLC below this */
    td_have_level level;
    bool more;        /* another page of this level follows */
    /* level 0: */
    uint64_t collections;
    uint8_t digest[TANDEM_HASH_BYTES];
    /* levels 1, 2 and 3: */
    uint32_t entry_count;
    tandem_reader entries;
} td_wire_have;

/* An entry of level 1. */
typedef struct td_wire_digest {
    tandem_slice name;
    bool has_digest; /* false: held in part, equal to nothing */
    uint8_t digest[TANDEM_HASH_BYTES];
    uint64_t origins; /* how many it has, as far as it is said; 0: it is not */
} td_wire_digest;

/* An entry of level 2. */
typedef struct td_wire_vector {
    tandem_slice name;
    bool has_filter; /* a coverage pair of a partial replica */
    tandem_slice filter; /* its canonical bytes (store/filter.h), checked; else nil */
    bool begin; /* what was announced of this collection before is void */
    bool end;   /* the listing is complete: what is not in it is not held */
    uint32_t origin_count;
    tandem_reader origins;
    uint32_t refused_count;
    tandem_reader refused;
} td_wire_vector;

/* An entry of level 3. */
typedef struct td_wire_ranges {
    bool has_name; /* false: it is of collections, else of the origins of one */
    tandem_slice name;
    unsigned bits;
    bool is_answer;       /* then bytes are a bit a range, set if it differs: the highest of a byte
                           * first … */
    const uint8_t *bytes; /* … else a digest a range */
} td_wire_ranges;

/* Of as many ranges. */
static inline size_t td_range_digests_bytes(unsigned bits)
{
    return (size_t)TD_RANGE_DIGEST_BYTES << bits;
}

static inline size_t td_range_bitmap_bytes(unsigned bits)
{
    return (size_t)1 << (bits - TD_RANGE_BITS_MIN);
}

typedef struct td_wire_origin {
    const uint8_t *origin;
    unsigned head_count; /* up to TANDEM_HEADS_MAX; 0 where only lacks of it are known */
    td_head heads[TANDEM_HEADS_MAX];
} td_wire_origin;

/* A lack: a range that is not held though heads may stand behind it. */
typedef struct td_wire_refused {
    const uint8_t *origin;
    uint64_t first, last;
    const uint8_t *hash; /* of last */
    int64_t reason;      /* a tandem_err: refused for good; 0: wanted */
    const uint8_t *predecessor; /* of first */
} td_wire_refused;

typedef struct td_wire_jobs {
    uint64_t first_job;
    uint32_t job_count;
    tandem_reader jobs; /* so many; behind them stands what ends the message */
} td_wire_jobs;

typedef struct td_wire_ack {
    uint64_t done; /* every job up to this number is finished … */
    uint32_t exception_count;
    tandem_reader exceptions; /* … these not by being applied */
} td_wire_ack;

typedef struct td_wire_exception {
    uint64_t job;
    int64_t err;
    uint64_t detail; /* TANDEM_E_CLOCK: the HLC to wait for; else 0 */
} td_wire_exception;

typedef struct td_wire_pull {
    uint32_t collection_count;
    tandem_reader collections;
} td_wire_pull;

typedef struct td_wire_pull_collection {
    tandem_slice name;
    uint32_t range_count;
    tandem_reader ranges;
} td_wire_pull_collection;

typedef struct td_wire_range {
    const uint8_t *origin;
    uint64_t first, last;
} td_wire_range;

typedef struct td_wire_cover {
    uint32_t collection_count;
    tandem_reader collections;
} td_wire_cover;

/* Its origins have heads, each. */
typedef struct td_wire_cover_collection {
    tandem_slice name;
    uint32_t origin_count;
    tandem_reader origins;
} td_wire_cover_collection;

typedef struct td_wire_packed {
    uint64_t bytes; /* of what is packed: 1 to TD_MESSAGE_BYTES_MAX */
    tandem_slice frame;
} td_wire_packed;

typedef struct td_wire_error {
    int64_t err;
    tandem_slice text;
    uint64_t retry_after_ms;
} td_wire_error;

typedef struct td_wire_message {
    uint64_t type; /* a td_wire_type, or one that this version does not know */
    uint64_t number;
    union {
        td_wire_hello hello;
        td_wire_have have;
        td_wire_jobs jobs;
        td_wire_ack ack;
        td_wire_pull pull;
        td_wire_error error;
        td_wire_cover cover;
        td_wire_packed packed;
    } as;
} td_wire_message;

/*
 * The validator: every received message passes it before anything else looks. Size, depth, item
 * count, lengths against bytes left, exact end; an array that begins with a type and a number, and
 * the number is 1 or more.
 * Errors: TANDEM_E_PROTOCOL.
 */
tandem_err td_wire_validate(tandem_slice bytes);

/*
 * Validate a message and read its head. Of a type that is not known, and of COMMAND, only type and
 * number are filled. Errors: TANDEM_E_PROTOCOL.
 */
tandem_err td_wire_read(tandem_slice bytes, td_wire_message *out);

/* Does a HELLO offer this feature? */
bool td_wire_offers(const td_wire_hello *hello, const char *feature);

/* Walk entries; each call takes one from its reader and must be called at most count times. Names
 * are checked with td_name_valid, hashes and origins for their size, heads for order and number,
 * seqs and job numbers for being 1 or more, first <= last, errors for being negative, filters and
 * shares for being canonical; the order of entries is not, but that an origin without heads has a
 * refused range is told from lists in their order. Errors: TANDEM_E_PROTOCOL. */
tandem_err td_wire_read_digest(tandem_reader *entries, td_wire_digest *out);
tandem_err td_wire_read_vector(tandem_reader *entries, td_wire_vector *out);
tandem_err td_wire_read_ranges(tandem_reader *entries, td_wire_ranges *out);
tandem_err td_wire_read_origin(tandem_reader *origins, td_wire_origin *out);
tandem_err td_wire_read_refused(tandem_reader *refused, td_wire_refused *out);
/* One job: the number of its operations (1 to TANDEM_JOB_OPERATIONS_MAX), then each of them, of any
 * size and content: td_operation_parse() judges those. */
tandem_err td_wire_read_job(tandem_reader *jobs, uint32_t *operations_out);
tandem_err td_wire_read_operation(tandem_reader *jobs, tandem_slice *canonical_out);
tandem_err td_wire_read_exception(tandem_reader *exceptions, td_wire_exception *out);
tandem_err td_wire_read_pull_collection(tandem_reader *collections, td_wire_pull_collection *out);
tandem_err td_wire_read_range(tandem_reader *ranges, td_wire_range *out);
tandem_err td_wire_read_cover_collection(tandem_reader *collections,
                                         td_wire_cover_collection *out);

/*
 * Writing. Each appends to out; where a count is not known in advance, a *_begin reserves a header
 * and returns where it stands, and td_wire_patch_count() fills it in. That a message stays within
 * the limits is the caller's business: look at out->size before the next entry. An error's text is
 * cut to TD_WIRE_TEXT_BYTES_MAX.
 */
void td_wire_write_hello(tandem_writer *out, uint64_t number, const td_wire_hello *hello,
                         const char *const *features, uint32_t feature_count);
void td_wire_write_ack(tandem_writer *out, uint64_t number, uint64_t done,
                       const td_wire_exception *exceptions, uint32_t count);
void td_wire_write_packed(tandem_writer *out, uint64_t number, uint64_t bytes, tandem_slice frame);
void td_wire_write_error(tandem_writer *out, uint64_t number, tandem_err err, const char *text,
                         uint64_t retry_after_ms);

/*
 * The sum: one more item at the end of a message, XXH3-64 over all bytes before it, so that what
 * changed on the way is told from what a peer says. A HELLO that has one has an instance, too. Add
 * one to the message that begins at start and ends with out.
 */
void td_wire_seal(tandem_writer *out, size_t start);
/* Does a message end with the right one? Of any bytes. */
bool td_wire_is_sealed(tandem_slice message);
/* Does it end with something that has the form of one? Of another version no more can be told. */
bool td_wire_has_seal(tandem_slice message);

/* Level 0 whole. */
void td_wire_write_have_all(tandem_writer *out, uint64_t number, uint64_t clock, uint64_t promise,
                            uint64_t collections, const uint8_t digest[TANDEM_HASH_BYTES]);
/* Levels 1, 2 and 3: head, then entries, then patch the count at the returned place. more_at_out
 * receives where the more flag stands, for td_wire_patch_bool(); NULL: it stays false. */
size_t td_wire_begin_have(tandem_writer *out, uint64_t number, uint64_t clock, uint64_t promise,
                          td_have_level level, size_t *more_at_out);
/* digest NULL: nil; origins 0: it is not said. */
void td_wire_write_digest(tandem_writer *out, tandem_slice name,
                          const uint8_t digest[TANDEM_HASH_BYTES], uint64_t origins);
void td_wire_write_ranges(tandem_writer *out, const td_wire_ranges *ranges);
/* An entry of level 2: head, then origins, then patch, then the refused ranges, or
 * td_wire_end_vector(). end_at_out: where the end flag stands; NULL: it stays false. */
size_t td_wire_begin_vector(tandem_writer *out, tandem_slice name, bool begin, size_t *end_at_out);
/* The same of a coverage pair. filter: canonical bytes, not nil. */
size_t td_wire_begin_pair(tandem_writer *out, tandem_slice name, tandem_slice filter);
void td_wire_write_origin(tandem_writer *out, const uint8_t *origin, const td_head *heads,
                          unsigned count);
void td_wire_end_vector(tandem_writer *out); /* without refused ranges */
/* Head; then ranges in the order of (origin, last, hash); then patch. */
size_t td_wire_begin_refused(tandem_writer *out);
void td_wire_write_refused(tandem_writer *out, const td_wire_refused *refused);

/* JOBS: head; then per job its number of operations and each as canonical bytes; then patch. */
size_t td_wire_begin_jobs(tandem_writer *out, uint64_t number, uint64_t first_job);
void td_wire_write_job(tandem_writer *out, uint32_t operations);
void td_wire_write_operation(tandem_writer *out, tandem_slice canonical);

/* PULL: head; then per collection its head and ranges; then patch. */
size_t td_wire_begin_pull(tandem_writer *out, uint64_t number);
size_t td_wire_begin_pull_collection(tandem_writer *out, tandem_slice name);
void td_wire_write_range(tandem_writer *out, const uint8_t *origin, uint64_t first, uint64_t last);

/* COVER: head; then per collection its head and origins, as above, with heads; then patch. */
size_t td_wire_begin_cover(tandem_writer *out, uint64_t number);
size_t td_wire_begin_cover_collection(tandem_writer *out, tandem_slice name);

/* Fill in a count, or a bool, that was reserved. Nothing happens if the writer has failed. */
void td_wire_patch_count(tandem_writer *out, size_t at, uint32_t count);
void td_wire_patch_bool(tandem_writer *out, size_t at, bool value);

#endif
