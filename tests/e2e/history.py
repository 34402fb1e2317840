"""What clients did and were told, and a checker that looks whether the nodes kept their word.

A history is a file of JSON Lines in the order of real time. An invocation is written before the
client begins, its outcome after it ended, so of two lines the first happened first.

    {"event": "invoke", "id": 1, "process": 0, "node": "a", "op": "append", "collection": "c",
     "document": "d", "type": "log.APPEND", "input": "0-1"}
    {"event": "ok", "id": 1, "origin": …, "seq": 2, "hash": …}
    {"event": "fail", "id": 1}      it certainly did not happen
    {"event": "info", "id": 1}      nobody knows whether it did: it may be found once, or never.
                                    An invocation without an outcome is the same

The input of an append is its marker, or an object of which the only value is: a text or a number
that no other append has. Reads have invocations and outcomes, too:

    {…, "op": "list", "collection": "c", "document": null}     then "operations": the rows of
                `op ls`, in order of arrival, or for one document in the total order
    {…, "op": "show", "collection": "c", "document": "d"}      then "state": that of a log

"final": true in their invocation says that the nodes had been waited for: they are equal and hold
everything. Each node must have been listed so, for each collection.

    {"event": "fault", "kind": "kill", "node": "a"}     restart, cut, heal … : no excuses
    {"event": "fault", "kind": "restore", "node": "a"}  its folder went back in time: what it
                                    showed before is not expected of it until the final reads
    {"event": "fault", "kind": "clock", "node": "a"}    its clock began again: likewise, and what
                                    is written there now may sort before what was before
    {"event": "fork", "origin": …}  that origin may have two operations at one seq from here on

In the manner of Jepsen's `set-full`, check() takes everything for known on a node that the node
acknowledged or showed, and finds

    lost        known, and gone for good; or acknowledged anywhere and missing at the end
    stale       known, and missing from a read on that node that began later; it came back
    duplicated  twice in one read, or one invocation under two hashes
    phantom     nobody invoked it, or it failed for certain, or it was read before its invocation
    reordered   what a node knew stands behind what was invoked there later; an origin's seq falls;
                the order of arrival on a node, or the total order of a document, changed
    changed     a hash with other content, or another identity or content than the client was told
    forked      two hashes at one (origin, seq) of a collection, where no fork was declared
    hole        an operation without the one before it in its chain
    torn        a job of which only the first part is there
    diverged    final reads that differ
    malformed   a history that proves nothing

Nodes are whole replicas: a filtered one has holes by right.

usage: history.py FILE…     prints what is wrong; exits 1 if anything is
"""

import collections
import json
import sys
import threading
import time

Finding = collections.namedtuple("Finding", "kind sentence")

# What makes an operation; the rest of a row (ordinal, index) is the node's own.
CONTENT = ("origin", "seq", "hlc", "collection", "document", "branch", "scope", "type", "input")


class Log:
    """Writes a history, one whole line at a time, from any thread."""

    def __init__(self, path):
        self.path = path
        self.file = open(path, "w", encoding="utf-8")
        self.lock = threading.Lock()
        self.begun = time.monotonic()
        self.invocations = 0

    def write(self, event, **fields):
        with self.lock:
            self._write(event, fields)

    def _write(self, event, fields):
        fields = {"event": event, "time": round(time.monotonic() - self.begun, 4), **fields}
        self.file.write(json.dumps(fields, separators=(",", ":")) + "\n")
        self.file.flush()

    def invoke(self, process, node, op, **fields):
        """Returns the id that the outcome names."""
        with self.lock:
            self.invocations += 1
            number = self.invocations
            self._write("invoke", {"id": number, "process": process, "node": node, "op": op,
                                   **fields})
        return number

    def fault(self, kind, node, **fields):
        self.write("fault", kind=kind, node=node, **fields)

    def close(self):
        self.file.close()


