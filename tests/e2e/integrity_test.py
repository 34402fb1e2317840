"""Items 8 and 10: a flipped bit is found and never sent on; durable means durable."""

import os
import re
import shutil

import node
from node import check


def flip(field, target, text):
    """Flip one bit of a text wherever the store's file has it: LMDB may keep old copies of a page."""
    check(not target.is_running(), "the node must not run")
    path = os.path.join(target.data, "store", "data.mdb")
    with open(path, "rb") as store:
        bytes_ = store.read()
    places = [match.start() for match in re.finditer(re.escape(text.encode()), bytes_)]
    check(places, "the store's file does not hold `%s`" % text)
    at, bit = field.random.randrange(len(text)), 1 << field.random.randrange(8)
    with open(path, "r+b") as store:
        for place in places:
            store.seek(place + at)
            store.write(bytes([bytes_[place + at] ^ bit]))
    field.say("flipped bit %d of byte %d of `%s`, %d copies" % (bit, at, text, len(places)))


UNIQUE = "the-one-that-rots-7f3a"


def a_with_one_rotten_record(field):
    """A stopped node: collections apple, rotten (its record 50 of 100 is bad) and zebra."""
    a = field.node("a").start()
    for collection in ("apple", "rotten", "zebra"):
        lines = list(node.operations(100, documents=4, bytes_=64))
        if collection == "rotten":
            lines[50]["input"] = {"k": UNIQUE}
        a.import_file(collection, field.file("in.jsonl", lines))
    bad, = (row for row in a.json("op", "ls", "rotten") if row["input"] == {"k": UNIQUE})
    a.end()
    flip(field, a, UNIQUE)
    return a, bad


def check_verify_names(target, bad):
    result = target.run("--json", "verify", code=None)
    check(result.code == 8, "verify: exit %d" % result.code, result.out, result.err)
    check("TANDEM_E_CORRUPT" in result.err or "TANDEM_E_INTEGRITY" in result.err,
          "verify does not name its error", result.err)
    text = result.out + result.err
    check('"rotten"' in text or "rotten" in text, "verify does not name the collection", text)
    check(re.search(r"\b%d\b" % bad["ordinal"], text), "verify does not name the ordinal %d" %
          bad["ordinal"], text)


def a_flipped_bit_is_named_and_everything_else_flows(field):
    a, bad = a_with_one_rotten_record(field)
    check_verify_names(a, bad)
    b = field.node("b").start()
    a.start()
    check_verify_names(a, bad)
    b.append("rotten", "from-b", "kv", "SET", {"b": 1})
    a.peer(b)

    def held(target, collection):
        """Its digest, not that of all: see below."""
        result = target.run("--json", "digest", collection, code=None)
        return result.lines()[0] if result.code == 0 and result.out else None

    def equal(*collections):
        return all(held(a, name) == held(b, name) is not None for name in collections)

    field.until("the other collections are there, and status says quarantined", lambda: equal(
        "apple", "zebra") and a.status()["store"]["quarantined"] > 0)
    status = a.status()
    check(status["remotes"][0]["state"] == "blocked" and
          "CORRUPT" in status["remotes"][0]["reason"], "the remote's state does not say why", status)
    field.say("quarantined %d; %s" % (status["store"]["quarantined"],
                                      status["remotes"][0]["reason"]))
    # It goes on: both ways, all but what stands behind the bad record of that origin.
    a.append("zebra", "later", "kv", "SET", {"a": 2})
    b.append("rotten", "from-b", "kv", "SET", {"b": 2})
    b.append("new", "from-b", "kv", "SET", {"b": 3})
    a.append("rotten", "d0", "kv", "SET", {"behind": 1})
    field.until("what is written later flows", lambda: equal("apple", "zebra", "new"))
    field.until("what the peer writes in that collection comes", lambda: len(
        [row for row in a.json("op", "ls", "rotten", "from-b", code=None)]) == 3)
    rows = b.json("op", "ls", "rotten")
    from_a = [row["seq"] for row in rows if row["origin"] == bad["origin"]]
    check(bad["seq"] not in from_a, "the bad record was sent")
    check(from_a == list(range(1, len(from_a) + 1)), "there is a gap", from_a)
    field.say("of %d operations before the bad one the peer holds %d" % (bad["seq"] - 1,
                                                                       len(from_a)))
    check(len(from_a) == bad["seq"] - 1, "what stands before the bad record did not all flow")
    b.verify()
    # The barrier tells that it will not be met, and with what.
    result = a.run("--json", "wait", "b", "--timeout", "10", code=None)
    check(result.code == 3, "wait over a blocked origin: exit %d" % result.code, result.out,
          result.err)
    check(a.is_running() and b.is_running(), "a node died", a.log(), b.log())
    # A digest of all tells what it can, and that something is wrong.
    result = a.run("--json", "digest", code=None)
    check(result.code == 8, "digest: exit %d" % result.code, result.out, result.err)
    shown = [row["collection"] for row in result.lines()]
    check({"apple", "new", "zebra"} <= set(shown), "digest leaves out what is whole", shown)


