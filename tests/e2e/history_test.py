"""The checker, checked: a history with one thing wrong is found to have exactly that.

A World writes true histories: nodes that hold operations, clients that are told the truth. Each bad
one is such a history in which one lie was told.
"""

import contextlib
import io
import json
import os
import tempfile
import unittest

import history


class World:
    """Two nodes and what they hold; every call adds its lines to the events."""

    def __init__(self, *nodes):
        self.events = []
        self.held = {node: [] for node in nodes or ("a", "b")}
        self.origins = {node: "origin-" + node for node in self.held}
        self.invocations = self.hlc = 0

    def line(self, event, **fields):
        self.events.append({"event": event, **fields})

    def invoke(self, node, op, **fields):
        self.invocations += 1
        self.line("invoke", id=self.invocations, process=0, node=node, op=op, **fields)
        return self.invocations

    def begin(self, node, marker, document="d", type_="log.APPEND", collection="c"):
        value = {"k": marker} if type_ == "kv.SET" else marker
        return self.invoke(node, "append", collection=collection, document=document, type=type_,
                           input=value)

    def hold(self, node, row):
        self.held[node].append(row)
        return row

    def row(self, node, marker, document="d", type_="log.APPEND", seq=None, collection="c",
            scope="global"):
        """A row that the node writes as its next."""
        origin = self.origins[node]
        if seq is None:
            seq = 1 + max((row["seq"] for row in self.held[node] if row["origin"] == origin and
                           row["collection"] == collection), default=0)
        self.hlc += 1
        return {"origin": origin, "seq": seq, "hash": "%s-%d-%s" % (origin, seq, marker),
                "hlc": self.hlc, "collection": collection, "document": document,
                "branch": "main", "scope": scope, "type": type_,
                "input": {"k": marker} if type_ == "kv.SET" else marker}

    def take(self, node, marker, document="d", type_="log.APPEND", collection="c"):
        """The node writes it, and creates the document if that is new to it."""
        if not any((row["collection"], row["document"]) == (collection, document)
                   for row in self.held[node]):
            create = self.row(node, None, document, type_.split(".")[0] + ".CREATE",
                              collection=collection, scope="document")
            self.hold(node, create)
        return self.hold(node, self.row(node, marker, document, type_, collection=collection))

    def ok(self, id_, row):
        self.line("ok", id=id_, origin=row["origin"], seq=row["seq"], hash=row["hash"])

    def append(self, node, marker, *where):
        id_ = self.begin(node, marker, *where)
        row = self.take(node, marker, *where)
        self.ok(id_, row)
        return row

    def sync(self, source, target):
        have = {row["hash"] for row in self.held[target]}
        for row in self.held[source]:
            if row["hash"] not in have:
                self.hold(target, row)

    def list(self, node, document=None, collection="c", rows=None, **fields):
        if rows is None:
            rows = [row for row in self.held[node] if row["collection"] == collection and
                    document in (None, row["document"])]
            if document:
                rows.sort(key=lambda row: (row["scope"], row["hlc"]))
        id_ = self.invoke(node, "list", collection=collection, document=document, **fields)
        self.line("ok", id=id_, operations=json.loads(json.dumps(rows)))

    def show(self, node, document="d", state=None, **fields):
        if state is None:
            rows = sorted(self.held[node], key=lambda row: row["hlc"])
            state = [row["input"] for row in rows if row["document"] == document and
                     row["type"] == "log.APPEND"]
        id_ = self.invoke(node, "show", collection="c", document=document, **fields)
        self.line("ok", id=id_, state=list(state))

    def fault(self, kind, node):
        self.line("fault", kind=kind, node=node)

    def meet(self):
        for source in self.held:
            for target in self.held:
                self.sync(source, target)

    def end(self, *documents, meet=True):
        if meet:
            self.meet()
            self.meet()
        for node in self.held:
            self.list(node, final=True)
            for document in documents or ("d",):
                self.list(node, document, final=True)
                self.show(node, document, final=True)


def drop(world, node, marker):
    world.held[node] = [row for row in world.held[node] if row["input"] != marker]


