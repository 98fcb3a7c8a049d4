"""The tables of a comparison: rates, latencies, CPU per visit, footprints, ratios."""

from .compare import Plan
from .contenders import Contender
from .evidence import Evidence
from .spread import ratio, spread
from .tables import mebibytes, number, table, times, with_range


def sections(contenders: list[Contender], plan: Plan, evidence: Evidence, sizes: dict[str, dict]) -> list[str]:
    parts = []
    for tool in plan.tools:
        parts.append(f"## Visits per second ({tool})\n\n" + _rates(contenders, tool, plan, evidence))
    tool = plan.tools[0]
    parts.append("## Ratios\n\n" + _ratios(contenders, tool, plan, evidence))
    for connections in _shown(plan.connections):
        parts.append(
            f"## Latency and CPU at {connections} connections ({tool})\n\n" + _costs(contenders, tool, connections, evidence)
        )
    parts.append("## Footprint\n\n" + _footprint(contenders, evidence, sizes))
    return parts


def _shown(connections: list[int]) -> list[int]:
    """The numbers of connections with a table of their own: the usual ones, or the last where none of them ran."""
    return [count for count in connections if count in (64, 256)] or connections[-1:]


def median_rate(evidence: Evidence, name: str, tool: str, connections: int) -> float | None:
    points = evidence.good(contender=name, tool=tool, connections=connections)
    return spread(point["rate"] for point in points)["median"]


def _rates(contenders: list[Contender], tool: str, plan: Plan, evidence: Evidence) -> str:
    rows = []
    for contender in contenders:
        row = [contender.name]
        for connections in plan.connections:
            points = evidence.good(contender=contender.name, tool=tool, connections=connections)
            failed = " †" if any(point["failed"] for point in points) else ""
            row.append(with_range(spread(point["rate"] for point in points)) + failed)
        rows.append(row)
    legend = "Median of the rounds (smallest to largest). † some requests failed; only 200s are counted.\n"
    return table(["contender"] + [f"{count} conn." for count in plan.connections], rows) + "\n" + legend


def _costs(contenders: list[Contender], tool: str, connections: int, evidence: Evidence) -> str:
    rows = []
    for contender in contenders:
        points = evidence.good(contender=contender.name, tool=tool, connections=connections)
        row = [contender.name]
        for name in ("p50_ms", "p99_ms", "p99_9_ms"):
            row.append(number(spread(point[name] for point in points)["median"]))
        for process in ("server", "postgres", "redis", "load"):
            row.append(number(spread(point["cpu_us"][process] for point in points)["median"]))
        rows.append(row)
    head = ["contender", "p50 ms", "p99 ms", "p99.9 ms", "server us", "PostgreSQL us", "Redis us", "load us"]
    return table(head, rows) + "\nMedians of the rounds; CPU in microseconds per visit.\n"


def _footprint(contenders: list[Contender], evidence: Evidence, sizes: dict[str, dict]) -> str:
    rows = []
    for contender in contenders:
        sessions = [session for session in evidence.sessions if session["contender"] == contender.name]
        size = sizes.get(contender.name, {})
        rows.append([
            contender.name,
            with_range(spread(session["start_ms"] for session in sessions)),
            mebibytes(spread(session["peak_kib"] * 1024 for session in sessions)["median"]),
            mebibytes(size.get("program")),
            mebibytes(size.get("image")),
        ])
    return table(["contender", "start ms", "peak memory MiB", "program MiB", "image floor MiB"], rows)


def _ratios(contenders: list[Contender], tool: str, plan: Plan, evidence: Evidence) -> str:
    names = [contender.name for contender in contenders]
    peers = [c.name for c in contenders if c.kind == "visits" and c.name not in ("visitas", "flask-exercise")]
    fronts = [c.name for c in contenders if c.kind == "front" and c.name != "visitas-livez"]
    rows = []

    def row(label: str, value) -> None:
        rows.append([label] + [times(value(connections)) for connections in plan.connections])

    def rate(name: str, connections: int) -> float | None:
        return median_rate(evidence, name, tool, connections)

    def best(of: list[str], connections: int) -> float | None:
        return max(filter(None, (rate(name, connections) for name in of)), default=None)

    if "visitas" in names and peers:
        row("visitas / best peer", lambda n: ratio(rate("visitas", n), best(peers, n)))
    if "visitas" in names and "flask-exercise" in names:
        row("visitas / flask-exercise", lambda n: ratio(rate("visitas", n), rate("flask-exercise", n)))
    if {"visitas", "visitas-livez"} <= set(names):
        row("visitas / visitas-livez", lambda n: ratio(rate("visitas", n), rate("visitas-livez", n)))
        row("server CPU: visitas / visitas-livez", lambda n: ratio(
            _server_us(evidence, "visitas", tool, n), _server_us(evidence, "visitas-livez", tool, n)))
    if "visitas-livez" in names:
        for front in fronts:
            row(f"visitas-livez / {front}", lambda n: ratio(rate("visitas-livez", n), rate(front, n)))
            row(f"server CPU: visitas-livez / {front}", lambda n: ratio(
                _server_us(evidence, "visitas-livez", tool, n), _server_us(evidence, front, tool, n)))
    if not rows:
        return "Nothing to compare: too few contenders ran.\n"
    return table([f"medians, {tool}"] + [f"{count} conn." for count in plan.connections], rows)


def _server_us(evidence: Evidence, name: str, tool: str, connections: int) -> float | None:
    points = evidence.good(contender=name, tool=tool, connections=connections)
    return spread(point["cpu_us"]["server"] for point in points)["median"]