def what_a_rotten_store_lacks_comes_from_another_peer(field):
    """C holds all of A's operations whole; B, connected to rotten A and to C, gets them from C."""
    a = field.node("a").start()
    c = field.node("c").start()
    lines = list(node.operations(100, documents=4, bytes_=64))
    lines[50]["input"] = {"k": UNIQUE}
    a.import_file("rotten", field.file("in.jsonl", lines))
    a.peer(c)
    a.wait(c)
    whole = a.digest()
    a.run("-q", "peer", "rm", "c")
    a.end()
    flip(field, a, UNIQUE)
    a.start()
    b = field.node("b").start()
    b.peer(a)
    b.peer(c)
    field.until("the whole collection has come round the bad record",
                lambda: b.vectors() == {"rotten": whole[0]["vector_digest"]})
    check(b.digest() == whole, "the states differ", b.digest(), whole)
    b.verify()


def a_hundred_appends_flush_a_hundred_times(field):
    """Counted by the kernel's own tracer: each answer stands behind a flush of the device."""
    strace = shutil.which("strace")
    check(strace, "strace is needed for this test and is not installed")
    if field.sanitized:  # LeakSanitizer is a tracer itself, and there can be only one
        strace_ = ("env", "ASAN_OPTIONS=detect_leaks=0", strace)
    else:
        strace_ = (strace,)
    a = field.node("a")
    table = os.path.join(field.folder, "strace.out")
    a.start(prefix=(*strace_, "-f", "-o", table, "-e", "trace=fdatasync,fsync,msync"))

    def flushes():
        with open(table, encoding="utf-8", errors="replace") as out:
            return len(re.findall(r"\b(?:fdatasync|fsync|msync)\(.*= 0|resumed>.*= 0", out.read()))
    a.append("c", "d", "counter", "ADD", 1)
    before = flushes()
    for _ in range(100):
        was = flushes()
        a.append("c", "d", "counter", "ADD", 1)
        # strace writes its line before the call returns to the node: it stands there by now.
        check(flushes() > was, "an append was answered before its flush")
    made = flushes() - before
    field.say("100 appends, %d flushes on the node" % made)
    check(made >= 100, "only %d flushes" % made)
    # The process is strace: signals go to the node under it.
    with open("/proc/%d/task/%d/children" % (a.process.pid, a.process.pid),
              encoding="ascii") as children:
        child = int(children.read().split()[0])
    os.kill(child, 15)
    a.end(0)

    # The same on the stopped store: one process an append.
    os.remove(table)
    for i in range(field.size(10, 100)):
        result = field.run("--data", a.data, "-q", "op", "append", "c", "d", "--type", "ADD",
                           "--input", "1",
                           prefix=(*strace_, "-f", "-o", table, "-e",
                                   "trace=fdatasync,fsync,msync"))
        check(flushes() >= 1, "append %d on the stopped store was not flushed" % i, result.err)


node.main(a_flipped_bit_is_named_and_everything_else_flows,
          what_a_rotten_store_lacks_comes_from_another_peer,
          a_hundred_appends_flush_a_hundred_times)
