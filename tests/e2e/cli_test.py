"""The command line: exit codes and JSON fields, the same on a stopped store and on a node."""

import json
import os
import stat
import subprocess
import threading

import support

HEX_32 = r"^[0-9a-f]{32}$"
HEX_64 = r"^[0-9a-f]{64}$"


class Usage(support.Case):
    def test_what_cannot_be_understood_is_exit_2_with_a_suggestion(self):
        for args, suggestion in (
                ((), None), (("op",), None), (("stauts",), "`status`"),
                (("op", "apend", "c", "d"), "`append`"), (("status", "--wach"), "`--watch`"),
                (("op", "append", "c"), None), (("doc", "show", "c", "d", "e"), None),
                (("op", "append", "c", "d", "--type", "SET"), None),
                (("status", "--timeout", "soon"), None), (("status", "--timeout", "-1"), None),
                (("status", "--color", "blue"), None), (("op", "ls", "c", "--after", "x"), None)):
            result = self.tandem(*args, code=2)
            self.assertIn("(TANDEM_E_USAGE)", result.err, args)
            self.assertEqual(1, result.err.count("\n"), args)
            if suggestion:
                self.assertIn(suggestion, result.err)

    def test_what_later_versions_do_is_unsupported(self):
        for args in (("peer", "add", "a", "https://127.0.0.1:1"),
                     ("peer", "add", "a", "wss://127.0.0.1:1/tandem")):
            result = self.tandem(*args, code=2)
            self.assertIn("(TANDEM_E_UNSUPPORTED)", result.err, args)

    def test_what_is_not_utf8_is_refused_and_named(self):
        bad, url = b"b\xff", "ws://127.0.0.1:1/tandem"
        rest = ("--type", "SET", "--model", "kv", "--input", "{}")
        for args, word in (
                (("op", "append", "c", bad, *rest), "DOCUMENT"),
                (("op", "append", bad, "d", *rest), "COLLECTION"),
                (("op", "append", "c", "d", *rest, "--scope", bad), "--scope"),
                (("op", "append", "c", "d", "--type", "SET", "--input", bad), "--input"),
                (("op", "ls", "c", bad), "DOCUMENT"), (("doc", "show", bad, "d"), "COLLECTION"),
                (("import", bad, "file"), "COLLECTION"), (("export", bad), "COLLECTION"),
                (("digest", bad), "COLLECTION"), (("peer", "add", bad, url), "NAME"),
                (("peer", "sync", bad), "NAME"), (("wait", bad), "PEER"), (("errors", bad), "CODE"),
                (("-n", "doc", "delete", "c", bad), "DOCUMENT"),
                (("serve", "--peer", b"p\xff=" + url.encode()), "--peer")):
            result = self.tandem(*args, code=2)
            self.assertEqual("tandem: %s cannot be used, it is not UTF-8; correct the input "
                             "(TANDEM_E_INPUT)\n" % word, result.err, args)
        self.assertFalse(os.path.exists(self.data))

    def test_a_path_may_be_any_bytes(self):
        path = os.path.join(self.folder, "out").encode() + b"\xff"
        data = self.data.encode() + b"\xff"
        self.append("d", {"x": 1}, data=data)
        self.tandem("export", "c", path, data=data)
        self.tandem("import", "copy", path, data=data)

    def test_help_is_made_of_the_table(self):
        self.assertIn("op append COLLECTION DOCUMENT", self.tandem("--help").out)
        self.assertIn("append", self.tandem("op", "--help").out)
        self.assertIn("--expect [ORIGIN:]SEQ", self.tandem("op", "append", "-h").out)
        for verb in ("add", "set"):  # the scopes and branches of what is shared
            out = self.tandem("peer", verb, "--help").out
            self.assertNotIn("default", out)
            self.assertIn("only this scope", out)
        self.assertIn("default main", self.tandem("doc", "show", "--help").out)
        self.assertRegex(self.tandem("--version").out, r"^tandem \d+\.\d+\.\d+\n$")

    def test_errors_are_listed_and_found(self):
        rows = self.json("errors")
        self.assertIn("TANDEM_E_CONFLICT", [row["name"] for row in rows])
        for code in ("TANDEM_E_CONFLICT", "E_CONFLICT", "conflict", "17", "-17"):
            row, = self.json("errors", code)
            self.assertEqual(("TANDEM_E_CONFLICT", -17, 6),
                             (row["name"], row["number"], row["exit_code"]))
        self.tandem("errors", "nonsense", code=4)
        self.assertEqual("tandem: there is no error `conflicts`, did you mean `CONFLICT`?; `tandem "
                         "errors` lists them all (TANDEM_E_NOT_FOUND)\n",
                         self.tandem("errors", "conflicts", code=4).err)

    def test_no_advice_is_a_programmers(self):
        for name, url in (("a", "bogus"), ("", "ws://127.0.0.1:1/tandem")):
            err = self.tandem("peer", "add", name, url, code=2).err
            self.assertRegex(err, r"ws://HOST:PORT/tandem; correct the argument "
                                  r"\(TANDEM_E_INVALID\)\n$")

    def test_flags_stand_anywhere(self):
        self.append("d", {"a": 1})
        state = self.tandem("doc", "--json", "show", "c", "-q", "d").json()[0]["state"]
        self.assertEqual({"a": 1}, state)


