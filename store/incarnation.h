/*
 * Why a reactor writes under the origin that it has. An origin names one incarnation of a reactor's
 * writer; a new one begins where going on with the old could give two operations one identity, or
 * where the old one's clock is beyond repair. Nothing is lost by it: what was written under the old
 * origin stays, and is announced and fetched like anybody's.
 */
#ifndef TANDEM_STORE_INCARNATION_H
#define TANDEM_STORE_INCARNATION_H

#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The numbers are kept in stores: they never change. */
typedef enum tandem_incarnation_reason {
    TANDEM_INCARNATION_CREATED = 1,   /* the store is new */
    TANDEM_INCARNATION_CONTINUED = 2, /* operations came under its origin that it did not write */
    TANDEM_INCARNATION_COPIED = 3,    /* a copy of its folder is alive, and older */
    TANDEM_INCARNATION_CLOCK = 4,     /* its clock had run far ahead of its own time and a peer's */
    /* The store is new as well, and was made of what another holds. Versions before these reasons
     * show them as unknown. */
    TANDEM_INCARNATION_RESTORED = 5, /* of a backup */
    TANDEM_INCARNATION_CLONED = 6,   /* of a reactor, by command */
} tandem_incarnation_reason;

/* "created", "continued", "copied", "clock", "restored", "cloned"; "unknown" for anything else.
 * Static. */
TANDEM_API const char *tandem_incarnation_reason_name(tandem_incarnation_reason reason);

#ifdef __cplusplus
}
#endif

#endif
