"""Item 6 and its neighbours: rings, meshes, lines; who has whom as remote; pause, removal, waiting."""

import threading
import time

import node
from node import check
from proxy import Proxy


def write_all(field, nodes, each, collections=2):
    """Every node writes at once, through the command line, into shared documents."""
    errors = []

    def write(target):
        try:
            for i in range(each):
                target.append("c%d" % (i % collections), "d%d" % (i % 3), "kv", "SET",
                              {"%s%d" % (target.name, i): i})
        except node.Failure as failure:
            errors.append(failure)

    threads = [threading.Thread(target=write, args=(target,)) for target in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def counters(target):
    rows = target.status()["remotes"]
    return {name: sum(row[name + "_operations"] for row in rows)
            for name in ("sent", "received", "duplicate", "echoed")}


def check_counters(field, nodes, total):
    for target in nodes:
        own = sum(row["operations"] for row in target.digest())
        found = counters(target)
        mine = target.status()["origin"]
        local = sum(row["origin"] == mine for name in ("c0", "c1", "bulk")
                    for row in target.json("op", "ls", name, timeout=120))
        distinct = total - local
        field.say("%s: wrote %d, received %d of %d, %d of them twice, %d echoes" % (
            target.name, local, found["received"], distinct, found["duplicate"],
            found["echoed"]))
        check(own == total, "%s holds %d operations, not %d" % (target.name, own, total))
        check(found["echoed"] == 0, "%s got echoes: %d" % (target.name, found["echoed"]))
        check(found["duplicate"] <= distinct, "more than one duplicate an operation")
        check(found["received"] - found["duplicate"] == distinct,
              "%s: the counters do not add up" % target.name, found, distinct)


def converges(field, nodes, bulk):
    """Writers on all nodes, bulk imports on all nodes at once, then the same everywhere."""
    each = field.size(15, 100)
    write_all(field, nodes, each)
    imports = []
    for target in nodes:
        path = field.file(target.name + ".jsonl", node.operations(bulk, documents=7))
        imports.append(threading.Thread(target=target.import_file, args=("bulk", path)))
    for thread in imports:
        thread.start()
    for thread in imports:
        thread.join()
    write_all(field, nodes, each)
    begun = time.monotonic()
    digest = field.settle(*nodes, timeout=field.size(60, 300))
    total = sum(row["operations"] for row in digest)
    field.say("%d operations, equal %.1f s after the last write" % (total,
                                                                 time.monotonic() - begun))
    check_counters(field, nodes, total)
    field.check_memory(*nodes)
    for target in nodes:
        field.until("%s is in step with all" % target.name,
                    lambda: all(row["state"] == "in_step" for row in target.status()["remotes"]))


def three_in_a_ring_converge_without_echoes(field):
    nodes = field.nodes_started("a", "b", "c")
    for i, target in enumerate(nodes):
        target.peer(nodes[(i + 1) % 3])
    converges(field, nodes, field.size(2000, 20000))


def five_in_a_ring_relay_both_ways_round_without_echoes(field):
    """Two ways to everybody who is no neighbour: what is relayed is asked for once."""
    nodes = field.nodes_started("a", "b", "c", "d", "e")
    for i, target in enumerate(nodes):
        target.peer(nodes[(i + 1) % 5])
    converges(field, nodes, field.size(1000, 20000))


def five_in_a_full_mesh_configured_both_ways_converge_without_echoes(field):
    nodes = field.nodes_started("a", "b", "c", "d", "e")
    for target in nodes:
        for other in nodes:
            if other is not target:
                target.peer(other)
    converges(field, nodes, field.size(1000, 20000))
    for target in nodes:
        status = target.status()
        check(len(status["remotes"]) == 4, "%s shows %d sessions, not 4" %
              (target.name, len(status["remotes"])), status["remotes"])


def two_that_have_each_other_as_remote_use_one_session(field):
    a, b = field.nodes_started("a", "b")
    a.peer(b)
    b.peer(a)
    a.append("c", "d", "counter", "ADD", 1)
    a.wait(b)
    b.wait(a)

    def look():
        """State, since and sessions of both, or None while there is no one session."""
        rows = [target.status() for target in (a, b)]
        for row in rows:
            if len(row["remotes"]) != 1 or row["remotes"][0]["state"] != "in_step":
                return None
        if sum(row["listener"]["sessions"] for row in rows) != 1:
            return None
        return [(row["remotes"][0]["since"], row["listener"]["sessions"]) for row in rows]

    first = field.until("one session, in step on both", look)
    opened = sum(target.log().count("session with") for target in (a, b))
    end = time.monotonic() + 5
    while time.monotonic() < end:
        check(look() == first, "the session flaps", first,
              [target.status() for target in (a, b)])
        time.sleep(0.1)
    check(sum(target.log().count("session with") for target in (a, b)) == opened,
          "sessions came and went", a.log()[-1500:], b.log()[-1500:])
    # Whichever of the two goes and comes back: one again.
    for target in (a, b):
        target.kill()
        target.start()
        field.until("one session again", look)
    b.append("c", "d", "counter", "ADD", 1)
    field.settle(a, b)


def an_operation_crosses_a_line_of_three_both_ways(field):
    a, b, c = field.nodes_started("a", "b", "c")
    a.peer(b)
    c.peer(b)
    a.append("c", "d", "kv", "SET", {"a": 1})
    c.append("c", "d", "kv", "SET", {"c": 1})
    b.append("c", "d", "kv", "SET", {"b": 1})
    field.settle(a, b, c)
    for target in (a, b, c):
        shown, = target.json("doc", "show", "c", "d")
        check(shown["state"] == {"a": 1, "b": 1, "c": 1}, "a document lacks something", shown)
    # And a backlog, while the one in the middle comes and goes.
    path = field.file("in.jsonl", node.operations(field.size(5000, 100000)))
    a.import_file("one", path)
    c.import_file("two", path)
    b.kill()
    b.start()
    field.settle(a, b, c, timeout=field.size(60, 300))
    for target in (a, b, c):
        check(counters(target)["echoed"] == 0, "echoes on " + target.name)


def wait_is_true_only_when_the_peer_holds_it(field):
    a, b = field.nodes_started("a", "b")
    a.peer(b)
    a.append("c", "d", "counter", "ADD", 1)
    a.wait(b)
    check(a.digest() == b.digest(), "wait came back, and the peer does not hold it")
    # Frozen: it cannot make anything durable, whatever the sockets took.
    b.freeze()
    a.append("c", "d", "counter", "ADD", 2)
    result = a.run("wait", "b", "--timeout", "1.5", code=None)
    check(result.code == 9, "wait for a frozen peer: exit %d" % result.code, result.err)
    check("TANDEM_E_TIMEOUT" in result.err, "no named error", result.err)
    b.thaw()
    a.wait(b)
    check(a.digest() == b.digest(), "wait came back, and the peer does not hold it")
    b.end()
    a.append("c", "d", "counter", "ADD", 3)
    result = a.run("wait", "b", "--timeout", "1", code=None)
    check(result.code == 9, "wait for a stopped peer: exit %d" % result.code, result.err)
    b.start()
    a.wait(b)
    check(a.digest() == b.digest(), "wait came back, and the peer does not hold it")
    # Durable, too: killed at once, the peer still has it.
    for i in range(field.size(5, 25)):
        a.append("c", "d", "counter", "ADD", i)
        a.wait(b)
        wanted = a.digest()
        b.kill()
        found = b.digest()
        check(found == wanted, "what wait vouched for did not survive kill -9", found, wanted)
        b.start()


def a_peer_is_paused_and_resumed(field):
    a, b = field.nodes_started("a", "b")
    a.peer(b)
    a.append("c", "d", "counter", "ADD", 1)
    a.wait(b)
    a.run("peer", "pause", "b")
    check(a.remote("b")["state"] == "paused", "it is not paused", a.remote("b"))
    a.append("c", "d", "counter", "ADD", 2)
    before = b.digest()
    time.sleep(0.5)
    check(b.digest() == before, "a paused remote was sent something")
    a.end()
    a.start()
    time.sleep(0.5)
    check(a.remote("b")["state"] == "paused", "a restart resumed it", a.remote("b"))
    check(b.digest() == before, "a paused remote was sent something after a restart")
    a.run("peer", "resume", "b")
    a.wait(b)
    field.settle(a, b)


def a_peer_is_removed_while_it_syncs(field):
    count = field.size(80000, 200000)  # more than three windows
    a, b = field.nodes_started("a", "b")
    a.import_file("c", field.file("in.jsonl", node.operations(count)))
    proxy = Proxy(field, b)
    settled = 0
    for _ in range(3):
        begun = time.monotonic()
        proxy.set(rate=count * 10)  # so slow that it is not through when it is removed
        a.run("-q", "peer", "add", "b", proxy.url)
        field.until("something has come", lambda: b.status()["store"]["operations"] > settled)
        a.run("peer", "rm", "b")
        check(a.status()["remotes"] == [], "it is still there", a.status()["remotes"])
        proxy.set()
        field.until("the session ends", lambda: proxy.count("over", begun))
        settled = field.until("nothing more comes", quiet(b))
    check(settled < count, "it came through in spite of removal")
    a.append("c", "new", "counter", "ADD", 1)
    time.sleep(0.3)
    check(b.status()["store"]["operations"] == settled, "a removed remote was sent something")
    b.verify()
    a.peer(b)
    a.wait(b)
    field.settle(a, b)


def quiet(target):
    """A condition: the node holds as much as a second ago. What it was sent before may wait for its
    disk, longer than a moment where others write much."""
    seen, since = [-1], [0]

    def look():
        held = target.status()["store"]["operations"]
        if held != seen[0]:
            seen[0], since[0] = held, time.monotonic()
        time.sleep(0.1)
        return held if time.monotonic() - since[0] > 1 else None
    return look


def an_unknown_peer_is_exit_4(field):
    a = field.node("a").start()
    for args in (("wait", "nobody"), ("peer", "pause", "nobody"), ("peer", "rm", "nobody"),
                 ("peer", "show", "nobody"), ("peer", "sync", "nobody", "--wait"),
                 ("peer", "set", "nobody", "ws://127.0.0.1:1/tandem")):
        result = a.run(*args, code=None)
        check(result.code == 4 and "TANDEM_E_NOT_FOUND" in result.err,
              "%s: exit %d" % (" ".join(args), result.code), result.err)


def a_node_that_has_itself_as_peer_says_so(field):
    a = field.node("a").start()
    a.run("-q", "peer", "add", "self", a.url)
    row = field.until("it is blocked", lambda: [r for r in a.status()["remotes"] if
                                                r["name"] == "self" and r["state"] == "blocked"])[0]
    check("TANDEM_E_SELF" in row["reason"], "the reason does not say why", row)
    a.append("c", "d", "counter", "ADD", 1)


def a_wait_for_a_peer_that_is_blocked_ends_and_says_why(field):
    a = field.node("a").start()
    a.append("c", "d", "counter", "ADD", 1)
    a.run("-q", "peer", "add", "self", a.url)
    for _ in range(2):  # before it has been met, and when it is known
        result = a.run("wait", "self", code=None)
        check(result.code == 3 and "`self` is blocked" in result.err and
              "TANDEM_E_REFUSED" in result.err, "wait: exit %d" % result.code, result.err)


node.main(three_in_a_ring_converge_without_echoes,
          five_in_a_ring_relay_both_ways_round_without_echoes,
          five_in_a_full_mesh_configured_both_ways_converge_without_echoes,
          two_that_have_each_other_as_remote_use_one_session,
          an_operation_crosses_a_line_of_three_both_ways,
          wait_is_true_only_when_the_peer_holds_it,
          a_peer_is_paused_and_resumed,
          a_peer_is_removed_while_it_syncs,
          an_unknown_peer_is_exit_4,
          a_node_that_has_itself_as_peer_says_so,
          a_wait_for_a_peer_that_is_blocked_ends_and_says_why)
