#!/usr/bin/env bash
# Visits per second of any visit counter, with oha: visits-oha.sh URL CONNECTIONS SECONDS
# Example: bench/visits-oha.sh http://127.0.0.1:5000/ 64 10
# The server counts every visit that oha makes. OHA names the program where it is not on the PATH.
# RATE=N: N requests per second, and latency from when each was due. PER_CONNECTION=1: one per connection.
set -euo pipefail

if [[ $# -ne 3 ]]; then
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
fi
url=$1 connections=$2 seconds=$3
oha=${OHA:-oha}
command -v "$oha" >/dev/null || {
    echo "oha is not installed: bench/install-oha builds it, in minutes; visits-wrk.sh needs only wrk" >&2
    exit 1
}

options=()
[[ -z ${RATE:-} ]] || options+=(-q "$RATE" --latency-correction)
case ${PER_CONNECTION:-} in
    '') ;;
    1) options+=(--disable-keepalive) ;;
    *) echo "oha makes one request per connection, or any number; visits-wrk.sh can" >&2; exit 2 ;;
esac
[[ -z ${NAMES:-} ]] || { echo "oha asks for one path; visits-wrk.sh can" >&2; exit 2; }

ulimit -n "$(ulimit -Hn)"
# --wait-ongoing-requests-after-deadline: no request is cut off, so the 200s oha counts are all its visits.
# The report has the lines of visits-wrk.lua.
"$oha" --no-tui --output-format json -c "$connections" -z "${seconds}s" \
    --wait-ongoing-requests-after-deadline --redirect 0 "${options[@]}" "$url" |
    jq --raw-output '
        .latencyPercentiles as $latency
        | (.statusCodeDistribution | with_entries(select((.key | tonumber) < 400)) | add // 0) as $ok
        | {
            in_flight: 0,
            ok: $ok,
            failed_status: ((.statusCodeDistribution | add // 0) - $ok),
            failed_socket: (.errorDistribution | add // 0),
            seconds: .summary.total,
            visits_per_second: ($ok / .summary.total),
            bytes: (.summary.sizePerRequest // 0),
            p50_ms: ($latency.p50 * 1000),
            p99_ms: ($latency.p99 * 1000),
            p99_9_ms: ($latency."p99.9" * 1000),
            max_ms: (.summary.slowest * 1000)
        }
        | to_entries[]
        | "\(.key)                   "[:18] + "\(.value * 1000 | round / 1000)"'
