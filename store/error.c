#include "store/error.h"

#include <errno.h>

static const tandem_error_info errors[] = {
#define TANDEM_ERROR_ROW(name, number, transient, exit_code, when, cure)                           \
    {name, #name, transient, exit_code, when, cure},
    TANDEM_ERRORS(TANDEM_ERROR_ROW)
#undef TANDEM_ERROR_ROW
};

const tandem_error_info *tandem_err_list(size_t *count_out)
{
    *count_out = sizeof(errors) / sizeof(errors[0]);
    return errors;
}

const tandem_error_info *tandem_err_info(tandem_err err)
{
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        if (errors[i].err == err)
            return &errors[i];
    return NULL;
}

const char *tandem_err_name(tandem_err err)
{
    const tandem_error_info *info = tandem_err_info(err);

    return info ? info->name : "TANDEM_E_UNKNOWN";
}

const char *tandem_err_text(tandem_err err)
{
    const tandem_error_info *info = tandem_err_info(err);

    return info ? info->when : "an error that this version does not know";
}

bool tandem_err_is_transient(tandem_err err)
{
    const tandem_error_info *info = tandem_err_info(err);

    return info && info->transient;
}

tandem_err tandem_err_of_errno(int error)
{
    switch (error) {
    case ENOENT:
        return TANDEM_E_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return TANDEM_E_PERMISSION;
    case ENOSPC:
    case EDQUOT:
        return TANDEM_E_STORE_FULL;
    case EEXIST:
        return TANDEM_E_EXISTS;
    case EISDIR:
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG:
        return TANDEM_E_INVALID;
    case ENOMEM:
        return TANDEM_E_NOMEM;
    default:
        return TANDEM_E_IO;
    }
}
