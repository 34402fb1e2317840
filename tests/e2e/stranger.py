#!/usr/bin/env python3
"""A stranger's client: the protocol, written from transport/PROTOCOL.md and store/FORMAT.md alone.

It shares no line with the program, so it shows whether those two pages suffice and whether the node
keeps to them: a reactor of some hundred lines of python3 that speaks WebSocket, checks canonical
bytes, hashes and chains, keeps a journal, announces, asks, answers and acknowledges.

    stranger.py PATH-OF-TANDEM [STAGE]...

runs its stages against real nodes. The library part knows nothing of the test part.
"""

import base64
import hashlib
import json
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque

MESSAGE_BYTES_MAX = 1 << 20
LEVELS_MAX = 16
VALUES_MAX = 65536
OPERATION_BYTES_MAX = 262144
JOB_BYTES_MAX = 524288
JOB_OPERATIONS_MAX = 1000
HEADS_MAX = 8
MESSAGE_BYTES_LEAST = 540672
BATCH_BYTES = 32768
CLOCK_AHEAD_MAX = 5 * 60 * 1000 << 16
HEARTBEAT_S = 10
SILENCE_S = 30
GRACE_S = 3

HELLO, HAVE, JOBS, ACK, PULL, COMMAND, ERROR, COVER, PACKED = range(1, 10)

ERRORS = {"PREDECESSOR": -2, "PROTOCOL": -3, "CHANNEL_NETWORK": -4, "CLOSED": -15, "TIMEOUT": -16,
          "LIMIT": -18, "PAYLOAD": -22, "UNSUPPORTED": -23, "VERSION": -27, "QUARANTINED": -28,
          "CLOCK": -29, "SELF": -30, "CHAIN": -31, "DUPLICATE_SESSION": -34}


def B(*parts):
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


class Breach(Exception):
    """Bytes that break the pages; `error` is the number to answer with."""

    def __init__(self, name, why):
        super().__init__("%s: %s" % (name, why))
        self.error = ERRORS[name]


# ---- msgpack ----

class Long(list):
    """A list that is written with an array 32 header, as the reference implementation does."""


class Array(list):
    """A list that was read; `data` is what it was read from."""


class Extension(bytes):
    pass


def pack(value):
    kind = type(value)
    if value is None:
        return b"\xc0"
    if kind is bool:
        return b"\xc3" if value else b"\xc2"
    if kind is float:
        return b"\xcb" + struct.pack(">d", value)
    if kind is int:
        if value >= 0:
            if value < 0x80:
                return bytes([value])
            for tag, form, bits in (0xcc, ">B", 8), (0xcd, ">H", 16), (0xce, ">I", 32):
                if value < 1 << bits:
                    return bytes([tag]) + struct.pack(form, value)
            return b"\xcf" + struct.pack(">Q", value)
        if value >= -32:
            return struct.pack(">b", value)
        for tag, form, bits in (0xd0, ">b", 7), (0xd1, ">h", 15), (0xd2, ">i", 31):
            if value >= -(1 << bits):
                return bytes([tag]) + struct.pack(form, value)
        return b"\xd3" + struct.pack(">q", value)
    if kind is bytes:
        return counted(len(value), None, 0xc4, 0xc5, 0xc6) + value
    if kind is str:
        body = value.encode("utf-8", "surrogateescape")
        return counted(len(body), (0xa0, 32), 0xd9, 0xda, 0xdb) + body
    if kind is Long:
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))
    if kind in (list, Array, tuple):
        return counted(len(value), (0x90, 16), None, 0xdc, 0xdd) + b"".join(map(pack, value))
    if kind is dict:
        return (counted(len(value), (0x80, 16), None, 0xde, 0xdf) +
                b"".join(pack(k) + pack(v) for k, v in value.items()))
    raise TypeError(kind)


def counted(n, fix, tag8, tag16, tag32):
    if fix and n < fix[1]:
        return bytes([fix[0] + n])
    if tag8 and n < 0x100:
        return bytes([tag8, n])
    if n < 0x10000:
        return bytes([tag16]) + struct.pack(">H", n)
    return bytes([tag32]) + struct.pack(">I", n)


class Reader:
    """Reads msgpack within the limits; raises ValueError. Makes nothing from a promise."""

    def __init__(self, data):
        self.data = data
        self.at = 0
        self.values = 0

    def take(self, n):
        if n > len(self.data) - self.at:
            raise ValueError("cut short")
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def head(self):
        """(kind, number or length or value, in its shortest form)"""
        tag = self.take(1)[0]
        if tag < 0x80:
            return "uint", tag, True
        if tag < 0x90:
            return "map", tag & 15, True
        if tag < 0xa0:
            return "array", tag & 15, True
        if tag < 0xc0:
            return "str", tag & 31, True
        if tag >= 0xe0:
            return "int", tag - 256, True
        if tag == 0xc0:
            return "nil", None, True
        if tag == 0xc1:
            raise ValueError("0xc1")
        if tag in (0xc2, 0xc3):
            return "bool", tag == 0xc3, True
        if tag in (0xca, 0xcb):
            return "float", self.number((">f", ">d")[tag - 0xca]), True
        if 0xcc <= tag <= 0xcf:
            n = self.number((">B", ">H", ">I", ">Q")[tag - 0xcc])
            return "uint", n, n >= (0x80, 0x100, 0x10000, 1 << 32)[tag - 0xcc]
        if 0xd0 <= tag <= 0xd3:
            n = self.number((">b", ">h", ">i", ">q")[tag - 0xd0])
            if n >= 0:
                return "uint", n, False
            return "int", n, n < (-32, -0x80, -0x8000, -(1 << 31))[tag - 0xd0]
        if 0xd4 <= tag <= 0xd8:
            return "ext", 1 << (tag - 0xd4), True
        kind, sizes = {0xc4: ("bin", 0), 0xc5: ("bin", 1), 0xc6: ("bin", 2), 0xc7: ("ext", 0),
                       0xc8: ("ext", 1), 0xc9: ("ext", 2), 0xd9: ("str", 0), 0xda: ("str", 1),
                       0xdb: ("str", 2), 0xdc: ("array", 1), 0xdd: ("array", 2),
                       0xde: ("map", 1), 0xdf: ("map", 2)}[tag]
        n = self.number((">B", ">H", ">I")[sizes])
        least = {"bin": (0, 0x100), "str": (32, 0x100), "ext": (0, 0x100), "array": (0, 16),
                 "map": (0, 16)}[kind] + (0x10000,)
        return kind, n, n >= least[sizes]

    def value(self, level=1):
        start = self.at
        self.values += 1
        if self.values > VALUES_MAX:
            raise ValueError("too many values")
        kind, n, _ = self.head()
        if kind in ("array", "map"):
            if level > LEVELS_MAX:
                raise ValueError("nested too deep")
            items = n if kind == "array" else 2 * n
            if items > len(self.data) - self.at:
                raise ValueError("a promise of %d items" % items)
            out = Array(self.value(level + 1) for _ in range(items))
            out.data = self.data[start:self.at]
            # Only what is skipped may be a map, so nobody looks up a key.
            return out if kind == "array" else tuple(out)
        if kind == "bin":
            return bytes(self.take(n))
        if kind == "str":
            return self.take(n).decode("utf-8", "surrogateescape")
        if kind == "ext":
            return Extension(self.take(n + 1))
        return n


# ---- messages ----

def want(condition, why):
    if not condition:
        raise Breach("PROTOCOL", why)


def uint(value):
    want(type(value) is int and value >= 0, "no unsigned integer")
    return value


def positive(value):
    want(uint(value) > 0, "0")
    return value


def message_bytes(value):
    want(positive(value) <= MESSAGE_BYTES_MAX, "more than a message has")
    return value


def negative(value):
    want(type(value) is int and value < 0, "no negative integer")
    return value


def flag(value):
    want(type(value) is bool, "no boolean")
    return value


def text(value):
    want(type(value) is str, "no text")
    want(len(value.encode("utf-8", "surrogateescape")) <= 256, "a text too long")
    return value


def bad_name(body):
    """What is wrong with the bytes of a name, if anything is."""
    if not 1 <= len(body) <= 128:
        return "a name of %d bytes" % len(body)
    try:
        if re.search("[\x00-\x1f\x7f-\x9f]", body.decode("utf-8")):
            return "a control character in a name"
    except UnicodeDecodeError:
        return "a name that is not UTF-8"
    return None


def name(value):
    want(type(value) is str, "no name")
    wrong = bad_name(value.encode("utf-8", "surrogateescape"))
    want(not wrong, wrong)
    return value


def size(n):
    def check(value):
        want(type(value) is bytes and len(value) == n, "not %d bytes" % n)
        return value
    return check


def some_bytes(value):
    want(type(value) is bytes, "no bytes")
    return value


def anything(value):
    return value


def each(kind, least=0, most=VALUES_MAX):
    def check(value):
        want(isinstance(value, list), "no array")
        want(least <= len(value) <= most, "%d items" % len(value))
        return [kind(item) for item in value]
    return check


