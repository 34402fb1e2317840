#!/bin/sh
# The quick start of README.md, run as it stands there: in an empty folder, on an address of its own,
# waiting for each node's ready line before it goes on.
#
# usage: readme_test.sh SOURCE_DIR BUILD_DIR
set -eu
unset CDPATH TANDEM_DATA_DIR

source=$1
build=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/tandem-readme.XXXXXX")
trap 'rm -rf -- "$work"' EXIT

# All of 127.0.0.0/8 is this machine, so that runs side by side need not share ports.
address=127.$(($$ / 65536 % 250 + 1)).$(($$ / 256 % 256)).$(($$ % 256))

{
    printf '%s\n' 'set -eu' "trap 'kill \$(cat pid.*); wait' EXIT"
    awk -v address="$address" '
        /^<!-- tests\/readme_test.sh runs this -->$/ { found = 1; next }
        found && /^```sh$/ { inside = 1; next }
        inside && /^```$/ { exit }
        !inside || /^PATH=/ { next }
        {
            gsub(/127\.0\.0\.1/, address)
            if (sub(/ &$/, "")) {
                n++
                printf "%s >ready.%d 2>log.%d &\necho $! >pid.%d\n", $0, n, n, n
                printf "until grep -q ^ready ready.%d; do kill -0 $!; sleep 0.05; done\n", n
            } else
                print
        }' "$source/README.md"
} >"$work/quick_start.sh"
[ "$(grep -c '^tandem' "$work/quick_start.sh")" -ge 8 ] || {
    echo "README.md has no quick start" >&2
    exit 1
}

cd "$work"
PATH=$build/tools/tandem:$PATH sh quick_start.sh >out || {
    echo "the quick start ends with $?" >&2
    cat out log.* >&2
    exit 1
}
cat out
# Both nodes' digests, and the document as both wrote it.
[ "$(grep -c '"stars": 5' out)" -eq 1 ] || { echo "anna did not get ben's change" >&2; exit 1; }
[ "$(sed -n 's/^  vector //p' out | sort | uniq -c | awk '{ print $1 }')" = 2 ] || {
    echo "the digests differ" >&2
    exit 1
}
