#include "tools/tandem/command.h"

#include <stdio.h>
#include <string.h>

#define BIT(flag) (UINT64_C(1) << (flag))
#define FILTERS                                                                                    \
    (BIT(CLI_PUSH) | BIT(CLI_PULL) | BIT(CLI_BOTH) | BIT(CLI_COLLECTION) | BIT(CLI_DOCUMENT) |     \
     BIT(CLI_SCOPE) | BIT(CLI_BRANCH) | BIT(CLI_ALL))

_Static_assert(CLI_FLAG_COUNT <= 64, "a command's flags are the bits of one number");

const cli_command cli_commands[] = {
    {"serve", NULL, "", "run the reactor node",
     BIT(CLI_LISTEN) | BIT(CLI_PEER) | BIT(CLI_REFUSE) | BIT(CLI_INSECURE), 0, 0, cli_serve},
    {"status", NULL, "", "reactor, store, and each peer's state with its reason", BIT(CLI_WATCH), 0,
     0, cli_status},
    {"op", "append", "COLLECTION DOCUMENT", "execute one operation",
     BIT(CLI_TYPE) | BIT(CLI_MODEL) | BIT(CLI_INPUT) | BIT(CLI_SCOPE) | BIT(CLI_BRANCH) |
         BIT(CLI_EXPECT),
     2, 2, cli_op_append},
    {"op", "ls", "COLLECTION [DOCUMENT]",
     "operations in order of arrival, or of one document in total order",
     BIT(CLI_AFTER) | BIT(CLI_FOLLOW), 1, 2, cli_op_ls},
    {"doc", "ls", "COLLECTION", "the documents of a collection", 0, 1, 1, cli_doc_ls},
    {"doc", "show", "COLLECTION DOCUMENT", "one document's state",
     BIT(CLI_BRANCH) | BIT(CLI_SCOPE) | BIT(CLI_FOLLOW), 2, 2, cli_doc_show},
    {"doc", "delete", "COLLECTION DOCUMENT", "delete a document", 0, 2, 2, cli_doc_delete},
    {"import", NULL, "COLLECTION [FILE]", "execute the operations of a file, one a line",
     BIT(CLI_FROM), 1, 2, cli_import},
    {"export", NULL, "COLLECTION [FILE]", "write a collection's content, one operation a line", 0,
     1, 2, cli_export},
    {"digest", NULL, "[COLLECTION]", "digests: reactors that hold the same print the same", 0, 0, 1,
     cli_digest},
    {"verify", NULL, "", "read the whole store again and check it", 0, 0, 0, cli_verify},
    {"peer", "add", "NAME URL", "keep this reactor in step with another",
     FILTERS | BIT(CLI_RETRY) | BIT(CLI_POLL), 2, 2,
     cli_peer_add},
    {"peer", "set", "NAME [URL]",
     "change a peer's URL, what is shared (less takes nothing away), how it is retried, or polled",
     FILTERS | BIT(CLI_RETRY) | BIT(CLI_POLL), 1, 2, cli_peer_set},
    {"peer", "ls", "", "the peers and their states", 0, 0, 0, cli_peer_ls},
    {"peer", "show", "NAME", "one peer's state", 0, 1, 1, cli_peer_show},
    {"peer", "pause", "NAME", "exchange nothing with a peer until resumed", 0, 1, 1,
     cli_peer_pause},
    {"peer", "resume", "NAME", "end a pause", 0, 1, 1, cli_peer_resume},
    {"peer", "sync", "[NAME]", "try now, whatever the backoff says", BIT(CLI_WAIT), 0, 1,
     cli_peer_sync},
    {"peer", "rm", "NAME", "forget a peer", 0, 1, 1, cli_peer_rm},
    {"job", "ls", "", "job handles in flight, and dead letters: what a peer refuses", BIT(CLI_BOX), 0, 0, cli_job_ls},
    {"job", "show", "ID", "one job handle or dead letter", 0, 1, 1, cli_job_show},
    {"job", "retry", "ID", "offer a dead letter again, when its peer is there", 0, 1, 1,
     cli_job_retry},
    {"job", "discard", "ID", "give up a dead letter; its operations stay here", 0, 1, 1,
     cli_job_discard},
    {"wait", NULL, "PEER", "wait until a peer durably has all that this reactor holds now", 0, 1, 1,
     cli_wait},
    {"backup", NULL, "FILE", "write all that a reactor holds to a file, while it works", 0, 1, 1,
     cli_backup},
    {"restore", NULL, "FILE", "make a data folder of a backup; its peers begin paused", 0, 1, 1,
     cli_restore},
    {"clone", NULL, "DIR", "make a data folder of another; its peers begin paused", 0, 1, 1,
     cli_clone},
    {"errors", NULL, "[CODE]", "the list of errors", 0, 0, 1, cli_errors},
    {"bench", NULL, "[NAME]", "measure this machine's limit, and whole nodes beside it; without a name: all",
     BIT(CLI_PEERS) | BIT(CLI_REACTORS) | BIT(CLI_RATE) |
         BIT(CLI_SECONDS) | BIT(CLI_VARIANT) | BIT(CLI_OPERATIONS) | BIT(CLI_PAIRS) |
         BIT(CLI_QUICK) | BIT(CLI_LIST), 0, 1, cli_bench},
    {"trace", "replay", "FILE", "replay a recorded editing session over reactors",
     BIT(CLI_AGENTS) | BIT(CLI_VIA), 1, 1, cli_trace_replay},
    {"sim", NULL, "", "the simulator: bad weeks drawn from seeds",
     BIT(CLI_SEED) | BIT(CLI_SEEDS) | BIT(CLI_STORE) | BIT(CLI_SCRIPT) | BIT(CLI_SHRINK) |
         BIT(CLI_EVENTS) | BIT(CLI_FAULT) | BIT(CLI_WORKLOAD),
     0, 0, cli_sim},
};
const size_t cli_command_count = sizeof(cli_commands) / sizeof(cli_commands[0]);

