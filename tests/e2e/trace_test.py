"""`tandem trace replay`: sessions of several authors who wrote at once, drawn from a seed, end in the
text that they must, over memory and over WebSocket. A position means something else in any other
text than its author saw, so nothing but what was seen may have been there: more or less shows in the
end.

Each author inserts into a line of its own, and deletes wherever it likes: so the last text is known
without a model of concurrent texts."""

import json
import os
import signal
import subprocess

import node
from node import check

PIECES = ("a", "typed ", "é", "😀", "tandem", "\u4e16\u754c")
FIELDS = {"edits", "jobs", "reactors", "authors", "seconds", "edits_per_second", "rss_anon_bytes",
          "disk_bytes", "wire_bytes", "equal"}


class Character:
    def __init__(self, text, line, inserted):
        self.text, self.line = text, line
        self.inserted = inserted  # (author, its transaction); None: it was there before
        self.deleted = []  # by these


class Session:
    """A session that is being written: who has seen what, and all characters that ever were."""

    def __init__(self, random, authors):
        self.random, self.authors = random, authors
        self.characters = [Character(c, line, None) for line in range(authors)
                           for c in "%d:\n" % line]
        self.start = self.text()
        self.transactions, self.of = [], [[] for _ in range(authors)]
        self.seen = [[0] * authors for _ in range(authors)]  # by each author, of each
        self.after = [[] for _ in range(authors)]  # what was seen with each transaction

    def is_seen(self, by, what):
        return what is None or what[1] < self.seen[by][what[0]]

    def view(self, author):
        return [c for c in self.characters if self.is_seen(author, c.inserted) and
                not any(self.is_seen(author, d) for d in c.deleted)]

    def text(self):
        return "".join(c.text for c in self.characters if not c.deleted)

    def insert(self, author, name):
        view = self.view(author)
        places = [i + 1 for i, c in enumerate(view) if c.line == author and c.text != "\n" and
                  (c.inserted is not None or c.text == ":")]
        at, text = self.random.choice(places), self.random.choice(PIECES)
        behind = self.characters.index(view[at - 1]) + 1
        self.characters[behind:behind] = [Character(c, author, name) for c in text]
        return [at, 0, text]

    def delete(self, author, name):
        view = self.view(author)
        places = [i for i, c in enumerate(view) if c.inserted is not None]
        if not places:
            return self.insert(author, name)
        at = end = self.random.choice(places)
        while end < len(view) and end - at < 4 and view[end].inserted is not None:
            view[end].deleted.append(name)
            end += 1
        return [at, end - at, ""]

    def write(self, author, patches):
        """A transaction of an author, of so many patches, after what it has seen."""
        number = len(self.of[author])
        name = (author, number)
        parents = [self.of[a][count - 1] for a, count in enumerate(self.seen[author]) if count]
        self.of[author].append(len(self.transactions))
        self.seen[author][author] += 1
        self.after[author].append(list(self.seen[author]))
        done = [self.delete(author, name) if self.random.random() < 0.3 else
                self.insert(author, name) for _ in range(patches)]
        self.transactions.append({"agent": author, "parents": parents, "patches": done})

    def sees(self, author, other, count):
        """An author sees so many transactions of another one, and what that had seen."""
        if count:
            self.seen[author] = [max(pair) for pair in
                                 zip(self.seen[author], self.after[other][count - 1])]

    def recording(self):
        return {"numAgents": self.authors, "startContent": self.start, "endContent": self.text(),
                "txns": self.transactions}


def criss_cross(random, authors, transactions):
    """Everybody writes, and sees now and then some of what another one has written, not all."""
    session = Session(random, authors)
    for _ in range(transactions):
        author, other = random.sample(range(authors), 2)
        if random.random() < 0.5:
            session.sees(author, other, random.randint(0, len(session.of[other])))
        session.write(author, random.choice((0, 1, 1, 1, 2, 3)))
    return session


