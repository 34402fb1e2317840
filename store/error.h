/*
 * Errors: the one error type of the whole tree, and its closed list.
 *
 * Zero is success, negatives are failures, positives are news. Unless its header says otherwise,
 * a call that returns an error has changed nothing and will not call back later.
 *
 * The list is one table, from which the enum, the names, the texts, the exit codes of the binary
 * and `tandem errors` are made. An error's number never changes and is never used again: peers
 * send it (transport/PROTOCOL.md).
 *
 * Threads: everything here is pure; call it from anywhere.
 */
#ifndef TANDEM_STORE_ERROR_H
#define TANDEM_STORE_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#if defined(__GNUC__)
#define TANDEM_API __attribute__((visibility("default")))
#else
#define TANDEM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/*
 * X(name, number, transient, exit code, when it happens, what to do)
 *
 * transient: the same call may work later, so retry it and do not bury it.
 * exit code: what the binary ends with, see the command line's own table.
 */
#define TANDEM_ERRORS(X)                                                                           \
    X(TANDEM_OK, 0, false, 0, "no error", "nothing")                                               \
    X(TANDEM_END, 1, false, 0, "an iteration is finished", "stop asking")                          \
    X(TANDEM_E_NOMEM, -1, true, 1, "memory ran out", "free memory, then repeat the call")          \
    X(TANDEM_E_PREDECESSOR, -2, true, 1, "what comes before an operation is not held",             \
      "offer the operations before it first")                                                      \
    X(TANDEM_E_PROTOCOL, -3, false, 1, "the peer broke the rules of the protocol",                 \
      "upgrade the peer, or remove it")                                                            \
    X(TANDEM_E_CHANNEL_NETWORK, -4, true, 5, "the network failed until the retry policy was spent", \
      "check the URL and the network; the remote is probed again later")                           \
    X(TANDEM_E_INVALID, -5, false, 2, "an argument is out of its range",                           \
      "correct the argument")                                                                      \
    X(TANDEM_E_NOT_FOUND, -6, false, 4, "there is nothing by that name", "check the name")         \
    X(TANDEM_E_EXISTS, -7, false, 6, "that name is taken", "choose another name")                  \
    X(TANDEM_E_LOCKED, -8, true, 6, "another process has the data folder open",                    \
      "stop that process, or talk to it")                                                          \
    X(TANDEM_E_IO, -9, true, 1, "the disk or the operating system failed",                         \
      "look at the log, mend the disk, then repeat")                                               \
    X(TANDEM_E_STORE_FULL, -10, true, 1, "the disk is full, nothing was written",                  \
      "free space; writing goes on by itself")                                                     \
    X(TANDEM_E_CORRUPT, -11, false, 8, "stored data is damaged, or a part of it is gone",          \
      "run `tandem verify`; fetch the operations again from a peer into a new folder")             \
    X(TANDEM_E_FORMAT, -12, false, 8, "the data folder is not a store of this program",            \
      "check the path")                                                                            \
    X(TANDEM_E_FORMAT_NEWER, -13, false, 2, "the data folder was written by a newer version",      \
      "upgrade this program")                                                                      \
    X(TANDEM_E_STATE, -14, false, 6, "the call is not legal in this state",                        \
      "look at the state first")                                                                   \
    X(TANDEM_E_CLOSED, -15, false, 1, "the object is closed or closing", "open it again")          \
    X(TANDEM_E_TIMEOUT, -16, true, 9, "the deadline passed first",                                 \
      "wait longer, or look at what holds it up")                                                  \
    X(TANDEM_E_CONFLICT, -17, false, 6, "the document is no longer at the expected position",      \
      "read it again and decide again")                                                            \
    X(TANDEM_E_LIMIT, -18, false, 2, "something is larger than the format or a limit allows",      \
      "make it smaller or split it")                                                               \
    X(TANDEM_E_MODEL_UNKNOWN, -19, false, 2, "no model of that name is registered, or none named", \
      "name a registered model")                                                                   \
    X(TANDEM_E_MODEL_MISMATCH, -20, false, 6, "the document has another model",                    \
      "use the document's own model")                                                              \
    X(TANDEM_E_INPUT, -21, false, 2, "the model rejects the input", "correct the input")           \
    X(TANDEM_E_PAYLOAD, -22, false, 2, "bytes are not msgpack within the limits",                  \
      "nest less deep, hold fewer items, end exactly")                                             \
    X(TANDEM_E_UNSUPPORTED, -23, false, 2, "this version does not do that yet",                    \
      "see the CHANGELOG for what it does")                                                        \
    X(TANDEM_E_INSECURE, -24, false, 7, "that would be reachable from other machines unprotected", \
      "listen on loopback, or pass --insecure knowingly")                                          \
    X(TANDEM_E_ADDRESS_IN_USE, -25, true, 6, "the address or port is taken",                       \
      "choose another port, or 0")                                                                 \
    X(TANDEM_E_UNREACHABLE, -26, true, 5, "the other side does not answer",                        \
      "check that it runs and the way to it")                                                      \
    X(TANDEM_E_VERSION, -27, false, 2, "the peer speaks another major version of the protocol",    \
      "upgrade the older side")                                                                    \
    X(TANDEM_E_QUARANTINED, -28, false, 8, "an origin has more heads than can be honest",          \
      "find out who wrote under that origin")                                                      \
    X(TANDEM_E_CLOCK, -29, true, 1, "an operation is dated too far ahead of this clock",           \
      "wait, and set the clocks right")                                                            \
    X(TANDEM_E_SELF, -30, false, 6, "the peer is this reactor itself, or a copy of its folder",    \
      "remove the remote; clone folders by command")                                               \
    X(TANDEM_E_CHAIN, -31, false, 1, "operations do not form one whole job of one chain",          \
      "send jobs whole and in order")                                                              \
    X(TANDEM_E_REFUSED, -32, false, 3, "the other side refuses an operation for good",             \
      "look at its reason; retry or discard the job")                                              \
    X(TANDEM_E_USAGE, -33, false, 2, "the command line cannot be understood",                      \
      "see `tandem --help`")                                                                       \
    X(TANDEM_E_DUPLICATE_SESSION, -34, true, 1, "another session with the same peer carries data", \
      "nothing: the other session serves")                                                         \
    X(TANDEM_E_PERMISSION, -35, false, 7, "not permitted",                                         \
      "check owner and mode of the files")                                                         \
    X(TANDEM_E_INTERNAL, -36, false, 1, "a rule that this program sets itself was broken",         \
      "report it with the log")                                                                    \
    X(TANDEM_E_COPY, -37, true, 6, "a copy of this reactor is alive, and the older of the two",    \
      "nothing: the younger takes a new origin; clone folders by command")                         \
    X(TANDEM_E_OUTCOME_UNKNOWN, -38, false, 1, "the disk failed, and whether it was written is unknown", \
      "mend the disk, and look at what is there before you repeat it")

