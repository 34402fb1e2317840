"""The small client: a peer of real nodes over WebSocket and over HTTP, and what it does not take.

--full lets it be idle for as long as a silent session or connection would not live.
"""

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time

import msgpack
import websocket

import node
import small_client
from node import check
from returning_client import Returning

HERE = os.path.dirname(os.path.abspath(__file__))
VECTORS = os.path.join(HERE, "../vectors")


def url_of(field, target):
    return target.url.replace("ws:", field.transport + ":")


def join(field, target, before=None):
    """The small client; with what a life before it held, one that came back."""
    over = {"ws": small_client.over_websocket, "http": small_client.over_http}[field.transport]
    exchange = over(url_of(field, target))
    return Returning(exchange, before) if before else small_client.Peer(exchange)


def leave(me):
    me.exchange(me.out, 0)


def create(me, collection, document, value):
    me.write(collection, document, "document", "kv.CREATE", None)
    me.write(collection, document, "global", "kv.SET", value)


def B(*parts):
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


def digests(heads):
    """Of each collection, from rows of (collection, origin, seq, hash); section 10."""
    return {c: B(*(origin + seq.to_bytes(8, "big") + hash for of, origin, seq, hash in sorted(heads)
                   if of == c)).hex() for c in {row[0] for row in heads}}


def heads_of(*peers):
    return {(*chain, *head) for me in peers for chain, head in me.heads.items()}


def until(field, what, condition, *peers):
    """Lets the peers live until it holds; returns whether they thought that they were in step."""
    in_step = []

    def lives_and_looks():
        in_step[:] = [me.step() for me in peers]
        return condition()

    field.until(what, lives_and_looks, every=0)
    return all(in_step)


def settle(field, target, *peers):
    """All hold the same, by the digests that the node prints, and it says so of each session."""
    def content():
        rows = [row for row in target.status()["remotes"] if not row["name"]]
        return len(rows) == len(peers) and all(
            (row["state"], row["outbox"]) == ("in_step", 0) for row in rows)

    def equal():
        return all(digests(heads_of(me)) == target.vectors() for me in peers)

    field.until("in step", lambda: until(field, "equal", equal, *peers), every=0)
    until(field, "the node says so", content, *peers)
    for me in peers:
        check(not me.refused, "a job was refused", me.refused)


def state(target, collection, document):
    return target.json("doc", "show", collection, document)[0]["state"]


# ---- Sessions, over either transport ----

def it_pulls_and_pushes(field):
    target, = field.nodes_started("a")
    for i in range(3):
        target.append("tasks", "n%d" % i, "kv", "SET", {"a": i})
    me = join(field, target)
    settle(field, target, me)
    check(len(me.jobs) == 3, "it pulled something else", me.jobs)
    create(me, "tasks", "mine", {"title": "milk", "n": -3})
    settle(field, target, me)
    check(state(target, "tasks", "mine") == {"title": "milk", "n": -3}, "it did not arrive")
    row = target.remote(None)
    check((row["sent_operations"], row["received_operations"], row["duplicate_operations"],
           row["echoed_operations"]) == (6, 2, 0, 0), "something came twice", row)
    leave(me)
    target.verify()


def it_pushes_what_it_wrote_before_it_joined(field):
    target, = field.nodes_started("a")
    for i in range(2):  # to an empty node, and to one that has something
        me = join(field, target)
        for collection in ("tasks", "only%d" % i):
            create(me, collection, "mine%d" % i, {"n": i})
        settle(field, target, me)
        for collection in ("tasks", "only%d" % i):
            check(state(target, collection, "mine%d" % i) == {"n": i}, "it did not arrive")
        row = target.remote(None)
        check((row["sent_operations"], row["received_operations"], row["duplicate_operations"]) ==
              (4 * i, 4, 0), "something came twice", row)
        leave(me)
        field.until("it has left", lambda: target.status()["listener"]["sessions"] == 0)
    target.verify()


