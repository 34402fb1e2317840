"""serve: readiness, its socket and lock, signals, two nodes in step, and what one refuses."""

import json
import os
import signal
import socket
import stat
import subprocess
import threading

import support


class Serve(support.Case):
    def test_the_only_line_on_stdout_is_ready_with_the_real_port(self):
        node = self.node()
        self.assertRegex(node.first_line, r"^ready ws://127\.0\.0\.1:[1-9][0-9]*/tandem\n$")
        self.assertEqual(node.url, self.json("status")[0]["listener"]["url"])
        code, out, err = node.end()
        self.assertEqual((0, ""), (code, out))
        self.assertRegex(err, r"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info serve: ")

    def test_the_socket_is_its_owners_and_goes_with_the_node(self):
        node = self.node()
        path = os.path.join(self.data, "admin.sock")
        self.assertEqual(0o600, stat.S_IMODE(os.stat(path).st_mode))
        self.assertEqual(0, node.end(signal.SIGINT)[0])
        self.assertFalse(os.path.exists(path))

    def test_a_second_node_on_the_folder_is_exit_6(self):
        self.node()
        result = self.tandem("serve", "--listen", "127.0.0.1:0", code=6)
        self.assertEqual("", result.out)
        self.assertIn("(TANDEM_E_LOCKED)", result.err)

    def test_a_taken_port_is_exit_6(self):
        node = self.node()
        port = node.url.split(":")[2].split("/")[0]
        other = os.path.join(self.folder, "other")
        result = self.tandem("serve", "--listen", "127.0.0.1:" + port, data=other, code=6)
        self.assertIn("(TANDEM_E_ADDRESS_IN_USE)", result.err)

    def test_beyond_loopback_is_exit_7_without_insecure(self):
        result = self.tandem("serve", "--listen", "0.0.0.0:0", code=7)
        self.assertIn("(TANDEM_E_INSECURE)", result.err)
        self.assertEqual(0, self.node("--listen", "0.0.0.0:0", "--insecure").end()[0])

    def test_bad_addresses_are_exit_2(self):
        for address in ("7400", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "::1:7400", ":1",
                        "foo:0", "[foo]:0", "1.2.3:0"):
            err = self.tandem("serve", "--listen", address, code=2).err
            self.assertIn("it takes ADDR:PORT", err)

    def test_all_peers_are_checked_before_anything_starts(self):
        for bad in ("p1=bogus", "p1", "=ws://127.0.0.1:1/tandem", "p1=wss://127.0.0.1:1/tandem"):
            result = self.tandem("serve", "--listen", "127.0.0.1:0", "--peer",
                                 "p0=ws://127.0.0.1:1/tandem", "--peer", bad, code=2)
            self.assertEqual(1, result.err.count("\n"), result.err)  # no log of a start
            self.assertFalse(os.path.exists(self.data))
        self.tandem("-n", "serve", "--peer", "p1=bogus", code=2)

    def test_what_is_no_folder_is_told(self):
        path = self.file("file", "")
        for data in (path, os.path.join(path, "below")):
            err = self.tandem("serve", "--listen", "127.0.0.1:0", data=data, code=2).err
            self.assertIn("%s is no folder" % data, err)

    def test_a_stale_socket_is_replaced(self):
        self.node().end(signal.SIGKILL)
        self.assertTrue(os.path.exists(os.path.join(self.data, "admin.sock")))
        self.append("d", {"a": 1})  # the stopped store is opened in spite of it
        self.node()
        self.append("d", {"a": 2})
        self.assertEqual(3, self.json("status")[0]["store"]["operations"])

    def test_what_was_answered_survives_kill_9(self):
        node = self.node()
        for n in range(20):
            self.append("d", {"n": n})
        node.end(signal.SIGKILL)
        self.assertEqual({"n": 19}, self.json("doc", "show", "c", "d")[0]["state"])
        self.assertTrue(self.json("verify")[-1]["ok"])

    def test_what_is_no_store_of_peers_is_told(self):
        self.append("d", {"a": 1})
        self.tandem("peer", "add", "a", "ws://127.0.0.1:1/tandem")
        with open(os.path.join(self.data, "sync", "data.mdb"), "r+b") as file:
            file.write(b"garbage" * 2000)
        result = self.tandem("serve", "--listen", "127.0.0.1:0", code=8)
        self.assertRegex(result.err, r"not started, what is kept of the peers .+/data/sync.+ is not "
                                     r"a store of this program.+\(TANDEM_E_FORMAT\)\n$")
        self.assertIn("what is kept of the peers", self.tandem("peer", "ls", code=8).err)
        self.tandem("doc", "show", "c", "d")

    def test_a_folder_deeper_than_a_socket_address(self):
        deep = os.path.join(self.folder, "x" * 100, "y" * 100)
        self.node(data=deep)
        self.append("d", {"a": 1}, data=deep)
        self.assertTrue(self.json("status", data=deep)[0]["running"])

    def test_stopping_ends_those_who_wait(self):
        node = self.node("--listen", "127.0.0.1:0", "--peer", "away=ws://127.0.0.1:1/tandem")
        self.append("d", {"a": 1})
        # By its socket alone: the stopped store would be waited on without a node.
        at = "unix:" + os.path.join(self.data, "admin.sock")
        waiters = [subprocess.Popen([support.TANDEM, "--node", at, "--json", *args],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                    env=support.environment())
                   for args in (("wait", "away"), ("peer", "sync", "--wait"),
                                ("op", "ls", "c", "--follow"))]
        self.assertIn("kv.CREATE", waiters[2].stdout.readline())  # one at least is being served
        self.end_cleanly(node)
        for waiter in waiters:
            _, err = waiter.communicate(timeout=support.DEADLINE_S)
            self.assertIn(waiter.returncode, (1, 5), err)


