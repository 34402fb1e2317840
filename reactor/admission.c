#include "reactor/admission.h"

static bool takes(const td_admission *admission, const td_operation *operation)
{
    tandem_operation shown = {
        .seq = operation->seq,
        .hlc = operation->hlc,
        .origin = operation->origin,
        .hash = operation->hash,
        .collection = operation->collection,
        .document = operation->document,
        .branch = operation->branch,
        .scope = operation->scope,
        .type = operation->type,
        .payload = operation->payload,
        .canonical = operation->canonical,
    };

    return admission->admit(admission->context, &shown);
}

bool td_admission_takes(const td_admission *admission, const td_operation *job, size_t count)
{
    if (!admission->admit)
        return true;
    for (size_t i = 0; i < count; i++)
        if (!takes(admission, &job[i]))
            return false;
    return true;
}