def it_hears_what_comes_later_and_stays_while_idle(field):
    target, = field.nodes_started("a")
    me = join(field, target)
    settle(field, target, me)
    target.append("tasks", "late", "kv", "SET", {"b": 1})
    settle(field, target, me)
    create(me, "notes", "first", {"text": "x" * 70000})
    settle(field, target, me)
    check(state(target, "notes", "first") == {"text": "x" * 70000}, "it did not arrive")
    target.append("notes", "first", "kv", "SET", {"c": 1})
    target.append("shared", "s", "kv", "SET", {"c": 1})
    settle(field, target, me)
    end = time.monotonic() + field.size(2, 62)
    while time.monotonic() < end:
        me.step(1)
    if field.transport == "http":
        time.sleep(3)  # longer than it could be away had it not said so
    target.append("tasks", "later", "kv", "SET", {"d": 1})
    settle(field, target, me)
    check(target.status()["listener"]["sessions"] == 1, "it is gone")
    leave(me)
    target.verify()


def it_pulls_what_one_writes_while_another_reads(field):
    """Two clients: what the one pushes is announced to the other, which asks for it."""
    target, = field.nodes_started("a")
    writer, me = join(field, target), join(field, target)
    for i in range(30):
        create(writer, "tasks", "d%d" % i, {"n": i})
        writer.step(0.001)
        me.step(0.001)
    settle(field, target, writer, me)
    check(me.heads == writer.heads and len(me.jobs) == 60, "it holds something else", me.heads)
    rows = [(row["sent_operations"], row["received_operations"], row["duplicate_operations"])
            for row in target.status()["remotes"]]
    check(sorted(rows) == [(0, 60, 0), (60, 0, 0)], "something came twice", rows)
    for peer in (writer, me):
        leave(peer)
    target.verify()


def what_it_holds_is_asked_for_when_it_comes_back(field):
    a, b = field.nodes_started("a", "b")
    a.append("tasks", "n", "kv", "SET", {"a": 1})
    first = join(field, a)
    create(first, "tasks", "mine", {"title": "milk", "n": 1})
    settle(field, a, first)
    leave(first)
    first.write("tasks", "mine", "global", "kv.SET", {"title": "bread"})
    create(first, "alone", "x", {})
    second = join(field, a, before=first)
    settle(field, a, second)
    check(state(a, "tasks", "mine") == {"title": "bread", "n": 1}, "what it wrote alone")
    row = a.remote(None)
    check((row["sent_operations"], row["received_operations"], row["duplicate_operations"]) ==
          (0, 3, 0), "came twice", row)
    leave(second)
    third = join(field, a)
    settle(field, a, third)
    check(third.heads == first.heads, "another client got something else", third.heads)
    leave(third)
    b.append("tasks", "other", "kv", "SET", {"b": 1})
    fourth = join(field, b, before=third)
    settle(field, b, fourth)
    check(state(b, "tasks", "mine") == {"title": "bread", "n": 1}, "it was not carried on")
    check(state(b, "tasks", "n") == {"a": 1}, "what a node wrote was not carried on")
    leave(fourth)
    for target in (a, b):
        target.verify()


def the_node_takes_every_branch_of_a_fork(field):
    """One origin, three reactors. Their branches come one after the other, by peers that carry them
    and know of no fork: then one that is longer, and one that is shorter. A client that comes then
    takes one of them, and refuses the others."""
    target, = field.nodes_started("a")
    writers = [small_client.Peer(None) for _ in range(3)]
    create(writers[0], "tasks", "d", {"n": 0})
    for writer, count in ((writers[1], 5), (writers[2], 1)):
        writer.origin = writers[0].origin
        writer.store([op.raw for op in writers[0].jobs[0]])
        for i in range(count):
            writer.write("tasks", "d", "global", "kv.SET", {"n": [count, i]})
    for i, writer in enumerate(writers):
        carrier = join(field, target, before=writer)
        until(field, "branch %d came" % i,
              lambda: target.vectors() == digests(heads_of(*writers[:i + 1])), carrier)
        leave(carrier)
        field.until("it has left", lambda: target.status()["listener"]["sessions"] == 0)
    heads = [seq for _, _, seq, _ in sorted(heads_of(*writers))]
    check(heads == [2, 2, 6], "other branches", heads)
    forks = target.status()["forks"]
    check([row["heads"] for row in forks] == [3], "the node sees another fork", forks)
    me, errors = join(field, target), []

    def store(raws):
        error = small_client.Peer.store(me, raws)
        errors.append(error and error[0])
        return error

    me.store = store
    until(field, "all is answered", lambda: len(errors) == 8, me)
    check(set(errors) == {None, small_client.QUARANTINED, small_client.PREDECESSOR} or
          set(errors) == {None, small_client.QUARANTINED}, "other answers", errors)
    check(heads_of(me) < heads_of(*writers), "it holds no whole branch", me.heads)
    check(not me.step(), "it takes itself for in step")
    leave(me)
    target.verify()


