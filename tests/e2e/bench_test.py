"""`tandem bench`: that its benches run and say what they are to say. How fast anything is, is not
looked at: the machine that tests run on is no measure."""

import os
import signal
import subprocess

import node
from node import check

FIELDS = {"bench", "variant", "figure", "value", "unit", "ceiling", "ratio", "rss_anon_bytes",
          "disk_bytes_per_operation", "wire_bytes_per_operation", "low", "high", "ratio_low",
          "ratio_high"}


def lines_of(field, name, *args):
    """The figures of a run."""
    lines = field.run("--json", "bench", name, *args, timeout=60).lines()
    for line in lines:
        check(set(line) == FIELDS, "a figure has other fields", line)
        check(line["bench"] == name and line["variant"] and line["unit"], "not told of what", line)
        check(isinstance(line["value"], (int, float)), "the value is no number", line)
        check((line["ceiling"] is None) == (line["ratio"] is None), "a ratio to nothing", line)
    return lines


def figures_of(field, name, *args):
    """Those of one variant, by name."""
    return {line["figure"]: line for line in lines_of(field, name, *args)}


def benches_are_listed(field):
    listed = {line["bench"] for line in field.run("--json", "bench", "--list").lines()}
    check({"catchup", "fanout", "handshake", "latency", "mesh", "peers", "slow_receiver",
           "write"} <= listed, "benches are missing", listed)
    field.run("bench", "no_such_bench", code=4)
    field.run("bench", "write", "--variant", "no_such_variant", code=4)
    field.run("bench", "peers", "--peers", "0", code=2)


def small(operations, *args):
    return ("--quick", "--operations", str(operations), "--pairs", "1") + args


def writes_are_measured_beside_lmdb(field):
    for variant in ("one", "callers64", "batch100", "import"):
        rate = figures_of(field, "write", *small(300, "--variant", variant))["rate"]
        check(rate["variant"] == variant, "another variant", rate)
        check(rate["value"] > 0 and rate["ratio"] > 0, "nothing was measured", rate)
        check(rate["low"] <= rate["value"] <= rate["high"], "no spread", rate)
        check(rate["rss_anon_bytes"] > 0 and rate["disk_bytes_per_operation"] > 128,
              "what it takes was not measured", rate)


def catching_up_is_measured_beside_the_floor(field):
    for variant in ("websocket", "http", "memory", "documents", "collections", "slow_link"):
        figures = figures_of(field, "catchup", *small(2000, "--variant", variant))
        rate = figures["rate"]
        check(rate["variant"] == variant, "another variant", rate)
        check(rate["value"] > 0 and rate["ratio"] > 0, "nothing was measured", rate)
        check(figures["rate_indexed"]["value"] <= rate["high"], "indexed before it was there", figures)
        check((rate["wire_bytes_per_operation"] is None) == (variant == "memory"),
              "the wire was not measured", rate)
        check(figures["operations_per_commit"]["value"] >= 1, "nothing was committed", figures)


def folding_opening_and_growing_are_measured(field):
    figures = figures_of(field, "fold", *small(2000, "--variant", "kv"))
    check(figures["late_folded"]["value"] < figures["late_folded"]["ceiling"],
          "a late operation folds all", figures["late_folded"])
    check(figures["cold_rate"]["ratio"] > 0 and figures["late"]["ratio"] > 0, "not measured", figures)
    time = figures_of(field, "open", "--quick", "--variant", "10000", "--pairs", "1")["time"]
    check(time["value"] > 0 and time["ratio"] > 0, "opening was not measured", time)
    for variant in ("catchup", "write"):
        figures = figures_of(field, "growth", *small(1000, "--variant", variant))
        check(figures["cost_1000"]["ratio"] > 0, "growth was not measured", figures)


def latencies_are_measured_beside_a_round_trip(field):
    for variant in ("200", "20000"):
        figures = figures_of(field, "latency", *small(100, "--variant", variant))
        for line in figures.values():
            check(line["variant"] == variant and line["unit"] == "us", "told of another", line)
            check(line["value"] > 0 and line["ratio"] > 0, "nothing was measured", line)
        check(figures["p50"]["value"] <= figures["p99"]["value"] <= figures["p999"]["value"],
              "they do not ascend", figures)
        check(figures["p50"]["ceiling"] <= figures["p99"]["ceiling"], "nor do the floor's", figures)
        check(figures["p50"]["wire_bytes_per_operation"] > 0, "the wire was not measured", figures)


def equal_stores_find_each_other_equal_in_few_bytes(field):
    lines = {(line["variant"], line["figure"]): line
             for line in lines_of(field, "handshake", *small(2000))}
    for line in lines.values():
        check(line["ceiling"] and line["rss_anon_bytes"] > 0, "not beside a smaller store", line)
    bytes_ = lines["equal", "bytes"]
    check(bytes_["value"] < 2048 and bytes_["ratio"] < 1.5, "they say much", bytes_)
    check(lines["missing10", "bytes"]["value"] > bytes_["value"], "ten operations took nothing")
    for variant in ("equal", "missing10"):
        for name in ("time", "time_again", "setup_bytes"):
            check(lines[variant, name]["value"] > 0, name + " was not measured", lines)
        check({(variant, "round_trips"), (variant, "round_trips_both")} <= set(lines),
              "round trips were not measured", lines)


def what_goes_to_many_is_measured_beside_many_receivers(field):
    for name in ("fanout", "mesh"):
        figures = figures_of(field, name, *small(1000))
        rate = figures["rate"]
        check(rate["value"] > 0 and rate["ratio"] > 0, "nothing was measured", rate)
        check(rate["rss_anon_bytes"] > 0 and rate["disk_bytes_per_operation"] > 128 and
              rate["wire_bytes_per_operation"] > 0, "what it takes was not measured", rate)
        check(figures["operations_per_commit"]["value"] >= 1, "nothing was committed", figures)


def session_of(pid):
    try:
        with open("/proc/%s/stat" % pid, encoding="ascii", errors="replace") as stat:
            return int(stat.read().rsplit(")", 1)[1].split()[3])
    except OSError:
        return None


def of_session(session):
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and session_of(pid) == session]


def an_interrupt_leaves_nothing(field):
    for name in ("fanout", "handshake", "latency", "mesh"):
        folder = os.path.join(field.folder, name)
        os.mkdir(folder)
        process = subprocess.Popen(
            [field.tandem, "bench", name], env=dict(node.environment(), TMPDIR=folder),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            field.until(name + " has processes", lambda: len(of_session(process.pid)) > 1)
            process.send_signal(signal.SIGINT)
            code = process.wait(node.DEADLINE_S * field.slower)
            left = of_session(process.pid)
        finally:
            for pid in of_session(process.pid):
                os.kill(int(pid), signal.SIGKILL)
            process.wait()
        check(code == 128 + signal.SIGINT, "%s ended with %d" % (name, code))
        check(not left, name + " left processes", left)
        check(not os.listdir(folder), name + " left folders", os.listdir(folder))


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
          catching_up_is_measured_beside_the_floor, folding_opening_and_growing_are_measured,
          latencies_are_measured_beside_a_round_trip, equal_stores_find_each_other_equal_in_few_bytes,
          what_goes_to_many_is_measured_beside_many_receivers, an_interrupt_leaves_nothing,
          all_of_a_few_peers_come_into_step, each_of_a_few_peers_gets_its_own,
          a_peer_that_reads_nothing_is_measured)
