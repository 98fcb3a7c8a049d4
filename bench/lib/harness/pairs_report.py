"""The tables of a run in pairs: each variant's figures, and its ratios to the reference."""

from operator import itemgetter

from .compare import Plan
from .evidence import Evidence, cpu_us, rate
from .pairs import Variant, ratios
from .tables import number, table, with_range

FIGURES = {
    "rate": rate,
    "p50": itemgetter("p50_ms"),
    "p99": itemgetter("p99_ms"),
    "server CPU": cpu_us("server"),
    "PostgreSQL CPU": cpu_us("postgres"),
}


def sections(variants: list[Variant], plan: Plan, evidence: Evidence) -> list[str]:
    parts = []
    for tool in plan.tools:
        parts.append(f"## Ratios to {variants[0].name} ({tool})\n\n" + _ratios(variants, tool, plan, evidence))
        parts.append(f"## Figures ({tool})\n\n" + _figures(variants, tool, plan, evidence))
    if any(variant.rows for variant in variants):
        parts.append("## Growth per visit\n\n" + _growth(variants, evidence))
        parts.append("## A look at the history\n\n" + _looks(evidence))
    return parts


def _looks(evidence: Evidence) -> str:
    """`GET /history?by=day`, the client's time included."""
    rows = [[session["variant"], number(session["look_ms"])] for session in evidence.sessions]
    return table(["variant", "ms, median"], rows)


def _ratios(variants: list[Variant], tool: str, plan: Plan, evidence: Evidence) -> str:
    reference, rows = variants[0].name, []
    for variant in variants[1:]:
        for connections in plan.connections:
            row = [variant.name, str(connections)]
            for figure in FIGURES.values():
                row.append(with_range(ratios(evidence, reference, variant.name, figure, tool, connections), _ratio))
            rows.append(row)
    legend = (
        "Median over the pairs (smallest to largest): each pair is one round, "
        "its two sides measured one right after the other.\n"
    )
    return table(["variant", "connections"] + list(FIGURES), rows) + "\n" + legend


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _figures(variants: list[Variant], tool: str, plan: Plan, evidence: Evidence) -> str:
    rows = []
    for variant in variants:
        for connections in plan.connections:
            wanted = {
                "variant": variant.name,
                "connections": connections,
                "tool": tool if variant.contender else "pgbench",
            }
            medians = [evidence.median(itemgetter(name), **wanted) for name in ("p50_ms", "p99_ms", "p99_9_ms")]
            medians += [evidence.median(cpu_us(name), **wanted) for name in ("server", "postgres", "redis", "load")]
            rows.append(
                [variant.name, str(connections), with_range(evidence.spread(rate, **wanted))]
                + [number(median) for median in medians]
            )
    head = [
        "variant",
        "connections",
        "visits/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "server us",
        "PostgreSQL us",
        "Redis us",
        "load us",
    ]
    return table(head, rows)


def _growth(variants: list[Variant], evidence: Evidence) -> str:
    """Bytes by which table and indexes grew, over the rows added: those of the warm-ups too."""
    rows = []
    for variant in variants:
        growths = [point["growth"] for point in evidence.good(variant=variant.name) if "growth" in point]
        added = sum(growth["rows"] for growth in growths)
        row = [variant.name, number(added)]
        for part in ("table", "indexes"):
            row.append(number(sum(growth[part] for growth in growths) / added if added else None))
        rows.append(row)
    return table(["variant", "rows added", "table bytes", "index bytes"], rows)
