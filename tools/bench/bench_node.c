#include "tools/bench/bench_node.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench/process.h"
#include "tools/bench/scratch.h"
#include "tools/tandem/admin_client.h"

enum { WRITERS = 32 }; /* operations, or groups of them, under way */

struct writer {
    cli_admin_client *client;
    bool waits; /* for an answer */
};

struct bench_node {
    pid_t pid;
    bench_scratch scratch; /* unless the folder is somebody else's */
    char folder[BENCH_PATH_BYTES], socket[BENCH_PATH_BYTES + 16];
    char urls[2][160]; /* WebSocket, HTTP */
    cli_admin_client *asker;
    struct writer writers[WRITERS];
    uint64_t written;
};

/* ---- The process ---- */

static void serve(const bench_node *node, int out)
{
    char *argv[] = {"tandem",   "serve",       "--data", (char *)node->folder,
                    "--listen", "127.0.0.1:0", "-q",     NULL};

    int log;

    prctl(PR_SET_PDEATHSIG, SIGTERM); /* a bench that is killed frees nothing */
    dup2(out, STDOUT_FILENO);
    /* What it logs is not of the bench. */
    if ((log = open("/dev/null", O_WRONLY | O_CLOEXEC)) >= 0)
        dup2(log, STDERR_FILENO);
    execv("/proc/self/exe", argv);
    _exit(127);
}

/* "ready ws://…", its only line. */
static tandem_err read_ready(bench_node *node, FILE *out)
{
    char line[160] = "";

    if (!fgets(line, sizeof(line), out) || sscanf(line, "ready %150s", node->urls[0]) != 1)
        return TANDEM_E_UNREACHABLE;
    snprintf(node->urls[1], sizeof(node->urls[1]), "http%s", node->urls[0] + strlen("ws"));
    return TANDEM_OK;
}

static tandem_err start(bench_node *node)
{
    FILE *out;
    int ends[2];
    tandem_err err;

    if (pipe2(ends, O_CLOEXEC))
        return TANDEM_E_IO;
    fflush(stdout);
    if ((node->pid = fork()) < 0)
        return TANDEM_E_IO;
    if (node->pid == 0)
        serve(node, ends[1]);
    close(ends[1]);
    if (!(out = fdopen(ends[0], "r"))) {
        close(ends[0]);
        return TANDEM_E_NOMEM;
    }
    err = read_ready(node, out);
    fclose(out);
    return err;
}

tandem_err bench_node_open(const char *folder, bench_node **out)
{
    bench_node *node = calloc(1, sizeof(*node));
    char why[CLI_WHY_BYTES] = "";
    tandem_err err = TANDEM_OK;

    if (!node)
        return TANDEM_E_NOMEM;
    if (!folder && (err = bench_scratch_open(&node->scratch)) != TANDEM_OK) {
        free(node);
        return err;
    }
    snprintf(node->folder, sizeof(node->folder), "%s", folder ? folder : node->scratch.path);
    snprintf(node->socket, sizeof(node->socket), "%s/admin.sock", node->folder);
    if ((err = start(node)) != TANDEM_OK ||
        (err = cli_admin_client_open(node->socket, &node->asker, why)) != TANDEM_OK)
        goto fail;
    for (unsigned i = 0; i < WRITERS; i++)
        if ((err = cli_admin_client_open(node->socket, &node->writers[i].client, why)) != TANDEM_OK)
            goto fail;
    *out = node;
    return TANDEM_OK;

fail:
    cli_fail(err, why, "the node could not be started");
    bench_node_free(node);
    return err;
}

