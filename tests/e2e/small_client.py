#!/usr/bin/env python3
"""A client of the Tandem protocol, small enough to be read at a sitting, and a test of it.

It was written from transport/PROTOCOL.md alone, whose sections the numbers like (7) are. It keeps its
operations in memory, so each run is a new reactor with a new origin, and writes no sums (3).

usage: small_client.py TANDEM [IDLE_SECONDS]
"""
import base64, collections, hashlib, http.client, os, re, select, socket, struct, time

HELLO, HAVE, JOBS, ACK, PULL, ERROR = 1, 2, 3, 4, 5, 7
PREDECESSOR, PROTOCOL, NETWORK, TIMEOUT, LIMIT, PAYLOAD = -2, -3, -4, -16, -18, -22
UNSUPPORTED, VERSION, QUARANTINED, CLOCK, SELF, CHAIN = -23, -27, -28, -29, -30, -31

class Failure(Exception):
    """(error, text) that ends a session by ERROR, or (error, detail) that refuses a job by ACK."""

def B(*parts):
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()

# -- msgpack

def header(n, short, below, wide, size=1):
    """Of a number or length: one byte if it is small, else `wide` or the next codes, of doubling size."""
    if n < below:
        return bytes([short + n])
    while n >= 1 << 8 * size:
        wide, size = wide + 1, size * 2
    return bytes([wide]) + n.to_bytes(size, "big")

def pack(v):
    if v is None or isinstance(v, bool): return bytes([0xc0 if v is None else 0xc2 + v])
    if isinstance(v, int): return header(v, 0, 128, 0xcc) if v >= 0 else struct.pack(">Bq", 0xd3, v)
    if isinstance(v, bytes): return header(len(v), 0, 0, 0xc4) + v
    if isinstance(v, str):
        v = v.encode("utf-8", "surrogateescape")
        return header(len(v), 0xa0, 32, 0xd9) + v
    if isinstance(v, dict): return header(len(v), 0x80, 16, 0xde, 2) + b"".join(pack(k) + pack(v[k]) for k in v)
    return header(len(v), 0x90, 16, 0xdc, 2) + b"".join(map(pack, v))

def unpack(data, levels=16):
    """The one value in the bytes. Maps become tuples and extensions `...`: nothing here reads them."""
    at = count = 0
    def take(n):
        nonlocal at
        if n > len(data) - at: raise Failure(PROTOCOL, "more was promised than there is")
        at += n
        return data[at - n:at]
    def number(size, signed=False): return int.from_bytes(take(size), "big", signed=signed)
    def string(n): return take(n).decode("utf-8", "surrogateescape")
    def items(n, level):
        if level > levels or n > len(data) - at: raise Failure(PROTOCOL, "too deep, or more items than bytes")
        return [value(level) for _ in range(n)]
    def value(level):
        nonlocal count
        count, c = count + 1, number(1)
        if count > 65536 or c == 0xc1: raise Failure(PROTOCOL, "too many values, or no msgpack")
        if c < 0x80: return c
        if c < 0x90: return tuple(items(2 * (c & 15), level + 1))
        if c < 0xa0: return items(c & 15, level + 1)
        if c < 0xc0: return string(c & 31)
        if c < 0xc4: return (None, None, False, True)[c & 3]
        if c < 0xc7: return take(number(1 << c - 0xc4))
        if c < 0xca: return take(number(1 << c - 0xc7) + 1) and ...
        if c < 0xcc: return struct.unpack(">f" if c == 0xca else ">d", take(4 << c - 0xca))[0]
        if c < 0xd4: return number(1 << (c & 3), signed=c >= 0xd0)
        if c < 0xd9: return take(1 + (1 << c - 0xd4)) and ...
        if c < 0xdc: return string(number(1 << c - 0xd9))
        if c < 0xde: return items(number(2 << c - 0xdc), level + 1)
        if c < 0xe0: return tuple(items(2 * number(2 << c - 0xde), level + 1))
        return c - 256
    result = value(0)
    if at < len(data): raise Failure(PROTOCOL, "bytes behind the message")
    return result

