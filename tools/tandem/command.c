#include "tools/tandem/command.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/reactor.h"

enum { WORD_BYTES_MAX = 64 };

/* ---- Reporting ---- */

size_t cli_control(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;

    if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) /* U+0080 to U+009F, CSI among them */
        return 2;
    return c[0] && (c[0] < 0x20 || c[0] == 0x7f) ? 1 : 0;
}

/* What a peer or a file says reaches these lines: none of it may move the cursor of a terminal. */
static void say(const char *text)
{
    while (*text) {
        size_t size = cli_control(text);

        putc(size ? '?' : *text, stderr);
        text += size ? size : 1;
    }
}

int cli_exit_code(tandem_err err)
{
    const tandem_error_info *info = tandem_err_info(err);

    return info ? info->exit_code : 1;
}

int cli_fail(tandem_err err, const char *why, const char *what, ...)
{
    const tandem_error_info *info = tandem_err_info(err);
    char sentence[1024];
    va_list args;

    va_start(args, what);
    vsnprintf(sentence, sizeof(sentence), what, args);
    va_end(args);
    fflush(stdout);
    fputs("tandem: ", stderr);
    say(sentence);
    fputs(", ", stderr);
    say(why && why[0] ? why : tandem_err_text(err));
    if (info && !(why && strchr(why, ';')))
        fprintf(stderr, "; %s", info->cure);
    fprintf(stderr, " (%s)\n", tandem_err_name(err));
    return cli_exit_code(err);
}

int cli_fail_plain(tandem_err err, const char *sentence)
{
    fflush(stdout);
    say(sentence);
    fprintf(stderr, " (%s)\n", tandem_err_name(err));
    return cli_exit_code(err);
}

/* ---- Did you mean ---- */

static size_t distance(const char *a, const char *b)
{
    size_t row[WORD_BYTES_MAX + 1];
    size_t width = strlen(b);

    if (width > WORD_BYTES_MAX || strlen(a) > WORD_BYTES_MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= width; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];

        row[0] = i + 1;
        for (size_t j = 0; j < width; j++) {
            bool differs = tolower((unsigned char)a[i]) != tolower((unsigned char)b[j]);
            size_t change = diagonal + differs;

            diagonal = row[j + 1];
            row[j + 1] = diagonal + 1 < row[j] + 1 ? diagonal + 1 : row[j] + 1;
            if (change < row[j + 1])
                row[j + 1] = change;
        }
    }
    return row[width];
}

const char *cli_nearest(const char *word, const char *const *candidates, size_t count)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 2 < 2 ? strlen(word) / 2 + 1 : 3;

    for (size_t i = 0; i < count; i++) {
        size_t found = candidates[i] ? distance(word, candidates[i]) : SIZE_MAX;

        if (found < best_distance) {
            best = candidates[i];
            best_distance = found;
        }
    }
    return best;
}

static int refuse_word(const char *kind, const char *word, const char *const *candidates,
                       size_t count)
{
    const char *nearest = cli_nearest(word, candidates, count);
    char why[CLI_WHY_BYTES];

    if (nearest)
        snprintf(why, sizeof(why), "did you mean `%s`?", nearest);
    else
        snprintf(why, sizeof(why), "there is none of that name");
    return cli_fail(TANDEM_E_USAGE, why, "unknown %s `%.64s`", kind, word);
}

/* ---- Parsing ---- */

struct parsing {
    cli_call *call;
    int argc;
    char **argv;
    const char **values; /* the room that call->values point into, argc each */
    const char *unknown; /* the first flag that nobody knows */
    const char *valueless; /* the first flag whose value is missing */
    const char *valued;    /* the first one with a value that it does not take */
};

static int flag_find(const char *name, size_t size)
{
    for (int flag = 0; flag < CLI_FLAG_COUNT; flag++)
        if (strlen(cli_flag_name(flag)) == size && !memcmp(cli_flag_name(flag), name, size))
            return flag;
    return -1;
}