void bench_node_free(bench_node *node)
{
    if (!node)
        return;
    cli_admin_client_free(node->asker);
    for (unsigned i = 0; i < WRITERS; i++)
        cli_admin_client_free(node->writers[i].client);
    if (node->pid > 0) {
        kill(node->pid, SIGTERM);
        while (waitpid(node->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    bench_scratch_release(&node->scratch);
    free(node);
}

/* ---- What it is, and what it takes ---- */

const char *bench_node_url(const bench_node *node, bool http)
{
    return node->urls[http];
}

uint64_t bench_node_rss_anon(const bench_node *node)
{
    return bench_process_rss_anon(node->pid);
}

double bench_node_cpu_s(const bench_node *node)
{
    return bench_process_cpu_s(node->pid);
}

double bench_node_waited_s(const bench_node *node)
{
    return bench_process_waited_s(node->pid);
}

pid_t bench_node_pid(const bench_node *node)
{
    return node->pid;
}

/* ---- Asking ---- */

static tandem_err keep_result(void *context, const json_t *result)
{
    json_t **out = context;

    json_decref(*out);
    *out = json_deep_copy(result);
    return *out ? TANDEM_OK : TANDEM_E_NOMEM;
}

json_t *bench_node_status(bench_node *node)
{
    json_t *object = json_pack("{s:s}", "command", "status"), *status = NULL;
    char why[CLI_WHY_BYTES] = "";
    tandem_err err = TANDEM_E_NOMEM;

    if (object && (err = cli_admin_client_send(node->asker, object, NULL, 0, why)) == TANDEM_OK)
        err = cli_admin_client_receive(node->asker, keep_result, NULL, &status, NULL, why);
    json_decref(object);
    if (err != TANDEM_OK) {
        cli_fail(err, why, "the node does not say how it is");
        json_decref(status);
        return NULL;
    }
    return status;
}

uint64_t bench_node_operations(bench_node *node)
{
    json_t *status = bench_node_status(node);
    json_int_t count =
        json_integer_value(json_object_get(json_object_get(status, "store"), "operations"));

    json_decref(status);
    return (uint64_t)count;
}

/* ---- Writing ---- */

static tandem_err take_nothing(void *context, const json_t *result)
{
    return TANDEM_OK;
}

/* Have a writer's answer, if it waits for one. */
static tandem_err settle(struct writer *writer)
{
    char why[CLI_WHY_BYTES] = "";
    tandem_err err;

    if (!writer->waits)
        return TANDEM_OK;
    writer->waits = false;
    err = cli_admin_client_receive(writer->client, take_nothing, NULL, NULL, NULL, why);
    if (err != TANDEM_OK)
        cli_fail(err, why, "the node did not take an operation");
    return err;
}

static tandem_err hand_over(bench_node *node, json_t *object, const char *bytes, size_t size)
{
    struct writer *writer = &node->writers[node->written++ % WRITERS];
    char why[CLI_WHY_BYTES] = "";
    tandem_err err = object ? settle(writer) : TANDEM_E_NOMEM;

    if (err == TANDEM_OK &&
        (err = cli_admin_client_send(writer->client, object, bytes, size, why)) == TANDEM_OK)
        writer->waits = true;
    json_decref(object);
    return err;
}

tandem_err bench_node_write(bench_node *node, const char *collection, unsigned number,
                            uint64_t due_us)
{
    char document[16], input[48];

    snprintf(document, sizeof(document), "d%u", number);
    snprintf(input, sizeof(input), "{\"t\":%" PRIu64 "}", due_us);
    return hand_over(node,
                     json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "command", "op.append",
                               "collection", collection, "document", document, "model", "kv",
                               "type", "SET", "input", input),
                     NULL, 0);
}

tandem_err bench_node_write_group(bench_node *node, const char *collection, uint64_t due_us,
                                  unsigned count)
{
    char *lines = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&lines, &size);
    tandem_err err;

    if (!out)
        return TANDEM_E_NOMEM;
    for (unsigned i = 0; i < count; i++)
        fprintf(out,
                "{\"document\":\"d%u\",\"model\":\"kv\",\"type\":\"SET\",\"input\":{\"t\":%" PRIu64
                "}}\n",
                i % BENCH_DOCUMENTS, due_us);
    if (fclose(out)) {
        free(lines);
        return TANDEM_E_NOMEM;
    }
    err = hand_over(node,
                    json_pack("{s:s, s:s, s:i, s:I, s:I}", "command", "import", "collection",
                              collection, "first_line", 1, "lines", (json_int_t)count, "bytes",
                              (json_int_t)size),
                    lines, size);
    free(lines);
    return err;
}

tandem_err bench_node_flush(bench_node *node)
{
    tandem_err err = TANDEM_OK;

    for (unsigned i = 0; err == TANDEM_OK && i < WRITERS; i++)
        err = settle(&node->writers[i]);
    return err;
}
