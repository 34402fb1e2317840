"""Partial replicas: what comes through a filter, counted in operations, on real nodes.

Each document is written once: its first job holds its CREATE, and so two operations.
"""

import os
import signal

import node
from node import check


def url_of(field, target):
    return target.url.replace("ws://", "http://") if field.transport == "http" else target.url


def adds(field, target, other, *share):
    target.run("-q", "peer", "add", other.name, url_of(field, other), *share)


def sets(target, other, *share):
    target.run("-q", "peer", "set", other.name, *share)


def line(document, n=0, **where):
    return dict({"document": document, "model": "kv", "type": "SET", "input": {"n": n}}, **where)


def write(field, target, lines, collection="notes"):
    target.import_file(collection, field.file(target.name + ".jsonl", lines))


def write_both(field, target, *numbers):
    """Documents b0, a0, b1, a1 …: so that none of a stand behind all before them."""
    write(field, target, [line("%s%d" % (x, i)) for i in numbers for x in "ba"])


def holds(target):
    return sum(row["operations"] for row in target.digest())


def documents(target, collection="notes"):
    return sorted(row["document"] for row in target.json("doc", "ls", collection))


def in_step(target, other):
    target.run("-q", "peer", "sync", other.name, "--wait", "--timeout", "60")


def check_held(field, target, other, operations, received=None):
    """That target comes to hold so many operations, is in step with other then, and has got so many
    of it, each once, since it was started."""
    received = operations if received is None else received
    try:
        field.until("%s holds %d operations" % (target.name, operations),
                    lambda: holds(target) >= operations)
    except node.Failure as failure:
        raise node.Failure(str(failure), holds(target), target.remote(other.name)) from None
    in_step(target, other)
    row = target.remote(other.name)
    check(holds(target) == operations, "%s holds %d operations, not %d" %
          (target.name, holds(target), operations))
    check(row["received_operations"] == received and row["duplicate_operations"] == 0 and
          row["echoed_operations"] == 0, "not %d operations came, each once" % received, row)


def check_sent(target, count):
    """That so many operations went to whoever has dialed target."""
    sent = sum(row["sent_operations"] for row in target.status()["remotes"] if not row["name"])
    check(sent == count, "%s sent %d operations, not %d" % (target.name, sent, count))


def check_partial(target, other, is_partial):
    """That target says of itself whether it holds anything in part, and verifies either way."""
    status, row = target.status(), target.remote(other.name)
    said = (status["store"]["partial_collections"], [r["partial"] for r in target.digest()])
    check(said == (int(is_partial), [is_partial]), "it does not say what it holds in part", said)
    check("held in part" in target.run("status").out + target.run("digest").out or not is_partial,
          "people are not told")
    check(row["partial"] or not is_partial, "its remote is not partial", row)
    check((row["reason"] == "as far as the filter goes") == row["partial"], "another reason", row)
    target.verify()


def by_document_widened_narrowed_widened(field):
    a, b = field.nodes_started("a", "b")
    write_both(field, a, *range(10))
    adds(field, b, a, "--pull", "--document", "a*")
    check_held(field, b, a, 20)
    check_sent(a, 20)
    check(documents(b) == ["a%d" % i for i in range(10)], "not the documents of the filter",
          documents(b))
    write_both(field, a, 10, 11)
    check_held(field, b, a, 24)
    sets(b, a, "--document", "[ab]1*")  # b1, b10, b11: what it has in common does not come twice
    check_held(field, b, a, 30)
    sets(b, a, "--document", "a*")
    write_both(field, a, 12)
    check_held(field, b, a, 32)
    sets(b, a, "--document", "a*", "--document", "b1*")
    check_held(field, b, a, 34)
    check_partial(b, a, True)
    check(not a.digest()[0]["partial"], "who gives in part holds all", a.digest())
    sets(b, a, "--all")
    check_held(field, b, a, 52)
    check_partial(b, a, False)
    check(b.digest() == a.digest(), "it is not whole", a.digest(), b.digest())
    sets(b, a, "--document", "b*")  # nothing goes away
    write_both(field, a, 13)
    check_held(field, b, a, 54)
    sets(b, a, "--both", "--all")
    check_held(field, b, a, 56)
    b.append("notes", "a13", "kv", "SET", {"of": "b"})
    b.wait(a)
    check(b.digest() == a.digest(), "it is not whole", a.digest(), b.digest())
    for target in (a, b):
        target.verify()


