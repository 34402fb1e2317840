/*
 * JSON and msgpack, both ways, at the edge: inputs that users write, states that they read.
 *
 * JSON to msgpack: integers of 64 bits stay integers (beyond int64 they are refused, as jansson
 * reads them), reals become float64 even where they have no fraction, objects become maps with keys
 * in the order given. Duplicate keys are refused, and, by jansson, U+0000 in a key.
 * msgpack to JSON: binary becomes {"$binary": "BASE64"}, extensions {"$extension": [type,
 * "BASE64"]}, NaN and infinities null, integers above INT64_MAX the nearest real; strings that are
 * not UTF-8 have their bad bytes replaced by U+FFFD. Keys that are no strings become their JSON
 * text, or "$msgpack:BASE64" of their bytes if they are no scalars. Where two keys become equal by
 * that, the last wins: this side is for reading, not for keeping.
 *
 * Threads: pure functions.
 */
#ifndef TANDEM_REACTOR_JSON_H
#define TANDEM_REACTOR_JSON_H

#include "../store/msgpack.h"

#ifdef __cplusplus
extern "C" {
#endif

struct json_t;

/*
 * Append text's one JSON value as msgpack to out.
 * why      room for a sentence that tells a user what is wrong, with line and column where the text
 *          is no JSON; without control characters; written on TANDEM_E_INPUT only
 * Errors: TANDEM_E_INPUT (not one JSON value, nested deeper than TANDEM_PAYLOAD_DEPTH_MAX, more
 * values than TANDEM_PAYLOAD_ITEMS_MAX), TANDEM_E_NOMEM (where jansson's scanner runs out of memory
 * it cannot tell that from a bad token: TANDEM_E_INPUT); then nothing was appended.
 */
TANDEM_API tandem_err tandem_json_read(tandem_slice text, tandem_writer *out, char why[128]);

/* The same for a value that jansson has read; with TANDEM_E_INPUT json is nested too deep or has too many
 * values. */
TANDEM_API tandem_err tandem_json_convert(const struct json_t *json, tandem_writer *out,
                                          char why[128]);

/* A new NUL-terminated string, compact, keys in the order of the msgpack; the caller frees it with
 * free(). Errors: TANDEM_E_PAYLOAD (not one value, or nested deeper than TANDEM_PAYLOAD_DEPTH_MAX
 * plus 16), TANDEM_E_NOMEM. */
TANDEM_API tandem_err tandem_json_write(tandem_slice value, char **text_out);

/*
 * How many digits jansson must write (JSON_REAL_PRECISION) so that every real in json reads back the
 * same: 15, which shows 0.1 as 0.1, unless one needs 16 or 17.
 */
TANDEM_API size_t tandem_json_digits(const struct json_t *json);

#ifdef __cplusplus
}
#endif

#endif
