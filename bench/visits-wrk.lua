-- The report of visits-wrk.sh: answers by kind, visits per second, and latency to p99.9.
-- Only `done` is defined, so wrk runs no Lua while it measures.
function done(summary, latency, requests)
  local e = summary.errors
  local ok = summary.requests - e.status
  local seconds = summary.duration / 1e6
  local function line(name, format, value) print(string.format("%-18s" .. format, name, value)) end
  line("ok", "%d", ok) -- answers with a status below 400
  line("failed_status", "%d", e.status) -- answers with a status of 400 or more
  line("failed_socket", "%d", e.connect + e.read + e.write)
  line("late", "%d", e.timeout)
  line("seconds", "%.3f", seconds)
  line("visits_per_second", "%.1f", ok / seconds)
  line("p50_ms", "%.3f", latency:percentile(50) / 1000)
  line("p99_ms", "%.3f", latency:percentile(99) / 1000)
  line("p99_9_ms", "%.3f", latency:percentile(99.9) / 1000)
  line("max_ms", "%.3f", latency.max / 1000)
end
