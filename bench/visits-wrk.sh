#!/usr/bin/env bash
# Visits per second of any visit counter, with wrk: visits-wrk.sh URL CONNECTIONS SECONDS
# Example: bench/visits-wrk.sh http://127.0.0.1:5000/ 64 10
# Every visit wrk makes is recorded by the server it is pointed at.
set -euo pipefail

if [[ $# -ne 3 ]]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
url=$1 connections=$2 seconds=$3

# wrk needs at least one connection per thread; more threads than cores only take turns.
threads=$(nproc)
if ((threads > connections)); then threads=$connections; fi

ulimit -n "$(ulimit -Hn)"
# The 30 s time-out only decides what wrk calls late: a slow answer is still counted.
exec wrk --threads "$threads" --connections "$connections" --duration "${seconds}s" \
    --timeout 30s --script "$(dirname "$0")/visits-wrk.lua" "$url"
