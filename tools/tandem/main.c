/*
 * tandem: the reactor node and its command line.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/tandem/command.h"

int main(int argc, char **argv)
{
    cli_call call;
    int code;

    umask(077);
    if (cli_call_init(&call, argc, argv, &code))
        code = call.command->run(&call);
    /* A full disk behind a redirected output shows here at the latest. */
    if ((fflush(stdout) || ferror(stdout)) && !code)
        code = cli_fail(TANDEM_E_IO, "stdout could not be written", "the output is not whole");
    cli_call_release(&call);
    return code;
}
