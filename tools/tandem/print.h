/*
 * What people see: tables, colours, sizes; and the JSON that scripts see.
 */
#ifndef TANDEM_TOOLS_PRINT_H
#define TANDEM_TOOLS_PRINT_H

#include <jansson.h>
#include <stdio.h>

#include "tools/tandem/command.h"

/* One line of JSON on stdout. An emit function of request.h that does only this. */
/* Write a value with as few digits as read back the same; 0, or -1 as jansson does. */
int cli_json_write(const json_t *value, FILE *out, size_t flags);
tandem_err cli_print_json(void *context, const json_t *result);
tandem_err cli_print_nothing(void *context, const json_t *result);

/* Are colours wanted on this stream? --color, then NO_COLOR, then whether it is a terminal. */
bool cli_colors(const cli_call *call, FILE *stream);

typedef struct cli_table cli_table;

/*
 * A table on stdout.
 *
 * headings     count of them; one that begins with '>' is a column of numbers, one that begins with
 *              '~' is cut short where the terminal is too narrow
 * stream       rows are printed in batches, so that a list of any length needs little memory
 */
cli_table *cli_table_open(const cli_call *call, const char *const *headings, size_t count,
                          bool stream);
/* cells: count of them; colour: NULL, "green", "yellow", "red"; of the cell at color_at */
tandem_err cli_table_row(cli_table *table, const char *const *cells, size_t color_at,
                         const char *color);
/* Prints what is left. NULL is fine. */
void cli_table_free(cli_table *table);

/* "1.5 MiB". */
void cli_bytes_text(uint64_t bytes, char out[32]);
/* A JSON value as a cell: text as it is but for control characters, null as "-", all else as JSON;
 * freed by the caller. */
char *cli_cell(const json_t *value);
/* A JSON value for people, over as many lines as it takes. */
void cli_json_show(const json_t *value);
/* The colour of a peer's state. */
const char *cli_state_color(const char *state);

/* Say on stdout what a dry run would have done. Returns the exit code, 0. */
int cli_would(const cli_call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Say on stdout what was done, unless --quiet or --json. */
void cli_note(const cli_call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