struct flag_row {
    const char *name;
    char letter;
    const char *value;
    const char *help;
};

static const struct flag_row flag_rows[CLI_FLAG_COUNT] = {
    [CLI_DATA] = {"--data", 0, "DIR",
                  "the reactor's folder (default $TANDEM_DATA_DIR, then $XDG_STATE_HOME/tandem)"},
    [CLI_NODE] = {"--node", 0, "unix:PATH", "talk to the node at this socket only"},
    [CLI_JSON] = {"--json", 0, NULL, "print JSON, one document or one a line"},
    [CLI_COLOR] = {"--color", 0, "WHEN", "auto, always or never"},
    [CLI_PROGRESS] = {"--progress", 0, "HOW", "auto, plain or none"},
    [CLI_QUIET] = {"--quiet", 'q', NULL, "no progress, no notes"},
    [CLI_VERBOSE] = {"--verbose", 'v', NULL, "log more on stderr; twice: everything"},
    [CLI_DRY_RUN] = {"--dry-run", 'n', NULL, "say what would be done, change nothing"},
    [CLI_YES] = {"--yes", 'y', NULL, "do not ask"},
    [CLI_TIMEOUT] = {"--timeout", 0, "SECONDS", "how long to wait"},
    [CLI_HELP] = {"--help", 'h', NULL, "this text"},
    [CLI_VERSION] = {"--version", 0, NULL, "the version"},
    [CLI_LISTEN] = {"--listen", 0, "ADDR:PORT",
                    "where to accept peers (default 127.0.0.1:7400; port 0 picks one)"},
    [CLI_PEER] = {"--peer", 0, "NAME=URL", "add a peer, or set its URL; kept; may be repeated"},
    [CLI_INSECURE] = {"--insecure", 0, NULL, "allow an address that other machines reach"},
    [CLI_TYPE] = {"--type", 0, "TYPE", "the operation's type, SET or kv.SET"},
    [CLI_MODEL] = {"--model", 0, "MODEL", "the model of a document that is new"},
    [CLI_INPUT] = {"--input", 0, "JSON|-", "the operation's input; - reads stdin"},
    [CLI_SCOPE] = {"--scope", 0, "SCOPE", "default global"},
    [CLI_BRANCH] = {"--branch", 0, "BRANCH", "default main"},
    [CLI_EXPECT] = {"--expect", 0, "[ORIGIN:]SEQ",
                    "only if that is the document's newest operation (ours by default); 0: it is new"},
    [CLI_AFTER] = {"--after", 0, "ORDINAL", "only what was committed after it"},
    [CLI_FOLLOW] = {"--follow", 0, NULL, "go on with what arrives"},
    [CLI_FROM] = {"--from", 0, "LINE", "begin at this line, counted from 1"},
    [CLI_WAIT] = {"--wait", 0, NULL, "until in step"},
    [CLI_BOX] = {"--box", 0, "BOX", "inbox, outbox or dead"},
    [CLI_WATCH] = {"--watch", 0, NULL, "again every second"},
    [CLI_PUSH] = {"--push", 0, NULL, "only send"},
    [CLI_PULL] = {"--pull", 0, NULL, "only fetch"},
    [CLI_BOTH] = {"--both", 0, NULL, "send and fetch"},
    [CLI_COLLECTION] = {"--collection", 0, "COLLECTION", "only this one; may be repeated"},
    [CLI_DOCUMENT] = {"--document", 0, "GLOB",
                      "only documents like a* or [a-c]?; may be repeated; the rest is not fetched, and "
                      "what is held in part is not passed on"},
    [CLI_ALL] = {"--all", 0, NULL, "all collections, documents, scopes and branches again"},
    [CLI_SEED] = {"--seed", 0, "N", "the first seed (default 1)"},
    [CLI_SEEDS] = {"--seeds", 0, "COUNT", "how many seeds, from the first on (default 1)"},
    [CLI_STORE] = {"--store", 0, "STORE", "memory (the default), or lmdb: real stores"},
    [CLI_SCRIPT] = {"--script", 0, "FILE", "run a plan that --shrink has printed; - reads stdin"},
    [CLI_SHRINK] = {"--shrink", 0, NULL, "make what fails small, and print it as a script"},
    [CLI_EVENTS] = {"--events", 0, NULL, "print how often each event has happened"},
    [CLI_FAULT] = {"--fault", 0, "CLASS", "only such faults; may be repeated; none, or all"},
    [CLI_RETRY] = {"--retry", 0, "KEY=VALUE",
                   "base, cap, rest (100ms, 30s), factor, attempts, budget (a minute), or reset; may be "
                   "repeated"},
    [CLI_REFUSE] = {"--refuse", 0, "COLL[/GLOB]",
                    "refuse what peers send on these documents, for good; until a start without; may "
                    "be repeated"},
    [CLI_PEERS] = {"--peers", 0, "N", "how many peers"},
    [CLI_REACTORS] = {"--reactors", 0, "N", "how many of the peers are whole reactors"},
    [CLI_RATE] = {"--rate", 0, "N", "operations a second"},
    [CLI_VARIANT] = {"--variant", 0, "NAME", "one of several ways to run it"},
    [CLI_OPERATIONS] = {"--operations", 0, "N", "how many operations"},
    [CLI_PAIRS] = {"--pairs", 0, "N", "how often each is measured, its ceiling beside it"},
    [CLI_QUICK] = {"--quick", 0, NULL, "little of each, in a minute: to see that it works"},
    [CLI_LIST] = {"--list", 0, NULL, "what there is"},
    [CLI_SECONDS] = {"--seconds", 0, "N", "how long to measure"},
    [CLI_POLL] = {"--poll", 0, "HOW",
                  "over HTTP: long, a time (5s) between two requests, adaptive, or "
                  "adaptive=5s on average"},
    [CLI_AGENTS] = {"--agents", 0, "N", "how many reactors (default: one for each author)"},
    [CLI_VIA] = {"--via", 0, "CHANNEL", "memory, in virtual time (the default), or ws: real ones on loopback"},
    [CLI_WORKLOAD] = {"--workload", 0, "NAME",
                      "what is written: mixed (the default), or text: several type into one text"},
};

