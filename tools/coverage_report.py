"""
The table of tools/coverage, and the floors below which it fails.

Floors: 95 % of lines and 90 % of branches over store/, reactor/, channel/ and sync/ together; every
branch of what may never be wrong: the validator of what strangers send, the status machine of job
handles, the append to the operations store.

Not counted: the branches of assertions (gcovr leaves them out by pattern) and those within utlist's
macros, which are that library's code though they stand in our lines; the last lines say what the
figure would be with them.

usage: coverage_report.py ROOT COVERAGE_JSON [--missing] [FILE]…
"""
import collections
import json
import re
import sys

FLOORS = ("store", "reactor", "channel", "sync")
LINES_MIN = 95.0
BRANCHES_MIN = 90.0
UTLIST = re.compile(r"\b[DL]L_[A-Z0-9_]+\(")

# File: its functions of which every branch must be taken; None: all of them.
WHOLE = {
    "transport/validator.c": None,
    "channel/job_handle.c": None,
    "store/msgpack.c": [
        "big_endian", "header_number", "header_body", "header_count", "header_extension",
        "read_wide", "read_item", "tandem_read", "item_children", "tandem_msgpack_validate",
    ],
    "store/op_store.c": [
        "collection_look", "origin_look", "head_compare", "head_move", "run_extend", "lack_follow",
        "lacks_after", "job_write", "job_look", "append_job", "breaks_group", "td_op_store_append",
    ],
    "store/op_place.c": [
        "td_job_check", "td_head_find", "find", "held_prefix", "is_of_place", "td_lack_find",
        "brings_end", "head_before", "td_chain_reaches", "place_first", "td_job_place",
        "td_place_head",
    ],
}


class Count(collections.Counter):
    """lines, lines_hit, branches, branches_hit, foreign, foreign_hit"""

    def percent(self, what):
        return 100.0 * self[what + "_hit"] / self[what] if self[what] else 100.0

    def row(self, name):
        return (f"{name:30s} {self.percent('lines'):6.1f} % of {self['lines']:5d} lines "
                f"{self.percent('branches'):6.1f} % of {self['branches']:5d} branches, "
                f"{self['branches'] - self['branches_hit']} not")


def functions_of(source):
    """Which function each line stands in: they begin and end at the left margin."""
    inside, within = None, {}
    for number, line in enumerate(source, 1):
        begin = re.match(r"[a-z].*?\b(\w+)\([^;]*$", line)
        if begin and not inside:
            inside = begin.group(1)
        if inside:
            within[number] = inside
        if line.startswith("}") or (inside and line.endswith(");")
                                    and not line.startswith(" ") and line[0] != "}"):
            inside = None
    return within


def look_at(name, lines, source, count, missing, must):
    within = functions_of(source)
    for line in lines:
        number = line["line_number"]
        if line.get("gcovr/noncode"):
            continue
        text = source[number - 1]
        branches = [b["count"] > 0 for b in line["branches"] if not b.get("gcovr/excluded")]
        kind = "foreign" if UTLIST.search(text) else "branches"
        count["lines"] += 1
        count["lines_hit"] += line["count"] > 0
        count[kind] += len(branches)
        count[kind + "_hit"] += sum(branches)
        not_taken = 0 if kind == "foreign" else len(branches) - sum(branches)
        if line["count"] > 0 and not not_taken:
            continue
        what = f"{not_taken} of {len(branches)}" if line["count"] else "line"
        missing.append(f"{name}:{number}: {what}: {text.strip()}")
        if name in WHOLE and not_taken and (
                WHOLE[name] is None or within.get(number) in WHOLE[name]):
            must.append(missing[-1])


def main(root, path, *rest):
    with open(path, encoding="utf-8") as file:
        files = {f["file"]: f["lines"] for f in json.load(file)["files"]}
    total, folders, missing, must = Count(), {}, [], []
    for name in sorted(files):
        count = Count()
        with open(f"{root}/{name}", encoding="utf-8") as file:
            source = file.read().split("\n")
        look_at(name, files[name], source, count, missing, must)
        for function in WHOLE.get(name) or []:
            if function not in functions_of(source).values():
                must.append(f"{name} has no function {function}")
        print(count.row(name))
        folder = name.split("/")[0]
        folders.setdefault(folder, Count()).update(count)
        if folder in FLOORS:
            total.update(count)
    if "--missing" in rest:
        wanted = [f for f in rest if f != "--missing"]
        print()
        for line in missing:
            if not wanted or line.split(":")[0] in wanted:
                print(line)
    print()
    for folder, count in folders.items():
        print(count.row(folder + "/"))
    print(total.row("without transport/"))
    branches = total["branches"] + total["foreign"]
    print("with utlist's own branches: "
          f"{100.0 * (total['branches_hit'] + total['foreign_hit']) / branches:.1f} % of {branches}")
    for line in must:
        print(f"must be reached: {line}")
    good = (total.percent("lines") >= LINES_MIN and total.percent("branches") >= BRANCHES_MIN
            and not must)
    print("ok" if good else f"FAILED: less than {LINES_MIN} % of lines, {BRANCHES_MIN} % of "
          "branches, or not all of what must be reached")
    return 0 if good else 1


sys.exit(main(*sys.argv[1:]))
