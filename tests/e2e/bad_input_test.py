"""Item 9, the local half: bad input, folders and disks get an error of their own and lose nothing."""

import ctypes
import json
import os
import resource
import subprocess

import node
from node import check


def refused(result, code, *names):
    check(result.code == code, "exit %s, not %s" % (result.code, code), result.out, result.err)
    check(any("TANDEM_E_" + name in result.err for name in names),
          "not the error %s" % " or ".join(names), result.err)


def bad_lines_and_operations_have_their_own_errors(field):
    a = field.node("a").start()
    good = list(node.operations(2500))
    broken = [json.dumps(line) for line in good]
    broken[1700] = broken[1700][:-5]
    result = a.run("import", "c", field.file("in.jsonl", broken), code=None)
    refused(result, 3, "INPUT")
    check("line 1701: " in result.err and "lines 1-1000 kept" in result.err, "not the line",
          result.err)
    rows = a.json("op", "ls", "c")
    check(sum(row["type"] == "kv.SET" for row in rows) == 1000, "not 1,000 lines are kept")

    result = a.run("import", "c", field.file("in.jsonl", [broken[1700]]), code=None)
    refused(result, 1, "INPUT")

    large = {"document": "d", "model": "kv", "type": "SET", "input": {"k": "x" * 300000}}
    result = a.run("import", "c", field.file("in.jsonl", good[:10] + [large]), code=None)
    refused(result, 1, "LIMIT")
    check("line 11" in result.err, "not the line", result.err)
    a.append("c", "d", "kv", "SET", {"k": "x" * 100000})
    result = a.run("op", "append", "c", "d", "--type", "SET", "--input", "-",
                   stdin=json.dumps({"k": "x" * 300000}), code=None)
    refused(result, 2, "LIMIT")

    result = a.append("c", "other", "nonsense", "SET", {"a": 1}, code=None)
    check(result.code in (2, 4), "unknown model: exit %d" % result.code, result.err)
    check("TANDEM_E_" in result.err and "nonsense" in result.err, "the error names nothing",
          result.err)
    result = a.run("import", "c", field.file("in.jsonl", [dict(good[0], model="nonsense",
                                                              document="other")]), code=None)
    check(result.code == 1 and "line 1" in result.err, "unknown model: exit %d" % result.code,
          result.err)

    # Deep and wide: what a bounded reader of a payload would refuse is refused before it exists.
    deep = "[" * 40 + "]" * 40
    wide = json.dumps(list(range(70000)))
    for text in (deep, wide):
        result = a.run("op", "append", "c", "bomb", "--model", "log", "--type", "APPEND",
                       "--input", "-", stdin=text, code=None)
        refused(result, 2, "LIMIT", "INPUT", "PAYLOAD")

    b = field.node("b").start()
    a.peer(b)
    a.wait(b)
    field.settle(a, b)
    a.verify()


def a_folder_in_use_is_exit_6(field):
    a = field.node("a").start()
    a.append("c", "d", "counter", "ADD", 1)
    refused(field.run("serve", "--data", a.data, "--listen", "127.0.0.1:0", code=None), 6,
            "LOCKED")
    # Without its socket nobody can be asked: the lock tells.
    os.rename(os.path.join(a.data, "admin.sock"), os.path.join(field.folder, "away"))
    refused(a.run("--timeout", "0.5", "doc", "ls", "c", code=None), 6, "LOCKED")
    os.rename(os.path.join(field.folder, "away"), os.path.join(a.data, "admin.sock"))
    a.append("c", "d", "counter", "ADD", 1)


# ---- A store of a newer format ----

class Value(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("data", ctypes.c_void_p)]

    @classmethod
    def of(cls, bytes_):
        value = cls(len(bytes_), ctypes.cast(ctypes.c_char_p(bytes_), ctypes.c_void_p))
        value.kept = bytes_
        return value

    def bytes(self):
        return ctypes.string_at(self.data, self.size)


def checksum(table, key, body):
    """store/FORMAT.md, part 2."""
    xxhash = ctypes.CDLL("libxxhash.so.0")
    xxhash.XXH3_64bits_withSeed.restype = ctypes.c_uint64
    xxhash.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
    seed = xxhash.XXH3_64bits_withSeed(key, len(key), table)
    return xxhash.XXH3_64bits_withSeed(body, len(body), seed).to_bytes(8, "big")


META = 5


