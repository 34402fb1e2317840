"""backup, restore, clone: on real nodes while they work, and on everything that may be wrong."""

import json
import os
import re
import signal
import stat
import subprocess
import threading
import time

import node
from node import check


def backup(target, path, *args, code=0):
    return target.run("--json", "backup", path, *args, code=code)


def restore(field, path, name, *args, code=0, stdin=None):
    """Restore into a new folder; returns (the node that it is, what was printed)."""
    made = field.node(name)
    result = made.run("--json", "restore", path, *args, code=code, stdin=stdin)
    if code:
        check(not os.path.exists(made.data), "a failed restore left its folder", result.err)
        check(not os.path.exists(made.data + ".restoring"), "a failed restore left something")
    return made, (result.lines() or [None])[0], result


def small(field, name="small"):
    """A stopped node with a few of everything."""
    made = field.node(name)
    made.append("notes", "first", "kv", "SET", {"title": "Hello", "n": [1, 2.5, None]})
    made.append("notes", "second", "log", "APPEND", "x" * 300)
    made.append("counts", "all", "counter", "ADD", 5)
    made.run("doc", "delete", "notes", "second")
    made.run("-q", "peer", "add", "bob", "ws://127.0.0.1:9/tandem")
    return made


class Importing(threading.Thread):
    """An import into a running node that goes on until it is told to end."""

    def __init__(self, field, target):
        super().__init__(daemon=True)
        self.process = subprocess.Popen([field.tandem, "--data", target.data, "-q", "import", "c"],
                                        stdin=subprocess.PIPE, env=node.environment())
        field.processes.append(self.process)
        self.ending = threading.Event()
        self.start()

    def run(self):
        for row in node.operations(1 << 40):
            if self.ending.is_set():
                break
            self.process.stdin.write(json.dumps(row).encode() + b"\n")
        self.process.stdin.close()

    def end(self):
        self.ending.set()
        self.join()
        check(self.process.wait(node.DEADLINE_S) == 0, "the import failed")


def a_backup_of_a_busy_node_is_restored_and_syncs_on(field):
    count = field.size(5000, 500000)
    a = field.node("a").start()
    a.append("counts", "all", "counter", "ADD", 1)
    path = os.path.join(field.folder, "hot")
    importing = Importing(field, a)
    field.until("some of it is there", lambda: a.status()["store"]["operations"] > count,
                timeout=600)
    info, = backup(a, path).lines()
    importing.end()
    check(stat.S_IMODE(os.stat(path).st_mode) == 0o600, "the backup is not its owner's alone")
    check(info["file"] == path and info["bytes"] == os.path.getsize(path), "it tells else", info)
    field.say("%d of %d operations at the backup" %
              (info["operations"], a.status()["store"]["operations"]))

    b, made, _ = restore(field, path, "b")
    was, is_ = a.status(), b.status()
    check(made["from"] == {k: was[k] for k in ("reactor", "origin")}, "from somebody else", made)
    check(made["reactor"] == is_["reactor"] != was["reactor"], "the reactor id is no new one", made)
    check(made["origin"] == is_["origin"] != was["origin"], "the origin is no new one", made)
    check(made["operations"] == info["operations"] == is_["store"]["operations"] ==
          info["ordinal"], "not all up to the ordinal", made, info)
    b.verify()

    # Both went on before they meet.
    a.append("counts", "all", "counter", "ADD", 10)
    b.append("counts", "all", "counter", "ADD", 100)
    lacking = a.status()["store"]["operations"] - info["operations"]
    b.start()
    b.peer(a)
    field.settle(a, b)
    row = b.remote("a")
    check(row["received_operations"] == lacking and row["duplicate_operations"] == 0 and
          row["sent_operations"] == 1, "other things went over than the lacking ones", row)
    for one in (a, b):
        shown, = one.json("doc", "show", "counts", "all")
        check(shown["state"] == 111, "the counter shows %r" % shown["state"])
        forked = [text for text in one.log().splitlines() if "fork" in text]
        check(not forked, "%s tells of a fork" % one.name, *forked)
        check(one.status()["origin"] == {"a": was, "b": is_}[one.name]["origin"],
              "%s took a new origin" % one.name)
    check(b.remote("a")["state"] != "paused", "a peer that was added is not paused")
    field.check_memory(a, b)


