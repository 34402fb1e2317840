"""One poisoned job among thousands: all else arrives, it stays in sight over restarts, whoever would
take it gets it from whoever holds it, and it is delivered when its cause is gone."""

import node
from node import check

RULE = ("--refuse", "c/poison")


def lines_with_poison(count):
    """count of them, one of documents of its own name in the middle."""
    for i, line in enumerate(node.operations(count)):
        if i == count // 2:
            line = {"document": "poison", "model": "kv", "type": "SET", "input": {"bad": True}}
        yield line


def dials(field, target, other):
    url = other.url.replace("ws://", field.transport + "://")
    target.run("-q", "peer", "add", other.name, url)


def dead_letters(target):
    return target.json("job", "ls", "--box", "dead")


def events(target):
    return target.status()["events"]


def has_poison(target):
    return target.run("doc", "show", "c", "poison", code=None).code == 0


def held(target):
    return target.status()["store"]["operations"]


def one_is_refused(field):
    """a sends to b, which will not have one job; to d, which takes it; returns the dead letter, too."""
    a, d = field.nodes_started("a", "d")
    b = field.node("b").start(*RULE)
    dials(field, a, b)
    dials(field, a, d)
    count = field.size(1500, 10000)
    a.import_file("c", field.file("in.jsonl", lines_with_poison(count)))
    total = held(a)
    check(total == count + 101, "the import is not whole", total)
    field.until("all but one job has come", lambda: held(b) == total - 2)
    field.until("it is a dead letter", lambda: dead_letters(a))
    a.wait(d)
    field.settle(a, d)
    check(not has_poison(b), "what is refused was taken")
    store = b.status()["store"]
    check((store["lacks"], store["refused"]) == (0, 1), "one range is refused", store)
    check(events(b)["refusal"] == 1 and events(a)["dead_letter"] == 1, "it was told otherwise",
          events(a), events(b))
    letter, = dead_letters(a)
    check((letter["remote"], letter["document"], letter["operations"], letter["error"],
           letter["offered"]) == ("b", "poison", 2, "TANDEM_E_REFUSED", 1), "another letter", letter)
    result = a.run("wait", "b", "--timeout", "30", code=3)
    check(" poison " in result.out and "(TANDEM_E_REFUSED)" in result.err,
          "the barrier does not name it", result.out, result.err)
    return a, b, d, letter


def both_begin_again(a, b, letter):
    """One ends as it should, one dies; the letter is there before, between and after."""
    a.end()
    b.kill()
    check(dead_letters(a) == [letter], "the stopped store does not list it", dead_letters(a))
    b.start(*RULE)
    a.start()
    check(dead_letters(a) == [letter], "it is not listed after the restart", dead_letters(a))


def a_third_gets_it_from_whoever_holds_it(field, b, d):
    c = field.nodes_started("c")[0]
    dials(field, c, b)
    field.until("what b holds is there", lambda: held(c) == held(b))
    check(not has_poison(c), "b has sent what it does not hold")
    dials(field, c, d)
    field.settle(c, d)
    check(has_poison(c), "d has not sent it")
    check(events(b)["refusal"] == 0, "it was offered to b again", events(b))
    return c


def all_hold_the_same(field, *nodes):
    field.settle(*nodes)
    for target in nodes:
        store = target.status()["store"]
        check((store["lacks"], store["refused"]) == (0, 0), "%s lacks something" % target.name, store)
        target.verify()
    field.ends_cleanly()


def it_comes_by_itself_when_the_rule_has_gone(field):
    a, b, d, letter = one_is_refused(field)
    both_begin_again(a, b, letter)
    c = a_third_gets_it_from_whoever_holds_it(field, b, d)
    a.append("c", "after", "kv", "SET", {"n": 1})
    field.until("what comes later arrives", lambda: held(b) == held(a) - 2)
    check(dead_letters(a) == [letter], "the letter has changed", dead_letters(a))
    b.end()
    b.start()
    field.until("it has come", lambda: has_poison(b))
    field.until("the letter is gone", lambda: not dead_letters(a))
    a.wait(b)
    all_hold_the_same(field, a, b, c, d)


def it_comes_from_a_third_while_its_writer_is_away(field):
    a, b, d, letter = one_is_refused(field)
    both_begin_again(a, b, letter)
    c = a_third_gets_it_from_whoever_holds_it(field, b, d)
    a.end()
    b.end()
    b.start()
    field.until("it has come", lambda: has_poison(b))
    a.start()
    field.until("the letter is gone", lambda: not dead_letters(a))
    all_hold_the_same(field, a, b, c, d)


def a_retry_delivers_it_when_the_cause_is_gone(field):
    a, b, d, letter = one_is_refused(field)
    both_begin_again(a, b, letter)
    a.run("job", "retry", str(letter["id"]))
    again, = field.until("it is refused again",
                         lambda: [one for one in dead_letters(a) if one["offered"] == 2])
    check(again["id"] == letter["id"] and not again["retry"], "another letter", again)
    b.end()
    a.run("job", "retry", str(letter["id"]))
    check(dead_letters(a)[0]["retry"], "it is not to be offered again", dead_letters(a))
    a.end()  # that outlives a restart
    b.start()
    a.start()
    field.until("the letter is gone", lambda: not dead_letters(a))
    check(has_poison(b), "the letter is gone, and nothing has come")
    a.wait(b)
    all_hold_the_same(field, a, b, d)


node.main(it_comes_by_itself_when_the_rule_has_gone,
          it_comes_from_a_third_while_its_writer_is_away,
          a_retry_delivers_it_when_the_cause_is_gone)