def rewrite_format(store, body):
    """Put another body at meta `format` of a stopped store; returns the one before."""
    lmdb = ctypes.CDLL("liblmdb.so.0")
    os.remove(os.path.join(store, "closed"))  # what is written here is no damage

    def do(name, *args):
        failed = getattr(lmdb, name)(*args)
        check(failed == 0, "%s: %d" % (name, failed))

    env, txn, old, key = (ctypes.c_void_p(), ctypes.c_void_p(), Value(), Value.of(b"format"))
    dbi = ctypes.c_uint()
    do("mdb_env_create", ctypes.byref(env))
    do("mdb_env_set_maxdbs", env, ctypes.c_uint(16))
    do("mdb_env_open", env, store.encode(), ctypes.c_uint(0), ctypes.c_uint(0o600))
    do("mdb_txn_begin", env, None, ctypes.c_uint(0), ctypes.byref(txn))
    do("mdb_dbi_open", txn, b"meta", ctypes.c_uint(0), ctypes.byref(dbi))
    do("mdb_get", txn, dbi, ctypes.byref(key), ctypes.byref(old))
    before = old.bytes()
    check(before[:8] == checksum(META, b"format", before[8:]), "FORMAT.md's checksum is another",
          before.hex())
    value = Value.of(checksum(META, b"format", body) + body)
    do("mdb_put", txn, dbi, ctypes.byref(key), ctypes.byref(value), ctypes.c_uint(0))
    do("mdb_txn_commit", txn)
    lmdb.mdb_env_close(env)
    return before[8:]


def a_folder_of_a_newer_format_is_left_alone(field):
    a = field.node("a").start()
    a.append("c", "d", "counter", "ADD", 1)
    digest = a.digest()
    a.end()
    store = os.path.join(a.data, "store")
    now = rewrite_format(store, (2).to_bytes(4, "big") + b"more")
    check(now == (1).to_bytes(4, "big"), "the format's version is stored otherwise", now)
    with open(os.path.join(store, "data.mdb"), "rb") as file:
        bytes_ = file.read()
    for args in (("doc", "ls", "c"), ("op", "append", "c", "d", "--type", "ADD", "--input", "1"),
                 ("verify",), ("serve", "--listen", "127.0.0.1:0")):
        result = a.run(*args, code=None)
        check(result.code not in (0, None), "%s succeeded" % args[0])
        check("TANDEM_E_FORMAT_NEWER" in result.err, "%s: not the error" % args[0], result.err)
    with open(os.path.join(store, "data.mdb"), "rb") as file:
        check(file.read() == bytes_, "the store was touched")
    rewrite_format(store, now)
    a.start()
    check(a.digest() == digest, "something was lost")


# ---- A full disk ----