class Socket(support.Case):
    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(support.DEADLINE_S)
        client.connect(os.path.join(self.data, "admin.sock"))
        self.addCleanup(client.close)
        return client, client.makefile("r")

    def test_what_is_no_request_is_answered_and_hung_up_on(self):
        self.node()
        for bytes_, name in ((b"nonsense\n", "PROTOCOL"), (b"x" * (1 << 20) + b"y\n", "LIMIT"),
                             (b'{"command":"import","bytes":99999999999}\n', "LIMIT")):
            client, lines = self.connect()
            self.assertIn("hello", json.loads(lines.readline()))
            client.sendall(bytes_)
            done = json.loads(lines.readline())["done"]
            self.assertEqual("TANDEM_E_" + name, done["error"])
            self.assertEqual("", lines.readline())

    def test_unknown_requests_are_refused_and_the_conversation_goes_on(self):
        self.node()
        client, lines = self.connect()
        lines.readline()
        for text, name in (('{"command":"dance"}', "UNSUPPORTED"), ("[]", "PROTOCOL"),
                           ('{"command":"op.append"}', "PROTOCOL")):
            client.sendall(text.encode() + b"\n")
            self.assertEqual("TANDEM_E_" + name, json.loads(lines.readline())["done"]["error"])
        client.sendall(b'{"command":"digest"}\n')
        self.assertEqual({"code": 0, "error": "TANDEM_OK", "message": ""},
                         json.loads(lines.readline())["done"])

    def test_nothing_is_served_behind_an_import_that_failed(self):
        self.node()
        client, lines = self.connect()
        lines.readline()
        group = (b'{"command":"import","collection":"c","first_line":1,"lines":1,"bytes":%d}\n%s')
        good = b'{"document":"d","model":"kv","type":"SET","input":{"n":1}}'
        client.sendall(group % (1, b"x") + b'{"command":"digest"}\n' + group % (len(good), good))
        self.assertEqual("TANDEM_E_INPUT", json.loads(lines.readline())["done"]["error"])
        self.assertEqual("", lines.readline())
        self.assertEqual([], self.json("op", "ls", "c"))

    def test_the_65th_caller_is_refused_until_one_has_gone(self):
        self.node()
        callers = [self.connect() for _ in range(64)]
        for _, lines in callers:
            self.assertIn("hello", lines.readline())
        _, lines = self.connect()
        self.assertEqual("TANDEM_E_UNREACHABLE", json.loads(lines.readline())["done"]["error"])
        callers[0][1].close()
        callers[0][0].close()

        def served():
            client, again = self.connect()
            with client, again:
                return "hello" in again.readline()
        self.until("a place is free again", served)


