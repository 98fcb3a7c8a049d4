"""What PostgreSQL itself takes for one visit: pgbench, one client, single-row INSERTs over TCP, prepared."""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from .point import Conditions
from .processes import cpu_seconds
from .stores import DATABASE, Stores

TABLE = (
    "CREATE TABLE acessos"
    " (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, momento timestamptz NOT NULL DEFAULT now())"
)
INSERT = "INSERT INTO acessos DEFAULT VALUES;\n"


def measure_insert(stores: Stores, conditions: Conditions) -> dict:
    """A record like that of a point; a transaction takes the place of a visit."""
    stores.sql(TABLE)
    stores.sql("GRANT ALL ON acessos TO user_app")
    with TemporaryDirectory() as directory:
        _pgbench(stores, Path(directory), conditions.warm_up_s)
        stores.sql("CHECKPOINT")
        last_id, cpu = stores.last_id(DATABASE), cpu_seconds(stores.postgres.pid)
        latencies = _pgbench(stores, Path(directory), conditions.seconds)
        cpu = cpu_seconds(stores.postgres.pid) - cpu
    rows = stores.rows_after(last_id, DATABASE)
    seconds = sum(latencies) / 1e6
    return {
        "contender": "pgbench",
        "tool": "pgbench",
        "connections": 1,
        "ok": len(latencies),
        "failed": 0,
        "seconds": seconds,
        "rate": len(latencies) / seconds,
        "p50_ms": _percentile(latencies, 50),
        "p99_ms": _percentile(latencies, 99),
        "p99_9_ms": _percentile(latencies, 99.9),
        "cpu_us": {"postgres": cpu * 1e6 / len(latencies)},
        "thrown_out": None if rows == len(latencies) else f"{len(latencies)} transactions, but {rows} rows",
    }


def _pgbench(stores: Stores, directory: Path, seconds: int) -> list[int]:
    """The latency of every transaction, in microseconds, smallest first."""
    script = directory / "insert.sql"
    script.write_text(INSERT)
    for old in directory.glob("latency.*"):
        old.unlink()
    subprocess.run(
        [
            "pgbench",
            "--no-vacuum",
            "--client=1",
            "--protocol=prepared",
            f"--time={seconds}",
            f"--file={script}",
            "--log",
            f"--log-prefix={directory / 'latency'}",
            "--host=127.0.0.1",
            f"--port={stores.postgres_port}",
            "--username=user_app",
            DATABASE,
        ],
        env=dict(os.environ, PGPASSWORD=stores.password),
        check=True,
        capture_output=True,
        text=True,
    )
    lines = [line for log in directory.glob("latency.*") for line in log.read_text().splitlines()]
    return sorted(int(line.split()[2]) for line in lines)


def _percentile(sorted_us: list[int], percent: float) -> float:
    return sorted_us[min(len(sorted_us) - 1, int(len(sorted_us) * percent / 100))] / 1000
