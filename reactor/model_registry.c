#include "reactor/model_registry.h"

#include <stdlib.h>

enum { MODEL_NAME_BYTES_MAX = 64 };

/* A handful of models: an array is searched faster than a hash is computed. */
struct td_model_registry {
    const tandem_model **models;
    size_t count;
};

static bool name_valid(const char *name)
{
    size_t size;

    if (!name)
        return false;
    for (size = 0; name[size]; size++) {
        char c = name[size];

        if (size == MODEL_NAME_BYTES_MAX)
            return false;
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_')
            return false;
    }
    return size >= 1;
}

static bool model_valid(const tandem_model *model)
{
    /* The size comes first: what lies behind it may be another struct. */
    return model && model->size == sizeof(tandem_model) && name_valid(model->name) &&
           model->state_open && model->state_free && model->prepare && model->apply &&
           model->show && model->save && model->restore && !model->pretend == !model->take_back;
}

tandem_err td_model_registry_open(td_model_registry **out)
{
    static const tandem_model *const built_in[] = {
        &tandem_model_kv,
        &tandem_model_counter,
        &tandem_model_log,
        &tandem_model_text,
    };
    td_model_registry *registry = calloc(1, sizeof(*registry));
    tandem_err err;

    if (!registry)
        return TANDEM_E_NOMEM;
    for (size_t i = 0; i < sizeof(built_in) / sizeof(built_in[0]); i++)
        if ((err = td_model_registry_add(registry, built_in[i])) != TANDEM_OK)
            goto fail;
    *out = registry;
    return TANDEM_OK;

fail:
    td_model_registry_free(registry);
    return err;
}

void td_model_registry_free(td_model_registry *registry)
{
    if (!registry)
        return;
    free(registry->models);
    free(registry);
}

tandem_err td_model_registry_add(td_model_registry *registry, const tandem_model *model)
{
    const tandem_model **models;

    if (!model_valid(model))
        return TANDEM_E_INVALID;
    if (td_model_registry_find(registry, tandem_slice_text(model->name)))
        return TANDEM_E_EXISTS;
    models = reallocarray(registry->models, registry->count + 1, sizeof(const tandem_model *));
    if (!models)
        return TANDEM_E_NOMEM;
    registry->models = models;
    registry->models[registry->count++] = model;
    return TANDEM_OK;
}

const tandem_model *td_model_registry_find(const td_model_registry *registry, tandem_slice name)
{
    for (size_t i = 0; i < registry->count; i++)
        if (tandem_slice_equal(tandem_slice_text(registry->models[i]->name), name))
            return registry->models[i];
    return NULL;
}
