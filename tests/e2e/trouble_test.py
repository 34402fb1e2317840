"""A network that misbehaves between two nodes: afterwards they hold the same, each operation once,
and at every moment of it `status` says what is so."""

import threading
import time

import node
from node import check
from proxy import Proxy

SEES_S = 4  # a state may be so long behind what happened
SILENCE_S = 30  # a session ends after so much of it
AWAY = ("connecting", "backing_off", "resting")

FAULTS = {
    "delay": {"delay_s": 0.05},
    "throttle": {"rate": 20000},
    "drop": {"lose": 1500, "ends": "close"},
    "reset": {"lose": 1500, "ends": "reset"},
    "half_open": {"lose": 3000, "ends": "half"},
    "corrupt": {"corrupt": 1500},
    "split": {"split": True},
    "refuse": {"refuse": True},
    "black_hole": {"black_hole": True},
}


class Writer(threading.Thread):
    """Writes to a node until told to stop; counts what was acknowledged."""

    def __init__(self, target):
        super().__init__(daemon=True)
        self.target, self.written, self.stopping = target, 0, threading.Event()
        self.failed = None

    def run(self):
        try:
            while not self.stopping.wait(0.1):
                self.target.append("c", "counter-of-" + self.target.name, "counter", "ADD", 1)
                self.written += 1
        except node.Failure as failure:
            self.failed = failure

    def stop(self):
        self.stopping.set()
        self.join()
        if self.failed:
            raise self.failed


class Watch(threading.Thread):
    """Looks at a remote's state all the time, and holds it against what the proxy saw."""

    def __init__(self, dialer, name, proxy):
        super().__init__(daemon=True)
        self.dialer, self.name, self.proxy = dialer, name, proxy
        self.sees_s = SEES_S * dialer.field.slower
        self.stopping = threading.Event()
        self.seen, self.lies = set(), []

    def run(self):
        while not self.stopping.wait(0.2):
            try:
                self.look()
            except node.Failure as failure:
                self.lies.append(str(failure))
                return

    def look(self):
        asked = time.monotonic()
        row = self.dialer.remote(self.name)
        state = row["state"]
        self.seen.add(state)
        if state == "blocked":
            self.lies.append("blocked by the network: " + row["reason"])
        if not row["reason"] and state not in ("in_step", "pushing", "pulling", "connecting"):
            self.lies.append("%s without a reason" % state)
        if state == "backing_off" and not row["retry_at"]:
            self.lies.append("backing off until nobody knows when")
        quiet = self.quiet_since()
        if quiet and asked - quiet > self.sees_s and state not in AWAY:
            self.lies.append("%s, though nobody was connected for %.1f s" % (state, asked - quiet))
        # Both sides write all the time.
        silent = asked - max(self.proxy.carried_at, self.begun)
        if silent > self.sees_s and state == "in_step" or \
                silent > SILENCE_S + self.sees_s and state not in AWAY:
            self.lies.append("%s, though nothing came through for %.1f s" % (state, silent))

    def quiet_since(self):
        """Since when no connection has been open; None: one is, or was a moment ago."""
        open_, since = set(), self.begun
        for at, what, number in list(self.proxy.log):
            if what == "connected":
                open_.add(number)
            elif number in open_ and what == "over":
                open_.discard(number)
                since = at
        return None if open_ else since

    def start(self):
        self.begun = time.monotonic()
        super().start()

    def stop(self):
        self.stopping.set()
        self.join()
        check(not self.lies, "status lied", *self.lies[:10])


def pair(field):
    a, b = field.nodes_started("a", "b")
    a.total = b.total = 0  # written so far
    proxy = Proxy(field, a)
    b.run("-q", "peer", "add", "a", url_of(field, proxy))
    b.wait(a)
    return a, b, proxy


def url_of(field, proxy):
    return proxy.http_url if field.transport == "http" else proxy.url