static void flag_put(struct parsing *p, int flag, const char *value)
{
    cli_call *call = p->call;

    if (value)
        call->values[flag][call->given[flag]] = value;
    call->given[flag]++;
}

/* Read the flag at argv[i]; returns the index of the last word it took. */
static int flag_read(struct parsing *p, int i)
{
    const char *word = p->argv[i];
    const char *equals = strchr(word, '=');
    int flag = flag_find(word, equals ? (size_t)(equals - word) : strlen(word));

    if (flag < 0) {
        if (!p->unknown)
            p->unknown = word;
        return i;
    }
    if (!cli_flag_value_name(flag)) {
        if (equals && !p->valued)
            p->valued = word;
        flag_put(p, flag, NULL);
        return i;
    }
    if (equals) {
        flag_put(p, flag, equals + 1);
        return i;
    }
    if (i + 1 == p->argc) {
        if (!p->valueless)
            p->valueless = word;
        return i;
    }
    flag_put(p, flag, p->argv[i + 1]);
    return i + 1;
}

static void letters_read(struct parsing *p, const char *word)
{
    for (const char *c = word + 1; *c; c++) {
        int flag = 0;

        while (flag < CLI_FLAG_COUNT && cli_flag_letter(flag) != *c)
            flag++;
        if (flag < CLI_FLAG_COUNT)
            flag_put(p, flag, NULL);
        else if (!p->unknown)
            p->unknown = word;
    }
}

/* Sort the line into flags and arguments; what is wrong is told once the command is known. */
static void line_read(struct parsing *p)
{
    cli_call *call = p->call;
    bool flags_end = false;

    for (int i = 1; i < p->argc; i++) {
        const char *word = p->argv[i];

        if (flags_end || word[0] != '-' || !word[1] || isdigit((unsigned char)word[1])) {
            call->args[call->arg_count++] = word;
        } else if (!strcmp(word, "--")) {
            flags_end = true;
        } else if (word[1] == '-') {
            i = flag_read(p, i);
        } else {
            letters_read(p, word);
        }
    }
}

/* Find the command that the first arguments name, and take them off. False: reported. */
static bool command_find(cli_call *call, int *exit_out)
{
    const char *words[64];
    size_t count = 0;
    bool noun_known = false;
    const char *noun = call->args[0];

    for (size_t i = 0; i < cli_command_count; i++) {
        const cli_command *command = &cli_commands[i];

        if (strcmp(noun, command->noun))
            continue;
        noun_known = true;
        if (command->verb && (call->arg_count < 2 || strcmp(call->args[1], command->verb))) {
            words[count++] = command->verb;
            continue;
        }
        call->command = command;
        call->args += command->verb ? 2 : 1;
        call->arg_count -= command->verb ? 2 : 1;
        return true;
    }
    if (call->given[CLI_HELP] && noun_known && call->arg_count == 1)
        return true;
    if (noun_known && call->arg_count == 1) {
        *exit_out = cli_fail(TANDEM_E_USAGE, "a verb is missing", "`%s` alone does nothing", noun);
        return false;
    }
    if (noun_known) {
        *exit_out = refuse_word("verb", call->args[1], words, count);
        return false;
    }
    for (size_t i = 0; i < cli_command_count; i++)
        words[count++] = cli_commands[i].noun;
    *exit_out = refuse_word("command", noun, words, count);
    return false;
}

