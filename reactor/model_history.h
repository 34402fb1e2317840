/*
 * A history drawn from a seed, for model_check: what several origins did to one document of a
 * model, in one stream, as a store takes it. It stands in total order, its CREATE first; each
 * chain's clock goes forward, so that this is an order in which it may arrive, too. Chains fork now
 * and then.
 */
#ifndef TANDEM_REACTOR_MODEL_HISTORY_H
#define TANDEM_REACTOR_MODEL_HISTORY_H

#include "reactor/model_check.h"
#include "store/operation.h"

enum { TD_HISTORY_OPERATIONS = 48 };

#define TD_HISTORY_COLLECTION "c"
#define TD_HISTORY_DOCUMENT "d"
#define TD_HISTORY_BRANCH "main"
#define TD_HISTORY_SCOPE "global"

typedef struct td_history {
    uint64_t dice; /* goes on where drawing ended */
    size_t count;
    uint64_t accepted; /* inputs that prepare took */
    td_operation operations[TD_HISTORY_OPERATIONS];
    tandem_writer bytes[TD_HISTORY_OPERATIONS]; /* what those are views of, in any order */
} td_history;

/* The next number of a stream of them (splitmix64), and one below a limit. */
uint64_t td_dice_next(uint64_t *dice);
uint32_t td_dice_below(uint64_t *dice, uint32_t limit);

/* Draw one. Errors are those of tandem_model_check(), with why; release it all the same. */
tandem_err td_history_draw(td_history *history, const tandem_model *model,
                           const tandem_model_check_options *options, uint64_t seed,
                           char why[TANDEM_MODEL_WHY_BYTES]);
void td_history_release(td_history *history);

/* Write "seed N: " and a sentence, and be err. */
tandem_err td_model_why(char why[TANDEM_MODEL_WHY_BYTES], tandem_err err, uint64_t seed,
                        const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
