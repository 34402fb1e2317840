#!/usr/bin/python3
"""A whole peer of Tandem, to be read at a sitting; (7) is section 7 of transport/PROTOCOL.md.

usage: small_client.py URL [N]      ws://127.0.0.1:7400/tandem or http://127.0.0.1:7400/tandem

Joins, creates N documents, and when both hold the same prints how much that is, and its digests. It
has no store, so each life is a new reactor with a new origin (6). It knows no shares (11), sums (3)
and pages (6), and has one session and, in it, one job in flight, which fits any window (7).
"""
import collections, hashlib, http.client, msgpack, os, sys, time, urllib.parse, websocket

class M: HELLO, HAVE, JOBS, ACK, PULL, ERROR = 1, 2, 3, 4, 5, 7
PREDECESSOR, PROTOCOL, PAYLOAD, CLOCK, CHAIN, REFUSED = -2, -3, -22, -29, -31, -32
FIELDS = "version flags collection origin seq predecessor hlc document branch scope type payload"
TYPES = [int, int, str, bytes, int, bytes, int, str, str, str, str, bytes]

class Refusal(Exception): pass  # (error, detail): why a job is not stored

class Operation(collections.namedtuple("Operation", FIELDS + " raw id")):  # an id is (seq, hash)
    before = property(lambda op: (op.seq - 1, op.predecessor))
    chain = property(lambda op: (op.collection, op.origin))
    place = property(lambda op: (op.chain, op.document, op.branch))

def B(*parts):
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()

def unpack(data):
    return msgpack.unpackb(data, object_pairs_hook=list, strict_map_key=False)

def read_operation(raw):
    fields = unpack(raw)[:12]
    known = raw[:1] + msgpack.packb(fields)[1:]  # canonical; items of a later version may follow
    if not raw.startswith(known) or [type(field) for field in fields] != TYPES: raise ValueError
    body, rest = fields[11], raw[len(known):]
    return Operation(*fields, raw, (fields[4], B(B(known[:len(known) - len(body)], rest), B(body))))

