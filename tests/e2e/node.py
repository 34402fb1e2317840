"""Real nodes for the tests of what a fleet must show: processes, signals, memory, deadlines.

support.py serves the tests of the command line, command by command. Here a test is a function that
takes a Field: it starts nodes in folders of its own, hurts them, and checks what they hold
afterwards. Every wait has a deadline, every random choice comes from a seed that is printed, and
whatever was started is gone when the field is left, however it is left.

    node.main(test_one, test_two)

runs them all, or those named:

    PROGRAM BINARY [--full] [--seed N] [--keep] [--transport ws|http] [NAME]...
"""

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

DEADLINE_S = 60
SANITIZED_SLOWER = 5
SAMPLE_S = 0.02
MIB = 1 << 20
RSS_ANON_MAX = 64 * MIB


class Failure(Exception):
    """What a test found wrong."""


def check(condition, sentence, *details):
    if not condition:
        raise Failure(sentence + "".join("\n    %s" % (detail,) for detail in details))


def environment():
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TANDEM_", "XDG_"))}
    kept["NO_COLOR"] = "1"
    return kept


class Result:
    def __init__(self, code, out, err, peak_rss):
        self.code, self.out, self.err, self.peak_rss = code, out, err, peak_rss

    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


class Memory(threading.Thread):
    """Samples RssAnon of a process until it ends or is told to stop."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.path = "/proc/%d/status" % pid
        self.peak = self.last = 0
        self.stopping = threading.Event()

    def sample(self):
        try:
            with open(self.path, encoding="ascii", errors="replace") as status:
                for line in status:
                    if line.startswith("RssAnon:"):
                        self.last = int(line.split()[1]) * 1024
                        self.peak = max(self.peak, self.last)
                        return True
        except OSError:
            pass
        return False

    def run(self):
        while self.sample() and not self.stopping.wait(SAMPLE_S):
            pass

    def stop(self):
        self.stopping.set()
        self.join()


class Node:
    """A data folder, and the `tandem serve` that runs on it now and then."""

    def __init__(self, field, name):
        self.field, self.name = field, name
        self.data = os.path.join(field.folder, name)
        self.log_path = self.data + ".log"
        self.process = self.url = self.memory = None
        self.port = 0
        self.frozen = False
        self.peak = 0  # of RssAnon, over all its processes
        self.import_peak = 0  # of those that imported into it

    # ---- Its process ----

    def start(self, *args, prefix=(), same_port=True):
        """Start serving and wait for the ready line; after a restart on the port that it had."""
        check(not self.is_running(), "%s runs already" % self.name)
        port = self.port if same_port else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*prefix, self.field.tandem, "serve", "--data", self.data, "--listen",
                 "127.0.0.1:%d" % port, *args],
                stdout=subprocess.PIPE, stderr=log, env=environment())
        if not select.select([self.process.stdout], [], [], DEADLINE_S)[0]:
            raise Failure("%s said nothing for %d s" % (self.name, DEADLINE_S))
        line = self.process.stdout.readline().decode()
        if not line.startswith("ready "):
            self.process.wait()
            raise Failure("%s did not start: exit %d" % (self.name, self.process.returncode),
                          self.log()[-2000:])
        self.url = line.split()[1]
        self.port = int(self.url.rsplit(":", 1)[1].split("/")[0])
        self.memory = Memory(self.process.pid)
        self.memory.start()
        return self

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def send(self, number):
        self.process.send_signal(number)

    def freeze(self):
        """SIGSTOP, and wait until every thread has stopped."""
        self.frozen = True
        self.send(signal.SIGSTOP)
        path = "/proc/%d/task" % self.process.pid
        self.field.until("%s is stopped" % self.name, lambda: all(
            stat_of(os.path.join(path, task)) == "T" for task in os.listdir(path)))

    def thaw(self):
        self.frozen = False
        self.send(signal.SIGCONT)

    def end(self, number=signal.SIGTERM, expected=None):
        """Signal it and wait; returns the exit code, negative for a signal. Checks it."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            # In this order, and only if needed: LeakSanitizer, which stops the process with ptrace
            # at its end, hangs for ever when a SIGCONT comes in between.
            if self.frozen:
                self.thaw()
            self.process.send_signal(number)
        try:
            code = self.process.wait(DEADLINE_S * self.field.slower)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failure("%s did not end within %d s of signal %d" %
                          (self.name, DEADLINE_S, number)) from None
        self.let_go()
        if expected is None:
            expected = -signal.SIGKILL if number == signal.SIGKILL else 0
        check(code == expected, "%s ended with %d, not %d" % (self.name, code, expected),
              self.log()[-3000:])
        return code

    def kill(self):
        return self.end(signal.SIGKILL)

    def let_go(self):
        self.frozen = False
        if self.memory:
            self.memory.stop()
            self.peak = max(self.peak, self.memory.peak)
            self.memory = None
        self.process.stdout.close()
        self.process = None

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as log:
                return log.read()
        except OSError:
            return ""

    def peak_rss(self):
        return max(self.peak, self.memory.peak if self.memory else 0)

    # ---- Its commands ----

    def run(self, *args, stdin=None, code=0, timeout=DEADLINE_S):
        """Run a command on its folder. code None: any."""
        return self.field.run("--data", self.data, *args, stdin=stdin, code=code, timeout=timeout)

    def json(self, *args, **kwargs):
        return self.run("--json", *args, **kwargs).lines()

    def append(self, collection, document, model, type_, value, code=0, timeout=DEADLINE_S):
        return self.run("--json", "op", "append", collection, document, "--model", model, "--type",
                        type_, "--input", json.dumps(value), code=code, timeout=timeout)

    def status(self):
        return self.json("status")[0]

    def digest(self):
        return self.json("digest", timeout=300)

    def vectors(self):
        return {row["collection"]: row["vector_digest"] for row in self.digest()}

    def peer(self, other, name=None):
        self.run("-q", "peer", "add", name or other.name, other.url)

    def wait(self, other, timeout=DEADLINE_S):
        timeout *= self.field.slower
        self.run("-q", "wait", other.name, "--timeout", str(timeout), timeout=timeout + 30)

    def verify(self):
        result = self.run("--json", "verify", code=None, timeout=600)
        check(result.code == 0, "verify of %s: exit %d" % (self.name, result.code),
              result.out[-2000:], result.err)

    def remote(self, name):
        """The row of status for a remote; name None: the sum of all inbound sessions' counters."""
        for row in self.status()["remotes"]:
            if row["name"] == name:
                return row
        return None

    def import_file(self, collection, path, timeout=1800):
        begun = time.monotonic()
        result = self.run("-q", "import", collection, path, timeout=timeout)
        self.import_peak = max(self.import_peak, result.peak_rss)
        return time.monotonic() - begun


