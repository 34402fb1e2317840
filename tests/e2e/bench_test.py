"""`tandem bench`: that its benches run and say what they are to say. How fast anything is, is not
looked at: the machine that tests run on is no measure."""

import node
from node import check

FIELDS = {"bench", "variant", "figure", "value", "unit", "ceiling", "ratio", "rss_anon_bytes",
          "disk_bytes_per_operation", "wire_bytes_per_operation"}


def figures_of(field, name, *args):
    """The figures of a run, by name."""
    lines = field.run("--json", "bench", name, *args, timeout=60).lines()
    for line in lines:
        check(set(line) == FIELDS, "a figure has other fields", line)
        check(line["bench"] == name and line["variant"] and line["unit"], "not told of what", line)
        check(isinstance(line["value"], (int, float)), "the value is no number", line)
        check((line["ceiling"] is None) == (line["ratio"] is None), "a ratio to nothing", line)
    return {line["figure"]: line for line in lines}


def benches_are_listed(field):
    listed = {line["bench"] for line in field.run("--json", "bench").lines()}
    check({"peers", "slow_receiver"} <= listed, "benches are missing", listed)
    field.run("bench", "no_such_bench", code=4)
    field.run("bench", "peers", "--peers", "0", code=2)


def all_of_a_few_peers_come_into_step(field):
    figures = figures_of(field, "peers", "--peers", "6", "--reactors", "2", "--rate", "50",
                         "--seconds", "1")
    for name in ("in_step_before", "in_step"):
        check(figures[name]["value"] == figures[name]["ceiling"] == 6, "not all are in step",
              figures[name])
    for name in ("p50", "p99", "p50_http", "p99_websocket", "cpu_node", "waited_node", "rate"):
        check(figures[name]["value"] > 0 and figures[name]["ratio"] > 0, name + " was not measured",
              figures[name])
    check(figures["rss_anon"]["rss_anon_bytes"] > 0, "memory was not measured", figures["rss_anon"])


def each_of_a_few_peers_gets_its_own(field):
    figures = figures_of(field, "peers", "--variant", "own", "--peers", "4", "--reactors", "2",
                         "--rate", "100", "--seconds", "1")
    check(figures["in_step"]["value"] == figures["in_step"]["ceiling"] == 4, "not all are in step",
          figures["in_step"])
    check(figures["delivered"]["value"] <= 1.5 * figures["rate"]["value"],
          "some got more than their own", figures["delivered"])


def a_peer_that_reads_nothing_is_measured(field):
    figures = figures_of(field, "slow_receiver", "--peers", "2", "--seconds", "1")
    check(figures["written"]["value"] > 0, "nothing was written")
    check(figures["growth"]["ceiling"] == 8, "not held against its window", figures["growth"])
    check(figures["rate_ratio"]["value"] > 0, "the others were not measured", figures["rate_ratio"])


node.main(benches_are_listed, all_of_a_few_peers_come_into_step,
          each_of_a_few_peers_gets_its_own, a_peer_that_reads_nothing_is_measured)