const char *cli_flag_name(cli_flag flag)
{
    return flag_rows[flag].name;
}

char cli_flag_letter(cli_flag flag)
{
    return flag_rows[flag].letter;
}

const char *cli_flag_value_name(cli_flag flag)
{
    return flag_rows[flag].value;
}

/* ---- Help ---- */

void cli_synopsis(const cli_command *command, char *out, size_t size)
{
    snprintf(out, size, "%s%s%s%s%s", command->noun, command->verb ? " " : "",
             command->verb ? command->verb : "", command->arguments[0] ? " " : "",
             command->arguments);
}

/* Where a scope or a branch chooses what a peer gets, nothing is its default. */
static const char *help_of(unsigned flag, uint64_t flags)
{
    if (flag == CLI_SCOPE && flags & BIT(CLI_PUSH))
        return "only this scope; may be repeated";
    if (flag == CLI_BRANCH && flags & BIT(CLI_PUSH))
        return "only this branch; may be repeated";
    return flag_rows[flag].help;
}

static void help_flags(uint64_t flags)
{
    for (unsigned flag = 0; flag < CLI_FLAG_COUNT; flag++) {
        const struct flag_row *row = &flag_rows[flag];
        char spelling[64], letter[8] = "    ";

        if (!(flags & BIT(flag)))
            continue;
        if (row->letter)
            snprintf(letter, sizeof(letter), "-%c, ", row->letter);
        snprintf(spelling, sizeof(spelling), "%s%s%s%s", letter, row->name, row->value ? " " : "",
                 row->value ? row->value : "");
        printf("  %-27s %s\n", spelling, help_of(flag, flags));
    }
}

