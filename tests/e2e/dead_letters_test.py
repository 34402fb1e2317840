"""Dead letters on the command line: listed, shown, retried, discarded, on a stopped store and on a
node; and the barrier that lists them. The peer that refuses is the small client, dialed by a node, or
a node with a rule."""

import base64
import hashlib
import os
import re
import select
import socket
import threading

import websocket

import small_client
import support
from returning_client import Returning

REFUSED = -32


class Accepted(websocket.WebSocket):
    """The end that was dialed."""

    def __init__(self, accepted):
        super().__init__()
        self.sock, self.connected, self.timeout = accepted, True, 30
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = accepted.recv(1)
            if not byte:
                raise ConnectionError("closed")
            head += byte
        key = re.search(rb"Sec-WebSocket-Key: *(\S+)", head, re.I).group(1)
        accept = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        accepted.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                         b"Connection: Upgrade\r\nSec-WebSocket-Protocol: tandem.1\r\n"
                         b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n")

    def send_frame(self, frame):
        frame.mask = 0  # what goes this way is not masked
        return super().send_frame(frame)

    def exchange(self, out, seconds):
        for message in out:
            self.send_binary(message)
        return [self.recv()] if select.select([self], [], [], seconds)[0] else []


class Particular(Returning):
    """Takes everything but the documents of one name."""

    def __init__(self, peer, exchange, before):
        super().__init__(exchange, before, peer.reactor)
        self.of = peer

    def store(self, raws):
        if small_client.read_operation(raws[0]).place[0] == self.of.poison:
            return REFUSED, 0
        return super().store(raws)


class Peer:
    """It listens, has one session at a time, and keeps what it took in those before."""

    def __init__(self):
        self.reactor, self.poison = os.urandom(16), "bad"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "ws://127.0.0.1:%d/tandem" % self.listener.getsockname()[1]
        self.over = False
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        replica = None
        while True:
            try:
                accepted = self.listener.accept()[0]
            except OSError:
                return
            try:
                replica = Particular(self, Accepted(accepted).exchange, replica)
                while not self.over:
                    replica.step()
            except (OSError, websocket.WebSocketException):
                pass
            accepted.close()

    def end(self):
        self.over = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(support.DEADLINE_S)