class Folder(support.Case):
    def test_a_reader_creates_no_folder(self):
        for args in (("doc", "ls", "c"), ("digest",), ("status",), ("verify",)):
            self.assertIn("(TANDEM_E_NOT_FOUND)", self.tandem(*args, code=4).err)
        self.assertFalse(os.path.exists(self.data))

    def test_a_writer_creates_it_for_its_owner_alone(self):
        deep = os.path.join(self.data, "deeper", "still")
        self.append("d", {"a": 1}, data=deep)
        self.assertEqual(0o700, stat.S_IMODE(os.stat(deep).st_mode))

    def test_a_folder_that_others_may_use_is_exit_7_and_its_cure_is_told(self):
        os.mkdir(self.data)
        os.chmod(self.data, 0o755)
        for args in (("doc", "ls", "c"), ("serve", "--listen", "127.0.0.1:0")):
            self.assertIn("%s has mode 0755, others may use it; `chmod 700 %s` (TANDEM_E_PERMISSION)"
                          % (self.data, self.data), self.tandem(*args, code=7).err)
        os.chmod(self.data, 0o700)
        self.append("d", {"a": 1})
        index = os.path.join(self.data, "index")
        os.chmod(index, 0o750)
        self.assertIn("`chmod 700 %s`" % index, self.tandem("doc", "ls", "c", code=7).err)

    def test_the_environment_names_the_default(self):
        for name, folder in (("TANDEM_DATA_DIR", self.data), ("XDG_STATE_HOME", self.folder)):
            env = dict(support.environment(), **{name: folder})
            done = subprocess.run([support.TANDEM, "-q", "op", "append", "c", "d", "--type", "SET",
                                   "--model", "kv", "--input", "{}"], env=env)
            self.assertEqual(0, done.returncode)
        self.assertTrue(os.path.isdir(self.data))
        self.assertTrue(os.path.isdir(os.path.join(self.folder, "tandem")))

    def test_a_node_that_does_not_answer_is_exit_5(self):
        path = os.path.join(self.folder, "nobody.sock")
        self.assertIn("(TANDEM_E_UNREACHABLE)",
                      self.tandem("--node", "unix:" + path, "status", code=5).err)

    def test_what_only_reads_does_so_in_a_dry_run(self):
        self.append("d", {"n": 1})
        self.tandem("peer", "add", "p", "ws://127.0.0.1:1")
        for args in (("op", "ls", "c"), ("doc", "ls", "c"), ("doc", "show", "c", "d"), ("digest",),
                     ("verify",), ("job", "ls")):
            self.assertEqual(self.json(*args), self.json("-n", *args), args)
        for args in (("status",), ("peer", "ls"), ("peer", "show", "p")):  # with times of theirs
            self.assertEqual(set(self.json(*args)[0]), set(self.json("-n", *args)[0]), args)
        self.tandem("-n", "wait", "p")

    def test_a_dry_run_changes_nothing(self):
        for args in (("op", "append", "c", "d", "--type", "kv.SET", "--input", "{}"),
                     ("doc", "delete", "c", "d"), ("peer", "add", "a", "ws://127.0.0.1:1/tandem"),
                     ("peer", "rm", "a"), ("serve",)):
            self.assertIn("would", self.tandem("-n", *args).out)
        self.assertFalse(os.path.exists(self.data))


