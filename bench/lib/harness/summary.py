"""summary.md: what was run, on what, what came out, what was thrown out."""

from .evidence import Evidence
from .tables import table


def write(
    title: str, command: str, sections: list[str], charts: list[str], facts: dict[str, str], evidence: Evidence
) -> None:
    parts = [f"# {title}\n", f"Command: `{command}`. Every record is in `raw.jsonl`.\n"]
    parts += sections
    parts += [f"![{chart.removesuffix('.svg')}]({chart})\n" for chart in charts]
    parts.append("## Thrown out\n\n" + _thrown_out(evidence))
    parts.append("## Machine, versions, settings\n\n" + _facts(facts))
    (evidence.directory / "summary.md").write_text("\n".join(parts))


def _thrown_out(evidence: Evidence) -> str:
    """Runs whose account was off, and contenders that did not run."""
    lines = []
    for point in evidence.points:
        if point["thrown_out"]:
            who = point.get("variant", point["contender"])
            lines.append(
                f"- round {point['round']}, {who}, {point['tool']}, "
                f"{point['connections']} connections: {point['thrown_out']}"
            )
    lines += [f"- {name}, not run: {why}" for name, why in evidence.skipped.items()]
    checked = sum(1 for point in evidence.points if "account" in point)
    return "\n".join([f"Runs with a checked account: {checked}.", ""] + (lines or ["None."])) + "\n"


def _facts(facts: dict[str, str]) -> str:
    rows = [[name, value.replace("\n", "; ").replace("|", "/")] for name, value in facts.items()]
    return table(["what", "which"], rows).replace("---:", "---")
