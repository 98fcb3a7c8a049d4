"""The comparison: all contenders, round by round, under every tool and number of connections."""

from dataclasses import dataclass

from .contenders import Contender
from .evidence import Evidence
from .point import Conditions, measure
from .session import ContenderError, Session
from .stores import Stores


@dataclass
class Plan:
    """What to measure, how often."""

    rounds: int
    tools: list[str]
    connections: list[int]
    conditions: Conditions
    warm_up_once: bool = False  # at a session's first point only


def compare(contenders: list[Contender], plan: Plan, stores: Stores, evidence: Evidence) -> None:
    """Each round starts with another contender, so that early and late in a round fall on all."""
    for number in range(plan.rounds):
        start = number * len(contenders) // plan.rounds
        for contender in contenders[start:] + contenders[:start]:
            with evidence.turn():
                _session(contender, number + 1, plan, stores, evidence)


def _session(contender: Contender, number: int, plan: Plan, stores: Stores, evidence: Evidence) -> None:
    stores.fresh_database()
    try:
        with Session(contender, stores, evidence.logs) as session:
            warm_up = True
            for connections in plan.connections:
                for tool in plan.tools:
                    record = measure(session, tool, connections, plan.conditions, warm_up=warm_up)
                    evidence.add_point({"round": number} | record)
                    warm_up = not plan.warm_up_once
            evidence.add_session(
                {
                    "round": number,
                    "contender": contender.name,
                    "start_ms": session.start_ms,
                    "peak_kib": session.peak_kib(),
                }
            )
    except ContenderError as error:
        evidence.skip(contender.name, f"round {number}: {error}")
