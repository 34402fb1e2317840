#include "tools/tandem/refusals.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/glob.h"
#include "sync/sync.h"
#include "tools/tandem/access.h"

enum { FILE_BYTES_MAX = 1 << 20 };

struct rule {
    tandem_slice collection;
    tandem_slice glob; /* empty: every document */
};

struct cli_refusals {
    char *text; /* the rules, in order, a line each; what the file holds */
    size_t size;
    struct rule *rules; /* of its lines */
    size_t count;
};

/* ---- Making ---- */

void cli_refusals_free(cli_refusals *refusals)
{
    if (!refusals)
        return;
    free(refusals->rules);
    free(refusals->text);
    free(refusals);
}

static bool is_collection(tandem_slice name)
{
    char text[TANDEM_NAME_BYTES_MAX + 1];
    const char *names[] = {text};
    tandem_share share = TANDEM_SHARE_INIT;

    if (name.size > TANDEM_NAME_BYTES_MAX)
        return false;
    memcpy(text, name.bytes, name.size);
    text[name.size] = 0;
    share.collections = names;
    share.collection_count = 1;
    return tandem_share_check(&share) == TANDEM_OK;
}

static bool rule_of(const char *text, size_t size, struct rule *out)
{
    const char *slash = memchr(text, '/', size);
    size_t name_size = slash ? (size_t)(slash - text) : size;

    out->collection = tandem_slice_of(text, name_size);
    out->glob = slash ? tandem_slice_of(slash + 1, size - name_size - 1) : tandem_slice_of("", 0);
    return is_collection(out->collection) && (!slash || tandem_glob_valid(out->glob));
}

/* Takes text, which is lines. TANDEM_E_INVALID, bad_out being the first that is no rule. */
static tandem_err refusals_make(char *text, size_t size, cli_refusals **out, const char **bad_out)
{
    cli_refusals *refusals = calloc(1, sizeof(*refusals));
    size_t lines = 0;

    *bad_out = NULL;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    if (refusals)
        *refusals = (cli_refusals){.text = text, .size = size};
    if (!refusals || !(refusals->rules = calloc(lines + 1, sizeof(struct rule)))) {
        if (!refusals)
            free(text);
        cli_refusals_free(refusals);
        return TANDEM_E_NOMEM;
    }
    for (const char *line = text, *end = text + size; line < end; refusals->count++) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));

        if (!stop || !rule_of(line, (size_t)(stop - line), &refusals->rules[refusals->count])) {
            *bad_out = line;
            *out = refusals; /* for the line; to be freed */
            return TANDEM_E_INVALID;
        }
        line = stop + 1;
    }
    *out = refusals;
    return TANDEM_OK;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

tandem_err cli_refusals_of_call(const cli_call *call, cli_refusals **out, char why[CLI_WHY_BYTES])
{
    size_t count = call->given[CLI_REFUSE], size = 0;
    const char **sorted = calloc(count + 1, sizeof(*sorted)), *bad;
    char *text = NULL;
    FILE *lines;
    struct rule rule;

    if (!sorted || !(lines = open_memstream(&text, &size))) {
        free(sorted);
        return TANDEM_E_NOMEM;
    }
    if (count)
        memcpy(sorted, call->values[CLI_REFUSE], count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), compare_texts);
    for (size_t i = 0; i < count; i++) {
        if (!rule_of(sorted[i], strlen(sorted[i]), &rule)) {
            snprintf(why, CLI_WHY_BYTES, "--refuse takes COLLECTION or COLLECTION/GLOB, not `%.64s`",
                     sorted[i]);
            fclose(lines);
            free(text);
            free(sorted);
            return TANDEM_E_USAGE;
        }
        if (i == 0 || strcmp(sorted[i - 1], sorted[i]) != 0)
            fprintf(lines, "%s\n", sorted[i]);
    }
    free(sorted);
    if (fclose(lines)) {
        free(text);
        return TANDEM_E_NOMEM;
    }
    return refusals_make(text, size, out, &bad);
}

/* ---- The file ---- */

/* The caller frees it. */
static char *path_of(const char *data, const char *suffix)
{
    char *path = NULL;

    return data && asprintf(&path, "%s/refuse%s", data, suffix) >= 0 ? path : NULL;
}

