#!/usr/bin/env bash
# Visits per second of any visit counter, with wrk: visits-wrk.sh URL CONNECTIONS SECONDS
# Example: bench/visits-wrk.sh http://127.0.0.1:5000/ 64 10
# The server counts every visit that wrk makes. PER_CONNECTION=N: N requests per connection on average.
# NAMES=N: visits to /c/n1 to /c/nN in turn.
set -euo pipefail

if [[ $# -ne 3 ]]; then
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
fi
url=$1 connections=$2 seconds=$3
command -v wrk >/dev/null || {
    echo "wrk is not installed: apt-get install wrk" >&2
    exit 1
}

# wrk needs at least one connection per thread; more threads than cores only share them.
threads=$(nproc)
if ((threads > connections)); then threads=$connections; fi

ulimit -n "$(ulimit -Hn)"
echo "in_flight         $connections" # at most: wrk drops what is in flight at its end
# The time-out decides only what wrk calls late: a slow answer is still counted.
exec wrk --threads "$threads" --connections "$connections" --duration "${seconds}s" \
    --timeout 30s --script "$(dirname "$0")/visits-wrk.lua" "$url"
