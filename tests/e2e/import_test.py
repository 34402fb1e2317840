"""import: atomic groups, the first bad line, resuming, a node lost on the way."""

import fcntl
import json
import os
import re
import signal
import subprocess
import termios

import support


def line(n, value=None):
    return json.dumps({"document": "d%d" % (n % 50), "model": "kv", "type": "SET",
                       "input": {"n": n} if value is None else value})


def lines(count, bad=None, text=""):
    return "".join((text if n == bad else line(n)) + "\n" for n in range(1, count + 1))


class Import(support.Case):
    def operations(self, data, collection="c"):
        rows = [row for row in self.json("op", "ls", collection, data=data)
                if row["type"] != "kv.CREATE"]
        return [row["input"]["n"] for row in rows]

    @support.on_both
    def test_every_line_becomes_an_operation_in_order(self, data):
        path = self.file("in", lines(2500))
        result, = self.json("import", "c", path, data=data)
        self.assertEqual({"lines": 2500, "groups": 3}, result)
        self.assertEqual(list(range(1, 2501)), self.operations(data))

    @support.on_both
    def test_stdin_and_a_last_line_without_its_end(self, data):
        self.tandem("import", "c", data=data, stdin=lines(3).rstrip("\n"))
        self.assertEqual([1, 2, 3], self.operations(data))

    @support.on_both
    def test_nothing_is_imported_of_nothing(self, data):
        result, = self.json("import", "c", "-", data=data, stdin="")
        self.assertEqual({"lines": 0, "groups": 0}, result)

    @support.on_both
    def test_the_first_bad_line_stops_it_and_earlier_groups_stay(self, data):
        cases = (("", "INPUT"), ("{", "INPUT"), ("[]", "INPUT"), ('{"document":"x"}', "INPUT"),
                 (line(1, [1]), "INPUT"), (line(1, {"a": "x" * 300000}), "LIMIT"),
                 ('{"a":"' + "x" * (1 << 20) + '"}', "LIMIT"),
                 (line(1)[:-1] + ',"brunch":"b"}', "INPUT"))
        for i, (text, name) in enumerate(cases):
            path = self.file("in", lines(3500, 2345, text))
            result = self.tandem("import", "c%d" % i, path, data=data, code=3)
            self.assertRegex(result.err, r"^line 2345: .+; lines 1-2000 kept \(TANDEM_E_%s\)\n$"
                             % name)
            self.assertEqual(list(range(1, 2001)), self.operations(data, "c%d" % i))

    @support.on_both
    def test_exit_1_where_no_line_was_kept(self, data):
        path = self.file("in", lines(500, 3, "nonsense"))
        result = self.tandem("import", "c", path, data=data, code=1)
        self.assertRegex(result.err, r"^line 3: .+; no lines kept \(TANDEM_E_INPUT\)\n$")
        self.assertEqual([], self.json("op", "ls", "c", data=data))

    @support.on_both
    def test_from_resumes_where_it_stopped(self, data):
        bad, good = self.file("bad", lines(2500, 1700, "nonsense")), self.file("good", lines(2500))
        self.tandem("import", "c", bad, data=data, code=3)
        result = self.tandem("import", "c", bad, "--from", "1001", data=data, code=1)
        self.assertRegex(result.err, r"^line 1700: .+; no lines kept")
        self.assertEqual(1500, self.json("import", "c", good, "--from", "1001",
                                         data=data)[0]["lines"])
        self.assertEqual(list(range(1, 2501)), self.operations(data))

    @support.on_both
    def test_edits_of_a_text_come_back_as_they_stand(self, data):
        edits = [{"document": "t", "model": "text", "type": "EDIT", "input": what}
                 for what in ({"at": 0, "insert": "abc"}, {"at": 3, "insert": "d\u00e9f"},
                              {"at": 1, "delete": 3, "insert": "\U0001f30d" * 30000})]
        self.tandem("import", "c", data=data, stdin="".join(json.dumps(e) + "\n" for e in edits))
        shown = "a" + "\U0001f30d" * 30000 + "\u00e9f"
        self.assertEqual(shown, self.json("doc", "show", "c", "t", data=data)[0]["state"])
        exported = self.tandem("export", "c", data=data).out
        self.assertEqual(3, len(exported.splitlines()))
        self.tandem("import", "again", data=data, stdin=exported)
        self.assertEqual(shown, self.json("doc", "show", "again", "t", data=data)[0]["state"])

    @support.on_both
    def test_an_empty_text_is_exported(self, data):
        edits = [{"document": "t", "model": "text", "type": "EDIT", "input": what}
                 for what in ({"at": 0, "insert": "abc"}, {"at": 0, "delete": 3})]
        self.tandem("import", "c", data=data, stdin="".join(json.dumps(e) + "\n" for e in edits))
        self.tandem("import", "again", data=data, stdin=self.tandem("export", "c", data=data).out)
        self.assertEqual("", self.json("doc", "show", "again", "t", data=data)[0]["state"])

    @support.on_both
    def test_a_bad_edit_of_a_text_is_named(self, data):
        edits = [{"at": 0, "insert": "x"}] * 4 + [{"at": 99, "insert": "x"}, {"at": 0, "insert": "x"}]
        stdin = "".join(json.dumps({"document": "t", "model": "text", "type": "EDIT", "input": e}) + "\n"
                        for e in edits)
        self.assertRegex(self.tandem("import", "c", data=data, stdin=stdin, code=1).err,
                         r"^line 5: the text has 4 characters")

    @support.on_both
    def test_keystrokes_of_texts_are_taken_in_any_order(self, data):
        shown, edits = {"one": "", "two": "", "large": ""}, []
        for i in range(5000):
            name = "one" if i < 2500 else ("one", "two")[i % 2]
            at, letter = i * 7919 % (len(shown[name]) + 1), chr(97 + i % 26)
            shown[name] = shown[name][:at] + letter + shown[name][at:]
            edits.append((name, at, letter))
        for i in range(20):
            shown["large"] += chr(97 + i) * 60000
            edits.append(("large", 60000 * i, chr(97 + i) * 60000))
        stdin = "".join(json.dumps({"document": name, "model": "text", "type": "EDIT",
                                    "input": {"at": at, "insert": text}}) + "\n"
                        for name, at, text in edits)
        self.tandem("import", "c", data=data, stdin=stdin)
        for name, text in shown.items():
            self.assertEqual(text, self.json("doc", "show", "c", name, data=data)[0]["state"])

    @support.on_both
    def test_names_of_an_operation_are_taken_over(self, data):
        text = json.dumps({"document": "d", "model": "log", "type": "APPEND", "input": "x",
                           "scope": "s", "branch": "b"}) + "\n"
        self.tandem("import", "c", data=data, stdin=text)
        shown, = self.json("doc", "show", "c", "d", "--scope", "s", "--branch", "b", data=data)
        self.assertEqual(("log", ["x"]), (shown["model"], shown["state"]))

    @support.on_both
    def test_a_dry_run_checks_and_keeps_nothing(self, data):
        path = self.file("in", lines(1500, 1200, "nonsense"))
        result = self.tandem("-n", "import", "c", path, data=data, code=3)
        self.assertRegex(result.err, r"^line 1200: .+; lines 1-1000 checked")
        self.append("made", {"n": 0}, data=data)
        self.assertEqual([0], self.operations(data))

    def test_a_file_that_is_not_there_is_exit_4(self):
        self.tandem("import", "c", os.path.join(self.folder, "none"), code=4)
        self.assertFalse(os.path.exists(self.data))

    def test_a_signal_stops_it_behind_a_group_and_what_was_kept_is_told(self):
        for data in self.stopped_and_running().values():
            for number, name in ((signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")):
                importer = subprocess.Popen(
                    [support.TANDEM, "--data", data, "import", name], stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    env=support.environment())
                importer.stdin.write(lines(3500))
                importer.stdin.flush()
                # Not the end of the file: it waits for more, or is about to.
                self.until("the lines are read", lambda: fcntl.ioctl(
                    importer.stdin, termios.FIONREAD, b"\0" * 4) == b"\0" * 4)
                importer.send_signal(number)
                code = importer.wait(support.DEADLINE_S)
                _, err = importer.communicate()
                self.assertEqual(128 + number, code, err)
                told = re.fullmatch(r"line (\d+): stopped by %s; (?:lines 1-(\d+)|no lines) kept "
                                    r"\(TANDEM_E_CLOSED\)\n" % name, err)
                self.assertTrue(told, err)
                kept = int(told[2] or 0)
                self.assertEqual((0, kept + 1), (kept % 1000, int(told[1])))
                self.assertEqual(list(range(1, kept + 1)), self.operations(data, name))
                self.tandem("import", name, "--from", told[1], data=data, stdin=lines(3500))
                self.assertEqual(list(range(1, 3501)), self.operations(data, name))

    def test_a_node_lost_on_the_way_is_exit_5_and_what_was_kept_is_told(self):
        node = self.node()
        importer = subprocess.Popen(
            [support.TANDEM, "--data", self.data, "import", "c"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=support.environment())
        importer.stdin.write(lines(3000))
        importer.stdin.flush()
        # Three groups and not the end of the file: the importer waits for more.
        self.until("the groups are executed",
                   lambda: self.json("status")[0]["store"]["operations"] >= 3050)
        node.end(signal.SIGKILL)
        _, err = importer.communicate(lines(2000), timeout=support.DEADLINE_S)
        self.assertEqual(5, importer.returncode, err)
        told = re.fullmatch(r"line (\d+): .+; lines 1-(\d+) kept \(TANDEM_E_UNREACHABLE\)\n", err)
        self.assertTrue(told, err)
        # What is durable may be seen before its answer has left: then it is not told as kept.
        self.assertIn(int(told[2]), (2000, 3000))
        self.assertEqual(int(told[2]) + 1, int(told[1]))
        self.assertEqual(list(range(1, 3001)), self.operations(self.data))


if __name__ == "__main__":
    support.main()