static void help_commands(const char *noun)
{
    for (size_t i = 0; i < cli_command_count; i++) {
        const cli_command *command = &cli_commands[i];
        char synopsis[128];

        if (noun && strcmp(noun, command->noun))
            continue;
        cli_synopsis(command, synopsis, sizeof(synopsis));
        printf("  %-31s %s\n", synopsis, command->help);
    }
}

void cli_help(const char *noun, const cli_command *command)
{
    const uint64_t global = BIT(CLI_GLOBAL_COUNT) - 1;
    char synopsis[128];

    if (command) {
        cli_synopsis(command, synopsis, sizeof(synopsis));
        printf("usage: tandem %s%s\n\n%s\n", synopsis, command->flags ? " [FLAG]…" : "",
               command->help);
        if (command->flags) {
            printf("\nflags\n");
            help_flags(command->flags);
        }
        printf("\n`tandem --help` lists the flags that every command takes.\n");
        return;
    }
    if (noun) {
        printf("usage: tandem %s VERB …\n\n", noun);
        help_commands(noun);
        printf("\n`tandem %s VERB --help` tells a command's flags.\n", noun);
        return;
    }
    printf("tandem keeps reactors, small databases of documents, in step.\n\n"
           "usage: tandem COMMAND …\n\n");
    help_commands(NULL);
    printf("\nflags of every command, anywhere on the line\n");
    help_flags(global);
    printf("\nexit codes: 0 done, 1 failed, 2 usage or unsupported, 3 partly done, 4 not found,\n"
           "5 unreachable, 6 conflict or locked, 7 not permitted, 8 integrity, 9 timed out\n");
}
