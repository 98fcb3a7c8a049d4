"""Pairs: variants of visitas against a reference, each measured right after the other, in alternating order."""

from collections.abc import Callable
from dataclasses import dataclass

from .compare import Plan
from .contenders import Contender
from .evidence import Evidence
from .pgbench import measure_insert
from .point import measure
from .preload import preload, relation_bytes
from .session import ContenderError, Session
from .spread import ratio, spread
from .stores import DATABASE, Stores


@dataclass
class Variant:
    """One side of a pair."""

    name: str
    contender: Contender | None  # None: pgbench, single-row INSERTs
    processes: int = 1
    rows: int = 0  # in the table before anything is measured


def run_pairs(variants: list[Variant], plan: Plan, stores: Stores, evidence: Evidence) -> None:
    """The first variant is the reference. Every point starts its own server, so that nothing is left of the last."""
    for variant in variants:
        if variant.rows:
            look_ms = preload(variant.contender, variant.rows, stores, evidence.logs, _database(variant))
            evidence.add_session({"variant": variant.name, "look_ms": look_ms})
    for number in range(plan.rounds):
        order = variants if number % 2 == 0 else variants[::-1]
        for connections in plan.connections:
            for tool in plan.tools:
                with evidence.turn():
                    for variant in order:
                        record = _point(variant, tool, connections, plan, stores, evidence)
                        evidence.add_point({"round": number + 1, "variant": variant.name} | record)


def _database(variant: Variant) -> str:
    return f"rows_{variant.rows}" if variant.rows else DATABASE


def _point(variant: Variant, tool: str, connections: int, plan: Plan, stores: Stores, evidence: Evidence) -> dict:
    if not variant.rows:
        stores.fresh_database()
    if variant.contender is None:
        return measure_insert(stores, plan.conditions)
    database = _database(variant)
    try:
        with Session(variant.contender, stores, evidence.logs, variant.processes, database) as session:
            before, last_id = relation_bytes(stores, database), stores.last_id(database)
            record = measure(session, tool, connections, plan.conditions, keep_rows=True)
            after, rows = relation_bytes(stores, database), stores.rows_after(last_id, database)
            return record | {"growth": {name: after[name] - before[name] for name in after} | {"rows": rows}}
    except ContenderError as error:
        return {"contender": variant.contender.name, "tool": tool, "connections": connections, "thrown_out": str(error)}


def ratios(evidence: Evidence, reference: str, variant: str, figure: Callable, tool: str, connections: int) -> dict:
    """The spread of variant/reference over the rounds in which both count."""
    by_round = {
        name: {
            point["round"]: figure(point)
            for point in evidence.good(variant=name, connections=connections)
            if point["tool"] in (tool, "pgbench")
        }
        for name in (reference, variant)
    }
    both = by_round[reference].keys() & by_round[variant].keys()
    found = [ratio(by_round[variant][number], by_round[reference][number]) for number in sorted(both)]
    return spread(value for value in found if value is not None)
