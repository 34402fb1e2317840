"""Items 8 and 10: a flipped bit is found and never sent on; durable means durable; and whatever is
damaged in the files of a folder is named or mended, by commands that come to their end."""

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


PAGE = 4096


class Folder:
    """A stopped node's data folder with something in each of its parts, to be damaged again and
    again; small, so that most of its pages hold something that counts."""

    def __init__(self, field):
        self.field = field
        self.node = field.node("a").start()
        lines = list(node.operations(600, documents=30, bytes_=100))
        lines[300]["input"] = {"large": "x" * 9000}  # a value of several pages
        self.node.import_file("c", field.file("in.jsonl", lines))
        self.node.run("-q", "peer", "add", "nobody", "ws://127.0.0.1:1/tandem")
        self.node.run("-q", "peer", "pause", "nobody")
        self.node.end()
        self.whole = self.node.data + ".whole"
        shutil.copytree(self.node.data, self.whole)
        self.digest = self.node.digest()

    def path(self, part):
        return os.path.join(self.node.data, part, "data.mdb")

    def mend(self):
        shutil.rmtree(self.node.data)
        shutil.copytree(self.whole, self.node.data)

    def ends(self, *args, codes=(0, 8)):
        """Run a command, which comes to its end with one of codes."""
        result = self.node.run(*args, code=None)
        check(result.code in codes, "`%s`: exit %d" % (" ".join(args), result.code), result.out,
              result.err)
        if result.code == 8:
            check("TANDEM_E_" in result.err, "no error is named", result.err)
        return result

    def verify(self, codes=(0, 8)):
        result = self.ends("verify", codes=codes)
        check(result.code == 0 or result.out.strip() or "cannot be used: " in result.err or
              "operations are gone" in result.err, "verify names nothing", result.err)
        return result

    def check_digest(self, codes=(0, 8)):
        """It is right, or there is none."""
        result = self.ends("--json", "digest", codes=codes)
        check(result.code == 8 or result.lines() == self.digest, "the digest is wrong", result.out)


def a_file_that_was_cut_is_named_or_built_anew(field):
    folder = Folder(field)
    for part in ("store", "index", "sync"):
        size = os.path.getsize(folder.path(part))
        for cut in (1, 100, PAGE, 2 * PAGE, size // 2 // PAGE * PAGE, size - PAGE, size - 1):
            folder.mend()
            os.truncate(folder.path(part), cut)
            if part == "index":  # the first to need it builds it anew, or verify says so and does
                if cut % (2 * PAGE):
                    check("index" in folder.verify(codes=(0, 8)).out or cut >= size - PAGE,
                          "verify does not name the index")
                folder.check_digest(codes=(0,))
                folder.verify(codes=(0,))
                continue
            folder.verify(codes=(8,) if cut <= size // 2 else (0, 8))
            if part == "store":
                for command in (("doc", "ls", "c"), ("status",), ("serve", "--listen",
                                                                  "127.0.0.1:0")):
                    if cut <= size // 2:
                        folder.ends(*command, codes=(8,))
                folder.check_digest()
            elif cut <= size // 2:
                folder.ends("status", codes=(8,))
                result = folder.ends("peer", "ls", codes=(8,))
                check("sync/" in result.err, "it does not say what to do", result.err)
                folder.check_digest(codes=(0,))


def operations_that_are_gone_are_no_new_store(field):
    folder = Folder(field)
    for lose in (lambda: os.truncate(folder.path("store"), 0),
                 lambda: os.remove(folder.path("store")),
                 lambda: shutil.rmtree(os.path.dirname(folder.path("store")))):
        folder.mend()
        lose()
        for command in (("digest",), ("status",), ("verify",), ("op", "append", "c", "d", "--model",
                        "kv", "--type", "SET", "--input", "{}")):
            folder.ends(*command, codes=(8,))
        check(not os.path.exists(folder.path("store")) or
              os.path.getsize(folder.path("store")) == 0, "a new store was made")


def random_flips_are_named_or_mended(field):
    """Per kind of page: its header, its list of entries, the entries. The process that first meets
    damaged pages of LMDB's may end at them; one that reads all and so looks first, or comes after
    it, does not."""
    folder = Folder(field)
    found = 0
    for part in ("store", "index", "sync"):
        with open(folder.path(part), "rb") as file:
            whole = file.read()
        kinds = {}
        for page in range(len(whole) // PAGE):
            kinds.setdefault(whole[page * PAGE + 10], []).append(page)
        for kind, pages in sorted(kinds.items()):
            for i in range(field.size(4, 40)):
                folder.mend()
                at = field.random.choice(pages) * PAGE + field.random.choice((
                    field.random.randrange(16), field.random.randrange(16, 160),
                    field.random.randrange(PAGE)))
                bit = field.random.randrange(8)
                with open(folder.path(part), "r+b") as file:
                    file.seek(at)
                    file.write(bytes([whole[at] ^ 1 << bit]))
                try:
                    if i % 2:
                        code = folder.node.run("doc", "ls", "c", code=None).code
                        check(code in (0, 8, -6, -7, -11) or field.sanitized,
                              "the first command: exit %d" % code)
                        folder.ends("doc", "ls", "c")
                    if i % 3:
                        folder.check_digest()
                    result = folder.verify()
                    found += result.code == 8
                    folder.check_digest(codes=(0,) if part != "store" else (0, 8))
                    if part == "index":
                        folder.verify(codes=(0,))
                except node.Failure:
                    field.say("bit %d of byte %d of %s" % (bit, at, part))
                    raise
    field.say("%d flips were told by verify" % found)
    check(found >= 3, "verify finds next to nothing")


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
          a_file_that_was_cut_is_named_or_built_anew,
          operations_that_are_gone_are_no_new_store,
          random_flips_are_named_or_mended,
          a_hundred_appends_flush_a_hundred_times)