class Good(unittest.TestCase):
    def check_good(self, world):
        self.assertEqual([], history.check(world.events))

    def test_empty(self):
        self.assertEqual([], history.check([]))

    def test_two_nodes_that_meet(self):
        w = World()
        w.append("a", "x")
        w.append("b", "y")
        w.list("a")
        w.fault("cut", "a")
        w.sync("a", "b")
        w.list("b", "d")
        w.append("b", "z")
        w.append("a", "w", "other")
        w.show("b")
        w.end("d", "other")
        self.check_good(w)

    def test_unknown_outcome_that_appears(self):
        w = World()
        w.append("a", "x")
        id_ = w.begin("a", "y")
        w.fault("kill", "a")
        w.line("info", id=id_)
        w.fault("restart", "a")
        w.list("a")
        w.take("a", "y")  # late, even: it was under way
        w.append("a", "z")
        w.end()
        self.check_good(w)

    def test_unknown_outcome_that_never_appears(self):
        w = World()
        w.append("a", "x")
        w.line("info", id=w.begin("a", "y"))
        w.append("a", "z")
        w.end()
        self.check_good(w)

    def test_no_outcome_at_all(self):
        w = World()
        w.begin("a", "x")
        w.append("a", "y")
        w.end()
        self.check_good(w)

    def test_certain_failure_that_is_absent(self):
        w = World()
        w.append("a", "x")
        w.line("fail", id=w.begin("a", "y"))
        w.end()
        self.check_good(w)

    def test_read_that_runs_while_an_append_does(self):
        w = World()
        w.append("a", "x")
        early = w.invoke("a", "list", collection="c", document=None)
        rows = list(w.held["a"])
        w.append("a", "y")
        w.line("ok", id=early, operations=rows)
        w.end()
        self.check_good(w)

    def test_read_that_shows_an_append_before_its_client_was_told(self):
        w = World()
        id_ = w.begin("a", "x")
        row = w.take("a", "x")
        w.list("a")
        w.ok(id_, row)
        w.end()
        self.check_good(w)

    def test_concurrent_appends_in_either_order(self):
        w = World()
        one, two = w.begin("a", "x"), w.begin("a", "y")
        second, first = w.take("a", "y"), w.take("a", "x")
        w.ok(one, first)
        w.ok(two, second)
        w.end()
        self.check_good(w)

    def test_nodes_that_hear_of_things_in_different_order(self):
        w = World()
        w.append("a", "x")
        w.append("b", "y")
        w.sync("b", "a")
        w.sync("a", "b")
        w.list("a")
        w.list("b")
        w.end()
        self.check_good(w)

    def test_same_document_created_on_two_nodes(self):
        w = World("a", "b", "c")
        for node in "abc":
            w.append(node, node + "1")
            w.append(node, node + "2", "notes", "kv.SET")
        w.end("d")
        self.check_good(w)

    def restored(self, declare):
        """a goes back to a copy of its folder and writes before it meets anybody."""
        w = World()
        w.append("a", "x")
        w.meet()
        copy = list(w.held["a"])
        w.append("a", "y")
        w.meet()
        w.list("a")
        w.held["a"] = copy
        w.fault("restore", "a")
        if declare:
            w.line("fork", origin="origin-a")
        w.list("a")
        w.append("a", "z")
        w.show("a")
        w.end()
        return w

    def test_fork_declared_after_a_restore(self):
        self.check_good(self.restored(True))

    def test_new_origin_after_a_restore(self):
        w = World()
        w.append("a", "x")
        copy = list(w.held["a"])
        w.append("a", "y")
        w.meet()
        w.held["a"] = copy
        w.fault("restore", "a")
        w.origins["a"] = "origin-a2"
        w.append("a", "z")
        w.end()
        self.check_good(w)

    def test_what_was_under_way_while_the_folder_went_back(self):
        w = World()
        w.append("a", "w")
        copy = list(w.held["a"])
        w.append("a", "x")
        w.append("a", "y")
        w.list("a")
        read = w.invoke("a", "list", collection="c", document=None)
        id_ = w.begin("a", "z")
        w.meet()
        w.held["a"] = copy
        w.fault("restore", "a")
        w.line("fork", origin="origin-a")
        w.hlc = 1.5  # of the copy, too
        w.ok(id_, w.take("a", "z"))
        w.line("ok", id=read, operations=list(w.held["a"]))
        w.end()
        self.check_good(w)

    def test_clock_that_began_again(self):
        w = World()
        w.hlc = 1000
        w.append("a", "x")
        w.fault("clock", "a")
        w.origins["a"], w.hlc = "origin-a2", 1
        w.list("a")
        w.append("a", "y")
        w.end()
        self.check_good(w)

    def test_numbers_as_markers(self):
        w = World()
        w.append("a", 1, "n", "counter.ADD")
        w.append("b", 2, "n", "counter.ADD")
        w.meet()
        w.meet()
        for node in w.held:
            w.list(node, final=True)
        self.check_good(w)