def apart(random, authors, transactions):
    """Nobody sees anything for long; then one sees it step by step, the others all at once."""
    session = Session(random, authors)
    for _ in range(transactions):
        session.write(random.randrange(1, authors), 1)
    for count in range(len(session.of[1])):
        session.sees(0, 1, count + 1)
        session.write(0, 1)
    for author in range(authors):
        for other in range(authors):
            session.sees(author, other, len(session.of[other]))
        session.write(author, 1)
    return session


def away(random, authors, transactions):
    """One is away, and writes without seeing what the others write, who see each other's at once; all
    that is recorded last. In full size it is more than a reactor can be without."""
    session = Session(random, authors)
    for i in range(transactions):
        author, other = 1 + i % 2, 2 - i % 2
        session.sees(author, other, len(session.of[other]))
        session.write(author, 1)
    for _ in range(3):
        session.write(0, 1)
    session.sees(0, 1, len(session.of[1]))
    session.write(0, 1)
    return session


def in_one_go(random, authors):
    """More patches than a job takes; and an author who writes nothing."""
    session = Session(random, authors + 1)
    for author in range(authors):
        session.write(author, 450)
    session.sees(0, 1, 1)
    session.write(0, 2)
    return session


def replays(field, name, session, via, agents=None):
    recording = session.recording()
    path = field.file(name + ".json", [recording])
    room = os.path.join(field.folder, "room")
    os.makedirs(room, exist_ok=True)
    wide = ("--agents", str(agents)) if agents else ()
    result = field.run("--json", "trace", "replay", path, *wide, "--via", via, timeout=100,
                       prefix=("env", "TMPDIR=" + room))
    told = json.loads(result.out)
    check(set(told) == FIELDS, "it tells something else", told)
    check(told["equal"] and told["reactors"] == (agents or session.authors), "not as asked", told)
    check(told["edits"] == sum(len(one["patches"]) for one in recording["txns"]) + 1,
          "not all was written", told)
    check(not os.listdir(room), "something is left", os.listdir(room))
    field.say("%s via %s: %d edits in %d jobs, %.1f s" %
              (name, via, told["edits"], told["jobs"], told["seconds"]))


def all_end_in_their_text(field, via):
    random = field.random
    replays(field, "criss_cross", criss_cross(random, 3, field.size(60, 400)), via, 4)
    replays(field, "many_cross", criss_cross(random, 5, field.size(40, 300)), via)
    replays(field, "apart", apart(random, 3, field.size(30, 300)), via)
    replays(field, "away", away(random, 3, field.size(300, 1300)), via)
    replays(field, "in_one_go", in_one_go(random, 2), via)


def texts_are_as_recorded_over_memory(field):
    all_end_in_their_text(field, "memory")


def texts_are_as_recorded_over_websocket(field):
    all_end_in_their_text(field, "ws")


def another_text_is_told(field):
    recording = criss_cross(field.random, 2, 5).recording()
    recording["endContent"] += "!"
    path = field.file("wrong.json", [recording])
    for via in ("memory", "ws"):
        result = field.run("trace", "replay", path, "--via", via, code=1)
        check(result.out.count("ANOTHER TEXT") == 2, "it does not say so", result.out)
    field.run("trace", "replay", path, "--via", "pigeon", code=2)
    field.run("trace", "replay", path, "--agents", "1", code=2)


def a_signal_leaves_nothing(field):
    path = field.file("long.json", [criss_cross(field.random, 3, 800).recording()])
    room = os.path.join(field.folder, "room")
    os.mkdir(room)
    for via in ("memory", "ws"):
        process = subprocess.Popen([field.tandem, "trace", "replay", path, "--via", via],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL,
                                   env={**node.environment(), "TMPDIR": room})
        field.processes.append(process)
        field.until("there are stores", lambda: os.listdir(room))
        process.send_signal(signal.SIGINT)
        check(process.wait(60 * field.slower) == 130, "another exit code", process.returncode)
        check(not os.listdir(room), "something is left", os.listdir(room))


node.main(texts_are_as_recorded_over_memory, texts_are_as_recorded_over_websocket,
          another_text_is_told, a_signal_leaves_nothing)