class Data(support.Case):
    """Each on a stopped store and on a running node."""

    @support.on_both
    def test_append_prints_its_operation(self, data):
        first, = self.append("d", {"a": 1}, data=data).json()
        self.assertEqual({"origin", "seq", "ordinal", "hash"}, set(first))
        self.assertRegex(first["origin"], HEX_32)
        self.assertRegex(first["hash"], HEX_64)
        second, = self.append("d", {"a": 2}, data=data, type="kv.SET", model=None).json()
        self.assertEqual(first["seq"] + 1, second["seq"])
        self.assertLess(first["ordinal"], second["ordinal"])

    @support.on_both
    def test_input_may_come_from_stdin(self, data):
        self.tandem("op", "append", "c", "d", "--type", "SET", "--model", "kv", "--input", "-",
                    data=data, stdin='{"a":[1,2.5,null,"é"]}')
        document, = self.json("doc", "show", "c", "d", data=data)
        self.assertEqual({"a": [1, 2.5, None, "é"]}, document["state"])

    @support.on_both
    def test_expect_guards_the_newest_operation(self, data):
        seq = self.append("d", {"a": 1}, "--expect", "0", data=data).json()[0]["seq"]
        self.assertIn("(TANDEM_E_CONFLICT)",
                      self.append("d", {"a": 2}, "--expect", "0", data=data, code=6).err)
        self.append("d", {"a": 2}, "--expect", str(seq), data=data)
        self.append("d", {"a": 3}, "--expect", str(seq), data=data, code=6)
        self.append("new", {"a": 3}, "--expect", "1", data=data, code=6)
        document, = self.json("doc", "show", "c", "d", data=data)
        self.assertEqual({"a": 2}, document["state"])

    @support.on_both
    def test_what_cannot_be_executed_is_exit_2(self, data):
        self.append("d", {"a": 1}, data=data)
        for text, name in (("[1]", "INPUT"), ("{", "INPUT"),
                           (json.dumps({"a": "x" * 300000}), "LIMIT")):
            result = self.tandem("op", "append", "c", "d", "--type", "SET", "--input", "-",
                                 data=data, stdin=text, code=2)
            self.assertIn("(TANDEM_E_%s)" % name, result.err)
        self.append("other", {"a": 1}, data=data, model="nonsense", code=2)

    @support.on_both
    def test_a_dry_run_checks_all_that_appending_checks(self, data):
        cases = (("d", "SET", "kv", {"a": 1}, 0), ("new", "ADD", "counter", 1, 0),
                 ("d", "SET", None, {"a": 1}, None),  # None: as the store holds it or not
                 ("d", "nonsense", "kv", {"a": 1}, 2), ("d", "SET", "kv", [1], 2),
                 ("new", "SET", "nonsense", {}, 2), ("\x01", "SET", "kv", {}, 2),
                 ("d", "SET", "kv", {"a": json.loads("[" * 99 + "]" * 99)}, 2))

        def checked(held):
            for document, type_, model, value, code in cases:
                self.append(document, value, "-n", data=data, type=type_, model=model,
                            code=(0 if held else 2) if code is None else code)
        checked(False)
        self.append("d", {"a": 0}, data=data)
        checked(True)
        result = self.append("d", 1, "-n", data=data, type="ADD", model="counter", code=6)
        self.assertIn("(TANDEM_E_MODEL_MISMATCH)", result.err)
        self.append("d", {}, "-n", "--expect", "0", data=data, code=6)
        self.append("d", {}, "-n", "--expect", "2", data=data)
        self.assertEqual([{"dry_run": True, "would": "append SET to c/d"}],
                         self.append("d", {}, "-n", data=data).json())
        self.assertEqual(2, len(self.json("op", "ls", "c", data=data)))

    @support.on_both
    def test_operations_are_listed_in_both_orders(self, data):
        for n in range(3):
            self.append("d%d" % (n % 2), {"n": n}, data=data)
        rows = self.json("op", "ls", "c", data=data)
        ordinals = [row["ordinal"] for row in rows]
        self.assertEqual(sorted(ordinals), ordinals)
        self.assertEqual({"origin", "seq", "ordinal", "hash", "hlc", "collection", "document",
                          "branch", "scope", "type", "input"}, set(rows[0]))
        self.assertEqual(["kv.CREATE", "kv.SET", "kv.CREATE", "kv.SET", "kv.SET"],
                         [row["type"] for row in rows])
        self.assertEqual(("main", "global", {"n": 2}),
                         tuple(rows[-1][name] for name in ("branch", "scope", "input")))
        self.assertEqual(rows[3:], self.json("op", "ls", "c", "--after", str(ordinals[2]),
                                             data=data))
        stream = self.json("op", "ls", "c", "d0", data=data)
        self.assertEqual([{"n": 0}, {"n": 2}],
                         [row["input"] for row in stream if row["type"] == "kv.SET"])
        self.assertEqual([1, 2], [row["index"] for row in stream if row["type"] == "kv.SET"])

    @support.on_both
    def test_documents_are_listed_shown_and_deleted(self, data):
        self.append("a", {"x": 1}, data=data)
        self.append("b", {"x": 2}, "--branch", "draft", "--scope", "notes", data=data)
        self.json("doc", "delete", "c", "a", data=data)
        rows = self.json("doc", "ls", "c", data=data)
        self.assertEqual([{"collection": "c", "document": "a", "model": "kv", "operations": 3,
                           "deleted": True},
                          {"collection": "c", "document": "b", "model": "kv", "operations": 2,
                           "deleted": False}], rows)
        self.assertIn("(TANDEM_E_NOT_FOUND)",
                      self.tandem("doc", "show", "c", "a", data=data, code=4).err)
        self.tandem("doc", "delete", "c", "a", data=data, code=4)
        shown, = self.json("doc", "show", "c", "b", "--branch", "draft", "--scope", "notes",
                           data=data)
        self.assertEqual({"collection": "c", "document": "b", "model": "kv", "branch": "draft",
                          "scope": "notes", "operations": 2, "state": {"x": 2}}, shown)

    @support.on_both
    def test_digest_is_a_line_a_collection(self, data):
        self.append("d", {"a": 1}, data=data)
        self.tandem("op", "append", "e", "d", "--type", "ADD", "--model", "counter", "--input",
                    "4", data=data)
        rows = self.json("digest", data=data)
        self.assertEqual(["c", "e"], [row["collection"] for row in rows])
        self.assertEqual([rows[1]], self.json("digest", "e", data=data))
        self.assertEqual({"collection", "operations", "documents", "vector_digest",
                          "state_digest", "partial"}, set(rows[0]))
        self.assertEqual([False, False], [row["partial"] for row in rows])
        self.assertEqual((2, 1), (rows[0]["operations"], rows[0]["documents"]))
        self.assertRegex(rows[0]["state_digest"], HEX_64)

    def test_equal_content_gives_equal_states_and_other_vectors(self):
        digests = []
        for data in self.stopped_and_running().values():
            self.append("d", {"a": 1}, data=data)
            digests += self.json("digest", data=data)
        self.assertEqual(digests[0]["state_digest"], digests[1]["state_digest"])
        self.assertNotEqual(digests[0]["vector_digest"], digests[1]["vector_digest"])

    def test_status_tells_all_its_fields(self):
        for name, data in self.stopped_and_running().items():
            self.append("d", {"a": 1}, data=data)
            self.tandem("peer", "add", "away", "ws://127.0.0.1:1/tandem", data=data)
            self.tandem("peer", "add", "still", "ws://127.0.0.1:1/tandem", data=data)
            self.tandem("peer", "pause", "still", data=data)
            status, = self.json("status", data=data)
            self.assertLessEqual({"reactor", "origin", "store", "listener", "remotes"}, set(status))
            self.assertLessEqual({"bytes", "operations", "index_lag", "quarantined"},
                                 set(status["store"]))
            self.assertEqual(2, status["store"]["operations"])
            self.assertEqual({"url", "sessions", "rejected"}, set(status["listener"]))
            self.assertEqual(name == "running", status["listener"]["url"] is not None)
            self.assertEqual(["away", "still"], [row["name"] for row in status["remotes"]])
            self.assertLessEqual(
                {"name", "url", "state", "reason", "since", "retry_at", "lag_operations", "outbox",
                 "inbox", "dead_letters", "sent_operations", "received_operations",
                 "duplicate_operations", "echoed_operations", "partial"}, set(status["remotes"][0]))
            self.assertEqual("paused", status["remotes"][1]["state"])
            if name == "stopped":
                self.assertEqual(("resting", "the node does not run"),
                                 (status["remotes"][0]["state"], status["remotes"][0]["reason"]))

    @support.on_both
    def test_peers_are_configured(self, data):
        url, other = "ws://127.0.0.1:1/tandem", "http://[::1]:2/tandem"
        self.tandem("peer", "add", "a", "ws://127.0.0.1:1/elsewhere", data=data, code=2)
        self.tandem("peer", "add", "a", url, data=data)
        self.assertIn("(TANDEM_E_EXISTS)", self.tandem("peer", "add", "a", url, data=data,
                                                       code=6).err)
        self.tandem("peer", "set", "a", other, data=data)
        row, = self.json("peer", "ls", data=data)
        self.assertEqual(("a", other), (row["name"], row["url"]))
        self.assertEqual("a", self.json("peer", "show", "a", data=data)[0]["name"])

        def retry(*args, code=0):
            given = [word for arg in args for word in ("--retry", arg)]
            self.tandem("peer", "set", "a", *given, data=data, code=code)
            return self.json("peer", "show", "a", data=data)[0]["retry"]
        default = retry("reset")
        self.assertEqual({**default, "cap_ms": 5000, "budget": 7},
                         retry("cap=5s", "budget=7"))
        self.assertEqual({**default, "cap_ms": 5000, "budget": 7, "rest_ms": 120000},
                         retry("rest=2m"))
        for wrong in ("cap=5", "cap=2h", "cap=0s", "budget=7s", "factor=101", "colour=1", "base"):
            self.assertEqual(120000, retry(wrong, code=2)["rest_ms"])
        self.assertEqual({**default, "attempts": 2}, retry("reset", "attempts=2"))

        def poll(how, code=0):
            self.tandem("peer", "set", "a", "--poll", how, data=data, code=code)
            row, = self.json("peer", "show", "a", data=data)
            return row["poll"]["mode"], row["poll"]["mean_ms"]
        for how, mode, mean_ms in (("adaptive", "adaptive", 5000), ("2s", "interval", 2000),
                                   ("adaptive=250ms", "adaptive", 250), ("long", "long", None),
                                   ("60", "interval", 60000)):
            self.assertEqual((mode, mean_ms), poll(how))
        for wrong in ("99ms", "601", "adaptive=0s", "adaptively", "adaptive=", "shortly", ""):
            self.assertEqual(("interval", 60000), poll(wrong, code=2))
        self.tandem("peer", "rm", "a", data=data)
        self.assertEqual([], self.json("peer", "ls", data=data))
        for verb in ("show", "pause", "resume", "rm"):
            self.assertIn("(TANDEM_E_NOT_FOUND)",
                          self.tandem("peer", verb, "a", data=data, code=4).err)
        self.tandem("peer", "set", "a", url, data=data, code=4)
        self.tandem("wait", "a", data=data, code=4)
        self.assertEqual([], self.json("job", "ls", data=data))
        self.tandem("job", "show", "1", data=data, code=4)

    @support.on_both
    def test_what_is_shared_with_peers_is_configured(self, data):
        url = "ws://127.0.0.1:1/tandem"
        none = {"collections": None, "documents": None, "scopes": None, "branches": None}

        def shared(*args, verb="set", code=0):
            result = self.tandem("peer", verb, *args, data=data, code=code)
            row, = self.json("peer", "ls", data=data)
            for other in (self.json("peer", "show", "a", data=data)[0],
                          self.json("status", data=data)[0]["remotes"][0]):
                self.assertEqual((row["direction"], row["share"]),
                                 (other["direction"], other["share"]))
            return result if code else (row["direction"], row["share"])

        self.assertEqual(("push", {**none, "collections": ["notes", "tasks"], "scopes": ["é"]}),
                         shared("a", url, "--push", "--collection", "tasks", "--collection",
                                "notes", "--scope", "é", verb="add"))
        self.assertEqual(("push", {**none, "collections": ["notes", "tasks"], "scopes": ["é"],
                                   "documents": ["[a-c]?", "x*"]}),
                         shared("a", "--document", "x*", "--document", "[a-c]?"))
        self.assertEqual(("pull", {**none, "collections": ["tasks"], "scopes": ["é"],
                                   "documents": ["[a-c]?", "x*"]}),
                         shared("a", "--pull", "--collection", "tasks"))
        self.assertIn("pull some", self.tandem("peer", "ls", data=data).out)
        for wrong, error in ((("--document", "[a"), "INVALID"), (("--collection", "_c"), "INVALID"),
                             (("--scope", ""), "INVALID"), (("--both", "--pull"), "USAGE"),
                             (("--branch", "b") * 65, "LIMIT"),
                             ([word for n in range(20) for word in
                               ("--branch", "%0120d" % n)], "LIMIT")):
            self.assertIn("(TANDEM_E_%s)" % error, shared("a", *wrong, code=2).err)
        self.tandem("peer", "set", "a", "--all", "--dry-run", data=data)
        self.assertEqual(("pull", {**none, "branches": ["main"]}),
                         shared("a", "--all", "--branch", "main"))
        self.assertEqual(("both", {**none, "branches": ["main"]}), shared("a", "--both"))
        self.assertEqual(("both", {**none, "branches": ["main"]}),
                         shared("a", "ws://127.0.0.1:2/tandem"))
        self.assertEqual(("both", none), shared("a", "--push", "--pull", "--all"))
        self.tandem("peer", "set", "b", "--push", data=data, code=4)
        self.tandem("peer", "set", "a", data=data, code=2)

    @support.on_both
    def test_waiting_for_a_peer_that_is_away_times_out(self, data):
        self.append("d", {"a": 1}, data=data)
        self.tandem("peer", "add", "a", "ws://127.0.0.1:1/tandem", data=data)
        for args in (("wait", "a"), ("peer", "sync", "a", "--wait")):
            self.assertIn("(TANDEM_E_TIMEOUT)",
                          self.tandem(*args, "--timeout", "0.3", data=data, code=9).err)

    @support.on_both
    def test_verify_finds_a_whole_store_whole(self, data):
        self.append("d", {"a": 1}, data=data)
        self.assertEqual(True, self.json("verify", data=data)[-1]["ok"])

    def test_verify_does_not_advise_to_run_itself(self):
        self.append("d", {"a": "the one that rots"})
        path = os.path.join(self.data, "store", "data.mdb")
        with open(path, "r+b") as store:
            bytes_ = store.read()
            store.seek(0)
            store.write(bytes_.replace(b"the one that rots", b"the one that rotz"))
        err = self.tandem("verify", code=8).err
        self.assertRegex(err, r" wrong; fetch the operations again .+\(TANDEM_E_CORRUPT\)\n$")
        self.assertNotIn("tandem verify", err)

    @support.on_both
    def test_export_and_import_give_the_same_states(self, data):
        self.append("a", {"x": 1}, data=data)
        self.append("a", {"y": 0.5}, "--branch", "b", data=data)
        self.append("gone", {"x": 1}, data=data)
        self.tandem("doc", "delete", "c", "gone", data=data)
        self.append("new", {"of": "its first life"}, data=data)
        self.tandem("doc", "delete", "c", "new", data=data)
        self.append("new", {"of": "its second life"}, data=data)
        path = os.path.join(self.folder, "out.jsonl")
        self.tandem("export", "c", path, data=data)
        self.assertEqual(0o600, stat.S_IMODE(os.stat(path).st_mode))
        with open(path, encoding="utf-8") as lines:
            text = lines.read()
        self.assertEqual(self.tandem("export", "c", data=data).out, text)
        self.assertEqual([{"document": "a", "model": "kv", "type": "kv.SET", "input": {"x": 1}},
                          {"document": "a", "model": "kv", "type": "kv.SET",
                           "input": {"y": 0.5}, "branch": "b"},
                          {"document": "new", "model": "kv", "type": "kv.SET",
                           "input": {"of": "its second life"}}],
                         [json.loads(line) for line in text.splitlines()])
        self.tandem("import", "copy", path, data=data)
        digests = {row["collection"]: row["state_digest"] for row in self.json("digest",
                                                                               data=data)}
        self.assertEqual(digests["c"], digests["copy"])


