"""Load: runs visits-wrk.sh or visits-oha.sh and reads what it says."""

import json
import os
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent.parent
# What a tool may take beyond the asked seconds: slow answers are waited for.
GRACE_S = 60


@dataclass
class Load:
    """What the load generator saw."""

    ok: int  # answers with a status below 400
    failed: int  # answers with another status, and requests that got none
    seconds: float
    p50_ms: float
    p99_ms: float
    p99_9_ms: float
    in_flight: int  # requests the tool may have left unanswered at its end
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.ok / self.seconds


class LoadError(Exception):
    """The load generator did not do its work."""


def run_tool(tool: str, urls: list[str], connections: int, seconds: int, oha: Path) -> Load:
    """Loads all the URLs at once, the connections shared out evenly, and adds up what came back."""
    env = dict(os.environ, OHA=str(oha), OHA_FORMAT="json")
    share = max(1, connections // len(urls))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    children = [
        subprocess.Popen(
            [str(BENCH / f"visits-{tool}.sh"), url, str(share), str(seconds)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for url in urls
    ]
    deadline = time.monotonic() + seconds + GRACE_S
    try:
        outputs = [child.communicate(timeout=deadline - time.monotonic()) for child in children]
    except subprocess.TimeoutExpired as late:
        raise LoadError(f"{tool} did not end within {GRACE_S} s of its time") from late
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for child, (output, errors) in zip(children, outputs, strict=True):
        if child.returncode != 0:
            raise LoadError(f"{tool} ended with {child.returncode}: {(errors or output).strip()}")
    parse = {"wrk": parse_wrk, "oha": parse_oha}[tool]
    load = _sum([parse(output, share) for output, _ in outputs])
    load.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return load


def parse_wrk(output: str, connections: int) -> Load:
    """wrk drops what is in flight when its time is up: at most one request a connection."""
    values = {}
    for line in output.splitlines():
        words = line.split()
        if len(words) == 2:
            values[words[0]] = words[1]
    try:
        return Load(
            ok=int(values["ok"]),
            failed=int(values["failed_status"]) + int(values["failed_socket"]),
            seconds=float(values["seconds"]),
            p50_ms=float(values["p50_ms"]),
            p99_ms=float(values["p99_ms"]),
            p99_9_ms=float(values["p99_9_ms"]),
            in_flight=connections,
            cpu_seconds=0,
        )
    except (KeyError, ValueError) as error:
        raise LoadError(f"wrk said something else: {output!r}") from error


def parse_oha(output: str, _connections: int) -> Load:
    """oha waits for what is in flight when its time is up."""
    try:
        report = json.loads(output)
        statuses = {int(status): count for status, count in report["statusCodeDistribution"].items()}
        ok = sum(count for status, count in statuses.items() if status < 400)
        latency = report["latencyPercentiles"]
        return Load(
            ok=ok,
            failed=sum(statuses.values()) - ok + sum(report["errorDistribution"].values()),
            seconds=report["summary"]["total"],
            p50_ms=(latency["p50"] or 0) * 1000,
            p99_ms=(latency["p99"] or 0) * 1000,
            p99_9_ms=(latency["p99.9"] or 0) * 1000,
            in_flight=0,
            cpu_seconds=0,
        )
    except (KeyError, ValueError) as error:
        raise LoadError(f"oha said something else: {output!r}") from error


def _sum(loads: list[Load]) -> Load:
    """Several tools at once as one: rates add up, and the worst latency is the latency."""
    first = loads[0]
    if len(loads) == 1:
        return first
    ok = sum(load.ok for load in loads)
    return Load(
        ok=ok,
        failed=sum(load.failed for load in loads),
        seconds=ok / sum(load.rate for load in loads) if ok else first.seconds,
        p50_ms=max(load.p50_ms for load in loads),
        p99_ms=max(load.p99_ms for load in loads),
        p99_9_ms=max(load.p99_9_ms for load in loads),
        in_flight=sum(load.in_flight for load in loads),
        cpu_seconds=0,
    )
