"""Item 5: kill -9 at random moments while all write and sync; and the gentler ends.

What clients do and are told is logged as a history (history.py), and judged when all are equal.
"""

import collections
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


KILLS, KILLS_SANITIZED = 40, 15  # .ci/run has 60 at least: the former once, the latter twice
EPISODES_FULL, KILLS_FULL = 10, 40
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


def something_happens(field, clients, victims):
    """A moment to kill at: some appends later, or just as a victim takes operations in."""
    def acknowledged():
        return sum(client.outcomes["ok"] for client in clients)

    def failed():
        return any(client.error for client in clients)

    def received():
        return [sum(remote["received_operations"] for remote in victim.status()["remotes"])
                for victim in victims]

    if field.random.random() < 0.3:
        before = received()
        field.until("operations come from a peer", lambda: received() != before or failed(),
                    every=0.002)
    else:
        enough = acknowledged() + field.random.randrange(8)
        field.until("appends are acknowledged", lambda: acknowledged() >= enough or failed(),
                    every=0.002)
        time.sleep(field.random.uniform(0, 0.02))


def looked_at_the_end(log, field, target, collection):
    """Everything that a stopped node holds; what it shows is the fold of what it lists."""
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


def episode(field, nodes, collection, kills, clients_each):
    """Kill nodes while all write, let them become equal, and hold them to what they told."""
    log = history.Log(os.path.join(field.folder, collection + ".jsonl"))
    clients = [Client(field, log, target, i + 1, collection)
               for i, target in enumerate(nodes * clients_each)]
    begun, killed = time.monotonic(), 0
    try:
        for client in clients:
            client.start()
        try:
            while killed < kills and not any(client.error for client in clients):
                victims = field.random.sample(nodes, field.random.choice((1, 1, 2)))
                something_happens(field, clients, victims)
                for victim in victims:
                    log.fault("kill", victim.name)
                    victim.kill()
                    killed += 1
                time.sleep(field.random.uniform(0, 0.1))
                for victim in victims:
                    restart(field, victim)
                    log.fault("restart", victim.name)
        finally:
            for client in clients:
                client.stop()
        outcomes = sum((client.outcomes for client in clients), collections.Counter())
        field.say("%d kills in %.1f s; appends: %s" %
                  (killed, time.monotonic() - begun, dict(outcomes)))
        for target in nodes:
            for other in nodes:
                if other is not target:
                    target.wait(other)
        field.settle(*nodes)
        field.ends_cleanly()
        for target in nodes:
            looked_at_the_end(log, field, target, collection)
        found = history.check(history.load(log.path))
        check(not found, "the history is not what was promised",
              *("%s: %s" % finding for finding in found[:20]))
        check(outcomes["ok"] > kills and all(client.outcomes["ok"] for client in clients),
              "hardly anything was written")
        check(outcomes["killed"] + outcomes["unknown"] > 0, "no outcome was unknown")
    except BaseException:
        log.close()
        kept = os.path.join(tempfile.gettempdir(), "tandem-history-%d-%s.jsonl" %
                            (field.seed, collection))
        shutil.copyfile(log.path, kept)
        field.say("the history is kept: " + kept)
        raise
    log.close()


def kill_9_loses_nothing_that_was_reported_durable(field):
    nodes = [field.node(name) for name in ("abc" if field.full else "ab")]
    for target in nodes:
        target.start()
    for target in nodes:
        for other in nodes:
            if other is not target:
                target.peer(other)
    kills = KILLS_SANITIZED if field.sanitized else KILLS
    for i in range(field.size(1, EPISODES_FULL)):
        for target in nodes:
            if not target.is_running():
                target.start()
        episode(field, nodes, "c%d" % i, field.size(kills, KILLS_FULL), field.size(1, 2))


def restart(field, victim):
    """Start again. A writer's command may have the stopped store open: then the node waits, and
    gives up after a while with exit 6, which is no failure of the node."""
    def started():
        try:
            victim.start()
            return True
        except node.Failure:
            if "TANDEM_E_LOCKED" not in victim.log()[-500:]:
                raise
            victim.process.stdout.close()
            victim.process = None
            return False

    field.until("%s is back" % victim.name, started)


def sigterm_while_syncing_exits_0_and_loses_nothing(field):
    count = field.size(20000, 200000)
    a, b = field.nodes_started("a", "b")
    a.import_file("c", field.file("in.jsonl", node.operations(count)))
    a.peer(b)
    for _ in range(4):
        held = b.status()["store"]["operations"]
        field.until("something more has come",
                    lambda: b.status()["store"]["operations"] > held or
                    b.status()["store"]["operations"] == count + 100, every=0.001)
        victim = field.random.choice((a, b))
        victim.end()  # checks for exit 0
        victim.start()
    a.wait(b)
    field.settle(a, b)
    a.verify()
    b.verify()


def sigterm_while_importing_keeps_what_was_told(field):
    a = field.node("a").start()
    path = field.file("in.jsonl", node.operations(60000))
    importer = subprocess.Popen(
        [field.tandem, "--data", a.data, "import", "c", path], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=node.environment(), text=True)
    field.processes.append(importer)
    field.until("some groups are in", lambda: a.status()["store"]["operations"] > 5000,
                every=0.001)
    a.end()
    _, err = importer.communicate(timeout=node.DEADLINE_S)
    check(importer.returncode in (3, 5), "the importer: exit %d" % importer.returncode, err)
    kept = int(err.split("lines 1-")[1].split()[0])
    field.say("exit %d: %s" % (importer.returncode, err.strip()))
    rows = a.json("op", "ls", "c", timeout=300)
    held = sum(row["type"] == "kv.SET" for row in rows)
    check(kept <= held <= kept + 1000, "it told %d lines and holds %d" % (kept, held))
    a.verify()
    # --from makes it whole.
    a.run("-q", "import", "c", path, "--from", str(held + 1), timeout=300)
    whole = sum(json.loads(line)["type"] == "kv.SET"
                for line in a.run("--json", "op", "ls", "c", timeout=300).out.splitlines())
    check(whole == 60000, "after --from it holds %d lines" % whole)


node.main(kill_9_loses_nothing_that_was_reported_durable,
          sigterm_while_syncing_exits_0_and_loses_nothing,
          sigterm_while_importing_keeps_what_was_told)