def fixed(*kinds):
    """An array of fixed positions; items behind them are of a later version, and skipped."""
    def check(value):
        want(isinstance(value, list) and len(value) >= len(kinds), "no array of %d" % len(kinds))
        return [kind(item) for kind, item in zip(kinds, value)]
    return check


bin16 = size(16)
bin32 = size(32)


def heads(value, least=1):
    out = each(fixed(positive, bin32), least, HEADS_MAX)(value)
    want(all(a < b for a, b in zip(out, out[1:])), "heads out of order")
    return out


def a_range(value):
    out = fixed(bin16, positive, positive)(value)
    want(out[1] <= out[2], "a range that ends before it begins")
    return out


def reason(value):
    return value if value == 0 and type(value) is int else negative(value)


def lack(value):
    a_range(value)
    return fixed(bin16, positive, positive, bin32, reason, bin32)(value)


def maybe(kind):
    return lambda value: None if value is None else kind(value)


def canonical(value, most):
    want(isinstance(value, Array) and value.data == pack(value), "not in its shortest form")
    want(len(value.data) <= most, "more than %d bytes" % most)


def ascending(kind, least, most):
    def check(value):
        out = each(kind, least, most)(value)
        keys = [pack(item) if type(item) is list else item.encode() for item in out]
        want(all(a < b for a, b in zip(keys, keys[1:])), "not ascending")
        return out
    return check


def glob(value):
    name(value)
    want(expression(value) is not None, "no glob")
    return value


def expression(glob_):
    """A glob as a regular expression; None if it is none."""
    out, at = "", 0

    def literal():
        nonlocal at
        if glob_[at:at + 1] == "\\":
            at += 1
        at += 1
        return glob_[at - 1:at]

    while at < len(glob_):
        c = glob_[at]
        if c in "*?":
            out += {"*": ".*", "?": "."}[c]
            at += 1
        elif c == "[":
            at += 1
            negated = glob_[at:at + 1] in ("!", "^")
            at += negated
            parts = []
            while not parts or glob_[at:at + 1] != "]":
                first = last = literal()
                if glob_[at:at + 1] == "-" and glob_[at + 1:at + 2] not in ("]", ""):
                    at += 1
                    last = literal()
                if not first or not last or last < first:
                    return None
                parts.append(re.escape(first) + "-" + re.escape(last))
            at += 1
            out += "[%s%s]" % ("^" if negated else "", "".join(parts))
        else:
            c = literal()
            if not c:
                return None
            out += re.escape(c)
    return out


def a_filter(value, bytes_max=4096, lists_max=4):
    want(isinstance(value, list) and len(value) == 3 and value != [None] * 3, "no filter")
    canonical(value, bytes_max)
    names = maybe(ascending(name, 0, 64))
    return fixed(maybe(ascending(ascending(glob, 1, 64), 1, lists_max)), names, names)(value)


def matches(filter_, document, branch, scope):
    if filter_ is None:
        return True
    globs, scopes, branches = filter_
    if not all(any(re.fullmatch(expression(g), document, re.DOTALL) for g in each_)
               for each_ in globs or []):
        return False
    return scope == "document" or ((scopes is None or scope in scopes) and
                                   (branches is None or branch in branches))


def share(value):
    want(isinstance(value, list) and len(value) == 2, "no share")
    canonical(value, MESSAGE_BYTES_MAX)
    collections, filter_ = fixed(maybe(ascending(name, 0, 64)),
                                 maybe(lambda f: a_filter(f, 2048, 2)))(value)
    want(collections is not None or filter_ is not None, "everything, at length")
    want(collections != [] or filter_ is None, "some of nothing")
    return [collections, filter_]


def vector_entry(value):
    origins = each(fixed(bin16, lambda these: heads(these, 0)))
    out = fixed(name, maybe(a_filter), flag, flag, origins, each(lack))(value)
    return out


def digest_entry(value):
    kinds = [name, lambda digest: digest if digest is None else bin32(digest)]
    if isinstance(value, list) and len(value) > len(kinds):
        kinds.append(uint)                  # how many origins it has
    return fixed(*kinds)(value)


def ranges_entry(value):
    """What this client never offers to take, and can read all the same."""
    out = fixed(maybe(name), uint, some_bytes)(value)
    want(3 <= out[1] <= 12, "too few ranges, or too many")
    want(len(out[2]) in (1 << out[1] - 3, 8 << out[1]), "neither digests nor a bitmap")
    return out


def limits(value):
    out = fixed(uint, uint, uint)(value)
    want(out[0] >= MESSAGE_BYTES_LEAST, "no job fits")
    return out


def hello(value):
    out = fixed(uint, positive, uint, uint)(value)
    if out[2] == 1:
        kinds = [uint, positive, uint, uint, bin16, bin16, uint, each(text), limits, text]
        if len(value) > len(kinds):
            kinds.append(bin16)
        if len(value) > len(kinds) + 1:     # the sum is the last one
            kinds.append(maybe(fixed(maybe(share), maybe(share))))
        out = fixed(*kinds)(value)
    return out


def have(value):
    level = fixed(*[uint] * 5)(value)[4]
    entries = {0: fixed(uint, bin32), 1: each(digest_entry), 2: each(vector_entry),
               3: each(ranges_entry)}
    want(level in entries, "an unknown level")
    return fixed(*[uint] * 5, flag, entries[level])(value)


KINDS = {
    HELLO: hello,
    HAVE: have,
    JOBS: fixed(uint, uint, positive, each(each(some_bytes, 1, JOB_OPERATIONS_MAX))),
    ACK: fixed(uint, uint, uint, each(fixed(positive, negative, uint))),
    PULL: fixed(uint, uint, each(fixed(name, each(a_range)))),
    ERROR: fixed(uint, uint, negative, text, uint),
    COVER: fixed(uint, uint, each(fixed(name, each(fixed(bin16, heads))))),
    PACKED: fixed(uint, uint, message_bytes, some_bytes),
}


def read_message(data):
    """[type, number, …] with nothing but known items; unknown types keep theirs."""
    want(len(data) <= MESSAGE_BYTES_MAX, "a message too large")
    reader = Reader(data)
    try:
        value = reader.value()
    except ValueError as wrong:
        raise Breach("PROTOCOL", str(wrong)) from None
    want(reader.at == len(data), "bytes behind the message")
    fixed(uint, positive)(value)
    return KINDS.get(value[0], list)(value)


def write_message(message):
    """The bytes of [type, number, …]; lists that a writer cannot count have long headers."""
    m = list(message)
    if m[0] == HAVE and m[4] in (1, 3):
        m[6] = Long(m[6])
    elif m[0] == HAVE and m[4] == 2:
        m[6] = Long([*entry[:4], Long(entry[4]), *map(lambda r: Long(r) if r else r, entry[5:])]
                    for entry in m[6])
    elif m[0] == JOBS:
        m[3] = Long(m[3])
    elif m[0] == PULL:
        m[2] = Long([collection, Long(ranges)] for collection, ranges in m[2])
    elif m[0] == COVER:
        m[2] = Long([collection, Long(origins)] for collection, origins in m[2])
    return pack(m)


# ---- operations ----

ITEMS = (("version", "uint"), ("flags", "uint"), ("collection", "str"), ("origin", "bin"),
         ("seq", "uint"), ("predecessor", "bin"), ("hlc", "uint"), ("document", "str"),
         ("branch", "str"), ("scope", "str"), ("type", "str"), ("payload", "bin"))
CONTINUES = 1


class Operation:
    """Canonical bytes, read and judged; never written again."""

    def __init__(self, data):
        if len(data) > OPERATION_BYTES_MAX:
            raise Breach("LIMIT", "an operation of %d bytes" % len(data))
        self.data = data
        self.job = None
        reader = Reader(data)
        try:
            kind, count, shortest = reader.head()
            good(kind == "array" and shortest and count >= len(ITEMS), "no array of twelve")
            for item, wanted in ITEMS:
                setattr(self, item, self.item(reader, item, wanted))
            self.hash = B(B(data[:self.body_at], data[reader.at:]), B(self.payload))
            for _ in range(count - len(ITEMS)):
                reader.values = 0
                reader.value()
            good(reader.at == len(data), "bytes behind the operation")
        except ValueError as wrong:
            raise Breach("PAYLOAD", str(wrong)) from None
        good(self.version > 0 and self.seq > 0, "version or seq is 0")
        good(len(self.origin) == 16 and len(self.predecessor) == 32, "a size")
        good(all(self.type.rpartition(".")[::2]), "a type without a dot")

    def item(self, reader, item, wanted):
        kind, n, shortest = reader.head()
        good(kind == wanted, "%s is no %s" % (item, wanted))
        good(shortest, "%s is not in its shortest form" % item)
        if kind == "uint":
            return n
        self.body_at = reader.at
        body = reader.take(n)
        if kind == "bin":
            return body
        if n > 128:
            raise Breach("LIMIT", "%s of %d bytes" % (item, n))
        wrong = bad_name(body)
        good(not wrong, wrong)
        return body.decode()

    @property
    def continues(self):
        return bool(self.flags & CONTINUES)

    @property
    def place(self):
        return self.document, self.branch


