"""
The reference page of errors, store/ERRORS.md, made of the list in store/error.h as `tandem errors`
tells it, so that the two cannot disagree.

usage: errors_page.py TANDEM [--check PAGE]
With --check it prints nothing, and fails if the page is another one.
"""
import json
import subprocess
import sys

HEAD = """\
# Errors

Every call of the library and every command that fails names one of these. The list is closed: what
is not here does not happen. Names and numbers never change their meaning; new ones are added at the
end.

*Transient*: the same call may work later, so retry it and do not bury it. *Exit*: what the binary
ends with. `tandem errors NAME` prints a line of this; `tandem/store/error.h` is the same for programs.

This page is made by `tools/errors_page.py` of `store/error.h`.

| name | number | exit | transient | when it happens | what to do |
|---|---|---|---|---|---|
"""


def page(tandem):
    out = subprocess.run([tandem, "--json", "errors"], check=True, stdout=subprocess.PIPE).stdout
    rows = [json.loads(line) for line in out.splitlines()]
    return HEAD + "".join(
        f"| `{row['name']}` | {row['number']} | {row['exit_code']} | "
        f"{'yes' if row['transient'] else 'no'} | {row['when']} | {row['cure']} |\n"
        for row in rows)


def main():
    made = page(sys.argv[1])
    if "--check" not in sys.argv:
        print(made, end="")
        return
    with open(sys.argv[sys.argv.index("--check") + 1], encoding="utf-8") as file:
        if file.read() != made:
            sys.exit("store/ERRORS.md is not what tools/errors_page.py makes of store/error.h")


main()