def load(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def marker_of(value):
    """The marker in an input; None if there is none."""
    if isinstance(value, dict) and len(value) == 1:
        value, = value.values()
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return value
    return None


class Invocation:
    def __init__(self, event, line, life):
        self.event, self.invoked = event, line
        self.node, self.op = event["node"], event["op"]
        self.collection, self.document = event["collection"], event.get("document")
        self.life = life  # how often the node's folder or clock had gone back by then
        self.outcome, self.ended = "info", None
        self.told = {}
        self.spans = False  # it was under way when the node's folder or clock went back

    def end(self, event, line, life):
        self.outcome, self.ended, self.told = event["event"], line, event
        self.spans = life != self.life

    def place(self):
        return (self.node, self.life)


class Append(Invocation):
    def __init__(self, event, line, life):
        super().__init__(event, line, life)
        self.input, self.type = event["input"], event["type"]
        self.marker = marker_of(self.input)
        self.name = "%r" % (self.marker,)


class Read(Invocation):
    def __init__(self, event, line, life):
        super().__init__(event, line, life)
        self.final = event.get("final", False)
        self.rows = []
        self.keys = []  # of the operations, in the order in which they were shown

    def covers(self, collection, document):
        return collection == self.collection and self.document in (None, document)

    def describe(self):
        what = self.collection if self.document is None else "%s/%s" % (self.collection,
                                                                        self.document)
        return "%s of %s on %s (line %d)" % (self.op, what, self.node, self.ended)


class Checker:
    """Operations are known by key: the marker of the append that made them, or their hash."""

    def __init__(self, events):
        self.findings = []
        self.told_already = set()
        self.appends = {}  # marker -> Append
        self.reads = []    # those that came back, in the order of their ends
        self.forks = {}    # origin -> line
        self.documents = {}  # key -> (collection, document)
        self.missing = set()  # keys found lost or stale
        self.phantoms = set()
        self.parse(events)

    def find(self, kind, subject, sentence):
        """One finding a kind and subject: the first says it."""
        if (kind, subject) not in self.told_already:
            self.told_already.add((kind, subject))
            self.findings.append(Finding(kind, sentence))

    # ---- Reading the lines ----

    def parse(self, events):
        lives = collections.Counter()
        self.clock_lives = set()  # (node, life) that began with a clock that began again
        under_way, ended = {}, set()
        for line, event in enumerate(events, 1):
            kind = event.get("event")
            if kind == "invoke":
                self.parse_invocation(event, line, lives[event["node"]], under_way, ended)
            elif kind in ("ok", "fail", "info"):
                invocation = under_way.pop(event["id"], None)
                if not invocation:
                    self.find("malformed", line, "line %d ends nothing that is under way" % line)
                    continue
                ended.add(event["id"])
                invocation.end(event, line, lives[invocation.node])
                if kind == "ok" and invocation.op != "append":
                    self.reads.append(invocation)
            elif kind == "fault":
                if event["kind"] in ("restore", "clock"):
                    lives[event["node"]] += 1
                    if event["kind"] == "clock":
                        self.clock_lives.add((event["node"], lives[event["node"]]))
            elif kind == "fork":
                self.forks.setdefault(event["origin"], line)
            else:
                self.find("malformed", line, "line %d is no event: %r" % (line, kind))

    def parse_invocation(self, event, line, life, under_way, ended):
        if event["id"] in under_way or event["id"] in ended:
            self.find("malformed", line, "line %d repeats the id %s" % (line, event["id"]))
            return
        if event["op"] == "append":
            invocation = Append(event, line, life)
            if invocation.marker is None or invocation.marker in self.appends:
                self.find("malformed", line, "line %d: the marker %s is none, or not unique" %
                          (line, invocation.name))
                return
            self.appends[invocation.marker] = invocation
            self.documents[invocation.marker] = (invocation.collection, invocation.document)
        elif event["op"] in ("list", "show"):
            invocation = Read(event, line, life)
        else:
            self.find("malformed", line, "line %d invokes `%s`" % (line, event["op"]))
            return
        under_way[event["id"]] = invocation

    def acknowledged(self):
        return [a for a in self.appends.values() if a.outcome == "ok"]

    def somebody_looked(self):
        """Without final reads nothing would ever be lost."""
        nodes = {i.node for i in [*self.appends.values(), *self.reads]}
        last = {}  # collection -> line
        for append in self.acknowledged():
            last[append.collection] = max(append.ended, last.get(append.collection, 0))
        for collection, line in sorted(last.items()):
            for node in sorted(nodes):
                if not any(r.final and r.op == "list" and r.document is None and r.node == node and
                           r.collection == collection and r.invoked > line for r in self.reads):
                    self.find("malformed", (node, collection),
                              "nobody listed %s on %s at the end" % (collection, node))

    # ---- What the reads show ----

    def identify(self):
        """Give every row its key; what is found here concerns single operations."""
        self.by_hash = {a.told["hash"]: a.marker for a in self.acknowledged()}
        self.rows = {}       # hash -> the first row that was seen of it
        self.hashes = {}     # marker -> hashes that it was listed under
        at_seq = {}          # (collection, origin, seq) -> (hash, line)
        for read in self.reads:
            if read.op == "show":
                read.keys = list(read.told["state"])
                for key in read.keys:
                    self.look_for_phantom(read, key, self.appends.get(key))
            else:
                read.rows = [{"collection": read.collection, **row}
                             for row in read.told["operations"]]
                for row in read.rows:
                    read.keys.append(self.key_of(read, row))
                    self.look_for_fork(at_seq, read.collection, row, read.ended)
            for key, times in collections.Counter(read.keys).items():
                if times > 1:
                    self.find("duplicated", key, "%r is there %d times: %s" %
                              (key, times, read.describe()))
            read.keys = list(dict.fromkeys(read.keys))
        for marker, hashes in self.hashes.items():
            append = self.appends[marker]
            if len(hashes) > 1:
                self.find("duplicated", marker, "%s has %d identities" % (append.name, len(hashes)))
            elif append.outcome == "ok" and append.told["hash"] not in hashes:
                self.find("changed", marker, "%s is not the operation that its client was told of" %
                          append.name)

    def key_of(self, read, row):
        hash_ = row["hash"]
        marker = self.by_hash.get(hash_)
        if marker is None and not row["type"].endswith(".CREATE"):
            marker = marker_of(row["input"])
            if marker is None:
                marker = hash_
            self.by_hash[hash_] = marker
        append = self.appends.get(marker)
        first = self.rows.setdefault(hash_, row)
        if any(first.get(name) != row.get(name) for name in CONTENT):
            self.find("changed", hash_, "%s has other content than before: %s" %
                      (hash_, read.describe()))
        elif append:
            self.compare(append, row, read)
        if marker is None:
            self.look_for_phantom_document(read, row)
            self.documents.setdefault(hash_, (read.collection, row["document"]))
            return hash_
        self.documents.setdefault(marker, (read.collection, row["document"]))
        self.look_for_phantom(read, marker, append)
        if append:
            self.hashes.setdefault(marker, set()).add(hash_)
        return marker

    def compare(self, append, row, read):
        """A row with what its client asked for and was told."""
        asked = (append.collection, append.document, append.type, append.input)
        held = (row["collection"], row["document"], row["type"], row["input"])
        if append.outcome == "ok" and append.told["hash"] == row["hash"]:
            asked += (append.told["origin"], append.told["seq"])
            held += (row["origin"], row["seq"])
        if held != asked:
            self.find("changed", row["hash"], "%s is %s, and should be %s: %s" %
                      (append.name, held, asked, read.describe()))

    def look_for_phantom(self, read, key, append):
        if append is None:
            why = "nobody invoked it"
        elif append.outcome == "fail":
            why = "it failed for certain"
        elif append.invoked > read.ended:
            why = "it was invoked later"
        else:
            return
        self.phantoms.add(key)
        self.find("phantom", key, "%r: %s: %s" % (key, why, read.describe()))

    def look_for_phantom_document(self, read, row):
        """A CREATE belongs to an append on a document that was new to it."""
        if not any(a.collection == read.collection and a.document == row["document"] and
                   a.outcome != "fail" and a.invoked < read.ended for a in self.appends.values()):
            self.phantoms.add(row["hash"])
            self.find("phantom", row["hash"], "nobody created %s/%s: %s" %
                      (read.collection, row["document"], read.describe()))

    def look_for_fork(self, at_seq, collection, row, line):
        other, since = at_seq.setdefault((collection, row["origin"], row["seq"]),
                                         (row["hash"], line))
        line = max(line, since)
        if other != row["hash"] and self.forks.get(row["origin"], line) >= line:
            self.find("forked", (row["origin"], row["seq"]), "%s and %s at seq %d of %s (line %d)" %
                      (other, row["hash"], row["seq"], row["origin"], line))

    # ---- Presence ----

    def know(self):
        """(node, life) -> key -> the line from which on that node must show it."""
        self.known = collections.defaultdict(dict)

        def add(place, key, line):
            self.known[place][key] = min(line, self.known[place].get(key, line))

        for append in self.acknowledged():
            add(append.place(), append.marker, append.ended)
        for read in self.reads:
            for key in read.keys:
                if key in self.documents:
                    add(read.place(), key, read.ended)

    def presence(self):
        for read in self.reads:
            shown = set(read.keys)
            if not read.spans:
                for key, line in self.known[read.place()].items():
                    if line < read.invoked and key not in shown and self.should_show(read, key):
                        self.miss(read, key)
            if read.final:
                for append in self.acknowledged():
                    if (append.ended < read.invoked and append.marker not in shown and
                            self.should_show(read, append.marker)):
                        self.lose(read, append.marker)

    def should_show(self, read, key):
        """A log's state has no CREATE in it."""
        return read.covers(*self.documents[key]) and (read.op == "list" or key in self.appends)

    def miss(self, read, key):
        """It is stale if it comes back there."""
        for later in self.reads:
            if (later.place() == read.place() and later.invoked > read.ended and
                    key in later.keys):
                self.missing.add(key)
                self.find("stale", (key, read.place()), "%r was known on %s and is not in the %s" %
                          (key, read.node, read.describe()))
                return
        self.lose(read, key)

    def lose(self, read, key):
        self.missing.add(key)
        append = self.appends.get(key)
        if append and append.outcome == "ok":
            since = "acknowledged on %s in line %d" % (append.node, append.ended)
        else:
            since = "seen on %s" % read.node
        self.find("lost", key, "%r, %s, is gone: %s" % (key, since, read.describe()))

    # ---- Order ----

    def seqs_rise(self):
        """Of what one node acknowledged, under each origin."""
        acknowledged = [append for append in self.acknowledged() if not append.spans]
        by_end = collections.deque(sorted(acknowledged, key=lambda a: a.ended))
        last = {}
        for append in sorted(acknowledged, key=lambda a: a.invoked):
            while by_end and by_end[0].ended < append.invoked:
                done = by_end.popleft()
                writer = (*done.place(), done.collection, done.told["origin"])
                last[writer] = max(last.get(writer, 0), done.told["seq"])
            writer = (*append.place(), append.collection, append.told["origin"])
            if append.told["seq"] < last.get(writer, 0):
                self.find("reordered", append.marker, "%s was given seq %d after %d (line %d)" %
                          (append.name, append.told["seq"], last[writer], append.ended))

    def chains(self, read):
        """In order of arrival each operation stands behind its predecessor, and jobs are whole."""
        absent = {(a.told["origin"], a.told["seq"]) for a in self.acknowledged()
                  if a.marker in self.missing}
        absent |= {(row["origin"], row["seq"]) for row in self.rows.values()
                   if row["hash"] in self.missing or self.by_hash.get(row["hash"]) in self.missing}
        everything = {(row["origin"], row["seq"]) for row in read.rows}
        seen = set()
        for row in read.rows:
            origin, seq = row["origin"], row["seq"]
            if seq > 1 and (origin, seq - 1) not in seen:
                before = "%s, seq %d" % (origin, seq - 1)
                if (origin, seq - 1) in everything:
                    self.find("reordered", (origin, seq), "%s arrived after the next one: %s" %
                              (before, read.describe()))
                elif (origin, seq - 1) not in absent:
                    self.find("hole", (origin, seq), "%s is not there, but the next one is: %s" %
                              (before, read.describe()))
            if (row["type"].endswith(".CREATE") and (origin, seq + 1) not in everything and
                    (origin, seq + 1) not in absent):
                self.find("torn", (origin, seq), "%s, seq %d is there without the rest of its "
                          "job: %s" % (origin, seq, read.describe()))
            seen.add((origin, seq))

    def arrivals_stay(self):
        """All lists of a collection on a node begin alike: what comes later stands behind."""
        longest = {}
        for read in self.reads:
            if read.op != "list" or read.document is not None or read.spans:
                continue
            self.chains(read)
            keys = [key for key in read.keys if key not in self.missing]
            place = (*read.place(), read.collection)
            other = longest.setdefault(place, keys)
            short, long_ = sorted((keys, other), key=len)
            longest[place] = long_
            for one, two in zip(short, long_):
                if one != two:
                    self.find("reordered", (place, "arrival"), "%r stands where %r was in another "
                              "list: %s" % (one, two, read.describe()))
                    break

    def total_order(self):
        """All reads of a document agree on the order of what they share, and it is the rule's."""
        reference = {}
        of_documents = [read for read in self.reads if read.document is not None]
        for read in of_documents:
            document = (read.collection, read.document)
            if len(read.keys) > len(reference.get(document, ())):
                reference[document] = read.keys
        for read in of_documents:
            document = (read.collection, read.document)
            self.follows_what_was_known(read)
            rank = {key: i for i, key in enumerate(reference[document])}
            ranks = [rank[key] for key in read.keys if key in rank]
            last = {}
            in_order = ranks == sorted(ranks)
            for row in read.rows:
                stream = (row.get("branch"), row.get("scope"))
                place = (row.get("hlc", 0), row["origin"], row["seq"], row["hash"])
                if "hlc" in row:
                    in_order = in_order and last.get(stream, place) <= place
                    last[stream] = place
            if not in_order:
                self.find("reordered", document, "not the total order: %s" % read.describe())

    def follows_what_was_known(self, read):
        """What a node knew before an append was invoked there does not stand behind it."""
        earliest = {}  # place -> (line from which on it was known, key), of all behind this one
        for append in map(self.appends.get, reversed(read.keys)):
            if not append:
                continue
            line, behind = earliest.get(append.place(), (append.invoked, None))
            if line < append.invoked and not append.spans:
                self.find("reordered", append.marker, "%s stands behind %s, which was invoked on "
                          "%s when that was known there: %s" % (behind, append.name, append.node,
                                                                read.describe()))
            for place, known in self.known.items():
                line = known.get(append.marker)
                if line and not self.was_overtaken(append, place):
                    earliest[place] = min(earliest.get(place, (line, "")), (line, append.name))

    def was_overtaken(self, append, place):
        """It is of that node's own, and the clock there began again since."""
        node, life = place
        return append.node == node and any(
            (node, later) in self.clock_lives for later in range(append.life + 1, life + 1))

    # ---- The end ----

    def ends_alike(self):
        first = {}
        for read in self.reads:
            if not read.final:
                continue
            held = set(read.keys) - self.missing - self.phantoms
            other, its_held = first.setdefault((read.collection, read.document, read.op),
                                               (read, held))
            if held != its_held:
                some = sorted(held ^ its_held, key=str)[:3]
                self.find("diverged", (read.collection, read.document),
                          "only one has %r …: %s; %s" % (some, other.describe(), read.describe()))

    def check(self):
        self.somebody_looked()
        if not self.findings:  # what is malformed says nothing about the nodes
            self.identify()
            self.know()
            self.presence()
            self.seqs_rise()
            self.arrivals_stay()
            self.total_order()
            self.ends_alike()
        return self.findings


def check(events):
    """What is wrong with a history: a list of findings, empty if nothing is."""
    return Checker(events).check()


def main(paths):
    if not paths:
        sys.exit("usage: history.py FILE…")
    wrong = 0
    for path in paths:
        for finding in check(load(path)):
            print("%s: %s: %s" % (path, *finding))
            wrong += 1
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
