"""Item 9, the half of the network: whatever comes to the port, the node is unharmed.

The other side is written here from transport/PROTOCOL.md and store/FORMAT.md alone. After each
attack the connection must be closed, the attack counted in `listener.rejected` where it broke a
rule, and an honest peer still be in step.
"""

import base64
import contextlib
import hashlib
import os
import socket
import struct
import threading
import time

import node
from node import check

DEADLINE_S = 20
WINDOW_JOBS = 8192
RANGES_MAX = 1024 # that may be asked for at once
E = {"PREDECESSOR": -2, "PROTOCOL": -3, "CHANNEL_NETWORK": -4, "LIMIT": -18, "PAYLOAD": -22,
     "UNSUPPORTED": -23, "VERSION": -27, "CLOCK": -29, "SELF": -30, "CHAIN": -31,
     "QUARANTINED": -28}


# ---- msgpack, as much as is needed ----

def pack(value):
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if value < 0:
            return struct.pack(">b", value) if value >= -32 else b"\xd3" + struct.pack(">q", value)
        for limit, head, form in ((0x80, b"", ">B"), (0x100, b"\xcc", ">B"),
                                  (0x10000, b"\xcd", ">H"), (1 << 32, b"\xce", ">I")):
            if value < limit:
                return head + struct.pack(form, value)
        return b"\xcf" + struct.pack(">Q", value)
    if isinstance(value, str):
        value = value.encode()
        head = bytes([0xa0 | len(value)]) if len(value) < 32 else b"\xd9" + bytes([len(value)])
        return head + value
    if isinstance(value, bytes):
        for limit, head, form in ((0x100, b"\xc4", ">B"), (0x10000, b"\xc5", ">H")):
            if len(value) < limit:
                return head + struct.pack(form, len(value)) + value
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, Raw):
        return value.bytes
    if len(value) < 16:
        head = bytes([0x90 | len(value)])
    elif len(value) < 0x10000:
        head = b"\xdc" + struct.pack(">H", len(value))
    else:
        head = b"\xdd" + struct.pack(">I", len(value))
    return head + b"".join(pack(item) for item in value)


class Raw:
    def __init__(self, bytes_):
        self.bytes = bytes_


def unpack(bytes_, at=0):
    """(value, where it ends); the node's own messages hold nothing else."""
    head = bytes_[at]
    at += 1
    if head < 0x80:
        return head, at
    if head >= 0xe0:
        return head - 256, at
    if head in (0xc0, 0xc2, 0xc3):
        return {0xc0: None, 0xc2: False, 0xc3: True}[head], at
    numbers = {0xcc: ">B", 0xcd: ">H", 0xce: ">I", 0xcf: ">Q", 0xd0: ">b", 0xd1: ">h", 0xd2: ">i",
               0xd3: ">q"}
    if head in numbers:
        size = struct.calcsize(numbers[head])
        return struct.unpack(numbers[head], bytes_[at:at + size])[0], at + size
    sizes = {0xc4: ">B", 0xc5: ">H", 0xc6: ">I", 0xd9: ">B", 0xda: ">H", 0xdb: ">I", 0xdc: ">H",
             0xdd: ">I"}
    if head in sizes:
        size = struct.calcsize(sizes[head])
        count = struct.unpack(sizes[head], bytes_[at:at + size])[0]
        at += size
    else:
        count = head & (0x1f if head & 0xe0 == 0xa0 else 0x0f)
    if head in (0xdc, 0xdd) or 0x90 <= head < 0xa0:
        items = []
        for _ in range(count):
            item, at = unpack(bytes_, at)
            items.append(item)
        return items, at
    return bytes_[at:at + count], at + count


# ---- A peer of our own ----

class Closed(Exception):
    def __init__(self, code, text=b""):
        super().__init__("closed with %s %s" % (code, text))
        self.code = code


