#include "tools/tandem/change_alarm.h"

#include <time.h>

enum { LOOK_MS = 250 }; /* how often it is looked whether the caller is still there */

static void on_changed(void *context, uint64_t position)
{
    cli_change_alarm *alarm = context;

    (void)position; /* it is read anyhow */
    pthread_mutex_lock(&alarm->lock);
    alarm->changed = true;
    pthread_cond_signal(&alarm->wake);
    pthread_mutex_unlock(&alarm->lock);
}

tandem_err cli_change_alarm_init(cli_change_alarm *alarm, tandem_reactor *reactor,
                                 const char *collection, const char *document)
{
    *alarm = (cli_change_alarm){.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    return document ? tandem_subscribe_document(reactor, collection, document, on_changed, alarm,
                                                &alarm->subscription)
                    : tandem_subscribe(reactor, on_changed, alarm, &alarm->subscription);
}

void cli_change_alarm_release(cli_change_alarm *alarm)
{
    tandem_unsubscribe(alarm->subscription);
    pthread_cond_destroy(&alarm->wake);
    pthread_mutex_destroy(&alarm->lock);
}

tandem_err cli_change_alarm_wait(cli_change_alarm *alarm, cli_request *request)
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
        if (!alarm->changed)
            pthread_cond_timedwait(&alarm->wake, &alarm->lock, &until);
        news = alarm->changed;
        alarm->changed = false;
        pthread_mutex_unlock(&alarm->lock);
        if (news)
            return TANDEM_OK;
    }
    return err;
}
