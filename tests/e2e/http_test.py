"""Peers over HTTP: two nodes in step where only HTTP gets through, and a plain HTTP client."""

import http.client
import os
import signal
import socket
import struct

import node
from node import check

TYPE = "application/vnd.tandem.1"


def http_url(target):
    return target.url.replace("ws://", "http://")


def dials(target, other):
    target.run("-q", "peer", "add", other.name, http_url(other))


def two_nodes_end_equal(field):
    a, b = field.nodes_started("a", "b")
    for target in (a, b):
        target.import_file("c", field.file(target.name + ".jsonl",
                                           node.operations(field.size(5000, 100000))))
    dials(a, b)
    a.wait(b)
    field.settle(a, b)
    row = a.remote("b")
    check(row["url"] == http_url(b), "status shows another URL", row)
    # Through deaths of either side.
    for target, number in ((b, signal.SIGKILL), (a, signal.SIGKILL), (b, signal.SIGTERM)):
        target.end(number)
        (a if target is b else b).append("c", "d", "kv", "SET", {"while": target.name})
        target.start()
        target.append("c", "d", "kv", "SET", {"after": target.name})
        field.settle(a, b)
    for target in (a, b):
        target.verify()
    field.check_memory(a, b)
    field.ends_cleanly()


def a_change_does_not_wait_for_the_next_poll(field):
    """With one poll each change this would take ten times the deadline."""
    a, b = field.nodes_started("a", "b")
    dials(a, b)
    a.append("c", "d", "kv", "SET", {"n": 0})
    a.wait(b)

    def rounds():
        for n in range(15):
            for target in (a, b):
                target.append("c", "d", "kv", "SET", {target.name: n})
                field.settle(a, b, timeout=10)
        return True

    field.until("thirty changes have crossed", rounds)
    field.ends_cleanly()


def who_shares_less_with_another_says_hello_second(field):
    """A node with such a remote waits for the dialer's HELLO: both ways of dialing still open."""
    a, b, c = field.nodes_started("a", "b", "c")
    a.run("-q", "peer", "add", "elsewhere", "ws://127.0.0.1:1/tandem", "--push", "--scope", "x")
    dials(b, a)
    c.run("-q", "peer", "add", "a", a.url)
    for target in (a, b, c):
        target.append("c", "d", "kv", "SET", {target.name: 1})
    b.wait(a)
    c.wait(a)
    field.settle(a, b, c)
    field.ends_cleanly()


def a_node_that_is_polled(field):
    """Nothing of b's comes but when a asks, what a writes goes at once, and status says when."""
    a, b = field.nodes_started("a", "b")
    a.run("-q", "peer", "add", "b", http_url(b), "--poll", "adaptive=300ms")
    a.append("c", "d", "kv", "SET", {"n": 0})
    a.wait(b)
    for n in range(20):
        for target in (a, b):
            target.append("c", "d", "kv", "SET", {target.name: n})
    field.settle(a, b)
    poll = a.remote("b")["poll"]
    check(poll["mode"] == "adaptive" and poll["mean_ms"] == 300, "another poll", poll)
    check(37 <= poll["interval_ms"] <= 2400 and poll["exchanges"] > 3, "not polled so", poll)
    check(poll["inputs"]["failures"] == 0 and poll["reason"], "no reason", poll)
    # One request in ten minutes: what is written here goes out all the same, and a hint brings
    # what is there.
    a.run("-q", "peer", "set", "b", "--poll", "600s")
    field.until("the next poll is far", lambda: a.remote("b")["poll"]["next_at"])
    b.append("c", "d", "kv", "SET", {"far": 1})
    a.append("c", "e", "kv", "SET", {"near": 1})
    field.settle(a, b)
    b.append("c", "d", "kv", "SET", {"far": 2})
    a.run("-q", "peer", "sync")
    field.settle(a, b)
    field.ends_cleanly()