def good(condition, why):
    if not condition:
        raise Breach("PAYLOAD", why)


def root(collection):
    return B(collection.encode(), bytes(16))


def write_operation(collection, origin, seq, predecessor, hlc, document, type_, value, *, flags=0,
                    branch="main", scope="global", payload=None, version=1):
    return pack([version, flags, collection, origin, seq, predecessor, hlc, document, branch, scope,
                 type_, pack(value) if payload is None else payload])


# ---- what is held ----

class Origin:
    def __init__(self):
        self.operations = {}        # hash: Operation
        self.heads = set()          # (seq, hash)

    def top(self):
        return max(self.heads, default=(0, None))


class Table:
    """All operations held, behind a journal: a job is a line, and is on disk before it is held."""

    def __init__(self, path):
        self.collections = {}       # name: {origin: Origin}
        self.path = path
        if os.path.exists(path):
            with open(path, encoding="ascii") as lines:
                for line in lines:
                    self.keep([Operation(bytes.fromhex(part)) for part in line.split()])
        self.journal = open(path, "a", encoding="ascii")

    def origin(self, collection, origin):
        return self.collections.get(collection, {}).get(origin) or Origin()

    def every(self):
        for origins in self.collections.values():
            for held in origins.values():
                yield from held.operations.values()

    def vector(self, collection):
        """[[origin, [[seq, hash], …]], …] as HAVE carries it"""
        return [[origin, [list(head) for head in sorted(held.heads)]]
                for origin, held in sorted(self.collections.get(collection, {}).items())]

    def digest(self, collection):
        return digest_of_vector(self.vector(collection))

    def digest_of_all(self):
        return B(*(B(name.encode()) + self.digest(name) for name in self.names()))

    def names(self):
        return sorted(self.collections, key=str.encode)

    def take(self, parts, clock_max):
        """Store a job whole, or raise why not. Returns those of its operations that are new."""
        if len(parts) > JOB_OPERATIONS_MAX or sum(map(len, parts)) > JOB_BYTES_MAX:
            raise Breach("LIMIT", "a job too large")
        job = [Operation(part) for part in parts]
        first = job[0]
        if first.collection.startswith("_"):
            raise Breach("UNSUPPORTED", "a reserved collection")
        for a, b in zip(job, job[1:]):
            chain(a.continues, "a job that ends early")
            chain((a.collection, a.origin, a.document, a.branch) ==
                  (b.collection, b.origin, b.document, b.branch), "a job of two documents")
            chain(b.seq == a.seq + 1 and b.predecessor == a.hash, "a job of two chains")
        chain(not job[-1].continues, "a job without its end")
        chain(first.seq > 1 or first.predecessor == root(first.collection), "another root")
        held = self.origin(first.collection, first.origin)
        new = [op for op in job if op.hash not in held.operations]
        if not new:
            return new
        before = held.operations.get(new[0].predecessor)
        if new[0].seq > 1 and not before:
            raise Breach("PREDECESSOR", "seq %d" % (new[0].seq - 1))
        if new[0] is first and before:
            chain(before.seq + 1 == first.seq and
                  (not before.continues or before.place == first.place), "a job within another")
        if any(op.hlc > clock_max for op in new):
            raise Breach("CLOCK", "dated too far ahead")
        if len(held.heads) == HEADS_MAX and (new[0].seq - 1, new[0].predecessor) not in held.heads:
            raise Breach("QUARANTINED", "a ninth head")
        self.journal.write(" ".join(part.hex() for part in parts) + "\n")
        self.journal.flush()
        os.fsync(self.journal.fileno())
        self.keep(job)
        return new

    def keep(self, job):
        origins = self.collections.setdefault(job[0].collection, {})
        held = origins.setdefault(job[0].origin, Origin())
        for op in job:
            if op.hash in held.operations:
                continue
            op.job = job
            held.operations[op.hash] = op
            held.heads.discard((op.seq - 1, op.predecessor))
            held.heads.add((op.seq, op.hash))

    def jobs(self, collection, origin, first, last):
        """Whole jobs that have an operation in the range, each after what comes before it."""
        found = {id(op.job): op.job
                 for op in self.origin(collection, origin).operations.values()
                 if first <= op.seq <= last}
        return sorted(found.values(), key=lambda job: job[0].seq)


def chain(condition, why):
    if not condition:
        raise Breach("CHAIN", why)


def digests_of_ranges(greetings, bits, elements):
    """elements: (what names the range, what is in it)"""
    salt = b"".join(reactor + struct.pack(">Q", clock) for reactor, clock in sorted(greetings))
    sums = [0] * (1 << bits)
    for key, element in elements:
        sums[int.from_bytes(key[:2], "big") >> (16 - bits)] ^= int.from_bytes(
            B(salt, element)[:8], "big")
    return b"".join(struct.pack(">Q", each_) for each_ in sums)


def digest_of_vector(vector):
    return B(*(origin + struct.pack(">Q", seq) + hash_
               for origin, heads_ in vector for seq, hash_ in heads_))


# ---- WebSocket ----

class Refusal(Exception):
    def __init__(self, status):
        super().__init__("the dialer was answered %d" % status)
        self.status = status


