"""The small client: a peer of real nodes over WebSocket and over HTTP, and what it does not take.

--full lets it be idle for as long as a silent session or connection would not live.
"""

import json
import os
import subprocess
import sys
import time

import msgpack

import node
import small_client
from node import check

HERE = os.path.dirname(os.path.abspath(__file__))
VECTORS = os.path.join(HERE, "../vectors/wire.json")


def url_of(field, target):
    return target.url.replace("ws:", field.transport + ":")


def join(field, me, target):
    me.join(small_client.connect(url_of(field, target)))
    return me


def create(me, collection, document, value):
    me.write(collection, document, "document", "kv.CREATE", None)
    me.write(collection, document, "global", "kv.SET", value)


def digests(me):
    return {c: digest.hex() for c, digest in me.digests()[0]}


def until(field, what, condition, *peers):
    """Lets the peers live until it holds."""
    def lives_and_looks():
        for me in peers:
            me.step()
        return condition()

    field.until(what, lives_and_looks, every=0)


def settle(field, target, *peers):
    """All hold the same, by the digests that the node prints, and it says so of each session."""
    def equal():
        return all(me.in_step() and digests(me) == target.vectors() for me in peers)

    def content():
        rows = [row for row in target.status()["remotes"] if not row["name"]]
        return len(rows) == len(peers) and all(
            (row["state"], row["outbox"]) == ("in_step", 0) for row in rows)

    until(field, "in step", equal, *peers)
    until(field, "the node says so", content, *peers)
    for me in peers:
        # Where the node looks for the place where a fork's branches meet, it finds out by refusing.
        check(not [error for _, error, _ in me.refused if not target.status()["forks"]
                   or error != small_client.PREDECESSOR], "a job was refused", me.refused)


def state(target, collection, document):
    return target.json("doc", "show", collection, document)[0]["state"]


# ---- Sessions, over either transport ----

def it_pulls_and_pushes(field):
    target, = field.nodes_started("a")
    for i in range(3):
        target.append("tasks", "n%d" % i, "kv", "SET", {"a": i})
    me = join(field, small_client.Peer(), target)
    settle(field, target, me)
    check(len(me.jobs) == 3, "it pulled something else", me.jobs)
    create(me, "tasks", "mine", {"title": "milk", "n": -3})
    settle(field, target, me)
    check(state(target, "tasks", "mine") == {"title": "milk", "n": -3}, "it did not arrive")
    row = target.remote(None)
    check((row["sent_operations"], row["received_operations"], row["duplicate_operations"],
           row["echoed_operations"]) == (6, 2, 0, 0), "something came twice", row)
    me.transport.close()
    target.verify()


def it_hears_what_comes_later_and_stays_while_idle(field):
    target, = field.nodes_started("a")
    me = join(field, small_client.Peer(), target)
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
    target.append("tasks", "later", "kv", "SET", {"d": 1})
    settle(field, target, me)
    check(target.status()["listener"]["sessions"] == 1, "it is gone")
    me.transport.close()
    target.verify()


def it_comes_back_and_carries_what_it_holds(field):
    a, b = field.nodes_started("a", "b")
    first, second = small_client.Peer(), small_client.Peer()
    a.append("tasks", "n", "kv", "SET", {"a": 1})
    create(join(field, first, a), "tasks", "mine", {"title": "milk", "n": 1})
    settle(field, a, first)
    first.transport.close()
    first.write("tasks", "mine", "global", "kv.SET", {"title": "bread"})
    create(first, "alone", "x", {})
    settle(field, a, join(field, first, a))
    check(state(a, "tasks", "mine") == {"title": "bread", "n": 1}, "what it wrote alone")
    row = a.remote(None)
    check((row["received_operations"], row["duplicate_operations"]) == (3, 0), "came twice", row)
    first.transport.close()
    settle(field, a, join(field, second, a))
    check(digests(second) == digests(first), "another client got something else")
    second.transport.close()
    b.append("tasks", "other", "kv", "SET", {"b": 1})
    settle(field, b, join(field, second, b))
    check(state(b, "tasks", "mine") == {"title": "bread", "n": 1}, "it was not carried on")
    check(state(b, "tasks", "n") == {"a": 1}, "what a node wrote was not carried on")
    second.transport.close()
    for target in (a, b):
        target.verify()


def it_takes_every_branch_of_a_fork(field):
    """One origin, three reactors. Their branches come one after the other, by peers that carry them:
    one while it is there, one that is longer while it is away, and one that is shorter."""
    target, = field.nodes_started("a")
    writers = [small_client.Peer() for _ in range(3)]
    create(writers[0], "tasks", "d", {"n": 0})
    for writer, count in ((writers[1], 5), (writers[2], 1)):
        writer.origin = writers[0].origin
        writer.store([op.raw for op in writers[0].jobs[0]])
        for i in range(count):
            writer.write("tasks", "d", "global", "kv.SET", {"n": [count, i]})
    me = small_client.Peer()
    for away, writer in zip((False, True, False), writers):
        writer.origin = os.urandom(16)  # who carries it on is another
        if not away:
            join(field, me, target)
        settle(field, target, join(field, writer, target), *([] if away else [me]))
        writer.transport.close()
        until(field, "it has left",
              lambda: target.status()["listener"]["sessions"] == (not away), *([] if away else [me]))
        if not away:
            me.transport.close()
    heads, = me.heads.values()
    check(sorted(seq for seq, _ in heads) == [2, 2, 6], "other heads", heads)
    check(len(target.status()["forks"]) == 1, "the node sees no fork")
    target.verify()


