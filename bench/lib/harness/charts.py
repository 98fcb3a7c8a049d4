"""The charts of a comparison, drawn from its medians."""

from operator import itemgetter
from pathlib import Path

from .compare import Plan
from .comparison_report import shown_connections
from .contenders import Contender
from .evidence import Evidence, cpu_us
from .svg import bars, lines

PROCESSES = {"server": "server", "PostgreSQL": "postgres", "Redis": "redis", "load": "load"}


def draw(contenders: list[Contender], plan: Plan, evidence: Evidence, directory: Path) -> list[str]:
    """Writes the charts that have something to show; their file names."""
    tool = plan.tools[0]

    def over_connections(title: str, unit: str, figure: str) -> str:
        series = {
            contender.name: [
                evidence.median(itemgetter(figure), contender=contender.name, tool=tool, connections=connections)
                for connections in plan.connections
            ]
            for contender in contenders
        }
        return lines(title, unit, [str(count) for count in plan.connections], series, f"connections ({tool})")

    charts = {
        "visits.svg": over_connections("Answers per second", "medians, logarithmic", "rate"),
        "latency.svg": over_connections("Latency, 99th percentile", "ms, medians, logarithmic", "p99_ms"),
    }
    for connections in shown_connections(plan.connections):
        charts[f"cpu-{connections}.svg"] = bars(
            f"CPU per visit at {connections} connections",
            "microseconds, medians",
            _cpu(contenders, tool, connections, evidence),
        )
    for name, chart in charts.items():
        if chart:
            (directory / name).write_text(chart)
    return [name for name, chart in charts.items() if chart]


def _cpu(contenders: list[Contender], tool: str, connections: int, evidence: Evidence) -> dict[str, dict[str, float]]:
    """The exercise is left out: it takes a hundred times the others, whose bars would not be seen."""
    found = {}
    for contender in contenders:
        wanted = {"contender": contender.name, "tool": tool, "connections": connections}
        if contender.name != "flask-exercise" and evidence.good(**wanted):
            found[contender.name] = {label: evidence.median(cpu_us(key), **wanted) for label, key in PROCESSES.items()}
    return found