class ExportTarget(support.Case):
    """What stands where an export goes is not destroyed by it."""

    def setUp(self):
        super().setUp()
        self.append("d", {"x": 1})
        self.text = self.tandem("export", "c").out
        self.path = os.path.join(self.folder, "out")

    def read(self, path):
        with open(path, encoding="utf-8") as lines:
            return lines.read()

    def test_a_fifo_is_written_into_and_stays_one(self):
        os.mkfifo(self.path)
        got = []
        reader = threading.Thread(target=lambda: got.append(self.read(self.path)))
        reader.start()
        self.tandem("export", "c", self.path)
        reader.join(support.DEADLINE_S)
        self.assertEqual([self.text], got)
        self.assertTrue(stat.S_ISFIFO(os.stat(self.path).st_mode))
        # Standard output, by its name: nothing but the export.
        self.assertEqual(self.text, self.tandem("export", "c", "/dev/stdout").out)

    def test_a_symbolic_link_stays_and_its_file_is_replaced(self):
        os.mkdir(os.path.join(self.folder, "deep"))
        target = os.path.join(self.folder, "deep", "file")
        os.symlink("hop", self.path)
        os.symlink(os.path.join("deep", "file"), os.path.join(self.folder, "hop"))
        for before in (None, "what was there\n"):  # a link may point to nothing yet
            if before:
                self.file(target, before)
            self.tandem("export", "c", self.path)
            self.assertEqual("hop", os.readlink(self.path))
            self.assertEqual(self.text, self.read(target))
        self.assertEqual(["file"], os.listdir(os.path.dirname(target)))
        os.symlink("round", os.path.join(self.folder, "round"))
        self.tandem("export", "c", os.path.join(self.folder, "round"), code=2)

    def test_a_file_keeps_its_mode(self):
        self.file("out", "what was there\n")
        os.chmod(self.path, 0o640)
        self.tandem("export", "c", self.path)
        self.assertEqual(0o640, stat.S_IMODE(os.stat(self.path).st_mode))
        self.assertEqual(self.text, self.read(self.path))

    def test_a_failed_export_leaves_the_file_as_it_was(self):
        self.file("out", "what was there\n")
        self.tandem("export", "c", self.path, data=os.path.join(self.folder, "none"), code=4)
        self.assertEqual("what was there\n", self.read(self.path))
        self.assertEqual({"data", "out"}, set(os.listdir(self.folder)))

    def test_a_folder_that_is_not_there_is_exit_4(self):
        result = self.tandem("export", "c", os.path.join(self.folder, "none", "out"), code=4)
        self.assertIn("(TANDEM_E_NOT_FOUND)", result.err)
        self.assertIn("(TANDEM_E_INVALID)", self.tandem("export", "c", self.folder, code=2).err)


