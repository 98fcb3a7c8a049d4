"""The charts of a comparison, drawn from its medians."""

from pathlib import Path

from .compare import Plan
from .contenders import Contender
from .evidence import Evidence
from .spread import spread
from .svg import bars, lines


def draw(contenders: list[Contender], plan: Plan, evidence: Evidence, directory: Path) -> list[str]:
    """Writes the charts that have something to show; their file names."""
    tool = plan.tools[0]
    categories = [str(count) for count in plan.connections]
    axis = f"connections ({tool})"
    charts = {
        "visits.svg": lines(
            "Answers per second", "medians, logarithmic", categories,
            {c.name: [_median(evidence, c.name, tool, n, "rate") for n in plan.connections] for c in contenders}, axis),
        "latency.svg": lines(
            "Latency, 99th percentile", "ms, medians, logarithmic", categories,
            {c.name: [_median(evidence, c.name, tool, n, "p99_ms") for n in plan.connections] for c in contenders}, axis),
    }
    for connections in [count for count in plan.connections if count in (64, 256)] or plan.connections[-1:]:
        charts[f"cpu-{connections}.svg"] = bars(
            f"CPU per visit at {connections} connections", "microseconds, medians",
            _cpu(contenders, tool, connections, evidence))
    for name, chart in charts.items():
        if chart:
            (directory / name).write_text(chart)
    return [name for name, chart in charts.items() if chart]


def _median(evidence: Evidence, name: str, tool: str, connections: int, figure: str) -> float | None:
    points = evidence.good(contender=name, tool=tool, connections=connections)
    return spread(point[figure] for point in points)["median"]


def _cpu(contenders: list[Contender], tool: str, connections: int, evidence: Evidence) -> dict[str, dict[str, float]]:
    """The exercise is left out: it takes a hundred times the others, whose bars would not be seen."""
    found = {}
    for contender in contenders:
        points = evidence.good(contender=contender.name, tool=tool, connections=connections)
        if points and contender.name != "flask-exercise":
            found[contender.name] = {
                label: spread(point["cpu_us"][key] for point in points)["median"]
                for label, key in (("server", "server"), ("PostgreSQL", "postgres"), ("Redis", "redis"), ("load", "load"))
            }
    return found
