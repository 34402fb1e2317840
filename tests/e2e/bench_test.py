"""`tandem bench`: that its benches run and say what they are to say. How fast anything is, is not
looked at: the machine that tests run on is no measure."""

import node
from node import check

FIELDS = {"bench", "variant", "figure", "value", "unit", "ceiling", "ratio", "rss_anon_bytes",
          "disk_bytes_per_operation", "wire_bytes_per_operation", "low", "high", "ratio_low",
          "ratio_high"}


def figures_of(field, name, *args):
    """The figures of a run of one variant, by name."""
    lines = field.run("--json", "bench", name, *args, timeout=60).lines()
    for line in lines:
        check(set(line) == FIELDS, "a figure has other fields", line)
        check(line["bench"] == name and line["variant"] and line["unit"], "not told of what", line)
        check(isinstance(line["value"], (int, float)), "the value is no number", line)
        check((line["ceiling"] is None) == (line["ratio"] is None), "a ratio to nothing", line)
    return {line["figure"]: line for line in lines}


def benches_are_listed(field):
    listed = {line["bench"] for line in field.run("--json", "bench", "--list").lines()}
    check({"catchup", "peers", "slow_receiver", "write"} <= listed, "benches are missing", listed)
    field.run("bench", "no_such_bench", code=4)
    field.run("bench", "write", "--variant", "no_such_variant", code=4)
    field.run("bench", "peers", "--peers", "0", code=2)


def small(*args):
    return ("--quick", "--operations", "5000", "--pairs", "2") + args


def writes_are_measured_beside_lmdb(field):
    for variant in ("one", "callers64", "batch100", "import"):
        rate = figures_of(field, "write", *small("--variant", variant))["rate"]
        check(rate["variant"] == variant, "another variant", rate)
        check(rate["value"] > 0 and rate["ratio"] > 0, "nothing was measured", rate)
        check(rate["low"] <= rate["value"] <= rate["high"], "no spread", rate)
        check(rate["rss_anon_bytes"] > 0 and rate["disk_bytes_per_operation"] > 128,
              "what it takes was not measured", rate)


def catching_up_is_measured_beside_the_floor(field):
    for variant in ("websocket", "http", "memory", "documents", "collections", "slow_link"):
        figures = figures_of(field, "catchup", *small("--variant", variant))
        rate = figures["rate"]
        check(rate["variant"] == variant, "another variant", rate)
        check(rate["value"] > 0 and rate["ratio"] > 0, "nothing was measured", rate)
        check(figures["rate_indexed"]["value"] <= rate["high"], "indexed before it was there", figures)
        check((rate["wire_bytes_per_operation"] is None) == (variant == "memory"),
              "the wire was not measured", rate)
        check(figures["operations_per_commit"]["value"] >= 1, "nothing was committed", figures)


def folding_opening_and_growing_are_measured(field):
    figures = figures_of(field, "fold", *small("--variant", "kv"))
    check(figures["late_folded"]["value"] < figures["late_folded"]["ceiling"],
          "a late operation folds all", figures["late_folded"])
    check(figures["cold_rate"]["ratio"] > 0 and figures["late"]["ratio"] > 0, "not measured", figures)
    time = figures_of(field, "open", "--quick", "--variant", "10000", "--pairs", "1")["time"]
    check(time["value"] > 0 and time["ratio"] > 0, "opening was not measured", time)
    for variant in ("catchup", "write"):
        figures = figures_of(field, "growth", *small("--variant", variant))
        check(figures["cost_1000"]["ratio"] > 0, "growth was not measured", figures)


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


node.main(benches_are_listed, writes_are_measured_beside_lmdb,
          catching_up_is_measured_beside_the_floor, folding_opening_and_growing_are_measured, all_of_a_few_peers_come_into_step,
          each_of_a_few_peers_gets_its_own, a_peer_that_reads_nothing_is_measured)
