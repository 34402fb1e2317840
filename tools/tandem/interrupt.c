#include "tools/tandem/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t noted;
/* A signal that comes just before the poll must end it as well: it is a byte in this pipe. */
static int bell[2] = {-1, -1};

static void on_signal(int number)
{
    int before = errno;
    ssize_t rung;

    noted = number;
    rung = write(bell[1], "", 1); /* if it is full it rings already */
    (void)rung;
    errno = before;
}

void cli_interrupt_begin(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_RESETHAND};

    if (pipe2(bell, O_CLOEXEC | O_NONBLOCK)) /* then a signal ends the process at once */
        return;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int cli_interrupt(void)
{
    return noted;
}

bool cli_interrupt_wait(int fd, int timeout_ms)
{
    struct pollfd pollers[] = {{.fd = fd, .events = POLLIN}, {.fd = bell[0], .events = POLLIN}};

    while (!noted)
        if (poll(pollers, 2, timeout_ms) >= 0 || errno != EINTR)
            break;
    return !noted;
}