class DeadLetters(support.Case):
    def setUp(self):
        super().setUp()
        self.peer = Peer()
        self.addCleanup(self.peer.end)

    def start(self):
        return self.node("--listen", "127.0.0.1:0", "--peer", "p=" + self.peer.url)

    def dead(self, *args):
        return self.json("job", "ls", "--box", "dead", *args)

    def one_refused(self):
        """A node whose peer has refused one job, and its dead letter."""
        node = self.start()
        self.append("good", {"x": 1})
        self.append("bad", {"x": 2})
        self.until("a dead letter", self.dead)
        letter, = self.dead()
        return node, letter

    def test_a_refused_job_is_listed_and_shown_by_a_node_and_by_its_stopped_store(self):
        node, letter = self.one_refused()
        self.assertLessEqual({"box": "dead", "remote": "p", "status": "error", "collection": "c",
                              "document": "bad", "branch": "main", "operations": 2, "first_seq": 3,
                              "last_seq": 4, "error": "TANDEM_E_REFUSED", "offered": 1,
                              "retry": False}.items(), letter.items())
        self.assertRegex(letter["refused_at"], r"^20\d\d-.*Z$")
        self.assertEqual(self.peer.reactor.hex(), letter["reactor"])
        table = self.tandem("job", "ls", "--box", "dead").out.splitlines()
        self.assertRegex(table[0], r"^ *ID +PEER +COLLECTION +DOCUMENT")
        self.assertRegex(table[1], r"^ *%d +p +c +bad .*TANDEM_E_REFUSED" % letter["id"])
        self.until("nothing in flight", lambda: self.json("job", "ls") == [letter])
        self.assertEqual([], self.json("job", "ls", "--box", "outbox"))
        self.assertEqual([letter], self.json("job", "show", str(letter["id"])))
        self.assertIn("TANDEM_E_REFUSED", self.tandem("job", "show", str(letter["id"])).out)
        status, = self.json("peer", "show", "p")
        self.assertEqual(1, status["dead_letters"])
        self.assertEqual("blocked", status["state"])
        self.assertIn("1 job was refused there", status["reason"])
        self.assertEqual(1, self.json("status")[0]["events"]["dead_letter"])
        node.end()
        self.assertEqual([letter], self.dead())
        self.assertEqual([letter], self.json("job", "show", str(letter["id"])))
        self.assertEqual(1, self.json("peer", "show", "p")[0]["dead_letters"])
        self.tandem("verify")

    def test_the_barrier_lists_what_was_refused(self):
        _, letter = self.one_refused()
        result = self.tandem("wait", "p", "--timeout", "30", code=3)
        self.assertRegex(result.out, r"(?m)^ *%d +p +c +bad" % letter["id"])
        self.assertIn("tandem job retry", result.err)
        self.assertIn("(TANDEM_E_REFUSED)", result.err)
        rows = self.tandem("--json", "wait", "p", "--timeout", "30", code=3).json()
        self.assertEqual("p", rows[0]["name"])
        self.assertEqual([letter], rows[1:])
        self.tandem("job", "discard", str(letter["id"]))
        self.tandem("wait", "p", "--timeout", "30")

    def test_a_retried_one_is_delivered(self):
        _, letter = self.one_refused()
        self.assertEqual("to be offered again: job %d\n" % letter["id"],
                         self.tandem("job", "retry", str(letter["id"])).out)
        self.until("it is refused again", lambda: self.dead()[0]["offered"] == 2)
        again, = self.dead()
        self.assertEqual(letter["id"], again["id"])
        self.assertGreaterEqual(again["refused_at"], letter["refused_at"])
        self.peer.poison = None
        self.assertEqual([{"id": letter["id"], "retry": True}],
                         self.json("job", "retry", str(letter["id"])))
        self.until("it is gone", lambda: not self.dead())
        self.tandem("wait", "p", "--timeout", "30")
        self.assertEqual("in_step", self.json("peer", "show", "p")[0]["state"])

    def test_a_stopped_store_takes_the_command_along(self):
        node, letter = self.one_refused()
        node.end()
        self.tandem("job", "retry", str(letter["id"]))
        self.assertTrue(self.dead()[0]["retry"])
        self.peer.poison = None
        self.start()
        self.until("it is gone", lambda: not self.dead())
        self.tandem("wait", "p", "--timeout", "30")

    def test_a_discarded_one_is_gone(self):
        node, letter = self.one_refused()
        self.assertEqual([{"id": letter["id"], "discarded": True}],
                         self.json("job", "discard", str(letter["id"])))
        self.assertEqual([], self.dead())
        node.end()
        self.assertEqual([], self.dead())
        self.start()  # the peer keeps no record of what it refused: it is offered it again
        self.until("another dead letter", self.dead)
        self.assertGreater(self.dead()[0]["id"], letter["id"])
        self.tandem("peer", "rm", "p")
        self.assertEqual([], self.dead())

    def test_a_node_refuses_by_its_rule_until_that_is_gone(self):
        other = os.path.join(self.folder, "other")
        b = self.node("--listen", "127.0.0.1:0", "--refuse", "c/bad", data=other)
        listen = b.url.split("/")[2]
        a = self.node("--listen", "127.0.0.1:0", "--peer", "b=" + b.url)
        for i in range(20):
            self.append("bad" if i == 10 else "n%d" % i, {"x": i})
        self.tandem("wait", "b", "--timeout", "60", code=3)
        letter, = self.dead()
        self.assertEqual(("b", "bad"), (letter["remote"], letter["document"]))
        self.assertEqual(19, len(self.json("doc", "ls", "c", data=other)))
        a.end()
        b.end()
        self.assertEqual([letter], self.dead())
        b = self.node("--listen", listen, "--refuse", "c/bad", data=other)
        self.node()
        self.until("b is met", lambda: self.json("peer", "show", "b")[0]["state"] == "blocked")
        self.assertEqual([letter], self.dead())  # nobody offers it again
        self.tandem("job", "retry", str(letter["id"]))
        self.until("it is refused again", lambda: self.dead()[0]["offered"] == 2)
        b.end()
        self.node("--listen", listen, data=other)
        self.until("it came, and the letter is gone", lambda: not self.dead())
        self.tandem("wait", "b", "--timeout", "60")
        self.assertEqual(self.json("digest"), self.json("digest", data=other))

    @support.on_both
    def test_what_is_not_there_is_exit_4(self, data):
        self.append("d", {"x": 1}, data=data)
        for verb in ("retry", "discard"):
            self.assertEqual("tandem: `tandem job %s` failed, there is no dead letter 7; `tandem job "
                             "ls --box dead` lists them (TANDEM_E_NOT_FOUND)\n" % verb,
                             self.tandem("job", verb, "7", data=data, code=4).err)
            self.tandem("job", verb, "0", data=data, code=4)
            self.tandem("job", verb, data=data, code=2)
            self.tandem("job", verb, "seven", data=data, code=2)
            self.assertIn("7\n", self.tandem("-n", "job", verb, "7", data=data).out)
        self.assertEqual([], self.json("job", "ls", "--box", "dead", data=data))
        self.tandem("job", "ls", "--box", "coffin", data=data, code=2)


if __name__ == "__main__":
    support.main()
