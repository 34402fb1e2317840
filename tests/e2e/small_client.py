#!/usr/bin/python3
"""A small peer of Tandem; (7) is section 7 of transport/PROTOCOL.md. small_client.py URL [N] joins
ws://HOST:7400/tandem or http://HOST:7400/tandem, creates N documents, and when both hold the same
prints the newest operation of each writer. Without a store each life is a new reactor, and origin.

It joins once, with nothing held, so it compares no digests and announces no changes (6). It leaves
out forks, of which it keeps the branch that came first, and lacks: with a peer that has either it
never ends (7). It knows no shares (4), sums (3) or Tandem-Hold (2), asks and offers once (7, 8),
and looks neither for limits (9) and odd names (10) nor for most that is wrong in messages (3)."""
import collections, hashlib, http.client, itertools, msgpack, os, select, sys, time, websocket

class M: HELLO, HAVE, JOBS, ACK, PULL, ERROR = 1, 2, 3, 4, 5, 7
PREDECESSOR, PROTOCOL, NETWORK, TIMEOUT, PAYLOAD = -2, -3, -4, -16, -22
UNSUPPORTED, QUARANTINED, CLOCK, CHAIN = -23, -28, -29, -31
TYPES = [int, int, str, bytes, int, bytes, int, str, str, str, str, bytes]
Operation = collections.namedtuple("Operation", "raw chain place flags hlc before id")

def B(*parts): return hashlib.blake2b(b"".join(parts), digest_size=32).digest()
def unpack(data): return msgpack.unpackb(data, object_pairs_hook=list, strict_map_key=False)

def read_operation(raw):
    """From its canonical bytes (10); items of a later version may follow the twelve."""
    items = unpack(raw)
    version, flags, c, origin, seq, link, hlc, document, branch, _, _, body = items[:12]
    known = msgpack.Packer().pack_array_header(len(items)) + msgpack.packb(items[:12])[1:]
    if not raw.startswith(known) or [type(item) for item in items[:12]] != TYPES: raise ValueError
    if min(version, flags + 1, seq, hlc + 1) < 1 or len(origin + link) != 48: raise ValueError
    hash = B(B(known[:len(known) - len(body)], raw[len(known):]), B(body))
    return Operation(raw, (c, origin), (document, branch), flags, hlc, (seq - 1, link), (seq, hash))