def it_is_told_what_is_refused(field):
    """By a rule of the node; what stands behind it goes on."""
    target = field.node("a").start("--refuse", "tasks/bad")
    me = join(field, target)
    for document in ("good", "bad", "better"):
        create(me, "tasks", document, {})
    until(field, "all is answered", lambda: len(me.refused) == 2 and not me.queue
          and me.acked == me.jobs_sent and len(target.json("doc", "ls", "tasks")) == 2, me)
    check([error for _, error, _ in me.refused] == [REFUSED] * 2, "why", me.refused)
    check(not me.step(), "it takes itself for in step")
    leave(me)
    target.verify()


def it_ends_when_the_node_does(field):
    target = field.node("a")
    for number in (signal.SIGTERM, signal.SIGKILL):
        me = join(field, target.start())
        settle(field, target, me)
        target.end(number)
        try:
            field.until("it has ended", lambda: me.step() and False, every=0)
        except (OSError, http.client.HTTPException, websocket.WebSocketException):
            pass


def it_is_a_program(field):
    target, = field.nodes_started("a")
    target.append("tasks", "n", "kv", "SET", {"a": 1})
    for count in (0, 7):
        done = subprocess.run([sys.executable, "-B", os.path.join(HERE, "small_client.py"),
                               url_of(field, target), str(count)], stdout=subprocess.PIPE,
                              text=True, timeout=60 * field.slower, check=True)
        rows = [line.split() for line in done.stdout.splitlines()]
        printed = [(c, bytes.fromhex(origin), int(seq), bytes.fromhex(hash_))
                   for c, origin, seq, hash_ in rows]
        check(digests(printed) == target.vectors(), "printed", done.stdout)
        check(sum(seq for _, _, seq, _ in printed) ==
              sum(row["operations"] for row in target.digest()), "printed", done.stdout)
    check(len(target.json("doc", "ls", "small")) == 7, "it created something else")
    target.verify()


# ---- What it does not take ----

REFUSED = -32


def changed(raw, **fields):
    """The operation with other fields."""
    items = msgpack.unpackb(raw)
    for name, value in fields.items():
        items[FIELDS.index(name)] = value
    return msgpack.packb(items)


FIELDS = ("version", "flags", "collection", "origin", "seq", "predecessor", "hlc", "document",
          "branch", "scope", "type", "payload")