class TwoNodes(support.Case):
    def setUp(self):
        super().setUp()
        self.a, self.b = os.path.join(self.folder, "a"), os.path.join(self.folder, "b")
        self.node_b = self.node(data=self.b)
        self.node("--listen", "127.0.0.1:0", "--peer", "b=" + self.node_b.url, data=self.a)

    def in_step(self):
        self.tandem("peer", "sync", "b", "--wait", "--timeout", "60", data=self.a)
        self.tandem("wait", "b", "--timeout", "60", data=self.a)
        digests = self.json("digest", data=self.a)
        self.assertEqual(digests, self.json("digest", data=self.b))
        return digests

    def test_both_sides_hold_the_same_after_a_cut_link(self):
        self.append("d", {"from": "a"}, data=self.a)
        self.in_step()
        self.tandem("peer", "pause", "b", data=self.a)
        self.append("d", {"from": "a", "a": 1}, data=self.a)
        self.append("d", {"from": "b", "b": 1}, data=self.b)
        self.assertNotEqual(self.json("digest", data=self.a), self.json("digest", data=self.b))
        self.tandem("peer", "resume", "b", data=self.a)
        self.assertEqual(4, self.in_step()[0]["operations"])
        shown, = self.json("doc", "show", "c", "d", data=self.a)
        self.assertEqual([shown], self.json("doc", "show", "c", "d", data=self.b))
        self.assertEqual((1, 1), (shown["state"]["a"], shown["state"]["b"]))

    def test_a_wait_for_being_in_step_ends_with_the_reason_of_a_blocked_peer(self):
        url = self.json("status", data=self.a)[0]["listener"]["url"]
        self.append("d", {"from": "a"}, data=self.a)
        self.tandem("peer", "add", "myself", url, data=self.a)
        for args in ((), ("myself",)):
            err = self.tandem("peer", "sync", *args, "--wait", data=self.a, code=3).err
            self.assertRegex(err, r"`myself` is blocked: .+; see to that.+\(TANDEM_E_REFUSED\)\n$")
        # The others are in step by then.
        self.assertEqual(self.json("digest", data=self.a), self.json("digest", data=self.b))
        self.tandem("peer", "pause", "myself", data=self.a)
        self.tandem("peer", "sync", "--wait", "--timeout", "60", data=self.a)
        err = self.tandem("peer", "sync", "myself", "--wait", data=self.a, code=3).err
        self.assertIn("`myself` is paused", err)
        err = self.tandem("wait", "myself", data=self.a, code=3).err
        self.assertRegex(err, r"`myself` is paused.+; see to that.+\(TANDEM_E_REFUSED\)\n$")

    def test_what_blocked_a_peer_once_does_not_end_the_next_wait(self):
        stranger = socket.create_server(("127.0.0.1", 0))
        port = stranger.getsockname()[1]

        def answer():
            while True:
                try:
                    client, _ = stranger.accept()
                except OSError:
                    return
                with client:
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        thread = threading.Thread(target=answer)
        thread.start()
        self.tandem("peer", "add", "c", "ws://127.0.0.1:%d/tandem" % port, data=self.a)
        self.tandem("peer", "sync", "c", "--wait", data=self.a, code=3)
        stranger.shutdown(socket.SHUT_RDWR)
        thread.join()
        stranger.close()
        self.node("--listen", "127.0.0.1:%d" % port, data=os.path.join(self.folder, "c"))
        self.tandem("peer", "sync", "c", "--wait", "--timeout", "60", data=self.a)

    def test_a_url_that_changes_while_it_is_dialed_keeps_nobody_waiting(self):
        # The old dial must end at once: its own deadline would take ten seconds.
        urls = self.node_b.url, self.node_b.url.replace("127.0.0.1", "localhost")
        for n in range(10):
            node = self.node("--listen", "127.0.0.1:0", "--peer", "b=" + urls[n % 2],
                             data=os.path.join(self.folder, "c"))
            self.tandem("wait", "b", "--timeout", "8", data=node.data)
            node.end()

    def test_expect_refuses_the_seq_of_another_origin(self):
        self.append("d", {"a": 1}, data=self.a)
        self.in_step()
        self.append("d", {"a": 2}, "--expect", "2", data=self.b, code=6)
        self.append("d", {"a": 2}, "--expect", "2", data=self.a)
        self.in_step()
        newest = max(self.json("op", "ls", "c", "d", data=self.b), key=lambda op: op["ordinal"])
        for seq, code in ((newest["seq"] - 1, 6), (newest["seq"], 0)):
            self.append("d", {"b": 1}, "--expect", "%s:%d" % (newest["origin"], seq), data=self.b,
                        code=code)

    def test_a_stopped_store_syncs_by_itself_when_told_to_wait(self):
        self.append("d", {"a": 1}, data=self.b)
        alone = os.path.join(self.folder, "alone")
        self.tandem("peer", "add", "b", self.node_b.url, data=alone)
        self.tandem("peer", "sync", "b", "--wait", "--timeout", "60", data=alone)
        self.assertEqual(self.json("digest", data=self.b), self.json("digest", data=alone))


