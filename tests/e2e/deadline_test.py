"""A peer that accepts and says nothing, or says it a byte at a time: given up in time, with the reason
in `status`, and tried again; and as soon as it answers all is well. Whole nodes and real seconds, so
all of it happens at once; http_deadline_test.c has each deadline on a clock of its own."""

import re

import node
from node import check
from proxy import Proxy

DIAL_S = 10  # to be answered at all
SILENCE_S = 30  # to hear something, or the end of an answer that has begun
CLOSE_S = 11  # then, to have it acknowledged that it is over
LATE_S = 10  # libcurl measures a speed over some seconds; and this machine may be busy

AWAY = ("connecting", "backing_off", "resting")
NO_ANSWER = "no answer within %d s (TANDEM_E_TIMEOUT)" % DIAL_S
SILENT = "nothing was heard for %d s (TANDEM_E_TIMEOUT)" % SILENCE_S


class Trouble:
    """A node of its own behind a proxy, and what b's status says of it."""

    def __init__(self, field, b, name, reason, *options):
        self.b, self.name, self.reason, self.options = b, name, reason, options
        self.node = field.node(name).start()
        self.proxy = Proxy(field, self.node)
        self.url = self.proxy.http_url if field.transport == "http" else self.proxy.url

    def add(self):
        self.b.run("-q", "peer", "add", self.name, self.url, *self.options)

    def ends(self):
        """Why its links ended so far, one after the other."""
        return re.findall("session with %s over: (.*)" % self.name, self.b.log())

    def look(self, ends, row):
        """Was it given up, and tried again? `ends` is older than `row`: what had ended shows in it."""
        check(row["state"] != "blocked", "the network is no reason to be blocked", row)
        if ends:
            check(row["state"] in AWAY, "it shows another state", row)
        return len(ends) > 1

    def heals(self):
        self.proxy.set()
        self.proxy.cut()  # what waits in a connection that was given up is nobody's any more
        self.b.run("-q", "peer", "sync", self.name)


def every_request_has_a_deadline(field):
    b, = field.nodes_started("b")
    mute, slow = (Trouble(field, b, name, NO_ANSWER) for name in ("mute", "slow"))
    silent, trickling = (Trouble(field, b, name, SILENT) for name in ("silent", "trickling"))
    troubles = {one.name: one for one in (mute, slow, silent, trickling)}
    if field.transport == "http":
        # Where nothing is expected for ten minutes: what is begun is given up all the same.
        troubles["polled"] = Trouble(field, b, "polled", "no answer in time", "--poll", "600s")
    open_ = [one for one in troubles.values() if one.reason != NO_ANSWER]
    for one in open_:
        one.add()
        b.wait(one.node)
    mute.proxy.set(black_hole=True)
    slow.proxy.set(trickle_s=2)
    for one in open_:
        # What comes of the latter is never a whole message.
        one.proxy.set(**({"trickle_s": 20} if one is trickling else {"black_hole": True}))
    b.append("c", "d", "kv", "SET", {"under": "way"})
    mute.add()
    slow.add()

    def all_are_given_up():
        ends = {name: one.ends() for name, one in troubles.items()}
        rows = {row["name"]: row for row in b.status()["remotes"]}
        return all([one.look(ends[name], rows[name]) for name, one in troubles.items()])

    field.until("each is given up, and tried again", all_are_given_up,
                SILENCE_S + CLOSE_S + DIAL_S + LATE_S, every=0.2)
    for one in troubles.values():
        field.say("%s: %s" % (one.name, one.ends()[0]))
        check(one.reason in one.ends()[0], "%s was given up for another reason" % one.name,
              *one.ends())
        one.heals()
    field.until("all are in step again", lambda: all(
        row["state"] == "in_step" for row in b.status()["remotes"] if row["name"]))
    field.settle(b, *(one.node for one in troubles.values()))
    field.ends_cleanly()


node.main(every_request_has_a_deadline)
