/*
 * Log lines: what a program that uses the library is told besides its answers.
 *
 * Threads: lines come on whatever thread they concern, one at a time or several at once.
 */
#ifndef TANDEM_STORE_LOG_H
#define TANDEM_STORE_LOG_H

#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tandem_log_level {
    TANDEM_LOG_ERROR = 0,
    TANDEM_LOG_WARNING = 1,
    TANDEM_LOG_INFO = 2,
    TANDEM_LOG_DEBUG = 3,
} tandem_log_level;

/*
 * Receives one log line.
 *
 * component    static, a word such as "executor"
 * text         one line without line feed, valid for the call only; never a payload or a secret
 */
typedef void (*tandem_log_fn)(void *context, tandem_log_level level, const char *component,
                              const char *text);

#ifdef __cplusplus
}
#endif

#endif