class SmallDisk:
    """16 MiB for a data folder: a tmpfs of its own, or where that is not permitted, a limit on the
    size of the node's files, which fails its writes likewise."""

    def __init__(self, field, target, limit=False):
        self.target, self.filler = target, os.path.join(target.data, "..", "filler")
        os.mkdir(os.path.join(field.folder, "disk"))
        self.mounted = not limit and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tandem-e2e",
             os.path.join(field.folder, "disk")], stderr=subprocess.DEVNULL).returncode == 0
        target.data = os.path.join(field.folder, "disk", "data")
        self.filler = os.path.join(field.folder, "disk", "filler")
        if self.mounted:
            field.at_end.append(lambda: subprocess.run(
                ["umount", "-l", os.path.join(field.folder, "disk")], check=True))
        field.say("the small disk is " + ("a tmpfs" if self.mounted else "a limit on file size"))

    def prefix(self):
        """What a write beyond the limit must not do is kill."""
        return () if self.mounted else ("env", "--ignore-signal=XFSZ")

    def fill(self, room=0):
        """Fill it up, but for so many bytes."""
        if not self.mounted:
            size = max(os.path.getsize(os.path.join(self.target.data, part, "data.mdb"))
                       for part in ("store", "index", "sync"))
            resource.prlimit(self.target.process.pid, resource.RLIMIT_FSIZE,
                             (size + room, resource.RLIM_INFINITY))
            return
        with open(self.filler, "ab", buffering=0) as filler:
            try:
                while filler.write(b"x" * 4096):
                    pass
            except OSError:
                filler.truncate(max(filler.tell() - room, 0))

    def heal(self):
        if self.mounted:
            os.remove(self.filler)
        else:
            resource.prlimit(self.target.process.pid, resource.RLIMIT_FSIZE,
                             (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def a_full_disk_stops_writes_and_heals(field, limit=False):
    a = field.node("a")
    disk = SmallDisk(field, a, limit)
    a.start(prefix=disk.prefix())
    a.import_file("c", field.file("in.jsonl", node.operations(1000)))
    disk.fill(room=256 * 1024)
    kept = []
    refusal = None
    for i in range(3000):
        result = a.append("c", "full", "kv", "SET", {"k%d" % i: "x" * 2000}, code=None)
        if result.code != 0:
            refusal = result
            break
        kept.append("k%d" % i)
    check(refusal is not None, "the disk never got full")
    check("TANDEM_E_STORE_FULL" in refusal.err, "not the error", refusal.err)
    field.say("exit %d: %s" % (refusal.code, refusal.err.strip()))
    check(a.is_running(), "the node died", a.log())
    status = a.status()
    check("FULL" in json.dumps(status["store"]).upper(), "status does not show it", status["store"])
    result = a.run("import", "c", field.file("in.jsonl", node.operations(3000)), code=None)
    check(result.code not in (0, None) and "TANDEM_E_STORE_FULL" in result.err,
          "an import on a full disk: exit %d" % result.code, result.err)
    # Reading goes on.
    check(len(a.json("op", "ls", "c", timeout=60)) >= 1100, "reading failed")
    disk.heal()

    def healed():
        return a.append("c", "after", "counter", "ADD", 1, code=None).code == 0
    field.until("it takes operations again", healed, every=0.2)
    status = a.status()
    check("FULL" not in json.dumps(status["store"]).upper(), "status still shows it",
          status["store"])
    shown, = a.json("doc", "show", "c", "full")
    check(sorted(shown["state"]) == sorted(kept), "what was answered is not what is held",
          len(shown["state"]), len(kept))
    a.verify()
    b = field.node("b").start()
    a.peer(b)
    a.wait(b)
    field.settle(a, b)
    b.verify()


def a_receiver_with_a_full_disk_catches_up_when_it_heals(field):
    a, b = field.node("a").start(), field.node("b")
    disk = SmallDisk(field, b)
    b.start(prefix=disk.prefix())
    a.peer(b)
    a.append("c", "d", "counter", "ADD", 1)
    a.wait(b)
    disk.fill()
    a.import_file("c", field.file("in.jsonl", node.operations(6000, bytes_=300)))
    a.append("c", "d", "counter", "ADD", 1)

    def told():
        row = a.remote("b")
        return row if row["state"] != "in_step" and row["lag_operations"] else None
    field.until("it lags", told)
    result = a.run("wait", "b", "--timeout", "2", code=None)
    check(result.code == 9, "wait: exit %d" % result.code, result.err)
    row = field.until("the sender says why", lambda: [
        row for row in [a.remote("b")] if row["state"] == "backing_off" and
        "STORE_FULL" in row["reason"]])[0]
    field.say("the sender says: %s, %s" % (row["state"], row["reason"]))
    check(a.is_running() and b.is_running(), "a node died", a.log(), b.log())
    check("FULL" in json.dumps(b.status()["store"]).upper(), "the receiver's status is silent",
          b.status()["store"])
    disk.heal()
    a.wait(b, timeout=90)
    field.settle(a, b)
    b.verify()


def a_node_on_a_full_disk_says_so_and_starts_when_there_is_room(field):
    a = field.node("a")
    disk = SmallDisk(field, a)
    if not disk.mounted:
        field.say("a limit on file size says nothing about starting; that needs a real disk")
        return
    disk.fill()
    result = field.run("serve", "--data", a.data, "--listen", "127.0.0.1:0", code=None)
    check(result.code > 0, "exit %d" % result.code, result.err)
    check("TANDEM_E_STORE_FULL" in result.err, "not the error", result.err)
    disk.heal()
    a.start()
    a.append("c", "d", "counter", "ADD", 1)
    digest = a.digest()
    a.end()
    disk.fill()
    # A store that is there: reading it needs no room, or says what it lacks. No crash.
    result = a.run("--json", "digest", code=None)
    check(result.code >= 0, "the reader died of signal %d" % -result.code)
    check(result.code == 0 or "TANDEM_E_STORE_FULL" in result.err, "not the error", result.err)
    disk.heal()
    check(a.digest() == digest, "something was lost")


def a_limit_on_file_size_stops_writes_and_heals(field):
    a_full_disk_stops_writes_and_heals(field, limit=True)


node.main(bad_lines_and_operations_have_their_own_errors,
          a_folder_in_use_is_exit_6,
          a_folder_of_a_newer_format_is_left_alone,
          a_full_disk_stops_writes_and_heals,
          a_limit_on_file_size_stops_writes_and_heals,
          a_receiver_with_a_full_disk_catches_up_when_it_heals,
          a_node_on_a_full_disk_says_so_and_starts_when_there_is_room)
