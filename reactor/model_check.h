/*
 * The laws of models, checked on a model of one's own: what tandem_model asks of one in words, this
 * asks with histories drawn from seeds. A history is what several origins did to one document:
 * inputs that prepare accepts, inputs that it refuses, and what only strangers send (other verbs,
 * other models, bytes that are no msgpack, values too deep). It runs on a store, an index and the
 * very fold of a reactor, in memory. These are the laws, by the words with which a broken one is
 * named:
 *
 *   prepare     answers TANDEM_OK with one valid value, or TANDEM_E_INPUT
 *   pretend     what was pretended and taken back shows as before (where the model has it)
 *   apply       answers TANDEM_OK or TANDEM_E_INPUT, whatever the payload
 *   refusal     an operation that apply refuses leaves the state as it was
 *   show        writes canonical msgpack
 *   restore     takes what save wrote and shows the same; of what is cut short it takes something
 *               or says TANDEM_E_CORRUPT
 *   purity      the same operations show the same bytes, folded again: nothing is kept outside the
 *               state, and nothing of what apply only borrows
 *   snapshot    a snapshot at any place and the operations after it show what the whole fold shows
 *   order       any order of arrival, effects before their causes included, shows the same bytes
 *
 * A model that crashes, or reads what is not its own, takes the program with it: run the check
 * under AddressSanitizer, too. That it holds is no proof: a law is broken only where a history
 * shows it.
 */
#ifndef TANDEM_REACTOR_MODEL_CHECK_H
#define TANDEM_REACTOR_MODEL_CHECK_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TANDEM_DRAWN_BYTES = 4096, TANDEM_MODEL_WHY_BYTES = 256 };

typedef struct tandem_model_check_options {
    size_t size;              /* sizeof(tandem_model_check_options) */
    const char *const *verbs; /* that the model takes ("SET"), NULL behind the last; at least one */
    /*
     * Write one input of a verb as JSON, a pure function of random. NULL: values of all shapes are
     * tried, which a model that is particular may refuse one and all.
     */
    void (*draw)(void *context, const char *verb, uint64_t random, char json[TANDEM_DRAWN_BYTES]);
    void *context;
    uint64_t seed;  /* the first one */
    uint32_t seeds; /* how many: some hundreds take a second */
} tandem_model_check_options;

#define TANDEM_MODEL_CHECK_OPTIONS_INIT                                                            \
    {                                                                                              \
        .size = sizeof(tandem_model_check_options), .seed = 1, .seeds = 100                        \
    }

/*
 * Check a model, seed by seed: histories depend on the seed and the model alone.
 *
 * why      "" if all laws hold; else "seed 7: order: …", the first law that is broken
 *
 * Errors: TANDEM_E_INTERNAL (a law is broken), TANDEM_E_INVALID (a slot of the model is missing,
 * there are no verbs, what was drawn is no JSON, or no input at all was accepted, so that nothing
 * was proven; why says which), TANDEM_E_NOMEM.
 * Threads: the caller's; memory is that of one history.
 */
TANDEM_API tandem_err tandem_model_check(const tandem_model *model,
                                         const tandem_model_check_options *options,
                                         char why[TANDEM_MODEL_WHY_BYTES]);

#ifdef __cplusplus
}
#endif

#endif
