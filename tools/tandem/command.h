/*
 * The command line as one table: every command's noun, verb, arguments, flags and one line of help.
 * Parsing, help and "did you mean" are made from it, so that they cannot disagree.
 *
 * The names, flags and exit codes are fixed: scripts rely on them. What people see is not.
 *
 * Symbols that files of the binary share begin with cli_: it links the library's internals
 * statically, whose shared symbols begin with td_.
 */
#ifndef TANDEM_TOOLS_COMMAND_H
#define TANDEM_TOOLS_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/error.h"

enum { CLI_WHY_BYTES = 256 };

#define CLI_NO_TIMEOUT UINT64_MAX

/* One per flag, global ones first. */
typedef enum cli_flag {
    CLI_DATA,
    CLI_NODE,
    CLI_JSON,
    CLI_COLOR,
    CLI_PROGRESS,
    CLI_QUIET,
    CLI_VERBOSE,
    CLI_DRY_RUN,
    CLI_YES,
    CLI_TIMEOUT,
    CLI_HELP,
    CLI_VERSION,
    CLI_GLOBAL_COUNT,
    CLI_LISTEN = CLI_GLOBAL_COUNT,
    CLI_PEER,
    CLI_INSECURE,
    CLI_TYPE,
    CLI_MODEL,
    CLI_INPUT,
    CLI_SCOPE,
    CLI_BRANCH,
    CLI_EXPECT,
    CLI_AFTER,
    CLI_FOLLOW,
    CLI_FROM,
    CLI_WAIT,
    CLI_BOX,
    CLI_WATCH,
    CLI_PUSH,
    CLI_PULL,
    CLI_BOTH,
    CLI_COLLECTION,
    CLI_DOCUMENT,
    CLI_ALL,
    CLI_SEED,
    CLI_SEEDS,
    CLI_STORE,
    CLI_SCRIPT,
    CLI_SHRINK,
    CLI_EVENTS,
    CLI_FAULT,
    CLI_RETRY,
    CLI_REFUSE,
    CLI_PEERS,
    CLI_REACTORS,
    CLI_RATE,
    CLI_SECONDS,
    CLI_VARIANT,
    CLI_OPERATIONS,
    CLI_PAIRS,
    CLI_QUICK,
    CLI_LIST,
    CLI_POLL,
    CLI_AGENTS,
    CLI_VIA,
    CLI_WORKLOAD,
    CLI_FLAG_COUNT,
} cli_flag;

typedef enum cli_when { CLI_AUTO, CLI_ALWAYS, CLI_NEVER, CLI_PLAIN } cli_when;

typedef struct cli_command cli_command;

/* One command line, parsed. Strings are argv's, except data. */
typedef struct cli_call {
    const cli_command *command; /* NULL: help or version only */
    const char **args;          /* after noun and verb */
    size_t arg_count;
    const char **values[CLI_FLAG_COUNT]; /* of flags that take one, in order */
    size_t given[CLI_FLAG_COUNT];        /* how often */
    char *data;                          /* the data folder; NULL only if there is no default */
    cli_when color;                      /* AUTO, ALWAYS, NEVER */
    cli_when progress;                   /* AUTO, PLAIN, NEVER */
    uint64_t timeout_ms;                 /* CLI_NO_TIMEOUT: not given */
    bool json;
    bool quiet;
    bool dry_run;
} cli_call;

struct cli_command {
    const char *noun;
    const char *verb;      /* NULL: the noun is the command */
    const char *arguments; /* "COLLECTION DOCUMENT" */
    const char *help;      /* one line, no capital, no full stop */
    uint64_t flags;        /* bit (1 << cli_flag) per own flag */
    unsigned args_min;
    unsigned args_max;
    int (*run)(const cli_call *call); /* returns the exit code */
};

/* The table, in order of help. */
extern const cli_command cli_commands[];
extern const size_t cli_command_count;

/*
 * Parse a command line. On an error it has been reported, *exit_out is the exit code and false is
 * returned; the same for help and version, with 0. call is to be released in either case.
 */
bool cli_call_init(cli_call *call, int argc, char **argv, int *exit_out);
void cli_call_release(cli_call *call);

/* The last value of a flag; NULL if not given. */
const char *cli_value(const cli_call *call, cli_flag flag);
/* Read a flag as a whole number; fallback if not given. False, reported, if it is none. */
bool cli_number(const cli_call *call, cli_flag flag, uint64_t fallback, uint64_t *out);
bool cli_is_utf8(const char *text);
/* A whole number and nothing else. */
bool cli_parse_number(const char *text, uint64_t *out);

/* Help on everything, on a noun, on a command. */
void cli_help(const char *noun, const cli_command *command);
/* How a command is written, without `tandem`: "op append COLLECTION …". */
void cli_synopsis(const cli_command *command, char *out, size_t size);
/* The nearest word of candidates to word, or NULL if none is near. */
const char *cli_nearest(const char *word, const char *const *candidates, size_t count);

/* The spelling of a flag, "--data", its short letter or 0, and its value's name or NULL. */
const char *cli_flag_name(cli_flag flag);
char cli_flag_letter(cli_flag flag);
const char *cli_flag_value_name(cli_flag flag);

/* The bytes of the control character that text begins with, which a terminal would obey; 0: none. */
size_t cli_control(const char *text);

/*
 * Report a failure on stderr, in one line: what, why; what to do (NAME). Returns the exit code.
 *
 * why      NULL or "": the error's own text. One with a semicolon says behind it what to do, in the
 *          place of the error's own advice, which is written for every program.
 */
int cli_fail(tandem_err err, const char *why, const char *what, ...)
    __attribute__((format(printf, 3, 4)));
/* The same where the sentence stands as it is: "sentence (NAME)". */
int cli_fail_plain(tandem_err err, const char *sentence);
int cli_exit_code(tandem_err err);

/* The handlers, by file. */
int cli_serve(const cli_call *call);
int cli_import(const cli_call *call);
int cli_export(const cli_call *call);
int cli_backup(const cli_call *call);
int cli_restore(const cli_call *call);
int cli_clone(const cli_call *call);
int cli_op_append(const cli_call *call);
int cli_op_ls(const cli_call *call);
int cli_doc_ls(const cli_call *call);
int cli_doc_show(const cli_call *call);
int cli_doc_delete(const cli_call *call);
int cli_peer_add(const cli_call *call);
int cli_peer_set(const cli_call *call);
int cli_peer_ls(const cli_call *call);
int cli_peer_show(const cli_call *call);
int cli_peer_pause(const cli_call *call);
int cli_peer_resume(const cli_call *call);
int cli_peer_sync(const cli_call *call);
int cli_peer_rm(const cli_call *call);
int cli_job_ls(const cli_call *call);
int cli_job_show(const cli_call *call);
int cli_job_retry(const cli_call *call);
int cli_job_discard(const cli_call *call);
int cli_wait(const cli_call *call);
int cli_status(const cli_call *call);
int cli_digest(const cli_call *call);
int cli_verify(const cli_call *call);
int cli_errors(const cli_call *call);
int cli_sim(const cli_call *call);
int cli_bench(const cli_call *call);
int cli_trace_replay(const cli_call *call);

#endif
