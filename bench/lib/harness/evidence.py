"""The evidence of a run: its folder, the raw records as they come, and the turns on a shared machine."""

import fcntl
import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from .spread import spread


class Evidence:
    """Appends records to raw.jsonl at once, so that a run that is cut short keeps what it measured."""

    def __init__(self, directory: Path, lock: Path | None):
        self.directory = directory
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.lock = lock
        self.points: list[dict] = []
        self.sessions: list[dict] = []
        self.skipped: dict[str, str] = {}

    def add_point(self, record: dict) -> None:
        self.points.append(record)
        self._append("point", record)
        print(describe(record), flush=True)

    def add_session(self, record: dict) -> None:
        self.sessions.append(record)
        self._append("session", record)

    def skip(self, name: str, why: str) -> None:
        self.skipped[name] = why
        print(f"SKIPPED: {name}: {why}", flush=True)

    def good(self, **wanted) -> list[dict]:
        """The points with these values that were not thrown out."""
        return [point for point in self.points if not point["thrown_out"] and _has(point, wanted)]

    def spread(self, figure: Callable[[dict], float | None], **wanted) -> dict:
        """The spread of a figure over the good points with these values; those that lack it do not count."""
        values = [figure(point) for point in self.good(**wanted)]
        return spread(value for value in values if value is not None)

    def median(self, figure: Callable[[dict], float | None], **wanted) -> float | None:
        return self.spread(figure, **wanted)["median"]

    def _append(self, kind: str, record: dict) -> None:
        with (self.directory / "raw.jsonl").open("a") as raw:
            raw.write(json.dumps({"kind": kind} | record) + "\n")

    def close(self) -> None:
        """Removes the servers' logs that are empty."""
        for log in self.logs.iterdir():
            if log.stat().st_size == 0:
                log.unlink()
        if not any(self.logs.iterdir()):
            self.logs.rmdir()

    @contextmanager
    def turn(self):
        """While it lasts, nothing else that takes the same lock file measures on this machine."""
        if self.lock is None:
            yield
            return
        with self.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def rate(point: dict) -> float:
    return point["rate"]


def cpu_us(process: str) -> Callable[[dict], float | None]:
    """The figure "CPU per visit of this process"."""
    return lambda point: point["cpu_us"].get(process)


def describe(record: dict) -> str:
    who = record["contender"] + (f" [{record['variant']}]" if "variant" in record else "")
    what = f"round {record['round']}  {who:<28} {record['tool']:<7} {record['connections']:>5} connections"
    if record["thrown_out"]:
        return f"{what}  THROWN OUT: {record['thrown_out']}"
    cpu = "  ".join(f"{name} {value:.1f}" for name, value in record["cpu_us"].items())
    failed = f"  {record['failed']} failed" if record["failed"] else ""
    latency = f"p50 {record['p50_ms']:.2f} ms  p99 {record['p99_ms']:.2f} ms"
    return f"{what}  {record['rate']:>9.0f}/s  {latency}  cpu us: {cpu}{failed}"


def _has(point: dict, wanted: dict) -> bool:
    return all(point.get(name) == value for name, value in wanted.items())
