/*
 * What happens to a reactor apart from commits, and that somebody may want to know: typed events.
 *
 * Like positions they are no queue: of each kind the newest replaces the one before that was not told
 * yet, and `count` says how many there were, so that a slow watcher knows that it missed some.
 */
#ifndef TANDEM_REACTOR_EVENT_H
#define TANDEM_REACTOR_EVENT_H

#include "../store/bytes.h"
#include "../store/incarnation.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tandem_event_kind {
    TANDEM_EVENT_INCARNATION = 1, /* this reactor writes under a new origin */
    TANDEM_EVENT_FORK = 2,        /* operations came that make one head more of an origin */
    TANDEM_EVENT_QUARANTINE = 3,  /* operations were refused: they would make a ninth head */
    TANDEM_EVENT_CLOCK = 4,       /* operations were put off: they are dated too far ahead */
    TANDEM_EVENT_CLAIM = 5,       /* a peer does not show what it claims to hold */
    TANDEM_EVENT_REFUSAL = 6,     /* operations were refused for good: tandem_options.admit */
    TANDEM_EVENT_DEAD_LETTER = 7, /* a peer has refused operations of ours for good */
    TANDEM_EVENT_WITHDRAWAL = 8,  /* refusals were withdrawn: tandem_withdraw_refusals() */
} tandem_event_kind;

enum { TANDEM_EVENT_KINDS = 8 };

typedef struct tandem_event {
    tandem_event_kind kind;
    uint64_t count; /* of this kind, since the reactor was opened */
    uint8_t origin[TANDEM_ORIGIN_BYTES]; /* the new one, or whose operations they are */
    /* INCARNATION: */
    tandem_incarnation_reason reason;
    /* The others, but WITHDRAWAL: the last operation of the job that it is about; CLAIM: that was asked for. */
    char collection[TANDEM_NAME_BYTES_MAX + 1];
    uint64_t seq;
    uint64_t hlc;
} tandem_event;

/* "incarnation", "fork", "quarantine", …; "unknown" for anything else. Static. */
TANDEM_API const char *tandem_event_kind_name(tandem_event_kind kind);

#ifdef __cplusplus
}
#endif

#endif
