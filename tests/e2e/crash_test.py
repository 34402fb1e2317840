"""Item 5: kill -9 at random moments while all write and sync; and the gentler ends.

What clients do and are told is logged as a history (history.py), and judged when all are equal.
"""

import collections
import itertools
import json
import subprocess
import threading
import time

import client
import node
from node import check

KILLS, KILLS_SANITIZED = 40, 15  # .ci/run has 60 at least: the former once, the latter twice
EPISODES_FULL, KILLS_FULL = 10, 40


def something_happens(field, clients, victims):
    """A moment to kill at: some appends later, or just as a victim takes operations in."""
    def acknowledged():
        return sum(one.outcomes["ok"] for one in clients)

    def failed():
        return any(one.error for one in clients)

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


def episode(field, nodes, collection, kills, clients_each):
    """Kill nodes while all write, let them become equal, and hold them to what they told."""
    with client.judged(field, collection) as log:
        clients = [client.Client(field, log, target, i + 1, collection)
                   for i, target in enumerate(nodes * clients_each)]
        begun, killed = time.monotonic(), 0
        for one in clients:
            one.start()
        try:
            while killed < kills and not any(one.error for one in clients):
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
            for one in clients:
                one.stop()
        outcomes = sum((one.outcomes for one in clients), collections.Counter())
        field.say("%d kills in %.1f s; appends: %s" %
                  (killed, time.monotonic() - begun, dict(outcomes)))
        for target in nodes:
            for other in nodes:
                if other is not target:
                    target.wait(other)
        field.settle(*nodes)
        # Stopped: what the disk says, not what a process remembers.
        field.ends_cleanly()
        for target in nodes:
            client.look_at_the_end(field, log, target, collection)
    check(outcomes["ok"] > kills and all(one.outcomes["ok"] for one in clients),
          "hardly anything was written")
    check(outcomes["killed"] + outcomes["unknown"] > 0, "no outcome was unknown")


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


def write(pipe, text):
    try:
        pipe.write(text)
        pipe.flush()
    except BrokenPipeError:
        pass  # who reads has ended


def sigterm_while_importing_keeps_what_was_told(field):
    a = field.node("a").start()
    path = field.file("in.jsonl", node.operations(60000))
    importer = subprocess.Popen(
        [field.tandem, "--data", a.data, "import", "c"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=node.environment(), text=True)
    field.processes.append(importer)
    # Its last lines come only after the signal: it cannot be done before.
    with open(path, encoding="utf-8") as lines:
        most = "".join(itertools.islice(lines, 59000))
        last = lines.read()
    writer = threading.Thread(target=write, args=(importer.stdin, most))
    writer.start()
    field.until("some groups are in", lambda: a.status()["store"]["operations"] > 5000)
    a.end()
    writer.join(node.DEADLINE_S)
    _, err = importer.communicate(last, timeout=node.DEADLINE_S)
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