def a_stopped_store_and_a_running_node_give_the_same(field):
    a = small(field, "a")
    path = os.path.join(field.folder, "file")
    stopped, = backup(a, path).lines()
    again = backup(a, path, code=6)
    check("TANDEM_E_EXISTS" in again.err and "-y" in again.err, "it does not say why", again.err)
    a.start()
    running, = backup(a, path, "-y").lines()
    piped = subprocess.run([field.tandem, "--data", a.data, "backup", "-"], check=True,
                           stdout=subprocess.PIPE, env=node.environment()).stdout
    for row in (stopped, running):
        row.pop("taken_at")
    check(stopped == running, "they differ", stopped, running)
    check(len(piped) == running["bytes"], "stdout has other bytes")
    digest = a.digest()

    b, made, _ = restore(field, path, "b")
    c, _, _ = restore(field, "-", "c", stdin=piped)
    d = field.node("d")
    cloned, = d.json("clone", a.data)
    a.end()
    e = field.node("e")
    e.run("clone", a.data)
    check(made["operations"] == cloned["operations"] == running["operations"], "counts differ")
    check(set(made) == set(cloned), "clone tells other things", made, cloned)
    origins = set()
    for copy in (b, c, d, e):
        check(copy.digest() == digest, "%s holds something else" % copy.name, copy.digest())
        check(copy.json("doc", "show", "notes", "first")[0]["state"]["title"] == "Hello", "no note")
        copy.start()
        row = copy.remote("bob")
        check(row["url"] == "ws://127.0.0.1:9/tandem" and row["state"] == "paused",
              "bob did not come back paused", row)
        origins.add(copy.status()["origin"])
        incarnation = copy.status()["incarnation"]
        check((incarnation["number"], incarnation["reason"]) ==
              (1, "restored" if copy in (b, c) else "cloned"), "not how it came to be", incarnation)
    check(len(origins) == 4, "copies share an origin")
    for path in (a.data, b.data):
        taken = field.run("--data", path, "clone", e.data, code=6)
        check("TANDEM_E_EXISTS" in taken.err, "not what EXISTS says", taken.err)


def nothing_is_done_where_that_is_asked(field):
    a = small(field, "a")
    path = os.path.join(field.folder, "file")
    a.run("backup", path, "-n")
    check(not os.path.exists(path), "a dry run wrote")
    backup(a, path)
    b = field.node("b")
    told, = b.json("restore", path, "--dry-run")
    check(told["operations"] == 7 and told["origin"] is None, "a dry run tells else", told)
    b.run("clone", a.data, "-n")
    check(not os.path.exists(b.data), "a dry run made something")
    # The wrong things in the wrong places.
    for args, code in ((("backup", os.path.join(field.folder, "no", "where")), 4),
                       (("backup", field.folder, "-y"), 2), (("backup", path + "/x"), 2),
                       (("backup",), 2), (("restore", "nothing-here"), 4),
                       (("clone", "nothing-here", "--node", "unix:x"), 2)):
        result = (a if args[0] == "backup" else b).run(*args, code=code)
        check(result.err.count("\n") == 1, "not one sentence", result.err)
    b.run("clone", os.path.join(field.folder, "nothing"), code=4)
    before = sorted(os.listdir(a.data))
    for inside in ("inside", "x/y/inside", "../a/inside"):
        for more in ((), ("-n",)):
            result = field.run("--data", os.path.join(a.data, inside), "clone", a.data, *more, code=2)
            check("TANDEM_E_INVALID" in result.err and "inside of" in result.err, "not why", result.err)
    check(sorted(os.listdir(a.data)) == before, "something was made inside", os.listdir(a.data))
    check(sorted(os.listdir(field.folder)) == ["a", "file"], "something was left",
          os.listdir(field.folder))


def a_damaged_backup_is_refused(field):
    path = os.path.join(field.folder, "file")
    backup(small(field), path)
    with open(path, "rb") as whole:
        good = whole.read()
    for _ in range(field.size(3, 200)):
        cut = field.random.randrange(8, len(good))
        _, _, result = restore(field, "-", "cut%d" % cut, stdin=good[:cut], code=8)
        check("TANDEM_E_CORRUPT" in result.err, "cut at %d" % cut, result.err)
        at, bit = field.random.randrange(8, len(good)), 1 << field.random.randrange(8)
        bad = bytearray(good)
        bad[at] ^= bit
        _, _, result = restore(field, "-", "bad%d" % at, stdin=bytes(bad), code=8)
        check("TANDEM_E_CORRUPT" in result.err, "flipped bit %d of byte %d" % (bit, at), result.err)
    restore(field, "-", "longer", stdin=good + b"\0", code=8)
    _, _, result = restore(field, "-", "text", stdin=b"not a backup\n", code=8)
    check("TANDEM_E_FORMAT" in result.err, "what is no backup", result.err)
    restore(field, "-", "empty", stdin=b"", code=8)
    restore(field, "-", "good", stdin=good)


def a_damaged_store_has_no_backup(field):
    a = field.node("a")
    unique = "the-one-that-rots"
    for i in range(5):
        a.append("c", "d", "kv", "SET", {"k": unique if i == 2 else i})
    path = os.path.join(field.folder, "file")
    backup(a, path)
    with open(path, "rb") as whole:
        good = whole.read()
    store = os.path.join(a.data, "store", "data.mdb")
    with open(store, "r+b") as bytes_:
        for match in re.finditer(unique.encode(), bytes_.read()):
            bytes_.seek(match.start())
            bytes_.write(b"T")
    for _ in ("stopped", "running"):
        result = backup(a, path, "-y", code=8)
        check("TANDEM_E_CORRUPT" in result.err and "ordinal 4" in result.err,
              "it does not name the record", result.err)
        with open(path, "rb") as whole:
            check(whole.read() == good, "the backup that there was is gone")
        b = field.node("b")
        result = b.run("clone", a.data, code=8)
        check(not os.path.exists(b.data), "a clone of a damaged store", result.err)
        if not a.is_running():
            a.start()
    check(sorted(os.listdir(field.folder)) == ["a", "a.log", "file"], "something was left",
          os.listdir(field.folder))


