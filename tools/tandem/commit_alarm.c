#include "tools/tandem/commit_alarm.h"

#include <time.h>

enum { LOOK_MS = 250 }; /* how often it is looked whether the caller is still there */

static void on_committed(void *context, uint64_t position)
{
    cli_commit_alarm *alarm = context;

    pthread_mutex_lock(&alarm->lock);
    alarm->committed = position;
    pthread_cond_signal(&alarm->wake);
    pthread_mutex_unlock(&alarm->lock);
}

tandem_err cli_commit_alarm_init(cli_commit_alarm *alarm, tandem_reactor *reactor)
{
    *alarm = (cli_commit_alarm){.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    return tandem_subscribe(reactor, on_committed, alarm, &alarm->subscription);
}

void cli_commit_alarm_release(cli_commit_alarm *alarm)
{
    tandem_unsubscribe(alarm->subscription);
    pthread_cond_destroy(&alarm->wake);
    pthread_mutex_destroy(&alarm->lock);
}

tandem_err cli_commit_alarm_wait(cli_commit_alarm *alarm, cli_request *request)
{
    tandem_err err;

    while ((err = cli_check(request)) == TANDEM_OK) {
        struct timespec until;
        bool news;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOOK_MS * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000L;
        }
        pthread_mutex_lock(&alarm->lock);
        if (alarm->committed == alarm->seen)
            pthread_cond_timedwait(&alarm->wake, &alarm->lock, &until);
        news = alarm->committed != alarm->seen;
        alarm->seen = alarm->committed;
        pthread_mutex_unlock(&alarm->lock);
        if (news)
            return TANDEM_OK;
    }
    return err;
}