class Peer:
    """A WebSocket connection to a node, with messages numbered and masked by hand."""

    def __init__(self, url, headers=None, path="/tandem", handshake=True):
        host, port = url.split("/")[2].rsplit(":", 1)
        self.authority = "%s:%s" % (host, port)
        self.socket = socket.create_connection((host, int(port)), timeout=DEADLINE_S)
        self.read = b""
        self.number = 0
        self.heard = []
        if handshake:
            status = self.handshake(headers or {}, path)
            check(status == 101, "the handshake was answered with %s" % status)

    def handshake(self, headers, path="/tandem"):
        """Returns the HTTP status, or None if the node hung up."""
        fields = {"Host": self.authority, "Upgrade": "websocket", "Connection": "Upgrade",
                  "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
                  "Sec-WebSocket-Version": "13", "Sec-WebSocket-Protocol": "tandem.1"}
        fields.update(headers)
        text = "GET %s HTTP/1.1\r\n" % path + "".join(
            "%s: %s\r\n" % field for field in fields.items() if field[1] is not None) + "\r\n"
        self.socket.sendall(text.encode())
        while b"\r\n\r\n" not in self.read:
            bytes_ = self.receive()
            if not bytes_:
                break
            self.read += bytes_
        if not self.read:
            return None
        head, _, self.read = self.read.partition(b"\r\n\r\n")
        return int(head.split()[1])

    def receive(self):
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""

    def send_frame(self, bytes_, opcode=2, final=True, mask=True, reserved=0, size=None):
        head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
        size = len(bytes_) if size is None else size
        marked = 0x80 if mask else 0
        if size < 126:
            head += bytes([marked | size])
        elif size < 0x10000:
            head += bytes([marked | 126]) + struct.pack(">H", size)
        else:
            head += bytes([marked | 127]) + struct.pack(">Q", size)
        if mask:
            key = os.urandom(4)
            pad = (key * (len(bytes_) // 4 + 1))[:len(bytes_)]
            bytes_ = key + (int.from_bytes(bytes_, "big") ^ int.from_bytes(pad, "big")).to_bytes(
                len(bytes_), "big")
        with contextlib.suppress(OSError):  # hung up on already: reading will tell
            self.socket.sendall(head + bytes_)

    def send(self, *message):
        """Send a message: type and the items behind its number."""
        self.number += 1
        self.send_frame(pack([message[0], self.number, *message[1:]]))

    def take(self, size):
        while len(self.read) < size:
            bytes_ = self.receive()
            if not bytes_:
                raise Closed(None)
            self.read += bytes_
        taken, self.read = self.read[:size], self.read[size:]
        return taken

    def message(self):
        """The next message. Raises Closed."""
        whole = b""
        while True:
            first, second = self.take(2)
            size = second & 0x7f
            if size == 126:
                size = struct.unpack(">H", self.take(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self.take(8))[0]
            bytes_ = self.take(size)
            opcode = first & 0x0f
            if opcode == 8:
                raise Closed(struct.unpack(">H", bytes_[:2])[0] if size >= 2 else None, bytes_[2:])
            if opcode == 9:
                self.send_frame(bytes_, opcode=10)
            if opcode > 2:
                continue
            whole += bytes_
            if first & 0x80:
                value, _ = unpack(whole)
                self.heard.append(value)
                return value

    def until_closed(self):
        """Read on until the node hangs up; returns (close code, number of the ERROR or None)."""
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < DEADLINE_S:
                self.message()
        except Closed as closed:
            self.socket.close() # else the node waits for the answer to its close frame
            error = [value[2] for value in self.heard if value[0] == 7]
            return closed.code, error[0] if error else None
        except socket.timeout:
            pass
        raise node.Failure("the node did not hang up within %d s" % DEADLINE_S)

    def hello(self, major=1, reactor=None, origin=None):
        self.reactor, self.origin = reactor or os.urandom(16), origin or os.urandom(16)
        self.send(1, major, 0, self.reactor, self.origin, hlc(), [], [1 << 20, 8 << 20, 1024],
                  "test")
        return self

    def opened(self):
        """HELLO and a level 0 HAVE of nothing: a session that is open."""
        self.hello()
        self.send(2, hlc(), 0, 0, False, [0, hash_of(b"")])
        self.until(lambda value: value[0] == 2)
        return self

    def until(self, matches):
        begun = time.monotonic()
        while time.monotonic() - begun < DEADLINE_S:
            value = self.message()
            if matches(value):
                return value
        raise node.Failure("the message did not come")

    def answer_to(self, *operations):
        """Send one job; returns the error that its ACK tells, or None."""
        self.jobs = getattr(self, "jobs", 0) + 1
        self.send(3, self.jobs, [list(operations)])
        ack = self.until(lambda value: value[0] == 4 and value[2] >= self.jobs)
        errors = [one[1] for one in ack[3] if one[0] == self.jobs]
        return errors[0] if errors else None

    def close(self):
        self.socket.close()


def hash_of(*parts):
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


def hlc(ahead_s=0):
    return int((time.time() + ahead_s) * 1000) << 16


class Chain:
    """Operations of one origin in one collection."""

    def __init__(self, collection, origin):
        self.collection, self.origin, self.seq = collection, origin, 0
        self.last = hash_of(collection.encode(), bytes(16))

    def make(self, document, type_, payload, flags=0, scope="global", at=None, seq=None,
             predecessor=None):
        self.seq += 1
        head = b"".join(pack(item) for item in (
            1, flags, self.collection, self.origin, seq or self.seq, predecessor or self.last,
            at or hlc(), document, "main", scope, type_))
        body = pack(payload)
        header = body[:len(body) - len(payload)]
        canonical = b"\x9c" + head + body
        self.last = hash_of(hash_of(b"\x9c" + head + header), hash_of(payload))
        return canonical


# ---- The ground ----

class Ground:
    """A node under attack, and an honest peer that stays in step with it."""

    def __init__(self, field):
        self.field = field
        self.target, self.honest = field.nodes_started("target", "honest")
        self.honest.peer(self.target)
        self.count = 0

    def rejected(self):
        return self.target.status()["listener"]["rejected"]

    def check_unharmed(self, name, before=None):
        check(self.target.is_running(), "the node died of `%s`" % name, self.target.log())
        if before is not None:
            self.field.until("`%s` is counted in listener.rejected" % name,
                             lambda: self.rejected() > before)

    def check_in_step(self):
        self.count += 1
        self.honest.append("c", "honest", "counter", "ADD", 1)
        self.honest.wait(self.target)
        self.target.append("c", "honest", "counter", "ADD", 1)
        self.field.settle(self.target, self.honest)


def garbage_on_the_port_is_refused(field):
    ground = Ground(field)
    url = ground.target.url
    tls = bytes.fromhex("16030100c8010000c40303") + os.urandom(200)
    for name, bytes_ in (("random bytes", field.random.randbytes(5000)), ("zeros", bytes(5000)),
                         ("a TLS hello", tls), ("a line without end", b"GET /" + b"x" * 200000),
                         ("an endless header", b"GET /tandem HTTP/1.1\r\nX: " + b"y" * 200000),
                         ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n"),
                         ("a post", b"POST /tandem HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"),
                         ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100))):
        before = ground.rejected()
        peer = Peer(url, handshake=False)
        with contextlib.suppress(ConnectionError):
            peer.socket.sendall(bytes_)
        with contextlib.suppress(OSError):
            peer.socket.shutdown(socket.SHUT_WR)
        while True:
            try:
                if not peer.receive():
                    break
            except socket.timeout:
                raise node.Failure("the node keeps `%s` open" % name) from None
        peer.close()
        ground.check_unharmed(name, before)
    ground.check_in_step()


def requests_of_others_are_refused(field):
    ground = Ground(field)
    for name, headers, path, status in (
            ("an Origin header", {"Origin": "http://127.0.0.1"}, "/tandem", 403),
            ("a null Origin", {"Origin": "null"}, "/tandem", 403),
            ("a foreign Host", {"Host": "evil.example:7400"}, "/tandem", 403),
            ("another path", {}, "/", 404),
            ("a longer path", {}, "/tandem/x", 404),
            ("no subprotocol", {"Sec-WebSocket-Protocol": None}, "/tandem", 400),
            ("another subprotocol", {"Sec-WebSocket-Protocol": "chat"}, "/tandem", 400),
            ("no upgrade", {"Upgrade": None, "Connection": None}, "/tandem", None)):
        before = ground.rejected()
        peer = Peer(ground.target.url, handshake=False)
        found = peer.handshake(headers, path)
        check(found == status or (status is None and (found is None or 400 <= found < 500)),
              "%s was answered with %s, not %s" % (name, found, status))
        peer.close()
        ground.check_unharmed(name, before)
    ground.check_in_step()


def hostile_frames_are_refused(field):
    ground = Ground(field)
    for name, attack, code in (
            ("a text message", lambda p: p.send_frame(b"hello", opcode=1), (1003,)),
            ("more than 1 MiB", lambda p: p.send_frame(bytes(1 << 20 | 1)), (1009, None)),
            ("a frame that claims 2^62 bytes", lambda p: p.send_frame(b"x", size=1 << 62),
             (1009, 1002, None)),
            ("fragments of more than 1 MiB", lambda p: [
                p.send_frame(bytes(60000), opcode=2 if i == 0 else 0, final=False)
                for i in range(20)], (1009, None)),
            ("an unmasked frame", lambda p: p.send_frame(b"\x92\x01\x01", mask=False),
             (1002, None)),
            ("a reserved bit", lambda p: p.send_frame(b"x", reserved=4), (1002, None)),
            ("an unknown opcode", lambda p: p.send_frame(b"x", opcode=5), (1002, None)),
            ("a long ping", lambda p: p.send_frame(bytes(200), opcode=9), (1002, None)),
            ("a continuation of nothing", lambda p: p.send_frame(b"x", opcode=0), (1002, None))):
        for opened in (False, True):
            before = ground.rejected()
            peer = Peer(ground.target.url)
            if opened:
                peer.opened()
            attack(peer)
            found, error = peer.until_closed()
            check(found in code, "%s was closed with %s, ERROR %s" % (name, found, error))
            peer.close()
            ground.check_unharmed(name, before)
    ground.check_in_step()


def hostile_messages_are_refused(field):
    ground = Ground(field)
    many = b"\x94\x03\x02\x01\xdd" + struct.pack(">I", 70000) + b"\x90" * 70000
    for name, bytes_ in (
            ("an array of 4 G items", b"\xdd\xff\xff\xff\xff"),
            ("a map of 4 G items", b"\x93\x02\x02\xdf\xff\xff\xff\xff"),
            ("a bin of 4 GB", b"\x93\x02\x02\xc6\xff\xff\xff\xff"),
            ("a str of 4 GB", b"\x93\x02\x02\xdb\xff\xff\xff\xff"),
            ("an ext of 4 GB", b"\x93\x02\x02\xc9\xff\xff\xff\xff\x01"),
            ("arrays 100,000 deep", b"\x91" * 100000),
            ("maps 50,000 deep", b"\x93\x09\x02" + b"\x81\x01" * 50000 + b"\xc0"),
            ("70,000 values", many), ("nothing", b""), ("half a message", b"\x97\x02\x02\xcf\x01"),
            ("bytes behind it", pack([9, 2]) + b"\x00"), ("no array", b"\xa3abc"),
            ("no number", b"\x91\x02"), ("a negative type", b"\x92\xff\x02"),
            ("number 0", b"\x92\x02\x00"), ("the reserved byte", b"\x93\x02\x02\xc1"),
            ("a level that there is not", pack([2, 2, hlc(), 0, 7, False, []])),
            ("a HAVE of too few items", pack([2, 2, hlc()])),
            ("a hash of 31 bytes", pack([2, 2, hlc(), 0, 0, False, [1, bytes(31)]])),
            ("an ACK of what was not sent", pack([4, 2, 99, []])),
            ("a job number that is not next", pack([3, 2, 5, [[b"x"]]])),
            ("a second HELLO", pack([1, 2, 1, 0, bytes(16), bytes(16), 0, [],
                                     [1 << 20, 1 << 20, 8], "x"]))):
        before = ground.rejected()
        peer = Peer(ground.target.url).hello()
        peer.send_frame(bytes_)
        code, error = peer.until_closed()
        check(error == E["PROTOCOL"], "%s: ERROR %s, close code %s" % (name, error, code),
              peer.heard[-1:])
        peer.close()
        ground.check_unharmed(name, before)
    before = ground.rejected()
    peer = Peer(ground.target.url).hello()
    peer.number += 1
    peer.send(99)
    check(peer.until_closed()[1] == E["CHANNEL_NETWORK"], "a gap in the numbers", peer.heard)
    ground.check_unharmed("a gap in the numbers")
    ground.check_in_step()


def strangers_are_refused_by_their_hello(field):
    ground = Ground(field)
    for name, open_, wanted in (
            ("a message before HELLO", lambda p: p.send(2, hlc(), 0, 0, False, [0, hash_of(b"")]),
             E["PROTOCOL"]),
            ("an ERROR before HELLO", lambda p: p.send(7, -9, "x", 0), E["PROTOCOL"]),
            ("another major version", lambda p: p.hello(major=9), E["VERSION"]),
            ("major version 0", lambda p: p.hello(major=0), E["VERSION"])):
        before = ground.rejected()
        peer = Peer(ground.target.url)
        open_(peer)
        code, error = peer.until_closed()
        check(error == wanted, "%s: ERROR %s, close code %s" % (name, error, code))
        peer.close()
        ground.check_unharmed(name, before)
    # Of another major version only four items are certain: the rest may be anything.
    peer = Peer(ground.target.url)
    peer.send(1, 9, 1, Raw(b"\x81\x01\x02"))
    check(peer.until_closed()[1] == E["VERSION"], "a strange HELLO of version 9", peer.heard)
    # Its own ids, which anybody can learn by connecting.
    peer = Peer(ground.target.url).hello()
    theirs = peer.until(lambda value: value[0] == 1)
    peer.close()
    peer = Peer(ground.target.url).hello(reactor=theirs[4], origin=theirs[5])
    check(peer.until_closed()[1] == E["SELF"], "its own HELLO", peer.heard)
    ground.check_unharmed("its own HELLO")
    ground.check_in_step()


def open_link(target, link):
    """The first exchange of a link over HTTP, which says nothing."""
    raw = socket.create_connection(("127.0.0.1", target.port), timeout=DEADLINE_S)
    raw.sendall(request_of(link, 1, 4) + bytes(4))
    check(raw.recv(4096).startswith(b"HTTP/1.1 200 "), "a link was not opened")
    return raw


def request_of(link, number, size):
    return ("POST /tandem HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/vnd.tandem.1\r\n"
            "Tandem-Link: %s\r\nTandem-Exchange: %d\r\nContent-Length: %d\r\n\r\n" %
            (link, number, size)).encode()


def send_nearly(raw, bytes_):
    """As much of it as is taken."""
    with contextlib.suppress(OSError):
        raw.settimeout(0.2)
        raw.sendall(bytes_)


def strangers_get_no_memory(field):
    """Who never says HELLO and sends what is large, all but its end: hundreds of them at once, over
    WebSocket and over HTTP, would else have a node hold a megabyte each, or four."""
    ground = Ground(field)
    count, raws = field.size(150, 450), []
    for _ in range(count):
        peer = Peer(ground.target.url)
        send_nearly(peer.socket, b"\x82\xff" + struct.pack(">Q", 1 << 20) + bytes(4) +
                    bytes((1 << 20) - 1))
        raws.append(peer.socket)
        # One that fits, as far as its frames tell: it grows by fragments.
        peer = Peer(ground.target.url)
        for i in range(16):
            with contextlib.suppress(OSError):
                peer.send_frame(bytes(60000), opcode=0 if i else 2, final=False)
        raws.append(peer.socket)
    for _ in range(count):
        link = os.urandom(16).hex()
        for number in (2, 3):
            raw = open_link(ground.target, link) if number == 2 else socket.create_connection(
                ("127.0.0.1", ground.target.port), timeout=DEADLINE_S)
            send_nearly(raw, request_of(link, number, 2 << 20) + bytes((2 << 20) - 1))
            raws.append(raw)
    field.check_memory(ground.target)
    ground.check_in_step()
    for raw in raws:
        raw.close()
    ground.check_unharmed("strangers")
    ground.check_in_step()


def jobs_beyond_the_window_end_the_session(field):
    ground = Ground(field)
    before = ground.rejected()
    peer = Peer(ground.target.url).opened()
    # Of bytes that are no operation: so many that are do not fit into a message.
    peer.send(3, 1, [[b""]] * (WINDOW_JOBS + 1))
    code, error = peer.until_closed()
    check(error == E["PROTOCOL"], "too many jobs at once: ERROR %s, close code %s" % (error, code))
    ground.check_unharmed("too many jobs at once", before)
    # Twice the window in bytes without waiting for an ACK. Taken in time, or cut off: both legal.
    peer = Peer(ground.target.url).opened()
    chain = Chain("window", peer.origin)
    jobs = [[chain.make("d", "log.APPEND", bytes(250000))] for _ in range(64)]
    thread = threading.Thread(target=lambda: [peer.send(3, i + 1, [job])
                                              for i, job in enumerate(jobs)], daemon=True)
    thread.start()
    try:
        peer.until(lambda value: value[0] == 4 and value[2] == len(jobs))
        field.say("16 MB at once were swallowed")
    except Closed:
        field.say("16 MB at once were cut off")
    peer.close()
    thread.join(2 * DEADLINE_S)
    ground.check_unharmed("16 MB at once")
    field.check_memory(ground.target)
    ground.check_in_step()


def more_ranges_asked_than_may_be_end_the_session(field):
    ground = Ground(field)
    # One operation of each of so many origins, for nothing is asked that is not held.
    origins = [os.urandom(16) for _ in range(RANGES_MAX + 1)]
    peer = Peer(ground.target.url).opened()
    for first in range(0, len(origins), 500):
        jobs = [[Chain("asked", origin).make("d%d" % (first // 500), "counter.ADD", pack(1))]
                for origin in origins[first:first + 500]]
        peer.send(3, first + 1, jobs)
        peer.until(lambda value: value[0] == 4 and value[2] >= first + len(jobs))
    peer.close()
    for count, wanted in ((RANGES_MAX, None), (RANGES_MAX + 1, E["LIMIT"])):
        before = ground.rejected()
        peer = Peer(ground.target.url).opened()
        peer.send(5, [["asked", [[origin, 1, 1] for origin in origins[:count]]]])
        if wanted is None:
            # The session goes on.
            peer.send(3, 1, [[Chain("asked", peer.origin).make("d", "counter.ADD", pack(1))]])
            peer.until(lambda value: value[0] == 4)
            peer.close()
            continue
        code, error = peer.until_closed()
        check(error == wanted, "%d ranges: ERROR %s, close code %s" % (count, error, code))
        ground.check_unharmed("%d ranges" % count, before)
    ground.check_in_step()


def hostile_operations_are_answered_one_by_one(field):
    ground = Ground(field)
    peer = Peer(ground.target.url).opened()

    def fresh(collection="hostile"):
        return Chain(collection, os.urandom(16))

    one = fresh()
    check(peer.answer_to(one.make("ok", "counter.ADD", pack(1))) is None, "a good job was refused")
    for name, operation, error in (
            ("no operation", b"garbage", "PAYLOAD"),
            ("nothing", b"", "PAYLOAD"),
            ("half an operation", fresh().make("d", "counter.ADD", pack(1))[:-3], "PAYLOAD"),
            ("more than an operation", fresh().make("d", "counter.ADD", pack(1)) + b"x", "PAYLOAD"),
            ("a control character in a name", fresh().make("d\n", "counter.ADD", pack(1)),
             "PAYLOAD"),
            ("a type without a dot", fresh().make("d", "counter", pack(1)), "PAYLOAD"),
            ("a payload that claims 4 GB", fresh().make("d", "counter.ADD", pack(1))[:-3] +
             b"\xc6\xff\xff\xff\xff", "PAYLOAD"),
            ("300 KB", fresh().make("d", "counter.ADD", bytes(300000)), "LIMIT"),
            ("a reserved collection", fresh("_tandem").make("d", "counter.ADD", pack(1)),
             "UNSUPPORTED"),
            ("a date 10 minutes ahead", fresh().make("d", "counter.ADD", pack(1), at=hlc(600)),
             "CLOCK"),
            ("a date at the end of time", fresh().make("d", "counter.ADD", pack(1),
                                                       at=(1 << 64) - 1), "CLOCK"),
            ("a job that goes on", fresh().make("d", "counter.ADD", pack(1), flags=1), "CHAIN"),
            ("another root", fresh().make("d", "counter.ADD", pack(1), predecessor=bytes(32)),
             "CHAIN"),
            ("a predecessor that is not held", fresh().make("d", "counter.ADD", pack(1), seq=7),
             "PREDECESSOR")):
        answer = peer.answer_to(operation)
        check(answer == E[error], "%s was answered with %s, not %s" % (name, answer, error))
    # What is well formed and hostile inside is kept, relayed, and a no-op in every fold.
    bomb = fresh("bombs")
    for payload in (b"\x91" * 5000 + b"\xc0", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
                    b"\xc6\xff\xff\xff\xff", b"", b"\xc1", b"\xdc\xff\xff" + bytes(65535)):
        for type_ in ("kv.SET", "counter.ADD", "log.APPEND", "kv.CREATE", "strange.TYPE"):
            check(peer.answer_to(bomb.make("bomb", type_, payload)) is None,
                  "a payload that only the fold must judge was refused", type_, payload[:8])
    peer.close()
    field.until("the honest peer has it all", lambda: ground.honest.vectors() ==
                ground.target.vectors())
    ground.check_in_step()
    for target in (ground.target, ground.honest):
        target.run("--json", "doc", "show", "bombs", "bomb", code=None)
        target.run("--json", "op", "ls", "bombs", code=None)
        check(target.is_running(), "a bomb killed %s" % target.name, target.log())
        target.verify()
    status = ground.target.status()
    check(status["store"]["quarantined"] == 0, "something was quarantined", status)


def a_live_origin_is_forked_beyond_its_heads(field):
    """Other bytes under the number of what a living reactor has written: seven branches beside its
    own are kept, by everybody the same, and it goes on under a new origin."""
    ground = Ground(field)
    count = 0
    for victim in (ground.target, ground.honest):
        collection, origin = "live-" + victim.name, victim.status()["origin"]
        for _ in range(3):
            victim.append(collection, "d", "counter", "ADD", 1)
        field.settle(ground.target, ground.honest)
        count += 3
        liar = Peer(ground.target.url).opened()
        liar.send(3, 1, [[Chain(collection, bytes.fromhex(origin)).make("lies", "log.APPEND",
                                                                        pack(number))]
                         for number in range(10)])
        with contextlib.suppress(Closed):  # with the old origin its sessions end
            refused = {one[1] for one in liar.until(lambda value: value[0] == 4 and
                                                    value[2] >= 10)[3]}
            check(refused == {E["QUARANTINED"]}, "what the ACK tells", refused)
        liar.close()
        field.until("%s takes a new origin" % victim.name,
                    lambda victim=victim, origin=origin: victim.status()["origin"] != origin)
        victim.append(collection, "d", "counter", "ADD", 1)
        count += 1
        field.settle(ground.target, ground.honest)
        for one in (ground.target, ground.honest):
            rows = one.json("op", "ls", collection)
            lies = [row for row in rows if row["document"] == "lies"]
            check(len(lies) == 7 and all(row["seq"] == 1 and row["origin"] == origin
                                         for row in lies), "the branches that are kept", lies)
            check(one.json("doc", "show", collection, "d")[0]["state"] == 4, "the counter", rows)
            one.verify()
    ground.check_unharmed("a fork of a live origin")
    ground.check_in_step()


def claims_of_live_origins_do_no_harm(field):
    """More of a node's own origin than it has written, and more of a third's: nobody waits for it."""
    ground = Ground(field)
    owners = [ground.target, ground.honest]
    for owner in owners:
        owner.append("c", "d", "counter", "ADD", 1)
    field.settle(*owners)
    origins = sorted(bytes.fromhex(owner.status()["origin"]) for owner in owners)
    liar = Peer(ground.target.url).opened()
    liar.send(2, hlc(), 0, 2, False, [["c", None, True, True, [
        [origin, [[1000, os.urandom(32)]]] for origin in origins], []]])
    asked = liar.until(lambda value: value[0] == 5)
    check(asked[2][0][0] == b"c", "what was asked for", asked)
    ground.check_in_step()  # while it does not answer
    liar.close()
    ground.check_in_step()
    ground.check_unharmed("a claim of a live origin")
    for owner in owners:
        check(owner.json("doc", "show", "c", "d")[0]["state"] == 2, "the counter")
        owner.verify()


def mutated_messages_do_no_harm(field):
    """Whatever random changes make of valid messages; the seed repeats them."""
    ground = Ground(field)
    random = field.random
    refused = 0
    for _ in range(field.size(150, 5000)):
        peer = Peer(ground.target.url).opened()
        chain = Chain("mutants", peer.origin)
        for _ in range(3):
            kind = random.randrange(4)
            peer.number += 1
            if kind == 0:
                message = [3, peer.number, 1, [[chain.make("d", "kv.SET", b"\x81\xa1a\x01")]]]
            elif kind == 1:
                message = [2, peer.number, hlc(), 0, 2, False, [
                    ["mutants", None, True, True, [[peer.origin, [[3, bytes(32)]]]], []]]]
            elif kind == 2:
                message = [5, peer.number, [["c", [[os.urandom(16), 1, 9]]]]]
            else:
                message = [2, peer.number, hlc(), 0, 1, False, [["mutants", bytes(32)]]]
            bytes_ = bytearray(pack(message))
            for _ in range(random.choice((0, 1, 1, 2, 8))):
                way = random.randrange(4)
                at = random.randrange(len(bytes_))
                if way == 0:
                    bytes_[at] = random.randrange(256)
                elif way == 1:
                    bytes_[at] ^= 1 << random.randrange(8)
                elif way == 2:
                    del bytes_[at:at + random.randrange(1, 4)]
                else:
                    bytes_[at:at] = random.randbytes(random.randrange(1, 4))
                if not bytes_:
                    bytes_ = bytearray(b"\x90")
            peer.send_frame(bytes(bytes_))
        peer.socket.settimeout(0.002)
        try:
            while True:
                peer.message()
        except Closed:
            refused += 1
        except socket.timeout:
            pass
        peer.close()
        check(ground.target.is_running(), "the node died", ground.target.log())
    field.say("%d sessions were ended by the node in time to be seen" % refused)
    ground.check_in_step()
    field.check_memory(ground.target)
    ground.target.verify()


def idle_connections_do_not_keep_peers_out(field):
    ground = Ground(field)
    idle = []
    try:
        for i in range(200):
            peer = Peer(ground.target.url, handshake=False)
            idle.append(peer)
            if i % 2:
                peer.socket.sendall(b"GET /tandem HTTP/1.1\r\nHost: ")
        ground.check_in_step()
        for i in range(100):
            idle.append(Peer(ground.target.url))
            if i % 2:
                idle[-1].opened()
        ground.check_in_step()
    finally:
        for peer in idle:
            peer.close()
    ground.check_in_step()
    field.check_memory(ground.target)


def a_hostile_listener_does_no_harm(field):
    """What the node dials may be anything, too."""
    answers = {
        "silent": lambda c: c.recv(9999),
        "garbage": lambda c: c.sendall(os.urandom(5000)),
        "web": lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        "moved": lambda c: c.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n"
                                     b"Content-Length: 0\r\n\r\n"),
        "wrong-key": lambda c: c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket"
                                         b"\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA"
                                         b"\r\nSec-WebSocket-Protocol: tandem.1\r\n\r\n"),
        "endless": lambda c: c.sendall(b"HTTP/1.1 101 x\r\n" + b"X: " + b"y" * 300000),
        "hang-up": lambda c: None,
    }
    listener = socket.create_server(("127.0.0.1", 0))
    kind = {}

    def serve():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    client.settimeout(1)
                    if kind["now"] != "hang-up":
                        client.recv(65536)
                    answers[kind["now"]](client)

    thread = threading.Thread(target=serve, daemon=True)
    ground = Ground(field)
    kind["now"] = "silent"
    thread.start()
    field.at_end.append(listener.close)
    for name in answers:
        kind["now"] = name
        ground.target.run("-q", "peer", "add", name, "ws://127.0.0.1:%d/tandem" %
                          listener.getsockname()[1])
        row = field.until("`%s` has a named state" % name, lambda: [
            row for row in ground.target.status()["remotes"] if row["name"] == name and
            row["state"] in ("blocked", "backing_off", "resting") and row["reason"]])[0]
        field.say("%s: %s, %s" % (name, row["state"], row["reason"]))
        ground.target.run("-q", "peer", "rm", name)
    listener.close()
    ground.check_in_step()


node.main(garbage_on_the_port_is_refused,
          requests_of_others_are_refused,
          hostile_frames_are_refused,
          hostile_messages_are_refused,
          strangers_are_refused_by_their_hello,
          strangers_get_no_memory,
          jobs_beyond_the_window_end_the_session,
          more_ranges_asked_than_may_be_end_the_session,
          hostile_operations_are_answered_one_by_one,
          a_live_origin_is_forked_beyond_its_heads,
          claims_of_live_origins_do_no_harm,
          mutated_messages_do_no_harm,
          idle_connections_do_not_keep_peers_out,
          a_hostile_listener_does_no_harm)
