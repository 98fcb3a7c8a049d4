"""Measures visitas under what users have, each beside the plain case (docs/benchmarks.md)."""

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median

import harness
from harness import Contender, Results, Workload, spread, table
from stores import BENCH, Stores

NGINX = "nginx's constant"
PLAIN = "plain"


@dataclass(frozen=True)
class Row:
    """A line of the table. A goal is the least ratio to the reference that is wanted."""

    name: str
    work: Workload = field(default_factory=Workload)
    goal: float | None = None
    reference: str = PLAIN
    connections: int = 0  # 0: those of the block
    blocks: tuple[int, ...] = ()  # with these connections alone; else with all
    tool: str = "wrk"
    share: float = 0.0  # of the highest rate of oha, which came before

    @property
    def is_front(self) -> bool:
        return self.name.startswith(NGINX)


def groups(table_rows: int) -> list[list[Row]]:
    """All rows but the plain one. Before and after each group a plain load is measured."""
    once, ten = Workload(per_connection=1), Workload(per_connection=10)
    nginx_once, nginx_ten = f"{NGINX}, 1 request per connection", f"{NGINX}, 10 requests"
    oha = {"blocks": (256,), "tool": "oha"}
    return [
        [Row("16 connections", connections=16, blocks=(64,))],
        [Row("1,024 connections", connections=1024, blocks=(256,))],
        [
            Row(nginx_once, once),
            Row("1 request per connection", once, 0.7, nginx_once),
            Row(nginx_ten, ten),
            Row("10 requests per connection", ten),
        ],
        [
            Row("a snapshot held, as by a dump", Workload(snapshot=True), 0.95),
            Row("3 writers of another table", Workload(elsewhere=3)),
            Row("3 other writers", Workload(writers=3), 0.8),
        ],
        [
            Row("10,000 idle connections", Workload(idle=10_000), 0.95),
            Row("1,000 listeners of /events", Workload(listeners=1_000), 0.95),
        ],
        [
            Row("TLS to both stores", Workload(tls=True), 0.95),
            Row("PgBouncer, by transaction", Workload(pooler=True), 0.9),
        ],
        [
            Row("the embedded store", Workload(embedded=True)),
            Row("1,000 names", Workload(names=1_000), 0.7),
        ],
        [
            Row(f"{table_rows:,} rows", Workload(rows=table_rows)),
            Row("WORKERS=8", Workload(workers=8), 0.9),
        ],
        [
            Row("oha, as fast as it can", **oha),
            *[Row(f"oha at {share:.0%} of that", **oha, share=share) for share in (0.1, 0.5, 0.8)],
        ],
    ]


def block(all_groups: list[list[Row]], connections: int, first: int) -> list[Row]:
    """The loads of one block in their order: plain, a group, plain, a group, ..., plain. Each time
    the order begins with another group."""
    here = []
    for group in all_groups:
        rows = [row for row in group if not row.blocks or connections in row.blocks]
        here += [[replace(row, connections=row.connections or connections) for row in rows]]
    here = [group for group in here if group]
    plain = Row(PLAIN, connections=connections)
    turn = first % len(here) if here else 0
    loads = [plain]
    for group in here[turn:] + here[:turn]:
        loads += [*group, plain]
    return loads


def ratios(records: list[dict], figure: str = "visits_per_second") -> list[tuple[dict, float]]:
    """Each record that counts, with its ratio to its reference in the same round and block: to the
    mean of the plain loads before and after it, or to the one load that it names."""
    found = []
    for at, record in enumerate(records):
        near = [other for other in records if same_block(record, other) and figure in other]
        named = [other for other in near if other["name"] == record["reference"]]
        if record["reference"] == PLAIN:
            before = [other for other in records[:at] if other in named][-1:]
            after = [other for other in records[at + 1 :] if other in named][:1]
            named = before + after
        if figure in record and not record["thrown_out"] and named:
            found.append((record, record[figure] / mean(other[figure] for other in named)))
    return found


def same_block(record: dict, other: dict) -> bool:
    keys = ("round", "block")
    return all(record[key] == other[key] for key in keys) and not other["thrown_out"]


FIGURES = {"visits/s": "visits_per_second", "p50 ms": "p50_ms", "p99 ms": "p99_ms"}
FIGURES |= {"p99.9 ms": "p99_9_ms", "server us": "server_us", "PostgreSQL us": "PostgreSQL_us"}