def attempts_max(seconds):
    """With full jitter, from 100 ms and doubling to 30 s, after each connection that was lost."""
    return 12 + int(seconds / 2)


def trouble(field, a, b, proxy, during):
    """Write on both sides while something is done to the network, then let it be whole."""
    watch = Watch(b, "a", proxy)
    writers = [Writer(a), Writer(b)]
    began = time.monotonic()
    watch.start()
    for writer in writers:
        writer.start()
    during()
    for writer in writers:
        writer.stop()
    watch.stop()
    attempts, lost = proxy.count("connected", began), proxy.count("over", began)
    took = time.monotonic() - began
    proxy.set()
    proxy.cut()  # it would take its silence to find a half-open connection
    b.run("-q", "peer", "sync", "a")
    field.settle(a, b, timeout=90)
    for writer in writers:
        writer.target.total += writer.written
        document = "counter-of-" + writer.target.name
        for one in (a, b):
            state = one.json("doc", "show", "c", document)[0]["state"]
            check(state == writer.target.total, "%s on %s counts %d of %d" %
                  (document, one.name, state, writer.target.total))
    check(attempts <= attempts_max(took) + lost, "%d connections in %.0f s" % (attempts, took))
    field.say("%d and %d operations, %d connections, seen: %s" %
              (writers[0].written, writers[1].written, attempts, ", ".join(sorted(watch.seen))))


def each_fault_alone(field):
    a, b, proxy = pair(field)
    for name, faults in FAULTS.items():
        field.say(name)

        def during(name=name, faults=faults):
            proxy.set(**faults)
            if name == "refuse":
                proxy.cut()
            if name in ("refuse", "black_hole"):
                time.sleep(field.size(SEES_S + 2, SILENCE_S + 15))
            else:
                time.sleep(field.size(2, 20))
        trouble(field, a, b, proxy, during)
    for one in (a, b):
        one.verify()
    field.ends_cleanly()


def a_random_mixture(field):
    a, b, proxy = pair(field)

    def during():
        ends = time.monotonic() + field.size(8, 60)
        while time.monotonic() < ends:
            mixed = {}
            for name in field.random.sample(sorted(FAULTS), field.random.randrange(1, 4)):
                mixed.update(FAULTS[name])
            proxy.set(**mixed)
            if field.random.random() < 0.3:
                proxy.cut()
            time.sleep(field.random.uniform(0.2, 3))
            if field.random.random() < 0.5:
                proxy.set()
                time.sleep(field.random.uniform(0.2, 2))
    trouble(field, a, b, proxy, during)
    for one in (a, b):
        one.verify()
    field.ends_cleanly()


def http_gets_through_where_websocket_is_refused(field):
    """All that the demo does, over HTTP alone."""
    a, b = field.nodes_started("a", "b")
    proxy = Proxy(field, a)
    proxy.set(http_only=True)
    b.run("-q", "peer", "add", "by-websocket", proxy.url)
    field.until("WebSocket is refused", lambda: proxy.count("refused WebSocket") >= 2)
    check("403" in b.remote("by-websocket")["reason"], "the reason does not say why",
          b.remote("by-websocket"))
    b.run("-q", "peer", "rm", "by-websocket")
    a.import_file("c", field.file("in.jsonl", node.operations(2000)))
    b.run("-q", "peer", "add", "a", proxy.http_url)
    b.wait(a)
    field.settle(a, b)
    b.run("-q", "peer", "pause", "a")
    a.append("c", "d1", "kv", "SET", {"by": "a", "a": 1})
    b.append("c", "d1", "kv", "SET", {"by": "b", "b": 2})
    check(a.digest() != b.digest(), "they hold the same though the link is cut")
    b.run("-q", "peer", "resume", "a")
    field.settle(a, b)
    check(b.remote("a")["state"] == "in_step", "not in step", b.remote("a"))
    field.ends_cleanly()


node.main(each_fault_alone, a_random_mixture,
          http_gets_through_where_websocket_is_refused)
