"""Item 5: kill -9 at random moments while both write and sync; and the gentler ends."""

import json
import subprocess
import threading
import time

import node
from node import check


class Writer(threading.Thread):
    """Appends through the command line for as long as it is let, and keeps what was told durable.

    While the node is down the command line opens the stopped store by itself, or loses the lock to
    the node that starts: both are legal, and only exit 0 counts as reported durable.
    """

    def __init__(self, target, number):
        super().__init__(daemon=True)
        self.target, self.number = target, number
        self.durable = []  # (operation's row, collection, document, type, input)
        self.failures = {}
        self.stopping = threading.Event()
        self.error = None

    def run(self):
        i = 0
        while not self.stopping.is_set():
            i += 1
            if i % 3 == 0:
                what = ("counts", "shared", "counter", "ADD", i % 5 + 1)
            else:
                what = ("notes", "d%d" % (i % 4), "kv", "SET",
                        {"%s%d" % (self.target.name, i % 20): "%s-%d" % (self.target.name, i)})
            try:
                result = self.target.append(*what, code=None)
            except node.Failure as failure:
                self.error = failure
                return
            if result.code == 0:
                row, = result.lines()
                self.durable.append((row, *what))
            else:
                self.failures[result.code] = self.failures.get(result.code, 0) + 1

    def stop(self):
        self.stopping.set()
        self.join()
        if self.error:
            raise self.error


def listed(target, collection):
    """hash -> row of every operation that a node holds in a collection."""
    return {row["hash"]: row for row in target.json("op", "ls", collection, timeout=300)}


def check_durable(field, writers, targets):
    """Everything that was reported durable is on every node, with its content."""
    for target in targets:
        rows = {name: listed(target, name) for name in ("notes", "counts")}
        for writer in writers:
            for row, collection, document, model, type_, value in writer.durable:
                held = rows[collection].get(row["hash"])
                check(held, "an operation that was reported durable is gone from " + target.name,
                      row, value)
                found = (held["origin"], held["seq"], held["document"], held["type"],
                         held["input"])
                wanted = (row["origin"], row["seq"], document, model + "." + type_, value)
                check(found == wanted, "an operation on %s is another one" % target.name, found,
                      wanted)
    # The counter is the sum of all that is held: nothing was applied twice or lost in the fold.
    total = sum(row["input"] for row in listed(targets[0], "counts").values()
                if row["type"] == "counter.ADD")
    for target in targets:
        shown, = target.json("doc", "show", "counts", "shared")
        check(shown["state"] == total, "the counter on %s is %s, not %d" %
              (target.name, shown["state"], total))


def kill_9_loses_nothing_that_was_reported_durable(field):
    a, b = field.nodes_started("a", "b")
    a.peer(b)
    b.peer(a)
    writers = [Writer(target, i) for i, target in enumerate((a, b))]
    for writer in writers:
        writer.start()
    try:
        for _ in range(field.size(6, 20)):
            time.sleep(field.random.uniform(0.05, field.size(1, 3)))
            victims = field.random.choice(((a,), (b,), (a, b)))
            for victim in victims:
                victim.kill()
            time.sleep(field.random.uniform(0, 0.3))
            for victim in victims:
                restart(field, victim)
        time.sleep(0.5)
    finally:
        for writer in writers:
            writer.stop()
    field.say("reported durable: %s; not taken: %s" % (
        [len(writer.durable) for writer in writers], [writer.failures for writer in writers]))
    a.wait(b)
    b.wait(a)
    field.settle(a, b)
    check_durable(field, writers, (a, b))
    a.verify()
    b.verify()
    field.ends_cleanly()
    # Stopped, too: what the disk says, not what a process remembers.
    field.settle(a, b)
    a.verify()
    b.verify()
    check(all(len(writer.durable) > 20 for writer in writers), "hardly anything was written")


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