class WorkloadResults(Results):
    """The same records, and one table over them."""

    def report(self, facts: dict[str, str]) -> str:
        records, to_plain, to_goal = self.records, {}, {}
        with_plain = [record | {"reference": PLAIN} for record in records]
        for into, found in ((to_plain, with_plain), (to_goal, records)):
            for record, ratio in ratios(found):
                into.setdefault((record["block"], record["name"]), []).append(ratio)
        lines = []
        for connections in self.o.connections:
            names = {r["name"]: r for r in records if r["block"] == connections}
            for name, record in sorted(names.items(), key=lambda pair: pair[0] != PLAIN):
                key = (connections, name)
                lines.append(self.line(record, to_plain.get(key, []), to_goal.get(key, [])))
        head = ["", "connections", *FIGURES, "ratio to plain", "goal", "reached"]
        checked = sum("check" in record for record in records)
        left_out = [f"- {line}\n" for line in self.left_out or ["Nothing."]]
        return "\n".join(
            [
                f"# Workloads, {time.strftime('%F')}\n",
                "Medians of the rounds (smallest to largest); CPU in us per visit. The ratio is\n"
                "of visits per second, to the plain loads before and after in the same round.\n"
                "Latency at a fixed rate counts from when a request was due.\n",
                table("All workloads", head, lines),
                f"## Left out\n\n{checked} loads were checked.\n\n{''.join(left_out)}",
                table("Machine and versions", ["", ""], list(map(list, facts.items()))),
            ]
        )

    def line(self, record: dict, to_plain: list[float], to_goal: list[float]) -> list[str]:
        name, goal = record["name"], record["goal"]
        same = [r for r in self.records if r["name"] == name and r["block"] == record["block"]]
        same = [r for r in same if not r["thrown_out"]]
        cells = [spread([r[key] for r in same if key in r]) for key in FIGURES.values()]
        ratio = "-" if name == PLAIN else spread(to_plain, "{:.2f}".format)
        wanted, reached = "-", "-"
        if goal is not None:
            wanted = f"{goal:.2f}" + ("" if record["reference"] == PLAIN else " of nginx")
            reached = verdict(to_goal, goal)
        return [name, f"{record['connections']:,}", *cells, ratio, wanted, reached]


def verdict(found: list[float], goal: float) -> str:
    if not found:
        return "not measured"
    reached, digits = median(found) >= goal, 2
    if not reached and f"{median(found):.2f}" == f"{goal:.2f}":
        digits = 3
    return f"{'yes' if reached else 'no'} ({median(found):.{digits}f})"


def measure(row: Row, own: Path, seconds: int, highest: dict, stores: Stores) -> dict:
    """The record of one load. The highest rate that oha found stands in `highest`."""
    work, name = row.work, row.name
    if row.share:
        if "rate" not in highest:
            return {"name": name, "tool": row.tool, "thrown_out": "the highest rate is not known"}
        work = replace(work, rate=max(1, round(row.share * highest["rate"])))
    side = Contender(name, [own], exact=True, workload=work)
    if row.is_front:
        run = [BENCH / "peers" / "front-nginx" / "run"]
        side = Contender(name, run, counts=False, workload=work)
    record = harness.measure(side, row.tool, row.connections, seconds, stores)
    if row.tool == "oha" and not (row.share or record["thrown_out"]):
        highest["rate"] = record["visits_per_second"]
    return record | ({"rate": work.rate} if work.rate else {})


def run_rounds(
    all_groups: list[list[Row]], own: Path, stores: Stores, results: WorkloadResults
) -> None:
    o = results.o
    for number in range(o.rounds):
        for connections in o.connections:
            highest: dict[str, float] = {}
            for row in block(all_groups, connections, number):
                record = measure(row, own, o.seconds, highest, stores)
                about = {"connections": row.connections, "block": connections}
                about |= {"goal": row.goal, "reference": row.reference}
                results.add(number + 1, record | about)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    about = "Measures visitas under each workload, beside the plain case: see docs/benchmarks.md."
    parser = argparse.ArgumentParser(prog="bench/run --workloads", description=about)
    counts = {"type": lambda text: [int(word) for word in text.split(",")], "metavar": "N,..."}
    parser.add_argument("--workloads", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one round, a million rows")
    about = "rows with this in their name, a regular expression, beside plain"
    parser.add_argument("--only", metavar="TEXT", default="", help=about)
    parser.add_argument("--connections", **counts, default=[64, 256])
    for name, default, about in (
        ("rounds", 5, "rounds of the table"),
        ("seconds", 5, "length of a load"),
        ("rows", 50_000_000, "rows of the large table"),
    ):
        about = f"{about} ({default:,})"
        parser.add_argument(f"--{name}", type=int, metavar="N", default=default, help=about)
    about = "not a build of the checkout"
    parser.add_argument("--visitas", type=Path, metavar="BINARY", help=about)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: bench/runs/DATE-TIME")
    o = parser.parse_args(arguments)
    if o.quick:
        o.rounds, o.rows = 1, min(o.rows, 1_000_000)
    return o


def chosen(o: argparse.Namespace) -> list[list[Row]]:
    found = [[row for row in each if re.search(o.only, row.name)] for each in groups(o.rows)]
    return [group for group in found if group]


def main() -> int:
    o = parse()
    results, rows = WorkloadResults(o), chosen(o)
    if any(row.tool == "oha" for group in rows for row in group) and not harness.oha():
        results.skip("oha", "it is not installed; bench/install-oha builds it")
        rows = [group for group in rows if group[0].tool != "oha"]
    harness.install("pgbouncer")
    if subprocess.run([BENCH / "peers" / "front-nginx" / "build"], stdout=sys.stderr).returncode:
        results.skip("nginx", "it cannot be had here")
        rows = [[row for row in group if not row.is_front] for group in rows]
    own = harness.own_binary(o.visitas)

    def work(stores: Stores) -> None:
        large = [row for group in rows for row in group if row.work.rows]
        for row in large:
            harness.prepare_rows(Contender(row.name, [own], workload=row.work), stores)
        run_rounds(rows, own, stores, results)

    return harness.run(results, work)


if __name__ == "__main__":
    sys.exit(main())