/* All of it; *text_out is NULL if there is no file. */
static tandem_err file_read(const char *path, char **text_out, size_t *size_out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat found;
    ssize_t size;
    char *text;

    *text_out = NULL;
    *size_out = 0;
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? TANDEM_OK : tandem_err_of_errno(errno);
    if (fstat(fd, &found) || found.st_size > FILE_BYTES_MAX ||
        !(text = malloc((size_t)found.st_size + 1))) {
        close(fd);
        return TANDEM_E_IO;
    }
    size = read(fd, text, (size_t)found.st_size);
    close(fd);
    if (size != found.st_size) {
        free(text);
        return TANDEM_E_IO;
    }
    *text_out = text;
    *size_out = (size_t)size;
    return TANDEM_OK;
}

tandem_err cli_refusals_load(const char *data, cli_refusals **out, char why[CLI_WHY_BYTES])
{
    char *path = path_of(data, ""), *text = NULL;
    const char *bad = NULL;
    size_t size;
    tandem_err err = path ? file_read(path, &text, &size) : TANDEM_E_NOMEM;

    if (err == TANDEM_OK && !text && !(text = strdup("")))
        err = TANDEM_E_NOMEM;
    if (err == TANDEM_OK)
        err = refusals_make(text, size, out, &bad);
    if (bad) {
        snprintf(why, CLI_WHY_BYTES, "%.150s has a line that is no rule; `tandem serve` writes it anew",
                 path);
        cli_refusals_free(*out);
        *out = NULL;
        err = TANDEM_E_CORRUPT;
    } else if (err != TANDEM_OK) {
        snprintf(why, CLI_WHY_BYTES, "%.150s cannot be read: %.80s", path ? path : "refuse",
                 tandem_err_text(err));
    }
    free(path);
    return err;
}

/* The folder's entry, too, is to outlive a loss of power. */
static bool folder_sync(const char *data)
{
    int fd = open(data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool done = fd >= 0 && fsync(fd) == 0;

    if (fd >= 0)
        close(fd);
    return done;
}

/* The lock of the folder is ours, so nobody else writes it. */
static tandem_err file_write(const cli_refusals *refusals, const char *data)
{
    char *path = path_of(data, ""), *fresh = path_of(data, ".new");
    int fd = path && fresh ? open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)
                           : -1;
    bool done = fd >= 0 && write(fd, refusals->text, refusals->size) == (ssize_t)refusals->size &&
                fsync(fd) == 0 && rename(fresh, path) == 0 && folder_sync(data);
    tandem_err err = done ? TANDEM_OK : tandem_err_of_errno(errno);

    if (fd >= 0)
        close(fd);
    free(path);
    free(fresh);
    return err;
}

tandem_err cli_refusals_settle(const cli_refusals *refusals, const char *data,
                               tandem_reactor *reactor, char why[CLI_WHY_BYTES])
{
    cli_refusals *kept = NULL;
    bool are_kept;
    tandem_err err = cli_refusals_load(data, &kept, why);

    why[0] = 0;
    if (err == TANDEM_E_NOMEM)
        return err;
    are_kept = kept && kept->size == refusals->size &&
               (!kept->size || !memcmp(kept->text, refusals->text, kept->size));
    cli_refusals_free(kept);
    if (are_kept)
        return TANDEM_OK;
    if ((err = tandem_withdraw_refusals(reactor)) != TANDEM_OK)
        snprintf(why, CLI_WHY_BYTES, "what was refused before cannot be asked for again: %.100s",
                 tandem_err_text(err));
    else if ((err = file_write(refusals, data)) != TANDEM_OK)
        snprintf(why, CLI_WHY_BYTES, "what is refused cannot be kept in %.150s/refuse: %.60s", data,
                 tandem_err_text(err));
    if (err == TANDEM_OK)
        cli_log(NULL, TANDEM_LOG_INFO, "serve",
                "it refuses other documents than before; what was refused is asked for again");
    return err;
}

/* ---- Asking ---- */

bool cli_refusals_admit(void *context, const tandem_operation *operation)
{
    const cli_refusals *refusals = context;

    for (size_t i = 0; i < refusals->count; i++) {
        const struct rule *rule = &refusals->rules[i];

        if (tandem_slice_equal(rule->collection, operation->collection) &&
            (!rule->glob.size || tandem_glob_matches(rule->glob, operation->document)))
            return false;
    }
    return true;
}
