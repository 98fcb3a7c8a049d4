"""One point: one contender under one load, measured, and its account checked."""

import time
from dataclasses import dataclass
from pathlib import Path

from .account import Account
from .load import Load, LoadError, run_tool
from .processes import cpu_seconds
from .session import ContenderError, Session

# The stores have settled when this many readings in a row are the same.
SETTLED_READINGS = 3
SETTLE_POLL_S = 0.06
SETTLE_TIMEOUT_S = 60


@dataclass
class Conditions:
    """How every point of a run is measured."""

    seconds: int  # wrk takes whole ones only
    warm_up_s: int
    oha: Path


def measure(
    session: Session,
    tool: str,
    connections: int,
    conditions: Conditions,
    *,
    warm_up: bool = True,
    keep_rows: bool = False,
) -> dict:
    """Warm-up, load, account; the record of it. A run whose account is off says so under "thrown_out"."""
    record = {"contender": session.contender.name, "tool": tool, "connections": connections, "thrown_out": None}
    visits = session.contender.kind == "visits"
    try:
        if warm_up:
            _load(session, tool, connections, conditions.warm_up_s, conditions)
        if visits:
            before = _reset(session, keep_rows)
        cpu = _cpu(session)
        load = _load(session, tool, connections, conditions.seconds, conditions)
        spent = {name: value - cpu[name] for name, value in _cpu(session).items()} | {"load": load.cpu_seconds}
        record |= _figures(load, spent)
        if visits:
            account = _account(session, load, before)
            record["account"] = account.record()
            record["thrown_out"] = "; ".join(account.problems()) or None
        if load.ok == 0:
            record["thrown_out"] = f"no request succeeded, {load.failed} failed"
    except (LoadError, ContenderError, OSError) as error:
        record["thrown_out"] = f"{type(error).__name__}: {error}"
    return record


def _load(session: Session, tool: str, connections: int, seconds: int, conditions: Conditions) -> Load:
    return run_tool(tool, session.urls(), connections, seconds, conditions.oha)


def _cpu(session: Session) -> dict[str, float]:
    return {
        "server": session.cpu_seconds(),
        "postgres": cpu_seconds(session.stores.postgres.pid),
        "redis": cpu_seconds(session.stores.redis.pid),
    }


def _figures(load: Load, spent: dict[str, float]) -> dict:
    return {
        "ok": load.ok,
        "failed": load.failed,
        "seconds": load.seconds,
        "rate": load.rate,
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "p99_9_ms": load.p99_9_ms,
        "cpu_us": {name: seconds * 1e6 / max(1, load.ok) for name, seconds in spent.items()},
    }


@dataclass
class _Before:
    """The stores when the measured load began."""

    last_id: int
    cached: int
    total: int


def _reset(session: Session, keep_rows: bool) -> _Before:
    """Lets the warm-up's last visits end, empties the table unless it is to be kept, and writes out dirty pages."""
    stores, database = session.stores, session.database
    _settle(session, stores.last_id(database))
    if not keep_rows:
        stores.sql("TRUNCATE acessos", database)
    stores.sql("CHECKPOINT", database)
    total, cached = session.visit()
    if not keep_rows and total != 1:
        raise ContenderError(f"the first visit to an empty table was shown the total {total}")
    return _Before(stores.last_id(database), cached, total)


def _settle(session: Session, last_id: int) -> tuple[int, int]:
    """Waits until rows and increments no longer change; the rows after `last_id`, and the increments."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    readings: list[tuple[int, int]] = []
    while time.monotonic() < deadline:
        readings.append((session.stores.rows_after(last_id, session.database), session.stores.cached()))
        if len(readings) >= SETTLED_READINGS and len(set(readings[-SETTLED_READINGS:])) == 1:
            return readings[-1]
        time.sleep(SETTLE_POLL_S)
    raise LoadError(f"rows were still being written {SETTLE_TIMEOUT_S} s after the load ended")


def _account(session: Session, load: Load, before: _Before) -> Account:
    rows, cached = _settle(session, before.last_id)
    total_shown, cache_shown = session.visit()
    return Account(
        ok=load.ok,
        rows=rows,
        cached=cached - before.cached,
        unanswered=load.in_flight + load.failed,
        shown_total=total_shown - before.total - 1,
        shown_cache=cache_shown - before.cached - 1,
        strict=session.contender.strict,
    )