static bool flags_check(struct parsing *p, int *exit_out)
{
    const cli_call *call = p->call;
    const cli_command *command = call->command;
    const char *names[CLI_FLAG_COUNT];

    for (unsigned flag = 0; flag < CLI_FLAG_COUNT; flag++) {
        bool legal = flag < CLI_GLOBAL_COUNT ||
                     (command && command->flags & (UINT64_C(1) << flag));

        names[flag] = legal ? cli_flag_name(flag) : NULL;
        if (call->given[flag] && !legal && !p->unknown)
            p->unknown = cli_flag_name(flag);
    }
    if (p->unknown)
        *exit_out = refuse_word("flag", p->unknown, names, CLI_FLAG_COUNT);
    else if (p->valueless)
        *exit_out = cli_fail(TANDEM_E_USAGE, "its value is missing", "`%s` is not whole",
                             p->valueless);
    else if (p->valued)
        *exit_out = cli_fail(TANDEM_E_USAGE, "that flag takes no value", "`%.64s` is not legal",
                             p->valued);
    else
        return true;
    return false;
}

static bool arguments_check(const cli_call *call, int *exit_out)
{
    const cli_command *command = call->command;
    char synopsis[128];

    if (call->arg_count >= command->args_min && call->arg_count <= command->args_max)
        return true;
    cli_synopsis(command, synopsis, sizeof(synopsis));
    if (call->arg_count < command->args_min)
        *exit_out = cli_fail(TANDEM_E_USAGE, "an argument is missing", "`tandem %s` is not whole",
                             synopsis);
    else
        *exit_out = cli_fail(TANDEM_E_USAGE, "write it as `tandem` and the words of its synopsis",
                             "`%.64s` is one argument too many for `%s`",
                             call->args[command->args_max], synopsis);
    return false;
}

/*
 * Names and values are UTF-8: a request could not carry what is not, nor could the store. Only a
 * path may be any bytes, as the file system has it.
 */
static bool texts_check(const cli_call *call, int *exit_out)
{
    const char *word = call->command->arguments;

    for (unsigned flag = 0; flag < CLI_FLAG_COUNT; flag++)
        for (size_t i = 0; cli_flag_value_name(flag) && i < call->given[flag]; i++)
            if (flag != CLI_DATA && flag != CLI_NODE && !cli_is_utf8(call->values[flag][i])) {
                *exit_out = cli_fail(TANDEM_E_INPUT, "it is not UTF-8", "%s cannot be used",
                                     cli_flag_name(flag));
                return false;
            }
    for (size_t i = 0; i < call->arg_count; i++) {
        size_t size;

        word += strspn(word, " []");
        size = strcspn(word, " []");
        if (strncmp(word, "FILE", size) && strncmp(word, "DIR", size) &&
            !cli_is_utf8(call->args[i])) {
            *exit_out = cli_fail(TANDEM_E_INPUT, "it is not UTF-8", "%.*s cannot be used",
                                 (int)size, word);
            return false;
        }
        word += size;
    }
    return true;
}

static bool when_read(const cli_call *call, cli_flag flag, cli_when *out, int *exit_out)
{
    const char *value = cli_value(call, flag);
    const char *third = flag == CLI_COLOR ? "always" : "plain";
    const char *never = flag == CLI_COLOR ? "never" : "none";

    *out = CLI_AUTO;
    if (!value || !strcmp(value, "auto"))
        return true;
    if (!strcmp(value, third)) {
        *out = flag == CLI_COLOR ? CLI_ALWAYS : CLI_PLAIN;
        return true;
    }
    if (!strcmp(value, never)) {
        *out = CLI_NEVER;
        return true;
    }
    *exit_out = cli_fail(TANDEM_E_USAGE, "it is one of those that `tandem --help` names",
                         "%s does not know `%.64s`", cli_flag_name(flag), value);
    return false;
}

static bool timeout_read(cli_call *call, int *exit_out)
{
    const char *value = cli_value(call, CLI_TIMEOUT);
    char *end;
    double seconds;

    call->timeout_ms = CLI_NO_TIMEOUT;
    if (!value)
        return true;
    seconds = strtod(value, &end);
    /* A century: far from every overflow, and nobody waits longer. */
    if (!*value || *end || isspace((unsigned char)*value) || !isfinite(seconds) || seconds < 0 ||
        seconds > 3.2e9) {
        *exit_out = cli_fail(TANDEM_E_USAGE, "it takes seconds, 0 or more", "--timeout is `%.64s`",
                             value);
        return false;
    }
    call->timeout_ms = (uint64_t)(seconds * 1000);
    return true;
}

