/*
 * Waiting for a reactor or a document to change, on the thread of a request, and looking meanwhile whether
 * its caller is still there.
 */
#ifndef TANDEM_TOOLS_CHANGE_ALARM_H
#define TANDEM_TOOLS_CHANGE_ALARM_H

#include <pthread.h>

#include "tools/tandem/request.h"

typedef struct cli_change_alarm {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool changed;
    tandem_subscription *subscription;
} cli_change_alarm;

/* From now on: what was committed before wakes nobody. document NULL: any commit. As
 * tandem_subscribe() and tandem_subscribe_document(). */
tandem_err cli_change_alarm_init(cli_change_alarm *alarm, tandem_reactor *reactor,
                                 const char *collection, const char *document);
void cli_change_alarm_release(cli_change_alarm *alarm);
/* Wait for a change that was not waited for yet. As cli_check(). */
tandem_err cli_change_alarm_wait(cli_change_alarm *alarm, cli_request *request);

#endif
