#include "tools/tandem/print.h"

#include <libsmartcols.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "reactor/json.h"

enum { BATCH_ROWS = 500 };

int cli_json_write(const json_t *value, FILE *out, size_t flags)
{
    return json_dumpf(value, out,
                      flags | JSON_ENCODE_ANY | JSON_REAL_PRECISION(tandem_json_digits(value)));
}

tandem_err cli_print_json(void *context, const json_t *result)
{
    if (cli_json_write(result, stdout, JSON_COMPACT) || putchar('\n') == EOF)
        return TANDEM_E_IO;
    return TANDEM_OK;
}

tandem_err cli_print_nothing(void *context, const json_t *result)
{
    return TANDEM_OK;
}

bool cli_colors(const cli_call *call, FILE *stream)
{
    const char *no_color = getenv("NO_COLOR");

    if (call->color != CLI_AUTO)
        return call->color == CLI_ALWAYS;
    return !(no_color && no_color[0]) && isatty(fileno(stream));
}

/* ---- Tables ---- */

struct cli_table {
    struct libscols_table *table;
    size_t columns;
    size_t rows;
    bool stream;
};

cli_table *cli_table_open(const cli_call *call, const char *const *headings, size_t count,
                          bool stream)
{
    cli_table *table = calloc(1, sizeof(*table));

    if (!table)
        return NULL;
    table->table = scols_new_table();
    if (!table->table) {
        free(table);
        return NULL;
    }
    table->columns = count;
    table->stream = stream;
    for (size_t i = 0; i < count; i++) {
        const char *name = headings[i];
        int flags = name[0] == '>' ? SCOLS_FL_RIGHT : name[0] == '~' ? SCOLS_FL_TRUNC : 0;

        scols_table_new_column(table->table, flags ? name + 1 : name, 0, flags);
    }
    scols_table_enable_colors(table->table, cli_colors(call, stdout));
    return table;
}

static void flush_rows(cli_table *table)
{
    if (table->rows == 0)
        return;
    scols_print_table(table->table);
    scols_table_remove_lines(table->table);
    scols_table_enable_noheadings(table->table, 1);
    table->rows = 0;
}

tandem_err cli_table_row(cli_table *table, const char *const *cells, size_t color_at,
                         const char *color)
{
    struct libscols_line *line = scols_table_new_line(table->table, NULL);

    if (!line)
        return TANDEM_E_NOMEM;
    for (size_t i = 0; i < table->columns; i++)
        if (scols_line_set_data(line, i, cells[i] ? cells[i] : "-"))
            return TANDEM_E_NOMEM;
    if (color)
        scols_cell_set_color(scols_line_get_cell(line, color_at), color);
    if (++table->rows == BATCH_ROWS && table->stream)
        flush_rows(table);
    return TANDEM_OK;
}

void cli_table_free(cli_table *table)
{
    if (!table)
        return;
    flush_rows(table);
    scols_unref_table(table->table);
    free(table);
}

/* ---- Words ---- */

void cli_bytes_text(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double size = (double)bytes / 1024;
    size_t unit = 0;

    if (bytes < 1024) {
        snprintf(out, 32, "%llu bytes", (unsigned long long)bytes);
        return;
    }
    while (size >= 1024 && unit < 3) {
        size /= 1024;
        unit++;
    }
    snprintf(out, 32, "%.1f %s", size, units[unit]);
}

/* A copy of text in which control characters are written as JSON writes them. but: one that stays,
 * or 0. NULL: no memory, or no text. */
static char *escaped(const char *text, char but)
{
    const size_t escape_bytes = strlen("\\u001b");
    char *copy = text ? malloc(strlen(text) * escape_bytes + 1) : NULL, *out = copy;

    while (copy && *text) {
        size_t size = *text == but ? 0 : cli_control(text);

        if (size) {
            out += snprintf(out, escape_bytes + 1, "\\u%04x", (unsigned char)text[size - 1]);
            text += size;
        } else {
            *out++ = *text++;
        }
    }
    if (copy)
        *out = 0;
    return copy;
}

static char *json_escaped(const json_t *value, size_t flags)
{
    char *text = json_dumps(value, flags | JSON_ENCODE_ANY |
                                       JSON_REAL_PRECISION(tandem_json_digits(value)));
    /* JSON has its control characters escaped, up to U+001F: a line feed is between its members. */
    char *safe = escaped(text, '\n');

    free(text);
    return safe;
}

char *cli_cell(const json_t *value)
{
    if (json_is_string(value))
        return escaped(json_string_value(value), 0);
    if (!value || json_is_null(value))
        return strdup("-");
    return json_escaped(value, JSON_COMPACT);
}

void cli_json_show(const json_t *value)
{
    char *text = json_escaped(value, JSON_INDENT(2));

    puts(text ? text : "?");
    free(text);
}

const char *cli_state_color(const char *state)
{
    static const char *const good[] = {"in_step", "pushing", "pulling"};
    static const char *const bad[] = {"blocked", "resting"};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (!strcmp(state, good[i]))
            return "green";
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (!strcmp(state, bad[i]))
            return "red";
    return "yellow";
}

int cli_would(const cli_call *call, const char *format, ...)
{
    char sentence[1024];
    json_t *object;
    va_list args;

    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    if (!call->json) {
        printf("would %s\n", sentence);
        return 0;
    }
    object = json_pack("{s:b, s:s}", "dry_run", 1, "would", sentence);
    if (object)
        cli_print_json(NULL, object);
    json_decref(object);
    return 0;
}

void cli_note(const cli_call *call, const char *format, ...)
{
    va_list args;

    if (call->quiet || call->json)
        return;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}
