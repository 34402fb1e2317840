"""What the end-to-end tests share: the binary, temporary data folders, nodes.

Each test file is run with the path of the binary as its first argument. Everything waits for an
event (a line, an exit) under one deadline, never for a time.
"""

import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

DEADLINE_S = 60

if len(sys.argv) < 2:
    sys.exit("usage: %s PATH-OF-TANDEM" % sys.argv[0])
TANDEM = os.path.abspath(sys.argv.pop(1))


def environment():
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TANDEM_", "XDG_"))}
    kept["NO_COLOR"] = "1"
    return kept


class Result:
    def __init__(self, done):
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    def json(self):
        """The lines of stdout, parsed."""
        return [json.loads(line) for line in self.out.splitlines()]


class Node:
    """A `tandem serve` process."""

    def __init__(self, data, *args):
        self.data = data
        self.process = subprocess.Popen(
            [TANDEM, "serve", "--data", data, *(args or ("--listen", "127.0.0.1:0"))],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        if not select.select([self.process.stdout], [], [], DEADLINE_S)[0]:
            self.process.kill()
            raise AssertionError("the node said nothing")
        self.first_line = self.process.stdout.readline()
        if not self.first_line:
            raise AssertionError("the node ended: " + self.process.communicate()[1])
        self.url = self.first_line.split()[1]

    def end(self, number=signal.SIGTERM):
        """Signal it and wait; returns (exit code, rest of stdout, stderr)."""
        if self.process.returncode is None and not self.process.stdout.closed:
            self.process.send_signal(number)
            out, err = self.process.communicate(timeout=DEADLINE_S)
            return self.process.returncode, out, err
        return self.process.returncode, "", ""


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="tandem-e2e-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.data = os.path.join(self.folder, "data")

    def tandem(self, *args, data=None, stdin=None, code=0):
        """Run one command on a data folder and check its exit code."""
        done = subprocess.run(
            [TANDEM, "--data", data or self.data, *args], input=stdin, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="backslashreplace", timeout=DEADLINE_S,
            env=environment())
        if code is not None:
            self.assertEqual(code, done.returncode, (args, done.stdout, done.stderr))
        return Result(done)

    def json(self, *args, **kwargs):
        return self.tandem("--json", *args, **kwargs).json()

    def append(self, document, value, *args, data=None, type="SET", model="kv", code=0):
        model = ["--model", model] if model else []
        return self.tandem("--json", "op", "append", "c", document, "--type", type, *model,
                           "--input", json.dumps(value), *args, data=data, code=code)

    def node(self, *args, data=None):
        node = Node(data or self.data, *args)
        self.addCleanup(self.end_cleanly, node)
        return node

    def end_cleanly(self, node):
        """A sanitizer's findings show in the exit code, too."""
        code, _, err = node.end()
        self.assertIn(code, (0, -signal.SIGKILL), err)

    def file(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
        return path

    def until(self, what, condition):
        """Ask a condition until it holds."""
        begun = time.monotonic()
        while not condition():
            self.assertLess(time.monotonic() - begun, DEADLINE_S, what)
            time.sleep(0.01)

    def stopped_and_running(self):
        """Two data folders: a stopped store, and one that a node has open."""
        stopped = os.path.join(self.folder, "stopped")
        running = os.path.join(self.folder, "running")
        self.node(data=running)
        return {"stopped": stopped, "running": running}


def on_both(test):
    """Run a test twice: on a stopped store, and on one that a node has open."""
    @functools.wraps(test)
    def run(self):
        for name, data in self.stopped_and_running().items():
            with self.subTest(name):
                test(self, data)
    return run


def main():
    unittest.main(verbosity=1)
