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
    command -v python3 >/dev/null || skip "python3 is not installed"
    if ! cmp -s "$peer/requirements.txt" "$cache/requirements.txt"; then
        python3 -m venv --clear "$cache/venv" || skip "python3 cannot make a virtual environment"
        "$cache/venv/bin/pip" install --quiet --only-binary :all: -r "$peer/requirements.txt"
        cp "$peer/requirements.txt" "$cache/"
    fi
}