def it_is_told_what_is_refused(field):
    """By a rule of the node; what stands behind it goes on."""
    target = field.node("a").start("--refuse", "tasks/bad")
    me = small_client.Peer()
    for document in ("good", "bad", "better"):
        create(me, "tasks", document, {})
    join(field, me, target)
    until(field, "all is answered", lambda: len(me.refused) == 2 and not me.queue and not me.flight
          and len(target.json("doc", "ls", "tasks")) == 2, me)
    check([error for _, error, _ in me.refused] == [small_client.REFUSED] * 2, "why", me.refused)
    me.transport.close()
    target.verify()


def it_is_a_program(field):
    target, = field.nodes_started("a")
    target.append("tasks", "n", "kv", "SET", {"a": 1})
    for count in (0, 7):
        done = subprocess.run([sys.executable, "-B", os.path.join(HERE, "small_client.py"),
                               url_of(field, target), str(count)], stdout=subprocess.PIPE,
                              text=True, timeout=60 * field.slower, check=True)
        expected = ["%s %d %s" % (row["collection"], row["operations"], row["vector_digest"])
                    for row in target.digest()]
        check(done.stdout.splitlines() == expected, "printed", done.stdout, expected)
    check(len(target.json("doc", "ls", "small")) == 7, "it created something else")
    target.verify()


# ---- What it does not take ----

def refusal(me, *raws):
    """The error with which it refuses them; None if it does not."""
    try:
        me.store(list(raws))
    except small_client.Refusal as why:
        check(not why.args[1] or why.args[0] == small_client.CLOCK, "a detail", why.args)
        return why.args[0]
    return None


def changed(raw, **fields):
    """The operation with other fields."""
    op = small_client.read_operation(raw)._replace(**fields)
    return msgpack.packb(list(op[:12]))


def what_does_not_fit_its_hash_or_its_chain_is_refused(_field):
    writer, me = small_client.Peer(), small_client.Peer()
    for i in range(3):
        writer.write("c", "d", "global", "kv.SET", {"n": i})
    one, two, three = (job[0].raw for job in writer.jobs)
    first, second = (changed(raw, flags=1) for raw in (one, two))
    second = changed(second, predecessor=small_client.read_operation(first).id[1])
    last = changed(three, predecessor=small_client.read_operation(second).id[1])
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
            ("another document", small_client.CHAIN, [first, changed(second, document="e"), last]),
            ("another origin", small_client.CHAIN, [first, changed(second, origin=bytes(16)), last]),
            ("six minutes ahead", small_client.CLOCK,
             [changed(one, hlc=writer.now() + (360_000 << 16))])):
        check(refusal(me, *raws) == error, "%s: taken, or refused otherwise" % name)
    check(not me.jobs and not me.heads, "something was kept", me.jobs)
    check(refusal(me, first, second, last) is None and refusal(me, first, second, last) is None,
          "a whole job is refused, or one that is held")
    check([len(job) for job in me.jobs] == [3], "it was kept otherwise", me.jobs)
    check(refusal(me, one) is None and refusal(me, two) is None, "a branch is refused")
    check(len(me.heads["c", writer.origin]) == 2, "the fork is not kept", me.heads)


def hashes_and_digests_are_those_of_the_vectors(_field):
    with open(VECTORS, encoding="utf-8") as file:
        vectors = json.load(file)
    for row in vectors["operations"]:
        op = small_client.read_operation(bytes.fromhex(row["canonical"]))
        check(op.id[1].hex() == row["hash"], "the hash of %s" % row["name"], op.id[1].hex())
    for row in vectors["digests"]:
        me = small_client.Peer()
        for collection in row["collections"]:
            for origin in collection["origins"]:
                me.heads[collection["name"], bytes.fromhex(origin["origin"])] = {
                    (int(head["seq"]), bytes.fromhex(head["hash"])) for head in origin["heads"]}
        check(digests(me) == {c["name"]: c["digest"] for c in row["collections"]} and
              me.digests()[1].hex() == row["digest"], "the digests of %s" % row["name"])


def over(scheme, test):
    def run(field):
        field.transport = scheme
        test(field)
    run.__name__ = test.__name__ + "_over_" + scheme
    return run


node.main(*(over(scheme, test) for test in (
    it_pulls_and_pushes, it_hears_what_comes_later_and_stays_while_idle,
    it_comes_back_and_carries_what_it_holds, it_takes_every_branch_of_a_fork,
    it_is_told_what_is_refused, it_is_a_program) for scheme in ("ws", "http")),
          what_does_not_fit_its_hash_or_its_chain_is_refused,
          hashes_and_digests_are_those_of_the_vectors)
