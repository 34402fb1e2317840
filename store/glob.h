/*
 * Globs: patterns of names. A glob is itself a name (1 to 128 bytes of UTF-8), and
 * matches whole names, code point by code point:
 *
 *   *       any number of code points, none included
 *   ?       one
 *   [abc]   one of these; a-z is a range of code points; ! or ^ first: one that is not among them;
 *           a ] first is one of them
 *   \c      c itself, whatever it is; in brackets, too
 *
 * No other character is special, neither a slash nor a dot at the beginning; case counts. A bracket
 * that is not closed, a range that ends before it begins, and a backslash with nothing behind it
 * make no glob.
 *
 * Matching takes time in the product of both lengths at worst, and no memory.
 *
 * Threads: pure functions.
 */
#ifndef TANDEM_STORE_GLOB_H
#define TANDEM_STORE_GLOB_H

#include <stdbool.h>

#include "bytes.h"
#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

TANDEM_API bool tandem_glob_valid(tandem_slice glob);

/* Does a valid glob match a name, from its beginning to its end? */
TANDEM_API bool tandem_glob_matches(tandem_slice glob, tandem_slice name);

#ifdef __cplusplus
}
#endif

#endif
