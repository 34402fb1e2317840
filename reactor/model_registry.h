/*
 * The models that a reactor knows, by name.
 *
 * Ownership: models are borrowed and outlive the registry.
 * Threads:   models are added before the reactor's actors run; afterwards it is read only.
 */
#ifndef TANDEM_REACTOR_MODEL_REGISTRY_H
#define TANDEM_REACTOR_MODEL_REGISTRY_H

#include "reactor/model.h"

typedef struct td_model_registry td_model_registry;

/* Holds the built-in models from the start. TANDEM_E_NOMEM. */
tandem_err td_model_registry_open(td_model_registry **out);
void td_model_registry_free(td_model_registry *registry); /* NULL is fine */

/* TANDEM_E_INVALID (a bad name, a missing slot, a size of another version), TANDEM_E_EXISTS,
 * TANDEM_E_NOMEM. */
tandem_err td_model_registry_add(td_model_registry *registry, const tandem_model *model);
/* NULL if it is not known. */
const tandem_model *td_model_registry_find(const td_model_registry *registry, tandem_slice name);

#endif