class Terminal(support.Case):
    """What people see: text as it is, but nothing that a terminal would obey."""

    def lines(self, *args, **locale):
        env = dict(support.environment(), **locale)
        for name in ("LC_ALL", "LANG"):
            if name not in locale:
                env.pop(name, None)
        return subprocess.run([support.TANDEM, "--data", self.data, *args], env=env, check=True,
                              stdout=subprocess.PIPE).stdout.decode()

    def test_letters_are_shown_under_any_locale(self):
        self.append("né", {"ключ": "値", "n": 0.5})
        for locale in ({}, {"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}, {"LANG": "nonsense"}):
            self.assertRegex(self.lines("doc", "ls", "c", **locale), r"\nné +kv +2 +false\n")
            self.assertIn('{"n":0.5,"ключ":"値"}', self.lines("op", "ls", "c", **locale))
            self.assertIn('"ключ": "値"', self.lines("doc", "show", "c", "né", **locale))

    def test_control_characters_are_escaped(self):
        for document, value in (("d", "a\x1b[2J\x7f\x9b2J\nb"), ("e", ["a\x7f\x9b2J"])):
            self.tandem("op", "append", "c", document, "--type", "APPEND", "--model", "log",
                        "--input", json.dumps(value))
        shown = "".join(self.lines(*args) for args in (
            ("op", "ls", "c"), ("doc", "show", "c", "d"), ("doc", "show", "c", "e")))
        self.node()
        follower = subprocess.Popen(
            [support.TANDEM, "--data", self.data, "op", "ls", "c", "--follow"], text=True,
            stdout=subprocess.PIPE, env=support.environment())
        shown += "".join(follower.stdout.readline() for _ in range(4))
        follower.kill()
        follower.communicate()
        self.assertIn("\\u009b2J", shown)
        for control in "\x1b\x7f\x9b":
            self.assertNotIn(control, shown)
        # In a table and a follower's line nothing begins a line but a row.
        self.assertNotIn("\nb", shown)
        self.assertEqual([["a\x7f\x9b2J"]], self.json("doc", "show", "c", "e")[0]["state"])


class Following(support.Case):
    def follow(self, *args, verb=("op", "ls")):
        follower = subprocess.Popen(
            [support.TANDEM, "--data", self.data, "--json", *verb, *args, "--follow"],
            stdout=subprocess.PIPE, text=True, env=support.environment())
        self.addCleanup(follower.stdout.close)
        self.addCleanup(follower.wait)
        self.addCleanup(follower.kill)
        return follower

    def test_follow_goes_on_with_what_arrives(self):
        self.append("d", {"n": 1})
        self.node()
        whole, one = self.follow("c"), self.follow("c", "d")
        for n in (2, 3):
            self.append("other", {"n": 10 * n})
            self.append("d", {"n": n})
        seen = [json.loads(whole.stdout.readline()) for _ in range(7)]
        self.assertEqual(list(range(1, 8)), [row["ordinal"] for row in seen])
        rows = [json.loads(one.stdout.readline()) for _ in range(4)]
        self.assertEqual([1, 2, 3], [row["input"]["n"] for row in rows[1:]])
        self.assertEqual([1, 2, 3], [row["index"] for row in rows[1:]])

    def test_a_document_is_shown_again_when_it_changes(self):
        self.append("d", {"n": 1})
        self.node()
        follower = self.follow("c", "d", verb=("doc", "show"))
        self.assertEqual({"n": 1}, json.loads(follower.stdout.readline())["state"])
        self.append("other", {"n": 2})
        self.append("d", {"n": 3})
        self.assertEqual({"n": 3}, json.loads(follower.stdout.readline())["state"])
        self.tandem("doc", "delete", "c", "d")
        self.tandem("op", "append", "c", "d", "--type", "SET", "--model", "kv", "--input",
                    '{"m": 4}')
        self.assertEqual({"m": 4}, json.loads(follower.stdout.readline())["state"])

    def test_text_is_edited_by_position(self):
        def edit(code=0, **what):
            return self.tandem("op", "append", "c", "t", "--type", "EDIT", "--model", "text",
                               "--input", json.dumps(what), code=code)

        edit(at=0, insert="h\u00e9llo")
        edit(at=5, insert=" w\u00f6rld")
        edit(at=0, delete=1, insert="H")
        self.assertEqual("H\u00e9llo w\u00f6rld", self.json("doc", "show", "c", "t")[0]["state"])
        self.assertIn("the text has 11 characters", edit(at=12, insert="x", code=2).err)

    def test_nothing_can_arrive_where_no_node_runs(self):
        self.append("d", {"n": 1})
        result = self.tandem("--json", "op", "ls", "c", "--follow", code=5)
        self.assertEqual(2, len(result.json()))


class Simulating(support.Case):
    SCRIPT = "plan 1\nseed 77\nreactors 2\nheal_ms 1500\nstep 100 5 write a\n"

    def simulate(self, *args, script=None, code=0):
        done = subprocess.run([support.TANDEM, "sim", *args], input=script, text=True,
                              capture_output=True, env=support.environment())
        self.assertEqual(code, done.returncode, done.stderr)
        return done

    def test_what_proves_nothing_is_refused(self):
        self.assertIn("(TANDEM_E_USAGE)", self.simulate("--seeds", "0", code=2).stderr)
        for script in ("", "\n# nothing\n"):
            done = self.simulate("--script", "-", script=script, code=2)
            self.assertIn("no line says `plan 1`", done.stderr)

    def test_a_script_is_told_by_its_seed(self):
        lines = self.simulate("--json", "--script", "-", script=self.SCRIPT).stdout.splitlines()
        self.assertEqual([77], [json.loads(line)["seed"] for line in lines])

    def test_a_signal_leaves_no_folder(self):
        folder = os.path.join(self.folder, "runs")
        os.mkdir(folder)
        sim = subprocess.Popen(
            [support.TANDEM, "--json", "sim", "--seeds", "100000", "--store", "lmdb"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            # All actors of a simulation share one thread: they cannot lock each other out.
            env={**support.environment(), "TMPDIR": folder, "TSAN_OPTIONS": "detect_deadlocks=0"})
        self.addCleanup(sim.stdout.close)
        self.addCleanup(sim.wait)
        self.addCleanup(sim.kill)
        self.assertTrue(json.loads(sim.stdout.readline())["ok"])
        self.assertEqual(1, len(os.listdir(folder)))
        sim.terminate()
        for line in sim.stdout:
            self.assertTrue(json.loads(line)["ok"])
        self.assertEqual(128 + 15, sim.wait())
        self.assertEqual([], os.listdir(folder))


if __name__ == "__main__":
    support.main()
