/*
 * A file that appears once it is whole: written under another name beside its place, flushed, and
 * moved there. A new one has mode 0600, one that takes another's place the mode and the owner of that;
 * a symbolic link stays, what it points to is replaced. A signal that ends the process takes away
 * what was written.
 *
 * What is no regular file (a device, a FIFO, a terminal) cannot be replaced without destroying it:
 * that is written straight into.
 */
#ifndef TANDEM_TOOLS_WHOLE_FILE_H
#define TANDEM_TOOLS_WHOLE_FILE_H

#include <stdbool.h>
#include <stdio.h>

#include "tools/tandem/command.h"

typedef struct cli_whole_file {
    FILE *out;
    const char *path; /* borrowed */
    char *target;     /* what path points to */
    char *temporary;  /* NULL: out is the target itself */
    bool is_stdout;   /* the target is what stdout is, too */
} cli_whole_file;

/*
 * Begin to write path; one file at a time in the process. An error has been reported; *exit_out is the
 * exit code and false is returned.
 *
 * replace      false: a file that exists is TANDEM_E_EXISTS, now or when the new one is whole
 */
bool cli_whole_file_open(cli_whole_file *file, const char *path, bool replace, int *exit_out);
/* It is whole: flush it and put it in its place. Reported if that fails; returns the exit code. */
int cli_whole_file_keep(cli_whole_file *file, bool replace);
/* Let go of it; if it was not kept, it is gone. */
void cli_whole_file_release(cli_whole_file *file);

#endif
