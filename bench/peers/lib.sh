# Shared by the peers' build and run scripts: where things are built, and how.
# Source it from a script inside a peer's folder: source "$(dirname "$0")/../lib.sh"
# shellcheck shell=bash
set -euo pipefail

peer=$(cd "$(dirname "$0")" && pwd)
name=$(basename "$peer")
cache=${BENCH_CACHE:-$(cd "$peer/../.." && pwd)/.cache}/peers/$name
mkdir -p "$cache"

skip() { # skip WHY: this peer cannot be had here
    echo "SKIPPED: $name: $1" >&2
    exit 3
}

built() { # unless the caller has just built it, build this peer
    if [[ ${BUILT:-} != 1 ]]; then "$peer/build" >&2; fi
}

build_rust() { # a release build in the peer's own folder of the cache
    command -v cargo >/dev/null || skip "cargo is not installed"
    CARGO_TARGET_DIR=$cache cargo build --release --locked --manifest-path "$peer/Cargo.toml"
}

build_python() { # a virtual environment with exactly the pinned packages
    local python wanted
    # The distribution's own Python first: it is often the better optimised one.
    for python in /usr/bin/python3 python3; do
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then break; fi
        python=
    done
    [[ -n $python ]] || skip "no python3 that can make a virtual environment"
    wanted=$("$python" -VV && cat "$peer/requirements.txt")
    if [[ $wanted != "$(cat "$cache/made-from" 2>/dev/null)" ]]; then
        "$python" -m venv --clear "$cache/venv"
        "$cache/venv/bin/pip" install --quiet --only-binary :all: -r "$peer/requirements.txt"
        echo "$wanted" >"$cache/made-from"
    fi
}
