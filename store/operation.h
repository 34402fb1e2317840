/*
 * An operation: one immutable change, as the canonical bytes in which its origin encoded it once.
 * store/FORMAT.md is the normative description; this header is its C side.
 *
 * Canonical bytes are one msgpack array with fixed positions: version, flags, collection, origin,
 * seq, predecessor's hash, hlc, document, branch, scope, type, payload. Items after the payload are
 * kept and hashed, and ignored. All headers and integers are in their shortest form.
 *
 *   hash = B( B(canonical bytes without the payload's body) || B(payload's body) )
 *
 * with B = BLAKE2b-256 (libsodium), so that a payload can be withheld one day and the chain still
 * verifies. Names (collection, document, branch, scope, type) are 1 to 128 bytes of UTF-8 without
 * control characters; a type is MODEL.NAME.
 *
 * A td_operation is a view: its slices point into the canonical bytes and live as long as they do.
 * Threads: pure functions.
 */
#ifndef TANDEM_STORE_OPERATION_H
#define TANDEM_STORE_OPERATION_H

#include <stdbool.h>

#include "store/bytes.h"
#include "store/error.h"
#include "store/msgpack.h"

enum {
    TD_OPERATION_VERSION = 1,
    TD_OPERATION_ITEMS = 12,
    TD_OPERATION_BYTES_MIN = 64, /* none is as short */
    TD_FLAG_CONTINUES = 1, /* the next operation of this origin belongs to the same job */
    TD_FLAG_SEALED = 2,    /* the payload is encrypted: not plain msgpack */
};

typedef struct td_operation {
    tandem_slice canonical;
    uint8_t hash[TANDEM_HASH_BYTES];
    uint64_t version;
    uint64_t flags;
    uint64_t seq; /* from 1 */
    uint64_t hlc;
    const uint8_t *origin;      /* TANDEM_ORIGIN_BYTES */
    const uint8_t *predecessor; /* TANDEM_HASH_BYTES */
    tandem_slice collection;
    tandem_slice document;
    tandem_slice branch;
    tandem_slice scope;
    tandem_slice type;
    tandem_slice payload; /* the body of the payload's bin */
} td_operation;

/*
 * Parse and check canonical bytes by all rules of the format: size, shape, shortest forms, names,
 * seq >= 1. The payload's content is not looked at (a bad one is a no-op of the fold). Fills
 * everything in out but hash. bytes must outlive out.
 *
 * Errors: TANDEM_E_LIMIT (too large, a name too long), TANDEM_E_PAYLOAD (not such an array).
 * A version above TD_OPERATION_VERSION parses: stores keep and relay minor formats they do not know.
 */
tandem_err td_operation_parse(tandem_slice bytes, td_operation *out);

/* Compute hash from the canonical bytes of a parsed operation. */
void td_operation_hash(td_operation *operation);

/*
 * Append canonical bytes of the fields in operation (all but canonical and hash) to out.
 * Errors: TANDEM_E_LIMIT, TANDEM_E_INPUT (a name is no name), TANDEM_E_NOMEM; then nothing was
 * appended.
 */
tandem_err td_operation_encode(const td_operation *operation, tandem_writer *out);

/* B(collection name || 16 bytes of sync id, zeros until collections have theirs): what seq 1 names
 * as its predecessor. */
void td_chain_root(tandem_slice collection, uint8_t out[TANDEM_HASH_BYTES]);

/* BLAKE2b-256 of the concatenation of count slices. */
void td_hash(uint8_t out[TANDEM_HASH_BYTES], const tandem_slice *parts, size_t count);

/* Is this 1 to 128 bytes of UTF-8 without control characters? */
bool td_name_valid(tandem_slice name);
/* The same, and not reserved (a leading '_'): may a user write to a collection of this name? */
bool td_collection_name_valid(tandem_slice name);

/* The part of a type before its last dot, "kv" of "kv.SET"; an empty slice if it has no dot. */
tandem_slice td_type_model(tandem_slice type);
/* The part after it, "SET"; all of it if it has no dot. */
tandem_slice td_type_verb(tandem_slice type);

/*
 * Derive an origin from the 32-byte seed of its Ed25519 key pair: the first 16 bytes of BLAKE2b-256
 * of the public key.
 */
void td_origin_of_seed(const uint8_t seed[32], uint8_t out[TANDEM_ORIGIN_BYTES]);

#endif