def what_does_not_fit_its_hash_or_its_chain_is_refused(_field):
    writer, me = small_client.Peer(None), small_client.Peer(None)
    for i in range(3):
        writer.write("c", "d", "global", "kv.SET", {"n": i})
    one, two, three = (job[0].raw for job in writer.jobs)
    first, second = (changed(raw, flags=1) for raw in (one, two))
    second = changed(second, predecessor=small_client.read_operation(first).id[1])
    end = changed(second, flags=0)
    last = changed(three, predecessor=small_client.read_operation(second).id[1])
    ahead = writer.now() + (360_000 << 16)
    for name, error, raws in (
            ("no operation", small_client.PAYLOAD, [b"\xc0"]),
            ("cut off", small_client.PAYLOAD, [one[:-1]]),
            ("more behind it", small_client.PAYLOAD, [one + b"\x00"]),
            ("a longer form", small_client.PAYLOAD, [b"\x9c\xcc\x01" + one[2:]]),
            ("a seq that is text", small_client.PAYLOAD, [changed(one, seq="1")]),
            ("its predecessor is missing", small_client.PREDECESSOR, [two]),
            ("another root", small_client.CHAIN, [changed(one, predecessor=bytes(32))]),
            ("more follows", small_client.CHAIN, [first]),
            ("two jobs in one", small_client.CHAIN, [one, two]),
            ("a gap", small_client.CHAIN, [first, last]),
            ("a bit of the payload", small_client.CHAIN,
             [changed(first, payload=b"\x81\xa1n\x01"), second, last]),
            ("another document", small_client.CHAIN, [first, changed(end, document="e")]),
            ("another branch", small_client.CHAIN, [first, changed(end, branch="e")]),
            ("another origin", small_client.CHAIN, [first, changed(end, origin=bytes(16))]),
            ("another collection", small_client.CHAIN, [first, changed(end, collection="e")]),
            ("a reserved collection", small_client.UNSUPPORTED,
             [changed(one, collection="_c", predecessor=B(b"_c", bytes(16)))]),
            ("six minutes ahead", small_client.CLOCK, [changed(one, hlc=ahead)])):
        answer = me.store(raws)
        check(answer == (error, ahead - (300_000 << 16) if error == small_client.CLOCK else 0),
              "%s: taken, or refused otherwise" % name, answer)
    check(not me.jobs and not me.heads, "something was kept", me.jobs)
    for again in (False, True):
        answer = me.store([first, second, last])
        check(answer is None, "a whole job is refused, or one that is held", again, answer)
    check([len(job) for job in me.jobs] == [3], "it was kept otherwise", me.jobs)
    head = me.heads["c", writer.origin]
    check(head == small_client.read_operation(last).id, "another head", head)
    for name, error, raw in (
            ("a branch from the root", small_client.QUARANTINED, one),
            ("a branch within a job", small_client.QUARANTINED, end),
            ("what follows one that is not held", small_client.PREDECESSOR, two),
            ("a seq that does not follow", small_client.PREDECESSOR,
             changed(three, seq=5, predecessor=head[1])),
            ("another root", small_client.CHAIN, changed(one, predecessor=bytes(32)))):
        answer = me.store([raw])
        check(answer == (error, 0), "%s: taken, or refused otherwise" % name, answer)
    check(me.store([changed(three, seq=4, predecessor=head[1])]) is None, "what follows is refused")
    check(me.heads["c", writer.origin][0] == 4 and len(me.jobs) == 2, "other heads", me.heads)


def what_it_writes_is_later_than_what_it_took(_field):
    writer, me = small_client.Peer(None), small_client.Peer(None)
    writer.clock = writer.now() + (240_000 << 16)
    writer.write("c", "d", "global", "kv.SET", {})
    check(me.store([writer.jobs[0][0].raw]) is None, "it is refused")
    me.write("c", "d", "global", "kv.SET", {})
    check(me.jobs[1][0].hlc > writer.jobs[0][0].hlc, "it is earlier", me.jobs)


UNCHECKED = {
    "collection empty", "collection of 129 bytes", "document of 300 bytes", "branch empty",
    "document with a line feed", "document with a zero byte", "document with DEL",
    "document with a C1 control", "scope empty", "type without a dot", "type without a model",
    "type without a verb", "trailing item of 17 levels"}


def hashes_and_forms_are_those_of_the_vectors(_field):
    """But for limits and names, for which it does not look."""
    for page in ("operations.json", "wire.json"):
        with open(os.path.join(VECTORS, page), encoding="utf-8") as file:
            vectors = json.load(file)
        for row in vectors["operations"]:
            op = small_client.read_operation(bytes.fromhex(row["canonical"]))
            check(op.id[1].hex() == row["hash"], "the hash of %s" % row["name"], op.id[1].hex())
        if page == "wire.json":
            for row in vectors["digests"]:
                rows = {(c["name"], bytes.fromhex(origin["origin"]), int(head["seq"]),
                         bytes.fromhex(head["hash"])) for c in row["collections"]
                        for origin in c["origins"] for head in origin["heads"]}
                check(digests(rows) == {c["name"]: c["digest"] for c in row["collections"]},
                      "the digests of %s, here in the test" % row["name"])
            continue
        for row in vectors["invalid"]:
            if row["name"] not in UNCHECKED:
                answer = small_client.Peer(None).store([bytes.fromhex(row["canonical"])])
                check(answer == (small_client.PAYLOAD, 0),
                      "%s: taken, or refused otherwise" % row["name"], answer)