def by_collection_scope_and_branch(field):
    a, b = field.nodes_started("a", "b")
    for name in ("tasks", "notes", "log"):
        write(field, a, [line("d%d" % i) for i in range(5)], name)
    write(field, a, [line("n", n, **where) for n in range(5) for where in (
        {"branch": "main"}, {"branch": "draft"}, {"scope": "mine"})], "parts")
    total = holds(a)
    check(total == 46, "another number of operations than thought", a.digest())
    adds(field, b, a, "--pull", "--collection", "tasks")
    check_held(field, b, a, 10)
    sets(b, a, "--collection", "tasks", "--collection", "notes")
    check_held(field, b, a, 20)
    sets(b, a, "--collection", "tasks")
    write(field, a, [line("late")], "notes")
    check_held(field, b, a, 20)
    sets(b, a, "--collection", "parts", "--branch", "draft")
    check_held(field, b, a, 27)  # the first job has the CREATE, and goes whole
    sets(b, a, "--all", "--collection", "parts", "--scope", "mine")
    check_held(field, b, a, 32)
    sets(b, a, "--branch", "draft")  # both: nothing is new
    check_held(field, b, a, 32)
    b.verify()
    sets(b, a, "--all")
    check_held(field, b, a, total + 2)
    check(b.digest() == a.digest(), "it is not whole", a.digest(), b.digest())
    b.verify()


def a_third_that_syncs_with_a_whole_and_a_partial_one_ends_whole(field):
    a, b, c = field.nodes_started("a", "b", "c")
    write_both(field, a, *range(10))
    adds(field, b, a, "--document", "a*")
    check_held(field, b, a, 20)
    adds(field, c, b, "--pull")  # else b had all of c
    b.append("notes", "a-of-b", "kv", "SET", {"of": "b"})
    check_held(field, c, b, 2)  # what it wrote itself; it relays nothing
    adds(field, c, a)
    field.settle(a, c)
    in_step(c, a)
    check(holds(c) == 42, "it is not whole", c.digest())
    write_both(field, a, 10)
    field.settle(a, c)
    check_held(field, b, a, 24, received=22)
    check("b10" in documents(c) and "b10" not in documents(b), "not where it belongs",
          documents(b), documents(c))
    row = c.remote("b")
    check(row["received_operations"] == 2, "something was relayed", row)
    for target in (a, b, c):
        target.verify()


def one_way(field):
    a, b = field.nodes_started("a", "b")
    adds(field, b, a, "--push", "--document", "x*")
    write(field, b, [line("x%d" % i) for i in range(5)] + [line("y%d" % i) for i in range(5)])
    write(field, a, [line("z")])
    result = b.run("wait", "a", "--timeout", "60", code=3)
    check("not everything is shared" in result.err and "TANDEM_E_REFUSED" in result.err,
          "another error", result.err)
    check(documents(a) == ["x%d" % i for i in range(5)] + ["z"], "not what was pushed",
          documents(a))
    row = b.remote("a")
    check((row["sent_operations"], row["received_operations"]) == (10, 0), "another count", row)
    sets(b, a, "--all")
    b.wait(a)
    check(b.remote("a")["sent_operations"] == 20, "another count", b.remote("a"))
    check("z" not in documents(b), "it came the other way")
    sets(b, a, "--both")
    field.settle(a, b)


def it_goes_on_after_restarts(field):
    a, b = field.nodes_started("a", "b")
    write_both(field, a, *range(10))
    adds(field, b, a, "--pull", "--document", "a*")
    check_held(field, b, a, 20)
    for number in (signal.SIGTERM, signal.SIGKILL):
        in_step(b, a)
        held = holds(b)
        b.end(number)
        write_both(field, a, held, held + 1)
        b.start()
        check_held(field, b, a, held + 4, received=4)
    b.end()
    sets(b, a, "--document", "b*")  # of a stopped store
    b.start()
    check_held(field, b, a, 56, received=28)
    a.kill()
    a.start()
    write_both(field, a, 99)
    check_held(field, b, a, 58, received=30)
    b.verify()
    sets(b, a, "--all")
    field.settle(a, b)
    b.verify()


def a_partial_replica_has_no_backup_until_it_is_whole(field):
    a, b = field.nodes_started("a", "b")
    write_both(field, a, *range(5))
    adds(field, b, a, "--pull", "--document", "a*")
    check_held(field, b, a, 10)
    path, copy = (os.path.join(field.folder, name) for name in ("backup", "copy"))
    for _ in range(2):
        for result in (b.run("backup", path, code=2),
                       field.run("--data", copy, "clone", b.data, code=2)):
            check("collection notes is held in part" in result.err, "another error", result.err)
        check(not os.path.exists(path) and not os.path.exists(copy), "something was made")
        if b.is_running():
            b.end()
    b.start()
    sets(b, a, "--all")
    check_held(field, b, a, 20, received=10)
    b.run("backup", path)
    c = field.node("c")
    c.run("restore", path)
    check(c.digest() == a.digest(), "another one came back", a.digest(), c.digest())
    c.verify()


if __name__ == "__main__":
    node.main(by_document_widened_narrowed_widened, by_collection_scope_and_branch,
              a_third_that_syncs_with_a_whole_and_a_partial_one_ends_whole, one_way,
              it_goes_on_after_restarts, a_partial_replica_has_no_backup_until_it_is_whole)
