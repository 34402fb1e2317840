#include "store/incarnation.h"

const char *tandem_incarnation_reason_name(tandem_incarnation_reason reason)
{
    switch (reason) {
    case TANDEM_INCARNATION_CREATED:
        return "created";
    case TANDEM_INCARNATION_CONTINUED:
        return "continued";
    case TANDEM_INCARNATION_COPIED:
        return "copied";
    case TANDEM_INCARNATION_CLOCK:
        return "clock";
    case TANDEM_INCARNATION_RESTORED:
        return "restored";
    case TANDEM_INCARNATION_CLONED:
        return "cloned";
    }
    return "unknown";
}