def stat_of(task):
    try:
        with open(os.path.join(task, "stat"), encoding="ascii", errors="replace") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "T"  # the thread has gone


def is_sanitized(path):
    with open(path, "rb") as binary:
        bytes_ = binary.read()
    return b"__asan_init" in bytes_ or b"__tsan_init" in bytes_


class Field:
    """A folder and the nodes in it, for one test."""

    def __init__(self, tandem, full, seed, keep=False, transport="ws"):
        self.tandem, self.full, self.keep = tandem, full, keep
        self.transport = transport  # of tests that run on each: ws, http
        # A sanitizer takes memory and time of its own: limits on memory then say nothing.
        self.sanitized = is_sanitized(tandem)
        self.slower = SANITIZED_SLOWER if self.sanitized else 1
        self.seed = seed
        self.random = random.Random(seed)
        self.folder = tempfile.mkdtemp(prefix="tandem-e2e-")
        self.nodes = []
        self.processes = []  # other children that must not outlive the test
        self.at_end = []

    def size(self, default, full):
        return full if self.full else default

    def say(self, sentence):
        print("    " + sentence, flush=True)

    def node(self, name):
        """A node that does not run yet."""
        made = Node(self, name)
        self.nodes.append(made)
        return made

    def nodes_started(self, *names):
        return [self.node(name).start() for name in names]

    def run(self, *args, stdin=None, code=0, timeout=DEADLINE_S, prefix=()):
        # Bytes, not text: what a broken program prints may be no UTF-8.
        process = subprocess.Popen(
            [*prefix, self.tandem, *args], stdin=subprocess.PIPE if stdin is not None else
            subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        memory = Memory(process.pid)
        memory.start()
        try:
            out, err = process.communicate(
                stdin.encode() if isinstance(stdin, str) else stdin,
                timeout=timeout * self.slower)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Failure("`%s` did not end within %d s" % (" ".join(args), timeout)) from None
        finally:
            memory.stop()
        out, err = (text.decode("utf-8", "replace") for text in (out, err))
        if code is not None:
            check(process.returncode == code, "`%s`: exit %d, not %d" %
                  (" ".join(args)[:300], process.returncode, code), out[-1500:], err[-1500:])
        return Result(process.returncode, out, err, memory.peak)

    def file(self, name, lines):
        """Write lines (texts, or values that become JSON); returns the path."""
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as out:
            for line in lines:
                out.write(line if isinstance(line, str) else json.dumps(line))
                out.write("\n")
        return path

    def until(self, what, condition, timeout=DEADLINE_S, every=0.02):
        """Ask a condition until it holds; returns what it gave."""
        begun = time.monotonic()
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() - begun > timeout * self.slower:
                raise Failure("not within %d s: %s" % (timeout, what))
            time.sleep(every)

    def settle(self, *nodes, timeout=DEADLINE_S, after=None):
        """Wait until all digests are equal; returns them. after: a look at each miss."""
        found = []

        def equal():
            found[:] = [node.digest() for node in nodes]
            return all(one == found[0] for one in found)

        try:
            self.until("equal digests", equal, timeout, every=0.2)
        except Failure as failure:
            rows = []
            for node, digest in zip(nodes, found):
                rows.append("%s: %s" % (node.name, [(row["collection"], row["operations"],
                                                     row["vector_digest"][:8],
                                                     row["state_digest"][:8]) for row in digest]))
                rows.append("   remotes %s" % json.dumps(node.status()["remotes"]))
            raise Failure(str(failure), *rows) from None
        return found[0]

    def check_memory(self, *nodes, limit=RSS_ANON_MAX):
        """Of the nodes, and of the processes that imported into them."""
        for node in nodes:
            for who, peak in ((node.name, node.peak_rss()),
                              ("an import into " + node.name, node.import_peak)):
                if not peak:
                    continue  # there was none
                self.say("RssAnon of %s: at most %.1f MiB" % (who, peak / MIB))
                check(self.sanitized or peak < limit, "RssAnon of %s reached %.1f MiB, more than %d"
                      % (who, peak / MIB, limit // MIB))

    def logs(self):
        for node in self.nodes:
            tail = node.log()[-1500:]
            if tail:
                print("    -- the end of %s's log --\n%s" % (node.name, tail), flush=True)

    def leave(self):
        for node in self.nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait()
                node.let_go()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for undo in reversed(self.at_end):
            undo()
        if self.keep:
            self.say("kept " + self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def ends_cleanly(self):
        """SIGTERM to all that run: each must exit 0 (a sanitizer's findings show there, too)."""
        for node in self.nodes:
            node.end()


def operations(count, documents=100, bytes_=128, model="kv", keys=50):
    """Import lines whose inputs have about bytes_ bytes."""
    for i in range(count):
        if model == "counter":
            value, type_ = i % 7, "ADD"
        else:
            text = ("%d " % i).ljust(max(bytes_ - 9, 8), "x")
            value, type_ = {"k%d" % (i // documents % keys): text}, "SET"
        yield {"document": "d%d" % (i % documents), "model": model, "type": type_, "input": value}


def main(*tests):
    arguments = sys.argv[1:]
    full = "--full" in arguments
    keep = "--keep" in arguments
    arguments = [a for a in arguments if a not in ("--full", "--keep")]
    transport = "ws"
    if "--transport" in arguments:
        at = arguments.index("--transport")
        transport = arguments[at + 1]
        del arguments[at:at + 2]
    seed = None
    if "--seed" in arguments:
        at = arguments.index("--seed")
        seed = int(arguments[at + 1])
        del arguments[at:at + 2]
    if not arguments:
        sys.exit("usage: %s PATH-OF-TANDEM [--full] [--seed N] [--keep] [--transport ws|http] "
                 "[TEST]..." % sys.argv[0])
    tandem = os.path.abspath(arguments.pop(0))
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "big")
    # So that finally clauses run when the caller loses patience.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    print("%s: seed %d%s" % (os.path.basename(sys.argv[0]), seed, ", full size" if full else ""),
          flush=True)
    named = {test.__name__: test for test in tests}
    for name in arguments:
        if name not in named:
            sys.exit("there is no test %s; there are %s" % (name, " ".join(named)))
    failed = 0
    for name, test in named.items():
        if arguments and name not in arguments:
            continue
        failed += not run_one(name, test, Field(tandem, full, seed, keep, transport))
    sys.exit(1 if failed else 0)


def run_one(name, test, field):
    begun = time.monotonic()
    print("  %s" % name.replace("_", " "), flush=True)
    try:
        test(field)
        field.ends_cleanly()
    except Exception as error:  # any: the next test shall run
        print("FAILED  %s (%.1f s): %s" % (name, time.monotonic() - begun, error), flush=True)
        if not isinstance(error, Failure):
            traceback.print_exc(file=sys.stdout)
        field.logs()
        return False
    finally:
        field.leave()
    print("ok      %s (%.1f s)" % (name, time.monotonic() - begun), flush=True)
    return True