class Script:
    """What the peer says, written down, and what the client said to it. No clock, no node."""

    def __init__(self):
        self.to_say, self.heard, self.number, self.origin = [], [], 0, os.urandom(16)

    def exchange(self, out, seconds):
        self.heard += [msgpack.unpackb(message) for message in out]
        messages, self.to_say = self.to_say, []
        return [msgpack.packb(message) for message in messages] if seconds else None

    def says(self, kind, *items):
        self.number += 1
        self.to_say.append([kind, self.number, *items])

    def hello(self):
        self.says(1, 1, 0, os.urandom(16), self.origin, 0, [], [1 << 20, 0, 0], "a script")

    def have(self, level, entries):
        self.says(2, 0, 0, level, False, entries)

    def hears(self, me, *expected):
        """What it answers to what was said: of HAVE, level and entries, else all items."""
        me.step()
        self.heard = []
        me.step()
        heard = [[m[0], *(m[4::2] if m[0] == 2 else m[2:])] for m in self.heard]
        check(heard == list(expected), "it says something else", heard, expected)


def it_says_what_is_due_and_nothing_else(_field):
    peer, other = Script(), os.urandom(16)
    me = small_client.Peer(peer.exchange)
    for n in range(3):
        me.write("c", "d", "global", "kv.SET", {"n": n})
    raws = [[job[0].raw] for job in me.jobs]
    me.step()
    check([m[:2] for m in peer.heard] == [[1, 1], [2, 2]] and peer.heard[1][4:] ==
          [0, False, [0, B()]], "it opens otherwise", peer.heard)
    peer.hello()
    peer.hears(me)
    peer.have(0, [2, bytes(32)])
    peer.hears(me, [2, 1, []])
    peer.have(1, [["c", bytes(32)], ["d", bytes(32)]])
    peer.hears(me)  # what it holds of these it has not said yet
    peer.have(2, [["c", None, True, True, [[other, [[2, bytes(32)]]],
                                           [peer.origin, [[3, bytes(32)]]]], []]])
    ours = [[me.origin, [list(me.heads["c", me.origin])]]]
    peer.hears(me, [5, [["c", [[other, 1, 2]]]]], [2, 2, [["c", None, True, True, ours, []]]])
    peer.have(2, [["c", None, False, False, [[other, [[5, bytes(32)]]]], []]])
    peer.hears(me, [5, [["c", [[other, 3, 5]]]]])
    peer.have(2, [["c", None, False, False, [[other, [[5, bytes(32)]]]], []],
                  ["c", [None, [], None], False, False, [[other, [[7, bytes(32)]]]], []]])
    peer.hears(me)  # known; and of what a filter lets through it knows nothing
    peer.have(2, [["d", None, True, True, [], []]])
    peer.hears(me, [2, 2, [["d", None, True, True, [], []]]], [3, 1, raws[:1]])
    peer.says(99, {"what": b"is unknown"})
    peer.hears(me)  # one job in flight
    peer.says(4, 1, [])
    peer.hears(me, [3, 2, raws[1:2]])
    peer.says(4, 2, [[2, REFUSED, 0]])
    peer.hears(me, [3, 3, raws[2:]])
    check(not me.step(), "it takes itself for in step")
    peer.says(4, 3, [])
    peer.says(5, [["c", [[me.origin, 2, 2]]]])
    peer.hears(me, [3, 4, raws[1:2]])
    peer.says(3, 1, [raws[0], [b"\xc0"]])
    peer.hears(me, [4, 2, [[2, small_client.PAYLOAD, 0]]])
    me.spoke, peer.heard = me.spoke - 10, []
    me.step()
    check([[m[0], *m[4:]] for m in peer.heard] == [[2, 2, False, []]], "no heartbeat", peer.heard)


