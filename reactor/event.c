#include "reactor/event.h"

const char *tandem_event_kind_name(tandem_event_kind kind)
{
    switch (kind) {
    case TANDEM_EVENT_INCARNATION:
        return "incarnation";
    case TANDEM_EVENT_FORK:
        return "fork";
    case TANDEM_EVENT_QUARANTINE:
        return "quarantine";
    case TANDEM_EVENT_CLOCK:
        return "clock";
    case TANDEM_EVENT_CLAIM:
        return "claim";
    case TANDEM_EVENT_REFUSAL:
        return "refusal";
    case TANDEM_EVENT_DEAD_LETTER:
        return "dead_letter";
    case TANDEM_EVENT_WITHDRAWAL:
        return "withdrawal";
    }
    return "unknown";
}