typedef enum tandem_err {
#define TANDEM_ERROR_ENUM(name, number, transient, exit_code, when, cure) name = (number),
    TANDEM_ERRORS(TANDEM_ERROR_ENUM)
#undef TANDEM_ERROR_ENUM
} tandem_err;

/* One row of the list. Strings are static. */
typedef struct tandem_error_info {
    tandem_err err;
    const char *name; /* "TANDEM_E_NOMEM" */
    bool transient;
    int exit_code;
    const char *when; /* one clause, no capital, no full stop */
    const char *cure; /* the same */
} tandem_error_info;

/* The name of an error, "TANDEM_E_…"; "TANDEM_E_UNKNOWN" for a number not in the list. Static. */
TANDEM_API const char *tandem_err_name(tandem_err err);

/* When it happens, as one clause. Static, never NULL. */
TANDEM_API const char *tandem_err_text(tandem_err err);

/* What a system call's errno means for a file or folder; TANDEM_E_IO for what is not told apart. */
TANDEM_API tandem_err tandem_err_of_errno(int error);

/* True if the same call may work later: retry it, do not bury it. */
TANDEM_API bool tandem_err_is_transient(tandem_err err);

/* The whole list, in order of declaration; count_out receives its length. Static. */
TANDEM_API const tandem_error_info *tandem_err_list(size_t *count_out);

/* The row of an error, or NULL if it is not in the list. Static. */
TANDEM_API const tandem_error_info *tandem_err_info(tandem_err err);

#ifdef __cplusplus
}
#endif

#endif
