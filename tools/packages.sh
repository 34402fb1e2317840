# shellcheck shell=sh disable=SC2034 # sourced
# What building Tandem needs on Debian 12, and a way to get it. Sourced by tools/demo, tools/test and
# .ci/run; asks apt only for what is missing, so that nothing missing means no network.

packages_build='meson ninja-build gcc libc6-dev pkg-config liblmdb-dev libsodium-dev libxxhash-dev
    libmsgpack-dev uthash-dev libuv1-dev libwebsockets-dev libwebsockets-evlib-uv libcurl4-openssl-dev
    libjansson-dev libsmartcols-dev zlib1g-dev libzstd-dev libcmocka-dev'
packages_test="$packages_build g++ python3 python3-msgpack python3-websocket strace"
packages_ci="$packages_test clang libclang-rt-14-dev"
packages_coverage="$packages_test gcovr"

# install_missing PACKAGE…: names what is missing and installs it, as root or through sudo; never
# asks. False, having said why, if that is not possible.
install_missing() {
    command -v dpkg-query >/dev/null || {
        printf 'this is no Debian; what is needed: %s\n' "$*" >&2
        return 1
    }
    missing=
    for package; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
        [ "$status" = installed ] || missing="$missing $package"
    done
    if [ -z "$missing" ]; then
        printf 'toolchain and libraries are present\n'
        return 0
    fi
    printf 'installing%s\n' "$missing"
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || {
            printf 'run it as root, or install%s\n' "$missing" >&2
            return 1
        }
        as_root='sudo -n'
    fi
    apt_log=$(mktemp)
    # shellcheck disable=SC2086 # a list of words
    if apt_quietly update && apt_quietly --no-install-recommends install $missing; then
        rm -f "$apt_log"
        return 0
    fi
    tail -n 20 "$apt_log" >&2
    rm -f "$apt_log"
    printf 'apt could not install%s\n' "$missing" >&2
    return 1
}

apt_quietly() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >>"$apt_log" 2>&1 </dev/null
}
