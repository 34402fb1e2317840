"""Items 3, 4 and 7: bounded memory whatever the backlog is, and no more sent again than a window."""

import time

import node
from node import MIB, check
from proxy import Proxy

WINDOW_JOBS = 8192
WINDOW_BYTES = 8 * MIB


def progress_of(target, seen):
    seen.append(target.status()["remotes"][0]["progress"])
    return seen[-1]


def catches_up(field, count, bytes_):
    """Import on one node, then have a fresh one catch up."""
    a, b = field.nodes_started("a", "b")
    path = field.file("in.jsonl", node.operations(count, bytes_=bytes_))
    took = a.import_file("c", path)
    field.say("import: %d operations in %.1f s, %.0f /s" % (count, took, count / took))
    begun = time.monotonic()
    a.peer(b)
    seen = []
    field.until("all is there", lambda: progress_of(a, seen)["applied"] >= count, every=0.05,
                timeout=field.size(60, 900))
    a.wait(b)
    last = progress_of(a, seen)
    check(last["applied"] == last["transported"] == last["total"] == count + 100 and
          last["left_ms"] == 0, "the progress does not end at exactly 100 %", last)
    check(all(one["applied"] <= one["transported"] <= one["total"] for one in seen),
          "it is no progress", seen)
    took = time.monotonic() - begun
    check(took < 2 or any(0 < one["applied"] < one["total"] and one["rate"] > 0 for one in seen),
          "nothing was seen of the way", seen)
    field.say("catch-up: %.1f s, %.0f /s" % (took, count / took))
    digest, = a.digest()
    check(b.digest() == [digest], "digests differ after the barrier", digest, b.digest())
    check(digest["documents"] == 100 and digest["operations"] == count + 100,
          "not all of it is held", digest)
    field.check_memory(a, b)


def an_import_and_a_fresh_node_stay_below_64_mib(field):
    catches_up(field, field.size(20000, 100000), 128)


def an_import_into_a_stopped_store_stays_below_64_mib(field):
    """There the importing process is the reactor as well."""
    a = field.node("a")
    a.import_file("c", field.file("in.jsonl", node.operations(field.size(20000, 1000000))))
    field.check_memory(a)


def a_million_operations_of_128_bytes_stay_below_64_mib(field):
    catches_up(field, field.size(30000, 1000000), 128)


def a_stopped_receiver_stops_the_sender(field):
    """The sender's memory must not grow with what the receiver does not take."""
    count = field.size(60000, 1000000)
    a, b = field.nodes_started("a", "b")
    a.import_file("c", field.file("in.jsonl", node.operations(
        count, bytes_=field.size(600, 128))))
    a.peer(b)
    field.until("the catch-up has begun",
                lambda: b.status()["store"]["operations"] > count // 20)
    b.freeze()
    held_back = count - a.status()["remotes"][0]["sent_operations"]
    before = a.memory.last
    check(held_back > 2 * WINDOW_JOBS, "the catch-up was over before it could be stopped",
          "%d operations were left" % held_back)
    a.memory.peak = 0
    most_jobs = 0
    end = time.monotonic() + field.size(4, 90)  # full: past the silence that ends a session
    while time.monotonic() < end:
        row = a.remote("b")
        most_jobs = max(most_jobs, row["outbox"])
        # It goes on serving its own people.
        a.append("c", "while-stopped", "counter", "ADD", 1)
    grown = a.memory.peak - before
    field.say("stopped with %d operations to go: the sender grew by %.2f MiB from %.1f MiB, "
              "%d jobs in flight" % (held_back, grown / MIB, before / MIB, most_jobs))
    check(field.sanitized or grown < WINDOW_BYTES, "the sender grew by %.1f MiB" % (grown / MIB))
    check(most_jobs <= WINDOW_JOBS, "%d jobs in flight" % most_jobs)
    b.thaw()
    a.wait(b, timeout=field.size(60, 900))
    field.settle(a, b)
    field.check_memory(a, b)


def a_node_that_was_away_catches_up_and_restarts_send_little_again(field):
    """Both restart in the middle; what comes twice is at most what was in flight."""
    count, collections = field.size(20000, 200000), 50
    a, b = field.nodes_started("a", "b")
    proxy = Proxy(field, a)
    # b dials, and dials again when it is back; so slow that it is not over before it is looked at.
    proxy.set(rate=count * 75)
    b.run("-q", "peer", "add", "a", proxy.url)
    b.wait(a)
    b.end()
    each = count // collections
    for i in range(collections):
        path = field.file("in.jsonl", node.operations(each, documents=5, bytes_=128))
        a.import_file("c%d" % i, path)
    total = a.status()["store"]["operations"]

    duplicates = []
    for restart in range(2):
        b.start()
        goal = total * (restart + 1) // 3 - field.random.randrange(total // 8)
        field.until("%d operations have come" % goal,
                    lambda: b.status()["store"]["operations"] >= goal, every=0.005)
        row = b.remote("a")
        duplicates.append(row["duplicate_operations"])
        (b.kill if restart else b.end)()
        (a.end if restart else a.kill)()
        a.start()
    held = field.run("--data", b.data, "--json", "status").lines()[0]["store"]["operations"]
    check(held < total, "it was all there before the last restart: nothing was shown", held, total)
    b.start()
    b.wait(a)
    b.run("-q", "peer", "sync", "a", "--wait", "--timeout", "120", timeout=150)
    digest = field.settle(a, b)
    row = b.remote("a")
    duplicates.append(row["duplicate_operations"])
    sent_last = row["received_operations"]
    check(sum(one["operations"] for one in digest) == total and len(digest) == collections,
          "not all of it is held", digest)
    field.say("%d operations in %d collections; duplicates after each restart: %s; the last "
              "session brought %d of %d" % (total, collections, duplicates, sent_last,
                                            total - held))
    for number in duplicates:
        check(number <= WINDOW_JOBS, "%d operations came again after a restart" % number)
    check(sent_last - row["duplicate_operations"] == total - held,
          "the counters do not add up", sent_last, row["duplicate_operations"], total - held)
    field.check_memory(a, b)


node.main(an_import_and_a_fresh_node_stay_below_64_mib,
          an_import_into_a_stopped_store_stays_below_64_mib,
          a_million_operations_of_128_bytes_stay_below_64_mib,
          a_stopped_receiver_stops_the_sender,
          a_node_that_was_away_catches_up_and_restarts_send_little_again)
