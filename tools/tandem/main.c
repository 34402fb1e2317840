/*
 * tandem: the reactor node and its command line.
 */
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/tandem/command.h"

/*
 * What is printed is UTF-8 whatever the environment says, and tables must know it to tell letters
 * from what has to be escaped. Nothing else is localized: numbers and JSON are the same everywhere.
 */
static void locale_set(void)
{
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8"))
        setlocale(LC_CTYPE, "C.UTF-8");
}

int main(int argc, char **argv)
{
    cli_call call;
    int code;

    umask(077);
    locale_set();
    if (cli_call_init(&call, argc, argv, &code))
        code = call.command->run(&call);
    /* A full disk behind a redirected output shows here at the latest. */
    if ((fflush(stdout) || ferror(stdout)) && !code)
        code = cli_fail(TANDEM_E_IO, "stdout could not be written", "the output is not whole");
    cli_call_release(&call);
    return code;
}