# -- the form of messages (3, 4): a function, a size of bytes, [of each item], (of positions; more may follow)

def fits(v, form):
    if callable(form): return form(v)
    if isinstance(form, int): return type(v) is bytes and len(v) == form
    if isinstance(form, list): return type(v) is list and all(fits(item, form[0]) for item in v)
    return type(v) is list and len(v) >= len(form) and all(map(fits, v, form))

def anything(v): return True
def flag(v): return type(v) is bool
def blob(v): return type(v) is bytes
def uint(v): return type(v) is int and v >= 0
def nth(v): return type(v) is int and v >= 1
def error(v): return type(v) is int and v < 0
def text(v, most=256): return type(v) is str and len(v.encode("utf-8", "surrogateescape")) <= most
def name(v): return v and text(v, 128) and not re.search("[\0-\x1f\x7f-\x9f\ud800-\udfff]", v)
def limits(v): return fits(v, (uint, uint, uint)) and v[0] >= 540672
def span(v): return fits(v, (16, nth, nth)) and v[1] <= v[2]
def refusal(v): return span(v) and fits(v[3:], (32, error))
def heads(v): return fits(v, [(nth, 32)]) and 1 <= len(v) <= 8 and all(a[:2] < b[:2] for a, b in zip(v, v[1:]))
def job(v): return fits(v, [blob]) and 1 <= len(v) <= 1000
def hello(v): return v[2] != 1 or fits(v[4:], (16, 16, uint, [text], limits, text) + (16,) * (len(v) > 10))
def have(v): return v[4] in LEVELS and fits(v[6], LEVELS[v[4]])

LEVELS = {0: (uint, 32), 1: [(name, lambda v: v is None or fits(v, 32))],
          2: [(name, anything, flag, flag, [(16, heads)], [refusal])]}
FORMS = {HELLO: (uint, nth, uint, uint), HAVE: (uint, nth, uint, uint, uint, flag, anything),
         JOBS: (uint, nth, nth, [job]), ACK: (uint, nth, uint, [(nth, error, uint)]),
         PULL: (uint, nth, [(name, [span])]), ERROR: (uint, nth, error, text, uint)}

def read_message(data):
    m = unpack(data) if len(data) <= 1 << 20 else None
    if not (fits(m, (uint, nth)) and fits(m, FORMS.get(m[0], ())) and {HELLO: hello, HAVE: have}.get(m[0], anything)(m)):
        raise Failure(PROTOCOL, "no message, or not as in section 4")
    return m

# -- what the client holds (10)

Operation = collections.namedtuple("Operation", "raw hash key seq before hlc place more")

def read_operation(raw):
    try:
        items = unpack(raw, 17)                      # each item behind the payload: 16
        good = fits(items, (nth, uint, name, 16, nth, 32, uint, name, name, name, name, blob))
    except Failure:
        good = False
    front = header(len(items), 0x90, 16, 0xdc, 2) + b"".join(map(pack, items[:12])) if good else b""
    if not good or not raw.startswith(front) or not re.search(r".\.[^.]+$", items[10]):
        raise Failure(PAYLOAD, 0)
    body = len(front) - len(items[11])
    return Operation(raw, B(B(raw[:body], raw[len(front):]), B(items[11])), (items[2], items[3]), items[4], items[5],
                     items[6], items[7:9], items[1] & 1)