class Bad(unittest.TestCase):
    def check_bad(self, kind, world):
        found = history.check(world.events)
        self.assertEqual({kind}, {finding.kind for finding in found}, found)

    # ---- Lost, stale ----

    def test_lost_everywhere(self):
        w = World()
        w.append("a", "x")
        w.append("a", "y")
        drop(w, "a", "y")
        w.end()
        self.check_bad("lost", w)

    def test_lost_in_the_middle_of_a_chain(self):
        w = World()
        for marker in "xyz":
            w.append("a", marker)
        drop(w, "a", "y")
        w.end()
        self.check_bad("lost", w)

    def test_lost_on_another_node_only(self):
        w = World()
        w.append("a", "x")
        w.append("a", "y")
        w.meet()
        drop(w, "b", "y")
        w.end(meet=False)
        self.check_bad("lost", w)

    def test_lost_by_a_kill(self):
        w = World()
        w.append("a", "x")
        w.append("a", "y")
        w.fault("kill", "a")
        drop(w, "a", "y")
        w.fault("restart", "a")
        w.append("b", "z")
        w.end()
        self.check_bad("lost", w)

    def test_lost_though_its_outcome_was_unknown_for_it_had_been_seen(self):
        w = World()
        w.append("a", "x")
        w.line("info", id=w.begin("a", "y"))
        w.take("a", "y")
        w.list("a")
        drop(w, "a", "y")
        w.end()
        self.check_bad("lost", w)

    def test_lost_by_a_restore_that_nobody_made_good(self):
        w = World()
        w.append("a", "x")
        copy = list(w.held["a"])
        w.append("a", "y")
        w.held["a"] = copy
        w.fault("restore", "a")
        w.end()
        self.check_bad("lost", w)

    def test_lost_from_the_folded_state(self):
        w = World()
        w.append("a", "x")
        w.append("a", "y")
        w.end()
        for event in w.events:
            if "state" in event:
                event["state"].remove("x")
        self.check_bad("lost", w)

    def test_stale_list(self):
        w = World()
        w.append("a", "x")
        before = list(w.held["a"])
        w.append("a", "y")
        w.list("a", rows=before)
        w.end()
        self.check_bad("stale", w)

    def test_stale_state(self):
        w = World()
        w.append("a", "x")
        w.append("a", "y")
        w.show("a", state=["x"])
        w.end()
        self.check_bad("stale", w)

    def test_stale_about_what_came_from_a_peer(self):
        w = World()
        w.append("b", "x")
        w.sync("b", "a")
        w.list("a")
        w.list("a", rows=[])
        w.end()
        self.check_bad("stale", w)

    # ---- Duplicated, phantom ----

    def test_duplicated_row(self):
        w = World()
        row = w.append("a", "x")
        w.hold("a", row)
        w.end()
        self.check_bad("duplicated", w)

    def test_duplicated_under_another_seq(self):
        w = World()
        w.append("a", "x")
        w.take("a", "x")
        w.end()
        self.check_bad("duplicated", w)

    def test_duplicated_unknown_outcome(self):
        w = World()
        w.append("a", "x")
        w.line("info", id=w.begin("a", "y"))
        w.take("a", "y")
        w.take("b", "y")
        w.end()
        self.check_bad("duplicated", w)

    def test_duplicated_under_another_identity_on_another_node(self):
        w = World()
        w.append("a", "x")
        w.line("info", id=w.begin("a", "y"))
        w.meet()
        w.take("a", "y")
        w.take("b", "y")
        w.end(meet=False)
        self.check_bad("duplicated", w)

    def test_duplicated_in_the_fold(self):
        w = World()
        w.append("a", "x")
        w.append("a", "y")
        w.end()
        w.show("a", state=["x", "y", "x"])
        self.check_bad("duplicated", w)

    def test_phantom_that_nobody_invoked(self):
        w = World()
        w.append("a", "x")
        w.take("a", "y")
        w.end()
        self.check_bad("phantom", w)

    def test_phantom_that_failed_for_certain(self):
        w = World()
        w.append("a", "x")
        w.line("fail", id=w.begin("a", "y"))
        w.take("a", "y")
        w.end()
        self.check_bad("phantom", w)

    def test_phantom_in_one_nodes_state(self):
        w = World()
        w.append("a", "x")
        w.end()
        w.show("b", state=["x", "ghost"], final=True)
        self.check_bad("phantom", w)

    def test_phantom_from_the_future(self):
        w = World()
        w.append("a", "x")
        row = w.take("a", "y")
        w.list("a")
        w.ok(w.begin("a", "y"), row)
        w.end()
        self.check_bad("phantom", w)

    def test_phantom_document(self):
        w = World()
        w.append("a", "x")
        w.line("fail", id=w.begin("a", "y", "other"))
        create = w.row("a", None, "other", "log.CREATE", scope="document")
        w.hold("a", create)
        w.append("a", "z")
        w.end()
        self.check_bad("phantom", w)

    # ---- Order ----

    def test_reordered_appends_of_one_client(self):
        w = World()
        one = w.append("a", "x")
        two = w.append("a", "y")
        one["hlc"], two["hlc"] = two["hlc"], one["hlc"]
        w.end()
        self.check_bad("reordered", w)

    def test_reordered_before_what_the_node_had_shown(self):
        w = World()
        w.append("b", "x")
        w.sync("b", "a")
        w.list("a")
        row = w.append("a", "y")
        row["hlc"] = -1  # its clock did not follow what it had received
        w.end()
        self.check_bad("reordered", w)

    def test_reordered_seqs(self):
        w = World()
        w.append("a", "w")
        one, two = w.begin("a", "x"), None
        early = w.row("a", "x", seq=4)
        w.ok(one, early)
        two = w.begin("a", "y")
        late = w.row("a", "y", seq=3)
        w.ok(two, late)
        w.hold("a", late)
        w.hold("a", early)
        for node in w.held:
            w.list(node, rows=w.held["a"], final=True)
        self.check_bad("reordered", w)

    def test_reordered_arrival_on_one_node(self):
        w = World()
        w.append("a", "x")
        w.append("b", "y")
        w.sync("b", "a")
        w.list("a")
        rows = w.held["a"]
        w.held["a"] = rows[2:] + rows[:2]
        w.end()
        self.check_bad("reordered", w)

    def test_reordered_by_arriving_in_the_past(self):
        w = World()
        w.append("a", "x")
        w.list("a")
        w.append("b", "y")
        w.sync("b", "a")
        w.held["a"] = w.held["a"][2:] + w.held["a"][:2]
        w.end()
        self.check_bad("reordered", w)

    def test_reordered_chain(self):
        w = World()
        for marker in "xyz":
            w.append("a", marker)
        rows = w.held["a"]
        rows[2], rows[3] = rows[3], rows[2]
        w.end()
        self.check_bad("reordered", w)

    def test_reordered_state_on_one_node(self):
        w = World()
        w.append("a", "x")
        w.append("b", "y")
        w.end()
        w.show("b", state=["y", "x"], final=True)
        self.check_bad("reordered", w)

    def test_reordered_against_the_clock(self):
        w = World()
        w.append("a", "x")
        w.append("b", "y")
        w.end()
        for event in w.events:
            for row in event.get("operations", ()):
                if row["input"] == "x":
                    row["hlc"] = 99
        self.check_bad("reordered", w)

    # ---- Changed, forked ----

    def test_changed_content_under_one_hash(self):
        w = World()
        w.append("a", "x")
        w.append("a", "y")
        w.meet()
        w.held["b"] = [{**row, "input": "Y"} if row["input"] == "y" else row
                       for row in w.held["b"]]
        for node in w.held:
            w.list(node, final=True)
        self.check_bad("changed", w)

    def test_changed_before_anybody_read_it(self):
        w = World()
        row = w.append("a", "x")
        row["input"] = "X"
        w.meet()
        for node in w.held:
            w.list(node, final=True)
        self.check_bad("changed", w)

    def test_changed_document(self):
        w = World()
        w.append("a", "w")
        w.append("a", "v", "other")
        row = w.append("a", "x")
        w.line("info", id=w.begin("a", "y"))
        taken = w.take("a", "y")
        taken["document"] = "other"
        w.meet()
        for node in w.held:
            w.list(node, final=True)
        self.assertEqual("d", row["document"])
        self.check_bad("changed", w)

    def test_changed_identity(self):
        w = World()
        w.append("a", "x")
        id_ = w.begin("a", "y")
        row = w.take("a", "y")
        w.ok(id_, {**row, "hash": "another"})
        w.end()
        for event in w.events:  # or the told one would be a fork of the held one
            if event.get("hash") == "another":
                event["seq"] = 7
        self.check_bad("changed", w)

    def test_changed_seq(self):
        w = World()
        w.append("a", "x")
        id_ = w.begin("a", "y")
        row = w.take("a", "y")
        w.ok(id_, {**row, "seq": 9})
        w.end()
        self.check_bad("changed", w)

    def test_forked_though_nothing_was_restored(self):
        w = World()
        w.append("a", "x")
        w.meet()
        id_ = w.begin("a", "y")
        w.ok(id_, w.hold("a", w.row("a", "y", seq=3)))
        id_ = w.begin("b", "z")
        w.ok(id_, w.hold("b", {**w.row("a", "z", seq=3)}))
        w.end()
        self.check_bad("forked", w)

    def test_forked_by_an_unknown_outcome(self):
        w = World()
        w.append("a", "x")
        w.append("a", "y")
        w.line("info", id=w.begin("a", "z"))
        w.hold("a", w.row("a", "z", seq=3))
        w.end()
        self.check_bad("forked", w)

    def test_forked_after_a_restore_that_took_a_new_origin(self):
        self.check_bad("forked", Good().restored(False))

    def test_forked_before_the_fork_was_declared(self):
        w = Good().restored(False)
        w.line("fork", origin="origin-a")
        self.check_bad("forked", w)

    # ---- The rest ----

    def test_hole_where_nobody_was_told(self):
        w = World()
        w.append("a", "x")
        w.line("info", id=w.begin("a", "y"))
        w.take("a", "y")
        w.append("a", "z")
        drop(w, "a", "y")
        w.end()
        self.check_bad("hole", w)

    def test_torn_job(self):
        w = World()
        w.append("a", "x")
        w.line("info", id=w.begin("a", "y", "other"))
        w.take("a", "y", "other")
        w.held["a"].pop()
        w.end()
        self.check_bad("torn", w)

    def test_diverged_about_an_unknown_outcome(self):
        w = World()
        w.append("a", "x")
        w.meet()
        w.line("info", id=w.begin("a", "y"))
        w.take("a", "y")
        w.end(meet=False)
        self.check_bad("diverged", w)

    def test_malformed_for_nobody_looked_at_the_end(self):
        w = World()
        w.append("a", "x")
        w.list("a")
        self.check_bad("malformed", w)

    def test_malformed_for_one_node_was_not_looked_at(self):
        w = World()
        w.append("a", "x")
        w.append("b", "y")
        w.meet()
        w.list("a", final=True)
        self.check_bad("malformed", w)

    def test_malformed_for_an_outcome_came_twice(self):
        w = World()
        w.append("a", "x")
        w.events.append(w.events[-1])
        w.end()
        self.check_bad("malformed", w)

    def test_malformed_for_an_id_came_twice(self):
        w = World()
        w.append("a", "x")
        w.invocations = 0
        w.begin("a", "y")
        w.end()
        self.check_bad("malformed", w)

    def test_malformed_for_an_event_is_unknown(self):
        w = World()
        w.line("maybe", id=1)
        self.check_bad("malformed", w)

    def test_malformed_for_an_invocation_is_unknown(self):
        w = World()
        w.invoke("a", "delete", collection="c")
        self.check_bad("malformed", w)

    def test_malformed_for_two_appends_share_a_marker(self):
        w = World()
        w.append("a", "x")
        w.append("b", "x")
        w.end()
        self.check_bad("malformed", w)


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tandem-history-")
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "history.jsonl")

    def run_on_file(self):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), self.assertRaises(SystemExit) as ended:
            history.main([self.path])
        return ended.exception.code, out.getvalue()

    def log(self, told_seq):
        log = history.Log(self.path)
        row = {"origin": "o", "seq": 1, "hash": "h", "document": "d", "type": "kv.SET",
               "input": {"k": "x"}}
        id_ = log.invoke(0, "a", "append", collection="c", document="d", type="kv.SET",
                         input={"k": "x"})
        log.write("ok", id=id_, origin="o", seq=told_seq, hash="h")
        log.fault("kill", "a")
        id_ = log.invoke(0, "a", "list", collection="c", document=None, final=True)
        log.write("ok", id=id_, operations=[row])
        log.close()

    def test_what_is_logged_can_be_checked(self):
        self.log(told_seq=1)
        self.assertEqual((0, ""), self.run_on_file())

    def test_findings_are_printed(self):
        self.log(told_seq=2)
        code, out = self.run_on_file()
        self.assertEqual(1, code)
        self.assertIn(": changed: ", out)


if __name__ == "__main__":
    unittest.main()