def half_fed(field, name, bytes_):
    """A restore that was given the first half of a backup, and waits for more."""
    made = field.node(name)
    process = subprocess.Popen([field.tandem, "--data", made.data, "restore", "-"],
                               stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, env=node.environment())
    field.processes.append(process)
    process.stdin.write(bytes_[:len(bytes_) // 2])
    process.stdin.flush()
    working = made.data + ".restoring"
    field.until("it has begun", lambda: os.path.exists(os.path.join(working, "store", "data.mdb"))
                and os.path.exists(os.path.join(working, "index", "data.mdb")))
    return made, process


def end(process):
    process.stdin.close()
    process.stderr.close()
    return process.wait(node.DEADLINE_S)


def a_restore_that_is_killed_leaves_no_store(field):
    a = field.node("a")
    a.import_file("c", field.file("in.jsonl", node.operations(field.size(4000, 200000))))
    path = os.path.join(field.folder, "file")
    backup(a, path)
    with open(path, "rb") as whole:
        good = whole.read()
    for i in range(field.size(1, 20)):
        b, process = half_fed(field, "b%d" % i, good)
        time.sleep(field.random.random() / 20)  # anywhere in it
        process.send_signal(signal.SIGKILL)
        check(end(process) == -signal.SIGKILL, "it ended before")
        check(not os.path.exists(b.data), "a store that looks whole")
        b.run("status", code=4)
        b.run("-q", "restore", path)
        check(b.digest() == a.digest(), "it is something else")
    for number in (signal.SIGTERM, signal.SIGINT):
        b, process = half_fed(field, "s%d" % number, good)
        process.send_signal(number)
        check(end(process) == 128 + number, "not the exit code of signal %d" % number)
        check(not os.path.exists(b.data) and not os.path.exists(b.data + ".restoring"),
              "something was left")


def a_backup_that_is_broken_off_leaves_no_file(field):
    a = small(field, "a").start()
    path = os.path.join(field.folder, "file")
    a.freeze()
    process = subprocess.Popen([field.tandem, "--data", a.data, "backup", path],
                               stderr=subprocess.PIPE, env=node.environment())
    field.processes.append(process)
    field.until("it has begun", lambda: [n for n in os.listdir(field.folder) if "file." in n])
    process.send_signal(signal.SIGTERM)
    code = process.wait(node.DEADLINE_S)
    process.stderr.close()
    check(code == 143, "exit %d" % code)
    a.thaw()
    left = [name for name in os.listdir(field.folder) if name.startswith("file")]
    check(not left, "something was left", left)


def a_node_that_is_killed_takes_the_backup_with_it(field):
    a = field.node("a")
    a.import_file("c", field.file("in.jsonl", node.operations(8000, bytes_=512)))
    a.start()
    process = subprocess.Popen([field.tandem, "--data", a.data, "backup", "-"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=node.environment())
    field.processes.append(process)
    got = process.stdout.read(100000)  # the node has more than all buffers take
    a.kill()
    got += process.stdout.read()
    code = process.wait(node.DEADLINE_S)
    err = process.stderr.read().decode()
    process.stdout.close()
    process.stderr.close()
    check(code == 5, "exit %d" % code, err)
    restore(field, "-", "half", stdin=got, code=8)


def memory_does_not_grow_with_the_backup(field):
    count = field.size(12000, 2000000)
    a = field.node("a")
    a.import_file("c", field.file("in.jsonl", node.operations(count, documents=2000, bytes_=256)))
    a.start()
    path = os.path.join(field.folder, "file")
    backup(a, path)
    field.say("%.1f MiB" % (os.path.getsize(path) / node.MIB))
    field.check_memory(a)
    for name, args in (("backup", ("--data", a.data, "backup", path, "-y")),
                       ("restore", ("--data", a.data + "-2", "restore", path))):
        process = subprocess.Popen([field.tandem, *args, "-q"], env=node.environment())
        field.processes.append(process)
        memory = node.Memory(process.pid)
        memory.start()
        check(process.wait(1800) == 0, name + " failed")
        memory.stop()
        field.say("RssAnon of %s: at most %.1f MiB" % (name, memory.peak / node.MIB))
        check(field.sanitized or memory.peak < node.RSS_ANON_MAX, name + " takes too much memory")


if __name__ == "__main__":
    node.main(a_backup_of_a_busy_node_is_restored_and_syncs_on,
              a_stopped_store_and_a_running_node_give_the_same,
              nothing_is_done_where_that_is_asked, a_damaged_backup_is_refused,
              a_damaged_store_has_no_backup, a_restore_that_is_killed_leaves_no_store,
              a_backup_that_is_broken_off_leaves_no_file,
              a_node_that_is_killed_takes_the_backup_with_it,
              memory_does_not_grow_with_the_backup)