def it_is_in_step_when_nothing_is_lacking_on_either_side(_field):
    peer, writer = Script(), small_client.Peer(None)
    me = small_client.Peer(peer.exchange)

    def looks(what, expected):
        me.step()
        check(me.step() == expected, "%s: it says %s" % (what, not expected))

    for n in range(2):
        writer.write("c", "d", "global", "kv.SET", {"n": n})
    raws = [[job[0].raw] for job in writer.jobs]
    heads = [list(job[0].id) for job in writer.jobs]
    looks("at first", False)
    peer.hello()
    peer.have(0, [0, B()])
    looks("level 0", False)
    me.take(2, 3, 0, 0, 1, True, [["c", bytes(32)]])
    peer.number += 1
    looks("a page", False)
    peer.have(1, [])
    looks("the last page", False)
    peer.have(2, [["c", None, True, False, [[writer.origin, heads[1:]]], []]])
    looks("half of a listing", False)
    peer.have(2, [["c", None, False, True, [], []]])
    looks("the listing", False)
    peer.says(3, 1, raws[:1])
    looks("half of what was listed", False)
    peer.says(3, 2, raws[1:])
    looks("all of it", True)
    me.write("c", "d", "global", "kv.SET", {})
    looks("what it wrote", False)
    peer.says(4, 1, [])
    looks("its ACK", True)
    peer.have(2, [["c", None, False, False, [[writer.origin, [[2, bytes(32)], heads[1]]]], []]])
    looks("a fork", False)


def what_breaks_the_rules_ends_its_session(_field):
    def ends(name, error, *messages, hello=True, silent_s=0):
        peer = Script()
        me = small_client.Peer(peer.exchange)
        me.heard -= silent_s
        if hello:
            peer.hello()
        for message in messages:
            peer.says(*message)
            peer.number += name == "a gap"
        try:
            for _ in range(2):
                me.step()
        except ConnectionError:
            check(peer.heard[-1][0] == 7 and peer.heard[-1][2] == error, "%s: another error" % name,
                  peer.heard)
        else:
            check(False, "%s: it goes on" % name)

    ends("a gap", small_client.NETWORK, [2, 0, 0, 2, False, []], [2, 0, 0, 2, False, []])
    ends("another first", small_client.PROTOCOL, [2, 0, 0, 2, False, []], hello=False)
    ends("another version", small_client.PROTOCOL, [1, 2, 0], hello=False)
    ends("HELLO twice", small_client.PROTOCOL, [1, 1, 0, bytes(16), bytes(16), 0, [], [], ""])
    ends("another level", small_client.PROTOCOL, [2, 0, 0, 3, False, []])
    ends("another first job", small_client.PROTOCOL, [3, 2, []])
    ends("an ACK of what was not sent", small_client.PROTOCOL, [4, 1, []])
    ends("a form", small_client.PROTOCOL, [5])
    ends("silence", small_client.TIMEOUT, silent_s=31)
    small_client.Peer(lambda out, seconds: ["", b""]).step()  # a close, an empty message


def over(scheme, test):
    def run(field):
        field.transport = scheme
        test(field)
    run.__name__ = test.__name__ + "_over_" + scheme
    return run


node.main(*(over(scheme, test) for test in (
    it_pulls_and_pushes, it_pushes_what_it_wrote_before_it_joined,
    it_hears_what_comes_later_and_stays_while_idle, it_pulls_what_one_writes_while_another_reads,
    what_it_holds_is_asked_for_when_it_comes_back, the_node_takes_every_branch_of_a_fork,
    it_is_told_what_is_refused, it_ends_when_the_node_does,
    it_is_a_program) for scheme in ("ws", "http")),
          what_does_not_fit_its_hash_or_its_chain_is_refused,
          what_it_writes_is_later_than_what_it_took, hashes_and_forms_are_those_of_the_vectors,
          it_says_what_is_due_and_nothing_else,
          it_is_in_step_when_nothing_is_lacking_on_either_side,
          what_breaks_the_rules_ends_its_session)