class Peer:
    """What it holds (10), and one session at a time (5, 6, 7)."""
    def __init__(self):
        self.reactor, self.origin, self.clock = os.urandom(16), os.urandom(16), 0
        self.jobs, self.held, self.heads = [], {}, {}  # in order; chain: {id: op}; chain: {id, …}

    def now(self):
        self.clock = max(self.clock + 1, time.time_ns() // 1_000_000 << 16)
        return self.clock

    def of(self, c, origin):
        return self.held.setdefault((c, origin), {(0, B(c.encode(), bytes(16))): None})

    def store(self, raws):
        """Takes a job whole, or raises why not (7). With a disk: it is there when this returns."""
        try: job = [read_operation(raw) for raw in raws]
        except (TypeError, ValueError): raise Refusal(PAYLOAD, 0)
        early = max(op.hlc for op in job) - (300_000 << 16)
        if early > time.time_ns() // 1_000_000 << 16: raise Refusal(CLOCK, early)
        if job[-1].flags & 1 or any((a.flags & 1, a.id, a.place) != (1, b.before, b.place)
                                    for a, b in zip(job, job[1:])): raise Refusal(CHAIN, 0)
        chain, held = job[0].chain, self.of(*job[0].chain)
        new = [op for op in job if op.id not in held]
        if new:
            if new[0].before not in held: raise Refusal(PREDECESSOR if new[0].seq > 1 else CHAIN, 0)
            held.update({op.id: op for op in new})
            self.heads[chain] = self.heads.get(chain, set()) - {new[0].before} | {new[-1].id}
            self.jobs.append(new)
            self.clock = max(self.clock, *(op.hlc for op in new))
        return chain, {job[-1].id}

    def write(self, c, document, scope, kind, value):
        seq, hash = max(self.of(c, self.origin))
        self.store([msgpack.packb([1, 0, c, self.origin, seq + 1, hash, self.now(), document,
                                   "main", scope, kind, msgpack.packb(value)])])

    def vector(self, c):
        return [[key[1], sorted(heads)] for key, heads in sorted(self.heads.items()) if key[0] == c]

    def digests(self):
        rows = [[c, B(*(origin + seq.to_bytes(8, "big") + hash for origin, heads in self.vector(c)
                        for seq, hash in heads))] for c in sorted({c for c, _ in self.heads})]
        return rows, B(*(B(c.encode()) + digest for c, digest in rows))

    def join(self, transport):
        """Begins a session, over a websocket.WebSocket or what has its methods."""
        self.transport, self.peer, self.heard = transport, None, time.monotonic()
        self.sent = self.got = self.jobs_sent = self.jobs_got = 0
        self.met, self.listed, self.known = None, set(), set()  # collections: told by us, by them
        self.theirs = collections.defaultdict(set)              # chain: {head that they announced}
        self.offered, self.told, self.forked = {}, {}, set()    # by collection; by chain; chains
        self.queue, self.flight, self.refused = [], None, []
        self.say(M.HELLO, 1, 0, self.reactor, self.origin, self.now(), [],
                 [1 << 20, 8 << 20, 1024], "small client")
        self.have(0, [len(self.digests()[0]), self.digests()[1]])

    def say(self, kind, *items):
        self.sent, self.spoke = self.sent + 1, time.monotonic()
        self.transport.send_binary(msgpack.packb([kind, self.sent, *items]))

    def have(self, level, entries):
        self.say(M.HAVE, self.now(), self.clock, level, False, entries)

    def list(self, c):
        if c not in self.listed and not c.startswith("_"):
            self.listed.add(c)
            self.have(2, [[c, None, True, True, self.vector(c), []]])

    def step(self, seconds=0.05):
        """Reads one message, if one comes in that time, and says what there is to say."""
        self.transport.timeout = seconds
        try: message = self.transport.recv()
        except websocket.WebSocketTimeoutException: message = None
        self.transport.timeout = 30
        if message == "": raise ConnectionError("the peer closed the connection")
        if message: self.take(*unpack(message))
        if time.monotonic() - self.heard > 30: raise TimeoutError("nothing was heard for 30 s")
        if time.monotonic() - self.spoke > 9: self.have(2, [])  # a heartbeat
        if self.met: self.offer()

    def take(self, kind, number, *items):
        if number != self.got + 1: raise ConnectionError("a message is missing")
        self.got, self.heard = number, time.monotonic()
        match [kind, *items]:
            case [M.HELLO, 1, _, _, origin, *_] if not self.peer: self.peer = origin
            case [M.HAVE, _, _, 0, _, [_, digest, *_], *_] if self.peer:
                self.met = digest == self.digests()[1]
                if not self.met: self.have(1, self.digests()[0])
            case [M.HAVE, _, _, 1, more, rows, *_] if self.peer:
                if self.met: self.have(1, self.digests()[0])  # for the peer, they were not equal
                for c, *_ in rows: self.list(c)
                self.met = not more
            case [M.HAVE, _, _, 2, _, entries, *_] if self.peer:
                for c, share, _, end, origins, *_ in entries:
                    for origin, heads, *_ in () if share or c.startswith("_") else origins:
                        self.learn((c, origin), {(seq, hash) for seq, hash, *_ in heads})
                    if end: self.known.add(c), self.list(c)
            case [M.JOBS, first, jobs, *_] if self.peer and first == self.jobs_got + 1:
                refused = []
                for self.jobs_got, raws in enumerate(jobs, first):
                    try: self.learn(*self.store(raws))
                    except Refusal as why:
                        refused.append([self.jobs_got, *why.args])
                        if why.args[0] == PREDECESSOR: self.go_back(read_operation(raws[0]).chain)
                self.say(M.ACK, self.jobs_got, refused)
            case [M.ACK, done, refused, *_] if done <= self.jobs_sent:
                self.refused += refused
                if self.flight and done == self.jobs_sent:
                    if not refused: self.learn(self.flight[0].chain, {self.flight[-1].id})
                    self.flight = None
            case [M.PULL, wanted, *_] if self.peer:
                for c, ranges, *_ in wanted:
                    for origin, first, last, *_ in ranges: self.enqueue((c, origin), first, last)
            case [M.ERROR, error, text, *_]:
                raise ConnectionError(f"the peer ended the session: {error} {text}")
            case [1 | 2 | 3 | 4 | 5, *_]:
                self.say(M.ERROR, PROTOCOL, "not now, or not as in section 4", 0)
                raise ConnectionError(f"the peer broke a rule: {kind} {items}")

    def learn(self, chain, heads):
        """The peer holds these. PULLs what we lack; but its own operations come by themselves."""
        held, theirs = self.of(*chain), self.theirs[chain]
        lacking = {head for head in heads - theirs if head not in held}
        if lacking and chain[1] != self.peer:
            top = max(held.keys() | theirs)[0]
            self.pull(chain, top + 1 if min(lacking)[0] > top else 1, max(lacking)[0])
        theirs |= heads

    def pull(self, chain, first, last):
        self.say(M.PULL, [[chain[0], [[chain[1], first, last]]]])

    def go_back(self, chain):
        """What came stands on what is not held: on a fork. Asks for all there is, once."""
        if chain not in self.forked: self.pull(chain, 1, max(self.theirs[chain])[0])
        self.forked.add(chain)

    def enqueue(self, chain, first, last):
        self.queue += [job for job in self.jobs if job[0].chain == chain
                       and job[0].seq <= last and job[-1].seq >= first]

    def offer(self):
        """Lines up our own jobs that the peer is known to lack, and sends the next of all."""
        for (c, origin), heads in sorted(self.heads.items()):
            self.list(c)  # what only we have, too, and what came to be since
            theirs = self.theirs[c, origin]
            if len(heads) > 1 and self.told.get((c, origin)) != heads:  # of a fork ACK says little
                self.told[c, origin] = heads
                self.have(2, [[c, None, False, False, [[origin, sorted(heads)]], []]])
            if origin == self.origin and c in self.known and theirs <= self.of(c, origin).keys():
                top = max([self.offered.get(c, 0)] + [seq for seq, _ in theirs])
                self.offered[c] = max(heads)[0]
                self.enqueue((c, origin), top + 1, self.offered[c])
        if self.queue and not self.flight:
            self.jobs_sent, self.flight = self.jobs_sent + 1, self.queue.pop(0)
            self.say(M.JOBS, self.jobs_sent, [[op.raw for op in self.flight]])

    def in_step(self):
        return self.met and self.listed <= self.known and all(
            self.heads.get(chain, set()) <= self.theirs[chain] <= self.of(*chain).keys()
            for chain in {*self.theirs, *self.heads})

class Http:
    """A link (2) of one exchange at a time, with the methods of a websocket.WebSocket."""
    def __init__(self, url):
        self.http = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
        self.link, self.number, self.used = os.urandom(16).hex(), 0, 0
        self.out, self.inbox, self.hold = [], [], None

    def exchange(self, **headers):
        self.number += 1
        if self.number > 1: headers["Tandem-Pause"] = 10        # there is no long poll
        if time.monotonic() - self.used > 3: self.http.close()  # before the server does; it reopens
        sent, self.out = ([], self.out) if self.hold else (self.out, [])
        self.http.request("POST", "/tandem", b"".join(sent) or bytes(4), {
            "Content-Type": "application/vnd.tandem.1", "Tandem-Link": self.link,
            "Tandem-Exchange": self.number, **headers})
        answer = self.http.getresponse()
        body, self.used, self.hold = answer.read(), time.monotonic(), answer.headers["Tandem-Hold"]
        if answer.status != 200 or not answer.headers["Content-Length"]:
            raise ConnectionError(f"{answer.status} {body[:200]}")
        while body:
            end = 4 + int.from_bytes(body[:4], "big")
            self.inbox += [body[4:end]] if end > 4 else []
            body = body[end:]

    def send_binary(self, message):
        self.out += [len(message).to_bytes(4, "big"), message]  # goes with the next exchange

    def recv(self):
        if not self.inbox: self.exchange(**{"Tandem-Wait": int(self.timeout * 1000)})
        if not self.inbox: raise websocket.WebSocketTimeoutException
        return self.inbox.pop(0)

    def close(self, code=1000):
        self.exchange(**{"Tandem-End": code})

def connect(url):  # without Origin, which is for browsers (2)
    return Http(url) if url.startswith("http:") else websocket.create_connection(
        url, timeout=30, subprotocols=["tandem.1"], suppress_origin=True)

def main(url, count=0):
    me = Peer()
    for i in range(int(count)):
        me.write("small", f"{me.origin.hex()} {i}", "document", "kv.CREATE", None)
    me.join(connect(url))
    while not me.in_step(): me.step()
    me.transport.close()
    for c, digest in me.digests()[0]:
        print(c, sum(len(job) for job in me.jobs if job[0].collection == c), digest.hex())

if __name__ == "__main__": main(*sys.argv[1:])