class Refuse(support.Case):
    """A node that will not have some documents of its peer's, and that peer."""

    def setUp(self):
        super().setUp()
        self.a, self.b = os.path.join(self.folder, "a"), os.path.join(self.folder, "b")
        self.node_a = self.node(data=self.a)
        self.tandem("peer", "add", "a", self.node_a.url, data=self.b)

    def start(self, *rules):
        args = [arg for rule in rules for arg in ("--refuse", rule)]
        return self.node("--listen", "127.0.0.1:0", *args, data=self.b)

    def ranges(self):
        store = self.json("status", data=self.b)[0]["store"]
        return store["lacks"], store["refused"]

    def holds(self, *documents):
        held = {row["document"] for row in self.json("doc", "ls", "c", data=self.b)}
        return held == set(documents)

    def test_rules_that_are_none_are_exit_2(self):
        for bad in ("", "/x", "c/", "_c", "c/[", "c/x\\"):
            err = self.tandem("serve", "--refuse", "c/*", "--refuse", bad, code=2).err
            self.assertIn("--refuse takes COLLECTION or COLLECTION/GLOB", err)
            self.assertEqual(1, err.count("\n"), err)
            self.assertFalse(os.path.exists(self.data))

    def test_what_is_refused_is_counted_and_comes_when_the_rule_has_gone(self):
        for document in ("good", "bad1", "bad2", "last"):
            self.append(document, {"x": 1}, data=self.a)
        node = self.start("c/bad?", "other")
        self.until("all else has come", lambda: self.holds("good", "last"))
        self.assertEqual((0, 2), self.ranges())
        status, = self.json("status", data=self.b)
        self.assertEqual(2, status["events"]["refusal"])
        out = self.tandem("status", data=self.b).out
        self.assertIn(", 2 ranges refused", out)
        self.assertIn("jobs of peers refused for good: 2", out)
        node.end()
        self.assertEqual((0, 2), self.ranges())
        self.assertTrue(self.json("verify", data=self.b)[-1]["ok"])
        node = self.start("c/bad2")
        self.until("what is refused no more has come", lambda: self.holds("good", "last", "bad1"))
        self.until("the other is refused again", lambda: self.ranges() == (0, 1))
        node.end()
        self.start()
        self.tandem("peer", "sync", "a", "--wait", "--timeout", "60", data=self.b)
        self.assertEqual((0, 0), self.ranges())
        self.assertEqual(self.json("digest", data=self.a), self.json("digest", data=self.b))

    def test_under_the_same_rules_nothing_is_asked_for_again(self):
        self.append("bad", {"x": 1}, data=self.a)
        node = self.start("d", "c/bad")
        self.until("it is refused", lambda: self.ranges() == (0, 1))
        node.end()
        self.start("c/bad", "d", "c/bad")
        self.append("good", {"x": 1}, data=self.a)
        self.until("all else has come", lambda: self.holds("good"))
        self.assertEqual((0, 1), self.ranges())
        self.assertEqual(0, self.json("status", data=self.b)[0]["events"]["refusal"])

    def test_a_stopped_store_that_syncs_goes_by_the_last_rules(self):
        self.start("c/bad").end()
        self.append("bad", {"x": 1}, data=self.a)
        self.append("good", {"x": 1}, data=self.a)
        self.tandem("peer", "sync", "a", "--wait", "--timeout", "60", data=self.b, code=None)
        self.assertTrue(self.holds("good"))
        self.assertEqual((0, 1), self.ranges())
        with open(os.path.join(self.b, "refuse"), "w", encoding="ascii") as kept:
            kept.write("c/[\n")
        err = self.tandem("doc", "ls", "c", data=self.b, code=8).err
        self.assertIn("a line that is no rule", err)
        self.start()
        self.until("it has come", lambda: self.holds("good", "bad"))


if __name__ == "__main__":
    support.main()
