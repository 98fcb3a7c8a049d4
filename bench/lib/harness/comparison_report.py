"""The tables of a comparison: rates, latencies, CPU per visit, footprints, ratios."""

from collections.abc import Callable
from operator import itemgetter

from .compare import Plan
from .contenders import Contender
from .evidence import Evidence, cpu_us, rate
from .spread import ratio, spread
from .tables import mebibytes, number, table, times, with_range

Figure = Callable[[dict], float | None]


def sections(contenders: list[Contender], plan: Plan, evidence: Evidence, sizes: dict[str, dict]) -> list[str]:
    parts = []
    for tool in plan.tools:
        parts.append(f"## Visits per second ({tool})\n\n" + _rates(contenders, tool, plan, evidence))
    tool = plan.tools[0]
    parts.append("## Ratios\n\n" + _ratios(contenders, tool, plan, evidence))
    for connections in shown_connections(plan.connections):
        parts.append(
            f"## Latency and CPU at {connections} connections ({tool})\n\n"
            + _costs(contenders, tool, connections, evidence)
        )
    parts.append("## Footprint\n\n" + _footprint(contenders, evidence, sizes))
    return parts


def shown_connections(connections: list[int]) -> list[int]:
    """The numbers of connections with a table of their own: the usual ones, or the last where none of them ran."""
    return [count for count in connections if count in (64, 256)] or connections[-1:]


def _rates(contenders: list[Contender], tool: str, plan: Plan, evidence: Evidence) -> str:
    rows = []
    for contender in contenders:
        row = [contender.name]
        for connections in plan.connections:
            wanted = {"contender": contender.name, "tool": tool, "connections": connections}
            failed = " †" if any(point["failed"] for point in evidence.good(**wanted)) else ""
            row.append(with_range(evidence.spread(rate, **wanted)) + failed)
        rows.append(row)
    legend = "Median of the rounds (smallest to largest). † some requests failed; only 200s are counted.\n"
    return table(["contender"] + [f"{count} conn." for count in plan.connections], rows) + "\n" + legend


def _costs(contenders: list[Contender], tool: str, connections: int, evidence: Evidence) -> str:
    rows = []
    for contender in contenders:
        wanted = {"contender": contender.name, "tool": tool, "connections": connections}
        medians = [evidence.median(itemgetter(name), **wanted) for name in ("p50_ms", "p99_ms", "p99_9_ms")]
        medians += [evidence.median(cpu_us(name), **wanted) for name in ("server", "postgres", "redis", "load")]
        rows.append([contender.name] + [number(median) for median in medians])
    head = ["contender", "p50 ms", "p99 ms", "p99.9 ms", "server us", "PostgreSQL us", "Redis us", "load us"]
    return table(head, rows) + "\nMedians of the rounds; CPU in microseconds per visit.\n"


def _footprint(contenders: list[Contender], evidence: Evidence, sizes: dict[str, dict]) -> str:
    rows = []
    for contender in contenders:
        sessions = [session for session in evidence.sessions if session["contender"] == contender.name]
        size = sizes.get(contender.name, {})
        rows.append(
            [
                contender.name,
                with_range(spread(session["start_ms"] for session in sessions)),
                mebibytes(spread(session["peak_kib"] * 1024 for session in sessions)["median"]),
                mebibytes(size.get("program")),
                mebibytes(size.get("image")),
            ]
        )
    return table(["contender", "start ms", "peak memory MiB", "program MiB", "image floor MiB"], rows)


def _ratios(contenders: list[Contender], tool: str, plan: Plan, evidence: Evidence) -> str:
    names = [contender.name for contender in contenders]
    peers = [c.name for c in contenders if c.kind == "visits" and c.name not in ("visitas", "flask-exercise")]
    fronts = [c.name for c in contenders if c.kind == "front" and c.name != "visitas-livez"]

    def median(figure: Figure, name: str, connections: int) -> float | None:
        return evidence.median(figure, contender=name, tool=tool, connections=connections)

    def row(label: str, figure: Figure, name: str, others: list[str]) -> list[str]:
        """This contender's median by the greatest of the others'."""
        cells = []
        for connections in plan.connections:
            greatest = max(filter(None, (median(figure, other, connections) for other in others)), default=None)
            cells.append(times(ratio(median(figure, name, connections), greatest)))
        return [label] + cells

    rows = []
    if "visitas" in names and peers:
        rows.append(row("visitas / best peer", rate, "visitas", peers))
    for other in ("flask-exercise", "visitas-livez"):
        if {"visitas", other} <= set(names):
            rows.append(row(f"visitas / {other}", rate, "visitas", [other]))
    if {"visitas", "visitas-livez"} <= set(names):
        rows.append(row("server CPU: visitas / visitas-livez", cpu_us("server"), "visitas", ["visitas-livez"]))
    for front in fronts if "visitas-livez" in names else []:
        rows.append(row(f"visitas-livez / {front}", rate, "visitas-livez", [front]))
        rows.append(row(f"server CPU: visitas-livez / {front}", cpu_us("server"), "visitas-livez", [front]))
    if not rows:
        return "Nothing to compare: too few contenders ran.\n"
    return table([f"medians, {tool}"] + [f"{count} conn." for count in plan.connections], rows)