static char *data_default(void)
{
    const char *folder = getenv("TANDEM_DATA_DIR");
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    char *path = NULL;

    if (folder && folder[0])
        return strdup(folder);
    /* The specification of these variables: a path that is not absolute is to be ignored. */
    if (state && state[0] == '/')
        return asprintf(&path, "%s/tandem", state) < 0 ? NULL : path;
    if (home && home[0])
        return asprintf(&path, "%s/.local/state/tandem", home) < 0 ? NULL : path;
    return NULL;
}

static bool globals_read(cli_call *call, int *exit_out)
{
    const char *data = cli_value(call, CLI_DATA);

    call->json = call->given[CLI_JSON] > 0;
    call->quiet = call->given[CLI_QUIET] > 0;
    call->dry_run = call->given[CLI_DRY_RUN] > 0;
    if (!when_read(call, CLI_COLOR, &call->color, exit_out) ||
        !when_read(call, CLI_PROGRESS, &call->progress, exit_out) || !timeout_read(call, exit_out))
        return false;
    if (data && !data[0]) {
        *exit_out = cli_fail(TANDEM_E_USAGE, "the name of a folder is missing", "--data is empty");
        return false;
    }
    call->data = data ? strdup(data) : data_default();
    return true;
}

bool cli_call_init(cli_call *call, int argc, char **argv, int *exit_out)
{
    struct parsing p = {.call = call, .argc = argc, .argv = argv};
    size_t room = (size_t)(argc > 0 ? argc : 1);

    memset(call, 0, sizeof(*call));
    *exit_out = 0;
    p.values = calloc(room * (CLI_FLAG_COUNT + 1), sizeof(*p.values));
    if (!p.values) {
        *exit_out = cli_fail(TANDEM_E_NOMEM, NULL, "the command line cannot be read");
        return false;
    }
    for (size_t flag = 0; flag < CLI_FLAG_COUNT; flag++)
        call->values[flag] = p.values + room * flag;
    call->args = p.values + room * CLI_FLAG_COUNT;
    line_read(&p);
    if (call->given[CLI_VERSION]) {
        printf("tandem %s\n", tandem_version());
        return false;
    }
    if (call->arg_count == 0) {
        if (!call->given[CLI_HELP])
            *exit_out = cli_fail(TANDEM_E_USAGE, "a command is missing", "nothing to do");
        else
            cli_help(NULL, NULL);
        return false;
    }
    if (!command_find(call, exit_out))
        return false;
    if (call->given[CLI_HELP]) {
        cli_help(call->args[0], call->command);
        return false;
    }
    return flags_check(&p, exit_out) && arguments_check(call, exit_out) &&
           texts_check(call, exit_out) && globals_read(call, exit_out);
}

void cli_call_release(cli_call *call)
{
    free(call->data);
    free(call->values[0]); /* the room of all of them, and of the arguments */
    memset(call, 0, sizeof(*call));
}

const char *cli_value(const cli_call *call, cli_flag flag)
{
    return call->given[flag] ? call->values[flag][call->given[flag] - 1] : NULL;
}

bool cli_is_utf8(const char *text)
{
    json_t *string = json_string(text);

    json_decref(string);
    return string != NULL;
}

bool cli_parse_number(const char *text, uint64_t *out)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return !errno && !*end;
}

bool cli_number(const cli_call *call, cli_flag flag, uint64_t fallback, uint64_t *out)
{
    const char *value = cli_value(call, flag);

    *out = fallback;
    if (!value || (cli_parse_number(value, out) && *out <= INT64_MAX))
        return true;
    cli_fail(TANDEM_E_USAGE, "it takes a whole number", "%s is `%.64s`", cli_flag_name(flag),
             value);
    return false;
}