class WebSocket:
    def __init__(self, url, path=None, protocol="tandem.1", **headers):
        host, _, rest = url.removeprefix("ws://").partition("/")
        address, _, port = host.rpartition(":")
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {"Host": host, "Upgrade": "websocket", "Connection": "Upgrade",
                  "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13"}
        if protocol:
            fields["Sec-WebSocket-Protocol"] = protocol
        fields.update(headers)
        self.buffer = b""
        self.parts = None
        self.closed = None          # the close code; 1006 if there was none
        self.code_sent = False
        self.socket = socket.create_connection((address, int(port)), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.open(path or "/" + rest, fields, protocol)
        except BaseException:
            self.socket.close()
            raise

    def open(self, path, fields, protocol):
        lines = ["GET %s HTTP/1.1" % path] + ["%s: %s" % field for field in fields.items()]
        self.socket.sendall("\r\n".join(lines + ["", ""]).encode())
        while b"\r\n\r\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise Refusal(0)
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        status, *answer = head.decode().split("\r\n")
        if status.split()[1] != "101":
            raise Refusal(int(status.split()[1]))
        answer = [line.partition(":") for line in answer]
        answer = {key.strip().lower(): value.strip() for key, _, value in answer}
        accept = hashlib.sha1((fields["Sec-WebSocket-Key"] +
                               "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        if (answer.get("sec-websocket-accept") != base64.b64encode(accept).decode() or
                answer.get("sec-websocket-protocol") != protocol or
                "sec-websocket-extensions" in answer):
            raise Refusal(101)

    def frame(self, opcode, body, final=True):
        mask = os.urandom(4)
        n = len(body)
        size_ = (bytes([0x80 | n]) if n < 126 else b"\xfe" + struct.pack(">H", n) if n < 65536 else
                 b"\xff" + struct.pack(">Q", n))
        key = (mask * (n // 4 + 1))[:n]
        body = (int.from_bytes(body, "big") ^ int.from_bytes(key, "big")).to_bytes(n, "big")
        self.socket.sendall(bytes([opcode | (0x80 if final else 0)]) + size_ + mask + body)

    def send(self, body, opcode=2):
        try:
            self.frame(opcode, body)
        except OSError:
            pass                    # what it had to say is still to be read

    def receive(self, timeout):
        """The messages that have arrived, waiting at most so long for the first."""
        out = []
        self.frames(out)            # the answer to the dialer may have had some behind it
        while self.closed is None:
            if not select.select([self.socket], [], [], 0 if out else timeout)[0]:
                break
            try:
                data = self.socket.recv(1 << 18)
            except OSError:
                data = b""
            self.buffer += data
            self.frames(out)
            if not data and self.closed is None:
                self.closed = 1006
        return out

    def frames(self, out):
        while self.closed is None:
            frame = self.next_frame()
            if not frame:
                break
            self.handle(frame, out)

    def next_frame(self):
        if len(self.buffer) < 2:
            return None
        final, n, at = self.buffer[0] & 0x80, self.buffer[1], 2
        assert not self.buffer[0] & 0x70 and not n & 0x80, "reserved bits, or a masked frame"
        if n > 125:
            at = 4 if n == 126 else 10
            if len(self.buffer) < at:
                return None
            n = int.from_bytes(self.buffer[2:at], "big")
        if len(self.buffer) < at + n:
            return None
        frame = (final, self.buffer[0] & 15, self.buffer[at:at + n])
        self.buffer = self.buffer[at + n:]
        return frame

    def handle(self, frame, out):
        final, opcode, body = frame
        if opcode == 8:
            self.closed = int.from_bytes(body[:2], "big") if body else 1005
            self.close(1000)
        elif opcode == 9:
            self.send(body, 10)
        elif opcode in (0, 2):
            assert (opcode == 0) == (self.parts is not None), "a fragment out of place"
            self.parts = (self.parts or b"") + body
            if final:
                out.append(self.parts)
                self.parts = None
        else:
            assert opcode == 10, "opcode %d" % opcode

    def close(self, code=1000):
        if not self.code_sent:
            self.code_sent = True
            self.send(struct.pack(">H", code), 8)
        self.socket.close()
        if self.closed is None:
            self.closed = code


# ---- sessions ----

class Clock:
    def __init__(self):
        self.last = 0

    def now(self):
        self.last = max(self.last + 1, time.time_ns() // 1000000 << 16)
        return self.last

    def saw(self, hlc):
        self.last = max(self.last, hlc)


class Session:
    """One connection with one peer, and what the peer announced on it."""

    def __init__(self, reactor, url):
        self.reactor = reactor
        self.socket = WebSocket(url)
        self.numbers = [0, 0]       # sent, received
        self.peer = None            # its HELLO
        self.error = None           # what ended it
        self.sent_at = self.heard_at = time.monotonic()
        self.log = []               # (direction, message)
        # Own announcements.
        self.listed_level1 = False
        self.listed = set()         # collections
        self.changed = set()        # (collection, origin)
        # The peer's.
        self.compared = False       # its level 0 has come
        self.vectors = {}           # collection: {origin: [[seq, hash], …]}
        self.known = set()          # collections whose vector is known
        self.differing = None       # once its last page of level 1 is read: the rest is known empty
        self.pages = set()
        self.listing = {}           # collection: {origin: …}
        # Jobs.
        self.jobs_sent = self.jobs_done = self.jobs_received = 0
        self.in_flight = deque()    # (number, job)
        self.sent_to = {}           # collection: seq of the own origin
        self.asked_for = deque()    # jobs the peer asked for
        self.exceptions = []        # (job, error, detail)
        self.fresh = self.duplicates = 0
        self.send([HELLO, 0, 1, 0, reactor.id, reactor.origin, reactor.clock.now(), [],
                   [MESSAGE_BYTES_MAX, *reactor.window], "stranger 1"])
        self.have(0, [len(reactor.table.collections), reactor.table.digest_of_all()])

    def alive(self):
        return self.socket.closed is None and self.error is None

    def send(self, message):
        self.numbers[0] += 1
        message[1] = self.numbers[0]
        self.log.append(("sent", message))
        self.socket.send(write_message(message))
        self.sent_at = time.monotonic()

    def have(self, level, entries, more=False):
        clock = self.reactor.clock.now()
        self.send([HAVE, 0, clock, clock, level, more, entries])

    def end(self, error=None, why=""):
        if self.socket.closed is None:
            if error:
                self.send([ERROR, 0, error, why[:256], 0])
            self.socket.close(1002 if error else 1000)
        self.error = self.error or error or 0

    # Reading.

    def read(self, timeout):
        for data in self.socket.receive(timeout):
            if not self.alive() and self.error is not None:
                return
            self.heard_at = time.monotonic()
            try:
                self.handle(read_message(data))
            except Breach as wrong:
                self.end(wrong.error, str(wrong))

    def handle(self, message):
        kind, number = message[:2]
        self.log.append(("received", message))
        if number <= self.numbers[1]:
            return
        if number > self.numbers[1] + 1:
            raise Breach("CHANNEL_NETWORK", "a message is missing")
        self.numbers[1] = number
        want((kind == HELLO) == (number == 1), "HELLO comes first, and once")
        take = {HELLO: self.on_hello, HAVE: self.on_have, JOBS: self.on_jobs, ACK: self.on_ack,
                PULL: self.on_pull, ERROR: self.on_error}.get(kind)
        if take:
            take(*message[2:])

    def on_hello(self, major, minor, reactor=None, origin=None, clock=None, features=None,
                 limits_=None, agent=None, instance=None, shares=None):
        if major != 1:
            raise Breach("VERSION", "this client speaks version 1")
        if reactor == self.reactor.id or origin == self.reactor.origin:
            raise Breach("SELF", "this is me")
        self.peer = {"reactor": reactor, "origin": origin, "window": limits_[1:],
                     "message_bytes": min(limits_[0], MESSAGE_BYTES_MAX), "agent": agent}
        for other in self.reactor.sessions:
            if other is self or not other.alive() or not other.peer:
                continue
            if other.peer["reactor"] == reactor:
                other.end(ERRORS["DUPLICATE_SESSION"], "the newer one stays")

    def on_error(self, error, why, retry_after):
        self.error = error
        self.socket.close()

    def on_have(self, clock, promise, level, more, entries):
        table = self.reactor.table
        if level == 0:
            want(not self.compared, "a second level 0")
            self.compared = True
            if entries == [len(table.collections), table.digest_of_all()]:
                self.differing = set()
                for collection in table.collections:
                    self.same(collection)
            else:
                self.list_level1()
        elif level == 1:
            self.list_level1()
            self.page(entries, more)
        else:
            for entry in entries:
                if entry[1] is None:
                    self.vector_entry(*entry)

    def same(self, collection):
        self.vectors[collection] = dict(self.reactor.table.vector(collection)) | \
            self.vectors.get(collection, {})
        self.known.add(collection)

    def list_level1(self):
        if self.listed_level1:
            return
        self.listed_level1 = True
        table = self.reactor.table
        self.have(1, [[name_, table.digest(name_)] for name_ in table.names()])

    def page(self, entries, more):
        table = self.reactor.table
        for collection, digest, *_ in entries:
            self.pages.add(collection)
            if collection in table.collections and digest == table.digest(collection):
                self.same(collection)
            else:
                self.list_vector(collection)
        if more:
            return
        self.differing = {c for c in self.pages if c not in self.known}
        for collection in table.names():
            if collection not in self.pages:
                self.list_vector(collection)

    def list_vector(self, collection):
        if collection not in self.listed:
            self.listed.add(collection)
            vector = self.reactor.table.vector(collection)
            self.have(2, [[collection, None, True, True, vector, []]])

    def vector_entry(self, collection, filter_, begin, end, origins, refused):
        if begin:
            self.listing[collection] = {}
        mine = self.listing.get(collection)
        for origin, announced in origins:
            if not announced:
                continue
            before = self.vectors.get(collection, {}).get(origin)
            want(not before or announced[-1][0] >= before[-1][0], "an announcement that goes back")
            if mine is None:
                self.vectors.setdefault(collection, {})[origin] = announced
            else:
                mine[origin] = announced
        if end and mine is not None:
            # Changes that came before the listing was complete stay true.
            self.vectors[collection] = self.vectors.get(collection, {}) | mine
            del self.listing[collection]
            self.known.add(collection)
            self.list_vector(collection)

    def knows(self, collection):
        return collection in self.known or (self.differing is not None and
                                            collection not in self.differing)

    # Jobs that come.

    def on_jobs(self, first, jobs):
        want(first == self.jobs_received + 1, "first job is not the next")
        exceptions = []
        for job in jobs:
            self.jobs_received += 1
            try:
                new = self.reactor.take(job)
                self.fresh += len(new)
                self.duplicates += len(job) - len(new)
            except Breach as wrong:
                exceptions.append([self.jobs_received, wrong.error,
                                   self.reactor.clock_needed(job) if wrong.error == -29 else 0])
        self.send([ACK, 0, self.jobs_received, exceptions])

    # Jobs that go.

    def on_pull(self, collections):
        for collection, ranges in collections:
            for origin, first, last in ranges:
                self.asked_for.extend(self.reactor.table.jobs(collection, origin, first, last))

    def on_ack(self, done, exceptions):
        want(self.jobs_done <= done <= self.jobs_sent, "an ACK of what was not sent, or backwards")
        self.jobs_done = done
        refused = {job for job, _, _ in exceptions}
        self.exceptions.extend(exceptions)
        while self.in_flight and self.in_flight[0][0] <= done:
            number, job = self.in_flight.popleft()
            last = job[-1]
            announced = self.vectors.setdefault(last.collection, {})
            if number not in refused and last.seq > announced.get(last.origin, [[0]])[-1][0]:
                announced[last.origin] = [[last.seq, last.hash]]

    def own_jobs(self):
        """Whole jobs of the own origin that the peer lacks by what it announced."""
        me = self.reactor.origin
        for collection in self.reactor.table.names():
            held = self.reactor.table.origin(collection, me)
            if not held.heads or not self.knows(collection):
                continue
            top = self.vectors.get(collection, {}).get(me, [[0]])[-1][0]
            after = max(top, self.sent_to.get(collection, 0))
            for job in self.reactor.table.jobs(collection, me, after + 1, held.top()[0]):
                yield job

    def send_jobs(self):
        if not self.peer:
            return
        waiting = deque(self.own_jobs())
        while (waiting or self.asked_for) and self.room((waiting or self.asked_for)[0]):
            first, batch, bytes_ = self.jobs_sent + 1, [], 0
            while waiting or self.asked_for:
                source = waiting or self.asked_for
                job = source[0]
                if not self.room(job) or (batch and bytes_ + job_bytes(job) > BATCH_BYTES):
                    break
                source.popleft()
                if job[0].origin == self.reactor.origin:
                    self.sent_to[job[0].collection] = max(
                        job[-1].seq, self.sent_to.get(job[0].collection, 0))
                self.jobs_sent += 1
                self.in_flight.append((self.jobs_sent, job))
                batch.append([op.data for op in job])
                bytes_ += job_bytes(job)
            self.send([JOBS, 0, first, batch])

    def room(self, job):
        bytes_ = sum(job_bytes(sent) for _, sent in self.in_flight)
        return not self.in_flight or (bytes_ + job_bytes(job) <= self.peer["window"][0] and
                                      len(self.in_flight) < self.peer["window"][1])

    def tick(self):
        if not self.peer:
            return
        if self.changed:
            entries = {}
            for collection, origin in sorted(self.changed):
                held = self.reactor.table.origin(collection, origin)
                entries.setdefault(collection, []).append(
                    [origin, [list(head) for head in sorted(held.heads)]])
            self.changed.clear()
            self.have(2, [[c, None, False, False, origins, []] for c, origins in entries.items()])
        self.send_jobs()
        if time.monotonic() - self.sent_at >= HEARTBEAT_S:
            self.have(2, [])
        if time.monotonic() - self.heard_at >= SILENCE_S:
            self.end(ERRORS["TIMEOUT"], "nothing was heard")


def job_bytes(job):
    return sum(len(op.data) for op in job)


class Reactor:
    """The stranger: an identity, a table, and sessions with as many nodes as it likes."""

    def __init__(self, folder, id_=None, origin=None):
        self.folder = folder
        # Nothing on the two pages lets a peer see that no key pair stands behind these bytes.
        self.id = id_ or os.urandom(16)
        self.origin = origin or os.urandom(16)
        self.window = [8 << 20, 1024]
        self.clock = Clock()
        self.table = Table(os.path.join(folder, "journal"))
        self.sessions = []
        self.asked = {}             # (collection, origin): [session, last seq, time]
        self.lacked_since = {}      # (collection, origin, seq): time
        self.back = {}              # (collection, origin): how far behind a fork's head to look
        for op in self.table.every():
            self.clock.saw(op.hlc)

    def restarted(self):
        self.close()
        return Reactor(self.folder, self.id, self.origin)

    def close(self):
        for session in self.sessions:
            session.end()
        self.table.journal.close()

    def dial(self, url):
        self.sessions = [s for s in self.sessions if s.alive()]
        session = Session(self, url)
        self.sessions.append(session)
        return session

    # Writing.

    def write(self, collection, document, *changes):
        """One job: [(type, value), …], and a CREATE before them if the document is new here."""
        held = self.table.collections.get(collection, {}).values()
        if not any(op.document == document for o in held for op in o.operations.values()):
            model = changes[0][0].rpartition(".")[0]
            changes = ((model + ".CREATE", None),) + changes
        seq, hash_ = self.table.origin(collection, self.origin).top()
        hash_ = hash_ or root(collection)
        parts = []
        for n, (type_, value) in enumerate(changes):
            seq += 1
            parts.append(write_operation(
                collection, self.origin, seq, hash_, self.clock.now(), document, type_, value,
                flags=CONTINUES if n + 1 < len(changes) else 0,
                scope="document" if type_.endswith(".CREATE") else "global"))
            hash_ = Operation(parts[-1]).hash
        self.take(parts)

    def clock_needed(self, parts):
        return max(Operation(part).hlc for part in parts) - CLOCK_AHEAD_MAX

    def take(self, parts):
        """Hold a job durably, and have it announced to everybody."""
        try:
            new = self.table.take(parts, (time.time_ns() // 1000000 << 16) + CLOCK_AHEAD_MAX)
        except Breach as wrong:
            if wrong.error == ERRORS["PREDECESSOR"]:
                op = Operation(parts[0])
                key = (op.collection, op.origin)
                self.back[key] = max(1, 2 * self.back.get(key, 0))
                self.asked.pop(key, None)
            raise
        op = Operation(parts[-1])
        key = (op.collection, op.origin)
        if key in self.asked:
            self.asked[key][2] = time.monotonic()
            if op.seq >= self.asked[key][1]:
                del self.asked[key]
        if new:
            self.clock.saw(max(op.hlc for op in new))
            self.back.pop(key, None)
            for session in self.sessions:
                session.changed.add(key)
        return new

    # Asking.

    def ask(self):
        now = time.monotonic()
        live = [s for s in self.sessions if s.alive() and s.peer]
        reachable = {s.peer["origin"] for s in live}
        self.asked = {key: a for key, a in self.asked.items()
                      if a[0].alive() and now - a[2] < GRACE_S}
        for session in live:
            wanted = {}
            for collection, origins in session.vectors.items():
                for origin, announced in origins.items():
                    range_ = self.lacking(collection, origin, announced)
                    key = (collection, origin)
                    if not range_ or key in self.asked:
                        continue
                    since = self.lacked_since.setdefault((*key, range_[1]), now)
                    if origin in reachable and now - since < GRACE_S:
                        continue
                    self.asked[key] = [session, range_[1], now]
                    wanted.setdefault(collection, []).append([origin, *range_])
            if wanted:
                session.send([PULL, 0, list(wanted.items())])

    def lacking(self, collection, origin, announced):
        """The range to ask for, if these heads tell of operations that are not held."""
        held = self.table.origin(collection, origin)
        missing = [seq for seq, hash_ in announced if hash_ not in held.operations]
        if not missing or origin == self.origin:
            return None
        top = held.top()[0]
        first = top + 1 if max(missing) > top else min(missing)
        return [max(1, first - self.back.get((collection, origin), 0)), max(missing)]

    # Running.

    def turn(self, timeout=0.02):
        self.ask()
        for session in self.sessions:
            if session.alive():
                session.tick()
        for session in self.sessions:
            if session.socket.buffer:
                session.read(0)
        sockets = {s.socket.socket: s for s in self.sessions if s.alive()}
        for ready in select.select(list(sockets), [], [], timeout)[0]:
            sockets[ready].read(0)

    def until(self, what, condition, seconds=20):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Failure("waited %d s in vain: %s" % (seconds, what))
            self.turn()
            for session in self.sessions:
                if session.error:
                    raise Failure("a session ended with %s" % session.error,
                                  *[m for _, m in session.log[-6:]])


class Failure(Exception):
    pass


# ---- the test ----

def check(condition, sentence, *details):
    if not condition:
        raise Failure(sentence, *details)


def check_equal(wanted, found, sentence):
    check(wanted == found, sentence, "wanted %r" % (wanted,), "found  %r" % (found,))


class Node:
    """A `tandem serve` process, and the commands on its folder."""

    def __init__(self, tandem, data):
        self.binary = tandem
        self.data = data
        self.environment = {k: v for k, v in os.environ.items()
                            if not k.startswith(("TANDEM_", "XDG_"))}
        self.told = False
        self.log = open(data + ".log", "wb")
        self.process = subprocess.Popen(
            [tandem, "serve", "--data", data, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE,
            stderr=self.log, env=self.environment)
        ready = select.select([self.process.stdout], [], [], 20)[0]
        words = self.process.stdout.readline().decode().split() if ready else []
        if len(words) != 2 or words[0] != "ready":
            self.process.kill()
            raise Failure("the node did not say that it is ready", words)
        self.url = words[1]

    def command(self, *args):
        return [self.binary, "--data", self.data, "--json", *args]

    def run(self, *args):
        done = subprocess.run(self.command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=20, env=self.environment)
        check(done.returncode == 0, "a command failed: %s" % (args,), done.stdout, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def append_args(self, collection, document, value):
        return ("op", "append", collection, document, "--model", "kv", "--type", "SET",
                "--input", json.dumps(value))

    def append(self, collection, document, value):
        return self.run(*self.append_args(collection, document, value))[0]

    def append_later(self, collection, document, value):
        return subprocess.Popen(self.command(*self.append_args(collection, document, value)),
                                stdout=subprocess.DEVNULL, env=self.environment)

    def state(self, collection, document):
        return self.run("doc", "show", collection, document)[0]["state"]

    def digests(self):
        return {row["collection"]: row["vector_digest"] for row in self.run("digest")}

    def operations(self, collection):
        return {row["hash"] for row in self.run("op", "ls", collection)}

    def end(self):
        if not self.process.stdout.closed:
            if not self.told:
                self.process.terminate()    # a second SIGTERM would not wait for anything
            self.told = True
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.log.close()
        return self.process.returncode


def in_step(reactor, node):
    """The node's own digests are those that the stranger computes from what it holds."""
    table = reactor.table
    wanted = {c: table.digest(c).hex() for c in table.names()}
    return node.digests() == wanted


class Peer:
    """A bare connection, to say what no honest client says, and to see the answer."""

    def __init__(self, url, *, greet=2, reactor=None, origin=None, window=(8 << 20, 1024),
                 major=1):
        """greet: 0 to say nothing, 1 HELLO, 2 HELLO and HAVE level 0"""
        self.socket = WebSocket(url)
        self.number = 0
        self.jobs = 0
        self.inbox = deque()
        self.origin = origin or os.urandom(16)
        self.clock = time.time_ns() // 1000000 << 16
        if greet > 0:
            self.say(HELLO, major, 0, reactor or os.urandom(16), self.origin, self.clock, [],
                     [MESSAGE_BYTES_MAX, *window], "")
        if greet > 1:
            self.have(0, [0, B()])

    def say(self, kind, *items):
        self.number += 1
        self.socket.send(write_message([kind, self.number, *items]))

    def have(self, level, entries):
        self.say(HAVE, self.clock, 0, level, False, entries)

    def offer(self, *parts):
        """Send one job; returns (error, detail) of its ACK."""
        self.jobs += 1
        self.say(JOBS, self.jobs, [list(parts)])
        exceptions = []
        done = 0
        while done < self.jobs:
            _, _, done, listed = self.next(ACK)
            exceptions += listed
        for job, error, detail in exceptions:
            if job == self.jobs:
                return error, detail
        return 0, 0

    def next(self, kind, seconds=10):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for message in self.inbox:
                if message[0] == kind:
                    self.inbox.remove(message)
                    return message
            check(self.socket.closed is None, "the node closed (%s) before a message of type %d"
                  % (self.socket.closed, kind))
            self.inbox.extend(map(read_message, self.socket.receive(0.1)))
        raise Failure("no message of type %d" % kind)

    def ended(self, after, seconds=10):
        """(number in the ERROR or None, close code) of the session's end"""
        end = time.monotonic() + seconds
        while self.socket.closed is None and time.monotonic() < end:
            self.inbox.extend(map(read_message, self.socket.receive(0.1)))
        check(self.socket.closed is not None, "the node did not close after " + after, *self.inbox)
        errors = [m[2] for m in self.inbox if m[0] == ERROR]
        check(len(errors) <= 1 and (not errors or self.inbox[-1][0] == ERROR), "ERROR is the last")
        return (errors or [None])[0], self.socket.closed

    def close(self):
        self.socket.close()


class Field:
    def __init__(self, tandem):
        self.tandem = tandem
        self.folder = tempfile.mkdtemp(prefix="tandem-stranger-")
        self.nodes = []
        self.reactors = []
        self.a = self.node("a")
        self.me = Reactor(self.new("stranger"))

    def new(self, name_):
        path = os.path.join(self.folder, name_)
        os.mkdir(path)
        return path

    def node(self, name_):
        node = Node(self.tandem, os.path.join(self.folder, name_))
        self.nodes.append(node)
        return node

    def leave(self):
        for node in self.nodes:
            code = node.end()
            if code:
                with open(node.data + ".log", encoding="utf-8", errors="replace") as log:
                    print("a node ended with %s:\n%s" % (code, log.read()[-4000:]))
        shutil.rmtree(self.folder, ignore_errors=True)
        return not any(node.process.returncode for node in self.nodes)


def vectors_hold(field):
    """The test vectors, judged by what the pages say."""
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vectors")
    with open(os.path.join(folder, "wire.json"), encoding="utf-8") as file:
        wire = json.load(file)
    with open(os.path.join(folder, "operations.json"), encoding="utf-8") as file:
        operations = json.load(file)
    for case in wire["messages"]:
        data = bytes.fromhex(case["hex"])
        message = read_message(data)
        if case["written"] and message[0] == HELLO and len(message) > 11:
            # Without its sum, which nobody needs to know.
            check_equal(data[1:-9], write_message(message)[1:], case["name"])
        elif case["written"]:
            check_equal(data, write_message(message), case["name"])
    for case in wire["invalid"]:
        try:
            read_message(bytes.fromhex(case["hex"]))
        except Breach as wrong:
            check_equal(case["error"], "TANDEM_E_" + str(wrong).partition(":")[0], case["name"])
        else:
            raise Failure("read, though invalid: " + case["name"])
    for case in wire["globs"]:
        found = re.fullmatch(expression(case["glob"]), case["name"], re.DOTALL)
        check_equal(case["matches"], bool(found), case["glob"])
    for case in wire["filters"]:
        value = Reader(bytes.fromhex(case["hex"])).value()
        check_equal([case[part] for part in ("documents", "scopes", "branches")],
                    maybe(a_filter)(value) or [None] * 3, "a filter")
        for op in case["operations"]:
            check_equal(op["matches"], matches(value, op["document"], op["branch"], op["scope"]),
                        str(op))
    for case in wire["operations"] + operations["operations"]:
        op = Operation(bytes.fromhex(case["canonical"]))
        check_equal(case["hash"], op.hash.hex(), case["name"])
        for item, value in case["fields"].items():
            found = getattr(op, item)
            check_equal(str(value), found.hex() if type(found) is bytes else str(found), item)
    for case in operations["invalid"]:
        try:
            Operation(bytes.fromhex(case["canonical"]))
        except Breach as wrong:
            check_equal(case["error"], "TANDEM_E_" + str(wrong).partition(":")[0], case["name"])
        else:
            raise Failure("read, though invalid: " + case["name"])
    for case in operations["chain_roots"]:
        check_equal(case["root"], root(case["collection"]).hex(), "chain root")
    for case in operations["origins"]:
        check_equal(case["origin"], B(bytes.fromhex(case["public_key"]))[:16].hex(), "origin")
    canonical = {case["name"]: bytes.fromhex(case["canonical"])
                 for case in operations["operations"]}
    for number, case in enumerate(operations["vector_digests"]):
        table = Table(os.path.join(field.folder, "table-%d" % number))
        for job in case["jobs"]:
            table.take([canonical[part] for part in job], 2**64)
        check_equal(case["digest"], table.digest(case["collection"]).hex(), case["name"])
    for case in wire["digests"]:
        digests = []
        for collection in case["collections"]:
            vector = [[bytes.fromhex(o["origin"]), [[int(h["seq"]), bytes.fromhex(h["hash"])]
                                                    for h in o["heads"]]]
                      for o in collection["origins"]]
            digests.append(B(collection["name"].encode()) + digest_of_vector(vector))
            check_equal(collection["digest"], digest_of_vector(vector).hex(), case["name"])
        check_equal(case["digest"], B(*digests).hex(), case["name"])
    for case in wire["ranges"]:
        greetings = [(bytes.fromhex(g["reactor"]), int(g["clock"])) for g in case["greetings"]]
        elements = []
        for collection in case.get("collections", []):
            key = B(collection["name"].encode())
            elements.append((key, key + bytes.fromhex(collection["digest"])))
        for each_ in case.get("origins", []):
            key = bytes.fromhex(each_["origin"])
            elements += [(key, key + struct.pack(">Q", h["seq"]) + bytes.fromhex(h["hash"]))
                         for h in each_["heads"]]
            elements += [(key, key + struct.pack(">QQ", lack_["first"], lack_["last"]) +
                          bytes.fromhex(lack_["hash"])) for lack_ in each_["lacks"]]
        check_equal(case["digests"], digests_of_ranges(greetings, case["bits"], elements).hex(),
                    case["name"])


def receives_what_the_node_holds(field):
    me, a = field.me, field.a
    written = [a.append("c", "doc-%d" % (n % 3), {"n": n}) for n in range(6)]
    a.append("é 漢字", "d", {"text": "ü"})
    session = me.dial(a.url)
    me.until("the node's operations", lambda: in_step(me, a))
    check_equal(set(me.table.names()), {"c", "é 漢字"}, "collections")
    origin = bytes.fromhex(written[-1]["origin"])
    check_equal(session.peer["origin"], origin, "the origin in HELLO")
    held = me.table.origin("c", origin)
    check_equal(held.heads, {(written[-1]["seq"], bytes.fromhex(written[-1]["hash"]))}, "the head")
    check_equal(a.operations("c"), {hash_.hex() for hash_ in held.operations}, "hashes")
    check_equal(0, session.duplicates, "sent twice")
    check(any(len(op.job) > 1 for op in held.operations.values()), "no job of two came")


def sends_its_own(field):
    me, a = field.me, field.a
    session = me.sessions[-1]
    me.write("c", "mine", ("kv.SET", {"by": "stranger", "n": 1}), ("kv.SET", {"n": 2}))
    me.write("c", "mine", ("kv.SET", {"last": None}))
    me.write("c", "doc-0", ("kv.SET", {"stranger": True}))
    me.write("own", "d", ("kv.SET", {"x": [1, -2, "y"]}))
    me.until("acknowledgements", lambda: session.jobs_done == 4)
    check_equal([], session.exceptions, "refused")
    check_equal({"by": "stranger", "n": 2, "last": None}, a.state("c", "mine"), "state")
    check_equal({"n": 3, "stranger": True}, a.state("c", "doc-0"), "state of the node's document")
    check_equal({"x": [1, -2, "y"]}, a.state("own", "d"), "state in the stranger's collection")
    me.until("equal digests", lambda: in_step(me, a))


def writes_at_the_same_time(field):
    me, a = field.me, field.a
    session = me.sessions[-1]
    for n in range(10):
        later = a.append_later("c", "both", {"node": n})
        for k in range(3):
            me.write("c", "both", ("kv.SET", {"stranger": 3 * n + k}))
            me.turn(0)
        me.until("a command", lambda: later.poll() is not None)
        check_equal(0, later.returncode, "op append")
    me.until("equal digests", lambda: in_step(me, a))
    check_equal({"node": 9, "stranger": 29}, a.state("c", "both"), "state")
    check_equal(0, session.duplicates, "sent twice")


def catches_up_both_ways(field):
    a = field.a
    me = field.me = field.me.restarted()
    for n in range(8):
        a.append("c", "away", {"node": n})
        me.write("c", "away-%d" % (n % 2), ("kv.SET", {"stranger": n}))
    a.append("new at the node", "d", {"a": 1})
    me.write("new at the stranger", "d", ("kv.SET", {"a": 2}))
    before = sum(1 for _ in me.table.every())
    session = me.dial(a.url)
    me.until("equal digests", lambda: in_step(me, a))
    check_equal({"stranger": 7}, a.state("c", "away-1"), "state")
    check_equal(0, session.duplicates, "received twice")
    check_equal(before + session.fresh, sum(1 for _ in me.table.every()), "operations held")
    check_equal(11, session.fresh, "operations received: 8 SETs, a CREATE, and a document")
    check_equal(9, session.jobs_sent, "jobs sent: what the node had already is not among them")
    row = [r for r in a.run("status")[0]["remotes"] if r["name"] is None][-1]
    check_equal([0, 0], [row["duplicate_operations"], row["echoed_operations"]],
                "duplicates and echoes, by the node's count")


def compares_no_more_than_digests(field):
    """When level 0 is equal nothing is listed, and what comes next is sent all the same."""
    a = field.a
    me = field.me = field.me.restarted()
    session = me.dial(a.url)
    me.until("HAVE level 0", lambda: session.numbers[1] >= 2)
    a.append("c", "after", {"n": 1})
    a.append("not seen before", "after", {"n": 1})
    me.write("c", "after", ("kv.SET", {"m": 2}))
    me.write("not seen before, either", "after", ("kv.SET", {"m": 2}))
    me.until("equal digests", lambda: in_step(me, a))
    levels = [m[4] for _, m in session.log if m[0] == HAVE]
    check(1 not in levels and levels.count(0) == 2, "more than level 0 was compared", levels)
    check(not any(m[0] == HAVE and m[4] == 2 and any(e[2] or e[3] for e in m[6])
                  for _, m in session.log), "a listing though all was equal")
    check_equal(0, session.duplicates, "received twice")


def relays_between_two_nodes(field):
    me, a = field.me, field.a
    b = field.b = field.node("b")
    b.append("c", "of b", {"b": 1})
    session = me.dial(b.url)
    me.until("three in step", lambda: in_step(me, a) and in_step(me, b))
    asked = [m for direction, m in session.log if direction == "received" and m[0] == PULL]
    check(asked, "b did not ask for a's operations")
    check(not any(r[0] == me.origin for m in asked for _, ranges in m[2] for r in ranges),
          "b asked for the stranger's own operations, which come by themselves")
    a.append("c", "relay", {"a": 1})
    b.append("c", "relay", {"b": 2})
    me.write("c", "relay", ("kv.SET", {"stranger": 3}))
    me.until("three in step", lambda: in_step(me, a) and in_step(me, b))
    check_equal({"a": 1, "b": 2, "stranger": 3}, b.state("c", "relay"), "b's state")
    check_equal(a.run("digest"), b.run("digest"), "digests, of states too")
    check_equal([0, 0], [s.duplicates for s in me.sessions], "received twice")


def dialers_are_refused(field):
    url = field.c.url
    for wanted, kwargs in ((403, {"Origin": "http://example.org"}), (403, {"Host": "example.org"}),
                           (404, {"path": "/other"}), (400, {"protocol": None})):
        try:
            WebSocket(url, **kwargs).close()
        except Refusal as refusal:
            check_equal(wanted, refusal.status, "a dialer with %s" % kwargs)
        else:
            raise Failure("not refused: %s" % kwargs)


def breaches_end_a_session(field):
    url = field.c.url

    def ends(wanted, what, act, **kwargs):
        peer = Peer(url, **kwargs)
        act(peer)
        check_equal(ERRORS[wanted], peer.ended(what)[0], what)

    ends("PROTOCOL", "no HELLO", lambda p: p.have(2, []), greet=0)
    ends("PROTOCOL", "two HELLOs", lambda p: p.say(HELLO, 1, 0, bytes(16), bytes(16), 0, [],
                                                 [MESSAGE_BYTES_MAX, 0, 0], ""))
    ends("VERSION", "another major version", lambda p: None, major=2)
    ends("PROTOCOL", "a job number that is not the next", lambda p: p.say(JOBS, 2, []))
    ends("PROTOCOL", "an ACK of nothing", lambda p: p.say(ACK, 1, []))

    def skip_one(peer):
        peer.number += 1
        peer.have(2, [])
    ends("CHANNEL_NETWORK", "a gap", skip_one)

    def go_back(peer):
        peer.have(1, [["x", B(b"x")]])
        peer.have(2, [["x", None, True, True, [[bytes(16), [[5, B()]]]], []]])
        peer.have(2, [["x", None, False, False, [[bytes(16), [[4, B()]]]], []]])
    ends("PROTOCOL", "an announcement that goes back", go_back)

    peer = Peer(url)
    hello_ = peer.next(HELLO)
    ends("SELF", "the node's own reactor id", lambda p: None, reactor=hello_[4])
    ends("SELF", "the node's own origin", lambda p: None, origin=hello_[5])
    peer.close()
    same = os.urandom(16)
    peer = Peer(url, reactor=same)
    peer.next(HAVE)
    newer = Peer(url, reactor=same)
    check_equal(ERRORS["DUPLICATE_SESSION"], peer.ended("that")[0], "the older of two sessions")
    newer.next(HAVE)
    newer.say(PULL, [])
    op = write_operation("newer", newer.origin, 1, root("newer"), newer.clock, "d", "kv.SET", {})
    check_equal((0, 0), newer.offer(op), "the newer one stays")
    newer.close()
    peer = Peer(url)
    peer.socket.send(b"text", 1)
    check_equal(1003, peer.ended("that")[1], "a text message")
    peer = Peer(url)
    peer.socket.send(pack([99, 3, bytes(MESSAGE_BYTES_MAX)]))
    check_equal(1009, peer.ended("that")[1], "a message above 1 MiB")


def invalid_vectors_end_a_session(field):
    """Every invalid message of the vectors, in its place in a session."""
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vectors")
    with open(os.path.join(folder, "wire.json"), encoding="utf-8") as file:
        invalid = json.load(file)["invalid"]
    for case in invalid:
        data = bytes.fromhex(case["hex"])
        first = case["name"].startswith("HELLO")
        peer = Peer(field.c.url, greet=0 if first else 1)
        if not first and case["found_by"] != "validator":
            while peer.number + 1 < data[2]:
                peer.say(COMMAND)
        peer.socket.send(data)
        check_equal((ERRORS["PROTOCOL"], 1002), peer.ended(case["name"]), case["name"])


def what_is_unknown_is_skipped(field):
    peer = Peer(field.c.url)
    peer.say(COMMAND, "anything", [1.5, None])
    peer.say(77, [[["x"]]])
    peer.number -= 1
    peer.say(ACK, 99, [])       # of a number seen before
    peer.have(2, [["x", [None, ["a filter"], None], False, False, [], []]])
    peer.socket.send(pack([HAVE, peer.number + 1, peer.clock, 0, 2, False, [], "later", 1.5]))
    peer.number += 1
    data = write_message([COMMAND, peer.number + 1, "in fragments"])
    peer.number += 1
    peer.socket.frame(2, data[:5], final=False)
    peer.socket.frame(9, b"a ping between")
    peer.socket.frame(0, data[5:10], final=False)
    peer.socket.frame(0, data[10:])
    op = write_operation("skip", peer.origin, 1, root("skip"), peer.clock, "d", "kv.CREATE", None)
    check_equal((0, 0), peer.offer(op), "a job behind all that")
    peer.close()


def jobs_are_judged_one_by_one(field):
    peer = Peer(field.c.url)
    clock = peer.clock

    def op(seq, before, *, collection="judged", document="d", value=None, **kwargs):
        origin, hlc = kwargs.pop("origin", peer.origin), kwargs.pop("hlc", clock + seq)
        return write_operation(collection, origin, seq, before, hlc, document, "kv.SET",
                               value or {}, **kwargs)

    def answer(wanted, what, *parts):
        error, detail = peer.offer(*parts)
        check_equal(ERRORS[wanted] if wanted else 0, error, what)
        return detail

    one = op(1, root("judged"))
    hash_one = Operation(one).hash
    two = op(2, hash_one)
    answer("PAYLOAD", "bytes that are no operation", b"\xc0")
    answer("PREDECESSOR", "an operation before its predecessor", two)
    answer("CHAIN", "another root", op(1, bytes(32)))
    answer("CHAIN", "a job without its end", op(1, root("judged"), flags=CONTINUES))
    answer("CHAIN", "two jobs in one", one, two)
    answer("UNSUPPORTED", "a reserved collection", op(1, root("_r"), collection="_r"))
    answer("LIMIT", "an operation too large", op(1, root("judged"), payload=bytes(262100)))
    big, before = [], root("judged")
    for n in 1, 2, 3:
        big.append(op(n, before, payload=bytes(180000), flags=CONTINUES if n < 3 else 0))
        before = Operation(big[-1]).hash
    answer("LIMIT", "a job too large", *big)
    ahead = clock + CLOCK_AHEAD_MAX + (60000 << 16)
    detail = answer("CLOCK", "an operation dated too far ahead", op(1, root("judged"), hlc=ahead))
    check_equal(ahead - CLOCK_AHEAD_MAX, detail, "what the clock must reach")
    answer(None, "the first", one)
    answer(None, "the same again", one)
    answer(None, "the second", two)
    job = [op(3, Operation(two).hash, flags=CONTINUES)]
    job.append(op(4, Operation(job[0]).hash))
    answer("CHAIN", "a job of two documents", job[0], op(4, Operation(job[0]).hash, document="e"))
    answer(None, "a job of two", *job)
    answer("CHAIN", "a job that goes on with another elsewhere",
           op(4, Operation(job[0]).hash, document="e"))
    answer(None, "the rest of a job that forks", op(4, Operation(job[0]).hash, value={"x": 1}))
    answer(None, "a later version, with unknown flags and items",
           op(5, Operation(job[1]).hash, version=7, flags=1 << 40, payload=b""))
    answer(None, "an operation of somebody else", op(1, root("judged"), origin=b"o" * 16))
    for n in range(HEADS_MAX - 2):
        answer(None, "a fork", op(2, hash_one, value={"fork": n}))
    answer("QUARANTINED", "a ninth head", op(2, hash_one, value={"fork": "ninth"}))
    other = Peer(field.c.url)
    other.have(1, [])
    heads_ = []
    while not heads_:
        _, _, _, _, level, _, entries = other.next(HAVE)
        if level == 2:
            heads_ = next((h for e in entries for o, h in e[4] if o == peer.origin), heads_)
    check_equal([2] * 6 + [4, 5], [seq for seq, _ in heads_], "announced heads")
    peer.close()
    other.close()


def a_window_is_kept(field):
    c = field.c
    for n in range(6):
        c.append("window", "d", {"n": n, "filling": "x" * 300})
    for window in (8 << 20, 2), (500, 1024), (0, 0):
        peer = Peer(c.url, window=window)
        peer.have(1, [])
        done, most = 0, 1 if window != (8 << 20, 2) else 2
        while done < 6:
            _, _, first, jobs = peer.next(JOBS)
            check(first + len(jobs) - 1 - done <= most, "more in flight than the window of %s"
                  % (window,), first, len(jobs))
            if first + len(jobs) - 1 == done + most or first + len(jobs) - 1 == 6:
                done = first + len(jobs) - 1
                peer.say(ACK, done, [])
        peer.close()


def forks_are_pulled(field):
    """A client that holds one branch gets the other, and one that holds none gets all."""
    c = field.c
    peer = Peer(c.url)
    clock = peer.clock
    before, parts = root("forked"), []
    for seq in range(1, 13):
        parts.append(write_operation("forked", peer.origin, seq, before, clock + seq, "d", "kv.SET",
                                     {"seq": seq}))
        before = Operation(parts[-1]).hash
        check_equal((0, 0), peer.offer(parts[-1]), "a chain")
    late = Reactor(field.new("late"))
    late.dial(c.url)
    late.until("one branch", lambda: in_step(late, c))
    late = late.restarted()
    before = Operation(parts[3]).hash
    for seq in range(5, 12):
        part = write_operation("forked", peer.origin, seq, before, clock + seq, "d", "kv.SET",
                               {"other": seq})
        before = Operation(part).hash
        check_equal((0, 0), peer.offer(part), "a fork")
    peer.close()
    late.dial(c.url)
    late.until("the other branch", lambda: in_step(late, c))
    fresh = Reactor(field.new("fresh"))
    session = fresh.dial(c.url)
    fresh.until("both branches", lambda: in_step(fresh, c))
    check_equal([], [m for d, m in session.log if d == "sent" and m[0] == ACK and m[3]],
                "each after its predecessor")
    check_equal(2, len(fresh.table.origin("forked", peer.origin).heads), "heads")
    late.close()
    fresh.close()


def a_node_listens_to_bad_manners(field):
    """All that a stranger may do wrong, and what it may do though few will."""
    field.c = field.node("c")
    field.c.append("c", "d", {"n": 1})
    for part in (dialers_are_refused, breaches_end_a_session, invalid_vectors_end_a_session,
                 what_is_unknown_is_skipped, jobs_are_judged_one_by_one, a_window_is_kept,
                 forks_are_pulled):
        try:
            part(field)
        except Failure as wrong:
            raise Failure("%s: %s" % (part.__name__, wrong.args[0]), *wrong.args[1:]) from wrong
    check(field.c.run("verify")[-1]["ok"], "verify")


def stays_connected_when_idle(field):
    """Twelve seconds of silence, apart from a heartbeat each way. Bad manners fill the time."""
    me = field.me
    begun = time.monotonic()
    seen = [len(s.log) for s in me.sessions]
    a_node_listens_to_bad_manners(field)
    me.until("twelve seconds", lambda: time.monotonic() - begun > 12)
    for session, before in zip(me.sessions, seen):
        check(session.alive(), "a session ended")
        said = session.log[before:]
        # The last ACK and announcement may have been on their way when the silence began.
        check(all(m[0] in (HAVE, ACK) for _, m in said), "not idle", said)
        beats = {d for d, m in said if m[0] == HAVE and m[4] == 2 and m[6] == []}
        check(beats == {"sent", "received"}, "a heartbeat each way", said)
    field.a.append("c", "awake", {"a": 1})
    me.write("c", "awake", ("kv.SET", {"stranger": 1}))
    me.until("three in step", lambda: in_step(me, field.a) and in_step(me, field.b))


def everything_is_clean(field):
    me = field.me
    check_equal(field.a.run("digest"), field.b.run("digest"), "digests")
    for node in field.a, field.b:
        check(node.run("verify")[-1]["ok"], "verify")
        check(in_step(me, node), "the node's digests are not the stranger's", node.digests())
    again = me.restarted()
    check_equal(me.table.digest_of_all(), again.table.digest_of_all(), "the journal")
    again.close()


def stops_whoever_listens(field):
    """A node that is told to stop ends its sessions, also with one that never answers."""
    polite, deaf = Peer(field.b.url), Peer(field.b.url)
    for peer in polite, deaf:
        peer.next(HAVE)
    field.b.process.terminate()
    field.b.told = True
    error, _ = polite.ended("SIGTERM")
    check(error in (None, ERRORS["CLOSED"]), "why the session ended", error)
    check_equal(0, field.b.end(), "the node's exit code")
    deaf.close()


STAGES = (vectors_hold, receives_what_the_node_holds, sends_its_own, writes_at_the_same_time,
          catches_up_both_ways, compares_no_more_than_digests, relays_between_two_nodes,
          stays_connected_when_idle, everything_is_clean, stops_whoever_listens)


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: %s PATH-OF-TANDEM" % sys.argv[0])
    field = Field(os.path.abspath(sys.argv[1]))
    ok = False
    try:
        for stage in STAGES:
            begun = time.monotonic()
            stage(field)
            print("ok      %-36s %5.1f s" % (stage.__name__, time.monotonic() - begun), flush=True)
        ok = True
    except Failure as wrong:
        print("FAILED  %s: %s" % (stage.__name__, wrong.args[0]))
        for detail in wrong.args[1:]:
            print("            %s" % (detail,))
    except Exception:
        print("FAILED  %s" % stage.__name__)
        traceback.print_exc(file=sys.stdout)
    finally:
        field.me.close()
        ok = field.leave() and ok
    print("passed" if ok else "failed")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
