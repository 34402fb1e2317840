"""A client that appends, reads, and logs a history of what it did and was told (history.py)."""

import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import history
import node
from node import check

LOGS = ("log0", "log1", "log2")
DOCUMENTS = (*LOGS, "map", "count")


class Client(threading.Thread):
    """Appends to one node and reads from it, by the command line, for as long as it is let.

    While the node is down the command line opens the stopped store by itself, or loses the lock to
    the node that starts. Now and then a command is killed, too: in the middle of its answer, or
    with the store open.
    """

    def __init__(self, field, log, target, number, collection):
        super().__init__(daemon=True)
        self.field, self.log, self.target, self.number = field, log, target, number
        self.collection = collection
        self.random = random.Random("%d %s %d" % (field.seed, collection, number))
        self.count = 0
        self.append_s = 0.02  # about what an append takes, so that it can be killed in the middle
        self.outcomes = collections.Counter()
        self.stopping = threading.Event()
        self.error = None

    def run(self):
        try:
            while not self.stopping.is_set():
                pick = self.random.random()
                if pick < 0.06:
                    self.read("list")
                elif pick < 0.12:
                    self.read("list", self.random.choice(DOCUMENTS))
                elif pick < 0.2:
                    self.read("show", self.random.choice(LOGS))
                else:
                    self.append()
        except Exception as error:  # any: the test's thread raises it
            self.error = error

    def stop(self):
        self.stopping.set()
        self.join()
        if self.error:
            raise self.error

    def command(self, *args, seconds=None):
        """Returns its exit code and its output; after so many seconds it is killed."""
        limit_s = node.DEADLINE_S * self.field.slower
        process = subprocess.Popen(
            [self.field.tandem, "--data", self.target.data, "--json", *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=node.environment())
        try:
            out, err = process.communicate(timeout=limit_s if seconds is None else seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            check(seconds is not None, "`%s` did not end within %d s" % (" ".join(args), limit_s))
        return process.returncode, out.decode(), err.decode("utf-8", "replace")

    def append(self):
        self.count += 1
        marker = "%d-%d" % (self.number, self.count)
        document = self.random.choice(DOCUMENTS)
        type_, value = "log.APPEND", marker
        if document == "map":
            type_, value = "kv.SET", {"k%d" % self.random.randrange(20): marker}
        elif document == "count":
            type_, value = "counter.ADD", self.number * 1000000 + self.count
        model, verb = type_.split(".")
        args = ["op", "append", self.collection, document, "--model", model, "--type", verb,
                "--input", json.dumps(value)]
        seconds, pick = None, self.random.random()
        if pick < 0.05:
            args += ["--expect", "999999999"]  # never so: it fails for certain
        elif pick < 0.2:
            seconds = self.random.uniform(0, 1.2 * self.append_s)
        id_ = self.log.invoke(self.number, self.target.name, "append", collection=self.collection,
                              document=document, type=type_, input=value)
        begun = time.monotonic()
        code, out, err = self.command(*args, seconds=seconds)
        # A command that was killed after its answer did answer.
        if out.endswith("\n"):
            row = json.loads(out)
            self.log.write("ok", id=id_, origin=row["origin"], seq=row["seq"], hash=row["hash"])
            self.append_s += 0.2 * (time.monotonic() - begun - self.append_s)
            self.outcomes["ok"] += 1
            return
        certain = "TANDEM_E_LOCKED" in err or "TANDEM_E_CONFLICT" in err
        self.log.write("fail" if certain else "info", id=id_, code=code, error=err)
        self.outcomes["failed" if certain else "killed" if code < 0 else "unknown"] += 1
        check(code in (5, 6, -signal.SIGKILL), "an append ended with %d" % code, err)

    def read(self, op, document=None, **fields):
        id_ = self.log.invoke(self.number, self.target.name, op, collection=self.collection,
                              document=document, **fields)
        args = ("op", "ls") if op == "list" else ("doc", "show")
        code, out, err = self.command(*args, self.collection, *([document] if document else ()))
        rows = [json.loads(line) for line in out.splitlines()] if code == 0 else []
        if code != 0:
            self.log.write("fail", id=id_, code=code, error=err)
            # 4: there is no such document yet.
            check(code in (4, 5, 6), "a reading command ended with %d" % code, err)
        elif op == "list":
            self.log.write("ok", id=id_, operations=rows)
        else:
            self.log.write("ok", id=id_, state=rows[0]["state"])
        return code == 0


def look_at_the_end(field, log, target, collection):
    """Log everything that a node holds, when all are equal; what it shows is the fold of that."""
    reader = Client(field, log, target, 0, collection)
    for document in (None, *DOCUMENTS):
        check(reader.read("list", document, final=True), "%s cannot be listed" % target.name)
    for document in LOGS:
        check(reader.read("show", document, final=True), "%s cannot be shown" % target.name)
    rows = target.json("op", "ls", collection, "count")
    total = sum(row["input"] for row in rows if row["type"] == "counter.ADD")
    shown, = target.json("doc", "show", collection, "count")
    check(shown["state"] == total, "the counter on %s is %s, not %d" %
          (target.name, shown["state"], total))
    target.verify()


@contextlib.contextmanager
def judged(field, name):
    """A log that is judged when the block is left; on failure its file is kept."""
    log = history.Log(os.path.join(field.folder, name + ".jsonl"))
    try:
        yield log
        found = history.check(history.load(log.path))
        check(not found, "the history is not what was promised",
              *("%s: %s" % finding for finding in found[:20]))
    except BaseException:
        kept = os.path.join(tempfile.gettempdir(), "tandem-history-%d-%s.jsonl" %
                            (field.seed, name))
        shutil.copyfile(log.path, kept)
        field.say("the history is kept: " + kept)
        raise
    finally:
        log.close()