def a_websocket_and_an_http_remote_to_each_other(field):
    """Of two sessions of the same pair one serves, as with two WebSockets."""
    a, b = field.nodes_started("a", "b")
    dials(a, b)
    b.run("-q", "peer", "add", "a", a.url)
    for n in range(field.size(10, 100)):
        a.append("c", "d", "kv", "SET", {"a": n})
        b.append("c", "d", "kv", "SET", {"b": n})
    a.wait(b)
    b.wait(a)
    field.settle(a, b)
    for target in (a, b):
        echoed = sum(row["echoed_operations"] for row in target.status()["remotes"])
        check(echoed == 0, "%s got %d echoes" % (target.name, echoed))
    field.ends_cleanly()


class Link:
    """The client's side of a link, with nothing but a standard HTTP client."""

    def __init__(self, target):
        self.target = target
        self.id = os.urandom(16).hex()
        self.number = 0

    def exchange(self, body=bytes(4), number=None, headers=None, method="POST"):
        self.number = number or self.number + 1
        connection = http.client.HTTPConnection("127.0.0.1", self.target.port, timeout=30)
        try:
            connection.request(method, "/tandem", body, {
                "Content-Type": TYPE, "Tandem-Link": self.id,
                "Tandem-Exchange": str(self.number), **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()


def a_plain_client_is_served(field):
    """By PROTOCOL.md: it opens a link, hears HELLO, and ends it."""
    target, = field.nodes_started("a")
    link = Link(target)
    status, body, headers = link.exchange()
    check((status, headers["Content-Type"]) == (200, TYPE), "it is not let in", status)
    size, = struct.unpack(">I", body[:4])
    check(body[4] & 0xf0 == 0x90 and body[5:7] == b"\x01\x01" and size <= len(body) - 4,
          "the first message is no HELLO", body)
    status, body, headers = link.exchange(headers={"Tandem-End": "1000 that was all"})
    check((status, body) == (200, b""), "the end is not answered", status, body)
    check(link.exchange()[0] == 409, "a link that has ended is known")
    field.ends_cleanly()


def requests_of_others_are_refused(field):
    target, = field.nodes_started("a")
    rejected = 0
    for headers, status in (({"Origin": "http://127.0.0.1"}, 403), ({"Host": "evil.example"}, 403),
                            ({"Content-Type": "text/plain"}, 415), ({"Tandem-Link": "x"}, 400),
                            ({"Tandem-Exchange": "0"}, 400), ({"Content-Length": "9999999"}, 413)):
        found = Link(target).exchange(headers=headers)[0]
        check(found == status, "%s is answered with %d" % (headers, found))
        rejected += 1
        field.until("it is counted",
                    lambda: target.status()["listener"]["rejected"] == rejected)
    field.ends_cleanly()


def clients_that_vanish_leave_nothing(field):
    """Links of clients that open one and are never heard of again do not keep a node from ending."""
    target, = field.nodes_started("a")
    links = [Link(target) for _ in range(20)]
    for link in links:
        check(link.exchange()[0] == 200, "it is not let in")
    parked = []
    for link in links:
        raw = socket.create_connection(("127.0.0.1", target.port))
        raw.sendall(("POST /tandem HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nTandem-Link: %s"
                     "\r\nTandem-Exchange: 2\r\nContent-Length: 4\r\n\r\n" % (TYPE, link.id))
                    .encode() + bytes(4))
        parked.append(raw)
    for raw in parked[:10]:
        raw.close()
    target.append("c", "d", "kv", "SET", {"n": 1})
    field.check_memory(target)
    field.ends_cleanly()
    for raw in parked:
        raw.close()


node.main(two_nodes_end_equal, a_change_does_not_wait_for_the_next_poll,
          who_shares_less_with_another_says_hello_second, a_node_that_is_polled,
          a_websocket_and_an_http_remote_to_each_other, a_plain_client_is_served,
          requests_of_others_are_refused, clients_that_vanish_leave_nothing)
