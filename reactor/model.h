/*
 * Models: what the operations of a document mean.
 *
 * A model is a pure function: its state is the fold of a stream in total order, and it sees no
 * clock, no randomness and no other document. So equal sets of operations give byte-equal states on
 * every reactor. Everything that could differ between two machines (hash order, locale, floating
 * point of the platform) has no place in one.
 *
 * A model is a const table. Types of operations are NAME.VERB ("kv.SET"); CREATE and DELETE are the
 * library's own verbs and never reach a model. Changed behaviour is a new verb or a new version:
 * snapshots of another version are discarded and folded again.
 *
 * Threads: the library calls a model from threads of its own and of those who execute, never two calls
 * for one state at once, but perhaps for two, or for none; a model keeps everything in the state it is
 * given, and takes no lock that others hold for long: the thread that folds may have the lower priority.
 */
#ifndef TANDEM_REACTOR_MODEL_H
#define TANDEM_REACTOR_MODEL_H

#include "../store/bytes.h"
#include "../store/error.h"
#include "../store/msgpack.h"

#ifdef __cplusplus
extern "C" {
#endif

/* An operation as a fold sees it; everything is borrowed for the call. */
typedef struct tandem_change {
    tandem_slice verb; /* "SET" of "kv.SET" */
    tandem_slice payload; /* one validated msgpack value */
    uint64_t hlc;
    const uint8_t *origin; /* TANDEM_ORIGIN_BYTES */
    uint64_t seq;
    const uint8_t *hash; /* TANDEM_HASH_BYTES */
} tandem_change;

enum { TANDEM_INTENT_INDEX_MAX = 1000000 };

/* What a user wants an operation to do; everything is borrowed for the call. */
typedef struct tandem_intent {
    tandem_slice verb;  /* "SET" */
    tandem_slice input; /* one validated msgpack value */
    /* Which one it is of those that are committed together, in its chain: what two of them differ by is
     * the difference of their seqs. */
    uint32_t index; /* up to TANDEM_INTENT_INDEX_MAX */
    const uint8_t *origin; /* TANDEM_ORIGIN_BYTES: who will have written it */
} tandem_intent;

typedef struct tandem_model {
    size_t size;      /* sizeof(tandem_model): lets the struct grow */
    const char *name; /* 1 to 64 bytes of a-z 0-9 and '_' */
    uint32_t version; /* of the behaviour and of the snapshots */
    /* Does prepare look at the state? Then the executor folds the document before it calls. */
    bool prepare_reads_state;

    /* The empty state. TANDEM_E_NOMEM. */
    tandem_err (*state_open)(void **state_out);
    void (*state_free)(void *state); /* NULL is fine */

    /*
     * Check an input before its operation exists, and append the payload to store to payload.
     *
     * state    the folded state if prepare_reads_state, else NULL
     * why      room for a sentence of at most 127 bytes that tells a user what is wrong
     *
     * TANDEM_E_INPUT refuses it; TANDEM_E_NOMEM.
     */
    tandem_err (*prepare)(const void *state, const tandem_intent *intent, tandem_writer *payload,
                          char why[128]);

    /*
     * Fold one operation into the state. TANDEM_OK; TANDEM_E_INPUT if it is invalid at its place in
     * the order: then the state must be unchanged, and it is a no-op everywhere. TANDEM_E_NOMEM
     * stops the fold. The payload may come from a stranger: any msgpack value must be survived.
     */
    tandem_err (*apply)(void *state, const tandem_change *change);

    /* Append the state as users see it, and as it is digested: canonical msgpack (msgpack.h). */
    tandem_err (*show)(const void *state, tandem_writer *out);

    /* Write and read back a snapshot; restore over what save wrote gives an equal state. Damaged
     * bytes: TANDEM_E_CORRUPT. */
    tandem_err (*save)(const void *state, tandem_writer *out);
    tandem_err (*restore)(tandem_slice snapshot, void **state_out);

    /*
     * Optional, both or none, for a model whose prepare reads the state: without them a job has one
     * operation on a scope, and a group one job on a document.
     *
     * pretend     show prepare the state as it will be once `payload`, which it has made of intent, is
     *             folded: until take_back, which always follows. TANDEM_E_INPUT, TANDEM_E_NOMEM
     * take_back   the state is again what it was before the first pretend
     */
    tandem_err (*pretend)(void *state, const tandem_intent *intent, tandem_slice payload);
    void (*take_back)(void *state);
} tandem_model;

/* What a user calls a value of this kind, article included: for prepare's sentences. Static. */
static inline const char *tandem_kind_text(tandem_kind kind)
{
    switch (kind) {
    case TANDEM_NIL:
        return "null";
    case TANDEM_BOOL:
        return "a boolean";
    case TANDEM_UINT:
    case TANDEM_INT:
        return "an integer";
    case TANDEM_FLOAT:
        return "a real number";
    case TANDEM_STRING:
        return "a string";
    case TANDEM_BINARY:
        return "binary data";
    case TANDEM_ARRAY:
        return "an array";
    case TANDEM_MAP:
        return "an object";
    case TANDEM_EXTENSION:
        return "an extension";
    }
    return "something unknown";
}

/* The built-in ones: "kv" (map of last-writer-wins entries: SET, UNSET), "counter" (ADD), "log"
 * (APPEND), "text" (collaborative text: EDIT). Registered in every reactor. */
TANDEM_API extern const tandem_model tandem_model_kv;
TANDEM_API extern const tandem_model tandem_model_counter;
TANDEM_API extern const tandem_model tandem_model_log;
TANDEM_API extern const tandem_model tandem_model_text;

#ifdef __cplusplus
}
#endif

#endif