class Replica:
    def __init__(self):
        self.reactor, self.origin, self.clock = os.urandom(16), os.urandom(16), 0
        self.held = {}         # (collection, origin): {(seq, hash): operation}
        self.jobs = {}         # (collection, origin): [job, …] as they were stored
        self.heads = {}        # collection: {origin: {(seq, hash), …}}
        self.log = []          # (collection, origin) of each job, in the order of storing

    def now(self):
        self.clock = max(self.clock + 1, time.time_ns() // 1_000_000 << 16)
        return self.clock

    def store(self, raws):
        """Takes a job whole, or raises why not. A client with a disk commits before it returns."""
        if max(map(len, raws)) > 262144 or sum(map(len, raws)) > 524288:
            raise Failure(LIMIT, 0)
        job = [read_operation(raw) for raw in raws]
        (c, origin), latest = job[0].key, max(op.hlc for op in job)
        if latest - 19_660_800_000 > time.time_ns() // 1_000_000 << 16:
            raise Failure(CLOCK, latest - 19_660_800_000)
        root = (0, B(c.encode(), bytes(16)))
        whole = all((b.key, b.place, b.seq, b.before) == (a.key, a.place, a.seq + 1, a.hash) and a.more
                    for a, b in zip(job, job[1:])) and not job[-1].more
        if not whole or job[0].seq == 1 and job[0].before != root[1]:
            raise Failure(CHAIN, 0)
        if c.startswith("_"):
            raise Failure(UNSUPPORTED, 0)
        held = self.held.get((c, origin), {})
        job = [op for op in job if (op.seq, op.hash) not in held]
        if not job:
            return
        before, heads = (job[0].seq - 1, job[0].before), self.heads.get(c, {}).get(origin, set())
        if before != root and before not in held:
            raise Failure(PREDECESSOR, 0)
        if before != root and held[before].more and held[before].place != job[0].place:
            raise Failure(CHAIN, 0)
        if before not in heads and len(heads) == 8:
            raise Failure(QUARANTINED, 0)
        self.heads.setdefault(c, {})[origin] = heads - {before} | {(job[-1].seq, job[-1].hash)}
        self.held.setdefault((c, origin), held).update({(op.seq, op.hash): op for op in job})
        self.jobs.setdefault((c, origin), []).append(job)
        self.log.append((c, origin))
        self.clock = max(self.clock, latest)

    def write(self, collection, document, *changes):
        """One job of our own; a change is (scope, type, value)."""
        seq, before = max(self.heads.get(collection, {}).get(self.origin, [(0, B(collection.encode(), bytes(16)))]))
        raws = []
        for i, (scope, kind, value) in enumerate(changes, 1):
            raws.append(pack([1, int(i < len(changes)), collection, self.origin, seq + i, before, self.now(), document,
                              "main", scope, kind, pack(value)]))
            before = read_operation(raws[-1]).hash
        self.store(raws)

    def digest(self, collection):
        return B(*(origin + seq.to_bytes(8, "big") + hash for origin, heads in sorted(self.heads.get(collection, {}).items())
                   for seq, hash in sorted(heads)))
    def digest_of_all(self):
        return B(*(B(c.encode()) + self.digest(c) for c in sorted(self.heads)))

# -- a session (5, 6, 7), over anything with send, receive and close

class Session:
    def __init__(self, replica, transport):
        self.replica, self.transport, self.peer = replica, transport, None
        self.sent = self.got = self.jobs_sent = self.jobs_done = self.jobs_got = 0
        self.theirs = collections.defaultdict(dict)  # what the peer announced: collection: {origin: {(seq, hash), …}}
        self.known, self.begun = set(), set()        # collections whose vector is known, whose listing began
        self.named, self.all_named = set(), False    # those of the peer's level 1: what it lacks then, the peer had not
        self.listed, self.all_listed = set(), False  # what we announced
        self.queue, self.flight = collections.deque(), collections.deque()
        self.offered, self.refused = {}, []          # own seq by collection; exceptions of ACKs
        self.due, self.back, self.asked = {}, {}, set()  # of PULLs, by (collection, origin)
        self.told, self.heard = len(replica.log), time.monotonic()
        self.say(HELLO, 1, 0, replica.reactor, replica.origin, replica.now(), [], [1 << 20, 8 << 20, 1024], "small client")
        self.have(0, [len(replica.heads), replica.digest_of_all()])

    def say(self, kind, *items):
        self.sent, self.spoke = self.sent + 1, time.monotonic()
        self.transport.send(pack([kind, self.sent, *items]))

    def have(self, level, entries, more=False):
        now = self.replica.now()
        self.say(HAVE, now, now, level, more, entries)

    def list_all(self):
        if not self.all_listed:
            self.all_listed, rows = True, [[c, self.replica.digest(c)] for c in sorted(self.replica.heads)]
            for i in range(0, max(len(rows), 1), 4096):
                self.have(1, rows[i:i + 4096], i + 4096 < len(rows))

    def list_one(self, c):
        if c not in self.listed:
            self.listed.add(c)
            rows = [[origin, sorted(heads)] for origin, heads in sorted(self.replica.heads.get(c, {}).items())]
            for i in range(0, max(len(rows), 1), 500):
                self.have(2, [[c, None, i == 0, i + 500 >= len(rows), rows[i:i + 500], []]])

    def step(self, seconds=0.05):
        """Reads one message, if one comes in that time, and says what there is to say."""
        try:
            data = self.transport.receive(seconds)
            if data is not None:
                self.heard = time.monotonic()
                self.take(*read_message(data))
            elif time.monotonic() - self.heard > 30:
                raise Failure(TIMEOUT, "nothing was heard for 30 s")
            if self.peer:
                self.tell(), self.ask(), self.offer()
            if time.monotonic() - self.spoke > 9:
                self.have(2, [])                     # a heartbeat
        except Failure as failure:
            self.say(ERROR, *failure.args, 0)
            self.transport.close(1002)
            raise

    def take(self, kind, number, *items):
        if number > self.got + 1: raise Failure(NETWORK, "a message is missing")
        if number <= self.got: return
        self.got = number
        if (kind == HELLO) == bool(self.peer): raise Failure(PROTOCOL, "HELLO comes first, and once")
        on = {HELLO: self.on_hello, HAVE: self.on_have, JOBS: self.on_jobs, ACK: self.on_ack, PULL: self.on_pull,
              ERROR: self.on_error}
        if kind in on: on[kind](*items)

    def on_hello(self, major, minor, reactor=None, origin=None, clock=None, features=None, limits=None, *_):
        if major != 1: raise Failure(VERSION, "this client speaks version 1")
        if reactor == self.replica.reactor or origin == self.replica.origin: raise Failure(SELF, "that is me")
        self.peer, self.window = origin, limits[1:3]

    def on_error(self, error, text, *_):
        raise ConnectionError(f"the peer ended the session: {error} {text}")

    def on_have(self, clock, promise, level, more, entries, *_):
        if level == 0 and entries[1] != self.replica.digest_of_all():
            self.list_all()
        elif level == 0:
            self.all_named = True
            for c in self.replica.heads:
                self.same(c)
        elif level == 1:
            self.list_all()
            for c, digest, *_ in entries:
                self.named.add(c)
                if c in self.replica.heads and digest == self.replica.digest(c): self.same(c)
                elif not c.startswith("_"): self.list_one(c)
            self.all_named = not more
            for c in () if more else self.replica.heads.keys() - self.named:
                self.list_one(c)
        else:
            for entry in entries:
                if entry[1] is None and not entry[0].startswith("_"): self.on_vector(*entry)

    def same(self, c):
        self.known.add(c)
        self.theirs[c] = dict(self.replica.heads[c])

    def on_vector(self, c, filter, begin, end, origins, *_):
        if begin and c in self.begun: raise Failure(PROTOCOL, "a second listing")
        if begin: self.begun.add(c)
        for origin, rows, *_ in origins:
            new, old = {(row[0], row[1]) for row in rows}, self.theirs[c].get(origin, {(0, b"")})
            if max(new)[0] >= max(old)[0]: self.theirs[c][origin] = new
            elif c in self.known: raise Failure(PROTOCOL, "a seq fell")
        if end:
            self.known.add(c)
            self.list_one(c)

    def on_jobs(self, first, jobs, *_):
        if first != self.jobs_got + 1: raise Failure(PROTOCOL, "a job is missing")
        exceptions = []
        for raws in jobs:
            self.jobs_got, refused = self.jobs_got + 1, 0
            try:
                self.replica.store(raws)
            except Failure as failure:
                refused = failure.args[0]
                exceptions.append([self.jobs_got, *failure.args])
            key = read_operation(raws[0]).key if refused in (0, PREDECESSOR) else None
            if refused == PREDECESSOR:               # a fork: look further back, at once
                self.back[key], self.due[key] = max(1, 2 * self.back.get(key, 0)), 0
            elif key in self.due:
                self.due[key] = time.monotonic() + (10 if key in self.asked else 3)
        if jobs: self.say(ACK, self.jobs_got, exceptions)

    def on_ack(self, done, exceptions, *_):
        if not self.jobs_done <= done <= self.jobs_sent: raise Failure(PROTOCOL, "an ACK out of range")
        self.jobs_done = done
        self.refused += exceptions                   # not offered again in this session
        while self.flight and self.flight[0][0] <= done:
            self.flight.popleft()

    def on_pull(self, wanted, *_):
        for c, spans, *_ in wanted:
            for origin, first, last, *_ in spans:
                jobs = sorted(self.replica.jobs.get((c, origin), []), key=lambda job: job[0].seq)
                self.queue += [job for job in jobs if job[0].seq <= last and job[-1].seq >= first]

    def tell(self):
        """Announces what was stored since the last time."""
        for c, origin in sorted(set(self.replica.log[self.told:])):
            self.have(2, [[c, None, False, False, [[origin, sorted(self.replica.heads[c][origin])]], []]])
        self.told = len(self.replica.log)

    def ask(self):
        """PULLs what the peer announced and we lack; of its own origin, only if it does not come by itself."""
        now, spans = time.monotonic(), {}
        for key in [(c, origin) for c in self.theirs for origin in self.theirs[c]]:
            held = self.replica.held.get(key, {})
            missing = [seq for seq, hash in self.theirs[key[0]][key[1]] if (seq, hash) not in held]
            if not missing:
                self.due.pop(key, None), self.back.pop(key, None), self.asked.discard(key)
            elif now >= self.due.setdefault(key, now + 3 * (key[1] == self.peer)) and len(self.asked | {key}) <= 1024:
                first = max(1, min(max(held, default=(0,))[0] + 1, *missing) - self.back.get(key, 0))
                spans.setdefault(key[0], []).append([key[1], first, max(missing)])
                self.asked.add(key)
                self.due[key] = now + 10
        if spans: self.say(PULL, list(spans.items()))

    def offer(self):
        """Sends our own operations that the peer lacks, and what it asked for, as its window allows."""
        for c in self.replica.heads:
            key = c, self.replica.origin
            jobs, theirs = self.replica.jobs.get(key), self.theirs[c].get(key[1], set())
            known = c in self.known or self.all_named and c not in self.named
            if known and jobs and theirs <= self.replica.held[key].keys():
                top = max([self.offered.get(c, 0)] + [seq for seq, hash in theirs])
                self.queue += [job for job in jobs if job[-1].seq > top]
                self.offered[c] = max(top, jobs[-1][-1].seq)
        while self.queue:                            # one job a message: simple, and within the rules
            n = sum(len(op.raw) for op in self.queue[0])
            if self.flight and (sum(m for _, m in self.flight) + n > self.window[0] or len(self.flight) >= self.window[1]):
                return
            self.jobs_sent += 1
            self.flight.append((self.jobs_sent, n))
            self.say(JOBS, self.jobs_sent, [[op.raw for op in self.queue.popleft()]])

# -- the transports (2): receive gives a message, or None if none came in that time

class WebSocket:
    def __init__(self, host, port):
        self.socket, self.buffer, self.parts = socket.create_connection((host, port), timeout=10), b"", b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /tandem HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                             "Sec-WebSocket-Protocol: tandem.1\r\n\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.read(1)
        accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
        words = re.split(rb"\r\n|: *", head)
        if not head.startswith(b"HTTP/1.1 101 ") or accept not in words or b"tandem.1" not in words:
            raise ConnectionError(f"no tandem peer: {words[0]}")
        self.socket.settimeout(30)

    def read(self, n):
        while len(self.buffer) < n:
            data = self.socket.recv(1 << 16)
            if not data: raise ConnectionError("the connection was closed")
            self.buffer += data
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def send(self, data, opcode=2):
        mask, n = os.urandom(4), len(data)
        length = bytes([128 | n]) if n < 126 else struct.pack(">BH", 254, n) if n < 1 << 16 else struct.pack(">BQ", 255, n)
        masked = int.from_bytes(data, "big") ^ int.from_bytes((mask * (n // 4 + 1))[:n], "big")
        self.socket.sendall(bytes([128 | opcode]) + length + mask + masked.to_bytes(n, "big"))

    def receive(self, seconds):
        if not self.buffer and not select.select([self.socket], [], [], seconds)[0]: return None
        first, n = self.read(2)
        if n > 125: n = int.from_bytes(self.read(2 if n == 126 else 8), "big")
        if len(self.parts) + n > 1 << 20: raise ConnectionError("a message that is too large, or masked")
        opcode, data = first & 15, self.read(n)
        if opcode == 8:
            self.send(data[:2], 8)
            raise ConnectionError(f"closed with {int.from_bytes(data[:2], 'big')} {data[2:]}")
        if opcode == 9: self.send(data, 10)
        if opcode > 2: return None
        self.parts += data
        if not first & 128: return None
        data, self.parts = self.parts, b""
        return data

    def close(self, code=1000):
        self.send(struct.pack(">H", code), 8)
        self.socket.close()

class Http:
    def __init__(self, host, port):
        self.address, self.link, self.number = (host, port), os.urandom(16).hex(), 0
        self.out, self.inbox, self.under_way = collections.deque(), collections.deque(), collections.deque()
        self.idle, self.hold, self.ended = [], None, None

    def send(self, message):
        self.out.append(message)                     # travels with the next exchange

    def exchange(self, **extra):
        self.number, body = self.number + 1, b""
        while self.out and not self.hold and len(body) < 1 << 18:
            body += len(self.out[0]).to_bytes(4, "big") + self.out.popleft()
        connection, since = self.idle.pop() if self.idle else (http.client.HTTPConnection(*self.address, timeout=30), 0)
        if time.monotonic() - since > 3:
            connection.close()                       # the server does so after 5 s; http.client opens it anew
        connection.request("POST", "/tandem", body or bytes(4), {
            "Content-Type": "application/vnd.tandem.1", "Tandem-Link": self.link, "Tandem-Exchange": self.number, **extra})
        self.under_way.append((connection, time.monotonic()))

    def answer(self):
        """Takes the answer of the oldest exchange."""
        connection, _ = self.under_way.popleft()
        answer = connection.getresponse()
        body, kind = answer.read(), answer.headers["Content-Type"]
        if answer.status != 200 or kind != "application/vnd.tandem.1" or not answer.headers["Content-Length"]:
            raise ConnectionError(f"{answer.status} {kind} {body[:200]}")
        self.idle.append((connection, time.monotonic()))
        self.hold, self.ended = answer.headers["Tandem-Hold"], answer.headers["Tandem-End"]
        while body:
            n = 4 + int.from_bytes(body[:4], "big")
            if len(body) < n: raise ConnectionError("a body that is no sequence of messages")
            if n > 4: self.inbox.append(body[4:n])
            body = body[n:]

    def receive(self, seconds):
        if not self.inbox:
            if self.ended: raise ConnectionError(f"the link was ended: {self.ended}")
            if not self.under_way or self.out and not self.hold and len(self.under_way) < 2 and self.number > 1:
                self.exchange()
            connection, since = self.under_way[0]
            if select.select([connection.sock], [], [], seconds)[0]: self.answer()
            elif time.monotonic() - since > 30: raise ConnectionError("an exchange was not answered")
        return self.inbox.popleft() if self.inbox else None

    def close(self, code=1000):
        if self.number == 1 and self.under_way: self.answer()  # exchange 2 must wait for it
        self.exchange(**{"Tandem-End": str(code)})
        while self.under_way: self.answer()

# -- the test

import json, shutil, subprocess, sys, tempfile, threading, traceback

class Node:
    """A real node in a folder of its own."""
    def __init__(self, tandem, folder):
        self.command = [tandem, "--data", folder, "--json"]
        self.process = subprocess.Popen([tandem, "serve", "--data", folder, "--listen", "127.0.0.1:0"],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert select.select([self.process.stdout], [], [], 30)[0], "the node is not ready after 30 s"
            self.address = re.match(r"ready ws://([^:/]+):(\d+)/tandem", self.process.stdout.readline()).groups()
        except BaseException:
            self.stop()
            raise
    def tandem(self, *words):
        done = subprocess.run(self.command + list(words), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{words}: {done.returncode} {done.stderr}"
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return rows if words == ("digest",) else rows[0]
    def set(self, collection, document, value):
        self.tandem("op", "append", collection, document, "--model", "kv", "--type", "SET", "--input", json.dumps(value))
    def state(self, collection, document):
        return self.tandem("doc", "show", collection, document)["state"]
    def digest(self, collection):
        rows = self.tandem("digest")
        return next((row["vector_digest"] for row in rows if row["collection"] == collection), None)
    def join(self, replica, transport):
        return Session(replica, transport(self.address[0], int(self.address[1])))
    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

def run(session, done, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not after {seconds} s: {what}"
        session.step()

def idle(session, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        session.step(1)

def settled(session, node, collection):
    """Both hold the same by the digest that the node prints, and everything sent was acknowledged."""
    run(session, lambda: session.replica.heads.get(collection) and not session.queue and not session.flight, "acknowledged")
    run(session, lambda: session.replica.digest(collection).hex() == node.digest(collection), "equal digests")
    assert not session.refused, session.refused

def scenario(transport, node, other, seconds):
    def ok(what):
        print(f"ok  {transport.__name__.lower()}: {what}", flush=True)
    for i in range(3):
        node.set("tasks", f"n{i}", {"a": i})
    me = Replica()
    session = node.join(me, transport)
    settled(session, node, "tasks")
    assert len(me.log) == 3, me.log
    ok("pulled what the node held")
    me.write("tasks", "mine", ("document", "kv.CREATE", None), ("global", "kv.SET", {"title": "milk", "n": -3}))
    settled(session, node, "tasks")
    assert node.state("tasks", "mine") == {"title": "milk", "n": -3}
    ok("pushed a document of its own")
    node.set("tasks", "late", {"b": 1})
    settled(session, node, "tasks")
    me.write("notes", "first", ("document", "kv.CREATE", None), ("global", "kv.SET", {"text": "x" * 70000}))
    settled(session, node, "notes")
    assert node.state("notes", "first") == {"text": "x" * 70000}
    node.set("shared", "s", {"c": 1})
    settled(session, node, "shared")
    ok("heard changes that came later, in new collections too")
    idle(session, seconds)
    node.set("tasks", "later", {"d": 1})
    settled(session, node, "tasks")
    ok(f"was idle for {seconds:g} s")
    session.transport.close()
    me.write("tasks", "mine", ("global", "kv.SET", {"title": "bread"}))
    session = node.join(me, transport)
    settled(session, node, "tasks")
    assert node.state("tasks", "mine") == {"title": "bread", "n": -3}
    session.transport.close()
    ok("came back with what it wrote alone")
    second = Replica()
    session = node.join(second, transport)
    for c in me.heads:
        settled(session, node, c)
    assert second.digest_of_all() == me.digest_of_all()
    session.transport.close()
    ok("another client pulled what the first had written")
    session = other.join(second, transport)
    for c in me.heads:
        settled(session, other, c)
    session.transport.close()
    assert other.state("tasks", "mine") == {"title": "bread", "n": -3}
    ok("carried it to a node that asked for it")
    for n in node, other:
        assert n.tandem("verify")["ok"]
    ok("the stores verify")

def main():
    tandem, seconds = sys.argv[1], float((sys.argv[2:] or [62])[0])
    folder, failed = tempfile.mkdtemp(prefix="small-client-"), []
    def one(transport):
        nodes = []
        try:
            for n in "12":
                nodes.append(Node(tandem, f"{folder}/{transport.__name__}{n}"))
            scenario(transport, *nodes, seconds)
        except Exception:
            failed.append(transport)
            print(f"FAILED  {transport.__name__.lower()}\n{traceback.format_exc()}", flush=True)
        finally:
            for node in nodes:
                node.stop()
    threads = [threading.Thread(target=one, args=(t,)) for t in (WebSocket, Http)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(bool(failed))

if __name__ == "__main__":
    main()