class Peer:
    """A life with one session (5). A chain is (collection, origin), an id (seq, hash)."""
    def __init__(self, exchange, reactor=None):
        self.exchange, self.origin, self.peer, self.clock = exchange, os.urandom(16), None, 0
        self.jobs, self.heads, self.held = [], {}, collections.defaultdict(set)  # by chain: id; ids
        self.theirs, self.queue, self.refused, self.out = collections.defaultdict(set), [], [], []
        self.met, self.named, self.listed, self.heard = False, set(), set(), time.monotonic()
        self.sent = self.got = self.jobs_sent = self.jobs_got = self.acked = 0
        self.say(M.HELLO, 1, 0, reactor or os.urandom(16), self.origin, self.now(), [],
                 [1 << 20, 8 << 20, 1024], "small client")
        self.have(0, [0, B()])

    def head(self, chain): return self.heads.get(chain, (0, B(chain[0].encode(), bytes(16))))
    def now(self):
        self.clock = max(self.clock + 1, time.time_ns() // 1_000_000 << 16)
        return self.clock

    def store(self, raws):
        """Takes a job whole, or returns why not (7). With a disk: it is there after this."""
        try: job = [read_operation(raw) for raw in raws]
        except (TypeError, ValueError): return PAYLOAD, 0
        before, last, chain, held = job[0].before, job[-1], job[0].chain, self.held[job[0].chain]
        early = max(op.hlc for op in job) - (300_000 << 16)
        if early > time.time_ns() // 1_000_000 << 16: return CLOCK, early
        if last.flags & 1 or any((a.flags & 1, a.id, a.chain, a.place) != (
                1, b.before, b.chain, b.place) for a, b in zip(job, job[1:])): return CHAIN, 0
        if chain[0].startswith("_"): return UNSUPPORTED, 0
        if last.id in held: return None
        if before != self.head(chain):
            return QUARANTINED if before in held else PREDECESSOR if before[0] else CHAIN, 0
        self.jobs.append(job)
        self.heads[chain] = last.id
        held |= {before, *(op.id for op in job)}
        self.clock = max(self.clock, *(op.hlc for op in job))

    def write(self, c, document, scope, kind, value=None):
        seq, hash = self.head((c, self.origin))
        self.store([msgpack.packb([1, 0, c, self.origin, seq + 1, hash, self.now(), document,
                                   "main", scope, kind, msgpack.packb(value)])])
        self.queue.append(self.jobs[-1])

    def say(self, kind, *items):
        self.sent, self.spoke = self.sent + 1, time.monotonic()
        self.out.append(msgpack.packb([kind, self.sent, *items]))
    def have(self, level, entries): self.say(M.HAVE, self.now(), self.clock, level, False, entries)
    def fail(self, error, why):
        self.say(M.ERROR, error, why, 0)
        self.exchange(self.out, 0)
        raise ConnectionError(why)

    def step(self, seconds=0.05):
        """Says what there is to say, and takes what comes in that time. Did both hold the same?"""
        ready = self.met and self.named <= self.listed and self.acked == self.jobs_sent  # (6)
        in_step = ready and not (self.queue or self.refused) and all(
            self.theirs[chain] <= self.held[chain] for chain in self.theirs)
        if ready and self.queue:
            self.jobs_sent += 1
            self.say(M.JOBS, self.jobs_sent, [[op.raw for op in self.queue.pop(0)]])
        if time.monotonic() - self.spoke > 9: self.have(2, [])  # a heartbeat
        if time.monotonic() - self.heard > 30: self.fail(TIMEOUT, "nothing was heard for 30 s")
        out, self.out = self.out, []
        for message in filter(None, self.exchange(out, seconds)): self.take(*unpack(message))
        return in_step

    def take(self, kind, number, *items):
        self.got, self.heard = self.got + 1, time.monotonic()
        match [kind, *items]:
            case _ if number != self.got: self.fail(NETWORK, "a message is missing")
            case [M.ERROR, error, text, *_]: raise ConnectionError(f"from the peer: {error} {text}")
            case [M.HELLO, 1, _, _, origin, *_] if not self.peer: self.peer = origin
            case [M.HAVE, _, _, 0, *_] if self.peer: self.have(1, [])  # nothing, when it joined
            case [M.HAVE, _, _, 1, more, rows, *_] if self.peer:
                self.met, self.named = not more, self.named | {c for c, *_ in rows}  # to list
            case [M.HAVE, _, _, 2, _, entries, *_] if self.peer:
                for entry in entries: self.learn(*entry[:5])
            case [M.JOBS, first, jobs, *_] if self.peer and first == self.jobs_got + 1:
                self.jobs_got += len(jobs)
                answers = [(job, self.store(raws)) for job, raws in enumerate(jobs, first)]
                self.say(M.ACK, self.jobs_got, [[job, *why] for job, why in answers if why])
            case [M.ACK, done, refused, *_] if self.acked <= done <= self.jobs_sent:
                self.acked, self.refused = done, self.refused + refused
            case [M.PULL, wanted, *_] if self.peer:
                self.queue += [job for c, ranges, *_ in wanted for origin, first, last, *_ in ranges
                               for job in self.jobs if job[0].chain == (c, origin)
                               and job[0].id[0] <= last and job[-1].id[0] >= first]
            case [1 | 2 | 3 | 4 | 5, *_]: self.fail(PROTOCOL, "not now, or not as in section 4")

    def learn(self, c, share, _, end, origins):
        """PULLs what we lack, but not the peer's own, which comes by itself (7). Lists ours (6)."""
        for origin, heads, *_ in () if share else origins:
            new, theirs = heads[-1][0], self.theirs[c, origin]
            top = max(theirs | {self.head((c, origin))})[0]
            theirs |= {(seq, hash) for seq, hash, *_ in heads}
            if new > top and origin != self.peer: self.say(M.PULL, [[c, [[origin, top + 1, new]]]])
        if end:
            self.listed.add(c)
            ours = [[o, [head]] for (of, o), head in sorted(self.heads.items()) if of == c]
            self.have(2, [[c, None, True, True, ours, []]])

def over_websocket(url):
    """A function that sends messages, and returns those that come in that time; 0: it ends (2)."""
    link = websocket.create_connection(url, 30, subprotocols=["tandem.1"], suppress_origin=True)
    def exchange(out, seconds):
        for message in out: link.send_binary(message)
        if not seconds: return link.close()
        return [link.recv()] if select.select([link], [], [], seconds)[0] else []
    return exchange

def over_http(url):
    link, numbers = os.urandom(16).hex(), itertools.count(1)
    def exchange(out, seconds):  # Polling now and then
        server = http.client.HTTPConnection(url.split("/")[2], timeout=30)  # a new one each time
        body = b"".join(len(message).to_bytes(4, "big") + message for message in out)
        server.request("POST", "/tandem", body or bytes(4), {
            "Content-Type": "application/vnd.tandem.1", "Connection": "close", "Tandem-Link": link,
            "Tandem-Exchange": next(numbers), "Tandem-Wait": int(seconds * 1000),
            **({"Tandem-Pause": 10} if seconds else {"Tandem-End": 1000})})
        answer = server.getresponse()
        if answer.status != 200 or answer.length is None: raise ConnectionError(answer.read(200))
        return [answer.read(int.from_bytes(size)) for size in iter(lambda: answer.read(4), b"")]
    return exchange

def main(url, count=0):
    me = Peer((over_http if url.startswith("http:") else over_websocket)(url))
    for i in range(int(count)): me.write("small", f"{me.origin.hex()} {i}", "document", "kv.CREATE")
    while not me.step(): pass
    me.exchange(me.out, 0)
    for (c, o), (seq, hash) in sorted(me.heads.items()): print(c, o.hex(), seq, hash.hex())

if __name__ == "__main__": main(*sys.argv[1:])
