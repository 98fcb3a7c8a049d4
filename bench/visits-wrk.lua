-- The report of visits-wrk.sh: answers by kind, visits per second, and latency to p99.9.
-- Without PER_CONNECTION and NAMES only `done` is defined, so wrk runs no Lua while it measures.
local per_connection = tonumber(os.getenv("PER_CONNECTION") or 0)
local names = tonumber(os.getenv("NAMES") or 0)

-- The path of the counter that is next, of NAMES, which all threads visit in turn.
local function requests_of_names()
  local made = {}
  for n = 1, names do made[n] = wrk.format("GET", "/c/n" .. n) end
  return made
end

-- Every so many requests one ends its connection. On average it is the last of PER_CONNECTION.
local function requests_of_connections()
  local made = {}
  for n = 1, per_connection do made[n] = wrk.format() end
  wrk.headers["Connection"] = "close"
  made[per_connection] = wrk.format()
  return made
end

if names > 0 or per_connection > 1 then
  local made, n = {}, 0
  function init() made = names > 0 and requests_of_names() or requests_of_connections() end
  function request()
    n = n % #made + 1
    return made[n]
  end
elseif per_connection == 1 then
  wrk.headers["Connection"] = "close"
end

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
  line("bytes", "%.0f", summary.bytes / math.max(summary.requests, 1)) -- of an answer, its head included
  line("p50_ms", "%.3f", latency:percentile(50) / 1000)
  line("p99_ms", "%.3f", latency:percentile(99) / 1000)
  line("p99_9_ms", "%.3f", latency:percentile(99.9) / 1000)
  line("max_ms", "%.3f", latency.max / 1000)
end
