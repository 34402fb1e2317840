/*
 * Waiting for commits on the thread of a request, and looking meanwhile whether its caller is still there.
 */
#ifndef TANDEM_TOOLS_COMMIT_ALARM_H
#define TANDEM_TOOLS_COMMIT_ALARM_H

#include <pthread.h>

#include "tools/tandem/request.h"

typedef struct cli_commit_alarm {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    uint64_t committed, seen;
    tandem_subscription *subscription;
} cli_commit_alarm;

/* From now on: what was committed before wakes nobody. As tandem_subscribe(). */
tandem_err cli_commit_alarm_init(cli_commit_alarm *alarm, tandem_reactor *reactor);
void cli_commit_alarm_release(cli_commit_alarm *alarm);
/* Wait for a commit that was not waited for yet. As cli_check(). */
tandem_err cli_commit_alarm_wait(cli_commit_alarm *alarm, cli_request *request);

#endif
