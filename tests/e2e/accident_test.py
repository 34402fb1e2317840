"""Every reactor of a full mesh has an accident, and nothing is lost by it.

Behind the reactors' backs folders are put back to earlier copies, copied and run twice, and a clock
is wrong for a while. Each reactor that could give two operations one identity takes a new origin
and says why; forks are kept, and shown. In the end all hold the same, with every acknowledged
operation in it: history.py judges that.
"""

import collections
import os
import shutil

import client
import node
from node import check

COLLECTION = "c"
SKEW_MAX_S = 300  # operations from further ahead wait at their sender


class Fleet:
    """The nodes, and for each a client that writes what it is told to."""

    def __init__(self, field, log):
        self.field, self.log = field, log
        self.clients = {}

    def node(self, name):
        made = self.field.node(name)
        self.clients[name] = client.Client(self.field, self.log, made, len(self.clients) + 1,
                                           COLLECTION)
        return made

    def write(self, target, count):
        """So many acknowledged appends; on the stopped store if the node does not run."""
        writer = self.clients[target.name]
        enough = writer.outcomes["ok"] + count
        while writer.outcomes["ok"] < enough:
            writer.append()

    def all(self):
        return self.field.nodes

    def until_incarnated(self, reason, *targets):
        """One of them has taken a new origin for that reason; returns it."""
        def look():
            for target in targets:
                incarnation = target.status()["incarnation"]
                if incarnation["number"] > 1 and incarnation["reason"] == reason:
                    return target
            return None

        found = self.field.until("a new origin of %s, %s" % (
            " or ".join(target.name for target in targets), reason), look, timeout=30)
        self.field.say("%s took a new origin: %s" % (found.name, reason))
        return found

    def fork(self, target):
        """What the target has written may be continued twice from now on."""
        origin = target.status()["origin"]
        self.log.write("fork", origin=origin)
        return origin


def copy_of(target):
    """A copy of a stopped node's folder, as a backup program would take it."""
    copy = target.data + ".copy"
    shutil.copytree(target.data, copy, ignore=shutil.ignore_patterns("*.sock"))
    return copy


def skewed(field, seconds):
    """What to start a node behind so that its wall clock is ahead."""
    library = os.path.join(os.path.dirname(field.tandem), "..", "..", "tests", "skewed_clock.so")
    check(os.path.exists(library), "tests/skewed_clock.so is not built")
    return ("env", "LD_PRELOAD=" + os.path.abspath(library), "SKEWED_CLOCK_S=%d" % seconds,
            "ASAN_OPTIONS=%s:verify_asan_link_order=0" % os.environ.get("ASAN_OPTIONS", ""))


def has_a_wrong_clock(fleet, target):
    """It runs ahead, writes, and is set right: what it wrote waits there until it is due, and what
    it writes from then on does not."""
    late_s = 20 if fleet.field.sanitized else 8  # it is to be met before its operations are due
    target.end()
    target.start(prefix=skewed(fleet.field, SKEW_MAX_S + late_s))
    fleet.write(target, 3)
    fleet.field.until("its operations wait, and it says so", lambda: "waiting_for_clock" in [
        remote["state"] for remote in target.status()["remotes"]])
    target.end()
    fleet.log.fault("clock", target.name)
    target.start()
    fleet.until_incarnated("clock", target)
    fleet.write(target, 3)


def is_restored(fleet, target, others, writes_first):
    """Its folder goes back to a copy; then it writes, or hears of its later operations first."""
    target.end()
    copy = copy_of(target)
    target.start()
    fleet.write(target, 4)
    for other in others:
        target.wait(other)
    target.end()
    shutil.rmtree(target.data)
    shutil.move(copy, target.data)
    fleet.log.fault("restore", target.name)
    origin = None
    if writes_first:
        origin = fleet.fork(target)
        fleet.write(target, 3)
    target.start()
    fleet.until_incarnated("continued", target)
    fleet.write(target, 3)
    return origin


def runs_twice(fleet, target, meets):
    """A copy of its folder runs beside it; both have written before anybody hears of it."""
    target.end()
    origin = fleet.fork(target)
    copy = fleet.node(target.name + "2")
    shutil.move(copy_of(target), copy.data)
    fleet.write(target, 3)
    fleet.write(copy, 3)
    target.start()
    copy.start()
    if meets:
        copy.peer(target)
    fleet.until_incarnated("copied", target, copy)
    fleet.write(target, 3)
    fleet.write(copy, 3)
    check(target.status()["reactor"] != copy.status()["reactor"], "two nodes are one reactor")
    return origin


def check_forks(target, wanted):
    """`op ls` shows both branches of each fork, and of nothing else."""
    rows = target.json("op", "ls", COLLECTION, timeout=300)
    times = collections.Counter((row["origin"], row["seq"]) for row in rows)
    forked = {origin for (origin, _), count in times.items() if count > 1}
    check(forked == wanted, "%s shows forks of %s, not of %s" % (target.name, forked, wanted))
    status = target.status()
    check({row["origin"] for row in status["forks"]} == wanted and
          {(row["collection"], row["heads"], row["quarantined"]) for row in status["forks"]} ==
          {(COLLECTION, 2, False)}, "status names others", status["forks"])
    check(status["store"]["forks"] == len(wanted) and status["store"]["quarantined_origins"] == 0,
          "status counts others", status["store"])
    shown = target.run("status").out
    for origin in wanted:
        check("forked  origin %s in %s: 2 heads" % (origin, COLLECTION) in shown, "not shown", shown)


def every_reactor_of_a_mesh_has_an_accident(field):
    with client.judged(field, "accidents") as log:
        fleet = Fleet(field, log)
        a, b, c, d, e = mesh = [fleet.node(name) for name in "abcde"]
        for target in mesh:
            target.start()
        for target in mesh:
            for other in mesh:
                if other is not target:
                    target.peer(other)
            fleet.write(target, 5)
        field.settle(*mesh)
        has_a_wrong_clock(fleet, e)
        forked = {
            is_restored(fleet, a, (b, c, d), writes_first=True),
            runs_twice(fleet, c, meets=False),
            runs_twice(fleet, d, meets=True),
        }
        is_restored(fleet, b, (a, c), writes_first=False)
        for target in fleet.all():
            fleet.write(target, 2)
        field.settle(*fleet.all(), timeout=180)
        for target in fleet.all():
            check_forks(target, forked)
            incarnation = target.status()["incarnation"]
            field.say("%s: incarnation %d, %s" % (target.name, incarnation["number"],
                                                  incarnation["reason"]))
        field.ends_cleanly()
        for target in fleet.all():
            client.look_at_the_end(field, log, target, COLLECTION)


node.main(every_reactor_of_a_mesh_has_an_accident)
