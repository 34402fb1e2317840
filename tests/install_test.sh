#!/bin/sh
# What a user of the library gets: install into an empty folder, then build the examples as a
# stranger would, with a compiler and pkg-config alone, against the shared and the static library;
# compare what they print; look at what the library exports, and whether README.md shows this code.
#
# usage: install_test.sh SOURCE_DIR BUILD_DIR
set -eu
export LC_ALL=C
unset CDPATH MAKEFLAGS DESTDIR

source=$1
build=$2
examples=$source/tests/examples
stage=$(mktemp -d "${TMPDIR:-/tmp}/tandem-install.XXXXXX")
trap 'rm -rf -- "$stage"' EXIT

fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
done_with() { printf 'ok: %s\n' "$*"; }

meson install -C "$build" --no-rebuild --destdir "$stage/root" >"$stage/install.log" 2>&1 ||
    { cat "$stage/install.log" >&2; fail "meson install"; }
pc=$(find "$stage/root" -name tandem.pc)
[ -f "$pc" ] || fail "no tandem.pc was installed"
export PKG_CONFIG_PATH="${pc%/*}" PKG_CONFIG_SYSROOT_DIR="$stage/root"
libdir=$(pkg-config --variable=libdir tandem)
case $libdir in "$stage"/*) ;; *) libdir=$stage/root$libdir ;; esac
include=$(find "$stage/root" -type d -path '*/include/tandem')
[ -f "$libdir/libtandem.so" ] || fail "no libtandem.so in $libdir"

# ---- Names ----

# Functions and data that the installed headers promise.
find "$include" -name '*.h' -exec cat {} + | awk '
    /^#/ { next }
    !inside && /^TANDEM_API / { inside = 1; text = "" }
    inside { text = text " " $0 }
    inside && /;/ {
        inside = 0
        sub(/\(.*/, "", text)
        sub(/;.*/, "", text)
        sub(/[ \t]+$/, "", text)
        sub(/.*[ \t*]/, "", text)
        print text
    }' | sort -u >"$stage/promised"
[ "$(wc -l <"$stage/promised")" -gt 50 ] || fail "the headers could not be read"
nm -D --defined-only "$libdir/libtandem.so" | awk '$2 != "A" { print $3 }' |
    sort >"$stage/exported.versioned"
sed 's/@.*//' "$stage/exported.versioned" | sort -u >"$stage/exported"
if grep -v '^tandem_' "$stage/exported"; then fail "a name that is not tandem_… is exported"; fi
if grep -v '@@LIBTANDEM_0$' "$stage/exported.versioned"; then fail "a name has no version"; fi
diff "$stage/promised" "$stage/exported" >"$stage/names.diff" || {
    sed -n 's/^< /promised, not exported: /p; s/^> /exported, in no public header: /p' \
        "$stage/names.diff" >&2
    fail "headers and library disagree"
}
done_with "$(wc -l <"$stage/exported") names exported, each one in a public header"

nm -g --defined-only "$libdir/libtandem.a" 2>/dev/null | awk 'NF == 3 { print $3 }' |
    grep -Ev '^(tandem|td)_' && fail "the static library would collide with a stranger's names"
done_with "the static library defines tandem_ and td_ names only"
readelf -d "$libdir/libtandem.so" | grep -q 'SONAME.*\[libtandem\.so\.0\]' ||
    fail "the soname is not libtandem.so.0"
done_with "soname libtandem.so.0"

# Each header stands alone, wherever it is included from.
(cd "$include" && find . -name '*.h') | while read -r header; do
    header=${header#./}
    printf '#include <tandem/%s>\nint main(void) { return 0; }\n' "$header" >"$stage/alone.c"
    # shellcheck disable=SC2046 # a list of words
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror -pedantic -fsyntax-only "$stage/alone.c" \
        $(pkg-config --cflags tandem) || fail "$header does not stand alone"
done
done_with "each header stands alone"

# ---- Programs ----

expect() {
    case $1 in
    hello)
        printf '%s\n' 'first: {"stars":5,"title":"Hello"}' 'first is a kv of 2 operations' ;;
    own_model)
        printf '%s\n' 'refused "many": score takes REPORT with an integer of 0 or more' 'best: 900' ;;
    two_reactors)
        printf '%s\n' 'anna: {"done":true,"title":"Our plan"}' 'ben: {"done":true,"title":"Our plan"}' ;;
    check_model)
        printf '%s\n' 'all laws hold' ;;
    umbrella)
        printf '%s\n' 'TANDEM_OK, model kv' ;;
    esac
}

# Run one program and compare: $1 the example, $2 how it was linked, the rest its arguments.
run() {
    name=$1
    how=$2
    shift 2
    LD_LIBRARY_PATH=$libdir "$stage/$name" "$@" >"$stage/out" || fail "$name ($how) exits with $?"
    expect "$name" | diff - "$stage/out" >&2 || fail "$name ($how) prints something else"
    done_with "$name, $how"
}

# Build and run all examples: $1 says how they are linked, $2 is pkg-config's flag for it.
build_all() {
    for name in hello own_model two_reactors check_model; do
        # shellcheck disable=SC2046,SC2086 # lists of words
        ${CC:-cc} -std=c11 -Wall -Wextra -Werror -pedantic -o "$stage/$name" "$examples/$name.c" \
            $(pkg-config $2 --cflags --libs tandem) || fail "$name ($1) does not build"
        run "$name" "$1"
    done
    # shellcheck disable=SC2046,SC2086
    ${CXX:-c++} -std=c++11 -Wall -Wextra -Werror -pedantic -o "$stage/umbrella" \
        "$examples/umbrella.cpp" $(pkg-config $2 --cflags --libs tandem) ||
        fail "umbrella.cpp ($1) does not build"
    run umbrella "$1"
}

build_all shared ''
run hello "in a data folder" "$stage/notes"
[ -f "$stage/notes/lock" ] || fail "hello made no data folder"

tandem=$(find "$stage/root" -path '*/bin/tandem')
"$tandem" --data "$stage/notes" doc show notes first --json >"$stage/out"
grep -q '"title": *"Hello"' "$stage/out" || fail "the binary does not show what the library wrote"
done_with "the installed binary reads what the library wrote"

rm "$libdir"/libtandem.so*
build_all static --static
if readelf -d "$stage/hello" | grep -q libtandem; then fail "hello is not linked statically"; fi

# ---- README.md ----

# Code in README.md stands under a comment that names its file.
for name in hello own_model two_reactors check_model; do
    awk -v mark="<!-- tests/examples/$name.c -->" '
        $0 == mark { found = 1; next }
        found && !inside && /^```c$/ { inside = 1; next }
        inside && /^```$/ { exit }
        inside { print }' "$source/README.md" >"$stage/shown"
    if [ -s "$stage/shown" ]; then
        diff "$stage/shown" "$examples/$name.c" >&2 || fail "README.md shows another $name.c"
        done_with "README.md shows $name.c"
    fi
done
for name in hello own_model; do
    grep -qxF "<!-- tests/examples/$name.c -->" "$source/README.md" ||
        fail "README.md does not show $name.c"
done
