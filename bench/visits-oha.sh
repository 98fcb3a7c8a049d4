#!/usr/bin/env bash
# Visits per second of any visit counter, with oha: visits-oha.sh URL CONNECTIONS SECONDS
# Example: bench/visits-oha.sh http://127.0.0.1:5000/ 64 10
# OHA_FORMAT=json prints oha's own JSON; OHA names the binary where it is not on the PATH.
set -euo pipefail

if [[ $# -ne 3 ]]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
url=$1 connections=$2 seconds=$3

ulimit -n "$(ulimit -Hn)"
# --wait-ongoing-requests-after-deadline: no request is cut off, so the 200s oha counts
# are all the visits it made.
exec "${OHA:-oha}" --no-tui --output-format "${OHA_FORMAT:-text}" -c "$connections" -z "${seconds}s" \
    --wait-ongoing-requests-after-deadline --redirect 0 "$url"
